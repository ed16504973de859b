"""Full-batch sweeps: every head certified, each warm from its neighbor on the path of strengths."""

__all__ = ["coarse_to_fine", "few_shot_rows", "solve"]

import math
from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
import scipy.linalg

from jaxlin import preprocess, solvers
from jaxlin.core import Batch, LinearParams, Solution
from jaxlin.data.rows import RESIDENT_BYTES, take
from jaxlin.passes import SMALL_PROBLEM
from jaxlin.preprocess import Preprocessing
from jaxlin.solvers.carried import Carried
from jaxlin.sweep.bank import Descent, measure
from jaxlin.sweep.heads import Fitted, Head


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
    dtype=np.float32,
    mesh=None,
    near: Sequence[Fitted] = (),
    known: Sequence[Fitted] = (),
    carried: Carried | None = None,
    on_fitted: Callable[[Fitted, Callable], None] | None = None,
) -> list[Fitted]:
    """Solve the problem of every head to a certified relative gap.

    Heads that differ in their strength only form a path, from the strongest regularization to
    the weakest, on which each starts where the one before it ended.

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
      mesh: from `jaxlin.sharding.mesh`, to spread the rows over its devices; problems so small
        that the host is quicker stay there.
      near: heads fitted before, to start from the nearest of.
      known: heads of a sweep that was left, in the order they were fitted; they are taken as
        they are.
      carried: what the path of the last of `known` carried. The other heads are then those of an
        unbroken sweep, bit for bit.
      on_fitted: called with every other head as it is done, and a function that returns what its
        path carries (`None` if nothing but the head); `None` where the path cannot be left there.

    Returns:
      A `Fitted` for every head, in the order of `heads`.

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
    order = sorted(range(len(heads)), key=lambda h: (_path_of(heads[h]), -heads[h].strength))
    before = {found.head: found for found in known}
    fitted = [before.get(head) for head in heads]
    for _, members in groupby(order, key=lambda h: _path_of(heads[h])):
        whole = list(members)
        path = [h for h in whole if fitted[h] is None]
        if not path:
            continue
        begun = [fitted[h] for h in whole if fitted[h] is not None]
        problem = _Problem(heads[path[0]], data, statistics, rotate=regularizer == "l2")
        start = begun[-1] if begun else _nearest(heads[path[0]], near)

        def done(t: int, solution: Solution, make, path=path, problem=problem) -> None:
            found = _fitted(heads[path[t]], solution, problem)
            fitted[path[t]] = _validated(found, validation, statistics, margin, mesh)
            if on_fitted is not None:
                on_fitted(fitted[path[t]], make)

        _path(
            problem, [heads[h].strength for h in path], done, start=start,
            carried=carried if begun else None, classes=classes,
            tolerance=tolerance, margin=margin, regularizer=regularizer,
            max_iterations=max_iterations, dtype=dtype, mesh=mesh,
        )  # fmt: skip
    return [found for found in fitted if found is not None]


def coarse_to_fine(
    evaluate: Callable[[list[float], list[Fitted]], list[Fitted]],
    coarse: Sequence[float],
    better: Callable[[list[Fitted]], int],
    *,
    halvings: int = 4,
) -> list[Fitted]:
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


def few_shot_rows(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Rows of `shots` examples of each class, drawn by `seed`; fewer shots are a part of more.

    Raises:
      ValueError: a class has fewer examples.

    >>> few_shot_rows(np.array([0, 1, 0, 1, 1]), 2, seed=0).tolist()
    [0, 1, 2, 3]
    """
    order = np.random.default_rng([seed, 0x5407]).permutation(len(labels))
    sorted_labels = np.asarray(labels)[order]
    rows = []
    for label in np.unique(labels):
        own = order[sorted_labels == label]
        if len(own) < shots:
            raise ValueError(
                f"Class {label} has {len(own)} training examples, fewer than the {shots} of the "
                "few-shot sweep. Ask for fewer shots, or keep fewer examples for validation."
            )
        rows.append(own[:shots])
    return np.sort(np.concatenate(rows))


class _Problem:
    """The rows of a path: its examples and its columns, in the coordinates it is solved in."""

    def __init__(self, head: Head, data: Batch, statistics: Preprocessing, *, rotate: bool):
        self.loss, self.features = head.loss, data.inputs.shape[1]
        self.columns = head.subset.mask(self.features)
        self.labels, self.weights, self.span = np.asarray(data.labels), data.weights, None
        inputs, parts = data.inputs, [np.asarray(part) for part in statistics[1:]]
        if head.shots is not None:
            rows = few_shot_rows(self.labels, head.shots, head.seed)
            inputs, self.labels = np.asarray(take(inputs, rows)[:]), self.labels[rows]
            self.weights = None if self.weights is None else np.asarray(self.weights)[rows]
        if not self.columns.all():
            held = isinstance(inputs, np.ndarray)
            inputs = inputs[:, self.columns] if held else _Columns(inputs, self.columns)
            parts = [part[self.columns] for part in parts]
        self.inputs, self.statistics = inputs, Preprocessing(statistics.kind, *parts)
        if rotate and inputs.shape[0] < inputs.shape[1]:
            self._rotate()

    def _rotate(self):
        """With fewer rows than columns the weights lie in the span of the rows: solve there."""
        mapped = (np.asarray(self.inputs, np.float64) - self.statistics.shift) * (
            self.statistics.scale
        )
        # Singular vectors of the small triangle, not of the wide rows: the same, and sooner.
        basis, triangle = scipy.linalg.qr(
            mapped.T, mode="economic", overwrite_a=True, check_finite=False
        )
        left, sizes, right = np.linalg.svd(triangle.T)
        kept = sizes > 1e-12 * max(sizes[0], 1e-300)
        self.span = right[kept] @ basis.T
        self.inputs = (left[:, kept] * sizes[kept]).astype(np.float32)
        self.statistics = preprocess.fit(self.inputs, "none")

    def inward(self, params: LinearParams) -> LinearParams:
        """Parameters of all columns in the coordinates of the problem."""
        weights = np.asarray(params.weights)[:, self.columns]
        return LinearParams(weights if self.span is None else weights @ self.span.T, params.bias)

    def outward(self, params: LinearParams) -> LinearParams:
        """Parameters of the problem in all columns, 0 outside of the subset."""
        weights = np.asarray(params.weights)
        own = weights if self.span is None else (weights @ self.span).astype(weights.dtype)
        full = np.zeros((len(own), self.features), own.dtype)
        full[:, self.columns] = own
        return LinearParams(full, np.asarray(params.bias))


class _Columns:
    """Some columns of a source of rows, read with all others and cut out."""

    def __init__(self, source, columns: np.ndarray):
        self.source, self.columns, self.dtype = source, columns, source.dtype
        self.shape = (source.shape[0], int(columns.sum()))
        share = self.shape[1] / source.shape[1]
        self.resident_bytes = int(share * getattr(source, "resident_bytes", RESIDENT_BYTES))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(self.source[rows])[..., self.columns])


def _path(
    problem: _Problem, strengths, done, *, start, carried, regularizer, dtype, mesh, **settings
) -> None:  # fmt: skip
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
        made = []
        solvers.minimize_path(
            problem.inputs, problem.labels, strengths=strengths, init=init, carried=carried,
            callback=lambda t, solution: done(t, solution, made.pop() if made else None),
            on_carried=made.append,
            **common,
        )  # fmt: skip
        return
    for t, strength in enumerate(strengths):
        l1 = strength if regularizer == "l1" else 0.0
        solution = solvers.minimize(
            problem.inputs, problem.labels, strength=0.0, l1_strength=l1, init=init, **common
        )
        done(t, solution, lambda: None)
        init = solution.params


def _fitted(head: Head, solution: Solution, problem: _Problem) -> Fitted:
    return Fitted(
        head,
        problem.outward(solution.params),
        "done" if solution.status == 0 else solvers.describe(solution.status),
        objective=solution.objective,
        relative_gap=solvers.relative_gap(solution),
        epochs=solution.evaluations,
    )


def _validated(found: Fitted, validation, statistics, margin, mesh) -> Fitted:
    """The same head with its accuracy and loss on validation."""
    if validation is None:
        return found
    alone = LinearParams(*(np.asarray(part)[None] for part in found.params))
    measured = measure(
        [found.head], alone, Descent(margin=margin), statistics, validation, mesh=mesh
    )
    accuracy, loss = (float(part[0]) for part in measured)
    return found._replace(validation_accuracy=accuracy, validation_loss=loss)


def _path_of(head: Head) -> tuple:
    """What heads of one path have in common, sortable."""
    return head.loss, head.subset.name, head.shots or 0, head.seed


def _nearest(head: Head, near: Sequence[Fitted]) -> Fitted | None:
    """The fitted head of the same path whose strength is nearest on a log scale."""
    same = [found for found in near if _path_of(found.head) == _path_of(head)]
    if not same or head.strength <= 0:
        return None
    return min(same, key=lambda f: abs(np.log(max(f.head.strength, 1e-300) / head.strength)))
