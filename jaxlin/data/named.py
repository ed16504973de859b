"""Sets that are known by name: where their files are looked for, and how they are read.

They are looked for in this order: the `data_dir` that was given, `$JAXLIN_DATA`, the user's
cache, the places where systems install them. The first folder that holds any file of the set is
the one that is read: if something there is broken, that is an error, never a reason to go on to
another copy. Nothing is ever downloaded from here (see `jaxlin.data.fetch`).
"""

__all__ = ["NAMED", "READER", "SET_FOLDER", "NamedSet", "cache_folder", "locate", "search_places"]

import os
from pathlib import Path
from typing import NamedTuple

from jaxlin.core import DataError
from jaxlin.data import cifar, digits, idx
from jaxlin.data.dataset import Dataset, Unlabeled
from jaxlin.data.source import Reader, Reading


class NamedSet(NamedTuple):
    """What is known of a set before any of its files was seen."""

    title: str
    rows: tuple[int, int]
    """How many examples train and test have."""
    image_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    places: tuple[str, ...]
    """Folders below a data folder where it usually lies."""
    system: tuple[str, ...]
    """Absolute folders where a system's packages install it."""
    files: str
    """What to put there, in words."""
    source: str


_IDX = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
_IDX += "t10k-labels-idx1-ubyte, plain or .gz"
_CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
NAMED = {
    "digits": NamedSet(
        *("handwritten digits of scikit-learn", (1442, 355), (8, 8), digits.CLASS_NAMES),
        *((), (), "nothing: it comes with scikit-learn", "sklearn.datasets.load_digits"),
    ),
    "mnist": NamedSet(
        *("handwritten digits", (60_000, 10_000), (28, 28), digits.CLASS_NAMES),
        *(("mnist", "MNIST/raw", "MNIST"), ("/usr/share/datasets/mnist",), _IDX),
        "http://yann.lecun.com/exdb/mnist/",
    ),
    "fashion-mnist": NamedSet(
        *("pictures of clothes", (60_000, 10_000), (28, 28), _CLOTHES),
        ("fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
        *(("/usr/share/datasets/fashion-mnist",), _IDX),
        "https://github.com/zalandoresearch/fashion-mnist",
    ),
    "cifar10": NamedSet(
        *("small color photographs", (50_000, 10_000), (32, 32, 3), cifar.CLASS_NAMES),
        *(("cifar10", "cifar-10"), ("/usr/share/datasets/cifar10",)),
        "the folder cifar-10-batches-bin (or cifar-10-batches-py) of the published archive",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
}


def locate(name: str, data_dir: str | Path | None = None) -> Path:
    """The folder with the files of a named set; see the module for the order of search.

    Raises:
      DataError: no place has any of its files; the sentence names them and where to put them.
    """
    places = search_places(name, data_dir)
    for place in places:
        if (cifar.find(place) is not None) if name == "cifar10" else idx.holds(place):
            return place
    if data_dir is not None:
        raise DataError(
            f"{data_dir}: {name} is not there. Put {NAMED[name].files} into that folder, or leave "
            "the folder out to search the usual places."
        )
    raise DataError(
        f"{name} is not on this machine. Put {NAMED[name].files} into "
        f"{cache_folder() / name}, name "
        f"another folder, or run `jaxlin data fetch {name}`."
    )


def search_places(name: str, data_dir: str | Path | None = None) -> list[Path]:
    """Every folder in which a named set is looked for, in order."""
    below = NAMED[name].places
    if data_dir is not None:
        root = Path(data_dir).expanduser()
        return [root, *(root / place for place in below)]
    roots = [Path(root).expanduser() for root in [os.environ.get("JAXLIN_DATA")] if root]
    inside = [root / place for root in roots for place in (*below, "")]
    cached = [cache_folder() / place for place in below]
    return [*inside, *cached, *map(Path, NAMED[name].system)]


def cache_folder() -> Path:
    """Where fetched sets are kept for this user."""
    import pooch  # imports requests' neighbors: only when a named set is looked for

    return Path(pooch.os_cache("jaxlin"))


def _load(name: str, split: str, reading: Reading) -> Dataset:
    if name == "digits":
        found = digits.load(split)
    elif name == "cifar10":
        found = cifar.load(locate(name, reading.data_dir), split)
    else:
        folder = locate(name, reading.data_dir)
        found = idx.load(folder, split, name=name, class_names=NAMED[name].class_names)
    return _same_classes(found, reading.class_names)


def _splits(name: str, reading: Reading) -> tuple[str, ...]:
    return ("train", "test")


def _inputs(name: str, reading: Reading) -> list[Unlabeled]:
    return [unlabeled(_load(name, split, reading)) for split in _splits(name, reading)]


def unlabeled(data: Dataset) -> Unlabeled:
    """The rows of a set without its labels, named by their split and number."""
    place = data.name if data.split == "all" else f"{data.name}:{data.split}"
    return Unlabeled(
        data.inputs,
        [f"{place}[{row}]" for row in range(len(data.inputs))],
        data.image_shape,
        data.name,
        data.split,
        data.pixels,
        data.notes,
        data.passed_over,
    )


READER = Reader("a named data set", frozenset({"data_dir"}), _splits, _load, _inputs)


def _load_folder(path: Path, split: str, reading: Reading) -> Dataset:
    if cifar.find(path):
        return _same_classes(cifar.load(path, split), reading.class_names)
    names = tuple(reading.class_names or digits.CLASS_NAMES)
    return idx.load(path, split, name=path.name, class_names=names)


def _folder_inputs(path: Path, reading: Reading) -> list[Unlabeled]:
    reading = reading._replace(class_names=None)
    return [unlabeled(_load_folder(path, split, reading)) for split in ("train", "test")]


SET_FOLDER = Reader(
    "a folder with the files of a named data set",
    frozenset(),
    _splits,
    _load_folder,
    _folder_inputs,
)


def _same_classes(found: Dataset, class_names) -> Dataset:
    if class_names is not None and tuple(class_names) != found.class_names:
        raise DataError(
            f"{found.name}: its classes are {', '.join(found.class_names)}, not "
            f"{', '.join(class_names)}. Use data with the same classes."
        )
    return found
