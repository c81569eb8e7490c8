"""The book's statements: find them in the notebooks, and list them all on one page.

`statements` and `checks` read notebooks as text and are also what the tests use to hold every
statement to its proof and its check. The directive ``{all-results}`` turns them into a table, and
``label`` in a docstring of the package into a link to the statement.
"""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROVED = ("lemma", "proposition", "theorem", "corollary")
LABELLED = (*PROVED, "definition", "example", "remark")

_DIRECTIVE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{prf:(?P<kind>\w+)\}[ \t]*(?P<title>[^\n]*)\n"
    r"(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_LABEL = re.compile(r"^:label:[ \t]*(\S+)[ \t]*$", re.MULTILINE)
_REPORT = re.compile(
    r"^✓ (?P<label>\S+)\n(?P<claims>.*?)^  over (?P<scope>[^\n]+(?:\n      [^\n]+)*)",
    re.MULTILINE | re.DOTALL,
)
_NAMED = re.compile(r"``([a-z0-9]+(?:-[a-z0-9]+)+)``")  # a label in a docstring
# How a report words its methods, and what the list of results calls them.
_KINDS = {
    "exactly equal": "exact",
    "equality is exact": "exact",
    "holds exactly": "exact",
    "certainly different": "exact counterexample",
    "proved symbolically": "symbolic",
    "certified to": "50-digit bound",
    "agree to": "quadrature or high precision",
}


@dataclass(frozen=True)
class Statement:
    """A labelled statement or a proof (kind ``proof``, no label), at a cell of a notebook."""

    kind: str
    label: str
    title: str
    cell: int


@dataclass(frozen=True)
class Check:
    """A call of ``verify.check``: the label it names, what it printed, and its cell."""

    label: str
    call: ast.Call
    claims: int
    kinds: tuple[str, ...]
    scope: str
    cell: int


def cells(path: Path) -> list[dict[str, Any]]:
    """Return the cells of a notebook, with sources joined into one string."""
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in found:
        cell["source"] = "".join(cell["source"])
    return found


def statements(path: Path) -> list[Statement]:
    """Return the statements and proofs of a notebook in the order of the page."""
    found = []
    for number, cell in enumerate(cells(path)):
        if cell["cell_type"] == "markdown":
            for match in _DIRECTIVE.finditer(cell["source"]):
                label = _LABEL.search(match["body"])
                found.append(
                    Statement(match["kind"], label[1] if label else "", match["title"], number)
                )
    return found


def checks(path: Path) -> list[Check]:
    """Return the checks of a notebook in the order of the page."""
    found = []
    for number, cell in enumerate(cells(path)):
        if cell["cell_type"] != "code":
            continue
        printed = "\n".join(_text(output) for output in cell["outputs"])
        reports = {match["label"]: match for match in _REPORT.finditer(printed)}
        for node in ast.walk(ast.parse(cell["source"])):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "verify.check":
                first = node.args[0] if node.args else None
                label = str(first.value) if isinstance(first, ast.Constant) else ""
                report = reports.get(label)
                kinds = tuple(word for key, word in _KINDS.items() if report and key in report[0])
                scope = " ".join(report["scope"].split()) if report else ""
                found.append(Check(label, node, len(node.args) - 1, kinds, scope, number))
    return found


def users(package: Path) -> dict[str, list[str]]:
    """Return, for each label, the functions and classes whose docstrings name it."""
    found: dict[str, list[str]] = {}
    for path in sorted(package.glob("[!_]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = f"{package.name}.{path.stem}"
        scopes = [(module, tree)]
        scopes += [(f"{module}.{n.name}", n) for n in tree.body if isinstance(n, ast.ClassDef)]
        for scope, body in scopes:
            for node in body.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                    for label in _NAMED.findall(ast.get_docstring(node) or ""):
                        names = found.setdefault(label, [])
                        if f"{scope}.{node.name}" not in names:
                            names.append(f"{scope}.{node.name}")
    return found


def _text(output: dict[str, Any]) -> str:
    data = output.get("data", {}).get("text/plain", output.get("text", ""))
    return "".join(data)


def setup(app: Any) -> dict[str, Any]:
    """Register the directive with Sphinx."""
    from sphinx.util.docutils import SphinxDirective

    class AllResults(SphinxDirective):
        """A table a chapter: number, name and label of each statement, and its checks."""

        def run(self) -> list[Any]:
            lines: list[str] = []
            source = Path(self.env.srcdir)
            implemented = users(source / "src" / "klapprox")
            for docname in _toc_entries(source / "_toc.yml"):
                path = source / f"{docname}.ipynb"
                if path.exists():
                    self.env.note_dependency(str(path))
                    lines += [f"## {_title(path)}", "", *_table(path, implemented), ""]
            return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)

    app.add_directive("all-results", AllResults)
    app.connect("autodoc-process-docstring", _link_labels)
    app.connect("doctree-read", _tidy_boxes)
    app.connect("html-page-context", _without_thebe, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _link_labels(app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: Any) -> None:
    """Turn ``label`` into a link wherever it is the label of a statement."""
    known = {
        statement.label
        for docname in _toc_entries(Path(app.srcdir) / "_toc.yml")
        if (path := Path(app.srcdir) / f"{docname}.ipynb").exists()
        for statement in statements(path)
    }
    for number, line in enumerate(lines):
        lines[number] = _NAMED.sub(
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
    from docutils import nodes

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


def _title(path: Path) -> str:
    return next(
        line[2:]
        for cell in cells(path)
        for line in cell["source"].splitlines()
        if cell["cell_type"] == "markdown" and line.startswith("# ")
    )


def _table(path: Path, implemented: dict[str, list[str]]) -> list[str]:
    """Return the lines of a table of the statements of one notebook and who implements them."""
    by_label: dict[str, list[Check]] = {}
    for check in checks(path):
        by_label.setdefault(check.label, []).append(check)
    lines = [
        "::::{container} stacked",
        "",
        "| statement and label | check | covers |",
        "|---|---|---|",
    ]
    for statement in statements(path):
        if statement.kind in LABELLED:
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


def _toc_entries(toc: Path) -> list[str]:
    return re.findall(r"(?:root|file):\s*(\S+)", toc.read_text(encoding="utf-8"))
