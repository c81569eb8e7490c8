r"""What a loss optimises: its parts and its mean gradient, found by evaluating it.

`identify` calls a loss and its automatic derivative, at points in general position and on exactly
enumerated policies, and compares the numbers with the formulas of the book. It needs no knowledge
of the library that the loss comes from, and no sampling. Judgements are comparisons to a relative
2e-5, which losses that compute in ``float32`` meet; the attributes ``error`` say how close the
formulas came.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from klapprox.identification._evaluate import evaluator
from klapprox.identification._fields import MeanGradient, mean_gradients
from klapprox.identification._found import Edge, Found
from klapprox.identification._report import sentences
from klapprox.identification._structure import identify_structure

__all__ = ["Edge", "Found", "Identification", "MeanGradient", "identify"]


@dataclass(frozen=True)
class Identification(Found):
    """What `identify` has found; printing it gives sentences, `to_dict` the data.

    Attributes
    ----------
    framework : str
        ``"torch"``, ``"jax"`` or ``"numpy"``.
    output : str
        What the loss returns: ``"scalar"``, ``"per sequence"`` or ``"per token"``. The latter two
        are summed, per token over the tokens that the mask keeps.
    gradients : tuple of MeanGradient
        Its exact mean gradients and the fields of the book that they are.
    """

    framework: str = ""
    output: str = ""
    gradients: tuple[MeanGradient, ...] = ()

    def __str__(self) -> str:
        """Say it in sentences, one a line, first whether it penalises KL(π‖π_ref)."""
        return "\n".join(sentences(self, self.output, self.gradients))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dicts, lists, strings and numbers for JSON.

        What is NaN or infinite, such as a limit that there is not, becomes None.
        """
        data = dataclasses.asdict(self)
        for name in ("direction", "swapped", "weight", "weight_gradient", "clamp"):
            data[name] = getattr(self, name)
        for entry, gradient in zip(data["gradients"], self.gradients, strict=True):
            entry["chapter"] = gradient.chapter
        return dict(_plain(data))


def _plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def identify(
    loss: Callable[[Any, Any, Any, Any], Any], *, framework: str | None = None
) -> Identification:
    r"""Find out what a loss optimises, by evaluating it and its automatic derivative.

    Parameters
    ----------
    loss : callable
        ``loss(log_pi, log_ref, log_old, mask)`` with floating-point arrays of shape (B, T) and a
        Boolean mask, True at the tokens that count. The arrays are log-probabilities in nats of the
        sampled tokens under the policy, the reference and the law that drew them; ``log_pi`` is
        differentiated. It returns a scalar, one number a sequence (B,) or one a token (B, T), to be
        minimised. A loss with another signature needs an adapter, see Examples. Where a KL term
        cannot be taken out of a larger loss, pass the loss with coefficient 1 minus that with 0.
    framework : {"torch", "jax", "numpy"}, optional
        What kind of arrays the loss takes. Without it, the first of them that is loaded and that
        the loss accepts. With ``"numpy"`` the loss returns a pair: its value, and the derivative of
        the sum of its value in each entry of ``log_pi``.

    Returns
    -------
    Identification
        Value, direction, derivative, weight, level, normalisation, limits, what masked tokens may
        hold, and the exact mean gradient on enumerated policies with the statement that proves it.

    Raises
    ------
    TypeError
        If the loss cannot be called with arrays of a framework that is loaded, or does not return
        what is described above.
    ValueError
        If the framework is unknown or the loss returns an array of another shape.

    Notes
    -----
    Samples are drawn from the policy (on-policy; ``log_old`` then holds the same numbers as
    ``log_pi``) or from another one. Actions are one of three tokens, or responses of up to two and
    up to three tokens with separate logits after every prefix, in batches of one response. A mean
    gradient has the name of the first field that it is a multiple of; the statements are those of
    ``thm-on-policy-gradients``, ``thm-off-policy-gradients``, ``thm-missing-term``,
    ``prop-frozen-prefixes``, ``prop-stale-losses`` and ``prop-division-by-length``.

    A loss that differentiates nothing is a number: its mean gradients are those that it has in the
    reward of the whole action, weighted with π/π_old.

    The loss is evaluated some hundreds of times, in ``float64`` except where overflow is looked
    for. What depends on chance, on earlier calls or on the tokens themselves is not understood.

    Examples
    --------
    k3 in the loss, with its derivative:

    >>> import numpy as np
    >>> def loss(log_pi, log_ref, log_old, mask):
    ...     x = np.where(mask, log_ref - log_pi, 0)
    ...     return np.sum(np.expm1(x) - x), -np.expm1(x)
    >>> found = identify(loss, framework="numpy")
    >>> found.value, found.direction, found.normalisation
    ('k3', 'KL(π‖π_ref)', 'sum')
    >>> print(found.gradients[0].text, found.gradients[0].label)
    ∇KL(π_ref‖π) thm-on-policy-gradients

    An adapter for a function with another signature, in PyTorch::

        def loss(log_pi, log_ref, log_old, mask):
            return library_loss(log_pi, ref_logps=log_ref, completion_mask=mask.long())

        print(kl.identify(loss))
    """
    evaluate = evaluator(loss, framework)
    found = identify_structure(evaluate)
    parts = {part.name: getattr(found, part.name) for part in dataclasses.fields(found)}
    return Identification(
        **parts,
        framework=evaluate.framework,
        output=evaluate.output,
        gradients=tuple(mean_gradients(evaluate, found)),
    )
