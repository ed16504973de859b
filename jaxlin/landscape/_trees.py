"""Arithmetic of parameter trees, and the sentences about trees that do not fit together."""

__all__ = [
    "check_independent",
    "check_same_shapes",
    "check_same_tree",
    "combine",
    "flatten",
    "inner",
    "leaf_names",
    "nonfinite",
    "norm",
]

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin._dtypes import widened


def leaf_names(tree: Any) -> list[str]:
    """A readable path of every leaf: `weights`, `layers[0].bias`; `leaf` for a bare array."""
    paths = [path for path, _ in jax.tree.leaves_with_path(tree)]
    return [jax.tree_util.keystr(path).lstrip(".") or "leaf" for path in paths]


def check_same_tree(direction: Any, params: Any, *, name: str = "direction") -> None:
    """Raise unless `direction` has the leaves of `params`, and is not zero.

    Raises:
      ValueError: another tree, a leaf of another shape (named), or a zero direction.
      TypeError: a leaf that is not a real floating array.
    """
    check_same_shapes(direction, params, name=name)
    if norm(direction) == 0:
        raise ValueError(
            f"`{name}` is zero everywhere, so every point of the slice would be the start. "
            "Give a direction with a nonzero entry."
        )


def check_same_shapes(direction: Any, params: Any, *, name: str) -> None:
    """Raise unless both are trees of floating arrays with equal structure and shapes."""
    expected: Any = jax.tree.structure(params)
    got: Any = jax.tree.structure(direction)
    if expected != got:
        raise ValueError(
            f"`{name}` must be a tree like `params`, {expected}, got {got}. "
            "Make one with `jaxlin.landscape.random(key, params)`."
        )
    if not jax.tree.leaves(params):
        raise ValueError("`params` has no leaves, so there is no space to slice.")
    leaves = zip(
        leaf_names(params), jax.tree.leaves(params), jax.tree.leaves(direction), strict=True
    )
    for leaf, start, step in leaves:
        if jnp.shape(start) != jnp.shape(step):
            raise ValueError(
                f"`{name}` must have the shapes of `params`: leaf `{leaf}` is {jnp.shape(start)} "
                f"in `params` and {jnp.shape(step)} in `{name}`."
            )
        for what, value in (("params", start), (name, step)):
            if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
                raise TypeError(
                    f"`{what}` must be floating: leaf `{leaf}` is {jnp.result_type(value)}. "
                    "Convert it with `.astype(float)`."
                )


def check_independent(trees: list, names: list[str]) -> None:
    """Raise if the directions are linearly dependent (to about 6 digits)."""
    if len(trees) < 2 or any(nonfinite(tree) for tree in trees):
        return
    lengths = [norm(tree) for tree in trees]
    gram = np.array([[inner(s, t) for t in trees] for s in trees])
    cosines = gram / np.outer(lengths, lengths)
    if np.linalg.eigvalsh(cosines)[0] < 1e-12:
        raise ValueError(
            f"`{'`, `'.join(names)}` are parallel, so they span no plane. Draw another direction, "
            "or use `jaxlin.landscape.orthogonalize`."
        )


def flatten(tree: Any) -> np.ndarray:
    """All entries of a tree in one float64 vector, in the order of its leaves."""
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def inner(left: Any, right: Any) -> float:
    """The inner product of two trees, accumulated in float64 on the host."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return math.fsum(
        float(np.vdot(np.asarray(a, np.float64), np.asarray(b, np.float64))) for a, b in pairs
    )


def norm(tree: Any) -> float:
    """The Euclidean length of a tree; finite wherever it can be."""
    return math.hypot(*(_length(leaf) for leaf in jax.tree.leaves(tree)))


def _length(leaf: Any) -> float:
    values = np.abs(np.asarray(leaf, np.float64))
    largest = float(values.max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * float(np.linalg.norm((values / largest).ravel()))


def combine(start: Any, directions: Sequence[Any], steps: Sequence[Any]) -> Any:
    """start + sum of steps[i] * directions[i]; the dtype of every leaf stays that of `start`.

    Half precision is rounded to once, at the end.
    """

    def leaf(first: jax.Array, *others: Any) -> jax.Array:
        total = widened(first)
        for step, other in zip(steps, others, strict=True):
            total = total + jnp.asarray(step, total.dtype) * jnp.asarray(other, total.dtype)
        return total.astype(first.dtype)

    return jax.tree.map(leaf, jax.tree.map(jnp.asarray, start), *directions)


def nonfinite(tree: Any) -> int:
    """How many entries of a tree are infinite or not a number."""
    return sum(int(np.sum(~np.isfinite(np.asarray(leaf)))) for leaf in jax.tree.leaves(tree))
