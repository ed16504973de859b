"""The noun of this folder: a set of examples on the host, and how its rows are pictures.

One flatten order everywhere, whatever the file: channel-major, as in the CIFAR-10 archive (all of
red row by row, then green, then blue). `image_shape` is nevertheless the shape in which a picture
is shown, (H, W) or (H, W, C); `as_images` and `flatten_images` go between the two.
"""

__all__ = ["Dataset", "as_images", "fingerprint", "flatten_images"]

import hashlib
from typing import NamedTuple

import numpy as np

_HASH_WHOLE_BELOW = 256 << 20
_BLOCKS, _BLOCK_ROWS_BYTES = 256, 1 << 16


class Dataset(NamedTuple):
    """Labeled examples, checked: what every loader of `jaxlin.data` returns."""

    inputs: np.ndarray
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


def fingerprint(inputs: np.ndarray, labels: np.ndarray) -> str:
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
            digest.update(np.ascontiguousarray(block).view(np.uint8))
    return digest.hexdigest()


def _blocks(array: np.ndarray):
    row_bytes = max(1, array.nbytes // max(1, len(array)))
    rows = max(1, _BLOCK_ROWS_BYTES // row_bytes)
    if array.nbytes <= _HASH_WHOLE_BELOW:
        starts = range(0, len(array), rows)
    else:
        starts = np.linspace(0, max(0, len(array) - rows), _BLOCKS).astype(int)
    return (array[start : start + rows] for start in starts)


def _product(shape) -> int:
    size = 1
    for length in shape:
        size *= int(length)
    return size
