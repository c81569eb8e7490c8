"""Log-probabilities from files: ``.npz``, ``.jsonl`` and ``.parquet``, for `klapprox.estimate_kl`.

A file holds ``log_q`` and ``log_p``, in nats, of samples drawn from q: one number a draw, or one
list a sequence, of any lengths. It may hold ``group``, one label a draw or sequence, and, as
``.npz``, a ``mask`` beside two-dimensional arrays.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

__all__ = ["LogProbabilities", "read_log_probabilities"]


class LogProbabilities(NamedTuple):
    """Arguments of `klapprox.estimate_kl`; ``mask`` and ``groups`` may be None."""

    log_q: NDArray[np.float64]
    log_p: NDArray[np.float64]
    mask: NDArray[np.bool_] | None
    groups: NDArray[Any] | None


class _Row(NamedTuple):
    """One draw (numbers) or one sequence (arrays of one dimension)."""

    log_q: NDArray[np.float64]
    log_p: NDArray[np.float64]
    group: Any


def read_log_probabilities(path: str | Path) -> LogProbabilities:
    r"""Read log-probabilities of samples under q, which generated them, and under p.

    Parameters
    ----------
    path : str or Path
        ``.npz`` with arrays ``log_q`` and ``log_p`` and, if wanted, ``mask`` and ``group``;
        ``.jsonl`` with an object ``{"log_q": ..., "log_p": ..., "group": ...}`` a line;
        ``.parquet`` with columns of these names (needs ``pip install "klapprox[files]"``).

    Returns
    -------
    LogProbabilities
        Sequences of different lengths are padded, and masked where they are.

    Raises
    ------
    ValueError
        If the ending is unknown, a name is missing, a score is no number, or the two lists of a
        sequence differ in length; with the file and the line or row.
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
    path = Path(path)
    readers = {".npz": _from_npz, ".jsonl": _from_jsonl, ".parquet": _from_parquet}
    if path.suffix not in readers:
        raise ValueError(f"{path} ends in {path.suffix!r}; known are {', '.join(readers)}.")
    return readers[path.suffix](path)


def _from_npz(path: Path) -> LogProbabilities:
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            found = dict(arrays)
    except (BadZipFile, EOFError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no .npz file of plain arrays; write it with "
            "numpy.savez(path, log_q=..., log_p=...)."
        ) from error
    _refuse_missing(path, found)
    return LogProbabilities(found["log_q"], found["log_p"], found.get("mask"), found.get("group"))


def _from_jsonl(path: Path) -> LogProbabilities:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{place}: not JSON ({error}).") from None
        if not isinstance(row, dict):
            raise ValueError(f"{place}: no object with log_q and log_p.")
        _refuse_missing(place, row)
        rows.append(_row(place, row["log_q"], row["log_p"], row.get("group")))
    return _from_rows(path, rows)


def _from_parquet(path: Path) -> LogProbabilities:
    try:
        from pyarrow import parquet
    except ImportError:
        raise ImportError(
            f'{path} needs pyarrow: pip install "klapprox[files]", or save the arrays as .npz.'
        ) from None
    table = parquet.read_table(path)
    _refuse_missing(path, table.column_names)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    groups = columns.get("group", [None] * table.num_rows)
    rows = zip(columns["log_q"], columns["log_p"], groups, strict=True)
    return _from_rows(path, [_row(f"{path}, row {i}", *row) for i, row in enumerate(rows, 1)])


def _refuse_missing(place: object, names: Any) -> None:
    missing = {"log_q", "log_p"} - set(names)
    if missing:
        raise ValueError(f"{place}: there is no {' and no '.join(sorted(missing))}.")


def _row(place: str, log_q: Any, log_p: Any, group: Any) -> _Row:
    """Return one draw or sequence, or say what is wrong with it."""
    scores = []
    for name, value in (("log_q", log_q), ("log_p", log_p)):
        try:
            numbers = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            numbers = np.empty((0, 0))
        if numbers.ndim > 1:
            raise ValueError(f"{place}: {name} is neither a number nor a list of numbers.")
        if np.any(np.isnan(numbers)):
            raise ValueError(f"{place}: {name} holds null or NaN; leave that token out of both.")
        scores.append(numbers)
    if scores[0].shape != scores[1].shape:
        sizes = [f"{x.size} tokens" if x.ndim else "a single number" for x in scores]
        raise ValueError(
            f"{place}: log_q has {sizes[0]} and log_p {sizes[1]}; both score the same tokens."
        )
    return _Row(scores[0], scores[1], group)


def _from_rows(path: Path, rows: Sequence[_Row]) -> LogProbabilities:
    if not rows:
        raise ValueError(f"{path} holds no samples.")
    labels = [row.group for row in rows]
    if len({label is None for label in labels}) > 1:
        raise ValueError(f"{path}: some rows have a group and some have none; give all or none.")
    groups = None if labels[0] is None else np.asarray(labels)
    if len({row.log_q.ndim for row in rows}) > 1:
        raise ValueError(f"{path}: some rows hold one number and some hold lists; give one kind.")
    if rows[0].log_q.ndim == 0:
        log_q, log_p = np.array([row.log_q for row in rows]), np.array([row.log_p for row in rows])
        return LogProbabilities(log_q, log_p, None, groups)
    lengths = np.array([row.log_q.size for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.full((2, *mask.shape), np.nan)
    for i, row in enumerate(rows):
        padded[:, i, : lengths[i]] = row.log_q, row.log_p
    return LogProbabilities(padded[0], padded[1], mask, groups)
