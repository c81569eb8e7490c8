"""Pairs of densities in SymPy: every moment of (r, log r) under q, from one integral.

That integral is A(s) = E_q[r^s] = ∫ p^s q^(1-s), with the derivatives E_q[r^s (log r)^n] = A⁽ⁿ⁾(s).
So KL(q‖p) = -A'(0), KL(p‖q) = A'(1), χ²(p‖q) = A(2) - 1 and Var_q(log r) = A''(0) - A'(0)². A
closed form has values where the integral diverges: the hypothesis for it belongs into the symbols.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import sympy as sp

__all__ = ["FAMILIES", "DensityPair", "integral_of_exp"]


def integral_of_exp(e: Any, x: Any, domain: Any) -> Any:
    """Return the integral over ``domain`` (or the sum, if it is discrete) of exp(e).

    ``e`` is linear in x², x, log x, log(1 - x) and loggamma(x + 1), the domain one of ℝ, (0, ∞),
    (0, 1), an interval, ℕ₀ or a finite set. The parameters are taken to be such that it converges.
    On an interval |x - m| is allowed, if m does not lie inside. Anything else is a `ValueError`.

    Examples
    --------
    >>> x, c = sp.symbols("x c", positive=True)
    >>> integral_of_exp(-c * x + 2 * sp.log(x), x, sp.Interval.open(0, sp.oo))
    2/c**3
    """
    if isinstance(domain, sp.Interval) and e.has(sp.Abs):
        lo, hi = domain.start, domain.end
        inside = hi - 1 if lo == -sp.oo else lo + 1 if hi == sp.oo else (lo + hi) / 2
        side = {True: 1, False: -1}  # no sign, no rule: then a symbol needs an assumption
        e = e.replace(sp.Abs, lambda z: z * side[sp.expand(z.subs(x, inside)).is_positive])
    if isinstance(domain, sp.FiniteSet):
        return sum(sp.exp(sp.expand(e.subs(x, point))) for point in domain)
    features = x**2, x, sp.log(x), sp.log(1 - x), sp.loggamma(x + 1)
    e = sp.expand(e)
    square, slope, log, log_1m, factorial = coefficients = [e.coeff(f) for f in features]
    constant = sp.expand(e - sum(c * f for c, f in zip(coefficients, features, strict=True)))
    used = {f for c, f in zip(coefficients, features, strict=True) if sp.cancel(c) != 0}
    if constant.has(x):
        raise ValueError(f"{constant} is not linear in {features}.")
    if domain == sp.S.Reals and used <= {x**2, x}:
        value, peak = sp.sqrt(-sp.pi / square), -(slope**2) / (4 * square)
    elif domain == sp.S.Naturals0 and used <= {x}:
        value, peak = 1 / (1 - sp.exp(slope)), 0
    elif domain == sp.S.Naturals0 and sp.cancel(factorial) == -1 and used <= {x, features[-1]}:
        value, peak = 1, sp.exp(slope)
    elif domain == sp.Interval.open(0, 1) and used <= set(features[2:4]):
        value, peak = 1, sum(map(sp.loggamma, (log + 1, log_1m + 1)))
        peak -= sp.loggamma(log + log_1m + 2)
    elif domain == sp.Interval.open(0, sp.oo) and used <= {x, features[2]}:
        value, peak = 1, sp.loggamma(log + 1) - (log + 1) * sp.log(-slope)
    elif isinstance(domain, sp.Interval) and used <= {x}:
        ends = [(1, domain.end), (-1, domain.start)]
        inner = [(sign, end) for sign, end in ends if end.is_finite is not False]
        if used:
            value, peak = sum(sign * sp.exp(slope * end) for sign, end in inner) / slope, 0
        else:
            value, peak = domain.measure, 0
    else:
        raise ValueError(f"no rule for exp({e}) over {domain}.")
    return value * sp.exp(constant + peak)


# Log-densities with respect to length or counting, and where x lives.
_x, _n = sp.Symbol("x", real=True), sp.Symbol("n", integer=True, nonnegative=True)
_POSITIVE, _UNIT = sp.Interval.open(0, sp.oo), sp.Interval.open(0, 1)
FAMILIES: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "normal": (  # mean, standard deviation
        lambda x, m, s: -((x - m) ** 2) / (2 * s**2) - sp.log(s) - sp.log(2 * sp.pi) / 2,
        _x,
        sp.S.Reals,
    ),
    "Laplace": (lambda x, m, b: -sp.Abs(x - m) / b - sp.log(2 * b), _x, None),  # location, scale
    "uniform": (lambda x, low, high: -sp.log(high - low), _x, None),  # ends
    "exponential": (lambda x, rate: sp.log(rate) - rate * x, _x, _POSITIVE),
    "gamma": (  # shape, rate
        lambda x, a, c: a * sp.log(c) - sp.loggamma(a) + (a - 1) * sp.log(x) - c * x,
        _x,
        _POSITIVE,
    ),
    "beta": (
        lambda x, a, b: (
            (a - 1) * sp.log(x)
            + (b - 1) * sp.log(1 - x)
            + sp.loggamma(a + b)
            - sp.loggamma(a)
            - sp.loggamma(b)
        ),
        _x,
        _UNIT,
    ),
    "Bernoulli": (lambda x, a: x * sp.log(a) + (1 - x) * sp.log(1 - a), _n, sp.FiniteSet(0, 1)),
    "geometric": (lambda x, a: sp.log(a) + x * sp.log(1 - a), _n, sp.S.Naturals0),
    "Poisson": (lambda x, a: x * sp.log(a) - a - sp.loggamma(x + 1), _n, sp.S.Naturals0),
}


class DensityPair:
    """Two laws q and p given by log-densities, and every moment of (r, log r) under q.

    The names are those of `FinitePair`.

    Parameters
    ----------
    *pieces : tuples (log q, log p, x, domain)
        Log-densities in x, on domains that `integral_of_exp` knows. Most pairs have one piece;
        two Laplace laws have three, between the kinks.

    Examples
    --------
    >>> a, b = sp.symbols("a b", positive=True)
    >>> DensityPair.of("exponential", (a,), (b,)).kl
    log(a) - log(b) - 1 + b/a
    """

    def __init__(self, *pieces: tuple[Any, Any, Any, Any]) -> None:
        self.pieces = pieces

    @classmethod
    def of(cls, family: str, q: Sequence[Any], p: Sequence[Any]) -> "DensityPair":
        """Return two laws of one of the `FAMILIES`, with the parameters q and p.

        Of two Laplace laws it must be known which location is larger. Of two uniform laws the
        interval of q lies inside that of p.
        """
        log_density, x, domain = FAMILIES[family]
        domains = [domain]
        if family == "Laplace":
            (low, high) = (q[0], p[0]) if (p[0] - q[0]).is_nonnegative else (p[0], q[0])
            if not (high - low).is_nonnegative:
                raise ValueError(f"which of {q[0]} and {p[0]} is larger?")
            ends = -sp.oo, low, high, sp.oo
            domains = [sp.Interval(*two) for two in itertools.pairwise(ends)]
        elif family == "uniform":
            domains = [sp.Interval(*q)]
        both = log_density(x, *q), log_density(x, *p)
        return cls(*((*both, x, piece) for piece in domains))

    @cached_property
    def _mean_of_power(self) -> tuple[Any, Any]:
        s = sp.Dummy("s", real=True)
        terms = (
            integral_of_exp(s * log_p + (1 - s) * log_q, x, domain)
            for log_q, log_p, x, domain in self.pieces
        )
        return s, sum(terms)

    def moment(self, power: Any, logs: int = 0) -> Any:
        """Return E_q[r^power (log r)^logs], as far as the integral converges."""
        s, mean = self._mean_of_power
        value = sp.diff(mean, s, logs).subs(s, power)
        value = value.replace(sp.exp, lambda e: sp.exp(sp.expand(sp.cancel(e))))
        return sp.expand(value)

    @property
    def kl(self) -> Any:
        """KL(q‖p) in nats."""
        return -self.moment(0, 1)

    @property
    def reverse_kl(self) -> Any:
        """KL(p‖q) in nats, for p ≪ q."""
        return self.moment(1, 1)

    @property
    def jeffreys(self) -> Any:
        """J = KL(q‖p) + KL(p‖q)."""
        return self.kl + self.reverse_kl

    @property
    def chi_squared(self) -> Any:
        """χ²(p‖q), for p ≪ q and a finite mean of r²."""
        return self.moment(2) - 1

    @property
    def optimal_lambda(self) -> Any:
        """λ* = J/χ²(p‖q)."""
        return self.jeffreys / self.chi_squared

    @property
    def variance_of_log_ratio(self) -> Any:
        """Var_q(log r) = Var_q(k₁)."""
        return sp.expand(self.moment(0, 2) - self.moment(0, 1) ** 2)
