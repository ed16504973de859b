"""Rows in NumPy or SciPy: for sparse ones, and for fits that end before a compilation would."""

__all__ = ["HostRows"]

from collections.abc import Callable, Iterable, Sequence
from functools import partial, reduce
from typing import Any, Self

import jax
import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, DTypeLike

from jaxlin.cpu_threads import parts_of, sharing
from jaxlin.passes.affine import Rows, norm_bound


class HostRows(Rows):
    """Rows in NumPy or SciPy: no compilation, and CSR products.

    >>> rows = HostRows(np.eye(2), 3, None, None, np.dtype(np.float64))
    >>> rows.scores(np.ones((3, 2)), np.zeros(3)).tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """

    xp = np

    def __init__(
        self,
        inputs: Any,
        classes: int,
        shift: ArrayLike | None,
        scale: ArrayLike | None,
        dtype: np.dtype,
    ):
        if scipy.sparse.issparse(inputs):
            inputs = scipy.sparse.csr_matrix(inputs)
        else:
            inputs = np.asarray(inputs)
        super().__init__(inputs, classes, shift, scale, dtype)
        self._mapped: dict[np.dtype, Any] = {}

    def rescaled(self, factors: np.ndarray | float) -> Self:
        other = super().rescaled(factors)
        other._mapped = {}
        return other

    @property
    def entries(self) -> float:
        if scipy.sparse.issparse(self.inputs):
            return max(self.inputs.nnz / self.size, 1.0)
        return self.features

    def centred(self) -> tuple[Rows, np.ndarray]:
        """See `Rows.centred`; of sparse rows, the features whose entries are all stored.

        The others have a zero, as far from the rest as they lie from zero.
        """
        if not scipy.sparse.issparse(self.inputs):
            return super().centred()
        rows = self.inputs.astype(np.float64, copy=True)
        rows.sum_duplicates()
        full = np.bincount(rows.indices, minlength=self.features) == self.size
        center = np.where(full, self._typical(), 0.0) if full.any() else np.zeros(self.features)
        if not center.any():
            return self, center
        moved = np.divide(center, self.scale, where=self.scale != 0, out=0 * center)
        rows.data -= moved[rows.indices]
        other = HostRows(rows, 1, None, self.scale, self.dtype)
        return other, moved * self.scale

    def _rows(self, dtype: DTypeLike) -> Any:
        """The mapped rows (sparse ones unscaled: their scale is folded into the weights)."""
        dtype = np.dtype(dtype)
        if dtype not in self._mapped:
            if scipy.sparse.issparse(self.inputs):
                rows = self.inputs.astype(dtype)
            elif self.shift.any() or (self.scale != 1).any():
                rows = ((self.inputs.astype(np.float64) - self.shift) * self.scale).astype(dtype)
            else:
                rows = self.inputs.astype(dtype, copy=False)
            self._mapped[dtype] = rows
        return self._mapped[dtype]

    def scores(
        self, weights: ArrayLike, bias: ArrayLike, dtype: DTypeLike | None = None
    ) -> np.ndarray:
        dtype = np.dtype(dtype or self.dtype)
        weights, bias = np.asarray(weights), np.asarray(bias)
        rows = self._rows(dtype)
        if scipy.sparse.issparse(rows):
            product = np.ascontiguousarray((rows @ (weights * self.scale).astype(dtype).T).T)
        else:
            product = weights.astype(dtype) @ rows.T
        return product + bias.astype(dtype)[:, None]

    def evaluated(
        self,
        rowwise: Callable[..., Any],
        weights: ArrayLike,
        bias: ArrayLike,
        by_row: Sequence[Any],
        *extra: Any,
        dtype: DTypeLike = np.float64,
        kept: np.dtype[Any] | None = None,
    ) -> tuple[np.ndarray | None, Any]:
        """Sums over functions of scores, and these; see `DeviceRows.evaluated`."""
        scores = self.scores(weights, bias, dtype)
        found = self.total(rowwise, (scores, *by_row), *extra)
        return None if kept is None else scores.astype(kept, copy=False), found

    def transpose(
        self, residuals: ArrayLike, dtype: DTypeLike | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        dtype = np.dtype(dtype or self.dtype)
        rows, residuals = self._rows(dtype), np.asarray(residuals, dtype)
        sums = residuals.sum(1, dtype=np.float64)
        if scipy.sparse.issparse(rows):
            product = np.asarray((rows.T @ residuals.T).T, np.float64) * self.scale
        else:
            product = np.asarray(residuals @ rows, np.float64)
        return product, sums

    def fused(
        self,
        rowwise: Callable[..., Any],
        weights: ArrayLike,
        bias: ArrayLike,
        labels: np.ndarray,
        counts: np.ndarray,
        *extra: Any,
        dtype: DTypeLike | None = None,
    ) -> tuple[Any, np.ndarray, np.ndarray]:
        dtype = np.dtype(dtype or self.dtype)
        scores = self.scores(weights, bias, dtype)
        value, residuals = rowwise(np, scores, labels, counts.astype(dtype), *extra)
        product, sums = self.transpose(residuals, dtype)
        return value, product, sums

    def total(self, rowwise: Callable[..., Any], by_row: Sequence[Any], *extra: Any) -> Any:
        """Sums over the rows; see `DeviceRows.total`."""
        return _added(self._by_parts(rowwise, by_row, extra))

    def transpose_total(
        self,
        rowwise: Callable[..., Any],
        by_row: Sequence[Any],
        *extra: Any,
        dtype: DTypeLike = np.float64,
    ) -> tuple[np.ndarray, np.ndarray, Any]:
        """Products of residuals made on the way; see `DeviceRows.transpose_total`."""
        residuals, sums = zip(*self._by_parts(rowwise, by_row, extra), strict=True)
        whole = residuals[0] if len(residuals) == 1 else np.concatenate(residuals, axis=1)
        return *self.transpose(whole, dtype), _added(sums)

    def _by_parts(
        self, rowwise: Callable[..., Any], by_row: Sequence[Any], extra: tuple[Any, ...]
    ) -> list:
        """What `rowwise` makes of the columns of each part; scalars are handed on as they are."""
        row_bytes = sum(np.asarray(a)[..., :1].nbytes for a in by_row if np.ndim(a))
        parts = parts_of(self.size, row_bytes)
        if len(parts) == 1:
            return [rowwise(np, *by_row, *extra)]
        cut = [[a[..., part] if np.ndim(a) else a for part in parts] for a in by_row]
        with sharing(len(parts)) as each:
            return each(lambda *blocks: rowwise(np, *blocks, *extra), *cut)

    def sample(self, indices: np.ndarray, dtype: DTypeLike | None = None) -> np.ndarray:
        dtype = np.dtype(dtype or self.dtype)
        sparse = self.sparse_sample(indices, dtype)
        return self._rows(dtype)[indices] if sparse is None else sparse.toarray()

    def sparse_sample(
        self, indices: np.ndarray, dtype: DTypeLike | None = None
    ) -> scipy.sparse.csr_array | None:
        """`sample` as a sparse matrix; `None` where the inputs are dense."""
        dtype = np.dtype(dtype or self.dtype)
        if not scipy.sparse.issparse(self.inputs):
            return None
        rows = scipy.sparse.csr_array(self._rows(dtype)[indices])
        rows.data = (rows.data * self.scale[rows.indices]).astype(dtype)
        return rows

    def radius(self) -> float:
        if self._radius is None:
            rows = self.inputs
            with np.errstate(over="ignore"):  # infinity says so
                if scipy.sparse.issparse(rows):
                    squares = rows.astype(np.float64).power(2) @ self.scale**2
                else:
                    mapped = self._rows(np.float64)
                    squares = np.einsum("nd,nd->n", mapped, mapped)
            self._radius = norm_bound(squares.max())
        return self._radius


def _added(sums: Iterable[Any]) -> Any:
    """Of pytrees alike, entry by entry."""
    return reduce(partial(jax.tree.map, np.add), sums)
