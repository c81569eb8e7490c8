"""The array libraries under test, each with the few words of its own that the tests need.

Run by ``make test-arrays``; the other tests need none of these libraries.
"""

import shutil
import weakref
from dataclasses import dataclass
from typing import Any

import array_api_compat.torch
import dask
import dask.array
import jax
import jax.numpy
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Library:
    name: str
    xp: Any
    kind: type
    has_float64: bool = True

    def array(self, values, dtype="float64"):
        if self.name == "dask":
            # Two chunks where there is something to cut.
            return dask.array.from_array(np.asarray(values, dtype=dtype), chunks=2)
        return self.xp.asarray(values, dtype=getattr(self.xp, dtype))

    def numpy(self, array):
        """Return the values as a NumPy array, half precision as float32."""
        assert isinstance(array, self.kind)
        if self.name == "torch":
            array = array.detach()
            return (array.float() if array.dtype == torch.bfloat16 else array).numpy()
        array = np.asarray(array)
        return array.astype(np.float32) if array.dtype.kind == "V" else array

    def fixed(self, array):
        return array.detach() if self.name == "torch" else jax.lax.stop_gradient(array)

    def gradient(self, function, values, dtype="float64"):
        """Return the gradient of a scalar function."""
        point = self.array(values, dtype)
        if self.name == "torch":
            point.requires_grad_()
            function(point).backward()
            return self.numpy(point.grad)
        return self.numpy(jax.grad(function)(point))


NUMPY = Library("numpy", np, np.ndarray | np.generic)
TORCH = Library("torch", array_api_compat.torch, torch.Tensor)
JAX = Library("jax", jax.numpy, jax.Array)
JAX_32 = Library("jax float32", jax.numpy, jax.Array, has_float64=False)
DASK = Library("dask", dask.array, dask.array.Array)


class Recorded(TorchDispatchMode):
    """Which operations were called, and the largest dtype and number of bytes that they made."""

    def __init__(self, refused=()):
        super().__init__()
        self.calls, self.refused, self.alive, self.peak = [], refused, {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.calls.append(function.overloadpacket.__name__)
        for z in tree_leaves(out):
            if not torch.is_tensor(z):
                continue
            assert z.dtype not in self.refused, function
            storage = z.untyped_storage()
            key = storage._cdata
            if key not in self.alive:
                self.alive[key] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, key, None)
                self.peak = max(self.peak, sum(self.alive.values()))
        return out

    @property
    def reads(self):
        return self.calls.count("_local_scalar_dense")


# Of torch.compile itself; Python shows it to nobody who does not ask for it.
tracing = pytest.mark.filterwarnings(
    "ignore:<class 'torch.autograd.function.Function'> should not be:DeprecationWarning"
)


def compiling(test):
    """Mark a test that makes machine code with torch.compile, whose own warnings are not ours."""
    warning = "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
    missing = shutil.which("c++") is None
    skip = pytest.mark.skipif(missing, reason="torch.compile needs a C++ compiler")
    return skip(tracing(pytest.mark.filterwarnings(warning)(test)))
