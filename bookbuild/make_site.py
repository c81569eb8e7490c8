"""Build the site of the book, whole or not at all: ``python bookbuild/make_site.py [ROOT]``.

The pages are made in a new, empty folder and moved to ``_build/html`` when the build has succeeded.
So whatever stops a build, ``_build/html`` is the site of the last build that was whole, and a
build that failed fails again. A build that has nothing to do sees that by a digest of its sources.

Every build starts from nothing, although Sphinx could go on from the last one: it would not see a
changed extension, and leave old numbers of statements in the chapters that did not change.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve()
# What the site is made of, apart from the environment, for which the lock stands.
SOURCES = [
    *("*.md", "*.ipynb", "*.yml", "*.bib", "CITATION.cff", "requirements.lock"),
    *(
        f"{folder}/**/*"
        for folder in ("_static", "back-matter", "chapters", "bookbuild", "proofs", "src")
    ),
]
JUPYTER_BOOK = str(HERE.with_name("run_jupyter_book.py"))
BUILD = [JUPYTER_BOOK, "build", ".", "-q", "-n", "-W", "--keep-going", "--path-output"]


class BuildError(Exception):
    """The site could not be built; the message is a sentence for the reader."""


def main(arguments: list[str]) -> int:
    """Build the site and return the exit code."""
    root = Path(arguments[0]).resolve() if arguments else HERE.parents[1]
    build = root / "_build"
    # `kill` ends a build as Ctrl-C does: with a sentence, and without leaving Sphinx behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        build.mkdir(exist_ok=True)
        with alone(build):
            make(root, build)
    except BuildError as error:
        return failed(build, str(error))
    except OSError as error:
        return failed(build, said_by_system(str(error), build) or f"The build failed: {error}")
    except KeyboardInterrupt:
        return failed(build, "Interrupted.", 130)
    print(f"The book is ready: {build / 'html' / 'index.html'}")
    return 0


def failed(build: Path, sentence: str, code: int = 1) -> int:
    """Say why there is no new site and what there is instead; return the exit code."""
    rest = " There is no site yet."
    if (build / "html" / "index.html").exists():
        rest = f" {build / 'html'} is still the site of the last whole build."
    print(sentence + rest, file=sys.stderr)
    return code


@contextlib.contextmanager
def alone(build: Path) -> Iterator[IO[str]]:
    """Wait until no other build of this book runs, Sphinx left behind by a killed one included."""
    with open(build / ".lock", "w", encoding="utf-8") as lock:
        os.set_inheritable(lock.fileno(), True)  # Sphinx holds the lock as well
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another build of this book is running: waiting for its end.", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def make(root: Path, build: Path) -> None:
    """Make the site anew, unless the one that is there was made from the same sources."""
    stamp, site, old = build / ".built-from", build / "html", build / ".old"
    wanted = digest(root)
    if site.is_dir() and stamp.is_file() and stamp.read_text(encoding="ascii") == wanted:
        return
    stamp.unlink(missing_ok=True)
    for leftover in [*build.glob(old.name), *build.glob(".new-*")]:
        shutil.rmtree(leftover)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=build))
    try:
        made = run_sphinx(root, new)
        settle(made)
        if site.exists():
            site.rename(old)
        made.rename(site)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    stamp.write_text(wanted, encoding="ascii")


def digest(root: Path) -> str:
    """Return a digest of the names and contents of all sources."""
    found = {path for pattern in SOURCES for path in root.glob(pattern) if path.is_file()}
    whole = hashlib.sha256(HERE.read_bytes() + os.environ.get("BOOK_URL", "").encode())
    offered = os.environ.get("BOOK_DOWNLOADS")
    downloads = Path(offered) if offered else None
    if downloads:
        found |= {path for path in downloads.iterdir() if path.is_file()}
    for path in sorted(found):
        if not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts):
            whole.update(hashlib.sha256(path.read_bytes()).digest())
            inside = path.parent if path.parent == downloads else root
            whole.update(os.fsencode(path.relative_to(inside)))
    return whole.hexdigest()


def run_sphinx(root: Path, new: Path) -> Path:
    """Let Jupyter Book build the pages in a folder and return where they are."""
    print("Building the site.", flush=True)
    try:
        run([*BUILD, str(new)], root, new)
    except BuildError:
        # Sphinx does not say it well when a notebook is none.
        notebooks = [str(path) for path in root.rglob("*.ipynb") if not hidden(path, root)]
        if notebooks:
            run([str(HERE.with_name("notebooks.py")), "--check", *notebooks], root, new)
        raise
    return new / "_build" / "html"


def hidden(path: Path, root: Path) -> bool:
    """Say whether a file lies in a folder that is no part of the book."""
    return any(part[0] in "._" for part in path.relative_to(root).parts)


def run(command: list[str], root: Path, new: Path) -> None:
    """Run Python in a process group of its own; if it fails, show what it said and raise."""
    with tempfile.TemporaryFile() as output:  # not on the disk that may be full
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # only where the pages are made, which is not where they end
            stderr=output,
            close_fds=False,
            start_new_session=True,
        )
        try:
            code = process.wait()
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        output.seek(0)
        said = re.sub(r"\x1b\[[0-9;]*m", "", output.read().decode(errors="replace"))  # no colours
    if code:
        print(told(said), file=sys.stderr)
        raise BuildError(
            said_by_system(said, new.parent) or "The build failed; the lines above say why."
        )


def told(said: str) -> str:
    """Return what Sphinx said, without Jupyter Book's own traceback, which says nothing more."""
    before, _, behind = said.partition("Traceback (most recent call last):")
    return before.rstrip() if "Look above for the cause" in behind else said.rstrip()


def said_by_system(said: str, folder: Path) -> str | None:
    """Return the sentence for a disk that is full or may not be written."""

    def any_of(*codes: int) -> bool:
        return any(f"[Errno {code}]" in said or os.strerror(code) in said for code in codes)

    if any_of(errno.ENOSPC, errno.EDQUOT):
        return (
            f"No space is left on the disk of {folder} or of the temporary folder (TMPDIR). "
            "Free 200 MB and run the command again."
        )
    if any_of(errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{folder} cannot be written: it is read-only, or belongs to someone else."
    return None


def settle(folder: Path) -> None:
    """Have all files of a folder on the disk, so that a full one is noticed before the move."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
