"""Displays broken by hand: which of their lines join, how wide a box has to be, what is read."""

import pytest
from lxml import etree

from bookbuild import formula_lines, formulas, tex


def display(source):
    """The tree of a display."""
    return etree.fromstring(f"<div>{formulas.typeset(source, True)}</div>")


def aligned(*rows):
    return r"\begin{aligned}" + r"\\".join(rows) + r"\end{aligned}"


def turns(source):
    """The classes of the breaks of a display."""
    return display(source).xpath(".//span[contains(@class, 'turn')]/@class")


LONG = "".join(map(chr, range(97, 123)))  # some fourteen em


def test_rows_that_go_on_have_a_break_that_goes_in_a_wide_box():
    assert turns(aligned("a&=b", r"&\quad+c", "&=d")) == ["turn in1 at16", "turn at16"]
    assert turns(aligned(f"{LONG}&={LONG}", "&=d")) == ["turn at32"]


def test_rows_that_begin_anew_stay_lines():
    assert not turns(aligned("a&=b,", "c&=d,"))
    assert display(aligned("a&=b,", "c&=d,")).xpath(".//mtable"), "nothing to join: a table"
    whole = display(aligned("a&=b,", "c&=d", "&=e,"))
    assert turns(aligned("a&=b,", "c&=d", "&=e,")) == ["turn at16"]
    cells = ["".join(cell.itertext()) for cell in whole[0]]
    assert cells == ["a", "=b,", "c", "=d=e,"]


def test_what_comes_before_the_first_relation_is_the_left_side():
    (lines,) = display(aligned("&a", r"&\quad+b", r"&\qquad=c", "&=d"))
    assert lines.get("class") == "lines stack at16"
    assert ["".join(cell.itertext()) for cell in lines] == ["a+b", "=c=d"]
    assert turns(aligned("&a", r"&\qquad=c")) == ["turn in2 at16"], "a space, but no break"


def test_where_not_all_fit_relations_stay_and_stand_below_each_other():
    (lines,) = display(aligned("&a", f"&={LONG}", f"&={LONG}", r"&\quad+c", f"&={LONG}"))
    assert lines.get("class") == "lines stack at20"
    assert [one.get("class") for one in lines[1].iter("span")][1:] == [
        "turn",
        "turn in1 at20",
        "turn",
    ]


def test_gathered_rows_stand_next_to_each_other():
    assert turns(r"\begin{gathered}a=b,\\c=d\end{gathered}") == ["turn at16"]
    wide = rf"\begin{{gathered}}{LONG}={LONG}\\{LONG}={LONG}\end{{gathered}}"
    assert turns(wide) == []


@pytest.mark.parametrize(
    ("row", "first"),
    [(r"&\quad+b", ("+", "form", "infix")), (r"&\big\|\,b", ("‖", "lspace", "0.17em"))],
)
def test_what_stands_first_in_a_line_keeps_its_space_when_joined(row, first):
    last = display(aligned("&a", row)).findall(".//math")[-1][0]
    assert (last.text, *(item for item in last.items() if item[0] == first[1])) == (
        first[0],
        first[1:],
    )


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("abc", 1.49),
        ("a=b", 2.35),
        (r"\frac{abc}{d}", 1.60),
        (r"\tfrac{abc}{d}", 1.15),
        ("x_{abc}", 1.64),
        (r"\mathrm{KL}(q\,\|\,p)", 3.88),
    ],
)
def test_widths_are_about_what_a_browser_measures(source, wanted):
    assert formula_lines._width(display(source)) == pytest.approx(wanted, rel=0.12)


def test_on_paper_lines_join_too():
    source = aligned("a&=b", r"&\quad+c,", "d&=e", "&=f")
    assert tex.joined(source, 30) == aligned("a&=b+c,", "d&=e=f")
    assert tex.joined(source, 1) == source
    source = aligned("a&=b", "&=c", r"&\quad+d")
    assert tex.joined(source, 4) == aligned("a&=b", "&=c+d"), "relations stay where not all fit"
    cases = r"f=\begin{cases}a\\b\end{cases}"
    assert tex.joined(cases, 30) == cases
    assert tex.joined("a=b", 30) == "a=b"
