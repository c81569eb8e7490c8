"""The tables of the chapter, made from the data file and put into its cells.

A table's cell is found by its heading line; everything in it is written anew. The tests compare.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

VALUES = {"k1": "$k_1$", "k2": "$k_2$", "k3": "$k_3$", "log_pi": r"$\log\pi$"}
# The coefficient of the score: beside a weight that is differentiated, or in the gradient only, the
# weight multiplies it.
COEFFICIENTS = {"one": "$1$", "minus_log_r": "$k_1$", "one_minus_r": "$1-r$", "zero": "$0$"}
WEIGHTS = {
    ("none", ""): "none",
    ("token", "differentiated"): "$w$, differentiated",
    ("token", "gradient only"): "$w$, in the gradient only",
    ("sequence mean", "differentiated"): r"$\bar w$, differentiated",
    ("token, against the engine", "differentiated"): "policy over engine, differentiated",
}
NORMALISATIONS = {
    "sum": "sum",
    "none": "sum",  # of a term without a reference
    "mean over kept tokens": "mean over kept tokens",
    "mean over positions": "mean over all places, padding included",
    "mean of sequence means": "each response divided by its length",
}
FIELDS = {
    "zero": "$0$",
    "reverse_kl": r"$\nabla K$",
    "forward_kl": r"$\nabla K'$",
    "reward_k3": r"$\nabla K-\nabla K'$",
    "token_reverse_kl": r"$\mathbb{E}_\pi[\sum_t\nabla K_t]$",
    "token_forward_kl": r"$\mathbb{E}_\pi[\sum_t\nabla K'_t]$",
    "length_k2": r"$\mathbb{E}_\pi[\frac1\tau\sum_tk_{1,t}s_t]$",
    "length_k3": r"$\mathbb{E}_\pi[\frac1\tau\sum_t(1-r_t)s_t]$",
    "reward_token_k3": r"$\mathbb{E}_\pi[\sum_ts_t\sum_{u\ge t}k_{3,u}]$",
    "inverse_length": r"$\nabla\mathbb{E}_\pi[\frac1\tau]$",
    "entropy": r"$\nabla\mathbb{E}_\pi[\log\pi]$",
    "stale_k2": r"$\nabla\mathbb{E}_{\mathrm{old}}[k_2]$",
    "stale_k3": r"$\nabla\mathbb{E}_{\mathrm{old}}[k_3]$",
    "frozen_entropy": r"$\nabla\mathbb{E}_\pi[\log\pi_{\mathrm{old}}]$",
    "frozen_token_k3": r"$\nabla\mathbb{E}_\pi[\sum_t\bar k_{3,t}]$",
    "frozen_penalty": r"$\nabla K-\nabla K_{\mathrm{old}}$",
    "frozen_k3": r"$\nabla\mathbb{E}_\pi[\bar k_3]$",
    "away_from_old": r"$-\nabla K'_{\mathrm{old}}$",
    "none": "none of the book",
}


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _name(row: Row) -> str:
    return f"{row['library']} {row['version'].removeprefix('v')}, {row['option']}"


def _table(heading: list[str], rows: list[Row], cells: Callable[[Row], list[str]]) -> str:
    lines = [_row(*heading), _row(*["---"] * len(heading)).replace(" ", "")]
    return "\n".join(lines + [_row(*cells(row)) for row in rows])


def _coefficient(row: Row) -> str:
    if row["place"] != "loss":
        return "a number"
    text = COEFFICIENTS[row["derivative"]]
    weight = {"token": "w", "sequence mean": r"\bar w", "token, against the engine": "w"}
    law = weight.get(row["weight"]["law"])
    return text if law is None else f"${law}\\,{text[1:]}"


def _default(row: Row) -> str:
    default = row["default"]
    size = default["coefficient"]
    if not default["option"]:
        return "an option"
    if size is None:
        return "as the trainer says" if row["package"] == "unsloth-zoo" else "off"
    if not size:
        return "off: `0`"
    return f"on, `{size:g}`" if default["on"] else f"off; `{size:g}` if on"


def _weight(row: Row) -> str:
    weight = row["weight"]
    text = WEIGHTS[weight["law"], weight["gradient"]]
    limit = next(iter(weight["limits"][1:]), None)
    # A clamp of the product is a limit too, and stands in the table of clamps.
    if limit is not None and row["clamp"] and weight["gradient"] == "gradient only":
        text = text.replace("$w$", rf"$\min(w,{limit:.0f})$")
    return text


def losses(rows: list[Row]) -> str:
    """Return what stands in the loss."""
    heading = ["library, in the loss", "value", "coefficient", "weight", "normalisation", "default"]
    return _table(
        heading,
        [row for row in rows if row["place"] == "loss"],
        lambda row: [
            _name(row),
            VALUES[row["value"]],
            _coefficient(row),
            _weight(row),
            NORMALISATIONS[row["normalisation"]],
            _default(row),
        ],
    )


def numbers(rows: list[Row]) -> str:
    """Return what stands elsewhere: rewards, advantages, a monitor."""
    heading = ["library, elsewhere", "place", "value", "direction", "default"]
    return _table(
        heading,
        [row for row in rows if row["place"] != "loss"],
        lambda row: [
            _name(row),
            row["place"],
            VALUES[row["value"]],
            _direction(row),
            _default(row),
        ],
    )


def _direction(row: Row) -> str:
    if row["place"] == "diagnostic":
        # The pair of early stopping: the policy that drew stands where the reference does.
        return "KL(π_old‖π_new)" if row["direction"] == "KL(π_ref‖π)" else row["direction"]
    return row["direction"]


def clamps(rows: list[Row]) -> str:
    """Return where values and gradients stop, and what the engine's ratio multiplies."""
    heading = [
        "library, limits",
        "what is clamped",
        "no gradient",
        "not finite",
        "engine's ratio multiplies",
    ]
    return _table(
        heading,
        [row for row in rows if row["place"] == "loss"],
        lambda row: [_name(row), _clamp(row), _flat(row), _broken(row), _engine(row)],
    )


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _clamp(row: Row) -> str:
    value = row["limits"]["above"].get("value_is")
    if row["clamp"] == "log r":
        return f"$\\log r$, at $\\pm{row['limits']['above']['value_from']:.0f}$"
    return "nothing" if value is None else f"the value, at ${abs(value):.0f}$"


def _sides(row: Row, name: str) -> str:
    words = [
        f"{side} {_number(row['limits'][side][name])}"
        for side in ("below", "above")
        if name in row["limits"][side]
    ]
    return " and ".join(words)


def _flat(row: Row) -> str:
    if row["derivative"] == "zero":
        return "anywhere"
    lost = _sides(row, "gradient_lost_from")
    return _sides(row, "gradient_zero_from") or (f"{lost}, by rounding" if lost else "–")


def _broken(row: Row) -> str:
    return _sides(row, "not_finite_from") or "–"


def _engine(row: Row) -> str:
    engine = row["engine"]
    if not engine["corrects"]:
        return "(not in this function)"
    return "the penalty too" if engine["multiplies_kl"] else "the policy's term only"


def meanings(rows: list[Row]) -> str:
    """Return the mean gradients with their statements, and what follows for a user."""
    heading = [
        "library, mean gradient",
        "one token",
        "the same, stale samples",
        "responses",
        "so what",
    ]
    return _table(
        heading,
        rows,
        lambda row: [
            _name(row),
            _gradient(row, "token, on-policy"),
            _gradient(row, "token, off-policy"),
            _gradient(row, "responses, on-policy"),
            row["so_what"],
        ],
    )


def _gradient(row: Row, where: str) -> str:
    gradient = row["gradients"].get(where)
    if gradient is None:
        if row["place"] == "diagnostic":
            return "none: {prf:ref}`prop-approx-kl`"
        return "no gradient" if row["derivative"] == "zero" and row["place"] == "loss" else "–"
    text = FIELDS.get(gradient["key"]) or f"`{gradient['text']}`"
    factor = gradient.get("factor")
    if isinstance(factor, float) and abs(factor - 1) > 1e-3 and gradient["key"] != "zero":
        text += ", times the share of places that are kept"
    return text + (f" {{prf:ref}}`{gradient['label']}`" if gradient["label"] else "")


def sources(data: Row) -> str:
    """Return which releases were measured or read, and where to look."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in data["rows"]:
        groups.setdefault((row["library"], row["version"]), []).append(row)
    return _table(
        ["library", "version", "date", "how", "file, line"],
        [{**rows[0], "places": _where(rows)} for rows in groups.values()],
        lambda row: [
            row["library"],
            f"`{row['package']}` {row['version']}",
            row["date"],
            row["evidence"],
            row["places"],
        ],
    )


# What many functions call; the table names those that say what the library does.
HELPERS = {"masked_mean", "masked_sum", "agg_loss", "aggregate_loss", "_compute_dapo_normalizer"}


def _where(rows: list[Row]) -> str:
    places: dict[str, str] = {}
    for row in rows:
        for entry in row["where"]:
            if entry.get("function", "masked_mean").rsplit(".", 1)[-1] not in HELPERS:
                name = entry["file"].rsplit("/", 1)[-1]
                places.setdefault(f"`{name}`", str(entry["line"]))
    return ", ".join(f"{name} {line}" for name, line in places.items())


CHANGES = {
    "default.option: False before, True now": "it is the default now",
    "default.option: True before, False now": "it is the default no longer",
    "masked.far apart: not finite before, unchanged now": (
        "masked tokens whose log-probabilities lie far apart no longer spoil it"
    ),
}


def history(data: Row) -> str:
    """Return what is different today from older releases."""
    today = {row["key"]: row for row in data["rows"]}
    heading = ["older release", "date", "what was run", "different today"]
    return _table(
        heading,
        data["older"],
        lambda entry: [
            f"`{entry['package']}` {entry['version']}",
            entry["date"],
            today[entry["key"]]["option"],
            "; ".join(_changes(entry["changes"])) or "nothing",
        ],
    )


def _changes(changes: list[str]) -> list[str]:
    words = []
    for change in changes:
        name, _, what = change.partition(": ")
        limit = re.fullmatch(r"limits\.(above|below)\.not_finite_from", name)
        if limit and what.endswith("before, None now"):
            size = _number(float(what.split(" ", 1)[0]))
            words.append(f"not finite {limit[1]} {size} before, finite now")
        elif not name.startswith("token."):  # single numbers, which the parts above explain
            words.append(CHANGES.get(change, f"`{change}`"))
    return words


def tables(data: Row) -> dict[str, str]:
    """Return every table by its heading line."""
    rows = data["rows"]
    made = [losses(rows), numbers(rows), clamps(rows), meanings(rows), sources(data), history(data)]
    return {table.split("\n", 1)[0]: table for table in made}


def write(data: Path, notebook: Path) -> int:
    """Write the tables into the cells of the chapter that begin with their headings."""
    wanted = tables(json.loads(data.read_text(encoding="utf-8")))
    text = json.loads(notebook.read_text(encoding="utf-8"))
    missing = set(wanted)
    for cell in text["cells"]:
        heading = "".join(cell["source"]).split("\n", 1)[0]
        if heading in wanted:
            cell["source"] = wanted[heading]
            missing.discard(heading)
    if missing:
        print(f"{notebook.name} has no cell that begins with: {'; '.join(sorted(missing))}")
        return 1
    notebook.write_text(json.dumps(text, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 0
