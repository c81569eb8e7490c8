"""Points at which a loss is evaluated, and how its answers are compared with a formula."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from klapprox.identification._evaluate import Answer, Evaluator

__all__ = ["TOLERANCE", "Array", "Point", "departure", "fitted", "one", "tolerance"]

Array = NDArray[np.float64]

TOLERANCE = 2e-5
"""Relative: wide enough for losses that compute in float32, narrow enough for all that is named."""


def tolerance(spread: float) -> float:
    """Return the tolerance for log-ratios that are smaller by a factor: they differ by less."""
    return TOLERANCE * spread**2


class Point(NamedTuple):
    """Log-probabilities, by log π, the log-ratio log r and the log of the weight π/π_old."""

    log_pi: Any
    x: Any
    log_w: Any

    @property
    def arguments(self) -> tuple[Any, Any, Any]:
        """The three log-probabilities, in the order in which a loss takes them."""
        return self.log_pi, self.log_pi + self.x, self.log_pi - self.log_w


def one(
    loss: Evaluator, x: float, log_w: float = 0.0, log_pi: float = -1.3, dtype: str = "float64"
) -> Answer:
    """Evaluate the loss at a batch of one token."""
    return loss(*Point(log_pi, x, log_w).arguments, dtype=dtype)


def fitted(y: Array, f: Array) -> tuple[float, float]:
    """Return the factor with which f fits y best, and the largest deviation relative to y."""
    size, square = float(np.max(np.abs(y))), float(np.sum(f * f))
    if not (0 < size < math.inf and 0 < square < math.inf):
        return math.nan, math.inf
    scale = float(np.sum(y * f)) / square
    return scale, float(np.max(np.abs(y - scale * f))) / size


def departure(holds: Callable[[float], bool], start: float, stop: float) -> float | None:
    """Return the number from which on a condition no longer holds, None if it does up to stop."""
    low = 0.0
    for high in np.geomspace(start, stop, 20).tolist():
        if not holds(high):
            break
        low = high
    else:
        return None
    while high - low > 1e-5 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return float(high)
