"""Measure the pinned releases, or today's, and say what has changed: see ``--help``."""

import argparse
import json
import sys
import tomllib
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import chapter, measure, older, trainers, wheels
from .changes import changes

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
DATA = ROOT / "chapters" / "libraries.json"
WHEELS = ROOT / "_build" / "wheels"


def measured(
    entries: Iterable[trainers.Entry], releases: dict[str, wheels.Release], *, newest: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row for each entry, and in words what did not fit."""
    rows, faults, ready = [], [], {}
    for entry in entries:
        try:
            if entry.package not in ready:
                fetch = wheels.newest if newest else wheels.fetched
                ready[entry.package] = fetch(releases[entry.package], WHEELS)
            take = trainers.Taker(ready[entry.package])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # those of the libraries' own code
                rows.append(measure.row(entry, take))
            print(f"{entry.key}: {take.release.package} {take.release.version}", flush=True)
        except Exception as error:  # whatever foreign code raises
            version = getattr(ready.get(entry.package), "version", "?")
            faults.append(f"{entry.key} ({entry.package} {version}): {error!r}")
            print(f"{entry.key}: does not fit: {error!r}", file=sys.stderr, flush=True)
    return rows, faults


def store(data: dict[str, Any]) -> int:
    """Write the data file, with what is only read, and the chapter's tables."""
    entries = {entry.key: entry for entry in trainers.ENTRIES}
    rows = [row for row in data["rows"] if row["evidence"] == "measured"]
    for row in rows:
        entry = entries[row["key"]]
        row |= {"library": entry.library, "option": entry.option, "so_what": entry.so_what}
    read = tomllib.loads((FOLDER / "read.toml").read_text(encoding="utf-8"))["row"]
    releases = [
        {"package": r.package, "version": r.version, "sha256": r.sha256, "date": r.date}
        for r in wheels.pins(FOLDER / "pins.toml").values()
    ]
    data = {"releases": releases, "rows": rows + read, "older": data["older"]}
    DATA.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} rows measured, {len(read)} read: {DATA.relative_to(ROOT)}")
    return chapter.write(DATA, DATA.with_suffix(".ipynb"))


def main(arguments: list[str]) -> int:
    """Measure, and store or compare."""
    parser = argparse.ArgumentParser(prog="released", description=__doc__)
    parser.add_argument("--newest", action="store_true", help="today's releases; stores nothing")
    parser.add_argument("--only", metavar="KEY", help="entries whose key contains this; no storing")
    parser.add_argument("--tables", action="store_true", help="take over what is only read or said")
    options = parser.parse_args(arguments)
    if options.tables:
        return store(json.loads(DATA.read_text(encoding="utf-8")))
    pins = wheels.pins(FOLDER / "pins.toml")
    entries = [e for e in trainers.ENTRIES if not options.only or options.only in e.key]
    rows, faults = measured(entries, pins, newest=options.newest)
    if options.newest or options.only:
        stored = {row["key"]: row for row in json.loads(DATA.read_text(encoding="utf-8"))["rows"]}
        for row in rows:
            before = stored.get(row["key"], {})
            for change in changes(before, row):
                versions = f"{before.get('version', 'not stored')} → {row['version']}"
                print(f"{row['key']} ({row['package']} {versions}): {change}")
    elif not faults:
        history, faults = older.history(measured, changes, pins, rows)
        if not faults:
            return store({"rows": rows, "older": history})
    for fault in faults:
        print(f"DOES NOT FIT  {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
