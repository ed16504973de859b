"""Learning from rows that come in pieces: normalized adaptive gradient steps.

A step divides each coordinate of the gradient by the root of its summed squares (AdaGrad) and by
the largest value that its feature has taken, so that neither a step size nor a scaling of the
features has to be chosen; `RATE` 1/2 is the paper's default, whatever the data.

Source: Ross, Mineiro and Langford (2013), arXiv:1305.6646, algorithm 2 (NAG); Duchi, Hazan and
Singer (2011), JMLR 12, 2121-2159.
"""

__all__ = ["Stream", "absorb", "open_stream"]

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from sklearn.utils import check_random_state

from jaxlin import losses, objectives, scores
from jaxlin.core import Batch, DataError, LinearParams
from jaxlin.cpu_threads import check_not_forked
from jaxlin.precision import jit
from jaxlin.solvers.problem import norm_limit

ROWS = 64
"""Rows of one step. Fewer rows would waste products, more would take fewer steps per pass."""
RATE = 0.5
FAINT = 1e-200
"""Of the largest count: a block of smaller ones could be a step of 0 / 0, once XLA rounds to 0."""


class Stream(NamedTuple):
    """Parameters and what the steps so far have seen; NumPy float64, so it can be pickled."""

    weights: np.ndarray
    """(K, D)."""
    bias: np.ndarray
    """(K,)."""
    squares: LinearParams
    """Summed squares of the gradient, shaped like the parameters."""
    largest: np.ndarray | jax.Array
    """(D,): the largest absolute value of each feature."""
    occupancy: float | jax.Array
    """Sum over steps of the mean squared norm of the normalized rows, bias included."""
    total: float | jax.Array
    """Sum of the weights of all rows seen."""
    steps: int


def open_stream(classes: int, features: int, start: LinearParams | None = None) -> Stream:
    """A stream that has seen nothing, at zero or at `start`."""
    if start is None:
        start = LinearParams(np.zeros((classes, features)), np.zeros(classes))
    weights, bias = (np.asarray(part, np.float64) for part in start)
    zeros = LinearParams(np.zeros_like(weights), np.zeros_like(bias))
    return Stream(weights, bias, zeros, np.zeros(features), 0.0, 0.0, 0)


def absorb(
    stream: Stream,
    X: Any,
    labels: np.ndarray,
    counts: np.ndarray,
    *,
    loss: str,
    strength: float,
    fit_intercept: bool,
    random_state: Any,
) -> Stream:
    """One pass over the rows, in random order.

    Args:
      stream: what was learned before.
      X: (N, D) array, CSR matrix or JAX array.
      labels: (N,) integer, in [0, K).
      counts: (N,) nonnegative; where all are 0, nothing changes.
      loss: a name of `jaxlin.losses.LOSSES`.
      strength: of the squares of the weights.
      fit_intercept: `False` keeps the bias at 0.
      random_state: seed, `RandomState` or `None`, of the order of the rows.

    Raises:
      DataError: the squares of the rows overflow.
    """
    order = check_random_state(random_state).permutation(
        np.flatnonzero(counts > FAINT * counts.max())
    )
    if not len(order):
        return stream
    check_not_forked()
    mean = counts[order].mean()
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        block = X[rows]
        block = block.toarray() if scipy.sparse.issparse(block) else np.asarray(block)
        block = block.astype(np.float64)
        with np.errstate(over="ignore"):
            largest = np.linalg.norm(block, axis=1).max()
        if not largest < norm_limit(np.float64):  # steps would be 0 or no numbers
            raise DataError(
                "`X` holds numbers whose squares overflow in float64. Scale the features, for "
                "example with StandardScaler."
            )
        padding = ROWS - len(rows)
        block = np.pad(block, ((0, padding), (0, 0)))
        batch = Batch(block, np.pad(labels[rows], (0, padding)), np.pad(counts[rows], (0, padding)))
        with jax.enable_x64(True):
            stream = _step(stream, batch, strength, mean, loss, bool(fit_intercept))
    return jax.tree.map(_on_host, stream)


def _on_host(leaf: Any) -> Any:
    return leaf if isinstance(leaf, (int, float)) else _plain(np.array(leaf))


def _plain(array: np.ndarray) -> Any:
    return array.item() if array.ndim == 0 else array


@partial(jit, static_argnames=("loss", "fit_intercept"))
def _step(
    stream: Stream, batch: Batch, strength: float, mean: float, loss: str, fit_intercept: bool
) -> Stream:
    inputs, counts = jnp.asarray(batch.inputs), jnp.asarray(batch.weights)
    share = counts.sum() / (mean * ROWS)  # a block of few or light rows is a smaller step
    largest = jnp.maximum(stream.largest, jnp.abs(inputs).max(0))
    divisor = jnp.where(largest > 0, largest, 1.0)
    weights = stream.weights * (stream.largest / divisor)[None, :]
    normalized = ((inputs / divisor[None, :]) ** 2).sum(1) + fit_intercept
    occupancy = stream.occupancy + share * (counts * normalized).sum() / counts.sum()
    steps = stream.total / (mean * ROWS) + share

    objective = objectives.compose(scores.linear, losses.LOSSES[loss])
    gradient = jax.grad(objective)(LinearParams(weights, stream.bias), batch, strength=strength)
    squares = jax.tree.map(lambda total, g: total + share * g**2, stream.squares, gradient)
    rate = RATE * share * jnp.sqrt(steps / occupancy)
    move = jax.tree.map(
        lambda g, total: rate * g / jnp.sqrt(jnp.where(total > 0, total, 1.0)), gradient, squares
    )
    bias = stream.bias - move.bias if fit_intercept else stream.bias
    return Stream(
        weights - move.weights / divisor[None, :],
        bias,
        squares,
        largest,
        occupancy,
        stream.total + counts.sum(),
        stream.steps + 1,
    )
