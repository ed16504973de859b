"""`.npz` archives: several arrays in one file, told by their names.

An archive may not hold Python objects (those are pickles, hence programs). A header is a claim,
compared with the size of the member before any memory is asked for; a compressed member must not
expand beyond all measure.
"""

__all__ = ["READER"]

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.arrays import read_header, refuse_size
from jaxlin.data.keys import Layout
from jaxlin.data.stores import Store, reader, refuse_expansion

_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)


@contextmanager
def _opened(path: Path) -> Iterator[Store]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: not an .npz archive, or cut off ({error}). Save it again."
        ) from None
    with archive:
        members = [info.filename for info in archive.infolist() if not info.is_dir()]
        layouts = {name.removesuffix(".npy"): _layout(archive, name) for name in members}
        if len(layouts) < len(members):
            raise DataError(f"{path}: two arrays have the same name. Save it again.")
        yield Store(layouts, lambda key: _member(archive, path, key))


def _layout(archive: zipfile.ZipFile, name: str) -> Layout:
    try:
        with archive.open(name) as file:
            shape, _, dtype, _ = read_header(file, name)
    except (DataError, *_DAMAGED):
        return Layout(None, None)  # an error only if somebody needs it
    return Layout(shape, dtype)


def _member(archive: zipfile.ZipFile, path: Path, key: str) -> np.ndarray:
    label = f"{path} ({key})"
    if f"{key}.npy" not in archive.namelist():
        raise DataError(f"{label}: is no array. Save it with `numpy.savez`.")
    info = archive.getinfo(f"{key}.npy")
    refuse_expansion(label, min(info.compress_size, path.stat().st_size), info.file_size)
    try:
        with archive.open(info) as file:
            shape, fortran, dtype, offset = read_header(file, label)
            refuse_size(label, shape, dtype, info.file_size - offset)
            values = file.read(info.file_size - offset + 1)
    except _DAMAGED as error:
        raise DataError(f"{label}: the archive is damaged ({error}). Save it again.") from None
    refuse_size(label, shape, dtype, len(values))
    order = "F" if fortran else "C"
    return np.frombuffer(values, dtype).reshape(shape, order=order)


READER = reader(
    "an .npz archive",
    _opened,
    formats=(
        (
            "NAME.npz",
            "inputs and labels (or X and y, images, data, features, targets, ...); splits by names "
            "as X_train, y_test, val_images; class_names and image_shape if they are there; arr_0 "
            "and arr_1 if their shapes leave no doubt",
        ),
    ),
)
