"""The formal proofs belong to the book's statements, and what would make them worthless is found.

Nothing here needs Coq: `make proofs` compiles them.
"""

import dataclasses
import re
import shutil
import tomllib

import pytest

from bookbuild import pages, proofs

FOLDER = proofs.ROOT / "proofs"


@pytest.fixture(scope="module")
def book():
    return proofs.of_the_book()


@pytest.fixture
def copy(tmp_path):
    """A copy of the folder, and a function that replaces words in one of its files."""
    folder = tmp_path / "proofs"
    shutil.copytree(FOLDER, folder)

    def change(file, old, new):
        path = folder / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return folder, change


def test_proofs_labels_and_book_agree(book):
    assert proofs.faults(FOLDER, book) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "found"),
    [
        ("Means.v", "Theorem thm_gibbs q", "Theorem thm_gibbs_ q", "thm_gibbs of thm-gibbs is in"),
        ("Means.v", "Theorem thm_gibbs q", "Theorem thm_gib q", "thm_gib is not in labels.toml"),
        ("Means.v", "Lemma chi2_nonneg", "Lemma prop_new", "prop_new is not in labels.toml"),
        ("labels.toml", "[thm-gibbs]", "[thm-gibs]", "there is no statement thm-gibs"),
        ("labels.toml", '["thm_gibbs"]', "[]", "thm-gibbs has no theorem"),
        ("labels.toml", '["thm_gibbs"]', '["KL_nonneg"]', "KL_nonneg does not begin with"),
        ("labels.toml", '["thm_gibbs"]', '["thm_gibbs", "thm_gibbs"]', "thm_gibbs is listed twice"),
        ("labels.toml", 'covers = "all of it"', 'covers = ""', "does not say covers"),
        ("labels.toml", 'narrower = "finite"', 'narrower = ""', "does not say narrower"),
        ("_CoqProject", "Means.v", "", "Means.v is not in _CoqProject"),
    ],
)
def test_disagreement_is_found(copy, book, file, old, new, found):
    folder, change = copy
    change(file, old, new)
    assert any(found in fault for fault in proofs.faults(folder, book))


@pytest.mark.parametrize(
    "words",
    [
        "Lemma x : 0 = 1.\nProof.\nAdmitted. Qed.",
        "Axiom x : 0 = 1.",
        "Axioms x y : 0 = 1.",
        "Parameter x : 0 = 1.",
        "Conjecture x : 0 = 1.",
        "Lemma x : 0 = 1. Proof. admit. Qed.",
        "Lemma x : 0 = 1. Proof. give_up. Qed.",
        "Lemma x : 0 = 1. Proof. Abort. Qed.",
        "Unset Guard Checking.",
        "Unset Universe Checking.",
        "#[bypass_check(guard)] Fixpoint f (n : nat) : False := f n.",
    ],
)
def test_what_proves_nothing_is_found(copy, book, words):
    folder, change = copy
    change("Laws.v", "(** ** Sums over a list *)", words)
    assert any(fault.startswith("Laws.v, line ") for fault in proofs.faults(folder, book))


@pytest.mark.parametrize(
    "words", ["2 * E[x ∼ q] f x + 1", "1 / ∑ x ∈ X, f x", "0 = - Var[x ∼ q] f x + 1"]
)
def test_means_that_coq_would_read_too_far_are_found(copy, book, words):
    folder, change = copy
    change("Laws.v", "(** ** Sums over a list *)", f"Definition x := {words}.")
    (fault,) = proofs.faults(folder, book)
    assert fault.endswith("put the mean or sum in brackets")


def test_comments_may_say_what_they_like(copy, book):
    folder, change = copy
    change("Laws.v", "(** ** Sums over a list *)", "(* Axiom (* Admitted. *) admit *)")
    assert proofs.faults(folder, book) == []


def test_a_proof_without_end_is_found(copy):
    folder, _ = copy
    (folder / "New.v").write_text("Lemma x : 0 = 1.\nProof.\n", encoding="utf-8")
    with pytest.raises(proofs.ProofError, match="the proof of x has no end"):
        proofs.theorems(folder)


def test_a_name_used_twice_is_found(copy):
    folder, _ = copy
    (folder / "New.v").write_text("Lemma thm_gibbs : 1 = 1.\nProof. easy. Qed.\n", encoding="utf-8")
    with pytest.raises(proofs.ProofError, match=r"thm_gibbs is in Means\.v and in New\.v"):
        proofs.theorems(folder)


def test_a_changed_statement_wants_its_twin_looked_at_again(copy, book):
    folder, _ = copy
    statement = book["thm-gibbs"]
    changed = book | {
        "thm-gibbs": dataclasses.replace(statement, text=statement.text.replace("ge", "le"))
    }
    (fault,) = proofs.faults(folder, changed)
    assert fault.startswith("thm-gibbs has changed in the book")
    proofs.accept(folder, "thm-gibbs", changed)
    assert proofs.faults(folder, changed) == []
    assert len(proofs.faults(folder, book)) == 1, "and only this digest was stored"


def test_line_breaks_do_not_change_a_statement():
    assert proofs.digest("a  b\nc") == proofs.digest("a b c") != proofs.digest("a b d")


def test_only_statements_with_a_twin_can_be_accepted(copy, book):
    folder, _ = copy
    with pytest.raises(proofs.ProofError, match="not in labels"):
        proofs.accept(folder, "thm-nothing", book)


def test_the_readme_quotes_the_sources():
    known = proofs.theorems(FOLDER)
    quoted = re.findall(
        r"```coq\n(.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert len(quoted) == 5
    for text in quoted:
        name = text.split()[1].rstrip(":")
        assert text.split() == known[name].statement.split()


def test_links_lead_to_the_line_of_the_theorem():
    found = proofs.statuses(proofs.ROOT)
    assert found.keys() == proofs.labels(FOLDER).keys()
    for entry in found.values():
        for theorem in entry["theorems"]:
            lines = (FOLDER / theorem["file"]).read_text(encoding="utf-8").splitlines()
            assert f" {theorem['name']} " in lines[theorem["line"] - 1].replace(":", " ")


def test_each_line_of_a_source_can_be_linked_to_and_leads_back_to_what_it_proves():
    every = {
        label: {"name": f"Result {label}", "page": f"s/{label}.html", "place": f"x.html#{label}"}
        | {"formal": entry}
        for label, entry in proofs.statuses(proofs.ROOT).items()
    }
    sources = proofs.pages_of_sources(proofs.ROOT, every)
    shown = {name: pages.parse(body) for name, _, body in sources}
    assert len(shown) == len(list(FOLDER.glob("*.v")))
    for label, entry in proofs.statuses(proofs.ROOT).items():
        for theorem in entry["theorems"]:
            path, _, line = proofs.address(theorem).removeprefix("../").partition(".html#")
            (found,) = shown[path].xpath(f"//span[@id='{line}']")
            assert theorem["name"] in found.text_content()
            assert f"../s/{label}.html" in found.getprevious().xpath("./a/@href")
            assert f"../s/{label}.html" in shown[path].xpath("./p//a/@href")
    for path in FOLDER.glob("*.v"):
        lines = shown[f"proofs/{path.stem}"].xpath("//pre/span[@id]")
        text = "".join(line.text_content() for line in lines)
        assert text == path.read_text(encoding="utf-8"), path


def test_a_book_without_proofs_has_none(tmp_path):
    assert proofs.statuses(tmp_path) == {}
    assert list(proofs.pages_of_sources(tmp_path, {})) == []


def test_what_is_proved_in_part_says_so():
    for label, entry in proofs.statuses(proofs.ROOT).items():
        assert entry["words"].endswith("in part") == bool(entry["missing"]), label


def test_there_are_mutants_and_each_changes_its_statement():
    found = proofs.mutants(FOLDER)
    assert len(found) >= 20
    assert len({(m["theorem"], m["text"], m["mutant"]) for m in found}) == len(found)
    known = proofs.theorems(FOLDER)
    for mutant in found:
        theorem, source, lines = proofs.mutated(FOLDER, known, mutant)
        assert mutant["text"] != mutant["mutant"]
        assert source.splitlines()[lines[0] - 1].lstrip().startswith("Proof")
        assert source.splitlines()[lines[-1] - 1].endswith(("Qed.", "Defined.")), theorem.name


def test_a_mutant_must_say_exactly_what_it_changes():
    mutant = {"theorem": "thm_gibbs", "text": "KL", "mutant": "J"}
    with pytest.raises(proofs.ProofError, match="exactly once"):
        proofs.mutated(FOLDER, proofs.theorems(FOLDER), mutant)


def test_what_was_compiled_from_other_sources_counts_for_nothing(copy, tmp_path):
    folder, change = copy
    build = tmp_path / "build"
    assert not proofs.is_compiled(folder, build)
    shutil.copytree(folder, build)
    for path in build.glob("*.v"):
        path.with_suffix(".vo").touch()
    assert proofs.is_compiled(folder, build)
    change("Laws.v", "(**", "(* *) (**")
    assert not proofs.is_compiled(folder, build)


def test_assumptions_beyond_the_list_are_found():
    allowed = tomllib.loads((FOLDER / "assumptions.toml").read_text(encoding="utf-8"))
    everywhere = list(allowed["everywhere"])
    assert proofs.unexpected(set(everywhere), everywhere) == []
    assert proofs.unexpected({"PrimInt63.add", "Means.mine"}, everywhere) == [
        "Means.mine",
        "PrimInt63.add",
    ]
    assert proofs.unexpected({"PrimInt63.add", "Means.mine"}, list(allowed["interval"])) == [
        "Means.mine"
    ]
    for sentences in allowed.values():
        assert all(sentence.endswith(".") for sentence in sentences.values())


def test_only_files_that_compute_may_use_machine_integers(copy):
    folder, change = copy
    before = proofs.files_with_interval(folder)
    assert "M0.v" in before
    assert "Means.v" not in before
    change("Means.v", "From KL", "From Interval Require Import Tactic.\nFrom KL")
    assert {"Means.v", "Variance.v"} <= proofs.files_with_interval(folder), "imports count too"


def test_without_coq_the_packages_are_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(proofs.ProofError, match=r"apt-get install .*coq libcoq-coquelicot"):
        proofs.require_coq()
