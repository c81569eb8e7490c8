"""A build of the site that fails or is stopped, wherever that happens, leaves nothing half-made.

The book here has two pages and a figure. Faults come from `sitecustomize`, which Python loads by
itself: at the n-th file that Sphinx opens for writing, it stops a process or refuses the file. So
no test depends on time.
"""

import errno
import fcntl
import hashlib
import os
import resource
import signal
import subprocess
import sys
import textwrap

import nbformat
import pytest

from bookbuild import make_site, rules

SCRIPT = rules.ROOT / "bookbuild" / "make_site.py"
READY = "The book is ready"
FAULTS = """
import errno, os, signal, sys

written = 0


def at_nth_file(event, arguments):
    global written
    if event != "open" or not isinstance(arguments[0], str) or "/.new-" not in arguments[0]:
        return
    if not arguments[2] & (os.O_WRONLY | os.O_RDWR):
        return
    written += 1
    if written == int(os.environ["AT"]):
        fault = os.environ["FAULT"]
        if fault == "no space":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), arguments[0])
        number, whom = fault.split()
        os.kill({"sphinx": os.getpid(), "builder": os.getppid()}[whom], int(number))


if "AT" in os.environ and sys.argv[1:2] == ["build"]:
    sys.addaudithook(at_nth_file)
elif os.environ.get("COUNT") and sys.argv[1:2] == ["build"]:
    import atexit
    os.environ["AT"] = "-1"
    sys.addaudithook(at_nth_file)
    atexit.register(lambda: open(os.environ["COUNT"], "w").write(str(written)))
"""
CONFIG = """
title: Two pages
only_build_toc_files: true
execute: {execute_notebooks: "off"}
"""
FIGURE = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><path d="M0 0h9v9z"/></svg>'


def write_book(book):
    """Write a book of two pages and a figure."""
    book.mkdir(exist_ok=True)
    (book / "_config.yml").write_text(CONFIG)
    (book / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters:\n- file: figure\n")
    (book / "index.md").write_text("# Jeffreys\n\nSee {doc}`figure`.\n")
    output = nbformat.v4.new_output("display_data", data={"image/svg+xml": FIGURE})
    cells = [
        nbformat.v4.new_markdown_cell("# Figure"),
        nbformat.v4.new_code_cell("draw()", outputs=[output], execution_count=1),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, book / "figure.ipynb")
    return book


def start(book, *, arguments=None, limit=None, **environment):
    """Start a build."""
    hooks = book.parent / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "sitecustomize.py").write_text(FAULTS)

    def prepare():
        # A shell starts background jobs with SIGINT ignored, and children inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if limit:
            limit()

    fixed = {"PYTHONPATH": str(hooks), "PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "1767225600"}
    return subprocess.Popen(
        arguments or [sys.executable, str(SCRIPT), str(book)],
        env=os.environ | fixed | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=prepare,
    )


def build(book, **options):
    """Build; return the exit code and all that was printed."""
    process = start(book, **options)
    said = process.communicate()[0]
    return process.returncode, said


def files(book):
    """Return the digests of all files of the site."""
    site = book / "_build" / "html"
    return {
        str(path.relative_to(site)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in site.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed build: its book, its files, and how many files Sphinx opens for it."""
    book = write_book(tmp_path_factory.mktemp("whole") / "book")
    count = book.parent / "count"
    page = book / "_build/html/index.html"
    assert build(book, COUNT=str(count)) == (
        0,
        f"Building the site.\nThe book is ready: {page}\n",
    )
    assert '"figure", "index"' in (page.parent / "searchindex.js").read_text()
    assert any((page.parent / "_images").iterdir())
    return book, files(book), int(count.read_text())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A book whose builds are stopped, one after the other."""
    return write_book(tmp_path_factory.mktemp("stopped") / "book")


@pytest.fixture
def book(tmp_path):
    return write_book(tmp_path / "book")


def assert_not_ready(book, result, sentence):
    """The build failed with this sentence, and says that there is no site."""
    code, said = result
    assert code != 0
    assert READY not in said
    assert sentence in said
    assert "make_site.py" not in said, "a traceback of ours"
    assert "There is no site yet." in said
    assert files(book) == {}


# Each of these stops a build of one and the same book, which is whole in the end.


@pytest.mark.parametrize("again", [False, True])
def test_a_broken_reference_fails_every_time(stopped, again):
    (stopped / "index.md").write_text("# Jeffreys\n\n{doc}`no-such-page`\n")
    result = build(stopped)
    write_book(stopped)
    assert_not_ready(stopped, result, "The build failed; the lines above say why.")
    assert "no-such-page" in result[1]


@pytest.mark.parametrize(
    ("fault", "part", "sentence"),
    [
        ("9 sphinx", 0, "The build failed"),
        ("9 sphinx", 1 / 2, "The build failed"),
        ("9 sphinx", 1, "The build failed"),
        ("2 builder", 1 / 2, "Interrupted."),
        ("15 builder", 3 / 4, "Interrupted."),
        ("no space", 1 / 4, "No space is left on the disk"),
        ("no space", 3 / 4, "No space is left on the disk"),
    ],
)
def test_a_build_that_is_stopped_is_not_ready(stopped, whole, fault, part, sentence):
    at = 1 + int(part * (whole[2] - 1))
    assert_not_ready(stopped, build(stopped, FAULT=fault, AT=str(at)), sentence)


def test_a_file_that_is_cut_in_half_fails_the_build(stopped):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    assert_not_ready(stopped, build(stopped, limit=limit), "The build failed")


def test_a_killed_build_is_not_ready(stopped, whole):
    code, said = build(stopped, FAULT="9 builder", AT=str(whole[2] // 2))
    assert (code, READY in said) == (-signal.SIGKILL, False)
    assert files(stopped) == {}


def test_after_all_that_the_next_build_is_whole(stopped, whole):
    code, said = build(stopped)
    assert code == 0, said
    assert files(stopped) == whole[1]
    left = {path.name for path in (stopped / "_build").iterdir()}
    assert left == {"html", ".lock", ".built-from"}
    # And it stays when a later one is not.
    (stopped / "index.md").write_text("# Jeffreys\n\n{doc}`no-such-page`\n")
    code, said = build(stopped)
    assert code == 1
    assert "is still the site of the last whole build." in said
    assert files(stopped) == whole[1]


# What needs no Sphinx.


def build_without_sphinx(book, prelude="", **options):
    """Build with a stand-in for Sphinx that writes one page."""
    program = textwrap.dedent(f"""
        import os, pathlib, signal, sys
        import make_site
        def run_sphinx(root, new):
            made = new / "_build" / "html"
            made.mkdir(parents=True)
            (made / "index.html").write_text("a new site")
            return made
        make_site.run_sphinx = run_sphinx
        {{prelude}}
        sys.exit(make_site.main([{str(book)!r}]))
    """).format(prelude=prelude)
    options["PYTHONPATH"] = str(SCRIPT.parent)
    return start(book, arguments=[sys.executable, "-c", program], **options)


def page(book):
    """Return what is on the first page, if there is one."""
    path = book / "_build/html/index.html"
    return path.read_text() if path.exists() else None


@pytest.mark.parametrize(("moves", "then"), [(1, "an older site"), (2, None)])
def test_a_stop_while_the_site_is_moved_leaves_nothing_half_made(book, moves, then):
    (book / "_build/html").mkdir(parents=True)
    (book / "_build/html/index.html").write_text("an older site")
    prelude = f"""
left, rename = [{moves}], pathlib.Path.rename
def counting(*arguments):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(*arguments)
pathlib.Path.rename = counting
"""
    process = build_without_sphinx(book, prelude)
    assert READY not in process.communicate()[0]
    assert process.returncode == -signal.SIGKILL
    assert page(book) == then
    assert READY in build_without_sphinx(book).communicate()[0]
    assert page(book) == "a new site"
    left = {path.name for path in (book / "_build").iterdir()}
    assert left == {"html", ".lock", ".built-from"}


def test_two_builds_take_turns(book):
    (book / "_build").mkdir()
    with open(book / "_build/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = build_without_sphinx(book)
        first = process.stdout.readline()
        assert first == "Another build of this book is running: waiting for its end.\n"
        assert page(book) is None
    assert READY in process.communicate()[0]
    assert page(book) == "a new site"


def test_nothing_changed_is_nothing_to_do(whole):
    book, found, _ = whole
    assert build(book) == (0, f"The book is ready: {book}/_build/html/index.html\n")
    assert files(book) == found


SOURCES = [
    *("index.md", "figure.ipynb", "_config.yml", "requirements.lock", "references.bib"),
    *("CITATION.cff", "labels.yml"),
    *("_static/book.css", "chapters/k1.ipynb", "bookbuild/some.py", "src/klapprox/exact/some.py"),
]


@pytest.mark.parametrize("name", SOURCES)
def test_what_changed_is_seen(book, name):
    before = make_site.digest(book)
    (book / name).parent.mkdir(parents=True, exist_ok=True)
    (book / name).write_text("new")
    assert make_site.digest(book) != before


def test_a_page_with_a_new_name_is_seen(book):
    before = make_site.digest(book)
    (book / "figure.ipynb").rename(book / "picture.ipynb")
    assert make_site.digest(book) != before


@pytest.mark.parametrize("name", ["_build/x.md", "extensions/__pycache__/x.pyc", "tests/x.py"])
def test_what_the_site_is_not_made_of_is_not_seen(book, name):
    before = make_site.digest(book)
    (book / name).parent.mkdir(parents=True, exist_ok=True)
    (book / name).write_text("new")
    assert make_site.digest(book) == before


def test_a_notebook_that_is_none_is_named(book):
    os.truncate(book / "figure.ipynb", 30)
    assert_not_ready(book, build(book), f"{book}/figure.ipynb is not a whole notebook")


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_read_only_folder_is_named(book, code):
    prelude = f"""
def mkdir(*arguments, **options):
    raise OSError({code}, os.strerror({code}), "_build")
pathlib.Path.mkdir = mkdir
"""
    process = build_without_sphinx(book, prelude)
    assert_not_ready(book, (1, process.communicate()[0]), f"{book}/_build cannot be written")
    assert process.returncode == 1
