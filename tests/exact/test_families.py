"""The closed forms agree with quadrature and sums over densities, and those with formulas.

`CASES` is the one table: a new family is one entry in it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest
from scipy import integrate

import klapprox as kl
from klapprox.exact.families import (
    Bernoulli,
    Beta,
    Exponential,
    Gamma,
    Geometric,
    Laplace,
    Normal,
    Poisson,
    moments,
)

NOT_POSITIVE = (0.0, -1.0, math.inf, math.nan)
NOT_FINITE = (math.inf, -math.inf, math.nan)


class Case(NamedTuple):
    """What the tests need to know of a family."""

    log_density: Callable[[Any, Any], Any]  # of a law and a point of its support, in mpmath
    support: Callable[[Any], Any]  # of a law: edges and kinks for quadrature, or how many counts
    pairs: list[tuple[Any, Any]]
    refused: dict[str, tuple[float, ...]]  # values that each parameter must not have
    infinite: tuple[tuple[Any, Any], ...] = ()  # pairs with χ²(p‖q) = ∞
    nearby: Callable[[float], tuple[Any, Any]] | None = None  # Fisher information 1 in d


CASES = {
    Normal: Case(
        lambda q, x: (
            -(((x - q.mean) / q.sd) ** 2) / 2 - mpmath.log(q.sd * mpmath.sqrt(2 * mpmath.pi))
        ),
        lambda q: (-40.0, q.mean, 40.0),
        [
            (Normal(0.0, 1.0), Normal(1.0, 1.0)),
            (Normal(0.5, 1.0), Normal(0.0, 1.2)),
            (Normal(-1.0, 2.0), Normal(0.5, 0.7)),
        ],
        {"mean": NOT_FINITE, "sd": NOT_POSITIVE},
        (
            (Normal(0.0, 1.0), Normal(0.0, math.sqrt(2))),
            (Normal(0.0, 1.0), Normal(0.3, 2.0)),
        ),
        lambda d: (Normal(0.0, 1.0), Normal(d, 1.0)),
    ),
    Exponential: Case(
        lambda q, x: mpmath.log(q.rate) - q.rate * x,
        lambda q: (0.0, 1 / q.rate, 120 / q.rate),
        [
            (Exponential(1.0), Exponential(0.75)),
            (Exponential(0.5), Exponential(2.0)),
        ],
        {"rate": NOT_POSITIVE},
        (
            (Exponential(1.0), Exponential(0.5)),
            (Exponential(1.0), Exponential(0.2)),
        ),
        lambda d: (Exponential(1.0), Exponential(math.exp(d))),
    ),
    Poisson: Case(
        lambda q, x: x * mpmath.log(q.mean) - q.mean - mpmath.loggamma(x + 1),
        lambda q: 200,
        [(Poisson(2.0), Poisson(3.0)), (Poisson(4.0), Poisson(0.5)), (Poisson(0.1), Poisson(0.2))],
        {"mean": NOT_POSITIVE},
        nearby=lambda d: (Poisson(1.0), Poisson(math.exp(d))),
    ),
    Bernoulli: Case(
        lambda q, x: mpmath.log(q.probability if x else 1 - mpmath.mpf(q.probability)),
        lambda q: 2,
        [(Bernoulli(0.5), Bernoulli(0.25)), (Bernoulli(0.9), Bernoulli(0.05))],
        {"probability": (*NOT_POSITIVE, 1.0)},
        nearby=lambda d: (Bernoulli(0.5), Bernoulli(1 / (1 + math.exp(-2 * d)))),
    ),
    Geometric: Case(
        lambda q, x: mpmath.log(q.probability) + x * mpmath.log1p(-q.probability),
        lambda q: 1500,
        [(Geometric(0.5), Geometric(0.4)), (Geometric(0.3), Geometric(0.6))],
        {"probability": (*NOT_POSITIVE, 1.0)},
        ((Geometric(0.5), Geometric(1 - math.sqrt(0.5))),),
    ),
    Laplace: Case(
        lambda q, x: -abs(x - q.mean) / q.scale - mpmath.log(2 * mpmath.mpf(q.scale)),
        lambda q: (-60.0, -0.5, 0.0, 0.7, 1.0, 60.0),
        [
            (Laplace(0.0, 1.0), Laplace(0.7, 1.2)),
            (Laplace(1.0, 0.5), Laplace(-0.5, 0.4)),
        ],
        {"mean": NOT_FINITE, "scale": NOT_POSITIVE},
        ((Laplace(0.0, 1.0), Laplace(0.5, 2.0)),),
    ),
    Gamma: Case(
        lambda q, x: (
            (q.shape - 1) * mpmath.log(x)
            - q.rate * x
            + q.shape * mpmath.log(q.rate)
            - mpmath.loggamma(q.shape)
        ),
        lambda q: (0.0, q.shape / q.rate, 120 / q.rate),
        [(Gamma(2.0, 1.0), Gamma(3.0, 1.5)), (Gamma(3.5, 2.0), Gamma(2.5, 1.2))],
        {"shape": NOT_POSITIVE, "rate": NOT_POSITIVE},
        (
            (Gamma(2.0, 1.0), Gamma(2.0, 0.5)),
            (Gamma(2.0, 1.0), Gamma(1.0, 1.0)),
        ),
    ),
    Beta: Case(
        lambda q, x: (
            (q.a - 1) * mpmath.log(x)
            + (q.b - 1) * mpmath.log1p(-x)
            - mpmath.log(mpmath.beta(q.a, q.b))
        ),
        lambda q: (0.0, 0.05, q.a / (q.a + q.b), 0.95, 1.0),
        [(Beta(2.0, 3.0), Beta(3.0, 2.5)), (Beta(3.0, 3.0), Beta(2.0, 2.0))],
        {"a": NOT_POSITIVE, "b": NOT_POSITIVE},
        (
            (Beta(2.0, 2.0), Beta(1.0, 3.0)),
            (Beta(2.0, 2.0), Beta(3.0, 1.0)),
        ),
    ),
}
PAIRS = [pair for case in CASES.values() for pair in case.pairs]
LAWS = [law for pair in PAIRS for law in pair]

of_pairs = pytest.mark.parametrize(("q", "p"), PAIRS, ids=str)
of_laws = pytest.mark.parametrize("law", LAWS, ids=str)


def mean(law, function):
    """Return E function(x) under the law, by quadrature or summation."""
    support = CASES[type(law)].support(law)
    if isinstance(support, int):
        x = np.arange(support)  # the rest is below 1e-100
        return math.fsum(np.exp(law.log_density(x)) * function(x))

    def integrand(x):
        weight = np.exp(law.log_density(x))
        inside = (weight > 0) & (weight < np.inf)  # nodes may round to the ends of the support
        values = np.zeros_like(x)
        values[inside] = weight[inside] * function(x[inside])
        return values

    edges = sorted(set(support))
    parts = integrate.tanhsinh(integrand, np.array(edges[:-1]), np.array(edges[1:]), rtol=1e-11)
    return math.fsum(parts.integral)


def points_and_strangers(law):
    """Return points of the support of a law, and points outside of it."""
    support = CASES[type(law)].support(law)
    if isinstance(support, int):
        strangers = [-1.0, 0.5] if support > 2 else [-1.0, 0.5, 2.0]
        return [0.0, 1.0, *([] if support == 2 else [2.0, 7.0, 40.0])], strangers
    low, high = support[0], support[-1]
    inside = [low + (high - low) * share for share in (1e-9, 0.01, 0.3, 0.51, 0.9)]
    bounded = {Beta: [-0.5, 1.5], Exponential: [-0.5], Gamma: [-0.5]}
    return inside, bounded.get(type(law), [])


@of_laws
def test_log_density_is_the_formula_and_minus_infinity_elsewhere(law):
    inside, outside = points_and_strangers(law)
    with mpmath.workdps(40):
        wanted = [float(CASES[type(law)].log_density(law, mpmath.mpf(x))) for x in inside]
    np.testing.assert_allclose(law.log_density(inside), wanted, rtol=1e-12)
    assert np.all(law.log_density(outside) == -math.inf)


@of_laws
def test_probabilities_sum_to_1(law):
    assert mean(law, lambda x: 1.0 + 0.0 * x) == pytest.approx(1, abs=1e-9)


def test_laplace_densities_do_not_underflow():
    assert Laplace(1.0, 2.0).log_density([1e4]) == pytest.approx(-4999.5 - math.log(4))


@of_pairs
def test_moments_agree_with_quadrature_and_sums(q, p):
    def log_r(x):
        return p.log_density(x) - q.log_density(x)

    def variance(estimator):
        centre = mean(q, lambda x: estimator(log_r(x)))
        return mean(q, lambda x: (estimator(log_r(x)) - centre) ** 2)

    kl_qp = mean(q, lambda x: -log_r(x))
    kl_pq = mean(p, log_r)
    chi_squared = mean(q, lambda x: np.expm1(log_r(x)) ** 2)
    expected = (
        kl_qp,
        kl_pq,
        kl_qp + kl_pq,
        chi_squared,
        mean(q, lambda x: kl.k2(log_r(x))),
        variance(kl.k1),
        variance(kl.k2),
        variance(kl.k3),
        (kl_qp + kl_pq) / chi_squared,
    )
    assert moments(q, p) == pytest.approx(expected, rel=1e-8)


@of_pairs
def test_optimal_lambda_beats_its_neighbours(q, p):
    exact = moments(q, p)

    def variance(lam):
        value = mean(q, lambda x: kl.k_lambda(p.log_density(x) - q.log_density(x), lam) ** 2)
        return value - exact.kl**2

    best = variance(exact.optimal_lambda)
    # The variance is a parabola in λ with leading coefficient χ².
    for step in (-0.5, 0.5):
        neighbour = variance(exact.optimal_lambda + step)
        assert neighbour - best == pytest.approx(step**2 * exact.chi_squared, rel=1e-6)


@pytest.mark.parametrize(
    "law", [Normal(1.0, 2.0), Exponential(0.3), Poisson(2.5), Bernoulli(0.7)], ids=str
)
def test_equal_laws_do_not_diverge_and_lambda_is_its_limit_1(law):
    assert moments(law, type(law)(*vars(law).values())) == (0, 0, 0, 0, 0, 0, 0, 0, 1)


@of_laws
def test_equal_laws_diverge_by_rounding_at_most(law):
    value = moments(law, type(law)(*vars(law).values()))
    assert value[:-1] == pytest.approx([0] * 8, abs=1e-13)


@pytest.mark.parametrize(
    ("q", "p"), [pair for case in CASES.values() for pair in case.infinite], ids=str
)
def test_chi_squared_is_infinite_from_the_boundary_on(q, p):
    value = moments(q, p)
    assert value.chi_squared == value.var_k3 == math.inf
    assert value.optimal_lambda == 0
    assert math.isfinite(value.jeffreys + value.var_k1 + value.var_k2)
    # The reason: p²/q falls off no faster than one over the distance to an end of the support.
    far = np.array([10.0, 100.0])  # to the right; then to 0, and to 1, as far as the support goes
    near = np.array([1e-3, 1e-6])
    growth = []
    for x, distance in ((far, far), (near, near), (1 - near, near)):
        with np.errstate(invalid="ignore"):
            log_integrand = 2 * p.log_density(x) - q.log_density(x) + np.log(distance)
        growth.append(log_integrand[1] - log_integrand[0])
    assert np.nanmax(growth) >= -1e-2


@pytest.mark.parametrize(
    ("q", "p"),
    [
        (Normal(0.0, 1.0), Normal(0.0, math.nextafter(math.sqrt(2), 0))),
        (Exponential(1.0), Exponential(math.nextafter(0.5, 1))),
    ],
    ids=str,
)
def test_chi_squared_is_finite_just_before_the_boundary(q, p):
    assert 1e6 < moments(q, p).chi_squared < math.inf


@pytest.mark.parametrize(
    ("q", "p"),
    [(Poisson(1e-3), Poisson(10.0)), (Normal(0.0, 1.0), Normal(40.0, 1.0))],
    ids=str,
)
def test_chi_squared_beyond_the_floats_is_infinite(q, p):
    value = moments(q, p)  # χ² is exp(99980) or exp(1600), finite but no float
    assert value.chi_squared == value.var_k3 == math.inf
    assert math.isfinite(value.kl)


@pytest.mark.parametrize(
    "make",
    [
        lambda d: (Normal(0.0, 1.0), Normal(0.0, math.exp(d / math.sqrt(2)))),
        *(case.nearby for case in CASES.values() if case.nearby),
    ],
)
def test_nearby_laws_share_the_fisher_limits(make):
    # Each family is scaled to Fisher information 1 in d: KL ≈ d²/2, χ² ≈ V1 ≈ J ≈ d².
    d = 1e-3
    value = moments(*make(d))
    assert [2 * value.kl, 2 * value.reverse_kl, value.jeffreys] == pytest.approx(
        [d**2] * 3, rel=0.01
    )
    assert [value.chi_squared, value.var_k1, 2 * value.mean_k2] == pytest.approx(
        [d**2] * 3, rel=0.01
    )
    assert value.optimal_lambda == pytest.approx(1, rel=0.01)


def test_two_families_do_not_mix():
    with pytest.raises(TypeError, match=r"^q is a Normal and p a Poisson; give one family"):
        moments(Normal(1.0, 1.0), Poisson(1.0))


@pytest.mark.parametrize(
    ("family", "name", "value"),
    [
        (family, name, value)
        for family, case in CASES.items()
        for name, values in case.refused.items()
        for value in values
    ],
)
def test_an_invalid_parameter_is_refused_by_name(family, name, value):
    good = vars(CASES[family].pairs[0][0])
    with pytest.raises(ValueError, match=f"^{name} is {value}; it must be"):
        family(**(good | {name: value}))


def test_log_density_takes_numbers_lists_and_arrays():
    for law in (Normal(0.0, 1.0), Exponential(1.0)):
        assert law.log_density(1.0).shape == ()
        assert law.log_density([1, 2]).shape == (2,)
        assert law.log_density(np.ones((2, 3))).shape == (2, 3)


@of_laws
def test_samples_have_the_mean_and_the_spread_of_the_law(law):
    size = 20_000
    x = law.sample(np.random.Generator(np.random.PCG64(7)), size)
    assert x.shape == (size,)
    assert np.all(np.isfinite(law.log_density(x)))
    centre = mean(law, lambda x: x)
    spread = mean(law, lambda x: (x - centre) ** 2)
    for value, wanted in ((x, centre), ((x - centre) ** 2, spread)):
        assert abs(value.mean() - wanted) <= 5 * value.std() / math.sqrt(size)


@pytest.mark.parametrize(
    ("q", "p"),
    [(Normal(0.0, 1.0), Normal(0.5, 1.1)), (Exponential(1.0), Exponential(1.5))],
    ids=str,
)
def test_sampled_estimators_have_the_exact_means(q, p):
    size = 20_000
    x = q.sample(np.random.Generator(np.random.PCG64(11)), size)
    log_r = kl.log_ratio(q.log_density(x), p.log_density(x))
    exact = moments(q, p)
    for estimator, centre, variance in (
        (kl.k1, exact.kl, exact.var_k1),
        (kl.k2, exact.mean_k2, exact.var_k2),
        (kl.k3, exact.kl, exact.var_k3),
        (kl.k3_forward, exact.reverse_kl, None),
    ):
        value = estimator(log_r)
        spread = value.std() if variance is None else math.sqrt(variance)
        assert abs(value.mean() - centre) < 5 * spread / math.sqrt(size)


@pytest.mark.parametrize(
    ("law", "points"),
    [
        (Exponential(2.0), [-0.1, -3.0]),
        (Gamma(2.0, 1.0), [-0.1, -3.0]),
        (Beta(2.0, 3.0), [-0.1, 1.1, 7.0]),
        (Beta(0.5, 0.5), [-0.1, 1.1]),
        (Poisson(2.0), [-1.0, 0.5]),
        (Geometric(0.5), [-1.0, 0.5]),
        (Bernoulli(0.5), [-1.0, 0.5, 2.0]),
    ],
    ids=str,
)
def test_off_the_support_the_log_density_is_minus_infinity(law, points):
    assert law.log_density(points).tolist() == [-math.inf] * len(points)
