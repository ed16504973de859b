"""Two sources of rows as one: training and validation features for a refit on both."""

__all__ = ["concatenate"]

from typing import Any

import numpy as np

from jaxlin.data.rows import RESIDENT_BYTES, ReadRows, empty_rows, positions


class _Concatenated(ReadRows):
    """The rows of one source and then those of another."""

    def __init__(self, first: Any, second: Any):
        self.parts, self.dtype = (first, second), np.result_type(first.dtype, second.dtype)
        self.shape = (len(first) + len(second), first.shape[1])
        self.resident_bytes = getattr(first, "resident_bytes", RESIDENT_BYTES)

    def __getitem__(self, rows: Any) -> np.ndarray:
        chosen = np.asarray(positions(rows, len(self)))
        out = empty_rows(len(chosen), self)
        border = len(self.parts[0])
        for part, there, base in zip(
            self.parts, (chosen < border, chosen >= border), (0, border), strict=True
        ):
            if there.any():
                out[there] = part[chosen[there] - base]
        return out


def concatenate(first: Any, second: Any) -> Any:
    """The rows of two arrays or sources of one width, one after the other.

    >>> concatenate(np.zeros((1, 2)), np.ones((1, 2))).tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.concatenate([first, second])
    return _Concatenated(first, second)
