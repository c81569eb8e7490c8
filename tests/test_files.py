"""Reading log-probabilities from files, and the command line that does."""

import json
import runpy
import sys

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import klapprox as kl
from klapprox.__main__ import main
from klapprox.files import read_log_probabilities

ROWS = [
    {"log_q": [-1.0, -2.0, -0.5], "log_p": [-1.5, -1.5, -0.75], "group": "a"},
    {"log_q": [-0.5], "log_p": [-0.25], "group": "a"},
    {"log_q": [-1.0, -1.0], "log_p": [-2.0, -0.5], "group": "b"},
]


def as_jsonl(rows, path):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    return path


def as_parquet(rows, path):
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize(("save", "ending"), [(as_jsonl, "jsonl"), (as_parquet, "parquet")])
def test_lists_are_padded_and_masked(save, ending, tmp_path):
    data = read_log_probabilities(save(ROWS, tmp_path / f"scores.{ending}"))
    assert data.mask.sum(axis=1).tolist() == [3, 1, 2]
    assert data.log_q[2, :2].tolist() == [-1.0, -1.0]
    assert data.log_p[0].tolist() == [-1.5, -1.5, -0.75]
    assert np.isnan(data.log_q[1, 1:]).all()
    assert data.groups.tolist() == ["a", "a", "b"]


@pytest.mark.parametrize(("save", "ending"), [(as_jsonl, "jsonl"), (as_parquet, "parquet")])
def test_numbers_are_draws(save, ending, tmp_path):
    rows = [{"log_q": -1.0, "log_p": -2.0}, {"log_q": -0.5, "log_p": -0.25}]
    data = read_log_probabilities(save(rows, tmp_path / f"scores.{ending}"))
    assert data.log_p.tolist() == [-2.0, -0.25]
    assert data.mask is data.groups is None


def test_npz_holds_arrays_with_or_without_mask_and_group(tmp_path):
    log_q, log_p = np.log([[0.5, 0.25], [0.1, 0.2]]), np.log([[0.25, 0.5], [0.2, 0.2]])
    np.savez(tmp_path / "plain.npz", log_q=log_q, log_p=log_p)
    data = read_log_probabilities(str(tmp_path / "plain.npz"))
    assert np.array_equal(data.log_q, log_q)
    assert data.mask is data.groups is None
    mask = np.array([[True, False], [True, True]])
    np.savez(tmp_path / "full.npz", log_q=log_q, log_p=log_p, mask=mask, group=[1, 2])
    data = read_log_probabilities(tmp_path / "full.npz")
    assert np.array_equal(data.mask, mask)
    assert data.groups.tolist() == [1, 2]


BAD = [
    ([{"log_q": [-1.0]}], "line 1: there is no log_p"),
    ([{"other": 1}], "there is no log_p and no log_q"),
    ([], "holds no samples"),
    ([ROWS[0], {"log_q": [-1.0], "log_p": [-1.0]}], "some rows have a group"),
    ([{"log_q": [-1.0], "log_p": [-1.0, -2.0]}], "line 1: log_q has 1 tokens and log_p 2"),
    ([{"log_q": [-1.0], "log_p": -1.0}], "log_q has 1 tokens and log_p a single number"),
    ([{"log_q": -1.0, "log_p": -1.0}, {"log_q": [-1.0], "log_p": [-1.0]}], "give one kind"),
    ([{"log_q": ["a"], "log_p": [-1.0]}], "line 1: log_q is neither a number nor a list"),
    ([{"log_q": [-1.0], "log_p": [[-1.0]]}], "line 1: log_p is neither a number nor a list"),
    ([ROWS[2], {"log_q": [-1.0], "log_p": [None]}], "line 2: log_p holds null or NaN"),
    ([[-1.0, -2.0]], "line 1: no object with log_q and log_p"),
]


@pytest.mark.parametrize(("rows", "message"), BAD)
def test_bad_files_are_named(rows, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_log_probabilities(as_jsonl(rows, tmp_path / "bad.jsonl"))


def test_bad_lines_and_endings_are_named(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"log_q": 1}\n{oops\n')
    with pytest.raises(ValueError, match="line 1: there is no log_p"):
        read_log_probabilities(path)
    path.write_text("{oops\n")
    with pytest.raises(ValueError, match="line 1: not JSON"):
        read_log_probabilities(path)
    with pytest.raises(ValueError, match=r"ends in '.csv'; known are .npz"):
        read_log_probabilities("scores.csv")
    for junk in (b"", b"no", b"PK\x03\x04 torn off"):
        (tmp_path / "junk.npz").write_bytes(junk)
        with pytest.raises(ValueError, match=r"junk.npz is no .npz file"):
            read_log_probabilities(tmp_path / "junk.npz")
    np.save(tmp_path / "one.npy", np.zeros(2))
    with pytest.raises(ValueError, match=r"one.npz is no .npz file"):
        read_log_probabilities((tmp_path / "one.npy").rename(tmp_path / "one.npz"))
    np.savez(tmp_path / "half.npz", log_q=np.zeros(2))
    with pytest.raises(ValueError, match="there is no log_p"):
        read_log_probabilities(tmp_path / "half.npz")


def test_rows_of_a_table_are_named(tmp_path):
    rows = [{"log_q": [-1.0], "log_p": [-1.0]}, {"log_q": [-1.0, -2.0], "log_p": [-1.0]}]
    with pytest.raises(ValueError, match="row 2: log_q has 2 tokens and log_p 1"):
        read_log_probabilities(as_parquet(rows, tmp_path / "bad.parquet"))


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"klapprox\[files\]"):
        read_log_probabilities(tmp_path / "scores.parquet")


def test_the_command_prints_the_estimate(tmp_path, capsys, monkeypatch):
    path = as_jsonl(ROWS, tmp_path / "scores.jsonl")
    assert main([str(path), "--estimator", "k1", "--level", "token"]) == 0
    data = read_log_probabilities(path)
    options = {"mask": data.mask, "groups": data.groups, "estimator": "k1", "level": "token"}
    with pytest.warns(kl.KLWarning, match="rests on 2 independent groups"):
        wanted = kl.estimate_kl(data.log_q, data.log_p, **options)
    assert capsys.readouterr().out == f"{wanted}\n"
    assert main([str(tmp_path / "none.jsonl")]) == 1
    assert "none.jsonl" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["klapprox", str(path)])
    monkeypatch.delitem(sys.modules, "klapprox.__main__")
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("klapprox", run_name="__main__")
    assert "nats per sequence" in capsys.readouterr().out
