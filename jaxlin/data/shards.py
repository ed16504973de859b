"""The files of features: which ones make up a set, and where in them the rows lie.

A set is one file, or a series `NAME-00000-of-00008.npy` (or `.safetensors`) whose numbers must be
complete. Numbers begin at 0, or at 1 if all of them do; how many digits they have does not matter.

A `.npy` is one array (N, D). What NumPy saves of bfloat16 has the type `V2` there, and this is read
as bfloat16; `u2` stays what it says, integers. A `.safetensors` holds `features` and perhaps
`labels`. No byte of a header is believed before it agrees with the size of the file.
"""

__all__ = [
    "ENDINGS",
    "KINDS",
    "find_names",
    "find_series",
    "in_order",
    "open_shards",
    "read_tensor",
    "series_of",
]

import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from jaxlin.core import DataError
from jaxlin.data import arrays
from jaxlin.data.reading import Shard
from jaxlin.data.rows import RESIDENT_BYTES, FileRows

ENDINGS = (".npy", ".safetensors")
KINDS = tuple(
    np.dtype(kind) for kind in ("f2", ml_dtypes.bfloat16, "f4", "f8", "u1", "i1", "u2", "i2")
)
FEATURES, LABELS = "features", "labels"
_NUMBERED = re.compile(r"(?P<name>.+)-(?P<number>\d+)-of-(?P<count>\d+)\.(?:npy|safetensors)")
_SAFETENSORS = {
    **{"F16": "f2", "BF16": ml_dtypes.bfloat16, "F32": "f4", "F64": "f8", "BOOL": "?"},
    **{"U8": "u1", "I8": "i1", "U16": "u2", "I16": "i2", "U32": "u4", "I32": "i4"},
    **{"U64": "u8", "I64": "i8"},
}
_MOST_HEADER_BYTES = 100_000_000


class _Layout(NamedTuple):
    """What the header of a file says of the features in it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    fortran: bool


def find_names(folder: Path) -> list[str]:
    """The names of all series of a folder."""
    matches = (_NUMBERED.fullmatch(path.name) for path in folder.iterdir())
    return sorted({match["name"] for match in matches if match})


def find_series(folder: Path, name: str, *, whole: bool = True) -> list[Path]:
    """The complete series `NAME-00000-of-00008.*` of a folder in order, or nothing.

    With `whole=False` some of it may be missing: what is there, in order.

    Raises:
      DataError: a number is missing or there twice, or the files disagree on how many they are.
    """
    own = (path for path in sorted(folder.iterdir()) if series_of(path.name) == name)
    return in_order(list(own), whole=whole)


def series_of(name: str) -> str | None:
    """The name of the series that a file belongs to by its own, or `None`.

    >>> series_of("train-00003-of-00008.npy"), series_of("train.npy")
    ('train', None)
    """
    match = _NUMBERED.fullmatch(name)
    return match["name"] if match else None


def in_order(
    paths: Sequence[Path],
    *,
    whole: bool = True,
    where: str = "",
    numbered: re.Pattern = _NUMBERED,
) -> list[Path]:
    """Files of one series by their numbers, which must be complete unless `whole` is false.

    `where` says in whose words files are missing; by default their folder. `numbered` has the
    groups "name", "number" and "count" of a file's name.
    """
    found: dict[int, Path] = {}
    count, name = 0, ""
    for path in paths:
        match = numbered.fullmatch(path.name)
        assert match is not None, path  # they were chosen by it
        number, own = int(match["number"]), int(match["count"])
        first = next(iter(found.values()), None)
        if first is not None and own != count:
            raise DataError(
                f"{path}: belongs to a series of {own} files, and {first.name} to one of {count}. "
                "Keep the files of one series only."
            )
        if number in found:
            raise DataError(
                f"{path}: is number {number} of the series, and so is {found[number].name}. "
                "Remove one of the two."
            )
        found[number], count, name = path, own, match["name"]
    if not found or not whole:
        return [found[number] for number in sorted(found)]
    base = 1 if count in found and 0 not in found else 0
    missing = [n for n in range(base, base + count) if n not in found]
    beyond = [n for n in found if not base <= n < base + count]
    if beyond:
        raise DataError(
            f"{found[beyond[0]]}: its number is beyond the {count} files of the series, which "
            f"begins at {base}. Rename or remove it."
        )
    if missing:
        numbers = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        series = f"{name}-*-of-{count}"
        raise DataError(
            f"{where or paths[0].parent}: of the {count} files of {series} "
            f"number {numbers} {'is' if len(missing) == 1 else 'are'} missing. Add what is missing."
        )
    return [found[number] for number in sorted(found)]


def open_shards(paths: Sequence[Path], *, resident_bytes: int = RESIDENT_BYTES) -> FileRows:
    """The rows of files that fit together; only their headers are read.

    Raises:
      DataError: a header lies, a file is empty, is not of the width or dtype of the first, or
        holds something else than rows of numbers of `KINDS`.
    """
    shards, first = [], _layout(paths[0])
    for path in paths:
        status = path.stat()
        layout = first if path == paths[0] else _layout(path)
        if len(layout.shape) != 2 or 0 in layout.shape:
            raise DataError(
                f"{path}: features must have two axes (examples, features) and at least one of "
                f"each, got shape {layout.shape}. Give one row to each example, and leave out "
                "files without any."
            )
        if layout.dtype.newbyteorder("=") not in KINDS and layout.dtype not in KINDS:
            known = ", ".join(str(kind) for kind in KINDS)
            raise DataError(
                f"{path}: features of type {layout.dtype} are not read. Save one of {known}."
            )
        if layout.fortran and min(layout.shape) > 1:
            raise DataError(
                f"{path}: lies in Fortran order, in which a row is scattered over the whole file. "
                "Save it again with `numpy.save(path, numpy.ascontiguousarray(features))`."
            )
        if layout.shape[1] != first.shape[1]:
            raise DataError(
                f"{path}: has {layout.shape[1]} features a row, and {paths[0].name} has "
                f"{first.shape[1]}. Give all files of a series the same width."
            )
        if layout.dtype != first.dtype:
            raise DataError(
                f"{path}: holds {layout.dtype}, and {paths[0].name} {first.dtype}. Save all files "
                "of a series in one type."
            )
        shards.append(
            Shard(path, layout.shape[0], layout.offset, status.st_size, status.st_mtime_ns)
        )
    return FileRows(shards, first.shape[1], first.dtype, resident_bytes=resident_bytes)


def _tensors(path: Path) -> dict:
    """The tensors of a safetensors file (name: dtype, shape, offset) and its metadata.

    Raises:
      DataError: the library that defines the format does not accept the file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError(f"{path}: no such file. Check the path.")
    try:
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > min(path.stat().st_size, _MOST_HEADER_BYTES):
                raise SafetensorError("the header is longer than the file")
            header = json.loads(file.read(length))
        with safe_open(path, framework="numpy"):  # sees holes, overlaps and a wrong length
            pass
    except (SafetensorError, struct.error, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not a readable safetensors file ({error}). Save it again."
        ) from None
    return {
        name: (entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    } | {"__metadata__": header.get("__metadata__") or {}}


def read_tensor(path: Path, name: str) -> np.ndarray | None:
    """One tensor of a safetensors file, read; `None` if it has none of this name."""
    found = _tensors(path).get(name)
    if found is None:
        return None
    kind, shape, offset = found
    dtype = _dtype(path, kind)
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(int(np.prod(shape, dtype=object)) * dtype.itemsize)
    return np.frombuffer(content, dtype).reshape(shape)


def _layout(path: Path) -> _Layout:
    if not path.is_file():
        raise DataError(f"{path}: no such file. Check the path.")
    if path.suffix == ".npy":
        return _Layout(*arrays.read_layout(path))
    tensors = _tensors(path)
    if FEATURES not in tensors:
        there = ", ".join(name for name in tensors if name != "__metadata__") or "nothing"
        raise DataError(
            f"{path}: has no tensor `{FEATURES}`, got {there}. Save the rows under that name."
        )
    kind, shape, offset = tensors[FEATURES]
    return _Layout(shape, _dtype(path, kind), offset, False)


def _dtype(path: Path, kind: str) -> np.dtype:
    if kind not in _SAFETENSORS:
        raise DataError(f"{path}: tensors of type {kind} are not read. Save another type.")
    return np.dtype(_SAFETENSORS[kind])
