"""The rules of the book, as functions that return what breaks them; empty lists are good.

They take paths, so that `test_rules` can hold them to copies with planted faults.
"""

import ast
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import nbformat
from lxml import etree

from bookbuild import statements
from klapprox.book import verify
from klapprox.book.figures import LIVE_MIME

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted([*ROOT.glob("chapters/*.ipynb"), *ROOT.glob("back-matter/*.ipynb")])
LONGEST_OPEN_CELL, LONGEST_FOLDED_CELL = 32, 64
LABEL = re.compile(r"(def|lem|prop|thm|cor|ex|rem)(-[a-z0-9]+)+")
_DECIMAL = re.compile(r"(?<![\w.])\d*\.\d+(?![\w.]|-\d)")
# Roles, code and addresses of links: what stands there is no number of the text.
_NOT_PROSE = re.compile(r"\{[\w:]+\}`[^`]*`|`[^`]*`|\]\([^)]*\)")
# Decimal numbers of the prose that are not results of the book, by notebook.
EXPLAINED = {"k3-control-variates.ipynb": {"8.9": "the section of a cited book"}}
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
# What an output may be. HTML and JavaScript would run in whatever shows the notebook.
OUTPUTS = frozenset({"text/plain", "image/svg+xml", verify.MIME_TYPE, LIVE_MIME})
_CODE = re.compile(r"(?i)<(script|iframe|object|embed)\b|\bjavascript:|<[^>]*\son\w+\s*=")
_LOCAL_PATH = re.compile(r"(/home/|/root/|/tmp/|/Users/|[A-Z]:\\\\)")


def notebook_faults(path: Path) -> list[str]:
    """Return what makes a stored notebook worthless as a test or wrong on the site."""
    faults = []
    executed = 0
    for number, cell in enumerate(statements.cells(path)):
        where = f"{path.name}, cell {number}"
        if cell["cell_type"] != "code":
            if _CODE.search(cell["source"]):
                faults.append(f"{where}: code that would run in the page")
            continue
        executed += 1
        source, tags = cell["source"], cell["metadata"].get("tags", [])
        if cell["execution_count"] != executed:
            faults.append(f"{where}: execution count {cell['execution_count']}, not {executed}")
        if source.rstrip().endswith(";"):
            faults.append(f"{where}: a trailing semicolon hides an output that nbval would show")
        lines = sum(1 for line in source.splitlines() if line.strip())
        if lines > (LONGEST_FOLDED_CELL if "hide-input" in tags else LONGEST_OPEN_CELL):
            faults.append(f"{where}: {lines} lines")
        for output in cell["outputs"]:
            faults += [f"{where}: {fault}" for fault in _output_faults(output)]
        if "verify.check(" in source and not statements.reports_of(cell):
            faults.append(f"{where}: a check without its report")
    if not executed:
        faults.append(f"{path.name}: no code cell, so it tests nothing")
    return faults


def _output_faults(output: dict[str, Any]) -> list[str]:
    faults = []
    if output["output_type"] == "error":
        faults.append(f"stored error {output['ename']}")
    if output.get("name") == "stderr":
        faults.append("something on stderr")
    data = output.get("data", {})
    text = "".join(output.get("text", [])) + "".join(data.get("text/plain", []))
    if _ADDRESS.search(text):
        faults.append("a memory address in an output")
    if _LOCAL_PATH.search(text):
        faults.append("a path of this machine in an output")
    if "image/png" in data:
        faults.append("a PNG, which nbval does not compare; use figures.show")
    kinds = sorted(data.keys() - OUTPUTS - {"image/png"})
    faults += [f"{kind}, which may bring code or be fetched from elsewhere" for kind in kinds]
    if "image/svg+xml" in data:
        faults += _svg_faults("".join(data["image/svg+xml"]))
    if LIVE_MIME in data:
        text = re.sub(r'"\$schema": "[^"]*"', "", json.dumps(data[LIVE_MIME]))
        if "://" in text or re.search(r'"(url|href|loader)":', text):
            faults.append("a living figure that asks for something elsewhere")
    return faults


def _svg_faults(svg: str) -> list[str]:
    """Return what in a picture is code or lies elsewhere."""
    faults = []
    if re.search(r"url\(\s*['\"]?(?!#)|@import|<\?xml-stylesheet", svg):
        faults.append("a picture that asks for something elsewhere")
    for element in etree.fromstring(svg.encode()).iter(etree.Element):
        name = etree.QName(element).localname
        if name in ("script", "foreignObject", "iframe"):
            faults.append(f"<{name}> in a picture")
        for key, value in element.attrib.items():
            key = etree.QName(key).localname
            if key.startswith("on") or (key == "href" and not value.startswith("#")):
                faults.append(f"{key} of <{name}> in a picture: {value}")
    return faults


def number_faults(path: Path, explained: Collection[str] = ()) -> list[str]:
    """Return decimal numbers of the prose that no cell's source and no stored output holds."""
    prose: list[tuple[int, str]] = []
    computed: set[str] = set()
    for number, cell in enumerate(statements.cells(path)):
        if cell["cell_type"] == "markdown":
            prose.append((number, _NOT_PROSE.sub(" ", cell["source"])))
            continue
        texts = [cell["source"]]
        for output in cell["outputs"]:
            texts += output.get("text", []), output.get("data", {}).get("text/plain", [])
        for text in texts:
            found = re.findall(r"(?<![\w.])\d*\.\d+", "".join(text))
            computed.update(value.lstrip("0") for value in found)
    return [
        f"{path.name}, cell {number}: {match[0]} stands in no cell and no output of the chapter"
        for number, text in prose
        for match in _DECIMAL.finditer(text)
        if match[0].lstrip("0") not in computed and match[0] not in explained
    ]


def toc_faults(toc: Path, notebooks: list[Path]) -> list[str]:
    """Return the notebooks that no table of contents names."""
    listed = statements.pages(toc)
    names = {f"{path.parent.name}/{path.stem}": path for path in notebooks}
    return [f"{path} is not in {toc.name}" for name, path in names.items() if name not in listed]


def statement_faults(path: Path) -> list[str]:
    """Return statements without proof or check, and checks without statement."""
    faults = []
    found = statements.statements(path)
    checks = statements.checks(path)
    position = {statement.label: statement.cell for statement in found if statement.label}
    for index, statement in enumerate(found):
        where = f"{path.name}: {statement.kind} {statement.label or statement.title!r}"
        if statement.kind == "proof":
            continue
        if not LABEL.fullmatch(statement.label):
            faults.append(f"{where}: its label is missing or not of the form thm-what-is-stated")
        if statement.kind not in statements.PROVED:
            continue
        after = found[index + 1] if index + 1 < len(found) else None
        if after is None or after.kind != "proof":
            faults.append(f"{where}: no proof follows")
        if not any(c.label == statement.label and c.cell > statement.cell for c in checks):
            faults.append(f"{where}: no check names it")
    for check in checks:
        where = f"{path.name}, cell {check.cell}: check {check.label!r}"
        if check.label not in position:
            faults.append(f"{where}: there is no such statement on this page")
        if not check.scope:
            faults.append(f"{where}: its scope is not among the stored outputs")
        if not check.claims:
            faults.append(f"{where}: no claim")
        faults += [f"{where}: {fault}" for fault in _claim_faults(check.call)]
    return faults


def _claim_faults(call: ast.Call) -> list[str]:
    """Return claims whose sides are written alike or do not depend on anything computed."""
    faults = []
    for claim in call.args[1:]:
        arguments = claim.args if isinstance(claim, ast.Call) else []
        if len(arguments) != 3 or any(isinstance(side, ast.Starred) for side in arguments):
            faults.append("a claim that is not written out, as words, left and right")
            continue
        left, right = arguments[1:]
        if ast.dump(left) == ast.dump(right):
            faults.append(f"both sides are {ast.unparse(left)}")
        names = (ast.Name, ast.Attribute)
        if not any(isinstance(node, names) for side in (left, right) for node in ast.walk(side)):
            faults.append("a claim about constants alone")
    return faults


def label_faults(paths: list[Path]) -> list[str]:
    """Return labels that occur twice in the book."""
    seen: dict[str, Path] = {}
    faults = []
    for path in paths:
        for statement in statements.statements(path):
            if statement.label and statement.label in seen:
                faults.append(
                    f"{statement.label} is in {seen[statement.label].name} and {path.name}"
                )
            seen.setdefault(statement.label, path)
    return faults


def claims_that_cannot_fail(path: Path) -> tuple[list[str], int]:
    """Run a notebook with every claim turned into a false one; return those still accepted.

    The second value counts the claims, so that the caller can see that there were any.
    """
    survivors: list[str] = []
    count = 0

    def check(label: str, *claims: verify.Claim, scope: str) -> str:
        nonlocal count
        for claim in claims:
            count += 1
            try:
                falsified(claim).decide()
            except verify.VerificationError:
                continue
            survivors.append(f"{path.name}: {label}: {claim.words}")
        return scope

    original, verify.check = verify.check, check  # type: ignore[assignment]
    try:
        namespace: dict[str, Any] = {}
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
            if cell.cell_type == "code":
                name = f"{path.name}-cell-{number}"  # of a traceback
                exec(compile(cell.source, name, "exec"), namespace)
    finally:
        verify.check = original
    return survivors, count


def falsified(claim: verify.Claim) -> verify.Claim:
    """Return a claim about the same computed values that is false."""
    left, right = verify._listed(claim.left), verify._listed(claim.right)
    if claim.relation == "=":
        infinite = [getattr(value, "is_infinite", False) for value in right]
        right = [0 if bad else value + 1 for value, bad in zip(right, infinite, strict=True)]
    elif claim.relation == "≈":
        right = [2 * value + 1 for value in right]
    elif claim.relation == "≠":
        left = right
    else:
        left, right = [value + 1 for value in right], left
    return verify.Claim(claim.words, claim.relation, left, right, claim.digits)
