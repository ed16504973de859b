"""Objectives: a score function, a loss and a regularizer become one number to minimize.

The weighted mean over examples lives here and nowhere else.
"""

__all__ = ["Objective", "compose", "gradient_in_parts", "weighted_mean"]

from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlin import regularizers
from jaxlin.core import Batch, LinearParams


class Objective(Protocol):
    """`objective(params, batch, *, strength=0.0) -> scalar`."""

    def __call__(
        self, params: LinearParams, batch: Batch, *, strength: ArrayLike = 0.0
    ) -> Array: ...


def weighted_mean(values: Array, weights: ArrayLike | None) -> Array:
    """sum(weights * values) / sum(weights) over the leading axis; the plain mean for `None`.

    >>> weighted_mean(jnp.array([1.0, 5.0]), jnp.array([3.0, 1.0])).item()
    2.0
    """
    if weights is None:
        return jnp.mean(values)
    weights = jnp.asarray(weights, values.dtype)
    if weights.shape != values.shape:
        raise ValueError(
            f"`weights` must have one entry per example, {values.shape}, got {weights.shape}."
        )
    return jnp.sum(weights * values) / jnp.sum(weights)


def compose(score, loss, regularizer=regularizers.l2) -> Objective:
    """The objective: weighted mean of `loss` over the examples + `strength * R(W)`.

    Args:
      score: `(params, inputs (N, D)) -> (N, K)`, such as `jaxlin.scores.linear`.
      loss: `(scores (N, K), labels (N,)) -> (N,)`, one of `jaxlin.losses`; another margin
        through `functools.partial(loss, margin=...)`.
      regularizer: `weights -> scalar`, one of `jaxlin.regularizers`. It sees `params.weights`
        only: the bias is free.

    Returns:
      `objective(params, batch, *, strength=0.0) -> scalar`, pure. `jax.grad` of it is the
      gradient in the parameters; through `batch.inputs` it is differentiable in the data.

    Source: the CS231n notes, "Linear Classification": L = mean of L_i + lambda R(W).

    >>> import jax
    >>> from jaxlin.losses import softmax_cross_entropy
    >>> from jaxlin.scores import linear
    >>> objective = compose(linear, softmax_cross_entropy)
    >>> batch = Batch(jnp.ones((4, 3)), jnp.array([0, 1, 1, 0]))
    >>> params = LinearParams(jnp.zeros((2, 3)), jnp.zeros(2))
    >>> objective(params, batch, strength=0.1).round(4).item()  # log 2
    0.6931...
    >>> jax.grad(objective)(params, batch).weights.shape
    (2, 3)
    """

    def objective(params: LinearParams, batch: Batch, *, strength: ArrayLike = 0.0) -> Array:
        values = loss(score(params, batch.inputs), jnp.asarray(batch.labels))
        data_loss = weighted_mean(values, batch.weights)
        return data_loss + jnp.asarray(strength, values.dtype) * regularizer(params.weights)

    return objective


def gradient_in_parts(objective, parts: int):
    """`jax.value_and_grad(objective)` of a batch that is looked at in `parts` parts.

    For a weighted mean over examples plus a term of the parameters: the mean of a batch is the
    mean of its parts' means, each by its share of the weights, and so is the gradient. Memory for
    scores and converted inputs shrinks by `parts`; the value differs by rounding alone.

    >>> from jaxlin.losses import softmax_cross_entropy
    >>> from jaxlin.scores import linear
    >>> batch = Batch(jnp.eye(3), jnp.array([0, 1, 1]), jnp.array([1.0, 2.0, 0.0]))
    >>> params = LinearParams(jnp.zeros((2, 3)), jnp.zeros(2))
    >>> value, _ = gradient_in_parts(compose(linear, softmax_cross_entropy), 2)(params, batch)
    >>> value.round(4).item()  # log 2
    0.6931...
    """
    whole = jax.value_and_grad(objective)
    if parts == 1:
        return whole

    def in_parts(params: LinearParams, batch: Batch):
        rows = batch.labels.shape[0]
        weights = jnp.ones(rows) if batch.weights is None else jnp.asarray(batch.weights)
        total = jnp.sum(weights)

        def cut(leaf):
            """(parts, n, ...): every `parts`-th row, so that rows stay on their devices."""
            missing = -rows % parts
            filled = jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))
            return jnp.moveaxis(filled.reshape(-1, parts, *leaf.shape[1:]), 1, 0)

        def step(found, part):
            weight = jnp.sum(part.weights)
            counted = jnp.where(weight > 0, part.weights, 1)  # a part of filling alone: no 0 / 0
            share = weight / total
            own = whole(params, part._replace(weights=counted))
            return jax.tree.map(lambda a, b: a + share.astype(b.dtype) * b, found, own), None

        zero = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(whole, params, batch)
        )
        cuts = Batch(*(cut(jnp.asarray(leaf)) for leaf in batch._replace(weights=weights)))
        return jax.lax.scan(step, zero, cuts)[0]

    return in_parts
