"""Closed forms for laws on finite sets and for normal vectors, for `klapprox.families.moments`."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from klapprox.estimators import k3
from klapprox.families import CentralMoments, Normal

__all__ = ["Categorical", "MultivariateNormal"]

Floats = NDArray[np.float64]


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

    def log_density(self, x: ArrayLike) -> Floats:
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

    def _both(self, p: "Categorical") -> tuple[Floats, Floats]:
        if self.probabilities.shape != p.probabilities.shape:
            raise ValueError(
                f"q has {self.probabilities.size} points and p {p.probabilities.size}; give "
                "equally many."
            )
        return self.probabilities, p.probabilities

    def _log_ratio(self, p: "Categorical") -> Floats:
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
    def _factor(self) -> Floats:
        return np.linalg.cholesky(self.covariance)

    def log_density(self, x: ArrayLike) -> Floats:
        """Return log-densities at points x of shape (..., d)."""
        z = np.linalg.solve(self._factor, (np.asarray(x, dtype=float) - self.mean)[..., None])
        log_det = float(np.sum(np.log(np.diag(self._factor))))
        constant = log_det + 0.5 * self.mean.size * math.log(2 * math.pi)
        return np.asarray(-0.5 * np.sum(z[..., 0] ** 2, axis=-1) - constant)

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
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
