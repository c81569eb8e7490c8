"""What cells print: which lines are a table, and that nothing of them is lost."""

import pytest
from lxml import html

from bookbuild import outputs, pages


def fitted(text):
    """The box of an output with some text, made to fit."""
    box = html.fragment_fromstring('<div class="output stream"><div><pre></pre></div></div>')
    box.find(".//pre").text = text
    outputs.fit(box)
    return box


HEADED = """\
a title
  T      KL   Var token k3
  1   0.087         0.0107
200  17.442  -2.1e-05 ± 0.1
that is all"""


def test_a_header_with_rows_is_a_table_and_other_lines_are_lines():
    box = fitted(HEADED)
    assert [child.tag for child in box] == ["pre", "table", "pre"]
    cells = [[pages.plain(cell) for cell in row] for row in box.iter("tr")]
    assert cells == [
        ["T", "KL", "Var token k3"],
        ["1", "0.087", "0.0107"],
        ["200", "17.442", "-2.1e-05 ± 0.1"],
    ]
    assert [line.text for line in box.iter("span")] == ["a title\n", "that is all\n"]
    assert "printed" in box.get("class").split()


def test_a_header_that_comes_again_begins_another_table():
    text = (
        "p = N(0, 1)  exact  mean\nk1  1  2\nk3  3  4\np = N(1, 1)  exact  mean\nk1  5  6\nk3  7  8"
    )
    assert [len(table.findall(".//tr")) for table in fitted(text)] == [3, 3]


def test_a_header_may_have_no_name_for_the_first_column_and_numbers_that_are_names():
    assert outputs.table(["         10  1e-03", "one   1.5    2.5", "two   3.5    4.5"]) == [
        ["", "10", "1e-03"],
        ["one", "1.5", "2.5"],
        ["two", "3.5", "4.5"],
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ["k1  mean 0.50  s.d. 0.03", "k3  mean 0.51  s.d. 0.04", "k2  mean 0.51  s.d. 0.04"],
        ["c = 0  variance  7.5", "c = 1  variance  0.1", "c = R  variance  209.4"],
        ["     KL   error of both ways", "5e-05  1e-3  1e-4", "5e-09  1e-3  1e-4"],
        ["k1  +0.3  -0.1", "k2  +0.0  -0.1", "k3  +0.0  -0.1"],
        ["n =   1: cos 0.3", "n =   4: cos 0.9", "n =  16: cos 0.9"],
        ["T  KL  Var", "1  2  3"],
        ["one line"],
    ],
    ids=["words", "no header", "too few names", "results", "two cells", "one row", "a line"],
)
def test_what_has_no_header_is_no_table(lines):
    assert outputs.table(lines) == []
    text = "\n".join(lines)
    assert fitted(text).text_content() == f"{text}\n", "no sign of it is lost"
