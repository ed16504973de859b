"""Smooth losses (softmax, squared hinges): L-BFGS in a preconditioner that the run itself chooses.

A fit between two passes over the rows is a state (`jaxlin.solvers.lbfgs`), and nothing else
remembers. `question` says what parameters it wants to know the loss of; `advance` takes the answer
and leads to the next question, or to the end. `minimize_smooth` asks until then; `together` asks
for several fits over the same rows (the folds of a cross-validation) in one pass.

It starts in the Gram preconditioner. When the decrease it observes says that rebuilding the
preconditioner at the iterate would cost less than going on, it builds one there that follows it
(of two levels, or of many classes a block each), and again later. The comparison counts
multiplications, so that the same data always take the same path. Where a pass over the rows is
dear, it begins on a part of them, and where a device has units for rounded products, with these,
until steps gain no more than that rounding. Whatever is proved or handed back is exact.
"""

__all__ = ["advance", "begin", "minimize_smooth", "question", "together"]

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np

from jaxlin.solvers.certificate import certify, smallest_lead
from jaxlin.solvers.covariance import Sample
from jaxlin.solvers.dual_losses import module_of
from jaxlin.solvers.fitting import (
    LONG,
    SHARE,
    Fitting,
    opened,
    params_of,
    part_of,
    recipe_in,
    resumed,
)
from jaxlin.solvers.history import least_gradient, own_copy, scaled_step
from jaxlin.solvers.lbfgs import (
    GOING,
    START,
    TRIALS,
    State,
    accepted,
    arrived,
    finer,
    idle_at_end,
    noise_of,
    renewed,
    shortened,
    trial_of,
    with_step,
)
from jaxlin.solvers.mean_loss import Question, mean_loss, mean_losses, rows_asked
from jaxlin.solvers.preconditioner import flat
from jaxlin.solvers.problem import Problem, penalty, rounded, wide
from jaxlin.solvers.separation import parted
from jaxlin.solvers.status import Fit, Status, silent

MILESTONES = 20
"""Where somebody watches, a bound is proved each time that the gap has fallen by this factor."""
CLOSE = 5e-3
"""Relative gap below which a step is trusted that was not tried: it leads to a smaller gradient."""
KEPT = 5
"""Pairs of the history that outlive the preconditioner they corrected."""


def minimize_smooth(
    problem: Problem,
    weights: np.ndarray,
    bias: np.ndarray,
    report: Callable[..., Any],
    carried: State | None = None,
    on_carried: Callable[..., Any] = silent,
    on_pass: Callable[..., Any] = silent,
) -> Fit:
    """Minimize until the certified gap is below the tolerance, or the status says why not.

    Args:
      problem: with a smooth form and no l1 term.
      weights, bias: (K, D) and (K,): where to start.
      report: called with (evaluations, objective, lower bound) as the run goes on.
      carried: what a fit to this problem left; it goes on from there, bit for bit.
      on_carried: called with (evaluations, make) between steps; `make()` returns what to give as
        `carried`.
      on_pass: called before each pass over the data; an exception that it raises ends the fit.
    """
    wanted: Any = {"report": report, "on_state": on_carried}
    with wide(problem):
        fitting = begin(problem, weights, bias, carried=carried, on_pass=on_pass, **wanted)
        return _run(fitting, on_pass)[0]


def _run(fitting: Fitting, on_pass: Callable[..., Any]) -> tuple[Fit, Fitting]:
    while fitting.state.status == GOING:
        on_pass()
        asked = question(fitting)
        fitting = advance(fitting, mean_loss(*asked))
    return _ended(fitting)


def together(walks: list[Generator[Any, Any, Any]], on_pass: Callable[..., Any] = silent) -> list:
    """Run walks side by side: generators of `Fitting`s, each of which is sent its end.

    Fits that ask about the same rows are answered in one pass. `on_pass()` is called before each
    pass; an exception that it raises ends them all.

    Returns:
      What each walk returns.
    """
    results: list[Any] = [None] * len(walks)
    going: dict[int, Fitting] = {}

    def resume(i: Any, ended: Any) -> None:
        try:
            going[i] = walks[i].send(ended)
        except StopIteration as stop:
            going.pop(i, None)
            results[i] = stop.value

    for i in range(len(walks)):
        resume(i, None)
    while going:
        asked = {i: question(fitting) for i, fitting in going.items()}
        groups: dict[tuple, list[int]] = {}
        for i in asked:
            groups.setdefault(rows_asked(asked[i]), []).append(i)
        for members in groups.values():
            on_pass()
            answers = mean_losses([asked[i] for i in members])
            for i, answer in zip(members, answers, strict=True):
                going[i] = advance(going[i], answer)
                if going[i].state.status != GOING:
                    resume(i, _ended(going[i]))
    return results


def begin(
    problem: Problem,
    weights: np.ndarray,
    bias: np.ndarray,
    *,
    last: Fitting | None = None,
    carried: State | None = None,
    on_pass: Callable[..., Any] = silent,
    **wanted: Any,
) -> Fitting:
    """A fit before its first pass over all rows.

    Args:
      last: the end of a fit to the same rows and counts at another strength, from whose solution
        this one starts; `weights` and `bias` are not looked at then, nor where there is `carried`.
      carried: the state of a fit to this problem.
      on_pass: called before each pass over a part of the rows.
      wanted: of `Fitting`.
    """
    if carried is not None:
        return resumed(carried, problem, **wanted)
    passes, near = 0.0, False
    part = None if last is not None or np.any(weights) else part_of(problem)
    if part is not None:
        first, _ = _run(begin(part, weights, bias, on_pass=on_pass, proved=False), on_pass)
        weights, bias, near = first.weights, first.bias, first.iterations >= LONG
        passes = first.evaluations / SHARE
    point = np.concatenate([np.asarray(weights, np.float64).ravel(), bias]).astype(np.float64)
    fitting = opened(problem, point, last, near, **wanted)
    state = fitting.state
    return fitting._replace(state=state._replace(evaluations=passes + state.evaluations))


def _dtype(problem: Problem, state: State) -> np.dtype:
    return np.dtype(np.float64) if state.digits > 0 else problem.dtype


def question(fitting: Fitting) -> Question:
    """The parameters whose mean loss is wanted next."""
    problem, state = fitting.problem, fitting.state
    params = params_of(problem, trial_of(state))
    asked = problem if state.digits >= 0 else problem._replace(rows=problem.rows.coarse)
    return Question(asked, *params, _dtype(problem, state))


def advance(fitting: Fitting, answer: Any) -> Fitting:
    """One pass later: the answer is that of `mean_loss` to the `question`."""
    problem, state = fitting.problem, fitting.state
    there = trial_of(state)
    weights, _ = params_of(problem, there)
    loss, gradient, sums = answer
    value = loss + penalty(problem, weights)
    gradient = gradient + 2 * problem.strength * weights
    gradient = module_of(there).concatenate([gradient.ravel(), sums])
    state = state._replace(evaluations=state.evaluations + 1)
    if state.trial == START:
        state = state._replace(value=value, gradient=gradient, least=value, best=there, trial=0)
        return _turned(fitting._replace(state=state))
    noise = noise_of(state, problem.dtype)
    stalled, at_end = idle_at_end(state, noise)
    if accepted(state, value, gradient, noise):
        state = arrived(state, there, value, gradient)
    else:
        state = shortened(state, value)
        if state.trial < TRIALS:
            return fitting._replace(state=state)
        state, stalled = state._replace(length=1.0), True
    state = state._replace(iterations=state.iterations + 1, since=state.since + 1)
    stalled = stalled or at_end
    if state.digits < 0 and (stalled or state.decrements[-1] < noise):
        return fitting._replace(state=finer(state))
    if stalled and _dtype(problem, state) != np.float64:
        return fitting._replace(state=finer(renewed(state, 0)))
    if at_end or (stalled and state.since > 2):
        return fitting._replace(state=state._replace(status=Status.PRECISION))
    return _turned(_refreshed(fitting._replace(state=state)))


def _refreshed(fitting: Fitting) -> Fitting:
    """With a new preconditioner at the iterate, where that saves more passes than it costs."""
    problem, state, builder = fitting.problem, fitting.state, fitting.builder
    preconditioner, target = fitting.preconditioner, problem.tolerance * state.value
    known = state.decrements[~np.isnan(state.decrements)]
    if builder.worth_rebuilding(known, state.since, state.gap, target):
        params = params_of(problem, np.asarray(state.point))
        preconditioner, cost = builder.following(*params, instead=preconditioner)
        # the youngest pairs know this neighborhood better than a sample of rows does
        state = renewed(state, KEPT)._replace(
            since=0,
            built=recipe_in(builder)[0],
            built_strength=problem.strength,
            evaluations=state.evaluations + cost,
        )
    state = state._replace(recipe=builder.state()[2])  # asking it may have changed its rates
    return fitting._replace(state=state, preconditioner=preconditioner)


def _turned(fitting: Fitting) -> Fitting:
    """From a point whose objective is known to the next trial, or to the end."""
    problem, state = fitting.problem, fitting.state
    prospect = _prospect_of(problem, state)
    state = state._replace(gap=prospect.gap)
    fitting = fitting._replace(state=state)
    fitting.report(state.evaluations, min(state.least, state.value), max(state.lower, state.seen))
    met = state.gap <= min(0.7 * problem.tolerance * state.value, 0.5 * state.promise)
    if state.digits < 0 and (met or state.iterations >= problem.max_iterations):
        return fitting._replace(state=finer(state))
    if met and not fitting.proved:
        return fitting._replace(state=state._replace(status=Status.MAX_ITERATIONS))
    if met:
        fitting = _certified(fitting, prospect)
    elif fitting.report is not silent and state.digits >= 0:
        fitting = _shown(fitting, prospect)
    if fitting.state.status == GOING:
        fitting = fitting._replace(state=_status_at(fitting))
    if fitting.state.status != GOING:
        return fitting
    state = with_step(fitting.state, _along(fitting))
    fitting.on_state(state.evaluations, lambda: own_copy(state))
    return fitting._replace(state=state)


def _along(fitting: Fitting) -> Callable:
    """The preconditioner of vectors (..., n)."""
    return flat(fitting.preconditioner, (fitting.problem.classes, fitting.problem.features))


class _Prospect(NamedTuple):
    """A point that is expected to prove a gap."""

    point: np.ndarray
    gradient: np.ndarray
    """There, as the history predicts it."""
    gap: float


def _prospect_of(problem: Problem, state: State) -> _Prospect:
    """The combination of the last iterates, or the last one, that should prove most.

    The gap of the last iterate overstates its distance to the optimum by a condition number. The
    combination of the iterates whose gradient is least proves far more.
    """
    if problem.strength == 0:
        return _Prospect(state.point, state.gradient, np.inf)
    split = problem.classes * problem.features
    here = state.point, state.gradient
    points = least_gradient(state.history, *here, split), here
    gaps = [float(slope[:split] @ slope[:split]) / (4 * problem.strength) for _, slope in points]
    best = int(gaps[1] <= gaps[0])
    point, gradient = points[best]
    return _Prospect(point, gradient, gaps[best])


def _certified(fitting: Fitting, prospect: _Prospect) -> Fitting:
    """With a certificate of the point that should prove most; ended if it proves enough."""
    problem, state = fitting.problem, fitting.state
    dtype = _dtype(problem, state)
    params = rounded(problem, *params_of(problem, np.asarray(_ahead_of(fitting, prospect))))
    proof = certify(problem, *params, dtype=dtype, exact=True)
    state = state._replace(
        evaluations=state.evaluations + proof.evaluations,
        promise=prospect.gap,
        lower=max(state.lower, proof.lower_bound),
    )
    better = state.least > proof.objective or dtype != np.float64
    if better:
        best = np.concatenate([params[0].ravel(), proof.bias])
        state = state._replace(least=proof.objective, best=best)
    fitting.report(state.evaluations, state.least, max(state.lower, state.seen))
    if state.least - state.lower > problem.tolerance * state.least:
        return fitting._replace(state=state)
    state = state._replace(status=Status.CONVERGED)
    return fitting._replace(state=state, proof=proof if better else None)


def _shown(fitting: Fitting, prospect: _Prospect) -> Fitting:
    """With a bound for those who watch, where one is due, of which the fit takes no notice."""
    problem, state = fitting.problem, fitting.state
    if prospect.gap > 0.7 * state.milestone * state.value:
        return fitting
    params = params_of(problem, np.asarray(_ahead_of(fitting, prospect)))
    proof = certify(problem, *params, dtype=_dtype(problem, state))
    state = state._replace(
        seen=max(state.seen, proof.lower_bound),
        milestone=min(state.milestone, prospect.gap / state.value) / MILESTONES,
    )
    fitting.report(state.evaluations, state.least, max(state.lower, state.seen))
    return fitting._replace(state=state)


def _ahead_of(fitting: Fitting, prospect: _Prospect) -> np.ndarray:
    """Its point, or a step on, which costs no pass."""
    history = fitting.state.history
    if not history.held or prospect.gap > CLOSE * fitting.state.value:
        return prospect.point
    return prospect.point + scaled_step(history, _along(fitting), prospect.gradient)[0]


def _status_at(fitting: Fitting) -> State:
    """Whether the fit goes on from where it is."""
    problem, state = fitting.problem, fitting.state
    status = None
    if problem.strength == 0:
        status = _unregularized(problem, state, fitting.builder.sample)
    if status is None and state.iterations >= problem.max_iterations:
        status = Status.MAX_ITERATIONS
    return state if status is None else state._replace(status=status)


def _unregularized(problem: Problem, state: State, sample: Sample) -> Status | None:
    """Without a penalty: separated data have no optimum; else a small gradient is all there is.

    The objective is above its least value by no more than <gradient, distance to the optimum>, here
    in units of the features' sizes, so that nothing depends on the units they came in.
    """
    here = np.asarray(state.point), np.asarray(state.gradient)
    (weights, bias), slopes = (params_of(problem, part) for part in here)
    if smallest_lead(problem, weights, bias) > 0:
        return Status.SEPARABLE
    sizes = _sizes(sample)
    far = np.hypot(np.linalg.norm(weights * sizes), np.linalg.norm(bias))
    steep = np.hypot(np.linalg.norm(slopes[0] / sizes), np.linalg.norm(slopes[1]))
    small = problem.tolerance * max(state.value, 1e-30) / max(float(far), 1.0) * 1e-2
    return Status.NO_PROOF if steep <= small else None


def _sizes(sample: Sample) -> np.ndarray:
    """(D,): the root mean squares of the features; 1 where the sample has one value."""
    variances = sample.variances()
    return np.sqrt(np.where(variances > 0, sample.mean**2 + variances, 1.0))


def _ended(fitting: Fitting) -> tuple[Fit, Fitting]:
    """The fit, and the end of it for the next strength."""
    problem, state = fitting.problem, fitting.state
    state = state._replace(best=np.asarray(state.best))
    if state.status != Status.CONVERGED and problem.strength > 0 and fitting.proved:
        weights, bias = params_of(problem, state.best)
        proof = certify(problem, weights, bias)
        state = state._replace(
            evaluations=state.evaluations + proof.evaluations,
            lower=max(state.lower, proof.lower_bound),
            least=proof.objective,
            best=np.concatenate([weights.ravel(), proof.bias]),
        )
        if state.least - state.lower <= problem.tolerance * state.least:
            state = state._replace(status=Status.CONVERGED)
    weights, bias = params_of(problem, state.best)
    softmax = problem.form.name == "softmax" and state.status != Status.SEPARABLE
    if problem.strength == 0 and softmax and parted(problem, weights, bias):
        state = state._replace(status=Status.SEPARABLE)
    if fitting.origin is not None:
        before, strength = fitting.origin
        if strength != problem.strength and 0 not in (strength, problem.strength):
            velocity = (state.best - before) / np.log(problem.strength / strength)
            state = state._replace(velocity=velocity)
    norm = float(np.linalg.norm(np.asarray(state.gradient)))
    fit = Fit(
        *(weights, bias, state.lower, norm, state.iterations, state.evaluations),
        *(Status(state.status), fitting.proof),
    )
    return fit, fitting._replace(state=state)
