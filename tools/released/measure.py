"""Make the rows of the table: run what an entry took out, and ask what it is.

Log-probabilities are float32 here, as in trainers, except where `klapprox.identify` chooses. What
is called derivative is that of one token's term in its own log π, divided by what the
normalisation makes of that token.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np

import klapprox as kl

from .trainers import Entry, Taker

# log r = log π_ref − log π of one token.
POINTS = (-100.0, -30.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 30.0, 100.0)
LOG_PI = -2.0
LIMIT = 1000.0  # no trainer has a log-ratio beyond


class Term:
    """A KL term: the loss at β = 1 less the loss at β = 0, with its derivative in log π."""

    def __init__(self, entry: Entry, take: Taker) -> None:
        self.loss = entry.build(take)
        self.framework = entry.framework
        self.alone = entry.alone
        self.place = entry.place
        self._compiled: Any = None

    def __call__(
        self, log_pi: Any, log_ref: Any, log_old: Any, mask: Any, engine: Any = None
    ) -> Any:
        """Return the term, in the arrays of the framework."""
        arrays = (log_pi, log_ref, log_old, mask, engine)
        term = self.loss(1.0, *arrays)
        # Where there is nothing else, 0 times an infinite term would be NaN.
        return term if self.alone else term - self.loss(0.0, *arrays)

    def placed(self, log_pi: Any, log_ref: Any, log_old: Any, mask: Any) -> Any:
        """Return the term as it stands in the trainer's loss; this is what `identify` gets.

        In a reward and in a monitor it is a number. In an advantage it is a number that multiplies
        the score of its own token.
        """
        fixed, term = log_pi, self
        if self.framework == "jax":
            import jax

            term = jax.jit(self)  # the whole loss is called many hundred times
        if self.place != "loss":
            fixed = jax.lax.stop_gradient(log_pi) if self.framework == "jax" else log_pi.detach()
        value = term(fixed, log_ref, log_old, mask)
        return value * (log_pi - fixed).exp() if self.place == "advantage" else value

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
    """Return value and derivative of one token at each of the points, to six digits."""
    return {f"{x:g}": [rounded(part) for part in term.token(x)] for x in POINTS}


def rounded(value: float) -> float | str:
    """Return six digits of a number, and a word for what JSON has no number for."""
    return float(f"{value:.6g}") + 0.0 if math.isfinite(value) else str(float(value))


def edges(term: Term) -> dict[str, float | None]:
    """Return the log-ratios from which the derivative is 0, and from which something is not finite.

    To 0.01, in float32; None where there is none below 1000 in size, and where the derivative is 0
    everywhere.
    """

    def flat(x: float) -> bool:
        return term.token(x)[1] == 0

    def not_finite(x: float) -> bool:
        return not np.isfinite(term.token(x)).all()

    def no_derivative(x: float) -> bool:
        return math.isnan(term.token(x)[1])

    found: dict[str, float | None] = {}
    always = all(flat(x) for x in (-2.0, -0.5, 0.5, 2.0))
    for side, sign in (("below", -1), ("above", 1)):
        infinite = edge(not_finite, sign)
        found[f"not_finite_{side}"] = infinite
        found[f"nan_derivative_{side}"] = edge(no_derivative, sign)
        # What is flat is flat up to where nothing is finite.
        limit = LIMIT if infinite is None else abs(infinite) - 0.02
        found[f"flat_{side}"] = None if always else edge(flat, sign, limit)
    return found


def edge(test: Callable[[float], bool], sign: int, limit: float = LIMIT) -> float | None:
    """Return the log-ratio of this sign, to 0.01, from which the test holds up to the limit."""
    if not test(sign * limit):
        return None
    sizes = [limit, *(size for size in (2.0**n for n in range(9, -4, -1)) if size < limit)]
    high, low = sizes[0], 0.0
    for size in sizes[1:]:
        if not test(sign * size):
            low = size
            break
        high = size
    while high - low > 0.005:
        middle = (low + high) / 2
        low, high = (low, middle) if test(sign * middle) else (middle, high)
    return round(sign * high, 2)


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
    found = kl.identify(term.placed, framework=entry.framework)
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
        "clamp": {
            side: edge["value_is"] for side, edge in found.edges.items() if "value_is" in edge
        },
        "clamped": found.clamp,
        "edges": edges(term),
        "masked": _masked(found.masked),
        "engine": engine(entry, term),
        "default": {"coefficient": default.coefficient, "on": default.on, "option": default.option},
        "gradients": gradients(entry, found),
        "token": numbers(term),
        "error": rounded(found.error),
        "so_what": entry.so_what,
    }


def gradients(entry: Entry, found: Any) -> dict[str, dict[str, Any]]:
    """Return the mean gradient for one token and for responses, on- and off-policy.

    Of responses in a batch of many, where that makes a difference.
    """
    answers: dict[str, dict[str, Any]] = {}
    for gradient in found.gradients:
        what = "responses" if gradient.responses else "token"
        name = f"{what}, {'on-policy' if gradient.on_policy else 'off-policy'}"
        answers[name] = {
            "key": gradient.key,
            "text": gradient.text or gradient.formula,
            "label": gradient.label,
            "factor": rounded(gradient.factor),
            "cosine": rounded(gradient.cosine),
        }
    return answers


def _masked(answers: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return for each content of masked tokens the worst that it does."""
    order = ("unchanged", "changed", "not finite", "refused")
    return {content: max(a.values(), key=order.index) for content, a in answers.items()}


def _or_none(limit: float) -> float | None:
    return limit if math.isfinite(limit) else None
