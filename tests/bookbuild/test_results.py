"""The list of results: numbers, references, and a graph without a circle."""

import doctest
import itertools

import nbformat
import pytest

from bookbuild import citation, results, rules, statements

CHAPTER = """
```{prf:definition} A word
:label: def-word

A **word**.
```

```{prf:theorem} A claim about $q$
:label: thm-claim

As {prf:ref}`def-word` says.
```

```{prf:proof}
By {prf:ref}`lem-step` and {prf:ref}`the lemma <lem-step>`, see {prf:ref}`thm-claim`.
```

```{prf:lemma} A step
:label: lem-step

$1=1$.
```

```{prf:proof}
Clear.
```

```{exercise} A question
:label: ex-question

Why?
```

```{solution} ex-question
By {prf:ref}`thm-claim`.
```
"""


@pytest.fixture
def book(tmp_path):
    """A book of a chapter without results and one with three."""
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nchapters:\n- file: one\n- file: two\n"
    )
    for name, text in {"one": "# One", "two": f"# Two\n{CHAPTER}"}.items():
        cell = nbformat.v4.new_markdown_cell(text, id="a")
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    return tmp_path


def test_results_are_read_from_the_chapters(book):
    found = results.results(book)
    assert list(found) == ["def-word", "thm-claim", "lem-step"]
    claim = found["thm-claim"]
    assert (claim.name, claim.page, claim.title) == ("Theorem 2.2", "two", "A claim about $q$")
    assert claim.text == "As {prf:ref}`def-word` says."
    assert claim.uses == ("lem-step",), "each once, and not itself"
    assert claim.names == ("def-word",)
    assert found["def-word"].proof == ""
    assert results.exercises(book) == {"ex-question": ("thm-claim",)}


GRAPH = {"a": ("b", "c"), "b": ("c",), "c": ()}


def test_what_uses_a_result():
    assert results.users(GRAPH) == {"a": (), "b": ("a",), "c": ("a", "b")}
    assert results.longest_chain(GRAPH) == ["c", "b", "a"]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_circle_is_found(length):
    graph = GRAPH | {f"x{i}": (f"x{(i + 1) % length}", "a") for i in range(length)}
    found = results.circle(graph)
    assert len(found) == length + 1
    assert found[0] == found[-1]
    assert all(after in graph[before] for before, after in itertools.pairwise(found))


@pytest.mark.parametrize("module", [results, citation])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


# --- The book itself -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def every():
    return results.results(rules.ROOT)


def test_no_proof_rests_on_itself(every):
    assert results.circle({label: result.uses for label, result in every.items()}) == []


def test_what_is_named_exists(every):
    named = {name for result in every.values() for name in (*result.uses, *result.names)}
    named |= {name for found in results.exercises(rules.ROOT).values() for name in found}
    assert named - set(every) == set()


def test_every_labelled_statement_is_a_result(every):
    labels = {
        statement.label
        for path in rules.NOTEBOOKS
        for statement in statements.statements(path)
        if statement.label
    }
    assert labels == set(every)
