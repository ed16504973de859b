"""A table of file names and labels beside pictures: `labels.csv`, or `.tsv`.

    pets/labels.csv, pets/1.png or pets/images/1.png     one table; its column `split`, if it has
                                                         one, says train, val or test
    pets/train.csv, pets/test.csv, pets/val.csv          one a split (or train_labels.csv)

The source is the table, or the folder with it if that has no class folders (at most one subfolder,
apart from `train`, `val` and `test` without subfolders). Names are relative to the table's folder
or to one below it, with the ending of the file or without; where several pictures fit, the one in a
folder called like the split is meant. A header is a first row whose cells name no picture. Of
two columns one has the names and the other the labels; of more, a column called `label`, or the one
that `label_column` names, has the labels. Text is UTF-8, with a byte-order mark or without; cells
are separated by commas, semicolons or tabs, and may be quoted. Labels that are all integers are
classes 0 to K - 1, others are sorted. A name without a picture, a picture with two labels or in
two splits, and an empty label are refused; a row that comes again counts once; pictures that no
table names are passed over. A prediction reads the pictures that the table names, but every one of
a folder whose only table says nothing of splits.
"""

__all__ = ["ENDINGS", "READER", "holds_table"]

import os
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlin.core import DataError
from jaxlin.data import pictures
from jaxlin.data.dataset import Dataset, Unlabeled
from jaxlin.data.picture_columns import is_integer, split_column, table_columns
from jaxlin.data.picture_listing import (
    Passed,
    found_in,
    list_pictures,
    note_passed,
    told,
    unnote,
)
from jaxlin.data.picture_names import Names, find_picture, index_names
from jaxlin.data.picture_rows import read_rows
from jaxlin.data.pictures import split_called
from jaxlin.data.source import Reader, Reading
from jaxlin.data.tables import Row, read_table
from jaxlin.data.validate import build, check_labels, without_labels

ENDINGS = (".csv", ".tsv")
_ORDER = ("train", "validation", "test", "all")


class Named(NamedTuple):
    """The pictures that a table names for one split."""

    table: Path
    paths: list[str]
    labels: list[str]
    """As they are written; empty where the table has no column of them."""
    lacks: str | None
    """The sentence that says so."""
    repeated: list[int]
    """Rows that named a picture again, with the same label."""


class Place(NamedTuple):
    """Where a picture was named."""

    split: str
    table: Path
    row: int
    label: str | None


def holds_table(folder: Path, *, wanted: bool = False) -> bool:
    """Whether a folder is pictures beside a table: it has one, and no class folders.

    Args:
      folder: its path.
      wanted: a column of a table was asked for: class folders are then no reason against it.
    """
    if not _tables_in(folder):
        return False
    if wanted:
        return True
    others = 0
    passed: Passed = {}
    entries = found_in(str(folder), passed)
    for path in entries.folders + entries.linked:
        if split_called(os.path.basename(path)) is None:
            others += 1
        else:
            inside = found_in(path, passed)
            if inside.folders or inside.linked:
                return False
    return others <= 1


def _tables_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as scan:
        names = sorted(e.name for e in scan if e.name.lower().endswith(ENDINGS) and e.is_file())
    return [folder / name for name in names if not name.startswith(".")]


def _tables(source: Path) -> dict[str, Path]:
    """The table of each split; a table that names none is "all"."""
    if source.is_file():
        return {_split_of(source) or "all": source}
    tables = _tables_in(source)
    found: dict[str, Path] = {}
    for table in tables:
        split = _split_of(table)
        if split is not None and split in found:
            raise _several(source, [found[split], table])
        if split is not None:
            found[split] = table
    if not found and len(tables) > 1:
        raise _several(source, tables)
    return found or {"all": tables[0]}


def _split_of(table: Path) -> str | None:
    return split_called(re.sub(r"[-_]labels$", "", table.stem.lower()))


def _several(folder: Path, tables: list[Path]) -> DataError:
    names = ", ".join(table.name for table in tables[:5])
    return DataError(f"{folder}: several tables could hold the labels ({names}). Name one of them.")


def _survey(source: Path, reading: Reading) -> tuple[dict[str, Named], Passed]:
    """The pictures of each split, as the tables name them, and what is passed over."""
    folder = str(source.parent if source.is_file() else source)
    passed: Passed = {}
    paths = list_pictures(folder, passed)
    names = index_names(folder, paths)
    found: dict[str, Named] = {}
    where: dict[str, Place] = {}
    tables = _tables(source)
    for split, path in tables.items():
        for part, named in _read(path, split, names, where, reading).items():
            if part in found:
                raise _several(Path(folder), [found[part].table, path])
            found[part] = named
    unnamed = [path for path in paths if path not in where]
    if unnamed:
        note_passed(passed, "pictures that no table names", unnamed[0], len(unnamed))
    for path in tables.values():
        unnote(passed, f"`{path.suffix.lower()}` files")
    return found, passed


def _read(
    path: Path, split: str, names: Names, where: dict[str, Place], reading: Reading
) -> dict[str, Named]:
    """What one table names, by split; `where` gets the place of every picture."""
    table = read_table(path)
    columns = table_columns(table, names, reading.label_column)
    found: dict[str, Named] = {}
    for row in table.rows[columns.first :]:
        part = split if columns.split is None else _split_in(row, columns.split, path)
        at = f"{path}: row {row.number}"
        picture = find_picture(names, row.cells[columns.names], part, at)
        assert picture is not None  # with a place, what is no picture raises
        label = None
        if columns.labels is not None:
            label = unicodedata.normalize("NFC", row.cells[columns.labels])
            if not label:
                raise DataError(
                    f"{at}: {row.cells[columns.names]} has no label. Give every picture one, or "
                    "leave the row out."
                )
        own = found.setdefault(part, Named(path, [], [], columns.lacks, []))
        now = Place(part, path, row.number, label)
        if picture in where:
            _refuse_twice(where[picture], now, picture)
            own.repeated.append(row.number)
            continue
        where[picture] = now
        own.paths.append(picture)
        own.labels.extend([] if label is None else [label])
    if not found:
        raise DataError(f"{path}: the table names no picture. Add a row for each.")
    return found


def _split_in(row: Row, column: int, path: Path) -> str:
    split = split_called(row.cells[column])
    if split is None:
        raise DataError(
            f"{path}: row {row.number}: the split {row.cells[column]!r} is none of train, val and "
            "test. Correct it, or leave the row out."
        )
    return split


def _refuse_twice(before: Place, now: Place, picture: str) -> None:
    first = f"row {before.row}" if before.table == now.table else f"{before.table} row {before.row}"
    if before.split != now.split:
        raise DataError(
            f"{now.table}: row {now.row} names {picture} for {now.split}, and {first} names it for "
            f"{before.split}. Keep one of the rows."
        )
    if before.label != now.label:
        raise DataError(
            f"{now.table}: row {now.row} labels {picture} as {now.label!r}, and {first} as "
            f"{before.label!r}. Keep one of the rows."
        )


def _splits(source: Path, reading: Reading) -> tuple[str, ...]:
    """By the tables alone: no folder is walked."""
    there = set()
    for split, path in _tables(source).items():
        rows = read_table(path).rows
        column = split_column(rows[0].cells)
        there |= {split} if column is None else {_split_in(r, column, path) for r in rows[1:]}
    return tuple(split for split in _ORDER if split in there)


def _load(source: Path, split: str, reading: Reading) -> Dataset:
    """The pictures of one split with their labels."""
    found, passed = _survey(source, reading)
    own = found[split]
    if own.lacks is not None:
        raise DataError(own.lacks)
    whole = all(is_integer(label) for named in found.values() for label in named.labels)
    class_names = reading.class_names
    if class_names is None and split != "train" and found.get("train", own).labels:
        train = found.get("train", own)
        values = _values(train.labels, whole)
        _, class_names = check_labels(values, file=str(train.table), rows=len(values))
    rows = read_rows(_files(found), split, reading, name=source.name)
    return build(
        rows.inputs,
        _values(own.labels, whole),
        class_names=class_names,
        image_shape=rows.image_shape,
        name=source.name,
        file=str(own.table),
        training=reading.class_names is None and split in ("train", "all"),
        split=split,
        white=255,
        notes=(*rows.notes, *_repeats(own)),
        passed_over=told(passed),
    )


def _inputs(source: Path, reading: Reading) -> list[Unlabeled]:
    if source.is_dir() and _splits(source, reading) == ("all",):
        return pictures.READER.inputs(source, reading)
    found, passed = _survey(source, reading)
    parts = []
    for split in (split for split in _ORDER if split in found):
        own = found[split]
        rows = read_rows(_files(found), split, reading, name=source.name)
        parts.append(
            without_labels(
                rows.inputs,
                rows.image_shape,
                *(source.name, str(own.table), split),
                names=own.paths,
                white=255,
                notes=(*rows.notes, *_repeats(own)),
                passed_over=told(passed),
            )
        )
    return parts


def _files(found: dict[str, Named]) -> dict[str, list[str]]:
    return {split: named.paths for split, named in found.items()}


def _values(labels: list[str], whole: bool) -> np.ndarray:
    return np.array([int(label) for label in labels]) if whole else np.array(labels, str)


def _repeats(named: Named) -> tuple[str, ...]:
    if not named.repeated:
        return ()
    return (
        f"{named.table}: {len(named.repeated):,} rows name a picture again, with the same label "
        f"(first: row {named.repeated[0]}); it counts once.",
    )


READER = Reader(
    "a table of pictures",
    frozenset({"image_size", "color", "background", "label_column"}),
    _splits,
    _load,
    _inputs,
    (("labels.csv or .tsv beside pictures", "names of files and labels, a column each"),),
)
