r"""Exact means and variances of estimators of KL(Q‖P) for sequences of tokens.

`MarkovPair` holds two laws Q (which generates) and P in which each token depends on the one before;
a table over longer contexts is the same thing, with the contexts as states. Whatever is a sum over
all sequences is computed by a recursion over positions, in O(T V²) operations.

Levels: with token ratios r_t = p_t(y_t|y_<t)/q_t(y_t|y_<t) and R = r_1...r_T, an estimator k can be
applied to each token and summed, Σ_t k(r_t), or once to the sequence, k(R).
"""

from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from klapprox._arrays import as_table
from klapprox.estimators import k3, named, refuse_unknown

__all__ = ["MarkovPair", "Moments"]

Table = NDArray[np.float64]


class Moments(NamedTuple):
    """Mean and variance of an estimate from one sequence.

    Attributes
    ----------
    mean : float
        Expectation in nats.
    variance : float
        Variance in nats².
    """

    mean: float
    variance: float

    @property
    def sd(self) -> float:
        """Standard deviation in nats."""
        return float(np.sqrt(self.variance))


@dataclass(frozen=True, eq=False)
class MarkovPair:
    """Laws Q and P of token sequences; sequences are drawn from Q.

    Attributes
    ----------
    start_q, start_p : array of shape (V,)
        Probabilities of the first token.
    q, p : array of shape (V, V)
        ``q[s, t]`` is the probability of token t after token s. Wherever q is zero p must be zero
        and vice versa, so that every divergence is finite.
    end : int, optional
        The end-of-sequence token. It must stay forever: ``q[end, end] = p[end, end] = 1``.

    Raises
    ------
    TypeError, ValueError
        If a table holds something else than numbers, shapes do not fit, a row is not a
        distribution, supports differ, or ``end`` is not absorbing.

    Notes
    -----
    Implements ``prop-markov-recursion``, ``prop-markov-growth`` and ``thm-predictable-controls``.

    Examples
    --------
    >>> even = [0.5, 0.5]
    >>> pair = MarkovPair(even, even, [[0.9, 0.1], even], [[0.8, 0.2], even])
    >>> round(pair.kl(3), 4)
    0.044
    >>> pair.token_level("k3", 3).variance < pair.token_level("k1", 3).variance
    True
    """

    start_q: Any
    start_p: Any
    q: Any
    p: Any
    end: int | None = None

    def __post_init__(self) -> None:
        """Turn the tables into arrays and refuse what is not a pair of laws."""
        for name in ("start_q", "start_p", "q", "p"):
            table = as_table(name, getattr(self, name))
            size = table.size if name == "start_q" else np.size(self.start_q)
            wanted = (size,) if name.startswith("start") else (size, size)
            if table.shape != wanted:
                raise ValueError(f"{name} has shape {table.shape}; with V = {size} give {wanted}.")
            if not (np.all(table >= 0) and np.allclose(table.sum(-1), 1, rtol=0, atol=1e-12)):
                raise ValueError(f"{name} must be nonnegative with rows that sum to 1; normalise.")
            table.setflags(write=False)
            object.__setattr__(self, name, table)
        if not np.array_equal(self._q > 0, self._p > 0):
            raise ValueError("q and p have different supports; give both the same zeros.")
        if self.end is not None:
            end: Any = self.end
            number = isinstance(end, int | np.integer) and not isinstance(end, bool)
            if not number or not 0 <= self.end < self.size:
                raise ValueError(f"end is {self.end!r}; tokens are numbered 0 to {self.size - 1}.")
            if not self.q[self.end, self.end] == self.p[self.end, self.end] == 1:
                raise ValueError("end must stay forever: set q[end, end] = p[end, end] = 1.")

    @property
    def size(self) -> int:
        """Number V of tokens."""
        return len(self.start_q)

    # Tables with one row more: after the rows of the tokens comes the prompt's.

    @cached_property
    def _q(self) -> Table:
        return np.vstack([self.q, self.start_q])

    @cached_property
    def _p(self) -> Table:
        return np.vstack([self.p, self.start_p])

    @cached_property
    def _log_r(self) -> Table:
        # Where both are zero no sequence goes; 0 keeps 0 · log r at 0 there.
        possible = self._q > 0
        log_q, log_p = (np.log(np.where(possible, x, 1.0)) for x in (self._q, self._p))
        return np.asarray(log_p - log_q)

    @cached_property
    def step_kl(self) -> Table:
        """K(s) = KL(q(.|s)‖p(.|s)) for each last token s; the last entry is the first token's."""
        return np.asarray(np.sum(self._q * k3(self._log_r), axis=1))

    def kl(self, length: int) -> float:
        """Return KL(Q‖P) of the first ``length`` tokens."""
        return self.exact_sum(length).mean

    def kl_to_go(self, length: int) -> Table:
        """Return the divergence still to come, E[Σ_{u>t} K_u | y_t = s], as an array (length, V).

        Row t - 1 is about position t, so the last row is zero.
        """
        rows = np.zeros((_checked(length), self.size))
        for t in range(length - 2, -1, -1):
            rows[t] = self.step_kl[:-1] + self.q @ rows[t + 1]
        return rows

    def exact_sum(self, length: int) -> Moments:
        """Return the moments of Σ_t K_t(y_<t), the sum of exact divergences along a sequence."""
        return self._additive(np.broadcast_to(self.step_kl[:, None], self._q.shape), length)

    def token_level(self, estimator: str, length: int) -> Moments:
        """Return the moments of Σ_t k(r_t) for the estimator of this name."""
        return self._additive(named(estimator).value(self._log_r), length)

    def sequence_level(self, estimator: str, length: int) -> Moments:
        """Return the moments of k(R), R the ratio of the whole sequence.

        Known for ``"k1"``, ``"k2"`` and ``"k3"``. The variance of k3 grows exponentially with the
        length and may overflow to infinity.
        """
        refuse_unknown(estimator, ("k1", "k2", "k3"))
        raw = self._log_moments(self._q, length, 4 if estimator == "k2" else 2)
        variance = raw[2] - raw[1] ** 2
        if estimator == "k1":
            return Moments(-raw[1], variance)
        if estimator == "k2":
            return Moments(raw[2] / 2, (raw[4] - raw[2] ** 2) / 4)
        # Cov_Q(R, log R) = E_P log R - E_Q log R = J.
        jeffreys = self._log_moments(self._p, length, 1)[1] - raw[1]
        return Moments(-raw[1], self.mean_squared_ratio(length) - 1 + variance - 2 * jeffreys)

    def mean_squared_ratio(self, length: int) -> float:
        """Return E_Q[R²] = 1 + χ²(P‖Q) of the first ``length`` tokens."""
        with np.errstate(over="ignore"):
            factor = np.divide(self._p**2, self._q, out=np.zeros_like(self._q), where=self._q > 0)
            mean = np.ones(self.size)
            for _ in range(_checked(length) - 1):
                mean = factor[:-1] @ mean
            return float(factor[-1] @ mean)

    def ratio_growth(self) -> float:
        """Return ρ(M), the factor by which E_Q[R²] grows a token in the long run.

        M = p²/q elementwise; ρ = 1 only if the chains are the same (``prop-markov-growth``).
        """
        factor = np.divide(self.p**2, self.q, out=np.zeros_like(self.q), where=self.q > 0)
        return float(np.max(np.abs(np.linalg.eigvals(factor))))

    def variance_rate(self, estimator: str) -> float:
        """Return the σ² with Var(Σ_t k(r_t)) = σ² T + o(T), for an irreducible q.

        Raises
        ------
        ValueError
            If some token cannot be reached from another, for example after the end token.
        """
        reach = np.linalg.matrix_power(np.eye(self.size) + (self.q > 0), self.size - 1) > 0
        if not np.all(reach):
            raise ValueError("q is not irreducible: let every token be reachable from every other.")
        g = named(estimator).value(self._log_r[:-1])
        f = np.sum(self.q * g, axis=1)
        minus_generator = np.eye(self.size) - self.q
        system = np.vstack([minus_generator.T, np.ones(self.size)])
        stationary = np.linalg.lstsq(system, np.append(np.zeros(self.size), 1.0), rcond=None)[0]
        # The Poisson equation turns the sum into a martingale and a bounded rest.
        h = np.linalg.lstsq(minus_generator, f - stationary @ f, rcond=None)[0]
        increments = g - stationary @ f + h - h[:, None]
        return float(stationary @ np.sum(self.q * increments**2, axis=1))

    def controlled(self, coefficients: Any, length: int) -> Moments:
        """Return the moments of Σ_t k1(r_t) + c_t (r_t - 1) for predictable coefficients.

        Parameters
        ----------
        coefficients : array
            Broadcasts to (length, V + 1): c_t after last token s is ``[t - 1, s]``, with s = V for
            the prompt. 0 gives k1 and 1 gives k3 at token level.
        length : int
            Number of tokens.
        """
        table = np.broadcast_to(np.asarray(coefficients, float), (_checked(length), self.size + 1))
        ratio = np.expm1(self._log_r)
        return self._additive([c[:, None] * ratio - self._log_r for c in table], length)

    def optimal_coefficients(self, length: int) -> Table:
        """Return the c_t that make the variance of `controlled` least, as (length, V + 1).

        c_t = (J_t - Cov(V_{t+1}, r_t | y_<t))/χ²_t with V_{t+1} the KL to go. Knowing them means
        knowing the divergence: they are a yardstick, not an estimator.
        """
        ratio = np.expm1(self._log_r)
        chi_squared = np.sum(self._q * ratio**2, axis=1)
        jeffreys = np.sum(self._q * ratio * self._log_r, axis=1)
        to_go = self.kl_to_go(length)
        covariance = np.array([(self._q * ratio) @ row for row in to_go])
        # Where q = p the control variate is zero and its coefficient does not matter.
        zero = np.zeros_like(covariance)
        best = np.divide(jeffreys - covariance, chi_squared, out=zero, where=chi_squared > 0)
        return np.asarray(best)

    def sample(self, count: int, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw ``count`` sequences from Q as an integer array (count, length)."""
        # Inverse transforms of uniform numbers: the same tokens with every release of NumPy.
        steps = np.cumsum(self._q, axis=1)
        # Rounding may leave the last sum below 1; no draw may fall behind the last possible token.
        last_possible = self.size - 1 - np.argmax(self._q[:, ::-1] > 0, axis=1)
        tokens = np.empty((count, _checked(length)), dtype=np.int64)
        state = np.full(count, self.size)
        for t in range(length):
            drawn = np.sum(rng.random(count)[:, None] >= steps[state], axis=1)
            state = tokens[:, t] = np.minimum(drawn, last_possible[state])
        return tokens

    def log_ratios(self, tokens: Any) -> Table:
        """Return log r_t of each token of the sequences, in the shape of ``tokens``.

        Raises
        ------
        ValueError
            If ``tokens`` is not an integer array of tokens 0 to V - 1, or Q cannot generate them.
        """
        tokens = np.asarray(tokens)
        if not (np.issubdtype(tokens.dtype, np.integer) and tokens.ndim >= 1):
            raise ValueError("tokens must be an integer array with the positions on its last axis.")
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.size:
            raise ValueError(f"tokens must lie between 0 and {self.size - 1}.")
        before = np.concatenate(
            [np.full((*tokens.shape[:-1], 1), self.size), tokens[..., :-1]], axis=-1
        )
        if np.any(self._q[before, tokens] == 0):
            raise ValueError("tokens holds a sequence that q cannot generate.")
        return np.asarray(self._log_r[before, tokens])

    def _additive(self, increments: Any, length: int) -> Moments:
        """Return the moments under Q of Σ_t g_t(y_{t-1}, y_t), g one table or one a position."""
        _checked(length)
        if isinstance(increments, np.ndarray):
            increments = [increments] * length
        mean, variance = np.zeros(self.size), np.zeros(self.size)
        for table in reversed(increments):
            total = table + mean  # of what this token and the later ones bring, given this token
            new = np.sum(self._q * total, axis=1)
            spread = np.sum(self._q * ((total - new[:, None]) ** 2 + variance), axis=1)
            mean, variance = new[:-1], spread[:-1]
            at_prompt = Moments(float(new[-1]), float(spread[-1]))
        return at_prompt

    def _log_moments(self, law: Table, length: int, order: int) -> list[float]:
        """Return E[(log R)^j] for j = 0..order, for sequences from this law."""
        powers = [self._log_r**j for j in range(order + 1)]
        after = [np.ones(self.size), *(np.zeros(self.size) for _ in range(order))]
        for _ in range(_checked(length)):
            rows = [
                sum(
                    comb(j, i) * np.sum(law * powers[j - i] * after[i], axis=1)
                    for i in range(j + 1)
                )
                for j in range(order + 1)
            ]
            after = [np.asarray(row)[:-1] for row in rows]
        return [float(np.asarray(row)[-1]) for row in rows]


def _checked(length: Any) -> int:
    if not isinstance(length, int | np.integer) or length < 1:
        raise ValueError(f"length is {length!r}; give the number of tokens, at least 1.")
    return int(length)
