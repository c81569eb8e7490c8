"""Finite laws and normal vectors: closed forms against sums, SciPy and one-dimensional pairs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import klapprox as kl
from klapprox.exact.families import Bernoulli, Categorical, MultivariateNormal, Normal, moments

RNG = np.random.Generator(np.random.PCG64(70))
LAWS = st.lists(st.integers(1, 9), min_size=4, max_size=4).map(lambda n: np.array(n) / sum(n))


@given(LAWS, LAWS)
def test_moments_of_finite_laws_are_sums(q, p):
    found = moments(Categorical(q), Categorical(p))
    log_r = np.log(p / q)
    for name in ("k1", "k2", "k3"):
        values = getattr(kl, name)(log_r)
        variance = q @ values**2 - (q @ values) ** 2
        assert getattr(found, f"var_{name}") == pytest.approx(variance, rel=1e-9, abs=1e-12)
    assert found.kl == pytest.approx(-(q @ log_r), rel=1e-9, abs=1e-14)
    assert found.chi_squared == pytest.approx(q @ (p / q) ** 2 - 1, rel=1e-9, abs=1e-14)


@given(LAWS, LAWS, st.permutations(range(4)))
def test_names_of_the_points_do_not_matter(q, p, order):
    one, other = (
        moments(Categorical(a), Categorical(b)) for a, b in ((q, p), (q[order], p[order]))
    )
    assert other == pytest.approx(one, rel=1e-9, abs=1e-13)


def test_two_points_are_a_coin():
    found = moments(Categorical([0.3, 0.7]), Categorical([0.6, 0.4]))
    assert found == pytest.approx(moments(Bernoulli(0.7), Bernoulli(0.4)), rel=1e-12)


def test_support_violations_are_infinite_or_an_error():
    part, whole = Categorical([0.5, 0.5, 0.0]), Categorical([0.25, 0.25, 0.5])
    assert whole.kl(part) == math.inf
    assert part.kl(whole) == pytest.approx(math.log(2))
    assert part.chi_squared_from(whole) == math.inf
    assert whole.chi_squared_from(part) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="do not allow the same points"):
        moments(part, whole)
    assert part.log_density([0, 2]).tolist() == [math.log(0.5), -math.inf]
    assert set(part.sample(RNG, 1000)) == {0, 1}


def test_draws_have_the_right_frequencies():
    law = Categorical([0.2, 0.0, 0.5, 0.3])
    counts = np.bincount(law.sample(np.random.Generator(np.random.PCG64(1)), 20_000), minlength=4)
    assert counts[1] == 0
    error = np.sqrt(law.probabilities * (1 - law.probabilities) * 20_000)
    assert np.all(np.abs(counts - 20_000 * law.probabilities) <= 5 * error)


def random_vector(d, seed):
    rng = np.random.Generator(np.random.PCG64(seed))
    root = rng.standard_normal((d, d)) / 4
    return MultivariateNormal(rng.standard_normal(d) / 2, np.eye(d) + root @ root.T)


def test_closed_forms_of_normal_vectors():
    q, p = random_vector(3, 2), random_vector(3, 3)
    inverse = np.linalg.inv(p.covariance)
    shift = q.mean - p.mean
    log_dets = np.linalg.slogdet(p.covariance)[1] - np.linalg.slogdet(q.covariance)[1]
    wanted = (np.trace(inverse @ q.covariance) + shift @ inverse @ shift - 3 + log_dets) / 2
    found = moments(q, p)
    assert found.kl == pytest.approx(wanted, rel=1e-12)
    ratio = inverse @ q.covariance - np.eye(3)
    spread = np.trace(ratio @ ratio) / 2 + shift @ inverse @ q.covariance @ inverse @ shift
    assert found.var_k1 == pytest.approx(spread, rel=1e-12)
    # 1 + χ² = ∫ p²/q, a Gaussian integral
    precision = 2 * inverse - np.linalg.inv(q.covariance)
    linear = 2 * inverse @ p.mean - np.linalg.solve(q.covariance, q.mean)
    constant = 2 * p.mean @ inverse @ p.mean - q.mean @ np.linalg.solve(q.covariance, q.mean)
    exponent = (linear @ np.linalg.solve(precision, linear) - constant) / 2
    dets = np.linalg.slogdet(q.covariance)[1] / 2 - np.linalg.slogdet(p.covariance)[1]
    dets -= np.linalg.slogdet(precision)[1] / 2
    assert found.chi_squared == pytest.approx(math.expm1(exponent + dets), rel=1e-10)


def test_one_dimension_is_the_normal_family():
    q, p = MultivariateNormal([0.5], [[1.0]]), MultivariateNormal([0.0], [[1.44]])
    assert moments(q, p) == pytest.approx(moments(Normal(0.5, 1.0), Normal(0.0, 1.2)), rel=1e-12)
    far = MultivariateNormal([0.0], [[2.0]])
    assert q.chi_squared_from(far) == math.inf


def test_densities_and_draws_of_normal_vectors():
    law = random_vector(3, 4)
    x = law.sample(np.random.Generator(np.random.PCG64(5)), 20_000)
    scipy_law = stats.multivariate_normal(law.mean, law.covariance)
    np.testing.assert_allclose(law.log_density(x[:50]), scipy_law.logpdf(x[:50]), rtol=1e-12)
    np.testing.assert_allclose(x.mean(axis=0), law.mean, atol=0.05)
    np.testing.assert_allclose(np.cov(x.T), law.covariance, atol=0.06)
    p = random_vector(3, 6)
    values = kl.k1(p.log_density(x) - law.log_density(x))
    exact = moments(law, p)
    assert abs(values.mean() - exact.kl) < 5 * math.sqrt(exact.var_k1 / 20_000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Categorical([0.5, 0.6]), "nonnegative and sum to 1"),
        (lambda: Categorical([1.5, -0.5]), "nonnegative and sum to 1"),
        (lambda: Categorical([1.0]).kl(Categorical([0.5, 0.5])), "q has 1 points and p 2"),
        (lambda: MultivariateNormal([0.0], [[1.0, 0.0]]), "mean has shape"),
        (lambda: MultivariateNormal([0.0, 0.0], [[1.0, 0.5], [0.4, 1.0]]), "not symmetric"),
        (lambda: MultivariateNormal([0.0], [[-1.0]]), "not positive definite"),
        (
            lambda: MultivariateNormal([0.0], [[1.0]]).kl(MultivariateNormal([0, 0], np.eye(2))),
            "q has 1 dimensions and p 2",
        ),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
