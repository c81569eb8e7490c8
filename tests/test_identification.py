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
            live = log_pi.astype(np.result_type(log_pi, 1j))
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


# ---- the fields -----------------------------------------------------------------------------------


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

    frozen = total(tree.logs_of(tree.ref) - tree.logs_of(old))
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


# ---- every placement of the book ------------------------------------------------------------------


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
    "frozen reward": "weight only",
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
