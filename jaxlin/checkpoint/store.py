"""Checkpoints on the disk: written whole or not at all, read only if nothing in them changed."""

__all__ = ["FOLDER", "Found", "check_space", "clean", "clear", "find", "load", "save", "steps"]

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxlin.checkpoint.arrays import gathered, nbytes, read_arrays, write_arrays
from jaxlin.checkpoint.manifest import problems, sync_folder, write_manifest
from jaxlin.core import DataError

FOLDER = "checkpoints"
_PART = ".part"
_OVERHEAD = 128 << 10
"""Bytes that a checkpoint takes beside its arrays: some twelve small files, in whole blocks."""


class Found(NamedTuple):
    """A checkpoint whose every byte is as it was written.

    >>> import tempfile, numpy as np
    >>> run = Path(tempfile.mkdtemp())
    >>> _ = save(run, 40, {"weights": np.ones(3)}, {"note": "so far"})
    >>> find(run).step, find(run).record["note"]
    (40, 'so far')
    """

    step: int
    folder: Path
    record: dict
    """What `save` was given as `record`."""


def save(run: Path, step: int, state: Any, record: dict, *, keep: int = 3) -> Path:
    """Write `<run>/checkpoints/<step>/`, and delete the oldest beyond `keep`.

    The folder gets its name only when everything in it is on the disk, its manifest last: a
    process killed at any moment leaves all earlier checkpoints as they were. In a job of many
    processes all of them call this, and the first one writes.

    Args:
      run: the run's folder.
      step: how far the run is; an earlier checkpoint of the same step is replaced, and later
        ones, which belong to a future that was given up, are deleted.
      state: a pytree of arrays (NumPy, JAX, typed keys, numbers).
      record: anything JSON can hold; a history of any length, say.
      keep: how many checkpoints stay.

    Returns:
      The checkpoint's folder.

    Raises:
      OSError: it could not be written (a full disk, say). Earlier checkpoints are untouched and
        what was begun is removed.

    >>> import tempfile, numpy as np
    >>> run = Path(tempfile.mkdtemp())
    >>> save(run, 40, {"weights": np.ones(3)}, {"note": "so far"}).name
    '40'
    >>> found = find(run)
    >>> found.step, found.record, load(found, {"weights": np.zeros(3)})["weights"].tolist()
    (40, {'note': 'so far'}, [1.0, 1.0, 1.0])
    """
    from jax import process_index

    home, final = run / FOLDER, run / FOLDER / str(step)
    part = home / f"{step}{_PART}"
    arrays = gathered(state)
    if process_index() != 0:
        return final
    try:
        _discard(part)
        part.mkdir(parents=True)
        write_arrays(part / "state", arrays)
        (part / "record.json").write_text(json.dumps(record), encoding="utf-8")
        write_manifest(part)
        _remove(final)
        os.replace(part, final)
        sync_folder(home)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    present = steps(run)
    kept = [other for other in present if other <= step][-keep:]
    for other in present:
        if other not in kept:
            _remove(home / str(other))
    return final


def find(run: Path, *, warn: Callable[[str], None] | None = None) -> Found | None:
    """The newest checkpoint of a run that is whole, or `None`.

    Every byte is checked against the manifest. For each broken checkpoint that is passed over,
    `warn` gets one sentence that names it and what is wrong with it.

    >>> import tempfile, numpy as np
    >>> run = Path(tempfile.mkdtemp())
    >>> find(run) is None
    True
    >>> for step in (10, 20):
    ...     folder = save(run, step, {"weights": np.ones(3)}, {})
    >>> _ = (folder / "record.json").write_text("{", encoding="utf-8")  # a disk that forgets
    >>> find(run).step
    10
    """
    for step in reversed(steps(run)):
        folder = run / FOLDER / str(step)
        broken = problems(folder)
        if not broken:
            return Found(
                step, folder, json.loads((folder / "record.json").read_text(encoding="utf-8"))
            )
        if warn is not None:
            more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
            warn(f"{folder}: {broken[0]}{more}; the checkpoint before it is used instead.")
    return None


def load(found: Found, like: Any) -> Any:
    """The state of a checkpoint, in the structure of `like`.

    Args:
      found: from `find`.
      like: a pytree with the structure, shapes and dtypes that were saved. Leaves that are JAX
        arrays come back as JAX arrays with the same sharding, others as NumPy arrays.

    Raises:
      DataError: the checkpoint holds other arrays than `like` has; the first is named.

    >>> import tempfile, numpy as np
    >>> run = Path(tempfile.mkdtemp())
    >>> _ = save(run, 40, {"weights": np.ones(3)}, {})
    >>> load(find(run), {"weights": np.zeros(3)})["weights"].tolist()
    [1.0, 1.0, 1.0]
    """
    return read_arrays(found.folder / "state", like)


def steps(run: Path) -> list[int]:
    """The steps of a run's checkpoints, whole or not, in order.

    >>> import tempfile, numpy as np
    >>> run = Path(tempfile.mkdtemp())
    >>> for step in (10, 20):
    ...     _ = save(run, step, {"weights": np.ones(3)}, {})
    >>> steps(run)
    [10, 20]
    """
    home = run / FOLDER
    if not home.is_dir():
        return []
    return sorted(int(path.name) for path in home.iterdir() if path.name.isdecimal())


def clean(run: Path) -> None:
    """Remove what killed processes left unfinished. Hold the lock of the run.

    >>> import tempfile, numpy as np
    >>> run = Path(tempfile.mkdtemp())
    >>> (run / f"model{_PART}").touch()
    >>> clean(run)
    >>> list(run.iterdir())
    []
    """
    for path in (run / FOLDER).glob(f"*{_PART}"):
        _discard(path)
    for path in run.glob(f"*{_PART}"):
        if path.is_file():
            path.unlink()


def clear(run: Path) -> None:
    """Remove all checkpoints of a run that starts afresh. Hold the lock of the run.

    >>> import tempfile, numpy as np
    >>> run = Path(tempfile.mkdtemp())
    >>> _ = save(run, 40, {"weights": np.ones(3)}, {})
    >>> clear(run)
    >>> steps(run)
    []
    """
    for step in steps(run):
        _remove(run / FOLDER / str(step))
    clean(run)


def check_space(run: Path, state: Any, *, keep: int = 3) -> None:
    """Refuse a disk that cannot hold the checkpoints, before any work is done.

    Args:
      run: the run's folder; what its checkpoints take already is counted as free.
      state: as for `save`; only its shapes and dtypes are looked at.
      keep: as for `save`. While a checkpoint is written there is one more.

    Raises:
      DataError: too little space; the message has both numbers.

    >>> import tempfile, numpy as np
    >>> run = Path(tempfile.mkdtemp())
    >>> check_space(run, {"weights": np.ones(3)})  # says nothing: there is room
    >>> check_space(run, {"weights": np.broadcast_to(1.0, (10**9, 10**6))})
    Traceback (most recent call last):
    jaxlin.core.DataError: ...Free some space...
    """
    each = nbytes(state) + _OVERHEAD
    free = shutil.disk_usage(run).free
    taken = sum(path.stat().st_size for path in (run / FOLDER).rglob("*") if path.is_file())
    if free + taken < (keep + 1) * each:
        raise DataError(
            f"{run}: its disk has {_megabytes(free + taken)} free, and {keep + 1} checkpoints of "
            f"{_megabytes(each)} need {_megabytes((keep + 1) * each)}. Free some space, choose "
            "another --out, or leave out --save-every."
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _remove(folder: Path) -> None:
    """Delete a checkpoint so that, killed half way, it does not look like a broken one."""
    if folder.exists():
        doomed = folder.with_name(f"{folder.name}.old{_PART}")
        _discard(doomed)
        os.replace(folder, doomed)
        _discard(doomed)


def _discard(path: Path) -> None:
    """Delete what has this name: a folder as a rule, but copying tools leave files as well."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
