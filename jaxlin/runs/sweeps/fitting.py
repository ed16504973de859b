"""Fitting the heads of `jaxlin sweep`, with checkpoints, and the chosen one again."""

__all__ = ["final_model", "fit_all"]

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import checkpoint, models, preprocess, sweep
from jaxlin.batches import steps_per_epoch
from jaxlin.core import Batch, LinearParams
from jaxlin.data import Dataset
from jaxlin.data.concatenation import concatenate
from jaxlin.distributed.processes import all_reduce
from jaxlin.runs import hosts
from jaxlin.runs.checkpointing import Checkpointer
from jaxlin.runs.metrics_log import record_log
from jaxlin.runs.preparation import split_data
from jaxlin.runs.progress import progress as progress_bar
from jaxlin.runs.sweeps.job import SweepJob, as_batch, head_json
from jaxlin.solvers import states
from jaxlin.solvers.path import PathState
from jaxlin.solvers.status import silent
from jaxlin.sweep import selection
from jaxlin.sweep.full_batch import coarse_to_fine, solve
from jaxlin.sweep.minibatch import descend
from jaxlin.sweep.progress import Progress, blank


class _HeadRecord(NamedTuple):
    """A solved head, as the progress bar wants it."""

    step: int
    epoch: float
    loss: float | None
    validation_accuracy: float | None


def fit_all(
    job: SweepJob, out: Path, checkpointer: Checkpointer, *, chatty: bool, verbose: bool
) -> list[sweep.FittedHead]:
    """All heads, with a line of `metrics.jsonl` for every epoch of a bank or head solved."""
    data = as_batch(job.job.train)
    held_out = job.job.validation
    validation = None
    if held_out is not None:
        weights = selection.selection_weights(held_out.labels, job.job.config["metric"])
        validation = as_batch(held_out, weights)
    begin = _Beginning([], None)
    if checkpointer.found is not None:
        begin = (_solved_before if job.full else _descended_before)(job, checkpointer.found)
    total = len(job.heads) if job.full else _steps(job.job.config, len(data.labels))
    records = list(begin.records)
    with (
        record_log(out / "metrics.jsonl", records) as log,
        progress_bar(total, show=chatty, verbose=verbose) as bar,
    ):

        def write(record: dict, shown: Any) -> None:
            records.append(record)
            log(record)
            bar(shown)

        fit = _solve_all if job.full else _descend_all
        return fit(job, out, data, validation, begin, write, records, checkpointer)


class _Beginning(NamedTuple):
    """What a sweep that goes on has behind it."""

    records: list[dict]
    state: Any
    """A `Progress` of `descend`, or a `_Solved`."""


def _descended_before(job: SweepJob, found: Any) -> _Beginning:
    record = found.record["sweep"]
    like = blank(job.heads, record["sizes"], **_shapes(job))
    return _Beginning(record["records"], hosts.load(found, like))


def _shapes(job: SweepJob) -> dict:
    return {
        "classes": len(job.train.class_names),
        "features": job.train.inputs.shape[1],
        "descent": _descent(job, len(job.train.labels)),
        "statistics": job.job.statistics,
        "dtype": _dtype(job.job.config),
    }


def _descend_all(
    job: SweepJob,
    out: Path,
    data: Batch,
    validation: Batch | None,
    begin: _Beginning,
    write: Callable[[dict, Any], None],
    records: list[dict],
    checkpointer: Checkpointer,
) -> list[sweep.FittedHead]:
    config = job.job.config
    if checkpointer.keeper is not None:
        sizes = {"active": len(job.heads), "finished": len(job.heads), "rows": 100}
        shapes = blank(job.heads, sizes, **_shapes(job))
        checkpoint.check_space(out, shapes)

    def on_progress(step: int, progress: Progress) -> None:
        record = {"sizes": progress.sizes, "records": records}
        ended = len(progress.done) == len(job.heads)
        checkpointer.save_if_due(step, progress, {"sweep": record}, last=ended)

    return descend(
        job.heads,
        data,
        validation,
        classes=len(job.train.class_names),
        statistics=job.job.statistics,
        descent=_descent(job, len(data.labels)),
        key=jax.random.key(config["seed"]),
        batch_size=config["batch_size"],
        patience=config["patience"],
        init_scale=_init_scale(job),
        dtype=_dtype(config),
        memory=job.memory,
        mesh=job.mesh,
        on_record=lambda record: write(record._asdict(), record),
        resumed=begin.state,
        on_progress=on_progress if checkpointer.keeper is not None else None,
    )


class _Solved(NamedTuple):
    """The heads solved so far, in that order, and what the path of the last one carries on."""

    heads: list[sweep.FittedHead]
    carried: PathState | None


def _solved_before(job: SweepJob, found: Any) -> _Beginning:
    record = found.record["sweep"]
    classes, features = len(job.train.class_names), job.train.inputs.shape[1]
    count, dtype = len(record["heads"]), _host_dtype(job.job.config)
    like = LinearParams(
        np.zeros((count, classes, features), dtype), np.zeros((count, classes), dtype)
    )
    shapes = record["carried"]
    empty = None if shapes is None else states.blank(shapes)
    params, carried = hosts.load(found, (like, empty))
    subsets = {head.subset.name: head.subset for head in job.heads}
    solved = []
    for i, (head, rest) in enumerate(record["heads"]):
        named = sweep.Head(**head | {"subset": subsets[head["subset"]]})
        own = LinearParams(*(np.asarray(leaf)[i] for leaf in params))
        solved.append(sweep.FittedHead(named, own, **rest))
    return _Beginning(record["records"], _Solved(solved, carried))


def _solve_all(
    job: SweepJob,
    out: Path,
    data: Batch,
    validation: Batch | None,
    begin: _Beginning,
    write: Callable[[dict, Any], None],
    records: list[dict],
    checkpointer: Checkpointer,
) -> list[sweep.FittedHead]:
    """Every head solved; a sweep that goes on solves those that are missing, bit for bit."""
    before = begin.state or _Solved([], None)
    solved = list(before.heads)
    left: list[Any] = []

    def on_fitted(found: sweep.FittedHead, make: Callable[[], Any] | None) -> None:
        solved.append(found)
        count = len(solved)
        shown = _HeadRecord(count, found.epochs, found.objective, found.validation_accuracy)
        write(head_json(found, job), shown)
        passes = int(sum(each.epochs for each in solved))
        ended = count == len(job.heads) and job.job.config["search"] == "grid"
        if make is not None:
            left[:] = passes, partial(_packed, list(solved), list(records), make)
            checkpointer.save_if_due(left[0], left[1], last=ended)

    def on_pass() -> None:
        """Within a head that goes unsaved: where a signal has come, all before it is saved."""
        if left:
            checkpointer.save_if_due(left[0], left[1], last=False)
        else:
            checkpointer.stop_if_signaled("within a head")

    common: dict[str, Any] = {"statistics": job.job.statistics, "on_fitted": on_fitted}
    common |= {"on_pass": on_pass if checkpointer.keeper is not None else silent}
    known: dict[str, Any] = {"known": list(solved), "carried": before.carried}
    solver: Callable[..., list[sweep.FittedHead]] = partial(
        _solve, job, data, validation, **known, **common
    )
    if job.job.config["search"] == "grid":
        return solver(job.heads)
    halvings = job.preset.halvings if job.preset is not None else 4

    def evaluate(
        alike: sweep.Head, strengths: list[float], near: list[sweep.FittedHead]
    ) -> list[sweep.FittedHead]:
        return solver([alike._replace(strength=s) for s in strengths], near=near)

    fitted = []
    for alike, coarse in _searches(job.heads).items():
        search = partial(evaluate, alike)
        fitted += coarse_to_fine(search, coarse, selection.best, halvings=halvings)
    if left:
        checkpointer.save_if_due(left[0], left[1], last=True)
    return fitted


def _searches(heads: list[sweep.Head]) -> dict[sweep.Head, list[float]]:
    """The strengths to start from, of each combination of all else; the peak may lie elsewhere."""
    searches: dict[sweep.Head, list[float]] = {}
    for head in heads:
        searches.setdefault(head._replace(strength=0.0), []).append(head.strength)
    return searches


def _packed(
    solved: list[sweep.FittedHead], records: list[dict], make: Callable[[], Any]
) -> tuple[tuple, dict]:
    """The state of a `_Solved` as arrays, and what else is known of its heads as JSON."""
    params = LinearParams(*(np.stack([np.asarray(f.params[i]) for f in solved]) for i in (0, 1)))
    described, carried = [], make()
    for found in solved:
        head = found.head._asdict() | {"subset": found.head.subset.name}
        rest = {n: v for n, v in found._asdict().items() if n not in ("head", "params", "history")}
        described.append([head, rest])
    shapes = None if carried is None else states.shapes_of(carried)
    record = {"heads": described, "carried": shapes, "records": records}
    return (params, carried), {"sweep": record}


def _solve(
    job: SweepJob,
    data: Batch,
    validation: Batch | None,
    heads: Sequence[sweep.Head],
    *,
    statistics: preprocess.Preprocessing,
    **more: Any,
) -> list[sweep.FittedHead]:
    config = job.job.config
    return solve(
        heads,
        data,
        validation,
        classes=len(job.train.class_names),
        statistics=statistics,
        tolerance=config["tolerance"],
        max_iterations=config["max_iterations"],
        margin=config["margin"],
        regularizer=config["regularizer"],
        dtype=_host_dtype(config),
        mesh=job.mesh,
        **more,
    )


def _steps(config: dict, examples: int) -> int:
    return config["steps"] or config["epochs"] * steps_per_epoch(examples, config["batch_size"])


def _dtype(config: dict) -> Any:
    return jnp.float64 if config["dtype"] == "float64" else jnp.float32


def _host_dtype(config: dict) -> Any:
    return np.float64 if config["dtype"] == "float64" else np.float32


def _init_scale(job: SweepJob) -> float:
    """Zero, unless a preset says otherwise or there are seeds, which then differ by their draw."""
    if job.preset is not None:
        return job.preset.init_scale
    return 0.01 if len({head.seed for head in job.heads}) > 1 else 0.0


def _descent(job: SweepJob, examples: int) -> sweep.Descent:
    config = job.job.config
    return sweep.Descent(
        config["optimizer"],
        config["schedule"],
        _steps(config, examples),
        margin=config["margin"],
        regularizer=config["regularizer"],
        decoupled=config["optimizer"] == "adamw" and config["regularizer"] == "l2",
        batch_norm=job.preset is not None and job.preset.batch_norm,
        precision=config["precision"],
    )


def final_model(
    job: SweepJob, chosen: sweep.FittedHead, checkpointer: Checkpointer, *, refit: bool
) -> tuple[models.Model, dict | None]:
    """The model that is tested: the chosen head, refitted on training and validation examples.

    Returns:
      The `Model`, and what `sweep.json` says of the refit (or `None`).
    """
    statistics, said = job.job.statistics, None
    wanted = refit and (job.preset is None or job.preset.refit)
    if wanted and job.job.validation is not None and chosen.head.shots is None:
        everything = _everything(job)
        own, kind = hosts.own_part(everything.inputs), job.job.config["preprocess"]
        statistics = preprocess.fit(own, kind, all_reduce=all_reduce)
        examples = len(everything.labels)
        units = "mean" if job.preset is None else job.preset.units
        if units in ("sum", "half-sum"):  # the published number stays, and N grows
            strength = chosen.head.strength * len(job.train.labels) / examples
            chosen = chosen._replace(head=chosen.head._replace(strength=strength))
        again = _refit_solved if job.full else _refit_descended
        chosen = again(job, chosen, as_batch(everything), statistics, checkpointer)
        said = head_json(chosen, job) | {"n": examples}
    dtype = _host_dtype(job.job.config)
    model = models.Model(
        LinearParams(*(np.asarray(leaf, dtype) for leaf in chosen.params)),
        statistics,
        tuple(job.train.class_names),
        job.train.image_shape,
        chosen.head.loss,
        job.train.pixels,
    )
    return model, said


def _everything(job: SweepJob) -> Dataset:
    """Training and validation examples as one set."""
    everything, validation, _ = split_data(job.job.config | {"validation": 0}, job.job.given)
    if validation is None:
        return everything
    inputs = concatenate(everything.inputs, validation.inputs)
    labels = np.concatenate([everything.labels, validation.labels])
    return everything._replace(inputs=inputs, labels=labels)


def _refit_solved(
    job: SweepJob,
    chosen: sweep.FittedHead,
    data: Batch,
    statistics: preprocess.Preprocessing,
    checkpointer: Checkpointer,
) -> sweep.FittedHead:
    on_pass = (
        silent
        if checkpointer.keeper is None
        else partial(checkpointer.stop_if_signaled, "while refitting")
    )
    more: dict[str, Any] = {"statistics": statistics, "near": [chosen], "on_pass": on_pass}
    (found,) = _solve(job, data, None, [chosen.head], **more)
    return found


def _refit_descended(
    job: SweepJob,
    chosen: sweep.FittedHead,
    data: Batch,
    statistics: preprocess.Preprocessing,
    checkpointer: Checkpointer,
) -> sweep.FittedHead:
    """The same schedule on all examples, as far along as the head was at its best."""
    config = job.job.config
    epochs, batch_size = chosen.epochs, config["batch_size"]
    if config["steps"] is not None:  # the same number of steps, hence other epochs
        epochs *= steps_per_epoch(len(job.train.labels), batch_size)
        epochs /= steps_per_epoch(len(data.labels), batch_size)
    (found,) = descend(
        [chosen.head],
        data,
        None,
        classes=len(job.train.class_names),
        statistics=statistics,
        descent=_descent(job, len(data.labels)),
        key=jax.random.key(config["seed"]),
        batch_size=batch_size,
        stop_after=epochs,
        init_scale=_init_scale(job),
        dtype=_dtype(config),
        memory=job.memory,
        mesh=job.mesh,
        on_record=lambda record: checkpointer.stop_if_signaled("while refitting"),
    )
    return found
