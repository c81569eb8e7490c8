"""Words as TeX: what the PDF of the book and the LaTeX of single statements have in common."""

import re
from collections.abc import Iterable
from typing import Any

from docutils import nodes

from bookbuild import formulas

_GREEK = (
    "alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon varphi chi psi omega"
)
_NAMES = {
    **dict(zip("αβγδεζηθικλμνξπρστυφχψω", _GREEK.split(), strict=True)),
    "Γ": "Gamma",
    "Δ": "Delta",
    "Σ": "Sigma",
    "Φ": "Phi",
    "ℓ": "ell",
    "≤": "le",
    "≥": "ge",
    "≠": "ne",
    "≈": "approx",
    "≪": "ll",
    "‖": "Vert",
    "∞": "infty",
    "→": "to",
    "⇒": "Rightarrow",
    "√": "surd",
    "−": "mathord{-}",
    "×": "times",
    "·": "cdot",
    "±": "pm",
    "∈": "in",
    "∇": "nabla",
    "∑": "sum",
    "∫": "int",
    "⊤": "top",
    "⁺": "mathord{}^+",
    "⁻": "mathord{}^-",
    "ᵀ": "mathord{}^{T}",
    "✓": "checkmark",
}
SIGNS = {sign: rf"\{name}" for sign, name in _NAMES.items()}
SIGNS |= {sign: f"{{}}_{n}" for n, sign in enumerate("₀₁₂₃₄₅₆₇₈₉")}
SIGNS |= {sign: f"{{}}^{n}" for n, sign in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SPECIAL |= {letter: f"\\{letter}" for letter in "{}$&#%_"}
_RELATION = re.compile(r"\s*(=|<|>|\\(?:le|ge|leq|geq|approx|sim)\b)")
_CONTINUES = re.compile(r"\s*&?\s*(?:\\q?quad\s*)*")
_ENVIRONMENT = re.compile(r"\\begin\{(\w+\*?)\}(.*)\\end\{\1\}", re.DOTALL)
_LAID_OUT = re.compile(r"\\\\|\\begin|&")


def escaped(text: str) -> str:
    r"""Return plain text as TeX.

    Examples
    --------
    >>> escaped("50 % of k_1")
    '50 \\% of k\\_1'
    """
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def newunicodechars() -> str:
    """Return the TeX that says what the signs of Unicode in text mean."""
    return "\n".join(
        rf"\newunicodechar{{{sign}}}{{\ensuremath{{{tex}}}}}" for sign, tex in SIGNS.items()
    )


def plain(element: Any) -> str:
    """Return the text of a node, formulas as a reader of a bookmark wants them."""
    texts = []
    for node in element.findall(nodes.Text):
        if isinstance(node.parent, nodes.math | nodes.math_block):
            found = re.sub("<[^>]*>", "", formulas.typeset(str(node), False))
            texts.append(found.replace("\u2061", ""))
        else:
            texts.append(str(node))
    return "".join(texts)


def broken(source: str, length: int, longest: int) -> str:
    r"""Return a displayed formula, broken where a line of its source begins with a relation.

    That is done only to formulas whose text is longer than `longest` and that have no layout.

    Examples
    --------
    >>> print(broken("a=b\n=c", length=99, longest=60))
    \begin{aligned}
    a&=b
    \\ &=c
    \end{aligned}
    >>> broken("a=b\n=c", length=3, longest=60)
    'a=b\n=c'
    """
    source = source.strip()
    first, *others = source.split("\n")
    if length <= longest or _LAID_OUT.search(source) or not any(map(_RELATION.match, others)):
        return source
    head, sign, rest = _parted(first)
    lines = [f"{head}&{sign}{rest}"]
    for line in others:
        lines.append(rf"\\ &{line.lstrip()}" if _RELATION.match(line) else line)
    return "\n".join([r"\begin{aligned}", *lines, r"\end{aligned}"])


def joined(source: str, widest: float) -> str:
    r"""Return a display whose rows are broken by hand with those joined that fit one line.

    Examples
    --------
    >>> print(joined(r"\begin{aligned}a&=b\\&\quad+c,\\d&=e\end{aligned}", 20))
    \begin{aligned}a&=b+c,\\d&=e\end{aligned}
    >>> print(joined(r"\begin{gathered}a=b,\\c=d\end{gathered}", 20))
    \begin{gathered}a=b,\qquad c=d\end{gathered}
    """
    display = _ENVIRONMENT.fullmatch(source.strip())
    if not display or r"\begin" in display[2]:
        return source
    rows = display[2].split(r"\\")
    between = r"\qquad " if display[1].startswith("gather") else ""
    made = ""
    for number, (row, joins) in enumerate(zip(rows, formulas.joining(source, widest), strict=True)):
        made += between + _CONTINUES.sub("", row, count=1) if joins else r"\\" * bool(number) + row
    return rf"\begin{{{display[1]}}}{made}\end{{{display[1]}}}"


def _parted(line: str) -> tuple[str, str, str]:
    """Part a line of a formula at its first relation outside all brackets."""
    depth = 0
    for at, letter in enumerate(line):
        depth += (letter in "([{") - (letter in ")]}")
        match = _RELATION.match(line, at)
        if depth == 0 and match and at:
            return line[:at], match[0], line[match.end() :]
    return "", "", line


def several_lines(source: str) -> bool:
    """Say whether a formula has line breaks outside all environments."""
    outside = re.sub(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", "", source, flags=re.DOTALL)
    return r"\\" in outside


def drop_proof_word(box: Any) -> None:
    """Take the word "Proof." from a proof, since the environment says it."""
    first = next(box.findall(nodes.paragraph), None)
    if first is None or not first.astext().startswith("Proof."):
        return
    if isinstance(first[0], nodes.Text):
        first[0] = nodes.Text(first[0].removeprefix("Proof.").lstrip())
    else:
        del first[0]
        if first.children and isinstance(first[0], nodes.Text):
            first[0] = nodes.Text(first[0].lstrip())


def swap(node: Any, new: Iterable[Any]) -> None:
    """Put nodes into the place of another one."""
    at = node.parent.index(node)
    node.parent[at : at + 1] = list(new)
