r"""The losses as maxima over dual variables: what smoothing and lower bounds are made of.

Every loss here is a maximum of concave functions of its scores s (K classes, true class y),

    loss(s, y) = max over a in A of   a . z(s) - h(a),

where z(s) are the shortfalls and the set A and the function h are the loss's own:

    loss                    z_j                     A                           h(a)
    softmax                 s_j - s_y               a >= 0, sum a = 1           sum a log a
    hinge (Weston-Watkins)  margin + s_j - s_y      0 <= a <= 1, a_y = 0        0
    crammer-singer          margin + s_j - s_y      a >= 0, sum a <= 1, a_y = 0 0
    one-vs-rest             margin - t_j s_j        0 <= a <= 1                 0
    squared-hinge           margin + s_j - s_y      a >= 0, a_y = 0             sum a^2 / 4
    squared-crammer-singer  margin + s_j - s_y      a >= 0, a_y = 0             (sum a)^2 / 4
    squared-one-vs-rest     margin - t_j s_j        a >= 0                      sum a^2 / 4

(t_j = 1 for the label and -1 else). Each is an identity of one line:

    softmax           log sum exp z = max of a . z - sum a log a, at a = exp(z) / sum exp z: the
                      conjugate of log-sum-exp (Boyd and Vandenberghe, 2004, example 3.25)
    hinges            max(0, z) = max of a z over 0 <= a <= 1; a sum of them rival by rival, class
                      by class
    crammer-singer    max(0, max z_j): linear over {a >= 0, sum a <= 1}, so at a corner, 0 or e_j
    squared           max(0, z)^2 = max of a z - a^2 / 4 over a >= 0, at a = 2 max(0, z)
    squared-crammer-  of all a >= 0 of one sum t the best has a . z = t max z_j, which leaves
    singer            max of t max z_j - t^2 / 4 over t >= 0

A conjugate is the least convex function with its tangents (Rockafellar, 1970, section 12), so that
no feasible a exceeds the loss: that is all a lower bound needs.

Smoothing subtracts (smoothing / 2) |a - anchor|^2 inside the maximum (Nesterov, 2005,
doi:10.1007/s10107-004-0552-5; with `anchor` the previous maximizer this is the proximal point
method on the dual, Rockafellar, 1976, doi:10.1287/moor.1.2.97). The maximizers are feasible
whatever the scores are, which is why they prove lower bounds (`jaxlin.solvers.certificate`).

The derivative in the scores is r(a): a - e_y for softmax, a - e_y sum(a) for pairs (true class
against rival), -t_j a_j for one-vs-rest. Functions take the array module `xp`, NumPy or
jax.numpy; arrays are class first, (K, R).
"""

__all__ = [
    "FORMS",
    "AnyArray",
    "ArrayModule",
    "Bend",
    "Block",
    "DualForm",
    "form_of",
    "largest",
    "maximizers",
    "module_of",
    "own_of",
    "repeat",
    "settled",
    "total",
]

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlin import losses

ArrayModule = Any
"""NumPy or jax.numpy."""
AnyArray = Any
"""An array of the array module, or a number, perhaps traced."""


def module_of(array: AnyArray) -> ArrayModule:
    """jax.numpy of XLA's arrays, NumPy of all else."""
    return jnp if isinstance(array, jax.Array) else np


class Bend(NamedTuple):
    """Second derivative of a smoothed loss in z: diag(d) - kappa d d^T, row by row."""

    diagonal: AnyArray
    """(K, R): d, 0 where the maximizer sits on a bound."""
    kappa: AnyArray
    """(R,)"""


class DualForm(NamedTuple):
    """One loss as a maximum over dual variables."""

    name: str
    geometry: str
    """"softmax", "pairs" or "one-vs-rest": which r(a)."""
    smooth: bool
    """Differentiable as it is: needs no smoothing."""
    maximizer: Callable[..., AnyArray]
    """(xp, z, smoothing, anchor) -> a (K, R)"""
    penalty: Callable[..., AnyArray]
    """(xp, a) -> h(a) (R,)"""
    bend: Callable[..., Bend]
    """(xp, a, smoothing) -> Bend"""
    loss: Callable[..., AnyArray]
    """(xp, z, own) -> the loss itself (R,)"""

    def shortfalls(
        self, xp: ArrayModule, scores: AnyArray, own: AnyArray, margin: AnyArray
    ) -> AnyArray:
        """z, (K, R). In pairs the true class has -1e30, so that it is never active."""
        if self.geometry == "softmax":
            return scores - total(xp, scores * own)[None, :]
        if self.geometry == "pairs":
            z = scores - total(xp, scores * own)[None, :] + margin
            return xp.where(own, -1e30, z)
        return margin + xp.where(own, -scores, scores)

    def residuals(self, xp: ArrayModule, a: AnyArray, own: AnyArray) -> AnyArray:
        """r(a), (K, R): the derivative of the loss in the scores."""
        if self.geometry == "softmax":  # 1 - a_y as the sum of the others keeps its digits
            rivals = xp.where(own, 0, a)
            return rivals - own * total(xp, rivals)[None, :]
        if self.geometry == "pairs":
            return a - own * total(xp, a)[None, :]
        return xp.where(own, -a, a)

    def loss_and_residuals(
        self, xp: ArrayModule, scores: AnyArray, own: AnyArray, margin: AnyArray
    ) -> tuple[AnyArray, AnyArray]:
        """A smooth loss (R,), and its derivative in the scores (K, R)."""
        if self.geometry == "softmax":
            return _cross_entropy_and_residuals(xp, self.shortfalls(xp, scores, own, margin), own)
        z = self.shortfalls(xp, scores, own, margin)
        return self.loss(xp, z, own), self.residuals(xp, self.maximizer(xp, z, 1.0, 0.0), own)

    def gain(self, xp: ArrayModule, a: AnyArray, own: AnyArray, margin: AnyArray) -> AnyArray:
        """What a row adds to the dual objective: max-free part of a . z - h(a) at s = 0, (R,)."""
        if self.geometry == "softmax":
            return _entropy(xp, a, own)
        return margin * total(xp, a) - self.penalty(xp, a)

    def smoothed(
        self,
        xp: ArrayModule,
        z: AnyArray,
        own: AnyArray,
        a: AnyArray,
        smoothing: AnyArray,
        anchor: AnyArray,
    ) -> AnyArray:
        """The smoothed loss at its maximizer `a`, (R,)."""
        if self.smooth:
            return self.loss(xp, z, own)
        linear = total(xp, a * xp.where(a > 0, z, 0))
        return linear - self.penalty(xp, a) - 0.5 * smoothing * total(xp, (a - anchor) ** 2)

    def curve(self, xp: ArrayModule, bend: Bend, own: AnyArray, directions: AnyArray) -> AnyArray:
        """Second derivative in the scores times `directions`, (K, R)."""
        d, kappa = bend
        if self.geometry == "pairs":
            moved = d * (directions - total(xp, directions * own)[None, :])
            moved = moved - own * total(xp, moved)[None, :]
        else:
            moved = d * directions
        q = self.pull(xp, bend, own)
        return moved - q * (kappa * total(xp, q * directions))[None, :]

    def pull(self, xp: ArrayModule, bend: Bend, own: AnyArray) -> AnyArray:
        """q (K, R): the vector of the rank-one part of the second derivative in the scores."""
        if self.geometry == "pairs":
            return bend.diagonal - own * total(xp, bend.diagonal)[None, :]
        return bend.diagonal


def total(xp: ArrayModule, values: AnyArray) -> AnyArray:
    """Sum over the classes: (K, R) -> (R,).

    As a product: XLA's sums over the first axis of a wide array, inside a loop on a CPU, take
    fifteen times as long.
    """
    if xp is np:
        return values.sum(0)
    ones = xp.ones(values.shape[0], values.dtype)
    return xp.matmul(ones, values, precision=lax.Precision.HIGHEST)


BY_PLACE = 24
"""Classes up to which XLA on a CPU finds the place of a maximum sooner than itself: three times as
fast there, at 100 classes four times slower."""


def largest(xp: ArrayModule, values: AnyArray) -> AnyArray:
    """Maximum over the classes: (K, R) -> (R,)."""
    if xp is np or values.shape[0] > BY_PLACE:
        return values.max(0)
    return xp.take_along_axis(values, xp.argmax(values, 0)[None, :], 0)[0]


def repeat(
    xp: ArrayModule, going: Callable[[Any], Any], step: Callable[[Any], Any], state: Any
) -> Any:
    """`state = step(state)` while `going(state)`, in NumPy or compiled."""
    if xp is not np:
        return lax.while_loop(going, step, state)
    while going(state):
        state = step(state)
    return state


def settled(xp: ArrayModule, *arrays: AnyArray) -> tuple[AnyArray, ...]:
    """The arrays, made once on a CPU: XLA would make them again inside every sum that is taken.

    An accelerator makes an exponential again in less time than it takes to write and read it.
    """
    if xp is np:
        return arrays
    return lax.platform_dependent(
        *arrays, cpu=lambda *made: lax.optimization_barrier(made), default=lambda *made: made
    )


def own_of(xp: ArrayModule, labels: AnyArray, classes: int) -> AnyArray:
    """(K, R) boolean: the true class of every row."""
    return labels[None, :] == xp.arange(classes)[:, None]


class Block(NamedTuple):
    """Rows as functions of their scores see them."""

    scores: AnyArray
    """(K, R)"""
    labels: AnyArray
    """(R,)"""
    counts: AnyArray
    """(R,): their weights."""
    anchor: AnyArray = 0.0
    """(K, R) or a number: of the smoothing."""
    margin: AnyArray = 1.0
    smoothing: AnyArray = 1.0


def maximizers(
    xp: ArrayModule, form: DualForm, block: Block
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """The maximizers a and the shortfalls z of a block of rows, and their true classes, (K, R)."""
    own = own_of(xp, block.labels, block.scores.shape[0])
    z = form.shortfalls(xp, block.scores, own, block.margin)
    return form.maximizer(xp, z, block.smoothing, block.anchor), z, own


def _softmax(xp: ArrayModule, z: AnyArray, smoothing: AnyArray, anchor: AnyArray) -> AnyArray:
    e = xp.exp(z - largest(xp, z)[None, :])
    return e / total(xp, e)[None, :]


def _negative_entropy(xp: ArrayModule, a: AnyArray) -> AnyArray:
    return total(xp, a * xp.log(xp.where(a > 0, a, 1)))


def _entropy(xp: ArrayModule, a: AnyArray, own: AnyArray) -> AnyArray:
    """- sum a log a, from the rivals, who keep their digits where the true class has nearly all."""
    rivals = xp.where(own, 0, a)
    rest = xp.minimum(total(xp, rivals), 1)
    logs = xp.log(xp.where(rivals > 0, rivals, 1))
    own_log = xp.log1p(-xp.where(rest < 1, rest, 0))  # at 1 what it multiplies is 0
    return -total(xp, rivals * logs) - (1 - rest) * own_log


def _exponentials(
    xp: ArrayModule, z: AnyArray, own: AnyArray
) -> tuple[AnyArray, AnyArray, AnyArray, AnyArray]:
    """log sum exp z, z_y = 0, to relative precision also where the true class wins by far; and of
    exp(z - largest z) the rivals', their sum, and the true class's."""
    most = largest(xp, z)  # at least z_y = 0
    rivals = xp.where(own, 0, xp.exp(z - most[None, :]))
    rest, own_term = total(xp, rivals), xp.exp(-most)
    return most + xp.log1p(own_term - 1 + rest), rivals, rest, own_term


def _cross_entropy(xp: ArrayModule, z: AnyArray, own: AnyArray) -> AnyArray:
    return _exponentials(xp, z, own)[0]


def _cross_entropy_and_residuals(
    xp: ArrayModule, z: AnyArray, own: AnyArray
) -> tuple[AnyArray, AnyArray]:
    """Both from the same exponentials: written-out sums would make them again in every term."""
    loss, rivals, rest, own_term = _exponentials(xp, z, own)
    return loss, (rivals - own * rest[None, :]) / (own_term + rest)[None, :]


def _box(xp: ArrayModule, z: AnyArray, smoothing: AnyArray, anchor: AnyArray) -> AnyArray:
    return xp.clip(anchor + z / smoothing, 0, 1)


def _orthant(xp: ArrayModule, z: AnyArray, smoothing: AnyArray, anchor: AnyArray) -> AnyArray:
    return 2 * xp.maximum(z, 0)


def _level(
    xp: ArrayModule, v: AnyArray, start: AnyArray, mass: AnyArray, rate: AnyArray
) -> AnyArray:
    """The level t at which sum max(v - t, 0) = mass + rate t, column by column, (1, R).

    The difference of both sides is convex and falling in t: Newton's method from a `start` below
    the root climbs to it in a few steps, without sorting (Michelot, 1986, for rate 0).
    """

    def climbed(level: AnyArray) -> AnyArray:
        above = v > level
        count = total(xp, above.astype(v.dtype))[None, :]
        found = (total(xp, xp.where(above, v, 0))[None, :] - mass) / (count + rate)
        return xp.where(count > 0, xp.maximum(found, level), level)

    def step(state: tuple[AnyArray, AnyArray, AnyArray]) -> tuple[AnyArray, AnyArray, AnyArray]:
        level, _, taken = state
        higher = climbed(level)
        return higher, (higher > level).any(), taken + 1

    def going(state: tuple[AnyArray, AnyArray, AnyArray]) -> AnyArray:
        return state[1] & (state[2] < v.shape[0] + 2)

    start = climbed(start)
    return repeat(xp, going, step, (start, xp.asarray(True), 0))[0]


def _capped_simplex(
    xp: ArrayModule, z: AnyArray, smoothing: AnyArray, anchor: AnyArray
) -> AnyArray:
    """Projection of anchor + z / smoothing onto {a >= 0, sum a <= 1}."""
    v = anchor + z / smoothing
    centred = v - largest(xp, v)[None, :]  # projecting onto sum a = 1 does not see a common shift
    level = _level(xp, centred, xp.full_like(v[:1], -1.0), 1.0, 0.0)
    inside = xp.maximum(v, 0)
    return xp.where(total(xp, inside)[None, :] <= 1, inside, xp.maximum(centred - level, 0))


def _squared_simplex(
    xp: ArrayModule, z: AnyArray, smoothing: AnyArray, anchor: AnyArray
) -> AnyArray:
    """Maximizer of a . z - (sum a)^2 / 4 - smoothing / 2 |a - anchor|^2 over a >= 0.

    Stationarity gives a = max(0, v - t) with t = sum a / (2 smoothing).
    """
    v = anchor + z / smoothing
    start = xp.maximum(largest(xp, v), 0)[None, :] / (1 + 2 * smoothing)
    return xp.maximum(v - _level(xp, v, start, 0.0, 2 * smoothing), 0)


def _zero(xp: ArrayModule, a: AnyArray) -> AnyArray:
    return xp.zeros_like(a[0])


def _squares(xp: ArrayModule, a: AnyArray) -> AnyArray:
    return total(xp, a**2) / 4


def _square_of_sum(xp: ArrayModule, a: AnyArray) -> AnyArray:
    return total(xp, a) ** 2 / 4


def _softmax_bend(xp: ArrayModule, a: AnyArray, smoothing: AnyArray) -> Bend:
    return Bend(a, xp.ones_like(a[0]))


def _box_bend(xp: ArrayModule, a: AnyArray, smoothing: AnyArray) -> Bend:
    inside = ((a > 0) & (a < 1)).astype(a.dtype)
    return Bend(inside / smoothing, xp.zeros_like(a[0]))


def _orthant_bend(xp: ArrayModule, a: AnyArray, smoothing: AnyArray) -> Bend:
    return Bend(2 * (a > 0).astype(a.dtype), xp.zeros_like(a[0]))


def _capped_bend(xp: ArrayModule, a: AnyArray, smoothing: AnyArray) -> Bend:
    active = (a > 0).astype(a.dtype)
    tight = total(xp, a) >= 1 - 1e-6
    kappa = xp.where(tight, smoothing / xp.maximum(total(xp, active), 1), 0)
    return Bend(active / smoothing, kappa)


def _squared_simplex_bend(xp: ArrayModule, a: AnyArray, smoothing: AnyArray) -> Bend:
    active = (a > 0).astype(a.dtype)
    return Bend(active / smoothing, smoothing / (2 * smoothing + total(xp, active)))


def _sum_of_shortfalls(xp: ArrayModule, z: AnyArray, own: AnyArray) -> AnyArray:
    return total(xp, xp.maximum(z, 0))


def _sum_of_squares(xp: ArrayModule, z: AnyArray, own: AnyArray) -> AnyArray:
    return total(xp, xp.maximum(z, 0) ** 2)


def _largest(xp: ArrayModule, z: AnyArray, own: AnyArray) -> AnyArray:
    return xp.maximum(largest(xp, z), 0)


def _largest_squared(xp: ArrayModule, z: AnyArray, own: AnyArray) -> AnyArray:
    return xp.maximum(largest(xp, z), 0) ** 2


def _forms() -> tuple[DualForm, ...]:
    box = (_box, _zero, _box_bend, _sum_of_shortfalls)
    orthant = (_orthant, _squares, _orthant_bend, _sum_of_squares)
    capped = (_capped_simplex, _zero, _capped_bend, _largest)
    squared = (_squared_simplex, _square_of_sum, _squared_simplex_bend, _largest_squared)
    softmax = (_softmax, _negative_entropy, _softmax_bend, _cross_entropy)
    return (
        DualForm("softmax", "softmax", True, *softmax),
        DualForm("hinge", "pairs", False, *box),
        DualForm("crammer-singer", "pairs", False, *capped),
        DualForm("one-vs-rest", "one-vs-rest", False, *box),
        DualForm("squared-hinge", "pairs", True, *orthant),
        DualForm("squared-crammer-singer", "pairs", False, *squared),
        DualForm("squared-one-vs-rest", "one-vs-rest", True, *orthant),
    )


FORMS = {form.name: form for form in _forms()}
"""The dual form of every loss, by its name on the command line."""

_NAME_OF: dict[str | Callable, str] = {
    losses.softmax_cross_entropy: "softmax",
    losses.weston_watkins_hinge: "hinge",
    losses.crammer_singer_hinge: "crammer-singer",
    losses.one_vs_rest_hinge: "one-vs-rest",
    losses.squared_weston_watkins_hinge: "squared-hinge",
    losses.squared_crammer_singer_hinge: "squared-crammer-singer",
    losses.squared_one_vs_rest_hinge: "squared-one-vs-rest",
    "weston-watkins": "hinge",
}


def form_of(loss: str | Callable) -> DualForm:
    """The dual form of a loss given by name or as a function of `jaxlin.losses`.

    >>> form_of(losses.weston_watkins_hinge).name
    'hinge'
    """
    name = _NAME_OF.get(loss, loss)
    if not isinstance(name, str) or name not in FORMS:
        raise ValueError(
            f"`loss` must be one of {', '.join(FORMS)} or a function of jaxlin.losses with its "
            f"default margin, got {loss!r}. Pass another margin as `margin=`."
        )
    return FORMS[name]
