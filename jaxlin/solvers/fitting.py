"""What a smooth fit begins with: a part of the rows, a solution at another strength, or its state.

Far from the optimum a part of the rows points the way as well as all do, where a pass over all is
dear. Its own optimum is some percent above that of all rows (its sampling error), so it is left as
soon as it is about as near to it; a part of very many rows begins with a part of its own (Byrd,
Chin, Nocedal and Wu, 2012, doi:10.1007/s10107-012-0572-5: samples that grow with the accuracy that
is wanted). What one strength of a path has learned about the curvature serves at the next: the
history, whose gradients change by the penalty's part alone, and, nearby, the preconditioner.
"""

__all__ = [
    "LONG",
    "SHARE",
    "Fitting",
    "opened",
    "params_of",
    "part_of",
    "recipe_in",
    "restored",
    "resumed",
]

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxlin.passes import DeviceRows
from jaxlin.solvers.dual_losses import ArrayModule
from jaxlin.solvers.history import History, empty_history, own_copy
from jaxlin.solvers.lbfgs import GOING, START, State, finer
from jaxlin.solvers.problem import Problem, beside, same_fit
from jaxlin.solvers.refresh import WINDOW, PreconditionerBuilder, recipe_of
from jaxlin.solvers.status import silent

RELATED = 2.0
"""Factor between strengths up to which a preconditioner serves for both."""
NEAR = 4.0
"""Factor between one strength and the next up to which the history serves for both."""


class Fitting(NamedTuple):
    """A fit on its way: its state, what is made again from that, and what is wanted of it."""

    problem: Problem
    state: State
    builder: PreconditionerBuilder
    preconditioner: Any
    """The preconditioner; `None`: it is to be built again from the state."""
    proved: bool = True
    """Whether it ends with a certificate, or as soon as it expects one."""
    report: Callable = silent
    on_state: Callable = silent
    origin: tuple[np.ndarray, float] | None = None
    """The solution at the strength that it came from, and that strength."""
    proof: Any = None
    """The certificate that ended it."""


def params_of(problem: Problem, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, D) and bias (K,), of a point (n,)."""
    split = problem.classes * problem.features
    return point[:split].reshape(problem.classes, problem.features), point[split:]


def opened(
    problem: Problem, point: np.ndarray, last: Fitting | None, near: bool, **wanted: Any
) -> Fitting:
    """Before the first pass.

    Args:
      point: (n,), where to start; not looked at where there is a `last`.
      last: the end of a fit to the same rows and counts at another strength, from whose solution
        this one starts.
      near: the point is so near to the optimum that the preconditioner should follow it from the
        start.
      wanted: of `Fitting`.
    """
    origin, xp = None, problem.vectors
    if last is not None:
        point, origin = _ahead(last.state, problem), (last.state.best, last.state.strength)
    history = empty_history(point.size, xp=xp)
    builder = PreconditionerBuilder(problem, shared=None if last is None else last.builder)
    passes = builder.passes
    follows, preconditioner, strength = near or builder.starts_exact(), None, problem.strength
    if last is not None:
        follows = follows or bool(last.state.recipe[0])
        if _within(problem.strength, last.state.strength, NEAR):
            # the penalty's part of the differences of gradients is known exactly
            more = 2 * (problem.strength - last.state.strength)
            split = point.size - problem.classes
            history = _at_other_strength(xp, last.state.history, more, split)
            if _within(problem.strength, last.state.built_strength, RELATED):
                preconditioner, strength = _metric_of(last), last.state.built_strength
    if preconditioner is None and follows:
        preconditioner, cost = builder.following(*params_of(problem, point))
        passes += cost
    elif preconditioner is None:
        preconditioner = builder.gram(*params_of(problem, point))
    there = xp.asarray(point)
    nothing = xp.zeros_like(there)
    state = State(
        there, nothing, nothing, point, np.zeros_like(point), history, np.full(WINDOW, np.nan),
        *recipe_in(builder), np.inf, 1.0, START, np.inf, 0.0, np.inf, np.inf, np.inf, np.inf,
        0, 0, 0, passes, _digits_at_first(problem, last), problem.strength, strength, 0.1, 0.0,
        GOING,
    )  # fmt: skip
    return Fitting(problem, state, builder, preconditioner, origin=origin, **wanted)


def resumed(carried: State, problem: Problem, **wanted: Any) -> Fitting:
    """Goes on from the state of a fit to this problem."""
    state = own_copy(same_fit(carried, State, problem))
    if state.digits < 0 and problem.rows.coarse is None:  # it was left on a device of other units
        state = finer(state)
    xp, history = problem.vectors, state.history
    points, gradients = (xp.asarray(part) for part in history[:2])
    vectors = {name: xp.asarray(getattr(state, name)) for name in ("point", "gradient", "step")}
    vectors["history"] = history._replace(points=points, gradients=gradients)
    state = state._replace(**vectors)
    builder = PreconditionerBuilder(problem)
    preconditioner = builder.go_on(*params_of(problem, state.built), state.recipe)
    return Fitting(problem, state, builder, preconditioner, **wanted)


def _digits_at_first(problem: Problem, last: Fitting | None) -> int:
    """Rounded products where the device has units for them, and not so near to the optimum.

    Without a penalty nothing is proved, and a small gradient is all that a verdict rests on.
    """
    coarse = last is None and problem.strength > 0 and problem.rows.coarse is not None
    return -1 if coarse else int(problem.dtype == np.float64)


def restored(state: State, problem: Problem) -> Fitting:
    """The end of a fit, to be given as `last`; `problem` is of the same rows and counts."""
    state = own_copy(state)
    problem = problem._replace(strength=state.strength)
    builder = PreconditionerBuilder(problem._replace(strength=state.built_strength))
    recipe = recipe_of(*params_of(problem, state.built), state.recipe)
    builder.builds, builder.recipe = int(state.recipe[3]), recipe
    return Fitting(problem, state, builder, None)


def recipe_in(builder: PreconditionerBuilder) -> tuple[np.ndarray, np.ndarray]:
    """Where the last preconditioner was built, (n,), and how."""
    weights, bias, settings = builder.state()
    return np.concatenate([weights.ravel(), bias]), settings


def _ahead(end: State, problem: Problem) -> np.ndarray:
    """Where the solution should be at this strength: on along the path if that is known."""
    if problem.strength == 0 or end.strength == 0:
        return end.best
    return end.best + end.velocity * np.log(problem.strength / end.strength)


def _within(one: float, other: float, factor: float) -> bool:
    return other > 0 and 1 / factor < one / other < factor


def _at_other_strength(xp: ArrayModule, history: History, more: float, split: int) -> History:
    """A history of one's own, whose gradients are those of a penalty that is so much stiffer."""
    points, gradients = (xp.asarray(part) for part in history[:2])
    stiffer = gradients[:, :split] + more * points[:, :split]
    gradients = xp.concatenate([stiffer, gradients[:, split:]], axis=1)
    return history._replace(points=points.copy(), gradients=gradients)


def _metric_of(fitting: Fitting) -> Callable:
    if fitting.preconditioner is not None:
        return fitting.preconditioner
    problem = fitting.problem._replace(strength=fitting.state.built_strength)
    recipe = fitting.builder.recipe
    assert recipe is not None  # of the fit that is over
    return PreconditionerBuilder(problem, shared=fitting.builder).follow(recipe)


SHARE = 8
"""One row in so many."""
PART_GAP = 0.1
"""Relative gap at which the part has served."""
LONG = 5
"""Steps that the part took from which on the preconditioner of all rows follows the iterate at
once."""
DEAR = {"cpu": 4e10, "accelerator": 4e12}
"""Multiplications of a pass, some 0.4 s, from which on those saved are worth a compilation."""
FEWEST = 8
"""Rows that every class has in the part at least."""


def part_of(problem: Problem) -> Problem | None:
    """The problem on one in `SHARE` rows of every class; `None` where that would save nothing."""
    rows = problem.rows
    work = rows.size * problem.classes * 4.0 * rows.features
    if type(rows) is not DeviceRows or problem.strength == 0:
        return None
    if work < DEAR["cpu" if rows.device.platform == "cpu" else "accelerator"]:
        return None
    labels, counted = problem.host_labels, np.flatnonzero(problem.counts > 0)
    if np.bincount(labels[counted], minlength=problem.classes).min() < SHARE * FEWEST:
        return None
    shuffled = np.random.default_rng(0).permutation(counted)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    indices = np.sort(by_class[::SHARE])
    found = rows.part(indices, problem.classes)
    if found is None:
        return None
    labels, counts = labels[indices], problem.counts[indices]
    counts = counts / counts.sum()
    return problem._replace(
        rows=found,
        labels=beside(found, labels),
        counts=counts,
        masses=np.bincount(labels, weights=counts, minlength=problem.classes),
        tolerance=max(PART_GAP, problem.tolerance),
    )
