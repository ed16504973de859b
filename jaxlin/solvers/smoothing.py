"""A loss with kinks, smoothed around a dual point: what its rows add up to, and steps in one
dimension.

Scores are affine in a step, so that a line search costs no pass over the data.
"""

__all__ = ["bending_of", "bias_steps", "line_search", "maximizer_of", "point_of"]

from typing import Any

import numpy as np

from jaxlin.solvers.balance import balanced_bias
from jaxlin.solvers.dual_losses import DualForm, own_of, settled, total
from jaxlin.solvers.problem import Problem
from jaxlin.solvers.rowwise import rowwise, summing_runner


def maximizer_of(
    xp: Any,
    form: DualForm,
    scores: Any,
    labels: Any,
    counts: Any,
    anchor: Any,
    margin: float,
    smoothing: float,
) -> Any:
    z = form.shortfalls(xp, scores, own_of(xp, labels, scores.shape[0]), margin)
    return form.maximizer(xp, z, smoothing, anchor)


def point_of(
    xp: Any,
    form: DualForm,
    scores: Any,
    labels: Any,
    counts: Any,
    margin: float,
    smoothing: float,
    anchor: Any,
) -> Any:
    """What a block adds: residuals, and the sums of its losses and of its dual objective."""
    own = own_of(xp, labels, scores.shape[0])
    z = form.shortfalls(xp, scores, own, margin)
    z, a = settled(xp, z, form.maximizer(xp, z, smoothing, anchor))
    residuals = form.residuals(xp, a, own) * counts[None, :]
    sums = (counts * form.loss(xp, z, own), counts * form.gain(xp, a, margin))
    return residuals, tuple(part.astype(xp.float64).sum() for part in sums)


def bending_of(
    xp: Any,
    form: DualForm,
    scores: Any,
    labels: Any,
    counts: Any,
    anchor: Any,
    margin: float,
    smoothing: float,
) -> Any:
    """(R,): the weighted trace of each row's second derivative."""
    a = maximizer_of(xp, form, scores, labels, counts, anchor, margin, smoothing)
    return counts * total(xp, form.bend(xp, a, smoothing).diagonal)


def _slope_at(
    xp: Any,
    form: DualForm,
    scores: Any,
    labels: Any,
    counts: Any,
    anchor: Any,
    margin: float,
    smoothing: float,
    length: float,
    change: Any,
) -> Any:
    own = own_of(xp, labels, scores.shape[0])
    there = scores + xp.asarray(length, scores.dtype) * change
    a = maximizer_of(xp, form, there, labels, counts, anchor, margin, smoothing)
    along = total(xp, form.residuals(xp, a, own) * change) * counts
    return along.astype(xp.float64).sum()


def _curvature_along(
    xp: Any,
    form: DualForm,
    scores: Any,
    labels: Any,
    counts: Any,
    anchor: Any,
    margin: float,
    smoothing: float,
    change: Any,
) -> Any:
    a = maximizer_of(xp, form, scores, labels, counts, anchor, margin, smoothing)
    own = own_of(xp, labels, scores.shape[0])
    curved = form.curve(xp, form.bend(xp, a, smoothing), own, change)
    return (total(xp, curved * change) * counts).astype(xp.float64).sum()


def line_search(
    problem: Problem,
    scores: Any,
    change: Any,
    counts: Any,
    smoothing: float,
    anchor: Any,
    inner: np.ndarray,
) -> tuple[float, float]:
    """Where the derivative of the smoothed objective along the step vanishes (regula falsi).

    Args:
      change: of the scores along the step.
      inner: derivative of the penalty at the start, and what each unit of length adds.

    Returns:
      The length, and how many times the curvature that Newton's step assumed there is at its start.
    """
    data = (scores, problem.labels, counts, change, anchor)

    def slope(length: float) -> float:
        loss = problem.rows.total(
            rowwise(_slope_at, problem.form), data, problem.margin, smoothing, float(length)
        )
        return float(loss) + inner[0] + length * inner[1]

    start = slope(0.0)
    if start >= 0:
        return 0.0, 1.0
    curved = rowwise(_curvature_along, problem.form)
    curvature = float(problem.rows.total(curved, data, problem.margin, smoothing)) + inner[1]
    return _root(slope, start), curvature / -start


def _root(slope: Any, start: Any) -> float:
    low, at_low, high, at_high = 0.0, start, 1.0, slope(1.0)
    while at_high < 0 and high < 64:
        if at_high > 0.05 * start:
            return high
        low, at_low, high = high, at_high, 2 * high
        at_high = slope(high)
    if at_high < -0.05 * start:
        return high
    side = 0
    for _ in range(12):
        middle = low - at_low * (high - low) / (at_high - at_low)
        value = slope(middle)
        if abs(value) <= -0.05 * start:
            return middle
        if value < 0:
            low, at_low = middle, value
            at_high, side = (at_high / 2 if side == -1 else at_high), -1
        else:
            high, at_high = middle, value
            at_low, side = (at_low / 2 if side == 1 else at_low), 1
    return low if low > 0 else middle


def bias_steps(
    problem: Problem, scores: Any, counts: Any, smoothing: float, anchor: Any
) -> np.ndarray:
    """Two guarded Newton steps in the biases alone."""
    data = (scores, problem.labels, counts)
    extra = (problem.margin, smoothing, anchor)
    return balanced_bias(summing_runner(problem), problem.form, data, extra, steps=2, accuracy=1e-7)
