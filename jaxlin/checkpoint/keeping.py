"""The policy of a run that survives: when to save, and what to do where that fails."""

__all__ = ["Keeper", "keeper", "resume"]

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxlin.checkpoint import store
from jaxlin.checkpoint.sameness import check_same


class Keeper(NamedTuple):
    """The functions of a run that saves as it goes; see `keeper`.

    >>> import tempfile, numpy as np
    >>> from pathlib import Path
    >>> run = Path(tempfile.mkdtemp())
    >>> kept = keeper(run, identity={}, every=10, warn=print)
    >>> kept.next_due(0), kept.due(9), kept.due(10)
    (10, False, True)
    """

    next_due: Callable[[int], int | None]
    """`step ->` the next step after it at which a save is due, `None` for never."""
    due: Callable[[int], bool]
    """Whether `every` divides `step` or was passed since the last save, so that one is due."""
    save: Callable[[int, Any, dict], bool]
    """`save(step, state, record)`; `False` if it failed, which costs a sentence and no more."""
    failures: Callable[[], int]
    """How many saves failed: not 0 means exit code 3 at the end."""


def keeper(
    run: Path,
    *,
    identity: dict,
    every: int | None = None,
    keep: int = 3,
    start: int = 0,
    warn: Callable[[str], None],
) -> Keeper:
    """How a run keeps its state: save every `every` steps, and go on where the disk is full.

    Args:
      run: the run's folder.
      identity: what the run is, in JSON: see `check_same`. Stored in every record.
      every: steps between saves; `None` saves only when it is asked to.
      keep: how many checkpoints stay.
      start: the step that the run goes on from.
      warn: gets a sentence for every save that failed.

    >>> import tempfile, numpy as np
    >>> from pathlib import Path
    >>> run = Path(tempfile.mkdtemp())
    >>> kept = keeper(run, identity={}, every=10, warn=print)
    >>> kept.save(10, {"weights": np.ones(3)}, {"note": "so far"}), kept.failures()
    (True, 0)
    """
    last, failed = start, 0

    def next_due(step: int) -> int | None:
        return None if every is None else (step // every + 1) * every

    def due(step: int) -> bool:
        return every is not None and step // every > last // every

    def save(step: int, state: Any, record: dict) -> bool:
        nonlocal last, failed
        last = step
        try:
            store.save(run, step, state, {**record, "identity": identity}, keep=keep)
        except OSError as error:
            failed += 1
            left = store.steps(run)
            last_good = f"the one of step {left[-1]} stays" if left else "there is none yet"
            reason = error.strerror or " ".join(str(error).split())
            warn(f"the checkpoint of step {step} could not be saved ({reason}): {last_good}.")
            return False
        return True

    return Keeper(next_due, due, save, lambda: failed)


def resume(run: Path, identity: dict, *, warn: Callable[[str], None]) -> store.Found | None:
    """The newest whole checkpoint of this very run, or `None` where there is nothing to go on from.

    Removes what killed processes left (hold the lock), names broken checkpoints, refuses those
    of another run.

    Raises:
      DataError: the newest whole checkpoint belongs to other data or another configuration; the
        fields that differ are named.

    >>> import tempfile, numpy as np
    >>> from pathlib import Path
    >>> run = Path(tempfile.mkdtemp())
    >>> resume(run, {"config": {"strength": 0.5}}, warn=print) is None  # nothing to go on from
    True
    >>> kept = keeper(run, identity={"config": {"strength": 0.5}}, every=10, warn=print)
    >>> _ = kept.save(10, {"weights": np.ones(3)}, {})
    >>> resume(run, {"config": {"strength": 0.5}}, warn=print).step
    10
    """
    store.clean(run)
    found = store.find(run, warn=warn)
    if found is not None:
        check_same(found.record.get("identity", {}), identity, where=found.folder, warn=warn)
    return found
