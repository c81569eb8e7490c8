"""The sentences in which an identification is told."""

import math
from collections.abc import Iterator, Sequence

from klapprox.identification._fields import MeanGradient
from klapprox.identification._found import Edge, Found
from klapprox.identification._functions import coefficients_with
from klapprox.identification._verdict import verdict

__all__ = ["sentences"]

_VALUES = {
    "abs_k1": "|k1|",
    "log_pi": "log π alone, without a reference",
    "log_ref": "log π_ref alone",
    "log_old": "log π_old alone",
    "constant": "a constant",
    "none": "none of the known ones",
}

_LEVELS = {
    "token": ", token by token",
    "sequence": ", of whole responses",
    "sequence mean": ", of the geometric mean of the response's ratios",
    "none": "; how it combines tokens is none of the known ways",
}

_WEIGHTS = {
    "token": "π/π_old of each token",
    "prefix": "π/π_old of all tokens up to each token",
    "sequence": "π/π_old of the whole response",
    "sequence mean": "the geometric mean of π/π_old over the response",
    "prefix before": "π/π_old of the tokens before each token",
    "suffix": "π/π_old of the tokens from each token on",
    "unknown": "none of the known ones",
}

_HOW = {
    "differentiated": "differentiated",
    "detached": "not differentiated",
    "weight only": "differentiated, while what it multiplies is not",
    "gradient only": "in the gradient only, the value has none",
    "value only": "in the value only, the gradient has none",
    "unknown": "in no known way",
}

_OUTSIDE = {
    "truncated": "truncated where it is",
    "dropped": "set to zero where it is",
    "other": "something else where it is",
}

_CREDITS = {
    "own": "",
    "to go": ", and each token answers for what follows it too",
    "whole": ", and each token answers for the whole response",
    "mean": ", and each token answers for a share of the whole response",
    "none": " for one token; for responses none of the known ones",
}

_NORMALISATIONS = {
    "sum": "the sum over all tokens of the batch",
    "mean over positions": "the mean over all positions of the batch, padding included",
    "mean over kept tokens": "the mean over all kept tokens of the batch",
    "mean of sequence means": "the mean of the responses' means: each is divided by its length",
    "mean of sequence sums": "the mean of the responses' sums",
    "sum of sequence means": "the sum of the responses' means: each is divided by its length",
    "sum of means over positions": "the sum over all tokens, divided by the number of positions",
    "none": "none of the known ones",
}

_CLAMPS = {
    "log r": "the log-ratio, before the function",
    "value": "the value, after the function",
    "weighted value": "the weighted value, after the function and the weight",
    "either": "the log-ratio or the value; here that is the same function",
}


def sentences(found: Found, output: str, gradients: Sequence[MeanGradient]) -> Iterator[str]:
    """Yield what a trainer reads, a sentence a line."""
    yield from verdict(found, gradients)
    yield f"Value: {_value(found)}."
    yield f"Derivative: {_derivative(found)}."
    yield f"Weight: {_weight(found)}."
    yield f"Normalisation: {_normalisation(found, output)}."
    if found.clamp:
        yield f"A clamp acts on {_CLAMPS[found.clamp]}."
    for side, edge in (("below", found.below), ("above", found.above)):
        yield from _edge(side, edge)
    yield _masked(found)
    for gradient in gradients:
        yield f"{_where(gradient, found)}: {_gradient(gradient)}."


def _number(x: float) -> str:
    return f"{x:.4g}"


def _times(factor: float) -> str:
    if abs(factor - 1) < 1e-3:
        return ""
    return "minus " if abs(factor + 1) < 1e-3 else f"{_number(factor)} times "


def _value(found: Found) -> str:
    if found.value == "none":
        return _VALUES["none"]
    name = _VALUES.get(found.value, found.value)
    if found.lam is not None:
        name = f"k_lambda with λ = {_number(found.lam)}"
    words = _times(found.scale) + name
    if found.ratio != "none":
        words += f" for {found.direction}"
    if found.form == "score":
        words += ", times log π"
    words += _LEVELS[found.level]
    if found.swapped:
        words += "; policy and reference are swapped"
    if found.swapped and found.value == "k1":
        words += ", or the sign is: the two are the same function"
    if found.ratio == "pi_ref/pi_old":
        words += "; it is frozen, and does not know where the policy is"
    return words


def _derivative(found: Found) -> str:
    if found.derivative == "zero":
        return "zero, nothing is differentiated: added to a loss it does nothing"
    whose = "" if found.is_derivative_of_value else "not "
    if found.derivative == "none":
        return f"none of the known ones; it is {whose}the derivative of the value"
    texts = {function.key: function.text for function in coefficients_with(0.0)}
    words = f"{_times(found.derivative_scale)}{texts[found.derivative]}"
    if found.derivative_ratio != "pi_ref/pi" and found.derivative != "one":
        words += f", r = {found.derivative_ratio}"
    if found.level == "token" or found.credit == "none":
        words += _CREDITS[found.credit.removeprefix("differentiated ")]
    return f"{words}; it is {whose}the derivative of the value"


def _weight(found: Found) -> str:
    if found.weight == "none":
        return "none"
    words = _WEIGHTS[found.weight]
    if found.weight != "unknown":
        words += f", {_HOW[found.weight_gradient]}"
    low, high = found.weight_limits
    if found.weight_outside:
        below, above = [f"below {_number(low)}"], [f"above {_number(high)}"]
        limits = " or ".join(below * (low > 0) + above * (high < math.inf))
        words += f"; {_OUTSIDE[found.weight_outside]} {limits}"
    return words


def _normalisation(found: Found, output: str) -> str:
    if found.normalisation == "other":
        names = ("responses", "positions", "tokens of the response", "tokens of the batch")
        powers = ", ".join(
            f"({name})^{power:g}"
            for name, power in zip(names, found.exponents, strict=True)
            if power
        )
        words = f"the sum over all tokens times {powers}"
    else:
        words = _NORMALISATIONS[found.normalisation]
    if output != "scalar":
        words += f"; the loss returns numbers {output}, which are summed here"
    if not found.rows_independent:
        words += "; responses of a batch change each other's gradient"
    return words


def _edge(side: str, edge: Edge) -> Iterator[str]:
    if edge.value_from is not None:
        zero = edge.gradient_zero_from is not None
        gradient = "the gradient is zero there" if zero else "the gradient goes on"
        constant = edge.value_is is not None
        value = f"stays {_number(edge.value_is)}" if constant else "is something else"  # type: ignore[arg-type]
        yield f"The value {value} for log r {side} {_number(edge.value_from)}; {gradient}."
    elif edge.gradient_zero_from is not None:
        yield f"The gradient is zero for log r {side} {_number(edge.gradient_zero_from)}."
    for what, start in (
        ("rounding makes the gradient zero", edge.gradient_lost_from),
        ("value or gradient is not finite", edge.not_finite_from),
        ("the loss raises an error", edge.refused_from),
    ):
        if start is not None:
            yield f"In float32 {what} for log r {side} {_number(start)}."


_CONTENTS = {"finite": "finite numbers", "far apart": "numbers so far apart that exp overflows"}
_EFFECTS = {
    "unchanged": "may hold",
    "changed": "change value or gradient where they hold",
    "not finite": "spoil value or gradient where they hold",
    "refused": "are refused where they hold",
}


def _masked(found: Found) -> str:
    words = []
    for effect, verb in _EFFECTS.items():
        contents = [
            _CONTENTS.get(content, content)
            for content, answer in found.masked.items()
            if effect == max(answer.values(), key=list(_EFFECTS).index)
        ]
        if contents:
            words.append(f"{verb} {', '.join(contents)}")
    if found.empty_response != "finite":
        words.append(f"a response without any token is {found.empty_response}")
    return f"Masked tokens {'; '.join(words)}."


def _where(gradient: MeanGradient, found: Found) -> str:
    words = "responses" if gradient.responses else "one action"
    words += ", on-policy" if gradient.on_policy else ", off-policy"
    if gradient.batch == "many":
        words += ", many in a batch and times their mean length"
    elif gradient.responses and found.normalisation == "mean over kept tokens":
        words += ", one in a batch"
    if gradient.placement == "reward":
        words += ", in the reward"
    return f"Mean gradient for {words}"


def _gradient(gradient: MeanGradient) -> str:
    if gradient.key == "none":
        formula = f", a multiple of {gradient.formula}" if gradient.formula else ""
        numbers = ""
        if not gradient.responses:
            shown = ", ".join(_number(x) for x in gradient.numbers[:3])
            numbers = f"; in the logits of one of the policies ({shown})"
        return (
            f"none of the known ones{formula}; its cosine with ∇KL(π‖π_ref) is "
            f"{gradient.cosine:.3f}{numbers}"
        )
    words = f"{_times(gradient.factor) if gradient.key != 'zero' else ''}{gradient.text}"
    if gradient.factor < 0:
        words += "; descent goes the other way"
    return f"{words} ({gradient.label}, chapter {gradient.chapter})"
