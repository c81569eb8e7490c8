"""What a loss is made of, found by evaluating it.

Every judgement is a comparison of numbers: a named formula with one free factor against the loss
at points in general position. What no formula fits is said to be none of the known ones.
"""

from typing import Any

from klapprox.identification._evaluate import Evaluator
from klapprox.identification._found import Found
from klapprox.identification._limits import edge, empty_response, masked
from klapprox.identification._one_token import Part, one_token, truncation
from klapprox.identification._responses import (
    denominators,
    levels,
    rows_independent,
)

__all__ = ["identify_structure"]

# Log-ratios of a few tenths first: rounding harms least. Smaller ones where a narrow clamp hides
# the function.
_SPREADS = (1.0, 0.1)


_ASKED = ("value", "derivative", "level", "credit", "normalisation")


def identify_structure(loss: Evaluator) -> Found:
    """Find out what the loss is made of."""
    tried = []
    for spread in _SPREADS:
        value, parts = _recognised(loss, spread)
        known = sum(parts.get(name, "none") != "none" for name in _ASKED)
        tried.append((known, value, parts))
        if known == len(_ASKED):
            break
    _, value, parts = max(tried, key=lambda attempt: attempt[0])  # the first of the best
    return Found(
        **parts,
        rows_independent=rows_independent(loss),
        below=edge(loss, value, -1),
        above=edge(loss, value, 1),
        masked=masked(loss),
        empty_response=empty_response(loss),
    )


def _recognised(loss: Evaluator, spread: float) -> tuple[Part | None, dict[str, Any]]:
    """Recognise the parts for log-ratios as small as the spread says; return the value as well."""
    value, derivative = one_token(loss, spread)
    cut = truncation(loss, value, derivative, spread)
    parts: dict[str, Any] = {"weight_limits": cut.limits, "weight_outside": cut.outside}
    parts["clamps_weighted_value"] = cut.of_product
    if value is not None:
        parts |= {"value": value.key, "lam": value.lam, "form": value.form}
        parts |= {"ratio": value.ratio, "scale": value.scale}
    if derivative is not None:
        parts |= {"derivative": derivative.key, "derivative_scale": derivative.scale}
        parts["derivative_ratio"] = derivative.ratio
    errors = [part.error for part in (value, derivative) if part is not None]
    if errors:
        parts["error"] = max(errors)
    parts |= levels(loss, value, derivative, cut, spread)
    parts |= denominators(loss, value, derivative, parts.get("level", "none"), spread)
    return value, parts
