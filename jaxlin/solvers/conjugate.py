"""Preconditioned conjugate gradients, for systems whose matrix is known by its products alone."""

__all__ = ["conjugate_gradients"]

import numpy as np

FLAT = float(np.finfo(np.float32).eps)
"""Metrics are made in float32: less than this share of theirs is no curvature but rounding."""


def conjugate_gradients(product, precondition, right, accuracy, most, start=None):
    """Solve A d = right to a relative residual of `accuracy`.

    Args:
      product, precondition: vector -> A vector, and about A^-1 vector; both positive definite.
      right: (n,)
      most: steps after which to stop all the same.
      start: d and right - A d from before, to go on from; by default from 0.

    Returns:
      d and right - A d; the steps taken; and whether no more are needed. A d that came to nothing
      is the direction that would have been tried first. Where A is flat along a direction, up to
      the rounding of the metric, no length is right: it ends before that direction.
    """
    found, residual = (np.zeros_like(right), right) if start is None else start
    enough = accuracy**2 * (right @ right)
    ahead = precondition(residual)
    along, energy = ahead, residual @ ahead
    measured = energy  # along @ M along, of the metric M that stands for A
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
