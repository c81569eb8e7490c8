"""estimate_kl: exact values and error bars, diagnostics that find planted faults, clear errors."""

import itertools
import math
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import klapprox as kl
from klapprox.control_variates import coefficient, leave_one_out
from klapprox.diagnostics import (
    Diagnostics,
    diagnose,
    tail_index,
    tail_index_of_log,
    warnings_about,
)
from klapprox.exact import families

RNG = np.random.Generator(np.random.PCG64(50))
NORMAL = RNG.standard_normal(4000)


def shifted(mu, x=NORMAL):
    """log q and log p (up to a common constant) of q = N(0, 1) and p = N(mu, 1) at x ~ q."""
    return -(x**2) / 2, -((x - mu) ** 2) / 2


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kl.KLWarning)
        return kl.estimate_kl(*args, **options)


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_without_options_it_is_the_mean_and_its_standard_error(name):
    log_q, log_p = shifted(0.5)
    values = getattr(kl, name)(log_p - log_q)
    result = kl.estimate_kl(log_q, log_p, estimator=name)
    assert result.value == pytest.approx(values.mean(), rel=1e-13)
    assert result.standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(4000), rel=1e-12)
    assert result.interval[0] < result.value < result.interval[1]
    assert (result.n, result.groups, result.unit, result.warnings) == (4000, 4000, "draw", ())


def test_k_lambda_is_leave_one_out_with_the_spread_of_its_terms():
    log_q, log_p = shifted(1.0)
    result = kl.estimate_kl(log_q, log_p, estimator="k_lambda")
    assert result.value == pytest.approx(leave_one_out(log_p - log_q), rel=1e-13)
    few_q, few_p = shifted(1.0, NORMAL[:7])
    x, y = np.expm1(few_p - few_q), few_q - few_p
    others = [np.arange(7) != i for i in range(7)]
    terms = [y[i] + coefficient(x[o], y[o]) * x[i] for i, o in enumerate(others)]
    error = np.std(terms, ddof=1) / math.sqrt(7)
    found = quiet(few_q, few_p, estimator="k_lambda").standard_error
    assert found == pytest.approx(error, rel=1e-10)
    k3 = kl.estimate_kl(log_q, log_p)
    assert result.standard_error < k3.standard_error
    # The exact standard deviation at λ* = μ²/(e^{μ²} - 1), see thm-optimal-lambda.
    assert result.standard_error == pytest.approx(math.sqrt((1 - 1 / (math.e - 1)) / 4000), rel=0.1)


def test_k_lambda_of_equal_laws_is_zero():
    result = quiet(np.full(5, -1.0), np.full(5, -1.0), estimator="k_lambda")
    assert (result.value, result.standard_error) == (0.0, 0.0)


def test_the_interval_is_student_s():
    log_q = np.zeros(4)
    result = quiet(log_q, -np.array([1.0, 2.0, 3.0, 4.0]), estimator="k1")
    half = 3.182446305284263 * math.sqrt(5 / 3) / 2  # t(0.975, 3)
    assert result.interval == pytest.approx((2.5 - half, 2.5 + half), rel=1e-12)
    wider = quiet(log_q, -np.arange(1.0, 5), estimator="k1", confidence=0.99)
    assert wider.interval[1] > result.interval[1]


def all_samples(law, size):
    """Every sample of that size with its probability."""
    for picks in itertools.product(range(len(law)), repeat=size):
        yield math.prod(law[i] for i in picks), np.array(picks)


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_mean_and_squared_error_are_unbiased_by_enumeration(name):
    q, p = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    values = getattr(kl, name)(np.log(p / q))
    divergence = float(q @ np.log(q / p))
    variance = float(q @ values**2 - divergence**2) / 3
    mean = square = 0.0
    for chance, picks in all_samples(q, 3):
        result = quiet(np.log(q)[picks], np.log(p)[picks], estimator=name)
        mean += chance * result.value
        square += chance * result.standard_error**2
    assert mean == pytest.approx(divergence, rel=1e-12)
    assert square == pytest.approx(variance, rel=1e-10)


def test_groups_give_the_clustered_standard_error_by_enumeration():
    # Two prompts with laws of their own, two responses each: prop-clustered-variance.
    laws = [
        (np.array([0.5, 0.5]), np.array([0.25, 0.75])),
        (np.array([0.9, 0.1]), np.array([0.5, 0.5])),
    ]
    means = [float(q @ np.log(q / p)) for q, p in laws]
    within = [float(q @ np.log(q / p) ** 2) - m**2 for (q, p), m in zip(laws, means, strict=True)]
    truth = (np.var(means) + np.mean(within) / 2) / 2
    total = 0.0
    for prompts in itertools.product((0, 1), repeat=2):
        for (c0, i), (c1, j) in itertools.product(
            all_samples(laws[prompts[0]][0], 2), all_samples(laws[prompts[1]][0], 2)
        ):
            picks = [(prompts[0], k) for k in i] + [(prompts[1], k) for k in j]
            log_q = np.log([laws[s][0][k] for s, k in picks])
            log_p = np.log([laws[s][1][k] for s, k in picks])
            result = quiet(log_q, log_p, estimator="k1", groups=["a", "a", "b", "b"])
            assert result.groups == 2
            total += c0 * c1 / 4 * result.standard_error**2
    assert total == pytest.approx(truth, rel=1e-10)


TOKENS_Q = np.log(RNG.random((6, 5)))
TOKENS_P = np.log(RNG.random((6, 5)))
MASK = np.arange(5) < np.array([[5], [3], [4], [1], [2], [5]])


def test_levels_are_sums_per_sequence_and_ratios_per_token():
    k = np.where(MASK, kl.k3(TOKENS_P - TOKENS_Q), 0)
    sequence = quiet(TOKENS_Q, TOKENS_P, mask=MASK)
    assert sequence.value == pytest.approx(k.sum(axis=1).mean())
    assert sequence.standard_error == pytest.approx(k.sum(axis=1).std(ddof=1) / math.sqrt(6))
    token = quiet(TOKENS_Q, TOKENS_P, mask=MASK, level="token")
    assert token.value == pytest.approx(k.sum() / MASK.sum())
    residuals = k.sum(axis=1) - token.value * MASK.sum(axis=1)
    wanted = math.sqrt(6 / 5 * np.sum(residuals**2)) / MASK.sum()
    assert token.standard_error == pytest.approx(wanted)
    assert (sequence.unit, token.unit, token.n, token.groups) == ("sequence", "token", 20, 6)


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_masked_entries_leak_into_nothing(junk, level):
    clean = quiet(TOKENS_Q, TOKENS_P, mask=MASK, level=level, log_weights=0 * TOKENS_Q)
    dirty = quiet(
        np.where(MASK, TOKENS_Q, junk),
        np.where(MASK, TOKENS_P, junk),
        mask=MASK,
        level=level,
        log_weights=np.where(MASK, 0.0, junk),
    )
    assert dirty == clean


def test_a_sequence_without_tokens_is_no_sequence():
    mask = MASK.copy()
    mask[3] = False
    keep = [0, 1, 2, 4, 5]
    for level in ("sequence", "token"):
        with_empty = quiet(TOKENS_Q, TOKENS_P, mask=mask, level=level)
        without = quiet(TOKENS_Q[keep], TOKENS_P[keep], mask=mask[keep], level=level)
        assert with_empty.value == pytest.approx(without.value)
        assert with_empty.standard_error == pytest.approx(without.standard_error)
        assert with_empty.groups == 5


def test_weights_move_the_mean_to_the_policy_by_enumeration():
    old, policy, ref = (
        np.array([0.6, 0.2, 0.2]),
        np.array([0.3, 0.3, 0.4]),
        np.array([0.2, 0.6, 0.2]),
    )
    truth = float(policy @ np.log(policy / ref))
    mean = 0.0
    for chance, picks in all_samples(old, 2):
        result = quiet(
            np.log(policy)[picks], np.log(ref)[picks], log_weights=np.log(policy / old)[picks]
        )
        mean += chance * result.value
    assert mean == pytest.approx(truth, rel=1e-12)


def test_self_normalised_weights_divide_by_their_sum():
    log_q, log_p = shifted(0.5)
    log_w = 0.3 * NORMAL
    plain = quiet(log_q, log_p, log_weights=log_w)
    normalised = quiet(log_q, log_p, log_weights=log_w, self_normalised=True)
    w, k = np.exp(log_w), kl.k3(log_p - log_q)
    assert plain.value == pytest.approx(np.mean(w * k))
    assert normalised.value == pytest.approx(np.sum(w * k) / np.sum(w))
    assert plain.diagnostics.weight_effective_size == pytest.approx(w.sum() ** 2 / np.sum(w**2))
    per_sequence = 0.1 * RNG.standard_normal((6, 1))
    sequences = quiet(TOKENS_Q, TOKENS_P, mask=MASK, log_weights=per_sequence, self_normalised=True)
    w = np.exp(per_sequence[:, 0])
    sums = np.where(MASK, kl.k3(TOKENS_P - TOKENS_Q), 0).sum(axis=1)
    assert sequences.value == pytest.approx(np.sum(w * sums) / w.sum())


@given(st.permutations(range(12)))
def test_the_order_of_the_samples_does_not_matter(order):
    log_q, log_p = shifted(0.7, NORMAL[:12])
    labels = np.arange(12) // 3
    one = quiet(log_q, log_p, groups=labels)
    other = quiet(log_q[order], log_p[order], groups=labels[order])
    assert other.value == pytest.approx(one.value, rel=1e-12)
    assert other.standard_error == pytest.approx(one.standard_error, rel=1e-12)


def test_p_zero_at_a_sample_is_infinite_and_not_an_error():
    log_q = np.log([0.5, 0.5, 0.5])
    result = quiet(log_q, np.array([-1.0, -np.inf, -1.0]))
    assert result.value == result.standard_error == math.inf
    assert result.interval == (math.inf, math.inf)
    everything = quiet(log_q, np.full(3, -np.inf), estimator="k1")
    assert everything.value == math.inf
    assert everything.diagnostics.effective_size == 0
    assert everything.diagnostics.mean_ratio == 0
    assert not any(math.isnan(x) for x in result.interval)


def test_a_ratio_beyond_all_bounds_gives_no_nan():
    result = quiet(np.full(3, -1.0), np.array([-1.0, 900.0, -1.0]), estimator="k1")
    assert math.isfinite(result.value)
    assert result.diagnostics.mean_ratio_z == math.inf
    assert result.diagnostics.effective_size == pytest.approx(1)
    overflow = quiet(np.full(3, -1.0), np.array([-1.0, 900.0, -1.0]), estimator="k3")
    assert overflow.value == math.inf


def test_the_tail_index_is_that_of_the_ratio():
    # q = N(0, 1), p = N(0, σ²): the tail of r has the index 1 - 1/σ².
    x = np.random.Generator(np.random.PCG64(51)).standard_normal(40_000)
    for sigma, wanted in ((1.2, 1 - 1 / 1.44), (2.0, 0.75)):
        log_p = -(x**2) / (2 * sigma**2) - math.log(sigma)
        result = quiet(-(x**2) / 2, log_p)
        assert result.diagnostics.pareto_k == pytest.approx(wanted, abs=0.2)
    assert any("k̂" in text for text in result.warnings)
    assert quiet(-(x**2) / 2, log_p, estimator="k1").warnings == ()


def test_a_tail_of_equal_ratios_has_no_index():
    log_p = np.where(np.arange(1000) % 2 == 0, -1.0, -2.0)
    assert quiet(np.full(1000, -1.5), log_p).diagnostics.pareto_k is None


def test_without_arviz_the_tail_index_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_stats.base.array", None)
    assert kl.estimate_kl(*shifted(0.1)).diagnostics.pareto_k is None


def found(words, *args, **options):
    """Whether the estimate warns in these words."""
    return any(words in text for text in quiet(*args, **options).warnings)


def test_planted_faults_are_found():
    log_q, log_p = shifted(1.0)
    assert kl.estimate_kl(log_q, log_p).warnings == ()
    assert found("mean of r", log_p, log_q)  # swapped direction
    logits = 2 * RNG.standard_normal(50)
    moved = 1.2 * logits
    cool = np.exp(logits / 0.7)
    drawn = np.searchsorted(np.cumsum(cool / cool.sum()), RNG.random(20_000)).clip(max=49)
    lq, lp = (z - np.log(np.sum(np.exp(z))) for z in (logits, moved))
    assert found("temperature", lq[drawn], lp[drawn])  # sampled at 0.7, scored at 1
    misaligned = np.array([-30.0, -1.0, -1.0]), np.array([-0.1, -1.0, -1.0])
    assert found("probability below", *misaligned)
    impossible = np.full(50, -2.0), -1.5 + 0.01 * NORMAL[:50]
    assert found("whole interval is negative", *impossible, estimator="k1")
    assert found("a few samples decide", log_q, log_p, log_weights=8 * NORMAL)


def test_one_kind_of_outcome_has_no_error_bar_and_accuses_nobody():
    # The common token of q = (.999, .001) and p ≈ (1, 2e-12), drawn 100 times.
    log_q, log_p = np.full(100, math.log(0.999)), np.full(100, math.log1p(-2e-12))
    for name in ("k1", "k3", "k_lambda"):
        result = quiet(log_q, log_p, estimator=name)
        assert result.standard_error == 0
        assert result.diagnostics.mean_ratio_z is None
        assert "mean of r 1.001 at every sample" in str(result)
        assert [text[:4] for text in result.warnings] == ["r is"]
        stream = kl.stream_kl([(log_q[:37], log_p[:37]), (log_q[37:], log_p[37:])])
        with pytest.warns(kl.KLWarning, match="one kind of outcome"):
            assert stream.estimate(name).standard_error == 0
    assert quiet(np.full(100, -1.0), np.full(100, -1.0)).warnings == ()


def student(nu, size, seed):
    """log q and log p of q = Student with nu degrees of freedom and p normal, at x ~ q."""
    rng = np.random.Generator(np.random.PCG64(seed))
    law = stats.t(nu)
    x = law.ppf(rng.random(size))
    return law.logpdf(x), stats.norm.logpdf(x)


def test_a_heavy_tail_of_minus_log_r_is_found():
    # -log r is about x²/2, whose tail has the index 2/nu: Var(log r) is infinite up to nu = 4.
    for seed in range(10):
        assert found("tail of -log r", *student(2.5, 1000, seed), estimator="k1")
        assert not found("tail of -log r", *shifted(1.0), estimator="k1")
    law = quiet(*student(2.5, 40_000, 0)).diagnostics.pareto_k_log
    assert law == pytest.approx(2 / 2.5, abs=0.15)


def test_nothing_sees_a_token_that_was_not_drawn():
    # A token of 0.1 % with log r = -20 adds .02 to KL = .005; 500 draws miss it with 61 % chance,
    # and then nothing is there to be seen: prop-no-upper-bound.
    result = quiet(*shifted(0.1, NORMAL[:500]))
    assert result.interval[1] < 0.02
    assert result.warnings == ()


def test_the_quieter_of_k1_and_k3_is_named():
    for mu, quieter in ((0.5, "k3"), (2.0, "k1")):
        exact = families.moments(families.Normal(0.0, 1.0), families.Normal(mu, 1.0))
        assert (exact.var_k3 > exact.var_k1) == (quieter == "k1")
        result = quiet(*shifted(mu))
        k1, k3 = (quiet(*shifted(mu), estimator=name).standard_error for name in ("k1", "k3"))
        assert result.diagnostics.error_ratio == pytest.approx(k3 / k1)
        warned = any("k1" in text for text in result.warnings)
        assert warned == (quieter == "k1")
        assert not found("smaller standard error", *shifted(mu), estimator="k1")
    assert found("smaller standard error here", *shifted(1.4, NORMAL[:400]))


def test_the_error_ratio_is_below_1_exactly_if_the_fitted_coefficient_is_above_a_half():
    for mu in np.linspace(0.9, 1.4, 30):
        log_q, log_p = shifted(mu, NORMAL[:300])
        fitted = coefficient(np.expm1(log_p - log_q), log_q - log_p)
        assert (quiet(log_q, log_p).diagnostics.error_ratio < 1) == (fitted > 0.5)


@pytest.mark.parametrize(("name", "least"), [("k1", 30), ("k2", 30), ("k3", 30), ("k_lambda", 100)])
def test_few_groups_are_named(name, least):
    for size, warned in ((least - 1, True), (least, False)):
        log_q, log_p = shifted(0.3, NORMAL[:size])
        assert found(f"rests on {size} independent", log_q, log_p, estimator=name) == warned
    labels = np.arange(4000) % 10
    if name != "k_lambda":
        assert found("rests on 10 independent", *shifted(0.3), estimator=name, groups=labels)


def test_a_few_draws_that_carry_the_mean_of_r_are_named():
    small = shifted(2.5, NORMAL[:30])
    assert quiet(*small).diagnostics.effective_size < 10
    assert found("A few draws carry", *small)
    assert not found("A few draws carry", *small, estimator="k1")
    assert not found("A few draws carry", *shifted(0.5, NORMAL[:30]))


def test_it_prints_itself():
    result = kl.estimate_kl(*shifted(0.5))
    text = str(result)
    assert text.startswith("KL(q‖p) = 0.1")
    assert "nats per draw" in text
    assert "95% interval" in text
    assert "k̂" in text
    shown = result._repr_markdown_()
    assert shown.startswith("**KL(q‖p)")
    assert shown.count("\n* ") == 2
    bad = quiet(*reversed(shifted(1.0)))
    assert "\n! The mean of r" in str(bad)
    assert "* The mean of r" in bad._repr_markdown_()
    assert "k̂" not in str(quiet(np.zeros(3), np.zeros(3)))


class Tensor(np.ndarray):
    """What a PyTorch tensor needs to become a NumPy array."""

    def detach(self):
        return self

    def cpu(self):
        return self

    def double(self):
        return self.astype(float)


def test_tensors_and_lists_are_converted():
    log_q, log_p = shifted(0.5)
    plain = kl.estimate_kl(log_q, log_p)
    assert kl.estimate_kl(log_q.view(Tensor), log_p.view(Tensor)) == plain
    assert kl.estimate_kl(list(log_q), list(log_p)) == plain


BAD = [
    ({"estimator": "k4"}, ValueError, "estimator is 'k4'; choose"),
    ({"level": "word"}, ValueError, "level is 'word'; choose"),
    ({"confidence": 1.0}, ValueError, "confidence is 1.0"),
    ({"mask": np.full(3, 2)}, ValueError, "mask has dtype"),
    ({"mask": np.array(["a", "b", "c"])}, ValueError, "mask has dtype <U1"),
    ({"mask": np.ones(2, dtype=bool)}, ValueError, "give booleans of shape"),
    ({"mask": np.zeros(3, dtype=bool)}, ValueError, "mask is False everywhere"),
    ({"mask": np.array([True, False, False])}, ValueError, "fewer than two independent"),
    ({"groups": [1, 1, 1]}, ValueError, "groups: fewer than two"),
    ({"groups": [1, 2]}, ValueError, "groups has shape"),
    ({"self_normalised": True}, ValueError, "needs log_weights"),
    ({"log_weights": np.zeros(2)}, ValueError, "log_weights has shape"),
    ({"log_weights": np.array([0.0, np.nan, 0.0])}, ValueError, "log_weights holds NaN"),
    ({"log_weights": np.zeros((3, 1))}, ValueError, "log_weights has shape"),
    ({"log_weights": np.array([0.0, 800.0, 0.0])}, ValueError, "log_weights is 800 at a sample"),
    (
        {"log_weights": np.full(3, -np.inf), "self_normalised": True},
        ValueError,
        "log_weights is -inf at every sample",
    ),
    ({"groups": np.array([1.0, np.nan, 2.0])}, ValueError, "groups holds NaN"),
    ({"groups": np.array([[1], [2], None], dtype=object)}, TypeError, "cannot be compared"),
    ({"groups": np.ma.array([1, 2, 3], mask=[0, 0, 1])}, ValueError, "groups is a masked array"),
    ({"log_weights": np.array([0, 1, 2])}, TypeError, "log_weights has dtype int64"),
    ({"estimator": "k_lambda", "groups": [1, 2, 2]}, ValueError, '"k_lambda" takes draws'),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD)
def test_bad_options_are_named(options, kind, message):
    with pytest.raises(kind, match=message):
        kl.estimate_kl(np.full(3, -1.0), np.full(3, -1.5), **options)


@pytest.mark.parametrize(
    ("log_q", "log_p", "kind", "message"),
    [
        ([], [], ValueError, "at least one entry"),
        ([-1.0], [-1.0], ValueError, "fewer than two"),
        ([-1.0, -1.0], [-1.0], ValueError, "give both the same shape"),
        (np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), ValueError, "give both the same shape"),
        (np.ma.array([-1.0, -2], mask=[0, 1]), [-1.0, -2.0], ValueError, "log_q is a masked array"),
        ([-1.0, np.nan], [-1.0, -1.0], ValueError, "log_q holds NaN"),
        ([-1.0, -np.inf], [-1.0, -1.0], ValueError, "log_q is infinite"),
        ([-1.0, -np.inf], [-1.0, -np.inf], ValueError, "log_q is infinite"),
        (np.array([-1, -2]), np.array([-1.0, -2.0]), TypeError, "log_q has dtype int64"),
        (-1.0, -2.0, ValueError, r"log_q has shape \(\)"),
        ("scores", [-1.0], TypeError, "log_q is a str"),
        ([-1.0], None, TypeError, "log_p is a NoneType"),
        ([[-1.0], [-1.0, -2.0]], [[-1.0], [-1.0, -2.0]], TypeError, "log_q is a list that is no"),
    ],
)
def test_bad_log_probabilities_are_named(log_q, log_p, kind, message):
    with pytest.raises(kind, match=message):
        kl.estimate_kl(log_q, log_p)


def test_a_point_without_p_stays_infinite_under_a_weight_that_underflows():
    log_q, log_p = np.full(3, -1.0), np.array([-1.0, -2.0, -np.inf])
    result = quiet(log_q, log_p, log_weights=np.array([0.0, 0.0, -800.0]))
    assert (result.value, result.standard_error) == (math.inf, math.inf)


def test_token_weights_cannot_be_normalised_per_sequence():
    with pytest.raises(ValueError, match="one weight a sequence"):
        kl.estimate_kl(TOKENS_Q, TOKENS_P, log_weights=0.1 * TOKENS_Q, self_normalised=True)


def test_a_weight_a_token_along_the_wrong_axis_is_refused():
    square = TOKENS_Q[:5], TOKENS_P[:5]
    with pytest.raises(ValueError, match=r"log_weights has shape \(5,\).*here \(5, 1\) for seq"):
        kl.estimate_kl(*square, log_weights=np.zeros(5))
    assert quiet(*square, log_weights=np.zeros((5, 1))).value == quiet(*square).value


@pytest.mark.parametrize("constant", [-800.0, 3.0, 800.0])
def test_self_normalised_weights_are_known_up_to_a_constant(constant):
    (_, log_q), (_, log_p) = shifted(0.3), shifted(0.5)  # drawn from N(0, 1), scored by N(.3, 1)
    options = {"self_normalised": True, "estimator": "k1"}
    plain = quiet(log_q, log_p, log_weights=0.3 * NORMAL - 0.045, **options)
    moved = quiet(log_q, log_p, log_weights=0.3 * NORMAL - 0.045 + constant, **options)
    assert moved.value == pytest.approx(plain.value, rel=1e-12)
    assert moved.standard_error == pytest.approx(plain.standard_error, rel=1e-12)
    assert moved.diagnostics.mean_ratio == pytest.approx(plain.diagnostics.mean_ratio, rel=1e-12)
    assert moved.warnings == plain.warnings == ()


class Series:
    """What a pandas Series is asked for."""

    def __init__(self, values):
        self.values = values

    def to_numpy(self):
        return self.values


def test_masks_of_integers_and_columns_of_tables_are_the_same_everywhere():
    wanted = quiet(TOKENS_Q, TOKENS_P, mask=MASK)
    assert quiet(TOKENS_Q, TOKENS_P, mask=MASK.astype(int)) == wanted
    assert quiet(TOKENS_Q, TOKENS_P, mask=MASK.astype(float).view(Tensor)) == wanted
    unmasked = np.ma.array(TOKENS_Q, mask=False)
    assert quiet(unmasked, TOKENS_P, mask=MASK) == wanted
    log_q, log_p = shifted(0.5, NORMAL[:200])
    labels = np.arange(200) // 2
    wanted = quiet(log_q, log_p, groups=labels, log_weights=0 * log_q)
    columns = (Series(x) for x in (log_q, log_p))
    assert quiet(*columns, groups=Series(labels), log_weights=Series(0 * log_q)) == wanted
    assert leave_one_out(Series(log_p - log_q)) == leave_one_out(log_p - log_q)
    assert float(kl.k3(Series(log_q))[0]) == float(kl.k3(log_q)[0])


def test_labels_of_several_kinds_are_labels():
    log_q, log_p = shifted(0.5, NORMAL[:6])
    labels = np.array([None, None, "a", "a", 1, 1], dtype=object)
    assert quiet(log_q, log_p, groups=labels) == quiet(log_q, log_p, groups=[0, 0, 1, 1, 2, 2])


def test_k2_says_that_it_is_biased():
    assert "k2 is biased" in str(kl.estimate_kl(*shifted(0.5), estimator="k2"))
    assert "biased" not in str(kl.estimate_kl(*shifted(0.5)))


def test_zeros_of_p_are_counted_and_nothing_else_is_said_of_them():
    log_q, log_p = shifted(0.5, NORMAL[:50])
    log_p[7] = -np.inf
    for zeros, scores in ((1, log_p), (50, np.full(50, -np.inf))):
        for name in ("k1", "k3"):
            result = quiet(log_q, scores, estimator=name)
            assert result.value == math.inf
            assert result.diagnostics.zeros == zeros
            (text,) = [text for text in result.warnings if "p(x) = 0" in text]
            assert f"p(x) = 0 at {zeros} of the samples" in text
            assert not any("error bar of 0" in t or "carry" in t for t in result.warnings)


def test_groups_whose_means_agree_are_not_one_kind_of_outcome():
    log_q = np.zeros(80)
    log_p = np.tile(np.log([0.5, 1.2]), 40)
    result = quiet(log_q, log_p, groups=np.arange(80) // 2)
    assert result.diagnostics.mean_ratio_z is None
    assert not result.diagnostics.constant
    assert "in every group" in str(result)
    assert any("The mean of r is 0.85 in every group" in text for text in result.warnings)
    assert not any("at every sample" in text for text in result.warnings)


@pytest.mark.parametrize(("dtype", "noise"), [(np.float16, 2.0**-10), (np.float32, 2.0**-23)])
def test_what_rounding_adds_is_told(dtype, noise):
    rng = np.random.Generator(np.random.PCG64(52))
    exact = -4 - 3 * rng.random((2, 4000))  # between -4 and -8: spacing 4 × that at 1
    rounded = exact.astype(dtype)
    result = quiet(*rounded)
    spread = np.std(rounded[1] - rounded[0] - (exact[1] - exact[0]))
    assert result.diagnostics.rounding == pytest.approx(spread, rel=0.05)
    assert result.diagnostics.rounding == pytest.approx(4 * noise / math.sqrt(6), rel=0.05)
    assert not any("Rounding" in text for text in result.warnings)
    close = exact[0], exact[0] + noise * rng.standard_normal(4000)
    rounded = [x.astype(dtype) for x in close]
    assert any("Rounding of the log-prob" in text for text in quiet(*rounded).warnings)
    assert not any("Rounding" in text for text in quiet(*rounded, estimator="k1").warnings)
    assert not any("Rounding" in text for text in quiet(*close).warnings)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 1.5, -0.5, math.nan])
def test_a_confidence_is_strictly_between_0_and_1(confidence):
    for call in (
        lambda: kl.estimate_kl(*shifted(0.5), confidence=confidence),
        lambda: kl.stream_kl([shifted(0.5)]).estimate(confidence=confidence),
    ):
        with pytest.raises(ValueError, match=r"^confidence is .*between 0 and 1"):
            call()


def test_where_the_error_overflows_the_interval_is_the_whole_line():
    result = quiet(np.full(3, -1.0), np.array([499.0, -1.0, -1.0]))
    assert result.value == pytest.approx(math.exp(500) / 3, rel=1e-12)
    assert result.standard_error == math.inf
    assert result.interval == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("n", "largest", "bound"),
    [
        (2, 0.9, 2 * math.exp(-0.9)),
        (2, 0.1, 1.0),  # 2 e^(-1/10) is no probability
        (1, -3.0, 1.0),
        (5, 30.0, 5 * math.exp(-30.0)),
    ],
)
def test_the_bound_on_the_largest_ratio_is_a_probability(n, largest, bound):
    found = diagnose(
        n=n, mean_ratio=1.0, error=0.1, max_log_ratio=largest, min_log_ratio=-4.0, zeros=0,
        rounding=0.0, effective_size=2.0, k1_error=0.1, k3_error=0.1,
    )  # fmt: skip
    assert found.max_log_ratio_bound == pytest.approx(bound, rel=1e-14)


@pytest.mark.parametrize("infinite", ["k1_error", "k3_error"])
def test_errors_have_a_ratio_where_that_of_k1_is_finite(infinite):
    errors = {"k1_error": 0.1, "k3_error": 0.2} | {infinite: math.inf}
    found = diagnose(
        n=5, mean_ratio=1.0, error=0.1, max_log_ratio=1.0, min_log_ratio=-4.0, zeros=0,
        rounding=0.0, effective_size=2.0, **errors,
    )  # fmt: skip
    assert found.error_ratio == (None if infinite == "k1_error" else math.inf)


def test_both_tail_indices_are_of_upper_tails_and_fitted_alike():
    u = RNG.random(1000)
    heavy = u**-0.5 + 1 + RNG.random(1000)
    assert tail_index_of_log(-heavy) == pytest.approx(tail_index(np.log(heavy)), rel=1e-9)
    assert tail_index_of_log(1 / u) < 0  # -log r is below -1: no tail where it would do harm


def test_no_tail_is_fitted_where_r_is_zero_or_does_not_vary_or_draws_are_few():
    some = RNG.standard_normal(100)
    for index in (tail_index, tail_index_of_log):
        assert index(some) is not None
        assert index(some[:99]) is None
        assert index(np.append(some, -np.inf)) is None
        assert index(np.full(200, 0.3)) is None


def told(words, estimator="k3", value=1.0, groups=1000, **measured):
    """Whether this is told of an estimate that has nothing else the matter with it."""
    sound = {
        "mean_ratio": 1.5, "mean_ratio_z": 0.0, "max_log_ratio": 1.0, "max_log_ratio_bound": 1.0,
        "effective_size": 100.0, "pareto_k": None, "pareto_k_log": None, "error_ratio": None,
        "weight_effective_size": None, "constant": False, "zeros": 0, "rounding": 0.0,
    }  # fmt: skip
    assert warnings_about(estimator, value, (0.5, 1.5), groups, Diagnostics(**sound)) == []
    texts = warnings_about(estimator, value, (0.5, 1.5), groups, Diagnostics(**sound | measured))
    return any(words in text for text in texts)


@pytest.mark.parametrize(
    ("words", "name", "last_sound", "first_told"),
    [
        ("this has probability below", "max_log_ratio_bound", 1e-6, 9.9e-7),
        ("standard errors from 1", "mean_ratio_z", 4.0, 4.1),
        ("standard errors from 1", "mean_ratio_z", -4.0, -4.1),
        ("The tail of r looks too heavy", "pareto_k", 0.5, 0.51),
        ("The tail of -log r looks too heavy", "pareto_k_log", 0.5, 0.51),
        ("k1 has the smaller standard error", "error_ratio", 1.0, 1.01),
        ("A few draws carry the mean of r", "effective_size", 10.0, 9.9),
        ("The importance weights have", "weight_effective_size", 10.0, 9.9),
        # √(2/100) adds 1/100 to a value of 1.
        ("Rounding of the log-probabilities", "rounding", math.sqrt(0.0199), math.sqrt(0.0202)),
    ],
)
def test_a_warning_begins_where_its_words_and_the_documentation_say(
    words, name, last_sound, first_told
):
    assert not told(words, **{name: last_sound})
    assert told(words, **{name: first_told})


def test_rounding_is_told_with_half_its_square():
    assert told("of 0.3 and adds about 0.04 to k3", rounding=0.3)  # 0.045, to one digit
    assert told("adds about 0.02 to k2", "k2", rounding=0.2)
