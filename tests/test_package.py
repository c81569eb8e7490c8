"""The package's public face is small, and so is what importing it costs."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import klapprox

PACKAGE = Path(klapprox.__file__).parent


def test_the_public_names_are_these():
    names = (
        "KLEstimate KLStream KLWarning estimate_kl k1 k2 k3 k3_forward k_alpha k_f k_lambda kl_loss"
    )
    more = "log_ratio read_log_probabilities straight_through stream_dask stream_kl weighted"
    assert klapprox.__all__ == [*names.split(), *more.split()]
    assert all(callable(getattr(klapprox, name)) for name in klapprox.__all__)


def test_importing_the_package_loads_none_of_the_books_libraries():
    code = "import klapprox, sys; print(*{'sympy', 'matplotlib', 'scipy'} & sys.modules.keys())"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


@pytest.mark.parametrize("room", ["families", "policies", "sequences"])
def test_the_rooms_of_exact_are_at_the_top_level_too(room):
    assert getattr(klapprox, room).__name__ == f"klapprox.exact.{room}"


def test_what_is_imported_when_asked_for_is_listed_too():
    listed = set(dir(klapprox))
    assert {*klapprox.__all__, "__version__"} < listed
    for name in ("families", "identify", "policies", "sequences", "vocabulary"):
        assert name in listed
        assert getattr(klapprox, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'klapprox' has no attribute 'k4'"):
        klapprox.k4  # noqa: B018


def imported(path):
    """Return the modules that a file imports anywhere, as written."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward_imports(package):
    """Return imports from a room of one above it: samples, then exact laws, then the book."""
    above = {"exact": ("klapprox.book",), "book": ()}
    faults = []
    for path in sorted(package.rglob("*.py")):
        forbidden = above.get(path.parent.name, ("klapprox.book", "klapprox.exact"))
        faults += [(path.name, name) for name in imported(path) if name.startswith(forbidden)]
    return faults


def test_every_import_points_downwards():
    assert upward_imports(PACKAGE) == []


@pytest.mark.parametrize("line", ["from klapprox.book import verify", "import klapprox.exact"])
def test_an_import_that_points_upwards_is_found(tmp_path, line):
    (tmp_path / "estimate.py").write_text(f"def f():\n    {line}\n")
    assert len(upward_imports(tmp_path)) == 1


def test_each_field_of_a_named_tuple_of_the_reference_is_described():
    """The reference leaves them to the docstring of the class."""
    described = {}
    for name in ("estimators", "files", "exact.families", "exact.sequences", "book.verify"):
        module = importlib.import_module(f"klapprox.{name}")
        for cls in vars(module).values():
            own = isinstance(cls, type) and cls.__module__ == module.__name__
            if own and hasattr(cls, "_fields") and not cls.__name__.startswith("_"):
                attributes = inspect.getdoc(cls).partition("Attributes\n----------\n")[2]
                heads = re.findall(r"^(\w[\w, ]*) : ", attributes, re.MULTILINE)
                described[cls.__name__] = {one for head in heads for one in head.split(", ")}
                assert described[cls.__name__] == set(cls._fields), cls
    assert len(described) >= 6
