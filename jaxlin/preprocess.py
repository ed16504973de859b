"""Preprocessing: an affine map of every feature, fitted on the training examples alone.

    preprocessed = (inputs - shift) * scale

with statistics in float64, gathered in blocks so that a memory map larger than RAM is fine. The
kinds are the lecture's: "center" subtracts the mean image, "scale" brings every feature to
[-1, 1]; "standardize" also divides by the spread; "none" leaves the inputs alone.

The map is linear in the parameters' place as well: `fold` gives parameters that score raw inputs
as the original ones score preprocessed inputs, so that pixels stay uint8 in memory.
"""

__all__ = ["KINDS", "Preprocessing", "apply", "fit", "fold"]

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlin.core import LinearParams, RowSource
from jaxlin.precision import exact, jit
from jaxlin.prefetch import prefetch

AllReduce = Callable[[Any, str], Any]
"""`(values, how) -> values` of all processes, as `fit` describes it."""
KINDS = ("none", "scale", "center", "standardize")
_BLOCK_BYTES = 64 << 20  # of float64 numbers at a time
_CHUNK_ROWS = 500  # of those, that stay in cache


class Preprocessing(NamedTuple):
    """A fitted map (inputs - shift) * scale.

    >>> fitted = fit(np.array([[1.0, 0.0], [3.0, 4.0]]), "center")
    >>> fitted.kind, fitted.shift.tolist(), fitted.scale.tolist()
    ('center', [2.0, 2.0], [1.0, 1.0])
    """

    kind: str
    """One of `KINDS`; a name only, the numbers are below."""
    shift: ArrayLike
    """(D,) float64."""
    scale: ArrayLike
    """(D,) float64."""


def _alone(values: Any, how: str) -> Any:
    return values


def fit(inputs: RowSource, kind: str, *, all_reduce: AllReduce = _alone) -> Preprocessing:
    """Fit the map on training inputs.

    Args:
      inputs: (N, D), floating or integer, possibly a memory map.
      kind: "none"; "center" (shift = mean); "standardize" (also scale = 1 / standard deviation;
        a constant feature keeps scale 1); "scale" (to [-1, 1]: pixels, which are integers, all by
        one range from 0 to the largest of the training set; other inputs by each feature's own
        range, a constant feature going to 0).
      all_reduce: where each of several processes has some of the rows: `(values, how) -> values`,
        the "sum", "min" or "max" over all of them (`jaxlin.distributed.processes`).

    Raises:
      ValueError: `kind` is not one of `KINDS`, or squares of the inputs overflow.

    Source: the CS231n notes, "Image data preprocessing". The rule for constant features is
      scikit-learn's `StandardScaler`'s.

    >>> fit(np.array([[0, 10], [2, 10]]), "standardize").scale.tolist()
    [1.0, 1.0]
    """
    features = inputs.shape[1]
    zeros, ones = np.zeros(features), np.ones(features)
    if kind == "none":
        return Preprocessing(kind, zeros, ones)
    if kind == "center":
        return Preprocessing(kind, _mean(inputs, all_reduce), ones)
    if kind == "standardize":
        with np.errstate(over="ignore", invalid="ignore"):
            mean, variance = _moments(inputs, all_reduce)
        if not np.isfinite(variance).all():
            column = int(np.argmin(np.isfinite(variance)))
            raise ValueError(
                f"`inputs` are too large to standardize: the squares of column {column} overflow. "
                "Scale the features down."
            )
        # Rounding leaves a constant feature with a variance of about (eps * mean)^2.
        noise = 10 * np.finfo(np.float64).eps * np.abs(mean)
        noise *= np.sqrt(all_reduce(len(inputs), "sum"))
        constant = variance <= np.maximum(noise, 1e-150) ** 2
        return Preprocessing(kind, mean, 1 / np.sqrt(np.where(constant, 1.0, variance)))
    if kind == "scale":
        low, high = _range(inputs, all_reduce)
        if np.issubdtype(inputs.dtype, np.integer):
            low, high = zeros + min(0.0, low.min()), zeros + high.max()
        half = (high - low) / 2
        return Preprocessing(kind, (low + high) / 2, 1 / np.where(half == 0, 1.0, half))
    raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, got {kind!r}.")


def apply(preprocessing: Preprocessing, inputs: ArrayLike) -> Array:
    """Preprocessed inputs (..., D), floating (integers become the default float).

    >>> centered = fit(np.array([[0.0, 4.0], [2.0, 8.0]]), "center")
    >>> apply(centered, np.array([[1.0, 7.0]])).tolist()
    [[0.0, 1.0]]
    """
    inputs = jnp.asarray(inputs)
    dtype = jnp.result_type(inputs, jnp.float32)
    inputs = inputs.astype(dtype)
    shift, scale = (
        jnp.broadcast_to(jnp.asarray(part, dtype), inputs.shape) for part in preprocessing[1:]
    )
    return (inputs - shift) * scale


@exact
def fold(preprocessing: Preprocessing, params: LinearParams) -> LinearParams:
    """Parameters that score raw inputs as `params` score preprocessed ones.

    W (x - shift) * scale + b = (W * scale) x + (b - (W * scale) shift). Differentiable: the
    gradient in `params` is that of the preprocessed problem.

    >>> centered = fit(np.array([[0.0, 4.0], [2.0, 8.0]]), "center")
    >>> fold(centered, LinearParams(jnp.array([[1.0, 2.0]]), jnp.array([0.5]))).bias.tolist()
    [-12.5]
    """
    dtype = params.weights.dtype
    shift, scale = (jnp.asarray(part, dtype) for part in preprocessing[1:])
    weights = params.weights * jnp.broadcast_to(scale, params.weights.shape)
    return LinearParams(weights, params.bias - weights @ shift)


def _blocks(inputs: RowSource) -> Iterator[np.ndarray]:
    rows = max(1, _BLOCK_BYTES // (8 * max(1, inputs.shape[1])))
    starts = range(0, len(inputs), rows)
    yield from prefetch(lambda start: np.asarray(inputs[start : start + rows]), starts)


def _mean(inputs: RowSource, all_reduce: AllReduce) -> np.ndarray:
    total = sum(block.sum(axis=0, dtype=np.float64) for block in _blocks(inputs))
    return all_reduce(total, "sum") / all_reduce(len(inputs), "sum")


def _moments(inputs: RowSource, all_reduce: AllReduce) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square about it, from one pass over the rows.

    E[x^2] - mean^2 would cancel digits. Every chunk has its own mean, and squares are taken about
    that; the chunks are put together by the formula of Chan, Golub and LeVeque (1983, The American
    Statistician 37, 242-247). XLA goes through a chunk six times as fast as NumPy, above all
    where the numbers have 16 bits.
    """
    found = [_block_moments(block, len(block) < len(inputs)) for block in _blocks(inputs)]
    count, mean, squares = _together(*zip(*found, strict=True))
    if all_reduce is not _alone:
        total = all_reduce(count, "sum")
        own, mean = mean, all_reduce(count * mean, "sum") / total
        count, squares = total, all_reduce(squares + count * np.square(own - mean), "sum")
    return mean, squares / count


def _block_moments(block: np.ndarray, large: bool) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of rows, mean, and sum of squares about it, of one block."""
    whole = len(block) // _CHUNK_ROWS * _CHUNK_ROWS if large else 0
    parts = []
    if whole:
        with jax.enable_x64(True):
            means, squares = (np.asarray(part) for part in _chunk_moments(block[:whole]))
        parts.append(_together([_CHUNK_ROWS] * len(means), means, squares))
    if whole < len(block):
        rest = block[whole:].astype(np.float64)
        mean = rest.mean(axis=0)
        parts.append((len(rest), mean, np.square(rest - mean).sum(axis=0)))
    return _together(*zip(*parts, strict=True))


def _together(
    counts: Sequence[int],
    means: np.ndarray | Sequence[np.ndarray],
    squares: np.ndarray | Sequence[np.ndarray],
) -> tuple[int, np.ndarray, np.ndarray]:
    """The same of several sets of rows, of which each is known by the three."""
    count = sum(counts)
    shares = np.array(counts)[:, None] / count
    mean = (shares * np.array(means)).sum(axis=0)
    between = (shares * np.square(np.array(means) - mean)).sum(axis=0)
    return count, mean, np.sum(squares, axis=0) + count * between


@jit
def _chunk_moments(block: Array) -> tuple[Array, Array]:
    """Mean and sum of squares about it of every chunk of rows, float64 (chunks, D)."""

    def step(_: None, chunk: Array) -> tuple[None, tuple[Array, Array]]:
        chunk = chunk.astype(jnp.float64)
        mean = chunk.mean(axis=0)
        return None, (mean, jnp.square(chunk - mean[None, :]).sum(axis=0))

    return jax.lax.scan(step, None, block.reshape(-1, _CHUNK_ROWS, block.shape[1]))[1]


def _range(inputs: RowSource, all_reduce: AllReduce) -> tuple[np.ndarray, np.ndarray]:
    extremes = [
        (block.min(axis=0).astype(np.float64), block.max(axis=0).astype(np.float64))
        for block in _blocks(inputs)
    ]
    low, high = zip(*extremes, strict=True)
    return all_reduce(np.min(low, axis=0), "min"), all_reduce(np.max(high, axis=0), "max")
