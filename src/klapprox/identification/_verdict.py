"""The answer in one sentence: does the loss penalise KL(π‖π_ref), and if not, what to write."""

from collections.abc import Iterator, Sequence

from klapprox.identification._fields import MeanGradient
from klapprox.identification._found import Found

__all__ = ["verdict"]

_LINES = 'the lines of "Do this" in chapter policy-gradients'


def verdict(found: Found, gradients: Sequence[MeanGradient]) -> Iterator[str]:
    """Yield the answer, and the remedy where there is one."""
    fresh, old = (
        next(g for g in gradients if not g.responses and g.on_policy is on) for on in (True, False)
    )
    if not _is_penalty(fresh):
        yield f"In short: {_other(fresh)}."
        yield f"Remedy: {_remedy(found, fresh)}."
        return
    where = " in the reward" if fresh.placement == "reward" else ""
    if _is_penalty(old):
        yield f"In short: it penalises KL(π‖π_ref){where}, with old samples too{_long(gradients)}."
        return
    yield f"In short: it penalises KL(π‖π_ref){where}, but with old samples it does not."
    yield f"Remedy: with samples of π_old, {_LINES}, which weight them with π/π_old."


def _is_penalty(gradient: MeanGradient) -> bool:
    return gradient.key == "reverse_kl" and gradient.factor > 0


def _other(gradient: MeanGradient) -> str:
    """Say what a loss does that does not penalise the divergence."""
    if gradient.key == "zero":
        return "on-policy its mean gradient is zero, so it penalises nothing"
    if gradient.key == "reverse_kl":
        return "its sign is wrong: descent drives the policy away from the reference"
    if gradient.key == "none":
        return "it is none of the known penalties"
    sign = "minus " if gradient.factor < 0 else ""
    return f"it does not penalise KL(π‖π_ref); on-policy its gradient is {sign}{gradient.text}"


def _remedy(found: Found, gradient: MeanGradient) -> str:
    if gradient.key == "reverse_kl":
        return "change the sign"
    # k1 of the swapped pair is k1 with another sign.
    if found.swapped and found.value != "k1":
        return "exchange policy and reference: log r is log π_ref - log π"
    return _LINES


def _long(gradients: Sequence[MeanGradient]) -> str:
    """Say what becomes of it in responses, drawn from the policy itself."""
    key = next(g for g in reversed(gradients) if g.responses and g.on_policy).key
    return {
        "reverse_kl": ", and of whole responses",
        "token_reverse_kl": "; in responses no token answers for what it leads to",
    }.get(key, "; for responses see below")
