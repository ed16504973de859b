"""The Jacobian that is on trial: an array, or a function that multiplies by it from either side."""

__all__ = [
    "Broken",
    "acting",
    "action_rows",
    "array_rows",
    "linear_map",
    "product_rows",
    "pullback",
    "pushforward",
    "with_nonlinear",
]

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxlin.gradients.by_outputs import Rows
from jaxlin.gradients.leaves import Leaf, Tree
from jaxlin.gradients.lines import EPS, Key, generator
from jaxlin.gradients.outputs import Outputs
from jaxlin.gradients.report import Entry, GradientReport, relative_error
from jaxlin.precision import jit

Broken = tuple[int, float, float]
"""Where a claim is not linear: the output, the value there and what linearity asks for."""

LINEAR_TOLERANCE = 1e-3  # of the largest entry: a rule may run in float32 without showing it


def array_rows(base: Outputs, jacobian: Tree, *, called: str) -> Rows:
    """A claim given as arrays, laid out as `jax.jacobian` does: f(x).shape + leaf.shape.

    Where its dtype is narrower than float64 the rounding to allow for is measured, as for a
    gradient: as far as u^T J by JAX in that dtype lies from u^T J in float64.

    Args:
      base: opened.
      jacobian: the tree of f(x), each leaf replaced by a tree like `x`.
      called: the argument, for errors.

    Raises:
      TypeError: a part is not floating.
      ValueError: the parts are not as many as they must be, or have other shapes.
    """
    wanted = [(out, leaf) for out in base.layout for leaf in base.leaves]
    parts = [np.asarray(part) for part in jax.tree.leaves(jacobian)]
    if len(parts) != len(wanted):
        raise ValueError(
            f"`{called}` must hold {len(wanted)} arrays, one for every output and leaf of `x`, as "
            f"`jax.jacobian` lays them out; got {len(parts)}."
        )
    matrix = np.zeros((len(base.at), len(base.x)))
    narrow: dict[np.dtype, list[tuple[Leaf, Leaf]]] = {}
    for (out, leaf), part in zip(wanted, parts, strict=True):
        which = f"the part of f{out.path} by x{leaf.path} of `{called}`"
        if part.shape != out.shape + leaf.shape:
            raise ValueError(
                f"{which} must have shape {out.shape + leaf.shape}, outputs first, got "
                f"{part.shape}."
            )
        if not any(jnp.issubdtype(part.dtype, kind) for kind in (jnp.floating, jnp.integer)):
            raise TypeError(f"{which} must be floating, got {part.dtype}.")
        block = part.astype(np.float64).reshape(out.stop - out.start, leaf.stop - leaf.start)
        matrix[out.start : out.stop, leaf.start : leaf.stop] = block
        if jnp.issubdtype(part.dtype, jnp.floating) and part.dtype != np.float64:
            narrow.setdefault(part.dtype, []).append((out, leaf))
    of = partial(_product, matrix)

    if not narrow:
        return Rows(of)
    units = np.zeros_like(matrix)
    for dtype, blocks in narrow.items():
        for out, leaf in blocks:
            here = slice(out.start, out.stop), slice(leaf.start, leaf.stop)
            units[here] = float(jnp.finfo(dtype).eps) * np.abs(np.nan_to_num(matrix[here]))
    narrowest = max(narrow, key=lambda dtype: float(jnp.finfo(dtype).eps))
    differences = _differences(base, narrowest)

    def rounding(weights: np.ndarray) -> np.ndarray:
        # Along lines these are summed by their squares (`Trial.claim_along`): so are they here.
        own = np.sqrt(np.square(weights) @ np.square(units))
        rule = 64 * _largest(base, own)
        return 2 * own + 4 * (rule if differences is None else differences(weights, rule))

    return Rows(of, rounding)


def _differences(
    base: Outputs, dtype: DTypeLike
) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """How far u^T J by JAX in `dtype` lies from that in float64, per leaf; `None` without JAX."""
    if base.kind == "python":
        return None
    wide, narrow = (
        Outputs(jit(partial(pullback, base, dtype=d)), base.output_tree(), dtype=d)
        for d in (None, dtype)
    )

    def measured(weights: np.ndarray, rule: np.ndarray) -> np.ndarray:
        try:
            exact = wide.at_points(weights)
            away = np.abs(narrow.at_points(weights) - exact)
        except Exception:  # `f` does not run in that dtype, or has no reverse mode
            return rule
        away, largest = _largest(base, away), _largest(base, np.abs(exact))
        return np.where(np.isfinite(away) & (away <= 0.1 * largest), away, rule)

    return measured


def _largest(base: Outputs, rows: np.ndarray) -> np.ndarray:
    """Every entry replaced by the largest one of its leaf."""
    result = np.empty_like(rows)
    for leaf in base.leaves:
        here = slice(leaf.start, leaf.stop)
        result[:, here] = rows[:, here].max(axis=1, initial=0.0, keepdims=True)
    return result


def _product(matrix: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """weights @ matrix, without the rows of weight 0: 0 times NaN is NaN."""
    if np.isfinite(matrix).all():
        return weights @ matrix
    return np.stack([row[row != 0] @ matrix[row != 0] for row in weights])


def _point_like(base: Outputs, tree: Tree, dtype: DTypeLike | None = None) -> Tree:
    """x in the working dtype of `base`, of JAX arrays where `tree` holds some."""
    flat = np.array(base.x, base._flat_dtype if dtype is None else np.float64)
    point = base.tree(flat)
    if dtype is not None:
        point = jax.tree.map(lambda a: a.astype(dtype), point)
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(tree)):
        return jax.tree.map(jnp.asarray, point)
    return point


def pullback(base: Outputs, cotangent: Tree, dtype: DTypeLike | None = None) -> Tree:
    """u^T J by `jax.vjp`."""
    result, back = jax.vjp(base.of, _point_like(base, cotangent, dtype))
    return back(jax.tree.map(lambda u, y: jnp.asarray(u).astype(y.dtype), cotangent, result))[0]


def pushforward(base: Outputs, tangent: Tree) -> Tree:
    """J v by `jax.jvp`."""
    point = _point_like(base, tangent)
    tangent = jax.tree.map(lambda v, a: v.astype(a.dtype), tangent, point)
    return jax.jvp(base.of, (point,), (tangent,))[1]


def acting(
    base: Outputs,
    rule: Callable[[Tree, Tree], Tree] | None,
    own: Callable[[Outputs, Tree], Tree],
) -> Callable[[Tree], Tree]:
    """What a rule makes of a direction at the point; `own` is JAX's, (base, direction) -> tree."""
    if rule is None:
        return jit(partial(own, base))
    return lambda direction: rule(_point_like(base, direction), direction)


def linear_map(
    of: Callable[[Tree], Tree],
    like: Tree,
    layout: Sequence[Leaf],
    *,
    units: np.ndarray,
    key: Key,
    memory: int,
    called: str,
    result: str,
) -> tuple[Outputs, Broken | None]:
    """A claim that multiplies, as a map between flat vectors, after making sure that it is linear.

    Args:
      of: tree like `like` -> tree with the leaves of `layout`.
      units: (q,), the size of the inputs to try it with.
      called: what `of` is, for errors.
      result: what it must return, for errors.

    Returns:
      The map; and where of(a + b) = of(a) + of(b) or of(-a) = -of(a) is violated: the output, the
      value there and the value that linearity asks for, or `None`.

    Raises:
      ValueError: it raises, or returns other shapes.
    """
    operator = Outputs(of, like, memory=memory)
    a, b = generator(key).normal(size=(2, len(units))) * units
    try:
        values = operator.at_points(np.stack([a, b, a + b, -a]))
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise ValueError(f"{called} raised {type(error).__name__}: {first}") from error
    shapes, wanted = [part.shape for part in operator.layout], [part.shape for part in layout]
    if shapes != wanted:
        raise ValueError(f"{called} must return {result}: arrays of shapes {wanted}, got {shapes}.")
    of_a, of_b, of_sum, of_minus = values
    size = np.abs(of_a).max(initial=0.0) + np.abs(of_b).max(initial=0.0)
    tolerance = max(LINEAR_TOLERANCE, 64 * operator.eps) * size
    for value, expected in ((of_sum, of_a + of_b), (of_minus, -of_a)):
        away = np.abs(value - expected)
        if (away > tolerance).any():
            i = int(np.argmax(np.where(np.isfinite(away), away, 0)))
            return operator, (i, float(value[i]), float(expected[i]))
    return operator, None


def action_rows(operator: Outputs, base: Outputs, *, transposed: bool = False) -> Rows:
    """The rows u^T J of a claim that is known by its products with u."""
    return Rows(operator.at_points, _narrow(operator, base), transposed)


def product_rows(operator: Outputs, base: Outputs) -> Rows:
    """The rows u^T J of a claim that is known by its products J v: one product per entry of x.

    Raises:
      ValueError: the whole matrix does not fit into the memory.
    """
    size = 8 * len(base.at) * len(base.x)
    if size > base.memory:
        raise ValueError(
            f"the claimed Jacobian has {len(base.at):,} x {len(base.x):,} entries, which take "
            f"{size / 2**30:.1f} GiB: raise `memory=`, or check fewer outputs or inputs at once."
        )
    matrix = operator.at_points(np.eye(len(base.x))).T
    return Rows(partial(_product, matrix), _narrow(operator, base))


def _narrow(operator: Outputs, base: Outputs) -> Callable | None:
    """The rounding of a rule that runs in less than float64."""
    eps = max(operator.eps, base.eps)
    if eps <= EPS:
        return None
    matrix = abs(operator.at_points(np.eye(len(operator.x))))
    matrix = matrix if matrix.shape == (len(base.at), len(base.x)) else matrix.T
    return lambda weights: 64 * eps * _largest(base, np.sqrt(weights**2 @ matrix**2))


def with_nonlinear(
    report: GradientReport,
    broken: Broken,
    *,
    path: str = "",
    index: tuple[int, ...] = (),
    output: str = "",
    output_index: tuple[int, ...] = (),
) -> GradientReport:
    """A derivative is linear in its direction: a rule that is not fails, whatever it returns."""
    _, value, wanted = broken
    entry = Entry(
        path, index, value, wanted, 0.0, wanted, wanted, False, output, output_index
    )  # fmt: skip
    note = (
        f"the rule is not linear: at {entry.name or 'x'} its value along a sum, or the opposite, "
        "of random directions is not the sum, or the opposite, of its values."
    )
    return report._replace(
        verdict="fail",
        entries=(entry, *report.entries) if report.verdict == "fail" else (entry,),
        wrong=report.wrong + 1,
        max_relative_error=max(
            report.max_relative_error, float(relative_error(value, wanted, 0.0))
        ),
        order=report.order if report.verdict == "fail" else None,
        notes=(*report.notes, note),
    )
