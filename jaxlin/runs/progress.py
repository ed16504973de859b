"""Progress: a bar on a terminal or in a notebook, lines when asked, silence in a pipe."""

__all__ = ["progress", "reading"]

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any


@contextmanager
def progress(steps: int, *, show: bool, verbose: bool = False) -> Iterator[Callable]:
    """A function to call with every `train.Record` while the context lasts.

    The bar is drawn on stderr, and only where that is a terminal, or in a notebook; `verbose`
    prints a line a record instead, wherever stderr goes.
    """
    if verbose:
        yield lambda record: print(_line(record), file=sys.stderr, flush=True)
        return
    if not show or not _has_display():
        yield lambda record: None
        return

    with _bar("training") as bar:
        task = bar.add_task("compiling", total=steps)
        yield lambda record: bar.update(task, completed=record.step, description=_line(record))


_PATIENCE = 1.0
"""Seconds for which nothing is drawn: most data are read by then."""


@contextmanager
def reading(*, show: bool) -> Iterator[Callable[[int, int], None] | None]:
    """The `progress` for `jaxlin.data.load` while the context lasts: a bar, after a second."""
    if not show or not _has_display():
        yield None
        return
    begun, task = time.monotonic(), None
    bar: Any = None

    def report(done: int, total: int) -> None:
        nonlocal bar, task
        if bar is None and time.monotonic() - begun > _PATIENCE:
            bar = _bar("reading")
            bar.start()
            task = bar.add_task("", total=total)
        if bar is not None:
            bar.update(task, completed=done, total=total, description=f"{done:,} of {total:,}")

    try:
        yield report
    finally:
        if bar is not None:
            bar.stop()


def _has_display() -> bool:
    """Whether a bar can be drawn: on a terminal, or by a notebook's widgets."""
    return sys.stderr.isatty() or ("ipykernel" in sys.modules and bool(find_spec("ipywidgets")))


def _bar(what: str) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _line(record: Any) -> str:
    text = f"epoch {record.epoch:g}  loss {record.loss:.4f}"
    if record.validation_accuracy is not None:
        text += f"  validation {record.validation_accuracy:.4f}"
    return text
