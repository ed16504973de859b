r"""Metrics: what distance means to a quasi-Newton method, so that its steps fit the data.

Image pixels are strongly correlated, and the objective's curvature spans many orders of
magnitude. A metric is an approximate inverse Hessian. All are built from a sample of rows, around
the sample's mean (the weights of centred inputs hardly move the bias), and in coordinates in
which every feature has unit curvature, so that features of any scale are alike.

`gram_metric` assumes that all rows bend alike, as they do at W = 0: curvature * C + 2 strength on
every class, with C the covariance. `two_level_metric` follows the iterate: rows are drawn by how
much they bend, and the Hessian is dense on the leading directions of the covariance (all classes
and the bias together), and one K x K block, or its diagonal, on each of the others.
"""

__all__ = ["Metric", "Sample", "draw_rows", "gram_metric", "spectrum_of", "two_level_metric"]

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from jaxlin.solvers.duals import own_of
from jaxlin.solvers.problem import Problem

DENSE_SIDE = 1100
"""Unknowns of the dense block of `two_level_metric`: its Cholesky factor takes about 20 ms."""
FULL_SPECTRUM = 1200
"""Features up to which the covariance's eigenvectors are all computed."""

Metric = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(gradient in W, gradient in b) -> minus the step (W, b)."""


class Sample(NamedTuple):
    """Rows drawn from the data, centred."""

    indices: np.ndarray
    rows: Any
    """(m, D) - mean, in the problem's dtype."""
    weights: np.ndarray
    """(m,), summing to about one: what each drawn row stands for."""
    mean: np.ndarray
    """(D,); zero without intercept."""


class Spectrum(NamedTuple):
    """Directions in which covariance and ridge are both diagonal, steepest first."""

    vectors: np.ndarray
    """(D, q): W = U vectors^T."""
    variances: np.ndarray
    """(q,)"""
    ridges: np.ndarray
    """(q,): the penalty's second derivative, at least the rounding of the factorization."""


def draw_rows(problem: Problem, size: int, *, seed=0, probabilities=None, mean=None) -> Sample:
    """All rows if there are at most `size`, else `size` drawn with the given probabilities."""
    counts = problem.counts
    if size >= len(counts):
        indices, weights = np.arange(len(counts)), counts
    else:
        chances = counts if probabilities is None else probabilities
        generator = np.random.default_rng(seed)
        indices = np.sort(generator.choice(len(counts), size, p=chances))
        weights = counts[indices] / (size * chances[indices])
    dtype = problem.dtype
    rows = problem.rows.sample(indices, dtype)
    if mean is None:
        mean = np.zeros(problem.features)
        if problem.fit_intercept:
            mean = weights.astype(dtype) @ rows / weights.sum()
    return Sample(indices, rows - mean.astype(dtype)[None, :], weights, mean.astype(np.float64))


def covariance_of(problem: Problem, sample: Sample) -> np.ndarray:
    """Weighted second moment of the sample, (D, D), by XLA unless the problem is small."""
    root = np.sqrt(np.maximum(sample.weights, 0)).astype(problem.dtype)
    rows = sample.rows * root[:, None]
    if problem.on_host:
        return rows.T @ rows
    with jax.enable_x64(problem.dtype == np.float64 or jax.config.jax_enable_x64):
        return np.asarray(_self_product(jnp.asarray(rows)))


@jax.jit
def _self_product(rows):
    return rows.T @ rows


def _scaled(covariance, strength, curvature):
    """Unit-diagonal system curvature * C + 2 strength, its scaling, and its rounding as a ridge."""
    diagonal = curvature * np.diag(covariance).astype(np.float64) + 2 * strength
    diagonal = np.where(diagonal > 0, diagonal, 1.0)
    scaling = 1 / np.sqrt(diagonal)
    system = curvature * (covariance * scaling[:, None] * scaling[None, :])
    ridge = 2 * strength * scaling**2 + len(scaling) * 4 * np.finfo(covariance.dtype).eps
    system[np.diag_indices_from(system)] += ridge
    return system.astype(covariance.dtype), scaling, ridge


def gram_metric(problem: Problem, covariance, mean, curvature) -> Metric:
    """The inverse of curvature * C + 2 strength on every class, and of `curvature` on the bias."""
    system, scaling, _ = _scaled(covariance, problem.strength, curvature)
    factor = scipy.linalg.cholesky(system, lower=True, overwrite_a=True, check_finite=False)

    def apply(gradient, bias_gradient):
        centred = (gradient - np.outer(bias_gradient, mean)) * scaling
        solved = scipy.linalg.cho_solve(
            (factor, True), centred.T.astype(factor.dtype), check_finite=False
        )
        step = solved.T.astype(np.float64) * scaling
        if not problem.fit_intercept:
            return step, np.zeros_like(bias_gradient)
        return step, bias_gradient / curvature - step @ mean

    return apply


def spectrum_of(problem: Problem, covariance, curvature) -> Spectrum:
    """Solve C u = e (curvature C + 2 strength) u, all directions."""
    system, scaling, ridge = _scaled(covariance, problem.strength, curvature)
    scaled = covariance * scaling[:, None] * scaling[None, :]
    values, vectors = scipy.linalg.eigh(
        scaled.astype(system.dtype), system, check_finite=False, driver="gvd"
    )
    values, vectors = values[::-1], vectors[:, ::-1]
    values = np.clip(values, 0, 1 / curvature).astype(np.float64)
    ridges = np.maximum(1 - curvature * values, float(ridge.min()))
    vectors = np.ascontiguousarray(scaling[:, None] * vectors.astype(np.float64))
    return Spectrum(vectors.astype(problem.dtype), values, ridges)


def two_level_metric(
    problem: Problem, spectrum: Spectrum, sample: Sample, scores, *, smoothing=1.0, anchor=0.0
) -> Metric:
    """The Hessian of the sampled rows at their `scores` (K, m): dense on top, blocks below."""
    dtype, classes = problem.dtype, problem.classes
    diagonal, pull, edges = _bends(problem, sample, scores, smoothing, anchor)
    rotated = sample.rows @ spectrum.vectors
    directions = rotated.shape[1]
    dense = min(directions, DENSE_SIDE // classes - 1)
    dense = dense if dense > 0 else 0
    top = np.concatenate([rotated[:, :dense], np.ones((len(rotated), 1), dtype)], axis=1)
    coupled = dense > 0
    if coupled:
        factor = _dense_factor(problem, top, spectrum.ridges[:dense], diagonal, pull, edges)
    squares = rotated[:, dense:] ** 2
    rest = spectrum.ridges[dense:]
    mean_bend = np.maximum(diagonal.sum(1).astype(np.float64), 1e-12)
    if classes <= 24 and directions > dense:
        blocks = _hessian_weights(diagonal, pull, edges).reshape(classes * classes, -1)
        blocks = (blocks @ squares).T.reshape(-1, classes, classes).astype(np.float64)
        blocks += rest[:, None, None] * np.eye(classes)[None]
        inverses = np.linalg.inv(blocks)
    else:
        own = diagonal - pull[0] * pull[1]
        inverses = 1 / np.maximum(own @ squares + rest[None, :], 1e-12)

    def apply(gradient, bias_gradient):
        turned = (gradient - np.outer(bias_gradient, sample.mean)).astype(dtype) @ spectrum.vectors
        step = np.empty_like(turned)
        bias_step = bias_gradient / mean_bend
        if coupled:
            right = np.concatenate([turned[:, :dense], bias_gradient[:, None].astype(dtype)], 1)
            solved = scipy.linalg.cho_solve((factor, True), right.ravel(), check_finite=False)
            solved = solved.reshape(classes, dense + 1)
            step[:, :dense], bias_step = solved[:, :-1], solved[:, -1].astype(np.float64)
        if inverses.ndim == 3:
            step[:, dense:] = np.einsum("jkl,lj->kj", inverses, turned[:, dense:])
        else:
            step[:, dense:] = inverses * turned[:, dense:]
        step = (step @ spectrum.vectors.T).astype(np.float64)
        if not problem.fit_intercept:
            return step, np.zeros_like(bias_gradient)
        return step, bias_step - step @ sample.mean

    return apply


def _bends(problem: Problem, sample: Sample, scores, smoothing, anchor):
    """Second derivatives of the sampled rows in their scores, times the rows' weights.

    Returns (K, m) diagonals; the rank-one part as (q, weight * kappa * q); and for pairs the edges
    (own, d) that couple the true class to its rivals, else `None`.
    """
    form, dtype = problem.form, problem.dtype
    labels = np.asarray(problem.labels)[sample.indices]
    own = own_of(np, labels, problem.classes)
    z = form.shortfalls(np, np.asarray(scores, dtype), own, problem.margin)
    a = form.maximizer(np, z, smoothing, anchor)
    bend = form.bend(np, a, smoothing)
    q = form.pull(np, bend, own).astype(dtype)
    weights = sample.weights.astype(dtype)
    pull = (q, q * (weights * bend.kappa)[None, :].astype(dtype))
    diagonal = (bend.diagonal * weights[None, :]).astype(dtype)
    if form.geometry != "pairs":
        return diagonal, pull, None
    edges = (own.astype(dtype), diagonal)
    return diagonal + own * diagonal.sum(0)[None, :], pull, edges


def _hessian_weights(diagonal, pull, edges):
    """(K, K, m): the weight of each row in each block."""
    weights = -pull[0][:, None, :] * pull[1][None, :, :]
    classes = len(diagonal)
    weights[np.arange(classes), np.arange(classes)] += diagonal
    if edges is not None:
        cross = edges[0][:, None, :] * edges[1][None, :, :]
        weights -= cross + np.swapaxes(cross, 0, 1)
    return weights


def _dense_factor(problem: Problem, top, ridges, diagonal, pull, edges):
    """Cholesky factor of the Hessian over (class, leading direction or bias)."""
    classes, side, dtype = problem.classes, top.shape[1], problem.dtype
    hessian = np.zeros((classes, side, classes, side), dtype)
    for k in range(classes):
        for j in range(k + 1):
            weight = -pull[0][k] * pull[1][j]
            if k == j:
                weight = weight + diagonal[k]
            elif edges is not None:
                weight = weight - edges[0][k] * edges[1][j] - edges[0][j] * edges[1][k]
            block = (top * weight[:, None]).T @ top
            hessian[k, :, j, :] = block
            hessian[j, :, k, :] = block.T
    hessian = hessian.reshape(classes * side, classes * side)
    # a common shift of all biases does not change softmax: give it some curvature
    free = np.trace(hessian) / len(hessian) * 1e-6 + 1e-12
    ridge = np.tile(np.append(ridges, free), classes).astype(dtype)
    if not problem.fit_intercept:
        ridge[side - 1 :: side] += 1.0
    hessian[np.diag_indices_from(hessian)] += ridge
    for _ in range(8):
        try:
            return scipy.linalg.cholesky(hessian, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            hessian[np.diag_indices_from(hessian)] += 10 * np.finfo(dtype).eps * np.trace(hessian)
    raise FloatingPointError("The Hessian is not positive definite even with a large ridge.")
