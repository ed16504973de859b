"""Minibatch sweeps: banks of heads descend side by side, each until its own early stop.

A head that has stopped keeps its best parameters; what the bank goes on computing for it is
thrown away, and once more than half of a bank has stopped it is compacted to those that go on.
A head whose loss is no longer finite is noted, keeps what it had, and disturbs no other.
"""

__all__ = ["BankRecord", "Progress", "bank_size", "blank", "descend"]

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import sharding, train
from jaxlin.batches import steps_per_epoch
from jaxlin.core import Batch, LinearParams
from jaxlin.preprocess import Preprocessing
from jaxlin.steps import placed_for_training
from jaxlin.sweep.bank import Descent, bank_trainer, measure, start
from jaxlin.sweep.heads import Fitted, Head
from jaxlin.train import TrainState

CHUNK_STEPS = 512
"""The most steps between two looks at a bank."""
GOING, STOPPED, DIVERGED = range(3)
_WORDS = ("done", "stopped early", "diverged")


class BankRecord(NamedTuple):
    """What a bank observed at the end of an epoch, for progress and logs."""

    bank: int
    banks: int
    heads: int
    """How many heads of this bank go on."""
    epoch: float
    step: int
    loss: float
    """Least mean objective of any head over the last chunk."""
    validation_accuracy: float | None
    """Highest of any head of this bank so far."""


class Progress(NamedTuple):
    """All that `descend` carries between two compiled calls: what a checkpoint has to hold.

    A pytree of arrays, of A heads that the present bank goes on with, F finished ones, H in all.
    """

    state: TrainState
    kept: LinearParams
    """(A, K, D) and (A, K): the best so far, or the last finite."""
    finished: LinearParams
    """(F, K, D) and (F, K)."""
    bank: np.ndarray
    """(): the number of the present bank."""
    active: np.ndarray
    """(A,): positions of its heads."""
    done: np.ndarray
    """(F,): positions of the finished heads."""
    status: np.ndarray
    """(H,): `GOING`, `STOPPED` or `DIVERGED`."""
    quality: np.ndarray
    """(H, 3): validation accuracy, validation loss, epoch of the parameters kept."""
    waited: np.ndarray
    """(H,): epochs without improvement."""
    loss: np.ndarray
    """(H,): mean objective over the last chunk."""
    history: np.ndarray
    """(H, R, 3): epoch, validation accuracy, mean objective of R chunks; NaN where none."""

    @property
    def sizes(self) -> dict:
        """What `blank` needs to make a `Progress` of the same shapes."""
        return {
            "active": len(self.active),
            "finished": len(self.done),
            "rows": self.history.shape[1],
        }


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
    mesh=None,
    on_record: Callable[[BankRecord], None] | None = None,
    resumed: Progress | None = None,
    on_progress: Callable[[int, Progress], None] | None = None,
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
      mesh: from `jaxlin.sharding.mesh`: every device keeps its rows; the heads are split along
        its `class` axis.
      on_record: called at the end of every epoch of a bank (or `CHUNK_STEPS` of a long one).
      resumed: go on from here. The result is that of an unbroken run, bit for bit.
      on_progress: called as (step, progress) as often as `on_record`, and at the very end; `step`
        counts the steps of all banks. The place to save, or to leave by an exception.

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
    per_epoch = steps_per_epoch(len(data.labels), batch_size)
    data = placed_for_training(data, mesh)
    last = descent.steps if stop_after is None else min(
        descent.steps, round(stop_after * per_epoch)
    )  # fmt: skip
    banks = [np.arange(len(heads))[first : first + size] for first in range(0, len(heads), size)]
    make = partial(
        _open_bank, heads, descent=descent, statistics=statistics, classes=classes,
        features=features, scale=init_scale, dtype=dtype, mesh=mesh,
    )  # fmt: skip
    progress = make(_nothing(heads, classes, features, dtype), banks[0], 0)
    progress = progress if resumed is None else _placed(resumed, mesh)
    while True:
        if not len(progress.active) or int(progress.state.step) >= last:
            progress = _finish(progress, np.ones(len(progress.active), bool), mesh)
            number = int(progress.bank) + 1
            if number >= len(banks):
                break
            progress = make(progress, banks[number], number)
        bank = [heads[h] for h in progress.active]
        held = bank + bank[-1:] * (len(progress.state.params.bias) - len(bank))
        trainer = bank_trainer(held, descent, statistics)
        for new, infos in train.chunks(
            trainer, progress.state, data, key=key, steps=last, batch_size=batch_size,
            chunk_steps=CHUNK_STEPS,
        ):  # fmt: skip
            step, measured = int(new.step), None
            if validation is not None and (step % per_epoch == 0 or step == last):
                measured = measure(bank, new.params, descent, statistics, validation, mesh=mesh)
            losses = infos.loss[:, : len(bank)]
            progress = _observe(progress, new, losses, measured, step / per_epoch, patience)
            if on_record is not None:
                on_record(_record(progress, len(banks), step, step / per_epoch))
            stopped = progress.status[progress.active] != GOING
            compacted = 2 * stopped.sum() > len(stopped)
            if compacted:  # when more than half have stopped a smaller program is worth it
                progress = _finish(progress, stopped, mesh)
            if on_progress is not None:
                on_progress(int(progress.bank) * last + step, _without_copies(progress))
            if compacted:
                break
    if on_progress is not None:
        on_progress(len(banks) * last, progress)
    where = {int(h): i for i, h in enumerate(progress.done)}
    return [_fitted(head, progress, h, where[h]) for h, head in enumerate(heads)]


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


def blank(
    heads: Sequence[Head], sizes: dict, *, classes, features, descent, statistics, dtype
) -> Progress:
    """A `Progress` of the shapes that `sizes` says, to be filled from a checkpoint."""
    some = [heads[0]] * sizes["active"]
    empty = _nothing(heads, classes, features, dtype)
    positions = np.arange(sizes["active"])
    opened = empty
    if some:
        opened = _open_bank(
            some, empty, positions, 0, descent=descent, statistics=statistics, classes=classes,
            features=features, scale=0.0, dtype=dtype, mesh=None,
        )  # fmt: skip
    count = sizes["finished"]
    return opened._replace(
        finished=LinearParams(
            np.zeros((count, classes, features), dtype), np.zeros((count, classes), dtype)
        ),
        done=np.arange(count),
        history=np.zeros((len(heads), sizes["rows"], 3)),
    )


def _nothing(heads, classes, features, dtype) -> Progress:
    """Before the first bank."""
    count, empty = len(heads), np.zeros(0, int)
    none = LinearParams(np.zeros((0, classes, features), dtype), np.zeros((0, classes), dtype))
    state = TrainState(none, (), np.asarray(0))
    return Progress(
        *(state, none, none, np.asarray(0), empty, empty, np.zeros(count, int)),
        np.full((count, 3), [-np.inf, np.inf, 0.0]),
        np.zeros(count, int),
        np.full(count, np.nan),
        np.zeros((count, 0, 3)),
    )


def _open_bank(
    heads,
    progress,
    positions,
    number,
    *,
    descent,
    statistics,
    classes,
    features,
    scale,
    dtype,
    mesh,
) -> Progress:
    """The same progress with the bank of the heads at `positions` at its start."""
    own = [heads[h] for h in positions]
    initial = start(own, classes, features, scale=scale, dtype=dtype)
    state = bank_trainer(own, descent, statistics).init(initial)
    opened = progress._replace(
        state=state, kept=state.params, bank=np.asarray(number), active=np.asarray(positions)
    )
    return _placed(opened, mesh)


def _placed(progress: Progress, mesh) -> Progress:
    """The present bank on the devices of the mesh, copies of its last head filling it up."""
    if mesh is None or not len(progress.active):
        return progress
    state, kept = sharding.place_heads(sharding.fetch((progress.state, progress.kept)), mesh)
    return progress._replace(state=state, kept=kept)


def _without_copies(progress: Progress) -> Progress:
    """The present bank on the host, if copies of its last head fill it up: else as it is."""
    count = len(progress.active)
    if len(progress.kept.bias) == count:
        return progress

    def own(leaf):
        return leaf[:count] if leaf.ndim else leaf

    bank = jax.tree.map(own, sharding.fetch((progress.state, progress.kept)))
    return progress._replace(state=bank[0], kept=bank[1])


def _observe(progress: Progress, new, losses, measured, epoch, patience) -> Progress:
    """Take in one chunk: which heads are better, which stop now."""
    active = progress.active
    quality, waited, status = (
        array.copy() for array in (progress.quality, progress.waited, progress.status)
    )
    going = status[active] == GOING
    finite = np.isfinite(losses).all(axis=0)
    better, means = going & finite, losses.mean(axis=0)
    record = np.full((len(status), 1, 3), np.nan)
    record[active[better], 0, 0] = epoch
    record[active[better], 0, 2] = means[better]
    loss = progress.loss.copy()
    loss[active[better]] = means[better]
    status[active[going & ~finite]] = DIVERGED
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
    else:  # before a first validation, or without any, the last finite parameters are kept
        better &= ~np.isfinite(quality[active, 0])
        quality[active[better], 2] = epoch
    if patience is not None:
        tired = going & finite & (waited[active] >= patience)
        status[active[tired]] = STOPPED
    return progress._replace(
        state=new,
        kept=_keep(
            np.pad(better, (0, len(new.params.bias) - len(better))), new.params, progress.kept
        ),
        status=status,
        quality=quality,
        waited=waited,
        loss=loss,
        history=np.concatenate([progress.history, record], axis=1),
    )


@jax.jit
def _keep(better, new, old):
    def choose(a, b):
        return jnp.where(jnp.broadcast_to(better.reshape(-1, *[1] * (a.ndim - 1)), a.shape), a, b)

    return jax.tree.map(choose, new, old)


def _finish(progress: Progress, which: np.ndarray, mesh=None) -> Progress:
    """Move the active heads that `which` (A,) marks out of the bank."""
    leaving, going = np.flatnonzero(which), np.flatnonzero(~which)
    if mesh is not None:
        state, kept = sharding.fetch((progress.state, progress.kept))
        progress = progress._replace(state=state, kept=kept)

    def rows(leaf):
        if isinstance(leaf, np.ndarray):
            return leaf[going] if leaf.ndim else leaf
        return leaf[jnp.asarray(going, int)] if leaf.ndim else leaf

    finished = jax.tree.map(
        lambda old, kept: np.concatenate([old, np.asarray(kept)[leaving]]),
        progress.finished,
        progress.kept,
    )
    kept, state = jax.tree.map(rows, progress.kept), TrainState(None, (), np.asarray(0))
    if len(going):
        state = progress.state._replace(
            params=jax.tree.map(rows, progress.state.params),
            optimizer_state=jax.tree.map(rows, progress.state.optimizer_state),
        )
    progress = progress._replace(
        state=state._replace(params=state.params or kept),
        kept=kept,
        finished=finished,
        active=progress.active[going],
        done=np.concatenate([progress.done, progress.active[leaving]]),
    )
    return _placed(progress, mesh)


def _fitted(head: Head, progress: Progress, h: int, at: int) -> Fitted:
    accuracy, loss, epoch = progress.quality[h].tolist()
    known = np.isfinite(accuracy)
    objective = float(progress.loss[h])
    return Fitted(
        head,
        LinearParams(*(np.asarray(leaf)[at] for leaf in progress.finished)),
        _WORDS[int(progress.status[h])],
        accuracy if known else None,
        loss if known else None,
        objective if np.isfinite(objective) else None,
        None,
        epoch,
        tuple(_plain(row) for row in progress.history[h] if np.isfinite(row[0])),
    )


def _plain(row) -> tuple[float, Any, Any]:
    epoch, accuracy, loss = row.tolist()
    return epoch, accuracy if np.isfinite(accuracy) else None, loss


def _record(progress: Progress, banks: int, step: int, epoch: float) -> BankRecord:
    going = progress.active[progress.status[progress.active] == GOING]
    losses, best = progress.loss[progress.active], progress.quality[progress.active, 0].max()
    return BankRecord(
        int(progress.bank),
        banks,
        len(going),
        epoch,
        step,
        float(np.nanmin(losses)) if np.isfinite(losses).any() else np.nan,
        float(best) if np.isfinite(best) else None,
    )
