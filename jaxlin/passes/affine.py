"""The affine map of the rows, their chunks, and how deep sums over them are: what readers share."""

__all__ = ["Rows", "arithmetic", "chunk_size", "norm_bound"]

import copy

import jax
import numpy as np


class Rows:
    """The rows `(inputs - shift) * scale`, and the numbers of their chunks."""

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


def chunk_size(size, features, classes, dtype, most):
    """Rows of a chunk of about `most` bytes of features and scores, and all chunks about even."""
    rows = int(np.clip(most // ((features + classes) * dtype.itemsize), 256, most // 2000))
    return -(-size // max(1, -(-size // rows)))


def norm_bound(largest_square, shift):
    return float(np.sqrt(largest_square) * (1 + 1e-9) + np.linalg.norm(shift))


def arithmetic(dtype):
    """A context in which JAX computes in this dtype: float64 is not silently cut to float32."""
    return jax.enable_x64(np.dtype(dtype) == np.float64 or jax.config.jax_enable_x64)
