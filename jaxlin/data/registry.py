"""From the name of a set, or a path, to checked data.

Named sets are looked for in this order: the `data_dir` that was given, `$JAXLIN_DATA`, the user's
cache, the places where systems install them. The first folder that holds any file of the set is
the one that is read: if something there is broken, that is an error, never a reason to go on to
another copy. Nothing is ever downloaded from here (see `jaxlin.data.fetch`).
"""

__all__ = [
    "NAMED",
    "NamedSet",
    "cache_folder",
    "load",
    "load_inputs",
    "load_splits",
    "load_validation",
    "locate",
]

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlin.core import DataError
from jaxlin.data import arrays, cifar, digits, features, folders, idx, scattered
from jaxlin.data.dataset import Dataset
from jaxlin.data.rows import RESIDENT_BYTES, hold
from jaxlin.data.shards import ENDINGS, KINDS
from jaxlin.data.validate import check_inputs

SPLITS = ("train", "test")


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


def load(
    source: str | Path,
    *,
    split: str = "train",
    data_dir: str | Path | None = None,
    labels: str | Path | None = None,
    image_size: tuple[int, int] | None = None,
    class_names: Sequence[str] | None = None,
    memory: int = RESIDENT_BYTES,
    apart: scattered.Scattered | None = None,
) -> Dataset:
    """One split of a named set, or of your own files.

    Args:
      source: "digits", "mnist", "fashion-mnist", "cifar10"; or the path of an `.npz` (`inputs` or
        `X`, `labels` or `y`), of an `.npy` or `.safetensors` with labels, of a folder of these (see
        `jaxlin.data.features`), of a folder of pictures `train/<class>/*.{png,jpg,jpeg,webp}`, or
        of a folder with the files of a named set.
      split: "train" or "test". There is no silent split: only what the data call a test set is
        one (digits, which have none, are split by a fixed rule).
      data_dir: where a named set lies: the folder with the IDX files, or the one with (or named)
        `cifar-10-batches-bin` or `cifar-10-batches-py`. Other places are then not searched.
      labels: the file of labels of features.
      image_size: (H, W) to which pictures of a folder are resized; `None` is the size of
        the first.
      class_names: the classes the labels must keep to (a model's); `None` finds them in the data.
      memory: bytes; features that take more stay in their files, and `inputs` is a source of rows
        that are read when they are used (`jaxlin.data.rows`).
      apart: in a run of several processes, the folders of which each has some files.

    Returns:
      A `Dataset`; inputs are finite, labels integers in [0, K), both of one length.

    Raises:
      DataError: with one sentence on which file is wrong, how, and what to do.
      ValueError: `split` is neither of the two.

    >>> load("digits", split="test").image_shape
    (8, 8)
    """
    if split not in SPLITS:
        raise ValueError(f"`split` must be 'train' or 'test', got {split!r}.")
    name = str(source)
    if name in NAMED:
        if name == "digits":
            return _same_classes(digits.load(split), class_names)
        folder = locate(name, data_dir)
        if name == "cifar10":
            return _same_classes(cifar.load(folder, split), class_names)
        found = idx.load(folder, split, name=name, class_names=NAMED[name].class_names)
        return _same_classes(found, class_names)
    path = _path(source)
    if not _has_split(path, split, apart):
        raise DataError(
            f"{path}: there is no test split. Name a file that is one, or use the training split."
        )
    if _is_apart(path, apart):
        options = {"labels": labels, "class_names": class_names, "memory": memory}
        return scattered.load(path, split, scattered=apart, **options)
    if path.is_dir() and cifar.find(path):
        return _same_classes(cifar.load(path, split), class_names)
    if path.is_dir() and idx.holds(path):
        names = class_names or digits.CLASS_NAMES
        return idx.load(path, split, name=path.name, class_names=tuple(names))
    if _are_features(path):
        return features.load(path, split, labels=labels, class_names=class_names, memory=memory)
    if path.is_dir():
        return folders.load(path, split, image_size=image_size, class_names=class_names)
    if path.suffix == ".npz":
        return arrays.load_npz(path, split, class_names=class_names)
    return arrays.load_npy(path, labels=labels, class_names=class_names)


def load_splits(
    source: str | Path,
    *,
    data_dir: str | Path | None = None,
    labels: str | Path | None = None,
    test: str | Path | None = None,
    test_labels: str | Path | None = None,
    image_size: tuple[int, int] | None = None,
    class_names: Sequence[str] | None = None,
    memory: int = RESIDENT_BYTES,
    apart: scattered.Scattered | None = None,
) -> tuple[Dataset, Dataset | None]:
    """The training set, and the test set if the source has one or `test` names one.

    `test` is a path like `source`: its own test split if it has one, else all of it. Its labels
    must keep to the training set's classes, and its rows to their shape. Other arguments are those
    of `load`.

    >>> train, test = load_splits("digits")
    >>> len(train.labels), len(test.labels)
    (1442, 355)
    """
    train = load(
        source,
        data_dir=data_dir,
        labels=labels,
        image_size=image_size,
        class_names=class_names,
        memory=memory,
        apart=apart,
    )
    size = train.image_shape[:2] if train.image_shape else image_size
    options = {"image_size": size, "class_names": train.class_names, "memory": memory}
    options |= {"apart": apart}
    if test is not None:
        split = "test" if _has_split(_path(test), "test", apart) else "train"
        held_out = load(test, split=split, labels=test_labels, **options)
    elif str(source) in NAMED:
        held_out = load(source, split="test", data_dir=data_dir)
    elif _has_split(_path(source), "test", apart):
        held_out = load(source, split="test", **options)
    else:
        return train, None
    if held_out.inputs.shape[1] != train.inputs.shape[1]:
        raise DataError(
            f"{test or source}: the test set has {held_out.inputs.shape[1]} features an example, "
            f"the training set {train.inputs.shape[1]}. Use data of the same shape."
        )
    return train, held_out


def load_validation(
    source: str | Path,
    *,
    class_names: Sequence[str],
    memory: int = RESIDENT_BYTES,
    apart: scattered.Scattered | None = None,
) -> Dataset | None:
    """The validation set of a folder of features that has `train`, `test` and `val`, else `None`.

    Without a `test` the part `val` is the test set.
    """
    path = Path(source).expanduser()
    if str(source) in NAMED or not path.is_dir():
        return None
    if not _is_apart(path, apart) and not _are_features(path):
        return None
    if not {"validation", "test"} <= set(_parts(path, apart)):
        return None
    options = {"class_names": class_names, "memory": memory}
    if _is_apart(path, apart):
        return scattered.load(path, "validation", scattered=apart, **options)
    return features.load(path, "validation", **options)


def load_inputs(
    path: str | Path, *, image_shape: tuple[int, ...] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Unlabeled examples for a prediction: rows (N, D), and a name for each.

    `path` is a picture, a folder of pictures (not searched deeper), an `.npy` or an `.npz`, or
    features (see `jaxlin.data.features`).
    Pictures are converted to `image_shape`.
    """
    path = Path(path)
    if path.exists() and _are_features(path):
        inputs = hold(features.open_features(path, labeled=False).inputs, RESIDENT_BYTES)
        return inputs, [f"{path.name}[{row}]" for row in range(len(inputs))]
    if path.suffix.lower() in folders.ENDINGS or path.is_dir():
        return folders.read_pictures(path, image_shape=image_shape)
    path = _path(path)
    inputs = check_inputs(arrays.read_inputs(path)[0], file=str(path))
    return inputs, [f"{path.name}[{row}]" for row in range(len(inputs))]


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


def _path(source) -> Path:
    path = Path(source).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix in (".npz", *ENDINGS)):
        return path
    known = ", ".join(NAMED)
    if path.exists():
        raise DataError(
            f"{path}: this kind of file is not read. Give an .npz, an .npy, a .safetensors, a "
            f"folder of pictures or features, or one of {known}."
        )
    if path.suffix or len(path.parts) > 1:
        raise DataError(f"{path}: no such file or folder. Check the path.")
    near = difflib.get_close_matches(str(source).lower(), NAMED, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise DataError(
        f"{source!r} is neither a data set ({known}) nor an existing file or folder.{hint}"
    )


def _is_apart(path: Path, apart: scattered.Scattered | None) -> bool:
    return apart is not None and path in apart.folders


def _parts(path: Path, apart: scattered.Scattered | None) -> dict:
    return apart.folders[path] if _is_apart(path, apart) else features.find_parts(path)


def _has_split(path: Path, split: str, apart: scattered.Scattered | None) -> bool:
    if split == "train":
        return True
    if path.is_dir() and (cifar.find(path) or idx.holds(path)):
        return True
    if path.is_dir():
        parts = set(_parts(path, apart))
        return bool(parts & {"test", "validation"} if parts else folders.has_test(path))
    return path.suffix == ".npz" and arrays.has_test(path)


def _are_features(path: Path) -> bool:
    """Whether rows can be read from the files one by one: two axes, in order, of a known type."""
    if path.is_dir():
        known = cifar.find(path) or idx.holds(path)
        return not known and bool(features.find_parts(path))
    if path.suffix == ".safetensors":
        return True
    if path.suffix != ".npy":
        return False
    shape, dtype, _, fortran = arrays.read_layout(path)
    in_order = not fortran or 1 in shape
    return len(shape) == 2 and 0 not in shape and dtype in KINDS and in_order


def _same_classes(found: Dataset, class_names) -> Dataset:
    if class_names is not None and tuple(class_names) != found.class_names:
        raise DataError(
            f"{found.name}: its classes are {', '.join(found.class_names)}, not "
            f"{', '.join(class_names)}. Use data with the same classes."
        )
    return found
