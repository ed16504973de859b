"""A ladder of steps along one line: the scale on which to measure there, and the noise of f.

A step is accepted only where the Taylor model holds by its own evidence. The central differences
of a rung and of the next two say how far off its slope is (truncation) and how noisy; the slope
must then describe what f does on *every* smaller rung, within those two bars. A step that is too
long, across periods of a sine or steps of a staircase, may agree with its neighbours; it does not
agree with what happens closer to the point. (No step is longer than an eighth of the scale of x:
beyond it noise that hides a slope also hides a period.) Rungs on which nothing moves at all are
evidence, too: there the slope is 0.

The noise is measured, and is never taken to be less than the rounding of the values:

    f in float64          how far the smallest rungs are from proportional to the step
    narrower inside       second differences of equidistant values around the point
    a staircase           the height of its first step, found by bisection, if it is one that a
                          narrow dtype makes; higher steps belong to f

Source: Moré and Wild (2011), "Estimating computational noise"; Gill, Murray, Saunders and Wright
  (1983), "Computing forward-difference intervals", for balancing both errors.
"""

__all__ = ["RUNG", "TOP", "Calibration", "calibrate", "entry_step", "measured_order"]

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxlin.gradients.rounding import underflow

RUNG = 8.0  # ratio of neighbouring steps of a ladder
TOP = 2.0**-3  # its longest step, in units of the scale of the parameters
RUNGS = 13  # down to 2^-39
DEEP = 2.0**-20
QUIET = 4  # pairs of the smallest rungs that the noise is read off
FLOAT64 = float(np.finfo(np.float64).eps)
CLUSTER = np.concatenate([-np.arange(8, 0, -1.0), np.arange(1.0, 9.0)])


class Calibration(NamedTuple):
    """What a ladder of steps along one line tells."""

    step: float
    """Where truncation and round-off balance."""
    noise: float
    """Absolute error of a value of f: at least its rounding. Infinite where the values are too
    coarse to show anything."""
    steps: np.ndarray
    minus: np.ndarray
    plus: np.ndarray
    """The rungs, descending, and f(x -+ step) - f(x) on them."""


def calibrate(
    changes: Callable[[np.ndarray], np.ndarray],
    value: float,
    eps: float,
    *,
    stair: Callable[[float], tuple[float, float, float]] = lambda size: (0.0, 0.0, 0.0),
) -> Calibration | None:
    """Find the best step and the noise along a line.

    Args:
      changes: offsets (q,) -> f(x + offset * direction) - f(x), (q,).
      value: f(x).
      eps: relative rounding of the values of f, that of the narrowest dtype on the way to them.
      stair: the largest |f| nearby -> the rounding of its terms, which values that do not move
        hide; how high a step of its values is made by rounding; and how high one may be that
        rounding makes or f itself, nobody can tell. A higher one belongs to f.

    Returns:
      The calibration, or `None` if f is not finite on any rung.
    """
    narrow = eps > 2 * FLOAT64
    count = max(5, int(np.ceil(np.log2(TOP / eps) / np.log2(RUNG))) + 2) if narrow else RUNGS
    count = min(count, RUNGS)
    steps = TOP / RUNG ** np.arange(count)
    both = changes(np.concatenate([-steps, steps, 2 * eps * CLUSTER if narrow else []]))
    minus, plus = both[:count], both[count : 2 * count]
    measured = _measured(steps, minus, plus, both[2 * count :])
    height = _stair(changes, steps, minus, plus, value, narrow, stair)
    for _ in range(4):
        noise = _noise(steps, minus, plus, value, eps, max(measured, height))
        best = _best_rung(steps, minus, plus, noise, eps) if np.isfinite(height) else 0
        if best is not None and (narrow or best < len(steps) - 3):
            break
        more = steps.min() / RUNG ** np.arange(1, RUNGS + 1)  # not finite, or not settled: closer
        both = changes(np.concatenate([-more, more]))
        steps = np.concatenate([steps, more])
        minus, plus = np.append(minus, both[: len(more)]), np.append(plus, both[len(more) :])
        measured = _measured(steps, minus, plus, np.empty(0))
    noise = _noise(steps, minus, plus, value, eps, max(measured, height))
    best = _best_rung(steps, minus, plus, noise, eps) if np.isfinite(height) else 0
    if best is not None and steps[best] < DEEP:  # are terms that cancel all that longer steps miss?
        hidden = np.maximum(noise, stair(abs(value))[0])
        longer = _best_rung(steps, minus, plus, hidden, eps)
        if longer is None:  # they may be of any size: nothing can be told
            noise = hidden
        elif longer < best:
            best, noise = longer, hidden
    if best is None:
        finite = np.isfinite(plus + minus)
        if not finite.any():
            return None
        best = int(np.flatnonzero(finite)[0])
    return Calibration(float(steps[best]), float(noise[best]), steps, minus, plus)


def entry_step(step: float, entries: float) -> float:
    """The step of a single entry where a line moves `entries` of them by `step` each.

    It is as long as that of the line, but not beyond the scale of x: f may bend there unseen.
    """
    return min(step * float(np.sqrt(entries)), max(step, TOP))


def _measured(steps: np.ndarray, minus: np.ndarray, plus: np.ndarray, cluster: np.ndarray) -> float:
    """Noise by what no smooth function does, nor one with a kink at the point."""
    with np.errstate(invalid="ignore", over="ignore"):
        if len(cluster):
            half = len(cluster) // 2
            sides = np.split(np.insert(cluster, half, 0.0), [half])
            bends = [np.abs(np.diff(part, 2)) for part in (np.append(sides[0], 0.0), sides[1])]
            return float(_finite(np.concatenate(bends)).max(initial=0.0))
        parts = np.stack([plus - minus, plus + minus])[:, -QUIET - 1 :] / 2
        ratio = steps[-QUIET:] / steps[-QUIET - 1 : -1]
        apart = np.abs(parts[:, 1:] - parts[:, :-1] * ratio)
    if not np.isfinite(apart).any():
        return 0.0
    # A kink beside the point shows on the rungs beyond it, noise on the shortest, too.
    most = np.quantile(_finite(apart), 0.75)
    return 3 * float(min(most, _finite(apart[:, QUIET // 2 :]).max(initial=0.0)))


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _stair(
    changes: Callable[[np.ndarray], np.ndarray],
    steps: np.ndarray,
    minus: np.ndarray,
    plus: np.ndarray,
    value: float,
    narrow: bool,
    allowed: Callable[[float], tuple[float, float, float]],
) -> float:
    """Where values do not move: the rounding that hides in them, else 0.

    It is at least the height of the first step of a staircase, if rounding can make such a step,
    and infinite where there is nothing to go by: narrow values do not move at all, or the step
    may belong to f as well.
    """
    still = (minus == 0) & (plus == 0)
    if not still[-3:].all():
        return 0.0
    largest = np.abs(value) + np.abs(np.concatenate([minus, plus]))
    least, sure, most = allowed(float(largest[np.isfinite(largest)].max()))
    last = len(still) - int(np.argmin(still[::-1]))  # the longest of the still rungs below
    if last == 0 or still.all():
        return least
    side = 1.0 if plus[last - 1] != 0 else -1.0
    high, low = steps[last - 1], steps[last]
    first = top = abs(plus[last - 1] if side > 0 else minus[last - 1])
    for _ in range(3):  # seven points at a time: 8^3 times closer to where it starts to move
        inner = low + (high - low) * np.arange(1, 8) / 8
        heights = np.abs(np.append(changes(side * inner), top))
        edge = int(np.argmax(heights != 0))
        low = inner[edge - 1] if edge else low
        high, top = np.append(inner, high)[edge], heights[edge]
    gentle = top <= first / 64  # it starts to move from a kink
    if gentle or not np.isfinite(top) or top > most:
        return least if np.isfinite(least) else 0.0
    return float(top) if top <= sure else np.inf


def _noise(
    steps: np.ndarray,
    minus: np.ndarray,
    plus: np.ndarray,
    value: float,
    eps: float,
    measured: float,
) -> np.ndarray:
    """Absolute error of a value on every rung: of its terms, of f itself, of x + step."""
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.maximum(np.abs(minus), np.abs(plus))
        size = np.where(np.isfinite(size), size, 0.0)
        rounding = eps * np.maximum(np.maximum(abs(value), size), size / steps)
    # Few values are rounded in a narrow dtype, each in its own way: a largest one is not known.
    rounding = 2 * rounding if eps > 2 * FLOAT64 else rounding
    return np.maximum(np.maximum(rounding, underflow(eps)), measured)


def _best_rung(
    steps: np.ndarray, minus: np.ndarray, plus: np.ndarray, noise: np.ndarray, eps: float
) -> int | None:
    """The rung with the least error among those that describe all smaller ones."""
    with np.errstate(invalid="ignore", over="ignore"):
        odd = (plus - minus) / 2
        slope = odd / steps
        change = np.abs(np.diff(slope))
        truncation = np.maximum(change[:-1], change[1:] / RUNG)
        misfit = truncation + noise[:-2] / steps[:-2]
        alive = np.isfinite(misfit)
        if not alive.any():
            return None
        rows = len(misfit)
        residual = np.abs(odd - slope[:rows, None] * steps)
        share = noise[:rows, None] * (steps / steps[:rows, None])
        allowed = 1.5 * truncation[:, None] * steps + 4 * (noise + share)
        allowed += 4 * eps * np.abs(slope[:rows, None])
        local = (residual <= allowed) | (steps >= steps[:rows, None])
        local = local.all(axis=1) & alive
    if not local.any():
        return int(np.flatnonzero(alive)[-1])
    return int(np.argmin(np.where(local, misfit, np.inf)))


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
