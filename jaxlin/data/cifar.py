"""CIFAR-10 in both of its published forms, read without trusting them.

The binary version is six files of records: one label byte, then 3,072 pixels, channel-major (all
of red, then green, then blue, each row by row). The Python version is six pickles, and a pickle
is a program: plain `pickle.load` would run it. Here an unpickler written in Python resolves
nothing but the names that an array of bytes needs, each replaced by a stand-in of a few
lines that only stores its arguments.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009), and the
data set's page, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

__all__ = ["CLASS_NAMES", "find", "load", "read_binary", "read_pickle"]

import io
import math
import pickle
from pathlib import Path

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.dataset import Dataset
from jaxlin.data.validate import build

CLASS_NAMES = tuple(
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
)
IMAGE_SHAPE = (32, 32, 3)
PIXELS = 3072
FOLDERS = {"cifar-10-batches-bin": ".bin", "cifar-10-batches-py": ""}
BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
CANONICAL_ROWS = 10_000
_MAX_PICKLE_BYTES = 256 << 20


def find(folder: Path) -> tuple[Path, str] | None:
    """The folder that holds batches, `folder` itself or one below, and their file ending.

    One batch suffices, complete or not, and the binary version comes first.
    """
    for name, ending in FOLDERS.items():
        for place in (folder, folder / name):
            if any((place / f"{b}{ending}").is_file() for b in BATCHES["train"] + BATCHES["test"]):
                return place, ending
    return None


def load(folder: Path, split: str) -> Dataset:
    """One split of CIFAR-10 from `folder`, or from the batches' own folder below it.

    Raises:
      DataError: a batch is missing, cut off, or not what the format says.
    """
    found = find(folder)
    if found is None:
        raise DataError(
            f"{folder}: there is neither cifar-10-batches-bin nor cifar-10-batches-py. Unpack one "
            "of the published archives there."
        )
    place, ending = found
    paths = [place / f"{batch}{ending}" for batch in BATCHES[split]]
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: the file is missing. Put all six batches there.")
    batches = [read_binary(path) if ending else read_pickle(path) for path in paths]
    _refuse_short_batches(paths, [len(labels) for _, labels in batches], place, ending)
    return build(
        np.concatenate([pixels for pixels, _ in batches]),
        np.concatenate([labels for _, labels in batches]),
        class_names=CLASS_NAMES,
        image_shape=IMAGE_SHAPE,
        name="cifar10",
        file=str(place),
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


def read_pickle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3072) uint8, channel-major, and labels (N,) of one Python batch.

    Raises:
      DataError: the pickle names anything but an array, or does not hold pixels and labels.
    """
    path = Path(path)
    if path.stat().st_size > _MAX_PICKLE_BYTES:
        raise DataError(
            f"{path}: {path.stat().st_size:,} bytes are too many for a batch. Get the file again."
        )
    try:
        batch = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise DataError(f"{path}: not a batch of CIFAR-10: {error}. Get the file again.") from None
    except Exception as error:  # a broken program can break in any way; none of it is our bug
        raise DataError(
            f"{path}: the pickle is damaged or cut off ({type(error).__name__}). Get it again."
        ) from None
    batch = batch if isinstance(batch, dict) else {}
    entries = {key.decode() if isinstance(key, bytes) else key: batch[key] for key in batch}
    pixels, labels = entries.get("data"), entries.get("labels")
    if isinstance(labels, _StoredArray):
        labels = labels.array().tolist()
    if (
        not isinstance(pixels, _StoredArray)
        or not isinstance(labels, list)
        or not all(type(label) is int and 0 <= label < len(CLASS_NAMES) for label in labels)
    ):
        raise DataError(
            f"{path}: a batch must hold an array 'data' and a list 'labels' of classes 0 to 9. Get "
            "the file again."
        )
    pixels = pixels.array()
    if pixels.dtype != np.uint8 or not labels or pixels.shape != (len(labels), PIXELS):
        raise DataError(
            f"{path}: 'data' must be uint8 of shape ({len(labels)}, {PIXELS}) as there are "
            f"{len(labels)} labels, got {pixels.dtype} {pixels.shape}. Get the file again."
        )
    return pixels, np.array(labels, np.uint8)


def _refuse_short_batches(paths, rows, place, ending):
    """A batch cut at a record's end looks whole; its published length, or its peers', tells."""
    sizes = dict(zip(paths, rows, strict=True))
    if ending:
        everything = [place / f"{b}{ending}" for b in BATCHES["train"] + BATCHES["test"]]
        sizes |= {p: p.stat().st_size // (PIXELS + 1) for p in everything if p.is_file()}
    if CANONICAL_ROWS in sizes.values():
        for path in paths:
            if sizes[path] != CANONICAL_ROWS:
                raise DataError(
                    f"{path}: there are {sizes[path]:,} pictures instead of {CANONICAL_ROWS:,}: "
                    "the file is cut off. Get it again."
                )


def _refuse_labels(path, labels):
    if labels.max() >= len(CLASS_NAMES):
        row = int(np.argmax(labels >= len(CLASS_NAMES)))
        raise DataError(
            f"{path}: labels must be 0 to 9, got {labels[row]} in record {row}: no batch of "
            "CIFAR-10, or a damaged one. Get the file again."
        )


class _StoredType:
    """What a pickled dtype says: only "u1" and integers, which is all a batch needs."""

    def __init__(self, code, *flags):
        self.code = code.decode() if isinstance(code, bytes) else code

    def __setstate__(self, state):
        self.order = {b"<": "<", b">": ">", "<": "<", ">": ">"}.get(state[1], "=")


class _StoredArray:
    """What a pickled array says; `array` builds it after checking every claim."""

    def __setstate__(self, state):
        _, self.shape, self.type, self.fortran, self.values = state

    def array(self) -> np.ndarray:
        values = self.values
        if isinstance(values, str):
            values = values.encode("latin1")
        if not isinstance(self.type, _StoredType) or self.type.code not in ("u1", "i4", "i8"):
            raise DataError("an array of a batch must be uint8 or integers. Get the file again.")
        dtype = np.dtype(self.type.code).newbyteorder(getattr(self.type, "order", "="))
        if math.prod(self.shape) * dtype.itemsize != len(values):
            raise DataError(
                f"an array of a batch announces shape {self.shape} but holds {len(values):,} "
                "bytes. Get the file again."
            )
        order = "F" if self.fortran else "C"
        return np.frombuffer(values, dtype).reshape(self.shape, order=order)


def _reconstruct(kind, shape, code):
    return _StoredArray()


def _from_buffer(values, dtype, shape, order):
    array = _StoredArray()
    array.__setstate__((1, shape, dtype, order == "F", bytes(values)))
    return array


def _encode(text, encoding="latin1"):
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


class _ndarray:
    """Named by pickled arrays, never made."""


_ALLOWED = {("numpy", "ndarray"): _ndarray, ("numpy", "dtype"): _StoredType}
_ALLOWED[("_codecs", "encode")] = _encode
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[(f"{_core}.multiarray", "_reconstruct")] = _reconstruct
    _ALLOWED[(f"{_core}.numeric", "_frombuffer")] = _from_buffer


class _ArrayUnpickler(pickle._Unpickler):
    """The standard library's unpickler in Python, whose memo cannot be made to fill memory."""

    def find_class(self, module, name):
        try:
            return _ALLOWED[(module, name)]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the pickle asks for the forbidden name {module}.{name}"
            ) from None

    def get_extension(self, code):
        raise pickle.UnpicklingError(f"the pickle asks for the forbidden extension {code}")
