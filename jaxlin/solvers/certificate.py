r"""Lower bounds on the optimum that are proofs, evaluated in float64 from the data.

Write each loss as a maximum over dual variables (`jaxlin.solvers.dual_losses`),
loss(s, y) = max_a r(a) . s + gain(a), with gain(a) = margin sum(a) - h(a) (entropy for softmax).
For *any* feasible a_i, one per example, and any W, b,

    sum_i c_i loss_i + penalty(W)  >=  <G, W> + b . rho + penalty(W) + sum_i c_i gain(a_i),
    G = sum_i c_i r(a_i) x_i^T,     rho = sum_i c_i r(a_i).

If the dual point balances, rho = 0, the bias drops out, and minimizing over W alone leaves
Fenchel's lower bound (Rockafellar, 1970, section 31; for l2 also Shalev-Shwartz and Zhang, 2013)

    sum_i c_i gain(a_i) - sum max(0, |G| - l1_strength)^2 / (4 strength),

with nothing subtracted where strength = 0 and |G| <= l1_strength: the point is shrunk by
l1_strength / max |G| to get there. The dual points are the maximizers at the current scores;
near the optimum they are near optimal, and `jaxlin.solvers.balance` makes them balance.

Rounding. Sums over rows have an error of at most depth * 2^-53 times the sum of their terms' sizes
(Higham, 2002, section 3.1), which bounds that of G, rho and the gains. What remains of rho
multiplies the optimal bias, bounded by Jensen's inequality over the rows of a class:
b_j - b_k <= P / c(k) + sqrt(2 P / strength) radius, where P is any objective that was reached. All
are subtracted from the bound.

Both errors grow with the norms of the rows, which is why those of a problem lie near zero
(`jaxlin.solvers.problem`).
"""

__all__ = [
    "Certificate",
    "Dual",
    "bound_of",
    "certify",
    "costless_bias",
    "dual_point",
    "farthest_bias",
    "gains_of",
    "losing_bias",
    "objective_at",
    "smallest_lead",
]

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from jaxlin.distributed.sharding import fetch
from jaxlin.solvers.balance import (
    UNIT,
    balanced_bias,
    feasible,
    mixed,
    mixing_that_balances,
    shifted,
)
from jaxlin.solvers.dual_losses import AnyArray, ArrayModule, Block, DualForm, own_of, total
from jaxlin.solvers.problem import Problem, penalty
from jaxlin.solvers.rowwise import rowwise, runner, summing

SLIGHT = 1e-3
"""Of the tolerance: an imbalance that moving mass between classes mends without costing bound."""


class Certificate(NamedTuple):
    """Both sides of the optimum, from one point.

    >>> from jaxlin.solvers.problem import open_problem
    >>> problem, _, _ = open_problem(np.array([[0.0], [1.0]]), np.array([0, 1]), strength=0.5)
    >>> proof = certify(problem, np.zeros((2, 1)), np.zeros(2))
    >>> bool(proof.lower_bound < proof.objective), proof.gradient.shape
    (True, (2, 1))
    """

    objective: float
    """At `weights` and `bias`."""
    bias: np.ndarray
    """(K,): the bias given, or a better one for the same weights."""
    lower_bound: float
    gradient: np.ndarray
    """(K, D): G + 2 strength W at the balanced dual point, float64."""
    evaluations: float
    dual: "Dual | None"
    arithmetic: str
    """What it was computed with, such as "float64 on cpu"; pairs of float32 prove nothing."""


class Dual(NamedTuple):
    """A dual point, which proves a bound for any strength: rows can make it again from scores."""

    scores: Any
    """(K, N), where the rows are computed."""
    shift: np.ndarray
    """(K,): what was added to the bias to balance it."""
    mixing: Any
    """How mass was moved between classes after that."""
    products: np.ndarray
    """G, (K, D)."""
    sums: np.ndarray
    """rho, (K,): 0 up to rounding, or where the bias is fixed anything."""
    size: float
    """Sum of the Euclidean norms of the rows' residuals, weighted."""
    exact: bool
    """The scores are those of the certified parameters, which were not moved."""


def certify(
    problem: Problem,
    weights: ArrayLike,
    bias: ArrayLike,
    *,
    smoothing: float = 1.0,
    anchor: AnyArray = 0.0,
    dtype: DTypeLike = np.float64,
    exact: bool = False,
) -> Certificate:
    """The objective at `weights` and the best lower bound that their scores give.

    Args:
      problem: what is minimized.
      weights, bias: (K, D), (K,).
      smoothing, anchor: of the maximizers of non-smooth losses.
      dtype: of the scores and of the maximizers. Any dual point proves a bound, so float32 is as
        sound as float64; from the dual point on everything is float64.
      exact: the parameters are final: their objective is evaluated from float64 scores, and the
        bias is not moved.

    >>> from jaxlin.solvers.problem import open_problem
    >>> problem, _, _ = open_problem(np.array([[0.0], [1.0]]), np.array([0, 1]), strength=0.5)
    >>> certify(problem, np.zeros((2, 1)), np.zeros(2)).objective  # log 2
    0.6931...
    """
    weights, bias = np.asarray(weights, np.float64), np.asarray(bias, np.float64)
    form = problem.form
    dtype = np.dtype(np.float64) if problem.on_host else np.dtype(dtype)
    scores, loss = _scores_and_loss(problem, weights, bias, np.float64 if exact else dtype, dtype)
    with jax.enable_x64(True):
        by_row = scores, problem.labels, problem.xp.asarray(problem.counts), anchor
        numbers = problem.margin, smoothing
        summed = summing(problem, by_row, *numbers)
        mixing, shift = None, np.zeros(problem.classes)
        if problem.fit_intercept and problem.classes > 1:
            slight = max(1e-15, SLIGHT * problem.tolerance * loss / problem.classes)
            settings: Any = {"dtype": scores.dtype, "accuracy": slight}
            shift = balanced_bias(np, form, summed, problem.masses, **settings)
            moved = np.inf if exact else float(summed(_loss_at, shift))
            if moved < loss:
                loss, bias = moved, np.asarray(bias + shift)
        if problem.fit_intercept:
            mixing = mixing_that_balances(np, form, summed, shift)
        products, sums, found = problem.rows.transpose_total(
            rowwise(_dual_point, form), by_row, *numbers, shift, mixing
        )
        gain, terms, size = (float(value) for value in found)
    objective = loss + penalty(problem, weights)
    bound = bound_of(problem, products, sums, (gain, terms), size, objective)
    cost = 1.0 + (dtype == np.float64)  # two products, of which the second is float64
    gradient = products + 2 * problem.strength * weights
    dual = Dual(scores, shift, mixing, products, sums, size, exact)
    return Certificate(objective, bias, bound, gradient, cost, dual, problem.rows.arithmetic)


def bound_of(
    problem: Problem,
    products: np.ndarray,
    sums: np.ndarray,
    gains: Sequence[float],
    size: float,
    objective: float,
) -> float:
    """Fenchel's bound with its rounding error taken off; never below 0, which bounds every loss.

    Args:
      products, sums, size: as a `Dual` has them.
      gains: what `gains_of` says of the rows.
      objective: one that was reached.
    """
    rows, strength, l1 = problem.rows, problem.strength, problem.l1_strength
    gain, terms = gains
    if strength == 0 and l1 == 0:
        return 0.0
    relative = (rows.depth + problem.classes + 64) * UNIT
    radius = rows.radius()
    error = 2 * relative * size * radius  # of G, in Frobenius norm
    shrink = 1.0
    if strength == 0:
        largest = np.abs(products).max() + error
        shrink = min(1.0, l1 / largest) if largest > 0 else 1.0
        # gain(shrink * a) >= shrink * gain(a): gains are concave and 0 at r = 0
        quadratic = 0.0
    else:
        excess = np.maximum(np.abs(products) - l1, 0)
        norm = float(np.linalg.norm(excess)) + error
        quadratic = norm**2 / (4 * strength) * (1 + 64 * UNIT)
    # and 1: probabilities sum to 1 but for rounding, and so are their entropies off
    bound = shrink * gain - quadratic - 2 * relative * (terms + 1)
    if problem.fit_intercept:
        off = np.abs(sums) + relative * size
        bound -= float(off.sum()) * _bias_bound(problem, objective, radius)
    return max(float(bound), 0.0)


def _bias_bound(problem: Problem, objective: float, radius: float) -> float:
    """Between any two classes, how far apart an optimal bias can be."""
    norm = np.inf
    if problem.strength > 0:
        norm = np.sqrt(objective / problem.strength)
    if problem.l1_strength > 0:
        norm = min(norm, objective / problem.l1_strength)
    arguments = problem.masses, objective, norm, radius, problem.margin
    return float(farthest_bias(np, problem.form, *arguments))


def farthest_bias(
    xp: ArrayModule,
    form: DualForm,
    masses: AnyArray,
    objective: AnyArray,
    norm: AnyArray,
    radius: AnyArray,
    margin: AnyArray,
) -> AnyArray:
    """How far apart the optimal biases of two classes can be.

    Args:
      masses: (K,), the sum of the counts of each class; those of none do not count.
      objective: one that was reached.
      norm: of the optimal weights, at most.
      radius: of the rows.
    """
    there = masses > 0
    least = xp.where(there, masses, 1).min()
    if form.geometry == "one-vs-rest":
        others = xp.where(there, 1 - masses, 1).min()
        least = xp.where(others > 0, xp.minimum(least, others), least)
    slack = xp.maximum(objective / least, xp.sqrt(objective / least))
    return slack + margin + 2**0.5 * norm * radius


def _loss_at(xp: ArrayModule, form: DualForm, block: Block, shift: AnyArray) -> AnyArray:
    own = own_of(xp, block.labels, block.scores.shape[0])
    z = form.shortfalls(xp, shifted(block, shift).scores, own, block.margin)
    return (block.counts * form.loss(xp, z, own)).sum()


def dual_point(
    xp: ArrayModule, form: DualForm, block: Block, shift: AnyArray, mixing: AnyArray
) -> tuple[AnyArray, AnyArray]:
    """The dual point (K, R) that a `Dual` describes, of a block of rows, and their true classes."""
    a, own = feasible(xp, form, block, shift)
    return a if mixing is None else mixed(xp, form, a, block.labels, own, mixing), own


def _dual_point(
    xp: ArrayModule, form: DualForm, block: Block, shift: AnyArray, mixing: AnyArray
) -> tuple[AnyArray, tuple[AnyArray, ...]]:
    a, own = dual_point(xp, form, block, shift, mixing)
    residuals = block.counts[None, :] * form.residuals(xp, a, own)
    gains = gains_of(xp, form, a, own, block.counts, block.margin)
    return residuals, (*gains, xp.sqrt(total(xp, residuals**2)).sum())


def gains_of(
    xp: ArrayModule,
    form: DualForm,
    a: AnyArray,
    own: AnyArray,
    counts: AnyArray,
    margin: AnyArray,
) -> tuple[AnyArray, AnyArray]:
    """The weighted sum of what rows add to the dual objective, and of the sizes of its terms."""
    sizes = xp.abs(form.penalty(xp, a))
    if form.geometry != "softmax":
        sizes = sizes + margin * total(xp, a)
    return (counts * form.gain(xp, a, own, margin)).sum(), (counts * sizes).sum()


def _scores_and_loss(
    problem: Problem,
    weights: ArrayLike,
    bias: ArrayLike,
    dtype: DTypeLike,
    kept: np.dtype[Any] | None,
) -> tuple[AnyArray, float]:
    """Scores (K, N) as they are `kept`, and the mean loss of those in `dtype`: wide scores are
    never there as a whole."""
    with jax.enable_x64(True):
        by_row = problem.labels, problem.xp.asarray(problem.counts), 0.0
        zero, loss_at = np.zeros(problem.classes), rowwise(_loss_at, problem.form)
        settings = by_row, problem.margin, 1.0, zero
        scores, loss = problem.rows.evaluated(
            loss_at, weights, bias, *settings, dtype=dtype, kept=kept
        )
        return scores, float(loss)


def objective_at(problem: Problem, weights: ArrayLike, bias: ArrayLike) -> float:
    """The objective in float64."""
    loss = _scores_and_loss(problem, weights, bias, np.float64, None)[1]
    return loss + penalty(problem, weights)


def costless_bias(problem: Problem, weights: ArrayLike, bias: ArrayLike) -> float:
    """A bias at which a further class of weights 0 would cost nothing."""
    if problem.form.geometry == "one-vs-rest":
        return -problem.margin
    with jax.enable_x64(True):
        scores = problem.rows.scores(weights, bias, np.float64)
        least = float(runner(problem)(_least_own, scores, problem.labels))
    return least - (80.0 if problem.form.geometry == "softmax" else 2 * problem.margin)


def losing_bias(
    xp: ArrayModule,
    weights: AnyArray,
    bias: AnyArray,
    present: AnyArray,
    reach: AnyArray,
    margin: AnyArray,
) -> AnyArray:
    """A bias at which a class of weights 0 wins no row x with |x| <= `reach`.

    The largest score of the others is at least their mean,

        mean b + mean W . x  >=  mean b - |mean W| reach,

    and `mean W` is 0 at the optimum of every loss that a common shift of all scores leaves alone:
    there it wins nowhere at all. By `margin`, and the rounding of scores in this dtype.

    Args:
      weights, bias: (K, D), (K,), of which the classes `present` (K,) count.
    """
    size = xp.maximum(present.sum(), 1)
    there = (present / size).astype(weights.dtype)
    mean = xp.sqrt(((there @ weights) ** 2).sum()) * reach
    sizes = xp.where(present, xp.sqrt((weights**2).sum(1)) * reach + xp.abs(bias), 0).max()
    rounding = (weights.shape[1] + 8) * xp.finfo(weights.dtype).eps * sizes
    return xp.where(present, bias / size, 0).sum() - mean - 2 * rounding - margin


def _least_own(xp: ArrayModule, scores: AnyArray, labels: AnyArray) -> AnyArray:
    """The least score that any example gives its class."""
    return xp.take_along_axis(scores, labels[None, :], axis=0).min()


def smallest_lead(problem: Problem, weights: ArrayLike, bias: ArrayLike) -> float:
    """By how much the worst example is on the right side; positive: the data are separated."""
    scores = fetch(problem.rows.scores(weights, bias)).astype(np.float64)
    own = own_of(np, problem.host_labels, problem.classes)
    if problem.form.geometry == "one-vs-rest":
        leads = np.where(own, scores, -scores).min(0)
    else:
        leads = (scores * own).sum(0) - np.where(own, -np.inf, scores).max(0)
    return float(leads[problem.counts > 0].min())
