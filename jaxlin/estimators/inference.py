r"""How far coefficients may be off by the chance of a sample, where theory says it.

The coefficients of least mean loss without a penalty are those of greatest likelihood. In large
samples their covariance is the inverse of the observed information (Efron and Hinkley, 1978,
doi:10.1093/biomet/65.3.457), the second derivative of the loss summed over the rows,

    I = sum_i n_i (diag p_i - p_i p_i^T) kron x_i x_i^T,     x_i with a 1 for a free intercept.

A common shift of all classes changes no probability. The rows of `coef_` are the ones that sum to
zero, and I is inverted among these; two classes have one row, which is their difference.

A penalty pulls coefficients towards zero: they are biased by an amount that their covariance does
not know, and intervals around them cover the truth less often than they say. With absolute values
coefficients are chosen by the same rows, too. No formula mends that; the bootstrap measures what
the sample does to such a fit.
"""

__all__ = ["StandardErrors", "standard_errors"]

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse
from sklearn.utils.validation import check_is_fitted

from jaxlin.estimators.validation import checked_training_data, counts_of

MOST = 4000
"""Coefficients whose information is formed and inverted: 128 MB, some seconds."""
OFF = 0.05
"""Standard errors by which the coefficients may miss the greatest likelihood of the rows."""
DEPENDENT = 1e-10
"""Least eigenvalue of the information, of features in units of their spread, and of the largest."""


class StandardErrors(NamedTuple):
    """Standard deviations of the estimates, in the shapes of what they belong to."""

    coef: np.ndarray
    """(K, D), or (1, D) for two classes."""
    intercept: np.ndarray
    """(K,) or (1,); 0 where it is fixed."""


def standard_errors(model: Any, X: Any, y: Any, sample_weight: Any = None) -> StandardErrors:
    """See `SoftmaxClassifier.standard_errors`."""
    check_is_fitted(model, "coef_")
    if model.strength_ > 0 or model.class_weight is not None:
        raise ValueError(_refusal(model))
    X, y = checked_training_data(model, X, y, reset=False)
    counts = counts_of(model, X, y, model.classes_, sample_weight)
    classes, features = len(model.classes_), X.shape[1]
    if (classes - 1) * (features + 1) > MOST:
        raise ValueError(
            f"`X` has {features:,} features and {classes:,} classes: the information of more than "
            f"{MOST:,} coefficients is not formed. Keep fewer features."
        )
    rows = (X.toarray() if scipy.sparse.issparse(X) else np.asarray(X)).astype(np.float64)
    scores = np.asarray(model.decision_function(X), np.float64)
    if scores.ndim == 1:
        scores = np.stack([-scores, scores], axis=1) / 2
    own = np.asarray(y)[:, None] == model.classes_[None, :]
    if not own.any(1).all():
        raise ValueError("`y` holds labels that the model was not fitted to. Fit it to these rows.")
    _refuse_separated(scores[counts > 0], own[counts > 0])

    center = counts @ rows / counts.sum() if model.fit_intercept else np.zeros(features)
    spread = np.sqrt(counts @ (rows - center) ** 2 / counts.sum())
    units = np.where(spread > 0, spread, 1.0)
    design = (rows - center) / units
    if model.fit_intercept:
        design = np.column_stack([design, np.ones(len(design))])
    contrasts = _contrasts(classes)
    probabilities = scipy.special.softmax(scores, axis=1)
    information = _information(design, probabilities, counts, contrasts)
    slope = ((probabilities - own) * counts[:, None]) @ contrasts
    covariance = _inverse(information)
    gradient = (slope.T @ design).ravel()
    off = np.sqrt(max(gradient @ covariance @ gradient, 0.0))
    if not off <= OFF:
        raise ValueError(
            f"The coefficients are not where these rows are likeliest, but {off:.2g} standard "
            "errors away. Give the rows, labels and weights that they were fitted to, or fit them "
            "with a smaller `tol`."
        )
    side = design.shape[1]
    # of the coefficients as they stand: in the units of the features, intercepts at zero
    back = np.zeros((side, side))
    back[np.arange(features), np.arange(features)] = 1 / units
    if model.fit_intercept:
        back[-1] = np.append(-center / units, 1.0)
    one = contrasts if classes > 2 else contrasts[1:] - contrasts[:1]
    blocks = covariance.reshape(classes - 1, side, classes - 1, side)
    within = np.einsum("ka,aibj,kb->kij", one, blocks, one)
    variances = np.einsum("ri,kij,rj->kr", back, within, back)
    errors = np.sqrt(np.maximum(variances, 0))
    intercept = errors[:, -1] if model.fit_intercept else np.zeros(len(errors))
    return StandardErrors(errors[:, :features], intercept)


def _refusal(model: Any) -> str:
    if model.strength_ > 0:
        return (
            f"A penalty (C={model.C_:g}) pulls coefficients towards zero, and no theory says how "
            "far from the truth that leaves them: they have no standard errors. Fit with C=np.inf "
            "and l1_ratio=0, or take the bootstrap of the penalized fit."
        )
    return (
        "`class_weight` counts rows for what they are not: the coefficients are not those of their "
        "greatest likelihood. Fit with class_weight=None; `sample_weight` may say how often a row "
        "was seen."
    )


def _refuse_separated(scores: np.ndarray, own: np.ndarray) -> None:
    """Where a hyperplane parts a class from all others there is no greatest likelihood."""
    leads = scores - scores.mean(1, keepdims=True)
    inside, outside = np.where(own, leads, np.inf).min(0), np.where(own, -np.inf, leads).max(0)
    right = (scores * own).sum(1) > np.where(own, -np.inf, scores).max(1)
    if (inside > outside).any() or right.all():
        raise ValueError(
            "The classes, or one and all others, are separable: larger coefficients are always "
            "likelier, and none has a standard error. Collect rows that overlap, or drop features."
        )


def _contrasts(classes: int) -> np.ndarray:
    """(K, K - 1): orthonormal columns that sum to zero."""
    return scipy.linalg.helmert(classes).T


def _information(
    design: np.ndarray, probabilities: np.ndarray, counts: np.ndarray, contrasts: np.ndarray
) -> np.ndarray:
    """Of the coefficients along the contrasts, class by class."""
    along, side = contrasts.shape[1], design.shape[1]
    means = probabilities @ contrasts
    blocks = np.zeros((along, side, along, side))
    for a in range(along):
        for b in range(a, along):
            bend = probabilities @ (contrasts[:, a] * contrasts[:, b]) - means[:, a] * means[:, b]
            blocks[a, :, b] = blocks[b, :, a] = (design.T * (counts * bend)) @ design
    return blocks.reshape(along * side, -1)


def _inverse(information: np.ndarray) -> np.ndarray:
    values, vectors = scipy.linalg.eigh(information)
    if not values[0] > DEPENDENT * values[-1]:
        raise ValueError(
            "The features depend on one another (or are constant beside the intercept): many "
            "coefficients are as likely, and none has a standard error. Drop the features that "
            "others already say."
        )
    return (vectors / values) @ vectors.T
