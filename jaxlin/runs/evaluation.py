"""Measure a trained classifier on data with labels."""

__all__ = ["Options", "evaluate"]

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from jaxlin.runs.examples import SourceOptions


@dataclass(frozen=True, kw_only=True)
class Options(SourceOptions):
    """Measure a trained classifier on data with labels.

    Without --data: on the test set that the run was trained beside. What has splits is measured on
    its test split, else on its validation split; what says nothing of splits, on all rows.
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    data: str | None = None
    """A named set (digits, mnist, ...: `jaxlin data list`), or a file or folder of pictures, arrays
    or features (`jaxlin data formats`)."""
    split: Literal["test", "validation", "train"] | None = None
    """The rows to measure on, where the data have splits."""
    json: bool = False
    """Print one JSON object on stdout."""


def evaluate(options: Options, given: Any = None, *, quiet: bool = False) -> dict:
    """Measure a run on data with labels.

    Args:
      options: which run, and which data.
      given: data in hand (see `in_hand`) instead of those that `options` name, or `None`.
      quiet: say nothing while data are read.

    Returns:
      What `jaxlin evaluate --json` prints: accuracy with its interval, loss, by class.
    """
    from jaxlin import losses, models
    from jaxlin.data import conform
    from jaxlin.runs.folder import load_run, say_reading, trained_on
    from jaxlin.runs.in_hand import in_hand
    from jaxlin.runs.measures import measure
    from jaxlin.runs.progress import reading

    model, config = load_run(options.run)
    with reading(show=not quiet) as progress:
        if given is None:
            data = _data(options, model, config, progress)
        else:
            data = in_hand(given, "data", class_names=model.class_names, training=False)
        data = conform(data, *model.expects, to="the model")
    if data.fingerprint == trained_on(options.run):
        seen = f"{data.name}: these are the very rows that the run was trained on."
        data = data._replace(notes=(*data.notes, seen))
    if data.class_names != model.class_names:
        _refuse_classes(data, model)
    say_reading([data], model, quiet=quiet)
    scores = models.scores(model, data.inputs)
    loss = losses.named(model.loss, margin=config.get("margin", 1.0))
    about = {
        "run": str(options.run),
        "data": data.name,
        "split": data.split,
        "loss_name": model.loss,
    }
    return about | measure(model, data, loss, scores) | {"notes": list(data.notes)}


def _data(
    options: Options, model: Any, config: dict, progress: Callable[[int, int], None] | None
) -> Any:
    """The examples to measure on."""
    from jaxlin.runs.examples import held_out, moved, reading_as, refuse_given

    if options.data is None:
        why = "and the run has its own data. Add --data, or leave it out."
        refuse_given(options, why, but=("data_dir", "labels"))
        config = moved(config, options)
        return held_out(config, options.split, run=options.run, progress=progress)
    from jaxlin.data import load, splits_of
    from jaxlin.data.source import labeled_split

    how = reading_as(model, config, asdict(options), options.data)
    split = labeled_split(splits_of(options.data, **how), options.split, options.data)
    names = model.class_names
    return load(options.data, split=split, class_names=names, progress=progress, **how)


def _refuse_classes(data: Any, model: Any) -> None:
    from jaxlin.core import DataError

    raise DataError(
        f"{data.name}: has the classes {', '.join(data.class_names[:10])}, and the model "
        f"{', '.join(model.class_names[:10])}. Evaluate it on data with its classes."
    )
