"""`.npz` archives: several arrays in one file, told by their names.

An archive may not hold Python objects (those are pickles, hence programs). A header is a claim,
compared with the size of the member before any memory is asked for; a compressed member must not
expand beyond all measure.
"""

__all__ = ["DAMAGED", "READER"]

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.arrays import read_header, refuse_size
from jaxlin.data.keys import Layout
from jaxlin.data.stores import Store, reader, refuse_expansion

_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError),
    *(RuntimeError, OverflowError),  # of which a version that zipfile does not know is one
)
"""What the standard library raises of a damaged archive."""


@contextmanager
def _opened(path: Path) -> Iterator[Store]:
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Check the path.") from None
    except DAMAGED as error:
        raise DataError(
            f"{path}: not an .npz archive, or cut off ({error}). Save it again."
        ) from None
    with archive:
        members = [info.filename for info in archive.infolist() if not info.is_dir()]
        layouts = {name.removesuffix(".npy"): _layout(archive, path, name) for name in members}
        if len(layouts) < len(members):
            raise DataError(f"{path}: two arrays have the same name. Save it again.")
        yield Store(layouts, lambda key: _member(archive, path, key))


def _layout(archive: zipfile.ZipFile, path: Path, name: str) -> Layout:
    try:
        with _entered(archive, path, name, name) as file:
            shape, _, dtype, _ = read_header(file, name)
    except DAMAGED:  # a DataError is a ValueError
        return Layout(None, None)  # an error only if somebody needs it
    return Layout(shape, dtype)


def _member(archive: zipfile.ZipFile, path: Path, key: str) -> np.ndarray:
    label = f"{path} ({key})"
    if f"{key}.npy" not in archive.namelist():
        raise DataError(f"{label}: is no array. Save it with `numpy.savez`.")
    info = archive.getinfo(f"{key}.npy")
    try:
        with _entered(archive, path, info.filename, label) as file:
            shape, fortran, dtype, offset = read_header(file, label)
            refuse_size(label, shape, dtype, info.file_size - offset)
            values = file.read(info.file_size - offset + 1)
    except DataError:
        raise
    except DAMAGED as error:
        raise DataError(f"{label}: the archive is damaged ({error}). Save it again.") from None
    refuse_size(label, shape, dtype, len(values))
    order: Literal["C", "F"] = "F" if fortran else "C"
    return np.frombuffer(values, dtype).reshape(shape, order=order)


def _entered(archive: zipfile.ZipFile, path: Path, name: str, label: str) -> IO[bytes]:
    """A member, open, unless it could fill the memory."""
    info = archive.getinfo(name)
    refuse_expansion(label, min(info.compress_size, path.stat().st_size), info.file_size)
    if info.compress_type not in _PACKED:
        raise DataError(
            f"{label}: is packed in a way that `numpy.savez` does not use. Save it anew."
        )
    return archive.open(info)


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
