"""Scores along a slice: one product for the point and its directions, in chunks of rows.

Linear scores are affine in the steps, s(a, b) = s0 + a s1 + b s2, and s0, s1, s2 are the scores
of the point and of its directions: one product with the stacked weights gives all three.
"""

__all__ = ["Scaling", "SliceData", "in_units", "open_slice", "place", "products"]

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import DTypeLike

from jaxlin._checks import check_linear
from jaxlin.core import LinearParams, RowSource


class Scaling(Protocol):
    """A map (inputs - shift) * scale, as `jaxlin.preprocess.Preprocessing` is one."""

    @property
    def shift(self) -> ArrayLike: ...

    @property
    def scale(self) -> ArrayLike: ...


class SliceData(NamedTuple):
    """The stacked linear maps of a slice, and the rows they meet."""

    weights: np.ndarray
    """(m, K, D): the point, then its directions, in the units of the raw inputs."""
    bias: np.ndarray
    """(m, K)."""
    shift: np.ndarray | None
    """(D,), subtracted from floating inputs before the product; `None` where folded in."""
    inputs: RowSource
    """(N, D), in memory, on a device or memory-mapped."""
    labels: np.ndarray | jax.Array
    """(N,) int32."""

    def chunks(self, rows: int) -> Iterator[tuple]:
        """(inputs, labels, count) of `rows` rows each; the last is filled up with zeros."""
        for start in range(0, len(self.labels), rows):
            block, labels = self.inputs[start : start + rows], self.labels[start : start + rows]
            if not isinstance(block, jax.Array):
                block = np.asarray(block)
            count, missing = len(labels), rows - len(labels)
            if missing:
                xp = jnp if isinstance(block, jax.Array) else np
                block = xp.concatenate([block, xp.zeros((missing, block.shape[1]), block.dtype)])
                labels = np.concatenate([labels, np.zeros(missing, np.int32)])
            yield block, labels, count


def open_slice(
    params: Any, trees: list[Any], inputs: Any, labels: Any, preprocessing: Scaling | None
) -> SliceData:
    """Check the arrays of an affine slice and stack its linear maps in float64.

    Raises:
      TypeError: `params` is not (weights, bias), or labels are not integers.
      ValueError: shapes that do not fit, no examples, or a label outside [0, K).
    """
    points = [_as_linear(tree) for tree in (params, *trees)]
    if not hasattr(inputs, "shape"):
        inputs = np.asarray(inputs)
    labels = np.asarray(labels)
    for point in points:
        check_linear(*point, inputs)
    classes = len(points[0].bias)
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"`labels` must be integer classes, got {labels.dtype}. "
            "Turn one-hot labels into classes with `labels.argmax(-1)`."
        )
    if len(inputs.shape) != 2 or labels.shape != inputs.shape[:1] or not labels.size:
        raise ValueError(
            f"`inputs` must be (N, D) and `labels` (N,) with N >= 1, got {inputs.shape} and "
            f"{labels.shape}."
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise ValueError(
            f"`labels` must lie in [0, {classes}), got {labels[wrong[0]]} at row {wrong[0]}."
        )
    weights = np.stack([np.asarray(point.weights, np.float64) for point in points])
    bias = np.stack([np.asarray(point.bias, np.float64) for point in points])
    shift = None
    if preprocessing is not None:  # (x - shift) * scale moves into the linear maps
        weights = weights * np.asarray(preprocessing.scale, np.float64)
        shift = np.asarray(preprocessing.shift, np.float64)
        if np.dtype(inputs.dtype).kind in "iu":
            bias, shift = bias - weights @ shift, None
        # else stays apart: a mean that is large against the spread would cancel digits
    return SliceData(weights, bias, shift, inputs, labels.astype("i4"))


def in_units(data: SliceData, dtype: DTypeLike) -> tuple[SliceData, np.ndarray]:
    """The maps in `dtype`, with directions of about unit size, and what steps grow by, (m - 1,).

    A long direction's scores may overflow although a short step along it does not. Units are
    powers of two, so that nothing is rounded.
    """
    sizes = np.maximum(np.abs(data.weights).max((1, 2), initial=0), np.abs(data.bias).max(1))
    _, exponents = np.frexp(np.where(np.isfinite(sizes), sizes, 0))
    exponents[0] = 0
    weights = np.ldexp(data.weights, -exponents[:, None, None]).astype(dtype)
    bias = np.ldexp(data.bias, -exponents[:, None]).astype(dtype)
    shift = None if data.shift is None else data.shift.astype(dtype)
    units = np.ldexp(1.0, exponents[1:])
    return data._replace(weights=weights, bias=bias, shift=shift), units


def _as_linear(tree: Any) -> LinearParams:
    try:
        weights, bias = tree
    except (TypeError, ValueError):
        raise TypeError(
            "The affine path needs `LinearParams(weights, bias)`; slice other trees with "
            "`jaxlin.landscape.plane`."
        ) from None
    return LinearParams(np.asarray(weights), np.asarray(bias))


def place(data: SliceData, device: jax.Device) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The linear maps on a device: weights (m * K, D), bias (m, K), shift (D,) or `None`."""
    stacked = data.weights.reshape(-1, data.weights.shape[-1])
    return jax.device_put((stacked, data.bias, data.shift), device)


def products(maps: tuple[jax.Array, jax.Array, jax.Array | None], inputs: jax.Array) -> jax.Array:
    """Scores (rows, m * K) of one chunk, inside a compiled program."""
    weights, bias, shift = maps
    inputs = jnp.asarray(inputs).astype(weights.dtype)
    if shift is not None:
        inputs = inputs - jnp.broadcast_to(shift, inputs.shape)
    scores = inputs @ weights.T
    return scores + jnp.broadcast_to(bias.ravel(), scores.shape)
