"""Newton's method by conjugate gradients, for smooth losses, as one compiled loop.

Everything here is a pure function of arrays: it runs inside `jax.jit` and `jax.vmap`, and knows
neither a file nor the host. Directions come from conjugate gradients in the Gram preconditioner: in
the eigenvectors of the inputs' covariance it is diagonal, curvature * variance + 2 strength, and
follows the iterate through one number, the mean curvature. Steps come from a one-dimensional
Newton method, which is cheap because scores are affine along a line.

Source: Steihaug (1983), doi:10.1137/0720042, for stopping the inner iterations early (truncated
Newton); the preconditioner is that of `jaxlin.solvers.preconditioner`.
"""

__all__ = [
    "Data",
    "Point",
    "curvatures",
    "evaluate",
    "newton",
]

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxlin.solvers.dual_losses import Bend, Block, DualForm, maximizers, total
from jaxlin.solvers.krylov import conjugate_gradients, joined, line_minimum, split

PRODUCTS = 250
"""Conjugate gradient steps of one Newton step at most."""
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
    slope: Array
    """The gradient, (K, D + 1), `joined`."""
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


def evaluate(form: DualForm, data: Data, weights: Array, bias: Array, *, free: bool) -> Point:
    """The objective and its gradient: two products."""
    scores = weights @ data.inputs.T + bias[:, None] + data.offsets
    scores = jnp.where(data.present[:, None], scores, LOW)
    a, z, own = maximizers(jnp, form, _block(data, scores))
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
    return Point(weights, bias, scores, value, joined(slope, sums), gap)


def _block(data: Data, scores: Array) -> Block:
    return Block(scores, data.labels, data.counts, margin=data.margin)


def curvatures(form: DualForm, counts: Array, a: Array, own: Array) -> tuple[Array, Bend]:
    """Second derivatives of the mean loss in each class's bias, (K,), and the `Bend`."""
    bend = form.bend(jnp, a, 1.0)
    weighted = counts[None, :] * bend.diagonal
    pull = form.pull(jnp, bend, own)
    second = weighted - (counts * bend.kappa)[None, :] * pull**2
    if form.geometry == "pairs":
        second = second + own * total(jnp, weighted)[None, :]
    return second.sum(1), bend


def _direction(
    form: DualForm, data: Data, point: Point, target: Array, *, free: bool
) -> tuple[Array, Array, Array]:
    """The Newton step (K, D + 1), inexactly, the change of the scores along it, and the products
    taken."""
    a, _, own = maximizers(jnp, form, _block(data, point.scores))
    bent, bend = curvatures(form, data.counts, a, own)
    tiny, ridge = jnp.finfo(point.value.dtype).tiny, jnp.finfo(point.value.dtype).eps
    # where all rows are far on one side or the other the bias bends nothing: a ridge then does
    curvature = bent.sum() / jnp.maximum(data.present.sum(), 1) + ridge
    preconditioner = curvature * data.variances + 2 * data.strength + tiny

    def changes(step: Array) -> Array:
        weights, bias = split(step)
        found = weights @ data.inputs.T + bias[:, None]
        return jnp.where(data.present[:, None], found, 0)

    def product(step: Array) -> Array:
        weights, bias = split(step)
        curved = data.counts[None, :] * form.curve(jnp, bend, own, changes(step))
        sums = curved.sum(1) + ridge * bias if free else jnp.zeros_like(bias)
        return joined(curved @ data.inputs + 2 * data.strength * weights, sums)

    def precondition(residual: Array) -> Array:
        weights, bias = split(residual)
        return joined(weights / preconditioner[None, :], bias / curvature)

    share = jnp.clip(jnp.sqrt(point.gap / jnp.maximum(point.value, tiny)), 1e-3, 0.1)

    def enough(residual: Array, square: Array, start: Array) -> Array:
        weights, bias = split(residual)
        proved = jnp.vdot(weights, weights) <= 0.4 * data.strength * target * point.value
        if free:
            off = (bias**2 / (bent + tiny)).sum()
            proved = proved & (off <= 0.1 * target * point.value)
        return proved | (square <= share**2 * start)

    step, _, count, _ = conjugate_gradients(
        jnp, product, precondition, -point.slope, enough, PRODUCTS, flat=0.0
    )
    change = changes(step)
    largest = jnp.abs(jnp.where(data.present[:, None], point.scores, 0)).max()
    share = jnp.minimum(1, FARTHEST * (1 + largest) / jnp.maximum(jnp.abs(change).max(), tiny))
    return share * step, share * change, count


def newton(
    form: DualForm,
    data: Data,
    start: Point,
    target: Array,
    limit: Array,
    taken: tuple[Array, Array],
    *,
    free: bool,
) -> tuple[Point, tuple[Array, Array], Array]:
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

    def going(state: _State) -> Array:
        within = state.point.gap <= target * state.point.value
        return (state.steps < limit) & ~within & ~state.ended & jnp.isfinite(state.point.value)

    def step(state: _State) -> _State:
        point = state.point
        along, change, products = _direction(form, data, point, target, free=free)
        along_weights, along_bias = split(along)
        linear = 2 * data.strength * jnp.vdot(point.weights, along_weights)
        square = data.strength * jnp.vdot(along_weights, along_weights)
        rows = data.labels, data.counts, data.margin
        slope = jnp.vdot(point.slope, along)
        length = line_minimum(form, point.scores, change, *rows, slope, linear, square)
        weights = point.weights + length * along_weights
        new = evaluate(form, data, weights, point.bias + length * along_bias, free=free)
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
    steps, evaluations = taken
    begin = _State(start, steps, evaluations, start.gap, start.value, nothing, jnp.zeros((), bool))
    end = lax.while_loop(going, step, begin)
    return end.point, (end.steps, end.evaluations), end.ended
