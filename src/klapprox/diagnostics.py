r"""What a sample says about the estimate that was made from it, and the warnings that follow.

`diagnose` makes the numbers, in one place for batches and streams; `warnings_about` puts into words
what they mean for an estimator.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klapprox.estimators import ESTIMATORS, K_LAMBDA

__all__ = [
    "Diagnostics",
    "KLWarning",
    "diagnose",
    "effective_size",
    "tail_index",
    "warnings_about",
    "z_score",
]

Floats = NDArray[np.float64]


class KLWarning(UserWarning):
    """The estimate, or its error bar, should not be trusted as it stands; the text says why."""


@dataclass(frozen=True)
class Diagnostics:
    """What the sample itself says about the estimate; ``r = p/q`` per draw or token.

    Attributes
    ----------
    mean_ratio : float
        Mean of r. It is 1 if q is the law that was sampled and p ≪ q (``lem-mean-of-r``).
    mean_ratio_z : float
        (mean_ratio - 1) in standard errors (over groups).
    max_log_ratio : float
        Largest log r.
    max_log_ratio_bound : float
        Bound on the probability of one so large under q, n e^{-max} (``lem-log-ratio-tail``).
    effective_size : float
        (Σ r)²/Σ r², about n/(1 + χ²(p‖q)).
    pareto_k : float or None
        Shape of the upper tail of r by Pareto smoothing; Var(k3) is infinite above 1/2. None
        without arviz-stats (``pip install "klapprox[diagnostics]"``), with fewer than 100 draws or
        with an r that is 0 or does not vary.
    weight_effective_size : float or None
        (Σ w)²/Σ w² of the importance weights, if there are any.
    """

    mean_ratio: float
    mean_ratio_z: float
    max_log_ratio: float
    max_log_ratio_bound: float
    effective_size: float
    pareto_k: float | None
    weight_effective_size: float | None


def diagnose(
    *,
    n: int,
    mean_ratio: float,
    error: float,
    max_log_ratio: float,
    effective_size: float,
    pareto_k: float | None = None,
    weight_effective_size: float | None = None,
) -> Diagnostics:
    """Return the diagnostics of n draws whose mean of r has this standard error."""
    return Diagnostics(
        mean_ratio=mean_ratio,
        mean_ratio_z=z_score(mean_ratio, error),
        max_log_ratio=max_log_ratio,
        max_log_ratio_bound=min(1.0, n * math.exp(-max(max_log_ratio, 0.0))),
        effective_size=effective_size,
        pareto_k=pareto_k,
        weight_effective_size=weight_effective_size,
    )


def z_score(mean_ratio: float, error: float) -> float:
    """Return how many standard errors the mean of r lies from 1; infinite without any error."""
    if mean_ratio == 1:
        return 0.0
    if 0 < error < math.inf:
        return (mean_ratio - 1) / error
    return math.copysign(math.inf, mean_ratio - 1)


def effective_size(log_weights: Any) -> float:
    """Return (Σ w)²/Σ w² of weights given by their logarithms; 0 if all of them are 0."""
    top = np.max(log_weights)
    if top == -math.inf:
        return 0.0
    relative = np.exp(log_weights - top)  # scaled by the largest, so that no square overflows
    return float(relative.sum() ** 2 / np.sum(relative**2))


def tail_index(log_ratios: Floats) -> float | None:
    """Return k̂, the shape of the upper tail of r, or None; see `Diagnostics`."""
    if log_ratios.size < 100 or not np.all(np.isfinite(log_ratios)) or np.ptp(log_ratios) == 0:
        return None
    try:
        from arviz_stats.base.array import array_stats  # optional
    except ImportError:
        return None
    # psislw takes log-likelihoods: the logarithm of what importance sampling divides by. A tail
    # of equal values, as finite vocabularies have, leaves nothing to fit.
    try:
        with np.errstate(divide="raise", invalid="raise"):
            return float(array_stats.psislw(-log_ratios)[1])
    except (ValueError, FloatingPointError):
        return None


def warnings_about(
    estimator: str, interval: tuple[float, float], diagnostics: Diagnostics
) -> list[str]:
    """Return in plain words why the estimate should not be trusted, if anything was found."""
    found = []
    if diagnostics.max_log_ratio_bound < 1e-6:
        found.append(
            f"The largest log-ratio is {diagnostics.max_log_ratio:.1f}; if q was sampled this has "
            f"probability below {diagnostics.max_log_ratio_bound:.0e}. log_q is not the score of "
            "the sampler: check temperature, direction (log_q and log_p swapped?) and alignment."
        )
    elif abs(diagnostics.mean_ratio_z) > 4:
        found.append(
            f"The mean of r is {diagnostics.mean_ratio:.4g}, {diagnostics.mean_ratio_z:+.1f} "
            "standard errors from 1. Either log_q does not score the law that was sampled "
            "(temperature, truncated sampling, padding, swapped arguments), or r has a heavy tail."
        )
    if interval[1] < 0:
        found.append(
            "The whole interval is negative, which a divergence cannot be: log_q does not score "
            "the law that was sampled."
        )
    k = diagnostics.pareto_k
    needs_square_of_r = estimator == K_LAMBDA or ESTIMATORS[estimator].needs_square_of_r
    if k is not None and k > 0.5 and needs_square_of_r:
        found.append(
            f"The tail of r looks too heavy (k̂ = {k:.2f} > 0.5): the variance of {estimator} may "
            "be infinite, and value and interval are too small more often than not. Use "
            'estimator="k1".'
        )
    size = diagnostics.weight_effective_size
    if size is not None and size < 10:
        found.append(
            f"The importance weights have an effective size of {size:.1f}: a few samples decide. "
            "Sample again from the current policy."
        )
    return found
