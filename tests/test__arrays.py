"""The module `_arrays` with stand-ins for libraries; tests/arrays has the real ones."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from klapprox._arrays import anywhere, in_wider_dtype, stop_gradient

TRUE = np.array([True])


def namespace(name, **functions):
    """Return a module of this name with these functions."""
    module = ModuleType(name)
    vars(module).update(functions)
    return module


def refusing(error):
    """Return an `any` whose result may not be looked at."""

    class Unknown:
        def __int__(self):
            raise error

    return lambda condition: Unknown()


def never(condition):
    raise AssertionError("a value was looked at")


def test_values_are_looked_at_where_they_can_be():
    xp = namespace("numpy", any=np.any)
    assert anywhere(xp, TRUE)
    assert not anywhere(xp, ~TRUE)


@pytest.mark.parametrize("error", [TypeError, RuntimeError])
def test_a_library_may_refuse_the_look(error):
    xp = namespace("jax.numpy", any=refusing(error("this value is traced")))
    assert anywhere(xp, TRUE) is False


def test_any_other_error_is_not_swallowed():
    xp = namespace("other", any=refusing(MemoryError("no room")))
    with pytest.raises(MemoryError, match="no room"):
        anywhere(xp, TRUE)


@pytest.mark.parametrize("name", ["dask.array", "array_api_compat.dask.array"])
def test_a_lazy_graph_is_not_computed(name):
    assert anywhere(namespace(name, any=never), TRUE) is False


@pytest.mark.parametrize("name", ["torch", "array_api_compat.torch"])
def test_a_compiler_is_not_made_to_break_its_graph(monkeypatch, name):
    compiler = SimpleNamespace(is_compiling=lambda: True)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(compiler=compiler))
    assert anywhere(namespace(name, any=never), TRUE) is False
    compiler.is_compiling = lambda: False
    assert anywhere(namespace(name, any=np.any), TRUE) is True


def test_without_float64_the_formula_is_evaluated_in_float32():
    xp = SimpleNamespace(
        float32=np.dtype("float32"),
        float64=np.dtype("float64"),
        finfo=np.finfo,
        astype=lambda x, dtype: x.astype(dtype),
        result_type=lambda dtype: np.dtype("float32"),
    )
    seen = []

    def formula(xp, x):
        seen.append(x.dtype)
        return x + 1

    for dtype in (np.float64, np.float32, np.float16):
        assert in_wider_dtype(xp, formula, np.zeros(1, dtype=dtype)).dtype == dtype
    assert seen == [np.float64, np.float32, np.float32]


def test_the_gradient_is_stopped_in_the_words_of_the_library(monkeypatch):
    class Array:
        pass

    traced, fixed = Array(), Array()
    lax = SimpleNamespace(stop_gradient={traced: fixed}.__getitem__)
    jax = SimpleNamespace(Array=Array, lax=lax, core=SimpleNamespace(Tracer=Array))
    monkeypatch.setitem(sys.modules, "jax", jax)
    assert stop_gradient(traced) is fixed
    assert stop_gradient(SimpleNamespace(detach=lambda: fixed)) is fixed
    assert stop_gradient(TRUE) is TRUE
