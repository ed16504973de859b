"""Many devices: a mesh, rows of data spread over it, and parameters that are copied or split.

A mesh has two axes. Rows are split along `data`: every device keeps its own rows for the whole
run, no row ever moves, and what the devices exchange per step is one sum of gradients, K x (D + 1)
numbers however large the batch. Classes (or heads: whatever the leading axis of the parameters is)
are split along `class`, for models that do not fit on one device; what is then exchanged beside
is a maximum and a sum per example.

The batches are those of a single device: an epoch is one permutation of all rows, and each device
takes from each batch the rows that it holds. A run therefore sees the same examples in the same
order on any number of devices, and may go on with another number than it began with. The price is
that a batch is not split evenly: with B rows over P devices the fullest one holds about
B / P + 4 sqrt(B / P), and all compute that many (`width`).

Sums over devices are taken in another order than sums on one, so that results agree to rounding
(1e-6 relative), and bit for bit only between runs on equally many devices.

All functions work across processes too: each process reads and holds its own rows alone.
"""

__all__ = [
    "Placed",
    "collectives",
    "fetch",
    "mesh",
    "place",
    "place_blocks",
    "place_heads",
    "place_params",
    "place_rows",
    "shard_plan",
    "spread",
    "take",
    "width",
]

import math
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from jaxlin.core import EXCLUDED, Batch, LinearParams, RowSource
from jaxlin.precision import jit


class Placed(NamedTuple):
    """A batch whose rows lie on the devices of a mesh.

    >>> placed = place(Batch(np.ones((5, 2), np.float32), np.zeros(5, np.int32)), mesh(1))
    >>> placed.examples, dict(placed.mesh.shape)
    (5, {'data': 1, 'class': 1})
    """

    batch: Batch
    """Rows filled up with zeros, at weight 0, to a multiple of the `data` axis."""
    examples: int
    """N: the rows that are really there."""
    mesh: Mesh | None
    """`None`: all on one device."""


class Collective(NamedTuple):
    """One exchange between devices in a compiled program."""

    kind: str
    """"all-reduce", "all-gather", "reduce-scatter", "all-to-all" or "collective-permute"."""
    shapes: tuple[tuple[int, ...], ...]
    """Of the arrays that come out on one device."""

    @property
    def elements(self) -> int:
        """Numbers that come out on one device."""
        return sum(math.prod(shape) for shape in self.shapes)


def mesh(devices: int | Sequence[jax.Device] | None = None, *, class_axis: int = 1) -> Mesh:
    """Devices as a grid with the axes `data` and `class`.

    Args:
      devices: how many of each process's devices to use, or the devices themselves; by default
        all there are.
      class_axis: over how many devices the classes are split; it divides their number.

    Raises:
      ValueError: there are not as many devices, or they do not divide.

    >>> dict(mesh(1).shape)
    {'data': 1, 'class': 1}
    """
    chosen = list(jax.devices() if devices is None or isinstance(devices, int) else devices)
    if isinstance(devices, int):
        local = jax.local_device_count()
        if not 1 <= devices <= local:
            hint = (
                " On a CPU, XLA_FLAGS=--xla_force_host_platform_device_count=N makes N of it."
                if chosen[0].platform == "cpu"
                else ""
            )
            raise ValueError(f"`devices` must be in [1, {local}] here, got {devices}.{hint}")
        chosen = [
            device
            for process in range(jax.process_count())
            for device in [d for d in chosen if d.process_index == process][:devices]
        ]
    if class_axis < 1 or len(chosen) % class_axis:
        raise ValueError(
            f"`class_axis` must divide the {len(chosen)} devices, got {class_axis}. "
            "Use 1 to split the rows only."
        )
    # Rows of one process are adjacent, and the class axis lies within a process where it can.
    grid = np.array(chosen).reshape(-1, class_axis)
    return Mesh(grid, ("data", "class"), axis_types=(AxisType.Auto, AxisType.Auto))


def place_rows(array: RowSource, over: Mesh, size: int = 0, *, last: bool = False) -> jax.Array:
    """`array` (N, ...), its rows split along `data`, filled up with zero rows to `size` or more.

    Or, with `last`, with copies of the last row.

    `array` may be anything with `shape`, `dtype` and row slices, such as a memory map. Only the
    rows of this process's devices are read.

    >>> place_rows(np.arange(5), mesh(1)).tolist()
    [0, 1, 2, 3, 4]
    """
    size = _filled(max(len(array), size), over.shape["data"])
    shape = (size, *array.shape[1:])
    dtype = np.dtype(jax.dtypes.canonicalize_dtype(array.dtype))

    def block(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(size)
        rows = np.asarray(array[min(start, len(array)) : min(stop, len(array))], dtype)
        missing = stop - start - len(rows)
        if not missing:
            return rows
        filler = np.asarray(array[len(array) - 1 :] if last else np.zeros((1, *shape[1:])), dtype)
        return np.concatenate([rows, np.repeat(filler, missing, axis=0)])

    return jax.make_array_from_callback(shape, _along(over, "data"), block)


def place_blocks(
    block: Callable[[int], np.ndarray], shape: tuple[int, ...], over: Mesh
) -> jax.Array:
    """What `block(number)`, an array of this shape, returns for every place on the `data` axis.

    Only the blocks of this process's devices are asked for.

    >>> place_blocks(lambda number: np.full((2, 1), number), (2, 1), mesh(1)).tolist()
    [[0], [0]]
    """
    whole = (shape[0] * over.shape["data"], *shape[1:])

    def of_device(index: Any) -> np.ndarray:
        return block(index[0].indices(whole[0])[0] // shape[0])

    return jax.make_array_from_callback(whole, _along(over, "data"), of_device)


def place(data: Batch, over: Mesh) -> Placed:
    """`data` on the devices of a mesh; rows that fill up an uneven split weigh 0.

    >>> placed = place(Batch(np.ones((5, 2), np.float32), np.zeros(5, np.int32)), mesh(1))
    >>> placed.examples, placed.batch.weights.tolist()
    (5, [1.0, 1.0, 1.0, 1.0, 1.0])
    """
    examples = len(data.labels)
    weights = np.ones(examples, np.float32) if data.weights is None else np.asarray(data.weights)
    inputs, labels = (
        part if hasattr(part, "dtype") else np.asarray(part) for part in (data.inputs, data.labels)
    )
    placed = Batch(place_rows(inputs, over), place_rows(labels, over), place_rows(weights, over))
    return Placed(placed, examples, over)


def place_params(params: LinearParams, over: Mesh) -> LinearParams:
    """Parameters on a mesh: copied along `data`, their leading axis split along `class`.

    An uneven number of classes is filled up with classes that can never win (weights 0, bias
    -1e30): no loss sees them. `fetch(params, classes)` takes them off again.

    >>> place_params(LinearParams(np.eye(3), np.zeros(3)), mesh(1)).weights.shape
    (3, 3)
    """
    missing = _filled(len(params.bias), over.shape["class"]) - len(params.bias)

    def grown(leaf: ArrayLike, value: float) -> np.ndarray:
        leaf = np.asarray(leaf)
        padding = [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)
        return np.pad(leaf, padding, constant_values=value) if missing else leaf

    parts = (grown(params.weights, 0), grown(params.bias, EXCLUDED))
    along = _along(over, "class")
    return LinearParams(
        *(jax.make_array_from_callback(part.shape, along, part.__getitem__) for part in parts)
    )


def place_heads(tree: Any, over: Mesh) -> Any:
    """A tree of arrays that all have H heads in front, split along `class`; scalars are copied.

    An uneven number of heads is filled up with copies of the last one, which disturb nobody.

    >>> place_heads({"bias": np.zeros((3, 2)), "step": np.zeros(())}, mesh(1))["bias"].shape
    (3, 2)
    """
    parts = over.shape["class"]

    def placed(leaf: ArrayLike) -> jax.Array:
        values = np.asarray(leaf)
        axes = () if values.ndim == 0 else ("class",)
        if axes and len(values) % parts:
            last = np.repeat(values[-1:], _filled(len(values), parts) - len(values), axis=0)
            values = np.concatenate([values, last])
        return jax.make_array_from_callback(values.shape, _along(over, *axes), values.__getitem__)

    return jax.tree.map(placed, tree)


def spread(tree: Any, params: LinearParams) -> Any:
    """`tree` with a copy on every device of what is not yet on the mesh of `params`, if any.

    >>> params = place_params(LinearParams(np.eye(3), np.zeros(3)), mesh(1))
    >>> spread({"step": np.zeros(())}, params)["step"].sharding.is_fully_replicated
    True
    """
    home = getattr(params.bias, "sharding", None)
    if not isinstance(home, NamedSharding):
        return tree
    everywhere = NamedSharding(home.mesh, PartitionSpec())

    def placed(leaf: ArrayLike) -> ArrayLike:
        if isinstance(getattr(leaf, "sharding", None), NamedSharding):
            return leaf
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, everywhere, values.__getitem__)

    return jax.tree.map(placed, tree)


def fetch(tree: Any, rows: int | None = None) -> Any:
    """A tree of arrays as NumPy arrays on every process, whole, cut to `rows` if that is given.

    >>> fetch(place_params(LinearParams(np.eye(2), np.zeros(2)), mesh(1)), 2).bias.tolist()
    [0.0, 0.0]
    """

    def whole(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            if not leaf.is_fully_replicated:
                home: Any = leaf.sharding
                leaf = _copied(home.mesh)(leaf)
            leaf = leaf.addressable_data(0)
        return np.asarray(leaf) if rows is None else np.asarray(leaf)[:rows]

    return jax.tree.map(whole, tree)


@cache
def _copied(over: Mesh) -> Callable[[jax.Array], jax.Array]:
    """Compiled once for a mesh: an array, copied to all of its devices."""
    return jit(lambda leaf: leaf, out_shardings=NamedSharding(over, PartitionSpec()))


def width(batch_size: int, examples: int, shards: int) -> int:
    """Rows that each device computes per step: enough for the fullest one, nearly always.

    A batch is a random choice of rows, so a device holds a nearly Poisson number of them with
    mean B / P; 4.5 standard deviations more suffice in 99 epochs of 100 or so, and `shard_plan`
    widens the others.

    >>> [width(batch, 1_281_167, 8) for batch in (8, 256, 4096)]
    [8, 64, 616]
    """
    mean = batch_size / shards
    most = math.ceil((mean + 4.5 * math.sqrt(mean)) / 8) * 8 if shards > 1 else batch_size
    return min(most, batch_size, -(-examples // shards))


def shard_plan(plan: Any, examples: int, over: Mesh) -> Any:
    """The plan of an epoch, (S, B), with each row number at the device that holds the row.

    Args:
      plan: `jaxlin.batches.EpochPlan` over `examples` rows.
      examples: N, before they were filled up.
      over: the mesh that the rows were placed on.

    Returns:
      A plan of the same type on the devices: rows and weights (S, P, width), row numbers counted
      from the first row of their device, entries that hold nothing at weight 0.

    >>> from jaxlin.batches import epoch_plan
    >>> plan = epoch_plan(jax.random.key(0), 0, examples=5, batch_size=2)
    >>> shard_plan(plan, 5, mesh(1)).weights.sum(axis=(1, 2)).tolist()
    [2.0, 2.0, 1.0]
    """
    shards = over.shape["data"]
    share = _filled(examples, shards) // shards
    steps, size = plan.rows.shape
    owner = np.where(plan.weights > 0, plan.rows // share, shards).astype(np.int16)
    order = np.argsort(owner, axis=1, kind="stable")  # in int16 a radix sort
    owner = np.take_along_axis(owner, order, axis=1)
    cells = (np.arange(steps)[:, None] * (shards + 1) + owner).ravel()
    counts = np.bincount(cells, minlength=steps * (shards + 1)).reshape(steps, shards + 1)
    first = np.cumsum(counts, axis=1) - counts
    within = np.arange(size)[None, :] - np.take_along_axis(first, owner.astype(np.intp), axis=1)
    wide = max(width(size, examples, shards), int(counts[:, :shards].max()))
    held = owner < shards
    at = (np.nonzero(held)[0], owner[held], within[held])
    rows = np.zeros((steps, shards, wide), np.int32)
    weights = np.zeros((steps, shards, wide), np.float32)
    rows[at] = np.take_along_axis(plan.rows, order, axis=1)[held] - owner[held] * np.int32(share)
    weights[at] = np.take_along_axis(plan.weights, order, axis=1)[held]
    along = _along(over, None, "data")
    return type(plan)(
        *(jax.make_array_from_callback(a.shape, along, a.__getitem__) for a in (rows, weights))
    )


def take(data: Batch, rows: jax.Array, weights: jax.Array, over: Mesh) -> Batch:
    """One step's batch, (P * width) rows split along `data`: every device gathers its own.

    Args:
      data: `Placed.batch`.
      rows, weights: (P, width), one step of `shard_plan`.
      over: the mesh. Inside `jax.jit` this is a static argument.

    >>> over = mesh(1)
    >>> placed = place(Batch(np.arange(3.0)[:, None], np.array([0, 1, 1])), over)
    >>> batch = take(placed.batch, np.array([[2, 0]]), np.array([[1.0, 0.0]]), over)
    >>> batch.inputs.tolist(), batch.weights.tolist()
    ([[2.0], [0.0]], [1.0, 0.0])
    """
    along = PartitionSpec("data")

    @partial(jax.shard_map, mesh=over, in_specs=along, out_specs=along)
    def gather(
        inputs: jax.Array, labels: jax.Array, counts: jax.Array, rows: jax.Array, weights: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        own = rows[0]
        # The plan's rows lie inside the shard, so the bounds checks of indexing would be idle.
        inputs, labels, counts = (
            leaf.at[own].get(mode="promise_in_bounds") for leaf in (inputs, labels, counts)
        )
        return inputs, labels, counts * weights[0]

    return Batch(*gather(data.inputs, data.labels, data.weights, rows, weights))


def collectives(program: str) -> list[Collective]:
    """What a compiled program exchanges between devices, from its text.

    Args:
      program: `jax.jit(f).lower(...).compile().as_text()`.

    >>> line = "%r = (f32[10,96]{1,0}, f32[10]{0}) all-reduce(%a, %b), replica_groups={{0,1}}"
    >>> [(found.kind, found.elements) for found in collectives(line)]
    [('all-reduce', 970)]
    """
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    pattern = re.compile(rf"= (?P<result>.*?) (?P<kind>{kinds})(-start)?\(")
    found = []
    for line in program.splitlines():
        match = pattern.search(line)
        if match is not None:
            shapes = re.findall(r"\w+\[([\d,]*)\]", match["result"])
            sizes = tuple(tuple(int(n) for n in shape.split(",") if n) for shape in shapes)
            found.append(Collective(match["kind"], sizes))
    return found


def _filled(count: int, parts: int) -> int:
    return -(-count // parts) * parts


def _along(over: Mesh, *axes: str | None) -> NamedSharding:
    return NamedSharding(over, PartitionSpec(*axes))
