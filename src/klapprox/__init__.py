"""Estimators of KL(q‖p) from samples x ~ q, as proved in the book *Approximating KL Divergence*.

The estimators are functions of the log-ratio ``log_r = log p(x) - log q(x)``; `estimate_kl` turns
log-probabilities into an estimate with error bar and diagnostics. The modules `symbolic`, `verify`
and `figures` serve the book; they need its extra: ``pip install "klapprox[book]"``.

Examples
--------
>>> import numpy as np
>>> import klapprox as kl
>>> log_r = kl.log_ratio(log_q=np.log([0.5, 0.25]), log_p=np.log([0.25, 0.5]))
>>> kl.k3(log_r).round(4).tolist()
[0.1931, 0.3069]
"""

from klapprox.estimate import KLEstimate, KLWarning, estimate_kl
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
