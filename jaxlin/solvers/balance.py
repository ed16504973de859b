r"""Dual points whose residuals sum to zero in every class, so that the free bias drops out.

Newton's method in the K biases nearly balances the maximizers, since the derivative of the mean
smoothed loss in b is rho. What is left is removed by moving mass between classes:

- softmax: each class in excess sends a share of its mass to the classes in deficit, so that every
  a_i stays on its simplex;
- pairs (true class y against rival k): factors exp(lift_y - lift_k) on the flows
  F_yk = sum over y_i = y of c_i a_ik, whose in- and outflow must agree: the balancing of a matrix
  by a diagonal similarity, which is the minimum of the convex sum F_yk exp(lift_y - lift_k)
  (Kalantari, Khachiyan and Shokoufandeh, 1997, doi:10.1137/S0895479895289765). Where a has an upper
  limit all are scaled, so that none exceeds 1;
- one-vs-rest: factors on either side of each class, which shrink the heavier one.

For many classes nothing of K x K is made: conjugate gradients multiply with the second derivatives
in a pass over the scores.

All is written once, for NumPy and for programs, in terms of `sums`: a function (f, *arguments) that
returns f(xp, form, block, *arguments), summed over the blocks of rows wherever these are.
"""

__all__ = [
    "UNIT",
    "WIDE",
    "balanced_bias",
    "feasible",
    "mixed",
    "mixing_that_balances",
    "shifted",
]

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import DTypeLike

from jaxlin.solvers.dual_losses import (
    AnyArray,
    ArrayModule,
    Bend,
    Block,
    DualForm,
    maximizers,
    repeat,
    settled,
    total,
)
from jaxlin.solvers.krylov import conjugate_gradients, definite_solution, within

UNIT = 2.0**-53
"""Relative rounding of float64."""
WIDE = 200
"""Classes beyond which nothing of K x K is made."""
PRODUCTS = 30
"""Conjugate gradient steps of one Newton step in K numbers."""
STEPS, TRIALS = 30, 12
"""Newton steps, and lengths that are tried along each, at most."""


def shifted(block: Block, shift: AnyArray) -> Block:
    """The block with `shift`, (K,), added to its scores."""
    return block._replace(scores=block.scores + shift.astype(block.scores.dtype)[:, None])


def feasible(
    xp: ArrayModule, form: DualForm, block: Block, shift: AnyArray
) -> tuple[AnyArray, AnyArray]:
    """The maximizers as dual points in the dtype of the shift, and the true classes: what rounding
    put outside the set is put back."""
    a, _, own = maximizers(xp, form, shifted(block, shift))
    a = a.astype(shift.dtype)
    if form.geometry == "softmax":
        a = a / total(xp, a)[None, :]
    elif form.name == "crammer-singer":
        a = a / xp.maximum(total(xp, a), 1.0)[None, :]
    return a, own


def _bias_newton(
    xp: ArrayModule, form: DualForm, block: Block, shift: AnyArray
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Mean smoothed loss, its derivative and second derivative (or its diagonal) in the bias."""
    block = shifted(block, shift)
    scores, counts = block.scores, block.counts
    a, z, own = maximizers(xp, form, block)
    a, z = settled(xp, a, z)
    value = (counts * form.smoothed(xp, z, own, a, block.smoothing, block.anchor)).sum()
    bend = form.bend(xp, a, block.smoothing)
    (residuals, q) = settled(xp, form.residuals(xp, a, own), form.pull(xp, bend, own))
    slope = residuals @ counts
    counts = counts.astype(scores.dtype)  # the second derivative only steers
    weighted = counts[None, :] * bend.diagonal
    kappa = counts * bend.kappa
    if scores.shape[0] > WIDE:
        second = weighted - kappa[None, :] * q**2
        if form.geometry == "pairs":
            second = second + own * total(xp, weighted)[None, :]
        return value, slope, second.sum(1)
    (weighted, pulled) = settled(xp, weighted, q * kappa[None, :])
    if form.geometry == "pairs":
        edges = own.astype(weighted.dtype) @ weighted.T
        second = xp.diag(edges.sum(0) + edges.sum(1)) - edges - edges.T
    else:
        second = xp.diag(weighted.sum(1))
    return value, slope, second - pulled @ q.T


def _bias_curve(
    xp: ArrayModule, form: DualForm, block: Block, shift: AnyArray, along: AnyArray
) -> AnyArray:
    """The second derivative in the bias times `along`, (K,)."""
    block = shifted(block, shift)
    a, _, own = maximizers(xp, form, block)
    along = xp.broadcast_to(along.astype(a.dtype)[:, None], a.shape)
    curved = form.curve(xp, form.bend(xp, a, block.smoothing), own, along)
    return (block.counts[None, :] * curved).sum(1)


class _Point(NamedTuple):
    """What was added to the bias, (K,), and what `_bias_newton` says there."""

    shift: AnyArray
    value: AnyArray
    slope: AnyArray
    second: AnyArray


def balanced_bias(
    xp: ArrayModule,
    form: DualForm,
    sums: Callable[..., Any],
    masses: AnyArray,
    *,
    dtype: DTypeLike,
    steps: int = STEPS,
    accuracy: AnyArray = 1e-15,
) -> AnyArray:
    """Newton in K dimensions with shorter and shorter steps: the bias at which maximizers balance.

    Args:
      sums: sums over the rows; see above.
      masses: (K,), the sum of the counts of each class; one of none stays where it is.
      dtype: of the scores.
      steps: Newton steps at most.
      accuracy: what may be left of the derivative in any class.

    Returns:
      (K,), in the dtype of the masses: what to add to the scores.
    """
    noise, there = 64 * float(np.finfo(dtype).eps), masses > 0

    def at(shift: AnyArray) -> _Point:
        return _Point(shift, *sums(_bias_newton, shift))

    def off(point: _Point) -> AnyArray:
        return xp.abs(point.slope).max()

    def going(state: tuple[Any, ...]) -> AnyArray:
        point, ended, count = state
        return (count < steps) & ~ended & (off(point) > accuracy)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        point, _, count = state
        along = _bias_step(xp, form, sums, there, point)
        fall, faint = -(point.slope @ along), noise * xp.abs(point.value)

        def trying(search: tuple[Any, ...]) -> AnyArray:
            return (search[-1] < TRIALS) & ~search[-2]

        def shorter(search: tuple[Any, ...]) -> tuple[Any, ...]:
            length, tried = search[1] / 4, search[-1]
            trial = at(point.shift + length * along)
            lower = trial.value <= point.value - 1e-4 * length * fall
            nearer = (off(trial) < off(point)) & (trial.value <= point.value + faint)
            better = lower | nearer
            return trial, length, better, better | (length * fall < faint), tried + 1

        begin = point, 4 * xp.ones((), masses.dtype), no, no, 0
        trial, length, better, _, _ = repeat(xp, trying, shorter, begin)
        rounding = (off(trial) > 0.1 * off(point)) & (length * fall < faint)  # is all that is left
        point = jax.tree.map(lambda new, old: xp.where(better, new, old), trial, point)
        return point, ~better | rounding, count + 1

    no = xp.zeros((), bool)
    return repeat(xp, going, step, (at(xp.zeros_like(masses)), no, 0))[0].shift


def _bias_step(
    xp: ArrayModule, form: DualForm, sums: Callable[..., Any], there: AnyArray, point: _Point
) -> AnyArray:
    """Newton's step in the biases of the classes that are `there`, (K,)."""
    shift, _, slope, second = point
    coupled, count = form.geometry != "one-vs-rest", there.sum()
    if second.ndim == 2:
        mean = xp.diagonal(second).sum() / count + 1e-14
        ridge = max(1e-10, 4 * len(slope) * float(np.finfo(second.dtype).eps))
        system = second + xp.diag(xp.where(there, ridge * mean, mean))
        if coupled:
            # a common shift changes no loss: what rounding says of it would grow without bound
            system = system + xp.outer(there, there) * (mean / count)
        step = -definite_solution(xp, system, slope)
        return xp.where(there, step - step.sum() / count, 0) if coupled else step
    if not coupled:
        return -slope / xp.maximum(second, 1e-14)
    ridge = second.mean() * 1e-8 + 1e-14

    def product(along: AnyArray) -> AnyArray:
        return sums(_bias_curve, shift, along) + ridge * along

    return xp.where(there, _solved(xp, product, second + ridge, -slope, 0.03), 0)


def _solved(
    xp: ArrayModule,
    product: Callable[[AnyArray], AnyArray],
    diagonal: AnyArray,
    right: AnyArray,
    accuracy: float,
) -> AnyArray:
    """Conjugate gradients in K numbers with Jacobi's preconditioner."""
    enough = within(right, accuracy)
    return conjugate_gradients(xp, product, lambda r: r / diagonal, right, enough, PRODUCTS)[0]


def mixed(
    xp: ArrayModule, form: DualForm, a: AnyArray, labels: AnyArray, own: AnyArray, mixing: AnyArray
) -> AnyArray:
    """The dual point after mass was moved between classes; still feasible."""
    if form.geometry == "softmax":
        keep, share, deficit = mixing
        return keep[:, None] * a + deficit[:, None] * total(xp, share[:, None] * a)[None, :]
    if form.geometry == "one-vs-rest":
        inside, outside = mixing
        return a * xp.where(own, inside[:, None], outside[:, None])
    lifts, scale = mixing[:-1], mixing[-1]
    return a * scale * xp.exp(xp.take(lifts, labels)[None, :] - lifts[:, None])


def mixing_that_balances(
    xp: ArrayModule, form: DualForm, sums: Callable[..., Any], shift: AnyArray
) -> AnyArray:
    """What `mixed` needs to balance the maximizers at scores shifted by `shift`, (K,).

    Args:
      sums: sums over the rows; see above.

    Returns:
      Softmax: (3, K), the share that each class keeps, the share it gives away, and its part of all
      that is given. One-vs-rest: (2, K), a factor for its own rows and for the others'. Pairs:
      (K + 1,), lifts, and the scale of all factors.
    """
    if form.geometry == "softmax":
        return _exchange(xp, *sums(_masses_of, shift))
    if form.geometry == "one-vs-rest":
        sides = sums(_sides, shift)
        lighter = xp.broadcast_to(sides.min(0)[None, :], sides.shape)
        return xp.where(sides > 0, lighter / xp.where(sides > 0, sides, 1), 1)
    capped = "squared" not in form.name
    if len(shift) > WIDE:
        lifts = _lifts(xp, *_by_passes(xp, form, sums, shift), shift)
        scale = xp.exp(lifts.min() - lifts.max())
    else:
        flows = sums(_flows, shift)
        lifts = _lifts(xp, *_by_flows(xp, flows), shift)
        factors = xp.where(flows > 0, xp.exp(lifts[:, None] - lifts[None, :]), 0).max()
        scale = 1 / xp.where(factors > 0, factors, 1)
    return xp.append(lifts, scale if capped else xp.ones_like(scale))


def _masses_of(
    xp: ArrayModule, form: DualForm, block: Block, shift: AnyArray
) -> tuple[AnyArray, AnyArray]:
    """The mass of each class, (K,), and by how much it is too large."""
    a, own = feasible(xp, form, block, shift)
    off = form.residuals(xp, a, own) * block.counts[None, :]
    return (a * block.counts[None, :]).sum(1), off.sum(1)


def _exchange(xp: ArrayModule, have: AnyArray, off: AnyArray) -> AnyArray:
    excess, deficit = xp.maximum(off, 0), xp.maximum(-off, 0)
    missing = deficit.sum()
    share = xp.minimum(excess / xp.where(have > 0, have, 1), 1)
    share = xp.where(missing > 0, share, 0)
    return xp.stack([1 - share, share, deficit / xp.where(missing > 0, missing, 1)])


def _sides(xp: ArrayModule, form: DualForm, block: Block, shift: AnyArray) -> AnyArray:
    """(2, K): the mass of each class in its own rows and in the others."""
    a, own = feasible(xp, form, block, shift)
    a = a * block.counts[None, :]
    return xp.stack([xp.where(own, a, 0).sum(1), xp.where(own, 0, a).sum(1)])


def _flows(xp: ArrayModule, form: DualForm, block: Block, shift: AnyArray) -> AnyArray:
    """(K, K): the weighted dual mass of class k in the rows of class y."""
    a, own = feasible(xp, form, block, shift)
    (weighted, a) = settled(xp, own * block.counts[None, :], a)
    return weighted @ a.T


def _lifts(
    xp: ArrayModule, look: Callable[..., Any], solve: Callable[..., Any], like: AnyArray
) -> AnyArray:
    """(K,): lifts at which in- and outflow agree, by Newton's method.

    Args:
      look: lifts -> the sum of the flows, outflow less inflow of every class, and what `solve`
        wants.
      solve: (lifts, that, excess) -> the solution of Laplacian x = excess.
      like: (K,), of the shape and dtype of the lifts.
    """
    eps = float(np.finfo(like.dtype).eps)

    def going(state: tuple[Any, ...]) -> AnyArray:
        _, (value, off, _), ended, count = state
        return (count < STEPS) & ~ended & (xp.abs(off).max() > 2 * eps * value)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        lifts, here, _, count = state
        change = solve(lifts, here[2], -here[1])
        change = change / xp.maximum(change.max() - change.min(), 1.0)
        there = look(lifts + change)
        better = (xp.abs(there[1]).sum() < xp.abs(here[1]).sum()) | (there[0] < here[0])
        lifts, here = jax.tree.map(
            lambda new, old: xp.where(better, new, old), (lifts + change, there), (lifts, here)
        )
        return lifts, here, ~better, count + 1

    nothing = xp.zeros_like(like)
    begin = nothing, look(nothing), xp.zeros((), bool), 0
    return repeat(xp, going, step, begin)[0]


def _by_flows(xp: ArrayModule, flows: AnyArray) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`look` and `solve` of `_lifts`, from the flows (K, K) at lifts of 0."""

    def look(lifts: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
        now = flows * xp.exp(lifts[:, None] - lifts[None, :])
        return now.sum(), now.sum(1) - now.sum(0), now

    def solve(lifts: AnyArray, now: AnyArray, excess: AnyArray) -> AnyArray:
        return _against(xp, now + now.T, excess)

    return look, solve


def _against(xp: ArrayModule, edges: AnyArray, excess: AnyArray) -> AnyArray:
    """The solution x of L x = `excess`, L the Laplacian of symmetric `edges` (K, K), up to a shift.

    With a diagonal of 1, so that classes between which little flows lose no digits; the ridge is
    what its rounding may take from the least eigenvalue where classes fall apart.
    """
    degrees = edges.sum(0)
    root = xp.sqrt(xp.where(degrees > 0, degrees, 1))  # nothing flows to or from some classes
    outer = xp.outer(root, root)
    scaled = (xp.diag(degrees) - edges) / outer
    pinned = outer / (root @ root)  # the shift, which the Laplacian leaves open
    ridge = 4 * len(edges) * float(np.finfo(edges.dtype).eps)
    system = scaled + pinned + xp.diag(xp.where(degrees > 0, ridge, 1.0))
    return definite_solution(xp, system, excess / root) / root


def _by_passes(
    xp: ArrayModule, form: DualForm, sums: Callable[..., Any], shift: AnyArray
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`look` and `solve` of `_lifts` where there are many classes."""

    def mixing(lifts: AnyArray) -> AnyArray:
        return xp.append(lifts, xp.ones_like(lifts[:1]))

    def look(lifts: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
        return tuple(sums(_imbalance, shift, mixing(lifts)))

    def solve(lifts: AnyArray, diagonal: AnyArray, excess: AnyArray) -> AnyArray:
        def product(along: AnyArray) -> AnyArray:
            return sums(_flow_curve, shift, mixing(lifts), along)

        floor = xp.maximum(diagonal.mean() * 1e-8, 1e-300)
        return _solved(xp, product, diagonal + floor, excess, 1e-3)

    return look, solve


def _imbalance(
    xp: ArrayModule, form: DualForm, block: Block, shift: AnyArray, mixing: AnyArray
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """The whole flow, outflow minus inflow of every class, and their sum."""
    a, own = feasible(xp, form, block, shift)
    a = mixed(xp, form, a, block.labels, own, mixing) * block.counts[None, :]
    out = own * total(xp, a)[None, :]
    return a.sum(), (out - a).sum(1), (out + a).sum(1)


def _flow_curve(
    xp: ArrayModule,
    form: DualForm,
    block: Block,
    shift: AnyArray,
    mixing: AnyArray,
    along: AnyArray,
) -> AnyArray:
    """The Laplacian of the flows, each taken both ways, times `along`, (K,)."""
    a, own = feasible(xp, form, block, shift)
    a = mixed(xp, form, a, block.labels, own, mixing) * block.counts[None, :]
    along = xp.broadcast_to(along[:, None], a.shape)
    return form.curve(xp, Bend(a, xp.zeros_like(block.counts)), own, along).sum(1)
