"""Softmax on few rows: Newton's method in NumPy, for fits that take milliseconds.

There a quasi-Newton method spends its time on calls, not on arithmetic, and a compilation takes
longer than a thousand fits. Each step solves the Newton system: exactly while the Hessian of all
classes is cheaper to factor than a few products with it are to make, else by conjugate gradients
until the residual is as small as the next step will need (Steihaug, 1983, doi:10.1137/0720042, and
Dembo, Eisenstat and Steihaug, 1982, doi:10.1137/0719025). They begin in the Gram metric; where
that has taken as long as it takes to factor the Hessian's diagonal blocks, a class each, they go on
in the metric of these, and the next steps begin in it while it serves.

Features are centred and scaled to unit curvature, so that those of any scale are alike, and the
bias is one more of them. A common shift of all classes changes no loss, so the classes sum to zero
from the first step on; two classes are then one vector.
"""

__all__ = ["minimize_small", "suits_small"]

from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from jaxlin.solvers.certificates import certify
from jaxlin.solvers.conjugate import conjugate_gradients
from jaxlin.solvers.duals import own_of
from jaxlin.solvers.problem import Problem, newton_suits
from jaxlin.solvers.smooth import minimize_smooth
from jaxlin.solvers.status import Fit, Status, improving, later, silent

DENSE_WORK = 4e6
"""Multiplications that the Hessian may take to be formed: some 1 ms."""
STEPS = 50
"""Newton steps after which it is another method's turn."""
PRODUCTS = 250
"""Conjugate gradient steps of one Newton step in either metric at most."""
OVERHEAD = 4.0
"""What a product with the Hessian costs for each row, class and feature, in multiplications of its
diagonal blocks: two products, and the shares between them."""
PATIENCE = 3
"""Steps in a row that may gain nothing: the arithmetic is at its end."""
ROUNDED = 1e-6
"""Of the tolerance: where even so small a gap is not proved, the proof sees only rounding."""
FAINT = 1e-25
"""Probabilities that bend nothing; products with them would be subnormal, which is slow."""


class _Space(NamedTuple):
    """The rows in the coordinates in which the steps are taken."""

    rows: np.ndarray
    """(N, q): centred, scaled, and with a free bias a last column of ones."""
    columns: np.ndarray
    """(q, N): the same, one feature after the other: scores from these take half as long."""
    own: np.ndarray
    """(K, N) boolean: the true class of every row."""
    ridges: np.ndarray
    """(q,): the penalty's second derivative."""
    scaling: np.ndarray
    """(D,)"""
    mean: np.ndarray
    """(D,)"""
    free: bool
    moment: np.ndarray | None
    """(q, q): the rows' second moment; `None` where the Hessian itself is formed."""
    narrow: tuple[np.ndarray, np.ndarray] | None
    """Rows and columns in float32, for products with the Hessian; `None` where there is no
    moment."""


class _Point(NamedTuple):
    coefficients: np.ndarray
    """(K, q)"""
    scores: np.ndarray
    """(K, N)"""
    value: float
    gradient: np.ndarray
    """(K, q)"""
    shares: np.ndarray
    """(K, N): the probabilities."""
    bends: np.ndarray
    """(K, N): p (1 - p), weighted, to relative precision also where p is nearly 1."""
    gap: float
    """About how far from the optimum: the duality gap, if the dual point were balanced."""


def suits_small(problem: Problem) -> bool:
    """Softmax with a penalty on few rows of few features, which NumPy holds."""
    shape = problem.rows.size, problem.features, problem.classes
    kind = problem.form, problem.strength, problem.l1_strength
    return problem.on_host and newton_suits(*kind, *shape)


def minimize_small(
    problem: Problem, weights, bias, report, carried=None, on_carried=silent, on_pass=silent
) -> Fit:
    """Minimize until the certified gap is below the tolerance, or the status says why not.

    The arguments are those of `jaxlin.solvers.smooth.minimize_smooth`, to which it leaves what
    Newton's method cannot finish; but nothing is carried: a fit of a second that was left begins
    again.
    """
    told = report if report is silent else improving(report)
    with np.errstate(over="ignore", invalid="ignore"):
        first, done = _newton(problem, weights, bias, told, on_pass)
    if first is None:  # numbers so large that their squares overflow
        return minimize_smooth(problem, weights, bias, report, on_pass=on_pass)
    if done or first.iterations >= problem.max_iterations:
        return first
    rest = problem._replace(max_iterations=problem.max_iterations - first.iterations)
    told = later(told, first)
    fit = minimize_smooth(rest, first.weights, first.bias, told, on_pass=on_pass)
    return fit.after(first)


def _newton(problem: Problem, weights, bias, report, on_pass) -> tuple[Fit | None, bool]:
    """The fit, or `None` if nothing finite came out; and whether it is final."""
    space = _opened(problem)
    point = _start(problem, space, weights, bias)
    evaluations, steps, stale, lower = 2.0, 0, 0, 0.0
    least, target = point.gap, 0.7 * problem.tolerance
    most, metric = min(problem.max_iterations, STEPS), None
    while True:
        if not np.isfinite(point.gap):
            return None, False
        if point.gap <= target * point.value or steps >= most or stale >= PATIENCE:
            parameters = _rounded(_parameters(space, point), problem.result_dtype)
            proof = certify(problem, *parameters, exact=True)
            evaluations, lower = evaluations + proof.evaluations, max(lower, proof.lower_bound)
            report(evaluations, proof.objective, lower)
            met = proof.objective - lower <= problem.tolerance * proof.objective
            unprovable = point.gap <= ROUNDED * problem.tolerance * point.value
            if met or unprovable or steps >= most or stale >= PATIENCE:
                break
            target = 0.1 * point.gap / point.value
        elif report is not silent:
            proof = certify(problem, *_parameters(space, point))
            evaluations, lower = evaluations + proof.evaluations, max(lower, proof.lower_bound)
            report(evaluations, point.value, lower)
        on_pass()
        along, products, metric = _direction(problem, space, point, target, metric)
        new = _step(problem, space, point, along)
        evaluations, steps = evaluations + products + 1, steps + 1
        gained = new.gap <= 0.5 * least or new.value < point.value * (1 - 8 * _EPS)
        least, stale = min(least, new.gap), 0 if gained else stale + 1
        point = new
    status = Status.PRECISION if unprovable else Status.MAX_ITERATIONS
    status = Status.CONVERGED if met else status
    norm = float(np.linalg.norm(proof.gradient))
    fit = Fit(parameters[0], proof.bias, lower, norm, steps, evaluations, status, proof)
    return fit, met or unprovable


_EPS = np.finfo(np.float64).eps


def _opened(problem: Problem) -> _Space:
    counts, free = problem.counts, problem.fit_intercept
    inputs = problem.rows.sample(slice(None))
    mean = counts @ inputs if free else np.zeros(problem.features)
    rows = np.ones((problem.rows.size, problem.features + free))
    np.subtract(inputs, mean, out=rows[:, : problem.features])
    variances = counts @ rows[:, : problem.features] ** 2
    scaling = 1 / np.sqrt(variances / problem.classes + 2 * problem.strength)
    rows[:, : problem.features] *= scaling
    ridges = np.append(2 * problem.strength * scaling**2, [0.0] * free)
    side = rows.shape[1] * (1 if problem.classes == 2 else problem.classes)
    formed = problem.rows.size * side**2 <= DENSE_WORK
    columns, second = np.ascontiguousarray(rows.T), (None, None)
    if not formed:
        narrow = rows.astype(np.float32), columns.astype(np.float32)
        second = (columns * counts) @ rows, narrow
    own = own_of(np, problem.labels, problem.classes)
    return _Space(rows, columns, own, ridges, scaling, mean, free, *second)


def _start(problem: Problem, space: _Space, weights, bias) -> _Point:
    """At parameters from which the mean over the classes was taken off."""
    weights, bias = weights - weights.mean(0), bias - bias.mean()
    coefficients = weights / space.scaling
    if space.free:
        coefficients = np.column_stack([coefficients, bias + weights @ space.mean])
    scores = coefficients @ space.columns
    return _point(problem, space, coefficients, scores, _loss(problem, space, scores))


def _parameters(space: _Space, point: _Point) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, D) and bias (K,)."""
    weights = point.coefficients[:, : len(space.scaling)] * space.scaling
    if not space.free:
        return weights, np.zeros(len(weights))
    return weights, point.coefficients[:, -1] - weights @ space.mean


def _rounded(parameters, dtype):
    """What is left of parameters in the dtype of the result, float64."""
    return tuple(part.astype(dtype).astype(np.float64) for part in parameters)


def _loss(problem: Problem, space: _Space, scores):
    """The weighted mean loss, and the derivatives of the losses in the scores, (K, N)."""
    losses, residuals = problem.form.loss_and_residuals(np, scores, space.own, problem.margin)
    return float(problem.counts @ losses), residuals


def _point(problem: Problem, space: _Space, coefficients, scores, loss) -> _Point:
    value, residuals = loss
    penalized = space.ridges * coefficients
    value += 0.5 * float(np.vdot(coefficients, penalized))
    gradient = (residuals * problem.counts) @ space.rows + penalized
    sizes = np.abs(residuals)  # p of a rival, 1 - p of the true class
    bends = sizes * (1 - sizes) * problem.counts
    plain = gradient[:, : len(space.scaling)] / space.scaling
    gap = float(np.vdot(plain, plain)) / (4 * problem.strength)
    if space.free:  # what a Newton step in the bias would gain, twice
        gap += float((gradient[:, -1] ** 2 / np.maximum(bends.sum(1), 1e-300)).sum())
    return _Point(coefficients, scores, value, gradient, residuals + space.own, bends, gap)


def _step(problem: Problem, space: _Space, point: _Point, along) -> _Point:
    """With Armijo's decrease, by halving: scores are affine along the step."""
    moved = along @ space.columns
    slope, length = float(np.vdot(point.gradient, along)), 1.0
    linear = float(np.vdot(space.ridges * point.coefficients, along))
    square = 0.5 * float(np.vdot(space.ridges * along, along))
    start = 0.5 * float(np.vdot(space.ridges * point.coefficients, point.coefficients))
    noise = 8 * _EPS * abs(point.value)
    while True:
        scores = point.scores + length * moved
        loss = _loss(problem, space, scores)
        value = loss[0] + start + length * linear + length**2 * square
        if value <= point.value + 1e-4 * length * slope + noise or length < 1e-6:
            return _point(problem, space, point.coefficients + length * along, scores, loss)
        length /= 2


def _direction(problem: Problem, space: _Space, point: _Point, target, metric):
    """The Newton step (K, q), how many passes over the rows it took, and the metric of blocks that
    it came to, or was given."""
    if space.moment is None:
        return _solved(problem, space, point), 1, None
    return _sought(problem, space, point, target, metric)


def _solved(problem: Problem, space: _Space, point: _Point) -> np.ndarray:
    """By factoring the Hessian."""
    classes, side = point.gradient.shape
    if classes == 2:  # steps are (-u, u): both rows of the system say the same
        hessian = 2 * (space.columns * point.bends[1]) @ space.rows
        step = _solver(hessian, space.ridges)(-point.gradient[1])
        return np.stack([-step, step])
    spread = (point.shares.T[:, :, None] * space.rows[:, None, :]).reshape(len(space.rows), -1)
    hessian = -(spread * problem.counts[:, None]).T @ spread
    bent = (point.bends[:, None, :] * space.columns).reshape(classes * side, -1)
    own = np.arange(classes)
    blocks = hessian.reshape(classes, side, classes, side)
    blocks[own, :, own, :] = (bent @ space.rows).reshape(classes, side, side)
    ridges = space.ridges.copy()
    if space.free:  # a common shift of all biases has no curvature of its own
        ridges[-1] = 1e-6 * hessian.trace() / len(hessian)
    step = _solver(hessian, np.tile(ridges, classes))(-point.gradient.ravel())
    return step.reshape(classes, side)


def _factor(system, ridges):
    """Of system + diag(ridges), positive definite but for rounding, which gets a little more."""
    diagonal = np.einsum("ii->i", system)  # a view
    plain = diagonal + ridges
    for more in 10.0 ** np.arange(-14, 1, 2):
        diagonal[:] = plain + more * plain.max()
        factor, failed = lapack.dpotrf(system)
        if not failed:
            break
    return factor


def _solver(system, ridges):
    factor = _factor(system, ridges)
    return lambda right: lapack.dpotrs(factor, right)[0]


def _sought(problem: Problem, space: _Space, point: _Point, target, metric):
    """By conjugate gradients, whose products need no more than float32."""
    (rows, columns), shape = space.narrow, point.gradient.shape
    rivals = np.where(space.own | (point.shares < FAINT), 0, point.shares).astype(rows.dtype)
    weighted = rivals * problem.counts.astype(rows.dtype)
    true = problem.labels * len(rows) + np.arange(len(rows))  # in scores (K, N) as they lie

    def product(step):
        step = step.reshape(shape)
        moved = step.astype(rows.dtype) @ columns
        moved -= moved.take(true)  # against the true class, whose share may be 1 but for rounding
        moved -= np.einsum("kn,kn->n", rivals, moved)
        moved *= weighted
        moved.ravel()[true] = -moved.sum(0)
        return (moved @ rows + space.ridges * step).ravel()

    enough = np.sqrt(0.3 * target * point.value / point.gap)  # gaps fall with residuals squared
    accuracy = max(np.clip(np.sqrt(point.gap / point.value), 1e-3, 0.1), min(enough, 0.5))
    right = -point.gradient.ravel()
    first = metric or _gram(space, point)
    step, count, done = conjugate_gradients(product, first, right, accuracy, _worth(space))
    if not done:
        metric = _blockwise(space, point)
        step, more, _ = conjugate_gradients(product, metric, right, accuracy, PRODUCTS, start=step)
        count += more
    return step[0].reshape(shape), count, metric


def _worth(space: _Space) -> int:
    """Products with the Hessian that take as long as to factor its diagonal blocks."""
    size, side = space.rows.shape
    return int(np.clip(side * (1 + side / size) / OVERHEAD, 3, PRODUCTS))


def _gram(space: _Space, point: _Point):
    """The inverse of the Hessian if all rows bent alike, on vectors (K q,)."""
    curvature = max(float(point.bends.sum()) / len(point.bends), 1e-12)
    solve = _solver(curvature * space.moment, space.ridges)
    return lambda residual: solve(residual.reshape(len(point.bends), -1).T).T.ravel()


def _blockwise(space: _Space, point: _Point):
    """The inverses of the Hessian's blocks of a class with itself, on vectors (K q,)."""
    rows, side = space.narrow[0], len(space.ridges)
    bends = np.where(point.bends < FAINT, 0, point.bends).astype(rows.dtype)
    inverses = np.empty((len(bends), side, side), bends.dtype)
    for inverse, roots in zip(inverses, np.sqrt(bends), strict=True):
        bent = rows * roots[:, None]
        upper = lapack.dpotri(_factor((bent.T @ bent).astype(np.float64), space.ridges))[0]
        inverse[:] = np.triu(upper) + np.triu(upper, 1).T

    def apply(residual):
        found = inverses @ residual.reshape(-1, side, 1).astype(inverses.dtype)
        found = found[:, :, 0].astype(np.float64)
        return (found - found.mean(0)).ravel()  # steps, as gradients, sum to zero over the classes

    return apply
