"""Files that hold several named arrays: one way to read them, whatever the format.

A format says which arrays a file has and reads one of them (`Store`). Which of them are inputs,
labels, class names (see `jaxlin.data.keys`), and what becomes of them, is the same for all.
"""

__all__ = ["Store", "labels_as", "reader", "refuse_expansion"]

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.arrays import rows_of
from jaxlin.data.dataset import Dataset, Unlabeled
from jaxlin.data.keys import Choice, Layout, choose, resolve
from jaxlin.data.source import Reader, Reading
from jaxlin.data.validate import build, check_labels, text_of, without_labels

MAX_RATIO = 200
"""How many times stored bytes may expand (real data: 2 to 20 times; a bomb: 1,000 times)."""
_RATIO_MATTERS_ABOVE = 16 << 20


class Store(NamedTuple):
    """An open file of named arrays."""

    layouts: Mapping[str, Layout]
    """What it says of each; an array that cannot be read is an error only if it is needed."""
    read: Callable[[str], np.ndarray]
    """Reads one of them, in full; raises a `DataError`."""


def reader(
    title: str,
    opened: Callable[[Path], AbstractContextManager[Store]],
    *,
    formats: tuple[tuple[str, str], ...],
    beside: Callable[[Path, Reading], np.ndarray] | None = None,
) -> Reader:
    """The reader of a format.

    Args:
      title: with its article.
      opened: opens a file for reading.
      formats: for `jaxlin data formats`.
      beside: finds labels in another file, where the format allows a file to have none.
    """

    def splits(path: Path, reading: Reading) -> tuple[str, ...]:
        with opened(path) as store:
            return choose(store.layouts, reading, path).splits

    def load(path: Path, split: str, reading: Reading) -> Dataset:
        with opened(path) as store:
            return _load(store, path, split, reading, beside)

    def inputs(path: Path, reading: Reading) -> list[Unlabeled]:
        found = []
        with opened(path) as store:
            choice = choose(store.layouts, reading, path)
            for split in choice.splits:
                rows, shape = _rows(store, choice, split, reading, path)
                found.append(without_labels(rows, shape, path.name, str(path), split))
        return found

    options = frozenset({"inputs_key", "labels_key", "image_shape"})
    options |= {"labels"} if beside else set()
    return Reader(title, options, splits, load, inputs, formats)


def _load(
    store: Store,
    path: Path,
    split: str,
    reading: Reading,
    beside: Callable[[Path, Reading], np.ndarray] | None,
) -> Dataset:
    choice = choose(store.layouts, reading, path)
    inputs, image_shape = _rows(store, choice, split, reading, path)
    own = _class_names(store, choice, path)
    labels = _labels(store, choice, split, reading, path, beside)
    names = reading.class_names
    training = names is None and split in ("train", "all")
    if names is None:
        names = own
        if own is None and split not in ("train", "all") and "train" in choice.splits:
            # the classes are the training set's
            all_labels = _labels(store, choice, "train", reading, path, beside)
            _, names = check_labels(all_labels, file=str(path), rows=len(all_labels))
    labels = labels_as(labels, own, names, file=str(path), rows=len(inputs))
    notes: tuple[str, ...] = ()
    if choice.unused:
        notes = (f"{path.name}: arrays that are not read: {', '.join(choice.unused)}.",)
    return build(
        inputs,
        labels,
        class_names=names,
        image_shape=image_shape,
        name=path.name,
        file=str(path),
        training=training,
        split=split,
        notes=notes,
    )


def _rows(
    store: Store, choice: Choice, split: str, reading: Reading, path: Path
) -> tuple[np.ndarray, tuple[int, ...] | None]:
    shape = reading.image_shape
    inputs = store.read(resolve(choice, "inputs", split, store.layouts, path))
    if shape is None and choice.image_shape is not None:
        stored = store.read(choice.image_shape)
        if stored.dtype.kind not in "iu":
            raise DataError(
                f"{path}: `image_shape` must be integers, got {stored.dtype}. Save the shape that "
                "a picture had before it became a row."
            )
        if inputs.shape[1:] != tuple(stored.ravel()):  # else it says what the array says
            shape = tuple(stored.ravel().tolist())
    return rows_of(inputs, shape, path)


def _labels(
    store: Store,
    choice: Choice,
    split: str,
    reading: Reading,
    path: Path,
    beside: Callable[[Path, Reading], np.ndarray] | None,
) -> np.ndarray:
    if beside is not None and not choice.labels[split] and split in ("train", "all"):
        return beside(path, reading)
    key = resolve(choice, "labels", split, store.layouts, path)
    if reading.labels is not None:
        raise DataError(
            f"{path}: holds labels of its own (`{key}`), so that `labels` would not be read. Leave "
            "it out."
        )
    return store.read(key)


def _class_names(store: Store, choice: Choice, path: Path) -> tuple[str, ...] | None:
    if choice.class_names is None:
        return None
    names = store.read(choice.class_names).ravel().tolist()
    return tuple(text_of(name, file=f"{path} ({choice.class_names})") for name in names)


def labels_as(
    labels: np.ndarray,
    own: Sequence[str] | None,
    names: Sequence[str] | None,
    *,
    file: str,
    rows: int,
) -> np.ndarray:
    """Labels that number the classes `own`, as labels for the classes `names`.

    The same number means another class where two files list their classes in another order, so
    numbers become names. Names that only number the classes take the numbers as they are.

    >>> labels_as(np.array([0, 1]), ("ant", "bee"), ("bee", "ant"), file="a.npz", rows=2).tolist()
    ['ant', 'bee']
    """
    if own is None or names is None or labels.dtype.kind not in "buif":
        return labels
    own, names = tuple(own), tuple(names)
    if own == names or names == tuple(map(str, range(len(names)))):
        return labels
    numbers, _ = check_labels(labels, file=file, rows=rows, class_names=own)
    return np.array(own)[numbers]


def refuse_expansion(what: str | Path, stored: int, expanded: int) -> None:
    """Raise a `DataError` if `stored` bytes claim to be more than any real data could be."""
    if expanded > max(_RATIO_MATTERS_ABOVE, stored * MAX_RATIO):
        raise DataError(
            f"{what}: {stored:,} stored bytes claim to expand to {expanded:,}, which no real data "
            "do. Save it again, less compressed."
        )
