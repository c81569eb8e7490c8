"""``python -m klapprox scores.jsonl``: an honest estimate of KL(q‖p) from a file."""

import argparse
import sys
import warnings
from collections.abc import Sequence

from klapprox.diagnostics import KLWarning
from klapprox.estimate import estimate_kl
from klapprox.estimators import ESTIMATORS, K_LAMBDA
from klapprox.files import read_log_probabilities

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the estimate for a file of log-probabilities; return 0, or 1 with a message."""
    parser = argparse.ArgumentParser(prog="python -m klapprox", description=__doc__)
    parser.add_argument("file", help="log_q and log_p in nats, as .npz, .jsonl or .parquet")
    parser.add_argument("--estimator", default="k3", choices=[*ESTIMATORS, K_LAMBDA])
    parser.add_argument("--level", default="sequence", choices=["sequence", "token"])
    options = parser.parse_args(arguments)
    try:
        data = read_log_probabilities(options.file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", KLWarning)  # the report holds them
            result = estimate_kl(
                data.log_q,
                data.log_p,
                estimator=options.estimator,
                level=options.level,
                mask=data.mask,
                groups=data.groups,
            )
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
