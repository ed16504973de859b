"""Offsets of the classifiers: what they mean on paper, and that none is forgotten in silence."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import sklearn
from scipy.special import expit
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from jaxlin.estimators import MulticlassSVMClassifier, SoftmaxClassifier
from jaxlin.solvers import minimize

GENERATOR = np.random.default_rng(0)
TWO, LEADS = GENERATOR.integers(0, 2, 48), 2 * GENERATOR.normal(size=48)
ROWS, THREE = GENERATOR.normal(size=(60, 2)), GENERATOR.integers(0, 3, 60)
OFFSETS = GENERATOR.normal(size=(60, 3))


def test_two_classes_without_features_have_the_intercept_of_the_likelihood():
    """sum of sigmoid(b + o_i) = n_1, one equation in one unknown."""
    rows = np.zeros((48, 1))
    model = SoftmaxClassifier(tol=1e-12).fit(rows, np.array(["no", "yes"])[TWO], offsets=LEADS)
    right = scipy.optimize.brentq(lambda b: expit(b + LEADS).sum() - TWO.sum(), -50, 50)
    # a gap of 1e-12 of a curvature near 0.1
    assert model.intercept_ == pytest.approx([right], abs=1e-5)
    found = model.predict_proba(rows, LEADS)[:, 1]
    np.testing.assert_allclose(found, expit(model.intercept_ + LEADS), rtol=1e-12)
    np.testing.assert_array_equal(
        model.predict(rows, LEADS) == "yes", model.decision_function(rows, LEADS) > 0
    )
    labels = np.array(["no", "yes"])[TWO]
    right = np.mean((model.intercept_ + LEADS > 0) == TWO)
    assert model.score(rows, labels, offsets=LEADS) == right


def test_separate_machines_of_two_classes_mirror_one_another():
    """s_1 = -s_0 = w x + b + o: the squared hinge of the lead, twice."""
    rows = np.zeros((48, 1))
    model = MulticlassSVMClassifier(loss="squared-one-vs-rest", tol=1e-12)
    model.fit(rows, TWO, offsets=LEADS)
    sides = 2 * TWO - 1

    def slope(b):
        return (sides * np.maximum(1 - sides * (b + LEADS), 0)).sum()

    right = scipy.optimize.brentq(slope, -50, 50)
    assert model.intercept_ == pytest.approx([right], abs=1e-5)


def test_of_more_classes_it_is_what_minimize_finds():
    model = SoftmaxClassifier(strength=0.01).fit(ROWS, THREE, offsets=OFFSETS)
    found = minimize(ROWS, THREE, strength=0.01, offsets=OFFSETS)
    np.testing.assert_array_equal(model.coef_, found.params.weights)
    assert (model.objective_, model.lower_bound_) == (found.objective, found.lower_bound)
    scores = ROWS @ model.coef_.T + model.intercept_ + OFFSETS
    np.testing.assert_allclose(model.decision_function(ROWS, OFFSETS), scores, rtol=1e-12)
    on_device = model.decision_function(jnp.asarray(ROWS), jnp.asarray(OFFSETS))
    np.testing.assert_allclose(on_device, scores, rtol=1e-12)
    zeros = np.zeros_like(OFFSETS)
    np.testing.assert_array_equal(
        model.predict(ROWS, zeros), (ROWS @ model.coef_.T + model.intercept_).argmax(1)
    )


def test_none_is_forgotten_in_silence():
    model = SoftmaxClassifier(strength=0.01).fit(ROWS, THREE, offsets=OFFSETS)
    for method in (model.predict, model.predict_proba, model.decision_function):
        with pytest.raises(ValueError, match="its scores lack those of these rows"):
            method(ROWS)
    with pytest.raises(ValueError, match="of which `partial_fit` knows nothing"):
        model.partial_fit(ROWS, THREE)
    with pytest.raises(ValueError, match="of which scikit-learn knows nothing"):
        model.to_sklearn()
    with pytest.raises(ValueError, match=r"scores, \(60, 3\), one for each of classes_, got \(60,"):
        model.predict(ROWS, OFFSETS[:, 0])
    assert clone(model).partial_fit(ROWS, THREE, classes=[0, 1, 2]).predict(ROWS).shape == (60,)
    model.fit(ROWS, THREE)
    assert model.predict(ROWS).shape == (60,)


@pytest.mark.parametrize(
    ("model", "rows", "offsets", "sentence"),
    [
        (SoftmaxClassifier(), ROWS, OFFSETS[:, :2], r"\(60, 3\), one for each of classes_"),
        (SoftmaxClassifier(), ROWS, OFFSETS + np.nan, "must be finite, got .*nan.* at row 0"),
        (SoftmaxClassifier(), ROWS, OFFSETS.astype(str), "`offsets` must be numbers"),
        (SoftmaxClassifier(), scipy.sparse.csr_array(ROWS), OFFSETS, r"inputs.toarray\(\)"),
        (SoftmaxClassifier(np.inf), ROWS, OFFSETS, "a finite `C`"),
        (SoftmaxClassifier(l1_ratio=1.0), ROWS, OFFSETS, "an `l1_ratio` of 0"),
        (MulticlassSVMClassifier(), ROWS, OFFSETS, "a smooth loss"),
    ],
)
def test_what_cannot_be_fitted_is_refused(model, rows, offsets, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        clone(model).fit(rows, THREE, offsets=offsets)


def test_a_search_hands_each_fold_its_own():
    folds = [(np.r_[:30, :30], np.arange(30, 60)), (np.r_[30:60, 30:60], np.arange(30))]
    with sklearn.config_context(enable_metadata_routing=True):
        model = SoftmaxClassifier().set_fit_request(offsets=True).set_score_request(offsets=True)
        search = GridSearchCV(model, {"strength": [0.1]}, cv=folds, refit=False)
        search.fit(ROWS, THREE, offsets=OFFSETS)
    scores = [
        SoftmaxClassifier(strength=0.1)
        .fit(ROWS[train], THREE[train], offsets=OFFSETS[train])
        .score(ROWS[test], THREE[test], offsets=OFFSETS[test])
        for train, test in folds
    ]
    assert search.cv_results_["mean_test_score"] == pytest.approx([np.mean(scores)])
