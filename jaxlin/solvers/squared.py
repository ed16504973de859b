"""Squared hinges of few unknowns: quasi-Newton steps, and an interior point method as their rescue.

A squared hinge is differentiable, but its second derivative jumps where a margin is met. With a
weak penalty on separable data, or with features of very different scales, most margins are nearly
met, and differences of gradients say nothing about the next step.
"""

__all__ = ["minimize_squared", "suits_squared"]

from jaxlin.solvers.certificates import objective_at, smallest_lead
from jaxlin.solvers.hinges import minimize_unregularized, separated
from jaxlin.solvers.interior import minimize_small_hinge, suits_interior
from jaxlin.solvers.problem import Problem
from jaxlin.solvers.smooth import minimize_smooth
from jaxlin.solvers.status import Fit, Status, improving, later, silent

ENOUGH = 100
"""Quasi-Newton steps after which it is the kinks that keep them from the optimum."""


def suits_squared(problem: Problem) -> bool:
    """A squared hinge, of so few unknowns that an interior point method takes about a second."""
    kinked = problem.form.smooth and problem.form.geometry != "softmax"
    return kinked and suits_interior(problem._replace(strength=1.0))


def minimize_squared(
    problem: Problem, weights, bias, report, carried=None, on_carried=silent, on_pass=silent
) -> Fit:
    """Minimize until the certified gap is below the tolerance, or the status says why not.

    The arguments are those of `jaxlin.solvers.smooth.minimize_smooth`, but nothing is carried:
    a fit of a second that was left begins again.
    """
    told, asked = improving(report), {"on_pass": on_pass}
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
            best = min(first, fit, key=lambda f: objective_at(problem, f.weights, f.bias)[0])
            fit = minimize_smooth(problem, best.weights, best.bias, told, **asked)
    return fit.after(first)
