"""What takes long to try: full and read-only disks, no network, odd folders, two at once.

``make faults``. Quick faults are among the usual tests: notebooks that are none, never end or kill
their kernel in ``tests/bookbuild/test_execution.py``, builds that are stopped anywhere in
``test_make_site.py``, installations in ``tests/test_locks.py``. Here the disks are real.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from bookbuild import make_site, rules

BUILD = [sys.executable, rules.ROOT / "bookbuild/make_site.py"]
CONFIG = 'title: Two pages\nonly_build_toc_files: true\nexecute: {execute_notebooks: "off"}\n'


def run(command, cwd, **environment):
    """Run a command as a reader would; return its exit status and all that it printed."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "MAKE", "MFLAGS", "PYTHONPATH"))
    }
    result = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout


def twice_at_once(command, cwd):
    """Run a command twice at the same time, both with success; return what each printed."""
    both = [
        subprocess.Popen(
            command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    return said


def write_book(folder):
    """Write a book of two pages."""
    folder.mkdir()
    (folder / "_config.yml").write_text(CONFIG)
    (folder / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters:\n- file: other\n")
    (folder / "index.md").write_text("# Jeffreys\n\nSee {doc}`other`.\n")
    (folder / "other.md").write_text("# Other\n\nA page.\n")
    return folder


def files(site):
    """Return the digests of all files of a site."""
    return {
        str(path.relative_to(site)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in site.rglob("*")
        if path.is_file()
    }


# --- Disks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kilobytes", [20, 600])
def test_a_full_disk_leaves_no_half_site(tmp_path, mounted, kilobytes):
    book = write_book(tmp_path / "book")
    (book / "_build").mkdir()
    begin = mounted(book / "_build", f"-t tmpfs -o size={kilobytes}k none")
    look = f"find '{book}/_build' -name index.html -exec echo LEFT {{}} ';'"
    code, said = run(
        [*begin, "sh", "-c", f'"$@"; status=$?; {look}; exit $status', "sh", *BUILD, book], tmp_path
    )
    assert code == 1, said
    assert "No space is left on the disk" in said
    assert "There is no site yet." in said
    assert "LEFT" not in said


def test_a_read_only_folder_keeps_its_old_site(tmp_path, mounted):
    book = write_book(tmp_path / "book")
    assert run([*BUILD, book], tmp_path)[0] == 0
    before = files(book / "_build/html")
    (book / "index.md").write_text("# Jeffreys\n\nNew. {doc}`other`\n")
    begin = mounted(book, f"--bind '{book}'", "-o remount,ro,bind")
    code, said = run([*begin, *BUILD, book], tmp_path)
    assert code == 1
    assert f"{book}/_build cannot be written" in said
    assert "is still the site of the last whole build." in said
    assert "Traceback" not in said
    assert files(book / "_build/html") == before


@pytest.mark.parametrize("mount", ["-t tmpfs -o size=4m none", "-t tmpfs -o ro none"])
def test_an_installation_on_such_a_disk_says_so(project, mounted, mount):
    (project / "here").mkdir()
    begin = mounted(project / "here", mount)
    code, said = run([*begin, sys.executable, "tools/bootstrap.py", "here/.venv"], project)
    assert code == 1, said
    wanted = "cannot be written" if "ro" in mount else "No space is left on the disk"
    assert wanted in said.splitlines()[-1]
    assert "Traceback" not in said.splitlines()[-1]


def test_a_notebook_on_a_read_only_disk_is_as_it_was(tmp_path, mounted):
    shutil.copy(rules.ROOT / "chapters/why.ipynb", tmp_path)
    begin = mounted(tmp_path, f"--bind '{tmp_path}'", "-o remount,ro,bind")
    code, said = run(
        [*begin, sys.executable, "bookbuild/notebooks.py", tmp_path / "why.ipynb"], rules.ROOT
    )
    assert code == 1
    assert "why.ipynb could not be stored" in said
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["why.ipynb"]


# --- An installation: in an odd folder, by two at once, stopped -----------------------------------

PYTEST = """#!/bin/sh
test -f .venv/.ready && echo tested
"""
MAKE_SITE = """import time, aa
time.sleep(1)
print("built")
"""


@pytest.fixture
def odd(project):
    """A small project with this Makefile in a folder with spaces and signs in its name."""
    folder = project.parent / "Über KL(π‖ρ) & mehr, 50 %"
    project.rename(folder)
    shutil.copy(rules.ROOT / "Makefile", folder)
    (folder / "bookbuild").mkdir()
    (folder / "bookbuild/make_site.py").write_text(MAKE_SITE)
    (folder / "hooks").mkdir()
    return folder


def make_with_pytest(folder, *arguments):
    """Run make with a stand-in for pytest, which is no part of the small lock."""
    (folder / "hooks/pytest").write_text(PYTEST)
    (folder / "hooks/pytest").chmod(0o755)
    makefile = (
        (folder / "Makefile").read_text().replace("$(BIN)/pytest", '"$(CURDIR)/hooks/pytest"')
    )
    (folder / "Makefile").write_text(makefile)
    return run(["make", f"PYTHON={sys.executable}", *arguments], folder)


def test_book_and_test_at_once_make_one_environment(odd):
    code, said = make_with_pytest(odd, "-j4", "book", "test")
    assert code == 0, said
    assert said.count("Creating the environment") == 1
    assert {"built", "tested"} <= set(said.splitlines())


def test_two_that_install_at_once_make_one_environment(odd):
    said = twice_at_once(["make", f"PYTHON={sys.executable}", "book"], odd)
    assert "".join(said).count("Creating the environment") == 1
    assert all("built" in one for one in said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_installation_that_is_stopped_is_made_anew(odd, number):
    command = [sys.executable, "tools/bootstrap.py", ".venv"]
    process = subprocess.Popen(
        command,
        cwd=odd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (odd / ".venv/bin/python").exists() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, number)
    said = process.communicate()[0]
    assert process.returncode != 0
    assert not (odd / ".venv/.ready").exists()
    if number == signal.SIGINT:
        assert "Interrupted. Run make again" in said
    code, said = run([*command], odd)
    assert code == 0, said
    assert (odd / ".venv/.ready").exists()
    assert run([odd / ".venv/bin/python", "-c", "import aa, bb"], odd)[0] == 0


def test_a_changed_lock_without_a_network_says_so(odd, monkeypatch):
    assert run(["make", f"PYTHON={sys.executable}", "book"], odd)[0] == 0
    lock = odd / "requirements.lock"
    lock.write_text(lock.read_text() + "# changed\n")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    code, said = run(["make", f"PYTHON={sys.executable}", "book"], odd)
    assert code != 0
    assert "There is no network" in said
    assert "built" not in said


# --- The real book --------------------------------------------------------------------------------


def test_the_book_is_built_in_an_odd_folder_without_a_network_by_two_at_once(
    clone, without_network
):
    said = twice_at_once([*without_network, "make", "--old-file=.venv/.ready", "book"], clone)
    assert "".join(said).count("waiting for its end") == 1
    assert "".join(said).count("Building the site.") == 1, "the second has nothing to do"
    made = files(clone / "_build/html")
    assert len(made) > 200
    # The same bytes as here, if what is here was built from the same sources.
    stamp = rules.ROOT / "_build/.built-from"
    if stamp.is_file() and stamp.read_text() == make_site.digest(clone):
        assert made == files(rules.ROOT / "_build/html")


def test_a_chapter_is_run_in_an_odd_folder_without_a_network(clone, without_network):
    options = ["--quiet", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider"]
    paths = ["chapters/why.ipynb", "tests/test_estimators.py", "tests/test_files.py"]
    code, said = run(
        [*without_network, ".venv/bin/python", "-m", "pytest", *options, *paths], clone
    )
    assert code == 0, said[-3000:]


def test_the_real_book_killed_half_way_is_no_site(clone):
    shutil.rmtree(clone / "_build", ignore_errors=True)
    process = subprocess.Popen(
        [".venv/bin/python", "bookbuild/make_site.py"],
        cwd=clone,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and not [*clone.glob("_build/.new-*/_build/html/**/*.html")]:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (clone / "_build/html").exists()
    # Sphinx, left behind, still writes, but nothing that is ever moved to its place.
    os.environ.pop("MAKEFLAGS", None)
    code, said = run([".venv/bin/python", "bookbuild/make_site.py"], clone)
    assert code == 0, said
    assert not [*clone.glob("_build/.new-*")]
    assert (clone / "_build/html/index.html").is_file()
