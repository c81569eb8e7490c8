"""The functions of the log-ratio that a loss can be, and the coefficients that it can have."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "COEFFICIENTS",
    "DIRECTIONS",
    "RATIOS",
    "SLOPES",
    "VALUES",
    "Function",
    "argument",
    "coefficients_with",
    "k_lambda",
]


class Function(NamedTuple):
    """A function of the log-ratio u, elementwise, with the words for it."""

    key: str
    text: str
    of: Callable[[Any], Any]


def _k3(u: Any) -> Any:
    return np.expm1(u) - u


VALUES = (
    Function("k1", "k1", lambda u: -u),
    Function("k2", "k2", lambda u: u**2 / 2),
    Function("k3", "k3", _k3),
    Function("abs_k1", "|k1|", np.abs),
)
"""Values of one token as functions of the log of the ratio."""


def k_lambda(lam: float) -> Function:
    """Return k_lambda = -u + λ(e^u - 1)."""
    return Function("k_lambda", "k_lambda", lambda u: -u + lam * np.expm1(u))


RATIOS = {
    "pi_ref/pi": (-1, 1, 0),
    "pi/pi_ref": (1, -1, 0),
    "pi_ref/pi_old": (0, 1, -1),
    "pi_old/pi_ref": (0, -1, 1),
    "pi_old/pi": (-1, 0, 1),
    "pi/pi_old": (1, 0, -1),
}
"""Ratios whose log is put into a function: coefficients of log π, log π_ref, log π_old."""

DIRECTIONS = {
    "pi_ref/pi": "KL(π‖π_ref)",
    "pi/pi_ref": "KL(π_ref‖π)",
    "pi_ref/pi_old": "KL(π_old‖π_ref)",
    "pi_old/pi_ref": "KL(π_ref‖π_old)",
    "pi_old/pi": "KL(π‖π_old)",
    "pi/pi_old": "KL(π_old‖π)",
}
"""The divergence that a function of p/q is an estimator of, for samples of q."""


def argument(ratio: str, log_pi: Any, log_ref: Any, log_old: Any) -> Any:
    """Return the log of the ratio."""
    a, b, c = RATIOS[ratio]
    return a * log_pi + b * log_ref + c * log_old


COEFFICIENTS = (
    Function("one", "1, that of k1", np.ones_like),
    Function("minus_log_r", "-log r, that of k2", lambda u: -u),
    Function("one_minus_r", "1 - r, that of k3", lambda u: -np.expm1(u)),
    Function(
        "inverse_r_minus_one", "1/r - 1, that of k3 of the swapped pair", lambda u: np.expm1(-u)
    ),
    Function("sign", "the sign of k1, that of |k1|", lambda u: -np.sign(u)),
    Function("k1_plus_one", "k1 + 1", lambda u: 1 - u),
    Function("k2", "k2", lambda u: u**2 / 2),
    Function("k3", "k3", _k3),
    Function("abs_k1", "|k1|", np.abs),
    Function("k2_plus_k1", "k2 + k1", lambda u: u**2 / 2 - u),
    Function("abs_k1_plus_sign", "|k1| + the sign of k1", lambda u: np.abs(u) - np.sign(u)),
    Function("k3_swapped", "k3 of the swapped pair", lambda u: _k3(-u)),
    Function(
        "k3_swapped_weighted",
        "k3 of the swapped pair + 1/r - 1",
        lambda u: _k3(-u) + np.expm1(-u),
    ),
)
"""Coefficients of the score as functions of log r; see ``thm-gradient-coefficients``."""


def coefficients_with(lam: float | None) -> tuple[Function, ...]:
    """Return the coefficients, those of k_lambda among them if λ is known."""
    if lam is None:
        return COEFFICIENTS
    return (
        *COEFFICIENTS,
        Function("one_minus_lambda_r", "1 - λr, that of k_lambda", lambda u: 1 - lam * np.exp(u)),
        Function("k_lambda", "k_lambda", k_lambda(lam).of),
        Function("k1_plus_one_minus_lambda", "k1 + 1 - λ", lambda u: 1 - lam - u),
    )


SLOPES = {
    ("k1", False): ("one", "k1_plus_one", "minus_log_r"),
    ("k1", True): ("one", "k1_plus_one", "minus_log_r"),
    ("k2", False): ("minus_log_r", "k2_plus_k1", "k2"),
    ("k2", True): ("minus_log_r", "k2_plus_k1", "k2"),
    ("k3", False): ("one_minus_r", "minus_log_r", "k3"),
    ("k3", True): ("inverse_r_minus_one", "k3_swapped_weighted", "k3_swapped"),
    ("abs_k1", False): ("sign", "abs_k1_plus_sign", "abs_k1"),
    ("k_lambda", False): ("one_minus_lambda_r", "k1_plus_one_minus_lambda", "k_lambda"),
}
"""By value and whether the pair is swapped: the coefficients beside a weight that is not
differentiated, that is, and that alone is (the columns of ``thm-gradient-coefficients``)."""
