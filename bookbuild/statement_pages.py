"""A page for each result, ``s/LABEL.html``, and what else shows the results: lists, graph, data.

`records` says all that is known of a result from the sources; programs read it as JSON. What it
says, its proof and its check are taken from the finished page of its chapter by `collect`.
"""

import copy
import dataclasses
import html
import posixpath
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lxml.html import builder as E  # noqa: N812
from lxml.html import tostring

from bookbuild import citation, labels, pages, proofs, statements
from bookbuild.results import Result, chapters, exercises, named, results, users

Record = dict[str, Any]
FORMAL = "formally proved"
UNCHECKED = "no check"
_CAPTION = re.compile(r'<p class="admonition-title">.*?</p>', re.DOTALL)
_TWINS = Path(__file__).with_name("twins.toml")


@dataclass
class Fragment:
    """What the finished page of a chapter has of a result, as HTML for pages one folder deep."""

    name: str
    title: str
    statement: str
    proof: str = ""
    checks: str = ""


@dataclass
class Fragments:
    """What the finished pages have: results and exercises by label, addresses of functions."""

    results: dict[str, Fragment] = field(default_factory=dict)
    exercises: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)


# --- What is known of each result ----------------------------------------------------------------


def records(root: Path, address: str = "") -> dict[str, Record]:
    """Return all that the sources say of each result, by label, in the order of the book.

    Parameters
    ----------
    root : Path
        The book.
    address : str
        Where the site is, ending in a slash; empty if that is not known.
    """
    found = results(root)
    uses = {label: result.uses for label, result in found.items()}
    used_by = users(uses)
    named_by = users({label: result.names for label, result in found.items()})
    asked = exercises(root)
    implemented = statements.users(root / "src" / "klapprox")
    register, book = labels.read(root), citation.book(root)
    proved, twins = proofs.statuses(root), tomllib.loads(_TWINS.read_text(encoding="utf-8"))
    checks: dict[str, list[Any]] = {}
    for path in chapters(root).values():
        for cell in statements.cells(path):
            if cell["cell_type"] == "code":
                for report in statements.reports_of(cell):
                    scope = named(report["scope"], found)
                    checks.setdefault(report["label"], []).append(report | {"scope": scope})
    return {
        label: {
            "label": label,
            "kind": result.kind,
            "number": result.number,
            "name": result.name,
            "title": result.title,
            "version": book.version,
            "page": f"s/{label}.html",
            "place": f"{result.page}.html#{label}",
            "statement": result.text,
            "proof": result.proof,
            "checks": checks.get(label, []),
            "status": _status(checks.get(label, []), proved.get(label)),
            "formal": proved.get(label),
            "twins": twins.get(label, []),
            "uses": list(uses[label]),
            "used_by": list(used_by[label]),
            "names": list(result.names),
            "named_by": list(named_by[label]),
            "exercises": [exercise for exercise, named in asked.items() if label in named],
            "functions": implemented.get(label, []),
            "history": _history(register, result, book.version),
            "cite": {
                "address": f"{address}s/{label}.html" if address else "",
                "sentence": citation.sentence(
                    result, book, f"{address}s/{label}.html" if address else ""
                ),
                "bibtex": citation.bibtex_of(
                    result, book, f"{address}s/{label}.html" if address else ""
                ),
                "latex": citation.latex(result),
            },
        }
        for label, result in found.items()
    }


def _status(reports: Iterable[Any], proved: Mapping[str, Any] | None) -> list[str]:
    """Return the kinds of checks of a result, with its formal proof first."""
    kinds = [kind for report in reports for claim in report["claims"] for kind in claim["kinds"]]
    formally = [str(proved["words"])] if proved else []
    return formally + (list(dict.fromkeys(kinds)) or [UNCHECKED])


def _history(register: labels.Register, result: Result, version: str) -> Record:
    """Return since when there is a result and what changed, up to now."""
    entry = register["labels"].get(result.label)
    if entry is None:
        coming = "the next version" if version in register["frozen"] else f"version {version}"
        return {"since": "", "coming": coming, "changes": []}
    changes = [dict(change) for change in entry["changes"]]
    for what, now in (("number", result.number), ("page", result.page)):
        if entry[what] != now:
            changes.append({"version": labels.NEXT, "what": what, "words": f"{entry[what]} before"})
    return {"since": entry["since"], "changes": changes}


# --- What is taken from the page of a chapter ----------------------------------------------------


def collect(tree: Any, page: str, known: Mapping[str, Result], into: Fragments) -> None:
    """Take results and exercises from the finished tree of a page, and put "cite" at each result.

    Raises
    ------
    ValueError
        If a result has another number on the page than in the list of results.
    """
    for title in tree.xpath(
        "//div[@id]/p[@class='admonition-title'][span[@class='caption-number']]"
    ):
        box = title.getparent()
        label = box.get("id")
        result = known.get(label)
        name = pages.plain(title[0])
        if result is None:
            if "exercise" in box.get("class", ""):
                into.exercises[label] = (
                    f'<a class="reference internal" href="../{page}.html#{label}">{name}</a>'
                    f"{_title(title, page)}"
                )
            continue
        if name != result.name:
            raise ValueError(f"{label} is {name} on its page and {result.name} in the list")
        fragment = Fragment(name, _title(title, page), _moved(box, page))
        proof = box.getnext()
        if proof is not None and proof.get("class") == "proof admonition bare":
            fragment.proof = _moved(proof, page)
        into.results[label] = fragment
        cite = E.A("cite", {"class": "headerlink cite", "href": f"../s/{label}.html#cite"})
        cite.set("aria-label", f"Cite {name}")
        title.append(cite)
    for details in tree.xpath("//details[@data-labels]"):
        for label in details.attrib.pop("data-labels").split():
            if label in into.results:
                into.results[label].checks += _moved(details, page)
    for term in tree.xpath("//dt[@id and contains(@class, 'sig')]"):
        into.functions[term.get("id")] = f"../{page}.html#{term.get('id')}"


def _title(title: Any, page: str) -> str:
    """Return the words of a caption, without number, brackets and marks, as HTML."""
    shown = copy.deepcopy(title)
    for mark in shown.xpath(
        "./a[contains(@class, 'headerlink')] | ./span[@class='caption-number']"
    ):
        mark.drop_tree()
    _move_links(shown, page)
    inner = (shown.text or "") + "".join(tostring(child, encoding="unicode") for child in shown)
    before, opening, inner = inner.partition("(")
    if before.strip() or not opening:
        return ""
    inner, _, behind = inner.rpartition(")")  # which may stand within the last formula's span
    return f" {inner}{behind}".rstrip()


def _moved(element: Any, page: str) -> str:
    """Return an element as it stands on another page one folder deep, without ids and marks."""
    shown = copy.deepcopy(element)
    shown.tail = None
    for mark in shown.xpath(".//a[contains(@class, 'headerlink')]"):
        mark.drop_tree()
    for inner in shown.iter():
        if isinstance(inner.tag, str):
            inner.attrib.pop("id", None)
    _move_links(shown, page)
    return str(tostring(shown, encoding="unicode"))


def _move_links(element: Any, page: str) -> None:
    """Make relative links of a page lead to the same places from any folder beside its own."""
    for inner in element.xpath(".//*[@href or @src]"):
        name = "href" if inner.get("href") is not None else "src"
        path, mark, anchor = inner.get(name).partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        inner.set(name, f"../{target if path else f'{page}.html'}{mark}{anchor}")


# --- The page of a result ------------------------------------------------------------------------


def body(record: Record, all_records: Mapping[str, Record], fragments: Fragments) -> str:
    """Return the text of the page of a result."""
    label, fragment = record["label"], fragments.results[record["label"]]
    statement = fragment.statement.replace("<div ", f'<div id="{label}" ', 1)
    statement = _CAPTION.sub("", statement, count=1)  # which is the heading of the page
    checks = fragment.checks.replace('<details class="check"', '<details class="check" open')
    chapter = all_records[label]["place"].partition("#")[0]
    return "".join(
        [
            f"<h1>{record['name']}{_colon(fragment.title)}</h1>",
            f'<p class="place">Label <code>{label}</code> · version {record["version"]} · '
            f'<a href="../{record["place"]}">at its place in the chapter</a> · '
            f'<a href="{label}.json">JSON</a> · <a href="{label}.tex">LaTeX</a></p>',
            statement,
            fragment.proof,
            checks,
            _section("cite", "Cite", cite_box(record)),
            _section("uses", "What it rests on", _rests_on(record, all_records, fragments)),
            _section("used-by", "What rests on it", _used_by(record, all_records, fragments)),
            _list_section(
                "exercises",
                "Exercises on it",
                [fragments.exercises[name] for name in record["exercises"]],
            ),
            _list_section(
                "functions",
                "In klapprox",
                [_function(name, fragments) for name in record["functions"]],
            ),
            _section("status", "Status", _status_text(record)),
            _section("history", "History", _history_text(record, all_records[label], chapter)),
        ]
    )


def cite_box(record: Record) -> str:
    """Return what an author copies: address, sentence, BibTeX, LaTeX."""
    cite = record["cite"]
    address = cite["address"] or f"../{record['page']}"
    parts = {
        "Address": f'<a class="address" href="{html.escape(address)}">'
        f"{html.escape(cite['address'] or record['page'])}</a>",
        "Sentence": _copied(cite["sentence"], "sentence"),
        "BibTeX": _copied(cite["bibtex"], "bibtex"),
        "LaTeX": _copied(cite["latex"], "latex")
        + f'<p>The whole statement as LaTeX: <a href="../s/{record["label"]}.tex">'
        f"{record['label']}.tex</a></p>",
    }
    rows = "".join(f"<dt>{name}</dt><dd>{part}</dd>" for name, part in parts.items())
    return f'<dl class="cite-box">{rows}</dl>'


def _copied(text: str, kind: str) -> str:
    return f'<pre class="{kind}" tabindex="0">{html.escape(text, quote=False)}</pre>'


def link(record: Record, fragments: Fragments) -> str:
    """Return a link to the page of a result, which shows what it says, with its title."""
    preview = record["place"].replace(".html", "", 1)
    return (
        f'<a class="reference internal" href="../{record["page"]}" data-preview="{preview}">'
        f"{record['name']}</a>{fragments.results[record['label']].title}"
    )


def _rests_on(record: Record, every: Mapping[str, Record], fragments: Fragments) -> str:
    parts = []
    if record["uses"]:
        parts.append("<p>Its proof uses</p>" + _links(record["uses"], every, fragments))
    elif record["proof"]:
        parts.append("<p>Its proof uses no other result of the book.</p>")
    if record["names"]:
        parts.append("<p>Its words name</p>" + _links(record["names"], every, fragments))
    return "".join(parts) or "<p>Nothing else in the book.</p>"


def _used_by(record: Record, every: Mapping[str, Record], fragments: Fragments) -> str:
    parts = []
    if record["used_by"]:
        parts.append(
            "<p>It is used by the proofs of</p>" + _links(record["used_by"], every, fragments)
        )
    if record["named_by"]:
        parts.append("<p>It is named by</p>" + _links(record["named_by"], every, fragments))
    return "".join(parts) or "<p>No other proof of the book.</p>"


def _links(found: Iterable[str], every: Mapping[str, Record], fragments: Fragments) -> str:
    return "<ul>" + "".join(f"<li>{link(every[name], fragments)}</li>" for name in found) + "</ul>"


def _function(name: str, fragments: Fragments) -> str:
    code = f"<code>{name}</code>"
    if name not in fragments.functions:
        return code
    return f'<a class="reference internal" href="{fragments.functions[name]}">{code}</a>'


def _status_text(record: Record) -> str:
    kinds = ", ".join(record["status"])
    scopes = "; ".join(dict.fromkeys(report["scope"] for report in record["checks"]))
    parts = [
        f"<p>Checked: {kinds}. The check covers: {html.escape(scopes)}.</p>"
        if record["checks"]
        else "<p>Not checked by machine: it is a "
        f"{record['kind']}{', and claims nothing' if record['kind'] == 'definition' else ''}.</p>"
    ]
    if record["formal"]:
        parts.append(f"<p>{_formal_text(record['formal'])}</p>")
    if record["twins"]:
        twins = "".join(
            f"<li><code>{html.escape(twin['name'])}</code> of {html.escape(twin['library'])} "
            f"({html.escape(twin['file'])}): {html.escape(twin['says'])}</li>"
            for twin in record["twins"]
        )
        parts.append(f"<p>Formally proved elsewhere:</p><ul>{twins}</ul>")
    return "".join(parts)


def _formal_text(entry: Mapping[str, Any]) -> str:
    """Return in words what is proved formally, with links to the theorems."""
    words = html.escape(f"{entry['words']}: {entry['covers']}. Narrower than here: ")
    missing = f" Not proved: {html.escape(entry['missing'])}." if entry["missing"] else ""
    links = ", ".join(
        f'<a href="{proofs.address(theorem)}"><code>{theorem["name"]}</code></a>'
        for theorem in entry["theorems"]
    )
    return (
        f"{words[0].upper()}{words[1:]}{html.escape(entry['narrower'])}.{missing} In Coq: {links}."
    )


def name_results(tree: Any, known: Mapping[str, Result]) -> None:
    """Say in the line of a check what its scope names, and what it checks if that is far above."""
    above = ""
    for element in tree.iter("div", "details"):
        if element.get("id") in known:
            above = element.get("id")
        if not element.get("data-labels"):
            continue
        (checked,) = element.xpath("./summary/strong")
        checked.tail = named(checked.tail, known)
        of = element.get("data-labels").split()
        if of != [above]:
            names = ", ".join(known[label].name for label in of if label in known)
            checked.tail = f" ({names}){checked.tail}" if names else checked.tail


def note_formal(tree: Any, proved: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Say below the check of each result that has a formal proof what that covers, with a link."""
    last: dict[str, Any] = {}  # a statement may have several checks
    for details in tree.xpath("//details[@data-labels]"):
        last |= dict.fromkeys(details.get("data-labels").split(), details)
    for details in dict.fromkeys(last.values()):
        for label in reversed(details.get("data-labels").split()):
            if last[label] is details and (entry := proved.get(label)):
                theorem = entry["theorems"][0]
                source = E.A(theorem["name"], {"href": proofs.address(theorem)})
                status = E.A("status", {"href": f"../s/{label}.html#status"})
                status.set("aria-label", f"Status of {label}")
                note = E.P(E.STRONG(entry["words"]), f": {entry['covers']} · ", E.CODE(source))
                note.set("class", "formal")
                note[-1].tail = " · "
                note.append(status)
                details.addnext(note)


def _history_text(record: Record, own: Record, chapter: str) -> str:
    history = own["history"]
    if not history["since"]:
        return f"<p>New in what follows version {record['version']}.</p>"
    changes = "".join(
        f"<li>{_when(change['version'])}: {change['what']}, {html.escape(change['words'])}</li>"
        for change in history["changes"]
    )
    first = f"<p>Since version {history['since']}.</p>"
    return first + (f"<ul>{changes}</ul>" if changes else "")


def _when(version: str) -> str:
    return "not yet released" if version == labels.NEXT else f"version {version}"


def _colon(title: str) -> str:
    return f":{title}" if title else ""


def _section(name: str, heading: str, text: str) -> str:
    return f'<section class="part" id="{name}"><h2>{heading}</h2>{text}</section>'


def _list_section(name: str, heading: str, items: list[str]) -> str:
    if not items:
        return ""
    listed = "".join(f"<li>{item}</li>" for item in items)
    return _section(name, heading, f"<ul>{listed}</ul>")


# --- All results on one page ---------------------------------------------------------------------


def listed(page: str, every: Mapping[str, Record], fragments: Fragments) -> str:
    """Return the results of a chapter as a list that shows what they say."""
    return (
        '<ul class="results">'
        + "".join(
            _item(record, fragments)
            for record in every.values()
            if record["place"].startswith(f"{page}.html")
        )
        + "</ul>"
    )


def _item(record: Record, fragments: Fragments) -> str:
    fragment = fragments.results[record["label"]]
    checked = html.escape("; ".join(dict.fromkeys(r["scope"] for r in record["checks"])))
    functions = " ".join(_function(name, fragments) for name in record["functions"])
    kinds = ", ".join(record["status"])
    return (
        f'<li data-kind="{record["kind"]}" data-status="{kinds}">'
        f"{fragment.statement}"
        f'<p class="about"><a href="../{record["page"]}" aria-label="Page of {record["name"]}">'
        f"<code>{record['label']}</code></a> · <strong>{kinds}</strong>"
        f"{f': {checked}' if checked else ''}{f' · {functions}' if functions else ''}</p></li>"
    )


def filters(every: Mapping[str, Record], titles: Mapping[str, str]) -> str:
    """Return the boxes that choose among all results; without a script they are not there."""
    kinds = dict.fromkeys(record["kind"] for record in every.values())
    states = dict.fromkeys(kind for record in every.values() for kind in record["status"])
    parts = [
        _choice("chapter", "every chapter", titles),
        _choice("kind", "every kind", {kind: kind for kind in kinds}),
        _choice("status", "every status", {state: state for state in states}),
        '<label>Words <input type="search" name="words" autocomplete="off"></label>',
        '<output name="count"></output>',
    ]
    return f'<form class="filters" hidden>{"".join(parts)}</form>'


def _choice(name: str, every: str, choices: Mapping[str, str]) -> str:
    options = "".join(
        f'<option value="{html.escape(value)}">{html.escape(words)}</option>'
        for value, words in choices.items()
    )
    return (
        f'<label>{name.capitalize()} <select name="{name}"><option value="">{every}</option>'
        f"{options}</select></label>"
    )


def entries(every: Mapping[str, Record], book: citation.Book) -> Iterator[tuple[str, Record]]:
    """Yield the name of each file of data and what stands in it."""
    for label, record in every.items():
        yield f"s/{label}.json", record
    short = [{k: v for k, v in r.items() if k not in ("proof", "checks")} for r in every.values()]
    yield "results.json", {"book": dataclasses.asdict(book), "results": short}
