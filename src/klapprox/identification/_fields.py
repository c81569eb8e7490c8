"""The mean gradient of a loss on enumerated policies, and which field of the book it is."""

import math
from dataclasses import dataclass, replace

import numpy as np

from klapprox.identification._evaluate import Evaluator
from klapprox.identification._found import Found
from klapprox.identification._policies import KNOWN, Field, Tree, trees
from klapprox.identification._probe import TOLERANCE, Array

__all__ = ["MeanGradient", "mean_gradients"]


@dataclass(frozen=True)
class MeanGradient:
    """A mean gradient, exactly, and the field of the book that it is a multiple of.

    Attributes
    ----------
    responses : bool
        Whether actions are responses of up to three tokens, or one token.
    on_policy : bool
        Whether they are drawn from π, or from another policy π_old.
    batch : str
        ``"one"``: of one response; ``"many"``: in the limit of many, where the loss is a mean over
        all their tokens, and times their mean length.
    placement : str
        ``"loss"``, or ``"reward"`` where the loss differentiates nothing: then its value is the
        coefficient of the score of the response, weighted with π/π_old.
    key, text, label : str
        The field: a name for programs, a formula, and the label of its statement; ``"none"`` and
        empty where no known field fits.
    factor : float
        By which the field is multiplied; descent of the loss subtracts this multiple of it.
    error : float
        Largest deviation from that, relative to the largest component; for ``"zero"``, relative to
        what the components would be if nothing cancelled.
    cosine : float
        Of the angle with ∇KL(π‖π_ref), NaN where the mean gradient is zero.
    numbers : tuple of float
        The mean gradient itself, in the logits of the policies tried, one after the other.
    formula : str
        Where no field fits, a formula of what it is a multiple of, if the parts are known.
    """

    responses: bool
    on_policy: bool
    batch: str
    placement: str
    key: str
    text: str
    label: str
    factor: float
    error: float
    cosine: float
    numbers: tuple[float, ...]
    formula: str = ""

    @property
    def chapter(self) -> str:
        """Name of the chapter that has the statement, empty without one."""
        return _CHAPTERS.get(self.label, "policy-gradients") if self.label else ""


_CHAPTERS = {"ex-libraries-absolute": "libraries"}


def mean_gradients(loss: Evaluator, parts: Found) -> list[MeanGradient]:
    """Return the mean gradients for one action and responses, on-policy and off-policy."""
    reward = parts.derivative == "zero"
    found = []
    for responses in (False, True):
        for on_policy in (True, False):
            tried = _unclamped(parts, on_policy, responses)
            slopes = [_coefficients(loss, tree, reward) for tree in tried]
            found.append(_named(tried, slopes, parts, responses, "one"))
            if responses and parts.normalisation == "mean over kept tokens":
                # The numerator of the mean; the denominator tends to a multiple of E[τ].
                sums = [c * y.length for c, y in zip(slopes, tried, strict=True)]
                found.append(_named(tried, sums, parts, responses, "many"))
    return found


def _unclamped(parts: Found, on_policy: bool, responses: bool) -> list[Tree]:
    """Return policies so near to each other that no limit of the loss acts, where there are any."""
    for spread in (1.0, 0.5, 0.25, 0.125):
        tried = trees(on_policy, responses, spread)
        if all(_inside(parts, tree) for tree in tried):
            return tried
    return trees(on_policy, responses)


def _inside(parts: Found, tree: Tree) -> bool:
    low, high = (
        [e for e in (edge.value_from, edge.gradient_zero_from) if e is not None]
        for edge in (parts.below, parts.above)
    )
    x = np.concatenate([tree.x, np.cumsum(tree.x, axis=1)])
    log_w = np.concatenate([tree.log_w, np.cumsum(tree.log_w, axis=1)])
    least, most = parts.weight_limits
    return bool(
        max(low, default=-math.inf) < x.min()
        and x.max() < min(high, default=math.inf)
        and least < np.exp(log_w.min())
        and np.exp(log_w.max()) < most
    )


def _coefficients(loss: Evaluator, tree: Tree, reward: bool) -> Array:
    """Return what multiplies the score of each token, shape (n, T), from batches of one."""
    answers = [
        loss(log_pi, log_ref, log_old, mask[None])
        for log_pi, log_ref, log_old, mask in zip(
            tree.log_pi, tree.log_ref, tree.log_old, tree.mask, strict=True
        )
    ]
    if reward:
        values = np.array([[answer.value] for answer in answers])
        return np.broadcast_to(tree.whole * values, tree.mask.shape)
    return np.concatenate([answer.gradient for answer in answers])


def _flat(tried: list[Tree], coefficients: list[Array]) -> Array:
    return np.concatenate(
        [tree.mean(c).ravel() for tree, c in zip(tried, coefficients, strict=True)]
    )


def _known(tried: list[Tree], field: Field) -> Array:
    return _flat(tried, [field.coefficient(tree) for tree in tried])


def _named(
    tried: list[Tree], slopes: list[Array], parts: Found, responses: bool, batch: str
) -> MeanGradient:
    on_policy = tried[0].on_policy
    found = _flat(tried, slopes)
    noise = max(tree.noise(c) for tree, c in zip(tried, slopes, strict=True))
    size, right = float(np.max(np.abs(found))), _known(tried, KNOWN[1])
    gradient = MeanGradient(
        responses,
        on_policy,
        batch,
        placement="reward" if parts.derivative == "zero" else "loss",
        key="none",
        text="",
        label="",
        factor=math.nan,
        error=math.nan,
        cosine=float(found @ right / (np.linalg.norm(found) * np.linalg.norm(right) or math.nan)),
        numbers=tuple(found.tolist()),
        formula=_formula(parts, on_policy, responses and batch == "one"),
    )

    def known(field: Field, factor: float, error: float) -> MeanGradient:
        label = field.labels[2 * (not on_policy) + responses]
        return replace(
            gradient,
            key=field.key,
            text=field.text,
            label=label,
            factor=factor,
            error=error,
            formula="",
        )

    if size <= TOLERANCE * noise:
        error = size / noise if noise else 0.0
        return replace(known(KNOWN[0], 0.0, error), cosine=math.nan)
    for field in KNOWN[1:]:
        wanted = _known(tried, field)
        # A field that is zero up to rounding is no candidate.
        if np.max(np.abs(wanted)) > 1e-9:
            factor = float(found @ wanted / (wanted @ wanted))
            error = float(np.max(np.abs(found - factor * wanted))) / size
            if error < TOLERANCE:
                return known(field, factor, error)
    return gradient


_FACTORS = {
    "one": "",
    "minus_log_r": "k1_t ",
    "one_minus_r": "(1 - r_t) ",
    "inverse_r_minus_one": "(1/r_t - 1) ",
    "one_minus_lambda_r": "(1 - λ r_t) ",
    "sign": "sign(k1_t) ",
    "k1_plus_one": "(k1_t + 1) ",
    "k1_plus_one_minus_lambda": "(k1_t + 1 - λ) ",
    "k2": "k2_t ",
    "k3": "k3_t ",
    "k2_plus_k1": "(k2_t + k1_t) ",
}
_WEIGHTS = {"none": "", "token": "w_t ", "prefix": "W_t ", "sequence": "W ", "sequence mean": "w̄ "}
_BY_LENGTH = ("mean of sequence means", "sum of sequence means", "mean over kept tokens")


def _formula(parts: Found, on_policy: bool, one_response: bool) -> str:
    """Write a mean gradient with the parts of the loss, where each token answers for itself."""
    known = (
        parts.credit == "own"
        and (parts.derivative_ratio == "pi_ref/pi" or parts.derivative == "one")
        and parts.derivative in _FACTORS
        and parts.gradient_weight in _WEIGHTS
        and parts.normalisation not in ("none", "other")
        and not parts.weight_outside
    )
    if not known:
        return ""
    law = "E_π" if on_policy else "E_old"
    length = "(1/τ) " if one_response and parts.normalisation in _BY_LENGTH else ""
    weight = _WEIGHTS[parts.gradient_weight]
    return f"{law}[{length}Σ_t {weight}{_FACTORS[parts.derivative]}s_t]"
