"""What the book adds to Sphinx: its theme, its formulas, the list of all results, finished pages.

The directive ``{all-results}`` makes a table of the statements of each chapter; ``label`` in a
docstring of the package becomes a link to the statement.
"""

import html
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import klapprox
from bookbuild import archive, figures, fonts, formulas, pages, statements

ARCHIVE = f"klapprox-book-{klapprox.__version__}.tar.gz"
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
    "previews",
    "search-index.js",
    "search.js",
    "theme.js",
}
PAGES_WITHOUT_SOURCE: list[Any] = [("search", {}, "search.html"), ("404", {}, "404.html")]


class AllResults(SphinxDirective):
    """A table a chapter: number, name and label of each statement, and its checks."""

    def run(self) -> list[Any]:
        """Return the nodes that stand for the directive."""
        lines: list[str] = []
        source = Path(self.env.srcdir)
        implemented = statements.users(source / "src" / "klapprox")
        for docname in statements.pages(source / "_toc.yml"):
            path = source / f"{docname}.ipynb"
            if path.exists():
                self.env.note_dependency(str(path))
                lines += [f"## {statements.title(path)}", "", *_table(path, implemented), ""]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app: Any) -> dict[str, Any]:
    """Register the directive, the theme, and what happens to each page."""
    app.add_directive("all-results", AllResults)
    app.add_html_theme("book", str(THEME))
    formulas.setup(app)
    app.connect("config-inited", _choose_theme, priority=900)
    app.connect("builder-inited", _drop_other_themes, priority=0)
    app.connect("autodoc-process-docstring", _link_labels)
    app.connect("doctree-read", _tidy_boxes)
    app.connect("html-collect-pages", lambda _: PAGES_WITHOUT_SOURCE)
    app.connect("html-page-context", _finish_page, priority=950)
    app.connect("build-finished", _write_what_was_collected)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}


def _choose_theme(app: Any, config: Any) -> None:
    """Take the book's theme instead of the one that Jupyter Book names, and its options with it."""
    config.html_theme = "book"
    config.html_theme_options = {}
    config.html_math_renderer = "mathml"
    config.version = config.release = klapprox.__version__
    config.project = config.html_title  # Jupyter Book gives the title of the book to HTML only
    app.book_entries = []
    app.book_labels = {
        statement.label
        for docname in statements.pages(Path(app.srcdir) / "_toc.yml")
        if (path := Path(app.srcdir) / f"{docname}.ipynb").exists()
        for statement in statements.statements(path)
    }


def _drop_other_themes(app: Any) -> None:
    """Disconnect what belongs to other themes from the events of a build."""
    for listeners in app.events.listeners.values():
        listeners[:] = [
            listener
            for listener in listeners
            if listener.handler.__module__.partition(".")[0] not in OF_OTHER_THEMES
        ]
    app.builder.search = False  # the book has an index of its own


def _finish_page(app: Any, page: str, _template: str, context: Any, doctree: Any) -> None:
    """Finish the text of a page, collect from it, and give the template what it shows around it."""
    context["book_archive"] = ARCHIVE
    context["book_project"] = app.config.html_context.get("project_address", "")
    context["book_address"] = address = _address()
    contents = context["toctree"](maxdepth=1, titles_only=True, includehidden=True)
    context["book_contents"] = contents.replace(' role="heading"', "")  # it has no level
    context["book_metadata"] = []
    if "body" not in context:
        return
    tree = pages.parse(context["body"])
    source = Path(app.env.doc2path(page))
    pages.finish(tree, _reports(source), lambda address: _size(app, address))
    context["body"] = pages.render(tree)
    context["book_sections"] = pages.sections(context["toc"]) if context["display_toc"] else ""
    context["book_place"] = _place(app, page, tree)
    if source.suffix == ".ipynb":
        context["book_notebook"] = f"_sources/{context['sourcename']}"
    title = html.unescape(re.sub("<[^>]*>", "", context["title"]))
    description = pages.description(tree) or f"{title} of “{app.config.project}”"
    context["book_description"] = description
    if address:
        context["book_metadata"] = _metadata(
            app, f"{address.rstrip('/')}/", page, title, description
        )
        context["book_address"] = f"{address.rstrip('/')}/"
    chapter = title if page != app.config.root_doc else "Front page"
    app.book_entries += pages.entries(tree, page, chapter)
    found = json.dumps(pages.previews(tree), ensure_ascii=False, sort_keys=True)
    folder = Path(app.outdir, "_static/previews")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{page.replace('/', '-')}.js").write_text(
        f"addPreviews({json.dumps(page)}, {found});\n", encoding="utf-8"
    )


def _address() -> str:
    """Return the address of the site, ending in a slash, or nothing where none is given."""
    address = os.environ.get("BOOK_URL", "")
    return f"{address.rstrip('/')}/" if address else ""


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


def _place(app: Any, page: str, tree: Any) -> str:
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
    index = json.dumps(app.book_entries, ensure_ascii=False, sort_keys=True)
    static = site / "_static"
    (static / "search-index.js").write_text(f"window.searchEntries = {index};\n", encoding="utf-8")
    for path in (site / "_images").glob("*.svg"):
        path.write_text(figures.themed(path.read_text(encoding="utf-8")), encoding="utf-8")
    written = [*site.glob("*.html"), *site.glob("*/*.html"), *(static / "previews").glob("*.js")]
    fonts.write_subset(static / "fonts", [path.read_text(encoding="utf-8") for path in written])
    for path in static.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    archive.write(Path(app.srcdir), site / ARCHIVE)
    if address := _address():
        places = [f"{address}{page}.html" for page in sorted(app.env.found_docs)]
        (site / "sitemap.txt").write_text("\n".join(places) + "\n", encoding="utf-8")


def _link_labels(app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: Any) -> None:
    """Turn ``label`` into a link wherever it is the label of a statement."""
    for number, line in enumerate(lines):
        lines[number] = statements.NAMED.sub(
            lambda match: f":prf:ref:`{match[1]}`" if match[1] in app.book_labels else match[0],
            line,
        )


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


def _table(path: Path, implemented: dict[str, list[str]]) -> list[str]:
    """Return the lines of a table of the statements of one notebook and who implements them."""
    by_label: dict[str, list[statements.Check]] = {}
    for check in statements.checks(path):
        by_label.setdefault(check.label, []).append(check)
    lines = [
        "| statement and label | check | covers |",
        "|---|---|---|",
    ]
    for statement in statements.statements(path):
        if statement.kind in statements.LABELLED:
            found = by_label.get(statement.label, [])
            kinds = dict.fromkeys(kind for check in found for kind in check.kinds)
            covers = "; ".join(dict.fromkeys(check.scope for check in found))
            names = "".join(
                f" {{py:obj}}`{name.rpartition('.')[2]} <{name}>`"
                for name in implemented.get(statement.label, [])
            )
            cells_of_row = (
                f"{{prf:ref}}`{statement.label}` {statement.title} `{statement.label}`{names}",
                ", ".join(kinds),
                covers.replace("|", r"\|"),
            )
            lines.append("| " + " | ".join(cells_of_row) + " |")
    return lines
