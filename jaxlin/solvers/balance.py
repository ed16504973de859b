r"""Dual points whose residuals sum to zero in every class, so that the free bias drops out.

Newton's method in the K biases nearly balances the maximizers, since the derivative of the mean
smoothed loss in b is rho. What is left is removed by moving mass between classes:

- softmax: each class in excess sends a share of its mass to the classes in deficit, so that every
  a_i stays on its simplex;
- pairs (true class y against rival k): factors on the flows F_yk = sum over y_i = y of c_i a_ik,
  whose in- and outflow must agree, scaled to at most 1 so that every a_i stays feasible. Few
  classes have K x K factors, from weighted Laplacian systems; many have exp(lift_y - lift_k), the
  balancing of a matrix by a diagonal similarity, which is the minimum of the convex
  sum F_yk exp(lift_y - lift_k) (Kalantari, Khachiyan and Shokoufandeh, 1997,
  doi:10.1137/S0895479895289765);
- one-vs-rest: factors on either side of each class, which shrink the heavier one.

For many classes nothing of K x K is made: conjugate gradients multiply with the second derivatives
in a pass over the scores.
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
from typing import Any

import numpy as np

from jaxlin.solvers.dual_losses import AnyArray, ArrayModule, Bend, DualForm, own_of, settled, total
from jaxlin.solvers.krylov import conjugate_gradients

UNIT = 2.0**-53
"""Relative rounding of float64."""
WIDE = 200
"""Classes beyond which nothing of K x K is made."""
PRODUCTS = 30
"""Conjugate gradient steps of one Newton step in K numbers."""


def shifted(scores: AnyArray, shift: AnyArray) -> AnyArray:
    return scores + shift.astype(scores.dtype)[:, None]


def _maximizers(
    xp: ArrayModule,
    form: DualForm,
    scores: AnyArray,
    labels: AnyArray,
    shift: AnyArray,
    margin: AnyArray,
    smoothing: AnyArray,
    anchor: AnyArray,
) -> tuple[AnyArray, AnyArray, AnyArray]:
    own = own_of(xp, labels, scores.shape[0])
    z = form.shortfalls(xp, shifted(scores, shift), own, margin)
    return form.maximizer(xp, z, smoothing, anchor), z, own


def feasible(
    xp: ArrayModule,
    form: DualForm,
    scores: AnyArray,
    labels: AnyArray,
    shift: AnyArray,
    margin: AnyArray,
    smoothing: AnyArray,
    anchor: AnyArray,
) -> tuple[AnyArray, AnyArray]:
    """The maximizers as dual points in float64: what rounding put outside the set is put back."""
    a, _, own = _maximizers(xp, form, scores, labels, shift, margin, smoothing, anchor)
    a = a.astype(xp.float64)
    if form.geometry == "softmax":
        a = a / total(xp, a)[None, :]
    elif form.name == "crammer-singer":
        a = a / xp.maximum(total(xp, a), 1.0)[None, :]
    return a, own


def _bias_newton(
    xp: ArrayModule,
    form: DualForm,
    scores: AnyArray,
    labels: AnyArray,
    counts: AnyArray,
    shift: AnyArray,
    margin: AnyArray,
    smoothing: AnyArray,
    anchor: AnyArray,
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Mean smoothed loss, its derivative and second derivative (or its diagonal) in the bias."""
    a, z, own = _maximizers(xp, form, scores, labels, shift, margin, smoothing, anchor)
    a, z = settled(xp, a, z)
    value = (counts * form.smoothed(xp, z, own, a, smoothing, anchor)).sum()
    bend = form.bend(xp, a, smoothing)
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
    xp: ArrayModule,
    form: DualForm,
    scores: AnyArray,
    labels: AnyArray,
    counts: AnyArray,
    shift: AnyArray,
    along: AnyArray,
    margin: AnyArray,
    smoothing: AnyArray,
    anchor: AnyArray,
) -> AnyArray:
    """The second derivative in the bias times `along`, (K,)."""
    a, _, own = _maximizers(xp, form, scores, labels, shift, margin, smoothing, anchor)
    bend = form.bend(xp, a, smoothing)
    along = xp.broadcast_to(along.astype(scores.dtype)[:, None], scores.shape)
    curved = form.curve(xp, bend, own, along)
    return (counts[None, :] * curved).sum(1)


def balanced_bias(
    run: Callable[..., Any],
    form: DualForm,
    data: tuple[AnyArray, ...],
    extra: tuple[AnyArray, ...],
    *,
    steps: int = 30,
    accuracy: float = 1e-15,
) -> np.ndarray:
    """Newton in K dimensions with halving: the bias at which the maximizers balance.

    Args:
      run: a `summing_runner`.
      data: scores (K, N), labels (N,), counts (N,).
      extra: margin, smoothing, anchor.
    """
    classes, noise = data[0].shape[0], 64 * np.finfo(data[0].dtype).eps
    shift = np.zeros(classes)
    value, slope, second = (np.asarray(x) for x in run(_bias_newton, form, *data, shift, *extra))
    for _ in range(steps):
        size = np.abs(slope).max()
        if size < accuracy:
            break
        step = _bias_step(run, form, data, extra, shift, slope, second)
        for _ in range(12):
            trial = shift + step
            found = [np.asarray(x) for x in run(_bias_newton, form, *data, trial, *extra)]
            reached = np.abs(found[1]).max()
            better = found[0] <= value + 1e-4 * slope @ step
            better = better or (reached < size and found[0] <= value + noise * abs(value))
            if better or -slope @ step < noise * abs(value):
                break
            step = step / 4
        if not better:
            break
        shift, (value, slope, second) = trial, found
        if reached > 0.1 * size and -slope @ step < noise * abs(value):
            break  # what is left is rounding
    return shift


def _bias_step(
    run: Callable[..., Any],
    form: DualForm,
    data: tuple[AnyArray, ...],
    extra: tuple[AnyArray, ...],
    shift: np.ndarray,
    slope: np.ndarray,
    second: np.ndarray,
) -> np.ndarray:
    classes = len(slope)
    if second.ndim == 2:
        mean = np.trace(second) / classes + 1e-14
        system = second + 1e-10 * mean * np.eye(classes)
        if form.geometry == "one-vs-rest":
            return -np.linalg.solve(system, slope)
        # a common shift changes no loss: what rounding says of it would grow without bound
        step = -np.linalg.solve(system + mean / classes, slope)
        return step - step.mean()
    if form.geometry == "one-vs-rest":
        return -slope / np.maximum(second, 1e-14)
    ridge = second.mean() * 1e-8 + 1e-14

    def product(along: np.ndarray) -> np.ndarray:
        return np.asarray(run(_bias_curve, form, *data, shift, along, *extra)) + ridge * along

    return _solved(product, second + ridge, -slope, 0.03)


def _solved(
    product: Callable[[np.ndarray], np.ndarray],
    diagonal: np.ndarray,
    right: np.ndarray,
    accuracy: float,
) -> np.ndarray:
    """Conjugate gradients in K numbers with Jacobi's preconditioner."""
    found = conjugate_gradients(product, lambda r: r / diagonal, right, accuracy, PRODUCTS)
    return found[0][0]


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
    if mixing.ndim == 2:
        return a * xp.take(mixing.T, labels, axis=1)
    lifts, scale = mixing[:-1], mixing[-1]
    return a * scale * xp.exp(xp.take(lifts, labels)[None, :] - lifts[:, None])


def mixing_that_balances(
    run: Callable[..., Any],
    form: DualForm,
    data: tuple[AnyArray, ...],
    shift: np.ndarray,
    extra: tuple[AnyArray, ...],
    masses: np.ndarray,
) -> np.ndarray:
    """What `mixed` needs to balance the maximizers at scores shifted by `shift`.

    Args:
      run, data, extra: as for `balanced_bias`.
      masses: (K,), the sum of the counts of each class.
    """
    classes = data[0].shape[0]
    if form.geometry == "softmax":
        have = np.asarray(run(_masses_of, form, *data, shift, *extra))
        return _exchange(have, masses)
    if form.geometry == "one-vs-rest":
        return _lighter_sides(run, form, data, shift, extra)
    if classes > WIDE:
        return _lifts(run, form, data, shift, extra)
    mixing, done = np.ones((classes, classes)), False
    capped = not form.smooth and "squared" not in form.name
    for _ in range(3):
        flows = np.asarray(run(_flows, form, *data, shift, mixing, *extra))
        mixing, done = _circulation(flows, mixing, capped)
        if done:
            break
    return mixing


def _masses_of(
    xp: ArrayModule,
    form: DualForm,
    scores: AnyArray,
    labels: AnyArray,
    counts: AnyArray,
    shift: AnyArray,
    margin: AnyArray,
    smoothing: AnyArray,
    anchor: AnyArray,
) -> AnyArray:
    a, _ = feasible(xp, form, scores, labels, shift, margin, smoothing, anchor)
    return (a * counts[None, :]).sum(1)


def _exchange(have: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """(3, K) for softmax: the share kept, the share given away, and who gets it."""
    excess, deficit = np.maximum(have - masses, 0), np.maximum(masses - have, 0)
    if not deficit.any():
        return np.stack([np.ones(len(have)), *np.zeros((2, len(have)))])
    share = np.divide(excess, have, out=np.zeros_like(have), where=have > 0)
    return np.stack([1 - share, share, deficit / deficit.sum()])


def _sides(
    xp: ArrayModule,
    form: DualForm,
    scores: AnyArray,
    labels: AnyArray,
    counts: AnyArray,
    shift: AnyArray,
    mixing: AnyArray,
    margin: AnyArray,
    smoothing: AnyArray,
    anchor: AnyArray,
) -> AnyArray:
    """(2, K): the mass of each class in its own rows and in the others."""
    a, own = feasible(xp, form, scores, labels, shift, margin, smoothing, anchor)
    a = mixed(xp, form, a, labels, own, mixing) * counts[None, :]
    return xp.stack([xp.where(own, a, 0).sum(1), xp.where(own, 0, a).sum(1)])


def _lighter_sides(
    run: Callable[..., Any],
    form: DualForm,
    data: tuple[AnyArray, ...],
    shift: np.ndarray,
    extra: tuple[AnyArray, ...],
) -> np.ndarray:
    mixing = np.ones((2, data[0].shape[0]))
    for _ in range(3):
        sides = np.asarray(run(_sides, form, *data, shift, mixing, *extra))
        if np.abs(sides[0] - sides[1]).max() < 4 * UNIT:
            break
        goal = sides.min(0)[None, :]
        mixing = mixing * np.divide(goal, sides, out=np.ones_like(sides), where=sides > 0)
    return mixing


def _flows(
    xp: ArrayModule,
    form: DualForm,
    scores: AnyArray,
    labels: AnyArray,
    counts: AnyArray,
    shift: AnyArray,
    mixing: AnyArray,
    margin: AnyArray,
    smoothing: AnyArray,
    anchor: AnyArray,
) -> AnyArray:
    """(K, K): the weighted dual mass of class k in the rows of class y."""
    a, own = feasible(xp, form, scores, labels, shift, margin, smoothing, anchor)
    a = mixed(xp, form, a, labels, own, mixing)
    (weighted, a) = settled(xp, own * counts[None, :], a)
    return weighted @ a.T


def _circulation(flows: np.ndarray, mixing: np.ndarray, capped: bool) -> tuple[np.ndarray, bool]:
    """Factors on the flows between classes after which in- and outflow agree."""
    start = flows
    total = np.ones_like(flows)
    for _ in range(60):
        off = flows.sum(0) - flows.sum(1)  # inflow minus outflow
        if np.abs(off).max() < 2 * UNIT:
            break
        both = flows + flows.T
        laplacian = np.diag(both.sum(0)) - both
        lift = np.linalg.lstsq(laplacian, off, rcond=1e-13)[0]
        factor = np.maximum(1 + lift[:, None] - lift[None, :], 0.1)
        total = total * factor
        if capped:
            used = total[start > 0]
            total = np.minimum(total / max(used.max(initial=1.0), 1.0), 1)
        flows = start * total
    else:
        if np.abs(flows.sum(0) - flows.sum(1)).max() > 1e-9:
            return np.zeros_like(mixing), True  # nothing balances: the trivial dual point
    return mixing * total, np.array_equal(total, np.ones_like(total))


def _imbalance(
    xp: ArrayModule,
    form: DualForm,
    scores: AnyArray,
    labels: AnyArray,
    counts: AnyArray,
    shift: AnyArray,
    mixing: AnyArray,
    margin: AnyArray,
    smoothing: AnyArray,
    anchor: AnyArray,
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """The whole flow, outflow minus inflow of every class, and their sum."""
    a, own = feasible(xp, form, scores, labels, shift, margin, smoothing, anchor)
    a = mixed(xp, form, a, labels, own, mixing) * counts[None, :]
    out = own * total(xp, a)[None, :]
    return a.sum(), (out - a).sum(1), (out + a).sum(1)


def _flow_curve(
    xp: ArrayModule,
    form: DualForm,
    scores: AnyArray,
    labels: AnyArray,
    counts: AnyArray,
    shift: AnyArray,
    mixing: AnyArray,
    along: AnyArray,
    margin: AnyArray,
    smoothing: AnyArray,
    anchor: AnyArray,
) -> AnyArray:
    """The Laplacian of the flows, each taken both ways, times `along`, (K,)."""
    a, own = feasible(xp, form, scores, labels, shift, margin, smoothing, anchor)
    a = mixed(xp, form, a, labels, own, mixing) * counts[None, :]
    along = xp.broadcast_to(along[:, None], a.shape)
    return form.curve(xp, Bend(a, xp.zeros_like(counts)), own, along).sum(1)


def _lifts(
    run: Callable[..., Any],
    form: DualForm,
    data: tuple[AnyArray, ...],
    shift: np.ndarray,
    extra: tuple[AnyArray, ...],
) -> np.ndarray:
    """(K + 1,): lifts and the scale of all factors exp(lift_y - lift_k), by Newton's method."""
    mixing = np.append(np.zeros(data[0].shape[0]), 1.0)

    def look(mixing: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(x) for x in run(_imbalance, form, *data, shift, mixing, *extra)]

    value, off, diagonal = look(mixing)
    for _ in range(20):
        if np.abs(off).max() < 4 * UNIT:
            break

        def product(along: np.ndarray, mixing: np.ndarray = mixing) -> np.ndarray:
            return np.asarray(run(_flow_curve, form, *data, shift, mixing, along, *extra))

        floor = max(diagonal.mean() * 1e-8, 1e-300)
        step = _solved(product, diagonal + floor, -off, 1e-3)
        step = step / max(np.ptp(step), 1.0)
        trial = mixing + np.append(step, 0.0)
        found = look(trial)
        if not np.abs(found[1]).sum() < np.abs(off).sum() and not found[0] < value:
            break
        mixing, (value, off, diagonal) = trial, found
    if "squared" not in form.name:
        mixing[-1] = np.exp(-np.ptp(mixing[:-1]))
    return mixing
