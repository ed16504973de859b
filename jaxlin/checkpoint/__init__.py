"""Runs that survive: checkpoints that are proved whole, a lock, signals, and whose run it is.

A loop that wants to survive `kill -9` needs four things, and they are plain functions here:

    with checkpoint.lock(run), checkpoint.stop_signals() as stopping:
        found = checkpoint.resume(run, identity, warn=say)  # the newest good one, or None
        state = first if found is None else checkpoint.load(found, first)
        keeper = checkpoint.keeper(run, every=500, identity=identity, warn=say)
        for step, state in loop(state):
            if keeper.due(step) or stopping():
                keeper.save(step, state, {"history": history})
            if stopping():
                raise checkpoint.Stopped(stopping(), step)

`state` is any pytree of arrays (typed keys too); what has no fixed shape (a history, say) goes as
JSON into the record beside it. A checkpoint `<run>/checkpoints/<step>/` holds the arrays
(`state/`, by Orbax), `record.json`, and `manifest.json`, written last, with the SHA-256 of every
file: Orbax alone restores a flipped bit without a word.

In a job of many processes all of them make the same calls: arrays that are spread over the
processes are gathered, the first process locks and writes, and `anywhere(stopping)` lets all stop
at the same step.

Orbax is imported when there is something to save or to load, not before.
"""

__all__ = [
    "FOLDER",
    "LOCK",
    "Found",
    "Keeper",
    "Stopped",
    "anywhere",
    "check_same",
    "check_space",
    "clean",
    "clear",
    "differences",
    "find",
    "keeper",
    "load",
    "lock",
    "problems",
    "resume",
    "save",
    "steps",
    "stop_signals",
    "write_durably",
]

from jaxlin.checkpoint.keeping import Keeper, keeper, resume
from jaxlin.checkpoint.locking import LOCK, lock
from jaxlin.checkpoint.manifest import problems, write_durably
from jaxlin.checkpoint.sameness import check_same, differences
from jaxlin.checkpoint.signals import Stopped, anywhere, stop_signals
from jaxlin.checkpoint.store import (
    FOLDER,
    Found,
    check_space,
    clean,
    clear,
    find,
    load,
    save,
    steps,
)
