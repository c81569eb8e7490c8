"""Make the rows of the table: run what an entry took out, and ask what it is.

Log-probabilities are float32 here, as in trainers, except where `klapprox.identify` chooses. What
is called derivative is that of one token's term in its own log π, divided by what the
normalisation makes of that token.
"""

import copy
import math
from dataclasses import asdict
from typing import Any

import numpy as np

import klapprox as kl

from .trainers import Entry, Taker

# log r = log π_ref − log π of one token.
POINTS = (-100.0, -30.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 30.0, 100.0)
LOG_PI = -2.0


class Term:
    """A KL term: the loss at β = 1 less the loss at β = 0, with its derivative in log π."""

    def __init__(self, entry: Entry, take: Taker) -> None:
        self.loss = entry.build(take)
        self.framework = entry.framework
        self.alone = entry.alone
        self.place = entry.place
        self._compiled: Any = None
        self._jitted: Any = None

    def __call__(
        self, log_pi: Any, log_ref: Any, log_old: Any, mask: Any, engine: Any = None
    ) -> Any:
        """Return the term, in the arrays of the framework."""
        arrays = (log_pi, log_ref, log_old, mask, engine)
        term = self.loss(1.0, *arrays)
        # Where there is nothing else, 0 times an infinite term would be NaN.
        return term if self.alone else term - self.loss(0.0, *arrays)

    def parts(self, log_pi: Any, log_ref: Any, log_old: Any, mask: Any) -> Any:
        """Return the term for `identify` to take apart: outside the loss it is a number."""
        fixed = log_pi if self.place == "loss" else self._number(log_pi)
        return self._fast()(fixed, log_ref, log_old, mask)

    def trained(self, log_pi: Any, log_ref: Any, log_old: Any, mask: Any) -> Any:
        """Return what is differentiated: the term, or what a policy gradient makes of the number.

        A reward is computed when the response is drawn, and multiplies the response's weight; an
        advantage of tinker-cookbook multiplies that of its own token.
        """
        if self.place == "loss":
            return self._fast()(log_pi, log_ref, log_old, mask)
        number = self._fast()(log_old, log_ref, log_old, mask)
        log_w = (log_pi - log_old) * mask
        if self.place != "advantage":
            number = number.sum(1) if number.ndim == 2 else number
            log_w = log_w.sum(1)
        return number * (log_w.exp() if self.framework == "torch" else np.e**log_w)

    def _number(self, log_pi: Any) -> Any:
        if self.framework == "torch":
            return log_pi.detach()
        import jax

        return jax.lax.stop_gradient(log_pi)

    def _fast(self) -> Any:
        """Return the term, compiled where it would take minutes: `identify` calls it often."""
        if self.framework == "torch":
            return self
        if self._jitted is None:
            import jax

            self._jitted = jax.jit(self)
        return self._jitted

    def differentiated(
        self, log_pi: Any, log_ref: Any, log_old: Any, mask: Any = None, engine: Any = None
    ) -> tuple[float, np.ndarray]:
        """Return value (a sum, if there is more than one) and gradient for NumPy arrays."""
        shape = np.shape(log_pi)
        mask = np.ones(shape, bool) if mask is None else np.asarray(mask, bool)
        engine = None if engine is None else np.full(shape, engine, np.float32)
        numbers = [np.asarray(a, np.float32) for a in (log_pi, log_ref, log_old)]
        return (self._jax if self.framework == "jax" else self._torch)(*numbers, mask, engine)

    def _torch(self, log_pi: Any, *rest: Any) -> tuple[float, np.ndarray]:
        import torch

        point = torch.tensor(log_pi, requires_grad=True)
        value = self(point, *(None if a is None else torch.tensor(a) for a in rest)).sum()
        gradient = None
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value, point, allow_unused=True)
        return value.item(), np.zeros_like(log_pi) if gradient is None else gradient.numpy()

    def _jax(self, log_pi: Any, *rest: Any) -> tuple[float, np.ndarray]:
        import jax

        def value(point: Any, others: list[Any]) -> Any:
            return self(point, *others).sum()

        if self._compiled is None:
            self._compiled = jax.jit(jax.value_and_grad(value))
        found, gradient = self._compiled(log_pi, list(rest))
        return float(found), np.asarray(gradient)

    def without_beta(self) -> float:
        """Return the loss of one token at β = 0, with nothing subtracted."""
        other = copy.copy(self)
        other.loss = lambda beta, *arrays: self.loss(0.0, *arrays)
        other.alone, other._compiled = True, None
        return other.token(1.0, 2.0)[0]

    def token(self, x: float, w: float = 1.0, engine: float | None = None) -> tuple[float, float]:
        """Return value and derivative for one token with log r = x and π/π_old = w."""
        place = [[LOG_PI]], [[LOG_PI + x]], [[LOG_PI - math.log(w)]]
        value, gradient = self.differentiated(*place, engine=engine)
        return value, float(gradient[0, 0])


def numbers(term: Term) -> dict[str, list[Any]]:
    """Return value and derivative of one token at each of the points, to five digits."""
    return {f"{x:g}": [rounded(part) for part in term.token(x)] for x in POINTS}


def rounded(value: float) -> float | str:
    """Return five digits of a number, and a word for what JSON has no number for."""
    return float(f"{value:.5g}") + 0.0 if math.isfinite(value) else str(float(value))


def limits(found: Any) -> dict[str, dict[str, float]]:
    """Return the log-ratios beyond which something else holds, to three digits."""
    return {
        side: {
            name: float(f"{value:.3g}")
            for name, value in asdict(getattr(found, side)).items()
            if value is not None
        }
        for side in ("below", "above")
    }


def engine(entry: Entry, term: Term) -> dict[str, Any]:
    """Return what the ratio of trainer and engine multiplies."""
    if not entry.engine:
        return {"corrects": False, "multiplies_kl": None}
    plain, halved = term.token(1.0), term.token(1.0, engine=0.5)
    factors = [b / a for a, b in zip(plain, halved, strict=True) if a]
    if np.allclose(factors, 1, rtol=0, atol=1e-5):
        return {"corrects": True, "multiplies_kl": False}
    if np.allclose(factors, 0.5, rtol=0, atol=1e-5):
        return {"corrects": True, "multiplies_kl": True}
    raise ValueError(f"{entry.key}: an engine's ratio of 1/2 multiplies the term by {factors}")


def row(entry: Entry, take: Taker) -> dict[str, Any]:
    """Return everything that is found out about one entry, as it stands in the file."""
    term = Term(entry, take)
    if entry.alone and term.without_beta() != 0:
        raise ValueError(f"{entry.key}: at β = 0 the function returns something else than 0")
    found = kl.identify(term.parts, framework=entry.framework)
    default = entry.default(take)
    release = take.release
    return {
        "key": entry.key,
        "library": entry.library,
        "package": entry.package,
        "version": release.version,
        "date": release.date,
        "option": entry.option,
        "evidence": "measured",
        "how": entry.how,
        "where": take.where(),
        "place": entry.place,
        "value": found.value,
        "direction": found.direction if entry.reference else "none: there is no reference",
        "derivative": found.derivative,
        "weight": {
            "law": found.weight,
            "gradient": found.weight_gradient,
            "limits": [_or_none(limit) for limit in found.weight_limits],
        },
        "normalisation": found.normalisation,
        "clamp": found.clamp,
        "limits": limits(found),
        "masked": _masked(found.masked),
        "engine": engine(entry, term),
        "default": {"coefficient": default.coefficient, "on": default.on, "option": default.option},
        "gradients": gradients(entry, term),
        "token": numbers(term),
        # A power of ten: its digits are rounding noise.
        "error": 10.0 ** math.ceil(math.log10(found.error)) if found.error > 0 else found.error,
        "so_what": entry.so_what,
    }


def gradients(entry: Entry, term: Term) -> dict[str, dict[str, Any]]:
    """Return the mean gradient for one token and for responses, on- and off-policy.

    Of responses in a batch of many, where that makes a difference. A reward off-policy was computed
    by the policy that drew the responses. A monitor has no gradient.
    """
    if entry.place == "diagnostic":
        return {}
    found = kl.identify(term.trained, framework=entry.framework)
    if found.derivative == "zero":
        return {}
    answers: dict[str, dict[str, Any]] = {}
    for gradient in found.gradients:
        what = "responses" if gradient.responses else "token"
        name = f"{what}, {'on-policy' if gradient.on_policy else 'off-policy'}"
        answers[name] = {
            "key": gradient.key,
            "text": gradient.formula or gradient.text,
            "label": gradient.label,
            "factor": rounded(gradient.factor) if gradient.label else None,
            "cosine": rounded(gradient.cosine) if gradient.key != "zero" else None,
        }
    return answers


def _masked(answers: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return for each content of masked tokens the worst that it does."""
    order = ("unchanged", "changed", "not finite", "refused")
    return {content: max(a.values(), key=order.index) for content, a in answers.items()}


def _or_none(limit: float) -> float | str | None:
    return rounded(limit) if math.isfinite(limit) else None
