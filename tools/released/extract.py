"""Take functions out of source files by name, without importing what they belong to.

What a function needs from its own file (helpers, constants, classes) comes along; what it imports
must be given. Decorators that change what automatic differentiation sees are kept, the others must
be named by whoever leaves them out. A missing definition, two of a name, an unknown decorator and
an option that the function never looks at raise `ExtractionError`.
"""

import __future__

import ast
import builtins
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# They change what is differentiated, so they stay.
KEPT = {f"{t}.{f}" for t in ("torch", "th") for f in ("no_grad", "inference_mode", "enable_grad")}
# They say how a method is looked up, which taking it out by name does already.
DROPPED = {"staticmethod", "classmethod"}


class ExtractionError(Exception):
    """The source is not what its entry says; the message names file and place."""


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of one scope, those under ``if`` and ``try`` included."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            yield from statements(statement.body)
            yield from statements(getattr(statement, "orelse", []))
            for handler in getattr(statement, "handlers", []):
                yield from statements(handler.body)


@dataclass
class Source:
    """One source file of a release."""

    name: str
    text: str
    used: list[dict[str, Any]] = field(default_factory=list)  # what was taken out: function, line

    def __post_init__(self) -> None:
        self.tree = ast.parse(self.text)

    def definition(self, qualified: str) -> Any:
        """Return the one definition of this name, ``Class.method`` for a method."""
        body = self.tree.body
        for part in qualified.split("."):
            found = [n for n in statements(body) if isinstance(n, DEFINITIONS) and n.name == part]
            if len(found) != 1:
                raise ExtractionError(
                    f"{self.name}: {qualified} has {len(found)} definitions, not 1"
                )
            body = found[0].body
        return found[0]

    def function(
        self, qualified: str, names: dict[str, Any], *, without: Collection[str] = ()
    ) -> Callable[..., Any]:
        """Return a function or method alone, in a module of its own.

        ``names`` is what it finds imported, ``without`` the decorators that are left out.
        """
        node = self.definition(qualified)
        names = {"__name__": self.name, **names}
        self._provide(node, names, without)
        self._run([self._undecorated(node, without)], names)
        self.used.append({"file": self.name, "function": qualified, "line": node.lineno})
        return _watched(names[node.name], node, self.name)

    def cut(
        self, qualified: str, targets: Collection[str], *, count: int, containing: str = ""
    ) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """Return the assignments to ``targets`` in a method that cannot be called as a whole.

        The ``if`` and ``with torch.no_grad()`` around them stay, loops do not. Their number must
        be ``count``. The result runs them on a dictionary of local names and returns it.
        """
        found: list[ast.stmt] = []

        def kept(body: list[ast.stmt]) -> list[ast.stmt]:
            result: list[ast.stmt] = []
            for statement in body:
                if isinstance(statement, ast.Assign) and _assigns(statement, targets, containing):
                    found.append(statement)
                    result.append(statement)
                elif isinstance(statement, ast.If):
                    then, other = kept(statement.body), kept(statement.orelse)
                    if then or other:
                        result.append(ast.If(statement.test, then or [ast.Pass()], other))
                elif isinstance(statement, ast.With):
                    inner = kept(statement.body)
                    guard = _called(statement.items[0].context_expr) in KEPT
                    result += [ast.With(statement.items, inner)] if inner and guard else inner
                elif isinstance(statement, ast.For | ast.While | ast.Try):
                    result += kept(statement.body) + kept(statement.orelse)
            return result

        node = self.definition(qualified)
        body = kept(node.body)
        if len(found) != count:
            lines = "".join(f"\n  {s.lineno}: {ast.unparse(s)}" for s in found)
            raise ExtractionError(
                f"{self.name}: {qualified} has {len(found)} such statements, not {count}{lines}"
            )
        code = self._compiled(body)
        self.used.append({"file": self.name, "function": qualified, "line": found[0].lineno})

        def run(local: dict[str, Any]) -> dict[str, Any]:
            exec(code, local)
            return local

        return run

    def setting(self, qualified: str) -> Any:
        """Return a default: a field of a class, a parameter of a function or an option of argparse.

        ``Class.field``, ``function(parameter)``, or ``--option``. It is read and not run: a literal
        comes as its value, anything else as its source.
        """
        if qualified.startswith("--"):
            values = list(_argparse_defaults(self.tree, qualified))
        elif qualified.endswith(")"):
            function, parameter = qualified[:-1].split("(")
            values = list(_parameter_defaults(self.definition(function).args, parameter))
        else:
            owner, name = qualified.rsplit(".", 1)
            values = list(_field_defaults(self.definition(owner), name))
        return self._literal(qualified, values)

    def assigned(self, qualified: str, target: str) -> Any:
        """Return what the one assignment to ``target`` in a function assigns, as `setting` does."""
        nodes = ast.walk(self.definition(qualified))
        values = [
            n.value
            for n in nodes
            if isinstance(n, ast.Assign) and target in map(ast.unparse, n.targets)
        ]
        return self._literal(f"{target} in {qualified}", values)

    def _literal(self, what: str, values: list[ast.expr]) -> Any:
        if len(values) != 1:
            raise ExtractionError(f"{self.name}: {what} has {len(values)} values, not 1")
        self.used.append({"file": self.name, "setting": what, "line": values[0].lineno})
        try:
            return ast.literal_eval(values[0])
        except ValueError:
            return ast.unparse(values[0])

    def _provide(self, node: ast.AST, names: dict[str, Any], without: Collection[str]) -> None:
        """Put what the node needs from its own file into ``names``, in the order of the file."""
        top: dict[str, list[ast.stmt]] = {}
        for statement in statements(self.tree.body):
            for name in _bound(statement):
                top.setdefault(name, []).append(statement)
        needed: list[ast.stmt] = []
        todo, seen = [node], {getattr(node, "name", "")}
        while todo:
            for name in _free(todo.pop()):
                if name in seen or name in names or name not in top or hasattr(builtins, name):
                    continue
                seen.add(name)
                if len(top[name]) != 1:
                    raise ExtractionError(f"{self.name}: {name} is bound {len(top[name])} times")
                needed += top[name]
                todo += top[name]
        for statement in sorted(needed, key=lambda s: s.lineno):
            plain = isinstance(statement, ast.Assign | ast.AnnAssign)
            self._run([statement if plain else self._undecorated(statement, without)], names)

    def _undecorated(self, node: Any, without: Collection[str]) -> Any:
        kept = []
        for decorator in node.decorator_list:
            name = _called(decorator)
            if name in KEPT:
                kept.append(decorator)
            elif name not in DROPPED and name not in without:
                raise ExtractionError(f"{self.name}: {node.name} has the decorator {name}")
        node.decorator_list = kept
        return node

    def _compiled(self, body: list[ast.stmt]) -> Any:
        module = ast.fix_missing_locations(ast.Module(body, []))
        # Annotations name things that were imported only to be named.
        flags = __future__.annotations.compiler_flag
        return compile(module, self.name, "exec", flags=flags, dont_inherit=True)

    def _run(self, body: list[ast.stmt], names: dict[str, Any]) -> None:
        exec(self._compiled(body), names)


def yaml_setting(name: str, text: str, path: str) -> Any:
    """Return the value at ``a.b.c`` of a YAML file."""
    import yaml

    value = yaml.safe_load(text)
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            raise ExtractionError(f"{name}: there is no {path}")
        value = value[key]
    return value


def _called(node: ast.AST) -> str:
    return ast.unparse(node.func if isinstance(node, ast.Call) else node)


def _assigns(statement: ast.Assign, targets: Collection[str], containing: str) -> bool:
    names = {t.id for t in statement.targets if isinstance(t, ast.Name)}
    return bool(names & set(targets)) and containing in ast.unparse(statement)


def _bound(statement: ast.stmt) -> list[str]:
    """Return the names that a definition or an assignment of a module binds."""
    if isinstance(statement, DEFINITIONS):
        return [statement.name]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return [statement.target.id]
    if isinstance(statement, ast.Assign):
        return [t.id for t in statement.targets if isinstance(t, ast.Name)]
    return []


def _free(node: ast.AST) -> set[str]:
    """Return the names that are read in a node, annotations aside."""
    found: set[str] = set()

    def visit(part: ast.AST) -> None:
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load):
            found.add(part.id)
        for name, value in ast.iter_fields(part):
            if name in {"annotation", "returns", "decorator_list"}:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child)

    visit(node)
    return found


def _watched(function: Callable[..., Any], node: Any, file: str) -> Callable[..., Any]:
    """Return the function, refusing keywords that it takes and never looks at."""
    read = _free(node)
    strings = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
    parameters = {a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}

    def call(*args: Any, **options: Any) -> Any:
        for name in options:
            if name not in (read if name in parameters else strings):
                raise ExtractionError(f"{file}: {node.name} swallows the option {name}")
        return function(*args, **options)

    return call


def _field_defaults(owner: ast.ClassDef, name: str) -> Iterator[ast.expr]:
    for statement in owner.body:
        if name in _bound(statement) and statement.value is not None:
            keywords = {k.arg: k.value for k in getattr(statement.value, "keywords", [])}
            yield keywords.get("default", keywords.get("default_factory", statement.value))


def _parameter_defaults(args: ast.arguments, name: str) -> Iterator[ast.expr]:
    plain = [*args.posonlyargs, *args.args]
    pairs = [*zip(plain[len(plain) - len(args.defaults) :], args.defaults, strict=True)]
    pairs += zip(args.kwonlyargs, args.kw_defaults, strict=True)
    yield from (value for arg, value in pairs if arg.arg == name and value is not None)


def _argparse_defaults(tree: ast.AST, option: str) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            named = option in {getattr(a, "value", None) for a in node.args}
            yield from (k.value for k in node.keywords if named and k.arg == "default")
