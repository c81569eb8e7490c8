"""Small changes of the package that its tests have to notice: ``make mutants-package``.

The changes are those of mutmut (https://github.com/boxed/mutmut), one at a time: another operator,
a number one larger, a keyword argument left out, an arm of a condition always or never taken. Added
are its change of conditional expressions for every ``if``, and operands that are left out. Strings,
messages of errors and annotations stay as they are.

``tests/mutants/package.toml`` says which tests concern a module, and lists the mutants that no test
can tell from the module, each with its reason::

    [tests]
    estimators = ["tests/test_estimators.py", "tests/arrays/test_array_estimators.py"]

    [[estimators]]
    where = "k_lambda"
    old = "if lam == 0:"
    new = "if (lam == 0) and False:"
    reason = "why the function is the same"

The tests are collected once, and run once to see which of them executes which line. Then each
mutant is put into a fork of that process, which runs the tests that execute the line, and ends
at the first failure. A mutant that is not killed and not listed is a fault of the
tests; one that is listed and killed, or gone, is a fault of the list.
"""

import argparse
import ast
import functools
import importlib
import math
import multiprocessing
import os
import pickle
import re
import resource
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "klapprox"
LIST = ROOT / "tests" / "mutants" / "package.toml"
_KEYS = {"where", "old", "new", "reason"}
# mutmut's changes that are used; the others change strings, or are errors of type at once.
_OPERATORS = {
    "operator_number",
    "operator_name",
    "operator_remove_unary_ops",
    "operator_keywords",
    "operator_swap_op",
    "operator_if_exp",
    "operator_lambda",
    "operator_augmented_assignment",
}


class ListError(Exception):
    """The file of tests and equivalent mutants cannot be read, or names what is not there."""


class Mutant(NamedTuple):
    """A change of a module: the function, its lines before and after, and the whole source."""

    where: str
    old: str
    new: str
    lines: tuple[int, int]
    source: str

    @property
    def name(self) -> tuple[str, str, str]:
        """What the list calls it."""
        return self.where, self.old, self.new


class Module(NamedTuple):
    """A module of the package, its tests, and by name the reasons why mutants are equivalent."""

    name: str
    path: Path
    imported: str
    tests: list[str]
    equivalent: dict[tuple[str, str, str], str]


def mutants(source: str) -> list[Mutant]:
    """Return all mutants of a source, in the order of its lines."""
    import libcst as cst
    from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper, ParentNodeProvider
    from mutmut.mutation import mutators

    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    module, parents = wrapper.module, wrapper.resolve(ParentNodeProvider)
    spans = wrapper.resolve(ByteSpanPositionProvider)
    operators = [(kind, f) for kind, f in mutators.mutation_operators if f.__name__ in _OPERATORS]
    content = source.encode()

    def changes(node: Any) -> Iterator[tuple[Any, Any]]:
        """Yield what is replaced, the node or a part of it, and by what."""
        for kind, operator in operators:
            if isinstance(node, kind):
                yield from ((node, changed) for changed in operator(node))
        if isinstance(node, cst.Call):
            for i, argument in enumerate(node.args):
                if argument.keyword is not None:
                    kept = [*node.args[:i], *node.args[i + 1 :]]
                    last = [one.with_changes(comma=cst.MaybeSentinel.DEFAULT) for one in kept[-1:]]
                    yield node, node.with_changes(args=[*kept[:-1], *last])
        if isinstance(node, cst.If | cst.While | cst.CompIf):
            test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
            for word, value in ((cst.And(), "False"), (cst.Or(), "True")):
                if not (isinstance(node, cst.While) and value == "True"):
                    yield node.test, cst.BooleanOperation(test, word, cst.Name(value))
        if isinstance(node, cst.BooleanOperation):
            yield from ((node, node.left), (node, node.right))
        if isinstance(node, cst.BinaryOperation) and not isinstance(node.operator, cst.Power):
            yield node, node.left
            if isinstance(node.operator, cst.BitAnd | cst.BitOr):
                yield node, node.right

    def line(place: int) -> int:
        return content.count(b"\n", 0, place) + 1

    def around(node: Any) -> tuple[int, int]:
        """Return the first and the last line of what is executed with the node.

        That is its statement, the head of an ``if`` or loop, or for a default the function. What
        is executed once and for all has no lines.
        """
        while not isinstance(parents[node], cst.BaseStatement):
            node = parents[node]
        statement, owner = parents[node], parents.get(parents[node])
        if isinstance(statement, cst.FunctionDef):
            node = statement
        elif isinstance(statement, cst.SimpleStatementLine):
            node = statement
            if isinstance(owner, cst.Module) or isinstance(parents[owner], cst.ClassDef):
                return 0, 0
        return line(spans[node].start), line(spans[node].start + spans[node].length)

    def where(node: Any) -> str:
        names = []
        while node in parents:
            node = parents[node]
            if isinstance(node, cst.FunctionDef | cst.ClassDef):
                names.append(node.name.value)
        return ".".join(reversed(names)) or "module"

    found: list[Mutant] = []
    seen: dict[tuple[str, str, str], int] = {}

    def add(node: Any, old: Any, new: Any) -> None:
        start, length = spans[old].start, spans[old].length
        outer = len(getattr(old, "lpar", ()))  # they stay: the span is what is within
        if 0 < outer <= len(new.lpar):
            new = new.with_changes(lpar=new.lpar[outer:], rpar=new.rpar[outer:])
        text, whole = module.code_for_node(new).strip().encode(), content[start : start + length]
        text = whole[: len(whole) - len(whole.lstrip())] + text
        changed = content[:start] + text + content[start + length :]
        first, last = content.rfind(b"\n", 0, start) + 1, content.find(b"\n", start + length)
        before = content[first:last].decode().splitlines()
        after = changed[first : last + len(changed) - len(content)].decode().splitlines()
        while len(before) > 1 and len(after) > 1 and before[0] == after[0]:
            before, after = before[1:], after[1:]
        while len(before) > 1 and len(after) > 1 and before[-1] == after[-1]:
            before, after = before[:-1], after[:-1]
        try:
            ast.parse(changed)
        except SyntaxError:
            return
        one, other = (" ".join(map(str.strip, lines)) for lines in (before, after))
        name = where(node), one, other
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            other += f" ({seen[name]})"
        found.append(Mutant(where(node), one, other, around(old), changed.decode()))

    class Visitor(cst.CSTVisitor):  # type: ignore[misc]
        def on_visit(self, node: Any) -> bool:
            if isinstance(node, cst.Annotation | cst.Raise | cst.Decorator | cst.ImportFrom):
                return False
            if isinstance(node, cst.Call) and module.code_for_node(node.func) == "warnings.warn":
                return False
            for old, new in changes(node):
                add(node, old, new)
            return True

    module.visit(Visitor())
    return sorted(found, key=lambda mutant: mutant.lines)


def graft(old: Any, new: Any, met: set[int] | None = None) -> Any:
    """Make an object of the module do what the mutant's does, wherever it is held; return it.

    Functions get the other code and classes the other methods, so that whoever has imported them
    has the mutant. Where that cannot be the new object is returned. What was ``met`` is done, or
    being done: classes hold methods that hold the class.
    """
    met = set() if met is None else met
    if id(old) in met:
        return old
    if isinstance(old, FunctionType) and isinstance(new, FunctionType):
        cells, others = old.__closure__ or (), new.__closure__ or ()
        if old.__code__.co_freevars != new.__code__.co_freevars:
            return new
        met.add(id(old))
        for name, cell, other in zip(old.__code__.co_freevars, cells, others, strict=True):
            if name != "__class__":
                _graft_cell(cell, other, met)
        old.__code__, old.__defaults__ = new.__code__, new.__defaults__
        old.__kwdefaults__ = new.__kwdefaults__
        return old
    if isinstance(old, type) and isinstance(new, type):
        met.add(id(old))
        for name, value in vars(new).items():
            if name in {"__dict__", "__weakref__", "__module__", "__doc__", "__annotations__"}:
                continue
            mine = vars(old).get(name)
            kept = graft(mine, value, met)
            if kept is not mine:
                setattr(old, name, kept)
        return old
    if isinstance(old, staticmethod | classmethod) and type(old) is type(new):
        kept = graft(old.__func__, new.__func__, met)
        return old if kept is old.__func__ else new
    if isinstance(old, property) and isinstance(new, property):
        kept = graft(old.fget, new.fget, met)
        return old if kept is old.fget else new
    if isinstance(old, functools.cached_property) and isinstance(new, functools.cached_property):
        old.func = graft(old.func, new.func, met)
        return old
    if hasattr(old, "cache_clear") and hasattr(new, "cache_clear"):
        kept = graft(old.__wrapped__, new.__wrapped__, met)
        old.cache_clear()
        return old if kept is old.__wrapped__ else new
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [key for key in old if key not in new]:
            del old[key]
        for key, value in new.items():
            old[key] = graft(old.get(key), value, met)
        return old
    if isinstance(old, tuple) and type(old) is type(new) and len(old) == len(new):
        both = [graft(a, b, met) for a, b in zip(old, new, strict=True)]
        if all(a is b for a, b in zip(both, old, strict=True)):
            return old
        return type(old)(*both) if hasattr(old, "_fields") else tuple(both)
    if isinstance(old, ModuleType) or _same(old, new):
        return old
    return new


def _graft_cell(cell: Any, other: Any, met: set[int]) -> None:
    try:
        cell.cell_contents = graft(cell.cell_contents, other.cell_contents, met)
    except ValueError:  # an empty one
        return


def _same(old: Any, new: Any) -> bool:
    try:
        return type(old) is type(new) and bool(old == new)
    except Exception:
        return False


def put(module: ModuleType, source: str) -> None:
    """Turn a module that is imported into the mutant."""
    names: dict[str, Any] = {
        name: value for name, value in vars(module).items() if name[:2] == name[-2:] == "__"
    }
    # Classes that look their module up find one, which is not yet changed.
    exec(compile(source, str(module.__file__), "exec"), names)
    for name, new in names.items():
        if name[:2] == name[-2:] == "__" and name != "__all__":
            continue
        old = vars(module).get(name)
        kept = graft(old, new)
        if kept is old:
            continue
        vars(module)[name] = kept
        for other in list(sys.modules.values()):
            held = getattr(other, "__dict__", {})
            if other is not module and name in held and held[name] is old:
                held[name] = kept


class _Run:
    """A plugin of pytest that runs every mutant instead of the tests."""

    def __init__(
        self,
        module: Module,
        processes: int,
        budget: float,
        where: str,
        report: Callable[[Mutant, str], None],
    ):
        self.module, self.processes, self.report = module, processes, report
        self.budget, self.where = budget, where
        self.failed = ""
        self.stop = self.done = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """End a mutant at the first failure."""
        if report.failed:
            if self.stop:
                os._exit(1)
            self.failed = self.failed or f"{report.nodeid}\n{report.longreprtext}"

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests once with coverage, then the mutants."""
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "coverage")
            process = _fork(lambda: self._look(session, path), path)
            _, status = os.waitpid(process, 0)
            if status:
                words = path.read_text(encoding="utf-8") if path.exists() else f"status {status}"
                raise session.Interrupted(f"the tests fail without a mutant: {words}")
            by_line, durations = pickle.loads(path.read_bytes())
        seconds = sum(durations.values())
        print(f"{self.module.name}: {len(durations)} tests, {seconds:.0f} s", flush=True)
        running: dict[int, tuple[Mutant, float]] = {}
        waiting = mutants(self.module.path.read_text(encoding="utf-8"))[::-1]
        waiting = [mutant for mutant in waiting if re.search(self.where, " | ".join(mutant.name))]
        while waiting or running:
            while waiting and len(running) < self.processes:
                mutant = waiting.pop()
                chosen = self._chosen(session, mutant, by_line, durations)
                if not chosen:
                    self.report(mutant, "not covered")
                    continue
                seconds = 20 + 5 * sum(durations[item.nodeid] for item in chosen)
                child = _fork(functools.partial(self._mutate, mutant, chosen, seconds))
                running[child] = mutant, time.monotonic() + 4 * seconds
            if not running:
                continue
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                for child, (_, end) in running.items():
                    if time.monotonic() > end:
                        os.kill(child, signal.SIGKILL)
                time.sleep(0.005)
            elif pid in running:
                self.report(running.pop(pid)[0], "killed" if status else "survives")
        self.done = True
        return True

    def _chosen(
        self,
        session: pytest.Session,
        mutant: Mutant,
        by_line: Mapping[int, set[str]],
        durations: Mapping[str, float],
    ) -> list[Any]:
        """Return the tests that execute a line of the mutant.

        Of every function the fastest case, then the second of each: another case of a test that
        has passed seldom says something else.
        """
        first, last = mutant.lines
        names = set[str]().union(*(by_line.get(line, ()) for line in range(first, last + 1)))
        if not first:  # executed when it was imported
            names = {item.nodeid for item in session.items}
        rank: dict[str, int] = {}
        order = list[tuple[int, float, int, Any]]()
        for item in sorted(session.items, key=lambda item: durations[item.nodeid]):
            if item.nodeid in names:
                function = item.nodeid.split("[")[0]
                rank[function] = rank.get(function, -1) + 1
                order.append((rank[function], durations[item.nodeid], len(order), item))
        found, spent = list[Any](), 0.0
        for _, seconds, _, item in sorted(order):
            spent += seconds
            if not found or spent <= self.budget:
                found.append(item)
        return found

    def _look(self, session: pytest.Session, path: Path) -> None:
        """Write which tests execute which lines, and how long each takes."""
        import coverage

        watched = coverage.Coverage(
            data_file=None, config_file=False, include=[str(self.module.path)]
        )
        durations = dict[str, float]()
        # The module as it is, put in place like a mutant: that alone must not fail a test.
        put(importlib.import_module(self.module.imported), self.module.path.read_text("utf-8"))
        watched.start()
        for item, after in zip(session.items, [*session.items[1:], None], strict=True):
            watched.switch_context(item.nodeid)
            start = time.process_time()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            durations[item.nodeid] = time.process_time() - start
            if self.failed:
                path.write_text(self.failed, encoding="utf-8")
                os._exit(1)
        watched.stop()
        contexts = watched.get_data().contexts_by_lineno(str(self.module.path))
        by_line = {line: set(names) for line, names in contexts.items()}
        path.write_bytes(pickle.dumps((by_line, durations)))

    def _mutate(self, mutant: Mutant, items: Sequence[Any], seconds: float) -> None:
        """Run the tests with the mutant; the exit status tells what they said."""
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
        self.stop = True
        put(importlib.import_module(self.module.imported), mutant.source)
        for item, after in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)


def _fork(work: Callable[[], None], path: Path | None = None) -> int:
    """Do the work in a fork that says nothing and ends with 0, or with 1 if it raises.

    What it raises is written to the path.
    """
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        quiet = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(quiet, number)
        work()
        status = 0
    except BaseException:
        if path:
            path.write_text(traceback.format_exc(), encoding="utf-8")
    finally:
        os._exit(status)


def read(path: Path = LIST) -> list[Module]:
    """Return the modules with their tests and equivalent mutants."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    tests = tables.pop("tests")
    if unknown := set(tables) - set(tests):
        raise ListError(f"{path.name}: no tests of {', '.join(sorted(unknown))}")
    found = []
    for name, files in tests.items():
        source = PACKAGE / f"{name}.py"
        if missing := [f for f in (source, *files) if not (ROOT / str(f).split("::")[0]).exists()]:
            raise ListError(f"{path.name}: {name}: there is no {missing[0]}")
        equivalent = {}
        for entry in tables.get(name, []):
            if set(entry) != _KEYS or not entry["reason"].strip():
                raise ListError(f"{path.name}: {name}: {entry} needs {', '.join(sorted(_KEYS))}")
            equivalent[entry["where"], entry["old"], entry["new"]] = entry["reason"]
        imported = f"klapprox.{name.replace('/', '.')}".removesuffix(".__init__")
        found.append(Module(name, source, imported, files, equivalent))
    return found


def chosen(names: Sequence[str], modules: Sequence[Module]) -> list[Module]:
    """Return the modules with these names, or in folders with these names; all without names."""
    found = [m for m in modules if not names or m.name in names or m.name.split("/")[0] in names]
    known = {m.name for m in found} | {m.name.split("/")[0] for m in found}
    if missing := set(names) - known:
        raise ListError(f"no tests of {', '.join(sorted(missing))} in {LIST.name}")
    return found


def run(
    module: Module, processes: int = 2, budget: float = math.inf, where: str = ""
) -> dict[str, list[Mutant]]:
    """Run the mutants of a module; return them by what became of them."""
    found: dict[str, list[Mutant]] = {
        "killed": [],
        "survives": [],
        "not covered": [],
        "equivalent": [],
        "listed but killed": [],
    }

    def report(mutant: Mutant, end: str) -> None:
        listed = mutant.name in module.equivalent
        if listed:
            end = "listed but killed" if end == "killed" else "equivalent"
        found[end].append(mutant)
        if end not in {"killed", "equivalent"}:
            print(f"{module.name} | {' | '.join(mutant.name)} | {end}", flush=True)

    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        try:
            plugin = _Run(module, processes, budget, where, report)
            options = ["-s", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
            pytest.main([*options, *module.tests], [plugin])
            if plugin.done:
                sender.send(found)
        finally:
            os._exit(0)
    sender.close()
    try:
        return receiver.recv()  # type: ignore[no-any-return]
    except EOFError:
        raise ListError(f"{module.name}: its tests cannot be run") from None
    finally:
        os.waitpid(child, 0)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Run the mutants of the package.")
    parser.add_argument("names", nargs="*", help="modules, or folders of modules; all without any")
    parser.add_argument("--processes", type=int, default=2, help="at a time (%(default)s)")
    parser.add_argument(
        "--budget",
        type=float,
        default=math.inf,
        help="seconds of tests a mutant, the fastest: to look, not to be sure (%(default)s)",
    )
    parser.add_argument(
        "--where", default="", help="only mutants whose function and lines match this expression"
    )
    parser.add_argument("--tests", nargs="+", help="instead of those that the list names")
    parser.add_argument("--count", action="store_true", help="only count the mutants")
    arguments = parser.parse_args()
    total = dict.fromkeys(("mutants", "killed", "equivalent", "faults"), 0)
    try:
        for module in chosen(arguments.names, read()):
            if arguments.count:
                print(module.name, len(mutants(module.path.read_text(encoding="utf-8"))))
                continue
            start = time.monotonic()
            module = module._replace(tests=arguments.tests or module.tests)
            found = run(module, arguments.processes, arguments.budget, arguments.where)
            seen = {mutant.name for some in found.values() for mutant in some}
            gone = [name for name in module.equivalent if name not in seen and not arguments.where]
            for name in gone:
                print(f"{module.name} {' | '.join(name)} | listed but gone", flush=True)
            count = {end: len(some) for end, some in found.items()}
            killed = count["killed"] + count["listed but killed"]
            total["mutants"] += sum(count.values())
            total["killed"] += killed
            total["equivalent"] += count["equivalent"]
            alive = count["survives"] + count["not covered"]
            total["faults"] += alive + count["listed but killed"] + len(gone)
            print(
                f"{module.name}: {sum(count.values())} mutants, {killed} killed, "
                f"{count['equivalent']} equivalent, {alive} alive "
                f"({time.monotonic() - start:.0f} s)",
                flush=True,
            )
    except ListError as error:
        print(error, file=sys.stderr)
        return 1
    print("{mutants} mutants, {killed} killed, {equivalent} equivalent".format(**total))
    return int(total["faults"] > 0)


if __name__ == "__main__":
    sys.exit(main())
