"""Multiclass support vector machines with the interface of `LinearSVC`."""

__all__ = ["MulticlassSVMClassifier", "SVMLoss"]

from typing import Any

import numpy as np

from jaxlin.core import LinearParams, Solution
from jaxlin.estimators.certified import CertifiedClassifier
from jaxlin.estimators.interop import linear_svc_of, take_over
from jaxlin.estimators.plain import PlainClassifier
from jaxlin.losses import LOSSES

HINGES = tuple(name for name in LOSSES if name != "softmax")
WITHOUT_KINKS = "squared-hinge", "squared-one-vs-rest"


class SVMLoss(CertifiedClassifier):
    """Which hinge it is, and the machine of scikit-learn with its coefficients."""

    loss: str

    def _loss(self) -> str:
        if self.loss not in HINGES:
            raise ValueError(f"`loss` must be one of {', '.join(HINGES)}, got {self.loss!r}.")
        return self.loss

    def _solve(
        self,
        X: Any,
        labels: np.ndarray,
        counts: np.ndarray,
        strength: float,
        ratio: float,
        init: LinearParams | None,
        offsets: Any = None,
    ) -> Solution:
        if strength == 0 and not self._loss().startswith("squared"):
            raise ValueError(
                f"loss={self.loss!r} has kinks and needs a penalty; an infinite `C`, or a "
                "`strength` of 0, is none. Set a finite `C`, such as 1e4."
            )
        return super()._solve(X, labels, counts, strength, ratio, init, offsets)

    def _penalty(self, strength: float, ratio: float) -> tuple[float, float]:
        if ratio and self._loss() not in WITHOUT_KINKS:
            name = "l1_ratio" if hasattr(self, "l1_ratio") else "l1_ratios"
            raise ValueError(
                f"`{name}` above 0 needs a loss without kinks, {' or '.join(WITHOUT_KINKS)}, got "
                f"loss={self.loss!r}. Set {name} to 0, or another `loss`."
            )
        return super()._penalty(strength, ratio)

    def _separate(self) -> bool:
        return self._loss().endswith("one-vs-rest")

    def to_sklearn(self) -> Any:
        """A `sklearn.svm.LinearSVC` with these coefficients, on the host; it predicts the same.

        >>> model = MulticlassSVMClassifier().fit([[0.0], [1.0], [2.0]], ["a", "b", "b"])
        >>> model.to_sklearn().predict([[2.0]])
        array(['b'], dtype='<U1')
        """
        return linear_svc_of(self)


class MulticlassSVMClassifier(SVMLoss, PlainClassifier):
    """A linear support vector machine over all classes at once, fitted to a certified optimum.

        objective = weighted mean of loss(scores, label) + strength * sum(W**2)

    with a free intercept, which, unlike in `LinearSVC`, is not penalized. For two classes the
    plain hinges give `SVC(kernel="linear", C=C)`.

    Args:
      C: inverse strength, 1 / (2 * N * strength) with N the sum of the weights (1 / (N *
        strength) for two classes that share one vector, as in `SVC`). Default 1. Infinity, for
        no penalty and no certificate, only with the squared losses.
      strength: of the penalty, instead of `C`: it does not change meaning with N.
      l1_ratio: the share of absolute values in the penalty, which is
        ((1 - l1_ratio) / 2 * sum(coef_**2) + l1_ratio * sum(abs(coef_))) / (C * N), as in
        `LogisticRegression`: 0 for squares alone (ridge), 1 for the lasso, between them the elastic
        net. Coefficients that do not help are 0 exactly. Above 0 only with
        "squared-hinge" and "squared-one-vs-rest".
      loss: "hinge" (Weston-Watkins, the sum over the wrong classes), "crammer-singer" (the worst
        of them), "one-vs-rest" (K machines side by side, as `LinearSVC`), and "squared-hinge",
        "squared-crammer-singer", "squared-one-vs-rest" (the default loss of `LinearSVC`).
      fit_intercept: `False` keeps the intercept at 0.
      class_weight: {label: weight}, or "balanced" for weights that give every class the same
        sum; they multiply the sample weights.
      tol: relative gap at which to stop, `gap_ <= tol * objective_`.
      max_iter: most steps of the solver.
      warm_start: start from the last fit, if classes and features are the same.
      random_state: order of the rows in `partial_fit`; `fit` draws nothing that changes.
      verbose: 1 prints objective, lower bound and gap on the way.

    Attributes:
      coef_: (K, D), or (1, D) for two classes; of the data's floating type.
      intercept_: (K,) or (1,).
      classes_: (K,), sorted.
      objective_, lower_bound_: the least possible objective lies between them. For two classes
        the objective is that of the rows (-coef_ / 2, coef_ / 2), or (-coef_, coef_) for
        one-vs-rest.
      gap_: their difference, a proved bound on the distance to the optimum.
      converged_: whether `tol` was met.
      n_iter_: steps taken.
      C_, strength_: the regularization in both units.
      takes_offsets_: whether it was fitted with offsets, which predictions then need.
      n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MulticlassSVMClassifier(loss="crammer-singer").fit(X, y)
    >>> model.gap_ <= 1e-4 * model.objective_, round(model.score(X, y), 2)
    (True, 0.99)
    """

    def __init__(
        self,
        C: float | None = None,
        *,
        strength: float | None = None,
        l1_ratio: float = 0.0,
        loss: str = "hinge",
        fit_intercept: bool = True,
        class_weight: dict | str | None = None,
        tol: float = 1e-4,
        max_iter: int = 1000,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.C = C
        self.strength = strength
        self.l1_ratio = l1_ratio
        self.loss = loss
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @classmethod
    def from_sklearn(cls, fitted: Any) -> "MulticlassSVMClassifier":
        """The same classifier as a fitted `LinearSVC` or binary `SVC(kernel="linear")`.

        With `warm_start=True` set, `fit` on the same data goes on from there.

        Raises:
          TypeError: `fitted` is no fitted linear classifier.
        """
        return take_over(cls, fitted)
