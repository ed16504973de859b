"""Fit many heads in one pass, choose one on validation, and test it once."""

__all__ = ["Options", "run"]

from jaxlin.runs.sweeps.options import Options, resolved
from jaxlin.runs.train_options import is_full_batch


def run(options: Options) -> int:
    """Sweep as `options` say; return the exit code."""
    from jaxlin.cli.frame import run_job
    from jaxlin.runs import jobs

    options = resolved(options)
    return run_job(options, jobs.sweep, proves=is_full_batch(options))
