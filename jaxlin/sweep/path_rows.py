"""The rows that a path of strengths is fitted to: which examples, which columns, in which basis."""

__all__ = ["PathRows", "few_shot_rows"]

from typing import Any

import numpy as np
import scipy.linalg

from jaxlin import preprocess
from jaxlin.core import Batch, LinearParams
from jaxlin.data.rows import RESIDENT_BYTES, take
from jaxlin.preprocess import Preprocessing
from jaxlin.sweep.heads import Head


def few_shot_rows(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Rows of `shots` examples of each class, drawn by `seed`; fewer shots are a part of more.

    Raises:
      ValueError: a class has fewer examples.

    >>> few_shot_rows(np.array([0, 1, 0, 1, 1]), 2, seed=0).tolist()
    [0, 1, 2, 3]
    """
    order = np.random.default_rng([seed, 0x5407]).permutation(len(labels))
    sorted_labels = np.asarray(labels)[order]
    rows = []
    for label in np.unique(labels):
        own = order[sorted_labels == label]
        if len(own) < shots:
            raise ValueError(
                f"Class {label} has {len(own)} training examples, fewer than the {shots} of the "
                "few-shot sweep. Ask for fewer shots, or keep fewer examples for validation."
            )
        rows.append(own[:shots])
    return np.sort(np.concatenate(rows))


class PathRows:
    """The rows of a path: its examples and its columns, in the coordinates it is solved in."""

    def __init__(self, head: Head, data: Batch, statistics: Preprocessing, *, rotate: bool):
        self.loss, self.features = head.loss, data.inputs.shape[1]
        self.columns = head.subset.mask(self.features)
        self.labels, self.weights = np.asarray(data.labels), data.weights
        self.span: np.ndarray | None = None
        inputs: Any = data.inputs
        parts = [np.asarray(part) for part in (statistics.shift, statistics.scale)]
        if head.shots is not None:
            rows = few_shot_rows(self.labels, head.shots, head.seed)
            inputs, self.labels = np.asarray(take(inputs, rows)[:]), self.labels[rows]
            self.weights = None if self.weights is None else np.asarray(self.weights)[rows]
        if not self.columns.all():
            held = isinstance(inputs, np.ndarray)
            inputs = inputs[:, self.columns] if held else _Columns(inputs, self.columns)
            parts = [part[self.columns] for part in parts]
        self.inputs, self.statistics = inputs, Preprocessing(statistics.kind, *parts)
        if rotate and inputs.shape[0] < inputs.shape[1]:
            self._rotate()

    def _rotate(self) -> None:
        """With fewer rows than columns the weights lie in the span of the rows: solve there."""
        mapped = (np.asarray(self.inputs, np.float64) - self.statistics.shift) * (
            self.statistics.scale
        )
        # Singular vectors of the small triangle, not of the wide rows: the same, and sooner.
        basis, triangle = scipy.linalg.qr(
            mapped.T, mode="economic", overwrite_a=True, check_finite=False
        )
        left, sizes, right = np.linalg.svd(triangle.T)
        kept = sizes > 1e-12 * max(sizes[0], 1e-300)
        self.span = right[kept] @ basis.T
        self.inputs = (left[:, kept] * sizes[kept]).astype(np.float32)
        self.statistics = preprocess.fit(self.inputs, "none")

    def inward(self, params: LinearParams) -> LinearParams:
        """Parameters of all columns in the coordinates of the problem."""
        weights = np.asarray(params.weights)[:, self.columns]
        return LinearParams(weights if self.span is None else weights @ self.span.T, params.bias)

    def outward(self, params: LinearParams) -> LinearParams:
        """Parameters of the problem in all columns, 0 outside of the subset."""
        weights = np.asarray(params.weights)
        own = weights if self.span is None else (weights @ self.span).astype(weights.dtype)
        full = np.zeros((len(own), self.features), own.dtype)
        full[:, self.columns] = own
        return LinearParams(full, np.asarray(params.bias))


class _Columns:
    """Some columns of a source of rows, read with all others and cut out."""

    def __init__(self, source: Any, columns: np.ndarray):
        self.source, self.columns, self.dtype = source, columns, source.dtype
        self.shape = (source.shape[0], int(columns.sum()))
        share = self.shape[1] / source.shape[1]
        self.resident_bytes = int(share * getattr(source, "resident_bytes", RESIDENT_BYTES))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(self.source[rows])[..., self.columns])
