"""What the functions of the libraries are called with: strict, and watching what is read.

A stand-in knows what its entry gave it and nothing else: reading something else raises, and so does
having been given what nobody read, for then an option was renamed or is ignored.
"""

from collections.abc import Callable, Iterable
from typing import Any


class UnreadError(Exception):
    """An option or an input that was given and that the function never looked at."""


class StandIn:
    """An object with these attributes and no others."""

    def __init__(self, name: str, **attributes: Any) -> None:
        vars(self).update(_name=name, _given=attributes, _read=set())

    def __getattr__(self, name: str) -> Any:
        if name not in self._given:
            raise AttributeError(f"the entry gives {self._name} no attribute {name}")
        self._read.add(name)
        return self._given[name]

    def __setattr__(self, name: str, value: Any) -> None:
        """Take what the function itself stores."""
        self._given[name] = value
        self._read.add(name)

    def give(self, **attributes: Any) -> None:
        """Add attributes that only some calls read."""
        self._given.update(attributes)

    def unread(self) -> list[str]:
        """Return what was given and not read, with everything inside."""
        own = [f"{self._name}.{name}" for name in self._given if name not in self._read]
        return own + _inside(self._given.values())


class Inputs(dict):
    """A dictionary that knows which of its keys were read."""

    def __init__(self, name: str, **entries: Any) -> None:
        super().__init__(**entries)
        self.name, self.read = name, set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        """Take what the function itself stores."""
        self.read.add(key)
        super().__setitem__(key, value)

    def give(self, **entries: Any) -> None:
        """Add entries that only some calls read."""
        self.update(entries)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the entry or the default, and remember that it was read."""
        self.read.add(key)
        return super().get(key, default)

    def unread(self) -> list[str]:
        """Return what was given and not read, with everything inside."""
        own = [f"{self.name}[{key!r}]" for key in self if key not in self.read]
        return own + _inside(self.values())


class Sink(dict):
    """Where metrics go: takes anything under any key, and is never read."""

    def __missing__(self, key: Any) -> "Sink":
        return Sink()

    def append(self, value: Any) -> None:
        """Forget the value."""


def _inside(values: Iterable[Any]) -> list[str]:
    found = []
    for value in values:
        if isinstance(value, StandIn | Inputs):
            found += value.unread()
        elif isinstance(value, dict) and not isinstance(value, Sink):
            found += _inside(value.values())
    return found


def call(function: Callable[..., Any], *args: Any, watch: bool = True, **options: Any) -> Any:
    """Call the function; with ``watch``, everything that the stand-ins were given must be read."""
    result = function(*args, **options)
    unread = _inside([*args, *options.values()]) if watch else []
    if unread:
        raise UnreadError(f"never read: {', '.join(unread)}")
    return result
