r"""Lower bounds on the optimum that are proofs, evaluated in float64 from the data.

Write each loss as a maximum over dual variables (`jaxlin.solvers.duals`),
loss(s, y) = max_a r(a) . s + gain(a), with gain(a) = margin sum(a) - h(a) (entropy for softmax).
For *any* feasible a_i, one per example, and any W, b,

    sum_i c_i loss_i + penalty(W)  >=  <G, W> + b . rho + penalty(W) + sum_i c_i gain(a_i),
    G = sum_i c_i r(a_i) x_i^T,     rho = sum_i c_i r(a_i).

If the dual point balances, rho = 0, the bias drops out, and minimizing over W alone leaves
Fenchel's lower bound (Rockafellar, 1970, section 31; for l2 also Shalev-Shwartz and Zhang, 2013)

    sum_i c_i gain(a_i) - sum max(0, |G| - l1_strength)^2 / (4 strength),

with nothing subtracted where strength = 0 and |G| <= l1_strength: the point is shrunk by
l1_strength / max |G| to get there. The dual points are the maximizers at the current scores;
near the optimum they are near optimal.

Balance. Newton's method in the K biases nearly balances the maximizers, since the derivative of
the mean smoothed loss in b is rho. What is left is removed by moving mass between classes:
for softmax each class in excess sends a share of its mass to the classes in deficit, so that
every a_i stays on its simplex; for the pairs (true class y against rival k) by factors on the
K x K flows F_yk = sum over y_i = y of c_i a_ik, whose in- and outflow must agree (a weighted
Laplacian system), scaled to at most 1 so that every a_i stays feasible; for one-vs-rest by
shrinking the heavier side of each class.

Rounding. Sums over rows have relative error at most depth * 2^-53 (Higham, 2002, section 3.1),
which bounds the error of G and rho. What remains of rho multiplies the optimal bias, bounded by
Jensen's inequality over the rows of a class: b_j - b_k <= P / c(k) + sqrt(2 P / strength) radius,
where P is any objective that was reached. Both are subtracted from the bound.
"""

__all__ = [
    "Certificate",
    "Dual",
    "balanced_bias",
    "bound_of",
    "certify",
    "dual_point",
    "objective_at",
    "smallest_lead",
]

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlin.sharding import fetch
from jaxlin.solvers.duals import own_of, total
from jaxlin.solvers.problem import Problem, penalty, rowwise, runner, summing_runner

UNIT = 2.0**-53
WIDE = 200
"""Classes beyond which the biases are balanced without a K x K Hessian."""
FEW = 16
"""Classes up to which K x K sums over the rows are one fused reduction."""


class Certificate(NamedTuple):
    """Both sides of the optimum, from one point."""

    objective: float
    """At `weights` and `bias`."""
    bias: np.ndarray
    """(K,): the bias given, or a better one for the same weights."""
    lower_bound: float
    gradient: np.ndarray
    """(K, D): G + 2 strength W at the balanced dual point, float64."""
    evaluations: float
    dual: "Dual"


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
    problem: Problem, weights, bias, *, smoothing=1.0, anchor=0.0, dtype=np.float64, exact=False
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
    """
    weights, bias = np.asarray(weights, np.float64), np.asarray(bias, np.float64)
    form, extra = problem.form, (problem.margin, smoothing, anchor)
    dtype = np.dtype(np.float64) if problem.on_host else np.dtype(dtype)
    scores = problem.rows.scores(weights, bias, np.float64 if exact else dtype)
    with jax.enable_x64(True):
        data = (scores, problem.labels, problem.xp.asarray(problem.counts))
        run = summing_runner(problem)
        shift = np.zeros(problem.classes)
        loss = float(run(_loss_at, form, *data, shift, *extra))
        if exact and dtype != np.float64:
            scores = scores.astype(dtype)
            data = (scores, *data[1:])
        if problem.fit_intercept and problem.classes > 1:
            shift = balanced_bias(run, form, data, extra)
            moved = np.inf if exact else float(run(_loss_at, form, *data, shift, *extra))
            if moved < loss:
                loss, bias = moved, bias + shift
        mixing = np.ones((problem.classes, problem.classes))
        if form.geometry == "softmax":
            mixing = np.stack([np.ones(problem.classes), *np.zeros((2, problem.classes))])
        if problem.fit_intercept:
            for _ in range(3):
                flows = np.asarray(run(_flows, form, *data, shift, mixing, *extra))
                mixing, done = _rebalanced(form, flows, mixing, problem.masses)
                if done:
                    break
        by_row = (*data, anchor)
        point = rowwise(_dual_point, form)
        products, sums, (gain, size) = problem.rows.transpose_total(
            point, by_row, shift, mixing, *extra[:-1]
        )
        gain, size = float(gain), float(size)
    objective = loss + penalty(problem, weights)
    bound = bound_of(problem, products, sums, gain, size, objective)
    cost = 1.0 + (dtype == np.float64)  # two products, of which the second is float64
    gradient = products + 2 * problem.strength * weights
    dual = Dual(scores, shift, mixing, products, sums, size, exact)
    return Certificate(objective, bias, bound, gradient, cost, dual)


def bound_of(problem: Problem, products, sums, gain, size, objective) -> float:
    """Fenchel's bound with its rounding error taken off; never below 0, which bounds every loss."""
    rows, strength, l1 = problem.rows, problem.strength, problem.l1_strength
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
    bound = shrink * gain - quadratic - 2 * relative * (abs(gain) + 1)
    if problem.fit_intercept:
        off = np.abs(sums) + relative * size
        bound -= float(off.sum()) * _bias_bound(problem, objective, radius)
    return max(float(bound), 0.0)


def _bias_bound(problem: Problem, objective, radius) -> float:
    """Between any two classes, how far apart an optimal bias can be."""
    norm = np.inf
    if problem.strength > 0:
        norm = np.sqrt(objective / problem.strength)
    if problem.l1_strength > 0:
        norm = min(norm, objective / problem.l1_strength)
    least = float(problem.masses[problem.masses > 0].min())
    if problem.form.geometry == "one-vs-rest":
        least = min(least, float((1 - problem.masses).min()))
    if least <= 0:
        return 0.0  # a single class: its bias carries no imbalance
    slack = max(objective / least, np.sqrt(objective / least))
    return slack + problem.margin + np.sqrt(2) * norm * radius


def _loss_at(xp, form, scores, labels, counts, shift, margin, smoothing, anchor):
    own = own_of(xp, labels, scores.shape[0])
    z = form.shortfalls(xp, _shifted(scores, shift), own, margin)
    return (counts * form.loss(xp, z, own)).sum()


def _shifted(scores, shift):
    return scores + shift.astype(scores.dtype)[:, None]


def _maximizers(xp, form, scores, labels, shift, margin, smoothing, anchor):
    own = own_of(xp, labels, scores.shape[0])
    z = form.shortfalls(xp, _shifted(scores, shift), own, margin)
    return form.maximizer(xp, z, smoothing, anchor), z, own


def _feasible(xp, form, scores, labels, shift, margin, smoothing, anchor):
    """The maximizers as dual points in float64: what rounding put outside the set is put back."""
    a, _, own = _maximizers(xp, form, scores, labels, shift, margin, smoothing, anchor)
    a = a.astype(xp.float64)
    if form.geometry == "softmax":
        a = a / total(xp, a)[None, :]
    elif form.name == "crammer-singer":
        a = a / xp.maximum(total(xp, a), 1.0)[None, :]
    return a, own


def _bias_newton(xp, form, scores, labels, counts, shift, margin, smoothing, anchor):
    """Mean smoothed loss, its derivative and second derivative in the bias."""
    a, z, own = _maximizers(xp, form, scores, labels, shift, margin, smoothing, anchor)
    value = (counts * form.smoothed(xp, z, own, a, smoothing, anchor)).sum()
    slope = (counts[None, :] * form.residuals(xp, a, own)).sum(1)
    bend = form.bend(xp, a, smoothing)
    q = form.pull(xp, bend, own)
    counts = counts.astype(scores.dtype)  # the second derivative only steers
    weighted = counts[None, :] * bend.diagonal
    if scores.shape[0] > WIDE:  # the diagonal majorizes diag(d) - q q^T, twice it a Laplacian
        second = weighted.sum(1)
        if form.geometry == "pairs":
            second = 2 * (second + (own * total(xp, weighted)[None, :]).sum(1))
        return value, slope, second
    if form.geometry == "pairs":
        edges = _outer_sums(xp, own.astype(weighted.dtype), weighted)
        second = xp.diag(edges.sum(0) + edges.sum(1)) - edges - edges.T
    else:
        second = xp.diag(weighted.sum(1))
    return value, slope, second - _outer_sums(xp, q * (counts * bend.kappa)[None, :], q)


def _outer_sums(xp, left, right):
    """left @ right.T of (K, N) arrays: for few classes one fused sum, twenty times faster."""
    if xp is np or left.shape[0] > FEW:
        return left @ right.T
    return (left[:, None, :] * right[None, :, :]).sum(-1)


def balanced_bias(run, form, data, extra, *, steps=30, accuracy=1e-15):
    """Newton in K dimensions with halving: the bias at which the maximizers balance."""
    classes, noise = data[0].shape[0], 64 * np.finfo(data[0].dtype).eps
    steps = min(steps, 3) if classes > WIDE else steps
    shift = np.zeros(classes)
    value, slope, second = (np.asarray(x) for x in run(_bias_newton, form, *data, shift, *extra))
    for _ in range(steps):
        size = np.abs(slope).max()
        if size < accuracy:
            break
        if second.ndim == 1:
            step = -slope / np.maximum(second, 1e-14)
        else:
            ridge = np.trace(second) / classes * 1e-10 + 1e-14
            step = -np.linalg.solve(second + ridge * np.eye(classes) + ridge, slope)
        for _ in range(12):
            trial = shift + step
            found = [np.asarray(x) for x in run(_bias_newton, form, *data, trial, *extra)]
            reached = np.abs(found[1]).max()
            better = found[0] <= value + 1e-4 * slope @ step
            better = better or (reached < size and found[0] <= value + noise * abs(value))
            if better or -slope @ step < noise * abs(value):
                break
            step = step / 4
        if not better:
            break
        shift, (value, slope, second) = trial, found
        if reached > 0.1 * size and -slope @ step < noise * abs(value):
            break  # what is left is rounding
    return shift


def _mixed(xp, form, a, labels, own, mixing):
    """The dual point after mass was moved between classes; still feasible."""
    if form.geometry == "softmax":
        keep, share, deficit = mixing
        return keep[:, None] * a + deficit[:, None] * total(xp, share[:, None] * a)[None, :]
    return a * xp.take(mixing.T, labels, axis=1)


def _flows(xp, form, scores, labels, counts, shift, mixing, margin, smoothing, anchor):
    """(K, K): the weighted dual mass of class k in the rows of class y; for softmax (1, K)."""
    a, own = _feasible(xp, form, scores, labels, shift, margin, smoothing, anchor)
    a = _mixed(xp, form, a, labels, own, mixing)
    if form.geometry == "softmax":
        return (a * counts[None, :]).sum(1)[None, :]
    return _outer_sums(xp, own * counts[None, :], a)


def dual_point(xp, form, scores, labels, shift, mixing, margin, smoothing=1.0, anchor=0.0):
    """The dual point (K, R) that a `Dual` describes, of a block of rows, and their true classes."""
    a, own = _feasible(xp, form, scores, labels, shift, margin, smoothing, anchor)
    return _mixed(xp, form, a, labels, own, mixing), own


def _dual_point(xp, form, scores, labels, counts, shift, mixing, margin, smoothing, anchor):
    a, own = dual_point(xp, form, scores, labels, shift, mixing, margin, smoothing, anchor)
    residuals = counts[None, :] * form.residuals(xp, a, own)
    gain = (counts * form.gain(xp, a, margin)).sum()
    return residuals, (gain, xp.sqrt(total(xp, residuals**2)).sum())


def _rebalanced(form, flows, mixing, masses):
    """`mixing` after one more correction, and whether the flows balanced already."""
    if form.geometry == "softmax":
        have = flows[0]
        excess, deficit = np.maximum(have - masses, 0), np.maximum(masses - have, 0)
        if not deficit.any():
            return mixing, True
        share = np.divide(excess, have, out=np.zeros_like(have), where=have > 0)
        return np.stack([1 - share, share, deficit / deficit.sum()]), True
    if form.geometry == "one-vs-rest":
        inside = np.diag(flows)
        outside = flows.sum(0) - inside
        goal = np.minimum(inside, outside)
        if np.abs(inside - outside).max() < 4 * UNIT:
            return mixing, True
        down = np.divide(goal, inside, out=np.ones_like(goal), where=inside > 0)
        others = np.divide(goal, outside, out=np.ones_like(goal), where=outside > 0)
        factor = np.where(np.eye(len(goal), dtype=bool), down[None, :], others[None, :])
        return mixing * factor, False
    return _circulation(flows, mixing, capped=not form.smooth and "squared" not in form.name)


def _circulation(flows, mixing, capped):
    """Factors on the flows between classes after which in- and outflow agree."""
    start = flows
    total = np.ones_like(flows)
    for _ in range(60):
        off = flows.sum(0) - flows.sum(1)  # inflow minus outflow
        if np.abs(off).max() < 2 * UNIT:
            break
        both = flows + flows.T
        laplacian = np.diag(both.sum(0)) - both
        lift = np.linalg.lstsq(laplacian, off, rcond=1e-13)[0]
        factor = np.maximum(1 + lift[:, None] - lift[None, :], 0.1)
        total = total * factor
        if capped:
            used = total[start > 0]
            total = np.minimum(total / max(used.max(initial=1.0), 1.0), 1)
        flows = start * total
    else:
        if np.abs(flows.sum(0) - flows.sum(1)).max() > 1e-9:
            return np.zeros_like(mixing), True  # nothing balances: the trivial dual point
    return mixing * total, np.array_equal(total, np.ones_like(total))


def objective_at(problem: Problem, weights, bias) -> tuple[float, float]:
    """The objective in float64, and a bias at which a further class would cost nothing."""
    with jax.enable_x64(True):
        scores = problem.rows.scores(weights, bias, np.float64)
        data = (scores, problem.labels, problem.xp.asarray(problem.counts))
        extra = (problem.margin, 1.0, 0.0)
        zero = np.zeros(problem.classes)
        loss = float(summing_runner(problem)(_loss_at, problem.form, *data, zero, *extra))
        least = float(runner(problem)(_least_own, problem.form, *data[:2]))
    below = 80.0 if problem.form.geometry == "softmax" else 2 * problem.margin
    if problem.form.geometry == "one-vs-rest":
        return loss + penalty(problem, weights), -problem.margin
    return loss + penalty(problem, weights), least - below


def _least_own(xp, form, scores, labels):
    """The least score that any example gives its class."""
    return xp.take_along_axis(scores, labels[None, :], axis=0).min()


def smallest_lead(problem: Problem, weights, bias) -> float:
    """By how much the worst example is on the right side; positive: the data are separated."""
    scores = fetch(problem.rows.scores(weights, bias)).astype(np.float64)
    own = own_of(np, problem.host_labels, problem.classes)
    if problem.form.geometry == "one-vs-rest":
        leads = np.where(own, scores, -scores).min(0)
    else:
        leads = (scores * own).sum(0) - np.where(own, -np.inf, scores).max(0)
    return float(leads[problem.counts > 0].min())
