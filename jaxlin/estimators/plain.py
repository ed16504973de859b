"""Fitting at one strength: all rows at once with a proof, or in pieces as they come."""

__all__ = ["PlainClassifier"]

from typing import Any, Self

import numpy as np

from jaxlin.core import LinearParams
from jaxlin.estimators.certified import CertifiedClassifier
from jaxlin.estimators.labels import plain_labels
from jaxlin.estimators.offsets import refuse_offsets
from jaxlin.estimators.scoring import accuracy_of
from jaxlin.estimators.stream import Stream, absorb, open_stream
from jaxlin.estimators.validation import (
    check_total,
    checked_training_data,
    classes_and_labels,
    counts_of,
    equivalent_C,
    one_class,
    ratio_of,
    regularization_of,
)


class PlainClassifier(CertifiedClassifier):
    """`fit` and `partial_fit` with the parameters `C` or `strength`."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None, offsets: Any = None) -> Self:
        """Minimize the objective until it is proved to be within `tol` of the least possible.

        Args:
          X: (N, D) array, data frame, CSR matrix or JAX array. Floating data are computed in
            their own precision, small integers (raw pixels) in float32 without a copy. JAX arrays
            are solved on their device (small ones by NumPy), and the attributes are put there.
          y: (N,) labels of any one type that sorts: numbers, strings, bytes, dates, times, ...
            None may be missing.
          sample_weight: (N,), nonnegative. Weight k is the same as the row k times.
          offsets: what is added to the scores of each row and is not learned (log exposures, log
            priors, the scores of another model), in the shape of `decision_function`: (N, K), or
            (N,) for two classes. For dense rows, losses without kinks and a penalty on squares.
            The model then predicts from rows and their offsets.

        Returns:
          self.

        Raises:
          ValueError, TypeError: the data or a parameter cannot be used.

        Warns:
          ConvergenceWarning: `tol` was not reached; names the gap that was, and what to change.
        """
        X, y = checked_training_data(self, X, y)
        classes, labels = classes_and_labels(y)
        counts = counts_of(self, X, y, classes, sample_weight)
        init = self._warm_start(classes)
        self.classes_ = classes
        strength = self._strength(counts.sum())
        solution = self._solve(X, labels, counts, strength, self._l1_ratio(), init, offsets)
        self.takes_offsets_ = offsets is not None
        self.__dict__.pop("_stream", None)
        self._adopt(solution, strength, counts.sum(), like=X)
        self._warn_unless_converged(solution)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Take one pass of normalized adaptive gradient steps over these rows.

        For data that come in pieces. Needs no step size and no scaling of the features. It
        approaches the optimum but proves nothing: `gap_`, `objective_` and `lower_bound_` belong
        to `fit`. It runs on the host, whatever holds the rows.

        Args:
          X, y, sample_weight: as `fit` takes them. A block whose rows all weigh 0 changes nothing.
          classes: (K,), every label that will ever come; needed by the first call.

        Returns:
          self.

        Raises:
          ValueError, TypeError: the data or a parameter cannot be used; `class_weight="balanced"`
            cannot, because a block does not tell how often the classes occur in all.

        Source: Ross, Mineiro and Langford (2013), arXiv:1305.6646.
        """
        if self._l1_ratio() > 0:
            raise ValueError(
                f"`partial_fit` knows squares alone, got l1_ratio={self.l1_ratio!r}: its steps end "
                "at no zeros. Set l1_ratio=0, or call `fit` on all rows."
            )
        refuse_offsets(self, "`partial_fit`")
        known = getattr(self, "classes_", None)
        if known is None and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        X, y = checked_training_data(self, X, y, reset=known is None)
        if classes is not None:
            classes = np.unique(plain_labels(classes, "classes"))
            if known is not None and not np.array_equal(known, classes):
                raise ValueError(
                    f"`classes={classes!r}` is not the same as on the last call to partial_fit, "
                    f"was: {known!r}. Pass the same labels, or clone the estimator."
                )
        classes = classes if known is None else known
        if len(classes) < 2:
            raise ValueError(one_class(classes))
        if not np.isin(y, classes).all():
            stray = np.setdiff1d(y, classes)[0]
            raise ValueError(
                f"`y` holds the label {stray}, which is not in classes={classes}. Clone the "
                "estimator, and give all labels as `classes` to the first call."
            )
        counts = counts_of(self, X, y, classes, sample_weight, block=True)
        self.classes_ = classes
        if hasattr(self, "coef_") and not counts.any():
            return self
        stream: Stream = getattr(self, "_stream", None) or open_stream(
            len(classes), X.shape[1], self._full_params() if hasattr(self, "coef_") else None
        )
        total = stream.total + counts.sum()
        check_total(total, "the weights of all blocks")
        strength = self._strength(total)
        stream = absorb(
            stream,
            X,
            np.searchsorted(classes, y),
            counts,
            loss=self._loss(),
            strength=strength,
            fit_intercept=self.fit_intercept,
            random_state=self.random_state,
        )
        self._forget_proof()
        self._set_params_of_scores(stream.weights, stream.bias, like=X)
        self.n_iter_ = stream.steps
        self.strength_, self.C_ = strength, float(1.0 if self.C is None else self.C)
        if self.strength is not None:
            self.C_ = equivalent_C(strength, total, self._halves())
        self._stream = stream
        return self

    def score(self, X: Any, y: Any, sample_weight: Any = None, offsets: Any = None) -> float:
        """The share of rows whose label is predicted.

        Args:
          X, y, sample_weight, offsets: as `fit` takes them.
        """
        return accuracy_of(self, X, y, sample_weight, offsets)

    def _strength(self, total: float) -> float:
        return regularization_of(self.C, self.strength, total, self._halves())

    def _l1_ratio(self) -> float:
        return ratio_of("l1_ratio", self.l1_ratio)

    def _warm_start(self, classes: np.ndarray) -> LinearParams | None:
        """The last coefficients, if they speak of the same classes and features."""
        if not self.warm_start or not hasattr(self, "coef_"):
            return None
        if not np.array_equal(self.classes_, classes):
            return None
        if self.coef_.shape[1] != self.n_features_in_:
            return None
        return self._full_params()

    def _forget_proof(self) -> None:
        for name in ("objective_", "lower_bound_", "gap_", "converged_"):
            self.__dict__.pop(name, None)
