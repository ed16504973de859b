"""Rows in XLA programs, resident on a device or handed to it part by part."""

__all__ = ["DeviceRows", "exactly"]

import copy
import inspect
import mmap
from collections.abc import Callable, Iterator, Sequence
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from jaxlin.blocks import blocks_on
from jaxlin.cpu_threads import check_not_forked
from jaxlin.distributed.sharding import fetch
from jaxlin.memory import kept_bytes
from jaxlin.passes import chunks
from jaxlin.passes.affine import Rows, arithmetic, chunk_size, norm_bound
from jaxlin.platforms import arithmetic_of, with_float64
from jaxlin.prefetch import prefetch
from jaxlin.transfer import device_of, to_device

RESIDENT_BYTES = 4 << 30
"""Memory maps and chunked sources beyond this are read part by part in every pass, on a CPU."""
PART_BYTES = 256 << 20
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def exactly(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A method of `DeviceRows` whose float64 is IEEE arithmetic, as the bounds of proofs take it.

    Where the device computes float64 in pairs of float32, the same rows on this machine's
    processors do what is asked in float64.
    """
    signature = inspect.signature(method)
    asked = signature.parameters.get("dtype")
    default = np.float64 if asked is None else asked.default  # without one it is float64 always

    @wraps(method)
    def routed(self: Any, *arguments: Any, **settings: Any) -> Any:
        given = signature.bind(self, *arguments, **settings).arguments
        dtype = given.get("dtype", default)
        rows = self.proving if np.dtype(dtype or self.dtype) == np.float64 else self
        if rows is self:
            return method(self, *arguments, **settings)
        arguments, settings = jax.tree.map(_from_device, (arguments, settings))
        with jax.default_device(rows.device):
            return getattr(rows, method.__name__)(*arguments, **settings)

    as_given: Any = routed
    return as_given


def _widening(weights: Any) -> Callable[[Any], Any]:
    """To float64, on the device or on the host: where these weights lie."""

    def on_device(value: Any) -> jax.Array:
        with jax.enable_x64(True):
            return value.astype(np.float64)

    return on_device if isinstance(weights, jax.Array) else partial(np.asarray, dtype=np.float64)


def _from_device(value: Any) -> Any:
    return fetch(value) if isinstance(value, jax.Array) else value


class DeviceRows(Rows):
    """Rows in XLA programs: chunks in a scan, on whatever device holds or receives them.

    >>> rows = DeviceRows(np.eye(2, dtype=np.float32), 3, None, None, np.dtype(np.float32))
    >>> rows.scores(np.ones((3, 2)), np.zeros(3)).tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """

    xp = jnp
    precision = "highest"
    """Of the products in float32 of `fused`: one of `jaxlin.precision.PRECISIONS`."""

    def __init__(
        self,
        inputs: Any,
        classes: int,
        shift: ArrayLike | None,
        scale: ArrayLike | None,
        dtype: np.dtype,
    ):
        check_not_forked()
        super().__init__(inputs, classes, shift, scale, dtype)
        self.classes, self.device = classes, device_of(inputs)
        self.blocks = blocks_on(self.device)
        self.chunk = chunk_size(self.size, self.features, classes, self.dtype, self.blocks)
        item = np.dtype(inputs.dtype).itemsize
        array = isinstance(inputs, (np.ndarray, jax.Array)) and not isinstance(inputs, np.memmap)
        self._parts = [slice(0, self.size)]
        self._resident: jax.Array | None = None
        taken = self.size * self.features * item
        most = getattr(inputs, "resident_bytes", RESIDENT_BYTES)  # of this machine's memory
        if array or taken <= most:
            own = isinstance(inputs, jax.Array)
            self._resident = inputs if own else self._part(self._parts[0])[1]
            return
        rows = max(self.chunk, PART_BYTES // (self.features * item) // self.chunk * self.chunk)
        self._parts = [
            slice(start, min(start + rows, self.size)) for start in range(0, self.size, rows)
        ]
        if self.device.platform != "cpu" and taken <= kept_bytes(self.device, most):
            self._resident = self._gathered()
            self._parts = [slice(0, self.size)]

    @property
    def resident(self) -> bool:
        return self._resident is not None

    @property
    def _placing(self) -> np.dtype:
        """A dtype whose arithmetic keeps the inputs' digits on the way to the device."""
        floating = jnp.issubdtype(self.inputs.dtype, jnp.floating)
        return self.inputs.dtype if floating else self.dtype

    @property
    def proving(self) -> "DeviceRows":
        """The same rows where float64 is IEEE arithmetic: here, or on this machine's processors.

        Rows that are spread over processes stay where they are.
        """
        device = self.device if jax.process_count() > 1 else with_float64(self.device)
        if device is self.device:
            return self
        if self._proving is None:
            with jax.default_device(device):
                rows = _from_device(self.inputs)
                rows = DeviceRows(rows, self.classes, self.shift, self.scale, self.dtype)
            rows._moved, self._proving = self._moved, rows
        return self._proving

    @property
    def coarse(self) -> "DeviceRows | None":
        if self.dtype != np.float32 or "tf32" not in (arithmetic_of(self.device).units or ()):
            return None
        if self._coarse is None:
            self._coarse = copy.copy(self)
            self._coarse.precision = "tf32"
        return self._coarse

    @property
    def arithmetic(self) -> str:
        device = self.proving.device
        pairs = arithmetic_of(device).float64 == "emulated"
        return f"{'pairs of float32' if pairs else 'float64'} on {device.device_kind}"

    def _each(self) -> Iterator[tuple[slice, jax.Array]]:
        if self._resident is not None:
            yield self._parts[0], self._resident
        else:
            yield from prefetch(self._part, self._parts)

    def _part(self, part: slice) -> tuple[slice, jax.Array]:
        """One part of the inputs on the device, in their dtype; a map's pages are given back."""
        rows = self.inputs[part]
        own = hasattr(self.inputs, "read_into")  # read for us: the device may take it over
        with arithmetic(self._placing):
            placed = jax.device_put(rows) if own else to_device(np.asarray(rows))
        if isinstance(self.inputs, np.memmap) and self.inputs.mode == "r":
            source: Any = self.inputs
            source._mmap.madvise(mmap.MADV_DONTNEED)
        return part, placed

    def _gathered(self) -> jax.Array:
        """All inputs on the device, read part by part: more than this machine may hold."""
        with arithmetic(self._placing):
            whole = jnp.zeros(self.inputs.shape, self.inputs.dtype)
            for part, rows in prefetch(self._part, self._parts):
                whole = chunks.placed(whole, rows, part.start)
        return whole

    @exactly
    def scores(
        self, weights: ArrayLike, bias: ArrayLike, dtype: DTypeLike | None = None
    ) -> jax.Array:
        dtype = np.dtype(dtype or self.dtype)
        with arithmetic(dtype):
            weights, bias, shift = self._arguments(weights, bias, dtype)
            blocks = [
                chunks.scores(weights, bias, shift, rows, chunk=self._chunk(dtype, rows.shape[0]))
                for _, rows in self._each()
            ]
            return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=1)

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
        """Sums over the rows of what `rowwise` makes of their scores in `dtype`, and these scores
        as they are `kept`: in a narrower dtype, or not at all.

        Args:
          rowwise: (xp, scores, *blocks, *extra) -> pytree of sums over the block's rows.
          by_row, extra: as for `total`.
        """
        found: list[Any] = []
        totals = None
        with arithmetic(np.float64):
            arguments = self._arguments(weights, bias, dtype)
            for part, rows in self._each():
                scores, sums = chunks.evaluated(
                    *arguments,
                    rows,
                    self._of_part(by_row, part),
                    extra,
                    rowwise=rowwise,
                    chunk=self._chunk(dtype, rows.shape[0]),
                    kept=kept,
                )
                found.append(scores)
                totals = sums if totals is None else jax.tree.map(jnp.add, totals, sums)
        if kept is None or len(found) == 1:
            return found[0], totals
        return jnp.concatenate(found, axis=1), totals

    @exactly
    def transpose(
        self, residuals: ArrayLike, dtype: DTypeLike | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        dtype = np.dtype(dtype or self.dtype)
        products: Any = 0.0  # arrays from the first part on
        sums: Any = 0.0
        with arithmetic(dtype):
            residuals = jnp.asarray(residuals, dtype)
            shift = jnp.asarray(self._subtracted(dtype))
            for part, rows in self._each():
                block = residuals if self._resident is not None else residuals[:, part]
                found = chunks.transpose(
                    block, shift, rows, chunk=self._chunk(dtype, rows.shape[0])
                )
                products += np.asarray(found[0], np.float64)
                sums += np.asarray(found[1], np.float64)
        return self._mapped_back(products, sums, dtype), sums

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
    ) -> tuple[Any, Any, Any]:
        """The sums of what `rowwise` makes of each block of scores: values, and of residuals their
        products with the rows and themselves, in float64, which lie where the weights came from."""
        dtype = np.dtype(dtype or self.dtype)
        value: Any = 0.0
        products: Any = 0.0
        sums: Any = 0.0
        widened = _widening(weights)
        with arithmetic(dtype):
            weights, bias, shift = self._arguments(weights, bias, dtype)
            counts = self._placed_counts(counts, dtype)
            for part, rows in self._each():
                found = chunks.fused(
                    weights,
                    bias,
                    shift,
                    rows,
                    *self._of_part((labels, counts), part),
                    extra,
                    rowwise=rowwise,
                    chunk=self._chunk(dtype, rows.shape[0]),
                    precision=self.precision,
                )
                value += np.asarray(found[0], np.float64).sum(0)
                products += widened(found[1])
                sums += widened(found[2])
        return value, self._mapped_back(products, sums, dtype), sums

    @exactly
    def total(self, rowwise: Callable[..., Any], by_row: Sequence[Any], *extra: Any) -> Any:
        """Sums over the rows of what `rowwise` makes of each block of columns.

        Args:
          rowwise: (xp, *blocks, *extra) -> pytree of sums over the block's rows.
          by_row: arrays whose last axis is the rows', such as scores (K, N) and labels (N,);
            scalars are handed on as they are.
          extra: handed to `rowwise` unchanged.
        """
        with arithmetic(np.float64):
            return chunks.total(tuple(by_row), extra, rowwise=rowwise, chunk=self._columns(by_row))

    @exactly
    def transpose_total(
        self,
        rowwise: Callable[..., Any],
        by_row: Sequence[Any],
        *extra: Any,
        dtype: DTypeLike = np.float64,
    ) -> tuple[np.ndarray, np.ndarray, Any]:
        """residuals @ rows, the sums of the residuals, and further sums, in one pass.

        Args:
          rowwise: (xp, *blocks, *extra) -> (residuals (K, R) of the block, pytree of sums).
          by_row, extra: as for `total`.
          dtype: of the residuals and the products.
        """
        products: Any = 0.0
        sums: Any = 0.0
        totals = None
        with arithmetic(np.float64):
            shift = jnp.asarray(self._subtracted(dtype))
            for part, rows in self._each():
                blocks = self._of_part(by_row, part)
                chunk = self._chunk(dtype, rows.shape[0])
                found = chunks.transpose_total(
                    blocks, extra, shift, rows, rowwise=rowwise, chunk=chunk
                )
                products += np.asarray(found[0], np.float64)
                sums += np.asarray(found[1], np.float64)
                totals = found[2] if totals is None else jax.tree.map(jnp.add, totals, found[2])
        return self._mapped_back(products, sums, dtype), sums, totals

    def _placed_counts(self, counts: ArrayLike, dtype: np.dtype) -> jax.Array:
        """Once for all passes that are asked for with the same."""
        if self._counts is None or self._counts[0] is not counts or self._counts[1] != dtype:
            self._counts = counts, dtype, jnp.asarray(counts, dtype)
        return self._counts[2]

    def _of_part(self, by_row: Sequence[Any], part: slice) -> tuple[Any, ...]:
        """The columns that belong to these rows; scalars as they are."""
        whole = self._resident is not None
        return tuple(a if whole or not jnp.ndim(a) else a[..., part] for a in by_row)

    def _columns(self, by_row: Sequence[Any]) -> int:
        """Rows of a block that is only a block of scores."""
        return self.blocks.columns(by_row[0].shape[0], self.size)

    def part(self, indices: np.ndarray, classes: int) -> "DeviceRows | None":
        """These rows by themselves; `None` where all are read anew in every pass."""
        if self._resident is None:
            return None
        with arithmetic(self._placing):
            rows = jnp.take(self._resident, jnp.asarray(indices), axis=0)
        other = DeviceRows(rows, classes, self.shift, self.scale, self.dtype)
        other._moved = self._moved
        return other

    def sample(self, indices: np.ndarray, dtype: DTypeLike | None = None) -> np.ndarray:
        dtype = np.dtype(dtype or self.dtype)
        if self._resident is not None:
            with arithmetic(dtype):
                maps = (jnp.asarray(self.shift, dtype), jnp.asarray(self.scale, dtype))
                return np.asarray(chunks.mapped(self._resident, jnp.asarray(indices), *maps))
        rows = np.asarray(self.inputs[np.sort(indices)])
        rows = (rows.astype(dtype) - self.shift.astype(dtype)) * self.scale.astype(dtype)
        order = np.empty(len(indices), np.int64)
        order[np.argsort(indices, kind="stable")] = np.arange(len(indices))
        return rows[order]

    def radius(self) -> float:
        if self._radius is None:
            # an upper bound all the same: D products and sums, each rounded
            dtype = np.promote_types(self.dtype, self.inputs.dtype)
            largest = self._largest_square(self._subtracted(dtype), dtype)
            largest *= 1 + (self.features + 8) * float(np.finfo(dtype).eps)
            self._radius = norm_bound(largest, self._folded(dtype) * self.scale)
        return self._radius

    @exactly
    def _largest_square(self, taken: np.ndarray, dtype: DTypeLike) -> float:
        """Of the norms of the scaled rows less `taken`, as computed in this dtype."""
        largest, dtype = 0.0, np.dtype(dtype)
        with arithmetic(dtype):
            vectors = jnp.asarray(taken), jnp.asarray(self.scale**2, dtype)
            for _, rows in self._each():
                chunk = chunk_size(rows.shape[0], self.features, 0, dtype, self.blocks)
                found = float(chunks.largest_square(rows, *vectors, chunk=chunk))
                largest = float(np.maximum(largest, found))  # NaN stays NaN
        return largest

    def _subtracted(self, dtype: DTypeLike) -> np.ndarray:
        """What rows are read less: nothing, (0,), or the shift, (D,), in this dtype.

        Integers near zero take theirs folded into the bias, at no cost; the others lose digits so.
        """
        taken = self._moved or jnp.issubdtype(self.inputs.dtype, jnp.floating)
        return (self.shift if taken and self.shift.any() else np.zeros(0)).astype(dtype)

    def _folded(self, dtype: DTypeLike) -> np.ndarray:
        """The rest of the shift, (D,), which the bias takes."""
        subtracted = self._subtracted(dtype)
        return self.shift - (subtracted if len(subtracted) else 0.0)

    def _arguments(
        self, weights: ArrayLike, bias: ArrayLike, dtype: DTypeLike
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        dtype, widened = np.dtype(dtype), _widening(weights)
        with jax.enable_x64(True):
            raw_weights = widened(weights) * self.scale[None, :]
            raw_bias = widened(bias) - raw_weights @ self._folded(dtype)
            raw_weights, raw_bias = raw_weights.astype(dtype), raw_bias.astype(dtype)
        subtracted = jnp.asarray(self._subtracted(dtype))
        return jnp.asarray(raw_weights), jnp.asarray(raw_bias), subtracted

    def _mapped_back(self, products: Any, sums: Any, dtype: DTypeLike) -> Any:
        with jax.enable_x64(True):
            outer = sums[:, None] * self._folded(dtype)[None, :]
            return (products - outer) * self.scale[None, :]
