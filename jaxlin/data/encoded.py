"""Pictures that lie in a column of a Parquet file as the bytes of a PNG, a JPEG or the like."""

__all__ = ["pictures_of"]

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.columns import batches, column_names
from jaxlin.data.picture_files import background_color, decode, is_color, quiet
from jaxlin.data.picture_rows import Rows, note_of, size_of
from jaxlin.data.source import Reading


def pictures_of(
    paths: Sequence[Path], column: str, reading: Reading, *, others: Sequence[Path] = ()
) -> Rows:
    """A column of encoded pictures as rows (N, D) of uint8, as `picture_rows.read_rows`.

    All become what the first is, unless `image_size` (H, W) says more; grey if all of them are,
    and those of the files `others` of the same set, unless `color` says more.
    """
    size, color, background = size_of(reading), reading.color, background_color(reading.background)
    others = [path for path in others if column in column_names(path)]
    with quiet():
        count = 0
        for content in _contents(paths, column):
            if size is None:
                first = decode(content).pixels
                size = (first.shape[0], first.shape[1])
            if color is None and is_color(content, background):
                color = "rgb"
            count += 1
        if size is None:
            raise DataError(f"{paths[0]}: there are no rows. Give at least one example.")
        if color is None:
            colored = any(is_color(content, background) for content in _contents(others, column))
            color = "rgb" if colored else "grey"
        shape = (*size, 3) if color == "rgb" else size
        rows = np.empty((count, int(np.prod(shape, dtype=object))), np.uint8)
        counts: Counter = Counter()
        for row, content in zip(rows, _contents(paths, column), strict=True):
            picture = decode(content, size=size, color=color, background=background)
            pixels = picture.pixels
            row[:] = (pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)).reshape(-1)
            counts.update(
                k for k in ("transparent", "several", "deep", "resized") if getattr(picture, k)
            )
            counts["color" if picture.color else "grey"] += 1
    return Rows(rows, shape, note_of(paths[0].name, count, counts, shape, reading))


class _Named(io.BytesIO):
    """Bytes that sentences call by a name."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name

    def __str__(self) -> str:
        return self.name


def _contents(paths: Sequence[Path], column: str) -> Iterator[_Named]:
    """Each encoded picture of a column."""
    for path, first, batch in batches(paths, [column], rows=64):
        for offset, value in enumerate(batch.column(column)):
            entry, name = value.as_py(), f"{path} ({column}, row {first + offset})"
            content = entry.get("bytes") if isinstance(entry, dict) else entry
            if content is None:
                only = isinstance(entry, dict) and entry.get("path")
                what = "only the path of a picture" if only else "no picture"
                raise DataError(f"{name}: holds {what}. Save the bytes of every picture.")
            yield _Named(content, name)
