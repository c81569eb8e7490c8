"""Parametric families with closed forms for everything the estimators depend on.

``moments(q, p)`` returns the divergences of two members of one family and the exact means and
variances of k1, k2 and k3 under x ~ q. The divergences are stated in ``prop-closed-forms``, the
variances in ``thm-optimal-lambda`` (k3) and in the chapter on k2.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from numbers import Real
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from klapprox._arrays import as_table
from klapprox.estimators import k3
from klapprox.exact import _log_gamma

__all__ = [
    "Bernoulli",
    "Beta",
    "Categorical",
    "CentralMoments",
    "Exponential",
    "Gamma",
    "Geometric",
    "Laplace",
    "MultivariateNormal",
    "Normal",
    "PairMoments",
    "Poisson",
    "moments",
]


class CentralMoments(NamedTuple):
    """Central moments of log r under q.

    Attributes
    ----------
    second, third, fourth : float
        E_q[(log r - E_q log r)ⁿ] for n = 2, 3 and 4, in natsⁿ; ``second`` is the variance of k1.
    """

    second: float
    third: float
    fourth: float

    @classmethod
    def of_cumulants(cls, second: float, third: float, fourth: float) -> "CentralMoments":
        """Return the moments of a variable with these cumulants."""
        return cls(second, third, fourth + 3 * second * second)

    def scaled(self, factor: float) -> "CentralMoments":
        """Return the moments of factor times the variable."""
        square = factor * factor  # no power: that raises where a product is infinite
        return CentralMoments(
            square * self.second, square * factor * self.third, square * square * self.fourth
        )


class PairMoments(NamedTuple):
    """Exact divergences of a pair (q, p), and means and variances under x ~ q; nats.

    Attributes
    ----------
    kl, reverse_kl, jeffreys, chi_squared : float
        KL(q‖p), KL(p‖q), their sum J, and χ²(p‖q), which may be ``inf``.
    mean_k2 : float
        E_q k2; k1 and k3 have mean ``kl``.
    var_k1, var_k2, var_k3 : float
        Variances of one draw; ``var_k3`` is ``inf`` where χ² is.
    optimal_lambda : float
        λ* = J/χ²; 0 where χ² is infinite, and 1, its limit, where q = p.
    """

    kl: float
    reverse_kl: float
    jeffreys: float
    chi_squared: float
    mean_k2: float
    var_k1: float
    var_k2: float
    var_k3: float
    optimal_lambda: float


class Family(Protocol):
    """What `moments` needs of a family."""

    def kl(self, p: Self) -> float:
        """Return KL(self‖p)."""

    def chi_squared_from(self, p: Self) -> float:
        """Return χ²(p‖self), ``inf`` where it diverges."""

    def central_moments(self, p: Self) -> CentralMoments:
        """Return the central moments of log p(x) - log self(x) under x ~ self."""


F = TypeVar("F", bound=Family)


def moments(q: F, p: F) -> PairMoments:
    """Return the exact divergences of a pair and the moments of k1, k2, k3 under x ~ q.

    For the parameters as given ``kl``, ``reverse_kl`` and ``var_k1`` have a relative error below
    1e-14 however close or far the two laws are, and ``chi_squared`` one below
    1e-14 (1 + log(1 + χ²)). For `Categorical` the probabilities are taken as they are, and for
    `MultivariateNormal` the bounds are multiplied by the condition numbers of both covariances.
    ``var_k2`` and ``var_k3`` are small differences of larger terms: their absolute errors are below
    1e-14 (KL² + E(log r)⁴) and 1e-14 (1 + log(1 + χ²))(χ² + J + Var(log r)), a relative error of
    about 1e-14/KL near q = p. What is too large for a float is ``inf``.

    Raises
    ------
    TypeError, ValueError
        If the laws are not of one family and one size, or of `Categorical` one excludes a point
        that the other allows.

    Examples
    --------
    >>> m = moments(Normal(0.0, 1.0), Normal(1.0, 1.0))
    >>> m.kl, m.mean_k2, m.var_k1, m.var_k2
    (0.5, 0.625, 1.0, 0.75)
    >>> round(m.var_k3, 6), round(m.optimal_lambda, 6)
    (0.718282, 0.581977)
    """
    if type(q) is not type(p):
        raise TypeError(f"q is a {type(q).__name__} and p a {type(p).__name__}; give one family.")
    kl, reverse_kl = q.kl(p), p.kl(q)
    jeffreys = kl + reverse_kl
    chi_squared = q.chi_squared_from(p)
    second, third, fourth = q.central_moments(p)
    # log r = -kl + d with E d = 0, so (log r)² = kl² - 2 kl d + d².
    mean_square = kl * kl + second
    var_square = 4 * kl * (kl * second - third) + fourth - second * second
    return PairMoments(
        kl=kl,
        reverse_kl=reverse_kl,
        jeffreys=jeffreys,
        chi_squared=chi_squared,
        mean_k2=mean_square / 2,
        var_k1=second,
        var_k2=max(var_square, 0.0) / 4 if math.isfinite(var_square) else math.inf,
        var_k3=max(chi_squared + second - 2 * jeffreys, 0.0)
        if chi_squared < math.inf
        else math.inf,
        optimal_lambda=_optimal_lambda(jeffreys, chi_squared),
    )


def _optimal_lambda(jeffreys: float, chi_squared: float) -> float:
    if chi_squared == 0:
        return 1.0
    return jeffreys / chi_squared if chi_squared < math.inf else 0.0


class _Domain(NamedTuple):
    """What a parameter may be: between two numbers, excluding both."""

    low: float
    high: float
    words: str


_REAL = _Domain(-math.inf, math.inf, "a finite number")
_POSITIVE = _Domain(0.0, math.inf, "positive and finite")
_PROBABILITY = _Domain(0.0, 1.0, "strictly between 0 and 1")
# Powers of ratios of shapes are still floats.
_SHAPE = _Domain(1e-140, 1e140, "between 1e-140 and 1e140")


class _Univariate(ABC):
    """Checks of parameters, log-densities and draws of a law on the line, the latter by SciPy."""

    _domains: ClassVar[dict[str, _Domain]]

    def __post_init__(self) -> None:
        """Refuse parameters that give no law."""
        for name, domain in self._domains.items():
            value = getattr(self, name)
            if not isinstance(value, Real):
                raise TypeError(f"{name} is {value!r}; it must be a number, {domain.words}.")
            try:
                inside = domain.low < float(value) < domain.high
            except OverflowError:
                inside = False
            if not inside:
                raise ValueError(f"{name} is {value}; it must be {domain.words}.")

    @property
    @abstractmethod
    def _law(self) -> Any:
        """The same law as one of `scipy.stats`."""

    @property
    def _parameters(self) -> list[Fraction]:
        """The parameters, exactly: sums, products and quotients of them are then exact too."""
        return [Fraction(float(getattr(self, name))) for name in self._domains]

    def log_density(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return log-densities, or log-probabilities, at x; ``-inf`` off the support."""
        law = self._law
        log_density = law.logpdf if hasattr(law, "logpdf") else law.logpmf
        return np.asarray(log_density(np.asarray(x, dtype=float)))

    def sample(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """Return independent draws, by inversion: the same ones with every release of NumPy."""
        return np.asarray(self._law.ppf(rng.random(size)), dtype=float)


@dataclass(frozen=True)
class Normal(_Univariate):
    """Normal law with this mean and standard deviation.

    Raises
    ------
    TypeError, ValueError
        If a parameter is no number, or gives no law.

    Examples
    --------
    >>> Normal(0.0, 1.0).kl(Normal(1.0, 1.0))
    0.5
    """

    mean: float
    sd: float
    _domains = {"mean": _REAL, "sd": _POSITIVE}  # noqa: RUF012 - a ClassVar, as declared above

    @property
    def _law(self) -> Any:
        return stats.norm(self.mean, self.sd)

    def sample(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """Return independent draws, from the generator's own normal numbers."""
        return self.mean + self.sd * rng.standard_normal(size)

    def kl(self, p: "Normal") -> float:
        """Return KL(self‖p)."""
        return self._standardised(p).kl()

    def chi_squared_from(self, p: "Normal") -> float:
        """Return χ²(p‖self), finite iff p's variance is below twice this one's."""
        return _expm1(self._standardised(p).log_mean_square())

    def central_moments(self, p: "Normal") -> CentralMoments:
        """Return the central moments of log r = const + a z² + b z, z standard normal."""
        return CentralMoments.of_cumulants(*self._standardised(p).cumulants())

    def _standardised(self, p: "Normal") -> "_StandardPair":
        mean, sd = self._parameters
        p_mean, p_sd = p._parameters
        return _StandardPair((p_sd / sd) ** 2, (p_mean - mean) / sd)


class _StandardPair(NamedTuple):
    """The laws q = N(0, 1) and p = N(shift, variance)."""

    variance: Fraction
    shift: Fraction

    def kl(self) -> float:
        """Return KL(q‖p)."""
        return 0.5 * _gap(1 / self.variance) + _float(self.shift**2 / self.variance / 2)

    def log_mean_square(self) -> float:
        """Return log E_q[r²] = log(1 + χ²), ``inf`` where it diverges."""
        room = 2 - self.variance
        if room <= 0:
            return math.inf
        return _float(self.shift**2 / room) - 0.5 * _log(self.variance * room)

    def cumulants(self) -> tuple[float, float, float]:
        """Return the cumulants of log r = const + a z² + b z under q, of orders 2, 3 and 4."""
        a, b = _float((1 - 1 / self.variance) / 2), _float(self.shift / self.variance)
        second, third = 2 * a * a + b * b, 8 * a * a * a + 6 * a * b * b
        return second, third, 48 * a * a * (a * a + b * b)


@dataclass(frozen=True)
class Exponential(_Univariate):
    """Exponential law with this rate.

    Raises
    ------
    TypeError, ValueError
        If a parameter is no number, or gives no law.

    Examples
    --------
    >>> moments(Exponential(1.0), Exponential(0.5)).var_k3
    inf
    """

    rate: float
    _domains = {"rate": _POSITIVE}  # noqa: RUF012

    @property
    def _law(self) -> Any:
        return stats.expon(scale=1 / self.rate)

    def kl(self, p: "Exponential") -> float:
        """Return KL(self‖p)."""
        (rate,), (p_rate,) = self._parameters, p._parameters
        return _gap(p_rate / rate)

    def chi_squared_from(self, p: "Exponential") -> float:
        """Return χ²(p‖self), finite iff p's rate exceeds half of this one."""
        (rate,), (p_rate,) = self._parameters, p._parameters
        room = 2 * p_rate - rate
        return _float((p_rate - rate) ** 2 / (rate * room)) if room > 0 else math.inf

    def central_moments(self, p: "Exponential") -> CentralMoments:
        """Return the central moments of log r = const - (p.rate/rate - 1) e, e ~ Exp(1)."""
        (rate,), (p_rate,) = self._parameters, p._parameters
        return CentralMoments(1.0, 2.0, 9.0).scaled(_float(1 - p_rate / rate))


@dataclass(frozen=True)
class Poisson(_Univariate):
    """Poisson law with this mean.

    Raises
    ------
    TypeError, ValueError
        If a parameter is no number, or gives no law.

    Examples
    --------
    >>> round(Poisson(2.0).kl(Poisson(3.0)), 6)
    0.18907
    """

    mean: float
    _domains = {"mean": _POSITIVE}  # noqa: RUF012

    @property
    def _law(self) -> Any:
        return stats.poisson(self.mean)

    def kl(self, p: "Poisson") -> float:
        """Return KL(self‖p)."""
        (mean,), (p_mean,) = self._parameters, p._parameters
        return _gap(p_mean / mean, mean)

    def chi_squared_from(self, p: "Poisson") -> float:
        """Return χ²(p‖self)."""
        (mean,), (p_mean,) = self._parameters, p._parameters
        return _expm1(_float((p_mean - mean) ** 2 / mean))

    def central_moments(self, p: "Poisson") -> CentralMoments:
        """Return the central moments of log r = const + x log(p.mean/mean)."""
        (mean,), (p_mean,) = self._parameters, p._parameters
        factor = _log(p_mean / mean)
        second = self.mean * factor * factor  # every cumulant of x is the mean
        return CentralMoments.of_cumulants(second, second * factor, second * factor * factor)


@dataclass(frozen=True)
class Bernoulli(_Univariate):
    """Law of a coin that shows 1 with this probability, strictly between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        If a parameter is no number, or gives no law.

    Examples
    --------
    >>> m = moments(Bernoulli(0.5), Bernoulli(0.25))
    >>> math.isclose(m.jeffreys, 0.25 * math.log(3))
    True
    """

    probability: float
    _domains = {"probability": _PROBABILITY}  # noqa: RUF012

    @property
    def _law(self) -> Any:
        return stats.bernoulli(self.probability)

    def kl(self, p: "Bernoulli") -> float:
        """Return KL(self‖p)."""
        (a,), (b,) = self._parameters, p._parameters
        return _gap(b / a, a) + _gap((1 - b) / (1 - a), 1 - a)

    def chi_squared_from(self, p: "Bernoulli") -> float:
        """Return χ²(p‖self)."""
        (a,), (b,) = self._parameters, p._parameters
        return _float((b - a) ** 2 / (a * (1 - a)))

    def central_moments(self, p: "Bernoulli") -> CentralMoments:
        """Return the central moments of log r, which is affine in the coin."""
        (a,), (b,) = self._parameters, p._parameters
        spread = _float(a * (1 - a))
        unit = CentralMoments(spread, spread * _float(1 - 2 * a), spread * (1 - 3 * spread))
        return unit.scaled(_log(b / a) - _log((1 - b) / (1 - a)))


@dataclass(frozen=True)
class Geometric(_Univariate):
    """Law of the number of failures, 0, 1, 2, ..., before the first success.

    Raises
    ------
    TypeError, ValueError
        If a parameter is no number, or gives no law.

    Examples
    --------
    >>> round(Geometric(0.5).kl(Geometric(0.25)), 6)
    0.287682
    """

    probability: float
    _domains = {"probability": _PROBABILITY}  # noqa: RUF012

    @property
    def _law(self) -> Any:
        return stats.geom(self.probability, loc=-1)

    def kl(self, p: "Geometric") -> float:
        """Return KL(self‖p)."""
        (a,), (b,) = self._parameters, p._parameters
        return _gap(b / a) + _gap((1 - b) / (1 - a), (1 - a) / a)

    def chi_squared_from(self, p: "Geometric") -> float:
        """Return χ²(p‖self), finite iff (1 - p)² < 1 - self, of the two probabilities."""
        (a,), (b,) = self._parameters, p._parameters
        room = (1 - a) - (1 - b) ** 2
        return _float((b - a) ** 2 / (a * room)) if room > 0 else math.inf

    def central_moments(self, p: "Geometric") -> CentralMoments:
        """Return the central moments of log r, which is affine in the number of failures."""
        (a,), (b,) = self._parameters, p._parameters
        failure, square = _float(1 - a), _float(a * a)
        # In units of the mean's order of magnitude 1/a, so that nothing overflows for small a.
        unit = CentralMoments(failure, failure * _float(2 - a), failure * (9 * failure + square))
        return unit.scaled(_float(Fraction(_log((1 - b) / (1 - a))) / a))


@dataclass(frozen=True)
class Laplace(_Univariate):
    """Laplace law with density exp(-abs(x - mean)/scale)/(2 scale).

    Raises
    ------
    TypeError, ValueError
        If a parameter is no number, or gives no law.

    Examples
    --------
    >>> round(Laplace(0.0, 1.0).kl(Laplace(1.0, 1.0)), 6)
    0.367879
    """

    mean: float
    scale: float
    _domains = {"mean": _REAL, "scale": _POSITIVE}  # noqa: RUF012

    @property
    def _law(self) -> Any:
        return stats.laplace(self.mean, self.scale)

    def log_density(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return log-densities at x."""
        # SciPy takes the logarithm of the density, which is -inf beyond 745 scales.
        distance = np.abs(np.asarray(x, dtype=float) - self.mean)
        return np.asarray(-distance / self.scale - math.log(2 * self.scale))

    def kl(self, p: "Laplace") -> float:
        """Return KL(self‖p)."""
        ratio, distance = self._standardised(p)
        # With b this scale and D the distance: log(p.b/b) + b/p.b - 1, and b/p.b times
        # e^(-D/b) - 1 + D/b.
        return _gap(ratio) + _exp_gap(distance, ratio)

    def chi_squared_from(self, p: "Laplace") -> float:
        """Return χ²(p‖self), finite iff p's scale is below twice this one's."""
        ratio, distance = self._standardised(p)
        if 2 * ratio <= 1:
            return math.inf
        steep, z, s = _float(ratio), _float(distance), _float(ratio * distance)
        # E(r - 1)² left of both means, right of them, and between.
        spread = _float((1 - ratio) ** 2 / (2 * ratio - 1))
        apart = 2 * _sinh(z / 2)
        left = spread * math.exp(-2 * s) + math.expm1(-s) ** 2
        right = spread * (_expm1(z) + 1) + apart * apart
        if steep == math.inf:
            return math.inf
        if s < 1:
            nodes, weights = np.polynomial.legendre.leggauss(20)
            u = z * (1 + nodes) / 2
            r_less_1 = np.expm1(_log(ratio) + (1 + steep) * u - s)
            between = z / 2 * float(np.sum(weights * np.exp(-u) * r_less_1**2))
        else:  # the square multiplied out
            between = steep * steep / (1 + 2 * steep) * (_expm1(z) + 1 - math.exp(-2 * s))
            between += 2 * math.expm1(-s) - math.expm1(-z)
        return (left + right + between) / 2

    def central_moments(self, p: "Laplace") -> CentralMoments:
        """Return the central moments of log r, which is linear left, right and between the means.

        Beyond the means -log r or log r is exponential up to a shift; between them log r has
        incomplete gamma functions for moments.
        """
        ratio, distance = self._standardised(p)
        scale = max(_float(ratio), 1.0)  # taken out, so that no power overflows early
        if math.isinf(scale):
            return CentralMoments(math.inf, math.inf, math.inf)
        z = _float(distance)
        slope = _float(1 - ratio) / scale
        to_left = _float(ratio) * math.expm1(-z) / scale
        parts = [(0.5, _of_shifted_exponential(slope, to_left))]
        if z < 700:  # further away nothing is right of both
            to_right = (z + _exp_gap(distance, ratio)) / scale
            parts.append((math.exp(-z) / 2, _of_shifted_exponential(slope, to_right)))
        parts.append((0.5, _between(_float(1 + ratio) / scale, to_left - slope, z)))
        orders = zip(*(([weight * m for m in part]) for weight, part in parts), strict=True)
        return CentralMoments(*map(math.fsum, orders)).scaled(scale)

    def _standardised(self, p: "Laplace") -> tuple[Fraction, Fraction]:
        """Return this scale over p's, and the distance of the means over this scale."""
        mean, scale = self._parameters
        p_mean, p_scale = p._parameters
        return scale / p_scale, abs(p_mean - mean) / scale


def _of_shifted_exponential(slope: float, shift: float) -> list[float]:
    """Return E(slope (e - 1) + shift)ⁿ, e ~ Exp(1), for n = 2, 3, 4."""
    a, b = slope, shift
    fourth = 9 * a**4 + 8 * a**3 * b + 6 * a**2 * b**2 + b**4
    return [a**2 + b**2, 2 * a**3 + 3 * a**2 * b + b**3, fourth]


def _between(slope: float, shift: float, end: float) -> list[float]:
    """Return ∫ (slope u + shift)ⁿ e^{-u} du from 0 to the end, for n = 2, 3, 4."""
    powers = [math.factorial(k) * float(special.gammainc(k + 1, end)) for k in range(5)]
    return [
        math.fsum(math.comb(n, k) * slope**k * shift ** (n - k) * powers[k] for k in range(n + 1))
        for n in (2, 3, 4)
    ]


@dataclass(frozen=True)
class Gamma(_Univariate):
    """Gamma law with density proportional to x^(shape - 1) exp(-rate x).

    Raises
    ------
    TypeError, ValueError
        If a parameter is no number, or gives no law.

    Examples
    --------
    >>> math.isclose(Gamma(1.0, 1.0).kl(Gamma(1.0, 0.5)), Exponential(1.0).kl(Exponential(0.5)))
    True
    >>> round(Gamma(1e15, 1.0).kl(Gamma(1e15 + 1e6, 1.0)), 10)  # 3e16 less 3e16, written out
    0.0005
    """

    shape: float
    rate: float
    _domains = {"shape": _SHAPE, "rate": _POSITIVE}  # noqa: RUF012

    @property
    def _law(self) -> Any:
        return stats.gamma(self.shape, scale=1 / self.rate)

    def kl(self, p: "Gamma") -> float:
        """Return KL(self‖p)."""
        return _gamma_kl(self._parameters, p._parameters)

    def chi_squared_from(self, p: "Gamma") -> float:
        """Return χ²(p‖self), finite iff 2 p - self has positive shape and rate."""
        return _chi_squared(_gamma_kl, self._parameters, p._parameters)

    def central_moments(self, p: "Gamma") -> CentralMoments:
        """Return the central moments of log r = const + shapes log x - rates x."""
        (a, rate), (p_a, p_rate) = self._parameters, p._parameters
        shapes = p_a - a
        shape, e, d = float(a), _float(p_rate / rate - p_a / a), _float(shapes / a)
        # Cumulants of shapes (log x - x/a), then of what is left of the rates, with x of rate 1.
        second, third, fourth = _log_gamma.derivatives((a, shapes))
        square = shape * e * e
        return CentralMoments.of_cumulants(
            second + square,
            third - square * (3 * d + 2 * e),
            fourth + square * (12 * d * d + 16 * d * e + 6 * e * e),
        )


def _gamma_kl(q: Sequence[Fraction], p: Sequence[Fraction]) -> float:
    """Return KL(q‖p) of shapes and rates: of the means at p's shape, and of the shapes."""
    (a, rate), (p_a, p_rate) = q, p
    return _gap(a * p_rate / (rate * p_a), p_a) + _log_gamma.gap(a, p_a)


@dataclass(frozen=True)
class Beta(_Univariate):
    """Beta law on (0, 1) with density proportional to x^(a - 1) (1 - x)^(b - 1).

    Raises
    ------
    TypeError, ValueError
        If a parameter is no number, or gives no law.

    Examples
    --------
    >>> round(Beta(1.0, 1.0).kl(Beta(2.0, 1.0)), 6)  # 1 - log 2
    0.306853
    """

    a: float
    b: float
    _domains = {"a": _SHAPE, "b": _SHAPE}  # noqa: RUF012

    @property
    def _law(self) -> Any:
        return stats.beta(self.a, self.b)

    def kl(self, p: "Beta") -> float:
        """Return KL(self‖p)."""
        return _beta_kl(self._parameters, p._parameters)

    def chi_squared_from(self, p: "Beta") -> float:
        """Return χ²(p‖self), finite iff 2 p - self has positive parameters."""
        return _chi_squared(_beta_kl, self._parameters, p._parameters)

    def central_moments(self, p: "Beta") -> CentralMoments:
        """Return the central moments of log r, derivatives of the log-normaliser towards p."""
        (a, b), (p_a, p_b) = self._parameters, p._parameters
        second, third, fourth = _log_gamma.derivatives((a, p_a - a), (b, p_b - b))
        # What x log x - x adds is a matter of the relative steps: their mean and their difference.
        size, share = _float(a + b), _float(a / (a + b) * (b / (a + b)))
        mean = _float((p_a + p_b) / (a + b) - 1)
        apart, skew = _float(p_a / a - p_b / b), _float((b - a) / (a + b))
        square = size * share * apart * apart
        return CentralMoments.of_cumulants(
            second + square,
            third - square * (3 * mean + skew * apart),
            fourth
            + 2
            * square
            * (6 * mean * mean + 4 * mean * skew * apart + (1 - 3 * share) * apart * apart),
        )


def _beta_kl(q: Sequence[Fraction], p: Sequence[Fraction]) -> float:
    """Return KL(q‖p): of the means at p's size a + b, and of the rest."""
    (a, b), (p_a, p_b) = q, p
    mean, p_mean = a / (a + b), p_a / (p_a + p_b)
    means = _gap(mean / p_mean, p_a) + _gap((1 - mean) / (1 - p_mean), p_b)
    return means + _log_gamma.gap_of_two((a, b), (p_a, p_b))


def _chi_squared(kl: Any, q: Sequence[Fraction], p: Sequence[Fraction]) -> float:
    """Return χ²(p‖q) in a family with natural parameters, from its KL.

    The law with density proportional to p²/q has the parameters 2p - q, and log E_q[r²] is
    KL(p‖q) + KL(p‖that law): a sum of what is not negative.
    """
    beyond = [2 * new - old for old, new in zip(q, p, strict=True)]
    if min(beyond) <= 0:
        return math.inf
    return _expm1(kl(p, q) + kl(p, beyond))


@dataclass(frozen=True, eq=False)
class Categorical:
    """Law on 0, ..., n - 1 with these probabilities; zeros are allowed.

    Where one law excludes a point that the other allows, a divergence is infinite, and `moments`
    raises: k1, k2, k3 are then infinite or k3 no longer has the mean KL (``lem-mean-of-r``).

    Raises
    ------
    TypeError, ValueError
        If a parameter is no number, or gives no law.

    Examples
    --------
    >>> Categorical([0.5, 0.5]).kl(Categorical([1.0, 0.0]))
    inf
    >>> round(Categorical([0.5, 0.5]).kl(Categorical([0.25, 0.75])), 6)
    0.143841
    """

    probabilities: Any

    def __post_init__(self) -> None:
        """Refuse what is not a distribution."""
        law = as_table("probabilities", self.probabilities)
        if law.ndim != 1 or not (np.all(law >= 0) and np.isclose(law.sum(), 1, rtol=0, atol=1e-9)):
            raise ValueError(
                "probabilities must be a list of numbers that are nonnegative and sum to 1."
            )
        law.setflags(write=False)
        object.__setattr__(self, "probabilities", law)

    def log_density(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return log-probabilities of the points x, integers from 0 to n - 1."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.probabilities)[np.asarray(x, dtype=np.int64)])

    def sample(self, rng: np.random.Generator, size: int) -> NDArray[np.int64]:
        """Return independent draws, by inversion."""
        steps = np.cumsum(self.probabilities)
        drawn = np.searchsorted(steps, rng.random(size) * steps[-1], side="right")
        return np.asarray(np.minimum(drawn, int(np.flatnonzero(self.probabilities)[-1])))

    def kl(self, p: "Categorical") -> float:
        """Return KL(self‖p), ``inf`` if p excludes a point of this law."""
        q, other = self._both(p)
        if np.any(other[q > 0] == 0):
            return math.inf
        values = k3(self._log_ratio(p))
        outside = float(np.sum(other[q == 0]))  # k3 has the mean KL minus this mass
        return float(np.sum(q[q > 0] * values)) + outside

    def chi_squared_from(self, p: "Categorical") -> float:
        """Return χ²(p‖self), ``inf`` if this law excludes a point of p."""
        q, other = self._both(p)
        if np.any(other[q == 0] > 0):
            return math.inf
        inside = q > 0
        with np.errstate(over="ignore"):
            return float(np.sum((other[inside] - q[inside]) ** 2 / q[inside]))

    def central_moments(self, p: "Categorical") -> CentralMoments:
        """Return the central moments of log r.

        Raises
        ------
        ValueError
            If the two laws do not have the same support.
        """
        q, other = self._both(p)
        if np.any((q > 0) != (other > 0)):
            raise ValueError(
                "probabilities: the laws do not allow the same points, so log r has no moments; "
                "kl and chi_squared_from still have values."
            )
        weights, log_ratio = q[q > 0], self._log_ratio(p)
        centred = log_ratio - np.sum(weights * log_ratio) / np.sum(weights)
        return CentralMoments(*(float(np.sum(weights * centred**n)) for n in (2, 3, 4)))

    def _both(self, p: "Categorical") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self.probabilities.shape != p.probabilities.shape:
            raise ValueError(
                f"q has {self.probabilities.size} points and p {p.probabilities.size}; give "
                "equally many."
            )
        return self.probabilities, p.probabilities

    def _log_ratio(self, p: "Categorical") -> NDArray[np.float64]:
        """Return log r at the points of this law, accurate where the laws are close."""
        q, other = self._both(p)
        q, other = q[q > 0], other[q > 0]
        near = np.abs(other - q) < q / 2
        with np.errstate(divide="ignore", over="ignore"):
            quotient = np.where(near, 1.0, other / q)
            inside = (quotient > 0) & (quotient < math.inf)
            far = np.where(inside, np.log(quotient), np.log(other) - np.log(q))
        return np.where(near, np.log1p(np.where(near, (other - q) / q, 0.0)), far)


@dataclass(frozen=True, eq=False)
class MultivariateNormal:
    """Normal vector with this mean and covariance matrix.

    In suitable coordinates the components are independent under both laws of a pair, so that
    everything is a sum or product of one-dimensional pairs.

    Raises
    ------
    TypeError, ValueError
        If a parameter is no number, or gives no law.

    Examples
    --------
    >>> q = MultivariateNormal([0.0, 0.0], [[1.0, 0.5], [0.5, 1.0]])
    >>> round(q.kl(MultivariateNormal([1.0, 0.0], [[1.0, 0.5], [0.5, 1.0]])), 6)
    0.666667
    """

    mean: Any
    covariance: Any

    def __post_init__(self) -> None:
        """Refuse what is not a mean and a positive definite matrix."""
        mean, covariance = as_table("mean", self.mean), as_table("covariance", self.covariance)
        size = mean.size
        if mean.ndim != 1 or covariance.shape != (size, size) or not np.all(np.isfinite(mean)):
            raise ValueError(
                f"mean has shape {mean.shape} and covariance {covariance.shape}; give (d,) and "
                "(d, d), finite."
            )
        if not np.allclose(covariance, covariance.T):
            raise ValueError("covariance is not symmetric.")
        for name, value in (("mean", mean), ("covariance", covariance)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        try:
            self._factor  # noqa: B018 - computed here so that a bad matrix is refused here
        except np.linalg.LinAlgError:
            raise ValueError("covariance is not positive definite.") from None

    @cached_property
    def _factor(self) -> NDArray[np.float64]:
        return np.linalg.cholesky(self.covariance)

    def log_density(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return log-densities at points x of shape (..., d)."""
        law = stats.multivariate_normal(self.mean, stats.Covariance.from_cholesky(self._factor))
        return np.asarray(law.logpdf(np.asarray(x, dtype=float)))

    def sample(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """Return independent draws, shape (size, d)."""
        return np.asarray(self.mean + rng.standard_normal((size, self.mean.size)) @ self._factor.T)

    def kl(self, p: "MultivariateNormal") -> float:
        """Return KL(self‖p)."""
        return math.fsum(pair.kl() for pair in self._pairs(p))

    def chi_squared_from(self, p: "MultivariateNormal") -> float:
        """Return χ²(p‖self), finite iff twice this covariance exceeds p's."""
        return _expm1(sum(pair.log_mean_square() for pair in self._pairs(p)))

    def central_moments(self, p: "MultivariateNormal") -> CentralMoments:
        """Return the central moments of log r: cumulants of the components add up."""
        cumulants = [pair.cumulants() for pair in self._pairs(p)]
        return CentralMoments.of_cumulants(*map(math.fsum, zip(*cumulants, strict=True)))

    def _pairs(self, p: "MultivariateNormal") -> list[_StandardPair]:
        """Return the pairs of components in coordinates where both laws are products."""
        if self.mean.shape != p.mean.shape:
            raise ValueError(f"q has {self.mean.size} dimensions and p {p.mean.size}.")
        # The covariance of p, less 1, where this law is N(0, 1): of close laws all of it is left.
        half = np.linalg.solve(self._factor, p.covariance - self.covariance)
        excess, axes = np.linalg.eigh(np.linalg.solve(self._factor, half.T))
        if np.max(np.abs(excess)) < 0.5:
            variances = [1 + Fraction(float(e)) for e in excess]
        else:  # singular values are the more accurate, and positive
            axes, roots, _ = np.linalg.svd(np.linalg.solve(self._factor, p._factor))
            variances = [Fraction(float(root)) ** 2 for root in roots]
        shift = axes.T @ np.linalg.solve(self._factor, p.mean - self.mean)
        return [_StandardPair(v, Fraction(float(m))) for v, m in zip(variances, shift, strict=True)]


def _float(value: Fraction) -> float:
    """Return the nearest float, infinite where there is none."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _log(ratio: Fraction) -> float:
    """Return the logarithm, accurate where the ratio is near 1 and where it is no float."""
    if 0.5 < ratio < 2:
        return math.log1p(float(ratio - 1))
    value = _float(ratio)
    if 1e-300 < value < math.inf:
        return math.log(value)
    return math.log(ratio.numerator) - math.log(ratio.denominator)


def _gap(ratio: Fraction, weight: Fraction = Fraction(1)) -> float:
    """Return weight (ratio - 1 - log ratio), which is k3 where the ratio is r."""
    if 0.5 < ratio < 2:
        return float(weight) * float(k3(_log(ratio)))
    return _float(weight * (ratio - 1)) - _float(weight) * _log(ratio)


def _exp_gap(x: Fraction, weight: Fraction) -> float:
    """Return weight (e^{-x} - 1 + x) for x >= 0."""
    if x < 1:
        return _float(weight) * float(k3(-float(x)))
    return _float(weight * x) + _float(weight) * math.expm1(-_float(x))


def _expm1(exponent: float) -> float:
    """Return exp(exponent) - 1, ``inf`` on overflow."""
    try:
        return math.expm1(exponent)
    except OverflowError:
        return math.inf


def _sinh(x: float) -> float:
    """Return sinh x, ``inf`` on overflow."""
    try:
        return math.sinh(x)
    except OverflowError:
        return math.inf
