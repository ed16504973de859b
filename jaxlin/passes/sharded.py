"""Rows that are spread over devices: the programs of `DeviceRows` on every shard, then one sum.

`ShardedRows` has the methods of `DeviceRows`, so that the full-batch solvers run on a mesh without
knowing it. Each device walks its own rows in cache-sized chunks; what the devices
exchange is the sum over rows, K x (D + 1) numbers and the loss. Scores, (K, N), stay where their
rows are. N is rounded up to fill the mesh: `fill` gives the rows that fill it up label 0 and
weight 0.
"""

__all__ = ["ShardedRows", "open_sharded"]

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from numpy.typing import ArrayLike, DTypeLike

from jaxlin.blocks import blocks_on
from jaxlin.cpu_threads import check_not_forked
from jaxlin.distributed.sharding import fetch, place_rows
from jaxlin.memory import available_bytes
from jaxlin.passes import chunks
from jaxlin.passes.affine import arithmetic, arithmetic_dtype, chunk_size
from jaxlin.passes.device import DeviceRows, exactly
from jaxlin.precision import Compiled, jit

_ROWS, _COLUMNS, _SAME = PartitionSpec("data"), PartitionSpec(None, "data"), PartitionSpec()


def open_sharded(
    inputs: Any,
    classes: int,
    over: Mesh,
    *,
    shift: ArrayLike | None = None,
    scale: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
) -> "ShardedRows":
    """A reader of the rows `(inputs - shift) * scale`, spread over the `data` axis of a mesh.

    Args:
      inputs: (N, D) array, memory map, or anything with `shape`, `dtype` and row slices. A
        process reads the rows of its own devices, and those that `sample` asks for.
      classes: K.
      over: from `jaxlin.distributed.sharding.mesh`; along its `class` axis everything is repeated.
      shift, scale, dtype: as in `jaxlin.passes.open_rows`.

    Raises:
      ValueError: sparse inputs, or more rows on a device than it has memory for.

    >>> from jaxlin.distributed.sharding import mesh
    >>> open_sharded(np.eye(2, dtype=np.float32), 3, mesh(1)).dtype
    dtype('float32')
    """
    if scipy.sparse.issparse(inputs):
        raise ValueError(
            "`inputs` are sparse, and sparse rows are read by one process without devices. Pass "
            "a dense array, or no mesh."
        )
    _check_memory(inputs, over)
    return ShardedRows(inputs, classes, over, shift, scale, arithmetic_dtype(inputs, dtype))


def _check_memory(inputs: Any, over: Mesh) -> None:
    """Refuse rows that the devices of this process cannot hold, before any is read."""
    local = [device for device in over.devices.flat if device.process_index == jax.process_index()]
    shared = len(local) if local[0].platform == "cpu" else 1  # devices with one memory
    rows = -(-inputs.shape[0] // over.shape["data"])
    wanted = shared * rows * inputs.shape[1] * np.dtype(inputs.dtype).itemsize
    free = available_bytes(local[0])
    if wanted > free:
        raise ValueError(
            f"the {inputs.shape[0]:,} rows take {wanted / 2**30:.2f} GiB on {shared} of the "
            f"{over.size} devices, where {free / 2**30:.2f} GiB are free. Use more devices or "
            "processes, one device (it reads the rows part by part), or a minibatch solver."
        )


class ShardedRows(DeviceRows):
    """Rows on the devices of a mesh; its size is N rounded up to fill them.

    >>> from jaxlin.distributed.sharding import mesh
    >>> rows = ShardedRows(np.eye(2), 3, mesh(1), None, None, np.dtype(np.float64))
    >>> rows.examples, rows.size
    (2, 2)
    """

    def __init__(
        self,
        inputs: Any,
        classes: int,
        over: Mesh,
        shift: ArrayLike | None,
        scale: ArrayLike | None,
        dtype: np.dtype,
    ):
        check_not_forked()
        source = _Filled(inputs, over.shape["data"])
        super(DeviceRows, self).__init__(source, classes, shift, scale, dtype)
        self.classes, self.over, self._resident = classes, over, None  # `sample` reads the source
        self.device = over.local_devices[0]
        self.blocks = blocks_on(self.device)
        self.chunk = chunk_size(source.share, self.features, classes, self.dtype, self.blocks)
        with arithmetic(self._placing):
            self._placed = place_rows(inputs, over, last=True)

    @property
    def depth(self) -> int:
        return super().depth + self.over.shape["data"]

    @property
    def examples(self) -> int:
        """N, without the rows that fill the mesh up."""
        return self.inputs.source.shape[0]

    def fill(self, values: np.ndarray) -> np.ndarray:
        """(..., N) values as (..., size), with zeros for the rows that fill the mesh up."""
        more = self.size - values.shape[-1]
        return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, more)])

    def beside(self, values: np.ndarray) -> jax.Array:
        """(size,) or (K, size) values on the devices of their rows."""
        if values.ndim == 1:
            return place_rows(values, self.over)
        with arithmetic(values.dtype):
            spread = NamedSharding(self.over, _COLUMNS)
            return jax.make_array_from_callback(values.shape, spread, values.__getitem__)

    @exactly
    def scores(
        self, weights: ArrayLike, bias: ArrayLike, dtype: DTypeLike | None = None
    ) -> jax.Array:
        dtype = np.dtype(dtype or self.dtype)
        with arithmetic(dtype):
            arguments = self._arguments(weights, bias, dtype)
            run = _on_shards(chunks.scores, self.over, self._chunk(dtype, self.inputs.share))
            return run(*arguments, self._placed)

    @exactly
    def evaluated(
        self,
        rowwise: Callable[..., Any],
        weights: ArrayLike,
        bias: ArrayLike,
        by_row: Sequence[Any],
        *extra: Any,
        dtype: DTypeLike = np.float64,
        kept: np.dtype[Any] | None = None,
    ) -> tuple[jax.Array | None, Any]:
        axes = tuple(np.ndim(a) for a in by_row)
        with arithmetic(np.float64):
            arguments = self._arguments(weights, bias, dtype)
            chunk = self._chunk(dtype, self.inputs.share)
            run = _on_shards(chunks.evaluated, self.over, chunk, rowwise, axes, kept=kept)
            return run(*arguments, self._placed, tuple(by_row), extra)

    @exactly
    def transpose(
        self, residuals: ArrayLike, dtype: DTypeLike | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        dtype = np.dtype(dtype or self.dtype)
        with arithmetic(dtype):
            shift = self._subtracted(dtype)
            run = _on_shards(chunks.transpose, self.over, self._chunk(dtype, self.inputs.share))
            products, sums = run(jnp.asarray(residuals, dtype), shift, self._placed)
        sums = np.asarray(sums, np.float64)
        return self._mapped_back(np.asarray(products, np.float64), sums, dtype), sums

    @exactly
    def fused(
        self,
        rowwise: Callable[..., Any],
        weights: ArrayLike,
        bias: ArrayLike,
        labels: Any,
        counts: ArrayLike,
        *extra: Any,
        dtype: DTypeLike | None = None,
    ) -> tuple[Any, np.ndarray, np.ndarray]:
        dtype = np.dtype(dtype or self.dtype)
        with arithmetic(dtype):
            arguments = self._arguments(weights, bias, dtype)
            counts = np.asarray(counts, dtype)
            chunk = self._chunk(dtype, self.inputs.share)
            run = _on_shards(
                chunks.fused, self.over, chunk, rowwise, (counts.ndim,), self.precision
            )
            values, products, sums = run(*arguments, self._placed, labels, counts, extra)
        sums = np.asarray(sums, np.float64)
        value = fetch(values).astype(np.float64).sum(0)
        return value, self._mapped_back(np.asarray(products, np.float64), sums, dtype), sums

    @exactly
    def total(self, rowwise: Callable[..., Any], by_row: Sequence[Any], *extra: Any) -> Any:
        chunk, axes = self._columns(by_row), tuple(np.ndim(a) for a in by_row)
        with arithmetic(np.float64):
            return _on_shards(chunks.total, self.over, chunk, rowwise, axes)(tuple(by_row), extra)

    @exactly
    def transpose_total(
        self,
        rowwise: Callable[..., Any],
        by_row: Sequence[Any],
        *extra: Any,
        dtype: DTypeLike = np.float64,
    ) -> tuple[np.ndarray, np.ndarray, Any]:
        axes = tuple(np.ndim(a) for a in by_row)
        with arithmetic(np.float64):
            shift = jnp.asarray(self._subtracted(dtype))
            chunk = self._chunk(dtype, self.inputs.share)
            run = _on_shards(chunks.transpose_total, self.over, chunk, rowwise, axes)
            products, sums, totals = run(tuple(by_row), extra, shift, self._placed)
        sums = np.asarray(sums, np.float64)
        return self._mapped_back(np.asarray(products, np.float64), sums, dtype), sums, totals

    @exactly
    def _largest_square(self, taken: np.ndarray, dtype: DTypeLike) -> float:
        dtype = np.dtype(dtype)
        chunk = chunk_size(self.inputs.share, self.features, 0, dtype, self.blocks)
        with arithmetic(dtype):
            run = _on_shards(chunks.largest_square, self.over, chunk)
            return float(run(self._placed, taken, np.asarray(self.scale**2, dtype)))


class _Filled:
    """A source of rows with its last row behind it again: that is never farther than the others."""

    def __init__(self, source: Any, parts: int):
        self.source, self.dtype = source, np.dtype(source.dtype)
        self.share = -(-source.shape[0] // parts)
        self.shape = (self.share * parts, source.shape[1])

    def __getitem__(self, indices: Any) -> np.ndarray:
        if isinstance(indices, slice):
            indices = np.arange(*indices.indices(self.shape[0]))
        return np.asarray(self.source[np.minimum(indices, self.source.shape[0] - 1)])


@cache
def _on_shards(
    kernel: Any,
    over: Mesh | AbstractMesh,
    chunk: int,
    rowwise: Callable[..., Any] | None = None,
    axes: tuple[int, ...] = (),
    precision: str = "highest",
    kept: np.dtype[Any] | None = None,
) -> Compiled[Any]:
    """A walk of `jaxlin.passes.chunks` on the rows of every device, its sums added up.

    `axes` says how many axes the arrays by row have, of which the last is the rows'; `precision` is
    that of `fused`, `kept` the dtype of the scores that `evaluated` leaves.
    """
    by_row = tuple(_SAME if not n else _ROWS if n == 1 else _COLUMNS for n in axes)

    def scores(weights: jax.Array, bias: jax.Array, shift: jax.Array, rows: jax.Array) -> jax.Array:
        return kernel(weights, bias, shift, rows, chunk=chunk)

    def transpose(residuals: jax.Array, shift: jax.Array, rows: jax.Array) -> Any:
        return jax.lax.psum(kernel(residuals, shift, rows, chunk=chunk), "data")

    def fused(
        weights: jax.Array,
        bias: jax.Array,
        shift: jax.Array,
        rows: jax.Array,
        labels: jax.Array,
        counts: jax.Array,
        extra: Any,
    ) -> tuple[Any, ...]:
        inside = weights, bias, shift, rows, labels, counts, extra
        values, *sums = kernel(*inside, rowwise=rowwise, chunk=chunk, precision=precision)
        return values, *jax.lax.psum(tuple(sums), "data")

    def evaluated(*arguments: Any) -> Any:
        scores, sums = kernel(*arguments, rowwise=rowwise, chunk=chunk, kept=kept)
        return scores, jax.lax.psum(sums, "data")

    def total(*arguments: Any) -> Any:
        return jax.lax.psum(kernel(*arguments, rowwise=rowwise, chunk=chunk), "data")

    def largest(rows: jax.Array, shift: jax.Array, squared_scale: jax.Array) -> jax.Array:
        return jax.lax.pmax(kernel(rows, shift, squared_scale, chunk=chunk), "data")

    walks: dict[Any, tuple[Callable[..., Any], Any, Any]] = {
        chunks.scores: (scores, (_SAME, _SAME, _SAME, _ROWS), _COLUMNS),
        chunks.transpose: (transpose, (_COLUMNS, _SAME, _ROWS), _SAME),
        chunks.fused: (
            fused,
            (_SAME, _SAME, _SAME, _ROWS, _ROWS, *by_row, _SAME),
            (_ROWS, _SAME, _SAME),
        ),
        chunks.evaluated: (
            evaluated,
            (_SAME, _SAME, _SAME, _ROWS, by_row, _SAME),
            (_COLUMNS, _SAME),
        ),
        chunks.total: (total, (by_row, _SAME), _SAME),
        chunks.transpose_total: (total, (by_row, _SAME, _SAME, _ROWS), _SAME),
        chunks.largest_square: (largest, (_ROWS, _SAME, _SAME), _SAME),
    }
    function, arguments, results = walks[kernel]
    # The kernels' sums start from zeros that are the same on all devices: nothing to be checked.
    return jit(
        jax.shard_map(function, mesh=over, in_specs=arguments, out_specs=results, check_vma=False)
    )
