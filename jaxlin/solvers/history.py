"""The history of a quasi-Newton method: its last pairs of differences, and what follows from them.

Vectors are flat float64 arrays, (n,) with n = K * D + K: the weights row by row, then the bias.
They lie on the host or on an accelerator; to the host come the numbers that decide, and systems of
as many unknowns as there are pairs.

Differences of gradients correct a preconditioner, an approximate inverse Hessian M, by the two
loops of L-BFGS. They also give the point of least gradient among all combinations of the
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
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin.precision import jit
from jaxlin.solvers.dual_losses import AnyArray, ArrayModule, module_of, repeat

SCALED_BY = 3
"""Pairs by whose mean length M is scaled: one alone swings by a factor of two."""
COMBINED = 20
"""Youngest pairs that the point of least gradient is made of."""


class History(NamedTuple):
    """A ring of M pairs; `pushed` writes into it: the one it was given is used up."""

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


def empty_history(size: int, most: int = 30, xp: ArrayModule = np) -> History:
    """For vectors (size,) of this array module."""
    points, gradients = (xp.zeros((history_size(size, most), size)) for _ in range(2))
    return History(points, gradients, 0, 0, np.full(SCALED_BY, np.nan))


def forgotten(history: History, keep: int) -> History:
    """Only the `keep` youngest pairs are left, for another preconditioner."""
    return history._replace(held=min(history.held, keep), lengths=np.full(SCALED_BY, np.nan))


def pushed(history: History, point: np.ndarray, gradient: np.ndarray) -> History:
    """One more pair; pairs without curvature (rounding) are left out."""
    curvature, square = float(point @ gradient), float((point @ point) * (gradient @ gradient))
    if not curvature > 1e-16 * np.sqrt(square):
        return history
    size, row = len(history.points), history.next
    return history._replace(
        points=_put(history.points, row, point),
        gradients=_put(history.gradients, row, gradient),
        next=(history.next + 1) % size,
        held=min(history.held + 1, size),
        lengths=np.append(history.lengths[1:], np.nan),
    )


def _put(vectors: AnyArray, row: int, vector: AnyArray) -> AnyArray:
    if isinstance(vectors, jax.Array):
        return _put_compiled(vectors, row, vector)
    vectors[row] = vector
    return vectors


@partial(jit, donate_argnums=0)
def _put_compiled(vectors: jax.Array, row: int, vector: jax.Array) -> jax.Array:
    return vectors.at[row].set(vector)


def step_from(history: History, precondition: Callable, gradient: AnyArray) -> AnyArray:
    """The quasi-Newton step: minus the corrected inverse Hessian times the gradient.

    Args:
      precondition: vector -> M vector.
    """
    reduced, shares = _run(_reduced, history, gradient)
    return _run(_corrected, history, precondition(reduced), shares)


def scaled_step(
    history: History, precondition: Callable, gradient: AnyArray
) -> tuple[AnyArray, History]:
    """The step with M scaled as its last pairs say, and the history that knows how.

    By the mean of the lengths s'y / y'My of the youngest pairs (Oren and Luenberger, 1974): a
    sample of rows knows too little curvature, and what it knows ages as the iterate moves on.

    Args:
      precondition: of several vectors (..., n) at once, which costs little more than of one.
    """
    known, xp = np.isfinite(history.lengths), module_of(gradient)
    unknown = max(min(SCALED_BY, history.held) - int(known.sum()), 0)
    asked = unknown if xp is np else SCALED_BY  # programs are compiled for sizes
    rows = (history.next - asked + np.arange(asked)) % len(history.points)
    points, gradients = history.points[rows], history.gradients[rows]
    reduced, shares = _run(_reduced, history, gradient)
    images = precondition(xp.concatenate([reduced[None], gradients]))
    step, squares = images[0], (gradients * images[1:]).sum(1)
    found = np.asarray((points * gradients).sum(1) / xp.where(squares == 0, 1, squares))
    found = np.clip(found[asked - unknown :], 1e-3, 1e3)
    lengths = np.concatenate([history.lengths[known], found])
    if len(lengths):
        step = step * float(np.exp(np.mean(np.log(lengths))))
        missing = np.full(SCALED_BY - len(lengths), np.nan)
        history = history._replace(lengths=np.concatenate([missing, lengths]))
    return _run(_corrected, history, step, shares), history


def least_gradient(
    history: History, point: AnyArray, gradient: AnyArray, split: int
) -> tuple[AnyArray, AnyArray]:
    """The combination of the last iterates whose gradient is least, and its gradient.

    Args:
      split: K * D: the bias part, after it, is balanced exactly by the certificate, and counts
        less than the weights, though not nothing.

    Returns:
      The point (n,) and the gradient there, as the history predicts it.
    """
    if not history.held:
        return point, gradient
    found = _run(_normal_equations, history, gradient, split=split)
    system, target = (np.asarray(part) for part in found)
    units = 1 / np.sqrt(np.maximum(np.diag(system), 1e-300))
    system = system * units[:, None] * units[None, :]
    mix = -np.linalg.lstsq(system, target * units, rcond=1e-12)[0] * units
    return _run(_combined, history, point, gradient, mix)


def _run(f: Callable[..., Any], history: History, *vectors: AnyArray, **settings: int) -> Any:
    """f(xp, history, *vectors, **settings), compiled where these are XLA's."""
    if module_of(history.points) is np:
        return f(np, history, *vectors, **settings)
    return _compiled(f, **settings)(history, *vectors)


@cache
def _compiled(f: Callable[..., Any], **settings: int) -> Callable[..., Any]:
    return jit(partial(f, jnp, **settings))


def _walk(xp: ArrayModule, history: History, body: Callable[..., Any], state: Any) -> Any:
    """state = body(i, state), as many times as there are pairs."""

    def step(counted: tuple[AnyArray, Any]) -> tuple[AnyArray, Any]:
        return counted[0] + 1, body(*counted)

    return repeat(xp, lambda counted: counted[0] < history.held, step, (0, state))[1]


def _reduced(xp: ArrayModule, history: History, gradient: AnyArray) -> tuple[AnyArray, AnyArray]:
    """The gradient without what the pairs explain, youngest first, and how much each does, (M,)."""
    points, gradients, after, *_ = history

    def explain(i: AnyArray, state: tuple[AnyArray, AnyArray]) -> tuple[AnyArray, AnyArray]:
        reduced, shares = state
        row = (after - 1 - i) % len(points)
        share = (points[row] @ reduced) / (points[row] @ gradients[row])
        return reduced - share * gradients[row], _put(shares, row, share)

    return _walk(xp, history, explain, (gradient, xp.zeros(len(points))))


def _corrected(xp: ArrayModule, history: History, image: AnyArray, shares: AnyArray) -> AnyArray:
    """Minus what M makes of the reduced gradient, with what the pairs know."""

    def correct(i: AnyArray, step: AnyArray) -> AnyArray:
        row = (history.next - history.held + i) % len(shares)
        s, y = history.points[row], history.gradients[row]
        return step + (shares[row] - (y @ step) / (s @ y)) * s

    return -_walk(xp, history, correct, image)


def _youngest(xp: ArrayModule, history: History, vectors: AnyArray) -> AnyArray:
    """The `COMBINED` youngest of the ring, youngest first; in a program zeros for those missing."""
    most = min(COMBINED, len(vectors))
    back = xp.arange(most if xp is not np else min(most, history.held))
    found = vectors[(history.next - 1 - back) % len(vectors)]
    return found if xp is np else xp.where((back < history.held)[:, None], found, 0)


def _normal_equations(
    xp: ArrayModule, history: History, gradient: AnyArray, *, split: int
) -> tuple[AnyArray, AnyArray]:
    differences = _youngest(xp, history, history.gradients)
    scale = split / max(len(gradient) - split, 1)  # of the bias, as a factor of its squares
    ours, bias = differences[:, :split], differences[:, split:]
    target = ours @ gradient[:split] + scale * (bias @ gradient[split:])
    return ours @ ours.T + scale * (bias @ bias.T), target


def _combined(
    xp: ArrayModule, history: History, point: AnyArray, gradient: AnyArray, mix: AnyArray
) -> tuple[AnyArray, AnyArray]:
    moved, changed = (mix @ _youngest(xp, history, part) for part in history[:2])
    return point + moved, gradient + changed
