"""Create the virtual environment of the book: ``python3 tools/bootstrap.py .venv [arrays]``.

Run by ``make``, with whatever Python the machine has, so the syntax here is as old as the oldest
Python that may have to print a helpful sentence.

What the locks name is installed, hash by hash, and nothing else: pip resolves nothing
(``--no-deps``) and only checks at the end that all of it fits together. The environment is made
anew when requirements.lock has changed or when the last try did not finish; when only
pyproject.toml has changed, klapprox alone is installed again. With ``arrays``, PyTorch, JAX and
Dask are added.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile

OLDEST = (3, 11)
FULL_BELOW = 20 * 1024 * 1024  # bytes that are left
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

HASH = (
    "A file that came is not the one that the lock names: its hash differs, see above. Run make "
    "again. If it differs again, a mirror, a proxy or pip's cache changes files: empty the cache "
    "with `%s -m pip cache purge`, or ask who runs the mirror." % sys.executable
)
NO_HASH = (
    "%s: a line has no hash, see above, and without one nothing is installed. make lock writes the "
    "locks, with hashes; get the stored one back with git checkout -- %s"
)
NO_NETWORK = (
    "There is no network, or the package index does not answer. Connect (behind a proxy, set "
    "HTTPS_PROXY) and run make again; what has come is kept."
)
MISSING = (
    "The package index that pip asks does not have %s, or not for Python %d.%d on this system. A "
    "mirror may lag behind: try another index. The Python may be too new: try "
    "make PYTHON=python3.12 book."
)
FULL = (
    "No space is left on the disk of %s or of the temporary folder (TMPDIR). Free 2 GB, 5 GB with "
    "PyTorch, and run make again."
)
READ_ONLY = (
    "%s cannot be written: the file system is read-only, or the folder belongs to someone else. "
    "Put the clone where you may write, and run make there."
)
OTHER = "%s failed; the lines above say why. Then run make again."
UNFIT = (
    "The packages do not fit together; the lines above say which. That is a fault of the lock, not "
    "of this machine: renew it with make lock, or report it."
)


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


def what_failed(said, step, target):
    """Return the sentence for what a failed step said; ``said`` includes pip's log."""
    if re.search(r"No space left on device|Disk quota exceeded|Errno 28\b", said):
        return FULL % target
    if re.search(r"Read-only file system|Errno 30\b|Permission denied|Errno 13\b", said):
        return READ_ONLY % target
    if "DO NOT MATCH THE HASHES" in said:
        return HASH
    if re.search(r"Hashes are required in --require-hashes mode", said):
        return NO_HASH % (step, "requirements*.lock")
    # Without a network pip says, too, that there is no such version: the log tells the two apart.
    if re.search(
        r"connection error: |Max retries exceeded|Read timed out|NewConnectionError|"
        r"ConnectTimeoutError|NameResolutionError|Connection (?:refused|reset|aborted)|"
        r"Failed to (?:connect|establish)|Temporary failure in name resolution",
        said,
    ):
        return NO_NETWORK
    missing = re.search(r"No matching distribution found for ([^\s;(]+)", said)
    if missing:
        wanted = re.sub(r"\[.*\]", "", missing.group(1))  # pip 23 names the extra, pip 24 does not
        return MISSING % ((wanted,) + tuple(sys.version_info[:2]))
    if is_full(target):
        return FULL % target
    return OTHER % step


def is_full(target):
    """Say whether the disk of a folder is full: making an environment does not say why it fails."""
    try:
        return shutil.disk_usage(os.path.dirname(target) or ".").free < FULL_BELOW
    except EnvironmentError:
        return False


def run(command, step, target):
    """Run one command, show what it says, and return the sentence for its failure, or None."""
    log = None
    try:
        if "install" in command:
            # pip's log says what it keeps from the screen: why an index did not answer.
            handle, log = tempfile.mkstemp(suffix=".log")
            os.close(handle)
            command = command + ["--log", log]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        said = []
        for line in process.stderr:
            said.append(line.decode("utf-8", "replace"))
            sys.stderr.write(said[-1])
        process.stderr.close()
        if process.wait() == 0:
            return None
        if log:
            with open(log, "rb") as lines:
                said.append(lines.read().decode("utf-8", "replace"))
        return what_failed("".join(said), step, target)
    except EnvironmentError as error:
        return what_failed(str(error), step, target)
    finally:
        if log:
            os.remove(log)


def digest(*names):
    """Return a digest of files of the project."""
    both = hashlib.sha256()
    for name in names:
        with open(os.path.join(ROOT, name), "rb") as content:
            both.update(content.read())
    return both.hexdigest()


class Stamp:
    """A file in the environment that says what has been installed, and is there only then."""

    def __init__(self, target, name, *files):
        self.path = os.path.join(target, name)
        self.wanted = digest(*files)

    def holds(self):
        """Say whether what is wanted has been installed."""
        try:
            with open(self.path) as stamp:
                return stamp.read() == self.wanted
        except EnvironmentError:
            return False

    def set(self):
        """Say that it has been installed."""
        with open(self.path, "w") as stamp:
            stamp.write(self.wanted)

    def remove(self):
        """Say that it is not, or not yet."""
        if os.path.exists(self.path):
            os.remove(self.path)


def wait_for_others(target):
    """Return an open file that no other run for the same environment has; wait for its end."""
    lock = open(target + ".lock", "w")  # noqa: SIM115 (whoever asked holds and closes it)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except EnvironmentError:
        print("Another command is filling %s: waiting for its end." % target)
        sys.stdout.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def fill(target, arrays):
    """Bring the environment to what is wanted; return the sentence for a failure, or None."""
    python = os.path.join(target, "bin", "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    # pip shows bars, even when quiet, once it keeps a log.
    install = pip + ["install", "--quiet", "--progress-bar", "off"]
    locked = install + ["--no-deps", "--require-hashes", "--requirement"]
    in_root = lambda name: os.path.join(ROOT, name)  # noqa: E731
    base = Stamp(target, ".locked", "requirements.lock")
    more = Stamp(target, ".with-arrays", "requirements-arrays.lock", "requirements-torch.txt")

    if not (base.holds() and os.path.exists(python)):
        print("Creating the environment in %s (once; a few minutes)." % target)
        sys.stdout.flush()
        if os.path.exists(target):
            shutil.rmtree(target)
        sentence = run(
            [sys.executable, "-m", "venv", target], "Making the virtual environment", target
        ) or run(locked + [in_root("requirements.lock")], "Installing requirements.lock", target)
        if sentence:
            return sentence
        base.set()
    sentence = run(
        install + ["--no-deps", "--no-build-isolation", "--editable", ROOT],
        "Installing klapprox itself",
        target,
    )
    if not sentence and arrays and not more.holds():
        print("Adding PyTorch, JAX and Dask (once; a few minutes).")
        sys.stdout.flush()
        # An interrupted try leaves this environment without its stamp: the next one starts anew.
        base.remove()
        sentence = run(
            locked + [in_root("requirements-arrays.lock")],
            "Installing requirements-arrays.lock",
            target,
        ) or run(
            install + ["--requirement", in_root("requirements-torch.txt")],
            "Installing PyTorch",
            target,
        )
        # pip installs nothing before all has come, so without a network nothing has changed.
        if sentence in (None, NO_NETWORK):
            base.set()
        if not sentence:
            more.set()
    if sentence:
        return sentence
    check = subprocess.Popen(pip + ["check"], stdout=subprocess.PIPE)
    said = check.communicate()[0].decode("utf-8", "replace")
    if check.returncode != 0:
        sys.stderr.write(said)
        return UNFIT
    # What make looks at; the second one must not be older than the first.
    for name in [".ready", ".ready-arrays"][: 2 if arrays else 1]:
        open(os.path.join(target, name), "w").close()
    return None


def main(arguments):
    """Build the environment and return the exit code."""
    if len(arguments) not in (1, 2) or arguments[1:] not in ([], ["arrays"]):
        sys.stderr.write("usage: python3 tools/bootstrap.py DIRECTORY [arrays]\n")
        return 2
    target = os.path.abspath(arguments[0])
    sentence = too_old(sys.version_info) or venv_missing()
    if not sentence:
        try:
            with wait_for_others(target):
                sentence = fill(target, len(arguments) == 2)
        except EnvironmentError as error:
            sentence = what_failed(os.strerror(error.errno or errno.EIO), str(error), target)
        except KeyboardInterrupt:
            sentence = "Interrupted. Run make again: it starts the environment anew."
    if sentence:
        sys.stderr.write(sentence + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
