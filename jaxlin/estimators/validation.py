"""What users hand in, checked once: arrays of every kind, labels, weights, `C` or `strength`."""

__all__ = [
    "check_number",
    "check_total",
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
from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    column_or_1d,
    validate_data,
)

from jaxlin.cpu_threads import check_not_forked
from jaxlin.estimators.labels import check_classes, plain_labels

FLOATS = (np.float64, np.float32)
RAW = tuple(np.dtype(name) for name in ("uint8", "int8", "uint16", "int16"))
"""Pixels and counts stay as they are in memory; the products convert them on the way."""
LEAST_TOTAL, MOST_TOTAL = 1e-280, 1e280
"""Of weights: their mean, and the inverse of their sum, keep their digits in float64."""


def is_device_array(X: Any) -> bool:
    """Whether X is a JAX array, without importing JAX for those who have none."""
    return "jax" in sys.modules and isinstance(X, sys.modules["jax"].Array)


def checked_inputs(estimator: Any, X: Any, *, reset: bool) -> Any:
    """X as a NumPy array, a CSR matrix or, on whatever device it is, a JAX array; (N, D)."""
    if is_device_array(X):
        return _checked_device_array(estimator, X, reset)
    return validate_data(estimator, X, reset=reset, accept_sparse="csr", dtype=_dtypes(X))


def checked_training_data(estimator: Any, X: Any, y: Any, *, reset: bool = True) -> tuple[Any, Any]:
    """Inputs (N, D), and labels (N,) as the user wrote them, NumPy."""
    y = plain_labels(y)
    if is_device_array(X):
        X = _checked_device_array(estimator, X, reset)
        if y is None:
            raise ValueError("`y` is missing: a classifier requires y to be passed.")
        y = column_or_1d(y, warn=True)
        check_consistent_length(X, y)
    else:
        X, y = validate_data(estimator, X, y, reset=reset, accept_sparse="csr", dtype=_dtypes(X))
    check_classes(y)
    return X, y


def _dtypes(X: Any) -> Any:
    """`None` keeps the dtype."""
    dtype = getattr(X, "dtype", None)
    return None if isinstance(dtype, np.dtype) and dtype in RAW else FLOATS


def _checked_device_array(estimator: Any, X: Any, reset: bool) -> Any:
    import jax.numpy as jnp

    check_not_forked()
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


def classes_and_labels(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """The labels that occur, sorted (K,), and each row's index among them, (N,)."""
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(one_class(classes))
    return classes, labels


def one_class(classes: np.ndarray) -> str:
    """The sentence for data with a single class, or with none that counts."""
    if not len(classes):
        return (
            "no row counts: each has a `sample_weight` of 0 or is of a class of weight 0. Raise "
            "the weights of at least 2 classes."
        )
    return (
        "This solver needs samples of at least 2 classes in the data, but the data contains only "
        f"one class: {classes.tolist()[0]!r}."
    )


def counts_of(
    estimator: Any, X: Any, y: Any, classes: np.ndarray, sample_weight: Any, *, block: bool = False
) -> np.ndarray:
    """How much each row counts, (N,) float64: its sample weight times its class's weight.

    Args:
      X, y: checked.
      classes: (K,), sorted.
      sample_weight: (N,), a number, or `None`.
      block: more rows will come; these alone may all weigh nothing, and balance nothing.
    """
    balanced = isinstance(estimator.class_weight, str) and estimator.class_weight == "balanced"
    if balanced and block:
        raise ValueError(
            "class_weight 'balanced' is not supported for partial_fit: a block does not tell how "
            "often classes occur in all. Pass {label: weight} as `class_weight`, with the weights "
            "of sklearn.utils.class_weight.compute_class_weight('balanced', classes=classes, "
            "y=y), for which y may be the labels of a large sample."
        )
    if is_device_array(sample_weight):
        sample_weight = np.asarray(sample_weight)
    rows = np.empty((X.shape[0], 0))
    weightless = block and sample_weight is not None and not np.any(sample_weight)
    if weightless:  # scikit-learn refuses them, and still checks their shape
        sample_weight = np.ones(np.shape(sample_weight))[()]
    counts = _check_sample_weight(sample_weight, rows, dtype=np.float64, copy=True)
    if weightless:
        return np.zeros_like(counts)
    if counts.min() < 0:
        row = int(counts.argmin())
        raise ValueError(
            f"`sample_weight` must be nonnegative, got {counts[row]:g} at row {row}. "
            "Weight 0 leaves a row out."
        )
    if not (block or counts.any()):
        raise ValueError("Sample weights must contain at least one non-zero number.")
    check_total(counts, "`sample_weight`")
    if estimator.class_weight is None:
        return counts
    encoded = np.searchsorted(classes, y)
    if balanced:
        masses = np.bincount(encoded, weights=counts, minlength=len(classes))
        with np.errstate(over="ignore", under="ignore"):
            weights = masses.sum() / (len(classes) * np.where(masses > 0, masses, np.inf))
    else:
        weights = compute_class_weight(estimator.class_weight, classes=classes, y=y)
        if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.any()):
            raise ValueError(
                "`class_weight` must be nonnegative, finite and not zero everywhere, "
                f"got {estimator.class_weight!r}."
            )
    with np.errstate(over="ignore", under="ignore"):
        counts = counts * weights[encoded]
    check_total(counts, "`sample_weight` times `class_weight`")
    return counts


def check_total(counts: np.ndarray | float, name: str) -> None:
    """Raise where the sum of the weights is so large or small that its inverse is none.

    Args:
      counts: (N,) or a number, nonnegative.
      name: of the weights.
    """
    with np.errstate(over="ignore", under="ignore"):
        total = float(np.sum(counts))
    if total and not LEAST_TOTAL <= total <= MOST_TOTAL:
        raise ValueError(
            f"{name} must sum to between {LEAST_TOTAL:g} and {MOST_TOTAL:g}, got {total:g}. "
            "Weights that are divided by a number, and `C` multiplied by it, give the same fit."
        )


def regularization_of(C: Any, strength: Any, total: float, halves: float) -> float:
    """The strength of `strength * sum(W**2)` that the user asked for, by either name.

    Args:
      C: `None` (then 1 if `strength` is `None` too), or positive; infinity means no penalty.
      strength: `None`, or nonnegative.
      total: what the rows count for together.
      halves: 2, or 1 for a binary problem whose two rows share one vector of coefficients.

    Returns:
      `strength`, or 1 / (halves * C * total).

    Raises:
      ValueError, TypeError: no number, out of range, or no number of float64 as a strength.
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
    with np.errstate(all="ignore"):
        strength = float(np.float64(1) / (np.float64(halves) * float(C) * total))
    if np.inf > C and not 0 < strength < np.inf and total:
        raise ValueError(
            f"`C`={C!r} with weights that sum to {total:g} is a strength of {strength:g} in "
            "float64. Bring `C` nearer to 1, or set `C` to infinity for no penalty."
        )
    return strength


def ratio_of(name: str, value: Any) -> float:
    """A share of absolute values in the penalty, checked."""
    check_number(name, value)
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be between 0 and 1, got {value!r}.")
    return float(value)


def equivalent_C(strength: float, total: float, halves: float) -> float:
    """The `C` of this strength."""
    with np.errstate(all="ignore"):
        return float(np.float64(1) / (np.float64(halves) * strength * total))


def check_number(name: str, value: Any) -> None:
    """Raise unless `value` is a real number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a number, got {value!r}.")
    try:
        float(value)
    except OverflowError:
        raise ValueError(f"`{name}` must be a number of float64, below 1.8e308.") from None
