"""Directions in parameter space: what a slice of the loss runs along.

A direction is a tree like the parameters. A random one in a space of 30,730 dimensions is nearly
orthogonal to any other, so it shows a typical slice; one through trained points, along the path
of training or along an eigenvector of the Hessian, shows a chosen one. `normalize` makes slices
of different models comparable, because a direction's length decides how far a step of 1 goes.
"""

__all__ = [
    "Direction",
    "between",
    "hessian_eigenvectors",
    "normalize",
    "orthogonalize",
    "principal_components",
    "random",
]

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlin._dtypes import accumulator, widened
from jaxlin.landscape import _trees
from jaxlin.precision import jit


class Direction(NamedTuple):
    """A direction, what to call it on an axis, and how long it is.

    >>> toward = Direction({"w": np.array([3.0, 4.0])}, "toward the optimum", 5.0)
    >>> toward.name, toward.norm
    ('toward the optimum', 5.0)
    """

    tree: Any
    """A tree with the leaves of the parameters."""
    name: str
    """What the axis of a picture says."""
    norm: float
    """Euclidean length: a step of 1 moves the parameters by this much."""


def tree_of(direction: Any) -> Any:
    """The tree inside a `Direction`; anything else is a tree already."""
    return direction.tree if isinstance(direction, Direction) else direction


def random(
    key: Array, params: Any, *, distribution: str = "gaussian", normalize: str | None = None
) -> Direction:
    """A random direction, the same for the same key.

    Args:
      key: a JAX random key.
      params: the tree whose shapes and dtypes the direction takes.
      distribution: `gaussian` (standard normal entries, no preferred orientation) or `uniform`
        (entries in [-1, 1)).
      normalize: `None`, or a kind of `normalize`.

    Returns:
      A `Direction`.

    Raises:
      ValueError: an unknown distribution or kind.

    Source: random directions are the CS231n notes', "Visualizing the loss function".

    >>> from jaxlin.core import LinearParams
    >>> params = LinearParams(jnp.ones((3, 4)), jnp.zeros(3))
    >>> random(jax.random.key(0), params).tree.weights.shape
    (3, 4)
    """
    draws = {
        "gaussian": jax.random.normal,
        "uniform": lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -1, 1),
    }
    if distribution not in draws:
        raise ValueError(f"`distribution` must be one of {', '.join(draws)}, got {distribution!r}.")
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        draws[distribution](k, jnp.shape(leaf), jnp.result_type(leaf))
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    direction = _named(jax.tree.unflatten(structure, drawn), f"random {distribution} direction")
    return direction if normalize is None else _normalized(direction, params, normalize)


def normalize(direction: Any, params: Any, kind: str = "filter") -> Direction:
    """Rescale a direction to the size of the parameters, part by part.

    Args:
      direction: a `Direction` or a bare tree.
      params: the parameters at the center of the slice.
      kind: `filter` gives every row of a matrix (the template of one class; of an array with
        more axes, every index of the first) the length of that row of the parameters, and every
        vector the length of its vector; `layer` gives every leaf the length of its leaf;
        `global` gives the whole direction the length of the whole of `params`.

    Returns:
      A `Direction`. A part that is zero stays zero; a part whose parameters are zero becomes
      zero, since it has no length to take.

    Raises:
      ValueError: an unknown kind, trees that do not fit, or parameters that are all zero.

    Source: Li, Xu, Taylor, Studer and Goldstein (2018), arXiv:1712.09913, section 4.

    >>> direction = normalize(jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.full((2, 2), 3.0))
    >>> direction.tree.round(3).tolist()
    [[4.24..., 0.0], [0.0, 4.24...]]
    """
    return _normalized(direction, params, kind)


def _normalized(direction: Any, params: Any, kind: str) -> Direction:
    tree = tree_of(direction)
    _trees.check_same_tree(tree, params)
    name = direction.name if isinstance(direction, Direction) else "direction"
    if kind == "global":
        scale = _trees.norm(params) / _trees.norm(tree)
        scaled = jax.tree.map(lambda leaf: (scale * widened(leaf)).astype(leaf.dtype), tree)
    elif kind in ("filter", "layer"):
        scaled = jax.tree.map(lambda d, p: _like(d, p, by_row=kind == "filter"), tree, params)
    else:
        raise ValueError(f"`kind` must be one of filter, layer, global, got {kind!r}.")
    if _trees.norm(scaled) == 0:
        raise ValueError(
            f"`params` leave nothing of the direction under {kind} normalization, because the "
            "parts where it is not zero are zero in `params`. Use `normalize=None` there."
        )
    return _named(scaled, f"{name}, {kind}-normalized")


def _like(direction: Any, params: Any, *, by_row: bool) -> Array:
    direction, params = jnp.asarray(direction), jnp.asarray(params)
    axes = tuple(range(1, direction.ndim)) if by_row and direction.ndim > 1 else None
    unit, length = _unit_and_length(direction, axes)
    _, target = _unit_and_length(params, axes)
    scaled = unit * jnp.broadcast_to(jnp.where(length > 0, target, 0), unit.shape)
    return scaled.astype(direction.dtype)


def _unit_and_length(leaf: Array, axes: tuple[int, ...] | None) -> tuple[Array, Array]:
    """Parts of unit length (or 0) and their lengths, by way of the largest entry: no overflow."""
    wide = widened(leaf)
    largest = jnp.max(jnp.abs(wide), axis=axes, keepdims=True, initial=0)
    shares = wide / jnp.broadcast_to(jnp.where(largest > 0, largest, 1), wide.shape)
    norms = jnp.sqrt(jnp.sum(shares**2, axis=axes, keepdims=True))
    unit = shares / jnp.broadcast_to(jnp.where(norms > 0, norms, 1), wide.shape)
    return unit, largest * norms


@overload
def between(start: Any, end: Any, /) -> Direction: ...


@overload
def between(start: Any, first: Any, second: Any, /) -> tuple[Direction, Direction]: ...


def between(start: Any, *ends: Any) -> Direction | tuple[Direction, ...]:
    """From one parameter point to one or two others: a step of 1 arrives.

    Args:
      start: the tree at step 0.
      *ends: one tree, for a line; two, for the plane through three points.

    Returns:
      A `Direction` for one end, a pair of them for two; float32 between points of half
      precision, whose range may not hold the difference.

    Raises:
      ValueError: trees that do not fit, points that coincide, or not one or two ends.

    >>> between(jnp.array([1.0, 1.0]), jnp.array([4.0, 5.0])).norm
    5.0
    """
    if len(ends) not in (1, 2):
        raise ValueError(f"`between` takes one or two end points, got {len(ends)}.")
    found = []
    for i, end in enumerate(ends):
        label = "end point" if len(ends) == 1 else f"end point {i + 1}"
        _trees.check_same_shapes(end, start, name=label)
        tree = jax.tree.map(lambda b, a: widened(b) - widened(a), end, start)
        if _trees.norm(tree) == 0:
            raise ValueError(
                f"The start and the {label} coincide, so there is no direction between them."
            )
        found.append(_named(tree, f"towards the {label}"))
    return found[0] if len(ends) == 1 else tuple(found)


def principal_components(path: Any, count: int = 2) -> tuple[Direction, ...]:
    """The directions in which a training path moves most, longest first.

    Args:
      path: a sequence of trees, or one tree whose leaves carry the checkpoints on a leading axis.
      count: how many.

    Returns:
      `count` orthonormal directions: the leading right singular vectors of the centered path.
      The sign is chosen so that the end of the path lies on the positive side of its start.

    Raises:
      ValueError: fewer than two checkpoints, or fewer independent directions than `count`.

    Source: Li et al. (2018), arXiv:1712.09913, section 7.2.

    >>> path = [jnp.array([0.0, 0.0]), jnp.array([1.0, 1.0]), jnp.array([3.0, 3.0])]
    >>> principal_components(path, 1)[0].tree.round(3).tolist()
    [0.707..., 0.707...]
    """
    matrix, unravel = flatten_path(path)
    centered = matrix - matrix.mean(axis=0)
    # checkpoints are few and parameters many: the small Gram matrix has all there is to know
    values, left = np.linalg.eigh(centered @ centered.T)
    rank = int(np.sum(values > values.max(initial=0.0) * len(matrix) * 1e-14))
    if rank < count:
        raise ValueError(
            f"The path of {len(matrix)} checkpoints spans {rank} directions, and {count} were "
            "asked for. Record more checkpoints, or ask for fewer."
        )
    found = []
    for i in range(count):
        vector = left[:, -1 - i] @ centered
        vector /= np.linalg.norm(vector)
        vector *= -1.0 if vector @ (matrix[-1] - matrix[0]) < 0 else 1.0
        found.append(_named(unravel(vector), f"principal component {i + 1}"))
    return tuple(found)


def flatten_path(path: Any) -> tuple[np.ndarray, Callable]:
    """A path as a float64 matrix (checkpoints, parameters), and the way back for one row."""
    if isinstance(path, Sequence) and not hasattr(path, "_fields"):
        trees = list(path)
        if not trees:
            raise ValueError("`path` is empty: give at least two checkpoints.")
        for i, tree in enumerate(trees):
            _trees.check_same_shapes(tree, trees[0], name=f"checkpoint {i}")
        stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *trees)
    else:
        stacked = jax.tree.map(np.asarray, path)
    leaves, structure = jax.tree.flatten(stacked)
    lengths = {len(leaf) if leaf.ndim else 0 for leaf in leaves}
    if len(lengths) != 1 or min(lengths) < 2:
        raise ValueError(
            "`path` must hold at least two checkpoints, the same number in every leaf, got "
            f"{sorted(lengths)}."
        )
    wide = [leaf.reshape(len(leaf), -1).astype(np.float64) for leaf in leaves]
    matrix = np.concatenate(wide, axis=1)
    ends = np.cumsum([leaf[0].size for leaf in leaves])[:-1]

    def unravel(row: np.ndarray) -> Any:
        parts = zip(np.split(row, ends), leaves, strict=True)
        arrays = [
            jnp.asarray(part.reshape(leaf.shape[1:]), accumulator(leaf.dtype))
            for part, leaf in parts
        ]
        return jax.tree.unflatten(structure, arrays)

    return matrix, unravel


def hessian_eigenvectors(
    key: Array, objective: Callable, params: Any, count: int = 2, *, tolerance: float = 1e-4
) -> tuple[Direction, ...]:
    """The directions of greatest curvature of `objective` at `params`, by ARPACK's Lanczos.

    The Hessian is never formed: each iteration is one Hessian-vector product,
    forward-over-reverse.

    Args:
      key: seeds the start vector of the iteration.
      objective: `params -> scalar`, twice differentiable.
      params: any tree; half precision is read as float32.
      count: how many, of the largest eigenvalues (algebraically), largest first.
      tolerance: relative accuracy of the eigenvalues.

    Returns:
      `count` unit directions; the name of each carries its eigenvalue.

    Raises:
      ValueError: `count` is not below the number of parameters, or the Hessian is not finite.

    Source: Lehoucq, Sorensen and Yang, "ARPACK Users' Guide" (1998).

    >>> bowl = lambda w: 5 * w[0] ** 2 + w[1] ** 2 + w[2] ** 2
    >>> top, = hessian_eigenvectors(jax.random.key(0), bowl, jnp.ones(3), 1)
    >>> abs(top.tree).round(3).tolist(), top.name
    ([1.0, 0.0, 0.0], 'Hessian eigenvector 1 (eigenvalue 10)')
    """
    from jax.flatten_util import ravel_pytree
    from scipy.sparse.linalg import LinearOperator, eigsh

    flat, unravel = ravel_pytree(jax.tree.map(widened, params))
    if not 0 < count < flat.size:
        raise ValueError(f"`count` must be in [1, {flat.size - 1}], got {count}.")

    @jit
    def product(vector: Array) -> Array:
        gradient = jax.grad(lambda x: objective(unravel(x)))
        return jax.jvp(gradient, (flat,), (vector.astype(flat.dtype),))[1]

    start = np.asarray(jax.random.normal(key, flat.shape, flat.dtype), np.float64)
    image = np.asarray(product(jnp.asarray(start)))
    if not np.all(np.isfinite(image)):
        raise ValueError("The Hessian of the objective is not finite at `params`.")
    if not image.any():
        raise ValueError(
            "The Hessian of the objective is zero at `params`, as that of a hinge is between its "
            "kinks. Use a smooth loss, such as softmax, or a strength above 0."
        )
    operator = LinearOperator(
        (flat.size, flat.size),
        matvec=lambda v: np.asarray(product(jnp.asarray(v.ravel())), np.float64),
        dtype=np.float64,
    )
    values, vectors = eigsh(operator, count, which="LA", v0=start, tol=tolerance)
    return tuple(
        _named(
            unravel(jnp.asarray(vectors[:, j], flat.dtype)),
            f"Hessian eigenvector {i + 1} (eigenvalue {values[j]:.4g})",
        )
        for i, j in enumerate(np.argsort(-values))
    )


def orthogonalize(direction: Any, *others: Any) -> Direction:
    """`direction` without its parts along `others` (Gram-Schmidt, twice for full precision).

    Raises:
      ValueError: nothing is left, because `direction` is a combination of `others`.

    >>> orthogonalize(jnp.array([1.0, 1.0]), jnp.array([0.0, 2.0])).tree.tolist()
    [1.0, 0.0]
    """
    tree = tree_of(direction)
    length = _trees.norm(tree)
    basis: list[Any] = []
    for other in map(tree_of, others):
        _trees.check_same_tree(other, tree, name="other direction")
        basis.append(_minus_projections(other, basis))
    left = _minus_projections(tree, basis)
    if _trees.norm(left) <= 1e-6 * length:
        raise ValueError(
            "`direction` is parallel to the others, so that nothing of it is left. "
            "Draw another one."
        )
    name = direction.name if isinstance(direction, Direction) else "direction"
    return _named(left, name)


def _minus_projections(tree: Any, basis: list[Any]) -> Any:
    for _ in range(2):
        for other in basis:
            square = _trees.inner(other, other)
            share = _trees.inner(tree, other) / square if square > 0 else 0.0
            tree = _trees.combine(tree, [other], [-share])
    return tree


def _named(tree: Any, name: str) -> Direction:
    return Direction(tree, name, _trees.norm(tree))
