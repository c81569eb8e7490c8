r"""KL of whole next-token laws, from logits: exact, without sampling, and accurate however small.

A trainer that holds the logits of every token needs no estimator for one step: KL(q‖p) is a sum
over the vocabulary. Written as Σ q (log q - log p) in ``float32`` that sum cancels; here it is
Σ q k3(r), whose terms are nonnegative, with log r from the difference of the logits.

`exact_kl` and `jsd` take logits, `exact_kl_from_hidden` the hidden states and output matrices
behind them, `topk_kl` the log-probabilities of some tokens.

=========================  ============  =======================  =======================
function                   NumPy         PyTorch                  JAX
=========================  ============  =======================  =======================
`exact_kl`, `jsd`          value         value, gradients         value, gradients, jit
`exact_kl_from_hidden`     value         value, gradients         value, gradients, jit
`topk_kl`                  value         value, gradients         value, gradients, jit
=========================  ============  =======================  =======================

Gradients are closed forms; PyTorch refuses to differentiate them again. JAX compiles at every call
outside of ``jax.jit``. The arithmetic is in ``float64``; JAX without ``jax_enable_x64`` and PyTorch
on a device that has no ``float64`` (MPS) work in ``float32``, see `exact_kl`. Softmax and
differences are taken block by block, so that what is needed beyond inputs and gradients is some
fifteen arrays of ``chunk`` rows.
"""

import functools
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import (
    array_namespace,
    device,
    is_jax_namespace,
    is_numpy_namespace,
    is_torch_namespace,
)

from klapprox._arrays import anywhere, as_floating, stop_gradient
from klapprox._kernels import expm1, expm1_minus

__all__ = ["exact_kl", "exact_kl_from_hidden", "jsd", "topk_kl"]

_BLOCK = 2**18  # numbers worked on at a time where no chunk is given
_TOKENS = 64  # tokens whose logits `exact_kl_from_hidden` holds at a time


def exact_kl(
    logits_q: Any,
    logits_p: Any,
    *,
    mask: Any = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    check: bool = True,
) -> Any:
    r"""Return KL(q‖p) = Σ_j q_j log(q_j/p_j) of each next-token law, q = softmax(logits_q).

    The other direction is the arguments exchanged. Both arguments are differentiated; with
    k1_j = log(q_j/p_j) and K = KL(q‖p) the gradients are q_j (k1_j - K) in ``logits_q`` and
    p_j - q_j in ``logits_p``. Detach what is not trained: then its gradient is not computed.

    Parameters
    ----------
    logits_q, logits_p : array of shape (..., V)
        Unnormalised log-probabilities in nats of the V tokens, of one kind (NumPy, PyTorch, JAX);
        floating-point dtypes may differ. A constant added to a row changes nothing. ``-inf``
        excludes a token.
    mask : boolean array of shape (...), optional
        False where a law is not wanted: there the divergence is 0, and what the logits hold enters
        neither value nor gradient.
    temperature : float
        τ > 0: the laws are softmax(logits/τ). The divergence is not multiplied by τ².
    chunk : int, optional
        How many laws are worked on at a time; by default as many as have 2**18 logits together. On
        a GPU more are faster.
    check : bool
        Whether to look for rows that define no law. It reads one number back from the device.

    Returns
    -------
    array of shape (...)
        Nats for each law, nonnegative, in the wider of the dtypes and at least ``float32``. ``inf``
        where p excludes a token that q does not; such a row has the gradient 0, since it has none.
        A token that q excludes adds nothing, whatever p says.

    Raises
    ------
    TypeError
        If an argument has the wrong kind or dtype.
    ValueError
        If shapes differ, there are no tokens, ``temperature`` or ``chunk`` is not positive, or a
        row that the mask keeps holds NaN or ``+inf`` or excludes every token. With ``check=False``
        and under ``jax.jit`` such a row gives NaN.

    Notes
    -----
    With Δ = logits_p - logits_q, log r_j = Δ_j - log Σ_i q_i exp(Δ_i), and
    KL(q‖p) = Σ_j q_j k3(r_j), because Σ_j q_j (r_j - 1) = 0 (``prop-exact-step``). No terms cancel:
    an error common to all log r_j enters the sum in second order only, and it is removed too
    (``thm-exact-step-digits``).

    For ``float32`` logits of 128 000 tokens the relative error is below 1e-7, which is the rounding
    of the result, for divergences from 1e-9 to 10, whatever constants are added to the logits as
    long as they do not round them. With arithmetic in ``float32`` it is below 3e-6.

    "Excluded" includes a probability that underflows, more than 745 nats (103 where the arithmetic
    is in ``float32``) below the largest.

    Examples
    --------
    >>> import numpy as np
    >>> q, p = np.log([[0.5, 0.5], [0.75, 0.25]]), np.log([[0.25, 0.75], [0.75, 0.25]])
    >>> exact_kl(q, p).round(4).tolist()
    [0.1438, 0.0]
    >>> exact_kl(q + 100.0, p, mask=np.array([True, False])).round(4).tolist()
    [0.1438, 0.0]
    """
    return _of_logits(_KL, logits_q, logits_p, mask, temperature, chunk, check)


def jsd(
    logits_q: Any,
    logits_p: Any,
    beta: float,
    *,
    mask: Any = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    check: bool = True,
) -> Any:
    r"""Return the Jensen-Shannon divergence β KL(q‖m) + (1 - β) KL(p‖m), m = β q + (1 - β) p.

    It does not interpolate between the two KLs: it is 0 at β = 0 and at β = 1, and
    JSD_β/β → KL(q‖p) as β → 0, JSD_β/(1 - β) → KL(p‖q) as β → 1. Divide by β or by 1 - β where
    one of the KLs is meant to be the limit, or call `exact_kl`. It is finite for any two laws, at
    most -β log β - (1 - β) log(1 - β), and exchanging q and p is exchanging β and 1 - β.

    Parameters
    ----------
    logits_q, logits_p : array of shape (..., V)
        As in `exact_kl`.
    beta : float
        β in [0, 1], the weight of q.
    mask, temperature, chunk, check
        As in `exact_kl`.

    Returns
    -------
    array of shape (...)
        Nats for each law, nonnegative; dtype as in `exact_kl`.

    Raises
    ------
    TypeError, ValueError
        As in `exact_kl`; also if ``beta`` is not a number in [0, 1].

    Notes
    -----
    Computed as β Σ q k3(m/q) + (1 - β) Σ p k3(m/p). The gradients are
    β q_j (log(q_j/m_j) - KL(q‖m)) in ``logits_q`` and (1 - β) p_j (log(p_j/m_j) - KL(p‖m)) in
    ``logits_p``, over τ (``prop-jensen-shannon``). J. Lin, "Divergence measures based on the
    Shannon entropy", IEEE Transactions on Information Theory 37 (1991).

    Examples
    --------
    >>> import numpy as np
    >>> q, p = np.log([0.5, 0.5]), np.log([0.25, 0.75])
    >>> float(jsd(q, p, 0.5).round(4)), float(jsd(q, p, 1.0))
    (0.0338, 0.0)
    >>> float((jsd(q, p, 1e-6) / 1e-6).round(4)), float(exact_kl(q, p).round(4))
    (0.1438, 0.1438)
    """
    beta = _number("beta", beta)
    if not 0 <= beta <= 1:
        raise ValueError(f"beta is {beta}; it is the weight of q in the mixture, from 0 to 1.")
    return _of_logits(_jensen_shannon(beta), logits_q, logits_p, mask, temperature, chunk, check)


def exact_kl_from_hidden(
    hidden_q: Any,
    weight_q: Any,
    hidden_p: Any,
    weight_p: Any,
    *,
    mask: Any = None,
    temperature: float = 1.0,
    chunk: int = _TOKENS,
    check: bool = True,
) -> Any:
    r"""Return `exact_kl` of the logits ``hidden @ weight.T`` without ever holding them all.

    Parameters
    ----------
    hidden_q, hidden_p : array of shape (..., d_q) and (..., d_p)
        Last hidden states, one for each law.
    weight_q, weight_p : array of shape (V, d_q) and (V, d_p)
        Output matrices, as ``torch.nn.Linear`` has them, in the dtype of their hidden states. A
        bias is one more column, with one more hidden unit that is 1.
    mask : boolean array of shape (...), optional
        As in `exact_kl`.
    temperature : float
        As in `exact_kl`.
    chunk : int
        How many tokens' logits are held at a time. More make the products of matrices faster.
    check : bool
        As in `exact_kl`.

    Returns
    -------
    array of shape (...)
        As in `exact_kl`.

    Raises
    ------
    TypeError, ValueError
        As in `exact_kl`.

    Notes
    -----
    Logits are computed in the dtype of the hidden states, as the model does, and once more in the
    backward pass. With G the gradient of `exact_kl` in the logits those in hidden states and matrix
    are G weight and Gᵀ hidden. In PyTorch they are summed in ``float32`` where the dtype is
    narrower, and rounded once.

    Examples
    --------
    >>> import numpy as np
    >>> hidden, weight = np.array([[1.0], [2.0]]), np.log([[0.5], [0.25], [0.25]])
    >>> exact_kl_from_hidden(hidden, weight, np.zeros((2, 1)), weight).round(4).tolist()
    [0.0589, 0.231]
    >>> exact_kl(hidden @ weight.T, np.zeros((2, 3))).round(4).tolist()
    [0.0589, 0.231]
    """
    given = {"hidden_q": hidden_q, "weight_q": weight_q, "hidden_p": hidden_p, "weight_p": weight_p}
    xp, arrays = _floating(**given)
    _check_supported(xp, "hidden_q")
    _check_hidden("q", *arrays[:2])
    _check_hidden("p", *arrays[2:])
    shape_q, shape_p = ((*arrays[i].shape[:-1], arrays[i + 1].shape[0]) for i in (0, 2))
    _check_shapes("weight_q", shape_q, "weight_p", shape_p)
    mask = _checked_mask(xp, mask, shape_q[:-1])
    chunk, law = _chunk(chunk, shape_q[-1]), _Law(*_KL, _inverse(temperature))
    if is_torch_namespace(xp):
        value = _torch_functions().of_hidden(*arrays, law, chunk)
    elif is_jax_namespace(xp):
        value = _jax_of_hidden(law, chunk, *arrays)
    else:
        value = _hidden_values(xp, law, chunk, *arrays)
    if mask is not None:
        value = xp.where(mask, value, 0.0)
    if check:
        names = ("hidden_q @ weight_q.T", "hidden_p @ weight_p.T")
        _refuse_nan_rows(
            xp, value, names, lambda index: (weight_q @ hidden_q[index], weight_p @ hidden_p[index])
        )
    return value


def topk_kl(
    log_q: Any,
    log_p: Any,
    *,
    log_q_x: Any = None,
    log_p_x: Any = None,
    outside: Any = None,
    control: Any = None,
    mask: Any = None,
    check: bool = True,
) -> Any:
    r"""Return KL(q‖p) of next-token laws known on a set T of tokens: a lower bound, or unbiased.

    With S = Σ_{j∈T} q_j k3(r_j), q_T and p_T the masses of T:

    * *Without a sample:* the divergence with all other tokens taken as one,
      S + (1 - q_T) k3(r̄), r̄ = (1 - p_T)/(1 - q_T). It lies between S and KL(q‖p); the gap is
      (1 - q_T) times the divergence of the two laws within the rest.
    * *With a sample x ~ q:* Z = S + 1[x∉T] k3(r_x) - c (1[x∉T] - (1 - q_T)), of mean KL(q‖p)
      whatever the constant c, since the bracket has mean zero.

    The plain sum Σ_{j∈T} q_j log(q_j/p_j) is not offered: it is no divergence, and negative where
    p_T is large (``prop-truncated-sum``).

    Parameters
    ----------
    log_q, log_p : array of shape (..., k)
        Log-probabilities in nats of k different tokens under the whole laws, not renormalised.
        Fill up a shorter row with ``-inf`` in both. Log-probabilities of little mass may be left
        out, but by a rule that does not look at x.
    log_q_x, log_p_x : array of shape (...), optional
        Log-probabilities of the sampled token x. They are read where ``outside`` is True.
    outside : boolean array of shape (...), optional
        Whether x is not in T.
    control : float or array of shape (...), optional
        c, which must not depend on x. By default S/q_T, with which the estimate is 1[x∈T] S/q_T +
        1[x∉T] k3(r_x): never negative, and of no larger variance than k3(r_x). Best is the mean of
        k3 over tokens outside, (KL - S)/(1 - q_T): give it where other steps tell it. 0 is better
        than the default where S/q_T is at least twice that mean, and worse elsewhere.
    mask : boolean array of shape (...), optional
        As in `exact_kl`.
    check : bool
        Whether to look for values that are no log-probabilities; reads one number back.

    Returns
    -------
    array of shape (...)
        Nats for each law, in the wider of the dtypes of ``log_q`` and ``log_p`` and at least
        ``float32``. ``inf`` where p excludes a token of T that q does not.

    Raises
    ------
    TypeError
        If an argument has the wrong kind or dtype.
    ValueError
        If shapes differ, only some of the three arguments of the sample are given or a control
        without them, a value is NaN, the probabilities of a row add up to more than 1, or x is
        outside with more probability than is left there.

    Notes
    -----
    *Value.* The lower bound is ``thm-topk-chain``, the estimate ``thm-topk-completion``. The rest
    is 1 minus a sum; 8 units of the rounding of the log-probabilities are added on both sides,
    which keeps the bound.
    The estimate with the default control is the mean of k3(r_x) given which token outside was
    drawn or that none was (Rao-Blackwell). Differences of log-probabilities are as accurate as
    these: for divergences below 1e-4 take them in ``float64``.

    *Gradient.* Without a sample that of the value. With one it has the mean ∇KL(q‖p) in both laws,
    if x is drawn from q itself: q_j k1_j for log q_j and p_j - q_j for log p_j on T,
    1[x∉T] k1(r_x) for log q_x and 1[x∉T] (r_x - 1) for log p_x (``prop-straight-through``); the
    derivative of the value would not have this mean. q_T and ``control`` are not differentiated.

    Examples
    --------
    >>> import numpy as np
    >>> q, p = np.log([0.5, 0.2, 0.2, 0.1]), np.log([0.4, 0.4, 0.1, 0.1])
    >>> float(topk_kl(q[:2], p[:2]).round(4)), float(exact_kl(q, p).round(4))
    (0.0946, 0.1116)
    >>> of_x = [topk_kl(q[:2], p[:2], log_q_x=q[x], log_p_x=p[x], outside=np.asarray(x >= 2))
    ...         for x in range(4)]
    >>> float((np.exp(q) @ of_x).round(4))  # the mean over x ~ q
    0.1116
    """
    xp, (log_q, log_p) = _floating(log_q=log_q, log_p=log_p)
    if log_q.ndim == 0:
        raise ValueError("log_q is a single number; its last axis must hold the tokens of the set.")
    if log_q.shape != log_p.shape:
        raise ValueError(
            f"log_q has shape {tuple(log_q.shape)} and log_p {tuple(log_p.shape)}; both must be "
            "about the same tokens."
        )
    sample = {"log_q_x": log_q_x, "log_p_x": log_p_x, "outside": outside}
    missing = [name for name, value in sample.items() if value is None]
    if 0 < len(missing) < 3 or (missing and control is not None):
        raise ValueError(f"{missing[0]} is missing: a sample is log_q_x, log_p_x and outside.")
    dtype, mask = _result(xp, log_q, log_p), _checked_mask(xp, mask, log_q.shape[:-1])
    with np.errstate(invalid="ignore", over="ignore"):
        on = _on_set(xp, log_q, log_p, mask)
        if missing:
            value, wrong = _with_bucket(xp, on), on.too_much
        else:
            drawn = _checked_sample(xp, sample, mask, on)
            value, wrong = _completed(xp, on, *drawn, _checked_control(xp, control, on))
    if check and anywhere(xp, xp.isnan(value) | wrong):
        raise ValueError(_what_is_wrong(xp, on))
    return xp.astype(value, dtype)


class _Law(NamedTuple):
    """What is computed of the two laws of a row, and 1/τ."""

    value: Callable[[Any, "_Pair"], Any]
    slopes: Callable[[Any, "_Pair"], tuple[Any, Any, Any]]
    inverse: float


class _Pair(NamedTuple):
    """Two laws in the dtype of the arithmetic, with x = log(p/q) and gap = p - q, both accurate."""

    q: Any
    p: Any
    x: Any
    gap: Any


def _pair(xp: Any, logits_q: Any, logits_p: Any, inverse: float) -> _Pair:
    """Return the laws of logits; NaN throughout where a row defines none."""
    dtype = _wide(xp, logits_q)
    a, b = (xp.astype(z, dtype, copy=False) for z in (logits_q, logits_p))
    top_a, top_b = xp.max(a, axis=-1, keepdims=True), xp.max(b, axis=-1, keepdims=True)
    q, p = xp.exp(_times(a - top_a, inverse)), xp.exp(_times(b - top_b, inverse))
    sum_q, sum_p = xp.sum(q, axis=-1, keepdims=True), xp.sum(p, axis=-1, keepdims=True)
    q, p = q * (1.0 / sum_q), p * (1.0 / sum_p)
    difference, shift = b - a, top_b - top_a  # NaN where both exclude a token: q = p = 0 there
    centred = difference - shift
    if dtype == xp.float32:  # in float64 what is lost is less than the rounding of the logits
        centred = centred + (_lost(xp, b, a, difference) - _lost(xp, top_b, top_a, shift))
    x = _times(centred, inverse) - (xp.log(sum_p) - xp.log(sum_q))
    gap = _gap(xp, q, p, x)
    # The gaps of two laws add up to zero; what they add up to is the error common to all x.
    excess = xp.sum(gap, axis=-1, keepdims=True)
    return _Pair(q, p, x - xp.log1p(excess), (gap - excess * q) * (1.0 / (1.0 + excess)))


def _times(z: Any, inverse: float) -> Any:
    return z if inverse == 1.0 else z * inverse


def _lost(xp: Any, b: Any, a: Any, difference: Any) -> Any:
    """Return what rounding took from the difference b - a, exactly (Knuth's two-sum)."""
    back = difference - b
    lost = (b - (difference - back)) - (a + back)
    return xp.where(xp.isfinite(lost), lost, 0.0)


def _gap(xp: Any, q: Any, p: Any, x: Any) -> Any:
    """Return p - q where p = q exp(x), or x is NaN."""
    near = x <= 1.0
    return xp.where(near, q * expm1(xp, xp.where(near, x, 1.0)), p - q)


def _k3_terms(xp: Any, q: Any, x: Any, gap: Any) -> Any:
    """Return q k3 for a ratio exp(x) to q, with gap = q expm1(x), which is also right at q = 0."""
    if x.dtype == xp.float64:
        # expm1 is at hand already: where x is not tiny the difference has 12 digits.
        small = xp.abs(x) < 1e-3
        near = q * x * x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120))))
    else:
        small = x <= 1.0
        near = q * expm1_minus(xp, xp.where(small, x, 1.0))
    return xp.where(q == 0.0, gap, xp.where(small, near, gap - q * x))


def _k1_terms(xp: Any, q: Any, x: Any) -> Any:
    """Return q k1 = -q x, 0 at q = 0."""
    return xp.where(q == 0.0, 0.0, -q * x)


def _kl_value(xp: Any, pair: _Pair) -> Any:
    return xp.sum(_k3_terms(xp, pair.q, pair.x, pair.gap), axis=-1)


def _kl_slopes(xp: Any, pair: _Pair) -> tuple[Any, Any, Any]:
    """Return the gradients q (k1 - K) and p - q, and where K is infinite and has none."""
    k1 = _k1_terms(xp, pair.q, pair.x)
    K = xp.sum(k1, axis=-1, keepdims=True)
    return k1 - pair.q * K, pair.gap, xp.isinf(K)


_KL = (_kl_value, _kl_slopes)


def _jensen_shannon(beta: float) -> tuple[Any, Any]:
    """Return value and gradients of the divergence with the weight β of q."""

    def ratios(xp: Any, pair: _Pair) -> tuple[Any, Any]:
        """Return log(m/q) and log(m/p), of which the smaller one in size is negative or zero."""
        right = pair.x > 0.0
        size = expm1(xp, -xp.abs(pair.x))
        low = xp.log1p(xp.where(right, beta * size, (1.0 - beta) * size))
        return xp.where(right, pair.x + low, low), xp.where(right, low, low - pair.x)

    def value(xp: Any, pair: _Pair) -> Any:
        u, v = ratios(xp, pair)
        of_q = _k3_terms(xp, pair.q, u, (1.0 - beta) * pair.gap)
        of_p = _k3_terms(xp, pair.p, v, -beta * pair.gap)
        return xp.sum(beta * of_q + (1.0 - beta) * of_p, axis=-1)

    def slopes(xp: Any, pair: _Pair) -> tuple[Any, Any, Any]:
        u, v = ratios(xp, pair)
        k1_q, k1_p = beta * _k1_terms(xp, pair.q, u), (1.0 - beta) * _k1_terms(xp, pair.p, v)
        return (
            k1_q - pair.q * xp.sum(k1_q, axis=-1, keepdims=True),
            k1_p - pair.p * xp.sum(k1_p, axis=-1, keepdims=True),
            False,
        )

    def zero(xp: Any, pair: _Pair) -> Any:
        return 0.0 * xp.sum(pair.q + pair.p, axis=-1)  # NaN where a row defines no law

    def zeros(xp: Any, pair: _Pair) -> tuple[Any, Any, Any]:
        return 0.0 * pair.q, 0.0 * pair.p, False

    return (value, slopes) if 0.0 < beta < 1.0 else (zero, zeros)


def _of_logits(
    functions: tuple[Any, Any],
    logits_q: Any,
    logits_p: Any,
    mask: Any,
    temperature: float,
    chunk: int | None,
    check: bool,
) -> Any:
    """Return a divergence of each pair of rows."""
    xp, (logits_q, logits_p) = _floating(logits_q=logits_q, logits_p=logits_p)
    _check_supported(xp, "logits_q")
    _check_shapes("logits_q", logits_q.shape, "logits_p", logits_p.shape)
    mask = _checked_mask(xp, mask, logits_q.shape[:-1])
    chunk, law = _chunk(chunk, logits_q.shape[-1]), _Law(*functions, _inverse(temperature))
    if is_torch_namespace(xp):
        value = _torch_functions().of_logits(logits_q, logits_p, law, chunk)
    elif is_jax_namespace(xp):
        value = _jax_mapped(_jax_row(law), chunk, logits_q, logits_p)
    else:
        value = _values(xp, law, chunk, logits_q, logits_p)
    if mask is not None:
        value = xp.where(mask, value, 0.0)
    if check:
        names = ("logits_q", "logits_p")
        _refuse_nan_rows(xp, value, names, lambda index: (logits_q[index], logits_p[index]))
    return value


def _pieces(shape: tuple[int, ...], chunk: int) -> Iterator[tuple[Any, ...]]:
    """Yield indices that cut an array of rows, of any strides, into blocks of at most so many."""
    if not shape:
        yield ()
        return
    inner = math.prod(shape[1:])
    if inner <= chunk:
        step = chunk // max(inner, 1)
        yield from ((slice(start, start + step),) for start in range(0, shape[0], step))
        return
    for i in range(shape[0]):
        yield from ((i, *rest) for rest in _pieces(shape[1:], chunk))


def _values(xp: Any, law: _Law, chunk: int, a: Any, b: Any) -> Any:
    """Return the divergence of each row (NumPy, PyTorch)."""
    out = xp.empty(a.shape[:-1], dtype=_result(xp, a, b), device=device(a))
    for piece in _pieces(a.shape[:-1], chunk):
        with np.errstate(invalid="ignore", over="ignore"):
            out[piece] = law.value(xp, _pair(xp, a[piece], b[piece], law.inverse))
    return out


def _gradients(
    xp: Any, law: _Law, chunk: int, a: Any, b: Any, g: Any, wanted: tuple[bool, ...]
) -> tuple[Any, ...]:
    """Return the gradients in the logits, given that in the divergences; None where not wanted."""
    out = tuple(xp.empty_like(z) if w else None for z, w in zip((a, b), wanted, strict=True))
    for piece in _pieces(a.shape[:-1], chunk):
        with np.errstate(invalid="ignore", over="ignore"):
            for z, slope in zip(
                out, _row_gradients(xp, law, a[piece], b[piece], g[piece]), strict=True
            ):
                if z is not None:
                    z[piece] = slope
    return out


def _row_gradients(xp: Any, law: _Law, a: Any, b: Any, g: Any) -> tuple[Any, ...]:
    """Return the gradients of some rows in the dtype of the arithmetic."""
    *slopes, infinite = law.slopes(xp, _pair(xp, a, b, law.inverse))
    g = xp.astype(g, slopes[0].dtype)[..., None] * law.inverse
    # A row that does not count has no gradient even where it defines no law.
    none = (g == 0.0) | infinite
    return tuple(xp.where(none, 0.0, g * slope) for slope in slopes)


@functools.cache
def _torch_functions() -> Any:
    """Return the functions that PyTorch differentiates, made when they are first asked for."""
    import array_api_compat.torch as xp
    import torch

    def refuse_second_derivative() -> None:
        if torch.is_grad_enabled():  # in the backward pass: with create_graph=True
            raise RuntimeError(
                "The gradient of a divergence of whole vocabularies is a closed form, which is not "
                "differentiated again: leave out create_graph=True."
            )

    class OfLogits(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, a: Any, b: Any, law: _Law, chunk: int) -> Any:
            ctx.save_for_backward(a, b)
            ctx.law, ctx.chunk = law, chunk
            return _values(xp, law, chunk, a, b)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            refuse_second_derivative()
            a, b = ctx.saved_tensors
            wanted = ctx.needs_input_grad[:2]
            return *_gradients(xp, ctx.law, ctx.chunk, a, b, g, wanted), None, None

    class OfHidden(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, *given: Any) -> Any:
            *arrays, law, chunk = given
            ctx.save_for_backward(*arrays)
            ctx.law, ctx.chunk = law, chunk
            return _hidden_values(xp, law, chunk, *arrays)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            refuse_second_derivative()
            wanted = ctx.needs_input_grad[:4]
            gradients = _hidden_gradients(xp, ctx.law, ctx.chunk, ctx.saved_tensors, g, wanted)
            return *gradients, None, None

    return SimpleNamespace(of_logits=OfLogits.apply, of_hidden=OfHidden.apply)


def _hidden_values(
    xp: Any, law: _Law, chunk: int, hidden_q: Any, weight_q: Any, hidden_p: Any, weight_p: Any
) -> Any:
    """Return the divergence of each row of the logits hidden @ weight.T (NumPy, PyTorch)."""
    rows = hidden_q.shape[:-1]
    out = xp.empty(rows, dtype=_result(xp, hidden_q, hidden_p), device=device(hidden_q))
    inner = min(chunk, _chunk(None, weight_q.shape[0]))
    for piece in _pieces(rows, chunk):
        with np.errstate(invalid="ignore", over="ignore"):
            a, b = hidden_q[piece] @ weight_q.T, hidden_p[piece] @ weight_p.T
        out[piece] = _values(xp, law, inner, a, b)
    return out


def _hidden_gradients(
    xp: Any, law: _Law, chunk: int, given: tuple[Any, ...], g: Any, wanted: tuple[bool, ...]
) -> list[Any]:
    """Return the gradients in hidden states and matrices, those in matrices summed in float32."""
    hidden_q, weight_q, hidden_p, weight_p = given
    dtypes = [xp.result_type(z.dtype, xp.float32) for z in given]
    out: list[Any] = [
        (xp.zeros(z.shape, dtype=dtype, device=device(z)) if i % 2 else xp.empty_like(z))
        if wanted[i]
        else None
        for i, (z, dtype) in enumerate(zip(given, dtypes, strict=True))
    ]
    inner = min(chunk, _chunk(None, weight_q.shape[0]))
    sides = (wanted[0] or wanted[1], wanted[2] or wanted[3])
    for piece in _pieces(hidden_q.shape[:-1], chunk):
        a = xp.astype(hidden_q[piece] @ weight_q.T, dtypes[0], copy=False)
        b = xp.astype(hidden_p[piece] @ weight_p.T, dtypes[2], copy=False)
        slopes = _gradients(xp, law, inner, a, b, g[piece], sides)
        for i, slope in zip((0, 2), slopes, strict=True):
            if wanted[i]:
                out[i][piece] = _product(xp, slope, given[i + 1])
            if wanted[i + 1]:
                hidden = xp.astype(given[i][piece], slope.dtype, copy=False)
                # In place: a product of its own would be another array of this size.
                out[i + 1].addmm_(
                    slope.reshape(-1, slope.shape[-1]).T, hidden.reshape(-1, hidden.shape[-1])
                )
    return [
        z if z is None else xp.astype(z, x.dtype, copy=False)
        for z, x in zip(out, given, strict=True)
    ]


def _product(xp: Any, slope: Any, weight: Any) -> Any:
    """Return slope @ weight in the dtype of the slope, with no larger piece of weight widened."""
    tokens, width = weight.shape
    step = max(1, math.prod(slope.shape) // max(1, width))
    total = 0.0
    for start in range(0, tokens, step):
        part = slice(start, start + step)
        total = total + slope[..., part] @ xp.astype(weight[part], slope.dtype, copy=False)
    return total


def _jax_row(law: _Law) -> Any:
    """Return the divergence of two rows of logits as a function that JAX differentiates."""
    import jax
    import jax.numpy as xp

    @jax.custom_vjp  # type: ignore[untyped-decorator]
    def row(a: Any, b: Any) -> Any:
        value = law.value(xp, _pair(xp, a, b, law.inverse))
        return xp.astype(value, _result(xp, a, b))

    def forward(a: Any, b: Any) -> Any:
        return row(a, b), (a, b)

    def backward(given: Any, g: Any) -> Any:
        slopes = _row_gradients(xp, law, given[0], given[1], g)
        return tuple(xp.astype(s, z.dtype) for s, z in zip(slopes, given, strict=True))

    row.defvjp(forward, backward)
    return row


def _jax_mapped(row: Any, chunk: int, *arrays: Any) -> Any:
    """Return row of the last axes of the arrays, so many at a time."""
    import jax

    shape = arrays[0].shape[:-1]
    if math.prod(shape) == 0:
        return jax.numpy.zeros(shape, _result(jax.numpy, *arrays))
    flat = tuple(z.reshape(-1, z.shape[-1]) for z in arrays)
    return jax.lax.map(lambda rows: row(*rows), flat, batch_size=chunk).reshape(shape)


def _jax_of_hidden(law: _Law, chunk: int, h_q: Any, weight_q: Any, h_p: Any, weight_p: Any) -> Any:
    """Return the same as `_hidden_values` as JAX differentiates it: logits are computed again."""
    import jax

    row = _jax_row(law)
    of_one = jax.checkpoint(lambda h_q, h_p: row(weight_q @ h_q, weight_p @ h_p))
    return _jax_mapped(of_one, chunk, h_q, h_p)


class _OnSet(NamedTuple):
    """The two laws on a set of tokens: the arguments of `topk_kl`, and what follows from them."""

    log_q: Any
    log_p: Any
    q: Any
    p: Any
    x: Any
    gap: Any
    mass_q: Any
    mass_p: Any
    unit: float  # rounding of the log-probabilities that were given

    @property
    def too_much(self) -> Any:
        """Where the probabilities add up to more than 1, whatever the rounding."""
        most = 1.0 + math.sqrt(self.unit)
        return (self.mass_q > most) | (self.mass_p > most)

    def terms(self, xp: Any) -> Any:
        """Return Σ q k3 over the set."""
        return xp.sum(_k3_terms(xp, self.q, self.x, self.gap), axis=-1)


def _on_set(xp: Any, log_q: Any, log_p: Any, mask: Any) -> _OnSet:
    """Return the two laws on the set, in the dtype of the arithmetic."""
    dtype = _wide(xp, log_q)
    unit = max(float(xp.finfo(z.dtype).eps) for z in (log_q, log_p))
    if mask is not None:  # before any arithmetic, as in kl_loss
        log_q, log_p = (xp.where(mask[..., None], z, -math.inf) for z in (log_q, log_p))
    log_q, log_p = xp.astype(log_q, dtype), xp.astype(log_p, dtype)
    a, b = stop_gradient(log_q), stop_gradient(log_p)
    x = xp.where((a == -math.inf) & (b == -math.inf), 0.0, b - a)
    q, p = xp.exp(a), xp.exp(b)
    gap = _gap(xp, q, p, x)
    mass_q, mass_p = xp.sum(q, axis=-1), xp.sum(p, axis=-1)
    return _OnSet(log_q, log_p, q, p, x, gap, mass_q, mass_p, unit)


def _with_bucket(xp: Any, on: _OnSet) -> Any:
    """Return the divergence with the rest as one token, and its gradient."""
    # What is left is 1 minus a sum, known to a few roundings; so much more on both sides, which
    # brings the two closer, keeps the bound.
    left_q, left_p = (
        xp.where(mass < 1.0, 1.0 - mass, 0.0) + 8.0 * on.unit for mass in (on.mass_q, on.mass_p)
    )
    x = xp.log(left_p) - xp.log(left_q)
    value = on.terms(xp) + _k3_terms(xp, left_q, x, left_p - left_q)
    return _differentiable(
        xp,
        value,
        (on.log_q, _k1_terms(xp, on.q, on.x) + on.q * x[..., None]),
        (on.log_p, on.gap + on.p * expm1(xp, -x)[..., None]),
    )


def _completed(
    xp: Any, on: _OnSet, log_q_x: Any, log_p_x: Any, outside: Any, control: Any
) -> tuple[Any, Any]:
    """Return the unbiased estimate with its gradient, and where x cannot have been drawn."""
    a, b = stop_gradient(log_q_x), stop_gradient(log_p_x)
    x, terms, left = b - a, on.terms(xp), 1.0 - on.mass_q
    k3 = xp.where(outside, expm1_minus(xp, xp.asarray(x)), 0.0)
    if control is None:
        some = on.mass_q > 0.0
        within = terms / xp.where(some, on.mass_q, 1.0)
        value = xp.where(outside, k3 + xp.where(some, 0.0, terms), within)
    else:
        value = terms + k3 - control * (xp.astype(outside, k3.dtype) - left)
    wrong = on.too_much | outside & ((a == -math.inf) | (xp.exp(a) > left + math.sqrt(on.unit)))
    value = _differentiable(
        xp,
        value,
        (on.log_q, _k1_terms(xp, on.q, on.x)),
        (on.log_p, on.gap),
        (log_q_x[..., None], xp.where(outside, -x, 0.0)[..., None]),
        (log_p_x[..., None], xp.where(outside, expm1(xp, x), 0.0)[..., None]),
    )
    return value, wrong


def _differentiable(xp: Any, value: Any, *terms: tuple[Any, Any]) -> Any:
    """Return the value with the gradient Σ slope of each (log-probabilities, slope)."""
    total = value
    for log, slope in terms:
        # Nothing depends on how an excluded token is excluded, or diverges at infinity.
        some = (log > -math.inf) & xp.isfinite(slope)
        log = xp.where(some, log, 0.0)
        zero = log - stop_gradient(log)
        total = total + xp.sum(zero * xp.where(some, slope, 0.0), axis=-1)
    return total


def _checked_sample(xp: Any, sample: dict[str, Any], mask: Any, on: _OnSet) -> tuple[Any, Any, Any]:
    """Return log-probabilities of x, 0 where they are not read, and whether x is outside."""
    shape, outside = on.mass_q.shape, sample["outside"]
    _check_boolean(xp, "outside", outside, shape)
    if mask is not None:
        outside = outside & mask
    logs = []
    for name in ("log_q_x", "log_p_x"):
        log = _floating(log_q=on.log_q, **{name: sample[name]})[1][1]
        if log.shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(log.shape)}; it must be {tuple(shape)}, one sampled "
                "token for each law."
            )
        logs.append(xp.where(outside, xp.astype(log, on.q.dtype), 0.0))
    return logs[0], logs[1], outside


def _checked_control(xp: Any, control: Any, on: _OnSet) -> Any:
    """Return the control, one number or one for each law, not differentiated."""
    if control is None or isinstance(control, int | float):
        return control
    control = _floating(log_q=on.log_q, control=control)[1][1]
    if control.shape not in ((), on.mass_q.shape):
        raise ValueError(
            f"control has shape {tuple(control.shape)}; it must be a number or "
            f"{tuple(on.mass_q.shape)}, one for each law."
        )
    return stop_gradient(control)


def _what_is_wrong(xp: Any, on: _OnSet) -> str:
    """Return the message of the error about values of `topk_kl`."""
    for name, log in (("log_q", on.log_q), ("log_p", on.log_p)):
        if anywhere(xp, xp.isnan(log)):
            return f"{name} holds NaN; mask such laws, or find where it comes from."
    if anywhere(xp, on.too_much):
        return (
            "The probabilities of a row of log_q or log_p add up to more than 1. Pass "
            "log-probabilities of different tokens under the whole law, not logits."
        )
    return (
        "log_q_x, log_p_x or control is NaN, or x is said to be outside the set with a "
        "probability that is not left there: check outside, and that q drew x."
    )


def _floating(**arrays: Any) -> tuple[Any, list[Any]]:
    """Return namespace and arrays, all floating-point and of one kind."""
    checked = [(name, *as_floating(name, value)) for name, value in arrays.items()]
    first, xp, _ = checked[0]
    for name, other, _ in checked:
        if other is not xp:
            raise TypeError(
                f"{first} is an array of {xp.__name__} and {name} of {other.__name__}; "
                "convert one of them so that both are of one kind."
            )
    return xp, [value for _, _, value in checked]


def _check_supported(xp: Any, name: str) -> None:
    if not (is_numpy_namespace(xp) or is_torch_namespace(xp) or is_jax_namespace(xp)):
        raise TypeError(
            f"{name} is an array of {xp.__name__}; whole vocabularies are worked on in NumPy, "
            "PyTorch and JAX: convert it, or call this on its blocks."
        )


def _check_shapes(name_q: str, shape_q: Any, name_p: str, shape_p: Any) -> None:
    """Refuse shapes of logits that differ; the last axis of both is the vocabulary."""
    shape_q, shape_p = tuple(shape_q), tuple(shape_p)
    if shape_q and shape_p and shape_q[-1] != shape_p[-1]:
        fewer = min(shape_q[-1], shape_p[-1])
        raise ValueError(
            f"{name_q} has {shape_q[-1]} tokens and {name_p} {shape_p[-1]}. Rows that pad an "
            "output matrix are no tokens, and mass on them is no divergence: cut both to the "
            f"tokens of the tokenizer, for example the first {fewer}, before the call."
        )
    if shape_q != shape_p:
        raise ValueError(
            f"The laws of {name_q} have the shape {shape_q} and those of {name_p} {shape_p}; both "
            "must be about the same positions."
        )
    if not shape_q or shape_q[-1] == 0:
        raise ValueError(f"{name_q} has the shape {shape_q}, without a token; see its last axis.")


def _check_hidden(side: str, hidden: Any, weight: Any) -> None:
    if weight.ndim != 2 or hidden.ndim == 0 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"hidden_{side} has shape {tuple(hidden.shape)} and weight_{side} "
            f"{tuple(weight.shape)}; they must be (..., d) and (V, d)."
        )
    if hidden.dtype != weight.dtype:
        raise TypeError(
            f"hidden_{side} has dtype {hidden.dtype} and weight_{side} {weight.dtype}; convert one."
        )


def _checked_mask(xp: Any, mask: Any, shape: tuple[int, ...]) -> Any:
    """Return the mask, or None for all True."""
    if mask is not None:
        _check_boolean(xp, "mask", mask, shape)
    return mask


def _check_boolean(xp: Any, name: str, value: Any, shape: tuple[int, ...]) -> None:
    try:
        same = array_namespace(value) is xp
    except TypeError:
        same = False
    if not same or value.dtype != xp.bool:
        raise TypeError(
            f"{name} is a {type(value).__name__} of dtype {getattr(value, 'dtype', None)}; it must "
            f"be a Boolean array of {xp.__name__}, for example {name} != 0."
        )
    if tuple(value.shape) != tuple(shape):
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}; it must be {tuple(shape)}, one for each law."
        )


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
        raise TypeError(f"{name} is {value!r}; it must be a number.")
    return float(value)


def _inverse(temperature: Any) -> float:
    """Return 1/τ."""
    if not 0.0 < _number("temperature", temperature) < math.inf:
        raise ValueError(f"temperature is {temperature}; it must be positive and finite.")
    return 1.0 / float(temperature)


def _chunk(chunk: Any, tokens: int) -> int:
    """Return how many laws to work on at a time."""
    if chunk is None:
        return max(1, _BLOCK // tokens)
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ValueError(f"chunk is {chunk!r}; it is a number of laws, 1 or more.")
    return chunk


def _wide(xp: Any, z: Any) -> Any:
    """Return the dtype of the arithmetic: float64 where library and device have it."""
    if is_torch_namespace(xp) and z.device.type == "mps":
        return xp.float32
    return xp.result_type(xp.float64)  # as a result type, float32 where JAX has switched it off


def _result(xp: Any, *arrays: Any) -> Any:
    return xp.result_type(xp.float32, *(z.dtype for z in arrays))


def _refuse_nan_rows(xp: Any, value: Any, names: tuple[str, str], row: Any) -> None:
    """Raise ValueError if a divergence is seen to be NaN; row gives the logits at an index."""
    if not anywhere(xp, xp.isnan(value)):
        return
    index = tuple(int(i[0]) for i in xp.nonzero(xp.isnan(value))) if value.ndim else ()
    with np.errstate(invalid="ignore", over="ignore"):
        of_q = float(xp.max(row(index)[0]))
    name = names[1] if math.isfinite(of_q) else names[0]
    raise ValueError(
        f"{name} defines no law at {index}: it holds NaN or +inf there, or excludes every token. "
        "Mask such positions."
    )
