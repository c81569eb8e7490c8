"""Older releases of three of the libraries, and what is different since."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .trainers import ENTRIES, Entry, openrlhf_default, openrlhf_loss, trl_grpo

_BY_KEY = {entry.key: entry for entry in ENTRIES}


def _like(key: str, **changed: Any) -> Entry:
    return replace(_BY_KEY[key], **changed)


def _without_option(kind: str) -> Entry:
    """Return an entry of OpenRLHF from before ``unbiased_gradient``."""
    default = openrlhf_default(kind, in_loss=True, unbiased=None)
    return _like(f"openrlhf-{kind}", build=openrlhf_loss(kind, unbiased=None), default=default)


# What is run of each older release, with what an entry had to say otherwise then.
OLDER: dict[str, list[Entry]] = {
    "trl==1.9.2": [_BY_KEY["trl-grpo"], _BY_KEY["trl-grpo-plain"], _BY_KEY["trl-rloo"]],
    "trl==1.0.0": [
        _like("trl-grpo", build=trl_grpo(early=True)),
        _like("trl-grpo-plain", build=trl_grpo(corrected=False, early=True)),
        _BY_KEY["trl-rloo"],
    ],
    "verl==0.8.0": [_BY_KEY[f"verl-{key}"] for key in ("loss", "loss-straight", "reward")],
    "verl==0.7.1": [_BY_KEY[f"verl-{key}"] for key in ("loss", "loss-straight", "reward")],
    "openrlhf==0.11.1": [_BY_KEY[f"openrlhf-{key}"] for key in ("k2", "k3", "k3-unbiased")],
    "openrlhf==0.10.4": [_without_option(kind) for kind in ("k1", "k2", "k3")],
}
# What is known not to work in an older release, by the error that it raises.
RAISES = {("verl==0.7.1", "verl-loss-straight"): "NotImplementedError"}


def history(
    measured: Callable[..., Any],
    changes: Callable[..., list[str]],
    pins: dict[str, Any],
    rows: list[dict[str, Any]],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what is different today for each older release and entry, and what did not fit."""
    today = {row["key"]: row for row in rows}
    found, faults = [], []
    for name, entries in OLDER.items():
        fits = [entry for entry in entries if (name, entry.key) not in RAISES]
        old, wrong = measured(fits, {entry.package: pins[name] for entry in entries})
        faults += wrong
        about = {key: getattr(pins[name], key) for key in ("package", "version", "date")}
        for row in old:
            found.append({**about, "key": row["key"], "changes": changes(row, today[row["key"]])})
        for entry in entries:
            error = RAISES.get((name, entry.key))
            if error is not None:
                _, (fault,) = measured([entry], {entry.package: pins[name]})
                if error not in fault:
                    faults.append(f"{name}: {entry.key} does not raise {error}: {fault}")
                found.append({**about, "key": entry.key, "changes": [f"it raised {error}"]})
    return found, faults
