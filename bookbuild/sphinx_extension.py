"""What the book adds to Sphinx: its theme, its formulas, pages of results, finished pages.

A place ``<div class="filled-later" data-name="…">`` of a page is filled when all chapters are
written, since what comes there shows parts of them; ``{all-results}`` leaves one for each chapter,
and ``{living} NAME`` one for a living figure of a chapter.
Then each result gets a page of its own. ``label`` in a docstring of the package becomes a link.
"""

import html
import json
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import klapprox
from bookbuild import (
    archive,
    citation,
    figures,
    fonts,
    formulas,
    graph,
    live_figures,
    pages,
    proofs,
    reports,
    results,
    statement_pages,
    statements,
)

THEME = Path(__file__).with_name("theme")
# Extensions that Jupyter Book loads for its own theme: with another one they have nothing to do.
OF_OTHER_THEMES = (
    "jupyter_book",
    "pydata_sphinx_theme",
    "sphinx_book_theme",
    "sphinx_comments",
    "sphinx_copybutton",
    "sphinx_thebe",
    "sphinx_togglebutton",
)
# What pages use of _static; the rest belongs to extensions of other themes.
KEPT = {
    "book.css",
    "book.js",
    "favicon.svg",
    "fonts",
    "front.js",
    "living",
    "living.js",
    "previews",
    "results.js",
    "search-index.js",
    "search.js",
    "theme.js",
}
PAGES_WITHOUT_SOURCE: list[Any] = [("search", {}, "search.html"), ("404", {}, "404.html")]
MADE_HERE = ("s/", "proofs/")  # folders of pages that have no source of their own
# What a page that is filled later needs of its context; Sphinx gives the rest once more.
OF_A_PAGE = (
    *("body", "display_toc", "meta", "metatags", "next", "page_source_suffix", "parents", "prev"),
    *("rellinks", "sourcename", "title", "toc"),
)
NO_SPACE = "\u200b"  # a line may be broken there, but no word ends
FILLED_LATER = re.compile(r'<div class="filled-later" data-name="([^"]*)"></div>')


@dataclass
class Collected:
    """What the pages have that others show: entries of the search, results, figures as HTML."""

    entries: list[Any] = field(default_factory=list)
    fragments: statement_pages.Fragments = field(default_factory=statement_pages.Fragments)
    living: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, dict[str, Any]] = field(default_factory=dict)  # contexts, by page


class AllResults(SphinxDirective):
    """A section a chapter: what it states, with a link to the page of each result."""

    def run(self) -> list[Any]:
        """Return the nodes that stand for the directive."""
        lines = [
            f'## {statements.title(path)}\n\n<div class="filled-later" data-name="{page}"></div>\n'
            for page, path in results.chapters(Path(self.env.srcdir)).items()
        ]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


class Reports(SphinxDirective):
    """What the targets that check something said for this version."""

    def run(self) -> list[Any]:
        """Return the nodes that stand for the directive."""
        return self.parse_text_to_nodes(reports.told(reports.kept(Path(self.env.srcdir))))


class FormalProofs(SphinxDirective):
    """What each formal proof covers, and where it is narrower than the book."""

    def run(self) -> list[Any]:
        """Return the nodes that stand for the directive."""
        return self.parse_text_to_nodes(reports.narrower(Path(self.env.srcdir)))


class Living(SphinxDirective):
    """A living figure of a chapter, once more on another page."""

    required_arguments = 1

    def run(self) -> list[Any]:
        """Return the node that stands for the directive."""
        place = f'<div class="filled-later" data-name="{self.arguments[0]}"></div>'
        return [nodes.raw("", place, format="html")]


def setup(app: Any) -> dict[str, Any]:
    """Register the directive, the theme, and what happens to each page."""
    app.add_directive("all-results", AllResults)
    app.add_directive("formal-proofs", FormalProofs)
    app.add_directive("living", Living)
    app.add_directive("reports", Reports)
    app.add_html_theme("book", str(THEME))
    formulas.setup(app)
    app.connect("config-inited", _choose_theme, priority=900)
    app.connect("builder-inited", _drop_other_themes, priority=0)
    app.connect("autodoc-process-docstring", _link_labels)
    app.connect("autodoc-process-docstring", _join_names, priority=400)  # before Napoleon
    app.connect("autodoc-skip-member", _skip_fields)
    app.connect("doctree-read", _tidy_boxes)
    app.connect("env-updated", _write_in_parallel)
    app.connect("html-collect-pages", lambda _: PAGES_WITHOUT_SOURCE)
    app.connect("html-collect-pages", _pages_of_results)
    app.connect("html-page-context", _finish_page, priority=950)
    app.connect("build-finished", _write_what_was_collected)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _choose_theme(app: Any, config: Any) -> None:
    """Take the book's theme instead of the one that Jupyter Book names, and its options with it."""
    config.html_theme = "book"
    config.html_theme_options = {}
    config.html_math_renderer = "mathml"
    config.version = config.release = klapprox.__version__
    config.project = config.html_title  # Jupyter Book gives the title of the book to HTML only
    app.book_records = {}
    app.book_contents_beside = ""


def _drop_other_themes(app: Any) -> None:
    """Disconnect what belongs to other themes from the events of a build."""
    for listeners in app.events.listeners.values():
        listeners[:] = [
            listener
            for listener in listeners
            if listener.handler.__module__.partition(".")[0] not in OF_OTHER_THEMES
        ]
    app.builder.search = False  # the book has an index of its own


def _write_in_parallel(app: Any, _environment: Any) -> None:
    """Let several processes write pages. One reads them: Sphinx hangs if one of several fails."""
    app.parallel = 2 * (os.cpu_count() or 1)  # with more than there are cores, shares are alike


def _finish_page(app: Any, page: str, _template: str, context: Any, doctree: Any) -> None:
    """Finish the text of a page, collect from it, and give the template what it shows around it."""
    context["book_archive"] = archive.NAME
    context["book_project"] = app.config.html_context.get("project_address", "")
    context["book_address"] = _address()
    context["book_contents"] = _contents(app, page, context)
    context["book_metadata"] = []
    if "body" not in context:
        return
    if page.startswith(MADE_HERE):
        _describe(app, page, context, context["book_description"])
        return
    if FILLED_LATER.search(context["body"]):
        _keep(app, page, Collected(waiting={page: {name: context[name] for name in OF_A_PAGE}}))
        return
    collected = Collected()
    tree = pages.parse(context["body"])
    source = Path(app.env.doc2path(page))
    pages.finish(tree, _reports(source), lambda address: _size(app, address))
    _enliven(app, tree, source, collected)
    context["book_living"] = bool(tree.xpath("//figure[@data-living]"))
    boxes = {}
    if _is_whole(app):
        known = results.results(Path(app.srcdir))
        proved = {label: record["formal"] for label, record in _records(app).items()}
        statement_pages.name_results(tree, known)
        statement_pages.note_formal(tree, proved)
        statement_pages.collect(tree, page, known, collected.fragments)
        boxes = _cite_boxes(app, page)
    context["body"] = pages.render(tree)
    context["book_sections"] = pages.sections(context["toc"]) if context["display_toc"] else ""
    context["book_place"] = _place_in_book(app, page, tree)
    if source.suffix == ".ipynb":
        context["book_notebook"] = f"_sources/{context['sourcename']}"
    title = html.unescape(re.sub("<[^>]*>", "", context["title"]))
    description = pages.description(tree) or f"{title} of “{app.config.project}”"
    _describe(app, page, context, description)
    chapter = title if page != app.config.root_doc else "Front page"
    collected.entries = list(pages.entries(tree, page, chapter))
    _keep(app, page, collected)
    shown = json.dumps(pages.previews(tree) | boxes, ensure_ascii=False, sort_keys=True)
    folder = Path(app.outdir, "_static/previews")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{page.replace('/', '-')}.js").write_text(
        f"addPreviews({json.dumps(page)}, {shown});\n", encoding="utf-8"
    )


def _keep(app: Any, page: str, collected: Collected) -> None:
    """Keep what was collected from a page in a file: pages are written by several processes."""
    path = Path(app.doctreedir, "collected", f"{page.replace('/', '-')}.pickle")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(collected))


def _collected(app: Any) -> Collected:
    """Return what was collected from all pages written up to now."""
    every = Collected()
    for path in sorted(Path(app.doctreedir, "collected").glob("*.pickle")):
        found = pickle.loads(path.read_bytes())
        every.entries += found.entries
        every.fragments.results |= found.fragments.results
        every.fragments.exercises |= found.fragments.exercises
        every.fragments.functions |= found.fragments.functions
        every.living |= found.living
        every.waiting |= found.waiting
    return every


def _enliven(app: Any, tree: Any, source: Path, collected: Collected) -> None:
    """Make the living figures of a chapter live, and keep them for other pages."""
    specs = live_figures.specifications(source)
    live_figures.attach(tree, specs)
    folder = Path(app.outdir, "_static", live_figures.FOLDER)
    if specs and not folder.exists():
        live_figures.write_renderer(folder, Path(app.srcdir, "_build"))
    for name, spec in specs.items():
        (folder / f"{name}.js").write_text(live_figures.script(name, spec), encoding="utf-8")
    collected.living = live_figures.copied(tree)


def _contents(app: Any, page: str, context: Any) -> str:
    """Return the contents of the book as the menu of a page shows them."""
    beside = page.startswith(MADE_HERE)
    if beside and app.book_contents_beside:
        return str(app.book_contents_beside)  # the same on all pages one folder deep
    found = context["toctree"](maxdepth=1, titles_only=True, includehidden=True)
    found = found.replace(' role="heading"', "")  # it has no level
    if beside:
        app.book_contents_beside = found
    return str(found)


def _describe(app: Any, page: str, context: Any, description: str) -> None:
    """Give the template what search engines and others read from the head of a page."""
    title = html.unescape(re.sub("<[^>]*>", "", context["title"]))
    context["book_description"] = description
    if address := _address():
        context["book_metadata"] = _metadata(app, address, page, title, description)


def _address() -> str:
    """Return the address of the site, ending in a slash, or nothing where none is given."""
    address = os.environ.get("BOOK_URL", "")
    return f"{address.rstrip('/')}/" if address else ""


def _is_whole(app: Any) -> bool:
    """Say whether all chapters are built, and not one page alone, to look at it."""
    found = results.chapters(Path(app.srcdir))
    return bool(found) and set(found) <= app.env.found_docs


def _records(app: Any) -> dict[str, Any]:
    """Return what is known of all results, read once."""
    if not app.book_records:
        app.book_records = statement_pages.records(Path(app.srcdir), _address())
    found: dict[str, Any] = app.book_records
    return found


def _cite_boxes(app: Any, page: str) -> dict[str, str]:
    """Return the boxes that "cite" opens on a page, by the names that the page asks for."""
    return {
        f"cite:{label}": statement_pages.cite_box(record)
        for label, record in _records(app).items()
        if record["place"].startswith(f"{page}.html")
    }


def _pages_of_results(app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the pages that show parts of the chapters, which are written now."""
    if not _is_whole(app):
        return
    every, collected = _records(app), _collected(app)
    fragments = collected.fragments
    paths = results.chapters(Path(app.srcdir))
    titles = {page: statements.title(path) for page, path in paths.items()}
    parts = {
        page: f'<div data-chapter="{page}">{statement_pages.listed(page, every, fragments)}</div>'
        for page in titles
    }
    parts["filters"] = statement_pages.filters(every, titles)
    picture = f'<div class="wide graph-picture">{graph.svg(every, titles)}</div>'
    parts["graph"] = f"<div>{graph.words(every)}{picture}</div>{graph.lists(every, titles)}"
    parts |= collected.living
    for page, context in collected.waiting.items():
        filled = FILLED_LATER.sub(lambda match: parts[match[1]], context["body"])
        script = "" if page == app.config.root_doc else "results.js"
        yield page, context | {"body": filled, "book_script": script}, "page.html"
    labels = list(every)
    known = app.env.domains["std"].labels
    for index, (label, record) in enumerate(every.items()):
        neighbours = {
            "prev": labels[index - 1] if index else None,
            "next": labels[index + 1] if index + 1 < len(labels) else None,
        }
        words = citation.plain(record["title"])
        title = f"{record['name']}: {words}" if words else record["name"]
        # Other Sphinx books find it in the inventory, at the address that never moves.
        known[label] = (f"s/{label}", label, title)
        context = {
            name: other and {"link": f"{other}.html", "title": every[other]["name"]}
            for name, other in neighbours.items()
        }
        context |= {
            "title": html.escape(title),
            "body": statement_pages.body(record, every, fragments),
            "book_description": f"{title}. {record['cite']['sentence']}",
            "book_of_result": True,
        }
        yield f"s/{label}", context, "page.html"
    for name, title, body in proofs.pages_of_sources(Path(app.srcdir), every):
        context = {"title": title, "body": body, "book_description": f"{title}. Proofs in Coq."}
        yield name, context, "page.html"


def _reports(source: Path) -> list[list[dict[str, Any]]]:
    """Return the reports of each cell of a page that is tagged as a check."""
    if source.suffix != ".ipynb":
        return []
    return [
        statements.reports_of(cell)
        for cell in statements.cells(source)
        if "check" in cell["metadata"].get("tags", [])
    ]


def _size(app: Any, address: str) -> tuple[int, int] | None:
    """Return the size of an image of the page that is written now."""
    name = address.rpartition("/")[2]
    for path, file in app.builder.images.items():
        if file == name and file.endswith(".svg"):
            return figures.size(Path(app.srcdir, path).read_text(encoding="utf-8"))
    return None


def _place_in_book(app: Any, page: str, tree: Any) -> str:
    """Return where a chapter stands in the book and how long it is; nothing for other pages."""
    chapters = [name for name, numbers in app.env.toc_secnumbers.items() if numbers.get("")]
    if page not in chapters:
        return ""
    number = app.env.toc_secnumbers[page][""][0]
    boxes = tree.xpath("//div[contains(@class, 'proof') and @id and not(contains(@class, 'bare'))]")
    return (
        f"Chapter {number} of {len(chapters)} · {pages.minutes(tree)} minutes · "
        f"{len(boxes)} statements"
    )


def _metadata(app: Any, address: str, page: str, title: str, description: str) -> list[Any]:
    """Return what search engines, link previews and citation managers read from a page."""
    here = address if page == app.config.root_doc else f"{address}{page}.html"
    values = {
        'property="og:title"': title,
        'property="og:type"': "book" if page == app.config.root_doc else "article",
        'property="og:url"': here,
        'property="og:site_name"': app.config.project,
        'property="og:description"': description,
        'name="citation_title"': title,
        'name="citation_author"': app.config.author,
        'name="citation_publication_date"': app.config.copyright,
        'name="citation_book_title"': app.config.project,
        'name="citation_public_url"': here,
    }
    return list(values.items())


def _write_what_was_collected(app: Any, failure: Any) -> None:
    """Write the index of the search, the font, the map of the site; drop what no page uses."""
    if failure or app.builder.format != "html":
        return
    site = Path(app.outdir)
    index = json.dumps(_collected(app).entries, ensure_ascii=False, sort_keys=True)
    static = site / "_static"
    (static / "search-index.js").write_text(f"window.searchEntries = {index};\n", encoding="utf-8")
    for path in (site / "_images").glob("*.svg"):
        path.write_text(figures.themed(path.read_text(encoding="utf-8")), encoding="utf-8")
    # Pages of results, in s/, have no formula that their chapter has not.
    written = [*site.glob("*.html"), *site.glob("[!s]*/*.html"), *static.glob("previews/*.js")]
    fonts.write_subset(static / "fonts", [path.read_text(encoding="utf-8") for path in written])
    for path in static.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    archive.write(Path(app.srcdir), site / archive.NAME)
    if app.book_records:
        book = citation.book(Path(app.srcdir))
        for name, data in statement_pages.entries(app.book_records, book):
            text = json.dumps(data, ensure_ascii=False, indent=1)
            (site / name).write_text(text + "\n", encoding="utf-8")
    if address := _address():
        results_pages = [f"s/{label}" for label in app.book_records]
        every = sorted([*app.env.found_docs, *results_pages])
        places = [f"{address}{page}.html" for page in every]
        (site / "sitemap.txt").write_text("\n".join(places) + "\n", encoding="utf-8")


def _link_labels(app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: Any) -> None:
    """Turn ``label`` into a link wherever it is the label of a statement."""
    known = results.results(Path(app.srcdir))
    for number, line in enumerate(lines):
        lines[number] = statements.NAMED.sub(
            lambda match: f":prf:ref:`{match[1]}`" if match[1] in known else match[0], line
        )


def _join_names(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: Any) -> None:
    """Keep the names of attributes that are described together: else one becomes another's type."""
    start = lines.index("Attributes") if "Attributes" in lines else len(lines)
    for number, line in enumerate(lines[start:], start):
        if re.match(r"\w+(, \w+)+ : ", line):
            names, _, kind = line.partition(" : ")
            lines[number] = f"{names.replace(', ', f',{NO_SPACE}')} : {kind}"


def _skip_fields(
    _app: Any, _what: str, _name: str, member: Any, _skip: bool, _options: Any
) -> bool | None:
    """Leave the fields of a named tuple to its docstring: Python says no more than their number."""
    return True if type(member).__name__ == "_tuplegetter" else None


def _tidy_boxes(_app: Any, doctree: Any) -> None:
    """Set "Proof." in italics, and mend the ids that sphinx-proof and sphinx-exercise repeat."""
    for box in doctree.findall(nodes.admonition):
        if box["ids"] == ["proof"]:
            box["ids"] = []
            text = next(box.findall(nodes.Text))
            if text.startswith("Proof. "):
                parent = text.parent
                at = parent.index(text)
                parent[at : at + 1] = [
                    nodes.emphasis(text="Proof."),
                    nodes.Text(text[len("Proof.") :]),
                ]
    for section in doctree.findall(nodes.section):
        if section["ids"] in (["proof-content"], ["exercise-content"], ["solution-content"]):
            section["ids"] = [section.parent["ids"][0] + "-content"]
