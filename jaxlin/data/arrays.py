"""Arrays of your own: `.npz` archives, and those `.npy` files that are not rows in order.

Neither may hold Python objects (those are pickles, hence programs). A header is a claim, compared
with the size of the file before any memory is asked for; a compressed member must not
expand beyond all measure.

`jaxlin.data.features` reads `.npy` files with two axes. Pictures, and arrays in Fortran order,
are mapped here. A map reads pages when they are used: if the file shrinks meanwhile, the system
kills the process. Write new data to a new file.
"""

__all__ = [
    "find_labels",
    "has_test",
    "load_npy",
    "load_npz",
    "read_inputs",
    "read_layout",
    "read_npy",
]

import math
import zipfile
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np

from jaxlin.core import DataError
from jaxlin.data.dataset import Dataset, flatten_images
from jaxlin.data.validate import build, check_labels

KEYS = {  # first spelling first
    "train": (("inputs", "X", "x_train"), ("labels", "y", "y_train")),
    "test": (("test_inputs", "X_test", "x_test"), ("test_labels", "y_test")),
}
MAX_RATIO = 200
_RATIO_MATTERS_ABOVE = 16 << 20


def load_npz(path: Path, split: str, *, class_names=None) -> Dataset:
    """One split of an `.npz` archive.

    The keys are `inputs` (or `X`) and `labels` (or `y`); `test_inputs` and `test_labels`, if
    there, are the test split; `class_names` and `image_shape` are optional. The spelling
    `x_train, y_train, x_test, y_test` is read as well.

    Raises:
      DataError: a key is missing, an array lies, expands too far, or holds objects.
    """
    with _open(path) as archive:
        own_names = _optional(archive, path, "class_names")
        training = class_names is None
        if training and own_names is not None:
            class_names = own_names.ravel().tolist()
        if split == "test" and class_names is None:  # the classes are the training set's
            labels = _member(archive, path, _key(archive, path, "train", 1))
            _, class_names = check_labels(labels, file=str(path), rows=len(labels))
        keys = [_key(archive, path, split, part) for part in (0, 1)]
        inputs, labels = (_member(archive, path, key) for key in keys)
        shape = _optional(archive, path, "image_shape")
    inputs, image_shape = _rows(inputs, path)
    if shape is not None:
        image_shape = _image_shape(shape, inputs, path)
    return build(
        inputs,
        labels,
        class_names=class_names,
        image_shape=image_shape,
        name=path.name,
        file=str(path),
        training=training and split == "train",
    )


def has_test(path: Path) -> bool:
    """Whether an `.npz` archive names a test split (either half of it counts)."""
    with _open(path) as archive:
        return any(f"{key}.npy" in archive.namelist() for keys in KEYS["test"] for key in keys)


def load_npy(path: Path, *, labels: Path | None = None, class_names=None) -> Dataset:
    """The rows of `path`, memory-mapped, with the labels of another `.npy` file.

    Without `labels` the file `NAME_labels.npy` or else `labels.npy` beside `NAME.npy` is taken.
    """
    labels = find_labels(path) if labels is None else Path(labels)
    inputs, image_shape = _rows(read_npy(path, mapped=True), path)
    classes = read_npy(labels)
    if len(classes) != len(inputs):
        raise DataError(
            f"{labels}: there are {len(classes)} labels for the {len(inputs)} inputs of {path}. "
            "Give every example exactly one label, in the same order."
        )
    classes, names = check_labels(
        classes, file=str(labels), rows=len(inputs), class_names=class_names
    )
    return build(
        inputs,
        classes,
        class_names=names,
        image_shape=image_shape,
        name=path.name,
        file=str(path),
        training=class_names is None,
    )


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


def read_inputs(path: Path) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """Unlabeled rows (N, D) of an `.npy` or `.npz` file, and their image shape if it shows."""
    if path.suffix == ".npy":
        return _rows(read_npy(path, mapped=True), path)
    with _open(path) as archive:
        return _rows(_member(archive, path, _key(archive, path, "train", 0)), path)


def read_layout(path: Path) -> tuple[tuple[int, ...], np.dtype, int, bool]:
    """What the header of an `.npy` says, if the size of the file agrees.

    Returns:
      Shape, dtype, the byte at which the numbers begin, whether they lie in Fortran order.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file. Check the path.")
    with path.open("rb") as file:
        shape, fortran, dtype, offset = _header(file, path)
    _refuse_size(path, shape, dtype, path.stat().st_size - offset)
    return shape, dtype, offset, fortran


def read_npy(path: Path, *, mapped: bool = False) -> np.ndarray:
    """The array of an `.npy` file, read or (`mapped`) memory-mapped read-only."""
    shape, dtype, offset, fortran = read_layout(path)
    order = "F" if fortran else "C"
    if not mapped or 0 in shape or not shape:
        values = np.fromfile(path, dtype, offset=offset)
        return values.reshape(shape, order=order)
    return np.memmap(path, dtype, mode="r", offset=offset, shape=shape, order=order)


def _header(file, path: Path):
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


def _refuse_size(path, shape, dtype, available: int):
    expected = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or expected != available:
        raise DataError(
            f"{path}: the header announces shape {shape} of {dtype}, {expected:,} bytes, but "
            f"there are {available:,}: the file is cut off or damaged. Save it again."
        )


def _rows(inputs: np.ndarray, path: Path):
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
    return flatten_images(inputs)


def _image_shape(shape, inputs, path):
    shape = tuple(int(length) for length in np.ravel(shape))
    if len(shape) not in (2, 3) or math.prod(shape) != inputs.shape[1] or min(shape) < 1:
        raise DataError(
            f"{path}: image_shape must be (H, W) or (H, W, C) with a product of "
            f"{inputs.shape[1]}, the number of features, got {shape}. Correct or omit it."
        )
    return shape[:2] if shape[2:] == (1,) else shape


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: not an .npz archive, or cut off ({error}). Save it again."
        ) from None


def _key(archive, path, split, part) -> str:
    for key in KEYS[split][part]:
        if f"{key}.npy" in archive.namelist():
            return key
    there = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:10]) or "nothing"
    raise DataError(
        f"{path}: the archive needs the array `{KEYS[split][part][0]}`, got {there}. "
        "Save it with `numpy.savez(path, inputs=..., labels=...)`."
    )


def _optional(archive, path, key):
    return _member(archive, path, key) if f"{key}.npy" in archive.namelist() else None


def _member(archive: zipfile.ZipFile, path: Path, key: str) -> np.ndarray:
    info, label = archive.getinfo(f"{key}.npy"), f"{path} ({key})"
    packed = min(info.compress_size, path.stat().st_size)
    if info.file_size > max(_RATIO_MATTERS_ABOVE, packed * MAX_RATIO):
        raise DataError(
            f"{label}: {packed:,} compressed bytes claim to expand to {info.file_size:,}, which no "
            "real data do. Save it again with `numpy.savez`."
        )
    try:
        with archive.open(info) as file:
            shape, fortran, dtype, offset = _header(file, label)
            _refuse_size(label, shape, dtype, info.file_size - offset)
            values = file.read(info.file_size - offset + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{label}: the archive is damaged ({error}). Save it again.") from None
    _refuse_size(label, shape, dtype, len(values))
    order = "F" if fortran else "C"
    return np.frombuffer(values, dtype).reshape(shape, order=order)
