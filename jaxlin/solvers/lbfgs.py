"""L-BFGS in a metric: differences of gradients correct an approximate inverse Hessian.

Vectors are flat float64 arrays on the host, (K * D + K,): the weights row by row, then the bias.
Its memory also gives the point of least gradient among all combinations of the iterates, whose
dual point proves far more than the last iterate's (the gap of a single iterate overstates its
distance to the optimum by a condition number).

Source: Nocedal and Wright, Numerical Optimization (2006), algorithm 7.4.
"""

__all__ = [
    "Memory",
    "arrays_of",
    "least_gradient",
    "lowest_along",
    "memory_of",
    "remember",
    "room",
    "scaled_step",
    "step_from",
]

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SCALED_BY = 3
"""Pairs by whose mean length the metric is scaled: one alone swings by a factor of two."""


class Memory(NamedTuple):
    """Pairs of differences of points and of gradients, oldest first."""

    points: tuple = ()
    gradients: tuple = ()
    lengths: tuple = ()
    """Of the youngest pairs: how long the metric's own steps should have been (`scaled_step`)."""
    size: int = 30

    def youngest(self, count: int) -> "Memory":
        """The last `count` pairs, for another metric."""
        start = max(len(self.points) - count, 0)
        return Memory(self.points[start:], self.gradients[start:], (), self.size)


def room(size: int, most: int = 30) -> int:
    """How many pairs of vectors of this size are kept: what half a gigabyte holds, at least 5."""
    return int(np.clip(5e8 // (16 * size), 5, most))


def arrays_of(memory: Memory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Its points and gradients (M, n) and lengths (up to 3,), to be saved; (0, 0) without pairs."""
    pairs = [np.stack(part) if part else np.zeros((0, 0)) for part in memory[:2]]
    return *pairs, np.array(memory.lengths, np.float64)


def memory_of(points, gradients, lengths, size: int) -> Memory:
    """The memory that `arrays_of` took apart."""
    pairs = (tuple(row.copy() for row in part) for part in (points, gradients))
    return Memory(*pairs, tuple(lengths), size)


def remember(memory: Memory, point, gradient) -> Memory:
    """One more pair; pairs without curvature (rounding) are left out."""
    curvature = point @ gradient
    if not curvature > 1e-16 * np.sqrt((point @ point) * (gradient @ gradient)):
        return memory
    points = (*memory.points, point)[-memory.size :]
    gradients = (*memory.gradients, gradient)[-memory.size :]
    return Memory(points, gradients, memory.lengths[1 - SCALED_BY :], memory.size)


def step_from(memory: Memory, metric: Callable, gradient) -> np.ndarray:
    """The quasi-Newton step: minus the corrected metric times the gradient."""
    reduced, coefficients = _reduced(memory, gradient)
    return _corrected(memory, metric(reduced), coefficients)


def scaled_step(memory: Memory, metric: Callable, gradient) -> tuple[np.ndarray, Memory]:
    """The step in a metric M that is scaled as its last pairs say, and the memory that knows how.

    By the mean of the lengths s'y / y'My of the youngest pairs (Oren and Luenberger, 1974): a
    sample of rows knows too little curvature, and what it knows ages as the iterate moves on.

    Args:
      metric: of several vectors (..., n) at once, which costs little more than of one.
    """
    unknown = max(min(SCALED_BY, len(memory.points)) - len(memory.lengths), 0)
    points, gradients = (part[len(part) - unknown :] for part in (memory.points, memory.gradients))
    reduced, coefficients = _reduced(memory, gradient)
    step, *images = metric(np.stack([reduced, *gradients]))
    lengths = [
        np.clip((s @ y) / (y @ image), 1e-3, 1e3)
        for s, y, image in zip(points, gradients, images, strict=True)
    ]
    memory = memory._replace(lengths=(*memory.lengths, *lengths))
    if memory.lengths:
        step = step * np.exp(np.mean(np.log(memory.lengths)))
    return _corrected(memory, step, coefficients), memory


def _reduced(memory: Memory, gradient):
    """The gradient without what the pairs explain, and how much of each, youngest first."""
    reduced, coefficients = gradient.copy(), []
    for s, y in zip(reversed(memory.points), reversed(memory.gradients), strict=True):
        coefficients.append((s @ reduced) / (s @ y))
        reduced -= coefficients[-1] * y
    return reduced, coefficients


def _corrected(memory: Memory, image, coefficients):
    """Minus the metric's image of the reduced gradient, with what the pairs know."""
    step = image.copy()
    pairs = zip(memory.points, memory.gradients, reversed(coefficients), strict=True)
    for s, y, coefficient in pairs:
        step += (coefficient - (y @ step) / (s @ y)) * s
    return -step


def lowest_along(
    evaluate: Callable, point, value, gradient, step, *, noise: float, length=1.0, trials=12
):
    """A point along `step` with Armijo's decrease, by halving or less (quadratic interpolation).

    Where the decrease drowns in rounding, the slope at the trial decides instead (Hager and
    Zhang, 2005, doi:10.1137/030601880): gradients keep their digits when values have lost them.

    Args:
      evaluate: point -> generator that returns (value, gradient), as `smooth.descend` has it.
      noise: rounding of the value.
      length: of the first trial, in steps.

    Returns:
      (when exhausted) point, value and gradient there, and the length that led there; `None` for
      the point, and a length of 1, if no trial decreased the value.
    """
    slope = gradient @ step
    for _ in range(trials):
        there = point + length * step
        found, its_gradient = yield from evaluate(there)
        if found <= value + 1e-4 * length * slope:
            return there, found, its_gradient, length
        if found <= value + noise and its_gradient @ step <= -0.8 * slope:
            return there, found, its_gradient, length
        rise = found - value - length * slope
        shorter = -slope * length**2 / (2 * rise) if np.isfinite(rise) and rise > 0 else 0.0
        length = min(max(shorter, 0.1 * length), 0.5 * length)
    return None, value, gradient, 1.0


def least_gradient(memory: Memory, point, gradient, split: int, counted: Callable):
    """The combination of the last iterates whose gradient is least, and its gradient.

    Args:
      split: K * D: the bias part, after it, is balanced exactly by the certificate, and counts
        less than the weights, though not nothing.
      counted: gradients (..., n) -> what of them counts.

    Returns:
      The point (K * D + K,) and the gradient there, as the memory predicts it.
    """
    if not memory.points:
        return point, gradient
    differences = np.stack(memory.gradients[-20:])
    whole, residual = differences, gradient
    differences, gradient = counted(differences), counted(gradient)
    scale = split / max(len(gradient) - split, 1)  # of the bias, as a factor of its squares
    ours, bias = differences[:, :split], differences[:, split:]
    system = ours @ ours.T + scale * (bias @ bias.T)
    target = ours @ gradient[:split] + scale * (bias @ gradient[split:])
    units = 1 / np.sqrt(np.maximum(np.diag(system), 1e-300))
    system = system * units[:, None] * units[None, :]
    mix = -np.linalg.lstsq(system, target * units, rcond=1e-12)[0] * units
    combined, residual = point.copy(), residual + mix @ whole
    for share, difference in zip(mix, memory.points[-20:], strict=True):
        combined += share * difference
    return combined, residual
