"""Minibatch sweeps: banks of heads descend side by side, each until its own early stop.

Once more than half of a bank has stopped it is compacted to the heads that go on
(`jaxlin.sweep.progress`).
"""

__all__ = ["BankRecord", "bank_size", "descend"]

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.typing import DTypeLike

from jaxlin import train
from jaxlin.batches import steps_per_epoch
from jaxlin.core import Batch
from jaxlin.preprocess import Preprocessing
from jaxlin.steps import placed_for_training
from jaxlin.sweep.bank import Descent, bank_trainer, measure
from jaxlin.sweep.heads import FittedHead, Head
from jaxlin.sweep.progress import (
    GOING,
    Progress,
    finish,
    fitted_of,
    nothing,
    observe,
    open_bank,
    placed,
    without_copies,
)

CHUNK_STEPS = 512
"""The most steps between two looks at a bank."""


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
    dtype: DTypeLike = jnp.float32,
    memory: int | None = None,
    mesh: Mesh | None = None,
    on_record: Callable[[BankRecord], None] | None = None,
    resumed: Progress | None = None,
    on_progress: Callable[[int, Progress], None] | None = None,
) -> list[FittedHead]:
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
      mesh: from `jaxlin.distributed.sharding.mesh`: every device keeps its rows; the heads are
        split along its `class` axis.
      on_record: called at the end of every epoch of a bank (or `CHUNK_STEPS` of a long one).
      resumed: go on from here. The result is that of an unbroken run, bit for bit.
      on_progress: called as (step, progress) as often as `on_record`, and at the very end; `step`
        counts the steps of all banks. The place to save, or to leave by an exception.

    Returns:
      A `FittedHead` for every head, in the order of `heads`.

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
    there = placed_for_training(data, mesh)
    last = descent.steps if stop_after is None else min(
        descent.steps, round(stop_after * per_epoch)
    )  # fmt: skip
    banks = [np.arange(len(heads))[first : first + size] for first in range(0, len(heads), size)]
    make = partial(
        open_bank, heads, descent=descent, statistics=statistics, classes=classes,
        features=features, scale=init_scale, dtype=dtype, mesh=mesh,
    )  # fmt: skip
    progress = make(nothing(heads, classes, features, dtype), banks[0], 0)
    progress = progress if resumed is None else placed(resumed, mesh)
    while True:
        if not len(progress.active) or int(progress.state.step) >= last:
            progress = finish(progress, np.ones(len(progress.active), bool), mesh)
            number = int(progress.bank) + 1
            if number >= len(banks):
                break
            progress = make(progress, banks[number], number)
        bank = [heads[h] for h in progress.active]
        held = bank + bank[-1:] * (len(progress.state.params.bias) - len(bank))
        trainer = bank_trainer(held, descent, statistics)
        for new, infos in train.chunks(
            trainer, progress.state, there, key=key, steps=last, batch_size=batch_size,
            chunk_steps=CHUNK_STEPS,
        ):  # fmt: skip
            step, measured = int(new.step), None
            if validation is not None and (step % per_epoch == 0 or step == last):
                measured = measure(bank, new.params, descent, statistics, validation, mesh=mesh)
            losses = np.asarray(infos.loss[:, : len(bank)])
            progress = observe(progress, new, losses, measured, step / per_epoch, patience)
            if on_record is not None:
                on_record(_record(progress, len(banks), step, step / per_epoch))
            stopped = progress.status[progress.active] != GOING
            compacted = 2 * stopped.sum() > len(stopped)
            if compacted:  # when more than half have stopped a smaller program is worth it
                progress = finish(progress, stopped, mesh)
            if on_progress is not None:
                on_progress(int(progress.bank) * last + step, without_copies(progress))
            if compacted:
                break
    if on_progress is not None:
        on_progress(len(banks) * last, progress)
    where = {int(h): i for i, h in enumerate(progress.done)}
    return [fitted_of(head, progress, h, where[h]) for h, head in enumerate(heads)]


def bank_size(
    heads: Sequence[Head],
    *,
    features: int,
    classes: int,
    batch_size: int,
    descent: Descent,
    dtype: DTypeLike,
    memory: int | None,
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
