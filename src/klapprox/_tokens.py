"""The terms of `klapprox.kl_loss` for arrays of any library, without their gradient.

All functions are about the tokens on the last axis and take rows apart from each other, so that a
caller may work on some rows at a time.
"""

import math
from typing import Any, NamedTuple

from klapprox._arrays import is_torch, stop_gradient

__all__ = ["How", "Tokens", "ratios", "row_sums", "token_credits"]


class How(NamedTuple):
    """The options of `klapprox.kl_loss` that say what the terms are."""

    level: str
    max_weight: float | None
    clamp: float | None


class Tokens(NamedTuple):
    """The arrays of `klapprox.kl_loss`; the last two may be None."""

    log_pi: Any
    log_ref: Any
    log_old: Any
    mask: Any

    def fixed(self) -> "Tokens":
        """Return the same without gradients."""
        return Tokens(*(z if z is None else stop_gradient(z) for z in self))


def ratios(xp: Any, how: How, given: Tokens) -> tuple[Any, Any, Any]:
    """Return log r and log w of the tokens, 0 where the mask is False, and the evidence of rows.

    The evidence is the logarithm of the weight of the whole row, or without weights 0. It is not
    finite where an argument is infinite in a way that the terms do not show.
    """
    log_pi = _wide(xp, given.log_pi)
    x = _kept(xp, given.mask, _wide(xp, given.log_ref) - log_pi)
    log_w = evidence = None
    if given.log_old is not None:
        log_w = _kept(xp, given.mask, log_pi - _wide(xp, given.log_old))
        evidence = xp.sum(log_w, axis=-1)
        if how.level == "sequence":
            log_w = _cumulative_sum(xp, log_w)
        if how.max_weight is not None:
            log_w = xp.clip(log_w, max=math.log(how.max_weight))
    if how.clamp is not None:
        hidden = 0.0 * xp.sum(x, axis=-1)  # NaN where an infinity is clamped
        evidence = hidden if evidence is None else evidence + hidden
        x = xp.clip(x, -how.clamp, how.clamp)
    return x, log_w, evidence


def token_credits(xp: Any, how: How, x: Any, log_w: Any, mask: Any) -> Any:
    """Return what the score of each token is multiplied by, 0 where the mask is False."""
    credit = -x if log_w is None else -x * xp.exp(log_w)
    if how.level == "sequence":
        credit = xp.flip(_cumulative_sum(xp, xp.flip(credit, axis=-1)), axis=-1)
        credit = _kept(xp, mask, credit)
    return credit


def row_sums(xp: Any, k3: Any, log_w: Any, *, summed: bool) -> Any:
    """Return the values of the tokens, or their sums."""
    values = k3 if log_w is None else k3 * xp.exp(log_w)
    return xp.sum(values, axis=-1) if summed else values


def _cumulative_sum(xp: Any, values: Any) -> Any:
    # By its own name torch.compile follows it without a warning.
    return values.cumsum(-1) if is_torch(values) else xp.cumulative_sum(values, axis=-1)


def _kept(xp: Any, mask: Any, values: Any) -> Any:
    return values if mask is None else xp.where(mask, values, xp.zeros_like(values))


def _wide(xp: Any, values: Any) -> Any:
    """Return log-probabilities in float32 or wider: before anything is subtracted."""
    dtype = xp.result_type(values.dtype, xp.float32)
    return values if values.dtype == dtype else xp.astype(values, dtype)
