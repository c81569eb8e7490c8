"""The PDF says what the site says, and is set without faults; statements compile in papers."""

import json
import re
import subprocess

import pytest
from lxml import html

from bookbuild import make_pdf, rules, statements

CHAPTERS = [page for page in statements.pages(rules.ROOT / "_toc.yml") if "chapters/" in page]


def said(*command, cwd=None):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout


def results(site):
    return json.loads((site / "results.json").read_text(encoding="utf-8"))["results"]


@pytest.fixture(scope="module")
def text(folder):
    """The words of the PDF."""
    words = said("pdftotext", "-layout", str(folder / "klapprox-book.pdf"), "-")
    return " ".join(words.replace("\u00a0", " ").split())


def captions(site, page, path):
    """Return what stands as number in captions of a page, by the id of their box."""
    tree = html.parse(site / f"{page}.html")
    return {
        box.get("id"): " ".join(box.xpath(path)[0].text_content().split()).rstrip(". ")
        for box in tree.xpath("//*[@id]")
        if box.xpath(path)
    }


@pytest.mark.parametrize("page", CHAPTERS)
def test_statements_and_exercises_have_the_numbers_of_the_site(site, source, text, page):
    on_site = captions(site, page, "./p[@class='admonition-title']/span[@class='caption-number']")
    begun = re.findall(
        r"\\label\{\\detokenize\{([^:}]+):([^}]+)\}\}"
        r"(?:\\label\{exercise:[^}]*\})?\\begin\{bookbox\}(?:\[\w+\])?%\n\{(?:\\href\{[^}]*\}\{)?"
        r"(\w+)[ ~\xa0]([\d.]+)",
        source,
    )
    printed = {label: f"{kind} {number}" for at, label, kind, number in begun if at == page}
    assert on_site
    assert printed == on_site
    assert [name for name in printed.values() if name not in text] == []


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("./figcaption//span[@class='caption-number']", "Fig. "),
        ("./h1/span[@class='section-number']", ""),
        ("./h2/span[@class='section-number']", ""),
        ("./h3/span[@class='section-number']", ""),
    ],
    ids=["figures", "chapters", "sections", "subsections"],
)
def test_figures_and_sections_have_the_numbers_of_the_site(site, folder, path, word):
    labels = (folder / "klapprox-book.aux").read_text(encoding="utf-8")
    set_as = dict(re.findall(r"\\newlabel\{([^{}]+:[^}]+)\}\{\{([^}]*)\}", labels))
    on_site = {
        f"{page}:{label}": number
        for page in CHAPTERS
        for label, number in captions(site, page, path).items()
    }
    assert on_site
    assert {name: word + set_as.get(name, "is missing") for name in on_site} == on_site


def test_the_index_lists_every_result_of_the_site(site, source):
    listed = re.findall(r"\\bookresult\{(\w+ [\d.]+)\}", source)
    assert listed == [entry["name"] for entry in results(site)]


def test_it_is_a_book(folder, source):
    info = said("pdfinfo", str(folder / "klapprox-book.pdf"))
    assert re.search(r"Title: +Approximating KL Divergence \(and its applications in RL\)", info)
    assert re.search(r"Author: +\w", info)
    assert re.search(r"Page size: .*A4", info)
    assert int(re.search(r"Pages: +(\d+)", info)[1]) > 100
    bookmarks = (folder / "klapprox-book.out").read_text(encoding="utf-8")
    assert bookmarks.count("BOOKMARK") > 100
    fonts = said("pdffonts", str(folder / "klapprox-book.pdf")).splitlines()[2:]
    assert fonts
    assert [line for line in fonts if line.split()[-5] != "yes"] == [], "fonts are embedded"
    assert said("pdfimages", "-list", str(folder / "klapprox-book.pdf")).count("\n") <= 2, (
        "figures are vectors"
    )
    assert "✓ " not in source, "no report of a check"


def test_nothing_sticks_out_and_no_glyph_is_missing(folder):
    log = (folder / "klapprox-book.log").read_text(encoding="utf-8", errors="replace")
    assert "Output written" in log
    assert make_pdf.log_faults(log) == []


def test_links_to_pages_of_statements_lead_somewhere(site, source):
    for name in re.findall(r"\\href\{[^}]*/s/([\w-]+)\.html\}", source):
        assert (site / f"s/{name}.html").exists()


def test_the_same_sources_give_the_same_bytes(folder, tmp_path):
    again = make_pdf.make(rules.ROOT, tmp_path)
    assert again.read_bytes() == (folder / "klapprox-book.pdf").read_bytes()


# --- LaTeX of single statements ------------------------------------------------------------------


def test_a_statement_compiles_in_a_bare_article(statement_file, tmp_path):
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", str(statement_file)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:]
    assert (tmp_path / f"{statement_file.stem}.pdf").exists()


def test_a_paper_cites_three_statements_with_what_the_site_gives(site, tmp_path):
    entries = results(site)
    cited = [entries[0], entries[len(entries) // 2], entries[-1]]
    cites = [
        json.loads((site / "s" / f"{entry['label']}.json").read_text())["cite"] for entry in cited
    ]
    words = "\n\n".join(f"See {cite['latex']}." for cite in cites)
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\n\\usepackage{amsmath,amsthm,url}\n\\begin{document}\n"
        f"{words}\n\\bibliographystyle{{plain}}\n\\bibliography{{book}}\n\\end{{document}}\n",
        encoding="utf-8",
    )
    (tmp_path / "book.bib").write_text(
        "\n\n".join(cite["bibtex"] for cite in cites), encoding="utf-8"
    )
    for command in ("pdflatex", "bibtex", "pdflatex", "pdflatex"):
        options = [] if command == "bibtex" else ["-interaction=nonstopmode", "-halt-on-error"]
        said(command, *options, "paper", cwd=tmp_path)
    assert "undefined" not in (tmp_path / "paper.log").read_text(encoding="latin-1")
    printed = " ".join(said("pdftotext", str(tmp_path / "paper.pdf"), "-").split())
    for entry in cited:
        assert entry["name"] in printed
