"""Slices of any objective: its values on a ray, a plane or a grid through a parameter point.

Points are evaluated side by side with `jax.vmap`, as many at a time as a memory budget allows,
in one compiled program. The grid is what it says: value [i, j] belongs to
`params + steps_1[i] * first + steps_2[j] * second`, and a step of 0 is the point itself.
For linear scores `jaxlin.landscape.affine` gives the same numbers hundreds of times faster.
"""

__all__ = ["grid", "interpolate", "plane", "ray"]

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlin._dtypes import accumulator, widened
from jaxlin.landscape import _trees
from jaxlin.landscape._memory import points_within
from jaxlin.landscape.directions import tree_of
from jaxlin.precision import exact, jit

MEMORY_BUDGET = 1 << 30
_LARGEST_RESULT = 1 << 28  # points; a picture has thousands
_OPERATIONS_A_SECOND = 2e10  # of two cores of a server; for the estimate only
_LONG = 600.0  # seconds


def ray(
    objective: Callable,
    params: Any,
    direction: Any,
    steps: ArrayLike,
    *,
    memory_budget: int = MEMORY_BUDGET,
) -> Array:
    """L(params + a * direction) for every a in `steps`.

    Args:
      objective: `params -> scalar`, anything JAX can trace.
      params: any tree of floating arrays.
      direction: a `Direction`, or a tree like `params`.
      steps: (T,), any numbers in any order.
      memory_budget: bytes that the points evaluated side by side may take.

    Returns:
      (T,), in the dtype of the objective.

    Raises:
      ValueError: an empty grid, a zero direction, a tree or shape that does not fit, or a grid
        too large to hold.
      TypeError: a leaf that is not floating, or an objective that does not return a scalar.

    Warns:
      RuntimeWarning: values that are not finite, with their count; they are returned as they are.

    Source: the CS231n notes, "Visualizing the loss function", L(W + a W_1).

    >>> ray(lambda w: w @ w, jnp.array([1.0, 0.0]), jnp.array([1.0, 0.0]), [-1.0, 0.0, 1.0])
    Array([0., 1., 4.], dtype=...)
    """
    return grid(objective, params, [direction], [steps], memory_budget=memory_budget)


def plane(
    objective: Callable,
    params: Any,
    first: Any,
    second: Any,
    steps_1: ArrayLike,
    steps_2: ArrayLike,
    *,
    memory_budget: int = MEMORY_BUDGET,
) -> Array:
    """L(params + a * first + b * second) for every a in `steps_1` and b in `steps_2`.

    Arguments, errors and warnings are those of `ray`; parallel directions raise ValueError too.

    Returns:
      (T1, T2): row i belongs to `steps_1[i]`, column j to `steps_2[j]`.

    Source: the CS231n notes, "Visualizing the loss function", L(W + a W_1 + b W_2).

    >>> bowl = lambda w: w[0] ** 2 + 10 * w[1] ** 2
    >>> e1, e2 = jnp.eye(2)
    >>> plane(bowl, jnp.zeros(2), e1, e2, [0.0, 1.0], [0.0, 1.0, 2.0]).tolist()
    [[0.0, 10.0, 40.0], [1.0, 11.0, 41.0]]
    """
    directions, steps = [first, second], [steps_1, steps_2]
    return grid(objective, params, directions, steps, memory_budget=memory_budget)


def interpolate(
    objective: Callable,
    start: Any,
    end: Any,
    steps: ArrayLike | int = 41,
    *,
    memory_budget: int = MEMORY_BUDGET,
) -> Array:
    """L((1 - t) * start + t * end): the straight line between two points, both ends included.

    Args:
      objective: `params -> scalar`.
      start: the tree at t = 0, met exactly.
      end: the tree at t = 1, met exactly.
      steps: the values of t (T,), beyond [0, 1] too if wished; an integer means that many
        evenly spaced ones from 0 to 1.
      memory_budget: bytes that the points evaluated side by side may take.

    Returns:
      (T,).

    Raises:
      ValueError, TypeError: as `ray`; also for two points that coincide.

    Source: Goodfellow, Vinyals and Saxe (2015), arXiv:1412.6544.

    >>> interpolate(lambda w: w**2, jnp.array(-1.0), jnp.array(3.0), 3).tolist()
    [1.0, 1.0, 9.0]
    """
    _trees.check_same_shapes(end, start, name="end")
    if isinstance(steps, int):
        steps = np.linspace(0.0, 1.0, steps)
    steps = check_steps(steps, name="steps")
    difference = jax.tree.map(lambda b, a: widened(b) - widened(a), end, start)
    if _trees.norm(difference) == 0:
        raise ValueError("`start` and `end` coincide, so there is no line between them.")

    def point(t: Array) -> Any:  # start + t * (end - start) would miss the end by rounding
        return jax.tree.map(lambda a, b: _mix(jnp.asarray(a), jnp.asarray(b), t), start, end)

    values = _evaluate(objective, point, start, [steps], memory_budget)
    warn_nonfinite(values, start=start)
    return values


def _mix(a: Array, b: Array, t: Array) -> Array:
    wide_a, wide_b = widened(a), widened(b)
    t = t.astype(wide_a.dtype)
    return ((1 - t) * wide_a + t * wide_b).astype(a.dtype)


def grid(
    objective: Callable,
    params: Any,
    directions: Sequence,
    steps: Sequence[ArrayLike],
    *,
    memory_budget: int = MEMORY_BUDGET,
) -> Array:
    """The values on a grid of any number of dimensions; `ray` and `plane` are 1 and 2.

    Args:
      objective: `params -> scalar`.
      params: any tree of floating arrays.
      directions: one `Direction` or tree for each axis.
      steps: one array of steps for each axis.
      memory_budget: bytes that the points evaluated side by side may take.

    Returns:
      (T1, T2, ...), one axis for each direction.

    Raises:
      ValueError, TypeError: as `ray`; linearly dependent directions too.

    >>> cube = grid(jnp.sum, jnp.zeros(3), list(jnp.eye(3)), [[0.0, 1.0]] * 3)
    >>> cube.shape, cube[1, 1, 1].item()
    ((2, 2, 2), 3.0)
    """
    if len(directions) != len(steps) or not directions:
        raise ValueError(
            f"`steps` must hold one array for each direction, got {len(directions)} directions "
            f"and {len(steps)} arrays."
        )
    trees, steps = check_slice(params, directions, steps)
    values = _evaluate(
        objective, lambda *a: _trees.combine(params, trees, a), params, steps, memory_budget
    )
    warn_nonfinite(values, start=params)
    return values


def check_slice(
    params: Any, directions: Sequence, steps: Sequence
) -> tuple[list, list[np.ndarray]]:
    """The trees of the directions and the steps as arrays, or one sentence about what is wrong."""
    names = ["direction"] if len(directions) == 1 else _names(len(directions))
    trees = [tree_of(direction) for direction in directions]
    for tree, name in zip(trees, names, strict=True):
        _trees.check_same_tree(tree, params, name=name)
    labels = ["steps"] if len(steps) == 1 else [f"steps_{i + 1}" for i in range(len(steps))]
    arrays = [check_steps(s, name=label) for s, label in zip(steps, labels, strict=True)]
    points = int(np.prod([len(array) for array in arrays], dtype=object))
    if points > _LARGEST_RESULT:
        raise ValueError(
            f"The grid has {points:.3g} points, {points * 4 / 2**30:.3g} GiB of values alone. "
            f"Ask for at most {_LARGEST_RESULT:.2g} points."
        )
    _trees.check_independent(trees, names)
    return trees, arrays


def _names(count: int) -> list[str]:
    return ["first", "second", "third"][:count] + [f"direction {i + 1}" for i in range(3, count)]


def check_steps(steps: ArrayLike, *, name: str) -> np.ndarray:
    """Steps (T,) in float64 on the host; T >= 1, all finite."""
    array = np.asarray(steps)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"`{name}` must be real numbers, got {array.dtype}.")
    if array.ndim != 1 or array.size == 0:
        what = "is empty" if array.size == 0 else f"has shape {array.shape}"
        raise ValueError(
            f"`{name}` {what}, and a grid needs at least one step on each axis, (T,). "
            "Use for example `numpy.linspace(-1, 1, 51)`."
        )
    array = array.astype(np.float64)
    if not np.all(np.isfinite(array)):
        row = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"`{name}` must be finite, got {array[row]} at position {row}.")
    return array


def warn_nonfinite(values: ArrayLike, *, start: Any) -> None:
    """Say once how many cells of a slice are not finite, and whether the start explains it."""
    bad = int(np.sum(~np.isfinite(np.asarray(values))))
    if bad:
        entries = _trees.nonfinite(start)
        why = f"; `params` itself has {entries} entries that are not finite" if entries else ""
        warnings.warn(
            f"{bad} of {np.size(values)} cells of the slice are not finite{why}.",
            RuntimeWarning,
            stacklevel=4,
        )


def _say_how_long(program: Any, calls: int) -> None:
    """Warn before the start of what takes long, where the compiler counts operations."""
    cost = program.cost_analysis()
    seconds = calls * (cost or {}).get("flops", 0.0) / _OPERATIONS_A_SECOND
    if seconds > _LONG:
        warnings.warn(
            f"The slice takes about {calls * cost['flops']:.2g} operations, {seconds / 60:.0f} "
            "minutes at 20 a nanosecond. Fewer points take proportionally less.",
            RuntimeWarning,
            stacklevel=5,
        )


def _evaluate(
    objective: Callable,
    point: Callable[..., Any],
    params: Any,
    steps: Sequence[np.ndarray],
    memory_budget: int,
) -> Array:
    """objective(point(*a)) for every a of the grid, `chunk` points in each call."""
    dtype = accumulator(jnp.result_type(*jax.tree.leaves(params)))
    mesh = np.meshgrid(*steps, indexing="ij")
    columns = np.stack([axis.ravel() for axis in mesh], axis=1).astype(dtype)
    traced_once = jit(objective)

    @exact
    def value(a: Array) -> Array:
        return traced_once(point(*a))

    out = jax.eval_shape(value, jax.ShapeDtypeStruct(columns.shape[1:], dtype))
    if getattr(out, "shape", None) != ():
        raise TypeError(
            f"`objective(params)` must return a scalar, got {out}. "
            "Average the losses of the examples."
        )
    chunk = points_within(value, columns, memory_budget)
    batch = jax.ShapeDtypeStruct((chunk, len(steps)), dtype)
    evaluate = jit(jax.vmap(value)).lower(batch).compile()
    _say_how_long(evaluate, -(-len(columns) // chunk))
    values = []
    for begin in range(0, len(columns), chunk):
        part = columns[begin : begin + chunk]
        # the last chunk is filled up with its own last point, so that one program serves all
        part = np.concatenate([part, np.repeat(part[-1:], chunk - len(part), axis=0)])
        values.append(evaluate(part))
    flat = jnp.concatenate(values)[: len(columns)]
    return flat.reshape([len(s) for s in steps])
