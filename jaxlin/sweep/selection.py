"""Choosing among heads: by validation alone, ties to the simpler head."""

__all__ = ["best", "pareto", "selection_weights"]

from collections.abc import Sequence

import numpy as np

from jaxlin.sweep.heads import FittedHead


def best(fitted: Sequence[FittedHead]) -> int:
    """The position of the head with the highest validation accuracy.

    Among equals the one of higher strength, then of lower validation loss, then the first. Heads
    that diverged are chosen only if all did.

    >>> from jaxlin.sweep import Head
    >>> heads = [FittedHead(Head(s), None, "done", 0.9) for s in (1e-4, 1e-2, 1e-3)]
    >>> best(heads)
    1
    """

    def quality(position: int) -> tuple[bool, float, float, float, int]:
        found = fitted[position]
        accuracy = found.validation_accuracy
        loss = found.validation_loss
        return (
            found.status != "diverged",
            -np.inf if accuracy is None else accuracy,
            found.head.strength,
            -np.inf if loss is None else -loss,
            -position,
        )

    return max(range(len(fitted)), key=quality)


def pareto(accuracies: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Positions of the points that no other beats in both: higher accuracy at a lower cost.

    Returns:
      Positions by rising cost.

    >>> pareto([0.9, 0.8, 0.95, 0.7], [2.0, 1.0, 3.0, 2.5])
    [1, 0, 2]
    """
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -accuracies[i]))
    front, highest = [], -np.inf
    for i in order:
        if accuracies[i] > highest:
            front.append(i)
            highest = accuracies[i]
    return front


def selection_weights(labels: np.ndarray, metric: str) -> np.ndarray | None:
    """(N,) weights under which the accuracy is `metric`: "accuracy" or "mean-per-class".

    >>> selection_weights(np.array([0, 0, 1]), "mean-per-class").tolist()
    [0.5, 0.5, 1.0]
    """
    if metric == "accuracy":
        return None
    if metric != "mean-per-class":
        raise ValueError(f"`metric` must be accuracy or mean-per-class, got {metric!r}.")
    return 1.0 / np.bincount(labels)[labels]
