"""Formulas as MathML: what is set, where a line may be broken, which letters the font has."""

import re
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont
from lxml import etree
from math_core import LatexError

from bookbuild import fonts, formulas


def pieces(tex, display=False):
    """The texts between which a line may be broken."""
    whole = etree.fromstring(f"<p>{formulas.typeset(tex, display)}</p>")
    return ["".join(math.itertext()).replace("\u2061", "") for math in whole]


@pytest.mark.parametrize(
    ("tex", "wanted"),
    [
        ("r=1", ["r=1"]),
        (r"\mathrm{KL}(q\|p)=\mathbb{E}_q[k_1]", ["KL(q‖p)", "=𝔼q[k1]"]),
        (r"a+b+c\le d+e+f+g", ["a+b+c", "≤d+e+f+g"]),
        (r"(a\le b)(c=d)(e=f)", ["(a≤b)(c=d)(e=f)"]),
        # The bracket that carries a power closes what was opened.
        (r"\mathbb{E}[(\log r)^+]\le\frac1e,t\ge0", ["𝔼[(logr)+]", "≤1e,", "t≥0"]),
        (r"\displaystyle\mathrm{Var}(S)=\sum_tV_t", ["Var(S)", "=∑tVt"]),
        (r"abcdefgh+ijklmnop-qrstuvw", ["abcdefgh", "+ijklmnop", "−qrstuvw"]),
    ],
)
def test_lines_may_be_broken_at_relations_outside_brackets(tex, wanted):
    assert pieces(tex) == wanted


def test_what_stands_first_in_a_piece_keeps_its_spaces():
    second = etree.fromstring(f"<p>{formulas.typeset('aaaaaaaa=bbbbbbbb', False)}</p>")[1]
    assert (second[0].text, second[0].get("form")) == ("=", "infix")


def test_displays_are_displays():
    assert 'displaystyle="true"' in formulas.typeset(r"\sum_i x_i", True)
    assert formulas.typeset(r"a\\b", True).count("<mtr>") == 2
    assert formulas.typeset(r"\begin{align}a&=b\\c&=d\end{align}", True).count("<mtr>") == 2


def test_styles_become_classes_that_the_style_sheet_has():
    tex = r"\begin{align*}a&=\!b\\c&=\begin{cases}1&d\\0&e\end{cases}\end{align*}"
    found = formulas.typeset(tex, True) + formulas.typeset(
        r"\begin{multline*}a\\b\end{multline*}", True
    )
    assert " style=" not in found
    css = (Path(formulas.__file__).parent / "theme/static/book.css").read_text(encoding="utf-8")
    used = {name for names in re.findall(r'class="([^"]+)"', found) for name in names.split()}
    assert used == set(formulas.CLASSES.values()) - {""}
    assert [name for name in used if not re.search(rf"\bm\w+\.{name} \{{", css)] == []


def test_a_style_without_a_class_is_refused():
    with pytest.raises(ValueError, match="add it to CLASSES"):
        formulas.typeset(r"\color{red}a", False)


def test_a_display_is_broken_before_implications():
    whole = etree.fromstring("<p>" + formulas.typeset(r"a<b\iff c<d\iff e<f", True) + "</p>")
    texts = ["".join(part.itertext()) for part in whole]
    assert [text.replace(" ", "") for text in texts] == ["a<b", "⟺c<d", "⟺e<f"]


def test_a_display_is_broken_at_wide_spaces_first():
    whole = etree.fromstring("<p>" + formulas.typeset(r"a=b,\qquad c=d", True) + "</p>")
    assert [part.get("class") for part in whole] == ["part", "part"]
    assert not whole.xpath(".//mspace"), "the space is that between the parts"


def test_a_formula_that_is_not_understood_raises():
    with pytest.raises(LatexError):
        formulas.typeset(r"\nosuchcommand", False)


def test_the_font_has_the_letters_of_the_formulas_and_is_the_same_every_time(tmp_path):
    page = "<p>é " + formulas.typeset(r"\mathbb{E}[\lambda^*]\ne\sqrt\chi h", False) + "</p>"
    sizes = []
    for name in ("one", "two"):
        fonts.write_subset(tmp_path / name, [page])
        sizes.append((tmp_path / name / fonts.NAME).read_bytes())
    assert sizes[0] == sizes[1]
    letters = TTFont(tmp_path / "one" / fonts.NAME).getBestCmap()
    assert {ord(c) for c in "𝔼λ≠χ√𝜆𝜒ℎ"} <= set(letters), "variables are set in italics"
    assert ord("é") not in letters, "only what formulas use"
    assert "Open Font License" in (tmp_path / "one/LICENCE.txt").read_text()
    assert not re.search(r"\d{4}-\d\d-\d\d", (tmp_path / "one/LICENCE.txt").read_text())
