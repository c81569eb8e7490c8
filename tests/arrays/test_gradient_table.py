"""The gradient table a third time: PyTorch differentiates what a trainer would write.

The chapter on policy gradients proves it with SymPy, and tests/test_policies.py takes differences.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import klapprox as kl
from klapprox.exact.policies import COEFFICIENTS, PLACEMENTS, expected_gradient

FUNCTIONS = {"k1": kl.k1, "k2": kl.k2, "k3": kl.k3}

logits = st.lists(st.tuples(*[st.floats(-3, 3)] * 3), min_size=2, max_size=5)


def contributions(k, placement, log_pi, log_ref, log_old):
    """Return, for each action, the loss of a sample that is this action."""
    w = torch.exp(log_pi - log_old)
    penalty = k(kl.log_ratio(log_pi, log_ref))
    return {
        "reward": penalty.detach() * log_pi,
        "loss": penalty,
        "weighted loss": w * penalty,
        "detached weight": w.detach() * penalty,
        # The usual surrogate: ∇w = w s.
        "weighted reward": w * penalty.detach(),
    }[placement]


def differentiated(estimator, placement, z, log_ref, log_old):
    """Return the mean over the sampler of one sample's gradient, by automatic differentiation."""
    z = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    log_pi = torch.log_softmax(z, dim=0)
    sampler = torch.exp(log_pi.detach() if log_old is None else log_old)
    log_old = log_pi.detach() if log_old is None else log_old
    losses = contributions(FUNCTIONS[estimator], placement, log_pi, log_ref, log_old)
    (gradient,) = torch.autograd.grad(torch.sum(sampler * losses), z)
    return gradient.numpy()


def test_the_table_has_every_estimator_in_every_placement():
    assert set(COEFFICIENTS) == {(name, place) for name in FUNCTIONS for place in PLACEMENTS}


@pytest.mark.parametrize("off_policy", [False, True], ids=["on-policy", "off-policy"])
@pytest.mark.parametrize(("estimator", "placement"), list(COEFFICIENTS))
@given(rows=logits)
def test_autograd_agrees_with_the_table(estimator, placement, off_policy, rows):
    z, z_ref, z_old = np.array(rows).T
    log_ref, log_old = (torch.log_softmax(torch.tensor(x), dim=0) for x in (z_ref, z_old))
    found = differentiated(estimator, placement, z, log_ref, log_old if off_policy else None)
    policy, reference, sampler = (
        torch.softmax(torch.tensor(x), dim=0).numpy() for x in (z, z_ref, z_old)
    )
    wanted = expected_gradient(
        estimator, placement, policy, reference, sampler if off_policy else None
    )
    # Coefficients are differences of numbers of this size.
    size = 1 + np.max(reference / policy) + np.max(policy / sampler) * np.max(np.log(policy) ** 2)
    assert np.max(np.abs(found - wanted)) <= 1e-13 * size


# Actions that are enumerated, not drawn: few of them may carry most of the weight.
@pytest.mark.filterwarnings("ignore:The weights of whole sequences:klapprox.KLWarning")
@given(rows=logits)
def test_the_kl_loss_of_one_token_has_the_gradient_of_a_weighted_k3(rows):
    z, z_ref, z_old = np.array(rows).T
    log_ref, log_old = (torch.log_softmax(torch.tensor(x), dim=0) for x in (z_ref, z_old))
    z = torch.tensor(z, requires_grad=True)
    log_pi = torch.log_softmax(z, dim=0)
    weighted = contributions(kl.k3, "weighted loss", log_pi, log_ref, log_old)
    for level in ("sequence", "token"):
        loss = kl.kl_loss(log_pi[:, None], log_ref[:, None], log_old=log_old[:, None], level=level)
        torch.testing.assert_close(loss, weighted, rtol=1e-13, atol=0)
        for i in range(len(z)):  # sample by sample, not only in the mean
            (found,) = torch.autograd.grad(loss[i], z, retain_graph=True)
            (wanted,) = torch.autograd.grad(weighted[i], z, retain_graph=True)
            torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)
