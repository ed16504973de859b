"""From displaced values to a slope with an error bar.

Every slope is measured at two steps, h and h/2, on both sides. Richardson's combination of the
two central differences is the estimate; its distance from the better one bounds the truncation,
the noise of the values divided by h the round-off. The two one-sided slopes, extrapolated to
h = 0, agree where the function is smooth and differ by the jump where it has a kink.

A kink is a jump of the slope at x itself: it is as large on every scale. A jump that shrinks with
the step is that of a differentiable function whose slope is not smooth, as of |x|^1.5, and one
that grows that of a function without slopes, as of the root of |x| or a step at x.

Source: Press et al., Numerical Recipes, "Numerical Derivatives"; the CS231n notes, "Gradient
  Checks", for kinks.
"""

__all__ = ["NODES", "Slopes", "resolve", "slopes"]

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

NODES = np.array([-1.0, -0.5, 0.5, 1.0])
"""Displacements in units of the step, in the order that `slopes` expects."""

SCALES = (1.0, 1 / 16, 1 / 256, 1 / 4096, 1 / 65536)  # where a suspect is looked at again


class Slopes(NamedTuple):
    """Slopes along m lines, all (m,)."""

    numeric: np.ndarray
    error: np.ndarray
    """Half-width of the interval around `numeric`, without the rounding of the claimed value."""
    left: np.ndarray
    right: np.ndarray
    """One-sided slopes."""
    kinked: np.ndarray
    """Whether `left` and `right` differ beyond their error bars."""
    side_error: np.ndarray
    """Error bar of `left` and of `right`."""

    def outside(self, claim: np.ndarray, rounding: np.ndarray | float) -> np.ndarray:
        """How far the claimed slope lies outside of what was measured; 0 where it is inside.

        On a kink every value between the one-sided slopes is a subgradient, hence inside.
        """
        low, high = np.minimum(self.left, self.right), np.maximum(self.left, self.right)
        low = np.where(self.kinked, low - self.side_error, self.numeric - self.error)
        high = np.where(self.kinked, high + self.side_error, self.numeric + self.error)
        away = np.maximum(np.maximum(low - rounding - claim, claim - high - rounding), 0.0)
        return np.where(np.isfinite(claim) & np.isfinite(self.numeric), away, np.inf)

    def bars(self) -> np.ndarray:
        """Half of what a claimed slope may span without being noticed."""
        width = np.abs(self.right - self.left) / 2 + self.side_error
        return np.where(self.kinked, width, self.error)

    def take(self, rows: np.ndarray | slice) -> "Slopes":
        return Slopes(*(field[rows] for field in self))


def slopes(
    changes: np.ndarray,
    steps: np.ndarray,
    noise: np.ndarray | float,
    *,
    method: str = "richardson",
) -> Slopes:
    """Measure slopes from f(x + node * step) - f(x).

    Args:
      changes: (m, 4), in the order of `NODES`.
      steps: (m,), positive.
      noise: (m,) or a number: absolute error of a value of f.
      method: which estimate to report. All three come from the same values and differ in their
        truncation error: "richardson" O(h^4), "central" O(h^2), "forward" O(h).
    """
    with np.errstate(invalid="ignore", over="ignore"):
        minus, minus_half, plus_half, plus = changes.T
        right, right_half = plus / steps, 2 * plus_half / steps
        left, left_half = -minus / steps, -2 * minus_half / steps
        coarse, fine = (right + left) / 2, (right_half + left_half) / 2
        numeric = (4 * fine - coarse) / 3
        unit = noise / steps
        # 3, not 1, times the difference: where the second derivative jumps, as that of a squared
        # hinge does, the error falls like h only, and is 2 times the difference.
        error = 3 * np.abs(numeric - fine) + 4 * unit
        if method == "central":
            numeric, error = fine, 2 * np.abs(coarse - fine) + 4 * unit
        elif method == "forward":
            numeric, error = right_half, 2 * np.abs(right - right_half) + 8 * unit
        to_right, to_left = 2 * right_half - right, 2 * left_half - left
        gap = np.abs(to_right - to_left)
        curvature = 0.05 * np.abs(right - left)
        kinked = gap > 20 * unit + 8 * np.abs(coarse - fine) + curvature
        # Extrapolated sides are good where they move little; with another kink between them and
        # x, the secants of the smaller step are the safe ones (they bracket a convex function).
        steady = np.abs(to_right - right_half) + np.abs(to_left - left_half) < 0.1 * gap
        side_error = 10 * unit + np.abs(to_right - right_half) + np.abs(to_left - left_half)
        error, side_error = (np.where(np.isnan(e), np.inf, e) for e in (error, side_error))
    return Slopes(
        numeric,
        error,
        np.where(steady | ~kinked, to_left, left_half),
        np.where(steady | ~kinked, to_right, right_half),
        kinked,
        side_error,
    )


def resolve(
    changes: Callable[[np.ndarray], np.ndarray],
    steps: np.ndarray,
    noise: np.ndarray,
    *,
    scales: Sequence[float] = SCALES,
    method: str = "richardson",
) -> tuple[Slopes, np.ndarray]:
    """Look at suspects again on several scales, and settle which of them describes x.

    A kink at a distance d is seen by steps beyond d and not by smaller ones, one at x is seen by
    all of them down to the noise. Of the steps without a kink the sharpest one is taken that
    agrees with all smaller ones within the error bars of both.

    Args:
      changes: offsets (m, q) -> f(x + offset along line i) - f(x), (m, q).
      steps, noise: (m,).

    Returns:
      The slopes, (m,), and the step that each was measured with; NaN where f is not finite
      on any scale.
    """
    count = len(steps)
    trial = steps[:, None] * np.sort(np.asarray(scales))
    offsets = (trial[:, :, None] * NODES).reshape(count, -1)
    values = changes(offsets).reshape(count, len(scales), len(NODES))
    found = slopes(
        values.reshape(-1, len(NODES)), trial.ravel(), np.repeat(noise, len(scales)), method=method
    )
    chosen, settled = np.zeros(count, int), []
    for i in range(count):
        rows = i * len(scales) + np.arange(len(scales))
        lines = found.take(rows)
        best = _choose(lines)
        chosen[i] = rows[best]
        trend = _trend(_jump(values[i], trial[i]), lines.kinked, noise[i] / trial[i])
        settled.append(_settled(lines, best, trend))
    return Slopes(*(np.array(field) for field in zip(*settled, strict=True))), trial.ravel()[chosen]


def _settled(found: Slopes, best: int, trend: int) -> tuple:
    """The slopes on the chosen scale, with a kink told from what looks like one."""
    numeric, error, left, right, kinked, side_error = row = tuple(field[best] for field in found)
    if kinked and trend < 0:  # differentiable: both sides close in on the slope
        error = abs(right - left) / 2 + side_error
        return (left + right) / 2, error, left, right, False, side_error
    if kinked and trend > 0:
        return numeric, np.inf, left, right, False, np.inf
    return row


def _jump(changes: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """How far the extrapolated slopes of both sides are apart on each scale."""
    minus, minus_half, plus_half, plus = changes.T
    with np.errstate(invalid="ignore", over="ignore"):
        return np.abs(4 * (plus_half + minus_half) - (plus + minus)) / steps


def _trend(jump: np.ndarray, kinked: np.ndarray, unit: np.ndarray) -> int:
    """-1 if the jump of the slope shrinks as the step does, 1 if it grows, 0 if it stays.

    Judged on the smallest steps that resolve it, which other kinks nearby disturb the least.
    `unit` is the noise of f over each step.
    """
    seen = np.flatnonzero(kinked & (jump > 40 * unit))[:3]
    if len(seen) < 2:
        return 0
    ratio = jump[seen[:-1]] / jump[seen[1:]]
    slack = 0.05 + 20 * unit[seen[:-1]] / jump[seen[:-1]]
    if (ratio < 1 - slack).all():
        power = np.log(ratio)
        return -1 if np.ptp(power) <= 0.35 * np.abs(power).max() else 0
    return 1 if (ratio > 1.5 + slack).all() else 0


def _choose(found: Slopes) -> int:
    """The scale to believe, among those of one line in the order of growing steps."""
    finite = np.isfinite(found.numeric)
    if not finite.any():
        return 0
    smooth = np.flatnonzero(finite & ~found.kinked)
    kinked = np.flatnonzero(finite & found.kinked)
    if len(kinked):
        closest = kinked[0]
        gap = abs(found.right[closest] - found.left[closest])
        gap += found.side_error[closest]  # secants short of a kink within the step show no gap
        # A kink shows beyond 20 units of noise, 5 error bars: below that nothing denies it.
        smooth_below = [j for j in smooth if j < closest and found.error[j] < gap / 12]
        if not smooth_below:
            return int(kinked[np.argmin(found.side_error[kinked])])
        smooth = np.array(smooth_below)
    low, high = found.numeric - found.error, found.numeric + found.error
    holds = np.array([  # on all smaller steps, too: else the step is too long to be local
        (low[j] <= high[smooth[:i]]).all() and (high[j] >= low[smooth[:i]]).all()
        for i, j in enumerate(smooth)
    ])  # fmt: skip
    smooth = smooth[holds]
    return int(smooth[np.argmin(found.error[smooth])])
