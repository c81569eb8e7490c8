"""Log-probabilities from files: ``.npz``, ``.jsonl`` and ``.parquet``, for `klapprox.estimate_kl`.

A file holds ``log_q`` and ``log_p``, in nats, of samples drawn from q: one number a draw, or one
list a sequence, of any lengths. It may hold ``group``, one label a draw or sequence, and, as
``.npz``, a ``mask`` beside two-dimensional arrays.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LogProbabilities", "read_log_probabilities"]


class LogProbabilities(NamedTuple):
    """Arguments of `klapprox.estimate_kl`; ``mask`` and ``groups`` may be None."""

    log_q: NDArray[np.float64]
    log_p: NDArray[np.float64]
    mask: NDArray[np.bool_] | None
    groups: NDArray[Any] | None


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
        If the ending is unknown, a name is missing, or the two lists of a sequence differ in
        length; with the file and the line or row.
    ImportError
        For ``.parquet`` without pyarrow.

    Examples
    --------
    >>> import tempfile, klapprox as kl
    >>> path = Path(tempfile.mkdtemp()) / "scores.jsonl"
    >>> _ = path.write_text('{"log_q": [-1.0, -2.0], "log_p": [-1.5, -1.5]}\n'
    ...                     '{"log_q": [-0.5], "log_p": [-0.25]}\n')
    >>> data = read_log_probabilities(path)
    >>> data.mask.tolist()
    [[True, True], [True, False]]
    >>> round(kl.estimate_kl(data.log_q, data.log_p, mask=data.mask).value, 4)
    0.1446
    """
    path = Path(path)
    readers = {".npz": _from_npz, ".jsonl": _from_jsonl, ".parquet": _from_parquet}
    if path.suffix not in readers:
        raise ValueError(f"{path} ends in {path.suffix!r}; known are {', '.join(readers)}.")
    return readers[path.suffix](path)


def _from_npz(path: Path) -> LogProbabilities:
    with np.load(path) as arrays:
        _refuse_missing(path, arrays.files)
        mask = arrays["mask"] if "mask" in arrays.files else None
        groups = arrays["group"] if "group" in arrays.files else None
        return LogProbabilities(arrays["log_q"], arrays["log_p"], mask, groups)


def _from_jsonl(path: Path) -> LogProbabilities:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error}).") from None
        _refuse_missing(f"{path}, line {number}", row)
        rows.append(row)
    return _from_rows(path, [{**row, "group": row.get("group")} for row in rows])


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
    return _from_rows(path, [{"log_q": q, "log_p": p, "group": g} for q, p, g in rows])


def _refuse_missing(place: object, names: Any) -> None:
    missing = {"log_q", "log_p"} - set(names)
    if missing:
        raise ValueError(f"{place}: there is no {' and no '.join(sorted(missing))}.")


def _from_rows(path: Path, rows: Sequence[dict[str, Any]]) -> LogProbabilities:
    if not rows:
        raise ValueError(f"{path} holds no samples.")
    labels = [row["group"] for row in rows]
    if len({label is None for label in labels}) > 1:
        raise ValueError(f"{path}: some rows have a group and some have none; give all or none.")
    groups = None if labels[0] is None else np.asarray(labels)
    if not isinstance(rows[0]["log_q"], list):
        log_q, log_p = (np.array([float(row[k]) for row in rows]) for k in ("log_q", "log_p"))
        return LogProbabilities(log_q, log_p, None, groups)
    lengths = np.array([len(row["log_q"]) for row in rows])
    padded = np.full((2, len(rows), lengths.max()), np.nan)
    for i, row in enumerate(rows):
        if len(row["log_p"]) != lengths[i]:
            raise ValueError(
                f"{path}, row {i + 1}: log_q has {lengths[i]} tokens and log_p "
                f"{len(row['log_p'])}; both score the same tokens."
            )
        padded[:, i, : lengths[i]] = row["log_q"], row["log_p"]
    mask = np.arange(lengths.max()) < lengths[:, None]
    return LogProbabilities(padded[0], padded[1], mask, groups)
