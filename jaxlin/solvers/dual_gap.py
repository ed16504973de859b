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
from jax import Array
from jax.typing import ArrayLike

from jaxlin.solvers.balance import balanced_bias, mixing_that_balances
from jaxlin.solvers.certificate import dual_point, farthest_bias
from jaxlin.solvers.dual_losses import Block, DualForm, maximizers, total
from jaxlin.solvers.truncated_newton import LOW

BIAS_STEPS = 15


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
    plain = weights @ inputs.T + offsets
    scores = jnp.where(present[:, None], plain + bias[:, None], LOW)
    block = Block(scores, labels, counts, margin=margin)
    _, z, own = maximizers(jnp, form, block)
    losses = counts * form.loss(jnp, z, own)
    objective = losses.sum() + strength * jnp.vdot(weights, weights)
    rounding = _Rounding(inputs, len(bias))
    masses = jnp.zeros_like(bias).at[labels].add(counts)
    shift, mixing = jnp.zeros_like(bias), None
    if free:

        def sums_of(f: Any, *arguments: Any) -> Any:
            return f(jnp, form, block, *arguments)

        settings: Any = {"dtype": scores.dtype, "steps": BIAS_STEPS}
        accuracy = rounding.unit * objective
        shift = balanced_bias(jnp, form, sums_of, masses, accuracy=accuracy, **settings)
        mixing = mixing_that_balances(jnp, form, sums_of, shift)
    a, own = dual_point(jnp, form, block, shift, mixing)
    residuals = form.residuals(jnp, a, own) * counts[None, :]
    gains = counts * form.gain(jnp, a, own, margin)
    products, sums = residuals @ inputs, residuals.sum(1)
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
            radius = jnp.where(counts > 0, lengths, 0).max()
            norm = jnp.sqrt(objective / strength)
            farthest = farthest_bias(jnp, form, masses, objective, norm, radius, margin)
            farthest = farthest + 2 * widest
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
