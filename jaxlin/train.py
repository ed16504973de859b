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
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlin import stream
from jaxlin.batches import EpochPlan, device_plan, on_device, steps_per_epoch, take_batch
from jaxlin.core import Batch, LinearParams
from jaxlin.objectives import gradient_in_parts
from jaxlin.optimizers import OPTIMIZERS, SCHEDULES, optimizer, schedule
from jaxlin.sharding import Placed, agreed, fetch, place_params, spread

CHUNK_STEPS = 4096
"""The most steps of `run` in one compiled call, and between two records."""
FIRST_STEPS = 64
"""Steps after which a run that is watched first looks up, to learn how long they take."""
SECONDS_BETWEEN_LOOKS = 1.0


class TrainState(NamedTuple):
    """All that a run carries from step to step."""

    params: LinearParams
    optimizer_state: optax.OptState
    step: jax.Array
    """() int32: how many steps were taken."""


class StepInfo(NamedTuple):
    """What one step observed, before it moved."""

    loss: jax.Array
    """(): the objective on the batch."""
    gradient_norm: jax.Array
    """(): Euclidean norm over all parameters."""


class Trainer(NamedTuple):
    """A pair of pure functions; see `trainer`."""

    init: Callable[[LinearParams], TrainState]
    step: Callable[[TrainState, Batch], tuple[TrainState, StepInfo]]


class Record(NamedTuple):
    """What `run` observed at the end of an epoch (or of a chunk of a very long one)."""

    step: int
    epoch: float
    loss: float
    """Mean of the objective over the steps since the last record."""
    gradient_norm: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float


class Progress(NamedTuple):
    """All that `run` carries: what a checkpoint has to hold."""

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


class Fit(NamedTuple):
    """The outcome of `run`."""

    params: LinearParams
    """The best on validation where there is one, else the last."""
    state: TrainState
    history: list[Record]
    status: str
    """"done", "stopped early" or "diverged"."""
    compile_seconds: float
    train_seconds: float


def trainer(
    objective: Callable[[LinearParams, Batch], jax.Array],
    optimizer: optax.GradientTransformation,
    *,
    parts: int = 1,
) -> Trainer:
    """Gradient descent on `objective(params, batch) -> scalar` as a pair of pure functions.

    With `parts` a batch is looked at in so many parts, for want of memory
    (`jaxlin.objectives.gradient_in_parts`).

    >>> from jaxlin.losses import softmax_cross_entropy
    >>> from jaxlin.objectives import compose
    >>> from jaxlin.scores import linear
    >>> descent = trainer(compose(linear, softmax_cross_entropy), optax.sgd(0.5))
    >>> state = descent.init(LinearParams(jnp.zeros((2, 3)), jnp.zeros(2)))
    >>> state, info = descent.step(state, Batch(jnp.ones((4, 3)), jnp.array([0, 1, 1, 1])))
    >>> int(state.step), info.loss.round(4).item()
    (1, 0.6931...)
    """

    value_and_gradient = gradient_in_parts(objective, parts)

    def init(params: LinearParams) -> TrainState:
        return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        loss, gradient = value_and_gradient(state.params, batch)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
        params = optax.apply_updates(state.params, updates)
        info = StepInfo(loss, optax.tree.norm(gradient))
        return TrainState(params, optimizer_state, state.step + 1), info

    return Trainer(init, step)


def compile_steps(
    descent: Trainer,
    state: TrainState,
    data: Batch | Placed,
    *,
    batch_size: int = 256,
    chunk_steps=CHUNK_STEPS,
) -> float:
    """Compile what `chunks` will run, take no step, and return the seconds it took."""
    start = time.perf_counter()
    jax.block_until_ready(_run_chunk(*_no_steps(descent, state, data, batch_size, chunk_steps)))
    return time.perf_counter() - start


def program(
    descent: Trainer,
    state: TrainState,
    data: Batch | Placed,
    *,
    batch_size: int = 256,
    chunk_steps=CHUNK_STEPS,
) -> str:
    """The compiled text of what `chunks` runs; `jaxlin.sharding.collectives` reads it."""
    arguments = _no_steps(descent, state, data, batch_size, chunk_steps)
    return _run_chunk.lower(*arguments).compile().as_text()


def _no_steps(descent, state, data, batch_size, chunk_steps):
    """Arguments of `_run_chunk` that take no step."""
    data, examples, over = placed = _on_device(data)
    if _is_streamed(placed):
        data, plan = _blank_window(data, batch_size)
    else:
        plan = device_plan(jax.random.key(0), 0, examples, batch_size, over)
    return descent, min(chunk_steps, plan.rows.shape[0]), over, state, data, plan, 0, 0


def chunks(
    descent: Trainer,
    state: TrainState,
    data: Batch | Placed,
    *,
    key: jax.Array,
    steps: int,
    batch_size: int = 256,
    chunk_steps: int = 4096,
    until: Callable[[int], int] | None = None,
) -> Iterator[tuple[TrainState, StepInfo]]:
    """Train until `state.step == steps`, yielding after each epoch or `chunk_steps` steps.

    Between two yields everything happens in one compiled call: the rows of a batch are gathered
    on the device, integer pixels are converted there, and nothing returns to the host.

    Args:
      descent: from `trainer`.
      state: from `descent.init`, or a state to continue from.
      data: inputs (N, D), labels (N,), optionally weights (N,). Moved to the device once. NumPy
        arrays may be aliased, not copied: do not write into them while training. Inputs that are
        a source of rows, or a memory map, and too large for memory are streamed, in an order of
        their own: see `jaxlin.stream`. Or
        what `jaxlin.sharding.place` returned, to train on the devices of a mesh: the same batches.
      key: decides the order of the examples, with the epoch's number folded in.
      steps: total number of steps, those already in `state.step` included.
      batch_size: B; more than N means N.
      chunk_steps: the most steps in one compiled call.
      until: `step -> ` a later step at which to yield at the latest.

    Yields:
      The new state, and the infos of the steps since the last one, arrays (steps,).
    """
    data, examples, over = placed = _on_device(data)
    if _is_streamed(placed):
        yield from _streamed_chunks(
            descent,
            state,
            data,
            key=key,
            steps=steps,
            batch_size=batch_size,
            chunk_steps=chunk_steps,
        )
        return
    per_epoch = steps_per_epoch(examples, batch_size)
    length = min(chunk_steps, per_epoch)
    done, planned = int(state.step), None
    while done < steps:
        epoch, first = divmod(done, per_epoch)
        if planned != epoch:
            plan, planned = device_plan(key, epoch, examples, batch_size, over), epoch
        # Chunks lie on a grid in the epoch, wherever the run was cut.
        count = min(length - first % length, per_epoch - first, steps - done)
        if until is not None:
            count = min(count, max(1, until(done) - done))
        state, infos = _run_chunk(descent, length, over, state, data, plan, first, count)
        done += count
        yield state, StepInfo(*(np.asarray(info)[:count] for info in infos))


def _streamed_chunks(descent, state, data, *, key, steps, batch_size, chunk_steps):
    """`chunks` over windows that are read while the ones before them train."""
    begin = int(state.step)
    for window in stream.windows(data, key=key, start=begin, stop=steps, batch_size=batch_size):
        length = min(chunk_steps, window.plan.rows.shape[0])
        for done in range(0, window.steps, length):
            count = min(length, window.steps - done)
            first = window.first + done
            state, infos = _run_chunk(
                descent, length, None, state, window.data, window.plan, first, count
            )
            yield state, StepInfo(*(np.asarray(info)[:count] for info in infos))


def _blank_window(data: Batch, batch_size: int) -> tuple[Batch, EpochPlan]:
    """Zeros in the shape of a window of a stream."""
    rows = stream.window_rows(data.inputs, batch_size)
    shape = (rows // min(batch_size, data.inputs.shape[0]), -1)
    blank = Batch(
        jnp.zeros((rows, data.inputs.shape[1]), data.inputs.dtype),
        jnp.zeros(rows, np.asarray(data.labels).dtype),
        None if data.weights is None else jnp.zeros(rows, np.asarray(data.weights).dtype),
    )
    return blank, EpochPlan(
        jnp.zeros(rows, np.int32).reshape(shape), jnp.zeros(rows, np.float32).reshape(shape)
    )


def _on_device(data: Batch | Placed) -> Placed:
    """What is trained on where it is; rows that are streamed stay where they are."""
    if not isinstance(data, Placed) and stream.is_streamed(data.inputs):
        return Placed(data, data.inputs.shape[0], None)
    return on_device(data)


def _is_streamed(placed: Placed) -> bool:
    return placed.mesh is None and stream.is_streamed(placed.batch.inputs)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _run_chunk(descent, length, over, state, data, plan, first, count):
    """`count` <= `length` steps from row `first` of the plan; one compilation for any count."""

    def body(i, carry):
        state, losses, norms = carry
        state, info = descent.step(state, take_batch(data, plan, first + i, over))
        return state, losses.at[i].set(info.loss), norms.at[i].set(info.gradient_norm)

    bias = state.params.bias  # (K,), or (H, K) for a bank of heads: an info a head and step
    zeros = jnp.zeros((length, *bias.shape[:-1]), bias.dtype)
    state, losses, norms = jax.lax.fori_loop(0, count, body, (state, zeros, zeros))
    return state, StepInfo(losses, norms)


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
    """
    data, examples, over = placed = _on_device(data)
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
        *(descent, progress.state, placed),
        **{"key": key, "steps": steps, "batch_size": batch_size, "chunk_steps": length},
        until=None if on_progress is None else until,
    )
    status = _status(progress, patience)
    while status == "done" and (moved := next(remaining, None)) is not None:
        state, infos = moved
        elapsed, step, count = time.perf_counter() - begun, int(state.step), len(infos.loss)
        # The processes of a job must look up at the same steps.
        pace = agreed(max(1, int(SECONDS_BETWEEN_LOOKS * (step - first) / elapsed)))
        progress = progress._replace(state=state, seconds=before + elapsed)
        filled = (step - count) % per_epoch % length
        progress.losses[filled : filled + count] = infos.loss
        ended = step % per_epoch == 0 or step == steps
        if ended or step % per_epoch % length == 0:
            record = Record(
                *(step, step / per_epoch, float(progress.losses[: filled + count].mean())),
                *(float(infos.gradient_norm[-1]), None, None, progress.seconds),
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
    """The `Progress` of a run on `examples` examples that has not taken a step yet."""
    losses = np.zeros(min(CHUNK_STEPS, steps_per_epoch(examples, batch_size)), params.bias.dtype)
    return Progress(spread(descent.init(params), params), params, losses, None, 0, [], 0.0)


def _whole(params: LinearParams, *, heads: int, over) -> LinearParams:
    """Parameters as a caller gave them: not spread over a mesh."""
    return params if over is None else LinearParams(*fetch(params, heads))


def _recorded(progress: Progress, record: Record, validate) -> Progress:
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


def pack(progress: Progress) -> tuple[tuple, dict]:
    """A `Progress` as a pytree of arrays of fixed shapes, and the rest as JSON."""
    state, best, losses, *rest = progress
    return (state, best, losses), dict(zip(Progress._fields[3:], rest, strict=True))


def unpack(arrays: tuple, record: dict) -> Progress:
    """The `Progress` that `pack` took apart, after a way through a file."""
    quality = None if record["quality"] is None else tuple(record["quality"])
    history = [Record(*values) for values in record["history"]]
    return Progress(*arrays, quality, record["waited"], history, record["seconds"])
