"""The full-batch way to a model: a certified solution, logged as its two bounds close."""

__all__ = ["Solved", "solve"]

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlin import checkpoint, solvers
from jaxlin.cli import hosts
from jaxlin.cli.output import say
from jaxlin.cli.parsing import in_options
from jaxlin.cli.records import record_log
from jaxlin.cli.surviving import Watch
from jaxlin.cli.train import Options
from jaxlin.core import LinearParams, Solution


class Solved(NamedTuple):
    """The full-batch counterpart of `jaxlin.train.Fit`."""

    params: LinearParams
    solution: Solution
    status: str
    compile_seconds: float | None
    """Not told apart: kernels compile as the solver needs them."""
    train_seconds: float


class _Before(NamedTuple):
    """What a run that goes on has behind it."""

    evaluations: float = 0.0
    lower_bound: float = -np.inf
    seconds: float = 0.0
    records: tuple = ()
    solution: dict | None = None
    """Of a run that had ended already: the fields of `Solution` beside the parameters."""


def solve(job, out: Path, watch: Watch, *, mesh, chatty: bool, verbose: bool) -> Solved:
    """Solve the problem of `job.config`, writing objective and lower bound to `metrics.jsonl`.

    A checkpoint holds the best parameters so far and what is proved about them. A run that goes on
    starts from there: it ends within the same tolerance, with other last digits than an unbroken
    run. One that had ended already is taken as it is.
    """
    config, begun = job.config, time.perf_counter()
    dtype = np.float64 if config["dtype"] == "float64" else np.float32
    init, before = _beginning(job, out, watch)
    records = list(before.records)
    with record_log(out / "metrics.jsonl", records) as log:

        def seconds() -> float:
            return before.seconds + time.perf_counter() - begun

        def note(evaluations: float, objective: float, lower_bound: float) -> None:
            lower_bound = max(float(lower_bound), before.lower_bound)
            known = np.isfinite(lower_bound)
            line = {
                "evaluations": before.evaluations + float(evaluations),
                "objective": float(objective),
                "lower_bound": lower_bound if known else None,
                "seconds": seconds(),
            }
            log(line)
            records.append(line)
            if verbose:
                proved = f"{lower_bound:.7f}" if known else "none yet"
                at = line["evaluations"]
                say(f"pass {at:6.1f}  objective {objective:.7f}  lower bound {proved}")

        def visit(params, evaluations, objective, lower_bound, solution=None) -> None:
            total = before.evaluations + float(evaluations)
            lower_bound = max(float(lower_bound), before.lower_bound)
            now = _Before(total, lower_bound, seconds(), tuple(records), solution)
            ended = solution is not None
            watch.visit(int(total), params, {"solver": now._asdict()}, last=ended)

        if before.solution is None:
            solution = _minimize(job, dtype, init, note, visit if watch.keeper else None, mesh)
            lower = min(max(solution.lower_bound, before.lower_bound), solution.objective)
            solution = solution._replace(lower_bound=lower, gap=solution.objective - lower)
            note(solution.evaluations, solution.objective, lower)
            plain = {
                name: value.item() if hasattr(value, "item") else value
                for name, value in solution._asdict().items()
                if name != "params"
            }
            plain |= {"status": int(solution.status)}
            plain |= {"evaluations": before.evaluations + float(solution.evaluations)}
            wide = LinearParams(*(np.asarray(leaf, np.float64) for leaf in solution.params))
            visit(wide, solution.evaluations, solution.objective, lower, plain)
            solution = Solution(solution.params, **plain)
        else:
            params = LinearParams(*(leaf.astype(dtype) for leaf in init))
            solution = Solution(params, **before.solution)
    status = in_options(solvers.describe(solution.status), Options)
    return Solved(solution.params, solution, status, None, seconds())


def _beginning(job, out: Path, watch: Watch) -> tuple[LinearParams | None, _Before]:
    """The parameters to start from and what is behind them; nothing for a run that is new."""
    if watch.keeper is None:
        return None, _Before()
    classes, features = len(job.train.class_names), job.train.inputs.shape[1]
    like = LinearParams(np.zeros((classes, features)), np.zeros(classes))
    checkpoint.check_space(out, like)
    if watch.found is None:
        return None, _Before()
    return hosts.load(watch.found, like), _Before(**watch.found.record["solver"])


def _minimize(job, dtype, init, callback, on_best, mesh) -> Solution:
    config = job.config
    penalty, strength = config["regularizer"], config["strength"]
    return solvers.minimize(
        job.train.inputs,
        job.train.labels.astype(np.int32),
        loss=config["loss"],
        strength=strength if penalty == "l2" else 0.0,
        l1_strength=strength if penalty == "l1" else 0.0,
        tolerance=config["tolerance"],
        max_iterations=config["max_iterations"],
        margin=config["margin"],
        preprocessing=job.statistics,
        classes=len(job.train.class_names),
        dtype=dtype,
        init=init,
        mesh=mesh,
        callback=callback,
        on_best=on_best,
    )
