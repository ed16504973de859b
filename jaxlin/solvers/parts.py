"""A start on a part of the rows, where a pass over all of them is dear.

Far from the optimum a part of the rows points the way as well as all do. Its own optimum is some
percent above that of all rows (its sampling error), so it is left as soon as it is about as near
to it; a part of very many rows begins with a part of its own.

Source: Byrd, Chin, Nocedal and Wu (2012), doi:10.1007/s10107-012-0572-5, for samples that grow
with the accuracy that is wanted.
"""

__all__ = ["LONG", "SHARE", "part_of"]

import numpy as np

from jaxlin.passes import DeviceRows
from jaxlin.solvers.problem import Problem, beside

SHARE = 8
"""One row in so many."""
NEAR = 0.1
"""Relative gap at which the part has served."""
LONG = 5
"""Steps that the part took from which on the metric of all rows follows the iterate at once."""
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
        tolerance=max(NEAR, problem.tolerance),
    )
