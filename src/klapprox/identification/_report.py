"""The sentences in which an identification is told."""

import math
from collections.abc import Iterator
from typing import Any

from klapprox.identification._fields import MeanGradient
from klapprox.identification._functions import COEFFICIENTS, DIRECTIONS

__all__ = ["sentences"]

_VALUES = {
    "k1": "k1",
    "k2": "k2",
    "k3": "k3",
    "abs_k1": "|k1|",
    "log_pi": "log π alone, without a reference",
    "log_ref": "log π_ref alone",
    "log_old": "log π_old alone",
    "constant": "a constant",
}

_DERIVATIVES = {function.key: function.text for function in COEFFICIENTS} | {
    "zero": "zero: nothing is differentiated",
    "one_minus_lambda_r": "1 - λr, that of k_lambda",
    "k_lambda": "k_lambda",
    "k1_plus_one_minus_lambda": "k1 + 1 - λ",
    "none": "none of the known ones",
}

_WEIGHTS = {
    "token": "w_t = π/π_old of each token",
    "prefix": "W_t, π/π_old of the tokens up to each token",
    "sequence": "W, π/π_old of the whole response",
    "sequence mean": "the geometric mean of π/π_old over the response",
    "prefix before": "π/π_old of the tokens before each token",
    "suffix": "π/π_old of the tokens from each token on",
    "none of these": "none of the known ones",
}

_NORMALISATIONS = {
    "sum": "the sum over all tokens of the batch",
    "mean over positions": "a mean over all positions of the batch, padding included",
    "mean over kept tokens": "a mean over all kept tokens of the batch",
    "mean of sequence means": "the mean of the responses' means: each is divided by its length",
    "mean of sequence sums": "the mean of the responses' sums",
    "sum of sequence means": "the sum of the responses' means: each is divided by its length",
    "sum of means over positions": "sums over responses, divided by the number of positions",
    "none": "none of the known ones",
}

_HOW = {
    "differentiated": "differentiated",
    "detached": "not differentiated",
    "weight only": "differentiated, while what it multiplies is not",
    "gradient only": "in the gradient only; the value has none",
    "value only": "in the value only; the gradient has none",
    "other": "differentiated or not in no known way",
}


def sentences(found: Any) -> Iterator[str]:
    """Yield what a trainer reads, a sentence a line."""
    yield f"Value: {_value(found)}."
    yield f"Derivative in log π: {_derivative(found)}."
    yield f"Weight: {_weight(found)}."
    yield f"Normalisation: {_normalisation(found)}."
    yield from _limits(found)
    yield _masked(found)
    for gradient in found.gradients:
        yield f"{_where(gradient, found)}: {_gradient(gradient)}."


def _number(x: float) -> str:
    return f"{x:.4g}"


def _times(factor: float) -> str:
    if abs(factor - 1) < 1e-3:
        return ""
    return "minus " if abs(factor + 1) < 1e-3 else f"{_number(factor)} times "


def _value(found: Any) -> str:
    if found.value == "none":
        return "none of the known ones"
    name = f"k_lambda, λ = {_number(found.lam)}," if found.value == "k_lambda" else ""
    words = _times(found.scale) + (name or _VALUES[found.value])
    if found.ratio != "none":
        words += f" of {DIRECTIONS[found.ratio]}"
    if found.form == "score":
        words += ", times log π"
    if found.level == "sequence":
        words += ", of whole responses"
    elif found.level == "sequence mean":
        words += ", of the geometric mean of the response's ratios"
    elif found.level == "token":
        words += ", token by token"
    if found.swapped:
        words += "; policy and reference are swapped"
        if found.value == "k1":
            words += " (or the sign is: the two cannot be told apart)"
    if found.value in ("k2", "abs_k1") and found.ratio != "none":
        words += "; it is the same for the swapped pair"
    return words


def _derivative(found: Any) -> str:
    words = _DERIVATIVES[found.derivative]
    if found.derivative not in ("zero", "none"):
        words = _times(found.derivative_scale) + words
        if found.credit.endswith("to go"):
            words += ", each token credited with what follows it too"
        elif found.credit.endswith(("whole", "mean")) and found.level == "token":
            words += ", each token credited with the whole response"
        elif found.credit == "none":
            words += " for one token, for responses none of the known ones"
    if found.derivative != "zero":
        words += "; " + ("" if found.is_derivative_of_value else "not ") + "that of the value"
    return words


def _weight(found: Any) -> str:
    if found.weight == "none":
        return "none"
    words = f"{_WEIGHTS[found.weight]}, {_HOW[found.weight_gradient]}"
    low, high = found.weight_limits
    if found.weight_outside:
        limits = " and ".join(
            [f"below {_number(low)}"] * (low > 0) + [f"above {_number(high)}"] * (high < math.inf)
        )
        words += f", {_OUTSIDE[found.weight_outside]} {limits}"
    return words


_OUTSIDE = {"truncated": "truncated", "dropped": "set to zero", "other": "something else"}


def _normalisation(found: Any) -> str:
    if found.normalisation == "other":
        names = ("B", "T", "τ", "Στ")
        powers = " ".join(
            f"{name}^{power:g}" for name, power in zip(names, found.exponents, strict=True) if power
        )
        words = f"the sum times {powers} (responses, positions, length, tokens of the batch)"
    else:
        words = _NORMALISATIONS[found.normalisation]
    if found.output != "scalar":
        words += f" (it returns numbers {found.output}, which are summed here)"
    if not found.rows_independent:
        words += "; responses of a batch change each other's gradient"
    return words


def _limits(found: Any) -> Iterator[str]:
    for side, edge in found.edges.items():
        if "value_is" in edge:
            gradient = (
                "the gradient is zero there"
                if "gradient_zero_from" in edge
                else "the gradient goes on"
            )
            yield (
                f"Clamp: the value stays {_number(edge['value_is'])} for log r {side} "
                f"{_number(edge['value_from'])}; {gradient}."
            )
        elif "gradient_zero_from" in edge:
            yield f"Flat: no gradient for log r {side} {_number(edge['gradient_zero_from'])}."
        if "not_finite_from" in edge:
            yield (
                f"Overflow: in float32 value or gradient is not finite for log r {side} "
                f"{_number(edge['not_finite_from'])}."
            )
    if found.clamp:
        yield f"What is clamped: {_CLAMPS[found.clamp]}."


_CLAMPS = {
    "log r": "the log-ratio, before the function",
    "value": "the value, after the function",
    "either": "the log-ratio or the value, which is the same here",
}


def _masked(found: Any) -> str:
    groups: dict[str, list[str]] = {"unchanged": [], "changed": [], "not finite": [], "refused": []}
    for content, answer in found.masked.items():
        worst = max(answer.values(), key=list(groups).index)
        groups[worst].append(content)
    words = []
    if groups["unchanged"]:
        words.append(f"may hold {_listed(groups['unchanged'])}")
    if groups["changed"]:
        words.append(f"change value or gradient by {_listed(groups['changed'])}")
    if groups["not finite"]:
        words.append(f"make value or gradient not finite by {_listed(groups['not finite'])}")
    if groups["refused"]:
        words.append(f"are refused for {_listed(groups['refused'])}")
    return f"Masked tokens: {'; '.join(words)}."


def _listed(contents: list[str]) -> str:
    names = {"finite": "finite numbers", "far apart": "numbers so far apart that exp overflows"}
    return ", ".join(names.get(content, content) for content in contents)


def _where(gradient: MeanGradient, found: Any) -> str:
    what = "responses" if gradient.responses else "one action"
    how = "on-policy" if gradient.on_policy else "off-policy"
    words = f"Mean gradient, {what}, {how}"
    if gradient.batch == "many":
        words += ", many in a batch"
    elif gradient.responses and found.normalisation == "mean over kept tokens":
        words += ", one in a batch"
    return words + (", in the reward" if found.derivative == "zero" else "")


def _gradient(gradient: MeanGradient) -> str:
    if gradient.key == "zero":
        return f"zero ({gradient.label}, chapter {gradient.chapter})"
    if gradient.key == "none":
        formula = f": it is a multiple of {gradient.formula}" if gradient.formula else ""
        return (
            f"none of the known ones{formula}; the cosine with ∇KL(π‖π_ref) is "
            f"{gradient.cosine:.3f}, and the numbers are in `gradients`"
        )
    return (
        f"{_times(gradient.factor)}{gradient.text} ({gradient.label}, chapter {gradient.chapter})"
    )
