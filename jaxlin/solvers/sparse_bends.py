"""Hessians of losses that bend in few classes of every row: work goes with what bends alone.

With many classes nearly all rivals of a row are either far behind or fully active, and a hinge
bends only at those between. Scores are then needed at these (row, class) pairs only.
"""

__all__ = ["SparseBend", "class_blocks", "sparse_bend", "sparse_curvature", "sparse_product"]

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse

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


def sparse_bend(diagonal, kappa, labels) -> SparseBend | None:
    """From (K, m) and (m,) arrays; `None` if too much bends for it to be worth while."""
    bending = diagonal > 0
    if np.count_nonzero(bending) > SPARSE * diagonal.size:
        return None
    classes, rows = np.nonzero(bending)
    starts = np.searchsorted(classes, np.arange(len(diagonal) + 1))
    return SparseBend(rows, classes, diagonal[bending], starts, kappa, labels)


def sparse_product(form, inputs, bend: SparseBend) -> Callable:
    """(W, b) -> the Hessian over the sample's rows (m, D) times (W, b), without the penalty."""
    rows, classes, d, starts, kappa, labels = bend
    size, count = len(labels), len(starts) - 1
    spread = scipy.sparse.csr_array((d.copy(), rows, starts), shape=(count, size))
    pairs = form.geometry == "pairs"
    step = max(1, GATHERED // inputs.shape[1])

    def scores(weights, bias, at_rows, at_classes):
        found = np.empty(len(at_rows), weights.dtype)
        for start in range(0, len(found), step):
            part = slice(start, start + step)
            left, right = inputs[at_rows[part]], weights[at_classes[part]]
            np.einsum("pd,pd->p", left, right, out=found[part])
        return found + bias[at_classes]

    def product(weights, bias):
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


def class_blocks(top, curvature) -> np.ndarray:
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


def sparse_curvature(form, bend: SparseBend):
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


def _own_rows(values, labels, count):
    """(K, m) CSR with the value of every row at its class."""
    size = len(labels)
    return scipy.sparse.csr_array((values, (labels, np.arange(size))), shape=(count, size))
