r"""Enumerated policies, and the gradient fields that the book knows.

A `Tree` holds every response of a small policy with separate logits after every prefix, so that a
mean gradient is a sum. A field is the mean of Σ_t c_t s_t, s_t = one-hot - π the score of token t
in the logits of its prefix, under the law that the responses come from.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["KNOWN", "Field", "Tree", "trees"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tree:
    """All responses of at most ``depth`` of V tokens; the last token ends a response.

    Attributes
    ----------
    depth, width : int
        Number of tokens at most, and the length that responses are padded to.
    pi, ref, old : array of shape (prefixes, V)
        Logarithms of the next-token laws after each prefix.
    on_policy : bool
        Whether responses are drawn from π; otherwise from π_old.
    """

    depth: int
    width: int
    pi: Array
    ref: Array
    old: Array
    on_policy: bool

    @cached_property
    def _responses(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        size = self.pi.shape[1]
        prefixes = list(_prefixes(self.depth, size))
        number = {prefix: i for i, prefix in enumerate(prefixes)}
        rows = [
            (*prefix, token)
            for prefix in prefixes
            for token in range(size)
            if token == size - 1 or len(prefix) == self.depth - 1
        ]
        tokens = np.zeros((len(rows), self.width), dtype=np.int64)
        nodes, mask = np.zeros_like(tokens), np.zeros(tokens.shape, dtype=bool)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = row
            nodes[i, : len(row)] = [number[row[:t]] for t in range(len(row))]
            mask[i, : len(row)] = True
        return tokens, nodes, mask

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """True at the tokens of each response, shape (n, T)."""
        return self._responses[2]

    @cached_property
    def length(self) -> Array:
        """Number τ of tokens of each response, shape (n, 1)."""
        return np.asarray(self.mask.sum(axis=1, keepdims=True), dtype=float)

    def logs(self, table: Array) -> Array:
        """Return the log-probability of each token, 0 behind the end; shape (n, T)."""
        tokens, nodes, mask = self._responses
        return np.asarray(np.where(mask, table[nodes, tokens], 0.0))

    @cached_property
    def log_pi(self) -> Array:
        """The log of π of each token."""
        return self.logs(self.pi)

    @cached_property
    def log_ref(self) -> Array:
        """The log of π_ref of each token."""
        return self.logs(self.ref)

    @cached_property
    def log_old(self) -> Array:
        """The log of the law that the responses come from: of π itself on-policy."""
        return self.log_pi if self.on_policy else self.logs(self.old)

    @cached_property
    def sampler(self) -> Array:
        """Probability of each response under the law that it comes from, shape (n,)."""
        return np.asarray(np.exp(self.log_old.sum(axis=1)))

    @cached_property
    def x(self) -> Array:
        """The log-ratio log r_t of π_ref to π of each token."""
        return self.log_ref - self.log_pi

    @cached_property
    def log_w(self) -> Array:
        """The log of the weight w_t of π to the sampler of each token."""
        return self.log_pi - self.log_old

    @cached_property
    def whole(self) -> Array:
        """The weight W of each response, shape (n, 1)."""
        return np.asarray(np.exp(self.log_w.sum(axis=1, keepdims=True)))

    def mean(self, coefficient: Any) -> Array:
        """Return the mean of Σ_t c_t s_t over the responses, shape (prefixes, V)."""
        tokens, nodes, mask = self._responses
        weights = np.where(mask, self.sampler[:, None] * coefficient, 0.0)
        field = np.zeros_like(self.pi)
        np.add.at(field, (nodes, tokens), weights)
        mass = np.zeros(len(field))
        np.add.at(mass, nodes, weights)
        return np.asarray(field - mass[:, None] * np.exp(self.pi))

    def noise(self, coefficient: Any) -> float:
        """Return a size for zero: what `mean` would be if nothing cancelled."""
        return float(np.sum(self.sampler[:, None] * np.abs(coefficient) * self.mask))


def _prefixes(depth: int, size: int) -> Iterator[tuple[int, ...]]:
    """Yield the prefixes that have not ended, the shorter ones first."""
    for length in range(depth):
        yield from itertools.product(range(size - 1), repeat=length)


def trees(on_policy: bool, responses: bool, spread: float = 1.0) -> list[Tree]:
    """Return the policies that a loss is tried on: two of one action, or two of responses.

    Responses have up to two and three tokens and are padded to three. Reference and sampler are a
    few tenths of a nat from the policy, times the spread.
    """
    depths, size, width = ((2, 3), 3, 3) if responses else ((1, 1), 3, 1)
    made = []
    for i, depth in enumerate(depths):
        rng = np.random.Generator(np.random.PCG64(10 * i + responses))
        shape = len(list(_prefixes(depth, size))), size
        pi, to_ref, to_old = (rng.standard_normal(shape) for _ in range(3))
        logits = (0.5 * pi, 0.5 * pi + 0.3 * spread * to_ref, 0.5 * pi + 0.2 * spread * to_old)
        pi, ref, old = (z - np.log(np.exp(z).sum(axis=1, keepdims=True)) for z in logits)
        made.append(Tree(depth, width, pi, ref, old, on_policy))
    return made


class Field(NamedTuple):
    """A gradient field of the book, as a coefficient of the score of each token.

    ``labels`` are those of the statements for one action and for responses, on-policy, and for one
    action and for responses, off-policy.
    """

    key: str
    text: str
    labels: tuple[str, str, str, str]
    coefficient: Callable[[Tree], Any]


def _total(values: Array) -> Array:
    return np.asarray(values.sum(axis=1, keepdims=True))


def _to_go(values: Array) -> Array:
    return np.asarray(np.cumsum(values[:, ::-1], axis=1)[:, ::-1])


def _k3(x: Array) -> Array:
    return np.asarray(np.expm1(x) - x)


def _reward(function: Callable[[Array], Array]) -> Callable[[Tree], Array]:
    """Return the coefficients of a function of the whole ratio in the reward."""
    return lambda y: y.whole * function(_total(y.x))


_ON, _OFF = "thm-on-policy-gradients", "thm-off-policy-gradients"
_MISSING, _FROZEN, _PREFIX = "thm-missing-term", "prop-frozen-prefixes", "cor-prefix-weights"
_LENGTH, _STALE, _SCORE = "prop-division-by-length", "prop-stale-losses", "lem-score"
_SWAPPED, _ABSOLUTE = "ex-gradients-swapped", "ex-libraries-absolute"

KNOWN = (
    Field("zero", "zero", (_ON, _MISSING, _OFF, _SCORE), lambda y: 0 * y.x),
    Field(
        "reverse_kl",
        "∇KL(π‖π_ref)",
        (_ON, _MISSING, _OFF, _MISSING),
        lambda y: -y.whole * _total(y.x),
    ),
    Field(
        "forward_kl",
        "∇KL(π_ref‖π)",
        (_ON, _MISSING, _OFF, _OFF),
        lambda y: -y.whole * np.exp(_total(y.x)),
    ),
    Field(
        "token_reverse_kl",
        "E_π[Σ_t ∇K_t], K_t the KL(π‖π_ref) of the next token: without the divergence to go",
        (_ON, _MISSING, _OFF, _MISSING),
        lambda y: -y.whole * y.x,
    ),
    Field(
        "token_forward_kl",
        "E_π[Σ_t ∇K'_t], K'_t the KL(π_ref‖π) of the next token: without the divergence to go",
        (_ON, _MISSING, _OFF, _MISSING),
        lambda y: -y.whole * np.exp(y.x),
    ),
    Field(
        "frozen_prefix_reverse_kl",
        "∇Σ_t E_old[K_t], K_t the KL(π‖π_ref) of the next token after prefixes of π_old",
        (_ON, _FROZEN, _OFF, _FROZEN),
        lambda y: -np.exp(y.log_w) * y.x,
    ),
    Field(
        "frozen_prefix_forward_kl",
        "∇Σ_t E_old[K'_t], K'_t the KL(π_ref‖π) of the next token after prefixes of π_old",
        (_ON, _FROZEN, _OFF, _FROZEN),
        lambda y: -np.exp(y.log_w + y.x),
    ),
    Field(
        "inverse_length",
        "∇E_π[1/τ], τ the length: descent makes responses longer",
        (_LENGTH,) * 4,
        lambda y: y.whole / y.length,
    ),
    Field(
        "length_k2",
        "E_π[(1/τ) Σ_t k1_t s_t], τ the length: divided by the length",
        (_LENGTH,) * 4,
        lambda y: -y.whole * y.x / y.length,
    ),
    Field(
        "length_k3",
        "E_π[(1/τ) Σ_t (1 - r_t) s_t], τ the length: divided by the length",
        (_LENGTH,) * 4,
        lambda y: -y.whole * np.expm1(y.x) / y.length,
    ),
    Field(
        "mean_k2",
        "∇E_π[k2]",
        (_ON, _ON, _OFF, _OFF),
        lambda y: y.whole * (_total(y.x) ** 2 / 2 - _total(y.x)),
    ),
    Field(
        "token_mean_k2",
        "E_π[Σ_t ∇D_t], D_t the mean of k2 of the next token",
        (_ON, _ON, _OFF, _OFF),
        lambda y: y.whole * (y.x**2 / 2 - y.x),
    ),
    Field(
        "frozen_prefix_mean_k2",
        "∇Σ_t E_old[D_t], D_t the mean of k2 of the next token after prefixes of π_old",
        (_OFF,) * 4,
        lambda y: np.exp(y.log_w) * (y.x**2 / 2 - y.x),
    ),
    Field(
        "away_from_old",
        "-∇KL(π_old‖π): descent drives away from π_old",
        (_OFF,) * 4,
        lambda y: np.ones_like(y.x),
    ),
    Field(
        "stale_k2",
        "∇E_old[Σ_t k2(r_t)]: old samples without a weight",
        (_STALE,) * 4,
        lambda y: -y.x,
    ),
    Field(
        "stale_k3",
        "∇E_old[Σ_t k3(r_t)]: old samples without a weight",
        (_STALE,) * 4,
        lambda y: -np.expm1(y.x),
    ),
    Field(
        "stale_sequence_k2",
        "∇E_old[k2] of whole responses: old samples without a weight",
        (_STALE,) * 4,
        lambda y: np.broadcast_to(-_total(y.x), y.x.shape),
    ),
    Field(
        "stale_sequence_k3",
        "∇E_old[k3] of whole responses: old samples without a weight",
        (_STALE,) * 4,
        lambda y: np.broadcast_to(-np.expm1(_total(y.x)), y.x.shape),
    ),
    Field(
        "reward_k2",
        "∇E_π[k2] - ∇KL(π‖π_ref)",
        (_ON, _ON, _OFF, _OFF),
        _reward(lambda x: x**2 / 2),
    ),
    Field(
        "reward_k3",
        "∇KL(π‖π_ref) - ∇KL(π_ref‖π): no optimum",
        (_ON, _ON, _OFF, _OFF),
        _reward(_k3),
    ),
    Field(
        "reward_token_k3",
        "E_π[Σ_t s_t Σ_{u≥t} k3_u]: k3 of the tokens in the reward",
        (_ON, _ON, _OFF, _OFF),
        lambda y: y.whole * _to_go(_k3(y.x)),
    ),
    Field(
        "reward_token_k2",
        "E_π[Σ_t s_t Σ_{u≥t} k2_u]: k2 of the tokens in the reward",
        (_ON, _ON, _OFF, _OFF),
        lambda y: y.whole * _to_go(y.x**2 / 2),
    ),
    Field(
        "own_token_k3",
        "E_π[Σ_t (∇K_t - ∇K'_t)]: k3 of each token as the reward of that token alone",
        (_ON, _ON, _OFF, _OFF),
        lambda y: y.whole * _k3(y.x),
    ),
    Field(
        "frozen_penalty",
        "∇KL(π‖π_ref) - ∇KL(π‖π_old): a penalty kept from the time of drawing",
        ("prop-frozen-penalty",) * 4,
        lambda y: -y.whole * _total(y.x + y.log_w),
    ),
    Field(
        "frozen_k2",
        "∇E_π[k2(π_ref/π_old)]: a penalty kept from the time of drawing",
        (_OFF,) * 4,
        lambda y: y.whole * _total(y.x + y.log_w) ** 2 / 2,
    ),
    Field(
        "frozen_k3",
        "∇E_π[k3(π_ref/π_old)]: a penalty kept from the time of drawing",
        (_OFF,) * 4,
        lambda y: y.whole * _k3(_total(y.x + y.log_w)),
    ),
    Field(
        "frozen_token_k2",
        "∇E_π[Σ_t k2_t], k2_t of π_ref/π_old: a penalty kept from the time of drawing",
        (_SCORE,) * 4,
        lambda y: y.whole * _total((y.x + y.log_w) ** 2) / 2,
    ),
    Field(
        "frozen_token_k3",
        "∇E_π[Σ_t k3_t], k3_t of π_ref/π_old: a penalty kept from the time of drawing",
        (_SCORE,) * 4,
        lambda y: y.whole * _total(_k3(y.x + y.log_w)),
    ),
    Field(
        "frozen_prefix_frozen_penalty",
        "∇Σ_t E_old[K_t - KL(π‖π_old)_t] after prefixes of π_old: a penalty kept from the time of "
        "drawing",
        ("prop-frozen-penalty",) * 4,
        lambda y: -np.exp(y.log_w) * (y.x + y.log_w),
    ),
    Field(
        "half_chi_squared",
        "½∇χ²(π‖π_ref): the pair is swapped",
        (_SWAPPED,) * 4,
        lambda y: y.whole * np.exp(-_total(y.x)),
    ),
    Field(
        "token_half_chi_squared",
        "½E_π[Σ_t ∇χ²_t], χ²_t that of the next token: the pair is swapped",
        (_SWAPPED,) * 4,
        lambda y: y.whole * np.exp(-y.x),
    ),
    Field(
        "total_variation",
        "2∇TV(π, π_ref)",
        (_ABSOLUTE,) * 4,
        lambda y: -y.whole * np.sign(_total(y.x)),
    ),
    Field(
        "token_total_variation",
        "2E_π[Σ_t ∇TV_t], TV_t the total variation of the next token",
        (_ABSOLUTE,) * 4,
        lambda y: -y.whole * np.sign(y.x),
    ),
    Field(
        "toward_old_reverse",
        "∇KL(π‖π_old)",
        ("prop-frozen-penalty",) * 4,
        lambda y: y.whole * _total(y.log_w),
    ),
    Field(
        "entropy",
        "∇E_π[log π], minus the gradient of the entropy",
        (_SCORE,) * 4,
        lambda y: y.whole * _total(y.log_pi),
    ),
    Field(
        "frozen_entropy",
        "∇E_π[log π_old]: the entropy of the time of drawing",
        (_SCORE,) * 4,
        lambda y: y.whole * _total(y.log_old),
    ),
)
"""The fields in the order in which they are tried; the first that fits gives the name."""
