"""GRPO with a KL term, small enough to read: ``.venv/bin/python examples/grpo.py``.

A prompt is a letter, a response a word of up to eight letters, and the reward is 1 if the word has
the prompt's letter exactly twice. The policy is a GRU; responses end with EOS or at the eighth
token and are padded; each prompt has a group of responses, and each batch serves several inner
steps, so that its samples are stale after the first. PyTorch comes with ``make test-arrays``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import klapprox as kl

LETTERS = "abc"
EOS = len(LETTERS)  # the tokens are the letters, then EOS, which stands for padding as well
LENGTH = 8
GROUP = 8  # responses a prompt
BETA, CLIP = 0.1, 0.2


class Policy(nn.Module):
    """A GRU that writes a word, given a letter."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS) + 1, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, len(LETTERS) + 1)

    def forward(self, prompts: Tensor, tokens: Tensor) -> Tensor:
        """Return the log-probabilities of the next token at each of the tokens' places."""
        before = torch.cat([prompts[:, None], tokens[:, :-1]], dim=1)
        return torch.log_softmax(self.head(self.gru(self.embedding(before))[0]), dim=-1)

    def score(self, prompts: Tensor, tokens: Tensor) -> Tensor:
        """Return log π of the tokens that were drawn, one number a token."""
        return self(prompts, tokens).gather(2, tokens[:, :, None])[:, :, 0]


@dataclass(frozen=True)
class Batch:
    """Responses in groups, padded to one length, with what the trainer knows of them."""

    prompts: Tensor
    tokens: Tensor
    mask: Tensor  # True up to EOS, that is at the tokens that the policy chose
    reward: Tensor
    log_old: Tensor

    @property
    def advantage(self) -> Tensor:
        """The reward less the mean of its group; not divided by its spread (prop-group-spread)."""
        groups = self.reward.reshape(-1, GROUP)
        return (groups - groups.mean(dim=1, keepdim=True)).reshape(-1, 1)


@torch.no_grad()
def draw(policy: Policy, groups: int, generator: torch.Generator) -> Batch:
    """Draw a prompt for each group and responses to it, token by token."""
    letters = torch.randint(len(LETTERS), (groups,), generator=generator)
    prompts = letters.repeat_interleave(GROUP)
    tokens = torch.full((len(prompts), LENGTH), EOS)
    mask = torch.zeros(tokens.shape, dtype=torch.bool)
    running = torch.ones(len(prompts), dtype=torch.bool)
    for t in range(LENGTH):
        law = policy(prompts, tokens)[:, t].exp()
        token = torch.multinomial(law, 1, generator=generator)[:, 0]
        tokens[:, t] = torch.where(running, token, EOS)
        mask[:, t] = running
        running &= token != EOS
    count = (tokens == prompts[:, None]).sum(dim=1)
    return Batch(prompts, tokens, mask, (count == 2).float(), policy.score(prompts, tokens))


def kl_term(log_pi: Tensor, log_ref: Tensor, log_old: Tensor, mask: Tensor) -> Tensor:
    """Return the KL term of the loss: nats a response, right for stale samples."""
    return kl.kl_loss(log_pi, log_ref, log_old=log_old, mask=mask, level="token").mean()


def clipped(log_pi: Tensor, batch: Batch) -> Tensor:
    """Return PPO's clipped objective: a sum over tokens, which leaves the length alone."""
    ratio = torch.where(batch.mask, log_pi - batch.log_old, 0.0).exp()
    gain = ratio * batch.advantage
    least = torch.minimum(gain, ratio.clamp(1 - CLIP, 1 + CLIP) * batch.advantage)
    return torch.where(batch.mask, least, 0.0).sum(dim=1).mean()


def train(
    policy: Policy,
    reference: Policy,
    *,
    iterations: int,
    groups: int,
    inner_steps: int,
    generator: torch.Generator,
) -> list[float]:
    """Train the policy in place; return the mean reward of each batch."""
    optimiser = torch.optim.Adam(policy.parameters(), lr=1e-2)
    rewards = []
    for _ in range(iterations):
        batch = draw(policy, groups, generator)
        rewards.append(batch.reward.mean().item())
        with torch.no_grad():
            log_ref = reference.score(batch.prompts, batch.tokens)
        for _ in range(inner_steps):
            log_pi = policy.score(batch.prompts, batch.tokens)
            penalty = kl_term(log_pi, log_ref, batch.log_old, batch.mask)
            loss = BETA * penalty - clipped(log_pi, batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return rewards


@torch.no_grad()
def measure(
    policy: Policy, reference: Policy, groups: int, generator: torch.Generator
) -> kl.KLEstimate:
    """Estimate KL(π‖π_ref) a response from new samples, with an error bar over the groups."""
    batch = draw(policy, groups, generator)
    log_ref = reference.score(batch.prompts, batch.tokens)
    label = torch.arange(groups).repeat_interleave(GROUP)
    return kl.estimate_kl(batch.log_old, log_ref, mask=batch.mask, groups=label, estimator="k1")


def main() -> None:
    """Say what the KL term optimises, train, and say how far the policy has gone."""
    print(kl.identify(kl_term))
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    policy, reference = Policy(), Policy()
    reference.load_state_dict(policy.state_dict())
    rewards = train(policy, reference, iterations=40, groups=32, inner_steps=4, generator=generator)
    print("mean reward:", *(f"{reward:.2f}" for reward in rewards[::8]), f"{rewards[-1]:.2f}")
    print(measure(policy, reference, groups=200, generator=generator))


if __name__ == "__main__":
    main()
