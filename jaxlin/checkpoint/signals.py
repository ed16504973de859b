"""SIGTERM and SIGINT as a wish that a loop can see, not as the end."""

__all__ = ["Stopped", "anywhere", "stop_signals"]

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import jax
import numpy as np

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """The run was asked to stop, and has saved what it could: exit code 75.

    >>> stopped = Stopped("SIGTERM", 1200)
    >>> stopped.signal, stopped.where
    ('SIGTERM', 'at step 1,200')
    """

    def __init__(self, signal: str, step: int | str, *, saved: bool = True):
        """`step` may also be words: "before the first step", "after training"."""
        super().__init__(signal, step)
        self.signal, self.saved = signal, saved
        self.where = step if isinstance(step, str) else f"at step {step:,}"


@contextmanager
def stop_signals() -> Iterator[Callable[[], str]]:
    """Within the context the first SIGTERM or SIGINT only sets a flag; the second ends at once.

    Outside the main thread, where Python hears no signals, the flag is never set.

    Yields:
      `stopping()`: the name of the signal that came, else "". Look at it between the pieces of a
      loop, save, and raise `Stopped`.

    >>> with stop_signals() as stopping:
    ...     before = stopping()
    ...     os.kill(os.getpid(), signal.SIGTERM)
    ...     before, stopping()
    ('', 'SIGTERM')
    """
    came: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(number).name)
        for each in _SIGNALS:  # the system's own way from now on: no Python code has to run
            signal.signal(each, signal.SIG_DFL)
        text = f"jaxlin: {came[0]}: saving, then stopping (once more stops at once)\n"
        os.write(2, text.encode())

    if threading.current_thread() is not threading.main_thread():
        yield lambda: ""
        return
    before = {each: signal.signal(each, note) for each in _SIGNALS}
    try:
        yield lambda: came[0] if came else ""
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def anywhere(stopping: Callable[[], str]) -> Callable[[], str]:
    """`stopping` of all processes of a job: if one has heard a signal, all of them see it.

    Then all stop at the same step. With one process it is `stopping` itself; with more, all have
    to call it equally often, at the same points of the loop.

    >>> anywhere(lambda: "SIGTERM")()
    'SIGTERM'
    """
    if jax.process_count() == 1:
        return stopping
    from jax.experimental import multihost_utils

    names = ["", *(each.name for each in _SIGNALS)]

    def agreed() -> str:
        heard = np.int32(names.index(stopping()))
        return names[int(np.max(multihost_utils.process_allgather(heard)))]

    return agreed
