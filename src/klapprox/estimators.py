"""Per-sample estimators of KL(q‖p), as functions of the log-ratio.

Throughout, x is drawn from q, ``r = p(x)/q(x)`` and ``log_r = log p(x) - log q(x)``, in nats.
The functions are elementwise, accept any array of the Python array API standard (NumPy, PyTorch,
JAX, ...) and return the same kind with the same dtype. ``float16`` and ``bfloat16`` are computed in
``float32`` and ``float32`` in ``float64``, so that each result is the rounding of an accurate one.
"""

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import numpy as numpy_namespace

__all__ = ["k1", "k2", "k3", "k3_forward", "k_lambda", "log_ratio"]

# 1/3!, ..., 1/18!: with these the series below is good to rounding for |x| <= 1.
_SERIES = tuple(1.0 / math.factorial(n) for n in range(3, 19))


def log_ratio(log_q: Any, log_p: Any) -> Any:
    r"""Return log r = log p(x) - log q(x) at samples x ~ q.

    Parameters
    ----------
    log_q, log_p : array
        Log-probabilities (or log-densities) in nats of the same samples under q, which generated
        them, and under p. Shapes that broadcast.

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
    xp_q, log_q = _as_floating("log_q", log_q)
    xp_p, log_p = _as_floating("log_p", log_p)
    _refuse_nan(xp_q, "log_q", log_q)
    _refuse_nan(xp_p, "log_p", log_p)
    if bool(xp_q.any(xp_q.isinf(log_q))):
        raise ValueError(
            "log_q is infinite at a sample. A point with q(x) = 0 cannot have been drawn from q: "
            "check that log_q scores the distribution that generated the samples, and mask padding."
        )
    if bool(xp_p.any(log_p == math.inf)):
        raise ValueError("log_p is +inf at a sample; log-probabilities are finite or -inf.")
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
        return log_p - log_q
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"log_q has shape {tuple(log_q.shape)} and log_p {tuple(log_p.shape)}, which do not "
            "broadcast; both must hold the log-probabilities of the same samples."
        ) from error


def k1(log_r: Any) -> Any:
    r"""Return k1 = -log r, unbiased for KL(q‖p) when x ~ q.

    Its variance is V1 = Var_q(log r), about 2 KL(q‖p) for smooth families near p = q; single
    values may be negative.

    Parameters
    ----------
    log_r : array
        log p(x) - log q(x) in nats at x ~ q, any shape. ``-inf`` (p(x) = 0) gives ``+inf``.

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
    _, log_r = _checked(log_r)
    return -log_r


def k2(log_r: Any) -> Any:
    r"""Return k2 = (log r)²/2, nonnegative, biased for KL(q‖p) when x ~ q.

    Near p = q the bias is of third order in the distance and the standard deviation of second
    order, like k3's; far away neither is bounded by KL.

    Parameters
    ----------
    log_r : array
        As in `k1`. ``-inf`` gives ``+inf``.

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
    xp, log_r = _checked(log_r)
    return _in_wider_dtype(xp, lambda _, x: x * (0.5 * x), log_r)


def k3(log_r: Any) -> Any:
    r"""Return k3 = (r - 1) - log r, nonnegative, unbiased for KL(q‖p) when x ~ q and p ≪ q.

    Computed as ``expm1(x) - x`` with x = log r, by its series for abs(x) <= 1, where the difference
    would cancel.

    Parameters
    ----------
    log_r : array
        As in `k1`. ``-inf`` gives ``+inf``; values above 709.78 overflow to ``+inf`` in float64.

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
    Implements ``def-k3``. Where p puts mass on points that q cannot draw the mean is smaller than
    KL by that mass (``lem-mean-of-r``).

    Examples
    --------
    >>> import numpy as np
    >>> k3(np.array([-0.5, 0.25])).round(4).tolist()
    [0.1065, 0.034]
    >>> float(k3(1e-9))  # np.exp(1e-9) - 1 - 1e-9 gives 8.3e-17
    5.000000001666667e-19
    """
    xp, log_r = _checked(log_r)
    return _in_wider_dtype(xp, _expm1_minus, log_r)


def k_lambda(log_r: Any, lam: float) -> Any:
    r"""Return k_λ = -log r + λ (r - 1), unbiased for KL(q‖p) for every λ when x ~ q and p ≪ q.

    λ = 0 gives k1 and λ = 1 gives k3; only λ = 1 is nonnegative. The variance is least at
    λ* = J/χ²(p‖q).

    Parameters
    ----------
    log_r : array
        As in `k1`.
    lam : float
        λ, the coefficient of the control variate r - 1; finite.

    Returns
    -------
    array
        Same shape, kind and dtype.

    Raises
    ------
    TypeError, ValueError
        As in `k1`; also if ``lam`` is not finite.

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
    if not isinstance(lam, int | float | np.floating):
        raise TypeError(f"lam is {lam!r}; λ must be a number.")
    if not math.isfinite(lam):
        raise ValueError(f"lam is {lam}; λ must be a finite number.")
    xp, log_r = _checked(log_r)
    if lam == 0:
        return -log_r  # not 0·r: at r = +inf that would be NaN, and k1 needs no r at all

    def formula(xp: Any, x: Any) -> Any:
        # λ(r - 1 - log r) + (λ - 1) log r keeps the accuracy of k3 at λ = 1.
        return lam * _expm1_minus(xp, x) + (lam - 1.0) * xp.where(xp.isinf(x), xp.zeros_like(x), x)

    def at_minus_infinity(xp: Any, x: Any) -> Any:
        return xp.where(xp.isinf(x), -x, formula(xp, x))

    return _in_wider_dtype(xp, at_minus_infinity, log_r)


def k3_forward(log_r: Any) -> Any:
    r"""Return r log r - (r - 1), nonnegative, unbiased for KL(p‖q) when x ~ q and p ≪ q.

    The same construction as k3 for the other direction of the divergence, from the same samples.

    Parameters
    ----------
    log_r : array
        As in `k1`. ``-inf`` gives 1.

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
    xp, log_r = _checked(log_r)

    def formula(xp: Any, x: Any) -> Any:
        # r log r - (r - 1) = r k3(1/r); below -50 it is 1 to rounding, and 1/r may overflow.
        is_one = x < -50.0
        moderate = xp.where(is_one, xp.zeros_like(x), x)
        value = xp.exp(moderate) * _expm1_minus(xp, -moderate)
        return xp.where(is_one, xp.ones_like(x), value)

    return _in_wider_dtype(xp, formula, log_r)


def _expm1_minus(xp: Any, x: Any) -> Any:
    """Return exp(x) - 1 - x to a few units in the last place, for real x and -inf."""
    small = xp.abs(x) <= 1.0
    # Each branch sees only arguments it can handle, so that gradients stay finite too.
    near = xp.where(small, x, xp.zeros_like(x))
    far = xp.where(small, xp.ones_like(x), x)
    series = xp.full_like(x, _SERIES[-1])
    for coefficient in reversed(_SERIES[:-1]):
        series = series * near + coefficient
    return xp.where(small, near * near * (0.5 + near * series), xp.expm1(far) - far)


def _in_wider_dtype(xp: Any, formula: Any, x: Any) -> Any:
    """Evaluate the formula one precision up and round once."""
    dtype = x.dtype
    if xp.finfo(dtype).bits >= 64:
        return formula(xp, x)
    wider = xp.float64 if dtype == xp.float32 else xp.float32
    return xp.astype(formula(xp, xp.astype(x, wider)), dtype)


def _as_floating(name: str, value: Any) -> tuple[Any, Any]:
    """Return the array namespace and the value as a floating-point array of it."""
    if isinstance(value, int | float):
        return numpy_namespace, np.asarray(float(value))
    try:
        xp = array_namespace(value)
    except TypeError as error:
        raise TypeError(
            f"{name} is a {type(value).__name__}; pass a float or an array, "
            f"for example numpy.asarray({name})."
        ) from error
    if not xp.isdtype(value.dtype, "real floating"):
        raise TypeError(
            f"{name} has dtype {value.dtype}; log-probabilities are floating-point: "
            "convert it, for example with .astype('float64')."
        )
    return xp, value


def _refuse_nan(xp: Any, name: str, value: Any) -> None:
    if bool(xp.any(xp.isnan(value))):
        raise ValueError(
            f"{name} holds NaN. Find where it comes from (a masked logit, 0·inf, a padded token), "
            "and drop masked positions before the call."
        )


def _checked(log_r: Any) -> tuple[Any, Any]:
    """Return namespace and array of a log-ratio that may have been drawn from q."""
    xp, log_r = _as_floating("log_r", log_r)
    _refuse_nan(xp, "log_r", log_r)
    if bool(xp.any(log_r == math.inf)):
        raise ValueError(
            "log_r is +inf at a sample, so q(x) = 0 there; such a point cannot have been drawn "
            "from q. Check that log_q scores the distribution that generated the samples."
        )
    return xp, log_r
