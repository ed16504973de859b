"""Training: gradient descent as one compiled functional loop.

Vanilla gradient descent, minibatch descent and single-example SGD are the same loop with another
batch size. A `Trainer` is a pair of pure functions, `init(params) -> state` and `step(state,
batch) -> (state, info)`; `chunks` runs many steps in one compiled call over data that stay on the
device, and comes back to the host between chunks; `run` adds validation, the best parameters so
far and early stopping.

What a step does depends on the state, the key and the step number alone, so a run that was cut
anywhere and continued from its state gives the same bits as one that was not.
"""

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Fit",
    "Record",
    "StepInfo",
    "TrainState",
    "Trainer",
    "chunks",
    "compile_steps",
    "optimizer",
    "run",
    "schedule",
    "trainer",
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
from jaxlin.batches import EpochPlan, epoch_plan, steps_per_epoch
from jaxlin.core import Batch, LinearParams

OPTIMIZERS = {
    "sgd": optax.sgd,
    "momentum": partial(optax.sgd, momentum=0.9),
    "nesterov": partial(optax.sgd, momentum=0.9, nesterov=True),
    "adagrad": optax.adagrad,
    "rmsprop": optax.rmsprop,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "lion": optax.lion,
    "lars": optax.lars,
}
SCHEDULES = ("constant", "cosine", "linear")


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


def schedule(name: str, step_size: float, steps: int) -> optax.Schedule:
    """The step size over a run: "constant", or falling to 0 by a "cosine" or a "linear" law.

    >>> [round(float(schedule("linear", 0.5, 10)(step)), 3) for step in (0, 5, 10)]
    [0.5, 0.25, 0.0]
    """
    laws = {
        "constant": lambda: optax.constant_schedule(step_size),
        "cosine": lambda: optax.cosine_decay_schedule(step_size, steps),
        "linear": lambda: optax.linear_schedule(step_size, 0.0, steps),
    }
    if name not in laws:
        raise ValueError(f"`schedule` must be one of {', '.join(laws)}, got {name!r}.")
    return laws[name]()


def optimizer(
    name: str, step_size: float | optax.Schedule, *, decay: float = 0.0
) -> optax.GradientTransformation:
    """One of `OPTIMIZERS` by name; any other optax transformation works as well.

    Args:
      name: a key of `OPTIMIZERS`.
      step_size: a number or a schedule.
      decay: for "adamw" only, the factor by which a step of size 1 shrinks the weights. The
        bias is never decayed. `2 * strength` is decoupled l2 regularization.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"`optimizer` must be one of {', '.join(OPTIMIZERS)}, got {name!r}.")
    if name == "adamw":
        mask = LinearParams(True, False)
        return optax.adamw(step_size, weight_decay=decay, mask=mask)
    return OPTIMIZERS[name](step_size)


def trainer(
    objective: Callable[[LinearParams, Batch], jax.Array],
    optimizer: optax.GradientTransformation,
) -> Trainer:
    """Gradient descent on `objective(params, batch) -> scalar` as a pair of pure functions.

    >>> from jaxlin.losses import softmax_cross_entropy
    >>> from jaxlin.objectives import compose
    >>> from jaxlin.scores import linear
    >>> descent = trainer(compose(linear, softmax_cross_entropy), optax.sgd(0.5))
    >>> state = descent.init(LinearParams(jnp.zeros((2, 3)), jnp.zeros(2)))
    >>> state, info = descent.step(state, Batch(jnp.ones((4, 3)), jnp.array([0, 1, 1, 1])))
    >>> int(state.step), info.loss.round(4).item()
    (1, 0.6931...)
    """

    def init(params: LinearParams) -> TrainState:
        return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        loss, gradient = jax.value_and_grad(objective)(state.params, batch)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
        params = optax.apply_updates(state.params, updates)
        info = StepInfo(loss, optax.tree.norm(gradient))
        return TrainState(params, optimizer_state, state.step + 1), info

    return Trainer(init, step)


def compile_steps(
    descent: Trainer, state: TrainState, data: Batch, *, batch_size: int = 256, chunk_steps=4096
) -> float:
    """Compile what `chunks` will run, take no step, and return the seconds it took."""
    start = time.perf_counter()
    if stream.is_streamed(data.inputs):
        data, plan = _blank_window(data, batch_size)
        length = min(chunk_steps, plan.rows.shape[0])
        jax.block_until_ready(_run_chunk(descent, length, state, data, plan, 0, 0))
        return time.perf_counter() - start
    data = _on_device(data)
    examples = data.labels.shape[0]
    plan = jax.tree.map(jnp.asarray, epoch_plan(jax.random.key(0), 0, examples, batch_size))
    length = min(chunk_steps, plan.rows.shape[0])
    jax.block_until_ready(_run_chunk(descent, length, state, data, plan, 0, 0))
    return time.perf_counter() - start


def chunks(
    descent: Trainer,
    state: TrainState,
    data: Batch,
    *,
    key: jax.Array,
    steps: int,
    batch_size: int = 256,
    chunk_steps: int = 4096,
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
        their own: see `jaxlin.stream`.
      key: decides the order of the examples, with the epoch's number folded in.
      steps: total number of steps, those already in `state.step` included.
      batch_size: B; more than N means N.
      chunk_steps: the most steps in one compiled call.

    Yields:
      The new state, and the infos of the steps since the last one, arrays (steps,).
    """
    if stream.is_streamed(data.inputs):
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
    data = _on_device(data)
    examples = data.labels.shape[0]
    per_epoch = steps_per_epoch(examples, batch_size)
    length = min(chunk_steps, per_epoch)
    done, planned = int(state.step), None
    while done < steps:
        epoch, first = divmod(done, per_epoch)
        if planned != epoch:
            plan = jax.tree.map(jnp.asarray, epoch_plan(key, epoch, examples, batch_size))
            planned = epoch
        count = min(length, per_epoch - first, steps - done)
        state, infos = _run_chunk(descent, length, state, data, plan, first, count)
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
                descent, length, state, window.data, window.plan, first, count
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


def _on_device(data: Batch) -> Batch:
    if stream.is_streamed(data.inputs):
        return data
    return Batch(*(None if leaf is None else jnp.asarray(leaf) for leaf in data))


@partial(jax.jit, static_argnums=(0, 1))
def _run_chunk(descent, length, state, data, plan, first, count):
    """`count` <= `length` steps from row `first` of the plan; one compilation for any count."""

    def body(i, carry):
        state, losses, norms = carry
        rows, weights = plan.rows[first + i], plan.weights[first + i]
        if data.weights is not None:
            weights = weights * data.weights[rows]
        batch = Batch(
            # Rows come from a permutation, so the bounds checks of indexing would be idle.
            data.inputs.at[rows].get(mode="promise_in_bounds"),
            data.labels.at[rows].get(mode="promise_in_bounds"),
            weights,
        )
        state, info = descent.step(state, batch)
        return state, losses.at[i].set(info.loss), norms.at[i].set(info.gradient_norm)

    zeros = jnp.zeros(length, state.params.bias.dtype)
    state, losses, norms = jax.lax.fori_loop(0, count, body, (state, zeros, zeros))
    return state, StepInfo(losses, norms)


def run(
    descent: Trainer,
    params: LinearParams,
    data: Batch,
    *,
    key: jax.Array,
    steps: int,
    batch_size: int = 256,
    validate: Callable[[LinearParams], tuple[float, float]] | None = None,
    patience: int | None = None,
    on_record: Callable[[Record], None] | None = None,
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

    Returns:
      A `Fit`. A loss that is not finite ends the run with status "diverged" and the best (or
      last finite) parameters; nothing is raised.
    """
    per_epoch = steps_per_epoch(len(data.labels), batch_size)
    state = descent.init(params)
    best, best_quality, waited = state.params, None, 0
    history: list[Record] = []
    data = _on_device(data)
    compile_seconds = compile_steps(descent, state, data, batch_size=batch_size)
    status, start = "done", time.perf_counter()
    for new, infos in chunks(descent, state, data, key=key, steps=steps, batch_size=batch_size):
        elapsed = time.perf_counter() - start
        step = int(new.step)
        finite = np.isfinite(infos.loss).all()
        accuracy = loss = None
        if finite and validate is not None and (step % per_epoch == 0 or step == steps):
            loss, accuracy = validate(new.params)
            quality = (accuracy, -loss)
            if best_quality is None or quality > best_quality:
                best, best_quality, waited = new.params, quality, 0
            else:
                waited += 1
        record = Record(
            *(step, step / per_epoch, float(infos.loss.mean()), float(infos.gradient_norm[-1])),
            *(loss, accuracy, elapsed),
        )
        history.append(record)
        if on_record is not None:
            on_record(record)
        if not finite:
            status = "diverged"
            break
        state = new
        if patience is not None and waited >= patience:
            status = "stopped early"
            break
    params = state.params if best_quality is None else best
    return Fit(params, state, history, status, compile_seconds, time.perf_counter() - start)
