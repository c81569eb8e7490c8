"""What `identify` says of losses whose parts are known, without PyTorch or JAX.

A loss is written once, as a formula; its derivative is taken with a complex step, which is exact,
and where the gradient is stopped the real part is taken.
"""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import klapprox as kl
from klapprox.exact.policies import PLACEMENTS, expected_gradient
from klapprox.identification import Identification
from klapprox.identification._policies import KNOWN, trees

ROOT = Path(__file__).resolve().parents[1]
sg = np.real


def differentiated(loss):
    """Return the loss with the derivative of its sum, as `identify` wants it of NumPy."""

    def both(log_pi, log_ref, log_old, mask):
        value = np.asarray(loss(log_pi, log_ref, log_old, mask))
        slope = np.zeros_like(log_pi)
        for index in np.ndindex(log_pi.shape):
            live = log_pi.astype(np.result_type(log_pi, np.complex64))
            live[index] += 1e-30j
            moved = np.asarray(loss(live, log_ref, log_old, mask))
            if moved.shape == log_pi.shape:
                moved = np.where(mask, moved, 0)
            slope[index] = np.imag(moved.sum()) / 1e-30
        return value, slope

    return both


def identified(loss):
    return kl.identify(differentiated(loss), framework="numpy")


def k1(x):
    return -x


def k2(x):
    return x * x / 2


def k3(x):
    return np.expm1(x) - x


def absolute(x):
    return np.where(np.real(x) < 0, -x, x)


def clipped(x, low, high):
    return np.where(np.real(x) < low, low, np.where(np.real(x) > high, high, x))


def summed(values, mask):
    return np.where(mask, values, 0).sum(axis=-1).mean()


def keys(found, *, responses=None):
    return [g.key for g in found.gradients if responses in (None, g.responses)]


# ---- the fields ----------------------------------------------------------------------------------


def derivative(objective, tree):
    """Return the derivative of a function of log-laws in the logits of the policy, exactly."""
    slope = np.zeros_like(tree.pi)
    for index in np.ndindex(slope.shape):
        z = tree.pi.astype(complex)
        z[index] += 1e-30j
        slope[index] = np.imag(objective(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))) / 1e-30
    return slope


def objectives(tree):
    """Return, by key, what each field is the gradient of; frozen laws are those of the tree."""
    total = lambda values: values.sum(axis=1)  # noqa: E731
    law = lambda table: np.exp(total(tree.logs_of(table)))  # noqa: E731
    x = lambda pi: tree.logs_of(tree.ref) - tree.logs_of(pi)  # noqa: E731
    old = tree.pi if tree.on_policy else tree.old
    tau = tree.length[:, 0]

    def after_prefixes(of, sampler):
        """Return Σ_t E[f_t] for a function of the next-token laws, prefixes from the sampler."""
        visits = tree.visits(sampler)
        return lambda pi: visits @ of(pi, tree.ref).sum(axis=1)

    def reverse(pi, ref):
        return np.exp(pi) * (pi - ref)

    def forward(pi, ref):
        return np.exp(ref) * (ref - pi)

    def square(pi, ref):
        return np.exp(pi) * k2(ref - pi)

    def chi(pi, ref):
        return np.exp(2 * pi - ref) / 2

    def variation(pi, ref):
        return np.sign(np.real(pi - ref)) * np.exp(pi)

    def drawn(pi, ref):
        return np.exp(pi) * (old - ref)

    def mean(of, sampler):
        """Return the mean of a function of the responses' log-ratios, from a frozen sampler."""
        weights = law(sampler)
        return lambda pi: weights @ of(x(pi))

    def reward(of):
        """Return the mean of a frozen reward."""
        return lambda pi: law(pi) @ of(x(tree.pi))

    def moving(of):
        return lambda pi: law(pi) @ of(x(pi))

    def kl_to(table):
        return lambda pi: law(pi) @ total(tree.logs_of(pi) - tree.logs_of(table))

    then = tree.logs_of(tree.ref) - tree.logs_of(old)
    frozen = total(then)
    whole = {"k2": lambda v: k2(total(v)), "k3": lambda v: k3(total(v))}
    tokens = {"k2": lambda v: total(k2(v)), "k3": lambda v: total(k3(v))}
    return {
        "zero": lambda pi: pi.sum() * 0,
        "reverse_kl": kl_to(tree.ref),
        "forward_kl": lambda pi: law(tree.ref) @ total(x(pi)),
        "token_reverse_kl": after_prefixes(reverse, tree.pi),
        "token_forward_kl": after_prefixes(forward, tree.pi),
        "frozen_prefix_reverse_kl": after_prefixes(reverse, old),
        "frozen_prefix_forward_kl": after_prefixes(forward, old),
        "inverse_length": lambda pi: law(pi) @ (1 / tau),
        "length_k2": mean(lambda v: tokens["k2"](v) / tau, tree.pi),
        "length_k3": mean(lambda v: tokens["k3"](v) / tau, tree.pi),
        "mean_k2": moving(whole["k2"]),
        "token_mean_k2": after_prefixes(square, tree.pi),
        "frozen_prefix_mean_k2": after_prefixes(square, old),
        "away_from_old": lambda pi: law(old) @ total(tree.logs_of(pi)),
        "stale_k2": mean(tokens["k2"], old),
        "stale_k3": mean(tokens["k3"], old),
        "stale_sequence_k2": mean(whole["k2"], old),
        "stale_sequence_k3": mean(whole["k3"], old),
        "reward_k2": reward(whole["k2"]),
        "reward_k3": lambda pi: kl_to(tree.ref)(pi) - law(tree.ref) @ total(x(pi)),
        "reward_token_k2": reward(tokens["k2"]),
        "reward_token_k3": reward(tokens["k3"]),
        "own_token_k3": lambda pi: (
            after_prefixes(reverse, tree.pi)(pi) - after_prefixes(forward, tree.pi)(pi)
        ),
        "frozen_penalty": lambda pi: kl_to(tree.ref)(pi) - kl_to(old)(pi),
        "frozen_k2": lambda pi: law(pi) @ k2(frozen),
        "frozen_k3": lambda pi: law(pi) @ k3(frozen),
        "frozen_token_k2": lambda pi: (
            law(pi) @ total(k2(tree.logs_of(tree.ref) - tree.logs_of(old)))
        ),
        "frozen_token_k3": lambda pi: (
            law(pi) @ total(k3(tree.logs_of(tree.ref) - tree.logs_of(old)))
        ),
        "frozen_prefix_frozen_penalty": after_prefixes(
            lambda pi, ref: np.exp(pi) * (old - ref), old
        ),
        "frozen_entropy": lambda pi: law(pi) @ total(tree.logs_of(old)),
        "half_chi_squared": moving(lambda v: np.exp(-total(v)) / 2),
        "token_half_chi_squared": after_prefixes(chi, tree.pi),
        "total_variation": lambda pi: np.sign(-total(x(tree.pi))) @ law(pi),
        "token_total_variation": after_prefixes(variation, tree.pi),
        "toward_old_reverse": kl_to(old),
        "entropy": lambda pi: law(pi) @ total(tree.logs_of(pi)),
    }


class Enumerated:
    """A tree whose log-laws may be complex, and the chances of its prefixes."""

    def __init__(self, tree):
        self.tree = tree

    def __getattr__(self, name):
        return getattr(self.tree, name)

    def logs_of(self, table):
        tokens, nodes, mask = self.tree._responses
        return np.where(mask, table[nodes, tokens], 0)

    def visits(self, table):
        _, nodes, mask = self.tree._responses
        law = np.exp(self.logs_of(table).sum(axis=1))
        visits = np.zeros(len(table))
        for i in range(len(nodes)):
            for node in nodes[i, mask[i]]:
                visits[node] += law[i]
        return visits


@pytest.mark.parametrize("responses", [False, True], ids=["one action", "responses"])
@pytest.mark.parametrize("on_policy", [True, False], ids=["on-policy", "off-policy"])
@pytest.mark.parametrize("field", KNOWN, ids=lambda field: field.key)
def test_a_known_field_is_the_gradient_it_is_said_to_be(field, on_policy, responses):
    for tree in trees(on_policy, responses):
        wanted = derivative(objectives(Enumerated(tree))[field.key], tree)
        found = tree.mean(field.coefficient(tree))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14)


def test_every_response_is_there_once_and_ends():
    for on_policy in (True, False):
        for tree in trees(on_policy, True):
            assert math.isclose(tree.sampler.sum(), 1, abs_tol=1e-14)
        assert [len(tree.sampler) for tree in trees(on_policy, True)] == [7, 15]
        assert {float(n) for n in tree.length[:, 0]} == {1, 2, 3}


def test_the_label_of_each_field_stands_in_the_chapter_that_is_named():
    gradient = identified(lambda p, r, o, m: summed(p - r, m)).gradients[0]
    for field in KNOWN:
        for label in field.labels:
            named = SimpleNamespace(label=label)
            chapter = type(gradient).chapter.fget(named)
            text = (ROOT / "chapters" / f"{chapter}.ipynb").read_text(encoding="utf-8")
            assert f":label: {label}\\n" in text, (field.key, label, chapter)


# ---- every placement of the book -----------------------------------------------------------------


FUNCTIONS = {"k1": k1, "k2": k2, "k3": k3}

PLACED = {
    "reward": lambda k, p, r, o: sg(k(r - p)) * p,
    "loss": lambda k, p, r, o: k(r - p),
    "weighted loss": lambda k, p, r, o: np.exp(p - o) * k(r - p),
    "detached weight": lambda k, p, r, o: sg(np.exp(p - o)) * k(r - p),
    "weighted reward": lambda k, p, r, o: np.exp(p - o) * sg(k(r - p)),
    "frozen reward": lambda k, p, r, o: np.exp(p - o) * k(r - o),
}

# One action: on-policy, off-policy. The tables of thm-on-policy-gradients and
# thm-off-policy-gradients.
ONE_ACTION = {
    ("k1", "reward"): ("reverse_kl", "stale_k2"),
    ("k2", "reward"): ("reward_k2", "none"),
    ("k3", "reward"): ("reward_k3", "none"),
    ("k1", "loss"): ("zero", "away_from_old"),
    ("k2", "loss"): ("reverse_kl", "stale_k2"),
    ("k3", "loss"): ("forward_kl", "stale_k3"),
    ("k1", "weighted loss"): ("reverse_kl", "reverse_kl"),
    ("k2", "weighted loss"): ("mean_k2", "mean_k2"),
    ("k3", "weighted loss"): ("reverse_kl", "reverse_kl"),
    ("k1", "detached weight"): ("zero", "zero"),
    ("k2", "detached weight"): ("reverse_kl", "reverse_kl"),
    ("k3", "detached weight"): ("forward_kl", "forward_kl"),
    ("k1", "weighted reward"): ("reverse_kl", "reverse_kl"),
    ("k2", "weighted reward"): ("reward_k2", "reward_k2"),
    ("k3", "weighted reward"): ("reward_k3", "reward_k3"),
    ("k1", "frozen reward"): ("reverse_kl", "frozen_penalty"),
    ("k2", "frozen reward"): ("reward_k2", "frozen_k2"),
    ("k3", "frozen reward"): ("reward_k3", "frozen_k3"),
}
WAYS = {
    "weighted loss": "differentiated",
    "detached weight": "detached",
    "weighted reward": "weight only",
    "frozen reward": "differentiated",
}


@pytest.mark.parametrize(("estimator", "placement"), list(ONE_ACTION), ids=" ".join)
def test_every_placement_of_the_book(estimator, placement):
    k, place = FUNCTIONS[estimator], PLACED[placement]
    found = identified(lambda p, r, o, m: summed(place(k, p, r, o), m))
    assert tuple(keys(found, responses=False)) == ONE_ACTION[estimator, placement]
    assert (found.value, found.level, found.credit) == (estimator, "token", "own")
    assert found.ratio == ("pi_ref/pi_old" if placement == "frozen reward" else "pi_ref/pi")
    assert found.form == ("score" if placement == "reward" else "plain")
    assert found.weight == ("token" if placement in WAYS else "none")
    assert found.weight_gradient == WAYS.get(placement, "")
    assert found.normalisation == "mean of sequence sums"
    whole = ("loss", "weighted loss", "frozen reward")
    assert found.is_derivative_of_value == (placement in whole)
    assert found.error < 1e-13


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("estimator", FUNCTIONS)
def test_the_numbers_are_those_of_the_exact_sum_over_actions(estimator, placement):
    k, place = FUNCTIONS[estimator], PLACED[placement]
    found = identified(lambda p, r, o, m: summed(place(k, p, r, o), m))
    for gradient in found.gradients[:2]:
        wanted = []
        for tree in trees(gradient.on_policy, False):
            policy, ref, old = np.exp([tree.pi[0], tree.ref[0], tree.old[0]])
            sampler = policy if gradient.on_policy else old
            wanted.extend(expected_gradient(estimator, placement, policy, ref, sampler))
        np.testing.assert_allclose(gradient.numbers, wanted, rtol=0, atol=1e-14)


# Responses: on-policy, off-policy. thm-missing-term, prop-frozen-prefixes, cor-prefix-weights.
def whole(values, mask):
    return np.broadcast_to(np.where(mask, values, 0).sum(axis=-1, keepdims=True), mask.shape)


def prefix(log_w, mask):
    return np.exp(np.cumsum(np.where(mask, log_w, 0), axis=-1))


RESPONSES = {
    "k1 loss": (lambda p, r, o, m: summed(p - r, m), ("zero", "away_from_old")),
    "k2 loss": (lambda p, r, o, m: summed(k2(r - p), m), ("token_reverse_kl", "stale_k2")),
    "k3 loss": (lambda p, r, o, m: summed(k3(r - p), m), ("token_forward_kl", "stale_k3")),
    "w k3": (
        lambda p, r, o, m: summed(np.exp(p - o) * k3(r - p), m),
        ("token_reverse_kl", "frozen_prefix_reverse_kl"),
    ),
    "sg(w) k3": (
        lambda p, r, o, m: summed(sg(np.exp(p - o)) * k3(r - p), m),
        ("token_forward_kl", "frozen_prefix_forward_kl"),
    ),
    "w k2": (
        lambda p, r, o, m: summed(np.exp(p - o) * k2(r - p), m),
        ("token_mean_k2", "frozen_prefix_mean_k2"),
    ),
    "W_t k3": (
        lambda p, r, o, m: summed(prefix(p - o, m) * k3(r - p), m),
        ("reverse_kl", "reverse_kl"),
    ),
    "W_t k1": (
        lambda p, r, o, m: summed(prefix(p - o, m) * k1(r - p), m),
        ("reverse_kl", "reverse_kl"),
    ),
    "W_t sg(k1)": (
        lambda p, r, o, m: summed(prefix(p - o, m) * sg(k1(r - p)), m),
        ("reverse_kl", "reverse_kl"),
    ),
    "k2 of the response": (
        lambda p, r, o, m: k2(whole(r - p, m)[:, 0]).mean(),
        ("reverse_kl", "stale_sequence_k2"),
    ),
    "k3 of the response": (
        lambda p, r, o, m: k3(whole(r - p, m)[:, 0]).mean(),
        ("forward_kl", "stale_sequence_k3"),
    ),
    "W k3 of the response": (
        lambda p, r, o, m: (np.exp(whole(p - o, m)) * k3(whole(r - p, m)))[:, 0].mean(),
        ("reverse_kl", "reverse_kl"),
    ),
    "sg(W) k3 of the response": (
        lambda p, r, o, m: (sg(np.exp(whole(p - o, m))) * k3(whole(r - p, m)))[:, 0].mean(),
        ("forward_kl", "forward_kl"),
    ),
    "k1 to go in the reward": (
        lambda p, r, o, m: summed(
            sg(whole(p - r, m) - np.cumsum(np.where(m, p - r, 0), -1) + p - r) * p, m
        ),
        ("reverse_kl", "none"),
    ),
    "k3 to go in the reward": (
        lambda p, r, o, m: summed(sg(whole(k3(r - p), m)) * p, m),
        ("reward_token_k3", "none"),
    ),
    "k2 of tokens in the reward": (
        lambda p, r, o, m: summed(sg(whole(k2(r - p), m)) * p, m),
        ("reward_token_k2", "none"),
    ),
    "k3 as a reward of the token alone": (
        lambda p, r, o, m: summed(sg(k3(r - p)) * p, m),
        ("own_token_k3", "none"),
    ),
    "frozen k1, weighted": (
        lambda p, r, o, m: (np.exp(whole(p - o, m)) * whole(o - r, m))[:, 0].mean(),
        ("reverse_kl", "frozen_penalty"),
    ),
    "frozen k1 of each token": (
        lambda p, r, o, m: summed(np.exp(p - o) * (o - r), m),
        ("token_reverse_kl", "frozen_prefix_frozen_penalty"),
    ),
    "frozen k2 of the tokens": (
        lambda p, r, o, m: (np.exp(whole(p - o, m)) * whole(k2(r - o), m))[:, 0].mean(),
        ("reward_token_k2", "frozen_token_k2"),
    ),
    "frozen k3 of the tokens": (
        lambda p, r, o, m: (np.exp(whole(p - o, m)) * whole(k3(r - o), m))[:, 0].mean(),
        ("reward_token_k3", "frozen_token_k3"),
    ),
    "the frozen entropy": (
        lambda p, r, o, m: (np.exp(whole(p - o, m)) * whole(o, m))[:, 0].mean(),
        ("entropy", "frozen_entropy"),
    ),
    "k1 divided by the length": (
        lambda p, r, o, m: (np.where(m, p - r, 0).sum(-1) / m.sum(-1)).mean(),
        ("inverse_length", "none"),
    ),
    "k2 divided by the length": (
        lambda p, r, o, m: (np.where(m, k2(r - p), 0).sum(-1) / m.sum(-1)).mean(),
        ("length_k2", "none"),
    ),
    "k3 divided by the length": (
        lambda p, r, o, m: (np.where(m, k3(r - p), 0).sum(-1) / m.sum(-1)).mean(),
        ("length_k3", "none"),
    ),
    "swapped k3": (
        lambda p, r, o, m: summed(k3(p - r), m),
        ("token_half_chi_squared", "none"),
    ),
    "|k1|": (lambda p, r, o, m: summed(absolute(r - p), m), ("token_total_variation", "none")),
    "|k1| of the response": (
        lambda p, r, o, m: absolute(whole(r - p, m)[:, 0]).mean(),
        ("total_variation", "none"),
    ),
    "w log π": (
        lambda p, r, o, m: (np.exp(whole(p - o, m)) * whole(p, m))[:, 0].mean(),
        ("entropy", "entropy"),
    ),
    "W log w": (
        lambda p, r, o, m: (np.exp(whole(p - o, m)) * whole(p - o, m))[:, 0].mean(),
        ("zero", "toward_old_reverse"),
    ),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_responses_have_the_fields_of_the_book(name):
    loss, wanted = RESPONSES[name]
    found = identified(loss)
    assert tuple(keys(found, responses=True)) == wanted
    for gradient in found.gradients:
        if gradient.key not in ("none", "zero"):
            assert math.isclose(gradient.factor, 1, rel_tol=1e-12)
            assert gradient.error < 1e-12


# ---- the parts -----------------------------------------------------------------------------------


def mean_weight(p, o, m):
    """Return the geometric mean of π/π_old over each response."""
    return np.exp(whole(p - o, m) / m.sum(axis=-1, keepdims=True))


WEIGHTS = {
    "token": lambda p, o, m: np.exp(p - o),
    "prefix": lambda p, o, m: prefix(p - o, m),
    "sequence": lambda p, o, m: np.exp(whole(p - o, m)),
    "sequence mean": mean_weight,
    "prefix before": lambda p, o, m: prefix(p - o, m) / np.exp(p - o),
    "suffix": lambda p, o, m: np.exp(whole(p - o, m)) / prefix(p - o, m) * np.exp(p - o),
}


@pytest.mark.parametrize("estimator", FUNCTIONS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_weights_of_every_kind(weight, estimator):
    w, k = WEIGHTS[weight], FUNCTIONS[estimator]
    ways = {
        "detached": lambda p, r, o, m: summed(sg(w(p, o, m)) * k(r - p), m),
        "differentiated": lambda p, r, o, m: summed(w(p, o, m) * k(r - p), m),
        "weight only": lambda p, r, o, m: summed(w(p, o, m) * sg(k(r - p)), m),
        "gradient only": lambda p, r, o, m: summed(
            sg(w(p, o, m)) * (k(r - p) - sg(k(r - p))) + sg(k(r - p)), m
        ),
        "value only": lambda p, r, o, m: summed(
            k(r - p) - sg(k(r - p)) + sg(w(p, o, m) * k(r - p)), m
        ),
    }
    for way, loss in ways.items():
        if weight in ("prefix before", "suffix") and way == "weight only":
            continue  # the credit is none of the known ones
        found = identified(loss)
        assert (found.weight, found.weight_gradient) == (weight, way), way
        assert found.value == estimator
        assert found.is_derivative_of_value == (way == "differentiated"), way


def test_weights_that_are_put_together_in_unusual_ways():
    def way(loss):
        found = identified(loss)
        return found.value_weight, found.gradient_weight, found.weight_gradient

    def w(p, o):
        return sg(np.exp(p - o))

    def strange(p, r):  # the value zero, a derivative that is none of the known ones
        return (p - r) ** 4 + p - r - sg((p - r) ** 4 + p - r)

    # The value of k2 and the gradient of k3, both weighted.
    one = way(lambda p, r, o, m: summed(w(p, o) * (sg(k2(r - p)) + k3(r - p) - sg(k3(r - p))), m))
    assert one == ("token", "token", "detached")
    # Weights of tokens in the value, of prefixes in the gradient.
    two = way(
        lambda p, r, o, m: summed(
            sg(w(p, o) * k2(r - p)) + sg(prefix(p - o, m)) * (k2(r - p) - sg(k2(r - p))), m
        )
    )
    assert two == ("token", "prefix", "unknown")
    # A weighted value with a gradient that is none of the known ones, and one that is k2 itself.
    three = way(lambda p, r, o, m: summed(w(p, o) * (sg(k3(r - p)) + strange(p, r)), m))
    assert three == ("token", "none", "unknown")
    four = way(lambda p, r, o, m: summed(w(p, o) * sg(k3(r - p)) * (1 + 0 * p), m))
    assert four == ("token", "none", "detached")
    five = way(
        lambda p, r, o, m: summed(w(p, o) * (sg(k3(r - p)) + sg(k2(r - p)) * (p - sg(p))), m)
    )
    assert five == ("token", "token", "unknown")


@pytest.mark.parametrize(
    ("estimator", "level"), [("k2", "sequence"), ("k3", "sequence"), ("k3", "sequence mean")]
)
def test_functions_of_the_ratio_of_the_whole_response(estimator, level):
    k = FUNCTIONS[estimator]

    def pooled(a, m):
        return whole(a, m)[:, 0] / (1 if level == "sequence" else m.sum(axis=-1))

    plain = identified(lambda p, r, o, m: k(pooled(r - p, m)).mean())
    assert (plain.level, plain.credit, plain.weight) == (level, "whole", "none")
    assert plain.normalisation == "mean of sequence sums"
    assert plain.is_derivative_of_value
    for way, stop in (("differentiated", lambda w: w), ("detached", sg)):

        def loss(p, r, o, m, stop=stop):
            return (stop(np.exp(pooled(p - o, m))) * k(pooled(r - p, m))).mean()

        found = identified(loss)
        assert (found.level, found.weight, found.weight_gradient) == (level, level, way)


LIMITS = {
    "above": ("truncated", (0, 2), lambda w: clipped(w, 0, 2)),
    "below and above": ("truncated", (0.8, 1.2), lambda w: clipped(w, 0.8, 1.2)),
    "below": ("truncated", (0.5, math.inf), lambda w: clipped(w, 0.5, 1e9)),
    "at one": ("truncated", (0, 1), lambda w: clipped(w, 0, 1)),
    "dropped": ("dropped", (0.5, 5), lambda w: np.where(abs(np.log(w / 5 * 2)) > 1, 0, w)),
    "other": ("other", (0, 2), lambda w: np.where(np.real(w) > 2, 3, w)),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_of_the_weight(name):
    outside, limits, limit = LIMITS[name]
    if name == "dropped":
        limits = (0.5, 5)
        limit = lambda w: np.where((np.real(w) < 0.5) | (np.real(w) > 5), 0, w)  # noqa: E731
    found = identified(lambda p, r, o, m: summed(sg(limit(np.exp(p - o))) * k2(r - p), m))
    assert (found.weight, found.weight_outside) == ("token", outside)
    np.testing.assert_allclose(found.weight_limits, limits, rtol=1e-3)
    formulas = {gradient.formula for gradient in found.gradients}
    # Where there are policies inside the limits, the fields are those without them.
    wanted = ("none", "none") if name == "at one" else ("reverse_kl", "frozen_prefix_reverse_kl")
    assert (keys(found)[1], keys(found)[3]) == wanted
    assert formulas == {""}


def test_two_known_fields_are_not_multiples_of_each_other():
    """Off-policy, with responses, nothing coincides; so a name is not an accident."""
    tried = trees(False, True)
    flat = [np.concatenate([y.mean(f.coefficient(y)).ravel() for y in tried]) for f in KNOWN[1:]]
    for i, a in enumerate(flat):
        for b in flat[:i]:
            off = a - (a @ b) / (b @ b) * b
            assert np.max(np.abs(off)) > 1e-3 * np.max(np.abs(a))


def test_a_clamp_of_the_weighted_value_is_no_limit_of_the_weight():
    found = identified(lambda p, r, o, m: summed(clipped(np.exp(p - o) * k3(r - p), -10, 10), m))
    assert (found.weight, found.weight_gradient) == ("token", "differentiated")
    assert (found.weight_limits, found.weight_outside) == ((0, math.inf), "")
    assert found.clamp == "weighted value"
    assert "A clamp acts on the weighted value" in str(found)
    before = identified(lambda p, r, o, m: summed(np.exp(p - o) * clipped(k3(r - p), -9, 9), m))
    assert before.clamp == "value"


def test_a_loss_may_refuse_weights_that_are_too_large():
    def loss(p, r, o, m):
        if np.any(np.real(p - o) > 3):
            raise ValueError("the weight overflows")
        return summed(np.exp(p - o) * k3(r - p), m)

    found = identified(loss)
    assert (found.weight, found.weight_limits) == ("token", (0, math.inf))


VALUES = {
    "k1 swapped": (lambda p, r, o: r - p, ("k1", "pi/pi_ref", 1)),
    "k3 swapped": (lambda p, r, o: k3(p - r), ("k3", "pi/pi_ref", 1)),
    "minus k3": (lambda p, r, o: -0.5 * k3(r - p), ("k3", "pi_ref/pi", -0.5)),
    "k2": (lambda p, r, o: 0.001 * k2(p - r), ("k2", "pi_ref/pi", 0.001)),
    "|k1|": (lambda p, r, o: absolute(p - r), ("abs_k1", "pi_ref/pi", 1)),
    "k_lambda": (lambda p, r, o: p - r + 0.3 * np.expm1(r - p), ("k_lambda", "pi_ref/pi", 1)),
    "k_lambda swapped": (
        lambda p, r, o: r - p + 0.3 * np.expm1(p - r),
        ("k_lambda", "pi/pi_ref", 1),
    ),
    "frozen": (lambda p, r, o: k3(r - o) + 0 * p, ("k3", "pi_ref/pi_old", 1)),
    "frozen, swapped": (lambda p, r, o: k3(o - r) + 0 * p, ("k3", "pi_old/pi_ref", 1)),
    "to old": (lambda p, r, o: k3(o - p), ("k3", "pi_old/pi", 1)),
    "from old": (lambda p, r, o: k3(p - o), ("k3", "pi/pi_old", 1)),
    "log π": (lambda p, r, o: 0.01 * p, ("log_pi", "none", 0.01)),
    "log π_ref": (lambda p, r, o: r + 0 * p, ("log_ref", "none", 1)),
    "log π_old": (lambda p, r, o: o + 0 * p, ("log_old", "none", 1)),
    "a constant": (lambda p, r, o: 2 + 0 * p, ("constant", "none", 2)),
    "zero": (lambda p, r, o: 0 * p, ("none", "none", math.nan)),
    "r - 1": (lambda p, r, o: np.expm1(r - p), ("none", "none", math.nan)),
    "strange": (lambda p, r, o: (p - r) ** 2 * (1 + 0.3 * (p - r)), ("none", "none", math.nan)),
    "nearly k1": (lambda p, r, o: p - r + 0.001 * (p - r) ** 2, ("none", "none", math.nan)),
    "cosh": (lambda p, r, o: np.cosh(p - r) - 1, ("none", "none", math.nan)),
    "Taylor": (lambda p, r, o: k2(r - p) + (r - p) ** 3 / 6, ("none", "none", math.nan)),
    "of the weight": (lambda p, r, o: (np.exp(p - o) - 1) ** 2, ("none", "none", math.nan)),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name):
    value, wanted = VALUES[name]
    found = identified(lambda p, r, o, m: summed(value(p, r, o), m))
    assert (found.value, found.ratio) == wanted[:2]
    np.testing.assert_allclose(found.scale, wanted[2], rtol=1e-12)
    assert (found.lam is not None) == (wanted[0] == "k_lambda")
    if found.lam is not None:
        assert math.isclose(found.lam, 0.3, rel_tol=1e-9)
    assert found.swapped == (found.ratio == "pi/pi_ref")
    assert found.is_derivative_of_value
    assert len(str(found).splitlines()) >= 9


def test_directions():
    assert identified(lambda p, r, o, m: summed(k3(p - r), m)).direction == "KL(π_ref‖π)"
    assert identified(lambda p, r, o, m: summed(k3(p - o), m)).direction == "KL(π_old‖π)"
    assert identified(lambda p, r, o, m: summed(p, m)).direction == "none"


def test_k_lambda_in_every_placement():
    k = lambda x: -x + 0.3 * np.expm1(x)  # noqa: E731
    for placement, way in {**WAYS, "loss": ""}.items():
        found = identified(lambda p, r, o, m, f=PLACED[placement]: summed(f(k, p, r, o), m))
        assert (found.value, found.weight_gradient) == ("k_lambda", way), placement
    loss = identified(lambda p, r, o, m: summed(k(r - p), m)).gradients[0]
    assert loss.key == "forward_kl"  # λ∇K', ex-gradients-lambda
    assert math.isclose(loss.factor, 0.3, rel_tol=1e-9)


NORMALISATIONS = {
    "sum": lambda v, m: v.sum(),
    "mean over positions": lambda v, m: v.mean(),
    "mean over kept tokens": lambda v, m: v.sum() / m.sum(),
    "mean of sequence means": lambda v, m: (v.sum(-1) / m.sum(-1)).mean(),
    "mean of sequence sums": lambda v, m: v.sum(-1).mean(),
    "sum of sequence means": lambda v, m: (v.sum(-1) / m.sum(-1)).sum(),
    "sum of means over positions": lambda v, m: v.mean(-1).sum(),
    "other": lambda v, m: (v.sum(-1) / np.sqrt(m.sum(-1))).mean(),
    "none": lambda v, m: (v.sum(-1) / (1 + m.sum(-1))).mean(),
    "of no sign": lambda v, m: v.sum() * (2 - len(v)),
}


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_normalisations(name):
    reduce = NORMALISATIONS[name]
    for value in (lambda p, r: k3(r - p), lambda p, r: p):  # by its value, by its derivative
        found = identified(lambda p, r, o, m, v=value: reduce(np.where(m, v(p, r), 0), m))
        assert found.normalisation == name.replace("of no sign", "none")
        assert found.rows_independent
    if name == "other":
        assert found.exponents == (-1, 0, -0.5, 0)
    frozen = identified(lambda p, r, o, m: reduce(np.where(m, 1 + 0 * p, 0), m))
    assert frozen.normalisation == "none"


def test_a_mean_over_tokens_has_its_limit_beside_the_batch_of_one():
    reduce = NORMALISATIONS["mean over kept tokens"]
    found = identified(lambda p, r, o, m: reduce(np.where(m, k3(r - p), 0), m))
    batches = [(g.key, g.batch) for g in found.gradients if g.responses and g.on_policy]
    assert batches == [("length_k3", "one"), ("token_forward_kl", "many")]


def test_responses_that_change_each_other_are_seen():
    def loss(p, r, o, m):
        x = np.where(m, r - p, 0)
        return k2(x - sg(x).mean()).sum()

    assert not identified(loss).rows_independent
    assert "change each other's gradient" in str(identified(loss))


CLAMPS = {
    "value": (lambda p, r: clipped(k3(r - p), -10, 10), "value", (-11.0, 2.611), (10, 10)),
    "log r": (lambda p, r: k3(clipped(r - p, -3, 3)), "log r", (-3, 3), (2.0498, 16.0855)),
    "log r above": (lambda p, r: k3(clipped(r - p, -1e9, 3)), "log r", (None, 3), (None, 16.0855)),
    "narrow": (lambda p, r: k3(clipped(r - p, -0.2, 0.2)), "log r", (-0.2, 0.2), None),
    "k1": (lambda p, r: clipped(p - r, -10, 10), "either", (-10, 10), (10, -10)),
    "k1 above": (lambda p, r: clipped(p - r, -1e9, 10), "either", (-10, None), (10, None)),
    "k2": (lambda p, r: clipped(k2(p - r), 0, 10), "either", (-4.472, 4.472), (10, 10)),
    "k2, log r": (lambda p, r: k2(clipped(r - p, -2, 3)), "log r", (-2, 3), (2, 4.5)),
    "straight-through": (
        lambda p, r: sg(clipped(k3(r - p), 0, 10)) + k2(r - p) - sg(k2(r - p)),
        "value",
        (-11.0, 2.611),
        (10, 10),
    ),
    "none": (lambda p, r: k3(r - p), "", (None, None), (None, None)),
    "changes": (
        lambda p, r: np.where(abs(np.real(r - p)) > 5, 7 * (p - r), p - r),
        "",
        (-5, 5),
        (None, None),
    ),
    "soft": (lambda p, r: 10 * np.tanh(k2(r - p) / 10), "", (-1.06, 1.06), (None, None)),
}


@pytest.mark.parametrize("name", CLAMPS)
def test_clamps(name):
    value, clamp, edges, constants = CLAMPS[name]
    found = identified(lambda p, r, o, m: summed(value(p, r), m))
    assert found.clamp == clamp
    zero = name not in ("straight-through", "none", "changes", "soft")
    for edge, start, i in ((found.below, edges[0], 0), (found.above, edges[1], 1)):
        assert (edge.value_from is None) == (start is None)
        if start is not None:
            assert math.isclose(edge.value_from, start, rel_tol=2e-2)
            assert (edge.gradient_zero_from is not None) == zero
            assert (edge.value_is is None) == (not clamp)
            if clamp and constants is not None:
                assert math.isclose(edge.value_is, constants[i], rel_tol=1e-3)
    if zero:
        assert "the gradient is zero there" in str(found)
    if name == "changes":
        assert "The value is something else for log r above 5" in str(found)
    if name == "straight-through":
        assert "the gradient goes on" in str(found)
    assert keys(found)[0] not in ("none",)  # there are policies inside the limits


def test_edges_that_are_not_clamps():
    flat = identified(lambda p, r, o, m: summed(k3(r - p), m)).above
    assert math.isclose(flat.not_finite_from, 88.7, rel_tol=1e-2)
    lost = identified(lambda p, r, o, m: summed(np.exp(p - o) * k3(r - p), m)).above
    assert 15 < lost.gradient_lost_from < 25
    assert lost.gradient_zero_from is None

    def dead(p, r, o, m):  # the gradient stops, the value goes on
        x = r - p
        return summed(np.where(np.real(x) > 4, sg(k2(x)), k2(x)), m)

    found = identified(dead)
    assert math.isclose(found.above.gradient_zero_from, 4, rel_tol=1e-3)
    assert found.above.value_from is None
    assert "The gradient is zero for log r above 4." in str(found)

    def refusing(p, r, o, m):
        if np.any(np.abs(r - np.real(p)) > 30) or not np.all(m.any(axis=-1)):
            raise ValueError("too far")
        return summed(k1(r - p), m)

    found = identified(refusing)
    assert math.isclose(found.above.refused_from, 30, rel_tol=1e-3)
    assert math.isclose(found.below.refused_from, -30, rel_tol=1e-3)
    assert found.empty_response == "refused"
    assert "are refused where they hold" in str(found)

    def holey(p, r, o, m):  # a clamp behind which the loss raises
        if np.any(r - np.real(p) > 5.3):
            raise ValueError("too far")
        return summed(k1(clipped(r - p, -5, 5)), m)

    assert identified(holey).above.value_is is None


def test_masked_tokens():
    def effects(loss):
        found = identified(loss)
        return {name: (a["value"], a["gradient"]) for name, a in found.masked.items()}

    safe = effects(lambda p, r, o, m: summed(k3(np.where(m, r - p, 0)), m))
    assert set(safe.values()) == {("unchanged", "unchanged")}
    product = effects(lambda p, r, o, m: (k3(r - p) * m).sum(-1).mean())
    assert product["finite"] == ("unchanged", "unchanged")
    assert product["far apart"] == product["nan"] == ("not finite", "not finite")
    ignoring = effects(lambda p, r, o, m: k3(r - p).sum())
    assert ignoring["finite"] == ("changed", "changed")
    assert "change value or gradient where they hold finite numbers" in str(
        identified(lambda p, r, o, m: k3(r - p).sum())
    )
    only_value = effects(lambda p, r, o, m: (np.where(m, p, 0) - r * m).sum())
    assert only_value["nan"] == ("not finite", "unchanged")


def test_a_response_without_tokens():
    assert identified(lambda p, r, o, m: summed(k3(r - p), m)).empty_response == "finite"
    reduce = NORMALISATIONS["mean of sequence means"]
    found = identified(lambda p, r, o, m: reduce(np.where(m, k3(r - p), 0), m))
    assert found.empty_response == "not finite"
    assert "a response without any token" in str(found)


def test_a_number_that_is_not_differentiated_is_placed_in_the_reward():
    found = identified(lambda p, r, o, m: summed(sg(p) - r, m))
    assert found.derivative == "zero"
    assert found.credit == "zero"
    assert not found.is_derivative_of_value
    assert {g.placement for g in found.gradients} == {"reward"}
    assert set(keys(found)) == {"reverse_kl"}
    weighted = identified(lambda p, r, o, m: summed(np.exp(sg(p) - o) * (sg(p) - r), m))
    assert (weighted.weight, weighted.weight_gradient) == ("token", "detached")


@pytest.mark.parametrize("scale", [1, 100])
def test_a_loss_in_float32_is_recognised(scale):
    def loss(p, r, o, m):
        x = np.where(m, r - p, 0)
        rounded = x.astype(np.complex64 if np.iscomplexobj(x) else np.float32)
        value = np.exp(rounded) - rounded - 1
        return scale * value.sum(-1).mean()

    found = identified(loss)
    assert (found.value, found.derivative) == ("k3", "one_minus_r")
    assert keys(found)[::2] == ["forward_kl", "token_forward_kl"]
    assert 1e-9 < found.error < 1e-5


# ---- what it takes and gives ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["scalar", "one", "per sequence", "column", "per token"])
def test_outputs(shape):
    def loss(p, r, o, m):
        values = k3(r - p)  # per token it is summed over the tokens that the mask keeps
        kept = np.where(m, values, 0).sum(-1)
        return {
            "scalar": kept.sum(),
            "one": kept.sum(keepdims=True),
            "per sequence": kept,
            "column": kept[:, None],
            "per token": values,
        }[shape]

    found = identified(loss)
    assert found.output == {"one": "scalar", "column": "per sequence"}.get(shape, shape)
    assert found.normalisation == "sum"
    assert found.masked["nan"]["value"] == "unchanged"
    assert ("which are summed here" in str(found)) == (found.output != "scalar")


def test_it_tells_what_a_trainer_reads():
    found = identified(lambda p, r, o, m: summed(k3(r - p), m))
    assert str(found).splitlines() == [
        "In short: it does not penalise KL(π‖π_ref); on-policy its gradient is ∇KL(π_ref‖π).",
        'Remedy: the lines of "Do this" in chapter policy-gradients.',
        "Value: k3 for KL(π‖π_ref), token by token.",
        "Derivative: 1 - r, that of k3; it is the derivative of the value.",
        "Weight: none.",
        "Normalisation: the mean of the responses' sums.",
        "In float32 value or gradient is not finite for log r above 88.72.",
        "Masked tokens may hold finite numbers, numbers so far apart that exp overflows, -inf, "
        "inf, nan.",
        "Mean gradient for one action, on-policy: ∇KL(π_ref‖π) (thm-on-policy-gradients, chapter "
        "policy-gradients).",
        "Mean gradient for one action, off-policy: ∇E_old[Σ_t k3(r_t)]: old samples without a "
        "weight (prop-stale-losses, chapter policy-gradients).",
        "Mean gradient for responses, on-policy: E_π[Σ_t ∇K'_t], K'_t the KL(π_ref‖π) of the next "
        "token: without the divergence to go (thm-missing-term, chapter policy-gradients).",
        "Mean gradient for responses, off-policy: ∇E_old[Σ_t k3(r_t)]: old samples without a "
        "weight (prop-stale-losses, chapter policy-gradients).",
    ]


SENTENCES = {
    "k1 swapped": (lambda p, r, o, m: summed(r - p, m), "or the sign is: the two are the same"),
    "score": (lambda p, r, o, m: summed(sg(p - r) * p, m), "k1 for KL(π‖π_ref), times log π"),
    "frozen": (lambda p, r, o, m: summed(np.exp(p - o) * (o - r), m), "it is frozen"),
    "scale": (lambda p, r, o, m: summed(-2 * k2(p - r), m), "Value: -2 times k2"),
    "sign": (lambda p, r, o, m: summed(-k2(p - r), m), "minus ∇KL(π‖π_ref); descent goes"),
    "λ": (lambda p, r, o, m: summed(p - r + 0.5 * np.expm1(r - p), m), "k_lambda with λ = 0.5"),
    "formula": (
        lambda p, r, o, m: summed(k3(p - r), m),
        "none of the known ones, a multiple of E_old[Σ_t (1/r_t - 1) s_t]",
    ),
    "old": (lambda p, r, o, m: summed(k3(o - p), m), "1 - r, that of k3, r = pi_old/pi"),
    "strange": (lambda p, r, o, m: summed((p - r) ** 3, m), "in the logits of one of the policies"),
    "limits": (
        lambda p, r, o, m: summed(sg(clipped(np.exp(p - o), 0.5, 2)) * k2(r - p), m),
        "not differentiated; truncated where it is below 0.5 or above 2",
    ),
    "formula inside the limits": (
        lambda p, r, o, m: (
            np.where(m, sg(clipped(np.exp(p - o), 0.5, 2)) * k2(r - p), 0).sum(-1) / m.sum(-1)
        ).mean(),
        "a multiple of E_old[(1/τ) Σ_t w_t k1_t s_t]",
    ),
    "powers": (
        lambda p, r, o, m: (np.where(m, p - r, 0).sum(-1) / m.sum(-1) ** 2).sum(),
        "the sum over all tokens times (tokens of the response)^-2",
    ),
    "mean over tokens": (
        lambda p, r, o, m: np.where(m, k2(p - r), 0).sum() / m.sum(),
        "many in a batch and times their mean length",
    ),
    "one in a batch": (
        lambda p, r, o, m: np.where(m, k2(p - r), 0).sum() / m.sum(),
        "responses, on-policy, one in a batch",
    ),
    "reward": (lambda p, r, o, m: summed(sg(p) - r, m), "on-policy, in the reward: ∇KL(π‖π_ref)"),
    "unknown weight": (
        lambda p, r, o, m: summed(sg(np.exp(2 * (p - o))) * k2(r - p), m),
        "Weight: none of the known ones",
    ),
    "level": (lambda p, r, o, m: k2(whole(r - p, m)[:, 0]).mean(), ", of whole responses"),
    "unknown level": (
        lambda p, r, o, m: summed(k2(r - p) * np.arange(1, 1 + m.shape[1]), m),
        "how it combines tokens is none of the known ways",
    ),
}


WEIGHTED = "with samples of π_old, the lines"
VERDICTS = {
    "weighted k3": (
        lambda p, r, o, m: summed(np.exp(p - o) * k3(r - p), m),
        "penalises KL(π‖π_ref), with old samples too; in responses no token answers",
        None,
    ),
    "whole responses": (
        lambda p, r, o, m: (np.exp(whole(p - o, m)[:, 0]) * k3(whole(r - p, m)[:, 0])).mean(),
        "penalises KL(π‖π_ref), with old samples too, and of whole responses",
        None,
    ),
    "k2": (lambda p, r, o, m: summed(k2(r - p), m), "with old samples it does not", WEIGHTED),
    "divided": (
        lambda p, r, o, m: (np.where(m, np.exp(p - o) * k3(r - p), 0).sum(-1) / m.sum(-1)).mean(),
        "with old samples too; for responses see below",
        None,
    ),
    "k1 in the reward": (
        lambda p, r, o, m: summed(sg(p) - r, m),
        "penalises KL(π‖π_ref) in the reward, with old samples too, and of whole responses",
        None,
    ),
    "k1": (lambda p, r, o, m: summed(p - r, m), "so it penalises nothing", "the lines of"),
    "sign": (lambda p, r, o, m: summed(-k2(p - r), m), "drives the policy away", "change the sign"),
    "swapped": (
        lambda p, r, o, m: summed(k3(p - r), m),
        "gradient is ½∇χ²(π‖π_ref): the pair is swapped",
        "exchange policy and reference",
    ),
    "entropy": (
        lambda p, r, o, m: summed(-sg(p) * p, m),
        "gradient is minus ∇E_π[log π]",
        "the lines of",
    ),
    "strange": (lambda p, r, o, m: summed((p - r) ** 5, m), "none of the known", "the lines of"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_the_answer_comes_first_and_the_remedy_after_it(name):
    loss, words, remedy = VERDICTS[name]
    first, second, *_ = str(identified(loss)).splitlines()
    assert first.startswith("In short: ")
    assert words in first
    assert second.startswith(f"Remedy: {remedy}" if remedy else "Value: "), second


@pytest.mark.parametrize("name", SENTENCES)
def test_sentences(name):
    loss, words = SENTENCES[name]
    assert words in str(identified(loss))


def test_the_data_are_json():
    for loss in (
        lambda p, r, o, m: summed(k3(r - p), m),
        lambda p, r, o, m: summed((p - r) ** 5, m),
    ):
        found = identified(loss)
        data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert data["value"] == found.value
        assert data["weight_limits"] == [0, None]
        assert data["weight"] == "none"
        assert len(data["gradients"][0]["numbers"]) == 6
    assert data["gradients"][0]["chapter"] == ""
    assert isinstance(found, Identification)


def test_it_is_at_the_top_level_and_loaded_when_asked_for():
    assert kl.identify is sys.modules["klapprox.identification"].identify


ERRORS = {
    "framework": (lambda p, r, o, m: 0, "tensorflow", ValueError, "choose one of 'torch', 'jax'"),
    "pair": (lambda p, r, o, m: 0.0, "numpy", TypeError, "must return a pair"),
    "slope": (lambda p, r, o, m: (0.0, 0.0), "numpy", TypeError, "the derivative has shape"),
    "shape": (lambda p, r, o, m: (p[:, :2], p), "numpy", ValueError, r"returns shape \(2, 2\)"),
    "none": (lambda p, r, o: (p, p), None, TypeError, "of any framework that is loaded.*numpy: "),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_to_do(name):
    loss, framework, error, words = ERRORS[name]
    with pytest.raises(error, match=words):
        kl.identify(loss, framework=framework)


def test_the_framework_is_found():
    loss = differentiated(lambda p, r, o, m: summed(k3(r - p), m))
    assert kl.identify(loss).framework == "numpy"
