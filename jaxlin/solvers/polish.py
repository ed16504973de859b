r"""The point that should prove most, and its correction along the leading directions.

The gap that a point proves is |g|^2 / (4 strength), of its gradient g in the weights, while the
point is off by some g^2 / (2 h) in a direction of curvature h. The gap overstates that by
h / (2 strength), a thousand times and more along the steepest directions of image pixels, and
nearly all of it comes from a few of them (on Fashion-MNIST nine tenths, from a tenth of them).

So the proof is not of the last iterate but of the combination of iterates whose gradient is least.
And along the leading directions a row is a few numbers and the scores it has so far, and a step
costs a small part of a pass: a few such steps in the preconditioner of the fit leave next to
nothing of the gradient there, a subspace correction (Xu, 1992, doi:10.1137/1034116).
"""

__all__ = [
    "CLOSE",
    "Leading",
    "Prospect",
    "corrected",
    "corrected_prospect",
    "leading_of",
    "prospect_of",
]

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg

from jaxlin.passes import open_rows
from jaxlin.solvers.history import History, empty_history, least_gradient, pushed, scaled_step
from jaxlin.solvers.preconditioner import SpectralMetric
from jaxlin.solvers.problem import Problem

SHARE = 10
"""One direction in so many: a step along them costs about so little of a pass."""
EACH_CLASS = 8
"""So many for each class at most: to find all rows along them takes four passes' work at most."""
STEPS = 10
LEFT = 0.1
"""Of the gap expected anyway: as much as the directions may add to it when the steps have done."""


class Leading(NamedTuple):
    """Leading directions of the data, orthonormal, and a metric for steps along them."""

    directions: np.ndarray
    """(D, q)"""
    turn: np.ndarray
    """(q, q): the leading vectors of the metric's spectrum are `directions @ turn`."""
    metric: SpectralMetric

    def outside(self, gradients):
        """What gradients (..., K * D + K) have outside the directions and the bias."""
        features = len(self.directions)
        classes = gradients.shape[-1] // (features + 1)
        weights = gradients[..., :-classes].reshape(*gradients.shape[:-1], classes, features)
        weights = weights - (weights @ self.directions) @ self.directions.T
        left = np.zeros_like(gradients)
        left[..., :-classes] = weights.reshape(*gradients.shape[:-1], -1)
        return left

    def step(self, gradients):
        """The metric's step for gradients (..., K * q + K) along the directions and in the bias."""
        count = len(self.turn)
        classes = gradients.shape[-1] // (count + 1)
        along, sums = np.split(gradients, [classes * count], axis=-1)
        vectors = self.metric.spectrum.vectors
        turned = np.zeros((*gradients.shape[:-1], classes, vectors.shape[1]), vectors.dtype)
        turned[..., :count] = along.reshape(*gradients.shape[:-1], classes, count) @ self.turn
        turned, bias = self.metric.solve(turned, sums)
        weights = turned[..., :count].astype(np.float64) @ self.turn.T
        bias = bias if self.metric.fit_intercept else np.zeros_like(bias)
        return np.concatenate([weights.reshape(*gradients.shape[:-1], -1), bias], axis=-1)


def leading_of(problem: Problem, metric) -> Leading | None:
    """The directions for a correction; `None` where the metric knows none, where all rows are not
    in one memory, or where the coordinates and scores of a row would take more than half of it."""
    if not (isinstance(metric, SpectralMetric) and problem.rows.resident):
        return None
    vectors = metric.spectrum.vectors
    count = min(problem.features // SHARE, EACH_CLASS * problem.classes, vectors.shape[1])
    if count < 1 or 2 * (count + problem.classes) > problem.features:
        return None
    return Leading(*scipy.linalg.qr(vectors[:, :count].astype(np.float64), mode="economic"), metric)


def corrected(
    problem: Problem, leading: Leading, mean_loss: Callable, point, lengths, gap: float, dtype
) -> tuple:
    """Near the optimum along the directions and in the bias, from a point that is not far.

    Args:
      mean_loss: (problem, weights, bias, dtype) -> the mean loss, its gradient in the weights, and
        in the bias.
      point: (K * D + K,)
      lengths: of the metric's steps, as a `History` has them.
      gap: expected of what the point leaves outside the directions.
      dtype: of the arithmetic.

    Returns:
      The better point, (K * D + K,), and its scores (K, N), of which only rounding is not known;
      the point given and `None` where the steps led nowhere.
    """
    directions, mean, classes = leading.directions, leading.metric.mean, problem.classes
    weights, bias = np.split(point, [classes * problem.features])
    weights, count = weights.reshape(classes, -1), directions.shape[1]
    both = np.concatenate([weights, directions.T])
    read = problem.rows.scores(both, np.concatenate([bias, -(mean @ directions)]), dtype)
    # a row's coordinates, and its scores so far as further features, whose weights stay one
    turned = read[np.r_[classes : classes + count, :classes]].T
    rows = open_rows(turned, classes, dtype=dtype, host=problem.on_host)
    near, so_far = problem._replace(rows=rows), np.eye(classes)
    pulled, split = weights @ directions, classes * count

    def gradient_at(moved):
        along, shift = moved[:split].reshape(classes, count), moved[split:]
        _, found, sums = mean_loss(near, np.concatenate([along, so_far], 1), shift, dtype)
        slope = found[:, :count] + 2 * problem.strength * (pulled + along)
        return np.concatenate([slope.ravel(), sums])

    moved = np.zeros(split + classes)
    history = empty_history(moved.size, STEPS)._replace(lengths=lengths)
    gradient = gradient_at(moved)
    first = square = float(gradient[:split] @ gradient[:split])
    for _ in range(STEPS):
        if square <= LEFT * gap * 4 * problem.strength:
            break
        step, history = scaled_step(history, leading.step, gradient)
        change = gradient_at(moved + step) - gradient
        bend = float(step @ change)
        if not bend > 0:
            break
        # so near to the optimum the gradient is linear along a step, and known where it is best
        length = -float(step @ gradient) / bend
        moved, gradient = moved + length * step, gradient + length * change
        square = float(gradient[:split] @ gradient[:split])
        history = pushed(history, step, change)
    if square > first:
        return point, None
    along, shift = moved[:split].reshape(classes, count), moved[split:]
    scores = rows.scores(np.concatenate([along, so_far], 1), shift, dtype)
    change = along @ directions.T
    better = np.concatenate([(weights + change).ravel(), bias + shift - change @ mean])
    return better, scores


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
