"""Sequences: every exact value against the sum over all sequences."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klapprox import estimators
from klapprox.exact.sequences import MarkovPair, Moments

EVEN = [0.5, 0.5]
STAY = [[1.0, 0.0], [0.5, 0.5]]
ESTIMATORS = {"k1": estimators.k1, "k2": estimators.k2, "k3": estimators.k3}


def weights(shape):
    size = int(np.prod(shape))
    return st.lists(st.integers(1, 9), min_size=size, max_size=size).map(
        lambda values: np.reshape(values, shape) / np.reshape(values, shape).sum(-1, keepdims=True)
    )


@st.composite
def pairs(draw, size=3):
    """A pair of chains; sometimes token 0 is the end."""
    start_q, start_p = draw(weights((size,))), draw(weights((size,)))
    q, p = draw(weights((size, size))), draw(weights((size, size)))
    if draw(st.booleans()):
        q[0] = p[0] = np.eye(size)[0]
        return MarkovPair(start_q, start_p, q, p, end=0)
    return MarkovPair(start_q, start_p, q, p)


def enumerated(pair, length):
    """Probabilities under Q, log-ratios (sequences, length) and Σ K_t of all sequences."""
    q, log_r, sums = [], [], []
    for y in itertools.product(range(pair.size), repeat=length):
        laws_q = [pair.start_q, *pair.q[list(y[:-1])]]
        laws_p = [pair.start_p, *pair.p[list(y[:-1])]]
        weight = np.prod([law[t] for law, t in zip(laws_q, y, strict=True)])
        if weight > 0:
            q.append(weight)
            log_r.append([np.log(b[t] / a[t]) for a, b, t in zip(laws_q, laws_p, y, strict=True)])
            sums.append(
                sum(
                    sum(x * np.log(x / z) for x, z in zip(a, b, strict=True) if x > 0)
                    for a, b in zip(laws_q, laws_p, strict=True)
                )
            )
    return np.array(q), np.array(log_r), np.array(sums)


def moments(q, values):
    mean = q @ values
    return Moments(mean, q @ (values - mean) ** 2)


@given(pairs(), st.integers(1, 4))
def test_moments_agree_with_the_sum_over_all_sequences(pair, length):
    q, log_r, sums = enumerated(pair, length)
    total = log_r.sum(1)
    # Rounding grows with the largest term of a sum, which k3 of the sequence makes large.
    tolerance = {"rel": 1e-9, "abs": 1e-10 * (1 + q @ np.exp(2 * total))}
    for name, function in ESTIMATORS.items():
        wanted = moments(q, function(log_r).sum(1))
        assert pair.token_level(name, length) == pytest.approx(wanted, **tolerance)
        wanted = moments(q, function(total))
        assert pair.sequence_level(name, length) == pytest.approx(wanted, **tolerance)
    assert pair.exact_sum(length) == pytest.approx(moments(q, sums), **tolerance)
    assert pair.kl(length) == pytest.approx(q @ -total, **tolerance)
    assert pair.mean_squared_ratio(length) == pytest.approx(q @ np.exp(2 * total))


@given(pairs(), st.integers(1, 4), st.integers(0, 2**32))
def test_controlled_moments_and_their_least_variance(pair, length, seed):
    q, log_r, _ = enumerated(pair, length)
    tokens = np.array(
        [
            y
            for y in itertools.product(range(pair.size), repeat=length)
            if pair.start_q[y[0]] * np.prod([pair.q[s, t] for s, t in itertools.pairwise(y)]) > 0
        ]
    )
    before = np.hstack([np.full((len(tokens), 1), pair.size), tokens[:, :-1]])
    best = pair.optimal_coefficients(length)
    noise = np.random.default_rng(seed).standard_normal(best.shape)
    for c in (best, best + noise):
        values = np.sum(c[range(length), before] * np.expm1(log_r) - log_r, axis=1)
        assert pair.controlled(c, length) == pytest.approx(moments(q, values), rel=1e-9, abs=1e-9)
    least = pair.controlled(best, length).variance
    assert least <= pair.controlled(best + noise, length).variance + 1e-12
    for constant, name in ((0.0, "k1"), (1.0, "k3")):
        expected = pair.token_level(name, length)
        assert pair.controlled(constant, length) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert least <= expected.variance + 1e-12


@given(pairs().filter(lambda pair: pair.end is None))
def test_long_run_rates(pair):
    # Collatz and Wielandt: (M v)/v brackets the spectral radius for every positive v.
    factor, vector = pair.p**2 / pair.q, np.ones(pair.size)
    for _ in range(40):
        vector = factor @ vector
        vector /= vector.max()
    quotients = factor @ vector / vector
    assert quotients.min() * (1 - 1e-12) <= pair.ratio_growth() <= quotients.max() * (1 + 1e-12)
    assert pair.ratio_growth() >= 1 - 1e-12
    for name in ESTIMATORS:
        step = pair.token_level(name, 301).variance - pair.token_level(name, 300).variance
        assert pair.variance_rate(name) == pytest.approx(step, rel=1e-6, abs=1e-9)


def test_rates_of_the_same_chain_and_of_one_that_ends():
    same = MarkovPair(EVEN, EVEN, [[0.9, 0.1], EVEN], [[0.9, 0.1], EVEN])
    assert same.ratio_growth() == pytest.approx(1.0)
    assert same.variance_rate("k1") == pytest.approx(0.0)
    with pytest.raises(ValueError, match="q is not irreducible"):
        MarkovPair(EVEN, EVEN, STAY, STAY, end=0).variance_rate("k1")


@given(pairs(), st.integers(2, 5))
def test_kl_to_go_adds_up(pair, length):
    to_go = pair.kl_to_go(length)
    first = float(pair.step_kl[-1] + pair.start_q @ to_go[0])
    assert first == pytest.approx(pair.kl(length))
    assert to_go.shape == (length, pair.size)
    assert np.all(to_go[-1] == 0)
    if pair.end is not None:
        assert np.all(to_go[:, pair.end] == 0)


def test_one_sequence_of_long_length_overflows_to_infinity_without_a_warning():
    pair = MarkovPair([0.9, 0.1], [0.1, 0.9], [[0.9, 0.1]] * 2, [[0.1, 0.9]] * 2)
    assert pair.sequence_level("k3", 2000).variance == np.inf
    assert np.isfinite(pair.token_level("k3", 2000).variance)


def test_standard_deviation():
    assert Moments(1.0, 4.0).sd == 2.0


def test_samples_follow_q():
    pair = MarkovPair([0.2, 0.8], EVEN, [[0.7, 0.3], [0.4, 0.6]], [EVEN, EVEN])
    tokens = pair.sample(20_000, 3, np.random.Generator(np.random.PCG64(1)))
    assert tokens.shape == (20_000, 3)
    q, log_r, _ = enumerated(pair, 3)
    code = tokens @ [4, 2, 1]
    counts = np.bincount(code, minlength=8)
    error = np.sqrt(20_000 * q * (1 - q))
    assert np.all(np.abs(counts - 20_000 * q) < 5 * error)
    drawn = pair.log_ratios(tokens)
    assert drawn == pytest.approx(log_r[code])
    assert pair.log_ratios(tokens[0]) == pytest.approx(drawn[0])


def test_no_draw_falls_behind_the_last_possible_token():
    class LastNumber:
        def random(self, count):
            return np.full(count, np.nextafter(1.0, 0.0))

    tenths = [0.1, 0.2, 0.7 - 1e-16, 0.0]  # the running sum ends below 1
    pair = MarkovPair(tenths, tenths, [tenths] * 4, [tenths] * 4)
    assert pair.sample(2, 3, LastNumber()).tolist() == [[2, 2, 2]] * 2


BAD_PAIRS = {
    "q has shape": {"q": [EVEN]},
    "start_p has shape": {"start_p": [1.0]},
    "q must be nonnegative": {"q": [[0.5, 0.6], EVEN]},
    "start_q must be nonnegative": {"start_q": [1.5, -0.5]},
    "p must be nonnegative": {"p": [[np.nan, 0.5], EVEN]},
    "different supports": {"p": [[1.0, 0.0], EVEN]},
    "end is 2": {"end": 2},
    "end is -1": {"end": -1},
    "end must stay forever": {"end": 0},
}


@pytest.mark.parametrize("message", BAD_PAIRS)
def test_bad_laws_are_refused(message):
    good = {"start_q": EVEN, "start_p": EVEN, "q": [EVEN, EVEN], "p": [EVEN, EVEN]}
    with pytest.raises(ValueError, match=message):
        MarkovPair(**(good | BAD_PAIRS[message]))


def test_bad_arguments_are_refused():
    pair = MarkovPair(EVEN, EVEN, STAY, STAY, end=0)
    with pytest.raises(ValueError, match="estimator is 'k4'; choose one of k1, k2, k3"):
        pair.token_level("k4", 2)
    with pytest.raises(ValueError, match="estimator is 'k4'"):
        pair.sequence_level("k4", 2)
    for length in (0, 1.5, None):
        with pytest.raises(ValueError, match="give the number of tokens, at least 1"):
            pair.kl(length)
    with pytest.raises(ValueError, match="tokens must be an integer array"):
        pair.log_ratios([[0.0, 1.0]])
    with pytest.raises(ValueError, match="tokens must be an integer array"):
        pair.log_ratios(3)
    with pytest.raises(ValueError, match="tokens must lie between 0 and 1"):
        pair.log_ratios([[0, 2]])
    with pytest.raises(ValueError, match="a sequence that q cannot generate"):
        pair.log_ratios([[0, 1]])
