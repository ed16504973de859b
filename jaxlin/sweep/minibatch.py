"""Minibatch sweeps: banks of heads descend side by side, each until its own early stop.

A head that has stopped keeps its best parameters; what the bank goes on computing for it is
thrown away, and once half of a bank has stopped it is compacted to those that go on. A head whose
loss is no longer finite is noted, keeps what it had, and disturbs no other.
"""

__all__ = ["BankRecord", "Progress", "bank_size", "descend"]

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import train
from jaxlin.batches import steps_per_epoch
from jaxlin.core import Batch, LinearParams
from jaxlin.preprocess import Preprocessing
from jaxlin.sweep.bank import Descent, bank_trainer, measure, start
from jaxlin.sweep.heads import Fitted, Head
from jaxlin.train import TrainState

COMPACT_BELOW = 0.5
"""Share of a bank's heads that must go on, lest it be compacted."""


class BankRecord(NamedTuple):
    """What a bank observed at the end of an epoch, for progress and logs."""

    bank: int
    banks: int
    heads: int
    """How many heads of this bank go on."""
    epoch: float
    step: int
    loss: float
    """Least mean objective of any head over the last epoch."""
    validation_accuracy: float | None
    """Highest of any head of this bank so far."""


class Progress(NamedTuple):
    """All that a bank needs to go on: its heads' descent and what is known of each so far.

    A pytree of arrays; `heads` rows lead everywhere but in `state.step`.
    """

    state: TrainState
    kept: LinearParams
    """(A, K, D) and (A, K) of the active heads: the best so far, or the last finite."""
    active: np.ndarray
    """(A,): positions of the active heads in the bank."""
    quality: np.ndarray
    """(H, 3) float64 of all heads: validation accuracy, validation loss, epoch of `kept`."""
    waited: np.ndarray
    """(H,): epochs without improvement."""
    loss: np.ndarray
    """(H,): mean objective over the last epoch."""
    history: np.ndarray
    """(H, epochs recorded, 3): epoch, validation accuracy, mean objective; NaN where none."""


def descend(
    heads: Sequence[Head],
    data: Batch,
    validation: Batch | None = None,
    *,
    classes: int,
    statistics: Preprocessing,
    descent: Descent,
    key: jax.Array,
    batch_size: int = 256,
    stop_after: float | None = None,
    patience: int | None = None,
    init_scale: float = 0.0,
    dtype=jnp.float32,
    memory: int | None = None,
    on_record: Callable[[BankRecord], None] | None = None,
) -> list[Fitted]:
    """Train all heads on the same batches, side by side.

    Args:
      heads: from `grid`; those of one loss side by side.
      data: inputs (N, D) and labels (N,), optionally weights (N,).
      validation: the same; its `weights` count in the accuracy that selects (inverse sizes of
        the classes make it the mean over classes).
      classes: K.
      statistics: fitted preprocessing of the inputs.
      descent: optimizer, schedule with its number of steps, and what else heads have in common.
      key: decides the order of the examples, the same for all heads.
      batch_size: B.
      stop_after: epochs after which to stop, before the end of the schedule; `None` is its end.
      patience: a head stops after this many epochs without better validation.
      init_scale: spread of the initial weights, drawn by a head's seed; 0 starts from zero.
      dtype: of the parameters.
      memory: bytes that a bank may take; more heads are trained bank after bank.
      on_record: called at the end of every epoch of a bank.

    Returns:
      A `Fitted` for every head, in the order of `heads`.

    >>> from jaxlin import preprocess
    >>> from jaxlin.sweep import grid
    >>> data = Batch(np.eye(4, dtype=np.float32), np.arange(4))
    >>> fitted = descend(
    ...     grid([0.0, 1.0]), data, data, classes=4, key=jax.random.key(0),
    ...     statistics=preprocess.fit(data.inputs, "none"), descent=Descent(steps=20),
    ... )
    >>> [head.validation_accuracy for head in fitted]
    [1.0, 1.0]
    """
    features = data.inputs.shape[1]
    size = bank_size(
        heads, features=features, classes=classes, batch_size=batch_size, descent=descent,
        dtype=dtype, memory=memory,
    )  # fmt: skip
    data = Batch(*(None if leaf is None else jnp.asarray(leaf) for leaf in data))
    fitted = []
    banks = [heads[first : first + size] for first in range(0, len(heads), size)]
    for number, bank in enumerate(banks):
        initial = start(bank, classes, features, scale=init_scale, dtype=dtype)
        tell = None if on_record is None else partial(_tell, on_record, number, len(banks))
        fitted += _descend_bank(
            list(bank), initial, data, validation, statistics=statistics, descent=descent,
            key=key, batch_size=batch_size, stop_after=stop_after, patience=patience, tell=tell,
        )  # fmt: skip
    return fitted


def bank_size(
    heads: Sequence[Head], *, features, classes, batch_size, descent, dtype, memory
) -> int:
    """How many heads a bank may have under `memory` bytes, spread evenly over the banks.

    Raises:
      ValueError: not even one head fits.
    """
    if memory is None:
        return len(heads)
    item = jnp.dtype(dtype).itemsize
    slots = {"sgd": 0, "momentum": 1, "nesterov": 1, "lars": 1, "lion": 1, "adagrad": 1}
    # Parameters, their best, a gradient, an update, the optimizer's slots, each once more while
    # a step writes the next state; scores, residuals and their temporaries for a batch.
    copies = 2 * (3 + slots.get(descent.optimizer, 2)) + 1
    each = item * classes * (copies * features + 6 * batch_size)
    fitting = memory // each
    if fitting < 1:
        raise ValueError(
            f"One head of {classes:,} classes and {features:,} features takes about "
            f"{each / 2**30:.2g} GiB, and {memory / 2**30:.2g} GiB of memory are to be had. "
            "Use fewer features, a smaller batch, or a machine with more memory."
        )
    return -(-len(heads) // -(-len(heads) // min(fitting, len(heads))))


def _descend_bank(
    heads, initial, data, validation, *, statistics, descent, key, batch_size, stop_after,
    patience, tell,
) -> list[Fitted]:  # fmt: skip
    """One bank from its start to the last of its heads."""
    per_epoch = steps_per_epoch(len(data.labels), batch_size)
    last = descent.steps
    if stop_after is not None:
        last = min(last, round(stop_after * per_epoch))
    trainer = bank_trainer(heads, descent, statistics)
    progress = _begin(trainer.init(initial), len(heads))
    done: dict[int, LinearParams] = {}
    status = ["done"] * len(heads)
    while len(progress.active) and int(progress.state.step) < last:
        trainer = bank_trainer([heads[h] for h in progress.active], descent, statistics)
        for new, infos in train.chunks(
            trainer, progress.state, data, key=key, steps=last, batch_size=batch_size
        ):
            step = int(new.step)
            at_end = step % per_epoch == 0 or step == last
            measured = None
            if validation is not None and at_end:
                bank = [heads[h] for h in progress.active]
                measured = measure(bank, new.params, descent, statistics, validation)
            progress, stopping = _observe(
                progress, new, infos.loss, measured, step / per_epoch, patience, status
            )
            if tell is not None:
                tell(progress, step, validation is not None)
            if stopping.any() and stopping.mean() > COMPACT_BELOW:
                break  # only when more than half have stopped is a smaller program worth it
        progress = _compact(progress, stopping, done)
    _take(progress, range(len(progress.active)), done)
    return [_fitted(heads[h], done[h], progress, h, status[h]) for h in range(len(heads))]


def _begin(state: TrainState, count: int) -> Progress:
    return Progress(
        state,
        state.params,
        np.arange(count),
        np.full((count, 3), [-np.inf, np.inf, 0.0]),
        np.zeros(count, int),
        np.full(count, np.nan),
        np.zeros((count, 0, 3)),
    )


def _observe(progress: Progress, new, losses, measured, epoch, patience, status):
    """Take in one chunk: which heads are better, which go on, which stop now."""
    active = progress.active
    quality, waited = progress.quality.copy(), progress.waited.copy()
    loss, history = progress.loss.copy(), progress.history
    going = np.array([status[h] == "done" for h in active])
    finite = np.isfinite(losses).all(axis=0)
    better = going & finite
    record = np.full((len(loss), 1, 3), np.nan)
    loss[active[better]] = losses.mean(axis=0)[better]
    record[active[better], 0, 0] = epoch
    record[active[better], 0, 2] = losses.mean(axis=0)[better]
    if measured is not None:
        accuracies, values = measured
        sound = better & np.isfinite(values)
        record[active[sound], 0, 1] = accuracies[sound]
        old = quality[active]
        improved = (accuracies > old[:, 0]) | ((accuracies == old[:, 0]) & (values < old[:, 1]))
        better = sound & improved
        found = np.stack([accuracies, values, np.full(len(active), epoch)], axis=1)
        quality[active[better]] = found[better]
        waited[active[better]] = 0
        waited[active[sound & ~improved]] += 1
    elif not np.isfinite(quality[active, 0]).any():
        quality[active[better], 2] = epoch  # without validation the last finite one is kept
    else:
        better = np.zeros_like(better)
    for h in active[going & ~finite]:
        status[h] = "diverged"
    if patience is not None:
        for h in active[going & finite]:
            if waited[h] >= patience:
                status[h] = "stopped early"
    kept = _keep(jnp.asarray(better), new.params, progress.kept)
    stopping = np.array([status[h] != "done" for h in active])
    recorded = np.concatenate([history, record], axis=1)
    return Progress(new, kept, active, quality, waited, loss, recorded), stopping


@jax.jit
def _keep(better, new, old):
    def choose(a, b):
        return jnp.where(jnp.broadcast_to(better.reshape(-1, *[1] * (a.ndim - 1)), a.shape), a, b)

    return jax.tree.map(choose, new, old)


def _compact(progress: Progress, stopping, done) -> Progress:
    """Move the heads that have stopped out of the bank."""
    _take(progress, np.flatnonzero(stopping), done)
    going = np.flatnonzero(~stopping)
    if not len(going):
        return progress._replace(active=progress.active[:0])

    def rows(leaf):
        return leaf[jnp.asarray(going)] if leaf.ndim else leaf

    state = progress.state._replace(
        params=jax.tree.map(rows, progress.state.params),
        optimizer_state=jax.tree.map(rows, progress.state.optimizer_state),
    )
    kept = jax.tree.map(rows, progress.kept)
    return progress._replace(state=state, kept=kept, active=progress.active[going])


def _take(progress: Progress, positions, done) -> None:
    weights, bias = (np.asarray(leaf) for leaf in progress.kept)
    for i in positions:
        done[int(progress.active[i])] = LinearParams(weights[i].copy(), bias[i].copy())


def _fitted(head: Head, params, progress: Progress, h: int, status: str) -> Fitted:
    accuracy, loss, epoch = progress.quality[h].tolist()
    known = np.isfinite(accuracy)
    objective = float(progress.loss[h])
    rows = progress.history[h]
    return Fitted(
        head,
        params,
        status,
        accuracy if known else None,
        loss if known else None,
        objective if np.isfinite(objective) else None,
        None,
        epoch,
        tuple(_plain(row) for row in rows if np.isfinite(row[0])),
    )


def _plain(row) -> tuple[float, Any, Any]:
    epoch, accuracy, loss = row.tolist()
    return epoch, accuracy if np.isfinite(accuracy) else None, loss


def _tell(on_record, number, banks, progress: Progress, step: int, validated: bool) -> None:
    epochs = progress.history[:, -1, 0]
    best = progress.quality[:, 0].max()
    on_record(
        BankRecord(
            number,
            banks,
            int(np.isfinite(epochs).sum()),
            float(np.nanmax(epochs)) if np.isfinite(epochs).any() else np.nan,
            step,
            float(np.nanmin(progress.loss)) if np.isfinite(progress.loss).any() else np.nan,
            float(best) if validated and np.isfinite(best) else None,
        )
    )
