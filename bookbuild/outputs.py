"""What cells print, made to fit every screen: tables become tables, other lines may be broken.

A table is a header with rows below it, all of as many cells, which are at least two spaces apart.
On a phone its rows become lists, as those of every table of the book do.
"""

import re
from typing import Any

from lxml.html import builder as E  # noqa: N812

_GAP = re.compile(r"(?<!\() {2,}")
_NUMBER = re.compile(r"[<(]?\s?[-+−]?(\d|inf|nan)")
_PLAIN = re.compile(r"\d+(e[-+]\d+)?")  # a number that may stand in a header

Cells = list[list[str]]


def fit(output: Any) -> None:
    """Change a box with printed text in place.

    Parameters
    ----------
    output : lxml element
        The ``<div>`` of one output, with one ``<pre>`` in it.
    """
    (pre,) = output.xpath(".//pre")
    lines = pre.text_content().rstrip("\n").split("\n")
    made: list[Any] = []
    plain: list[Any] = []
    while lines:
        rows = table(lines)
        if not rows:
            plain.append(E.SPAN(f"{lines.pop(0)}\n", E.CLASS("line")))
        if plain and (rows or not lines):
            made.append(E.PRE(*plain))
            plain = []
        if rows:
            made.append(_as_table(rows))
            del lines[: len(rows)]
    output[:] = made
    output.set("class", f"{output.get('class', '')} printed".strip())


def table(lines: list[str]) -> Cells:
    """Return the cells of the table that lines begin with, the header first; empty if none.

    Examples
    --------
    >>> table(["  T     KL   Var k1", "  1  0.087     0.15", " 20  1.744     3.09", "that is all"])
    [['T', 'KL', 'Var k1'], ['1', '0.087', '0.15'], ['20', '1.744', '3.09']]
    >>> table(["k1  mean 0.50  s.d. 0.03", "k3  mean 0.51  s.d. 0.04", "k2  mean 0.52  s.d. 0.03"])
    []
    """
    head, *rows = [_GAP.split(line.strip()) for line in lines]
    size = len(rows[0]) if rows else 0
    if len(head) == size - 1 and lines[0].startswith(" " * (len(rows[0][0]) + 1)):
        head.insert(0, "")
    end = next(
        (n for n, row in enumerate(rows) if len(row) != size or row[1:] == head[1:]), len(rows)
    )
    rows = rows[:end]
    if size < 3 or len(head) != size or len(rows) < 2 or not _is_header(head):
        return []
    numbers = [all(_NUMBER.match(row[n]) for row in rows) for n in range(1, size)]
    return [head, *rows] if sum(numbers) >= len(numbers) / 2 else []


def _is_header(cells: list[str]) -> bool:
    """Say whether cells are names, or numbers that are no results; the first is a name."""
    first, *others = cells
    return not _NUMBER.match(first) and all(
        _PLAIN.fullmatch(cell) or not _NUMBER.match(cell) for cell in others
    )


def _as_table(cells: Cells) -> Any:
    head, *rows = cells
    kinds = [
        E.CLASS("number") if all(_NUMBER.match(row[n]) for row in rows) else {}
        for n in range(len(head))
    ]

    def row(kind: Any, texts: list[str]) -> Any:
        return E.TR(*(kind(E.P(text), names) for text, names in zip(texts, kinds, strict=True)))

    return E.TABLE(E.THEAD(row(E.TH, head)), E.TBODY(*(row(E.TD, one) for one in rows)))
