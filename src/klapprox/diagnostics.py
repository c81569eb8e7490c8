r"""What a sample says about the estimate that was made from it, and the warnings that follow.

`diagnose` makes the numbers, in one place for batches and streams; `warnings_about` puts into words
what they mean for an estimator.
"""

import math
from collections.abc import Callable, Iterator
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
    "tail_index_of_log",
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
    mean_ratio_z : float or None
        (mean_ratio - 1) in standard errors (over groups); None where the mean of r is the same in
        all groups. A heavy tail of r makes it large without any fault.
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
    pareto_k_log : float or None
        The same for the upper tail of -log r; above 1/2 Var(log r) is infinite, and with it the
        variances of k1 and k3.
    error_ratio : float or None
        Standard error of k3 over that of k1 in this sample. Of independent draws it is below 1
        exactly if λ̂ > 1/2 (``thm-optimal-lambda``). None where k1 does not vary or is infinite.
    weight_effective_size : float or None
        (Σ w)²/Σ w² of the importance weights, if there are any.
    constant : bool
        Whether r is the same at every sample.
    zeros : int
        Samples with p(x) = 0; one of them makes KL(q‖p) infinite.
    rounding : float
        Standard deviation in log r that comes of rounding log-probabilities to the dtype in which
        they were given. Half its square is added to the mean of k2 and of k3.

    Notes
    -----
    No diagnostic sees what the sample does not hold: a point of small probability with a large
    -log r that was never drawn (``prop-no-upper-bound``).
    """

    mean_ratio: float
    mean_ratio_z: float | None
    max_log_ratio: float
    max_log_ratio_bound: float
    effective_size: float
    pareto_k: float | None
    pareto_k_log: float | None
    error_ratio: float | None
    weight_effective_size: float | None
    constant: bool
    zeros: int
    rounding: float


def diagnose(
    *,
    n: int,
    mean_ratio: float,
    error: float,
    max_log_ratio: float,
    min_log_ratio: float,
    zeros: int,
    rounding: float,
    effective_size: float,
    k1_error: float,
    k3_error: float,
    pareto_k: float | None = None,
    pareto_k_log: float | None = None,
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
        pareto_k_log=pareto_k_log,
        error_ratio=k3_error / k1_error if 0 < k1_error < math.inf else None,
        weight_effective_size=weight_effective_size,
        constant=max_log_ratio == min_log_ratio,
        zeros=zeros,
        rounding=rounding,
    )


def z_score(mean_ratio: float, error: float) -> float | None:
    """Return how many standard errors the mean of r lies from 1; None without a spread."""
    if error == 0:
        return None
    # An infinite error comes of an r that overflows, whose mean does too.
    return math.inf if math.isinf(error) else (mean_ratio - 1) / error


def effective_size(log_weights: Any) -> float:
    """Return (Σ w)²/Σ w² of weights given by their logarithms; 0 if all of them are 0."""
    top = np.max(log_weights)
    if top == -math.inf:
        return 0.0
    relative = np.exp(log_weights - top)  # scaled by the largest, so that no square overflows
    return float(relative.sum() ** 2 / np.sum(relative**2))


def tail_index(log_ratios: Floats) -> float | None:
    """Return k̂, the shape of the upper tail of r, or None; see `Diagnostics`."""
    # psislw takes log-likelihoods: the logarithm of what importance sampling divides by.
    return _fitted(log_ratios, lambda stats: stats.psislw(-log_ratios)[1])


def tail_index_of_log(log_ratios: Floats) -> float | None:
    """Return k̂ of the upper tail of -log r, or None; see `Diagnostics`."""

    def fit(stats: Any) -> float:
        one_chain = -log_ratios[None]
        return float(stats.pareto_khat(one_chain, 0, 1, r_eff=1, tail="right"))

    return _fitted(log_ratios, fit)


def _fitted(log_ratios: Floats, fit: Callable[[Any], float]) -> float | None:
    if log_ratios.size < 100 or not np.all(np.isfinite(log_ratios)) or np.ptp(log_ratios) == 0:
        return None
    try:
        from arviz_stats.base.array import array_stats  # optional
    except ImportError:
        return None
    # A tail of equal values, as finite vocabularies have, leaves nothing to fit.
    try:
        with np.errstate(divide="raise", invalid="raise"):
            return float(fit(array_stats))
    except (ValueError, FloatingPointError):
        return None


_FEW = {K_LAMBDA: 100}  # independent groups below which intervals are known to be too short
_FEW_OF_OTHERS = 30


def warnings_about(
    estimator: str,
    value: float,
    interval: tuple[float, float],
    groups: int,
    diagnostics: Diagnostics,
) -> list[str]:
    """Return in plain words why the estimate should not be trusted, if anything was found."""
    return [
        *_about_the_scores(interval, diagnostics),
        *_about_the_numbers(estimator, value, diagnostics),
        *_about_the_tails(estimator, diagnostics),
        *_about_the_size(estimator, groups, diagnostics),
    ]


def _about_the_scores(interval: tuple[float, float], diagnostics: Diagnostics) -> Iterator[str]:
    """Yield signs that log_q does not score the law that was sampled."""
    z = diagnostics.mean_ratio_z
    if diagnostics.max_log_ratio_bound < 1e-6:
        yield (
            f"The largest log-ratio is {diagnostics.max_log_ratio:.1f}; if q was sampled this has "
            f"probability below {diagnostics.max_log_ratio_bound:.0e}. log_q is not the score of "
            "the sampler: check temperature, direction (log_q and log_p swapped?) and alignment."
        )
    elif z is not None and abs(z) > 4:
        yield (
            f"The mean of r is {diagnostics.mean_ratio:.4g}, {z:+.1f} standard errors from 1. "
            "Either log_q does not score the law that was sampled (temperature, padding, swapped "
            "arguments), or p gives mass to what q cannot draw (truncated sampling), or r has a "
            "heavy tail."
        )
    if z is None and diagnostics.mean_ratio != 1 and not diagnostics.zeros:
        if diagnostics.constant:
            yield (
                f"r is {diagnostics.mean_ratio:.6g} at every sample. So far one kind of outcome "
                "was drawn, and an error bar of 0 says nothing about the others: draw more."
            )
        else:
            yield (
                f"The mean of r is {diagnostics.mean_ratio:.6g} in every group, so its distance "
                "from 1 has no error bar: more groups, or groups that differ, would give one."
            )
    elif interval[1] < 0:
        yield (
            "The whole interval is negative, which a divergence cannot be: log_q does not score "
            "the law that was sampled, or the interval is too short."
        )


def _about_the_numbers(estimator: str, value: float, diagnostics: Diagnostics) -> Iterator[str]:
    """Yield what zeros of p and coarse dtypes do to the value."""
    if diagnostics.zeros:
        yield (
            f"p(x) = 0 at {diagnostics.zeros} of the samples, so KL(q‖p) is infinite, whatever the "
            "estimator. If p should allow these samples, its scores are wrong (masked logits, "
            "truncated sampling, another tokenizer)."
        )
    added = diagnostics.rounding**2 / 2
    if estimator != "k1" and 0 < value < 100 * added:
        yield (
            f"Rounding of the log-probabilities alone gives log r a standard deviation of "
            f"{diagnostics.rounding:.1g} and adds about {added:.1g} to {estimator}. Compute them "
            "in a wider dtype, float32 at least, from the logits on."
        )


def _about_the_tails(estimator: str, diagnostics: Diagnostics) -> Iterator[str]:
    """Yield signs that the variance is infinite, or larger than it need be."""
    needs_square_of_r = estimator == K_LAMBDA or ESTIMATORS[estimator].needs_square_of_r
    k, k_log, ratio = diagnostics.pareto_k, diagnostics.pareto_k_log, diagnostics.error_ratio
    if k is not None and k > 0.5 and needs_square_of_r:
        yield (
            f"The tail of r looks too heavy (k̂ = {k:.2f} > 0.5): the variance of {estimator} may "
            "be infinite, and value and interval are too small more often than not. Use "
            'estimator="k1".'
        )
    elif estimator == "k3" and ratio is not None and ratio > 1:
        yield (
            f"k1 has the smaller standard error here: that of k3 is {ratio:.3g} times as large. "
            'Use estimator="k1".'
        )
    if k_log is not None and k_log > 0.5:
        yield (
            f"The tail of -log r looks too heavy (k̂ = {k_log:.2f} > 0.5): the variance of "
            f"{estimator} may be infinite, and the interval is too short. More draws of q help "
            "slowly; a few outcomes with small p decide."
        )


def _about_the_size(estimator: str, groups: int, diagnostics: Diagnostics) -> Iterator[str]:
    """Yield signs that too few samples, or weights, decide."""
    few = _FEW.get(estimator, _FEW_OF_OTHERS)
    if groups < few:
        yield (
            f"The error bar rests on {groups} independent groups. With fewer than {few} the "
            f"interval of {estimator} may cover the truth much less often than it says."
        )
    needs_square_of_r = estimator == K_LAMBDA or ESTIMATORS[estimator].needs_square_of_r
    if diagnostics.effective_size < 10 <= groups and needs_square_of_r and not diagnostics.zeros:
        yield (
            f"A few draws carry the mean of r (effective size {diagnostics.effective_size:.1f}): "
            f'the interval of {estimator} is too short. Use estimator="k1".'
        )
    size = diagnostics.weight_effective_size
    if size is not None and size < 10:
        yield (
            f"The importance weights have an effective size of {size:.1f}: a few samples decide. "
            "Sample again from the current policy."
        )
