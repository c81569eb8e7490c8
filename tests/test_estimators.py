"""The estimators are accurate, keep their promises about kind and dtype, and refuse bad input."""

import math
import tracemalloc
from types import ModuleType

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import klapprox as kl
from klapprox import estimators

EXACT = {
    kl.k1: lambda x: -x,
    kl.k2: lambda x: x**2 / 2,
    kl.k3: lambda x: mpmath.exp(x) - 1 - x,
    kl.k3_forward: lambda x: x * mpmath.exp(x) - (mpmath.exp(x) - 1),
}
BITS = 1300  # exp(x) - 1 - x loses 2 log2(1/x) bits, about 1000 at x = 1e-150
ULPS = {np.float64: 3, np.float32: 1, np.float16: 1}

OTHERS = {
    "k_lambda": lambda x: kl.k_lambda(x, 0.5),
    "k_lambda at 0": lambda x: kl.k_lambda(x, 0),
    "k_alpha": lambda x: kl.k_alpha(x, -1),
    "k_f": lambda x: kl.k_f(x, lambda r: 1 / r, -1.0),
}
of_log_r = pytest.mark.parametrize(
    "function",
    [*EXACT, *OTHERS.values()],
    ids=[*(function.__name__ for function in EXACT), *OTHERS],
)
with_exact = pytest.mark.parametrize("function", EXACT, ids=lambda function: function.__name__)
nonnegative = pytest.mark.parametrize("function", [kl.k2, kl.k3, kl.k3_forward])
with_dtype = pytest.mark.parametrize("dtype", ULPS)


def ulp_errors(function, x):
    """Return the errors of function(x) in units in the last place of its dtype."""
    with np.errstate(over="ignore"):
        values = function(x)
    largest = float(np.finfo(x.dtype).max)
    errors = []
    with mpmath.workprec(BITS):
        for value, point in zip(
            values.astype(float).tolist(), x.astype(float).tolist(), strict=True
        ):
            exact = EXACT[function](mpmath.mpf(point))
            if abs(exact) > largest and math.isinf(value):
                errors.append(0.0)
                continue
            unit = float(np.spacing(x.dtype.type(min(abs(float(exact)), largest))))
            errors.append(float(abs(value - exact) / unit))
    return np.array(errors)


def grid(smallest, largest, dtype=np.float64):
    """Return points of both signs, dense around 1, where the formulas change."""
    sizes = np.concatenate(
        [
            np.geomspace(smallest, largest, 400),
            np.linspace(0.5, 2, 101),
            1 + np.arange(-4, 5) * np.finfo(dtype).eps,
        ]
    ).astype(dtype)
    return np.concatenate([-sizes[::-1], sizes])


@with_exact
def test_float64_is_within_3_ulp(function):
    assert ulp_errors(function, grid(1e-150, 700)).max() <= 3


@with_exact
@given(x=st.floats(-700, 700))
def test_any_float64_is_within_3_ulp(function, x):
    assert ulp_errors(function, np.array([x])).max() <= 3


@with_exact
def test_float32_is_within_1_ulp(function):
    assert ulp_errors(function, grid(1e-18, 80, np.float32)).max() <= 1


@with_exact
def test_float16_is_within_1_ulp(function):
    assert ulp_errors(function, grid(1e-7, 80, np.float16)).max() <= 1


@pytest.mark.parametrize("x", [-710.0, -745.0, -750.0, -1e5, -1e300, np.finfo(float).min])
def test_k3_forward_tends_to_1_far_on_the_left(x):
    assert kl.k3_forward(np.array([x])).tolist() == [1.0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_k3_forward_of_narrow_floats_tends_to_1_far_on_the_left(dtype):
    x = np.array([-85.0, -90.0, -120.0, -800.0, np.finfo(dtype).min], dtype=dtype)
    assert kl.k3_forward(x).tolist() == [1.0] * 5


@pytest.mark.parametrize(
    ("x", "dtype"), [(300, np.float16), (2e19, np.float32), (1.5e154, np.float64)]
)
def test_k2_overflows_only_where_its_value_does(x, dtype):
    # 300² is above the float16 maximum 65504, 300²/2 is not; likewise for the wider dtypes.
    assert ulp_errors(kl.k2, np.array([x], dtype=dtype)).max() <= 1


def test_longdouble_is_not_narrowed():
    x = np.array([-0.5, 1e-9, 2.0], dtype=np.longdouble)
    with mpmath.workprec(BITS):
        exact = [float(EXACT[kl.k3](mpmath.mpf(v))) for v in x.astype(float).tolist()]
    value = kl.k3(x)
    assert value.dtype == np.longdouble
    np.testing.assert_allclose(value.astype(float), exact, rtol=1e-15)


@with_dtype
@nonnegative
def test_never_negative(function, dtype):
    x = grid(float(np.finfo(dtype).smallest_subnormal), 80, dtype)
    with np.errstate(over="ignore"):
        assert np.all(function(x) >= 0)


@with_dtype
@nonnegative
def test_zero_where_the_laws_agree(function, dtype):
    value = function(np.array([0.0, -0.0], dtype=dtype))
    assert value.tolist() == [0.0, 0.0]
    assert not np.signbit(value).any()


@nonnegative
def test_subnormals_square_to_zero(function):
    tiny = np.finfo(float).smallest_subnormal
    assert function(np.array([tiny, -tiny])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("function", [kl.k1, lambda x: kl.k_lambda(x, 0.0)])
def test_k1_keeps_subnormals(function):
    tiny = np.finfo(float).smallest_subnormal
    assert function(np.array([tiny, -tiny])).tolist() == [-tiny, tiny]


@with_dtype
@of_log_r
def test_the_value_at_minus_infinity_is_the_documented_one(function, dtype):
    with np.errstate(divide="ignore"):  # in the 1/r that k_f gets from this test
        value = function(np.array([-np.inf, 0.0], dtype=dtype))
    assert value[0] == (1.0 if function is kl.k3_forward else np.inf)
    assert value[1] == 0  # the point beside it is not disturbed


@pytest.mark.parametrize("lam", [-2.0, 1.0, 3.0])
def test_k_lambda_at_minus_infinity_does_not_depend_on_lambda(lam):
    assert kl.k_lambda(np.array([-np.inf]), lam).tolist() == [np.inf]


@pytest.mark.parametrize("function", [kl.k3, kl.k3_forward, lambda x: kl.k_lambda(x, 2.0)])
@pytest.mark.parametrize(("dtype", "x"), [(np.float64, 710), (np.float32, 89), (np.float16, 12)])
def test_overflow_gives_plus_infinity(function, dtype, x):
    with np.errstate(over="ignore"):
        assert function(np.array([x], dtype=dtype)).tolist() == [np.inf]


@nonnegative
def test_monotone_on_each_side_of_zero(function):
    x = np.unique(grid(1e-150, 700))
    with np.errstate(over="ignore"):
        value = function(x)
    value = np.minimum(value, np.finfo(float).max)  # k3_forward overflows at the right end
    slack = 4 * np.spacing(value[1:])
    steps = np.diff(value)
    right = x[:-1] >= 0
    left = x[1:] <= 0
    assert np.all(steps[right] >= -slack[right])
    assert np.all(steps[left] <= slack[left])


def test_k_lambda_joins_k1_and_k3():
    x = np.append(grid(1e-150, 700), [0.0, -np.inf])
    np.testing.assert_array_equal(kl.k_lambda(x, 0), kl.k1(x))
    np.testing.assert_array_equal(kl.k_lambda(x, 1), kl.k3(x))


@pytest.mark.parametrize("lam", [-1.5, 1e-3, 0.5, 2.0])
def test_k_lambda_errs_only_by_the_rounding_of_its_terms(lam):
    x = grid(1e-150, 700)
    with mpmath.workprec(BITS):
        exact = [float(-v + lam * (mpmath.exp(v) - 1)) for v in map(mpmath.mpf, x.tolist())]
    size = abs(lam) * kl.k3(x) + abs(lam - 1) * abs(x)
    assert np.all(abs(kl.k_lambda(x, lam) - exact) <= 4 * np.finfo(float).eps * size)


def test_k3_forward_is_r_times_k3_of_the_reversed_pair():
    x = grid(1e-150, 700)
    x = x[x < 700]  # at 700 and above r log r is near overflow
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(kl.k3_forward(x), np.exp(x) * kl.k3(-x), rtol=2e-15)


def test_k3_is_above_k2_exactly_where_p_is_above_q():
    x = grid(1e-10, 700)  # below, the difference x³/6 drowns in the rounding of x²/2
    assert np.array_equal(np.sign(kl.k3(x) - kl.k2(x)), np.sign(x))


ALPHAS = [1e-300, 1e-9, 0.3, 0.5, 0.6, 1 - 1e-9, 1 + 1e-9, 1.5, 10.0, -1e-9, -0.5, -10.0]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_k_alpha_is_as_accurate_as_it_says(alpha):
    x = np.append(grid(1e-150, 700), [-800.0, -1e5])
    with np.errstate(over="ignore"):
        values = kl.k_alpha(x, alpha)
    assert np.all(values >= 0)
    with mpmath.workprec(2 * BITS):
        a = mpmath.mpf(alpha)
        for point, value in zip(x.tolist(), values.tolist(), strict=True):
            exact = (mpmath.expm1(a * point) - a * mpmath.expm1(point)) / (a * (a - 1))
            if exact > np.finfo(float).max / 100:  # a power of r may overflow before the value
                continue
            unit = np.spacing(float(exact))
            assert abs(value - exact) <= (10 + abs(alpha * point)) * unit, point


@pytest.mark.parametrize("alpha", [1e-8, 1 - 1e-8, 0.3])
@pytest.mark.parametrize("x", [2.7e-154, -2.7e-154, 1e-155, 3e-160, 1e-20, -1e-20, 5e-324])
def test_k_alpha_where_a_power_underflows(alpha, x):
    with mpmath.workprec(4 * BITS):
        a, v = mpmath.mpf(alpha), mpmath.mpf(x)
        exact = (mpmath.expm1(a * v) - a * mpmath.expm1(v)) / (a * (a - 1))
        value = kl.k_alpha(x, alpha)
        assert abs(value - exact) <= 10 * np.spacing(float(exact))


@pytest.mark.parametrize("x", [710.0, 1420.0, 1e5, 1e300])
@pytest.mark.parametrize("alpha", [0.0, 1e-9, 0.25, 0.5, 0.75, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_k_alpha_overflows_to_infinity(alpha, x, dtype):
    x = min(x, 1e30) if dtype is np.float32 else x
    with np.errstate(over="ignore"):
        value = kl.k_alpha(np.array([x, -1.0], dtype=dtype), alpha)
    assert value[0] == np.inf
    assert np.isfinite(value[1])


@pytest.mark.parametrize("x", [0.9915752233218353, -1.3693564, -2.0, -1.0, 1.0])
def test_k3_forward_where_forms_meet(x):
    around = x + np.spacing(x) * np.arange(-50, 51)
    assert ulp_errors(kl.k3_forward, around).max() <= 3


@of_log_r
def test_a_number_gives_a_number_of_numpy(function):
    for dtype in (np.float64, np.float32):
        assert type(function(np.asarray(-0.5, dtype))) is dtype
        assert type(function(dtype(-0.5))) is dtype
    assert type(function(-0.5)) is type(kl.log_ratio(-1.0, -2.0)) is np.float64


@pytest.mark.parametrize("size", [16_383, 16_384, 16_385, 40_000])
@pytest.mark.parametrize("spread", [0.01, 0.3, 2.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_mixtures_of_any_size_are_the_same_as_one_by_one(size, spread, dtype):
    x = (spread * np.random.default_rng(0).standard_normal(size)).astype(dtype)
    x[::1000] = np.array([0.0, 1.0, -1.0, -np.inf, 1e-12, 3.0, -40.0])[
        np.arange(len(x[::1000])) % 7
    ]
    some = np.arange(0, size, 125)
    values = kl.k3(x)
    assert values[some].tolist() == [kl.k3(v) for v in x[some]]
    strided = kl.k3(np.repeat(x, 2)[::2])
    np.testing.assert_array_equal(strided, values)


CHECKING = {
    **{function.__name__: function for function in EXACT},
    "k_lambda": lambda x, **check: kl.k_lambda(x, 0.5, **check),
    "k_alpha": lambda x, **check: kl.k_alpha(x, 0.25, **check),
    "k_f": lambda x, **check: kl.k_f(x, lambda r: r * r, 2.0, **check),
    "log_ratio": lambda x, **check: kl.log_ratio(x, np.zeros(2), **check),
}


@pytest.mark.parametrize("name", CHECKING)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_unchecked_values_come_out_as_they_are(name, bad):
    x = np.array([-0.5, bad])
    with pytest.raises(ValueError, match="log_"):
        CHECKING[name](x)
    with np.errstate(all="ignore"):
        value = CHECKING[name](x, check=False)
    assert not np.isfinite(value[1])
    assert value[0] == CHECKING[name](np.array([-0.5, 0.0]))[0]


def test_k_alpha_joins_k3_and_k3_forward():
    x = np.append(grid(1e-150, 700), -np.inf)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(kl.k_alpha(x, 0), kl.k3(x))
        np.testing.assert_array_equal(kl.k_alpha(x, 1), kl.k3_forward(x))


@pytest.mark.parametrize(("alpha", "limit"), [(0.25, 4.0), (2.0, 0.5), (0.0, np.inf)])
def test_k_alpha_where_p_is_zero(alpha, limit):
    assert kl.k_alpha(np.array([-np.inf]), alpha).tolist() == [limit]


def test_k_alpha_at_2_is_half_a_square():
    x = grid(1e-9, 300)
    np.testing.assert_allclose(kl.k_alpha(x, 2.0), np.expm1(x) ** 2 / 2, rtol=1e-13)


@given(x=st.floats(-30, 30), alpha=st.floats(-3, 4))
def test_exchanging_the_laws_mirrors_the_family(x, alpha):
    forth, back = kl.k_alpha(x, alpha), kl.k_alpha(-x, 1 - alpha)
    assert float(forth) == pytest.approx(math.exp(x) * float(back), rel=1e-12)


@pytest.mark.parametrize(
    ("f", "slope", "function"),
    [
        (lambda r: -np.log(r), -1.0, kl.k3),
        (lambda r: r * np.log(r), 1.0, kl.k3_forward),
        (lambda r: 2 * (np.sqrt(r) - 1) ** 2, 0, lambda x: kl.k_alpha(x, 0.5)),
        (lambda r: r**2 + 5, 2.0, lambda x: 2 * kl.k_alpha(x, 2.0)),  # f(1) is taken off
    ],
)
def test_k_f_is_the_gap_to_the_tangent(f, slope, function):
    x = np.linspace(-3, 3, 101)
    np.testing.assert_allclose(kl.k_f(x, f, slope), function(x), rtol=1e-12, atol=1e-14)


def test_k_f_needs_a_function_with_limits():
    with pytest.raises(TypeError, match=r"^f is a str"):
        kl.k_f(np.zeros(2), "log", -1.0)
    with (
        pytest.raises(ValueError, match=r"^f gives NaN at a sample"),
        np.errstate(divide="ignore", invalid="ignore"),
    ):
        kl.k_f(np.array([-np.inf]), lambda r: r * np.log(r), 1.0)


laws = st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 1000)), min_size=1, max_size=6)


@given(weights=laws, lam=st.floats(-3, 3), alpha=st.floats(-2, 3))
def test_means_under_q_are_the_divergences(weights, lam, alpha):
    q, p = (np.array(column) / sum(column) for column in zip(*weights, strict=True))
    log_r = kl.log_ratio(np.log(q), np.log(p))
    divergence = math.fsum(q * (np.log(q) - np.log(p)))
    reverse = math.fsum(p * (np.log(p) - np.log(q)))
    means = [math.fsum(q * value) for value in (kl.k1(log_r), kl.k3(log_r))]
    assert means == pytest.approx([divergence] * 2, abs=1e-12)
    assert math.fsum(q * kl.k_lambda(log_r, lam)) == pytest.approx(divergence, abs=1e-12)
    assert math.fsum(q * kl.k3_forward(log_r)) == pytest.approx(reverse, abs=1e-12)
    chi_squared = math.fsum((p - q) ** 2 / q)
    square = math.fsum(q * kl.k_f(log_r, lambda r: r**2, 2.0))
    assert square == pytest.approx(chi_squared, rel=1e-9, abs=1e-12)
    if abs(alpha * (alpha - 1)) > 1e-2:
        divergence = (math.fsum(p**alpha * q ** (1 - alpha)) - 1) / (alpha * (alpha - 1))
        mean = math.fsum(q * kl.k_alpha(log_r, alpha))
        assert mean == pytest.approx(divergence, rel=1e-9, abs=1e-12)


@given(weights=laws, data=st.data())
def test_relabelling_the_points_changes_nothing(weights, data):
    q, p = (np.array(column) / sum(column) for column in zip(*weights, strict=True))
    order = data.draw(st.permutations(range(len(q))))
    log_r = kl.log_ratio(np.log(q), np.log(p))
    for function in EXACT:
        value = function(log_r)
        assert np.all(function(log_r[order]) == value[order])
        assert math.fsum((q * value)[order]) == math.fsum(q * value)


@given(x=st.floats(-700, 700), y=st.floats(-700, 700))
def test_the_sign_of_the_log_ratio_orders_k2_and_k3_and_size_orders_the_values(x, y):
    if abs(x) > 1e-10:
        assert np.sign(kl.k3(x) - kl.k2(x)) == np.sign(x)
    if x * y >= 0 and abs(x) <= abs(y):
        for function in (kl.k2, kl.k3, kl.k3_forward):
            largest = float(function(y))
            assert float(function(x)) <= largest + 4 * np.spacing(largest)


def test_k3_misses_the_mass_that_q_cannot_draw():
    # q = (1/2, 1/2, 0), p = (1/4, 1/4, 1/2): KL(q‖p) = log 2 and q misses half of p.
    log_r = np.log([0.5, 0.5])
    assert kl.k1(log_r).mean() == pytest.approx(math.log(2), abs=1e-15)
    assert kl.k3(log_r).mean() == pytest.approx(math.log(2) - 0.5, abs=1e-15)


@with_dtype
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 1, 3)])
@of_log_r
def test_shape_dtype_and_kind_are_kept(function, shape, dtype):
    value = function(np.full(shape, -0.5, dtype=dtype))
    assert value.shape == shape
    assert value.dtype == dtype
    assert isinstance(value, np.ndarray | np.generic)


@of_log_r
def test_the_argument_is_not_changed(function):
    x = np.array([-np.inf, -2.0, 0.0, 0.5])
    before = x.copy()
    with np.errstate(divide="ignore"):
        function(x)
    np.testing.assert_array_equal(x, before)


@of_log_r
@pytest.mark.parametrize("x", [-2, -2.0, np.float64(-2), np.asarray(-2.0)])
def test_numbers_are_accepted(function, x):
    assert float(function(x)) == float(function(np.array([-2.0]))[0])


@of_log_r
@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ([0.0], TypeError, "log_r is a list"),
        (None, TypeError, "log_r is a NoneType"),
        ("0", TypeError, "log_r is a str"),
        (1j, TypeError, "log_r is a complex"),
        (np.array([0]), TypeError, "log_r has dtype int64"),
        (np.array([False]), TypeError, "log_r has dtype bool"),
        (np.array([0j]), TypeError, "log_r has dtype complex128"),
        (np.array([0.0, np.nan]), ValueError, "log_r holds NaN"),
        (math.nan, ValueError, "log_r holds NaN"),
        (np.array([0.0, np.inf]), ValueError, r"log_r is \+inf"),
        (math.inf, ValueError, r"log_r is \+inf"),
    ],
)
def test_a_bad_log_r_is_refused_by_name(function, bad, error, words):
    with pytest.raises(error, match=f"^{words}"):
        function(bad)


with_coefficient = pytest.mark.parametrize(
    ("name", "function"),
    [
        ("lam", kl.k_lambda),
        ("alpha", kl.k_alpha),
        ("slope", lambda x, slope: kl.k_f(x, np.square, slope)),
    ],
)


@with_coefficient
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_coefficient_must_be_finite(name, function, value):
    with pytest.raises(ValueError, match=f"^{name} is "):
        function(np.zeros(2), value)


@with_coefficient
@pytest.mark.parametrize("value", ["1", 1j, None, np.array([0.0, 1.0])])
def test_a_coefficient_must_be_a_number(name, function, value):
    with pytest.raises(TypeError, match=f"^{name} is "):
        function(np.zeros(2), value)


def test_log_ratio_is_log_p_minus_log_q_and_broadcasts():
    log_q, log_p = np.log([0.5, 0.25]), np.log([[0.25, 0.5], [0.5, 0.25], [1.0, 0.0625]])
    np.testing.assert_array_equal(kl.log_ratio(log_q, log_p), log_p - log_q)
    assert kl.log_ratio(-1, -2.5) == -1.5
    assert kl.log_ratio(-1.0, np.array([-2.0, -np.inf])).tolist() == [-1.0, -np.inf]


@with_dtype
def test_log_ratio_keeps_the_dtype(dtype):
    values = np.zeros(2, dtype=dtype)
    assert kl.log_ratio(values, values).dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_python_number_does_not_widen_a_log_ratio(dtype):
    values = np.zeros(2, dtype=dtype)
    assert kl.log_ratio(-1.0, values).dtype == kl.log_ratio(values, -1.0).dtype == dtype


@pytest.mark.parametrize("name", ["log_q", "log_p"])
@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ([0.0], TypeError, "is a list"),
        (np.array([0]), TypeError, "has dtype int64"),
        (np.array([0j]), TypeError, "has dtype complex128"),
        (np.array([np.nan]), ValueError, "holds NaN"),
        (np.array([np.inf]), ValueError, "is .*inf"),
        (math.inf, ValueError, "is .*inf"),
    ],
)
def test_a_bad_argument_of_log_ratio_is_refused_by_name(name, bad, error, words):
    with pytest.raises(error, match=f"^{name} {words}"):
        kl.log_ratio(**{"log_q": np.zeros(1), "log_p": np.zeros(1), name: bad})


def test_a_drawn_point_has_positive_probability_under_q():
    with pytest.raises(ValueError, match=r"^log_q is infinite"):
        kl.log_ratio(np.array([-np.inf]), np.zeros(1))


def test_shapes_that_do_not_broadcast_are_named():
    with pytest.raises(ValueError, match=r"^log_q has shape \(2,\) and log_p \(3,\)"):
        kl.log_ratio(np.zeros(2), np.zeros(3))


class OtherArray:
    """An array of another library: it has a namespace of its own, which knows no NumPy array."""

    __array_ufunc__ = None  # NumPy leaves the arithmetic to this class

    def __init__(self, values):
        self.values = np.asarray(values)
        self.dtype, self.shape, self.ndim = self.values.dtype, self.values.shape, self.values.ndim

    def __array_namespace__(self, api_version=None):
        return OTHER

    def __eq__(self, other):
        return OtherArray(self.values == other)

    __hash__ = None

    def __lt__(self, other):
        return OtherArray(self.values < other)

    def __invert__(self):
        return OtherArray(~self.values)

    def __neg__(self):
        return OtherArray(-self.values)

    def __sub__(self, other):
        return OtherArray(self.values - getattr(other, "values", other))

    def __rsub__(self, other):
        return OtherArray(other - self.values)


OTHER = ModuleType("other")
vars(OTHER).update(
    isdtype=np.isdtype,
    any=lambda x: np.any(x.values),
    isinf=lambda x: OtherArray(np.isinf(x.values)),
    isnan=lambda x: OtherArray(np.isnan(x.values)),
)


def test_two_arrays_of_another_library_have_a_log_ratio():
    value = kl.log_ratio(OtherArray([-1.0, -2.0]), OtherArray([-2.0, -2.0]))
    assert isinstance(value, OtherArray)
    assert value.values.tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("number", [-1, -1.0, np.float64(-1)])
@pytest.mark.parametrize("name", ["log_q", "log_p"])
def test_a_number_goes_with_an_array_of_any_library(name, number):
    arguments = {"log_q": OtherArray([-1.0]), "log_p": OtherArray([-1.0]), name: number}
    assert kl.log_ratio(**arguments).values.tolist() == [0.0]


def test_arrays_of_two_libraries_do_not_mix():
    with pytest.raises(TypeError, match=r"^log_q is an array of other and log_p of .*numpy"):
        kl.log_ratio(OtherArray([-1.0]), np.array([-1.0]))
    with pytest.raises(TypeError, match=r"^log_q is an array of .*numpy and log_p of other"):
        kl.log_ratio(np.array([-1.0]), OtherArray([-1.0]))
    # An array without axes is one of its library and no number.
    with pytest.raises(TypeError, match=r"^log_q is an array of other and log_p of .*numpy"):
        kl.log_ratio(OtherArray(-1.0), np.array([-1.0]))
    with pytest.raises(TypeError, match=r"^log_q is an array of .*numpy and log_p of other"):
        kl.log_ratio(np.array([-1.0]), OtherArray(-1.0))


def test_two_numbers_have_the_wider_dtype():
    wide, narrow = np.float64(-1.1), np.float32(-2.1)
    for number in (kl.log_ratio(wide, narrow), kl.log_ratio(narrow, wide)):
        assert number.dtype == np.float64
        assert abs(number) == 2.0999999046325684 - 1.1


@pytest.mark.parametrize(
    ("bad", "words"), [(np.nan, "log_p holds NaN"), (np.inf, r"log_p is \+inf")]
)
def test_beside_a_number_too_an_array_of_any_library_is_looked_at(bad, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        kl.log_ratio(-1.0, OtherArray([-1.0, bad]))


@pytest.mark.parametrize(
    ("bad", "words"), [(np.nan, "log_r holds NaN"), (np.inf, r"log_r is \+inf")]
)
def test_a_log_ratio_of_any_library_is_looked_at(bad, words):
    assert kl.k1(OtherArray([-1.0, -np.inf])).values.tolist() == [1.0, np.inf]
    with pytest.raises(ValueError, match=f"^{words}"):
        kl.k1(OtherArray([-1.0, bad]))


def test_a_number_is_refused_beside_an_array_that_cannot_be_looked_at(monkeypatch):
    def traced(values):
        raise TypeError("as jax.jit answers")

    monkeypatch.setattr(OTHER, "any", traced)
    with pytest.raises(ValueError, match=r"^log_q holds NaN"):
        kl.log_ratio(np.nan, OtherArray([-1.0]))
    assert kl.log_ratio(-1.0, OtherArray([-2.0])).values.tolist() == [-1.0]


def test_scores_of_one_library_are_looked_at_once(monkeypatch):
    looks = []
    monkeypatch.setattr(estimators, "seen", lambda xp, number: looks.append(xp) or int(number()))
    kl.log_ratio(np.zeros(2), np.zeros(2))
    assert len(looks) == 1


@pytest.mark.parametrize("name", estimators.ESTIMATORS)
def test_the_table_has_the_derivatives(name):
    entry = estimators.ESTIMATORS[name]
    x = np.array([-3.0, -0.4, 0.0, 0.3, 2.0])
    with mpmath.workdps(50):
        wanted = [float(mpmath.diff(EXACT[entry.value], mpmath.mpf(v))) for v in x.tolist()]
    np.testing.assert_allclose(entry.derivative(x), wanted, rtol=1e-14, atol=1e-15)


def test_an_unknown_estimator_is_named_with_those_that_there_are():
    names = ", ".join(estimators.ESTIMATORS)
    with pytest.raises(ValueError, match=f"estimator is 'k4'; choose one of {names}"):
        estimators.named("k4")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_k3_of_a_large_array_needs_little_more_than_its_result(dtype):
    x = np.full(2**19, 0.5, dtype=dtype)
    for array in (x, x.reshape(2, -1)):
        tracemalloc.start()
        try:
            value = kl.k3(array)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < value.nbytes + 2**20


def test_a_check_of_values_makes_no_copy():
    x = np.zeros(2**19, dtype=np.float32)
    tracemalloc.start()
    try:
        estimators._checked(x, True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes / 8


def test_every_name_of_the_table_leads_to_its_entry():
    for name, entry in estimators.ESTIMATORS.items():
        assert estimators.named(name) is entry


@with_coefficient
@pytest.mark.parametrize("kind", [int, float, np.float64, np.float32, np.float16])
def test_a_coefficient_may_be_any_real_number(name, function, kind):
    x = np.array([-0.5, 0.25])
    np.testing.assert_array_equal(function(x, kind(2)), function(x, 2.0))


@pytest.mark.parametrize("lam", [1e30, -1e30, 1e4, 0.5])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_k_lambda_far_below_is_no_difference_of_two_overflows(lam, dtype):
    with np.errstate(over="ignore"):
        x = np.array([-19.45, -6e4, -1e35, -np.inf]).astype(dtype)
        found, wide = kl.k_lambda(x, lam), x.astype(float)
        wanted = (lam * np.expm1(wide) - wide).astype(dtype)
    np.testing.assert_allclose(found, wanted, rtol=4 * np.finfo(dtype).eps)


def test_a_lambda_beyond_all_sense_is_refused():
    with pytest.raises(ValueError, match="lam is 1e\\+31"):
        kl.k_lambda(0.5, 1e31)


def test_a_matrix_computes_as_an_array():
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix([[-0.5, 0.25]])
    assert type(kl.k3(matrix)) is np.ndarray
    assert kl.k3(matrix).tolist() == kl.k3(np.array([[-0.5, 0.25]])).tolist()
