"""From the name of a set, or a path, to checked data: the table of readers, and what uses it."""

__all__ = [
    "READERS",
    "Splits",
    "formats",
    "load",
    "load_inputs",
    "load_splits",
    "reader_of",
    "splits_of",
]

import difflib
from pathlib import Path
from typing import Any, NamedTuple

from jaxlin.core import DataError
from jaxlin.data import (
    archives,
    arrays,
    distributed_features,
    features,
    hdf5,
    named,
    parquet,
    picture_tables,
    pictures,
    torch_files,
)
from jaxlin.data.conform import conform
from jaxlin.data.dataset import Dataset, Unlabeled
from jaxlin.data.shards import KINDS
from jaxlin.data.source import SPLITS, Reader, Reading, labeled_split, refuse_options

BY_ENDING = {
    ".npz": archives.READER,
    ".parquet": parquet.READER,
    **dict.fromkeys((".h5", ".hdf5"), hdf5.READER),
    **dict.fromkeys(torch_files.ENDINGS, torch_files.READER),
    **dict.fromkeys(picture_tables.ENDINGS, picture_tables.READER),
}
"""Files that are told by their ending alone."""
READERS = (
    named.READER,
    named.SET_FOLDER,
    pictures.READER,
    picture_tables.READER,
    archives.READER,
    arrays.READER,
    features.READER,
    parquet.READER,
    hdf5.READER,
    torch_files.READER,
)
"""Every kind of source, for people to read about."""


class Splits(NamedTuple):
    """The splits of a set; `None` for those that it lacks.

    >>> splits = load_splits("digits")
    >>> [name for name, part in zip(splits._fields, splits) if part is not None]
    ['train', 'test']
    """

    train: Dataset
    validation: Dataset | None
    test: Dataset | None


def load(source: str | Path, *, split: str = "train", **how: Any) -> Dataset:
    """One split of a named set, or of your own files.

    Args:
      source: a named set, as "digits", "mnist", "cifar10" (`jaxlin data list`); or the path of a
        file or folder of pictures, arrays, features or tables (`jaxlin data formats`).
      split: "train", "validation", "test" or "all". There is no silent split: only what the data
        call a test set is one (digits, which have none, are split by a fixed rule), but where a
        set has a validation split and no test split, as ImageNet has, the validation split
        is its test set. "train" takes all rows where files say nothing of splits.
      **how: fields of `jaxlin.data.source.Reading`: `data_dir`, `labels`, `inputs_key`,
        `labels_key`, `label_column`, `image_shape`, `image_size`, `color`, `background`,
        `class_names`, `memory`, `progress`, `distributed`. One that this kind of source does not
        heed is refused.

    Returns:
      A `Dataset`; inputs are finite, labels integers in [0, K), both of one length. `split` says
      what the files call its rows.

    Raises:
      DataError: with one sentence on which file is wrong, how, and what to do.
      ValueError: `split` is none of the four, or an option does not apply.

    >>> load("digits", split="test").image_shape
    (8, 8)
    """
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {', '.join(SPLITS)}, got {split!r}.")
    place, reader, reading = _open(source, how)
    there = reader.splits(place, reading)
    if split == "train" and "train" not in there:
        split = "all" if "all" in there else split
    elif split == "test" and "test" not in there and "validation" in there:
        split = "validation"
    if split not in there:
        has = ", ".join(there) if "all" not in there else "it says nothing of splits"
        raise DataError(
            f"{source}: there is no {split} split ({has}). Name a file that is one, or use another "
            "split."
        )
    return reader.load(place, split, reading)


def load_splits(
    source: str | Path,
    *,
    test: str | Path | None = None,
    test_labels: str | Path | None = None,
    **how: Any,
) -> Splits:
    """All splits of a source; the test set may lie elsewhere.

    Args:
      source: as for `load`.
      test: a source of its own, of which the test split is taken, else the validation split, else
        all rows. Its labels must keep to the training set's classes, its rows to their shape,
        and its numbers are brought to their scale.
      test_labels: the file of its labels.
      **how: as for `load`; what also applies to `test` is meant for both.

    Returns:
      `Splits`. Where a set has a validation split and no test split, the validation split is its
      test set; its field `split` says so.

    >>> train, validation, test = load_splits("digits")
    >>> len(train.labels), validation, len(test.labels)
    (1442, None, 355)
    """
    place, reader, reading = _open(source, how)
    there = reader.splits(place, reading)
    train = load(source, **how)
    like = reading._replace(class_names=train.class_names)
    if train.image_shape is not None and "image_size" in reader.options:
        like = like._replace(**_pictures_like(train.image_shape))
    validation = held_out = None
    if test is not None:
        held_out = _test(test, test_labels, train, like)
    elif "test" in there or "validation" in there:
        name = "test" if "test" in there else "validation"
        held_out = reader.load(place, name, like)
    if "validation" in there and (test is not None or "test" in there):
        validation = reader.load(place, "validation", like)
    fitting = [
        data and conform(data, train.inputs.shape[1], train.image_shape, train.pixels)
        for data in (validation, held_out)
    ]
    return Splits(train, *fitting)


def _test(test: str | Path, labels: str | Path | None, train: Dataset, like: Reading) -> Dataset:
    """The test set that lies elsewhere, read as the training set was."""
    how = {"labels": None if labels is None else Path(labels)}
    place, reader, own = _open(test, how, prefix="test_")
    for name in reader.options - {"labels", "data_dir"}:
        own = own._replace(**{name: getattr(like, name)})
    if train.image_shape is not None and "image_size" in reader.options:
        own = own._replace(**_pictures_like(train.image_shape))
    own = own._replace(class_names=train.class_names, memory=like.memory)
    own = own._replace(distributed=like.distributed, progress=like.progress)
    there = reader.splits(place, own)
    order = ("test", "validation", "all", "train")
    return reader.load(place, next(split for split in order if split in there), own)


def load_inputs(source: str | Path, *, split: str | None = None, **how: Any) -> list[Unlabeled]:
    """Unlabeled examples for a prediction: the rows of every split that a source has, or of one.

    Args:
      source: a picture, or anything that `load` reads, with labels or without.
      split: "train", "validation" or "test"; every one by default.
      **how: as for `load`.

    Raises:
      DataError: there is no such split.

    >>> [part.split for part in load_inputs("digits")]
    ['train', 'test']
    """
    place, reader, reading = _open(source, how)
    chosen = None if split is None else labeled_split(reader.splits(place, reading), split, source)
    return [part for part in reader.inputs(place, reading) if chosen in (None, part.split)]


def splits_of(source: str | Path, **how: Any) -> tuple[str, ...]:
    """Which splits a source has: ("all",), or some of "train", "validation", "test".

    >>> splits_of("digits")
    ('train', 'test')
    """
    place, reader, reading = _open(source, how)
    return reader.splits(place, reading)


def _open(
    source: str | Path, how: dict[str, Any], *, prefix: str = ""
) -> tuple[str | Path, Reader, Reading]:
    """The place of a source, its reader, and how it is to be read."""
    paths = {name: _expanded(how.get(name)) for name in ("data_dir", "labels")}
    reading = Reading(**{**how, **paths})
    place, reader = reader_of(source, reading)
    refuse_options(reading, reader, source, prefix=prefix)
    return place, reader, reading


def reader_of(source: str | Path, reading: Reading = Reading()) -> tuple[str | Path, Reader]:  # noqa: B008
    """The place of a source, and the reader for its kind."""
    if str(source) in named.NAMED:
        return str(source), named.READER
    path = _path(source)
    if reading.distributed is not None and path in reading.distributed.folders:
        return path, distributed_features.READER
    if path.is_dir():
        if named.set_of(path):
            return path, named.SET_FOLDER
        if features.find_parts(path):
            return path, features.READER
        if parquet.find(path):
            return path, parquet.READER
        table = picture_tables.holds_table(path, wanted=reading.label_column is not None)
        return path, picture_tables.READER if table else pictures.READER
    ending = path.suffix.lower()
    if ending in BY_ENDING:
        return path, BY_ENDING[ending]
    if ending == ".npy":
        rows = reading.image_shape is None and _are_rows(path)
        return path, features.READER if rows else arrays.READER
    if ending == ".safetensors":
        return path, features.READER
    return path, pictures.READER


def formats() -> list[dict]:
    """What can be read: of each kind of source its `title`, what lies there and how it is read
    (`lines`, pairs), and the `options` that it heeds.

    >>> formats()[0]["title"], formats()[0]["options"]
    ('a named data set', ['data_dir'])
    """
    return [
        {"title": reader.title, "lines": list(reader.formats), "options": sorted(reader.options)}
        for reader in READERS
    ]


def _pictures_like(image_shape: tuple[int, ...]) -> dict[str, Any]:
    """The settings of a `Reading` by which pictures become those of a training set."""
    return {"image_size": image_shape[:2], "color": "grey" if len(image_shape) == 2 else "rgb"}


def _expanded(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path).expanduser()


def _path(source: str | Path) -> Path:
    path = Path(source).expanduser()
    endings = (*BY_ENDING, ".npy", ".safetensors", *pictures.ENDINGS)
    if path.is_dir() or (path.is_file() and path.suffix.lower() in endings):
        return path
    known = ", ".join(named.NAMED)
    if path.exists():
        raise DataError(
            f"{path}: this kind of file is not read. Give one of {', '.join(endings)}, a folder of "
            f"pictures or features, or one of {known}."
        )
    if path.suffix or len(path.parts) > 1:
        raise DataError(f"{path}: no such file or folder. Check the path.")
    near = difflib.get_close_matches(str(source).lower(), named.NAMED, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise DataError(
        f"{source!r} is neither a data set ({known}) nor an existing file or folder.{hint}"
    )


def _are_rows(path: Path) -> bool:
    """Whether rows can be read from an `.npy` one by one: two axes, in order, of a known type."""
    shape, dtype, _, fortran = arrays.read_layout(path)
    in_order = not fortran or 1 in shape
    return len(shape) == 2 and 0 not in shape and dtype in KINDS and in_order
