"""The snippets of the chapter on policy gradients and of the front page, run as they stand there.

The batch holds every response as often as the old policy writes it in 64 tries, so that a mean over
the batch is the exact mean. Value and gradient are compared with sums over all responses.
"""

import ast
import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from klapprox.vocabulary import exact_kl

ROOT = Path(__file__).resolve().parents[2]
CHAPTER, FRONT = ROOT / "chapters" / "policy-gradients.ipynb", ROOT / "index.md"
# A fence, in a cell of a table too.
FENCE = re.compile(r"^(?:[* -]*)```python\n *# (.+?)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
NAMES = (
    "Loss, token by token",
    "Loss, token by token, first inner step",
    "Loss, whole responses",
    "Reward, first inner step",
    "Reward, several inner steps",
    "Clipped",
    "Denominator",
)
GIVEN = {"torch", "logp", "logp_ref", "logp_old", "mask", "reward", "adv", "beta", "eps"}
GIVEN |= {"per_token", "max_tokens"}
GIVEN_ON_FRONT = GIVEN | {"exact_kl", "logits", "logits_ref"}
BETA, EPS, LENGTH = 0.3, 0.2, 3
CLOSE = {"rtol": 0, "atol": 1e-12}


def on_page(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join(
            "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"
        )
    return {name: textwrap.dedent(code) for name, code in FENCE.findall(text)}


SNIPPETS = on_page(CHAPTER)

# Three tokens, of which 0 ends a response; at most three of them.
PREFIXES = [(), (1,), (2,), (1, 1), (1, 2), (2, 1), (2, 2)]
RESPONSES = [(*h, 0) for h in PREFIXES]
RESPONSES += [(*h, token) for h in PREFIXES[3:] for token in (1, 2)]
QUARTERS = [(1, 2, 1), (2, 1, 1), (1, 1, 2), (1, 2, 1), (1, 1, 2), (2, 1, 1), (1, 2, 1)]
LOG_OLD = torch.log(torch.tensor(QUARTERS, dtype=torch.float64) / 4)

_rng = np.random.Generator(np.random.PCG64(5))
LOG_REF = torch.log_softmax(LOG_OLD + 0.7 * torch.tensor(_rng.standard_normal((7, 3))), dim=1)
MOVED = LOG_OLD + 0.5 * torch.tensor(_rng.standard_normal((7, 3)))  # after some inner steps
GAINS = torch.tensor(_rng.standard_normal((7, 3)))  # of each token after each prefix


def places(response):
    return [(PREFIXES.index(response[:t]), token) for t, token in enumerate(response)]


def chance(log_law, response):
    return torch.exp(sum(log_law[place] for place in places(response)))


def batch():
    """Return every response as often as the old policy writes it in 64 tries."""
    counts = [round(64 * chance(LOG_OLD, y).item()) for y in RESPONSES]
    assert sum(counts) == 64
    return [y for y, count in zip(RESPONSES, counts, strict=True) for _ in range(count)]


def laid_out(table, filling):
    """Return a table's entries along the batch, between a prompt and padding that are masked."""
    rows = []
    for y in batch():
        entries = [table[place] for place in places(y)]
        blank = [filling] * (LENGTH - len(y))
        rows.append(torch.stack([filling, *entries, *blank]))
    return torch.stack(rows)


def wide(table, filling):
    """Return the rows of a table along the batch, as logits of the whole vocabulary."""
    filling = torch.tensor(filling, dtype=table.dtype)  # where the mask is 0
    rows = [
        [filling, *(table[prefix] for prefix, _ in places(y)), *[filling] * (LENGTH - len(y))]
        for y in batch()
    ]
    return torch.stack([torch.stack(row) for row in rows])


def run(code, *, first=False, logits=False, **more):
    """Execute a snippet; return its names, and the logits to differentiate in."""
    z = (LOG_OLD if first else MOVED).clone().requires_grad_()
    log_pi = torch.log_softmax(z, dim=1)
    # What is masked may be anything finite, and its exponentials overflow.
    given, high, low = torch.tensor([-1.5, 900.0, -900.0], dtype=torch.float64)
    logp = laid_out(log_pi, z[0, 0] - 2)  # what is masked has a gradient of its own
    names = {
        "torch": torch,
        "logp": logp,
        "logp_ref": laid_out(LOG_REF, high),
        "logp_old": logp.detach() if first else laid_out(LOG_OLD, low),
        "mask": laid_out(torch.ones_like(z), 0 * given).detach(),
        "reward": laid_out(GAINS, 0 * given),
        "adv": laid_out(GAINS, given),
        "beta": BETA,
        "eps": EPS,
        "max_tokens": LENGTH,
    }
    if logits:
        names |= {
            "exact_kl": exact_kl,
            "logits": wide(z, [3.0, 0.0, -1.0]),
            "logits_ref": wide(LOG_REF, [0.0, 1.0, 2.0]),
        }
        names["mask"] = names["mask"] > 0
    names |= {name: make(names) for name, make in more.items()}
    exec(code, names)
    return names, z


def differentiated(value, z):
    return value.detach(), torch.autograd.grad(value, z, retain_graph=True)[0]


def exact(function, *, first=False):
    """Return value and gradient of a function of the policy's log-probabilities."""
    z = (LOG_OLD if first else MOVED).clone().requires_grad_()
    return differentiated(function(torch.log_softmax(z, dim=1)), z)


def total(table, log_law):
    """Return the mean over responses from a law of the sum of a table along them."""
    return sum(chance(log_law, y) * sum(table[place] for place in places(y)) for y in RESPONSES)


def divergence(log_pi):
    return total(log_pi - LOG_REF, log_pi)


def at_old_prefixes(log_pi):
    """Return the sum of the next-token divergences, with prefixes of the old policy."""
    steps = torch.sum(torch.exp(log_pi) * (log_pi - LOG_REF), dim=1)
    reached = [1] + [torch.exp(sum(LOG_OLD[p] for p in places(h))) for h in PREFIXES[1:]]
    return sum(a * b for a, b in zip(reached, steps, strict=True))


def objective(log_pi):
    return total(GAINS, log_pi) - BETA * divergence(log_pi)


def clipped_gain(log_pi):
    """Return the clipped surrogate, case by case as in prop-clipped-penalty."""
    result = 0
    for y in RESPONSES:
        for place in places(y):
            w, gain = torch.exp(log_pi[place] - LOG_OLD[place]), GAINS[place]
            if gain > 0 and w > 1 + EPS:
                w = 1 + EPS
            if gain < 0 and w < 1 - EPS:
                w = 1 - EPS
            result = result + chance(LOG_OLD, y) * w * gain
    return result


def assert_same(found, wanted, value=True):
    if value:
        torch.testing.assert_close(found[0], wanted[0], **CLOSE)
    torch.testing.assert_close(found[1], wanted[1], **CLOSE)


# The name in the snippet, what it estimates, whether its value means something, in which steps:
# the first, a later one.
PROMISES = {
    "Loss, token by token": ("kl", at_old_prefixes, True, (True, False)),
    "Loss, whole responses": ("kl", divergence, True, (True, False)),
    "Reward, first inner step": ("loss", lambda p: -objective(p), False, (True,)),
    "Reward, several inner steps": ("loss", lambda p: -objective(p), True, (True, False)),
    "Clipped": (
        "loss",
        lambda p: -clipped_gain(p) + BETA * at_old_prefixes(p),
        True,
        (True, False),
    ),
}


def keeps_promise(name, code):
    result, function, value, steps = PROMISES[name]
    for first in steps:
        names, z = run(code, first=first)
        assert_same(differentiated(names[result], z), exact(function, first=first), value)


def test_the_page_has_these_snippets_and_no_others():
    assert tuple(SNIPPETS) == NAMES
    assert tuple(ON_FRONT) == tuple(FRONT_PROMISES)


@pytest.mark.parametrize("code", SNIPPETS.values())
def test_a_snippet_has_at_most_five_lines_and_needs_pytorch_only(code):
    assert_short(code, GIVEN)


@pytest.mark.parametrize("code", on_page(FRONT).values())
def test_a_snippet_of_the_front_page_needs_the_package_for_whole_logits_only(code):
    assert_short(code, GIVEN_ON_FRONT)


def assert_short(code, given):
    assert 1 <= len(code.splitlines()) <= 5
    used = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    stored = {node.id for node in used if isinstance(node.ctx, ast.Store)}
    assert {node.id for node in used} - stored <= given


@pytest.mark.parametrize("name", PROMISES)
def test_value_and_gradient(name):
    keeps_promise(name, SNIPPETS[name])


def test_the_first_inner_step_without_a_weight():
    code = SNIPPETS["Loss, token by token, first inner step"]
    names, z = run(code, first=True)
    # The old policy is π itself here, and does not move with it.
    assert_same(differentiated(names["kl"], z), exact(at_old_prefixes, first=True))
    with_weight, z_too = run(SNIPPETS["Loss, token by token"], first=True)
    for row in range(0, 64, 9):  # and a sample has the same gradient
        k2_and_k3 = names["k3"].detach() + names["k2"] - names["k2"].detach()
        mask = names["mask"][row]
        (found,) = torch.autograd.grad((mask * k2_and_k3[row]).sum(), z, retain_graph=True)
        x = with_weight["x"]
        loss = (mask * with_weight["w"][row] * (torch.expm1(x) - x)[row]).sum()
        (wanted,) = torch.autograd.grad(loss, z_too, retain_graph=True)
        torch.testing.assert_close(found, wanted, **CLOSE)


def test_the_value_to_log_in_the_first_inner_step():
    names, _ = run(SNIPPETS["Reward, first inner step"], first=True)
    wanted, _ = exact(divergence, first=True)
    torch.testing.assert_close(names["k1"].sum(1).mean(), wanted, **CLOSE)


def of_each_token(names):
    w = (names["mask"] * (names["logp"] - names["logp_old"])).exp()
    x = names["mask"] * (names["logp_ref"] - names["logp"])
    return w * (torch.expm1(x) - x)


def test_the_denominators():
    """The batch stands for infinitely many responses: each is there as often as it should."""
    names, z = run(SNIPPETS["Denominator"], per_token=of_each_token)
    wanted = exact(at_old_prefixes)
    lengths = [len(y) for y in batch()]
    for name, factor in (("total", 1), ("scaled", LENGTH), ("averaged", np.mean(lengths))):
        assert_same(differentiated(factor * names[name], z), wanted)
    # What the page advises against.
    own = (names["mask"] * names["per_token"]).sum(1) / names["mask"].sum(1)
    _, gradient = differentiated(own.mean(), z)
    cosine = torch.sum(gradient * wanted[1]) / torch.linalg.norm(gradient)
    assert cosine / torch.linalg.norm(wanted[1]) < 0.99


def test_the_k1_loss_divided_by_the_length_lengthens():
    names, z = run("", first=True)
    own = (names["mask"] * (names["logp"] - names["logp_ref"])).sum(1) / names["mask"].sum(1)
    wanted = exact(lambda log_pi: sum(chance(log_pi, y) / len(y) for y in RESPONSES), first=True)
    assert_same(differentiated(own.mean(), z), wanted, value=False)
    assert torch.linalg.norm(wanted[1]) > 0.01


# Of the front page: the name in the snippet, what it estimates, whether its value means something,
# in which steps. They are those of the two boxes "Do this", or say the same.
FRONT_PROMISES = {
    "Loss": ("kl", at_old_prefixes, True, (True, False)),
    "Reward, just drawn": ("loss", lambda p: -objective(p), False, (True,)),
    "Reward, older": ("loss", lambda p: -objective(p), True, (True, False)),
    "Whole logits, just drawn": ("loss", divergence, False, (True,)),
    "Whole logits, older": ("loss", at_old_prefixes, True, (True, False)),
}
ON_FRONT = on_page(FRONT)


def front_keeps_promise(name, code):
    result, function, value, steps = FRONT_PROMISES[name]
    for first in steps:
        names, z = run(code, first=first, logits="logits" in code)
        assert_same(differentiated(names[result], z), exact(function, first=first), value)


@pytest.mark.parametrize("name", FRONT_PROMISES)
def test_value_and_gradient_on_the_front_page(name):
    front_keeps_promise(name, ON_FRONT[name])


def test_what_the_front_page_says_to_log():
    names, _ = run(ON_FRONT["Reward, just drawn"], first=True)
    wanted, _ = exact(divergence, first=True)
    torch.testing.assert_close(names["k1"].sum(1).mean(), wanted, **CLOSE)
    names, _ = run(ON_FRONT["Whole logits, just drawn"], first=True, logits=True)
    torch.testing.assert_close(names["K"].detach().sum(1).mean(), wanted, **CLOSE)


def test_the_weight_of_whole_responses_on_the_front_page():
    text = FRONT.read_text(encoding="utf-8")
    for_responses = "(mask * (logp - logp_old)).cumsum(1).exp()"
    assert f"`w` is `{for_responses}`" in text
    code = ON_FRONT["Loss"].replace("(mask * (logp - logp_old)).exp()", for_responses)
    for first in (True, False):
        names, z = run(code, first=first)
        assert_same(differentiated(names["kl"], z), exact(divergence, first=first))


WRONG = [
    ("Loss, token by token", "w * (", "w.detach() * ("),  # the other divergence
    ("Loss, token by token", "w * (", "("),
    ("Loss, token by token", "logp_ref - logp", "logp - logp_ref"),
    ("Loss, token by token", "torch.expm1(x) - x", "-x.detach() / 2"),
    ("Loss, token by token", ".sum(1).mean()", ".mean()"),
    ("Loss, token by token", "mask * (logp - logp_old)", "(logp - logp_old)"),
    ("Loss, whole responses", ".cumsum(1)", ""),
    ("Loss, whole responses", "mask * (logp", "(logp"),
    ("Loss, whole responses", "W * (", "W.detach() * ("),
    ("Reward, first inner step", ".detach()", ""),
    ("Reward, first inner step", ".flip(1).cumsum(1).flip(1)", ".cumsum(1)"),
    ("Reward, first inner step", ".flip(1).cumsum(1).flip(1)", ""),
    ("Reward, first inner step", "reward - beta", "reward + beta"),
    ("Reward, several inner steps", "logp - logp_ref", "logp_old - logp_ref"),  # frozen
    ("Reward, several inner steps", ".cumsum(1)", ""),
    ("Clipped", "torch.min", "torch.max"),
    ("Clipped", "1 - eps, 1 + eps", "1 - eps, 1 + 2 * eps"),
    ("Clipped", "1 - eps, 1 + eps", "1 - 2 * eps, 1 + eps"),
    ("Clipped", "kl = w * ", "kl = "),
    ("Clipped", "w.clamp(1 - eps, 1 + eps) * adv)", "w.clamp(1 - eps, 1 + eps) * adv) * beta"),
]


@pytest.mark.parametrize(("name", "right", "wrong"), WRONG)
def test_a_wrong_snippet_fails(name, right, wrong):
    assert right in SNIPPETS[name]
    with pytest.raises(AssertionError):
        keeps_promise(name, SNIPPETS[name].replace(right, wrong))


WRONG_ON_FRONT = [
    ("Loss", "w * (", "w.detach() * ("),
    ("Reward, just drawn", ".flip(1).cumsum(1).flip(1)", ".cumsum(1)"),
    ("Reward, older", "logp - logp_ref", "logp_old - logp_ref"),
    ("Whole logits, just drawn", "mask * logp * after", "0"),
    ("Whole logits, just drawn", "(logits, logits_ref", "(logits_ref, logits"),
    ("Whole logits, older", "(logits, logits_ref", "(logits_ref, logits"),
    ("Whole logits, older", ", mask=mask", ""),
]


@pytest.mark.parametrize(("name", "right", "wrong"), WRONG_ON_FRONT)
def test_a_wrong_snippet_of_the_front_page_fails(name, right, wrong):
    assert right in ON_FRONT[name]
    with pytest.raises(AssertionError):
        front_keeps_promise(name, ON_FRONT[name].replace(right, wrong))
