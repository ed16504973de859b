"""What the processes of one run share out: reading, measuring, and who writes.

Each process reads its own rows. Process 0 alone writes the run's folder; what the others would
write goes to a temporary folder of theirs. With one process everything here is the plain thing.
"""

__all__ = [
    "check_alike",
    "distributed_folders",
    "load",
    "own_part",
    "resume_alike",
    "scores",
    "set_memory",
    "share_output",
]

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlin import checkpoint, models
from jaxlin.data import NAMED
from jaxlin.data.distributed_features import DistributedFolders, listing, merge_listings
from jaxlin.data.rows import take
from jaxlin.distributed.cluster import reachable_names
from jaxlin.distributed.peers import Peers
from jaxlin.distributed.processes import (
    all_gather,
    all_gather_json,
    broadcast_json,
    gather_results,
    own_rows,
)
from jaxlin.runs.checkpointing import WHERE_DATA_LIE
from jaxlin.runs.examples import IN_HAND


@contextmanager
def share_output(options: Any) -> Iterator:
    """The options of this process: those of the first, or silent ones that write elsewhere."""
    if jax.process_index() == 0:
        yield options
        return
    with tempfile.TemporaryDirectory(prefix="jaxlin-") as folder:
        yield dataclasses.replace(
            options,
            **{"out": Path(folder), "overwrite": options.resume == "never"},
            **{"json": False, "quiet": True, "verbose": False},
        )


def resume_alike(checkpointer: Any, options: Any) -> Any:
    """The `Checkpointer` of a loop of all processes: they go on from the first one's checkpoint."""
    if jax.process_count() == 1:
        return checkpointer
    first = jax.process_index() == 0
    found = broadcast_json(None if checkpointer.found is None else [*checkpointer.found])
    if found is not None:
        step, folder, record = found
        checkpointer = checkpointer._replace(found=checkpoint.Found(step, Path(folder), record))
        if not first:
            checkpointer = checkpointer._replace(
                keeper=checkpoint.keeper(
                    Path(), identity={}, every=options.save_every, start=step, warn=_mute
                )
            )
    return checkpointer


def load(found: Any, like: Any) -> Any:
    """`jaxlin.checkpoint.load`, read by the first process for all of them."""
    if jax.process_count() == 1:
        return checkpoint.load(found, like)
    plain = jax.tree.map(_plain, like)
    if jax.process_index() == 0:
        plain = checkpoint.load(found, plain)
    data = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, plain)
    values = jax.tree.map(lambda leaf: all_gather(leaf)[0].astype(leaf.dtype), data)
    return jax.tree.map(_as, values, like)


def _plain(leaf: Any) -> Any:
    return leaf if _is_key(leaf) else np.zeros(np.shape(leaf), leaf.dtype)


def _as(values: Any, like: Any) -> Any:
    if _is_key(like):
        return jax.random.wrap_key_data(values, impl=jax.random.key_impl(like))
    if isinstance(like, jax.Array):
        return jax.make_array_from_callback(values.shape, like.sharding, values.__getitem__)
    return values


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def check_alike(options: Any, values: dict, parts: Sequence[Any]) -> None:
    """Refuse processes that were not started alike: they would wait for each other, or worse.

    Args:
      options: of the command, on this process.
      values: those that decide the numbers.
      parts: `Dataset`s or `None`: what it trains, validates and tests on.

    Raises:
      ValueError: on every process; the first that differs from process 0 is named, and how.
    """
    if jax.process_count() == 1:
        return
    examples, count = len(parts[0].labels), jax.process_count()
    if own_rows(examples, count - 1, count).start >= examples:
        raise ValueError(
            f"{parts[0].name}: {examples} training examples are too few for {count} processes. "
            "Start fewer of them."
        )
    first, *others = all_gather_json(_common(options, values, parts))
    for number, other in enumerate(others, start=1):
        changed = checkpoint.differences(first, other)
        if changed:
            raise ValueError(
                f"process {number} of this run is not like process 0 ({'; '.join(changed)}). Start "
                "all of them with the same options but for --process-id, on the same data."
            )


def _common(options: Any, values: dict, parts: Sequence[Any]) -> dict:
    """What all processes of a run must have in common, wherever the data lie on each."""
    numbers = {name: value for name, value in values.items() if name not in WHERE_DATA_LIE}
    named = zip(("train", "validation", "test"), parts, strict=True)
    return numbers | {
        "save_every": options.save_every,
        "resume": options.resume,
        "class_devices": options.class_devices,
        "devices": options.devices or jax.local_device_count(),
        "data": {name: None if part is None else part.fingerprint[:32] for name, part in named},
        "examples": [None if part is None else part.inputs.shape for part in parts],
    }


def _mute(sentence: str) -> None:
    """The first process says it."""


def distributed_folders(config: dict) -> DistributedFolders | None:
    """What of a run's data lies on the disks of several processes; `None` where each has all."""
    if jax.process_count() == 1:
        return None
    named = [config["data"], config.get("test")]
    paths = [None if name in (None, IN_HAND, *NAMED) else Path(name).expanduser() for name in named]

    def seen() -> list[dict]:
        return [{} if path is None else listing(path) for path in paths]

    folders = {}
    for path, *listings in zip(paths, *gather_results(all_gather_json, seen), strict=True):
        parts = None if path is None else merge_listings(path, listings)
        if path is not None and parts is not None:
            folders[path] = parts
    return DistributedFolders(_peers(), folders) if folders else None


@cache
def _peers() -> Peers:
    """The connections of this process, once."""
    return Peers(jax.process_index(), all_gather_json, list(reachable_names()))


def own_part(inputs: Any) -> Any:
    """The rows that this process reads: of an array themselves, of a source a view."""
    if jax.process_count() == 1:
        return inputs
    own = own_rows(len(inputs), jax.process_index(), jax.process_count())
    return inputs[own] if isinstance(inputs, np.ndarray) else take(inputs, _numbers(own))


def _numbers(rows: slice) -> np.ndarray:
    return np.arange(rows.start, rows.stop)


def set_memory(parts: Any, memory: float) -> Any:
    """The same `Dataset`s (or `None`); those left in files know how much memory they may take.

    It is the `memory` of one process, in GiB, that decides whether they are streamed: the order of
    the examples must not depend on how many processes there are.
    """
    if jax.process_count() > 1:
        for part in parts:
            if part is not None and not isinstance(part.inputs, np.ndarray):
                part.inputs.resident_bytes = int(memory * 2**30)
    return parts


def scores(model: models.Model, inputs: Any) -> np.ndarray:
    """`jaxlin.models.scores`, each process computing those of its own rows; whole on all."""
    count = len(inputs)
    own = models.scores(model, own_part(inputs))
    if jax.process_count() == 1:
        return own
    share = -(-count // jax.process_count())
    filled = np.pad(own, ((0, share - len(own)), (0, 0)))
    return all_gather(filled).reshape(-1, own.shape[1])[:count]
