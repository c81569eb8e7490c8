"""Exact twins of the estimators: pairs of distributions on finitely many points, in SymPy.

A `FinitePair` holds q, p and their logarithms. In a *generic* pair the probabilities are symbols
and so is each logarithm: an identity that holds with the logarithms as independent unknowns holds
for the logarithms. In a *rational* pair every logarithm is expanded into logarithms of primes, so
that `sympy.expand` brings equal quantities to equal form and no floating-point number occurs.
"""

import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp

__all__ = [
    "FinitePair",
    "Path",
    "SequencePair",
    "Tree",
    "around",
    "bracket",
    "covariance",
    "distributions",
    "dot",
    "k1",
    "k2",
    "k3",
    "k_lambda",
    "log_rational",
    "rational_pairs",
    "slopes",
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


def bracket(decimal: str) -> tuple[Any, Any]:
    """Return the two rationals between which a number lies that is rounded to this decimal.

    Examples
    --------
    >>> bracket("1.12")
    (223/200, 9/8)
    """
    half = sp.Rational(1, 2 * 10 ** len(decimal.partition(".")[2]))
    return sp.Rational(decimal) - half, sp.Rational(decimal) + half


def around(f: Any, symbol: Any, decimal: str) -> list[Any]:
    """Return f where its symbol has the two values of `bracket`: printed digits become a claim.

    Examples
    --------
    >>> x = sp.Symbol("x", positive=True)
    >>> around(x**2 - 2, x, "1.414")
    [-8071/4000000, 3241/4000000]
    """
    return [f.subs(symbol, end) for end in bracket(decimal)]


def dot(law: Sequence[Any], values: Sequence[Any]) -> Any:
    """Return Σ law·values, the mean of a quantity that has these values at the points of a law.

    Examples
    --------
    >>> dot([sp.Rational(1, 3), sp.Rational(2, 3)], [3, 6])
    5
    """
    return sum(a * b for a, b in zip(law, values, strict=True))


def slopes(law: Sequence[Any], g: Sequence[Any]) -> list[Any]:
    """Return π_j (g_j - E g), which is E[g s] in the logits of a softmax; zero iff g is constant.

    Examples
    --------
    >>> slopes([sp.Rational(1, 3), sp.Rational(2, 3)], [3, 6])
    [-2/3, 2/3]
    """
    return [p * (value - dot(law, g)) for p, value in zip(law, g, strict=True)]


def covariance(law: Sequence[Any], x: Sequence[Any], y: Sequence[Any]) -> Any:
    """Return the covariance under a law of two quantities, given by their values at its points.

    Examples
    --------
    >>> covariance([sp.Rational(1, 2)] * 2, [0, 1], [0, 4])
    1
    """
    product = dot(law, [a * b for a, b in zip(x, y, strict=True)])
    return sp.expand(product - dot(law, x) * dot(law, y))


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

    def pushed(self, kernel: Sequence[Sequence[Any]]) -> "FinitePair":
        """Return the laws of y, if y is drawn from ``kernel[x]``: Σ_x q(x) κ(y | x) and the like.

        Probabilities are rational, there and here.

        Examples
        --------
        >>> pair = FinitePair.rational(["1/2", "1/2"], ["1/4", "3/4"])
        >>> pair.pushed([["1/2", "1/2"], [0, 1]]).q
        (1/4, 3/4)
        """
        columns = [[sp.Rational(value) for value in column] for column in zip(*kernel, strict=True)]
        return FinitePair.rational(*([dot(law, c) for c in columns] for law in (self.q, self.p)))

    def times(self, other: "FinitePair") -> "FinitePair":
        """Return the laws of a point of this pair and, independently, one of the other.

        Examples
        --------
        >>> coins = FinitePair.rational(["1/2", "1/2"], ["1/4", "3/4"])
        >>> coins.times(coins).p
        (1/16, 3/16, 3/16, 9/16)
        """
        laws = [tuple(a * b for a in x for b in y) for x, y in self._both(other)]
        logs = [(self.log_q, other.log_q), (self.log_p, other.log_p)]
        return FinitePair(*laws, *(tuple(a + b for a in x for b in y) for x, y in logs))

    def mixed(self, other: "FinitePair", t: Any) -> "FinitePair":
        """Return t times the (rational) laws of this pair plus 1 - t times those of the other.

        Examples
        --------
        >>> coins = FinitePair.rational(["1/2", "1/2"], ["1/4", "3/4"])
        >>> coins.mixed(coins.reversed, sp.Rational(1, 5)).q
        (3/10, 7/10)
        """
        laws = [
            [t * a + (1 - t) * b for a, b in zip(x, y, strict=True)] for x, y in self._both(other)
        ]
        return FinitePair.rational(*laws)

    def _both(self, other: "FinitePair") -> list[tuple[Any, Any]]:
        return [(self.q, other.q), (self.p, other.p)]

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
    def total_variation(self) -> Any:
        """TV = Σ|p - q|/2, of numbers."""
        return sum(abs(a - b) for a, b in zip(self.q, self.p, strict=True)) / 2

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
    points: int, denominator: int, *, distinct: bool = False, positive: bool = True
) -> Iterator[FinitePair]:
    """Yield every pair of laws whose probabilities have this denominator.

    They have full support, unless ``positive`` is false. With ``distinct`` the pairs with q = p
    are left out.
    """
    laws = list(distributions(points, denominator, positive=positive))
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


@dataclass(frozen=True)
class Path:
    """One sequence of a `SequencePair`. Each list has one entry a token: t = 0, 1, ..., T - 1.

    Attributes
    ----------
    y : tuple
        The tokens; ``y[:t]`` is the prefix before token t.
    rows : list of FinitePair
        The next-token laws from which each token was drawn.
    q, r, u : list
        Probabilities of the tokens under Q, ratios p/q and their logarithms.
    w : list
        Ratios of Q to the sampler (1 where there is none).
    s : list
        Scores of the tokens as columns; only where probabilities are symbols.
    """

    y: Prefix
    rows: list[FinitePair]
    q: list[Any]
    r: list[Any]
    u: list[Any]
    w: list[Any]
    s: list[Any]

    @property
    def k1(self) -> list[Any]:
        """k₁ of each token."""
        return list(map(k1, self.r, self.u))

    @property
    def k2(self) -> list[Any]:
        """k₂ of each token."""
        return list(map(k2, self.r, self.u))

    @property
    def k3(self) -> list[Any]:
        """k₃ of each token."""
        return list(map(k3, self.r, self.u))

    @property
    def R(self) -> list[Any]:
        """Running products of r: R[t] belongs to y[: t + 1]."""
        return list(itertools.accumulate(self.r, operator.mul))

    @property
    def W(self) -> list[Any]:
        """Running products of w."""
        return list(itertools.accumulate(self.w, operator.mul))

    @property
    def S(self) -> list[Any]:
        """Running sums of the scores."""
        return list(itertools.accumulate(self.s))

    def after(self, values: dict[Prefix, Any]) -> list[Any]:
        """Return the values of a predictable quantity: of y[:0], y[:1], ..., y[: T - 1]."""
        return [values[self.y[:t]] for t in range(len(self.y))]

    def whole(self, k: Function) -> Any:
        """Return k of the whole sequence: k(R_T, log R_T)."""
        return k(sp.prod(self.r), sum(self.u))


class SequencePair:
    """Laws Q and P of sequences of T tokens: a `FinitePair` of next-token laws after each prefix.

    `rational` has exact numbers, no two prefixes alike; `policy` symbols, a sampler and gradients;
    `markov` is a chain. In the first two, everything depends on the whole prefix.

    Parameters
    ----------
    length : int
        T.
    rows : dict from prefixes to FinitePair
        One for each prefix of less than T tokens.
    samplers : dict from prefixes to sequences of probabilities, optional
        The law that draws the next token, where it is not Q.
    """

    def __init__(
        self,
        length: int,
        rows: dict[Prefix, FinitePair],
        samplers: dict[Prefix, Sequence[Any]] | None = None,
    ) -> None:
        self.length, self.rows, self.samplers = length, rows, samplers or {}
        laws = [law for row in rows.values() for law in (row.q, row.p)] + [*self.samplers.values()]
        # A law of free symbols sums to 1; `expand` writes its last entry as 1 minus the others.
        self._sums = {law[-1]: 1 - sum(law[:-1]) for law in laws if law[-1].is_Symbol}

    @classmethod
    def rational(
        cls, tokens: int, length: int, denominator: int, *, same: Sequence[Prefix] = ()
    ) -> "SequencePair":
        """Return a pair of laws with another rational `FinitePair`, q ≠ p, after every prefix.

        The ratios of each one differ from 1 and from each other, so that no covariance vanishes
        and no two estimators agree by chance. After the prefixes ``same`` it is q = p.

        Examples
        --------
        >>> len(SequencePair.rational(3, 3, 7).rows)
        13
        """
        prefixes = Tree(tokens, length).prefixes
        pairs = [
            pair
            for pair in rational_pairs(tokens, denominator, distinct=True)
            if len({1, *(r for _, r, _ in pair.ratios)}) == tokens + 1
        ]
        if len(pairs) < len(prefixes):
            raise ValueError(f"{len(pairs)} pairs for {len(prefixes)} prefixes.")
        rows = dict(zip(prefixes, pairs[:: len(pairs) // len(prefixes)], strict=False))
        return cls(length, rows | {y: FinitePair.rational(rows[y].q, rows[y].q) for y in same})

    @classmethod
    def policy(cls, tokens: int, length: int) -> "SequencePair":
        """Return arbitrary π (as Q), π_ref (as P) and sampler π_old after every prefix, as symbols.

        Each π has logits of its own, which is the general case: other parameters enter through
        these by the chain rule. Logarithms are symbols, as in `FinitePair.generic`.
        """
        rows, samplers = {}, {}
        for y in Tree(tokens, length).prefixes:
            at = "".join(map(str, y)) + "_"
            pi, ref, old = (sp.symbols(f"{n}{at}:{tokens}", positive=True) for n in ("x", "p", "o"))
            logs = (sp.symbols(f"{n}{at}:{tokens}", real=True) for n in ("log_x", "log_p"))
            rows[y], samplers[y] = FinitePair(pi, ref, *logs), old
        return cls(length, rows, samplers)

    @classmethod
    def markov(cls, first: FinitePair, after: Sequence[FinitePair], length: int) -> "SequencePair":
        """Return two Markov chains: the laws of the first token, and those after each token.

        Examples
        --------
        >>> fair, biased = FinitePair.of(["1/2"] * 2, ["1/3", "2/3"]), FinitePair.generic(2)
        >>> SequencePair.markov(fair, [fair, biased], 3).rows[0, 1] is biased
        True
        """
        prefixes = Tree(len(after), length).prefixes
        return cls(length, {y: after[y[-1]] if y else first for y in prefixes})

    def expand(self, value: Any) -> Any:
        """Return an expression or matrix in normal form, with every law summing to 1."""
        if isinstance(value, sp.MatrixBase):
            return value.applyfunc(self.expand)
        return sp.expand(sp.expand(value).subs(self._sums))

    def gradient(self, f: Any) -> Any:
        """Return ∇f in the logits of π after every prefix, as a column.

        ∂π_j/∂z_i = π_j (1[i=j] - π_i), and for the logarithm of π_j the bracket alone. The last
        logit of each law is left out: the components of one law sum to zero.
        """
        column = []
        for row in self.rows.values():
            change = [
                x * sp.diff(f, x) + sp.diff(f, u) for x, u in zip(row.q, row.log_q, strict=True)
            ]
            column += [change[i] - x * sum(change) for i, x in enumerate(row.q[:-1])]
        return sp.Matrix(column).applyfunc(sp.expand)

    @cached_property
    def paths(self) -> list[Path]:
        """Every sequence with Q > 0, as a `Path`."""
        found = []
        for y in itertools.product(range(len(self.rows[()].q)), repeat=self.length):
            steps = [(y[:t], self.rows[y[:t]], y[t]) for t in range(self.length)]
            if any(row.q[i] == 0 for _, row, i in steps):
                continue
            found.append(
                Path(
                    y,
                    rows=[row for _, row, _ in steps],
                    q=[row.q[i] for _, row, i in steps],
                    r=[row.p[i] / row.q[i] for _, row, i in steps],
                    u=[row.log_p[i] - row.log_q[i] for _, row, i in steps],
                    w=[row.q[i] / self.samplers.get(z, row.q)[i] for z, row, i in steps],
                    s=[
                        self.gradient(row.log_q[i]) for _, row, i in steps if row.log_q[i].is_Symbol
                    ],
                )
            )
        return found

    @cached_property
    def whole(self) -> FinitePair:
        """Q and P as a pair of laws on whole sequences."""
        q, r = [sp.prod(y.q) for y in self.paths], [sp.prod(y.r) for y in self.paths]
        log_q = [sum(z.log_q[i] for z, i in zip(y.rows, y.y, strict=True)) for y in self.paths]
        log_p = [a + sum(y.u) for a, y in zip(log_q, self.paths, strict=True)]
        return FinitePair(tuple(q), tuple(map(sp.Mul, q, r)), tuple(log_q), tuple(log_p))

    def mean(self, f: Callable[[Path], Any], *, sampled: bool = False) -> Any:
        """Return E_Q[f(path)], or with ``sampled`` the mean under the sampler."""
        law = [sp.prod(y.q) / (sp.prod(y.w) if sampled else 1) for y in self.paths]
        terms = [q * f(y) for q, y in zip(law, self.paths, strict=True)]
        return self.expand(sum(terms[1:], terms[0]))

    def mean_sum(self, f: Callable[[Path, int], Any], *, sampled: bool = False) -> Any:
        """Return E_Q[Σ_t f(path, t)], the sum over the tokens t = 0, ..., T - 1."""

        def total(y: Path) -> Any:
            terms = [f(y, t) for t in range(self.length)]
            return sum(terms[1:], terms[0])

        return self.mean(total, sampled=sampled)

    def covariance(self, f: Callable[[Path], Any], g: Callable[[Path], Any]) -> Any:
        """Return Cov_Q of two functions of the path."""
        product = self.mean(lambda y: sp.expand(f(y) * g(y)))
        return self.expand(product - self.mean(f) * self.mean(g))

    def variance(self, f: Callable[[Path], Any]) -> Any:
        """Return Var_Q[f(path)]."""
        return self.covariance(f, f)

    def chance(self, prefix: Prefix) -> Any:
        """Return the probability under Q that a sequence begins with this prefix."""
        return sp.prod(self.rows[prefix[:t]].q[i] for t, i in enumerate(prefix))

    def to_go(self, prefix: Prefix) -> Any:
        """Return E_Q[sum of the next-token divergences to come | prefix]: KL to go."""
        if len(prefix) == self.length:
            return sp.Integer(0)
        row = self.rows[prefix]
        return row.kl + sum(q * self.to_go((*prefix, i)) for i, q in enumerate(row.q))
