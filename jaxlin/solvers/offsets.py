"""Fits whose scores have parts that are not learned: scores = W x + b + o, with o given by row.

They are solved by the one compiled program of `jaxlin.solvers.compiled`, in float64 whatever the
dtype of the inputs. What is learned anyway, or changes no loss, is taken off o first, so that large
offsets cost no digits: of each row the mean, unless classes have problems of their own, and of each
class the mean, which a free bias takes over.
"""

__all__ = ["refuse_beside_offsets", "solve_with_offsets"]

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlin.core import DataError, LinearParams, Solution
from jaxlin.precision import float64
from jaxlin.solvers.compiled import minimize_compiled, prove
from jaxlin.solvers.dual_losses import FORMS, form_of
from jaxlin.solvers.problem import Problem, handed_back, norm_limit, penalty, rounded
from jaxlin.solvers.status import Status

SMOOTH = ", ".join(f'"{name}"' for name, form in FORMS.items() if form.smooth)


def solve_with_offsets(
    problem: Problem,
    start: tuple[np.ndarray, np.ndarray],
    inputs: Array | np.ndarray,
    labels: np.ndarray,
    sample_weight: ArrayLike | None,
    offsets: ArrayLike,
    report: Callable[[float, float, float], None],
    on_pass: Callable[[], None],
) -> Solution:
    """The problem of these inputs and labels, with `offsets` (N, K) added to their scores.

    `start` holds weights (K, D) and bias (K,) of all classes, as the problem has them. The
    callbacks are called once: `on_pass` before the fit, `report` at its end.
    """
    size, count = len(inputs), len(start[1])
    counts = np.ones(size) if sample_weight is None else np.asarray(sample_weight, np.float64)
    counts = counts / counts.max()
    fixed, by_class = _centred(problem, _checked(offsets, (size, count)), counts)
    rows = (np.asarray(inputs, np.float64) - problem.rows.shift) * problem.rows.scale
    # programs are compiled for sizes: folds that differ by a row share one
    more = _few_sizes(size) - size
    rows, fixed = (np.pad(part, ((0, more), (0, 0)), mode="edge") for part in (rows, fixed))
    labels, counts = np.pad(labels, (0, more), mode="edge"), np.pad(counts, (0, more))
    settings: dict[str, Any] = dict(
        loss=problem.form.name,
        strength=problem.strength,
        tolerance=problem.tolerance,
        sample_weight=counts,
        fit_intercept=problem.fit_intercept,
        margin=problem.margin,
        offsets=fixed,
    )
    own = np.arange(count)[:, None] == labels
    zeros = LinearParams(np.zeros_like(start[0]), np.zeros(count))
    init = min(  # far out Newton's method loses its way
        zeros,
        LinearParams(start[0], start[1] + by_class),
        key=lambda params: _objective(problem, params, rows, own, counts, fixed),
    )
    limit = min(problem.max_iterations, np.iinfo(np.int32).max)
    on_pass()
    with float64():
        found = minimize_compiled(
            rows, labels, classes=count, init=init, max_iterations=limit, **settings
        )
    found = jax.tree.map(np.asarray, found)
    learned = found.params.weights, found.params.bias - by_class
    # objective and bound are those of the parameters handed back, in their dtype
    weights, bias = rounded(problem, *learned)
    at = LinearParams(weights, bias + by_class)
    proved = prove(found._replace(params=at), rows, labels, **settings)
    solution = Solution(
        LinearParams(*handed_back(problem, *learned)),
        float(proved.objective),
        float(proved.lower_bound),
        float(proved.gap),
        float(found.gradient_norm),
        int(found.iterations),
        float(found.evaluations),
        Status(int(proved.status)),
    )
    report(solution.evaluations, solution.objective, solution.lower_bound)
    return solution


def _objective(
    problem: Problem,
    params: LinearParams,
    rows: np.ndarray,
    own: np.ndarray,
    counts: np.ndarray,
    fixed: np.ndarray,
) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        scores = params.weights @ rows.T + params.bias[:, None] + fixed.T
        losses = problem.form.loss(
            np, problem.form.shortfalls(np, scores, own, problem.margin), own
        )
        value = np.average(losses, weights=counts) + penalty(problem, params.weights)
    return np.nan_to_num(value, nan=np.inf)


def refuse_beside_offsets(
    inputs: object,
    *,
    loss: str | Callable,
    strength: ArrayLike,
    l1_strength: float,
    mesh: object,
    carried: object,
) -> None:
    """Raise where offsets cannot be combined with what was asked, saying what to do instead."""
    if isinstance(inputs, np.memmap) or not isinstance(inputs, (np.ndarray, jax.Array, list)):
        raise TypeError(
            f"`offsets` need dense rows in memory, got {type(inputs).__name__}. Give an array: "
            "np.array(inputs) of a memory map, inputs.toarray() of a sparse matrix."
        )
    if not form_of(loss).smooth:
        raise ValueError(
            f"`offsets` need a smooth loss, got {form_of(loss).name!r}, which has kinks. Use one "
            f"of {SMOOTH}."
        )
    if l1_strength:
        raise ValueError(
            f"`offsets` go with a penalty on squares alone, got l1_strength={l1_strength!r}. Leave "
            "`l1_strength` out (an `l1_ratio` of 0)."
        )
    if np.ndim(strength) == 0 and not strength:
        raise ValueError(
            "`offsets` need a positive `strength`: without a penalty nothing is proved. Give a "
            "small one, such as 1e-9 (a finite `C`)."
        )
    if mesh is not None:
        raise ValueError("`offsets` are for one device. Leave `mesh` out.")
    if carried is not None:
        raise ValueError("A fit with `offsets` is not carried on. Leave `carried` out.")


def _checked(offsets: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    offsets = np.asarray(offsets, np.float64)
    if offsets.shape != shape:
        raise ValueError(
            f"`offsets` must have one entry per row and class, {shape}, got {offsets.shape}."
        )
    limit = norm_limit(np.float64)  # their squares are losses of squared hinges
    if not (np.abs(offsets) < limit).all():
        row, k = np.argwhere(~(np.abs(offsets) < limit))[0]
        raise DataError(
            f"`offsets` must be finite, and no larger than {limit:.0e}, got {offsets[row, k]:g} at "
            f"row {row}, class {k}. Drop the row or give it weight 0 and offsets of 0."
        )
    return offsets


def _few_sizes(size: int) -> int:
    """The next of the numbers of rows that grow by an eighth or less."""
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step


def _centred(
    problem: Problem, offsets: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets less what makes no difference, and the part of it that the bias takes over, (K,)."""
    if problem.form.geometry != "one-vs-rest":
        offsets = offsets - offsets.mean(1, keepdims=True)
    by_class = np.zeros(offsets.shape[1])
    if problem.fit_intercept:
        by_class = np.average(offsets, axis=0, weights=counts)
    return offsets - by_class, by_class
