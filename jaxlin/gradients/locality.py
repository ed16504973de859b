"""Whether coarse values show the slope at the point, or only something on a wider scale.

Where values are rounded to float32 or less, or carry a large constant, the steps that rise out of
the rounding are long, and the closer steps that would deny a slope are lost in noise. A sine whose
period is shorter than the step, a singularity beside the point, a staircase: two steps may agree on
a slope that none of them has at the point. So the values all across the step are compared with the
Taylor model, at uneven places, which no period fits. They may be off it by the rounding of a value,
and by as much as values scatter right beside the point, where nothing but rounding acts: what is
off by more is f itself, on a scale that the step does not resolve, and a slope across it neither
proves a claim nor disproves it.

What no value tells is what rounding would do as well: ripples of a unit of rounding in height, or
shorter than the rounding of x in the dtype of the values. Stairs that hide in it have slope 0, so
that a claim of 0 is only wrong where f rises by many times what it deviates from the model.
"""

__all__ = ["demoted", "unfounded"]

from collections.abc import Callable

import numpy as np

from jaxlin.gradients.ladder import FLOAT64
from jaxlin.gradients.rounding import underflow
from jaxlin.gradients.slopes import Slopes

GOLDEN = (np.sqrt(5) - 1) / 2
SIDE = np.sort((0.5 + GOLDEN * np.arange(12)) % 1 + 0.04) / 1.04  # uneven
PLACES = np.concatenate([-SIDE, SIDE])  # in units of the step
SHARP = 1e-3  # error bar by noise of a slope in float64 that closer steps can deny, relative
TINY = float(np.finfo(np.float64).tiny)
CLOSE = 64  # units of rounding of x: beside the point, where only rounding acts
NEAR = 2.0**-10  # of x: beyond it f may move, too
ROUNDED = 0.8  # units: a rounded value is half of one off, which the fit tilts by a little
LIKE = 2.0  # the largest of 24 deviations and that of 24 more of the same noise: within this ratio
AGREED = 8  # slopes that agree with the claim and are looked at all the same
TREADS = 4096  # a staircase with more of them inside a step, each hidden in rounding, is not seen


def unfounded(
    trial,
    changes: Callable[[np.ndarray, np.ndarray], np.ndarray],
    steps: np.ndarray,
    units: np.ndarray,
    found: Slopes,
    noise,
    claim: np.ndarray,
    rounding: np.ndarray,
) -> np.ndarray:
    """Which slopes along m lines the values across the step do not bear out, (m,).

    Looked at are coarse ones that disagree with the claim or show a kink, and in float64 some that
    agree: noise of a narrow dtype counts twice, which covers what could hide behind it.

    Args:
      trial: the case.
      changes: rows (r,), offsets (r, q) -> f(x + offset along line i) - f(x), (r, q).
      steps, noise, claim, rounding: (m,), of the slopes: what they were measured with and
        are held against.
      units: (m,), displacements along the lines that are as large as x.
      found: the slopes.
    """
    function = trial.function
    narrow = function.eps > 2 * FLOAT64
    noise = np.broadcast_to(noise, np.shape(steps))
    reach = np.maximum(np.abs(claim), _steepest(found)) * steps
    coarse = (noise > 0) if narrow else (4 * noise > SHARP * reach)
    coarse &= np.isfinite(claim + found.numeric + noise)
    disputed = (found.outside(claim, rounding) > 0) | found.kinked
    agreed = np.flatnonzero(coarse & ~disputed & ~narrow)
    every = max(1, -(-len(agreed) // AGREED))
    rows = np.append(np.flatnonzero(coarse & disputed), agreed[::every])
    result = np.zeros(len(steps), bool)
    if not len(rows):
        return result
    claim, rounding, steps, noise = (part[rows] for part in (claim, rounding, steps, noise))
    found, disputed = found.take(rows), disputed[rows]
    close = max(function.eps, min(CLOSE * function.eps, NEAR))
    close = np.minimum(close * units[rows], steps)
    values = changes(rows, np.hstack([np.outer(steps, PLACES), np.outer(close, PLACES)]))
    with np.errstate(invalid="ignore", over="ignore"):
        misfit, scatter = (_misfit(part, found.kinked) for part in np.split(values, 2, axis=1))
        largest = abs(trial.value) + np.abs(values).max(axis=1)
        terms = np.maximum(function.terms(abs(trial.value)), largest)
        unit = _unit(largest if function.opaque else terms, function.eps)
        excused = LIKE * scatter
        if narrow:  # it rounds x as coarsely: closer values may show f, not only its rounding
            excused = np.minimum(excused, function.eps * terms)
        allowed = np.maximum(np.maximum(ROUNDED * unit, excused), underflow(function.eps))
        # What agrees may bend as far as its error bar says.
        bend = found.error * steps - 4 * noise
        bend = np.maximum(bend, noise)
        allowed = np.where(disputed, allowed, np.maximum(allowed, bend))
        rises = _steepest(found) * steps > TREADS * misfit
    stairs = disputed & (np.abs(claim) <= rounding) & ~rises
    result[rows] = ~(misfit <= allowed) | stairs
    return result


def _misfit(values: np.ndarray, kinked: np.ndarray) -> np.ndarray:
    """How far values at `PLACES`, (m, 24), are from a Taylor model, with a kink where there is one.

    Returns:
      The largest deviation from the model that fits best, (m,).
    """
    smooth = np.stack([PLACES, PLACES**2, PLACES**3], axis=1)
    sides = [smooth[:, :2] * (side * PLACES > 0)[:, None] for side in (-1, 1)]
    off = []
    for basis in (smooth, np.hstack(sides)):
        fit = values @ np.linalg.pinv(basis).T @ basis.T
        off.append(np.abs(values - fit).max(axis=1))
    return np.where(kinked, off[1], off[0])


def _unit(size: np.ndarray, eps: float) -> np.ndarray:
    """The spacing of numbers of a size, in a dtype where it is `eps` at 1."""
    return eps * 2.0 ** np.floor(np.log2(np.maximum(size, TINY)))


def _steepest(found: Slopes) -> np.ndarray:
    return np.abs(np.stack([found.numeric, found.left, found.right])).max(axis=0)


def demoted(trial, changes, steps, units, found: Slopes, noise, claim, rounding) -> tuple:
    """Slopes whose bars include the claim where coarse values prove neither error nor kink.

    Arguments are those of `unfounded`.

    Returns:
      The slopes, and which of them were demoted, (m,).
    """
    doubtful = unfounded(trial, changes, steps, units, found, noise, claim, rounding)
    size = np.maximum(np.abs(claim - found.numeric), np.abs(found.right - found.left))
    error = np.where(doubtful, found.error + size, found.error)
    return found._replace(error=error, kinked=found.kinked & ~doubtful), doubtful
