"""The snippets of the chapter on whole vocabularies, run as they stand there.

The batch holds every response as often as the law that wrote it does in 64 tries, so that a mean
over the batch is the exact mean. Gradients are compared with those of sums over all responses.
"""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from test_snippets import CLOSE, LENGTH, LOG_OLD, LOG_REF, RESPONSES, batch, chance, on_page, places

from klapprox.vocabulary import exact_kl, topk_kl

CHAPTER = Path(__file__).resolve().parents[2] / "chapters" / "whole-vocabulary.ipynb"
SNIPPETS = on_page(CHAPTER)
STUDENT = "Steps of the student's responses"
TEACHER = "Steps of the teacher's responses"
TOP = "Top-k, with the sampled token"
GIVEN = {"exact_kl", "topk_kl", "logits", "logits_ref", "logp", "logp_ref", "mask"}
GIVEN |= {"top", "token", "logp_top", "logp_ref_top"}
KEPT = torch.tensor([2])  # the tokens of the top-k set


def rows(table, filling):
    """Return the rows of a table along the batch, (responses, T, V), filled up after the end."""
    found = []
    for y in batch():
        entries = [table[prefix] for prefix, _ in places(y)]
        entries += [torch.tensor(filling, dtype=table.dtype)] * (LENGTH - len(y))
        found.append(torch.stack(entries))
    return torch.stack(found)


def tokens():
    return torch.tensor([[*y, *[0] * (LENGTH - len(y))] for y in batch()])


def run(code, z, other):
    """Execute a snippet; the batch is written by LOG_OLD, z are the logits to differentiate in."""
    at = tokens()
    mask = torch.tensor([[t < len(y) for t in range(LENGTH)] for y in batch()])
    logits, logits_ref = rows(z, [0.0, 1.0, 2.0]), rows(other, [3.0, 0.0, -1.0])
    laws = {"logits": logits, "logits_ref": logits_ref}
    logs = {name: torch.log_softmax(value, -1) for name, value in laws.items()}
    names = {
        **laws,
        "mask": mask,
        "token": at,
        "top": KEPT.expand(*at.shape, -1),
        "logp": logs["logits"].gather(-1, at[..., None])[..., 0],
        "logp_ref": logs["logits_ref"].gather(-1, at[..., None])[..., 0],
        "logp_top": logs["logits"][..., KEPT],
        "logp_ref_top": logs["logits_ref"][..., KEPT],
        "exact_kl": exact_kl,
        "topk_kl": topk_kl,
    }
    exec(code, names)
    return names


def steps(log_q, log_p):
    return torch.sum(torch.exp(log_q) * (log_q - log_p), dim=1)


def over(log_law, table):
    """Return the mean over responses from a law of the sum of a table of prefixes along them."""
    return sum(
        chance(log_law, y) * sum(table[prefix] for prefix, _ in places(y)) for y in RESPONSES
    )


def differentiated(value, z):
    return value.detach(), torch.autograd.grad(value, z)[0]


def student():
    return LOG_OLD.clone().requires_grad_()


def keeps_promise(name, code):
    """Compare value and gradient of a snippet with the exact ones."""
    z = student()
    log_pi = torch.log_softmax(z, 1)
    if name == TEACHER:  # LOG_OLD is then the teacher, and the student is another law
        z = LOG_REF.clone().requires_grad_()
        value, found = differentiated(run(code, z, LOG_OLD)["loss"], z)
        exact = over(LOG_OLD, steps(LOG_OLD, torch.log_softmax(z, 1)))
    elif name == STUDENT:
        names = run(code, z, LOG_REF)
        value, found = names["K"].detach().sum(1).mean(), differentiated(names["loss"], z)[1]
        exact = over(log_pi, steps(log_pi, LOG_REF))
    else:
        value, found = differentiated(run(code, z, LOG_REF)["K"].sum(1).mean(), z)
        exact = over(LOG_OLD, steps(log_pi, LOG_REF))
    wanted = differentiated(exact, z)
    torch.testing.assert_close(value, wanted[0], **CLOSE)
    torch.testing.assert_close(found, wanted[1], **CLOSE)


def test_the_page_has_these_snippets_and_no_others():
    assert tuple(SNIPPETS) == (STUDENT, TEACHER, TOP)


@pytest.mark.parametrize("code", SNIPPETS.values())
def test_a_snippet_is_short_and_uses_what_the_page_names(code):
    assert 1 <= len(code.splitlines()) <= 5
    used = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    stored = {node.id for node in used if isinstance(node.ctx, ast.Store)}
    assert {node.id for node in used} - stored <= GIVEN


@pytest.mark.parametrize("name", SNIPPETS)
def test_value_and_gradient(name):
    keeps_promise(name, SNIPPETS[name])


def test_the_other_direction_at_the_prefixes_of_the_student():
    z = student()
    code = SNIPPETS[STUDENT].replace("(logits, logits_ref", "(logits_ref, logits")
    _, found = differentiated(run(code, z, LOG_REF)["loss"], z)
    log_pi = torch.log_softmax(z, 1)
    _, wanted = differentiated(over(log_pi, steps(LOG_REF, log_pi)), z)
    torch.testing.assert_close(found, wanted, **CLOSE)


WRONG = [
    (STUDENT, " - K.detach()", " - K.detach().flip(1)"),
    (STUDENT, ".flip(1).cumsum(1).flip(1)", ".cumsum(1)"),
    (STUDENT, "mask * logp * after", "0"),
    (STUDENT, "(logits, logits_ref", "(logits_ref, logits"),
    (STUDENT, ", mask=mask", ""),
    (TEACHER, "(logits_ref, logits", "(logits, logits_ref"),
    (TEACHER, ", mask=mask", ""),
    (TOP, "!=", "=="),
    (TOP, "mask=mask, ", ""),
    (TOP, ", **sample", ""),
]


@pytest.mark.parametrize(("name", "right", "wrong"), WRONG)
def test_a_wrong_snippet_fails(name, right, wrong):
    assert right in SNIPPETS[name]
    with pytest.raises((AssertionError, ValueError)):
        keeps_promise(name, SNIPPETS[name].replace(right, wrong))


def test_which_argument_of_kl_div_is_which():
    """The table of the section "Which argument is which"."""
    page = CHAPTER.read_text(encoding="utf-8").replace('\\"', '"')
    call = 'F.kl_div(log_p, log_q, log_target=True, reduction="none").sum(-1)'
    assert f"`{call}`" in page
    rng = np.random.Generator(np.random.PCG64(7))
    logits = [torch.tensor(rng.standard_normal((2, 5))) for _ in range(2)]
    log_q, log_p = (torch.log_softmax(z, -1) for z in logits)
    kl_div = torch.nn.functional.kl_div
    found = eval(call, {"F": torch.nn.functional, "log_p": log_p, "log_q": log_q})
    torch.testing.assert_close(found, exact_kl(*logits), **CLOSE)
    with pytest.warns(UserWarning, match="support size"):  # the default divides by all entries
        mean = kl_div(log_p, log_q, log_target=True)
    torch.testing.assert_close(mean, found.mean() / 5, **CLOSE)
