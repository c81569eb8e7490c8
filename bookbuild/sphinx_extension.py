"""What the book adds to Sphinx: the list of all results, links from docstrings, tidier boxes.

The directive ``{all-results}`` makes a table of the statements of each chapter; ``label`` in a
docstring of the package becomes a link to the statement.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from bookbuild import statements


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
    """Register the directive with Sphinx."""
    app.add_directive("all-results", AllResults)
    app.connect("autodoc-process-docstring", _link_labels)
    app.connect("doctree-read", _tidy_boxes)
    app.connect("html-page-context", _without_thebe, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _link_labels(app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: Any) -> None:
    """Turn ``label`` into a link wherever it is the label of a statement."""
    known = {
        statement.label
        for docname in statements.pages(Path(app.srcdir) / "_toc.yml")
        if (path := Path(app.srcdir) / f"{docname}.ipynb").exists()
        for statement in statements.statements(path)
    }
    for number, line in enumerate(lines):
        lines[number] = statements.NAMED.sub(
            lambda match: f":prf:ref:`{match[1]}`" if match[1] in known else match[0], line
        )


def _without_thebe(_app: Any, _page: str, _template: str, context: Any, _doctree: Any) -> None:
    """Take out the scripts of live cells, which Jupyter Book adds twice even where they are off.

    The second copy declares the same constants again, which is an error in the console.
    """
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{script.filename}{script.attributes.get('body')}".lower()
    ]


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
        "::::{container} stacked",
        "",
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
    return [*lines, "", "::::"]
