"""How the book and its results are cited: everything comes from ``CITATION.cff``.

Who wrote the book, its title, version and year stand there and nowhere else; the site, BibTeX and
sentences are made from it, and the tests hold the other files of the project to it.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bookbuild.results import Result

# What titles may hold beside ASCII, as TeX.
_AS_TEX = {
    "’": "'",
    "–": "--",
    "—": "---",
    "‖": r"$\Vert$",
    "²": "$^2$",
    "χ": r"$\chi$",
    "λ": r"$\lambda$",
    "π": r"$\pi$",
    "é": r"{\'e}",
    "ö": r"{\"o}",
    "ü": r"{\"u}",
}
_SPECIAL = re.compile(r"[&%#_]")
_NAMES = re.compile(r"\b[A-Z]*[A-Z]{2}[A-Z]*\b")


@dataclass(frozen=True)
class Book:
    """What a citation of the book needs."""

    title: str
    authors: tuple[str, ...]
    version: str
    year: str

    @property
    def author(self) -> str:
        """Return the authors in a row."""
        return ", ".join(self.authors)


@functools.cache
def book(root: Path) -> Book:
    """Read ``CITATION.cff``."""
    found: dict[str, Any] = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    entry = found["preferred-citation"]
    authors = tuple(
        author.get("name") or f"{author['given-names']} {author['family-names']}"
        for author in entry["authors"]
    )
    return Book(entry["title"], authors, str(entry["version"]), str(entry["year"]))


def tex(text: str) -> str:
    r"""Return words with formulas as TeX in ASCII, so that every BibTeX can set them.

    Examples
    --------
    >>> print(tex("The family $k_λ$ & KL"))
    The family $k_\lambda$ \& KL
    """
    parts = re.split(r"(\$[^$]*\$)", text)
    for index, part in enumerate(parts):
        formula = index % 2 == 1
        if not formula:
            part = _SPECIAL.sub(lambda match: "\\" + match[0], part)
        for letter, written in _AS_TEX.items():
            part = part.replace(letter, written.strip("$") if formula else written)
        parts[index] = part.replace("$$", "")  # two formulas side by side are one
    return "".join(parts)


def plain(text: str) -> str:
    r"""Return words with formulas as plain text.

    Examples
    --------
    >>> plain(r"Variance of $k_\lambda$ near $p=q$")
    'Variance of k_λ near p=q'
    """
    for letter, written in _AS_TEX.items():
        if written[1:2] == "\\":
            text = text.replace(written.strip("$"), letter)
    text = re.sub(r"\\(?:mathrm|operatorname|text)\{([^{}]*)\}", r"\1", text)
    return text.replace("$", "").replace("\\", "")


def key(label: str) -> str:
    """Return the BibTeX key of a result."""
    return f"klapprox-{label}"


def title(book: Book) -> str:
    """Return the title of the book as BibTeX, with the capitals that must stay."""
    return _NAMES.sub(lambda match: f"{{{match[0]}}}", tex(book.title))


def bibtex(book: Book, address: str = "") -> str:
    """Return the BibTeX entry of the book."""
    fields = {
        "title": title(book),
        "author": _authors(book),
        "year": book.year,
        "version": book.version,
        "url": address,
    }
    return _entry("book", "klapprox", fields)


def bibtex_of(result: Result, book: Book, address: str = "") -> str:
    """Return the BibTeX entry of a result, which any style can set."""
    where = f"{result.name} of \\emph{{{title(book)}}}, version {book.version}"
    fields = {
        "title": f"{{{tex(result.title) or result.name}}}",
        "author": _authors(book),
        "howpublished": where,
        "year": book.year,
        "note": f"Label \\texttt{{{result.label}}}",
        "url": address,
    }
    return _entry("misc", key(result.label), fields)


def sentence(result: Result, book: Book, address: str = "") -> str:
    """Return a citation of a result in words."""
    words = f" ({plain(result.title)})" if result.title else ""
    where = f" {address}" if address else ""
    return (
        f"{book.author}, {book.title}, version {book.version} ({book.year}), "
        f"{result.name}{words}, {result.label}.{where}"
    )


def latex(result: Result) -> str:
    """Return what stands in a paper that cites a result, with the BibTeX entry above."""
    return f"{result.kind.capitalize()}~{result.number} of~\\cite{{{key(result.label)}}}"


def _authors(book: Book) -> str:
    """Return the authors as BibTeX: names of groups in braces of their own."""
    return " and ".join(f"{{{tex(author)}}}" for author in book.authors)


def _entry(kind: str, key: str, fields: dict[str, str]) -> str:
    width = max(len(name) for name, value in fields.items() if value)
    lines = [f"  {name:{width}} = {{{value}}}" for name, value in fields.items() if value]
    return f"@{kind}{{{key},\n" + ",\n".join(lines) + "\n}"
