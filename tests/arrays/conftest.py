"""Fixtures that run a test with each of the array libraries."""

import contextlib

import jax
import pytest
from libraries import DASK, JAX, JAX_32, NUMPY, TORCH


def entered(request):
    with contextlib.ExitStack() as stack:
        if request.param.name.startswith("jax"):
            stack.enter_context(jax.enable_x64(request.param.has_float64))
        yield request.param


@pytest.fixture(params=[NUMPY, TORCH, JAX, JAX_32, DASK], ids=lambda library: library.name)
def library(request):
    """Every library; JAX with float64 and without."""
    yield from entered(request)


@pytest.fixture(params=[TORCH, JAX], ids=lambda library: library.name)
def differentiating(request):
    """A library that differentiates, in float64."""
    yield from entered(request)


@pytest.fixture(params=[TORCH, JAX, JAX_32], ids=lambda library: library.name)
def differentiating_in_any_dtype(request):
    yield from entered(request)
