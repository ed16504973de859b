"""Compiled walks over rows in chunks: each is one program, on one device or one shard of many.

There are two ways to end where the chunks do not divide the rows. Where rows are read, the last
chunk overlaps the one before it, and the rows seen twice weigh 0 the second time, so that no copy
is padded and every chunk has one shape. Where the caller's function makes sums, the rest is a chunk
of its own.

`shift` is what rows are read less, (D,), in the dtype of the arithmetic; (0,) for nothing.
"""

__all__ = [
    "block_of",
    "evaluated",
    "fused",
    "largest_square",
    "mapped",
    "placed",
    "scores",
    "total",
    "transpose",
    "transpose_total",
]

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlin.precision import einsum, jit


def _chunks(
    rows: Array, chunk: int
) -> tuple[int, Callable[[Array], Array], Callable[[Array], Array]]:
    """How to walk: the number of chunks, and `read(i) -> (start, rows, fresh (R,) bool)`."""
    size = rows.shape[0]

    def start_of(i: Array) -> Array:
        return jnp.minimum(i * chunk, size - chunk)

    def fresh(i: Array) -> Array:
        return start_of(i) + jnp.arange(chunk) >= i * chunk

    return -(-size // chunk), start_of, fresh


def _read(rows: Array, start: Array | int, chunk: int, shift: Array) -> Array:
    block = lax.dynamic_slice_in_dim(rows, start, chunk).astype(shift.dtype)
    return block - shift[None, :] if len(shift) else block


@partial(jit, static_argnames=("rowwise", "chunk", "precision"))
def fused(
    weights: Array,
    bias: Array,
    shift: Array,
    rows: Array,
    labels: Array,
    counts: Array,
    extra: tuple[Any, ...],
    *,
    rowwise: Callable[..., Any],
    chunk: int,
    precision: str = "highest",
) -> Any:
    """The sums of `DeviceRows.fused`; `precision` is that of the products."""
    blocks, start_of, fresh = _chunks(rows, chunk)

    def step(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], Any]:
        start = start_of(i)
        block = _read(rows, start, chunk, shift)
        own = lax.dynamic_slice_in_dim(labels, start, chunk)
        count = lax.dynamic_slice_in_dim(counts, start, chunk, axis=-1)
        count = count * fresh(i).reshape((1,) * (counts.ndim - 1) + (chunk,))
        scores = einsum("kd,nd->kn", weights, block, precision) + bias[:, None]
        value, residuals = rowwise(jnp, scores, own, count, *extra)
        products = einsum("kn,nd->kd", residuals, block, precision)
        return (carry[0] + products, carry[1] + residuals.sum(1)), value

    zero = (jnp.zeros_like(weights), jnp.zeros_like(bias))
    (products, sums), values = lax.scan(step, zero, jnp.arange(blocks))
    return values, products, sums


@partial(jit, static_argnames="chunk")
def scores(weights: Array, bias: Array, shift: Array, rows: Array, *, chunk: int) -> Array:
    blocks, start_of, _ = _chunks(rows, chunk)

    def step(scores: Array, i: Array) -> tuple[Array, None]:
        block = _read(rows, start_of(i), chunk, shift)
        found = jnp.einsum("kd,nd->kn", weights, block) + bias[:, None]
        return lax.dynamic_update_slice(scores, found, (0, start_of(i))), None

    empty = jnp.zeros((weights.shape[0], rows.shape[0]), weights.dtype)
    return lax.scan(step, empty, jnp.arange(blocks))[0]


@partial(jit, static_argnames=("rowwise", "chunk", "kept"))
def evaluated(
    weights: Array,
    bias: Array,
    shift: Array,
    rows: Array,
    by_row: Sequence[Any],
    extra: tuple[Any, ...],
    *,
    rowwise: Callable[..., Any],
    chunk: int,
    kept: np.dtype[Any] | None,
) -> tuple[Array | None, Any]:
    """The scores and the sums of `DeviceRows.evaluated`."""
    size = rows.shape[0]
    whole = size // chunk

    def block(scores: Array | None, start: Array | int, length: int) -> tuple[Array | None, Any]:
        read = _read(rows, start, length, shift)
        found = jnp.einsum("kd,nd->kn", weights, read) + bias[:, None]
        if scores is not None:
            scores = lax.dynamic_update_slice(scores, found.astype(kept), (0, start))
        return scores, rowwise(jnp, found, *block_of(by_row, start, length), *extra)

    def step(carry: tuple[Array | None, Any], i: Array) -> tuple[tuple[Array | None, Any], None]:
        scores, more = block(carry[0], i * chunk, chunk)
        return (scores, jax.tree.map(jnp.add, carry[1], more)), None

    empty = None if kept is None else jnp.zeros((weights.shape[0], size), kept)
    rest = block(empty, whole * chunk, size - whole * chunk)
    return lax.scan(step, rest, jnp.arange(whole))[0]


@partial(jit, static_argnames="chunk")
def transpose(residuals: Array, shift: Array, rows: Array, *, chunk: int) -> tuple[Array, Array]:
    blocks, start_of, fresh = _chunks(rows, chunk)

    def step(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
        start = start_of(i)
        block = _read(rows, start, chunk, shift)
        found = lax.dynamic_slice_in_dim(residuals, start, chunk, axis=1) * fresh(i)[None, :]
        return (carry[0] + found @ block, carry[1] + found.sum(1)), None

    classes = residuals.shape[0]
    zero = (
        jnp.zeros((classes, rows.shape[1]), residuals.dtype),
        jnp.zeros(classes, residuals.dtype),
    )
    return lax.scan(step, zero, jnp.arange(blocks))[0]


@jit
def mapped(rows: Array, indices: Array, shift: Array, scale: Array) -> Array:
    chosen = rows.at[indices].get(mode="promise_in_bounds")
    return (chosen.astype(shift.dtype) - shift[None, :]) * scale[None, :]


@partial(jit, donate_argnums=0)
def placed(whole: Array, rows: Array, start: Array | int) -> Array:
    return lax.dynamic_update_slice_in_dim(whole, rows, start, axis=0)


def block_of(by_row: Sequence[Any], start: Array | int, length: int) -> tuple[Any, ...]:
    """The columns of a block; scalars as they are."""
    return tuple(
        lax.dynamic_slice_in_dim(a, start, length, axis=-1) if jnp.ndim(a) else a for a in by_row
    )


@partial(jit, static_argnames=("rowwise", "chunk"))
def total(
    by_row: Sequence[Any], extra: tuple[Any, ...], *, rowwise: Callable[..., Any], chunk: int
) -> Any:
    size = by_row[0].shape[-1]
    chunk = min(chunk, size)
    whole = size // chunk

    def step(sums: Any, i: Array) -> tuple[Any, None]:
        block = block_of(by_row, i * chunk, chunk)
        return jax.tree.map(jnp.add, sums, rowwise(jnp, *block, *extra)), None

    sums = rowwise(jnp, *block_of(by_row, whole * chunk, size - whole * chunk), *extra)
    return lax.scan(step, sums, jnp.arange(whole))[0]


@partial(jit, static_argnames=("rowwise", "chunk"))
def transpose_total(
    by_row: Sequence[Any],
    extra: tuple[Any, ...],
    shift: Array,
    rows: Array,
    *,
    rowwise: Callable[..., Any],
    chunk: int,
) -> tuple[Array, Array, Any]:
    size = rows.shape[0]
    whole = size // chunk

    def block(start: Array | int, length: int) -> tuple[Array, Array, Any]:
        read, blocks = _read(rows, start, length, shift), block_of(by_row, start, length)
        residuals, sums = rowwise(jnp, *blocks, *extra)
        return residuals @ read, residuals.sum(1), sums

    def step(carry: tuple[Array, Array, Any], i: Array) -> tuple[tuple[Array, Array, Any], None]:
        return jax.tree.map(jnp.add, carry, block(i * chunk, chunk)), None

    rest = block(whole * chunk, size - whole * chunk)
    return lax.scan(step, rest, jnp.arange(whole))[0]


@partial(jit, static_argnames="chunk")
def largest_square(rows: Array, shift: Array, squared_scale: Array, *, chunk: int) -> Array:
    blocks, start_of, _ = _chunks(rows, chunk)

    def step(largest: Array, i: Array) -> tuple[Array, None]:
        block = _read(rows, start_of(i), chunk, shift)
        return jnp.maximum(largest, block**2 @ squared_scale), None

    return lax.scan(step, jnp.zeros(chunk, squared_scale.dtype), jnp.arange(blocks))[0].max()
