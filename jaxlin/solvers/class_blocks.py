"""A metric for many classes: one block for each class, over the leading directions and its bias.

The blocks between classes, of which there are K^2, are left out. For pairs they make the Hessian
the Laplacian of a graph on the classes, in every pair of directions; where every class has many
rivals, a Laplacian is well served by its diagonal (the graph has no bottleneck).
"""

__all__ = ["class_block_metric", "own_curvature"]

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlin.solvers.covariance import Sample
from jaxlin.solvers.duals import total
from jaxlin.solvers.metrics import through_spectrum
from jaxlin.solvers.problem import Problem
from jaxlin.solvers.sparse_bends import SparseBend, class_blocks, class_diagonals
from jaxlin.solvers.spectrum import Spectrum

BLOCK_ENTRIES = 3e7
"""Of all blocks together: 120 MB in float32."""
BLOCK_WORK = 4e10
"""Multiplications that forming the blocks may take: about a second."""
SLAB = 4_000_000
"""Entries of the blocks that are inverted at once in float64."""


def own_curvature(xp, form, bend, own):
    """(K, m): the second derivative of each row's loss in the score of each class alone."""
    d, kappa = bend
    curvature = d - kappa[None, :] * form.pull(xp, bend, own) ** 2
    if form.geometry == "pairs":
        curvature = curvature + own * total(xp, d)[None, :]
    return curvature


def class_block_metric(problem: Problem, spectrum: Spectrum, sample: Sample, bend) -> Callable:
    """The inverse of the sampled rows' Hessian without the blocks between classes.

    Args:
      bend: `SparseBend` of the sample's rows, or the (K, m) `own_curvature` times their weights.
    """
    classes, dtype = problem.classes, problem.dtype
    rotated = sample.rows @ spectrum.vectors
    size, directions = rotated.shape
    sparse = isinstance(bend, SparseBend)
    work = len(bend.rows) + size if sparse else classes * size
    most = min((BLOCK_ENTRIES / classes) ** 0.5, (BLOCK_WORK / (2 * work)) ** 0.5)
    leading = int(np.clip(most - 1, 0, directions))
    top = np.concatenate([rotated[:, :leading], np.ones((size, 1), dtype)], axis=1)
    squares = rotated[:, leading:] ** 2
    if sparse:
        blocks = class_blocks(problem.form, top, bend)
        below = class_diagonals(problem.form, squares, bend)
    elif problem.on_host:
        blocks = np.stack([(top * weights[:, None]).T @ top for weights in bend])
        below = bend @ squares
    else:
        blocks = np.array(_blocks_compiled(top, bend))
        below = np.asarray(bend @ squares)
    mean = max(float(blocks[:, -1, -1].mean()), 1e-12)
    free = 1e-3 * mean if problem.fit_intercept else 1.0
    inverses = _inverses(blocks, np.append(spectrum.ridges[:leading], free))
    below = 1 / np.maximum(below + spectrum.ridges[None, leading:], 1e-12)

    def solve(turned, bias_gradient):
        right = np.concatenate([turned[:, :leading], bias_gradient[:, None].astype(dtype)], 1)
        solved = (inverses @ right[:, :, None])[:, :, 0]
        step = np.concatenate([solved[:, :-1], below * turned[:, leading:]], axis=1)
        return step, solved[:, -1].astype(np.float64)

    return through_spectrum(problem, spectrum, sample.mean, mean, solve)


@jax.jit
def _blocks_compiled(top, curvature):
    return lax.map(lambda weights: (top * weights[:, None]).T @ top, jnp.asarray(curvature))


def _inverses(blocks, ridges):
    """Of blocks + diag(ridges), made in float64."""
    slab = max(1, SLAB // blocks[0].size)
    ridge = np.diag(ridges.astype(np.float64))
    for start in range(0, len(blocks), slab):
        part = slice(start, start + slab)
        inverse = np.linalg.inv(blocks[part].astype(np.float64) + ridge)
        blocks[part] = (inverse + np.swapaxes(inverse, 1, 2)) / 2
    return blocks
