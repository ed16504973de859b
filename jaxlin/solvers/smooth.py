"""Smooth losses (softmax, squared hinges): L-BFGS in a metric that the run itself chooses.

It starts in the Gram metric. When the decrease it observes says that rebuilding the metric at the
iterate would cost less than going on, it builds the two-level metric there, and again later. The
comparison counts multiplications, so that the same data always take the same path.
"""

__all__ = ["mean_loss", "minimize_smooth", "rowwise_of"]

from functools import cache, partial

import numpy as np

from jaxlin.solvers.builder import MetricBuilder
from jaxlin.solvers.certificates import certify, smallest_lead
from jaxlin.solvers.duals import DualForm, own_of
from jaxlin.solvers.lbfgs import Memory, least_gradient, lowest_along, remember, step_from
from jaxlin.solvers.problem import Problem, penalty
from jaxlin.solvers.status import Fit, Status, silent

PATIENCE = 4
"""Steps without progress below the rounding of the objective, after which arithmetic is at its end."""
MILESTONES = 20
"""Where somebody watches, a bound is proved each time that the gap has fallen by this factor."""


@cache
def rowwise_of(form: DualForm):
    """(xp, scores, labels, counts, margin) -> summed loss and its derivative in the scores."""
    return partial(_value_and_residuals, form)


def _value_and_residuals(form, xp, scores, labels, counts, margin):
    own = own_of(xp, labels, scores.shape[0])
    z = form.shortfalls(xp, scores, own, margin)
    a = form.maximizer(xp, z, 1.0, 0.0)
    residuals = form.residuals(xp, a, own) * counts[None, :]
    return (counts * form.loss(xp, z, own)).sum(), residuals


def mean_loss(problem: Problem, weights, bias, dtype):
    """The mean loss, its gradient in the weights and in the bias (zero where that is fixed)."""
    value, gradient, sums = problem.rows.fused(
        rowwise_of(problem.form),
        weights,
        bias,
        problem.labels,
        problem.counts,
        problem.margin,
        dtype=dtype,
    )
    return value, gradient, sums if problem.fit_intercept else np.zeros_like(sums)


def minimize_smooth(problem: Problem, weights, bias, report) -> Fit:
    """Minimize until the certified gap is below the tolerance, or the status says why not.

    Args:
      problem: with a smooth form and no l1 term.
      weights, bias: (K, D) and (K,): where to start.
      report: called with (evaluations, objective, lower bound) as the run goes on.
    """
    classes, features = weights.shape
    split = weights.size
    evaluations, precision = 0.0, problem.dtype

    def unpack(point):
        return point[:split].reshape(classes, features), point[split:]

    def evaluate(point):
        nonlocal evaluations
        evaluations += 1
        w, b = unpack(point)
        value, gradient, sums = mean_loss(problem, w, b, precision)
        gradient = gradient + 2 * problem.strength * w
        return value + penalty(problem, w), np.concatenate([gradient.ravel(), sums])

    point = np.concatenate([np.asarray(weights, np.float64).ravel(), bias]).astype(np.float64)
    value, gradient = evaluate(point)
    builder = MetricBuilder(problem)
    if builder.starts_exact():
        metric, _ = builder.two_level(*unpack(point))
    else:
        metric = builder.gram(*unpack(point))
    memory = Memory(size=int(np.clip(5e8 // (16 * point.size), 5, 30)))
    best, lower, iterations, since = (value, point), 0.0, 0, 0
    milestone = 0.1
    promise, decrements, status = np.inf, [], Status.MAX_ITERATIONS
    while True:
        gap, proof_point = _estimated_gap(problem, memory, point, gradient, split)
        report(evaluations, min(best[0], value), lower)
        due = gap <= 0.7 * problem.tolerance * value and gap <= 0.5 * promise
        if due or (report is not silent and gap <= 0.7 * milestone * value):
            promise = gap if due else promise
            milestone = min(milestone, gap / value) / MILESTONES
            w, b = unpack(proof_point)
            proof = certify(problem, w, b, dtype=precision)
            evaluations += proof.evaluations
            lower = max(lower, proof.lower_bound)
            if best[0] > proof.objective or precision != np.float64:
                best = (proof.objective, np.concatenate([w.ravel(), proof.bias]))
            report(evaluations, best[0], lower)
            if best[0] - lower <= problem.tolerance * best[0]:
                status = Status.CONVERGED
                break
        if problem.strength == 0:
            status = _unregularized(problem, point, gradient, value, split, classes)
            if status is not None:
                break
            status = Status.MAX_ITERATIONS
        if iterations >= problem.max_iterations:
            break
        step = step_from(memory, _flat(metric, classes, features), gradient)
        slope = float(gradient @ step)
        if slope >= 0:
            memory = memory._replace(points=(), gradients=())
            step = step_from(memory, _flat(metric, classes, features), gradient)
        decrements.append(-slope / 2)
        noise = 8 * np.finfo(precision).eps * abs(value)
        there, found, its_gradient, _ = lowest_along(
            evaluate, point, value, gradient, step, noise=noise
        )
        iterations, since = iterations + 1, since + 1
        stalled = there is None or _stalled(decrements, noise)
        if there is not None:
            memory = remember(memory, there - point, its_gradient - gradient)
            point, value, gradient = there, found, its_gradient
            if value < best[0]:
                best = (value, point)
        if stalled and precision != np.float64:
            precision = np.dtype(np.float64)
            value, gradient = evaluate(point)
            best = (value, point)
            memory, decrements = memory._replace(points=(), gradients=()), []
            continue
        if stalled and since > 2:
            status = Status.PRECISION
            break
        if builder.worth_rebuilding(decrements, since, problem.tolerance * value):
            metric, cost = builder.two_level(*unpack(point))
            evaluations += cost
            since, decrements = 0, []
            memory = memory._replace(points=(), gradients=())
    if status != Status.CONVERGED and problem.strength > 0:
        proof = certify(problem, *unpack(best[1]))
        evaluations += proof.evaluations
        lower = max(lower, proof.lower_bound)
        if proof.objective - lower <= problem.tolerance * proof.objective:
            status = Status.CONVERGED
        best = (proof.objective, np.concatenate([best[1][:split], proof.bias]))
    w, b = unpack(best[1])
    norm = float(np.linalg.norm(gradient))
    return Fit(w, b, lower, norm, iterations, evaluations, status)


def _stalled(decrements, noise) -> bool:
    """Whether the expected decrease is below rounding, and has not halved for some steps."""
    if decrements[-1] >= noise or len(decrements) <= PATIENCE:
        return False
    return min(decrements[-PATIENCE:]) > 0.5 * min(decrements[:-PATIENCE])


def _flat(metric, classes, features):
    def apply(vector):
        split = classes * features
        step = metric(vector[:split].reshape(classes, features), vector[split:])
        return np.concatenate([step[0].ravel(), step[1]])

    return apply


def _estimated_gap(problem, memory, point, gradient, split):
    """The gap that a certificate at the combination of least gradient would have, about."""
    if problem.strength == 0:
        return np.inf, point
    proof_point, square = least_gradient(memory, point, gradient, split)
    alone = float(gradient[:split] @ gradient[:split])
    if alone <= square:
        proof_point, square = point, alone
    return square / (4 * problem.strength), proof_point


def _unregularized(problem, point, gradient, value, split, classes):
    """Without a penalty: separated data have no optimum; else a small gradient is all there is."""
    if smallest_lead(problem, point[:split].reshape(classes, -1), point[split:]) > 0:
        return Status.SEPARABLE
    scale = max(value, 1e-30) / max(float(np.linalg.norm(point)), 1.0)
    if np.linalg.norm(gradient) <= problem.tolerance * scale * 1e-2:
        return Status.NO_PROOF
    return None
