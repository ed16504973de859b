"""Second derivatives of sampled rows' losses: dense blocks, and products where few classes bend.

The Hessian is dense over the leading directions and has small blocks on the others. Where a common
shift of all scores changes nothing (softmax, pairs), a row's second derivative in its scores is the
Laplacian of a graph on the classes, and most of its edges weigh next to nothing. A sample of rows
is a sample of such edges as well: each is kept with a chance of its share in its row, and weighs
more for it, so that the blocks are what they were on average (as Spielman and Srivastava, 2011,
doi:10.1137/080734029, make graphs sparse).

With many classes nearly all rivals of a row are either far behind or fully active, and a hinge
bends only at those between. Scores are then needed at these (row, class) pairs only.
"""

__all__ = [
    "DENSE_SIDE",
    "Bends",
    "SparseBend",
    "bends_of",
    "block_inverses",
    "class_blocks",
    "dense_blocks",
    "dense_factor",
    "fits_dense",
    "sampled_blocks",
    "sparse_bend",
    "sparse_curvature",
    "sparse_product",
    "weights_between",
]

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse
from jax import Array

from jaxlin.passes import arithmetic
from jaxlin.precision import jit
from jaxlin.solvers.covariance import Sample, product, second_moment, suits_blas
from jaxlin.solvers.dual_losses import AnyArray, ArrayModule, Block, DualForm, maximizers
from jaxlin.solvers.problem import Problem

DENSE_SIDE = 1100
"""Unknowns of the dense block of `two_level_preconditioner`: its Cholesky factor takes about 20
ms."""
EDGES = 8
"""Pairs of classes that a row is expected to enter the dense block with, at most."""


class Bends(NamedTuple):
    """Second derivatives of a sample's losses in its scores, times the rows' weights."""

    diagonal: np.ndarray
    """(K, m)"""
    pull: np.ndarray | None
    """(K, m), whose outer product with itself is subtracted; `None` where nothing is."""
    edges: tuple[np.ndarray, np.ndarray] | None
    """For pairs: the true class and the weighted d, (K, m) both, which couple it to rivals."""

    @property
    def own_weights(self) -> np.ndarray:
        """(K, m): of each row in the block of each class with itself."""
        if self.pull is None:
            return self.diagonal
        return self.diagonal - self.pull**2

    @property
    def coupled(self) -> bool:
        """Whether a common shift of all scores changes no loss. In that direction the Hessian is 0
        but for rounding: preconditioners give it the mean curvature of the classes, so that they do
        not magnify the rounding of gradients, whose own part in it is 0."""
        return self.pull is not None or self.edges is not None

    def of_rows(self, some: np.ndarray | slice) -> "Bends":
        """Those of the rows that an index picks."""
        return jax.tree.map(lambda part: part[:, some], self)


def fits_dense(problem: Problem) -> bool:
    """Whether the Hessian of all unknowns is one dense block."""
    return (problem.features + 1) * problem.classes <= DENSE_SIDE


def bends_of(
    problem: Problem,
    sample: Sample,
    scores: np.ndarray,
    smoothing: float = 1.0,
    anchor: np.ndarray | float = 0.0,
) -> Bends:
    """At the sample's `scores` (K, m)."""
    form, dtype = problem.form, problem.dtype
    weights, labels = sample.weights, problem.host_labels[sample.indices]
    numbers = anchor, problem.margin, smoothing
    a, _, own = maximizers(np, form, Block(np.asarray(scores, dtype), labels, weights, *numbers))
    bend = form.bend(np, a, smoothing)
    pull = None
    if np.any(bend.kappa):
        pull = (form.pull(np, bend, own) * np.sqrt(weights * bend.kappa)[None, :]).astype(dtype)
    diagonal = (bend.diagonal * weights[None, :]).astype(dtype)
    if form.geometry != "pairs":
        return Bends(diagonal, pull, None)
    edges = (own.astype(dtype), diagonal)
    return Bends(diagonal + own * diagonal.sum(0)[None, :], pull, edges)


def block_inverses(
    problem: Problem, squares: np.ndarray, ridges: np.ndarray, bends: Bends
) -> np.ndarray:
    """Inverse curvature of each direction below the dense ones, (q, K, K)."""
    classes = problem.classes
    blocks = product(problem, _hessian_weights(bends).reshape(classes * classes, -1), squares)
    blocks = blocks.T.reshape(-1, classes, classes).astype(np.float64)
    if bends.coupled:
        blocks += np.einsum("qkk->q", blocks)[:, None, None] / classes**2
    return np.linalg.inv(blocks + ridges[:, None, None] * np.eye(classes)[None])


def _hessian_weights(bends: Bends) -> np.ndarray:
    """(K, K, m): the weight of each row in each block of the Hessian."""
    classes, size = bends.diagonal.shape
    weights = np.zeros((classes, classes, size), bends.diagonal.dtype)
    k, j = np.triu_indices(classes, 1)
    weights[k, j] = weights[j, k] = weights_between(bends, k, j)
    weights[np.arange(classes), np.arange(classes)] = bends.own_weights
    return weights


def weights_between(bends: Bends, k: int | np.ndarray, j: int | np.ndarray) -> np.ndarray:
    """The weight of each row, (..., m), in the block of classes k and j, which differ."""
    weights = np.zeros((*np.shape(k), bends.diagonal.shape[1]), bends.diagonal.dtype)
    if bends.pull is not None:
        weights -= bends.pull[k] * bends.pull[j]
    if bends.edges is not None:
        own, d = bends.edges
        weights -= own[k] * d[j]
        weights -= own[j] * d[k]
    return weights


def dense_factor(problem: Problem, top: np.ndarray, ridges: np.ndarray, bends: Bends) -> np.ndarray:
    """Cholesky factor of the Hessian over (class, leading direction or bias)."""
    classes, side, dtype = problem.classes, top.shape[1], problem.dtype
    if suits_blas(problem) and bends.coupled and not fits_dense(problem):
        hessian = sampled_blocks(top, bends)
    elif suits_blas(problem):
        hessian = dense_blocks(np, top, bends)
    else:
        with arithmetic(dtype):
            hessian = np.array(_dense_blocks_compiled(top, bends))
    if bends.coupled:
        alike, each = hessian.reshape(classes, side, classes, side), np.arange(side)
        alike[:, each, :, each] += np.einsum("kqkq->q", alike)[:, None, None] / classes**2
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


def dense_blocks(
    xp: ArrayModule, top: AnyArray, bends: Bends, own_weights: AnyArray | None = None
) -> AnyArray:
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
    own_weights = bends.own_weights if own_weights is None else own_weights
    hessian = 0.0
    if bends.pull is not None:
        hessian = -second_moment(xp, _spread(bends.pull, top))
    if xp is np:
        return _with_edges_and_own(hessian, top, bends.edges, own_weights)
    if bends.edges is not None:
        crossed = _spread(bends.edges[0], top).T @ _spread(bends.edges[1], top)
        hessian = hessian - crossed - crossed.T
    classes, side = own_weights.shape[0], top.shape[1]
    own = (own_weights[:, None, :] * top.T[None, :, :]).reshape(classes * side, -1) @ top
    same = np.repeat(np.arange(classes), side)
    inside = same[:, None] == same[None, :]
    return xp.where(inside, xp.tile(own, (1, classes)), hessian)


def sampled_blocks(top: np.ndarray, bends: Bends) -> np.ndarray:
    """`dense_blocks` in expectation, from a sample of the pairs of classes that rows enter."""
    classes, side = len(bends.diagonal), top.shape[1]
    first, second = np.triu_indices(classes, 1)
    weights = -weights_between(bends, first, second)
    of_rows = weights.sum(0)
    chances = weights * (EDGES / np.where(of_rows > 1e-30, of_rows, np.inf))
    draws = np.random.default_rng(0).random(chances.shape, np.float32)
    pairs, rows = np.nonzero(draws < chances)
    weights = weights[pairs, rows] / np.minimum(chances[pairs, rows], 1)
    bounds = np.searchsorted(pairs, np.arange(len(first) + 1))
    hessian = np.zeros((classes, side, classes, side), top.dtype)
    for k, j, start, stop in zip(first, second, bounds[:-1], bounds[1:], strict=True):
        part = top[rows[start:stop]]
        hessian[k, :, j] = hessian[j, :, k] = -(part.T * weights[start:stop]) @ part
    same = np.arange(classes)
    hessian[same, :, same] = -hessian.sum(2)
    return hessian.reshape(classes * side, classes * side)


def _spread(weights: AnyArray, top: AnyArray) -> AnyArray:
    """(K, m) and (m, q) -> (m, K q): every row weighted for every class."""
    spread = weights.T[:, :, None] * top[:, None, :]
    return spread.reshape(len(top), weights.shape[0] * top.shape[1])


def _with_edges_and_own(
    hessian: AnyArray,
    top: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray] | None,
    own_weights: np.ndarray,
) -> np.ndarray:
    """In NumPy a class at a time: the edges of a row touch the blocks of its true class alone."""
    classes, side = own_weights.shape[0], top.shape[1]
    if not np.ndim(hessian):
        hessian = np.zeros((classes * side, classes * side), top.dtype)
    blocks = [slice(k * side, (k + 1) * side) for k in range(classes)]
    if edges is not None:
        for block, at in zip(blocks, edges[0] > 0, strict=True):
            crossed = top[at].T @ _spread(edges[1][:, at], top[at])
            hessian[block] -= crossed
            hessian[:, block] -= crossed.T
    for block, weights in zip(blocks, own_weights, strict=True):
        hessian[block, block] = (top.T * weights) @ top
    return hessian


@jit
def _dense_blocks_compiled(top: Array, bends: Bends) -> Array:
    return dense_blocks(jnp, top, bends)


SPARSE = 1 / 40
"""Share of bending pairs below which gathering them beats a dense product over all."""
GATHERED = 4_000_000
"""Numbers that are gathered at once."""


class SparseBend(NamedTuple):
    """Second derivatives diag(d) - kappa d d^T in z, by pairs; sorted by class."""

    rows: np.ndarray
    """(P,) which row of the sample."""
    classes: np.ndarray
    """(P,)"""
    diagonal: np.ndarray
    """(P,): d of the pair, times the row's weight."""
    starts: np.ndarray
    """(K + 1,): where the pairs of each class begin."""
    kappa: np.ndarray
    """(m,)"""
    labels: np.ndarray
    """(m,)"""


def sparse_bend(diagonal: np.ndarray, kappa: np.ndarray, labels: np.ndarray) -> SparseBend | None:
    """From (K, m) and (m,) arrays; `None` if too much bends for it to be worth while."""
    bending = diagonal > 0
    if np.count_nonzero(bending) > SPARSE * diagonal.size:
        return None
    classes, rows = np.nonzero(bending)
    starts = np.searchsorted(classes, np.arange(len(diagonal) + 1))
    return SparseBend(rows, classes, diagonal[bending], starts, kappa, labels)


def sparse_product(
    form: DualForm, inputs: np.ndarray, bend: SparseBend
) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(W, b) -> the Hessian over the sample's rows (m, D) times (W, b), without the penalty."""
    rows, classes, d, starts, kappa, labels = bend
    size, count = len(labels), len(starts) - 1
    spread = scipy.sparse.csr_array((d.copy(), rows, starts), shape=(count, size))
    pairs = form.geometry == "pairs"
    step = max(1, GATHERED // inputs.shape[1])

    def scores(
        weights: np.ndarray, bias: np.ndarray, at_rows: np.ndarray, at_classes: np.ndarray
    ) -> np.ndarray:
        found = np.empty(len(at_rows), weights.dtype)
        for start in range(0, len(found), step):
            part = slice(start, start + step)
            left, right = inputs[at_rows[part]], weights[at_classes[part]]
            np.einsum("pd,pd->p", left, right, out=found[part])
        return found + bias[at_classes]

    def product(weights: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = scores(weights, bias, rows, classes)
        if pairs:
            moved -= scores(weights, bias, np.arange(size), labels)[rows]
        moved *= d
        if kappa.any():
            pulled = kappa * np.bincount(rows, moved, minlength=size).astype(d.dtype)
            moved -= d * pulled[rows]
        spread.data[:] = moved
        products, sums = spread @ inputs, spread.sum(1)
        if pairs:
            own = -np.bincount(rows, moved, minlength=size).astype(d.dtype)
            back = _own_rows(own, labels, count)
            products, sums = products + back @ inputs, sums + back.sum(1)
        return products, sums

    return product


def class_blocks(top: np.ndarray, curvature: scipy.sparse.csr_array) -> np.ndarray:
    """(K, r, r): the Hessian of each class alone over the columns of `top` (m, r).

    Args:
      curvature: (K, m) CSR, nonnegative: of each row in the score of each class.
    """
    blocks = np.empty((curvature.shape[0], top.shape[1], top.shape[1]), top.dtype)
    roots = np.sqrt(curvature.data).astype(top.dtype)
    for k in range(len(blocks)):
        part = slice(curvature.indptr[k], curvature.indptr[k + 1])
        chosen = top[curvature.indices[part]] * roots[part, None]
        blocks[k] = chosen.T @ chosen
    return blocks


def sparse_curvature(form: DualForm, bend: SparseBend) -> scipy.sparse.csr_array:
    """(K, m) CSR: each row's second derivative in the score of each class alone."""
    rows, _, d, starts, kappa, labels = bend
    size, count = len(labels), len(starts) - 1
    alone = scipy.sparse.csr_array((d - kappa[rows] * d**2, rows, starts), shape=(count, size))
    if form.geometry == "pairs":
        mass = np.bincount(rows, d, minlength=size)
        own = (mass - kappa * mass**2).astype(d.dtype)
        alone = alone + _own_rows(own, labels, count)
    alone.data = np.maximum(alone.data, 0)  # rounding
    return alone


def _own_rows(values: np.ndarray, labels: np.ndarray, count: int) -> scipy.sparse.csr_array:
    """(K, m) CSR with the value of every row at its class."""
    size = len(labels)
    return scipy.sparse.csr_array((values, (labels, np.arange(size))), shape=(count, size))
