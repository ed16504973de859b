"""Checks of static facts (shape, dtype) that hold, and may raise, while tracing."""

__all__ = ["check_label_range", "check_labels", "check_linear", "check_scores_and_labels"]

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def check_scores_and_labels(scores: jax.Array | np.ndarray, labels: jax.Array | np.ndarray) -> None:
    """Raise unless `scores` is floating (..., K) and `labels` is integer (...)."""
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        raise TypeError(
            f"`scores` must be floating, got {scores.dtype}. Convert them with `.astype(float)`."
        )
    _check_classes(labels)
    if labels.shape != scores.shape[:-1]:
        raise ValueError(
            f"`labels` must have shape scores.shape[:-1] = {scores.shape[:-1]}, "
            f"got {labels.shape}. Broadcasting would pair scores with wrong labels."
        )


def check_labels(labels: jax.Array | np.ndarray, size: int) -> None:
    """Raise unless `labels` is integer (size,): one for each row."""
    _check_classes(labels)
    if labels.shape != (size,):
        raise ValueError(f"`labels` must have one entry per row, ({size},), got {labels.shape}.")


def _check_classes(labels: jax.Array | np.ndarray) -> None:
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"`labels` must be integer classes, got {labels.dtype}. "
            "Turn one-hot labels into classes with `labels.argmax(-1)`."
        )


def check_linear(
    weights: jax.Array | np.ndarray, bias: jax.Array | np.ndarray, inputs: jax.Array | np.ndarray
) -> None:
    """Raise unless `weights` (K, D), `bias` (K,) and `inputs` (..., D) fit together."""
    if weights.ndim != 2 or bias.shape != weights.shape[:1]:
        raise ValueError(
            f"`weights` must be (K, D) and `bias` (K,), got {weights.shape} and {bias.shape}. "
            "One row of `weights` and one entry of `bias` belong to each class."
        )
    if inputs.ndim == 0 or inputs.shape[-1] != weights.shape[1]:
        raise ValueError(
            f"`inputs` must have D = {weights.shape[1]} features on the last axis, as `weights` "
            f"has, got shape {inputs.shape}. Flatten images, or append the one of the bias trick."
        )


def check_label_range(
    labels: ArrayLike, classes: int | None, *, weights: ArrayLike | None = None
) -> None:
    """Raise unless all labels that count lie in [0, classes).

    While tracing the values of traced labels are unknown: nothing is checked then. Labels that a
    function under trace has closed over are known.

    Args:
      labels: (N,), integer.
      classes: K, or `None` where it is not known yet.
      weights: (N,) or `None`; a label of weight 0 does not count and may be anything.
    """
    if any(isinstance(a, jax.core.Tracer) for a in (labels, weights)):
        return
    labels = np.asarray(labels)
    if labels.size == 0 or (labels.min() >= 0 and (classes is None or labels.max() < classes)):
        return
    wrong = (labels < 0) | (False if classes is None else labels >= classes)
    if weights is not None:
        wrong &= np.asarray(weights) != 0
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"`labels` must be integers in [0, {'K' if classes is None else classes}), got "
            f"{labels[row]} at row {row}. Number the classes from 0; mask a row by weight 0."
        )
