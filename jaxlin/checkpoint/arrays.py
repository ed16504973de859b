"""The arrays of a checkpoint: any pytree of state as a flat, named set that Orbax writes.

Flat names keep every pytree possible (Orbax knows neither empty arrays nor all containers) and
let a mismatch be named. Orbax is used through one synchronous writer and without its log: what
goes wrong comes back as one error.
"""

__all__ = ["gathered", "nbytes", "read_arrays", "write_arrays"]

import errno
import logging
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from jaxlin.core import DataError


def gathered(state: Any) -> dict[str, np.ndarray]:
    """The leaves of `state` on the host, by name.

    In a job of many processes all of them call this: arrays that are spread over the processes
    are put together.
    """
    return {name: _on_host(leaf) for name, leaf in _named_leaves(state).items()}


def write_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write what `gathered` returned.

    Raises:
      OSError: the disk is full, or something else kept Orbax from writing.
    """
    _hush_late_writes()  # before: the first may end before its error is seen here
    with _orbax() as (ocp, checkpointer), _plain(folder) as path:
        try:
            kept = {name: array for name, array in arrays.items() if array.size}
            checkpointer.save(path, args=ocp.args.PyTreeSave(kept))
        except Exception as error:
            raise _as_os_error(error, folder) from None


def read_arrays(folder: Path, like: Any) -> Any:
    """The leaves that `write_arrays` wrote, in the structure of `like`.

    Raises:
      DataError: the folder holds other arrays than `like` has; the first is named.
    """
    import jax

    wanted = _named_leaves(like)
    with _orbax() as (ocp, checkpointer), _plain(folder) as path:
        try:
            stored = dict(checkpointer.metadata(path).item_metadata)
            shapes = {
                name: (tuple(meta.shape), np.dtype(meta.dtype)) for name, meta in stored.items()
            }
            _check_fits(folder, shapes, wanted)
            arguments = dict.fromkeys(stored, ocp.RestoreArgs(restore_type=np.ndarray))
            arrays = checkpointer.restore(
                path, args=ocp.args.PyTreeRestore(dict(stored), restore_args=arguments)
            )
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{folder}: is whole, but this version of Orbax cannot read it "
                f"({_first_line(error)}). Install the version that wrote it, or start afresh."
            ) from None
    placed = [
        _placed(arrays[name] if name in arrays else np.zeros(*_kind(leaf)), leaf)
        for name, leaf in wanted.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), placed)


def nbytes(state: Any) -> int:
    """Bytes of all arrays of a pytree; arrays that are only described count as well."""
    return sum(
        math.prod(shape) * dtype.itemsize
        for shape, dtype in map(_kind, _named_leaves(state).values())
    )


def _named_leaves(state: Any) -> dict[str, Any]:
    """Leaves by their path, for example "progress/state/params/weights"."""
    import jax

    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "state"
        while name in named:
            name += "'"
        named[name] = leaf
    return named


def _is_key(leaf: Any) -> bool:
    import jax

    return hasattr(leaf, "dtype") and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _kind(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of what is stored of a leaf; of a key that of its bits."""
    import jax

    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    elif not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    return tuple(leaf.shape), np.dtype(leaf.dtype)


def _on_host(leaf: Any) -> np.ndarray:
    import jax

    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        from jax.experimental import multihost_utils

        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def _placed(array: np.ndarray, like: Any) -> Any:
    """`array` as the kind of thing that `like` is, on its devices."""
    import jax

    if _is_key(like):
        return jax.random.wrap_key_data(jax.numpy.asarray(array), impl=jax.random.key_impl(like))
    if isinstance(like, jax.Array):
        return jax.make_array_from_callback(array.shape, like.sharding, lambda at: array[at])
    return array


def _check_fits(folder: Path, stored: dict, wanted: dict) -> None:
    kinds = {name: _kind(leaf) for name, leaf in wanted.items()}
    kinds = {name: kind for name, kind in kinds.items() if math.prod(kind[0])}
    for name in [*kinds, *stored]:
        if stored.get(name) != kinds.get(name):
            raise DataError(
                f"{folder}: `{name}` is {_words(stored.get(name))} there, and this run has "
                f"{_words(kinds.get(name))}. Give the options it was started with, or choose "
                "another --out."
            )


def _words(kind: tuple[tuple[int, ...], np.dtype] | None) -> str:
    return "absent" if kind is None else f"{kind[1]} of shape {kind[0]}"


@contextmanager
def _orbax() -> Iterator[tuple]:
    """Orbax, and a checkpointer of this process alone; its log is silent meanwhile."""
    import jax
    import orbax.checkpoint as ocp
    from absl import logging as absl_log

    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    verbosity = absl_log.get_verbosity()
    absl_log.set_verbosity(absl_log.FATAL)
    try:
        with ocp.Checkpointer(
            ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
            multiprocessing_options=alone,
        ) as checkpointer:
            yield ocp, checkpointer
    finally:
        absl_log.set_verbosity(verbosity)


@contextmanager
def _plain(folder: Path) -> Iterator[Path]:
    """The folder under a name that Orbax takes as it is: a link to it, where its own is not such.

    The libraries below read `[1]` as a pattern, a backslash as a slash, and want UTF-8: states were
    written to another folder, or not found again.
    """
    folder = folder.absolute()
    if re.fullmatch(r"[\w./ ~+=,@-]+", str(folder), re.ASCII):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="jaxlin-") as place:
        link = Path(place) / "run"
        link.symlink_to(folder.parent, target_is_directory=True)
        yield link / folder.name


@cache  # once is enough
def _hush_late_writes() -> None:
    """After a failed save Orbax's other writes end, one by one, in a loop that is closed already.

    Each would print a traceback that is nobody's concern: the one error has been raised. Writes
    that fail just before the loop closes are told in asyncio's log, the later ones by Python.
    """
    usual = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            usual(unraisable)

    sys.unraisablehook = hook
    logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())


def _as_os_error(error: Exception, folder: Path) -> OSError:
    text = str(error)
    full = "RESOURCE_EXHAUSTED" in text or "No space left" in text
    number = getattr(error, "errno", None) or (errno.ENOSPC if full else errno.EIO)
    reason = os.strerror(number) if number != errno.EIO else _first_line(error)
    return OSError(number, reason, str(folder))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
