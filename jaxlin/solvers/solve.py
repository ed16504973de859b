"""One fit: check what was asked, choose the solver, hand back what it found with its proof."""

__all__ = [
    "free_of_loss",
    "minimize",
    "minimize_squared",
    "solution_of",
    "solver_of",
    "start_of",
    "suits_squared",
]

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from jaxlin.core import LinearParams, Solution
from jaxlin.cpu_threads import quiet_blas
from jaxlin.solvers.certificate import (
    costless_bias,
    losing_bias,
    objective_at,
    smallest_lead,
)
from jaxlin.solvers.interior import minimize_small_hinge, suits_interior
from jaxlin.solvers.offsets import refuse_beside_offsets, solve_with_offsets
from jaxlin.solvers.owlqn import minimize_proximal
from jaxlin.solvers.problem import Problem, handed_back, open_problem, rounded
from jaxlin.solvers.proximal_point import minimize_hinge, minimize_unregularized, separated
from jaxlin.solvers.small import minimize_small, suits_small
from jaxlin.solvers.smooth import minimize_smooth
from jaxlin.solvers.status import Fit, Status, improving, later, silent


def minimize(
    inputs: Any,
    labels: Any,
    *,
    loss: Any = "softmax",
    strength: float,
    tolerance: float = 1e-4,
    sample_weight: Any = None,
    l1_strength: float = 0.0,
    fit_intercept: bool = True,
    init: LinearParams | None = None,
    max_iterations: int = 1000,
    preprocessing: Any = None,
    classes: int | None = None,
    dtype: DTypeLike | None = None,
    margin: float = 1.0,
    mesh: Any = None,
    callback: Callable | None = None,
    carried: Any = None,
    on_carried: Callable | None = None,
    on_pass: Callable | None = None,
    offsets: Any = None,
) -> Solution:
    """The linear classifier of least objective, with a certified gap to the optimum.

        objective = weighted mean of loss + strength * |W|^2 + l1_strength * |W|_1

    The bias is free. The fit stops when the objective is proved to be within `tolerance` of the
    least possible, relative to the objective.

    Args:
      inputs: (N, D) array (floating or integer, such as uint8 pixels), memory map, scipy sparse
        matrix, or a chunked source: anything with `shape`, `dtype` and row slices.
      labels: (N,) integer, in [0, K).
      loss: "softmax", "hinge" (Weston-Watkins, also "weston-watkins"), "crammer-singer",
        "one-vs-rest", "squared-hinge", "squared-crammer-singer", "squared-one-vs-rest", or the
        function of `jaxlin.losses`.
      strength: of the squares of the weights. 0 is allowed, but then nothing can be certified
        unless `l1_strength` is positive.
      tolerance: relative gap, `gap <= tolerance * objective`.
      sample_weight: (N,) nonnegative; k times a row and weight k are the same.
      l1_strength: of the absolute values of the weights; with `strength`, the elastic net.
      fit_intercept: `False` keeps the bias at 0.
      init: parameters to start from, for example the solution for another strength; where they
        are worse than zeros the fit starts from these.
      max_iterations: steps after which to stop, with a status that says so.
      preprocessing: with `shift` and `scale` (D,): the classifier sees (inputs - shift) * scale,
        which is folded into the products; the raw inputs stay as they are in memory.
      classes: K; by default the largest label + 1. A class without examples, or whose examples
        all weigh 0, gets weights 0 and a bias at which it costs nothing (softmax: less than
        exp(-80)), which is the optimum for it: a further class only adds to a loss. The bias is so
        low that it wins no row of the training set, rows of weight 0 included; for all losses but
        one-vs-rest it wins nowhere. With a fixed bias it is a class like the others.
      dtype: of the arithmetic; float64 for float64 inputs and for whole numbers beyond 2^24, else
        float32 (the certificate is always float64).
      margin: of the hinges.
      mesh: from `jaxlin.distributed.sharding.mesh`, to spread dense rows over its devices.
      callback: called with (evaluations, objective, lower_bound) while the fit goes on. Where it is
        given, smooth losses also prove bounds on the way, which costs a few passes.
      carried: of a fit to the same problem that was left: it goes on from there, and ends as the
        unbroken fit does, bit for bit (with a `callback` or without one, as that had it).
      on_carried: called with (evaluations, make) between steps; `make()` returns what to give as
        `carried`: a NamedTuple of arrays (`jaxlin.solvers.states`). It is not called in fits
        of a second or so, which begin again.
      on_pass: called with nothing before each pass over the data, or step of a loss with kinks.
        An exception that it, `on_carried` or `callback` raises ends the fit.
      offsets: (N, K), what is added to the scores of each row and is not learned: log exposures,
        log priors, the scores of another model. Whoever predicts adds those of the new rows. For
        dense rows in memory, smooth losses and a positive `strength`; solved in float64 by
        `minimize_compiled`, with the callbacks called once.

    Returns:
      `Solution`; its `params` hold NumPy arrays in `dtype`, whatever JAX's default precision.

    Raises:
      ValueError, TypeError: an argument cannot be used; the message says what to do.
      DataError: NaN or infinity in the inputs.

    >>> from jaxlin.solvers import describe
    >>> inputs = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> solution = minimize(inputs, np.array([0, 0, 1, 1]), strength=0.01)
    >>> solution.gap <= 1e-4 * solution.objective, describe(solution.status)[:9]
    (True, 'converged')
    """
    if offsets is not None:
        refuse_beside_offsets(
            inputs,
            loss=loss,
            strength=strength,
            l1_strength=l1_strength,
            mesh=mesh,
            carried=carried,
        )
    with quiet_blas():
        problem, occurring, count = open_problem(
            inputs,
            labels,
            loss=loss,
            strength=strength,
            l1_strength=l1_strength,
            tolerance=tolerance,
            max_iterations=max_iterations,
            margin=margin,
            sample_weight=sample_weight,
            fit_intercept=fit_intercept,
            classes=classes,
            dtype=dtype,
            preprocessing=preprocessing,
            mesh=mesh,
        )
        if offsets is not None:
            start = given_start(init, count, np.arange(count), problem)
            given = inputs, labels, sample_weight, offsets
            return solve_with_offsets(problem, start, *given, callback or silent, on_pass or silent)
        weights, bias = start_of(init, count, occurring, problem)
        ends = carried, on_carried or silent, on_pass or silent
        fit = solver_of(problem)(problem, weights, bias, callback or silent, *ends)
        return solution_of(problem, fit, occurring, count)


def solver_of(problem: Problem) -> Callable[..., Fit]:
    """(problem, weights, bias, report, carried, on_carried, on_pass) -> `Fit`, for this loss and
    penalty."""
    if problem.classes == 1 and (problem.fit_intercept or problem.form.geometry != "one-vs-rest"):
        return free_of_loss
    if problem.l1_strength > 0:
        return minimize_proximal
    if suits_squared(problem):
        return minimize_squared
    if suits_small(problem):
        return minimize_small
    return minimize_smooth if problem.form.smooth else minimize_hinge


def free_of_loss(problem: Problem, *start: Any, **asked: Any) -> Fit:
    """One class has no rivals: the bias alone brings every loss to 0, which nothing undercuts."""
    bias = np.full(1, problem.margin if problem.form.geometry == "one-vs-rest" else 0.0)
    return Fit(np.zeros((1, problem.features)), bias, 0.0, 0.0, 0, 0.0, Status.CONVERGED)


def start_of(
    init: LinearParams | None, count: int, occurring: np.ndarray, problem: Problem
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of the occurring classes, float64, where the solver starts.

    At zero, where `init` is worse: far out, where the loss bends nothing, Newton's methods lose
    their way.
    """
    start = given_start(init, count, occurring, problem)
    if init is None:
        return start
    with np.errstate(over="ignore", invalid="ignore"):
        value = objective_at(problem, *start)
    if value <= _loss_at_zero(problem) * (1 + 1e-9):  # no worse, but for rounding
        return start
    return given_start(None, count, occurring, problem)


def _loss_at_zero(problem: Problem) -> float:
    """Where all scores are 0 every row loses the same."""
    form, own = problem.form, np.eye(problem.classes, 1, dtype=bool)
    scores = np.zeros((problem.classes, 1))
    return float(form.loss(np, form.shortfalls(np, scores, own, problem.margin), own)[0])


def given_start(
    init: LinearParams | None, count: int, occurring: np.ndarray, problem: Problem
) -> tuple[np.ndarray, np.ndarray]:
    """`init`, checked, as the problem has its parameters; zeros where there is none."""
    if init is None:
        return np.zeros((len(occurring), problem.features)), np.zeros(len(occurring))
    weights, bias = (np.asarray(part, np.float64) for part in init)
    if weights.shape != (count, problem.features) or bias.shape != (count,):
        raise ValueError(
            f"`init` must hold weights {(count, problem.features)} and bias {(count,)}, "
            f"got {weights.shape} and {bias.shape}. Leave it out to start from zero."
        )
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise ValueError("`init` holds NaN or infinity. Leave it out to start from zero.")
    weights = weights[occurring]
    bias = bias[occurring] if problem.fit_intercept else np.zeros(len(occurring))
    bias = bias + weights @ problem.center
    if problem.form.geometry == "one-vs-rest" or problem.l1_strength > 0:
        return weights, bias
    # a common shift of all classes changes no loss, and squares are least without one
    return weights - weights.mean(0), bias - bias.mean()


def solution_of(problem: Problem, fit: Fit, occurring: np.ndarray, count: int) -> Solution:
    """Round to the problem's dtype, evaluate there, and give absent classes their parameters."""
    weights, bias = handed_back(problem, fit.weights, fit.bias)
    centred = rounded(problem, fit.weights, fit.bias)
    if fit.proof is not None and problem.classes == count:
        objective = fit.proof.objective
    else:
        objective = objective_at(problem, *centred)
    full = LinearParams(
        np.zeros((count, problem.features), problem.result_dtype),
        np.zeros(count, problem.result_dtype),
    )
    full.weights[occurring], full.bias[occurring] = weights, bias
    if problem.classes < count:
        absent = np.setdiff1d(np.arange(count), occurring)
        reach = max(problem.rows.radius(), problem.set_aside)
        present = np.ones(len(bias), bool)
        losing = losing_bias(np, *centred, present, reach, problem.margin)
        full.bias[absent] = min(costless_bias(problem, *centred), losing)
    lower = min(fit.lower_bound, objective)
    gap = objective - lower
    status = fit.status
    if status == Status.CONVERGED and gap > 1.01 * problem.tolerance * objective + 1e-300:
        status = Status.PRECISION
    return Solution(
        full,
        objective,
        lower,
        gap,
        fit.gradient_norm,
        fit.iterations,
        fit.evaluations,
        status,
    )


ENOUGH = 100
"""Quasi-Newton steps after which it is the kinks that keep them from the optimum."""


def suits_squared(problem: Problem) -> bool:
    """A squared hinge, of so few unknowns that an interior point method takes about a second."""
    kinked = problem.form.smooth and problem.form.geometry != "softmax"
    return kinked and suits_interior(problem._replace(strength=1.0))


def minimize_squared(
    problem: Problem,
    weights: np.ndarray,
    bias: np.ndarray,
    report: Callable[..., Any],
    carried: Any = None,
    on_carried: Callable[..., Any] = silent,
    on_pass: Callable[..., Any] = silent,
) -> Fit:
    """Minimize until the certified gap is below the tolerance, or the status says why not.

    The arguments are those of `jaxlin.solvers.smooth.minimize_smooth`, but nothing is carried:
    a fit of a second that was left begins again.
    """
    told = improving(report)
    asked: Any = {"on_pass": on_pass}
    most = min(problem.max_iterations, ENOUGH)
    first = minimize_smooth(problem._replace(max_iterations=most), weights, bias, told, **asked)
    if first.status == Status.SEPARABLE:
        return separated(problem, first, smallest_lead(problem, first.weights, first.bias))
    if first.status in (Status.CONVERGED, Status.NO_PROOF) or most == problem.max_iterations:
        return first
    told = later(told, first)
    if problem.strength == 0:
        fit = minimize_unregularized(problem, first.weights, first.bias, told, **asked)
    else:
        fit, done = minimize_small_hinge(problem, told, on_pass)
        if not done:
            best = min(first, fit, key=lambda f: objective_at(problem, f.weights, f.bias))
            fit = minimize_smooth(problem, best.weights, best.bias, told, **asked)
    return fit.after(first)
