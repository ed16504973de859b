"""What a path of strengths carries from one fit to the next, as plain arrays that can be saved.

A metric is a function, over factors that would fill a disk. What is saved is where it was built
and the number of its draw, and it is built again where it is needed: draws are seeded, so that a
path that goes on from `Carried` takes the very steps of one that was never left. Nor is a dual
point saved, which is as large as the scores: where the next strengths are to be filled in from it,
its strength is solved again.
"""

__all__ = ["Carried", "blank_carried", "carried_of", "shapes_of", "warmth_of"]

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from jaxlin.solvers.builder import MetricBuilder, recipe_of
from jaxlin.solvers.lbfgs import arrays_of, memory_of, room
from jaxlin.solvers.problem import Problem
from jaxlin.solvers.warmth import Warmth


class Carried(NamedTuple):
    """The end of a fit, float64, over the classes that occur: n = K * D + K; 0 for what is not."""

    weights: np.ndarray
    """(K, D)."""
    bias: np.ndarray
    """(K,)."""
    velocity: np.ndarray
    """(n,) or (0,): change of the solution per unit of log strength."""
    points: np.ndarray
    """(M, n): the pairs of L-BFGS."""
    gradients: np.ndarray
    """(M, n)."""
    lengths: np.ndarray
    """(up to 3,): how these pairs scale the metric."""
    built_weights: np.ndarray
    """(K, D) or (0, 0): where the metric was built; without one there is no warmth."""
    built_bias: np.ndarray
    """(K,) or (0,)."""
    settings: np.ndarray
    """(10,): strength, strength of the metric, whether it followed the iterate, and the seven of
    `MetricBuilder.state`."""
    end: np.ndarray
    """(2,) or (0,): strength and tolerance of the fit that was done last, where it is to be done
    again; all else is then from before it."""


def carried_of(weights, bias, warmth: Warmth | None, end=()) -> Carried:
    """The end of a fit as arrays.

    Args:
      weights, bias: (K, D) and (K,), where it ended.
      warmth: what a smooth loss leaves beside.
      end: strength and tolerance of a fit that started there and is to be done again.
    """
    none, flat, end = np.zeros(0), np.zeros((0, 0)), np.array(end, np.float64)
    if warmth is None:
        return Carried(weights, bias, none, flat, flat, none, flat, none, np.zeros(10), end)
    velocity = none if warmth.velocity is None else warmth.velocity
    *built, settings = warmth.builder.state()
    own = np.array([warmth.strength, warmth.metric_strength, warmth.follows], np.float64)
    settings = np.concatenate([own, settings])
    return Carried(weights, bias, velocity, *arrays_of(warmth.memory), *built, settings, end)


def warmth_of(carried: Carried, problem: Problem) -> Warmth | None:
    """The warmth that `carried_of` took apart; `problem` is of the same rows and counts."""
    if not carried.built_bias.size:
        return None
    strength, metric_strength, follows = carried.settings[:3]
    at_metric = problem._replace(strength=float(metric_strength))
    recipe = recipe_of(carried.built_weights, carried.built_bias, carried.settings[3:])
    builder = MetricBuilder(at_metric)
    builder.builds, builder.recipe = int(carried.settings[6]), recipe

    @cache
    def built():
        return MetricBuilder(at_metric, shared=builder).follow(recipe)

    size = carried.weights.size + carried.bias.size
    return Warmth(
        builder,
        lambda *vector: built()(*vector),
        float(metric_strength),
        bool(follows),
        memory_of(carried.points, carried.gradients, carried.lengths, room(size)),
        np.concatenate([carried.weights.ravel(), carried.bias]).reshape(size),
        float(strength),
        carried.velocity if carried.velocity.size else None,
    )


def shapes_of(carried: Carried) -> dict[str, Any]:
    """The shapes of the arrays, in JSON: what `blank_carried` needs."""
    return {name: list(array.shape) for name, array in carried._asdict().items()}


def blank_carried(shapes: dict[str, Any]) -> Carried:
    """Zeros of these shapes, to be filled from a file."""
    return Carried(**{name: np.zeros(shape) for name, shape in shapes.items()})
