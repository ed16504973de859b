"""Scores of rows, and arrays, where the rows are: on the host or on their device."""

__all__ = ["accuracy_of", "beside", "scores_of"]

from typing import Any

import numpy as np
from jax import Array
from sklearn.metrics import accuracy_score
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import check_consistent_length

from jaxlin.estimators.labels import is_familiar, plain_labels
from jaxlin.estimators.validation import is_device_array
from jaxlin.passes import arithmetic
from jaxlin.precision import exact

PREDICTED_ROWS = 8192
"""Raw pixels are converted this many rows at a time."""


def scores_of(X: Any, coef: Any, intercept: Any) -> Any:
    """`X @ coef.T + intercept`, (N, K); (N,) for one row of coefficients. Where X is."""
    if is_device_array(X):
        import jax
        import jax.numpy as jnp

        coef, intercept = beside(X, coef), beside(X, intercept)
        with arithmetic(X.dtype):
            # without x64 float32 rows have float32 scores, whatever the coefficients were fitted in
            dtype = jax.dtypes.canonicalize_dtype(jnp.promote_types(X.dtype, coef.dtype))
            rows, coef, intercept = (part.astype(dtype) for part in (X, coef, intercept))
            scores = exact(jnp.dot)(rows, coef.T) + intercept[None, :]
    else:
        with np.errstate(under="ignore"):
            scores = _on_host(X, np.asarray(coef)) + np.asarray(intercept)
    return scores[:, 0] if scores.shape[1] == 1 else scores


def _on_host(X: Any, coef: np.ndarray) -> np.ndarray:
    """`X @ coef.T`, (N, K)."""
    if np.issubdtype(X.dtype, np.floating):
        return safe_sparse_dot(X, coef.T, dense_output=True)
    starts = range(0, X.shape[0], PREDICTED_ROWS)
    blocks = [X[start : start + PREDICTED_ROWS].astype(coef.dtype) for start in starts]
    return np.concatenate([safe_sparse_dot(block, coef.T, dense_output=True) for block in blocks])


def beside(X: Any, array: Any) -> Array:
    """`array` in its own precision on the device of X."""
    import jax
    import jax.numpy as jnp

    if is_device_array(array):
        return array
    with arithmetic(array.dtype):
        devices = X.devices()
        if len(devices) == 1:
            return jax.device_put(array, next(iter(devices)))
        return jnp.asarray(array)


def accuracy_of(
    model: Any, X: Any, y: Any, sample_weight: Any = None, offsets: Any = None
) -> float:
    """The share of rows whose label is predicted, also for labels that scikit-learn does not know.

    Args:
      model: a fitted classifier.
      X: (N, D).
      y: (N,) labels.
      sample_weight: (N,), or `None`.
      offsets: as `model.predict` takes them, or `None`.
    """
    labels, predicted = plain_labels(y), np.asarray(model.predict(X, offsets))
    if labels.ndim != 1 or is_familiar(labels):
        return float(accuracy_score(labels, predicted, sample_weight=sample_weight))
    check_consistent_length(labels, predicted, sample_weight)
    return float(np.average(labels == predicted, weights=sample_weight))
