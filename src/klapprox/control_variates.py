"""Choosing λ from the sample: estimates of KL(q‖p) by k_λ with an estimated coefficient.

With X = r - 1 and Y = k1 = -log r for x ~ q, the best coefficient is λ* = -Cov(X, Y)/Var(X), which
is J/χ²(p‖q). `regression` estimates it from the same sample, at the price of a bias of order 1/N;
`leave_one_out` and `cross_fitted` pay no bias (``thm-estimated-lambda``). `several` takes more
control variates than one (``thm-several-control-variates``).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from klapprox._arrays import as_numpy
from klapprox.estimators import k1

__all__ = [
    "coefficient",
    "cross_fitted",
    "leave_one_out",
    "leave_one_out_terms",
    "regression",
    "several",
]

Floats = NDArray[np.float64]


def coefficient(x: ArrayLike, y: ArrayLike) -> float:
    """Return λ̂ = -Cov(x, y)/Var(x) of values x of r - 1 and y of k1; 0 where x does not vary.

    Examples
    --------
    >>> coefficient([1.0, 2.0, 3.0], [3.0, 1.0, -1.0])
    2.0
    """
    x, y = as_numpy("x", x), as_numpy("y", y)
    if np.all(x == x[0]):  # compared exactly: the mean of equal values may be off by rounding
        return 0.0
    centred = x - x.mean()
    return coefficient_of_sums(float(np.sum(centred**2)), float(np.sum(centred * (y - y.mean()))))


def coefficient_of_sums(squares: float, products: float) -> float:
    """Return the same from sums of centred squares of x and of centred products of x and y."""
    return -products / squares if squares > 0 else 0.0


def regression(log_r: ArrayLike) -> float:
    """Return the mean of k_λ̂ with λ̂ from the same sample; bias of order 1/N.

    Parameters
    ----------
    log_r : array
        log p(x) - log q(x) in nats at independent x ~ q; one dimension, at least two values.

    Returns
    -------
    float
        Estimate of KL(q‖p) in nats.

    Raises
    ------
    TypeError, ValueError
        As in `klapprox.k1`; also if ``log_r`` is infinite, not one-dimensional or too short.

    Examples
    --------
    >>> two_points = np.log([0.5, 2.0, 0.5, 0.5, 2.0])  # r takes two values: no variance is left
    >>> round(regression(two_points), 6), round(float(np.log(2)) / 3, 6)
    (0.231049, 0.231049)
    """
    x, y = _x_and_y(log_r, least=2)
    return float(np.mean(y) + coefficient(x, y) * np.mean(x))


def leave_one_out(log_r: ArrayLike) -> float:
    """Return the mean of k_λ with λ for each value from all the others; exactly unbiased.

    Parameters, errors and result are those of `regression`; at least three values. Single
    estimates can be negative.

    Examples
    --------
    >>> leave_one_out(np.zeros(4))
    0.0
    """
    return float(np.mean(leave_one_out_terms(log_r)))


def leave_one_out_terms(log_r: ArrayLike) -> Floats:
    """Return the terms whose mean is `leave_one_out`; their spread is an honest error bar.

    The spread around a λ from the same sample is too small: the line was fitted to these points.

    Examples
    --------
    >>> leave_one_out_terms(np.log([0.5, 2.0, 0.5, 0.5, 2.0])).round(4).tolist()
    [0.231, 0.231, 0.231, 0.231, 0.231]
    """
    x, y = _x_and_y(log_r, least=3)
    if np.all(x == x[0]):
        return y
    centred_x, centred_y = x - x.mean(), y - y.mean()
    # Removing the i-th of n values takes n/(n-1) times its centred square off the sum of squares.
    share = x.size / (x.size - 1)
    total = np.sum(centred_x**2)
    xx = total - share * centred_x**2
    xy = np.sum(centred_x * centred_y) - share * centred_x * centred_y
    cancels = xx <= 1e-3 * total  # at most one value can hold nearly all of the sum
    slopes = -xy / np.where(cancels, 1.0, xx)
    for i in np.flatnonzero(cancels):
        slopes[i] = coefficient(np.delete(x, i), np.delete(y, i))
    return np.asarray(y + slopes * x)


def cross_fitted(log_r: ArrayLike) -> float:
    """Return the mean of k_λ with λ for each half of the sample from the other; exactly unbiased.

    Parameters, errors and result are those of `regression`; at least four values.

    Examples
    --------
    >>> cross_fitted(np.zeros(4))
    0.0
    """
    x, y = _x_and_y(log_r, least=4)
    halves = slice(0, x.size // 2), slice(x.size // 2, None)
    total = 0.0
    for own, other in (halves, halves[::-1]):
        total += float(np.sum(y[own] + coefficient(x[other], y[other]) * x[own]))
    return total / x.size


def several(log_r: ArrayLike, controls: ArrayLike, *, cross_fit: bool = True) -> float:
    """Return the mean of k1 after least squares on several control variates with mean zero.

    Parameters
    ----------
    log_r : array of shape (n,)
        log p(x) - log q(x) in nats at independent x ~ q; finite.
    controls : array of shape (n, m)
        Values at the same draws of functions with *known* mean zero under q: r - 1, a score of q,
        a centred statistic. Columns may depend on each other.
    cross_fit : bool
        Take the coefficients for each half of the sample from the other half, which leaves no
        bias; otherwise from the whole sample, with a bias of order 1/n.

    Returns
    -------
    float
        Estimate of KL(q‖p) in nats.

    Raises
    ------
    TypeError, ValueError
        As in `regression`; if the shapes do not match, a control is not finite, or a half has
        fewer than m + 2 draws.

    Notes
    -----
    Implements ``thm-several-control-variates``. In an exponential family the scores leave no
    variance at all.

    Examples
    --------
    >>> x = np.random.Generator(np.random.PCG64(0)).standard_normal(50)
    >>> round(several(0.5 * x - 0.125, x[:, None]), 12)  # N(0, 1) and N(1/2, 1); the score is x
    0.125
    """
    controls = as_numpy("controls", controls)
    _, y = _x_and_y(log_r, least=2)
    if controls.ndim != 2 or len(controls) != y.size:
        raise ValueError(
            f"controls has shape {controls.shape} and log_r {y.shape}; give one row a draw and one "
            "column a control variate."
        )
    if not np.all(np.isfinite(controls)):
        raise ValueError("controls holds a value that is not finite; leave that control out.")
    least = (controls.shape[1] + 2) * (2 if cross_fit else 1)
    if y.size < least:
        raise ValueError(
            f"log_r holds {y.size} draws; {controls.shape[1]} control variates need {least}."
        )
    everything = slice(None)
    halves = slice(0, y.size // 2), slice(y.size // 2, None)
    total = 0.0
    for own, other in (halves, halves[::-1]) if cross_fit else ((everything, everything),):
        design = np.column_stack([np.ones(len(y[other])), controls[other]])
        # The least-norm solution: columns that depend on each other do no harm.
        slopes = np.linalg.lstsq(design, y[other], rcond=None)[0][1:]
        total += float(np.sum(y[own] - controls[own] @ slopes))
    return total / y.size


def _x_and_y(log_r: ArrayLike, least: int) -> tuple[Floats, Floats]:
    y = k1(as_numpy("log_r", log_r))
    if y.ndim != 1 or y.size < least:
        raise ValueError(
            f"log_r has shape {y.shape}; pass one dimension with at least {least} values."
        )
    if not np.all(np.isfinite(y)):
        raise ValueError(
            "log_r is -inf at a sample (p(x) = 0), so KL(q‖p) is infinite and no λ helps; use k1."
        )
    if np.min(y) < -350:
        raise ValueError(
            f"log_r is {-np.min(y)} at a sample; above 350 the square of r overflows, and no λ can "
            "be estimated: use k1."
        )
    return np.expm1(-y), y
