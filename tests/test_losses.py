"""The KL loss: its value by the sum over all sequences, and what it refuses.

Gradients need a library that differentiates; they are tested in tests/arrays.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sequence_tree import gather, log_softmax, logits, sequences

import klapprox as kl

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


def test_off_policy_the_sequence_level_is_unbiased_too():
    value = kl.kl_loss(PI, REF, log_old=OLD, mask=MASK)
    assert mean(OLD, value) == pytest.approx(SEQUENCE_KL, abs=1e-14)


def test_off_policy_the_token_level_keeps_the_prefixes_of_the_sampler():
    value = kl.kl_loss(PI, REF, log_old=OLD, mask=MASK, level="token")
    assert mean(OLD, value) == pytest.approx(STEP_KL_UNDER_OLD, abs=1e-14)
    assert abs(STEP_KL_UNDER_OLD - SEQUENCE_KL) > 0.02  # so the two levels are told apart


def test_the_default_is_the_sequence_level_without_a_mask():
    explicit = np.ones_like(PI, dtype=bool)
    np.testing.assert_array_equal(
        kl.kl_loss(PI, REF, log_old=OLD),
        kl.kl_loss(PI, REF, log_old=OLD, mask=explicit, level="sequence"),
    )


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
    assert value.dtype == dtype
    np.testing.assert_allclose(value, 4 * np.exp(-1.0), rtol=2 * np.finfo(dtype).eps)


def test_half_precision_is_widened_before_anything_is_subtracted_or_summed():
    log_pi = np.full(5000, -2.0, dtype=np.float16)
    log_ref = np.full(5000, -2.001, dtype=np.float16)
    exact = 5000 * kl.k3(log_ref[0].astype(float) - log_pi[0].astype(float))
    value = kl.kl_loss(log_pi, log_ref)
    assert value == np.float16(exact)
    assert kl.kl_loss(log_pi, log_ref.astype(np.float64)).dtype == np.float16


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
        (np.array([[True] * 3, [False] * 3]), ValueError, "leaves no token of a sequence"),
    ],
)
def test_a_bad_mask_is_refused(mask, error, words):
    with pytest.raises(error, match=f"^mask {words}"):
        kl.kl_loss(FLAT, FLAT, mask=mask)


def test_sequences_without_tokens_are_refused():
    with pytest.raises(ValueError, match=r"^mask leaves no token"):
        kl.kl_loss(np.zeros((2, 0)), np.zeros((2, 0)))


@pytest.mark.parametrize("level", ["tokens", "mean", "", None])
def test_an_unknown_level_is_refused(level):
    with pytest.raises(ValueError, match=r"^level is .*choose 'sequence' or 'token'"):
        kl.kl_loss(FLAT, FLAT, level=level)


def test_a_weight_that_overflows_is_refused():
    with (
        pytest.raises(ValueError, match=r"^log_old is so far below log_pi"),
        np.errstate(over="ignore"),
    ):
        kl.kl_loss(FLAT, FLAT, log_old=FLAT - 300.0)  # exp(900) at the third token
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
