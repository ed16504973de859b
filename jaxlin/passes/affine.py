"""The affine map of the rows, their chunks, and how deep sums over them are: what readers share."""

__all__ = ["Rows", "arithmetic", "arithmetic_dtype", "chunk_size", "norm_bound"]

import copy
from contextlib import AbstractContextManager
from typing import Any, Self

import jax
import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, DTypeLike

from jaxlin.blocks import Blocks

FAR = 10.0
"""Times its spread by which a feature lies away from zero where it is worth taking that off."""
TYPICAL = 64
"""Rows that tell where a feature lies."""
WHOLE = 2**24
"""Whole numbers up to which float32 has them all."""


class Rows:
    """The rows `(inputs - shift) * scale`, and the numbers of their chunks."""

    def __init__(
        self,
        inputs: Any,
        classes: int,
        shift: ArrayLike | None,
        scale: ArrayLike | None,
        dtype: np.dtype,
    ):
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
        self._radius: float | None = None
        self._moved = False
        self._proving: Any = None
        self._coarse: Any = None
        self._counts: Any = None

    @property
    def resident(self) -> bool:
        """Whether all rows are in one memory, rather than read anew in every pass."""
        return True

    @property
    def entries(self) -> float:
        """Numbers that a row is stored as, on average."""
        return self.features

    @property
    def arithmetic(self) -> str:
        """What sums in float64 are computed with."""
        return "float64 in NumPy"

    @property
    def coarse(self) -> "Rows | None":
        """The same rows, whose `fused` sums round the operands of products and take a part of the
        time; `None` where no device has units for that, or the arithmetic is not float32."""
        return None

    def rescaled(self, factors: np.ndarray | float) -> Self:
        """The same rows, each feature multiplied by its factor (D,)."""
        other = copy.copy(self)
        other.scale, other._radius = self.scale * factors, None
        other._proving = other._coarse = None
        return other

    def centred(self) -> tuple["Rows", np.ndarray]:
        """The same rows less a typical one, and that row (D,): 0 in features that lie near zero.

        With a free bias it is the same problem, whose numbers keep their digits: what is near
        another number is subtracted from it exactly (Sterbenz, 1974, theorem 4.3.1).
        """
        center = self._typical()
        if not center.any():
            return self, center
        other = self.rescaled(1.0)
        moved = np.divide(center, self.scale, where=self.scale != 0, out=0 * center)
        other.shift, other._moved = self.shift + moved, True
        return other, (other.shift - self.shift) * self.scale

    def sample(self, indices: np.ndarray, dtype: DTypeLike | None = None) -> np.ndarray:
        """The rows with these numbers, (n, D)."""
        raise NotImplementedError

    def _typical(self) -> np.ndarray:
        """(D,): the median of some rows, a value that occurs; 0 in features that lie near zero."""
        some = self.sample(np.arange(0, self.size, -(-self.size // TYPICAL)), np.float64)
        center = np.sort(some, axis=0)[len(some) // 2]
        return np.where(np.abs(center) > FAR * np.abs(some - center).mean(0), center, 0.0)

    @property
    def depth(self) -> int:
        """The most additions that one entry of a sum over rows goes through, for error bounds."""
        return self.chunk + 2 * -(-self.size // self.chunk) + 9

    def _chunk(self, dtype: DTypeLike, size: int | None = None) -> int:
        """Rows of a chunk whose numbers are of this dtype: no more than `size`."""
        rows = max(1, self.chunk * self.dtype.itemsize // max(np.dtype(dtype).itemsize, 4))
        return min(rows, self.size if size is None else size)


def arithmetic_dtype(inputs: Any, dtype: DTypeLike | None = None) -> np.dtype:
    """float64 for float64 inputs and whole numbers that float32 rounds, else float32; or `dtype`.

    Raises:
      ValueError: `dtype` is narrower than such whole numbers ask for.

    >>> arithmetic_dtype(np.ones((1, 1), np.int64)), arithmetic_dtype(np.array([[2**24 + 1]]))
    (dtype('float32'), dtype('float64'))
    """
    kind = np.dtype(inputs.dtype)
    wide = kind.kind in "iu" and kind.itemsize > 2
    if (wide and isinstance(inputs, (np.ndarray, jax.Array))) or scipy.sparse.issparse(inputs):
        values = inputs.data if scipy.sparse.issparse(inputs) else inputs
        wide = wide and bool(values.size) and max(int(values.max()), -int(values.min())) > WHOLE
    if dtype is None:
        return np.dtype(np.float64 if wide or kind == np.float64 else np.float32)
    if wide and np.dtype(dtype).itemsize < 8:
        raise ValueError(
            f"`inputs` are {kind} and may hold whole numbers beyond {WHOLE:,}, which {dtype} "
            "rounds. Leave `dtype` out, or give the inputs as floats."
        )
    return np.dtype(dtype)


def chunk_size(size: int, features: int, classes: int, dtype: np.dtype, blocks: Blocks) -> int:
    """Rows of a chunk of features and scores, and all chunks about even."""
    most = blocks.chunk_bytes
    rows = int(np.clip(most // ((features + classes) * dtype.itemsize), 256, most // 2000))
    return min(blocks.tiled(-(-size // max(1, -(-size // rows)))), size)


def norm_bound(largest_square: float, off: np.ndarray | float = 0.0) -> float:
    """A norm whose square was found, of a vector that may be `off` by so much."""
    return float(np.sqrt(largest_square) * (1 + 1e-9) + np.linalg.norm(off))


def arithmetic(dtype: DTypeLike) -> AbstractContextManager[None]:
    """A context in which JAX computes in this dtype: float64 is not silently cut to float32.

    >>> with arithmetic(np.float64):
    ...     jax.numpy.ones(2).dtype
    dtype('float64')
    """
    return jax.enable_x64(np.dtype(dtype) == np.float64 or jax.config.jax_enable_x64)
