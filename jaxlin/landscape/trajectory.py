"""The path of a training run, seen from a plane: where it goes, and how much of it is seen."""

__all__ = ["Projection", "project"]

from typing import Any, NamedTuple

import numpy as np

from jaxlin.landscape import _trees
from jaxlin.landscape.directions import flatten_path, tree_of


class Projection(NamedTuple):
    """A path in the coordinates of a plane, in steps of its two directions.

    >>> path = [np.array([0.0, 0.0, 0.0]), np.array([2.0, 0.0, 0.0]), np.array([2.0, 4.0, 0.0])]
    >>> seen = project(path, path[0], np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]))
    >>> seen.distances.tolist(), round(seen.explained, 6)  # the whole path lies on the plane
    ([0.0, 0.0, 0.0], 1.0)
    """

    coordinates: np.ndarray
    """(T, 2): the steps (a, b) whose point of the plane is nearest to each checkpoint."""
    distances: np.ndarray
    """(T,): how far each checkpoint lies from the plane."""
    explained: float
    """Share of the path's variance (about its mean) that lies within the plane, in [0, 1]."""


def project(path: Any, origin: Any, first: Any, second: Any) -> Projection:
    """Project a training path on the plane origin + a * first + b * second.

    Args:
      path: a sequence of trees, or one tree whose leaves carry the checkpoints on a leading axis.
      origin: the tree at a = b = 0.
      first, second: `Direction`s or trees; they need not be orthogonal or of unit length.

    Returns:
      A `Projection`: orthogonal, in float64. Where the origin lies off the path the distances
      show it; `explained` is about the path's shape alone.

    Raises:
      ValueError: fewer than two checkpoints, parallel directions, trees that do not fit.

    Source: Li et al. (2018), arXiv:1712.09913, section 7.2; Lorch (2016) for the components.

    >>> path = [np.array([0.0, 0.0, 0.0]), np.array([2.0, 0.0, 0.0]), np.array([2.0, 4.0, 0.0])]
    >>> seen = project(path, path[0], np.array([1.0, 0.0, 0.0]), np.array([0.0, 2.0, 0.0]))
    >>> seen.coordinates.tolist(), seen.explained
    ([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0]], 1.0)
    """
    trees = [tree_of(first), tree_of(second)]
    for tree, name in zip(trees, ("first", "second"), strict=True):
        _trees.check_same_tree(tree, origin, name=name)
    _trees.check_independent(trees, ["first", "second"])
    matrix, _ = flatten_path(path)
    center, *axes = (_trees.flatten(tree) for tree in (origin, *trees))
    if matrix.shape[1] != len(center):
        raise ValueError(
            f"The checkpoints have {matrix.shape[1]} parameters and the origin {len(center)}."
        )
    basis = np.stack(axes, axis=1)
    offsets = matrix - center
    orthonormal, triangle = np.linalg.qr(basis)
    within = offsets @ orthonormal
    coordinates = np.linalg.solve(triangle, within.T).T
    distances = np.linalg.norm(offsets - within @ orthonormal.T, axis=1)
    total = np.sum((matrix - matrix.mean(axis=0)) ** 2)
    seen = np.sum((within - within.mean(axis=0)) ** 2)
    explained = float(min(seen / total, 1.0)) if total > 0 else 1.0
    return Projection(coordinates, distances, explained)
