r"""From log-probabilities to an honest estimate of KL(q‖p): value, error bar, diagnostics.

`estimate_kl` takes the log-probabilities of samples x ~ q under q and under p, for single draws or
for sequences of tokens, and returns a `KLEstimate` that prints itself and says in plain words when
not to trust it.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klapprox import estimators
from klapprox._arrays import as_floating
from klapprox.control_variates import leave_one_out

__all__ = ["Diagnostics", "KLEstimate", "KLWarning", "estimate_kl"]

Floats = NDArray[np.float64]

_VALUES: dict[str, Callable[[Floats], Floats]] = {
    "k1": estimators.k1,
    "k2": estimators.k2,
    "k3": estimators.k3,
}
_LEVELS = ("sequence", "token")
_NEEDS_FINITE_MEAN_SQUARE = ("k3", "k_lambda")


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


@dataclass(frozen=True)
class KLEstimate:
    """An estimate of KL(q‖p) in nats, printed by ``print`` and shown by notebooks.

    Attributes
    ----------
    value : float
        The estimate: nats per draw or sequence, or per token at token level.
    standard_error : float
        Over independent groups (``prop-clustered-variance``).
    interval : tuple of float
        Student's interval with ``groups - 1`` degrees of freedom.
    confidence : float
        Its level.
    n : int
        Draws, or unmasked tokens of sequences.
    groups : int
        Independent units the error bar rests on: draws, sequences or the given groups.
    estimator, unit : str
        The estimator's name, and "draw", "sequence" or "token".
    diagnostics : Diagnostics
    warnings : tuple of str
        What is wrong, and what to do; empty if nothing was found.
    """

    value: float
    standard_error: float
    interval: tuple[float, float]
    confidence: float
    n: int
    groups: int
    estimator: str
    unit: str
    diagnostics: Diagnostics
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        """Return the estimate in a few lines."""
        low, high = self.interval
        lines = [
            f"KL(q‖p) = {self.value:.4g} ± {self.standard_error:.2g} nats per {self.unit}",
            f"{self.confidence:.0%} interval [{low:.4g}, {high:.4g}], {self.estimator}, "
            f"n = {self.n}, {self.groups} independent groups",
            f"mean of r {self.diagnostics.mean_ratio:.4g} "
            f"({self.diagnostics.mean_ratio_z:+.1f} standard errors from 1), "
            f"largest log r {self.diagnostics.max_log_ratio:.3g}, "
            f"effective size {self.diagnostics.effective_size:.0f}"
            + ("" if self.diagnostics.pareto_k is None else f", k̂ {self.diagnostics.pareto_k:.2f}"),
        ]
        return "\n".join([*lines, *(f"! {warning}" for warning in self.warnings)])

    def _repr_markdown_(self) -> str:
        """Return the same for a notebook."""
        head, *rest = str(self).split("\n")
        return "\n".join([f"**{head}**", "", *(f"* {line.removeprefix('! ')}" for line in rest)])


def estimate_kl(
    log_q: Any,
    log_p: Any,
    *,
    estimator: str = "k3",
    level: str = "sequence",
    mask: Any = None,
    groups: Any = None,
    log_weights: Any = None,
    self_normalised: bool = False,
    confidence: float = 0.95,
) -> KLEstimate:
    r"""Estimate KL(q‖p) from log-probabilities of samples of q.

    Parameters
    ----------
    log_q, log_p : array of shape (n,) or (sequences, tokens)
        log q(x) and log p(x) in nats at x ~ q: one number a draw, or one a token of sequences.
        Arrays of any kind; they are converted to float64 NumPy arrays.
    estimator : {"k3", "k1", "k2", "k_lambda"}
        "k_lambda" takes λ for each draw from all the others (``thm-estimated-lambda``); only for
        one dimension, without weights and groups.
    level : {"sequence", "token"}
        For sequences: nats per sequence, the mean of sums over tokens, or nats per token, the sum
        over everything divided by the number of tokens.
    mask : array of bool, optional
        True where a token counts. What stands elsewhere does not matter, NaN included. A sequence
        without any True is left out.
    groups : array of shape (n,) or (sequences,), optional
        Labels, for example prompts. Rows with one label may depend on each other; error bars are
        computed over labels (``prop-clustered-variance``).
    log_weights : array, optional
        log(π/π_old) of draws, sequences (shape (sequences, 1)) or tokens, if the samples were
        drawn from π_old while ``log_q`` scores π.
    self_normalised : bool
        Divide by the sum of the weights instead of their number: biased by order 1/n, bounded.
    confidence : float
        Level of the interval.

    Returns
    -------
    KLEstimate

    Raises
    ------
    TypeError, ValueError
        As in `klapprox.log_ratio`; if shapes, mask, groups or weights do not match; if fewer than
        two groups are left; if an option is unknown. The message names argument and remedy.

    Warns
    -----
    KLWarning
        For each entry of ``KLEstimate.warnings``.

    Notes
    -----
    With totals a_g of (weighted) values and n_g of units per group the estimate is Σa/Σn and its
    squared standard error G/(G-1) Σ(a_g - value·n_g)²/(Σn)²: exact for a mean, first order for a
    ratio.

    Examples
    --------
    >>> log_q = np.log([0.5, 0.25, 0.25, 0.5, 0.5, 0.25, 0.25, 0.5])
    >>> log_p = np.log([0.25, 0.5, 0.25, 0.25, 0.25, 0.5, 0.25, 0.25])
    >>> print(estimate_kl(log_q, log_p))
    KL(q‖p) = 0.1733 ± 0.042 nats per draw
    95% interval [0.07471, 0.2719], k3, n = 8, 8 independent groups
    mean of r 1 (+0.0 standard errors from 1), largest log r 0.693, effective size 6
    """
    _refuse_options(estimator, level, confidence)
    log_q, log_p = as_numpy("log_q", log_q), as_numpy("log_p", log_p)
    if log_q.shape != log_p.shape or log_q.ndim not in (1, 2) or log_q.size == 0:
        raise ValueError(
            f"log_q has shape {log_q.shape} and log_p {log_p.shape}; give both the same shape, "
            "(n,) for draws or (sequences, tokens), with at least one entry."
        )
    keep = _as_mask(mask, log_q.shape)
    # What is masked may hold anything: it is replaced before any arithmetic.
    log_r = estimators.log_ratio(np.where(keep, log_q, -1.0), np.where(keep, log_p, -1.0))
    unit = "draw" if log_q.ndim == 1 else level
    weights = _as_weights(log_weights, keep, self_normalised, unit)
    labels = _as_labels(groups, len(log_q), keep)
    if estimator == "k_lambda":
        if log_r.ndim != 1 or groups is not None or log_weights is not None or mask is not None:
            raise ValueError(
                'estimator "k_lambda" takes draws of one dimension, without mask, groups and '
                'weights; use "k3" or "k1", or drop the masked draws.'
            )
        value, terms = _k_lambda(log_r)
    else:
        value, terms = math.nan, _values(estimator, log_r)
    totals = _by_group(np.where(keep, _product(weights, terms), 0.0), labels)
    counts = _by_group(_units(keep, weights, self_normalised, unit), labels)
    if math.isnan(value):
        value = float(totals.sum() / counts.sum())
    error = _standard_error(totals, counts, value)
    diagnostics = _diagnose(log_r, keep, weights if log_weights is not None else None, labels)
    interval = interval_of(value, error, len(totals), confidence)
    found = tuple(warnings_about(estimator, interval, diagnostics))
    for text in found:
        warnings.warn(text, KLWarning, stacklevel=2)
    return KLEstimate(
        value=value,
        standard_error=error,
        interval=interval,
        confidence=confidence,
        n=int(keep.sum()),
        groups=len(totals),
        estimator=estimator,
        unit=unit,
        diagnostics=diagnostics,
        warnings=found,
    )


def _refuse_options(estimator: str, level: str, confidence: float) -> None:
    known = (*_VALUES, "k_lambda")
    if estimator not in known:
        raise ValueError(f"estimator is {estimator!r}; choose one of {', '.join(known)}.")
    if level not in _LEVELS:
        raise ValueError(f"level is {level!r}; choose one of {', '.join(_LEVELS)}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; give a number between 0 and 1.")


def _values(estimator: str, log_r: Floats) -> Floats:
    with np.errstate(over="ignore"):  # the value is +inf, and the warnings say why
        return np.asarray(_VALUES[estimator](log_r))


def _product(weights: Floats, terms: Floats) -> Floats:
    """Return weights times terms; a term that is infinite stays so where its weight underflows."""
    return np.where(np.isinf(terms), terms, weights * np.where(np.isinf(terms), 0.0, terms))


def as_numpy(name: str, values: Any) -> Floats:
    if isinstance(values, list | tuple):
        try:
            values = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{name} is a {type(values).__name__} that is no table of numbers ({error}); pass "
                "an array, and fill short sequences up and mask them."
            ) from error
    _, values = as_floating(name, values)
    if hasattr(values, "detach"):  # a PyTorch tensor, which may carry a gradient
        values = values.detach().cpu().double()
    return np.asarray(values, dtype=np.float64)


def _as_mask(mask: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if mask is None:
        return np.ones(shape, dtype=bool)
    keep = np.asarray(mask)
    if keep.dtype != bool or keep.shape != shape:
        raise ValueError(
            f"mask has dtype {keep.dtype} and shape {keep.shape}; give booleans of shape {shape}, "
            "for example mask = tokens != pad_token."
        )
    if not keep.any():
        raise ValueError("mask is False everywhere: there is no token to average over.")
    return keep


def _as_weights(
    log_weights: Any, keep: NDArray[np.bool_], self_normalised: bool, unit: str
) -> Floats:
    if log_weights is None:
        if self_normalised:
            raise ValueError("self_normalised needs log_weights, log(π/π_old) of the samples.")
        return np.ones(keep.shape)
    logs = as_numpy("log_weights", log_weights)
    try:
        logs = np.broadcast_to(logs, keep.shape)
    except ValueError:
        raise ValueError(
            f"log_weights has shape {logs.shape}, the log-probabilities {keep.shape}; give one "
            "weight a draw, a token, or (shape (sequences, 1)) a sequence."
        ) from None
    if np.any(np.isnan(logs[keep]) | (logs[keep] == math.inf)):
        raise ValueError(
            "log_weights holds NaN or +inf where the mask is True; drop those samples."
        )
    if self_normalised and unit == "sequence" and np.any(np.ptp(logs, axis=1) > 0):
        raise ValueError(
            "self_normalised at sequence level needs one weight a sequence, shape (sequences, 1)."
        )
    return np.where(keep, np.exp(np.where(keep, logs, 0.0)), 0.0)


def _as_labels(groups: Any, rows: int, keep: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the number of each row's group, counted over groups that have a sample."""
    occupied = keep.reshape(rows, -1).any(axis=1)
    if groups is None:
        codes, count = np.cumsum(occupied) - 1, int(occupied.sum())
    else:
        labels = np.asarray(groups)
        if labels.shape != (rows,):
            raise ValueError(
                f"groups has shape {labels.shape}; give one label a draw or sequence, shape "
                f"({rows},)."
            )
        names = np.unique(labels[occupied])
        codes, count = np.searchsorted(names, labels), len(names)
    if count < 2:
        raise ValueError(
            f"{'groups' if groups is not None else 'log_q'}: fewer than two independent groups "
            "hold unmasked samples; one group gives no standard error. Add samples or groups."
        )
    # A row without a sample adds nothing to any group, so it may stand in the first.
    return np.where(occupied, codes, 0)


def _by_group(values: Floats, labels: NDArray[np.intp]) -> Floats:
    """Return the sums of values over rows with one label, of labels with any row."""
    rows = values.reshape(len(values), -1).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.bincount(labels, rows), dtype=np.float64)


def _units(keep: NDArray[np.bool_], weights: Floats, self_normalised: bool, unit: str) -> Floats:
    """Return what the total is divided by, entry by entry."""
    if unit in ("draw", "token"):
        return weights if self_normalised else keep.astype(np.float64)
    # One unit a sequence that has a token, at its first one.
    first = keep & (np.cumsum(keep, axis=1) == 1)
    return np.where(first, weights if self_normalised else 1.0, 0.0)


def _standard_error(totals: Floats, counts: Floats, value: float) -> float:
    if math.isinf(value):
        return math.inf
    used = counts > 0
    residuals = (totals - value * counts)[used]
    groups = residuals.size
    with np.errstate(over="ignore"):
        return float(math.sqrt(groups / (groups - 1)) * np.linalg.norm(residuals) / counts.sum())


def interval_of(value: float, error: float, groups: int, confidence: float) -> tuple[float, float]:
    from scipy.stats import t  # slow to import, and needed only here

    if math.isinf(error):
        return (-math.inf, math.inf) if math.isfinite(value) else (math.inf, math.inf)
    half = float(t.ppf((1 + confidence) / 2, groups - 1)) * error
    return value - half, value + half


def _k_lambda(log_r: Floats) -> tuple[float, Floats]:
    """Return the leave-one-out estimate and the terms k_λ̂ that its spread is read from."""
    value = leave_one_out(log_r)
    x, y = np.expm1(log_r), -log_r
    centred = x - x.mean()
    slope = -np.sum(centred * (y - y.mean())) / np.sum(centred**2) if np.ptp(x) > 0 else 0.0
    terms = y + slope * x
    return value, terms - terms.mean() + value


def _diagnose(
    log_r: Floats, keep: NDArray[np.bool_], weights: Floats | None, labels: NDArray[np.intp]
) -> Diagnostics:
    logs = log_r[keep]
    top = float(logs.max())
    # Scaled by the largest ratio, so that no square overflows.
    relative = np.exp(logs - top) if top > -math.inf else np.zeros_like(logs)
    ess = float(relative.sum() ** 2 / np.sum(relative**2)) if top > -math.inf else 0.0
    with np.errstate(over="ignore"):
        r = np.where(keep, np.exp(log_r), 0.0)
    share = np.ones_like(r) if weights is None else weights
    totals = _by_group(_product(share, r), labels)
    counts = _by_group(keep.astype(np.float64), labels)
    mean = float(totals.sum() / counts.sum())
    error = _standard_error(totals, counts, mean)
    z = 0.0 if mean == 1 else math.copysign(math.inf, mean - 1)
    if 0 < error < math.inf:
        z = (mean - 1) / error
    return Diagnostics(
        mean_ratio=mean,
        mean_ratio_z=z,
        max_log_ratio=top,
        max_log_ratio_bound=min(1.0, logs.size * math.exp(-max(top, 0.0))),
        effective_size=ess,
        pareto_k=_pareto_k(logs),
        weight_effective_size=None
        if weights is None
        else float(weights.sum() ** 2 / np.sum(weights**2)),
    )


def _pareto_k(logs: Floats) -> float | None:
    if logs.size < 100 or not np.all(np.isfinite(logs)) or np.ptp(logs) == 0:
        return None
    try:
        from arviz_stats.base.array import array_stats  # optional
    except ImportError:
        return None
    # psislw takes log-likelihoods: the logarithm of what importance sampling divides by. A tail
    # of equal values, as finite vocabularies have, leaves nothing to fit.
    try:
        with np.errstate(divide="raise", invalid="raise"):
            return float(array_stats.psislw(-logs)[1])
    except (ValueError, FloatingPointError):
        return None


def warnings_about(
    estimator: str, interval: tuple[float, float], diagnostics: Diagnostics
) -> list[str]:
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
    if k is not None and k > 0.5 and estimator in _NEEDS_FINITE_MEAN_SQUARE:
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
