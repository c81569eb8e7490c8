"""The register of labels: what was published stays, and what changed is told."""

import dataclasses

import pytest

from bookbuild import labels, results, rules

THEOREM = results.Result("thm-a", "theorem", "1.1", "one", "A", "$1=1$.", "Clear.", (), ())
LEMMA = dataclasses.replace(THEOREM, label="lem-b", kind="lemma", number="1.2")
BOOK = {"thm-a": THEOREM, "lem-b": LEMMA}
EMPTY = {"frozen": [], "labels": {}}
OTHER = dataclasses.replace(THEOREM, text="$2=2$.")
TOLD = [{"version": labels.NEXT, "what": "statement", "words": "It says 2 = 2."}]


@pytest.fixture
def frozen():
    return labels.freeze(EMPTY, BOOK, "", "0.2.0")


def test_before_the_first_freeze_it_says_so():
    assert "No version is frozen yet: 0 labels are known from before, 2 are new." in labels.state(
        EMPTY, BOOK
    )
    assert labels.faults(EMPTY, BOOK, "") == []
    known = {"frozen": [], "labels": {"thm-a": {"since": "0.1.0", "kind": "theorem"}}}
    assert labels.faults(known, {"thm-a": OTHER}, "") == [], "only the label is held fast"
    assert labels.faults(known, {}, "") == ["thm-a was published in 0.1.0 and is gone"]


def test_frozen_labels_are_kept_with_kind_number_and_digest(frozen):
    assert frozen["frozen"] == ["0.2.0"]
    assert frozen["labels"]["thm-a"] == {
        "kind": "theorem",
        "since": "0.2.0",
        "number": "1.1",
        "page": "one",
        "sha256": labels.digest("$1=1$."),
        "proof": labels.digest("Clear."),
        "changes": [],
    }
    assert labels.faults(frozen, BOOK, "") == []
    assert labels.state(frozen, BOOK) == "Version 0.2.0 froze 2 labels; 0 are new since."


def test_how_lines_are_broken_does_not_count(frozen):
    broken = dataclasses.replace(THEOREM, text="\n$1=1$. ")
    assert labels.faults(frozen, BOOK | {"thm-a": broken}, "") == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda book: book.pop("thm-a"), "is gone"),
        (lambda book: book.update({"thm-a": dataclasses.replace(THEOREM, kind="lemma")}), "lemma"),
        (lambda book: book.update({"thm-a": OTHER}), "labels.yml has no line about it"),
        (lambda book: book.update({"thm-a": OTHER}), "CHANGELOG.md does not name it"),
    ],
)
def test_what_a_frozen_label_may_not_do(frozen, change, found):
    book = dict(BOOK)
    change(book)
    faults = labels.faults(frozen, book, "")
    assert any(found in fault for fault in faults), faults
    with pytest.raises(labels.LabelError, match=found):
        labels.freeze(frozen, book, "", "0.3.0")


def test_a_change_that_is_told_in_both_places_is_allowed(frozen):
    book = BOOK | {"thm-a": OTHER}
    frozen["labels"]["thm-a"]["changes"] = TOLD
    assert len(labels.faults(frozen, book, "")) == 1
    changelog = "* `thm-a` says 2 = 2."
    assert labels.faults(frozen, book, changelog) == []
    after = labels.freeze(frozen, book, changelog, "0.3.0")["labels"]["thm-a"]
    assert after["changes"] == [{**TOLD[0], "version": "0.3.0"}]
    assert after["since"] == "0.2.0"
    frozen["labels"]["thm-a"]["changes"] = [{**TOLD[0], "words": " "}]
    assert len(labels.faults(frozen, book, changelog)) == 1, "words, not a blank"


def test_a_freeze_notes_what_moved(frozen):
    moved = dataclasses.replace(THEOREM, number="2.1", page="two", proof="By hand.")
    after = labels.freeze(frozen, BOOK | {"thm-a": moved}, "", "0.3.0")
    assert [change["what"] for change in after["labels"]["thm-a"]["changes"]] == [
        "number",
        "page",
        "proof",
    ]
    assert after["labels"]["lem-b"]["changes"] == []


def test_a_version_is_frozen_once(frozen):
    with pytest.raises(labels.LabelError, match="raise the version"):
        labels.freeze(frozen, BOOK, "", "0.2.0")


def test_the_part_of_the_changelog_that_counts():
    changelog = "# C\n\n## Unreleased\n\n* `a`\n\n## 0.2.0\n\n* `b`\n\n## 0.1.0\n\n* `c`\n"
    assert "`a`" in labels.section(changelog, "0.3.0")
    assert "`b`" not in labels.section(changelog, "0.3.0")
    assert "`b`" in labels.section(changelog, "0.2.0")
    assert "`c`" not in labels.section(changelog, "0.2.0")


def test_what_is_written_is_read(tmp_path, frozen):
    labels.write(tmp_path, frozen)
    assert labels.read(tmp_path) == frozen
    assert labels.read(tmp_path / "elsewhere") == EMPTY


def test_the_register_of_the_book_is_in_order(capsys):
    assert labels.main([]) == 0, capsys.readouterr().out
    assert labels.main(["melt"]) == 2
    known = labels.read(rules.ROOT)["labels"]
    assert len(known) >= 112
    assert all(rules.LABEL.fullmatch(label) for label in known)
