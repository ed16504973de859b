r"""Preconditioners: approximate inverse Hessians, (gradient in W, in b) -> (W, b).

Image pixels are strongly correlated, and the objective's curvature spans many orders of magnitude.
All are built from a sample of rows, around the sample's mean (the weights of centred inputs hardly
move the bias), in coordinates in which every feature has unit curvature, so that features of any
scale are alike. Leading axes batch.

`gram_preconditioner` assumes that all rows bend alike, as they do at W = 0: curvature * C + 2
strength on every class, with C the covariance. `two_level_preconditioner` follows the iterate: rows
are drawn by how much they bend, and the Hessian is dense on the leading directions of the
covariance (all classes and the bias together), and one K x K block on each of the others. With many
features only the leading directions are computed at first, and the rest is left to the Gram matrix.

`class_block_preconditioner` is for many classes: one block for each class, over the leading
directions and its bias. The blocks between classes, of which there are K^2, are left out. For pairs
they make the Hessian the Laplacian of a graph on the classes, in every pair of directions; where
every class has many rivals, a Laplacian is well served by its diagonal (the graph has no
bottleneck). A class bends at few of the rows: where all were made dense, `thinned` leaves each
class the rows that bend it most. A thousand rows tell little about the covariance of five hundred
directions: the inverse of theirs is many times too large in some and too small in others. What the
directions have in common is therefore shrunk by as much as chance alone would make of it.

Source: Ledoit and Wolf (2004), doi:10.1016/S0047-259X(03)00096-4, for shrinkage; Schaefer and
Strimmer (2005), doi:10.2202/1544-6115.1175, for a diagonal target.
"""

__all__ = [
    "CLASS_ROWS",
    "class_block_preconditioner",
    "flat",
    "gram_preconditioner",
    "leading_directions",
    "own_curvature",
    "shrink",
    "spectral_preconditioner",
    "thinned",
    "through_spectrum",
    "two_level_preconditioner",
]

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse
from jax import Array, lax
from scipy.linalg import get_lapack_funcs

from jaxlin.passes import arithmetic
from jaxlin.precision import exact, jit
from jaxlin.solvers.covariance import (
    Sample,
    Spectrum,
    cholesky_solver,
    factor_solver,
    stiffness,
    unit_system,
)
from jaxlin.solvers.curvature import DENSE_SIDE, Bends, block_inverses, class_blocks, dense_factor
from jaxlin.solvers.dual_losses import DualForm, module_of, total
from jaxlin.solvers.problem import Problem

BELOW_ROWS = 3000
"""Rows from which the small blocks below are made: they are means of squares, which need fewer than
the dense block on top (Fashion-MNIST takes the same passes from 1,000 on)."""


def flat(operator: Callable, shape: tuple[int, int]) -> Callable:
    """A preconditioner, or a product, of weights and bias as one of vectors: weights row by row,
    bias.

    Of a preconditioner the vectors may be several, (..., n).
    """

    def apply(vectors: Any) -> Any:
        batch, xp = vectors.shape[:-1], module_of(vectors)
        weights, bias = xp.split(vectors, [shape[0] * shape[1]], axis=-1)
        found = operator(weights.reshape(*batch, *shape), bias)
        return xp.concatenate([found[0].reshape(*batch, -1), found[1]], axis=-1)

    return apply


def gram_preconditioner(
    problem: Problem, covariance: np.ndarray, sample: Sample, curvature: Any
) -> Callable:
    """The inverse of curvature * C + 2 strength on every class, and of `curvature` on the bias."""
    stiff = stiffness(problem, sample, np.diag(covariance), curvature)
    system, scaling, _ = unit_system(covariance, stiff, curvature)
    solve = cholesky_solver(system, problem.vectors)

    def in_units(right: Any, bias_gradient: Any) -> tuple[Any, Any]:
        return solve(right), bias_gradient / curvature

    return _around_mean(problem, sample.mean, scaling, in_units)


def _around_mean(
    problem: Problem, mean: np.ndarray, scaling: np.ndarray, solve: Callable
) -> Callable:
    """A preconditioner that is known for rows less their mean, in coordinates of unit curvature.

    Args:
      mean, scaling: (D,).
      solve: (m, D) gradients in these coordinates, a row for each class of each of a batch, and
        (..., K) in the bias of centred rows -> the steps.
    """
    mean, scaling = (problem.vectors.asarray(part)[None, :] for part in (mean, scaling))

    @exact
    def apply(gradient: Any, bias_gradient: Any) -> tuple[Any, Any]:
        # one product for all of a batch: NumPy would make one for each
        right = gradient.reshape(-1, mean.size) - bias_gradient.reshape(-1, 1) * mean
        step, bias_step = solve(right * scaling, bias_gradient)
        step = step.astype(np.float64) * scaling
        moved = (step @ mean[0]).reshape(bias_gradient.shape)
        step = step.reshape(gradient.shape)
        return step, bias_step - moved if problem.fit_intercept else 0 * bias_gradient

    return apply


def spectral_preconditioner(
    problem: Problem, spectrum: Spectrum, mean: np.ndarray, curvature: Any
) -> Callable:
    """The Gram preconditioner where the covariance was not formed."""
    inverse = 1 / (curvature * spectrum.variances + spectrum.ridges)
    inverse = problem.vectors.asarray(inverse)[None, None, :]

    def solve(turned: Any, bias_gradient: Any) -> tuple[Any, Any]:
        return turned * inverse, bias_gradient / curvature

    return through_spectrum(problem, spectrum, mean, curvature, solve)


def through_spectrum(
    problem: Problem, spectrum: Spectrum, mean: np.ndarray, curvature: float, solve: Callable
) -> Callable:
    """A preconditioner that is known along the leading vectors; the Gram preconditioner is left the
    rest.

    Args:
      mean: (D,), around which the rows were taken.
      curvature: of the Gram preconditioner.
      solve: (b, K, q) gradients along the vectors, in their dtype, and (b, K) in the bias of
        centred rows -> the steps, of the same shapes.
    """
    vectors, outside = spectrum.vectors, None
    if spectrum.rest is not None:
        outside = spectrum.rest(curvature)
        vectors = vectors.astype(np.float64)  # what is left of the span must be next to nothing
    vectors = problem.vectors.asarray(vectors)

    def in_units(right: Any, bias_gradient: Any) -> tuple[Any, Any]:
        right = right.astype(vectors.dtype, copy=False)
        turned = right @ vectors
        by_class = turned.reshape(-1, problem.classes, turned.shape[1])
        by_class = by_class.astype(problem.dtype, copy=False)
        inside, bias_step = solve(by_class, bias_gradient.reshape(-1, problem.classes))
        inside = inside.reshape(turned.shape).astype(vectors.dtype, copy=False)
        bias_step = bias_step.reshape(bias_gradient.shape)
        if outside is None:
            return inside @ vectors.T, bias_step
        step = outside(right - turned @ vectors.T)
        return step + (inside - step @ vectors) @ vectors.T, bias_step

    return _around_mean(problem, mean, spectrum.scaling, in_units)


def two_level_preconditioner(
    problem: Problem, spectrum: Spectrum, sample: Sample, bends: Bends
) -> Callable:
    """The Hessian of the sampled rows: dense on top, blocks below."""
    dtype, classes = problem.dtype, problem.classes
    directions = spectrum.vectors.shape[1]
    dense = max(min(directions, DENSE_SIDE // classes - 1), 0)
    if dense:
        leading = spectrum.of_rows(problem, sample.rows, slice(dense))
        top = np.concatenate([leading, np.ones((len(leading), 1), dtype)], axis=1)
        factor = dense_factor(problem, top, spectrum.ridges[:dense], bends)
    mean_bend = np.maximum(bends.diagonal.sum(1, dtype=np.float64), 1e-12)
    size = sample.rows.shape[0]
    some = np.arange(size)
    if size > BELOW_ROWS:
        some = np.random.default_rng(0).permutation(size)[:BELOW_ROWS]
    below = spectrum.of_rows(problem, sample.rows[some], slice(dense, None))
    squares = below**2 * dtype.type(size / len(below))
    inverses = block_inverses(problem, squares, spectrum.ridges[dense:], bends.of_rows(some))
    xp = problem.vectors
    inverses, bent = xp.asarray(inverses), xp.asarray(mean_bend)[None, :]
    solve_dense = factor_solver(factor, xp) if dense else None

    def solve(turned: Any, bias_gradient: Any) -> tuple[Any, Any]:
        step = xp.einsum("jkl,blj->bkj", inverses, turned[..., dense:])
        if solve_dense is None:
            return step, bias_gradient / bent
        ends = bias_gradient[..., None].astype(dtype)
        right = xp.concatenate([turned[..., :dense], ends], axis=-1)
        solved = solve_dense(right.reshape(len(right), -1)).reshape(right.shape)
        return xp.concatenate([solved[..., :-1], step], axis=-1), solved[..., -1]

    return through_spectrum(problem, spectrum, sample.mean, float(mean_bend.mean()), solve)


BLOCK_ENTRIES = 3e7
"""Of all blocks together: 120 MB in float32."""
BLOCK_WORK = 4e10
"""Multiplications that forming the blocks may take, about a second; their factors a twentieth."""
CLASS_ROWS = 1000
"""Rows of a class's own, about."""
ROUNDED = (0.0, *10.0 ** np.arange(1, 7))
"""Roundings of the largest entry that the diagonal of a block may need to be positive definite."""


def own_curvature(xp: Any, form: DualForm, bend: Any, own: Any) -> Any:
    """(K, m): the second derivative of each row's loss in the score of each class alone."""
    d, kappa = bend
    curvature = d - kappa[None, :] * form.pull(xp, bend, own) ** 2
    if form.geometry == "pairs":
        curvature = curvature + own * total(xp, d)[None, :]
    return curvature


def thinned(curvature: Any, seed: int) -> tuple[Any, Any]:
    """(K, m) CSR: about `CLASS_ROWS` of the rows of each class, by their curvature (K, m).

    What is left is weighted up, so that the sums are those of all rows on average.

    Returns:
      The curvature, and the chance that each of its entries had: CSR of the same entries.
    """
    curvature = np.maximum(curvature, 0)
    sums = np.maximum(curvature.sum(1, keepdims=True), np.finfo(curvature.dtype).tiny)
    chances = np.minimum(CLASS_ROWS * curvature / sums, 1)
    drawn = np.random.default_rng(seed).random(curvature.shape, np.float32) < chances
    starts = np.append(0, np.count_nonzero(drawn, axis=1).cumsum())
    at = np.nonzero(drawn)[1]
    return tuple(
        scipy.sparse.csr_array((values, at, starts), shape=curvature.shape)
        for values in (curvature[drawn] / chances[drawn], chances[drawn])
    )


def class_block_preconditioner(
    problem: Problem, spectrum: Spectrum, sample: Sample, curvature: Any, chances: Any = None
) -> Callable:
    """The inverse of the sampled rows' Hessian without the blocks between classes.

    Args:
      curvature: `own_curvature` times the rows' weights, (K, m) array or CSR.
      chances: of its entries, if some of the sample's were left out (`thinned`).
    """
    classes, dtype = problem.classes, problem.dtype
    rotated = spectrum.of_rows(problem, sample.rows, slice(None))
    size, directions = rotated.shape
    sparse = scipy.sparse.issparse(curvature)
    work = curvature.nnz if sparse else classes * size
    leading = leading_directions(classes, directions, work)
    top = np.concatenate([rotated[:, :leading], np.ones((size, 1), dtype)], axis=1)
    if sparse:
        blocks = class_blocks(top, curvature)
    elif problem.on_host:
        blocks = np.stack([(top * weights[:, None]).T @ top for weights in curvature])
    else:
        together = problem.rows.blocks.class_blocks // top.size
        blocks = np.array(_blocks_compiled(top, curvature, together=together))
    shrink(blocks, _noise(problem, sample, curvature, chances))
    below = np.asarray(curvature @ rotated[:, leading:] ** 2)
    mean = max(float(blocks[:, -1, -1].mean()), 1e-12)
    free = 1e-3 * mean if problem.fit_intercept else 1.0
    ridges = np.append(spectrum.ridges[:leading], free).astype(blocks.dtype)
    if problem.on_host or problem.rows.device.platform == "cpu":
        inverses = _inverses(blocks, ridges)
    else:
        with arithmetic(blocks.dtype):
            inverses = np.array(_inverses_compiled(blocks, ridges))
    xp = problem.vectors
    below = xp.asarray(1 / np.maximum(below + spectrum.ridges[None, leading:], 1e-12))[None]
    blockwise = xp.asarray(inverses)[None]

    def solve(turned: Any, bias_gradient: Any) -> tuple[Any, Any]:
        ends = bias_gradient[..., None].astype(dtype)
        right = xp.concatenate([turned[..., :leading], ends], axis=-1)
        solved = (blockwise @ right[..., None])[..., 0]
        step = xp.concatenate([solved[..., :-1], below * turned[..., leading:]], axis=-1)
        return step, solved[..., -1].astype(np.float64)

    return through_spectrum(problem, spectrum, sample.mean, mean, solve)


def leading_directions(classes: int, directions: int, work: float) -> int:
    """How many directions the blocks have whose forming takes `work` multiplications an entry."""
    by_room, by_work = BLOCK_ENTRIES / classes, BLOCK_WORK / (2 * max(work, 1))
    most = min(by_room**0.5, by_work**0.5, (BLOCK_WORK / (20 * classes)) ** (1 / 3))
    return int(np.clip(most - 1, 0, directions))


def _noise(problem: Problem, sample: Sample, curvature: Any, chances: Any) -> np.ndarray:
    """(K,): the sampling variance of each class's sum of curvature, relative to its square.

    One over a number of rows, if all were alike and had to be lucky. Rows that were sure to be
    there add none.
    """
    weights = sample.weights
    luck = np.divide(problem.counts[sample.indices], weights, where=weights > 0, out=0 * weights)
    luck = np.minimum(luck, 1.0)
    if scipy.sparse.issparse(curvature):
        sure = luck[curvature.indices] * (1.0 if chances is None else chances.data)
        missed = curvature.copy()
        missed.data = missed.data.astype(np.float64) ** 2 * (1 - sure)
        squares = missed.sum(1)
    else:
        curvature = np.asarray(curvature, np.float64)
        squares = curvature**2 @ (1 - luck)
    sums = np.asarray(curvature.sum(1), np.float64)
    return squares / np.maximum(sums, 1e-150) ** 2


def shrink(blocks: Any, noise: Any) -> None:
    """Shrink in place what is between directions by the share of it that is noise.

    With variances of one, p directions that have nothing in common have some p^2 * noise in
    squares between them, by which the squares that are found are too large.

    Args:
      blocks: (K, p + 1, p + 1), sums of squares over p directions and, last, the bias. The part
        that the mean of a class's rows makes stays: means are known far better.
      noise: (K,), the relative variance of each class's curvature.
    """
    diagonal, rounding = np.arange(blocks.shape[1] - 1), np.finfo(blocks.dtype).eps
    for block, variance in zip(blocks, noise, strict=True):
        mass, inner = block[-1, -1], block[:-1, :-1]
        if not (mass > 0 and variance > 0):
            continue
        mean = block[-1, :-1] / np.sqrt(mass)
        least = 8 * rounding * inner[diagonal, diagonal]
        inner -= np.outer(mean, mean)
        kept = inner[diagonal, diagonal]
        known = kept > least
        units = np.where(known, 1 / np.sqrt(np.where(known, kept, 1)), 0)
        count = np.count_nonzero(known)
        found = float(np.sum((inner * units * units[:, None]) ** 2)) - count
        by_chance = count * (count - 1) * float(variance)
        inner *= 1 - min(by_chance / max(found, 1e-30), 1.0)
        inner[diagonal, diagonal] = kept
        inner += np.outer(mean, mean)


@partial(jit, static_argnames="together")
def _blocks_compiled(top: Any, curvature: Any, *, together: int) -> Array:
    """A class at a time, or so many `together`."""
    return lax.map(
        lambda weights: (top * weights[:, None]).T @ top,
        jnp.asarray(curvature),
        batch_size=together if together > 1 else None,
    )


def _inverses(blocks: Any, ridges: np.ndarray) -> np.ndarray:
    """Of blocks + diag(ridges), in place; more is added where rounding has made one indefinite."""
    potrf, potri = get_lapack_funcs(("potrf", "potri"), (blocks,))
    diagonal = np.arange(len(ridges))
    for block in blocks:
        plain = block[diagonal, diagonal] + ridges
        for more in ROUNDED:
            block[diagonal, diagonal] = plain + more * np.finfo(blocks.dtype).eps * plain.max()
            factor, failed = potrf(block)
            if not failed:
                break
        upper = np.triu(potri(factor)[0])
        block[:] = upper + np.triu(upper, 1).T
    return blocks


@jit
def _inverses_compiled(blocks: Any, ridges: np.ndarray) -> Array:
    """The same of all blocks at once, for a device to which a thousand small ones are launches."""
    identity = jnp.eye(len(ridges), dtype=blocks.dtype)
    largest = (jnp.diagonal(blocks, axis1=1, axis2=2) + ridges[None, :]).max(1)
    unit = jnp.finfo(blocks.dtype).eps * largest
    plain = blocks + (identity * ridges[:, None])[None, :, :]

    def factored(tries: Any) -> Any:
        more = jnp.asarray(ROUNDED, blocks.dtype)[tries] * unit
        return tries, jnp.linalg.cholesky(plain + more[:, None, None] * identity[None, :, :])

    def failed(state: Any) -> Array:
        return jnp.isnan(state[1]).any((1, 2)) & (state[0] < len(ROUNDED) - 1)

    _, factors = lax.while_loop(
        lambda state: failed(state).any(),
        lambda state: factored(state[0] + failed(state)),
        factored(jnp.zeros(len(blocks), jnp.int32)),
    )
    inner = lax.linalg.triangular_solve(
        factors, jnp.broadcast_to(identity, blocks.shape), left_side=True, lower=True
    )
    return jnp.einsum("kji,kjl->kil", inner, inner)
