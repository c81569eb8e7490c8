"""Policies: coefficients against differences, tables against the sum over all sequences."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klapprox import estimators
from klapprox.exact import policies
from klapprox.exact.policies import TablePolicy, expected_gradient, softmax

FUNCTIONS = {name: entry.value for name, entry in estimators.ESTIMATORS.items()}


def logits(*shape):
    size = int(np.prod(shape))
    numbers = st.lists(st.floats(-2, 2), min_size=size, max_size=size)
    return numbers.map(lambda values: np.reshape(values, shape))


def numerical_gradient(function, z, step=1e-5):
    """Central differences in every coordinate of z."""
    gradient = np.empty_like(z)
    for i in np.ndindex(*z.shape):
        shift = np.zeros_like(z)
        shift[i] = step
        gradient[i] = (function(z + shift) - function(z - shift)) / (2 * step)
    return gradient


def kl(q, p):
    return float(np.sum(q * np.log(q / p)))


@given(logits(3), logits(3), logits(3))
def test_expected_gradients_are_differences_of_what_a_trainer_differentiates(z, z_ref, z_old):
    policy, reference, sampler = softmax(z), softmax(z_ref), softmax(z_old)

    def log_r(z):
        return np.log(reference / softmax(z))

    for name, k in FUNCTIONS.items():
        # A reward is a number: it is computed here, once, and only log π is differentiated.
        reward = k(log_r(z))
        losses = {
            "reward": (policy, lambda z, reward=reward: reward * np.log(softmax(z))),
            "loss": (policy, lambda z, k=k: k(log_r(z))),
            "weighted loss": (sampler, lambda z, k=k: softmax(z) / sampler * k(log_r(z))),
            "detached weight": (sampler, lambda z, k=k: policy / sampler * k(log_r(z))),
            "weighted reward": (
                sampler,
                lambda z, reward=reward: policy / sampler * reward * np.log(softmax(z)),
            ),
        }
        for placement, (law, loss) in losses.items():
            wanted = numerical_gradient(lambda z, law=law, f=loss: law @ f(z), z)
            old = None if law is policy else sampler
            found = expected_gradient(name, placement, policy, reference, old)
            assert found == pytest.approx(wanted, abs=2e-6), (name, placement)


@given(logits(4), logits(4))
def test_on_policy_gradients_in_closed_form(z, z_ref):
    policy, reference = softmax(z), softmax(z_ref)
    log_r = np.log(reference / policy)
    reverse = policy * (-log_r - kl(policy, reference))
    forward = policy - reference
    wanted = {
        ("k1", "loss"): 0 * policy,
        ("k1", "reward"): reverse,
        ("k2", "loss"): reverse,
        ("k3", "loss"): forward,
        ("k3", "reward"): reverse - forward,
        ("k3", "weighted loss"): reverse,
    }
    for (name, placement), value in wanted.items():
        found = expected_gradient(name, placement, policy, reference)
        assert found == pytest.approx(value, abs=1e-12)


def test_softmax_of_large_logits():
    assert softmax([1000.0, 1000.0]).tolist() == [0.5, 0.5]
    assert softmax([[0.0, 0.0], [0.0, np.log(3)]])[1] == pytest.approx([0.25, 0.75])


def enumerated(policy):
    """Every sequence with its probability and its (position, last token, token) triples."""
    length, size = policy.logits.shape[:2]
    for y in itertools.product(range(size), repeat=length):
        triples = [(t, y[t - 1] if t else 0, y[t]) for t in range(length)]
        yield np.prod([policy.probabilities[i] for i in triples]), triples


@given(logits(3, 2, 2), logits(3, 2, 2), logits(3, 2, 2))
def test_values_and_gradients_of_tables(z, z_ref, reward):
    policy, reference = TablePolicy(z), TablePolicy(z_ref)
    log_r = policy.log_ratio(reference)
    sequences = list(enumerated(policy))
    total = sum(weight * sum(reward[i] for i in triples) for weight, triples in sequences)
    assert policy.value(reward) == pytest.approx(total)
    divergence = sum(weight * sum(-log_r[i] for i in triples) for weight, triples in sequences)
    assert policy.kl(reference) == pytest.approx(divergence, abs=1e-12)
    assert policy.value(-log_r) == pytest.approx(divergence, abs=1e-12)
    assert policy.to_go(reward)[0, 0] == pytest.approx(total)
    wanted = numerical_gradient(lambda z: TablePolicy(z).value(reward), z)
    assert policy.gradient(reward) == pytest.approx(wanted, abs=1e-6)
    wanted = numerical_gradient(lambda z: TablePolicy(z).kl(reference), z)
    assert policy.gradient(-log_r) == pytest.approx(wanted, abs=1e-6)
    # Frozen prefixes: differentiate Σ_t k2 in every sequence, with its probability held fixed.
    frozen = numerical_gradient(
        lambda z: sum(
            weight * sum(TablePolicy(z).log_ratio(reference)[i] ** 2 / 2 for i in triples)
            for weight, triples in sequences
        ),
        z,
    )
    assert policy.frozen_prefix_gradient(-log_r) == pytest.approx(frozen, abs=1e-6)


@given(logits(3, 2, 2), logits(3, 2, 2), logits(3, 2, 2), st.floats(0.3, 3))
def test_the_optimum_is_the_tilted_reference(z, z_ref, reward, beta):
    reference = TablePolicy(z_ref)
    best = TablePolicy.optimum(reference, reward, beta)
    tilted = [
        weight * np.exp(sum(reward[i] for i in triples) / beta)
        for weight, triples in enumerated(reference)
    ]
    wanted = np.array(tilted) / sum(tilted)
    assert [weight for weight, _ in enumerated(best)] == pytest.approx(wanted)
    value = best.value(reward) - beta * best.kl(reference)
    assert value == pytest.approx(beta * np.log(sum(tilted)))
    other = TablePolicy(z)
    gap = value - (other.value(reward) - beta * other.kl(reference))
    assert gap == pytest.approx(beta * other.kl(best), abs=1e-9)


def test_samples_follow_the_policy():
    policy = TablePolicy(np.arange(12.0).reshape(3, 2, 2) / 5)
    tokens = policy.sample(20_000, np.random.Generator(np.random.PCG64(3)))
    chance = np.array([weight for weight, _ in enumerated(policy)])
    counts = np.bincount(tokens @ [4, 2, 1], minlength=8)
    error = np.sqrt(20_000 * chance * (1 - chance))
    assert np.all(np.abs(counts - 20_000 * chance) < 5 * error)


def test_no_draw_falls_behind_the_last_token():
    class LastNumber:
        def random(self, count):
            return np.full(count, np.nextafter(1.0, 0.0))

    policy = TablePolicy(np.log(np.full((1, 7, 7), 1 / 7)))
    assert policy.sample(3, LastNumber()).tolist() == [[6]] * 3


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="estimator is 'k4'; choose one of k1, k2, k3"):
        expected_gradient("k4", "loss", [1.0], [1.0])
    with pytest.raises(ValueError, match="placement is 'lost'; choose one of reward, loss"):
        expected_gradient("k3", "lost", [1.0], [1.0])
    with pytest.raises(ValueError, match="policy must be a list of positive probabilities"):
        expected_gradient("k3", "loss", [0.5, 0.6], [0.5, 0.5])
    with pytest.raises(ValueError, match="reference must be a list of positive probabilities"):
        expected_gradient("k3", "loss", [0.5, 0.5], [1.0, 0.0])
    with pytest.raises(ValueError, match="sampler has 3 actions"):
        expected_gradient("k3", "loss", [0.5, 0.5], [0.5, 0.5], [0.5, 0.25, 0.25])
    with pytest.raises(ValueError, match="logits holds a value that is not finite"):
        softmax([0.0, -np.inf])
    with pytest.raises(ValueError, match=r"give \(T, V, V\)"):
        TablePolicy([[0.0, 0.0]])
    with pytest.raises(ValueError, match="not finite"):
        TablePolicy([[[np.nan]]])
    for beta in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match=r"beta is .*; give a positive number"):
            TablePolicy.optimum(TablePolicy([[[0.0]]]), 0.0, beta)


def test_every_estimator_has_every_placement():
    assert set(policies.COEFFICIENTS) == set(itertools.product(FUNCTIONS, policies.PLACEMENTS))
