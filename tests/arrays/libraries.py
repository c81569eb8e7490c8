"""The array libraries under test, each with the few words of its own that the tests need.

Run by ``make test-arrays``; the other tests need none of these libraries.
"""

import shutil
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


def compiling(test):
    """Mark a test that makes machine code with torch.compile, whose own warnings are not ours."""
    for warning in (
        "ignore:Dynamo detected a call to a `functools.lru_cache`",
        "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning",
    ):
        test = pytest.mark.filterwarnings(warning)(test)
    missing = shutil.which("c++") is None
    return pytest.mark.skipif(missing, reason="torch.compile needs a C++ compiler")(test)
