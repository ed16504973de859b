"""Sets that are known by name: where their files are looked for, and how they are read.

They are looked for in this order: the `data_dir` that was given, `$JAXLIN_DATA`, the user's
cache, the places where systems install them. The first folder that holds any file of the set is
the one that is read: if something there is broken, that is an error, never a reason to go on to
another copy. Nothing is ever downloaded from here (see `jaxlin.data.fetch`).
"""

__all__ = [
    "NAMED",
    "READER",
    "SET_FOLDER",
    "NamedSet",
    "cache_folder",
    "locate",
    "search_places",
    "set_of",
    "unlabeled",
]

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from jaxlin.core import DataError
from jaxlin.data import cifar, cifar100, digits, emnist, idx, svhn
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
    find: Callable[[Path], object]
    """Whether a folder holds any of its files."""
    load: Callable[[Path, str], Dataset]
    """Reads the train or test split from a folder."""
    parts: Callable[[Path], Mapping[str, Path | None]]
    """Its files in a folder, by what their published sums are known under; `None` where one is
    missing."""


_IDX = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
_IDX += "t10k-labels-idx1-ubyte, plain or .gz"
_CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def _built_in(folder: Path) -> bool:
    return False


_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"
_CIFAR100 = (
    *(("cifar100", "cifar-100"), ("/usr/share/datasets/cifar100",)),
    "the folder cifar-100-binary (or cifar-100-python) of the published archive",
    *(_CIFAR, cifar100.find),
)
NAMED = {
    "digits": NamedSet(
        *("handwritten digits of scikit-learn", (1442, 355), (8, 8), digits.CLASS_NAMES),
        *((), (), "nothing: it comes with scikit-learn", "sklearn.datasets.load_digits"),
        *(_built_in, lambda folder, split: digits.load(split), lambda folder: {}),
    ),
    "mnist": NamedSet(
        *("handwritten digits", (60_000, 10_000), (28, 28), digits.CLASS_NAMES),
        *(("mnist", "MNIST/raw", "MNIST"), ("/usr/share/datasets/mnist",), _IDX),
        source="http://yann.lecun.com/exdb/mnist/",
        find=idx.holds,
        load=partial(idx.load, name="mnist", class_names=digits.CLASS_NAMES),
        parts=idx.files,
    ),
    "fashion-mnist": NamedSet(
        *("pictures of clothes", (60_000, 10_000), (28, 28), _CLOTHES),
        ("fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
        *(("/usr/share/datasets/fashion-mnist",), _IDX),
        source="https://github.com/zalandoresearch/fashion-mnist",
        find=idx.holds,
        load=partial(idx.load, name="fashion-mnist", class_names=_CLOTHES),
        parts=idx.files,
    ),
    "cifar10": NamedSet(
        *("small color photographs", (50_000, 10_000), (32, 32, 3), cifar.CLASS_NAMES),
        *(("cifar10", "cifar-10"), ("/usr/share/datasets/cifar10",)),
        "the folder cifar-10-batches-bin (or cifar-10-batches-py) of the published archive",
        source=_CIFAR,
        find=cifar.find,
        load=cifar.load,
        parts=cifar.files,
    ),
    "cifar100": NamedSet(
        "small color photographs, 100 classes",
        *((50_000, 10_000), (32, 32, 3), cifar100.FINE_NAMES, *_CIFAR100),
        *(cifar100.load, cifar100.files),
    ),
    "cifar100-coarse": NamedSet(
        "small color photographs, 20 classes",
        *((50_000, 10_000), (32, 32, 3), cifar100.COARSE_NAMES, *_CIFAR100),
        *(partial(cifar100.load, kind="coarse"), cifar100.files),
    ),
    "svhn": NamedSet(
        *("house numbers, cropped digits", (73_257, 26_032), (32, 32, 3), digits.CLASS_NAMES),
        *(("svhn", "SVHN"), ("/usr/share/datasets/svhn",), "train_32x32.mat and test_32x32.mat"),
        "http://ufldl.stanford.edu/housenumbers/",
        *(svhn.find, svhn.load, svhn.files),
    ),
} | {
    name: NamedSet(
        *(known.title, known.rows, (28, 28), known.class_names),
        (name, "emnist", "emnist/gzip", "EMNIST/raw", "EMNIST/gzip", "EMNIST", "gzip"),
        ("/usr/share/datasets/emnist",),
        f"{name}-train-images-idx3-ubyte, {name}-train-labels-idx1-ubyte and the same of test, "
        "plain or .gz",
        "https://www.nist.gov/itl/products-and-services/emnist-dataset",
        partial(emnist.find, name=name),
        partial(emnist.load, name=name),
        partial(emnist.files, name=name),
    )
    for name, known in emnist.SETS.items()
}


FETCHED = ("mnist", "fashion-mnist", "cifar10")
"""The sets that `jaxlin data fetch` downloads."""


def locate(name: str, data_dir: str | Path | None = None) -> Path:
    """The folder with the files of a named set; see the module for the order of search.

    Raises:
      DataError: no place has any of its files; the sentence names them and where to put them.
    """
    places = search_places(name, data_dir)
    for place in places:
        if NAMED[name].find(place):
            return place
    if data_dir is not None:
        raise DataError(
            f"{data_dir}: {name} is not there. Put {NAMED[name].files} into that folder, or leave "
            "the folder out to search the usual places."
        )
    fetched = f", or run `jaxlin data fetch {name}`" if name in FETCHED else ""
    raise DataError(
        f"{name} is not on this machine. Put {NAMED[name].files} into "
        f"{cache_folder() / name}, or name another folder{fetched}."
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
    place = Path() if name == "digits" else locate(name, reading.data_dir)
    return _same_classes(NAMED[name].load(place, split), reading.class_names)


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


READER = Reader(
    "a named data set",
    frozenset({"data_dir"}),
    _splits,
    _load,
    _inputs,
    (
        (
            "digits, mnist, cifar10, ...",
            "the sets of `jaxlin data list`, by name; their files lie in data_dir, $JAXLIN_DATA, "
            "in the cache of this user or where a system installs them",
        ),
    ),
)


def set_of(path: Path) -> str | None:
    """The named set whose files a folder holds; "mnist" for all files that are named like its.

    Raises:
      DataError: there are files of more than one set.
    """
    found = [name for name in NAMED if name not in _TWICE and NAMED[name].find(path)]
    if len(found) > 1:
        raise DataError(
            f"{path}: holds the files of {', '.join(found)}. Say which: give one of these names as "
            "the data, and this folder as `data_dir`."
        )
    return found[0] if found else None


_TWICE = ("digits", "fashion-mnist", "cifar100-coarse")
"""Sets that a folder cannot be told to hold: they have no files, or those of another set."""


def _load_folder(path: Path, split: str, reading: Reading) -> Dataset:
    name, classes = set_of(path), reading.class_names
    assert name is not None  # the folder was told to be one
    if name == "mnist":
        known = None if classes is None else tuple(classes)
        return idx.load(path, split, name=path.name, class_names=known)
    return _same_classes(NAMED[name].load(path, split), classes)


def _folder_inputs(path: Path, reading: Reading) -> list[Unlabeled]:
    reading = reading._replace(class_names=None)
    return [unlabeled(_load_folder(path, split, reading)) for split in ("train", "test")]


SET_FOLDER = Reader(
    "a folder with the files of a named data set",
    frozenset(),
    _splits,
    _load_folder,
    _folder_inputs,
    (
        (
            "FOLDER/train-images-idx3-ubyte",
            "four IDX files named as those of MNIST, plain or .gz, of any number of classes",
        ),
        ("FOLDER/cifar-10-batches-bin", "the files of one of the other named sets"),
    ),
)


def _same_classes(found: Dataset, class_names: Sequence[str] | None) -> Dataset:
    if class_names is not None and tuple(class_names) != found.class_names:
        raise DataError(
            f"{found.name}: its classes are {', '.join(found.class_names)}, not "
            f"{', '.join(class_names)}. Use data with the same classes."
        )
    return found
