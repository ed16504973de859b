"""The full-batch way to a model: a certified solution, logged as its two bounds close."""

__all__ = ["Solved", "solve"]

import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlin import solvers
from jaxlin.cli.common import say
from jaxlin.core import LinearParams, Solution


class Solved(NamedTuple):
    """The full-batch counterpart of `jaxlin.train.Fit`."""

    params: LinearParams
    solution: Solution
    status: str
    compile_seconds: float | None
    """Not told apart: kernels compile as the solver needs them."""
    train_seconds: float


def solve(job, out: Path, *, chatty: bool, verbose: bool) -> Solved:
    """Solve the problem of `job.config`, writing objective and lower bound to `metrics.jsonl`."""
    config, start = job.config, time.perf_counter()
    penalty, strength = config["regularizer"], config["strength"]
    with (out / "metrics.jsonl").open("w") as log:

        def record(evaluations: float, objective: float, lower_bound: float) -> None:
            known = np.isfinite(lower_bound)
            line = {
                "evaluations": float(evaluations),
                "objective": float(objective),
                "lower_bound": float(lower_bound) if known else None,
                "seconds": time.perf_counter() - start,
            }
            log.write(json.dumps(line) + "\n")
            log.flush()
            if verbose:
                proved = f"{lower_bound:.7f}" if known else "none yet"
                say(f"pass {evaluations:6.1f}  objective {objective:.7f}  lower bound {proved}")

        solution = solvers.minimize(
            job.train.inputs,
            job.train.labels.astype(np.int32),
            loss=config["loss"],
            strength=strength if penalty == "l2" else 0.0,
            l1_strength=strength if penalty == "l1" else 0.0,
            tolerance=config["tolerance"],
            margin=config["margin"],
            preprocessing=job.statistics,
            classes=len(job.train.class_names),
            dtype=np.float64 if config["dtype"] == "float64" else np.float32,
            callback=record,
        )
        record(solution.evaluations, solution.objective, solution.lower_bound)
    status = solvers.describe(solution.status)
    return Solved(solution.params, solution, status, None, time.perf_counter() - start)
