"""What both classifiers are: linear scores, fitted by `jaxlin.solvers.minimize`, with a proof."""

__all__ = ["CertifiedClassifier"]

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import Array
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from jaxlin.core import LinearParams, Solution
from jaxlin.estimators.offsets import by_class, with_offsets
from jaxlin.estimators.scoring import beside, scores_of
from jaxlin.estimators.validation import (
    check_number,
    checked_inputs,
    equivalent_C,
    is_device_array,
    one_class,
)
from jaxlin.solvers import Status, minimize, relative_gap

_REMEDY = {
    Status.MAX_ITERATIONS: "at `max_iter`={max_iter} steps. Raise `max_iter`, raise `tol` if "
    "this gap will do, or regularize more (a smaller `C`, a larger `strength`).",
    Status.PRECISION: "at the limit of the arithmetic. Raise `tol` above this gap{wider}, "
    "or regularize more (a smaller `C`, a larger `strength`).",
    Status.SEPARABLE: "because the classes, or parts of them, are separable and nothing is "
    "regularized: larger coefficients always do as well or better. Set a finite `C` (a `strength` "
    "above 0).",
    Status.NO_PROOF: "because without a regularizer no gap can be proved. "
    "Set a finite `C` (a `strength` above 0) for a proof.",
}
LEAST_TOL = 1e-13


class CertifiedClassifier(ClassifierMixin, BaseEstimator):
    """Solving and scoring. Subclasses say which loss, which data, and how to read the scores."""

    def decision_function(self, X: Any, offsets: Any = None) -> np.ndarray | Array:
        """Scores, (N, K); for two classes (N,), the lead of `classes_[1]`.

        Args:
          X: (N, D).
          offsets: what is added to the scores, in their shape. A model that was fitted with
            offsets needs those of these rows.
        """
        check_is_fitted(self, "coef_")
        X = checked_inputs(self, X, reset=False)
        return with_offsets(self, scores_of(X, self.coef_, self.intercept_), offsets)

    def predict(self, X: Any, offsets: Any = None) -> np.ndarray | Array:
        """The label of largest score for each row, (N,); `offsets` as `decision_function` has."""
        scores = self.decision_function(X, offsets)
        best = (scores > 0).astype(np.int32) if scores.ndim == 1 else scores.argmax(-1)
        if is_device_array(best) and np.issubdtype(self.classes_.dtype, np.number):
            import jax.numpy as jnp

            classes = jnp.asarray(self.classes_)
            if np.array_equal(classes, self.classes_):  # without x64 it holds 32 bits
                return classes[best]
        return self.classes_[np.asarray(best)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _loss(self) -> str:
        """The name of the loss, which every estimator says for itself."""
        raise NotImplementedError

    def _separate(self) -> bool:
        """Whether each class has a problem of its own: then two have it twice, s_1 = -s_0."""
        return False

    def _halves(self) -> float:
        """2 in C = 1 / (2 N strength), but 1 where one vector w stands for rows (w/2, -w/2).

        Then the penalty of the two rows is |w|^2 / 2, and scikit-learn's binary |w|^2 / (2 C N)
        needs twice the strength.
        """
        return 1.0 if len(self.classes_) == 2 and not self._separate() else 2.0

    def _penalty(self, strength: float, ratio: float) -> tuple[float, float]:
        """Strengths of |W|^2 and of |W|_1 where this one is that of the whole penalty.

        It is (1 - r) / 2 |w|^2 + r |w|_1, over C N, as scikit-learn has it: of the rows of W.
        """
        return (1 - ratio) * strength, self._halves() * ratio * strength

    def _settings(self) -> dict:
        """What every fit of this estimator is asked for, checked."""
        if not isinstance(self.max_iter, (int, np.integer)) or self.max_iter < 0:
            raise ValueError(f"`max_iter` must be a nonnegative integer, got {self.max_iter!r}.")
        check_number("tol", self.tol)
        if not LEAST_TOL <= self.tol < np.inf:
            raise ValueError(
                f"`tol` must be at least {LEAST_TOL:g}, the smallest relative gap that float64 can "
                f"certify, and finite, got {self.tol!r}."
            )
        return dict(
            loss=self._loss(),
            tolerance=self.tol,
            fit_intercept=bool(self.fit_intercept),
            max_iterations=int(self.max_iter),
            classes=len(self.classes_),
        )

    def _occurring(self, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """(K,) which classes count; at least two must."""
        occurring = np.bincount(labels, weights=counts, minlength=len(self.classes_)) > 0
        if occurring.sum() < 2:
            raise ValueError(one_class(self.classes_[occurring]))
        return occurring

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
        """The certified solution; labels in [0, K), of which at least two count."""
        settings, occurring = self._settings(), self._occurring(labels, counts)
        squares, sizes = self._penalty(strength, ratio)
        solution = minimize(
            X,
            labels,
            strength=squares,
            l1_strength=sizes,
            sample_weight=counts,
            init=init,
            offsets=by_class(self, offsets, len(labels)),
            callback=_printer(type(self).__name__) if self.verbose else None,
            **settings,
        )
        return self._centered(solution, occurring)

    def _centered(self, solution: Solution, occurring: np.ndarray) -> Solution:
        """A common shift of all scores changes no loss here: choose the one of mean bias 0."""
        if not self.fit_intercept or self._separate():
            return solution
        weights, bias = solution.params
        return solution._replace(params=LinearParams(weights, bias - bias[occurring].mean()))

    def _full_params(self) -> LinearParams:
        """One row per class, also for two classes."""
        weights, bias = np.asarray(self.coef_), np.asarray(self.intercept_)
        if len(self.classes_) == 2:
            share = 1.0 if self._separate() else 0.5
            weights, bias = share * np.stack([-weights[0], weights[0]]), share * bias[0]
            bias = np.array([-bias, bias])
        return LinearParams(weights, bias)

    def _adopt(self, solution: Solution, strength: float, total: float, *, like: Any) -> None:
        self._set_params_of_scores(*solution.params, like=like)
        self.n_iter_ = max(int(solution.iterations), 1)
        self.objective_ = float(solution.objective)
        self.lower_bound_ = float(solution.lower_bound)
        self.gap_ = float(solution.gap)
        self.converged_ = solution.status == Status.CONVERGED
        self.strength_, self.C_ = strength, equivalent_C(strength, total, self._halves())

    def _set_params_of_scores(self, weights: Any, bias: Any, *, like: Any) -> None:
        weights, bias = np.asarray(weights), np.asarray(bias)
        if len(self.classes_) == 2:
            share = 0.5 if self._separate() else 1.0
            weights = share * (weights[1:] - weights[:1])
            bias = share * (bias[1:] - bias[:1])
        if is_device_array(like):
            weights, bias = beside(like, weights), beside(like, bias)
        self.coef_, self.intercept_ = weights, bias

    def _warn_unless_converged(self, solution: Solution) -> None:
        remedy = _REMEDY.get(Status(int(solution.status)))
        if remedy is None:
            return
        relative = relative_gap(solution)
        wider = "" if self.coef_.dtype == np.float64 else ", pass the data as float64"
        remedy = remedy.format(max_iter=self.max_iter, wider=wider)
        warnings.warn(
            f"{type(self).__name__} stopped with a certified relative gap of {relative:.2g} "
            f"(`tol`={self.tol:g}) {remedy}",
            ConvergenceWarning,
            stacklevel=3,
        )


def _printer(name: str) -> Callable[[float, float, float], None]:
    def show(evaluations: float, objective: float, lower_bound: float) -> None:
        relative = (objective - lower_bound) / objective if objective > 0 else 0.0
        print(
            f"[{name}] {evaluations:7.1f} passes  objective {objective:.8g}  "
            f"lower bound {lower_bound:.8g}  relative gap {relative:.2g}"
        )

    return show
