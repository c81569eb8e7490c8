"""Estimated coefficients: arrays of any library go in, a number comes out."""

import numpy as np
import pytest

from klapprox import control_variates

LOG_R = np.random.default_rng(0).normal(-0.1, 0.5, 12)
CONTROLS = np.column_stack([np.expm1(LOG_R), np.expm1(2 * LOG_R)])
MORE_ARGUMENTS = {"several": (CONTROLS,)}


@pytest.mark.parametrize("name", ["regression", "leave_one_out", "cross_fitted", "several"])
def test_the_estimate_is_that_of_numpy(library, name):
    estimate = getattr(control_variates, name)
    dtype = "float64" if library.has_float64 else "float32"
    arguments = (LOG_R, *MORE_ARGUMENTS.get(name, ()))
    value = estimate(*(library.array(argument, dtype) for argument in arguments))
    assert isinstance(value, float)
    tolerance = 1e-14 if library.has_float64 else 1e-5
    assert value == pytest.approx(estimate(*arguments), rel=tolerance)
