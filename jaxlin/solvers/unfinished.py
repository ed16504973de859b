"""What a fit has learned between two of its steps, as plain arrays that can be saved.

A fit that goes on from them takes the very steps of one that was never left, bit for bit. A metric,
whose factors would fill a disk, is not among them: it is built again from the same rows, drawn by
the same seed, at the point where it was built before.
"""

__all__ = ["HingeFit", "L1Fit", "SmoothFit", "blank", "checked", "largest", "shapes_of"]

from typing import Any, NamedTuple

import numpy as np

from jaxlin.solvers.builder import SAMPLED_ROWS
from jaxlin.solvers.duals import form_of
from jaxlin.solvers.lbfgs import room
from jaxlin.solvers.problem import examples_of


class SmoothFit(NamedTuple):
    """Between two steps of a smooth loss, float64, over the classes that occur; n = K * D + K."""

    point: np.ndarray
    """(n,): the weights row by row, then the bias."""
    gradient: np.ndarray
    """(n,)"""
    best: np.ndarray
    """(n,): the point of least objective."""
    points: np.ndarray
    """(M, n): the pairs of L-BFGS."""
    gradients: np.ndarray
    """(M, n)"""
    lengths: np.ndarray
    """(up to 3,): how these pairs scale the metric."""
    decrements: np.ndarray
    """(S,): what each step in this metric was expected to gain."""
    built_weights: np.ndarray
    """(K, D): where the metric was built."""
    built_bias: np.ndarray
    """(K,)"""
    builder: np.ndarray
    """(7,): see `MetricBuilder.state`."""
    numbers: np.ndarray
    """(12,): objective, its least and the lower bound; gaps at which the next bounds are due; the
    length of the last step; evaluations; the least decrease expected so far; steps, steps in this
    metric, steps since that was halved; 1 once evaluations are in float64, -1 as long as they
    round products."""


class HingeFit(NamedTuple):
    """Between two steps of a loss with kinks, over the classes that occur; n = K * D + K."""

    weights: np.ndarray
    """(K, D) float64."""
    bias: np.ndarray
    """(K,) float64."""
    best_weights: np.ndarray
    """(K, D) float64: of the least objective."""
    best_bias: np.ndarray
    """(K,) float64."""
    scores: np.ndarray
    """(K, N) in the dtype of the arithmetic: they were added up step by step."""
    anchor: np.ndarray
    """(K, N): the dual point of the round before."""
    newton_rows: np.ndarray
    """(2, m) float64: the rows that Newton's preconditioner was built from and their weights."""
    newton_columns: np.ndarray
    """(2, K, m): their scores and anchor at that time."""
    newton: np.ndarray
    """(5,): the smoothing at that time, the steps it took when new, draws, rows to draw, the
    curvature of the spectrum (NaN for none)."""
    points: np.ndarray
    """(M, n) float64: the pairs of L-BFGS."""
    gradients: np.ndarray
    """(M, n) float64."""
    lengths: np.ndarray
    """(up to 3,)"""
    last: np.ndarray
    """(2, n) or (0, 0) float64: point and gradient before the last quasi-Newton step."""
    quasi_rows: np.ndarray
    """(2, m), like those of Newton's: what the quasi-Newton metric was built from."""
    quasi_columns: np.ndarray
    """(2, K, m)"""
    quasi: np.ndarray
    """(2,): the smoothing at that time, steps that it has served."""
    numbers: np.ndarray
    """(13,): smoothing, its floor, what is dear; least objective, lower bound, what is claimed and
    promised of it; evaluations, steps, stalled rounds; and in this round steps, those of
    quasi-Newton, short ones."""


class L1Fit(NamedTuple):
    """Between two steps with an l1 term, float64, over the classes that occur; n = K * D + K."""

    point: np.ndarray
    """(n,)"""
    gradient: np.ndarray
    """(n,), of the loss."""
    best: np.ndarray
    """(n,)"""
    points: np.ndarray
    """(M, n): the pairs of L-BFGS."""
    gradients: np.ndarray
    """(M, n)"""
    built: np.ndarray
    """(n,): where the metric was built."""
    free: np.ndarray
    """(K * D,) 0 or 1: the weights that were free there."""
    numbers: np.ndarray
    """(10,): objective, its least, lower bound, the gap at which the next is due; evaluations,
    steps, failures, steps in this metric; 1 once evaluations are in float64; damping."""


_KINDS = {kind.__name__: kind for kind in (SmoothFit, HingeFit, L1Fit)}


def shapes_of(carried) -> dict[str, Any]:
    """Kind, shapes and dtypes in JSON: what `blank` needs."""
    arrays = {name: [list(a.shape), a.dtype.name] for name, a in carried._asdict().items()}
    return {"kind": type(carried).__name__, "arrays": arrays}


def blank(shapes: dict[str, Any]):
    """Zeros of these shapes, to be filled from a file.

    >>> fit = L1Fit(*(np.ones(2) for _ in L1Fit._fields))
    >>> blank(shapes_of(fit)).best
    array([0., 0.])
    """
    arrays = {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes["arrays"].items()}
    return _KINDS[shapes["kind"]](**arrays)


def checked(carried, kind: type, problem):
    """`carried` itself, of a fit to this problem.

    Raises:
      ValueError: it is of another solver, or of other numbers of examples, features or classes.
    """
    wide = problem.classes, problem.features
    if isinstance(carried, kind):
        found = carried.weights.shape if kind is HingeFit else (carried.point.size,)
        same = found == (wide if kind is HingeFit else (wide[0] * (wide[1] + 1),))
        if same and (kind is not HingeFit or carried.scores.shape[1] == examples_of(problem)):
            return carried
    raise ValueError(
        f"`carried` is not of a fit of this kind and size ({type(carried).__name__}, for "
        f"{kind.__name__} of {wide[0]} classes and {wide[1]} features). Give what this very fit "
        "left, or leave it out."
    )


def largest(loss, *, l1: bool, examples: int, features: int, classes: int, dtype):
    """Arrays of the shapes that a fit leaves at most; they take no memory.

    >>> largest("softmax", l1=False, examples=9, features=2, classes=3, dtype="float32").point.shape
    (9,)
    """
    n, pairs = classes * (features + 1), room(classes * (features + 1))
    one, two = (n,), (pairs, n)
    if l1:
        shapes = L1Fit(one, one, one, two, two, one, one, (10,))
    elif form_of(loss).smooth:
        params = (classes, features), (classes,)
        shapes = SmoothFit(one, one, one, two, two, (3,), (1000,), *params, (7,), (12,))
    else:
        params, scores = ((classes, features), (classes,)), (classes, examples)
        drawn = min(examples, SAMPLED_ROWS)
        metric = (2, drawn), (2, classes, drawn)
        pairs = two, two, (3,), (2, n)
        shapes = *params, *params, scores, scores, *metric, (5,), *pairs, *metric, (2,), (13,)
        shapes = HingeFit(*shapes)
    own = ("scores", "anchor", "newton_columns", "quasi_columns")
    return type(shapes)(
        **{
            name: np.broadcast_to(np.zeros((), dtype if name in own else np.float64), shape)
            for name, shape in shapes._asdict().items()
        }
    )
