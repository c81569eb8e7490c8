r"""KL(q‖p) from more samples than fit in memory: one pass, constant memory, parts that merge.

A `KLStream` holds the number of draws, the means of k1, k2, k3 and r - 1 and the sums of their
centred products, which is all that the estimates, their errors and λ̂ need. Updating and merging
use the formulas of Chan, Golub and LeVeque (1983) for centred sums, which do not cancel.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klapprox.control_variates import coefficient_of_sums
from klapprox.diagnostics import Diagnostics, diagnose
from klapprox.estimate import KLEstimate, as_numpy, conclude, refuse_confidence
from klapprox.estimators import ESTIMATORS, K_LAMBDA, log_ratio, refuse_unknown

__all__ = ["KLStream", "stream_dask", "stream_kl"]

TRACKED = (*ESTIMATORS, "r - 1")
"""What the moments of a stream are about, in the order of its vectors."""

_LARGEST = 350.0  # above it r² overflows


@dataclass
class KLStream:
    """Running moments of the estimators and of r - 1 at independent x ~ q.

    Attributes
    ----------
    n : int
        Draws so far.
    infinite : int
        How many of them have p(x) = 0; they make every estimate infinite.
    mean : array of shape (m,)
        Means of the m quantities `TRACKED`, k1, k2, k3 and r - 1, over the draws with p(x) > 0.
    products : array of shape (m, m)
        Sums of centred products of the same.
    max_log_ratio : float
        Largest log r so far.

    Examples
    --------
    >>> first, second = KLStream(), KLStream()
    >>> first.update(np.log([0.5, 0.25] * 20), np.log([0.25, 0.5] * 20))
    >>> second.update(np.log([0.25, 0.5] * 20), np.log([0.25, 0.25] * 20))
    >>> first.merge(second)
    >>> first.n, round(first.estimate("k1").value, 4)
    (80, 0.1733)
    """

    n: int = 0
    infinite: int = 0
    mean: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(TRACKED)))
    products: NDArray[np.float64] = field(default_factory=lambda: np.zeros((len(TRACKED),) * 2))
    max_log_ratio: float = -math.inf

    def update(self, log_q: Any, log_p: Any) -> None:
        """Take in log-probabilities of further draws, of any equal shape.

        Raises
        ------
        TypeError, ValueError
            As in `klapprox.log_ratio`, and if a log-ratio exceeds 350, which under q has
            probability below e⁻³⁵⁰ (``prop-free-tests``): such a number is a mismatch of samples
            and scores.
        """
        log_q, log_p = as_numpy("log_q", log_q), as_numpy("log_p", log_p)
        if log_q.shape != log_p.shape:
            raise ValueError(
                f"log_q has shape {log_q.shape} and log_p {log_p.shape}; give both the same shape."
            )
        log_r = np.ravel(log_ratio(log_q, log_p))
        if log_r.size == 0:
            return
        top = float(log_r.max())
        if top > _LARGEST:
            raise ValueError(
                f"log_r is {top:.1f} at a sample; draws of q never get there. Check that log_q and "
                "log_p score the same samples, and that q generated them."
            )
        finite = log_r[log_r > -math.inf]
        part = KLStream(log_r.size, log_r.size - finite.size, max_log_ratio=top)
        if finite.size:
            values = np.stack(
                [*(estimator.value(finite) for estimator in ESTIMATORS.values()), np.expm1(finite)]
            )
            part.mean = values.mean(axis=1)
            centred = values - part.mean[:, None]
            part.products = centred @ centred.T
        self.merge(part)

    def merge(self, other: "KLStream") -> None:
        """Take in all draws of another stream, which is left as it is."""
        own, new = self.n - self.infinite, other.n - other.infinite
        if new:
            shift = other.mean - self.mean
            self.products = (
                self.products + other.products + np.outer(shift, shift) * (own * new / (own + new))
            )
            self.mean = self.mean + shift * (new / (own + new))
        self.n += other.n
        self.infinite += other.infinite
        self.max_log_ratio = max(self.max_log_ratio, other.max_log_ratio)

    def estimate(self, estimator: str = "k3", *, confidence: float = 0.95) -> KLEstimate:
        """Return the estimate from all draws so far, as `klapprox.estimate_kl` would.

        "k_lambda" takes λ̂ from the same draws (``thm-estimated-lambda``): its bias is of order
        1/n, which streams make negligible. There is no k̂, which needs the largest draws.

        Raises
        ------
        ValueError
            With fewer than three draws, or if an option is unknown.

        Warns
        -----
        KLWarning
            For each entry of ``KLEstimate.warnings``.
        """
        refuse_unknown(estimator, (*ESTIMATORS, K_LAMBDA))
        refuse_confidence(confidence)
        if self.n < 3:
            raise ValueError(f"the stream holds {self.n} draws; an error bar needs three.")
        value, square = self._value_and_square(estimator)
        if self.infinite:
            value = square = math.inf
        return conclude(
            value,
            self._error(square, value),
            estimator=estimator,
            unit="draw",
            n=self.n,
            groups=self.n,
            confidence=confidence,
            diagnostics=self._diagnostics(),
        )

    def _mean(self, name: str) -> float:
        return float(self.mean[TRACKED.index(name)])

    def _product(self, first: str, second: str) -> float:
        return float(self.products[TRACKED.index(first), TRACKED.index(second)])

    def _value_and_square(self, estimator: str) -> tuple[float, float]:
        """Return the mean and the sum of centred squares of an estimator."""
        if estimator != K_LAMBDA:
            return self._mean(estimator), self._product(estimator, estimator)
        product = self._product("k1", "r - 1")
        slope = coefficient_of_sums(self._product("r - 1", "r - 1"), product)
        square = self._product("k1", "k1") + slope * product
        return self._mean("k1") + slope * self._mean("r - 1"), max(square, 0.0)

    def _error(self, square: float, mean: float) -> float:
        """Return the standard error of a mean from the sum of centred squares."""
        if square <= self.n * (8 * np.finfo(float).eps * mean) ** 2 < math.inf:
            return 0.0  # what is left of equal values is rounding
        return math.sqrt(square / (self.n - 1) / self.n)

    def _diagnostics(self) -> Diagnostics:
        # The draws with p(x) = 0 have r = 0.
        share, of_finite = 1 - self.infinite / self.n, 1 + self._mean("r - 1")
        mean = share * of_finite
        spread = self._product("r - 1", "r - 1") + self.infinite * share * of_finite**2
        squares = self.n * mean**2 + spread  # Σ r²
        return diagnose(
            n=self.n,
            mean_ratio=mean,
            error=self._error(spread, mean),
            k1_error=self._error(self._product("k1", "k1"), self._mean("k1")),
            k3_error=self._error(self._product("k3", "k3"), self._mean("k3")),
            max_log_ratio=self.max_log_ratio,
            effective_size=(self.n * mean) ** 2 / squares if squares > 0 else 0.0,
        )


def stream_kl(
    chunks: Iterable[tuple[Any, Any]], *, total: int | None = None, progress: bool = False
) -> KLStream:
    """Return the moments of all chunks of (log_q, log_p), one at a time in memory.

    Parameters
    ----------
    chunks : iterable of pairs of arrays
        Log-probabilities of draws of q, as in `KLStream.update`.
    total : int, optional
        Number of chunks, for the progress bar.
    progress : bool
        Show a progress bar (needs ``pip install "klapprox[progress]"``).

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
    for log_q, log_p in chunks:
        stream.update(log_q, log_p)
    return stream


def stream_dask(log_q: Any, log_p: Any) -> KLStream:
    """Return the moments of two Dask arrays, block by block on whatever scheduler is set.

    The blocks of ``log_p`` are cut like those of ``log_q``; only the moments travel.
    """
    import dask

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
