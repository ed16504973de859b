"""Whether coarse values show the slope at the point, or only something on a wider scale.

Where values are rounded to float32 or less, or carry a large constant, the steps that rise out of
the rounding are long, and the closer steps that would deny a slope are lost in noise. A sine whose
period is shorter than the step, a singularity beside the point, a staircase: two steps may agree on
a slope that none of them has at the point. So the values all across the step are compared with the
Taylor model, at uneven places, which no period fits. A slope of a function that the model does not
describe up to its rounding proves nothing.

One thing remains that no value tells: a staircase whose steps hide in the rounding has slope 0.
A claim of 0 is therefore only wrong where f rises by many times what it deviates from the model.
"""

__all__ = ["demoted", "deviation", "unfounded"]

from collections.abc import Callable

import numpy as np

from jaxlin.gradients.ladder import FLOAT64
from jaxlin.gradients.slopes import Slopes

GOLDEN = (np.sqrt(5) - 1) / 2
PLACES = np.sort((0.5 + GOLDEN * np.arange(12)) % 1 + 0.04) / 1.04  # of a side, uneven
SHARP = 1e-3  # error bar by noise of a slope in float64 that closer steps can deny, relative
TINY = float(np.finfo(np.float64).tiny)
TREADS = 64  # a staircase with more of them inside a step, each hidden in rounding, is not seen


def _bases() -> tuple[np.ndarray, np.ndarray]:
    """The Taylor model at all places, (24, k): of a smooth function, and with a kink at x."""
    t = np.concatenate([-PLACES, PLACES])
    smooth = np.stack([t, t**2, t**3], axis=1)
    sides = [np.stack([t, t**2], axis=1) * (side * t > 0)[:, None] for side in (-1, 1)]
    return smooth, np.concatenate(sides, axis=1)


def unfounded(
    changes: Callable[[np.ndarray], np.ndarray], steps, found: Slopes, allowed, zero
) -> np.ndarray:
    """Which of the slopes along m lines the values across the step do not bear out, (m,).

    Args:
      changes: offsets (m, q) -> f(x + offset along line i) - f(x), (m, q).
      steps, allowed: (m,): at which the slopes were found; what the model may be off by.
      found: the slopes.
      zero: (m,), whether slope 0 is what they are held against.
    """
    values = changes(np.outer(steps, np.concatenate([-PLACES, PLACES])))
    left = []
    for basis in _bases():
        with np.errstate(invalid="ignore", over="ignore"):
            fit = values @ np.linalg.pinv(basis).T @ basis.T
            left.append(np.abs(values - fit).max(axis=1))
    with np.errstate(invalid="ignore", over="ignore"):
        misfit = np.where(found.kinked, left[1], left[0])
        rise = _steepest(found) * steps
        return ~((misfit <= allowed) & (~np.asarray(zero) | (rise > TREADS * misfit)))


def _steepest(found: Slopes) -> np.ndarray:
    return np.abs(np.stack([found.numeric, found.left, found.right])).max(axis=0)


def deviation(trial, found: Slopes, claim, steps, noise) -> np.ndarray:
    """How far coarse values may be from the Taylor model, (m,); infinite where they are sharp.

    That is a unit of rounding, which the noise of a narrow dtype counts twice. Noise beyond that
    of the terms of f excuses nothing: it may be f itself, on a scale that no step resolves.
    """
    function = trial.function
    noise = np.broadcast_to(noise, np.shape(steps))
    reach = _steepest(found) * steps
    narrow = function.eps > 2 * FLOAT64
    size = np.maximum(np.abs(claim) * steps, reach)
    coarse = (noise > 0) if narrow else (4 * noise > SHARP * size)
    if not coarse.any():
        return np.full(noise.shape, np.inf)
    with np.errstate(invalid="ignore"):
        terms = np.maximum(function.terms(abs(trial.value)), abs(trial.value) + reach)
    allowed = np.minimum(noise / 2 if narrow else noise, np.maximum(function.eps * terms, TINY))
    return np.where(coarse, allowed, np.inf)


def demoted(trial, changes, steps, found: Slopes, noise, claim, rounding) -> tuple:
    """Slopes whose bars include the claim where narrow values prove neither error nor kink.

    Args:
      trial: the case.
      changes: rows (r,), offsets (r, q) -> f(x + offset along line i) - f(x), (r, q).
      steps, noise, claim, rounding: (m,).
      found: m slopes, measured with `steps`.

    Returns:
      The slopes, and which of them were demoted, (m,).
    """
    away = found.outside(claim, rounding)
    doubtful = np.zeros(len(claim), bool)
    allowed = deviation(trial, found, claim, steps, noise)
    coarse = np.isfinite(allowed + claim + found.numeric)
    rows = np.flatnonzero(((away > 0) | found.kinked) & coarse)
    if not len(rows):
        return found, doubtful
    zero = np.abs(claim[rows]) <= rounding[rows]
    doubtful[rows] = unfounded(
        lambda offsets: changes(rows, offsets), steps[rows], found.take(rows), allowed[rows], zero
    )
    size = np.maximum(np.abs(claim - found.numeric), np.abs(found.right - found.left))
    error = np.where(doubtful, found.error + size, found.error)
    return found._replace(error=error, kinked=found.kinked & ~doubtful), doubtful
