"""Preconditioned conjugate gradients, in NumPy and inside of programs, and where an objective is
least on a line.

Systems are known by their products alone, and unknowns are arrays of any shape. Weights (K, D) and
bias (K,) are one array of unknowns side by side, (K, D + 1).
"""

__all__ = [
    "FLAT",
    "conjugate_gradients",
    "definite_solution",
    "joined",
    "line_minimum",
    "split",
    "within",
]

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import cho_factor, cho_solve
from jax.typing import ArrayLike

from jaxlin.solvers.dual_losses import (
    AnyArray,
    ArrayModule,
    Block,
    DualForm,
    maximizers,
    repeat,
    total,
)

FLAT = float(np.finfo(np.float32).eps)
"""Preconditioners are made in float32: less than this share of theirs is no curvature but
rounding."""
TRIALS = 60
"""Points that one line search looks at, at most: halvings of a step that is too long by any factor.
Where fixed parts of the scores are in the hundreds nearly nothing bends at first, and 12 were too
few for some steps."""


def joined(weights: Array, bias: Array) -> Array:
    """(K, D) and (K,) -> (K, D + 1)."""
    return jnp.concatenate([weights, bias[:, None]], axis=1)


def split(unknowns: Array) -> tuple[Array, Array]:
    """(K, D + 1) -> (K, D) and (K,)."""
    return unknowns[:, :-1], unknowns[:, -1]


def conjugate_gradients(
    xp: ArrayModule,
    product: Callable[[AnyArray], AnyArray],
    precondition: Callable[[AnyArray], AnyArray],
    right: AnyArray,
    enough: Callable[[AnyArray, AnyArray, AnyArray], AnyArray],
    most: int,
    *,
    start: tuple[AnyArray, AnyArray] | None = None,
    flat: float = FLAT,
) -> tuple[AnyArray, AnyArray, AnyArray, AnyArray]:
    """Solve A d = right, about.

    Args:
      product, precondition: x -> A x, and about A^-1 x; linear, both positive (semi)definite.
      right: an array of any shape.
      enough: (residual, its square in the preconditioner, that of the first) -> when to stop.
      most: products that may be taken.
      start: d and right - A d from before, to go on from; by default from 0.
      flat: share of the preconditioner's curvature along a direction below which A is flat there.
        No length is right then, and the solve ends before that direction.

    Returns:
      d; right - A d; the products taken; and whether no more are needed. A d that came to nothing
      is the direction that would have been tried first.
    """
    found, residual = (xp.zeros_like(right), right) if start is None else start
    ahead = precondition(residual)
    first = xp.vdot(residual, ahead)

    def going(state: tuple[Any, ...]) -> AnyArray:
        return (state[-2] < most) & ~state[-1]

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        found, residual, along, energy, measured, count, _ = state
        moved = product(along)
        curvature = xp.vdot(along, moved)
        bends = curvature > flat * measured
        length = xp.where(bends, energy / xp.where(bends, curvature, 1), 0)
        found, residual = found + length * along, residual - length * moved
        ahead = precondition(residual)
        after = xp.vdot(residual, ahead)
        share = after / energy
        done = ~bends | enough(residual, after, first) | ~(after > 0)
        along = xp.where(bends, ahead + share * along, along)
        # in the preconditioner: the residual is orthogonal to the last direction
        return found, residual, along, after, after + share**2 * measured, count + 1, done

    begin = found, residual, ahead, first, first, 0, ~(first > 0)
    found, residual, along, *_, count, done = repeat(xp, going, step, begin)
    return xp.where((found != 0).any(), found, along), residual, count, done


def within(right: AnyArray, accuracy: float) -> Callable[..., AnyArray]:
    """`enough`: the residual is at most `accuracy` times as long as `right`, (n,) both."""
    most = accuracy**2 * (right @ right)
    return lambda residual, *_: residual @ residual <= most


def definite_solution(xp: ArrayModule, system: AnyArray, right: AnyArray) -> AnyArray:
    """Of a small dense system that is symmetric and positive definite, (K, K) and (K,).

    In a program by Cholesky, since a TPU has no LU in float64; 0 where rounding hides that the
    system is definite.
    """
    if xp is np:
        return np.linalg.solve(system, right)
    found = cho_solve(cho_factor(system), right)
    return jnp.where(jnp.isfinite(found).all(), found, 0)


def line_minimum(
    form: DualForm,
    scores: Array,
    along: Array,
    labels: Array,
    counts: Array,
    margin: Array,
    slope: Array,
    linear: ArrayLike,
    square: ArrayLike,
) -> Array:
    """Where the objective is least on a line, about: there its derivative is a tenth or less.

    Args:
      form: smooth.
      scores, along: (K, N), at the start and their change for a step of 1.
      labels, counts, margin: of the rows.
      slope: derivative of the objective at the start, negative.
      linear, square: the penalty is (constant) + linear t + square t^2 at step t.

    Returns:
      The step, nonnegative.
    """
    block = Block(scores, labels, counts, margin=margin)
    accuracy = 0.1 * jnp.abs(slope)

    def going(state: tuple[Any, ...]) -> Array:
        return (state[0] < TRIALS) & ~state[-1]

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        count, t, low, high, _ = state
        a, _, own = maximizers(jnp, form, block._replace(scores=scores + t * along))
        firsts = counts * total(jnp, form.residuals(jnp, a, own) * along)
        seconds = counts * total(jnp, along * form.curve(jnp, form.bend(jnp, a, 1.0), own, along))
        first, second = firsts.sum() + linear + 2 * t * square, seconds.sum() + 2 * square
        noise = 4 * jnp.finfo(scores.dtype).eps * (jnp.abs(firsts).sum() + jnp.abs(linear))
        near = jnp.abs(first) <= accuracy + noise
        low, high = jnp.where((first < 0) | near, t, low), jnp.where(first < 0, high, t)
        newton = t - first / jnp.where(second > 0, second, 1)
        newton = jnp.where(jnp.isinf(high), jnp.clip(newton, 1.2 * t, 4 * t), newton)
        inside = (newton > low) & (newton < high) & (second > 0)
        halved = jnp.where(jnp.isinf(high), 2 * t, (low + high) / 2)
        return count + 1, jnp.where(inside, newton, halved), low, high, near

    one = jnp.ones((), scores.dtype)
    begin = (0, one, jnp.zeros_like(one), jnp.full_like(one, jnp.inf), slope >= 0)
    return lax.while_loop(going, step, begin)[2]  # the last that did not go too far
