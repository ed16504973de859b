"""The IDX format of MNIST and Fashion-MNIST, plain or gzipped, read strictly.

A file is two zero bytes, a type code, the number of axes, one big-endian 32-bit length for each
axis, then exactly the values these announce. The header is taken as a claim: its product is
computed with Python integers (NumPy's would wrap around), compared with what the file can hold,
and only then is memory asked for.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", section "FILE FORMATS".
"""

__all__ = ["count", "files", "find", "holds", "labeled", "load", "read", "read_pair"]

import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from io import BufferedReader
from pathlib import Path

import numpy as np

from jaxlin.core import DataError
from jaxlin.data import digits
from jaxlin.data.dataset import Dataset, flatten_images
from jaxlin.data.validate import build, check_labels

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
STEMS = {"train": "train", "test": "t10k"}
_AXES = {"images": "idx3", "labels": "idx1"}
MAX_RATIO = 200
"""How many times gzipped data may expand (pictures: 2 to 20 times; a bomb: 1,000 times)."""


def find(folder: Path, split: str, what: str, stems: Mapping[str, str] = STEMS) -> Path | None:
    """The file of `what` ("images" or "labels") in `folder` under any of its usual spellings.

    `stems` says what the files of each split begin with.
    """
    for dot in "-.":
        for ending in ("", ".gz"):
            path = folder / f"{stems[split]}-{what}{dot}{_AXES[what]}-ubyte{ending}"
            if path.is_file():
                return path
    return None


def files(folder: Path, stems: Mapping[str, str] = STEMS) -> dict[str, Path | None]:
    """The four files of a set, by what their names begin with."""
    return {f"{stems[s]}-{what}": find(folder, s, what, stems) for s in stems for what in _AXES}


def holds(folder: Path, stems: Mapping[str, str] = STEMS) -> bool:
    """Whether `folder` holds any of the four files, complete or not."""
    return any(files(folder, stems).values())


def load(folder: Path, split: str, *, name: str, class_names: tuple[str, ...] | None) -> Dataset:
    """One split of the four-file set in `folder`; `None` finds as many classes as it has labels.

    Raises:
      DataError: a file is missing, or anything about the two is not as the format says.
    """
    pixels, classes, file = read_pair(folder, split)
    if class_names is None:
        class_names = _class_names(folder)
    return labeled(pixels, classes, class_names=class_names, name=name, file=file, split=split)


def read_pair(
    folder: Path, split: str, stems: Mapping[str, str] = STEMS
) -> tuple[np.ndarray, np.ndarray, str]:
    """Pictures (N, H, W) uint8, labels (N,) and the file of the labels."""
    images, labels = (_expect(folder, split, what, stems) for what in _AXES)
    pixels, classes = read(images), read(labels)
    if pixels.ndim < 3 or classes.ndim != 1 or pixels.dtype != np.uint8:
        raise DataError(
            f"{images}: expected uint8 images with 3 axes and labels with 1, got {pixels.dtype} "
            f"{pixels.shape} and {classes.shape}. Put the original files there."
        )
    return pixels, classes, str(labels)


def labeled(
    pixels: np.ndarray,
    classes: np.ndarray,
    *,
    class_names: Sequence[str] | None,
    name: str,
    file: str,
    split: str,
) -> Dataset:
    """A checked `Dataset` of pictures (N, H, W[, C]) and their labels."""
    inputs, shape = flatten_images(pixels)
    return build(
        inputs,
        classes,
        class_names=class_names,
        image_shape=shape,
        name=name,
        file=file,
        training=split == "train",
        split=split,
        white=255,
    )


def count(folder: Path, split: str, stems: Mapping[str, str] = STEMS) -> int | None:
    """How many labels the header of a split's file announces; `None` without the file."""
    path = find(folder, split, "labels", stems)
    if path is None:
        return None
    try:
        with _opened(path) as file:
            return _header(file, path)[1][0]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, error) from None


def _class_names(folder: Path) -> tuple[str, ...]:
    """Ten digits, or as many numbers as the training labels need (26, 47 or 62, say)."""
    path = next(path for split in STEMS if (path := find(folder, split, "labels")))
    labels = read(path)
    if not (labels > 9).any():
        return digits.CLASS_NAMES
    return check_labels(labels, file=str(path), rows=len(labels))[1]


def read(path: Path) -> np.ndarray:
    """The array of one IDX file, in the machine's byte order.

    Raises:
      DataError: the magic number, a length, the size or the compression is wrong.
    """
    path = Path(path)
    size = path.stat().st_size
    zipped = path.suffix == ".gz"
    try:
        with _opened(path) as file:
            dtype, shape = _header(file, path)
            payload = math.prod(shape) * dtype.itemsize
            limit = size * MAX_RATIO if zipped else size
            if payload > limit:
                raise DataError(
                    f"{path}: the header announces {payload:,} bytes of values in shape {shape}, "
                    f"but the {size:,} bytes of the file cannot hold them. Get the file again."
                )
            values = file.read(payload)
            if len(values) == payload and file.read(1):
                raise DataError(
                    f"{path}: there is more data than the {payload:,} bytes that the header "
                    f"announces in shape {shape}. Get the file again."
                )
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, error) from None
    if len(values) != payload:
        raise DataError(
            f"{path}: the file is cut off: its header announces {payload:,} bytes of values in "
            f"shape {shape}, got {len(values):,}. Get the file again."
        )
    array = np.frombuffer(values, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: the compressed data are damaged or cut off ({error}). Get the file again."
    )


def _header(file: gzip.GzipFile | BufferedReader, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or not 1 <= magic[3] <= 4:
        raise DataError(
            f"{path}: not an IDX file: it must begin with 00 00, a type code and 1 to 4 axes, got "
            f"{magic.hex(' ') or 'nothing'}. Put the original file there."
        )
    lengths = file.read(4 * magic[3])
    if len(lengths) < 4 * magic[3]:
        raise DataError(f"{path}: the file is cut off within its header. Get the file again.")
    shape = tuple(int.from_bytes(lengths[at : at + 4], "big") for at in range(0, len(lengths), 4))
    if 0 in shape:
        raise DataError(f"{path}: the header announces no data, shape {shape}. Get the file again.")
    return np.dtype(TYPES[magic[2]]), shape


def _expect(folder: Path, split: str, what: str, stems: Mapping[str, str]) -> Path:
    path = find(folder, split, what, stems)
    if path is None:
        raise DataError(
            f"{folder}: there is no {stems[split]}-{what}-{_AXES[what]}-ubyte or .gz of it. Put "
            "the four files of the set there."
        )
    return path
