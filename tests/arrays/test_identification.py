"""What `identify` says of losses in PyTorch and JAX, by automatic differentiation."""

import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

import klapprox as kl


class Torch:
    framework = "torch"
    exp, expm1, cumsum = torch.exp, torch.expm1, staticmethod(lambda x: torch.cumsum(x, 1))
    where, clip = torch.where, torch.clamp
    sg = staticmethod(lambda x: x.detach())


class Jax:
    framework = "jax"
    exp, expm1 = jax.numpy.exp, jax.numpy.expm1
    cumsum = staticmethod(lambda x: jax.numpy.cumsum(x, axis=1))
    where, clip = jax.numpy.where, jax.numpy.clip
    sg = staticmethod(jax.lax.stop_gradient)


@pytest.fixture(params=[Torch, Jax], ids=lambda xp: xp.framework)
def xp(request):
    return request.param


def k3(xp, x):
    return xp.expm1(x) - x


def summed(xp, values, mask):
    return xp.where(mask, values, 0.0).sum(1).mean()


def keys(found):
    return [gradient.key for gradient in found.gradients]


PLACEMENTS = {
    "k1 in the loss": (
        lambda xp, p, r, o, m: summed(xp, p - r, m),
        ("k1", "one", "none", ""),
        ["zero", "away_from_old", "zero", "away_from_old"],
    ),
    "k2 in the loss": (
        lambda xp, p, r, o, m: summed(xp, (p - r) ** 2 / 2, m),
        ("k2", "minus_log_r", "none", ""),
        ["reverse_kl", "stale_k2", "token_reverse_kl", "stale_k2"],
    ),
    "k3 in the loss": (
        lambda xp, p, r, o, m: summed(xp, k3(xp, r - p), m),
        ("k3", "one_minus_r", "none", ""),
        ["forward_kl", "stale_k3", "token_forward_kl", "stale_k3"],
    ),
    "the swapped ratio": (
        lambda xp, p, r, o, m: summed(xp, k3(xp, p - r), m),
        ("k3", "inverse_r_minus_one", "none", ""),
        ["half_chi_squared", "none", "token_half_chi_squared", "none"],
    ),
    "k1 in the reward": (
        lambda xp, p, r, o, m: summed(xp, xp.sg(p - r) * p, m),
        ("k1", "minus_log_r", "none", ""),
        ["reverse_kl", "stale_k2", "token_reverse_kl", "stale_k2"],
    ),
    "w k3": (
        lambda xp, p, r, o, m: summed(xp, xp.exp(p - o) * k3(xp, r - p), m),
        ("k3", "minus_log_r", "token", "differentiated"),
        ["reverse_kl", "reverse_kl", "token_reverse_kl", "frozen_prefix_reverse_kl"],
    ),
    "sg(w) k3": (
        lambda xp, p, r, o, m: summed(xp, xp.sg(xp.exp(p - o)) * k3(xp, r - p), m),
        ("k3", "one_minus_r", "token", "detached"),
        ["forward_kl", "forward_kl", "token_forward_kl", "frozen_prefix_forward_kl"],
    ),
    "w sg(k3)": (
        lambda xp, p, r, o, m: summed(xp, xp.exp(p - o) * xp.sg(k3(xp, r - p)), m),
        ("k3", "k3", "token", "weight only"),
        ["reward_k3", "reward_k3", "own_token_k3", "none"],
    ),
    "a frozen k1": (
        lambda xp, p, r, o, m: (
            xp.exp(xp.where(m, p - o, 0.0).sum(1)) * xp.where(m, o - r, 0.0).sum(1)
        ).mean(),
        ("k1", "minus_log_r", "sequence", "differentiated"),
        ["reverse_kl", "frozen_penalty", "reverse_kl", "frozen_penalty"],
    ),
    "straight-through": (
        lambda xp, p, r, o, m: summed(
            xp, xp.sg(k3(xp, r - p)) + (p - r) ** 2 / 2 - xp.sg((p - r) ** 2 / 2), m
        ),
        ("k3", "minus_log_r", "none", ""),
        ["reverse_kl", "stale_k2", "token_reverse_kl", "stale_k2"],
    ),
    "W_t k3": (
        lambda xp, p, r, o, m: summed(
            xp, xp.exp(xp.cumsum(xp.where(m, p - o, 0.0))) * k3(xp, xp.where(m, r - p, 0.0)), m
        ),
        ("k3", "minus_log_r", "prefix", "differentiated"),
        ["reverse_kl"] * 4,
    ),
    "a weight in the gradient only": (
        lambda xp, p, r, o, m: summed(
            xp,
            xp.sg(k3(xp, r - p))
            + xp.sg(xp.clip(xp.exp(p - o), max=10.0))
            * ((p - r) ** 2 / 2 - xp.sg((p - r) ** 2 / 2)),
            m,
        ),
        ("k3", "minus_log_r", "token", "gradient only"),
        ["reverse_kl", "reverse_kl", "token_reverse_kl", "frozen_prefix_reverse_kl"],
    ),
    "strange": (
        lambda xp, p, r, o, m: summed(xp, (p - r) ** 2 * (1 + 0.3 * (p - r)), m),
        ("none", "none", "none", ""),
        ["none"] * 4,
    ),
}


# JAX compiles the loss for each shape, so it has fewer of them.
IN_JAX = ("k3 in the loss", "sg(w) k3", "straight-through", "strange")


@pytest.mark.parametrize(
    ("xp", "name"),
    [(Torch, name) for name in PLACEMENTS] + [(Jax, name) for name in IN_JAX],
    ids=lambda value: getattr(value, "framework", value),
)
def test_placements(xp, name):
    loss, parts, wanted = PLACEMENTS[name]
    found = kl.identify(lambda *given: loss(xp, *given), framework=xp.framework)
    assert (found.value, found.derivative, found.weight, found.weight_gradient) == parts
    assert keys(found) == wanted
    assert found.framework == xp.framework
    assert found.swapped == (name == "the swapped ratio")
    if name != "strange":
        assert found.error < 1e-13


def test_clamps_before_and_after_the_function(xp):
    before = kl.identify(
        lambda p, r, o, m: summed(Torch, k3(Torch, torch.clamp(r - p, -5.0, 5.0)), m),
    )
    after = kl.identify(
        lambda p, r, o, m: summed(xp, xp.clip(k3(xp, r - p), -10.0, 10.0), m),
        framework=xp.framework,
    )
    assert (before.clamp, after.clamp) == ("log r", "value")
    np.testing.assert_allclose([before.below.value_from, before.above.value_from], [-5, 5], 1e-2)
    np.testing.assert_allclose([after.below.value_is, after.above.value_is], [10, 10], 1e-6)
    assert before.above.not_finite_from is None
    # Where exp overflows, the clamp of its value has 0 times infinity for a gradient.
    assert 85 < after.above.not_finite_from < 89


NORMALISATIONS = {
    "sum": lambda v, m: v.sum(),
    "mean over positions": lambda v, m: v.mean(),
    "mean over kept tokens": lambda v, m: v.sum() / m.sum(),
    "mean of sequence means": lambda v, m: (v.sum(1) / m.sum(1)).mean(),
    "mean of sequence sums": lambda v, m: v.sum(1).mean(),
}


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_normalisations(name):
    reduce = NORMALISATIONS[name]
    found = kl.identify(lambda p, r, o, m: reduce(torch.where(m, k3(Torch, r - p), 0.0), m))
    assert found.normalisation == name


def test_kl_loss_of_the_package(xp):
    def at(level):
        return kl.identify(
            lambda p, r, o, m: kl.kl_loss(p, r, log_old=o, mask=m, level=level),
            framework=xp.framework,
        )

    sequence, token = at("sequence"), at("token")
    assert keys(sequence) == ["reverse_kl"] * 4
    assert (sequence.weight, sequence.weight_gradient) == ("prefix", "detached")
    assert sequence.credit == "to go"
    assert keys(token) == [*["reverse_kl"] * 2, "token_reverse_kl", "frozen_prefix_reverse_kl"]
    assert (token.weight, token.credit) == ("token", "own")
    for found in (sequence, token):
        assert (found.value, found.output, found.normalisation) == ("k3", "per sequence", "sum")
        contents = {effect for answer in found.masked.values() for effect in answer.values()}
        assert contents == {"unchanged"}


def test_the_weighted_functions_of_the_package():
    def straight(p, r, o, m):
        x = torch.where(m, r - p, 0.0)
        return kl.straight_through(kl.k3(x), kl.k2(x)).sum()

    def weighted(p, r, o, m, detach=False):
        x, log_w = torch.where(m, r - p, 0.0), torch.where(m, p - o, 0.0)
        return kl.weighted(kl.k3(x), log_w, detach=detach).sum()

    found = kl.identify(straight)
    assert (found.value, found.derivative) == ("k3", "minus_log_r")
    assert kl.identify(weighted).weight_gradient == "differentiated"
    detached = kl.identify(lambda *a: weighted(*a, detach=True))
    assert detached.weight_gradient == "detached"


def test_masked_tokens_reach_the_gradient_through_where(xp):
    def loss(p, r, o, m):  # the classic: where after exp, and 0 times infinity in the gradient
        return xp.where(m, k3(xp, r - p), 0.0).sum()

    found = kl.identify(loss, framework=xp.framework)
    assert found.masked["nan"]["value"] == "unchanged"
    assert found.masked["nan"]["gradient"] == "not finite"
    assert found.masked["far apart"] == {"value": "unchanged", "gradient": "not finite"}


def test_the_example_of_the_front_page():
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if "identify" in block
    )
    printed = []
    exec(compile(code, "README.md", "exec"), {"print": printed.append})
    (found,) = printed
    assert (found.value, found.direction, found.weight) == ("k3", "KL(π‖π_ref)", "none")
    assert found.normalisation == "mean over kept tokens"
    assert round(found.above.not_finite_from, 2) == 88.72
    labels = [gradient.label for gradient in found.gradients]
    assert labels[0] == "thm-on-policy-gradients"
    assert found.gradients[0].text == "∇KL(π_ref‖π)"
    assert labels[2] == "prop-division-by-length"


def test_a_loss_in_float32_is_recognised():
    def loss(p, r, o, m):
        x = (r - p).float()
        return ((torch.exp(x) - x - 1) * m).sum() / m.sum()

    found = kl.identify(loss)
    assert (found.value, found.normalisation) == ("k3", "mean over kept tokens")
    assert keys(found)[0] == "forward_kl"
    assert 1e-9 < found.error < 1e-5


def test_the_framework_is_found():
    assert {"torch", "jax"} <= sys.modules.keys()
    assert kl.identify(lambda p, r, o, m: (torch.expm1(r - p) * m).sum()).framework == "torch"
    found = kl.identify(lambda p, r, o, m: jax.numpy.where(m, p - r, 0.0).sum())
    assert found.framework == "jax"
    # Without a formula of a framework the first one is taken.
    assert kl.identify(lambda p, r, o, m: ((p - r) ** 2 * m).sum()).framework == "torch"


def test_a_number_without_a_gradient_is_placed_in_the_reward():
    def loss(p, r, o, m):
        with torch.no_grad():
            return ((p - r) * m).sum(1)

    found = kl.identify(loss)
    assert (found.derivative, found.output) == ("zero", "per sequence")
    assert set(keys(found)) == {"reverse_kl"}
    constant = kl.identify(lambda p, r, o, m: ((o - r) * m).sum(1) + 0 * (p.detach() * m).sum(1))
    assert constant.ratio == "pi_ref/pi_old"
    unused = kl.identify(lambda p, r, o, m: (r.requires_grad_() * m).sum())
    assert (unused.value, unused.derivative) == ("log_ref", "zero")


def test_a_jitted_loss_is_recognised():
    loss = jax.jit(lambda p, r, o, m: jax.numpy.where(m, (p - r) ** 2 / 2, 0.0).sum())
    assert keys(kl.identify(loss)) == ["reverse_kl", "stale_k2", "token_reverse_kl", "stale_k2"]


@pytest.mark.parametrize(
    ("loss", "framework", "words"),
    [
        (lambda p, r, o, m: 0.0, "torch", "returns a float, not a tensor"),
        (lambda p, r, o, m: 0.0, "jax", "returns a float, not an array"),
        (lambda p, r, o, m: p.nothing, None, "torch: AttributeError.*jax: AttributeError"),
    ],
)
def test_errors_name_what_went_wrong(loss, framework, words):
    with pytest.raises(TypeError, match=words):
        kl.identify(loss, framework=framework)
