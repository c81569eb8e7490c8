"""Older releases of some of the libraries, and what has changed since."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .trainers import ENTRIES, Entry, openrlhf_default, trl_grpo, trl_grpo_default

_BY_KEY = {entry.key: entry for entry in ENTRIES}


def _like(key: str, **changed: Any) -> Entry:
    return replace(_BY_KEY[key], **changed)


# What is run of each older release, with what an entry then had to say otherwise.
OLDER: dict[str, list[Entry]] = {}


def history(
    measured: Callable[..., Any],
    changes: Callable[..., list[str]],
    pins: dict[str, Any],
    rows: list[dict[str, Any]],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row for each older release and entry, with what is different from today's."""
    today = {row["key"]: row for row in rows}
    found, faults = [], []
    for name, entries in OLDER.items():
        old, wrong = measured(entries, {entry.package: pins[name] for entry in entries})
        faults += wrong
        for row in old:
            found.append({**row, "changes": changes(row, today[row["key"]])})
    return found, faults
