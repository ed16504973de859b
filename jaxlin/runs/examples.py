"""Options of the commands that read examples: which, where they lie, and how they are read."""

__all__ = [
    "IN_HAND",
    "NOT_GIVEN",
    "DataOptions",
    "Given",
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
from typing import Any, Literal, NamedTuple

IN_HAND = "(arrays in hand)"
"""What a run's configuration says of data that were no file."""


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


class Given(NamedTuple):
    """Data in hand, instead of those that options name."""

    train: Any = None
    """A `jaxlin.data.Dataset`."""
    test: Any = None
    """What `jaxlin.runs.in_hand` takes: its classes are those of the training set."""


NOT_GIVEN = Given()


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

    _check_in_hand(config | {"test": None}, NOT_GIVEN)
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
    config: dict,
    distributed: Any = None,
    *,
    given: Given = NOT_GIVEN,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """The `jaxlin.data.Splits` that a run's configuration names, but for those `given`.

    See `jaxlin.data.source.Reading` for `distributed` and `progress`.
    """
    from jaxlin.data import load_splits
    from jaxlin.data.registry import Splits

    _check_in_hand(config, given)
    if given.train is not None:
        splits = Splits(given.train, None, _test_of(config, given.train))
    else:
        splits = load_splits(
            config["data"],
            test=None if given.test is not None else config.get("test"),
            test_labels=config.get("test_labels"),
            memory=memory_bytes(config),
            distributed=distributed,
            progress=progress,
            **reading_of(config),
        )
    if given.test is None:
        return splits
    from jaxlin.runs.in_hand import in_hand

    names = splits.train.class_names
    test = in_hand(given.test, "test", class_names=names, training=False)
    return splits._replace(test=_fitting(test, splits.train))


def _check_in_hand(config: dict, given: Given) -> None:
    """Refuse to read what only the process that trained had."""
    from jaxlin.core import DataError

    for name, there in (("data", given.train), ("test", given.test)):
        if config.get(name) == IN_HAND and there is None:
            raise DataError(
                "the run was made with arrays in hand, which its folder does not hold. Give them "
                "again as `data`."
            )


def _test_of(config: dict, train: Any) -> Any:
    """The test set in a file beside training examples in hand, or `None`."""
    from jaxlin.data import load, splits_of
    from jaxlin.data.source import labeled_split

    place = config.get("test")
    if place in (None, IN_HAND):
        return None
    labels = config.get("test_labels")
    how = {} if labels is None else {"labels": labels}
    there = splits_of(place, **how)
    split = "all" if "all" in there else labeled_split(there, None, place)
    return _fitting(load(place, split=split, class_names=train.class_names, **how), train)


def _fitting(test: Any, train: Any) -> Any:
    """A test set brought to the shape and scale of the training set, or refused."""
    from jaxlin.core import DataError
    from jaxlin.data import conform

    if test.class_names != train.class_names:
        raise DataError(
            f"{test.name}: the test set has the classes {', '.join(test.class_names[:10])}, and "
            f"the training set {', '.join(train.class_names[:10])}. Give both the same classes."
        )
    return conform(test, train.inputs.shape[1], train.image_shape, train.pixels)


def training_data(config: dict) -> Any:
    """The training split alone."""
    from jaxlin.data import load

    _check_in_hand(config | {"test": None}, NOT_GIVEN)

    return load(config["data"], memory=memory_bytes(config), **reading_of(config))


def memory_bytes(config: dict) -> int:
    """The memory for features that a run's configuration allows.

    In a run of many processes features stay in their files at first: none reads those of others.
    """
    import jax

    return 0 if jax.process_count() > 1 else int(config.get("memory", 4.0) * 2**30)
