"""The classifiers among others: searches, pipelines, frames, pickles, scikit-learn and ONNX."""

import pickle

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Perceptron, RidgeClassifier, SGDClassifier
from sklearn.metrics import log_loss, make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from jaxlin.estimators import (
    MulticlassSVMClassifier,
    MulticlassSVMClassifierCV,
    SoftmaxClassifier,
    SoftmaxClassifierCV,
    to_onnx,
)

X, Y = load_iris(return_X_y=True)
NAMES = ["a", "b", "c", "d"]
TWO = Y > 0
CASES = [
    SoftmaxClassifier(strength=1e-2, class_weight="balanced"),
    MulticlassSVMClassifier(strength=1e-2),
    MulticlassSVMClassifier(strength=1e-2, loss="squared-one-vs-rest"),
]


@pytest.mark.parametrize("rows", [slice(None), TWO], ids=["three", "two"])
@pytest.mark.parametrize("estimator", CASES, ids=str)
def test_there_and_back_predicts_the_same(estimator, rows):
    names = np.array(["x", "y", "z"])[Y]
    ours = clone(estimator).fit(X[rows], names[rows])
    theirs = ours.to_sklearn()
    back = type(ours).from_sklearn(theirs)
    for model in (theirs, back, pickle.loads(pickle.dumps(ours))):
        np.testing.assert_array_equal(model.predict(X), ours.predict(X))
        np.testing.assert_allclose(
            model.decision_function(X), ours.decision_function(X), rtol=1e-12, atol=1e-12
        )
        if hasattr(ours, "predict_proba"):
            np.testing.assert_allclose(
                model.predict_proba(X), ours.predict_proba(X), rtol=1e-10, atol=1e-15
            )
    assert type(theirs) in (LogisticRegression, LinearSVC)
    assert pytest.approx(ours.C_) == theirs.C


def test_scikit_learns_fit_goes_on_with_a_proof():
    theirs = LogisticRegression(C=0.1, max_iter=1000).fit(X, Y)
    ours = SoftmaxClassifier.from_sklearn(theirs).set_params(warm_start=True, tol=1e-3)
    assert ours.fit(X, Y).n_iter_ <= 2
    assert ours.gap_ <= 1e-3 * ours.objective_


def test_what_is_no_softmax_is_refused():
    with pytest.raises(TypeError, match="must be a fitted linear classifier"):
        SoftmaxClassifier.from_sklearn(LogisticRegression())
    with pytest.raises(TypeError, match="softmax probabilities"):
        SoftmaxClassifier.from_sklearn(LinearSVC().fit(X, Y))
    with pytest.raises(TypeError, match="votes over pairs"):
        MulticlassSVMClassifier.from_sklearn(SVC(kernel="linear").fit(X, Y))
    hinge = SGDClassifier(random_state=0).fit(X, Y)
    svm = MulticlassSVMClassifier.from_sklearn(hinge)
    np.testing.assert_array_equal(svm.predict(X), hinge.predict(X))


def test_other_probabilities_than_softmax_are_refused():
    """Those of a machine for each class, of a calibration, and of a loss of its own."""
    scaled = StandardScaler().fit_transform(X)
    separate = SGDClassifier(loss="log_loss", random_state=0).fit(scaled, Y)
    own = SGDClassifier(loss="modified_huber", random_state=0).fit(scaled[TWO], Y[TWO])
    for other in (separate, own):
        with pytest.raises(TypeError, match="must estimate softmax probabilities"):
            SoftmaxClassifier.from_sklearn(other)
    two = SGDClassifier(loss="log_loss", random_state=0).fit(scaled[TWO], Y[TWO])
    for theirs in (two, LinearDiscriminantAnalysis().fit(X, Y)):
        ours = SoftmaxClassifier.from_sklearn(theirs)
        np.testing.assert_allclose(
            ours.predict_proba(scaled), theirs.predict_proba(scaled), atol=1e-12
        )


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:lbfgs failed to converge")
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("fitted", "penalty"),
    [
        (RidgeClassifier(), (1.0, 0.0)),  # of two classes its coefficients are (D,)
        (Perceptron(), (np.inf, 0.0)),  # has none, but an `l1_ratio`
        (SGDClassifier(penalty="l1", random_state=0), (1.0, 1.0)),
    ],
)
def test_every_linear_classifier_is_taken_over(fitted, penalty, classes):
    X, y = load_iris(return_X_y=True)
    y = y % classes
    theirs = clone(fitted).fit(X, y)
    kinds = [theirs, theirs.sparsify()] if hasattr(theirs, "sparsify") else [theirs]
    for kind in kinds:
        ours = MulticlassSVMClassifier.from_sklearn(kind)
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
        assert (ours.C, ours.l1_ratio) == penalty


@pytest.mark.parametrize(
    ("settings", "C"),
    [({"penalty": None}, np.inf), ({"C": np.inf}, np.inf), ({"C": 0.3}, 0.3), ({}, 1.0)],
    ids=str,
)
def test_the_penalty_is_taken_over(settings, C):
    theirs = LogisticRegression(max_iter=20, **settings).fit(X, Y)
    ours = SoftmaxClassifier.from_sklearn(theirs)
    assert ours.C == ours.C_ == C
    perceptron = MulticlassSVMClassifier.from_sklearn(Perceptron().fit(X, Y))  # it has no penalty
    assert np.inf == perceptron.C_


@pytest.mark.parametrize("rows", [slice(None), TWO], ids=["three", "two"])
@pytest.mark.parametrize("estimator", CASES, ids=str)
def test_onnx_computes_the_same(estimator, rows, tmp_path):
    pytest.importorskip("skl2onnx")
    runtime = pytest.importorskip("onnxruntime")
    narrow = X.astype(np.float32)
    model = clone(estimator).fit(narrow[rows], Y[rows])
    content = to_onnx(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == content
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    labels, values = session.run(None, {session.get_inputs()[0].name: narrow})
    np.testing.assert_array_equal(labels, model.predict(narrow))
    if hasattr(model, "predict_proba"):
        np.testing.assert_allclose(values, model.predict_proba(narrow), atol=1e-6)
    elif len(model.classes_) > 2:
        np.testing.assert_allclose(values, model.decision_function(narrow), atol=1e-5)
    else:
        np.testing.assert_allclose(values[:, 1], model.decision_function(narrow), atol=1e-5)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_keep_their_names(library):
    frames = pytest.importorskip(library)
    frame = frames.DataFrame({name: X[:, i] for i, name in enumerate(NAMES)})
    model = SoftmaxClassifier().fit(frame, frames.Series(Y))
    assert model.feature_names_in_.tolist() == NAMES
    np.testing.assert_array_equal(model.predict(frame), SoftmaxClassifier().fit(X, Y).predict(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[NAMES[::-1]])
    assert model.to_sklearn().feature_names_in_.tolist() == NAMES


def test_a_search_in_other_processes_finds_the_best():
    pipeline = make_pipeline(StandardScaler(), SoftmaxClassifier())
    grid = {"softmaxclassifier__strength": [1e-3, 10.0]}
    search = GridSearchCV(pipeline, grid, n_jobs=2, cv=3, error_score="raise").fit(X, Y)
    assert search.best_params_["softmaxclassifier__strength"] == 1e-3
    assert search.best_score_ > 0.9


def test_margins_become_probabilities_by_calibration():
    model = CalibratedClassifierCV(MulticlassSVMClassifier(C=0.1), cv=3).fit(X, Y)
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1)
    assert cross_val_score(model, X, Y, cv=3).mean() > 0.8


def test_weights_are_routed_when_asked_for():
    with sklearn.config_context(enable_metadata_routing=True):
        weights = np.where(Y == 1, 5.0, 1.0)
        step = SoftmaxClassifier().set_fit_request(sample_weight=True)
        routed = make_pipeline(step).fit(X, Y, sample_weight=weights)
    direct = SoftmaxClassifier().fit(X, Y, weights)
    np.testing.assert_array_equal(routed[-1].coef_, direct.coef_)


def test_cross_validation_scores_what_a_search_scores():
    Cs = [0.01, 1.0]
    settings = {"cv": 3, "scoring": "neg_log_loss"}
    model = SoftmaxClassifierCV(Cs, tol=1e-8, **settings).fit(X, Y)
    search = GridSearchCV(SoftmaxClassifier(tol=1e-8), {"C": Cs}, **settings).fit(X, Y)
    for j in range(2):
        theirs = [search.cv_results_[f"split{i}_test_score"][j] for i in range(3)]
        np.testing.assert_allclose(model.scores_[:, j], theirs, rtol=1e-3)
    assert pytest.approx(search.best_params_["C"]) == model.C_
    np.testing.assert_allclose(model.coef_, search.best_estimator_.coef_, atol=2e-3)
    assert model.gaps_.shape == (3, 2)
    assert model.gaps_.max() <= 1e-8


def test_cross_validation_over_strengths_goes_from_strong_to_weak():
    model = SoftmaxClassifierCV(strengths=[1e-3, 10.0, 0.1], scoring="neg_log_loss", cv=3)
    model.fit(X, Y)
    assert model.strengths_.tolist() == [10.0, 0.1, 1e-3]
    assert model.strength_ == 1e-3
    assert model.score(X, Y) == pytest.approx(-log_loss(Y, model.predict_proba(X)))
    assert not hasattr(model, "partial_fit")
    np.testing.assert_array_equal(model.to_sklearn().predict(X), model.predict(X))


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray, scipy.sparse.csr_matrix])
def test_cross_validation_takes_every_kind_of_rows(convert):
    model = MulticlassSVMClassifierCV([0.01, 0.1], loss="squared-hinge", cv=3, random_state=0)
    assert model.fit(convert(X), Y).score(convert(X), Y) > 0.8


def test_cross_validation_routes_groups():
    groups = np.arange(len(Y)) % 7
    with sklearn.config_context(enable_metadata_routing=True):
        scoring = make_scorer(log_loss, response_method="predict_proba", greater_is_better=False)
        scoring.set_score_request(sample_weight=True)
        model = SoftmaxClassifierCV([0.1, 1.0], cv=GroupKFold(7), scoring=scoring)
        model.fit(X, Y, sample_weight=np.ones(len(Y)), groups=groups)
    assert model.scores_.shape == (7, 2)
    with pytest.raises(ValueError, match="enable_metadata_routing"):
        model.fit(X, Y, groups=groups)


def test_cross_validation_is_told_off():
    with pytest.raises(ValueError, match="two names of one grid"):
        SoftmaxClassifierCV(Cs=3, strengths=[1.0]).fit(X, Y)
    with pytest.raises(ValueError, match="empty"):
        SoftmaxClassifierCV(Cs=[]).fit(X, Y)
    with pytest.raises(ValueError, match="`C` must be positive"):
        SoftmaxClassifierCV(Cs=[-1.0]).fit(X, Y)
    with pytest.raises(ValueError, match="empty"):
        SoftmaxClassifierCV(Cs=-1).fit(X, Y)
    with pytest.raises(TypeError, match="`strengths` must be numbers to try, got 'few'"):
        SoftmaxClassifierCV(strengths="few").fit(X, Y)
    with pytest.warns(ConvergenceWarning) as caught:
        SoftmaxClassifierCV(Cs=[0.1, 1.0], cv=3, max_iter=1, tol=1e-9).fit(X, Y)
    assert "6 of the 6 fits on the path" in str(caught[-1].message)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_remedy_for_a_small_tol_is_one_that_is_left(dtype):
    with pytest.warns(ConvergenceWarning, match="at the limit of the arithmetic") as found:
        SoftmaxClassifier(tol=1e-13).fit(X.astype(dtype), Y)
    assert ("as float64" in str(found[0].message)) == (dtype == np.float32)


def test_a_new_class_in_a_later_block_is_named():
    model = SoftmaxClassifier().partial_fit(X[:100], Y[:100], classes=[0, 1])
    with pytest.raises(ValueError, match=r"the label 2, which is not in classes=\[0 1\]. Clone"):
        model.partial_fit(X, Y)
