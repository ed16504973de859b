"""Rows drawn from the data, their covariance, and the products that it is made with."""

__all__ = ["DENSE_FEATURES", "Sample", "covariance_of", "product", "symmetric_product"]

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin.passes import arithmetic
from jaxlin.solvers.blas import all_blas_threads, blas_threads
from jaxlin.solvers.problem import Problem

DENSE_FEATURES = 4500
"""Features up to which the covariance is formed at all."""


class Sample(NamedTuple):
    """Rows drawn from the data, centred."""

    indices: np.ndarray
    rows: np.ndarray
    """(m, D) - mean, in the problem's dtype."""
    weights: np.ndarray
    """(m,), summing to about one: what each drawn row stands for."""
    mean: np.ndarray
    """(D,); zero without intercept."""


def covariance_of(problem: Problem, sample: Sample) -> np.ndarray:
    """Weighted second moment of the sample, (D, D)."""
    root = np.sqrt(np.maximum(sample.weights, 0)).astype(problem.dtype)
    rows = sample.rows * root[:, None]
    if problem.on_host:
        return symmetric_product(np, rows, rows)
    if jax.default_backend() == "cpu" and blas_threads() > 1:
        with all_blas_threads():
            return symmetric_product(np, rows, rows)
    with arithmetic(problem.dtype):
        return np.asarray(_second_moment(rows))


def symmetric_product(xp, left, right):
    """left^T right where that is symmetric: five eighths of the multiplications.

    Only the blocks on and above the diagonal are multiplied; BLAS has a half to do where both are
    one array.
    """
    if xp is np and left is right:
        return left.T @ left
    edges = np.linspace(0, left.shape[1], 5).astype(int)
    strips = [
        xp.pad(left[:, start:stop].T @ right[:, start:], ((0, 0), (start, 0)))
        for start, stop in pairwise(edges)
    ]
    upper = xp.triu(xp.concatenate(strips))
    return upper + xp.triu(upper, 1).T


@jax.jit
def _second_moment(rows):
    return symmetric_product(jnp, rows, rows)


def product(problem: Problem, left, right):
    """By XLA unless the problem is small: BLAS loses its threads on a busy machine."""
    if problem.on_host:
        return left @ right
    with arithmetic(problem.dtype):
        return np.asarray(jnp.asarray(left) @ jnp.asarray(right))
