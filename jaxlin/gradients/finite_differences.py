"""Numeric gradients: slopes measured by evaluating the function at displaced points.

`gradient` covers the lecture's forward difference (n + 1 evaluations), the centred one (2 n),
both of higher order, and Richardson extrapolation, which also measures its own error. All of
them run the displaced points in batches on the device and in float64, whatever the dtype of the
input, unless told otherwise. The value never depends on the batching.

Step sizes balance truncation against round-off: for a formula of order p the first grows like
h^p, the second like eps / h, so h = eps^(1 / (p + 1)) in units of the leaf's magnitude, with eps
the relative noise of the values of `f`.

Source: the CS231n notes, "Optimization", "Computing the gradient numerically"; Press et al.,
  Numerical Recipes, "Numerical Derivatives" (Ridders' extrapolation).
"""

__all__ = [
    "METHODS",
    "NumericGradient",
    "directional_derivative",
    "gradient",
    "hessian_vector_product",
    "jacobian",
]

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import PyTreeDef
from jax.typing import DTypeLike

from jaxlin.gradients.evaluate import GIB, Function
from jaxlin.gradients.leaves import Leaf, Tree, flatten
from jaxlin.gradients.structured import column_steps, differences_along_axes, has_structure

METHODS = ("forward", "central", "richardson")
LEVELS = 3  # step sizes h, h/2, h/4 of the extrapolation


class NumericGradient(NamedTuple):
    """A numeric derivative, how far off it may be, and what it cost.

    >>> found = gradient(lambda x: (x**2).sum(), np.array([1.0, 2.0]))
    >>> bool(np.all(np.abs(found.value - [2.0, 4.0]) <= found.error + 1e-9))
    True
    """

    value: Tree
    """Shaped like the point (a pytree of float64 NumPy arrays)."""
    error: Tree
    """Shaped like `value`: an estimate of the absolute error of each entry. Measured for
    "richardson"; for one-step formulas the round-off part is a bound and the truncation part
    is only the order of magnitude that the formula has on a function of natural scale."""
    evaluations: int
    """Values of `f` that the formula needs (padding of batches is not counted)."""


def gradient(
    f: Callable,
    x: Tree,
    *,
    method: str = "central",
    order: int | None = None,
    step: Tree | None = None,
    noise: float | None = None,
    dtype: DTypeLike | None = None,
    memory: int = GIB,
) -> NumericGradient:
    """The gradient of a scalar function at `x`, by differences along every coordinate.

    Args:
      f: `x -> scalar`, a JAX function, or any Python function of NumPy arrays (then evaluated
        one point at a time). A `LinearObjective` is differenced column by column, which costs
        one example's worth of work less per pixel but gives the same numbers.
      x: a pytree with floating leaves. It is not modified.
      method: "forward" (f(x + h) - f(x)) / h, n + 1 evaluations; "central"
        (f(x + h) - f(x - h)) / 2h, 2 n evaluations; "richardson", central differences at h, h/2
        and h/4 extrapolated to h = 0, 6 n evaluations.
      order: of the formula, for "forward" (default 1, costs order * n + 1) and "central"
        (default 2, even, costs order * n).
      step: h, a number for all leaves or a pytree of numbers like `x`; the default depends on
        the method, the dtype, the magnitude of each leaf and `noise`.
      noise: relative noise of the values of `f`, by default the rounding of their dtype.
      dtype: what to evaluate in; float64 by default, also where `jax_enable_x64` is off.
      memory: bytes that one device call may take.

    Returns:
      The gradient, its error and the number of evaluations.

    Raises:
      TypeError: a leaf of `x` or the result of `f` is not floating.
      ValueError: `f` is not scalar, or not finite at or near `x` (the message says where).

    >>> result = gradient(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0]))
    >>> result.value.round(6).tolist(), result.evaluations
    ([3.0, 12.0], 4)
    """
    _check_method(method)
    function = Function(f, x, dtype=dtype, memory=memory)
    return _by_axes(function, method, order, step, noise)


def jacobian(
    f: Callable,
    x: Tree,
    *,
    method: str = "central",
    order: int | None = None,
    step: Tree | None = None,
    noise: float | None = None,
    dtype: DTypeLike | None = None,
    memory: int = GIB,
) -> NumericGradient:
    """The Jacobian of an array-valued function, by differences along every coordinate of `x`.

    Arguments are those of `gradient`. Leaves of the result have shape `f(x).shape + leaf.shape`,
    as those of `jax.jacobian` do.

    >>> jacobian(lambda x: x**2, jnp.array([1.0, 2.0])).value.round(6).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    _check_method(method)
    function = Function(f, x, dtype=dtype, memory=memory, scalar=False)
    return _by_axes(function, method, order, step, noise)


def directional_derivative(
    f: Callable,
    x: Tree,
    direction: Tree,
    *,
    method: str = "central",
    order: int | None = None,
    step: float | None = None,
    noise: float | None = None,
    dtype: DTypeLike | None = None,
    memory: int = GIB,
) -> NumericGradient:
    """The derivative of `t -> f(x + t * direction)` at 0, from a handful of evaluations.

    Arguments are those of `gradient`; `direction` is a pytree shaped like `x`, `step` is in
    units of `t`. The result is a number per value of `f`.

    >>> f = lambda x: jnp.sum(x**2)
    >>> directional_derivative(f, jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])).value.round(6)
    np.float64(6.0)
    """
    _check_method(method)
    at, leaves, treedef = flatten(x)
    toward, leaves_of, treedef_of = flatten(direction)
    if treedef_of != treedef or [a.shape for a in leaves_of] != [b.shape for b in leaves]:
        raise ValueError("`direction` must be a tree of the same structure and shapes as `x`.")
    size = float(np.abs(toward).max())
    if size == 0:
        raise ValueError("`direction` is zero: there is no slope along it.")

    base = Function(f, x, dtype=dtype, memory=memory, scalar=False)

    def line(t: Array | np.ndarray) -> Tree:
        return f(base.tree(_plus(at, t, toward)))

    scale = (float(np.abs(at).max()) or 1.0) / size
    function = Function(line, np.float64(0.0), dtype=dtype, memory=memory, scalar=False)
    return _by_axes(function, method, order, step, noise, scale=scale)


def hessian_vector_product(
    f: Callable,
    x: Tree,
    vector: Tree,
    *,
    gradient: Callable[[Tree], Tree] | None = None,
    step: float | None = None,
    memory: int = GIB,
) -> NumericGradient:
    """The Hessian of a scalar function times `vector`: the derivative of a gradient along it.

    Args:
      f: `x -> scalar`.
      x: a pytree with floating leaves.
      vector: a pytree shaped like `x`.
      gradient: `x -> gradient`, `jax.grad(f)` by default; each evaluation is one of it.
      step: in units of `t` in x + t * vector.
      memory: bytes that one device call may take.

    >>> f = lambda x: jnp.sum(x**3)
    >>> hessian_vector_product(f, jnp.array([1.0, 2.0]), jnp.ones(2)).value.round(5).tolist()
    [6.0, 12.0]
    """
    of = jax.grad(f) if gradient is None else gradient
    _, leaves, treedef = flatten(x)

    def flat_gradient(point: Tree) -> Array | np.ndarray:
        parts = jax.tree_util.tree_leaves(of(point))
        if any(isinstance(part, jax.Array) for part in parts):
            return jnp.concatenate([jnp.ravel(part) for part in parts])
        return np.concatenate([np.ravel(part) for part in parts])

    result = directional_derivative(flat_gradient, x, vector, step=step, memory=memory)
    return NumericGradient(
        _split(result.value, leaves, treedef, ()),
        _split(result.error, leaves, treedef, ()),
        result.evaluations,
    )


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, got {method!r}.")


def _plus(at: np.ndarray, t: Array | np.ndarray, toward: np.ndarray) -> Array | np.ndarray:
    return (np if isinstance(t, np.ndarray | np.generic) else jnp).asarray(at + t * toward)


def _by_axes(
    function: Function,
    method: str,
    asked: int | None,
    step: Tree | None,
    noise: float | None,
    scale: float | None = None,
) -> NumericGradient:
    nodes, weights, order = _formula(method, asked)
    accuracy = 6 if method == "richardson" else order
    steps = _steps(function, accuracy, step, noise, scale)
    function.prepare(0, nodes[0] * float(function.exact_steps([0], steps[:1])[0]))
    if step is None:  # now the dtype of the values is known too: float32 inside needs more
        steps = _steps(function, accuracy, step, noise, scale)
    levels = LEVELS if method == "richardson" else 1
    indices = np.arange(len(function.x))
    estimates, size_of_f = [], 0.0
    for level in range(levels):
        h = function.exact_steps(indices, steps / 2**level)
        if not (h > 0).all():
            path, index = function.place(int(np.flatnonzero(h <= 0)[0]))
            raise ValueError(
                f"`step` is lost in rounding at {path}{list(index)}: x + step equals x in "
                f"{function.dtype}. Take a larger step."
            )
        changes = _structured(function, nodes, steps / 2**level)
        if changes is not None:
            slope, h = np.tensordot(weights, changes, axes=1), steps / 2**level
        else:
            slope = np.zeros((len(indices), *function.out_shape))
            for node, weight in zip(nodes, weights, strict=True):
                if node == 0:
                    values = function.along_axes(indices[:1], np.zeros(1))
                    _check_finite(values, function, indices[:1], np.zeros(1))
                else:
                    values = function.along_axes(indices, node * h)
                    _check_finite(values, function, indices, node * h)
                size_of_f = max(size_of_f, float(np.abs(values).max(initial=0.0)))
                slope = slope + weight * values
        estimates.append((slope.T / h).T)
    return _finish(function, estimates, steps / 2 ** (levels - 1), order, size_of_f, weights)


def _structured(function: Function, nodes: Sequence[int], steps: np.ndarray) -> np.ndarray | None:
    """f(x + node * step) - f(x) per node and entry by the fast path, where there is one."""
    if function.dtype != "float64" or not has_structure(function.f):
        return None
    x = function.tree(function.x)
    columns = column_steps(x, steps)
    if columns is None:
        return None
    function.evaluations += sum(1 if node == 0 else len(steps) for node in nodes)
    return differences_along_axes(function.f, x, np.outer(nodes, columns))


def _formula(method: str, order: int | None) -> tuple[list[int], list[float], int]:
    """Nodes and weights of the slope formula in units of h: sum(weights * f(nodes * h)) / h."""
    if method == "richardson":
        if order is not None:
            raise ValueError("`order` belongs to the forward and central methods.")
        return [-1, 1], [-0.5, 0.5], 2
    if method == "forward":
        order = 1 if order is None else order
        if order < 1:
            raise ValueError(f"`order` of a forward difference must be at least 1, got {order}.")
        nodes = list(range(order + 1))
    else:
        order = 2 if order is None else order
        if order < 2 or order % 2:
            raise ValueError(f"`order` of a central difference must be even, got {order}.")
        nodes = [j for j in range(-order // 2, order // 2 + 1) if j != 0]
    powers = np.vander(np.array(nodes, float), increasing=True).T
    rates = np.zeros(len(nodes))
    rates[1] = 1.0  # the weights must reproduce the first derivative of t, and no other power
    return nodes, np.linalg.solve(powers, rates).tolist(), order


def _steps(
    function: Function,
    order: int,
    step: Tree | None,
    noise: float | None,
    scale: float | None,
) -> np.ndarray:
    """One step size per entry of the flat vector."""
    if step is not None:
        per_leaf = jax.tree_util.tree_leaves(step)
        if len(per_leaf) == 1:
            per_leaf = per_leaf * len(function.leaves)
        if len(per_leaf) != len(function.leaves):
            raise ValueError("`step` must be one number, or a tree of numbers shaped like `x`.")
        parts = [
            np.broadcast_to(np.asarray(h, float), leaf.shape).ravel()
            for h, leaf in zip(per_leaf, function.leaves, strict=True)
        ]
        steps = np.concatenate(parts)
        if not (np.isfinite(steps) & (steps > 0)).all():
            raise ValueError("`step` must be positive and finite.")
        return steps
    eps = max(noise or 0.0, function.eps, *(float(jnp.finfo(d).eps) for d in function.dtypes))
    relative = eps ** (1 / (order + 1))
    parts = []
    for leaf in function.leaves:
        values = np.abs(function.x[leaf.start : leaf.stop])
        size = float(values.max(initial=0.0)) or 1.0
        if scale is not None:
            size = scale
        parts.append(np.full(len(values), 2.0 ** round(np.log2(relative * size))))
    return np.concatenate(parts)


def _check_finite(
    values: np.ndarray, function: Function, indices: np.ndarray, offsets: np.ndarray
) -> None:
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if len(bad):
        path, index = function.place(indices[bad[0]])
        value = values.reshape(len(values), -1)[bad[0]]
        value = value[~np.isfinite(value)][0]
        if offsets[bad[0]] == 0:
            raise ValueError(f"`f` is {value} at the point `x` itself: it has no gradient there.")
        entry = f"{path}[{', '.join(map(str, index))}]" if index else path or "x"
        raise ValueError(
            f"`f` is finite at `x` but {value} near it, where {entry} is displaced by "
            f"{offsets[bad[0]]:.3g}. Choose a point inside the domain of `f`, or a smaller `step`."
        )


def _finish(
    function: Function,
    estimates: list[np.ndarray],
    steps: np.ndarray,
    order: int,
    size_of_f: float,
    weights: Sequence[float],
) -> NumericGradient:
    """Extrapolate over the levels, and say how far off the result may be."""
    by_entry = (len(steps), *[1] * len(function.out_shape))
    gain = float(np.abs(weights).sum()) * (2 if len(estimates) > 1 else 1)
    rounding = gain * function.eps * max(size_of_f, 0.0) / steps.reshape(by_entry)
    if len(estimates) > 1:
        columns = estimates
        while len(columns) > 1:  # Neville: each column removes the next even power of h
            factor = 4.0 ** (len(estimates) - len(columns) + 1)
            previous = columns
            columns = [(factor * b - a) / (factor - 1) for a, b in itertools.pairwise(columns)]
        value = columns[-1]
        error = np.abs(value - previous[-1]) + rounding
    else:
        value = estimates[0]
        size = np.abs(function.x).max(initial=0.0) or 1.0
        natural = (steps.reshape(by_entry) / size) ** order
        error = rounding + natural * np.maximum(np.abs(value), size_of_f / size)
    return NumericGradient(
        _split(value, function.leaves, function.treedef, function.out_shape),
        _split(error, function.leaves, function.treedef, function.out_shape),
        function.evaluations,
    )


def _split(
    array: np.ndarray, leaves: Sequence[Leaf], treedef: PyTreeDef, out_shape: tuple[int, ...]
) -> Tree:
    """(n, *out_shape) back into the tree, leaves out_shape + leaf.shape."""
    array = np.moveaxis(np.asarray(array), 0, -1) if out_shape else np.asarray(array)
    parts = [array[..., a.start : a.stop].reshape((*out_shape, *a.shape)) for a in leaves]
    return jax.tree_util.tree_unflatten(treedef, parts)
