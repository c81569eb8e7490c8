"""`make libraries` on a small package, with PyTorch: what was planted is found."""

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from released import extract, measure, trainers, wheels

import klapprox

CODE = """
import torch


{decorator}
def kl_loss(log_pi, log_ref, log_old, mask, beta, engine=None):
    x = log_ref - log_pi
    term = {term}
    policy = {policy}
    return ((policy + beta * term) * mask).sum() / mask.sum()
"""


def planted(folder, *, term, policy="0 * log_pi", decorator=""):
    """Return entry and taker of a small package with this code."""
    path = folder / "small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        code = CODE.format(term=term, policy=policy, decorator=decorator)
        archive.writestr("small/loss.py", code)
    release = wheels.Release("small", "1.0", wheels._hash(path), "2026-01-01", path)

    def build(take):
        function = take.function("small/loss.py", "kl_loss")

        def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
            options = {} if engine is None else {"engine": engine}
            return function(log_pi, log_ref, log_old, mask, beta=beta, **options)

        return loss

    def default(take):
        return trainers.Default(0.01, True, True)

    entry = trainers.Entry("small", "Small", "small", "KL", "loss", build, default, "Small.")
    return entry, trainers.Taker(release)


K3 = "torch.exp(x) - x - 1"


@pytest.mark.parametrize(
    ("term", "decorator", "value", "derivative", "law", "clamp", "field"),
    [
        (K3, "", "k3", "one_minus_r", "none", "", "forward_kl"),
        (
            f"torch.exp(log_pi - log_old) * ({K3})",
            "",
            "k3",
            "minus_log_r",
            "token",
            "",
            "reverse_kl",
        ),
        ("-x", "", "k1", "one", "none", "", "zero"),
        (f"({K3}).clamp(-10, 10)", "", "k3", "one_minus_r", "none", "value", "forward_kl"),
        (K3, "@torch.no_grad()", "k3", "zero", "none", "", None),
    ],
)
def test_what_was_planted_is_found(tmp_path, term, decorator, value, derivative, law, clamp, field):
    row = measure.row(*planted(tmp_path, term=term, decorator=decorator))
    assert (row["value"], row["derivative"], row["clamp"]) == (value, derivative, clamp)
    assert row["weight"]["law"] == law
    assert row["normalisation"] == "mean over kept tokens"
    gradient = row["gradients"].get("token, on-policy")
    assert (gradient and gradient["key"]) == field
    assert row["where"] == [{"file": "small/loss.py", "function": "kl_loss", "line": 6}]


def test_the_policys_own_term_is_subtracted(tmp_path):
    entry, take = planted(tmp_path, term="-x", policy="log_pi.exp()")
    assert measure.Term(entry, take).token(1.0) == pytest.approx((-1.0, 1.0), abs=1e-6)
    with pytest.raises(ValueError, match="at β = 0"):
        measure.row(replace(entry, alone=True), take)


FACTOR = "(1 if engine is None else engine{power})"


@pytest.mark.parametrize(
    ("policy", "term", "multiplies"),
    [
        ("log_pi * " + FACTOR.format(power=""), "-x", False),
        ("0 * log_pi", "-x * " + FACTOR.format(power=""), True),
        ("0 * log_pi", "-x * " + FACTOR.format(power="**2"), None),
    ],
)
def test_what_the_engine_multiplies(tmp_path, policy, term, multiplies):
    entry, take = planted(tmp_path, policy=policy, term=term)
    entry = replace(entry, engine=True)
    found = measure.Term(entry, take)
    if multiplies is None:
        with pytest.raises(ValueError, match="multiplies the term by"):
            measure.engine(entry, found)
    else:
        assert measure.engine(entry, found) == {"corrects": True, "multiplies_kl": multiplies}


def test_a_function_that_is_gone_fails(tmp_path):
    _, take = planted(tmp_path, term="-x")
    with pytest.raises(extract.ExtractionError, match="0 definitions"):
        take.function("small/loss.py", "kl_losses")


def test_numbers_are_words_where_json_has_none(tmp_path):
    entry, take = planted(tmp_path, term="torch.exp(x).clamp(max=10)")
    token = measure.numbers(measure.Term(entry, take))
    assert token["100"] == [10.0, "nan"]
    assert token["0"] == [1.0, -1.0]


def test_the_recipe_of_the_chapter_runs():
    chapter = Path(__file__).resolve().parents[2] / "chapters" / "libraries.ipynb"
    cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    code = re.search(r"```python\n# Identify a trainer's loss\n(.*?)```", text, re.DOTALL)[1]

    def trainer_loss(*, logp, ref, old, mask, beta):
        policy = torch.exp(logp - old)
        k3 = torch.exp(ref - logp) - (ref - logp) - 1
        return torch.where(mask, beta * policy * k3 - policy, 0).sum() / mask.sum()

    printed = []
    exec(code, {"klapprox": klapprox, "trainer_loss": trainer_loss, "print": printed.append})
    (found,) = printed
    assert (found.value, found.derivative, found.weight) == ("k3", "minus_log_r", "token")
    assert found.gradients[0].label == "thm-on-policy-gradients"
