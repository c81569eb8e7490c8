"""Exact twins of the estimators: pairs of distributions on finitely many points, in SymPy.

A `FinitePair` holds q, p and their logarithms. In a *generic* pair the probabilities are symbols
and so is each logarithm: an identity that holds with the logarithms as independent unknowns holds
for the logarithms. In a *rational* pair every logarithm is expanded into logarithms of primes, so
that `sympy.expand` brings equal quantities to equal form and no floating-point number occurs.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp

__all__ = [
    "FinitePair",
    "Tree",
    "distributions",
    "k1",
    "k2",
    "k3",
    "k_lambda",
    "log_rational",
    "rational_pairs",
]

Function = Callable[[Any, Any], Any]  # of (r, log r)
Prefix = tuple[int, ...]
Law = dict[Prefix, tuple[Any, ...]]  # next-token probabilities after every prefix


def k1(r: Any, log_r: Any) -> Any:
    """Return -log r."""
    return -log_r


def k2(r: Any, log_r: Any) -> Any:
    """Return (log r)²/2."""
    return log_r**2 / 2


def k3(r: Any, log_r: Any) -> Any:
    """Return (r - 1) - log r."""
    return r - 1 - log_r


def k_lambda(lam: Any) -> Function:
    """Return the function (r, log r) -> -log r + λ (r - 1)."""
    return lambda r, log_r: -log_r + lam * (r - 1)


def log_rational(value: Any) -> Any:
    """Return log(value) of a nonnegative rational as a combination of logarithms of primes.

    Examples
    --------
    >>> log_rational(sp.Rational(8, 9))
    -2*log(3) + 3*log(2)
    >>> log_rational(0)
    -oo
    """
    value = sp.sympify(value)
    if not (value.is_Rational and value >= 0):
        raise ValueError(f"value is {value}; only nonnegative rationals have a logarithm here.")
    if value == 0:
        return -sp.oo
    return sp.Add(*(n * sp.log(prime) for prime, n in sp.factorrat(value).items() if prime != 1))


def _log(value: Any) -> Any:
    """Return the logarithm, of a nonnegative rational in logarithms of primes."""
    value = sp.sympify(value)
    return log_rational(value) if value.is_Rational else sp.expand_log(sp.log(value))


@dataclass(frozen=True)
class FinitePair:
    """Two distributions q and p on the same finitely many points; x is drawn from q.

    Attributes
    ----------
    q, p : tuple
        Probabilities. Points with q = 0 are left out of means under q, as the definition wants.
    log_q, log_p : tuple
        Their logarithms in nats.
    """

    q: tuple[Any, ...]
    p: tuple[Any, ...]
    log_q: tuple[Any, ...]
    log_p: tuple[Any, ...]

    @classmethod
    def generic(cls, points: int) -> "FinitePair":
        """Return the pair of two arbitrary distributions with full support on so many points."""
        q = sp.symbols(f"q1:{points}", positive=True)
        p = sp.symbols(f"p1:{points}", positive=True)
        return cls(
            (*q, 1 - sum(q)),
            (*p, 1 - sum(p)),
            sp.symbols(f"log_q1:{points + 1}", real=True),
            sp.symbols(f"log_p1:{points + 1}", real=True),
        )

    @classmethod
    def rational(cls, q: Sequence[Any], p: Sequence[Any]) -> "FinitePair":
        """Return the pair with these rational probabilities, for example ``["1/2", "1/2"]``."""
        laws = []
        for name, law in (("q", q), ("p", p)):
            exact = tuple(sp.Rational(value) for value in law)
            if not exact or min(exact) < 0 or sum(exact) != 1:
                raise ValueError(f"{name} is {list(law)}; it must be nonnegative and sum to 1.")
            laws.append(exact)
        if len(laws[0]) != len(laws[1]):
            raise ValueError(
                f"q has {len(laws[0])} points and p {len(laws[1])}; give equally many."
            )
        q_exact, p_exact = laws
        return cls(
            q_exact, p_exact, tuple(map(log_rational, q_exact)), tuple(map(log_rational, p_exact))
        )

    @classmethod
    def of(cls, q: Sequence[Any], p: Sequence[Any]) -> "FinitePair":
        """Return the pair with these positive probabilities, which may hold symbols.

        Logarithms are those of SymPy, of rationals in logarithms of primes. That the
        probabilities of a law sum to 1 is not looked at.

        Examples
        --------
        >>> M, eps = sp.symbols("M epsilon", positive=True)
        >>> FinitePair.of((eps, 1 - eps), (eps * M, 1 - eps * M)).ratios[0]
        (epsilon, M, log(M))
        """
        if len(q) != len(p):
            raise ValueError(f"q has {len(q)} points and p {len(p)}; give equally many.")
        laws = [tuple(map(sp.sympify, law)) for law in (q, p)]
        return cls(*laws, *(tuple(map(_log, law)) for law in laws))

    def given(self, points: Sequence[int]) -> "FinitePair":
        """Return the two laws given that x is one of these points.

        Examples
        --------
        >>> FinitePair.rational(["1/2", "1/4", "1/4"], ["1/4", "1/4", "1/2"]).given([0, 1]).q
        (2/3, 1/3)
        """
        laws, logs = [], []
        for law, log in ((self.q, self.log_q), (self.p, self.log_p)):
            mass = sum(law[j] for j in points)
            laws.append(tuple(law[j] / mass for j in points))
            logs.append(tuple(log[j] - _log(mass) for j in points))
        return FinitePair(*laws, *logs)

    def merged(self, points: Sequence[int]) -> "FinitePair":
        """Return the laws with these points taken as one, which comes last.

        Examples
        --------
        >>> FinitePair.rational(["1/2", "1/4", "1/4"], ["1/4", "1/4", "1/2"]).merged([1, 2]).p
        (1/4, 3/4)
        """
        kept = [j for j in range(len(self.q)) if j not in points]
        laws, logs = [], []
        for law, log in ((self.q, self.log_q), (self.p, self.log_p)):
            mass = sum(law[j] for j in points)
            laws.append((*(law[j] for j in kept), mass))
            logs.append((*(log[j] for j in kept), _log(mass)))
        return FinitePair(*laws, *logs)

    @property
    def reversed(self) -> "FinitePair":
        """The pair with the roles of q and p exchanged."""
        return FinitePair(self.p, self.q, self.log_p, self.log_q)

    @cached_property
    def ratios(self) -> tuple[tuple[Any, Any, Any], ...]:
        """Triples (q, r, log r) of the points with q > 0."""
        return tuple(
            (q, p / q, -sp.oo if log_p == -sp.oo else log_p - log_q)
            for q, p, log_q, log_p in zip(self.q, self.p, self.log_q, self.log_p, strict=True)
            if q != 0
        )

    def mean(self, function: Function, given: Sequence[int] | None = None) -> Any:
        """Return E_q[function(r, log r)], or with ``given`` the mean given that x is among them."""
        if given is None:
            return sp.expand(sum(q * function(r, log_r) for q, r, log_r in self.ratios))
        chosen = [self.q[j] for j in given], [self.p[j] for j in given]
        logs = [self.log_q[j] for j in given], [self.log_p[j] for j in given]
        part = FinitePair(*map(tuple, (*chosen, *logs)))
        return sp.expand(part.mean(function) / sum(part.q))

    def covariance(
        self, first: Function, second: Function, given: Sequence[int] | None = None
    ) -> Any:
        """Return Cov_q of two functions of (r, log r), or theirs given some points."""
        product = self.mean(lambda r, log_r: first(r, log_r) * second(r, log_r), given)
        return sp.expand(product - self.mean(first, given) * self.mean(second, given))

    def variance(self, function: Function, given: Sequence[int] | None = None) -> Any:
        """Return Var_q[function(r, log r)], or its variance given some points."""
        return self.covariance(function, function, given)

    @property
    def kl(self) -> Any:
        """KL(q‖p) in nats."""
        return self.mean(k1)

    @property
    def reverse_kl(self) -> Any:
        """KL(p‖q) in nats."""
        return self.reversed.kl

    @property
    def jeffreys(self) -> Any:
        """J = KL(q‖p) + KL(p‖q)."""
        return self.kl + self.reverse_kl

    @property
    def chi_squared(self) -> Any:
        """χ²(p‖q) = Σ p²/q - 1, for p ≪ q."""
        return self.mean(lambda r, log_r: r**2) - 1

    @property
    def optimal_lambda(self) -> Any:
        """λ* = J/χ²(p‖q)."""
        return self.jeffreys / self.chi_squared


def distributions(points: int, denominator: int, *, positive: bool = True) -> Iterator[list[Any]]:
    """Yield every distribution on so many points whose probabilities have this denominator."""
    lowest = 1 if positive else 0
    for parts in itertools.product(range(lowest, denominator + 1), repeat=points):
        if sum(parts) == denominator:
            yield [sp.Rational(part, denominator) for part in parts]


def rational_pairs(
    points: int, denominator: int, *, distinct: bool = False
) -> Iterator[FinitePair]:
    """Yield every pair of laws with full support whose probabilities have this denominator.

    With ``distinct`` the pairs with q = p are left out.
    """
    laws = list(distributions(points, denominator))
    for q, p in itertools.product(laws, laws):
        if not (distinct and q == p):
            yield FinitePair.rational(q, p)


@dataclass(frozen=True)
class Tree:
    """All sequences of so many tokens, for laws that depend on the whole prefix.

    A law is a dict from prefixes to next-token probabilities. `law` and `symbols` make one; any
    number of them may live on the same tree.

    Examples
    --------
    >>> tree = Tree(tokens=2, length=3)
    >>> policy, sampler = tree.symbols("x"), tree.law(0)
    >>> tree.mean(sampler, lambda y: tree.chance(policy, y) / tree.chance(sampler, y))
    1
    """

    tokens: int
    length: int

    @cached_property
    def prefixes(self) -> list[Prefix]:
        """The prefixes of 0, 1, ..., length - 1 tokens, shortest first."""
        lengths = range(self.length)
        return [y for t in lengths for y in itertools.product(range(self.tokens), repeat=t)]

    @cached_property
    def sequences(self) -> list[Prefix]:
        """The sequences of ``length`` tokens."""
        return list(itertools.product(range(self.tokens), repeat=self.length))

    def law(self, number: int) -> Law:
        """Return a rational law; other numbers give other laws, and no two prefixes are alike."""
        found = {}
        for n, prefix in enumerate(self.prefixes, start=number * len(self.prefixes)):
            # Primes far apart: no two quotients of two laws agree by chance.
            weights = [sp.prime(3 + (17 * n + 11 * i) % 97) for i in range(self.tokens)]
            found[prefix] = tuple(sp.Rational(x, sum(weights)) for x in weights)
        return found

    def symbols(self, name: str) -> Law:
        """Return an arbitrary law: positive symbols, the last probability 1 minus the others."""
        found = {}
        for prefix in self.prefixes:
            at = f"{name}_{''.join(map(str, prefix))}_"
            free = [sp.Symbol(f"{at}{i}", positive=True) for i in range(self.tokens - 1)]
            found[prefix] = (*free, 1 - sum(free))
        return found

    def steps(self, law: Law, y: Prefix) -> list[Any]:
        """Return the probability of each token of a sequence, given the tokens before it."""
        return [law[y[:t]][token] for t, token in enumerate(y)]

    def chance(self, law: Law, y: Prefix) -> Any:
        """Return the probability that a sequence begins with these tokens."""
        return sp.prod(self.steps(law, y))

    def pair(self, q: Law, p: Law) -> FinitePair:
        """Return two rational laws as a pair of laws on whole sequences."""
        return FinitePair.rational(
            *([self.chance(law, y) for y in self.sequences] for law in (q, p))
        )

    def mean(self, law: Law, f: Callable[[Prefix], Any]) -> Any:
        """Return the mean of f over the sequences."""
        return sp.cancel(sum(self.chance(law, y) * f(y) for y in self.sequences))

    def gradient(self, law: Law, f: Any) -> list[Any]:
        """Return ∇f in the logits of a law of symbols, all but the last after each prefix.

        ∂x_j/∂z_i = x_j (1[i=j] - x_i); the component left out is minus the sum of the others.
        """
        column = []
        for probabilities in law.values():
            free = probabilities[:-1]
            slopes = [sp.diff(f, x) for x in free]
            inner = sum(x * slope for x, slope in zip(free, slopes, strict=True))
            column += [sp.cancel(x * (s - inner)) for x, s in zip(free, slopes, strict=True)]
        return column
