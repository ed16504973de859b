"""`metrics.jsonl`: one JSON object a line, appended as they come, whole again after a kill."""

__all__ = ["record_log"]

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jaxlin.checkpoint import write_durably


@contextmanager
def record_log(path: Path, before: Iterable[dict] = ()) -> Iterator[Callable[[dict], None]]:
    """A function that appends a record, while the context lasts.

    The file first gets the records `before` and nothing else: what a killed run wrote beyond its
    checkpoint, or tore in the middle of a line, is gone. Where the disk is full, records wait in
    memory, and the file is written whole at the end.

    Raises:
      OSError: at the end, if the disk is full still.
    """
    lines = [_line(record) for record in before]
    write_durably(path, "".join(lines))
    complete = True
    with path.open("ab", buffering=0) as file:

        def append(record: dict) -> None:
            nonlocal complete
            lines.append(_line(record))
            if complete:
                complete = False
                with suppress(OSError):
                    complete = file.write(lines[-1].encode()) == len(lines[-1].encode())

        yield append
    if not complete:
        write_durably(path, "".join(lines))


def _line(record: dict) -> str:
    return json.dumps(record) + "\n"
