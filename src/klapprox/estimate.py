r"""From log-probabilities to an honest estimate of KL(q‖p): value, error bar, diagnostics.

`estimate_kl` takes the log-probabilities of samples x ~ q under q and under p, for single draws or
for sequences of tokens, and returns a `KLEstimate` that prints itself and says in plain words when
not to trust it.
"""

import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from klapprox._arrays import as_labels, as_mask, as_numpy, spacing
from klapprox.control_variates import leave_one_out_terms
from klapprox.diagnostics import (
    Diagnostics,
    KLWarning,
    diagnose,
    effective_size,
    tail_index,
    tail_index_of_log,
    warnings_about,
)
from klapprox.estimators import ESTIMATORS, K_LAMBDA, log_ratio, refuse_unknown

__all__ = ["KLEstimate", "conclude", "estimate_kl"]

Floats = NDArray[np.float64]

_LEVELS = ("sequence", "token")


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
        z = self.diagnostics.mean_ratio_z
        if z is not None:
            from_one = f"({z:+.1f} standard errors from 1)"
        else:
            from_one = "at every sample" if self.diagnostics.constant else "in every group"
        lines = [
            f"KL(q‖p) = {self.value:.4g} ± {self.standard_error:.2g} nats per {self.unit}",
            f"{self.confidence:.0%} interval [{low:.4g}, {high:.4g}], {self.estimator}, "
            f"n = {self.n}, {self.groups} independent groups",
            f"mean of r {self.diagnostics.mean_ratio:.4g} {from_one}, "
            f"largest log r {self.diagnostics.max_log_ratio:.3g}, "
            f"effective size {self.diagnostics.effective_size:.0f}"
            + ("" if self.diagnostics.pareto_k is None else f", k̂ {self.diagnostics.pareto_k:.2f}"),
        ]
        if self.estimator == "k2":
            lines.append("k2 is biased: value and interval are those of E k2, not of KL(q‖p)")
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
        Arrays of any kind, pandas Series and lists; they are converted to float64 NumPy arrays. A
        NumPy array that masks something is refused: pass its data and its mask.
    estimator : {"k3", "k1", "k2", "k_lambda"}
        "k_lambda" takes λ for each draw from all the others (``thm-estimated-lambda``); only for
        one dimension, without weights and groups. Its error bar is the spread of these terms.
    level : {"sequence", "token"}
        For sequences: nats per sequence, the mean of sums over tokens, or nats per token, the sum
        over everything divided by the number of tokens.
    mask : array of bool, or of zeros and ones, optional
        True where a token counts. What stands elsewhere does not matter, NaN included. A sequence
        without any True is left out.
    groups : array of shape (n,) or (sequences,), optional
        Labels, for example prompts. Rows with one label may depend on each other; error bars are
        computed over labels (``prop-clustered-variance``).
    log_weights : array, optional
        log(π/π_old) of draws (shape (n,)), sequences ((sequences, 1)) or tokens ((sequences,
        tokens)), if the samples were drawn from π_old while ``log_q`` scores π.
    self_normalised : bool
        Divide by the sum of the weights instead of their number: biased by order 1/n, bounded, and
        the same for weights that are known up to a constant.
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
    >>> x = np.random.Generator(np.random.PCG64(0)).standard_normal(1000)  # from N(0, 1)
    >>> print(estimate_kl(-(x**2) / 2, -((x - 0.5) ** 2) / 2))  # p = N(1/2, 1): KL is 1/8
    KL(q‖p) = 0.1188 ± 0.0053 nats per draw
    95% interval [0.1083, 0.1292], k3, n = 1000, 1000 independent groups
    mean of r 0.9697 (-1.9 standard errors from 1), largest log r 1.41, effective size 792, k̂ 0.18
    """
    refuse_unknown(estimator, (*ESTIMATORS, K_LAMBDA))
    refuse_level(level)
    refuse_confidence(confidence)
    samples = gather(log_q, log_p, mask)
    log_r, keep = samples.log_r, samples.keep
    if log_r.size == 0:
        raise ValueError(
            f"log_q has shape {log_r.shape}; give (n,) draws or (sequences, tokens), with at least "
            "one entry."
        )
    if not keep.any():
        raise ValueError("mask is False everywhere: there is no token to average over.")
    unit = "draw" if log_r.ndim == 1 else level
    if self_normalised and log_weights is None:
        raise ValueError("self_normalised needs log_weights, log(π/π_old) of the samples.")
    weights = as_weights(log_weights, keep, up_to_a_constant=self_normalised)
    if self_normalised and unit == "sequence" and vary_in_a_row(weights, keep):
        raise ValueError(
            "self_normalised at sequence level needs one weight a sequence, shape (sequences, 1)."
        )
    labels, count = as_groups(groups, keep)
    if count < 2:
        raise ValueError(
            f"{'groups' if groups is not None else 'log_q'}: fewer than two independent groups "
            "hold unmasked samples; one group gives no standard error. Add samples or groups."
        )
    plain = log_r.ndim == 1 and groups is None and log_weights is None and mask is None
    if estimator == K_LAMBDA and not plain:
        raise ValueError(
            f'estimator "{K_LAMBDA}" takes draws of one dimension, without mask, groups and '
            'weights; use "k3" or "k1", or drop the masked draws.'
        )
    counts = by_group(units(keep, weights, self_normalised, unit), labels)

    @functools.cache
    def estimated(name: str) -> tuple[float, float]:
        """Return value and standard error of an estimator."""
        with np.errstate(over="ignore"):  # the value is +inf, and the warnings say why
            terms = (
                leave_one_out_terms(log_r) if name == K_LAMBDA else ESTIMATORS[name].value(log_r)
            )
        totals = by_group(np.where(keep, product(weights, terms), 0.0), labels)
        return _ratio_and_error(totals, counts)

    value, error = estimated(estimator)
    return conclude(
        value,
        error,
        estimator=estimator,
        unit=unit,
        n=int(keep.sum()),
        groups=len(counts),
        confidence=confidence,
        diagnostics=_diagnose(
            log_r,
            keep,
            weights if log_weights is not None else None,
            labels,
            self_normalised,
            rounding=samples.rounding,
            k1_error=estimated("k1")[1],
            k3_error=estimated("k3")[1],
        ),
    )


def conclude(
    value: float,
    error: float,
    *,
    estimator: str,
    unit: str,
    n: int,
    groups: int,
    confidence: float,
    diagnostics: Diagnostics,
) -> KLEstimate:
    """Return the estimate with its interval and warnings, and emit the warnings."""
    interval = _interval(value, error, groups, confidence)
    found = tuple(warnings_about(estimator, value, interval, groups, diagnostics))
    for text in found:
        warnings.warn(text, KLWarning, stacklevel=3)
    return KLEstimate(
        value=value,
        standard_error=error,
        interval=interval,
        confidence=confidence,
        n=n,
        groups=groups,
        estimator=estimator,
        unit=unit,
        diagnostics=diagnostics,
        warnings=found,
    )


def refuse_level(level: Any) -> None:
    """Raise ValueError unless this is a level."""
    refuse_unknown(level, _LEVELS, "level")


def refuse_confidence(confidence: Any) -> None:
    """Raise ValueError unless this can be the level of an interval."""
    if not isinstance(confidence, int | float | np.floating) or not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; give a number between 0 and 1.")


def _interval(value: float, error: float, groups: int, confidence: float) -> tuple[float, float]:
    from scipy.stats import t  # slow to import, and needed only here

    if math.isinf(error):
        return (-math.inf, math.inf) if math.isfinite(value) else (math.inf, math.inf)
    half = float(t.ppf((1 + confidence) / 2, groups - 1)) * error
    return value - half, value + half


def product(weights: Floats, terms: Floats) -> Floats:
    """Return weights times terms; a term that is infinite stays so where its weight underflows."""
    return np.where(np.isinf(terms), terms, weights * np.where(np.isinf(terms), 0.0, terms))


class Samples(NamedTuple):
    """Log-ratios, which of them count, and the spread that rounding gives them."""

    log_r: Floats
    keep: NDArray[np.bool_]
    rounding: float


def gather(log_q: Any, log_p: Any, mask: Any) -> Samples:
    """Return the samples of arrays of any kind, checked."""
    spacings = []
    given = {"log_q": log_q, "log_p": log_p}
    arrays = {}
    for name, values in given.items():
        arrays[name] = as_numpy(name, values)
        spacings.append(spacing(values))
    q, p = arrays["log_q"], arrays["log_p"]
    if q.shape != p.shape or q.ndim not in (1, 2):
        raise ValueError(
            f"log_q has shape {q.shape} and log_p {p.shape}; give both the same shape, "
            "(n,) for draws or (sequences, tokens)."
        )
    keep = as_mask(mask, q.shape)
    # What is masked may hold anything: it is replaced before any arithmetic.
    log_r = log_ratio(np.where(keep, q, -1.0), np.where(keep, p, -1.0))
    return Samples(log_r, keep, _rounding(q[keep], p[keep], spacings))


def as_weights(
    log_weights: Any, keep: NDArray[np.bool_], *, up_to_a_constant: bool = False
) -> Floats:
    """Return the weights of all entries, 0 where they do not count."""
    if log_weights is None:
        return keep.astype(np.float64)
    logs = as_numpy("log_weights", log_weights)
    per_sequence = (len(keep), 1)
    if logs.shape not in ((keep.shape,) if keep.ndim == 1 else (keep.shape, per_sequence)):
        wanted = (
            f"{keep.shape}" if keep.ndim == 1 else f"{per_sequence} for sequences, {keep.shape}"
        )
        raise ValueError(
            f"log_weights has shape {logs.shape}, the log-probabilities {keep.shape}; give one "
            f"weight a draw, a token, or (shape (sequences, 1)) a sequence: here {wanted}."
        )
    logs = np.broadcast_to(logs, keep.shape)
    if np.any(np.isnan(logs[keep]) | (logs[keep] == math.inf)):
        raise ValueError(
            "log_weights holds NaN or +inf where the mask is True; drop those samples."
        )
    top = float(np.max(logs[keep], initial=-math.inf))
    if up_to_a_constant:
        if top == -math.inf:
            raise ValueError("log_weights is -inf at every sample: no sample is left.")
        logs = logs - top
    elif top > 700:
        raise ValueError(
            f"log_weights is {top:.0f} at a sample, whose weight overflows; take a constant off "
            "all of them and use self_normalised=True."
        )
    return np.where(keep, np.exp(np.where(keep, logs, 0.0)), 0.0)


def vary_in_a_row(weights: Floats, keep: NDArray[np.bool_]) -> bool:
    """Whether the tokens of a sequence have different weights."""
    lowest = np.where(keep, weights, math.inf).min(axis=1, initial=math.inf)
    return bool(np.any(keep & (weights != lowest[:, None])))


def as_groups(groups: Any, keep: NDArray[np.bool_]) -> tuple[NDArray[np.intp], int]:
    """Return the number of each row's group, counted over groups that have a sample."""
    rows = len(keep)
    occupied = np.asarray(keep.any(axis=tuple(range(1, keep.ndim))))
    if groups is None:
        codes, count = np.cumsum(occupied) - 1, int(occupied.sum())
    else:
        labels = as_labels("groups", groups)
        if labels.shape != (rows,):
            raise ValueError(
                f"groups has shape {labels.shape}; give one label a draw or sequence, shape "
                f"({rows},)."
            )
        codes, count = _numbered(labels, occupied)
    # A row without a sample adds nothing to any group, so it may stand in the first.
    return np.where(occupied, codes, 0), count


def _numbered(labels: NDArray[Any], occupied: NDArray[np.bool_]) -> tuple[NDArray[np.intp], int]:
    """Return for each label its number among those that are occupied, and how many these are."""
    numbers: dict[Any, int] = {}
    try:
        for label in labels[occupied].tolist():
            numbers.setdefault(label, len(numbers))
    except TypeError as error:
        raise TypeError(f"groups holds a label that cannot be compared: {error}.") from None
    if any(label != label for label in numbers):
        raise ValueError("groups holds NaN; give those rows a label, or mask them.")
    return np.array([numbers.get(label, 0) for label in labels.tolist()], dtype=np.intp), len(
        numbers
    )


def by_group(values: Floats, labels: NDArray[np.intp]) -> Floats:
    """Return the sums of values over rows with one label, of labels with any row."""
    rows = values.sum(axis=tuple(range(1, values.ndim)))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.bincount(labels, rows), dtype=np.float64)


def units(keep: NDArray[np.bool_], weights: Floats, self_normalised: bool, unit: str) -> Floats:
    """Return what the total is divided by, entry by entry."""
    if unit in ("draw", "token"):
        return weights if self_normalised else keep.astype(np.float64)
    # One unit a sequence that has a token, at its first one.
    first = keep & (np.cumsum(keep, axis=1) == 1)
    return np.where(first, weights if self_normalised else 1.0, 0.0)


def _ratio_and_error(totals: Floats, counts: Floats) -> tuple[float, float]:
    """Return Σ totals/Σ counts and its standard error over the groups."""
    value = float(totals.sum() / counts.sum())
    if math.isinf(value):
        return value, math.inf
    used = counts > 0
    residuals = (totals - value * counts)[used]
    # What is left of equal terms is rounding, and no error bar.
    residuals[np.abs(residuals) <= 8 * np.finfo(float).eps * np.abs(totals[used])] = 0.0
    groups = residuals.size
    with np.errstate(over="ignore"):
        spread = math.sqrt(groups / (groups - 1)) * np.linalg.norm(residuals)
    return value, float(spread / counts.sum())


def _diagnose(
    log_r: Floats,
    keep: NDArray[np.bool_],
    weights: Floats | None,
    labels: NDArray[np.intp],
    self_normalised: bool,
    *,
    rounding: float,
    k1_error: float,
    k3_error: float,
) -> Diagnostics:
    logs = log_r[keep]
    with np.errstate(over="ignore"):
        r = np.where(keep, np.exp(log_r), 0.0)
    if weights is not None:
        r = product(weights, r)
    counts = weights if weights is not None and self_normalised else keep.astype(float)
    mean, error = _ratio_and_error(by_group(r, labels), by_group(counts, labels))
    with np.errstate(divide="ignore"):
        size = None if weights is None else effective_size(np.log(weights))
    return diagnose(
        n=logs.size,
        mean_ratio=mean,
        error=error,
        max_log_ratio=float(logs.max()),
        min_log_ratio=float(logs.min()),
        zeros=int(np.sum(logs == -math.inf)),
        rounding=rounding,
        effective_size=effective_size(logs),
        pareto_k=tail_index(logs),
        pareto_k_log=tail_index_of_log(logs),
        weight_effective_size=size,
        k1_error=k1_error,
        k3_error=k3_error,
    )


def _rounding(log_q: Floats, log_p: Floats, spacings: Sequence[float]) -> float:
    """Return the standard deviation that the rounding to the given dtypes makes in log r."""
    total = 0.0
    for values, of_1 in zip((log_q, log_p), spacings, strict=True):
        values = values[np.isfinite(values)]
        # Numbers below 2ⁿ and not below 2ⁿ⁻¹ lie 2ⁿ⁻¹ times as far apart as those from 1 on.
        apart = of_1 * np.ldexp(1.0, np.frexp(values)[1] - 1)
        if values.size:
            total += float(np.mean(apart**2)) / 12
    return math.sqrt(total)
