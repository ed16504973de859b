"""`.npz` archives: several arrays in one file, told by their names.

An archive may not hold Python objects (those are pickles, hence programs). A header is a claim,
compared with the size of the member before any memory is asked for; a compressed member must not
expand beyond all measure.
"""

__all__ = ["READER"]

import zipfile
import zlib
from pathlib import Path

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.arrays import read_header, refuse_size, rows_of
from jaxlin.data.dataset import Dataset, Unlabeled
from jaxlin.data.source import Reader, Reading
from jaxlin.data.validate import build, check_labels, without_labels

KEYS = {  # first spelling first
    "train": (("inputs", "X", "x_train"), ("labels", "y", "y_train")),
    "test": (("test_inputs", "X_test", "x_test"), ("test_labels", "y_test")),
}
MAX_RATIO = 200
_RATIO_MATTERS_ABOVE = 16 << 20


def _load(path: Path, split: str, reading: Reading) -> Dataset:
    part = "train" if split == "all" else split
    class_names = reading.class_names
    with _open(path) as archive:
        own_names = _optional(archive, path, "class_names")
        training = class_names is None
        if training and own_names is not None:
            class_names = own_names.ravel().tolist()
        if part != "train" and class_names is None:  # the classes are the training set's
            labels = _member(archive, path, _key(archive, path, "train", 1))
            _, class_names = check_labels(labels, file=str(path), rows=len(labels))
        inputs, image_shape = _rows(archive, path, part, reading)
        labels = _member(archive, path, _key(archive, path, part, 1))
    return build(
        inputs,
        labels,
        class_names=class_names,
        image_shape=image_shape,
        name=path.name,
        file=str(path),
        training=training and part == "train",
        split=split,
    )


def _rows(archive, path: Path, part: str, reading: Reading):
    shape = reading.image_shape
    if shape is None:
        shape = _optional(archive, path, "image_shape")
    return rows_of(_member(archive, path, _key(archive, path, part, 0)), shape, path)


def _splits(path: Path, reading: Reading) -> tuple[str, ...]:
    """Either half of a split counts, so that one without the other is an error and not nothing."""
    with _open(path) as archive:
        names = archive.namelist()
        test = any(f"{key}.npy" in names for keys in KEYS["test"] for key in keys)
    return ("train", "test") if test else ("all",)


def _inputs(path: Path, reading: Reading) -> list[Unlabeled]:
    found = []
    with _open(path) as archive:
        for split in _splits(path, reading):
            part = "train" if split == "all" else split
            inputs, image_shape = _rows(archive, path, part, reading)
            found.append(without_labels(inputs, image_shape, path.name, str(path), split))
    return found


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
            shape, fortran, dtype, offset = read_header(file, label)
            refuse_size(label, shape, dtype, info.file_size - offset)
            values = file.read(info.file_size - offset + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{label}: the archive is damaged ({error}). Save it again.") from None
    refuse_size(label, shape, dtype, len(values))
    order = "F" if fortran else "C"
    return np.frombuffer(values, dtype).reshape(shape, order=order)


READER = Reader(
    "an .npz archive",
    frozenset({"inputs_key", "labels_key", "image_shape"}),
    _splits,
    _load,
    _inputs,
)
