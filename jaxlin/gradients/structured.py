"""Differences of a linear objective in O(N) per displaced entry, instead of O(N D K).

Displacing entry (k, d) of the weights by h moves one column of the scores: s_k by h * x[:, d],
and the bias of class k moves it by h. So f(x + h e) - f(x) is a sum over examples of the loss's
change when one score changes by delta, for which every loss of the package has an exact formula:

    softmax, k != y     log(1 + p_k (exp(delta) - 1))
    softmax, k  = y     log(1 + (1 - p_y) (exp(-delta) - 1))
    a hinge max(0, m)   max(delta, -m) where m > 0, else max(m + delta, 0)

It is the finite difference of the loss itself, with the subtraction carried out on paper: it
agrees with the generic path to the round-off of the latter. A loss that is not in the table is
evaluated at the displaced scores, O(N K).
"""

__all__ = [
    "column_steps",
    "differences_along_axes",
    "differences_at",
    "has_structure",
    "sizes",
    "structured_step",
]

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlin import losses, regularizers
from jaxlin.blocks import Blocks, blocks_on
from jaxlin.core import LinearParams
from jaxlin.gradients.linear import LinearObjective, Params, unwrap, weights_of
from jaxlin.precision import float64, jit
from jaxlin.transfer import device_of

Statistics = tuple[Array, ...]
Change = Callable[[Array, Array], Array]
"""How a hinge with the argument m changes when m does by delta."""

GROUP = 16  # rows unrolled in one fused loop; their softmax changes share one logarithm


class Column(NamedTuple):
    """How a loss changes when the score of one class does."""

    statistics: Callable[[Array, Array, ArrayLike], tuple[Statistics, Statistics]]
    """(scores (n, K), labels (n,), margin) -> tuple of (n, K), masked so that `wrong` gives 0 at
    the label, and of (n, K') for `right`."""
    prepare: Callable[[Array], tuple[Array, Array]]
    """delta -> what `wrong` and `right` need of it, computed once for all classes."""
    wrong: Callable[[Statistics, tuple[Array, ...]], Array]
    """(per-class statistics, prepared) -> change where the class is not the label."""
    right: Callable[[Statistics, tuple[Array, ...]], Array]
    """(statistics of the row, prepared) -> change where it is."""
    logarithm: bool = False
    """`wrong` and `right` are the arguments of log(1 + .), to be multiplied up first."""


def _hinge(m: Array, delta: Array) -> Array:
    """max(0, m + delta) - max(0, m), without cancellation."""
    return jnp.where(m > 0, jnp.maximum(delta, -m), jnp.maximum(m + delta, 0))


def _squared(m: Array, delta: Array) -> Array:
    change = _hinge(m, delta)
    return change * (2 * jnp.maximum(m, 0) + change)


def _own(scores: Array, labels: Array) -> Array:
    return jnp.take_along_axis(scores, labels[:, None], axis=1)


def _mask(scores: Array, labels: Array) -> Array:
    return jax.nn.one_hot(labels, scores.shape[-1], dtype=bool)


def _softmax_statistics(
    scores: Array, labels: Array, margin: ArrayLike
) -> tuple[Statistics, Statistics]:
    p = jax.nn.softmax(scores, axis=-1)
    wrong = jnp.where(_mask(scores, labels), 0, p)
    return (wrong,), (jnp.sum(wrong, axis=1, keepdims=True),)


def _pair_statistics(
    scores: Array, labels: Array, margin: ArrayLike
) -> tuple[Statistics, Statistics]:
    gaps = jnp.where(_mask(scores, labels), -jnp.inf, scores - _own(scores, labels) + margin)
    return (gaps,), (gaps,)


def _one_sided_statistics(
    scores: Array, labels: Array, margin: ArrayLike
) -> tuple[Statistics, Statistics]:
    gaps = jnp.where(_mask(scores, labels), -jnp.inf, scores + margin)
    return (gaps,), (-_own(scores, labels) + margin,)


def _largest_statistics(
    scores: Array, labels: Array, margin: ArrayLike
) -> tuple[Statistics, Statistics]:
    """Per class: how far the best other rival leads it, and the largest shortfall."""
    is_label = _mask(scores, labels)
    rivals = jnp.where(is_label, -jnp.inf, scores)
    best, others = jax.lax.top_k(rivals, 2)[0].T if scores.shape[1] > 1 else (rivals.T[0],) * 2
    first = jnp.argmax(rivals, axis=1, keepdims=True) == jnp.arange(scores.shape[1])[None]
    other = jnp.where(first, others[:, None], best[:, None])
    lead = jnp.where(is_label, jnp.inf, other - scores)
    shortfall = best[:, None] - _own(scores, labels) + margin
    return (lead, jnp.broadcast_to(shortfall, lead.shape)), (shortfall,)


def _largest(change: Change) -> Callable[[Statistics, tuple[Array, ...]], Array]:
    def wrong(statistics: Statistics, prepared: tuple[Array, ...]) -> Array:
        (lead, shortfall), delta = statistics, prepared[0]
        moved = jnp.where(lead > 0, jnp.maximum(delta - lead, 0), jnp.maximum(delta, lead))
        return change(shortfall, moved)

    return wrong


def _hinge_column(
    statistics: Callable[[Array, Array, ArrayLike], tuple[Statistics, Statistics]],
    change: Change,
    wrong: Callable[[Statistics, tuple[Array, ...]], Array] | None = None,
) -> Column:
    def right(s: Statistics, prepared: tuple[Array, ...]) -> Any:
        return sum(change(s[0][..., j : j + 1], prepared[1]) for j in range(s[0].shape[-1]))

    return Column(
        statistics,
        lambda delta: (delta, -delta),
        wrong or (lambda s, prepared: change(s[0], prepared[0])),
        right,
    )


COLUMNS: dict[Callable[..., Array], Column] = {
    losses.softmax_cross_entropy: Column(
        _softmax_statistics,
        lambda delta: (jnp.expm1(delta), jnp.expm1(-delta)),
        lambda s, prepared: s[0] * prepared[0],
        lambda s, prepared: s[0] * prepared[1],
        logarithm=True,
    ),
    losses.weston_watkins_hinge: _hinge_column(_pair_statistics, _hinge),
    losses.squared_weston_watkins_hinge: _hinge_column(_pair_statistics, _squared),
    losses.one_vs_rest_hinge: _hinge_column(_one_sided_statistics, _hinge),
    losses.squared_one_vs_rest_hinge: _hinge_column(_one_sided_statistics, _squared),
    losses.crammer_singer_hinge: _hinge_column(_largest_statistics, _hinge, _largest(_hinge)),
    losses.squared_crammer_singer_hinge: _hinge_column(
        _largest_statistics, _squared, _largest(_squared)
    ),
}


def has_structure(objective: Any) -> TypeGuard[LinearObjective]:
    """Whether the fast path covers this function: a known loss and a known regularizer."""
    return (
        isinstance(objective, LinearObjective)
        and unwrap(objective.loss)[0] in COLUMNS
        and (objective.strength == 0 or objective.regularizer in _PENALTIES)
    )


def structured_step(objective: LinearObjective) -> float:
    """A step along one weight that moves no score by more than 2^-17 (hinges: 2^-30).

    There is no cancellation to fear, so the step may be small: it bounds the truncation, and on
    a piecewise linear loss, which has none, the chance to cross a kink.
    """
    largest = float(jnp.max(jnp.abs(objective.inputs.astype(jnp.float32)))) or 1.0
    loss, _ = unwrap(objective.loss)
    linear = loss in COLUMNS and not COLUMNS[loss].logarithm and "squared" not in loss.__name__
    return 2.0 ** (np.floor(-np.log2(max(largest, 1.0))) - (30 if linear else 17))


def column_steps(x: Params, steps: np.ndarray) -> np.ndarray | None:
    """Steps per entry, (n,), as steps per column, (D',); `None` where the classes differ."""
    matrix = np.asarray(weights_of(x))
    rows = steps[: matrix.size].reshape(matrix.shape)
    bias = steps[matrix.size :]
    if not (rows == rows[:1]).all() or not (bias == bias[:1]).all():
        return None
    return np.concatenate([rows[0], bias[:1]])


def differences_along_axes(objective: LinearObjective, x: Params, steps: ArrayLike) -> np.ndarray:
    """f(x + node * h e_i) - f(x) for every entry i of the parameters, in one pass over the data.

    Args:
      objective: one that `has_structure`.
      x: the parameters, float64 (`LinearParams` or a matrix).
      steps: (nodes, D') displacements per column of [weights, bias]: the same for all classes.

    Returns:
      (nodes, n), n entries in the order of the flattened parameters.
    """
    loss, margin = unwrap(objective.loss)
    with float64():
        params: Params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), x)
        steps = jnp.asarray(steps, jnp.float64)
        classes = weights_of(params).shape[0]
        largest = float(jnp.max(jnp.abs(steps))) * float(_largest_input(objective))
        share = bool(objective.weights is None and GROUP * largest < 300)
        total = jnp.zeros((steps.shape[0], classes, steps.shape[1]), jnp.float64)
        blocks = blocks_on(device_of(objective.inputs))
        together, rows = sizes(blocks, objective.examples, total.shape)
        norm = 0.0
        for start in range(0, objective.examples, rows):
            part = slice(start, start + rows)
            labels = objective.labels[part]
            short = -len(labels) % (GROUP * together)
            inputs = jnp.pad(objective.inputs[part], ((0, short), (0, 0)))
            weights = (
                jnp.ones(len(labels)) if objective.weights is None else (objective.weights[part])
            )
            norm += float(jnp.sum(weights))
            weights = jnp.pad(weights.astype(jnp.float64), (0, short))
            labels = jnp.pad(labels, (0, short))
            total = _add_block(
                total, params, inputs, labels, weights, steps,
                loss=loss, margin=margin, share=share, together=together,
            )  # fmt: skip
        mean = np.asarray(total) / norm
    return _flat(mean + _penalty(objective, x, np.asarray(steps)), x)


def sizes(blocks: Blocks, examples: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Groups of rows that are summed together, and rows that are handed over at once.

    Args:
      blocks: of the device.
      examples: N.
      shape: (nodes, K, D') of the differences.
    """
    together = max(1, blocks.displaced // (GROUP * int(np.prod(shape))))
    together = min(together, -(-examples // GROUP))
    unit = GROUP * together
    return together, max(unit, blocks.displaced_bytes // (8 * shape[-1]) // unit * unit)


@functools.partial(jit, static_argnames=("loss", "margin", "share", "together"))
def _add_block(
    total: Array, params: Params, inputs: Array, labels: Array, weights: Array, steps: Array, *,
    loss: Callable[..., Array], margin: ArrayLike, share: bool, together: int,
) -> Array:  # fmt: skip
    """`total` and the changes of all rows, so many groups of them together."""
    column = COLUMNS[loss]
    inputs, scores = _scores(params, inputs)
    if isinstance(params, LinearParams):
        inputs = jnp.concatenate([inputs, jnp.ones((len(inputs), 1))], axis=1)
    per_class, per_row = column.statistics(scores, labels, margin)
    is_label = _mask(scores, labels).astype(jnp.float64) * weights[:, None]

    def group(
        x: Array, w: Array, by_class: Statistics, by_row: Statistics, own: Array
    ) -> tuple[Array, Array | float]:
        prepared = column.prepare(steps[:, None, :] * x[None])  # each (nodes, GROUP, D')
        right = column.right(tuple(s[None, :, :] for s in by_row), prepared)
        if column.logarithm:
            right = jnp.log1p(right)
        of_own = jnp.einsum("gk,cgd->ckd", own, right)
        changes: Array | float = 0.0
        for g in range(GROUP):
            change = column.wrong(
                tuple(s[g][None, :, None] for s in by_class),
                tuple(p[:, g, None, :] for p in prepared),
            )
            if column.logarithm and share:  # log(1 + a) + log(1 + b) = log(1 + (a + b + ab))
                change = jnp.where(w[g] > 0, change, 0)
                changes = changes + change + changes * change
            else:
                change = jnp.log1p(change) if column.logarithm else change
                changes = changes + w[g] * change
        if column.logarithm and share:
            changes = jnp.log1p(changes)
        return of_own, changes

    def add(i: ArrayLike, total: Array) -> Array:
        def rows(a: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(a, i * GROUP * together, GROUP * together)

        def apart(a: Array) -> Array:
            return a.reshape(together, GROUP, *a.shape[1:])

        parts = jax.tree.map(rows, (inputs, weights, per_class, per_row, is_label))
        if together == 1:
            of_own, changes = group(*parts)
        else:
            found = jax.vmap(group)(*jax.tree.map(apart, parts))
            of_own, changes = (jnp.sum(part, axis=0) for part in found)
        return total + of_own + changes

    return jax.lax.fori_loop(0, len(labels) // (GROUP * together), add, total)


def differences_at(
    objective: LinearObjective, x: Params, indices: np.ndarray, offsets: np.ndarray, *, memory: int
) -> np.ndarray:
    """f(x + offsets e_i) - f(x) for chosen entries i, O(N) each.

    Args:
      objective: one that `has_structure`.
      x: the parameters, float64.
      indices: (m,), into the flattened parameters.
      offsets: (m, q), displacements of each entry.

    Returns:
      (m, q).
    """
    loss, margin = unwrap(objective.loss)
    indices, offsets = np.asarray(indices), np.asarray(offsets, np.float64)
    matrix = np.asarray(weights_of(x))
    features = matrix.shape[1]
    in_bias = indices >= matrix.size
    rows = np.where(in_bias, indices - matrix.size, indices // features)
    columns = np.where(in_bias, 0, indices % features)
    examples = objective.examples
    lanes = int(np.clip(memory // (64 * examples * (offsets.shape[1] + 1)), 1, 256))
    result = np.empty(offsets.shape)
    with float64():
        params: Params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), x)
        scores = jnp.concatenate(
            [_scores(params, objective.inputs[i : i + 4096])[1] for i in range(0, examples, 4096)]
        )
        weights = jnp.ones(examples) if objective.weights is None else objective.weights
        for start in range(0, len(indices), lanes):
            part = slice(start, start + lanes)
            pad = lanes - len(indices[part]) if len(indices) > lanes else 0
            k, d = np.pad(rows[part], (0, pad)), np.pad(columns[part], (0, pad))
            b, off = np.pad(in_bias[part], (0, pad)), np.pad(offsets[part], ((0, pad), (0, 0)))
            values = _at(
                scores, objective.inputs, objective.labels, weights, k, d, b, off,
                loss=loss, margin=margin,
            )  # fmt: skip
            result[part] = np.asarray(values)[: len(indices[part])]
    if objective.strength:
        change = _PENALTIES[objective.regularizer]
        penalty = objective.strength * change(matrix.ravel()[indices * ~in_bias][:, None], offsets)
        regular = ~in_bias[:, None]
        result += np.where(regular, penalty, 0.0)
    return result


@functools.partial(jit, static_argnames=("loss", "margin"))
def _at(
    scores: Array, inputs: Array, labels: Array, weights: Array,
    k: Array, d: Array, in_bias: Array, offsets: Array, *,
    loss: Callable[..., Array], margin: ArrayLike,
) -> Array:  # fmt: skip
    column = COLUMNS[loss]
    per_class, per_row = column.statistics(scores, labels, margin)
    moved = jnp.where(in_bias[None], 1.0, jnp.take(inputs, d, axis=1).astype(jnp.float64))
    own = labels[:, None] == k[None]

    def change(offset: Array) -> Array:  # (m,)
        prepared = column.prepare(moved * offset[None])
        wrong = column.wrong(tuple(jnp.take(s, k, axis=1) for s in per_class), prepared)
        right = column.right(per_row, prepared)
        both = jnp.where(own, right, wrong)
        both = jnp.log1p(both) if column.logarithm else both
        return jnp.einsum("n,nm->m", weights, both) / jnp.sum(weights)

    return jax.lax.map(change, offsets.T).T


@jit
def _scores(params: Params, inputs: Array) -> tuple[Array, Array]:
    inputs = inputs.astype(jnp.float64)
    if isinstance(params, LinearParams):
        products = inputs @ params.weights.T
        return inputs, products + jnp.broadcast_to(params.bias, products.shape)
    return inputs, inputs @ params.T


def _largest_input(objective: LinearObjective) -> Array:
    return jnp.maximum(jnp.max(jnp.abs(objective.inputs.astype(jnp.float32))), 1.0)


_Penalty = Callable[[np.ndarray, np.ndarray], np.ndarray]
_PENALTIES: dict[Callable, _Penalty] = {  # its change when w becomes w + h, without cancellation
    regularizers.l2: lambda w, h: h * (2 * w + h),
    regularizers.l1: lambda w, h: np.where(
        w >= 0, np.maximum(h, -2 * w - h), np.maximum(-h, 2 * w + h)
    ),
    regularizers.none: lambda w, h: 0.0 * w * h,
}


def _penalty(objective: LinearObjective, x: Params, steps: np.ndarray) -> np.ndarray | float:
    """The regularizer's change, (nodes, K, D')."""
    if not objective.strength:
        return 0.0
    matrix = np.asarray(weights_of(x))
    change = _PENALTIES[objective.regularizer]
    features = matrix.shape[1]
    penalty = objective.strength * change(matrix[None], steps[:, None, :features])
    missing = steps.shape[1] - features
    return np.pad(penalty, ((0, 0), (0, 0), (0, missing)))


def _flat(array: np.ndarray, x: Params) -> np.ndarray:
    """(nodes, K, D') in the order of the flattened parameters."""
    nodes = len(array)
    if not isinstance(x, LinearParams):
        return array.reshape(nodes, -1)
    return np.concatenate([array[..., :-1].reshape(nodes, -1), array[..., -1]], axis=1)
