"""What the checking targets said is kept for the page on checks, if they pass."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from bookbuild import proofs, reports

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = """mutants:
	@test -z "$(ONLY)"
	@echo first; printf '\\033[32m== 3 of 3 killed ==\\033[0m\\n'
proofs: ; @echo partly; exit 2
libraries: ; @true
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "Makefile").write_text(MAKEFILE)
    (tmp_path / "back-matter").mkdir()
    who = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "All"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    return tmp_path


def test_the_last_line_is_kept(project, monkeypatch):
    monkeypatch.setenv("ONLY", "mutants")  # as make sets it for what it calls
    monkeypatch.setenv("MAKEFLAGS", " -- ONLY=mutants")
    assert "3 of 3 killed" in next(reports.run(project, ["mutants"]))
    found = reports.kept(project)["mutants"]
    assert found["says"] == "3 of 3 killed"
    assert re.fullmatch("[0-9a-f]{7,}", found["commit"])
    told = reports.told(reports.kept(project))
    assert told.startswith("`make mutants`\n: False neighbours")
    assert "*3 of 3 killed*" in told


@pytest.mark.parametrize("name", ["proofs", "libraries"])
def test_what_fails_or_says_nothing_is_not_kept(project, name):
    with pytest.raises(reports.ReportError, match=f"make {name} failed"):
        list(reports.run(project, [name]))
    assert not (project / reports.KEPT).exists()


def test_sources_that_are_not_committed_have_no_report(project):
    (project / "Makefile").write_text(f"{MAKEFILE}\n")
    with pytest.raises(reports.ReportError, match="commit them first"):
        list(reports.run(project, ["mutants"]))


def test_an_unknown_target_is_refused(project):
    with pytest.raises(reports.ReportError, match="No such target: book"):
        list(reports.run(project, ["book"]))


def test_targets_are_targets_of_the_makefile():
    rules = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert reports.TARGETS.keys() <= set(rules)
    assert json.loads((ROOT / reports.KEPT).read_text()).keys() <= reports.TARGETS.keys()


def test_every_formal_proof_says_where_it_is_narrower():
    text = reports.narrower(ROOT)
    labels = re.findall(r"^\{prf:ref\}`([\w-]+)`$", text, re.MULTILINE)
    assert labels == list(proofs.labels(ROOT / "proofs"))
    assert text.count("Narrower: ") == len(labels)
