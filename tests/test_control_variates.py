"""The estimated coefficients: what is unbiased is so exactly, and degenerate samples are safe."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klapprox import control_variates
from klapprox.control_variates import (
    coefficient,
    cross_fitted,
    leave_one_out,
    leave_one_out_terms,
    regression,
    several,
)

LEAST = {regression: 2, leave_one_out: 3, cross_fitted: 4}
by_name = {"ids": lambda function: function.__name__}
of_all = pytest.mark.parametrize("function", LEAST, **by_name)
unbiased = pytest.mark.parametrize("function", [leave_one_out, cross_fitted], **by_name)

# q = (1/2, 1/3, 1/6) and p = (1/6, 1/3, 1/2), so that r takes the values 1/3, 1 and 3.
Q = np.array([1 / 2, 1 / 3, 1 / 6])
LOG_R = np.array([-math.log(3), 0.0, math.log(3)])
KL = math.log(3) / 3


def slope(x, y):
    """Return -Cov(x, y)/Var(x), and 0 where x does not vary."""
    if np.all(x == x[0]):
        return 0.0
    return -np.sum((x - x.mean()) * (y - y.mean())) / np.sum((x - x.mean()) ** 2)


def naive_leave_one_out(log_r):
    x, y = np.expm1(log_r), -log_r
    return np.mean(
        [y[i] + slope(np.delete(x, i), np.delete(y, i)) * x[i] for i in range(len(log_r))]
    )


def mean_over_all_samples(function, size):
    """Return the expectation of the estimate, over every sample of this size."""
    return math.fsum(
        math.prod(Q[list(points)]) * function(LOG_R[list(points)])
        for points in itertools.product(range(3), repeat=size)
    )


@given(st.lists(st.integers(-12, 12), min_size=3, max_size=12))
def test_leave_one_out_is_the_naive_loop(quarters):
    log_r = np.array(quarters) / 4
    expected = naive_leave_one_out(log_r)
    assert leave_one_out(log_r) == pytest.approx(expected, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("outlier", [3.0, -3.0, -30.0])
def test_leave_one_out_is_the_naive_loop_beside_an_outlier(outlier):
    log_r = np.array([0.1, 0.2, 0.3, outlier])
    assert leave_one_out(log_r) == pytest.approx(naive_leave_one_out(log_r), rel=1e-9)


@pytest.mark.parametrize("outlier", [8.0, 14.0, 30.0])
def test_leave_one_out_is_the_naive_loop_beside_a_far_outlier(outlier):
    log_r = np.array([0.1, 0.2, 0.3, outlier])
    assert leave_one_out(log_r) == pytest.approx(naive_leave_one_out(log_r), rel=1e-9)


@unbiased
def test_exactly_unbiased(function):
    assert mean_over_all_samples(function, 4) == pytest.approx(KL, abs=1e-12)


def test_cross_fitted_is_exactly_unbiased_with_unequal_halves():
    assert mean_over_all_samples(cross_fitted, 5) == pytest.approx(KL, abs=1e-12)


def test_regression_is_biased():
    assert abs(mean_over_all_samples(regression, 4) - KL) > 1e-3


def test_the_bias_of_regression_falls_with_the_sample_size():
    small, large = (abs(mean_over_all_samples(regression, size) - KL) for size in (5, 8))
    assert large < small


@of_all
def test_two_values_of_r_leave_no_variance(function):
    # q = (2/3, 1/3), p = (1/3, 2/3): k1 is affine in r, and KL(q‖p) = log(2)/3.
    for counts in ((2, 4), (4, 2), (3, 5)):
        log_r = np.tile(np.log([0.5, 2.0]), max(counts))[: sum(counts)]
        assert function(log_r) == pytest.approx(math.log(2) / 3, abs=1e-14)


@of_all
def test_where_r_does_not_vary_the_estimate_is_k1(function):
    for value in (-1.3, -0.1, 0.0, 0.1, 0.3, 0.7, 1.1):
        for size in range(LEAST[function], 60):
            assert function(np.full(size, value)) == pytest.approx(-value, rel=1e-13)


@pytest.mark.parametrize("function", [regression, leave_one_out], **by_name)
def test_the_order_of_the_sample_does_not_matter(function):
    log_r = np.array([0.5, -1.0, 0.25, 2.0, -0.75])
    assert function(log_r[::-1]) == pytest.approx(function(log_r), rel=1e-13)


def test_cross_fitted_treats_its_halves_alike():
    log_r = np.array([0.5, -1.0, 0.25, 2.0, -0.75, 1.0])
    assert cross_fitted(np.roll(log_r, 3)) == pytest.approx(cross_fitted(log_r), rel=1e-13)


@of_all
def test_narrow_floats_and_lists_are_computed_in_float64(function):
    log_r = np.array([-0.5, 0.25, 1.0, -0.25, 0.75])  # exact in half precision
    expected = function(log_r)
    assert isinstance(expected, float)
    for same in (log_r.tolist(), log_r.astype(np.float32), log_r.astype(np.float16)):
        assert function(same) == expected


@of_all
def test_too_few_values_are_refused(function):
    least = LEAST[function]
    assert math.isfinite(function(np.linspace(-1, 1, least)))
    with pytest.raises(ValueError, match=rf"^log_r has shape \({least - 1},\).*at least {least}"):
        function(np.zeros(least - 1))


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (np.zeros((4, 4)), ValueError, r"log_r has shape \(4, 4\); pass one dimension"),
        (0.5, ValueError, r"log_r has shape \(\); pass one dimension"),
        (np.array([0.0, 1.0, -np.inf, 2.0]), ValueError, "log_r is -inf"),
        (np.array([0.0, 1.0, np.inf, 2.0]), ValueError, r"log_r is \+inf"),
        (np.array([0.0, 1.0, np.nan, 2.0]), ValueError, "log_r holds NaN"),
        (np.arange(4), TypeError, "log_r has dtype int64"),
        (np.zeros(4, dtype=complex), TypeError, "log_r has dtype complex128"),
    ],
)
@of_all
def test_a_bad_log_r_is_refused_by_name(function, bad, error, words):
    with pytest.raises(error, match=f"^{words}"):
        function(bad)


@pytest.mark.parametrize("value", [400.0, 800.0])
@of_all
def test_a_ratio_whose_square_overflows_is_refused(function, value):
    with pytest.raises(ValueError, match=f"^log_r is {value}"):
        function(np.array([0.0, 1.0, value, 2.0]))


def test_several_with_one_control_is_the_single_one():
    x = np.random.Generator(np.random.PCG64(3)).standard_normal(40)
    log_r = 0.4 * x - 0.08
    control = np.expm1(log_r)[:, None]
    assert several(log_r, control, cross_fit=False) == pytest.approx(regression(log_r), rel=1e-12)
    assert several(log_r, control) == pytest.approx(cross_fitted(log_r), rel=1e-12)


def test_several_is_unbiased_by_enumeration():
    q, p = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    log_r, controls = np.log(p / q), np.column_stack([p / q - 1, np.array([1.0, 0, 0]) - q[0]])
    mean = biased = 0.0
    for picks in itertools.product(range(3), repeat=8):
        chance = math.prod(q[i] for i in picks)
        index = np.array(picks)
        mean += chance * several(log_r[index], controls[index])
        biased += chance * several(log_r[index], controls[index], cross_fit=False)
    truth = float(-(q @ log_r))
    assert mean == pytest.approx(truth, rel=1e-9)
    assert abs(biased - truth) > 1e-4


def test_several_scores_leave_no_variance():
    x = np.random.Generator(np.random.PCG64(4)).standard_normal(30)
    log_r = -((x - 0.8) ** 2) / (2 * 1.44) - math.log(1.2) + x**2 / 2
    exact = math.log(1.2) + (1 + 0.64) / (2 * 1.44) - 0.5
    scores = np.column_stack([x, x**2 - 1])
    assert several(log_r, scores) == pytest.approx(exact, rel=1e-10)
    repeated = np.column_stack([scores, scores])
    assert several(log_r, repeated) == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        (np.zeros(10), "controls has shape"),
        (np.zeros((9, 1)), "controls has shape"),
        (np.full((10, 1), np.inf), "controls holds a value that is not finite"),
        (np.zeros((10, 4)), "log_r holds 10 draws; 4 control variates need 12"),
    ],
)
def test_bad_controls_are_named(controls, words):
    with pytest.raises(ValueError, match=words):
        several(np.zeros(10), controls)


def test_a_constant_beside_y_does_not_move_the_coefficient():
    x = np.random.Generator(np.random.PCG64(5)).standard_normal(50)
    y = np.round(1024 * x**2) / 1024  # so that y + 2⁴⁰ is exact
    assert coefficient(x, y + 2.0**40) == pytest.approx(coefficient(x, y), rel=1e-9)
    assert coefficient(x, y) == pytest.approx(slope(x, y), rel=1e-12)


def test_where_x_does_not_vary_or_only_below_what_squares_hold_the_coefficient_is_zero():
    assert coefficient([1.0], [2.0]) == 0
    assert coefficient([0.1] * 7, np.arange(7.0)) == 0
    assert coefficient([1e-200, 2e-200], [1.0, 2.0]) == 0


def test_leave_one_out_takes_one_pass_unless_a_value_holds_nearly_all_of_the_sum(monkeypatch):
    alone = []

    def counted(x, y):
        alone.append(x)
        return coefficient(x, y)

    monkeypatch.setattr(control_variates, "coefficient", counted)
    log_r = 0.3 * np.random.Generator(np.random.PCG64(6)).standard_normal(40)
    leave_one_out_terms(log_r)
    assert not alone
    log_r[7] = 12.0
    leave_one_out_terms(log_r)
    assert len(alone) == 1
    assert 12.0 not in np.log1p(alone[0])


@of_all
def test_a_ratio_may_be_as_large_as_is_said(function):
    log_r = np.array([0.0, 1.0, 350.0, 2.0])
    assert math.isfinite(function(log_r))
    log_r[2] = np.nextafter(350.0, 351.0)
    with pytest.raises(ValueError, match="above 350 the square of r overflows"):
        function(log_r)


def test_several_takes_as_few_draws_as_are_said():
    rng = np.random.Generator(np.random.PCG64(7))
    log_r, controls = 0.1 * rng.standard_normal(8), rng.standard_normal((8, 2))
    assert math.isfinite(several(log_r, controls))
    with pytest.raises(ValueError, match="holds 7 draws; 2 control variates need 8"):
        several(log_r[:7], controls[:7])
    assert math.isfinite(several(log_r[:4], controls[:4], cross_fit=False))
    with pytest.raises(ValueError, match="holds 3 draws; 2 control variates need 4"):
        several(log_r[:3], controls[:3], cross_fit=False)


def test_several_without_controls_is_the_mean_of_k1():
    log_r = np.array([0.5, -1.25])
    assert several(log_r, np.zeros((2, 0)), cross_fit=False) == 0.375
