"""The KL loss: its value by the sum over all sequences, and what it refuses.

Gradients need a library that differentiates; they are tested in tests/arrays.
"""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sequence_tree import gather, log_softmax, logits, sequences

import klapprox as kl

# The sequences below are enumerated, not drawn: nothing follows from their weights.
enumerated = pytest.mark.filterwarnings("ignore:The weights of whole sequences:klapprox.KLWarning")

TOKENS, MASK = sequences()
PI, REF, OLD = (gather(log_softmax(logits(seed)), TOKENS) for seed in range(3))


def total(values, mask=MASK):
    """Sum over the tokens that count; behind the end there is only padding."""
    return np.sum(np.where(mask, values, 0.0), axis=-1)


def mean(log_law, values):
    """The exact mean over sequences drawn from this law."""
    return np.sum(np.exp(total(log_law)) * values)


def test_the_tree_holds_every_sequence_once():
    assert len(TOKENS) == 1 + 2 * (1 + 2 * 3)
    for log_law in (PI, REF, OLD):
        assert mean(log_law, 1.0) == pytest.approx(1, abs=1e-14)


SEQUENCE_KL = mean(PI, total(PI - REF))
# Prefixes from π_old, then the exact divergence of the next token: weights of prefixes times K.
STEP_KL_UNDER_OLD = mean(OLD, total(np.exp(PI - OLD) * (PI - REF)))


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_on_policy_the_mean_is_the_divergence_of_sequences(level):
    value = kl.kl_loss(PI, REF, mask=MASK, level=level)
    assert value.shape == (len(TOKENS),)
    assert mean(PI, value) == pytest.approx(SEQUENCE_KL, abs=1e-14)
    np.testing.assert_allclose(value, total(kl.k3(REF - PI)), rtol=1e-14)


@enumerated
def test_off_policy_the_sequence_level_is_unbiased_too():
    value = kl.kl_loss(PI, REF, log_old=OLD, mask=MASK)
    assert mean(OLD, value) == pytest.approx(SEQUENCE_KL, abs=1e-14)


def test_off_policy_the_token_level_keeps_the_prefixes_of_the_sampler():
    value = kl.kl_loss(PI, REF, log_old=OLD, mask=MASK, level="token")
    assert mean(OLD, value) == pytest.approx(STEP_KL_UNDER_OLD, abs=1e-14)
    assert abs(STEP_KL_UNDER_OLD - SEQUENCE_KL) > 0.02  # so the two levels are told apart


@enumerated
def test_the_default_is_the_sequence_level_without_a_mask():
    explicit = np.ones_like(PI, dtype=bool)
    np.testing.assert_array_equal(
        kl.kl_loss(PI, REF, log_old=OLD),
        kl.kl_loss(PI, REF, log_old=OLD, mask=explicit, level="sequence"),
    )


@enumerated
@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_masked_does_not_matter(level, junk):
    def spoilt(values):
        return np.where(MASK, values, junk)

    np.testing.assert_array_equal(
        kl.kl_loss(spoilt(PI), spoilt(REF), log_old=spoilt(OLD), mask=MASK, level=level),
        kl.kl_loss(PI, REF, log_old=OLD, mask=MASK, level=level),
    )


def test_a_masked_token_in_the_middle_has_the_weight_one():
    mask = np.array([True, False, True])
    short = [values[:1, [0, 2]] for values in (PI, REF, OLD)]
    value = kl.kl_loss(PI[0], REF[0], log_old=OLD[0], mask=mask)
    assert value.shape == ()
    assert value == pytest.approx(kl.kl_loss(*short[:2], log_old=short[2])[0], rel=1e-14)


@given(st.lists(st.tuples(*[st.floats(-20, 0)] * 3), min_size=1, max_size=6))
def test_weights_are_products_up_to_each_token(rows):
    log_pi, log_ref, log_old = np.array(rows).T
    k3 = kl.k3(log_ref - log_pi)
    weights = np.cumprod(np.exp(log_pi - log_old))
    value = kl.kl_loss(log_pi, log_ref, log_old=log_old)
    assert value == pytest.approx(np.sum(weights * k3), rel=1e-12, abs=1e-300)
    assert value >= 0


def test_without_a_change_of_policy_both_levels_are_the_on_policy_ones():
    for level in ("sequence", "token"):
        np.testing.assert_array_equal(
            kl.kl_loss(PI, REF, log_old=PI, mask=MASK, level=level),
            kl.kl_loss(PI, REF, mask=MASK, level=level),
        )


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 0, 4), (1, 3, 4)])
def test_one_value_a_sequence_in_the_dtype_of_log_pi(dtype, shape):
    log_pi = np.full(shape, -1.0, dtype=dtype)
    value = kl.kl_loss(log_pi, log_pi - 1, log_old=log_pi)
    assert value.shape == shape[:-1]
    assert value.dtype == max(np.dtype(dtype), np.dtype(np.float32))
    np.testing.assert_allclose(value, 4 * np.exp(-1.0), rtol=2 * np.finfo(value.dtype).eps)


def test_half_precision_is_widened_before_anything_is_subtracted_or_summed():
    log_pi = np.full(5000, -2.0, dtype=np.float16)
    log_ref = np.full(5000, -2.001, dtype=np.float16)
    exact = 5000 * kl.k3(log_ref[0].astype(float) - log_pi[0].astype(float))
    value = kl.kl_loss(log_pi, log_ref)
    assert value.dtype == np.float32
    assert value == np.float32(exact)


def test_half_precision_does_not_overflow():
    log_pi, log_ref = np.full((1, 2), -20.0, np.float16), np.full((1, 2), -1.0, np.float16)
    value = kl.kl_loss(log_pi, log_ref)  # exp(19) is far above 65504
    np.testing.assert_allclose(value, 2 * kl.k3(19.0), rtol=1e-6)


def test_a_value_that_overflows_is_refused_or_clamped():
    log_pi, log_ref = np.full((1, 2), -120.0, np.float32), np.full((1, 2), -1.0, np.float32)
    with pytest.raises(
        ValueError, match=r"^A value overflows: log_ref is above log_pi by up to 119"
    ):
        kl.kl_loss(log_pi, log_ref)
    assert np.isposinf(kl.kl_loss(log_pi, log_ref, check=False)).all()
    np.testing.assert_allclose(kl.kl_loss(log_pi, log_ref, clamp=20.0), 2 * kl.k3(20.0), rtol=1e-6)


def test_a_clamp_is_one_of_the_log_ratio():
    for clamp in (0.05, 0.3, 30.0):
        expected = total(kl.k3(np.clip(REF - PI, -clamp, clamp)))
        np.testing.assert_allclose(
            kl.kl_loss(PI, REF, mask=MASK, clamp=clamp), expected, rtol=1e-13
        )
        assert mean(PI, expected) <= SEQUENCE_KL + 1e-15  # prop-clamps


@enumerated
@pytest.mark.parametrize("bound", [0.4, 1.0, 1.5, 100.0])
def test_truncated_weights_lose_what_the_docstring_says(bound):
    ratio = np.where(MASK, PI - OLD, 0.0)
    k3 = np.where(MASK, kl.k3(REF - PI), 0.0)
    for level, weights in (
        ("sequence", np.exp(np.cumsum(ratio, axis=1))),
        ("token", np.exp(ratio)),
    ):
        value, whole = (
            kl.kl_loss(PI, REF, log_old=OLD, mask=MASK, level=level, max_weight=c)
            for c in (bound, None)
        )
        expected = np.sum(np.minimum(weights, bound) * k3, axis=1)
        np.testing.assert_allclose(value, expected, rtol=1e-13)
        lost = mean(OLD, np.sum(np.maximum(weights - bound, 0.0) * k3, axis=1))
        assert mean(OLD, whole) - mean(OLD, value) == pytest.approx(lost, abs=1e-14)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_reductions_are_sums_and_means_of_the_same_terms(level):
    mask = MASK.copy()
    mask[3] = False  # a sequence without tokens

    def loss(reduction):
        return kl.kl_loss(
            PI, REF, log_old=OLD, mask=mask, level=level, reduction=reduction, check=False
        )

    tokens = loss("none")
    assert tokens.shape == PI.shape
    assert np.all(tokens[~mask] == 0)
    sums = loss("sequence")
    np.testing.assert_allclose(sums, tokens.sum(axis=1), rtol=1e-14)
    assert sums[3] == 0
    assert loss("sequence-mean") == pytest.approx(sums.sum() / len(sums), rel=1e-14)
    assert loss("token-mean") == pytest.approx(sums.sum() / mask.sum(), rel=1e-14)
    flat = kl.kl_loss(FLAT, FLAT - 1, reduction="token-mean")
    assert flat == pytest.approx(kl.k3(-1.0), rel=1e-14)


@pytest.mark.parametrize("shape", [(2, 3), (2, 0), (0, 3), (3,)])
@pytest.mark.parametrize("reduction", ["none", "sequence", "sequence-mean", "token-mean"])
def test_without_a_token_the_loss_is_zero(shape, reduction):
    for log_old in (None, np.full(shape, -2.0)):
        value = kl.kl_loss(
            np.full(shape, np.nan),
            np.zeros(shape),
            log_old=log_old,
            mask=np.zeros(shape, dtype=bool),
            reduction=reduction,
        )
        assert np.all(value == 0)


def test_weights_of_few_sequences_are_told():
    rng = np.random.default_rng(0)
    log_old = np.full((40, 300), -2.0)
    log_pi = log_old + 0.3 * rng.standard_normal(log_old.shape)
    total_w = np.exp(np.sum(log_pi - log_old, axis=1))
    size = total_w.sum() ** 2 / np.sum(total_w**2)
    assert size < 5
    with pytest.warns(kl.KLWarning, match=f"an effective size of {size:.1f}: a few"):
        kl.kl_loss(log_pi, log_old, log_old=log_old)
    for quiet in (
        {"level": "token"},
        {"check": False},
        {"max_weight": 1e-3},
        {"mask": np.arange(300) < np.ones((40, 1))},
    ):
        kl.kl_loss(log_pi, log_old, log_old=log_old, **quiet)
    kl.kl_loss(log_pi[:2], log_old[:2], log_old=log_old[:2])  # of two nothing can be said


def test_a_number_is_a_number_of_numpy():
    for value in (
        kl.kl_loss(PI[0], REF[0]),
        kl.kl_loss(PI, REF, reduction="sequence-mean"),
        kl.kl_loss(PI, REF, mask=MASK, reduction="token-mean"),
        kl.weighted(np.asarray(1.0), np.asarray(0.5)),
        kl.straight_through(np.asarray(1.0), np.asarray(0.5)),
    ):
        assert type(value) is np.float64


@enumerated
def test_the_arguments_are_not_changed():
    arguments = PI.copy(), REF.copy(), OLD.copy(), MASK.copy()
    kl.kl_loss(arguments[0], arguments[1], log_old=arguments[2], mask=arguments[3])
    for argument, before in zip(arguments, (PI, REF, OLD, MASK), strict=True):
        np.testing.assert_array_equal(argument, before)


FLAT = np.full((2, 3), -1.0)


def with_entry(value):
    changed = FLAT.copy()
    changed[1, 2] = value
    return changed


@pytest.mark.parametrize("name", ["log_pi", "log_ref", "log_old"])
@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ([[-1.0] * 3] * 2, TypeError, "is a list"),
        ("-1", TypeError, "is a str"),
        (np.zeros((2, 3), dtype=int), TypeError, "has dtype int64"),
        (with_entry(np.nan), ValueError, "is NaN or infinite at a token that the mask keeps"),
        (with_entry(-np.inf), ValueError, "is NaN or infinite"),
        (with_entry(np.inf), ValueError, "is NaN or infinite"),
    ],
)
def test_a_bad_array_is_refused_by_name(name, bad, error, words):
    with pytest.raises(error, match=f"^{name} {words}"):
        kl.kl_loss(**{"log_pi": FLAT, "log_ref": FLAT, "log_old": FLAT, name: bad})


@pytest.mark.parametrize("name", ["log_ref", "log_old", "mask"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 1), (2, 4), (1, 2, 3)])
def test_a_shape_of_its_own_is_refused(name, shape):
    dtype = bool if name == "mask" else float
    with pytest.raises(ValueError, match=rf"^{name} has shape \(.*\) and log_pi \(2, 3\)"):
        kl.kl_loss(
            **{"log_pi": FLAT, "log_ref": FLAT, "log_old": FLAT, name: np.ones(shape, dtype)}
        )


def test_a_number_has_no_axis_of_tokens():
    with pytest.raises(ValueError, match=r"^log_pi is a single number"):
        kl.kl_loss(-1.0, -2.0)


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (np.ones((2, 3)), TypeError, "has dtype float64; it must be Boolean"),
        (np.ones((2, 3), dtype=int), TypeError, "has dtype int64; it must be Boolean"),
        ([[True] * 3] * 2, TypeError, "is a list"),
    ],
)
def test_a_bad_mask_is_refused(mask, error, words):
    with pytest.raises(error, match=f"^mask {words}"):
        kl.kl_loss(FLAT, FLAT, mask=mask)


@pytest.mark.parametrize("level", ["tokens", "mean", "", None])
def test_an_unknown_level_is_refused(level):
    with pytest.raises(ValueError, match=r"^level is .*choose 'sequence' or 'token'"):
        kl.kl_loss(FLAT, FLAT, level=level)


@pytest.mark.parametrize("reduction", ["tokens", "mean", "", None, "sum"])
def test_an_unknown_reduction_is_refused(reduction):
    with pytest.raises(ValueError, match=r"^reduction is .*choose 'sequence', 'none', "):
        kl.kl_loss(FLAT, FLAT, reduction=reduction)


@pytest.mark.parametrize("name", ["max_weight", "clamp"])
def test_a_bound_is_a_positive_number(name):
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"^{name} is .*positive and finite"):
            kl.kl_loss(FLAT, FLAT, **{name: bad})
    for bad in ("1", True, FLAT):
        with pytest.raises(TypeError, match=rf"(?s)^{name} is .*must be a number"):
            kl.kl_loss(FLAT, FLAT, **{name: bad})


@pytest.mark.parametrize("name", ["log_pi", "log_ref", "log_old"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_no_option_hides_an_infinity(name, value, level):
    arguments = {"log_pi": FLAT, "log_ref": FLAT - 0.5, "log_old": FLAT} | {name: with_entry(value)}
    for options in ({}, {"clamp": 1.0}, {"max_weight": 2.0}, {"clamp": 1.0, "max_weight": 2.0}):
        with pytest.raises(ValueError, match=f"^{name} is NaN or infinite"):
            kl.kl_loss(**arguments, level=level, **options)


def test_a_weight_that_overflows_is_refused_or_bounded():
    with pytest.raises(ValueError, match=r"^log_old is so far below log_pi"):
        kl.kl_loss(FLAT, FLAT, log_old=FLAT - 300.0)  # exp(900) at the third token
    assert np.all(np.isfinite(kl.kl_loss(FLAT, FLAT, log_old=FLAT - 300.0, max_weight=9.0)))
    assert np.all(np.isfinite(kl.kl_loss(FLAT, FLAT, log_old=FLAT - 300.0, level="token")))


def test_weights_multiply_and_names_are_told():
    values = np.array([0.5, 1.0])
    log_w = np.log([2.0, 0.5])
    for detach in (False, True):
        np.testing.assert_allclose(kl.weighted(values, log_w, detach=detach), [1.0, 0.5])
    np.testing.assert_array_equal(kl.straight_through(values, 3 * values), values)
    with pytest.raises(ValueError, match=r"log_w has shape \(1,\) and values \(2,\)"):
        kl.weighted(values, log_w[:1])
    with pytest.raises(TypeError, match="log_w has dtype int64"):
        kl.weighted(values, np.array([0, 1]))
    with pytest.raises(ValueError, match="log_w is NaN, or so large"), np.errstate(over="ignore"):
        kl.weighted(values, np.array([0.0, 800.0]))
    with pytest.raises(TypeError, match="gradient_of is a float, but value an array"):
        kl.straight_through(values, 0.5)


@pytest.mark.parametrize("mask", [None, np.array([True, False, False])])
def test_means_of_one_sequence_and_of_one_token_are_their_values(mask):
    whole = kl.kl_loss(PI[0], REF[0], mask=mask)
    assert kl.kl_loss(PI[0], REF[0], mask=mask, reduction="sequence-mean") == whole
    assert kl.kl_loss(PI[:1, :1], REF[:1, :1], reduction="token-mean") == kl.k3(
        REF[0, 0] - PI[0, 0]
    )
    if mask is not None:
        assert kl.kl_loss(PI[0], REF[0], mask=mask, reduction="token-mean") == whole


def test_unchecked_weights_come_out_as_they_are():
    log_w = np.array([0.0, 800.0, np.nan])
    with np.errstate(over="ignore"):
        value = kl.weighted(np.ones(3), log_w, check=False)
    np.testing.assert_array_equal(value, [1.0, np.inf, np.nan])


@pytest.mark.parametrize("kind", [int, float, np.float64, np.float32])
def test_a_bound_may_be_any_real_number(kind):
    for name in ("max_weight", "clamp"):
        found, wanted = (
            kl.kl_loss(FLAT, FLAT - 2.0, log_old=FLAT - 1.0, level="token", **{name: bound})
            for bound in (kind(1), 1.0)
        )
        np.testing.assert_array_equal(found, wanted)


def test_the_reference_must_be_given():
    with pytest.raises(TypeError, match=r"^log_ref is a NoneType, but log_pi"):
        kl.kl_loss(FLAT, None)


def warns_of_weights(weights, mask=None):
    """Whether the loss warns of sequences of one token with these weights."""
    with np.errstate(divide="ignore"):
        log_pi = np.maximum(np.log(np.asarray(weights, dtype=float)), -800.0)[:, None]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        kl.kl_loss(log_pi, log_pi - 1.0, log_old=np.zeros_like(log_pi), mask=mask)
    return bool(found)


def test_weights_are_few_below_10_and_below_half_of_the_sequences():
    for equal, rows, warned in ((9, 30, True), (10, 30, False), (12, 30, False),
                                     (5, 10, False), (4, 10, True)):  # fmt: skip
        weights = np.arange(rows) < equal
        assert warns_of_weights(weights) == warned, (equal, rows)


def test_sequences_without_a_token_have_no_weight():
    weights, tokens = np.full(1030, 1.0), np.arange(1030) < 30
    weights[:30] = 1e-9
    weights[:4] = 1e-3
    assert warns_of_weights(weights, tokens[:, None])
    assert not warns_of_weights(np.ones(1030), tokens[:, None])
    tokens[:4] = False  # 26 equal weights are left, and 1004 sequences without any
    assert not warns_of_weights(weights, tokens[:, None])


def test_a_value_that_overflows_is_blamed_on_what_made_it():
    log_pi = np.array([[-1.0, -900.0, -1.0]])
    log_ref = np.array([[np.nan, -1.0, -1.0]])
    mask = np.array([[False, True, True]])
    for log_old in (None, log_pi):
        with pytest.raises(ValueError, match=r"^A value overflows: log_ref is above"):
            kl.kl_loss(log_pi, log_ref, log_old=log_old, mask=mask)


def test_an_infinite_value_stays_so_where_its_weight_underflows():
    found = kl.weighted(np.array([np.inf, 1.0, 0.0]), np.array([-np.inf, -np.inf, 0.0]))
    assert found.tolist() == [np.inf, 0.0, 0.0], "infinity times 0 is NaN"


def test_the_value_stays_where_the_other_estimator_is_infinite():
    assert kl.straight_through(np.array([1.0, 2.0]), np.array([np.inf, 1.0])).tolist() == [1.0, 2.0]


def test_wrappers_of_arrays_are_taken_off_or_refused():
    plain = np.log([[0.5, 0.25]])
    masked = np.ma.masked_array(plain, mask=[[False, True]])
    for function in (kl.kl_loss, kl.weighted, kl.straight_through):
        with pytest.raises(ValueError, match="its mask would be lost"):
            function(plain, masked)
        with pytest.warns(PendingDeprecationWarning):
            matrix = np.matrix(plain)
        assert type(function(plain, matrix)) is np.ndarray
        assert function(plain, matrix).tolist() == function(plain, plain).tolist()
