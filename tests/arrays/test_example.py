"""The GRPO loop of examples/grpo.py: it learns, and what it says of its KL term is true."""

import importlib.util
import itertools
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).resolve().parents[2] / "examples" / "grpo.py"
_spec = importlib.util.spec_from_file_location("grpo", PATH)
grpo = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(grpo)


@pytest.fixture(scope="module")
def trained():
    """Return policy and reference after some training, and the generator."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    policy, reference = grpo.Policy(), grpo.Policy()
    reference.load_state_dict(policy.state_dict())
    grpo.train(policy, reference, iterations=12, groups=16, inner_steps=4, generator=generator)
    return policy, reference, generator


def words():
    """Return all responses as padded tokens with their mask."""
    whole = [
        word if len(word) == grpo.LENGTH else (*word, grpo.EOS)
        for length in range(grpo.LENGTH + 1)
        for word in itertools.product(range(grpo.EOS), repeat=length)
    ]
    mask = torch.tensor([[t < len(word) for t in range(grpo.LENGTH)] for word in whole])
    padded = [[*word, *[grpo.EOS] * (grpo.LENGTH - len(word))] for word in whole]
    return torch.tensor(padded), mask


@torch.no_grad()
def exact(policy, reference):
    """Return mean reward and KL(π‖π_ref) a response as sums over all responses."""
    tokens, mask = words()
    rewards, divergences = [], []
    for letter in range(grpo.EOS):
        prompts = torch.full((len(tokens),), letter)
        log_pi = torch.where(mask, policy.score(prompts, tokens), 0.0).double().sum(dim=1)
        log_ref = torch.where(mask, reference.score(prompts, tokens), 0.0).double().sum(dim=1)
        assert log_pi.exp().sum().item() == pytest.approx(1, abs=1e-5)
        rewards.append(((tokens == letter).sum(dim=1) == 2).double() @ log_pi.exp())
        divergences.append(log_pi.exp() @ (log_pi - log_ref))
    return sum(rewards).item() / grpo.EOS, sum(divergences).item() / grpo.EOS


def test_a_batch_is_what_it_says(trained):
    policy, _, generator = trained
    batch = grpo.draw(policy, 16, generator)
    assert batch.tokens.shape == (16 * grpo.GROUP, grpo.LENGTH)
    ended = (batch.tokens == grpo.EOS).cumsum(dim=1)
    assert torch.equal(batch.mask, (ended - (batch.tokens == grpo.EOS).long()) == 0)
    assert not batch.mask.all()
    assert batch.mask.all(dim=1).any(), "a response may end without EOS"
    assert batch.advantage.reshape(-1, grpo.GROUP).mean(dim=1).abs().max().item() < 1e-6
    with torch.no_grad():
        assert torch.equal(policy.score(batch.prompts, batch.tokens), batch.log_old)


def test_it_learns_and_knows_how_far_it_went(trained):
    policy, reference, generator = trained
    (reward, divergence), (at_first, _) = exact(policy, reference), exact(reference, reference)
    assert reward - grpo.BETA * divergence > at_first + 0.03
    estimate = grpo.measure(policy, reference, 100, generator)
    assert divergence > 0.1
    assert abs(estimate.value - divergence) < 5 * estimate.standard_error


def test_padding_enters_nothing(trained):
    policy, reference, generator = trained
    batch = grpo.draw(policy, 8, generator)
    log_pi = policy.score(batch.prompts, batch.tokens)
    log_ref = reference.score(batch.prompts, batch.tokens).detach()
    value = grpo.kl_term(log_pi, log_ref, batch.log_old, batch.mask)
    spoilt = [
        torch.where(batch.mask, each, float("nan")) for each in (log_pi, log_ref, batch.log_old)
    ]
    assert torch.equal(value, grpo.kl_term(*spoilt, batch.mask))
    loss = grpo.clipped(log_pi, batch)
    assert torch.equal(loss, grpo.clipped(torch.where(batch.mask, log_pi, -50.0), batch))


def test_it_says_what_its_term_optimises(capsys):
    grpo.main()
    said = capsys.readouterr().out
    print(said)
    assert "thm-missing-term" in said
