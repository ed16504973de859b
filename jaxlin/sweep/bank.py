"""A bank: many heads trained side by side as one `jaxlin.train.Trainer`.

The parameters of a bank have a leading head axis, weights (H, K, D) and bias (H, K), and so has
everything else it carries, so that `jaxlin.train.chunks` runs it unchanged. One product gives the
scores of all heads on a batch, one the gradient: the rows are read once for the whole bank. What
tells the heads apart (strength, step size, subset) is data, not code: another bank of the same
size and losses runs the same compiled program.
"""

__all__ = ["BankState", "Descent", "bank_trainer", "measure", "start"]

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from jaxlin import losses, regularizers, train
from jaxlin._dtypes import accumulator, widened
from jaxlin.core import Batch, LinearParams
from jaxlin.data.rows import take
from jaxlin.distributed import sharding
from jaxlin.objectives import weighted_mean, without_absent
from jaxlin.precision import jit, product
from jaxlin.preprocess import Preprocessing
from jaxlin.sweep.heads import Head
from jaxlin.train import StepInfo, Trainer, TrainState

Groups = tuple[tuple[str, int | None], ...]
"""The losses of a bank's heads in order, and how many heads have each; `None` for all of them."""


class Descent(NamedTuple):
    """How the heads of a bank descend; hashable, known while compiling.

    >>> Descent(optimizer="sgd", schedule="constant", steps=100).margin
    1.0
    """

    optimizer: str = "adam"
    schedule: str = "cosine"
    steps: int = 1000
    """The length of the schedule."""
    margin: float = 1.0
    regularizer: str = "l2"
    decoupled: bool = False
    """The strength is decoupled weight decay (for "adamw"), not part of the gradient."""
    batch_norm: bool = False
    """Each batch is standardized by its own mean and variance before the heads see it."""
    precision: str = "highest"
    """How the operands of the products are rounded, one of `jaxlin.precision.PRECISIONS`;
    parameters and sums stay as they are."""


class BankState(NamedTuple):
    """A bank's `TrainState.optimizer_state`: what its heads carry, all with a head axis."""

    optimizer: optax.OptState
    strengths: jax.Array
    """(H,)."""
    step_sizes: jax.Array
    """(H,)."""
    masks: jax.Array
    """(H, D) bool: the columns that a head sees."""


BATCH_NORM_EPSILON = 1e-6


def start(
    heads: Sequence[Head],
    classes: int,
    features: int,
    *,
    scale: float = 0.0,
    dtype: DTypeLike = jnp.float32,
) -> LinearParams:
    """Initial parameters (H, K, D) and (H, K): zero, or normal weights of spread `scale`.

    A head's draw depends on its seed alone, not on the bank it is in.
    """
    weights = np.zeros((len(heads), classes, features), dtype)
    if scale:
        draws = {
            seed: jax.random.normal(jax.random.key(seed), (classes, features), dtype)
            for seed in dict.fromkeys(head.seed for head in heads)
        }
        for h, head in enumerate(heads):
            weights[h] = scale * draws[head.seed] * head.subset.mask(features)[None, :]
    return LinearParams(jnp.asarray(weights), jnp.zeros((len(heads), classes), dtype))


def groups_of(heads: Sequence[Head]) -> Groups:
    """The runs of equal losses; a bank of one loss is the same whatever its size.

    >>> groups_of([Head(1.0), Head(2.0), Head(1.0, loss="hinge")])
    (('softmax', 2), ('hinge', 1))
    """
    runs: list[list] = []
    for head in heads:
        if runs and runs[-1][0] == head.loss:
            runs[-1][1] += 1
        else:
            runs.append([head.loss, 1])
    return tuple((name, count) for name, count in runs)


def bank_trainer(heads: Sequence[Head], descent: Descent, statistics: Preprocessing) -> Trainer:
    """The heads as one trainer.

    Args:
      heads: H heads, those of one loss side by side.
      descent: how they descend.
      statistics: the preprocessing of the inputs, fitted.

    Returns:
      A `Trainer`. `init` takes parameters with a head axis (see `start`); `step` returns infos
      of shape (H,).
    """
    losses_of = groups_of(heads)
    losses_of = ((heads[0].loss, None),) if len(losses_of) == 1 else losses_of
    blinkered = any(head.subset.columns is not None for head in heads)
    step = _step(losses_of, descent, _Frozen(statistics), blinkered)
    fixed = (
        np.array([head.strength for head in heads]),
        np.array([1.0 if head.step_size is None else head.step_size for head in heads]),
    )

    def init(params: LinearParams) -> TrainState:
        dtype, features = params.bias.dtype, params.weights.shape[-1]
        strengths, step_sizes = (jnp.asarray(values, dtype) for values in fixed)
        masks = jnp.asarray(np.stack([head.subset.mask(features) for head in heads]))
        optimizer = jax.vmap(partial(_init_one, descent))(params, step_sizes, strengths)
        state = BankState(optimizer, strengths, step_sizes, masks)
        return TrainState(params, state, jnp.zeros((), jnp.int32))

    return Trainer(init, step)


class _Frozen:
    """A preprocessing that can be a key: equal only to itself (a trainer per fitted one)."""

    def __init__(self, statistics: Preprocessing):
        self.identity = bytes(np.asarray(statistics.shift)) + bytes(np.asarray(statistics.scale))
        self.shift, self.scale = np.asarray(statistics.shift), np.asarray(statistics.scale)
        self.plain = not self.shift.any() and bool(np.all(self.scale == 1))

    def __hash__(self) -> int:
        return hash(self.identity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self.identity == other.identity


@cache
def _step(groups: Groups, descent: Descent, statistics: _Frozen, blinkered: bool) -> Callable:
    """The step function of a bank; the same object for the same settings, so compiled once.

    A bank all of whose heads see all columns (not `blinkered`) spares a pass over its gradient.
    """
    penalty = getattr(regularizers, descent.regularizer)

    def objective(
        params: LinearParams, settings: BankState, batch: Batch
    ) -> tuple[jax.Array, jax.Array]:
        batch = without_absent(batch)
        inputs = _inputs(batch, statistics, descent, params.weights.dtype)
        values = _losses(groups, descent, params, inputs, jnp.asarray(batch.labels))
        means = jax.vmap(lambda row: weighted_mean(row, batch.weights))(values)
        if not descent.decoupled:
            means = means + settings.strengths * jax.vmap(penalty)(params.weights)
        return means.sum(), means

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        settings = state.optimizer_state
        gradient, means = jax.grad(objective, has_aux=True)(state.params, settings, batch)
        if blinkered:
            seen = jnp.broadcast_to(settings.masks[:, None, :], gradient.weights.shape)
            gradient = gradient._replace(weights=jnp.where(seen, gradient.weights, 0))
        updates, optimizer = jax.vmap(partial(_update_one, descent))(
            gradient, settings.optimizer, state.params, settings.step_sizes, settings.strengths
        )
        params = optax.apply_updates(state.params, updates)
        norms = jax.vmap(optax.tree.norm)(jax.tree.map(widened, gradient))
        carried = settings._replace(optimizer=optimizer)
        return TrainState(params, carried, state.step + 1), StepInfo(means, norms)

    return step


def _transform(
    descent: Descent, step_size: jax.Array, strength: jax.Array
) -> optax.GradientTransformation:
    """The optimizer of one head, with its step size and decay traced."""
    law = train.schedule(descent.schedule, step_size, descent.steps)
    decay = 2 * strength if descent.decoupled else 0.0
    return train.optimizer(descent.optimizer, law, decay=decay)


def _init_one(
    descent: Descent, params: LinearParams, step_size: jax.Array, strength: jax.Array
) -> optax.OptState:
    return _transform(descent, step_size, strength).init(params)


def _update_one(
    descent: Descent,
    gradient: LinearParams,
    state: optax.OptState,
    params: LinearParams,
    step_size: jax.Array,
    strength: jax.Array,
) -> tuple[Any, optax.OptState]:
    return _transform(descent, step_size, strength).update(gradient, state, params)


def _inputs(batch: Batch, statistics: _Frozen, descent: Descent, dtype: DTypeLike) -> jax.Array:
    """The batch as the heads see it, (B, D): one affine map for the whole bank."""
    inputs = jnp.asarray(batch.inputs).astype(dtype)
    if not statistics.plain:
        shift, scale = (
            jnp.broadcast_to(jnp.asarray(part, dtype), inputs.shape)
            for part in (statistics.shift, statistics.scale)
        )
        inputs = (inputs - shift) * scale
    if descent.batch_norm:
        counts = jnp.ones(len(inputs), dtype) if batch.weights is None else batch.weights
        shares = (counts / counts.sum()).astype(dtype)
        mean = jnp.broadcast_to(shares @ inputs, inputs.shape)
        variance = jnp.broadcast_to(shares @ jnp.square(inputs - mean), inputs.shape)
        inputs = (inputs - mean) * jax.lax.rsqrt(variance + BATCH_NORM_EPSILON)
    return inputs


def _scores(params: LinearParams, inputs: jax.Array, precision: str) -> jax.Array:
    """(H, K, B): class before example, so that what follows runs along contiguous examples."""
    count, classes, features = params.weights.shape
    products = product(params.weights.reshape(count * classes, features), inputs, precision)
    shaped = products.reshape(count, classes, len(inputs))
    return shaped + jnp.broadcast_to(params.bias[:, :, None], shaped.shape)


def _losses(
    groups: Groups, descent: Descent, params: LinearParams, inputs: jax.Array, labels: jax.Array
) -> jax.Array:
    """(H, B): the loss of every head on every example."""
    scores = _scores(params, inputs, descent.precision)
    parts, first = [], 0
    for name, count in groups:
        own = scores if count is None else scores[first : first + count]
        first += count or 0
        of_one = losses.named(name, margin=descent.margin)
        of_head = jax.vmap(of_one, in_axes=(1, 0))  # classes stay where the product left them
        parts.append(jax.vmap(of_head, in_axes=(0, None))(own, labels))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def measure(
    heads: Sequence[Head],
    params: LinearParams,
    descent: Descent,
    statistics: Preprocessing,
    data: Batch,
    *,
    rows: int = 1024,
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and mean loss of every head, (H,) and (H,), in blocks of `rows` examples.

    `data.weights` (N,), such as the inverse sizes of the classes, weigh both. On a `mesh`, where
    `params` may have more heads (`jaxlin.distributed.sharding.place_heads`), every device sees its
    share of a block of `rows` for each of them.

    >>> from jaxlin import preprocess, sweep
    >>> inputs, labels = np.array([[-1.0], [1.0], [2.0]]), np.array([0, 1, 1])
    >>> params = LinearParams(jnp.array([[[-1.0], [1.0]]]), jnp.zeros((1, 2)))  # one head
    >>> seen = preprocess.fit(inputs, "none")
    >>> accuracy, loss = measure(
    ...     sweep.grid([1e-4]), params, Descent(), seen, Batch(inputs, labels)
    ... )
    >>> accuracy.tolist()
    [1.0]
    """
    frozen, groups = _Frozen(statistics), groups_of(heads)
    groups = ((groups[0][0], None),) if len(groups) == 1 else groups
    descent = descent._replace(batch_norm=False)
    size = len(data.labels)
    counts = np.ones(size) if data.weights is None else np.asarray(data.weights)
    hits, totals = np.zeros(len(heads)), np.zeros(len(heads))
    rows = min(rows * (1 if mesh is None else mesh.shape["data"]), size)
    for first in range(0, size, rows):
        part = range(first, min(first + rows, size))
        block = Batch(*(_block(a, part, rows, mesh) for a in (data[0], data[1], counts)))
        found = _measure_block(groups, descent, frozen, params, block)
        right, values = sharding.fetch(found, len(heads))
        hits += right.astype(np.float64)
        totals += values.astype(np.float64)
    return hits / counts.sum(), totals / counts.sum()


def _block(values: Any, part: range, rows: int, mesh: Mesh | None) -> Any:
    """Entries `part`, filled up to `rows`; on a mesh each process reads its own."""
    if mesh is not None:
        return sharding.place_rows(take(values, np.arange(part.start, part.stop)), mesh, rows)
    return _filled(np.asarray(values[part.start : part.stop]), rows)


def _filled(block: np.ndarray, rows: int) -> np.ndarray:
    if len(block) == rows:
        return block
    return np.concatenate([block, np.zeros((rows - len(block), *block.shape[1:]), block.dtype)])


@partial(jit, static_argnums=(0, 1, 2))
def _measure_block(
    groups: Groups, descent: Descent, statistics: _Frozen, params: LinearParams, block: Batch
) -> tuple[jax.Array, jax.Array]:
    dtype, block = params.bias.dtype, without_absent(block)
    inputs = _inputs(block, statistics, descent, dtype)
    labels = jnp.asarray(block.labels).astype(jnp.int32)
    counts = jnp.asarray(block.weights).astype(accumulator(dtype))
    scores = _scores(params, inputs, descent.precision)
    guesses = jnp.argmax(scores, axis=1)
    right = guesses == jnp.broadcast_to(labels[None, :], guesses.shape)
    right &= ~jnp.isnan(scores).any(axis=1)  # a head that diverged knows nothing
    values = _losses(groups, descent, params, inputs, labels)
    return right.astype(counts.dtype) @ counts, values @ counts
