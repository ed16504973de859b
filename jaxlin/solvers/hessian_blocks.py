"""The Hessian of sampled rows: dense over the leading directions, small blocks on the others."""

__all__ = [
    "BLOCK_CLASSES",
    "DENSE_SIDE",
    "Bends",
    "bends_of",
    "block_inverses",
    "dense_blocks",
    "dense_factor",
]

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from jaxlin.passes import arithmetic
from jaxlin.solvers.covariance import Sample, product, symmetric_product
from jaxlin.solvers.duals import own_of
from jaxlin.solvers.problem import Problem

DENSE_SIDE = 1100
"""Unknowns of the dense block of `two_level_metric`: its Cholesky factor takes about 20 ms."""
BLOCK_CLASSES = 24
"""Classes up to which every direction has a K x K block; beyond, its diagonal."""


class Bends(NamedTuple):
    """Second derivatives of a sample's losses in its scores, times the rows' weights."""

    diagonal: np.ndarray
    """(K, m)"""
    pull: tuple[np.ndarray, np.ndarray]
    """q and weight * kappa * q, (K, m) both: their outer product is subtracted."""
    edges: tuple[np.ndarray, np.ndarray] | None
    """For pairs: the true class and the weighted d, (K, m) both, which couple it to rivals."""


def bends_of(problem: Problem, sample: Sample, scores, smoothing=1.0, anchor=0.0) -> Bends:
    """At the sample's `scores` (K, m)."""
    form, dtype = problem.form, problem.dtype
    own = own_of(np, problem.host_labels[sample.indices], problem.classes)
    z = form.shortfalls(np, np.asarray(scores, dtype), own, problem.margin)
    bend = form.bend(np, form.maximizer(np, z, smoothing, anchor), smoothing)
    weights = sample.weights
    q = form.pull(np, bend, own).astype(dtype)
    pull = (q, q * (weights * bend.kappa)[None, :].astype(dtype))
    diagonal = (bend.diagonal * weights[None, :]).astype(dtype)
    if form.geometry != "pairs":
        return Bends(diagonal, pull, None)
    edges = (own.astype(dtype), diagonal)
    return Bends(diagonal + own * diagonal.sum(0)[None, :], pull, edges)


def block_inverses(problem, squares, ridges, bends: Bends):
    """Inverse curvature of each direction below the dense ones: (q, K, K), or (K, q)."""
    classes = problem.classes
    if classes > BLOCK_CLASSES:
        own = bends.diagonal - bends.pull[0] * bends.pull[1]
        return 1 / np.maximum(own @ squares + ridges[None, :], 1e-12)
    blocks = product(problem, _hessian_weights(bends).reshape(classes * classes, -1), squares)
    blocks = blocks.T.reshape(-1, classes, classes).astype(np.float64)
    return np.linalg.inv(blocks + ridges[:, None, None] * np.eye(classes)[None])


def _hessian_weights(bends: Bends):
    """(K, K, m): the weight of each row in each block of the Hessian."""
    weights = -bends.pull[0][:, None, :] * bends.pull[1][None, :, :]
    classes = np.arange(len(bends.diagonal))
    weights[classes, classes] += bends.diagonal
    if bends.edges is not None:
        cross = bends.edges[0][:, None, :] * bends.edges[1][None, :, :]
        weights -= cross + np.swapaxes(cross, 0, 1)
    return weights


def dense_factor(problem: Problem, top, ridges, bends: Bends):
    """Cholesky factor of the Hessian over (class, leading direction or bias)."""
    classes, side, dtype = problem.classes, top.shape[1], problem.dtype
    if problem.on_host:
        hessian = dense_blocks(np, top, bends)
    else:
        with arithmetic(dtype):
            hessian = np.array(_dense_blocks_compiled(top, bends))
    # a common shift of all biases does not change softmax: give it some curvature
    free = np.trace(hessian) / len(hessian) * 1e-6 + 1e-12
    ridge = np.tile(np.append(ridges, free), classes).astype(dtype)
    if not problem.fit_intercept:
        ridge[side - 1 :: side] += 1.0
    hessian[np.diag_indices_from(hessian)] += ridge
    while True:
        try:
            return scipy.linalg.cholesky(hessian, lower=True, check_finite=False)
        except np.linalg.LinAlgError:  # rounding made it indefinite
            more = 10 * np.finfo(dtype).eps * max(np.trace(hessian) / side, 1e-30)
            hessian[np.diag_indices_from(hessian)] += more


def dense_blocks(xp, top, bends: Bends, own_weights=None):
    """Blocks sum_i w_kl,i top_i top_i^T over pairs of classes (k, l), as one symmetric matrix.

    Between classes the weights are products of something of k and something of l, so that all
    blocks are one matrix product; those of a class with itself are made apart, because there they
    are a difference whose terms would lose their digits once summed.

    Args:
      top: (m, q).
      own_weights: (K, m), w_kk where it is known better than as that difference.

    Returns:
      (K q, K q), class by class.
    """
    classes, side = bends.diagonal.shape[0], top.shape[1]

    def spread(weights):
        return (weights.T[:, :, None] * top[:, None, :]).reshape(len(top), classes * side)

    hessian = -symmetric_product(xp, spread(bends.pull[0]), spread(bends.pull[1]))
    if bends.edges is not None:
        crossed = spread(bends.edges[0]).T @ spread(bends.edges[1])
        hessian = hessian - crossed - crossed.T
    if own_weights is None:
        own_weights = bends.diagonal - bends.pull[0] * bends.pull[1]
    own = (own_weights[:, None, :] * top.T[None, :, :]).reshape(classes * side, -1) @ top
    same = np.repeat(np.arange(classes), side)
    inside = same[:, None] == same[None, :]
    return xp.where(inside, xp.tile(own, (1, classes)), hessian)


@jax.jit
def _dense_blocks_compiled(top, bends):
    return dense_blocks(jnp, top, bends)
