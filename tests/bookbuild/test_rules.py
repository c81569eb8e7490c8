"""The rules bite: each planted fault, on a copy, is found."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bookbuild import rules
from klapprox.book import verify

SHORT = rules.ROOT / "chapters" / "why.ipynb"


@pytest.fixture
def copy(tmp_path):
    """A copy of a short chapter, and a function that stores changes to its cells."""
    path = tmp_path / SHORT.name
    notebook = json.loads(SHORT.read_text(encoding="utf-8"))

    def store():
        path.write_text(json.dumps(notebook), encoding="utf-8")
        return path

    return notebook["cells"], store


def code(cells, containing=""):
    return next(
        cell
        for cell in cells
        if cell["cell_type"] == "code" and containing in "".join(cell["source"])
    )


def test_the_untouched_copy_is_clean(copy):
    _, store = copy
    path = store()
    assert rules.notebook_faults(path) == rules.statement_faults(path) == []


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (lambda cell: cell.update(execution_count=None), "execution count None"),
        (lambda cell: cell.update(execution_count=7), "execution count 7"),
        (lambda cell: cell.update(source="print(1);"), "semicolon"),
        (lambda cell: cell.update(source="x = 1\n" * 65), "65 lines"),
        (
            lambda cell: cell["outputs"].append(
                {"output_type": "error", "ename": "ZeroDivisionError"}
            ),
            "stored error ZeroDivisionError",
        ),
        (
            lambda cell: cell["outputs"].append(
                {"output_type": "stream", "name": "stderr", "text": ["Warning"]}
            ),
            "stderr",
        ),
        (
            lambda cell: cell["outputs"].append(
                {"output_type": "execute_result", "data": {"text/plain": ["<f at 0x7f00aa00bb>"]}}
            ),
            "memory address",
        ),
        (
            lambda cell: cell["outputs"].append(
                {"output_type": "stream", "name": "stdout", "text": ["/home/someone/x.npz"]}
            ),
            "path of this machine",
        ),
        (
            lambda cell: cell["outputs"].append(
                {"output_type": "display_data", "data": {"image/png": "iVBORw0"}}
            ),
            "PNG",
        ),
        *(
            (lambda cell, d=data: cell["outputs"].append({"output_type": "display_data"} | d), said)
            for data, said in [
                ({"data": {"text/html": "<b>a</b>"}}, "text/html, which may bring code"),
                ({"data": {"application/javascript": "f()"}}, "application/javascript"),
                ({"data": {"image/svg+xml": "<svg><script>f()</script></svg>"}}, "<script> in a"),
                ({"data": {"image/svg+xml": "<svg onload='f()'/>"}}, "onload of <svg>"),
                ({"data": {"image/svg+xml": "<svg><image href='//x/y'/></svg>"}}, "href of <image"),
                ({"data": {"image/svg+xml": "<svg style='fill: url(//x)'/>"}}, "elsewhere"),
                ({"data": {rules.LIVE_MIME: {"data": {"url": "d.json"}}}}, "elsewhere"),
                ({"data": {rules.LIVE_MIME: {"title": "see http://x"}}}, "elsewhere"),
            ]
        ),
    ],
)
def test_a_fault_in_a_cell_is_found(copy, plant, found):
    cells, store = copy
    plant(code(cells))
    faults = rules.notebook_faults(store())
    assert any(found in fault for fault in faults), faults


@pytest.mark.parametrize(
    "text", ["<script src='//x/y.js'></script>", "[a](javascript:f())", "<b onclick = 'f()'>a</b>"]
)
def test_code_in_a_text_cell_is_found(copy, text):
    cells, store = copy
    cells[0]["source"] += f"\n\n{text}\n"
    (fault,) = rules.notebook_faults(store())
    assert "code that would run in the page" in fault


def test_an_emptied_notebook_is_found(copy):
    cells, store = copy
    del cells[1:]
    assert "tests nothing" in rules.notebook_faults(store())[0]


def test_a_check_whose_report_was_stripped_is_found(copy):
    cells, store = copy
    code(cells, "verify.check(")["outputs"] = []
    path = store()
    assert any("without its report" in fault for fault in rules.notebook_faults(path))
    assert any("scope" in fault for fault in rules.statement_faults(path))


# The two sides of a claim of the chapter `why`.
SIDES = """pair.expand(pair.whole.kl),
        pair.mean_sum(lambda y, t: y.rows[t].kl),"""


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ('"thm-chain-rule"', '"thm-chain-rules"', "there is no such statement"),
        ('"thm-chain-rule"', '"prop-cost"', "no check names it"),
        ("{prf:proof}", "{prf:remark}", "no proof follows"),
        (":label: thm-chain-rule", ":label: Chain_Rule", "not of the form"),
        (SIDES, "chain, chain,", "both sides are chain"),
        (SIDES, "1, 2,", "constants alone"),
        (SIDES, "[chain + 1], [\n    chain+1  # ‖r‖\n],", "both sides are [chain + 1]"),
        (SIDES, "left=chain, right=chain,", "not written out"),
        (SIDES, "*[chain, chain],", "not written out"),
    ],
)
def test_a_fault_in_a_statement_is_found(copy, old, new, found):
    cells, store = copy
    for cell in cells:
        source = "".join(cell["source"])
        if "thm-chain-rule" in source:
            cell["source"] = source.replace(old, new)
    faults = rules.statement_faults(store())
    assert any(found in fault for fault in faults), faults


def test_a_check_without_claims_is_found(copy):
    cells, store = copy
    cell = code(cells, '"thm-chain-rule"')
    cell["source"] = 'verify.check("thm-chain-rule", scope="nothing")'
    assert any("no claim" in fault for fault in rules.statement_faults(store()))


@pytest.mark.parametrize(
    ("prose", "found"),
    [
        ("It is $0.0123$.", ["0.0123"]),
        ("between .0123 and $4.567\\cdot10^{8}$", [".0123", "4.567"]),
        ("as in {prf:ref}`thm-0.0123`, version 1.2.3, `x = 0.0123` and [a link](page-0.0123)", []),
        ("Memory is $0.608$ GB.", []),  # which a cell prints
    ],
)
def test_a_number_that_no_cell_knows_is_found(copy, prose, found):
    cells, store = copy
    assert rules.number_faults(store()) == []
    cells.append({"cell_type": "markdown", "metadata": {}, "source": prose})
    faults = rules.number_faults(store())
    assert [fault.split(": ")[1].split(" ")[0] for fault in faults] == found
    assert rules.number_faults(store(), explained=found) == []


def test_a_doubled_label_is_found(copy):
    _, store = copy
    assert "thm-chain-rule is in" in " ".join(rules.label_faults([SHORT, store()]))


def test_a_notebook_outside_the_toc_is_found(copy):
    _, store = copy
    assert len(rules.toc_faults(rules.ROOT / "_toc.yml", [store()])) == 1


def test_a_claim_that_cannot_fail_is_found(copy, monkeypatch):
    cells, store = copy
    cells[:] = [code(cells), code(cells, '"prop-cost"')]
    path = store()
    assert rules.claims_that_cannot_fail(path) == ([], 4)
    monkeypatch.setitem(verify._DECISIONS, "=", lambda left, right, digits: "believed")
    survivors, _ = rules.claims_that_cannot_fail(path)
    assert len(survivors) == 4


def test_nbval_finds_a_changed_digit(copy):
    cells, store = copy
    output = code(cells, "gigabytes")["outputs"][0]
    output["text"] = "".join(output["text"]).replace("0.608", "0.609")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", str(store())],
        capture_output=True,
        text=True,
        cwd=rules.ROOT,
        check=False,
    )
    assert result.returncode == 1, result.stdout
    assert "0.609" in result.stdout
    assert "1 failed" in result.stdout


@pytest.fixture
def book(tmp_path):
    """A copy of the book's sources and a function that builds it with warnings as errors."""
    ignored = shutil.ignore_patterns(".git", ".venv*", "_build", ".*_cache", "__pycache__", "tests")
    root = tmp_path / "book"
    shutil.copytree(rules.ROOT, root, ignore=ignored)

    def build():
        command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "-q", "-n", "-W"]
        return subprocess.run(
            [*command, "--keep-going"], capture_output=True, text=True, cwd=root, check=False
        )

    return root, build


def test_the_untouched_book_builds(book):
    _, build = book
    result = build()
    assert result.returncode == 0, result.stderr


def test_a_broken_cross_reference_fails_the_build(book):
    root, build = book
    page = root / "back-matter" / "from-the-post.md"
    page.write_text(page.read_text(encoding="utf-8").replace("`thm-uniqueness`", "`thm-onlyness`"))
    result = build()
    assert result.returncode != 0
    assert "thm-onlyness" in result.stderr + result.stdout
