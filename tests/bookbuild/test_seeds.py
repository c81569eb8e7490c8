"""Assertions are run with other seeds; one that holds for its own seed by luck is named."""

import ast
import json

import numpy as np
import pytest

from bookbuild import rules, seeds

CELLS = [
    "import numpy as np\nfrom klapprox.book import figures, verify\nimport sympy as sp",
    "raise RuntimeError('a cell that no random assertion needs')",
    "limit = 2  # read by a cell with random numbers",
    "rng = np.random.Generator(np.random.PCG64(4))\nx = rng.random(1000)",
    # It holds for the seed of the notebook, and for few others.
    """
assert x[0] > 0.94, "by luck"
assert x.max() < limit
for part in np.split(x, 2):
    error = part.std() / np.sqrt(500)
    assert abs(part.mean() - 1 / 2) < 4 * error
np.testing.assert_array_less(x, 1)
assert 1 + 1 == 2""",
    """
few = sp.Integer(int(np.random.default_rng(1).integers(2)))
verify.check(
    "thm-small",
    verify.at_most("at most 1", few, 1),
    verify.equal("always 0", few, 0),
    verify.equal("no random number", sp.Integer(1), 1),
    scope="some numbers",
)
x = 1
assert x == 2 - 1""",
]
TESTS = """
import numpy as np
import pytest

RNG = np.random.Generator(np.random.PCG64(4))
DATA = RNG.random(1000)


def test_exact():
    assert 1 + 1 == 2


@pytest.fixture
def mean():
    return np.mean(np.random.default_rng(1).random(1000))


@pytest.mark.parametrize("part", [0, 500])
def test_mean(part):
    some = DATA[part:][:500]
    assert some.max() < 1
    assert abs(some.mean() - 1 / 2) < 5 * some.std() / np.sqrt(500)


def test_by_luck(mean):
    assert 0 < mean < 1
    assert mean < 1 / 2 + 1 / 1000
"""


@pytest.fixture
def chapter(tmp_path):
    cells = [{"cell_type": "markdown", "source": "# Small\n\n## Part"}]
    cells += [{"cell_type": "code", "source": source.strip()} for source in CELLS]
    path = tmp_path / "small.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    return path


def by_text(found):
    return {one.text: number for number, one in enumerate(found.assertions)}


def test_an_assertion_that_holds_by_luck_is_named(chapter):
    first, second = seeds.programs(chapter)
    assert ([cell for cell, _ in first.before], [cell for cell, _ in first.cells]) == (
        [1, 3],
        [4, 5],
    )
    found = seeds.sweep(first, range(1, 41))
    number = by_text(found)
    assert set(number) == {
        "x[0] > 0.94",
        "x.max() < limit",
        "abs(part.mean() - 1 / 2) < 4 * error",
        "np.testing.assert_array_less(x, 1)",
    }
    assert (found.seeds, found.stopped) == (40, {})
    assert found.failed[number["x[0] > 0.94"]] >= 30  # 94 % of the seeds
    assert [found.lucky(number[text]) for text in number] == [True, False, False, False]
    assert found.failed.total() == found.failed[number["x[0] > 0.94"]]
    means = number["abs(part.mean() - 1 / 2) < 4 * error"]
    assert found.most[means] == 2
    assert found.expected(means) == pytest.approx(4 * 3.167e-5, rel=1e-3)
    luck, *others = str(found).splitlines()
    assert luck.startswith("small | Part | cell 5, line 1 | x[0] > 0.94 | failed with ")
    assert luck.endswith("| BY LUCK")
    assert not any("LUCK" in line for line in others)
    # Each claim by itself.
    found = seeds.sweep(second, range(1, 41))
    assert {text: found.lucky(n) for text, n in by_text(found).items()} == {
        "'at most 1'": False,
        "'always 0'": True,
        "'no random number'": False,
    }


def test_its_own_seed_is_seed_0(chapter):
    found = seeds.sweep(seeds.programs(chapter)[0], [0])
    assert found.failed.total() == 0


def test_a_cell_that_stops_is_told(chapter):
    chapter.write_text(chapter.read_text().replace("assert 1 + 1 == 2", "1 / 0"))
    found = seeds.sweep(seeds.programs(chapter)[0], [1, 2])
    assert list(found.stopped.values()) == [2]
    assert "cell 5: ZeroDivisionError" in str(found)
    chapter.write_text(chapter.read_text().replace("limit = 2", "limit = 1 / 0"))
    found = seeds.sweep(seeds.programs(chapter)[0], [1, 2, 3])
    assert found.stopped == {"a cell without random numbers failed": 3}


def test_tests_are_run_too(tmp_path):
    path = tmp_path / "test_small.py"
    path.write_text(TESTS, encoding="utf-8")
    assert seeds.drawing_tests(tmp_path, [path]).nodes == ["test_small.py::test_mean"]
    small = seeds.drawing_tests(tmp_path, [path], ["test_by_luck"])
    assert small.nodes == ["test_small.py::test_mean", "test_small.py::test_by_luck"]
    found = seeds.sweep(small, range(1, 9))
    assert (found.seeds, found.stopped) == (8, {})
    assert [one.text for n, one in enumerate(found.assertions) if found.lucky(n)] == [
        "mean < 1 / 2 + 1 / 1000"
    ]
    assert found.failed.total() in range(1, 8)  # the mean is 4


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("abs(x.mean() - 1) < 5 * se", 5),
        ("np.all(abs(x - y) <= 4 * std_error)", 4),
        ("first or abs(x - y) < 3 * x.std() / np.sqrt(n) + 1e-9", 3),
        ("abs(z) < 4", 4),
        ("abs(z) < 1", None),
        ("abs(z) > 4", None),
        ("z < 4", None),
        ("abs(x - y) < 2 * bound", None),
        ("0.9 < share < 0.95", None),
    ],
)
def test_an_assertion_says_how_often_it_fails(text, errors):
    said = seeds.chance(ast.parse(text, mode="eval").body)
    wanted = {None: 0, 3: 2.70e-3, 4: 6.33e-5, 5: 5.73e-7}[errors]
    assert said == pytest.approx(wanted, rel=2e-3)


@pytest.mark.parametrize(
    ("code", "random"),
    [
        ("x = np.random.PCG64(1)\nassert x", True),
        ("x = np.random.PCG64(1)\nx = 1\nassert x", False),
        ("x = np.random.PCG64(1)\nassert all(x for x in y)", False),
        ("x = np.random.PCG64(1)\nassert all(y for y in x)", True),
        ("def f(x):\n    return np.random.default_rng(x)\nassert f(1)", True),
        ("x = np.random.PCG64(1)\ndef f(x):\n    return x\nassert f(1)", False),
        ("x, y = np.random.PCG64(1), 1\nassert y", False),
        ("x = {}\nx[1] = np.random.PCG64(1)\nassert x[1]", True),
        ("x = []\nx.append(np.random.PCG64(1))\nassert x", True),
        ("y = 0\nx = np.random.PCG64(1)\nfor z in x:\n    y += z\nassert y", True),
        ("y = 0\nfor z in u:\n    assert y\n    y = np.random.PCG64(z)", True),
        ("y = 0\nx = np.random.PCG64(1)\nif x:\n    y = 1\nassert y", True),
        ("x = np.random.PCG64(1)\nif u:\n    x = 1\nassert x", True),
        ("with np.random.PCG64(1) as x:\n    assert x", True),
        ("x = np.random.PCG64(1)\nprint(y, x)\nassert y", False),
    ],
)
def test_what_reads_random_numbers(code, random):
    randomness = seeds.Randomness()
    randomness.run(ast.parse(code).body)
    assert bool(randomness.found) == random


def test_the_packages_own_seeds_stay():
    def drawn():
        return np.random.default_rng(1).random()

    before = drawn()
    with seeds.other_seeds(1, ["/nowhere"]):
        assert drawn() == before
    with seeds.other_seeds(1, [__file__]):
        other = drawn()
        children = np.random.SeedSequence(5).spawn(2)
        pair = [np.random.Generator(np.random.PCG64(child)).random() for child in children]
    with seeds.other_seeds(2, [__file__]):
        assert len({before, other, drawn(), *pair}) == 5
    assert drawn() == before


def test_fewer_draws_are_said_where_a_chapter_has_them(chapter):
    fewer = {"old": "random(1000)", "new": "random(10)", "why": "a reason"}
    assert seeds.programs(chapter, [fewer])
    for wrong in ({"old": "random(1001)"}, {"old": "import"}, {"why": ""}):
        with pytest.raises(seeds.SeedsError, match="does not occur once, or has no why"):
            seeds.programs(chapter, [fewer | wrong])


def test_the_book_is_covered():
    draw = {path.stem for path in rules.NOTEBOOKS if "PCG64" in path.read_text(encoding="utf-8")}
    assert set(seeds.smaller()) <= draw | {"tests"}
    places = list(seeds.places())
    assert {place.name for place in places} == draw | {"tests"}
    nodes = [node.split("::")[1] for node in places[-1].nodes]
    assert {entry["name"] for entry in seeds.smaller()["tests"]} <= set(nodes)
