"""The picture of ``klapprox --plot``: running mean, tails of log r, value per position."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from klapprox.estimators import ESTIMATORS, K_LAMBDA, log_ratio
from klapprox.files import LogProbabilities

__all__ = ["save_plot"]

Floats = NDArray[np.float64]


def save_plot(path: str, data: LogProbabilities, estimator: str, confidence: float) -> None:
    """Save the picture in the format of the path's ending.

    Raises
    ------
    ImportError
        Without Matplotlib.
    ValueError
        If the ending is unknown, or no sample is left to draw.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('--plot needs Matplotlib: pip install "klapprox[plot]".') from None
    keep = np.ones(data.log_q.shape, dtype=bool) if data.mask is None else data.mask.astype(bool)
    log_r = log_ratio(np.where(keep, data.log_q, -1.0), np.where(keep, data.log_p, -1.0))
    keep = keep & np.isfinite(log_r)
    if not keep.any():
        raise ValueError("there is no sample with p(x) > 0, and nothing to draw.")
    # k_λ has no values of single samples before λ is known; it is drawn as k3.
    name = "k3" if estimator == K_LAMBDA else estimator
    values = np.where(keep, ESTIMATORS[name].value(np.where(keep, log_r, 0.0)), 0.0)
    panels = 3 if log_r.ndim == 2 else 2
    figure = Figure(figsize=(4 * panels, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    running, tails, *positions = figure.subplots(1, panels)
    _draw_running_mean(running, values, keep, name, confidence)
    _draw_tails(tails, log_r[keep])
    for axes in positions:
        _draw_positions(axes, values, keep, name, confidence)
    figure.savefig(path)


def _draw_running_mean(
    axes: Any, values: Floats, keep: NDArray[np.bool_], name: str, confidence: float
) -> None:
    """Draw the mean over the first n draws or sequences, in the order of the file."""
    rows = keep.any(axis=tuple(range(1, keep.ndim)))
    totals = values.sum(axis=tuple(range(1, keep.ndim)))[rows]
    n = np.arange(1, totals.size + 1)
    mean, half = _mean_and_half(np.cumsum(totals), np.cumsum(totals**2), n, confidence)
    axes.plot(n, mean)
    axes.fill_between(n, mean - half, mean + half, alpha=0.3)
    unit = "draws" if keep.ndim == 1 else "sequences"
    axes.set(xlabel=unit, ylabel=f"mean of {name} in nats", title="Running mean")


def _draw_tails(axes: Any, log_r: Floats) -> None:
    """Draw the share of samples beyond each size of log r, on both sides."""
    for side, label in ((log_r, "log r"), (-log_r, "−log r")):
        beyond = np.sort(side[side > 0])[::-1]
        axes.plot(beyond, np.arange(1, beyond.size + 1) / log_r.size, label=label)
    axes.set_yscale("log")
    axes.set(xlabel="size in nats", ylabel="share of samples beyond", title="Tails of log r")
    axes.legend()


def _draw_positions(
    axes: Any, values: Floats, keep: NDArray[np.bool_], name: str, confidence: float
) -> None:
    """Draw the mean over sequences at each position of the response."""
    used = keep.any(axis=0)
    n = keep.sum(axis=0)[used]
    sums = values.sum(axis=0)[used], (values**2).sum(axis=0)[used]
    mean, half = _mean_and_half(*sums, n, confidence)
    position = np.flatnonzero(used) + 1
    axes.plot(position, mean)
    axes.fill_between(position, mean - half, mean + half, alpha=0.3)
    axes.set(xlabel="position", ylabel=f"mean of {name} in nats", title="Value per position")


def _mean_and_half(
    sums: Floats, squares: Floats, n: NDArray[np.int_], confidence: float
) -> tuple[Floats, Floats]:
    """Return means and half widths of their intervals; of one value there is none."""
    mean = sums / n
    several = np.maximum(n - 1, 1)
    variance = np.maximum(squares - n * mean**2, 0.0) / several
    half = norm.ppf((1 + confidence) / 2) * np.sqrt(variance / n)
    return mean, np.where(n > 1, half, 0.0)
