"""Formulas, set as MathML when the book is built: pages need no script for them and no wait.

A long formula comes as several ``<math>`` elements, cut at its relations, so that it can be broken
there on a narrow screen; Chromium breaks no line inside one.
"""

import functools
import html
import re
from typing import Any

from docutils import nodes
from lxml import etree
from math_core import LatexError, LatexToMathML
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

from bookbuild import formula_lines
from bookbuild.formula_lines import RELATIONS

IMPLICATIONS = frozenset("⟹⟺⟸⇒⇔")
SUMS = frozenset("+−")
PRIMES = frozenset("′″‴")
OPENING, CLOSING = frozenset("([{⟨⌊⌈"), frozenset(")]}⟩⌋⌉")
SHORT = 9  # a formula of at most so many characters is not cut
LONG = 12  # a piece of more characters than this is also cut at its sums
# Classes for the styles that math-core writes into elements: the page's policy forbids those.
CLASSES = {
    "text-align:right": "to-right",
    "justify-items:end": "",  # to-right says this, too
    "text-align:left": "to-left",
    "justify-items:start": "",
    "padding-right:0": "close-right",
    "padding-left:0": "close-left",
    "padding-left:1em": "apart",
    "width:100%": "whole",
    "width:50%": "half",
    "width:7.5%": "edge",
    "margin-left:-0.16666667em": "back",  # \!
}

_NUMBERED = re.compile(r"\\(begin|end)\{(align|gather|equation)\}")
_NAMED = re.compile(r"&(?!(?:lt|gt|amp|quot);)\w+;")


@functools.cache
def _converter() -> LatexToMathML:
    return LatexToMathML()


@functools.cache
def typeset(tex: str, display: bool) -> str:
    """Return a formula as one or more ``<math>`` elements.

    Raises
    ------
    math_core.LatexError
        If the formula is not understood.
    ValueError
        If it has a style for which there is no class.
    """
    root = _tree(tex, display)
    lines = formula_lines.of_table(root[0]) if display and _is_table(root) else None
    if lines:
        return lines
    if len(root) == 1 and root[0].tag in ("mrow", "mstyle"):  # \displaystyle before all
        display = display or root[0].get("displaystyle") == "true"
        root = root[0]
    parts = _parts(list(root)) if display else [list(root)]
    set_parts = [_set_part(part, display) for part in parts]
    if len(parts) == 1:
        return set_parts[0]
    return "".join(f'<span class="part">{part}</span>' for part in set_parts)


def _tree(tex: str, display: bool) -> Any:
    """Return the ``<math>`` element of a formula."""
    tex = _NUMBERED.sub(r"\\\1{\2*}", tex).strip()
    if display and r"\\" in tex and r"\begin" not in tex:
        tex = rf"\begin{{gather*}}{tex}\end{{gather*}}"
    whole = _converter().convert_with_local_state(tex, displaystyle=display)
    root = etree.fromstring(_NAMED.sub(lambda match: html.unescape(match[0]), whole))
    _respace(root)
    _name_styles(root)
    return root


def _is_table(root: Any) -> bool:
    return len(root) == 1 and root[0].tag == "mtable"


def joining(tex: str, widest: float) -> list[bool]:
    """Return for each row of a display whether it fits behind the one above, in a line so wide.

    Parameters
    ----------
    tex : str
    widest : float
        How long a line is, in em of the formula. A display that is no table has one row.
    """
    root = _tree(tex, True)
    return formula_lines.which_join(root[0], widest) if _is_table(root) else [False]


def _respace(root: Any) -> None:
    """Set what fonts leave too small or too close: primes, and a bar before a mean."""
    for scripts in root.xpath(".//msup | .//msubsup"):
        prime = scripts[-1]
        if prime.tag != "mo" or not prime.text or set(prime.text) - PRIMES:
            continue
        # The font's prime stands high already; as a power it would be raised and shrunk again.
        prime.set("lspace", "0.05em")
        prime.set("rspace", "0")
        row = etree.Element("mrow")
        whole = etree.Element("msub") if scripts.tag == "msubsup" else row
        whole.tail, scripts.tail = scripts.tail, None
        scripts.getparent().replace(scripts, whole)
        base, *index, _ = scripts
        row.extend([base, prime])
        if index:
            whole.extend([row, *index])
    for bar in root.xpath(".//mo[@form='prefix'][text()='|']"):
        bar.set("rspace", "0.1em")


def _name_styles(root: Any) -> None:
    """Put classes, for which there is a style sheet, in the place of styles."""
    for styled in root.xpath(".//*[@style]"):
        said = re.sub(r"\s", "", styled.attrib.pop("style")).strip(";").split(";")
        if unknown := [one for one in said if one not in CLASSES]:
            raise ValueError(
                f"{styled.tag} has the style {unknown}: add it to CLASSES and book.css"
            )
        styled.set("class", " ".join(CLASSES[one] for one in said if CLASSES[one]))


def _parts(children: list[Any]) -> list[list[Any]]:
    """Cut a row where a line is broken first: at wide spaces and before implications."""
    parts: list[list[Any]] = [[]]
    for child in children:
        implies = child.tag == "mo" and child.text in IMPLICATIONS
        if (implies or _is_wide(child)) and parts[-1]:
            parts.append([])
        if implies:
            child.set("form", "infix")
        if not _is_wide(child):
            parts[-1].append(child)
    return [part for part in parts if part]


def _is_wide(child: Any) -> bool:
    return child.tag == "mspace" and float(child.get("width", "0").rstrip("em") or 0) >= 1


def _set_part(children: list[Any], display: bool) -> str:
    """Return a row as ``<math>`` elements between which a line may be broken."""
    pieces = _pieces(children)
    for piece in pieces[1:]:
        if piece[0].tag == "mo" and piece[0].text in RELATIONS | SUMS:
            piece[0].set("form", "infix")  # it stands first now, but keeps its spaces
    return "".join(etree.tostring(_math(piece, display), encoding="unicode") for piece in pieces)


def _math(children: list[Any], display: bool) -> Any:
    """Return a ``<math>`` element of these children."""
    math = etree.Element("math")
    if display:
        math.set("displaystyle", "true")
    math.extend(children)
    return math


def _pieces(children: list[Any]) -> list[list[Any]]:
    """Return the children of a formula in groups between which a line may be broken."""
    if _length(children) <= SHORT:
        return [children]
    pieces = _cut(children, RELATIONS)
    return [
        part
        for piece in pieces
        for part in (_cut(piece, SUMS) if _length(piece) > LONG else [piece])
    ]


def _cut(children: list[Any], before: frozenset[str]) -> list[list[Any]]:
    """Cut a row before some operators, and behind commas and wide spaces, outside all brackets."""
    pieces: list[list[Any]] = [[]]
    depth = 0
    for child in children:
        text = child.text if child.tag == "mo" else None
        if depth == 0 and text in before and _length(pieces[-1]) > 1:
            pieces.append([])
        for sign in child.iter("mo"):
            depth += (sign.text in OPENING) - (sign.text in CLOSING)
        pieces[-1].append(child)
        if depth == 0 and (_is_wide(child) or text == ","):
            pieces.append([])
    return [piece for piece in pieces if piece]


def _length(piece: list[Any]) -> int:
    return sum(len("".join(child.itertext()).replace("\u2061", "")) for child in piece)


def _set(node: Any, tex: str, display: bool) -> str:
    """Return a formula as MathML; where that fails, warn and return its source."""
    try:
        return typeset(tex, display)
    except LatexError as error:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
        logging.getLogger(__name__).warning("formula not set: %s\n%s", tex, plain, location=node)
        return html.escape(tex)


def visit_inline(translator: Any, node: Any) -> None:
    """Write a formula in a sentence."""
    translator.body.append(f'<span class="math">{_set(node, node.astext(), False)}</span>')
    raise nodes.SkipNode


def visit_display(translator: Any, node: Any) -> None:
    """Write a displayed formula, with its number where it has one."""
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    if node["number"]:
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append(f'<div class="formula">{_set(node, node.astext(), True)}</div></div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Make this the renderer of formulas."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
