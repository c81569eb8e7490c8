"""What a loss is made of, found by evaluating it: function, ratio, weight, level, normalisation.

Every judgement is a comparison of numbers: a named formula with one free factor against the loss
at points in general position. What no formula fits is said to be none of the known ones.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from klapprox.identification._evaluate import Answer, Evaluator
from klapprox.identification._functions import COEFFICIENTS, RATIOS, VALUES, Function

__all__ = ["TOLERANCE", "Found", "identify_structure"]

Array = NDArray[np.float64]

TOLERANCE = 1e-4
"""Relative: wide enough for losses that compute in float32, narrow enough for all that is named."""

# One token: log-ratios small enough that usual clamps do not act, each with its own log π.
_X = np.array([-0.53, -0.37, -0.21, -0.08, 0.11, 0.26, 0.41, 0.57])
_LOG_PI = np.array([-1.3, -1.7, -0.9, -1.5, -1.1, -2.1, -1.9, -0.8])
_LOG_W = np.array([0.0, -0.09, -0.05, 0.06, 0.1])
_AT = 0.41  # the log-ratio where weights and denominators are measured

# Responses of three tokens.
_MANY_X = np.array(
    [
        [0.31, -0.22, 0.14],
        [-0.41, 0.27, 0.35],
        [0.12, 0.44, -0.29],
        [-0.33, -0.15, 0.25],
        [0.21, 0.17, 0.39],
    ]
)
_MANY_LOG_W = np.array(
    [
        [0.05, -0.08, 0.07],
        [-0.09, 0.04, 0.06],
        [0.08, 0.09, -0.03],
        [0.02, -0.07, -0.05],
        [-0.06, 0.03, 0.10],
    ]
)
_MANY_LOG_PI = -1.0 - np.abs(_MANY_X)

# Batches whose denominators differ: number of positions, lengths of the responses.
_BATCHES = ((4, (1, 4)), (5, (2, 5, 3)), (3, (3, 2)), (6, (4, 1, 2, 2)))


class _Fit(NamedTuple):
    scale: float
    weight: str
    error: float


@dataclass(frozen=True)
class Found:
    """The parts of a loss as data; the words are in `_report`."""

    value: str = "none"
    form: str = "plain"
    ratio: str = "none"
    lam: float | None = None
    scale: float = math.nan
    derivative: str = "none"
    derivative_scale: float = math.nan
    is_derivative_of_value: bool = False
    value_weight: str = "none"
    gradient_weight: str = "none"
    weight_limits: tuple[float, float] = (0.0, math.inf)
    weight_outside: str = ""
    level: str = "none"
    credit: str = "none"
    normalisation: str = "none"
    exponents: tuple[float, ...] = ()
    rows_independent: bool = True
    edges: dict[str, dict[str, Any]] = field(default_factory=dict)
    masked: dict[str, dict[str, str]] = field(default_factory=dict)
    error: float = math.nan

    @property
    def weight(self) -> str:
        """The weight in the value, or in the gradient if only that has one."""
        return self.gradient_weight if self.value_weight == "none" else self.value_weight

    @property
    def weight_gradient(self) -> str:
        """How the weight is differentiated, empty without one; the keys are in `_report`."""
        return _how_differentiated(self)

    @property
    def clamp(self) -> str:
        """Whether the clamp acts on ``"log r"``, on the ``"value"``, or ``"either"``; or empty."""
        return _what_is_clamped(self)


# The coefficient of the score by the value: its own slope, and beside a differentiated weight.
_SLOPES = {
    "k1": ("one", "k1_plus_one", "minus_log_r"),
    "k2": ("minus_log_r", "k2_plus_k1", "k2"),
    "k3": ("one_minus_r", "minus_log_r", "k3"),
    "abs_k1": ("sign", "abs_k1_plus_sign", "abs_k1"),
    "k_lambda": ("one_minus_lambda_r", "k1_plus_one_minus_lambda", "k_lambda"),
    "swapped k3": ("inverse_r_minus_one", "k3_swapped_weighted", "k3_swapped"),
}


def _how_differentiated(found: Found) -> str:
    if found.weight == "none":
        return ""
    if found.value_weight == "none":
        return "gradient only"
    if found.gradient_weight == "none":
        return "value only" if found.derivative != "zero" else "detached"
    if found.value_weight != found.gradient_weight:
        return "other"
    if found.credit.startswith("differentiated"):
        return "differentiated"
    swapped = "swapped " if (found.value, found.ratio) == ("k3", "pi/pi_ref") else ""
    slopes = _SLOPES.get(swapped + found.value, ())
    if found.derivative not in slopes:
        return "other"
    ways = ("detached", "differentiated", "weight only")
    return ways[slopes.index(found.derivative)]


def _what_is_clamped(found: Found) -> str:
    edges = [edge for edge in found.edges.values() if "value_is" in edge]
    if not edges:
        return ""
    if found.value not in ("k2", "k3", "abs_k1"):
        return "either"
    if len(edges) == 1:
        return "log r"  # a limit of the value would be met on both sides
    low, high = (edge["value_from"] for edge in edges)
    if abs(low + high) <= 0.01 * high and found.value != "k3":
        return "either"
    a, b = (edge["value_is"] for edge in edges)
    return "value" if abs(a - b) <= 1e-3 * abs(a) else "log r"


def _error(y: Array, f: Array) -> tuple[float, float]:
    """Return the factor that fits f to y best, and the largest deviation relative to y."""
    size, square = float(np.max(np.abs(y))), float(np.sum(f * f))
    if not (math.isfinite(size) and size > 0 and square > 0 and math.isfinite(square)):
        return math.nan, math.inf
    scale = float(np.sum(y * f)) / square
    return scale, float(np.max(np.abs(y - scale * f))) / size


def _fit(y: Array, f: Array) -> _Fit | None:
    """Fit a function on the grid (points, weights), with the weight 1, w, or an unknown one."""
    for weight, factor in (("none", np.ones_like(_LOG_W)), ("token", np.exp(_LOG_W))):
        scale, error = _error(y, f * factor)
        if error < TOLERANCE:
            return _Fit(scale, weight, error)
    columns = [_error(y[:, j], f[:, j]) for j in range(len(_LOG_W))]
    error = max(error for _, error in columns)
    return _Fit(columns[0][0], "other", error) if error < TOLERANCE else None


def _argument(ratio: str, log_pi: Any, log_ref: Any, log_old: Any) -> Any:
    a, b, c = RATIOS[ratio]
    return a * log_pi + b * log_ref + c * log_old


@dataclass(frozen=True)
class _Value:
    """A value that has been recognised, as a function of the three log-probabilities."""

    key: str
    form: str
    ratio: str
    of: Callable[[Any, Any, Any], Any]
    fit: _Fit
    lam: float | None = None


def _values(y: Array, lp: Array, lr: Array, lo: Array) -> _Value | None:
    """Recognise the value of one token."""
    for form, factor in (("plain", 1.0), ("score", lp)):
        for ratio in RATIOS:
            u = _argument(ratio, lp, lr, lo)
            functions = [*VALUES, *_with_lambda(y, factor, u)]
            # -k1 of a pair is k1 of the swapped pair: here the ratio decides, never a sign of k1.
            for function in functions:
                fit = _fit(y, factor * function.of(u))
                if fit is not None and not (function.key == "k1" and fit.scale < 0):
                    return _Value(
                        "k_lambda" if function.key.startswith("k_lambda") else function.key,
                        form,
                        ratio,
                        _bound(function, form, ratio),
                        fit,
                        float(function.text) if function.key == "k_lambda" else None,
                    )
    for key, of in (
        ("log_pi", lambda lp, lr, lo: lp),
        ("log_ref", lambda lp, lr, lo: lr),
        ("log_old", lambda lp, lr, lo: lo),
        ("constant", lambda lp, lr, lo: np.ones_like(lp)),
    ):
        fit = _fit(y, of(lp, lr, lo))
        if fit is not None:
            return _Value(key, "plain", "none", of, fit)
    return None


def _bound(function: Function, form: str, ratio: str) -> Callable[[Any, Any, Any], Any]:
    def of(lp: Any, lr: Any, lo: Any) -> Any:
        value = function.of(_argument(ratio, lp, lr, lo))
        return value * lp if form == "score" else value

    return of


def _with_lambda(y: Array, factor: Any, u: Array) -> list[Function]:
    """Return k_lambda with the λ that fits best where the weight is 1, if there is one."""
    column = np.ones_like(u[:, 0]) * np.broadcast_to(factor, u.shape)[:, 0]
    basis = np.stack([-u[:, 0] * column, np.expm1(u[:, 0]) * column], axis=1)
    (a, b), *_ = np.linalg.lstsq(basis, y[:, 0], rcond=None)
    if not (np.isfinite(a) and np.isfinite(b) and abs(a) > 1e-12):
        return []
    lam = float(b / a)
    return [Function("k_lambda", repr(lam), lambda u: -u + lam * np.expm1(u))]


@dataclass(frozen=True)
class _Derivative:
    key: str
    of: Callable[[Any, Any, Any], Any]
    fit: _Fit


def _derivatives(
    y: Array, value: _Value | None, lp: Array, lr: Array, lo: Array, size: float
) -> _Derivative | None:
    """Recognise the derivative of one token in log π, the coefficient of its score."""
    if float(np.max(np.abs(y))) <= 1e-9 * size:
        return _Derivative("zero", lambda lp, lr, lo: np.zeros_like(lp), _Fit(0.0, "none", 0.0))
    lam = None if value is None else value.lam
    more = []
    if lam is not None:
        more = [
            Function("one_minus_lambda_r", "", lambda x: 1 - lam * np.exp(x)),
            Function("k_lambda", "", lambda x: -x + lam * np.expm1(x)),
            Function("k1_plus_one_minus_lambda", "", lambda x: 1 - lam - x),
        ]
    ratios = ["pi_ref/pi", "pi_ref/pi_old", "pi_old/pi"]
    if value is not None and value.ratio in ratios:
        ratios.sort(key=lambda ratio: ratio != value.ratio)
    for ratio in ratios:
        u = _argument(ratio, lp, lr, lo)
        for function in (*COEFFICIENTS, *more):
            fit = _fit(y, function.of(u))
            if fit is not None:
                of = _bound(function, "plain", ratio)
                return _Derivative(function.key, of, fit)
    return None


class _Point(NamedTuple):
    """One token, or responses; all of them kept."""

    log_pi: Any
    x: Any
    log_w: Any

    @property
    def arguments(self) -> tuple[Any, Any, Any]:
        return self.log_pi, self.log_pi + self.x, self.log_pi - self.log_w


def _one(loss: Evaluator, x: float, log_w: float = 0.0, log_pi: float = -1.3, **kw: Any) -> Answer:
    return loss(*_Point(log_pi, x, log_w).arguments, **kw)


def identify_structure(loss: Evaluator) -> Found:
    """Find out what the loss is made of."""
    answers = [
        [_one(loss, x, log_w, log_pi) for log_w in _LOG_W]
        for x, log_pi in zip(_X, _LOG_PI, strict=True)
    ]
    v = np.array([[a.value for a in row] for row in answers])
    d = np.array([[a.gradient[0, 0] for a in row] for row in answers])
    lp = np.broadcast_to(_LOG_PI[:, None], v.shape)
    lr, lo = lp + _X[:, None], lp - _LOG_W
    value = _values(v, lp, lr, lo)
    size = max(float(np.max(np.abs(v))), float(np.max(np.abs(d))))
    derivative = _derivatives(d, value, lp, lr, lo, size)
    truncation = _truncation(loss, value, derivative)
    parts: dict[str, Any] = {"weight_limits": truncation.limits, "weight_outside": truncation.style}
    if value is not None:
        parts |= {
            "value": value.key,
            "form": value.form,
            "ratio": value.ratio,
            "lam": value.lam,
            "scale": value.fit.scale,
        }
    if derivative is not None:
        parts |= {"derivative": derivative.key, "derivative_scale": derivative.fit.scale}
    parts["is_derivative_of_value"] = _is_derivative(loss)
    parts |= _levels(loss, value, derivative, truncation)
    parts |= _denominators(loss, value, derivative, parts["level"])
    parts["rows_independent"] = _rows_independent(loss)
    parts["edges"] = _edges(loss, value)
    parts["masked"] = _masked(loss)
    errors = [part.fit.error for part in (value, derivative) if part is not None]
    parts["error"] = max(errors, default=math.nan)
    return Found(**parts)


def _is_derivative(loss: Evaluator) -> bool:
    """Say whether the derivative is that of the value: differences of fourth order, on- and off."""
    for x, log_w in ((0.41, 0.0), (-0.37, 0.08), (0.26, -0.05)):
        base, h = _Point(-1.3, x, log_w), 1e-3
        _, lr, lo = base.arguments
        near = {n: loss(-1.3 + n * h, lr, lo).value for n in (-2, -1, 1, 2)}
        slope = (8 * (near[1] - near[-1]) - (near[2] - near[-2])) / (12 * h)
        found = loss(-1.3, lr, lo)
        if not abs(slope - found.gradient[0, 0]) <= 1e-3 * (abs(slope) + abs(found.value)):
            return False
    return True


class _Truncation(NamedTuple):
    """How the weight departs from w = π/π_old: the limits between which it is w."""

    is_weight: bool
    limits: tuple[float, float]
    style: str

    def weight(self, log_w: Any) -> Any:
        low, high = self.limits
        w = np.exp(log_w)
        if self.style == "dropped":
            return np.where((w < low) | (w > high), 0.0, w)
        return np.clip(w, low, high)


def _truncation(
    loss: Evaluator, value: _Value | None, derivative: _Derivative | None
) -> _Truncation:
    """Find where the weight of one token stops following π/π_old."""
    none = _Truncation(False, (0.0, math.inf), "")
    for part, read in ((value, _read_value), (derivative, _read_slope)):
        if part is None or part.fit.weight == "none" or part.fit.scale == 0:
            continue
        if isinstance(part, _Value) and part.ratio not in ("pi_ref/pi", "pi/pi_ref"):
            continue
        unit = read(_one(loss, _AT))

        def follows(log_w: float, read: Any = read, unit: float = unit) -> bool:
            try:
                got = read(_one(loss, _AT, log_w)) / unit
            except Exception:  # a loss may refuse weights that are too large
                return True
            return bool(abs(got - math.exp(log_w)) <= TOLERANCE * math.exp(log_w))

        low, high = (_departure(lambda m, s=s: follows(s * m), 1e-3, 12.0) for s in (-1, 1))
        if low is None and high is None:
            return _Truncation(True, (0.0, math.inf), "")
        limits = (
            0.0 if low is None else math.exp(-low),
            math.inf if high is None else math.exp(high),
        )
        outside = high + 1.0 if high is not None else -(low + 1.0)  # type: ignore[operator]
        got = read(_one(loss, _AT, outside)) / unit
        edge = limits[1] if high is not None else limits[0]
        if abs(got - edge) <= 1e-3 * edge:
            return _Truncation(True, limits, "truncated")
        return _Truncation(True, limits, "dropped" if abs(got) <= TOLERANCE else "other")
    return none


def _read_value(answer: Answer) -> float:
    return answer.value


def _read_slope(answer: Answer) -> float:
    return float(answer.gradient[0, 0])


def _departure(holds: Callable[[float], bool], start: float, stop: float) -> float | None:
    """Return the smallest number from which the condition no longer holds, None if it does."""
    low = 0.0
    for high in np.geomspace(start, stop, 24):
        if not holds(float(high)):
            break
        low = float(high)
    else:
        return None
    high = float(high)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high


# ---- several tokens -----------------------------------------------------------------------------


def _weights(log_w: Array, weight: Callable[[Any], Any]) -> dict[str, Array]:
    """Return every way to weigh the tokens of responses, shape (n, T)."""
    prefix = np.cumsum(log_w, axis=1)
    total = np.broadcast_to(prefix[:, -1:], log_w.shape)
    return {
        "none": np.ones_like(log_w),
        "token": weight(log_w),
        "prefix": weight(prefix),
        "sequence": weight(total),
        "sequence mean": weight(total / log_w.shape[1]),
        "prefix before": weight(prefix - log_w),
        "suffix": weight(total - prefix + log_w),
    }


def _to_go(a: Array) -> Array:
    return np.asarray(np.cumsum(a[:, ::-1], axis=1)[:, ::-1])


_CREDITS: dict[str, Callable[[Array], Array]] = {
    "to go": _to_go,
    "whole": lambda a: np.broadcast_to(a.sum(axis=1, keepdims=True), a.shape),
    "mean": lambda a: np.broadcast_to(a.mean(axis=1, keepdims=True), a.shape),
}


def _levels(
    loss: Evaluator, value: _Value | None, derivative: _Derivative | None, cut: _Truncation
) -> dict[str, Any]:
    """Recognise level, weights and credit from responses of three tokens."""
    point = _Point(_MANY_LOG_PI, _MANY_X, _MANY_LOG_W)
    rows = [_Point(*(a[i : i + 1] for a in point)).arguments for i in range(len(_MANY_X))]
    answers = [loss(*row) for row in rows]
    v = np.array([a.value for a in answers])
    d = np.concatenate([a.gradient for a in answers])
    arguments = point.arguments
    weights = _weights(_MANY_LOG_W, cut.weight)
    found: dict[str, Any] = {}
    if value is not None:
        for level, weight, wanted in _value_candidates(value.of, arguments, weights):
            if _error(v, wanted)[1] < TOLERANCE:
                found |= {"level": level, "value_weight": weight}
                break
        else:
            found |= {"level": "none", "value_weight": "none of these"}
    if derivative is not None and derivative.key == "zero":
        found |= {"credit": "zero", "gradient_weight": "none"}
    elif derivative is not None:
        level = found.get("level", "token")
        candidates = _slope_candidates(derivative.of, value, arguments, weights)
        for place, weight, credit, wanted in sorted(candidates, key=lambda c: c[0] != level):
            if _error(d, wanted)[1] < TOLERANCE:
                found |= {"credit": credit, "gradient_weight": weight}
                found.setdefault("level", place)
                break
        else:
            found |= {"credit": "none", "gradient_weight": "none of these"}
    found.setdefault("level", "none")
    return found


def _pooled(arguments: Sequence[Array], how: str) -> tuple[Any, ...]:
    return tuple((a.sum if how == "sequence" else a.mean)(axis=1, keepdims=True) for a in arguments)


def _value_candidates(
    of: Callable[..., Any], arguments: Sequence[Array], weights: dict[str, Array]
) -> Iterator[tuple[str, str, Array]]:
    for name, w in weights.items():
        yield "token", name, (w * of(*arguments)).sum(axis=1)
    for level in ("sequence", "sequence mean"):
        for name in ("none", "sequence", "sequence mean"):
            yield level, name, weights[name][:, 0] * of(*_pooled(arguments, level))[:, 0]


def _slope_candidates(
    of: Callable[..., Any],
    value: _Value | None,
    arguments: Sequence[Array],
    weights: dict[str, Array],
) -> Iterator[tuple[str, str, str, Array]]:
    own = of(*arguments)
    for name, w in weights.items():
        yield "token", name, "own", w * own
    for level in ("sequence", "sequence mean"):
        for name in ("none", "sequence", "sequence mean"):
            pooled = weights[name] * of(*_pooled(arguments, level))
            yield level, name, "whole", np.broadcast_to(pooled, own.shape)
    splits = {"": (own, 0.0 * own)}
    if value is not None:
        # The coefficient of one token is a sum: of the value, where the weight is differentiated,
        # and of its own derivative.
        credited = value.of(*arguments) * value.fit.scale
        splits["differentiated "] = (credited, own * 1.0 - credited)
    for split, (a, b) in splits.items():
        for credit, spread in _CREDITS.items():
            for name, w in weights.items():
                yield "token", name, split + credit, spread(w * a) + w * b


# ---- denominators -------------------------------------------------------------------------------

_NORMALISATIONS = {
    (0, 0, 0, 0): "sum",
    (-1, -1, 0, 0): "mean over positions",
    (0, 0, 0, -1): "mean over kept tokens",
    (-1, 0, -1, 0): "mean of sequence means",
    (-1, 0, 0, 0): "mean of sequence sums",
    (0, 0, -1, 0): "sum of sequence means",
    (0, -1, 0, 0): "sum of means over positions",
}


def _batch(length: int, lengths: Sequence[int]) -> NDArray[np.bool_]:
    return np.arange(length) < np.array(lengths)[:, None]


def _denominators(
    loss: Evaluator, value: _Value | None, derivative: _Derivative | None, level: str
) -> dict[str, Any]:
    """Find powers of B, T, the response's and the batch's number of kept tokens, from factors."""
    rows, factors = [], []
    use_value = value is not None and value.key not in ("log_pi", "log_ref", "log_old", "constant")
    if use_value and value is not None:
        unit = _one(loss, _AT).value
    elif derivative is not None and derivative.key != "zero":
        unit = _read_slope(_one(loss, _AT))
    else:
        return {"normalisation": "none"}
    for length, lengths in _BATCHES:
        mask = _batch(length, lengths)
        for i, kept in enumerate(lengths):
            x = np.zeros(mask.shape)
            x[i, kept - 1] = _AT * (kept if level == "sequence mean" else 1)
            answer = loss(*_Point(np.full(mask.shape, -1.3), x, 0.0 * x).arguments, mask)
            got = answer.value if use_value else answer.gradient[i, kept - 1]
            factors.append(got / unit)
            rows.append([len(lengths), length, kept, sum(lengths)])
    logs = np.log(np.array(rows, dtype=float))
    factors = np.array(factors)
    if not np.all(np.isfinite(factors) & (factors > 0)):
        return {"normalisation": "none"}
    powers, *_ = np.linalg.lstsq(logs, np.log(factors), rcond=None)
    rounded = np.round(powers * 2) / 2
    if np.max(np.abs(logs @ rounded - np.log(factors))) > 1e-3:
        return {"normalisation": "none"}
    exponents = tuple(float(p) + 0.0 for p in rounded)
    return {"normalisation": _NORMALISATIONS.get(exponents, "other"), "exponents": exponents}  # type: ignore[call-overload]


def _rows_independent(loss: Evaluator) -> bool:
    """Say whether the derivative of one response stays when another changes, lengths apart."""
    first = np.array([[0.31, -0.22], [0.14, 0.27]])
    second = np.array([[0.31, -0.22], [-0.33, 0.52]])
    base = np.full(first.shape, -1.3)
    weights = (0.1 * first, 0.1 * second)
    a, b = (
        loss(*_Point(base, x, w).arguments).gradient[0]
        for x, w in zip((first, second), weights, strict=True)
    )
    return bool(np.max(np.abs(a - b)) <= TOLERANCE * max(float(np.max(np.abs(a))), 1e-12))


# ---- edges and masks ----------------------------------------------------------------------------

_FAR = 1000.0


def _edges(loss: Evaluator, value: _Value | None) -> dict[str, dict[str, Any]]:
    """Find, on both sides, where value and derivative stop following their formula."""
    found: dict[str, dict[str, Any]] = {}
    for side, sign in (("below", -1.0), ("above", 1.0)):
        edge: dict[str, Any] = {}

        def at(m: float, dtype: str = "float64", sign: float = sign) -> Answer | None:
            try:
                return _one(loss, sign * m, dtype=dtype)
            except Exception:  # a loss may refuse such numbers, which is an answer too
                return None

        def follows(m: float, sign: float = sign, at: Any = at) -> bool:
            answer = at(m)
            wanted = value.fit.scale * value.of(*_Point(-1.3, sign * m, 0.0).arguments)  # type: ignore[union-attr]
            return (
                answer is None
                or not math.isfinite(wanted)
                or bool(abs(answer.value - wanted) <= 1e-3 * abs(wanted))
            )

        def slopes(m: float, at: Any = at) -> bool:
            answer = at(m)
            return answer is None or answer.gradient[0, 0] != 0

        def finite(m: float, at: Any = at) -> bool:
            answer = at(m, "float32")
            return answer is None or bool(
                math.isfinite(answer.value) and np.isfinite(answer.gradient[0, 0])
            )

        def accepted(m: float, at: Any = at) -> bool:
            return at(m, "float32") is not None

        with np.errstate(all="ignore"):
            if value is not None and value.key not in ("log_ref", "log_old", "constant"):
                start = _departure(follows, 0.6, _FAR)
                if start is not None:
                    beyond = [at(m) for m in (start * 1.3, start * 1.6)]
                    got = [a.value for a in beyond if a is not None]
                    constant = len(got) == 2 and abs(got[0] - got[1]) <= 1e-6 * abs(got[0])
                    edge |= {"value_from": sign * start}
                    edge |= {"value_is": got[0]} if constant else {}
            for key, holds in (
                ("gradient_zero_from", slopes),
                ("not_finite_from", finite),
                ("refused_from", accepted),
            ):
                start = _departure(holds, 0.6, _FAR)
                if start is not None:
                    edge[key] = sign * start
        found[side] = edge
    if not slopes(_AT):  # zero everywhere is no edge
        for edge in found.values():
            edge.pop("gradient_zero_from", None)
    return found


_CONTENTS = {
    "finite": (-2.0, -0.5, -1.0),
    "far apart": (-1000.0, 0.0, 0.0),
    "-inf": (-math.inf,) * 3,
    "inf": (math.inf,) * 3,
    "nan": (math.nan,) * 3,
}


def _masked(loss: Evaluator) -> dict[str, dict[str, str]]:
    """Find out what becomes of value and gradient by what the arrays hold where masked."""
    mask = np.array([[True, True, False], [True, False, False]])
    x, log_w = np.where(mask, 0.31, 0.0), np.where(mask, 0.05, 0.0)
    arrays = _Point(np.where(mask, -1.3, 0.0), x, log_w).arguments
    base = loss(*arrays, mask)
    found = {}
    for name, contents in _CONTENTS.items():
        filled = [np.where(mask, a, content) for a, content in zip(arrays, contents, strict=True)]
        try:
            with np.errstate(all="ignore"):
                answer = loss(*filled, mask)
        except Exception:  # a loss may refuse such numbers, which is an answer too
            found[name] = {"value": "refused", "gradient": "refused"}
            continue
        found[name] = {
            "value": _compared(np.array(answer.value), np.array(base.value)),
            "gradient": _compared(answer.gradient, np.where(mask, base.gradient, 0.0)),
        }
    return found


def _compared(got: Array, wanted: Array) -> str:
    if not np.all(np.isfinite(got)):
        return "not finite"
    size = max(float(np.max(np.abs(wanted))), 1e-12)
    return "unchanged" if np.max(np.abs(got - wanted)) <= TOLERANCE * size else "changed"
