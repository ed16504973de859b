"""Rows that stay in their files: read when they are asked for, and only those.

A `FileRows` is what the solvers and the training loop call a source: it has `shape`, `dtype` and
rows by number, by slice or by an array of numbers. Everything goes through `pread` into buffers of
one's own, never through a memory map: what was read is all that counts as resident, and a file
that shrinks meanwhile ends in a sentence rather than in the death of the process.

Every read compares the file's size and time of change with those when it was opened, and every
number that arrives is seen to be finite, at about the speed of memory.
"""

__all__ = [
    "RESIDENT_BYTES",
    "FileRows",
    "ReadRows",
    "RowView",
    "all_finite",
    "empty_rows",
    "extremes",
    "fill",
    "from_map",
    "materialize",
    "positions",
    "take",
]

import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from jaxlin.core import DataError
from jaxlin.data.reading import Reader, Shard, open_reader, read_bytes
from jaxlin.transfer import aligned

RESIDENT_BYTES = 4 << 30
"""Inputs up to this size are held in memory unless somebody says otherwise."""
PIECE_BYTES = 4 << 20
"""The most that one read asks for."""
GAP_BYTES = 64 << 10
"""Rows nearer than this are read together with what lies between them."""
READERS = 8
"""Reads at once: they keep a disk busy while others of them are looked through."""
_EXPONENT = {  # dtype: unsigned integer of its size, bits of the exponent
    np.dtype(np.float16): (np.uint16, 0x7C00),
    np.dtype(ml_dtypes.bfloat16): (np.uint16, 0x7F80),
    np.dtype(np.float32): (np.uint32, 0x7F800000),
    np.dtype(np.float64): (np.uint64, 0x7FF0000000000000),
}


class ReadRows:
    """Rows (N, D) that are read when they are asked for.

    A subclass has `shape`, `dtype` and `resident_bytes` (rows that take more are not to be held in
    memory), and `read_into(out, segments)`, or says itself what `[...]` reads.
    """

    ndim = 2
    shape: tuple[int, int]
    dtype: Any
    resident_bytes: int

    def read_into(self, out: np.ndarray, segments: Iterable[range | np.ndarray]) -> None:
        """Write the rows of every segment into `out`, one after another."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """The rows of a number (D,), of a slice, of an array of numbers or of a mask (n, D)."""
        if isinstance(rows, (int, np.integer)):
            return self[positions([rows], len(self))][0]
        chosen = positions(rows, len(self))
        out = empty_rows(len(chosen), self)
        self.read_into(out, [chosen])
        return out


class FileRows(ReadRows):
    """Rows (N, D) in one or several files, in the order of the files; see `jaxlin.data.rows`.

    Args:
      shards: the files, all of one width.
      width: D.
      dtype: of the numbers as they are stored; those of the other byte order are turned.
      resident_bytes: rows that take more than this are not to be held in memory.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        width: int,
        dtype: DTypeLike,
        *,
        resident_bytes: int = RESIDENT_BYTES,
    ):
        self.shards, self._stored = tuple(shards), np.dtype(dtype)
        self.dtype = self._stored.newbyteorder("=") if self._stored.kind != "V" else self._stored
        self._ends = np.cumsum([shard.rows for shard in self.shards])
        self.shape = (int(self._ends[-1]), int(width))
        self.resident_bytes = resident_bytes

    def __repr__(self) -> str:
        files = f"{len(self.shards)} files" if len(self.shards) > 1 else str(self.shards[0].path)
        return f"FileRows(shape={self.shape}, dtype={self.dtype}, {files})"

    def read_into(self, out: np.ndarray, segments: Iterable[range | np.ndarray]) -> None:
        """Read the rows of every segment, a `range` of step 1 or an array, one after another."""
        pieces, start = [], 0
        for segment in segments:
            pieces += _pieces(self, segment, start)
            start += len(segment)
        readers, under_way = {}, []
        try:
            for number in {piece.shard for piece in pieces}:
                readers[number] = open_reader(self.shards[number])
            if len(pieces) == 1:
                _read(self, pieces[0], readers[pieces[0].shard], out)
                return
            under_way = [
                _threads().submit(_read, self, piece, readers[piece.shard], out) for piece in pieces
            ]
            for read in under_way:
                read.result()
        finally:
            for read in under_way:
                read.cancel()
            wait(under_way)  # nobody may still read from a file that is closed
            for reader in readers.values():
                reader.close()

    def locate(self, row: int) -> tuple[Shard, int]:
        """The file that holds a row, and the row's number in it."""
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self.shards[number], row - int(self._ends[number]) + self.shards[number].rows


class RowView(ReadRows):
    """Some rows of a source, in an order of their own: nothing is read until it is asked for."""

    def __init__(self, source: Any, rows: np.ndarray):
        if isinstance(source, RowView):
            source, rows = source.source, source.rows[rows]
        self.source: Any = source
        self.rows = np.asarray(rows)
        self.dtype, self.shape = source.dtype, (len(self.rows), source.shape[1])
        self.resident_bytes = getattr(source, "resident_bytes", RESIDENT_BYTES)

    def __repr__(self) -> str:
        return f"RowView(shape={self.shape} of {self.source!r})"

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.asarray(self.source[self.rows[rows]])

    def read_into(self, out: np.ndarray, segments: Iterable[range | np.ndarray]) -> None:
        """As `FileRows.read_into`."""
        chosen = [
            self.rows[s.start : s.stop] if isinstance(s, range) else self.rows[s] for s in segments
        ]
        fill(self.source, out, chosen)


def take(source: Any, rows: np.ndarray) -> Any:
    """The rows with these numbers: a copy of an array's, a view of a source's or of a large map's.

    >>> take(np.arange(6).reshape(3, 2), np.array([2, 0])).tolist()
    [[4, 5], [0, 1]]
    """
    if isinstance(source, np.ndarray) and not (
        isinstance(source, np.memmap) and source.nbytes > RESIDENT_BYTES
    ):
        return source[rows]
    return RowView(source, rows)


def materialize(source: Any, memory: int) -> Any:
    """The rows as an array in memory if they take at most `memory` bytes, else the source."""
    if isinstance(source, (FileRows, RowView)):
        source.resident_bytes = memory
        return source[:] if source.nbytes <= memory else source
    return source


def from_map(mapped: np.memmap) -> Any:
    """The file behind a memory map (N, D), or behind a run of its rows, read instead of mapped.

    What cannot be read so, a strided view or a map without a name, is handed back as it is.
    """
    source: Any = mapped
    name, memory = mapped.filename, source._mmap
    if name is None or memory is None or mapped.ndim != 2 or not mapped.flags.c_contiguous:
        return mapped
    # The attribute `offset` of a view is that of the whole map: addresses tell where it begins.
    begins = mapped.offset - mapped.offset % mmap.ALLOCATIONGRANULARITY
    inside = mapped.ctypes.data - np.frombuffer(memory, np.uint8).ctypes.data
    status = os.stat(name)
    shard = Shard(Path(name), len(mapped), begins + inside, status.st_size, status.st_mtime_ns)
    return FileRows([shard], mapped.shape[1], mapped.dtype)


def fill(source: Any, out: np.ndarray, segments: Iterable[range | np.ndarray]) -> None:
    """Write the rows of the segments of any source into `out`, one after another.

    Args:
      source: anything with row slices and rows by arrays of numbers.
      out: (n, D), n the length of all segments; of the source's dtype.
      segments: `range`s of step 1, or arrays of row numbers.
    """
    if hasattr(source, "read_into"):
        source.read_into(out, segments)
        return
    start = 0
    for segment in segments:
        rows: slice | np.ndarray = (
            slice(segment.start, segment.stop) if isinstance(segment, range) else segment
        )
        out[start : start + len(segment)] = source[rows]
        start += len(segment)


def empty_rows(count: int, source: Any) -> np.ndarray:
    """Memory for `count` rows of a source, aligned so that JAX can take it over as it is."""
    return aligned((count, source.shape[1]), source.dtype)


class _Piece(NamedTuple):
    """One read: rows [start, stop) of a shard; `chosen` of them (all for `None`) go to `place`."""

    shard: int
    start: int
    stop: int
    chosen: np.ndarray | None
    place: slice | np.ndarray


def positions(rows: Any, size: int) -> range | np.ndarray:
    """Row numbers in [0, size): a `range` for a plain slice, else an int64 array."""
    if isinstance(rows, slice):
        found = range(*rows.indices(size))
        return found if found.step == 1 else np.arange(found.start, found.stop, found.step)
    rows = np.asarray(rows)
    if rows.dtype == bool:
        if rows.shape != (size,):
            raise IndexError(f"The mask must have shape ({size},), got {rows.shape}.")
        return np.flatnonzero(rows)
    if rows.size == 0:
        return np.zeros(0, np.int64)
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        raise IndexError(
            f"Rows are chosen by a number, a slice, or a one-dimensional array of integers, "
            f"got {rows.dtype} of shape {rows.shape}."
        )
    low, high = int(rows.min()), int(rows.max())
    if low < -size or high >= size:
        raise IndexError(f"Row {low if low < -size else high} is out of range for {size} rows.")
    return np.where(rows < 0, rows + size, rows).astype(np.int64)


def _pieces(source: FileRows, segment: range | np.ndarray, start: int) -> list[_Piece]:
    """How to read one segment whose rows go to `start` and on."""
    most = max(1, PIECE_BYTES // max(1, source.nbytes // max(1, len(source))))
    if isinstance(segment, range):
        return list(_contiguous(source, segment, start, most))
    if len(segment) == 0:
        return []
    if len(segment) > 1 and (np.diff(segment) <= 0).any():
        order = np.argsort(segment, kind="stable")
        return list(_scattered(source, segment[order], start + order, most))
    return list(_scattered(source, segment, np.arange(start, start + len(segment)), most))


def _contiguous(source: FileRows, segment: range, start: int, most: int) -> Iterator[_Piece]:
    row = segment.start
    while row < segment.stop:
        number = int(np.searchsorted(source._ends, row, side="right"))
        base = int(source._ends[number]) - source.shards[number].rows
        stop = min(row + most, segment.stop, int(source._ends[number]))
        place = slice(start, start + stop - row)
        yield _Piece(number, row - base, stop - base, None, place)
        start, row = start + stop - row, stop


def _scattered(
    source: FileRows, rows: np.ndarray, places: np.ndarray, most: int
) -> Iterator[_Piece]:
    """Reads of sorted rows: near ones together, what lies between them thrown away."""
    numbers = np.searchsorted(source._ends, rows, side="right")
    bases = source._ends[numbers] - np.array([shard.rows for shard in source.shards])[numbers]
    local = rows - bases
    gap = max(1, GAP_BYTES * len(source) // max(1, source.nbytes))
    apart = (np.diff(rows) > gap) | (np.diff(numbers) > 0) | (np.diff(local // most) != 0)
    edges = [0, *(np.flatnonzero(apart) + 1), len(rows)]
    for first, last in pairwise(edges):
        low, high = int(local[first]), int(local[last - 1]) + 1
        place: slice | np.ndarray = places[first:last]
        chosen: np.ndarray | None = local[first:last] - low
        if (np.diff(local[first:last]) == 1).all() and (np.diff(places[first:last]) == 1).all():
            place, chosen = slice(int(places[first]), int(places[last - 1]) + 1), None
        yield _Piece(int(numbers[first]), low, high, chosen, place)


def _read(source: FileRows, piece: _Piece, reader: Reader, out: np.ndarray) -> None:
    """Read a piece, see that its numbers are finite, and put its rows where they belong."""
    shard, width = source.shards[piece.shard], source.shape[1]
    direct = piece.chosen is None and source._stored == source.dtype and out.flags.c_contiguous
    if direct:
        block = out[piece.place]
    else:
        block = np.empty((piece.stop - piece.start, width), source._stored)
    buffer = block.view(np.uint8).reshape(-1).data
    position = shard.offset + piece.start * width * source._stored.itemsize
    read_bytes(reader, buffer, position)
    if not direct:
        block = block.astype(source.dtype, copy=False)
        block = block if piece.chosen is None else block[piece.chosen]
        out[piece.place] = block
    if not all_finite(block):
        bad, column = (int(i) for i in np.argwhere(~np.isfinite(block))[0])
        row = piece.start + (bad if piece.chosen is None else int(piece.chosen[bad]))
        raise DataError(
            f"{shard.path}: the inputs must be finite, got {block[bad, column]} at row {row}, "
            f"column {column}. Remove the row or fill in a value."
        )


def all_finite(block: np.ndarray) -> bool:
    """Whether no number of a contiguous block is NaN or infinite.

    Those and only those have all bits of the exponent set: the largest of the numbers seen as
    signed integers tells it of the positive ones, as unsigned integers of the negative ones. This
    is 15 times faster than `isfinite` of float16.

    >>> all_finite(np.array([-1.0, 65504.0], np.float16)), all_finite(np.array([-np.inf]))
    (True, False)
    """
    if block.dtype not in _EXPONENT or block.size == 0:
        return True
    unsigned, exponent = _EXPONENT[block.dtype]
    bits = block.view(unsigned)
    signed = bits.view(np.dtype(unsigned).name.removeprefix("u"))
    sign = 1 << (8 * bits.itemsize - 1)
    return int(signed.max()) < exponent and int(bits.max()) < (sign | exponent)


def extremes(block: np.ndarray) -> tuple[float, float]:
    """The least and the largest of the finite numbers of a contiguous block.

    Read from the bits as in `all_finite`: NumPy compares float16 thirty times more slowly.

    >>> extremes(np.array([0.5, -2.0, 3.0], np.float16)), extremes(np.array([-1.0, -3.0]))
    ((-2.0, 3.0), (-3.0, -1.0))
    """
    if block.dtype not in _EXPONENT:
        return float(block.min()), float(block.max())
    unsigned, _ = _EXPONENT[block.dtype]
    bits = block.view(unsigned)
    signed = bits.view(np.dtype(unsigned).name.removeprefix("u"))
    # Of negative numbers the larger bits are the smaller number.
    low = bits.max() if signed.min() < 0 else bits.min()
    high = signed.max() if signed.max() >= 0 else bits.min()
    ends = np.array([low, high]).astype(unsigned).view(block.dtype)
    return float(ends[0]), float(ends[1])


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READERS, thread_name_prefix="jaxlin-read")
