"""What differs between array libraries: dtypes, gradients, and values that cannot be looked at."""

from typing import Any

import numpy as np
from array_api_compat import (
    array_namespace,
    is_dask_namespace,
    is_jax_array,
    is_torch_namespace,
)
from array_api_compat import numpy as numpy_namespace


def as_floating(name: str, value: Any) -> tuple[Any, Any]:
    """Return the array namespace and the value as a floating-point array of it."""
    if isinstance(value, int | float):
        return numpy_namespace, np.asarray(float(value))
    try:
        xp = array_namespace(value)
    except TypeError as error:
        raise TypeError(
            f"{name} is a {type(value).__name__}; pass a float or an array, "
            f"for example numpy.asarray({name})."
        ) from error
    if not xp.isdtype(value.dtype, "real floating"):
        raise TypeError(
            f"{name} has dtype {value.dtype}; log-probabilities are floating-point: "
            "convert it, for example with .astype('float64')."
        )
    return xp, value


def anywhere(xp: Any, condition: Any) -> bool:
    """Return whether the condition is true somewhere; False where its values are not there yet."""
    if is_dask_namespace(xp):
        return False  # looking would compute the graph
    if is_torch_namespace(xp):
        import torch

        if torch.compiler.is_compiling():
            return False  # looking would break the graph
    try:
        return bool(xp.any(condition))
    except (TypeError, RuntimeError):  # what jax.jit, jax.vmap and torch.vmap answer to a look
        return False


def refuse_nan(xp: Any, name: str, value: Any) -> None:
    """Raise ValueError if the value is seen to hold NaN."""
    if anywhere(xp, xp.isnan(value)):
        raise ValueError(
            f"{name} holds NaN. Find where it comes from (a masked logit, 0·inf, a padded token), "
            "and drop masked positions before the call."
        )


def in_wider_dtype(xp: Any, formula: Any, x: Any) -> Any:
    """Evaluate the formula one precision up, where the library has one, and round once."""
    dtype = x.dtype
    if xp.finfo(dtype).bits >= 64:
        return formula(xp, x)
    # As a result type, float64 is float32 where JAX has switched it off.
    wider = xp.result_type(xp.float64) if dtype == xp.float32 else xp.float32
    return xp.astype(formula(xp, xp.astype(x, wider)), dtype)


def stop_gradient(x: Any) -> Any:
    """Return the value of x with the gradient zero."""
    detach = getattr(x, "detach", None)
    if detach is not None:  # PyTorch
        return detach()
    if is_jax_array(x):
        import jax

        return jax.lax.stop_gradient(x)
    return x
