"""Linear objectives as one callable that knows what it is made of.

A closure over `jaxlin.objectives.compose` is a black box: differences of it need a whole
evaluation per displaced entry. `linear_objective` builds the same function of the parameters and
keeps loss, data and regularizer readable, which buys three things: differences in O(N) per entry
(`structured`), memory that does not grow with N, and the count of margins that lie on a kink.
"""

__all__ = ["LinearObjective", "MarginCount", "linear_objective", "margins_near_zero"]

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlin import losses, regularizers
from jaxlin._checks import check_label_range
from jaxlin._dtypes import widened
from jaxlin.core import Batch, LinearParams
from jaxlin.objectives import without_absent
from jaxlin.precision import float64, jit
from jaxlin.scores import linear

Params = LinearParams | Array | np.ndarray
"""Weights and bias, or one matrix (K, D)."""

ROWS = 1024  # examples in memory as floats at a time

HINGES = {
    losses.weston_watkins_hinge: "pairs",
    losses.squared_weston_watkins_hinge: "pairs",
    losses.crammer_singer_hinge: "pairs",
    losses.squared_crammer_singer_hinge: "pairs",
    losses.one_vs_rest_hinge: "all",
    losses.squared_one_vs_rest_hinge: "all",
}


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["inputs", "labels", "weights", "strength"],
    meta_fields=["loss", "regularizer"],
)
@dataclass(frozen=True, eq=False)
class LinearObjective:
    """`params -> weighted mean of loss(scores) + strength * regularizer(weights)`, pure.

    `params` is a `LinearParams`, or one matrix (K, D) whose last column may be the bias trick's
    (then the regularizer sees that column too, as in the lecture's exercise). The rows are
    visited in blocks, whose intermediate results are computed again for the gradient: neither
    needs more memory than a block. It is a pytree of its data, so that programs compiled for one
    objective serve all of the same shapes.

    >>> from jaxlin.losses import softmax_cross_entropy
    >>> f = linear_objective(softmax_cross_entropy, Batch(np.ones((4, 3)), np.array([0, 1, 1, 0])))
    >>> f.examples, float(f(jnp.zeros((2, 3))))
    (4, 0.6931...)
    """

    loss: Callable[..., Array]
    inputs: Array
    labels: Array
    weights: Array | None
    strength: float
    regularizer: Callable[[Array], Array]

    def __call__(self, params: Params) -> Array:
        matrix = weights_of(params)
        check_label_range(self.labels, matrix.shape[0], weights=self.weights)
        total, norm = self._sums(params)
        strength = jnp.asarray(self.strength, total.dtype)
        return total / norm + strength * self.regularizer(jnp.asarray(matrix))

    @property
    def examples(self) -> int:
        return self.inputs.shape[0]

    def block(self, start: ArrayLike, size: int) -> tuple[Array, Array, Array]:
        """Rows `start` to `start + size` (which may be traced): inputs, labels, weights."""
        rows = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=size)
        inputs = rows(self.inputs)
        inputs = inputs.astype(jax.dtypes.canonicalize_dtype(inputs.dtype))  # float64 if it is on
        if self.weights is None:
            return inputs, rows(self.labels), jnp.ones(size)
        batch = without_absent(Batch(inputs, rows(self.labels), rows(self.weights)))
        return jnp.asarray(batch.inputs), jnp.asarray(batch.labels), jnp.asarray(batch.weights)

    def _sums(self, params: Params) -> tuple[Array, Array]:
        size = min(ROWS, self.examples)
        params = jax.tree.map(widened, params)  # the blocks' gradients are summed in their dtype

        @jax.checkpoint
        def of_block(first: ArrayLike) -> tuple[Array, Array]:
            start = jnp.minimum(first, self.examples - size)  # the last block overlaps: mask it
            inputs, labels, weights = self.block(start, size)
            values = widened(self.loss(scores_of(params, inputs), labels))
            weights = jnp.where(start + jnp.arange(size) >= first, weights, 0).astype(values.dtype)
            return jnp.sum(weights * jnp.where(weights == 0, 0, values)), jnp.sum(weights)

        if size == self.examples:
            return of_block(0)
        sums, norms = jax.lax.map(of_block, jnp.arange(0, self.examples, size))
        return jnp.sum(sums), jnp.sum(norms)


def linear_objective(
    loss: Callable[..., Array],
    batch: Batch,
    *,
    strength: float = 0.0,
    regularizer: Callable[[Array], Array] = regularizers.l2,
) -> LinearObjective:
    """The objective of a linear classifier on fixed data, as a function of the parameters.

    Args:
      loss: `(scores (N, K), labels (N,)) -> (N,)`, one of `jaxlin.losses` or one's own; another
        margin through `functools.partial(loss, margin=...)`.
      batch: inputs (N, D), floating or uint8, labels (N,) and optional weights (N,).
      strength: of the regularizer.
      regularizer: `weights -> scalar`, one of `jaxlin.regularizers`.

    Returns:
      A pure function of `LinearParams` or of one matrix (K, D), equal to
      `compose(linear, loss, regularizer)` with the batch closed over. Examples of weight 0, and
      those with a label that the loss ignores, are dropped. Sums are in float32 for parameters
      of half precision, and so is the value.

    Raises:
      ValueError: the shapes do not fit, the batch is empty, or a label that counts is negative;
        and, once K is known, when the objective is evaluated: a label is K or more.

    >>> from jaxlin.losses import softmax_cross_entropy
    >>> batch = Batch(np.ones((4, 3)), np.array([0, 1, 1, 0]))
    >>> f = linear_objective(softmax_cross_entropy, batch)
    >>> round(float(f(jnp.zeros((2, 3)))), 4)  # log 2
    0.6931
    """
    inputs, labels, weights = batch
    inputs, labels = np.asarray(inputs), np.asarray(labels)
    if inputs.ndim != 2 or labels.shape != inputs.shape[:1]:
        raise ValueError(
            f"`batch` must hold inputs (N, D) and labels (N,), got {inputs.shape} and "
            f"{labels.shape}. Flatten images first."
        )
    ignored = losses.ignored_label(loss)
    present = np.ones(len(labels), bool) if ignored is None else labels != ignored
    if weights is not None and not isinstance(weights, jax.core.Tracer):
        weights = np.asarray(weights)
        if weights.shape != labels.shape:
            raise ValueError(
                f"`batch.weights` must have one entry per example, {labels.shape}, got "
                f"{weights.shape}."
            )
        present &= weights != 0
    if not present.any():
        raise ValueError(
            "`batch` is empty, or all its examples have weight 0: the mean loss of no examples is "
            "undefined."
        )
    if not present.all():
        inputs, labels = inputs[present], labels[present]
        weights = None if weights is None else weights[present]
    if np.issubdtype(labels.dtype, np.integer):  # other labels are refused by the loss
        check_label_range(labels, None, weights=weights)
        narrow = labels.astype(np.int32)
        labels = narrow if (narrow == labels).all() else labels
    with float64():  # keep float64 data as they are, whatever the caller's setting
        rows = jnp.asarray(inputs), jnp.asarray(labels)
        counts = None if weights is None else jnp.asarray(weights)
    return LinearObjective(loss, *rows, counts, float(strength), regularizer)


def scores_of(params: Params, inputs: ArrayLike) -> Array:
    if isinstance(params, LinearParams):
        return linear(params, inputs)
    return linear(LinearParams(params, jnp.zeros(params.shape[0], params.dtype)), inputs)


def weights_of(params: Params) -> Array | np.ndarray:
    return params.weights if isinstance(params, LinearParams) else params


def unwrap(loss: Callable[..., Array]) -> tuple[Any, float]:
    """A loss and its margin, looking through `functools.partial`."""
    margin = 1.0
    while isinstance(loss, functools.partial):
        if loss.args or set(loss.keywords) - {"margin"}:
            return loss, margin
        margin = float(loss.keywords.get("margin", margin))
        loss = loss.func
    return loss, margin


class MarginCount(NamedTuple):
    """How many of a hinge's arguments lie where a displacement can carry them over the kink.

    >>> from jaxlin.losses import weston_watkins_hinge
    >>> f = linear_objective(weston_watkins_hinge, Batch(np.ones((4, 3)), np.array([0, 1, 1, 0])))
    >>> margins_near_zero(f, jnp.zeros((2, 3)), 1e-6)  # all lie at the margin of 1
    MarginCount(near=0, total=4, reach=1e-06)
    """

    near: int
    """Arguments of max(0, .) within `reach` of zero."""
    total: int
    """N * (K - 1), or N * K for one-vs-rest."""
    reach: float
    """A step times the largest input: the most that one displaced entry moves a score."""


def margins_near_zero(
    objective: LinearObjective, params: Params, step: float
) -> MarginCount | None:
    """Count the margins within reach of zero; `None` where the loss has no hinge.

    >>> from jaxlin.losses import weston_watkins_hinge
    >>> hinge = functools.partial(weston_watkins_hinge, margin=0)
    >>> f = linear_objective(hinge, Batch(np.ones((4, 3)), np.array([0, 1, 1, 0])))
    >>> margins_near_zero(f, jnp.zeros((2, 3)), 1e-6)[:2]  # all scores tie
    (4, 4)
    """
    loss, margin = unwrap(objective.loss)
    kind = HINGES.get(loss)
    if kind is None:
        return None
    inputs, labels = objective.inputs, objective.labels
    largest = float(jnp.max(jnp.abs(inputs.astype(jnp.float32))))
    reach = step * max(largest, 1.0)

    with float64():
        params = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), params)

        near = sum(
            int(_near_zero(params, inputs[rows], labels[rows], margin, reach, kind=kind))
            for rows in (slice(i, i + ROWS) for i in range(0, objective.examples, ROWS))
        )
    classes = weights_of(params).shape[0]
    return MarginCount(near, objective.examples * (classes - (kind == "pairs")), reach)


@functools.partial(jit, static_argnames="kind")
def _near_zero(
    params: Params,
    inputs: Array,
    labels: Array,
    margin: ArrayLike,
    reach: ArrayLike,
    *,
    kind: str,
) -> Array:
    """How many arguments of a hinge's maxima are within `reach` of zero, on these rows."""
    scores = scores_of(params, inputs)
    is_label = jax.nn.one_hot(labels, scores.shape[-1], dtype=bool)
    own = jnp.take_along_axis(scores, labels[:, None], axis=1)
    if kind == "all":
        gaps = margin + jnp.where(is_label, -scores, scores)
    else:
        gaps = jnp.where(is_label, jnp.inf, scores - own + margin)
    return jnp.sum(jnp.abs(gaps) <= reach)
