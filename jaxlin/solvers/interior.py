r"""Small problems with kinks: a primal-dual interior point method, indifferent to their scale.

The dual variables a stay strictly inside their set; their slacks s (of a >= 0) and xi (of a <= 1,
or of sum a <= 1) stay positive, and every product of a variable with its slack is driven to 0
together. Eliminating all of them leaves one system in W and b, whose Hessian is that of a smooth
loss: diag(d) - kappa d d^T in the scores of every row. Some 20 factorizations of K (D + 1)
unknowns solve problems on which first-order methods crawl.

Source: Mehrotra (1992, doi:10.1137/0802028); Nocedal and Wright (2006), section 16.6; the
elimination for the box follows Fine and Scheinberg (2001, JMLR 2).
"""

__all__ = ["minimize_small_hinge", "suits_interior"]

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg

from jaxlin.solvers.certificate import certify
from jaxlin.solvers.curvature import DENSE_SIDE, Bends, dense_blocks
from jaxlin.solvers.dual_losses import DualForm, own_of
from jaxlin.solvers.problem import Problem, penalty
from jaxlin.solvers.status import Fit, Status, silent

STEPS = 80
TRUSTED = 1e4
"""Smoothing of the certificate, in margins: so much that the dual variables stay what they are.
With less, small errors of the scores would move them, which features of a large scale magnify."""


ROUNDED = 1e-3
"""Of the tolerance: where even so small a gap is not proved, the proof sees only rounding."""


SLIGHT = 1e-13
"""A gap below it says nothing: slacks lie next to a margin of 1, and have its rounding."""
RIDGES = 0.0, 1e-14, 1e-12, 1e-10
"""Of the diagonal: what is added to it where rounding hides that the system is definite."""


class _Point(NamedTuple):
    weights: np.ndarray
    bias: np.ndarray
    a: np.ndarray
    """(K, N) dual variables."""
    s: np.ndarray
    """(K, N) slacks of a >= 0: xi - z."""
    xi: np.ndarray
    """(K, N) for a box or an orthant, (1, N) else: slacks of the upper limit, an upper bound on the
    loss; a / 2 or half the sum of a where there is no limit."""
    room: np.ndarray
    """1 - a for a box, (1, N) 1 - sum a for a simplex; none (ones) for the squared losses."""


def suits_interior(problem: Problem) -> bool:
    """Few unknowns, on the host, and a penalty that makes the system definite."""
    side = (problem.features + 1) * problem.classes
    few = side <= DENSE_SIDE and problem.rows.size * side**2 <= 3e9
    return problem.on_host and few and problem.strength > 0


def minimize_small_hinge(
    problem: Problem,
    report: Callable[[float, float, float], None],
    on_pass: Callable[[], None] = silent,
) -> tuple[Fit, bool]:
    """Minimize to a certified gap; and whether the fit is final.

    It is not if the arithmetic failed on the way. At the optimum by its own gap, with only rounding
    between it and a proof, it is, whatever other steps would do.

    `on_pass()` is called before each step; an exception that it raises ends the fit.
    """
    form, labels = problem.form, problem.host_labels
    own = own_of(np, labels, problem.classes)
    rows = np.asarray(problem.rows.sample(np.arange(problem.rows.size), np.float64))
    inside = ~own if form.geometry == "pairs" else np.ones_like(own)
    shape = _SHAPES[form.name]
    point = _start(problem, own, inside, rows, shape)
    best, lower, passes, norm = (np.inf, point.weights, point.bias), 0.0, 0.0, np.inf
    gap = np.inf

    def ended(status: Status) -> Fit:
        return Fit(best[1], best[2], lower, norm, iteration, passes, status)

    for iteration in range(min(STEPS, problem.max_iterations) + 1):
        on_pass()
        scores = point.weights @ rows.T + point.bias[:, None]
        z = form.shortfalls(np, scores, own, problem.margin)
        loss = float(problem.counts @ form.loss(np, z, own)) + penalty(problem, point.weights)
        passes += 1
        if not np.isfinite(loss):
            break
        if loss < best[0]:
            best = (loss, point.weights, point.bias)
        report(passes, best[0], lower)
        gap = float(problem.counts @ _complementarity(point[2:], inside, shape))
        if gap <= 0.3 * problem.tolerance * best[0] or iteration == problem.max_iterations:
            proof = certify(
                problem,
                point.weights,
                point.bias,
                smoothing=TRUSTED * problem.margin,
                anchor=point.a,
            )
            passes += proof.evaluations
            lower = max(lower, proof.lower_bound)
            if proof.objective < best[0]:
                best = (proof.objective, point.weights, proof.bias)
            report(passes, best[0], lower)
            if best[0] - lower <= problem.tolerance * best[0]:
                return ended(Status.CONVERGED), True
        if iteration == problem.max_iterations:
            return ended(Status.MAX_ITERATIONS), True
        if gap < 1e-15 * (1 + best[0]):
            break
        moved = _step(problem, point, own, inside, rows, shape, gap)
        if moved is None:
            break
        point, norm = moved
    return ended(Status.PRECISION), max(gap, SLIGHT) <= ROUNDED * problem.tolerance * best[0]


_SHAPES = {
    "hinge": "box",
    "one-vs-rest": "box",
    "crammer-singer": "simplex",
    "squared-crammer-singer": "squared",
    "squared-hinge": "orthant",
    "squared-one-vs-rest": "orthant",
}


def _start(
    problem: Problem, own: np.ndarray, inside: np.ndarray, rows: np.ndarray, shape: str
) -> _Point:
    """W = 0, duals in the middle, slacks a margin away from their bounds."""
    classes, size = own.shape
    weights, bias = np.zeros((classes, rows.shape[1])), np.zeros(classes)
    z = np.where(inside, problem.margin, 0.0)
    if shape == "box":
        a = np.where(inside, 0.5, 0.0)
        xi = np.full((classes, size), 2 * problem.margin)
        return _Point(weights, bias, a, xi - z, xi, np.where(inside, 0.5, 1.0))
    xi = np.full((1, size), 2 * problem.margin)
    if shape == "simplex":
        a = np.where(inside, 0.5 / (classes - 1), 0.0)
        return _Point(weights, bias, a, xi - z, xi, np.full((1, size), 0.5))
    if shape == "orthant":
        a = np.where(inside, 4.0 * problem.margin, 0.0)
        return _Point(weights, bias, a, a / 2 - z, a / 2, np.ones((1, size)))
    a = np.where(inside, 4.0 * problem.margin / max(classes - 1, 1), 0.0)
    return _Point(weights, bias, a, xi - z, xi, np.ones((1, size)))


def _step(
    problem: Problem,
    point: _Point,
    own: np.ndarray,
    inside: np.ndarray,
    rows: np.ndarray,
    shape: str,
    gap: float,
) -> tuple[_Point, float] | None:
    """Predictor, corrector, and as far along as every variable stays positive."""
    form, counts = problem.form, problem.counts
    bend = _eliminated(point, inside, shape)
    try:
        factor = _factor(problem, bend, _share(point, shape), own, rows)
    except np.linalg.LinAlgError:
        return None

    def solve(
        lower_target: np.ndarray | float, upper_target: np.ndarray | float
    ) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
        fixed = _fixed_part(point, bend, inside, shape, lower_target, upper_target)
        residuals = counts[None, :] * form.residuals(np, point.a + fixed, own)
        right = residuals @ rows + 2 * problem.strength * point.weights
        sums = residuals.sum(1) if problem.fit_intercept else np.zeros(len(right))
        flat = np.concatenate([right, sums[:, None]], axis=1).ravel()
        found = -scipy.linalg.cho_solve(factor, flat, check_finite=False)
        found = found.reshape(right.shape[0], -1)
        step, bias_step = found[:, :-1], found[:, -1]
        moved = step @ rows.T + bias_step[:, None]
        return (
            step,
            bias_step,
            _changes(
                point, bend, form, own, inside, shape, moved, fixed, lower_target, upper_target
            ),
        )

    count = inside.sum(0) + (point.xi.shape[0] if shape == "simplex" else 0)
    count = 2 * inside.sum(0) if shape == "box" else count
    mean = gap / max(float(counts @ count), 1e-300)
    _, _, ahead = solve(0.0, 0.0)
    reach = _longest(point, ahead, inside, shape)
    a, s, xi, room = (x + reach * dx for x, dx in zip(point[2:], ahead, strict=True))
    after = float(counts @ _complementarity((a, s, xi, room), inside, shape))
    target = mean * min(1.0, max(after / gap, 0.0)) ** 3
    step, bias_step, change = solve(target - ahead[1] * ahead[0], target - ahead[2] * ahead[3])
    length = min(1.0, 0.995 * _longest(point, change, inside, shape))
    a, s, xi, room = (x + length * dx for x, dx in zip(point[2:], change, strict=True))
    weights, bias = point.weights + length * step, point.bias + length * bias_step
    if length < 1e-10:
        return None
    # once rounding has hidden a slack, it stays just above 0
    tiny = 1e-300
    moved = _Point(
        weights,
        bias,
        np.where(inside, np.maximum(a, tiny), 0),
        np.maximum(s, tiny),
        np.maximum(xi, tiny),
        np.maximum(room, tiny),
    )
    return moved, float(np.sqrt((step**2).sum() + bias_step @ bias_step))


def _complementarity(
    variables: tuple[np.ndarray, ...], inside: np.ndarray, shape: str
) -> np.ndarray:
    """(N,): the sum of each variable times its slack, 0 at the optimum."""
    a, s, xi, room = variables
    below = (inside * s * a).sum(0)
    if shape in ("squared", "orthant"):
        return below
    return below + (inside * xi * room if shape == "box" else xi * room).sum(0)


def _eliminated(point: _Point, inside: np.ndarray, shape: str) -> tuple[np.ndarray, np.ndarray]:
    """d (K, N) and kappa (N,) of the system in W and b."""
    if shape == "box":
        d = inside / (point.xi / point.room + point.s / np.where(inside, point.a, 1))
        return d, np.zeros(d.shape[1])
    if shape == "orthant":
        return inside / (0.5 + point.s / np.where(inside, point.a, 1)), np.zeros(inside.shape[1])
    d = inside * point.a / point.s
    total = d.sum(0)
    if shape == "simplex":
        return d, point.xi[0] / (point.room[0] + point.xi[0] * total)
    return d, 1 / (2 + total)


def _share(point: _Point, shape: str) -> np.ndarray | None:
    """r (N,) such that kappa = 1 / (r + sum d); `None` where classes are not coupled."""
    if shape in ("box", "orthant"):
        return None
    return point.room[0] / point.xi[0] if shape == "simplex" else np.full(point.a.shape[1], 2.0)


def _fixed_part(
    point: _Point,
    bend: tuple[np.ndarray, np.ndarray],
    inside: np.ndarray,
    shape: str,
    lower_target: np.ndarray | float,
    upper_target: np.ndarray | float,
) -> np.ndarray:
    """The change of a at dz = 0, (K, N)."""
    d, kappa = bend
    safe = np.where(inside, point.a, 1)
    if shape == "box":
        return d * (point.xi - point.s + lower_target / safe - upper_target / point.room)
    if shape == "orthant":
        return d * (lower_target / safe - point.s)
    pulled = inside * (lower_target / point.s - point.a)
    if shape == "simplex":
        short = (upper_target - point.xi * point.room)[0] / point.xi[0]
        return pulled - d * (kappa * (short + pulled.sum(0)))[None, :]
    return pulled - d * (kappa * pulled.sum(0))[None, :]


def _changes(
    point: _Point,
    bend: tuple[np.ndarray, np.ndarray],
    form: DualForm,
    own: np.ndarray,
    inside: np.ndarray,
    shape: str,
    moved: np.ndarray,
    fixed: np.ndarray,
    lower_target: np.ndarray | float,
    upper_target: np.ndarray | float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Changes of a, s, xi and room for a change `moved` of the scores."""
    d, kappa = bend
    if form.geometry == "pairs":
        dz = moved - (moved * own).sum(0)[None, :]
    else:
        dz = np.where(own, -moved, moved)
    da = fixed + d * dz - d * (kappa * (d * dz).sum(0))[None, :]
    if shape == "box":
        safe = np.where(inside, point.a, 1)
        ds = np.where(inside, (lower_target - point.s * da) / safe - point.s, 0)
        return da, ds, np.where(inside, dz + ds, 0), -da
    if shape == "simplex":
        pulled = (inside * (lower_target / point.s - point.a)).sum(0) + (d * dz).sum(0)
        dxi = upper_target + point.xi * (pulled[None, :] - point.room)
        dxi = dxi / (point.room + point.xi * d.sum(0)[None, :])
        return da, np.where(inside, dxi - dz, 0), dxi, -da.sum(0)[None, :]
    dxi = da / 2 if shape == "orthant" else da.sum(0)[None, :] / 2
    return da, np.where(inside, dxi - dz, 0), dxi, np.zeros_like(dxi)


def _longest(
    point: _Point, change: tuple[np.ndarray, ...], inside: np.ndarray, shape: str
) -> float:
    """The longest step that keeps every variable nonnegative."""
    longest = np.inf
    there = inside if point.xi.shape == inside.shape else True
    masks = (inside, inside, there, inside if shape == "box" else True)
    for value, delta, mask in zip(point[2:], change, masks, strict=True):
        falling = (delta < 0) & mask
        if falling.any():
            longest = min(longest, float((value[falling] / -delta[falling]).min()))
    return min(longest, 1.0 / 0.995)


def _factor(
    problem: Problem,
    bend: tuple[np.ndarray, np.ndarray],
    room: np.ndarray | None,
    own: np.ndarray,
    rows: np.ndarray,
) -> tuple[np.ndarray, bool]:
    """Cholesky factor of the Hessian in (class, feature or bias)."""
    d, kappa = bend
    counts, classes = problem.counts, problem.classes
    top = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    if problem.form.geometry == "one-vs-rest":
        diagonal = d * counts[None, :]
        hessian = dense_blocks(np, top, Bends(diagonal, None, None))
    else:
        # diag(d) - kappa d d^T = free diag(d) + kappa (sum(d) diag(d) - d d^T), and the last
        # term's diagonal from the sums of the others: no digit is lost where one d is huge
        free = 1 - kappa * d.sum(0) if room is None else room / (room + d.sum(0))
        others = (1 - np.eye(classes)) @ d
        edges = d * (counts * free)[None, :]
        own_weights = edges + d * others * (counts * kappa)[None, :] + own * edges.sum(0)[None, :]
        pull = None if room is None else d * np.sqrt(counts * kappa)[None, :]
        bends = Bends(own_weights, pull, (own.astype(float), edges))
        hessian = dense_blocks(np, top, bends, own_weights)
    side = top.shape[1]
    ridge = np.full(side, 2 * problem.strength)
    biases = np.arange(classes) * side + side - 1
    ridge[-1] = 1e-13 * hessian[biases, biases].mean() if problem.fit_intercept else 1.0
    if not problem.fit_intercept:
        hessian[biases, :] = 0
        hessian[:, biases] = 0
    hessian[np.diag_indices_from(hessian)] += np.tile(ridge, classes)
    diagonal = np.diag(hessian).copy()
    if problem.form.geometry == "pairs":  # which do not see a common shift of all classes
        own, ones = np.arange(side), np.ones((classes, classes))
        shifts = ones[:, :, None] * diagonal.reshape(classes, side).mean(0) / classes
        blocks = hessian.reshape(classes, side, classes, side)
        blocks[:, own, :, own] += np.moveaxis(shifts, -1, 0)
    for more in RIDGES:  # features that are alike, with next to no penalty
        hessian[np.diag_indices_from(hessian)] += more * diagonal
        try:
            return scipy.linalg.cho_factor(hessian, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            pass
    raise np.linalg.LinAlgError
