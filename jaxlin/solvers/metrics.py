r"""Metrics: what distance means to a quasi-Newton method, so that its steps fit the data.

Image pixels are strongly correlated, and the objective's curvature spans many orders of
magnitude. A metric is an approximate inverse Hessian, (gradient in W, in b) -> (W, b). All are
built from a sample of rows, around the sample's mean (the weights of centred inputs hardly move
the bias), in coordinates in which every feature has unit curvature, so that features of any scale
are alike.

`gram_metric` assumes that all rows bend alike, as they do at W = 0: curvature * C + 2 strength on
every class, with C the covariance. `two_level_metric` follows the iterate: rows are drawn by how
much they bend, and the Hessian is dense on the leading directions of the covariance (all classes
and the bias together), and one K x K block, or its diagonal, on each of the others. With many
features only the leading directions are computed and the rest is left to the Gram metric.
"""

__all__ = [
    "Bends",
    "Sample",
    "Spectrum",
    "bends_of",
    "covariance_of",
    "dense_blocks",
    "flat",
    "gram_metric",
    "spectral_metric",
    "spectrum_of",
    "through_spectrum",
    "two_level_metric",
]

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from jaxlin.passes import arithmetic
from jaxlin.solvers.duals import own_of
from jaxlin.solvers.problem import Problem

DENSE_SIDE = 1100
"""Unknowns of the dense block of `two_level_metric`: its Cholesky factor takes about 20 ms."""
FULL_SPECTRUM = 1200
"""Features up to which all eigenvectors of the covariance are computed."""
DENSE_FEATURES = 4500
"""Features up to which the covariance is formed at all."""
BLOCK_CLASSES = 24
"""Classes up to which every direction has a K x K block; beyond, its diagonal."""


class Sample(NamedTuple):
    """Rows drawn from the data, centred."""

    indices: np.ndarray
    rows: np.ndarray
    """(m, D) - mean, in the problem's dtype."""
    weights: np.ndarray
    """(m,), summing to about one: what each drawn row stands for."""
    mean: np.ndarray
    """(D,); zero without intercept."""


class Spectrum(NamedTuple):
    """Directions in which covariance and penalty are (nearly) diagonal, steepest first."""

    vectors: np.ndarray
    """(D, q): W = U vectors^T."""
    variances: np.ndarray
    """(q,)"""
    ridges: np.ndarray
    """(q,): the penalty's second derivative, at least the rounding of the factorization."""
    scaling: np.ndarray
    """(D,): W = (W in unit-curvature coordinates) * scaling."""
    rest: Callable | None
    """curvature -> solver of (K, D) right sides, in unit-curvature coordinates, for what the
    vectors do not span; `None` if they span everything."""


class Bends(NamedTuple):
    """Second derivatives of a sample's losses in its scores, times the rows' weights."""

    diagonal: np.ndarray
    """(K, m)"""
    pull: tuple[np.ndarray, np.ndarray]
    """q and weight * kappa * q, (K, m) both: their outer product is subtracted."""
    edges: tuple[np.ndarray, np.ndarray] | None
    """For pairs: the true class and the weighted d, (K, m) both, which couple it to rivals."""


def flat(operator: Callable, shape: tuple[int, int]) -> Callable:
    """A metric, or a product, of weights and bias as one of vectors: weights row by row, bias."""

    def apply(vector):
        weights, bias = np.split(vector, [shape[0] * shape[1]])
        found = operator(weights.reshape(shape), bias)
        return np.concatenate([found[0].ravel(), found[1]])

    return apply


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


def covariance_of(problem: Problem, sample: Sample) -> np.ndarray:
    """Weighted second moment of the sample, (D, D)."""
    root = np.sqrt(np.maximum(sample.weights, 0)).astype(problem.dtype)
    rows = sample.rows * root[:, None]
    if problem.on_host:
        return _symmetric(np, rows, rows)
    with arithmetic(problem.dtype):
        return np.asarray(_second_moment(rows))


def _symmetric(xp, left, right):
    """left^T right where that is symmetric: five eighths of the multiplications.

    Only the blocks on and above the diagonal are multiplied.
    """
    edges = np.linspace(0, left.shape[1], 5).astype(int)
    strips = [
        xp.pad(left[:, start:stop].T @ right[:, start:], ((0, 0), (start, 0)))
        for start, stop in pairwise(edges)
    ]
    upper = xp.triu(xp.concatenate(strips))
    return upper + xp.triu(upper, 1).T


@jax.jit
def _second_moment(rows):
    return _symmetric(jnp, rows, rows)


def _product(problem: Problem, left, right):
    """By XLA unless the problem is small: BLAS loses its threads on a busy machine."""
    if problem.on_host:
        return left @ right
    with arithmetic(problem.dtype):
        return np.asarray(jnp.asarray(left) @ jnp.asarray(right))


def _unit_system(covariance, strength, curvature):
    """curvature * C + 2 strength with unit diagonal; its scaling; its ridge, rounding included."""
    diagonal = curvature * np.diag(covariance).astype(np.float64) + 2 * strength
    diagonal = np.where(diagonal > 0, diagonal, 1.0)
    scaling = 1 / np.sqrt(diagonal)
    system = covariance * (scaling * curvature)[:, None] * scaling[None, :]
    ridge = 2 * strength * scaling**2 + len(scaling) * 4 * np.finfo(covariance.dtype).eps
    system[np.diag_indices_from(system)] += ridge
    return system.astype(covariance.dtype), scaling, ridge


def gram_metric(problem: Problem, covariance, mean, curvature) -> Callable:
    """The inverse of curvature * C + 2 strength on every class, and of `curvature` on the bias."""
    system, scaling, _ = _unit_system(covariance, problem.strength, curvature)
    solve = _cholesky_solver(system)

    def apply(gradient, bias_gradient):
        step = solve((gradient - np.outer(bias_gradient, mean)) * scaling) * scaling
        if not problem.fit_intercept:
            return step, np.zeros_like(bias_gradient)
        return step, bias_gradient / curvature - step @ mean

    return apply


def _cholesky_solver(system):
    factor = scipy.linalg.cholesky(system, lower=True, overwrite_a=True, check_finite=False)

    def solve(right):
        solved = scipy.linalg.cho_solve(
            (factor, True), right.T.astype(factor.dtype), check_finite=False
        )
        return solved.T.astype(np.float64)

    return solve


def spectrum_of(problem: Problem, sample: Sample, covariance, curvature) -> Spectrum:
    """Directions e of C u = e (curvature C + 2 strength) u: all, or the leading ones if D is large.

    Args:
      covariance: (D, D), or `None` with so many features that it was not formed.
    """
    if covariance is None:
        return _spectrum_of_rows(problem, sample, curvature)
    system, scaling, ridge = _unit_system(covariance, problem.strength, curvature)
    if problem.features <= FULL_SPECTRUM:
        scaled = (covariance * scaling[:, None] * scaling[None, :]).astype(system.dtype)
        values, vectors = scipy.linalg.eigh(scaled, system, check_finite=False, driver="gvd")
        values, vectors = values[::-1].astype(np.float64), vectors[:, ::-1]
        values = np.clip(values, 0, 1 / curvature)
        ridges = np.maximum(1 - curvature * values, float(ridge.min()))
        vectors = (scaling[:, None] * vectors).astype(problem.dtype)
        return Spectrum(np.ascontiguousarray(vectors), values, ridges, scaling, None)
    leading = min(DENSE_SIDE // problem.classes - 1, problem.features // 4)
    vectors, values = _leading_vectors(problem, system, max(leading, 1), ridge)
    ridges = (vectors.astype(np.float64) ** 2).T @ ridge

    def rest(bend):
        changed = (system - np.diag(ridge)) * (bend / curvature) + np.diag(ridge)
        return _cholesky_solver(changed.astype(system.dtype))

    vectors = (scaling[:, None] * vectors).astype(problem.dtype)
    return Spectrum(vectors, values / curvature, ridges, scaling, rest)


def _leading_vectors(problem, system, count, ridge, sweeps=5):
    """Block power iteration: leading eigenvectors of the data's part of `system`."""
    draws = np.random.default_rng(0).normal(size=(len(system), count)).astype(system.dtype)
    vectors = np.linalg.qr(draws)[0]
    for _ in range(sweeps):
        image = _product(problem, system, vectors)
        vectors = np.linalg.qr(image)[0]
    inside = vectors.T @ _product(problem, system, vectors)
    values, turn = np.linalg.eigh(inside)
    vectors = vectors @ turn[:, ::-1].astype(vectors.dtype)
    return vectors, np.maximum(values[::-1] - float(ridge.min()), 0).astype(np.float64)


def _spectrum_of_rows(problem: Problem, sample: Sample, curvature) -> Spectrum:
    """Leading directions from the m x m products of the sample's rows; the rest is diagonal."""
    root = np.sqrt(np.maximum(sample.weights, 0)).astype(problem.dtype)
    rows = sample.rows * root[:, None]
    diagonal = curvature * (rows.astype(np.float64) ** 2).sum(0) + 2 * problem.strength
    scaling = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    rows = rows * scaling.astype(problem.dtype)[None, :]
    values, left = np.linalg.eigh(_product(problem, rows, rows.T))
    kept = values > values[-1] * 1e-6
    values, left = values[kept][::-1], left[:, kept][:, ::-1]
    vectors = (rows.T @ (left / np.sqrt(values)[None, :])).astype(problem.dtype)
    ridge = 2 * problem.strength * scaling**2
    ridges = (vectors.astype(np.float64) ** 2).T @ ridge + 1e-12
    missing = np.maximum((rows**2).sum(0) - vectors**2 @ values, 0).astype(np.float64)

    def rest(bend):
        inverse = 1 / np.maximum(bend * missing + ridge, 1e-8)
        return lambda right: right * inverse[None, :]

    vectors = (scaling[:, None] * vectors).astype(problem.dtype)
    return Spectrum(vectors, values.astype(np.float64), ridges, scaling, rest)


def spectral_metric(problem: Problem, spectrum: Spectrum, mean, curvature) -> Callable:
    """The Gram metric where the covariance was not formed."""
    inverse = 1 / (curvature * spectrum.variances + spectrum.ridges)

    def solve(turned, bias_gradient):
        return turned * inverse, bias_gradient / curvature

    return through_spectrum(problem, spectrum, mean, curvature, solve)


def through_spectrum(
    problem: Problem, spectrum: Spectrum, mean, curvature: float, solve: Callable
) -> Callable:
    """A metric that is known along the leading vectors; the Gram metric is left the rest.

    Args:
      mean: (D,), around which the rows were taken.
      curvature: of the Gram metric.
      solve: (K, q) gradient along the vectors, in the problem's dtype, and (K,) in the bias of
        centred rows -> the steps, of the same shapes.
    """
    rest = _outside(spectrum, curvature)

    def apply(gradient, bias_gradient):
        centred = gradient - np.outer(bias_gradient, mean)
        turned, bias_step = solve(centred.astype(problem.dtype) @ spectrum.vectors, bias_gradient)
        turned = turned.astype(problem.dtype)
        step = (turned @ spectrum.vectors.T).astype(np.float64) + rest(centred)
        if not problem.fit_intercept:
            return step, np.zeros_like(bias_gradient)
        return step, bias_step - step @ mean

    return apply


def _outside(spectrum: Spectrum, curvature) -> Callable:
    """The step outside the span of the leading vectors (orthonormal once unscaled)."""
    if spectrum.rest is None:
        return lambda centred: 0.0
    solve = spectrum.rest(curvature)
    vectors = spectrum.vectors / spectrum.scaling[:, None]

    def apply(centred):
        right = centred * spectrum.scaling
        right = right - (right @ vectors) @ vectors.T
        step = solve(right)
        return (step - (step @ vectors) @ vectors.T) * spectrum.scaling

    return apply


def two_level_metric(
    problem: Problem, spectrum: Spectrum, sample: Sample, bends: Bends
) -> Callable:
    """The Hessian of the sampled rows: dense on top, blocks below."""
    dtype, classes = problem.dtype, problem.classes
    rotated = _product(problem, sample.rows, spectrum.vectors)
    directions = rotated.shape[1]
    dense = max(min(directions, DENSE_SIDE // classes - 1), 0)
    top = np.concatenate([rotated[:, :dense], np.ones((len(rotated), 1), dtype)], axis=1)
    if dense:
        factor = _dense_factor(problem, top, spectrum.ridges[:dense], bends)
    mean_bend = np.maximum(bends.diagonal.sum(1, dtype=np.float64), 1e-12)
    inverses = _block_inverses(problem, rotated[:, dense:] ** 2, spectrum.ridges[dense:], bends)

    def solve(turned, bias_gradient):
        step, bias_step = np.empty_like(turned), bias_gradient / mean_bend
        if dense:
            right = np.concatenate([turned[:, :dense], bias_gradient[:, None].astype(dtype)], 1)
            solved = scipy.linalg.cho_solve((factor, True), right.ravel(), check_finite=False)
            solved = solved.reshape(classes, dense + 1)
            step[:, :dense], bias_step = solved[:, :-1], solved[:, -1].astype(np.float64)
        if inverses.ndim == 3:
            step[:, dense:] = np.einsum("jkl,lj->kj", inverses, turned[:, dense:])
        else:
            step[:, dense:] = inverses * turned[:, dense:]
        return step, bias_step

    return through_spectrum(problem, spectrum, sample.mean, float(mean_bend.mean()), solve)


def _block_inverses(problem, squares, ridges, bends: Bends):
    """Inverse curvature of each direction below the dense ones: (q, K, K), or (K, q)."""
    classes = problem.classes
    if classes > BLOCK_CLASSES:
        own = bends.diagonal - bends.pull[0] * bends.pull[1]
        return 1 / np.maximum(own @ squares + ridges[None, :], 1e-12)
    blocks = _product(problem, _hessian_weights(bends).reshape(classes * classes, -1), squares)
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


def _dense_factor(problem: Problem, top, ridges, bends: Bends):
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

    hessian = -_symmetric(xp, spread(bends.pull[0]), spread(bends.pull[1]))
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
