"""The history of a quasi-Newton method: its last pairs of differences, and what follows from them.

Vectors are flat float64 arrays on the host, (n,) with n = K * D + K: the weights row by row, then
the bias. Differences of gradients correct a preconditioner, an approximate inverse Hessian M, by
the two loops of L-BFGS. They also give the point of least gradient among all combinations of the
iterates, whose dual point proves far more than the last iterate's (the gap of a single iterate
overstates its distance to the optimum by a condition number).

Source: Nocedal and Wright, Numerical Optimization (2006), algorithm 7.4.
"""

__all__ = [
    "History",
    "empty_history",
    "forgotten",
    "history_size",
    "least_gradient",
    "own_copy",
    "pushed",
    "scaled_step",
    "step_from",
]

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

SCALED_BY = 3
"""Pairs by whose mean length M is scaled: one alone swings by a factor of two."""
COMBINED = 20
"""Youngest pairs that the point of least gradient is made of."""


class History(NamedTuple):
    """A ring of M pairs; `pushed` writes into it, so that the one it was given is used up."""

    points: np.ndarray
    """(M, n): differences of points."""
    gradients: np.ndarray
    """(M, n): of their gradients."""
    next: int
    """The row that the next pair goes to."""
    held: int
    """How many of the rows before it are pairs."""
    lengths: np.ndarray
    """(3,): how long the steps of M alone should have been, for the youngest pairs, oldest first;
    NaN where that was not asked yet (`scaled_step`)."""

    def rows(self) -> np.ndarray:
        """The rows that are pairs, oldest first."""
        return (self.next - self.held + np.arange(self.held)) % len(self.points)


def own_copy(state: Any) -> Any:
    """A state with arrays of its own, which may be written to, and with plain numbers.

    >>> own_copy({"steps": np.array(3)})
    {'steps': 3}
    """
    return jax.tree.map(lambda a: np.array(a) if np.ndim(a) else np.asarray(a).item(), state)


def history_size(size: int, most: int = 30) -> int:
    """How many pairs of vectors of this size are kept: what half a gigabyte holds, at least 5."""
    return int(np.clip(5e8 // (16 * size), 5, most))


def empty_history(size: int, most: int = 30) -> History:
    """For vectors (size,)."""
    points, gradients = np.zeros((2, history_size(size, most), size))
    return History(points, gradients, 0, 0, np.full(SCALED_BY, np.nan))


def forgotten(history: History, keep: int) -> History:
    """Only the `keep` youngest pairs are left, for another preconditioner."""
    return history._replace(held=min(history.held, keep), lengths=np.full(SCALED_BY, np.nan))


def pushed(history: History, point: np.ndarray, gradient: np.ndarray) -> History:
    """One more pair; pairs without curvature (rounding) are left out."""
    curvature = point @ gradient
    if not curvature > 1e-16 * np.sqrt((point @ point) * (gradient @ gradient)):
        return history
    size = len(history.points)
    history.points[history.next], history.gradients[history.next] = point, gradient
    return history._replace(
        next=(history.next + 1) % size,
        held=min(history.held + 1, size),
        lengths=np.append(history.lengths[1:], np.nan),
    )


def step_from(history: History, precondition: Callable, gradient: np.ndarray) -> np.ndarray:
    """The quasi-Newton step: minus the corrected inverse Hessian times the gradient.

    Args:
      precondition: vector -> M vector.
    """
    reduced, coefficients = _reduced(history, gradient)
    return _corrected(history, precondition(reduced), coefficients)


def scaled_step(
    history: History, precondition: Callable, gradient: np.ndarray
) -> tuple[np.ndarray, History]:
    """The step with M scaled as its last pairs say, and the history that knows how.

    By the mean of the lengths s'y / y'My of the youngest pairs (Oren and Luenberger, 1974): a
    sample of rows knows too little curvature, and what it knows ages as the iterate moves on.

    Args:
      precondition: of several vectors (..., n) at once, which costs little more than of one.
    """
    known = np.isfinite(history.lengths)
    unknown = max(min(SCALED_BY, history.held) - int(known.sum()), 0)
    rows = history.rows()[history.held - unknown :]
    points, gradients = history.points[rows], history.gradients[rows]
    reduced, coefficients = _reduced(history, gradient)
    step, *images = precondition(np.stack([reduced, *gradients]))
    found = [
        np.clip((s @ y) / (y @ image), 1e-3, 1e3)
        for s, y, image in zip(points, gradients, images, strict=True)
    ]
    lengths = np.concatenate([history.lengths[known], found])
    if len(lengths):
        step = step * np.exp(np.mean(np.log(lengths)))
        missing = np.full(SCALED_BY - len(lengths), np.nan)
        history = history._replace(lengths=np.concatenate([missing, lengths]))
    return _corrected(history, step, coefficients), history


def _reduced(history: History, gradient: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """The gradient without what the pairs explain, and how much of each, youngest first."""
    reduced, coefficients = gradient.copy(), []
    for row in history.rows()[::-1]:
        s, y = history.points[row], history.gradients[row]
        coefficients.append((s @ reduced) / (s @ y))
        reduced -= coefficients[-1] * y
    return reduced, coefficients


def _corrected(history: History, image: np.ndarray, coefficients: Any) -> np.ndarray:
    """Minus what M makes of the reduced gradient, with what the pairs know."""
    step = image.copy()
    for row, coefficient in zip(history.rows(), reversed(coefficients), strict=True):
        s, y = history.points[row], history.gradients[row]
        step += (coefficient - (y @ step) / (s @ y)) * s
    return -step


def least_gradient(
    history: History, point: np.ndarray, gradient: np.ndarray, split: int
) -> tuple[np.ndarray, np.ndarray]:
    """The combination of the last iterates whose gradient is least, and its gradient.

    Args:
      split: K * D: the bias part, after it, is balanced exactly by the certificate, and counts
        less than the weights, though not nothing.

    Returns:
      The point (n,) and the gradient there, as the history predicts it.
    """
    if not history.held:
        return point, gradient
    rows = history.rows()[-COMBINED:]
    differences = history.gradients[rows]
    scale = split / max(len(gradient) - split, 1)  # of the bias, as a factor of its squares
    ours, bias = differences[:, :split], differences[:, split:]
    system = ours @ ours.T + scale * (bias @ bias.T)
    target = ours @ gradient[:split] + scale * (bias @ gradient[split:])
    units = 1 / np.sqrt(np.maximum(np.diag(system), 1e-300))
    system = system * units[:, None] * units[None, :]
    mix = -np.linalg.lstsq(system, target * units, rcond=1e-12)[0] * units
    combined = point.copy()
    for share, row in zip(mix, rows, strict=True):
        combined += share * history.points[row]
    return combined, gradient + mix @ differences
