"""Data that are arrays in hand: checked, and made what a reader would have made of a file."""

__all__ = ["in_hand", "inputs_in_hand", "is_in_hand"]

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlin.data.dataset import Dataset, Unlabeled, flatten_images, rows_of_images
from jaxlin.data.validate import build, without_labels


def is_in_hand(value: Any, what: str) -> bool:
    """Whether `value` holds data, and does not name them.

    Args:
      value: a `Dataset`, a pair (inputs, labels); or a name or path; or `None`.
      what: the argument's name.

    Raises:
      TypeError: it is none of them.
    """
    if value is None or isinstance(value, str | os.PathLike):
        return False
    if isinstance(value, Dataset) or (isinstance(value, tuple | list) and len(value) == 2):
        return True
    raise TypeError(
        f"`{what}` must be the name of a data set, a path, (inputs, labels), or a "
        f"jaxlin.data.Dataset, got {type(value).__name__}."
    )


def in_hand(
    value: Any,
    what: str,
    *,
    image_shape: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    training: bool = True,
) -> Dataset:
    """The `Dataset` of data in hand.

    Args:
      value: a `Dataset`, or a pair: inputs (N, D), or pictures (N, H, W), (N, H, W, C) or
        (N, C, H, W); and labels (N,).
      what: the argument's name, for sentences.
      image_shape: of one picture, where the arrays do not tell; as `--image-shape`.
      class_names: K names to which the labels must keep.
      training: whether at least two classes must be there.

    Raises:
      DataError: with one sentence on what is wrong, at which row.

    >>> in_hand((np.zeros((4, 8, 8)), [0, 1, 1, 0]), "data").inputs.shape
    (4, 64)
    >>> in_hand((np.zeros((4, 12)), [0, 1, 1, 0]), "data", image_shape=(3, 2, 2)).image_shape
    (2, 2, 3)
    """
    if isinstance(value, Dataset):
        return value
    inputs, labels = value
    rows, shape = _rows(np.asarray(inputs), image_shape)
    return build(
        *(rows, np.asarray(labels)),
        class_names=class_names,
        image_shape=shape,
        name="arrays",
        file=f"`{what}`",
        training=training,
    )


def inputs_in_hand(inputs: Any, what: str = "inputs") -> Unlabeled:
    """The `Unlabeled` of arrays (N, D) or of pictures, to be classified."""
    rows, shape = _rows(np.asarray(inputs), None)
    return without_labels(rows, shape, what, f"`{what}`")


def _rows(inputs: np.ndarray, image_shape: Sequence[int] | None) -> tuple[np.ndarray, Any]:
    if inputs.ndim < 2 or inputs.dtype == object:  # what is wrong with it is said by its check
        return inputs, None
    if image_shape is not None:
        return rows_of_images(inputs.reshape(len(inputs), -1), tuple(image_shape))
    return flatten_images(inputs)
