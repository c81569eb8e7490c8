r"""A KL term for a trainer, whose value and gradient are both right.

Differentiating an estimator of KL(π‖π_ref) rarely gives an estimator of its gradient: for x ~ π the
loss k1 has the mean gradient zero and the loss k3 that of KL(π_ref‖π)
(``thm-on-policy-gradients``). So `kl_loss` states the two separately: its value is built from k3,
and automatic differentiation finds k1 times scores (``prop-straight-through``).
"""

from typing import Any

from array_api_compat import array_namespace

from klapprox._arrays import anywhere, as_floating, stop_gradient
from klapprox.estimators import k3

__all__ = ["kl_loss", "straight_through", "weighted"]


def kl_loss(
    log_pi: Any,
    log_ref: Any,
    *,
    log_old: Any = None,
    mask: Any = None,
    level: str = "sequence",
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
        What the arrays hold there, be it NaN or infinite, enters neither value nor gradient.
    level : {"sequence", "token"}
        ``"sequence"``: for the divergence of whole sequences; unbiased in value and gradient.
        ``"token"``: every prefix is taken as given; of less variance but not that gradient, see
        Notes.

    Returns
    -------
    array of shape (...)
        Nats for each sequence, in the kind and dtype of ``log_pi``: a sum over its tokens, not
        their average. Computed in ``float32`` at least.

    Raises
    ------
    TypeError
        If an argument is not an array of floating-point numbers, not of the kind of ``log_pi``, or
        ``mask`` is not Boolean.
    ValueError
        If shapes differ or have no axis of tokens, ``level`` is unknown, the mask leaves no token
        of a sequence, a log-probability that counts is not finite, or a weight overflows. Values
        are looked at where they can be, as explained in `klapprox.estimators`.

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

    The variance of the weights W_t grows exponentially with t; where sampler and policy differ much
    the unbiased value and gradient are of little use.

    Examples
    --------
    >>> import numpy as np
    >>> log_pi, log_ref = np.log([[0.5, 0.25], [0.5, 0.5]]), np.log([[0.25, 0.5], [0.5, 0.5]])
    >>> kl_loss(log_pi, log_ref).round(4).tolist()
    [0.5, 0.0]
    >>> mask = np.array([[True, False], [True, True]])  # the first sequence ends after one token
    >>> kl_loss(log_pi, log_ref, mask=mask).round(4).tolist()
    [0.1931, 0.0]
    """
    if level not in ("sequence", "token"):
        raise ValueError(f"level is {level!r}; choose 'sequence' or 'token'.")
    xp, log_pi = as_floating("log_pi", log_pi)
    if log_pi.ndim == 0:
        raise ValueError("log_pi is a single number; its last axis must hold the tokens.")
    dtype = log_pi.dtype
    mask = _checked_mask(xp, mask, log_pi)
    log_pi = _checked_log(xp, "log_pi", log_pi, mask)
    log_ref = stop_gradient(_checked_log(xp, "log_ref", log_ref, mask))
    fixed = stop_gradient(log_pi)
    log_r = log_ref - fixed
    value, credit = k3(log_r), -log_r
    if log_old is not None:
        log_w = fixed - stop_gradient(_checked_log(xp, "log_old", log_old, mask))
        weight = xp.exp(log_w if level == "token" else xp.cumulative_sum(log_w, axis=-1))
        if anywhere(xp, xp.isinf(weight)):
            raise ValueError(
                "log_old is so far below log_pi that an importance weight overflows. Check that it "
                "scores the same tokens, and draw new sequences from the current policy."
            )
        value, credit = weight * value, weight * credit
    if level == "sequence":
        credit = xp.flip(xp.cumulative_sum(xp.flip(credit, axis=-1), axis=-1), axis=-1)
    # log_pi - fixed is zero, but its gradient is the score.
    return xp.astype(xp.sum(value + (log_pi - fixed) * credit, axis=-1), dtype)


def weighted(values: Any, log_w: Any, *, detach: bool = False) -> Any:
    r"""Return w k for samples of another policy, w = π/π_old differentiated or not.

    Parameters
    ----------
    values : array
        k1, k2 or k3 of π_ref/π at samples of π_old.
    log_w : array of the same shape
        log(π/π_old) of the samples, in nats.
    detach : bool
        Whether to leave w out of the gradient; see Notes.

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
    as_floating("log_w", log_w)
    weight = xp.exp(stop_gradient(log_w) if detach else log_w)
    if anywhere(xp, ~xp.isfinite(weight)):
        raise ValueError(
            "log_w is NaN, or so large that the weight overflows. Check that it scores the same "
            "samples, and draw new ones from the current policy."
        )
    return weight * values


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
        ``value``, with the gradient of ``gradient_of``.

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
    # The bracket is exactly zero, but not its gradient.
    return stop_gradient(value) + (gradient_of - stop_gradient(gradient_of))


def _checked_mask(xp: Any, mask: Any, log_pi: Any) -> Any:
    """Return the mask as a Boolean array in the shape of log_pi."""
    if mask is None:
        mask = xp.ones_like(log_pi, dtype=xp.bool)
    _check_kind_and_shape(xp, "mask", mask, log_pi.shape)
    if mask.dtype != xp.bool:
        raise TypeError(f"mask has dtype {mask.dtype}; it must be Boolean: pass mask != 0.")
    if anywhere(xp, ~xp.any(mask, axis=-1)):
        raise ValueError(
            "mask leaves no token of a sequence (or there are no tokens); drop such sequences."
        )
    return mask


def _checked_log(xp: Any, name: str, values: Any, mask: Any) -> Any:
    """Return log-probabilities in float32 or wider, 0 where the mask is False."""
    _check_kind_and_shape(xp, name, values, mask.shape)
    as_floating(name, values)
    # Before any arithmetic: 0 times a NaN that is masked later would still be NaN in the gradient.
    values = xp.where(mask, values, xp.zeros_like(values))
    if anywhere(xp, ~xp.isfinite(values)):
        raise ValueError(
            f"{name} is NaN or infinite at a token that the mask keeps. Mask padding; for a drawn "
            "token that has no chance under one of the laws, KL or its gradient does not exist."
        )
    return xp.astype(values, xp.result_type(values.dtype, xp.float32))


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
