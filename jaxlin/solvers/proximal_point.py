r"""Losses with kinks: proximal smoothing of the dual, semismooth Newton inside.

Round after round, the loss is smoothed around the dual point of the round before,

    a = argmax over A of  a . z - h(a) - (smoothing / 2) |a - anchor|^2,      anchor <- a,

the proximal point method on the dual, equivalently the augmented Lagrangian method (Rockafellar,
1976): no smoothing error remains in the limit, so that `smoothing` need not go to 0, where every
method stalls. Inside a round the objective is piecewise quadratic; Newton steps touch only the
rows that bend (Sun, Toh et al. call this a semismooth Newton augmented Lagrangian method), by a
dense factorization for few unknowns and by conjugate gradients for many, in the preconditioner of
few classes (`jaxlin.solvers.preconditioner`) or of many (`jaxlin.solvers.preconditioner`).
Where so many rows bend that such a step would take more passes than it is worth, a quasi-Newton
step in that preconditioner is taken instead (`jaxlin.solvers.newton`).
Scores are affine in the step, so a line search costs no pass over the data. The maximizers are
feasible dual points throughout: their certificate is the stopping rule.
"""

__all__ = ["HingeFit", "minimize_hinge", "minimize_unregularized", "separated"]

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxlin.passes import arithmetic
from jaxlin.solvers.balance import WIDE, balanced_bias
from jaxlin.solvers.certificate import certify, objective_at, smallest_lead
from jaxlin.solvers.covariance import constant_features
from jaxlin.solvers.dual_losses import DualForm, own_of, settled, total
from jaxlin.solvers.history import History, own_copy
from jaxlin.solvers.interior import minimize_small_hinge, suits_interior
from jaxlin.solvers.newton import MISSED, NewtonStep, QuasiNewtonStep
from jaxlin.solvers.problem import Problem, beside, penalty, same_fit
from jaxlin.solvers.refresh import PreconditionerBuilder
from jaxlin.solvers.rowwise import columnwise, lifted, moved, rowwise, summing_runner, to_host
from jaxlin.solvers.status import Fit, Status, improving, later, silent

STEPS = 16
"""Of a round, at most."""
DEAR = 1.5
"""Passes over the data from which on a Newton direction is not worth them; twice as many after
every round that quasi-Newton steps did not finish."""
COARSEST = 4.0
"""First smoothing, in margins: less makes the first round hard; short steps ask for more."""
SHORT = 0.4
"""Length of a step beyond which its model of the loss was good."""
SLIGHT, NEXT, PENALTIES = 1e-6, 1e-2, 5
"""Without a penalty: the first that is tried, for features of unit variance; by what factor the
next are smaller; how many are tried at most."""
SEEN = 1000
"""Rows that tell how the features spread."""


class HingeFit(NamedTuple):
    """Between two steps of a loss with kinks, over the classes that occur; n = K * D + K."""

    weights: np.ndarray
    """(K, D) float64."""
    bias: np.ndarray
    """(K,) float64."""
    best: np.ndarray
    """(n,) float64: the weights row by row, then the bias, of the least objective."""
    scores: np.ndarray
    """(K, N) in the dtype of the arithmetic: they were added up step by step."""
    anchor: np.ndarray
    """(K, N): the dual point of the round before."""
    newton_rows: np.ndarray
    """(2, m) float64: the rows that Newton's preconditioner was built from and their weights."""
    newton_columns: np.ndarray
    """(2, K, m): their scores and anchor at that time."""
    newton: np.ndarray
    """(5,): the smoothing at that time, the steps it took when new, draws, rows to draw, the
    curvature of the spectrum (NaN for none)."""
    history: History
    """Of the quasi-Newton steps."""
    last: np.ndarray
    """(2, n) or (0, 0) float64: point and gradient before the last quasi-Newton step."""
    quasi_rows: np.ndarray
    """(2, m), like those of Newton's: what the quasi-Newton preconditioner was built from."""
    quasi_columns: np.ndarray
    """(2, K, m)"""
    quasi: np.ndarray
    """(2,): the smoothing at that time, steps that it has served."""
    numbers: np.ndarray
    """(13,): smoothing, its floor, what is dear; least objective, lower bound, what is claimed and
    promised of it; evaluations, steps, stalled rounds; and in this round steps, those of
    quasi-Newton, short ones."""


def minimize_hinge(
    problem: Problem,
    weights: np.ndarray,
    bias: np.ndarray,
    report: Callable[..., Any],
    carried: HingeFit | None = None,
    on_carried: Callable[..., Any] = silent,
    on_pass: Callable[..., Any] = silent,
) -> Fit:
    """Minimize until the certified gap is below the tolerance, or the status says why not.

    The arguments are those of `jaxlin.solvers.smooth.minimize_smooth`, but `on_pass` is called
    before each step. Where an interior point method needs a second, nothing is carried.
    """
    ends = carried, on_carried, on_pass
    if problem.strength == 0:
        return minimize_unregularized(problem, weights, bias, report, *ends)
    if carried is None and suits_interior(problem):
        fit, done = minimize_small_hinge(problem, report, on_pass)
        if done:
            return fit
        weights, bias = fit.weights, fit.bias
    with arithmetic(problem.dtype):
        return _minimize(problem, weights, bias, report, *ends)


def minimize_unregularized(
    problem: Problem,
    weights: np.ndarray,
    bias: np.ndarray,
    report: Callable[..., Any],
    carried: Any = None,
    on_carried: Callable[..., Any] = silent,
    on_pass: Callable[..., Any] = silent,
) -> Fit:
    """Penalties that fall until none shows in the objective; nothing can be certified.

    The scale of the features is free then: each gets unit variance. Only the fit with the first
    penalty can be carried on; the others begin again.
    """
    units = _units(problem)
    scaled = problem._replace(rows=problem.rows.rescaled(units))
    fit: Any = None
    strength, ends = SLIGHT, (carried, on_carried, on_pass)
    told = improving(lambda e, o, _: report(e, o, 0.0))
    for _ in range(PENALTIES):
        left = problem.max_iterations - (0 if fit is None else fit.iterations)
        penalized = scaled._replace(strength=strength, max_iterations=max(left, 0))
        if fit is None:
            fit = minimize_hinge(penalized, weights / units, bias, told, *ends)
        else:
            start = fit.weights, fit.bias, later(told, fit)
            fit = minimize_hinge(penalized, *start, on_pass=on_pass).after(fit)
        lead = smallest_lead(scaled, fit.weights, fit.bias)
        if lead > 0:
            fit = separated(scaled, fit, lead)
            break
        if fit.status != Status.CONVERGED:
            break
        loss = objective_at(scaled, fit.weights, fit.bias)
        if penalty(penalized, fit.weights) <= problem.tolerance * loss:
            fit = fit._replace(status=Status.NO_PROOF)
            break
        strength *= NEXT
    status = Status.PRECISION if fit.status == Status.CONVERGED else fit.status
    return fit._replace(weights=fit.weights * units, lower_bound=0.0, status=status, proof=None)


def _units(problem: Problem) -> np.ndarray:
    """(D,): by what to multiply each feature, so that it has unit variance over some rows."""
    step = -(-problem.rows.size // SEEN)
    rows = problem.rows.sample(np.arange(0, problem.rows.size, step))
    variances = rows.var(0, dtype=np.float64)
    variances[constant_features(rows, problem.center)] = 0
    return 1 / np.sqrt(np.where(variances > 0, variances, variances.max() or 1.0))


def separated(problem: Problem, fit: Fit, lead: float) -> Fit:
    """Stretched until the least lead, which is positive, is the margin: every hinge is 0."""
    grow = (1 + 1e-6) * problem.margin / lead
    return fit._replace(
        weights=fit.weights * grow, bias=fit.bias * grow, lower_bound=0.0, status=Status.SEPARABLE
    )


def _minimize(
    problem: Problem,
    weights: np.ndarray,
    bias: np.ndarray,
    report: Callable[..., Any],
    carried: Any,
    on_carried: Callable[..., Any],
    on_pass: Callable[..., Any],
) -> Fit:
    xp, rows, strength = problem.xp, problem.rows, problem.strength
    counts = xp.asarray(problem.counts.astype(problem.dtype))
    precise = problem.dtype if problem.classes > WIDE else np.float64
    newton = NewtonStep(problem, PreconditionerBuilder(problem), keep=on_carried is not silent)
    quasi = QuasiNewtonStep(problem, newton)
    status, norm, going_on = Status.MAX_ITERATIONS, np.inf, carried is not None
    if carried is None:
        weights, bias = weights.astype(np.float64), bias.astype(np.float64)
        scores = rows.scores(weights, bias)
        anchor = xp.zeros_like(scores)
        smoothing, floor, dear = COARSEST * problem.margin, 0.0, DEAR
        best, lower, claimed, promise = (np.inf, weights, bias), 0.0, -np.inf, np.inf
        evaluations, iterations, stalled = 0.5, 0, 0
    else:
        carried = own_copy(same_fit(carried, HingeFit, problem))
        weights, bias = carried.weights, carried.bias
        scores, anchor = beside(rows, carried.scores), beside(rows, carried.anchor)
        newton.go_on(*carried[5:8])
        quasi.go_on(*carried[8:13])
        smoothing, floor, dear, least, lower, *others = carried.numbers.tolist()
        claimed, promise, evaluations, *whole = others
        best_weights, best_bias = np.split(carried.best, [weights.size])
        best = least, best_weights.reshape(weights.shape), best_bias
        iterations, stalled, steps, many, short = map(int, whole)

    def make() -> HingeFit:
        bounds = best[0], lower, claimed, promise
        counts = evaluations, iterations, stalled, steps, many, short
        numbers = np.array([smoothing, floor, dear, *bounds, *counts], np.float64)
        by_row = to_host(problem, scores), to_host(problem, anchor)
        learned: Any = *by_row, *newton.state(), *quasi.state(), numbers
        least_at = np.concatenate([best[1].ravel(), best[2]])
        return own_copy(HingeFit(weights, bias, least_at, *learned))

    looseness, most = 1e-3 if newton.exact else 0.5, problem.max_iterations
    while iterations <= most:
        if not going_on:
            steps, many, short = 0, 0, 0
            quasi.turn()
        going_on = False
        while steps < STEPS:
            on_carried(evaluations, make)
            on_pass()
            if problem.fit_intercept:
                shift = _bias_steps(problem, scores, counts, smoothing, anchor)
                bias = bias + shift
                scores = lifted(problem, scores, shift)
            data = (scores, problem.labels, counts, anchor)
            products, sums, (loss, gain) = rows.transpose_total(
                rowwise(_point, problem.form), data, problem.margin, smoothing, dtype=problem.dtype
            )
            evaluations += 0.5
            if not problem.fit_intercept:
                sums = np.zeros_like(sums)
            regularizer = penalty(problem, weights)
            objective = float(loss) + regularizer
            gradient = products + 2 * strength * weights
            quasi.learn(weights, bias, gradient, sums)
            norm = float(np.sqrt((gradient**2).sum() + (sums**2).sum()))
            slack = float((gradient**2).sum()) / (4 * strength)
            # of the problem whose bias stays; the free bias will move by a margin or so
            bound = float(gain) + float(bias @ sums) - float((products**2).sum()) / (4 * strength)
            claimed = max(claimed, bound - float(np.abs(sums).sum()) * problem.margin)
            if objective < best[0]:
                best = (objective, weights, bias)
            blur = max(objective - bound - slack, 0.0)
            report(evaluations, best[0], lower)
            goal = problem.tolerance * best[0]
            if best[0] - claimed <= 0.8 * goal and best[0] - bound <= 0.9 * promise:
                promise = best[0] - bound
                proof = certify(
                    problem, weights, bias, smoothing=smoothing, anchor=anchor, dtype=precise
                )
                evaluations += proof.evaluations
                lower = max(lower, proof.lower_bound)
                if proof.objective < best[0] or problem.dtype != np.float64:
                    best = (proof.objective, weights, proof.bias)  # its loss is exact
                report(evaluations, best[0], lower)
                if best[0] - lower <= problem.tolerance * best[0]:
                    return Fit(
                        best[1],
                        best[2],
                        lower,
                        norm,
                        iterations,
                        evaluations,
                        Status.CONVERGED,
                    )
            rough = 6 if smoothing > 0.2 * problem.margin else 1  # soon to be smoothed less
            enough = looseness * rough * max(blur, 0.1 * goal)
            if slack < (enough if steps else 1e-2 * enough) or iterations >= most:
                break
            bent = columnwise(problem, _bent, data, problem.margin, smoothing)
            here = (gradient, sums, scores, smoothing, anchor)
            crowded = newton.dear(bent) > dear
            if crowded:
                step, bias_step = quasi(bent, weights, bias, *here)
            else:
                accuracy = np.clip(0.3 * np.sqrt(enough / slack), 0.05, 0.3)
                step, bias_step, cost = newton(bent, *here, accuracy)
                evaluations += cost
            change = rows.scores(step, bias_step)
            evaluations += 0.5
            inner = 2 * strength * np.array([(weights * step).sum(), (step * step).sum()])
            length, missed = _line_search(problem, scores, change, counts, smoothing, anchor, inner)
            iterations, steps = iterations + 1, steps + 1
            if crowded:
                many += 1
            else:
                newton.learn(missed)
                if length < SHORT and missed < MISSED:  # rows begin or cease to bend on the way
                    short += 1
                    smoothing = floor = 2 * smoothing
                    quasi.turn()
            if length <= 1e-10:
                break
            weights, bias = weights + length * step, bias + length * bias_step
            if iterations % 25:
                scores = moved(problem, scores, change, length)
            else:
                scores = rows.scores(weights, bias)
                evaluations += 0.5
        if iterations >= most:
            break
        stalled = stalled + 1 if steps == 0 else 0
        if stalled > 100:
            status = Status.PRECISION
            break
        data = (scores, problem.labels, counts, anchor)  # after the last step
        anchor = columnwise(problem, _maximizer, data, problem.margin, smoothing)
        floor = 0.8 * floor
        if short:
            continue
        if many >= STEPS:
            dear = 2 * dear
        if many:
            smoothing = max(smoothing * _pace(steps), 0.01 * problem.margin)
        elif steps <= 3 or smoothing > 0.2 * problem.margin:
            finest = _finest(smoothing, steps, newton.exact) * problem.margin
            smoothing = max(smoothing / 3, finest, min(floor, smoothing))
        elif steps >= STEPS:
            smoothing = smoothing * 2
    proof = certify(problem, weights, bias, smoothing=smoothing, anchor=anchor, dtype=precise)
    lower = max(lower, proof.lower_bound)
    if best[0] - lower <= problem.tolerance * best[0]:
        status = Status.CONVERGED
    return Fit(best[1], best[2], lower, norm, iterations, evaluations, status)


def _finest(smoothing: float, steps: int, exact: bool) -> float:
    """In margins: 0.3, or less where Newton steps are exact or have become trivial."""
    if exact:
        return 1e-5
    return 0.3 if steps > 1 else max(smoothing / 2, 0.01)


def _pace(steps: int) -> float:
    """The change of smoothing after a round of quasi-Newton steps: they find out what is hard."""
    if steps >= STEPS:
        return 1.7
    return 1 / 3 if steps <= 4 else 1 / 1.7 if steps <= 8 else 1.0


def _maximizer(
    xp: Any,
    form: DualForm,
    scores: Any,
    labels: Any,
    counts: Any,
    anchor: Any,
    margin: float,
    smoothing: float,
) -> Any:
    z = form.shortfalls(xp, scores, own_of(xp, labels, scores.shape[0]), margin)
    return form.maximizer(xp, z, smoothing, anchor)


def _point(
    xp: Any,
    form: DualForm,
    scores: Any,
    labels: Any,
    counts: Any,
    margin: float,
    smoothing: float,
    anchor: Any,
) -> Any:
    """What a block adds: residuals, and the sums of its losses and of its dual objective."""
    own = own_of(xp, labels, scores.shape[0])
    z = form.shortfalls(xp, scores, own, margin)
    z, a = settled(xp, z, form.maximizer(xp, z, smoothing, anchor))
    residuals = form.residuals(xp, a, own) * counts[None, :]
    sums = (counts * form.loss(xp, z, own), counts * form.gain(xp, a, margin))
    return residuals, tuple(part.astype(xp.float64).sum() for part in sums)


def _bent(
    xp: Any,
    form: DualForm,
    scores: Any,
    labels: Any,
    counts: Any,
    anchor: Any,
    margin: float,
    smoothing: float,
) -> Any:
    """(R,): the weighted trace of each row's second derivative."""
    a = _maximizer(xp, form, scores, labels, counts, anchor, margin, smoothing)
    return counts * total(xp, form.bend(xp, a, smoothing).diagonal)


def _slope_at(
    xp: Any,
    form: DualForm,
    scores: Any,
    labels: Any,
    counts: Any,
    anchor: Any,
    margin: float,
    smoothing: float,
    length: float,
    change: Any,
) -> Any:
    own = own_of(xp, labels, scores.shape[0])
    z = form.shortfalls(xp, scores + xp.asarray(length, scores.dtype) * change, own, margin)
    a = form.maximizer(xp, z, smoothing, anchor)
    along = total(xp, form.residuals(xp, a, own) * change) * counts
    return along.astype(xp.float64).sum()


def _curvature_along(
    xp: Any,
    form: DualForm,
    scores: Any,
    labels: Any,
    counts: Any,
    anchor: Any,
    margin: float,
    smoothing: float,
    change: Any,
) -> Any:
    a = _maximizer(xp, form, scores, labels, counts, anchor, margin, smoothing)
    own = own_of(xp, labels, scores.shape[0])
    curved = form.curve(xp, form.bend(xp, a, smoothing), own, change)
    return (total(xp, curved * change) * counts).astype(xp.float64).sum()


def _line_search(
    problem: Problem,
    scores: Any,
    change: Any,
    counts: Any,
    smoothing: float,
    anchor: Any,
    inner: Any,
) -> tuple[float, float]:
    """Where the derivative of the smoothed objective along the step vanishes (regula falsi).

    Returns:
      The length, and how many times the curvature that Newton's step assumed there is at its start.
    """
    data = (scores, problem.labels, counts, change, anchor)

    def slope(length: float) -> float:
        loss = problem.rows.total(
            rowwise(_slope_at, problem.form), data, problem.margin, smoothing, float(length)
        )
        return float(loss) + inner[0] + length * inner[1]

    start = slope(0.0)
    if start >= 0:
        return 0.0, 1.0
    curved = rowwise(_curvature_along, problem.form)
    curvature = float(problem.rows.total(curved, data, problem.margin, smoothing)) + inner[1]
    return _root(slope, start), curvature / -start


def _root(slope: Any, start: Any) -> float:
    low, at_low, high, at_high = 0.0, start, 1.0, slope(1.0)
    while at_high < 0 and high < 64:
        if at_high > 0.05 * start:
            return high
        low, at_low, high = high, at_high, 2 * high
        at_high = slope(high)
    if at_high < -0.05 * start:
        return high
    side = 0
    for _ in range(12):
        middle = low - at_low * (high - low) / (at_high - at_low)
        value = slope(middle)
        if abs(value) <= -0.05 * start:
            return middle
        if value < 0:
            low, at_low = middle, value
            at_high, side = (at_high / 2 if side == -1 else at_high), -1
        else:
            high, at_high = middle, value
            at_low, side = (at_low / 2 if side == 1 else at_low), 1
    return low if low > 0 else middle


def _bias_steps(
    problem: Problem, scores: Any, counts: Any, smoothing: float, anchor: Any
) -> np.ndarray:
    """Two guarded Newton steps in the biases alone."""
    data = (scores, problem.labels, counts)
    extra = (problem.margin, smoothing, anchor)
    return balanced_bias(summing_runner(problem), problem.form, data, extra, steps=2, accuracy=1e-7)
