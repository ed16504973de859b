"""Many steps of descent in one compiled call, over data on the device or read in windows.

A `Trainer` is a pair of pure functions; `chunks` walks through the epochs, comes back to the host
between two compiled calls, and can be left and taken up at any step.
"""

__all__ = [
    "CHUNK_STEPS",
    "StepInfo",
    "TrainState",
    "Trainer",
    "chunks",
    "compile_steps",
    "placed_for_training",
    "program",
    "run_chunk",
    "trainer",
]

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxlin import stream
from jaxlin._dtypes import accumulator, widened
from jaxlin.batches import EpochPlan, device_plan, on_device, steps_per_epoch, take_batch
from jaxlin.blocks import blocks_on
from jaxlin.core import Batch, LinearParams
from jaxlin.distributed.sharding import Placed, fetch, place
from jaxlin.objectives import gradient_in_parts
from jaxlin.precision import jit
from jaxlin.prefetch import prefetch
from jaxlin.transfer import device_of

CHUNK_STEPS = 4096
"""The most steps in one compiled call."""


class TrainState(NamedTuple):
    """All that a run carries from step to step.

    >>> descent = trainer(lambda params, batch: (params.weights**2).sum(), optax.sgd(0.25))
    >>> state = descent.init(LinearParams(jnp.ones((2, 3)), jnp.zeros(2)))
    >>> state.params.weights.shape, int(state.step)
    ((2, 3), 0)
    """

    params: LinearParams
    optimizer_state: optax.OptState
    step: jax.Array | np.ndarray
    """() int32: how many steps were taken."""


class StepInfo(NamedTuple):
    """What one step observed, before it moved.

    >>> descent = trainer(lambda params, batch: (params.weights**2).sum(), optax.sgd(0.25))
    >>> state = descent.init(LinearParams(jnp.array([[3.0, 4.0]]), jnp.zeros(1)))
    >>> _, info = descent.step(state, Batch(jnp.ones((4, 2)), jnp.zeros(4, jnp.int32)))
    >>> info.loss.item(), info.gradient_norm.item()
    (25.0, 10.0)
    """

    loss: jax.Array
    """(): the objective on the batch."""
    gradient_norm: jax.Array
    """(): Euclidean norm over all parameters."""


class Trainer(NamedTuple):
    """A pair of pure functions; see `trainer`.

    >>> descent = trainer(lambda params, batch: (params.weights**2).sum(), optax.sgd(0.25))
    >>> state = descent.init(LinearParams(jnp.ones((1, 2)), jnp.zeros(1)))
    >>> state, _ = descent.step(state, Batch(jnp.ones((4, 2)), jnp.zeros(4, jnp.int32)))
    >>> state.params.weights.tolist()
    [[0.5, 0.5]]
    """

    init: Callable[[LinearParams], TrainState]
    step: Callable[[TrainState, Batch], tuple[TrainState, StepInfo]]


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
    >>> int(state.step), round(info.loss.item(), 4)
    (1, 0.6931)
    """

    value_and_gradient = gradient_in_parts(objective, parts)

    def init(params: LinearParams) -> TrainState:
        return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        loss, gradient = value_and_gradient(state.params, batch)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
        params = optax.apply_updates(state.params, updates)
        info = StepInfo(loss, optax.tree.norm(jax.tree.map(widened, gradient)))
        return TrainState(params, optimizer_state, state.step + 1), info

    return Trainer(init, step)


def compile_steps(
    descent: Trainer,
    state: TrainState,
    data: Batch | Placed,
    *,
    batch_size: int = 256,
    chunk_steps: int = CHUNK_STEPS,
) -> float:
    """Compile what `chunks` will run, take no step, and return the seconds it took.

    >>> descent = trainer(lambda params, batch: (params.weights**2).sum(), optax.sgd(0.25))
    >>> state = descent.init(LinearParams(jnp.ones((1, 2)), jnp.zeros(1)))
    >>> compile_steps(descent, state, Batch(jnp.ones((4, 2)), jnp.zeros(4, jnp.int32))) > 0
    True
    """
    start = time.perf_counter()
    arguments = _no_steps(descent, state, data, batch_size, chunk_steps)
    for run in {1, _steps_unasked(state)}:
        jax.block_until_ready(run_chunk(*arguments, run=run))
    return time.perf_counter() - start


def program(
    descent: Trainer,
    state: TrainState,
    data: Batch | Placed,
    *,
    batch_size: int = 256,
    chunk_steps: int = CHUNK_STEPS,
) -> str:
    """The compiled text of what `chunks` runs; `jaxlin.distributed.sharding.collectives` reads it.

    >>> descent = trainer(lambda params, batch: (params.weights**2).sum(), optax.sgd(0.25))
    >>> state = descent.init(LinearParams(jnp.ones((1, 2)), jnp.zeros(1)))
    >>> program(descent, state, Batch(jnp.ones((4, 2)), jnp.zeros(4, jnp.int32)))[:9]
    'HloModule'
    """
    arguments = _no_steps(descent, state, data, batch_size, chunk_steps)
    return run_chunk.lower(*arguments, run=_steps_unasked(state)).compile().as_text() or ""


def _no_steps(
    descent: Trainer, state: TrainState, data: Batch | Placed, batch_size: int, chunk_steps: int
) -> tuple[Any, ...]:
    """Arguments of `run_chunk` that take no step."""
    data, examples, over = placed = placed_for_training(data)
    if _is_streamed(placed):
        data, plan = stream.blank_window(data, batch_size, over)
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
    """Train until `state.step == steps`, yielding after at most `chunk_steps` steps or an epoch.

    Between two yields everything happens in one compiled call: the rows of a batch are gathered
    on the device, integer pixels are converted there, and nothing returns to the host.

    Args:
      descent: from `trainer`.
      state: from `descent.init`, or a state to continue from.
      data: inputs (N, D), labels (N,), optionally weights (N,). Moved to the device once. NumPy
        arrays may be aliased, not copied: do not write into them while training. Inputs that are
        a source of rows, or a memory map, and too large for memory are streamed, in an order of
        their own: see `jaxlin.stream`. Or what `jaxlin.distributed.sharding.place` returned, to
        train on the devices of a mesh: the same batches.
      key: decides the order of the examples, with the epoch's number folded in.
      steps: total number of steps, those already in `state.step` included.
      batch_size: B; more than N means N.
      chunk_steps: the most steps in one compiled call.
      until: `step -> ` a later step at which to yield at the latest.

    Yields:
      The new state, and the infos of the steps since the last one, arrays (steps,).

    >>> descent = trainer(lambda params, batch: (params.weights**2).sum(), optax.sgd(0.25))
    >>> state = descent.init(LinearParams(jnp.ones((1, 2)), jnp.zeros(1)))
    >>> data = Batch(jnp.ones((4, 2)), jnp.zeros(4, jnp.int32))
    >>> moving = chunks(descent, state, data, key=jax.random.key(0), steps=3, batch_size=2)
    >>> [(int(state.step), infos.loss.tolist()) for state, infos in moving]  # an epoch, half of one
    [(2, [2.0, 0.5]), (3, [0.125])]
    """
    data, examples, over = placed = placed_for_training(data)
    if _is_streamed(placed):
        yield from _streamed_chunks(
            descent,
            state,
            placed,
            key=key,
            steps=steps,
            batch_size=batch_size,
            chunk_steps=chunk_steps,
            until=until,
        )
        return
    per_epoch, done = steps_per_epoch(examples, batch_size), int(state.step)
    length, unasked = min(chunk_steps, per_epoch), _steps_unasked(state)
    planned = partial(device_plan, key, examples=examples, batch_size=batch_size, over=over)
    # The next epoch's order is drawn while the devices are at work on this one.
    for plan in prefetch(planned, range(done // per_epoch, -(-steps // per_epoch))):
        first = done % per_epoch
        left = min(per_epoch - first, steps - done)
        while left > 0:
            # Chunks lie on a grid in the epoch, wherever the run was cut.
            count, run = _cut(min(length - first % length, left), done, until, unasked)
            arguments = (descent, length, over, state, data, plan, first, count)
            state, infos = run_chunk(*arguments, run=run)
            first, left, done = first + count, left - count, done + count
            yield state, fetch(infos, count)


def _streamed_chunks(
    descent: Trainer,
    state: TrainState,
    placed: Placed,
    *,
    key: jax.Array,
    steps: int,
    batch_size: int,
    chunk_steps: int,
    until: Callable[[int], int] | None,
) -> Iterator[tuple[TrainState, StepInfo]]:
    """`chunks` over windows that are read while the ones before them train."""
    begin, (data, _, over), unasked = int(state.step), placed, _steps_unasked(state)
    for window in stream.windows(
        data, key=key, start=begin, stop=steps, batch_size=batch_size, over=over
    ):
        length = min(chunk_steps, window.plan.rows.shape[0])
        done = 0
        while done < window.steps:
            step, first = int(state.step), window.first + done
            most = min(length - first % length, window.steps - done)
            count, run = _cut(most, step, until, unasked)
            arguments = (descent, length, over, state, window.data, window.plan, first, count)
            state, infos = run_chunk(*arguments, run=run)
            done += count
            yield state, fetch(infos, count)


def _steps_unasked(state: TrainState) -> int:
    """How many steps the device of the parameters takes before the host is asked to go on."""
    return blocks_on(device_of(state.params.bias)).steps


def _cut(most: int, step: int, until: Callable[[int], int] | None, unasked: int) -> tuple[int, int]:
    """How many of at most `most` steps the next call takes, and in runs of how many."""
    count = most if until is None else min(most, max(1, until(step) - step))
    run = unasked if count >= unasked else 1
    return count - count % run, run


def placed_for_training(data: Batch | Placed, over: Mesh | None = None) -> Placed:
    """What is trained on where it is: on the device, or on the devices of the mesh `over`.

    Rows that are streamed stay in their files.

    >>> placed_for_training(Batch(np.ones((3, 2), np.float32), np.array([0, 1, 1]))).examples
    3
    """
    if isinstance(data, Placed):
        return data
    if stream.is_streamed(data.inputs):
        return Placed(data, data.inputs.shape[0], over)
    return on_device(data) if over is None else place(data, over)


def _is_streamed(placed: Placed) -> bool:
    return stream.is_streamed(placed.batch.inputs)


@partial(jit, static_argnums=(0, 1, 2), static_argnames="run")
def run_chunk(
    descent: Trainer,
    length: int,
    over: Mesh | None,
    state: TrainState,
    data: Batch,
    plan: EpochPlan,
    first: jax.Array | int,
    count: jax.Array | int,
    *,
    run: int = 1,
) -> tuple[TrainState, StepInfo]:
    """`count` <= `length` steps from row `first` of the plan; one compilation for any count.

    Before an iteration of a loop whose length it does not know a GPU waits for the host, so that
    the steps lie in runs of a length that it knows.

    Args:
      descent: from `trainer`.
      length: of the infos that are returned.
      over: the mesh over which rows are placed, or `None`.
      state, data, plan: as `chunks` has them.
      first, count: which rows of the plan.
      run: steps in a run; `count` is a multiple of it.
    """

    def body(
        i: jax.Array, carry: tuple[TrainState, jax.Array, jax.Array]
    ) -> tuple[TrainState, jax.Array, jax.Array]:
        state, losses, norms = carry
        state, info = descent.step(state, take_batch(data, plan, first + i, over))
        return state, losses.at[i].set(info.loss), norms.at[i].set(info.gradient_norm)

    bias = state.params.bias  # (K,), or (H, K) for a bank of heads: an info a head and step
    zeros = jnp.zeros((length, *bias.shape[:-1]), accumulator(bias.dtype))

    def several(
        i: jax.Array, carry: tuple[TrainState, jax.Array, jax.Array]
    ) -> tuple[TrainState, jax.Array, jax.Array]:
        return jax.lax.fori_loop(0, run, lambda j, carry: body(i * run + j, carry), carry)

    state, losses, norms = jax.lax.fori_loop(0, count // run, several, (state, zeros, zeros))
    return state, StepInfo(losses, norms)
