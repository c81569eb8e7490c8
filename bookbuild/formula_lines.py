"""Displays that are broken by hand for a phone, joined again where there is room.

The rows of ``aligned`` and ``gathered`` become lines with breaks between them, which the style
sheet takes away as soon as the box of the formula is wide enough. A row that begins with a
relation, a sum or a space goes on with the row above; one that begins anew stays a line of its
own. There is one rendering, so nobody hears a formula twice, and no page is heavier for it.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from fontTools.ttLib import TTFont
from lxml import etree

from bookbuild import fonts

RELATIONS = frozenset("=<>≤≥≈≠∼∝≪≫→⟶⟹⟺⟸↦⇒⇔∈∉⊂⊆≔≡")
OPERATORS = frozenset("+−×⋅∓±")
BARS = frozenset("|‖∣")
WIDTHS = (16, 20, 24, 28, 32, 36, 39)  # em of text, as in book.css; the last is a whole column
GAP = 2.0  # em between what stands one below the other in `gathered`
LETTERS, SCRIPTS = 1.06, 0.72  # sizes of formulas and of indices, in em of what is around them

Row = list[Any]  # elements of a formula


def of_table(table: Any) -> str | None:
    """Return the rows of a table as lines that join, or None if all of them stand for themselves.

    Parameters
    ----------
    table : lxml element
        An ``<mtable>`` whose cells hold parts of formulas: one or two columns.
    """
    rows = [[list(cell) for cell in row] for row in table]
    if len(rows) < 2 or max(map(len, rows)) > 2:
        return None
    if max(map(len, rows)) == 1:
        return _gathered([row[0] for row in rows])
    found = [(row[0], row[1] if len(row) > 1 else []) for row in rows]
    parts = [found[a:b] for a, b in _statements([bool(left) for left, _ in found])]
    if all(len(part) == 1 for part in parts):
        return None
    if len(parts) == 1 and not found[0][0]:
        return _without_left_side([row for _, row in found])
    cells = []
    for part in parts:
        left = part[0][0]
        lines = [row for _, row in part]
        before = _width(left)
        marks = _marks([before + _width(lines[0]), *map(_width, lines[1:])], lines)
        cells += [_math(left), _lines(lines, marks)]
    return f'<span class="lines">{"".join(f"<span>{cell}</span>" for cell in cells)}</span>'


def which_join(table: Any, widest: float) -> list[bool]:
    """Return for each row of a table whether it goes on with the row above in a line so wide."""
    rows = [[list(cell) for cell in row] for row in table]
    if max(map(len, rows)) > 2:
        return [False] * len(rows)
    widths = [sum(map(_width, row)) for row in rows]  # of both cells together
    if max(map(len, rows)) == 1:
        fits = sum(widths) + GAP * (len(rows) - 1) <= widest
        return [False] + [fits] * (len(rows) - 1)
    joins: list[bool] = []
    for start, end in _statements([bool(row[0]) for row in rows]):
        lines = [row[-1] for row in rows[start:end]]
        joins += [width <= widest for width in _needed(widths[start:end], lines, widest)]
        joins[start] = False
    return joins


def _statements(begins: Sequence[bool]) -> list[tuple[int, int]]:
    """Return where what begins at some rows starts and ends; the first row always begins."""
    starts = [n for n, begin in enumerate(begins) if begin or not n]
    return list(zip(starts, [*starts[1:], len(begins)], strict=True))


def _needed(widths: Sequence[float], lines: Sequence[Row], widest: float) -> list[float]:
    """Return for each line how wide a box must be for it to go on with the line above.

    All of them join if all fit the widest box. Otherwise those that begin with a relation stay, and
    the others join them.
    """
    whole = sum(widths)
    if whole <= widest:
        return [whole] * len(lines)
    needed: list[float] = []
    for start, end in _statements([_begins(line, RELATIONS) for line in lines]):
        needed += [float("inf")] + [sum(widths[start:end])] * (end - start - 1)
    return needed


def _marks(widths: Sequence[float], lines: Sequence[Row]) -> list[str | None]:
    return [_mark(width) for width in _needed(widths, lines, WIDTHS[-1] / LETTERS)]


def _mark(width: float) -> str | None:
    """Return the class of what changes where a box is so wide; None if no box is."""
    return next((f"at{one}" for one in WIDTHS if LETTERS * width <= one), None)


def _gathered(rows: list[Row]) -> str | None:
    """Return rows that stand next to each other where there is room."""
    mark = _mark(sum(map(_width, rows)) + GAP * len(rows))
    if not mark:
        return None
    return _turn(mark).join(f'<span class="part">{_math(row)}</span>' for row in rows)


def _without_left_side(rows: list[Row]) -> str | None:
    """Return rows none of which has a left side: what comes before the first relation becomes it.

    On a phone it stands above the others.
    """
    widths = [_width(row) for row in rows]
    marks = _marks(widths, rows)
    first = next((n for n, row in enumerate(rows) if n and _begins(row, RELATIONS)), len(rows))
    mark = marks[first] if first < len(rows) else None
    if not mark and first == 1 < len(rows):
        spans = _statements([_begins(row, RELATIONS) for row in rows[1:]])
        mark = _mark(widths[0] + max(sum(widths[1 + a : 1 + b]) for a, b in spans))
    if not mark:
        return f'<span class="lines stack"><span>{_lines(rows, marks)}</span></span>'
    indent = _indent(rows[first])
    right = (_turn(mark, indent, "") if indent else "") + _lines(rows[first:], marks[first:])
    left = _lines(rows[:first], marks[:first])
    return f'<span class="lines stack {mark}"><span>{left}</span><span>{right}</span></span>'


def _lines(rows: Sequence[Row], marks: Sequence[str | None]) -> str:
    """Return rows with breaks between them."""
    turns = [_turn(mark, _indent(row)) for row, mark in zip(rows[1:], marks[1:], strict=True)]
    first, *others = map(_math, rows)
    return first + "".join(turn + line for turn, line in zip(turns, others, strict=True))


def _turn(mark: str | None, indent: int = 0, line_break: str = "<br/>") -> str:
    """Return the end of a line and the space before the next one, which go where there is room."""
    names = ["turn", *([f"in{indent}"] if indent else []), *([mark] if mark else [])]
    return f'<span class="{" ".join(names)}">{line_break}</span>'


def _indent(row: Row) -> int:
    """Return the space before a row, in whole em."""
    return round(sum(_space(child) for child in row[: _start(row)]))


def _start(row: Row) -> int:
    """Return where a row begins behind its wide spaces."""
    return next((n for n, child in enumerate(row) if _space(child) < 1), len(row))


def _space(element: Any) -> float:
    if element.tag != "mspace":
        return 0.0
    return float(element.get("width", "0").removesuffix("em") or 0)


def _begins(row: Row, signs: frozenset[str]) -> bool:
    row = row[_start(row) :]
    return bool(row) and row[0].tag == "mo" and row[0].text in signs


def _math(row: Row) -> str:
    """Return a row as a formula, which goes on behind another one with its usual spaces."""
    math = etree.Element("math", {"displaystyle": "true"})
    if _begins(row, RELATIONS | OPERATORS):
        row[_start(row)].set("form", "infix")
    elif _begins(row, BARS):
        row[_start(row)].set("lspace", "0.17em")
    math.extend(row[_start(row) :])
    return etree.tostring(math, encoding="unicode") if len(math) else ""


# --- How wide a formula is -----------------------------------------------------------------------


@cache
def _advances() -> dict[int, float]:
    """Return how wide the letters of the font are, in em."""
    font = TTFont(fonts.SOURCE)
    widths, em = font["hmtx"].metrics, font["head"].unitsPerEm
    return {code: widths[name][0] / em for code, name in font.getBestCmap().items()}


def _width(row: Any) -> float:
    """Return about how wide elements of a formula are, without the space before them, in em."""
    row = list(row)
    return sum(map(_width_of, row[_start(row) :]))


def _width_of(element: Any) -> float:
    parts = [_width_of(child) for child in element]
    if element.tag == "mspace":
        return _space(element)
    if element.tag == "mfrac":
        size = SCRIPTS if element.get("displaystyle") == "false" else 1.0
        return size * max(parts) + 0.2
    if element.tag in ("msub", "msup", "msubsup"):
        return parts[0] + SCRIPTS * max(parts[1:]) + 0.06
    if element.tag in ("munder", "mover", "munderover"):
        return max(1.35 * parts[0], *(SCRIPTS * part for part in parts[1:]))
    if element.tag == "msqrt":
        return sum(parts) + 0.9
    if parts:
        return sum(parts)
    text = "".join((element.text or "").split("\u2061"))
    if element.tag == "mi" and len(text) == 1:
        text = fonts.italic(text)
    width = sum(_advances().get(ord(letter), 0.5) for letter in text)
    if element.tag != "mo":
        return width
    usual = 0.28 if text in RELATIONS else 0.22 if text in OPERATORS else 0.0
    around = (element.get(side, f"{usual}em").removesuffix("em") for side in ("lspace", "rspace"))
    return width * (1.25 if element.get("minsize") else 1.0) + sum(map(float, around))
