r"""The functions behind the estimators, accurate where the textbook formula cancels.

With x = log r these are exp(x) - 1 - x (k3), x exp(x) - (exp(x) - 1) (k3_forward) and the family
that joins them. They take and return arrays of any library, in the dtype that they are given;
`expm1_minus_rounded` goes one precision up and rounds once. NumPy arrays are worked on block by
block. The accuracy is stated in `klapprox.estimators`; ``thm-accurate-kernel`` has the reasons.
"""

import math
from typing import Any

import numpy as np

from klapprox._arrays import in_wider_dtype

__all__ = ["alpha_member", "expm1_minus", "expm1_minus_rounded", "forward"]

_BLOCK = 16_384  # numbers worked on at a time: three such arrays fit into a processor's cache

# 1/3!, ..., 1/18!: with these the series below is good to rounding for |x| <= 1.
_SERIES = tuple(1.0 / math.factorial(n) for n in range(3, 19))


def expm1_minus(xp: Any, x: Any) -> Any:
    """Return exp(x) - 1 - x to a few units in the last place, for real x and -inf."""
    if _is_at_most_float64(x):
        return _in_blocks(x)
    small = xp.abs(x) <= 1.0
    # Each branch sees only arguments it can handle, so that gradients stay finite too.
    near = xp.where(small, x, xp.zeros_like(x))
    far = xp.where(small, xp.ones_like(x), x)
    series = xp.full_like(x, _SERIES[-1])
    for coefficient in reversed(_SERIES[:-1]):
        series = series * near + coefficient
    return xp.where(small, near * near * (0.5 + near * series), xp.expm1(far) - far)


def expm1_minus_rounded(xp: Any, x: Any) -> Any:
    """Return the same, computed one precision up and rounded once to the dtype of x."""
    if _is_at_most_float64(x):
        return _in_blocks(x)[()]  # widened and rounded there, block by block
    return in_wider_dtype(xp, expm1_minus, x)


def forward(xp: Any, x: Any) -> Any:
    """Return r log r - (r - 1) for x = log r, its derivative accurate too."""
    left = x < -2.0
    # Below -750 r is zero even in float64, and x exp(x) must not become inf · 0.
    tail = xp.where(left, xp.where(x < -750.0, xp.full_like(x, -750.0), x), xp.zeros_like(x))
    rest = xp.where(left, xp.zeros_like(x), x)
    # r k3(1/r) keeps the accuracy of k3 near r = 1.
    near = xp.exp(rest) * expm1_minus(xp, -rest)
    return xp.where(left, 1.0 + (tail - 1.0) * xp.exp(tail), near)


def alpha_member(xp: Any, x: Any, alpha: float) -> Any:
    """Return the member α of the family for x = log r."""
    mirrored = alpha > 0.5
    a, y = (1.0 - alpha, -x) if mirrored else (alpha, x)
    if a == 0.0:
        return forward(xp, x) if mirrored else expm1_minus(xp, x)
    # With y > -2: φ(y) - φ(ay)/a. With y <= -2 that cancels, but expm1(y) - expm1(ay)/a does not.
    left = y <= -2.0
    tail = xp.where(left, y, xp.full_like(y, -2.0))
    rest = xp.where(left, xp.zeros_like(y), y)
    far = xp.expm1(tail) - xp.expm1(a * tail) / a
    if mirrored:
        far = xp.exp(-tail) * far
        # Where exp(-y) is zero φ(ay) must not be infinite.
        bounded = xp.where(rest > 750.0, xp.full_like(rest, 750.0), rest)
        near = forward(xp, -rest) - xp.exp(-bounded) * expm1_minus(xp, a * bounded) / a
    else:
        near = expm1_minus(xp, rest) - expm1_minus(xp, a * rest) / a
    return xp.where(left, far, near) / (1.0 - a)


def _is_at_most_float64(x: Any) -> bool:
    """Whether this is a NumPy array that float64 can hold; longdouble is wider on some machines."""
    return isinstance(x, np.ndarray) and bool(np.finfo(x.dtype).bits <= 64)


def _in_blocks(x: Any) -> Any:
    """Return the same for a NumPy array, block by block: in the cache and without large copies."""
    out = np.empty(x.shape, x.dtype)
    given, wanted = x.reshape(-1), out.reshape(-1)
    formula = _by_series if x.dtype == np.float64 else _by_difference
    work = np.empty((2, _BLOCK))
    for start in range(0, given.size, _BLOCK):
        block = given[start : start + _BLOCK].astype(np.float64, copy=False)
        wanted[start : start + _BLOCK] = formula(block, *work[:, : block.size])
    return out


def _by_series(x: Any, s: Any, t: Any) -> Any:
    """Return exp(x) - 1 - x of a float64 block, given two blocks to work in."""
    some = not (x.min() >= -1.0 and x.max() <= 1.0)
    if some:
        far = np.abs(x) > 1.0
        rest, x = x[far], np.where(far, 0.0, x)
    np.multiply(x, _SERIES[-1], out=s)
    s += _SERIES[-2]
    for coefficient in reversed(_SERIES[:-2]):
        s *= x
        s += coefficient
    s *= x
    s += 0.5
    np.multiply(x, x, out=t)
    t *= s
    if some:
        t[far] = np.expm1(rest) - rest
    return t


def _by_difference(x: Any, s: Any, t: Any) -> Any:
    """Return the same to a tenth of a unit of float32, which is what it is then rounded to."""
    np.expm1(x, out=s)
    s -= x  # off by 2⁻⁵²/abs(x) or so, at most 2⁻³⁵ of the result for the x that stay
    tiny = np.abs(x, out=t) < 1e-5
    if tiny.any():
        np.multiply(x, 1 / 6, out=t)
        t += 0.5
        t *= x
        t *= x
        np.copyto(s, t, where=tiny)
    return s
