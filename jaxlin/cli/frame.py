"""The frame of the commands that write a run folder: devices, signals, exit codes.

Exit codes beside the usual ones: 75 stopped by a signal with everything saved (start the same
command with `--resume auto`), 3 done or stopped while checkpoints could not be saved.
"""

__all__ = ["run_job"]

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jaxlin.runs.devices import start
from jaxlin.runs.output import emit, say


def run_job(options: Any, job: Callable[..., Any], *, proves: bool) -> int:
    """Do one of `jaxlin.runs.jobs` and return the exit code.

    Args:
      options: of the command, checked.
      job: of `jaxlin.runs.jobs`.
      proves: it certifies its fits.
    """
    mesh = start(options, proves=proves)

    from jaxlin.runs.hosts import share_output

    with share_output(options) as options, _exit_codes(options) as (stopping, code):
        done = job(options, stopping, mesh)
        if options.json:
            emit(done.results)
        if done.failure:
            say(f"jaxlin: {done.failure}")
        return done.code
    return code[0]


@contextmanager
def _exit_codes(options: Any) -> Iterator[tuple[Callable[[], str], list[int]]]:
    """Signals heard, and the ends of a run that survives turned into exit codes.

    Yields:
      `stopping()`, and a list that holds the exit code if the context was left early.
    """
    from jaxlin.checkpoint import Stopped, stop_signals

    if options.save_every is None and options.resume == "never":
        yield lambda: "", []
        return
    code: list[int] = []
    with stop_signals() as stopping:
        try:
            yield stopping, code
        except Stopped as stop:
            how = "all is saved" if stop.saved else "but this state could not be saved"
            say(
                f"jaxlin: stopped {stop.where} by {stop.signal}, {how}; add --resume auto to go on."
            )
            code.append(75 if stop.saved else 3)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = error.filename or "the disk"
            say(
                f"jaxlin: {where}: {error.strerror}. The checkpoints are whole: free some space "
                "and add --resume auto to go on."
            )
            code.append(3)
