"""The graph of the book as a picture: what rests on what, a column for each chapter.

It is SVG within the page, so that it has the page's colours, links and keyboard. A line goes from a
result to each one whose proof uses it; within a chapter it bulges to the right.
"""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bookbuild import citation
from bookbuild.results import longest_chain

COLUMN, ROW = 70, 27  # between the left edges of boxes, and between their tops
WIDTH, HEIGHT = 42, 19  # of a box
LEFT, TOP = 4, 34
FORMAL = "formally proved"
_INDICES = dict(zip("0123456789", "₀₁₂₃₄₅₆₇₈₉", strict=True))
UNBROKEN = "\u00a0"  # between a kind and a number no line is broken


def svg(every: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """Return the picture.

    Parameters
    ----------
    every : dict
        The records of all results, by label, in the order of the book.
    titles : dict of str
        The titles of the chapters by the names of their pages, in order.
    """
    columns: dict[str, list[str]] = {page: [] for page in titles}
    for label, record in every.items():
        columns[record["place"].partition(".html")[0]].append(label)
    columns = {page: labels for page, labels in columns.items() if labels}
    at = {
        label: (LEFT + column * COLUMN, TOP + row * ROW)
        for column, labels in enumerate(columns.values())
        for row, label in enumerate(labels)
    }
    heads = "".join(
        f'<a href="../{page}.html" aria-label="{html.escape(titles[page])}">'
        f'<text class="head" x="{LEFT + column * COLUMN + WIDTH / 2:g}" y="18">'
        f"{every[labels[0]]['number'].partition('.')[0]}<title>{html.escape(titles[page])}</title>"
        "</text></a>"
        for column, (page, labels) in enumerate(columns.items())
    )
    lines = "".join(
        f'<path data-from="{used}" data-to="{label}" d="{_line(at[used], at[label])}"/>'
        for label, record in every.items()
        for used in record["uses"]
    )
    boxes = "".join(_box(record, at[label]) for label, record in every.items())
    width = LEFT * 2 + (len(columns) - 1) * COLUMN + WIDTH + 24
    height = TOP + max(map(len, columns.values())) * ROW
    return (
        f'<svg class="graph" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="group" aria-label="What rests on what"><g class="lines">{lines}</g>{heads}{boxes}'
        "</svg>"
    )


def _line(used: tuple[int, int], user: tuple[int, int]) -> str:
    """Return the path from a box to another one, from the edge that is nearer to it."""
    x1, y1 = used[0] + WIDTH, used[1] + HEIGHT / 2
    x2, y2 = user[0], user[1] + HEIGHT / 2
    if used[0] == user[0]:
        bulge = min(5 + abs(y2 - y1) / 9, COLUMN - WIDTH - 3)
        return f"M{x1} {y1:g}C{x1 + bulge:g} {y1:g} {x1 + bulge:g} {y2:g} {x1} {y2:g}"
    if used[0] > user[0]:  # a result that rests on a later chapter
        x1, x2 = used[0], user[0] + WIDTH
    bend = (x2 - x1) / 3
    return f"M{x1} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2} {y2:g}"


def _box(record: Mapping[str, Any], at: tuple[int, int]) -> str:
    words = f"{record['name']}: {citation.plain(record['title'])}".removesuffix(": ")
    status = "formal" if record["status"][0].startswith(FORMAL) else "plain"
    preview = record["place"].replace(".html", "", 1)
    return (
        f'<a class="reference internal {record["kind"]} {status}" href="../{record["page"]}" '
        f'id="graph-{record["label"]}" data-preview="{preview}" '
        f'aria-label="{html.escape(words)}">'
        f'<rect x="{at[0]}" y="{at[1]}" width="{WIDTH}" height="{HEIGHT}" rx="3"/>'
        f'<text x="{at[0] + WIDTH / 2:g}" y="{at[1] + 14}">{record["number"]}</text></a>'
    )


def lists(every: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """Return what the picture shows as lists that fold, one for each chapter.

    Parameters
    ----------
    every, titles : dict
        As in `svg`.
    """

    def linked(labels: Sequence[str]) -> str:
        return ", ".join(
            f'<a href="../{every[label]["page"]}">{every[label]["name"].replace(" ", UNBROKEN)}</a>'
            for label in labels
        )

    def item(record: Mapping[str, Any]) -> str:
        title = re.sub(r"_(\d)", lambda found: _INDICES[found[1]], citation.plain(record["title"]))
        uses = f"uses {linked(record['uses'])}" if record["uses"] else "uses no other"
        used = f"; used by {linked(record['used_by'])}" if record["used_by"] else ""
        return (
            f"<li>{linked([record['label']])}{html.escape(f', {title}' if title else '')}: "
            f"{uses}{used}</li>"
        )

    parts = []
    for page, title in titles.items():
        records = [one for one in every.values() if one["place"].startswith(f"{page}.html")]
        if records:
            number = records[0]["number"].partition(".")[0]
            summary = f"<summary>{number}. {html.escape(title)} ({len(records)})</summary>"
            parts.append(f"<details>{summary}<ul>{''.join(map(item, records))}</ul></details>")
    return f'<div class="graph-lists"><p>The same as lists, by chapter:</p>{"".join(parts)}</div>'


def words(every: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what the graph shows in a paragraph, with the results that are used most."""
    uses = {label: tuple(record["uses"]) for label, record in every.items()}
    proofs = sum(bool(record["proof"]) for record in every.values())
    most = sorted(every.values(), key=lambda record: -len(record["used_by"]))[:8]
    chain = longest_chain(uses)

    def name(label: str) -> str:
        record = every[label]
        preview = record["place"].replace(".html", "", 1)
        return (
            f'<a class="reference internal" href="../{record["page"]}" '
            f'data-preview="{preview}">{record["name"]}</a>'
        )

    used = ", ".join(f"{name(r['label'])} ({len(r['used_by'])})" for r in most)
    return (
        f"<p>{len(every)} results, {proofs} proofs, {sum(map(len, uses.values()))} times one proof "
        f"uses another result. Most used: {used}. A longest chain: "
        f"{' → '.join(name(label) for label in chain)}.</p>"
        '<p class="graph-words" aria-live="polite">Point at a result to see what it rests on.</p>'
    )
