"""Where a loss stops following its formula: clamps, overflow, and what lies under the mask."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from klapprox.identification._evaluate import Answer, Evaluator
from klapprox.identification._found import Edge
from klapprox.identification._one_token import Part
from klapprox.identification._probe import TOLERANCE, Point, departure, one

__all__ = ["edge", "empty_response", "masked"]

_NEAR, _FAR = 0.6, 1000.0  # log-ratios between which edges are looked for


def edge(loss: Evaluator, value: Part | None, sign: int) -> Edge:
    """Find out what happens towards log r = -1000 (sign -1) or 1000."""

    @functools.cache  # the conditions are met at the same log-ratios
    def at(m: float, dtype: str) -> Answer | None:
        try:
            return one(loss, sign * m, dtype=dtype)
        except Exception:  # a loss may refuse such numbers, which is an answer too
            return None

    def seen(condition: Callable[[Answer], bool], dtype: str) -> float | None:
        """Return the log-ratio from which on an answer no longer meets the condition."""

        def holds(m: float) -> bool:
            answer = at(m, dtype)
            return answer is None or condition(answer)

        found = departure(holds, _NEAR, _FAR)
        return None if found is None else sign * found

    def slopes(answer: Answer) -> bool:
        return bool(answer.gradient[0, 0] != 0)

    def finite(answer: Answer) -> bool:
        return math.isfinite(answer.value) and bool(np.isfinite(answer.gradient[0, 0]))

    somewhere = any(slopes(one(loss, x)) for x in (0.41, 0.041))
    zero, zero_in_32 = (
        seen(slopes, dtype) if somewhere else None for dtype in ("float64", "float32")
    )
    # A limit is the same in every dtype; rounding is not.
    limit = (
        zero is not None and zero_in_32 is not None and math.isclose(zero, zero_in_32, rel_tol=0.02)
    )
    refused = departure(lambda m: at(m, "float32") is not None, _NEAR, _FAR)
    return Edge(
        *_leaves(value, at, sign),
        gradient_zero_from=zero if limit else None,
        gradient_lost_from=None if limit else zero_in_32,
        not_finite_from=seen(finite, "float32"),
        refused_from=None if refused is None else sign * refused,
    )


def _leaves(
    value: Part | None, at: Callable[[float, str], Answer | None], sign: int
) -> tuple[float | None, float | None]:
    """Return from where on the value leaves its formula, and the constant that it then is."""
    if value is None or value.ratio not in ("pi_ref/pi", "pi/pi_ref"):
        return None, None

    def follows(m: float) -> bool:
        answer = at(m, "float64")
        with np.errstate(over="ignore"):
            wanted = value.scale * value.of(*Point(-1.3, sign * m, 0.0).arguments)
        if answer is None or not (math.isfinite(wanted) and math.isfinite(answer.value)):
            return True  # overflow is told apart
        return bool(abs(answer.value - wanted) <= 1e-3 * abs(wanted) + 1e-6 * abs(value.scale))

    start = departure(follows, _NEAR, _FAR)
    if start is None:
        return None, None
    beyond = [at(m, "float64") for m in (1.1 * start, 1.3 * start, 1.6 * start)]
    values = [answer.value for answer in beyond if answer is not None]
    constant = bool(values) and all(math.isclose(v, values[0], rel_tol=1e-6) for v in values)
    return sign * start, values[0] if constant else None


_CONTENTS = {
    "finite": (-2.0, -0.5, -1.0),
    "far apart": (-1000.0, 0.0, 0.0),
    "-inf": (-math.inf,) * 3,
    "inf": (math.inf,) * 3,
    "nan": (math.nan,) * 3,
}


def masked(loss: Evaluator) -> dict[str, dict[str, str]]:
    """Find out what becomes of value and gradient by what the arrays hold where masked."""
    mask = np.array([[True, True, False], [True, False, False]])
    point = Point(np.where(mask, -1.3, 0.0), np.where(mask, 0.31, 0.0), np.where(mask, 0.05, 0.0))
    base = loss(*point.arguments, mask)
    found = {}
    for name, contents in _CONTENTS.items():
        log_pi, log_ref, log_old = (
            np.where(mask, a, content) for a, content in zip(point.arguments, contents, strict=True)
        )
        try:
            answer = loss(log_pi, log_ref, log_old, mask)
        except Exception:  # a loss may refuse such numbers, which is an answer too
            found[name] = {"value": "refused", "gradient": "refused"}
            continue
        found[name] = {
            "value": _compared(answer.value, base.value),
            "gradient": _compared(answer.gradient, np.where(mask, base.gradient, 0.0)),
        }
    return found


def _compared(got: Any, wanted: Any) -> str:
    if not np.all(np.isfinite(got)):
        return "not finite"
    close = np.max(np.abs(got - wanted)) <= TOLERANCE * np.max(np.abs(wanted))
    return "unchanged" if close else "changed"


def empty_response(loss: Evaluator) -> str:
    """Say what a response without any kept token does to the batch."""
    mask = np.array([[True, True, True], [False, False, False]])
    x = np.where(mask, 0.31, 0.0)
    try:
        answer = loss(*Point(np.where(mask, -1.3, 0.0), x, 0.1 * x).arguments, mask)
    except Exception:  # a loss may refuse such a batch, which is an answer too
        return "refused"
    finite = math.isfinite(answer.value) and np.all(np.isfinite(answer.gradient))
    return "finite" if finite else "not finite"
