"""Measuring a model on a part of the data: from its scores, or block by block without them."""

__all__ = ["accuracy_and_loss", "measure", "measure_in_blocks"]

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxlin import metrics, models
from jaxlin.data import Dataset
from jaxlin.distributed.processes import all_reduce
from jaxlin.prefetch import prefetch
from jaxlin.runs import hosts
from jaxlin.runs.folder import loss_values, probabilities

SCORE_BYTES = 64 << 20


def accuracy_and_loss(data: Dataset, loss: Callable[..., Any], scores: np.ndarray) -> dict:
    """Accuracy with its interval, the mean loss, and how many rows have a score that is NaN."""
    accuracy = metrics.accuracy(scores, data.labels)
    values = loss_values(loss, scores, data.labels)
    return {
        "accuracy": accuracy,
        "accuracy_interval": list(metrics.wilson_interval(accuracy, len(data.labels))),
        "loss": float(values.mean(dtype=np.float64)),
        "n": len(data.labels),
        "n_without_score": int(np.sum(metrics.predicted_classes(scores) < 0)),
    }


def measure(
    model: models.Model, data: Dataset, loss: Callable[..., Any], scores: np.ndarray
) -> dict:
    """Everything `results.json` says of a part of the data that was not trained on."""
    measured = accuracy_and_loss(data, loss, scores)
    per_class = metrics.per_class_accuracy(scores, data.labels)
    names = model.class_names
    measured["per_class"] = {
        name: None if np.isnan(share) else float(share)
        for name, share in zip(names, per_class, strict=True)
    }
    if len(names) > 5:
        measured["top_5_accuracy"] = metrics.top_k_accuracy(scores, data.labels, k=5)
    if model.loss == "softmax":
        measured["calibration_error"] = metrics.expected_calibration_error(
            probabilities(scores), data.labels
        )
    if len(names) <= 200:
        measured["confusion"] = metrics.confusion_matrix(scores, data.labels).tolist()
    return measured


def measure_in_blocks(model: models.Model, data: Dataset, loss: Callable[..., Any]) -> dict:
    """Accuracy with its interval, mean loss, accuracy by class and among the first five.

    The inputs are read once, by every process its own; no more than a block of scores is held.
    """
    classes, examples = len(model.class_names), len(data.labels)
    inputs, own_labels = hosts.own_part(data.inputs), hosts.own_part(data.labels)
    rows = max(4096, SCORE_BYTES // (4 * classes) // 4096 * 4096)
    right, of_class, first_five, total = np.zeros(classes, int), np.zeros(classes, int), 0.0, 0.0
    without = 0

    def read(start: int) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(inputs[start : start + rows]), own_labels[start : start + rows]

    for block, labels in prefetch(read, range(0, len(own_labels), rows)):
        scores = models.scores(model, block)
        guesses = metrics.predicted_classes(scores)
        hit, without = guesses == labels, without + int(np.sum(guesses < 0))
        right += np.bincount(labels[hit], minlength=classes)
        of_class += np.bincount(labels, minlength=classes)
        total += float(loss_values(loss, scores, labels).sum(dtype=np.float64))
        if classes > 5:
            first_five += metrics.top_k_accuracy(scores, labels, k=5) * len(labels)
    sums = [first_five, total, without]
    counts = all_reduce(np.concatenate([right, of_class, sums]), "sum")
    right, of_class, (first_five, total, without) = np.split(counts, [classes, 2 * classes])
    accuracy = float(right.sum() / examples)
    measured = {
        "accuracy": accuracy,
        "accuracy_interval": list(metrics.wilson_interval(accuracy, examples)),
        "loss": total / examples,
        "n": examples,
        "n_without_score": int(without),
        "per_class": {
            name: float(hits / count) if count else None
            for name, hits, count in zip(model.class_names, right, of_class, strict=True)
        },
    }
    return measured | ({"top_5_accuracy": first_five / examples} if classes > 5 else {})
