"""Metrics: how good finished scores are. NumPy on the host; scikit-learn where it has them.

`scores` (N, K) are what a score function gave, `labels` (N,) the true classes in [0, K).
Softmax probabilities are asked for where a metric needs them: hinge scores are none.

A row with a score that is not a number has no predicted class: it is never right, and it still
counts among the examples. `predicted_classes` tells which rows these are.
"""

__all__ = [
    "accuracy",
    "confusion_matrix",
    "expected_calibration_error",
    "log_loss",
    "mean_per_class_accuracy",
    "per_class_accuracy",
    "predicted_classes",
    "top_k_accuracy",
    "wilson_interval",
]

import math

import numpy as np
from numpy.typing import ArrayLike


def predicted_classes(scores: ArrayLike) -> np.ndarray:
    """(N,) int: the class of the highest score (ties: the first), -1 where a score is NaN.

    >>> predicted_classes([[1.0, 2.0], [3.0, 0.0], [0.0, float("nan")]]).tolist()
    [1, 0, -1]
    """
    scores = _matrix(scores)
    return np.where(np.isnan(scores).any(axis=1), -1, scores.argmax(axis=1))


def accuracy(scores: ArrayLike, labels: ArrayLike) -> float:
    """Share of examples whose highest score is that of the true class (ties: the first).

    Args:
      scores: (N, K).
      labels: (N,), integer, in [0, K).

    Raises:
      TypeError: `labels` are not integers.
      ValueError: shapes that do not fit, or a label outside [0, K), with its row.

    >>> accuracy([[1.0, 2.0], [3.0, 0.0]], [1, 1])
    0.5
    """
    scores, labels = _checked(scores, labels)
    return float(np.mean(predicted_classes(scores) == labels))


def top_k_accuracy(scores: ArrayLike, labels: ArrayLike, *, k: int = 5) -> float:
    """Share of examples whose true class is among the k highest scores.

    A class that ties with the true one counts as ahead of it, so that constant scores do not
    look like knowledge. Arguments and errors are those of `accuracy`.

    >>> top_k_accuracy([[3.0, 2.0, 1.0]], [1], k=2)
    1.0
    """
    scores, labels = _checked(scores, labels)
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"`k` must be between 1 and the {scores.shape[1]} classes, got {k}.")
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    ahead = np.sum(scores >= own, axis=1) - 1
    return float(np.mean((ahead < k) & ~np.isnan(scores).any(axis=1)))


def per_class_accuracy(scores: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """(K,): share of each class's examples that are classified right; NaN for an absent class.

    Arguments and errors are those of `accuracy`.

    >>> per_class_accuracy([[1.0, 2.0], [3.0, 0.0]], [1, 1]).tolist()
    [nan, 0.5]
    """
    right, totals = _right_and_totals(scores, labels)
    return np.divide(right, totals, out=np.full(len(right), np.nan), where=totals > 0)


def mean_per_class_accuracy(
    scores: ArrayLike, labels: ArrayLike, *, z: float = 1.959964
) -> tuple[float, tuple[float, float]]:
    """The mean over the classes that occur of the share classified right, and its interval.

    Every class counts alike, however many examples it has: balanced accuracy. The interval (95 %
    with `z` = 1.96) is normal, with the variance of a mean of independent shares, each taken with
    one right and one wrong example added, so that a class without mistakes is not certain.
    Arguments and errors are those of `accuracy`.

    >>> mean_per_class_accuracy([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0]], [0, 0, 1])[0]
    0.5
    """
    right, totals = _right_and_totals(scores, labels)
    occurring = totals > 0
    right, totals = right[occurring], totals[occurring]
    mean = float(np.mean(right / totals))
    shares = (right + 1) / (totals + 2)
    spread = math.sqrt(float(np.sum(shares * (1 - shares) / totals))) / len(totals)
    return mean, (max(0.0, mean - z * spread), min(1.0, mean + z * spread))


def confusion_matrix(scores: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """(K, K) counts: row = true class, column = predicted class.

    An example without a predicted class is in no column: the sum is smaller than N by their
    number. Arguments and errors are those of `accuracy`.

    >>> confusion_matrix([[1.0, 2.0], [3.0, 0.0]], [1, 1]).tolist()
    [[0, 0], [1, 1]]
    """
    scores, labels = _checked(scores, labels)
    classes = scores.shape[1]
    guesses = predicted_classes(scores)
    cells = (labels.astype(np.int64) * classes + guesses)[guesses >= 0]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def log_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log of the probability of the true class, in nats.

    Rows are divided by their sum. Arguments and errors are those of `accuracy`; a row without
    a sum (NaN, or all zeros) raises ValueError too.

    >>> round(log_loss([[0.25, 0.75]], [0]), 4)
    1.3863
    """
    from sklearn.metrics import log_loss as sklearn_log_loss

    given, labels = _checked(probabilities, labels, name="probabilities")
    given = given.astype(np.float64)
    sums = given.sum(axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(sums) & (sums > 0)))
    if wrong.size:
        raise ValueError(
            f"`probabilities` must have a positive sum in every row, got {sums[wrong[0], 0]} at "
            f"row {wrong[0]} ({wrong.size} such rows). Leave rows without probabilities out."
        )
    return float(sklearn_log_loss(labels, given / sums, labels=range(given.shape[1])))


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15
) -> float:
    """Mean distance between confidence and accuracy over equally wide bins of confidence.

    Confidence is the highest probability; each bin counts by its share of the examples. Examples
    without a predicted class have no confidence and are left out (NaN if that is all of them).
    Arguments and errors are those of `accuracy`.

    Source: Naeini, Cooper and Hauskrecht (2015), AAAI; Guo et al. (2017), ICML, with 15 bins.

    >>> round(expected_calibration_error([[0.8, 0.2], [0.8, 0.2]], [0, 1]), 2)
    0.3
    """
    probabilities, labels = _checked(probabilities, labels, name="probabilities")
    guesses = predicted_classes(probabilities)
    known = guesses >= 0
    if not known.any():
        return float("nan")
    confidence = probabilities.astype(np.float64)[known].max(axis=1)
    right = guesses[known] == labels[known]
    cell = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(cell, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def wilson_interval(share: float, trials: int, *, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a share observed in `trials` independent trials.

    `z` = 1.96 makes it a 95 % interval. It stays inside [0, 1], also at shares of 0 and 1.

    Source: Wilson (1927), JASA 22, 209-212.

    >>> [round(end, 4) for end in wilson_interval(0.5, 100)]
    [0.4038, 0.5962]
    """
    center = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    half = spread / (1 + z**2 / trials)
    return max(0.0, center - half), min(1.0, center + half)


def _matrix(scores: ArrayLike, *, name: str = "scores") -> np.ndarray:
    scores = np.asarray(scores)
    scores = scores.astype(np.promote_types(scores.dtype, np.float32), copy=False)
    if scores.ndim != 2 or not scores.shape[1]:
        raise ValueError(
            f"`{name}` must be (N, K), one row per example and one column per class, got shape "
            f"{scores.shape}."
        )
    return scores


def _checked(
    scores: ArrayLike, labels: ArrayLike, *, name: str = "scores"
) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays that fit together, or one sentence about what is wrong."""
    scores, labels = _matrix(scores, name=name), np.asarray(labels)
    examples, classes = scores.shape
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"`labels` must be integer classes, got {labels.dtype}. "
            "Turn one-hot labels into classes with `labels.argmax(-1)`."
        )
    if labels.shape != (examples,):
        raise ValueError(
            f"`labels` must have one entry per row of `{name}`, ({examples},), got {labels.shape}."
        )
    if not examples:
        raise ValueError(f"`{name}` is empty: nothing can be said of no examples.")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise ValueError(
            f"`labels` must be integers in [0, {classes}), one of the columns of `{name}`, got "
            f"{labels[wrong[0]]} at row {wrong[0]}. Leave rows without a known class out."
        )
    return scores, labels


def _right_and_totals(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(K,) and (K,): how many examples of each class are classified right, and how many it has."""
    scores, labels = _checked(scores, labels)
    hits = labels[predicted_classes(scores) == labels]
    classes = scores.shape[1]
    return np.bincount(hits, minlength=classes), np.bincount(labels, minlength=classes)
