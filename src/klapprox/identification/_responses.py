"""How a loss puts tokens together: level, weights, credit, denominators."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from klapprox.identification._evaluate import Evaluator
from klapprox.identification._one_token import Part, Truncation
from klapprox.identification._probe import TOLERANCE, Array, Point, fitted, one, tolerance

__all__ = ["denominators", "levels", "rows_independent"]

# Responses of three tokens in general position.
_X = np.array(
    [
        [0.31, -0.22, 0.14],
        [-0.41, 0.27, 0.35],
        [0.12, 0.44, -0.29],
        [-0.33, -0.15, 0.25],
        [0.21, 0.17, 0.39],
    ]
)
_LOG_W = np.array(
    [
        [0.05, -0.08, 0.07],
        [-0.09, 0.04, 0.06],
        [0.08, 0.09, -0.03],
        [0.02, -0.07, -0.05],
        [-0.06, 0.03, 0.10],
    ]
)
_LOG_PI = -1.0 - np.abs(_X)


def to_go(a: Array) -> Array:
    """Return the sums from each token on."""
    return np.asarray(np.cumsum(a[:, ::-1], axis=1)[:, ::-1])


def _all(a: Array) -> Array:
    return np.broadcast_to(a.sum(axis=1, keepdims=True), a.shape)


_CREDITS: dict[str, Callable[[Array], Array]] = {
    "to go": to_go,
    "whole": _all,
    "mean": lambda a: _all(a) / a.shape[1],
}


def _weights(log_w: Array, weight: Callable[[Any], Any]) -> dict[str, Array]:
    """Return every way to weigh the tokens of responses, shape (n, T)."""
    prefix, total = np.cumsum(log_w, axis=1), _all(log_w)
    return {
        "none": np.ones_like(log_w),
        "token": weight(log_w),
        "prefix": weight(prefix),
        "sequence": weight(total),
        "sequence mean": weight(total / log_w.shape[1]),
        "prefix before": weight(prefix - log_w),
        "suffix": weight(to_go(log_w)),
    }


def levels(
    loss: Evaluator, value: Part | None, derivative: Part | None, cut: Truncation, spread: float
) -> dict[str, Any]:
    """Recognise level, weights and credit from responses of three tokens."""
    exact = _is_derivative(loss, spread)
    points = Point(_LOG_PI, spread * _X, spread * _LOG_W)
    answers = [loss(*(a[i] for a in points.arguments)) for i in range(len(_X))]
    v = np.array([a.value for a in answers])
    d = np.concatenate([a.gradient for a in answers])
    weights = _weights(points.log_w, cut.weight)
    found: dict[str, Any] = {"is_derivative_of_value": exact}
    if value is not None:
        found["value_weight"] = "unknown"
        for level, weight, wanted in _values(value.of, points.arguments, weights):
            if fitted(v, wanted)[1] < tolerance(spread):
                found |= {"level": level, "value_weight": weight}
                break
    if derivative is None:
        return found
    if derivative.key == "zero":
        return found | {"credit": "zero"}
    found["gradient_weight"] = "unknown"

    def likely(candidate: tuple[str, str, str, Array]) -> tuple[bool, bool]:
        """Rank formulas that are the same function by the level and the weight of the value."""
        level, weight, credit, _ = candidate
        differentiated = exact and weight not in ("none", "token")
        return level != found.get("level", "token"), differentiated != ("diff" in credit)

    candidates = list(_slopes(derivative, value, points.arguments, weights))
    for place, weight, credit, wanted in sorted(candidates, key=likely):
        if fitted(d, wanted)[1] < tolerance(spread):
            found |= {"credit": credit, "gradient_weight": weight}
            found.setdefault("level", place)
            break
    return found


def _pooled(arguments: Sequence[Array], level: str) -> list[Array]:
    pool = np.sum if level == "sequence" else np.mean
    return [np.asarray(pool(a, axis=1, keepdims=True)) for a in arguments]


_POOLED_WEIGHTS = ("none", "sequence", "sequence mean")


def _values(
    of: Callable[..., Any], arguments: Sequence[Array], weights: dict[str, Array]
) -> Iterator[tuple[str, str, Array]]:
    """Yield level, weight and the values that they give."""
    for name, w in weights.items():
        yield "token", name, (w * of(*arguments)).sum(axis=1)
    for level in ("sequence", "sequence mean"):
        for name in _POOLED_WEIGHTS:
            yield level, name, (weights[name][:, :1] * of(*_pooled(arguments, level)))[:, 0]


def _slopes(
    derivative: Part, value: Part | None, arguments: Sequence[Array], weights: dict[str, Array]
) -> Iterator[tuple[str, str, str, Array]]:
    """Yield level, weight, credit and the derivatives that they give."""
    own = derivative.scale * derivative.of(*arguments)
    for name, w in weights.items():
        yield "token", name, "own", w * own
    for level in ("sequence", "sequence mean"):
        for name in _POOLED_WEIGHTS:
            pooled = weights[name] * derivative.of(*_pooled(arguments, level))
            yield level, name, "whole", pooled
    splits = [("", own, 0 * own)]
    if value is not None:
        # The coefficient of one token is a sum: of the value, where the weight is differentiated,
        # and of the slope of the value.
        credited = value.scale * value.of(*arguments)
        splits.append(("differentiated ", credited, own - credited))
    for split, shared, rest in splits:
        for credit, spread in _CREDITS.items():
            for name, w in weights.items():
                yield "token", name, split + credit, spread(w * shared) + w * rest


def _is_derivative(loss: Evaluator, spread: float) -> bool:
    """Say whether the derivative is that of the value, by differences of fourth order."""
    h = 1e-3 * spread
    log_pi, *frozen = Point(_LOG_PI[2], spread * _X[2], spread * _LOG_W[2]).arguments
    found = loss(log_pi, *frozen)
    for t, step in enumerate(h * np.eye(len(log_pi))):
        near = [loss(log_pi + n * step, *frozen).value for n in (-2, -1, 1, 2)]
        slope = (near[0] - 8 * near[1] + 8 * near[2] - near[3]) / (12 * h)
        size = float(np.max(np.abs(found.gradient))) + abs(slope)
        if not abs(slope - found.gradient[0, t]) <= 1e-3 * size + 1e-6 * abs(found.value):
            return False
    return True


# Batches whose denominators differ: number of positions, lengths of the responses.
_BATCHES = ((4, (1, 4)), (5, (2, 5, 3)), (3, (3, 2)), (3, (1, 1)))

_NORMALISATIONS = {
    (0.0, 0.0, 0.0, 0.0): "sum",
    (-1.0, -1.0, 0.0, 0.0): "mean over positions",
    (0.0, 0.0, 0.0, -1.0): "mean over kept tokens",
    (-1.0, 0.0, -1.0, 0.0): "mean of sequence means",
    (-1.0, 0.0, 0.0, 0.0): "mean of sequence sums",
    (0.0, 0.0, -1.0, 0.0): "sum of sequence means",
    (0.0, -1.0, 0.0, 0.0): "sum of means over positions",
}


def denominators(
    loss: Evaluator, value: Part | None, derivative: Part | None, level: str, spread: float
) -> dict[str, Any]:
    """Find the factor of a token as powers of the numbers of responses, positions and tokens."""
    by_value = value is not None and value.ratio != "none"  # then it is zero where r = 1
    part = value if by_value else derivative
    if part is None or part.key == "zero":
        return {}
    x = 0.41 * spread
    # A function of π and π_old alone is moved by the weight.
    log_w = 0.5 * x if part.ratio in ("pi_old/pi", "pi/pi_old") else 0.0
    unit = one(loss, x, log_w)
    sizes, factors = [], []
    for length, lengths in _BATCHES:
        mask = np.arange(length) < np.array(lengths)[:, None]
        for i, kept in enumerate(lengths):
            here = np.zeros(mask.shape)
            here[i, kept - 1] = kept if level == "sequence mean" else 1
            point = Point(np.full(mask.shape, -1.3), x * here, log_w * here)
            answer = loss(*point.arguments, mask)
            factors.append(
                answer.value / unit.value
                if by_value
                else answer.gradient[i, kept - 1] / unit.gradient[0, 0]
            )
            sizes.append([len(lengths), length, kept, sum(lengths)])
    measured = np.array(factors)
    if not np.all(np.isfinite(measured) & (measured > 0)):
        return {}
    logs = np.log(np.array(sizes, dtype=float))
    powers, *_ = np.linalg.lstsq(logs, np.log(measured), rcond=None)
    rounded = np.round(2 * powers) / 2 + 0.0
    if np.max(np.abs(logs @ rounded - np.log(measured))) > 1e-3:
        return {}
    exponents = tuple(rounded.tolist())
    return {"normalisation": _NORMALISATIONS.get(exponents, "other"), "exponents": exponents}


def rows_independent(loss: Evaluator) -> bool:
    """Say whether the derivative of a response stays when the other one changes."""
    first, second, other = np.array([[0.31, -0.22, 0.1], [0.14, 0.27, -0.4], [-0.33, 0.52, 0.2]])
    kept, changed = (
        loss(*Point(np.full((2, 3), -1.3), x, 0.1 * x).arguments).gradient[0]
        for x in (np.stack([first, second]), np.stack([first, other]))
    )
    size = float(np.max(np.abs(kept)))
    return bool(np.max(np.abs(kept - changed)) <= TOLERANCE * size)
