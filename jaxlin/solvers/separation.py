"""Whether softmax without a penalty has an optimum: not where a direction parts some examples.

Along a direction in which every example's own score leads all others, or ties with them, and some
lead strictly, the loss falls forever. It need not part whole classes: a feature that only rows of
one class have, as an indicator, is such a direction. Where there is none, the optimum exists
(Albert and Anderson, 1984, doi:10.1093/biomet/71.1.1: the data overlap).
"""

__all__ = ["parted"]

import numpy as np
import scipy.optimize
import scipy.sparse
from jax.typing import ArrayLike

from jaxlin.distributed.sharding import fetch
from jaxlin.solvers.covariance import constant_features
from jaxlin.solvers.problem import Problem, examples_of

MOST_ENTRIES = 500_000
"""Of a linear program that takes about a second."""
ROUNDING = 1e-9
"""Of a lead, where the largest is 1: less is a tie."""


def parted(problem: Problem, weights: ArrayLike, bias: ArrayLike) -> bool:
    """Whether the loss is known to fall forever.

    Args:
      weights, bias: where a fit stopped: a class that leads there is seen at once. Other directions
        are looked for, unless there are very many examples, by a linear program.
    """
    return _class_apart(problem, weights, bias) or _some_apart(problem)


def _class_apart(problem: Problem, weights: ArrayLike, bias: ArrayLike) -> bool:
    """Whether some class's lead over the mean of all parts its examples from all others."""
    counted = problem.counts > 0
    scores = fetch(problem.rows.scores(weights, bias)).astype(np.float64)[:, counted]
    own = problem.host_labels[counted] == np.arange(problem.classes)[:, None]
    leads = scores - scores.mean(0)
    inside, outside = np.where(own, leads, np.inf).min(1), np.where(own, -np.inf, leads).max(1)
    if not problem.fit_intercept:  # no bias moves the threshold away from 0
        return bool(((inside > 0) & (outside <= 0)).any())
    return bool((inside > outside).any())


def _some_apart(problem: Problem) -> bool:
    """The largest sum of leads of which none is negative, and none above 1.

    It is 0 if no direction parts any example, else at least 1, for the longest lead of a direction
    can be made 1 (Konis, 2007, "Linear programming algorithms for detecting separated data in
    binary logistic regression models").
    """
    size = examples_of(problem)
    if 2 * size * (problem.classes - 1) * (problem.features + 1) > MOST_ENTRIES:
        return False
    counted = np.flatnonzero(problem.counts[:size] > 0)
    leads = _leads(problem, problem.rows.sample(counted, np.float64), problem.host_labels[counted])
    gain = np.asarray(leads.sum(0)).ravel()
    found = scipy.optimize.milp(
        -gain,
        constraints=scipy.optimize.LinearConstraint(leads, 0, 1),
        bounds=scipy.optimize.Bounds(-np.inf, np.inf),
    )
    if found.x is None:
        return False
    reached = leads @ found.x
    return bool(reached.max() > 0.5 and reached.min() > -ROUNDING)


def _leads(problem: Problem, rows: np.ndarray, labels: np.ndarray) -> scipy.sparse.csr_array:
    """The map from (K - 1) (D + 1) unknowns, class 0 being 0, to each example's N (K - 1) leads."""
    if problem.fit_intercept:
        alike = constant_features(rows, problem.center)
        rows = rows - rows.mean(0)
        rows[:, alike] = 0
    spread = np.abs(rows).max(0)
    rows = rows / np.where(spread > 0, spread, 1.0)
    if problem.fit_intercept:
        rows = np.hstack([rows, np.ones((len(rows), 1))])
    example, other = np.nonzero(labels[:, None] != np.arange(problem.classes))
    each, ones = np.arange(len(example)), np.ones(len(example))
    signs = [
        scipy.sparse.csr_array((sign * ones, (each, of)), (len(example), problem.classes))
        for sign, of in ((1, labels[example]), (-1, other))
    ]
    signs = (signs[0] + signs[1])[:, 1:].tocoo()
    side = rows.shape[1]
    columns = signs.coords[1][:, None] * side + np.arange(side)
    values = signs.data[:, None] * rows[example[signs.coords[0]]]
    shape = len(example), (problem.classes - 1) * side
    index = np.repeat(signs.coords[0], side), columns.ravel()
    return scipy.sparse.csr_array((values.ravel(), index), shape)
