"""HDF5 files: `.h5` and `.hdf5`, by h5py, which is an extra.

A group is a part of its arrays' names: `train/images` says what `train_images` says. Nothing
outside the file is read: neither external links nor external or virtual storage. Only HDF5's own
filters are used, no plugins that a file asks for. A shape is a claim, compared with the bytes that
are stored, and an array is read block by block into its own type.
"""

__all__ = ["READER"]

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.keys import Layout
from jaxlin.data.stores import Store, reader, refuse_expansion

# deflate, shuffle, fletcher32, szip, nbit, scaleoffset, and lzf, which comes with h5py
_FILTERS = {1, 2, 3, 4, 5, 6, 32000}
_BLOCK_BYTES = 16 << 20
_MOST_NAMES = 10_000


@contextmanager
def _opened(path: Path) -> Iterator[Store]:
    try:
        import h5py
    except ImportError:
        raise DataError(
            f"{path}: HDF5 files are read with h5py, which is not installed. Install it with "
            "`pip install 'jaxlin[formats]'`."
        ) from None
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(
            f"{path}: not an HDF5 file, or cut off ({_first_line(error)}). Save it again."
        ) from None
    with file:
        found = _walk(file, path)
        layouts = {name: _layout(dataset) for name, dataset in found.items()}
        yield Store(layouts, lambda name: _read(found[name], f"{path} ({name})"))


def _walk(file: Any, path: Path) -> dict:
    """All arrays of a file by their names; `None` for links, which are not followed."""
    import h5py

    found: dict = {}
    seen = set()

    def visit(group: Any, prefix: str) -> None:
        for name in group:
            if len(found) > _MOST_NAMES:
                raise DataError(
                    f"{path}: has more than {_MOST_NAMES:,} arrays. Save one array with a row for "
                    "each example."
                )
            whole = f"{prefix}{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                found[whole] = None
                continue
            item = group[name]
            if isinstance(item, h5py.Dataset):
                found[whole] = item
            elif isinstance(item, h5py.Group):
                address = h5py.h5o.get_info(item.id).addr
                if address not in seen:  # groups can hold one another
                    seen.add(address)
                    visit(item, f"{whole}/")

    try:
        visit(file, "")
    except (OSError, RuntimeError, KeyError, ValueError, UnicodeError) as error:
        raise DataError(
            f"{path}: the file is damaged ({_first_line(error)}). Save it again."
        ) from None
    return found


def _layout(dataset: Any) -> Layout:
    try:
        return Layout(dataset.shape, dataset.dtype)
    except (AttributeError, TypeError, ValueError, OSError):
        return Layout(None, None)  # an error only if somebody needs it


def _read(dataset: Any, label: str) -> np.ndarray:
    if dataset is None:
        raise DataError(
            f"{label}: is a link, and links are not followed. Copy what it means into the file."
        )
    try:
        shape, dtype = dataset.shape, dataset.dtype
        _refuse_kind(dataset, label)
        refuse_expansion(
            label, dataset.id.get_storage_size(), math.prod(shape) * max(1, dtype.itemsize)
        )
        return _text(dataset) if dtype.kind == "O" else _numbers(dataset)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, UnicodeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{label}: the array is damaged or of a kind that is not read ({_first_line(error)}). "
            "Save it again."
        ) from None


def _refuse_kind(dataset: Any, label: str) -> None:
    import h5py

    if dataset.shape is None:
        raise DataError(f"{label}: holds nothing. Save an array.")
    if dataset.is_virtual or dataset.external:
        raise DataError(
            f"{label}: its values lie in other files, which are not read. Save them in this one."
        )
    plan = dataset.id.get_create_plist()
    filters = {plan.get_filter(number)[0] for number in range(plan.get_nfilters())}
    if not filters <= _FILTERS:
        raise DataError(
            f"{label}: is compressed with a plugin (number {min(filters - _FILTERS)}), and plugins "
            "are not run. Save it with `compression='gzip'`, or without."
        )
    text = h5py.check_string_dtype(dataset.dtype) is not None
    if not text and dataset.dtype.kind not in "buifS":
        raise DataError(
            f"{label}: holds neither numbers nor text, but {dataset.dtype}. Save one array of "
            "numbers."
        )


def _numbers(dataset: Any) -> np.ndarray:
    out = np.empty(dataset.shape, dataset.dtype.newbyteorder("="))
    if out.ndim == 0 or out.size == 0:
        return out if out.size == 0 else np.asarray(dataset[()])
    rows = max(1, _BLOCK_BYTES // max(1, out.nbytes // len(out)))
    if dataset.chunks:  # a chunk is decompressed whole
        rows = max(1, rows // dataset.chunks[0]) * dataset.chunks[0]
    for start in range(0, len(out), rows):
        part = np.s_[start : start + rows]
        dataset.read_direct(out, part, part)
    return out


def _text(dataset: Any) -> np.ndarray:
    values = np.asarray(dataset.asstr()[()])
    return np.array(values.ravel().tolist(), dtype=str).reshape(values.shape)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip("'\". ")


READER = reader(
    "an HDF5 file",
    _opened,
    formats=(
        (
            "NAME.h5, .hdf5",
            "arrays named as in an .npz; a group is a part of the name, as in train/images (needs "
            "h5py: pip install 'jaxlin[formats]')",
        ),
    ),
)
