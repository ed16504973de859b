"""A whole regularization path: many strengths, several weightings of the rows, one set of data.

Along the path each fit starts where the one before suggests, with the curvature that was learned
there. Weightings of the same rows, such as the folds of a cross-validation, go side by side: what
they ask of the data is answered in one pass.
"""

__all__ = ["minimize_path"]

from collections.abc import Callable

import numpy as np

from jaxlin.core import LinearParams, Solution
from jaxlin.solvers.problem import open_problem, reweighted
from jaxlin.solvers.single import quiet_blas, solution_of, solver_of, start_of
from jaxlin.solvers.smooth import descend, minimize_smooth, together
from jaxlin.solvers.status import silent


def minimize_path(
    inputs,
    labels,
    *,
    strengths,
    loss="softmax",
    tolerance: float = 1e-4,
    sample_weight=None,
    l1_strength: float = 0.0,
    fit_intercept: bool = True,
    init: LinearParams | None = None,
    max_iterations: int = 1000,
    preprocessing=None,
    classes: int | None = None,
    dtype=None,
    margin: float = 1.0,
    callback: Callable | None = None,
) -> list:
    """`minimize` for every strength, each fit warm from the one before; certified all the same.

    The path runs from the largest strength to the smallest, whatever their order here.

    Args:
      inputs, labels: as for `minimize`.
      strengths: sequence of T numbers.
      sample_weight: (N,), or (F, N) for F paths over the same rows, such as folds in which the
        rows held out weigh 0. They are fitted side by side.
      init: for the largest strength.
      callback: called as (t, solution), or (f, t, solution) with (F, N) weights, when the fit for
        `strengths[t]` is done.
      loss, tolerance, l1_strength, fit_intercept, max_iterations, preprocessing, classes, dtype,
        margin: as for `minimize`, the same for all.

    Returns:
      list of T `Solution`, in the order of `strengths`; with (F, N) weights a list of F such lists.

    Raises:
      ValueError, TypeError, DataError: as `minimize`.

    >>> inputs = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> path = minimize_path(inputs, np.array([0, 0, 1, 1]), strengths=[0.01, 1.0])
    >>> [bool(solution.gap <= 1e-4 * solution.objective) for solution in path]
    [True, True]
    """
    strengths = [float(strength) for strength in np.asarray(strengths, np.float64).ravel()]
    if not strengths:
        raise ValueError("`strengths` is empty. Give at least one.")
    weightings = sample_weight
    folds = sample_weight is not None and np.ndim(sample_weight) == 2
    if not folds:
        weightings = [sample_weight]
    opened = _opened(
        weightings,
        dict(
            inputs=inputs,
            labels=labels,
            loss=loss,
            l1_strength=l1_strength,
            tolerance=tolerance,
            max_iterations=max_iterations,
            margin=margin,
            fit_intercept=fit_intercept,
            classes=classes,
            dtype=dtype,
            preprocessing=preprocessing,
        ),
        strengths,
    )
    with quiet_blas():
        paths = together(
            [
                _walk(problem, occurring, count, strengths, init, _told(callback, f, folds))
                for f, (problem, occurring, count) in enumerate(opened)
            ]
        )
    return paths if folds else paths[0]


def _opened(weightings, settings, strengths) -> list:
    """A checked problem for each weighting; rows are shared where the same classes occur."""
    for strength in strengths[1:]:  # the first is checked with the problem
        _checked(strength)
    opened = [open_problem(**settings, strength=strengths[0], sample_weight=weightings[0])]
    for weights in weightings[1:]:
        shared = reweighted(*opened[0], weights, settings["labels"])
        if shared is None:
            shared = open_problem(**settings, strength=strengths[0], sample_weight=weights)
        opened.append(shared)
    return opened


def _checked(strength) -> None:
    if not np.isfinite(strength) or strength < 0:
        raise ValueError(f"`strengths` must be nonnegative and finite, got {strength:g}.")


def _told(callback, fold, folds):
    if callback is None:
        return silent
    return (lambda t, solution: callback(fold, t, solution)) if folds else callback


def _walk(problem, occurring, count, strengths, init, callback):
    """One path, as a generator for `together`: the solutions in the order of `strengths`."""
    weights, bias = start_of(init, count, occurring, problem)
    solutions: list[Solution | None] = [None] * len(strengths)
    warmth = None
    for t in np.argsort(strengths, kind="stable")[::-1]:
        problem = problem._replace(strength=strengths[t])
        solve = solver_of(problem)
        if solve is minimize_smooth:
            fit, warmth = yield from descend(problem, weights, bias, warmth=warmth)
        else:
            fit = solve(problem, weights, bias, silent)
        weights, bias = fit.weights, fit.bias
        solutions[t] = solution_of(problem, fit, occurring, count)
        callback(int(t), solutions[t])
    return solutions
