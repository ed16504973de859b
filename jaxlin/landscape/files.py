"""`landscape.npz`: a slice with all that is needed to draw it, or to go on computing it.

A plane that takes long is computed some rows at a time and written after each; rows that are not
there yet are NaN and `done` is False for them. What was interrupted continues where it stopped,
if the file says that it is the same plane.
"""

__all__ = ["Stored", "compute", "load", "save"]

import json
import os
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxlin.core import DataError

_BLOCK_SECONDS = 5.0


class Stored(NamedTuple):
    """The contents of a `landscape.npz`.

    >>> Stored((np.arange(2.0),), np.array([3.0, np.nan]), np.array([True, False]), {}).done.all()
    np.False_
    """

    steps: tuple[np.ndarray, ...]
    """One array for each axis."""
    values: np.ndarray
    """(T,) or (T1, T2); NaN where not done."""
    done: np.ndarray
    """(T,) or (T1,) bool: the rows that have been computed."""
    facts: dict
    """What the slice is of: data, loss, directions with their seeds and norms."""


def save(path: Path, stored: Stored) -> None:
    """Write through a temporary file, so that an interruption leaves the last good one.

    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "landscape.npz"
    >>> save(path, Stored((np.arange(2.0),), np.array([3.0, 4.0]), np.array([True, True]), {}))
    >>> load(path).values.tolist()
    [3.0, 4.0]
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    arrays: dict[str, Any] = {f"steps_{i + 1}": steps for i, steps in enumerate(stored.steps)}
    facts = json.dumps(stored.facts, sort_keys=True)
    with part.open("wb") as file:
        np.savez_compressed(
            file, **arrays, values=stored.values, done=stored.done, facts=np.array(facts)
        )
    os.replace(part, path)


def load(path: Path) -> Stored:
    """Read what `save` wrote.

    Raises:
      DataError: the file is missing, or is not such a file.

    >>> load(Path("nowhere.npz"))
    Traceback (most recent call last):
    jaxlin.core.DataError: nowhere.npz: there is no such file.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            names = [f"steps_{i + 1}" for i in range(sum(n.startswith("steps_") for n in file))]
            steps = tuple(file[name] for name in names)
            stored = Stored(steps, file["values"], file["done"], json.loads(str(file["facts"])))
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a landscape file ({error}). Compute it again.") from None
    if stored.values.shape != tuple(map(len, steps)) or len(stored.done) != len(stored.values):
        raise DataError(f"{path}: its values and steps do not fit. Compute it again.")
    return stored


def compute(
    path: Path,
    evaluate: Callable[[np.ndarray], ArrayLike],
    steps: tuple[ArrayLike, ...],
    facts: Mapping,
    *,
    rows: int | None = None,
) -> Stored:
    """Compute a slice some rows at a time, writing `path` as it goes; continue one that is there.

    Args:
      path: the `landscape.npz`. If it holds the same steps and facts, only rows that are missing
        are computed.
      evaluate: maps steps of the first axis (R,) to values (R,) or (R, T2).
      steps: one array for each axis.
      facts: what the slice is of; anything JSON can hold.
      rows: how many rows at a time. By default all, unless the first rows show that this takes
        long.

    Returns:
      The complete `Stored`.

    Raises:
      DataError: `path` holds something else.

    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "landscape.npz"
    >>> compute(path, np.square, (np.array([-1.0, 2.0]),), {"loss": "a parabola"}).values.tolist()
    [1.0, 4.0]
    """
    arrays = tuple(np.asarray(s, np.float64) for s in steps)
    shape = tuple(map(len, arrays))
    asked = json.loads(json.dumps(dict(facts)))
    stored = Stored(arrays, np.full(shape, np.nan), np.zeros(shape[0], bool), asked)
    if Path(path).exists():
        stored = _same(load(path), stored, path)
    size = rows or shape[0]
    while not stored.done.all():
        missing = np.flatnonzero(~stored.done)[:size]
        began = time.perf_counter()
        stored.values[missing] = np.asarray(evaluate(arrays[0][missing]), np.float64)
        stored.done[missing] = True
        save(path, stored)
        if rows is None:
            each = (time.perf_counter() - began) / len(missing)
            size = max(1, int(_BLOCK_SECONDS / max(each, 1e-9)))
    if not Path(path).exists():
        save(path, stored)
    return stored


def _same(found: Stored, asked: Stored, path: Path) -> Stored:
    same_steps = len(found.steps) == len(asked.steps) and all(
        np.array_equal(a, b) for a, b in zip(found.steps, asked.steps, strict=True)
    )
    if same_steps and found.facts == asked.facts:
        return Stored(found.steps, found.values.copy(), found.done.copy(), found.facts)
    keys = found.facts.keys() | asked.facts.keys()
    different = sorted(k for k in keys if found.facts.get(k) != asked.facts.get(k))
    what = ", ".join(different) if different else "the steps"
    raise DataError(
        f"{path}: holds another landscape ({what} differ). Choose another folder, or delete it."
    )
