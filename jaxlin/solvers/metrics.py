r"""Metrics: what distance means to a quasi-Newton method, so that its steps fit the data.

Image pixels are strongly correlated, and the objective's curvature spans many orders of
magnitude. A metric is an approximate inverse Hessian, (gradient in W, in b) -> (W, b); leading axes
batch. All are built from a sample of rows, around the sample's mean (the weights of centred inputs
hardly move the bias), in coordinates in which every feature has unit curvature, so that features of
any scale are alike.

`gram_metric` assumes that all rows bend alike, as they do at W = 0: curvature * C + 2 strength on
every class, with C the covariance. `two_level_metric` follows the iterate: rows are drawn by how
much they bend, and the Hessian is dense on the leading directions of the covariance (all classes
and the bias together), and one K x K block on each of the others. With many features only the
leading directions are computed at first, and the rest is left to the Gram metric. With many classes
the metric that follows the iterate is that of `jaxlin.solvers.class_blocks`.
"""

__all__ = [
    "SpectralMetric",
    "flat",
    "gram_metric",
    "spectral_metric",
    "through_spectrum",
    "two_level_metric",
]

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg

from jaxlin.solvers.covariance import Sample, product, stiffness
from jaxlin.solvers.hessian_blocks import DENSE_SIDE, Bends, block_inverses, dense_factor
from jaxlin.solvers.problem import Problem
from jaxlin.solvers.spectrum import Spectrum, cholesky_solver, unit_system

BELOW_ROWS = 3000
"""Rows from which the small blocks below are made: they are means of squares, which need fewer than
the dense block on top (Fashion-MNIST takes the same passes from 1,000 on)."""


def flat(operator: Callable, shape: tuple[int, int]) -> Callable:
    """A metric, or a product, of weights and bias as one of vectors: weights row by row, bias.

    Of a metric the vectors may be several, (..., n).
    """

    def apply(vectors):
        batch = vectors.shape[:-1]
        weights, bias = np.split(vectors, [shape[0] * shape[1]], axis=-1)
        found = operator(weights.reshape(*batch, *shape), bias)
        return np.concatenate([found[0].reshape(*batch, -1), found[1]], axis=-1)

    return apply


def gram_metric(problem: Problem, covariance, sample: Sample, curvature) -> Callable:
    """The inverse of curvature * C + 2 strength on every class, and of `curvature` on the bias."""
    stiff, mean = stiffness(problem, sample, np.diag(covariance), curvature), sample.mean
    system, scaling, _ = unit_system(covariance, stiff, curvature)
    solve = cholesky_solver(system)

    def apply(gradient, bias_gradient):
        step = solve((gradient - bias_gradient[..., None] * mean) * scaling) * scaling
        if not problem.fit_intercept:
            return step, np.zeros_like(bias_gradient)
        return step, bias_gradient / curvature - step @ mean

    return apply


def spectral_metric(problem: Problem, spectrum: Spectrum, mean, curvature) -> Callable:
    """The Gram metric where the covariance was not formed."""
    inverse = 1 / (curvature * spectrum.variances + spectrum.ridges)

    def solve(turned, bias_gradient):
        return turned * inverse, bias_gradient / curvature

    return through_spectrum(problem, spectrum, mean, curvature, solve)


class SpectralMetric(NamedTuple):
    """A metric that is known along the vectors of a spectrum, and may be another outside them."""

    spectrum: Spectrum
    mean: np.ndarray
    """(D,), around which the rows were taken."""
    solve: Callable
    """(..., K, q) gradient along the vectors, in their dtype, and (..., K) in the bias of centred
    rows -> the steps, of the same shapes."""
    rest: Callable
    """(..., K, D) gradient -> the step outside the span of the vectors."""
    fit_intercept: bool

    def __call__(self, gradient, bias_gradient):
        vectors = self.spectrum.vectors
        centred = gradient - bias_gradient[..., None] * self.mean
        # one product for all of a batch: NumPy would make one for each
        turned = centred.reshape(-1, len(self.mean)).astype(vectors.dtype) @ vectors
        turned, bias_step = self.solve(turned.reshape(*centred.shape[:-1], -1), bias_gradient)
        back = turned.reshape(-1, turned.shape[-1]).astype(vectors.dtype) @ vectors.T
        step = back.reshape(centred.shape).astype(np.float64) + self.rest(centred)
        if not self.fit_intercept:
            return step, np.zeros_like(bias_gradient)
        return step, bias_step - step @ self.mean


def through_spectrum(
    problem: Problem, spectrum: Spectrum, mean, curvature: float, solve: Callable
) -> SpectralMetric:
    """A metric that is known along the leading vectors; the Gram metric is left the rest.

    Args:
      mean, solve: as `SpectralMetric` has them.
      curvature: of the Gram metric.
    """
    rest = _outside(spectrum, curvature)
    return SpectralMetric(spectrum, mean, solve, rest, problem.fit_intercept)


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
    directions = spectrum.vectors.shape[1]
    dense = max(min(directions, DENSE_SIDE // classes - 1), 0)
    if dense:
        leading = product(problem, sample.rows, spectrum.vectors[:, :dense])
        top = np.concatenate([leading, np.ones((len(leading), 1), dtype)], axis=1)
        factor = dense_factor(problem, top, spectrum.ridges[:dense], bends)
    mean_bend = np.maximum(bends.diagonal.sum(1, dtype=np.float64), 1e-12)
    rows, some = sample.rows, slice(None)
    if len(rows) > BELOW_ROWS:
        some = np.random.default_rng(0).permutation(len(rows))[:BELOW_ROWS]
    below = product(problem, rows[some], spectrum.vectors[:, dense:])
    squares = below**2 * dtype.type(len(rows) / len(below))
    inverses = block_inverses(problem, squares, spectrum.ridges[dense:], bends.of_rows(some))

    def solve(turned, bias_gradient):
        step, bias_step = np.empty_like(turned), bias_gradient / mean_bend
        if dense:
            ends = bias_gradient[..., None].astype(dtype)
            right = np.concatenate([turned[..., :dense], ends], axis=-1)
            flat = right.reshape(-1, classes * (dense + 1)).T
            solved = scipy.linalg.cho_solve((factor, True), flat, check_finite=False)
            solved = solved.T.reshape(right.shape)
            step[..., :dense], bias_step = solved[..., :-1], solved[..., -1].astype(np.float64)
        step[..., dense:] = np.einsum("jkl,...lj->...kj", inverses, turned[..., dense:])
        return step, bias_step

    return through_spectrum(problem, spectrum, sample.mean, float(mean_bend.mean()), solve)
