"""Checkpoints of a run: --save-every, --resume, signals, and its folder, locked."""

__all__ = [
    "WHERE_DATA_LIE",
    "CheckpointOptions",
    "Checkpointer",
    "check_checkpoints",
    "identity_of",
    "open_run",
]

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxlin.runs.output import check_out, make_out, occupied, say

KEEP = 3
"""How many checkpoints stay in a run folder."""
RESULTS = (
    *("config.json", "env.json", "model.safetensors", "metrics.jsonl", "predictions.csv"),
    *("results.json", "sweep.json", "report.html", "curves.png", "templates.png"),
    *("confusion.png", "pareto.png", "few_shot.png"),
)
"""Of a run that is overwritten these go first: nothing of it may pass for the new one's."""
WHERE_DATA_LIE = ("data", "data_dir", "labels", "test", "test_labels")
"""Options whose place is taken by the fingerprints of the data they name."""


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """Checkpoints: saving all state, and going on from it."""

    save_every: int | None = None
    """Save all state in the run folder's `checkpoints` every so many steps, or passes over the data
    of the full-batch solver. SIGTERM or Ctrl-C then saves, too, and exits with 75 (a second one
    stops at once)."""
    resume: Literal["auto", "never"] = "never"
    """auto: go on from the newest whole checkpoint of this run in --out, or start afresh where
    there is none."""


def check_checkpoints(options: Any) -> None:
    """Refuse what cannot be meant."""
    if options.save_every is not None and not options.save_every > 0:
        raise ValueError(f"--save-every must be positive, got {options.save_every}.")
    if options.resume == "auto" and options.overwrite:
        raise ValueError(
            "--resume auto goes on with what is in the folder, and --overwrite replaces it. Give "
            "one of them."
        )


class Checkpointer(NamedTuple):
    """What a loop of a command needs in order to survive."""

    keeper: Any
    """`jaxlin.checkpoint.Keeper`, or `None`: this run saves nothing."""
    found: Any
    """`jaxlin.checkpoint.Found` to go on from, or `None`."""
    stopping: Callable[[], str]

    def stop_if_signaled(self, where: str) -> None:
        """Leave by `Stopped` if a signal has come, where nothing is left to save."""
        from jaxlin.checkpoint import Stopped

        signal = self.stopping()
        if signal:
            raise Stopped(signal, where)

    def code(self) -> int:
        """The exit code of a run that is done: 3 if a checkpoint could not be saved."""
        failures = 0 if self.keeper is None else self.keeper.failures()
        if failures:
            _warn(f"done, but {failures} of the checkpoints could not be saved.")
        return 3 if failures else 0

    def save_if_due(self, step: int, state: Any, record: dict | None = None, *, last: bool) -> None:
        """Save `state` where that is due, this is the last step, or a signal has come; then leave.

        Args:
          step: how far the run is.
          state: a pytree of arrays, for `jaxlin.checkpoint.save`, or a function that makes it
            and the record, called where they are saved.
          record: the JSON beside it.
          last: no step follows.
        """
        from jaxlin.checkpoint import Stopped

        if self.keeper is None:
            return
        signal, saved = self.stopping(), True
        if self.keeper.due(step) or last or signal:
            if callable(state):
                state, record = state()
            saved = self.keeper.save(step, state, record)
        if signal:
            raise Stopped(signal, step, saved=saved)


def identity_of(config: dict, train: Any, test: Any, environment: dict) -> dict:
    """What a run is: its options, its data, and where it runs (see `checkpoint.check_same`).

    Args:
      config: every option that decides numbers.
      train, test: `Dataset`s; `test` may be `None`.
      environment: of `jaxlin.runs.environment`.
    """
    versions = ("packages", "backend", "device_count", "process_count", "x64", "matmul_precision")
    return {
        "config": _options_alone(config),
        "data": {
            "train": train.fingerprint[:32],
            "test": None if test is None else test.fingerprint[:32],
        },
        "versions": {name: environment[name] for name in versions},
    }


def _options_alone(config: dict) -> dict:
    return {name: value for name, value in config.items() if name not in WHERE_DATA_LIE}


@contextmanager
def open_run(
    options: Any, identity: dict, *, name: str, stopping: Callable[[], str]
) -> Iterator[tuple[Path, Checkpointer]]:
    """The run's folder, made and locked while the context lasts, and what is needed to survive.

    Args:
      options: of the command; with `OutputOptions` and `CheckpointOptions`.
      identity: from `identity_of`.
      name: of the folder under `runs` where `--out` is not given.
      stopping: from `jaxlin.checkpoint.stop_signals`.

    Raises:
      DataError: the folder is written by another process, or belongs to another run.
    """
    from jaxlin import checkpoint

    with ExitStack() as stack:
        out = _locked(stack, options, identity, name)
        found = None
        if options.resume == "auto" and occupied(out):
            found = _found(out, identity)
        elif options.overwrite:
            checkpoint.clear(out)
            for name in RESULTS:
                (out / name).unlink(missing_ok=True)
        keeper = None
        if options.save_every is not None or options.resume == "auto":
            keeper = checkpoint.keeper(
                *(out,),
                **{"identity": identity, "every": options.save_every, "keep": KEEP},
                start=0 if found is None else found.step,
                warn=_warn,
            )
        if found is not None:
            say(f"Going on from step {found.step:,} ({found.folder})", quiet=options.quiet)
        yield out, Checkpointer(keeper, found, checkpoint.anywhere(stopping))


def _locked(stack: ExitStack, options: Any, identity: dict, name: str) -> Path:
    """The folder of `--out`, or the first `runs/NAME`, `runs/NAME-2`, ... that can be had."""
    from jaxlin.checkpoint import lock
    from jaxlin.core import DataError

    auto, count = options.resume == "auto", 0
    while True:
        count += 1
        out = options.out or Path("runs") / (name if count == 1 else f"{name}-{count}")
        mine = auto and _config_of(out) == identity["config"]
        if options.out is None and occupied(out) and not mine:
            continue
        check_out(out, overwrite=options.overwrite or auto)
        make_out(out)
        try:
            stack.enter_context(lock(out))
        except DataError:
            if options.out is None and not mine:
                continue
            raise
        check_out(out, overwrite=options.overwrite or auto)  # nobody was quicker
        return out


def _found(out: Path, identity: dict) -> Any:
    """The checkpoint to go on from in a folder that is not empty."""
    from jaxlin import checkpoint
    from jaxlin.core import DataError

    found = checkpoint.resume(out, identity, warn=_warn)
    if found is not None or not occupied(out):
        return found
    config = _config_of(out)
    if config is None and {path.name for path in occupied(out)} - {checkpoint.FOLDER}:
        raise DataError(
            f"{out}: the folder is not empty and is not a run of this command. Choose another "
            "--out."
        )
    if config is not None:
        checkpoint.check_same({"config": config}, {"config": identity["config"]}, where=out)
    checkpoint.clear(out)
    _warn(f"{out}: there is no whole checkpoint; starting afresh.")
    return None


def _config_of(out: Path) -> dict | None:
    import json

    try:
        return _options_alone(json.loads((out / "config.json").read_bytes()))
    except (OSError, ValueError, AttributeError):
        return None


def _warn(sentence: str) -> None:
    say(f"jaxlin: {sentence}")
