r"""Exact policy gradients of the KL estimators, for softmax policies on finite sets and tables.

With r = π_ref/π_θ, w = π_θ/π_old and the score s = ∇log π_θ, the gradient of every estimator in
every placement is a coefficient times the score of the sample. `COEFFICIENTS` holds them all; the
other functions take means of coefficient times score exactly, by summing over actions and, for
sequences, by a recursion over positions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from klapprox._arrays import as_table
from klapprox.estimators import ESTIMATORS, refuse_unknown

__all__ = ["COEFFICIENTS", "PLACEMENTS", "TablePolicy", "expected_gradient", "softmax"]

Table = NDArray[np.float64]

PLACEMENTS = ("reward", "loss", "weighted loss", "detached weight", "weighted reward")


def _coefficient(estimator: str, placement: str) -> Callable[[Table, Table], Table]:
    value = ESTIMATORS[estimator].value

    def slope(log_r: Table) -> Table:
        return np.asarray(-ESTIMATORS[estimator].derivative(log_r))  # since ∇log r = -s

    return {
        "reward": lambda log_r, log_w: value(log_r),
        "loss": lambda log_r, log_w: slope(log_r),
        # ∇(w k) = w (k + slope) s
        "weighted loss": lambda log_r, log_w: np.exp(log_w) * (value(log_r) + slope(log_r)),
        "detached weight": lambda log_r, log_w: np.exp(log_w) * slope(log_r),
        "weighted reward": lambda log_r, log_w: np.exp(log_w) * value(log_r),
    }[placement]


COEFFICIENTS = {
    (estimator, placement): _coefficient(estimator, placement)
    for estimator in ESTIMATORS
    for placement in PLACEMENTS
}
"""Functions of (log r, log w), by (estimator, placement); see ``thm-gradient-coefficients``.

:meta hide-value:
"""


def softmax(logits: Any) -> Table:
    """Return probabilities exp(z)/Σ exp(z) along the last axis.

    Raises
    ------
    TypeError, ValueError
        If this is no table of numbers, without an action, or a logit is not finite.
    """
    logits = as_table("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits has shape {logits.shape}; its last axis holds the actions.")
    if not np.all(np.isfinite(logits)):
        raise ValueError("logits holds a value that is not finite; every action needs a chance.")
    return np.asarray(special.softmax(logits, axis=-1))


def expected_gradient(
    estimator: str, placement: str, policy: Any, reference: Any, sampler: Any = None
) -> Table:
    """Return the exact mean of one sample's gradient in the logits of a softmax policy.

    Parameters
    ----------
    estimator : {"k1", "k2", "k3"}
    placement : {"reward", "loss", "weighted loss", "detached weight", "weighted reward"}
        Where the estimator stands: in the reward (k · s), in a loss that is differentiated (∇k),
        there multiplied by w that is (∇(w k)) or is not (w ∇k) differentiated, or in the reward
        multiplied by w.
    policy, reference, sampler : array of shape (n,)
        Probabilities of π_θ, π_ref and π_old; positive. Without a sampler it is the policy.

    Returns
    -------
    array of shape (n,)
        E_old[coefficient · s], s = one-hot - π_θ. Descent subtracts a multiple of it.

    Raises
    ------
    TypeError, ValueError
        If the estimator or the placement is unknown, or a policy is no list of positive
        probabilities of the same actions.

    Notes
    -----
    The values are proved in ``thm-on-policy-gradients`` and ``thm-off-policy-gradients``.

    Examples
    --------
    >>> expected_gradient("k3", "loss", [0.5, 0.5], [0.25, 0.75]).round(4).tolist()  # π - π_ref
    [0.25, -0.25]
    """
    refuse_unknown(estimator, ESTIMATORS)
    refuse_unknown(placement, PLACEMENTS, "placement")
    policy = _law("policy", policy)
    reference = _law("reference", reference, policy.shape)
    sampler = policy if sampler is None else _law("sampler", sampler, policy.shape)
    log_r, log_w = np.log(reference / policy), np.log(policy / sampler)
    weighted = sampler * COEFFICIENTS[estimator, placement](log_r, log_w)
    # Σ_x weight(x) (one-hot(x) - π)
    return np.asarray(weighted - weighted.sum() * policy)


def _law(name: str, values: Any, shape: tuple[int, ...] | None = None) -> Table:
    law = as_table(name, values)
    if law.ndim != 1 or not (np.all(law > 0) and np.isclose(law.sum(), 1, rtol=0, atol=1e-9)):
        raise ValueError(f"{name} must be a list of positive probabilities that sum to 1.")
    if shape not in (None, law.shape):
        raise ValueError(f"{name} has {len(law)} actions; the policy has {shape}.")
    return law


@dataclass(frozen=True, eq=False)
class TablePolicy:
    """A policy over sequences of T tokens, with a softmax row for each position and last token.

    Attributes
    ----------
    logits : array of shape (T, V, V)
        ``logits[t, s]`` are the logits of token t (from 0) after last token s. The first position
        has no last token: it uses row 0.

    Notes
    -----
    Rewards and divergences are sums over positions, so values and gradients come from one backward
    recursion (``thm-missing-term``, ``thm-optima-by-placement``).
    """

    logits: Any

    def __post_init__(self) -> None:
        """Refuse what is not a table of logits."""
        logits = np.array(self.logits, dtype=float)
        if logits.ndim != 3 or logits.shape[1] != logits.shape[2] or logits.size == 0:
            raise ValueError(f"logits has shape {logits.shape}; give (T, V, V).")
        logits.setflags(write=False)
        object.__setattr__(self, "logits", logits)
        softmax(logits)

    @cached_property
    def log_probabilities(self) -> Table:
        """The log of π(token | position, last token): (T, V, V), finite where π underflows."""
        return np.asarray(special.log_softmax(self.logits, axis=2))

    @cached_property
    def probabilities(self) -> Table:
        """π(token | position, last token), shape (T, V, V)."""
        return softmax(self.logits)

    @cached_property
    def visits(self) -> Table:
        """Probability of each last token at each position, shape (T, V); row 0 is the prompt."""
        length, size = self.logits.shape[:2]
        visits = np.zeros((length, size))
        visits[0, 0] = 1.0
        for t in range(1, length):
            visits[t] = visits[t - 1] @ self.probabilities[t - 1]
        return visits

    def value(self, per_token: Any) -> float:
        """Return E Σ_t c_t(y_{t-1}, y_t) for a table c that broadcasts to (T, V, V)."""
        per_token = np.broadcast_to(per_token, self.logits.shape)
        return float(np.einsum("ts,tsa,tsa->", self.visits, self.probabilities, per_token))

    def log_ratio(self, reference: "TablePolicy") -> Table:
        """Return log r = log π_ref - log π for every position, last token and token."""
        return np.asarray(reference.log_probabilities - self.log_probabilities)

    def kl(self, reference: "TablePolicy") -> float:
        """Return KL(π‖π_ref) of whole sequences, in nats."""
        return self.value(-self.log_ratio(reference))

    def to_go(self, per_token: Any) -> Table:
        """Return E[Σ_{u≥t} c_u | position t, last token], shape (T + 1, V); the last row is 0."""
        per_token = np.broadcast_to(per_token, self.logits.shape)
        length, size = self.logits.shape[:2]
        values = np.zeros((length + 1, size))
        for t in reversed(range(length)):
            values[t] = np.sum(self.probabilities[t] * (per_token[t] + values[t + 1]), axis=1)
        return values

    def gradient(self, per_token: Any) -> Table:
        """Return E[Σ_t s_t Σ_{u≥t} c_u], shape (T, V, V).

        This is the gradient of `value` for a table that does not depend on the policy, and the
        gradient of `kl` for the table k1 = -log r, although that one does.
        """
        per_token = np.broadcast_to(per_token, self.logits.shape)
        return self.frozen_prefix_gradient(per_token + self.to_go(per_token)[1:, None, :])

    def frozen_prefix_gradient(self, coefficient: Any) -> Table:
        """Return E[Σ_t c_t s_t], shape (T, V, V): what a loss that is a sum over tokens follows."""
        coefficient = np.broadcast_to(coefficient, self.logits.shape)
        mean = np.sum(self.probabilities * coefficient, axis=2, keepdims=True)
        return np.asarray(self.visits[:, :, None] * self.probabilities * (coefficient - mean))

    def sample(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw ``count`` sequences as an integer array (count, T)."""
        length, size = self.logits.shape[:2]
        # Inverse transforms of uniform numbers: the same tokens with every release of NumPy.
        steps = np.cumsum(self.probabilities, axis=2)
        tokens = np.empty((count, length), dtype=np.int64)
        last = np.zeros(count, dtype=np.int64)
        for t in range(length):
            drawn = np.sum(rng.random(count)[:, None] >= steps[t, last], axis=1)
            last = tokens[:, t] = np.minimum(drawn, size - 1)
        return tokens

    @classmethod
    def optimum(cls, reference: "TablePolicy", reward: Any, beta: float) -> "TablePolicy":
        """Return the policy that maximises E[Σ_t R_t] - β KL(π‖π_ref).

        It is π_ref(y) e^{R(y)/β} normalised over sequences: each token's probability is tilted by
        its reward and by the value of what may follow.
        """
        if not (np.isfinite(beta) and beta > 0):
            raise ValueError(f"beta is {beta}; give a positive number.")
        reward = np.broadcast_to(reward, reference.logits.shape)
        log_reference = reference.log_probabilities
        logits = np.empty_like(log_reference)
        log_future = np.zeros(reference.logits.shape[1])
        for t in reversed(range(len(logits))):
            logits[t] = log_reference[t] + reward[t] / beta + log_future[None, :]
            log_future = special.logsumexp(logits[t], axis=1)
        return cls(logits)
