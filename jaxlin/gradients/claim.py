"""The gradient that is on trial: where it comes from and how much its dtype rounds."""

__all__ = ["Claim", "claimed", "evaluated", "is_like", "with_measured_rounding"]

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef
from jax.typing import DTypeLike

from jaxlin.gradients.evaluate import Function
from jaxlin.gradients.leaves import Tree
from jaxlin.precision import float64


class Claim(NamedTuple):
    """A claimed gradient, flat."""

    values: np.ndarray
    """(n,), float64."""
    rounding: np.ndarray
    """(n,): what the dtype of the claim alone may put it off by."""
    notes: tuple[str, ...]


def claimed(
    function: Function, gradient: Tree | Callable[[Tree], Tree] | None, scale: np.ndarray
) -> Claim:
    """Evaluate and lay out the claimed gradient.

    `None` and functions are evaluated in the working precision of `function` (float64), so that
    the derivative rule is judged, and judged sharply. An array is taken as it is; where its
    dtype is narrower, the rounding to allow for is measured: as far as `jax.grad(f)` in that
    dtype lies from `jax.grad(f)` in float64, which says nothing about either being right.

    Args:
      function: prepared.
      gradient: what is claimed.
      scale: (n,), the natural unit of each entry of x, in which rounding errors are comparable.

    Raises:
      ValueError: the tree or the shapes are not those of `x` (the message names the leaf), or
        `f` cannot be differentiated automatically and no gradient was given.
    """
    notes: list[str] = []
    if gradient is None:
        if not function.differentiable():
            raise ValueError(
                "`f` is a plain Python function, which JAX cannot trace and hence not "
                "differentiate: pass the claimed gradient as `gradient=` (`--gradient` on the "
                "command line); it is then checked by calling `f` one point at a time."
            )
        tree = _by_jax(function)
        notes += _rounding_note(function, tree)
    elif callable(gradient) and not is_like(function.treedef, gradient):
        tree = evaluated(function, gradient)
    else:
        tree = gradient
    leaves = _matching_leaves(function, tree)
    values, rounding = [], []
    narrow: dict[str, float] | None = None
    for leaf, array in zip(function.leaves, leaves, strict=True):
        flat = array.astype(np.float64).ravel()
        size = np.where(np.isfinite(flat), np.abs(flat), 0.0)
        units = scale[leaf.start : leaf.stop]
        largest = (size * units).max(initial=0.0) / units  # of the leaf, in comparable units
        unit = float(jnp.finfo(array.dtype).eps)
        bar = 256 * np.finfo(np.float64).eps * largest
        if array.dtype != np.float64:
            narrow = narrow or _measured_rounding(function, array.dtype)
            measured = narrow.get(leaf.path)
            if measured is None:
                measured = 64 * unit * largest
            bar = bar + 2 * unit * size + 4 * measured
        if function.eps > unit:  # the claim is made of values as coarse as those of f
            bar = bar + 4 * function.eps * largest
        values.append(flat)
        rounding.append(bar)
    return Claim(np.concatenate(values), np.concatenate(rounding), tuple(notes))


def with_measured_rounding(
    function: Function,
    gradient: Tree | Callable[[Tree], Tree] | None,
    claim: Claim,
    scale: np.ndarray,
    value: float,
) -> Claim:
    """A claim so small that it may be rounding alone, with the rounding it was seen to have.

    Terms of a gradient that cancel leave their rounding errors behind, as in that of a sum of
    softmax probabilities. Evaluated at points that differ from x in their last digits they
    scatter by their own size, which says nothing about any part that is not rounding. Only
    functions can be evaluated again; values are taken as they are.
    """
    size = np.where(np.isfinite(claim.values), np.abs(claim.values), 0.0) * scale
    tiny = size.max() <= 1e3 * function.eps * abs(value) and size.any()
    if not tiny or (gradient is not None and not callable(gradient)):
        return claim
    rounding = claim.rounding.copy()
    signs = np.where(np.arange(len(scale)) % 2, 1.0, -1.0)
    point = function.x
    for way in (signs, np.ones(len(scale))):
        function.x = point + 8 * function.eps * scale * way
        try:
            tree = _autodiff(function) if gradient is None else evaluated(function, gradient)
        finally:
            function.x = point
        parts = [np.asarray(a, np.float64).ravel() for a in _matching_leaves(function, tree)]
        apart = np.abs(np.concatenate(parts) - claim.values) * scale
        rounding = np.maximum(rounding, 8 * np.max(apart) / scale)
    return claim._replace(rounding=rounding)


def is_like(treedef: PyTreeDef, gradient: Any) -> bool:
    """Whether a callable `gradient` is a tree of values: a module, where the point is one."""
    own: PyTreeDef = jax.tree.structure(gradient)
    both = (treedef.node_data(), own.node_data())  # the type of the outermost node; None for a leaf
    return None not in both and both[0][0] is both[1][0]


def _by_jax(function: Function) -> Tree:
    try:
        return _autodiff(function)
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise ValueError(
            f"JAX evaluates `f` but cannot differentiate it ({type(error).__name__}: {first}) "
            "Pass the claimed gradient as `gradient=`, or give `f` a derivative rule."
        ) from error


def _autodiff(function: Function, dtype: DTypeLike | None = None) -> Tree:
    """`jax.grad(f)`, in the working dtype or, like training code, in `dtype` throughout."""
    x = function.x
    if dtype is None:
        with function.context():
            tree = function.tree(np.array(x, function._flat_dtype))
            return jax.tree.map(np.asarray, function.gradient(tree))
    wide = dtype == np.float64
    with float64() if wide else jax.enable_x64(False):
        flat = jnp.asarray(x, jnp.float64 if wide else jnp.float32)
        leaves = [flat[a.start : a.stop].reshape(a.shape).astype(dtype) for a in function.leaves]
        tree = jax.tree_util.tree_unflatten(function.treedef, leaves)
        return jax.tree.map(np.asarray, function.gradient(tree))


def evaluated(function: Function, gradient: Callable[[Tree], Tree]) -> Tree:
    """`gradient` at the point, called as its author would, in the working dtype."""
    with function.context():
        flat = np.array(function.x, function._flat_dtype)
        plain = function.tree(flat)
        if function.kind == "python":
            tree = gradient(plain)
        else:
            try:
                tree = gradient(jax.tree.map(jnp.asarray, plain))
            except Exception:  # perhaps a NumPy function that writes into copies of its input
                tree = gradient(plain)
        return jax.tree.map(np.asarray, tree)


def _matching_leaves(function: Function, tree: Tree) -> list[np.ndarray]:
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    given = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in pairs}
    if len(pairs) == len(function.leaves) and set(given) != {a.path for a in function.leaves}:
        given = {a.path: np.asarray(b) for a, (_, b) in zip(function.leaves, pairs, strict=True)}
    for path in given:
        if path not in {leaf.path for leaf in function.leaves}:
            raise ValueError(
                f"`gradient` has a leaf {path or 'outside of any tree'} that `x` lacks."
            )
    for leaf in function.leaves:
        called = f"the leaf {leaf.path} of `gradient`" if leaf.path else "`gradient`"
        if leaf.path not in given:
            raise ValueError(f"{called} is missing: it must be a tree like `x`.")
        array = given[leaf.path]
        if array.shape != leaf.shape:
            raise ValueError(
                f"{called} must have shape {leaf.shape}, as in `x`, got {array.shape}."
            )
        if not jnp.issubdtype(array.dtype, jnp.floating):
            if jnp.issubdtype(array.dtype, jnp.integer):
                given[leaf.path] = array.astype(np.float64)
            else:
                raise TypeError(f"{called} must be floating, got {array.dtype}.")
    return [given[leaf.path] for leaf in function.leaves]


def _measured_rounding(function: Function, dtype: DTypeLike) -> dict[str, float]:
    """Per leaf, the largest difference between autodiff in `dtype` and in float64."""
    if function.kind == "python":
        return {"none": 0.0}
    try:
        narrow, wide = _autodiff(function, dtype), _autodiff(function)
    except Exception:  # `f` does not run in that dtype: the caller falls back to a rule of thumb
        return {"none": 0.0}
    result = {}
    for leaf, a, b in zip(
        function.leaves, jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True
    ):
        difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
        largest = float(np.abs(b.astype(np.float64)).max(initial=0.0))
        if np.isfinite(difference).all() and difference.max(initial=0.0) <= 0.1 * largest:
            result[leaf.path] = float(difference.max(initial=0.0))
    return result or {"none": 0.0}


def _rounding_note(function: Function, wide: Tree) -> list[str]:
    """What the user's own dtype makes of a gradient whose rule is judged in float64."""
    own = {np.dtype(leaf.dtype) for leaf in function.leaves}
    if function.dtype != "float64" or own == {np.dtype(np.float64)}:
        return []
    dtype = min(own, key=lambda d: jnp.finfo(d).bits)
    try:
        narrow = _autodiff(function, dtype)
    except Exception:
        return [f"jax.grad(f) does not run in {dtype}; its rule was judged in float64."]
    worst = 0.0
    for leaf, a, b in zip(
        function.leaves, jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True
    ):
        if not np.isfinite(a.astype(np.float64)).all():
            where = f" at the leaf {leaf.path}" if leaf.path else ""
            return [f"evaluated in {dtype}, jax.grad(f) is not finite{where}: mind overflow."]
        difference = np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0)
        worst = max(worst, difference / (np.abs(b.astype(np.float64)).max(initial=0.0) or 1.0))
    return [
        f"the rule was judged in float64; evaluated in {dtype}, jax.grad(f) differs from it by "
        f"at most {worst:.1e} of its largest entry."
    ]
