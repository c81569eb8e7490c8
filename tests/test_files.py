"""Reading log-probabilities from files, and the command line that does."""

import io
import json
import math
import sys
import warnings

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import klapprox as kl
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
    ([{"log_q": ["-1"], "log_p": [-1.0]}], "line 1: log_q is neither a number nor a list"),
    ([{"log_q": "-1", "log_p": -1.0}], "line 1: log_q is neither a number nor a list"),
    ([{"log_q": [True], "log_p": [-1.0]}], "line 1: log_q is neither a number nor a list"),
    ([{"log_q": [math.nan], "log_p": [-1.0]}], "line 1: log_q holds null or NaN"),
    ([ROWS[0] | {"groups": 1}, {}], "line 2: there is no log_p"),
    ([{"log_q": -1.0, "log_p": -1.0, "groups": 1}], "line 1: is 'groups' meant to be 'group'"),
    ([{"log_q": -1.0, "log_p": -1.0, "Mask": 1}], "line 1: is 'Mask' meant to be 'mask'"),
    ([ROWS[0] | {"mask": [1, 1]}], "line 1: mask is no list of true and false"),
    ([ROWS[0] | {"mask": [1, 1, 2]}], "line 1: mask is no list of true and false"),
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
    with pytest.raises(ValueError, match=r"ends in '.txt'; known are .npz"):
        read_log_probabilities("scores.txt")
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


def test_a_mask_in_a_line_takes_tokens_out_and_other_columns_are_ignored(tmp_path):
    rows = [row | {"prompt": "?"} for row in ROWS]
    rows[0]["mask"] = [False, True, True]
    rows[2]["mask"] = [1, 0]
    data = read_log_probabilities(as_jsonl(rows, tmp_path / "scores.jsonl"))
    assert data.mask.tolist() == [[False, True, True], [True, False, False], [True, False, False]]
    draws = [{"log_q": -1.0, "log_p": -2.0, "mask": m} for m in (True, False)]
    assert read_log_probabilities(as_jsonl(draws, tmp_path / "d.jsonl")).mask.tolist() == [1, 0]


def test_a_byte_order_mark_and_unicode_line_separators_are_no_fault(tmp_path):
    path = tmp_path / "scores.jsonl"
    line = '{"log_q": -1.0, "log_p": -2.0, "group": "a\u2028b\x85"}\n'
    path.write_text("\ufeff" + line * 2, encoding="utf-8")
    assert read_log_probabilities(path).groups.tolist() == ["a\u2028b\x85"] * 2
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match=r"scores.jsonl is no text in UTF-8"):
        read_log_probabilities(path)


def test_labels_of_several_kinds_stay_what_they_are(tmp_path):
    rows = [{"log_q": -1.0, "log_p": -2.0, "group": g} for g in ("1", 1, "1")]
    data = read_log_probabilities(as_jsonl(rows, tmp_path / "scores.jsonl"))
    assert data.groups.tolist() == ["1", 1, "1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kl.KLWarning)
        assert kl.estimate_kl(data.log_q, data.log_p, groups=data.groups).groups == 2


def test_a_table_in_csv_has_a_draw_a_line(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("\ufefflog_q,log_p,group,mask\n-1.0,-2,a,1\n-0.5,-inf,b,0\n", encoding="utf-8")
    data = read_log_probabilities(path)
    assert data.log_p.tolist() == [-2.0, -math.inf]
    assert (data.groups.tolist(), data.mask.tolist()) == (["a", "b"], [True, False])
    for text, message in (
        ("log_q,log_p\n-1\n", "line 2: not as many fields"),
        ("log_q,log_p\n-1,-1,-1\n", "line 2: not as many fields"),
        ("log_q,log_p\n-1,x\n", "line 2: log_p is neither a number"),
        ("log_q,logp\n-1,-1\n", "line 2: there is no log_p"),
        ("", "holds no samples"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_log_probabilities(path)


def test_further_scores_are_read_by_name(tmp_path):
    rows = [row | {"old": [x - 1 for x in row["log_q"]]} for row in ROWS]
    np.savez(tmp_path / "s.npz", log_q=np.zeros(2), log_p=np.zeros(2), old=np.ones(2))
    for path in (as_jsonl(rows, tmp_path / "s.jsonl"), as_parquet(rows, tmp_path / "s.parquet")):
        data = read_log_probabilities(path, others=["old"])
        assert np.array_equal(data.others["old"][data.mask], data.log_q[data.mask] - 1)
        with pytest.raises(ValueError, match="1: there is no engine"):
            read_log_probabilities(path, others=["engine"])
    assert read_log_probabilities(tmp_path / "s.npz", others=["old"]).others["old"].tolist() == [
        1,
        1,
    ]


def test_arrays_that_are_no_scores_are_named_with_their_file(tmp_path):
    np.savez(tmp_path / "s.npz", log_q=np.zeros(2, dtype=int), log_p=np.zeros(2))
    with pytest.raises(ValueError, match=r"s.npz: log_q has dtype int64"):
        read_log_probabilities(tmp_path / "s.npz")
    np.savez(tmp_path / "s.npz", log_q=np.zeros(2), log_p=np.zeros(2), groups=np.zeros(2))
    with pytest.raises(ValueError, match=r"s.npz: is 'groups' meant to be 'group'"):
        read_log_probabilities(tmp_path / "s.npz")
    (tmp_path / "s.parquet").write_bytes(b"junk of some length")
    with pytest.raises(ValueError, match=r"s.parquet is no Parquet file"):
        read_log_probabilities(tmp_path / "s.parquet")


def test_standard_input_is_read_under_the_name_of_a_dash(monkeypatch):
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n" + text))
    assert read_log_probabilities("-").mask.sum(axis=1).tolist() == [3, 1, 2]
    monkeypatch.setattr(sys, "stdin", io.StringIO(text + "{oops"))
    with pytest.raises(ValueError, match=r"^standard input, line 4: not JSON"):
        read_log_probabilities("-")


def test_an_empty_line_between_two_rows_is_no_end(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in ROWS))
    assert len(read_log_probabilities(path).log_q) == 3
    path.write_text(json.dumps(ROWS[0]) + "\n \n{oops")
    with pytest.raises(ValueError, match="line 3: not JSON"):
        read_log_probabilities(path)


def test_a_field_of_a_table_may_hold_a_line_break(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_bytes(b'log_q,log_p,group\r\n-1,-2,"a\r\nb"\r\n-1,-2,c\r\n-1,-2\r\n')
    with pytest.raises(ValueError, match="line 5: not as many fields"):
        read_log_probabilities(path)
    path.write_bytes(b'log_q,log_p,group\n-1,-2,"a\nb"\n-1,-2,c\n')
    assert read_log_probabilities(path).groups.tolist() == ["a\nb", "c"]


def test_labels_of_a_table_stay_text(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("log_q,log_p,group\n-1,-2,01\n-1,-2,1\n-1,-2,1.0\n")
    assert read_log_probabilities(path).groups.tolist() == ["01", "1", "1.0"]


def test_a_name_that_is_only_a_little_alike_is_ignored(tmp_path):
    rows = [row | {"logprob": 1, "task": "sums"} for row in ROWS]  # no mask is given
    data = read_log_probabilities(as_jsonl(rows, tmp_path / "scores.jsonl"))
    assert data.log_q.shape == (3, 3)


def test_whole_numbers_are_scores_too(tmp_path):
    draws = [{"log_q": -1, "log_p": -2}, {"log_q": -1, "log_p": -3}]
    for rows in (draws, [{name: [value] for name, value in row.items()} for row in draws]):
        data = read_log_probabilities(as_jsonl(rows, tmp_path / "scores.jsonl"))
        assert data.log_q.dtype == data.log_p.dtype == np.float64
        assert data.log_p.ravel().tolist() == [-2.0, -3.0]
