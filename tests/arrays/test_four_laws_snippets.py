"""The snippets of the chapter on four laws, run as they stand there.

The batch of `test_snippets` holds every response as often as its sampler writes it in 64 tries.
Here that sampler is the inference engine, so a mean over the batch is an exact one under its law.
"""

import ast

import numpy as np
import pytest
import torch
from test_snippets import (
    CLOSE,
    LOG_OLD,
    ROOT,
    assert_same,
    at_old_prefixes,
    differentiated,
    exact,
    laid_out,
    on_page,
    run,
    total,
)

LOG_GEN = LOG_OLD
SNIPPETS = on_page(ROOT / "chapters" / "four-laws.ipynb")
GIVEN = {
    "Engine ratio, token by token": {"torch", "mask", "logp", "logp_gen", "logp_ref"},
    "Mismatch": {"torch", "mask", "logp_old", "logp_gen"},
    "Entropy test": {"mask", "logp_old", "entropy", "log_m", "len"},
    "Steering": {"k1", "budget", "log_beta"},
}

_rng = np.random.Generator(np.random.PCG64(6))
LOG_TRAINER = torch.log_softmax(LOG_GEN + 0.4 * torch.tensor(_rng.standard_normal((7, 3))), dim=1)


def laid(log_law, filling=700.0):
    """Return a function that lays a table out, with finite garbage where the mask is 0."""
    return lambda names: laid_out(log_law, torch.tensor(filling, dtype=torch.float64))


def test_the_page_has_these_snippets_and_no_others():
    assert tuple(SNIPPETS) == tuple(GIVEN)


@pytest.mark.parametrize("name", GIVEN)
def test_a_snippet_needs_only_what_the_text_gives(name):
    used = [node for node in ast.walk(ast.parse(SNIPPETS[name])) if isinstance(node, ast.Name)]
    stored = {node.id for node in used if isinstance(node.ctx, ast.Store)}
    assert {node.id for node in used} - stored <= GIVEN[name]


def test_the_penalty_is_that_of_the_prefixes_of_the_engine():
    names, z = run(SNIPPETS["Engine ratio, token by token"], logp_gen=laid(LOG_GEN))
    assert_same(differentiated(names["kl"], z), exact(at_old_prefixes))


def test_the_penalty_with_another_ratio_is_not():
    names, z = run(SNIPPETS["Engine ratio, token by token"], logp_gen=laid(LOG_TRAINER))
    with pytest.raises(AssertionError):
        assert_same(differentiated(names["kl"], z), exact(at_old_prefixes))


def test_both_estimates_of_the_mismatch_have_its_mean():
    given = {"logp_gen": laid(LOG_GEN), "logp_old": laid(LOG_TRAINER)}
    names, _ = run(SNIPPETS["Mismatch"], **given)
    wanted = total(LOG_GEN - LOG_TRAINER, LOG_GEN)
    assert wanted > 0.01
    for estimate in (names["k1"], names["k3"]):
        torch.testing.assert_close(estimate.mean(), wanted, **CLOSE)
    assert torch.all(names["k3"] >= 0)


def entropy_of(log_law):
    """Return the entropy after each prefix, once for each token, as a table."""
    return -torch.sum(torch.exp(log_law) * log_law, dim=1, keepdim=True).expand(7, 3)


TOO_COLD = torch.log_softmax(LOG_GEN / 2, dim=1)  # the trainer's law, drawn at h = 1/2


@pytest.mark.parametrize(
    ("trainer", "log_m", "honest"),
    [
        (LOG_GEN, torch.zeros_like(LOG_GEN), True),
        (LOG_TRAINER, LOG_TRAINER - LOG_GEN, True),
        (LOG_TRAINER, torch.zeros_like(LOG_GEN), False),
        (TOO_COLD, torch.zeros_like(LOG_GEN), False),
    ],
    ids=["same law", "another law, reported", "another law, not reported", "too cold"],
)
def test_the_entropy_test_has_the_mean_zero_if_the_report_is_honest(trainer, log_m, honest):
    tables = {"logp_old": trainer, "entropy": entropy_of(trainer), "log_m": log_m}
    names, _ = run(SNIPPETS["Entropy test"], **{k: laid(v) for k, v in tables.items()})
    if honest:
        torch.testing.assert_close(names["e"].mean(), torch.zeros((), dtype=torch.float64), **CLOSE)
    else:
        assert abs(names["e"].mean()) > 0.01
    standard_error = names["e"].std() / 8  # of 64 responses
    torch.testing.assert_close(names["z"], names["e"].mean() / standard_error, **CLOSE)


def penalised(log_beta):
    """Return k1 of an optimum with four equally likely actions, as exact samples, and KL."""
    reward = torch.tensor([0.0, 1.0, 2.0, 4.0], dtype=torch.float64)
    log_pi = torch.log_softmax(reward / np.exp(log_beta), dim=0)
    counts = torch.round(2e5 * torch.exp(log_pi)).long()
    k1 = log_pi + np.log(4)
    return torch.repeat_interleave(k1, counts), float(torch.exp(log_pi) @ k1)


def test_steering_takes_three_tenths_of_newton_s_step():
    k1, divergence = penalised(0.5)
    names = {"torch": torch, "k1": k1, "budget": divergence - 0.01, "log_beta": 0.5}
    exec(SNIPPETS["Steering"], names)
    whole = 0.5 + (float(names["log_beta"]) - 0.5) / 0.3
    assert abs(penalised(whole)[1] - (divergence - 0.01)) < 0.0005, "a whole step would be there"


@pytest.mark.parametrize(("away", "most"), [(1.0, -0.1), (-1.0, 0.1)])
def test_steering_makes_no_step_longer_than_a_tenth(away, most):
    k1, divergence = penalised(0.5)
    names = {"torch": torch, "k1": k1, "budget": divergence + away, "log_beta": 0.5}
    exec(SNIPPETS["Steering"], names)
    assert float(names["log_beta"]) == pytest.approx(0.5 + most)
