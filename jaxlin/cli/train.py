"""Train a linear classifier and write a run folder with its report."""

__all__ = ["Options", "run"]

from collections.abc import Callable
from typing import Any

from jaxlin.cli.devices import start
from jaxlin.cli.output import check_out, emit, say
from jaxlin.cli.surviving import exit_codes, open_run
from jaxlin.cli.train_options import Options, check_options, is_full_batch


def run(options: Options) -> int:
    """Train as `options` say; return the exit code."""
    check_options(options)
    over = start(options, proves=is_full_batch(options))

    from jaxlin.cli.hosts import share_output

    with share_output(options) as options, exit_codes(options) as (stopping, code):
        if options.out is not None:
            check_out(options.out, overwrite=options.overwrite or options.resume == "auto")
        return _run(options, stopping, over)
    return code[0]


def _run(options: Options, stopping: Callable[[], str], over: Any) -> int:
    from jaxlin.cli.preparing import prepare, say_data
    from jaxlin.cli.training import train_and_write

    job = prepare(options)
    name = f"{job.train.name}-{options.loss}"
    with open_run(options, job.identity, name=name, stopping=stopping) as (out, watch):
        watch.look("before the first step")
        say_data(job, quiet=options.quiet)
        results, status = train_and_write(job, options, out, watch, over)
        if options.json:
            emit(results)
        if status:
            say(f"jaxlin: {status}")
            return 1
        return watch.code()
