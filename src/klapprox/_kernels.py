r"""The functions behind the estimators, accurate where the textbook formula cancels.

With x = log r these are φ(x) = exp(x) - 1 - x (k3), ψ(x) = x exp(x) - (exp(x) - 1) (k3_forward) and
the family that joins them. They take and return arrays of any library, in the dtype that they are
given; `expm1_minus_rounded` goes one precision up and rounds once. NumPy arrays are worked on block
by block; PyTorch and JAX differentiate φ by its closed form. The accuracy is stated in
`klapprox.estimators`.

In ``float64`` and |x| <= 1 nothing is subtracted from a number next to it: with h = x/2, z = h² and
t(z) = (h coth h - 1)/z = 2 Σ 1/(z + k²π²),

    φ(x) = (exp(x) - 1) (h - z t(z)),    ψ(x) = (exp(x) - 1) (h + z t(z)),

where h leads (``thm-accurate-kernel``). In ``float32`` the Taylor series is short enough, and it
does not depend on how well a device computes expm1.
"""

import functools
import math
from typing import Any

import numpy as np

from klapprox._arrays import in_wider_dtype, is_compiling, is_jax, is_torch

__all__ = [
    "alpha_member",
    "expm1",
    "expm1_minus",
    "expm1_minus_formula",
    "expm1_minus_rounded",
    "forward",
    "forward_rounded",
]

_BLOCK = 16_384  # numbers worked on at a time: five such arrays fit into a processor's cache

# t interpolated at the 7 Chebyshev points of [0, 1/4]: off by less than 1.8e-16, z⁰ first.
_COTH = (
    0.3333333333333332,
    -0.02222222222216278,
    0.0021164021125928594,
    -0.00021164011997662618,
    2.1376746695293314e-05,
    -2.1581776977022414e-06,
    2.0082511663325898e-07,
)
# Σ x^k/(k+3)! and Σ (k+2) x^k/(k+3)!, which follow x²/2 in φ and ψ, interpolated at the 9 Chebyshev
# points of [-5/4, 5/4]: off by less than 4e-9 of φ and ψ, x⁰ first.
_REACH = 1.25
_SERIES = (
    0.16666666666666666,
    0.04166666622066583,
    0.008333333299113755,
    0.0013888926923235686,
    0.00019841299025744717,
    2.4792839372220224e-05,
    2.7550605227092904e-06,
    2.8300797547225846e-07,
    2.562303120445212e-08,
)
_SERIES_FORWARD = (
    0.3333333333333333,
    0.12499999507675667,
    0.03333333292155207,
    0.006944486424340375,
    0.0011904797020661215,
    0.0001735145872495885,
    2.2037778849510933e-05,
    2.562133516315184e-06,
    2.5738494426780633e-07,
)
# 1/3!, ..., 1/21!: what is left out is less than 3e-19 of φ for |x| <= 5/4.
_TAYLOR = tuple(1.0 / math.factorial(n) for n in range(3, 22))


def expm1_minus(xp: Any, x: Any) -> Any:
    """Return φ(x) = exp(x) - 1 - x to a few units in the last place, for real x and -inf."""
    if is_torch(x):
        from klapprox import _torch

        return _torch.expm1_minus(x)
    if _is_at_most_float64(x):
        return _in_blocks(x)
    return _in_jax()[0](x) if is_jax(x) else expm1_minus_formula(xp, x)


def expm1_minus_rounded(xp: Any, x: Any) -> Any:
    """Return the same, computed one precision up and rounded once to the dtype of x."""
    if is_torch(x):
        from klapprox import _torch

        return _torch.k3(x)
    if _is_at_most_float64(x):
        return _in_blocks(x)  # widened and rounded there, block by block
    return in_wider_dtype(xp, expm1_minus, x)


def forward_rounded(xp: Any, x: Any) -> Any:
    """Return ψ(x), computed one precision up and rounded once to the dtype of x."""
    if is_torch(x):
        from klapprox import _torch

        return _torch.k3_forward(x)
    return in_wider_dtype(xp, forward, x)


def expm1(xp: Any, x: Any) -> Any:
    """Return exp(x) - 1 with its small values, which torch.compile loses: it computes just that."""
    E = xp.expm1(x)
    if not (is_torch(x) and is_compiling()):
        return E
    series = _TAYLOR if xp.finfo(x.dtype).bits >= 64 else _SERIES
    return xp.where(xp.abs(x) <= _REACH, x + _by_series(x, series), E)


def expm1_minus_formula(xp: Any, x: Any) -> Any:
    """Return φ(x) by operations on whole arrays."""
    E, bits = expm1(xp, x), xp.finfo(x.dtype).bits
    # Far away the near form may overflow, and is not chosen.
    if bits < 64:
        return xp.where(xp.abs(x) <= _REACH, _by_series(x, _SERIES), E - x)
    if bits > 64 or is_jax(x):  # beyond the coefficients of t; an expm1 with errors of 3 units
        return xp.where(xp.abs(x) <= _REACH, _by_series(x, _TAYLOR), E - x)
    h = 0.5 * x
    return xp.where(xp.abs(x) < 1.0, E * (h - _z_t(h * h)), E - x)


def forward(xp: Any, x: Any) -> Any:
    """Return ψ(x) = r log r - (r - 1) for x = log r."""
    return _in_jax()[1](x) if is_jax(x) else forward_formula(xp, x)


def forward_formula(xp: Any, x: Any) -> Any:
    """Return ψ(x) by operations on whole arrays, its derivative finite too."""
    size = xp.abs(x)
    reach = 1.0 if xp.finfo(x.dtype).bits >= 64 else _REACH
    # Each branch sees only arguments it can handle, so that gradients stay finite too.
    small = size <= reach
    near = xp.where(small, x, xp.zeros_like(x))
    if reach > 1.0:
        series = _by_series(near, _SERIES_FORWARD)
    else:
        h = 0.5 * near
        E = expm1(xp, near)
        series = E * h + E * _z_t(h * h)  # as a sum, so that it is +0 at -0
    middle = ~small & (x <= 0.0) & (size <= 2.0)
    between = xp.where(middle, x, -xp.ones_like(x))
    # Below -750 r is zero even in float64, and x exp(x) must not become inf · 0.
    far = xp.where(small, xp.ones_like(x), xp.where(x < -750.0, xp.full_like(x, -750.0), x))
    return xp.where(
        small,
        series,
        xp.where(
            middle,
            between * xp.exp(between) - xp.expm1(between),
            1.0 + (far - 1.0) * xp.exp(far),
        ),
    )


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
    # Where φ(y) is infinite, and exp(-y) zero, φ(ay) must be finite.
    overflow = float(np.log(xp.finfo(x.dtype).max)) + 1.0
    bounded = xp.where(rest > overflow, xp.full_like(rest, overflow), rest)
    second = expm1_minus(xp, a * bounded) / a
    if mirrored:
        far = xp.exp(-tail) * far
        near = forward(xp, -rest) - xp.exp(-bounded) * second
    else:
        near = expm1_minus(xp, rest) - second
    # To rounding y²/2, before φ(ay) underflows.
    tiny = xp.abs(rest) < 1e-20
    least = xp.where(tiny, rest, xp.zeros_like(rest))
    near = xp.where(tiny, (1.0 - a) * (least * (0.5 * least)), near)
    return xp.where(left, far, near) / (1.0 - a)


def _z_t(z: Any) -> Any:
    """Return z t(z) for z <= 1/4."""
    t = z * _COTH[-1] + _COTH[-2]
    for coefficient in _COTH[-3::-1]:
        t = z * t + coefficient
    return z * t


def _by_series(x: Any, coefficients: tuple[float, ...]) -> Any:
    """Return x²/2 + x³ Σ c_k x^k; the square comes first, so that it alone is rounded."""
    rest = x * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        rest = x * rest + coefficient
    square = x * x
    return 0.5 * square + square * x * rest


@functools.cache
def _in_jax() -> tuple[Any, Any]:
    """Return φ and ψ as JAX differentiates them, any number of times."""
    import jax

    def slope_of_forward(tangent: Any, _: Any, x: Any) -> Any:
        x = jax.numpy.maximum(x, -750.0)  # below, the product is 0, and not inf · 0
        return tangent * (x * jax.numpy.exp(x))

    backward = jax.custom_jvp(lambda x: expm1_minus_formula(jax.numpy, x))
    backward.defjvps(lambda tangent, _, x: tangent * jax.numpy.expm1(x))
    forth = jax.custom_jvp(lambda x: forward_formula(jax.numpy, x))
    forth.defjvps(slope_of_forward)
    return backward, forth


def _is_at_most_float64(x: Any) -> bool:
    """Whether this is a NumPy array that float64 can hold; longdouble is wider on some machines."""
    return isinstance(x, np.ndarray | np.generic) and bool(np.finfo(x.dtype).bits <= 64)


def _in_blocks(x: Any) -> Any:
    """Return φ of a NumPy array, block by block: in the cache and without large copies."""
    out = np.empty(x.shape, x.dtype)
    given, wanted = x.reshape(-1), out.reshape(-1)
    formula = _block if x.dtype == np.float64 else _narrow_block
    work = np.empty((4, min(_BLOCK, given.size)))
    for start in range(0, given.size, _BLOCK):
        block = given[start : start + _BLOCK]
        formula(block, wanted[start : start + _BLOCK], *work[:, : block.size])
    return out


def _block(x: Any, out: Any, E: Any, h: Any, z: Any, _: Any) -> None:
    """Write φ of a float64 block to out, given blocks to work in."""
    np.expm1(x, out=E)
    np.multiply(x, 0.5, out=h)
    with np.errstate(over="ignore", invalid="ignore"):  # where the other form is chosen
        np.multiply(h, h, out=z)
        np.multiply(z, _COTH[-1], out=out)
        for coefficient in _COTH[-2::-1]:
            out += coefficient
            out *= z
        np.subtract(h, out, out=out)
        out *= E
    far = z >= 0.25
    count = np.count_nonzero(far)
    if count == 0:
        return
    E -= x
    if 16 * count < x.size:
        few = np.flatnonzero(far)
        out[few] = E[few]
    else:
        # Choosing by bits costs the same for any mixture, where branches are mispredicted: the
        # sign of z - 1/4, all ones or all zeros, says which of two numbers keeps its bits.
        z -= 0.25
        near, bits, other = (array.view(np.int64) for array in (z, out, E))
        near >>= 63
        bits ^= other
        bits &= near
        bits ^= other


def _narrow_block(x: Any, out: Any, E: Any, wide: Any, *_: Any) -> None:
    """Write φ of a narrower block to out, from float64 with an error of at most 2⁻³⁵."""
    wide[...] = x
    np.expm1(wide, out=E)
    E -= wide  # off by 2⁻⁵²/abs(x) of φ, which at abs(x) > 2⁻¹⁷ is small enough
    tiny = np.flatnonzero(E < 2.0**-35)
    if tiny.size:
        x = wide[tiny]
        E[tiny] = x * x * (0.5 + x * (1 / 6))
    out[...] = E
