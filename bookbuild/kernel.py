"""The operations of the float64 kernel, read off the package by running it, for the formal proofs.

``python -m bookbuild.kernel`` writes ``proofs/KernelCode.v``: the coefficients of
`klapprox._kernels` and its operations in their order, each followed by a rounding. A test says
whether the file is up to date. The code is given symbols in place of numbers and notes what it does
with them, so that nothing is copied by hand.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from klapprox import _kernels

FILE = Path(__file__).resolve().parents[1] / "proofs" / "KernelCode.v"
# Symbols in a block. One of them is far from 0: so few are copied one by one, the others are near.
_COPIES = 32
_SIGNS = {"add": "+", "subtract": "-", "multiply": "*"}
_COMMUTE = {"add", "multiply"}
_FILE = """\
(** * What klapprox._kernels does in float64, operation by operation

   Made by python -m bookbuild.kernel, which runs the package on symbols; not edited by hand. *)
From KL Require Import Float64.

(** The coefficients of t, exactly as float64 holds them. *)
{coefficients}

(** E is what the library returns for expm1(x). Every operation is rounded. *)
Definition k3_near (E x : R) : R :=
{near}

Definition k3_far (E x : R) : R :=
{far}

(** NumPy arrays, which are worked on block by block. *)
Definition k3_numpy (E x : R) : R :=
{numpy}

(** PyTorch and other arrays, but not JAX. *)
Definition k3_arrays (E x : R) : R :=
{arrays}
"""


@dataclass(frozen=True)
class Symbol:
    """A number that is not known: a name, or what was done to which symbols and numbers.

    If it is asked whether it is at least some number, it notes the question, and answers whether
    the argument that it comes from is far from 0.
    """

    name: str
    of: tuple[Any, ...] = ()
    is_far: bool = False
    questions: list[tuple["Symbol", float]] = field(default_factory=list, compare=False)

    dtype = np.dtype(np.float64)

    def _done(self, name: str, *of: Any) -> "Symbol":
        return Symbol(name, of, self.is_far, self.questions)

    def __add__(self, other: Any) -> "Symbol":
        return self._done("add", self, other)

    def __sub__(self, other: Any) -> "Symbol":
        return self._done("subtract", self, other)

    def __mul__(self, other: Any) -> "Symbol":
        return self._done("multiply", self, other)

    __rmul__ = __mul__  # the order of two factors is no matter

    def __ge__(self, other: Any) -> bool:
        self.questions.append((self, other))
        return self.is_far

    def __lt__(self, other: Any) -> "Symbol":
        return self._done("less", self, other)

    def __abs__(self) -> "Symbol":
        return self._done("abs", self)

    def expm1(self) -> "Symbol":
        """Return expm1 of it; this is what NumPy calls."""
        return self._done("expm1", self)


@dataclass(frozen=True)
class Code:
    """The two forms of φ, and what is compared with which number to choose between them."""

    near: Symbol
    far: Symbol
    compared: Symbol
    bound: float


def of_blocks() -> Code:
    """Return what NumPy arrays get: far where what is compared is at least the bound."""
    questions: list[tuple[Symbol, float]] = []
    given, out, *work = (np.empty(_COPIES, object) for _ in range(6))
    given[:] = [Symbol("x", (), index == 0, questions) for index in range(_COPIES)]
    _kernels._block(given, out, *work)
    (near,) = set(out[1:])  # all are treated alike
    if len({(as_coq(compared), bound) for compared, bound in questions}) != 1:
        raise ValueError("the form is not chosen by one comparison")
    return Code(near, out[0], *questions[0])


def of_arrays() -> Code:
    """Return what other arrays get: near where what is compared is less than the bound."""
    xp = SimpleNamespace(
        finfo=np.finfo,
        expm1=Symbol.expm1,
        abs=abs,
        where=lambda condition, near, far: (condition, near, far),
    )
    condition, near, far = _kernels.expm1_minus_formula(xp, Symbol("x"))
    if condition.name != "less":
        raise ValueError(f"the form is chosen by {condition.name}")
    return Code(near, far, *condition.of)


def exactly(number: float) -> str:
    """Return a float as the fraction that it is."""
    above, below = Fraction(number).as_integer_ratio()
    return str(above) if below == 1 else f"{above} / {below}"


def coefficients() -> dict[float, str]:
    """Return the names of the coefficients."""
    return {value: f"coth{power}" for power, value in enumerate(_kernels._COTH)}


def as_coq(result: Symbol) -> str:
    """Return the operations that lead to a symbol, one a line, each rounded."""
    names = coefficients()
    lines: dict[str, str] = {}

    def written(value: Any) -> str:
        if not isinstance(value, Symbol):
            return names.get(value) or f"({exactly(value)})"
        if value.name == "x":
            return "x"
        parts = [written(part) for part in value.of]
        if value.name == "expm1" and parts == ["x"]:
            return "E"
        if value.name == "abs":
            return f"Rabs {parts[0]}"
        if value.name in _COMMUTE:
            parts.sort(key=_place)
        operation = f" {_SIGNS[value.name]} ".join(parts)
        return lines.setdefault(operation, f"v{len(lines) + 1}")

    last = written(result)
    return (
        "".join(f"  let {name} := rnd ({text}) in\n" for text, name in lines.items()) + f"  {last}"
    )


def _place(part: str) -> tuple[int, int]:
    """Return the place of a factor or summand: the latest result first, numbers last."""
    return "vExc(".index(part[0]), -int(part[1:]) if part[0] == "v" else 0


def source() -> str:
    """Return the file: the coefficients, both forms, and how they are chosen."""
    blocks, arrays = of_blocks(), of_arrays()
    forms = [as_coq(blocks.near), as_coq(blocks.far)]
    if forms != [as_coq(arrays.near), as_coq(arrays.far)]:
        raise ValueError("NumPy arrays and other arrays are computed in different ways")
    *before, square = as_coq(blocks.compared).splitlines()
    size = as_coq(arrays.compared).strip()
    return _FILE.format(
        coefficients="\n".join(
            f"Definition {name} : R := {exactly(value)}. (* {value!r} *)"
            for value, name in coefficients().items()
        ),
        near=f"{forms[0]}.",
        far=f"{forms[1]}.",
        numpy="\n".join([*before, f"  if Rle_dec ({exactly(blocks.bound)}) {square.strip()} then"])
        + " k3_far E x else k3_near E x.",
        arrays=f"  if Rlt_dec ({size}) {exactly(arrays.bound)} then k3_near E x else k3_far E x.",
    )


if __name__ == "__main__":
    FILE.write_text(source(), encoding="utf-8")
