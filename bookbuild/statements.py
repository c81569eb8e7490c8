"""The book's statements: where they are, what checks them, and which functions implement them.

Everything that lists, links or counts statements, and the rules that hold every one to its proof
and its check, reads the notebooks through the functions of this file. Reports of checks are read
as the data that `klapprox.book.verify` stores beside their text.
"""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sphinx_external_toc.parsing import parse_toc_yaml

from klapprox.book.verify import MIME_TYPE

PROVED = ("lemma", "proposition", "theorem", "corollary")
LABELLED = (*PROVED, "definition", "example", "remark")

_DIRECTIVE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{prf:(?P<kind>\w+)\}[ \t]*(?P<title>[^\n]*)\n"
    r"(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_LABEL = re.compile(r"^:label:[ \t]*(\S+)[ \t]*$", re.MULTILINE)
NAMED = re.compile(r"``([a-z0-9]+(?:-[a-z0-9]+)+)``")  # a label in a docstring


@dataclass(frozen=True)
class Statement:
    """A labelled statement or a proof (kind ``proof``, no label), at a cell of a notebook."""

    kind: str
    label: str
    title: str
    cell: int
    text: str


@dataclass(frozen=True)
class Check:
    """A call of ``verify.check``: the label it names, the data of its report, and its cell.

    Without a stored report there are no kinds and no scope.
    """

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
                    Statement(
                        match["kind"],
                        label[1] if label else "",
                        match["title"],
                        number,
                        _LABEL.sub("", match["body"]).strip(),
                    )
                )
    return found


def checks(path: Path) -> list[Check]:
    """Return the checks of a notebook in the order of the page."""
    found = []
    for number, cell in enumerate(cells(path)):
        if cell["cell_type"] != "code":
            continue
        reports = {report["label"]: report for report in reports_of(cell)}
        for node in ast.walk(ast.parse(cell["source"])):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "verify.check":
                first = node.args[0] if node.args else None
                label = str(first.value) if isinstance(first, ast.Constant) else ""
                report = reports.get(label, {"claims": [], "scope": ""})
                kinds = dict.fromkeys(kind for c in report["claims"] for kind in c["kinds"])
                claims = len(node.args) - 1
                found.append(Check(label, node, claims, tuple(kinds), report["scope"], number))
    return found


def reports_of(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the data of the reports among the stored outputs of a cell."""
    return [
        output["data"][MIME_TYPE]
        for output in cell["outputs"]
        if MIME_TYPE in output.get("data", {})
    ]


def summary(reports: list[dict[str, Any]]) -> str:
    """Return what the reports of one check say in one line: kinds of claims, and their scope."""
    kinds = dict.fromkeys(k for r in reports for c in r["claims"] for k in c["kinds"])
    scope = "; ".join(dict.fromkeys(report["scope"] for report in reports))
    return f"{', '.join(kinds)}; {scope}"


def users(package: Path) -> dict[str, list[str]]:
    """Return, for each label, the functions and classes whose docstrings name it."""
    found: dict[str, list[str]] = {}
    for path in sorted(package.rglob("[!_]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = ".".join([package.name, *path.relative_to(package).with_suffix("").parts])
        scopes: list[tuple[str, ast.Module | ast.ClassDef]] = [(module, tree)]
        scopes += [(f"{module}.{n.name}", n) for n in tree.body if isinstance(n, ast.ClassDef)]
        for scope, body in scopes:
            for node in body.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                    for label in NAMED.findall(ast.get_docstring(node) or ""):
                        names = found.setdefault(label, [])
                        if f"{scope}.{node.name}" not in names:
                            names.append(f"{scope}.{node.name}")
    return found


def pages(toc: Path) -> list[str]:
    """Return the names of all pages, without ending, in the order of the table of contents."""
    return list(parse_toc_yaml(toc))


def title(path: Path) -> str:
    """Return the heading of a notebook."""
    lines = (
        line
        for cell in cells(path)
        for line in cell["source"].splitlines()
        if cell["cell_type"] == "markdown" and line.startswith("# ")
    )
    heading: str = next(lines)
    return heading.removeprefix("# ")
