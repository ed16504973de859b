"""What the fit at one strength leaves for the next, and what a descent begins with."""

__all__ = ["Warmth", "ahead", "equipped"]

from typing import NamedTuple

import numpy as np

from jaxlin.solvers.builder import MetricBuilder
from jaxlin.solvers.lbfgs import Memory, room
from jaxlin.solvers.problem import Problem

RELATED = 2.0
"""Factor between strengths up to which a metric serves for both."""
NEAR = 4.0
"""Factor between one strength and the next up to which the pairs of L-BFGS serve for both."""


class Warmth(NamedTuple):
    """What one fit leaves for the next strength."""

    builder: MetricBuilder
    metric: object
    metric_strength: float
    follows: bool
    """Whether the metric followed the iterate."""
    memory: Memory
    point: np.ndarray
    strength: float
    velocity: np.ndarray | None
    """Change of the solution per unit of log strength."""


def ahead(warmth: Warmth, problem: Problem):
    """Where the solution should be at this strength: on along the path if it is known."""
    if warmth.velocity is None or problem.strength == 0:
        return warmth.point
    return warmth.point + warmth.velocity * np.log(problem.strength / warmth.strength)


def equipped(problem: Problem, weights, bias, warmth: Warmth | None, near: bool):
    """Builder, metric, its strength, whether it follows the iterate, and a memory.

    `near`: the point is so near to the optimum that the metric should follow it from the start.
    """
    size = weights.size + bias.size
    memory = Memory(size=room(size))
    builder = MetricBuilder(problem, shared=None if warmth is None else warmth.builder)
    if warmth is not None and 1 / NEAR < problem.strength / warmth.strength < NEAR:
        # the penalty's part of the differences of gradients is known exactly
        more = 2 * (problem.strength - warmth.strength)
        old, split = warmth.memory, weights.size
        memory = memory._replace(
            lengths=old.lengths,
            points=old.points,
            gradients=tuple(
                np.concatenate([y[:split] + more * s[:split], y[split:]])
                for s, y in zip(old.points, old.gradients, strict=True)
            ),
        )
        if 1 / RELATED < problem.strength / warmth.metric_strength < RELATED:
            return builder, warmth.metric, warmth.metric_strength, warmth.follows, memory
    follows = near or builder.starts_exact() or (warmth is not None and warmth.follows)
    if follows:
        metric, _ = builder.following(weights, bias)
    else:
        metric = builder.gram(weights, bias)
    return builder, metric, problem.strength, follows, memory
