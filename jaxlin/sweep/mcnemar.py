"""Two classifiers on the same examples: what the pairs say that two intervals cannot.

Intervals of two accuracies overlap long after the difference is certain, because most examples
are right (or wrong) for both. Only those on which the two differ tell.
"""

__all__ = ["Comparison", "compare", "p_value_in_words"]

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Comparison(NamedTuple):
    """The first classifier against the second."""

    examples: int
    first_accuracy: float
    second_accuracy: float
    only_first: int
    """Examples that only the first classifies right."""
    only_second: int
    difference: float
    """First accuracy minus second."""
    interval: tuple[float, float]
    """95 % interval of the difference."""
    p_value: float
    """Exact McNemar test of no difference: how often chance alone would split the differing
    examples at least this unevenly."""


def compare(first: ArrayLike, second: ArrayLike, labels: ArrayLike) -> Comparison:
    """Compare predicted classes `first` and `second` (N,) on the same examples' `labels` (N,).

    Raises:
      ValueError: the three differ in length, or are empty.

    Source: McNemar (1947), Psychometrika 12, 153-157, as the exact binomial test; the interval
      is Bonett and Price's adjusted Wald (2012), J. Educ. Behav. Stat. 37, 479-488.

    >>> found = compare([0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 1, 1])
    >>> found.difference, found.only_first, found.p_value
    (0.5, 2, 0.5)
    """
    first, second, labels = (np.asarray(part) for part in (first, second, labels))
    if not (first.shape == second.shape == labels.shape) or labels.ndim != 1 or not len(labels):
        raise ValueError(
            "Both predictions and the labels must have one entry per example, got shapes "
            f"{first.shape}, {second.shape} and {labels.shape}."
        )
    from scipy.stats import binomtest

    a, b, examples = first == labels, second == labels, len(labels)
    only_first, only_second = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    p, q = (only_first + 1) / (examples + 2), (only_second + 1) / (examples + 2)
    half = 1.959964 * math.sqrt((p + q - (p - q) ** 2) / (examples + 2))
    return Comparison(
        examples,
        float(a.mean()),
        float(b.mean()),
        only_first,
        only_second,
        (only_first - only_second) / examples,
        (max(-1.0, p - q - half), min(1.0, p - q + half)),
        p_value,
    )


def p_value_in_words(p_value: float) -> str:
    """A p-value as it is reported: no chance is 0, but some are too small for a float64.

    >>> p_value_in_words(0.0312), p_value_in_words(0.0)
    ('p = 0.0312', 'p < 1e-300')
    """
    return f"p = {p_value:.3g}" if p_value > 1e-300 else "p < 1e-300"
