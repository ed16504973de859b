"""Softmax on few rows: Newton's method in NumPy, for fits that take milliseconds.

There a quasi-Newton method spends its time on calls, not on arithmetic, and a compilation takes
longer than a thousand fits. Each step solves the Newton system: exactly while the Hessian of all
classes is cheaper to factor than a few products with it are to make, else by conjugate gradients
until the residual is as small as the next step will need (Steihaug, 1983, doi:10.1137/0720042, and
Dembo, Eisenstat and Steihaug, 1982, doi:10.1137/0719025). They begin in the Gram preconditioner;
where that has taken as long as it takes to factor the Hessian's diagonal blocks, a class each, they
go on with these, and the next steps begin with them while they serve.

Features are centred and scaled to unit curvature, so that those of any scale are alike, and the
bias is one more of them. A common shift of all classes changes no loss, so the classes sum to zero
from the first step on; two classes are then one vector. Rows lie in a block for each thread: two
cores fit 20,000 rows of 100 features and 10 classes in two thirds of the time of one.
"""

__all__ = [
    "Block",
    "Space",
    "coefficients_of",
    "minimize_small",
    "open_space",
    "parameters_of",
    "small_parts",
    "suits_small",
]

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import lapack

from jaxlin.cpu_threads import parts_of, sharing
from jaxlin.solvers.certificate import certify
from jaxlin.solvers.covariance import constant_features
from jaxlin.solvers.dual_losses import own_of
from jaxlin.solvers.krylov import conjugate_gradients, within
from jaxlin.solvers.problem import Problem, newton_suits, rounded
from jaxlin.solvers.smooth import minimize_smooth
from jaxlin.solvers.status import Fit, Status, improving, later, silent

DENSE_WORK = 4e6
"""Multiplications that the Hessian may take to be formed: some 1 ms."""


class Block(NamedTuple):
    """Some rows, one feature after the other: scores from these take half as long."""

    columns: np.ndarray
    """(q, R): centred, scaled, and with a free bias ones at the end."""
    narrow: np.ndarray | None
    """The same in float32, for products with the Hessian; `None` where that is formed."""
    own: np.ndarray
    """(K, R) boolean: the true class of every row."""
    true: np.ndarray
    """(R,): the places of the true classes in scores (K, R) as they lie."""
    counts: np.ndarray
    """(R,)"""


class Space(NamedTuple):
    """Features centred and scaled to unit curvature, and the bias as one more of them."""

    blocks: list[Block]
    each: Callable
    """`map`, or the same by threads."""
    ridges: np.ndarray
    """(q,): the penalty's second derivative."""
    scaling: np.ndarray
    """(D,)"""
    mean: np.ndarray
    """(D,)"""
    free: bool
    moment: np.ndarray | None
    """(q, q): the rows' second moment; `None` where the Hessian itself is formed."""


def small_parts(problem: Problem) -> list[slice]:
    """The rows of each block."""
    return parts_of(problem.rows.size, 8 * (problem.features + 1 + problem.classes))


def open_space(problem: Problem, each: Callable = map) -> Space:
    """The rows of a problem in NumPy, in blocks."""
    counts, free, classes = problem.counts, problem.fit_intercept, problem.classes
    inputs, parts = problem.rows.sample(slice(None)), small_parts(problem)
    mean = counts @ inputs if free else np.zeros(problem.features)
    variances = sum(each(lambda part: counts[part] @ (inputs[part] - mean) ** 2, parts))
    alike: Any = constant_features(inputs, problem.center) if free else []
    variances[alike] = 0
    scaling = 1 / np.sqrt(variances / classes + 2 * problem.strength)
    ridges = np.append(2 * problem.strength * scaling**2, [0.0] * free)
    side = len(ridges) * (1 if classes == 2 else classes)
    formed = problem.rows.size * side**2 <= DENSE_WORK

    def block_of(part: Any) -> Block:
        size = part.stop - part.start
        columns = np.ones((len(ridges), size))
        np.multiply((inputs[part] - mean).T, scaling[:, None], out=columns[: len(scaling)])
        columns[alike] = 0
        labels = problem.labels[part]
        true = labels * size + np.arange(size)
        narrow = None if formed else columns.astype(np.float32)
        return Block(columns, narrow, own_of(np, labels, classes), true, counts[part])

    blocks = list(each(block_of, parts))
    moment: Any = None
    if not formed:
        moment = sum(each(lambda block: (block.columns * block.counts) @ block.columns.T, blocks))
    return Space(blocks, each, ridges, scaling, mean, free, moment)


def coefficients_of(space: Space, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(K, q), from weights (K, D) and bias (K,)."""
    coefficients = weights / space.scaling
    if not space.free:
        return coefficients
    return np.column_stack([coefficients, bias + weights @ space.mean])


def parameters_of(space: Space, coefficients: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, D) and bias (K,), from coefficients (K, q)."""
    weights = coefficients[:, : len(space.scaling)] * space.scaling
    if not space.free:
        return weights, np.zeros(len(weights))
    return weights, coefficients[:, -1] - weights @ space.mean


STEPS = 50
"""Newton steps after which it is another method's turn."""
PRODUCTS = 250
"""Conjugate gradient steps of one Newton step in either preconditioner at most."""
OVERHEAD = 4.0
"""What a product with the Hessian costs for each row, class and feature, in multiplications of its
diagonal blocks: two products, and the shares between them."""
PATIENCE = 3
"""Steps in a row that may gain nothing: the arithmetic is at its end."""
ROUNDED = 1e-6
"""Of the tolerance: where even so small a gap is not proved, the proof sees only rounding."""
FAINT = 1e-25
"""Probabilities that bend nothing; products with them would be subnormal, which is slow."""


class _Point(NamedTuple):
    """Where a fit is; what belongs to rows, (K, R), is a list with an array for each block."""

    coefficients: np.ndarray
    """(K, q)"""
    scores: list[np.ndarray]
    value: float
    gradient: np.ndarray
    """(K, q)"""
    shares: list[np.ndarray]
    """The probabilities."""
    bends: list[np.ndarray]
    """p (1 - p), weighted, to relative precision also where p is nearly 1."""
    bent: np.ndarray
    """(K,): the sums of these."""
    gap: float
    """About how far from the optimum: the duality gap, if the dual point were balanced."""


def suits_small(problem: Problem) -> bool:
    """Softmax with a penalty on few rows of few features, which NumPy holds."""
    shape = problem.rows.size, problem.features, problem.classes
    kind = problem.form, problem.strength, problem.l1_strength
    return problem.on_host and newton_suits(*kind, *shape)


def minimize_small(
    problem: Problem,
    weights: np.ndarray,
    bias: np.ndarray,
    report: Callable[..., Any],
    carried: Any = None,
    on_carried: Callable[..., Any] = silent,
    on_pass: Callable[..., Any] = silent,
) -> Fit:
    """Minimize until the certified gap is below the tolerance, or the status says why not.

    The arguments are those of `jaxlin.solvers.smooth.minimize_smooth`, to which it leaves what
    Newton's method cannot finish; but nothing is carried: a fit of a second that was left begins
    again.
    """
    told = report if report is silent else improving(report)
    with sharing(len(small_parts(problem))) as each, np.errstate(over="ignore", invalid="ignore"):
        first, done = _newton(problem, open_space(problem, each), weights, bias, told, on_pass)
    if first is None:  # numbers so large that their squares overflow
        return minimize_smooth(problem, weights, bias, report, on_pass=on_pass)
    if done or first.iterations >= problem.max_iterations:
        return first
    rest = problem._replace(max_iterations=problem.max_iterations - first.iterations)
    told = later(told, first)
    fit = minimize_smooth(rest, first.weights, first.bias, told, on_pass=on_pass)
    return fit.after(first)


def _newton(
    problem: Problem,
    space: Space,
    weights: np.ndarray,
    bias: np.ndarray,
    report: Callable[..., Any],
    on_pass: Callable[..., Any],
) -> tuple[Fit | None, bool]:
    """The fit, or `None` if nothing finite came out; and whether it is final."""
    point = _start(problem, space, weights, bias)
    evaluations, steps, stale, lower = 2.0, 0, 0, 0.0
    seen = 0.0  # the greatest bound proved for who watches, of which the fit takes no notice
    least, target = point.gap, 0.7 * problem.tolerance
    most, preconditioner = min(problem.max_iterations, STEPS), None
    while True:
        if not np.isfinite(point.gap):
            return None, False
        if point.gap <= target * point.value or steps >= most or stale >= PATIENCE:
            parameters = rounded(problem, *parameters_of(space, point.coefficients))
            proof = certify(problem, *parameters, exact=True)
            evaluations, lower = evaluations + proof.evaluations, max(lower, proof.lower_bound)
            report(evaluations, proof.objective, max(lower, seen))
            met = proof.objective - lower <= problem.tolerance * proof.objective
            unprovable = point.gap <= ROUNDED * problem.tolerance * point.value
            if met or unprovable or steps >= most or stale >= PATIENCE:
                break
            target = 0.1 * point.gap / point.value
        elif report is not silent:
            proof = certify(problem, *parameters_of(space, point.coefficients))
            seen = max(seen, proof.lower_bound)
            report(evaluations, point.value, seen)
        on_pass()
        along, products, preconditioner = _direction(problem, space, point, target, preconditioner)
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


def _start(problem: Problem, space: Space, weights: np.ndarray, bias: np.ndarray) -> _Point:
    """At parameters from which the mean over the classes was taken off."""
    coefficients = coefficients_of(space, weights - weights.mean(0), bias - bias.mean())
    scores = _scores(space, coefficients)
    return _point(problem, space, coefficients, scores, _loss(problem, space, scores))


def _scores(space: Space, coefficients: Any) -> list[np.ndarray]:
    return list(space.each(lambda block: coefficients @ block.columns, space.blocks))


def _loss(problem: Problem, space: Space, scores: Any) -> tuple[float, Any]:
    """The weighted mean loss, and the derivatives of the losses in the scores."""

    def of(block: Any, scores: Any) -> Any:
        losses, residuals = problem.form.loss_and_residuals(np, scores, block.own, problem.margin)
        return float(block.counts @ losses), residuals

    values, residuals = zip(*space.each(of, space.blocks, scores), strict=True)
    return sum(values), residuals


def _point(problem: Problem, space: Space, coefficients: Any, scores: Any, loss: Any) -> _Point:
    value, residuals = loss
    penalized = space.ridges * coefficients
    value += 0.5 * float(np.vdot(coefficients, penalized))

    def of(block: Any, residuals: Any) -> Any:
        sizes = np.abs(residuals)  # p of a rival, 1 - p of the true class
        bends = sizes * (1 - sizes) * block.counts
        product = (residuals * block.counts) @ block.columns.T
        return product, residuals + block.own, bends, bends.sum(1)

    products, shares, bends, bent = zip(*space.each(of, space.blocks, residuals), strict=True)
    gradient, bent = sum(products) + penalized, sum(bent)
    plain = gradient[:, : len(space.scaling)] / space.scaling
    gap = float(np.vdot(plain, plain)) / (4 * problem.strength)
    if space.free:  # what a Newton step in the bias would gain, twice
        gap += float((gradient[:, -1] ** 2 / np.maximum(bent, 1e-300)).sum())
    by_row = list(shares), list(bends)
    return _Point(coefficients, scores, value, gradient, *by_row, bent, gap)


def _step(problem: Problem, space: Space, point: _Point, along: Any) -> _Point:
    """With Armijo's decrease, by halving: scores are affine along the step."""
    moved = _scores(space, along)
    slope, length = float(np.vdot(point.gradient, along)), 1.0
    linear = float(np.vdot(space.ridges * point.coefficients, along))
    square = 0.5 * float(np.vdot(space.ridges * along, along))
    start = 0.5 * float(np.vdot(space.ridges * point.coefficients, point.coefficients))
    noise = 8 * _EPS * abs(point.value)
    while True:
        scores = [at + length * step for at, step in zip(point.scores, moved, strict=True)]
        loss = _loss(problem, space, scores)
        value = loss[0] + start + length * linear + length**2 * square
        if value <= point.value + 1e-4 * length * slope + noise or length < 1e-6:
            return _point(problem, space, point.coefficients + length * along, scores, loss)
        length /= 2


def _direction(
    problem: Problem, space: Space, point: _Point, target: float, preconditioner: Any
) -> Any:
    """The Newton step (K, q), how many passes over the rows it took, and the preconditioner of
    blocks that it came to, or was given."""
    if space.moment is None:
        return _solved(space, point), 1, None
    return _sought(space, point, target, preconditioner)


def _solved(space: Space, point: _Point) -> np.ndarray:
    """By factoring the Hessian."""
    classes, side = point.gradient.shape
    if classes == 2:  # steps are (-u, u): both rows of the system say the same

        def halved(block: Any, bends: Any) -> np.ndarray:
            return 2 * (block.columns * bends[1]) @ block.columns.T

        hessian = sum(space.each(halved, space.blocks, point.bends))
        step = _solver(hessian, space.ridges)(-point.gradient[1])
        return np.stack([-step, step])
    own = np.arange(classes)

    def whole(block: Any, shares: Any, bends: Any) -> Any:
        spread = (shares[:, None, :] * block.columns).reshape(classes * side, -1)
        bent = (bends[:, None, :] * block.columns).reshape(classes * side, -1)
        hessian = -(spread * block.counts) @ spread.T
        blocks = hessian.reshape(classes, side, classes, side)
        blocks[own, :, own, :] = (bent @ block.columns.T).reshape(classes, side, side)
        return hessian

    hessian = sum(space.each(whole, space.blocks, point.shares, point.bends))
    ridges = space.ridges.copy()
    if space.free:  # a common shift of all biases has no curvature of its own
        ridges[-1] = 1e-6 * hessian.trace() / len(hessian)
    step = _solver(hessian, np.tile(ridges, classes))(-point.gradient.ravel())
    return step.reshape(classes, side)


def _factor(system: np.ndarray, ridges: np.ndarray) -> np.ndarray:
    """Of system + diag(ridges), positive definite but for rounding, which gets a little more."""
    diagonal = np.einsum("ii->i", system)  # a view
    plain = diagonal + ridges
    for more in 10.0 ** np.arange(-14, 1, 2):
        diagonal[:] = plain + more * plain.max()
        factor, failed = lapack.dpotrf(system)
        if not failed:
            break
    return factor


def _solver(system: np.ndarray, ridges: np.ndarray) -> Callable:
    factor = _factor(system, ridges)
    return lambda right: lapack.dpotrs(factor, right)[0]


def _sought(space: Space, point: _Point, target: float, preconditioner: Any) -> Any:
    """By conjugate gradients, whose products need no more than float32."""
    shape = point.gradient.shape

    def rivals_of(block: Any, shares: Any) -> Any:
        rivals = np.where(block.own | (shares < FAINT), 0, shares).astype(np.float32)
        return rivals, rivals * block.counts.astype(np.float32)

    rivals, weighted = zip(*space.each(rivals_of, space.blocks, point.shares), strict=True)

    def product(step: Any) -> np.ndarray:
        step = step.reshape(shape)
        narrow = step.astype(np.float32)

        def moved_back(block: Any, rivals: Any, weighted: Any) -> np.ndarray:
            moved = narrow @ block.narrow
            moved -= moved.take(block.true)  # whose share may be 1 but for rounding
            moved -= np.einsum("kn,kn->n", rivals, moved)
            moved *= weighted
            moved.ravel()[block.true] = -moved.sum(0)
            return (block.narrow @ moved.T).T

        found = sum(space.each(moved_back, space.blocks, rivals, weighted))
        return (found + space.ridges * step).ravel()

    enough = np.sqrt(0.3 * target * point.value / point.gap)  # gaps fall with residuals squared
    accuracy = max(np.clip(np.sqrt(point.gap / point.value), 1e-3, 0.1), min(enough, 0.5))
    right = -point.gradient.ravel()
    enough = within(right, accuracy)

    def solve(preconditioner: Any, most: int, start: Any = None) -> Any:
        return conjugate_gradients(np, product, preconditioner, right, enough, most, start=start)

    step, left, count, done = solve(preconditioner or _gram(space, point), _worth(space))
    if not done:
        preconditioner = _blockwise(space, point)
        step, _, more, _ = solve(preconditioner, PRODUCTS, (step, left))
        count += more
    return step.reshape(shape), count, preconditioner


def _worth(space: Space) -> int:
    """Products with the Hessian that take as long as to factor its diagonal blocks."""
    size, side = sum(len(block.counts) for block in space.blocks), len(space.ridges)
    return int(np.clip(side * (1 + side / size) / OVERHEAD, 3, PRODUCTS))


def _gram(space: Space, point: _Point) -> Callable:
    """The inverse of the Hessian if all rows bent alike, on vectors (K q,)."""
    curvature = max(float(point.bent.sum()) / len(point.bent), 1e-12)
    assert space.moment is not None  # the Hessian itself is not formed
    solve = _solver(curvature * space.moment, space.ridges)
    return lambda residual: solve(residual.reshape(len(point.bent), -1).T).T.ravel()


def _blockwise(space: Space, point: _Point) -> Callable:
    """The inverses of the Hessian's blocks of a class with itself, on vectors (K q,)."""

    def grams(block: Any, bends: Any) -> np.ndarray:
        roots = np.sqrt(np.where(bends < FAINT, 0, bends)).astype(block.narrow.dtype)
        bent = (block.narrow * root for root in roots)
        return np.stack([rows @ rows.T for rows in bent])

    systems = sum(space.each(grams, space.blocks, point.bends))
    inverses = np.empty_like(systems)
    for inverse, system in zip(inverses, systems.astype(np.float64), strict=True):
        upper = lapack.dpotri(_factor(system, space.ridges))[0]
        inverse[:] = np.triu(upper) + np.triu(upper, 1).T

    def apply(residual: np.ndarray) -> np.ndarray:
        found = inverses @ residual.reshape(*inverses.shape[:2], 1).astype(inverses.dtype)
        found = found[:, :, 0].astype(np.float64)
        return (found - found.mean(0)).ravel()  # steps, as gradients, sum to zero over the classes

    return apply
