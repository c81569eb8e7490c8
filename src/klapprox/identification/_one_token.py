"""What the loss of one token is: a function of a ratio, a coefficient of the score, a weight."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from klapprox.identification._evaluate import Answer, Evaluator
from klapprox.identification._functions import (
    RATIOS,
    VALUES,
    Function,
    argument,
    coefficients_with,
    k_lambda,
)
from klapprox.identification._probe import (
    TOLERANCE,
    Array,
    Point,
    departure,
    fitted,
    one,
    tolerance,
)

__all__ = ["Part", "Truncation", "one_token", "truncation"]

# Log-ratios in general position, each with its own log π: a function of log π is not one of r.
_X = np.array([-0.53, -0.37, -0.14, 0.11, 0.26, 0.57])
_LOG_PI = np.array([-1.3, -1.7, -0.9, -1.1, -2.1, -0.8])
_LOG_W = np.array([0.0, -0.09, 0.06, 0.1])

_ALONE: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("log_pi", lambda log_pi, log_ref, log_old: log_pi),
    ("log_ref", lambda log_pi, log_ref, log_old: log_ref),
    ("log_old", lambda log_pi, log_ref, log_old: log_old),
    ("constant", lambda log_pi, log_ref, log_old: np.ones_like(log_pi)),
)


@dataclass(frozen=True)
class Part:
    """The value or the derivative of one token, recognised.

    ``of`` is the function of the three log-probabilities, without the factor ``scale`` and without
    the weight, which is ``"none"``, ``"token"`` or ``"other"``.
    """

    key: str
    of: Callable[..., Any]
    scale: float = 0.0
    weight: str = "none"
    error: float = 0.0
    ratio: str = "none"
    form: str = "plain"
    lam: float | None = None


class _Grid(NamedTuple):
    """What the loss answers at all points and weights, shape (points, weights)."""

    arguments: tuple[Array, Array, Array]
    log_w: Array
    value: Array
    slope: Array
    tolerance: float


def one_token(loss: Evaluator, spread: float) -> tuple[Part | None, Part | None]:
    """Recognise value and derivative of one token, for log-ratios as small as the spread says."""
    log_w = spread * _LOG_W
    answers = [
        [one(loss, x, w, log_pi) for w in log_w]
        for x, log_pi in zip(spread * _X, _LOG_PI, strict=True)
    ]
    log_pi, x, w = np.broadcast_arrays(_LOG_PI[:, None], spread * _X[:, None], log_w)
    grid = _Grid(
        Point(log_pi, x, w).arguments,
        log_w,
        np.array([[a.value for a in row] for row in answers]),
        np.array([[a.gradient[0, 0] for a in row] for row in answers]),
        tolerance(spread),
    )
    value = _value(grid)
    return value, _derivative(grid, value)


def _value(grid: _Grid) -> Part | None:
    log_pi = grid.arguments[0]
    candidates = []
    for form, factor in (("plain", np.ones_like(log_pi)), ("score", log_pi)):
        for ratio in RATIOS:
            u = argument(ratio, *grid.arguments)
            lam = _lambda(grid.value[:, 0], u[:, 0], factor[:, 0])
            for function in (*VALUES, *([] if lam is None else [k_lambda(lam)])):
                known = lam if function.key == "k_lambda" else None
                of = _function(function, ratio, form)
                candidates.append(Part(function.key, of, ratio=ratio, form=form, lam=known))
    candidates += [Part(key, of) for key, of in _ALONE]
    for part in _fits(grid, grid.value, candidates):
        # -k1 is k1 of the swapped pair: the ratio says so, not the sign. A function of the weight
        # alone is not a weight of nothing.
        sign = part.key == "k1" and part.scale < 0
        if not sign and (part.key, part.weight) != ("constant", "other"):
            return part
    return None


def _derivative(grid: _Grid, value: Part | None) -> Part | None:
    size = max(float(np.max(np.abs(grid.value))), float(np.max(np.abs(grid.slope))))
    if float(np.max(np.abs(grid.slope))) <= 1e-9 * size:
        return Part("zero", lambda log_pi, *_: np.zeros_like(log_pi))
    ratios = ["pi_ref/pi", "pi_ref/pi_old", "pi_old/pi"]
    if value is not None and value.ratio in ratios:
        ratios.sort(key=lambda ratio: ratio != value.ratio)
    candidates = [
        Part(function.key, _function(function, ratio, "plain"), ratio=ratio)
        for ratio in ratios
        for function in coefficients_with(None if value is None else value.lam)
    ]
    return next(_fits(grid, grid.slope, candidates), None)


def _fits(grid: _Grid, y: Array, candidates: list[Part]) -> Iterator[Part]:
    """Yield the candidates that fit: with the weight 1 or w first, then with any other weight."""
    functions = [part.of(*grid.arguments) for part in candidates]
    for part, f in zip(candidates, functions, strict=True):
        for weight, factor in (("none", np.ones_like(grid.log_w)), ("token", np.exp(grid.log_w))):
            scale, error = fitted(y, f * factor)
            if error < grid.tolerance:
                yield replace(part, scale=scale, weight=weight, error=error)
                break
    for part, f in zip(candidates, functions, strict=True):
        columns = [fitted(y[:, j], f[:, j]) for j in range(len(grid.log_w))]
        error = max(error for _, error in columns)
        if error < grid.tolerance:
            yield replace(part, scale=columns[0][0], weight="other", error=error)


def _function(function: Function, ratio: str, form: str) -> Callable[..., Any]:
    def of(log_pi: Any, log_ref: Any, log_old: Any) -> Any:
        value = function.of(argument(ratio, log_pi, log_ref, log_old))
        return value * log_pi if form == "score" else value

    return of


def _lambda(y: Array, u: Array, factor: Array) -> float | None:
    """Return λ of the k_lambda that fits best, if there is one."""
    basis = factor[:, None] * np.stack([-u, np.expm1(u)], axis=1)
    (a, b), *_ = np.linalg.lstsq(basis, y, rcond=None)
    # Without λ it is k1, without k1 it is r - 1.
    return float(b / a) if min(abs(a), abs(b)) > TOLERANCE * max(abs(a), abs(b)) else None


class Truncation(NamedTuple):
    """How the weight departs from π/π_old, as `Found` tells it."""

    limits: tuple[float, float] = (0.0, math.inf)
    outside: str = ""
    of_product: bool = False

    def weight(self, log_w: Any) -> Any:
        """Return the weight with the log π/π_old."""
        low, high = self.limits
        w = np.exp(log_w)
        return np.where((w < low) | (w > high), 0.0, w) if self._drops else np.clip(w, low, high)

    @property
    def _drops(self) -> bool:
        return self.outside == "dropped"


def truncation(
    loss: Evaluator, value: Part | None, derivative: Part | None, spread: float
) -> Truncation:
    """Find where the weight of one token stops following π/π_old."""
    for part, read in ((value, _read_value), (derivative, _read_slope)):
        if part is not None and part.weight != "none" and part.ratio in ("pi_ref/pi", "pi/pi_ref"):
            found, other = (_truncated(loss, read, x * spread, spread) for x in (0.41, 0.26))
            if np.allclose(found.limits, other.limits, rtol=1e-2):
                return found
            # A limit of the product is met at other weights where the value is another.
            return Truncation(of_product=True)
    return Truncation()


def _truncated(
    loss: Evaluator, read: Callable[[Answer], float], x: float, spread: float
) -> Truncation:
    """Find the limits of the weight from the answers at one log-ratio."""
    unit = read(one(loss, x))

    def relative(log_w: float) -> float:
        try:
            return read(one(loss, x, log_w)) / unit
        except Exception:  # a loss may refuse weights that are too large
            return math.exp(log_w)

    def follows(log_w: float) -> bool:
        return abs(relative(log_w) * math.exp(-log_w) - 1) <= TOLERANCE

    limits, beyond = [0.0, math.inf], []
    for i, sign in enumerate((-1, 1)):
        start = departure(lambda m, s=sign: follows(s * m), 1e-3 * spread, 12.0)  # type: ignore[misc]
        if start is not None:
            limits[i] = math.exp(sign * start)
            got = relative(sign * (start + 1.0))
            truncated = abs(got - limits[i]) <= 1e-3 * limits[i]
            beyond.append(
                "truncated" if truncated else "dropped" if abs(got) < TOLERANCE else "other"
            )
            if truncated:
                limits[i] = got  # the limit itself, not where the weight is seen to leave it
    outside = "".join(sorted(set(beyond)))
    known = ("", "truncated", "dropped")
    return Truncation((limits[0], limits[1]), outside if outside in known else "other")


def _read_value(answer: Answer) -> float:
    return answer.value


def _read_slope(answer: Answer) -> float:
    return float(answer.gradient[0, 0])
