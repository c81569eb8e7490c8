r"""A KL term for a trainer, whose value and gradient are both right.

Differentiating an estimator of KL(π‖π_ref) rarely gives an estimator of its gradient: for x ~ π the
loss k1 has the mean gradient zero and the loss k3 that of KL(π_ref‖π)
(``thm-on-policy-gradients``). So `kl_loss` states the two separately: its value is built from k3,
and automatic differentiation finds k1 times scores (``prop-straight-through``).
"""

import math
import warnings
from typing import Any

import numpy as np
from array_api_compat import is_jax_namespace

from klapprox._arrays import (
    anywhere,
    array_namespace,
    as_floating,
    as_scalar,
    is_torch,
    seen,
    stop_gradient,
    unwrapped,
)
from klapprox._kernels import expm1_minus_rounded
from klapprox._tokens import How, Tokens, ratios, row_sums, token_credits
from klapprox.diagnostics import KLWarning

__all__ = ["kl_loss", "straight_through", "weighted"]


def kl_loss(
    log_pi: Any,
    log_ref: Any,
    *,
    log_old: Any = None,
    mask: Any = None,
    level: str = "sequence",
    reduction: str = "sequence",
    max_weight: float | None = None,
    clamp: float | None = None,
    check: bool = True,
) -> Any:
    r"""Return a KL(π‖π_ref) term for each sequence; its mean is the loss.

    With k1_t and k3_t of the token ratios r_t = π_ref/π and s_t = ∇log π(y_t given y_<t):

    ============== ========================= =====================================
    level          value                     gradient
    ============== ========================= =====================================
    ``"sequence"`` Σ_t W_t k3_t              Σ_t s_t Σ_{u≥t} W_u k1_u
    ``"token"``    Σ_t w_t k3_t              Σ_t w_t k1_t s_t
    ============== ========================= =====================================

    w_t = π/π_old is the weight of token t and W_t = w_1...w_t that of the tokens up to it; without
    ``log_old`` both are 1. Weights are not differentiated: the gradient is complete as it is.

    Parameters
    ----------
    log_pi : array of shape (..., T)
        log π(y_t given y_<t) in nats of the tokens, from the policy that is trained.
    log_ref : array of the same shape
        log π_ref of the same tokens. Not differentiated.
    log_old : array of the same shape, optional
        log of the law that drew the tokens, π_old of y_t given y_<t. Not differentiated. Without it
        the tokens are taken to be drawn from π itself, as they are in the first step after drawing.
    mask : boolean array of the same shape, optional
        True at the tokens that the policy chose; False at padding, prompts and the output of tools.
        What the arrays hold there, be it NaN or infinite, enters neither value nor gradient in
        these arrays. (Log-probabilities that are NaN because the logits behind them are will still
        give logits NaN gradients: 0 times NaN. Mask the logits for that.)
    level : {"sequence", "token"}
        ``"sequence"``: for the divergence of whole sequences; unbiased in value and gradient.
        ``"token"``: every prefix is taken as given; of less variance but not that gradient, see
        Notes.
    reduction : {"sequence", "none", "sequence-mean", "token-mean"}
        ``"sequence"``: the sum over the tokens of each sequence. ``"none"``: the value of each
        token, 0 where the mask is False; the gradient of entry t is the term of s_t above.
        ``"sequence-mean"``: one number, the mean of the sums over all sequences, those without
        tokens too. ``"token-mean"``: one number, the sum over all tokens that count, divided by
        their number; that number is random where lengths are, see Notes.
    max_weight : float, optional
        c > 0: weights above c are replaced by c. Less variance, and a bias, see Notes.
    clamp : float, optional
        c > 0: log r_t is clamped to [-c, c] in value and gradient. No value then overflows, and
        there is a bias, see Notes.
    check : bool
        Whether to look at values. That reads one number back from the device. Without it what would
        be refused comes out as NaN or infinite, and no warning is given.

    Returns
    -------
    array of shape (...), (..., T) or ()
        Nats: for each sequence a sum over its tokens, not their average, and 0 if it has none; or
        as ``reduction`` says. In the kind and dtype of ``log_pi``, but ``float32`` at least.

    Raises
    ------
    TypeError
        If an argument is not an array of floating-point numbers, not of the kind of ``log_pi``, or
        ``mask`` is not Boolean.
    ValueError
        If shapes differ or have no axis of tokens, ``level`` or ``reduction`` is unknown,
        ``max_weight`` or ``clamp`` is not positive, a log-probability that counts is not finite, or
        a weight or a value overflows. Values are looked at where they can be, as explained in
        `klapprox.estimators`.

    Warns
    -----
    KLWarning
        If at sequence level the weights of whole sequences have an effective size, (Σ W)²/Σ W²,
        below 10 and below half of the sequences: then a few of them decide.

    Notes
    -----
    *Value.* E_old[W_t k3_t] = E_π[k3_t], since W_t changes the law of y_1..y_t, and the mean of
    k3_t given y_<t is the divergence K_t of step t; the sum over t is KL by the chain rule. With
    w_t only y_t changes its law: the mean is Σ_t E[K_t(y_<t)], with prefixes from π_old, not π.

    *Gradient at sequence level.* ∇E_π[Σ_u k1_u] = E_π[Σ_u k1_u Σ_t s_t], because E_π[∇k1_u] = 0,
    and E_π[k1_u s_t] = 0 for t > u; then W_u brings E_π to E_old (``thm-missing-term``, parts 1 and
    5). The sum over u ≥ t holds the KL to go: token t answers for what it leads to.

    *Gradient at token level.* E_old[w_t k1_t s_t given y_<t] = ∇K_t with the prefix held fixed
    (``thm-gradient-coefficients``, ``thm-off-policy-gradients``). On-policy it differs from ∇KL by
    the missing term E[Σ_t s_t V_{t+1}], V the KL to go (``thm-missing-term``, part 2).

    The variance of the weights W_t can grow exponentially with t; where sampler and policy differ
    much the unbiased value and gradient are of little use. The gradient is an estimate and not a
    function that was differentiated: differentiated again it gives 0.

    *Bias of the options.* Truncated at c, the mean value is smaller by
    Σ_t E_old[(W_t - c)⁺ k3_t] (w_t at token level), and the mean gradient differs by
    E_old[(W_u - c)⁺ k1_u s_t], summed as above: the divergence of what π does much oftener than
    π_old is counted for less. Truncated weights of long responses vanish where π and π_old differ
    after every prefix (``thm-truncated-weights``). A clamp of log r makes the mean value smaller
    (``prop-clamps``); in the gradient k1 is held between -c and c, where a clamp of the value would
    make it zero. ``"token-mean"`` is a ratio of two means: its bias is of the order of one over the
    number of sequences, and its gradient leaves out that of the number of tokens.

    Examples
    --------
    >>> import numpy as np
    >>> log_pi, log_ref = np.log([[0.5, 0.25], [0.5, 0.5]]), np.log([[0.25, 0.5], [0.5, 0.5]])
    >>> kl_loss(log_pi, log_ref).round(4).tolist()
    [0.5, 0.0]
    >>> mask = np.array([[True, False], [True, True]])  # the first sequence ends after one token
    >>> kl_loss(log_pi, log_ref, mask=mask).round(4).tolist()
    [0.1931, 0.0]
    >>> float(kl_loss(log_pi, log_ref, mask=mask, reduction="token-mean").round(4))
    0.0644
    """
    _check_choice("level", level, ("sequence", "token"))
    _check_choice("reduction", reduction, ("sequence", "none", "sequence-mean", "token-mean"))
    how = How(level, _positive("max_weight", max_weight), _positive("clamp", clamp))
    xp, log_pi = as_floating("log_pi", log_pi)
    if log_pi.ndim == 0:
        raise ValueError("log_pi is a single number; its last axis must hold the tokens.")
    arrays = {"log_pi": log_pi, "log_ref": log_ref, "log_old": log_old, "mask": mask}
    _check_arrays(xp, arrays)
    given = Tokens(**arrays)
    value, evidence = _terms(xp, how, given, summed=reduction != "none")
    if check:
        _check_values(xp, how, given, value, evidence)
    if reduction == "sequence-mean":
        return xp.sum(value) / max(1, math.prod(value.shape))
    if reduction == "token-mean":
        if mask is None:
            return xp.sum(value) / max(1, math.prod(log_pi.shape))
        tokens = xp.sum(xp.astype(mask, value.dtype))
        return xp.sum(value) / xp.where(tokens > 0, tokens, xp.ones_like(tokens))
    return value


def _terms(xp: Any, how: How, given: Tokens, *, summed: bool) -> tuple[Any, Any]:
    """Return the values with their gradient, and the evidence of `ratios`."""
    if is_torch(given.log_pi):
        from klapprox import _torch

        return _torch.token_terms(how, given, summed=summed)
    # Whatever NumPy would warn of is masked, or seen in the result.
    with np.errstate(over="ignore", invalid="ignore"):
        x, log_w, evidence = ratios(xp, how, given.fixed())
        value = row_sums(xp, expm1_minus_rounded(xp, x), log_w, summed=summed)
    if is_jax_namespace(xp):
        log_pi = given.log_pi if given.mask is None else xp.where(given.mask, given.log_pi, 0.0)
        # log_pi less its own value is zero, but its gradient is the score.
        score = (log_pi - stop_gradient(log_pi)) * token_credits(xp, how, x, log_w, given.mask)
        value = value + (xp.sum(score, axis=-1) if summed else score)
    return xp.astype(value, xp.result_type(given.log_pi.dtype, xp.float32)), evidence


def weighted(values: Any, log_w: Any, *, detach: bool = False, check: bool = True) -> Any:
    r"""Return w k for samples of another policy, w = π/π_old differentiated or not.

    Parameters
    ----------
    values : array
        k1, k2 or k3 of π_ref/π at samples of π_old.
    log_w : array of the same shape
        log(π/π_old) of the samples, in nats.
    detach : bool
        Whether to leave w out of the gradient; see Notes.
    check : bool
        Whether to look at the weights, which reads one number back from the device.

    Returns
    -------
    array
        Same shape and kind; its mean over samples of π_old is E_π[k].

    Raises
    ------
    TypeError, ValueError
        If the arrays differ in kind or shape, or ``log_w`` is NaN or so large that w overflows.

    Notes
    -----
    The value is the same either way; the mean gradient is not:

    ======== ================ ==================
    values   differentiated   detached
    ======== ================ ==================
    k1       ∇KL(π‖π_ref)     0
    k2       ∇E_π[k2]         ∇KL(π‖π_ref)
    k3       ∇KL(π‖π_ref)     ∇KL(π_ref‖π)
    ======== ================ ==================

    Proved in ``thm-off-policy-gradients``; for k3 the differentiated form is, sample by sample, k1
    in the weighted reward (``cor-weighted-k3``).

    Examples
    --------
    >>> import numpy as np
    >>> weighted(np.array([0.5, 1.0]), np.log([2.0, 0.5])).round(4).tolist()
    [1.0, 0.5]
    """
    xp, values = as_floating("values", values)
    _check_kind_and_shape(xp, "log_w", log_w, values.shape, "values")
    _, log_w = as_floating("log_w", log_w)
    weight = xp.exp(stop_gradient(log_w) if detach else log_w)
    if check and anywhere(xp, ~xp.isfinite(weight)):
        raise ValueError(
            "log_w is NaN, or so large that the weight overflows. Check that it scores the same "
            "samples, and draw new ones from the current policy."
        )
    # An infinite value stays so where its weight underflows.
    infinite = xp.isinf(values)
    finite = xp.where(infinite, xp.zeros_like(values), values)
    return as_scalar(xp.where(infinite, values, weight * finite))


def straight_through(value: Any, gradient_of: Any) -> Any:
    r"""Return an array with the value of one estimator and the gradient of another.

    Parameters
    ----------
    value, gradient_of : array
        For example k3 and k2 of the same samples: on-policy the means of the value, KL(π‖π_ref),
        and of the gradient are then both right.

    Returns
    -------
    array
        ``value``, with the gradient of ``gradient_of``; where that is infinite, with none.

    Raises
    ------
    TypeError, ValueError
        If the arrays differ in kind or shape.

    Notes
    -----
    Implements ``prop-straight-through``.

    Examples
    --------
    >>> import numpy as np
    >>> straight_through(np.array([0.5]), np.array([0.25])).tolist()
    [0.5]
    """
    xp, value = as_floating("value", value)
    _check_kind_and_shape(xp, "gradient_of", gradient_of, value.shape, "value")
    _, gradient_of = as_floating("gradient_of", gradient_of)
    # The bracket is exactly zero, but not its gradient; where it is infinite there is none.
    infinite = xp.isinf(gradient_of)
    finite = xp.where(infinite, xp.zeros_like(gradient_of), gradient_of)
    return as_scalar(stop_gradient(value) + (finite - stop_gradient(finite)))


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        *others, last = (repr(choice) for choice in choices)
        raise ValueError(f"{name} is {value!r}; choose {', '.join(others)} or {last}.")


def _positive(name: str, value: Any) -> float | None:
    """Return a bound as a number, or None where there is none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
        raise TypeError(f"{name} is {value!r}; it must be a number.")
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} is {value}; it must be positive and finite.")
    return float(value)


def _check_arrays(xp: Any, arrays: dict[str, Any]) -> None:
    """Refuse arrays whose kind, shape or dtype is wrong, and take them out of their wrappers."""
    shape = arrays["log_pi"].shape
    for name, values in arrays.items():
        if values is None and name != "log_ref":
            continue
        _check_kind_and_shape(xp, name, values, shape)
        if name != "mask":
            arrays[name] = as_floating(name, values)[1]
        elif isinstance(values, np.ndarray):
            arrays[name] = unwrapped(name, values)
        if name == "mask" and values.dtype != xp.bool:
            raise TypeError(f"mask has dtype {values.dtype}; it must be Boolean: pass mask != 0.")


def _check_values(xp: Any, how: How, given: Tokens, value: Any, evidence: Any) -> None:
    """Refuse and warn of what is seen in the results, after one look at them."""
    weighted = how.level == "sequence" and given.log_old is not None

    def look() -> Any:
        refused = xp.any(~xp.isfinite(value))
        if evidence is not None:
            refused = refused | xp.any(~xp.isfinite(evidence))
        few = _effective_size(xp, how, given, evidence)[1] if weighted else False
        return 2 * xp.astype(refused, xp.int32) + few

    seen_ = seen(xp, look)
    if seen_ >= 2:
        raise ValueError(_what_is_wrong(xp, how, given))
    if seen_ == 1:
        size, _ = _effective_size(xp, how, given, evidence)
        warnings.warn(
            f"The weights of whole sequences have an effective size of {float(size):.1f}: a few of "
            "them decide the loss and its gradient. Draw new sequences from the current policy, "
            'bound the weights by max_weight (biased), or take level="token".',
            KLWarning,
            stacklevel=3,
        )


def _effective_size(xp: Any, how: How, given: Tokens, log_w: Any) -> tuple[Any, Any]:
    """Return (Σ W)²/Σ W² of the sequences that have a token, and 1 if it is small, else 0."""
    if how.max_weight is not None:
        log_w = xp.clip(log_w, max=math.log(how.max_weight))
    some = (xp.ones_like(log_w) if given.mask is None else xp.any(given.mask, axis=-1)) != 0
    least = xp.full_like(log_w, -math.inf)
    top = xp.max(xp.where(some, log_w, least)) if math.prod(log_w.shape) else 0.0
    count = xp.sum(xp.astype(some, log_w.dtype))
    with np.errstate(invalid="ignore"):  # NaN, which is not small, without a sequence
        relative = xp.where(some, xp.exp(log_w - top), xp.zeros_like(log_w))
        total = xp.sum(relative)
        size = total * total / xp.sum(relative * relative)
    return size, xp.astype((size < 10.0) & (size < 0.5 * count), xp.int32)


def _what_is_wrong(xp: Any, how: How, given: Tokens) -> str:
    """Return the message of the error about values that are not finite."""
    for name, values in given._asdict().items():
        if values is None or name == "mask":
            continue
        if given.mask is not None:
            values = xp.where(given.mask, values, xp.zeros_like(values))
        if anywhere(xp, ~xp.isfinite(values)):
            return (
                f"{name} is NaN or infinite at a token that the mask keeps. Mask padding; for a "
                "drawn token that has no chance under one of the laws, KL or its gradient does not "
                "exist."
            )
    with np.errstate(over="ignore"):
        x, log_w, _ = ratios(xp, how, given.fixed())
        overflows = log_w is not None and anywhere(xp, xp.isinf(xp.exp(log_w)))
    if overflows:
        return (
            "log_old is so far below log_pi that an importance weight overflows. Check that it "
            "scores the same tokens, and draw new sequences from the current policy; or bound the "
            "weights by max_weight."
        )
    return (
        f"A value overflows: log_ref is above log_pi by up to {float(xp.max(x)):.4g} nats. Check "
        "that both score the same tokens; or bound the log-ratio by clamp, for example clamp=20."
    )


def _check_kind_and_shape(
    xp: Any, name: str, values: Any, shape: tuple[int, ...], like: str = "log_pi"
) -> None:
    try:
        same = array_namespace(values) is xp
    except TypeError:
        same = False
    if not same:
        raise TypeError(
            f"{name} is a {type(values).__name__}, but {like} an array of {xp.__name__}; "
            "convert one of them so that both are of one kind."
        )
    if tuple(values.shape) != tuple(shape):
        raise ValueError(
            f"{name} has shape {tuple(values.shape)} and {like} {tuple(shape)}; both must be about "
            "the same tokens."
        )
