"""The full-batch way to a model: a certified solution, logged as its two bounds close."""

__all__ = ["FullBatchFit", "solve"]

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from jaxlin import checkpoint, solvers
from jaxlin.core import LinearParams, Solution
from jaxlin.runs import hosts
from jaxlin.runs.checkpointing import Checkpointer
from jaxlin.runs.metrics_log import record_log
from jaxlin.runs.output import say
from jaxlin.runs.train_options import Options
from jaxlin.runs.wording import in_options
from jaxlin.solvers import states

SILENCE = 3.0
"""Seconds without a line of progress."""


class FullBatchFit(NamedTuple):
    """The full-batch counterpart of `jaxlin.train.Fit`."""

    params: LinearParams
    solution: Solution
    status: str
    compile_seconds: float | None
    """Not told apart: kernels compile as the solver needs them."""
    train_seconds: float


class _Before(NamedTuple):
    """What a run that goes on has behind it."""

    seconds: float = 0.0
    records: tuple = ()
    fit: dict | None = None
    """Of a fit that was left: the shapes of what it has learned."""
    solution: dict | None = None
    """Of a run that had ended already: the fields of `Solution` beside the parameters."""


def solve(
    job: Any,
    out: Path,
    checkpointer: Checkpointer,
    *,
    mesh: Mesh | None,
    chatty: bool,
    verbose: bool,
) -> FullBatchFit:
    """Solve the problem of `job.config`, writing objective and lower bound to `metrics.jsonl`.

    A checkpoint holds all that the fit has learned: a run that goes on from it is the unbroken one,
    bit for bit. A fit of a second or so is saved at its end only, and begins again before that.
    """
    begun, worth_a_line = time.perf_counter(), _news()
    state, before = _beginning(job, out, checkpointer)
    records = list(before.records)
    with record_log(out / "metrics.jsonl", records) as log:

        def seconds() -> float:
            return before.seconds + time.perf_counter() - begun

        def note(evaluations: float, objective: float, lower_bound: float) -> None:
            known = np.isfinite(lower_bound)
            line = {
                "evaluations": float(evaluations),
                "objective": float(objective),
                "lower_bound": float(lower_bound) if known else None,
                "seconds": seconds(),
            }
            log(line)
            records.append(line)
            if (chatty and worth_a_line(objective, lower_bound)) or verbose:
                say(_in_words(line))

        def packed(make: Callable[[], Any]) -> tuple:
            carried = make()
            now = _Before(seconds(), tuple(records), fit=states.shapes_of(carried))
            return carried, {"solver": now._asdict()}

        carries = False

        def on_carried(evaluations: float, make: Callable[[], Any]) -> None:
            nonlocal carries
            carries = True
            checkpointer.save_if_due(int(evaluations), partial(packed, make), last=False)

        def on_pass() -> None:
            if not carries:
                checkpointer.stop_if_signaled("where the fit begins")

        if before.solution is None:
            asked = (
                {}
                if checkpointer.keeper is None
                else {"on_carried": on_carried, "on_pass": on_pass}
            )
            solution = _minimize(job, callback=note, carried=state, mesh=mesh, **asked)
            note(solution.evaluations, solution.objective, solution.lower_bound)
            plain = {
                name: value.item() if hasattr(value, "item") else value
                for name, value in solution._asdict().items()
                if name != "params"
            }
            plain |= {"status": int(solution.status)}
            now = _Before(seconds(), tuple(records), solution=plain)
            record = {"solver": now._asdict()}
            checkpointer.save_if_due(int(solution.evaluations), solution.params, record, last=True)
            solution = Solution(solution.params, **plain)
        else:
            solution = Solution(state, **before.solution)
    status = in_options(solvers.describe(solution.status), Options)
    return FullBatchFit(solution.params, solution, status, None, seconds())


def _news() -> Callable[[float, float], bool]:
    """A function that says whether the certified gap is half of what it was when last it said so,
    or some seconds have gone by."""
    least, last = np.inf, time.perf_counter()

    def worth_a_line(objective: float, lower_bound: float) -> bool:
        nonlocal least, last
        gap, now = objective - lower_bound, time.perf_counter()
        closed = lower_bound > 0 and gap <= 0.5 * least
        if not closed and now - last < SILENCE:
            return False
        least, last = (gap if closed else least), now
        return True

    return worth_a_line


def _in_words(line: dict) -> str:
    at, objective, lower_bound = line["evaluations"], line["objective"], line["lower_bound"]
    words = f"pass {at:6.1f}  objective {objective:.7f}"
    if not lower_bound:
        return f"{words}  lower bound none yet"
    gap = (objective - lower_bound) / objective  # not less than a bound above 0
    return f"{words}  lower bound {lower_bound:.7f}  relative gap {gap:.1e}"


def _beginning(job: Any, out: Path, checkpointer: Checkpointer) -> tuple:
    """What a fit that goes on has learned, or the parameters that it ended with, and what else is
    behind it; nothing for a run that is new."""
    if checkpointer.keeper is None:
        return None, _Before()
    (examples, features), classes = job.train.inputs.shape, len(job.train.class_names)
    dtype, l1 = _dtype(job.config), job.config["regularizer"] == "l1"
    sizes = {"examples": examples, "features": features, "classes": classes, "dtype": dtype}
    checkpoint.check_space(out, states.largest(job.config["loss"], l1=l1, **sizes))
    if checkpointer.found is None:
        return None, _Before()
    before = _Before(**checkpointer.found.record["solver"])
    params = LinearParams(np.zeros((classes, features), dtype), np.zeros(classes, dtype))
    like = params if before.fit is None else states.blank(before.fit)
    return hosts.load(checkpointer.found, like), before


def _dtype(config: dict) -> np.dtype:
    return np.dtype(config["dtype"])


def _minimize(job: Any, **more: Any) -> Solution:
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
        dtype=_dtype(config),
        **more,
    )
