"""The lecture's calculus, done by hand: values and gradients of the linear losses in NumPy.

This is the witness that the rest of the package is judged by, so it shares no code with it: no
JAX, no helper, every formula written out. All functions take `(weights, bias, inputs, labels)`,
work in float64 and return a `LinearGradient` of the mean loss + `strength` * sum(weights**2).

With the score differences m_j = s_j - s_y + margin of one example x of class y,

    Weston-Watkins   d/dw_y = -(sum over j != y of 1(m_j > 0)) x,    d/dw_j = 1(m_j > 0) x
    softmax          d/dw_k = (p_k - 1(k = y)) x

and the bias sees the same factors with x = 1, the data with x replaced by the row of weights.
"""

__all__ = [
    "LinearGradient",
    "crammer_singer",
    "one_vs_rest",
    "softmax",
    "softmax_loops",
    "weston_watkins",
    "weston_watkins_loops",
]

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class LinearGradient(NamedTuple):
    """A value and its derivatives by everything that the score W x + b is made of.

    >>> softmax([[0.0], [0.0]], [0.0, 0.0], [[1.0]], [1]).bias.tolist()
    [0.5, -0.5]
    """

    value: float
    weights: np.ndarray
    """(K, D)."""
    bias: np.ndarray | None
    """(K,); `None` where no bias was given (the bias trick)."""
    inputs: np.ndarray
    """(N, D): how the mean loss changes with the pixels."""


def softmax(
    weights: ArrayLike,
    bias: ArrayLike | None,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    strength: float = 0.0,
) -> LinearGradient:
    """Mean cross-entropy of softmax(W x + b) + strength * sum(W**2), vectorized.

    Args:
      weights: (K, D).
      bias: (K,), or `None` where the last feature is the one of the bias trick.
      inputs: (N, D), floating or integer.
      labels: (N,), integers in [0, K).
      strength: of the regularizer, the lecture's lambda.

    Source: the CS231n notes, "Softmax classifier"; the factor p_k - 1(k = y) follows from
      L = -s_y + log(sum_k exp(s_k)).

    >>> softmax([[0.0, 0.0], [0.0, 0.0]], None, [[1.0, 3.0]], [1]).weights.tolist()
    [[0.5, 1.5], [-0.5, -1.5]]
    """
    weights, inputs, labels, scores = _scores(weights, bias, inputs, labels)
    example = np.arange(len(labels))
    shifted = scores - scores.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    losses = np.log(sums[:, 0]) - shifted[example, labels]
    factors = exponentials / sums
    factors[example, labels] -= 1
    return _assemble(losses, factors, weights, bias, inputs, strength)


def softmax_loops(
    weights: ArrayLike,
    bias: ArrayLike | None,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    strength: float = 0.0,
) -> LinearGradient:
    """As `softmax`, one example and one class at a time, as one derives it on paper.

    >>> softmax_loops([[0.0], [0.0]], [0.0, 0.0], [[2.0]], [0]).bias.tolist()
    [-0.5, 0.5]
    """

    def of_one(row: Sequence[float], y: int) -> tuple[float, list[float]]:
        top = max(row)
        exponentials = [math.exp(s - top) for s in row]
        total = sum(exponentials)
        factors = [e / total for e in exponentials]
        factors[y] -= 1.0
        return math.log(total) - (row[y] - top), factors

    return _by_loops(of_one, weights, bias, inputs, labels, strength)


def weston_watkins(
    weights: ArrayLike,
    bias: ArrayLike | None,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    margin: float = 1.0,
    strength: float = 0.0,
) -> LinearGradient:
    """Mean multiclass hinge of the lecture + strength * sum(W**2), vectorized.

    Arguments as in `softmax`; `margin` is the lecture's Delta. A margin of exactly 0 counts as
    satisfied (the strict indicator).

    Source: the CS231n notes, "Optimization", "Computing the gradient analytically with Calculus".

    >>> weston_watkins([[0.0], [0.0], [0.0]], None, [[2.0]], [0]).weights.tolist()
    [[-4.0], [2.0], [2.0]]
    """
    weights, inputs, labels, scores = _scores(weights, bias, inputs, labels)
    example = np.arange(len(labels))
    margins = scores - scores[example, labels][:, None] + margin
    margins[example, labels] = 0
    violated = (margins > 0).astype(float)
    losses = (margins * violated).sum(axis=1)
    violated[example, labels] = -violated.sum(axis=1)
    return _assemble(losses, violated, weights, bias, inputs, strength)


def weston_watkins_loops(
    weights: ArrayLike,
    bias: ArrayLike | None,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    margin: float = 1.0,
    strength: float = 0.0,
) -> LinearGradient:
    """As `weston_watkins`, counting the violated margins one by one.

    >>> weston_watkins_loops([[0.0], [0.0], [0.0]], None, [[2.0]], [0]).weights.tolist()
    [[-4.0], [2.0], [2.0]]
    """

    def of_one(row: Sequence[float], y: int) -> tuple[float, list[float]]:
        loss, factors = 0.0, [0.0] * len(row)
        for j, score in enumerate(row):
            if j == y:
                continue
            gap = score - row[y] + margin
            if gap > 0:
                loss += gap
                factors[j] += 1.0
                factors[y] -= 1.0
        return loss, factors

    return _by_loops(of_one, weights, bias, inputs, labels, strength)


def crammer_singer(
    weights: ArrayLike,
    bias: ArrayLike | None,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    margin: float = 1.0,
    strength: float = 0.0,
) -> LinearGradient:
    """Mean of max(0, margin + max over j != y of s_j - s_y): the strongest rival alone pays.

    Arguments as in `weston_watkins`; among tied rivals the first one is taken.

    Source: Crammer and Singer (2001), JMLR 2, 265-292.

    >>> crammer_singer([[0.0], [1.0], [2.0]], None, [[1.0]], [0]).weights.tolist()
    [[-1.0], [0.0], [1.0]]
    """
    weights, inputs, labels, scores = _scores(weights, bias, inputs, labels)
    example = np.arange(len(labels))
    rivals = scores.copy()
    rivals[example, labels] = -np.inf
    rival = rivals.argmax(axis=1)
    gaps = scores[example, rival] - scores[example, labels] + margin
    factors = np.zeros_like(scores)
    factors[example, rival] += gaps > 0
    factors[example, labels] -= gaps > 0
    return _assemble(np.maximum(gaps, 0), factors, weights, bias, inputs, strength)


def one_vs_rest(
    weights: ArrayLike,
    bias: ArrayLike | None,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    margin: float = 1.0,
    strength: float = 0.0,
) -> LinearGradient:
    """Mean of sum over k of max(0, margin - t_k s_k), t_k = 1 for the label and -1 for others.

    Arguments as in `weston_watkins`.

    Source: Rifkin and Klautau (2004), JMLR 5, 101-141.

    >>> one_vs_rest([[0.0], [0.0]], None, [[2.0]], [0]).weights.tolist()
    [[-2.0], [2.0]]
    """
    weights, inputs, labels, scores = _scores(weights, bias, inputs, labels)
    signs = -np.ones_like(scores)
    signs[np.arange(len(labels)), labels] = 1
    gaps = margin - signs * scores
    losses = np.maximum(gaps, 0).sum(axis=1)
    return _assemble(losses, -signs * (gaps > 0), weights, bias, inputs, strength)


def _scores(
    weights: ArrayLike, bias: ArrayLike | None, inputs: ArrayLike, labels: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    weights, inputs = np.asarray(weights, float), np.asarray(inputs, float)
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != inputs.shape[:1]:
        raise ValueError(
            f"`labels` must be {inputs.shape[0]} integers, one per row of `inputs`, got "
            f"{labels.dtype} of shape {labels.shape}."
        )
    _check_range(labels, len(weights))
    scores = inputs @ weights.T
    return weights, inputs, labels, scores if bias is None else scores + np.asarray(bias, float)


def _check_range(labels: np.ndarray, classes: int) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"`labels` must be integers in [0, {classes}), got {labels[row]} at row {row}. "
            "Number the classes from 0."
        )


def _assemble(
    losses: np.ndarray,
    factors: np.ndarray,
    weights: np.ndarray,
    bias: ArrayLike | None,
    inputs: np.ndarray,
    strength: float,
) -> LinearGradient:
    """The chain rule through W x + b, given d loss / d score for every example, (N, K)."""
    factors = factors / len(losses)
    return LinearGradient(
        value=float(losses.mean() + strength * np.sum(weights**2)),
        weights=factors.T @ inputs + 2 * strength * weights,
        bias=None if bias is None else factors.sum(axis=0),
        inputs=factors @ weights,
    )


def _by_loops(
    of_one: Callable[[Sequence[float], int], tuple[float, list[float]]],
    weights: ArrayLike,
    bias: ArrayLike | None,
    inputs: ArrayLike,
    labels: ArrayLike,
    strength: float,
) -> LinearGradient:
    weights, inputs = np.asarray(weights, float), np.asarray(inputs, float)
    classes, examples = len(weights), len(inputs)
    labels = np.asarray(labels)
    _check_range(labels, classes)
    offsets = np.zeros(classes) if bias is None else np.asarray(bias, float)
    value, by_weights = 0.0, np.zeros_like(weights)
    by_bias, by_inputs = np.zeros(classes), np.zeros_like(inputs)
    for n, (x, y) in enumerate(zip(inputs, labels, strict=True)):
        row = [float(weights[k] @ x) + float(offsets[k]) for k in range(classes)]
        loss, factors = of_one(row, int(y))
        value += loss / examples
        for k in range(classes):
            by_weights[k] += factors[k] * x / examples
            by_bias[k] += factors[k] / examples
            by_inputs[n] += factors[k] * weights[k] / examples
    value += strength * sum(float(w) ** 2 for w in weights.ravel())
    by_weights += 2 * strength * weights
    return LinearGradient(value, by_weights, None if bias is None else by_bias, by_inputs)
