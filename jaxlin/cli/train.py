"""Train a linear classifier and write a run folder with its report."""

__all__ = ["Options", "run"]

from jaxlin.runs.train_options import Options, check_options, is_full_batch


def run(options: Options) -> int:
    """Train as `options` say; return the exit code."""
    from jaxlin.cli.frame import run_job
    from jaxlin.runs import jobs

    check_options(options)
    return run_job(options, jobs.train, proves=is_full_batch(options))
