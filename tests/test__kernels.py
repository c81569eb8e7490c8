"""The formulas behind the estimators keep what their comments promise, each by itself.

Which of them a caller meets depends on library and dtype; here all are run in NumPy.
"""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from klapprox import _kernels

BITS = 1300  # exp(x) - 1 - x loses 2 log2(1/x) bits


def phi(x):
    return mpmath.exp(x) - 1 - x


def psi(x):
    return x * mpmath.exp(x) - (mpmath.exp(x) - 1)


def expm1(x):
    return mpmath.exp(x) - 1


def points(largest, dtype):
    sizes = np.concatenate([np.geomspace(1e-9, largest, 120), np.linspace(0.4, 2.2, 91)])
    return np.concatenate([-sizes, sizes]).astype(dtype)


def units(values, exact, x):
    """Return the largest error in units in the last place of the values' dtype."""
    worst = 0.0
    with mpmath.workprec(BITS):
        for value, point in zip(values.tolist(), x.tolist(), strict=True):
            right = exact(mpmath.mpf(point))
            unit = float(np.spacing(x.dtype.type(abs(float(right)))))
            worst = max(worst, float(abs(mpmath.mpf(value) - right) / unit))
    return worst


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 3), (np.float32, 4)])
@pytest.mark.parametrize(
    ("formula", "exact"),
    [(_kernels.expm1_minus_formula, phi), (_kernels.forward_formula, psi)],
    ids=["k3", "k3_forward"],
)
def test_whole_arrays_are_as_accurate_as_documented(formula, exact, dtype, bound):
    x = points(80, dtype)
    values = formula(np, x)
    assert values.dtype == dtype
    assert units(values, exact, x) <= bound


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_expm1_keeps_small_values_where_a_compiler_loses_them(monkeypatch, dtype):
    monkeypatch.setattr(_kernels, "is_torch", lambda x: True)
    monkeypatch.setattr(_kernels, "is_compiling", lambda: True)

    class Compiled:
        """NumPy, with the expm1 that torch.compile makes."""

        expm1 = staticmethod(lambda x: np.exp(x) - x.dtype.type(1))
        abs, where, finfo = np.abs, np.where, np.finfo

    x = points(80, dtype)
    assert units(Compiled.expm1(x), expm1, x) > 1000
    assert units(_kernels.expm1(Compiled, x), expm1, x) <= 4


def exactly(number):
    top, bottom = number.as_integer_ratio()
    return mpmath.mpf(top) / bottom


def relative(found, exact, x):
    return abs(found - exact(x)) / abs(exact(x))


@pytest.mark.parametrize(
    ("coefficients", "exact", "bound"),
    [
        (_kernels._SERIES, phi, 4e-9),
        (_kernels._SERIES_FORWARD, psi, 4e-9),
        # The last bit of 1/3!, as it is stored, is 3e-17 of it.
        (_kernels._TAYLOR, phi, 5e-17),
        ([Fraction(1, math.factorial(n)) for n in range(3, 22)], phi, 3e-19),
    ],
    ids=["series", "series_forward", "taylor as stored", "taylor"],
)
def test_polynomials_are_as_near_as_their_comments_say(coefficients, exact, bound):
    with mpmath.workdps(60):
        for k in range(-50, 51):
            if k:
                x = mpmath.mpf(k) * _kernels._REACH / 50
                # x²/2 + x³ Σ c_k x^k, with the coefficients as they are stored.
                found = x**2 / 2 + x**3 * mpmath.polyval([*map(exactly, coefficients[::-1])], x)
                assert relative(found, exact, x) < bound


def test_the_interpolated_cotangent_is_as_near_as_its_comment_says():
    with mpmath.workdps(60):
        for k in range(1, 101):
            z = mpmath.mpf(k) / 400
            h = mpmath.sqrt(z)
            t = (h * mpmath.coth(h) - 1) / z
            found = mpmath.polyval([*map(mpmath.mpf, _kernels._COTH[::-1])], z)
            assert abs(found - t) < 1.8e-16


def test_a_polynomial_is_evaluated_with_all_its_coefficients():
    x = np.linspace(-1.25, 1.25, 11)
    coefficients = (0.5, -2.0, 3.0, 0.25)
    wanted = x**2 / 2 + x**3 * np.polynomial.polynomial.polyval(x, coefficients)
    np.testing.assert_allclose(_kernels._by_series(x, coefficients), wanted, rtol=1e-14)
    z = np.linspace(0.0, 0.25, 11)
    wanted = z * np.polynomial.polynomial.polyval(z, _kernels._COTH)
    np.testing.assert_allclose(_kernels._z_t(z), wanted, rtol=1e-15)


@pytest.mark.parametrize("x", [-1.25, -0.7, 0.9, 1.25, 2.0])
def test_longdouble_is_at_least_as_near_as_float64(x):
    wide = np.longdouble(x)
    value = _kernels.expm1_minus_formula(np, np.asarray(wide))
    exact = np.expm1(wide) - wide  # nothing cancels here that matters
    assert abs(value - exact) <= 2.0**-52 * exact


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("far", [0, 1, 30, 200, 1000])
def test_a_block_is_the_same_however_many_are_far(dtype, far):
    """Few far values are copied one by one and many chosen by their bits: none is to show it."""
    x = np.random.Generator(np.random.PCG64(8)).uniform(-0.9, 0.9, 1000).astype(dtype)
    x[:far] *= 7
    x[:3] = [-np.inf, 0.0, -1.0]
    found = _kernels._in_blocks(x)
    some = [*range(4), *range(4, 1000, 37)]
    assert found[some].tolist() == [float(_kernels._in_blocks(x[i : i + 1])[0]) for i in some]
    ulp = np.spacing(np.abs(found[3:]))
    wide = _kernels.expm1_minus_formula(np, x[3:].astype(np.float64))
    assert np.all(np.abs(found[3:] - wide) <= 6 * ulp)
