"""Divergences of whole vocabularies in every library: values, gradients, memory, devices."""

import math

import jax
import numpy as np
import pytest
import torch
from libraries import DASK, JAX, NUMPY, TORCH
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from klapprox import vocabulary
from klapprox.vocabulary import exact_kl, exact_kl_from_hidden, jsd, topk_kl

INF = math.inf
FUNCTIONS = {
    "exact_kl": exact_kl,
    "jsd": lambda q, p, **options: jsd(q, p, 0.3, **options),
    "jsd at 0": lambda q, p, **options: jsd(q, p, 0, **options),
}
by_function = pytest.mark.parametrize("name", FUNCTIONS)


def normal(seed, *shape):
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)


def gradients_of_kl(logits_q, logits_p):
    """Return q (k1 - K) and p - q from the definitions."""
    log_q, log_p = (
        z - np.logaddexp.reduce(z, axis=-1, keepdims=True) for z in (logits_q, logits_p)
    )
    q, k1 = np.exp(log_q), log_q - log_p
    return q * (k1 - np.sum(q * k1, axis=-1, keepdims=True)), np.exp(log_p) - q


def gradients_of_jsd(logits_q, logits_p):
    log_q, log_p = (
        z - np.logaddexp.reduce(z, axis=-1, keepdims=True) for z in (logits_q, logits_p)
    )
    q, p = np.exp(log_q), np.exp(log_p)
    log_m = np.log(0.3 * q + 0.7 * p)
    slopes = 0.3 * q * (log_q - log_m), 0.7 * p * (log_p - log_m)
    return tuple(s - law * s.sum(-1, keepdims=True) for s, law in zip(slopes, (q, p), strict=True))


GRADIENTS = {
    "exact_kl": gradients_of_kl,
    "jsd": gradients_of_jsd,
    "jsd at 0": lambda q, p: (0 * q, 0 * p),
}


@pytest.fixture(params=[NUMPY, TORCH, JAX], ids=lambda library: library.name)
def supported(request):
    with jax.enable_x64(True):
        yield request.param


def tolerance(dtype):
    return {"float64": 1e-13, "float32": 2e-7, "float16": 1e-3, "bfloat16": 1e-2}[dtype]


@by_function
@pytest.mark.parametrize(
    ("dtype", "chunk"), [("float64", 2), ("float32", 5), ("float16", 1), ("bfloat16", 100)]
)
def test_gradients_are_the_closed_forms(differentiating, name, chunk, dtype):
    library = differentiating
    arrays = [library.array(2 * normal(seed, 2, 3, 9), dtype) for seed in range(2)]
    values = [library.numpy(z).astype(float) for z in arrays]
    g = normal(2, 2, 3)
    wanted = GRADIENTS[name](*(z / 1.5 for z in values))

    def loss(*logits):
        value = FUNCTIONS[name](*logits, temperature=1.5, chunk=chunk)
        return library.xp.sum(value * library.array(g))

    for i in range(2):
        others = list(arrays)

        def of_one(z, i=i, others=others):
            others[i] = z
            return loss(*others)

        found = library.gradient(of_one, values[i], dtype)
        atol = tolerance(dtype) * np.abs(wanted[i]).max(initial=1e-3)
        np.testing.assert_allclose(
            found, wanted[i] * g[..., None] / 1.5, rtol=tolerance(dtype), atol=atol
        )


@by_function
def test_torchs_own_check_of_gradients(name):
    logits = [torch.tensor(normal(seed, 2, 3, 5), requires_grad=True) for seed in range(2)]
    assert gradcheck(lambda q, p: FUNCTIONS[name](q, p, chunk=2, temperature=0.7), logits)
    hidden = [torch.tensor(normal(seed, 2, 3, 4), requires_grad=True) for seed in range(2)]
    weights = [torch.tensor(normal(seed, 6, 4), requires_grad=True) for seed in range(2, 4)]
    arguments = hidden[0], weights[0], hidden[1], weights[1]
    assert gradcheck(lambda *z: exact_kl_from_hidden(*z, chunk=2, temperature=0.7), arguments)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@by_function
def test_values_are_those_of_numpy(supported, name, dtype):
    if dtype == "bfloat16" and supported is NUMPY:
        pytest.skip("NumPy has no bfloat16")
    arrays = [supported.array(2 * normal(seed, 4, 9), dtype) for seed in range(2)]
    found = FUNCTIONS[name](*arrays, chunk=3)
    assert str(found.dtype).endswith("float64" if dtype == "float64" else "float32")
    wanted = FUNCTIONS[name](*(supported.numpy(z).astype(float) for z in arrays))
    rtol = 1e-13 if dtype == "float64" else 1e-7
    np.testing.assert_allclose(supported.numpy(found), wanted, rtol=rtol, atol=0)


def test_half_precision_of_one_side_meets_float32_of_the_other():
    q, p = torch.tensor(normal(0, 2, 5)).bfloat16(), torch.tensor(normal(1, 2, 5)).float()
    q.requires_grad_()
    value = exact_kl(q, p)
    value.sum().backward()
    assert (value.dtype, q.grad.dtype) == (torch.float32, torch.bfloat16)
    np.testing.assert_allclose(value.detach(), exact_kl(q.detach().double(), p.double()), rtol=1e-7)


CASES = [
    ([0.0, 1.0, -INF, -INF], [0.0, 1.0, 2.0, -INF], False),
    ([0.0, 1.0, 2.0, -INF], [0.0, 1.0, -INF, -INF], True),
    ([0.0, -INF, -INF, 0.0], [-INF, 0.0, 0.0, -INF], True),
]


@pytest.mark.parametrize(("logits_q", "logits_p", "infinite"), CASES)
def test_excluded_tokens_and_infinite_rows_leave_gradients_finite(
    differentiating, logits_q, logits_p, infinite
):
    library = differentiating
    q, p = library.array(logits_q), library.array(logits_p)
    assert bool(exact_kl(q, p) == INF) == infinite
    found = (
        library.gradient(lambda z: exact_kl(z, p), logits_q),
        library.gradient(lambda z: exact_kl(q, z), logits_p),
    )
    if infinite:
        wanted = np.zeros((2, 4))
    else:
        law_q, law_p = (
            np.exp(logits_q) / np.exp(logits_q).sum(),
            np.exp(logits_p) / np.exp(logits_p).sum(),
        )
        # k1 is one constant on what q does not exclude.
        wanted = [np.zeros(4), law_p - law_q]
    np.testing.assert_allclose(found, wanted, atol=1e-15)
    of_jsd = library.gradient(lambda z: jsd(z, p, 0.3), logits_q)
    assert np.all(np.isfinite(of_jsd))


@by_function
@pytest.mark.parametrize("junk", [np.nan, -INF])
def test_masked_junk_leaks_into_no_gradient(differentiating, name, junk):
    library = differentiating
    logits_q, logits_p = normal(0, 4, 6), normal(1, 4, 6)
    kept = np.array([True, False, False, True])
    mask = library.array(kept, "bool")

    def found(filling):
        a, b = logits_q.copy(), logits_p.copy()
        a[1:3], b[1:3] = filling, filling
        other = library.array(b)
        return library.gradient(
            lambda z: library.xp.sum(FUNCTIONS[name](z, other, mask=mask, chunk=3)), a
        )

    spoilt = found(junk)
    assert np.all(spoilt[~kept] == 0)
    np.testing.assert_array_equal(spoilt, found(0.5))
    assert np.any(spoilt[kept] != 0) or name == "jsd at 0"


def test_only_what_is_trained_has_a_gradient():
    arrays = [torch.tensor(normal(seed, 3, 5)) for seed in range(4)]
    for i in range(2):
        q, p = (z.clone().requires_grad_(j == i) for j, z in enumerate(arrays[:2]))
        exact_kl(q, p).sum().backward()
        assert [q.grad is not None, p.grad is not None] == [i == 0, i == 1]
    for i in range(4):
        given = [z.clone().requires_grad_(j == i) for j, z in enumerate(arrays)]
        exact_kl_from_hidden(*given).sum().backward()
        assert [z.grad is not None for z in given] == [j == i for j in range(4)]


def test_a_second_derivative_is_refused():
    q, p = (torch.tensor(normal(seed, 3, 5), requires_grad=True) for seed in range(2))
    for value in (exact_kl(q, p), exact_kl_from_hidden(q, q, p, p)):
        with pytest.raises(RuntimeError, match=r"leave out create_graph=True"):
            torch.autograd.grad(value.sum(), q, create_graph=True)


HIDDEN = [normal(0, 2, 5, 4), normal(1, 9, 4), normal(2, 2, 5, 3), normal(3, 9, 3)]


@pytest.mark.parametrize(
    ("dtype", "chunk"), [("float64", 3), ("float64", 1), ("float32", 64), ("bfloat16", 100)]
)
def test_from_hidden_states_value_and_gradients_are_those_of_the_logits(
    differentiating, dtype, chunk
):
    library = differentiating
    given = [library.numpy(library.array(z, dtype)).astype(float) for z in HIDDEN]
    g = library.array(normal(4, 2, 5))

    def in_full(h_q, w_q, h_p, w_p):
        return library.xp.sum(exact_kl(h_q @ w_q.T, h_p @ w_p.T) * g)

    def in_parts(*arrays):
        return library.xp.sum(exact_kl_from_hidden(*arrays, chunk=chunk) * g)

    unit = {"float64": 1e-13, "float32": 2e-6, "bfloat16": 0.06}[dtype]
    for i in range(4):
        found, wanted = (
            library.gradient(
                lambda z, i=i, f=f, d=d: f(
                    *(z if j == i else library.array(x, d) for j, x in enumerate(given))
                ),
                given[i],
                d,
            )
            for f, d in ((in_parts, dtype), (in_full, "float64"))
        )
        assert np.linalg.norm(found - wanted) <= unit * np.linalg.norm(wanted)


def test_the_gradient_of_a_half_precision_matrix_is_summed_in_float32():
    count, tokens, width = 600, 5, 3
    hidden = torch.ones(count, width, dtype=torch.bfloat16)
    weight = torch.tensor(normal(0, tokens, width)).bfloat16().requires_grad_()
    other = torch.zeros(tokens, width, dtype=torch.bfloat16)
    exact_kl_from_hidden(hidden, weight, hidden, other, chunk=1).sum().backward()
    # All laws are alike; summed in bfloat16 the sum would stop at 256 terms.
    logits = (hidden[:1] @ weight.detach().T).double().numpy()
    slope, _ = gradients_of_kl(logits, np.zeros((1, tokens)))
    wanted = count * slope[0][:, None] * np.ones(width)
    np.testing.assert_allclose(weight.grad.double(), wanted, rtol=2**-8)


class Largest(TorchDispatchMode):
    """Note sizes and dtypes of the tensors that operations make."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        known = {
            z.untyped_storage().data_ptr()
            for z in tree_leaves((args, kwargs))
            if isinstance(z, torch.Tensor)
        }
        for z in tree_leaves(out):
            # Views and what is changed in place are not new.
            if isinstance(z, torch.Tensor) and z.untyped_storage().data_ptr() not in known:
                self.made.append((z.untyped_storage().nbytes(), z.numel(), z.dtype))
        return out

    def above(self, numbers):
        return sorted(count for _, count, _ in self.made if count > numbers)


@by_function
@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_no_tensor_but_gradients_is_larger_than_a_chunk(name, chunk):
    # What a trainer has: the shifted logits, which are not contiguous.
    whole = [torch.tensor(normal(seed, 3, 9, 50), requires_grad=True) for seed in range(2)]
    logits = [z[:, :-1] for z in whole]
    with Largest() as seen:
        value = FUNCTIONS[name](*logits, chunk=chunk)
        gradients = torch.autograd.grad(value.sum(), logits)
    assert len(seen.made) > 20
    assert seen.above(chunk * 50) == [z.numel() for z in gradients]


def test_a_larger_tensor_would_be_seen():
    logits = [torch.tensor(normal(seed, 3, 8, 50), requires_grad=True) for seed in range(2)]
    with Largest() as seen:
        log_q, log_p = (torch.log_softmax(z, dim=-1) for z in logits)
        torch.autograd.grad(torch.sum(log_q.exp() * (log_q - log_p)), logits)
    assert len(seen.above(8 * 50)) > 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_from_hidden_states_no_tensor_but_gradients_is_larger_than_a_chunk(dtype):
    tokens, width, chunk = 64, 16, 4
    shapes = [(3, 9, width), (tokens, width)] * 2
    given = [torch.tensor(normal(i, *s)).to(dtype).requires_grad_() for i, s in enumerate(shapes)]
    with Largest() as seen:
        value = exact_kl_from_hidden(*given, chunk=chunk)
        torch.autograd.grad(value.sum(), given)
    hidden, weight = 3 * 9 * width, tokens * width
    wanted = [hidden, hidden, weight, weight]
    if dtype == torch.bfloat16:  # summed in float32 first
        wanted += [weight, weight]
    assert seen.above(chunk * tokens) == sorted(wanted)


@pytest.mark.parametrize("check", [True, False])
def test_one_number_is_read_back_or_none(check):
    logits = [torch.tensor(normal(seed, 6, 5), requires_grad=True) for seed in range(2)]
    mask = torch.tensor([True] * 5 + [False])
    read = []

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.name() in ("aten::_local_scalar_dense", "aten::nonzero"):
                read.append(function.name())
            return function(*args, **(kwargs or {}))

    on_set = [torch.log_softmax(z.detach(), dim=-1) for z in logits]
    sample = {"log_q_x": on_set[0][:, 3], "log_p_x": on_set[1][:, 3], "outside": mask}
    for function in (
        lambda: exact_kl(*logits, mask=mask, chunk=2, check=check),
        lambda: jsd(*logits, 0.3, mask=mask, chunk=2, check=check),
        lambda: exact_kl_from_hidden(logits[0], logits[0], logits[1], logits[1], check=check),
        lambda: topk_kl(on_set[0][:, :3], on_set[1][:, :3], mask=mask, check=check),
        lambda: topk_kl(on_set[0][:, :3], on_set[1][:, :3], **sample, check=check),
    ):
        read.clear()
        with Reads():
            value = function()
            if value.requires_grad:
                value.sum().backward()
        assert len(read) == check


def test_on_a_device_without_float64_none_is_made_and_digits_stay(monkeypatch):
    monkeypatch.setattr(vocabulary, "_wide", lambda xp, z: xp.float32)
    for spread in (5e-5, 1.0):
        q = torch.tensor(2 * normal(0, 3, 20_000)).float()
        p = (q + spread * torch.tensor(normal(1, 3, 20_000)).float() + 7.3).requires_grad_()
        q.requires_grad_()
        with Largest() as seen:
            values = [exact_kl(q, p), jsd(q, p, 0.5)]
            gradients = torch.autograd.grad(values[0].sum(), (q, p))
        assert torch.float64 not in {dtype for _, _, dtype in seen.made}
        monkeypatch.undo()
        a, b = q.detach().double(), p.detach().double()
        np.testing.assert_allclose(values[0].detach(), exact_kl(a, b), rtol=2e-6)
        np.testing.assert_allclose(values[1].detach(), jsd(a, b, 0.5), rtol=2e-6)
        wanted = gradients_of_kl(a.numpy(), b.numpy())
        for found, exact in zip(gradients, wanted, strict=True):
            assert np.linalg.norm(found.numpy() - exact) <= 1e-5 * np.linalg.norm(exact)
        monkeypatch.setattr(vocabulary, "_wide", lambda xp, z: xp.float32)


def test_the_dtype_of_the_arithmetic_is_float64_where_the_device_has_it():
    class Tensor:
        device = torch.device("mps")

    assert vocabulary._wide(TORCH.xp, Tensor()) == torch.float32
    assert vocabulary._wide(TORCH.xp, torch.zeros(1)) == torch.float64
    with jax.enable_x64(False):
        assert vocabulary._wide(JAX.xp, JAX.xp.zeros(1)) == np.float32


@by_function
def test_jax_without_float64_keeps_the_digits(name):
    for spread in (5e-5, 1e-2, 3.0):
        q = 2 * normal(0, 2, 20_000).astype(np.float32)
        p = (q + spread * normal(1, 2, 20_000) + 7.3).astype(np.float32)
        wanted = FUNCTIONS[name](q.astype(float), p.astype(float))
        with jax.enable_x64(False):
            a, b = JAX.xp.asarray(q), JAX.xp.asarray(p)
            found = jax.jit(lambda a, b: FUNCTIONS[name](a, b, chunk=2))(a, b)
        np.testing.assert_allclose(found, wanted, rtol=2e-6)


def test_jax_compiles_maps_and_holds_a_chunk_at_a_time():
    q, p = (JAX.xp.asarray(normal(seed, 64, 1000), dtype="float32") for seed in range(2))

    def loss(q, p, chunk):
        return exact_kl(q, p, chunk=chunk).sum()

    value, slopes = jax.value_and_grad(loss, argnums=(0, 1))(q, p, 7)
    for chunk in (1, 7, 64):
        compiled = jax.jit(jax.value_and_grad(lambda q, p, c=chunk: loss(q, p, c), argnums=(0, 1)))
        again, others = compiled(q, p)
        assert again == pytest.approx(float(value), rel=1e-6)
        np.testing.assert_allclose(others, slopes, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(jax.vmap(exact_kl)(q, p), exact_kl(q, p), rtol=1e-6)
    nothing = exact_kl(q[:0], p[:0])
    assert nothing.shape == (0,)
    assert jax.grad(loss)(q[:0], p[:0], 3).shape == (0, 1000)


def test_what_a_tracer_hides_comes_out_as_nan():
    bad = JAX.xp.asarray([[0.0, np.nan]])
    assert np.isnan(jax.jit(exact_kl)(bad, bad)).all()


def test_an_empty_batch_has_empty_gradients():
    logits = [torch.zeros(2, 0, 5, requires_grad=True) for _ in range(2)]
    exact_kl(*logits).sum().backward()
    assert logits[0].grad.shape == logits[1].grad.shape == (2, 0, 5)


def test_other_libraries_and_mixtures_are_refused():
    lazy = DASK.array(normal(0, 2, 3))
    with pytest.raises(TypeError, match=r"^logits_q is an array of .*dask.array; .* its blocks"):
        exact_kl(lazy, lazy)
    with pytest.raises(TypeError, match=r"^hidden_q is an array of .*dask.array"):
        exact_kl_from_hidden(lazy, lazy, lazy, lazy)
    with pytest.raises(
        TypeError, match=r"^logits_q is an array of .*torch and logits_p of .*numpy"
    ):
        exact_kl(torch.zeros(2, 3), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"^logits_p defines no law at \(1,\)"):
        exact_kl(torch.zeros(2, 3), torch.tensor([[0.0, 0, 0], [0, np.nan, 0]]))


LOGITS = [2 * normal(seed, 3, 6) for seed in range(2)]


@pytest.mark.parametrize("side", [0, 1])
def test_the_bucket_is_differentiated_as_it_is(differentiating, side):
    library, xp = differentiating, differentiating.xp

    def log_softmax(z):
        return z - xp.log(xp.sum(xp.exp(z), axis=-1, keepdims=True))

    def on_set(*logits):
        return xp.sum(topk_kl(*(log_softmax(z)[:, :2] for z in logits)))

    def merged(*logits):
        q, p = (xp.exp(log_softmax(z)) for z in logits)
        rest_q, rest_p = xp.sum(q[:, 2:], axis=-1), xp.sum(p[:, 2:], axis=-1)
        return xp.sum(q[:, :2] * xp.log(q[:, :2] / p[:, :2])) + xp.sum(
            rest_q * xp.log(rest_q / rest_p)
        )

    found, wanted = (
        library.gradient(
            lambda z, f=f: f(*(z if i == side else library.array(x) for i, x in enumerate(LOGITS))),
            LOGITS[side],
        )
        for f in (on_set, merged)
    )
    np.testing.assert_allclose(found, wanted, atol=1e-12)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(("k", "control"), [(0, None), (2, None), (2, 0.4), (6, 0.4)])
def test_the_completion_has_the_mean_gradient_of_the_divergence(differentiating, side, control, k):
    library, xp = differentiating, differentiating.xp
    q = np.exp(LOGITS[0]) / np.exp(LOGITS[0]).sum(axis=-1, keepdims=True)

    def mean(*logits):
        log_q, log_p = (z - xp.log(xp.sum(xp.exp(z), axis=-1, keepdims=True)) for z in logits)
        total = 0.0
        for x in range(6):
            outside = library.array(np.full(3, x >= k), "bool")
            value = topk_kl(
                log_q[:, :k],
                log_p[:, :k],
                log_q_x=log_q[:, x],
                log_p_x=log_p[:, x],
                outside=outside,
                control=control,
            )
            total = total + xp.sum(library.array(q[:, x]) * value)  # the sampler is fixed
        return total

    found = library.gradient(
        lambda z: mean(*(z if i == side else library.array(x) for i, x in enumerate(LOGITS))),
        LOGITS[side],
    )
    np.testing.assert_allclose(found, gradients_of_kl(*LOGITS)[side], atol=1e-12)


def test_excluded_tokens_of_a_set_leave_its_gradient_finite(differentiating):
    library = differentiating
    log_q, log_p = [np.log(0.5), -INF, -INF], [np.log(0.25), np.log(0.25), -INF]
    p = library.array(log_p)
    found = library.gradient(lambda z: topk_kl(z, p), log_q)
    np.testing.assert_allclose(found[1:], 0)
    assert np.isfinite(found[0])
    # p excludes what q does not: infinite, and that token has no gradient.
    assert np.isfinite(library.gradient(lambda z: topk_kl(p, z), log_q)).all()
    assert float(library.numpy(topk_kl(p, library.array(log_q)))) == INF


def test_jax_compiles_the_others_too():
    hidden = [JAX.xp.asarray(z, dtype="float32") for z in HIDDEN]
    found = jax.jit(lambda *z: exact_kl_from_hidden(*z, chunk=3))(*hidden)
    np.testing.assert_allclose(found, exact_kl_from_hidden(*hidden), rtol=1e-5)
    logs = [jax.nn.log_softmax(JAX.xp.asarray(z, dtype="float32"))[:, :3] for z in LOGITS]
    np.testing.assert_allclose(jax.jit(topk_kl)(*logs), topk_kl(*logs), rtol=1e-5)
