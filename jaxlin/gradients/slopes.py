"""From displaced values to a slope with an error bar, and the scale on which to measure it.

Every slope is measured at two steps, h and h/2, on both sides. Richardson's combination of the
two central differences is the estimate; its distance from the better one bounds the truncation,
the noise of the values divided by h the round-off. The two one-sided slopes, extrapolated to
h = 0, agree where the function is smooth and differ by the jump where it has a kink.

Source: Press et al., Numerical Recipes, "Numerical Derivatives"; Moré and Wild (2011), "Estimating
  computational noise", for reading the noise off displacements too small to matter; the CS231n
  notes, "Gradient Checks", for kinks.
"""

__all__ = ["NODES", "Calibration", "Slopes", "calibrate", "measured_order", "resolve", "slopes"]

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

NODES = np.array([-1.0, -0.5, 0.5, 1.0])
"""Displacements in units of the step, in the order that `slopes` expects."""

RUNG = 8.0  # ratio of neighbouring steps of a ladder
RUNGS = 13  # 2^-3 to 2^-39 of the scale of the parameters
SCALES = (16.0, 1.0, 1 / 16, 1 / 256, 1 / 4096, 1 / 65536)  # where a suspect is looked at again


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

    def outside(self, claim, rounding) -> np.ndarray:
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

    def take(self, rows) -> "Slopes":
        return Slopes(*(field[rows] for field in self))


def slopes(changes: np.ndarray, steps, noise, *, method: str = "richardson") -> Slopes:
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
    return Slopes(
        numeric,
        error,
        np.where(steady | ~kinked, to_left, left_half),
        np.where(steady | ~kinked, to_right, right_half),
        kinked,
        side_error,
    )


class Calibration(NamedTuple):
    """What a ladder of steps along one line tells."""

    step: float
    """Where truncation and round-off balance."""
    noise: float
    """Absolute error of a value of f: at least its rounding."""
    steps: np.ndarray
    minus: np.ndarray
    plus: np.ndarray
    """The rungs, descending, and f(x -+ step) - f(x) on them."""


def calibrate(
    changes: Callable[[np.ndarray], np.ndarray], value: float, eps: float
) -> Calibration | None:
    """Find the best step and the noise along a line.

    Args:
      changes: offsets (q,) -> f(x + offset * direction) - f(x), (q,).
      value: f(x).
      eps: relative rounding of the values of f.

    Returns:
      The calibration, or `None` if f is not finite on any rung.
    """
    top, count, steps, minus, plus = 2.0**-3, RUNGS, np.empty(0), np.empty(0), np.empty(0)
    for _ in range(4):
        rungs = top / RUNG ** np.arange(count)
        both = changes(np.concatenate([-rungs, rungs]))
        steps = np.concatenate([steps, rungs])
        minus, plus = np.append(minus, both[:count]), np.append(plus, both[count:])
        order = np.argsort(-steps)
        best = _best_rung(steps[order], minus[order], plus[order], eps * abs(value))
        if best is None or best >= len(steps) - 3:
            top, count = steps.min() / RUNG, RUNGS  # not finite, or not settled: come closer
        elif best == 0 and eps * abs(value) > 1e-3 * abs(plus[order][0]) > 0:
            top, count = steps.max() * RUNG**5, 5  # the slope drowns in rounding: go farther
        else:
            break
    steps, minus, plus = steps[order], minus[order], plus[order]
    if best is None:
        finite = np.isfinite(plus + minus)
        if not finite.any():
            return None
        best = int(np.flatnonzero(finite)[0])
    slope = (plus[best] - minus[best]) / (2 * steps[best])
    odd = (plus[best:] - minus[best:]) / 2 - slope * steps[best:]
    even = (plus[-3:] + minus[-3:]) / 2  # of curvature and kinks nothing is left so close to x
    residual = np.abs(np.concatenate([odd, even]))
    residual = residual[np.isfinite(residual)]
    floor = eps * max(abs(value), abs(plus[best]), abs(minus[best]))
    noise = max(2 * float(residual.max(initial=0.0)), floor)
    return Calibration(float(steps[best]), noise, steps, minus, plus)


def _best_rung(steps, minus, plus, rounding) -> int | None:
    """The rung whose central difference agrees best with those of the next smaller steps.

    Rungs on which nothing changes at all (the step drowns in rounding, or f is constant) carry
    no information and are left out, unless there is nothing else.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        slope = (plus - minus) / (2 * steps)
        change = np.abs(np.diff(slope))
        misfit = np.maximum(change[:-1], change[1:] / RUNG) + rounding / steps[:-2]
        alive = np.isfinite(misfit)
    moved = alive & ((plus[:-2] != 0) | (minus[:-2] != 0))
    if not alive.any():
        return None
    if not moved.any():
        return int(np.flatnonzero(alive)[len(np.flatnonzero(alive)) // 2])
    return int(np.argmin(np.where(moved, misfit, np.inf)))


def measured_order(ladder: Calibration, claim: float, rounding: float) -> float | None:
    """The rate of f(x + t d) - f(x) - t * claim as t -> 0: 2 if the claim is right, 1 if wrong.

    Returns:
      The slope of the remainder in a log-log plot over the smallest steps at which it stands
      out of noise and rounding, or `None` where there is no such range: nothing is left over
      (exact or piecewise linear), or what is left follows no power.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        remainder = np.abs(ladder.plus - ladder.steps * claim)
        remainder = (remainder + np.abs(ladder.minus + ladder.steps * claim)) / 2
        floor = ladder.noise + rounding * ladder.steps
        seen = np.isfinite(remainder) & (remainder > 100 * floor)
    last = len(seen) - 1
    while last >= 0 and not seen[last]:
        last -= 1
    if last < 2 or not seen[last - 2 : last + 1].all():
        return None
    r = np.log(remainder[last - 2 : last + 1]) / np.log(RUNG)
    rate, before = r[1] - r[2], r[0] - r[1]
    if abs(rate - before) > 0.15 or rate < 0.5:
        return None
    if last + 1 < len(seen):  # a smooth remainder does not vanish suddenly
        expected = remainder[last] / RUNG**rate
        if abs(remainder[last + 1] - expected) > 0.3 * expected + 10 * floor[last + 1]:
            return None
    return float(rate)


def resolve(
    changes: Callable[[np.ndarray], np.ndarray],
    steps: np.ndarray,
    noise: np.ndarray,
    claim: np.ndarray,
    rounding: np.ndarray,
    *,
    scales=SCALES,
    method: str = "richardson",
) -> tuple[Slopes, np.ndarray]:
    """Look at suspects again on several scales, and settle which of them describes x.

    A kink at a distance d is seen by steps beyond d and not by smaller ones, one at x is seen by
    all of them down to the noise; a disagreement counts if no smaller step that can still see it
    denies it.

    Args:
      changes: offsets (m, q) -> f(x + offset along line i) - f(x), (m, q).
      steps, noise, claim, rounding: (m,).

    Returns:
      The slopes, (m,), and the step that each was measured with; NaN where f is not finite
      on any scale.
    """
    scales = np.sort(np.asarray(scales))
    count = len(steps)
    trial = steps[:, None] * scales
    offsets = (trial[:, :, None] * NODES).reshape(count, -1)
    values = changes(offsets).reshape(count, len(scales), len(NODES))
    found = slopes(
        values.reshape(-1, len(NODES)), trial.ravel(), np.repeat(noise, len(scales)), method=method
    )
    chosen = np.zeros(count, int)
    for i in range(count):
        rows = i * len(scales) + np.arange(len(scales))
        chosen[i] = rows[_choose(found.take(rows), claim[i], rounding[i])]
    return found.take(chosen), trial.ravel()[chosen]


def _choose(found: Slopes, claim: float, rounding: float) -> int:
    """The scale to believe, among those of one line in the order of growing steps."""
    finite = np.isfinite(found.numeric)
    if not finite.any():
        return 0
    smooth = np.flatnonzero(finite & ~found.kinked)
    kinked = np.flatnonzero(finite & found.kinked)
    if len(kinked):
        closest = kinked[0]
        gap = abs(found.right[closest] - found.left[closest])
        smooth_below = [j for j in smooth if j < closest and found.error[j] < gap / 4]
        if not smooth_below:
            return int(kinked[np.argmin(found.side_error[kinked])])
        smooth = np.array(smooth_below)
    best = smooth[np.argmin(found.error[smooth])]
    away = abs(claim - found.numeric[best])
    if not away > found.error[best] + rounding:
        return int(best)
    for j in smooth:  # a smaller step that sees as much, and agrees?
        agrees = abs(claim - found.numeric[j]) <= found.error[j] + rounding
        if j < best and agrees and found.error[j] < away / 4:
            return int(j)
    return int(best)
