"""A loss with kinks, smoothed around a dual point: what its rows add up to, and steps in one
dimension.

Scores are affine in a step, so that a line search costs no pass over the data.
"""

__all__ = ["bending_of", "bias_steps", "line_search", "maximizer_of", "point_of"]

from typing import Any

import numpy as np

from jaxlin.solvers.balance import balanced_bias
from jaxlin.solvers.dual_losses import Block, DualForm, maximizers, settled, total
from jaxlin.solvers.problem import Problem
from jaxlin.solvers.rowwise import rowwise, summing


def maximizer_of(xp: Any, form: DualForm, block: Block) -> Any:
    return maximizers(xp, form, block)[0]


def point_of(xp: Any, form: DualForm, block: Block) -> Any:
    """What a block adds: residuals, and the sums of its losses and of its dual objective."""
    a, z, own = maximizers(xp, form, block)
    z, a = settled(xp, z, a)
    residuals = form.residuals(xp, a, own) * block.counts[None, :]
    parts = form.loss(xp, z, own), form.gain(xp, a, own, block.margin)
    return residuals, tuple((block.counts * part).astype(xp.float64).sum() for part in parts)


def bending_of(xp: Any, form: DualForm, block: Block) -> Any:
    """(R,): the weighted trace of each row's second derivative."""
    a = maximizer_of(xp, form, block)
    return block.counts * total(xp, form.bend(xp, a, block.smoothing).diagonal)


def _slope_at(xp: Any, form: DualForm, block: Block, change: Any, length: float) -> Any:
    there = block.scores + xp.asarray(length, block.scores.dtype) * change
    a, _, own = maximizers(xp, form, block._replace(scores=there))
    along = total(xp, form.residuals(xp, a, own) * change) * block.counts
    return along.astype(xp.float64).sum()


def _curvature_along(xp: Any, form: DualForm, block: Block, change: Any) -> Any:
    a, _, own = maximizers(xp, form, block)
    curved = form.curve(xp, form.bend(xp, a, block.smoothing), own, change)
    return (total(xp, curved * change) * block.counts).astype(xp.float64).sum()


def line_search(
    problem: Problem, by_row: tuple, change: Any, smoothing: float, inner: np.ndarray
) -> tuple[float, float]:
    """Where the derivative of the smoothed objective along the step vanishes (regula falsi).

    Args:
      by_row: scores, labels, counts and anchor.
      change: of the scores along the step.
      inner: derivative of the penalty at the start, and what each unit of length adds.

    Returns:
      The length, and how many times the curvature that Newton's step assumed there is at its start.
    """

    def summed(f: Any, *extra: float) -> float:
        data = (*by_row, change), problem.margin, smoothing, *extra
        return float(problem.rows.total(rowwise(f, problem.form, 1), *data))

    def slope(length: float) -> float:
        return summed(_slope_at, float(length)) + inner[0] + length * inner[1]

    start = slope(0.0)
    if start >= 0:
        return 0.0, 1.0
    curvature = summed(_curvature_along) + inner[1]
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


def bias_steps(problem: Problem, by_row: tuple, smoothing: float) -> np.ndarray:
    """A guarded Newton step in the biases alone."""
    sums = summing(problem, by_row, problem.margin, smoothing)
    settings: Any = {"dtype": by_row[0].dtype, "steps": 1, "accuracy": 1e-7}
    return balanced_bias(np, problem.form, sums, problem.masses, **settings)
