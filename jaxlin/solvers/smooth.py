"""Smooth losses (softmax, squared hinges): L-BFGS in a metric that the run itself chooses.

It starts in the Gram metric. When the decrease it observes says that rebuilding the metric at the
iterate would cost less than going on, it builds one there that follows it (of two levels, or of
many classes a block each), and again later. The comparison counts multiplications, so that the
same data always take the same path. Where a pass over the rows is dear, it begins on a part of
them. Where a device has units for rounded products, it begins with these, and goes on with exact
ones once steps gain no more than that rounding. Whatever is proved or handed back is exact.

A descent is a generator: it yields the points whose loss it wants to know. One descent alone is
answered at once; several over the same rows (the folds of a cross-validation) are answered
together, in one pass over the data. What a descent has learned about the curvature can be carried
on to the next strength of a regularization path.
"""

__all__ = ["descend", "mean_loss", "minimize_smooth", "together"]

from collections.abc import Generator
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from jaxlin.solvers.builder import MetricBuilder
from jaxlin.solvers.certificates import certify, smallest_lead
from jaxlin.solvers.covariance import Sample
from jaxlin.solvers.duals import DualForm, own_of
from jaxlin.solvers.lbfgs import (
    arrays_of,
    lowest_along,
    memory_of,
    remember,
    room,
    scaled_step,
)
from jaxlin.solvers.leading import corrected
from jaxlin.solvers.metrics import flat
from jaxlin.solvers.parts import LONG, SHARE, part_of
from jaxlin.solvers.problem import Problem, penalty, rounded
from jaxlin.solvers.prospects import CLOSE, corrected_prospect, prospect_of
from jaxlin.solvers.separation import parted
from jaxlin.solvers.status import Fit, Status, silent
from jaxlin.solvers.unfinished import SmoothFit, checked
from jaxlin.solvers.warmth import Warmth, ahead, equipped

PATIENCE = 4
"""Steps without progress below the rounding of the objective: the arithmetic is at its end."""
IDLE = 12
"""Steps, whatever the metric, without a smaller gradient below that rounding: nor will there be."""
MILESTONES = 20
"""Where somebody watches, a bound is proved each time that the gap has fallen by this factor."""
KEPT = 5
"""Pairs of L-BFGS that outlive the metric they corrected."""
COARSE = (8 * 2.0**-11) ** 2
"""What the rounding of operands to 11 bits does to an objective, relatively, and what a step gains
at least before it: it is as good as to move weights and rows by 2^-11 of themselves, and near the
optimum the objective moves by the square. On CIFAR-10 (8,000 to 20,000 rows, strengths from 5e-4
to 1e-2) gaps began to differ at five times this gain, and fits took no more than two passes more
than with exact products alone."""
LONGER = 1.5
"""Where a step was cut, the next is tried at most so many times as long: where losses fall like
exponentials (hardly a penalty, classes almost apart), all steps of a metric are too long."""


class Asked(NamedTuple):
    """A point whose mean loss a descent wants to know."""

    problem: Problem
    weights: np.ndarray
    bias: np.ndarray
    dtype: np.dtype


@cache
def _rowwise_of(form: DualForm, count: int):
    """(xp, scores, labels, counts, margin) -> summed losses and their derivatives in the scores."""
    if count == 1:
        return partial(_value_and_residuals, form)

    def of_bank(xp, scores, labels, counts, margin):
        found = [
            _value_and_residuals(form, xp, part, labels, weights, margin)
            for part, weights in zip(xp.split(scores, count), counts, strict=True)
        ]
        return xp.stack([value for value, _ in found]), xp.concatenate([r for _, r in found])

    return of_bank


def _value_and_residuals(form, xp, scores, labels, counts, margin):
    own = own_of(xp, labels, scores.shape[0])
    losses, residuals = form.loss_and_residuals(xp, scores, own, margin)
    return (counts * losses).sum(), residuals * counts[None, :]


def mean_loss(problem: Problem, weights, bias, dtype):
    """The mean loss, its gradient in the weights and in the bias (zero where that is fixed)."""
    return _mean_losses([Asked(problem, weights, bias, dtype)])[0]


def _mean_losses(asked: list[Asked]) -> list:
    """The answers to several descents over the same rows, from one pass."""
    first, count = asked[0].problem, len(asked)
    one = count == 1
    padded = asked + asked[:1] * (_bank_size(count) - count)
    found = first.rows.fused(
        _rowwise_of(first.form, len(padded)),
        _first_or_stacked([a.weights for a in padded], np.concatenate),
        _first_or_stacked([a.bias for a in padded], np.concatenate),
        first.labels,
        _first_or_stacked([a.problem.counts for a in padded], np.stack),
        first.margin,
        dtype=asked[0].dtype,
    )
    if one:
        parts = [found]
    else:
        parts = list(zip(*(np.split(np.asarray(x), len(padded)) for x in found), strict=True))
    return [_answer(a.problem, *part) for a, part in zip(asked, parts, strict=False)]


def _answer(problem: Problem, value, gradient, sums):
    """Where a common shift of all classes changes no loss, the gradients of the classes sum to 0:
    the rest is rounding, which has no curvature of its own to be held against."""
    if problem.form.geometry != "one-vs-rest":
        gradient, sums = gradient - gradient.mean(0), sums - sums.mean()
    return float(np.squeeze(value)), gradient, sums if problem.fit_intercept else 0 * sums


def _first_or_stacked(parts, stack):
    return parts[0] if len(parts) == 1 else stack(parts)


def _bank_size(count):
    """Powers of two, so that a bank that empties compiles few programs."""
    return 1 << (count - 1).bit_length()


def together(descents: list[Generator], on_pass=silent) -> list:
    """Run descents side by side; those that ask about the same rows are answered in one pass.

    `on_pass()` is called before each pass; an exception that it raises ends them all.
    """
    results, waiting = [None] * len(descents), {}

    def advance(i, answer):
        try:
            waiting[i] = descents[i].send(answer)
        except StopIteration as stop:
            waiting.pop(i, None)
            results[i] = stop.value

    for i in range(len(descents)):
        advance(i, None)
    while waiting:
        groups = {}
        for i, a in waiting.items():
            shape = (id(a.problem.rows), id(a.problem.labels), a.weights.shape, a.dtype)
            groups.setdefault(shape, []).append(i)
        for members in groups.values():
            on_pass()
            answers = _mean_losses([waiting[i] for i in members])
            for i, answer in zip(members, answers, strict=True):
                advance(i, answer)
    return results


def minimize_smooth(
    problem: Problem,
    weights,
    bias,
    report,
    carried: SmoothFit | None = None,
    on_carried=silent,
    on_pass=silent,
) -> Fit:
    """Minimize until the certified gap is below the tolerance, or the status says why not.

    Args:
      problem: with a smooth form and no l1 term.
      weights, bias: (K, D) and (K,): where to start.
      report: called with (evaluations, objective, lower bound) as the run goes on.
      carried: what a fit to this problem left; it goes on from there, bit for bit.
      on_carried: called with (evaluations, make) between steps; `make()` returns what to give as
        `carried`.
      on_pass: called before each pass over the data; an exception that it raises ends the fit.
    """
    descent = descend(problem, weights, bias, report, carried=carried, on_carried=on_carried)
    return together([descent], on_pass)[0][0]


def descend(
    problem: Problem,
    weights,
    bias,
    report=silent,
    warmth: Warmth | None = None,
    carried: SmoothFit | None = None,
    on_carried=silent,
    proved: bool = True,
    ends: bool = False,
):
    """The descent of `minimize_smooth` as a generator of `Asked`.

    Args:
      warmth: of a fit to the same rows and counts at another strength, from whose solution this
        one starts; `weights` and `bias` are not looked at then, nor where there is `carried`.
      proved: whether it ends with a certificate, or as soon as it expects one.
      ends: whether strengths are to be filled in between this one and the next, which takes a dual
        point made from the very scores of the parameters.

    Returns:
      (when exhausted) the `Fit`, and the warmth for the next strength.
    """
    classes, features = weights.shape
    split = weights.size
    evaluations, precision = 0.0, problem.dtype
    passes = problem if warmth is not None else _coarse(problem)

    def unpack(point):
        return point[:split].reshape(classes, features), point[split:]

    def evaluate(point):
        nonlocal evaluations
        evaluations += 1
        w, b = unpack(point)
        value, gradient, sums = yield Asked(passes, w, b, precision)
        gradient = gradient + 2 * problem.strength * w
        return value + penalty(problem, w), np.concatenate([gradient.ravel(), sums])

    def finer(point):
        nonlocal passes, precision
        precision = np.dtype(np.float64) if passes is problem else precision
        passes = problem
        return (yield from evaluate(point))

    status, final = Status.MAX_ITERATIONS, None
    fresh = carried is None and warmth is None and not np.any(weights)
    part, near = part_of(problem) if fresh else None, False
    if part is not None:
        first, _ = yield from descend(part, weights, bias, proved=False)
        weights, bias, evaluations = first.weights, first.bias, first.evaluations / SHARE
        near = first.iterations >= LONG
    if carried is None:
        start = np.concatenate([np.asarray(weights, np.float64).ravel(), bias]).astype(np.float64)
        point = start if warmth is None else ahead(warmth, problem)
        value, gradient = yield from evaluate(point)
        builder, metric, *kind, memory = equipped(problem, *unpack(point), warmth, near)
        metric_strength, follows = kind
        best, lower, iterations, since = (value, point), 0.0, 0, 0
        milestone, promise, length, decrements = 0.1, np.inf, 1.0, []
        faintest, idle = np.inf, 0
    else:
        point, gradient, best_point, *pairs, expected = checked(carried, SmoothFit, problem)[:7]
        builder, memory = MetricBuilder(problem), memory_of(*pairs, size=room(point.size))
        metric = builder.go_on(carried.built_weights, carried.built_bias, carried.builder)
        metric_strength, follows = problem.strength, builder.recipe.follows
        decrements, numbers = expected.tolist(), carried.numbers.tolist()
        value, least, lower, milestone, promise, length, evaluations, faintest, *counts, digits = (
            numbers
        )
        best, (iterations, since, idle) = (least, best_point), map(int, counts)
        precision = np.dtype(np.float64) if digits > 0 else precision
        passes = passes if digits < 0 else problem
        if digits < 0 and passes is problem:  # it was left on a device with other units
            value, gradient = yield from evaluate(point)
            best = (value, point)

    def make():
        numbers = value, best[0], lower, milestone, promise, length, evaluations, faintest
        digits = -1 if passes is not problem else precision == np.float64
        numbers = *numbers, iterations, since, idle, digits
        numbers = np.array(numbers, np.float64)
        learned = *arrays_of(memory), np.array(decrements, np.float64), *builder.state()
        return SmoothFit(point, gradient, best[1], *learned, numbers)

    sizes = None if problem.strength else _sizes(builder.sample)
    while True:
        on_carried(evaluations, make)
        along = flat(metric, weights.shape)
        last = plain = prospect_of(problem, memory, point, gradient)
        if proved:
            last = corrected_prospect(problem, metric, memory, point, gradient, value, plain)
        report(evaluations, min(best[0], value), lower)
        due = last.gap <= 0.7 * problem.tolerance * value and last.gap <= 0.5 * promise
        coarse = passes is not problem
        if coarse and (due or iterations >= problem.max_iterations):
            value, gradient = yield from finer(point)
            best, faintest, idle = (value, point), np.inf, 0
            continue
        watched = report is not silent and not coarse
        if due or (watched and plain.gap <= 0.7 * milestone * value):
            if not proved:
                break
            proof_point, scores = last.point if due else plain.point, None
            if due and last.leading is not None:
                # where it failed before, float32 may not have been enough
                digits = precision if np.isinf(promise) else np.dtype(np.float64)
                wanted = last.point, memory.lengths, last.gap, digits
                proof_point, scores = corrected(problem, last.leading, mean_loss, *wanted)
                evaluations += 1  # the rows are read once
            elif memory.points and plain.gap <= CLOSE * value:  # a step ahead costs no pass
                proof_point = proof_point + scaled_step(memory, along, plain.gradient)[0]
            promise = last.gap if due else promise
            milestone = min(milestone, plain.gap / value) / MILESTONES
            w, b = unpack(proof_point)
            w, b = rounded(problem, w, b) if due else (w, b)
            known = None if ends else scores
            proof = certify(problem, w, b, dtype=precision, exact=due, known=known)
            evaluations += proof.evaluations
            lower = max(lower, proof.lower_bound)
            if best[0] > proof.objective or (due and precision != np.float64):
                best = (proof.objective, np.concatenate([w.ravel(), proof.bias]))
                final = proof if due else None
            report(evaluations, best[0], lower)
            if best[0] - lower <= problem.tolerance * best[0]:
                status = Status.CONVERGED
                break
            final = None
        if problem.strength == 0:
            status = _unregularized(problem, *unpack(point), *unpack(gradient), value, sizes)
            if status is not None:
                break
            status = Status.MAX_ITERATIONS
        if iterations >= problem.max_iterations:
            break
        step, memory = scaled_step(memory, along, gradient)
        slope = float(gradient @ step)
        if slope >= 0:
            step, memory = scaled_step(memory.youngest(0), along, gradient)
        decrements.append(-slope / 2)
        idle = 0 if decrements[-1] < 0.5 * faintest else idle + 1
        faintest = min(faintest, decrements[-1])
        noise = (COARSE if coarse else 8 * np.finfo(precision).eps) * abs(value)
        there, found, its_gradient, length = yield from lowest_along(
            evaluate, point, value, gradient, step, noise=noise, length=min(1.0, LONGER * length)
        )
        iterations, since = iterations + 1, since + 1
        at_end = idle > IDLE and faintest < noise
        stalled = there is None or at_end or _stalled(decrements, noise)
        if there is not None:
            memory = remember(memory, there - point, its_gradient - gradient)
            point, value, gradient = there, found, its_gradient
            if value < best[0]:
                best = (value, point)
        if coarse and (stalled or decrements[-1] < noise):
            value, gradient = yield from finer(point)
            best, faintest, idle = (value, point), np.inf, 0
            continue
        if stalled and precision != np.float64:
            value, gradient = yield from finer(point)
            best = (value, point)
            memory, decrements, faintest, idle = memory.youngest(0), [], np.inf, 0
            continue
        if at_end or (stalled and since > 2):
            status = Status.PRECISION
            break
        if builder.worth_rebuilding(decrements, since, plain.gap, problem.tolerance * value):
            metric, cost = builder.following(*unpack(point), instead=metric)
            metric_strength, follows = problem.strength, True
            evaluations += cost
            since, decrements = 0, []
            # the youngest pairs know this neighborhood better than a sample of rows does
            memory = memory.youngest(KEPT)
    if status != Status.CONVERGED and problem.strength > 0 and proved:
        proof = certify(problem, *unpack(best[1]))
        evaluations += proof.evaluations
        lower = max(lower, proof.lower_bound)
        if proof.objective - lower <= problem.tolerance * proof.objective:
            status = Status.CONVERGED
        best = (proof.objective, np.concatenate([best[1][:split], proof.bias]))
    w, b = unpack(best[1])
    if problem.strength == 0 and status != Status.SEPARABLE and problem.form.name == "softmax":
        status = Status.SEPARABLE if parted(problem, w, b) else status
    norm = float(np.linalg.norm(gradient))
    velocity = None
    if warmth is not None and problem.strength not in (0, warmth.strength):
        velocity = (best[1] - warmth.point) / np.log(problem.strength / warmth.strength)
    left = Warmth(
        *(builder, metric, metric_strength, follows, memory),
        *(best[1], problem.strength, velocity),
    )
    return Fit(w, b, lower, norm, iterations, evaluations, status, final), left


def _coarse(problem: Problem) -> Problem:
    """The problem with rounded products where the device has units for them; or as it is.

    Without a penalty nothing is proved, and a small gradient is all that a verdict rests on.
    """
    rows = problem.rows.coarse if problem.strength > 0 else None
    return problem if rows is None else problem._replace(rows=rows)


def _stalled(decrements, noise) -> bool:
    """Whether the expected decrease is below rounding, and has not halved for some steps."""
    if decrements[-1] >= noise or len(decrements) <= PATIENCE:
        return False
    return min(decrements[-PATIENCE:]) > 0.5 * min(decrements[:-PATIENCE])


def _sizes(sample: Sample):
    """(D,): the root mean squares of the features; 1 where the sample has one value."""
    variances = np.einsum("m,md->d", sample.weights, sample.rows.astype(np.float64) ** 2)
    return np.sqrt(np.where(variances > 0, sample.mean**2 + variances, 1.0))


def _unregularized(problem, weights, bias, slope, bias_slope, value, sizes):
    """Without a penalty: separated data have no optimum; else a small gradient is all there is.

    The objective is above its least value by no more than <gradient, distance to the optimum>, here
    in units of the features' sizes (D,), so that nothing depends on the units they came in.
    """
    if smallest_lead(problem, weights, bias) > 0:
        return Status.SEPARABLE
    far = np.hypot(np.linalg.norm(weights * sizes), np.linalg.norm(bias))
    steep = np.hypot(np.linalg.norm(slope / sizes), np.linalg.norm(bias_slope))
    small = problem.tolerance * max(value, 1e-30) / max(float(far), 1.0) * 1e-2
    return Status.NO_PROOF if steep <= small else None
