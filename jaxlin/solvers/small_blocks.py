"""The rows of a small softmax problem in the coordinates of Newton's steps, in a block a thread.

NumPy lets other threads run while it works on an array, but each of its many small operations must
wait for its turn to begin: blocks are as few and as large as can be, one for each core. Two cores
fit 20,000 rows of 100 features and 10 classes in two thirds of the time of one.
"""

__all__ = ["Block", "Space", "coefficients_of", "open_space", "parameters_of", "sharing"]

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from jaxlin.solvers.blas import blas_threads
from jaxlin.solvers.duals import own_of
from jaxlin.solvers.problem import Problem

DENSE_WORK = 4e6
"""Multiplications that the Hessian may take to be formed: some 1 ms."""
BLOCK_BYTES = 1 << 20
"""Of rows and scores in float64: a thread of its own pays for no less."""
MOST_THREADS = 8
"""More wait for each other."""


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


@contextmanager
def sharing(problem: Problem) -> Iterator[Callable]:
    """`map` over the blocks, by a thread for each."""
    threads = len(_parts(problem))
    if threads == 1:
        yield map
        return
    quiet = partial(np.seterr, over="ignore", invalid="ignore")  # a thread has its own
    with ThreadPoolExecutor(threads - 1, "jaxlin-newton", initializer=quiet) as pool:

        def by_threads(function, *by_block):
            (first, *others) = zip(*by_block, strict=True)
            later = [pool.submit(function, *given) for given in others]
            return [function(*first), *(found.result() for found in later)]

        yield by_threads


def open_space(problem: Problem, each: Callable = map) -> Space:
    """The rows of a problem in NumPy, in blocks."""
    counts, free, classes = problem.counts, problem.fit_intercept, problem.classes
    inputs, parts = problem.rows.sample(slice(None)), _parts(problem)
    mean = counts @ inputs if free else np.zeros(problem.features)
    variances = sum(each(lambda part: counts[part] @ (inputs[part] - mean) ** 2, parts))
    scaling = 1 / np.sqrt(variances / classes + 2 * problem.strength)
    ridges = np.append(2 * problem.strength * scaling**2, [0.0] * free)
    side = len(ridges) * (1 if classes == 2 else classes)
    formed = problem.rows.size * side**2 <= DENSE_WORK

    def block_of(part):
        size = part.stop - part.start
        columns = np.ones((len(ridges), size))
        np.multiply((inputs[part] - mean).T, scaling[:, None], out=columns[: len(scaling)])
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


def _parts(problem: Problem) -> list[slice]:
    """The rows of each block, about as many in all."""
    size, row = problem.rows.size, 8 * (problem.features + 1 + problem.classes)
    count = max(1, min(size * row // BLOCK_BYTES, blas_threads(), MOST_THREADS))
    edges = np.linspace(0, size, count + 1).astype(int)
    return [slice(*ends) for ends in pairwise(edges.tolist())]
