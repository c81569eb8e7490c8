"""How the book is cited: one file says it, and all others agree with it."""

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

import klapprox
from bookbuild import citation, results, rules

# The schema of the Citation File Format 1.2.0, by its authors, under CC BY 4.0.
SCHEMA = json.loads(
    Path(__file__).parents[1].joinpath("cff-1.2.0.schema.json").read_text(encoding="utf-8")
)
FILE = rules.ROOT / "CITATION.cff"


def faults(text):
    """Return what the schema says of a citation file."""
    # The schema asks for dates as text; YAML reads them as dates.
    found = yaml.load(text, Loader=yaml.BaseLoader)
    return [error.message for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(found)]


def test_the_citation_file_is_valid():
    assert faults(FILE.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cff-version: 1.2.0", "cff-version: 1.3.0"),
        ("title: ", "name: "),
        ("type: software", "type: poem"),
        ("BSD-3-Clause", "BSD-Three"),
        ("date-released: 2026-", "date-released: 26-"),
    ],
)
def test_a_fault_in_the_citation_file_is_found(old, new):
    text = FILE.read_text(encoding="utf-8")
    assert old in text
    assert faults(text.replace(old, new, 1))


def test_authors_and_title_are_the_same_everywhere():
    book = citation.book(rules.ROOT)
    whole = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    config = yaml.safe_load((rules.ROOT / "_config.yml").read_text(encoding="utf-8"))
    project = tomllib.loads((rules.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    readme = (rules.ROOT / "README.md").read_text(encoding="utf-8")
    assert whole["authors"] == whole["preferred-citation"]["authors"]
    assert whole["version"] == whole["preferred-citation"]["version"] == klapprox.__version__
    assert (config["author"], config["title"]) == (book.author, book.title)
    assert str(config["copyright"]) == book.year == str(whole["date-released"])[:4]
    assert [author["name"] for author in project["authors"]] == list(book.authors)
    for name in ("LICENSE", "LICENSE-TEXT"):
        text = (rules.ROOT / name).read_text(encoding="utf-8")
        assert book.author.lower() in text.lower()
    assert citation.bibtex(book) in readme, "the README shows what the site gives"


BOOK = citation.Book("Approximating KL (in RL)", ("The A & B group", "Ada Byron"), "1.0", "2026")
RESULT = results.Result(
    "def-chi-squared", "definition", "1.6", "a", "χ² of $k_λ$: 5%", "", "", (), ()
)


def test_bibtex_is_ascii_and_protects_names():
    assert citation.bibtex_of(RESULT, BOOK, "https://x/s/def-chi-squared.html") == (
        "@misc{klapprox-def-chi-squared,\n"
        "  title        = {{$\\chi^2$ of $k_\\lambda$: 5\\%}},\n"
        "  author       = {{The A \\& B group} and {Ada Byron}},\n"
        "  howpublished = {Definition 1.6 of \\emph{Approximating {KL} (in {RL})}, version 1.0},\n"
        "  year         = {2026},\n"
        "  note         = {Label \\texttt{def-chi-squared}},\n"
        "  url          = {https://x/s/def-chi-squared.html}\n"
        "}"
    )
    assert "url" not in citation.bibtex_of(RESULT, BOOK)
    assert citation.sentence(RESULT, BOOK) == (
        "The A & B group, Ada Byron, Approximating KL (in RL), version 1.0 (2026), "
        "Definition 1.6 (χ² of k_λ: 5%), def-chi-squared."
    )
    assert citation.latex(RESULT) == "Definition~1.6 of~\\cite{klapprox-def-chi-squared}"


def test_every_result_of_the_book_has_an_entry_that_bibtex_can_read():
    book = citation.book(rules.ROOT)
    for result in results.results(rules.ROOT).values():
        entry = citation.bibtex_of(result, book)
        assert entry.isascii(), entry
        assert entry.count("{") == entry.count("}"), entry
        assert entry.count("$") % 2 == 0
        assert not re.search(r"[$\\]", citation.plain(result.title))
