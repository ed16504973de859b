"""Minibatches of data that do not fit memory: read in blocks, shuffled in blocks, read ahead.

An epoch takes the blocks of the data (about `BLOCK_BYTES` of neighboring rows) in random order and
cuts this sequence of rows into windows of about `WINDOW_BYTES`. The rows of a window are shuffled
completely, and its batches are steps of the same compiled loop that trains on data in memory. While
one window trains, the next is being read: two are in memory, whatever the size of the data.

Every example is seen once an epoch. Its neighbors in a batch come from its window only, so a window
is as good a mixture as the blocks that fell into it: about `WINDOW_BYTES / BLOCK_BYTES`, 256 places
of the file. On CIFAR-10 sorted by class (`experiments/shuffle_in_blocks.py`) windows of 64 blocks
reach a test accuracy of 0.409 to 0.410, a complete shuffle 0.410, windows of one block 0.357 to
0.404.

What a window holds depends on (key, epoch) and on the shapes alone, so a run goes on in the middle
of an epoch by reading only the window that it stands in. On a mesh every device gets an even share
of each window, and a process reads the rows of its own devices: the batches are those of a single
device, whatever the number of devices and processes. Where the files lie on the disks of several
processes, the rows of a window go to devices of the process that has them as far as the shares
allow, and the rest, a few in a hundred, is asked of it.
"""

__all__ = [
    "BLOCK_BYTES",
    "WINDOW_BYTES",
    "Window",
    "blank_window",
    "is_streamed",
    "window_rows",
    "windows",
]

from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from jaxlin.batches import EpochPlan, steps_per_epoch
from jaxlin.core import Batch, RowSource
from jaxlin.data.rows import RESIDENT_BYTES, RowView, empty_rows, fill, from_map
from jaxlin.distributed.sharding import place_blocks, place_rows, shard_plan
from jaxlin.prefetch import prefetch

BLOCK_BYTES = 1 << 20
"""Neighboring rows that stay together when the blocks of an epoch are put in order."""
WINDOW_BYTES = 256 << 20
"""Rows that are in memory and shuffled at once, the shuffle buffer; a quarter of the memory that
the inputs may take, where that is less."""


class Window(NamedTuple):
    """Some consecutive steps of an epoch, and the rows they need, on the device.

    >>> data = Batch(np.ones((6, 2), np.float32), np.array([0, 1, 0, 1, 0, 1]))
    >>> seen = windows(data, key=jax.random.key(0), start=0, stop=3, batch_size=2)
    >>> [(window.first, window.steps) for window in seen]
    [(0, 3)]
    """

    data: Batch
    """`window_rows` examples; behind the last window's the rest is never used."""
    plan: EpochPlan
    """One row a step; numbers count within the window."""
    first: int
    """The row of the plan to begin with: 0 but where a run goes on in the middle."""
    steps: int
    """How many steps from there."""


def is_streamed(inputs: Any) -> bool:
    """Whether inputs are to be read in blocks: a source, or a memory map, that is too large.

    >>> is_streamed(np.zeros((3, 2)))
    False
    """
    if isinstance(inputs, jax.Array) or type(inputs) is np.ndarray:
        return False
    if not (hasattr(inputs, "shape") and hasattr(inputs, "dtype") and len(inputs.shape) == 2):
        return False
    size = inputs.shape[0] * inputs.shape[1] * np.dtype(inputs.dtype).itemsize
    return size > getattr(inputs, "resident_bytes", RESIDENT_BYTES)


def window_rows(inputs: RowSource, batch_size: int) -> int:
    """How many rows a window has: whole batches, about `WINDOW_BYTES`, at least one batch.

    >>> window_rows(np.ones((1000, 4)), batch_size=256)  # four batches, the last filled up
    1024
    """
    batch = min(batch_size, inputs.shape[0])
    most = min(WINDOW_BYTES, getattr(inputs, "resident_bytes", RESIDENT_BYTES) // 4)
    wanted = most // _row_bytes(inputs) // batch * batch
    return min(max(wanted, batch), steps_per_epoch(inputs.shape[0], batch) * batch)


def windows(
    data: Batch, *, key: jax.Array, start: int, stop: int, batch_size: int, over: Mesh | None = None
) -> Iterator[Window]:
    """The windows of steps `start` to `stop` of a run, across epochs, each read one ahead.

    Args:
      data: inputs (N, D), a source with row slices; labels (N,) and weights (N,) in memory.
      key: decides the order, with the epoch's number folded in.
      start: the step to begin with.
      stop: the step to stop before.
      batch_size: B; more than N means N.
      over: a `jaxlin.distributed.sharding.mesh`, to spread the rows of every window over its
        devices; the plan is then one of `jaxlin.distributed.sharding.shard_plan`.

    Raises:
      DataError: in the midst of it: a file changed, or holds a number that is not finite.

    >>> data = Batch(np.arange(10.0).reshape(5, 2), np.arange(5))
    >>> key = jax.random.key(0)
    >>> [(w.first, w.steps) for w in windows(data, key=key, start=2, stop=6, batch_size=2)]
    [(2, 1), (0, 3)]
    """
    if isinstance(data.inputs, np.memmap):
        data = data._replace(inputs=from_map(data.inputs))
    batch = min(batch_size, data.inputs.shape[0])
    per_epoch = steps_per_epoch(data.inputs.shape[0], batch)
    per_window = window_rows(data.inputs, batch) // batch
    # The thread must not wait for the device, which is busy with the steps before: so the key
    # becomes bits on the host, once. And it does not know what precision the caller works in.
    bits = np.asarray(jax.random.key_data(key)).ravel().tolist()
    read = partial(_read, data, bits, batch, jax.config.jax_enable_x64, over)
    yield from prefetch(read, _schedule(start, stop, per_epoch, per_window))


def blank_window(data: Batch, batch_size: int, over: Mesh | None = None) -> tuple[Batch, EpochPlan]:
    """Zeros in the shapes of a window's examples and plan, to compile with.

    >>> batch, plan = blank_window(Batch(np.ones((6, 2)), np.zeros(6, np.int32)), batch_size=2)
    >>> batch.inputs.shape, plan.rows.shape
    ((6, 2), (3, 2))
    """
    rows, batch = window_rows(data.inputs, batch_size), min(batch_size, data.inputs.shape[0])
    labels = np.zeros(rows, np.asarray(data.labels).dtype)
    counts = None if data.weights is None else np.zeros(rows, np.asarray(data.weights).dtype)
    plan = EpochPlan(
        np.zeros(rows, np.int32).reshape(-1, batch), np.zeros(rows, np.float32).reshape(-1, batch)
    )
    if over is not None:
        counts = np.zeros(rows, np.float32) if counts is None else counts
        return _spread(
            np.zeros((0, data.inputs.shape[1]), data.inputs.dtype), [], labels, counts, plan, over
        )
    inputs = jnp.zeros((rows, data.inputs.shape[1]), data.inputs.dtype)
    return jax.tree.map(jnp.asarray, (Batch(inputs, labels, counts), plan))


class _Turn(NamedTuple):
    """Steps [first, first + steps) of a window of an epoch."""

    epoch: int
    window: int
    first: int
    steps: int


def _schedule(start: int, stop: int, per_epoch: int, per_window: int) -> Iterator[_Turn]:
    step = start
    while step < stop:
        epoch, inside = divmod(step, per_epoch)
        window, first = divmod(inside, per_window)
        steps = min(per_window - first, per_epoch - inside, stop - step)
        yield _Turn(epoch, window, first, steps)
        step += steps


def _read(
    data: Batch, bits: list[int], batch: int, x64: bool, over: Mesh | None, turn: _Turn
) -> Window:
    """Read and shuffle one window. The buffers are new each time: JAX uses them without a copy."""
    rows = window_rows(data.inputs, batch)
    segments = _segments(data.inputs, bits, turn, rows)
    chosen = np.concatenate([np.arange(part.start, part.stop) for part in segments])
    order = np.zeros(rows, np.int32)
    order[: len(chosen)] = _generator(bits, turn.epoch, 1 + turn.window).permutation(len(chosen))
    weights = (np.arange(rows) < len(chosen)).astype(np.float32)
    counts = None if data.weights is None else _padded(data.weights, chosen, rows)
    labels = _padded(data.labels, chosen, rows)
    plan = EpochPlan(order.reshape(-1, batch), weights.reshape(-1, batch))
    with jax.enable_x64(x64):
        if over is not None:
            counts = np.ones(rows, np.float32) if counts is None else counts
            placed = _spread(data.inputs, segments, labels, counts, plan, over)
            return Window(*placed, turn.first, turn.steps)
        inputs = _filled(data.inputs, segments, rows)
        window = Window(Batch(inputs, labels, counts), plan, turn.first, turn.steps)
        return window._replace(
            data=jax.tree.map(jax.device_put, window.data),
            plan=jax.tree.map(jax.device_put, window.plan),
        )


def _filled(source: RowSource, segments: Sequence[range | np.ndarray], rows: int) -> np.ndarray:
    """The rows of the segments, then zeros."""
    inputs, count = empty_rows(rows, source), sum(map(len, segments))
    fill(source, inputs[:count], segments)
    inputs[count:] = 0
    return inputs


def _spread(
    source: RowSource,
    segments: Sequence[range],
    labels: np.ndarray,
    counts: np.ndarray,
    plan: EpochPlan,
    over: Mesh,
) -> tuple[Batch, EpochPlan]:
    """A window on a mesh: an even share of the rows that are there on every device."""
    shards = over.shape["data"]
    each, present = -(-len(labels) // shards), sum(map(len, segments))
    share = max(1, -(-present // shards))
    numbers = np.concatenate([np.zeros(0, np.int64), *map(np.asarray, segments)]).astype(np.int64)
    owners = _owners(source, numbers)
    homes = np.arange(present) // share if owners is None else _homes(owners, share, over)
    counted = np.bincount(homes, minlength=shards)
    ordered = np.argsort(homes, kind="stable")
    moved = np.zeros(len(labels), np.int64)
    moved[ordered] = homes[ordered] * each + np.concatenate([*map(np.arange, counted)])

    @cache  # the devices of one place on the `data` axis get the same rows
    def block(shard: int) -> np.ndarray:
        if owners is None:
            own: Sequence[range | np.ndarray] = _between(
                segments, shard * share, (shard + 1) * share
            )
        else:
            own = [numbers[np.flatnonzero(homes == shard)]]
        return _filled(source, own, each)

    by_row = []
    for values in (labels, counts):
        spread = np.zeros(each * shards, values.dtype)
        spread[moved[:present]] = values[:present]
        by_row.append(place_rows(spread, over))
    inputs = place_blocks(block, (each, source.shape[1]), over)
    rows = np.where(plan.weights > 0, moved[plan.rows], 0).astype(np.int32)
    return Batch(inputs, *by_row), shard_plan(EpochPlan(rows, plan.weights), each * shards, over)


def _owners(source: Any, rows: np.ndarray) -> np.ndarray | None:
    """A process that has each of these rows of a source, on all processes alike; `None` if all
    have all."""
    if isinstance(source, RowView):
        return _owners(source.source, source.rows[rows])
    return source.homes(rows) if hasattr(source, "homes") else None


def _homes(owners: np.ndarray, share: int, over: Mesh) -> np.ndarray:
    """The place on the `data` axis for each row of a window: with its owner while there is room.

    >>> from jaxlin.distributed.sharding import mesh
    >>> _homes(np.array([1, 0, 0]), 3, mesh(1)).tolist()
    [0, 0, 0]
    """
    processes = np.array([devices.flat[0].process_index for devices in over.devices])
    homes = np.full(len(owners), -1)
    for process in np.unique(owners):
        rows = np.flatnonzero(owners == process)
        room = np.repeat(np.flatnonzero(processes == process), share)[: len(rows)]
        homes[rows[: len(room)]] = room
    room = share - np.bincount(homes[homes >= 0], minlength=len(processes))
    homeless = np.flatnonzero(homes < 0)
    homes[homeless] = np.repeat(np.arange(len(processes)), room)[: len(homeless)]
    return homes


def _between(segments: Sequence[range], low: int, high: int) -> list[range]:
    """The pieces of the segments that are entries [low, high) of their sequence."""
    found: list[range] = []
    first = 0
    for part in segments:
        piece = part[max(low - first, 0) : max(high - first, 0)]
        found += [piece] if len(piece) else []
        first += len(part)
    return found


def _segments(inputs: RowSource, bits: list[int], turn: _Turn, rows: int) -> list[range]:
    """The pieces of blocks that are rows [window * rows, (window + 1) * rows) of the epoch."""
    examples, size = inputs.shape[0], max(1, BLOCK_BYTES // _row_bytes(inputs))
    order = _generator(bits, turn.epoch, 0).permutation(-(-examples // size))
    lengths = np.minimum(size, examples - order * size)
    ends = np.cumsum(lengths)
    begins = ends - lengths
    low, high = turn.window * rows, min((turn.window + 1) * rows, examples)
    held = range(np.searchsorted(ends, low, "right"), np.searchsorted(begins, high, "left"))
    starts = {i: int(order[i] * size - begins[i]) for i in held}
    return [
        range(starts[i] + max(low, int(begins[i])), starts[i] + min(high, int(ends[i])))
        for i in held
    ]


def _generator(bits: list[int], epoch: int, stage: int) -> np.random.Generator:
    """Stage 0 orders the blocks of an epoch, stage 1 + w the rows of its window w."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([*bits, epoch, stage])))


def _padded(values: ArrayLike, chosen: np.ndarray, rows: int) -> np.ndarray:
    found = np.asarray(values)[chosen]
    return np.concatenate([found, np.zeros(rows - len(found), found.dtype)])


def _row_bytes(inputs: RowSource) -> int:
    return max(1, inputs.shape[1] * np.dtype(inputs.dtype).itemsize)
