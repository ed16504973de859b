r"""Strengths between two that were solved: interpolated and certified without reading a row.

Along a path of strengths the solution is smooth in their logarithm, so a classifier interpolated
between two solutions is near optimal; the gap it leaves falls with the fourth power of the
distance. Its proof costs element-wise work only, because both sides of it are linear: the scores
of interpolated parameters are the interpolated scores, and a convex combination of two dual
points is a dual point whose G is the same combination of theirs (`jaxlin.solvers.certificate`).
Neither depends on the strength. The share of the second dual point is the one that makes
|G + 2 strength W| least.

Parameters are handed back rounded to the dtype of the result, and scores are kept in the dtype of
the arithmetic. That moves scores by at most `moved`, hence a softmax loss by at most a factor
exp(2 moved) (log(1 + c x) <= c log(1 + x) for c >= 1), and the root of a squared hinge by at most
2 moved sqrt(K). The objective that is reported includes it.
"""

__all__ = ["End", "end_of", "fill", "reach"]

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlin.memory import kept_bytes
from jaxlin.solvers.certificate import Certificate, Dual, bound_of, dual_point, gains_of
from jaxlin.solvers.dual_losses import AnyArray, ArrayModule, Block, DualForm, own_of
from jaxlin.solvers.problem import Problem, penalty, rounded
from jaxlin.solvers.status import Fit, Status

KEPT_BYTES = 2 << 30
"""Scores of two ends beyond this are not kept, on a CPU."""
CURVING = {"softmax": 1.5e-3, "other": 5e-3}
"""The relative gap that is left between ends a factor e apart, about. It only chooses what is
tried; what is found is proved. On features of a falling spectrum it was 4e-4 to 1.4e-3 for softmax
and 3.5e-3 for squared hinges, whose dual points have kinks along the path."""


class End(NamedTuple):
    """A solved strength: parameters as they are handed back, in float64, and its dual point."""

    strength: float
    weights: np.ndarray
    bias: np.ndarray
    dual: Dual


def reach(problem: Problem, tolerance: float) -> float:
    """How far apart, as a difference of logarithms, two solved strengths may lie; 0: no gaps."""
    kept = 2 * problem.rows.size * problem.classes * np.dtype(problem.dtype).itemsize
    if not problem.form.smooth or problem.l1_strength > 0 or problem.on_host:
        return 0.0
    if kept > kept_bytes(problem.rows.device, KEPT_BYTES):
        return 0.0
    return (tolerance / CURVING.get(problem.form.name, CURVING["other"])) ** 0.25


def end_of(problem: Problem, fit: Fit) -> End | None:
    """The fit as an end, if it is certified as it stands."""
    if fit.proof is None or not fit.proof.dual.exact or fit.status != Status.CONVERGED:
        return None
    return End(problem.strength, fit.weights, fit.bias, fit.proof.dual)


def fill(problem: Problem, left: End, right: End) -> Fit | None:
    """The fit at the problem's strength, between those of the ends; `None` if not within tolerance.

    Args:
      problem: at the strength that is wanted.
      left, right: of the same rows, counts and loss.
    """
    strength = problem.strength
    place = np.log(strength / left.strength) / np.log(right.strength / left.strength)

    def between(a: AnyArray, b: AnyArray, share: float) -> AnyArray:
        return (1 - share) * a + share * b

    ends = (left.weights, right.weights), (left.bias, right.bias)
    weights, bias = rounded(problem, *(between(a, b, place) for a, b in ends))
    one, other = left.dual, right.dual
    rest, change = one.products + 2 * strength * weights, other.products - one.products
    share = float(np.clip(-np.sum(rest * change) / max(np.sum(change**2), 1e-300), 0, 1))
    with jax.enable_x64(True):
        by_row = (one.scores, other.scores, problem.labels, problem.xp.asarray(problem.counts))
        found = problem.rows.total(
            _both_sides(problem.form), by_row,
            *(place, share, one.shift, one.mixing, other.shift, other.mixing, problem.margin),
        )  # fmt: skip
        loss, *gains = (float(side) for side in found)
    objective = _at_most(problem, loss, left, right) + penalty(problem, weights)
    products = one.products + share * change
    lower = bound_of(
        problem, products, between(one.sums, other.sums, share), gains,
        between(one.size, other.size, share), objective,
    )  # fmt: skip
    if not objective - lower <= problem.tolerance * objective:
        return None
    gradient = products + 2 * strength * weights
    proof = Certificate(objective, bias, lower, gradient, 0.0, None, problem.rows.arithmetic)
    norm = float(np.linalg.norm(gradient))
    return Fit(weights, bias, lower, norm, 0, 0.0, Status.CONVERGED, proof)


def _at_most(problem: Problem, loss: float, left: End, right: End) -> float:
    """A bound on the mean loss at rounded parameters from the one at rounded scores."""
    unit = max(
        np.finfo(dtype).eps / 2
        for dtype in (problem.result_dtype, left.dual.scores.dtype, right.dual.scores.dtype)
    )
    radius = problem.rows.radius() + float(np.linalg.norm(problem.center))
    size = max(
        float(np.linalg.norm(end.weights, axis=1).max()) * radius + float(np.abs(end.bias).max())
        for end in (left, right)
    )
    moved = 2 * unit * size * (1 + 1e-3)
    if problem.form.geometry == "softmax":
        return loss * float(np.exp(2 * moved))
    return (np.sqrt(loss) + 2 * moved * np.sqrt(problem.classes)) ** 2


@cache
def _both_sides(form: DualForm) -> Callable[..., Any]:
    """Sums over the rows of the interpolated loss, and of what the mixed dual point gains."""
    return partial(_sums, form)


def _sums(
    form: DualForm,
    xp: ArrayModule,
    one: AnyArray,
    other: AnyArray,
    labels: AnyArray,
    counts: AnyArray,
    place: float,
    share: float,
    shift: AnyArray,
    mixing: AnyArray,
    shift2: AnyArray,
    mixing2: AnyArray,
    margin: AnyArray,
) -> tuple[AnyArray, ...]:
    own = own_of(xp, labels, one.shape[0])
    scores = (1 - place) * one.astype(xp.float64) + place * other.astype(xp.float64)
    loss = form.loss(xp, form.shortfalls(xp, scores, own, margin), own)
    a, _ = dual_point(xp, form, Block(one, labels, counts, margin=margin), shift, mixing)
    b, _ = dual_point(xp, form, Block(other, labels, counts, margin=margin), shift2, mixing2)
    gains = gains_of(xp, form, (1 - share) * a + share * b, own, counts, margin)
    return (counts * loss).sum(), *gains
