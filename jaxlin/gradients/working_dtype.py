"""In which dtype a function is checked: float64, unless it is another function there.

A check in float64 sees errors that the rounding of float32 hides. But a function may depend on
the dtype of its input: random numbers that are drawn with `x.dtype`, or with the default dtype,
are others in float64, and so is everything made of them. So both are evaluated, at the point and
at one nearby; where they differ by more than rounding, the function is checked in its own dtype.
"""

__all__ = ["prepared"]

import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxlin.gradients.evaluate import Function
from jaxlin.gradients.leaves import Tree
from jaxlin.gradients.structured import has_structure

ROUNDING = 16  # units in the last place by which both may differ without a closer look
NEIGHBOURS = 8


def prepared(
    f: Callable,
    x: Tree,
    scale: Callable[[Function], np.ndarray],
    *,
    dtype: DTypeLike | None = None,
    memory: int,
) -> Function:
    """`f` as a function of a flat vector, in the dtype in which its gradient can be judged.

    Args:
      f: `x -> scalar`.
      x: the point.
      scale: function -> natural unit of every entry, (n,).
      dtype: what to evaluate in, without asking; `None` decides.
      memory: bytes that one device call may take.
    """
    if dtype is not None:
        function = Function(f, x, dtype=dtype, memory=memory)
        if function.dtype != "float64":
            function.reason = f"evaluated in {function.dtype}, as asked."
        function.prepare()
        return function
    function = Function(f, x, memory=memory)
    function.prepare()
    wide = all(np.dtype(leaf.dtype) == np.float64 for leaf in function.leaves)
    if wide or function.dtype != "float64" or has_structure(f):
        return function
    own = Function(f, x, dtype="own", memory=memory)
    try:
        with warnings.catch_warnings():  # of a cast to float64, where that is switched off
            warnings.simplefilter("ignore")
            values = _differing(function, own, scale(function))
    except Exception:  # it does not run in its own dtype, or not eagerly: float64 is all there is
        return function
    if values is None:
        return function
    own.evaluations = function.evaluations
    own.prepare()
    own.reason = (
        f"in float64 `f` is another function: {values[0]:.6g} instead of {values[1]:.6g}, perhaps "
        f"of other random numbers. It is checked in {own.dtype}, with wider steps; `dtype=` "
        "chooses another one."
    )
    return own


def _differing(function: Function, own: Function, scale: np.ndarray) -> tuple[float, float] | None:
    """Values in float64 and in the own dtype that differ by more than rounding."""
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in own.leaves)
    way = scale * np.cos(1 + 2.4 * np.arange(len(scale)))  # no sum of it is special
    for point in (own.x, own.x + 0.25 * way):
        point = _representable(own, point)
        a, b = _value(function, point), _value(own, point)
        function.evaluations += 2
        if not np.isfinite(a + b) or abs(a - b) <= ROUNDING * eps * max(abs(a), abs(b)):
            continue
        # The terms of f may be larger than f: what do its own last digits do to it?
        steps = np.arange(1, NEIGHBOURS + 1)[:, None] * 4 * eps * way
        nearby = [_value(own, _representable(own, point + step)) for step in steps]
        function.evaluations += NEIGHBOURS
        noise = np.abs(np.diff([b, *nearby], 2)).max() / 2
        if not abs(a - b) <= 4 * ROUNDING * noise:
            return a, b
    return None


def _representable(own: Function, point: np.ndarray) -> np.ndarray:
    parts = [
        point[leaf.start : leaf.stop].astype(leaf.dtype).astype(np.float64) for leaf in own.leaves
    ]
    return np.concatenate(parts)


def _value(function: Function, point: np.ndarray) -> float:
    with function.context():
        tree = function.tree(np.array(point, function._flat_dtype))
        if function.kind != "python":
            tree = jax.tree.map(jnp.asarray, tree)
        return float(function.f(tree))
