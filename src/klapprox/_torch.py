"""The estimators as PyTorch differentiates them: by closed forms that keep nothing but log r.

Imported only where a tensor is given. On a processor long tensors are worked on block by block, in
its cache; under ``torch.compile`` and on other devices in one piece.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import array_api_compat.torch as xp
import torch

from klapprox import _kernels
from klapprox._arrays import is_compiling
from klapprox._tokens import How, Tokens, ratios, row_sums, token_credits

__all__ = ["expm1_minus", "k3", "k3_forward", "token_terms"]

_BLOCK = 2**15  # numbers worked on at a time: some float64 arrays of them fit into a cache
_WITHOUT_FLOAT64 = {"mps", "xla"}  # where making a float64 tensor is an error, or very slow


def _wider(x: Any) -> Any:
    """Return the dtype one precision up, where the device has one."""
    if x.dtype in (torch.float16, torch.bfloat16):
        return torch.float32
    return torch.float32 if x.device.type in _WITHOUT_FLOAT64 else torch.float64


def _in_one_piece(x: Any) -> bool:
    """Return whether blocks would not help, or stand in the way of what records operations."""
    return bool(
        is_compiling()
        or x.device.type != "cpu"
        or x.numel() <= _BLOCK
        or torch.is_grad_enabled()
        or torch._C._are_functorch_transforms_active()
    )


def _k3_of(x: Any) -> Any:
    """Return k3 of x, in the dtype of x but computed one precision up, for one piece."""
    return _wide_k3(x).to(x.dtype)


def _wide_k3(x: Any) -> Any:
    wide = _wider(x)
    if x.dtype == torch.float32 and wide == torch.float64:
        return _by_the_larger(x.to(wide))
    return _kernels.expm1_minus_formula(xp, x.to(wide))


def _by_the_larger(x: Any) -> Any:
    """Return exp(x) - 1 - x in float64 to 2⁻³² of it, without expm1, which takes its time here.

    Four terms of the series are never more than the function (``thm-accurate-kernel``), and for
    abs(x) < 2⁻⁶ they are as good as that; lowered by 2⁻⁵⁰, so is the difference, whatever it is
    rounded to, and beyond the 2⁻⁵⁰ do not show. So the larger of the two is right.
    """
    series = (x * (1 / 120)).add_(1 / 24).mul_(x).add_(1 / 6).mul_(x).add_(0.5).mul_(x).mul_(x)
    return torch.maximum(torch.exp(x).sub_(1.0 + 2.0**-50).sub_(x), series)


def _by_pieces(formula: Callable[[Any], Any], x: Any) -> Any:
    """Return an elementwise function of a tensor."""
    if _in_one_piece(x):
        return formula(x)
    out = torch.empty(x.shape, dtype=x.dtype)
    for given, wanted in zip(x.reshape(-1).split(_BLOCK), out.view(-1).split(_BLOCK), strict=True):
        wanted.copy_(formula(given))
    return out


def _differentiable(
    value: Callable[[Any], Any], slope: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Return an elementwise function with this derivative, which may be differentiated again."""

    class Compiled(torch.autograd.Function):  # type: ignore[misc]
        generate_vmap_rule = True

        @staticmethod
        def forward(x: Any) -> Any:
            return _by_pieces(value, x)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(inputs[0])
            ctx.save_for_forward(inputs[0])

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return gradient * _by_pieces(slope, ctx.saved_tensors[0])

    class Eager(Compiled):
        @staticmethod
        def jvp(ctx: Any, tangent: Any) -> Any:
            return tangent * _by_pieces(slope, ctx.saved_tensors[0])

    def function(x: Any) -> Any:
        # torch.compile refuses a function with a forward derivative of its own.
        return (Compiled if is_compiling() else Eager).apply(x)

    return function


def _k3_forward_of(x: Any) -> Any:
    return _kernels.forward_formula(xp, x.to(_wider(x))).to(x.dtype)


def _slope_of_k3_forward(x: Any) -> Any:
    wide = x.to(_wider(x)).clamp(min=-750.0)  # below, the product is 0, and not inf · 0
    return (wide * torch.exp(wide)).to(x.dtype)


def _expm1(x: Any) -> Any:
    if x.dtype in (torch.float16, torch.bfloat16):
        return _kernels.expm1(xp, x.to(_wider(x))).to(x.dtype)
    return _kernels.expm1(xp, x)


expm1_minus = _differentiable(lambda x: _kernels.expm1_minus_formula(xp, x), _expm1)
k3 = _differentiable(_k3_of, _expm1)
k3_forward = _differentiable(_k3_forward_of, _slope_of_k3_forward)


def token_terms(how: How, given: Tokens, *, summed: bool) -> tuple[Any, Any]:
    """Return the values of `klapprox.kl_loss` and their evidence (see `ratios`).

    The gradient in ``log_pi`` is computed from the arguments, of which nothing else is kept. It
    depends on no argument as far as PyTorch is concerned: its derivative is zero.
    """
    return _TokenTerms.apply(*given, *how, summed)  # type: ignore[no-any-return]


class _TokenTerms(torch.autograd.Function):  # type: ignore[misc]
    generate_vmap_rule = True

    @staticmethod
    def forward(
        log_pi: Any,
        log_ref: Any,
        log_old: Any,
        mask: Any,
        level: str,
        max_weight: float | None,
        clamp: float | None,
        summed: bool,
    ) -> tuple[Any, Any]:
        how = How(level, max_weight, clamp)

        def of_rows(*rows: Any) -> tuple[Any, Any]:
            x, log_w, evidence = ratios(xp, how, Tokens(*rows))
            if evidence is None:
                evidence = x.new_zeros(x.shape[:-1])
            return row_sums(xp, _wide_k3(x), log_w, summed=summed).to(x.dtype), evidence

        given = (log_pi, log_ref, log_old, mask)
        if _in_one_piece(log_pi):
            return of_rows(*given)
        values, evidences = zip(
            *(of_rows(*rows) for rows in _blocks_of_rows(log_pi.shape, *given)), strict=True
        )
        shape = log_pi.shape[:-1]
        return (
            torch.cat(values).view(shape if summed else log_pi.shape),
            torch.cat(evidences).view(shape),
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *given, level, max_weight, clamp, ctx.summed = inputs
        ctx.how = How(level, max_weight, clamp)
        ctx.save_for_backward(*given)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Any, _: Any) -> Any:
        given = Tokens(*ctx.saved_tensors).fixed()
        log_pi = given.log_pi
        gradient = gradient.unsqueeze(-1) if ctx.summed else gradient

        def of_rows(gradient: Any, *rows: Any) -> Any:
            x, log_w, _ = ratios(xp, ctx.how, Tokens(*rows))
            credit = token_credits(xp, ctx.how, x, log_w, rows[-1])
            return (gradient * credit).to(log_pi.dtype)

        if _in_one_piece(log_pi):
            slope = of_rows(gradient, *given)
        else:
            slope = torch.empty(log_pi.shape, dtype=log_pi.dtype)
            blocks = _blocks_of_rows(log_pi.shape, slope, gradient, *given)
            for wanted, *rows in blocks:
                wanted.copy_(of_rows(*rows))
        return (slope, *(None,) * 7)


def _blocks_of_rows(shape: Any, *arrays: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the arrays, of this shape or with one number a row, some rows at a time."""
    rows = max(1, _BLOCK // shape[-1])
    flat = [z if z is None else z.reshape(-1, z.shape[-1]) for z in arrays]
    for start in range(0, math.prod(shape[:-1]), rows):
        yield tuple(z if z is None else z[start : start + rows] for z in flat)
