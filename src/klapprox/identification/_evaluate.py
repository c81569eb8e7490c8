"""Calling a loss of any framework with NumPy arrays: its value and its automatic derivative.

The rest of the package `klapprox.identification` sees NumPy arrays only.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["FRAMEWORKS", "Answer", "Evaluator", "evaluator"]

Array = NDArray[np.float64]
Loss = Callable[..., Any]
Call = Callable[..., tuple[Any, Any]]

FRAMEWORKS = ("torch", "jax", "numpy")

# What a loss may return for a batch of two sequences and three tokens.
_OUTPUTS = {(): "scalar", (2,): "per sequence", (2, 1): "per sequence", (2, 3): "per token"}


class Answer(NamedTuple):
    """The value of a loss, summed, and its derivative in each entry of log_pi."""

    value: float
    gradient: Array  # (B, T)


class Evaluator(NamedTuple):
    """A loss that takes and gives NumPy arrays."""

    framework: str
    output: str
    call: Call

    def __call__(
        self, log_pi: Any, log_ref: Any, log_old: Any, mask: Any = None, *, dtype: str = "float64"
    ) -> Answer:
        """Evaluate the loss; what it returns per token counts where the mask is True."""
        log_pi, log_ref, log_old = (
            np.array(a, dtype=dtype, ndmin=2) for a in (log_pi, log_ref, log_old)
        )
        mask = np.ones(log_pi.shape, dtype=bool) if mask is None else np.array(mask, dtype=bool)
        value, gradient = self.call(log_pi, log_ref, log_old, mask, self.output == "per token")
        return Answer(float(value), np.asarray(gradient, dtype=np.float64))


def evaluator(loss: Loss, framework: str | None) -> Evaluator:
    """Return the loss as a function of NumPy arrays, by the framework that it turns out to need.

    Raises
    ------
    TypeError
        If no framework that is loaded can call the loss.
    ValueError
        If the framework is unknown or the loss returns an array of another shape.
    """
    if framework not in (None, *FRAMEWORKS):
        names = ", ".join(map(repr, FRAMEWORKS))
        raise ValueError(f"framework is {framework!r}; choose one of {names}, or None.")
    if framework is not None:
        return _with_output(loss, framework)
    faults = []
    for name in FRAMEWORKS:
        if name in sys.modules:
            try:
                return _with_output(loss, name)
            except Exception as error:  # whatever a loss answers to arrays of the wrong kind
                faults.append(f"{name}: {type(error).__name__}: {error}")
    raise TypeError(
        "the loss cannot be called as loss(log_pi, log_ref, log_old, mask) with arrays of any "
        f"framework that is loaded; name the framework to see the whole error. {'; '.join(faults)}"
    )


def _with_output(loss: Loss, framework: str) -> Evaluator:
    """Call the loss once on two sequences of three tokens, to see what it returns."""
    shapes: list[tuple[int, ...]] = []
    call = {"torch": _torch, "jax": _jax, "numpy": _numpy}[framework](loss, shapes.append)
    log_pi = np.array([[-1.1, -0.7, -0.4], [-0.9, -1.3, -0.6]])
    log_ref, log_old = log_pi + 0.3, log_pi + 0.1
    call(log_pi, log_ref, log_old, np.ones((2, 3), dtype=bool), False)
    shape = shapes[0]
    if shape not in _OUTPUTS and shape != (1,):
        raise ValueError(
            f"for log-probabilities of shape (2, 3) the loss returns shape {shape}; it must be a "
            "scalar, one number a sequence (2,) or one a token (2, 3)."
        )
    return Evaluator(framework, _OUTPUTS.get(shape, "scalar"), call)


def _torch(loss: Loss, see: Callable[[tuple[int, ...]], Any]) -> Call:
    torch: Any = importlib.import_module("torch")

    def call(
        log_pi: Any, log_ref: Any, log_old: Any, mask: Any, per_token: bool
    ) -> tuple[Any, Any]:
        live, ref, old, keep = map(torch.from_numpy, (log_pi, log_ref, log_old, mask))
        live.requires_grad_()
        with torch.enable_grad():
            values = loss(live, ref, old, keep)
            if not isinstance(values, torch.Tensor):
                raise TypeError(f"the loss returns a {type(values).__name__}, not a tensor.")
            see(tuple(values.shape))
            # Not by a product: 0 times a NaN of a masked token would be NaN.
            total = (torch.where(keep, values, 0.0) if per_token else values).sum()
        if not total.requires_grad:
            return total.numpy(), np.zeros(log_pi.shape)
        (gradient,) = torch.autograd.grad(total, live, allow_unused=True)
        gradient = torch.zeros_like(live) if gradient is None else gradient
        return total.detach().numpy(), gradient.numpy()

    return call


def _jax(loss: Loss, see: Callable[[tuple[int, ...]], Any]) -> Call:
    jax: Any = importlib.import_module("jax")

    def total(live: Any, ref: Any, old: Any, keep: Any, per_token: bool) -> Any:
        values = loss(live, ref, old, keep)
        if not isinstance(values, jax.Array):
            raise TypeError(f"the loss returns a {type(values).__name__}, not an array.")
        see(tuple(values.shape))
        return (jax.numpy.where(keep, values, 0.0) if per_token else values).sum()

    eager = jax.value_and_grad(total)
    # A hundred times faster, where the loss allows it: it is called at six shapes only.
    run = jax.jit(eager, static_argnums=4)

    def call(
        log_pi: Any, log_ref: Any, log_old: Any, mask: Any, per_token: bool
    ) -> tuple[Any, Any]:
        nonlocal run
        # In float64 whatever the program has chosen, so that formulas can be told apart.
        with jax.enable_x64(True):
            arrays = [jax.numpy.asarray(a) for a in (log_pi, log_ref, log_old, mask)]
            try:
                value, gradient = run(*arrays, per_token)
            except jax.errors.JAXTypeError:  # the loss looks at values
                run = eager
                value, gradient = run(*arrays, per_token)
            return np.asarray(value), np.asarray(gradient)

    return call


def _numpy(loss: Loss, see: Callable[[tuple[int, ...]], Any]) -> Call:
    def call(
        log_pi: Any, log_ref: Any, log_old: Any, mask: Any, per_token: bool
    ) -> tuple[Any, Any]:
        with np.errstate(all="ignore"):
            answer = loss(log_pi, log_ref, log_old, mask)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise TypeError(
                "without PyTorch or JAX the loss must return a pair: its value, and the "
                f"derivative of the sum of its value in log_pi; it returns {type(answer).__name__}."
            )
        values, gradient = map(np.asarray, answer)
        if gradient.shape != log_pi.shape:
            raise TypeError(
                f"the derivative has shape {gradient.shape} and log_pi {log_pi.shape}; it must be "
                "the derivative of the sum of the value in each entry of log_pi."
            )
        see(values.shape)
        return (np.where(mask, values, 0.0) if per_token else values).sum(), gradient

    return call
