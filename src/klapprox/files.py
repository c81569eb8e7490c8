r"""Log-probabilities from files: ``.npz``, ``.jsonl``, ``.csv`` and ``.parquet``.

A file holds ``log_q`` and ``log_p``, in nats, of samples drawn from q: one number a draw, or one
list a sequence, of any lengths. It may hold ``group``, one label a draw or sequence; ``mask``, of
the shape of ``log_q``; and, under any name, scores of the same tokens by further laws.
"""

import csv
import difflib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

__all__ = ["LogProbabilities", "read_log_probabilities"]

_KNOWN = ("log_q", "log_p", "group", "mask")


class LogProbabilities(NamedTuple):
    """Arguments of `klapprox.estimate_kl`, as a file holds them.

    Attributes
    ----------
    log_q, log_p : array
        Log-probabilities of the samples in nats, under the law that generated them and under the
        other one; for sequences padded, a row a sequence.
    mask : array of bool or None
        Where there is a token; None where each entry is a draw.
    groups : array or None
        The group that each draw or sequence belongs to, if the file names groups.
    others : mapping of str to array
        Scores of the same tokens by the further laws that were asked for.
    """

    log_q: NDArray[np.float64]
    log_p: NDArray[np.float64]
    mask: NDArray[np.bool_] | None
    groups: NDArray[Any] | None
    others: Mapping[str, NDArray[np.float64]] = {}


class _Row(NamedTuple):
    """One draw (numbers) or one sequence (arrays of one dimension)."""

    scores: list[NDArray[np.float64]]
    mask: NDArray[np.bool_]
    group: Any


def read_log_probabilities(path: str | Path, *, others: Sequence[str] = ()) -> LogProbabilities:
    r"""Read log-probabilities of samples under q, which generated them, and under p.

    Parameters
    ----------
    path : str or Path
        ``.npz`` with arrays ``log_q`` and ``log_p`` and, if wanted, ``mask`` and ``group``;
        ``.jsonl`` with an object ``{"log_q": ..., "log_p": ..., "group": ..., "mask": ...}`` a
        line; ``.csv`` with a line of names and one draw a line; ``.parquet`` with columns of these
        names (needs ``pip install "klapprox[files]"``). "-" reads ``.jsonl`` from standard input.
        Other names are allowed and ignored, unless one looks like a name that is read.
    others : sequence of str
        Names of further scores to read, of the same tokens by other laws.

    Returns
    -------
    LogProbabilities
        Sequences of different lengths are padded, and masked where they are.

    Raises
    ------
    ValueError
        If the ending is unknown, a name is missing or misspelt, a score is no number, or the lists
        of a sequence differ in length; with the file and the line or row.
    ImportError
        For ``.parquet`` without pyarrow.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "scores.jsonl"
    >>> _ = path.write_text('{"log_q": [-1.0, -2.0], "log_p": [-1.5, -1.5]}\n'
    ...                     '{"log_q": [-0.5], "log_p": [-0.25]}\n')
    >>> data = read_log_probabilities(path)
    >>> data.mask.tolist()
    [[True, True], [True, False]]
    >>> data.log_p[data.mask].tolist()  # ready for kl.estimate_kl(..., mask=data.mask)
    [-1.5, -1.5, -0.25]
    """
    if str(path) == "-":
        return _from_rows("standard input", _json_rows("standard input", sys.stdin.read()), others)
    path = Path(path)
    if path.suffix == ".npz":
        return _from_npz(path, others)
    readers = {".jsonl": _jsonl_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    if path.suffix not in readers:
        known = ", ".join([".npz", *readers])
        raise ValueError(f"{path} ends in {path.suffix!r}; known are {known}.")
    return _from_rows(str(path), readers[path.suffix](path), others)


def _from_npz(path: Path, others: Sequence[str]) -> LogProbabilities:
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            found = dict(arrays)
    except (BadZipFile, EOFError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no .npz file of plain arrays; write it with "
            "numpy.savez(path, log_q=..., log_p=...)."
        ) from error
    names = ("log_q", "log_p", *others)
    _refuse_names(str(path), found, names)
    for name in names:
        if found[name].dtype.kind != "f":
            raise ValueError(
                f"{path}: {name} has dtype {found[name].dtype}; log-probabilities are "
                "floating-point."
            )
        if found[name].shape != found["log_q"].shape:
            raise ValueError(
                f"{path}: log_q has shape {found['log_q'].shape} and {name} {found[name].shape}; "
                "both score the same tokens."
            )
    return LogProbabilities(
        found["log_q"],
        found["log_p"],
        found.get("mask"),
        found.get("group"),
        {name: found[name] for name in others},
    )


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return _json_rows(str(path), _text(path))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # with or without a byte-order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}.") from None


def _json_rows(name: str, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield place and object of each line; only a line feed ends a line in this format."""
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{place}: not JSON ({error}).") from None
        if not isinstance(row, dict):
            raise ValueError(f"{place}: no object with log_q and log_p.")
        yield place, row


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    lines = csv.DictReader(_text(path).splitlines(keepends=True))
    for row in lines:
        place = f"{path}, line {lines.line_num}"
        if None in row or None in row.values():
            raise ValueError(f"{place}: not as many fields as the first line has names.")
        yield (
            place,
            {name: value if name == "group" else _number(value) for name, value in row.items()},
        )


def _number(text: str) -> Any:
    """Return the number that is written here, or the text, which will be refused as a score."""
    try:
        return float(text)
    except ValueError:
        return text


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ImportError(
            f'{path} needs pyarrow: pip install "klapprox[files]", or save the arrays as .npz.'
        ) from None
    try:
        table = parquet.read_table(path)
    except ArrowException as error:
        raise ValueError(f"{path} is no Parquet file: {error}") from None
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    for i in range(table.num_rows):
        yield f"{path}, row {i + 1}", {name: values[i] for name, values in columns.items()}


def _refuse_names(place: str, names: Iterable[str], wanted: Sequence[str]) -> None:
    """Raise ValueError if a name is missing, or looks like one that is read but is none."""
    missing = set(wanted) - set(names)
    if missing:
        raise ValueError(f"{place}: there is no {' and no '.join(sorted(missing))}.")
    known = (*_KNOWN, *wanted)
    for name in names:
        alike = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.8)
        if name not in known and alike and alike[0] not in names:
            raise ValueError(f"{place}: is {name!r} meant to be {alike[0]!r}? Rename or remove it.")


def _row(place: str, row: Mapping[str, Any], names: Sequence[str]) -> _Row:
    """Return one draw or sequence, or say what is wrong with it."""
    _refuse_names(place, row, names)
    scores = [_scores(place, name, row[name]) for name in names]
    for name, one in zip(names, scores, strict=True):
        if one.shape != scores[0].shape:
            sizes = [f"{x.size} tokens" if x.ndim else "a single number" for x in (scores[0], one)]
            raise ValueError(
                f"{place}: {names[0]} has {sizes[0]} and {name} {sizes[1]}; both score the same "
                "tokens."
            )
    given = row.get("mask")
    mask = np.ones(scores[0].shape, dtype=bool) if given is None else np.asarray(given)
    if mask.shape != scores[0].shape or not np.all((mask == 0) | (mask == 1)):
        raise ValueError(
            f"{place}: mask is no list of true and false, or 1 and 0, one for each score."
        )
    return _Row(scores, mask.astype(bool), row.get("group"))


def _scores(place: str, name: str, value: Any) -> NDArray[np.float64]:
    """Return the scores of a draw or sequence: numbers, which true and "-1.5" are not."""
    numbers = value if isinstance(value, list) else [value]
    if any(number is None for number in numbers):
        raise ValueError(f"{place}: {name} holds null or NaN; leave that token out of both.")
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
        raise ValueError(f"{place}: {name} is neither a number nor a list of numbers.")
    scores = np.array(value, dtype=np.float64)
    if np.any(np.isnan(scores)):
        raise ValueError(f"{place}: {name} holds null or NaN; leave that token out of both.")
    return scores


def _from_rows(
    name: str, found: Iterable[tuple[str, Mapping[str, Any]]], others: Sequence[str]
) -> LogProbabilities:
    rows = [_row(place, row, ("log_q", "log_p", *others)) for place, row in found]
    if not rows:
        raise ValueError(f"{name} holds no samples.")
    labels = [row.group for row in rows]
    if len({label is None for label in labels}) > 1:
        raise ValueError(f"{name}: some rows have a group and some have none; give all or none.")
    groups = None
    if labels[0] is not None:
        groups = np.empty(len(labels), dtype=object)  # labels of several kinds stay what they are
        groups[:] = labels
    if len({row.mask.ndim for row in rows}) > 1:
        raise ValueError(f"{name}: some rows hold one number and some hold lists; give one kind.")
    if rows[0].mask.ndim == 0:
        columns = np.array([row.scores for row in rows]).T
        drawn = np.array([row.mask for row in rows])
        mask = None if drawn.all() else drawn
    else:
        lengths = np.array([row.mask.size for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        columns = np.full((2 + len(others), *mask.shape), np.nan)
        for i, row in enumerate(rows):
            columns[:, i, : lengths[i]] = row.scores
            mask[i, : lengths[i]] = row.mask
    more = dict(zip(others, columns[2:], strict=True))
    return LogProbabilities(columns[0], columns[1], mask, groups, more)
