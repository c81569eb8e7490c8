"""The mean gradient of a loss on enumerated policies, and which field of the book it is."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from klapprox.identification._evaluate import Evaluator
from klapprox.identification._policies import KNOWN, Tree, trees
from klapprox.identification._structure import TOLERANCE, Found

__all__ = ["MeanGradient", "mean_gradients"]

Array = NDArray[np.float64]


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
        all their tokens.
    key, text, label : str
        The field: a name for programs, a formula, and the label of its statement; ``"none"`` and
        empty where no known field fits.
    factor : float
        By which the field is multiplied; descent of the loss subtracts this multiple of it.
    error : float
        Largest deviation from that, relative to the largest component.
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
    """Return the mean gradients for one action and responses, on-policy and off-policy.

    Where nothing is differentiated, the value of each response is the coefficient of its score.
    Where the loss divides by the number of tokens in the batch, the limit of large batches is given
    for responses beside the batch of one.
    """
    as_reward = parts.derivative == "zero"
    over_tokens = parts.normalisation == "mean over kept tokens"
    found = []
    for responses in (False, True):
        for on_policy in (True, False):
            tried = trees(on_policy, responses)
            slopes = [_coefficients(loss, tree, as_reward) for tree in tried]
            one = _named(tried, slopes, responses, on_policy, "one")
            found.append(one)
            if over_tokens and responses:
                # The numerator of the mean; its denominator tends to a multiple of E[τ].
                sums = [c * y.length for c, y in zip(slopes, tried, strict=True)]
                found.append(_named(tried, sums, responses, on_policy, "many"))
    return [
        replace(g, formula=_formula(parts, g)) if g.key == "none" and not as_reward else g
        for g in found
    ]


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


def _formula(parts: Found, gradient: MeanGradient) -> str:
    """Write the mean gradient with the parts of the loss, where each token answers for itself."""
    weight = _WEIGHTS.get(parts.gradient_weight)
    if parts.credit != "own" or weight is None or parts.weight_outside:
        return ""
    if parts.derivative not in _FACTORS or parts.normalisation in ("none", "other"):
        return ""
    by_length = parts.normalisation in ("mean of sequence means", "sum of sequence means") or (
        parts.normalisation == "mean over kept tokens" and gradient.batch == "one"
    )
    law = "E_π" if gradient.on_policy else "E_old"
    length = "(1/τ) " if by_length and gradient.responses else ""
    return f"{law}[{length}Σ_t {weight}{_FACTORS[parts.derivative]}s_t]"


def _coefficients(loss: Evaluator, tree: Tree, as_reward: bool) -> Array:
    """Return what multiplies the score of each token, shape (n, T), from batches of one."""
    rows = []
    for log_pi, log_ref, log_old, mask in zip(
        tree.log_pi, tree.log_ref, tree.log_old, tree.mask, strict=True
    ):
        answer = loss(log_pi, log_ref, log_old, mask[None])
        rows.append(np.full(mask.shape, answer.value) if as_reward else answer.gradient[0])
    return np.array(rows)


def _flat(fields: list[Array]) -> Array:
    return np.concatenate([field.ravel() for field in fields])


def _named(
    tried: list[Tree], slopes: list[Array], responses: bool, on_policy: bool, batch: str
) -> MeanGradient:
    found = _flat([tree.mean(c) for tree, c in zip(tried, slopes, strict=True)])
    noise = sum(tree.noise(c) for tree, c in zip(tried, slopes, strict=True))
    right = _known(tried, 1)
    size = float(np.max(np.abs(found)))
    key, text, label, factor, error = "none", "none of the known ones", "", 0.0, np.inf
    which = 2 * (not on_policy) + responses
    if size <= TOLERANCE * noise:
        key, text, label, error = "zero", "zero", KNOWN[0].labels[which], size
    else:
        for i, field in enumerate(KNOWN[1:], start=1):
            wanted = _known(tried, i)
            if not np.max(np.abs(wanted)) > 1e-9:
                continue
            multiple = float(found @ wanted / (wanted @ wanted))
            off = float(np.max(np.abs(found - multiple * wanted))) / size
            if off < TOLERANCE:
                key, text, label = field.key, field.text, field.labels[which]
                factor, error = multiple, off
                break
    norms = float(np.linalg.norm(found) * np.linalg.norm(right))
    cosine = np.nan if key == "zero" else float(found @ right) / norms
    return MeanGradient(
        responses, on_policy, batch, key, text, label, factor, error, cosine, tuple(found.tolist())
    )


def _known(tried: list[Tree], number: int) -> Array:
    return _flat([tree.mean(KNOWN[number].coefficient(tree)) for tree in tried])
