"""Rows of one set as a model, or a training set, expects them; or the sentence that says why not.

A number of features that agrees is no proof: rows can hold a picture's colors in another order,
and the same picture on another scale. What is known of both sides is compared here, once for
every command; what is not known is not guessed.
"""

__all__ = ["conform"]

from typing import TypeVar

from jaxlin.core import DataError
from jaxlin.data.dataset import Dataset, Unlabeled
from jaxlin.data.pixels import PixelRange, scale_factor, scaled

Examples = TypeVar("Examples", Dataset, Unlabeled)


def conform(
    data: Examples,
    features: int,
    image_shape: tuple[int, ...] | None,
    pixels: PixelRange | None,
    *,
    to: str = "the training set",
) -> Examples:
    """`data` with its inputs on the scale of what it is for.

    Args:
      data: as it was read.
      features: how many an example must have.
      image_shape: (H, W) or (H, W, C) that pictures must have; `None` where the other side's
        rows were not known to be pictures.
      pixels: the range to bring the inputs to; `None` where it is not known: they are then taken
        as they are.
      to: what it is for, for a sentence.

    Raises:
      DataError: another width, pictures for what knows none, rows in an unknown order for what
        knows pictures, or a scale that cannot be told.

    >>> from jaxlin import data
    >>> digits = data.load("digits")
    >>> conform(digits, 64, (8, 8), digits.pixels).inputs is digits.inputs  # one scale
    True
    >>> conform(digits, 784, (28, 28), digits.pixels)
    Traceback (most recent call last):
    jaxlin.core.DataError: ...
    """
    _refuse_shape(data, features, image_shape, to)
    if pixels is None or data.pixels is None:
        return data
    pictures, rows = image_shape is not None, len(data.inputs)
    factor = scale_factor(data.pixels, pixels, pictures=pictures, rows=rows)
    if factor is None:
        raise DataError(
            f"{data.name}: holds {_range(data.pixels)}, {to} {_range(pixels)}, and nothing tells "
            "how the two scales belong together. Save the numbers alike: as uint8 up to 255, "
            "uint16 up to 65,535, or floats from 0 to 1."
        )
    if factor == 1:
        return data
    white = data.pixels.white
    note = f"{data.name}: {data.pixels.dtype} with white {white:g}, scaled to {pixels.white:g}."
    return data._replace(
        inputs=scaled(data.inputs, factor), pixels=pixels, notes=(*data.notes, note)
    )


def _refuse_shape(
    data: Dataset | Unlabeled, features: int, image_shape: tuple[int, ...] | None, to: str
) -> None:
    own = data.image_shape
    shape = "x".join(map(str, own or image_shape or ()))
    if own is not None and image_shape is None:
        raise DataError(
            f"{data.name}: holds pictures of {shape}, and {to} has rows that were not known to be "
            "pictures, in an order of pixels that nothing tells. Train with the shape of a picture "
            "(`image_shape`, or a key `image_shape` in the archive: H W, H W C for channels last, "
            "C H W for channels first)."
        )
    width = data.inputs.shape[1]
    if own is not None and image_shape is not None and tuple(own) != tuple(image_shape):
        raise DataError(
            f"{data.name}: has pictures of {shape}, {width} features, and {to} "
            f"{'x'.join(map(str, image_shape))}, {features} features. Use data of the same shape."
        )
    if width != features:
        raise DataError(
            f"{data.name}: has {width} features an example, and {to} {features} features. Use data "
            "of the same shape."
        )
    if own is None and image_shape is not None and len(image_shape) == 3:
        raise DataError(
            f"{data.name}: holds rows, and {to} has color pictures of {shape}, in an order of "
            "pixels and colors that rows do not tell. Give the shape of a picture (`image_shape`, "
            "or a key `image_shape` in the archive: H W C for channels last, C H W for channels "
            "first)."
        )


def _range(pixels: PixelRange) -> str:
    if pixels.high is None:
        return pixels.dtype
    return f"{pixels.dtype} from {pixels.low:g} to {pixels.high:g}"
