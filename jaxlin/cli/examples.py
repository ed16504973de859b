"""Options of the commands that read examples: which, where they lie, and how they are read."""

__all__ = [
    "DataOptions",
    "PictureOptions",
    "SourceOptions",
    "held_out",
    "moved",
    "reading_as",
    "reading_of",
    "refuse_given",
    "run_data",
    "training_data",
]

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Data: how a file or folder is read. An option that its kind does not heed is refused."""

    data_dir: Path | None = None
    """The folder that holds the files of a named data set."""
    labels: Path | None = None
    """The labels of features (without it: those beside them, say `labels.npy`)."""
    inputs_key: str | None = None
    """Which array or column holds the inputs, where a file has several."""
    labels_key: str | None = None
    """Which array holds the labels."""
    label_column: str | None = None
    """Which column of a table holds the labels."""
    image_shape: tuple[int, ...] | None = None
    """Rows are pictures that had this shape before they became rows: H W, H W C (channels last) or
    C H W (channels first)."""


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """Data: what picture files become."""

    image_size: int | None = None
    """Side in pixels to which pictures are resized (without it: that of the first picture)."""
    color: Literal["auto", "rgb", "grey"] = "auto"
    """What all pictures become (auto: color if any of them is)."""
    background: str | None = None
    """The color on which transparent pictures are laid (without it: white)."""


@dataclass(frozen=True, kw_only=True)
class DataOptions(PictureOptions, SourceOptions):
    """Data: which examples, and where they lie."""

    data: str = "digits"
    """A named set (digits, mnist, ...: `jaxlin data list`), or a file or folder of pictures, arrays
    or features (`jaxlin data formats`)."""
    test: Path | None = None
    """A file or folder that gives the test set."""
    test_labels: Path | None = None
    """The labels of test features (without it: those beside them)."""


def refuse_given(options: Any, why: str, *, but: tuple[str, ...] = ("data_dir",)) -> None:
    """Raise a `ValueError` if an option on how data are read was given where it says nothing.

    Args:
      options: of a command.
      why: it says nothing, and what to do.
      but: options that have a meaning all the same: where data lie may change after a run.
    """
    for kind in (SourceOptions, PictureOptions):
        for field in dataclasses.fields(kind):
            given = getattr(options, field.name, field.default) != field.default
            if given and field.name not in but:
                raise ValueError(f"--{field.name.replace('_', '-')} says how data are read, {why}")


def reading_of(values: dict) -> dict:
    """The arguments of `jaxlin.data.load` in the values of options, or of a run's configuration."""
    reading = {field.name: values.get(field.name) for field in dataclasses.fields(SourceOptions)}
    reading |= {"background": values.get("background")}
    if values.get("color", "auto") != "auto":
        reading["color"] = values["color"]
    if values.get("image_size") is not None:
        reading["image_size"] = (values["image_size"],) * 2
    return {name: value for name, value in reading.items() if value is not None}


def reading_as(model: Any, config: dict, values: dict, source: str | Path) -> dict:
    """The same for data of a model: pictures become what it was trained on.

    Args:
      model: the pictures' shape and color are its own.
      config: of its run, for the background of transparent pictures.
      values: the options that were given.
      source: the data.
    """
    from jaxlin.data.registry import reader_of

    reading = reading_of(values)
    _, reader = reader_of(source)
    if "image_size" not in reader.options:
        return reading
    own = {} if config.get("background") is None else {"background": config["background"]}
    if model.image_shape is not None:
        own["image_size"] = model.image_shape[:2]
        own["color"] = "grey" if len(model.image_shape) == 2 else "rgb"
    return own | reading


def moved(config: dict, options: Any) -> dict:
    """A run's configuration with what options say of where its data lie now."""
    given = {name: getattr(options, name, None) for name in ("data_dir", "labels")}
    return config | {name: value for name, value in given.items() if value is not None}


def held_out(
    config: dict,
    split: str | None,
    *,
    run: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """The rows of a run's own data to judge it on: its test set, or the split that was asked for.

    Raises:
      DataError: there is none.
    """
    from jaxlin.core import DataError
    from jaxlin.data import load

    if split in ("train", "validation"):
        how = reading_of(config) | {"memory": memory_bytes(config), "progress": progress}
        return load(config["data"], split=split, **how)
    data = run_data(config, progress=progress).test
    if data is None:
        raise DataError(
            f"{run}: was trained without a test set. Say what to measure on: --data, or --split "
            "train for the rows it was trained on."
        )
    return data


def run_data(
    config: dict, apart: Any = None, *, progress: Callable[[int, int], None] | None = None
) -> Any:
    """The `jaxlin.data.Splits` that a run's configuration names.

    See `jaxlin.data.source.Reading` for `apart` and `progress`.
    """
    from jaxlin.data import load_splits

    return load_splits(
        config["data"],
        test=config.get("test"),
        test_labels=config.get("test_labels"),
        memory=memory_bytes(config),
        apart=apart,
        progress=progress,
        **reading_of(config),
    )


def training_data(config: dict) -> Any:
    """The training split alone."""
    from jaxlin.data import load

    return load(config["data"], memory=memory_bytes(config), **reading_of(config))


def memory_bytes(config: dict) -> int:
    """The memory for features that a run's configuration allows.

    In a run of many processes features stay in their files at first: none reads those of others.
    """
    import jax

    return 0 if jax.process_count() > 1 else int(config.get("memory", 4.0) * 2**30)
