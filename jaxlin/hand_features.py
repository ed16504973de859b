"""Features made by hand: where edges point, and which colors there are.

Two descriptions of a picture that a linear classifier reads better than pixels: histograms of
oriented gradients over cells, and one histogram of hue over the whole picture. NumPy only, all
pictures of a block at once.
"""

__all__ = ["describe", "hue_histogram", "oriented_gradients"]

import numpy as np

GREY = (0.299, 0.587, 0.114)
"""Luma of red, green and blue: ITU-R BT.601."""


def oriented_gradients(images: np.ndarray, *, cell: int = 8, orientations: int = 9) -> np.ndarray:
    """Mean gradient in each of `orientations` directions, for every cell of every picture.

    Directions are those of lines, modulo 180 degrees, in bins of equal width; a pixel adds the
    length of its gradient (differences to the next pixel right and below) to its own bin.

    Args:
      images: (N, H, W) or (N, H, W, 3), any range.
      cell: side of a cell in pixels; what is left over at the right and below is not looked at.
      orientations: B.

    Returns:
      (N, (H // cell) * (W // cell) * B) float32, cells row by row, B numbers each.

    Source: Dalal and Triggs (2005), CVPR, without their normalization of blocks; 8 x 8 pixels and
      9 bins are the setting of the CS231n assignment on features.

    >>> stripes = np.tile(np.arange(8.0), (1, 8, 1))  # brighter to the right: direction 0
    >>> oriented_gradients(stripes).round(3).tolist()
    [[0.875, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    """
    grey = np.asarray(images, np.float32)
    if grey.ndim == 4:
        grey = grey @ np.asarray(GREY, np.float32)
    across, down = np.zeros_like(grey), np.zeros_like(grey)
    across[:, :, :-1] = np.diff(grey, axis=2)
    down[:, :-1, :] = np.diff(grey, axis=1)
    length = np.hypot(across, down)
    turn = np.arctan2(down, across) / np.pi % 1  # in half turns
    bins = np.minimum((turn * orientations).astype(np.int64), orientations - 1)
    count, rows, columns = len(grey), grey.shape[1] // cell, grey.shape[2] // cell
    inside = np.s_[:, : rows * cell, : columns * cell]
    cells = np.arange(rows * cell)[:, None] // cell * columns + np.arange(columns * cell) // cell
    place = (np.arange(count)[:, None, None] * rows * columns + cells) * orientations + bins[inside]
    size = count * rows * columns * orientations
    sums = np.bincount(place.ravel(), weights=length[inside].ravel(), minlength=size)
    return (sums / cell**2).astype(np.float32).reshape(count, -1)


def hue_histogram(images: np.ndarray, *, bins: int = 10) -> np.ndarray:
    """Share of the pixels in each of `bins` equal parts of the circle of hues.

    Args:
      images: (N, H, W, 3), red, green and blue in any common range. Grey pixels have hue 0, red.

    Returns:
      (N, bins) float32; every row sums to 1.

    Source: Smith (1978), SIGGRAPH, "Color gamut transform pairs", the hexcone model.

    >>> blue = np.zeros((1, 2, 2, 3)) + [0, 0, 255]
    >>> hue_histogram(blue, bins=3).tolist()
    [[0.0, 0.0, 1.0]]
    """
    pixels = np.asarray(images, np.float32).reshape(len(images), -1, 3)
    red, green, blue = np.moveaxis(pixels, -1, 0)
    high = pixels.max(axis=-1)
    spread = high - pixels.min(axis=-1)
    safe = np.where(spread > 0, spread, 1)
    sixth = np.select(
        [high == red, high == green],
        [(green - blue) / safe % 6, (blue - red) / safe + 2],
        (red - green) / safe + 4,
    )
    hue = np.where(spread > 0, sixth / 6, 0)
    cell = np.minimum((hue * bins).astype(np.int64), bins - 1)
    place = np.arange(len(pixels))[:, None] * bins + cell
    counts = np.bincount(place.ravel(), minlength=len(pixels) * bins)
    return (counts.reshape(-1, bins) / pixels.shape[1]).astype(np.float32)


def describe(
    images: np.ndarray, *, cell: int = 8, orientations: int = 9, bins: int = 10
) -> np.ndarray:
    """Oriented gradients and, of pictures in color, the hue histogram, side by side (N, F).

    CIFAR-10 with the defaults: 4 x 4 cells of 9 directions and 10 hues, 154 numbers a picture.

    >>> describe(np.zeros((2, 32, 32, 3), np.uint8)).shape
    (2, 154)
    """
    blocks = []
    for start in range(0, len(images), 2048):
        block = images[start : start + 2048]
        parts = [oriented_gradients(block, cell=cell, orientations=orientations)]
        if block.ndim == 4:
            parts.append(hue_histogram(block, bins=bins))
        blocks.append(np.concatenate(parts, axis=1))
    return np.concatenate(blocks)
