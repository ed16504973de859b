"""Which reader suits the rows: NumPy for small and sparse ones, else XLA."""

__all__ = ["SMALL_PROBLEM", "is_small", "open_rows"]

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, DTypeLike

from jaxlin.passes.affine import arithmetic_dtype
from jaxlin.passes.device import DeviceRows
from jaxlin.passes.host import HostRows

SMALL_PROBLEM = 2_000_000
"""Multiplications (N * D * K) under which NumPy finishes before XLA has compiled."""


def open_rows(
    inputs: Any,
    classes: int,
    *,
    shift: ArrayLike | None = None,
    scale: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    host: bool | None = None,
) -> HostRows | DeviceRows:
    """A reader of the rows `(inputs - shift) * scale`.

    Args:
      inputs: (N, D) array (NumPy or JAX; floating or integer), memory map, scipy sparse matrix,
        or any object with `shape`, `dtype` and slices that NumPy can read (a chunked source).
      classes: K, for the size of a chunk.
      shift, scale: (D,) or `None`.
      dtype: of the arithmetic; default float64 for float64 inputs and for whole numbers beyond
        2^24, else float32.
      host: `True` for NumPy, `False` for XLA, `None` chooses by size.

    Returns:
      `HostRows` or `DeviceRows`.

    >>> rows = open_rows(np.array([[0, 2], [4, 6]], np.uint8), 3, scale=np.array([0.5, 0.5]))
    >>> rows.scores(np.ones((3, 2)), np.zeros(3))[0].tolist()
    [1.0, 5.0]
    """
    size, features = inputs.shape
    sparse = scipy.sparse.issparse(inputs)
    dtype = arithmetic_dtype(inputs, dtype)
    if host is None:
        host = sparse or is_small(size, features, classes)
    if sparse and shift is not None and np.any(np.asarray(shift)):
        raise ValueError(
            "`inputs` is sparse and cannot be shifted: subtracting a mean would fill every zero. "
            "Scale it without shift, or pass a dense array."
        )
    reader = HostRows if host or sparse else DeviceRows
    return reader(inputs, classes, shift, scale, dtype)


def is_small(size: int, features: int, classes: int, times: float = 1.0) -> bool:
    """Whether NumPy finishes first; `times`: by how much a method gets by with fewer passes.

    >>> is_small(150, 4, 3), is_small(50_000, 3_072, 10)
    (True, False)
    """
    return size * features * classes <= times * SMALL_PROBLEM
