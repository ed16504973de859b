"""Element-wise work on scores (K, N), block by block: nothing of their size is made on the way."""

__all__ = ["columnwise", "lifted", "moved"]

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlin.passes import ShardedRows
from jaxlin.passes.chunks import block_of
from jaxlin.precision import jit
from jaxlin.solvers.problem import Problem, runner


def columnwise(problem: Problem, f, by_row, *extra):
    """f(xp, form, *by_row, *extra), made block by block of rows.

    Args:
      f: its results' last axis is the rows'.
      by_row: arrays whose last axis is the rows', the first of them (K, N).
    """
    if problem.on_host:
        return f(np, problem.form, *by_row, *extra)
    if isinstance(problem.rows, ShardedRows):
        return runner(problem)(f, problem.form, *by_row, *extra)
    classes, size = by_row[0].shape
    chunk = problem.rows.blocks.columns(classes, size)
    return _columnwise(tuple(by_row), extra, f=f, form=problem.form, chunk=chunk)


@partial(jit, static_argnames=("f", "form", "chunk"))
def _columnwise(by_row, extra, *, f, form, chunk):
    size = by_row[0].shape[-1]

    def block(start):
        return f(jnp, form, *block_of(by_row, start, chunk), *extra)

    if chunk == size:
        return block(0)

    def step(made, i):
        start = jnp.minimum(i * chunk, size - chunk)

        def put(whole, part):
            return lax.dynamic_update_slice_in_dim(whole, part, start, axis=-1)

        return jax.tree.map(put, made, block(start)), None

    empty = jax.tree.map(
        lambda part: jnp.zeros((*part.shape[:-1], size), part.dtype), jax.eval_shape(block, 0)
    )
    return lax.scan(step, empty, jnp.arange(-(-size // chunk)))[0]


def moved(problem: Problem, scores, change, length):
    """scores + length * change; overwrites `scores` where they are XLA's."""
    length = np.asarray(length, problem.dtype)
    return scores + length * change if problem.on_host else _moved(scores, change, length)


def lifted(problem: Problem, scores, shift):
    """scores + shift (K,); overwrites `scores` where they are XLA's."""
    shift = np.asarray(shift, problem.dtype)[:, None]
    return scores + shift if problem.on_host else _lifted(scores, shift)


@partial(jit, donate_argnums=0)
def _moved(scores, change, length):
    return scores + length * change


@partial(jit, donate_argnums=0)
def _lifted(scores, shift):
    return scores + shift
