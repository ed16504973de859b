"""How much memory a function takes while it runs, read off its jaxpr before it is compiled."""

__all__ = ["peak_bytes", "points_within"]

import warnings
from collections.abc import Callable

import jax
import numpy as np


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


def peak_bytes(jaxpr) -> int:
    """The largest sum of intermediate arrays alive at once, if every equation made an array.

    Compilers fuse element-wise equations, so that the truth lies at or below this.
    """
    last_use = {}
    for i, equation in enumerate(jaxpr.eqns):
        for variable in equation.invars:
            if not hasattr(variable, "val"):
                last_use[variable] = i
    kept = {variable for variable in jaxpr.outvars if not hasattr(variable, "val")}
    alive = peak = 0
    made = {}
    for i, equation in enumerate(jaxpr.eqns):
        inside = max((peak_bytes(inner) for inner in _inner(equation.params)), default=0)
        for variable in equation.outvars:
            made[variable] = _bytes(variable.aval)
            alive += made[variable]
        peak = max(peak, alive + inside)
        for variable in _ending(equation, i, last_use, kept):
            alive -= made.pop(variable, 0)
    return peak


def _ending(equation, i: int, last_use: dict, kept: set) -> set:
    """The variables of an equation that nothing after it needs."""
    used = {v for v in equation.invars if not hasattr(v, "val") and last_use[v] == i}
    unused = {v for v in equation.outvars if v not in last_use}
    return (used | unused) - kept


def _inner(params: dict):
    """The jaxprs inside an equation (of jit, scan, cond, ...)."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else [value]:
            if hasattr(item, "jaxpr"):
                yield item.jaxpr
            elif hasattr(item, "eqns"):
                yield item


def _bytes(aval) -> int:
    return int(np.prod(aval.shape)) * aval.dtype.itemsize if hasattr(aval, "shape") else 0
