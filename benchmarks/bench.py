"""``make bench``: time, memory and accuracy side by side, as ratios measured in one run.

Times are medians of interleaved repetitions, so that a slow moment of the machine hits all rows
alike; what counts is the column of ratios. They are seconds of the processor on one thread
(``--wall`` for those of the clock, ``--threads``): a machine that is busy otherwise then matters
less. Peak memory is what NumPy or PyTorch allocates beyond the inputs.
"""

import argparse
import contextlib
import os
import platform
import shutil
import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np

import klapprox as kl

Row = tuple[str, Callable[[], Any]]
CLOCK = time.process_time


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


def traced_peak(call: Callable[[], Any]) -> float:
    """Return the bytes that NumPy holds at most during the call."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return float(peak)


def measured(
    rows: list[Row], repeats: int, peak_of: Callable[[Callable[[], Any]], float]
) -> Iterator[tuple[str, float, float]]:
    """Yield name, median seconds and peak MB of each row."""
    times: dict[str, list[float]] = {name: [] for name, _ in rows}
    for _, call in rows:
        call()
    for _ in range(repeats):
        for name, call in rows:
            start = CLOCK()
            call()
            times[name].append(CLOCK() - start)
    for name, call in rows:
        yield name, statistics.median(times[name]), peak_of(call) / 1e6


def report(
    title: str,
    size: int,
    rows: list[Row],
    notes: dict[str, str],
    peak_of: Callable[[Callable[[], Any]], float] = traced_peak,
) -> None:
    """Print one block of the table; the first row is what the others are compared with."""
    repeats = 3 if size >= 10**8 else 7 if size >= 10**6 else 100
    base = 0.0
    for name, seconds, peak in measured(rows, repeats, peak_of):
        base = base or seconds
        print(
            f"{title:26} {name:30} {seconds / size * 1e9:8.2f} {seconds / base:8.2f} {peak:10.1f}"
            f" {notes.get(name, ''):>12}",
            flush=True,
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


def with_numpy(sizes: list[int], rng: np.random.Generator) -> None:
    """Print the rows of k3 for arrays of normal log-ratios of three spreads."""
    for dtype in (np.float64, np.float32):
        notes = {name: worst_ulp(f, dtype, rng) for name, f in FORMULAS.items()}
        for size in sizes:
            for spread in (0.05, 0.3, 2.0):
                x = (spread * rng.standard_normal(size, dtype=np.float32)).astype(dtype)
                rows: list[Row] = [(name, lambda f=f: f(x)) for name, f in FORMULAS.items()]  # noqa: B023
                report(f"k3, {np.dtype(dtype).name}, {size:.0e}, {spread}", size, rows, notes)


def with_torch(threads: int) -> None:
    """Print the rows of training in PyTorch, if it is installed (make test-arrays installs it)."""
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: make test-arrays installs it.")
        return
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)

    def one_liner(pi: Any, ref: Any, old: Any, mask: Any) -> Any:
        x = ref - pi
        k3 = torch.exp(x) - x - 1
        if old is not None:
            k3 = k3 * torch.exp(pi.detach() - old)
        return (k3 * mask).sum(dim=-1)

    def loss(level: str) -> Callable[..., Any]:
        def of(pi: Any, ref: Any, old: Any, mask: Any) -> Any:
            return kl.kl_loss(pi, ref, log_old=old, mask=mask, level=level)

        return of

    def k3(pi: Any, ref: Any, old: Any, mask: Any) -> Any:
        return kl.k3(ref - pi)

    def without_mask(pi: Any, ref: Any, old: Any, mask: Any) -> Any:
        x = ref - pi
        return torch.exp(x) - x - 1

    for shape in ((64, 4096), (512, 8192)):
        pi = -1.0 - torch.rand(shape, generator=generator)
        ref = pi + 0.1 * torch.randn(shape, generator=generator)
        old = pi + 0.001 * torch.randn(shape, generator=generator)
        mask = torch.rand(shape, generator=generator) < 0.9

        def trained(f: Callable[..., Any], old: Any = None) -> Callable[[], Any]:
            def call() -> Any:
                x = pi.detach().requires_grad_()  # noqa: B023
                f(x, ref, old, mask).sum().backward()  # noqa: B023

            return call

        def forward(f: Callable[..., Any]) -> Callable[[], Any]:
            return lambda: f(pi, ref, None, mask)  # noqa: B023

        size = pi.numel()
        name = f"[{shape[0]}, {shape[1]}]"
        blocks: dict[str, list[Row]] = {
            "loss": [
                ("masked exp(x) - x - 1", trained(one_liner)),
                ("kl_loss, token", trained(loss("token"))),
                ("kl_loss, sequence", trained(loss("sequence"))),
            ],
            "loss, off-policy": [
                ("the same with weights", trained(one_liner, old)),
                ("kl_loss, token", trained(loss("token"), old)),
                ("kl_loss, sequence", trained(loss("sequence"), old)),
            ],
            "k3": [("exp(x) - x - 1", forward(without_mask)), ("klapprox.k3", forward(k3))],
            "k3 and gradient": [
                ("exp(x) - x - 1", trained(without_mask)),
                ("klapprox.k3", trained(k3)),
            ],
        }
        if shutil.which("c++"):  # which torch.compile needs
            whole = {"fullgraph": True, "dynamic": False}
            blocks["loss, compiled"] = [
                ("masked exp(x) - x - 1", trained(torch.compile(one_liner, **whole))),
                ("kl_loss, token", trained(torch.compile(loss("token"), **whole))),
                ("kl_loss, sequence", trained(torch.compile(loss("sequence"), **whole))),
            ]
        for title, rows in blocks.items():
            report(f"{title} {name}", size, rows, {}, allocated_peak)


def allocated_peak(call: Callable[[], Any]) -> float:
    """Return the bytes that tensors hold at most during the call.

    PyTorch's profiler reports every allocation, those of compiled code included.
    """
    from torch.profiler import ProfilerActivity, profile

    with without_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    held = peak = 0
    for event in sorted(seen.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return float(peak)


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
    """Drop what the profiler writes past Python to the standard error."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def with_estimates(sizes: list[int], rng: np.random.Generator) -> None:
    """Print the rows of whole estimates."""
    for size in (s for s in sizes if s < 10**8):
        log_q = rng.standard_normal(size)
        log_p = log_q + 0.1 * rng.standard_normal(size) - 0.005

        def chunked(log_q: Any = log_q, log_p: Any = log_p) -> Any:
            parts = zip(np.array_split(log_q, 100), np.array_split(log_p, 100), strict=True)
            return kl.stream_kl(parts).estimate()

        rows: list[Row] = [
            ("mean of the one-liner", lambda p=log_p, q=log_q: naive(p - q).mean()),
            ("klapprox.estimate_kl", lambda p=log_p, q=log_q: kl.estimate_kl(q, p)),
            ("klapprox.stream_kl, 100", chunked),
        ]
        report(f"estimate, {size:.0e}", size, rows, {})


def processor() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()


def main() -> None:
    """Print the table."""
    global CLOCK
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**6])
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--wall", action="store_true", help="time by the clock")
    given = parser.parse_args()
    if given.wall:
        CLOCK = time.perf_counter
    warnings.simplefilter("ignore")
    rng = np.random.Generator(np.random.PCG64(0))
    print(f"{processor()}, NumPy {np.__version__}, klapprox {kl.__version__}")
    print(f"{'what':26} {'how':30} {'ns each':>8} {'ratio':>8} {'peak MB':>10} {'worst ulp':>12}")
    with_numpy(given.sizes, rng)
    with_torch(given.threads)
    with_estimates(given.sizes, rng)


if __name__ == "__main__":
    main()
