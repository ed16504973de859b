"""The EMNIST family: handwritten letters and digits, six sets in the IDX format.

Their pictures are stored transposed, columns first, and are turned here. The letters count from 1
in their files, and from 0 here. Where capitals and small letters are one class, it has the name of
the capital.

Source: G. Cohen, S. Afshar, J. Tapson, A. van Schaik, "EMNIST: an extension of MNIST to handwritten
letters" (2017), and the mapping files that come with the sets.
"""

__all__ = ["SETS", "files", "find", "load"]

import string
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlin.core import DataError
from jaxlin.data import idx
from jaxlin.data.dataset import Dataset
from jaxlin.data.digits import CLASS_NAMES

_MERGED = (*CLASS_NAMES, *string.ascii_uppercase, *"abdefghnqrt")


class _Set(NamedTuple):
    title: str
    rows: tuple[int, int]
    class_names: tuple[str, ...]
    first: int = 0
    """The label of the first class in the files."""


SETS = {
    "emnist-letters": _Set(
        "handwritten letters", (124_800, 20_800), tuple(string.ascii_uppercase), 1
    ),
    "emnist-balanced": _Set("letters and digits, balanced", (112_800, 18_800), _MERGED),
    "emnist-byclass": _Set(
        "letters and digits by class",
        (697_932, 116_323),
        (*CLASS_NAMES, *string.ascii_uppercase, *string.ascii_lowercase),
    ),
    "emnist-bymerge": _Set("letters and digits, merged", (697_932, 116_323), _MERGED),
    "emnist-digits": _Set("handwritten digits", (240_000, 40_000), CLASS_NAMES),
    "emnist-mnist": _Set("handwritten digits, as in MNIST", (60_000, 10_000), CLASS_NAMES),
}
"""What is known of each, by the name that its files begin with."""


def stems(name: str) -> dict[str, str]:
    """What the files of each split begin with."""
    return {split: f"{name}-{split}" for split in ("train", "test")}


def find(folder: Path, name: str) -> bool:
    """Whether `folder` holds any file of a set, complete or not."""
    return idx.holds(folder, stems(name))


def files(folder: Path, name: str) -> dict[str, Path | None]:
    """The files of a set, by what their names begin with."""
    return idx.files(folder, stems(name))


def load(folder: Path, split: str, *, name: str) -> Dataset:
    """One split of a set.

    Raises:
      DataError: a file is missing, or anything about it is not as the format says.
    """
    known = SETS[name]
    pixels, labels, file = idx.read_pair(folder, split, stems(name))
    published = dict(zip(("train", "test"), known.rows, strict=True))
    there = {s: idx.count(folder, s, stems(name)) for s in published}
    if any(there[s] == rows for s, rows in published.items()) and len(labels) != published[split]:
        raise DataError(
            f"{file}: there are {len(labels):,} labels instead of {published[split]:,}: not the "
            "published file. Get it again."
        )
    if labels.min() < known.first:
        row = int(np.argmax(labels < known.first))
        raise DataError(
            f"{file}: labels must be {known.first} or more, got {labels[row]} at row {row}. Get "
            "the file again."
        )
    return idx.labeled(
        np.ascontiguousarray(pixels.swapaxes(1, 2)),
        labels - known.first,
        class_names=known.class_names,
        name=name,
        file=file,
        split=split,
    )
