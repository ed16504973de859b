"""Whether coarse values show the slope at the point, or only something on a wider scale.

Where values are rounded to float32 or less, or carry a large constant, the steps that rise out of
the rounding are long, and the closer steps that would deny a slope are lost in noise. A sine whose
period is shorter than the step, a singularity beside the point, a staircase: two steps may agree on
a slope that none of them has at the point. So the values all across the step are compared with the
Taylor model, at uneven places, which no period fits. They may be off it by the rounding of a value,
and by as much as values scatter right beside the point, where nothing but rounding acts: what is
off by more is f itself, on a scale that the step does not resolve, and a slope across it neither
proves a claim nor disproves it.

An error bar that covers a deviation must do so on every scale: what a smooth f is off by shrinks
with the step, a saw of a hundred periods is as high on a hundredth of it. So values are compared on
shorter steps, too, where the slope that they show must be the one that was measured.

What no value tells is what rounding would do as well: ripples of a unit of rounding in height, or
shorter than the rounding of x in the dtype of the values. Stairs that hide in it have slope 0, so
that a claim of 0 is only wrong where f rises by many times what it deviates from the model.
"""

__all__ = ["demoted", "unfounded"]

from collections.abc import Callable

import numpy as np

from jaxlin.gradients.ladder import FLOAT64
from jaxlin.gradients.lines import Trial
from jaxlin.gradients.rounding import underflow
from jaxlin.gradients.slopes import Slopes

GOLDEN = (np.sqrt(5) - 1) / 2
SIDE = np.sort((0.5 + GOLDEN * np.arange(12)) % 1 + 0.04) / 1.04  # uneven
PLACES = np.concatenate([-SIDE, SIDE])  # in units of the step
TILT = float(np.abs(PLACES).sum() / np.sum(PLACES**2))  # of a slope, by deviations of 1 at places
WITHIN = (1.0, 1 / 8, 1 / 64, 1 / 1024)  # of the step: scales on which the values are compared
SHARP = 1e-3  # error bar by noise of a slope in float64 that closer steps can deny, relative
TINY = float(np.finfo(np.float64).tiny)
CLOSE = 64  # units of rounding of x: beside the point, where only rounding acts
NEAR = 2.0**-10  # of x: beyond it f may move, too
ROUNDED = 0.8  # units: a rounded value is half of one off, which the fit tilts by a little
LIKE = 2.0  # the largest of 24 deviations and that of 24 more of the same noise: within this ratio
AGREED = 8  # slopes that agree with the claim and are looked at all the same
PLAIN = 8  # times what a rounding beside the point could do to the slope there
TREADS = 4096  # a staircase with more of them inside a step, each hidden in rounding, is not seen


def unfounded(
    trial: Trial,
    changes: Callable[[np.ndarray, np.ndarray], np.ndarray],
    steps: np.ndarray,
    units: np.ndarray,
    found: Slopes,
    noise: np.ndarray | float,
    claim: np.ndarray,
    rounding: np.ndarray,
    *,
    agreed: int = AGREED,
) -> np.ndarray:
    """Which slopes along m lines the values across the step do not bear out, (m,).

    Looked at are coarse ones that disagree with the claim or show a kink, and in float64 some that
    agree: noise of a narrow dtype counts twice, which covers what could hide behind it. In float64
    a claim is refuted as well where f beside the point plainly does not move as it says.

    Args:
      trial: the case.
      changes: rows (r,), offsets (r, q) -> f(x + offset along line i) - f(x), (r, q).
      steps, noise, claim, rounding: (m,), of the slopes: what they were measured with and
        are held against.
      units: (m,), displacements along the lines that are as large as x.
      found: the slopes.
      agreed: at most about how many slopes that agree are looked at.
    """
    function = trial.function
    narrow = function.eps > 2 * FLOAT64
    noise = np.broadcast_to(noise, np.shape(steps))
    disputed = (found.outside(claim, rounding) > 0) | found.kinked
    # A steep claim that f disputes does not make the values of f any finer.
    steep = np.maximum(np.where(disputed, 0.0, np.abs(claim)), _steepest(found))
    coarse = (noise > 0) if narrow else (4 * noise > SHARP * steep * steps)
    coarse &= np.isfinite(claim + found.numeric + noise)
    quiet = np.flatnonzero(coarse & ~disputed & ~narrow)
    every = max(1, -(-len(quiet) // agreed))
    rows = np.append(np.flatnonzero(coarse & disputed), quiet[::every])
    result = np.zeros(len(steps), bool)
    if not len(rows):
        return result
    claim, rounding, steps, noise = (part[rows] for part in (claim, rounding, steps, noise))
    found, disputed = found.take(rows), disputed[rows]
    close = max(function.eps, min(CLOSE * function.eps, NEAR))
    close = np.minimum(close * units[rows], steps)
    scales = np.stack([*(steps * share for share in WITHIN), close], axis=1)
    values = changes(rows, (scales[:, :, None] * PLACES).reshape(len(rows), -1))
    values = values.reshape(len(rows), len(WITHIN) + 1, len(PLACES))
    with np.errstate(invalid="ignore", over="ignore"):
        misfit, slope = _model(values, found.kinked)
        largest = np.abs(trial.value + values).max(axis=(1, 2))
        terms = np.maximum(function.terms(abs(trial.value)), largest)
        unit = _unit(largest if function.opaque else terms, function.eps)
        # Lines of one function scatter alike; and what one rounding explains excuses no more.
        scatter = misfit[:, -1]
        typical = np.maximum(scatter, np.median(scatter))
        scatter = np.where(disputed, scatter, typical)
        excused = np.where(scatter > ROUNDED * unit, LIKE * scatter, 0.0)
        if narrow:  # it rounds x as coarsely: closer values may show f, not only its rounding
            excused = np.minimum(excused, function.eps * terms)
        rounded = np.maximum(np.maximum(ROUNDED * unit, excused), underflow(function.eps))
        # What agrees may bend as far as its error bar says, on every scale.
        shares = np.array(WITHIN)
        bend = np.maximum(np.outer(found.error * steps - 4 * noise, shares), noise[:, None])
        allowed = np.maximum(rounded[:, None], np.where(disputed[:, None], 0.0, bend))
        fits = (misfit[:, 0] <= allowed[:, 0]) & (
            disputed | (misfit[:, :-1] <= allowed).all(axis=1)
        )
        # Closer to the point, f must have the slope that the step shows.
        apart = np.abs(slope / scales - found.numeric[:, None])
        tilt = TILT * np.maximum(ROUNDED * unit[:, None], LIKE * misfit) / scales
        fits &= found.kinked | (apart <= found.error[:, None] + tilt).all(axis=1)
        rises = _steepest(found) * steps > TREADS * misfit[:, 0]
        # Right beside the point, f may plainly not move as the claim says.
        beside = np.abs(trial.value + values[:, -1]).max(axis=1)
        beside = _unit(beside if function.opaque else terms, function.eps)
        beside = np.maximum(ROUNDED * beside, misfit[:, -1])
        denied = np.abs(slope[:, -1] - claim * close) > PLAIN * TILT * beside
        if not narrow:  # which rounds x, too
            fits |= denied & disputed & ~found.kinked
    stairs = disputed & (np.abs(claim) <= rounding) & ~rises
    result[rows] = ~fits | stairs
    return result


def _model(values: np.ndarray, kinked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How values at `PLACES` compare with a Taylor model, with a kink where there is one.

    Args:
      values: (m, k, 24), along m lines on k scales.
      kinked: (m,).

    Returns:
      The largest deviation from the model that fits best, and the slope that fits best in units
      of the values over the scale, both (m, k).
    """
    smooth = np.stack([PLACES, PLACES**2, PLACES**3], axis=1)
    sides = [smooth[:, :2] * (side * PLACES > 0)[:, None] for side in (-1, 1)]
    off = []
    for basis in (smooth, np.hstack(sides)):
        fit = values @ np.linalg.pinv(basis).T @ basis.T
        off.append(np.abs(values - fit).max(axis=-1))
    slope = values @ (PLACES / np.sum(PLACES**2))
    return np.where(kinked[:, None], off[1], off[0]), slope


def _unit(size: np.ndarray, eps: float) -> np.ndarray:
    """The spacing of numbers of a size, in a dtype where it is `eps` at 1."""
    return eps * 2.0 ** np.floor(np.log2(np.maximum(size, TINY)))


def _steepest(found: Slopes) -> np.ndarray:
    return np.abs(np.stack([found.numeric, found.left, found.right])).max(axis=0)


def demoted(
    trial: Trial,
    changes: Callable[[np.ndarray, np.ndarray], np.ndarray],
    steps: np.ndarray,
    units: np.ndarray,
    found: Slopes,
    noise: np.ndarray | float,
    claim: np.ndarray,
    rounding: np.ndarray,
) -> tuple[Slopes, np.ndarray]:
    """Slopes whose bars include the claim where coarse values prove neither error nor kink.

    Arguments are those of `unfounded`.

    Returns:
      The slopes, and which of them were demoted, (m,).
    """
    doubtful = unfounded(trial, changes, steps, units, found, noise, claim, rounding)
    size = np.maximum(np.abs(claim - found.numeric), np.abs(found.right - found.left))
    error = np.where(doubtful, found.error + size, found.error)
    return found._replace(error=error, kinked=found.kinked & ~doubtful), doubtful
