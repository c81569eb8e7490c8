"""Exact numbers behind the living figures, small enough to travel with a page.

A living figure has no kernel: what its sliders choose from is computed here and stored in its
specification, or is a formula that the browser evaluates and a test compares with the package.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, special, stats

from klapprox.estimators import ESTIMATORS
from klapprox.exact.families import Bernoulli, Normal, moments
from klapprox.exact.policies import expected_gradient, softmax
from klapprox.vocabulary import exact_kl, topk_kl

__all__ = [
    "DISTANCES",
    "EDGES",
    "PAIRS",
    "PLACED",
    "PRIZES",
    "REFERENCE",
    "SIZES",
    "STARTS",
    "laws_of_means",
    "pair",
    "placement_paths",
    "running_means",
    "sampling_laws",
    "topk_sums",
]

Array = NDArray[np.float64]

PAIRS = ("shift", "scale", "two outcomes")
DISTANCES = tuple(round(0.1 * step, 1) for step in range(1, 11))
SIZES = (1, 4, 16, 64, 256)
# Estimates divided by KL: the bins of the pictures.
EDGES = np.linspace(-1, 3, 41)
_AT_ZERO = 10  # where EDGES are 0
_GRID = 2**16  # points between 0 and the largest sum that is drawn


def pair(kind: str, distance: float) -> tuple[Any, Any]:
    """Return the laws q and p of a living figure.

    Parameters
    ----------
    kind : {"shift", "scale", "two outcomes"}
        q is N(0, 1) and p is N(d, 1) or N(0, (1 + d)²); or q is Bernoulli(½) and p is
        Bernoulli(½ + 0.45 d).
    distance : float
        d, positive.

    Examples
    --------
    >>> q, p = pair("shift", 0.5)
    >>> q.kl(p)
    0.125
    """
    if kind == "shift":
        return Normal(0.0, 1.0), Normal(distance, 1.0)
    if kind == "scale":
        return Normal(0.0, 1.0), Normal(0.0, 1 + distance)
    if kind == "two outcomes":
        return Bernoulli(0.5), Bernoulli(0.5 + 0.45 * distance)
    raise ValueError(f"kind is {kind!r}; choose one of {', '.join(PAIRS)}.")


def laws_of_means(kind: str, distance: float, name: str, at: ArrayLike) -> Array:
    """Return the probabilities that means of independent draws of an estimator are ≤ some numbers.

    Parameters
    ----------
    kind, distance
        The pair, see `pair`; the draws are from q.
    name : {"k1", "k2", "k3"}
        The estimator.
    at : array of shape (m,)
        The numbers, in nats, increasing, the last one positive.

    Returns
    -------
    array of shape (5, m)
        A row for each number of draws in `SIZES`. For k1 and for two outcomes exact up to
        rounding: normal, χ² and binomial distribution functions. For k2 and k3 of normal laws the
        law of one draw is put on a grid and convolved with itself; the error is below 0.01, which
        the tests hold to closed forms.

    Examples
    --------
    >>> below = laws_of_means("shift", 0.5, "k1", [0.0, 1.0])  # Φ(-√N d / 2) at 0
    >>> below[:, 0].round(4).tolist()
    [0.4013, 0.3085, 0.1587, 0.0228, 0.0]
    """
    at = np.asarray(at, dtype=float)
    q, p = pair(kind, distance)
    sizes = np.array(SIZES)[:, None]
    if kind == "two outcomes":
        low, high = ESTIMATORS[name].value(p.log_density([0, 1]) - q.log_density([0, 1]))
        return np.array([_binomial_mean(low, high, size, at) for size in SIZES])
    if name == "k1" and kind == "shift":
        return np.asarray(stats.norm(distance**2 / 2, distance / np.sqrt(sizes)).cdf(at))
    if name == "k1":  # log σ - c χ²/2N, decreasing in χ²
        c = 1 - 1 / p.sd**2
        return np.asarray(stats.chi2(sizes).sf(2 * sizes * (np.log(p.sd) - at) / c))
    top = at[-1] * SIZES[-1]
    grid = np.linspace(0, top, _GRID)
    masses = _masses(q, p, name, top)
    found = []
    for number in range(SIZES[-1].bit_length()):
        if 2**number in SIZES:
            found.append(np.interp(at, grid / 2**number, np.cumsum(masses), left=0.0))
        # What is beyond the grid never comes back: no draw is negative.
        masses = fft.irfft(fft.rfft(masses, 2 * _GRID) ** 2)[:_GRID].clip(0)
    return np.array(found)


def _binomial_mean(low: float, high: float, size: int, at: Array) -> Array:
    """Return the law of a mean of draws that are low or high with probability ½ each."""
    ones = np.arange(size + 1)
    means = (low * (size - ones) + high * ones) / size
    return np.asarray(stats.binom(size, 0.5).pmf(ones) @ (means[:, None] <= at))


def _masses(q: Normal, p: Normal, name: str, top: float) -> Array:
    """Return the law of one draw of a nonnegative estimator on a grid from 0 to top."""
    x = np.arange(-9.0, 9.0, 1e-3) + 5e-4
    values = ESTIMATORS[name].value(p.log_density(x) - q.log_density(x))
    weights = np.exp(q.log_density(x)) * 1e-3
    place = np.minimum(values / top * (_GRID - 1), _GRID)  # the last two places are dropped
    left = place.astype(int)
    share = place - left  # split between neighbours, so that the mean stays
    masses = np.bincount(left, weights * (1 - share), _GRID + 2)
    masses[1:] += np.bincount(left, weights * share, _GRID + 2)[:-1]
    return np.asarray(masses[:_GRID])


def sampling_laws() -> list[dict[str, Any]]:
    """Return the sampling laws of means of the three estimators, as rows for a specification.

    Returns
    -------
    list of dicts
        For each pair, distance, estimator and number of draws: ``pair``, ``d``, ``k``, ``n``;
        ``heights``, the probabilities of the bins of `EDGES` in hundredths of the largest;
        ``kl`` in nats; ``bias`` and ``sd`` of the mean divided by KL, ``sd`` being None where
        the variance is infinite; ``negative``, the probability of a negative mean.
    """
    rows = []
    for kind, d, name in itertools.product(PAIRS, DISTANCES, ESTIMATORS):
        exact = moments(*pair(kind, d))
        bias = exact.mean_k2 - exact.kl if name == "k2" else 0.0
        variance = {"k1": exact.var_k1, "k2": exact.var_k2, "k3": exact.var_k3}[name]
        laws = laws_of_means(kind, d, name, EDGES * exact.kl)
        for size, below in zip(SIZES, laws, strict=True):
            bins = np.diff(below)
            heights = np.rint(99 * bins / max(bins.max(), 1e-9))  # all draws may lie outside
            rows.append(
                {
                    "pair": kind,
                    "d": d,
                    "k": name,
                    "n": size,
                    "heights": heights.astype(int).tolist(),
                    "kl": _rounded(exact.kl),
                    "bias": _rounded(bias / exact.kl),
                    "sd": _rounded(math.sqrt(variance / size) / exact.kl),
                    "negative": _rounded(below[_AT_ZERO]) if name == "k1" else 0.0,
                }
            )
    return rows


def _rounded(value: float) -> float | None:
    """Return four significant digits, or None for what JSON cannot hold."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def running_means(sds: Sequence[float], draws: int) -> list[dict[str, Any]]:
    """Return running means of k1 and k3 for q = N(0, 1) and p = N(0, sd²), as rows.

    Returns
    -------
    list of dicts
        For each standard deviation ``sd`` of p, each ``draw`` from 1 on and each ``k``: ``means``
        of the first round(10^(i/6)) of 10 000 independent draws, i = 0, …, 24, divided by KL(q‖p).
        One draw has the same numbers x for all p and both estimators.
    """
    sizes = np.rint(10 ** (np.arange(25) / 6)).astype(int)
    rows = []
    for sd, draw in itertools.product(sds, range(1, draws + 1)):
        q, p = Normal(0.0, 1.0), Normal(0.0, sd)
        x = q.sample(np.random.Generator(np.random.PCG64(np.random.SeedSequence(draw))), 10_000)
        log_r = p.log_density(x) - q.log_density(x)
        for name in ("k1", "k3"):
            means = np.cumsum(ESTIMATORS[name].value(log_r))[sizes - 1] / sizes / q.kl(p)
            short = [_rounded(mean) for mean in means.tolist()]
            rows.append({"sd": sd, "draw": draw, "k": name, "means": short})
    return rows


# Three actions: the reference, the rewards, β = 1, and where training starts.
REFERENCE, PRIZES = (0.6, 0.3, 0.1), (0.0, 0.5, 1.0)
STARTS = (
    REFERENCE,
    (1 / 3, 1 / 3, 1 / 3),
    (0.9, 0.05, 0.05),
    (0.05, 0.9, 0.05),
    (0.05, 0.05, 0.9),
    (0.48, 0.48, 0.04),
    (0.48, 0.04, 0.48),
    (0.04, 0.48, 0.48),
)
# Estimator and placement.
PLACED = (
    ("k1", "reward"),
    ("k2", "reward"),
    ("k3", "reward"),
    ("k1", "loss"),
    ("k2", "loss"),
    ("k3", "loss"),
)


def placement_paths(steps: int = 1500, rate: float = 0.5) -> list[dict[str, Any]]:
    """Return where exact mean gradients lead a policy over three actions, as rows.

    The logits climb 𝔼_π[R] minus β times the penalty in small steps, with β = 1, `REFERENCE`
    and `PRIZES` (``thm-optima-by-placement``, ``thm-on-policy-gradients``).

    Returns
    -------
    list of dicts
        For each of `PLACED` and of `STARTS`: ``placed``, such as "k3 in the reward"; ``start``,
        from 1 on; ``path``, 16 points [π₂, π₃] of which the first is the start and the last the
        end; and ``rests``, whether it ends inside, where the mean gradient is smaller than 1e-6.
    """
    reference, prizes = np.array(REFERENCE), np.array(PRIZES)
    rows = []
    for (name, placement), (number, start) in itertools.product(PLACED, enumerate(STARTS, 1)):
        logits, path, slope = np.log(start), [np.array(start)], np.zeros(3)
        for _ in range(steps):
            policy = path[-1]
            slope = policy * (prizes - policy @ prizes)
            slope = slope - expected_gradient(name, placement, policy, reference)
            logits = logits + rate * slope
            path.append(softmax(logits))
            # At rest, or at the boundary, from where it does not come back.
            if np.abs(slope).max() < 1e-6 or path[-1].min() < 1e-9:
                break
        rows.append(
            {
                "placed": f"{name} in the {placement}",
                "start": number,
                "path": _thinned(np.array(path)[:, 1:], 16),
                "rests": bool(np.abs(slope).max() < 1e-6 and path[-1].min() >= 1e-9),
            }
        )
    return rows


def _thinned(path: Array, points: int) -> list[list[float]]:
    """Return points of a path at equal distances along it, the two ends among them."""
    along = np.append(0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1)))
    at = np.linspace(0, along[-1], points)
    found = np.stack([np.interp(at, along, axis) for axis in path.T], axis=1)
    return [[round(float(place), 4) for place in point] for point in found]


def topk_sums(powers: Sequence[float], draws: int, size: int = 1024) -> list[dict[str, Any]]:
    """Return what sums over the k most probable tokens make of the divergence, as rows.

    The law is q_j ∝ j^(-a); p differs from it by factors of about ten per cent
    (``thm-topk-chain``, ``prop-truncated-sum``).

    Returns
    -------
    list of dicts
        For each power ``a`` and ``draw`` from 1 on, with k = 1, 2, 4, …, size: ``plain``, the
        truncated sum of q log(q/p); ``lower``, that of q k3; ``bucket``, the divergence with the
        rest in one bucket; all divided by KL(q‖p), which is ``kl``.
    """
    kept = 2 ** np.arange(int(math.log2(size)) + 1)
    rows = []
    for a, draw in itertools.product(powers, range(1, draws + 1)):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(draw)))
        logits = -a * np.log(np.arange(1, size + 1))
        tilted = logits + 0.1 * rng.standard_normal(size)
        log_q, log_p = special.log_softmax(logits), special.log_softmax(tilted)
        divergence = float(exact_kl(logits, tilted))
        terms = np.exp(log_q) * -(log_p - log_q)
        lower = np.exp(log_q) * ESTIMATORS["k3"].value(log_p - log_q)
        bucket = [float(topk_kl(log_q[:k], log_p[:k])) for k in kept[:-1]] + [divergence]
        parts = {
            "plain": np.cumsum(terms)[kept - 1],
            "lower": np.cumsum(lower)[kept - 1],
            "bucket": np.array(bucket),
        }
        short = {
            name: [_rounded(part) for part in (values / divergence).tolist()]
            for name, values in parts.items()
        }
        rows.append({"a": a, "draw": draw, "kl": _rounded(divergence)} | short)
    return rows
