"""The checks that need values, done once on the host where data enter.

While tracing nobody can see a NaN or a label of -1, and JAX computes on without a word: -1 reads
the last class, an infinite score can give a finite hinge. So data pass through `dataset` here,
and what comes out can be trusted. Arrays larger than memory are read in blocks.
"""

__all__ = [
    "build",
    "check_finite",
    "check_inputs",
    "check_labels",
    "refuse_large",
    "refuse_one_class",
    "text_of",
    "without_labels",
]

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from jaxlin.core import DataError
from jaxlin.data.dataset import Dataset, PassedOver, Unlabeled, fingerprint
from jaxlin.data.pixels import pixel_range

_KEPT = tuple(map(np.dtype, ["u1", "i1", "u2", "i2", "f2", "f4", "f8", ml_dtypes.bfloat16]))
_BLOCK_BYTES = 16 << 20
_EXACT_IN_FLOAT32 = 2**24


def build(
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    class_names: Sequence[str] | None,
    image_shape: tuple[int, ...] | None,
    name: str,
    file: str,
    training: bool = True,
    split: str = "all",
    white: float | None = None,
    notes: Sequence[str] = (),
    passed_over: Sequence[PassedOver] = (),
) -> Dataset:
    """A `Dataset` from rows and their labels, or a `DataError` that names `file`.

    Args:
      inputs: (N, D).
      labels: (N,), integers, or strings.
      class_names: K names, which the labels must keep to; `None` finds them in the labels.
      image_shape: of the rows, (H, W) or (H, W, C); `None` if they are not pictures.
      name: the set's name.
      file: what an error names.
      training: whether at least two classes must be present.
      split: what the files call these rows.
      white: the number of a white pixel, where the format of the file says it.
      notes: sentences on what was decided while reading.
      passed_over: files that were not read.
    """
    stored = inputs
    inputs = check_inputs(inputs, file=file)
    labels, names = check_labels(labels, file=file, rows=len(inputs), class_names=class_names)
    if training:
        refuse_one_class(labels, names, file=file)
    return Dataset(
        inputs,
        labels,
        names,
        image_shape,
        name,
        fingerprint(inputs, labels),
        split,
        pixel_range(stored, white=white),
        tuple(notes),
        tuple(passed_over),
    )


def without_labels(
    inputs: np.ndarray,
    image_shape: tuple[int, ...] | None,
    name: str,
    file: str,
    split: str = "all",
    *,
    names: Sequence[str] | None = None,
    white: float | None = None,
    notes: Sequence[str] = (),
    passed_over: Sequence[PassedOver] = (),
) -> Unlabeled:
    """Rows (N, D) without labels, checked; arguments as those of `build`.

    `names` are those of the rows; without them a row has the set's name, its split and its number.
    """
    stored, place = inputs, name if split == "all" else f"{name}:{split}"
    inputs = check_inputs(inputs, file=file)
    if names is None:
        names = [f"{place}[{row}]" for row in range(len(inputs))]
    return Unlabeled(
        inputs,
        names,
        image_shape,
        name,
        split,
        pixel_range(stored, white=white),
        tuple(notes),
        tuple(passed_over),
    )


def refuse_one_class(labels: np.ndarray, names: Sequence[str], *, file: str) -> None:
    """Raise a `DataError` if all labels are the same: there would be nothing to learn."""
    if labels.min() == labels.max():
        raise DataError(
            f"{file}: all {len(labels)} labels are of one class ({names[labels[0]]!r}), and a "
            "classifier needs at least two. Add examples of another class."
        )


def check_inputs(inputs: np.ndarray, *, file: str) -> np.ndarray:
    """Rows (N, D) of finite numbers in the machine's byte order; kept as they are if possible.

    8- and 16-bit integers and float16, bfloat16, float32, float64 stay what they are (a memory map
    stays a map). Other integers and Booleans become uint8 (Booleans), float32 where that is exact
    (up to 2**24), else float64.
    """
    if inputs.ndim != 2:
        raise DataError(
            f"{file}: the inputs must have two axes (examples, features), got shape "
            f"{inputs.shape}. Give one row to each example."
        )
    if 0 in inputs.shape:
        raise DataError(
            f"{file}: the inputs are empty, shape {inputs.shape}. Give at least one example with "
            "at least one feature."
        )
    known = inputs.dtype in _KEPT or inputs.dtype.kind in "buif"
    if not known or inputs.dtype.itemsize > 8:
        raise DataError(
            f"{file}: the inputs must be real numbers of at most 64 bits, got {inputs.dtype}. "
            "Convert them, for example with `.astype('float32')`."
        )
    if inputs.dtype.kind == "b":
        return inputs.astype(np.uint8)
    if not inputs.dtype.isnative:
        inputs = inputs.astype(inputs.dtype.newbyteorder("="))
    if inputs.dtype not in _KEPT:
        exact = inputs.min() >= -_EXACT_IN_FLOAT32 and inputs.max() <= _EXACT_IN_FLOAT32
        inputs = inputs.astype(np.float32 if exact else np.float64)
    check_finite(inputs, file=file)
    return inputs


def check_finite(inputs: np.ndarray, *, file: str) -> None:
    """Raise a `DataError` that names the first row and column with a NaN or an infinity."""
    if inputs.dtype.kind not in "fV":  # V: bfloat16, which NumPy does not know
        return
    rows = max(1, _BLOCK_BYTES // max(1, inputs.shape[1] * inputs.itemsize))
    for start in range(0, len(inputs), rows):
        block = np.isfinite(inputs[start : start + rows])
        if not block.all():
            row, column = np.argwhere(~block)[0]
            raise DataError(
                f"{file}: the inputs must be finite, got {inputs[start + row, column]} at row "
                f"{start + row}, column {column}. Remove the row or fill in a value."
            )


def refuse_large(inputs: Any, dtype: DTypeLike, *, file: str) -> None:
    """Raise a `DataError` if numbers are beyond the range of `dtype`, in which all is computed."""
    most = float(ml_dtypes.finfo(dtype).max)
    if inputs.dtype.kind != "f" or float(np.finfo(inputs.dtype).max) <= most:
        return
    rows = max(1, _BLOCK_BYTES // max(1, inputs.shape[1] * inputs.dtype.itemsize))
    for start in range(0, inputs.shape[0], rows):
        block = np.abs(np.asarray(inputs[start : start + rows]))
        if block.max() > most:
            row, column = np.unravel_index(block.argmax(), block.shape)
            raise DataError(
                f"{file}: the inputs reach {block[row, column]:.3g} (row {start + row}, column "
                f"{column}), more than {np.dtype(dtype)} holds. Scale the features down."
            )


def check_labels(
    labels: np.ndarray,
    *,
    file: str,
    rows: int,
    class_names: Sequence[str] | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as (N,) int32 in [0, K), and the K class names.

    Integers (also Booleans, and floats that are whole numbers) are classes 0 to K - 1. With
    `class_names` K is their number; without, it is the largest label plus one, and a label must be
    smaller than the number of examples: one beyond that is a mistake, since most classes
    would have no example. Strings are looked up in `class_names`, else sorted.

    >>> check_labels(np.array(["dog", "cat", "dog"]), file="pets.npz", rows=3)
    (array([1, 0, 1], dtype=int32), ('cat', 'dog'))
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"{file}: the labels must be one class an example, shape (N,), got {labels.shape}. "
            "Turn one-hot labels into classes with `labels.argmax(-1)`."
        )
    if len(labels) != rows:
        raise DataError(
            f"{file}: there are {len(labels)} labels for {rows} inputs. Give every example "
            "exactly one label, in the same order."
        )
    if class_names is not None:
        class_names = tuple(text_of(name, file=file) for name in class_names)
        if len(set(class_names)) != len(class_names):
            raise DataError(
                f"{file}: the class names must differ from one another, got {class_names}."
                " Rename the doubles."
            )
        _refuse_unwritable(class_names, file)
    if labels.dtype.kind in "US":
        return _named(labels, file, class_names)
    if labels.dtype.kind not in "buif":
        raise DataError(
            f"{file}: the labels must be integers or strings, got {labels.dtype}. "
            "Convert them with `.astype(int)` or `.astype(str)`."
        )
    if labels.dtype.kind == "f":
        _refuse(labels != np.floor(labels), labels, file, "whole numbers")
        _refuse(~np.isfinite(labels), labels, file, "finite")
    bound = rows if class_names is None else len(class_names)
    _refuse(labels < 0, labels, file, "nonnegative", "Number the classes from 0.")
    advice = (
        "Number the classes 0, 1, 2, ... without holes, or give the labels as strings."
        if class_names is None
        else "Use data with the same classes."
    )
    what = "the number of examples" if class_names is None else "the number of classes"
    _refuse(labels >= bound, labels, file, f"smaller than {bound}, {what}", advice)
    if class_names is None:
        class_names = tuple(map(str, range(int(labels.max()) + 1)))
    return labels.astype(np.int32), class_names


def text_of(name: Any, *, file: str) -> str:
    """A class name as text; bytes are UTF-8.

    >>> text_of(b"ant", file="a.npz"), text_of(3, file="a.npz")
    ('ant', '3')
    """
    if not isinstance(name, bytes):
        return str(name)
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(
            f"{file}: the class name {name!r} is not UTF-8 text. Save the names as strings."
        ) from None


def _named(
    labels: np.ndarray, file: str, class_names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    if labels.dtype.kind == "S":
        try:
            labels = np.char.decode(labels, "utf-8")
        except UnicodeDecodeError:
            raise DataError(
                f"{file}: the labels are bytes that are not UTF-8 text. Save them as strings."
            ) from None
    found, positions = np.unique(labels, return_inverse=True)
    names = tuple(map(str, found)) if class_names is None else tuple(class_names)
    _refuse_unwritable(names, file)
    position_of = {name: position for position, name in enumerate(names)}
    for name in map(str, found):
        if name not in position_of:
            row = int(np.argmax(labels == name))
            raise DataError(
                f"{file}: the label {name!r} at row {row} is none of the {len(names)} classes "
                f"({_short(names)}). Use data with the same classes."
            )
    table = np.array([position_of[str(name)] for name in found], np.int32)
    return table[positions.reshape(-1)], names


def _refuse_unwritable(names: Sequence[str], file: str) -> None:
    """Half of a pair of UTF-16 is no text: a run would end where the model's names are written."""
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise DataError(
                f"{file}: the class name {name!r} cannot be written as UTF-8. Rename it."
            ) from None


def _short(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def _refuse(
    wrong: np.ndarray,
    labels: np.ndarray,
    file: str,
    must_be: str,
    advice: str = "Give every example one class.",
) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{file}: the labels must be {must_be}, got {labels[row]} at row {row}. {advice}"
        )
