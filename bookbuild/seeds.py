"""Assertions about random numbers, with other seeds: ``make seeds``.

A Monte Carlo assertion is run with one seed when the book is made, and may hold for that seed by
luck. Here every ``assert``, ``np.testing.assert_…`` and claim of ``verify.check`` in a chapter that
reads random numbers, and the tests of the package that are about some, are run with many other
seeds. Each is counted by itself: one that fails does not stop its cell.

An assertion says itself how often it fails: in ``abs(mean - exact) < 5 * error`` and
``abs(z) < 4`` it is the chance that a normal number lies that far out. Where nothing of the kind
is said it must never fail. An assertion that fails significantly more often holds by luck.

Cells run as in `bookbuild.mutants`: those that the assertions need, and no others. Those that read
no random numbers run once, the others for each seed in a fork. ``tests/book/seeds.toml`` says
which cells draw fewer numbers here, where errors are stated in standard errors and the assertion
means the same::

    [[k1]]
    why = "five standard errors of the mean"
    old = "q.sample(rng, 1_000_000)"
    new = "q.sample(rng, 100_000)"

and under ``[[tests]]`` which tests (``name``) are about random numbers, though no assertion of them
names standard errors.
"""

import argparse
import ast
import contextlib
import io
import os
import re
import sys
import time
import tomllib
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bookbuild import mutants, statements
from klapprox.book import figures

ROOT = Path(__file__).resolve().parents[1]
SMALLER = ROOT / "tests" / "book" / "seeds.toml"
SEEDS = 200
SURE = 1e-3  # an assertion is named if what it says gives so many failures less often than this
LIMIT = 600.0  # seconds a seed
# What makes random numbers, as an attribute.
_SOURCES = {"PCG64", "default_rng", "SeedSequence", "manual_seed"}
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_ERROR = re.compile(r"(^|_)(s\.?e|sd|std|errors?|spread|deviation)(_|$)|sqrt|^se_|_mc$")
_RECORD = "_seeds_record"
Said = tuple[dict[int, tuple[int, int]], list[str]]  # by assertion: ran, failed; other errors


class SeedsError(Exception):
    """What cannot be read or run; the message says which and why."""


@dataclass(frozen=True)
class Assertion:
    """One assertion: where it stands, what it says, and how often it says that it fails."""

    place: str  # a chapter or a file of tests
    section: str  # a heading, or the name of a test
    cell: int  # number of the code cell; 0 in tests
    line: int
    text: str
    chance: float = 0.0


@dataclass
class Sweep:
    """What became of the assertions of one place: seeds run, and failures by assertion."""

    assertions: list[Assertion]
    seeds: int = 0
    most: Counter[int] = field(default_factory=Counter)  # how often it ran with one seed, at most
    failed: Counter[int] = field(default_factory=Counter)  # seeds with which it failed
    stopped: Counter[str] = field(default_factory=Counter)  # other errors

    def add(self, held: dict[int, tuple[int, int]], stopped: list[str]) -> None:
        """Count what one seed said: by assertion, how often it ran and how often it failed."""
        self.seeds += 1
        self.stopped.update(stopped)
        for number, (ran, failed) in held.items():
            self.most[number] = max(self.most[number], ran)
            self.failed[number] += bool(failed)

    def expected(self, number: int) -> float:
        """Return how often an assertion says that it fails with one seed."""
        return min(1.0, self.most[number] * self.assertions[number].chance)

    def lucky(self, number: int) -> bool:
        """Return whether an assertion fails more often than it says."""
        failed = self.failed[number]
        chance = stats.binom.sf(failed - 1, self.seeds, self.expected(number))
        return failed > 0 and bool(chance < SURE)

    def __str__(self) -> str:
        lines = []
        for number, one in enumerate(self.assertions):
            word = "BY LUCK" if self.lucky(number) else "idle" if not self.most[number] else ""
            cell = f"cell {one.cell}, " if one.cell else ""
            says = f"{self.expected(number):.1e}" if one.chance else "never"
            lines.append(
                f"{one.place} | {one.section} | {cell}line {one.line} | {one.text} | "
                f"failed with {self.failed[number]} of {self.seeds} seeds, says {says}"
                + (f" | {word}" if word else "")
            )
        lines += [
            f"{self.assertions[0].place} | stopped with {count} of {self.seeds} seeds: {words}"
            for words, count in self.stopped.items()
        ]
        return "\n".join(lines)


def chance(test: ast.AST) -> float:
    """Return how often an assertion says that it fails: beyond its least number of errors.

    ``abs(x) < c * error`` and ``abs(z) < c``, c a whole number from 3 to 6, with whatever stands
    around it; 0 where there is neither.
    """
    found = []
    for node in ast.walk(test):
        if not (
            isinstance(node, ast.Compare)
            and len(node.ops) == 1
            and isinstance(node.ops[0], ast.Lt | ast.LtE)
            and isinstance(node.left, ast.Call)
            and ast.unparse(node.left.func) in {"abs", "np.abs"}
        ):
            continue
        bound = node.comparators[0]
        whole = bound.value if isinstance(bound, ast.Constant) else None
        if isinstance(whole, int) and whole in range(3, 7):
            found.append(float(whole))
        for product in ast.walk(bound):
            if isinstance(product, ast.BinOp) and isinstance(product.op, ast.Mult):
                names = [n.id for n in ast.walk(bound) if isinstance(n, ast.Name)]
                names += [n.attr for n in ast.walk(bound) if isinstance(n, ast.Attribute)]
                number = product.left.value if isinstance(product.left, ast.Constant) else None
                if isinstance(number, int | float) and any(map(_ERROR.search, names)):
                    found.append(float(number))
    return 2 * float(stats.norm.sf(min(found))) if found else 0.0


# What depends on random numbers ----------------------------------------------------------------


def _root(node: ast.AST) -> str:
    """Return the name at the left end of ``a.b[0].c``; empty if there is none."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _call(statement: ast.AST) -> str:
    """Return what is called by a statement that is a call."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return ast.unparse(statement.value.func)
    return ""


def asserts(statement: ast.AST) -> bool:
    """Return whether a statement is an assertion, a claim or one of NumPy's assertions."""
    name = _call(statement)
    return (
        isinstance(statement, ast.Assert)
        or name == "verify.check"
        or name.startswith("np.testing.assert_")
    )


def _stored(node: ast.AST) -> set[str]:
    """Return the names that are stored somewhere in a piece of code."""
    names = (part for part in ast.walk(node) if isinstance(part, ast.Name))
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


class Randomness:
    """Which names of a program hold random numbers or functions of them, statement by statement.

    More names than do: what a function reads and what is changed by a call counts as random if
    anything that it is given does. Then `found` has too many assertions, which do not fail.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.found: list[ast.stmt] = []
        self.touched = False  # whether anything random was stored or asserted

    def reads(self, node: ast.AST | None, bound: frozenset[str] = frozenset()) -> bool:
        """Return whether an expression, or the body of a function, reads random numbers."""
        match node:
            case None:
                return False
            case ast.Name(id=name):
                return name in self.names and name not in bound
            case ast.Attribute(attr=attribute) if attribute in _SOURCES:
                return True
            case ast.FunctionDef() | ast.Lambda():
                bound |= {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
                bound |= _stored(node)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                bound |= _stored(node)
        return any(self.reads(part, bound) for part in ast.iter_child_nodes(node))

    def _store(self, target: ast.AST, random: bool, kill: bool = True) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            for part in target.elts:
                self._store(part, random, kill)
        elif random:
            self.names.add(_root(target))
            self.touched = True
        elif kill and isinstance(target, ast.Name):
            self.names.discard(target.id)

    def run(self, body: Sequence[ast.stmt], inside: bool = False) -> None:
        """Follow the statements; inside of what is random, everything that is stored is."""
        for statement in body:
            self._one(statement, inside)

    def _one(self, statement: ast.stmt, inside: bool) -> None:
        match statement:
            case ast.FunctionDef() | ast.ClassDef():
                random = self.reads(statement)
                self._store(ast.Name(statement.name), random)
                if random:  # its assertions may be about what it was given
                    nested = (part for part in ast.walk(statement) if isinstance(part, ast.stmt))
                    self.found += [one for one in nested if asserts(one)]
            case ast.Assign(targets=targets, value=value):
                values: list[ast.expr] = [value] * len(targets)
                if len(targets) == 1 and isinstance(targets[0], ast.Tuple):
                    first = targets[0]
                    if isinstance(value, ast.Tuple) and len(value.elts) == len(first.elts):
                        targets, values = first.elts, value.elts
                random_ones = [inside or self.reads(one) for one in values]
                for target, random in zip(targets, random_ones, strict=True):
                    self._store(target, random)
            case (
                ast.AugAssign(target=target, value=value)
                | ast.AnnAssign(target=target, value=value)
            ):
                self._store(
                    target, inside or self.reads(value), isinstance(statement, ast.AnnAssign)
                )
            case ast.For(target=target, iter=over, body=inner, orelse=other):
                for _ in range(2):  # what is random behind the loop is so in its second round
                    self._store(target, inside or self.reads(over))
                    self.run(inner, inside)
                self.run(other, inside)
            case ast.While(test=test, body=inner) | ast.If(test=test, body=inner):
                within = inside or self.reads(test)
                self._again(inner, within)
                before = set(self.names)
                self.run(statement.orelse, within)
                self.names |= before
            case ast.With(items=items, body=inner):
                for item in items:
                    if item.optional_vars:
                        self._store(item.optional_vars, inside or self.reads(item.context_expr))
                self.run(inner, inside)
            case ast.Try():
                for part in (statement.body, *(h.body for h in statement.handlers)):
                    self.run(part, inside)
                self.run([*statement.orelse, *statement.finalbody], inside)
            case ast.Expr(value=ast.Call(func=called, args=given)) if not asserts(statement):
                # x.append(random), np.add.at(x, random)
                if self.reads(statement) and _call(statement) != "print":
                    for changed in (called, *given[:1]):
                        if isinstance(changed, ast.Attribute | ast.Name | ast.Subscript):
                            self.names.add(_root(changed))
                            self.touched = True
            case _ if asserts(statement) and (inside or self.reads(statement)):
                self.touched = True
                self.found += [statement] if statement not in self.found else []

    def _again(self, body: Sequence[ast.stmt], inside: bool) -> None:
        """Follow what may run often or not at all: what was random stays so."""
        before = set(self.names)
        self.run(body, inside)
        self.names |= before

    def imports(self, tree: ast.Module) -> None:
        """Forget modules: what they are given does not change them."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    self.names.discard((alias.asname or alias.name).split(".")[0])


# Chapters --------------------------------------------------------------------------------------


class _Counted(ast.NodeTransformer):
    """Turns each assertion into one that is counted by its number and stops nothing."""

    def __init__(self, numbers: dict[tuple[int, int], int]) -> None:
        self.numbers = numbers

    def _tried(self, statement: ast.stmt, at: tuple[int, int]) -> list[ast.stmt]:
        text = (
            f"try:\n    pass\nexcept AssertionError:\n    {_RECORD}({self.numbers[at]}, True)\n"
            f"else:\n    {_RECORD}({self.numbers[at]}, False)\n"
        )
        (tried,) = ast.parse(text).body
        assert isinstance(tried, ast.Try)
        tried.body = [statement]
        return [ast.fix_missing_locations(ast.copy_location(tried, statement))]

    def visit_Assert(self, statement: ast.Assert) -> Any:
        """Count an assert."""
        at = statement.lineno, 0
        return self._tried(statement, at) if at in self.numbers else statement

    def visit_Expr(self, statement: ast.Expr) -> Any:
        """Count each claim of a check, and NumPy's assertions."""
        if (statement.lineno, 0) in self.numbers:
            return self._tried(statement, (statement.lineno, 0))
        call = statement.value
        if not isinstance(call, ast.Call) or (statement.lineno, 1) not in self.numbers:
            return statement
        label, *claims = call.args
        return [
            tried
            for number, claim in enumerate(claims, start=1)
            for tried in self._tried(
                ast.Expr(ast.Call(call.func, [label, claim], call.keywords)),
                (statement.lineno, number),
            )
        ]


@dataclass(frozen=True)
class Program:
    """The cells of a chapter that random assertions need, and these assertions."""

    name: str
    folder: Path
    before: list[tuple[int, str]]  # cells without random numbers, which run once
    cells: list[tuple[int, Any]]  # code objects
    assertions: list[Assertion]


def _texts(path: Path, smaller: Iterable[dict[str, str]]) -> tuple[list[str], list[str]]:
    """Return the code cells of a chapter with fewer draws, and the headings above them."""
    sources, sections, heading = [], [], ""
    for cell in statements.cells(path):
        if cell["cell_type"] == "code":
            sources.append(cell["source"])
            sections.append(heading)
        else:
            heading = (_HEADING.findall(cell["source"]) or [heading])[-1]
    for entry in smaller:
        at = [n for n, source in enumerate(sources) if entry["old"] in source]
        if len(at) != 1 or sources[at[0]].count(entry["old"]) != 1 or not entry.get("why"):
            raise SeedsError(f"{path.stem}: {entry['old']!r} does not occur once, or has no why")
        sources[at[0]] = sources[at[0]].replace(entry["old"], entry["new"])
    return sources, sections


def _order(sources: list[str], wanted: set[int], random: set[int]) -> tuple[list[int], list[int]]:
    """Return the cells that run once, and those that run for each seed.

    The latter read random numbers, or what a cell makes that does, or make a name anew that such a
    cell before them has used.
    """
    uses = [mutants.Use.of(source) for source in sources]
    needs = {cell: set(mutants.needed(sources, cell)) for cell in range(len(sources))}
    used, once, again = set[str](), list[int](), list[int]()
    for cell in sorted(wanted.union(*(needs[cell] for cell in wanted))):
        if cell in random | wanted or needs[cell] & set(again) or uses[cell].stored & used:
            again.append(cell)
            used |= uses[cell].stored | uses[cell].read | uses[cell].read_later
        else:
            once.append(cell)
    return once, again


def _claims(statement: ast.stmt) -> Iterator[tuple[int, ast.expr, str]]:
    """Yield what is asserted: 0 or the number of the claim, the expression, and its text."""
    if isinstance(statement, ast.Assert):
        yield 0, statement.test, ast.unparse(statement.test)
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        call = statement.value
        if _call(statement) != "verify.check":
            yield 0, call, ast.unparse(call)
            return
        for number, claim in enumerate(call.args[1:], start=1):
            words = claim.args[0] if isinstance(claim, ast.Call) and claim.args else claim
            yield number, claim, ast.unparse(words)


def programs(path: Path, smaller: Iterable[dict[str, str]] = ()) -> list[Program]:
    """Return what of a chapter has to run for its random assertions.

    Cells with assertions are in one program if they need a cell together that reads random numbers.
    """
    sources, sections = _texts(path, smaller)
    trees = [ast.parse(source) for source in sources]
    randomness, random, asserted = Randomness(), set[int](), dict[int, list[ast.stmt]]()
    for cell, tree in enumerate(trees):
        randomness.found, randomness.touched = [], False
        randomness.run(tree.body)
        randomness.imports(tree)
        if randomness.touched:
            random.add(cell)
        if randomness.found:
            asserted[cell] = sorted(randomness.found, key=lambda one: one.lineno)
    groups: list[tuple[set[int], set[int]]] = []  # cells with assertions, random cells
    for cell in asserted:
        wanted, shared = {cell}, {cell, *mutants.needed(sources, cell)} & random
        for other in [group for group in groups if group[1] & shared]:
            groups.remove(other)
            wanted, shared = wanted | other[0], shared | other[1]
        groups.append((wanted, shared))
    found = []
    for wanted, _ in groups:
        once, again = _order(sources, wanted, random)
        assertions, numbers = list[Assertion](), dict[int, dict[tuple[int, int], int]]()
        for cell in sorted(wanted):
            numbers[cell] = {}
            for statement in asserted[cell]:
                for claim, part, text in _claims(statement):
                    numbers[cell][statement.lineno, claim] = len(assertions)
                    where = path.stem, sections[cell], cell + 1, part.lineno
                    assertions.append(Assertion(*where, text, chance(part)))
        counted = [(cell, _Counted(numbers.get(cell, {})).visit(trees[cell])) for cell in again]
        codes = [
            (cell + 1, compile(tree, f"{path.stem}, code cell {cell + 1}", "exec"))
            for cell, tree in counted
        ]
        before = [(cell + 1, sources[cell]) for cell in once]
        found.append(Program(path.stem, path.parent, before, codes, assertions))
    return found


@contextlib.contextmanager
def other_seeds(seed: int, places: Sequence[str]) -> Iterator[None]:
    """Let code that stands in these places draw other random numbers; seed 0 changes nothing.

    The package's own seeds stay: `klapprox.identify` probes losses at points that it chooses.
    """

    def ours() -> bool:
        return sys._getframe(2).f_code.co_filename.startswith(tuple(places))

    bits, default = np.random.PCG64, np.random.default_rng

    def other(given: Any) -> Any:
        sequence = given if isinstance(given, np.random.SeedSequence) else None
        if sequence is None:
            sequence = np.random.SeedSequence(given)
        entropy = np.atleast_1d(np.asarray(sequence.entropy)).tolist()
        return np.random.SeedSequence([seed, *entropy], spawn_key=sequence.spawn_key)

    def new_bits(given: Any = None) -> Any:
        return bits(other(given) if seed and ours() else given)

    def new_default(given: Any = None) -> Any:
        return default(other(given) if seed and ours() else given)

    with contextlib.ExitStack() as stack:
        patch = pytest.MonkeyPatch()
        stack.callback(patch.undo)
        patch.setattr(np.random, "PCG64", new_bits)
        patch.setattr(np.random, "default_rng", new_default)
        if torch := sys.modules.get("torch"):

            class Generator(torch.Generator):  # type: ignore[misc, name-defined]
                def manual_seed(self, given: int) -> Any:
                    return super().manual_seed(given + 100_003 * seed if ours() else given)

            manual = torch.manual_seed
            patch.setattr(torch, "Generator", Generator)
            patch.setattr(
                torch,
                "manual_seed",
                lambda given: manual(given + 100_003 * seed if ours() else given),
            )
        yield


def _quiet() -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
    stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    return stack


def _of_chapter(program: Program, namespace: dict[str, Any], seed: int) -> Said:
    """Run the cells of a chapter with one seed."""
    counts: dict[int, tuple[int, int]] = {}
    stopped = []

    def record(number: int, failed: bool) -> None:
        ran, lost = counts.get(number, (0, 0))
        counts[number] = ran + 1, lost + failed

    namespace[_RECORD] = record
    with other_seeds(seed, [f"{program.name}, code cell"]):
        for cell, code in program.cells:
            try:
                exec(code, namespace)
            except Exception as error:
                stopped.append(f"cell {cell}: {type(error).__name__}: {error}"[:200])
    return counts, stopped


# Tests -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tests:
    """The tests of files that read random numbers and their assertions."""

    name: str
    root: Path
    nodes: list[str]
    assertions: list[Assertion]


def drawing_tests(root: Path, files: Iterable[Path], also: Collection[str] = ()) -> Tests:
    """Return the tests about random numbers that name standard errors, and those named here.

    Other tests read random numbers that might be any; and those of Hypothesis try many already.
    A test of which an assertion fails is counted at this line only, whatever its parameters.
    """
    nodes, assertions = [], list[Assertion]()
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        randomness = Randomness()
        for _ in range(2):  # a test may stand above what it uses
            randomness.run(tree.body)
            randomness.imports(tree)
        for test in tree.body:
            if not isinstance(test, ast.FunctionDef) or not test.name.startswith("test_"):
                continue
            given = {argument.arg for argument in test.args.args} & randomness.names
            by = {_called(decorator) for decorator in test.decorator_list}
            if not (given or randomness.reads(test)) or "given" in by:
                continue
            where = path.relative_to(root)
            claimed = [
                Assertion(str(where), test.name, 0, one.lineno, ast.unparse(one.test), chance(one))
                for one in ast.walk(test)
                if isinstance(one, ast.Assert)
            ]
            if test.name in also or any(one.chance for one in claimed):
                nodes.append(f"{where}::{test.name}")
                assertions += claimed
    return Tests("tests", root, nodes, assertions)


def _called(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)


class _Reports:
    """A plugin of pytest that keeps where tests fail."""

    def __init__(self) -> None:
        self.failed: list[tuple[str, int, str]] = []
        self.ran = 0

    def pytest_exception_interact(self, node: Any, call: Any) -> None:
        """Keep the last line of the test itself that an error came through."""
        lines = [entry for entry in call.excinfo.traceback if str(entry.path) == str(node.path)]
        line = lines[-1].lineno + 1 if lines else 0
        self.failed.append((str(node.nodeid), line, call.excinfo.exconly()[:150]))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count the tests that ran."""
        self.ran += report.when == "call"


def _of_tests(tests: Tests, seed: int) -> Said:
    """Run the tests with one seed."""
    reports = _Reports()
    options = ["-q", "--noconftest", "-p", "no:cacheprovider", "-o", "addopts="]
    with other_seeds(seed, [str(tests.root)]):
        pytest.main([*options, f"--rootdir={tests.root}", *tests.nodes], plugins=[reports])
    places = {(one.place, one.line): n for n, one in enumerate(tests.assertions)}
    counts, stopped = dict.fromkeys(places.values(), (1, 0)), []
    if not reports.ran:
        stopped.append("no test ran")
    for node, line, words in reports.failed:
        number = places.get((node.split("::")[0], line))
        if number is None:
            stopped.append(f"{node}, line {line}: {words}")
        else:
            counts[number] = (1, 1)
    return counts, stopped


# All of it -------------------------------------------------------------------------------------


def _work(sender: Connection, place: Program | Tests, seeds: Sequence[int], limit: float) -> None:
    """Run what needs no seed, then a fork for each seed; send what each says."""
    namespace: dict[str, Any] = {}
    with _quiet():
        figures.show = figures.live = lambda *_, **__: None  # type: ignore[assignment]
        if isinstance(place, Program):
            os.chdir(place.folder)
            for cell, source in place.before:
                exec(compile(source, f"{place.name}, code cell {cell}", "exec"), namespace)
        else:
            os.chdir(place.root)
        context = get_context("fork")
        for seed in seeds:
            receiver, end = context.Pipe(duplex=False)
            process = context.Process(target=_one_seed, args=(end, place, namespace, seed))
            process.start()
            end.close()
            try:
                said = receiver.recv() if receiver.poll(limit) else None
                sender.send(said or ({}, [f"no end in {limit:g} s"]))
            except EOFError:
                sender.send(({}, ["its process died"]))
            process.kill()
            process.join()


def _one_seed(end: Connection, place: Program | Tests, names: dict[str, Any], seed: int) -> None:
    if isinstance(place, Program):
        end.send(_of_chapter(place, names, seed))
    else:
        end.send(_of_tests(place, seed))


def sweep(
    place: Program | Tests, seeds: Sequence[int], processes: int = 2, limit: float = LIMIT
) -> Sweep:
    """Run one chapter, or the tests, with all the seeds, so many at a time."""
    found, context, running = Sweep(place.assertions), get_context("fork"), dict[Any, Any]()
    for part in range(min(processes, len(seeds))):
        here, sender = context.Pipe(duplex=False)
        work = sender, place, seeds[part::processes], limit
        process = context.Process(target=_work, args=work)
        process.start()
        sender.close()
        running[here] = process
    while running:
        ready: list[Any] = wait(list(running))
        for receiver in ready:
            try:
                found.add(*receiver.recv())
            except EOFError:
                running.pop(receiver).join()
    if found.seeds < len(seeds):
        found.stopped["a cell without random numbers failed"] = len(seeds) - found.seeds
    return found


def smaller(path: Path = SMALLER) -> dict[str, list[dict[str, str]]]:
    """Return by chapter which cells draw fewer numbers here."""
    found: dict[str, list[dict[str, str]]] = tomllib.loads(path.read_text(encoding="utf-8"))
    return found


def places(names: Collection[str] = ()) -> Iterator[Program | Tests]:
    """Yield the chapters that draw, and the tests; all of them without names."""
    fewer = smaller()
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        if not names or path.stem in names:
            yield from programs(path, fewer.get(path.stem, []))
    if not names or "tests" in names:
        files = sorted((ROOT / "tests").glob("test_*.py"))
        for folder in ("exact", "book"):
            files += sorted((ROOT / "tests" / folder).glob("test_*.py"))
        also = [entry["name"] for entry in fewer.get("tests", [])]
        files += [ROOT / "tests" / "arrays" / "test_example.py"]
        yield drawing_tests(ROOT, files, also)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Run Monte Carlo assertions with other seeds.")
    parser.add_argument("names", nargs="*", help="chapters, or tests; all without any")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="at a time (%(default)s)")
    arguments = parser.parse_args()
    start, count, failures, runs, lucky = time.perf_counter(), 0, 0, 0, 0
    try:
        for place in places(arguments.names):
            began = time.perf_counter()
            found = sweep(place, range(1, arguments.seeds + 1), arguments.processes)
            print(found, flush=True)
            print(f"{place.name}: {time.perf_counter() - began:.0f} s", flush=True)
            count += len(place.assertions)
            runs += 1
            failures += sum(found.failed.values())
            lucky += sum(map(found.lucky, range(len(place.assertions)))) + len(found.stopped)
    except SeedsError as error:
        print(error, file=sys.stderr)
        return 1
    if not runs:
        print(f"nothing that draws: {', '.join(arguments.names)}", file=sys.stderr)
        return 1
    print(f"{time.perf_counter() - start:.0f} s")
    print(
        f"{count} assertions, {arguments.seeds} seeds, {failures} failures; "
        f"{lucky} fail more often than they say"
    )
    return int(lucky > 0)


if __name__ == "__main__":
    sys.exit(main())
