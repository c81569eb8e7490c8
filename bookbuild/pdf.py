"""The book on paper: what Sphinx's LaTeX builder makes of it, as a Sphinx extension.

`Print` works on the tree of the whole book, when all references are resolved: statements, proofs,
exercises and solutions are set as in print, a check is one line, folded code is left out, cards
and cells dissolve, and the list of all results becomes an index. How it looks is said in
``print/klapproxbook.sty``.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.builders.latex.nodes import thebibliography
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.transforms.post_transforms.images import ImageConverter

import klapprox
from bookbuild import statements, tex

STYLE = Path(__file__).with_name("print") / "klapproxbook.sty"
UNNUMBERED = "Back matter"  # the part whose chapters have no number, as in _toc.yml
RESULTS, BIBLIOGRAPHY = "back-matter/results", "back-matter/bibliography"
# Pages that live on the screen: functions, which one searches, and a graph, which one points at.
LEFT_OUT = ("back-matter/reference", "back-matter/graph")
WIDEST = 94  # characters of a listing in the usual size, which is 9 pt
LINE, GAP = 86, 4  # characters of a line, and what the space between two columns is worth
BREAKS = 26  # characters of a formula in a cell; longer ones can be broken at a relation
SMALLEST = 7  # pt; longer lines are broken
WIDE_DISPLAY = 62  # characters of a displayed formula that may not fit a line
EM_OF_A_LINE = 32  # of a displayed formula, in a list within a box
LISTINGS = r"""\chapter{Listings}\label{book:listings}
Code of the text, and what it prints. The notebook of a chapter has also its imports, the code of
its figures and of its checks.
"""


def setup(app: Any) -> dict[str, Any]:
    """Register what is done when LaTeX is written; other builders see nothing of it."""
    app.add_post_transform(Print)
    app.add_post_transform(SvgToPdf)
    app.connect("config-inited", _configure, priority=950)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _configure(_app: Any, config: Any) -> None:
    title, _, subtitle = config.html_title.removesuffix(")").partition(" (")
    address = site_address()
    place = rf"\par{{\large\url{{{address}}}\par}}" if address else ""
    place += r"\par{\normalsize Text CC BY 4.0, code BSD-3-Clause\par}"
    config.latex_documents = [
        (config.root_doc, "klapprox-book.tex", config.html_title, config.author, "manual", False)
    ]
    config.latex_additional_files = [str(STYLE)]
    config.latex_use_xindy = False
    config.latex_domain_indices = False
    config.latex_show_urls = "no"
    config.latex_table_style = ["booktabs"]
    config.latex_toplevel_sectioning = "chapter"
    config.nb_mime_priority_overrides = [("latex", "image/svg+xml", 1)]
    preamble = [
        r"\usepackage{klapproxbook}",
        tex.newunicodechars(),
        rf"\renewcommand{{\booktitle}}{{{tex.escaped(title)}}}",
        rf"\renewcommand{{\booksubtitle}}{{{tex.escaped(subtitle)}}}",
        rf"\renewcommand{{\bookrelease}}{{Version {klapprox.__version__}, {config.copyright}}}",
        rf"\renewcommand{{\bookplace}}{{{place}}}",
        rf"\hypersetup{{pdftitle={{{tex.escaped(config.html_title)}}},pdfauthor={{{config.author}}},"
        rf"pdfsubject={{Version {klapprox.__version__}}},pdflang=en-GB,"
        r"pdfkeywords={KL divergence, Monte Carlo, control variates, reinforcement learning},"
        r"bookmarksopen=true,bookmarksopenlevel=0,bookmarksnumbered=true,pdfdisplaydoctitle=true,"
        r"linkcolor=bookblue,urlcolor=bookblue,citecolor=bookblue}",
    ]
    config.latex_elements = {
        "papersize": "a4paper",
        "pointsize": "11pt",
        "preamble": "\n".join(preamble),
        "printindex": "",
        "makeindex": "",
        "fncychap": "",
        "fontpkg": "",
        "figure_align": "H",  # a float would stand within the statement that follows
        "extraclassoptions": "openany,twoside",
        "passoptionstopackages": r"\PassOptionsToPackage{svgnames}{xcolor}",
        "sphinxsetup": "hmargin={32mm,32mm},vmargin={30mm,32mm},verbatimwithframe=false,"
        "VerbatimColor={HTML}{F4F6F9},TitleColor={HTML}{000000},"
        "InnerLinkColor={HTML}{0B4F82},OuterLinkColor={HTML}{0B4F82}",
    }


@dataclass(frozen=True)
class Listing:
    """Code of the text and what it printed, as blocks of the tree."""

    number: str
    blocks: list[Any]

    @property
    def target(self) -> str:
        """The name that LaTeX refers to it by."""
        return f"listing:{self.number}"


class SvgToPdf(ImageConverter):
    """Figures as PDF, by rsvg-convert: lines stay lines."""

    conversion_rules = [("image/svg+xml", "application/pdf")]  # noqa: RUF012
    default_priority = 200

    def is_available(self) -> bool:
        """Say yes: `make pdf` has looked for the program."""
        return True

    def convert(self, source: Any, target: Any) -> bool:
        """Convert one figure."""
        command = ["rsvg-convert", "--format", "pdf", "--output", str(target), str(source)]
        subprocess.run(command, check=True)
        return True


class Print(SphinxPostTransform):
    """The tree of the whole book, made ready for paper."""

    formats = ("latex",)
    default_priority = 990

    def run(self, **_: Any) -> None:
        """Change the tree in place."""
        book = self.document
        files = {file["docname"]: file for file in book.findall(addnodes.start_of_file)}
        _frame(book, self._captions())
        listings = []
        for docname, file in files.items():
            notebook = Path(self.env.doc2path(docname))
            if notebook.suffix == ".ipynb":
                chapter = self.env.toc_secnumbers[docname][""][0]
                title = f"Chapter {chapter}: {tex.plain(next(file.findall(nodes.title)))}"
                listings.append((title, _cells(file, notebook, chapter)))
        for docname in LEFT_OUT:
            if docname in files:
                _leave_out(book, files.pop(docname), docname)
        if RESULTS in files:
            _index(files[RESULTS], self._results(book))
        if BIBLIOGRAPHY in files:
            _append_listings(files[BIBLIOGRAPHY], listings)
            _references(book, files[BIBLIOGRAPHY])
        _statements(book, self._place)
        _exercises(book, getattr(self.env, "sphinx_exercise_registry", {}))
        numbers = {name: n[""][0] for name, n in self.env.toc_secnumbers.items() if n.get("")}
        _links(book, numbers)
        _displays(book)
        _notes(book)
        _dissolve_cards(book)
        _tables(book)
        _titles(book)
        _listings(book)

    def _captions(self) -> list[str]:
        root = self.env.get_doctree(self.config.root_doc)
        return [tree.get("caption") or "" for tree in root.findall(addnodes.toctree)]

    def _place(self, node: Any) -> tuple[str, str]:
        """Return the page of a statement and its number."""
        docname = vars(self.env)["proof_list"][node["label"]]["docname"]
        numbers = self.env.toc_fignumbers[docname][node["countertype"]][node["label"]]
        return docname, ".".join(map(str, numbers))

    def _results(self, book: Any) -> Iterator[tuple[str, list[Any]]]:
        """Yield, for each chapter that has any, its title and what the index says of it."""
        for file in book.findall(addnodes.start_of_file):
            found = []
            for node in _numbered(file):
                docname, number = self._place(node)
                target = rf"\detokenize{{{docname}:{node['label']}}}"
                title = _unbracketed(node.children[0])
                found.append((f"{node['realtype'].title()} {number}", title, node["label"], target))
            if found:
                heading = next(file.findall(nodes.title))
                yield tex.plain(heading), found


def _unbracketed(title: Any) -> list[Any]:
    """Return copies of what is in a title, without the brackets around all of it."""
    parts = [child.deepcopy() for child in title.children]
    if parts and str(parts[0]).startswith(" (") and str(parts[-1]).endswith(")"):
        parts[0] = nodes.Text(str(parts[0]).removeprefix(" ("))
        parts[-1] = nodes.Text(str(parts[-1]).removesuffix(")"))
    return parts


def site_address() -> str:
    """Return the address of the site, ending in a slash, or nothing where none is given."""
    address = os.environ.get("BOOK_URL", "")
    return f"{address.rstrip('/')}/" if address else ""


def raw(text: str) -> nodes.raw:
    """Return a node that LaTeX gets as it is."""
    return nodes.raw("", text, format="latex")


def _frame(book: Any, captions: list[str]) -> None:
    """Set the front page as a chapter without a number, and a title before each part."""
    wrappers = [c for c in book.findall(nodes.compound) if "toctree-wrapper" in c["classes"]]
    first = next(book.findall(nodes.section), None)
    if not wrappers or first is None:
        return
    heading = r"\chapter*{About this book}\addcontentsline{toc}{chapter}{About this book}"
    first.insert(1, raw(heading + r"\markboth{About this book}{About this book}"))
    for inner in [child for child in first.children if isinstance(child, nodes.section)]:
        title = nodes.inline("", "", raw(r"\section*{"), *inner[0].children, raw("}"))
        tex.swap(inner, [title, *inner.children[1:]])
    for caption, wrapper in zip(captions, wrappers, strict=True):
        before = r"\setcounter{secnumdepth}{-1}" if caption == UNNUMBERED else ""
        wrapper.insert(0, raw(rf"{before}\part{{{tex.escaped(caption)}}}"))


def _leave_out(book: Any, file: Any, docname: str) -> None:
    """Take a page out of the book, and the links to it: their words stay."""
    file.parent.remove(file)
    for link in list(book.findall(nodes.reference)):
        if link.get("refuri", "").lstrip("%").partition("#")[0] == docname:
            tex.swap(link, link.children)


def _cells(file: Any, notebook: Path, chapter: int) -> list[Listing]:
    """Make a check one line, keep figures, and take code with what it prints out of the text.

    Returns the listings for the appendix; a line that leads there stands in their place.
    """
    reports = iter(
        statements.reports_of(cell)
        for cell in statements.cells(notebook)
        if "check" in cell["metadata"].get("tags", [])
    )
    page = f"{notebook.parent.name}/{notebook.stem}"
    states = iter(
        _state(cell)
        for cell in statements.cells(notebook)
        if "living" in cell["metadata"].get("tags", [])
    )
    listings: list[Listing] = []
    for cell in list(file.findall(nodes.container)):
        if cell.get("nb_element") != "cell_code":
            continue
        if "tag_living" in cell["classes"]:
            for caption in cell.findall(nodes.caption):
                caption += nodes.Text(f" Drawn for {next(states)}; ")
                caption += _moving(cell, page)
        if "tag_check" in cell["classes"]:
            tex.swap(cell, [_checked(next(reports))])
            continue
        figures = [figure for figure in cell.children if _has_image(figure)]
        blocks = list(cell.findall(nodes.literal_block))
        printed = [block for block in blocks if "output" in block["classes"]]
        stays = list(figures)
        if printed or "tag_hide-input" not in cell["classes"]:
            listing = Listing(f"{chapter}.{len(listings) + 1}", blocks)
            listings.append(listing)
            stays.append(raw(rf"\booksee{{{listing.number}}}{{{listing.target}}}"))
        tex.swap(cell, stays)
    return listings


def _state(cell: dict[str, Any]) -> str:
    """Return what the controls of a living figure say in its still picture."""
    (data,) = (output["data"] for output in cell["outputs"])
    return "".join(data["text/plain"]).partition(": ")[2].strip()


def _moving(cell: Any, page: str) -> Any:
    """Return the words that lead from a still picture to the living figure."""
    words, address = "on the site it moves.", site_address()
    names = [name for figure in cell.findall(nodes.figure) for name in figure["ids"]]
    if not address or not names:
        return nodes.Text(words)
    return raw(rf"\href{{{address}{page}.html\#{names[0]}}}{{{words}}}")


def _has_image(node: Any) -> bool:
    return any(True for _ in node.findall(nodes.image))


def _append_listings(before: Any, chapters: list[tuple[str, list[Listing]]]) -> None:
    """Put the appendix of listings before a page: a section a chapter."""
    new: list[Any] = [raw(LISTINGS)]
    for title, listings in chapters:
        new.append(raw(rf"\section{{{tex.escaped(title)}}}"))
        for listing in listings:
            new += [raw(rf"\booklisting{{{listing.number}}}{{{listing.target}}}")]
            new += listing.blocks
    at = before.parent.index(before)
    before.parent[at:at] = new


def _checked(reports: list[dict[str, Any]]) -> Any:
    # No paragraph: it would begin one, and stand apart from the proof.
    return raw(rf"\bookcheck{{{tex.escaped('Checked: ' + statements.summary(reports) + '.')}}}")


def _numbered(tree: Any) -> list[Any]:
    """Return the statements in a tree, in order."""
    return [
        node
        for node in tree.findall(nodes.Element)
        if node.get("realtype") and node.get("label") and node.get("countertype")
    ]


def _statements(book: Any, place: Any) -> None:
    address = site_address()
    for node in _numbered(book):
        docname, number = place(node)
        title, section = node.children
        name = f"{node['realtype'].title()} {number}"
        if address:
            name = rf"\href{{{address}s/{node['label']}.html}}{{{name}}}"
        label = rf"\phantomsection\label{{\detokenize{{{docname}:{node['label']}}}}}"
        head = nodes.inline("", "", raw("{" + name), *title.children, raw("}"))
        tex.swap(
            node,
            [raw(rf"{label}\begin{{bookbox}}%"), head, *section.children, raw(r"\end{bookbox}")],
        )
    for box in list(book.findall(nodes.admonition)):
        if "proof" in box["classes"]:
            tex.drop_proof_word(box)
            _end_proof(box)
            tex.swap(box, [raw(r"\begin{bookproof}"), *box.children, raw(r"\end{bookproof}")])


def _end_proof(box: Any) -> None:
    """Put the end sign into the last line rather than below a formula."""
    last = box
    while not isinstance(last, nodes.paragraph | nodes.math_block) and last.children:
        if isinstance(last, nodes.table):
            return
        last = last.children[-1]
    if isinstance(last, nodes.paragraph):
        last += raw(r"\qedhere")
    elif isinstance(last, nodes.math_block) and not last.get("number"):
        inner = last.astext().strip()
        if tex.several_lines(inner):
            inner = rf"\begin{{split}}{inner}\end{{split}}"
        whole = rf"\begin{{equation*}}{inner}\qedhere\end{{equation*}}"
        tex.swap(last, [raw("\n" + whole + "\n")])


def _exercises(book: Any, registry: Any) -> None:
    def kind(node: Any) -> str:
        return type(node).__name__

    for node in list(book.findall(nodes.Element)):
        if kind(node) not in ("exercise_enumerable_node", "solution_node"):
            continue
        docname = registry[node["label"]]["docname"]
        label = rf"\label{{\detokenize{{{docname}:{node['label']}}}}}"
        rest: list[Any] = []
        for child in node.children[1:]:
            rest += child.children if isinstance(child, nodes.section) else [child]
        title = node.children[0].children
        if kind(node) == "solution_node":
            title = [nodes.Text("Solution")]  # the exercise is right above
            begin, end = r"\begin{booksolution}%", r"\end{booksolution}"
        else:
            label += rf"\label{{exercise:{node['label']}}}"
            begin, end = r"\begin{bookbox}[bookgrey]%", r"\end{bookbox}"
        head = nodes.inline("", "", raw("{"), *title, raw("}"))
        tex.swap(node, [raw(rf"\phantomsection{label}{begin}"), head, *rest, raw(end)])


def _notes(book: Any) -> None:
    """Set boxes with a title of their own."""
    for box in list(book.findall(nodes.admonition)):
        if box.children and isinstance(box[0], nodes.title):
            title = nodes.inline("", "", raw(r"\booknotetitle{"), *box[0].children, raw("}"))
            parts = [raw(r"\begin{booknote}"), title, *box.children[1:], raw(r"\end{booknote}")]
            tex.swap(box, parts)


def _dissolve_cards(book: Any) -> None:
    for box in list(book.findall(nodes.container)):
        if box.get("design_component") == "card-title":
            title = nodes.strong("", "", *box.children)
            tex.swap(box, [nodes.paragraph("", "", raw(r"\needspace{4\baselineskip}"), title)])
    for kind in ("card-body", "card", "grid-item", "grid-row", "grid-container"):
        for box in list(book.findall(nodes.container)):
            if box.get("design_component") == kind:
                tex.swap(box, box.children)


def _tables(book: Any) -> None:
    """Give columns of wide tables widths after their contents; such tables may break."""
    for table in list(book.findall(nodes.table)):
        for paragraph in list(table.findall(nodes.paragraph)):
            if not paragraph.children:
                paragraph.parent.remove(paragraph)
        for head in list(table.findall(nodes.thead)):
            if not head.astext().strip():
                head.parent.remove(head)  # two rules around nothing
        columns = list(table.findall(nodes.colspec))
        longest, total = [0] * len(columns), [0] * len(columns)
        least = [0.0] * len(columns)
        for row in table.findall(nodes.row):
            for number, entry in enumerate(row.children):
                length = len(tex.plain(entry))
                longest[number] = max(longest[number], length)
                total[number] += length
                least[number] = max(least[number], _unbreakable(entry) + GAP)
        if sum(longest) > WIDEST - 14:
            for column, width in zip(columns, _widths(longest, total, least), strict=True):
                column["colwidth"] = width
            table["classes"] += ["colwidths-given", "longtable"]
            if sum(least) > LINE:
                tex.swap(table, [raw(r"\begingroup\footnotesize"), table, raw(r"\endgroup")])


def _unbreakable(entry: Any) -> float:
    """Return how many characters of a cell stay on one line: a word, a name in code, a formula."""
    lengths = [0.0]
    for text in entry.findall(nodes.Text):
        if isinstance(text.parent, nodes.math):
            shown = tex.plain(text.parent)
            lengths.append(1.2 * min(len(shown) + 2 * shown.count("∑"), BREAKS))
        else:
            code = isinstance(text.parent, nodes.literal)  # may be broken behind "_" alone
            words = re.split("[ \n_]" if code else "[ \n/]|(?<!\\d)-", text)
            lengths += [(1.3 if code else 1.0) * len(word) for word in words]
    return max(lengths)


def _widths(longest: list[int], total: list[int], least: list[float]) -> list[int]:
    """Return the widths of columns in hundredths of the line.

    A column gets what its longest cell needs, if that is little, and else its share of the rest by
    the root of all its text: so the tallest rows become as low as they can. What others have to
    spare goes to a column that is narrower than its longest word.
    """
    fair = LINE // len(longest)
    needed = [length + GAP for length in longest]
    narrow = [need <= fair for need in needed]
    left = LINE - sum(need for need, fits in zip(needed, narrow, strict=True) if fits)
    weights = [0 if fits else text**0.5 for text, fits in zip(total, narrow, strict=True)]
    widths = [
        need if fits else left * weight / sum(weights)
        for need, fits, weight in zip(needed, narrow, weights, strict=True)
    ]
    widths = [width * LINE / sum(widths) for width in widths]
    spare = [max(0.0, width - need) for width, need in zip(widths, least, strict=True)]
    lack = sum(max(0.0, need - width) for width, need in zip(widths, least, strict=True))
    taken = min(1.0, lack / sum(spare)) if lack and any(spare) else 0.0
    widths = [
        max(width, need) - taken * extra
        for width, need, extra in zip(widths, least, spare, strict=True)
    ]
    return [max(1, round(100 * width / sum(widths))) for width in widths]


def _links(book: Any, chapters: dict[str, int]) -> None:
    """Call chapters by their numbers, and let no line end between "Theorem" and its number."""
    for link in book.findall(nodes.reference):
        docname, _, anchor = link.get("refuri", "").lstrip("%").partition("#")
        inner = next(link.findall(nodes.inline), None)
        if docname in chapters and not anchor and inner is not None and "doc" in inner["classes"]:
            inner[:] = [nodes.Text(f"Chapter {chapters[docname]}")]
        in_table = any(isinstance(parent, nodes.entry) for parent in _parents(link))
        for text in list(link.findall(nodes.Text)):
            if re.fullmatch(r"[A-Z]\w+ [\d.]+", text):
                whole = nodes.Text(text.replace(" ", "\u00a0"))
                tex.swap(text, [whole] if in_table else [raw(r"\mbox{"), whole, raw("}")])


def _parents(node: Any) -> Iterator[Any]:
    while node.parent is not None:
        node = node.parent
        yield node


def _displays(book: Any) -> None:
    """Break formulas that are too long for a line, and join lines that are short."""
    for block in book.findall(nodes.math_block):
        source = tex.joined(block.astext(), EM_OF_A_LINE)
        source = tex.broken(source, len(tex.plain(block)), WIDE_DISPLAY)
        block[:] = [nodes.Text(source)]


def _titles(book: Any) -> None:
    """Give formulas in headings a plain form for the bookmarks."""
    for title in book.findall(nodes.title):
        if isinstance(title.parent, nodes.section):
            for formula in list(title.findall(nodes.math)):
                words = tex.escaped(tex.plain(formula))
                words = rf"\texorpdfstring{{\({formula.astext()}\)}}{{{words}}}"
                tex.swap(formula, [raw(words)])


def _listings(book: Any) -> None:
    """Set a listing whose lines are too long in smaller type."""
    for block in list(book.findall(nodes.literal_block)):
        longest = max((len(line) for line in block.astext().splitlines()), default=0)
        if longest > WIDEST:
            size = max(SMALLEST, 9 * WIDEST / longest)
            begin = rf"\begingroup\fvset{{fontsize=\fontsize{{{size:.1f}}}{{{1.2 * size:.1f}}}"
            tex.swap(block, [raw(rf"{begin}\selectfont}}"), block, raw(r"\endgroup")])


def _index(file: Any, results: Iterable[tuple[str, list[Any]]]) -> None:
    """Make the list of all results an index: number, title, label and page."""
    section = next(file.findall(nodes.section))
    first = next(child for child in section.children if isinstance(child, nodes.paragraph))
    section[:] = [child for child in section.children if isinstance(child, nodes.title)]
    section += first
    for chapter, found in results:
        section += raw(rf"\bookgroup{{{tex.escaped(chapter)}}}")
        for number, title, label, target in found:
            line = nodes.inline("", "", raw(rf"\bookresult{{{number}}}{{"), *title)
            line += raw(rf"}}{{{tex.escaped(label)}}}{{{target}}}" + "\n")
            section += line


def _references(book: Any, file: Any) -> None:
    """Set the bibliography as a list: the text cites by author and year, and so does it."""
    section = next(file.findall(nodes.section))
    section[:] = [child for child in section.children if isinstance(child, nodes.title)]
    for node in list(book.findall(nodes.citation)):
        target = rf"\hypertarget{{cite.{node['docname']}:{node['ids'][0]}}}{{}}"
        line = nodes.paragraph("", "", raw(rf"\bookreference{{{target}"))
        for paragraph in node.findall(nodes.paragraph):
            line += paragraph.children
        line += raw("}")
        section += line
    for collected in list(book.findall(thebibliography)):
        collected.parent.remove(collected)
