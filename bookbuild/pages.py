"""What is done to each page when Sphinx has written its text, and what is collected from it.

`finish` works on the tree of one page: checks become one line that opens, solutions and code fold,
figures reserve their place, wide tables get a box to scroll in. `previews` and `entries` read from
the finished tree what hovering shows and what the search finds.
"""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

from lxml import etree
from lxml.html import builder as E  # noqa: N812
from lxml.html import fragment_fromstring, tostring

from bookbuild import outputs, statements

_NUMBERED = re.compile(r"[A-Z][a-z]+ \d+(\.\d+)+")  # Theorem 5.7
CLOSING_PUNCTUATION = re.compile(r"^[.,;:!?)\]’”%…-]+[’”)]?(?:[\w-]{1,4}\b)?[.,;:!?)]*")
_FUNCTIONS = frozenset({"log", "exp", "min", "max", "sup", "inf"})
_RAISED = dict(zip("0123456789+−∗*′″", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻**′″", strict=True))
WORDS_A_MINUTE = 90  # mathematics is read slowly


def parse(body: str) -> Any:
    """Return the tree of the text of a page."""
    return fragment_fromstring(body, create_parent="div")


def render(tree: Any) -> str:
    """Return the HTML of what is in a tree."""
    return "".join(tostring(child, encoding="unicode") for child in tree)


def plain(element: Any) -> str:
    """Return the text of an element on one line, without the marks that link to headings."""
    return " ".join(_text(element).replace("\u2061", "").split())


def _text(element: Any) -> str:
    """Return the text within an element; a formula says on one line what it says on several."""
    if {"headerlink", "column"} & set(element.get("class", "").split()):
        return ""  # a mark that links, or a heading before a cell
    parts = [_text(child) for child in element if isinstance(child.tag, str)]
    if element.tag == "mfrac":
        return "/".join(map(_bracketed, parts))
    if element.tag == "msqrt":
        return f"√{_bracketed(''.join(parts))}"
    if element.tag in ("msup", "msubsup"):
        *base, power = parts
        small = len(power) == 1 and power in _RAISED
        return "".join(base) + (_RAISED[power] if small else f"^{_bracketed(power)}")
    if element.tag == "mi" and element.text in _FUNCTIONS:
        return f"{element.text} "
    tails = [child.tail or "" for child in element if isinstance(child.tag, str)]
    return (element.text or "") + "".join(a + b for a, b in zip(parts, tails, strict=True))


def _bracketed(text: str) -> str:
    return text if len(text) == 1 or text.isalnum() else f"({text.strip()})"


def finish(
    tree: Any, reports: list[list[dict[str, Any]]], size: Callable[[str], tuple[int, int] | None]
) -> None:
    """Change the tree of a page in place.

    Parameters
    ----------
    tree : lxml element
    reports : list of lists
        For each cell that is tagged as a check, in the order of the page, the data of its reports.
    size : callable
        Width and height of the image file with a given address, in pixels, or None.
    """
    checks = tree.xpath("//div[contains(@class, 'tag_check')]")
    if len(checks) != len(reports):
        raise ValueError(
            f"{len(checks)} cells are checks on the page, {len(reports)} in the source"
        )
    for cell, found in zip(checks, reports, strict=True):
        _fold_check(cell, found)
    for hidden in tree.xpath("//details[contains(@class, 'above-input')]"):
        _fold_code(hidden)
    for solution in tree.xpath("//div[contains(@class, 'solution')]"):
        _fold_solution(solution)
    for box in tree.xpath("//div[contains(@class, 'admonition') and contains(@class, 'dropdown')]"):
        _as_details(box, "folded")
    for box in tree.xpath("//div[contains(@class, 'proof') and contains(@class, 'admonition')]"):
        if not box.xpath(".//span[@class='caption-number']"):
            box.set("class", "proof admonition bare")
    for title in tree.xpath(
        "//div[@id]/p[@class='admonition-title'][span[@class='caption-number']]"
    ):
        link = E.A("¶", {"class": "headerlink", "href": f"#{title.getparent().get('id')}"})
        link.set("aria-label", f"Link to {plain(title[0])}")
        title.append(link)
    for cited in tree.xpath("//div[starts-with(@class, 'citation')]"):
        cited.attrib.pop("role", None)  # neither is what these roles ask for
        for label in cited.xpath("./span[@class='label']"):
            label.drop_tree()  # the text cites by author and year, and so does the list
    for output in tree.xpath("//div[contains(@class, 'cell_output')]/div[.//pre]"):
        outputs.fit(output)
    for table in tree.xpath("//table"):
        _let_scroll(table)
    for image in tree.xpath("//img"):
        _reserve(image, size(image.get("src", "")))
    for formula in tree.xpath("//span[@class='math']"):
        _keep_with_punctuation(formula)
    for code in tree.xpath("//td//code//text()"):
        _let_break(code)
    for name in tree.xpath("//a[contains(@class, 'reference')]//text()"):
        if _NUMBERED.fullmatch(name):
            _replace(name, name.replace(" ", "\u00a0"))


def _fold_check(cell: Any, reports: list[dict[str, Any]]) -> None:
    """Make a check one line that opens to its report and its code."""
    labels = " ".join(dict.fromkeys(report["label"] for report in reports))
    summary = E.SUMMARY(E.STRONG("checked"), f": {statements.summary(reports)}")
    details = etree.Element("details", {"class": "check", "data-labels": labels})
    details.append(summary)
    for report in reports:
        claims = [_claim(claim) for claim in report["claims"]]
        details.append(E.UL(*claims, E.CLASS("report")))
    (code,) = cell.xpath(".//div[contains(@class, 'cell_input')]")
    details.append(code)
    for output in cell.xpath(".//div[contains(@class, 'cell_output')]"):
        for text in output.xpath("./div[contains(@class, 'text_plain')]"):
            if plain(text).startswith("✓ "):
                output.remove(text)
        if len(output):
            details.append(output)
    details.tail = cell.tail
    cell.getparent().replace(cell, details)


def _claim(claim: dict[str, Any]) -> Any:
    """Return a line of a report."""
    cases = f"{claim['cases']} cases, " if claim["cases"] > 1 else ""
    return E.LI(claim["words"], E.SPAN(f" · {cases}{', '.join(claim['methods'])}"))


def _fold_code(hidden: Any) -> None:
    """Put the folded code of a figure below the figure, under a plain word."""
    cell = next(hidden.iterancestors("div"))
    hidden.set("class", "code")
    hidden.replace(hidden.find("summary"), E.SUMMARY("Code"))
    cell.append(hidden)


def _fold_solution(solution: Any) -> None:
    """Fold a solution, with the cells that belong to it: those that follow without a break."""
    following = solution.getnext()
    while following is not None and re.search(r"\bcell\b", following.get("class", "")):
        cell, following = following, following.getnext()
        solution.append(cell)
    _as_details(solution, "solution")


def _as_details(box: Any, kind: str) -> None:
    """Make a box with a title a box that opens."""
    title = box.find("p[@class='admonition-title']")
    for link in title.iter("a"):
        link.drop_tag()
    title.tag = "summary"
    del title.attrib["class"]
    box.tag = "details"
    box.set("class", f"{kind} {box.get('class')}".replace(" dropdown", ""))
    if kind == "solution":
        box.set("class", "solution")


def _let_scroll(table: Any) -> None:
    """Put a table into a box of its own; on a phone its rows become lists with the headings."""
    heads = table.xpath("./thead/tr[last()]/th")
    box = etree.Element("div", {"class": "wide stacked" if len(heads) > 2 else "wide"})
    for row in table.xpath("./tbody/tr") if len(heads) > 2 else []:
        for head, cell in zip(heads, row, strict=False):
            if plain(cell) == "–":
                cell.set("class", "nothing")
            elif plain(head) and plain(cell):
                cell.insert(0, E.SPAN(*copy.deepcopy(list(head)), E.CLASS("column")))
                cell[0].tail, cell.text = cell.text, None
    for head in heads:
        if not plain(head):
            head.tag = "td"  # an empty corner is no heading
    box.tail, table.tail = table.tail, None
    table.getparent().replace(table, box)
    box.append(table)


def _let_break(name: Any) -> None:
    """Let a long name of a program be broken behind its underscores, points and signs only."""
    first, *others = re.split(r"(?<=[_=./])(?=\w)", name)
    owner = name.getparent()
    place = 0 if name.is_text else owner.getparent().index(owner) + 1
    breaks = [E.WBR() for _ in others]
    for mark, other in zip(breaks, others, strict=True):
        mark.tail = other
    _replace(name, first)
    (owner if name.is_text else owner.getparent())[place:place] = breaks


def _replace(text: Any, new: str) -> None:
    """Put another text into the place of one that `xpath` has found."""
    if text.is_text:
        text.getparent().text = new
    else:
        text.getparent().tail = new


def _reserve(image: Any, size: tuple[int, int] | None) -> None:
    """Have an image loaded when it comes into view, into a place of its size."""
    image.set("loading", "lazy")
    image.set("decoding", "async")
    if size:
        image.set("width", str(size[0]))
        image.set("height", str(size[1]))


def _keep_with_punctuation(formula: Any) -> None:
    """Let no full stop and no bracket behind a formula begin a line."""
    match = CLOSING_PUNCTUATION.match(formula.tail or "")
    last = formula[-1] if len(formula) else None
    if match and last is not None:
        together = etree.SubElement(formula, "span", {"class": "nobreak"})
        together.append(last)
        last.tail = match[0]
        formula.tail = formula.tail[match.end() :]


# --- What is read from a finished page -----------------------------------------------------------


def sections(toc: str) -> str:
    """Return the list of sections of a page, without the page itself."""
    inner = fragment_fromstring(toc, create_parent="div").xpath("./ul/li/ul") if toc else []
    return tostring(inner[0], encoding="unicode", with_tail=False) if inner else ""


def description(tree: Any, limit: int = 180) -> str:
    """Return the beginning of the first paragraph of a page, cut between words."""
    for paragraph in tree.xpath(".//section/p | ./p"):
        text = plain(paragraph)
        if len(text) > 40:
            return text if len(text) <= limit else text[:limit].rpartition(" ")[0] + " …"
    return ""


def minutes(tree: Any) -> int:
    """Return how long the text of a page takes to read, without what is folded."""
    words = sum(
        len(plain(element).split())
        for element in tree.xpath(".//p | .//li | .//td | .//div[@class='formula']")
        if not any(parent.tag in ("details", "td", "li") for parent in element.iterancestors())
    )
    return max(1, round(words / WORDS_A_MINUTE))


def previews(tree: Any) -> dict[str, str]:
    """Return the HTML that hovering over a reference shows, by the id that it leads to."""
    found = {}
    wanted = (
        ".//div[@id and (contains(@class, 'proof') or contains(@class, 'exercise'))]"
        " | .//div[@id and @class='math'] | .//figure[@id] | .//div[@id and @class='citation']"
    )
    for element in tree.xpath(wanted):
        shown = fragment_fromstring(tostring(element, encoding="unicode", with_tail=False))
        for inner in shown.iter():
            if isinstance(inner.tag, str):
                inner.attrib.pop("id", None)
        for link in shown.xpath(".//a[contains(@class, 'headerlink')]"):
            link.drop_tree()
        found[element.get("id")] = tostring(shown, encoding="unicode")
    for term in tree.xpath(".//dt[@id and contains(@class, 'sig')]"):
        text = term.getnext().xpath("./p[1]") if term.getnext() is not None else []
        found[term.get("id")] = f"<p><code>{term.get('id')}</code></p>" + "".join(
            f"<p>{plain(paragraph)}</p>" for paragraph in text
        )
    for section in tree.xpath(".//section[@id]"):
        first = section.xpath("./p[1]")
        heading = next((child for child in section if child.tag in ("h1", "h2", "h3", "h4")), None)
        if heading is not None and section.get("id") not in found:
            beginning = f"<p>{_beginning(first[0])}</p>" if first else ""
            found[section.get("id")] = f"<p><strong>{_beginning(heading)}</strong></p>{beginning}"
    # A label of one's own before a section or a box stands as a span within or before it.
    for span in tree.xpath(".//span[@id]"):
        parent = next(span.iterancestors("section"), None)
        if parent is not None and parent.get("id") in found:
            found.setdefault(span.get("id"), found[parent.get("id")])
    return found


def _beginning(element: Any, limit: int = 400) -> str:
    text = plain(element)
    cut = text if len(text) <= limit else text[:limit].rpartition(" ")[0] + " …"
    return cut.replace("&", "&amp;").replace("<", "&lt;")


def entries(tree: Any, page: str, chapter: str) -> Iterator[dict[str, str]]:
    """Yield what the search finds on a page: statements, exercises, sections, functions, rows."""

    def entry(group: str, kind: str, number: str, title: str, text: str, anchor: str) -> Any:
        place = f"{page}.html" + (f"#{anchor}" if anchor else "")
        return {
            "g": group,
            "k": kind,
            "n": number,
            "t": title,
            "x": text[:900],
            "p": place,
            "c": chapter,
        }

    for section in tree.xpath(".//section[@id]"):
        heading = next((child for child in section if child.tag in ("h1", "h2", "h3")), None)
        if heading is not None:
            number = "".join(heading.xpath(".//span[@class='section-number']//text()")).strip(". ")
            title = plain(heading).removeprefix(number).strip(". ")
            text = " ".join(plain(child) for child in section if child.tag in ("p", "ul", "ol"))
            if heading.tag == "h1":
                kind = "Chapter" if number else ""
                yield entry("page", kind, number, title, text, "")
            else:
                yield entry("section", "", "", title, text, section.get("id"))
    for box in tree.xpath(".//div[@id and .//span[@class='caption-number']]"):
        caption = box.xpath("./p[@class='admonition-title']")
        if caption:
            number = plain(caption[0].xpath("./span[@class='caption-number']")[0])
            kind, _, number = number.partition(" ")
            title = plain(caption[0]).removeprefix(f"{kind} {number}").strip()
            title = title.removeprefix("(").removesuffix(")")
            group = "exercise" if kind == "Exercise" else "statement"
            text = " ".join(plain(child) for child in box if child is not caption[0])
            label = {"l": box.get("id")}
            yield entry(group, kind, number, title or kind, text, box.get("id")) | label
    for term in tree.xpath(".//dt[@id and contains(@class, 'sig')]"):
        name = term.get("id")
        text = term.getnext().xpath("string(./p[1])") if term.getnext() is not None else ""
        short = name.rpartition(".")[2]
        yield entry("function", "", "", name, " ".join(text.split()), name) | {"w": short}
    for item in tree.xpath(".//li[p/em][.//a[@href]]") if page == "index" else []:
        question = plain(item.xpath("./p/em")[0])
        place = item.xpath(".//a/@href")[0]
        yield entry("answer", "", "", question, plain(item), "") | {"p": place}
    for row in tree.xpath(".//section[@id='symptoms']//tbody/tr[td]"):
        anchor = next(row.iterancestors("section")).get("id")
        yield entry("answer", "", "", plain(row[0]), plain(row), anchor)
