"""Smooth losses (softmax, squared hinges): L-BFGS in a metric that the run itself chooses.

It starts in the Gram metric. When the decrease it observes says that rebuilding the metric at the
iterate would cost less than going on, it builds the two-level metric there, and again later. The
comparison counts multiplications, so that the same data always take the same path.
"""

__all__ = ["minimize_smooth"]

from functools import cache, partial

import numpy as np

from jaxlin.solvers.certificates import certify
from jaxlin.solvers.duals import DualForm, own_of
from jaxlin.solvers.lbfgs import Memory, least_gradient, lowest_along, remember, step_from
from jaxlin.solvers.metrics import (
    FULL_SPECTRUM,
    covariance_of,
    draw_rows,
    gram_metric,
    spectrum_of,
    two_level_metric,
)
from jaxlin.solvers.problem import Problem, penalty
from jaxlin.solvers.status import Fit, Status

WINDOW = 5
"""Evaluations over which the rate of decrease is judged."""
SAMPLED_ROWS = 6000


@cache
def _rowwise(form: DualForm):
    """(xp, scores, labels, counts, margin) -> summed loss and its derivative in the scores."""
    return partial(_value_and_residuals, form)


def _value_and_residuals(form, xp, scores, labels, counts, margin):
    own = own_of(xp, labels, scores.shape[0])
    z = form.shortfalls(xp, scores, own, margin)
    a = form.maximizer(xp, z, 1.0, 0.0)
    residuals = form.residuals(xp, a, own) * counts[None, :]
    return (counts * form.loss(xp, z, own)).sum(), residuals


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

    def evaluate(point):
        nonlocal evaluations
        evaluations += 1
        w, b = point[:split].reshape(classes, features), point[split:]
        value, gradient, sums = problem.rows.fused(
            _rowwise(problem.form),
            w,
            b,
            problem.labels,
            problem.counts,
            problem.margin,
            dtype=precision,
        )
        if not problem.fit_intercept:
            sums = np.zeros_like(sums)
        gradient = gradient + 2 * problem.strength * w
        return value + penalty(problem, w), np.concatenate([gradient.ravel(), sums])

    point = np.concatenate([np.asarray(weights, np.float64).ravel(), bias]).astype(np.float64)
    value, gradient = evaluate(point)
    metrics = _Metrics(problem)
    metric = metrics.first(point)
    memory = Memory(size=int(np.clip(5e8 // (16 * point.size), 5, 30)))
    best, lower, iterations, since = (value, point), 0.0, 0, 0
    promise, decrements, status = np.inf, [], Status.MAX_ITERATIONS
    while True:
        gap, proof_point = _estimated_gap(problem, memory, point, gradient, split)
        report(evaluations, min(best[0], value), lower)
        if gap <= 0.7 * problem.tolerance * value and gap <= 0.5 * promise:
            promise = gap
            w, b = proof_point[:split].reshape(classes, features), proof_point[split:]
            proof = certify(problem, w, b)
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
        stalled = there is None or (decrements[-1] < noise and found > value - noise)
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
        if metrics.worth_rebuilding(decrements, since, problem.tolerance * value):
            metric, cost = metrics.at(point)
            evaluations += cost
            since, decrements = 0, []
            memory = memory._replace(points=(), gradients=())
    if status != Status.CONVERGED and problem.strength > 0:
        proof = certify(problem, best[1][:split].reshape(classes, features), best[1][split:])
        evaluations += proof.evaluations
        lower = max(lower, proof.lower_bound)
        if proof.objective - lower <= problem.tolerance * proof.objective:
            status = Status.CONVERGED
        best = (proof.objective, np.concatenate([best[1][:split], proof.bias]))
    w, b = best[1][:split].reshape(classes, features), best[1][split:]
    norm = float(np.linalg.norm(gradient))
    return Fit(w, b, lower, norm, iterations, evaluations, status)


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
    scores = np.asarray(problem.rows.scores(point[:split].reshape(classes, -1), point[split:]))
    own = own_of(np, np.asarray(problem.labels), classes)
    counted = problem.counts > 0
    if problem.form.geometry == "one-vs-rest":
        leads = np.where(own, scores, -scores).min(0)
    else:
        leads = (scores * own).sum(0) - np.where(own, -np.inf, scores).max(0)
    if (leads[counted] > 0).all():
        return Status.SEPARABLE
    scale = max(value, 1e-30) / max(float(np.linalg.norm(point)), 1.0)
    if np.linalg.norm(gradient) <= problem.tolerance * scale * 1e-2:
        return Status.NO_PROOF
    return None


class _Metrics:
    """Builds the metrics of one run, and knows what they cost in multiplications."""

    def __init__(self, problem: Problem):
        self.problem = problem
        classes, features = problem.classes, problem.features
        size = max(SAMPLED_ROWS, 5 * features // 2)
        self.sample = draw_rows(problem, size, seed=0)
        self.covariance = covariance_of(problem, self.sample)
        self.spectrum = None
        size = problem.rows.size
        self.evaluation = 4.0 * size * features * classes + 50.0 * size * classes
        side = min(classes * (features + 1), 1100)
        drawn = min(SAMPLED_ROWS, size)
        self.build = (
            2.0 * size * features * classes
            + 2.0 * drawn * features**2
            + drawn * side**2
            + side**3 / 3
            + drawn * features * (classes**2 if classes <= 24 else classes)
        )
        self.builds = 0

    def first(self, point):
        problem, classes = self.problem, self.problem.classes
        split = classes * problem.features
        scores = self._scores(self.sample, point, split)
        if (problem.features + 1) * classes <= 700 and problem.rows.size <= SAMPLED_ROWS:
            return self._two_level(self.sample, scores)
        own = own_of(np, np.asarray(problem.labels)[self.sample.indices], classes)
        z = problem.form.shortfalls(np, scores, own, problem.margin)
        bend = problem.form.bend(np, problem.form.maximizer(np, z, 1.0, 0.0), 1.0)
        moved = bend.diagonal + (
            own * bend.diagonal.sum(0)[None, :] if problem.form.geometry == "pairs" else 0
        )
        self.curvature = float((moved * self.sample.weights[None, :]).sum() / classes)
        return gram_metric(problem, self.covariance, self.sample.mean, self.curvature)

    def worth_rebuilding(self, decrements, since, target) -> bool:
        if self.problem.features > FULL_SPECTRUM or since < WINDOW + 2 or len(decrements) < WINDOW:
            return False
        now, before = decrements[-1], decrements[-WINDOW]
        if now <= 0 or before <= 0:
            return False
        rate = np.log(before / now) / (WINDOW - 1)
        left = np.log(max(now / max(0.3 * target, 1e-300), 1.0)) / max(rate, 1e-3)
        saved = left - min(left, 8)
        return saved * self.evaluation > self.build

    def at(self, point):
        problem = self.problem
        split = problem.classes * problem.features
        self.builds += 1
        size, cost = problem.rows.size, 0.0
        if size <= SAMPLED_ROWS:
            sample = self.sample
        else:
            bent = self._bent(point, split)
            cost = 0.5
            chances = problem.counts * (0.9 * bent / (problem.counts @ bent) + 0.1)
            sample = draw_rows(
                problem,
                SAMPLED_ROWS,
                seed=self.builds,
                probabilities=chances / chances.sum(),
                mean=self.sample.mean,
            )
        return self._two_level(sample, self._scores(sample, point, split)), cost

    def _two_level(self, sample, scores):
        if self.spectrum is None:
            curvature = getattr(self, "curvature", 1 / self.problem.classes)
            self.spectrum = spectrum_of(self.problem, self.covariance, curvature)
        return two_level_metric(self.problem, self.spectrum, sample, scores)

    def _scores(self, sample, point, split):
        weights = point[:split].reshape(self.problem.classes, -1)
        bias = point[split:] + weights @ sample.mean
        dtype = self.problem.dtype
        return weights.astype(dtype) @ sample.rows.T + bias.astype(dtype)[:, None]

    def _bent(self, point, split):
        """How much each row bends, (N,)."""
        problem, form = self.problem, self.problem.form
        scores = problem.rows.scores(point[:split].reshape(problem.classes, -1), point[split:])
        scores = np.asarray(scores)
        own = own_of(np, np.asarray(problem.labels), problem.classes)
        a = form.maximizer(np, form.shortfalls(np, scores, own, problem.margin), 1.0, 0.0)
        bend = form.bend(np, a, 1.0)
        return (bend.diagonal - bend.kappa[None, :] * bend.diagonal**2).sum(0) + 1e-12
