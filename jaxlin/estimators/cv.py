"""Classifiers that choose their regularization by cross-validation, every fit certified.

Along the grid, from the strongest regularization to the weakest, each fit starts where the ones
before it point. Folds are weights: a row held out weighs 0, so that one pass over the rows serves
all folds of a smooth loss, which are fitted side by side (`jaxlin.solvers.minimize_path`); small
problems and hinges take one fold after another.
"""

__all__ = ["MulticlassSVMClassifierCV", "SoftmaxClassifierCV"]

import inspect
import warnings
from collections.abc import Sequence
from itertools import chain
from numbers import Integral
from typing import Any, Self

import jax
import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring, get_scorer, make_scorer
from sklearn.model_selection import StratifiedKFold, check_cv
from sklearn.utils import Bunch
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing

from jaxlin.core import Solution
from jaxlin.estimators.certified import CertifiedClassifier
from jaxlin.estimators.labels import is_familiar
from jaxlin.estimators.scoring import accuracy_of
from jaxlin.estimators.softmax import SoftmaxClassifier, SoftmaxPredictions
from jaxlin.estimators.svm import MulticlassSVMClassifier, SVMLoss
from jaxlin.estimators.validation import (
    checked_training_data,
    classes_and_labels,
    counts_of,
    ratio_of,
    regularization_of,
)
from jaxlin.solvers import minimize_path, relative_gap


class _CrossValidated(CertifiedClassifier):
    """A grid, its scores on held-out rows, and the final fit at the best of it."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> Self:
        """Score the grid on held-out folds, then fit all rows at the best of it.

        Args:
          X, y: as `SoftmaxClassifier.fit` takes them.
          sample_weight: (N,), nonnegative; counts in the fits and in the scores.
          **params: for the splitter and the scorer (such as `groups`), under scikit-learn's
            metadata routing.

        Returns:
          self.

        Raises:
          ValueError, TypeError: the data or a parameter cannot be used; `scoring` is undefined at
            every value of the grid.

        Warns:
          ConvergenceWarning: fits on the path, or the final one, stopped above `tol`.
          UserWarning: `scoring` is undefined, or infinite, somewhere on the grid.
        """
        routed = self._routed("fit", sample_weight, params)
        X, y = checked_training_data(self, X, y)
        classes, labels = classes_and_labels(y)
        counts = counts_of(self, X, y, classes, sample_weight)
        self.classes_ = classes
        grid, known = self._grid(), y if is_familiar(y) else labels
        splitter = self._splitter(known)
        folds = list(splitter.split(np.zeros(len(y)), known, **routed.splitter.split))
        inside, ratios = [_only(train, counts) for train, _ in folds], self._ratios()
        by_ratio = [self._paths(X, labels, inside, grid, ratio) for ratio in ratios]
        paths = [list(chain(*parts)) for parts in zip(*by_ratio, strict=True)]
        scorer, failures = self._scorer_of_all_classes(), []
        scores = np.full((len(folds), len(ratios) * len(grid)), np.nan)
        for fold, ((_, test), path) in enumerate(zip(folds, paths, strict=True)):
            kept = {name: _rows_of(part, test) for name, part in routed.scorer.score.items()}
            held_out = X[test], y[test]
            for t, solution in enumerate(path):
                try:
                    scores[fold, t] = scorer(self._model_of(solution, X), *held_out, **kept)
                except Exception as failure:  # a user's function may raise whatever it likes
                    failures.append(failure)

        several = (len(ratios), len(grid)) if len(ratios) > 1 else (len(grid),)
        gaps = np.array([[relative_gap(s) for s in path] for path in paths])
        self.scores_, self.gaps_ = (part.reshape(-1, *several) for part in (scores, gaps))
        best = _best(scores, failures)
        start = jax.tree.map(lambda *parts: np.mean(parts, 0), *[p[best].params for p in paths])
        self.l1_ratios_, self.l1_ratio_ = np.array(ratios), ratios[best // len(grid)]
        strength = self._strength_at(grid[best % len(grid)], counts.sum())
        solution = self._solve(X, labels, counts, strength, self.l1_ratio_, start)
        self._adopt(solution, strength, counts.sum(), like=X)
        setattr(self, "Cs_" if self.strengths is None else "strengths_", grid)
        self._warn_unless_converged(solution)
        self._warn_of_loose_path()
        return self

    def score(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> float:
        """`scoring` of the predictions for X, by default the share of correct labels."""
        routed = self._routed("score", sample_weight, params)
        return self._scorer_of_all_classes()(self, X, y, **routed.scorer.score)

    def get_metadata_routing(self) -> MetadataRouter:
        """Which metadata `fit` and `score` pass on, and to whom."""
        router = MetadataRouter(owner=self).add_self_request(self)
        if hasattr(self.cv, "get_metadata_routing"):
            router.add(
                splitter=self.cv,
                method_mapping=MethodMapping().add(caller="fit", callee="split"),
            )
        mapping = MethodMapping().add(caller="fit", callee="score")
        router.add(
            scorer=self._scorer(), method_mapping=mapping.add(caller="score", callee="score")
        )
        return router

    def _routed(self, method: str, sample_weight: Any, params: dict[str, Any]) -> Bunch:
        if sklearn.get_config()["enable_metadata_routing"]:
            routed = process_routing(self, method, sample_weight=sample_weight, **params)
            return Bunch(splitter=routed.get("splitter", Bunch(split={})), scorer=routed.scorer)
        if params:
            raise ValueError(
                f"`{method}` got {', '.join(params)}: passing more than `sample_weight` needs "
                "sklearn.set_config(enable_metadata_routing=True)."
            )
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        return Bunch(splitter=Bunch(split={}), scorer=Bunch(score=weights))

    def _grid(self) -> np.ndarray:
        """Values of `C` or of `strength`, the strongest regularization first."""
        if self.Cs is not None and self.strengths is not None:
            raise ValueError(
                "`Cs` and `strengths` are two names of one grid. Give one: "
                "strength = 1 / (2 * C * N)."
            )
        if self.strengths is not None:
            grid = _numbers("strengths", self.strengths)[::-1]
        elif self.Cs is None or isinstance(self.Cs, Integral):
            grid = np.logspace(-4, 4, 10 if self.Cs is None else max(int(self.Cs), 0))
        else:
            grid = _numbers("Cs", self.Cs)
        if not grid.size:
            raise ValueError("The grid is empty: give `Cs` or `strengths` at least one value.")
        return grid

    def _ratios(self) -> list[float]:
        """Shares of absolute values in the penalty, as they were given."""
        ratios = [ratio_of("l1_ratios", r) for r in np.atleast_1d(self.l1_ratios).tolist()]
        if not ratios:
            raise ValueError("The grid is empty: give `l1_ratios` at least one value, such as 0.")
        return ratios

    def _strength_at(self, value: float, total: float) -> float:
        C, strength = (value, None) if self.strengths is None else (None, value)
        return regularization_of(C, strength, total, self._halves())

    def _splitter(self, y: Any) -> Any:
        if self.cv is None or isinstance(self.cv, Integral):
            shuffle = self.random_state is not None
            return StratifiedKFold(
                5 if self.cv is None else self.cv,
                shuffle=shuffle,
                random_state=self.random_state if shuffle else None,
            )
        return check_cv(self.cv, y, classifier=True)

    def _scorer(self) -> Any:
        if self.scoring is None:
            return get_scorer("accuracy")
        return check_scoring(self, scoring=self.scoring)

    def _scorer_of_all_classes(self) -> Any:
        """(model, X, y, **metadata) -> score, also where some class has no row in y.

        What is computed from probabilities or scores has a column for each class of the model, and
        must be told which. What is computed from predicted labels is about those that occur.
        """
        if self.scoring is None:
            return accuracy_of
        scorer = self._scorer()
        function, settings = getattr(scorer, "_score_func", None), getattr(scorer, "_kwargs", {})
        answers = getattr(scorer, "_response_method", "predict")
        asked = inspect.signature(function).parameters if function else {}
        if answers == "predict" or "labels" not in asked or "labels" in settings:
            return scorer
        told = {"labels": self.classes_, **settings}
        if len(self.classes_) == 2 and "pos_label" in asked:
            told.setdefault("pos_label", self.classes_[1])
        sign = getattr(scorer, "_sign", 1)
        return make_scorer(function, response_method=answers, greater_is_better=sign > 0, **told)

    def _paths(
        self,
        X: Any,
        labels: np.ndarray,
        weightings: list[np.ndarray],
        grid: np.ndarray,
        ratio: float,
    ) -> list:
        """For each fold the solutions along the grid, warm along it, all folds side by side."""
        settings = self._settings()
        occurring = [self._occurring(labels, inside) for inside in weightings]
        strengths = [[self._strength_at(c, inside.sum()) for c in grid] for inside in weightings]
        penalties = [[self._penalty(s, ratio) for s in fold] for fold in strengths]
        squares, sizes = np.moveaxis(np.array(penalties), -1, 0)

        def tell(fold: int, t: int, solution: Solution) -> None:
            print(
                f"{type(self).__name__}: fold {fold}, strength {strengths[fold][t]:.3g}: "
                f"objective {solution.objective:.8g}, relative gap {relative_gap(solution):.2g}"
            )

        paths = minimize_path(
            X,
            labels,
            strengths=squares,
            l1_strength=sizes,
            sample_weight=np.stack(weightings),
            callback=tell if self.verbose else None,
            **settings,
        )
        return [
            [self._centered(solution, classes) for solution in path]
            for path, classes in zip(paths, occurring, strict=True)
        ]

    def _model_of(self, solution: Solution, X: Any) -> Any:
        """The classifier of this solution; its parameters are where X is."""
        model = self._plain()
        model.classes_, model.n_features_in_ = self.classes_, self.n_features_in_
        model._set_params_of_scores(*solution.params, like=X)
        return model

    def _plain(self) -> Any:
        """The estimator of one strength, which every subclass names for itself."""
        raise NotImplementedError

    def _warn_of_loose_path(self) -> None:
        loose = int((self.gaps_ > self.tol).sum())
        if loose:
            warnings.warn(
                f"{type(self).__name__}: {loose} of the {self.gaps_.size} fits on the path "
                f"stopped above `tol`={self.tol:g}, the worst with a certified relative gap of "
                f"{self.gaps_.max():.2g}. Raise `max_iter` or `tol`, or leave out the weakest "
                "regularization.",
                ConvergenceWarning,
                stacklevel=3,
            )


class SoftmaxClassifierCV(SoftmaxPredictions, _CrossValidated):
    """`SoftmaxClassifier` that chooses `C` or `strength` by cross-validation.

    Args:
      Cs: values of `C` to try, or how many between 1e-4 and 1e4. Default 10.
      strengths: values of `strength` to try, instead of `Cs`.
      l1_ratios: values of `l1_ratio` to try: 0 is a penalty on squares, 1 the lasso.
      cv: number of stratified folds (default 5), a splitter, or pairs of train and test rows.
      scoring: a scorer or its name; default accuracy. Values of the grid at which it is undefined
        (NaN, or an exception) are not chosen.
      random_state: shuffles the rows before they are dealt into folds; `None` keeps their order.
      fit_intercept, class_weight, tol, max_iter, verbose: as for `SoftmaxClassifier`.

    Attributes:
      C_, strength_: the best of the grid, in both units for all rows.
      l1_ratio_: the best of `l1_ratios_`, (R,).
      Cs_ or strengths_: (G,), the grid, from the strongest regularization to the weakest.
      scores_: (folds, G), on the rows held out; (folds, R, G) with several `l1_ratios`.
      gaps_: of the same shape, the certified relative gap of each fit on the path.
      coef_, intercept_, classes_, objective_, lower_bound_, gap_, converged_, n_iter_,
        n_features_in_, feature_names_in_: of the final fit, as for `SoftmaxClassifier`.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = SoftmaxClassifierCV(Cs=[0.01, 1.0]).fit(X, y)
    >>> model.scores_.mean(0).round(2).tolist(), float(model.C_)
    ([0.86, 0.97], 1.0)
    """

    def __init__(
        self,
        Cs: int | Sequence[float] | None = None,
        *,
        strengths: Sequence[float] | None = None,
        l1_ratios: Sequence[float] = (0.0,),
        cv: Any = None,
        scoring: Any = None,
        fit_intercept: bool = True,
        class_weight: dict | str | None = None,
        tol: float = 1e-4,
        max_iter: int = 1000,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.Cs = Cs
        self.strengths = strengths
        self.l1_ratios = l1_ratios
        self.cv = cv
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.verbose = verbose

    def _plain(self) -> SoftmaxClassifier:
        return SoftmaxClassifier()


class MulticlassSVMClassifierCV(SVMLoss, _CrossValidated):
    """`MulticlassSVMClassifier` that chooses `C` or `strength` by cross-validation.

    Args:
      Cs: values of `C` to try, or how many between 1e-4 and 1e4. Default 10.
      strengths: values of `strength` to try, instead of `Cs`.
      l1_ratios: values of `l1_ratio` to try: 0 is a penalty on squares, 1 the lasso.
      loss: which hinge, as for `MulticlassSVMClassifier`.
      cv: number of stratified folds (default 5), a splitter, or pairs of train and test rows.
      scoring: a scorer or its name; default accuracy. Values of the grid at which it is undefined
        (NaN, or an exception) are not chosen.
      random_state: shuffles the rows before they are dealt into folds; `None` keeps their order.
      fit_intercept, class_weight, tol, max_iter, verbose: as for `MulticlassSVMClassifier`.

    Attributes:
      As for `SoftmaxClassifierCV`.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MulticlassSVMClassifierCV(Cs=[0.01, 1.0], loss="squared-hinge").fit(X, y)
    >>> float(model.C_), bool(model.converged_)
    (1.0, True)
    """

    def __init__(
        self,
        Cs: int | Sequence[float] | None = None,
        *,
        strengths: Sequence[float] | None = None,
        l1_ratios: Sequence[float] = (0.0,),
        loss: str = "hinge",
        cv: Any = None,
        scoring: Any = None,
        fit_intercept: bool = True,
        class_weight: dict | str | None = None,
        tol: float = 1e-4,
        max_iter: int = 1000,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.Cs = Cs
        self.strengths = strengths
        self.l1_ratios = l1_ratios
        self.loss = loss
        self.cv = cv
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.verbose = verbose

    def _plain(self) -> MulticlassSVMClassifier:
        return MulticlassSVMClassifier(loss=self.loss)


def _only(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The counts inside a fold; rows held out weigh 0."""
    inside = np.zeros(len(counts))
    inside[rows] = counts[rows]
    return inside


def _best(scores: np.ndarray, failures: list[Exception]) -> int:
    """Where the mean over the folds (F, T) is highest; a value with an undefined score is not.

    Raises:
      ValueError: it is undefined for all values; the first of the failures, if there is one.
    """
    if len(failures) == scores.size:
        raise failures[0]
    with np.errstate(invalid="ignore"):
        means = scores.mean(0)
    if failures:
        warnings.warn(
            f"Scoring failed. {len(failures)} of the {scores.size} scores on held-out rows are set "
            f"to nan, the first because of {type(failures[0]).__name__}: {failures[0]}",
            UserWarning,
            stacklevel=3,
        )
    if np.isnan(means).all():
        raise ValueError(
            "`scoring` is undefined (NaN) on some fold for every value of the grid, so that none "
            "can be chosen. Take another `scoring`, or folds in which it is defined."
        ) from (failures[0] if failures else None)
    if not np.isfinite(means).all():
        warnings.warn(
            f"One or more of the test scores are non-finite: {means}", UserWarning, stacklevel=3
        )
    return int(np.nanargmax(means))


def _numbers(name: str, values: Any) -> np.ndarray:
    """The values of a grid, from the least to the largest."""
    try:
        return np.sort(np.asarray(values, np.float64).ravel())
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be numbers to try, got {values!r}.") from None


def _rows_of(value: Any, rows: np.ndarray) -> Any:
    """The part of metadata that belongs to `rows`; what is no array of rows passes as it is."""
    part = np.asarray(value)
    return value if part.ndim == 0 else part[rows]
