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
        return Blocks(self.values, size)

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
