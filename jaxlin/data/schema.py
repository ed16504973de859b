"""Which columns of a Parquet table are the inputs and the labels, by its schema alone."""

__all__ = ["Table", "label_of", "open_table", "some"]

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxlin.core import DataError
from jaxlin.data import columns
from jaxlin.data.keys import INPUTS
from jaxlin.data.source import Reading

LABELS = (
    *("label", "labels", "target", "targets", "class", "y"),
    *("fine_label", "fine_labels", "coarse_label", "coarse_labels"),
)
_TELLING = set(LABELS) - {"y"}  # y is also a coordinate
_INDEX = re.compile(r"__index_level_\d+__")
_PICTURES = ("image", "images", "img", "picture", "pictures", "png", "jpg", "jpeg")
_SHOWN = 5


class Table(NamedTuple):
    """What the schema of the files of one split says."""

    paths: list[Path]
    types: dict
    """Of each column."""
    label: str | None
    inputs: tuple[str, ...]
    """One column, or several of numbers."""
    picture: bool
    """Whether the one column is of encoded pictures."""
    names: tuple[str, ...] | None
    """Of the classes, as the schema says."""
    unused: tuple[str, ...]


def open_table(paths: list[Path], reading: Reading) -> Table:
    types, names = _schema(paths[0])
    for other in paths[1:]:
        if _schema(other) != (types, names):
            raise DataError(
                f"{other}: its columns are not those of {paths[0].name}. Use files of one set."
            )
    label = _label_column(paths[0], types, reading.label_column)
    rest = {name: kind for name, kind in types.items() if name != label}
    inputs, picture = _input_columns(paths[0], rest, reading.inputs_key)
    unused = tuple(name for name in rest if name not in inputs)
    classes = None if label is None else names.get(label)
    return Table(paths, types, label, inputs, picture, classes, unused)


def _schema(path: Path) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """The type of each column, and the names of classes of those that have some."""
    with columns.opened(path) as file:
        schema = file.schema_arrow
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise DataError(f"{path}: has two columns {twice!r}. Save it with one.")
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = {
            column: tuple(map(str, entry["names"]))
            for column, entry in features.items()
            if isinstance(entry, dict) and isinstance(entry.get("names"), list)
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        names = {}  # it does not say
    return dict(zip(schema.names, schema.types, strict=True)), names


def _label_column(path: Path, types: Mapping[str, Any], asked: str | None) -> str | None:
    if asked is not None:
        if asked not in types:
            raise DataError(f"{path}: there is no column {asked!r}, got {some(types)}.")
        return asked
    found = [name for name in types if name.lower() in LABELS]
    if len(found) > 1:
        raise DataError(
            f"{path}: {some(found)} could all be the labels. Say which with `label_column`."
        )
    return found[0] if found else None


def label_of(table: Table) -> str:
    if table.label is None:
        raise DataError(
            f"{table.paths[0]}: there is no column `label`, got {some(table.types)}. Say which "
            "holds the labels with `label_column`."
        )
    return table.label


def _input_columns(
    path: Path, types: Mapping[str, Any], asked: str | None
) -> tuple[tuple[str, ...], bool]:
    """The columns of the inputs, and whether they are one of encoded pictures."""
    numeric = {name for name, kind in types.items() if columns.is_numeric(columns.leaf(kind)[0])}
    if asked is not None:
        if asked not in types:
            raise DataError(f"{path}: there is no column {asked!r} of inputs, got {some(types)}.")
        picture = columns.is_picture(types[asked])
        if not picture and asked not in numeric:
            raise DataError(
                f"{path}: column {asked!r} holds {types[asked]}, neither numbers nor pictures. "
                "Name another one with `inputs_key`."
            )
        return (asked,), picture
    whole = [n for n, k in types.items() if columns.is_picture(k) and _says_picture(n, k)]
    whole += [n for n in types if n in numeric and columns.leaf(types[n])[1]]
    if len(whole) > 1:
        usual = [name for name in whole if name.lower() in (*INPUTS, *_PICTURES)]
        whole = usual if len(usual) == 1 else whole
    if len(whole) > 1:
        raise DataError(
            f"{path}: {some(whole)} could all be the inputs. Say which with `inputs_key`."
        )
    if whole:
        return (whole[0],), columns.is_picture(types[whole[0]])
    # What could be other labels would tell them; pandas' index only numbers the rows.
    found = tuple(
        name
        for name in types
        if name in numeric and not _INDEX.fullmatch(name) and name.lower() not in _TELLING
    )
    if not found:
        raise DataError(
            f"{path}: there are neither pictures nor numbers in its columns, {some(types)}. Save "
            "the inputs as lists of numbers."
        )
    return found, False


def _says_picture(name: str, kind: Any) -> bool:
    """Whether a column of bytes is meant as pictures: a struct of bytes, or by its name."""
    return hasattr(kind, "get_field_index") or name.lower() in _PICTURES


def some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"`{name}`" for name in names[:_SHOWN]) + more
