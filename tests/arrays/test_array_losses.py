"""Gradients of the KL loss against the differentiated sum over all sequences, exactly."""

import dask
import jax
import numpy as np
import pytest
import torch
from libraries import DASK, JAX, TORCH, Recorded, compiling, tracing
from sequence_tree import END, LENGTH, TOKENS, gather, log_softmax, logits, sequences

import klapprox as kl
from klapprox import _torch

TOKEN_TABLE, MASK = sequences()
BEFORE = np.concatenate([np.zeros((len(MASK), 1), dtype=int), TOKEN_TABLE[:, :-1]], axis=1)
Z, REF_TABLE, OLD_TABLE = logits(0), log_softmax(logits(1)), log_softmax(logits(2))
REF, OLD = gather(REF_TABLE, TOKEN_TABLE), gather(OLD_TABLE, TOKEN_TABLE)

with_sampler = pytest.mark.parametrize("off_policy", [False, True], ids=["on-policy", "off-policy"])


def total(values):
    return np.sum(np.where(MASK, values, 0), axis=-1)


class Tree:
    """All sequences, in one library: log-probabilities that can be differentiated in the logits."""

    def __init__(self, library):
        self.library, self.xp = library, library.xp
        self.mask = library.array(MASK, "bool")
        self.ref, self.old = library.array(REF), library.array(OLD)
        self.ref_table = library.array(REF_TABLE)

    def table(self, z):
        """Return log π(token | position, last token)."""
        return z - self.xp.log(self.xp.sum(self.xp.exp(z), axis=-1, keepdims=True))

    def log_pi(self, z):
        return gather(self.table(z), TOKEN_TABLE)

    def total(self, values):
        zero = self.xp.zeros_like(values)
        return self.xp.sum(self.xp.where(self.mask, values, zero), axis=-1)

    def mean(self, log_law, values):
        return self.xp.sum(self.xp.exp(self.total(log_law)) * values)

    def gradient(self, function):
        return self.library.gradient(function, Z)

    def sampler(self, z, off_policy):
        """Return the law that the sequences are drawn from; it is never differentiated."""
        return self.old if off_policy else self.library.fixed(self.log_pi(z))

    def sequence_kl(self, z):
        log_pi = self.log_pi(z)
        return self.mean(log_pi, self.total(log_pi - self.ref))

    def step_kl(self, z):
        """Return K(position, last token), the exact divergence of the next token."""
        log_pi = self.table(z)
        return self.xp.sum(self.xp.exp(log_pi) * (log_pi - self.ref_table), axis=-1)

    def loss(self, z, level, off_policy):
        """Return the exact mean of the loss; differentiating it gives the mean gradient."""
        # Behind the end the arrays hold NaN, as nothing must depend on them.
        nan = self.xp.full_like(self.ref, np.nan)
        log_pi, ref, old = (
            self.xp.where(self.mask, values, nan) for values in (self.log_pi(z), self.ref, self.old)
        )
        log_old = old if off_policy else None
        values = kl.kl_loss(log_pi, ref, log_old=log_old, mask=self.mask, level=level)
        return self.mean(self.sampler(z, off_policy), values)


@pytest.fixture
def tree(differentiating):
    return Tree(differentiating)


def close(found, wanted):
    return np.max(np.abs(found - wanted)) <= 1e-12


def value(tree, function):
    return float(tree.library.numpy(function(tree.library.array(Z))))


# The sequences are enumerated, not drawn: nothing follows from their weights.
enumerated = pytest.mark.filterwarnings("ignore:The weights of whole sequences:klapprox.KLWarning")


@enumerated
@with_sampler
def test_at_sequence_level_value_and_gradient_are_those_of_the_sequence_kl(tree, off_policy):
    def loss(z):
        return tree.loss(z, "sequence", off_policy)

    assert value(tree, loss) == pytest.approx(value(tree, tree.sequence_kl), abs=1e-12)
    assert close(tree.gradient(loss), tree.gradient(tree.sequence_kl))


@with_sampler
def test_at_token_level_the_prefixes_stay_fixed(tree, off_policy):
    def loss(z):
        return tree.loss(z, "token", off_policy)

    def frozen(z):
        steps = tree.step_kl(z)[np.arange(LENGTH), BEFORE]
        return tree.mean(tree.sampler(z, off_policy), tree.total(steps))

    assert value(tree, loss) == pytest.approx(value(tree, frozen), abs=1e-12)
    gradient = tree.gradient(loss)
    assert close(gradient, tree.gradient(frozen))
    # It is not the gradient of the divergence of sequences.
    assert np.max(np.abs(gradient - tree.gradient(tree.sequence_kl))) > 0.01


def test_the_two_levels_differ_by_the_missing_term(tree):
    log_pi = log_softmax(Z)
    steps = np.sum(np.exp(log_pi) * (log_pi - REF_TABLE), axis=-1)
    goes_on = np.arange(TOKENS) != END
    to_go = np.zeros((LENGTH + 1, TOKENS))  # V_{t+1} after each token
    for t in reversed(range(LENGTH)):
        to_go[t] = goes_on * (steps[t] + np.exp(log_pi[t]) @ to_go[t + 1])
    credit = tree.library.array(to_go[1:][np.arange(LENGTH), TOKEN_TABLE])

    def missing(z):
        return tree.mean(tree.sampler(z, False), tree.total(tree.log_pi(z) * credit))

    token = tree.gradient(lambda z: tree.loss(z, "token", False))
    assert close(token + tree.gradient(missing), tree.gradient(tree.sequence_kl))


def test_what_people_write_does_something_else(tree):
    def plain(estimator, level):
        def loss(z):
            log_r = tree.ref - tree.log_pi(z)
            per_sequence = (
                tree.total(estimator(log_r)) if level == "token" else estimator(tree.total(log_r))
            )
            return tree.mean(tree.sampler(z, False), per_sequence)

        return tree.gradient(loss)

    def forward_kl(z):
        return tree.mean(tree.ref, tree.total(tree.ref - tree.log_pi(z)))

    wanted = tree.gradient(tree.sequence_kl)
    assert close(plain(kl.k1, "token"), 0)
    assert close(plain(kl.k3, "sequence"), tree.gradient(forward_kl))
    assert close(plain(kl.k2, "sequence"), wanted)
    for estimator, level in [(kl.k1, "token"), (kl.k3, "sequence"), (kl.k3, "token")]:
        assert np.max(np.abs(plain(estimator, level) - wanted)) > 0.01


LEVELS = pytest.mark.parametrize("level", ["sequence", "token"])
KEPT = np.array([[True, True, False], [True, False, False]])
ARGUMENTS = [np.log(np.random.default_rng(seed).uniform(0.1, 1, (2, 3))) for seed in range(3)]


@LEVELS
@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
def test_masked_junk_leaks_into_no_gradient(differentiating_in_any_dtype, level, junk):
    library = differentiating_in_any_dtype
    dtype = "float64" if library.has_float64 else "float32"
    mask = library.array(KEPT, "bool")

    def gradient(filling):
        log_pi, log_ref, log_old = (np.where(KEPT, values, filling) for values in ARGUMENTS)
        others = library.array(log_ref, dtype), library.array(log_old, dtype)

        def loss(log_pi):
            values = kl.kl_loss(log_pi, others[0], log_old=others[1], mask=mask, level=level)
            return library.xp.sum(values)

        return library.gradient(loss, log_pi, dtype)

    spoilt = gradient(junk)
    assert np.all(spoilt[~KEPT] == 0)
    np.testing.assert_array_equal(spoilt, gradient(-1.0))
    assert np.all(spoilt[KEPT] != 0)


@LEVELS
def test_only_log_pi_is_differentiated(level):
    tensors = [torch.tensor(values, requires_grad=True) for values in ARGUMENTS]
    kl.kl_loss(*tensors[:2], log_old=tensors[2], level=level).sum().backward()
    assert tensors[0].grad is not None
    assert tensors[1].grad is tensors[2].grad is None
    with jax.enable_x64(True):

        def loss(log_pi, log_ref, log_old):
            return kl.kl_loss(log_pi, log_ref, log_old=log_old, level=level).sum()

        arrays = [JAX.array(values) for values in ARGUMENTS]
        gradients = jax.grad(loss, argnums=(0, 1, 2))(*arrays)
    np.testing.assert_allclose(gradients[0], tensors[0].grad, rtol=1e-14)
    assert not np.any(gradients[1]) and not np.any(gradients[2])  # noqa: PT018 one claim


@LEVELS
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_values_are_those_of_numpy(library, level, dtype):
    if dtype == "bfloat16" and library.name in ("numpy", "dask"):
        pytest.skip("this library has no bfloat16")
    if dtype == "float64" and not library.has_float64:
        pytest.skip("JAX without float64")
    arrays = [library.array(values, dtype) for values in ARGUMENTS]
    mask = library.array(KEPT, "bool")
    value = kl.kl_loss(*arrays[:2], log_old=arrays[2], mask=mask, level=level)
    assert value.shape == (2,)
    wide = "float64" if dtype == "float64" else "float32"
    assert value.dtype == library.array([0.0], wide).dtype
    rounded = [library.numpy(array).astype(np.float64) for array in arrays]
    exact = kl.kl_loss(*rounded[:2], log_old=rounded[2], mask=KEPT, level=level)
    unit = {"float64": 2**-52, "float32": 2**-23}[wide]
    np.testing.assert_allclose(library.numpy(value).astype(np.float64), exact, rtol=8 * unit)


@LEVELS
def test_dask_stays_lazy(level):
    def refuse(graph, keys, **options):
        raise AssertionError("the graph was computed")

    with dask.config.set(scheduler=refuse):
        arrays = [DASK.array(values) for values in ARGUMENTS]
        mask = DASK.array(KEPT, "bool")
        value = kl.kl_loss(*arrays[:2], log_old=arrays[2], mask=mask, level=level)
    exact = kl.kl_loss(*ARGUMENTS[:2], log_old=ARGUMENTS[2], mask=KEPT, level=level)
    np.testing.assert_allclose(value.compute(), exact, rtol=1e-14)


def summed(level):
    def loss(log_pi, log_ref, log_old, mask):
        return kl.kl_loss(log_pi, log_ref, log_old=log_old, mask=mask, level=level).sum()

    return loss


@tracing
@LEVELS
def test_torch_compiles_it_whole(level):
    eager, compiled = summed(level), torch.compile(summed(level), backend="eager", fullgraph=True)
    results = []
    for loss in (eager, compiled):
        arrays = [TORCH.array(values) for values in ARGUMENTS]
        arrays[0].requires_grad_()
        value = loss(*arrays, TORCH.array(KEPT, "bool"))
        value.backward()
        results.append((value.item(), arrays[0].grad.tolist()))
    assert results[0] == results[1]


@compiling
@LEVELS
def test_machine_code_has_the_same_value_and_gradient(level):
    results = []
    for loss in (summed(level), torch.compile(summed(level), fullgraph=True)):
        arrays = [TORCH.array(values) for values in ARGUMENTS]
        arrays[0].requires_grad_()
        value = loss(*arrays, TORCH.array(KEPT, "bool"))
        value.backward()
        results.append([value.item(), *arrays[0].grad.flatten().tolist()])
    assert results[1] == pytest.approx(results[0], rel=1e-13)


@LEVELS
def test_jax_compiles_it(level):
    with jax.enable_x64(True):
        arrays = [*(JAX.array(values) for values in ARGUMENTS), JAX.array(KEPT, "bool")]
        both = jax.value_and_grad(summed(level))
        value, gradient = both(*arrays)
        jitted_value, jitted_gradient = jax.jit(both)(*arrays)
        mapped = jax.vmap(lambda *row: kl.kl_loss(*row[:2], log_old=row[2], level=level))
        rows = mapped(*arrays[:3])
    assert value == pytest.approx(float(jitted_value), rel=1e-14)
    np.testing.assert_allclose(jitted_gradient, gradient, rtol=1e-13)
    np.testing.assert_allclose(
        rows, kl.kl_loss(*ARGUMENTS[:2], log_old=ARGUMENTS[2], level=level), rtol=1e-14
    )


def test_torch_maps_it():
    arrays = [TORCH.array(values) for values in ARGUMENTS]
    mapped = torch.vmap(lambda *row: kl.kl_loss(*row[:2], log_old=row[2]))(*arrays)
    assert mapped.tolist() == kl.kl_loss(*arrays[:2], log_old=arrays[2]).tolist()


def test_errors_name_the_argument_in_every_library_that_can_be_looked_at(library):
    good = library.array(ARGUMENTS[0], "float32")
    bad = library.array(np.where(KEPT, ARGUMENTS[0], np.nan), "float32")
    with pytest.raises(TypeError, match=r"^mask has dtype"):
        kl.kl_loss(good, good, mask=good)
    with pytest.raises(ValueError, match=r"^log_ref has shape"):
        kl.kl_loss(good, good[:1])
    if library is DASK:
        assert np.isnan(kl.kl_loss(good, bad).compute()).tolist() == [True, True]
        return
    with pytest.raises(ValueError, match=r"^log_old is NaN"):
        kl.kl_loss(good, good, log_old=bad)
    assert kl.kl_loss(good, bad, check=False).shape == (2,)


@pytest.mark.parametrize("reduction", ["none", "sequence", "sequence-mean", "token-mean"])
@pytest.mark.parametrize("bounds", [{}, {"max_weight": 1.1, "clamp": 0.7}], ids=["", "bounded"])
@LEVELS
def test_every_option_has_the_gradient_that_is_written_out(
    differentiating, level, reduction, bounds
):
    library = differentiating
    mask = np.array([[True, False, True], [False] * 3])  # the second sequence has no token
    log_pi, log_ref, log_old = (np.where(mask, values, np.nan) for values in ARGUMENTS)
    scale = np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    scale = {"none": scale, "sequence": scale[:, 0]}.get(reduction, scale[0, 1])
    scale = library.array(scale)

    def loss(z):
        values = kl.kl_loss(
            z,
            library.array(log_ref),
            log_old=library.array(log_old),
            mask=library.array(mask, "bool"),
            level=level,
            reduction=reduction,
            **bounds,
        )
        return library.xp.sum(scale * values)

    x = np.clip(log_ref - log_pi, -bounds.get("clamp", np.inf), bounds.get("clamp", np.inf))[0, ::2]
    log_w = (log_pi - log_old)[0, ::2]
    w = np.exp(np.cumsum(log_w) if level == "sequence" else log_w)
    credit = -x * np.minimum(w, bounds.get("max_weight", np.inf))
    if level == "sequence":
        credit = np.array([credit.sum(), credit[1]])
    factor = {"none": [1.0, 4.0], "sequence": 1.0, "sequence-mean": 2.0 / 2, "token-mean": 2.0 / 2}
    expected = np.zeros((2, 3))
    expected[0, ::2] = factor[reduction] * credit
    np.testing.assert_allclose(library.gradient(loss, log_pi), expected, rtol=1e-13)


@LEVELS
def test_blocks_are_the_same_as_one_piece(level, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    pi, ref, old, scale = (
        torch.log(0.5 + 0.5 * torch.rand((2, 5, 7), generator=generator)) for _ in range(4)
    )
    mask = torch.rand((2, 5, 7), generator=generator) < 0.8

    def both(given, weights, **options):
        x = pi.clone().requires_grad_()
        value = kl.kl_loss(x, given[0], log_old=given[1], level=level, check=False, **options)
        return value, torch.autograd.grad((value * weights).sum(), x)[0]

    cases = [
        ((ref, old), scale[..., 0], {"mask": mask}),
        ((ref, None), scale[..., 0], {}),
        ((ref, old), scale, {"mask": mask, "reduction": "none"}),
    ]
    for given, weights, options in cases:
        whole = both(given, weights, **options)
        for numbers in (3, 7, 15, 30):
            monkeypatch.setattr(_torch, "_BLOCK", numbers)
            for found, wanted in zip(both(given, weights, **options), whole, strict=True):
                assert torch.equal(found, wanted)
            assert kl.k3(pi - ref).tolist() == kl.k3((pi - ref).numpy()).tolist()
        monkeypatch.undo()


@LEVELS
def test_the_gradient_is_linear_in_what_comes_in_and_has_no_derivative_of_its_own(level):
    x, scale = TORCH.array(ARGUMENTS[0]).requires_grad_(), torch.ones(2, dtype=torch.float64)
    scale.requires_grad_()
    value = kl.kl_loss(x, TORCH.array(ARGUMENTS[1]), level=level)
    (slope,) = torch.autograd.grad((value * scale).sum(), x, create_graph=True)
    (back,) = torch.autograd.grad(slope.sum(), scale, retain_graph=True)
    assert torch.allclose(back, slope.detach().sum(dim=1))
    assert torch.autograd.grad(slope.sum(), x, allow_unused=True)[0] is None

    def loss(z):
        return kl.kl_loss(z, TORCH.array(ARGUMENTS[1]), level=level).sum()

    assert torch.equal(torch.func.grad(loss)(x.detach()), slope.detach())
    rows = torch.func.vmap(torch.func.grad(loss_of_a_row(level)))(
        x.detach(), TORCH.array(ARGUMENTS[1])
    )
    assert torch.equal(rows, slope.detach())


def loss_of_a_row(level):
    return lambda log_pi, log_ref: kl.kl_loss(log_pi, log_ref, level=level)


def training_arguments(shape=(4, 6)):
    generator = torch.Generator().manual_seed(0)
    arrays = [torch.log(0.5 + 0.5 * torch.rand(shape, generator=generator)) for _ in range(3)]
    return arrays, torch.rand(shape, generator=generator) < 0.9


@LEVELS
@pytest.mark.parametrize("bounds", [{}, {"max_weight": 2.0, "clamp": 5.0}], ids=["", "bounded"])
@pytest.mark.parametrize("reduction", ["none", "sequence", "sequence-mean", "token-mean"])
def test_one_number_is_read_back_or_none(level, reduction, bounds):
    (pi, ref, old), mask = training_arguments()
    for check, reads in ((True, 1), (False, 0)):
        x = pi.clone().requires_grad_()
        with Recorded() as seen:
            value = kl.kl_loss(
                x,
                ref,
                log_old=old,
                mask=mask,
                level=level,
                reduction=reduction,
                check=check,
                **bounds,
            )
            value.sum().backward()
        assert seen.reads == reads


@LEVELS
def test_float64_is_not_needed(level, monkeypatch):
    (pi, ref, old), mask = training_arguments((4, 60))
    exact = kl.kl_loss(pi.double(), ref.double(), log_old=old.double(), mask=mask, level=level)
    with Recorded({torch.float64}) as seen, pytest.raises(AssertionError):
        kl.kl_loss(pi, ref, log_old=old, mask=mask, level=level)  # the guard sees what it should
    monkeypatch.setattr(_torch, "_WITHOUT_FLOAT64", {"cpu"})
    with Recorded({torch.float64}) as seen:
        x = pi.clone().requires_grad_()
        value = kl.kl_loss(x, ref, log_old=old, mask=mask, level=level)
        value.sum().backward()
    assert "expm1" in seen.calls
    np.testing.assert_allclose(value.detach(), exact, rtol=2e-6)


@enumerated
@pytest.mark.parametrize("off_policy", [False, True])
@LEVELS
def test_it_needs_no_more_memory_than_the_one_liner(level, off_policy):
    (pi, ref, old), mask = training_arguments((256, 1024))

    def one_liner(x):
        log_r = ref - x
        k3 = torch.exp(log_r) - log_r - 1
        weight = torch.exp(x.detach() - old) if off_policy else 1.0
        return (k3 * weight * mask).sum(dim=-1)

    def loss(x):
        return kl.kl_loss(x, ref, log_old=old if off_policy else None, mask=mask, level=level)

    peaks = []
    for function in (one_liner, loss, lambda x: kl.k3(ref - x).sum(dim=-1)):
        x = pi.clone().requires_grad_()
        with Recorded() as seen:
            function(x).sum().backward()
        peaks.append(seen.peak)
    assert max(peaks[1:]) <= peaks[0]


@tracing
def test_shapes_that_change_do_not_compile_again():
    graphs = []

    def backend(graph, example):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(summed("sequence"), backend=backend, fullgraph=True, dynamic=True)
    for shape in ((3, 4), (5, 6), (7, 9), (70, 1000)):
        (pi, ref, old), mask = training_arguments(shape)
        x = pi.requires_grad_()
        compiled(x, ref, old, mask).backward()
        assert torch.isfinite(x.grad).all()
    assert len(graphs) == 1


def test_two_libraries_do_not_mix():
    with pytest.raises(TypeError, match=r"^log_ref is a ndarray, but log_pi an array of .*torch"):
        kl.kl_loss(TORCH.array(ARGUMENTS[0]), ARGUMENTS[1])
    with pytest.raises(TypeError, match=r"^mask is a Tensor, but log_pi an array of .*numpy"):
        kl.kl_loss(*ARGUMENTS[:2], mask=TORCH.array(KEPT, "bool"))
