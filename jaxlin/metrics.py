"""Metrics: how good finished scores are. NumPy on the host; scikit-learn where it has them.

`scores` (N, K) are what a score function gave, `labels` (N,) the true classes in [0, K).
Softmax probabilities are asked for where a metric needs them: hinge scores are none.
"""

__all__ = [
    "accuracy",
    "confusion_matrix",
    "expected_calibration_error",
    "log_loss",
    "mean_per_class_accuracy",
    "per_class_accuracy",
    "top_k_accuracy",
    "wilson_interval",
]

import math

import numpy as np
from numpy.typing import ArrayLike


def accuracy(scores: ArrayLike, labels: ArrayLike) -> float:
    """Share of examples whose highest score is that of the true class (ties: the first).

    >>> accuracy([[1.0, 2.0], [3.0, 0.0]], [1, 1])
    0.5
    """
    return float(np.mean(np.argmax(scores, axis=1) == np.asarray(labels)))


def top_k_accuracy(scores: ArrayLike, labels: ArrayLike, *, k: int = 5) -> float:
    """Share of examples whose true class is among the k highest scores.

    A class that ties with the true one counts as ahead of it, so that constant scores do not
    look like knowledge.

    >>> top_k_accuracy([[3.0, 2.0, 1.0]], [1], k=2)
    1.0
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"`k` must be between 1 and the {scores.shape[1]} classes, got {k}.")
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    ahead = np.sum(scores >= own, axis=1) - 1
    return float(np.mean(ahead < k))


def per_class_accuracy(scores: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """(K,): share of each class's examples that are classified right; NaN for an absent class.

    >>> per_class_accuracy([[1.0, 2.0], [3.0, 0.0]], [1, 1]).tolist()
    [nan, 0.5]
    """
    matrix = confusion_matrix(scores, labels)
    totals = matrix.sum(axis=1)
    right = np.diag(matrix)
    return np.divide(right, totals, out=np.full(len(right), np.nan), where=totals > 0)


def mean_per_class_accuracy(
    scores: ArrayLike, labels: ArrayLike, *, z: float = 1.959964
) -> tuple[float, tuple[float, float]]:
    """The mean over the classes that occur of the share classified right, and its interval.

    Every class counts alike, however many examples it has: balanced accuracy. The interval (95 %
    with `z` = 1.96) is normal, with the variance of a mean of independent shares, each taken with
    one right and one wrong example added, so that a class without mistakes is not certain.

    >>> mean_per_class_accuracy([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0]], [0, 0, 1])[0]
    0.5
    """
    matrix = confusion_matrix(scores, labels)
    totals = matrix.sum(axis=1)
    occurring = totals > 0
    right, totals = np.diag(matrix)[occurring], totals[occurring]
    mean = float(np.mean(right / totals))
    shares = (right + 1) / (totals + 2)
    spread = math.sqrt(float(np.sum(shares * (1 - shares) / totals))) / len(totals)
    return mean, (max(0.0, mean - z * spread), min(1.0, mean + z * spread))


def confusion_matrix(scores: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """(K, K) counts: row = true class, column = predicted class.

    >>> confusion_matrix([[1.0, 2.0], [3.0, 0.0]], [1, 1]).tolist()
    [[0, 0], [1, 1]]
    """
    scores = np.asarray(scores)
    classes = scores.shape[1]
    cells = np.asarray(labels) * classes + scores.argmax(axis=1)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def log_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log of the probability of the true class, in nats.

    >>> round(log_loss([[0.25, 0.75]], [0]), 4)
    1.3863
    """
    from sklearn.metrics import log_loss as sklearn_log_loss

    probabilities = np.asarray(probabilities, np.float64)
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    return float(sklearn_log_loss(labels, probabilities, labels=range(probabilities.shape[1])))


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15
) -> float:
    """Mean distance between confidence and accuracy over equally wide bins of confidence.

    Confidence is the highest probability; each bin counts by its share of the examples.

    Source: Naeini, Cooper and Hauskrecht (2015), AAAI; Guo et al. (2017), ICML, with 15 bins.

    >>> round(expected_calibration_error([[0.8, 0.2], [0.8, 0.2]], [0, 1]), 2)
    0.3
    """
    probabilities = np.asarray(probabilities, np.float64)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == np.asarray(labels)
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
