"""Cross-validation where a score is undefined, or a fold lacks a class."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.metrics import brier_score_loss, d2_log_loss_score, log_loss, make_scorer
from sklearn.model_selection import GridSearchCV

from jaxlin.estimators import MulticlassSVMClassifierCV, SoftmaxClassifier, SoftmaxClassifierCV

X, Y = load_iris(return_X_y=True)
EVEN, ODD = np.arange(0, 150, 2), np.arange(1, 150, 2)
NO_VIRGINICA = [(EVEN, ODD[:49]), (ODD, EVEN)]


def undefined_for_weak_models(model, X, y):
    """As correlations are where the predictions are all alike."""
    return np.nan if np.abs(model.coef_).max() < 0.5 else model.score(X, y)


def failing_for_weak_models(model, X, y):
    if np.abs(model.coef_).max() < 0.5:
        raise ZeroDivisionError("nothing was predicted")
    return model.score(X, y)


@pytest.mark.filterwarnings("ignore:Scoring failed")
@pytest.mark.parametrize("scoring", [undefined_for_weak_models, failing_for_weak_models])
def test_an_undefined_score_is_not_the_best(scoring):
    """As in `GridSearchCV`, which takes the same value of the grid and warns in the same words."""
    Cs = [1e-4, 1e-2, 1.0]
    with pytest.warns(UserWarning, match="test scores are non-finite: .*nan") as ours:
        model = SoftmaxClassifierCV(Cs, cv=3, scoring=scoring).fit(X, Y)
    with pytest.warns(UserWarning, match="test scores are non-finite: .*nan"):
        search = GridSearchCV(SoftmaxClassifier(), {"C": Cs}, cv=3, scoring=scoring).fit(X, Y)
    assert search.best_params_["C"] == 1.0 == pytest.approx(model.C_)
    assert np.isnan(model.scores_).tolist() == [[True, True, False]] * 3
    failed = [str(found.message) for found in ours if "Scoring failed" in str(found.message)]
    if scoring is failing_for_weak_models:
        assert "6 of the 9 scores" in failed[0]
        assert "ZeroDivisionError: nothing was predicted" in failed[0]
    else:
        assert not failed


def test_where_no_score_is_defined_nothing_is_chosen():
    with pytest.raises(ValueError, match=r"`scoring` is undefined .* Take another"):
        SoftmaxClassifierCV([0.1, 1.0], cv=3, scoring=lambda *given: np.nan).fit(X, Y)

    def broken(model, X, y):
        raise KeyError("a fault of the scorer")

    with pytest.raises(KeyError, match="a fault of the scorer"):
        SoftmaxClassifierCV([0.1, 1.0], cv=3, scoring=broken).fit(X, Y)


def test_infinite_scores_are_compared():
    scores = iter([-np.inf, -1.0, -2.0, -3.0])
    model = SoftmaxClassifierCV([0.1, 1.0], cv=2, scoring=lambda *given: next(scores))
    with pytest.warns(UserWarning, match="non-finite"):
        model.fit(X, Y)
    assert pytest.approx(1.0) == model.C_  # means of -inf and -2


METRICS = {
    "neg_log_loss": lambda y, p, labels: -log_loss(y, p, labels=labels),
    "neg_brier_score": lambda y, p, labels: -brier_score_loss(y, p, labels=labels),
    "d2_log_loss_score": lambda y, p, labels: d2_log_loss_score(y, p, labels=labels),
}


@pytest.mark.parametrize("name", list(METRICS))
@pytest.mark.parametrize("names", [np.arange(3), np.array(["x", "y", "z"])], ids=["0", "x"])
def test_rows_held_out_may_lack_a_class(name, names):
    """The probabilities have a column for it all the same."""
    y = names[Y]
    model = SoftmaxClassifierCV([0.01, 1.0], cv=NO_VIRGINICA, scoring=name, tol=1e-9).fit(X, y)
    train, test = NO_VIRGINICA[0]
    for C, score in zip([0.01, 1.0], model.scores_[0], strict=True):
        alone = SoftmaxClassifier(C, tol=1e-9).fit(X[train], y[train])
        expected = METRICS[name](y[test], alone.predict_proba(X[test]), names)
        # a gap of 1e-9 leaves scores about its root from those of the optimum
        assert score == pytest.approx(expected, abs=1e-3)
    few = METRICS[name](y[:100], model.predict_proba(X[:100]), names)
    assert model.score(X[:100], y[:100]) == pytest.approx(few)


@pytest.mark.parametrize("name", ["neg_log_loss", "neg_brier_score"])
def test_rows_of_one_class_of_two(name):
    """-log p and -(1 - p)^2 of the only class that is held out, on paper."""
    y = np.where(Y == 0, "a", "b")
    folds = [(EVEN, ODD[25:]), (ODD, EVEN)]
    model = SoftmaxClassifierCV([0.01, 1.0], cv=folds, scoring=name).fit(X, y)
    p = model.predict_proba(X[50:])[:, 1]
    loss = -np.log(p) if name == "neg_log_loss" else (1 - p) ** 2
    assert model.score(X[50:], y[50:]) == pytest.approx(-loss.mean())
    assert np.isfinite(model.scores_).all()


def test_what_a_scorer_was_told_stays_told():
    """`labels` of its own, and metrics of predicted labels, which are about those that occur."""
    told = make_scorer(
        log_loss, response_method="predict_proba", greater_is_better=False, labels=[0, 1, 2]
    )
    by_name = SoftmaxClassifierCV([0.01, 1.0], cv=NO_VIRGINICA, scoring="neg_log_loss").fit(X, Y)
    by_hand = SoftmaxClassifierCV([0.01, 1.0], cv=NO_VIRGINICA, scoring=told).fit(X, Y)
    np.testing.assert_array_equal(by_hand.scores_, by_name.scores_)
    settings = {"cv": NO_VIRGINICA, "scoring": "f1_macro"}
    model = MulticlassSVMClassifierCV([0.01], **settings).fit(X, Y)
    search = GridSearchCV(model._plain(), {"C": [0.01]}, **settings).fit(X, Y)
    theirs = [search.cv_results_[f"split{fold}_test_score"][0] for fold in range(2)]
    np.testing.assert_allclose(model.scores_[:, 0], theirs, rtol=1e-12)


def test_a_fold_in_which_no_row_counts_is_named():
    with pytest.raises(ValueError, match="no row counts: each has a `sample_weight` of 0"):
        SoftmaxClassifierCV([1.0], cv=NO_VIRGINICA).fit(X, Y, np.arange(150) % 2)


def test_folds_that_each_lack_a_class_leave_the_final_fit_a_start():
    """Their biases of the classes that they lack are far down: the mean is no start."""
    folds = [(np.flatnonzero(k != Y), np.flatnonzero(k == Y)) for k in range(3)]
    model = SoftmaxClassifierCV([10.0], cv=folds).fit(X, Y)
    assert model.converged_
    right = SoftmaxClassifier(10.0).fit(X, Y)
    assert model.objective_ == pytest.approx(right.objective_, rel=2e-4)
