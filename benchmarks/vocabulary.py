"""``python benchmarks/vocabulary.py``: KL of whole vocabularies beside what trainers write.

Accuracy of values and gradients, time and peak memory of forward and backward, on float32 logits.
What is right comes from the same logits in float64, summed in NumPy's longdouble. Times are medians
of interleaved repetitions. Peak memory is what PyTorch allocates beyond the logits, the two
gradients (each as large as one array of logits) included.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from klapprox.vocabulary import exact_kl, exact_kl_from_hidden

Function = Callable[[Any, Any], Any]


def naive(q: Any, p: Any) -> Any:
    """Return Σ q (log q - log p)."""
    log_q, log_p = torch.log_softmax(q, dim=-1), torch.log_softmax(p, dim=-1)
    return torch.sum(log_q.exp() * (log_q - log_p), dim=-1)


def by_kl_div(q: Any, p: Any) -> Any:
    """Return the same by PyTorch's function, whose first argument is the second law."""
    log_q, log_p = torch.log_softmax(q, dim=-1), torch.log_softmax(p, dim=-1)
    divergences = torch.nn.functional.kl_div(log_p, log_q, reduction="none", log_target=True)
    return divergences.sum(dim=-1)


def summed_k3(q: Any, p: Any) -> Any:
    """Return Σ q (r - 1 - log r), with r from two log-softmaxes."""
    log_q, log_p = torch.log_softmax(q, dim=-1), torch.log_softmax(p, dim=-1)
    log_r = log_p - log_q
    return torch.sum(log_q.exp() * (torch.expm1(log_r) - log_r), dim=-1)


FUNCTIONS: dict[str, Function] = {
    "sum of q (log q - log p)": naive,
    "F.kl_div": by_kl_div,
    "sum of q (expm1(x) - x)": summed_k3,
    "klapprox exact_kl": exact_kl,
}


def liger() -> dict[str, Function]:
    """Return the released kernel of Liger, where it can be imported; it needs Triton and a GPU."""
    try:
        from liger_kernel.transformers import LigerKLDIVLoss
    except Exception as error:  # whatever a package for other hardware raises
        print(f"Liger's kernels do not run here: {type(error).__name__}: {error}")
        return {}
    loss = LigerKLDIVLoss(reduction="none", log_target=True)

    def by_liger(q: Any, p: Any) -> Any:
        return loss(torch.log_softmax(p, dim=-1), torch.log_softmax(q, dim=-1)).sum(dim=-1)

    try:
        by_liger(torch.zeros(1, 4), torch.zeros(1, 4))
    except Exception as error:
        print(f"Liger's kernels do not run here: {type(error).__name__}: {error}")
        return {}
    return {"Liger KLDIV": by_liger}


class Allocated(TorchDispatchMode):
    """The most that tensors made under it hold at one time, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Count the storages that an operation makes, until they are freed."""
        import weakref

        out = function(*args, **(kwargs or {}))
        given = {
            z.untyped_storage()._cdata for z in tree_leaves((args, kwargs)) if torch.is_tensor(z)
        }
        for z in tree_leaves(out):
            if not torch.is_tensor(z):
                continue
            storage = z.untyped_storage()
            key = storage._cdata
            if key not in given and key not in self.alive:
                self.alive[key] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, key, None)
                self.peak = max(self.peak, sum(self.alive.values()))
        return out


def laws(spread: float, tokens: int, rows: int) -> tuple[Any, Any]:
    """Return float32 logits of two laws that differ by so much."""
    rng = np.random.Generator(np.random.PCG64(0))
    q = (3 * rng.standard_normal((rows, tokens))).astype(np.float32)
    p = (q + spread * rng.standard_normal((rows, tokens))).astype(np.float32)
    return torch.from_numpy(q), torch.from_numpy(p)


def truth(q: Any, p: Any) -> tuple[Any, Any]:
    """Return divergences and their gradients in the logits of q."""
    a, b = (z.numpy().astype(np.longdouble) for z in (q, p))
    a, b = (z - z.max(axis=-1, keepdims=True) for z in (a, b))
    log_q, log_p = (z - np.log(np.exp(z).sum(axis=-1, keepdims=True)) for z in (a, b))
    law, k1 = np.exp(log_q), log_q - log_p
    value = np.sum(law * k1, axis=-1, keepdims=True)
    return value[:, 0].astype(float), (law * (k1 - value)).astype(float)


def both(function: Function, q: Any, p: Any) -> tuple[Any, Any]:
    """Return the divergences and their gradient in the logits of q, having made both gradients."""
    q, p = q.detach().requires_grad_(), p.detach().requires_grad_()
    value = function(q, p)
    value.sum().backward()
    return value.detach(), q.grad


def accuracy(functions: dict[str, Function], tokens: int) -> None:
    """Print relative errors of values and gradients."""
    print(f"\nV = {tokens}, float32 logits, 4 laws: largest relative error of value; of gradient")
    print(f"{'KL':28}" + "".join(f"{name:>28}" for name in functions))
    cases = [(s, shift) for s in (4.7e-5, 5e-4, 5e-3, 0.05, 0.5, 5.0) for shift in (0.0, 7.25)]
    for spread, shift in cases:
        q, p = laws(spread, tokens, 4)
        p = p + shift
        value, slope = truth(q, p)
        cells = []
        for function in functions.values():
            found, found_slope = both(function, q, p)
            error = np.max(np.abs(found.numpy() / value - 1))
            norm = np.linalg.norm(found_slope.numpy() - slope) / np.linalg.norm(slope)
            cells.append(f"{error:.1e}; {norm:.1e}")
        what = f"{value.max():.1e}" + (f", logits of p + {shift}" if shift else "")
        print(f"{what:28}" + "".join(f"{cell:>28}" for cell in cells), flush=True)


def cost(calls: dict[str, Callable[[], Any]], array: float, repeats: int) -> None:
    """Print time and memory of the calls beside the first of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    base = 0.0
    for name, call in calls.items():
        with Allocated() as seen:
            call()
        seconds = statistics.median(times[name])
        base = base or seconds
        print(
            f"{name:36} {seconds:9.3f} {seconds / base:7.2f} {seen.peak / 1e6:9.1f}"
            f" {seen.peak / array:9.2f}",
            flush=True,
        )


def processor() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=128_000, help="the size of the vocabulary")
    parser.add_argument("--rows", type=int, default=64, help="how many laws are timed")
    parser.add_argument("--width", type=int, default=256, help="of the hidden states")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch; one is not disturbed")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{processor()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    functions = FUNCTIONS | liger()
    accuracy(functions, given.tokens)
    q, p = laws(0.05, given.tokens, given.rows)
    print(f"\n[{given.rows}, {given.tokens}] float32, forward and backward in both arguments")
    header = f"{'':36} {'seconds':>9} {'ratio':>7} {'peak MB':>9} {'of logits':>9}"
    print(header)
    calls: dict[str, Callable[[], Any]] = {
        name: (lambda f=function: both(f, q, p)) for name, function in functions.items()
    }
    array = 4.0 * given.rows * given.tokens
    cost(calls, array, given.repeats)
    generator = torch.Generator().manual_seed(0)
    scale = given.width**-0.5
    hidden = [torch.randn(given.rows, given.width, generator=generator) for _ in range(2)]
    weight = [scale * torch.randn(given.tokens, given.width, generator=generator) for _ in range(2)]

    def from_hidden(function: Callable[..., Any]) -> None:
        arrays = [z.detach().requires_grad_() for z in (hidden[0], weight[0], hidden[1], weight[1])]
        function(*arrays).sum().backward()

    def in_full(h_q: Any, w_q: Any, h_p: Any, w_p: Any) -> Any:
        return naive(h_q @ w_q.T, h_p @ w_p.T)

    print(
        f"\nthe same from hidden states of width {given.width}; a gradient of a matrix has "
        f"{4e-6 * given.tokens * given.width:.1f} MB"
    )
    print(header)
    calls = {"logits, sum of q (log q - log p)": lambda: from_hidden(in_full)}
    for chunk in (8, 64):
        calls[f"klapprox, chunk={chunk}"] = lambda c=chunk: from_hidden(
            lambda *arrays: exact_kl_from_hidden(*arrays, chunk=c)
        )
    cost(calls, array, given.repeats)


if __name__ == "__main__":
    main()
