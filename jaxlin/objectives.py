"""Objectives: a score function, a loss and a regularizer become one number to minimize.

The weighted mean over examples lives here and nowhere else.
"""

__all__ = [
    "Objective",
    "compose",
    "gradient_in_parts",
    "weighted_mean",
    "without_absent",
    "without_label",
]

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlin import losses, regularizers
from jaxlin._dtypes import accumulator, widened
from jaxlin.core import Batch, LinearParams


class Objective(Protocol):
    """`objective(params, batch, *, strength=0.0) -> scalar`.

    >>> from jaxlin.scores import linear
    >>> objective: Objective = compose(linear, losses.softmax_cross_entropy)
    >>> params = LinearParams(jnp.zeros((2, 3)), jnp.zeros(2))
    >>> objective(params, Batch(jnp.ones((2, 3)), jnp.array([0, 1])), strength=0.1).item()
    0.6931...
    """

    def __call__(
        self, params: LinearParams, batch: Batch, *, strength: ArrayLike = 0.0
    ) -> Array: ...


def weighted_mean(values: Array, weights: ArrayLike | None) -> Array:
    r"""sum(weights * values) / sum(weights) over the leading axis; the plain mean for `None`.

    $$\frac{\sum_i c_i v_i}{\sum_i c_i}$$

    Where a weight is 0 the value is not there, even if it is infinite or NaN. Sums are in
    float32 for values of half precision, and so is the result.

    >>> weighted_mean(jnp.array([1.0, 5.0]), jnp.array([3.0, 1.0])).item()
    2.0
    >>> weighted_mean(jnp.array([1.0, jnp.nan]), jnp.array([1.0, 0.0])).item()
    1.0
    """
    values = widened(values)
    if weights is None:
        return jnp.mean(values)
    weights = jnp.asarray(weights, values.dtype)
    _check_one_each(weights, values.shape)
    return jnp.sum(weights * jnp.where(weights == 0, 0, values)) / jnp.sum(weights)


def without_absent(batch: Batch) -> Batch:
    """The batch with zeros in its rows of weight 0, so that nothing they hold is ever seen.

    A weight of 0 alone would not do: 0 times NaN is NaN, in the mean and in the gradient, and
    a label such as -1 names a class. Integer inputs stay as they are: they are always finite.

    >>> batch = Batch(jnp.array([[1.0], [jnp.nan]]), jnp.array([2, -1]), jnp.array([1.0, 0.0]))
    >>> cleaned = without_absent(batch)
    >>> cleaned.inputs.tolist(), cleaned.labels.tolist()
    ([[1.0], [0.0]], [2, 0])
    """
    if batch.weights is None:
        return batch
    inputs, labels = jnp.asarray(batch.inputs), jnp.asarray(batch.labels)
    absent = jnp.asarray(batch.weights) == 0
    _check_one_each(absent, labels.shape)
    if jnp.issubdtype(inputs.dtype, jnp.floating):
        inputs = jnp.where(absent.reshape(-1, *[1] * (inputs.ndim - 1)), 0, inputs)
    return Batch(inputs, jnp.where(absent, 0, labels), batch.weights)


def without_label(batch: Batch, label: int | None) -> Batch:
    """The batch with weight 0 wherever the label is `label`; unchanged for `None`.

    >>> without_label(Batch(jnp.ones((3, 2)), jnp.array([0, -1, 1])), -1).weights.tolist()
    [1.0, 0.0, 1.0]
    """
    if label is None:
        return batch
    known = jnp.asarray(batch.labels) != label
    weights = jnp.ones(known.shape) if batch.weights is None else jnp.asarray(batch.weights)
    return batch._replace(weights=jnp.where(known, weights, 0))


def compose(
    score: Callable[[LinearParams, Any], Array],
    loss: Callable[[Array, Array], Array],
    regularizer: Callable[[Array], Array] = regularizers.l2,
) -> Objective:
    r"""The objective: weighted mean of `loss` over the examples + `strength * R(W)`.

    $$L(W, b) = \frac{\sum_i c_i L_i}{\sum_i c_i} + \lambda R(W)$$

    Args:
      score: `(params, inputs (N, D)) -> (N, K)`, such as `jaxlin.scores.linear`.
      loss: `(scores (N, K), labels (N,)) -> (N,)`, one of `jaxlin.losses`; another margin
        through `functools.partial(loss, margin=...)`. Rows whose label is an `ignore_index` that
        is bound likewise count as rows of weight 0.
      regularizer: `weights -> scalar`, one of `jaxlin.regularizers`. It sees `params.weights`
        only: the bias is free.

    Returns:
      `objective(params, batch, *, strength=0.0) -> scalar`, pure. `jax.grad` of it is the
      gradient in the parameters; through `batch.inputs` it is differentiable in the data. Rows
      of weight 0 are not there, in the value and in every gradient, whatever they hold. With
      parameters of half precision the value is float32.

    Source: the CS231n notes, "Linear Classification": L = mean of L_i + lambda R(W).

    >>> import jax
    >>> from jaxlin.losses import softmax_cross_entropy
    >>> from jaxlin.scores import linear
    >>> objective = compose(linear, softmax_cross_entropy)
    >>> batch = Batch(jnp.ones((4, 3)), jnp.array([0, 1, 1, 0]))
    >>> params = LinearParams(jnp.zeros((2, 3)), jnp.zeros(2))
    >>> round(objective(params, batch, strength=0.1).item(), 4)  # log 2
    0.6931
    >>> jax.grad(objective)(params, batch).weights.shape
    (2, 3)
    """

    ignored = losses.ignored_label(loss)

    def objective(params: LinearParams, batch: Batch, *, strength: ArrayLike = 0.0) -> Array:
        batch = without_absent(without_label(batch, ignored))
        values = loss(score(params, batch.inputs), jnp.asarray(batch.labels))
        data_loss = weighted_mean(values, batch.weights)
        return data_loss + jnp.asarray(strength, data_loss.dtype) * regularizer(
            jnp.asarray(params.weights)
        )

    vars(objective)["ignored_label"] = ignored
    return objective


def gradient_in_parts(
    objective: Callable[..., Array], parts: int
) -> Callable[..., tuple[Array, Any]]:
    """`jax.value_and_grad(objective)` of a batch that is looked at in `parts` parts.

    For a weighted mean over examples plus a term of the parameters: the mean of a batch is the
    mean of its parts' means, each by its share of the weights, and so is the gradient. Memory for
    scores and converted inputs shrinks by `parts`; the value differs by rounding alone.

    >>> from jaxlin.losses import softmax_cross_entropy
    >>> from jaxlin.scores import linear
    >>> batch = Batch(jnp.eye(3), jnp.array([0, 1, 1]), jnp.array([1.0, 2.0, 0.0]))
    >>> params = LinearParams(jnp.zeros((2, 3)), jnp.zeros(2))
    >>> value, _ = gradient_in_parts(compose(linear, softmax_cross_entropy), 2)(params, batch)
    >>> round(value.item(), 4)  # log 2
    0.6931
    """
    whole = jax.value_and_grad(objective)
    if parts == 1:
        return whole
    ignored = _ignored_label(objective)

    def in_parts(params: LinearParams, batch: Batch) -> tuple[Array, LinearParams]:
        batch = without_label(batch, ignored)
        rows = batch.labels.shape[0]
        weights = jnp.ones(rows) if batch.weights is None else widened(batch.weights)
        total = jnp.sum(weights)

        def cut(leaf: Array) -> Array:
            """(parts, n, ...): every `parts`-th row, so that rows stay on their devices."""
            missing = -rows % parts
            filled = jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))
            return jnp.moveaxis(filled.reshape(-1, parts, *leaf.shape[1:]), 1, 0)

        def step(found: Any, part: Batch) -> tuple[Any, None]:
            part = without_absent(part)
            given = jnp.asarray(part.weights)
            weight = jnp.sum(given)
            counted = jnp.where(weight > 0, given, 1)  # a part of filling alone: no 0 / 0
            share = weight / total
            own = whole(params, part._replace(weights=counted))

            def add(sums: Array, values: Array) -> Array:
                added = share.astype(sums.dtype) * values.astype(sums.dtype)
                return sums + jnp.where(weight > 0, added, 0)

            return jax.tree.map(add, found, own), None

        shapes = jax.eval_shape(whole, params, batch)
        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, accumulator(leaf.dtype)), shapes)
        cuts = Batch(*(cut(jnp.asarray(leaf)) for leaf in batch._replace(weights=weights)))
        sums = jax.lax.scan(step, zero, cuts)[0]
        return jax.tree.map(lambda total, leaf: total.astype(leaf.dtype), sums, shapes)

    return in_parts


def _check_one_each(weights: Array, examples: tuple[int, ...]) -> None:
    if weights.shape != examples:
        raise ValueError(
            f"`weights` must have one entry per example, {examples}, got {weights.shape}."
        )


def _ignored_label(objective: Callable[..., Any]) -> int | None:
    """The label that an objective of `compose` leaves out of its mean."""
    while isinstance(objective, partial):
        objective = objective.func
    return getattr(objective, "ignored_label", None)
