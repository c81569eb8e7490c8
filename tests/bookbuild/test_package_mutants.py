"""Mutants of the package: what is changed, how a module becomes one, what the list must say."""

import functools
import subprocess
import sys
import types
from pathlib import Path

import pytest

from bookbuild import package_mutants
from bookbuild.package_mutants import ListError, chosen, graft, put, read

ROOT = Path(__file__).resolve().parents[2]
MUTMUT = ROOT / ".venv" / "mutmut"  # there once `make mutants-package` has run
needs_mutmut = pytest.mark.skipif(not MUTMUT.exists(), reason="make mutants-package has not run")


def test_every_module_that_is_named_has_tests_and_every_listed_mutant_is_about_its_lines():
    modules = read()
    assert {"estimators", "losses", "vocabulary", "exact/families"} <= {m.name for m in modules}
    for module in modules:
        assert module.tests, module.name
        source = " ".join(module.path.read_text(encoding="utf-8").split())
        for where, old, new in module.equivalent:
            assert " ".join(old.split()) in source, (module.name, where, old)
            assert old != new


LIST = """
[tests]
estimators = ["tests/test_estimators.py::test_named", "src/klapprox/estimators.py"]
"exact/policies" = ["tests/exact/test_policies.py"]

[[estimators]]
where = "k1"
old = "a < b"
new = "a <= b"
reason = "a is never b"
"""


def test_the_list_is_read(tmp_path):
    path = tmp_path / "list.toml"
    path.write_text(LIST)
    estimators, policies = read(path)
    assert estimators.equivalent == {("k1", "a < b", "a <= b"): "a is never b"}
    assert (estimators.imported, policies.imported) == (
        "klapprox.estimators",
        "klapprox.exact.policies",
    )
    assert chosen(["exact"], [estimators, policies]) == [policies]
    assert chosen([], [estimators, policies]) == [estimators, policies]
    with pytest.raises(ListError, match="no tests of nothing"):
        chosen(["nothing"], [estimators])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('reason = "a is never b"', 'reason = " "', "needs new, old, reason, where"),
        ('where = "k1"\n', "", "needs new, old, reason, where"),
        ("[[estimators]]", "[[losses]]", "no tests of losses"),
        ('"exact/policies"', '"exact/none"', "exact/none: there is no .*exact/none.py"),
        ("tests/exact/", "tests/none/", "there is no tests/none/test_policies.py"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path, old, new, words):
    path = tmp_path / "list.toml"
    assert old in LIST
    path.write_text(LIST.replace(old, new))
    with pytest.raises(ListError, match=words):
        read(path)


SOURCE = """
import functools
from dataclasses import dataclass, field
from typing import NamedTuple

LIMIT = 3
TABLE = {"twice": lambda x: 2 * x}


def twice(x, extra=0):
    return 2 * x + extra + LIMIT


@functools.cache
def cached(x):
    return x + 1


def making(slope):
    def made(x):
        return slope(x)
    return made


made = making(lambda x: x + 10)


class Base:
    def value(self):
        return 1


class Law(Base):
    def value(self):
        return super().value() + 1

    @property
    def half(self):
        return 2

    @staticmethod
    def fixed():
        return 3

    @functools.cached_property
    def kept(self):
        return 4


class Pair(NamedTuple):
    a: int
    b: int = 5


@dataclass(frozen=True)
class Point:
    x: float = 6.0
    y: list = field(default_factory=list)

    def larger(self):
        return self.x + 7
"""


@pytest.fixture
def module(monkeypatch):
    made = types.ModuleType("klapprox_changed")
    made.__file__ = "klapprox_changed.py"
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(SOURCE, vars(made))
    return made


CHANGES = [
    ("2 * x + extra", "3 * x + extra", lambda m, held: held["twice"](1), 5, 6),
    ("extra=0", "extra=1", lambda m, held: held["twice"](1), 5, 6),
    ("LIMIT = 3", "LIMIT = 4", lambda m, held: held["twice"](1), 5, 6),
    ("lambda x: 2 * x", "lambda x: 7 * x", lambda m, held: held["TABLE"]["twice"](1), 2, 7),
    ("x + 1\n", "x + 2\n", lambda m, held: held["cached"](1), 2, 3),
    ("slope(x)", "-slope(x)", lambda m, held: held["made"](1), 11, -11),
    ("x + 10", "x + 20", lambda m, held: held["made"](1), 11, 21),
    ("value() + 1", "value() + 2", lambda m, held: held["Law"]().value(), 2, 3),
    ("return 1", "return 5", lambda m, held: held["Law"]().value(), 2, 6),
    ("return 2\n", "return 9\n", lambda m, held: held["Law"]().half, 2, 9),
    ("return 3", "return 9", lambda m, held: held["Law"].fixed(), 3, 9),
    ("return 4", "return 9", lambda m, held: held["Law"]().kept, 4, 9),
    ("b: int = 5", "b: int = 6", lambda m, held: held["Pair"](1).b, 5, 6),
    ("x: float = 6.0", "x: float = 8.0", lambda m, held: held["Point"]().x, 6.0, 8.0),
    ("self.x + 7", "self.x - 7", lambda m, held: held["Point"]().larger(), 13.0, -1.0),
]


@pytest.mark.parametrize(("old", "new", "call", "before", "after"), CHANGES)
def test_a_module_becomes_its_mutant_for_whoever_has_imported_from_it(
    module, old, new, call, before, after
):
    held = dict(vars(module))
    assert call(module, held) == before
    assert SOURCE.count(old) == 1
    put(module, SOURCE.replace(old, new))
    assert call(module, held) == after


def test_a_module_that_is_put_in_its_own_place_is_what_it_was(module):
    held = dict(vars(module))
    point, law, pair = held["Point"](1.0), held["Law"](), held["Pair"](1)
    put(module, SOURCE)
    assert point == module.Point(1.0) == held["Point"](1.0)
    assert hash(module.Pair(1)) == hash(pair)
    assert isinstance(module.Law(), held["Law"])
    assert (law.value(), law.half, law.kept, held["made"](1)) == (2, 2, 4, 11)
    with pytest.raises(AttributeError, match="cannot assign"):
        point.x = 2.0


def test_a_constant_that_another_module_has_is_replaced_there(module, monkeypatch):
    other = types.ModuleType("klapprox_other")
    other.LIMIT, other.TABLE = module.LIMIT, module.TABLE
    monkeypatch.setitem(sys.modules, other.__name__, other)
    put(module, SOURCE.replace("LIMIT = 3", "LIMIT = 300"))
    assert other.LIMIT == 300
    assert other.TABLE is module.TABLE


def test_what_is_equal_stays_the_same_object():
    numbers = (1, 2.5, "a")
    assert graft(numbers, (1, 2.5, "a")) is numbers
    assert graft(numbers, (1, 2.5, "b")) == (1, 2.5, "b")
    assert graft(1, True) is True
    cached = functools.cache(abs)
    assert graft(cached, cached) is cached


@needs_mutmut
def test_changes_are_of_one_place_and_leave_messages_alone(monkeypatch):
    monkeypatch.syspath_prepend(str(MUTMUT))
    source = '''\
def f(x, least: int | None = 2, *, check=True):
    """Return 1 + x."""
    if x < least and check:
        raise ValueError(f"{x + 1} is below {least}")
    return (x - 1) * g(x, axis=0)
'''
    found = {(m.where, m.new): m for m in package_mutants.mutants(source)}
    changed = {new for _, new in found}
    for line in (
        "if (x < least and check) and False:",
        "if (x < least and check) or True:",
        "if x < least or check:",
        "if x < least:",
        "if check:",
        "if x <= least and check:",
        "return (x + 1) * g(x, axis=0)",
        "return (x) * g(x, axis=0)",
        "return (x - 2) * g(x, axis=0)",
        "return (x - 1) / g(x, axis=0)",
        "return (x - 1)",
        "return (x - 1) * g(x)",
        "return (x - 1) * g(x, axis=1)",
        "def f(x, least: int | None = 3, *, check=True):",
        "def f(x, least: int | None = 2, *, check=False):",
    ):
        assert line in changed, line
    assert len(found) == 15
    assert found["f", "if check:"].lines == (3, 3)
    assert found["f", "return (x - 1)"].lines == (5, 5)
    assert found["f", "def f(x, least: int | None = 3, *, check=True):"].lines == (1, 5)
    for mutant in found.values():
        lines = mutant.source.splitlines()
        differing = [i for i, line in enumerate(source.splitlines()) if line != lines[i]]
        assert len(differing) == 1


RUN = """
import sys
from pathlib import Path
from bookbuild.package_mutants import Module, run

sys.path[:0] = [{mutmut!r}, {folder!r}]
listed = {listed!r}
found = run(Module("small", Path({folder!r}, "small_.py"), "small_", [{tests!r}], listed))
print({{end: [mutant.new for mutant in some] for end, some in found.items()}})
"""


@needs_mutmut
def test_mutants_are_run_through_the_tests_that_execute_them(tmp_path):
    (tmp_path / "small_.py").write_text(
        "def larger(a, b):\n    return a if a > b else b\n\n\ndef unused(a):\n    return not a\n"
    )
    tests = tmp_path / "test_small_.py"
    tests.write_text(
        "from small_ import larger\n\n\n"
        "def test_it():\n    assert larger(1, 2) == larger(2, 1) == 2\n"
    )
    same = ("larger", "return a if a > b else b", "return a if a >= b else b")
    wrong = ("larger", "return a if a > b else b", "return a if (a > b) and False else b")
    code = RUN.format(
        mutmut=str(MUTMUT),
        folder=str(tmp_path),
        tests=str(tests),
        listed={same: "the same where they are equal", wrong: "not so"},
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert eval(done.stdout.splitlines()[-1]) == {
        "killed": ["return a if (a > b) or True else b"],
        "survives": [],
        "not covered": ["return a"],
        "equivalent": [same[2]],
        "listed but killed": [wrong[2]],
    }
