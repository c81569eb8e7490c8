"""The results of the book as one list: their numbers, and what rests on what.

A result is a labelled definition, example or statement. Its proof uses what it names: the graph of
the book is read from the references inside proofs, and from nothing else.
"""

import functools
import graphlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bookbuild import statements

_REFERENCE = re.compile(r"\{prf:ref\}`(?:[^`<]*<)?([\w-]+)>?`")
_LABEL = re.compile(r"\b(?:def|lem|prop|thm|cor|ex|rem)(?:-[a-z0-9]+)+")
_EXERCISE = re.compile(
    r"^(?P<fence>`{3,})\{(?P<kind>exercise|solution)\}[ \t]*(?P<title>[^\n]*)\n"
    r"(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Result:
    """A result as the sources have it.

    Attributes
    ----------
    page : str
        The page that it stands on, without ending.
    title, text, proof : str
        As written, in MyST; the text has no label, the proof may be empty.
    uses : tuple of str
        Labels that the proof names, without its own, in the order of the proof.
    names : tuple of str
        Labels that the text names.
    """

    label: str
    kind: str
    number: str
    page: str
    title: str
    text: str
    proof: str
    uses: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return kind and number, such as *Theorem 5.7*."""
        return f"{self.kind.capitalize()} {self.number}"


def named(text: str, known: Mapping[str, Result]) -> str:
    """Return plain text in which labels of results are replaced by kind and number."""
    return _LABEL.sub(lambda match: known[match[0]].name if match[0] in known else match[0], text)


def references(text: str) -> list[str]:
    """Return the labels of statements that a text names, each once, in their order."""
    return list(dict.fromkeys(_REFERENCE.findall(text)))


@functools.cache
def chapters(root: Path) -> dict[str, Path]:
    """Return the notebooks of the table of contents by the names of their pages, in order."""
    found = {page: root / f"{page}.ipynb" for page in statements.pages(root / "_toc.yml")}
    return {page: path for page, path in found.items() if path.exists()}


@functools.cache
def results(root: Path) -> dict[str, Result]:
    """Return all results by label, in the order of the book.

    Numbers are those of the site: one counter a chapter for all kinds. The build compares them with
    those that Sphinx gives.
    """
    found: dict[str, Result] = {}
    for chapter, (page, path) in enumerate(chapters(root).items(), start=1):
        listed = statements.statements(path)
        number = 0
        for statement, after in itertools.pairwise([*listed, None]):
            if statement is None or statement.kind not in statements.LABELLED:
                continue
            number += 1
            proof = after.text if after is not None and after.kind == "proof" else ""
            found[statement.label] = Result(
                statement.label,
                statement.kind,
                f"{chapter}.{number}",
                page,
                statement.title.strip(),
                statement.text,
                proof,
                tuple(label for label in references(proof) if label != statement.label),
                tuple(label for label in references(statement.text) if label != statement.label),
            )
    return found


def exercises(root: Path) -> dict[str, tuple[str, ...]]:
    """Return, by the label of an exercise, the results that it or its solution names."""
    found: dict[str, tuple[str, ...]] = {}
    for path in chapters(root).values():
        for cell in statements.cells(path):
            if cell["cell_type"] != "markdown":
                continue
            for match in _EXERCISE.finditer(cell["source"]):
                label = re.search(r"^:label:[ \t]*(\S+)", match["body"], re.MULTILINE)
                key = label[1] if label else match["title"].strip()
                named = [*found.get(key, ()), *references(match["body"])]
                found[key] = tuple(dict.fromkeys(named))
    return found


def users(uses: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Turn a graph round: return, for each label, the labels whose proofs use it."""
    return {label: tuple(other for other in uses if label in uses[other]) for label in uses}


def circle(uses: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return labels each of which rests on the next one, in a circle; none if there is none.

    Examples
    --------
    >>> circle({"thm-a": ("lem-b",), "lem-b": ()})
    []
    >>> circle({"thm-a": ("lem-b",), "lem-b": ("thm-a",)})
    ['thm-a', 'lem-b', 'thm-a']
    """
    try:
        graphlib.TopologicalSorter(uses).prepare()
    except graphlib.CycleError as error:
        found: list[str] = error.args[1]
        return found[::-1]
    return []


def longest_chain(uses: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return a longest list of labels each of which is used by the proof of the next one.

    Examples
    --------
    >>> longest_chain({"thm-a": ("lem-b", "lem-c"), "lem-b": ("lem-c",), "lem-c": ()})
    ['lem-c', 'lem-b', 'thm-a']
    """
    chains: dict[str, list[str]] = {}
    for label in graphlib.TopologicalSorter(uses).static_order():
        before = max((chains[used] for used in uses.get(label, ())), key=len, default=[])
        chains[label] = [*before, label]
    return max(chains.values(), key=len, default=[])
