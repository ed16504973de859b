"""Preconditioned conjugate gradients, on the host and inside compiled programs, and the least of an
objective on a line.

Systems are known by their products alone. On the host vectors are arrays (n,), and a solve that was
left goes on; in a program they are tuples of arrays, and loops are XLA's.
"""

__all__ = ["conjugate_gradients", "dot", "line_minimum", "plus", "solve_compiled"]

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxlin.solvers.dual_losses import DualForm, own_of, total

FLAT = float(np.finfo(np.float32).eps)
"""Metrics are made in float32: less than this share of theirs is no curvature but rounding."""
TRIALS = 60
"""Points that one line search looks at, at most: halvings of a step that is too long by any factor.
Where fixed parts of the scores are in the hundreds nearly nothing bends at first, and 12 were too
few for some steps."""


def conjugate_gradients(
    product: Callable[[np.ndarray], np.ndarray],
    precondition: Callable[[np.ndarray], np.ndarray],
    right: np.ndarray,
    accuracy: float,
    most: int,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[tuple[np.ndarray, np.ndarray], int, bool]:
    """Solve A d = right to a relative residual of `accuracy`.

    Args:
      product, precondition: vector -> A vector, and about A^-1 vector; both positive definite.
      right: (n,)
      most: steps after which to stop all the same.
      start: d and right - A d from before, to go on from; by default from 0.

    Returns:
      d and right - A d; the steps taken; and whether no more are needed. A d that came to nothing
      is the direction that would have been tried first. Where A is flat along a direction, up to
      the rounding of the preconditioner, no length is right: it ends before that direction.
    """
    found, residual = (np.zeros_like(right), right) if start is None else start
    enough = accuracy**2 * (right @ right)
    ahead = precondition(residual)
    along, energy = ahead, residual @ ahead
    measured = energy  # along @ M along, of the preconditioner M that stands for A
    count, done = 0, False
    while count < most and not done:
        count += 1
        moved = product(along)
        curvature = along @ moved
        if not curvature > FLAT * measured:
            done = True
            break
        length = energy / curvature
        found, residual = found + length * along, residual - length * moved
        done = residual @ residual <= enough
        if not done:
            ahead = precondition(residual)
            previous, energy = energy, residual @ ahead
            share = energy / previous
            along = ahead + share * along
            measured = energy + share**2 * measured  # the residual is orthogonal to the last along
    return (found if found.any() else along, residual), count, done


def dot(one: tuple[Array, ...], other: tuple[Array, ...]) -> Array:
    """The inner product of two tuples of arrays."""
    found: Any = sum(jnp.vdot(a, b) for a, b in zip(one, other, strict=True))
    return found


def plus(one: tuple[Array, ...], share: ArrayLike, other: tuple[Array, ...]) -> tuple[Array, ...]:
    """one + share * other, of tuples of arrays."""
    return tuple(a + share * b for a, b in zip(one, other, strict=True))


def solve_compiled(
    product: Callable[[tuple[Array, ...]], tuple[Array, ...]],
    precondition: Callable[[tuple[Array, ...]], tuple[Array, ...]],
    right: tuple[Array, ...],
    enough: Callable[[tuple[Array, ...], Array, Array], Array],
    products: int,
) -> tuple[tuple[Array, ...], Array]:
    """Solve `product(x) = right` approximately, from 0.

    Args:
      product, precondition: of tuples of arrays, linear and positive (semi)definite.
      enough: (residual, its square in the preconditioner, that of `right`) -> bool, when to stop.
      products: the most that may be taken.

    Returns:
      The solution and the number of products.
    """
    first = precondition(right)
    start = dot(right, first)
    nothing = tuple(jnp.zeros_like(part) for part in right)

    def going(state: tuple[Any, ...]) -> Array:
        _, residual, _, square, count = state
        return (count < products) & ~enough(residual, square, start) & (square > 0)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        found, residual, along, square, count = state
        curved = product(along)
        curvature = dot(along, curved)
        length = jnp.where(curvature > 0, square / jnp.where(curvature > 0, curvature, 1), 0)
        found, residual = plus(found, length, along), plus(residual, -length, curved)
        mapped = precondition(residual)
        after = jnp.where(curvature > 0, dot(residual, mapped), 0)  # 0 ends it
        return found, residual, plus(mapped, after / square, along), after, count + 1

    begin: tuple[Any, ...] = (nothing, right, first, start, 0)
    found, _, _, _, count = lax.while_loop(going, step, begin)
    return found, count


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
    own = own_of(jnp, labels, scores.shape[0])
    accuracy = 0.1 * jnp.abs(slope)

    def going(state: tuple[Any, ...]) -> Array:
        return (state[0] < TRIALS) & ~state[-1]

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        count, t, low, high, _ = state
        z = form.shortfalls(jnp, scores + t * along, own, margin)
        a = form.maximizer(jnp, z, 1.0, 0.0)
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
