"""Scores of rows, and arrays, where the rows are: on the host or on their device."""

__all__ = ["beside", "scores_of"]

import numpy as np
from sklearn.utils.extmath import safe_sparse_dot

from jaxlin.estimators.validation import is_device_array
from jaxlin.passes import arithmetic

PREDICTED_ROWS = 8192
"""Raw pixels are converted this many rows at a time."""


def scores_of(X, coef, intercept):
    """`X @ coef.T + intercept`, (N, K); (N,) for one row of coefficients. Where X is."""
    if is_device_array(X):
        import jax.numpy as jnp

        coef = beside(X, coef)
        with arithmetic(X.dtype):
            scores = jnp.dot(X.astype(jnp.promote_types(X.dtype, coef.dtype)), coef.T)
            scores = scores + jnp.asarray(intercept)[None, :]
    else:
        coef, intercept = np.asarray(coef), np.asarray(intercept)
        if np.issubdtype(X.dtype, np.floating):
            scores = safe_sparse_dot(X, coef.T, dense_output=True) + intercept
        else:
            starts = range(0, X.shape[0], PREDICTED_ROWS)
            blocks = [X[start : start + PREDICTED_ROWS].astype(coef.dtype) for start in starts]
            scores = np.concatenate(
                [safe_sparse_dot(block, coef.T, dense_output=True) for block in blocks]
            )
            scores += intercept
    return scores[:, 0] if scores.shape[1] == 1 else scores


def beside(X, array):
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
