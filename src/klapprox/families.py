"""Parametric families with closed forms for everything the estimators depend on.

``moments(q, p)`` returns the divergences of two members of one family and the exact means and
variances of k1, k2 and k3 under x ~ q. The divergences are stated in ``prop-closed-forms``, the
variances in ``thm-optimal-lambda`` (k3) and in the chapter on k2.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import integrate, special

from klapprox.estimators import k3

__all__ = [
    "Bernoulli",
    "Beta",
    "CentralMoments",
    "Exponential",
    "Gamma",
    "Geometric",
    "Laplace",
    "Normal",
    "PairMoments",
    "Poisson",
    "moments",
]


class CentralMoments(NamedTuple):
    """Central moments of log r under q, of orders 2, 3 and 4."""

    second: float
    third: float
    fourth: float

    @classmethod
    def of_cumulants(cls, second: float, third: float, fourth: float) -> "CentralMoments":
        """Return the moments of a variable with these cumulants."""
        return cls(second, third, fourth + 3 * second**2)

    def scaled(self, factor: float) -> "CentralMoments":
        """Return the moments of factor times the variable."""
        return CentralMoments(
            factor**2 * self.second, factor**3 * self.third, factor**4 * self.fourth
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

    The divergences are accurate however close the two laws are; ``var_k2`` and ``var_k3`` are small
    differences of larger terms and lose relative accuracy, about 1e-16/KL, near q = p.

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
    mean_square = kl**2 + second
    var_square = 4 * kl**2 * second - 4 * kl * third + fourth - second**2
    return PairMoments(
        kl=kl,
        reverse_kl=reverse_kl,
        jeffreys=jeffreys,
        chi_squared=chi_squared,
        mean_k2=mean_square / 2,
        var_k1=second,
        var_k2=var_square / 4,
        var_k3=chi_squared + second - 2 * jeffreys,
        optimal_lambda=1.0 if chi_squared == 0 else jeffreys / chi_squared,
    )


@dataclass(frozen=True)
class Normal:
    """Normal law with this mean and standard deviation.

    Examples
    --------
    >>> Normal(0.0, 1.0).kl(Normal(1.0, 1.0))
    0.5
    """

    mean: float
    sd: float

    def __post_init__(self) -> None:
        _refuse_unless(math.isfinite(self.mean), "mean", self.mean, "a finite number")
        _refuse_unless(0 < self.sd < math.inf, "sd", self.sd, "positive and finite")

    def log_density(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return log-densities at x."""
        z = (np.asarray(x, dtype=float) - self.mean) / self.sd
        return np.asarray(-0.5 * z * z - math.log(self.sd) - 0.5 * math.log(2 * math.pi))

    def sample(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """Return independent draws."""
        return self.mean + self.sd * rng.standard_normal(size)

    def kl(self, p: "Normal") -> float:
        """Return KL(self‖p)."""
        log_variance_ratio = -2 * _log_ratio(p.sd, self.sd)
        shift = (self.mean - p.mean) / p.sd
        return 0.5 * (float(k3(log_variance_ratio)) + shift**2)

    def chi_squared_from(self, p: "Normal") -> float:
        """Return χ²(p‖self), finite iff p's variance is below twice this one's."""
        room = 2 * self.sd**2 - p.sd**2
        if room <= 0:
            return math.inf
        log_factor = 2 * math.log(self.sd) - math.log(p.sd) - 0.5 * math.log(room)
        return _expm1(log_factor + (self.mean - p.mean) ** 2 / room)

    def central_moments(self, p: "Normal") -> CentralMoments:
        """Return the central moments of log r = const + a z² + b z, z standard normal."""
        a = (1 - (self.sd / p.sd) ** 2) / 2
        b = self.sd * (p.mean - self.mean) / p.sd**2
        second = 2 * a**2 + b**2
        third = 8 * a**3 + 6 * a * b**2
        return CentralMoments(second, third, 48 * a**2 * (a**2 + b**2) + 3 * second**2)


@dataclass(frozen=True)
class Exponential:
    """Exponential law with this rate.

    Examples
    --------
    >>> moments(Exponential(1.0), Exponential(0.5)).var_k3
    inf
    """

    rate: float

    def __post_init__(self) -> None:
        _refuse_unless(0 < self.rate < math.inf, "rate", self.rate, "positive and finite")

    def log_density(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return log-densities at x; ``-inf`` below 0."""
        x = np.asarray(x, dtype=float)
        return np.where(x >= 0, math.log(self.rate) - self.rate * x, -np.inf)

    def sample(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """Return independent draws, by inversion."""
        return np.asarray(-np.log1p(-rng.random(size)) / self.rate)

    def kl(self, p: "Exponential") -> float:
        """Return KL(self‖p)."""
        return float(k3(_log_ratio(p.rate, self.rate)))

    def chi_squared_from(self, p: "Exponential") -> float:
        """Return χ²(p‖self), finite iff p's rate exceeds half of this one."""
        room = 2 * p.rate - self.rate
        return (p.rate - self.rate) ** 2 / (self.rate * room) if room > 0 else math.inf

    def central_moments(self, p: "Exponential") -> CentralMoments:
        """Return the central moments of log r = const - (p.rate/rate - 1) e, e ~ Exp(1)."""
        return CentralMoments(1.0, 2.0, 9.0).scaled(1 - p.rate / self.rate)


@dataclass(frozen=True)
class Poisson:
    """Poisson law with this mean.

    Examples
    --------
    >>> round(Poisson(2.0).kl(Poisson(3.0)), 6)
    0.18907
    """

    mean: float

    def __post_init__(self) -> None:
        _refuse_unless(0 < self.mean < math.inf, "mean", self.mean, "positive and finite")

    def log_density(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return log-probabilities of the integers x; ``-inf`` elsewhere."""
        x = np.asarray(x, dtype=float)
        inside = (x >= 0) & (x == np.floor(x))
        n = np.where(inside, x, 0.0)
        value = n * math.log(self.mean) - self.mean - special.gammaln(n + 1)
        return np.where(inside, value, -np.inf)

    def sample(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """Return independent draws, by inversion."""
        u = rng.random(size)
        most = int(self.mean + 40 * math.sqrt(self.mean) + 80)
        steps = special.pdtr(np.arange(most), self.mean)  # P(X <= n)
        return np.searchsorted(steps, u, side="right").astype(float)

    def kl(self, p: "Poisson") -> float:
        """Return KL(self‖p)."""
        return self.mean * float(k3(_log_ratio(p.mean, self.mean)))

    def chi_squared_from(self, p: "Poisson") -> float:
        """Return χ²(p‖self)."""
        return _expm1((p.mean - self.mean) ** 2 / self.mean)

    def central_moments(self, p: "Poisson") -> CentralMoments:
        """Return the central moments of log r = const + x log(p.mean/mean)."""
        unit = CentralMoments(self.mean, self.mean, self.mean + 3 * self.mean**2)
        return unit.scaled(math.log(p.mean / self.mean))


@dataclass(frozen=True)
class Bernoulli:
    """Law of a coin that shows 1 with this probability, strictly between 0 and 1.

    Examples
    --------
    >>> m = moments(Bernoulli(0.5), Bernoulli(0.25))
    >>> math.isclose(m.jeffreys, 0.25 * math.log(3))
    True
    """

    probability: float

    def __post_init__(self) -> None:
        inside = 0 < self.probability < 1
        _refuse_unless(inside, "probability", self.probability, "strictly between 0 and 1")

    def log_density(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return log-probabilities of 0 and 1; ``-inf`` elsewhere."""
        x = np.asarray(x, dtype=float)
        other = np.where(x == 0, math.log1p(-self.probability), -np.inf)
        return np.where(x == 1, math.log(self.probability), other)

    def sample(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """Return independent draws."""
        return (rng.random(size) < self.probability).astype(float)

    def kl(self, p: "Bernoulli") -> float:
        """Return KL(self‖p)."""
        a, b = self.probability, p.probability
        return a * float(k3(_log_ratio(b, a))) + (1 - a) * float(k3(_log_ratio(1 - b, 1 - a)))

    def chi_squared_from(self, p: "Bernoulli") -> float:
        """Return χ²(p‖self)."""
        a, b = self.probability, p.probability
        return (b - a) ** 2 / (a * (1 - a))

    def central_moments(self, p: "Bernoulli") -> CentralMoments:
        """Return the central moments of log r, which is affine in the coin."""
        a, b = self.probability, p.probability
        spread = a * (1 - a)
        unit = CentralMoments(spread, spread * (1 - 2 * a), spread * (1 - 3 * spread))
        return unit.scaled(math.log(b) - math.log1p(-b) - math.log(a) + math.log1p(-a))


@dataclass(frozen=True)
class Geometric:
    """Law of the number of failures, 0, 1, 2, ..., before the first success.

    Examples
    --------
    >>> round(Geometric(0.5).kl(Geometric(0.25)), 6)
    0.287682
    """

    probability: float

    def __post_init__(self) -> None:
        inside = 0 < self.probability < 1
        _refuse_unless(inside, "probability", self.probability, "strictly between 0 and 1")

    def log_density(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return log-probabilities of the integers x; ``-inf`` elsewhere."""
        x = np.asarray(x, dtype=float)
        inside = (x >= 0) & (x == np.floor(x))
        value = math.log(self.probability) + np.where(inside, x, 0) * math.log1p(-self.probability)
        return np.where(inside, value, -np.inf)

    def sample(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """Return independent draws, by inversion."""
        return np.floor(np.log1p(-rng.random(size)) / math.log1p(-self.probability))

    def kl(self, p: "Geometric") -> float:
        """Return KL(self‖p)."""
        a, b = self.probability, p.probability
        failures = float(k3(_log_ratio(1 - b, 1 - a)))
        return float(k3(_log_ratio(b, a))) + (1 - a) / a * failures

    def chi_squared_from(self, p: "Geometric") -> float:
        """Return χ²(p‖self), finite iff (1 - p)² < 1 - self, of the two probabilities."""
        a, b = self.probability, p.probability
        room = (1 - a) - (1 - b) ** 2
        return (1 - a) * b**2 / (a * room) - 1 if room > 0 else math.inf

    def central_moments(self, p: "Geometric") -> CentralMoments:
        """Return the central moments of log r, which is affine in the number of failures."""
        a = self.probability
        second = (1 - a) / a**2
        unit = CentralMoments(second, second * (2 - a) / a, second**2 * 9 + second)
        return unit.scaled(math.log1p(-p.probability) - math.log1p(-a))


@dataclass(frozen=True)
class Laplace:
    """Laplace law with density exp(-abs(x - mean)/scale)/(2 scale).

    Examples
    --------
    >>> round(Laplace(0.0, 1.0).kl(Laplace(1.0, 1.0)), 6)
    0.367879
    """

    mean: float
    scale: float

    def __post_init__(self) -> None:
        _refuse_unless(math.isfinite(self.mean), "mean", self.mean, "a finite number")
        _refuse_unless(0 < self.scale < math.inf, "scale", self.scale, "positive and finite")

    def log_density(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return log-densities at x."""
        distance = np.abs(np.asarray(x, dtype=float) - self.mean)
        return np.asarray(-distance / self.scale - math.log(2 * self.scale))

    def sample(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """Return independent draws, by inversion."""
        u = rng.random(size) - 0.5
        return np.asarray(self.mean - self.scale * np.sign(u) * np.log1p(-2 * np.abs(u)))

    def kl(self, p: "Laplace") -> float:
        """Return KL(self‖p)."""
        distance = abs(self.mean - p.mean)
        # log(b2/b1) + b1/b2 - 1 is k3, and e^(-D/b1) - 1 + D/b1 too.
        return float(k3(_log_ratio(self.scale, p.scale))) + self.scale / p.scale * float(
            k3(-distance / self.scale)
        )

    def chi_squared_from(self, p: "Laplace") -> float:
        """Return χ²(p‖self), finite iff p's scale is below twice this one's."""
        if p.scale >= 2 * self.scale:
            return math.inf
        steep, slow, distance = 2 / p.scale, 1 / self.scale, abs(self.mean - p.mean)
        far, near = _expm1(slow * distance) + 1, math.exp(-steep * distance)
        pieces = (near + far) / (steep - slow) + (far - near) / (steep + slow)
        return self.scale / (2 * p.scale**2) * pieces - 1

    def central_moments(self, p: "Laplace") -> CentralMoments:
        """Return the central moments of log r, by quadrature between the two kinks."""
        kl, width = self.kl(p), 40 * self.scale
        edges = sorted({self.mean, p.mean})
        edges = [edges[0] - width, *edges, edges[-1] + width]

        def integrand(x: float, order: int) -> float:
            log_q, log_p = float(self.log_density(x)), float(p.log_density(x))
            return math.exp(log_q) * (log_p - log_q + kl) ** order

        return CentralMoments(
            *(
                math.fsum(
                    integrate.quad(integrand, a, b, args=(order,), epsabs=0, epsrel=1e-11)[0]
                    for a, b in itertools.pairwise(edges)
                )
                for order in (2, 3, 4)
            )
        )


@dataclass(frozen=True)
class Gamma:
    """Gamma law with density proportional to x^(shape - 1) exp(-rate x).

    Examples
    --------
    >>> Gamma(1.0, 1.0).kl(Gamma(1.0, 0.5)) == Exponential(1.0).kl(Exponential(0.5))
    True
    """

    shape: float
    rate: float

    def __post_init__(self) -> None:
        _refuse_unless(0 < self.shape < math.inf, "shape", self.shape, "positive and finite")
        _refuse_unless(0 < self.rate < math.inf, "rate", self.rate, "positive and finite")

    def log_density(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return log-densities at x; ``-inf`` outside of x > 0."""
        x = np.asarray(x, dtype=float)
        inside = np.where(x > 0, x, 1.0)
        value = (self.shape - 1) * np.log(inside) - self.rate * inside - self._log_normaliser()
        return np.where(x > 0, value, -np.inf)

    def sample(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """Return independent draws, by inversion."""
        return np.asarray(special.gammaincinv(self.shape, rng.random(size)) / self.rate)

    def _log_normaliser(self) -> float:
        return math.lgamma(self.shape) - self.shape * math.log(self.rate)

    def kl(self, p: "Gamma") -> float:
        """Return KL(self‖p)."""
        shapes = (self.shape - p.shape) * float(special.digamma(self.shape))
        shapes += math.lgamma(p.shape) - math.lgamma(self.shape)
        log_rates = _log_ratio(p.rate, self.rate)
        return shapes + (self.shape - p.shape) * log_rates + self.shape * float(k3(log_rates))

    def chi_squared_from(self, p: "Gamma") -> float:
        """Return χ²(p‖self), finite iff 2 p - self has positive shape and rate."""
        shape, rate = 2 * p.shape - self.shape, 2 * p.rate - self.rate
        if shape <= 0 or rate <= 0:
            return math.inf
        beyond = Gamma(shape, rate)
        return _expm1(beyond._log_normaliser() - 2 * p._log_normaliser() + self._log_normaliser())

    def central_moments(self, p: "Gamma") -> CentralMoments:
        """Return the central moments of log r, derivatives of the log-normaliser towards p."""
        shapes, rates = p.shape - self.shape, (p.rate - self.rate) / self.rate

        def cumulant(n: int) -> float:
            def log_rate(k: int) -> float:  # k-th derivative of log(rate + s (p.rate - rate))
                return (-1.0) ** (k - 1) * math.factorial(k - 1) * rates**k

            value = shapes**n * float(special.polygamma(n - 1, self.shape))
            return value - self.shape * log_rate(n) - n * shapes * log_rate(n - 1)

        return CentralMoments.of_cumulants(cumulant(2), cumulant(3), cumulant(4))


@dataclass(frozen=True)
class Beta:
    """Beta law on (0, 1) with density proportional to x^(a - 1) (1 - x)^(b - 1).

    Examples
    --------
    >>> round(Beta(1.0, 1.0).kl(Beta(2.0, 1.0)), 6)  # 1 - log 2
    0.306853
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        _refuse_unless(0 < self.a < math.inf, "a", self.a, "positive and finite")
        _refuse_unless(0 < self.b < math.inf, "b", self.b, "positive and finite")

    def log_density(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return log-densities at x; ``-inf`` outside of 0 < x < 1."""
        x = np.asarray(x, dtype=float)
        inside = (x > 0) & (x < 1)
        y = np.where(inside, x, 0.5)
        value = (self.a - 1) * np.log(y) + (self.b - 1) * np.log1p(-y)
        return np.where(inside, value - special.betaln(self.a, self.b), -np.inf)

    def sample(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """Return independent draws, by inversion."""
        return np.asarray(special.betaincinv(self.a, self.b, rng.random(size)))

    def kl(self, p: "Beta") -> float:
        """Return KL(self‖p)."""
        da, db = p.a - self.a, p.b - self.b
        slope = da * special.digamma(self.a) + db * special.digamma(self.b)
        slope -= (da + db) * special.digamma(self.a + self.b)
        return float(special.betaln(p.a, p.b) - special.betaln(self.a, self.b) - slope)

    def chi_squared_from(self, p: "Beta") -> float:
        """Return χ²(p‖self), finite iff 2 p - self has positive parameters."""
        a, b = 2 * p.a - self.a, 2 * p.b - self.b
        if a <= 0 or b <= 0:
            return math.inf
        exponent = special.betaln(a, b) - 2 * special.betaln(p.a, p.b)
        return _expm1(float(exponent + special.betaln(self.a, self.b)))

    def central_moments(self, p: "Beta") -> CentralMoments:
        """Return the central moments of log r, derivatives of the log-normaliser towards p."""
        da, db = p.a - self.a, p.b - self.b

        def cumulant(n: int) -> float:
            steps = ((da, self.a, 1), (db, self.b, 1), (da + db, self.a + self.b, -1))
            return sum(sign * d**n * float(special.polygamma(n - 1, c)) for d, c, sign in steps)

        return CentralMoments.of_cumulants(cumulant(2), cumulant(3), cumulant(4))


def _log_ratio(numerator: float, denominator: float) -> float:
    """Return the logarithm of a quotient, accurate when it is near 1."""
    if 0.5 < numerator / denominator < 2:
        return math.log1p((numerator - denominator) / denominator)
    return math.log(numerator) - math.log(denominator)


def _expm1(exponent: float) -> float:
    """Return exp(exponent) - 1, ``inf`` on overflow."""
    try:
        return math.expm1(exponent)
    except OverflowError:
        return math.inf


def _refuse_unless(condition: bool, name: str, value: Any, wanted: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {value}; it must be {wanted}.")
