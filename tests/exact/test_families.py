"""The closed forms agree with quadrature and sums over densities that SciPy computes."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

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

TO_SCIPY = {
    Normal: lambda law: stats.norm(law.mean, law.sd),
    Exponential: lambda law: stats.expon(scale=1 / law.rate),
    Poisson: lambda law: stats.poisson(law.mean),
    Bernoulli: lambda law: stats.bernoulli(law.probability),
    Geometric: lambda law: stats.geom(law.probability, loc=-1),
    Laplace: lambda law: stats.laplace(law.mean, law.scale),
    Gamma: lambda law: stats.gamma(law.shape, scale=1 / law.rate),
    Beta: lambda law: stats.beta(law.a, law.b),
}
DISCRETE = Poisson | Bernoulli | Geometric
PAIRS = [
    (Normal(0.0, 1.0), Normal(1.0, 1.0)),
    (Normal(0.5, 1.0), Normal(0.0, 1.2)),
    (Normal(-1.0, 2.0), Normal(0.5, 0.7)),
    (Exponential(1.0), Exponential(0.75)),
    (Exponential(0.5), Exponential(2.0)),
    (Poisson(2.0), Poisson(3.0)),
    (Poisson(4.0), Poisson(0.5)),
    (Bernoulli(0.5), Bernoulli(0.25)),
    (Bernoulli(0.9), Bernoulli(0.05)),
    (Geometric(0.5), Geometric(0.4)),
    (Geometric(0.3), Geometric(0.6)),
    (Laplace(0.0, 1.0), Laplace(0.7, 1.2)),
    (Laplace(1.0, 0.5), Laplace(-0.5, 0.4)),
    (Gamma(2.0, 1.0), Gamma(3.0, 1.5)),
    (Gamma(3.5, 2.0), Gamma(2.5, 1.2)),
    (Beta(2.0, 3.0), Beta(3.0, 2.5)),
    (Beta(3.0, 3.0), Beta(2.0, 2.0)),
]
EQUAL = [Normal(1.0, 2.0), Exponential(0.3), Poisson(2.5), Bernoulli(0.7)]
INFINITE = [
    (Normal(0.0, 1.0), Normal(0.0, math.sqrt(2))),
    (Normal(0.0, 1.0), Normal(0.3, 2.0)),
    (Exponential(1.0), Exponential(0.5)),
    (Exponential(1.0), Exponential(0.2)),
    (Laplace(0.0, 1.0), Laplace(0.5, 2.0)),
    (Gamma(2.0, 1.0), Gamma(2.0, 0.5)),
]
CONTINUOUS = [
    Normal(0.0, 1.0),
    Normal(-2.0, 0.5),
    Exponential(0.4),
    Exponential(3.0),
    Laplace(0.5, 2.0),
    Gamma(2.5, 0.7),
    Beta(2.0, 3.5),
]
COUNTS = [Poisson(2.5), Poisson(0.1), Bernoulli(0.3), Geometric(0.2)]

of_pairs = pytest.mark.parametrize(("q", "p"), PAIRS, ids=str)


def mean(law, function):
    """Return E function(x) under the law, by quadrature or summation."""
    scipy_law = TO_SCIPY[type(law)](law)
    if isinstance(law, DISCRETE):
        size = {Bernoulli: 2, Poisson: 200, Geometric: 1500}[type(law)]
        x = np.arange(size)  # the rest is below 1e-100
        return math.fsum(scipy_law.pmf(x) * function(x))
    edges = {
        Normal: lambda: (-40.0, 40.0),
        Laplace: lambda: (-60.0, -0.5, 0.0, 0.7, 1.0, 60.0),
        Beta: lambda: (0.0, 0.05, 0.95, 1.0),
    }.get(type(law), lambda: (0.0, 120 / law.rate))()
    edges = sorted({*edges, scipy_law.mean()})
    return math.fsum(
        integrate.quad(
            lambda x: scipy_law.pdf(x) * function(x), a, b, epsabs=0, epsrel=1e-11, limit=400
        )[0]
        for a, b in itertools.pairwise(edges)
    )


def log_densities(law):
    scipy_law = TO_SCIPY[type(law)](law)
    return scipy_law.logpmf if isinstance(law, DISCRETE) else scipy_law.logpdf


@of_pairs
def test_moments_agree_with_quadrature_and_sums(q, p):
    log_q, log_p = log_densities(q), log_densities(p)

    def log_r(x):
        return log_p(x) - log_q(x)

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
    log_q, log_p = log_densities(q), log_densities(p)
    exact = moments(q, p)

    def variance(lam):
        value = mean(q, lambda x: kl.k_lambda(log_p(x) - log_q(x), lam) ** 2)
        return value - exact.kl**2

    best = variance(exact.optimal_lambda)
    # The variance is a parabola in λ with leading coefficient χ².
    for step in (-0.5, 0.5):
        neighbour = variance(exact.optimal_lambda + step)
        assert neighbour - best == pytest.approx(step**2 * exact.chi_squared, rel=1e-6)


@pytest.mark.parametrize("law", EQUAL, ids=str)
def test_equal_laws_do_not_diverge_and_lambda_is_its_limit_1(law):
    assert moments(law, type(law)(*vars(law).values())) == (0, 0, 0, 0, 0, 0, 0, 0, 1)


@pytest.mark.parametrize(
    "law", [Geometric(0.3), Laplace(1.0, 2.0), Gamma(2.0, 3.0), Beta(0.5, 2.0)]
)
def test_equal_laws_of_the_other_families_diverge_by_rounding_at_most(law):
    value = moments(law, type(law)(*vars(law).values()))
    assert value[:-1] == pytest.approx([0] * 8, abs=1e-13)


def test_chi_squared_of_the_beta_and_geometric_families_can_be_infinite():
    for q, p in (
        (Beta(2.0, 2.0), Beta(1.0, 3.0)),
        (Beta(2.0, 2.0), Beta(3.0, 1.0)),
        (Geometric(0.5), Geometric(1 - math.sqrt(0.5))),
        (Gamma(2.0, 1.0), Gamma(1.0, 1.0)),
    ):
        assert moments(q, p).chi_squared == math.inf


@pytest.mark.parametrize("law", COUNTS, ids=str)
def test_counts_have_the_probabilities_of_scipy(law):
    x = np.array([-1.0, 0.0, 0.5, 1.0, 2.0, 7.0])
    np.testing.assert_allclose(law.log_density(x), log_densities(law)(x), rtol=1e-12)
    draws = law.sample(np.random.Generator(np.random.PCG64(8)), 20_000)
    scipy_law = TO_SCIPY[type(law)](law)
    assert np.all(np.isfinite(law.log_density(draws)))
    for value, centre in (
        (draws, scipy_law.mean()),
        ((draws - scipy_law.mean()) ** 2, scipy_law.var()),
    ):
        assert abs(value.mean() - centre) < 5 * value.std() / math.sqrt(20_000)


@pytest.mark.parametrize(("q", "p"), INFINITE, ids=str)
def test_chi_squared_is_infinite_from_the_boundary_on(q, p):
    value = moments(q, p)
    assert value.chi_squared == value.var_k3 == math.inf
    assert value.optimal_lambda == 0
    assert math.isfinite(value.jeffreys + value.var_k1 + value.var_k2)
    # The reason: p²/q does not fall off to the right.
    x = np.array([10.0, 100.0])
    near, far = 2 * p.log_density(x) - q.log_density(x)
    assert far >= near - 1e-9


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
        lambda d: (Normal(0.0, 1.0), Normal(d, 1.0)),
        lambda d: (Normal(0.0, 1.0), Normal(0.0, math.exp(d / math.sqrt(2)))),
        lambda d: (Exponential(1.0), Exponential(math.exp(d))),
        lambda d: (Poisson(1.0), Poisson(math.exp(d))),
        lambda d: (Bernoulli(0.5), Bernoulli(1 / (1 + math.exp(-2 * d)))),
    ],
    ids=["shift", "scale", "Exponential", "Poisson", "Bernoulli"],
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


NOT_POSITIVE = [0.0, -1.0, math.inf, math.nan]


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        *((lambda v: Normal(v, 1.0), "mean", v) for v in (math.inf, -math.inf, math.nan)),
        *((lambda v: Normal(0.0, v), "sd", v) for v in NOT_POSITIVE),
        *((Exponential, "rate", v) for v in NOT_POSITIVE),
        *((Poisson, "mean", v) for v in NOT_POSITIVE),
        *((Bernoulli, "probability", v) for v in (*NOT_POSITIVE, 1.0)),
        *((Geometric, "probability", v) for v in (*NOT_POSITIVE, 1.0)),
        (lambda v: Laplace(v, 1.0), "mean", math.nan),
        *((lambda v: Laplace(0.0, v), "scale", v) for v in NOT_POSITIVE),
        *((lambda v: Gamma(v, 1.0), "shape", v) for v in NOT_POSITIVE),
        *((lambda v: Gamma(1.0, v), "rate", v) for v in NOT_POSITIVE),
        *((lambda v: Beta(v, 1.0), "a", v) for v in NOT_POSITIVE),
        *((lambda v: Beta(1.0, v), "b", v) for v in NOT_POSITIVE),
    ],
)
def test_an_invalid_parameter_is_refused_by_name(make, name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value}; it must be"):
        make(value)


@pytest.mark.parametrize("law", CONTINUOUS, ids=str)
def test_log_density_is_the_one_of_scipy_and_integrates_to_1(law):
    # At the edge of its support a density may be 0 or not: SciPy and we agree inside.
    x = np.array([-1.5, -1e-9, 0.3, 0.6, 7.0])
    np.testing.assert_allclose(law.log_density(x), log_densities(law)(x), rtol=1e-12, atol=1e-14)
    middle = TO_SCIPY[type(law)](law).mean()
    start = 0.0 if isinstance(law, Exponential | Gamma | Beta) else -math.inf
    end = 1.0 if isinstance(law, Beta) else math.inf
    total = sum(
        integrate.quad(lambda x: math.exp(law.log_density(x)), a, b, epsabs=1e-12)[0]
        for a, b in ((start, middle), (middle, end))
    )
    assert total == pytest.approx(1, abs=1e-9)


def test_log_density_takes_numbers_lists_and_arrays():
    for law in (Normal(0.0, 1.0), Exponential(1.0)):
        assert law.log_density(1.0).shape == ()
        assert law.log_density([1, 2]).shape == (2,)
        assert law.log_density(np.ones((2, 3))).shape == (2, 3)


@pytest.mark.parametrize("law", CONTINUOUS, ids=str)
def test_samples_have_the_mean_and_the_spread_of_the_law(law):
    size = 20_000
    x = law.sample(np.random.Generator(np.random.PCG64(7)), size)
    scipy_law = TO_SCIPY[type(law)](law)
    assert x.shape == (size,)
    assert np.all(np.isfinite(law.log_density(x)))
    for value, centre in ((x, scipy_law.mean()), ((x - scipy_law.mean()) ** 2, scipy_law.var())):
        assert abs(value.mean() - centre) < 5 * value.std() / math.sqrt(size)


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
