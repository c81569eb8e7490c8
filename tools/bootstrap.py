"""Create the virtual environment of the book: ``python3 tools/bootstrap.py .venv``.

Run by ``make``, with whatever Python the machine has, so the syntax here is as old as the oldest
Python that may have to print a helpful sentence.
"""

import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)


def too_old(version):
    """Return the sentence for a Python that is too old, or None."""
    if tuple(version[:2]) >= OLDEST:
        return None
    return (
        "This is Python %d.%d; the book needs 3.11 or newer. Install a newer Python and name it: "
        "make PYTHON=python3.12 book" % tuple(version[:2])
    )


def venv_missing():
    """Return the sentence for a Python without venv or ensurepip, or None."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        return (
            "This Python cannot make virtual environments (%s). On Debian or Ubuntu: "
            "apt-get install python3-venv; then run make again." % error
        )
    return None


def steps(python, root):
    """Return the commands that fill the environment, each with the sentence for its failure."""
    lock = os.path.join(root, "requirements.lock")
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    again = "Is the network up? What was fetched is kept: run make again."
    return [
        (pip + ["--require-hashes", "--requirement", lock], "A download failed. " + again),
        (
            pip + ["--no-deps", "--no-build-isolation", "--editable", root],
            "klapprox itself could not be installed; the lines above say why. "
            "A half-made environment is mended by `make distclean` and make again.",
        ),
    ]


def main(arguments):
    """Build the environment and return the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python3 tools/bootstrap.py DIRECTORY\n")
        return 2
    target = os.path.abspath(arguments[0])
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sentence = too_old(sys.version_info) or venv_missing()
    if sentence:
        sys.stderr.write(sentence + "\n")
        return 1
    python = os.path.join(target, "bin", "python")
    print("Creating the environment in %s (once; a few minutes)." % target)
    sys.stdout.flush()
    if not os.path.exists(python):
        shutil.rmtree(target, ignore_errors=True)
        if subprocess.call([sys.executable, "-m", "venv", target]) != 0:
            sys.stderr.write(
                "The virtual environment could not be made in %s. Is the disk full or read-only? "
                "On Debian or Ubuntu also: apt-get install python3-venv.\n" % target
            )
            return 1
    for command, sentence in steps(python, root):
        if subprocess.call(command) != 0:
            sys.stderr.write(sentence + "\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
