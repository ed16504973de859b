"""L-BFGS with a line search, as a state between two passes over the rows and what leads on from it.

A trial along a step is accepted or shortened (`accepted`, `shortened`, `arrived`); from a point
that was accepted the next step is made (`with_step`). Each is a function of states; the history
alone is written in place.

Source: Nocedal and Wright, Numerical Optimization (2006), algorithm 7.5; Hager and Zhang (2005,
doi:10.1137/030601880) for decreases that drown in rounding: gradients keep their digits when values
have lost them.
"""

__all__ = [
    "GOING",
    "START",
    "TRIALS",
    "State",
    "accepted",
    "arrived",
    "finer",
    "idle_at_end",
    "noise_of",
    "renewed",
    "shortened",
    "trial_of",
    "with_step",
]

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from jaxlin.solvers.history import History, forgotten, pushed, scaled_step

TRIALS = 12
"""Points that a line search looks at, at most."""
PATIENCE = 4
"""Steps without progress below the rounding of the objective: the arithmetic is at its end."""
IDLE = 12
"""Steps, whatever the preconditioner, without a smaller gradient below that rounding: nor will
there be."""
COARSE = (8 * 2.0**-11) ** 2
"""What the rounding of operands to 11 bits does to an objective, relatively, and what a step gains
at least before it: it is as good as to move weights and rows by 2^-11 of themselves, and near the
optimum the objective moves by the square. On CIFAR-10 (8,000 to 20,000 rows, strengths from 5e-4
to 1e-2) gaps began to differ at five times this gain, and fits took no more than two passes more
than with exact products alone."""
LONGER = 1.5
"""Where a step was cut, the next is tried at most so many times as long: where losses fall like
exponentials (hardly a penalty, classes almost apart), all steps in a preconditioner are too
long."""
START = -1
"""The trial of a fit that does not know the objective where it is."""
GOING = -1
"""The status of a fit that has not ended."""


class State(NamedTuple):
    """A fit between two passes: float64 arrays of fixed shapes and numbers; n = K * D + K.

    Point, gradient, step and history lie where vectors do (`Problem.vectors`), all else on the
    host.

    A fit that goes on from it takes the very steps of one that was never left, bit for bit. The
    preconditioner, whose factors would fill a disk, is built again from the same rows, drawn by the
    same seed, at the point where it was built before.
    """

    point: np.ndarray
    """(n,): the weights row by row, then the bias."""
    gradient: np.ndarray
    """(n,): of the objective there."""
    step: np.ndarray
    """(n,): what is tried next is point + length * step."""
    best: np.ndarray
    """(n,): the point of least objective."""
    velocity: np.ndarray
    """(n,): change of the solution per unit of log strength, where this is the end of a fit that
    came from another strength; else 0."""
    history: History
    decrements: np.ndarray
    """(5,): what the last steps in this preconditioner were expected to gain; NaN where there were
    fewer."""
    built: np.ndarray
    """(n,): where the preconditioner was built."""
    recipe: np.ndarray
    """(7,): how; see `PreconditionerBuilder.state`."""
    value: float
    """Of the objective."""
    length: float
    trial: int
    """How many lengths were tried along this step, or `START`."""
    least: float
    """Of the objectives so far."""
    lower: float
    """The greatest bound that was proved."""
    gap: float
    """That a proof is expected to leave here."""
    promise: float
    """What the last proof was expected to leave."""
    faintest: float
    """The least gain that was expected of a step."""
    older: float
    """The least of those in this preconditioner that are no longer among `decrements`."""
    idle: int
    """Steps since `faintest` was halved."""
    since: int
    """Steps in this preconditioner."""
    iterations: int
    evaluations: float
    digits: int
    """Of evaluations: -1 those of rounded products, where the device has units for them, 0 those of
    the problem's dtype, 1 those of float64."""
    strength: float
    built_strength: float
    """That the preconditioner was built for."""
    milestone: float
    """Relative gap at which those who watch are shown the next bound; like `seen`, of no effect."""
    seen: float
    """The greatest bound that was proved for them."""
    status: int
    """`Status`, or `GOING`."""


def trial_of(state: State) -> np.ndarray:
    """The point whose objective is wanted next."""
    return state.point if state.trial == START else state.point + state.length * state.step


def noise_of(state: State, dtype: DTypeLike) -> float:
    """Rounding of the objective, as it is evaluated by now in a problem of this dtype."""
    if state.digits < 0:
        return COARSE * abs(state.value)
    return 8 * np.finfo(np.float64 if state.digits else dtype).eps * abs(state.value)


def finer(state: State) -> State:
    """Before an evaluation where it is, with more digits."""
    return state._replace(digits=state.digits + 1, trial=START, faintest=np.inf, idle=0)


def accepted(state: State, value: float, gradient: np.ndarray, noise: float) -> bool:
    """By Armijo's rule; where the decrease drowns in rounding, by the slope at the trial."""
    slope = float(state.gradient @ state.step)
    if value <= state.value + 1e-4 * state.length * slope:
        return True
    return value <= state.value + noise and float(gradient @ state.step) <= -0.8 * slope


def shortened(state: State, value: float) -> State:
    """Before a trial at half the length or less, by quadratic interpolation."""
    slope, length = float(state.gradient @ state.step), state.length
    rise = value - state.value - length * slope
    shorter = -slope * length**2 / (2 * rise) if np.isfinite(rise) and rise > 0 else 0.0
    length = float(min(max(shorter, 0.1 * length), 0.5 * length))
    return state._replace(trial=state.trial + 1, length=length)


def arrived(state: State, point: np.ndarray, value: float, gradient: np.ndarray) -> State:
    """After a trial that was accepted."""
    history = pushed(state.history, point - state.point, gradient - state.gradient)
    state = state._replace(point=point, value=value, gradient=gradient, history=history, trial=0)
    return state._replace(least=value, best=point) if value < state.least else state


def idle_at_end(state: State, noise: float) -> tuple[bool, bool]:
    """Whether steps have come to nothing in this preconditioner, or in any: their expected
    decrease is below rounding, and has not halved for some steps."""
    last, before = state.decrements[-PATIENCE:], state.decrements[:-PATIENCE]
    known = last[-1] < noise and not np.isnan(before[-1])
    stalled = known and last.min() > 0.5 * min(np.nanmin(before), state.older)
    return bool(stalled), state.idle > IDLE and state.faintest < noise


def renewed(state: State, keep: int) -> State:
    """What was seen of the decrease is forgotten, and of the history all but `keep` pairs."""
    fresh = np.full_like(state.decrements, np.nan)
    history = forgotten(state.history, keep)
    return state._replace(history=history, decrements=fresh, older=np.inf)


def with_step(state: State, precondition: Callable) -> State:
    """Before the first trial along the next step.

    Args:
      precondition: of vectors (..., n).
    """
    gradient = state.gradient
    step, history = scaled_step(state.history, precondition, gradient)
    slope = float(gradient @ step)
    if slope >= 0:
        step, history = scaled_step(forgotten(history, 0), precondition, gradient)
    gain = -slope / 2
    return state._replace(
        step=step,
        history=history,
        trial=0,
        length=min(1.0, LONGER * state.length),
        decrements=np.append(state.decrements[1:], gain),
        older=float(np.fmin(state.older, state.decrements[0])),
        idle=0 if gain < 0.5 * state.faintest else state.idle + 1,
        faintest=min(state.faintest, gain),
    )
