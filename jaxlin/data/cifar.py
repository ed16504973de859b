"""CIFAR-10 in both of its published forms, read without trusting them.

The binary version is six files of records: one label byte, then 3,072 pixels, channel-major (all
of red, then green, then blue, each row by row). The Python version is six pickles, which are read
without running them: see `jaxlin.data.pickled`.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009), and the
data set's page, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

__all__ = ["CLASS_NAMES", "files", "find", "load", "read_binary", "read_pickle"]

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.dataset import Dataset
from jaxlin.data.pickled import StoredArray, read_entries
from jaxlin.data.validate import build

CLASS_NAMES = tuple(
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
)
IMAGE_SHAPE = (32, 32, 3)
PIXELS = 3072
FOLDERS = {"cifar-10-batches-bin": ".bin", "cifar-10-batches-py": ""}
BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
CANONICAL_ROWS = 10_000


def find(folder: Path) -> tuple[Path, str] | None:
    """The folder that holds batches, `folder` itself or one below, and their file ending.

    One batch suffices, complete or not, and the binary version comes first.
    """
    for name, ending in FOLDERS.items():
        for place in (folder, folder / name):
            if any((place / f"{b}{ending}").is_file() for b in BATCHES["train"] + BATCHES["test"]):
                return place, ending
    return None


def files(folder: Path) -> dict[str, Path]:
    """The file of each batch, whether it is there or not.

    Raises:
      DataError: there is no batch at all.
    """
    found = find(folder)
    if found is None:
        raise DataError(
            f"{folder}: there is neither cifar-10-batches-bin nor cifar-10-batches-py. Unpack one "
            "of the published archives there."
        )
    place, ending = found
    return {batch: place / f"{batch}{ending}" for batch in BATCHES["train"] + BATCHES["test"]}


def load(folder: Path, split: str) -> Dataset:
    """One split of CIFAR-10 from `folder`, or from the batches' own folder below it.

    Raises:
      DataError: a batch is missing, cut off, or not what the format says.
    """
    there = files(folder)
    paths = [there[batch] for batch in BATCHES[split]]
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: the file is missing. Put all six batches there.")
    batches = [read_binary(path) if path.suffix else read_pickle(path) for path in paths]
    _refuse_short_batches(paths, [len(labels) for _, labels in batches], list(there.values()))
    return build(
        np.concatenate([pixels for pixels, _ in batches]),
        np.concatenate([labels for _, labels in batches]),
        class_names=CLASS_NAMES,
        image_shape=IMAGE_SHAPE,
        name="cifar10",
        file=str(paths[0].parent),
        training=split == "train",
        split=split,
        white=255,
    )


def read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3072) uint8, channel-major, and labels (N,) of one binary batch."""
    size = Path(path).stat().st_size
    if size == 0 or size % (PIXELS + 1):
        raise DataError(
            f"{path}: the size must be a multiple of 3,073 bytes (a label and 3,072 pixels), got "
            f"{size:,}: the file is cut off or no binary batch. Get it again."
        )
    records = np.fromfile(path, np.uint8).reshape(-1, PIXELS + 1)
    _refuse_labels(path, records[:, 0])
    return records[:, 1:], records[:, 0]


def read_pickle(
    path: Path, *, key: str = "labels", classes: int = len(CLASS_NAMES)
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3072) uint8, channel-major, and labels (N,) of one Python batch.

    Args:
      path: the file.
      key: of the labels in it.
      classes: of which they are.

    Raises:
      DataError: the pickle names anything but an array, or does not hold pixels and labels.
    """
    path = Path(path)
    entries = read_entries(path, what="a batch of CIFAR")
    pixels, labels = entries.get("data"), entries.get(key)
    if isinstance(labels, StoredArray):
        labels = labels.array().tolist()
    if (
        not isinstance(pixels, StoredArray)
        or not isinstance(labels, list)
        or not all(type(label) is int and 0 <= label < classes for label in labels)
    ):
        raise DataError(
            f"{path}: a batch must hold an array 'data' and a list {key!r} of classes 0 to "
            f"{classes - 1}. Get the file again."
        )
    pixels = pixels.array()
    if pixels.dtype != np.uint8 or not labels or pixels.shape != (len(labels), PIXELS):
        raise DataError(
            f"{path}: 'data' must be uint8 of shape ({len(labels)}, {PIXELS}) as there are "
            f"{len(labels)} labels, got {pixels.dtype} {pixels.shape}. Get the file again."
        )
    return pixels, np.array(labels, np.uint8)


def _refuse_short_batches(
    paths: Sequence[Path], rows: Sequence[int], everything: Sequence[Path]
) -> None:
    """A batch cut at a record's end looks whole; its published length, or its peers', tells."""
    sizes = dict(zip(paths, rows, strict=True))
    if paths[0].suffix:
        sizes |= {p: p.stat().st_size // (PIXELS + 1) for p in everything if p.is_file()}
    if CANONICAL_ROWS in sizes.values():
        for path in paths:
            if sizes[path] != CANONICAL_ROWS:
                raise DataError(
                    f"{path}: there are {sizes[path]:,} pictures instead of {CANONICAL_ROWS:,}: "
                    "the file is cut off. Get it again."
                )


def _refuse_labels(path: Path, labels: np.ndarray) -> None:
    if labels.max() >= len(CLASS_NAMES):
        row = int(np.argmax(labels >= len(CLASS_NAMES)))
        raise DataError(
            f"{path}: labels must be 0 to 9, got {labels[row]} in record {row}: no batch of "
            "CIFAR-10, or a damaged one. Get the file again."
        )
