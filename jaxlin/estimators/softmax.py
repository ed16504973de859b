"""Softmax regression with the interface of `LogisticRegression`."""

__all__ = ["SoftmaxClassifier", "SoftmaxPredictions"]

from typing import Any

import numpy as np
import scipy.special
from jax import Array

from jaxlin.estimators.certified import CertifiedClassifier
from jaxlin.estimators.inference import StandardErrors, standard_errors
from jaxlin.estimators.interop import logistic_regression_of, take_over
from jaxlin.estimators.plain import PlainClassifier
from jaxlin.estimators.validation import is_device_array


class SoftmaxPredictions(CertifiedClassifier):
    """Probabilities from the scores, for classifiers fitted with the softmax loss."""

    def predict_log_proba(self, X: Any, offsets: Any = None) -> np.ndarray | Array:
        """log of `predict_proba`, from the scores, so that no probability underflows; (N, K)."""
        scores = self.decision_function(X, offsets)
        if is_device_array(scores):
            import jax
            import jax.numpy as jnp

            if scores.ndim == 1:
                scores = jnp.stack([jnp.zeros_like(scores), scores], axis=1)
            return jax.nn.log_softmax(scores, axis=1)
        if scores.ndim == 1:
            scores = np.stack([np.zeros_like(scores), scores], axis=1)
        with np.errstate(under="ignore"):  # 0 is the nearest number
            return scipy.special.log_softmax(scores, axis=1)

    def predict_proba(self, X: Any, offsets: Any = None) -> np.ndarray | Array:
        """The estimated probability of each class, (N, K); rows sum to one.

        Args:
          X, offsets: as `decision_function` takes them.
        """
        logarithms = self.predict_log_proba(X, offsets)
        if is_device_array(logarithms):
            import jax.numpy as jnp

            return jnp.exp(logarithms)
        with np.errstate(under="ignore"):
            return np.exp(logarithms)

    def _loss(self) -> str:
        return "softmax"

    def to_sklearn(self) -> Any:
        """A `sklearn.linear_model.LogisticRegression` with these coefficients, on the host.

        It predicts the same, needs no JAX, and is what other tools know how to read.

        >>> model = SoftmaxClassifier().fit([[0.0], [1.0], [2.0]], ["a", "b", "b"])
        >>> model.to_sklearn().predict([[2.0]])
        array(['b'], dtype='<U1')
        """
        return logistic_regression_of(self)


class SoftmaxClassifier(SoftmaxPredictions, PlainClassifier):
    """Softmax (multinomial logistic) regression, fitted to a certified distance from the optimum.

        objective = weighted mean of -log softmax(scores)[label] + strength * sum(W**2)

    with a free intercept. `C` means what it does to `LogisticRegression`, whose optimum this is.

    Args:
      C: inverse strength, 1 / (2 * N * strength) with N the sum of the weights (1 / (N *
        strength) for two classes, as in scikit-learn). Default 1. Infinity means no penalty,
        and no certificate.
      strength: of the penalty, instead of `C`: it does not change meaning with N.
      l1_ratio: the share of absolute values in the penalty, which is
        ((1 - l1_ratio) / 2 * sum(coef_**2) + l1_ratio * sum(abs(coef_))) / (C * N), as in
        `LogisticRegression`: 0 for squares alone (ridge), 1 for the lasso, between them the elastic
        net. Coefficients that do not help are 0 exactly.
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
        the objective is that of the rows (-coef_ / 2, coef_ / 2).
      gap_: their difference, a proved bound on the distance to the optimum.
      converged_: whether `tol` was met.
      n_iter_: steps taken.
      C_, strength_: the regularization in both units.
      takes_offsets_: whether it was fitted with offsets, which predictions then need.
      n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = SoftmaxClassifier(tol=1e-6).fit(X, y)
    >>> model.gap_ <= 1e-6 * model.objective_, round(model.score(X, y), 2)
    (True, 0.97)
    """

    def __init__(
        self,
        C: float | None = None,
        *,
        strength: float | None = None,
        l1_ratio: float = 0.0,
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
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def standard_errors(self, X: Any, y: Any, sample_weight: Any = None) -> StandardErrors:
        """Standard errors of `coef_` and `intercept_`, from the observed information.

        Only of a fit without a penalty (C=np.inf), whose coefficients are those of greatest
        likelihood; others are refused, with the reason.

        Args:
          X, y, sample_weight: what the coefficients were fitted to. A weight k means that the row
            was seen k times.

        Returns:
          `coef` and `intercept`, in the shapes of `coef_` and `intercept_`.

        Raises:
          ValueError: there are none: a penalty, `class_weight`, separable classes, features that
            depend on one another, or other rows than those of the fit.

        Source: Efron and Hinkley (1978), doi:10.1093/biomet/65.3.457.

        >>> import warnings
        >>> X, y = np.repeat([[0.0], [0.0], [1.0], [1.0]], [4, 2, 1, 3], axis=0), [0] * 4 + [1] * 2
        >>> y = y + [0] + [1] * 3
        >>> with warnings.catch_warnings(action="ignore"):  # without a penalty no gap is proved
        ...     model = SoftmaxClassifier(C=np.inf, tol=1e-8).fit(X, y)
        >>> errors = model.standard_errors(X, y)  # of a log odds ratio: Woolf's
        >>> round(float(errors.coef[0, 0]), 6), round((1 / 4 + 1 / 2 + 1 / 1 + 1 / 3) ** 0.5, 6)
        (1.443376, 1.443376)
        """
        return standard_errors(self, X, y, sample_weight)

    @classmethod
    def from_sklearn(cls, fitted: Any) -> "SoftmaxClassifier":
        """The same classifier as a fitted `LogisticRegression` (or `...CV`), ready to predict.

        With `warm_start=True` set, `fit` on the same data goes on from there, and proves how
        far from the optimum scikit-learn had stopped.

        Raises:
          TypeError: `fitted` is no fitted linear classifier with softmax probabilities.

        >>> from sklearn.linear_model import LogisticRegression
        >>> theirs = LogisticRegression().fit([[0.0], [1.0], [2.0]], [0, 1, 1])
        >>> ours = SoftmaxClassifier.from_sklearn(theirs)
        >>> np.allclose(ours.predict_proba([[0.5]]), theirs.predict_proba([[0.5]]), rtol=1e-12)
        True
        """
        return take_over(cls, fitted)
