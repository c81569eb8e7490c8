"""``klapprox scores.jsonl``: an honest estimate of KL(q‖p) from a file of log-probabilities."""

import argparse
import dataclasses
import json
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from klapprox.diagnostics import KLWarning
from klapprox.estimate import KLEstimate, estimate_kl
from klapprox.estimators import ESTIMATORS, K_LAMBDA
from klapprox.files import LogProbabilities, read_log_probabilities

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the estimates for a file of log-probabilities; return 0, or 1 with a message."""
    options = _parser().parse_args(arguments)
    others = [name for name in (options.old, options.rollout) if name]
    try:
        data = read_log_probabilities(options.file, others=others)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", KLWarning)  # the report holds them
            results = dict(_estimates(data, options))
        if options.plot:
            from klapprox._plot import save_plot  # Matplotlib, which nothing else needs

            save_plot(options.plot, data, options.estimator, options.confidence)
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({name: _as_json(dataclasses.asdict(r)) for name, r in results.items()}))
    elif others:
        print("\n\n".join(f"{name}\n{result}" for name, result in results.items()))
    else:
        print(*results.values())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="klapprox", description=__doc__)
    parser.add_argument(
        "file",
        help="log_q and log_p in nats, as .npz, .jsonl, .csv or .parquet; - for .jsonl from "
        "standard input",
    )
    parser.add_argument("--estimator", default="k3", choices=[*ESTIMATORS, K_LAMBDA])
    parser.add_argument("--level", default="sequence", choices=["sequence", "token"])
    parser.add_argument("--confidence", type=float, default=0.95, help="level of the interval")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="save running mean, tails of log r and value per position (.svg, .pdf, .png)",
    )
    laws = parser.add_argument_group(
        "four laws",
        "With these, log_q scores the current policy and log_p the reference; the samples come "
        "from the engine, or without --rollout from the old policy, and are weighted.",
    )
    laws.add_argument("--old", metavar="NAME", help="scores of the policy before the update")
    laws.add_argument("--rollout", metavar="NAME", help="scores of the engine that sampled")
    return parser


def _estimates(
    data: LogProbabilities, options: argparse.Namespace
) -> Iterator[tuple[str, KLEstimate]]:
    """Yield the name of each pair of laws that the file has and the estimate of its divergence."""
    common: dict[str, Any] = {"mask": data.mask, "groups": data.groups}
    common |= {name: getattr(options, name) for name in ("estimator", "level", "confidence")}
    scores = {"policy": data.log_q, "reference": data.log_p}
    scores |= {law: data.others[name] for law, name in _further(options)}
    sampler = next((law for law in ("engine", "old policy") if law in scores), "policy")
    weights = None
    if sampler != "policy":
        weights = _log_weights(data.log_q - scores[sampler], data.mask)
    yield (
        "KL(policy‖reference)",
        estimate_kl(data.log_q, data.log_p, log_weights=weights, **common),
    )
    for law in ("old policy", "policy"):
        if law in scores and law != sampler:
            yield f"KL({sampler}‖{law})", estimate_kl(scores[sampler], scores[law], **common)


def _further(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Return the laws beside policy and reference, with the names of their scores."""
    laws = (("old policy", options.old), ("engine", options.rollout))
    return [(law, name) for law, name in laws if name]


def _log_weights(log_ratios: Any, mask: Any) -> Any:
    """Return log-weights of draws, or of whole sequences: with those of tokens means are biased."""
    if log_ratios.ndim == 1:
        return log_ratios
    kept = log_ratios if mask is None else np.where(mask, log_ratios, 0.0)
    return kept.sum(axis=1, keepdims=True)


def _as_json(value: Any) -> Any:
    """Return the value with null for what JSON has no number for, infinities and NaN."""
    if isinstance(value, dict):
        return {name: _as_json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


if __name__ == "__main__":
    sys.exit(main())
