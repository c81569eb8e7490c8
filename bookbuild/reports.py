"""What the targets of the Makefile that check something said when they were last run for a version.

``python -m bookbuild.reports NAME …`` runs these targets, all of them without a name, and keeps the
last line of each in ``back-matter/reports.json``; the page on checks shows them. Nothing is kept of
a target that fails, or of sources that are not committed.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bookbuild import proofs

ROOT = Path(__file__).resolve().parents[1]
KEPT = Path("back-matter", "reports.json")
# Target: what it shows, in the order of the page.
TARGETS = {
    "test": "package, guards of the book, every notebook run again, all claims turned false",
    "mutants": "false neighbours of the statements, each run through its check",
    "mutants-package": "small changes of the package, each run through the tests that execute it",
    "seeds": "Monte Carlo assertions with 200 other seeds; which ones hold by luck",
    "proofs": "the formal proofs compile and rest on nothing that is not listed",
    "proofs-mutants": "formal statements that were changed do not compile with their proofs",
    "test-arrays": "estimators, losses and `identify` in PyTorch, JAX and Dask, gradients included",
    "test-site": "every page in Chromium: formulas, links, search, keyboard, axe, weight",
    "test-pdf": "the PDF has the numbers of the site; the LaTeX of all statements compiles",
    "faults": "full and read-only disks, no network, odd folders, killed builds: no half-made site",
    "fuzz": "every public function with odd arguments: a documented result or error",
    "matrix": "package and notebooks with the oldest and newest releases that are admitted",
    "licences": "what may be done with each package that a lock names",
    "libraries": "the losses of released training libraries, run and asked what they optimise",
}
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class ReportError(Exception):
    """No report can be made; the message says why."""


def run(root: Path, names: Sequence[str]) -> Iterator[str]:
    """Run the targets one after the other, keep what they said, and yield it."""
    if unknown := [name for name in names if name not in TARGETS]:
        raise ReportError(f"No such target: {', '.join(unknown)}. There are: {', '.join(TARGETS)}.")
    if _git(root, "status", "--porcelain"):
        raise ReportError("There are changes that are not committed. Remedy: commit them first.")
    commit = _git(root, "rev-parse", "--short", "HEAD")
    for name in names or TARGETS:
        started = time.monotonic()
        done = subprocess.run(
            ["make", "--no-print-directory", name],
            cwd=root,
            text=True,
            stdout=subprocess.PIPE,
            env=_environment("MAKE", "MFLAGS", "ONLY"),  # what was asked of another make
        )
        lines = _COLOURS.sub("", done.stdout).strip().splitlines()
        if done.returncode or not lines:
            raise ReportError(f"make {name} failed:\n" + "\n".join(lines[-20:]))
        known = kept(root)
        known[name] = {
            "says": lines[-1].strip("= "),
            "minutes": round((time.monotonic() - started) / 60, 1),
            "commit": commit,
        }
        ordered = {key: known[key] for key in TARGETS if key in known}
        text = json.dumps(ordered, indent=1, ensure_ascii=False) + "\n"
        (root / KEPT).write_text(text, encoding="utf-8")
        yield f"{name}: {lines[-1]}"


def kept(root: Path) -> dict[str, dict[str, Any]]:
    """Return what is kept, by target."""
    path = root / KEPT
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _git(root: Path, *arguments: str) -> str:
    # Within a hook Git's variables would lead to another repository.
    done = subprocess.run(
        ["git", *arguments],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
        env=_environment("GIT_"),
    )
    return done.stdout.strip()


def _environment(*without: str) -> dict[str, str]:
    """Return the environment without variables that begin so."""
    return {key: value for key, value in os.environ.items() if not key.startswith(without)}


def told(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the reports as MyST: a target, what it shows, what it said."""
    return "\n".join(
        f"`make {name}`\n: {TARGETS[name][0].upper()}{TARGETS[name][1:]}. *{report['says']}* "
        f"({report['minutes']:g} min at commit `{report['commit']}`)\n"
        for name, report in reports.items()
    )


def narrower(root: Path) -> str:
    """Return as MyST what each formal proof covers, where it is narrower, and what is missing."""
    return "\n".join(
        f"{{prf:ref}}`{label}`\n: Proved: {status['covers']}. Narrower: {status['narrower']}."
        + (f" Not proved: {status['missing']}." if status["missing"] else "")
        + "\n"
        for label, status in proofs.statuses(root).items()
    )


def main(names: Sequence[str]) -> int:
    """Run the targets that are named; return the exit status."""
    try:
        for line in run(ROOT, names):
            print(line, flush=True)
    except ReportError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
