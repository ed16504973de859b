"""A hinge along a ray, exactly: every kink, every slope, the minimum.

Along W + a W1 linear scores are affine in a, so each shortfall max(0, c + a d) is zero on one
side of its kink a = -c / d and a straight line on the other. A mean of them is piecewise linear:
sort the kinks once, add up what each one changes, and the whole profile is known without a grid.
With the l2 term each piece is a parabola.

The largest of several lines (Crammer and Singer) is piecewise linear too; its kinks are those of
the upper envelope of each example's lines.
"""

__all__ = ["HingeProfile", "hinge_profile"]

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlin import losses
from jaxlin.blocks import Blocks, blocks_on
from jaxlin.core import LinearParams
from jaxlin.landscape import _trees
from jaxlin.landscape._scores import Scaling, SliceData, open_slice, place, products
from jaxlin.landscape.directions import tree_of
from jaxlin.platforms import with_float64
from jaxlin.precision import jit
from jaxlin.transfer import device_of

Pieces = tuple[np.ndarray, tuple[float, float], tuple[np.ndarray, np.ndarray]]
"""Kinks, the line (c, d) left of all of them, and what each kink adds to c and to d."""


class HingeProfile(NamedTuple):
    """L(W + a W1) of a hinge as a function of a; call it for values.

    >>> bend = HingeProfile(np.array([0.0]), np.zeros(2), np.array([-1.0, 1.0]), (0.0, 0.0, 0.0))
    >>> bend([-2.0, 1.0]).tolist(), bend.slopes(0.0)  # the absolute value of the step
    ([2.0, 1.0], (np.float64(-1.0), np.float64(1.0)))
    """

    breakpoints: np.ndarray
    """(B,) float64, sorted: every step at which the slope of some example's loss changes."""
    intercepts: np.ndarray
    """(B + 1,): piece i, between kinks i - 1 and i, is `intercepts[i] + slope[i] * a`."""
    gradients: np.ndarray
    """(B + 1,): the slopes of the pieces of the mean loss, nondecreasing."""
    penalty: tuple[float, float, float]
    """(p0, p1, p2): the l2 term is p0 + p1 * a + p2 * a**2."""

    def __call__(self, steps: ArrayLike) -> np.ndarray:
        """Values at `steps`, any shape, in float64."""
        a = np.asarray(steps, np.float64)
        piece = np.searchsorted(self.breakpoints, a, side="right")
        mean = self.intercepts[piece] + self.gradients[piece] * a
        p0, p1, p2 = self.penalty
        return np.asarray(np.maximum(mean, 0), np.float64) + (p0 + a * (p1 + a * p2))

    def slopes(self, steps: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """One-sided derivatives (left, right) at `steps`; they differ only at breakpoints."""
        a = np.asarray(steps, np.float64)
        smooth = self.penalty[1] + 2 * self.penalty[2] * a
        left, right = (
            np.asarray(self.gradients[np.searchsorted(self.breakpoints, a, side=side)], np.float64)
            for side in ("left", "right")
        )
        return left + smooth, right + smooth

    def minimum(self) -> tuple[float, float]:
        """(step, value) of the least value along the whole ray.

        Where the least value is taken on an interval, the step is its point nearest to 0.
        """
        _, p1, p2 = self.penalty
        if p2 == 0:
            low, high = self._flat_bottom(p1)
            step = min(max(0.0, low), high)
        else:
            step = self._bottom_of_parabolas(p1, p2)
        return step, float(self(step))

    def _flat_bottom(self, tilt: float) -> tuple[float, float]:
        """The interval of minimizers of a piecewise-linear profile."""
        slopes = self.gradients + tilt
        zero = 1e-15 * np.abs(self.gradients).max(initial=0.0)
        falling = int(np.sum(slopes < -zero))
        not_rising = int(np.sum(slopes <= zero))
        kinks = self.breakpoints
        low = kinks[falling - 1] if falling else -np.inf
        high = kinks[not_rising - 1] if not_rising <= len(kinks) else np.inf
        if falling == not_rising:  # no flat piece: the minimum is the kink between the two
            high = low
        return float(low), float(high)

    def _bottom_of_parabolas(self, p1: float, p2: float) -> float:
        """The one minimizer of a strictly convex profile."""
        right = self.gradients[1:] + (p1 + 2 * p2 * self.breakpoints)
        piece = int(np.searchsorted(right >= 0, True))
        low = self.breakpoints[piece - 1] if piece else -np.inf
        high = self.breakpoints[piece] if piece < len(self.breakpoints) else np.inf
        return float(min(max(-(self.gradients[piece] + p1) / (2 * p2), low), high))


def hinge_profile(
    params: LinearParams,
    direction: Any,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    loss: Callable = losses.weston_watkins_hinge,
    margin: float = 1.0,
    strength: float = 0.0,
    preprocessing: Scaling | None = None,
) -> HingeProfile:
    """The mean hinge loss + `strength` * l2 along a ray, exactly.

    Args:
      params: weights (K, D) and bias (K,), the point at step 0.
      direction: a `Direction` or `LinearParams`.
      inputs: (N, D), floating or uint8 (raw 0..255), in memory or memory-mapped.
      labels: (N,), integer, in [0, K).
      loss: `weston_watkins_hinge`, `crammer_singer_hinge` or `one_vs_rest_hinge`; a
        `functools.partial` of one may set the margin.
      margin: the lead that is asked for.
      strength: of the l2 term, a quadratic along the ray.
      preprocessing: fitted statistics with `shift` and `scale`, (x - shift) * scale.

    Returns:
      A `HingeProfile`, computed in float64 whatever the dtype of the inputs. O(NK log NK) for the
      sums of hinges. For Crammer-Singer the envelopes take O(NK) for each kink of the example
      that has most (2 or 3 is typical, K at most).

    Raises:
      ValueError: a loss that is not piecewise linear, a zero direction, shapes that do not fit,
        or scores that are not finite.

    Source: the exact line search of Franc and Sonnenburg (2009), JMLR 10, 2157-2192.

    >>> params = LinearParams(np.zeros((2, 1)), np.zeros(2))
    >>> direction = LinearParams(np.array([[1.0], [0.0]]), np.zeros(2))
    >>> profile = hinge_profile(params, direction, np.ones((1, 1)), np.array([0]))
    >>> profile.breakpoints.tolist(), profile(np.array([0.0, 0.5, 2.0])).tolist()
    ([1.0], [1.0, 0.5, 0.0])
    >>> left, right = profile.slopes([0.0, 1.0])
    >>> left.tolist(), right.tolist(), profile.minimum()
    ([-1.0, -1.0], [-1.0, 0.0], (1.0, 0.0))
    """
    loss, margin = _hinge_and_margin(loss, margin)
    tree = tree_of(direction)
    _trees.check_same_tree(tree, params)
    data = open_slice(params, [tree], inputs, labels, preprocessing)
    lines = _scores_in_float64(data)
    if not all(np.isfinite(line).all() for line in lines):
        raise ValueError(
            "The scores along the ray are not finite, so the profile has no kinks to sort. "
            "Look for NaN or infinity in `params`, `direction` and `inputs`."
        )
    kinks, before, changes = _pieces(loss, *lines, np.asarray(data.labels), margin)
    penalty = _penalty(params, tree, strength)
    return _profile(kinks, before, changes, len(data.labels), penalty)


def _hinge_and_margin(loss: Callable, margin: float) -> tuple[Callable, float]:
    while isinstance(loss, partial):
        margin = loss.keywords.get("margin", margin)
        loss = loss.func
    known = (losses.weston_watkins_hinge, losses.crammer_singer_hinge, losses.one_vs_rest_hinge)
    if loss not in known:
        raise ValueError(
            f"`loss` must be {', '.join(k.__name__ for k in known)} for an exact profile, got "
            f"{getattr(loss, '__name__', loss)}, which is not piecewise linear. Use "
            "`jaxlin.landscape.affine_ray` on a grid of steps."
        )
    return loss, float(margin)


def _scores_in_float64(data: SliceData) -> tuple[np.ndarray, np.ndarray]:
    """s0 and s1, (N, K) each."""
    device = with_float64(device_of(data.inputs))
    block, rows = _sizes(len(data.labels), data.weights.shape[-1], blocks_on(device))
    found = np.empty((len(data.labels), data.bias.size))
    with jax.enable_x64(True):
        maps = place(data, device)
        for i, (inputs, _, count) in enumerate(data.chunks(rows)):
            found[i * rows : i * rows + count] = _products(maps, inputs, block)[:count]
    classes = data.bias.shape[1]
    return found[:, :classes], found[:, classes:]


def _sizes(examples: int, features: int, blocks: Blocks) -> tuple[int, int]:
    """Rows of a block, and rows that are handed over at once, in whole blocks."""
    block = max(1, min(examples, blocks.slice_bytes // (8 * features)))
    return block, block * min(-(-examples // block), max(1, blocks.piece_rows // block))


@partial(jit, static_argnums=2)
def _products(maps: Any, inputs: Array, block: int) -> Array:
    blocks = inputs.reshape(-1, block, inputs.shape[1])
    scores = jax.lax.map(lambda rows: products(maps, rows), blocks)
    return scores.reshape(len(inputs), -1)


def _pieces(
    loss: Callable, s0: np.ndarray, s1: np.ndarray, labels: np.ndarray, margin: float
) -> Pieces:
    """Kinks, the line left of all of them, and what each kink adds to it: (c, d) each."""
    rows = np.arange(len(labels))
    is_label = np.zeros(s0.shape, bool)
    is_label[rows, labels] = True
    if loss is losses.one_vs_rest_hinge:
        sign = np.where(is_label, -1.0, 1.0)
        return _sum_of_hinges((margin + sign * s0).ravel(), (sign * s1).ravel())
    c = s0 - s0[rows, labels][:, None] + margin
    d = s1 - s1[rows, labels][:, None]
    if loss is losses.weston_watkins_hinge:
        return _sum_of_hinges(c[~is_label], d[~is_label])
    c[is_label] = d[is_label] = 0.0  # the label's line becomes the 0 of max(0, .)
    return _sum_of_envelopes(c, d)


def _sum_of_hinges(c: np.ndarray, d: np.ndarray) -> Pieces:
    """sum of max(0, c + a d): passing a rising line's kink adds it, a falling one's removes it."""
    falling = d < 0
    flat = d == 0
    before = (c[falling].sum() + np.maximum(c[flat], 0).sum(), d[falling].sum())
    c, d = c[~flat], d[~flat]
    with np.errstate(over="ignore"):
        kinks = -c / d
    reached = np.isfinite(kinks)  # a kink beyond the largest float is never passed
    if not reached.all():
        (c, more_c), (d, more_d), kinks = _drop_unreachable(c, d, kinks)
        before = (before[0] + more_c, before[1] + more_d)
    return kinks, before, (np.where(d < 0, -c, c), np.abs(d))


def _drop_unreachable(
    c: np.ndarray, d: np.ndarray, kinks: np.ndarray
) -> tuple[tuple[np.ndarray, float], tuple[np.ndarray, float], np.ndarray]:
    far = ~np.isfinite(kinks)
    always = far & (d > 0) & (kinks < 0)  # switched on at -inf
    never_off = far & (d < 0) & (kinks < 0)  # counted as on at -inf, but switched off there
    extra_c = c[always].sum() - c[never_off].sum()
    extra_d = d[always].sum() - d[never_off].sum()
    return (c[~far], extra_c), (d[~far], extra_d), kinks[~far]


def _sum_of_envelopes(c: np.ndarray, d: np.ndarray) -> Pieces:
    """sum over examples of max over their lines (N, K): walk each upper envelope rightwards."""
    rows = np.arange(len(c))
    # at -infinity the line of least slope is on top; of equal ones the highest
    current = np.lexsort((-c, d), axis=-1)[:, 0]
    before = (c[rows, current].sum(), d[rows, current].sum())
    kinks, more_c, more_d = [], [], []
    while len(rows):
        own_c, own_d = c[rows, current][:, None], d[rows, current][:, None]
        steeper = d[rows] > own_d
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            crossing = np.where(steeper, (own_c - c[rows]) / (d[rows] - own_d), np.inf)
        first = crossing.min(axis=1)
        # where several lines cross at once the steepest of them continues
        following = np.where(crossing == first[:, None], d[rows], -np.inf).argmax(axis=1)
        alive = np.isfinite(first)
        rows, current, following = rows[alive], current[alive], following[alive]
        kinks.append(first[alive])
        more_c.append(c[rows, following] - c[rows, current])
        more_d.append(d[rows, following] - d[rows, current])
        current = following
    return np.concatenate(kinks), before, (np.concatenate(more_c), np.concatenate(more_d))


def _penalty(params: Any, tree: Any, strength: float) -> tuple[float, float, float]:
    """strength * |W + a W1|^2 as the coefficients of 1, a and a^2."""
    w0, w1 = params[0], tree[0]
    if not strength:
        return 0.0, 0.0, 0.0
    strength, inner = float(strength), _trees.inner
    return strength * inner(w0, w0), strength * 2 * inner(w0, w1), strength * inner(w1, w1)


def _profile(
    kinks: np.ndarray,
    before: tuple[float, float],
    changes: tuple[np.ndarray, np.ndarray],
    examples: int,
    penalty: tuple[float, float, float],
) -> HingeProfile:
    order = np.argsort(kinks)
    # long double: a running sum of half a million terms keeps its last digits, so that far from
    # the start, where intercept and slope * step nearly cancel, the value does too
    intercepts, gradients = (
        np.cumsum(np.concatenate([[first], change[order]]), dtype=np.longdouble) / examples
        for first, change in zip(before, changes, strict=True)
    )
    return HingeProfile(kinks[order], intercepts, gradients, penalty)
