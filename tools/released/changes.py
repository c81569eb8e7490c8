"""What is different between two rows, in words."""

from typing import Any

# What is no finding: where it was found and what we say about it.
ASIDE = {"version", "date", "where", "so_what", "error"}


def changes(old: Any, new: Any, path: str = "") -> list[str]:
    """Return in words where two rows differ, numbers to a relative 1e-4."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(old.keys() | new.keys()):
            if path or key not in ASIDE:
                found += changes(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [c for i, (a, b) in pairs for c in changes(a, b, f"{path}[{i}]")]
    numbers = [isinstance(x, int | float) and not isinstance(x, bool) for x in (old, new)]
    if all(numbers) and abs(old - new) <= 1e-4 * max(abs(old), abs(new)) + 1e-6:
        return []
    return [] if old == new else [f"{path}: {old} before, {new} now"]
