"""Training: gradient descent as one compiled functional loop.

Vanilla gradient descent, minibatch descent and single-example SGD are the same loop with another
batch size. A `Trainer` is a pair of pure functions, `init(params) -> state` and `step(state,
batch) -> (state, info)`; `chunks` runs many steps in one compiled call over data that stay on the
device, and comes back to the host between chunks; `run` adds validation, the best parameters so
far and early stopping.

What a step does depends on the state, the key and the step number alone, so a run that was cut
anywhere and continued from its `Progress` gives the same bits as one that was not.
"""

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Fit",
    "Progress",
    "Record",
    "StepInfo",
    "TrainState",
    "Trainer",
    "beginning",
    "chunks",
    "compile_steps",
    "optimizer",
    "pack",
    "program",
    "run",
    "schedule",
    "trainer",
    "unpack",
]

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlin._dtypes import accumulator
from jaxlin.batches import steps_per_epoch
from jaxlin.core import Batch, LinearParams
from jaxlin.distributed.processes import all_reduce
from jaxlin.distributed.sharding import Placed, fetch, place_params, spread
from jaxlin.optimizers import OPTIMIZERS, SCHEDULES, optimizer, schedule
from jaxlin.steps import (
    CHUNK_STEPS,
    StepInfo,
    Trainer,
    TrainState,
    chunks,
    compile_steps,
    placed_for_training,
    program,
    trainer,
)

FIRST_STEPS = 64
"""Steps after which a run that is watched first looks up, to learn how long they take."""
SECONDS_BETWEEN_LOOKS = 1.0


class Record(NamedTuple):
    """What `run` observed at the end of an epoch (or of a chunk of a very long one).

    >>> records = []
    >>> descent = trainer(lambda params, batch: (params.weights**2).sum(), optimizer("sgd", 0.25))
    >>> start = LinearParams(np.ones((1, 2)), np.zeros(1))
    >>> data = Batch(np.ones((4, 2)), np.zeros(4, int))
    >>> fit = run(descent, start, data, key=jax.random.key(0), steps=2, on_record=records.append)
    >>> [(record.step, record.loss) for record in records]  # every step halves the weights
    [(1, 2.0), (2, 0.5)]
    """

    step: int
    epoch: float
    loss: float
    """Mean of the objective over the steps since the last record."""
    gradient_norm: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float


class Progress(NamedTuple):
    """All that `run` carries: what a checkpoint has to hold.

    >>> descent = trainer(lambda params, batch: (params.weights**2).sum(), optimizer("sgd", 0.25))
    >>> progress = beginning(descent, LinearParams(np.ones((2, 3)), np.zeros(2)), examples=1000)
    >>> int(progress.state.step), progress.finite, progress.history
    (0, True, [])
    """

    state: TrainState
    best: LinearParams
    """The best on validation so far; where nothing was validated yet, those at the last record."""
    losses: np.ndarray
    """The objective at the steps since the last record, then zeros: as long as a chunk."""
    quality: tuple[float, float] | None
    """Validation accuracy and minus the validation loss of `best`."""
    waited: int
    """How many validations were no better since."""
    history: list[Record]
    seconds: float
    """Time spent training, in all processes that had a part in it."""

    @property
    def finite(self) -> bool:
        """Whether every loss since the last record was a number."""
        return bool(np.isfinite(self.losses).all())


Arrays = tuple[TrainState, LinearParams, np.ndarray]
"""The fields of `Progress` that are arrays."""


class Fit(NamedTuple):
    """The outcome of `run`.

    >>> descent = trainer(lambda params, batch: (params.weights**2).sum(), optimizer("sgd", 0.25))
    >>> start = LinearParams(np.ones((1, 2)), np.zeros(1))
    >>> data = Batch(np.ones((4, 2)), np.zeros(4, int))
    >>> fit = run(descent, start, data, key=jax.random.key(0), steps=2)
    >>> fit.status, fit.params.weights.tolist()
    ('done', [[0.25, 0.25]])
    """

    params: LinearParams
    """The best on validation where there is one, else the last."""
    state: TrainState
    history: list[Record]
    status: str
    """"done", "stopped early" or "diverged"."""
    compile_seconds: float
    train_seconds: float


def run(
    descent: Trainer,
    params: LinearParams,
    data: Batch | Placed,
    *,
    key: jax.Array,
    steps: int,
    batch_size: int = 256,
    validate: Callable[[LinearParams], tuple[float, float]] | None = None,
    patience: int | None = None,
    on_record: Callable[[Record], None] | None = None,
    start: Progress | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    next_due: Callable[[int], int | None] | None = None,
) -> Fit:
    """Train for `steps` steps, watching validation, and return the best parameters.

    Args:
      descent: from `trainer`.
      params: where to start.
      data: the training examples.
      key: decides the order of the examples.
      steps: how many steps.
      batch_size: B.
      validate: `params -> (loss, accuracy)`, called at the end of every epoch. The parameters
        with the highest accuracy are returned; among equals those with the lowest loss.
      patience: stop after this many epochs without such an improvement.
      on_record: called with every record, for progress and logs.
      start: go on from here instead of from `params`. The result is that of an unbroken run, bit
        for bit.
      on_progress: called before the first step and then about every second, between two compiled
        calls, with all that is needed to go on: the place to save, or to leave by an exception.
      next_due: `step -> ` the next step at which `on_progress` must be called, or `None`.

    Returns:
      A `Fit`. A loss that is not finite ends the run with status "diverged" and the best (or
      last finite) parameters; nothing is raised.

    >>> from jaxlin.losses import softmax_cross_entropy
    >>> from jaxlin.objectives import compose
    >>> from jaxlin.scores import linear
    >>> descent = trainer(compose(linear, softmax_cross_entropy), optimizer("sgd", 0.5))
    >>> start = LinearParams(np.zeros((2, 1)), np.zeros(2))
    >>> data = Batch(np.array([[-1.0], [1.0]]), np.array([0, 1]))
    >>> fit = run(descent, start, data, key=jax.random.key(0), steps=20)
    >>> fit.status, len(fit.history), fit.history[-1].loss < fit.history[0].loss
    ('done', 20, True)
    """
    data, examples, over = placed = placed_for_training(data)
    whole = partial(_whole, heads=len(params.bias), over=over)
    if start is None:
        params = params if over is None else place_params(params, over)
        start = beginning(descent, params, examples, batch_size)
    judge = None if validate is None else lambda params: validate(whole(params))
    progress = start._replace(losses=np.array(start.losses), history=[*start.history])
    per_epoch, length = steps_per_epoch(examples, batch_size), len(progress.losses)
    first, before, pace = int(progress.state.step), progress.seconds, FIRST_STEPS
    compile_seconds = compile_steps(descent, progress.state, placed, batch_size=batch_size)
    if on_progress is not None:
        on_progress(progress)
    settled, begun = progress.state, time.perf_counter()

    def until(step: int) -> int:
        due = None if next_due is None else next_due(step)
        return step + pace if due is None else min(step + pace, due)

    remaining = chunks(
        descent,
        progress.state,
        placed,
        key=key,
        steps=steps,
        batch_size=batch_size,
        chunk_steps=length,
        until=None if on_progress is None else until,
    )
    status = _status(progress, patience)
    while status == "done" and (moved := next(remaining, None)) is not None:
        state, infos = moved
        elapsed, step, count = time.perf_counter() - begun, int(state.step), len(infos.loss)
        # The processes of a job must look up at the same steps.
        own = max(1, int(SECONDS_BETWEEN_LOOKS * (step - first) / elapsed))
        pace = int(all_reduce(own, "min"))
        progress = progress._replace(state=state, seconds=before + elapsed)
        filled = (step - count) % per_epoch % length
        progress.losses[filled : filled + count] = infos.loss
        ended = step % per_epoch == 0 or step == steps
        if ended or step % per_epoch % length == 0:
            record = Record(
                step=step,
                epoch=step / per_epoch,
                loss=float(progress.losses[: filled + count].mean()),
                gradient_norm=float(infos.gradient_norm[-1]),
                validation_loss=None,
                validation_accuracy=None,
                seconds=progress.seconds,
            )
            progress = _recorded(progress, record, judge if ended else None)
            if on_record is not None:
                on_record(progress.history[-1])
            settled, status = state if progress.finite else settled, _status(progress, patience)
        if on_progress is not None and progress.finite:
            on_progress(progress)
    seconds = before + time.perf_counter() - begun
    return Fit(whole(progress.best), settled, progress.history, status, compile_seconds, seconds)


def beginning(
    descent: Trainer, params: LinearParams, examples: int, batch_size: int = 256
) -> Progress:
    """The `Progress` of a run on `examples` examples that has not taken a step yet.

    >>> descent = trainer(lambda params, batch: params.weights.sum(), optimizer("sgd", 0.5))
    >>> start = LinearParams(np.zeros((2, 3)), np.zeros(2))
    >>> beginning(descent, start, examples=1000, batch_size=100).losses.shape
    (10,)
    """
    steps = min(CHUNK_STEPS, steps_per_epoch(examples, batch_size))
    losses = np.zeros(steps, accumulator(params.bias.dtype))
    return Progress(spread(descent.init(params), params), params, losses, None, 0, [], 0.0)


def _whole(params: LinearParams, *, heads: int, over: Mesh | None) -> LinearParams:
    """Parameters as a caller gave them: not spread over a mesh."""
    return params if over is None else LinearParams(*fetch(params, heads))


def _recorded(
    progress: Progress,
    record: Record,
    validate: Callable[[LinearParams], tuple[float, float]] | None,
) -> Progress:
    """`progress` with a record more, and with better parameters if these are."""
    params, quality = progress.state.params, progress.quality
    if progress.finite and validate is not None:
        loss, accuracy = validate(params)
        record = record._replace(validation_loss=loss, validation_accuracy=accuracy)
        if quality is None or (accuracy, -loss) > quality:
            progress = progress._replace(best=params, quality=(accuracy, -loss), waited=0)
        else:
            progress = progress._replace(waited=progress.waited + 1)
    elif progress.finite and quality is None:
        progress = progress._replace(best=params)
    if progress.finite:
        progress.losses.fill(0)
    progress.history.append(record)
    return progress


def _status(progress: Progress, patience: int | None) -> str:
    tired = patience is not None and progress.waited >= patience
    return "diverged" if not progress.finite else "stopped early" if tired else "done"


def pack(progress: Progress) -> tuple[Arrays, dict[str, Any]]:
    """A `Progress` as a pytree of arrays of fixed shapes, and the rest as JSON.

    >>> descent = trainer(lambda params, batch: params.weights.sum(), optimizer("sgd", 0.5))
    >>> start = LinearParams(np.zeros((2, 3)), np.zeros(2))
    >>> arrays, record = pack(beginning(descent, start, examples=1000))
    >>> record
    {'quality': None, 'waited': 0, 'history': [], 'seconds': 0.0}
    """
    state, best, losses, *rest = progress
    return (state, best, losses), dict(zip(Progress._fields[3:], rest, strict=True))


def unpack(arrays: Arrays, record: dict[str, Any]) -> Progress:
    """The `Progress` that `pack` took apart, after a way through a file.

    >>> descent = trainer(lambda params, batch: params.weights.sum(), optimizer("sgd", 0.5))
    >>> begun = beginning(descent, LinearParams(np.zeros((2, 3)), np.zeros(2)), examples=1000)
    >>> unpack(*pack(begun))._replace(losses=None) == begun._replace(losses=None)
    True
    """
    quality = None if record["quality"] is None else tuple(record["quality"])
    history = [Record(*values) for values in record["history"]]
    state, best, losses = arrays
    return Progress(state, best, losses, quality, record["waited"], history, record["seconds"])
