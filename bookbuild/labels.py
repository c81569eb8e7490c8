"""The register of labels, ``labels.yml``: what was published, and what changed since.

A label that was published stays. When a version is released, ``make labels`` freezes what the
statements say: from then on a statement that changes needs a line in its history and in the
changelog, and the tests hold it to that. Before the first freeze only the labels themselves are
held fast.

``python -m bookbuild.labels`` says what is frozen; with the word ``freeze`` it freezes.
"""

import hashlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import klapprox
from bookbuild.results import Result, results

ROOT = Path(__file__).resolve().parents[1]
NEXT = "next"  # the version of a change that no release has yet
HEAD = """\
# Every published label: since when, as what, and how it changed. Written by `make labels`, which
# freezes the statements of a release (CONTRIBUTING.md). By hand one adds to `changes`:
#   - {version: next, what: statement, words: What the statement says that it did not say before.}
"""
Register = dict[str, Any]


class LabelError(Exception):
    """Labels cannot be frozen; the message says why."""


def read(root: Path) -> Register:
    """Return the register of a book: the versions that were frozen, and the labels."""
    path = root / "labels.yml"
    found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    return found or {"frozen": [], "labels": {}}


def write(root: Path, register: Register) -> None:
    """Write the register of a book."""
    text = yaml.safe_dump(register, sort_keys=False, allow_unicode=True, width=110)
    (root / "labels.yml").write_text(HEAD + text, encoding="utf-8")


def digest(text: str) -> str:
    """Return a digest of the words of a statement; how its lines are broken does not count."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()


def section(changelog: str, version: str) -> str:
    """Return what a changelog says of what is not released, or of the version that is coming."""
    heads = "|".join(re.escape(head) for head in ("Unreleased", version))
    parts = re.findall(rf"^## (?:{heads})\b.*?$(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    return "".join(parts)


def faults(register: Register, book: Mapping[str, Result], changelog: str) -> list[str]:
    """Return labels that vanished, and statements that changed without a word about it.

    Parameters
    ----------
    register : dict
        What `read` returns.
    book : dict of Result
        The results of the book as it is now.
    changelog : str
        The part of the changelog that is about what comes next.
    """
    found = []
    for label, entry in register["labels"].items():
        result = book.get(label)
        if result is None:
            found.append(f"{label} was published in {entry['since']} and is gone")
            continue
        if result.kind != entry["kind"]:
            found.append(f"{label} was published as a {entry['kind']} and is a {result.kind} now")
        if entry.get("sha256", "") not in ("", digest(result.text)):
            told = [
                c for c in entry["changes"] if c["version"] == NEXT and c["what"] == "statement"
            ]
            if not any(str(change.get("words", "")).strip() for change in told):
                found.append(f"{label} says something else now: labels.yml has no line about it")
            if f"`{label}`" not in changelog:
                found.append(f"{label} says something else now: CHANGELOG.md does not name it")
    return found


def freeze(
    register: Register, book: Mapping[str, Result], changelog: str, version: str
) -> Register:
    """Return the register with all labels of the book, as a version publishes them.

    Raises
    ------
    LabelError
        If the version was frozen before, or something has changed without a word about it.
    """
    if version in register["frozen"]:
        raise LabelError(f"Version {version} is frozen already: raise the version first.")
    if wrong := faults(register, book, changelog):
        raise LabelError("\n".join(wrong))
    labels: dict[str, Any] = {}
    for label in [*register["labels"], *(name for name in book if name not in register["labels"])]:
        result = book[label]
        old = register["labels"].get(label, {"since": version, "changes": []})
        changes = [
            {**change, "version": version} if change["version"] == NEXT else change
            for change in old["changes"]
        ]
        for what, now in (("number", result.number), ("page", result.page)):
            if old.get(what, now) != now:
                changes.append({"version": version, "what": what, "words": f"{old[what]} before"})
        proof = digest(result.proof) if result.proof else ""
        if old.get("proof", proof) != proof:
            changes.append({"version": version, "what": "proof", "words": "written anew"})
        labels[label] = {
            "kind": result.kind,
            "since": old["since"],
            "number": result.number,
            "page": result.page,
            "sha256": digest(result.text),
            "proof": proof,
            "changes": changes,
        }
    return {"frozen": [*register["frozen"], version], "labels": labels}


def state(register: Register, book: Mapping[str, Result]) -> str:
    """Return in a sentence what is frozen and what is not."""
    new = sum(label not in register["labels"] for label in book)
    known = len(register["labels"])
    if not register["frozen"]:
        return (
            f"No version is frozen yet: {known} labels are known from before, {new} are new. "
            "`make labels` freezes them with the release."
        )
    return f"Version {register['frozen'][-1]} froze {known} labels; {new} are new since."


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Say what is frozen, or freeze; return the exit code."""
    register, book = read(root), results(root)
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    coming = section(changelog, klapprox.__version__)
    if arguments == ["freeze"]:
        try:
            register = freeze(register, book, coming, klapprox.__version__)
        except LabelError as error:
            print(error, file=sys.stderr)
            return 1
        write(root, register)
    elif arguments:
        print("usage: python -m bookbuild.labels [freeze]", file=sys.stderr)
        return 2
    print(state(register, book))
    wrong = faults(register, book, coming)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
