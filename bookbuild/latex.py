r"""Each statement as LaTeX for papers: ``s/LABEL.tex`` beside its page.

A file compiles as it is, in a bare ``article`` with the packages of the AMS. An author copies the
statement with its proof and its entry of the bibliography; other results of the book are named by
``\bookref{LABEL}{Theorem~5.7}``, which prints the name and may be defined otherwise.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from pybtex import PybtexEngine
from pybtex.database import BibliographyData, parse_file

from bookbuild import citation, pdf, tex
from bookbuild.results import Result, chapters, results

WIDE_DISPLAY = 52  # characters of a displayed formula that may not fit a line of an article
_UPRIGHT = ("definition", "example", "remark")
_WITHOUT = ("url", "doi", "eprint", "archiveprefix")  # what a bare article cannot set
_SIGNS = {sign: rf"\ensuremath{{{name}}}" for sign, name in tex.SIGNS.items()}
_FILE = r"""% %(name)s of
%% %(title)s, version %(version)s
%% %(where)s
%% Text: CC BY 4.0. \bookref{LABEL}{NAME} names another result of the book.
\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage{amsmath,amssymb,amsthm}
%(style)s\newtheorem{%(kind)s}{%(Kind)s}
\providecommand{\bookref}[2]{#2}
\setlength{\emergencystretch}{3em}
\begin{document}

\begin{%(kind)s}[{%(head)s}]
\label{%(label)s}
%(statement)s
\end{%(kind)s}
%(proof)s
%(bibliography)s
\end{document}

The same entry for BibTeX:

%(bibtex)s
"""


class LatexError(Exception):
    """Something in a statement has no form in a bare article; the message names it."""


def setup(app: Any) -> dict[str, Any]:
    """Write the files when the site is built."""
    app.connect("build-finished", _write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _write(app: Any, failure: Any) -> None:
    root = Path(app.srcdir)
    listed = set(chapters(root))
    if failure or app.builder.format != "html" or not listed or listed - app.env.found_docs:
        return
    folder = Path(app.outdir, "s")
    folder.mkdir(exist_ok=True)
    for label, text in files(root, app.env.get_doctree, pdf.site_address()):
        (folder / f"{label}.tex").write_text(text, encoding="utf-8")


def files(root: Path, doctree: Any, address: str = "") -> Iterator[tuple[str, str]]:
    """Yield label and file of each result.

    Parameters
    ----------
    root : Path
        The book.
    doctree : callable
        The tree of a page with a given name, its references not resolved yet.
    address : str
        Where the site is, ending in a slash; empty if that is not known.
    """
    known = results(root)
    book = citation.book(root)
    library = parse_file(str(root / "references.bib"))
    for page in chapters(root):
        for label, title, statement, proof in statements_of(doctree(page)):
            result = known[label]
            writer = Writer(known)
            words = [writer.inner(title), writer.blocks(statement)]
            words.append(writer.blocks(proof) if proof is not None else "")
            where = f"{address}s/{label}.html" if address else ""
            yield label, _file(result, book, where, words, writer.cited, library)


def statements_of(page: Any) -> Iterator[tuple[str, Any, Any, Any]]:
    """Yield label, title, statement and proof (or None) of each result of a page."""
    found: list[list[Any]] = []
    for node in page.findall(nodes.Element):
        if node.get("realtype") and node.get("label"):
            found.append([node["label"], node.children[0], node.children[1], None])
        elif node.tagname == "proof_node" and found:
            box = node.children[0]
            tex.drop_proof_word(box)
            found[-1][3] = box
    yield from (tuple(entry) for entry in found)


def _file(
    result: Result, book: Any, where: str, words: list[str], cited: list[str], library: Any
) -> str:
    title, statement, proof = words
    title = re.sub(r"^\((.*)\)$", r"\1", title.strip(), flags=re.DOTALL)
    name = f"{result.kind.capitalize()}~{result.number}"
    reference = rf"\cite[{name}]{{{citation.key(result.label)}}}"
    bibtex = citation.bibtex_of(result, book, where)
    return _FILE.replace("% %(name)s", "%% %(name)s", 1) % {
        "name": f"{result.name} ({result.label})",
        "title": book.title,
        "version": book.version,
        "where": where or f"s/{result.label}.html of the site of the book",
        "style": "\\theoremstyle{definition}\n" if result.kind in _UPRIGHT else "",
        "kind": result.kind,
        "Kind": result.kind.capitalize(),
        "head": f"{title}, {reference}" if title else reference,
        "label": result.label,
        "statement": statement.strip(),
        "proof": f"\n\\begin{{proof}}\n{proof.strip()}\n\\end{{proof}}\n" if proof.strip() else "",
        "bibliography": bibliography(result, book, where, cited, library),
        "bibtex": bibtex,
    }


def bibliography(result: Result, book: Any, where: str, cited: list[str], library: Any) -> str:
    """Return the bibliography of a file: the result first, then what its proof cites."""
    name = f"{result.kind.capitalize()}~{result.number}"
    address = re.sub(r"(?<=[^:/])/", r"/\\allowbreak ", where)
    lines = [
        r"\begin{thebibliography}{9}",
        rf"\bibitem{{{citation.key(result.label)}}}",
        rf"{citation.tex(book.author)}. {citation.tex(result.title) or name}.",
        rf"{name} of \emph{{{citation.tex(book.title)}}}, version {book.version}, {book.year}.",
        rf"Label \texttt{{{result.label}}}." + (rf" \texttt{{{address}}}" if where else ""),
    ]
    if cited:
        entries = {key: copy.deepcopy(library.entries[key]) for key in cited}
        for entry in entries.values():
            for field in _WITHOUT:
                entry.fields.pop(field, None)
        text = BibliographyData(entries).to_string("bibtex")
        made = PybtexEngine().format_from_string(text, style="unsrt", output_backend="latex")
        for item in re.findall(r"\\bibitem.*?(?=\n\n)", made, re.DOTALL):
            lines.append(re.sub(r"\\bibitem\[.*?\]", r"\\bibitem", item))
    return "\n".join([*lines, r"\end{thebibliography}"])


class Writer:
    """Nodes of a statement as LaTeX.

    Parameters
    ----------
    known : dict of Result
        The results of the book by label.
    """

    def __init__(self, known: Mapping[str, Result]):
        self.known = known
        self.cited: list[str] = []

    def inner(self, node: Any) -> str:
        """Return what is in a node."""
        return "".join(self.node(child) for child in node.children)

    def blocks(self, node: Any) -> str:
        """Return the paragraphs, formulas and lists in a node.

        A formula goes with the paragraph before it, and with the next unless it ends a sentence.
        """
        text = ""
        before: Any = None
        for child in node.children:
            formula = isinstance(child, nodes.math_block)
            goes_on = isinstance(before, nodes.math_block) and before.astext().strip()[-1] != "."
            text += "\n" if formula or goes_on else "\n\n"
            text += self.node(child).strip("\n")
            before = child
        return text.strip("\n")

    def node(self, node: Any) -> str:
        """Return a node.

        Raises
        ------
        LatexError
            If nothing says how such a node is set.
        """
        method = getattr(self, f"_{node.tagname.strip('#').lower()}", None)
        if method is None:
            raise LatexError(f"no LaTeX for {node.tagname}: {node.astext()[:60]}")
        return str(method(node))

    def _text(self, node: Any) -> str:
        return "".join(_SIGNS.get(letter) or tex.escaped(letter) for letter in node)

    def _math(self, node: Any) -> str:
        return f"${node.astext()}$"

    def _math_block(self, node: Any) -> str:
        source = str(node.astext()).strip()
        if node.get("nowrap"):
            return source
        source = tex.broken(source, len(tex.plain(node)), WIDE_DISPLAY)
        if tex.several_lines(source):
            source = f"\\begin{{gathered}}\n{source}\n\\end{{gathered}}"
        return f"\\[\n{source}\n\\]"

    def _paragraph(self, node: Any) -> str:
        return self.inner(node)

    _inline = _title = _paragraph

    def _section(self, node: Any) -> str:
        return self.blocks(node)

    def _emphasis(self, node: Any) -> str:
        return rf"\emph{{{self.inner(node)}}}"

    def _strong(self, node: Any) -> str:
        return rf"\textbf{{{self.inner(node)}}}"

    def _literal(self, node: Any) -> str:
        return rf"\texttt{{{self.inner(node)}}}"

    def _pending_xref(self, node: Any) -> str:
        target = node["reftarget"]
        if node["refdomain"] == "cite":
            keys = target.split(",")
            self.cited += [key for key in keys if key not in self.cited]
            return rf"\cite{{{','.join(keys)}}}"
        if target in self.known:
            result = self.known[target]
            return rf"\bookref{{{target}}}{{{result.kind.capitalize()}~{result.number}}}"
        if node["reftype"] == "doc":
            name = Path(target).name
            return rf"\bookref{{{name}}}{{the chapter \texttt{{{tex.escaped(name)}}} of the book}}"
        raise LatexError(f"no LaTeX for a reference to {target}")

    def _list(self, node: Any, environment: str) -> str:
        items = "\n".join(rf"\item {self.blocks(item)}" for item in node.children)
        return f"\\begin{{{environment}}}\n{items}\n\\end{{{environment}}}"

    def _enumerated_list(self, node: Any) -> str:
        return self._list(node, "enumerate")

    def _bullet_list(self, node: Any) -> str:
        return self._list(node, "itemize")

    def _table(self, node: Any) -> str:
        rows = list(node.findall(nodes.row))
        columns = len(rows[0].children)
        lines = [
            " & ".join(" ".join(self.blocks(entry).split()) for entry in row.children) + r" \\"
            for row in rows
        ]
        lines[0] += r" \hline"
        layout = rf"*{{{columns}}}{{p{{{0.9 / columns:.3f}\linewidth}}}}"
        body = "\n".join(lines)
        return (
            f"\\begin{{center}}\n\\small\\raggedright\n\\begin{{tabular}}{{{layout}}}\n\\hline\n"
            f"{body}\n\\hline\n\\end{{tabular}}\n\\end{{center}}"
        )
