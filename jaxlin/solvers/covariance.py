"""Rows drawn from the data, their covariance, and its leading directions.

In coordinates in which every feature has unit curvature, so that features of any scale are alike.
Of many features only the leading directions may be computed; `Spectrum.rest` solves for the others.
Of very many features the covariance is not formed, and of sparse rows no dense copy is made:
products with the rows do.
"""

__all__ = [
    "DENSE_FEATURES",
    "WIDE",
    "Sample",
    "SparseRows",
    "Spectrum",
    "cholesky_solver",
    "constant_features",
    "covariance_of",
    "factor_solver",
    "generalized_eigh",
    "product",
    "rows_at",
    "same_value",
    "sample_of",
    "second_moment",
    "spectrum_of",
    "stiffness",
    "suits_blas",
    "unit_system",
]

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse
from jax import Array
from jax.scipy.linalg import solve_triangular
from scipy.sparse.linalg import LinearOperator

from jaxlin.cpu_threads import all_blas_threads, blas_threads
from jaxlin.passes import arithmetic
from jaxlin.precision import exact, jit
from jaxlin.solvers.dual_losses import AnyArray, ArrayModule
from jaxlin.solvers.problem import Problem

Solver = Callable[[AnyArray], AnyArray]
"""Right sides (K, D) of a system -> their solutions."""

DENSE_FEATURES = 4500
"""Features up to which the covariance is formed at all."""
LARGE = 5e8
"""Multiplications of a second moment that are worth a second thread."""
ROUNDINGS = 8
"""Units of rounding by which the values of a feature may differ that is one number, computed."""
WIDE = 100
"""Directions that are sought at most where the covariance is not formed."""
SWEEPS, WIDE_SWEEPS = 5, 2
"""Of the block power iteration, with a covariance and without."""
FIRST = 64
"""Rows that tell nearly all features apart from a constant."""


class Sample(NamedTuple):
    """Rows drawn from the data, centred."""

    indices: np.ndarray
    rows: "np.ndarray | SparseRows"
    """(m, D) - mean, in the problem's dtype; 0 in features that are constant but for rounding."""
    weights: np.ndarray
    """(m,), summing to about one: what each drawn row stands for."""
    mean: Any
    """(D,); zero without intercept."""

    def variances(self) -> np.ndarray:
        """(D,): the weighted squares of the rows."""
        if isinstance(self.rows, SparseRows):
            rows, mean = self.rows.rows, self.rows.mean
            squares = self.weights @ rows.power(2) - 2 * mean * (self.weights @ rows)
            return np.maximum(squares + mean**2 * self.weights.sum(), 0)
        return np.einsum("m,md->d", self.weights, self.rows.astype(np.float64) ** 2)


def rows_at(problem: Problem, indices: np.ndarray) -> Any:
    """These rows (m, D), a sparse matrix where the inputs are one."""
    sparse = problem.rows.sparse_sample(indices, problem.dtype) if problem.on_host else None
    return problem.rows.sample(indices, problem.dtype) if sparse is None else sparse


def sample_of(
    problem: Problem, indices: np.ndarray, weights: np.ndarray, mean: np.ndarray | None = None
) -> Sample:
    """The sample of these rows; `mean` is theirs where it is not given."""
    rows = rows_at(problem, indices)
    if mean is None:
        mean = np.zeros(problem.features)
        if problem.fit_intercept:
            mean = (weights @ rows / weights.sum()).astype(np.float64)
    alike: Any = constant_features(rows, problem.center) if problem.fit_intercept else []
    if scipy.sparse.issparse(rows):
        varying = np.ones(problem.features)
        varying[alike] = 0
        rows.data *= varying[rows.indices]
        return Sample(indices, SparseRows(rows, mean * varying), weights, mean)
    rows = rows - mean.astype(problem.dtype)[None, :]
    rows[:, alike] = 0
    return Sample(indices, rows, weights, mean)


class SparseRows(LinearOperator):
    """The rows of a sparse matrix less one row, their mean."""

    def __init__(self, rows: scipy.sparse.csr_array, mean: np.ndarray) -> None:
        super().__init__(rows.dtype, rows.shape)
        self.rows, self.mean = rows, mean

    def _matmat(self, right: np.ndarray) -> np.ndarray:
        return self.rows @ right - self.mean @ right

    def _rmatmat(self, left: np.ndarray) -> np.ndarray:
        return self.rows.T @ left - np.outer(self.mean, left.sum(0))

    def __getitem__(self, some: np.ndarray) -> "SparseRows":
        return SparseRows(self.rows[some], self.mean)

    def toarray(self) -> np.ndarray:
        """(m, D)."""
        return self.rows.toarray() - self.mean


def _dense(rows: np.ndarray | SparseRows) -> np.ndarray:
    return rows.toarray() if isinstance(rows, SparseRows) else rows


def covariance_of(problem: Problem, sample: Sample) -> np.ndarray:
    """Weighted second moment of the sample, (D, D)."""
    root = np.sqrt(np.maximum(sample.weights, 0)).astype(problem.dtype)
    rows = _dense(sample.rows) * root[:, None]
    if suits_blas(problem):
        return second_moment(np, rows)
    with arithmetic(problem.dtype):
        return np.asarray(_second_moment(rows))


def constant_features(rows: Any, center: np.ndarray) -> np.ndarray:
    """The indices of features whose values, (m, D) + center, differ by their rounding at most.

    Of these the bias knows all. What centering leaves of them is rounding: where the penalty is
    next to nothing, it would be taken for a signal to be magnified without end.
    """
    some = np.flatnonzero(_alike(rows[:FIRST], center))
    return some[_alike(rows[:, some], center[some])] if len(some) else some


def _alike(rows: Any, center: np.ndarray) -> np.ndarray:
    least, most = rows.min(0), rows.max(0)
    if scipy.sparse.issparse(rows):
        least, most = (part.toarray().ravel() for part in (least, most))
    return same_value(np, least, most, center)


def same_value(
    xp: ArrayModule, least: AnyArray, most: AnyArray, center: AnyArray = 0.0
) -> AnyArray:
    """Whether numbers of floating type, least <= most, are one but for rounding, with `center`."""
    sizes = xp.maximum(xp.abs(least), xp.abs(most)) + xp.abs(center)
    return most - least <= ROUNDINGS * xp.finfo(least.dtype).eps * sizes


def stiffness(
    problem: Problem, sample: Sample, variances: np.ndarray, curvature: float
) -> np.ndarray:
    """(D,): the penalty's second derivative, and more where only rounding is left beside it.

    The gradient of a constant feature is `mean` times that of the bias, but for rounding. Stiff as
    if it varied by all of its mean, it all but ignores that.
    """
    least = curvature * (sample.mean + problem.center) ** 2
    return 2 * problem.strength + np.where(variances > 0, 0.0, least)


def suits_blas(problem: Problem) -> bool:
    """Whether BLAS makes second moments sooner than XLA: half the work, but on its own threads."""
    return problem.on_host or (problem.rows.device.platform == "cpu" and blas_threads() > 1)


def second_moment(xp: ArrayModule, rows: AnyArray) -> AnyArray:
    """rows^T rows, of (m, q): BLAS makes one half of it, XLA five eighths, strip by strip."""
    if xp is np:
        if rows.size * rows.shape[1] < LARGE:
            return rows.T @ rows
        with all_blas_threads():
            return rows.T @ rows
    edges = np.linspace(0, rows.shape[1], 5).astype(int)
    strips = [
        xp.pad(rows[:, start:stop].T @ rows[:, start:], ((0, 0), (start, 0)))
        for start, stop in pairwise(edges)
    ]
    upper = xp.triu(xp.concatenate(strips))
    return upper + xp.triu(upper, 1).T


@jit
def _second_moment(rows: Array) -> Array:
    return second_moment(jnp, rows)


def product(problem: Problem, left: Any, right: np.ndarray) -> np.ndarray:
    """By XLA unless the problem is small: BLAS loses its threads on a busy machine."""
    if problem.on_host:
        return left @ right
    with arithmetic(problem.dtype):
        return np.asarray(exact(jnp.matmul)(left, right))


class Spectrum(NamedTuple):
    """Directions in which covariance and penalty are (nearly) diagonal, steepest first."""

    vectors: np.ndarray
    """(D, q), in unit-curvature coordinates: W = (U vectors^T) * scaling; orthonormal if there is a
    rest."""
    variances: np.ndarray
    """(q,)"""
    ridges: np.ndarray
    """(q,): the penalty's second derivative, at least the rounding of the factorization."""
    scaling: np.ndarray
    """(D,): W = (W in unit-curvature coordinates) * scaling."""
    rest: Callable[[float], Solver] | None
    """curvature -> solver of (K, D) right sides, in unit-curvature coordinates, for what the
    vectors do not span; `None` if they span everything."""

    def of_rows(self, problem: Problem, rows: np.ndarray | SparseRows, some: slice) -> np.ndarray:
        """What rows (m, D) have of some of the directions, (m, q)."""
        scaled = (self.scaling[:, None] * self.vectors[:, some]).astype(problem.dtype)
        return product(problem, rows, scaled)


def unit_system(
    covariance: np.ndarray, stiff: np.ndarray, curvature: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """curvature * C + diag(stiff) with unit diagonal; its scaling; its ridge, rounding included.

    `stiff`, (D,), is that of `jaxlin.solvers.covariance.stiffness`. Where it and C are 0 the rows
    know nothing of a feature, and the ridge is one.
    """
    diagonal = curvature * np.diag(covariance).astype(np.float64) + stiff
    stiff = np.where(diagonal > 0, stiff, 1.0)
    diagonal = np.where(diagonal > 0, diagonal, 1.0)
    scaling = 1 / np.sqrt(diagonal)
    left, right = ((scaling * c).astype(covariance.dtype) for c in (curvature, 1.0))
    system = covariance * left[:, None]
    system *= right[None, :]
    ridge = stiff * scaling**2 + len(scaling) * 4 * np.finfo(covariance.dtype).eps
    system[np.diag_indices_from(system)] += ridge
    return system, scaling, ridge


def cholesky_solver(system: np.ndarray, xp: ArrayModule = np) -> Solver:
    """Overwrites the (symmetric) system; its transpose is laid out as LAPACK wants it.

    Right sides are rows, arrays (m, D) of the array module.
    """
    factor, _ = scipy.linalg.cho_factor(system.T, lower=True, overwrite_a=True, check_finite=False)
    return factor_solver(factor, xp)


def factor_solver(factor: np.ndarray, xp: ArrayModule) -> Solver:
    """Of the system whose lower Cholesky factor this is: (m, D) -> (m, D), float64."""
    lower, solve_with = xp.asarray(factor), _scipy_of(xp).cho_solve

    def solve(right: AnyArray) -> AnyArray:
        found = solve_with((lower, True), right.astype(lower.dtype).T, check_finite=False)
        return found.T.astype(np.float64)

    return solve


def _scipy_of(xp: ArrayModule) -> Any:
    return scipy.linalg if xp is np else jax.scipy.linalg


def spectrum_of(
    problem: Problem, sample: Sample, covariance: np.ndarray | None, curvature: float, most: int
) -> Spectrum:
    """Directions e of C u = e (curvature C + 2 strength) u: all, or the leading ones if D is large.

    Args:
      covariance: (D, D), or `None` with so many features that it was not formed.
      most: how many are wanted; of fewer than all, a quarter at most is computed.
    """
    if covariance is None:
        return _spectrum_of_rows(problem, sample, curvature, min(most, WIDE))
    stiff = stiffness(problem, sample, np.diag(covariance), curvature)
    system, scaling, ridge = unit_system(covariance, stiff, curvature)
    if most >= problem.features:
        scaled = (covariance * scaling[:, None] * scaling[None, :]).astype(system.dtype)
        values, vectors = _eigh(problem, scaled, system)
        values, vectors = values[::-1].astype(np.float64), vectors[:, ::-1]
        values = np.clip(values, 0, 1 / curvature)
        ridges, vectors = _along(vectors, ridge), vectors.astype(problem.dtype)
        return Spectrum(np.ascontiguousarray(vectors), values, ridges, scaling, None)
    count = max(min(most, problem.features // 4), 1)
    vectors, values = _leading_vectors(
        lambda vectors: product(problem, system, vectors), len(system), count, system.dtype, SWEEPS
    )
    values = np.maximum(values - float(ridge.min()), 0)
    ridges = _along(vectors, ridge)

    def rest(bend: float) -> Solver:
        changed = system * system.dtype.type(bend / curvature)
        changed[np.diag_indices_from(changed)] += ridge * (1 - bend / curvature)
        return cholesky_solver(changed, problem.vectors)

    return Spectrum(vectors.astype(problem.dtype), values / curvature, ridges, scaling, rest)


def _eigh(
    problem: Problem, covariance: np.ndarray, system: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`generalized_eigh` where the rows are; by LAPACK if that is a CPU.

    In the dtype of the arithmetic on either: a preconditioner need not be exact, what it is off by
    the steps correct, and the ridge of the system is above its rounding. Not by a TPU: how long its
    compiler takes for it is not known.
    """
    if not problem.on_host and problem.rows.device.platform not in ("cpu", "tpu"):
        with arithmetic(problem.dtype):
            values, vectors = map(np.asarray, generalized_eigh(covariance, system))
        if np.isfinite(values).all() and np.isfinite(vectors).all():
            return values, vectors
    with all_blas_threads() if suits_blas(problem) else nullcontext():
        return scipy.linalg.eigh(covariance, system, check_finite=False, driver="gvd")


@jit
def generalized_eigh(matrix: Array, system: Array) -> tuple[Array, Array]:
    """Values e, ascending, and vectors u, in columns: matrix u = e system u and u^T system u = 1.

    As LAPACK's sygvd does it, by the Cholesky factor of the system; NaN where it has none.

    Args:
      matrix: (D, D), symmetric.
      system: (D, D), symmetric and positive definite.

    >>> values, vectors = generalized_eigh(jnp.diag(jnp.array([1.0, 8.0])), 2 * jnp.eye(2))
    >>> values.round(3).tolist(), jnp.abs(vectors).round(3).tolist()
    ([0.5, 4.0], [[0.707, 0.0], [0.0, 0.707]])
    """
    factor = jnp.linalg.cholesky(system)
    half = solve_triangular(factor, matrix, lower=True)
    values, turned = jnp.linalg.eigh(solve_triangular(factor, half.T, lower=True))
    return values, solve_triangular(factor, turned, lower=True, trans="T")


def _along(vectors: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """The ridge of features along each direction: a sum of squares, which keeps its digits where
    what the variance leaves of a unit curvature, the same on paper, is all rounding."""
    return (vectors.astype(np.float64) ** 2).T @ ridge


def _leading_vectors(
    image_of: Callable[[np.ndarray], np.ndarray],
    size: int,
    count: int,
    dtype: np.dtype,
    sweeps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Block power iteration: the leading eigenvectors (size, count), and values, of a matrix.

    Args:
      image_of: the matrix times (size, count).
    """
    draws = np.random.default_rng(0).normal(size=(size, count)).astype(dtype)
    vectors = np.linalg.qr(draws)[0]
    for _ in range(sweeps):
        vectors = np.linalg.qr(image_of(vectors))[0]
    values, turn = np.linalg.eigh(vectors.T @ image_of(vectors))
    return vectors @ turn[:, ::-1].astype(dtype), values[::-1].astype(np.float64)


def _spectrum_of_rows(problem: Problem, sample: Sample, curvature: float, most: int) -> Spectrum:
    """Leading directions of the rows' second moment, which is not formed; the rest is diagonal."""
    variances, dtype = sample.variances(), problem.dtype
    stiff = stiffness(problem, sample, variances, curvature)
    diagonal = curvature * variances + stiff
    stiff = np.where(diagonal > 0, stiff, 1.0)
    scaling = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    units, weights = (part.astype(dtype)[:, None] for part in (scaling, sample.weights))

    def moment(vectors: np.ndarray) -> np.ndarray:
        turned = weights * product(problem, sample.rows, units * vectors)
        return units * product(problem, sample.rows.T, turned)

    count = max(min(most, problem.features // 4, len(sample.indices)), 1)
    vectors, values = _leading_vectors(moment, problem.features, count, dtype, WIDE_SWEEPS)
    values, ridge = np.maximum(values, 0), stiff * scaling**2
    missing = np.maximum(variances * scaling**2 - vectors.astype(np.float64) ** 2 @ values, 0)

    def rest(bend: float) -> Solver:
        inverse = problem.vectors.asarray(1 / np.maximum(bend * missing + ridge, 1e-8))
        return lambda right: right * inverse[None, :]

    return Spectrum(vectors, values, _along(vectors, ridge) + 1e-12, scaling, rest)
