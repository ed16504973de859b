"""The mean of a smooth loss and its gradient: one pass over the rows, for one fit or for several.

Fits over the same rows that differ in the weights of the examples (the folds of a
cross-validation) are answered together: their classes are stacked, so that the rows are read once.
"""

__all__ = ["Question", "mean_loss", "mean_losses", "rows_asked"]

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from jaxlin.solvers.dual_losses import DualForm, module_of, own_of
from jaxlin.solvers.problem import Problem


class Question(NamedTuple):
    """Parameters whose mean loss is wanted."""

    problem: Problem
    weights: np.ndarray
    """(K, D)."""
    bias: np.ndarray
    """(K,)."""
    dtype: np.dtype
    """Of the arithmetic."""


def mean_loss(
    problem: Problem, weights: np.ndarray, bias: np.ndarray, dtype: DTypeLike
) -> tuple[float, np.ndarray, np.ndarray]:
    """The mean loss, its gradient in the weights and in the bias (zero where that is fixed)."""
    return mean_losses([Question(problem, weights, bias, np.dtype(dtype))])[0]


def rows_asked(question: Question) -> tuple:
    """Equal for questions that one pass can answer."""
    problem = question.problem
    return id(problem.rows), id(problem.labels), question.weights.shape, question.dtype


def mean_losses(questions: list[Question]) -> list:
    """The answers, as `mean_loss` gives them, to questions of equal `rows_asked`, from one pass."""
    first, count = questions[0].problem, len(questions)
    xp = module_of(questions[0].weights)
    padded = questions + questions[:1] * (_bank_size(count) - count)
    found = first.rows.fused(
        _rowwise_of(first.form, len(padded)),
        _first_or_stacked([q.weights for q in padded], xp.concatenate),
        _first_or_stacked([q.bias for q in padded], xp.concatenate),
        first.labels,
        _first_or_stacked([q.problem.counts for q in padded], np.stack),
        first.margin,
        dtype=questions[0].dtype,
    )
    if count == 1:
        parts = [found]
    else:
        apart = (module_of(x).split(x, len(padded)) for x in found)
        parts = list(zip(*apart, strict=True))
    return [_answer(q.problem, *part) for q, part in zip(questions, parts, strict=False)]


def _answer(
    problem: Problem, value: float, gradient: np.ndarray, sums: Any
) -> tuple[float, np.ndarray, np.ndarray]:
    """Where a common shift of all classes changes no loss, the gradients of the classes sum to 0:
    the rest is rounding, which has no curvature of its own to be held against."""
    if problem.form.geometry != "one-vs-rest":
        gradient, sums = gradient - gradient.mean(0)[None, :], sums - sums.mean()
    return float(np.squeeze(value)), gradient, sums if problem.fit_intercept else 0 * sums


def _first_or_stacked(parts: list[Any], stack: Callable[..., Any]) -> Any:
    return parts[0] if len(parts) == 1 else stack(parts)


def _bank_size(count: int) -> int:
    """Powers of two, so that a bank that empties compiles few programs."""
    return 1 << (count - 1).bit_length()


@cache
def _rowwise_of(form: DualForm, count: int) -> Callable[..., Any]:
    """(xp, scores, labels, counts, margin) -> summed losses and their derivatives in the scores."""
    if count == 1:
        return partial(_value_and_residuals, form)

    def of_bank(xp: Any, scores: Any, labels: Any, counts: Any, margin: float) -> tuple[Any, Any]:
        found = [
            _value_and_residuals(form, xp, part, labels, weights, margin)
            for part, weights in zip(xp.split(scores, count), counts, strict=True)
        ]
        return xp.stack([value for value, _ in found]), xp.concatenate([r for _, r in found])

    return of_bank


def _value_and_residuals(
    form: DualForm, xp: Any, scores: Any, labels: Any, counts: Any, margin: float
) -> tuple[Any, Any]:
    own = own_of(xp, labels, scores.shape[0])
    losses, residuals = form.loss_and_residuals(xp, scores, own, margin)
    return (counts * losses).sum(), residuals * counts[None, :]
