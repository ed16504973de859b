"""Labels as users write them: of any one type that sorts, none missing."""

__all__ = ["check_classes", "is_familiar", "plain_labels"]

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)


def plain_labels(y: Any, name: str = "y") -> Any:
    """The labels as a NumPy array (N,), in the plainest dtype that holds them as they are.

    Python's numbers in an object array become one of NumPy's dtypes, NumPy's strings of any length
    become objects; what is no vector of labels is left to scikit-learn's own checks.

    Args:
      y: array, list or series.
      name: what the sentences call it.

    Raises:
      ValueError: a label is missing (`None`, NaN, NaT, `pandas.NA`).
      TypeError: the labels are of types that cannot be put in order.

    >>> plain_labels(np.array([2, 0, 1], dtype=object))
    array([2, 0, 1])
    """
    if y is None or issparse(y):
        return y
    labels = np.asarray(y)
    if labels.dtype.kind in "US" and isinstance(y, (list, tuple)) and labels.tolist() != list(y):
        labels = np.array(y, dtype=object)  # NumPy has made strings of what else there was
    if labels.dtype.kind == "T":
        labels = labels.astype(object)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = column_or_1d(labels, warn=True)
    if labels.ndim != 1:
        return labels
    if labels.dtype.kind == "c":
        raise ValueError(
            f"Complex data not supported: `{name}` holds complex numbers, which have no order. "
            "Number the classes from 0."
        )
    _refuse_missing(labels, name)
    return _in_order(labels, name) if labels.dtype == object else labels


def _refuse_missing(labels: np.ndarray, name: str) -> None:
    if labels.dtype == object:
        missing = np.array([_is_none(label) for label in labels], bool)
    else:
        missing = labels != labels  # NaN and NaT
    if missing.any():
        row = int(missing.argmax())
        raise ValueError(
            f"`{name}` has no label at row {row}, got {labels[row]!r}; so it is in "
            f"{missing.sum()} of {len(labels)} rows. Drop them, or give them a label of their own."
        )


def _is_none(label: Any) -> bool:
    """`None`, and what is not equal to itself: NaN, NaT and `pandas.NA`, which is not even that."""
    if isinstance(label, str):
        return False
    try:
        return label is None or not bool(label == label)
    except (TypeError, ArithmeticError):
        return True
    except ValueError:  # arrays; they do not sort
        return False


def _in_order(labels: np.ndarray, name: str) -> np.ndarray:
    """Objects as one of NumPy's dtypes, if they are numbers that it can tell apart."""
    types = {type(label) for label in labels}
    if all(issubclass(kind, NUMBERS) for kind in types) and len(labels):
        numbers = np.array(labels.tolist())
        if numbers.dtype != object and numbers.tolist() == labels.tolist():
            return numbers
    try:
        np.unique(labels)
    except (TypeError, ValueError):
        kinds = sorted(kind.__name__ for kind in types)
        held = f"holds labels of the type {kinds[0]}, which cannot be put in order"
        if len(kinds) > 1:
            held = f"mixes labels of the types {' and '.join(kinds)}: classes need one"
        raise TypeError(
            f"`{name}` {held}. Convert them, for example with `np.array({name}).astype(str)`."
        ) from None
    return labels


def is_familiar(labels: np.ndarray) -> bool:
    """Whether scikit-learn's metrics and splitters know labels of this kind.

    They know numbers, strings and times; not bytes, nor objects such as dates and fractions.
    """
    if labels.dtype == object:
        return len(labels) > 0 and isinstance(labels[0], str)
    return labels.dtype.kind != "S"


def check_classes(labels: np.ndarray) -> None:
    """Raise where the labels are no classes, such as measurements."""
    if is_familiar(labels):
        check_classification_targets(labels)
