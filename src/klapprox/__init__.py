"""Estimators of KL(q‖p) from samples x ~ q, as proved in the book *Approximating KL Divergence*.

The estimators are functions of the log-ratio ``log_r = log p(x) - log q(x)``; `estimate_kl` turns
log-probabilities into an estimate with error bar and diagnostics; `kl_loss` is a term of a loss.
Whoever knows both laws finds exact values in `families`, `sequences` and `policies`, which live in
`klapprox.exact`; whoever holds the logits of whole vocabularies finds their divergences in
`vocabulary`; whoever has a loss and asks what it optimises calls `identify`. The folder
`klapprox.book` serves the chapters and needs their extra: ``pip install "klapprox[book]"``.

Examples
--------
>>> import numpy as np
>>> import klapprox as kl
>>> log_r = kl.log_ratio(log_q=np.log([0.5, 0.25]), log_p=np.log([0.25, 0.5]))
>>> kl.k3(log_r).round(4).tolist()
[0.1931, 0.3069]
"""

import importlib
from typing import Any

from klapprox.diagnostics import KLWarning
from klapprox.estimate import KLEstimate, estimate_kl
from klapprox.estimators import k1, k2, k3, k3_forward, k_alpha, k_f, k_lambda, log_ratio
from klapprox.files import read_log_probabilities
from klapprox.losses import kl_loss, straight_through, weighted
from klapprox.streaming import KLStream, stream_dask, stream_kl

__all__ = [
    "KLEstimate",
    "KLStream",
    "KLWarning",
    "estimate_kl",
    "k1",
    "k2",
    "k3",
    "k3_forward",
    "k_alpha",
    "k_f",
    "k_lambda",
    "kl_loss",
    "log_ratio",
    "read_log_probabilities",
    "straight_through",
    "stream_dask",
    "stream_kl",
    "weighted",
]

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Import what not everybody needs when it is asked for: vocabularies, the rooms of `exact`."""
    if name == "vocabulary":
        return importlib.import_module("klapprox.vocabulary")
    if name == "identify":
        return importlib.import_module("klapprox.identification").identify
    if name in ("families", "policies", "sequences"):
        return importlib.import_module(f"klapprox.exact.{name}")
    raise AttributeError(f"module 'klapprox' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return all names, those that are imported when asked for included."""
    return sorted({*globals(), "families", "identify", "policies", "sequences", "vocabulary"})
