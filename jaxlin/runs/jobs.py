"""The jobs that write a run folder, from checked options to its last file."""

__all__ = ["Done", "sweep", "train"]

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxlin.runs.checkpointing import open_run
from jaxlin.runs.examples import NOT_GIVEN, Given
from jaxlin.runs.output import check_out


class Done(NamedTuple):
    """What a job has left."""

    folder: Path
    results: dict
    """What `results.json`, or `sweep.json`, holds."""
    failure: str
    """A sentence where the fit diverged, else ""."""
    code: int
    """The exit code of a command: 1 after a failure, 3 where checkpoints could not be saved."""


def train(
    options: Any, stopping: Callable[[], str], mesh: Any = None, given: Given = NOT_GIVEN
) -> Done:
    """Train and write a run folder; leaves by `jaxlin.checkpoint.Stopped` after a signal.

    Args:
      options: `jaxlin.runs.train_options.Options`, checked.
      stopping: the name of a signal that has come, or "".
      mesh: of the devices, or `None`.
      given: data in hand instead of those that `options` name.
    """
    from jaxlin.runs.preparation import prepare, say_data
    from jaxlin.runs.training import train_and_write

    _check_folder(options)
    job = prepare(options, given)
    name = f"{job.train.name}-{options.loss}"
    with open_run(options, job.identity, name=name, stopping=stopping) as (out, checkpointer):
        checkpointer.stop_if_signaled("before the first step")
        say_data(job, quiet=options.quiet)
        results, failure = train_and_write(job, options, out, checkpointer, mesh)
        return Done(out, results, failure, 1 if failure else checkpointer.code())


def sweep(
    options: Any, stopping: Callable[[], str], mesh: Any = None, given: Given = NOT_GIVEN
) -> Done:
    """Fit many heads, choose one, test it once; otherwise as `train`.

    Args:
      options: `jaxlin.runs.sweeps.options.Options`, resolved.
      stopping: the name of a signal that has come, or "".
      mesh: of the devices, or `None`.
      given: data in hand instead of those that `options` name.
    """
    from jaxlin.runs.preparation import say_data
    from jaxlin.runs.sweeps.folder import prepare_sweep, sweep_and_write
    from jaxlin.runs.sweeps.results import check_comparison, open_comparison

    _check_folder(options)
    other = None if options.compare is None else open_comparison(options.compare)
    job = prepare_sweep(options, mesh, given)
    if other is not None:
        check_comparison(other, job.job.test)
    name = f"{job.train.name}-sweep"
    with open_run(options, job.job.identity, name=name, stopping=stopping) as (out, checkpointer):
        checkpointer.stop_if_signaled("before the first step")
        say_data(job.job, quiet=options.quiet)
        results, failure = sweep_and_write(job, options, out, checkpointer, other)
        return Done(out, results, failure, 1 if failure else checkpointer.code())


def _check_folder(options: Any) -> None:
    """Refuse a folder that cannot be written before anything is read."""
    if options.out is not None:
        check_out(options.out, overwrite=options.overwrite or options.resume == "auto")
