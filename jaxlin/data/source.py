"""What a reader of files is, and what it can be told: the nouns between `load` and the readers.

A reader knows one kind of source. It says which splits a source has without reading its rows,
reads one of them with labels, or all of them without. The table of readers, and how a source is
recognized, stand in `jaxlin.data.registry`.
"""

__all__ = [
    "HELD_OUT",
    "OPTIONS",
    "SPLITS",
    "Reader",
    "Reading",
    "labeled_split",
    "refuse_options",
]

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlin.core import DataError
from jaxlin.data.dataset import Dataset, Unlabeled
from jaxlin.data.rows import RESIDENT_BYTES

SPLITS = ("train", "validation", "test", "all")
"""What files call their rows; "all" where they say nothing of splits."""
HELD_OUT = ("test", "validation", "all")
"""The splits that a model is judged on, the first that there is."""


class Reading(NamedTuple):
    """How files are to be read. `None`, and "auto", leave it to the reader."""

    data_dir: Path | None = None
    """The folder with the files of a named set."""
    labels: Path | None = None
    """The file of the labels."""
    inputs_key: str | None = None
    """The name of the inputs in a file that holds several arrays or columns."""
    labels_key: str | None = None
    """The name of the labels in it."""
    label_column: str | None = None
    """The column of the labels in a table."""
    image_shape: tuple[int, ...] | None = None
    """The shape of a picture before it became a row: see `dataset.rows_of_images`."""
    image_size: tuple[int, int] | None = None
    """(H, W) to which pictures are resized."""
    color: str | None = None
    """"rgb" or "grey": what pictures become; `None` decides over all of them."""
    background: str | None = None
    """The color that transparent pictures are laid on, as Pillow names colors; white."""
    class_names: Sequence[str] | None = None
    """The classes that labels must keep to."""
    memory: int = RESIDENT_BYTES
    """Bytes up to which features are held in memory."""
    progress: Callable[[int, int], None] | None = None
    """Called with how many pictures are read, and of how many, from the thread that loads."""
    distributed: Any = None
    """`distributed_features.DistributedFolders`: those of which each process has some files."""


OPTIONS = {
    "data_dir": "named data sets",
    "labels": "arrays and features whose labels lie in a file of their own",
    "inputs_key": "files that hold several arrays or columns",
    "labels_key": "files that hold several arrays",
    "label_column": "tables",
    "image_shape": "arrays whose rows are pictures",
    "image_size": "picture files",
    "color": "picture files",
    "background": "picture files",
}
"""The fields of `Reading` that depend on the kind of source, and what they are for."""


class Reader(NamedTuple):
    """One kind of source. Its place is a path, or the name of a named set."""

    title: str
    """With its article: "an .npz archive"."""
    options: frozenset[str]
    """Those of `OPTIONS` that it heeds; the others are refused, for every command, in one place."""
    splits: Callable[[Any, Reading], tuple[str, ...]]
    """Which of `SPLITS` a source has, found without reading its rows: ("all",), or some of the
    other three."""
    load: Callable[[Any, str, Reading], Dataset]
    """Reads one of these splits; `split` is recorded in the `Dataset`."""
    inputs: Callable[[Any, Reading], list[Unlabeled]]
    """Reads the rows of every split, labels or not; pictures become what `image_shape` says."""
    formats: tuple[tuple[str, str], ...] = ()
    """For `jaxlin data formats`: what lies there, and how it is read."""


def refuse_options(
    reading: Reading, reader: Reader, source: str | Path, *, prefix: str = ""
) -> None:
    """Raise a `ValueError` if `reading` says what this kind of source does not heed.

    Args:
      reading: what was asked for.
      reader: of the source.
      source: its path or name, for the sentence.
      prefix: what the arguments' names begin with, where it is the test set's ("test_").
    """
    for option, what in OPTIONS.items():
        if getattr(reading, option) is not None and option not in reader.options:
            name = prefix + option
            raise ValueError(
                f"`{name}` is for {what}, and {source} is {reader.title}. Leave it out."
            )


def labeled_split(there: Sequence[str], asked: str | None, source: str | Path) -> str:
    """The split to judge a model on: the one asked for, or the one held out.

    Raises:
      DataError: it is not there, or all rows are for training.

    >>> labeled_split(("train", "validation"), None, "pets/")
    'validation'
    """
    if asked is not None:
        if asked in there:
            return asked
        if asked == "train" and "all" in there:
            return "all"
        has = ", ".join(there) if "all" not in there else "no splits, only rows"
        raise DataError(f"{source}: has no {asked} split ({has}). Name another one, or other data.")
    for split in HELD_OUT:
        if split in there:
            return split
    raise DataError(
        f"{source}: has no test or validation split, only rows to train on. Add one (`test`, or "
        "test_inputs and test_labels in an archive), name other data, or ask for these rows with "
        "`split` train."
    )
