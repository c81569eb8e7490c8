"""The package's public face is small, and so is what importing it costs."""

import subprocess
import sys

import klapprox


def test_the_public_names_are_these():
    names = (
        "KLEstimate KLStream KLWarning estimate_kl k1 k2 k3 k3_forward k_alpha k_f k_lambda kl_loss"
    )
    more = "log_ratio read_log_probabilities straight_through stream_dask stream_kl weighted"
    assert klapprox.__all__ == [*names.split(), *more.split()]
    assert all(callable(getattr(klapprox, name)) for name in klapprox.__all__)


def test_importing_the_package_loads_none_of_the_books_libraries():
    code = "import klapprox, sys; print(*{'sympy', 'matplotlib', 'scipy'} & sys.modules.keys())"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []
