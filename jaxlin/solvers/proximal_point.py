r"""Losses with kinks: proximal smoothing of the dual, semismooth Newton inside.

Round after round, the loss is smoothed around the dual point of the round before,

    a = argmax over A of  a . z - h(a) - (smoothing / 2) |a - anchor|^2,      anchor <- a,

the proximal point method on the dual, equivalently the augmented Lagrangian method (Rockafellar,
1976): no smoothing error remains in the limit, so that `smoothing` need not go to 0, where every
method stalls. Inside a round the objective is piecewise quadratic; Newton steps touch only the
rows that bend (Sun, Toh et al. call this a semismooth Newton augmented Lagrangian method), by a
dense factorization for few unknowns and by conjugate gradients for many, in the preconditioner of
few classes or of many (`jaxlin.solvers.preconditioner`).
Where so many rows bend that such a step would take more passes than it is worth, a quasi-Newton
step in that preconditioner is taken instead (`jaxlin.solvers.newton`).
Scores are affine in the step, so a line search costs no pass over the data. The maximizers are
feasible dual points throughout: their certificate is the stopping rule.
"""

__all__ = ["HingeFit", "HingeState", "minimize_hinge", "minimize_unregularized", "separated"]

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxlin.passes import arithmetic
from jaxlin.solvers.balance import WIDE
from jaxlin.solvers.certificate import Certificate, certify, objective_at, smallest_lead
from jaxlin.solvers.covariance import constant_features
from jaxlin.solvers.history import History, own_copy
from jaxlin.solvers.interior import minimize_small_hinge, suits_interior
from jaxlin.solvers.lbfgs import GOING
from jaxlin.solvers.newton import MISSED, NewtonStep, QuasiNewtonStep
from jaxlin.solvers.problem import Problem, beside, penalty, same_fit
from jaxlin.solvers.refresh import PreconditionerBuilder
from jaxlin.solvers.rowwise import columnwise, lifted, moved, rowwise, to_host
from jaxlin.solvers.smoothing import bending_of, bias_steps, line_search, maximizer_of, point_of
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
STALLED = 100
"""Rounds without a step after which the arithmetic is at its end."""
SEEN = 1000
"""Rows that tell how the features spread."""


class HingeState(NamedTuple):
    """Between two steps of a loss with kinks, over the classes that occur; n = K * D + K."""

    weights: np.ndarray
    """(K, D) float64."""
    bias: np.ndarray
    """(K,) float64."""
    best: np.ndarray
    """(n,) float64: the weights row by row, then the bias, of the least objective."""
    scores: Any
    """(K, N) in the dtype of the arithmetic, where the rows are computed: they are added up step by
    step, and the next step overwrites them."""
    anchor: Any
    """(K, N): the dual point of the round before."""
    smoothing: float
    floor: float
    """Of the smoothing: what steps that turned out short ask for."""
    dear: float
    """Passes from which on a Newton direction is not worth them."""
    least: float
    """The least objective so far."""
    lower: float
    """The greatest bound that was proved."""
    claimed: float
    """The greatest bound that was expected."""
    promise: float
    """The gap that the last proof was expected to leave."""
    norm: float
    """Of the gradient."""
    evaluations: float
    iterations: int
    stalled: int
    """Rounds in a row without a step."""
    steps: int
    """Of this round."""
    many: int
    """Quasi-Newton steps of this round."""
    short: int
    """Short steps of this round."""
    status: int
    """`Status`, or `GOING`."""


class HingeFit(NamedTuple):
    """A `HingeState` with its arrays on the host, and what was learned about the curvature."""

    state: HingeState
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


class _Run(NamedTuple):
    """What a fit is about, and what makes its steps."""

    problem: Problem
    counts: Any
    """(N,) in the dtype of the arithmetic, where the rows are computed."""
    newton: NewtonStep
    quasi: QuasiNewtonStep
    report: Callable[..., Any]

    def by_row(self, state: HingeState) -> tuple:
        return state.scores, self.problem.labels, self.counts, state.anchor


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
    carried: HingeFit | None,
    on_carried: Callable[..., Any],
    on_pass: Callable[..., Any],
) -> Fit:
    newton = NewtonStep(problem, PreconditionerBuilder(problem), keep=on_carried is not silent)
    counts = problem.xp.asarray(problem.counts.astype(problem.dtype))
    run = _Run(problem, counts, newton, QuasiNewtonStep(problem, newton), report)
    state = _begun(problem, weights, bias) if carried is None else _resumed(run, carried)
    if state.iterations > problem.max_iterations:
        state = state._replace(status=Status.MAX_ITERATIONS)
    while state.status == GOING:
        on_carried(state.evaluations, partial(_carried, run, state))
        on_pass()
        state = _advanced(run, state)
    return _ended(run, state)


def _begun(problem: Problem, weights: np.ndarray, bias: np.ndarray) -> HingeState:
    weights, bias = weights.astype(np.float64), bias.astype(np.float64)
    scores = problem.rows.scores(weights, bias)
    return HingeState(
        *(weights, bias, _joined(weights, bias), scores, problem.xp.zeros_like(scores)),
        *(COARSEST * problem.margin, 0.0, DEAR, np.inf, 0.0, -np.inf, np.inf, np.inf, 0.5),
        *(0, 0, 0, 0, 0, GOING),
    )


def _resumed(run: _Run, carried: HingeFit) -> HingeState:
    problem = run.problem
    carried = own_copy(same_fit(carried, HingeFit, problem))
    run.newton.go_on(carried.newton_rows, carried.newton_columns, carried.newton)
    quasi = carried.quasi_rows, carried.quasi_columns, carried.quasi
    run.quasi.go_on(carried.history, carried.last, *quasi)
    scores, anchor = (beside(problem.rows, part) for part in carried.state[3:5])
    return carried.state._replace(scores=scores, anchor=anchor)


def _carried(run: _Run, state: HingeState) -> HingeFit:
    scores, anchor = (to_host(run.problem, part) for part in (state.scores, state.anchor))
    state = state._replace(scores=scores, anchor=anchor)
    return own_copy(HingeFit(state, *run.newton.state(), *run.quasi.state()))


def _joined(weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return np.concatenate([weights.ravel(), bias])


def _advanced(run: _Run, state: HingeState) -> HingeState:
    """One pass later: a step on, or in the next round, or at the end."""
    problem, strength = run.problem, run.problem.strength
    if problem.fit_intercept:
        shift = bias_steps(problem, run.by_row(state), state.smoothing)
        scores = lifted(problem, state.scores, shift)
        state = state._replace(bias=state.bias + shift, scores=scores)
    weights, bias = state.weights, state.bias
    products, sums, (loss, gain) = problem.rows.transpose_total(
        rowwise(point_of, problem.form), run.by_row(state), problem.margin, state.smoothing,
        dtype=problem.dtype,
    )  # fmt: skip
    if not problem.fit_intercept:
        sums = np.zeros_like(sums)
    objective = float(loss) + penalty(problem, weights)
    gradient = products + 2 * strength * weights
    run.quasi.learn(weights, bias, gradient, sums)
    slack = float((gradient**2).sum()) / (4 * strength)
    # of the problem whose bias stays; the free bias will move by a margin or so
    bound = float(gain) + float(bias @ sums) - float((products**2).sum()) / (4 * strength)
    state = state._replace(
        evaluations=state.evaluations + 0.5,
        norm=float(np.sqrt((gradient**2).sum() + (sums**2).sum())),
        claimed=max(state.claimed, bound - float(np.abs(sums).sum()) * problem.margin),
    )
    if objective < state.least:
        state = state._replace(least=objective, best=_joined(weights, bias))
    blur = max(objective - bound - slack, 0.0)
    run.report(state.evaluations, state.least, state.lower)
    goal, gap = problem.tolerance * state.least, state.least - bound
    if state.least - state.claimed <= 0.8 * goal and gap <= 0.9 * state.promise:
        state = _certified(run, state._replace(promise=gap))
        if state.status != GOING:
            return state
    rough = 6 if state.smoothing > 0.2 * problem.margin else 1  # soon to be smoothed less
    enough = (1e-3 if run.newton.exact else 0.5) * rough * max(blur, 0.1 * goal)
    near = slack < (enough if state.steps else 1e-2 * enough)
    if near or state.iterations >= problem.max_iterations:
        return _turned(run, state)
    state, length = _stepped(run, state, gradient, sums, enough / slack)
    if length <= 1e-10 or state.steps >= STEPS:
        return _turned(run, state)
    return state


def _certified(run: _Run, state: HingeState) -> HingeState:
    """With a proof of where it is; ended if that proves enough."""
    problem = run.problem
    proof = _proof(problem, state)
    state = state._replace(
        evaluations=state.evaluations + proof.evaluations,
        lower=max(state.lower, proof.lower_bound),
    )
    if proof.objective < state.least or problem.dtype != np.float64:  # its loss is exact
        state = state._replace(least=proof.objective, best=_joined(state.weights, proof.bias))
    run.report(state.evaluations, state.least, state.lower)
    if state.least - state.lower <= problem.tolerance * state.least:
        return state._replace(status=Status.CONVERGED)
    return state


def _proof(problem: Problem, state: HingeState) -> Certificate:
    smooth: Any = {"smoothing": state.smoothing, "anchor": state.anchor}
    dtype = problem.dtype if problem.classes > WIDE else np.float64
    return certify(problem, state.weights, state.bias, dtype=dtype, **smooth)


def _stepped(
    run: _Run, state: HingeState, gradient: np.ndarray, sums: np.ndarray, within: float
) -> tuple[HingeState, float]:
    """A step along Newton's direction, or L-BFGS's, and its length.

    Args:
      within: what slack is enough for this round, as a share of what there is.
    """
    problem, weights, bias = run.problem, state.weights, state.bias
    bending = rowwise(bending_of, problem.form)
    bent = columnwise(problem, bending, run.by_row(state), problem.margin, state.smoothing)
    here = (gradient, sums, state.scores, state.smoothing, state.anchor)
    crowded, cost = run.newton.dear(bent) > state.dear, 0.0
    if crowded:
        step, bias_step = run.quasi(bent, weights, bias, *here)
    else:
        accuracy = np.clip(0.3 * np.sqrt(within), 0.05, 0.3)
        step, bias_step, cost = run.newton(bent, *here, accuracy)
    change = problem.rows.scores(step, bias_step)
    inner = 2 * problem.strength * np.array([(weights * step).sum(), (step * step).sum()])
    length, missed = line_search(problem, run.by_row(state), change, state.smoothing, inner)
    state = state._replace(
        evaluations=state.evaluations + cost + 0.5,
        iterations=state.iterations + 1,
        steps=state.steps + 1,
        many=state.many + int(crowded),
    )
    if not crowded:
        run.newton.learn(missed)
        if length < SHORT and missed < MISSED:  # rows begin or cease to bend on the way
            more = 2 * state.smoothing
            state = state._replace(short=state.short + 1, smoothing=more, floor=more)
            run.quasi.turn()
    if length <= 1e-10:
        return state, length
    weights, bias = weights + length * step, bias + length * bias_step
    if state.iterations % 25:
        scores = moved(problem, state.scores, change, length)
    else:
        scores = problem.rows.scores(weights, bias)
        state = state._replace(evaluations=state.evaluations + 0.5)
    return state._replace(weights=weights, bias=bias, scores=scores), length


def _turned(run: _Run, state: HingeState) -> HingeState:
    """Before the next round: smoothed around the dual point of this one."""
    problem, newton, steps = run.problem, run.newton, state.steps
    if state.iterations >= problem.max_iterations:
        return state._replace(status=Status.MAX_ITERATIONS)
    state = state._replace(stalled=0 if steps else state.stalled + 1)
    if state.stalled > STALLED:
        return state._replace(status=Status.PRECISION)
    smoothing, floor, dear = state.smoothing, 0.8 * state.floor, state.dear
    maximizer = rowwise(maximizer_of, problem.form)
    anchor = columnwise(problem, maximizer, run.by_row(state), problem.margin, smoothing)
    if not state.short:
        if state.many >= STEPS:
            dear = 2 * dear
        if state.many:
            smoothing = max(smoothing * _pace(steps), 0.01 * problem.margin)
        elif steps <= 3 or smoothing > 0.2 * problem.margin:
            finest = _finest(smoothing, steps, newton.exact) * problem.margin
            smoothing = max(smoothing / 3, finest, min(floor, smoothing))
        elif steps >= STEPS:
            smoothing = smoothing * 2
    run.quasi.turn()
    new: Any = {"smoothing": smoothing, "floor": floor, "dear": dear, "anchor": anchor}
    return state._replace(steps=0, many=0, short=0, **new)


def _ended(run: _Run, state: HingeState) -> Fit:
    problem = run.problem
    if state.status != Status.CONVERGED:
        lower = max(state.lower, _proof(problem, state).lower_bound)
        met = state.least - lower <= problem.tolerance * state.least
        status = Status.CONVERGED if met else state.status
        state = state._replace(lower=lower, status=status)
    weights, bias = np.split(state.best, [state.weights.size])
    counted = state.iterations, state.evaluations, Status(state.status)
    return Fit(weights.reshape(state.weights.shape), bias, state.lower, state.norm, *counted)


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
