"""A tree of parameters as one flat vector, and back."""

__all__ = ["Leaf", "Tree", "flatten", "unflatten"]

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef

Tree = Any
"""A pytree of arrays, NumPy's or JAX's, or of what else the text says."""


class Leaf(NamedTuple):
    """Where one leaf of the tree lies in the flat vector."""

    path: str
    """As `jax.tree_util.keystr` writes it; `""` for a bare array."""
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int
    stop: int


def flatten(x: Tree) -> tuple[np.ndarray, list[Leaf], PyTreeDef]:
    """The leaves of `x` in one float64 vector, where each one lies, and the tree's structure.

    Raises:
      TypeError: a leaf is complex, or not floating.
      ValueError: there is nothing to differentiate, or a value is not finite.
    """
    pairs, treedef = jax.tree_util.tree_flatten_with_path(x)
    leaves, parts, start = [], [], 0
    for path, leaf in pairs:
        name = jax.tree_util.keystr(path)
        called = f"the leaf {name} of `x`" if name else "`x`"
        array = np.asarray(leaf)
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise TypeError(
                f"{called} is {array.dtype}: complex parameters are not supported here, "
                "only by `check_gradient`. Split them into real and imaginary parts."
            )
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(
                f"{called} must be floating, got {array.dtype}. Differentiate with respect to "
                "floating leaves only; close over the others."
            )
        values = array.astype(np.float64).ravel()
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values))[0])
            index = tuple(int(i) for i in np.unravel_index(bad, array.shape))
            raise ValueError(f"{called} is {values[bad]} at {index}: no gradient can be checked.")
        leaves.append(Leaf(name, array.shape, array.dtype, start, start + array.size))
        parts.append(values)
        start += array.size
    if start == 0:
        raise ValueError("`x` holds no numbers: there is no gradient to compute.")
    return np.concatenate(parts), leaves, treedef


def unflatten(
    flat: jax.Array | np.ndarray,
    leaves: Sequence[Leaf],
    treedef: PyTreeDef,
    *,
    dtypes: Sequence[np.dtype] | None = None,
) -> Tree:
    """The inverse of `flatten`; leaves get `dtypes` (default: the dtype of `flat`)."""
    dtypes = dtypes or [flat.dtype] * len(leaves)
    arrays = [
        flat[leaf.start : leaf.stop].reshape(leaf.shape).astype(dtype)
        for leaf, dtype in zip(leaves, dtypes, strict=True)
    ]
    return jax.tree_util.tree_unflatten(treedef, arrays)
