"""Where a minibatch sweep stands: the present bank, what its heads have shown, who has finished.

A head that has stopped keeps its best parameters; what the bank goes on computing for it is
thrown away, until the bank is compacted. A head whose loss is no longer finite is noted, keeps what
it had, and disturbs no other.
"""

__all__ = [
    "DIVERGED",
    "GOING",
    "STOPPED",
    "Progress",
    "blank",
    "finish",
    "fitted_of",
    "nothing",
    "observe",
    "open_bank",
    "placed",
    "without_copies",
]

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.typing import DTypeLike

from jaxlin.core import LinearParams
from jaxlin.distributed import sharding
from jaxlin.precision import jit
from jaxlin.preprocess import Preprocessing
from jaxlin.sweep.bank import Descent, bank_trainer, start
from jaxlin.sweep.heads import FittedHead, Head
from jaxlin.train import TrainState

GOING, STOPPED, DIVERGED = range(3)
_WORDS = ("done", "stopped early", "diverged")


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


def blank(
    heads: Sequence[Head],
    sizes: dict,
    *,
    classes: int,
    features: int,
    descent: Descent,
    statistics: Preprocessing,
    dtype: DTypeLike,
) -> Progress:
    """A `Progress` of the shapes that `sizes` says, to be filled from a checkpoint."""
    some = [heads[0]] * sizes["active"]
    empty = nothing(heads, classes, features, dtype)
    positions = np.arange(sizes["active"])
    opened = empty
    if some:
        opened = open_bank(
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


def nothing(heads: Sequence[Head], classes: int, features: int, dtype: DTypeLike) -> Progress:
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


def open_bank(
    heads: Sequence[Head],
    progress: Progress,
    positions: Sequence[int] | np.ndarray,
    number: int,
    *,
    descent: Descent,
    statistics: Preprocessing,
    classes: int,
    features: int,
    scale: float,
    dtype: Any,
    mesh: Mesh | None,
) -> Progress:
    """The same progress with the bank of the heads at `positions` at its start."""
    own = [heads[h] for h in positions]
    initial = start(own, classes, features, scale=scale, dtype=dtype)
    state = bank_trainer(own, descent, statistics).init(initial)
    opened = progress._replace(
        state=state, kept=state.params, bank=np.asarray(number), active=np.asarray(positions)
    )
    return placed(opened, mesh)


def placed(progress: Progress, mesh: Mesh | None) -> Progress:
    """The present bank on the devices of the mesh, copies of its last head filling it up."""
    if mesh is None or not len(progress.active):
        return progress
    state, kept = sharding.place_heads(sharding.fetch((progress.state, progress.kept)), mesh)
    return progress._replace(state=state, kept=kept)


def without_copies(progress: Progress) -> Progress:
    """The present bank on the host, if copies of its last head fill it up: else as it is."""
    count = len(progress.active)
    if len(progress.kept.bias) == count:
        return progress

    def own(leaf: np.ndarray) -> np.ndarray:
        return leaf[:count] if leaf.ndim else leaf

    bank = jax.tree.map(own, sharding.fetch((progress.state, progress.kept)))
    return progress._replace(state=bank[0], kept=bank[1])


def observe(
    progress: Progress,
    new: TrainState,
    losses: np.ndarray,
    measured: tuple[np.ndarray, np.ndarray] | None,
    epoch: float,
    patience: int | None,
) -> Progress:
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


@jit
def _keep(better: jax.Array, new: LinearParams, old: LinearParams) -> LinearParams:
    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(jnp.broadcast_to(better.reshape(-1, *[1] * (a.ndim - 1)), a.shape), a, b)

    return jax.tree.map(choose, new, old)


def finish(progress: Progress, which: np.ndarray, mesh: Mesh | None = None) -> Progress:
    """Move the active heads that `which` (A,) marks out of the bank."""
    leaving, going = np.flatnonzero(which), np.flatnonzero(~which)
    if mesh is not None:
        state, kept = sharding.fetch((progress.state, progress.kept))
        progress = progress._replace(state=state, kept=kept)

    def rows(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            return leaf[going] if leaf.ndim else leaf
        return leaf[jnp.asarray(going, int)] if leaf.ndim else leaf

    finished = jax.tree.map(
        lambda old, kept: np.concatenate([old, np.asarray(kept)[leaving]]),
        progress.finished,
        progress.kept,
    )
    kept = jax.tree.map(rows, progress.kept)
    state = TrainState(kept, (), np.asarray(0))
    if len(going):
        state = progress.state._replace(
            params=jax.tree.map(rows, progress.state.params),
            optimizer_state=jax.tree.map(rows, progress.state.optimizer_state),
        )
    progress = progress._replace(
        state=state,
        kept=kept,
        finished=finished,
        active=progress.active[going],
        done=np.concatenate([progress.done, progress.active[leaving]]),
    )
    return placed(progress, mesh)


def fitted_of(head: Head, progress: Progress, h: int, at: int) -> FittedHead:
    accuracy, loss, epoch = progress.quality[h].tolist()
    known = np.isfinite(accuracy)
    objective = float(progress.loss[h])
    return FittedHead(
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


def _plain(row: np.ndarray) -> tuple[float, Any, Any]:
    epoch, accuracy, loss = row.tolist()
    return epoch, accuracy if np.isfinite(accuracy) else None, loss
