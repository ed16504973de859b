r"""The duality gap as one pure function of arrays, in the arithmetic of its arguments.

The bound is that of `jaxlin.solvers.certificate`: for a dual point a_i whose residuals
r_i = c_i r(a_i) balance, rho = sum r_i = 0, and G = sum r_i x_i^T,

    objective - bound  =  sum_i c_i (loss_i - gain(a_i)) - sum_i r_i . (s_i - b)
                          +  |G + 2 strength W|^2 / (4 strength),

which is that bound taken off the objective, arranged so that nothing large cancels: the first
line is a sum of nonnegative terms up to b . rho, and 0 where the maximizers balance by themselves.

Rounding is added to the gap. In float64 it is a worst case, so the gap is a proof: sums of n terms
have a relative error of at most n 2^-53 (Higham, 2002, section 3.1), and what is left of rho
multiplies a bound on the optimal bias. In narrower arithmetic a worst case would hide the gap, and
what is added is the statistical size of these errors, sqrt(n) in place of n (Higham and Mary, 2019,
doi:10.1137/18M1226312): an estimate.
"""

__all__ = ["dual_gap"]

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import cho_factor, cho_solve
from jax.typing import ArrayLike

from jaxlin.solvers.dual_losses import DualForm, own_of, total
from jaxlin.solvers.krylov import line_minimum, solve_compiled
from jaxlin.solvers.truncated_newton import LOW

BIAS_STEPS = 15
BIAS_PRODUCTS = 60
CIRCULATIONS = 8


def dual_gap(
    form: DualForm,
    inputs: Array,
    labels: Array,
    counts: Array,
    present: Array,
    weights: Array,
    bias: Array,
    strength: Array,
    margin: Array,
    offsets: ArrayLike = 0.0,
    *,
    free: bool,
) -> tuple[Array, Array]:
    """The objective at these parameters, and how far it may lie above the optimum.

    Args:
      form: smooth.
      inputs, labels, counts: (N, D), (N,), and (N,) that sum to one.
      present: (K,) bool, the classes that count.
      weights, bias: (K, D), (K,).
      strength, margin: of the objective. Strength 0 proves nothing: the gap is the objective.
      offsets: (K, N), fixed parts o of the scores, which add r_i . o_i to the bound.
      free: whether the bias is free.

    Returns:
      Objective and gap, in the dtype of the inputs.
    """
    own = own_of(jnp, labels, len(bias))
    plain = weights @ inputs.T + offsets
    scores = jnp.where(present[:, None], plain + bias[:, None], LOW)
    z = form.shortfalls(jnp, scores, own, margin)
    losses = counts * form.loss(jnp, z, own)
    objective = losses.sum() + strength * jnp.vdot(weights, weights)
    a, residuals = _balanced(form, scores, own, labels, counts, present, margin, free=free)
    gains = counts * _gains(form, a, own, margin)
    products, sums = residuals @ inputs, residuals.sum(1)
    rounding = _Rounding(inputs, len(bias))
    rests = losses - gains - total(jnp, residuals * (plain if rounding.proves else scores))
    slope = products + 2 * strength * weights

    norms = jnp.sqrt((residuals**2).sum(0))
    lengths = jnp.sqrt((inputs**2).sum(1))
    off = rounding.of_rows(norms * lengths)
    spread = jnp.sqrt((weights**2).sum(1).max()) * lengths
    widest = jnp.abs(jnp.asarray(offsets, inputs.dtype)).max()
    spread = spread + jnp.abs(jnp.where(present, bias, 0)).max() + widest
    # of the objective, of the gains and of the products with the scores
    error = rounding.of_sum(losses + jnp.abs(gains)) + rounding.of_scores(norms * spread)
    error = 2 * error + rounding.unit * objective
    gap = jnp.maximum(rests.sum(), 0) + (jnp.linalg.norm(slope) + off) ** 2 / (4 * strength)
    if free:
        # how far the bias is from optimal, near the optimum; no bound
        farthest: Array | float = 1.0
        if rounding.proves:
            farthest = 2 * widest + _farthest_bias(
                form, labels, counts, present, objective, strength, margin, lengths
            )
        left = jnp.abs(sums) + jax.vmap(rounding.of_rows)(jnp.abs(residuals))
        gap = gap + (left * farthest).sum()
    gap = (gap + error) * (1 + 64 * rounding.unit)
    counting = jnp.isfinite(gap) & (gap < objective) & (strength > 0)
    return objective, jnp.where(counting, gap, objective)  # no loss is negative


class _Rounding:
    """How far sums over rows can be off: a worst case in float64, else their statistical size."""

    def __init__(self, inputs: Array, classes: int):
        rows, features = inputs.shape
        self.classes = classes
        self.proves = inputs.dtype == jnp.float64
        self.unit = jnp.finfo(inputs.dtype).eps / 2
        depth = rows + features + classes + 64
        self.deep = self.unit * (2 * depth if self.proves else depth**0.5)

    def of_sum(self, terms: Array) -> Array:
        """Of a sum of terms of one sign, each of them rounded."""
        return self.deep * jnp.abs(terms).sum(-1)

    def of_rows(self, sizes: Array) -> Array:
        """Of a sum over rows whose terms have these sizes, and signs that differ."""
        return self.deep * (sizes.sum() if self.proves else jnp.sqrt((sizes**2).sum()))

    def of_scores(self, sizes: Array) -> Array:
        """Of a sum over rows whose terms are off as the scores of a row are."""
        if self.proves:
            return self.classes * self.deep * sizes.sum()
        return 2 * self.unit * jnp.sqrt((sizes**2).sum())


def _farthest_bias(
    form: DualForm,
    labels: Array,
    counts: Array,
    present: Array,
    objective: Array,
    strength: Array,
    margin: Array,
    lengths: Array,
) -> Array:
    """How far apart the optimal biases of two classes can be."""
    masses = jnp.zeros(len(present), counts.dtype).at[labels].add(counts)
    least = jnp.where(present, masses, 1).min()
    if form.geometry == "one-vs-rest":
        others = jnp.where(present, 1 - masses, 1).min()
        least = jnp.where(others > 0, jnp.minimum(least, others), least)
    radius = jnp.where(counts > 0, lengths, 0).max()
    slack = jnp.maximum(objective / least, jnp.sqrt(objective / least))
    return slack + margin + 2**0.5 * jnp.sqrt(objective / strength) * radius


def _maximizers(form: DualForm, scores: Array, own: Array, margin: Array) -> Array:
    return form.maximizer(jnp, form.shortfalls(jnp, scores, own, margin), 1.0, 0.0)


def _balanced(
    form: DualForm,
    scores: Array,
    own: Array,
    labels: Array,
    counts: Array,
    present: Array,
    margin: Array,
    *,
    free: bool,
) -> tuple[Array, Array]:
    """A dual point (K, N) and its weighted residuals, which sum to zero if the bias is free."""
    if free:
        shift = _balancing_shift(form, scores, own, labels, counts, present, margin)
        scores = scores + shift[:, None]
    a = _maximizers(form, scores, own, margin)
    if form.geometry == "softmax":
        a = a / total(jnp, a)[None, :]
    if free:
        a = _mixed(form, a, own, labels, counts)
    return a, form.residuals(jnp, a, own) * counts[None, :]


def _balancing_shift(
    form: DualForm,
    scores: Array,
    own: Array,
    labels: Array,
    counts: Array,
    present: Array,
    margin: Array,
) -> Array:
    """(K,): Newton's method in the bias, whose derivative is what does not balance."""
    eps, tiny = jnp.finfo(scores.dtype).eps, jnp.finfo(scores.dtype).tiny
    within = (1.0 if scores.dtype == jnp.float64 else scores.shape[1] ** 0.5) * 2 * eps

    def going(state: tuple[Any, ...]) -> Array:
        _, off, before, count = state
        return (count < BIAS_STEPS) & (off > within) & (off < 0.5 * before)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        shift, previous, _, count = state
        now = scores + shift[:, None]
        a = _maximizers(form, now, own, margin)
        residuals = form.residuals(jnp, a, own) * counts[None, :]
        slope, size = residuals.sum(1), jnp.abs(residuals).sum()
        off = jnp.abs(slope).max() / jnp.maximum(size, tiny)
        bend = form.bend(jnp, a, 1.0)
        weighted = counts[None, :] * bend.diagonal
        second = weighted - (counts * bend.kappa)[None, :] * form.pull(jnp, bend, own) ** 2
        if form.geometry == "pairs":
            second = second + own * total(jnp, weighted)[None, :]
        diagonal = second.sum(1)
        ridge = diagonal.mean() * 1e-10 + tiny
        diagonal = diagonal + ridge

        def product(along: tuple[Array, ...]) -> tuple[Array, ...]:
            wide = jnp.broadcast_to(along[0][:, None], scores.shape)
            found = counts[None, :] * form.curve(jnp, bend, own, wide)
            return (found.sum(1) + ridge * along[0],)

        (along,), _ = solve_compiled(
            product,
            lambda residual: (residual[0] / diagonal,),
            (-slope,),
            lambda residual, square, start: (square <= 1e-6 * start) | (off <= within),
            BIAS_PRODUCTS,
        )
        along = jnp.where(present, along, 0)
        wide = jnp.broadcast_to(along[:, None], scores.shape)
        rows = labels, counts, margin
        length = line_minimum(form, now, wide, *rows, jnp.vdot(slope, along), 0.0, 0.0)
        length = jnp.where(off < previous, length, 0)  # else the last step followed rounding
        return shift + length * along, off, previous, count + 1

    far = jnp.full((), 1e30, scores.dtype)
    begin: tuple[Any, ...] = (jnp.zeros(scores.shape[0], scores.dtype), far / 4, far, 0)
    return lax.while_loop(going, step, begin)[0]


def _gains(form: DualForm, a: Array, own: Array, margin: Array) -> Array:
    """What rows add to the dual objective: for softmax from the rivals, who keep their digits."""
    if form.geometry != "softmax":
        return form.gain(jnp, a, margin)
    rivals = jnp.where(own, 0, a)
    rest = jnp.minimum(total(jnp, rivals), 1)
    logs = jnp.where(rivals > 0, jnp.log(jnp.where(rivals > 0, rivals, 1)), 0)
    own_log = jnp.log1p(-jnp.where(rest < 1, rest, 0))  # at 1 what it multiplies is 0
    return -total(jnp, rivals * logs) - (1 - rest) * own_log


def _mixed(form: DualForm, a: Array, own: Array, labels: Array, counts: Array) -> Array:
    """Mass moved between classes until the dual point balances; see `jaxlin.solvers.balance`."""
    weighted = a * counts[None, :]
    if form.geometry == "softmax":
        have, off = weighted.sum(1), (form.residuals(jnp, a, own) * counts[None, :]).sum(1)
        excess, deficit = jnp.maximum(off, 0), jnp.maximum(-off, 0)
        share = excess / jnp.where(have > 0, have, 1)
        missing = deficit.sum()
        goes = deficit / jnp.where(missing > 0, missing, 1)
        share = jnp.where(missing > 0, share, 0)
        moved = (1 - share)[:, None] * a
        return moved + goes[:, None] * total(jnp, share[:, None] * a)[None, :]
    if form.geometry == "one-vs-rest":
        inside, outside = (weighted * own).sum(1), (weighted * ~own).sum(1)
        goal = jnp.minimum(inside, outside)
        factors = [
            jnp.where(side > 0, goal / jnp.where(side > 0, side, 1), 1)
            for side in (inside, outside)
        ]
        return a * jnp.where(own, factors[0][:, None], factors[1][:, None])
    flows = (own * counts[None, :]) @ a.T
    lifts = _lifts(flows)
    return a * jnp.exp(jnp.take(lifts, labels)[None, :] - lifts[:, None])


def _lifts(flows: Array) -> Array:
    """(K,) exponents whose factors exp(lift_y - lift_k) make in- and outflow of classes agree.

    Newton's method on the convex sum of F_yk exp(lift_y - lift_k) (Kalantari, Khachiyan and
    Shokoufandeh, 1997, doi:10.1137/S0895479895289765).
    """
    classes, eps = len(flows), jnp.finfo(flows.dtype).eps

    def scaled(lifts: Array) -> Array:
        return flows * jnp.exp(lifts[:, None] - lifts[None, :])

    def off_of(lifts: Array) -> Array:
        now = scaled(lifts)
        return now.sum(0) - now.sum(1)

    def going(state: tuple[Any, ...]) -> Array:
        _, off, before, count = state
        return (count < CIRCULATIONS) & (off > eps * flows.sum()) & (off < 0.5 * before)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        lifts, off, _, count = state
        now = scaled(lifts)
        change = _against(now + now.T, now.sum(0) - now.sum(1))
        change = change / jnp.maximum(jnp.ptp(change), 1.0)
        lifts = lifts + change
        return lifts, jnp.abs(off_of(lifts)).max(), off, count + 1

    nothing = jnp.zeros(classes, flows.dtype)
    far = jnp.full((), jnp.inf, flows.dtype)
    begin: tuple[Any, ...] = (nothing, jnp.abs(off_of(nothing)).max(), far, 0)
    return lax.while_loop(going, step, begin)[0]


def _against(edges: Array, excess: Array) -> Array:
    """The solution x of L x = `excess`, L the Laplacian of symmetric `edges` (K, K), up to a shift.

    By Cholesky, with a diagonal of 1, so that classes between which little flows lose no digits;
    the ridge is what its rounding may take from the least eigenvalue where classes fall apart.
    """
    degrees = edges.sum(0)
    root = jnp.sqrt(jnp.where(degrees > 0, degrees, 1))  # nothing flows to or from some classes
    size = jnp.vdot(root, root)
    scaled = (jnp.diag(degrees) - edges) / (root[:, None] * root[None, :])
    pinned = root[:, None] * root[None, :] / size  # the shift, which the Laplacian leaves open
    ridge = 4 * len(edges) * jnp.finfo(edges.dtype).eps
    alone = jnp.where(degrees > 0, ridge, 1)
    factor = cho_factor(scaled + pinned + jnp.diag(alone))
    found = cho_solve(factor, excess / root) / root
    return jnp.where(jnp.isfinite(found).all(), found, 0)
