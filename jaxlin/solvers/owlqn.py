r"""Lasso and elastic net: smooth loss + strength |W|^2 + l1_strength |W|_1.

Inside one orthant (every weight keeps its sign, or stays 0) the objective is smooth. Each step is
a quasi-Newton step for the weights that are free to move, projected back onto the orthant, as in
Andrew and Gao (2007, doi:10.1145/1273496.1273501); where it fails, a proximal gradient step, which
always decreases the objective. The preconditioner is the diagonal of the Hessian of a sample, or,
once few weights are free, their whole Hessian.
"""

__all__ = ["L1Fit", "minimize_proximal"]

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse

from jaxlin.solvers.certificate import certify
from jaxlin.solvers.covariance import rows_at
from jaxlin.solvers.curvature import DENSE_SIDE, Bends, bends_of, fits_dense, weights_between
from jaxlin.solvers.history import (
    History,
    empty_history,
    forgotten,
    own_copy,
    pushed,
    step_from,
)
from jaxlin.solvers.mean_loss import mean_loss
from jaxlin.solvers.problem import Problem, penalty, same_fit
from jaxlin.solvers.refresh import PreconditionerBuilder
from jaxlin.solvers.status import Fit, Status, silent

Trial = tuple[np.ndarray, float, np.ndarray, float]
"""Where a step led: the point, its objective, the gradient of the loss, the length."""


class L1Fit(NamedTuple):
    """Between two steps with an l1 term, float64, over the classes that occur; n = K * D + K."""

    point: np.ndarray
    """(n,)"""
    gradient: np.ndarray
    """(n,), of the loss."""
    best: np.ndarray
    """(n,)"""
    history: History
    built: np.ndarray
    """(n,): where the preconditioner was built."""
    free: np.ndarray
    """(K * D,) 0 or 1: the weights that were free there."""
    numbers: np.ndarray
    """(10,): objective, its least, lower bound, the gap at which the next is due; evaluations,
    steps, failures, steps in this preconditioner; 1 once evaluations are in float64; damping."""


def minimize_proximal(
    problem: Problem,
    weights: np.ndarray,
    bias: np.ndarray,
    report: Callable[[float, float, float], None],
    carried: L1Fit | None = None,
    on_carried: Callable[[float, Callable[[], L1Fit]], None] = silent,
    on_pass: Callable[[], None] = silent,
) -> Fit:
    """Minimize until the certified gap is below the tolerance, or the status says why not.

    The arguments are those of `jaxlin.solvers.smooth.minimize_smooth`.
    """
    classes, features = weights.shape
    split, l1 = weights.size, problem.l1_strength
    evaluations, precision = 0.0, problem.dtype

    def unpack(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return point[:split].reshape(classes, features), point[split:]

    def evaluate(point: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal evaluations
        evaluations += 1
        on_pass()
        w, b = unpack(point)
        value, gradient, sums = mean_loss(problem, w, b, precision)
        data = np.concatenate([gradient.ravel(), sums])
        return value + penalty(problem, w), data

    status, preconditioner = (
        Status.MAX_ITERATIONS,
        _Preconditioner(problem, PreconditionerBuilder(problem)),
    )
    ridge = np.concatenate([np.full(split, 2 * problem.strength), np.zeros(classes)])
    if carried is None:
        point = np.concatenate([np.asarray(weights, np.float64).ravel(), bias]).astype(np.float64)
        value, data = evaluate(point)
        preconditioner.rebuild(point, np.zeros(split, bool))
        history, best = empty_history(point.size), (value, point)
        lower, promise, iterations, failures, since = 0.0, np.inf, 0, 0, 0
    else:
        carried = own_copy(same_fit(carried, L1Fit, problem))
        point, data, best_point, history, built, free, numbers = carried
        preconditioner.rebuild(built, free != 0)
        value, least, lower, promise, evaluations, *counts, wide, damping = numbers.tolist()
        best, (iterations, failures, since) = (least, best_point), map(int, counts)
        precision, preconditioner.damping = np.dtype(np.float64) if wide else precision, damping

    def make() -> L1Fit:
        counts = iterations, failures, since
        wide = precision == np.float64
        numbers = (
            value,
            best[0],
            lower,
            promise,
            evaluations,
            *counts,
            wide,
            preconditioner.damping,
        )
        learned = history, *preconditioner.built, np.array(numbers, np.float64)
        return own_copy(L1Fit(point, data, best[1], *learned))

    while True:
        on_carried(evaluations, make)
        smooth = data + ridge * point
        gap = value - _estimated_bound(problem, value, point, data, split)
        report(evaluations, best[0], lower)
        if gap <= 0.8 * problem.tolerance * value and gap <= 0.7 * promise:
            promise = gap
            proof = certify(problem, *unpack(point))
            evaluations += proof.evaluations
            lower = max(lower, proof.lower_bound)
            if proof.objective < best[0] or precision != np.float64:
                best = (proof.objective, np.concatenate([point[:split], proof.bias]))
            report(evaluations, best[0], lower)
            if best[0] - lower <= problem.tolerance * best[0]:
                status = Status.CONVERGED
                break
        if iterations >= problem.max_iterations:
            break
        pseudo = _steepest(point, smooth, split, l1)
        free = (point[:split] != 0) | (pseudo[:split] != 0)
        if since >= (1 if preconditioner.cheap else 10):
            preconditioner.rebuild(point, free)
            history, since = forgotten(history, 0), 0
        step = _free_step(preconditioner, history, point, pseudo, free, split)
        noise = 8 * np.finfo(precision).eps * abs(value)
        there = _along_orthant(evaluate, point, value, pseudo, step, split, noise)
        preconditioner.learn(0 if there is None else there[3])
        if there is None:
            history = forgotten(history, 0)
            there = _proximal_step(evaluate, point, value, smooth, preconditioner, split, l1, noise)
        iterations, since = iterations + 1, since + 1
        if there is None or there[1] > value - 0.1 * noise:
            failures += 1
            if precision != np.float64:
                precision, failures = np.dtype(np.float64), 0
                value, data = evaluate(point)
                best = (value, point)
                continue
            if there is None or failures > 5:
                status = Status.PRECISION
                break
        else:
            failures = 0
        moved, found, its_data, _ = there
        history = pushed(history, moved - point, its_data - data + ridge * (moved - point))
        point, value, data = moved, found, its_data
        if value < best[0]:
            best = (value, point)
    if status != Status.CONVERGED:
        proof = certify(problem, *unpack(best[1]))
        evaluations += proof.evaluations
        lower = max(lower, proof.lower_bound)
        best = (proof.objective, np.concatenate([best[1][:split], proof.bias]))
        if best[0] - lower <= problem.tolerance * best[0]:
            status = Status.CONVERGED
    norm = float(np.linalg.norm(_steepest(point, data + ridge * point, split, l1)))
    return Fit(*unpack(best[1]), lower, norm, iterations, evaluations, status)


def _free_step(
    preconditioner: "_Preconditioner",
    history: History,
    point: np.ndarray,
    pseudo: np.ndarray,
    free: np.ndarray,
    split: int,
) -> np.ndarray:
    """The step of the free weights. Zeros that would leave against their slope stay zero."""
    for _ in range(4):
        mask = _padded(free, len(point) - split)
        preconditioner.restrict(mask)
        step = np.where(mask, step_from(history, preconditioner, np.where(mask, pseudo, 0)), 0)
        wrong = (point[:split] == 0) & (step[:split] * pseudo[:split] > 0)
        if not wrong.any():
            break
        free = free & ~wrong
    step[:split] = np.where(wrong, 0, step[:split])
    return step


def _padded(free: np.ndarray, classes: int) -> np.ndarray:
    return np.concatenate([free, np.ones(classes, bool)])


def _steepest(point: np.ndarray, smooth: np.ndarray, split: int, l1: float) -> np.ndarray:
    """The subgradient of least norm: its negative is the steepest descent direction."""
    slope, at = smooth[:split], point[:split]
    pseudo = smooth.copy()
    shrunk = np.sign(slope) * np.maximum(np.abs(slope) - l1, 0)
    pseudo[:split] = np.where(at != 0, slope + l1 * np.sign(at), shrunk)
    return pseudo


def _estimated_bound(
    problem: Problem, value: float, point: np.ndarray, data: np.ndarray, split: int
) -> float:
    """Fenchel's bound by the identity gain = loss - r . s at a maximizer, in working precision."""
    strength, l1 = problem.strength, problem.l1_strength
    loss = value - penalty(problem, point[:split])
    gain = loss - data @ point
    if strength == 0:
        largest = np.abs(data[:split]).max()
        return gain * min(1.0, l1 / largest) if largest > 0 else gain
    return gain - float((np.maximum(np.abs(data[:split]) - l1, 0) ** 2).sum()) / (4 * strength)


def _along_orthant(
    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]],
    point: np.ndarray,
    value: float,
    pseudo: np.ndarray,
    step: np.ndarray,
    split: int,
    noise: float,
    trials: int = 12,
) -> Trial | None:
    """Halve the step, projected onto the orthant of `point`, until the objective decreases."""
    signs = np.where(point[:split] != 0, np.sign(point[:split]), -np.sign(pseudo[:split]))
    length = 1.0
    for _ in range(trials):
        there = point + length * step
        there[:split] = np.where(there[:split] * signs > 0, there[:split], 0)
        change = pseudo @ (there - point)
        if change >= 0:
            return None
        found, data = evaluate(there)
        if found <= value + 1e-4 * change + noise:
            return there, found, data, length
        length *= 0.4
    return None


def _proximal_step(
    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]],
    point: np.ndarray,
    value: float,
    smooth: np.ndarray,
    preconditioner: "_Preconditioner",
    split: int,
    l1: float,
    noise: float,
    trials: int = 30,
) -> Trial | None:
    """Gradient step and soft threshold, coordinate by coordinate in the diagonal preconditioner."""
    length = 1.0
    for _ in range(trials):
        rates = length * preconditioner.rates
        there = point - rates * smooth
        moved = there[:split]
        there[:split] = np.sign(moved) * np.maximum(np.abs(moved) - l1 * rates[:split], 0)
        change = there - point
        if not change.any():
            return None
        found, data = evaluate(there)
        model = (change**2 / np.maximum(rates, 1e-300)).sum()
        if found <= value - 1e-4 * model + noise:
            return there, found, data, length
        length *= 0.5
    return None


class _Preconditioner:
    """Diagonal everywhere; the dense inverse Hessian of the free weights when they are few."""

    rates: np.ndarray  # of `rebuild`, as are the two below
    built: tuple[np.ndarray, np.ndarray]
    _places: np.ndarray
    _kept: np.ndarray  # of `restrict`
    _mask: np.ndarray

    def __init__(self, problem: Problem, builder: PreconditionerBuilder):
        self.problem, self.builder = problem, builder
        self._rows = rows_at(problem, builder.sample.indices)
        self._hessian: np.ndarray | None = None
        self._factor: tuple[np.ndarray, bool] | None = None
        self.damping, self._scale = 1e-6, 1.0
        """Added to the dense Hessian, relative to its mean diagonal: shortens steps along
        directions that the data do not see, which only run into the orthant's walls."""
        exact = len(builder.sample.indices) >= np.count_nonzero(problem.counts)
        self.cheap = exact and fits_dense(problem)

    def rebuild(self, point: np.ndarray, free: np.ndarray) -> None:
        """At this point (n,); `free` (K * D,) says which weights may move."""
        problem, builder = self.problem, self.builder
        self.built = point, free.astype(np.float64)
        split = problem.classes * problem.features
        sample = builder.sample
        weights = point[:split].reshape(problem.classes, problem.features)
        bends = bends_of(problem, sample, builder.scores(sample, weights, point[split:]))
        own = bends.own_weights
        curvature = own @ self._rows**2 + 2 * problem.strength
        biases = own.sum(1)
        if not problem.fit_intercept:
            biases = np.full_like(biases, np.inf)
        diagonal = np.concatenate([curvature.ravel(), biases]).astype(np.float64)
        self.rates = 1 / np.maximum(diagonal, 1e-8 * np.median(diagonal[:split]) + 1e-30)
        self._hessian = None
        count = int(free.sum())
        if 0 < count <= DENSE_SIDE:
            self._densify(free, bends, split)

    def _densify(self, free: np.ndarray, bends: Bends, split: int) -> None:
        problem = self.problem
        mask = free.reshape(problem.classes, problem.features)
        features = [np.flatnonzero(own) for own in mask]
        extended = [self._with_ones(own) for own in features]
        blocks = []
        for k, left in enumerate(extended):
            line = []
            for j, right in enumerate(extended):
                weight = bends.own_weights[k] if k == j else weights_between(bends, k, j)
                line.append((left * weight[:, None]).T @ right)
            blocks.append(line)
        hessian = np.block(blocks).astype(np.float64)
        scale = np.trace(hessian) / len(hessian)
        self._places = np.concatenate(
            [np.append(k * problem.features + own, split + k) for k, own in enumerate(features)]
        )
        ridge = np.where(self._places < split, 2 * problem.strength, 0)
        hessian[np.diag_indices_from(hessian)] += ridge
        self._scale = scale
        self._hessian = hessian

    def _with_ones(self, features: np.ndarray) -> np.ndarray:
        """These columns of the rows, dense, and one of ones."""
        chosen = self._rows[:, features]
        chosen = chosen.toarray() if scipy.sparse.issparse(chosen) else chosen
        return np.concatenate([chosen, np.ones((len(chosen), 1), chosen.dtype)], axis=1)

    def learn(self, length: float) -> None:
        """From the length of step that the line search took: 1 trusts the Hessian more."""
        factor = 0.2 if length == 1 else 1 if length > 0.3 else 10
        self.damping = float(np.clip(self.damping * factor, 1e-9, 1e2))

    def restrict(self, mask: np.ndarray) -> None:
        """Steps stay within `mask` (K * D + K,)."""
        mask = mask.copy()
        if not self.problem.fit_intercept:
            mask[-self.problem.classes :] = False
        self._mask, self._factor = mask, None
        if self._hessian is None:
            return
        kept = np.flatnonzero(mask[self._places])
        self._kept = self._places[kept]
        inner = self._hessian[np.ix_(kept, kept)]
        inner[np.diag_indices_from(inner)] += self.damping * self._scale
        for _ in range(3):
            try:
                self._factor = scipy.linalg.cho_factor(inner, lower=True, check_finite=False)
                return
            except np.linalg.LinAlgError:
                inner[np.diag_indices_from(inner)] += 1e-6 * np.trace(inner) / len(inner)

    def __call__(self, gradient: np.ndarray) -> np.ndarray:
        step = self.rates * gradient
        if self._factor is not None and len(self._kept):
            step[self._kept] = scipy.linalg.cho_solve(
                self._factor, gradient[self._kept], check_finite=False
            )
        return np.where(self._mask, step, 0)
