"""The lasso and the elastic net are scikit-learn's, with a proof."""

import itertools

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import scale
from sklearn.svm import LinearSVC

from jaxlin.estimators import (
    MulticlassSVMClassifier,
    MulticlassSVMClassifierCV,
    SoftmaxClassifier,
    SoftmaxClassifierCV,
)

X, Y = load_iris(return_X_y=True)
X = scale(X)
TWO = Y > 0


def penalized(model, X, y, C, ratio):
    """scikit-learn's objective over C N, from coefficients of either library."""
    scores = X @ model.coef_.T + model.intercept_
    if scores.shape[1] == 1:
        scores = np.hstack([0 * scores, scores])
    labels = np.searchsorted(model.classes_, y)
    losses = np.log(np.exp(scores - scores[np.arange(len(y)), labels][:, None]).sum(1))
    size = (1 - ratio) / 2 * (model.coef_**2).sum() + ratio * np.abs(model.coef_).sum()
    return losses.mean() + size / (C * len(y))


@pytest.mark.parametrize(("X", "y"), [(X, Y), (X[TWO], Y[TWO])], ids=["three", "two"])
@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_the_elastic_net_is_logistic_regressions(X, y, ratio):
    settings = dict(C=0.5, l1_ratio=ratio)
    theirs = LogisticRegression(solver="saga", tol=1e-9, max_iter=100_000, **settings).fit(X, y)
    ours = SoftmaxClassifier(tol=1e-8, **settings).fit(X, y)
    assert ours.converged_
    least = penalized(ours, X, y, **settings_of(settings))
    assert ours.objective_ == pytest.approx(least, rel=1e-12)
    # both are within 1e-8 or so of the same least value
    assert penalized(theirs, X, y, **settings_of(settings)) == pytest.approx(least, rel=1e-7)
    assert ours.lower_bound_ <= penalized(theirs, X, y, **settings_of(settings))
    # and leave out the same features: those of theirs that are not 0 are far from it
    np.testing.assert_array_equal(ours.coef_ != 0, np.abs(theirs.coef_) > 1e-4)
    assert (ours.coef_ == 0).any()
    # moved on its 0s or not, the coefficients agree where squares make them unique
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=2e-3)


def settings_of(settings):
    return {"C": settings["C"], "ratio": settings["l1_ratio"]}


def test_a_sparse_machine_is_liblinears():
    """Without an intercept, which LinearSVC would penalize."""
    theirs = LinearSVC(C=0.1, penalty="l1", dual=False, tol=1e-10, max_iter=100_000,
                       fit_intercept=False, random_state=0).fit(X, Y)  # fmt: skip
    ours = MulticlassSVMClassifier(
        C=0.1, l1_ratio=1.0, loss="squared-one-vs-rest", fit_intercept=False, tol=1e-9
    ).fit(X, Y)
    assert ours.converged_
    # LinearSVC: |w|_1 + C sum of squares, a machine at a time: C N times ours
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-4)


def test_without_a_share_of_absolute_values_it_is_the_ridge_and_C_infinity_is_no_penalty():
    plain, mixed = SoftmaxClassifier(), SoftmaxClassifier(l1_ratio=0.0)
    np.testing.assert_array_equal(plain.fit(X, Y).coef_, mixed.fit(X, Y).coef_)
    free = SoftmaxClassifier(C=np.inf, l1_ratio=1.0)
    with pytest.warns(match="no gap can be proved"):
        free.fit(X[TWO], Y[TWO])
    with pytest.warns(match="no gap can be proved"):
        np.testing.assert_allclose(
            free.coef_, SoftmaxClassifier(C=np.inf).fit(X[TWO], Y[TWO]).coef_, rtol=1e-6
        )


def test_it_goes_there_and_back():
    ours = SoftmaxClassifier(C=0.5, l1_ratio=1.0).fit(X, Y)
    theirs = ours.to_sklearn()
    assert theirs.l1_ratio == 1.0
    back = SoftmaxClassifier.from_sklearn(theirs)
    assert back.l1_ratio == 1.0
    back.set_params(warm_start=True, tol=1e-3).fit(X, Y)
    assert back.n_iter_ <= ours.n_iter_


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (
            SoftmaxClassifier(l1_ratio=1.5),
            ValueError,
            "must be between 0 and 1, got 1.5",
        ),
        (SoftmaxClassifier(l1_ratio=None), TypeError, "`l1_ratio` must be a number, got None"),
        (MulticlassSVMClassifier(l1_ratio=0.5), ValueError, "needs a loss without kinks, squared-"),
    ],
)
def test_what_cannot_be_used_is_named(model, error, words):
    with pytest.raises(error, match=words):
        model.fit(X, Y)


def test_steps_on_pieces_do_not_know_it():
    with pytest.raises(ValueError, match="knows squares alone"):
        SoftmaxClassifier(l1_ratio=0.5).partial_fit(X, Y, classes=[0, 1, 2])


def test_cross_validation_chooses_among_elastic_nets_as_scikit_learn_does():
    """Each is the optimum of the same objectives on the same folds, so that they score alike."""
    ratios, grid = [0.5, 1.0], [0.03, 0.3]
    folds = [(np.arange(150) % 3 != f, np.arange(150) % 3 == f) for f in range(3)]
    folds = [tuple(map(np.flatnonzero, fold)) for fold in folds]
    settings = dict(Cs=grid, l1_ratios=ratios, cv=folds, scoring="neg_log_loss")
    ours = SoftmaxClassifierCV(tol=1e-8, **settings).fit(X, Y)
    assert ours.scores_.shape == ours.gaps_.shape == (3, 2, 2)
    assert ours.gaps_.max() <= 1e-8
    for (r, ratio), (t, C) in itertools.product(enumerate(ratios), enumerate(grid)):
        theirs = LogisticRegression(solver="saga", tol=1e-6, max_iter=10_000, C=C, l1_ratio=ratio)
        for f, (train, test) in enumerate(folds):
            fitted = theirs.fit(X[train], Y[train])
            expected = -log_loss(Y[test], fitted.predict_proba(X[test]))
            assert ours.scores_[f, r, t] == pytest.approx(expected, abs=1e-3)
    best = np.unravel_index(ours.scores_.mean(0).argmax(), (2, 2))
    assert (ours.l1_ratio_, ours.C_) == (ratios[best[0]], pytest.approx(grid[best[1]]))
    final = SoftmaxClassifier(C=ours.C_, l1_ratio=ours.l1_ratio_, tol=1e-8).fit(X, Y)
    assert ours.objective_ == pytest.approx(final.objective_, rel=1e-7)


def test_ratios_to_try_are_checked():
    with pytest.raises(ValueError, match="`l1_ratios` must be between 0 and 1"):
        SoftmaxClassifierCV(l1_ratios=[0.5, 2.0]).fit(X, Y)
    with pytest.raises(ValueError, match="`l1_ratios` above 0 needs a loss without kinks"):
        MulticlassSVMClassifierCV(l1_ratios=[0.5]).fit(X, Y)
    with pytest.raises(ValueError, match="give `l1_ratios` at least one value"):
        SoftmaxClassifierCV(l1_ratios=[]).fit(X, Y)
    with pytest.raises(TypeError, match="`l1_ratios` must be a number, got None"):
        SoftmaxClassifierCV(l1_ratios=None).fit(X, Y)
