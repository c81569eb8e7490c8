"""``make bench``: time, memory and accuracy side by side, as ratios measured in one run.

Times are medians of interleaved repetitions, so that a slow moment of the machine hits all rows
alike; what counts is the column of ratios. Peak memory is what NumPy allocates beyond the inputs.
"""

import argparse
import shutil
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import mpmath as mp
import numpy as np

import klapprox as kl

Row = tuple[str, Callable[[], Any]]


def naive(x: Any) -> Any:
    """Return k3 as most code has it."""
    return np.exp(x) - x - 1


def by_expm1(x: Any) -> Any:
    """Return k3 as careful code has it."""
    return np.expm1(x) - x


def clamped(x: Any) -> Any:
    """Return k3 between two clamps, as trainers have it."""
    x = np.clip(x, -20, 20)
    return np.clip(np.exp(x) - x - 1, -10, 10)


FORMULAS = {
    "exp(x) - x - 1": naive,
    "expm1(x) - x": by_expm1,
    "the first, clamped": clamped,
    "klapprox.k3": kl.k3,
}


def measured(rows: list[Row], repeats: int) -> Iterator[tuple[str, float, float]]:
    """Yield name, median seconds and peak MB of each row."""
    times: dict[str, list[float]] = {name: [] for name, _ in rows}
    for _ in range(repeats):
        for name, call in rows:
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    for name, call in rows:
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        yield name, statistics.median(times[name]), peak / 1e6


def report(title: str, size: int, rows: list[Row], notes: dict[str, str]) -> None:
    """Print one block of the table; the first row is what the others are compared with."""
    repeats = 3 if size >= 10**8 else 7 if size >= 10**6 else 100
    base = 0.0
    for name, seconds, peak in measured(rows, repeats):
        base = base or seconds
        print(
            f"{title:22} {name:26} {seconds / size * 1e9:8.2f} {seconds / base:8.2f} {peak:10.1f}"
            f" {notes.get(name, ''):>12}"
        )


def worst_ulp(formula: Callable[[Any], Any], dtype: Any, rng: np.random.Generator) -> str:
    """Return the largest error in units of the last place, over sizes from 1e-10 to 3."""
    sizes = 10 ** rng.uniform(-10, 0.5, 2000) * rng.choice([-1, 1], 2000)
    x = sizes.astype(dtype)
    worst = mp.mpf(0)
    with mp.workdps(50):
        for value, result in zip(x, formula(x), strict=True):
            exact = mp.expm1(mp.mpf(float(value))) - mp.mpf(float(value))
            ulp = mp.ldexp(1, int(mp.floor(mp.log(exact, 2))) - np.finfo(dtype).nmant)
            worst = max(worst, abs(mp.mpf(float(result)) - exact) / ulp)
    return f"{float(worst):.1e}"


def with_torch(size: int) -> list[Row]:
    """Return the same rows for PyTorch, if it is installed (make test-arrays installs it)."""
    try:
        import torch
    except ImportError:
        return []
    x = 0.3 * torch.randn(size, generator=torch.Generator().manual_seed(0))
    rows: list[Row] = [
        ("torch exp(x) - x - 1", lambda: torch.exp(x) - x - 1),
        ("torch expm1(x) - x", lambda: torch.expm1(x) - x),
        ("torch klapprox.k3", lambda: kl.k3(x)),
    ]
    if shutil.which("c++"):  # which torch.compile needs
        compiled = torch.compile(kl.k3)
        compiled(x)
        rows.append(("the same, torch.compile", lambda: compiled(x)))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**6, 10**8])
    sizes = parser.parse_args().sizes
    rng = np.random.Generator(np.random.PCG64(0))
    print(f"{'what':22} {'how':26} {'ns each':>8} {'ratio':>8} {'peak MB':>10} {'worst ulp':>12}")
    for dtype in (np.float64, np.float32):
        notes = {name: worst_ulp(f, dtype, rng) for name, f in FORMULAS.items()}
        for size in sizes:
            x = (0.3 * rng.standard_normal(size, dtype=np.float32)).astype(dtype)
            rows: list[Row] = [(name, lambda f=f: f(x)) for name, f in FORMULAS.items()]  # noqa: B023
            report(f"k3, {np.dtype(dtype).name}, {size:.0e}", size, rows, notes)
    for size in sizes:
        if rows := with_torch(size):
            report(f"k3, torch, {size:.0e}", size, rows, {})
    for size in (s for s in sizes if s < 10**8):
        log_q = rng.standard_normal(size)
        log_p = log_q + 0.1 * rng.standard_normal(size) - 0.005

        def chunked(log_q: Any = log_q, log_p: Any = log_p) -> Any:
            parts = zip(np.array_split(log_q, 100), np.array_split(log_p, 100), strict=True)
            return kl.stream_kl(parts).estimate()

        rows = [
            ("mean of the one-liner", lambda p=log_p, q=log_q: naive(p - q).mean()),
            ("klapprox.estimate_kl", lambda p=log_p, q=log_q: kl.estimate_kl(q, p)),
            ("klapprox.stream_kl, 100", chunked),
        ]
        report(f"estimate, {size:.0e}", size, rows, {})


if __name__ == "__main__":
    main()
