"""A whole regularization path: many strengths, several weightings of the rows, one set of data.

Along the path each fit starts where the one before suggests, with the curvature that was learned
there, and strengths that lie close to solved ones need no fit at all. Weightings of the same rows,
such as the folds of a cross-validation, go side by side where the loss is smooth and a pass is
dear: what they ask of the data is answered in one. Small problems, hinges and l1 penalties take
one weighting after another.
"""

__all__ = ["PathState", "minimize_path"]

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from jaxlin.core import LinearParams, Solution
from jaxlin.cpu_threads import quiet_blas
from jaxlin.solvers.fitting import Fitting, restored
from jaxlin.solvers.history import own_copy
from jaxlin.solvers.interpolation import end_of, fill, reach
from jaxlin.solvers.lbfgs import State
from jaxlin.solvers.problem import Problem, open_problem, reweighted, wide
from jaxlin.solvers.smooth import begin, minimize_smooth, together
from jaxlin.solvers.solve import solution_of, solver_of, start_of
from jaxlin.solvers.status import Fit, silent

END_SHARE = 0.5
"""Of the tolerance, for the ends of an interval that is filled in; the rest is for its inside."""


class PathState(NamedTuple):
    """A path between two of its fits, float64, over the classes that occur.

    A dual point is not among it, which is as large as the scores: where the next strengths are to
    be filled in from it, its strength is solved again.
    """

    weights: np.ndarray
    """(K, D)."""
    bias: np.ndarray
    """(K,)."""
    end: np.ndarray
    """(2,) or (0,): strength and tolerance of the fit that was done last, where it is to be done
    again; all else is then from before it."""
    fit: State | None
    """The end of the last fit of a smooth loss: what it has learned serves the next."""


def minimize_path(
    inputs: Any,
    labels: Any,
    *,
    strengths: ArrayLike,
    loss: Any = "softmax",
    tolerance: float = 1e-4,
    sample_weight: Any = None,
    l1_strength: Any = 0.0,
    fit_intercept: bool = True,
    init: LinearParams | None = None,
    max_iterations: int = 1000,
    preprocessing: Any = None,
    classes: int | None = None,
    dtype: DTypeLike | None = None,
    margin: float = 1.0,
    mesh: Any = None,
    callback: Callable | None = None,
    carried: PathState | None = None,
    on_carried: Callable | None = None,
    on_pass: Callable | None = None,
) -> list:
    """`minimize` for every strength, each fit warm from the one before; certified all the same.

    The path runs from the largest strength to the smallest, whatever their order here. Where
    strengths lie close together for the tolerance, some are interpolated between two solved ones:
    their `evaluations` are 0, and their gap is proved like any other.

    Args:
      inputs, labels: as for `minimize`.
      strengths: sequence of T numbers; with (F, N) weights also (F, T), a path each.
      sample_weight: (N,), or (F, N) for F paths over the same rows, such as folds in which the
        rows held out weigh 0. Smooth losses of more than a few rows are fitted side by side.
      l1_strength: a number for all, or one for each of `strengths`, of the same shape.
      init: for the largest strength.
      callback: called as (t, solution), or (f, t, solution) with (F, N) weights, when the fit for
        `strengths[t]` is done.
      carried: of a path over the same data that was left: `strengths` are those that were still
        to come. The fits are those of the unbroken path, bit for bit.
      on_carried: called as (make,) before `callback` where the path may be left after it; `make()`
        returns what to give as `carried`. Not with (F, N) weights.
      on_pass: as for `minimize`; an exception ends the path.
      loss, tolerance, fit_intercept, max_iterations, preprocessing, classes, dtype,
        margin, mesh: as for `minimize`, the same for all.

    Returns:
      list of T `Solution`, in the order of `strengths`; with (F, N) weights a list of F such lists.

    Raises:
      ValueError, TypeError, DataError: as `minimize`.

    >>> inputs = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> path = minimize_path(inputs, np.array([0, 0, 1, 1]), strengths=[0.01, 1.0])
    >>> [bool(solution.gap <= 1e-4 * solution.objective) for solution in path]
    [True, True]
    """
    folds = sample_weight is not None and np.ndim(sample_weight) == 2
    if folds and (carried is not None or on_carried is not None):
        raise ValueError("`carried` is of one path. Leave it out, or give (N,) weights.")
    weightings = sample_weight if folds else [sample_weight]
    strengths = _strengths("strengths", strengths, len(weightings))
    l1_strengths = _strengths("l1_strength", l1_strength, len(weightings))
    if l1_strengths.shape[1] not in (1, strengths.shape[1]):
        raise ValueError(
            "`l1_strength` must be a number, or one for each of the "
            f"{strengths.shape[1]} `strengths`, got {l1_strengths.shape[1]}."
        )
    l1_strengths = np.broadcast_to(l1_strengths, strengths.shape)
    opened = _opened(
        weightings,
        dict(
            inputs=inputs,
            labels=labels,
            loss=loss,
            l1_strength=float(l1_strengths.max()),
            tolerance=tolerance,
            max_iterations=max_iterations,
            margin=margin,
            fit_intercept=fit_intercept,
            classes=classes,
            dtype=dtype,
            preprocessing=preprocessing,
            mesh=mesh,
        ),
        float(strengths[0, 0]),
    )
    on_pass = on_pass or silent
    ends = carried, on_carried or silent, on_pass
    with quiet_blas(), wide(opened[0][0]):
        paths = together(
            [
                _walk(*each, init, _told(callback, f, folds), *ends)
                for f, each in enumerate(zip(opened, strengths, l1_strengths, strict=True))
            ],
            on_pass,
        )
    return paths if folds else paths[0]


def _strengths(name: str, strengths: ArrayLike, folds: Any) -> np.ndarray:
    """(F, T), checked."""
    values = np.asarray(strengths, np.float64)
    if not values.size or values.ndim > 2 or (values.ndim == 2 and len(values) != folds):
        raise ValueError(
            f"`{name}` must be (T,), or (F, T) with (F, N) weights, got {values.shape} for "
            f"{folds} weightings."
        )
    if not np.isfinite(values).all() or values.min() < 0:
        wrong = values[~np.isfinite(values) | (values < 0)][0]
        raise ValueError(f"`{name}` must be nonnegative and finite, got {wrong:g}.")
    return np.broadcast_to(values, (folds, values.shape[-1] if values.ndim else 1))


def _opened(weightings: Any, settings: Any, strength: float) -> list:
    """A checked problem for each weighting; rows are shared where the same classes occur."""
    opened = [open_problem(**settings, strength=strength, sample_weight=weightings[0])]
    for weights in weightings[1:]:
        shared = reweighted(*opened[0], weights, settings["labels"])
        if shared is None:
            shared = open_problem(**settings, strength=strength, sample_weight=weights)
        opened.append(shared)
    return opened


def _told(callback: Callable[..., Any] | None, fold: int, folds: Any) -> Callable[..., Any]:
    if callback is None:
        return silent
    return (lambda t, solution: callback(fold, t, solution)) if folds else callback


def _walk(
    opened: Any,
    strengths: np.ndarray,
    l1_strengths: np.ndarray,
    init: LinearParams | None,
    callback: Callable[..., Any],
    carried: Any,
    on_carried: Callable[..., Any],
    on_pass: Callable[..., Any],
) -> Generator[Any, Any, list[Solution | None]]:
    """One path, as a generator for `together`: the solutions in the order of `strengths`.

    Where strengths lie close together only some are solved, to a smaller gap, and those between
    two of them filled in (`jaxlin.solvers.interpolation`).
    """
    problem, occurring, count = opened
    weights, bias = start_of(init, count, occurring, problem)
    solutions: list[Solution | None] = [None] * len(strengths)
    order, far = np.lexsort((strengths, l1_strengths))[::-1], reach(problem, problem.tolerance)
    falling = strengths[order]
    last: Fitting | None = None
    fit: Any = None
    left, at = None, -1
    if carried is not None:
        weights, bias = (np.array(part) for part in carried[:2])
        last = None if carried.fit is None else restored(carried.fit, problem)
        if carried.end.size:  # its dual point is wanted, and too large to be carried
            strength, aim = (float(value) for value in carried.end)
            here = problem._replace(strength=strength, tolerance=aim)
            fit, last = yield from _solved(here, weights, bias, last, on_pass)
            weights, bias, left, at = fit.weights, fit.bias, end_of(here, fit), 0
            falling, order = np.append(strength, falling), np.append(-1, order)
    while at < len(order) - 1:
        right = at + (1 if left is None else _stride(falling, at, far))
        shared = right > at + 1 or _stride(falling, right, far) > 1
        aim = problem.tolerance * (END_SHARE if shared else 1)
        l1 = float(l1_strengths[order[right]])
        here = problem._replace(strength=float(falling[right]), l1_strength=l1, tolerance=aim)
        before = weights, bias, last
        fit, last = yield from _solved(here, weights, bias, last, on_pass)
        weights, bias = fit.weights, fit.bias
        end = end_of(here, fit) if far else None
        for i in range(at + 1, right):
            inner, found = problem._replace(strength=float(falling[i])), None
            if left is not None and end is not None:
                found = fill(inner, left, end)
            if found is None:
                found, _ = yield begin(inner, weights, bias, last=last)
            solutions[order[i]] = solution_of(inner, found, occurring, count)
        solutions[order[right]] = solution_of(here, fit, occurring, count)
        for i in range(at + 1, right + 1):
            if i == right:
                state = (*before, (here.strength, aim)) if far else (weights, bias, last)
                on_carried(partial(_state_of, *state))
            callback(int(order[i]), solutions[order[i]])
        left, at = end, right
        fit = found = None  # they hold scores
    return solutions


def _state_of(
    weights: np.ndarray, bias: np.ndarray, last: Fitting | None, end: Any = ()
) -> PathState:
    state = None if last is None else last.state
    return own_copy(PathState(weights, bias, np.array(end, np.float64), state))


def _solved(
    problem: Problem,
    weights: np.ndarray,
    bias: np.ndarray,
    last: Fitting | None,
    on_pass: Callable[..., Any],
) -> Generator[Any, Any, tuple[Fit, Fitting | None]]:
    """The fit, and what it leaves to the next strength."""
    solve = solver_of(problem)
    if solve is minimize_smooth:
        return (yield begin(problem, weights, bias, last=last, on_pass=on_pass))
    return solve(problem, weights, bias, silent, on_pass=on_pass), last


def _stride(falling: np.ndarray, at: int, far: float) -> int:
    """How many strengths on is the last that lies within `far` of the one `at`; at least 1."""
    if far == 0 or at >= len(falling) - 1 or falling[-1] <= 0:
        return 1
    distances = np.log(falling[at] / falling[at + 1 :])
    return max(1, int(np.sum(distances <= far * (1 + 1e-9))))
