"""Every notebook of the book keeps the rules; what it prints is compared by ``pytest --nbval``."""

import pytest

from bookbuild import rules

by_notebook = pytest.mark.parametrize("path", rules.NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert len(rules.NOTEBOOKS) >= 5


@by_notebook
def test_stored_notebook_is_whole(path):
    assert rules.notebook_faults(path) == []


@by_notebook
def test_every_statement_is_proved_and_checked(path):
    assert rules.statement_faults(path) == []


@by_notebook
def test_every_number_of_the_prose_is_in_a_cell(path):
    assert rules.number_faults(path, rules.EXPLAINED.get(path.name, ())) == []


def test_every_explained_number_is_still_there():
    for name, numbers in rules.EXPLAINED.items():
        (path,) = (path for path in rules.NOTEBOOKS if path.name == name)
        assert len(rules.number_faults(path)) == len(numbers)


@by_notebook
def test_every_claim_can_fail(path):
    survivors, count = rules.claims_that_cannot_fail(path)
    assert survivors == []
    assert count > 0


def test_labels_are_unique():
    assert rules.label_faults(rules.NOTEBOOKS) == []


def test_every_notebook_is_in_the_table_of_contents():
    assert rules.toc_faults(rules.ROOT / "_toc.yml", rules.NOTEBOOKS) == []
