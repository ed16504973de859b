"""How many points of a slice fit in memory at a time, told before anything is compiled."""

__all__ = ["points_within"]

import warnings
from collections.abc import Callable

import jax
import numpy as np

from jaxlin.memory import peak_bytes


def points_within(value: Callable, points: np.ndarray, budget: int) -> int:
    """How many of `points` (T, m) `jax.vmap(value)` may take at a time under `budget` bytes.

    What a chunk of points takes is affine in their number: a part shared by all, such as pixels
    converted to floating point, and a part for each. Two sizes tell both.
    """
    if not budget > 0:
        raise ValueError(f"`memory_budget` must be a positive number of bytes, got {budget}.")

    def peak(count: int) -> int:
        batch = jax.ShapeDtypeStruct((count, *points.shape[1:]), points.dtype)
        return peak_bytes(jax.make_jaxpr(jax.vmap(value))(batch).jaxpr)

    two, four = peak(2), peak(4)
    each = max((four - two) // 2, 1)
    shared = max(two - 2 * each, 0)
    if shared + each > budget:
        warnings.warn(
            f"One point of the slice takes about {(shared + each) / 2**20:.0f} MiB, more than the "
            f"budget of {budget / 2**20:.0f} MiB: points are evaluated one by one.",
            RuntimeWarning,
            stacklevel=5,
        )
    fitting = (budget - shared) // each
    chunks = -(-len(points) // max(1, min(fitting, len(points))))
    return -(-len(points) // chunks)  # even chunks, so that little of the last one is wasted
