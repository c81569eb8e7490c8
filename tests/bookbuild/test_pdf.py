"""The tree of the book as it goes on paper, without TeX: a tiny book through Sphinx's LaTeX."""

import errno
import json
import os
import re
import subprocess
import sys

import nbformat
import pytest
from docutils import nodes

from bookbuild import make_pdf, make_site, pdf, rules, tex
from klapprox.book import verify

CONFIG = """
title: Tiny book (and its applications)
author: Someone
copyright: "2026"
only_build_toc_files: true
execute: {execute_notebooks: "off"}
latex: {latex_engine: xelatex, use_jupyterbook_latex: false}
parse: {myst_enable_extensions: [amsmath, dollarmath, colon_fence]}
bibtex_bibfiles: [references.bib]
sphinx:
  extra_extensions: [sphinx_proof, sphinx_exercise]
  local_extensions: {bookbuild.pdf: ROOT}
  config:
    numfig: true
    numfig_secnum_depth: 1
    bibtex_reference_style: author_year
    suppress_warnings: [mystnb.unknown_mime_type]
    prf_realtyp_to_countertyp: {theorem: theorem, lemma: theorem, definition: theorem}
"""
TOC = """
format: jb-book
root: index
parts:
- caption: First & last
  numbered: true
  chapters: [{file: chapters/one}]
- caption: Back matter
  chapters: [{file: back-matter/results}, {file: back-matter/bibliography}]
"""
CHAPTER = """\
# About $k_\\lambda$

Cited: {cite:p}`someone`. See {prf:ref}`thm-a`, {ref}`exercise-a`, {doc}`../back-matter/results`.

```{prf:theorem} A title with $x_1$
:label: thm-a

Let $a=b$.
```

```{prf:proof}
It follows from {doc}`one`:

$$
a=b.
$$
```
"""
EXERCISE = """\
## Exercises

```{exercise} The first
:label: exercise-a

Why?
```

```{solution} exercise-a
:label: solution-a

Because.
```
"""
REPORT = {
    "label": "thm-a",
    "scope": "all of 100 % cases",
    "claims": [{"words": "a = b", "cases": 3, "kinds": ["exact"], "methods": ["exactly equal"]}],
}
FIGURE = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><path d="M0 0h9v9z"/></svg>'


def output(**data):
    return nbformat.v4.new_output("display_data", data=data)


def write_book(book):
    """Write a book with one of everything that is set in a way of its own."""
    v4 = nbformat.v4
    cells = [
        v4.new_markdown_cell(CHAPTER),
        v4.new_code_cell(
            "verify.check()",
            outputs=[output(**{verify.MIME_TYPE: REPORT, "text/plain": "✓ thm-a\n  a = b"})],
            metadata={"tags": ["check", "hide-input"]},
        ),
        v4.new_code_cell(
            "figure = draw()",
            outputs=[output(**{"image/svg+xml": FIGURE, "text/plain": "<SVG>"})],
            metadata={
                "tags": ["hide-input"],
                "mystnb": {"figure": {"caption": "A caption", "name": "fig-a"}},
            },
        ),
        v4.new_code_cell("print(1 + 1)", outputs=[v4.new_output("stream", text="two: 2\n")]),
        v4.new_code_cell("import hidden", metadata={"tags": ["hide-input"]}),
        v4.new_markdown_cell(EXERCISE),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    notebook = v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata.language_info = {"name": "python"}
    (book / "chapters").mkdir()
    (book / "back-matter").mkdir()
    nbformat.write(notebook, book / "chapters/one.ipynb")
    (book / "_config.yml").write_text(CONFIG.replace("ROOT", str(rules.ROOT)))
    (book / "_toc.yml").write_text(TOC)
    (book / "index.md").write_text("# Tiny book\n\nHello, {doc}`chapters/one`.\n\n## At a glance\n")
    (book / "back-matter/results.md").write_text("# All results\n\nEvery statement.\n")
    (book / "back-matter/bibliography.md").write_text("# Bibliography\n\n```{bibliography}\n```\n")
    (book / "references.bib").write_text(
        "@book{someone, title={On KL}, author={Ann One}, year={2001}, publisher={Press}}"
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The LaTeX of the tiny book, without rsvg-convert: a stand-in copies the figure."""
    book = tmp_path_factory.mktemp("book")
    write_book(book)
    (book / "bin").mkdir()
    stand_in = book / "bin/rsvg-convert"
    stand_in.write_text('#!/bin/sh\ncp "$5" "$4"\n')
    stand_in.chmod(0o755)
    result = subprocess.run(
        [sys.executable, *make_pdf.BUILD, "--path-output", str(book / "made")],
        cwd=book,
        env=os.environ
        | {"PATH": f"{book / 'bin'}:{os.environ['PATH']}", "BOOK_URL": "https://kl.example/"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    folder = book / "made/_build/latex"
    assert (folder / "klapproxbook.sty").exists()
    assert list(folder.glob("*.pdf")), "the figure"
    return (folder / "klapprox-book.tex").read_text(encoding="utf-8")


def body(source):
    return source[source.index(r"\begin{document}") :]


def test_a_statement_is_a_box_with_its_number_and_a_link_to_its_page(source):
    assert re.search(
        r"\\label\{\\detokenize\{chapters/one:thm-a\}\}\\begin\{bookbox\}%\n"
        r"\{\\href\{https://kl\.example/s/thm-a\.html\}\{Theorem 1\.1\} \(A title with "
        r"\\\(x_1\\\)\)\}",
        source,
    )
    assert r"\hyperref[\detokenize{chapters/one:thm-a}]" in source, "and is referred to"
    assert "sphinxadmonition" not in body(source)


def test_a_proof_ends_in_its_last_formula_and_says_proof_once(source):
    proof = re.search(r"\\begin\{bookproof\}(.*?)\\end\{bookproof\}", source, re.DOTALL)[1]
    assert "Proof" not in proof
    assert re.search(r"a=b\.\s*\\qedhere", proof)


def test_a_check_is_one_line_and_its_report_is_not_printed(source):
    assert r"\bookcheck{Checked: exact; all of 100 \% cases.}" in source
    assert "verify.check" not in source
    assert "✓" not in body(source)


def test_code_is_in_the_appendix_with_a_line_that_leads_there(source):
    text, appendix = source.split(r"\chapter{Listings}")
    assert r"\booksee{1.1}{listing:1.1}" in text
    assert "two: 2" not in text
    assert r"\booklisting{1.1}{listing:1.1}" in appendix
    assert "two: 2" in appendix
    assert "hidden" not in source
    assert r"\booksee{1.2}" not in source


def test_figures_stay_without_their_code(source):
    assert r"\caption{A caption}" in source
    assert "draw" not in source


def test_exercises_and_solutions(source):
    assert r"\begin{bookbox}[bookgrey]%" in source
    assert "Exercise 1.1 (The first)" in source
    assert "\\begin{booksolution}%\n{Solution}\n" in source
    assert r"\label{\detokenize{chapters/one:exercise-a}}" in source


def test_parts_front_page_index_and_bibliography(source):
    assert r"\part{First \& last}" in source
    assert r"\setcounter{secnumdepth}{-1}\part{Back matter}" in source
    assert r"\chapter*{About this book}" in source
    assert r"\section*{At a glance}" in source
    assert r"\bookresult{Theorem 1.1}{A title with \(x_1\)}{thm-a}" in source
    assert source.count("Bibliography}") == 1
    cited = re.search(r"\\hyperlink\{(cite\.[^}]*)\}\{One, 2001\}", source)[1]
    assert rf"\hypertarget{{{cited}}}" in source


def test_chapters_are_called_by_number_and_titles_have_bookmarks_without_tex(source):
    assert source.count("\\mbox{Chapter\u00a01}") == 2
    assert r"\texorpdfstring{\(k_\lambda\)}{kλ}" in source


def test_title_page_and_metadata(source):
    assert r"\renewcommand{\booktitle}{Tiny book}" in source
    assert r"\renewcommand{\booksubtitle}{and its applications}" in source
    assert r"pdfauthor={Someone}" in source
    assert r"\url{https://kl.example/}" in source


# --- Parts ---------------------------------------------------------------------------------------


def test_columns_get_what_they_need():
    short, long = pdf._widths([5, 300], [20, 2000], [9, 12])
    assert short < 15
    assert short + long in (99, 100, 101)
    assert pdf._widths([100, 100], [900, 900], [10, 10]) == [50, 50]
    # A column of little text with one long name gets what the name needs from the others.
    before, after = (pdf._widths([40, 400], [60, 9000], [least, 12])[0] for least in (5, 40))
    assert before < 20
    assert after >= 100 * 40 // pdf.LINE


def test_a_name_and_a_formula_in_a_cell_stay_on_a_line():
    def cell(*parts):
        return nodes.entry("", nodes.paragraph("", "", *parts))

    words = cell(nodes.Text("one two three-four"), nodes.literal("", "a_b"))
    assert pdf._unbreakable(words) == 5
    assert pdf._unbreakable(cell(nodes.literal("", "k3-or_sampling"))) == 1.3 * 8
    assert pdf._unbreakable(cell(nodes.math("", "x+y"))) == pytest.approx(1.2 * 3)
    assert pdf._unbreakable(cell(nodes.math("", "x=" * 50 + "x"))) == 1.2 * pdf.BREAKS
    assert pdf._unbreakable(nodes.entry("")) == 0


@pytest.mark.parametrize(
    ("longest", "size"), [(pdf.WIDEST, None), (pdf.WIDEST + 6, "8.5"), (300, "7.0")]
)
def test_a_wide_listing_is_set_smaller(longest, size):
    book = nodes.section("", nodes.literal_block("", "x" * longest))
    pdf._listings(book)
    assert len(book.children) == (1 if size is None else 3)
    if size:
        assert rf"\fontsize{{{size}}}" in book[0].astext()


def test_a_page_that_is_left_out_leaves_the_words_of_its_links():
    link = nodes.reference("", "words", refuri="%back-matter/reference#klapprox.k3")
    file = nodes.section("", nodes.paragraph("", "gone"))
    book = nodes.section("", nodes.paragraph("", "see ", link), file)
    pdf._leave_out(book, file, "back-matter/reference")
    assert book.astext() == "see words"
    assert not list(book.findall(nodes.reference))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Missing character: There is no ℵ in font lmroman10-regular", True),
        ("LaTeX Warning: Reference `thm-x' on page 3 undefined on input line 7.", True),
        ("LaTeX Warning: Label `thm-x' multiply defined.", True),
        ("Overfull \\hbox (10.5pt too wide) in paragraph at lines 3--4", True),
        ("Overfull \\hbox (9.5pt too wide) in paragraph at lines 3--4", False),
        ("Overfull \\vbox (99.5pt too high) detected at line 4", False),
        ("! Undefined control sequence.\nl.12 \\nonsense", True),
        ("LaTeX Font Warning: Font shape `T1/x' in size <4> not available", False),
    ],
)
def test_the_log_is_read(line, found):
    assert bool(make_pdf.log_faults(f"This is XeTeX\n{line}\nOutput written")) is found


def test_what_is_missing_is_named_with_its_packages(monkeypatch, capsys):
    monkeypatch.setattr(make_pdf, "missing_parts", lambda: ["xelatex"])
    assert make_pdf.main([]) == 1
    said = capsys.readouterr().err
    assert "The PDF needs xelatex" in said
    assert "apt-get install --no-install-recommends texlive-xetex" in said


def test_missing_programs_are_found(monkeypatch):
    assert make_pdf.missing_parts(lambda name: None) == list(make_pdf.PROGRAMS)
    monkeypatch.setattr(make_pdf, "_said", lambda command: "")
    assert make_pdf.missing_parts(lambda name: name) == [*make_pdf.STYLES, make_pdf.FONT]


def test_a_pdf_that_fails_leaves_the_old_one_and_its_own_latex(tmp_path, monkeypatch):
    build = tmp_path / "_build"
    (build / "pdf").mkdir(parents=True)

    def run(command, root, new):
        (new / "_build/latex").mkdir(parents=True)

    def typeset(folder, name):
        raise make_site.BuildError("no")

    monkeypatch.setattr(make_site, "run", run)
    monkeypatch.setattr(make_pdf, "typeset", typeset)
    for _ in range(2):
        with pytest.raises(make_site.BuildError, match=r"The LaTeX is in .*pdf-failed"):
            make_pdf.make(tmp_path, build)
        assert {path.name for path in build.iterdir()} == {"pdf", "pdf-failed"}


@pytest.mark.parametrize(
    ("code", "sentence"),
    [(errno.ENOSPC, "No space is left on the disk"), (errno.EROFS, "cannot be written")],
)
def test_a_disk_that_takes_no_pdf_is_named(tmp_path, monkeypatch, capsys, code, sentence):
    def run(command, root, new):
        raise OSError(code, os.strerror(code), str(new))

    monkeypatch.setattr(make_pdf, "missing_parts", list)
    monkeypatch.setattr(make_site, "run", run)
    (tmp_path / "_build/.pdf-killed").mkdir(parents=True)
    assert make_pdf.main([str(tmp_path)]) == 1
    assert sentence in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "_build").iterdir()] == [".lock"]


def test_every_sign_of_the_book_outside_formulas_is_known_to_tex():
    known = set(tex.SIGNS) | set("–—’‘“”…é ö ü ä ß í ó á ç ø å É Ö ʼ °½©Δ") | {"\u00a0", "\u2009"}
    unknown = set()
    for path in rules.NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                unknown |= {c for c in "".join(cell["source"]) if ord(c) > 127} - known
    assert unknown == set()
