"""What users hand in, checked once: arrays of every kind, labels, weights, `C` or `strength`."""

__all__ = [
    "check_number",
    "checked_inputs",
    "checked_training_data",
    "classes_and_labels",
    "counts_of",
    "equivalent_C",
    "is_device_array",
    "one_class",
    "regularization_of",
]

import sys
from numbers import Real

import numpy as np
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    column_or_1d,
    validate_data,
)

FLOATS = (np.float64, np.float32)
RAW = tuple(np.dtype(name) for name in ("uint8", "int8", "uint16", "int16"))
"""Pixels and counts stay as they are in memory; the products convert them on the way."""


def is_device_array(X) -> bool:
    """Whether X is a JAX array, without importing JAX for those who have none."""
    return "jax" in sys.modules and isinstance(X, sys.modules["jax"].Array)


def checked_inputs(estimator, X, *, reset: bool):
    """X as a NumPy array, a CSR matrix or, on whatever device it is, a JAX array; (N, D)."""
    if is_device_array(X):
        return _checked_device_array(estimator, X, reset)
    return validate_data(estimator, X, reset=reset, accept_sparse="csr", dtype=_dtypes(X))


def checked_training_data(estimator, X, y, *, reset: bool = True):
    """Inputs (N, D) and labels (N,) as the user wrote them, NumPy."""
    if is_device_array(X):
        X = _checked_device_array(estimator, X, reset)
        if y is None:
            raise ValueError("`y` is missing: a classifier requires y to be passed.")
        y = column_or_1d(np.asarray(y), warn=True)
        check_consistent_length(X, y)
    else:
        y = np.asarray(y) if is_device_array(y) else y
        X, y = validate_data(estimator, X, y, reset=reset, accept_sparse="csr", dtype=_dtypes(X))
    _refuse_mixed(y)
    check_classification_targets(y)
    return X, y


def _refuse_mixed(y) -> None:
    """Labels that cannot be put in order, such as `None` among strings, are no classes."""
    if y.dtype != object:
        return
    try:
        np.unique(y)
    except TypeError:
        kinds = sorted({type(label).__name__ for label in y})
        raise TypeError(
            f"`y` mixes labels of the types {' and '.join(kinds)}: classes need one. Convert them, "
            "for example with `y.astype(str)`."
        ) from None


def _dtypes(X):
    """`None` keeps the dtype."""
    dtype = getattr(X, "dtype", None)
    return None if isinstance(dtype, np.dtype) and dtype in RAW else FLOATS


def _checked_device_array(estimator, X, reset):
    import jax.numpy as jnp

    name = type(estimator).__name__
    if X.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead: `X` must be (N, D), got shape "
            f"{X.shape}. Flatten images with `X.reshape(len(X), -1)`."
        )
    if 0 in X.shape:
        raise ValueError(f"`X` is empty, got shape {X.shape}: {name} requires a minimum of 1.")
    if jnp.issubdtype(X.dtype, jnp.complexfloating):
        raise ValueError("Complex data not supported: `X` must be real. Pass its real part.")
    if X.dtype == bool:
        X = X.astype(np.uint8)
    if not reset and X.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {name} is expecting {estimator.n_features_in_} "
            "features as input."
        )
    if jnp.issubdtype(X.dtype, jnp.floating) and not bool(jnp.isfinite(X).all()):
        raise ValueError(f"Input X contains NaN or infinity. {name} does not accept them.")
    if reset:
        estimator.n_features_in_ = X.shape[1]
        vars(estimator).pop("feature_names_in_", None)
    return X


def classes_and_labels(y) -> tuple[np.ndarray, np.ndarray]:
    """The labels that occur, sorted (K,), and each row's index among them, (N,)."""
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(one_class(classes))
    return classes, labels


def one_class(classes) -> str:
    """The sentence for data with a single class."""
    return (
        "This solver needs samples of at least 2 classes in the data, but the data contains only "
        f"one class: {classes.tolist()[0]!r}."
    )


def counts_of(estimator, X, y, classes, sample_weight) -> np.ndarray:
    """How much each row counts, (N,) float64: its sample weight times its class's weight.

    Args:
      X, y: checked.
      classes: (K,), sorted.
      sample_weight: (N,), a number, or `None`.
    """
    if is_device_array(sample_weight):
        sample_weight = np.asarray(sample_weight)
    rows = np.empty((X.shape[0], 0))
    counts = _check_sample_weight(sample_weight, rows, dtype=np.float64, copy=True)
    if counts.min() < 0:
        row = int(counts.argmin())
        raise ValueError(
            f"`sample_weight` must be nonnegative, got {counts[row]:g} at row {row}. "
            "Weight 0 leaves a row out."
        )
    if not counts.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    if estimator.class_weight is None:
        return counts
    encoded = np.searchsorted(classes, y)
    if isinstance(estimator.class_weight, str) and estimator.class_weight == "balanced":
        masses = np.bincount(encoded, weights=counts, minlength=len(classes))
        weights = masses.sum() / (len(classes) * np.where(masses > 0, masses, np.inf))
    else:
        weights = compute_class_weight(estimator.class_weight, classes=classes, y=y)
        if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.any()):
            raise ValueError(
                "`class_weight` must be nonnegative, finite and not zero everywhere, "
                f"got {estimator.class_weight!r}."
            )
    return counts * weights[encoded]


def regularization_of(C, strength, total: float, halves: float) -> float:
    """The strength of `strength * sum(W**2)` that the user asked for, by either name.

    Args:
      C: `None` (then 1 if `strength` is `None` too), or positive; infinity means no penalty.
      strength: `None`, or nonnegative.
      total: what the rows count for together.
      halves: 2, or 1 for a binary problem whose two rows share one vector of coefficients.

    Returns:
      `strength`, or 1 / (halves * C * total).
    """
    if C is not None and strength is not None:
        raise ValueError(
            f"`C` and `strength` are two names of one thing, got C={C!r} and "
            f"strength={strength!r}. Give one: strength = 1 / (2 * C * N)."
        )
    if strength is not None:
        check_number("strength", strength)
        if not 0 <= strength < np.inf:
            raise ValueError(f"`strength` must be nonnegative and finite, got {strength!r}.")
        return float(strength)
    C = 1.0 if C is None else C
    check_number("C", C)
    if not C > 0:
        raise ValueError(
            f"`C` must be positive, got {C!r}. The smaller it is, the stronger the penalty."
        )
    return float(1.0 / (halves * C * total))


def equivalent_C(strength: float, total: float, halves: float) -> float:
    """The `C` of this strength."""
    return float(1.0 / (halves * strength * total)) if strength > 0 else np.inf


def check_number(name, value) -> None:
    """Raise unless `value` is a real number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a number, got {value!r}.")
