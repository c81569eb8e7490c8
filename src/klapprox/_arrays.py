"""What differs between array libraries: dtypes, gradients, and values that cannot be looked at."""

import sys
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np
from array_api_compat import is_dask_namespace, is_jax_array
from array_api_compat import numpy as numpy_namespace
from numpy.typing import NDArray


def is_torch(value: Any) -> bool:
    """Return whether this is a PyTorch tensor."""
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor is not None and isinstance(value, tensor)


def is_compiling() -> bool:
    """Return whether torch.compile is following this call."""
    compiler = getattr(sys.modules.get("torch"), "compiler", None)
    return compiler is not None and compiler.is_compiling()


def is_jax(value: Any) -> bool:
    """Return whether this is a JAX array, in a way that torch.compile follows without a warning."""
    return not is_torch(value) and is_jax_array(value)


def array_namespace(value: Any) -> Any:
    """Return the namespace of an array, in a way that torch.compile follows without a warning."""
    if is_torch(value):
        from array_api_compat import torch as namespace

        return namespace
    return array_api_compat.array_namespace(value)


def as_floating(name: str, value: Any) -> tuple[Any, Any]:
    """Return the array namespace and the value as a floating-point array of it."""
    if isinstance(value, int | float):
        return numpy_namespace, np.asarray(float(value))
    value = unwrapped(name, value)
    try:
        xp = array_namespace(value)
    except TypeError as error:
        raise TypeError(
            f"{name} is a {type(value).__name__}; pass a float or an array, "
            f"for example numpy.asarray({name})."
        ) from error
    if not xp.isdtype(value.dtype, "real floating"):
        convert = ".double()" if is_torch(value) else ".astype('float64')"
        raise TypeError(
            f"{name} has dtype {value.dtype}; log-probabilities are floating-point: "
            f"convert it, for example with {convert}."
        )
    return xp, value


def unwrapped(name: str, value: Any) -> Any:
    """Return the array inside a masked array or a pandas Series; refuse to lose a mask."""
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise ValueError(
                f"{name} is a masked array, and its mask would be lost: pass {name}.data, and "
                f"mask=~{name}.mask where there is a mask, or {name}.compressed() otherwise."
            )
        return np.asarray(value.data)
    if isinstance(value, np.ndarray):
        return np.asarray(value)  # a matrix or a memory map computes as an array
    return value.to_numpy() if hasattr(value, "to_numpy") else value


def as_numpy(name: str, values: Any) -> NDArray[np.float64]:
    """Return an array of any kind, or a list of numbers, as a float64 NumPy array."""
    if isinstance(values, list | tuple):
        try:
            values = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{name} is a {type(values).__name__} that is no table of numbers ({error}); pass "
                "an array, and fill short sequences up and mask them."
            ) from error
    _, values = as_floating(name, values)
    if hasattr(values, "detach"):  # a PyTorch tensor, which may carry a gradient
        values = values.detach().cpu().double()
    return np.asarray(values, dtype=np.float64)


def as_table(name: str, values: Any) -> NDArray[np.float64]:
    """Return numbers of any kind, listed in any way, as a new float64 NumPy array."""
    values = unwrapped(name, values)
    try:
        table = np.asarray(values)
        if table.dtype.kind not in "biufO":
            raise TypeError(f"dtype {table.dtype}")
        return np.array(table, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(
            f"{name} is a {type(values).__name__} that is no table of numbers ({error})."
        ) from error


def as_labels(name: str, values: Any) -> NDArray[Any]:
    """Return labels or flags of any kind as a NumPy array."""
    values = unwrapped(name, values)
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} is no array: {error}; give rows of one length.") from error


def as_mask(mask: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return a mask of booleans, or of numbers that are all 0 or 1; everything without one."""
    if mask is None:
        return np.ones(shape, dtype=bool)
    keep = as_labels("mask", mask)
    if (
        keep.shape != shape
        or keep.dtype.kind not in "biuf"
        or not np.all((keep == 0) | (keep == 1))
    ):
        raise ValueError(
            f"mask has dtype {keep.dtype} and shape {keep.shape}; give booleans of shape "
            f"{shape}, or zeros and ones, for example mask = tokens != pad_token."
        )
    return keep.astype(bool)


def as_scalar(value: Any) -> Any:
    """Return a NumPy array without axes as a number of its dtype, anything else as it is."""
    return value[()] if isinstance(value, np.ndarray) else value


def spacing(values: Any) -> float:
    """Return the distance from 1 to the next number of the dtype that the values came in."""
    dtype = getattr(values, "dtype", None)
    if dtype is None:
        return float(np.finfo(float).eps)
    xp, values = as_floating("values", values)
    return float(xp.finfo(values.dtype).eps)


def anywhere(xp: Any, condition: Any) -> bool:
    """Return whether the condition is true somewhere; False where its values are not there yet."""
    return bool(seen(xp, lambda: xp.any(condition)))


def seen(xp: Any, number: Callable[[], Any]) -> int:
    """Return an integer that is computed on the device, read back at once; 0 if it is not there."""
    if is_compiling():
        return 0  # looking would break the graph
    if is_dask_namespace(xp):
        return 0  # looking would compute the graph
    try:
        return int(number())
    except (TypeError, RuntimeError):  # what jax.jit, jax.vmap and torch.vmap answer to a look
        return 0


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
