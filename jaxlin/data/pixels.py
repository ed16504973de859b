"""The range of the numbers in a set, and how inputs of another range are brought to it.

The same picture is 0..255 in a PNG, 0..65,535 as uint16, 0..1 as floats and 0..16 in the digits of
scikit-learn. A model is fitted to one of these scales and silently wrong on the others, so a set
knows its scale, a model remembers that of its training set, and inputs are multiplied by the
quotient of the two whites where both are known, and refused where they are not.
"""

__all__ = ["PixelRange", "pixel_range", "scale_factor", "scaled"]

from typing import Any, NamedTuple

import numpy as np

_BLOCK_BYTES = 16 << 20
_FEW = 32
_MOST_WHOLE = 65535
_NARROW = ("bool", "uint8", "int8", "uint16", "int16")


class PixelRange(NamedTuple):
    """The numbers of a set: their type, the least and largest, and what white is among them."""

    dtype: str
    """As NumPy names it, as they were stored."""
    low: float | None
    high: float | None
    """`None` where nobody looked: numbers that stay in their files."""
    white: float | None
    """255, 65,535 or 1: the number of a pixel as bright as can be; `None` where nothing tells."""
    whole: bool = False
    """Whether all are whole numbers from 0 on, some above 1, whatever their type."""


def pixel_range(inputs: np.ndarray, *, white: float | None = None) -> PixelRange:
    """The range of inputs (N, D) of any real type, and what white is among them.

    White is known by the type where the numbers make use of it: 255 of uint8 and 65,535 of uint16
    if the largest is above the half of that, 1 of Booleans, 1 of floats from 0 to at most 1
    whose largest is above one half, 255 of whole numbers of other types from 0 to 255 whose
    largest is above 127. Everything else, features above all, has no white.

    Args:
      inputs: the numbers as they were stored.
      white: what the format of the file says; the numbers are then not looked at.

    >>> pixel_range(np.array([[0, 17, 255]], np.uint8))
    PixelRange(dtype='uint8', low=0.0, high=255.0, white=255.0, whole=True)
    >>> pixel_range(np.array([[0, 17, 16]], np.uint8)).white, pixel_range(np.eye(2)).white
    (None, 1.0)
    """
    dtype = np.dtype(inputs.dtype)
    if white is not None:
        return PixelRange(dtype.name, 0.0, float(white), float(white), white > 1)
    low, high = _extremes(inputs)
    whole = low >= 0 and 1 < high <= _MOST_WHOLE and _whole(inputs)
    return PixelRange(dtype.name, low, high, _white(dtype, low, high, whole), whole)


def scale_factor(own: PixelRange, to: PixelRange, *, pictures: bool, rows: int = 1) -> float | None:
    """By what inputs of the range `own` are multiplied to be on the scale of `to`.

    Args:
      own: of the inputs.
      to: of the training set.
      pictures: whether rows are known to be pictures. Floats that are not have any range
        they like, and are taken as they are.
      rows: how many there are of `own`: a few pictures may all be dark, many are not.

    Returns:
      The factor; 1 where the ranges agree as far as they are known; `None` where the two differ
      and nothing tells how.
    """
    floats = {"float16", "bfloat16", "float32", "float64"} >= {own.dtype, to.dtype}
    black = own.low == own.high == 0  # on every scale
    if black or (floats and not pictures):
        return 1.0
    if own.white is not None and to.white is not None:
        return to.white / own.white
    wide = own.dtype not in _NARROW or to.dtype not in _NARROW  # one may hold the other's numbers
    if not floats and own.dtype != to.dtype and not (own.whole and to.whole and wide):
        return None
    if own.low is None or own.high is None or to.high is None:
        return 1.0
    if to.white is not None:
        room = 0.1 * to.white if floats else 0.0  # what a resizing filter overshoots
        inside = -room <= own.low and own.high <= to.white + room
        return 1.0 if inside and (rows < _FEW or own.high > to.white / 4) else None
    if floats and own.white is not None:
        return None
    return 1.0 if own.high <= 3 * to.high else None


def scaled(inputs: np.ndarray, factor: float) -> np.ndarray:
    """`inputs * factor` as float32, or float64 for inputs of that type; block by block."""
    wide = inputs.dtype == np.float64
    out = np.empty(inputs.shape, np.float64 if wide else np.float32)
    rows = _rows(inputs)
    for start in range(0, len(inputs), rows):
        # In float64, then rounded once: x * (1 / 255) in float32 is not x / 255.
        out[start : start + rows] = inputs[start : start + rows].astype(np.float64) * factor
    return out


def _white(dtype: np.dtype, low: float, high: float, whole: bool) -> float | None:
    if dtype.kind == "b":
        return 1.0
    for kind, white in ((np.uint8, 255.0), (np.uint16, 65535.0)):
        if dtype == kind:
            return white if high > white / 2 else None
    if dtype.kind == "f" and low >= 0 and 0.5 < high <= 1:
        return 1.0
    return 255.0 if whole and 127 < high <= 255 and dtype.itemsize > 1 else None


def _whole(inputs: Any) -> bool:
    if np.dtype(inputs.dtype).kind in "iu":
        return True
    rows = _rows(inputs)
    blocks = (inputs[start : start + rows] for start in range(0, len(inputs), rows))
    return np.dtype(inputs.dtype).kind == "f" and all((np.floor(b) == b).all() for b in blocks)


def _extremes(inputs: Any) -> tuple[float, float]:
    rows, low, high = _rows(inputs), np.inf, -np.inf
    for start in range(0, len(inputs), rows):
        block = inputs[start : start + rows]
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    return low, high


def _rows(inputs: Any) -> int:
    return max(1, _BLOCK_BYTES // max(1, inputs.shape[1] * np.dtype(inputs.dtype).itemsize))
