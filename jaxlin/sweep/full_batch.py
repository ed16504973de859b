"""Full-batch sweeps: every head certified, each warm from its neighbor on the path of strengths."""

__all__ = ["coarse_to_fine", "few_shot_rows", "solve"]

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from jax.sharding import Mesh
from numpy.typing import DTypeLike

from jaxlin import solvers
from jaxlin.core import Batch, LinearParams, Solution
from jaxlin.passes import SMALL_PROBLEM
from jaxlin.preprocess import Preprocessing
from jaxlin.solvers.path import PathState
from jaxlin.solvers.status import silent
from jaxlin.sweep.bank import Descent, measure
from jaxlin.sweep.few_shot import banks_of, shapes_of, solve_draws
from jaxlin.sweep.heads import FittedHead, Head
from jaxlin.sweep.path_rows import PathRows, few_shot_rows


def solve(
    heads: Sequence[Head],
    data: Batch,
    validation: Batch | None = None,
    *,
    classes: int,
    statistics: Preprocessing,
    tolerance: float = 1e-4,
    margin: float = 1.0,
    regularizer: str = "l2",
    max_iterations: int = 1000,
    dtype: DTypeLike = np.float32,
    mesh: Mesh | None = None,
    near: Sequence[FittedHead] = (),
    known: Sequence[FittedHead] = (),
    carried: PathState | None = None,
    on_fitted: Callable[[FittedHead, Callable[[], Any] | None], None] | None = None,
    on_pass: Callable[[], None] = silent,
) -> list[FittedHead]:
    """Solve the problem of every head to a certified relative gap.

    Heads that differ in their strength only form a path, from the strongest regularization to
    the weakest, on which each starts where the one before it ended. Few-shot draws of one size go
    down such a path together, in one compiled call a strength (`jaxlin.sweep.few_shot`).

    Args:
      heads: from `grid`. Their step sizes must be `None`, and seeds count with `shots` only.
      data, validation: as for `descend`.
      classes: K.
      statistics: fitted preprocessing of the inputs.
      tolerance: certified relative gap at which a fit stops, or its status says why not.
      margin: of the hinges.
      regularizer: "l2", "l1" or "none" (then strengths have to be 0).
      max_iterations: of each fit.
      dtype: of the arithmetic.
      mesh: from `jaxlin.distributed.sharding.mesh`, to spread the rows over its devices; problems
        so small that the host is quicker stay there.
      near: heads fitted before, to start from the nearest of.
      known: heads of a sweep that was left, in the order they were fitted; they are taken as
        they are.
      carried: what the path of the last of `known` carried. The other heads are then those of an
        unbroken sweep, bit for bit.
      on_fitted: called with every other head as it is done, and a function that returns what its
        path carries (`None` if nothing but the head); `None` where the path cannot be left there.
      on_pass: called before each pass over the data, or each compiled call of a bank of draws; an
        exception that it raises ends the sweep.

    Returns:
      A `FittedHead` for every head, in the order of `heads`.

    >>> from jaxlin import preprocess
    >>> from jaxlin.sweep import grid
    >>> data = Batch(np.eye(4, dtype=np.float32), np.arange(4))
    >>> seen = preprocess.fit(data.inputs, "none")
    >>> fitted = solve(grid([1e-3, 1e-1]), data, data, classes=4, statistics=seen)
    >>> [head.relative_gap <= 1e-4 for head in fitted]
    [True, True]
    """
    if any(head.step_size is not None for head in heads):
        raise ValueError("A full-batch solver has no step size. Leave the step sizes out.")
    if len({head.seed for head in heads if head.shots is None}) > 1:
        raise ValueError(
            "Full-batch heads without `shots` start alike and see the same examples: more than "
            "one seed would fit the same heads again. Give one seed, or `shots`."
        )
    before = {found.head: found for found in known}
    fitted: list[FittedHead | None] = [before.get(head) for head in heads]
    banks = [] if near else banks_of(heads, regularizer)
    shapes = shapes_of([[heads[h] for h in bank] for bank in banks], data, classes)
    for bank, shape in zip(banks, shapes, strict=True):
        for found in solve_draws(
            [heads[h] for h in bank], data, statistics, shape, before, classes=classes,
            tolerance=tolerance, margin=margin, max_iterations=max_iterations, dtype=dtype,
            on_pass=on_pass,
        ):  # fmt: skip
            ready = [_fitted(head, solution, rows) for head, solution, rows in found]
            for each in _validated(ready, validation, statistics, margin, mesh):
                if each.head in before:
                    continue
                before[each.head] = each
                fitted[next(h for h in bank if heads[h] == each.head)] = each
                if on_fitted is not None:
                    on_fitted(each, lambda: None)
    alone = set(range(len(heads))).difference(*banks)
    order = sorted(alone, key=lambda h: (_path_of(heads[h]), -heads[h].strength))
    for _, members in groupby(order, key=lambda h: _path_of(heads[h])):
        whole = list(members)
        path = [h for h in whole if fitted[h] is None]
        if not path:
            continue
        begun = [fitted[h] for h in whole if fitted[h] is not None]
        problem = PathRows(heads[path[0]], data, statistics, rotate=regularizer == "l2")
        start = begun[-1] if begun else _nearest(heads[path[0]], near)

        def done(
            t: int,
            solution: Solution,
            make: Callable[[], Any] | None,
            path: list[int] = path,
            problem: PathRows = problem,
        ) -> None:
            found = _fitted(heads[path[t]], solution, problem)
            (measured,) = _validated([found], validation, statistics, margin, mesh)
            fitted[path[t]] = measured
            if on_fitted is not None:
                on_fitted(measured, make)

        _path(
            problem, [heads[h].strength for h in path], done, start=start,
            carried=carried if begun else None, classes=classes,
            tolerance=tolerance, margin=margin, regularizer=regularizer,
            max_iterations=max_iterations, dtype=dtype, mesh=mesh, on_pass=on_pass,
        )  # fmt: skip
    return [found for found in fitted if found is not None]


def coarse_to_fine(
    evaluate: Callable[[list[float], list[FittedHead]], list[FittedHead]],
    coarse: Sequence[float],
    better: Callable[[list[FittedHead]], int],
    *,
    halvings: int = 4,
) -> list[FittedHead]:
    """Search strengths from a coarse grid on: halve the interval around the best again and again.

    Args:
      evaluate: fits strengths, given what was fitted before.
      coarse: log-spaced strengths.
      better: the position of the best of a list.
      halvings: how often; each adds the two neighbors of the best at half the distance.

    Returns:
      All that was fitted, by rising strength.

    Source: Radford et al. (2021), A.3: from steps of two decades to eight steps a decade is four
      halvings; so does `tune_l2_regularization` of google-research's linear_eval (Kornblith 2021).
    """
    coarse = sorted(coarse)
    fitted = evaluate(list(coarse), [])
    width = np.log10(coarse[1] / coarse[0])
    for _ in range(halvings):
        width /= 2
        center = fitted[better(fitted)].head.strength
        sides = [float(center * 10**-width), float(center * 10**width)]
        sides = [s for s in sides if coarse[0] * 0.999 < s < coarse[-1] * 1.001]
        fitted += evaluate(sides, fitted)
    return sorted(fitted, key=lambda found: found.head.strength)


def _path(
    problem: PathRows,
    strengths: Sequence[float],
    done: Callable[[int, Solution, Any], None],
    *,
    start: FittedHead | None,
    carried: PathState | None,
    regularizer: str,
    dtype: DTypeLike,
    mesh: Mesh | None,
    on_pass: Callable[[], None],
    **settings: Any,
) -> None:
    """Solve for strengths that fall, each from the one before; `done(t, solution, make)`."""
    init = None if start is None else problem.inward(start.params)
    common = settings | {
        "loss": problem.loss,
        "sample_weight": problem.weights,
        "preprocessing": problem.statistics,
        "dtype": dtype,
        "mesh": mesh
        if math.prod(problem.inputs.shape) * settings["classes"] > SMALL_PROBLEM
        else None,
    }
    if regularizer == "l2":
        made: list[Any] = []
        solvers.minimize_path(
            problem.inputs, problem.labels, strengths=strengths, init=init, carried=carried,
            callback=lambda t, solution: done(t, solution, made.pop() if made else None),
            on_carried=made.append, on_pass=on_pass,
            **common,
        )  # fmt: skip
        return
    for t, strength in enumerate(strengths):
        l1 = strength if regularizer == "l1" else 0.0
        solution = solvers.minimize(
            problem.inputs, problem.labels, strength=0.0, l1_strength=l1, init=init,
            on_pass=on_pass, **common,
        )  # fmt: skip
        done(t, solution, lambda: None)
        init = solution.params


def _fitted(head: Head, solution: Solution, problem: PathRows) -> FittedHead:
    return FittedHead(
        head,
        problem.outward(solution.params),
        "done" if solution.status == 0 else solvers.describe(solution.status),
        objective=float(solution.objective),
        relative_gap=solvers.relative_gap(solution),
        epochs=float(solution.evaluations),
    )


def _validated(
    found: list[FittedHead],
    validation: Batch | None,
    statistics: Preprocessing,
    margin: float,
    mesh: Mesh | None,
) -> list[FittedHead]:
    """The same heads, of one loss, with their accuracies and losses on validation."""
    if validation is None:
        return found
    params = LinearParams(*(np.stack([np.asarray(f.params[i]) for f in found]) for i in (0, 1)))
    measured = measure(
        [f.head for f in found], params, Descent(margin=margin), statistics, validation, mesh=mesh
    )
    return [
        f._replace(validation_accuracy=float(accuracy), validation_loss=float(loss))
        for f, accuracy, loss in zip(found, *measured, strict=True)
    ]


def _path_of(head: Head) -> tuple:
    """What heads of one path have in common, sortable."""
    return head.loss, head.subset.name, head.shots or 0, head.seed


def _nearest(head: Head, near: Sequence[FittedHead]) -> FittedHead | None:
    """The fitted head of the same path whose strength is nearest on a log scale."""
    same = [found for found in near if _path_of(found.head) == _path_of(head)]
    if not same or head.strength <= 0:
        return None
    return min(same, key=lambda f: abs(np.log(max(f.head.strength, 1e-300) / head.strength)))
