"""The command line: what it prints, saves and says when something is missing."""

import importlib.metadata
import io
import json
import math
import runpy
import sys
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest

import klapprox as kl
from klapprox.__main__ import main
from klapprox.files import read_log_probabilities

RNG = np.random.Generator(np.random.PCG64(90))
LENGTHS = RNG.integers(1, 9, 60)
ROWS = [
    {
        "log_q": (-2 - RNG.random(size)).tolist(),
        "log_p": (-2 - RNG.random(size)).tolist(),
        "old": (-2 - RNG.random(size)).tolist(),
        "engine": (-2 - RNG.random(size)).tolist(),
        "group": i // 2,
    }
    for i, size in enumerate(LENGTHS)
]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "scores.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    return file


def estimated(path, first="log_q", second="log_p", weights=None, **options):
    data = read_log_probabilities(path, others=["old", "engine"])
    scores = {"log_q": data.log_q, "log_p": data.log_p, **data.others}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kl.KLWarning)
        if weights:
            ratios = np.where(data.mask, scores["log_q"] - scores[weights], 0.0)
            options["log_weights"] = ratios.sum(axis=1)[:, None]
        return kl.estimate_kl(
            scores[first], scores[second], mask=data.mask, groups=data.groups, **options
        )


def test_the_command_prints_the_estimate(path, capsys, monkeypatch):
    arguments = ["--estimator", "k1", "--level", "token", "--confidence", "0.8"]
    assert main([str(path), *arguments]) == 0
    wanted = estimated(path, estimator="k1", level="token", confidence=0.8)
    assert capsys.readouterr().out == f"{wanted}\n"
    assert main([str(path.with_name("none.jsonl"))]) == 1
    assert "none.jsonl" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["klapprox", str(path)])
    monkeypatch.delitem(sys.modules, "klapprox.__main__")
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("klapprox", run_name="__main__")
    assert "nats per sequence" in capsys.readouterr().out


def test_it_is_installed_under_its_name():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="klapprox")
    assert script.load() is main


def test_it_reads_standard_input(path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(path.read_text()))
    assert main(["-"]) == 0
    assert capsys.readouterr().out == f"{estimated(path)}\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("{}"))
    assert main(["-"]) == 1
    assert "standard input, line 1: there is no log_p" in capsys.readouterr().err


def test_it_prints_json(path, capsys, tmp_path):
    assert main([str(path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    wanted = estimated(path)
    assert found["value"] == wanted.value
    assert found["interval"] == list(wanted.interval)
    assert found["diagnostics"]["effective_size"] == wanted.diagnostics.effective_size
    infinite = tmp_path / "infinite.csv"
    infinite.write_text("log_q,log_p\n-1,-1\n-1,-inf\n")
    assert main([str(infinite), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    assert found["value"] is None


@pytest.mark.parametrize(
    ("arguments", "pairs"),
    [
        (["--old", "old"], {"old policy‖policy": ("old", "log_q")}),
        (["--rollout", "engine"], {"engine‖policy": ("engine", "log_q")}),
        (
            ["--old", "old", "--rollout", "engine"],
            {"engine‖old policy": ("engine", "old"), "engine‖policy": ("engine", "log_q")},
        ),
    ],
)
def test_four_laws_are_compared_where_the_file_has_them(path, capsys, arguments, pairs):
    assert main([str(path), *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"KL(policy‖reference)", *(f"KL({pair})" for pair in pairs)}
    for pair, names in pairs.items():
        assert found[f"KL({pair})"]["value"] == estimated(path, *names).value
    sampler = "engine" if "engine" in arguments else "old"
    wanted = estimated(path, weights=sampler)
    assert found["KL(policy‖reference)"]["value"] == wanted.value
    assert main([str(path), *arguments]) == 0
    assert capsys.readouterr().out.startswith(f"KL(policy‖reference)\n{wanted}\n\nKL(")


def test_draws_are_weighted_one_by_one(tmp_path, capsys):
    scores = -1 - RNG.random((3, 50))
    np.savez(tmp_path / "s.npz", log_q=scores[0], log_p=scores[1], old=scores[2])
    assert main([str(tmp_path / "s.npz"), "--old", "old", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["KL(policy‖reference)"]
    wanted = np.mean(np.exp(scores[0] - scores[2]) * kl.k3(scores[1] - scores[0]))
    assert found["value"] == pytest.approx(wanted)
    names = ("log_q", "log_p", "old")
    sequences = {name: x.reshape(10, 5) for name, x in zip(names, scores, strict=True)}
    np.savez(tmp_path / "s.npz", **sequences)
    assert main([str(tmp_path / "s.npz"), "--old", "old", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["KL(policy‖reference)"]
    w = np.exp((sequences["log_q"] - sequences["old"]).sum(axis=1))
    k = kl.k3(sequences["log_p"] - sequences["log_q"]).sum(axis=1)
    assert found["value"] == pytest.approx(np.mean(w * k))


@pytest.mark.parametrize("estimator", ["k1", "k_lambda"])
def test_a_picture_is_saved(tmp_path, capsys, estimator):
    x = RNG.standard_normal(200)
    np.savez(tmp_path / "s.npz", log_q=-(x**2) / 2, log_p=-((x - 0.5) ** 2) / 2)
    picture = tmp_path / "s.svg"
    assert main([str(tmp_path / "s.npz"), "--plot", str(picture), "--estimator", estimator]) == 0
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_the_picture_draws_what_it_says(path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path: drawn.append(self))
    assert main([str(path), "--plot", "any.svg"]) == 0
    running, tails, positions = drawn[0].axes
    data = read_log_probabilities(path)
    log_r = np.where(data.mask, data.log_p - data.log_q, 0.0)
    k3 = kl.k3(log_r)
    mean = running.lines[0].get_ydata()
    assert mean == pytest.approx(np.cumsum(k3.sum(axis=1)) / np.arange(1, 61))
    assert positions.lines[0].get_ydata() == pytest.approx(k3.sum(axis=0) / data.mask.sum(axis=0))
    assert list(positions.lines[0].get_xdata()) == list(range(1, data.mask.shape[1] + 1))
    above, below = tails.lines
    used = log_r[data.mask]
    assert above.get_ydata()[-1] == pytest.approx(np.mean(used > 0))
    assert below.get_ydata()[-1] == pytest.approx(np.mean(used < 0))
    last = running.collections[0].get_paths()[0].vertices
    half = 1.959963984540054 * k3.sum(axis=1).std(ddof=1) / math.sqrt(60)
    assert last[:, 1].max() >= mean[-1] + half - 1e-12
    at_end = last[last[:, 0] == 60][:, 1]
    assert (at_end.min(), at_end.max()) == pytest.approx((mean[-1] - half, mean[-1] + half))


def test_what_a_picture_needs_is_said(path, tmp_path, capsys, monkeypatch):
    nothing = tmp_path / "nothing.csv"
    nothing.write_text("log_q,log_p\n-1,-inf\n-1,-inf\n")
    assert main([str(nothing), "--plot", str(tmp_path / "s.svg")]) == 1
    assert "nothing to draw" in capsys.readouterr().err
    assert main([str(path), "--plot", str(tmp_path / "s.xyz")]) == 1
    assert "xyz" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main([str(path), "--plot", str(tmp_path / "s.svg")]) == 1
    assert 'pip install "klapprox[plot]"' in capsys.readouterr().err
