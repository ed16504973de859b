"""Newton's method by conjugate gradients, for smooth losses, as one compiled loop.

Everything here is a pure function of arrays: it runs inside `jax.jit` and `jax.vmap`, and knows
neither a file nor the host. Directions come from conjugate gradients in the Gram metric: in the
eigenvectors of the inputs' covariance it is diagonal, curvature * variance + 2 strength, and
follows the iterate through one number, the mean curvature. Steps come from a one-dimensional
Newton method, which is cheap because scores are affine along a line.

Source: Steihaug (1983), doi:10.1137/0720042, for stopping the inner iterations early (truncated
Newton); the metric is that of `jaxlin.solvers.metrics`.
"""

__all__ = [
    "Data",
    "Point",
    "conjugate_gradients",
    "curvatures",
    "evaluate",
    "line_minimum",
    "newton",
]

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxlin.solvers.duals import DualForm, own_of, total

PRODUCTS = 250
"""Conjugate gradient steps of one Newton step at most."""
TRIALS = 12
"""Points that one line search looks at, at most."""
FARTHEST = 10.0
"""Times 1 + the largest score by which the first trial of a line search may change one."""
PATIENCE = 4
"""Steps in a row that may gain nothing: the arithmetic is at its end."""
LOW = -1e30
"""The score of a class that no example has: it costs nothing."""


class Data(NamedTuple):
    """The weighted mean of a loss + strength |W|^2, in coordinates of uncorrelated features."""

    inputs: Array
    """(N, D)."""
    labels: Array
    """(N,)."""
    counts: Array
    """(N,), summing to one."""
    present: Array
    """(K,) bool: the classes that count."""
    variances: Array
    """(D,): of the features, which are nearly uncorrelated."""
    strength: Array
    margin: Array
    offsets: Array | float = 0.0
    """(K, N): fixed parts of the scores."""


class Point(NamedTuple):
    """Parameters, and what is known of the objective there."""

    weights: Array
    """(K, D)."""
    bias: Array
    """(K,)."""
    scores: Array
    """(K, N)."""
    value: Array
    slope: tuple[Array, Array]
    """The gradient, (K, D) and (K,)."""
    gap: Array
    """About how far from the optimum: the duality gap, if the dual point were balanced."""


class _State(NamedTuple):
    point: Point
    steps: Array
    evaluations: Array
    least: Array
    """The least gap so far."""
    lowest: Array
    """The least objective so far."""
    stale: Array
    """Steps since either fell: the gap by half, the objective by more than rounding."""
    ended: Array
    """Rounding is all that is left."""


def _dot(one, other):
    return sum(jnp.vdot(a, b) for a, b in zip(one, other, strict=True))


def _plus(one, share, other):
    return tuple(a + share * b for a, b in zip(one, other, strict=True))


def conjugate_gradients(product, precondition, right, enough, products: int):
    """Solve `product(x) = right` approximately, from 0.

    Args:
      product, precondition: of tuples of arrays, linear and positive (semi)definite.
      enough: (residual, its square in the metric, that of `right`) -> bool, when to stop.
      products: the most that may be taken.

    Returns:
      The solution and the number of products.
    """
    first = precondition(right)
    start = _dot(right, first)
    nothing = tuple(jnp.zeros_like(part) for part in right)

    def going(state):
        _, residual, _, square, count = state
        return (count < products) & ~enough(residual, square, start) & (square > 0)

    def step(state):
        found, residual, along, square, count = state
        curved = product(along)
        curvature = _dot(along, curved)
        length = jnp.where(curvature > 0, square / jnp.where(curvature > 0, curvature, 1), 0)
        found, residual = _plus(found, length, along), _plus(residual, -length, curved)
        mapped = precondition(residual)
        after = jnp.where(curvature > 0, _dot(residual, mapped), 0)  # 0 ends it
        return found, residual, _plus(mapped, after / square, along), after, count + 1

    found, _, _, _, count = lax.while_loop(going, step, (nothing, right, first, start, 0))
    return found, count


def line_minimum(form: DualForm, scores, along, labels, counts, margin, slope, linear, square):
    """Where the objective is least on a line, about: there its derivative is a tenth or less.

    Args:
      form: smooth.
      scores, along: (K, N), at the start and their change for a step of 1.
      labels, counts, margin: of the rows.
      slope: derivative of the objective at the start, negative.
      linear, square: the penalty is (constant) + linear t + square t^2 at step t.

    Returns:
      The step, nonnegative.
    """
    own = own_of(jnp, labels, scores.shape[0])
    accuracy = 0.1 * jnp.abs(slope)

    def going(state):
        return (state[0] < TRIALS) & ~state[-1]

    def step(state):
        count, t, low, high, _ = state
        z = form.shortfalls(jnp, scores + t * along, own, margin)
        a = form.maximizer(jnp, z, 1.0, 0.0)
        firsts = counts * total(jnp, form.residuals(jnp, a, own) * along)
        seconds = counts * total(jnp, along * form.curve(jnp, form.bend(jnp, a, 1.0), own, along))
        first, second = firsts.sum() + linear + 2 * t * square, seconds.sum() + 2 * square
        noise = 4 * jnp.finfo(scores.dtype).eps * (jnp.abs(firsts).sum() + jnp.abs(linear))
        near = jnp.abs(first) <= accuracy + noise
        low, high = jnp.where((first < 0) | near, t, low), jnp.where(first < 0, high, t)
        newton = t - first / jnp.where(second > 0, second, 1)
        newton = jnp.where(jnp.isinf(high), jnp.clip(newton, 1.2 * t, 4 * t), newton)
        inside = (newton > low) & (newton < high) & (second > 0)
        halved = jnp.where(jnp.isinf(high), 2 * t, (low + high) / 2)
        return count + 1, jnp.where(inside, newton, halved), low, high, near

    one = jnp.ones((), scores.dtype)
    begin = (0, one, jnp.zeros_like(one), jnp.full_like(one, jnp.inf), slope >= 0)
    return lax.while_loop(going, step, begin)[2]  # the last that did not go too far


def evaluate(form: DualForm, data: Data, weights, bias, *, free: bool) -> Point:
    """The objective and its gradient: two products."""
    own = own_of(jnp, data.labels, len(bias))
    scores = weights @ data.inputs.T + bias[:, None] + data.offsets
    scores = jnp.where(data.present[:, None], scores, LOW)
    z = form.shortfalls(jnp, scores, own, data.margin)
    a = form.maximizer(jnp, z, 1.0, 0.0)
    residuals = form.residuals(jnp, a, own) * data.counts[None, :]
    value = (data.counts * form.loss(jnp, z, own)).sum() + data.strength * jnp.vdot(
        weights, weights
    )
    slope, sums = residuals @ data.inputs, residuals.sum(1)
    if form.geometry != "one-vs-rest":  # they sum to 0 over the classes, but for rounding
        there = data.present.astype(slope.dtype)
        slope = slope - jnp.outer(there, there @ slope / there.sum())
        sums = sums - there * (there @ sums / there.sum())
    slope = slope + 2 * data.strength * weights
    sums = sums if free else jnp.zeros_like(bias)
    gap = jnp.vdot(slope, slope) / (4 * data.strength)
    if free:  # what a Newton step in the bias would gain, twice
        bent, _ = curvatures(form, data.counts, a, own)
        gap = gap + (sums**2 / (bent + jnp.finfo(bias.dtype).tiny)).sum()
    return Point(weights, bias, scores, value, (slope, sums), gap)


def curvatures(form: DualForm, counts, a, own):
    """Second derivatives of the mean loss in each class's bias, (K,), and the `Bend`."""
    bend = form.bend(jnp, a, 1.0)
    weighted = counts[None, :] * bend.diagonal
    pull = form.pull(jnp, bend, own)
    second = weighted - (counts * bend.kappa)[None, :] * pull**2
    if form.geometry == "pairs":
        second = second + own * total(jnp, weighted)[None, :]
    return second.sum(1), bend


def _direction(form: DualForm, data: Data, point: Point, target, *, free: bool):
    """The Newton step, inexactly, the change of the scores along it, and the products taken."""
    own = own_of(jnp, data.labels, len(point.bias))
    z = form.shortfalls(jnp, point.scores, own, data.margin)
    bent, bend = curvatures(form, data.counts, form.maximizer(jnp, z, 1.0, 0.0), own)
    tiny, ridge = jnp.finfo(point.value.dtype).tiny, jnp.finfo(point.value.dtype).eps
    # where all rows are far on one side or the other the bias bends nothing: a ridge then does
    curvature = bent.sum() / jnp.maximum(data.present.sum(), 1) + ridge
    metric = curvature * data.variances + 2 * data.strength + tiny

    def changes(step):
        found = step[0] @ data.inputs.T + step[1][:, None]
        return jnp.where(data.present[:, None], found, 0)

    def product(step):
        curved = data.counts[None, :] * form.curve(jnp, bend, own, changes(step))
        sums = curved.sum(1) + ridge * step[1] if free else jnp.zeros_like(step[1])
        return curved @ data.inputs + 2 * data.strength * step[0], sums

    def precondition(residual):
        return residual[0] / metric[None, :], residual[1] / curvature

    share = jnp.clip(jnp.sqrt(point.gap / jnp.maximum(point.value, tiny)), 1e-3, 0.1)

    def enough(residual, square, start):
        proved = jnp.vdot(residual[0], residual[0]) <= 0.4 * data.strength * target * point.value
        if free:
            off = (residual[1] ** 2 / (bent + tiny)).sum()
            proved = proved & (off <= 0.1 * target * point.value)
        return proved | (square <= share**2 * start)

    right = tuple(-part for part in point.slope)
    step, count = conjugate_gradients(product, precondition, right, enough, PRODUCTS)
    change = changes(step)
    largest = jnp.abs(jnp.where(data.present[:, None], point.scores, 0)).max()
    share = jnp.minimum(1, FARTHEST * (1 + largest) / jnp.maximum(jnp.abs(change).max(), tiny))
    return _plus(tuple(map(jnp.zeros_like, step)), share, step), share * change, count


def newton(form: DualForm, data: Data, start: Point, target, limit, taken, *, free: bool):
    """Step until the estimated gap is within `target` of the value, or nothing is left to gain.

    Args:
      form: smooth.
      target: relative gap.
      limit: of the steps, those of `taken` included.
      taken: steps and evaluations so far.
      free: whether the bias may move.

    Returns:
      The point, the steps and evaluations, and whether the arithmetic was at its end.
    """
    noise = 8 * jnp.finfo(start.value.dtype).eps

    def going(state):
        within = state.point.gap <= target * state.point.value
        return (state.steps < limit) & ~within & ~state.ended & jnp.isfinite(state.point.value)

    def step(state):
        point = state.point
        along, change, products = _direction(form, data, point, target, free=free)
        linear = 2 * data.strength * jnp.vdot(point.weights, along[0])
        square = data.strength * jnp.vdot(along[0], along[0])
        rows = data.labels, data.counts, data.margin
        slope = _dot(point.slope, along)
        length = line_minimum(form, point.scores, change, *rows, slope, linear, square)
        params = _plus((point.weights, point.bias), length, along)
        new = evaluate(form, data, *params, free=free)
        gained = (new.gap <= 0.5 * state.least) | (new.value < state.lowest * (1 - noise))
        stale = jnp.where(gained, 0, state.stale + 1)
        return _State(
            new,
            state.steps + 1,
            state.evaluations + products + 1.5,
            jnp.minimum(state.least, new.gap),
            jnp.minimum(state.lowest, new.value),
            stale,
            (stale >= PATIENCE) | (length <= 0),
        )

    nothing = jnp.zeros((), jnp.int32)
    begin = _State(start, *taken, start.gap, start.value, nothing, jnp.zeros((), bool))
    end = lax.while_loop(going, step, begin)
    return end.point, (end.steps, end.evaluations), end.ended
