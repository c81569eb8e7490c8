"""What the score of a token is multiplied by: the sums that the docstring of `kl_loss` states.

They are the gradient of the loss, which else only libraries that differentiate show.
"""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from array_api_compat import numpy as xp

import klapprox as kl
from klapprox import _tokens
from klapprox._tokens import How, Tokens, ratios, token_credits

RNG = np.random.Generator(np.random.PCG64(61))
LOG_PI, LOG_REF, LOG_OLD = np.log(RNG.uniform(0.1, 1.0, (3, 4, 5)))
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=bool)
K1 = LOG_PI - LOG_REF


def weights(level, off_policy):
    """Return w_t, or W_t = w_1...w_t, by their definition; masked tokens have the weight 1."""
    if not off_policy:
        return np.ones_like(LOG_PI)
    ratio = np.where(MASK, np.exp(LOG_PI - LOG_OLD), 1.0)
    return ratio if level == "token" else np.cumprod(ratio, axis=1)


def credits_of(level, off_policy, max_weight=None, clamp=None, shape=LOG_PI.shape):
    how = How(level, max_weight, clamp)
    log_pi, log_ref, log_old, mask = (z.reshape(shape) for z in (LOG_PI, LOG_REF, LOG_OLD, MASK))
    given = Tokens(log_pi, log_ref, log_old if off_policy else None, mask)
    x, log_w, _ = ratios(xp, how, given)
    return token_credits(xp, how, x, log_w, mask).reshape(LOG_PI.shape)


@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("bound", [None, 1.3])
@pytest.mark.parametrize("clamp", [None, 0.4])
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_token_answers_for_its_own_k1_or_for_all_to_come(level, off_policy, bound, clamp):
    w = weights(level, off_policy)
    if bound and off_policy:
        w = np.minimum(w, bound)
    k1 = np.clip(K1, -clamp, clamp) if clamp else K1
    wanted = np.zeros_like(LOG_PI)
    for row, t in np.argwhere(MASK):
        last = t + 1 if level == "token" else LOG_PI.shape[1]
        wanted[row, t] = sum((w * k1)[row, u] for u in range(t, last) if MASK[row, u])
    for shape in ((4, 5), (2, 2, 5)):  # the tokens are on the last axis
        found = credits_of(level, off_policy, bound, clamp, shape)
        np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("clamp", [None, 0.4])
@pytest.mark.parametrize("max_weight", [None, 1.3])
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_the_evidence_is_the_weight_of_the_whole_row(level, max_weight, clamp):
    given = Tokens(LOG_PI, LOG_REF, LOG_OLD, MASK)
    evidence = ratios(xp, How(level, max_weight, clamp), given)[2]
    wanted = np.sum(np.where(MASK, LOG_PI - LOG_OLD, 0.0), axis=1)
    np.testing.assert_allclose(evidence, wanted, rtol=1e-13, atol=1e-15)


def test_without_weights_the_evidence_is_nothing_but_what_a_clamp_hides():
    given = Tokens(LOG_PI, LOG_REF, None, MASK)
    assert ratios(xp, How("sequence", None, None), given)[2] is None
    np.testing.assert_array_equal(ratios(xp, How("sequence", None, 0.4), given)[2], np.zeros(4))
    given = Tokens(*(z if z is None else z.reshape(2, 2, 5) for z in given))
    assert ratios(xp, How("sequence", None, 0.4), given)[2].shape == (2, 2)
    given = Tokens(LOG_PI, LOG_REF, None, MASK)
    infinite = given._replace(log_ref=np.where([[0, 0, 0, 0, 1]], -np.inf, LOG_REF))
    with np.errstate(invalid="ignore"):
        hidden = ratios(xp, How("sequence", None, 0.4), infinite)[2]
    assert np.isnan(hidden).tolist() == [True, False, True, False]


def test_k1_of_the_tokens_is_that_of_the_estimators():
    x, _, _ = ratios(xp, How("token", None, None), Tokens(LOG_PI, LOG_REF, None, MASK))
    np.testing.assert_array_equal(kl.k1(x)[MASK], (LOG_PI - LOG_REF)[MASK])


class Tracked:
    """An array that carries a gradient until it is detached."""

    def __init__(self, fixed=False):
        self.fixed = fixed

    def detach(self):
        return Tracked(fixed=True)


def test_fixed_arrays_carry_no_gradient_and_what_is_missing_stays_missing():
    fixed = Tokens(Tracked(), Tracked(), None, Tracked()).fixed()
    assert [z if z is None else z.fixed for z in fixed] == [True, True, None, True]


class Tensor:
    """As much of a tensor of PyTorch as is asked for sums along the tokens."""

    def __init__(self, values):
        self.values = values

    def cumsum(self, axis):
        return np.cumsum(self.values, axis)


def test_sums_along_the_tokens_use_what_the_library_has(monkeypatch):
    values = RNG.random((2, 3, 4))
    wanted = np.cumsum(values, axis=2)
    # The standard has a function and no method; torch.compile follows only PyTorch's method.
    standard = SimpleNamespace(cumulative_sum=lambda z, axis: np.cumsum(z["values"], axis))
    np.testing.assert_array_equal(_tokens._cumulative_sum(standard, {"values": values}), wanted)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(Tensor=Tensor))
    found = _tokens._cumulative_sum(SimpleNamespace(), Tensor(values))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [(np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)],
)
def test_what_is_wide_enough_is_not_copied(dtype, wide):
    values = np.ones(3, dtype)
    assert _tokens._wide(np, values).dtype == wide
    assert (_tokens._wide(np, values) is values) == (dtype == wide)
