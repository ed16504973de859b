"""Bytes of a file that stays what it was, past the page cache where they are not in it.

Data larger than memory gain nothing from the system's page cache: they push everything else out of
it and are gone before they are read again. Filling it also costs a core and a half for every
GB/s. So a large read first asks for what the cache has already, without waiting (`RWF_NOWAIT`), and
takes the rest straight from the disk (`O_DIRECT`) into a buffer of its thread. Where the system or
the file system knows neither, reads are plain ones.
"""

__all__ = ["Reader", "Shard", "open_reader", "read_bytes"]

import contextlib
import mmap
import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

from jaxlin.core import DataError

_DIRECT = getattr(os, "O_DIRECT", None)
_NO_WAIT: Any = getattr(os, "RWF_NOWAIT", None)
_DIRECT_FROM_BYTES = 256 << 10
_PAGE = 4096  # offsets, lengths and addresses of direct reads are multiples of it
_STAY = "Start again with files that stay as they are while they are used."
_of_thread = threading.local()


class Shard(NamedTuple):
    """Where the rows of one file lie, and what the file was when it was opened."""

    path: Path
    rows: int
    offset: int
    """The byte at which the first row begins."""
    size: int
    """Bytes of the whole file."""
    modified: int
    """Time of its last change, in nanoseconds."""


class Reader(NamedTuple):
    """An open file."""

    shard: Shard
    plain: int
    """A descriptor."""
    direct: int | None
    """A descriptor that passes by the page cache, where there is such a thing."""

    def close(self) -> None:
        os.close(self.plain)
        if self.direct is not None:
            os.close(self.direct)


def open_reader(shard: Shard) -> Reader:
    """Open a file that is still what it was.

    Raises:
      DataError: it is gone, or its size or time of change is another.
    """
    try:
        plain = os.open(shard.path, os.O_RDONLY)
    except OSError as error:
        raise DataError(
            f"{shard.path}: cannot be read any more ({error.strerror}). {_STAY}"
        ) from None
    found = os.fstat(plain)
    if (found.st_size, found.st_mtime_ns) != (shard.size, shard.modified):
        os.close(plain)
        how = (
            f"it had {shard.size:,} bytes and has {found.st_size:,}"
            if found.st_size != shard.size
            else "its time of change is another"
        )
        raise DataError(f"{shard.path}: changed since it was opened ({how}). {_STAY}")
    direct = None
    if _DIRECT is not None and _NO_WAIT is not None:
        with contextlib.suppress(OSError):  # a file system without direct reads
            direct = os.open(shard.path, os.O_RDONLY | _DIRECT)
    return Reader(shard, plain, direct)


def read_bytes(reader: Reader, buffer: memoryview, position: int) -> None:
    """Fill `buffer` with the bytes of the file from `position` on.

    Raises:
      DataError: the file ends before.
    """
    done = 0
    if reader.direct is not None and len(buffer) >= _DIRECT_FROM_BYTES:
        done = _from_cache(reader, buffer, position)
        done += _from_disk(reader.direct, buffer[done:], position + done)
    while done < len(buffer):
        count = os.preadv(reader.plain, [buffer[done:]], position + done)
        if count == 0:
            raise DataError(f"{reader.shard.path}: shrank while it was read. {_STAY}")
        done += count


def _from_cache(reader: Reader, buffer: memoryview, position: int) -> int:
    """How many bytes the page cache had at once."""
    try:
        return os.preadv(reader.plain, [buffer], position, _NO_WAIT)
    except OSError:  # nothing there (EAGAIN), or the file system cannot tell
        return 0


def _from_disk(direct: int, buffer: memoryview, position: int) -> int:
    """How many bytes direct reads brought; fewer than all where the system refuses them."""
    scratch = _scratch()
    view, done = memoryview(scratch), 0
    while done < len(buffer):
        start = (position + done) // _PAGE * _PAGE
        before = position + done - start
        wanted = min(-(-(before + len(buffer) - done) // _PAGE) * _PAGE, len(view))
        try:
            count = os.preadv(direct, [view[:wanted]], start) - before
        except OSError:
            return done
        count = min(count, len(buffer) - done)
        if count <= 0:
            return done
        buffer[done : done + count] = view[before : before + count]
        done += count
    return done


def _scratch() -> mmap.mmap:
    """Memory of this thread that begins at a page."""
    if not hasattr(_of_thread, "scratch"):
        _of_thread.scratch = mmap.mmap(-1, (4 << 20) + 2 * _PAGE)
    return _of_thread.scratch
