r"""KL(q‖p) from more samples than fit in memory: one pass, constant memory, parts that merge.

A `KLStream` holds moments over independent groups (single draws, sequences, or the rows with one
label) of their sums of k1, k2, k3 and r - 1 and of what these may be divided by. The estimates,
their errors and λ̂ need nothing else. Updating and merging use the formulas of Chan, Golub and
LeVeque (1983) for centred sums, which do not cancel.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from klapprox._arrays import as_table
from klapprox.control_variates import coefficient_of_sums
from klapprox.diagnostics import Diagnostics, diagnose
from klapprox.estimate import (
    KLEstimate,
    as_groups,
    as_weights,
    by_group,
    conclude,
    gather,
    refuse_confidence,
    refuse_level,
    units,
    vary_in_a_row,
)
from klapprox.estimators import ESTIMATORS, K_LAMBDA, refuse_unknown

__all__ = ["KLStream", "stream_dask", "stream_kl"]

_UNITS = ("samples", "sequences", "weights", "weights of sequences")
TRACKED = (*ESTIMATORS, "r - 1", *_UNITS)
"""What the moments of a stream are about, in the order of its vectors: totals of a group."""

Floats = NDArray[np.float64]

_FURTHER = ("mask", "groups", "log_weights")
_LARGEST = 350.0  # above it r² overflows
_SUMS = ("groups", "n", "infinite", "ratios", "squares", "weight_squares", "rounding_squares")
_FLAGS = ("sequences", "weighted", "grouped", "token_weights")
_COUNTS = (*_SUMS, *_FLAGS, "max_log_ratio", "min_log_ratio")


@dataclass(eq=False)
class KLStream:
    """Running moments, over independent groups, of the estimators and of r - 1 at x ~ q.

    Attributes
    ----------
    groups, n : int
        Independent groups, and draws or unmasked tokens, so far.
    infinite : int
        How many of them have p(x) = 0; they make every estimate infinite.
    mean : array of shape (m,)
        Means over groups of the m totals `TRACKED`. Where p(x) = 0 only r - 1 is counted.
    products : array of shape (m, m)
        Sums of centred products of the same.
    max_log_ratio, min_log_ratio : float
        Largest and smallest log r so far.
    ratios, squares, weight_squares, rounding_squares : float
        Sums over the samples of r, r², squared weights and variances of rounding.
    sequences, weighted, grouped, token_weights : bool
        What `update` was given: sequences of tokens, weights, groups, weights that differ within a
        sequence.

    Notes
    -----
    Over the ranks of a distributed run one all-gather of `state` merges the streams, with a
    backend of PyTorch that takes tensors where they are::

        state = torch.from_numpy(stream.state)
        parts = [torch.empty_like(state) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, state)
        total = kl.KLStream()
        for part in parts:
            total.merge(kl.KLStream.of_state(part))

    Examples
    --------
    >>> first, second = KLStream(), KLStream()
    >>> first.update(np.log([0.5, 0.25] * 20), np.log([0.25, 0.5] * 20))
    >>> second.update(np.log([0.25, 0.5] * 20), np.log([0.25, 0.25] * 20))
    >>> first.merge(second)
    >>> first.n, round(first.estimate("k1").value, 4)
    (80, 0.1733)
    >>> KLStream.of_state(first.state) == first  # saved and restored
    True
    """

    groups: int = 0
    n: int = 0
    infinite: int = 0
    mean: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(TRACKED)))
    products: NDArray[np.float64] = field(default_factory=lambda: np.zeros((len(TRACKED),) * 2))
    max_log_ratio: float = -math.inf
    min_log_ratio: float = math.inf
    ratios: float = 0.0
    squares: float = 0.0
    weight_squares: float = 0.0
    rounding_squares: float = 0.0
    sequences: bool = False
    weighted: bool = False
    grouped: bool = False
    token_weights: bool = False

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same moments, number for number."""
        return isinstance(other, KLStream) and bool(np.array_equal(self.state, other.state))

    __hash__ = None  # type: ignore[assignment]

    @property
    def state(self) -> NDArray[np.float64]:
        """All that the stream holds, as one array of a fixed length: to save, or to send."""
        counts = [float(getattr(self, name)) for name in _COUNTS]
        return np.concatenate([counts, self.mean, self.products.ravel()])

    @classmethod
    def of_state(cls, state: ArrayLike) -> "KLStream":
        """Return the stream that has this `state`.

        Raises
        ------
        TypeError, ValueError
            If this is no array of numbers, does not have the length of a state, or counts what
            cannot be counted.
        """
        numbers = as_table("state", state)
        size = len(TRACKED)
        if numbers.shape != (len(_COUNTS) + size + size**2,):
            raise ValueError(
                f"state has shape {numbers.shape}; give what KLStream.state returned, shape "
                f"({len(_COUNTS) + size + size**2},)."
            )
        if np.any(np.isnan(numbers)) or not np.all(np.isfinite(numbers[:3])):
            raise ValueError("state holds NaN, or a count that is no number: it was damaged.")
        counts, mean, products = np.split(numbers, [len(_COUNTS), len(_COUNTS) + size])
        stream = cls(mean=mean, products=products.reshape(size, size))
        for name, value in zip(_COUNTS, counts.tolist(), strict=True):
            setattr(stream, name, type(getattr(stream, name))(value))
        return stream

    def update(
        self,
        log_q: Any,
        log_p: Any,
        *,
        mask: Any = None,
        groups: Any = None,
        log_weights: Any = None,
    ) -> None:
        """Take in log-probabilities of further draws or sequences.

        Parameters
        ----------
        log_q, log_p, mask, groups, log_weights : array
            As in `klapprox.estimate_kl`, except that there may be no entry. Rows of one group
            belong into one call: the same label in another call is another group.

        Raises
        ------
        TypeError, ValueError
            As in `klapprox.estimate_kl`, and if a log-ratio exceeds 350, which under q has
            probability below e⁻³⁵⁰ (``prop-free-tests``): such a number is a mismatch of samples
            and scores. Also if draws and sequences meet in one stream.
        """
        log_r, keep, rounding = gather(log_q, log_p, mask)
        weights = as_weights(log_weights, keep)
        labels, count = as_groups(groups, keep)
        if count == 0:
            return
        logs = log_r[keep]
        top = float(logs.max())
        if top > _LARGEST:
            raise ValueError(
                f"log_r is {top:.1f} at a sample; draws of q never get there. Check that log_q and "
                "log_p score the same samples, and that q generated them."
            )
        finite = np.where(log_r > -math.inf, log_r, 0.0)
        terms = [estimator.value(finite) for estimator in ESTIMATORS.values()]
        totals = [weights * term for term in (*terms, np.expm1(log_r))]
        unit = "sequence" if log_r.ndim == 2 else "draw"
        totals += [keep.astype(np.float64), units(keep, weights, False, unit)]
        totals += [weights, units(keep, weights, True, unit)]
        values = np.stack([by_group(total, labels) for total in totals])
        part = KLStream(
            groups=count,
            n=logs.size,
            infinite=int(np.sum(logs == -math.inf)),
            mean=values.mean(axis=1),
            max_log_ratio=top,
            min_log_ratio=float(logs.min()),
            ratios=float(np.sum(np.exp(logs))),
            squares=float(np.sum(np.exp(2 * logs))),
            weight_squares=float(np.sum(weights**2)),
            rounding_squares=logs.size * rounding**2,
            sequences=log_r.ndim == 2,
            weighted=log_weights is not None,
            grouped=groups is not None,
            token_weights=log_r.ndim == 2 and vary_in_a_row(weights, keep),
        )
        centred = values - part.mean[:, None]
        part.products = centred @ centred.T
        self.merge(part)

    def merge(self, other: "KLStream") -> None:
        """Take in all samples of another stream, which is left as it is.

        Raises
        ------
        ValueError
            If one holds draws and the other sequences.
        """
        own, new = self.groups, other.groups
        if own and new and self.sequences != other.sequences:
            raise ValueError("the stream holds draws and sequences; keep one stream for each.")
        if new:
            shift = other.mean - self.mean
            self.products = (
                self.products + other.products + np.outer(shift, shift) * (own * new / (own + new))
            )
            self.mean = self.mean + shift * (new / (own + new))
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _FLAGS:
            setattr(self, name, getattr(self, name) or getattr(other, name))
        self.max_log_ratio = max(self.max_log_ratio, other.max_log_ratio)
        self.min_log_ratio = min(self.min_log_ratio, other.min_log_ratio)

    def estimate(
        self,
        estimator: str = "k3",
        *,
        level: str = "sequence",
        self_normalised: bool = False,
        confidence: float = 0.95,
    ) -> KLEstimate:
        """Return the estimate from all samples so far, as `klapprox.estimate_kl` would.

        "k_lambda" takes λ̂ from the same draws (``thm-estimated-lambda``): its bias is of order
        1/n, which streams make negligible. There is no k̂, which needs the largest draws.

        Raises
        ------
        ValueError
            With fewer than three groups, or if an option is unknown or does not apply.

        Warns
        -----
        KLWarning
            For each entry of ``KLEstimate.warnings``.
        """
        refuse_unknown(estimator, (*ESTIMATORS, K_LAMBDA))
        refuse_level(level)
        refuse_confidence(confidence)
        if self.groups < 3:
            raise ValueError(
                f"the stream holds {self.groups} draws or groups; an error bar needs three."
            )
        if estimator == K_LAMBDA and (self.sequences or self.weighted or self.grouped):
            raise ValueError(
                f'estimator "{K_LAMBDA}" takes draws of one dimension, without groups and weights; '
                'use "k3" or "k1".'
            )
        if self_normalised and not self.weighted:
            raise ValueError("self_normalised needs log_weights, log(π/π_old) of the samples.")
        unit = level if self.sequences else "draw"
        if self_normalised and unit == "sequence" and self.token_weights:
            raise ValueError(
                "self_normalised at sequence level needs one weight a sequence, shape "
                "(sequences, 1)."
            )
        divisor = _unit_vector(_UNITS[(unit == "sequence") + 2 * self_normalised])
        if divisor @ self.mean == 0:
            raise ValueError(
                "log_weights are so small that every weight is 0; add one constant to all of them, "
                "the same in every call of update."
            )
        if estimator == K_LAMBDA:
            value, error = self._of_k_lambda()
        else:
            value, error = self._ratio(_unit_vector(estimator), divisor)
        if self.infinite:
            value = error = math.inf
        return conclude(
            value,
            error,
            estimator=estimator,
            unit=unit,
            n=self.n,
            groups=self.groups,
            confidence=confidence,
            diagnostics=self._diagnostics(divisor, self_normalised),
        )

    def _ratio(self, total: Floats, divisor: Floats) -> tuple[float, float]:
        """Return Σ totals/Σ divisors over groups and its standard error.

        Both are linear in the totals `TRACKED`, with these coefficients.
        """
        of_total, of_divisor = float(total @ self.mean), float(divisor @ self.mean)
        value = of_total / of_divisor
        residual = total - value * divisor
        square = float(residual @ self.products @ residual)
        # What is left of equal values is rounding.
        rounding = 8 * np.finfo(float).eps
        whole = float(total @ self.products @ total)
        if square <= max(self.groups * (rounding * of_total) ** 2, rounding * whole):
            return value, 0.0
        return value, math.sqrt(square / (self.groups - 1) / self.groups) / of_divisor

    def _of_k_lambda(self) -> tuple[float, float]:
        """Return the mean of k_λ̂ and its standard error."""
        k1, x = _unit_vector("k1"), _unit_vector("r - 1")
        squares, products = (float(x @ self.products @ other) for other in (x, k1))
        return self._ratio(k1 + coefficient_of_sums(squares, products) * x, _unit_vector("samples"))

    def _diagnostics(self, divisor: Floats, self_normalised: bool) -> Diagnostics:
        weights, samples = _unit_vector("weights"), _unit_vector("samples")
        excess = _unit_vector("r - 1")  # of w(r - 1); that of wr from 1, if need be
        if not self_normalised:
            excess += weights - samples
        mean, error = self._ratio(excess, weights if self_normalised else samples)
        errors = [
            math.inf if self.infinite else self._ratio(_unit_vector(name), divisor)[1]
            for name in ("k1", "k3")
        ]
        size = None
        if self.weighted:
            total = self.groups * float(weights @ self.mean)
            size = total**2 / self.weight_squares if self.weight_squares > 0 else 0.0
        return diagnose(
            n=self.n,
            mean_ratio=1 + mean,
            error=error,
            k1_error=errors[0],
            k3_error=errors[1],
            max_log_ratio=self.max_log_ratio,
            min_log_ratio=self.min_log_ratio,
            zeros=self.infinite,
            rounding=math.sqrt(self.rounding_squares / self.n),
            effective_size=self.ratios**2 / self.squares if self.squares > 0 else 0.0,
            weight_effective_size=size,
        )


def _unit_vector(name: str) -> Floats:
    return np.array([float(tracked == name) for tracked in TRACKED])


def stream_kl(
    chunks: Iterable[tuple[Any, Any] | dict[str, Any]],
    *,
    total: int | None = None,
    progress: bool = False,
) -> KLStream:
    """Return the moments of all chunks of (log_q, log_p), one at a time in memory.

    Parameters
    ----------
    chunks : iterable of pairs of arrays, or of dictionaries
        Log-probabilities of samples of q, (log_q, log_p), or all arguments of `KLStream.update` by
        name.
    total : int, optional
        Number of chunks, for the progress bar.
    progress : bool
        Show a progress bar (needs ``pip install "klapprox[progress]"``).

    Raises
    ------
    TypeError, ValueError
        If a chunk is neither a pair nor a dictionary of such arguments; else as in
        `KLStream.update`.

    Examples
    --------
    >>> rng = np.random.Generator(np.random.PCG64(0))
    >>> draws = (rng.standard_normal(10_000) for _ in range(5))
    >>> stream = stream_kl((-(x**2) / 2, -((x - 1) ** 2) / 2) for x in draws)
    >>> print(stream.estimate("k_lambda"))
    KL(q‖p) = 0.5006 ± 0.003 nats per draw
    95% interval [0.4948, 0.5065], k_lambda, n = 50000, 50000 independent groups
    mean of r 1.003 (+0.4 standard errors from 1), largest log r 4.23, effective size 17800
    """
    if progress:
        from tqdm.auto import tqdm  # optional

        chunks = tqdm(chunks, total=total, unit="chunk")
    stream = KLStream()
    for chunk in chunks:
        stream.update(**_named_arguments(chunk))
    return stream


def _named_arguments(chunk: Any) -> dict[str, Any]:
    """Return the arguments of `KLStream.update` that a chunk holds."""
    if not isinstance(chunk, dict):
        try:
            log_q, log_p = chunk
        except (TypeError, ValueError):
            raise TypeError(
                f"a chunk is a {type(chunk).__name__}; give a pair (log_q, log_p) of arrays, or a "
                "dictionary of arguments of KLStream.update."
            ) from None
        return {"log_q": log_q, "log_p": log_p}
    if not {"log_q", "log_p"} <= chunk.keys() <= {"log_q", "log_p", *_FURTHER}:
        raise ValueError(
            f"a chunk has {', '.join(map(str, chunk))}; it needs log_q and log_p, and may have "
            f"{', '.join(_FURTHER)}."
        )
    return chunk


def stream_dask(log_q: Any, log_p: Any) -> KLStream:
    """Return the moments of two Dask arrays, block by block on whatever scheduler is set.

    The blocks of ``log_p`` are cut like those of ``log_q``; only the moments travel. With
    ``dask.distributed`` the arrays may be larger than the memory of one machine. Of sequences of
    tokens, a block holds whole ones.

    Raises
    ------
    TypeError, ValueError
        If these are no Dask arrays of one shape; else as in `KLStream.update`.
    """
    for name, array in (("log_q", log_q), ("log_p", log_p)):
        if not hasattr(array, "to_delayed"):
            raise TypeError(
                f"{name} is a {type(array).__name__}; give a dask.array, or use stream_kl."
            )
    import dask

    if len(log_q.shape) == 2:
        log_q = log_q.rechunk({1: -1})
    if log_q.shape != log_p.shape:
        raise ValueError(f"log_q has shape {log_q.shape} and log_p {log_p.shape}; give equal ones.")
    blocks = zip(
        log_q.to_delayed().ravel(), log_p.rechunk(log_q.chunks).to_delayed().ravel(), strict=True
    )
    accumulate, combine = dask.delayed(_accumulate), dask.delayed(_combine)
    parts = [accumulate(*block) for block in blocks]
    while len(parts) > 1:  # a tree, so that no worker waits for all
        parts = [combine(parts[i : i + 8]) for i in range(0, len(parts), 8)]
    stream: KLStream = parts[0].compute()
    return stream


def _accumulate(log_q: Any, log_p: Any) -> KLStream:
    return stream_kl([(log_q, log_p)])


def _combine(streams: list[KLStream]) -> KLStream:
    total = KLStream()
    for stream in streams:
        total.merge(stream)
    return total
