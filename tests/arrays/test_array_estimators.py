"""The estimators in every array library: accuracy of values and derivatives, kinds, laziness."""

import math

import dask
import jax
import mpmath
import numpy as np
import pytest
import torch
from libraries import DASK, JAX, TORCH, Recorded, compiling, tracing
from test_estimators import BITS, EXACT, grid

import klapprox as kl
from klapprox import _torch

# Mantissa bits and the exponents of the smallest and largest normal number.
FORMATS = {
    "float64": (52, -1022, 1023),
    "float32": (23, -126, 127),
    "float16": (10, -14, 15),
    "bfloat16": (7, -126, 127),
}
# Each grid keeps the squares of its small end normal and the exponentials of its large end finite.
GRIDS = {
    "float64": grid(1e-150, 700)[::2],
    "float32": grid(1e-18, 80, np.float32)[::2],
    "float16": grid(1e-2, 10, np.float16)[::4],
    "bfloat16": grid(1e-18, 80, np.float32)[::4],
}
DERIVATIVES = {
    kl.k1: lambda x: mpmath.mpf(-1),
    kl.k2: lambda x: x,
    kl.k3: mpmath.expm1,
    kl.k3_forward: lambda x: x * mpmath.exp(x),
}
OTHERS = {
    "k_lambda": lambda x: kl.k_lambda(x, 0.5),
    "k_lambda at 0": lambda x: kl.k_lambda(x, 0),
    "k_alpha": lambda x: kl.k_alpha(x, 0.25),
    "k_alpha mirrored": lambda x: kl.k_alpha(x, 1.5),
    "k_f": lambda x: kl.k_f(x, lambda r: r * r, 2.0),
}

of_table = pytest.mark.parametrize("function", EXACT, ids=lambda function: function.__name__)
of_log_r = pytest.mark.parametrize(
    "function",
    [*EXACT, *OTHERS.values()],
    ids=[*(function.__name__ for function in EXACT), *OTHERS],
)
with_dtype = pytest.mark.parametrize("dtype", FORMATS)


def available(library, dtype):
    if dtype == "bfloat16" and library.name in ("numpy", "dask"):
        pytest.skip("this library has no bfloat16")
    if dtype == "float64" and not library.has_float64:
        pytest.skip("JAX without float64")


def widened(library, dtype):
    """Return whether the formulas are evaluated in a wider dtype."""
    return dtype != "float64" and (library.has_float64 or dtype != "float32")


def ulp_errors(values, points, exact, dtype):
    """Return errors in units in the last place; infinity counts as right where exact overflows."""
    bits, smallest, largest = FORMATS[dtype]
    errors = []
    with mpmath.workprec(BITS):
        for value, point in zip(values.tolist(), points.tolist(), strict=True):
            wanted = exact(mpmath.mpf(point))
            if abs(wanted) >= mpmath.mpf(2) ** (largest + 1) and math.isinf(value):
                errors.append(0.0)
                continue
            exponent = int(mpmath.floor(mpmath.log(abs(wanted), 2))) if wanted else smallest
            unit = mpmath.mpf(2) ** (max(exponent, smallest) - bits)
            errors.append(float(abs(value - wanted) / unit))
    return np.array(errors)


@with_dtype
@of_table
def test_values_are_as_accurate_as_documented(library, function, dtype):
    available(library, dtype)
    x = library.array(GRIDS[dtype], dtype)
    with np.errstate(over="ignore"):
        value = function(x)
        values = library.numpy(value)
    assert value.dtype == x.dtype
    points = library.numpy(x).astype(float)
    errors = ulp_errors(values.astype(float), points, EXACT[function], dtype)
    if widened(library, dtype):
        assert errors.max() <= 1
    else:
        assert errors.max() <= (4 if library.name.startswith("jax") else 3)


@of_table
def test_float32_is_accurate_without_float64(function, monkeypatch):
    monkeypatch.setattr(_torch, "_WITHOUT_FLOAT64", {"cpu"})
    x = TORCH.array(GRIDS["float32"], "float32").requires_grad_()
    with Recorded({torch.float64}):
        value = function(x)
        value.sum().backward()
    points = GRIDS["float32"].astype(float)
    values, slopes = (TORCH.numpy(z).astype(float) for z in (value, x.grad))
    errors = ulp_errors(values, points, EXACT[function], "float32")
    assert errors.max() <= (3 if function is kl.k3_forward else 2)
    errors = ulp_errors(slopes, points, DERIVATIVES[function], "float32")
    assert errors.max() <= 2


SMOOTH = {**{function.__name__: function for function in EXACT}, **OTHERS}


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of PyTorch's own rules
@pytest.mark.parametrize("name", SMOOTH)
def test_torch_differentiates_as_it_should(name):
    x = torch.tensor([-30.0, -3.0, -1.5, -0.4, 0.3, 0.9, 2.5], dtype=torch.float64)
    x.requires_grad_()
    assert torch.autograd.gradcheck(SMOOTH[name], (x,))
    if name != "k1":
        assert torch.autograd.gradgradcheck(SMOOTH[name], (x,))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of PyTorch's own rules
@pytest.mark.parametrize("function", [kl.k3, kl.k3_forward], ids=lambda function: function.__name__)
def test_torch_transforms_it(function):
    x = TORCH.array([-3.0, -0.4, 0.0, 0.9, 2.5])
    slope = np.array([float(DERIVATIVES[function](mpmath.mpf(v))) for v in x.tolist()])
    found = torch.func.vmap(torch.func.grad(function))(x)
    np.testing.assert_allclose(found, slope, rtol=1e-14)
    values, tangents = torch.func.jvp(function, (x,), (torch.full_like(x, 2.0),))
    np.testing.assert_allclose(tangents, 2 * slope, rtol=1e-14)
    assert torch.equal(values, function(x))
    second = torch.func.vmap(torch.func.grad(torch.func.grad(function)))(x)
    third = torch.func.vmap(torch.func.hessian(function))(x)
    np.testing.assert_allclose(third, second, rtol=1e-13)


@pytest.mark.parametrize("function", [kl.k3, kl.k3_forward], ids=lambda function: function.__name__)
@with_dtype
def test_long_tensors_are_the_same_in_blocks(function, dtype, monkeypatch):
    points = TORCH.array(GRIDS[dtype][:60], dtype).reshape(2, 3, 10)
    results = []
    for block in (10**6, 17, 7):
        monkeypatch.setattr(_torch, "_BLOCK", block)
        x = points.clone().requires_grad_()
        value = function(x)
        value.sum().backward()
        results.append((value.detach(), x.grad))
    for value, slope in results[1:]:
        assert torch.equal(value, results[0][0])
        assert torch.equal(slope, results[0][1])


CHECKING = {
    **{
        name: (lambda x, f=f, **check: f(x, **check))
        for name, f in [(function.__name__, function) for function in EXACT]
    },
    "k_lambda": lambda x, **check: kl.k_lambda(x, 0.5, **check),
    "k_alpha": lambda x, **check: kl.k_alpha(x, 0.25, **check),
    "k_f": lambda x, **check: kl.k_f(x, lambda r: r * r, 2.0, **check),
    "log_ratio": lambda x, **check: kl.log_ratio(x, x, **check),
    "weighted": lambda x, **check: kl.weighted(x, x, **check),
}


@pytest.mark.parametrize("name", CHECKING)
def test_one_number_is_read_back_or_none(name):
    x = TORCH.array(POINTS, "float32")
    for check, reads in ((True, 2 if name == "k_f" else 1), (False, 0)):
        with Recorded() as seen:
            CHECKING[name](x, check=check)
        assert seen.reads == reads
    bad = TORCH.array([0.0, np.nan])
    with pytest.raises(ValueError, match="NaN"):
        CHECKING[name](bad)
    assert torch.isnan(CHECKING[name](bad, check=False)).any()


@with_dtype
@of_table
def test_derivatives_are_as_accurate(differentiating_in_any_dtype, function, dtype):
    library = differentiating_in_any_dtype
    available(library, dtype)
    x = library.numpy(library.array(GRIDS[dtype], dtype)).astype(float)
    derivative = library.gradient(lambda x: library.xp.sum(function(x)), x, dtype)
    errors = ulp_errors(derivative.astype(float), x, DERIVATIVES[function], dtype)
    assert errors.max() <= (1 if widened(library, dtype) else 8)


EXTREMES = {
    "float64": [-np.inf, -1e300, -750.0, -709.0, -2.0, -1.0, -1e-300, 0.0, 5e-324, 1.0, 700.0],
    "float32": [-np.inf, -1e30, -104.0, -88.0, -2.0, -1.0, -1e-30, 0.0, 1e-45, 1.0, 80.0],
}


@pytest.mark.parametrize("dtype", EXTREMES)
@of_log_r
def test_derivatives_are_finite_wherever_values_are(differentiating_in_any_dtype, function, dtype):
    library = differentiating_in_any_dtype
    available(library, dtype)
    derivative = library.gradient(lambda x: library.xp.sum(function(x)), EXTREMES[dtype], dtype)
    finite = np.isfinite(library.numpy(function(library.array(EXTREMES[dtype], dtype))))
    assert finite.sum() >= len(finite) - 2  # at -inf, and k2 at the one behind it
    assert np.all(np.isfinite(derivative[finite]))


@pytest.mark.parametrize(("dtype", "x"), [("float64", 709.0), ("float32", 88.0)])
def test_k3_is_differentiable_up_to_overflow(differentiating_in_any_dtype, dtype, x):
    library = differentiating_in_any_dtype
    available(library, dtype)
    derivative = library.gradient(lambda x: library.xp.sum(kl.k3(x)), [x, -x, 0.0], dtype)
    np.testing.assert_allclose(derivative, np.expm1([x, -x, 0.0]), rtol=1e-6)


@with_dtype
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 1, 3)])
@of_log_r
def test_kind_dtype_and_shape_are_kept(library, function, shape, dtype):
    available(library, dtype)
    x = library.array(np.full(shape, -0.5), dtype)
    value = function(x)
    assert isinstance(value, library.kind)
    assert value.shape == shape
    assert value.dtype == x.dtype


@of_log_r
def test_minus_infinity_has_the_documented_value(library, function):
    value = library.numpy(function(library.array([-np.inf, 0.0], "float32")))
    expected = function(np.array([-np.inf, 0.0], dtype=np.float32))
    np.testing.assert_array_equal(value, expected)


def test_log_ratio_takes_arrays_and_numbers(library):
    log_q, log_p = (
        library.array([-1.0, -2.0], "float32"),
        library.array([[-2.0], [-1.5]], "float32"),
    )
    value = kl.log_ratio(log_q, log_p)
    assert value.dtype == log_q.dtype
    assert library.numpy(value).tolist() == [[-1.0, 0.0], [-0.5, 0.5]]
    assert library.numpy(kl.log_ratio(-1, log_p)).tolist() == [[-1.0], [-0.5]]
    assert library.numpy(kl.log_ratio(log_q, -1.0)).tolist() == [0.0, 1.0]
    assert kl.log_ratio(-1, log_p).dtype == log_p.dtype


@of_log_r
def test_types_are_checked_in_every_library(library, function):
    for dtype in ("int32", "bool"):
        with pytest.raises(TypeError, match=r"^log_r has dtype .*(int32|bool)"):
            function(library.array([0, 1], dtype))


@of_log_r
def test_values_are_checked_where_they_can_be_looked_at(library, function):
    for bad, words in [(np.nan, "holds NaN"), (np.inf, r"is \+inf")]:
        array = library.array([0.0, bad], "float32")
        if library is DASK:
            assert isinstance(function(array), DASK.kind)
            continue
        with pytest.raises(ValueError, match=f"^log_r {words}"):
            function(array)


def test_log_ratio_checks_what_it_can_look_at(library):
    good, infinite = library.array([0.0], "float32"), library.array([np.inf], "float32")
    with pytest.raises(ValueError, match=r"^log_q has shape \(2,\) and log_p \(3,\)"):
        kl.log_ratio(library.array([0.0] * 2, "float32"), library.array([0.0] * 3, "float32"))
    if library is DASK:
        assert isinstance(kl.log_ratio(infinite, good), DASK.kind)
        return
    with pytest.raises(ValueError, match=r"^log_q is infinite"):
        kl.log_ratio(infinite, good)
    with pytest.raises(ValueError, match=r"^log_p is \+inf"):
        kl.log_ratio(good, infinite)


def test_two_libraries_do_not_mix():
    with pytest.raises(TypeError, match=r"^log_q is an array of .*torch and log_p of .*numpy"):
        kl.log_ratio(TORCH.array([0.0]), np.zeros(1))


POINTS = np.array([[-3.0, -1.0, -1e-8, 0.0], [1e-8, 0.5, 1.0, 3.0]])


@of_log_r
def test_dask_stays_lazy(function):
    def refuse(graph, keys, **options):
        raise AssertionError("the graph was computed")

    with dask.config.set(scheduler=refuse):
        x = DASK.array(POINTS)
        value = function(kl.log_ratio(x * 0.0, x))
        assert value.chunks == x.chunks
    np.testing.assert_array_equal(value.compute(), function(POINTS))


@tracing
@of_log_r
def test_torch_compiles_it_whole(function):
    def mean(log_q, log_p):
        return function(kl.log_ratio(log_q, log_p)).mean()

    torch.compiler.reset()  # more than 8 functions would count as recompilations
    results = []
    for form in (mean, torch.compile(mean, backend="eager", fullgraph=True)):
        log_p = TORCH.array(POINTS)
        log_p.requires_grad_()
        value = form(torch.zeros_like(log_p), log_p)
        value.backward()
        results.append((value.item(), log_p.grad.tolist()))
    # Compiled code has an expm1 of its own: the last digit may differ.
    (value, slope), (compiled, compiled_slope) = results
    assert compiled == pytest.approx(value, rel=1e-15, abs=0)
    np.testing.assert_allclose(compiled_slope, slope, rtol=1e-15, atol=0)


@compiling
@with_dtype
def test_machine_code_is_as_accurate(dtype):
    torch.compiler.reset()
    compiled = torch.compile(lambda x: tuple(f(x) for f in EXACT), fullgraph=True)
    # Without gaps between the numbers, or the compiler uses no vectors, and then a better expm1.
    x = TORCH.array(GRIDS[dtype], dtype).contiguous()
    points = TORCH.numpy(x).astype(float)
    for number, function in enumerate(EXACT):
        x.grad = None
        values = compiled(x.requires_grad_())[number]
        values.sum().backward()
        narrow = dtype != "float64"
        for found, exact, bound in (
            (values.detach(), EXACT[function], 1 if narrow else 3),
            (x.grad, DERIVATIVES[function], 1 if narrow else 8),
        ):
            errors = ulp_errors(TORCH.numpy(found).astype(float), points, exact, dtype)
            assert errors.max() <= bound


@of_log_r
def test_torch_maps_it(function):
    x = TORCH.array(POINTS)
    assert torch.equal(torch.vmap(function)(x), function(x))


@of_log_r
def test_jax_compiles_and_maps_it(function):
    def total(log_q, log_p):
        return function(kl.log_ratio(log_q, log_p)).sum()

    # k_f is a difference near r = 1, and the compiler may round its terms otherwise.
    cancels = 1e-14 if function is OTHERS["k_f"] else 0.0
    with jax.enable_x64(True):
        x = JAX.array(POINTS)
        both = jax.value_and_grad(total, argnums=(0, 1))
        value, gradients = both(0 * x, x)
        jitted_value, jitted_gradients = jax.jit(both)(0 * x, x)
        assert jitted_value == pytest.approx(float(value), rel=1e-13)
        for found, wanted in zip(jitted_gradients, gradients, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=cancels)
        np.testing.assert_allclose(jax.vmap(function)(x), function(x), rtol=1e-13, atol=cancels)
        with pytest.raises(TypeError, match=r"^log_r has dtype int"):
            jax.jit(function)(JAX.array([1], "int32"))
        # What cannot be looked at is not refused; it comes out as it is.
        assert np.isnan(jax.jit(kl.k3)(JAX.array([np.nan]))).all()
