"""Passes over the rows of a data set in cache-sized chunks: the one place that streams and masks.

A full-batch gradient needs scores = X W^T and then R^T X, with R the derivative of the loss in
the scores. Doing both while a chunk of rows is hot reads X once instead of twice, and keeps raw
pixels as uint8 in memory: `(raw - shift) * scale` is folded into the products. Scores are class
first, (K, R) for a chunk of R rows: K is small and the rows are what a processor vectorizes over.

`open_rows` returns one of two readers with the same methods. `DeviceRows` runs XLA programs on
the array's device, or on slices of a memory map that does not fit. `HostRows` runs NumPy and
SciPy, for sparse matrices and for problems so small that a compilation would cost more than the
fit. The programs themselves are those of `jaxlin.chunks`.
"""

__all__ = ["DeviceRows", "HostRows", "arithmetic", "chunk_size", "is_small", "open_rows"]

import copy
import mmap

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxlin import chunks
from jaxlin.prefetch import prefetch

SMALL_PROBLEM = 2_000_000
"""Multiplications (N * D * K) under which NumPy finishes before XLA has compiled."""
RESIDENT_BYTES = 4 << 30
"""Memory maps and chunked sources beyond this are read part by part in every pass."""
PART_BYTES = 256 << 20
CACHED_BYTES = 8 << 20
"""Of the numbers of a chunk: with four times as many an evaluation takes half as long again."""


def open_rows(inputs, classes: int, *, shift=None, scale=None, dtype=None, host=None):
    """A reader of the rows `(inputs - shift) * scale`.

    Args:
      inputs: (N, D) array (NumPy or JAX; floating or integer), memory map, scipy sparse matrix,
        or any object with `shape`, `dtype` and slices that NumPy can read (a chunked source).
      classes: K, for the size of a chunk.
      shift, scale: (D,) or `None`.
      dtype: of the arithmetic; default float64 for float64 inputs, else float32.
      host: `True` for NumPy, `False` for XLA, `None` chooses by size.

    Returns:
      `HostRows` or `DeviceRows`.

    >>> rows = open_rows(np.array([[0, 2], [4, 6]], np.uint8), 3, scale=np.array([0.5, 0.5]))
    >>> rows.scores(np.ones((3, 2)), np.zeros(3))[0].tolist()
    [1.0, 5.0]
    """
    size, features = inputs.shape
    sparse = scipy.sparse.issparse(inputs)
    if dtype is None:
        dtype = np.float64 if np.dtype(inputs.dtype) == np.float64 else np.float32
    if host is None:
        host = sparse or is_small(size, features, classes)
    if sparse and shift is not None and np.any(np.asarray(shift)):
        raise ValueError(
            "`inputs` is sparse and cannot be shifted: subtracting a mean would fill every zero. "
            "Scale it without shift, or pass a dense array."
        )
    reader = HostRows if host or sparse else DeviceRows
    return reader(inputs, classes, shift, scale, np.dtype(dtype))


def is_small(size: int, features: int, classes: int, times: float = 1.0) -> bool:
    """Whether NumPy finishes first; `times`: by how much a method gets by with fewer passes."""
    return size * features * classes <= times * SMALL_PROBLEM


class _Rows:
    """What both readers know: shapes, the affine map of the rows, and how deep sums are."""

    def __init__(self, inputs, classes, shift, scale, dtype):
        self.inputs, self.dtype = inputs, dtype
        self.size, self.features = inputs.shape
        self.shift = np.zeros(self.features) if shift is None else np.asarray(shift, np.float64)
        self.scale = np.ones(self.features) if scale is None else np.asarray(scale, np.float64)
        for name, values in (("shift", self.shift), ("scale", self.scale)):
            if values.shape != (self.features,):
                raise ValueError(
                    f"`{name}` must have one entry per feature, ({self.features},), "
                    f"got {values.shape}."
                )
        self.chunk = self.size
        """Rows of a chunk in `dtype`; `_chunk` has those in another."""
        self._radius = None

    @property
    def resident(self) -> bool:
        """Whether all rows are in one memory, rather than read anew in every pass."""
        return True

    def rescaled(self, factors):
        """The same rows, each feature multiplied by its factor (D,)."""
        other = copy.copy(self)
        other.scale, other._radius = self.scale * factors, None
        return other

    @property
    def depth(self) -> int:
        """The most additions that one entry of a sum over rows goes through, for error bounds."""
        return self.chunk + 2 * -(-self.size // self.chunk) + 9

    def _chunk(self, dtype, size=None) -> int:
        """Rows of a chunk whose numbers are of this dtype: no more than `size`."""
        rows = max(1, self.chunk * self.dtype.itemsize // max(np.dtype(dtype).itemsize, 4))
        return min(rows, self.size if size is None else size)


def chunk_size(size, features, classes, dtype, platform):
    """Rows of a chunk, and all chunks about even: its features and scores stay in the cache.

    An accelerator has no use for a cache of that size, and wants few and large products.
    """
    most = CACHED_BYTES if platform == "cpu" else 32 * CACHED_BYTES
    rows = int(np.clip(most // ((features + classes) * dtype.itemsize), 256, most // 2000))
    return -(-size // max(1, -(-size // rows)))


class HostRows(_Rows):
    """Rows in NumPy or SciPy: no compilation, and CSR products."""

    xp = np

    def __init__(self, inputs, classes, shift, scale, dtype):
        if scipy.sparse.issparse(inputs):
            inputs = scipy.sparse.csr_matrix(inputs)
        else:
            inputs = np.asarray(inputs)
        super().__init__(inputs, classes, shift, scale, dtype)
        self._mapped = {}

    def rescaled(self, factors):
        other = super().rescaled(factors)
        other._mapped = {}
        return other

    def _rows(self, dtype):
        """The mapped rows (sparse ones unscaled: their scale is folded into the weights)."""
        dtype = np.dtype(dtype)
        if dtype not in self._mapped:
            if scipy.sparse.issparse(self.inputs):
                rows = self.inputs.astype(dtype)
            else:
                rows = ((self.inputs.astype(np.float64) - self.shift) * self.scale).astype(dtype)
            self._mapped[dtype] = rows
        return self._mapped[dtype]

    def scores(self, weights, bias, dtype=None):
        dtype = np.dtype(dtype or self.dtype)
        weights, bias = np.asarray(weights), np.asarray(bias)
        rows = self._rows(dtype)
        if scipy.sparse.issparse(rows):
            product = np.ascontiguousarray((rows @ (weights * self.scale).astype(dtype).T).T)
        else:
            product = weights.astype(dtype) @ rows.T
        return product + bias.astype(dtype)[:, None]

    def transpose(self, residuals, dtype=None):
        dtype = np.dtype(dtype or self.dtype)
        rows, residuals = self._rows(dtype), np.asarray(residuals, dtype)
        sums = residuals.sum(1, dtype=np.float64)
        if scipy.sparse.issparse(rows):
            product = np.asarray((rows.T @ residuals.T).T, np.float64) * self.scale
        else:
            product = np.asarray(residuals @ rows, np.float64)
        return product, sums

    def fused(self, rowwise, weights, bias, labels, counts, *extra, dtype=None):
        dtype = np.dtype(dtype or self.dtype)
        scores = self.scores(weights, bias, dtype)
        value, residuals = rowwise(np, scores, labels, counts.astype(dtype), *extra)
        product, sums = self.transpose(residuals, dtype)
        return value, product, sums

    def total(self, rowwise, by_row, *extra):
        """Sums over the rows; see `DeviceRows.total`."""
        return rowwise(np, *by_row, *extra)

    def transpose_total(self, rowwise, by_row, *extra, dtype=np.float64):
        """Products of residuals made on the way; see `DeviceRows.transpose_total`."""
        residuals, sums = rowwise(np, *by_row, *extra)
        return *self.transpose(residuals, dtype), sums

    def sample(self, indices, dtype=None):
        dtype = np.dtype(dtype or self.dtype)
        rows = self._rows(dtype)[indices]
        if scipy.sparse.issparse(rows):
            return (rows.toarray() * self.scale).astype(dtype)
        return rows

    def radius(self) -> float:
        if self._radius is None:
            rows = self.inputs
            with np.errstate(over="ignore"):  # infinity says so
                if scipy.sparse.issparse(rows):
                    squares = rows.astype(np.float64).power(2) @ self.scale**2
                else:
                    squares = (rows.astype(np.float64) * self.scale) ** 2 @ np.ones(self.features)
            self._radius = _norm_bound(squares.max(), self.shift * self.scale)
        return self._radius


class DeviceRows(_Rows):
    """Rows in XLA programs: chunks in a scan, on whatever device holds or receives them."""

    xp = jnp

    def __init__(self, inputs, classes, shift, scale, dtype):
        super().__init__(inputs, classes, shift, scale, dtype)
        platform = jax.default_backend()
        self.chunk = chunk_size(self.size, self.features, classes, self.dtype, platform)
        item = np.dtype(inputs.dtype).itemsize
        array = isinstance(inputs, (np.ndarray, jax.Array)) and not isinstance(inputs, np.memmap)
        self._parts = [slice(0, self.size)]
        self._resident = None
        resident_bytes = getattr(inputs, "resident_bytes", RESIDENT_BYTES)
        if array or self.size * self.features * item <= resident_bytes:
            if not isinstance(inputs, jax.Array):
                inputs = _as_device(np.asarray(inputs[:]))
            self._resident = inputs
        else:
            rows = max(self.chunk, PART_BYTES // (self.features * item) // self.chunk * self.chunk)
            self._parts = [
                slice(start, min(start + rows, self.size)) for start in range(0, self.size, rows)
            ]

    @property
    def resident(self) -> bool:
        return self._resident is not None

    def _each(self):
        if self._resident is not None:
            yield self._parts[0], self._resident
        else:
            yield from prefetch(self._part, self._parts)

    def _part(self, part):
        """One part of a source or a map, copied: the map's pages are then given back."""
        if hasattr(self.inputs, "read_into"):  # rows of our own, which the device may take over
            rows = self.inputs[part]
            with arithmetic(rows.dtype):
                return part, jax.device_put(rows)
        if not isinstance(self.inputs, np.memmap):
            return part, _as_device(np.asarray(self.inputs[part]))
        rows = np.array(self.inputs[part])
        if self.inputs.mode == "r":
            self.inputs._mmap.madvise(mmap.MADV_DONTNEED)
        return part, _as_device(rows)

    def scores(self, weights, bias, dtype=None):
        dtype = np.dtype(dtype or self.dtype)
        with arithmetic(dtype):
            weights, bias, shift = self._arguments(weights, bias, dtype)
            blocks = [
                chunks.scores(weights, bias, shift, rows, chunk=self._chunk(dtype, rows.shape[0]))
                for _, rows in self._each()
            ]
            return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=1)

    def transpose(self, residuals, dtype=None):
        dtype = np.dtype(dtype or self.dtype)
        products, sums = 0.0, 0.0
        with arithmetic(dtype):
            residuals = jnp.asarray(residuals, dtype)
            shift = jnp.asarray(self._subtracted(), dtype)
            for part, rows in self._each():
                block = residuals if self._resident is not None else residuals[:, part]
                found = chunks.transpose(
                    block, shift, rows, chunk=self._chunk(dtype, rows.shape[0])
                )
                products += np.asarray(found[0], np.float64)
                sums += np.asarray(found[1], np.float64)
        return self._mapped_back(products, sums), sums

    def fused(self, rowwise, weights, bias, labels, counts, *extra, dtype=None):
        dtype = np.dtype(dtype or self.dtype)
        value, products, sums = 0.0, 0.0, 0.0
        with arithmetic(dtype):
            weights, bias, shift = self._arguments(weights, bias, dtype)
            counts = jnp.asarray(counts, dtype)
            for part, rows in self._each():
                whole = self._resident is not None
                found = chunks.fused(
                    weights,
                    bias,
                    shift,
                    rows,
                    labels if whole else labels[part],
                    counts if whole else counts[..., part],
                    extra,
                    rowwise=rowwise,
                    chunk=self._chunk(dtype, rows.shape[0]),
                )
                value += np.asarray(found[0], np.float64).sum(0)
                products += np.asarray(found[1], np.float64)
                sums += np.asarray(found[2], np.float64)
        return value, self._mapped_back(products, sums), sums

    def total(self, rowwise, by_row, *extra):
        """Sums over the rows of what `rowwise` makes of each block of columns.

        Args:
          rowwise: (xp, *blocks, *extra) -> pytree of sums over the block's rows.
          by_row: arrays whose last axis is the rows', such as scores (K, N) and labels (N,);
            scalars are handed on as they are.
          extra: handed to `rowwise` unchanged.
        """
        with arithmetic(np.float64):
            return chunks.total(tuple(by_row), extra, rowwise=rowwise, chunk=self._columns(by_row))

    def transpose_total(self, rowwise, by_row, *extra, dtype=np.float64):
        """residuals @ rows, the sums of the residuals, and further sums, in one pass.

        Args:
          rowwise: (xp, *blocks, *extra) -> (residuals (K, R) of the block, pytree of sums).
          by_row, extra: as for `total`.
          dtype: of the residuals and the products.
        """
        products, sums, totals = 0.0, 0.0, None
        with arithmetic(np.float64):
            shift = jnp.asarray(self._subtracted(), dtype)
            for part, rows in self._each():
                whole = self._resident is not None
                blocks = tuple(a if whole or not jnp.ndim(a) else a[..., part] for a in by_row)
                chunk = self._chunk(dtype, rows.shape[0])
                found = chunks.transpose_total(
                    blocks, extra, shift, rows, rowwise=rowwise, chunk=chunk
                )
                products += np.asarray(found[0], np.float64)
                sums += np.asarray(found[1], np.float64)
                totals = found[2] if totals is None else jax.tree.map(jnp.add, totals, found[2])
        return self._mapped_back(products, sums), sums, totals

    def _columns(self, by_row):
        """Rows of a block that is only a block of scores: about a megabyte."""
        return int(np.clip(400_000 // by_row[0].shape[0], 256, self.size))

    def part(self, indices, classes) -> "DeviceRows | None":
        """These rows by themselves; `None` where all are read anew in every pass."""
        if self._resident is None:
            return None
        with arithmetic(self._resident.dtype):
            rows = jnp.take(self._resident, jnp.asarray(indices), axis=0)
        return DeviceRows(rows, classes, self.shift, self.scale, self.dtype)

    def sample(self, indices, dtype=None):
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
            largest = self._largest_square()
            largest *= 1 + (self.features + 8) * float(np.finfo(self.dtype).eps)
            self._radius = _norm_bound(largest, self.shift * self.scale)
        return self._radius

    def _largest_square(self) -> float:
        """Of the norms of the scaled rows, as computed."""
        largest = 0.0
        with arithmetic(self.dtype):
            squared = jnp.asarray(self.scale**2, self.dtype)
            for _, rows in self._each():
                chunk = self._chunk(self.dtype, rows.shape[0])
                found = float(chunks.largest_square(rows, squared, chunk=chunk))
                largest = float(np.maximum(largest, found))  # NaN stays NaN
        return largest

    def _subtracted(self):
        """Integers take the shift folded into the bias; floats lose digits so, and subtract it."""
        floating = jnp.issubdtype(self.inputs.dtype, jnp.floating)
        return self.shift if floating else np.zeros(self.features)

    def _arguments(self, weights, bias, dtype):
        weights, bias = np.asarray(weights, np.float64), np.asarray(bias, np.float64)
        raw_weights, subtracted = weights * self.scale, self._subtracted()
        raw_bias = bias - raw_weights @ (self.shift - subtracted)
        return tuple(jnp.asarray(a, dtype) for a in (raw_weights, raw_bias, subtracted))

    def _mapped_back(self, products, sums):
        return (products - np.outer(sums, self.shift - self._subtracted())) * self.scale


def _norm_bound(largest_square, shift):
    return float(np.sqrt(largest_square) * (1 + 1e-9) + np.linalg.norm(shift))


def arithmetic(dtype):
    """A context in which JAX computes in this dtype: float64 is not silently cut to float32."""
    return jax.enable_x64(np.dtype(dtype) == np.float64 or jax.config.jax_enable_x64)


def _as_device(array):
    """On the device in its own dtype."""
    with arithmetic(array.dtype):
        return jnp.asarray(array)
