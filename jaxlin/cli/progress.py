"""Progress: a bar on a terminal, lines when asked, silence in a pipe."""

__all__ = ["progress"]

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(steps: int, *, show: bool, verbose: bool = False) -> Iterator[Callable]:
    """A function to call with every `train.Record` while the context lasts.

    The bar is drawn on stderr, and only where that is a terminal; `verbose` prints a line a
    record instead, wherever stderr goes.
    """
    if verbose:
        yield lambda record: print(_line(record), file=sys.stderr, flush=True)
        return
    if not show or not sys.stderr.isatty():
        yield lambda record: None
        return

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("training"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("compiling", total=steps)
        yield lambda record: bar.update(task, completed=record.step, description=_line(record))


def _line(record) -> str:
    text = f"epoch {record.epoch:g}  loss {record.loss:.4f}"
    if record.validation_accuracy is not None:
        text += f"  validation {record.validation_accuracy:.4f}"
    return text
