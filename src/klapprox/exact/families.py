"""Parametric families with closed forms for everything the estimators depend on.

``moments(q, p)`` returns the divergences of two members of one family and the exact means and
variances of k1, k2 and k3 under x ~ q. The divergences are stated in ``prop-closed-forms``, the
variances in ``thm-optimal-lambda`` (k3) and in the chapter on k2.
"""

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import integrate, special, stats

from klapprox.estimators import k3

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


class _Univariate(ABC):
    """Log-densities and draws of a law on the line, from SciPy's distribution of that name."""

    @property
    @abstractmethod
    def _law(self) -> Any:
        """The same law as one of `scipy.stats`."""

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

    @property
    def _law(self) -> Any:
        return stats.norm(self.mean, self.sd)

    def sample(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """Return independent draws, from the generator's own normal numbers."""
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
class Exponential(_Univariate):
    """Exponential law with this rate.

    Examples
    --------
    >>> moments(Exponential(1.0), Exponential(0.5)).var_k3
    inf
    """

    rate: float

    def __post_init__(self) -> None:
        _refuse_unless(0 < self.rate < math.inf, "rate", self.rate, "positive and finite")

    @property
    def _law(self) -> Any:
        return stats.expon(scale=1 / self.rate)

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
class Poisson(_Univariate):
    """Poisson law with this mean.

    Examples
    --------
    >>> round(Poisson(2.0).kl(Poisson(3.0)), 6)
    0.18907
    """

    mean: float

    def __post_init__(self) -> None:
        _refuse_unless(0 < self.mean < math.inf, "mean", self.mean, "positive and finite")

    @property
    def _law(self) -> Any:
        return stats.poisson(self.mean)

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
class Bernoulli(_Univariate):
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

    @property
    def _law(self) -> Any:
        return stats.bernoulli(self.probability)

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
class Geometric(_Univariate):
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

    @property
    def _law(self) -> Any:
        return stats.geom(self.probability, loc=-1)

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
class Laplace(_Univariate):
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
class Gamma(_Univariate):
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

    @property
    def _law(self) -> Any:
        return stats.gamma(self.shape, scale=1 / self.rate)

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
class Beta(_Univariate):
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

    @property
    def _law(self) -> Any:
        return stats.beta(self.a, self.b)

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


@dataclass(frozen=True, eq=False)
class Categorical:
    """Law on 0, ..., n - 1 with these probabilities; zeros are allowed.

    Where one law excludes a point that the other allows, a divergence is infinite, and `moments`
    raises: k1, k2, k3 are then infinite or k3 no longer has the mean KL (``lem-mean-of-r``).

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
        law = np.array(self.probabilities, dtype=float)
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
        centred = self._log_ratio(p) + self.kl(p)
        weights = q[q > 0]
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
        with np.errstate(divide="ignore"):
            far = np.log(np.where(near, 1.0, other)) - np.log(q)
        return np.where(near, np.log1p(np.where(near, (other - q) / q, 0.0)), far)


@dataclass(frozen=True, eq=False)
class MultivariateNormal:
    """Normal vector with this mean and covariance matrix.

    In suitable coordinates the components are independent under both laws of a pair, so that
    everything is a sum or product of one-dimensional pairs.

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
        mean, covariance = np.array(self.mean, dtype=float), np.array(self.covariance, dtype=float)
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
        return math.fsum(a.kl(b) for a, b in self._pairs(p))

    def chi_squared_from(self, p: "MultivariateNormal") -> float:
        """Return χ²(p‖self), finite iff twice this covariance exceeds p's."""
        values = [a.chi_squared_from(b) for a, b in self._pairs(p)]
        total = math.fsum(math.log1p(value) for value in values)
        return math.expm1(total) if total < 700 else math.inf

    def central_moments(self, p: "MultivariateNormal") -> CentralMoments:
        """Return the central moments of log r: cumulants of the components add up."""
        parts = [a.central_moments(b) for a, b in self._pairs(p)]
        return CentralMoments.of_cumulants(
            math.fsum(part.second for part in parts),
            math.fsum(part.third for part in parts),
            math.fsum(part.fourth - 3 * part.second**2 for part in parts),
        )

    def _pairs(self, p: "MultivariateNormal") -> list[tuple[Normal, Normal]]:
        """Return the pairs of components in coordinates where both laws are products."""
        if self.mean.shape != p.mean.shape:
            raise ValueError(f"q has {self.mean.size} dimensions and p {p.mean.size}.")
        half = np.linalg.solve(self._factor, p._factor)
        variances, axes = np.linalg.eigh(half @ half.T)  # of p where this law is N(0, 1)
        shift = axes.T @ np.linalg.solve(self._factor, p.mean - self.mean)
        return [
            (Normal(0.0, 1.0), Normal(float(m), math.sqrt(v)))
            for m, v in zip(shift, variances, strict=True)
        ]


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
