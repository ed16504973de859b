"""Complex parameters as pairs of real ones, in JAX's convention for their gradient.

A real function f of z = a + i b has two real slopes, and there are two customs of writing them as
one complex number:

    JAX    df/da - i df/db    what `jax.grad(f)(z)` returns; a descent step is z - rate * conj(g)
    torch  df/da + i df/db    what `z.grad` holds; a descent step is z - rate * g

Here a claimed gradient is read as JAX's; `jnp.conj` turns one into the other.

Source: the JAX documentation, "The Autodiff Cookbook", "Complex numbers and differentiation"; the
  torch documentation, "Autograd for Complex Numbers".
"""

__all__ = ["NOTE", "Parts", "has_complex", "in_real_parts"]

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxlin.gradients.claim import is_like
from jaxlin.gradients.leaves import Tree

NOTE = "complex gradients are read in JAX's convention, df/da - i df/db at a + i b."


class Parts(NamedTuple):
    """One complex leaf: `w.real` and `w.imag`, as NumPy calls them."""

    real: jax.Array | np.ndarray
    imag: jax.Array | np.ndarray


def has_complex(x: Tree) -> bool:
    """Whether a leaf of `x` is complex."""
    return any(_is_complex(leaf) for leaf in jax.tree.leaves(x))


def in_real_parts(
    f: Callable, x: Tree, gradient: Tree | Callable[[Tree], Tree] | None
) -> tuple[Callable, Tree, Tree | Callable[[Tree], Tree] | None]:
    """The same problem with every complex leaf of `x` replaced by its `Parts`.

    >>> f, x, gradient = in_real_parts(lambda z: abs(z) ** 2, 3 + 4j, 6 - 8j)
    >>> float(f(x)), x.imag.item(), gradient.imag.item()  # d|z|^2/db = 2 b
    (25.0, 4.0, 8.0)
    """
    treedef = jax.tree.structure(x)
    where = [_is_complex(leaf) for leaf in jax.tree.leaves(x)]

    def split_gradient(tree: Tree) -> Tree:
        """df/da and df/db from df/da - i df/db; a tree of another shape is left to be refused."""
        leaves, own = jax.tree.flatten(tree)
        if len(leaves) != len(where):
            return tree
        pairs = zip(leaves, where, strict=True)
        split = [_split(leaf, sign=-1) if pair else leaf for leaf, pair in pairs]
        return jax.tree_util.tree_unflatten(own, split)

    claim: Tree | Callable[[Tree], Tree] | None
    if gradient is None:
        claim = None
    elif callable(gradient) and not is_like(treedef, gradient):
        claim = lambda parts: split_gradient(gradient(_join(parts)))  # noqa: E731
    else:
        claim = split_gradient(gradient)
    leaves = [
        _split(leaf) if pair else leaf for leaf, pair in zip(jax.tree.leaves(x), where, strict=True)
    ]
    return lambda parts: f(_join(parts)), jax.tree_util.tree_unflatten(treedef, leaves), claim


def _is_complex(leaf: ArrayLike) -> bool:
    return jnp.issubdtype(np.asarray(leaf).dtype, jnp.complexfloating)


def _split(leaf: ArrayLike, *, sign: int = 1) -> Parts:
    array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    return Parts(array.real, sign * array.imag)


def _join(tree: Tree) -> Tree:
    def joined(node: Any) -> Any:
        if not isinstance(node, Parts):
            return node
        if isinstance(node.real, jax.Array) or isinstance(node.imag, jax.Array):
            return jax.lax.complex(jnp.asarray(node.real), jnp.asarray(node.imag))
        return np.asarray(node.real) + 1j * np.asarray(node.imag)

    return jax.tree.map(joined, tree, is_leaf=lambda node: isinstance(node, Parts))
