"""The affine map of the rows, their chunks, and how deep sums over them are: what readers share."""

__all__ = ["Rows", "arithmetic", "chunk_size", "norm_bound"]

import copy

import jax
import numpy as np

from jaxlin.blocks import Blocks

FAR = 10.0
"""Times their spread by which rows lie away from zero where it is worth taking that off."""
TYPICAL = 64
"""Rows whose mean is taken for a typical one."""


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
        self._radius = self._centred = None

    @property
    def resident(self) -> bool:
        """Whether all rows are in one memory, rather than read anew in every pass."""
        return True

    def rescaled(self, factors):
        """The same rows, each feature multiplied by its factor (D,)."""
        other = copy.copy(self)
        other.scale, other._radius, other._centred = self.scale * factors, None, None
        return other

    def centred(self):
        """The same rows less a typical one, and that row (D,), where that makes them much smaller.

        Else these rows and zeros. Sparse rows stay as they are, and so do integers on a device,
        from which nothing is subtracted before they are multiplied.
        """
        if self._centred is None:
            self._centred = self, np.zeros(self.features)
            step = -(-self.size // TYPICAL)
            if self.subtracts:
                some = self.sample(np.arange(0, self.size, step), np.float64)
                center = some.mean(0)
                spread = np.sqrt(((some - center) ** 2).sum(1).mean())
                if np.linalg.norm(center) > FAR * spread:
                    other = self.rescaled(1.0)
                    moved = np.divide(center, self.scale, where=self.scale != 0, out=0 * center)
                    other.shift = self.shift + moved
                    self._centred = other, (other.shift - self.shift) * self.scale
        return self._centred

    @property
    def depth(self) -> int:
        """The most additions that one entry of a sum over rows goes through, for error bounds."""
        return self.chunk + 2 * -(-self.size // self.chunk) + 9

    def _chunk(self, dtype, size=None) -> int:
        """Rows of a chunk whose numbers are of this dtype: no more than `size`."""
        rows = max(1, self.chunk * self.dtype.itemsize // max(np.dtype(dtype).itemsize, 4))
        return min(rows, self.size if size is None else size)


def chunk_size(size, features, classes, dtype, blocks: Blocks):
    """Rows of a chunk of features and scores, and all chunks about even."""
    most = blocks.chunk_bytes
    rows = int(np.clip(most // ((features + classes) * dtype.itemsize), 256, most // 2000))
    return min(blocks.tiled(-(-size // max(1, -(-size // rows)))), size)


def norm_bound(largest_square, off=0.0):
    """A norm whose square was found, of a vector that may be `off` by so much."""
    return float(np.sqrt(largest_square) * (1 + 1e-9) + np.linalg.norm(off))


def arithmetic(dtype):
    """A context in which JAX computes in this dtype: float64 is not silently cut to float32."""
    return jax.enable_x64(np.dtype(dtype) == np.float64 or jax.config.jax_enable_x64)
