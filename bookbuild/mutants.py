"""False neighbours of the book's statements, and what refuses them: ``make mutants``.

Each mutant changes a claim in the cell of a check, or a helper in `klapprox.book`, into something
plausible and false. They stand by label in ``tests/book/mutants/CHAPTER.toml``::

    [[thm-what-is-stated]]
    what = "T - 1 for T"
    old = 'n * variance'
    new = '(n - 1) * variance'

``old`` occurs exactly once in the cells that check this label (however lines are broken there);
with ``of = "symbolic"`` it occurs once in that module of `klapprox.book`, and the
first of the cells has to notice, or the one numbered by ``cell`` (from 1). A label that is checked
has at least two mutants, or a sentence in the table ``[reasons]``.

The cells that a check needs are run, then the check itself, which has to pass, then each mutant in
a fork of that process. A mutant is killed if a claim or an ``assert`` refuses it. Every other
error, and a claim whose sides no longer fit, makes it a broken mutant and not a killed one.
"""

import argparse
import ast
import contextlib
import dis
import functools
import inspect
import io
import os
import re
import sys
import time
import tomllib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from bookbuild import statements
from klapprox.book import densities, symbolic, verify

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "book" / "mutants"
MODULES = {"symbolic": symbolic, "densities": densities}
LIMIT = 120.0  # seconds a mutant; most take less than one
LEAST = 2  # mutants of a label
_KEYS = {"what", "old", "new", "of", "cell"}
# Refusals that say nothing about the claim: its sides do not fit together, or are no exact numbers.
_MALFORMED = re.compile(
    r"values on the left|there are no cases|is not exact|is undefined|needs words|"
    r"without a claim|only finite numbers|could not be proved equal"
)
_TOKEN = re.compile(r"""\"(?:[^"\\]|\\.)*\"|\w+|\S""")
_UNPROVED = "could not be proved"
_CHANGING = {name for kind in (list, set, dict) for name in vars(kind) if name[0] != "_"}
_COMPREHENSIONS = {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}


def _pattern(text: str) -> re.Pattern[str]:
    """Return what finds a piece of code however a formatter breaks its lines."""
    tokens = _TOKEN.findall(re.sub(r",\s*(?=[)\]}])", "", text)) or [""]
    found = r"(?<!\w)" if tokens[0][:1].isalnum() else ""
    for before, token in zip(["", *tokens], tokens, strict=False):
        words = re.match(r"\w", token) and re.search(r"\w\Z", before)
        gap = r"\s+" if words else r"\s*,?\s*" if token in ")]}" else r"\s*" if before else ""
        found += gap + re.escape(token)
    return re.compile(found + (r"(?!\w)" if tokens[-1][-1:].isalnum() else ""))


class MutantError(Exception):
    """A mutant that cannot be read or applied; the message says which and why."""


@dataclass(frozen=True)
class Mutant:
    """One change that makes a statement false."""

    label: str
    what: str
    old: str
    new: str
    of: str = "check"
    cell: int = 1

    def applied(self, source: str) -> str:
        """Return the source with the change, or say that it does not fit."""
        pattern = _pattern(self.old)
        found = len(pattern.findall(source))
        if not self.old.strip():
            raise MutantError(f"{self.label}: {self.what}: its old text is empty")
        if found != 1:
            raise MutantError(f"{self.label}: {self.what}: {self.old!r} occurs {found} times")
        changed = pattern.sub(lambda _: self.new, source)
        try:
            same = ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source))
        except SyntaxError as error:
            raise MutantError(f"{self.label}: {self.what}: {error}") from error
        if same:
            raise MutantError(f"{self.label}: {self.what}: nothing is changed")
        return changed


@dataclass(frozen=True)
class Chapter:
    """The code cells of a notebook, and by label the numbers of those that check it."""

    path: Path
    sources: list[str]
    checks: dict[str, list[int]]

    @classmethod
    def read(cls, path: Path) -> "Chapter":
        """Return the chapter of a notebook."""
        cells = statements.cells(path)
        code = [number for number, cell in enumerate(cells) if cell["cell_type"] == "code"]
        checks: dict[str, list[int]] = {}
        for check in statements.checks(path):
            cell = code.index(check.cell)
            if cell not in checks.setdefault(check.label, []):
                checks[check.label].append(cell)
        return cls(path, [cells[number]["source"] for number in code], checks)

    def place(self, mutant: Mutant) -> tuple[int, str]:
        """Return the cell that a mutant is about, and what it makes of the cell or the module."""
        cells = self.checks.get(mutant.label, [])
        if not cells:
            raise MutantError(f"{mutant.label}: no check of {self.path.name} names it")
        if mutant.of != "check":
            if mutant.cell not in range(1, len(cells) + 1):
                raise MutantError(f"{mutant.label}: {mutant.what}: no check {mutant.cell}")
            return cells[mutant.cell - 1], mutant.applied(inspect.getsource(MODULES[mutant.of]))
        # Cells joined, so that the text of a mutant cannot mean two of them.
        joined = "\n#\n".join(self.sources[cell] for cell in cells)
        changed = mutant.applied(joined).split("\n#\n")
        for cell, source in zip(cells, changed, strict=True):
            if source != self.sources[cell]:
                return cell, source
        raise MutantError(f"{mutant.label}: {mutant.what}: nothing is changed")


def read(path: Path) -> tuple[list[Mutant], dict[str, str]]:
    """Return the mutants of a file and the reasons why labels have fewer than two."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise MutantError(f"{path.name}: {error}") from error
    reasons = tables.pop("reasons", {})
    found = []
    for label, entries in tables.items():
        for entry in entries:
            wrong = set(entry) - _KEYS or {"what", "old", "new"} - set(entry)
            if wrong or entry.get("of", "symbolic") not in MODULES:
                raise MutantError(f"{path.name}: {label}: {entry}: look at {wrong or 'of'}")
            found.append(Mutant(label, **entry))
    return found, reasons


def faults(mutants: list[Mutant], reasons: dict[str, str], chapter: Chapter) -> list[str]:
    """Return, without running anything, mutants that do not apply and labels that have too few."""
    found = []
    names = [(mutant.label, mutant.what) for mutant in mutants]
    found += [
        f"{label}: {what}: twice" for label, what in set(names) if names.count((label, what)) > 1
    ]
    for mutant in mutants:
        try:
            chapter.place(mutant)
        except MutantError as error:
            found.append(str(error))
    for label in chapter.checks:
        count = sum(mutant.label == label for mutant in mutants)
        if count < LEAST and not reasons.get(label, "").strip():
            found.append(f"{label}: {count} mutants and no reason")
    for label in reasons:
        if label not in chapter.checks:
            found.append(f"{label}: a reason, but no check of {chapter.path.name} names it")
    return found


def _changed_in_place(source: str) -> Iterator[str]:
    """Yield the names whose objects a cell may change, as in ``x[0] = 1`` or ``x.append(1)``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            root: ast.expr = node
        elif (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Attribute)
            and node.value.func.attr in _CHANGING
        ):
            root = node.value.func
        else:
            continue
        while isinstance(root, ast.Attribute | ast.Subscript):
            root = root.value
        if isinstance(root, ast.Name):
            yield root.id


@dataclass(frozen=True)
class Use:
    """What a cell does with global names; what it reads of its own making does not count."""

    stored: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    read_later: set[str] = field(default_factory=set)  # by functions

    @classmethod
    @functools.cache
    def of(cls, source: str) -> "Use":
        """Return what a cell does."""
        use = cls()
        use._look_at(compile(source, "cell", "exec"), use.read)
        for name in _changed_in_place(source):
            if name not in use.stored:
                use.stored.add(name)
                use.read.add(name)
        return use

    def _look_at(self, code: CodeType, read: set[str]) -> None:
        for instruction in dis.get_instructions(code):
            value = instruction.argval
            if instruction.opname in {"STORE_NAME", "STORE_GLOBAL"}:
                self.stored.add(value)
            elif instruction.opname in {"LOAD_NAME", "LOAD_GLOBAL"} and value not in self.stored:
                read.add(value)
            elif isinstance(value, CodeType):  # a comprehension runs here and now
                self._look_at(value, read if value.co_name in _COMPREHENSIONS else self.read_later)


def needed(sources: list[str], target: int) -> list[int]:
    """Return the cells before the target that it needs, in order: those that made its names.

    What a function reads is looked for before the function, and behind it if it is not there. The
    check then runs once as it is: that shows whether these cells are enough.
    """
    uses = [Use.of(source) for source in sources[: target + 1]]
    found: set[int] = set()
    waiting = [target]
    while waiting:
        cell = waiting.pop()
        makers: set[int] = set()
        for name in uses[cell].read:
            makers.update([j for j in range(cell) if name in uses[j].stored][-1:])
        for name in uses[cell].read_later - uses[cell].stored:
            at = [j for j in range(target) if name in uses[j].stored]
            makers.update([j for j in at if j < cell][-1:] or at[-1:])
        new = makers - found - {target}
        found |= new
        waiting += new
    return sorted(found)


class Fate(NamedTuple):
    """What became of a mutant: killed, unproved, survives, broken; and the words for it."""

    chapter: str
    mutant: Mutant
    end: str
    words: str


def _run(sources: Iterable[tuple[int, str]], namespace: dict[str, Any], name: str) -> None:
    """Run cells without what they print."""
    with contextlib.redirect_stdout(io.StringIO()):
        for number, source in sources:
            exec(compile(source, f"{name}, code cell {number}", "exec"), namespace)


def _mutate(sender: Connection, work: tuple[Any, ...]) -> None:
    """Run one mutant in this process, which is a fork, and send its end and the words for it."""
    chapter, mutant, target, changed, setup, namespace = work
    try:
        if mutant.of != "check":
            exec(compile(changed, f"{mutant.of}.py", "exec"), vars(MODULES[mutant.of]))
            namespace, changed = {}, chapter.sources[target]
            _run(setup, namespace, chapter.path.name)
        _run([(target, changed)], namespace, chapter.path.name)
    except verify.VerificationError as error:
        words = str(error).removeprefix(f"{mutant.label}: ")
        end = "unproved" if _UNPROVED in words else "killed"
        sender.send(("broken" if _MALFORMED.search(words) else end, words))
    except AssertionError as error:
        line = error.__traceback__
        while line and line.tb_next:
            line = line.tb_next
        sender.send(("killed", f"assert in line {line.tb_lineno if line else '?'}"))
    except Exception as error:
        sender.send(("broken", f"{type(error).__name__}: {error}"))
    else:
        sender.send(("survives", ""))


def _fates(
    sender: Connection, chapter: Chapter, target: int, mutants: list[Mutant], limit: float
) -> None:
    """Run the cells that a check needs, the check, and its mutants; send what became of each."""
    os.chdir(chapter.path.parent)
    changed, cells, namespace = {}, set[int](), dict[str, Any]()
    for mutant in mutants:
        changed[mutant] = chapter.place(mutant)[1]
        source = chapter.sources[target] if mutant.of != "check" else changed[mutant]
        cells.update(needed([*chapter.sources[:target], source], target))
    setup = [(cell, chapter.sources[cell]) for cell in sorted(cells)]
    try:
        _run(setup, namespace, chapter.path.name)
        # In a copy: mutants then find what it computed in SymPy's cache, and none of its names.
        _run([(target, chapter.sources[target])], dict(namespace), chapter.path.name)
    except Exception as error:
        words = f"the check itself fails: {type(error).__name__}: {error}"
        for mutant in mutants:
            sender.send(Fate(chapter.path.stem, mutant, "broken", words))
        return
    context = get_context("fork")
    for mutant in mutants:
        receiver, end = context.Pipe(duplex=False)
        work = chapter, mutant, target, changed[mutant], setup, dict(namespace)
        process = context.Process(target=_mutate, args=(end, work))
        process.start()
        end.close()
        try:
            fate = receiver.recv() if receiver.poll(limit) else ("broken", f"no end in {limit:g} s")
        except EOFError:
            fate = "broken", "its process died"
        process.kill()
        process.join()
        sender.send(Fate(chapter.path.stem, mutant, *fate))


def fates(
    work: list[tuple[Chapter, list[Mutant]]], processes: int = 2, limit: float = LIMIT
) -> Iterator[Fate]:
    """Yield what becomes of every mutant, as it is known; so many checks are run at a time."""
    waiting = []
    for chapter, mutants in work:
        by_cell: dict[int, list[Mutant]] = {}
        for mutant in mutants:
            try:
                by_cell.setdefault(chapter.place(mutant)[0], []).append(mutant)
            except MutantError as error:
                yield Fate(chapter.path.stem, mutant, "broken", str(error))
        waiting += [(chapter, cell, found) for cell, found in by_cell.items()]
    waiting.reverse()
    context, running = get_context("fork"), dict[Any, Any]()
    while waiting or running:
        while waiting and len(running) < processes:
            here, sender = context.Pipe(duplex=False)
            process = context.Process(target=_fates, args=(sender, *waiting.pop(), limit))
            process.start()
            sender.close()
            running[here] = process
        ready: list[Any] = wait(list(running))
        for receiver in ready:
            try:
                yield receiver.recv()
            except EOFError:
                running.pop(receiver).join()


def chosen(
    names: Collection[str], folder: Path = FOLDER, chapters: Path = ROOT / "chapters"
) -> list[tuple[Chapter, list[Mutant]]]:
    """Return the chapters and mutants with these names of chapters or labels; all without names."""
    work = []
    for path in sorted(folder.glob("*.toml")):
        mutants, _ = read(path)
        if names and path.stem not in names:
            mutants = [mutant for mutant in mutants if mutant.label in names]
        if mutants:
            work.append((Chapter.read(chapters / f"{path.stem}.ipynb"), mutants))
    known = {c.path.stem for c, _ in work} | {m.label for _, found in work for m in found}
    if missing := set(names) - known:
        raise MutantError(f"no mutants of {', '.join(sorted(missing))} in {folder}")
    return work


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Run the false neighbours of the statements.")
    parser.add_argument("names", nargs="*", help="chapters or labels; all without any")
    parser.add_argument("--processes", type=int, default=2, help="at a time (%(default)s)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds a mutant (%(default)s)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the files with mutants")
    parser.add_argument("--chapters", type=Path, default=ROOT / "chapters", help="the notebooks")
    arguments = parser.parse_args()
    start, ends = time.perf_counter(), list[str]()
    try:
        work = chosen(arguments.names, arguments.folder.resolve(), arguments.chapters.resolve())
        for fate in fates(work, arguments.processes, arguments.limit):
            mutant = fate.mutant
            words = f": {fate.words}" if fate.words else ""
            print(
                f"{fate.chapter} {mutant.label} | {mutant.what} | {fate.end}{words}"[:240],
                flush=True,
            )
            ends.append(fate.end)
    except MutantError as error:
        print(error, file=sys.stderr)
        return 1
    unproved = ends.count("unproved")
    killed = ends.count("killed") + unproved
    seconds, survive, broken = time.perf_counter() - start, *map(ends.count, ("survives", "broken"))
    print(f"{seconds:.0f} s; {survive} survive, {broken} are broken")
    aside = f" ({unproved} because a claim could no longer be proved)" if unproved else ""
    print(f"{len(ends)} mutants, {killed} killed{aside}")
    return int(killed < len(ends) or not ends)


if __name__ == "__main__":
    sys.exit(main())
