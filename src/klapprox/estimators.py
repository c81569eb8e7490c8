"""Per-sample estimators of KL(q‖p), as functions of the log-ratio.

Throughout, x is drawn from q, ``r = p(x)/q(x)`` and ``log_r = log p(x) - log q(x)``, in nats.
The functions are elementwise, accept any array of the Python array API standard (NumPy, PyTorch,
JAX, Dask, ...) and return the same kind with the same dtype; for a number, or a NumPy array without
axes, a NumPy number. ``float16`` and ``bfloat16`` are computed in ``float32`` and ``float32`` in
``float64``, so that each result is the rounding of an accurate one. JAX without ``jax_enable_x64``
and PyTorch on devices without ``float64`` (MPS, XLA) compute ``float32`` natively.

Units in the last place by which k1, k2, k3 and k3_forward may be off:

========================================== ============ ==============
where                                      k1, k2, k3   k3_forward
========================================== ============ ==============
narrower dtypes that are widened           1            1
``float64``                                3            3
``float64`` in JAX                         4            4
``float32`` natively in PyTorch            2            3
``float32`` natively in JAX                4            4
========================================== ============ ==============

The 3 of k3 in ``float64`` is proved for every number if the library's expm1 is off by at most 5/8
of a unit; if that is off by more, by k units, k3 is off by at most 4k + 1/2
(``thm-accurate-kernel``).

Automatic differentiation (PyTorch, JAX) gives the derivatives -1, x, expm1(x) and x exp(x) of k1,
k2, k3 and k3_forward in x = log r, to 8 units in the last place (1 in narrower dtypes that are
widened), and finite wherever the value is. In PyTorch k3 and k3_forward keep nothing but log r for
it; they can be differentiated again, forward too, and by ``torch.func``. ``torch.compile`` keeps
all of these bounds and makes one pass of the many.

Kinds and dtypes are always checked. Values are checked unless ``check=False``, and where they can
be looked at, which is not so under ``jax.jit``, ``vmap`` and ``torch.compile`` or in a Dask array:
there nothing is computed for a check, and what a check would have refused comes out as NaN or
infinity. A check reads one number back, for which a GPU must finish its work first.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import numpy as numpy_namespace

from klapprox._arrays import anywhere, as_floating, as_scalar, in_wider_dtype, refuse_nan, seen
from klapprox._kernels import (
    alpha_member,
    expm1,
    expm1_minus,
    expm1_minus_rounded,
    forward_rounded,
)

__all__ = [
    "ESTIMATORS",
    "K_LAMBDA",
    "Estimator",
    "k1",
    "k2",
    "k3",
    "k3_forward",
    "k_alpha",
    "k_f",
    "k_lambda",
    "log_ratio",
    "named",
]


def log_ratio(log_q: Any, log_p: Any, *, check: bool = True) -> Any:
    r"""Return log r = log p(x) - log q(x) at samples x ~ q.

    Parameters
    ----------
    log_q, log_p : array
        Log-probabilities (or log-densities) in nats of the same samples under q, which generated
        them, and under p. Shapes that broadcast.
    check : bool
        Whether to look at values, which reads one number back from the device.

    Returns
    -------
    array
        ``log_p - log_q``; ``-inf`` where p(x) = 0.

    Raises
    ------
    TypeError
        If an argument is neither a number nor a real floating-point array.
    ValueError
        If a value is NaN, if the shapes do not broadcast, if ``log_q`` is infinite, or if
        ``log_p`` is ``+inf``: a point with q(x) = 0 cannot have been drawn from q.

    Notes
    -----
    Subtracting float32 log-probabilities near -10 leaves an absolute error of about 1e-6; compute
    them in float32 or wider before this subtraction, never in half precision.

    Examples
    --------
    >>> import numpy as np
    >>> log_ratio(np.log([0.5, 0.25]), np.log([0.25, 0.5])).round(4).tolist()
    [-0.6931, 0.6931]
    """
    xp_q, log_q = as_floating("log_q", log_q)
    xp_p, log_p = as_floating("log_p", log_p)
    if check:
        _check_scores(xp_q, log_q, xp_p, log_p)
    # A number takes the kind and the dtype of the array it meets.
    if xp_q is numpy_namespace and log_q.ndim == 0 < log_p.ndim:
        log_q = float(log_q)
    elif xp_p is numpy_namespace and log_p.ndim == 0 < log_q.ndim:
        log_p = float(log_p)
    elif xp_p is not xp_q:
        raise TypeError(
            f"log_q is an array of {xp_q.__name__} and log_p of {xp_p.__name__}; "
            "convert one of them so that both are of one kind."
        )
    try:
        return as_scalar(log_p - log_q)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"log_q has shape {tuple(log_q.shape)} and log_p {tuple(log_p.shape)}, which do not "
            "broadcast; both must hold the log-probabilities of the same samples."
        ) from error


def _check_scores(xp_q: Any, log_q: Any, xp_p: Any, log_p: Any) -> None:
    """Refuse scores that no sample of q can have, after one look."""

    def bad_p() -> Any:
        return xp_p.any(xp_p.isnan(log_p)) | xp_p.any(log_p == math.inf)

    def bad() -> Any:
        of_q = xp_q.any(xp_q.isnan(log_q)) | xp_q.any(xp_q.isinf(log_q))
        return of_q | bad_p() if xp_q is xp_p else of_q

    if not seen(xp_q, bad) and (xp_q is xp_p or not seen(xp_p, bad_p)):
        return
    refuse_nan(xp_q, "log_q", log_q)
    refuse_nan(xp_p, "log_p", log_p)
    if anywhere(xp_q, xp_q.isinf(log_q)):
        raise ValueError(
            "log_q is infinite at a sample. A point with q(x) = 0 cannot have been drawn from q: "
            "check that log_q scores the distribution that generated the samples, and mask padding."
        )
    raise ValueError("log_p is +inf at a sample; log-probabilities are finite or -inf.")


def k1(log_r: Any, *, check: bool = True) -> Any:
    r"""Return k1 = -log r, unbiased for KL(q‖p) when x ~ q.

    Its variance is V1 = Var_q(log r), about 2 KL(q‖p) for smooth families near p = q; single
    values may be negative.

    Parameters
    ----------
    log_r : array
        log p(x) - log q(x) in nats at x ~ q, any shape. ``-inf`` (p(x) = 0) gives ``+inf``.
    check : bool
        Whether to look for NaN and ``+inf``, which reads one number back from the device.

    Returns
    -------
    array
        Same shape, kind and dtype.

    Raises
    ------
    TypeError
        If ``log_r`` is neither a number nor a real floating-point array.
    ValueError
        If ``log_r`` holds NaN or ``+inf``.

    Notes
    -----
    Implements ``thm-k1-unbiased``.

    Examples
    --------
    >>> import numpy as np
    >>> k1(np.array([-0.5, 0.25])).tolist()
    [0.5, -0.25]
    """
    _, log_r = _checked(log_r, check)
    return as_scalar(-log_r)


def k2(log_r: Any, *, check: bool = True) -> Any:
    r"""Return k2 = (log r)²/2, nonnegative, biased for KL(q‖p) when x ~ q.

    Near p = q the bias is of third order in the distance and the standard deviation of second
    order, like k3's; far away neither is bounded by KL.

    Parameters
    ----------
    log_r : array
        As in `k1`. ``-inf`` gives ``+inf``.
    check : bool
        As in `k1`.

    Returns
    -------
    array
        Same shape, kind and dtype.

    Raises
    ------
    TypeError, ValueError
        As in `k1`.

    Notes
    -----
    Implements ``def-k2``; its bias is ``thm-bias-of-k2``.

    Examples
    --------
    >>> import numpy as np
    >>> k2(np.array([-0.5, 0.25])).tolist()
    [0.125, 0.03125]
    """
    _, log_r = _checked(log_r, check)
    # Halving is exact, so that this is rounded once in every dtype.
    return as_scalar(log_r * (0.5 * log_r))


def k3(log_r: Any, *, check: bool = True) -> Any:
    r"""Return k3 = (r - 1) - log r, nonnegative, unbiased for KL(q‖p) when x ~ q and p ≪ q.

    Computed as ``expm1(x) - x`` with x = log r where that is accurate enough for the dtype, and for
    smaller abs(x), where the difference would cancel, by a product in which nothing does.

    Parameters
    ----------
    log_r : array
        As in `k1`. ``-inf`` gives ``+inf``; values above 709.78 overflow to ``+inf`` in float64.
    check : bool
        As in `k1`.

    Returns
    -------
    array
        Same shape, kind and dtype, never negative.

    Raises
    ------
    TypeError, ValueError
        As in `k1`.

    Notes
    -----
    Implements ``def-k3``; the product is that of ``thm-accurate-kernel``. Where p puts mass on
    points that q cannot draw the mean is smaller than KL by that mass (``lem-mean-of-r``).

    Examples
    --------
    >>> import numpy as np
    >>> k3(np.array([-0.5, 0.25])).round(4).tolist()
    [0.1065, 0.034]
    >>> float(k3(1e-9))  # np.exp(1e-9) - 1 - 1e-9 gives 8.3e-17
    5.000000001666667e-19
    """
    xp, log_r = _checked(log_r, check)
    return as_scalar(expm1_minus_rounded(xp, log_r))


def k_lambda(log_r: Any, lam: float, *, check: bool = True) -> Any:
    r"""Return k_λ = -log r + λ (r - 1), unbiased for KL(q‖p) for every λ when x ~ q and p ≪ q.

    λ = 0 gives k1 and λ = 1 gives k3; only λ = 1 is nonnegative. The variance is least at
    λ* = J/χ²(p‖q).

    Parameters
    ----------
    log_r : array
        As in `k1`.
    lam : float
        λ, the coefficient of the control variate r - 1; between -1e30 and 1e30.
    check : bool
        As in `k1`.

    Returns
    -------
    array
        Same shape, kind and dtype.

    Raises
    ------
    TypeError, ValueError
        As in `k1`; also if ``lam`` is no number between -1e30 and 1e30.

    Notes
    -----
    Implements ``def-k-lambda``; λ* is ``thm-optimal-lambda``.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([-0.5, 0.25])
    >>> bool(np.all(k_lambda(x, 1.0) == k3(x)))
    True
    """
    _check_number("lam", "λ", lam)
    if abs(float(lam)) > 1e30:
        raise ValueError(f"lam is {lam}; beyond 1e30 every value would be rounding or overflow.")
    xp, log_r = _checked(log_r, check)
    if lam == 0:
        return as_scalar(-log_r)  # not 0·r: at r = +inf that would be NaN, and k1 needs no r at all

    def formula(xp: Any, x: Any) -> Any:
        # λ(r - 1 - log r) + (λ - 1) log r keeps the accuracy of k3 at λ = 1. Far below both terms
        # overflow, against each other, and nothing cancels in the definition.
        far = x < -1.0
        low, near = xp.where(far, x, -xp.ones_like(x)), xp.where(far, xp.zeros_like(x), x)
        value = lam * expm1_minus(xp, near) + (lam - 1.0) * near
        return xp.where(far, lam * expm1(xp, low) - low, value)

    return as_scalar(in_wider_dtype(xp, formula, log_r))


def k3_forward(log_r: Any, *, check: bool = True) -> Any:
    r"""Return r log r - (r - 1), nonnegative, unbiased for KL(p‖q) when x ~ q and p ≪ q.

    The same construction as k3 for the other direction of the divergence, from the same samples.

    Parameters
    ----------
    log_r : array
        As in `k1`. ``-inf`` gives 1.
    check : bool
        As in `k1`.

    Returns
    -------
    array
        Same shape, kind and dtype, never negative.

    Raises
    ------
    TypeError, ValueError
        As in `k1`.

    Notes
    -----
    Implements ``prop-f-divergence-estimator`` with f(r) = r log r.

    Examples
    --------
    >>> import numpy as np
    >>> k3_forward(np.array([-0.5, 0.25])).round(4).tolist()
    [0.0902, 0.037]
    """
    xp, log_r = _checked(log_r, check)
    return as_scalar(forward_rounded(xp, log_r))


def k_alpha(log_r: Any, alpha: float, *, check: bool = True) -> Any:
    r"""Return (r^α - 1 - α (r - 1))/(α (α - 1)), nonnegative, unbiased for D_α when x ~ q, p ≪ q.

    The family joins the two divergences of Kullback and Leibler, from the same samples: α = 0 is
    `k3`, for KL(q‖p), and α = 1 is `k3_forward`, for KL(p‖q). α = 2 is (r - 1)²/2, for χ²(p‖q)/2,
    and α = 1/2 is 2 (√r - 1)².

    Parameters
    ----------
    log_r : array
        As in `k1`. ``-inf`` gives 1/α for α > 0 and else ``+inf``.
    alpha : float
        α; finite.
    check : bool
        As in `k1`.

    Returns
    -------
    array
        Same shape, kind and dtype, never negative. In float64 the error is below
        10 + abs(α log r) units in the last place, also where α or α - 1 is tiny.

    Raises
    ------
    TypeError, ValueError
        As in `k1`; also if ``alpha`` is not a finite number.

    Notes
    -----
    Implements ``prop-f-divergence-estimator``. With φ(x) = exp(x) - 1 - x the value is
    (φ(x) - φ(αx)/α)/(1 - α), in which nothing cancels for small α; exchanging q and p turns α
    into 1 - α and x into -x.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([-0.5, 0.25])
    >>> k_alpha(x, 2.0).round(4).tolist(), k_alpha(x, 1e-9).round(4).tolist()
    ([0.0774, 0.0403], [0.1065, 0.034])
    """
    _check_number("alpha", "α", alpha)
    alpha = float(alpha)
    xp, log_r = _checked(log_r, check)
    return as_scalar(in_wider_dtype(xp, lambda xp, x: alpha_member(xp, x, alpha), log_r))


def k_f(log_r: Any, f: Callable[[Any], Any], slope: float, *, check: bool = True) -> Any:
    r"""Return f(r) - f(1) - f'(1) (r - 1), nonnegative, unbiased for D_f - f(1) when x ~ q, p ≪ q.

    Parameters
    ----------
    log_r : array
        As in `k1`.
    f : callable
        Convex function of r, elementwise on arrays of the kind of ``log_r``.
    slope : float
        f'(1), or any subgradient there; finite.
    check : bool
        As in `k1`.

    Returns
    -------
    array
        Same shape, kind and dtype. Near r = 1 the error is that of f(r), some units in the last
        place of f(1) or r - 1, and may be larger than the value: prefer `k_alpha` where it applies.

    Raises
    ------
    TypeError, ValueError
        As in `k1`; also if ``f`` cannot be called, if ``slope`` is not a finite number, or if the
        result is NaN, because f is or because f(r) and r are both infinite.

    Notes
    -----
    Implements ``prop-f-divergence-estimator``: the gap between f and its tangent at 1.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([-0.5, 0.25])
    >>> k_f(x, lambda r: r**2, 2.0).round(4).tolist()  # (r - 1)²
    [0.1548, 0.0807]
    """
    if not callable(f):
        raise TypeError(f"f is a {type(f).__name__}; pass a function of r = p(x)/q(x).")
    _check_number("slope", "f'(1)", slope)
    xp, log_r = _checked(log_r, check)

    def formula(xp: Any, x: Any) -> Any:
        return f(xp.exp(x)) - f(xp.ones_like(x)) - float(slope) * expm1(xp, x)

    value = in_wider_dtype(xp, formula, log_r)
    if check and anywhere(xp, xp.isnan(value)):
        raise ValueError(
            "f gives NaN at a sample, or f(r) and r are both infinite there. Give f its limits at "
            "r = 0 and at large r, or leave out samples with an extreme log_r."
        )
    return as_scalar(value)


class Estimator(NamedTuple):
    """What the rest of the package needs to know of an estimator that is a function of log r.

    Attributes
    ----------
    value : callable
        The estimator, a function of log r.
    derivative : callable
        Its derivative in log r, in nats per nat; the gradient of a loss is minus this times the
        score (``thm-gradient-coefficients``).
    needs_square_of_r : bool
        Whether its variance is infinite where E_q[r²] is, that is where χ²(p‖q) is infinite.
    """

    value: Callable[[Any], Any]
    derivative: Callable[[Any], Any]
    needs_square_of_r: bool


ESTIMATORS = {
    "k1": Estimator(k1, lambda log_r: -np.ones_like(log_r), needs_square_of_r=False),
    "k2": Estimator(k2, np.positive, needs_square_of_r=False),
    "k3": Estimator(k3, np.expm1, needs_square_of_r=True),
}
"""The one table of estimators, which estimates, streams, policies and sequences read.

Its entries are instances of `Estimator`, by name. Their derivatives are -1, log r and r - 1; only
"k3" needs E_q[r²].

:meta hide-value:
"""

K_LAMBDA = "k_lambda"
"""The name of k_λ with λ from the sample, which is no function of log r alone."""


def named(name: str) -> Estimator:
    """Return the entry of `ESTIMATORS` with this name.

    Raises
    ------
    ValueError
        If there is none; the message lists the names.
    """
    refuse_unknown(name, ESTIMATORS)
    return ESTIMATORS[name]


def refuse_unknown(name: Any, known: Iterable[str], what: str = "estimator") -> None:
    """Raise ValueError if a name is none of those that are known."""
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"{what} is {name!r}; choose one of {', '.join(known)}.")


def _check_number(name: str, symbol: str, value: Any) -> None:
    if not isinstance(value, int | float | np.floating):
        raise TypeError(f"{name} is {value!r}; {symbol} must be a number.")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; {symbol} must be a finite number.")


def _checked(log_r: Any, check: bool) -> tuple[Any, Any]:
    """Return namespace and array of a log-ratio that may have been drawn from q."""
    xp, log_r = as_floating("log_r", log_r)
    if not check:
        return xp, log_r
    if isinstance(log_r, np.ndarray):
        # One pass without a copy decides: if there is a NaN it is the maximum.
        suspicious = not log_r.max(initial=-math.inf) < math.inf
    else:
        suspicious = anywhere(xp, ~(log_r < math.inf))
    if suspicious:
        refuse_nan(xp, "log_r", log_r)
        raise ValueError(
            "log_r is +inf at a sample, so q(x) = 0 there; such a point cannot have been drawn "
            "from q. Check that log_q scores the distribution that generated the samples."
        )
    return xp, log_r
