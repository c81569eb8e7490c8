"""Streaming equals batch however chunked; merging in any order; clear errors."""

import functools
import itertools
import math
import sys
import types
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import klapprox as kl
from klapprox.control_variates import regression

RNG = np.random.Generator(np.random.PCG64(60))
X = RNG.standard_normal(500)
LOG_Q, LOG_P = -(X**2) / 2, -((X - 0.8) ** 2) / 2


@functools.cache
def batch(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kl.KLWarning)
        return kl.estimate_kl(LOG_Q, LOG_P, estimator=estimator)


for NAME in ("k1", "k2", "k3"):  # the first use imports slow libraries, which has no place in
    batch(NAME)  # a timed example


def quiet(stream, estimator="k3"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kl.KLWarning)
        return stream.estimate(estimator)


def chunked(cuts):
    edges = [0, *sorted(cuts), len(X)]
    return [(LOG_Q[a:b], LOG_P[a:b]) for a, b in itertools.pairwise(edges)]


@given(st.lists(st.integers(0, len(X)), max_size=12))
def test_streaming_equals_batch_however_chunked(cuts):
    stream = kl.stream_kl(chunked(cuts))
    for name in ("k1", "k2", "k3"):
        found, wanted = stream.estimate(name), batch(name)
        assert found.value == pytest.approx(wanted.value, rel=1e-12)
        assert found.standard_error == pytest.approx(wanted.standard_error, rel=1e-12)
        assert found.interval == pytest.approx(wanted.interval, rel=1e-12)
        assert found.diagnostics.mean_ratio == pytest.approx(wanted.diagnostics.mean_ratio)
        assert found.diagnostics.mean_ratio_z == pytest.approx(wanted.diagnostics.mean_ratio_z)
        assert found.diagnostics.effective_size == pytest.approx(wanted.diagnostics.effective_size)
        assert found.diagnostics.max_log_ratio == wanted.diagnostics.max_log_ratio
    assert stream.estimate("k_lambda").value == pytest.approx(regression(LOG_P - LOG_Q), rel=1e-12)


@given(st.permutations(range(6)))
def test_merging_does_not_depend_on_the_order(order):
    parts = [kl.stream_kl([part]) for part in chunked([40, 41, 300, 310, 480])]
    total = kl.KLStream()
    for i in order:
        total.merge(parts[i])
    wanted = kl.stream_kl([(LOG_Q, LOG_P)])
    assert total.n == wanted.n
    np.testing.assert_allclose(total.mean, wanted.mean, rtol=1e-12)
    np.testing.assert_allclose(total.products, wanted.products, rtol=1e-10)


def test_a_large_common_value_does_not_cancel():
    # k1 = 1e8 + small: naive sums of squares would lose all digits of the variance.
    small = RNG.standard_normal(1000)
    stream = kl.stream_kl([(np.full(100, -1.0), -1e8 - part) for part in np.split(small, 10)])
    found = quiet(stream, "k1").standard_error
    assert found == pytest.approx(small.std(ddof=1) / math.sqrt(1000), rel=1e-6)


def test_the_error_of_k_lambda_is_that_of_its_residuals():
    stream = kl.stream_kl([(LOG_Q, LOG_P)])
    x, y = np.expm1(LOG_P - LOG_Q), LOG_Q - LOG_P
    slope = -np.cov(x, y)[0, 1] / x.var(ddof=1)
    residual = (y + slope * x).std(ddof=1) / math.sqrt(len(x))
    assert stream.estimate("k_lambda").standard_error == pytest.approx(residual, rel=1e-10)
    assert stream.estimate("k_lambda").standard_error <= stream.estimate("k3").standard_error


def test_equal_laws_and_points_without_mass():
    same = kl.stream_kl([(np.full(5, -1.0), np.full(5, -1.0))])
    assert quiet(same, "k_lambda").value == quiet(same, "k3").value == 0
    assert quiet(same).diagnostics.mean_ratio_z is None
    missing = kl.stream_kl([(np.full(4, -1.0), np.array([-1.0, -np.inf, -1.0, -1.0]))])
    result = quiet(missing, "k1")
    assert result.value == result.standard_error == math.inf
    assert result.interval == (math.inf, math.inf)
    assert result.diagnostics.mean_ratio == 0.75
    assert result.diagnostics.effective_size == pytest.approx(3)
    nothing = kl.stream_kl([(np.full(4, -1.0), np.full(4, -np.inf))])
    result = quiet(nothing)
    assert result.value == math.inf
    assert result.diagnostics.effective_size == 0
    assert result.diagnostics.mean_ratio_z is None


def test_warnings_are_those_of_the_batch():
    with pytest.warns(kl.KLWarning, match="mean of r"):
        swapped = kl.stream_kl([(LOG_P, LOG_Q)]).estimate()
    assert any("mean of r" in text for text in swapped.warnings)


def test_progress_is_shown_on_request(capsys):
    kl.stream_kl(chunked([250]), total=2, progress=True)
    assert "2/2" in capsys.readouterr().err


class Blocks:
    """What `stream_dask` asks of a Dask array."""

    def __init__(self, values, size):
        self.values, self.size, self.shape = values, size, values.shape
        self.chunks = size

    def rechunk(self, size):
        whole = {1: -1}
        return Blocks(self.values, self.size if size == whole else size)

    def to_delayed(self):
        blocks = [self.values[i : i + self.size] for i in range(0, len(self.values), self.size)]
        out = np.empty(len(blocks), dtype=object)
        out[:] = [Delayed(block) for block in blocks]
        return out


class Delayed:
    def __init__(self, value):
        self.value = value

    def compute(self):
        return self.value


def delayed(function):
    def now(value):
        return [now(v) for v in value] if isinstance(value, list) else value.value

    return lambda *arguments: Delayed(function(*map(now, arguments)))


def test_dask_arrays_are_reduced_block_by_block(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", types.SimpleNamespace(delayed=delayed))
    found = kl.stream_dask(Blocks(LOG_Q, 30), Blocks(LOG_P, 500))
    wanted = kl.stream_kl([(LOG_Q, LOG_P)])
    assert found.n == wanted.n
    np.testing.assert_allclose(found.products, wanted.products, rtol=1e-10)
    found = kl.stream_dask(Blocks(TOKENS_Q, 7), Blocks(TOKENS_P, 40))
    assert quiet(found).value == pytest.approx(quiet(kl.stream_kl([(TOKENS_Q, TOKENS_P)])).value)
    with pytest.raises(ValueError, match="give equal ones"):
        kl.stream_dask(Blocks(LOG_Q, 30), Blocks(LOG_P[1:], 30))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kl.KLStream().update([-1.0], [-1.0, -2.0]), "give both the same shape"),
        (lambda: kl.KLStream().update([-400.0], [-1.0]), "draws of q never get there"),
        (lambda: kl.KLStream().update([math.nan], [-1.0]), "log_q holds NaN"),
        (lambda: kl.stream_kl([([-1.0], [-2.0])]).estimate(), "an error bar needs three"),
        (lambda: kl.KLStream().estimate("k4"), "estimator is 'k4'"),
        (lambda: kl.KLStream().estimate(confidence=2), "confidence is 2"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_empty_chunk_changes_nothing():
    stream = kl.stream_kl([(LOG_Q, LOG_P), (np.array([]), np.array([]))])
    assert stream.n == len(X)


TOKENS_Q = np.log(RNG.random((40, 5)))
TOKENS_P = TOKENS_Q + 0.3 * RNG.standard_normal((40, 5))
MASK = np.arange(5) < RNG.integers(0, 6, (40, 1))
PROMPTS = np.arange(40) // 4
WEIGHTS = 0.2 * RNG.standard_normal((40, 1))
FIELDS = ("value", "standard_error", "n", "groups", "interval")


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize(
    "names",
    [(), ("mask",), ("mask", "groups"), ("log_weights",), ("mask", "groups", "log_weights")],
)
@pytest.mark.parametrize("self_normalised", [False, True])
def test_mask_groups_and_weights_are_those_of_the_batch(level, names, self_normalised):
    self_normalised = self_normalised and "log_weights" in names
    given = {"mask": MASK, "groups": PROMPTS, "log_weights": WEIGHTS}
    options = {"level": level, "self_normalised": self_normalised}
    stream = kl.stream_kl(
        {"log_q": TOKENS_Q[a:b], "log_p": TOKENS_P[a:b]} | {n: given[n][a:b] for n in names}
        for a, b in itertools.pairwise([0, 8, 12, 40])
    )
    for name in ("k1", "k2", "k3"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", kl.KLWarning)
            found = stream.estimate(name, **options)
            wanted = kl.estimate_kl(
                TOKENS_Q, TOKENS_P, estimator=name, **options, **{n: given[n] for n in names}
            )
        for field in FIELDS:
            assert getattr(found, field) == pytest.approx(getattr(wanted, field), rel=1e-10), field
        assert (found.unit, found.warnings) == (wanted.unit, wanted.warnings)
        for field in ("mean_ratio", "mean_ratio_z", "effective_size", "weight_effective_size",
                      "error_ratio", "rounding", "zeros", "constant"):  # fmt: skip
            one, other = (getattr(x.diagnostics, field) for x in (found, wanted))
            assert one == (None if other is None else pytest.approx(other, rel=1e-9)), field


def test_a_state_is_saved_restored_and_compared(tmp_path):
    stream = kl.stream_kl(chunked([40, 300]))
    np.save(tmp_path / "state.npy", stream.state)
    again = kl.KLStream.of_state(np.load(tmp_path / "state.npy"))
    assert again == stream
    assert again.estimate() == stream.estimate()
    again.merge(kl.KLStream())
    assert again == stream
    assert kl.KLStream() == kl.KLStream() != stream
    assert kl.KLStream() != 0
    again.update(LOG_Q, LOG_P)
    assert again != stream
    with pytest.raises(ValueError, match=r"state has shape \(3,\)"):
        kl.KLStream.of_state([1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="unhashable"):
        hash(stream)


def test_what_does_not_go_together_is_refused():
    draws, sequences = kl.stream_kl([(LOG_Q, LOG_P)]), kl.stream_kl([(TOKENS_Q, TOKENS_P)])
    with pytest.raises(ValueError, match="keep one stream for each"):
        draws.merge(sequences)
    with pytest.raises(ValueError, match="takes draws of one dimension"):
        sequences.estimate("k_lambda")
    with pytest.raises(ValueError, match="self_normalised needs log_weights"):
        draws.estimate(self_normalised=True)
    by_token = kl.KLStream()
    by_token.update(TOKENS_Q, TOKENS_P, log_weights=0.1 * TOKENS_Q)
    with pytest.raises(ValueError, match="one weight a sequence"):
        by_token.estimate(self_normalised=True)
    with pytest.raises(TypeError, match=r"log_q is a ndarray; give a dask.array"):
        kl.stream_dask(LOG_Q, LOG_P)


def test_weights_that_all_underflow_have_no_effective_size():
    stream = kl.KLStream()
    stream.update(LOG_Q, LOG_P, log_weights=np.full(len(X), -np.inf))
    with pytest.raises(ValueError, match="every weight is 0; add one constant"):
        stream.estimate("k1", self_normalised=True)
    result = quiet(stream, "k1")
    assert result.value == 0
    assert any("effective size of 0" in text for text in result.warnings)


def test_zeros_of_p_are_counted_in_a_stream():
    stream = kl.stream_kl([(LOG_Q, np.where(X > 2, -np.inf, LOG_P))])
    with pytest.warns(kl.KLWarning, match=f"p.x. = 0 at {np.sum(X > 2)} of the samples"):
        assert stream.estimate().value == math.inf


def test_an_impossible_ratio_is_told_by_a_stream_as_by_the_batch():
    log_r = np.array([0.1, -0.2, 30.0, 0.3, -0.1])
    found = quiet(kl.stream_kl((np.full(len(x), -40.0), x - 40) for x in (log_r[:2], log_r[2:])))
    bound = found.diagnostics.max_log_ratio_bound
    assert bound == pytest.approx(5 * math.exp(-30), rel=1e-12)  # lem-log-ratio-tail
    assert any("this has probability below 5e-13" in text for text in found.warnings)
