"""Slices over linear scores: three products for a whole plane, then element-wise work.

Scores are affine in the steps, s(a, b) = s0 + a s1 + b s2, so the inputs are read once, whatever
the number of points. What is left for each example, class and point is done in blocks that stay
in the cache (`jaxlin.landscape._kernels`): one multiplication and a maximum for a hinge, less
for softmax. Equal to the generic slices to rounding.
"""

__all__ = ["affine_plane", "affine_ray"]

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import DTypeLike

from jaxlin._dtypes import accumulator
from jaxlin.blocks import blocks_on
from jaxlin.core import LinearParams
from jaxlin.landscape import _kernels, _trees
from jaxlin.landscape._scores import Scaling, SliceData, in_units, open_slice, place
from jaxlin.landscape.slices import check_slice, warn_nonfinite
from jaxlin.platforms import with_float64

_QUANTITIES = ("loss", "accuracy", "losses")
_PENDING = 4  # chunks under way at once on each device
_TERMS_A_SECOND = 2e8  # element-wise terms of the slowest kernel; for the estimate only
_LONG = 600.0  # seconds


def affine_ray(
    params: LinearParams,
    direction: Any,
    steps: ArrayLike,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    loss: Callable,
    strength: ArrayLike = 0.0,
    preprocessing: Scaling | None = None,
    quantity: str = "loss",
    devices: list | None = None,
) -> Array | np.ndarray:
    """L(params + a * direction) of linear scores for every a in `steps`.

    Args:
      params: weights (K, D) and bias (K,); half precision is read as float32, and the values are
        float32.
      direction: a `Direction` or `LinearParams`.
      steps: (T,).
      inputs: (N, D), floating or uint8 (raw 0..255), in memory, on a device or memory-mapped:
        they are read once, in chunks.
      labels: (N,), integer, in [0, K).
      loss: `(scores (N, K), labels (N,)) -> (N,)`, a function of `jaxlin.losses` or one's own;
        another margin through `functools.partial(loss, margin=...)`.
      strength: of the l2 term on the weights, exact: a quadratic in the steps.
      preprocessing: fitted statistics with `shift` and `scale`, (x - shift) * scale. Without
        them the inputs are used as they are.
      quantity: `loss`, the mean over the examples + the l2 term; `accuracy`, the share of
        examples whose first largest score is the label's; `losses`, one value per example.
      devices: where the chunks go in turn; all local devices by default.

    Returns:
      (T,); for `losses` (N, T), as a NumPy array.

    Raises:
      ValueError: as `jaxlin.landscape.ray`; labels outside [0, K), no examples, or per-example
        losses that would not fit in memory.
      TypeError: as `jaxlin.landscape.ray`; labels that are not integers, or `params` that are
        not (weights, bias).

    Warns:
      RuntimeWarning: cells that are not finite, with their count; an estimate of the time where
        it is long.

    >>> from jaxlin.losses import weston_watkins_hinge
    >>> params = LinearParams(jnp.zeros((2, 1)), jnp.zeros(2))
    >>> direction = LinearParams(jnp.array([[1.0], [0.0]]), jnp.zeros(2))
    >>> steps = [0.0, 0.5, 2.0]
    >>> X, y = np.ones((1, 1)), np.array([0])
    >>> affine_ray(params, direction, steps, X, y, loss=weston_watkins_hinge).tolist()
    [1.0, 0.5, 0.0]
    """
    settings = (loss, strength, preprocessing, quantity, devices)
    return _slice(params, [direction], [steps], inputs, labels, *settings)


def affine_plane(
    params: LinearParams,
    first: Any,
    second: Any,
    steps_1: ArrayLike,
    steps_2: ArrayLike,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    loss: Callable,
    strength: ArrayLike = 0.0,
    preprocessing: Scaling | None = None,
    quantity: str = "loss",
    devices: list | None = None,
) -> Array | np.ndarray:
    """L(params + a * first + b * second) of linear scores on a grid of a and b.

    Arguments, errors and warnings are those of `affine_ray`; parallel directions raise
    ValueError too. Softmax takes one exponential for each example, class and step of each axis,
    not of each point: exp(s0 + a s1 + b s2) = exp(s0 + a s1) exp(b s2). Where scores are so large
    that this would leave the range of the floating type, the second axis is taken in pieces,
    down to single steps, block by block.

    Returns:
      (T1, T2): row i belongs to `steps_1[i]`, column j to `steps_2[j]`; for `losses`
      (N, T1, T2), as a NumPy array.

    >>> from jaxlin.losses import softmax_cross_entropy
    >>> params = LinearParams(jnp.zeros((2, 1)), jnp.zeros(2))
    >>> e1, e2 = (LinearParams(w, jnp.zeros(2)) for w in jnp.eye(2)[:, :, None])
    >>> X, y = np.ones((1, 1)), np.array([0])
    >>> affine_plane(params, e1, e2, [0.0], [0.0, 9.0], X, y, loss=softmax_cross_entropy).round(4)
    Array([[0.6931, 9.0001]], dtype=...)
    """
    settings = (loss, strength, preprocessing, quantity, devices)
    return _slice(params, [first, second], [steps_1, steps_2], inputs, labels, *settings)


def _slice(
    params: LinearParams,
    directions: list[Any],
    steps: list[ArrayLike],
    inputs: ArrayLike,
    labels: ArrayLike,
    loss: Callable,
    strength: ArrayLike,
    preprocessing: Scaling | None,
    quantity: str,
    devices: list | None,
) -> Array | np.ndarray:
    if quantity not in _QUANTITIES:
        raise ValueError(f"`quantity` must be one of {', '.join(_QUANTITIES)}, got {quantity!r}.")
    trees, at = check_slice(params, directions, steps)
    dtype = accumulator(jnp.result_type(*jax.tree.leaves(params)))
    data, units = in_units(open_slice(params, trees, inputs, labels, preprocessing), dtype)
    shape = tuple(len(s) for s in at)
    _say_what_it_takes(len(data.labels), data.bias.shape[1], shape, quantity, dtype.itemsize)
    grids = [jnp.asarray(unit * s, dtype) for unit, s in zip(units, at, strict=True)]
    grids += [jnp.zeros(1, dtype)] * (2 - len(grids))
    devices = devices or jax.local_devices()
    if dtype == np.float64:
        devices = list(dict.fromkeys(map(with_float64, devices)))
    if quantity == "losses":
        values = _per_example(data, grids, loss, devices, dtype).reshape(-1, *shape)
        warn_nonfinite(values, start=params)
        return values
    points = blocks_on(devices[0]).points
    kernel = _kernels.choose(loss, quantity, data.bias.shape[1], points)
    values = (_sums(data, grids, kernel, devices) / len(data.labels)).reshape(shape)
    if quantity == "loss":
        values = values + _penalty(params, trees, at, float(np.asarray(strength)))
    warn_nonfinite(values, start=params)
    return jnp.asarray(values, dtype)


def _sums(
    data: SliceData, grids: list[Array], kernel: _kernels.Kernel, devices: list
) -> np.ndarray:
    """Sums over the examples, (T1, T2); the chunks' float32 sums are added up in float64."""
    block, rows = _kernels.block_sizes(data, [len(g) for g in grids], blocks_on(devices[0]))
    total = np.zeros([len(g) for g in grids])
    for part, _ in _run(partial(_kernels.chunk_sums, kernel, block), data, grids, rows, devices):
        total += part
    return total


def _per_example(
    data: SliceData, grids: list[Array], loss: Callable, devices: list, dtype: DTypeLike
) -> np.ndarray:
    block, rows = _kernels.block_sizes(data, [len(g) for g in grids], blocks_on(devices[0]))
    values = np.empty((len(data.labels), len(grids[0]), len(grids[1])), dtype)
    start = 0
    run = partial(_kernels.chunk_losses, loss, block, blocks_on(devices[0]).points)
    for part, count in _run(run, data, grids, rows, devices):
        values[start : start + count] = part[:count]
        start += count
    return values


def _run(
    run: Callable[..., Array], data: SliceData, grids: list[Array], rows: int, devices: list
) -> Iterator[tuple[np.ndarray, int]]:
    """Results of the chunks in order, a few of them under way at once on each device."""
    maps = [(device, place(data, device), jax.device_put(grids, device)) for device in devices]
    pending: deque[tuple[Array, int]] = deque()
    for i, (inputs, labels, count) in enumerate(data.chunks(rows)):
        device, linear_maps, steps = maps[i % len(maps)]
        inputs, labels = jax.device_put((inputs, labels), device)
        pending.append((run(linear_maps, inputs, labels, count, *steps), count))
        if len(pending) >= _PENDING * len(maps):
            part, done = pending.popleft()
            yield np.asarray(part), done
    for part, done in pending:
        yield np.asarray(part), done


def _penalty(
    params: LinearParams, trees: list[Any], steps: list[np.ndarray], strength: float
) -> np.ndarray | float:
    """strength * |W + a W1 + b W2|^2 on the grid, exactly: inner products in float64."""
    if strength == 0:
        return 0.0
    matrices = [params[0], *(tree[0] for tree in trees)]
    gram = np.array([[_trees.inner(u, v) for v in matrices] for u in matrices])
    mesh = np.meshgrid(*steps, indexing="ij")
    coefficients = np.stack([np.ones_like(mesh[0]), *mesh])
    return strength * np.einsum("i...,ij,j...->...", coefficients, gram, coefficients)


def _say_what_it_takes(
    examples: int, classes: int, shape: tuple[int, ...], quantity: str, itemsize: int
) -> None:
    """Refuse what cannot be held, and say how long it takes what takes long."""
    points = int(np.prod(shape))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if quantity == "losses" and examples * points * itemsize > 0.5 * memory:
        raise ValueError(
            f"One loss per example and point takes {examples * points * itemsize / 2**30:.1f} GiB "
            f"and this machine has {memory / 2**30:.0f} GiB. Ask for fewer points or examples."
        )
    seconds = examples * classes * points / _TERMS_A_SECOND
    if seconds > _LONG:
        warnings.warn(
            f"{examples:,} examples x {classes} classes x {points:,} points take about "
            f"{seconds / 60:.0f} minutes. Fewer points or examples take proportionally less.",
            RuntimeWarning,
            stacklevel=4,
        )
