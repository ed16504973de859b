"""Parquet files, by pyarrow, which is an extra: one file, or a folder of splits in shards.

    NAME.parquet
    folder/train-00000-of-00002.parquet, folder/test-00000-of-00001.parquet, ...
    folder/train.parquet, folder/test.parquet; folder/train/*.parquet, folder/test/*.parquet
    folder/data/...       each of these, as data sets are stored on a hub

The inputs are a column of encoded pictures, or one of lists of numbers, else all columns of numbers
side by side; `inputs_key` names one where there are several. The labels are the column `label`,
`labels`, `target`, `class`, `y`, ... or the `label_column`. Names of classes that the schema of a
Hugging Face data set has are used.
"""

__all__ = ["READER", "find"]

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxlin.core import DataError
from jaxlin.data import columns, encoded
from jaxlin.data.arrays import rows_of
from jaxlin.data.dataset import Dataset, PassedOver, Unlabeled
from jaxlin.data.schema import Table, label_of, open_table, some
from jaxlin.data.shards import in_order
from jaxlin.data.source import Reader, Reading
from jaxlin.data.stores import labels_as
from jaxlin.data.validate import build, check_labels, without_labels

ENDING = ".parquet"
WORDS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
_NUMBERED = re.compile(r"(?P<name>.+?)-(?P<number>\d+)-of-(?P<count>\d+)(?:-[0-9a-f]+)?\.parquet")


def find(path: Path) -> dict[str, list[Path]]:
    """The files of each split in a file or folder, in order; "all" where nothing says splits.

    Raises:
      DataError: a series is incomplete, or two things claim to be one split.
    """
    if path.is_file():
        return {"all": [path]}
    for place in (path, path / "data"):
        if place.is_dir():
            found = {split: _claimed(place, words) for split, words in WORDS.items()}
            found = {split: files for split, files in found.items() if files}
            if found:
                return found
            files = _files(place)
            if files:
                return {"all": _ordered(files)}
    return {}


def _claimed(place: Path, words: tuple[str, ...]) -> list[Path]:
    claims = []
    for word in words:
        own = [p for p in _files(place) if _series_of(p) == word or p.name == f"{word}{ENDING}"]
        inside = _files(place / word) if (place / word).is_dir() else []
        claims += [files for files in (own, inside) if files]
    if len(claims) > 1:
        raise DataError(
            f"{place}: both {claims[0][0].relative_to(place)} and "
            f"{claims[1][0].relative_to(place)} claim to be one split. Remove one of them."
        )
    return _ordered(claims[0]) if claims else []


def _ordered(files: list[Path]) -> list[Path]:
    """The files of one series by their numbers, all others by name."""
    series = {_series_of(path) for path in files}
    return in_order(files, numbered=_NUMBERED) if len(series) == 1 and None not in series else files


def _series_of(path: Path) -> str | None:
    match = _NUMBERED.fullmatch(path.name)
    return match["name"] if match else None


def _files(place: Path) -> list[Path]:
    there = sorted(place.glob(f"*{ENDING}"))
    return [path for path in there if path.name[0] not in "._" and path.is_file()]


def _load(path: Path, split: str, reading: Reading) -> Dataset:
    splits = find(path)
    table = open_table(splits[split], reading)
    own, names = table.names, reading.class_names
    training = names is None and split in ("train", "all")
    if names is None:
        names = own
        if own is None and not training and "train" in splits:  # the classes are the training set's
            first = open_table(splits["train"], reading)
            labels = columns.text_or_numbers(first.paths, label_of(first))
            _, names = check_labels(labels, file=str(first.paths[0].parent), rows=len(labels))
    labels = columns.text_or_numbers(table.paths, label_of(table))
    rows, image_shape, notes, white = _rows(table, reading, _others(splits, split))
    file = str(table.paths[0] if len(table.paths) == 1 else table.paths[0].parent)
    return build(
        rows,
        labels_as(labels, own, names, file=file, rows=len(rows)),
        class_names=names,
        image_shape=image_shape,
        name=path.name,
        file=file,
        training=training,
        split=split,
        white=white,
        notes=notes,
        passed_over=_passed_over(path, splits),
    )


def _inputs(path: Path, reading: Reading) -> list[Unlabeled]:
    splits, found = find(path), []
    for split, paths in splits.items():
        rows, shape, notes, white = _rows(
            open_table(paths, reading), reading, _others(splits, split)
        )
        found.append(
            without_labels(
                *(rows, shape, path.name, str(paths[0]), split),
                white=white,
                notes=notes,
                passed_over=_passed_over(path, splits),
            )
        )
    return found


def _others(splits: dict[str, list[Path]], split: str) -> list[Path]:
    return [path for other, paths in splits.items() if other != split for path in paths]


def _rows(
    table: Table, reading: Reading, others: list[Path]
) -> tuple[np.ndarray, tuple[int, ...] | None, list[str], int | None]:
    """Rows (N, D), the shape of a picture, notes, and the number of white if it is known.

    `others` are the files of the other splits, which have a say in whether pictures are color.
    """
    name, notes = table.paths[0].name, []
    if not table.picture and not columns.leaf(table.types[table.inputs[0]])[1]:
        notes += [f"{name}: the features are {some(table.inputs)}."]
    if table.unused:
        notes += [f"{name}: columns that are not read: {some(table.unused)}."]
    if table.picture:
        if reading.image_shape is not None:
            raise DataError(
                f"{table.paths[0]}: column {table.inputs[0]!r} holds pictures, so that "
                "`image_shape` has nothing to say: it is for rows. Leave it out."
            )
        read = encoded.pictures_of(table.paths, table.inputs[0], reading, others=others)
        return read.inputs, read.image_shape, [*notes, *read.notes], 255
    rows, shape = rows_of(
        columns.numbers_of(table.paths, table.inputs), reading.image_shape, table.paths[0]
    )
    _refuse_resizing(table, rows.shape[1], shape, reading)
    return rows, shape, notes, None


def _refuse_resizing(
    table: Table, features: int, shape: tuple[int, ...] | None, reading: Reading
) -> None:
    """Numbers are never resized or recolored; to be told what they are already is no harm.

    A model says both `image_size` and `color` of what it was fitted on.
    """
    size, color = reading.image_size, reading.color
    if size is not None and color is not None:
        told = (*map(int, size), *(() if color == "grey" else (3,)))
        if told == shape or (shape is None and math.prod(told) == features):
            return
    for option in ("image_size", "color", "background"):
        if getattr(reading, option) is not None:
            raise DataError(
                f"{table.paths[0]}: holds numbers, not picture files, so that `{option}` "
                f"{getattr(reading, option)} cannot be heeded. Leave it out, or give pictures."
            )


def _passed_over(path: Path, splits: Mapping[str, list[Path]]) -> tuple[PassedOver, ...]:
    used = {file for files in splits.values() for file in files}
    places = [place for place in (path, path / "data") if place.is_dir()]
    left = [file for place in places for file in _files(place) if file not in used]
    return (PassedOver(len(left), "`.parquet` of no split", str(left[0])),) if left else ()


READER = Reader(
    "a Parquet table",
    frozenset({"inputs_key", "label_column", "image_shape", "image_size", "color", "background"}),
    lambda path, reading: tuple(find(path)),
    _load,
    _inputs,
    (
        (
            "NAME.parquet",
            "a column label (or target, class, y, ...) and one of encoded pictures or of lists of "
            "one length, else all columns of numbers (needs pyarrow: pip install "
            "'jaxlin[formats]')",
        ),
        (
            "FOLDER/train-*-of-*.parquet",
            "shards of train, validation and test; also train.parquet, train/*.parquet, and all of "
            "these in FOLDER/data",
        ),
    ),
)
