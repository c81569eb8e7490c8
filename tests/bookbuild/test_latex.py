"""Statements as LaTeX for papers, without TeX."""

import re

import pytest
from docutils import nodes
from pybtex.database import parse_string
from sphinx import addnodes
from sphinx_proof.nodes import proof_node, theorem_node

from bookbuild import citation, latex, tex
from bookbuild.results import Result

BOOK = citation.Book("On KL (and RL)", ("Some & One",), "9.8", "2031")
RESULT = Result("thm-a", "theorem", "3.4", "chapters/x", "On $x$", "", "", (), ())
LEMMA = Result("lem-b", "lemma", "1.2", "chapters/x", "", "", "", (), ())
KNOWN = {"thm-a": RESULT, "lem-b": LEMMA}


def made(kind, *parts, **attributes):
    """Return a node of these parts, text among them."""
    children = [nodes.Text(part) if isinstance(part, str) else part for part in parts]
    return (
        kind("", "", *children, **attributes)
        if issubclass(kind, nodes.TextElement)
        else kind("", *children, **attributes)
    )


def math(text):
    return nodes.math(text, text)


def block(text, **attributes):
    return nodes.math_block(text, text, **attributes)


def reference(target, domain="prf", kind="ref"):
    inner = nodes.literal("", target)
    return addnodes.pending_xref("", inner, refdomain=domain, reftype=kind, reftarget=target)


def page():
    """A page with a statement and its proof."""
    paragraph, emphasis = nodes.paragraph, nodes.emphasis
    title = made(nodes.title, " (On ", math("x"), ")")
    said = made(
        nodes.section,
        made(paragraph, "Let ", math("a<b"), ", 50 %. Then"),
        block("\na=b,\n"),
        made(paragraph, "for ", made(emphasis, "all"), " λ."),
    )
    statement = made(theorem_node, title, said, label="thm-a", realtype="theorem")
    first = made(paragraph, made(emphasis, "Proof."), " By ", reference("lem-b"), ".")
    proof = made(nodes.admonition, first, block("c=d."), made(paragraph, "Next."))
    return made(nodes.section, statement, made(proof_node, proof))


def whole(address="https://kl.example/"):
    ((label, title, statement, proof),) = latex.statements_of(page())
    writer = latex.Writer(KNOWN)
    words = [writer.inner(title), writer.blocks(statement), writer.blocks(proof)]
    where = f"{address}s/{label}.html" if address else ""
    return latex._file(RESULT, BOOK, where, words, writer.cited, None)


def test_a_file_has_statement_proof_label_and_citation():
    text = whole()
    assert text.startswith("% Theorem 3.4 (thm-a) of\n% On KL (and RL), version 9.8\n")
    assert r"\newtheorem{theorem}{Theorem}" in text
    head = r"\begin{theorem}[{On $x$, \cite[Theorem~3.4]{klapprox-thm-a}}]" + "\n\\label{thm-a}\n"
    assert head + r"Let $a<b$, 50 \%. Then" in text
    assert r"\emph{all} \ensuremath{\lambda}." in text
    assert "\\begin{proof}\nBy \\bookref{lem-b}{Lemma~1.2}.\n\\[" in text
    assert "\\bibitem{klapprox-thm-a}\nSome \\& One. On $x$.\n" in text
    assert r"\texttt{https://kl.example/\allowbreak s/\allowbreak thm-a.html}" in text
    assert citation.bibtex_of(RESULT, BOOK, "https://kl.example/s/thm-a.html") in text


def test_what_is_cited_has_an_entry_and_environments_are_closed():
    text = whole(address="")
    cited = set(re.findall(r"\\cite(?:\[[^]]*\])?\{([^}]*)\}", text))
    assert cited == set(re.findall(r"\\bibitem\{([^}]*)\}", text)) == {"klapprox-thm-a"}
    opened = re.findall(r"\\begin\{(\w+)\}", text)
    assert sorted(opened) == sorted(re.findall(r"\\end\{(\w+)\}", text))
    assert "https" not in text


def test_a_sentence_goes_on_behind_a_formula_and_a_new_one_begins_a_paragraph():
    text = whole()
    assert "a=b,\n\\]\nfor \\emph" in text
    assert "c=d.\n\\]\n\nNext." in text


def test_definitions_are_upright():
    definition = Result("def-c", "definition", "1.1", "chapters/x", "", "", "", (), ())
    text = latex._file(definition, BOOK, "", ["", "Words.", ""], [], None)
    assert "\\theoremstyle{definition}\n\\newtheorem{definition}{Definition}" in text
    assert r"\begin{definition}[{\cite[Definition~1.1]{klapprox-def-c}}]" in text
    assert "proof" not in text.replace("its proof", "")


def test_works_of_others_that_a_proof_cites_come_with_their_entries():
    library = parse_string(
        "@article{ann1999, author={Ann Öne}, title={On {KL}}, journal={J}, year={1999}, "
        "doi={10.1/x_y}}",
        "bibtex",
    )
    writer = latex.Writer(KNOWN)
    text = writer.node(made(nodes.paragraph, "See ", reference("ann1999", "cite", "t")))
    assert text == r"See \cite{ann1999}"
    listed = latex.bibliography(RESULT, BOOK, "", writer.cited, library)
    assert "\\bibitem{ann1999}\nAnn" in listed
    assert "x_y" not in listed
    assert "doi" in library.entries["ann1999"].fields, "the library is not changed"


def test_lists_and_tables():
    item = nodes.list_item("", nodes.paragraph("", "one & two"))
    writer = latex.Writer(KNOWN)
    listed = writer.node(nodes.enumerated_list("", item))
    assert listed == "\\begin{enumerate}\n\\item one \\& two\n\\end{enumerate}"
    row = nodes.row("", *(nodes.entry("", nodes.paragraph("", word)) for word in ("a", "b")))
    table = nodes.table("", nodes.tgroup("", nodes.tbody("", row, row.deepcopy()), cols=2))
    assert writer.node(table).count(r"a & b \\") == 2


@pytest.mark.parametrize(
    "strange", [nodes.image(uri="x.svg"), reference("fig-x", "std", "ref"), nodes.raw("", "x")]
)
def test_what_has_no_form_in_an_article_is_refused_by_name(strange):
    with pytest.raises(latex.LatexError, match="no LaTeX for"):
        latex.Writer(KNOWN).node(strange)


# --- Words as TeX --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("a=b\n=c\n\\le d", 3),
        ("f(a=1)\n=c", 2),  # the relation in brackets is no place to align at
        ("a=b\n+c", 1),
        ("\\begin{aligned}a&=b\n=c\\end{aligned}", 1),
        ("a\\\\\n=c", 1),
    ],
)
def test_a_long_display_is_broken_before_the_relations_that_begin_a_line(source, lines):
    made = tex.broken(source, length=100, longest=60)
    assert made.count(r"\\ &") == lines - 1
    assert (made == source) is (lines == 1)
    assert made.replace("&", "").replace(r"\\ ", "").replace("aligned", "").count("=") == (
        source.count("=")
    )
    assert tex.broken(source, length=60, longest=60) == source


def test_signs_in_words_are_formulas_and_letters_that_tex_reads_are_escaped():
    assert tex.escaped("a_b & {c} 5 % ~ ^ \\") == (
        r"a\_b \& \{c\} 5 \% \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    assert r"\newunicodechar{λ}{\ensuremath{\lambda}}" in tex.newunicodechars()
    assert r"\newunicodechar{₁}{\ensuremath{{}_1}}" in tex.newunicodechars()
