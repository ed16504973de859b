r"""Lasso and elastic net: smooth loss + strength |W|^2 + l1_strength |W|_1.

Inside one orthant (every weight keeps its sign, or stays 0) the objective is smooth. Each step is
a quasi-Newton step for the weights that are free to move, projected back onto the orthant, as in
Andrew and Gao (2007, doi:10.1145/1273496.1273501); where it fails, a proximal gradient step, which
always decreases the objective. The preconditioner is the diagonal of the Hessian of a sample, or,
once few weights are free, their whole Hessian.
"""

__all__ = ["L1Fit", "minimize_proximal"]

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse

from jaxlin.solvers.certificate import certify
from jaxlin.solvers.covariance import rows_at
from jaxlin.solvers.curvature import DENSE_SIDE, Bends, bends_of, fits_dense, weights_between
from jaxlin.solvers.fitting import params_of
from jaxlin.solvers.history import (
    History,
    empty_history,
    forgotten,
    own_copy,
    pushed,
    step_from,
)
from jaxlin.solvers.lbfgs import GOING
from jaxlin.solvers.mean_loss import mean_loss
from jaxlin.solvers.problem import Problem, penalty, same_fit
from jaxlin.solvers.refresh import PreconditionerBuilder
from jaxlin.solvers.status import Fit, Status, silent

SERVES = 10
"""Steps that a preconditioner serves, where it is not cheap to build."""
FAILURES = 5
"""Steps in a row that may gain nothing: the arithmetic is at its end."""


class L1Fit(NamedTuple):
    """Between two steps with an l1 term, float64, over the classes that occur; n = K * D + K."""

    point: np.ndarray
    """(n,)"""
    gradient: np.ndarray
    """(n,), of the loss."""
    best: np.ndarray
    """(n,)"""
    history: History
    built: np.ndarray
    """(n,): where the preconditioner was built."""
    free: np.ndarray
    """(K * D,) 0 or 1: the weights that were free there."""
    value: float
    """Of the objective."""
    least: float
    """Of the objectives so far."""
    lower: float
    """The greatest bound that was proved."""
    promise: float
    """What the last proof was expected to leave."""
    damping: float
    """Added to the dense Hessian, relative to its mean diagonal: shortens steps along directions
    that the data do not see, which only run into the orthant's walls."""
    evaluations: float
    iterations: int
    failures: int
    """Steps in a row that gained nothing."""
    since: int
    """Steps in this preconditioner."""
    digits: int
    """Of evaluations: 0 those of the problem's dtype, 1 those of float64."""
    status: int
    """`Status`, or `GOING`."""


class _Run(NamedTuple):
    """What a fit is about, and what it is made with."""

    problem: Problem
    builder: PreconditionerBuilder
    rows: Any
    """Of the builder's sample, as they are stored."""
    cheap: bool
    """The preconditioner is the Hessian of all rows, and small."""
    ridge: np.ndarray
    """(n,): second derivatives of the squares."""
    report: Callable[..., Any]
    on_pass: Callable[..., Any]


class _Trial(NamedTuple):
    """Where a step led."""

    point: np.ndarray
    value: float
    gradient: np.ndarray
    """Of the loss."""
    length: float


def minimize_proximal(
    problem: Problem,
    weights: np.ndarray,
    bias: np.ndarray,
    report: Callable[..., Any],
    carried: L1Fit | None = None,
    on_carried: Callable[..., Any] = silent,
    on_pass: Callable[..., Any] = silent,
) -> Fit:
    """Minimize until the certified gap is below the tolerance, or the status says why not.

    The arguments are those of `jaxlin.solvers.smooth.minimize_smooth`.
    """
    run = _run_of(problem, report, on_pass)
    if carried is None:
        state = _begun(run, np.concatenate([np.ravel(weights), bias]).astype(np.float64))
    else:
        state = own_copy(same_fit(carried, L1Fit, problem))
    model = _curvature_at(run, state.built, state.free != 0)
    while state.status == GOING:
        on_carried(state.evaluations, partial(own_copy, state))
        state, model = _advanced(run, state, model)
    return _ended(run, state)


def _run_of(problem: Problem, report: Callable[..., Any], on_pass: Callable[..., Any]) -> _Run:
    builder = PreconditionerBuilder(problem)
    indices = builder.sample.indices
    cheap = bool(len(indices) >= np.count_nonzero(problem.counts) and fits_dense(problem))
    ridge = np.full(problem.classes * (problem.features + 1), 2 * problem.strength)
    ridge[-problem.classes :] = 0
    return _Run(problem, builder, rows_at(problem, indices), cheap, ridge, report, on_pass)


def _begun(run: _Run, point: np.ndarray) -> L1Fit:
    problem, digits = run.problem, int(run.problem.dtype == np.float64)
    value, gradient = _evaluated(run, point, digits)
    return L1Fit(
        point=point,
        gradient=gradient,
        best=point,
        history=empty_history(point.size),
        built=point,
        free=np.zeros(problem.classes * problem.features),
        value=value,
        least=value,
        lower=0.0,
        promise=np.inf,
        damping=1e-6,
        evaluations=1.0,
        iterations=0,
        failures=0,
        since=0,
        digits=digits,
        status=GOING,
    )


def _evaluated(run: _Run, point: np.ndarray, digits: int) -> tuple[float, np.ndarray]:
    """The objective, and the gradient of the loss: a pass."""
    run.on_pass()
    weights, bias = params_of(run.problem, point)
    dtype = np.float64 if digits else run.problem.dtype
    value, gradient, sums = mean_loss(run.problem, weights, bias, dtype)
    return value + penalty(run.problem, weights), np.concatenate([gradient.ravel(), sums])


def _noise(run: _Run, state: L1Fit) -> float:
    """Rounding of the objective, as it is evaluated by now."""
    return 8 * np.finfo(np.float64 if state.digits else run.problem.dtype).eps * abs(state.value)


def _advanced(run: _Run, state: L1Fit, model: "_Curvature") -> tuple[L1Fit, "_Curvature"]:
    """A step on, or at the end; and the preconditioner there."""
    problem, split = run.problem, state.free.size
    smooth = state.gradient + run.ridge * state.point
    gap = state.value - _estimated_bound(problem, state)
    run.report(state.evaluations, state.least, state.lower)
    if gap <= 0.8 * problem.tolerance * state.value and gap <= 0.7 * state.promise:
        state = _certified(run, state._replace(promise=gap))
    if state.status == GOING and state.iterations >= problem.max_iterations:
        state = state._replace(status=Status.MAX_ITERATIONS)
    if state.status != GOING:
        return state, model
    pseudo = _steepest(state.point, smooth, split, problem.l1_strength)
    free = (state.point[:split] != 0) | (pseudo[:split] != 0)
    if state.since >= (1 if run.cheap else SERVES):
        model = _curvature_at(run, state.point, free)
        history = forgotten(state.history, 0)
        built: Any = {"built": state.point, "free": free.astype(np.float64)}
        state = state._replace(history=history, since=0, **built)
    trial, tried = _along_orthant(run, state, pseudo, _free_step(run, model, state, pseudo, free))
    length = 0.0 if trial is None else trial.length
    factor = 0.2 if length == 1 else 1 if length > 0.3 else 10  # 1 trusts the Hessian more
    state = state._replace(damping=float(np.clip(state.damping * factor, 1e-9, 1e2)))
    if trial is None:
        state = state._replace(history=forgotten(state.history, 0))
        trial, more = _proximal_step(run, state, smooth, model)
        tried += more
    state = state._replace(
        evaluations=state.evaluations + tried,
        iterations=state.iterations + 1,
        since=state.since + 1,
    )
    return _arrived(run, state, trial), model


def _certified(run: _Run, state: L1Fit) -> L1Fit:
    """With a proof of where it is; ended if that proves enough."""
    proof = certify(run.problem, *params_of(run.problem, state.point))
    lower = max(state.lower, proof.lower_bound)
    state = state._replace(evaluations=state.evaluations + proof.evaluations, lower=lower)
    if proof.objective < state.least or not state.digits:  # its loss is exact
        best = np.concatenate([state.point[: state.free.size], proof.bias])
        state = state._replace(least=proof.objective, best=best)
    run.report(state.evaluations, state.least, state.lower)
    met = state.least - state.lower <= run.problem.tolerance * state.least
    return state._replace(status=Status.CONVERGED) if met else state


def _arrived(run: _Run, state: L1Fit, trial: _Trial | None) -> L1Fit:
    """After a step; where it gained nothing with more digits, and with all of them at the end."""
    gained = trial is not None and trial.value <= state.value - 0.1 * _noise(run, state)
    state = state._replace(failures=0 if gained else state.failures + 1)
    if not gained and not state.digits:
        value, gradient = _evaluated(run, state.point, 1)
        state = state._replace(value=value, gradient=gradient, least=value, best=state.point)
        return state._replace(digits=1, failures=0, evaluations=state.evaluations + 1)
    if trial is None or state.failures > FAILURES:
        return state._replace(status=Status.PRECISION)
    change = trial.point - state.point
    slopes = trial.gradient - state.gradient + run.ridge * change
    state = state._replace(
        point=trial.point,
        value=trial.value,
        gradient=trial.gradient,
        history=pushed(state.history, change, slopes),
    )
    if state.value < state.least:
        state = state._replace(least=state.value, best=state.point)
    return state


def _ended(run: _Run, state: L1Fit) -> Fit:
    problem, split = run.problem, state.free.size
    if state.status != Status.CONVERGED:
        proof = certify(problem, *params_of(problem, state.best))
        state = state._replace(
            evaluations=state.evaluations + proof.evaluations,
            lower=max(state.lower, proof.lower_bound),
            least=proof.objective,
            best=np.concatenate([state.best[:split], proof.bias]),
        )
        if state.least - state.lower <= problem.tolerance * state.least:
            state = state._replace(status=Status.CONVERGED)
    smooth = state.gradient + run.ridge * state.point
    norm = float(np.linalg.norm(_steepest(state.point, smooth, split, problem.l1_strength)))
    counted: Any = state.iterations, state.evaluations, Status(state.status)
    return Fit(*params_of(problem, state.best), state.lower, norm, *counted)


def _free_step(
    run: _Run, model: "_Curvature", state: L1Fit, pseudo: np.ndarray, free: np.ndarray
) -> np.ndarray:
    """The step of the free weights. Zeros that would leave against their slope stay zero."""
    split = state.free.size
    for _ in range(4):
        mask = _padded(free, run.problem.classes)
        precondition = _restricted(run, model, state.damping, mask)
        slope = np.where(mask, pseudo, 0)
        step = np.where(mask, step_from(state.history, precondition, slope), 0)
        wrong = (state.point[:split] == 0) & (step[:split] * pseudo[:split] > 0)
        if not wrong.any():
            break
        free = free & ~wrong
    step[:split] = np.where(wrong, 0, step[:split])
    return step


def _padded(free: np.ndarray, classes: int) -> np.ndarray:
    return np.concatenate([free, np.ones(classes, bool)])


def _steepest(point: np.ndarray, smooth: np.ndarray, split: int, l1: float) -> np.ndarray:
    """The subgradient of least norm: its negative is the steepest descent direction."""
    slope, at = smooth[:split], point[:split]
    pseudo = smooth.copy()
    shrunk = np.sign(slope) * np.maximum(np.abs(slope) - l1, 0)
    pseudo[:split] = np.where(at != 0, slope + l1 * np.sign(at), shrunk)
    return pseudo


def _estimated_bound(problem: Problem, state: L1Fit) -> float:
    """Fenchel's bound by the identity gain = loss - r . s at a maximizer, in working precision."""
    strength, l1, split = problem.strength, problem.l1_strength, state.free.size
    loss = state.value - penalty(problem, state.point[:split])
    gain, sizes = loss - state.gradient @ state.point, np.abs(state.gradient[:split])
    if strength == 0:
        return gain * min(1.0, l1 / sizes.max()) if sizes.any() else gain
    return gain - float((np.maximum(sizes - l1, 0) ** 2).sum()) / (4 * strength)


def _along_orthant(
    run: _Run, state: L1Fit, pseudo: np.ndarray, step: np.ndarray, trials: int = 12
) -> tuple[_Trial | None, int]:
    """Shorten the step, projected onto the orthant of the point, until the objective decreases; and
    how many were tried."""
    point, split = state.point, state.free.size
    signs = np.where(point[:split] != 0, np.sign(point[:split]), -np.sign(pseudo[:split]))
    length, noise = 1.0, _noise(run, state)
    for tried in range(trials):
        there = point + length * step
        there[:split] = np.where(there[:split] * signs > 0, there[:split], 0)
        change = pseudo @ (there - point)
        if change >= 0:
            return None, tried
        value, gradient = _evaluated(run, there, state.digits)
        if value <= state.value + 1e-4 * change + noise:
            return _Trial(there, value, gradient, length), tried + 1
        length *= 0.4
    return None, trials


def _proximal_step(
    run: _Run, state: L1Fit, smooth: np.ndarray, model: "_Curvature", trials: int = 30
) -> tuple[_Trial | None, int]:
    """Gradient step and soft threshold, coordinate by coordinate in the diagonal preconditioner."""
    length, noise, split = 1.0, _noise(run, state), state.free.size
    for tried in range(trials):
        rates = length * model.rates
        there = state.point - rates * smooth
        moved, least = there[:split], run.problem.l1_strength * rates[:split]
        there[:split] = np.sign(moved) * np.maximum(np.abs(moved) - least, 0)
        change = there - state.point
        if not change.any():
            return None, tried
        value, gradient = _evaluated(run, there, state.digits)
        expected = (change**2 / np.maximum(rates, 1e-300)).sum()
        if value <= state.value - 1e-4 * expected + noise:
            return _Trial(there, value, gradient, length), tried + 1
        length *= 0.5
    return None, trials


class _Curvature(NamedTuple):
    """Second derivatives at a point: the diagonal, and all of the free weights where these are
    few."""

    rates: np.ndarray
    """(n,): one over the diagonal."""
    hessian: np.ndarray | None
    """(m, m), of free weights and biases."""
    places: np.ndarray
    """(m,): their places in points."""


def _curvature_at(run: _Run, point: np.ndarray, free: np.ndarray) -> _Curvature:
    """At a point (n,) where the weights that are `free`, (K * D,), may move."""
    problem, split, sample = run.problem, free.size, run.builder.sample
    bends = bends_of(problem, sample, run.builder.scores(sample, *params_of(problem, point)))
    own = bends.own_weights
    curvature = own @ run.rows**2 + 2 * problem.strength
    biases = own.sum(1)
    if not problem.fit_intercept:
        biases = np.full_like(biases, np.inf)
    diagonal = np.concatenate([curvature.ravel(), biases]).astype(np.float64)
    rates = 1 / np.maximum(diagonal, 1e-8 * np.median(diagonal[:split]) + 1e-30)
    if not 0 < np.count_nonzero(free) <= DENSE_SIDE:
        return _Curvature(rates, None, np.zeros(0, int))
    mask = free.reshape(problem.classes, problem.features)
    features = [np.flatnonzero(own) for own in mask]
    places = [np.append(k * problem.features + f, split + k) for k, f in enumerate(features)]
    kept = np.concatenate(places)
    hessian = _blocks(run, features, bends)
    hessian[np.diag_indices_from(hessian)] += run.ridge[kept]
    return _Curvature(rates, hessian, kept)


def _blocks(run: _Run, features: list[np.ndarray], bends: Bends) -> np.ndarray:
    """Of the loss, in the features of each class and its bias, class by class."""
    extended = [_with_ones(run.rows[:, own]) for own in features]

    def between(k: int, j: int) -> np.ndarray:
        weights = bends.own_weights[k] if k == j else weights_between(bends, k, j)
        return (extended[k] * weights[:, None]).T @ extended[j]

    every = range(len(features))
    return np.block([[between(k, j) for j in every] for k in every]).astype(np.float64)


def _with_ones(rows: Any) -> np.ndarray:
    rows = rows.toarray() if scipy.sparse.issparse(rows) else rows
    return np.concatenate([rows, np.ones((len(rows), 1), rows.dtype)], axis=1)


def _restricted(
    run: _Run, model: _Curvature, damping: float, mask: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """The preconditioner of vectors (n,), whose steps stay within `mask` (n,)."""
    mask = mask.copy()
    if not run.problem.fit_intercept:
        mask[-run.problem.classes :] = False
    kept, factor = np.zeros(0, int), None
    if model.hessian is not None:
        inside = np.flatnonzero(mask[model.places])
        kept, inner = model.places[inside], model.hessian[np.ix_(inside, inside)]
        diagonal = np.diag_indices_from(inner)
        inner[diagonal] += damping * float(np.diag(model.hessian).mean())
        for _ in range(3):
            try:
                factor = scipy.linalg.cho_factor(inner, lower=True, check_finite=False)
                break
            except np.linalg.LinAlgError:
                inner[diagonal] += 1e-6 * np.trace(inner) / len(inner)

    def apply(gradient: np.ndarray) -> np.ndarray:
        step = model.rates * gradient
        if factor is not None and len(kept):
            step[kept] = scipy.linalg.cho_solve(factor, gradient[kept], check_finite=False)
        return np.where(mask, step, 0)

    return apply
