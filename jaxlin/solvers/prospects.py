"""Which point proves most, of all that a quasi-Newton history spans, and how much it should prove.

The gap of the last iterate overstates its distance to the optimum by a condition number. The
combination of the iterates whose gradient is least proves far more, and where a correction along
the leading directions of the data will follow, only what is left outside them counts.
"""

__all__ = ["CLOSE", "Prospect", "corrected_prospect", "prospect_of"]

from typing import NamedTuple

import numpy as np

from jaxlin.solvers.history import History, least_gradient
from jaxlin.solvers.leading import Leading, leading_of
from jaxlin.solvers.problem import Problem

CLOSE = 5e-3
"""Relative gap below which a step is trusted that was not tried: it leads to a smaller gradient."""
MISSING = 30.0
"""Times the tolerance: a gap from which on a correction may be all that is missing."""
UNSETTLED = 2.5
"""Times the gap that what is left outside the leading directions would have by itself: steps along
them move it, and they do not reach their end."""
WORTH = 2.0
"""By how much a correction, which takes as long as some passes, must be expected to lower a gap."""


class Prospect(NamedTuple):
    """A point that is expected to prove a gap."""

    point: np.ndarray
    """(K * D + K,)"""
    gradient: np.ndarray
    """There, as the history predicts it."""
    gap: float
    leading: Leading | None
    """Directions along which the point is corrected first."""


def prospect_of(
    problem: Problem, history: History, point, gradient, leading: Leading | None = None
) -> Prospect:
    """The combination of the last iterates, or the last one, that should prove most."""
    if problem.strength == 0:
        return Prospect(point, gradient, np.inf, None)
    split = problem.classes * problem.features

    def counted(gradients):
        return gradients if leading is None else leading.outside(gradients)

    def square(gradient):
        left = counted(gradient)[:split]
        return float(left @ left)

    there, its_gradient = least_gradient(history, point, gradient, split, counted)
    if square(gradient) <= square(its_gradient):
        there, its_gradient = point, gradient
    gap = square(its_gradient) / (4 * problem.strength)
    return Prospect(there, its_gradient, gap if leading is None else UNSETTLED * gap, leading)


def corrected_prospect(
    problem: Problem, metric, history: History, point, gradient, value: float, plain: Prospect
) -> Prospect:
    """The same with a correction along the leading directions, where that is worth it.

    Args:
      value: the objective at the point.
      plain: the prospect without; returned where a correction is not worth it.
    """
    if not plain.gap <= min(MISSING * problem.tolerance, CLOSE) * value:
        return plain
    leading = leading_of(problem, metric)
    if leading is None:
        return plain
    found = prospect_of(problem, history, point, gradient, leading)
    weights = found.gradient[: problem.classes * problem.features]
    alone = float(weights @ weights) / (4 * problem.strength)
    return found if WORTH * found.gap <= alone else plain
