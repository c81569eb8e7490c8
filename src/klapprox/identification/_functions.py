"""The functions of the log-ratio that a loss can be, and the coefficients that it can have."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["COEFFICIENTS", "DIRECTIONS", "RATIOS", "VALUES", "Function"]

Array = NDArray[np.float64]


class Function(NamedTuple):
    """A function of the log-ratio x, elementwise, with the words for it."""

    key: str
    text: str
    of: Callable[[Any], Any]


def _k3(x: Any) -> Any:
    return np.expm1(x) - x


# Of u, the log of a ratio; k1 first, since a clamp of it looks like nothing else.
VALUES = (
    Function("k1", "k1", lambda u: -u),
    Function("k2", "k2", lambda u: u**2 / 2),
    Function("k3", "k3", _k3),
    Function("abs_k1", "|k1|", np.abs),
)

# What is put into the function, as coefficients of (log π, log π_ref, log π_old).
RATIOS = {
    "pi_ref/pi": (-1, 1, 0),
    "pi/pi_ref": (1, -1, 0),
    "pi_ref/pi_old": (0, 1, -1),
    "pi_old/pi_ref": (0, -1, 1),
    "pi_old/pi": (-1, 0, 1),
    "pi/pi_old": (1, 0, -1),
}

# Of which divergence a function of the ratio p/q is an estimator, for samples of q.
DIRECTIONS = {
    "pi_ref/pi": "KL(π‖π_ref)",
    "pi/pi_ref": "KL(π_ref‖π)",
    "pi_ref/pi_old": "KL(π_old‖π_ref)",
    "pi_old/pi_ref": "KL(π_ref‖π_old)",
    "pi_old/pi": "KL(π‖π_old)",
    "pi/pi_old": "KL(π_old‖π)",
}

# Coefficients of the score as functions of x = log(π_ref/π).
COEFFICIENTS = (
    Function("one", "1, that of k1", np.ones_like),
    Function("minus_log_r", "-log r, that of k2", lambda x: -x),
    Function("one_minus_r", "1 - r, that of k3", lambda x: -np.expm1(x)),
    Function(
        "inverse_r_minus_one", "1/r - 1, that of k3 of the swapped pair", lambda x: np.expm1(-x)
    ),
    Function("sign", "the sign of k1, that of |k1|", lambda x: -np.sign(x)),
    Function("k1_plus_one", "k1 + 1", lambda x: 1 - x),
    Function("k2", "k2", lambda x: x**2 / 2),
    Function("k3", "k3", _k3),
    Function("abs_k1", "|k1|", np.abs),
    Function("k2_plus_k1", "k2 + k1", lambda x: x**2 / 2 - x),
    Function("abs_k1_plus_sign", "|k1| + the sign of k1", lambda x: np.abs(x) - np.sign(x)),
    Function("k3_swapped", "k3 of the swapped pair", lambda x: _k3(-x)),
    Function(
        "k3_swapped_weighted",
        "k3 of the swapped pair plus 1/r - 1",
        lambda x: _k3(-x) + np.expm1(-x),
    ),
)
