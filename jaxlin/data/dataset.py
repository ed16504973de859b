"""The noun of this folder: a set of examples on the host, and how its rows are pictures.

One flatten order everywhere, whatever the file: channel-major, as in the CIFAR-10 archive (all of
red row by row, then green, then blue). `image_shape` is nevertheless the shape in which a picture
is shown, (H, W) or (H, W, C); `as_images` and `flatten_images` go between the two.
"""

__all__ = [
    "Dataset",
    "PassedOver",
    "Unlabeled",
    "as_images",
    "fingerprint",
    "flatten_images",
    "rows_of_images",
]

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlin.data.pixels import PixelRange

_HASH_WHOLE_BELOW = 256 << 20
_BLOCKS, _BLOCK_ROWS_BYTES = 256, 1 << 16


class PassedOver(NamedTuple):
    """Files that lay beside those that were read, and were not."""

    count: int  # type: ignore[assignment]  # hides `tuple.count`; JSON files have this name
    what: str
    """Of which kind, say "`.txt`" or "links that lead nowhere"."""
    first: str
    """The path of the first of them."""


class Dataset(NamedTuple):
    """Labeled examples, checked: what every loader of `jaxlin.data` returns.

    >>> from jaxlin import data
    >>> digits = data.load("digits")
    >>> digits.inputs.shape[1], digits.image_shape, len(digits.class_names)
    (64, (8, 8), 10)
    """

    inputs: Any
    """(N, D): uint8 pixels, flattened channel-major, or the numbers of an array file as stored
    (then possibly a read-only memory map, or a source of rows that stay in their files: see
    `jaxlin.data.rows`)."""
    labels: np.ndarray
    """(N,) int32, in [0, K)."""
    class_names: tuple[str, ...]
    """K names; the position is the label."""
    image_shape: tuple[int, ...] | None
    """(H, W) or (H, W, C) of the pictures, `None` where rows are not pictures."""
    name: str
    """The name of the set, or the file's or folder's."""
    fingerprint: str
    """SHA-256 of inputs and labels, hexadecimal: see `fingerprint`."""
    split: str = "all"
    """What the files call these rows: "train", "validation" or "test"; "all" where they say
    nothing of splits."""
    pixels: PixelRange | None = None
    """The range of the numbers, by which inputs of other files are brought to the same scale;
    `None` where it was not looked at (features that stay in their files)."""
    notes: tuple[str, ...] = ()
    """Sentences on what was decided while reading, for people."""
    passed_over: tuple[PassedOver, ...] = ()
    """Files that were not read."""


class Unlabeled(NamedTuple):
    """Examples without labels, for a prediction; fields as those of `Dataset`.

    >>> from jaxlin import data
    >>> part = data.load_inputs("digits")[0]
    >>> len(part.names) == len(part.inputs)
    True
    """

    inputs: Any
    names: Sequence[str]
    """N names of the rows: a picture's path, or the file's name and the row's number."""
    image_shape: tuple[int, ...] | None
    name: str
    split: str = "all"
    pixels: PixelRange | None = None
    notes: tuple[str, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()


def as_images(inputs: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray:
    """Rows (..., D), flattened channel-major, as pictures (..., H, W) or (..., H, W, C).

    A view; also right for templates, which are rows of `weights`, and for JAX arrays.

    Raises:
      ValueError: D is not the number of entries of `image_shape`.

    >>> red_green_blue = np.array([1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3])
    >>> as_images(red_green_blue, (2, 2, 3))[0, 0].tolist()
    [1, 2, 3]
    """
    *leading, size = inputs.shape
    if size != _product(image_shape):
        raise ValueError(
            f"`inputs` must have {_product(image_shape)} features to be pictures of shape "
            f"{tuple(image_shape)}, got {size}. Pass the image_shape of the data set."
        )
    if len(image_shape) == 2:
        return inputs.reshape(*leading, *image_shape)
    height, width, channels = image_shape
    channel_first = inputs.reshape(*leading, channels, height, width)
    axes = (*range(len(leading)), -2 % channel_first.ndim, -1 % channel_first.ndim, len(leading))
    return channel_first.transpose(axes)


def flatten_images(images: np.ndarray) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """Arrays of pictures as rows (N, D) in the one flatten order, and their `image_shape`.

    (N, D) stays as it is and (N, H, W) is grey. In four dimensions an axis of 1 or 3 entries is
    the channels: the last if it can be, else the second. Anything else is flattened as it lies,
    with no image shape. Only channel-last pictures are copied.

    >>> rows, shape = flatten_images(np.zeros((5, 8, 6, 3), np.uint8))
    >>> rows.shape, shape
    ((5, 144), (8, 6, 3))
    """
    rows = len(images)
    if images.ndim == 3:
        return images.reshape(rows, -1), images.shape[1:]
    if images.ndim != 4 or not {1, 3} & {images.shape[1], images.shape[3]}:
        return (images if images.ndim == 2 else images.reshape(rows, -1)), None
    if images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    channels, height, width = images.shape[1:]
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.ascontiguousarray(images).reshape(rows, -1), shape


def rows_of_images(
    rows: np.ndarray, image_shape: tuple[int, ...]
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Rows `pictures.reshape(N, -1)` in the one flatten order, and the shape for `as_images`.

    Args:
      rows: (N, D).
      image_shape: that of one picture before it was flattened, which also names the layout:
        (H, W), channels last (H, W, C), or channels first (C, H, W), with C of 1 or 3. Where
        the first and the last length could both be channels, they are the last.

    Raises:
      ValueError: not such a shape, or its product is not D.

    >>> last, shape = rows_of_images(np.arange(12).reshape(1, 12), (2, 2, 3))
    >>> last[0, :4].tolist(), shape  # all of red, of an array that had red, green, blue each time
    ([0, 3, 6, 9], (2, 2, 3))
    >>> rows_of_images(np.arange(12).reshape(1, 12), (3, 2, 2))[0][0, :4].tolist()
    [0, 1, 2, 3]
    """
    shape = tuple(int(length) for length in image_shape)
    wrong = len(shape) not in (2, 3) or min(shape) < 1 or _product(shape) != rows.shape[1]
    if wrong or (len(shape) == 3 and not {1, 3} & {shape[0], shape[2]}):
        raise ValueError(
            f"`image_shape` must be H W, H W C (channels last) or C H W (channels first), with 1 "
            f"or 3 channels and a product of {rows.shape[1]}, the number of features, got "
            f"{' '.join(map(str, shape))}. Give the shape that a picture had before it became a "
            "row."
        )
    flat, as_shown = flatten_images(rows.reshape(len(rows), *shape))
    return flat, as_shown or shape


def fingerprint(inputs: Any, labels: np.ndarray) -> str:
    """SHA-256 over shape, dtype and bytes of both arrays, as 64 hexadecimal digits.

    Of an array above 256 MiB only 256 evenly spaced blocks of rows are read, so that a memory map
    larger than RAM is recognized in a moment; the full shape always counts.

    >>> a, b = np.zeros((2, 3)), np.array([0, 1])
    >>> fingerprint(a, b) == fingerprint(a, b), fingerprint(a, b) == fingerprint(a + 1, b)
    (True, False)
    """
    digest = hashlib.sha256()
    for array in (inputs, labels):
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        for block in _blocks(array):
            digest.update(np.ascontiguousarray(block).view(np.uint8).data)
    return digest.hexdigest()


def _blocks(array: Any) -> Iterator[np.ndarray]:
    row_bytes = max(1, array.nbytes // max(1, len(array)))
    rows = max(1, _BLOCK_ROWS_BYTES // row_bytes)
    starts: Iterable[int] = range(0, len(array), rows)
    if array.nbytes > _HASH_WHOLE_BELOW:
        starts = np.linspace(0, max(0, len(array) - rows), _BLOCKS).astype(int).tolist()
    return (array[start : start + rows] for start in starts)


def _product(shape: Iterable[int]) -> int:
    size = 1
    for length in shape:
        size *= int(length)
    return size
