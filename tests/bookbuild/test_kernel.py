"""The formal proofs are about the kernel that the package has: its coefficients, its operations."""

import re
from fractions import Fraction

import numpy as np
import pytest

import klapprox as kl
from bookbuild import kernel
from klapprox import _kernels


def test_the_committed_file_is_up_to_date():
    assert kernel.FILE.read_text(encoding="utf-8") == kernel.source(), (
        "the float64 kernel has changed: run python -m bookbuild.kernel, then make proofs"
    )


def test_other_coefficients_make_another_file(monkeypatch):
    before = kernel.source()
    changed = (*_kernels._COTH[:-1], np.nextafter(_kernels._COTH[-1], 1.0))
    monkeypatch.setattr(_kernels, "_COTH", changed)
    assert kernel.source() != before


def test_another_order_of_operations_is_noticed(monkeypatch):
    before = kernel.as_coq(kernel.of_arrays().near)
    horner = _kernels._z_t
    monkeypatch.setattr(_kernels, "_z_t", lambda z: z * horner(z) * (1 / 3))
    assert kernel.as_coq(kernel.of_arrays().near) != before
    with pytest.raises(ValueError, match="in different ways"):
        kernel.source()


def test_another_choice_between_the_forms_is_noticed(monkeypatch):
    def formula(xp, x):
        return xp.where(xp.abs(x) < 2.0, xp.expm1(x), xp.expm1(x) - x)

    monkeypatch.setattr(_kernels, "expm1_minus_formula", formula)
    assert kernel.of_arrays().bound == 2.0


def test_fractions_are_exact():
    for value in (*_kernels._COTH, 0.5, 1.0):
        above, _, below = kernel.exactly(value).partition(" / ")
        assert Fraction(int(above), int(below or 1)) == Fraction(value)


def test_the_lines_of_the_file_compute_what_the_package_computes():
    lines = re.findall(r"let (\w+) := rnd \((.*)\) in", kernel.as_coq(kernel.of_blocks().near))
    x = np.linspace(-1, 1, 2001)[1:-1]
    names = {"x": x, "E": np.expm1(x)} | {n: v for v, n in kernel.coefficients().items()}
    for name, operation in lines:
        names[name] = eval(operation, {}, names)
    assert np.array_equal(names[lines[-1][0]], kl.k3(x))
