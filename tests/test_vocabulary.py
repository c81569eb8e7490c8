"""Divergences of whole vocabularies with NumPy; tests/arrays has other libraries and gradients."""

import itertools
import math
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import array_api_compat
import mpmath
import numpy as np
import pytest

import klapprox as kl
from klapprox import vocabulary
from klapprox.vocabulary import exact_kl, exact_kl_from_hidden, jsd, topk_kl

INF = math.inf


def normal(seed, *shape):
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def summed(logits_q, logits_p):
    """Return Σ q log(q/p), as people write it."""
    log_q, log_p = log_softmax(logits_q), log_softmax(logits_p)
    return np.sum(np.exp(log_q) * (log_q - log_p), axis=-1)


def mixture_sum(logits_q, logits_p, beta):
    """Return the Jensen-Shannon divergence from its definition."""
    q, p = np.exp(log_softmax(logits_q)), np.exp(log_softmax(logits_p))
    m = beta * q + (1 - beta) * p
    return np.sum(beta * q * np.log(q / m) + (1 - beta) * p * np.log(p / m), axis=-1)


def exact(logits_q, logits_p):
    """Return the divergence of one pair of rows to 50 digits."""
    with mpmath.workdps(50):
        q, p = ([mpmath.exp(mpmath.mpf(float(z))) for z in row] for row in (logits_q, logits_p))
        total_q, total_p = mpmath.fsum(q), mpmath.fsum(p)
        log_r = [
            mpmath.log(b / total_p) - mpmath.log(a / total_q) for a, b in zip(q, p, strict=True)
        ]
        return -mpmath.fsum(a * x for a, x in zip(q, log_r, strict=True)) / total_q


SHIFTS = [(0.0, 0.0), (1e4, 1e4), (0.0, 1e4), (-3e3, 1e4)]
SPREADS = [1e-9, 1e-5, 1e-2, 1.0, 30.0]


@pytest.mark.parametrize("shifts", SHIFTS)
@pytest.mark.parametrize("spread", SPREADS)
def test_it_has_the_digits_of_its_arguments_at_every_size(spread, shifts):
    # Multiples of 2⁻³⁸ near 1e4 and below: a constant can be added without rounding.
    logits_q = np.round(3 * normal(0, 50) * 2.0**38) / 2.0**38
    logits_p = logits_q + np.round(spread * normal(1, 50) * 2.0**38) / 2.0**38
    found = exact_kl(logits_q + shifts[0], logits_p + shifts[1])
    # A difference of 1e4 is known to 2e-12, which is what counts where the shifts differ.
    unit = 1e-14 if shifts[0] == shifts[1] else 1e-14 + 1e-11 * 2.0**-10 / spread
    assert found == pytest.approx(float(exact(logits_q, logits_p)), rel=max(unit, 1e-13))


@pytest.mark.parametrize("spread", [6e-5, 1e-3, 0.05, 1.0, 4.5])
def test_a_vocabulary_of_float32_logits_is_right_to_its_rounding(spread):
    logits_q = (3 * normal(0, 128_000)).astype(np.float32)
    logits_p = (logits_q + spread * normal(1, 128_000)).astype(np.float32)
    # float128 where the machine has it; the sum of k3 needs no more than float64.
    a, b = (z.astype(np.longdouble) for z in (logits_q, logits_p))
    log_q, log_p = log_softmax(a), log_softmax(b)
    wanted = np.sum(np.exp(log_q) * kl.k3((log_p - log_q).astype(float)))
    assert 1e-9 < wanted < 10
    found = exact_kl(logits_q, logits_p)
    assert found.dtype == np.float32
    assert found == pytest.approx(float(wanted), rel=1e-7)
    assert exact_kl(a.astype(float), b.astype(float)) == pytest.approx(float(wanted), rel=1e-10)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("chunk", [None, 1, 2, 5, 12, 100])
@pytest.mark.parametrize("shape", [(12,), (3, 4), (2, 3, 2), (1, 7, 1), ()])
def test_chunks_shapes_and_dtypes_change_nothing(shape, chunk, dtype):
    logits = [2 * normal(seed, *shape, 9).astype(dtype) for seed in range(2)]
    found = exact_kl(*logits, temperature=1.5, chunk=chunk)
    assert found.dtype == ("float64" if dtype == "float64" else "float32")
    wanted = summed(*(z.astype(float) / 1.5 for z in logits))
    assert found.shape == shape
    np.testing.assert_allclose(found, wanted, rtol=1e-13 if dtype == "float64" else 1e-6)


def test_rows_of_any_strides_are_taken_as_they_are():
    logits = [normal(seed, 3, 5, 8)[:, :-1, ::2] for seed in range(2)]
    assert not logits[0].flags.contiguous
    np.testing.assert_allclose(exact_kl(*logits, chunk=3), summed(*logits), rtol=1e-13)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)])
def test_an_empty_batch_has_no_divergences(shape):
    logits = np.zeros((*shape, 5))
    assert exact_kl(logits, logits).shape == jsd(logits, logits, 0.5).shape == shape


def test_excluded_tokens_follow_the_conventions_of_measures():
    every, first, last = [0.0, 0.0, 0.0], [0.0, 0.0, -INF], [-INF, 0.0, 0.0]
    assert exact_kl(np.array(first), np.array(every)) == pytest.approx(math.log(1.5))
    assert exact_kl(np.array(first), np.array(first)) == 0
    assert exact_kl(np.array(every), np.array(first)) == INF
    assert exact_kl(np.array(first), np.array(last)) == INF
    # Excluded by underflow.
    assert exact_kl(np.array([0.0, -1e30]), np.array([0.0, -INF])) == 0
    # Laws that share nothing.
    apart = np.array([0.0, -INF]), np.array([-INF, 0.0])
    assert jsd(*apart, 0.25) == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    assert exact_kl(np.array([1e3, 0.0]), np.array([0.0, 1e3])) == pytest.approx(1000)


def test_what_the_mask_drops_may_be_anything():
    logits_q, logits_p = normal(0, 4, 6), normal(1, 4, 6)
    wanted = summed(logits_q, logits_p)
    mask = np.array([True, False, False, True])
    logits_q[1], logits_p[2] = np.nan, -INF
    np.testing.assert_allclose(exact_kl(logits_q, logits_p, mask=mask), np.where(mask, wanted, 0))
    assert np.isnan(exact_kl(logits_q, logits_p, check=False)).tolist() == (~mask).tolist()
    weights = [normal(2, 6, 3), normal(3, 6, 3)]
    hidden = [normal(4, 4, 3), normal(5, 4, 3)]
    wanted = summed(hidden[0] @ weights[0].T, hidden[1] @ weights[1].T)
    hidden[0][1], hidden[1][2] = np.nan, INF
    unlooked = exact_kl_from_hidden(hidden[0], weights[0], hidden[1], weights[1], check=False)
    assert np.isnan(unlooked).tolist() == (~mask).tolist()
    found = exact_kl_from_hidden(hidden[0], weights[0], hidden[1], weights[1], mask=mask)
    np.testing.assert_allclose(found, np.where(mask, wanted, 0))


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
@pytest.mark.parametrize("shape", [(7,), (2, 3), ()])
def test_from_hidden_states_it_is_that_of_their_logits(shape, chunk):
    hidden_q, hidden_p = normal(0, *shape, 4), normal(1, *shape, 3)
    weight_q, weight_p = normal(2, 9, 4), normal(3, 9, 3)
    found = exact_kl_from_hidden(hidden_q, weight_q, hidden_p, weight_p, chunk=chunk)
    np.testing.assert_allclose(found, summed(hidden_q @ weight_q.T, hidden_p @ weight_p.T))


@pytest.mark.parametrize("beta", [1e-3, 0.3, 0.5, 0.9])
def test_jensen_shannon_is_its_definition_and_symmetric(beta):
    logits_q, logits_p = 3 * normal(0, 5, 8), 3 * normal(1, 5, 8)
    found = jsd(logits_q, logits_p, beta)
    np.testing.assert_allclose(found, mixture_sum(logits_q, logits_p, beta), rtol=1e-11)
    np.testing.assert_allclose(jsd(logits_p, logits_q, 1 - beta), found, rtol=1e-12)


def test_jensen_shannon_ends_at_zero_with_the_slopes_of_the_divergences():
    logits_q, logits_p = 3 * normal(0, 5, 8), 3 * normal(1, 5, 8)
    for beta in (0, 1.0):
        assert jsd(logits_q, logits_p, beta).tolist() == [0] * 5
    small = 2.0**-50
    found = jsd(logits_q, logits_p, small) / small
    np.testing.assert_allclose(found, exact_kl(logits_q, logits_p), rtol=1e-8)
    found = jsd(logits_q, logits_p, 1 - small) / small
    np.testing.assert_allclose(found, exact_kl(logits_p, logits_q), rtol=1e-8)


def test_jensen_shannon_keeps_its_digits_where_the_laws_are_close():
    logits_q = normal(0, 40)
    logits_p = logits_q + 1e-7 * normal(1, 40)
    with mpmath.workdps(50):
        q, p = ([mpmath.exp(mpmath.mpf(z)) for z in row] for row in (logits_q, logits_p))
        q, p = [x / mpmath.fsum(q) for x in q], [x / mpmath.fsum(p) for x in p]
        m = [(3 * x + 7 * y) / 10 for x, y in zip(q, p, strict=True)]
        first, second = (
            mpmath.fsum(x * mpmath.log(x / z) for x, z in zip(law, m, strict=True))
            for law in (q, p)
        )
        wanted = float((3 * first + 7 * second) / 10)
    assert jsd(logits_q, logits_p, 0.3) == pytest.approx(wanted, rel=1e-7)


GOOD = np.zeros((2, 3))


@pytest.mark.parametrize("bad", [np.nan, INF, "excluded"])
@pytest.mark.parametrize("side", ["q", "p"])
def test_a_row_without_a_law_is_named(side, bad):
    logits = {"logits_q": GOOD, "logits_p": GOOD}
    row = GOOD.copy()
    row[1] = -INF if bad == "excluded" else [0, bad, 0]
    logits[f"logits_{side}"] = row
    for function in (exact_kl, lambda q, p: jsd(q, p, 0.5), lambda q, p: jsd(q, p, 0)):
        with pytest.raises(ValueError, match=rf"^logits_{side} defines no law at \(1,\)"):
            function(*logits.values())
    with pytest.raises(ValueError, match=rf"^logits_{side} defines no law at \(\)"):
        exact_kl(*(z[1] for z in logits.values()))
    eye = np.eye(2)
    if bad != "excluded":  # 0 times infinity is NaN
        weights = {"q": np.zeros((3, 2)), "p": np.zeros((3, 2))}
        hidden = {"q": eye, "p": eye} | {side: np.array([[1, 0], [bad, 1]])}
        with pytest.raises(ValueError, match=rf"^hidden_{side} @ weight_{side}.T defines no law"):
            exact_kl_from_hidden(hidden["q"], weights["q"], hidden["p"], weights["p"])


@pytest.mark.parametrize(
    ("error", "match", "change"),
    [
        (
            ValueError,
            "logits_q has 3 tokens and logits_p 4.*first 3",
            {"logits_p": np.zeros((2, 4))},
        ),
        (ValueError, "same positions", {"logits_p": np.zeros((4, 3))}),
        (
            ValueError,
            "without a token",
            {"logits_q": np.zeros((2, 0)), "logits_p": np.zeros((2, 0))},
        ),
        (ValueError, "without a token", {"logits_q": 0.0, "logits_p": 0.0}),
        (TypeError, "^logits_q has dtype int", {"logits_q": np.zeros((2, 3), int)}),
        (TypeError, "^logits_p is a list", {"logits_p": [[0.0]]}),
        (TypeError, "^mask is a ndarray of dtype float64", {"mask": np.ones(2)}),
        (TypeError, "^mask is a list", {"mask": [True, True]}),
        (ValueError, r"^mask has shape \(3,\); it must be \(2,\)", {"mask": np.ones(3, bool)}),
        (ValueError, "^temperature is 0", {"temperature": 0.0}),
        (ValueError, "^temperature is inf", {"temperature": INF}),
        (ValueError, "^temperature is nan", {"temperature": math.nan}),
        (TypeError, "^temperature is '1'", {"temperature": "1"}),
        (TypeError, "^temperature is True", {"temperature": True}),
        (ValueError, "^chunk is 0", {"chunk": 0}),
        (ValueError, "^chunk is 2.5", {"chunk": 2.5}),
        (ValueError, "^chunk is True", {"chunk": True}),
    ],
)
def test_bad_arguments_are_named_with_the_remedy(error, match, change):
    arguments = {"logits_q": GOOD, "logits_p": GOOD} | change
    with pytest.raises(error, match=match):
        exact_kl(**arguments)


@pytest.mark.parametrize(
    ("beta", "error"),
    [(-0.1, ValueError), (1.1, ValueError), (math.nan, ValueError), ("a", TypeError)],
)
def test_a_weight_that_is_none_is_refused(beta, error):
    with pytest.raises(error, match=r"^beta is"):
        jsd(GOOD, GOOD, beta)


def test_matrices_and_hidden_states_must_fit():
    h, w = np.zeros((2, 3)), np.zeros((5, 3))
    for hidden, weight in ((h, np.zeros(3)), (h, np.zeros((5, 4))), (np.array(0.0), w)):
        with pytest.raises(ValueError, match=r"^hidden_p has shape"):
            exact_kl_from_hidden(h, w, hidden, weight)
    with pytest.raises(TypeError, match=r"^hidden_q has dtype float64 and weight_q float32"):
        exact_kl_from_hidden(h, w.astype(np.float32), h, w)
    with pytest.raises(ValueError, match=r"^weight_q has 5 tokens and weight_p 6"):
        exact_kl_from_hidden(h, w, h, np.zeros((6, 3)))
    with pytest.raises(ValueError, match=r"^chunk is 0"):
        exact_kl_from_hidden(h, w, h, w, chunk=0)


def pairs(count, tokens, k):
    """Return log-probabilities of random pairs, most probable tokens of q first."""
    scale = np.exp(np.clip(normal(7, count, 1), -2, 1))
    q, p = (log_softmax(scale * normal(seed, count, tokens)) for seed in (8, 9))
    half = count // 2
    p[:half] = log_softmax(q[:half] + 0.1 * p[:half])  # close ones too
    order = np.argsort(-q, axis=-1)
    return (np.take_along_axis(z, order, axis=-1) for z in (q, p))


def test_the_bucket_lies_between_the_sum_on_the_set_and_the_divergence():
    log_q, log_p = pairs(5000, 12, 4)
    whole = exact_kl(log_q, log_p)
    for k in (0, 1, 4, 11, 12):
        bucket = topk_kl(log_q[:, :k], log_p[:, :k])
        on_set = np.sum(np.exp(log_q) * kl.k3(log_p - log_q), axis=-1, where=np.arange(12) < k)
        room = 1e-13 * (1 + whole)
        assert np.all(on_set <= bucket + room)
        assert np.all(bucket <= whole + room)
        # The second gap is that of the two laws within the rest.
        if k < 12:
            rest_q = np.exp(np.logaddexp.reduce(log_q[:, k:], axis=-1))
            within = rest_q * exact_kl(log_q[:, k:], log_p[:, k:])
            resolved = (rest_q > 1e-6) & (np.exp(log_p[:, k:]).sum(axis=-1) > 1e-6)
            assert resolved.sum() > 1000
            np.testing.assert_allclose((whole - bucket)[resolved], within[resolved], atol=1e-9)
        else:
            np.testing.assert_allclose(bucket, whole, rtol=1e-8, atol=1e-13)


def test_float32_log_probabilities_of_all_tokens_leave_no_phantom_rest():
    log_q, log_p = (log_softmax(normal(seed, 200, 30)).astype(np.float32) for seed in range(2))
    np.testing.assert_allclose(topk_kl(log_q, log_p), exact_kl(log_q, log_p), rtol=1e-5)


def test_rows_may_be_filled_up_and_masked():
    log_q, log_p = pairs(20, 6, 3)
    wanted = topk_kl(log_q[:, :3], log_p[:, :3])
    filled = [np.where(np.arange(6) < 3, z, -INF) for z in (log_q, log_p)]
    np.testing.assert_allclose(topk_kl(*filled), wanted, rtol=1e-14)
    mask = np.arange(20) < 10
    filled[0][15] = np.nan
    np.testing.assert_allclose(topk_kl(*filled, mask=mask), np.where(mask, wanted, 0), rtol=1e-14)
    assert topk_kl(np.log([0.5, 0.5]), np.array([0.0, -INF])) == INF


def estimates(log_q, log_p, k, control=None):
    """Return the estimate for each token that may be drawn, tokens first."""
    tokens = log_q.shape[-1]
    return np.stack(
        [
            topk_kl(
                log_q[:, :k],
                log_p[:, :k],
                log_q_x=log_q[:, x],
                log_p_x=log_p[:, x],
                outside=np.full(len(log_q), x >= k),
                control=control,
            )
            for x in range(tokens)
        ],
        axis=-1,
    )


@pytest.mark.parametrize("k", [0, 1, 3, 6])
@pytest.mark.parametrize("control", [None, 0.0, 0.7, "rows"])
def test_the_completion_is_unbiased_whatever_the_control(k, control):
    log_q, log_p = pairs(500, 6, 3)
    control = normal(3, 500) if control == "rows" else control
    z = estimates(log_q, log_p, k, control)
    np.testing.assert_allclose(
        np.sum(np.exp(log_q) * z, axis=-1), exact_kl(log_q, log_p), rtol=1e-9, atol=1e-12
    )
    if control is None or (isinstance(control, float) and control == 0 and k < 6):
        assert np.all(z >= 0)


def test_which_control_is_the_quieter_one():
    k = 3
    log_q, log_p = pairs(4000, 8, k)
    q, k3 = np.exp(log_q), kl.k3(log_p - log_q)
    mass, on_set, tail = q[:, :k].sum(-1), (q * k3)[:, :k].sum(-1), (q * k3)[:, k:].sum(-1)

    def variance(values):
        mean = np.sum(q * values, axis=-1, keepdims=True)
        return np.sum(q * (values - mean) ** 2, axis=-1)

    best = tail / (1 - mass)
    of_k3, default, none, least = (
        variance(z)
        for z in (k3, *(estimates(log_q, log_p, k, c) for c in (None, np.zeros(4000), best)))
    )
    room = 1e-9 * (1 + of_k3)
    assert np.all(default <= of_k3 + room)
    assert np.all(least <= np.minimum(default, none) + room)
    # None is better than the default where k3 on the set is twice that on the tail, else worse.
    ratio = on_set / mass - 2 * best
    sure = np.abs(none - default) > room
    assert np.array_equal((none < default)[sure], (ratio > 0)[sure])
    assert (none < default)[sure].sum() > 100
    assert (none > of_k3)[sure].sum() > 100


ON_SET = np.log([[0.5, 0.2], [0.3, 0.3]])
SAMPLE = {
    "log_q_x": np.log([0.1, 0.2]),
    "log_p_x": np.log([0.2, 0.2]),
    "outside": np.array([True, False]),
}


@pytest.mark.parametrize(
    ("error", "match", "change"),
    [
        (ValueError, "^log_q is a single number", {"log_q": 0.0}),
        (ValueError, "same tokens", {"log_p": ON_SET[:, :1]}),
        (ValueError, "^log_q holds NaN", {"log_q": ON_SET * np.nan}),
        (ValueError, "row of log_q or log_p add up to more than 1", {"log_p": ON_SET + 1}),
        (ValueError, "^log_q_x, log_p_x or control is NaN", {"log_q_x": np.log([0.4, 0.2])}),
        (ValueError, "^log_q_x, log_p_x or control is NaN", {"log_q_x": np.array([-INF, 0.0])}),
        (ValueError, "^log_q_x, log_p_x or control is NaN", {"log_p_x": np.array([np.nan, 0.0])}),
        (ValueError, "^log_q_x, log_p_x or control is NaN", {"control": math.nan}),
        (ValueError, "^log_p_x is missing", {"log_p_x": None}),
        (ValueError, "^log_q_x is missing", dict.fromkeys(SAMPLE) | {"control": 0.0}),
        (ValueError, r"^log_q_x has shape \(2, 1\)", {"log_q_x": SAMPLE["log_q_x"][:, None]}),
        (TypeError, "^outside is a ndarray of dtype int", {"outside": np.array([1, 0])}),
        (TypeError, "^control is a str", {"control": "best"}),
        (ValueError, r"^control has shape \(3,\)", {"control": np.zeros(3)}),
    ],
)
def test_what_is_no_set_or_no_sample_is_named(error, match, change):
    arguments = {"log_q": ON_SET, "log_p": ON_SET} | SAMPLE | change
    with pytest.raises(error, match=match):
        topk_kl(**arguments)


def test_what_is_not_read_may_be_anything():
    sample = {name: value.copy() for name, value in SAMPLE.items()}
    wanted = topk_kl(ON_SET, ON_SET, **sample)
    sample["log_q_x"][1] = sample["log_p_x"][1] = np.nan
    assert topk_kl(ON_SET, ON_SET, **sample).tolist() == wanted.tolist()
    mask = np.array([False, True])
    sample["log_q_x"][0] = np.nan
    found = topk_kl(ON_SET, ON_SET, **sample, mask=mask)
    assert found.tolist() == [0.0, wanted[1]]
    assert topk_kl(np.full((1, 2), np.nan), ON_SET[:1], check=False).tolist() != [0.0]


def differences(function, logits, step=1e-6):
    """Return the gradient of the sum by central differences."""
    out = np.zeros_like(logits)
    for index in itertools.product(*map(range, logits.shape)):
        up, down = logits.copy(), logits.copy()
        up[index] += step
        down[index] -= step
        out[index] = (np.sum(function(up)) - np.sum(function(down))) / (2 * step)
    return out


def test_the_closed_form_of_the_gradient_is_that_of_the_value():
    a, b, g = normal(0, 3, 5), normal(1, 3, 5), normal(2, 3)
    for functions in (
        vocabulary._KL,
        vocabulary._jensen_shannon(0.3),
        vocabulary._jensen_shannon(0),
    ):
        law = vocabulary._Law(*functions, 1 / 1.7)
        found = vocabulary._gradients(np, law, 2, a, b, g, (True, True))

        def value(a, b, law=law):
            return g * vocabulary._values(np, law, 2, a, b)

        np.testing.assert_allclose(found[0], differences(lambda z: value(z, b), a), atol=1e-9)
        np.testing.assert_allclose(found[1], differences(lambda z: value(a, z), b), atol=1e-9)
    assert vocabulary._gradients(np, law, 2, a, b, g, (False, True))[0] is None


def test_in_float32_the_digits_stay(monkeypatch):
    monkeypatch.setattr(vocabulary, "_wide", lambda xp, z: np.float32)
    logits_q = (3 * normal(0, 2, 1000)).astype(np.float32)
    for spread, shift in itertools.product((1e-4, 1e-2, 1.0, 4.0), (0, 7.3, 1e4)):
        logits_p = (logits_q + spread * normal(1, 2, 1000) + shift).astype(np.float32)
        wanted = summed(logits_q.astype(np.longdouble), logits_p.astype(np.longdouble))
        np.testing.assert_allclose(exact_kl(logits_q, logits_p), wanted.astype(float), rtol=3e-6)


class Matrix(np.ndarray):
    """A NumPy array with the one method of a tensor that NumPy has no word for."""

    def addmm_(self, a, b):
        self += a @ b


class Library:
    """NumPy's words, with matrices that can be added to as tensors can."""

    def __getattr__(self, name):
        return getattr(np, name)

    def zeros(self, shape, dtype, device):
        return np.zeros(shape, dtype).view(Matrix)


class Function:
    """What `torch.autograd.Function` does with its two methods."""

    def save_for_backward(self, *tensors):
        self.saved_tensors = tensors

    @classmethod
    def apply(cls, *given):
        cls.last = ctx = cls()
        ctx.needs_input_grad = tuple(isinstance(z, np.ndarray) for z in given)
        return cls.forward(ctx, *given)

    @classmethod
    def slopes(cls, g):
        return cls.backward(cls.last, g)


@pytest.fixture
def torch(monkeypatch):
    """A stand-in for PyTorch whose tensors are NumPy's; tests/arrays has the real one."""
    module = SimpleNamespace(
        autograd=SimpleNamespace(Function=Function), is_grad_enabled=lambda: False
    )
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.setitem(sys.modules, "array_api_compat.torch", Library())
    monkeypatch.setattr(array_api_compat, "torch", Library(), raising=False)
    functions = vocabulary._torch_functions.__wrapped__()
    monkeypatch.setattr(vocabulary, "_torch_functions", lambda: functions)
    monkeypatch.setattr(vocabulary, "is_torch_namespace", lambda xp: True)
    monkeypatch.setattr(vocabulary, "_wide", lambda xp, z: np.float64)
    module.of = [f.__self__ for f in (functions.of_logits, functions.of_hidden)]
    return module


def test_torch_is_given_the_gradients(torch):
    g, of_logits, of_hidden = normal(9, 3), *torch.of
    logits = normal(0, 3, 5), normal(1, 3, 5)
    np.testing.assert_allclose(exact_kl(*logits, chunk=2), summed(*logits))
    found = of_logits.slopes(g)
    for i in range(2):

        def value(z, i=i):
            return g * exact_kl(*(z if i == j else x for j, x in enumerate(logits)))

        np.testing.assert_allclose(found[i], differences(value, logits[i]), atol=1e-8)
    given = normal(2, 3, 4), normal(3, 5, 4), normal(4, 3, 2), normal(5, 5, 2)
    wanted = summed(given[0] @ given[1].T, given[2] @ given[3].T)
    np.testing.assert_allclose(exact_kl_from_hidden(*given, chunk=2), wanted)
    found = of_hidden.slopes(g)
    for i in range(4):

        def value(z, i=i):
            return g * exact_kl_from_hidden(*(z if i == j else x for j, x in enumerate(given)))

        np.testing.assert_allclose(found[i], differences(value, given[i]), atol=1e-8)
    exact_kl_from_hidden(*given)
    for wanted in ((True, False, False, False), (False, False, False, True)):
        of_hidden.last.needs_input_grad = wanted
        assert [z is not None for z in of_hidden.slopes(g)[:4]] == list(wanted)
    torch.is_grad_enabled = lambda: True
    for function in torch.of:
        with pytest.raises(RuntimeError, match=r"leave out create_graph=True"):
            function.slopes(g)


def test_jax_is_given_the_gradients(monkeypatch):
    rows = []

    class Row:
        def __init__(self, function):
            self.function = function
            rows.append(self)

        def __call__(self, *given):
            return self.function(*given)

        def defvjp(self, forward, backward):
            self.forward, self.backward = forward, backward

    def over_rows(function, arrays, batch_size):
        assert batch_size == 2
        return np.stack([function(row) for row in zip(*arrays, strict=True)])

    def astype(values, dtype, **options):
        return np.asarray(values).astype(dtype)  # NumPy 2.0 wants arrays, JAX has no numbers

    jax = ModuleType("jax")
    jax.custom_vjp, jax.checkpoint, jax.numpy = Row, lambda function: function, np
    jax.lax = SimpleNamespace(map=over_rows)
    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.setitem(sys.modules, "jax.numpy", np)
    monkeypatch.setattr(np, "astype", astype)
    monkeypatch.setattr(vocabulary, "is_jax_namespace", lambda xp: True)
    logits = normal(0, 2, 3, 5), normal(1, 2, 3, 5)
    np.testing.assert_allclose(exact_kl(*logits, chunk=2), summed(*logits))
    assert exact_kl(*(z[:0] for z in logits)).shape == (0, 3)
    value, given = rows[0].forward(*(z[0, 0] for z in logits))
    assert value == pytest.approx(summed(*given))
    found = rows[0].backward(given, np.asarray(2.0))
    for i in range(2):
        wanted = differences(
            lambda z, i=i: 2 * summed(*(z if i == j else given[j] for j in range(2))), given[i]
        )
        np.testing.assert_allclose(found[i], wanted, atol=1e-8)
    hidden = normal(2, 3, 4), normal(3, 5, 4), normal(4, 3, 2), normal(5, 5, 2)
    wanted = summed(hidden[0] @ hidden[1].T, hidden[2] @ hidden[3].T)
    np.testing.assert_allclose(exact_kl_from_hidden(*hidden, chunk=2), wanted)


def test_the_arithmetic_is_in_float64_unless_the_device_has_none(monkeypatch):
    assert vocabulary._wide(np, GOOD) == np.float64
    xp = ModuleType("torch")
    xp.float32 = "float32"
    assert vocabulary._wide(xp, SimpleNamespace(device=SimpleNamespace(type="mps"))) == "float32"


def test_arrays_of_other_libraries_and_mixtures_are_refused(monkeypatch):
    monkeypatch.setattr(vocabulary, "is_numpy_namespace", lambda xp: False)
    with pytest.raises(TypeError, match=r"^logits_q is an array of .*numpy; .* on its blocks"):
        exact_kl(GOOD, GOOD)
    other = ModuleType("other")
    monkeypatch.setattr(
        vocabulary, "as_floating", lambda name, z: (other if name == "logits_p" else np, z)
    )
    with pytest.raises(TypeError, match=r"^logits_q is an array of numpy and logits_p of other"):
        exact_kl(GOOD, GOOD)


def test_it_is_reachable_at_the_top_and_needs_nothing_but_numpy():
    assert kl.__getattr__("vocabulary") is vocabulary
    code = (
        "import klapprox, sys; assert 'klapprox.vocabulary' not in sys.modules; "
        "klapprox.vocabulary.exact_kl; print(*{'torch', 'jax', 'scipy'} & sys.modules.keys())"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []
