"""The rows of a small softmax problem in the coordinates of Newton's steps, in a block a thread.

Two cores fit 20,000 rows of 100 features and 10 classes in two thirds of the time of one.
"""

__all__ = ["Block", "Space", "coefficients_of", "open_space", "parameters_of", "small_parts"]

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxlin.cores import parts_of
from jaxlin.solvers.covariance import constant_features
from jaxlin.solvers.duals import own_of
from jaxlin.solvers.problem import Problem

DENSE_WORK = 4e6
"""Multiplications that the Hessian may take to be formed: some 1 ms."""


class Block(NamedTuple):
    """Some rows, one feature after the other: scores from these take half as long."""

    columns: np.ndarray
    """(q, R): centred, scaled, and with a free bias ones at the end."""
    narrow: np.ndarray | None
    """The same in float32, for products with the Hessian; `None` where that is formed."""
    own: np.ndarray
    """(K, R) boolean: the true class of every row."""
    true: np.ndarray
    """(R,): the places of the true classes in scores (K, R) as they lie."""
    counts: np.ndarray
    """(R,)"""


class Space(NamedTuple):
    """Features centred and scaled to unit curvature, and the bias as one more of them."""

    blocks: list[Block]
    each: Callable
    """`map`, or the same by threads."""
    ridges: np.ndarray
    """(q,): the penalty's second derivative."""
    scaling: np.ndarray
    """(D,)"""
    mean: np.ndarray
    """(D,)"""
    free: bool
    moment: np.ndarray | None
    """(q, q): the rows' second moment; `None` where the Hessian itself is formed."""


def small_parts(problem: Problem) -> list[slice]:
    """The rows of each block."""
    return parts_of(problem.rows.size, 8 * (problem.features + 1 + problem.classes))


def open_space(problem: Problem, each: Callable = map) -> Space:
    """The rows of a problem in NumPy, in blocks."""
    counts, free, classes = problem.counts, problem.fit_intercept, problem.classes
    inputs, parts = problem.rows.sample(slice(None)), small_parts(problem)
    mean = counts @ inputs if free else np.zeros(problem.features)
    variances = sum(each(lambda part: counts[part] @ (inputs[part] - mean) ** 2, parts))
    alike = constant_features(inputs, problem.center) if free else []
    variances[alike] = 0
    scaling = 1 / np.sqrt(variances / classes + 2 * problem.strength)
    ridges = np.append(2 * problem.strength * scaling**2, [0.0] * free)
    side = len(ridges) * (1 if classes == 2 else classes)
    formed = problem.rows.size * side**2 <= DENSE_WORK

    def block_of(part):
        size = part.stop - part.start
        columns = np.ones((len(ridges), size))
        np.multiply((inputs[part] - mean).T, scaling[:, None], out=columns[: len(scaling)])
        columns[alike] = 0
        labels = problem.labels[part]
        true = labels * size + np.arange(size)
        narrow = None if formed else columns.astype(np.float32)
        return Block(columns, narrow, own_of(np, labels, classes), true, counts[part])

    blocks = list(each(block_of, parts))
    moment = None
    if not formed:
        moment = sum(each(lambda block: (block.columns * block.counts) @ block.columns.T, blocks))
    return Space(blocks, each, ridges, scaling, mean, free, moment)


def coefficients_of(space: Space, weights, bias) -> np.ndarray:
    """(K, q), from weights (K, D) and bias (K,)."""
    coefficients = weights / space.scaling
    if not space.free:
        return coefficients
    return np.column_stack([coefficients, bias + weights @ space.mean])


def parameters_of(space: Space, coefficients) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, D) and bias (K,), from coefficients (K, q)."""
    weights = coefficients[:, : len(space.scaling)] * space.scaling
    if not space.free:
        return weights, np.zeros(len(weights))
    return weights, coefficients[:, -1] - weights @ space.mean
