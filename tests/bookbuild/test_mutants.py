"""Mutants fit the checks of the book; on a small notebook, the tool tells what becomes of them."""

import json
import subprocess
import sys

import pytest

from bookbuild import mutants, rules
from bookbuild.mutants import Chapter, Mutant, MutantError

CHECKED = [path for path in rules.NOTEBOOKS if Chapter.read(path).checks]

CELLS = [
    """
import sympy as sp
from klapprox.book import symbolic, verify
from klapprox.book.symbolic import FinitePair""",
    "raise RuntimeError('a cell that the check does not need')",
    "pair = FinitePair.generic(2)",
    """
assert len(pair.q) == 2
x = sp.Symbol("x", positive=True)
verify.check(
    "thm-small",
    verify.equal("E k₃ = KL", pair.mean(symbolic.k3), pair.kl),
    verify.less_than("log 2 < 0.7", sp.log(2), sp.Rational(7, 10)),
    verify.at_most("x ≤ 2x", x, 2 * x),
    scope="two points",
)""",
    'verify.check("thm-small", verify.equal("log 4", sp.log(4), 2 * sp.log(2)), scope="a number")',
]


@pytest.fixture
def book(tmp_path):
    """A folder with one small notebook, and a function that gives it mutants."""
    cells = [
        {
            "cell_type": "code",
            "source": source.strip(),
            "outputs": [],
            "metadata": {},
            "execution_count": None,
        }
        for source in CELLS
    ]
    (tmp_path / "small.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")

    def write(text):
        (tmp_path / "small.toml").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def entry(what, old, new, more=""):
    return f"[[thm-small]]\nwhat = '{what}'\nold = '''{old}'''\nnew = '''{new}'''\n{more}\n"


def test_every_chapter_has_its_file():
    files = {path.stem for path in mutants.FOLDER.glob("*.toml")}
    assert files == {path.stem for path in CHECKED}


@pytest.mark.parametrize("path", sorted(mutants.FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_mutant_applies_and_every_check_has_two(path):
    found, reasons = mutants.read(path)
    chapter = Chapter.read(mutants.ROOT / "chapters" / f"{path.stem}.ipynb")
    assert mutants.faults(found, reasons, chapter) == []


def test_the_cells_that_a_check_needs(book):
    chapter = Chapter.read(book("") / "small.ipynb")
    assert chapter.checks == {"thm-small": [3, 4]}
    assert mutants.needed(chapter.sources, 3) == [0, 2]
    assert mutants.needed(chapter.sources, 4) == [0]


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["a = 1", "b = 1", "a"], [0]),
        (["a = 1", "a = 2", "a"], [1]),
        (["a = 1", "a += 1", "a"], [0, 1]),
        (["a = []", "a.append(1)", "a"], [0, 1]),
        (["a = {}", "a['x'] = 1", "b = len(a)", "b"], [0, 1, 2]),
        (["import m", "m.n.digits = 30", "m.sqrt(2)"], [0, 1]),
        (["a = 1", "def f():\n    return a", "f()"], [0, 1]),
        (["def f():\n    return a", "a = 1", "f()"], [0, 1]),
        (["a = 1", "[a for a in range(3)]"], []),
        (["a = 1", "[a for b in range(3)]"], [0]),
        (["a = 1", "(lambda a: a)(2)"], []),
    ],
)
def test_needed_cells(cells, found):
    assert mutants.needed(cells, len(cells) - 1) == found


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("absent", "present", "occurs 0 times"),
        ("verify.equal(", "verify.differ(", "occurs 2 times"),
        ("", "x", "is empty"),
        ("sp.log(2), sp.Rational(7, 10)", "sp.log(2, sp.Rational(7, 10)", "("),
        ("sp.Rational(7, 10)", "sp.Rational( 7, 10 )", "nothing is changed"),
    ],
)
def test_a_mutant_that_does_not_fit_is_a_fault(book, old, new, found):
    folder = book("")
    chapter = Chapter.read(folder / "small.ipynb")
    two = [Mutant("thm-small", what, "log(4)", f"log({what})") for what in "56"]
    assert mutants.faults(two, {}, chapter) == []
    faults = mutants.faults([*two, Mutant("thm-small", "x", old, new)], {}, chapter)
    assert len(faults) == 1
    assert found in faults[0]


def test_too_few_mutants_and_idle_reasons_are_faults(book):
    chapter = Chapter.read(book("") / "small.ipynb")
    one = Mutant("thm-small", "5", "log(4)", "log(5)")
    assert mutants.faults([one], {}, chapter) == ["thm-small: 1 mutants and no reason"]
    assert mutants.faults([one], {"thm-small": "one number"}, chapter) == []
    assert "a reason, but" in mutants.faults([one, one], {"thm-big": "none"}, chapter)[1]
    assert "twice" in mutants.faults([one, one], {}, chapter)[0]
    elsewhere = Mutant("thm-big", "5", "log(4)", "log(5)")
    assert "no check of small.ipynb" in mutants.faults([one, one, elsewhere], {}, chapter)[1]


@pytest.mark.parametrize(
    ("old", "source", "found"),
    [
        ("f(a, c)", "f(\n    a,\n    c,\n)", "X"),
        ("f(a, c,)", "f(  a, c )", "X"),
        ("a in x", "a\nin x", "X"),
        ("a in x", "a inx", None),
        ("k1", "xk1 + k1 + k1x + k11", "xk1 + X + k1x + k11"),
        ('f("a b")', 'f(\n  "a b"\n)', "X"),
        ('f("a b")', 'f("a  b")', None),
        ("[0])", "g([0], 1) + g(\n[0],\n)", "g([0], 1) + g(\nX"),
        ("- x", "b -x", "b X"),
    ],
)
def test_a_formatter_may_break_lines(old, source, found):
    changed = mutants._pattern(old).sub("X", source)
    assert changed == (source if found is None else found)


@pytest.mark.parametrize(
    "text",
    [
        "[[thm-small]]\nwhat = 'x'\nold = 'a'",
        "[[thm-small]]\nwhat = 'x'\nold = 'a'\nnew = 'b'\nnewer = 'c'",
        "[[thm-small]]\nwhat = 'x'\nold = 'a'\nnew = 'b'\nof = 'verify'",
        "[[thm-small]\n",
    ],
)
def test_a_file_that_says_something_else_is_refused(book, text):
    with pytest.raises(MutantError, match=r"small\.toml"):
        mutants.read(book(text) / "small.toml")


def run(folder, *arguments):
    """Return the exit status and the lines that the command prints on a small book."""
    command = [sys.executable, "-m", "bookbuild.mutants", "--folder", folder, "--chapters", folder]
    result = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, cwd=mutants.ROOT, check=False
    )
    return result.returncode, (result.stdout + result.stderr).splitlines()


KILLED = (
    entry("KL for K", "pair.mean(symbolic.k3), pair.kl", "pair.mean(symbolic.k3), pair.reverse_kl")
    + entry("asserted", "len(pair.q) == 2", "len(pair.q) == 3")
    + entry("log 3", "log(4), 2", "log(3), 2")
    + entry("k3 = r - log r", "return r - 1 - log_r", "return r - log_r", 'of = "symbolic"')
)
UNPROVED = entry("x ≤ x²", "x, 2 * x", "x, x**2") + entry(
    "x ≤ y", "x, 2 * x", 'x, x + 1 - sp.Symbol("y", positive=True)'
)


def test_killed_mutants_are_reported_with_what_killed_them(book):
    status, lines = run(book(KILLED + UNPROVED))
    assert status == 0, lines
    fates = {line.split(" | ")[1]: line.split(" | ")[2] for line in lines if "|" in line}
    assert fates.pop("KL for K").startswith("killed: E k₃ = KL: case 1 of 1: not equal")
    assert fates.pop("asserted") == "killed: assert in line 1"
    assert fates.pop("log 3").startswith("killed: log 4: ")
    assert fates.pop("k3 = r - log r").startswith("killed: E k₃ = KL: ")
    assert fates.pop("x ≤ x²").startswith("killed: x ≤ 2x: case 1 of 1: false at a test point")
    assert fates.pop("x ≤ y").startswith("unproved: x ≤ 2x: case 1 of 1: could not be proved")
    assert not fates
    assert lines[-1] == "6 mutants, 6 killed (1 because a claim could no longer be proved)"


def test_survivors_and_broken_mutants_fail(book):
    text = (
        KILLED
        + entry("a weaker bound survives", "sp.Rational(7, 10)", "sp.Rational(8, 10)")
        + entry("two sides that do not fit", "sp.log(4), 2", "[sp.log(4)] * 2, [1] * 3 + [2]")
        + entry("another error", "sp.log(2), sp", "sp.logarithm(2), sp")
        + entry("no end", 'x = sp.Symbol("x"', 'while True: pass\nx = sp.Symbol("x"')
        + entry("no such text", "absent", "present")
    )
    status, lines = run(book(text), "thm-small", "--limit", "3")
    assert status == 1
    assert lines[-1] == "9 mutants, 4 killed"
    assert "1 survive, 4 are broken" in lines[-2]
    assert any("a weaker bound survives | survives" in line for line in lines)
    assert any("another error | broken: AttributeError" in line for line in lines)
    assert any("no end | broken: no end in 3 s" in line for line in lines)


def test_a_check_that_fails_as_it_is_kills_nothing(book):
    folder = book(KILLED)
    path = folder / "small.ipynb"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("2 * sp.log(2)", "3 * sp.log(2)"), encoding="utf-8")
    text = KILLED.replace("log(4), 2", "log(4), 3").replace("log(3), 2", "log(3), 3")
    status, lines = run(book(text))
    assert status == 1
    assert sum("the check itself fails: VerificationError" in line for line in lines) == 1
    assert lines[-1] == "4 mutants, 3 killed"


def test_names_choose_mutants(book):
    other = entry("other", "log(4)", "log(5)").replace("thm-small", "thm-other")
    folder = book(KILLED + other)
    assert [len(found) for _, found in mutants.chosen([], folder, folder)] == [5]
    assert [len(found) for _, found in mutants.chosen(["small"], folder, folder)] == [5]
    assert [len(found) for _, found in mutants.chosen(["thm-other"], folder, folder)] == [1]
    with pytest.raises(MutantError, match="no mutants of thm-none"):
        mutants.chosen(["thm-none", "thm-other"], folder, folder)
