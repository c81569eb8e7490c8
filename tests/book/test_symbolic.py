"""The exact twins: identities, degenerate pairs, and refusals."""

import itertools
import math

import numpy as np
import pytest
import sympy as sp

import klapprox as kl
from klapprox.book import symbolic
from klapprox.book.symbolic import (
    FinitePair,
    SequencePair,
    Tree,
    distributions,
    dot,
    k1,
    k2,
    k3,
    k_lambda,
    log_rational,
    rational_pairs,
)

HALVES = ["1/2", "1/2"]
PAIR = FinitePair.rational(["1/2", "1/3", "1/6"], ["1/6", "1/2", "1/3"])
GENERIC = pytest.mark.parametrize("points", [1, 2, 3])


@pytest.mark.parametrize(
    ("ours", "package"),
    [
        (k1, kl.k1),
        (k2, kl.k2),
        (k3, kl.k3),
        (k_lambda(sp.Rational(1, 4)), lambda x: kl.k_lambda(x, 0.25)),
    ],
    ids=["k1", "k2", "k3", "k_lambda"],
)
@pytest.mark.parametrize("log_r", [-2.0, 0.0, 0.5])
def test_the_twins_have_the_values_of_the_estimators(ours, package, log_r):
    exact = sp.Rational(log_r)
    assert float(ours(sp.exp(exact), exact)) == pytest.approx(float(package(log_r)), rel=1e-14)


@pytest.mark.parametrize("value", [1, 2, 12, "1/2", "8/9", "35/6", sp.Rational(49, 121)])
def test_log_rational_is_the_logarithm_in_logarithms_of_primes(value):
    result = log_rational(value)
    assert float(result) == pytest.approx(math.log(sp.Rational(value)), abs=1e-15)
    assert all(sp.isprime(log.args[0]) for log in result.atoms(sp.log))


def test_log_rational_brings_equal_logarithms_to_equal_form():
    assert log_rational("3/4") + log_rational("8/3") == log_rational(2)
    assert log_rational(1) == 0
    assert log_rational(0) == -sp.oo


@pytest.mark.parametrize("value", [-1, "-1/2", 0.5, sp.pi, sp.oo, sp.nan, sp.Symbol("x")])
def test_log_rational_refuses_what_is_no_nonnegative_rational(value):
    with pytest.raises(ValueError, match=r"^value is .*; only nonnegative rationals"):
        log_rational(value)


@GENERIC
def test_generic_pair_sums_to_one_and_obeys_the_identities(points):
    pair = FinitePair.generic(points)
    assert len(pair.q) == len(pair.p) == len(pair.log_q) == len(pair.log_p) == points
    assert sp.expand(sum(pair.q)) == sp.expand(sum(pair.p)) == 1
    lam = sp.Symbol("lambda")
    for function in (k3, k_lambda(lam)):
        assert sp.cancel(pair.mean(function) - pair.kl) == 0
    assert sp.cancel(pair.mean(lambda r, log_r: r) - 1) == 0
    assert sp.expand(pair.jeffreys - pair.reversed.jeffreys) == 0


def test_the_variance_of_k_lambda_is_least_at_the_optimal_lambda():
    lam = sp.Symbol("lambda")
    slope = sp.diff(PAIR.variance(k_lambda(lam)), lam)
    assert sp.simplify(slope.subs(lam, PAIR.optimal_lambda)) == 0
    assert sp.diff(slope, lam) == 2 * PAIR.chi_squared


def test_a_rational_pair_has_the_values_of_the_definitions():
    q, p = np.array([1 / 2, 1 / 3, 1 / 6]), np.array([1 / 6, 1 / 2, 1 / 3])
    assert float(PAIR.kl) == pytest.approx(np.sum(q * np.log(q / p)))
    assert float(PAIR.reverse_kl) == pytest.approx(np.sum(p * np.log(p / q)))
    assert PAIR.jeffreys == PAIR.kl + PAIR.reverse_kl
    assert float(PAIR.chi_squared) == pytest.approx(np.sum(p**2 / q) - 1)
    assert float(PAIR.optimal_lambda) == pytest.approx(float(PAIR.jeffreys / PAIR.chi_squared))
    assert float(PAIR.variance(k1)) == pytest.approx(
        np.sum(q * np.log(q / p) ** 2) - float(PAIR.kl) ** 2
    )
    assert PAIR.covariance(k1, k1) == PAIR.variance(k1)
    assert PAIR.covariance(k1, lambda r, log_r: r) == -PAIR.jeffreys


def test_reversed_twice_is_the_pair():
    assert PAIR.reversed != PAIR
    assert PAIR.reversed.reversed == PAIR
    assert PAIR.reversed.kl == PAIR.reverse_kl


def test_points_that_q_cannot_draw_are_left_out():
    pair = FinitePair.rational([1, 0], HALVES)
    assert pair.ratios == ((1, sp.Rational(1, 2), -sp.log(2)),)
    assert pair.kl == sp.log(2)
    assert pair.reverse_kl == sp.oo
    # E_q r falls short of 1 by the mass that q misses, and E_q k3 of KL by the same.
    assert pair.mean(lambda r, log_r: r) == sp.Rational(1, 2)
    assert pair.mean(k3) == sp.log(2) - sp.Rational(1, 2)


def test_points_that_p_excludes_make_kl_infinite():
    pair = FinitePair.rational(HALVES, [1, 0])
    assert pair.ratios[1] == (sp.Rational(1, 2), 0, -sp.oo)
    assert pair.kl == pair.jeffreys == sp.oo
    assert pair.reverse_kl == sp.log(2)
    assert pair.chi_squared == 1


@pytest.mark.parametrize("bad", [[], ["1/2"], ["1/2", "1/3"], ["3/2", "-1/2"], [0.1, 0.9]])
@pytest.mark.parametrize("name", ["q", "p"])
def test_what_is_no_law_is_refused_by_name(name, bad):
    with pytest.raises(ValueError, match=f"^{name} is .*nonnegative and sum to 1"):
        FinitePair.rational(**{"q": HALVES, "p": HALVES, name: bad})


def test_laws_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"^q has 2 points and p 1"):
        FinitePair.rational(HALVES, [1])


@pytest.mark.parametrize(("points", "denominator"), [(1, 4), (2, 5), (3, 6), (4, 3)])
def test_distributions_are_all_there_once(points, denominator):
    positive = list(distributions(points, denominator))
    every = list(distributions(points, denominator, positive=False))
    # Compositions of the denominator into positive, or nonnegative, parts: stars and bars.
    assert len(positive) == math.comb(denominator - 1, points - 1)
    assert len(every) == math.comb(denominator + points - 1, points - 1)
    assert len({tuple(law) for law in every}) == len(every)
    assert all(sum(law) == 1 and min(law) >= 0 for law in every)
    assert positive == [law for law in every if min(law) > 0]


def test_rational_pairs_are_all_pairs_of_distributions():
    laws = len(list(distributions(3, 5)))
    assert len(list(rational_pairs(3, 5))) == laws**2
    distinct = list(rational_pairs(3, 5, distinct=True))
    assert len(distinct) == laws**2 - laws
    assert all(pair.q != pair.p for pair in distinct)
    assert len(list(rational_pairs(2, 3, positive=False))) == 4**2


def test_gibbs_inequality_holds_with_equality_only_for_equal_laws():
    for pair in rational_pairs(2, 6):
        assert (pair.kl == 0) == (pair.q == pair.p)
        assert pair.kl >= 0


def test_a_pair_of_symbols_has_their_logarithms():
    a, b = sp.symbols("a b", positive=True)
    pair = FinitePair.of((a, 1 - a), (a * b, 1 - a * b))
    assert pair.ratios[0] == (a, b, sp.log(b))
    numbers = {a: sp.Rational(1, 2), b: sp.Rational(1, 2)}
    exact = FinitePair.rational(HALVES, ["1/4", "3/4"])
    assert sp.simplify(pair.kl.subs(numbers) - exact.kl) == 0
    assert FinitePair.of(exact.q, exact.p) == exact


def test_pairs_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"^q has 2 points and p 1; give equally many\.$"):
        FinitePair.of((sp.Rational(1, 2),) * 2, (1,))


def test_laws_given_a_set_and_with_a_set_taken_as_one():
    inside = PAIR.given([0, 2])
    assert inside == FinitePair.rational(["3/4", "1/4"], ["1/3", "2/3"])
    assert PAIR.merged([0, 2]) == FinitePair.rational(["1/3", "2/3"], ["1/2", "1/2"])
    assert PAIR.merged([1]) == FinitePair.rational(["1/2", "1/6", "1/3"], ["1/6", "1/3", "1/2"])


def test_laws_pushed_through_a_kernel():
    merging = [[1, 0], [0, 1], [0, 1]]
    assert PAIR.pushed(merging) == PAIR.merged([1, 2])
    assert PAIR.pushed([["1/3", "2/3"]] * 3) == FinitePair.rational(*[["1/3", "2/3"]] * 2)
    with pytest.raises(ValueError, match="sum to 1"):
        PAIR.pushed([[1, 1]] * 3)


def test_products_of_laws_have_sums_of_logarithms():
    coin = FinitePair.rational(["1/2", "1/2"], ["1/4", "3/4"])
    both = coin.times(PAIR)
    assert both == FinitePair.rational(both.q, both.p)
    assert both.q[1] == coin.q[0] * PAIR.q[1]
    assert both.kl == sp.expand(coin.kl + PAIR.kl)


def test_mixtures_of_laws():
    assert PAIR.mixed(PAIR.reversed, 1) == PAIR
    assert PAIR.mixed(PAIR.reversed, 0) == PAIR.reversed
    mixed = PAIR.mixed(PAIR.reversed, sp.Rational(1, 4))
    assert mixed.q[0] == PAIR.q[0] / 4 + 3 * PAIR.p[0] / 4


def test_total_variation_is_the_largest_difference_over_all_events():
    for pair in rational_pairs(3, 4, positive=False):
        events = itertools.product((0, 1), repeat=3)
        gaps = [dot(event, pair.p) - dot(event, pair.q) for event in events]
        assert pair.total_variation == max(gaps)


@pytest.mark.parametrize("pair", [PAIR, FinitePair.generic(3)], ids=["rational", "generic"])
def test_the_divergence_is_that_of_the_merged_laws_and_of_those_given_the_set(pair):
    parts = pair.merged([1, 2]).kl + (pair.q[1] + pair.q[2]) * pair.given([1, 2]).kl
    assert sp.cancel(parts - pair.kl) == 0


@pytest.mark.parametrize("function", [k1, k3, lambda r, log_r: r])
def test_moments_given_a_set_obey_the_laws_of_total_mean_and_variance(function):
    inside, rest = [0, 2], [1]
    mass = PAIR.q[0] + PAIR.q[2]
    means = [PAIR.mean(function, points) for points in (inside, rest)]
    assert sp.expand(mass * means[0] + (1 - mass) * means[1] - PAIR.mean(function)) == 0
    within = mass * PAIR.variance(function, inside)
    between = mass * (1 - mass) * (means[0] - means[1]) ** 2
    assert PAIR.variance(function, rest) == 0
    assert sp.expand(within + between - PAIR.variance(function)) == 0


TREE = Tree(tokens=3, length=2)


def test_a_tree_has_all_prefixes_and_sequences():
    assert TREE.prefixes == [(), (0,), (1,), (2,)]
    assert len(TREE.sequences) == 9
    assert len(set(TREE.sequences)) == 9


@pytest.mark.parametrize("law", [TREE.law(0), TREE.law(1), TREE.symbols("x")])
def test_the_laws_of_a_tree_sum_to_one(law):
    assert TREE.mean(law, lambda y: 1) == 1
    assert all(sp.expand(sum(row)) == 1 for row in law.values())


def test_no_two_laws_of_a_tree_agree_after_any_prefix():
    tree = Tree(tokens=2, length=3)
    rows = [row for number in range(5) for row in tree.law(number).values()]
    assert len(set(rows)) == len(rows) == 35
    assert all(0 < x < 1 for row in rows for x in row)


def test_chances_are_products_of_steps():
    law = TREE.law(0)
    assert TREE.steps(law, (2, 1)) == [law[()][2], law[2,][1]]
    assert TREE.chance(law, (2, 1)) == law[()][2] * law[2,][1]
    assert TREE.chance(law, ()) == 1
    assert sum(TREE.chance(law, (token,)) for token in range(3)) == 1


def test_the_gradient_in_the_logits_is_the_one_of_a_softmax():
    law = TREE.symbols("x")
    logits = sp.symbols("z0:2", real=True)
    odds = [sp.exp(z) for z in logits] + [sp.Integer(1)]
    softmax = [v / sum(odds) for v in odds]
    at = dict(zip(law[()][:2], softmax[:2], strict=True))
    f = law[()][0] ** 2 + sp.log(law[()][2]) * law[1,][0]
    found = TREE.gradient(law, f)
    assert len(found) == 8
    for j, z in enumerate(logits):
        difference = sp.diff(f.subs(at), z) - found[j].subs(at)
        assert sp.simplify(difference) == 0
    # After the token 1 only the logarithm's factor depends on the logits; after 0 nothing does.
    assert found[2:4] == [0, 0]
    x0, x1 = law[1,][:2]
    assert sp.cancel(found[4] - sp.log(law[()][2]) * x0 * (1 - x0)) == 0
    assert sp.cancel(found[5] + sp.log(law[()][2]) * x0 * x1) == 0
    assert found[6:] == [0, 0]


def test_a_mean_gradient_is_the_gradient_of_the_mean():
    law = TREE.symbols("x")
    reward = {y: sp.Integer(3 * y[0] + y[1] ** 2) for y in TREE.sequences}
    score = {y: TREE.gradient(law, sp.log(TREE.chance(law, y))) for y in TREE.sequences}
    expected = TREE.gradient(law, TREE.mean(law, reward.get))
    found = [TREE.mean(law, lambda y, j=j: reward[y] * score[y][j]) for j in range(8)]
    assert [sp.cancel(a - b) for a, b in zip(found, expected, strict=True)] == [0] * 8


def test_the_pair_of_a_tree_obeys_the_chain_rule():
    q, p = TREE.law(0), TREE.law(1)
    after = [FinitePair.rational(q[h], p[h]).kl * TREE.chance(q, h) for h in TREE.prefixes]
    assert sp.expand(TREE.pair(q, p).kl - sum(after)) == 0


def test_printed_digits_are_an_interval():
    low, high = symbolic.bracket("3.512862")
    assert (low + high) / 2 == sp.Rational("3.512862")
    assert high - low == sp.Rational(1, 10**6)
    assert symbolic.bracket("-2") == (-sp.Rational(5, 2), -sp.Rational(3, 2))
    x = sp.Symbol("x")
    assert symbolic.around(x + 1, x, "0.5") == [1 + sp.Rational(9, 20), 1 + sp.Rational(11, 20)]


def test_the_gradient_of_a_policy_is_the_derivative_in_the_logits():
    pair = SequencePair.policy(3, 1)
    row, z = pair.rows[()], sp.symbols("z0:2", real=True)
    softmax = [sp.exp(x) / (1 + sum(map(sp.exp, z))) for x in (*z, sp.Integer(0))]
    back = dict(zip((*row.q, *row.log_q), (*softmax, *map(sp.log, softmax)), strict=True))
    at = dict(zip(z, (sp.Rational(1, 3), sp.Rational(-2, 5)), strict=True))
    for f in (row.kl, row.q[0] / row.q[2] + row.log_q[1] ** 2):
        ours = [g.subs(back).subs(at) for g in pair.expand(pair.gradient(f))]
        true = [sp.diff(f.subs(back), x).subs(at) for x in z]
        for a, b in zip(ours, true, strict=True):
            rest = sorted((a - b).free_symbols, key=str)
            point = {s: sp.Rational(1, 3 + i) for i, s in enumerate(rest)}
            assert abs(sp.N((a - b).subs(point), 30)) < 1e-25


def test_a_pair_of_sequences_is_a_pair_on_whole_sequences():
    pair = SequencePair.rational(3, 3, 7, same=[(1,)])
    assert len({(row.q, row.p) for row in pair.rows.values()}) == len(pair.rows) == 13
    assert pair.rows[(1,)].kl == 0
    assert sum(pair.whole.q) == sum(pair.whole.p) == 1
    assert pair.mean(lambda y: sum(y.k1)) == pair.whole.kl == sp.expand(pair.to_go(()))
    assert pair.variance(lambda y: sum(y.k1)) == pair.whole.variance(lambda r, u: u)
    assert pair.mean(lambda y: y.whole(symbolic.k3)) == pair.whole.kl
    assert pair.mean_sum(lambda y, t: y.rows[t].kl) == pair.whole.kl
    assert sum(pair.chance((0, i)) for i in range(3)) == pair.chance((0,)) == pair.rows[()].q[0]
    assert pair.to_go((0, 1, 2)) == 0
    with pytest.raises(ValueError, match="pairs for"):
        SequencePair.rational(2, 9, 5)


def test_a_path_has_running_products_and_predictable_values():
    pair = SequencePair.policy(2, 2)
    path = pair.paths[1]
    assert path.y == (0, 1)
    assert [path.r[0], path.r[0] * path.r[1]] == path.R
    assert [path.w[0], path.w[0] * path.w[1]] == path.W
    assert [path.s[0], path.s[0] + path.s[1]] == path.S
    assert path.w[1] == pair.rows[(0,)].q[1] / pair.samplers[(0,)][1]
    assert path.k2 == [u**2 / 2 for u in path.u]
    assert path.after({(): 3, (0,): 4, (1,): 5}) == [3, 4]
    assert pair.mean(lambda y: y.S[-1]) == sp.zeros(3, 1)
    assert pair.mean(lambda y: y.W[-1], sampled=True) == 1


def test_a_chain_forgets_all_but_the_last_token():
    first, *after = symbolic.rational_pairs(2, 5, distinct=True)
    chain = SequencePair.markov(first, after[:2], 3)
    assert chain.rows[(0, 1)] is chain.rows[(1,)] is after[1]
    truncated = FinitePair.rational(["1/2", "1/2", 0], ["1/4", "1/4", "1/2"])
    holes = SequencePair.markov(truncated, [truncated] * 3, 2)
    assert len(holes.paths) == 4
    assert holes.whole.kl == sp.expand(2 * truncated.kl)
    assert holes.mean(lambda y: sp.prod(y.r)) == sp.Rational(1, 4)
