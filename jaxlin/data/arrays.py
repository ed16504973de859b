"""Arrays of your own: the `.npy` files that are not rows in order.

None may hold Python objects (those are pickles, hence programs). A header is a claim, compared
with the size of the file before any memory is asked for.

`jaxlin.data.features` reads `.npy` files with two axes. Pictures, and arrays in Fortran order,
are mapped here. A map reads pages when they are used: if the file shrinks meanwhile, the system
kills the process. Write new data to a new file.
"""

__all__ = [
    "READER",
    "find_labels",
    "read_header",
    "read_layout",
    "read_npy",
    "refuse_size",
    "rows_of",
]

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal

import ml_dtypes
import numpy as np

from jaxlin.core import DataError
from jaxlin.data.dataset import Dataset, Unlabeled, flatten_images, rows_of_images
from jaxlin.data.source import Reader, Reading
from jaxlin.data.validate import build, check_labels, without_labels


def _load(path: Path, split: str, reading: Reading) -> Dataset:
    """The rows of `path`, memory-mapped, with the labels of another `.npy` file.

    Without `labels` the file `NAME_labels.npy` or else `labels.npy` beside `NAME.npy` is taken.
    """
    labels = find_labels(path) if reading.labels is None else reading.labels
    inputs, image_shape = rows_of(read_npy(path, mapped=True), reading.image_shape, path)
    classes = read_npy(labels)
    if len(classes) != len(inputs):
        raise DataError(
            f"{labels}: there are {len(classes)} labels for the {len(inputs)} inputs of {path}. "
            "Give every example exactly one label, in the same order."
        )
    classes, names = check_labels(
        classes, file=str(labels), rows=len(inputs), class_names=reading.class_names
    )
    return build(
        inputs,
        classes,
        class_names=names,
        image_shape=image_shape,
        name=path.name,
        file=str(path),
        training=reading.class_names is None,
        split=split,
    )


def _inputs(path: Path, reading: Reading) -> list[Unlabeled]:
    inputs, image_shape = rows_of(read_npy(path, mapped=True), reading.image_shape, path)
    return [without_labels(inputs, image_shape, path.name, str(path), "all")]


def find_labels(path: Path) -> Path:
    """The file of labels beside `path`."""
    own = path.stem.replace("features", "labels") if "features" in path.stem else path.stem
    names = (f"{path.stem}_labels.npy", f"{path.stem}.labels.npy", f"{own}.npy", "labels.npy")
    choices = [path.with_name(name) for name in names]
    for choice in choices:
        if choice.is_file() and choice != path:
            return choice
    raise DataError(
        f"{path}: there are no labels beside it ({choices[0].name} or {choices[-1].name}). "
        "Name their file with `labels`."
    )


def read_layout(path: Path) -> tuple[tuple[int, ...], np.dtype, int, bool]:
    """What the header of an `.npy` says, if the size of the file agrees.

    Returns:
      Shape, dtype, the byte at which the numbers begin, whether they lie in Fortran order.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file. Check the path.")
    with path.open("rb") as file:
        shape, fortran, dtype, offset = read_header(file, path)
    refuse_size(path, shape, dtype, path.stat().st_size - offset)
    return shape, dtype, offset, fortran


def read_npy(path: Path, *, mapped: bool = False) -> np.ndarray:
    """The array of an `.npy` file, read or (`mapped`) memory-mapped read-only."""
    shape, dtype, offset, fortran = read_layout(path)
    order: Literal["C", "F"] = "F" if fortran else "C"
    if not mapped or 0 in shape or not shape:
        values = np.fromfile(path, dtype, offset=offset)
        return values.reshape(shape, order=order)
    return np.memmap(path, dtype, mode="r", offset=offset, shape=shape, order=order)


def read_header(file: IO[bytes], path: Path | str) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, Fortran order, dtype and length of the header of an open `.npy` file or member."""
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in read:
            raise ValueError(f"version {version} of the format")
        shape, fortran, dtype = read[version](file)
    except (ValueError, SyntaxError, TypeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise DataError(f"{path}: not a readable .npy header ({reason}). Save it again.") from None
    if dtype == np.dtype("V2"):  # what `numpy.save` makes of bfloat16
        dtype = np.dtype(ml_dtypes.bfloat16)
    elif dtype.hasobject or dtype.kind == "V":
        raise DataError(
            f"{path}: the array holds Python objects or records ({dtype}), which are never read. "
            "Save plain numbers, for example with `.astype('float32')`."
        )
    return shape, fortran, dtype, file.tell()


def refuse_size(path: Path | str, shape: tuple[int, ...], dtype: np.dtype, available: int) -> None:
    expected = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or expected != available:
        raise DataError(
            f"{path}: the header announces shape {shape} of {dtype}, {expected:,} bytes, but "
            f"there are {available:,}: the file is cut off or damaged. Save it again."
        )


def rows_of(
    inputs: np.ndarray, image_shape: Sequence[int] | None, path: Path
) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """Rows (N, D) in the one flatten order, and the shape of a picture if they are pictures.

    Args:
      inputs: two or more axes, examples first.
      image_shape: the shape of a picture before it became a row, if somebody gave it.
      path: the file, for a sentence.
    """
    if inputs.ndim < 2:
        raise DataError(
            f"{path}: the inputs must have two or more axes (examples first), got shape "
            f"{inputs.shape}. Give one row to each example."
        )
    if 0 in inputs.shape:
        raise DataError(
            f"{path}: the inputs are empty, shape {inputs.shape}. Give at least one example with "
            "at least one feature."
        )
    if image_shape is None:
        return flatten_images(inputs)
    if inputs.ndim > 2:
        raise DataError(
            f"{path}: the inputs have shape {inputs.shape}, so that `image_shape` has nothing to "
            "say: it is for rows. Leave it out."
        )
    try:
        return rows_of_images(inputs, tuple(np.ravel(image_shape).tolist()))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


READER = Reader(
    "an .npy array",
    frozenset({"labels", "image_shape"}),
    lambda path, reading: ("all",),
    _load,
    _inputs,
    (
        (
            "NAME.npy",
            "pictures (N, H, W), (N, H, W, C) or (N, C, H, W), or rows with image_shape; labels in "
            "NAME_labels.npy or labels.npy",
        ),
    ),
)
