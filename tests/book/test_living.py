"""The numbers behind the living figures, against closed forms."""

import itertools

import numpy as np
import pytest
from scipy import stats

from klapprox.book import living
from klapprox.exact.families import Bernoulli, Normal, moments

AT = np.array([0.3, 0.7, 1.0, 1.5, 2.5])


@pytest.mark.parametrize("d", [0.2, 1.0])
def test_k2_of_a_shift_is_a_noncentral_chi_squared(d):
    below = living.laws_of_means("shift", d, "k2", AT * d**2 / 2)
    for size, found in zip(living.SIZES, below, strict=True):
        exact = stats.ncx2(size, size * d**2 / 4).cdf(AT * size)
        np.testing.assert_allclose(found, exact, rtol=0, atol=0.01)


@pytest.mark.parametrize(("kind", "d"), [("shift", 0.5), ("scale", 0.3), ("scale", 1.0)])
def test_one_draw_of_k3_lies_between_the_two_points_where_k3_has_its_value(kind, d):
    q, p = living.pair(kind, d)
    x = np.linspace(-9, 9, 200_001)
    log_r = p.log_density(x) - q.log_density(x)
    weights = np.exp(q.log_density(x)) * (x[1] - x[0])
    at = AT * q.kl(p)
    exact = [(weights * (np.expm1(log_r) - log_r <= bound)).sum() for bound in at]
    found = living.laws_of_means(kind, d, "k3", at)[0]
    np.testing.assert_allclose(found, exact, rtol=0, atol=0.01)


def test_k3_of_sixteen_draws_against_draws():
    q, p = living.pair("scale", 1.0)
    x = q.sample(np.random.Generator(np.random.PCG64(3)), 16 * 40_000).reshape(-1, 16)
    log_r = p.log_density(x) - q.log_density(x)
    means = (np.expm1(log_r) - log_r).mean(axis=1)
    drawn = (means[:, None] <= AT * q.kl(p)).mean(axis=0)
    found = living.laws_of_means("scale", 1.0, "k3", AT * q.kl(p))[2]
    np.testing.assert_allclose(found, drawn, rtol=0, atol=0.01 + 5 * 0.5 / 200)


def test_k1_has_its_closed_forms():
    at = np.array([-0.2, 0.0, 0.1, 0.4])
    for row, size in zip(living.laws_of_means("scale", 0.5, "k1", at), living.SIZES, strict=True):
        # k1 = log σ - (1 - 1/σ²) x²/2
        least = (np.log(1.5) - at) * 2 * size / (1 - 1 / 1.5**2)
        np.testing.assert_allclose(row, stats.chi2.sf(least, size), rtol=1e-12, atol=1e-15)


def test_two_outcomes_are_counted():
    q, p = Bernoulli(0.5), Bernoulli(0.5 + 0.45 * 0.8)
    low, high = (-(p.log_density([x]) - q.log_density([x]))[0] for x in (0, 1))
    fours = [sum(draws) / 4 for draws in itertools.product((low, high), repeat=4)]
    at = np.array([-0.3, 0.0, 0.31, 0.9])
    found = living.laws_of_means("two outcomes", 0.8, "k1", at)[1]
    np.testing.assert_allclose(found, [np.mean(np.array(fours) <= x) for x in at], atol=1e-12)


@pytest.fixture(scope="module")
def rows():
    return living.sampling_laws()


def test_the_rows_hold_what_the_families_say(rows):
    assert len(rows) == 3 * 10 * 3 * 5
    for row in rows:
        exact = moments(*living.pair(row["pair"], row["d"]))
        variance = {"k1": exact.var_k1, "k2": exact.var_k2, "k3": exact.var_k3}[row["k"]]
        assert (row["sd"] is None) == (variance == np.inf)
        if row["sd"] is not None:
            sd = np.sqrt(variance / row["n"]) / exact.kl
            np.testing.assert_allclose(row["sd"], sd, rtol=1e-3)
        bias = exact.mean_k2 / exact.kl - 1 if row["k"] == "k2" else 0
        np.testing.assert_allclose(row["bias"], bias, rtol=1e-3, atol=1e-12)
        assert (row["negative"] == 0) == (row["k"] != "k1")
        assert len(row["heights"]) == len(living.EDGES) - 1


def test_the_variance_of_k3_is_infinite_from_twice_the_variance_on(rows):
    infinite = {row["d"] for row in rows if row["pair"] == "scale" and row["sd"] is None}
    assert infinite == {d for d in living.DISTANCES if (1 + d) ** 2 >= 2}
    assert not [row for row in rows if row["pair"] != "scale" and row["sd"] is None]


def test_a_bar_is_high_where_the_law_is():
    (row,) = (
        r
        for r in living.sampling_laws()
        if (r["pair"], r["d"], r["k"], r["n"]) == ("shift", 0.5, "k1", 16)
    )
    bins = np.diff(stats.norm(1, 1.0).cdf(living.EDGES))  # s.d. is KL: 0.5 / 4 = 0.125
    assert row["heights"] == np.rint(99 * bins / bins.max()).tolist()


def test_an_unknown_pair_is_refused():
    with pytest.raises(ValueError, match="kind is 'rotation'"):
        living.pair("rotation", 0.5)


def test_normal_pairs_are_those_of_the_caption():
    assert living.pair("scale", 0.5) == (Normal(0.0, 1.0), Normal(0.0, 1.5))
