"""Pictures that lie in a column of a Parquet file as the bytes of a PNG, a JPEG or the like."""

__all__ = ["decode", "pictures_of"]

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxlin.core import DataError
from jaxlin.data import pictures
from jaxlin.data.columns import batches


def pictures_of(
    paths: Sequence[Path], column: str, *, image_size: tuple[int, int] | None, color: str | None
) -> tuple[np.ndarray, tuple[int, ...], list[str]]:
    """A column of encoded pictures as rows (N, D) of uint8, their shape, and notes.

    All become what the first is, unless `image_size` (H, W) says more; grey if all of them are,
    unless `color` says more.
    """
    if image_size is not None and (len(image_size) != 2 or min(image_size) < 1):
        raise ValueError(f"`image_size` must be (height, width), at least 1, got {image_size}.")
    sizes: dict[tuple[int, int], int] = {}
    count, grey = 0, True
    for name, content in _contents(paths, column):
        size, is_grey = _look(content, name)
        sizes[size] = sizes.get(size, 0) + 1
        count, grey = count + 1, grey and is_grey
    if not count:
        raise DataError(f"{paths[0]}: there are no rows. Give at least one example.")
    first = next(iter(sizes))
    grey = {None: grey, "grey": True, "rgb": False}[color]
    shape = (*(first if image_size is None else map(int, image_size)), *(() if grey else (3,)))
    rows = np.empty((count, int(np.prod(shape, dtype=object))), np.uint8)
    for row, (name, content) in zip(rows, _contents(paths, column), strict=True):
        picture = decode(content, name, shape)
        row[:] = (picture if picture.ndim == 2 else picture.transpose(2, 0, 1)).reshape(-1)
    notes = []
    if image_size is None and len(sizes) > 1:
        notes = [
            f"{paths[0].name}: {count - sizes[first]:,} of {count:,} pictures were resized to "
            f"{first[0]}x{first[1]}, the size of the first."
        ]
    return rows, shape, notes


class _Named(io.BytesIO):
    """Bytes that sentences call by a name."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name

    def __str__(self) -> str:
        return self.name


def decode(content: bytes, name: str, image_shape: tuple[int, ...] | None = None) -> np.ndarray:
    """An encoded picture as `pictures.read_picture` reads a file."""
    return pictures.read_picture(_Named(content, name), image_shape)


def _look(content: bytes, name: str) -> tuple[tuple[int, int], bool]:
    """(height, width) of an encoded picture as it is shown, and whether it is grey."""
    picture = decode(content, name)
    return picture.shape[:2], picture.ndim == 2


def _contents(paths: Sequence[Path], column: str) -> Iterator[tuple[str, bytes]]:
    """Each encoded picture of a column, with a name for sentences."""
    for path, first, batch in batches(paths, [column], rows=64):
        for offset, value in enumerate(batch.column(column)):
            entry, name = value.as_py(), f"{path} ({column}, row {first + offset})"
            content = entry.get("bytes") if isinstance(entry, dict) else entry
            if content is None:
                only = isinstance(entry, dict) and entry.get("path")
                what = "only the path of a picture" if only else "no picture"
                raise DataError(f"{name}: holds {what}. Save the bytes of every picture.")
            yield name, content
