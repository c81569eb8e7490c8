"""A notebook that is none, never ends, or kills its kernel: a sentence within seconds."""

import errno
import json
import os
import shutil
import subprocess
import sys

import nbformat
import pytest

from bookbuild import notebooks, rules

NEVER_ENDS = "while True: pass"
WILL_NOT_BE_STOPPED = """\
while True:
    try:
        while True: pass
    except KeyboardInterrupt: pass"""
DIES = "import os; os._exit(1)"
LIMIT = 2
OPTIONS = ["--check", "--prose"]


@pytest.fixture
def notebook(tmp_path):
    """Return a function that stores a notebook of these cells."""

    def store(*sources):
        cells = [nbformat.v4.new_code_cell(source, execution_count=1) for source in sources]
        path = tmp_path / "some.ipynb"
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
        return path

    return store


def run(*command):
    """Run a command of the project; return its exit code and all that it printed."""
    result = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=rules.ROOT,
        env=os.environ | {"COLUMNS": "400"},
        capture_output=True,
        text=True,
        timeout=120,  # far more than it takes, far less than nbval's 2000 s
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


def compare(path):
    """Compare a notebook with a fresh run, as ``make test`` does."""
    shutil.copy(rules.ROOT / "conftest.py", path.parent)
    options = ["-c", "pyproject.toml", f"--confcutdir={path.parent}", "-p", "no:cacheprovider"]
    return run("-m", "pytest", *options, "--nbval", f"--nbval-cell-timeout={LIMIT}", path)


def execute(path):
    """Re-execute a notebook, as ``make notebooks`` does."""
    return run("bookbuild/notebooks.py", "--limit", LIMIT, path)


def test_a_sound_notebook_passes(notebook):
    path = notebook("a = 1", "assert a == 1")
    assert compare(path)[0] == 0
    code, said = execute(path)
    assert code == 0
    assert f"executed {path}\n" in said
    assert not [*path.parent.glob(".some*")]


@pytest.mark.parametrize("source", [NEVER_ENDS, WILL_NOT_BE_STOPPED])
def test_a_cell_that_never_ends_is_named(notebook, source):
    path = notebook("a = 1", source, "a = 2")
    code, said = compare(path)
    assert code == 1
    assert f"Timeout of {LIMIT} seconds exceeded" in said
    assert "Cell 1: " in said
    assert "1 failed, 1 passed, 1 skipped" in said
    stored = path.read_bytes()
    code, said = execute(path)
    assert code == 1
    assert f"{path}: a cell did not end within {LIMIT} s" in said
    assert path.read_bytes() == stored


def test_a_kernel_that_dies_is_noticed(notebook):
    path = notebook("a = 1", DIES, "a = 2")
    code, said = compare(path)
    assert code == 1
    assert "Cell 1: The kernel died while it ran this cell" in said
    assert "1 failed, 1 passed, 1 skipped" in said
    code, said = execute(path)
    assert code == 1
    assert f"{path}: its kernel died" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("step", ["write", "replace"])
def test_a_disk_that_takes_no_notebook_leaves_the_old_one(notebook, monkeypatch, code, step):
    path = notebook("a = 1")
    stored = path.read_bytes()

    def refused(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(notebooks.NotebookClient, "execute", lambda client: None)
    if step == "write":
        monkeypatch.setattr(notebooks.nbformat, "write", refused)
    else:
        monkeypatch.setattr(notebooks.os, "replace", refused)
    with pytest.raises(notebooks.NotebookError, match=r"could not be stored .*it is as it was"):
        notebooks.execute(path)
    assert path.read_bytes() == stored
    assert [*path.parent.iterdir()] == [path], "nothing half-written is left"


def test_a_cell_that_fails_is_shown_with_its_file(notebook):
    path = notebook("raise LookupError('no')")
    code, said = execute(path)
    assert code == 1
    assert f"{path}: a cell failed" in said
    assert "LookupError" in said
    assert "concurrent" not in said


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "not JSON",
        lambda text: "[]",
        lambda text: json.dumps({"cells": 1}),
        lambda text: json.dumps({"cells": [{}], "nbformat": 4, "nbformat_minor": 5}),
        lambda text: "\ufffd".encode("utf-16"),
    ],
    ids=["empty", "truncated", "text", "list", "no cells", "hollow", "bytes"],
)
def test_a_file_that_is_no_notebook_is_named(notebook, spoil):
    path = notebook("a = 1")
    spoilt = spoil(path.read_text(encoding="utf-8"))
    path.write_bytes(spoilt if isinstance(spoilt, bytes) else spoilt.encode())
    with pytest.raises(notebooks.NotebookError) as error:
        notebooks.read(path)
    assert str(error.value).startswith(f"{path} is not a whole notebook")


@pytest.mark.parametrize(
    "command",
    [compare, execute]
    + [lambda path, o=option: run("bookbuild/notebooks.py", o, path) for option in OPTIONS],
    ids=["compare", "execute", *OPTIONS],
)
def test_every_command_names_it(notebook, command):
    path = notebook("a = 1")
    os.truncate(path, 30)
    code, said = command(path)
    assert code != 0
    assert f"{path} is not a whole notebook" in said
    assert "Traceback" not in said
