"""Rows drawn from the data, their covariance, and the products that it is made with."""

__all__ = [
    "DENSE_FEATURES",
    "Sample",
    "constant_features",
    "covariance_of",
    "product",
    "same_value",
    "second_moment",
    "stiffness",
    "suits_blas",
]

from itertools import pairwise
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxlin.cores import all_blas_threads, blas_threads
from jaxlin.passes import arithmetic
from jaxlin.precision import exact, jit
from jaxlin.solvers.problem import Problem

DENSE_FEATURES = 4500
"""Features up to which the covariance is formed at all."""
LARGE = 5e8
"""Multiplications of a second moment that are worth a second thread."""
ROUNDINGS = 8
"""Units of rounding by which the values of a feature may differ that is one number, computed."""
FIRST = 64
"""Rows that tell nearly all features apart from a constant."""


class Sample(NamedTuple):
    """Rows drawn from the data, centred."""

    indices: np.ndarray
    rows: np.ndarray
    """(m, D) - mean, in the problem's dtype; 0 in features that are constant but for rounding."""
    weights: np.ndarray
    """(m,), summing to about one: what each drawn row stands for."""
    mean: np.ndarray
    """(D,); zero without intercept."""


def covariance_of(problem: Problem, sample: Sample) -> np.ndarray:
    """Weighted second moment of the sample, (D, D)."""
    root = np.sqrt(np.maximum(sample.weights, 0)).astype(problem.dtype)
    rows = sample.rows * root[:, None]
    if suits_blas(problem):
        return second_moment(np, rows)
    with arithmetic(problem.dtype):
        return np.asarray(_second_moment(rows))


def constant_features(rows, center) -> np.ndarray:
    """The indices of features whose values, (m, D) + center, differ by their rounding at most.

    Of these the bias knows all. What centering leaves of them is rounding: where the penalty is
    next to nothing, it would be taken for a signal to be magnified without end.
    """
    some = np.flatnonzero(_alike(rows[:FIRST], center))
    return some[_alike(rows[:, some], center[some])] if len(some) else some


def _alike(rows, center):
    return same_value(np, rows.min(0), rows.max(0), center)


def same_value(xp, least, most, center=0.0):
    """Whether numbers of floating type, least <= most, are one but for rounding, with `center`."""
    sizes = xp.maximum(xp.abs(least), xp.abs(most)) + xp.abs(center)
    return most - least <= ROUNDINGS * xp.finfo(least.dtype).eps * sizes


def stiffness(problem: Problem, sample: Sample, variances, curvature) -> np.ndarray:
    """(D,): the penalty's second derivative, and more where only rounding is left beside it.

    The gradient of a constant feature is `mean` times that of the bias, but for rounding. Stiff as
    if it varied by all of its mean, it all but ignores that.
    """
    least = curvature * (sample.mean + problem.center) ** 2
    return 2 * problem.strength + np.where(variances > 0, 0.0, least)


def suits_blas(problem: Problem) -> bool:
    """Whether BLAS makes second moments sooner than XLA: half the work, but on its own threads."""
    return problem.on_host or (problem.rows.device.platform == "cpu" and blas_threads() > 1)


def second_moment(xp, rows):
    """rows^T rows, of (m, q): BLAS makes one half of it, XLA five eighths, strip by strip."""
    if xp is np:
        if rows.size * rows.shape[1] < LARGE:
            return rows.T @ rows
        with all_blas_threads():
            return rows.T @ rows
    edges = np.linspace(0, rows.shape[1], 5).astype(int)
    strips = [
        xp.pad(rows[:, start:stop].T @ rows[:, start:], ((0, 0), (start, 0)))
        for start, stop in pairwise(edges)
    ]
    upper = xp.triu(xp.concatenate(strips))
    return upper + xp.triu(upper, 1).T


@jit
def _second_moment(rows):
    return second_moment(jnp, rows)


def product(problem: Problem, left, right):
    """By XLA unless the problem is small: BLAS loses its threads on a busy machine."""
    if problem.on_host:
        return left @ right
    with arithmetic(problem.dtype):
        return np.asarray(exact(jnp.matmul)(left, right))
