"""Many picture files as rows of one shape and one color mode, decoded by threads or processes.

Size and color are decided over all pictures of a source, whichever split is asked for, so that its
training and test rows agree: the size of the first training picture, and color if any picture of
any split is. A picture is decoded once, to what its own file holds: rows are grey until the first
color picture comes, and grey rows are then widened where they lie. Only if a split is all grey are
the headers of the other splits looked at, up to the first that holds color.
"""

__all__ = ["Rows", "note_of", "read_rows", "size_of"]

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.picture_files import background_color, decode, is_color, quiet
from jaxlin.data.picture_workers import Worker
from jaxlin.data.source import Reading

MANY = 4000
"""Pictures from which processes are worth their start."""
MOST_THREADS = 16
_BLOCK_BYTES, _BLOCK_FILES = 4 << 20, 64
_ORDER = ("train", "all", "validation", "test")


class Rows(NamedTuple):
    """Pictures as rows, and what became of them."""

    inputs: np.ndarray
    """(N, D) uint8, flattened channel-major."""
    image_shape: tuple[int, ...]
    notes: tuple[str, ...]
    """At most one sentence, on what was changed in how many pictures."""


class _Block(NamedTuple):
    """Some pictures of one shape: planes (n, 1 or 3, H * W), and what their files were."""

    planes: np.ndarray
    counts: Counter


def read_rows(
    files: Mapping[str, Sequence[str]], split: str, reading: Reading, *, name: str
) -> Rows:
    """The pictures of a split as rows of uint8.

    Args:
      files: the paths of every split of the source.
      split: which of them to read.
      reading: `image_size`, `color`, `background` and `progress` count here.
      name: of the source, for the note.

    Raises:
      DataError: a picture cannot be read, or there is no memory for all.
      ValueError: no such color, or no such size.
    """
    size, color, background = size_of(reading), reading.color, background_color(reading.background)
    if color not in (None, "auto", "rgb", "grey"):
        raise ValueError(f'`color` must be "auto", "rgb" or "grey", got {color!r}.')
    color = None if color == "auto" else color
    paths = files[split]
    with quiet():
        if size is None:
            first = next(files[part][0] for part in _ORDER if files.get(part))
            size = decode(first).pixels.shape[:2]
        others = chain.from_iterable(files[part] for part in files if part != split)
        inputs, counts = _decoded(paths, size, color, background, others, reading.progress)
    channels = inputs.shape[1] // (size[0] * size[1])
    shape = (*size, 3) if channels == 3 else size
    place = name if split == "all" else f"{name}, {split}"
    return Rows(inputs, shape, note_of(place, len(paths), counts, shape, reading))


def _decoded(
    paths: Sequence[str],
    size: tuple[int, int],
    color: str | None,
    background: tuple[int, int, int],
    others: Iterable[str],
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, Counter]:
    """Rows of all pictures, grey or color as it turns out; and what they were."""
    pixels, channels = size[0] * size[1], 1 if color in (None, "grey") else 3
    try:  # pages that are never written to are never there: grey rows take a third of it
        store = np.empty(len(paths) * pixels * (1 if color == "grey" else 3), np.uint8)
    except MemoryError:
        raise DataError(
            f"{paths[0]}: {len(paths):,} pictures of {size[0]} x {size[1]} pixels do not fit into "
            "memory. Give a smaller `image_size`."
        ) from None
    counts: Counter[str] = Counter()
    done = 0
    read = partial(_block, size=size, color=color, background=background)
    for planes, what in _in_order(read, paths, 3 * pixels):
        if planes.shape[1] > channels:
            _widen(store, done, pixels)
            channels = 3
        end = done + len(planes)
        store[done * channels * pixels : end * channels * pixels].reshape(
            len(planes), channels, pixels
        )[:] = planes
        counts, done = counts + what, end
        if progress is not None:
            progress(done, len(paths))
    if color is None and channels == 1 and any(is_color(path, background) for path in others):
        _widen(store, done, pixels)
        channels = 3
    return store[: done * channels * pixels].reshape(done, channels * pixels), counts


def _in_order(
    read: Callable[[Sequence[str]], _Block], paths: Sequence[str], picture_bytes: int
) -> Iterator[_Block]:
    """Blocks of pictures in order, a few of them ahead in threads; of many pictures each thread
    has a process of its own that decodes them."""
    step = max(1, min(_BLOCK_FILES, _BLOCK_BYTES // picture_bytes))
    blocks = (paths[start : start + step] for start in range(0, len(paths), step))
    threads = max(1, min(MOST_THREADS, os.cpu_count() or 1))
    workers: list[Worker] = []
    if len(paths) >= MANY and threads > 1:
        workers = [Worker() for _ in range(threads)]
    free = list(workers)

    def made(block: Sequence[str]) -> _Block:
        if not workers:
            return read(block)
        worker = free.pop()  # there are as many as threads
        try:
            return worker(_quietly, read, block)
        finally:
            free.append(worker)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="pictures")
    ahead: deque[Future[_Block]] = deque()
    try:
        for block in blocks:
            ahead.append(pool.submit(made, block))
            if len(ahead) > 2 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        for worker in workers:
            worker.close()


def _quietly(read: Callable[[Sequence[str]], _Block], block: Sequence[str]) -> _Block:
    with quiet():
        return read(block)


def _block(
    paths: Sequence[str],
    *,
    size: tuple[int, int],
    color: str | None,
    background: tuple[int, int, int],
) -> _Block:
    pictures = [decode(path, size=size, color=color, background=background) for path in paths]
    counts: Counter[str] = Counter()
    for picture in pictures:
        counts["color" if picture.color else "grey"] += 1
        counts["transparent"] += picture.transparent
        counts["several"] += picture.several
        counts["deep"] += picture.deep
        counts["resized"] += picture.resized
    channels = max(picture.pixels.ndim for picture in pictures) * 2 - 3  # 1 or 3
    planes = np.empty((len(paths), channels, size[0] * size[1]), np.uint8)
    for plane, picture in zip(planes, pictures, strict=True):
        pixels = picture.pixels.reshape(plane.shape[1], -1)
        plane[:] = pixels.T if pixels.shape[1] == channels else pixels.reshape(1, -1)
    return _Block(planes, counts)


def _widen(store: np.ndarray, count: int, pixels: int) -> None:
    """Grey rows at the beginning of `store` become color rows there, the last ones first."""
    step = max(1, _BLOCK_BYTES // pixels)
    for end in range(count, 0, -step):
        start = max(0, end - step)
        grey = store[start * pixels : end * pixels].reshape(end - start, 1, pixels).copy()
        wide = store[start * 3 * pixels : end * 3 * pixels].reshape(end - start, 3, pixels)
        wide[:] = grey


def note_of(
    place: str, count: int, counts: Counter, shape: tuple[int, ...], reading: Reading
) -> tuple[str, ...]:
    under = reading.background or "white"
    turned = "grey" if len(shape) == 3 else "color"
    became = "color" if len(shape) == 3 else "grey"
    told = [
        (counts[turned], f"{turned} read as {became}"),
        (counts["transparent"], f"with transparent pixels laid on {under}"),
        (counts["several"], "the first of several in a file (animations, pages)"),
        (counts["deep"], "of 16 bits a channel read by the high byte"),
        (counts["resized"], f"resized to {shape[0]}x{shape[1]}"),
    ]
    parts = [f"{number:,} {what}" for number, what in told if number]
    return (f"{place}: of {count:,} pictures, {', '.join(parts)}.",) if parts else ()


def size_of(reading: Reading) -> tuple[int, int] | None:
    size = reading.image_size
    if size is None:
        return None
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"`image_size` must be (height, width), at least 1, got {size}.")
    height, width = map(int, size)
    return height, width
