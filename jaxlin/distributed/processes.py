"""What the processes of one run tell each other: every one of them has to call each function here.

With one process everything is the plain thing.
"""

__all__ = [
    "all_gather",
    "all_gather_json",
    "all_reduce",
    "broadcast_json",
    "gather_results",
    "own_rows",
]

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxlin.core import DataError


def own_rows(examples: int, process: int, processes: int) -> slice:
    """The rows that a process reads when `examples` are split evenly, the last ones fewer.

    >>> [own_rows(10, process, 3) for process in range(3)]
    [slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
    """
    share = -(-examples // processes)
    return slice(min(process * share, examples), min((process + 1) * share, examples))


def all_gather(values: Any) -> np.ndarray:
    """The arrays of all processes, which have one shape, stacked: (P, ...).

    >>> all_gather(np.arange(3)).tolist()
    [[0, 1, 2]]
    """
    if jax.process_count() == 1:
        return np.asarray(values)[None]
    from jax.experimental.multihost_utils import process_allgather

    with jax.enable_x64(True):
        return np.asarray(process_allgather(values))


def all_reduce(values: Any, how: str) -> Any:
    """The "sum", "min" or "max" of `values` over all processes, in float64.

    One process gets back what it gave.

    >>> all_reduce(3, "min")
    3
    """
    if jax.process_count() == 1:
        return values
    return getattr(np, how)(all_gather(np.asarray(values, np.float64)), axis=0)


def all_gather_json(value: Any) -> list:
    """The JSON values of all processes, in the order of their numbers.

    >>> all_gather_json({"rows": 3})
    [{'rows': 3}]
    """
    text = np.frombuffer(json.dumps(value, default=str).encode(), np.uint8)
    size = int(all_reduce(len(text), "max"))
    filled = np.pad(text, (0, size - len(text)), constant_values=ord(" "))
    return [json.loads(row.astype(np.uint8).tobytes()) for row in all_gather(filled)]


def broadcast_json(value: Any) -> Any:
    """The JSON value of the first process, on all.

    >>> broadcast_json(["digits", 3])
    ['digits', 3]
    """
    return all_gather_json(value)[0]


def gather_results(gather: Callable[[Any], list], make: Callable[[], Any]) -> list:
    """What `make()` returns on every process, on all; what one of them refuses, all do.

    Args:
      gather: the JSON values of all processes, on all, as `all_gather_json`.
      make: returns a JSON value, or raises a `DataError`.

    Raises:
      DataError: on every process: the first one's, with its number.

    >>> gather_results(lambda value: [value, value], lambda: 3)
    [3, 3]
    """
    try:
        found = {"value": make(), "refused": None}
    except DataError as error:
        found = {"refused": str(error)}
    gathered = gather(found)
    for number, each in enumerate(gathered):
        if each["refused"] is not None:
            raise DataError(f"process {number}: {each['refused']}")
    return [each["value"] for each in gathered]
