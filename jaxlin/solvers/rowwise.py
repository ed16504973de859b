"""Functions of scores (K, N) row by row: where they run, what they are summed into, where they lie.

What such a function makes is never of the size of all scores unless it is asked for: sums are added
up and results put in place block by block of rows. Functions take the array module first, so that
each is written once, for NumPy and for programs; most take a `Block` of rows then.

`by_row` are the arrays of a block, scores (K, N), labels (N,), counts (N,) and anchor, and what
else there is by row; the numbers that follow them are its margin and its smoothing.
"""

__all__ = [
    "columnwise",
    "lifted",
    "moved",
    "rowwise",
    "runner",
    "summing",
    "to_host",
]

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlin.distributed.sharding import fetch
from jaxlin.passes import ShardedRows
from jaxlin.passes.chunks import block_of
from jaxlin.precision import jit
from jaxlin.solvers.dual_losses import Block, DualForm
from jaxlin.solvers.problem import Problem, examples_of


def runner(problem: Problem) -> Callable:
    """Runs functions of (xp, *arrays): in NumPy, or compiled where the rows are."""
    if problem.on_host:
        return lambda f, *arguments: f(np, *arguments)
    return lambda f, *arguments: _compiled(f)(*arguments)


def summing(
    problem: Problem, by_row: tuple[Any, ...], margin: float, smoothing: float
) -> Callable[..., Any]:
    """(f, *extra) -> f(xp, form, block, *extra) summed over the blocks, in NumPy arrays."""

    def sums(f: Callable[..., Any], *extra: Any) -> Any:
        inside = by_row, margin, smoothing, *extra
        return jax.tree.map(np.asarray, problem.rows.total(rowwise(f, problem.form), *inside))

    return sums


@cache
def rowwise(f: Callable[..., Any], form: DualForm, more: int = 0) -> Callable:
    """f(xp, form, block, *rest) as a function of (xp, *by_row, margin, smoothing, *extra).

    `more` arrays by row, beyond those of a block, come first in its rest, then what is extra.
    """

    def bound(xp: Any, scores: Any, labels: Any, counts: Any, anchor: Any, *rest: Any) -> Any:
        margin, smoothing, *extra = rest[more:]
        block = Block(scores, labels, counts, anchor, margin, smoothing)
        return f(xp, form, block, *rest[:more], *extra)

    return bound


@cache
def _compiled(f: Callable[..., Any]) -> Callable:
    return jit(partial(f, jnp))


def to_host(problem: Problem, values: Any) -> np.ndarray:
    """What `beside` placed, as an array of one's own, without the rows that fill up a mesh."""
    return np.array(fetch(values)[..., : examples_of(problem)])


def columnwise(problem: Problem, f: Callable[..., Any], by_row: Any, *extra: Any) -> Any:
    """f(xp, *by_row, *extra), made block by block of rows.

    Args:
      f: its results' last axis is the rows'.
      by_row: arrays whose last axis is the rows', the first of them (K, N).
    """
    if problem.on_host:
        return f(np, *by_row, *extra)
    if isinstance(problem.rows, ShardedRows):
        return runner(problem)(f, *by_row, *extra)
    classes, size = by_row[0].shape
    chunk = problem.rows.blocks.columns(classes, size)
    return _columnwise(tuple(by_row), extra, f=f, chunk=chunk)


@partial(jit, static_argnames=("f", "chunk"))
def _columnwise(by_row: Any, extra: Any, *, f: Callable[..., Any], chunk: int) -> Any:
    size = by_row[0].shape[-1]

    def block(start: Any) -> Any:
        return f(jnp, *block_of(by_row, start, chunk), *extra)

    if chunk == size:
        return block(0)

    def step(made: Any, i: Any) -> Any:
        start = jnp.minimum(i * chunk, size - chunk)

        def put(whole: Any, part: Any) -> Any:
            return lax.dynamic_update_slice_in_dim(whole, part, start, axis=-1)

        return jax.tree.map(put, made, block(start)), None

    empty = jax.tree.map(
        lambda part: jnp.zeros((*part.shape[:-1], size), part.dtype), jax.eval_shape(block, 0)
    )
    return lax.scan(step, empty, jnp.arange(-(-size // chunk)))[0]


def moved(problem: Problem, scores: Any, change: Any, length: float) -> Any:
    """scores + length * change; overwrites `scores` where they are XLA's."""
    step = np.asarray(length, problem.dtype)
    return scores + step * change if problem.on_host else _moved(scores, change, step)


def lifted(problem: Problem, scores: Any, shift: np.ndarray) -> Any:
    """scores + shift (K,); overwrites `scores` where they are XLA's."""
    shift = np.asarray(shift, problem.dtype)[:, None]
    return scores + shift if problem.on_host else _lifted(scores, shift)


@partial(jit, donate_argnums=0)
def _moved(scores: Any, change: Any, length: float) -> Array:
    return scores + length * change


@partial(jit, donate_argnums=0)
def _lifted(scores: Any, shift: np.ndarray) -> Array:
    return scores + shift
