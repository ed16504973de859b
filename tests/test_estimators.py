"""Fits are scikit-learn's optima, and come with a proof; every mistake gets a sentence."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, LinearSVC

from jaxlin.estimators import (
    MulticlassSVMClassifier,
    SoftmaxClassifier,
    SoftmaxClassifierCV,
)

X, Y = load_iris(return_X_y=True)
X_TWO, Y_TWO = X[50:], Y[50:]  # two classes that overlap
HINGES = (
    "hinge",
    "crammer-singer",
    "one-vs-rest",
    "squared-hinge",
    "squared-crammer-singer",
    "squared-one-vs-rest",
)


def objective(model, X, y, counts=None):
    """What `model` says it minimized, one example after another."""
    W, b = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        share = 1.0 if str(getattr(model, "loss", "")).endswith("one-vs-rest") else 0.5
        W, b = share * np.vstack([-W, W]), share * np.concatenate([-b, b])
    counts = np.ones(len(y)) if counts is None else counts
    total = 0.0
    for row, label, count in zip(X, y, counts, strict=True):
        s, own = W @ row + b, int(np.flatnonzero(model.classes_ == label)[0])
        rivals = np.delete(s, own)
        loss = getattr(model, "loss", "softmax")
        power = 2 if loss.startswith("squared") else 1
        if loss == "softmax":
            value = np.log(np.exp(s - s[own]).sum())
        elif loss.endswith("crammer-singer"):
            value = max(0, 1 + rivals.max() - s[own]) ** power
        elif loss.endswith("one-vs-rest"):
            value = max(0, 1 - s[own]) ** power + (np.maximum(0, 1 + rivals) ** power).sum()
        else:
            value = (np.maximum(0, 1 + rivals - s[own]) ** power).sum()
        total += count * value
    return total / counts.sum() + model.strength_ * (W**2).sum()


@pytest.mark.parametrize(("X", "y"), [(X, Y), (X_TWO, Y_TWO)], ids=["three", "two"])
@pytest.mark.parametrize("C", [0.01, 1.0])
def test_softmax_is_logistic_regression(X, y, C):
    theirs = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(X, y)
    ours = SoftmaxClassifier(C=C, tol=1e-11).fit(X, y)
    # A gap of 1e-11 leaves the coefficients sqrt(1e-11 / strength) = 5e-5 apart at C = 1.
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-4)
    assert ours.coef_.shape == theirs.coef_.shape
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-3)
    assert ours.intercept_.shape == theirs.intercept_.shape


@pytest.mark.parametrize("loss", ["hinge", "crammer-singer", "one-vs-rest"])
def test_the_binary_hinges_are_the_linear_svc_of_libsvm(loss):
    theirs = SVC(kernel="linear", C=0.5, tol=1e-9).fit(X_TWO, Y_TWO)
    ours = MulticlassSVMClassifier(C=0.5, loss=loss, tol=1e-9).fit(X_TWO, Y_TWO)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=2e-4)
    np.testing.assert_allclose(
        ours.decision_function(X_TWO), theirs.decision_function(X_TWO), atol=2e-3
    )


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        ("crammer-singer", {"multi_class": "crammer_singer"}),
        ("one-vs-rest", {"loss": "hinge"}),
        ("squared-one-vs-rest", {}),
    ],
)
def test_the_multiclass_hinges_are_those_of_liblinear(loss, settings):
    # Without intercept, because liblinear penalizes it.
    theirs = LinearSVC(C=0.05, fit_intercept=False, tol=1e-8, max_iter=200_000, **settings)
    ours = MulticlassSVMClassifier(C=0.05, loss=loss, fit_intercept=False, tol=1e-9)
    np.testing.assert_allclose(ours.fit(X, Y).coef_, theirs.fit(X, Y).coef_, atol=1e-3)
    assert not ours.intercept_.any()


@pytest.mark.parametrize("loss", ["softmax", *HINGES])
@pytest.mark.parametrize(("X", "y"), [(X, Y), (X_TWO, Y_TWO)], ids=["three", "two"])
def test_the_objective_is_what_it_says_and_the_bound_is_below_the_optimum(X, y, loss):
    cls = SoftmaxClassifier if loss == "softmax" else MulticlassSVMClassifier
    settings = {} if loss == "softmax" else {"loss": loss}
    rough = cls(strength=0.01, tol=1e-2, **settings).fit(X, y)
    fine = cls(strength=0.01, tol=1e-7, **settings).fit(X, y)
    assert rough.objective_ == pytest.approx(objective(rough, X, y), rel=1e-10)
    assert rough.lower_bound_ <= fine.objective_ <= rough.objective_ * (1 + 1e-7)
    assert rough.gap_ == rough.objective_ - rough.lower_bound_ <= 1e-2 * rough.objective_
    assert rough.converged_
    assert fine.converged_


@pytest.mark.parametrize("estimator", [SoftmaxClassifier(), MulticlassSVMClassifier()])
def test_class_weights_multiply_sample_weights(estimator):
    weights = np.linspace(0.5, 2, len(Y))
    by_class = {0: 1.0, 1: 3.0, 2: 0.5}
    product = weights * np.vectorize(by_class.get)(Y)
    together = estimator.fit(X, Y, product).coef_
    apart = estimator.set_params(class_weight=by_class).fit(X, Y, weights).coef_
    estimator.set_params(class_weight=None)
    np.testing.assert_allclose(apart, together, rtol=1e-10)


def test_balanced_classes_weigh_the_same_each():
    few = np.r_[0:10, 50:150]
    masses = {0: 110 / 30, 1: 110 / 150, 2: 110 / 150}  # N / (K * count)
    balanced = SoftmaxClassifier(class_weight="balanced").fit(X[few], Y[few])
    by_hand = SoftmaxClassifier(class_weight=masses).fit(X[few], Y[few])
    np.testing.assert_allclose(balanced.coef_, by_hand.coef_, rtol=1e-10)


def test_strength_and_C_are_one_knob():
    by_C = SoftmaxClassifier(C=0.2).fit(X, Y)
    by_strength = SoftmaxClassifier(strength=1 / (2 * 0.2 * len(Y))).fit(X, Y)
    np.testing.assert_array_equal(by_C.coef_, by_strength.coef_)
    assert pytest.approx(0.2) == by_strength.C_
    assert by_C.strength_ == pytest.approx(by_strength.strength_)


def test_labels_may_be_anything_that_sorts_and_may_change_between_fits():
    names = np.array(["setosa", "versicolor", "virginica"])[Y]
    model = SoftmaxClassifier(warm_start=True).fit(X, names)
    assert model.predict(X[:1])[0] == "setosa"
    np.testing.assert_array_equal(
        model.fit(X_TWO, Y_TWO).coef_, SoftmaxClassifier().fit(X_TWO, Y_TWO).coef_
    )
    model.fit(X_TWO[:, :3], Y_TWO)
    assert model.classes_.tolist() == [1, 2]
    assert model.coef_.shape == (1, 3)


def test_a_warm_start_from_the_optimum_has_nothing_left_to_do():
    model = SoftmaxClassifier(tol=1e-6, warm_start=True).fit(X, Y)
    cold = model.n_iter_
    assert model.fit(X, Y).n_iter_ <= 1 < cold


def test_float32_data_give_float32_coefficients_near_those_of_float64():
    narrow = SoftmaxClassifier(tol=1e-6).fit(X.astype(np.float32), Y)
    wide = SoftmaxClassifier(tol=1e-6).fit(X, Y)
    assert narrow.coef_.dtype == narrow.predict_proba(X.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(narrow.coef_, wide.coef_, atol=1e-3)


def test_raw_pixels_stay_bytes_and_sparse_rows_stay_sparse():
    pixels, labels = load_digits(return_X_y=True)
    pixels, labels = pixels[:300], labels[:300]
    wide = SoftmaxClassifier(strength=1e-2, tol=1e-7).fit(pixels, labels)
    raw = SoftmaxClassifier(strength=1e-2, tol=1e-7).fit(pixels.astype(np.uint8), labels)
    csr = SoftmaxClassifier(strength=1e-2, tol=1e-7).fit(scipy.sparse.csr_matrix(pixels), labels)
    np.testing.assert_allclose(raw.coef_, wide.coef_, atol=1e-5)
    np.testing.assert_allclose(csr.coef_, wide.coef_, atol=1e-8)
    np.testing.assert_allclose(
        raw.decision_function(pixels.astype(np.uint8)), wide.decision_function(pixels), atol=1e-4
    )
    np.testing.assert_allclose(
        csr.predict_proba(scipy.sparse.csr_matrix(pixels)), wide.predict_proba(pixels), atol=1e-8
    )


@pytest.mark.parametrize("x64", [False, True])
def test_jax_arrays_stay_jax_arrays(x64):
    with jax.enable_x64(x64):
        rows = jnp.asarray(X)
        model = SoftmaxClassifier(C=0.1).fit(rows, jnp.asarray(Y))
        results = [
            model.coef_,
            model.intercept_,
            model.decision_function(rows),
            model.predict_proba(rows),
            model.predict(rows),
        ]
        assert all(isinstance(result, jax.Array) for result in results)
        assert {result.dtype for result in results[:4]} == {rows.dtype}
        assert model.score(rows, Y) > 0.9
    host = SoftmaxClassifier(C=0.1).fit(X, Y)
    np.testing.assert_allclose(results[3], host.predict_proba(X), atol=2e-3)
    np.testing.assert_allclose(model.predict_proba(X), host.predict_proba(X), atol=2e-3)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8", "int32"])
@pytest.mark.parametrize("rows", [slice(None), slice(50, None)], ids=["three", "two"])
def test_device_rows_of_a_model_of_host_rows_are_computed_quietly(dtype, rows):
    """Without x64 float64 coefficients meet float32 rows: in float32, and without a word of it."""
    model = SoftmaxClassifier(C=0.1).fit(X[rows], Y[rows])
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.simplefilter("error")
        device = jnp.asarray(X, dtype)
        scores, found = model.decision_function(device), model.predict_proba(device)
        predicted = model.predict(device)
    assert scores.dtype == found.dtype == np.float32
    host = np.asarray(device).astype(np.float64)
    # sums of four products of size 10, in float32
    np.testing.assert_allclose(scores, model.decision_function(host), atol=1e-4)
    np.testing.assert_array_equal(predicted, model.predict(host))


def test_labels_that_the_device_cannot_hold_stay_on_the_host():
    """Without x64 JAX cuts 64-bit integers to 32 bits."""
    names = Y + 10**12
    model = SoftmaxClassifier().fit(X, names)
    with jax.enable_x64(False):
        assert set(np.asarray(model.predict(jnp.asarray(X))).tolist()) == {*names.tolist()}


def test_a_device_array_is_checked_too():
    rows = jnp.asarray(X)
    with pytest.raises(ValueError, match="NaN"):
        SoftmaxClassifier().fit(rows.at[3, 1].set(jnp.nan), Y)
    with pytest.raises(ValueError, match="2D"):
        SoftmaxClassifier().fit(rows[:, 0], Y)
    with pytest.raises(ValueError, match="inconsistent"):
        SoftmaxClassifier().fit(rows, Y[:-1])
    with pytest.raises(ValueError, match="expecting 4 features"):
        SoftmaxClassifier().fit(rows, Y).predict(rows[:, :2])


@pytest.mark.parametrize("cls", [SoftmaxClassifier, MulticlassSVMClassifier])
@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"C": 0}, ValueError, "`C` must be positive, got 0"),
        ({"C": -1.0}, ValueError, "`C` must be positive"),
        ({"C": "1"}, TypeError, "`C` must be a number"),
        ({"C": float("nan")}, ValueError, "`C` must be positive"),
        ({"strength": -1e-3}, ValueError, "`strength` must be nonnegative"),
        ({"strength": float("inf")}, ValueError, "`strength` must be nonnegative and finite"),
        ({"C": 1.0, "strength": 1e-3}, ValueError, "two names of one thing"),
        ({"tol": 0}, ValueError, "`tol` must be at least 1e-13"),
        ({"tol": 1e-15}, ValueError, "smallest relative gap that float64 can certify"),
        ({"tol": "tight"}, TypeError, "`tol` must be a number"),
        ({"max_iter": -1}, ValueError, "`max_iter`"),
        ({"max_iter": 2.5}, ValueError, "`max_iter`"),
        ({"class_weight": {0: -1.0}}, ValueError, "`class_weight` must be nonnegative"),
        ({"class_weight": "even"}, ValueError, "class_weight"),
    ],
    ids=str,
)
def test_a_bad_parameter_is_named(cls, settings, error, words):
    with pytest.raises(error, match=words):
        cls(**settings).fit(X, Y)


def test_an_unknown_hinge_is_named():
    with pytest.raises(ValueError, match=r"`loss` must be one of hinge.*got 'squared_hinge'"):
        MulticlassSVMClassifier(loss="squared_hinge").fit(X, Y)


def test_negative_weights_and_rows_of_one_class_are_refused():
    with pytest.raises(ValueError, match="nonnegative, got -1 at row 4"):
        SoftmaxClassifier().fit(X, Y, np.where(np.arange(150) == 4, -1.0, 1.0))
    with pytest.raises(ValueError, match="one class: 2"):
        SoftmaxClassifier().fit(X, Y, (Y == 2).astype(float))
    with pytest.raises(NotFittedError):
        SoftmaxClassifier().predict(X)


def test_a_loose_fit_names_its_gap_and_the_knob():
    with pytest.warns(ConvergenceWarning, match=r"relative gap of .*`max_iter`=1 steps. Raise"):
        model = SoftmaxClassifier(max_iter=1, tol=1e-9).fit(X, Y)
    assert not model.converged_
    assert model.gap_ > 1e-9 * model.objective_


def test_separable_data_without_penalty_say_so():
    with pytest.warns(ConvergenceWarning, match="separable"):
        SoftmaxClassifier(C=np.inf).fit(X[:100], Y[:100])


@pytest.mark.parametrize("setting", [{"C": np.inf}, {"strength": 0.0}], ids=str)
def test_a_hinge_without_penalty_is_refused(setting):
    words = "needs a penalty; an infinite `C`, or a `strength` of 0, is none"
    with pytest.raises(ValueError, match=words):
        MulticlassSVMClassifier(**setting).fit(X, Y)
    with pytest.warns(ConvergenceWarning, match="no gap can be proved. Set a finite `C`"):
        MulticlassSVMClassifier(loss="squared-hinge", strength=0.0).fit(X_TWO, Y_TWO)


@pytest.mark.parametrize("cls", [SoftmaxClassifier, MulticlassSVMClassifier, SoftmaxClassifierCV])
@pytest.mark.parametrize("weight", [1.7e308, 5e-324])
@pytest.mark.parametrize("setting", [{}, {"class_weight": "balanced"}], ids=["one", "balanced"])
def test_weights_whose_sum_is_no_number_are_named(cls, weight, setting):
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="`sample_weight` must sum to between 1e-280 and"):
            cls(**setting).fit(X, Y, np.full(150, weight))
        by_class = {"class_weight": {0: weight, 1: weight, 2: weight}}
        with pytest.raises(ValueError, match="`sample_weight` times `class_weight` must sum to"):
            cls(**by_class).fit(X, Y)


def test_blocks_whose_weights_sum_to_no_number_are_named():
    model = SoftmaxClassifier(strength=0.1)
    for _ in range(9):
        model.partial_fit(X, Y, classes=[0, 1, 2], sample_weight=np.full(150, 1e279 / 150))
    with pytest.raises(ValueError, match="the weights of all blocks must sum to"):
        model.partial_fit(X, Y, sample_weight=np.full(150, 3e279 / 150))


@pytest.mark.parametrize("cls", [SoftmaxClassifier, MulticlassSVMClassifier])
@pytest.mark.parametrize(("C", "strength"), [(5e-324, "inf"), (1e308, "0")])
def test_a_C_whose_strength_is_no_number_is_named(cls, C, strength):
    with np.errstate(all="raise"):
        with pytest.raises(ValueError, match=re.escape(f"is a strength of {strength} in")):
            cls(C=C).fit(X, Y)
        with pytest.raises(ValueError, match="`C` must be a number of float64"):
            cls(C=10**400).fit(X, Y)


@pytest.mark.parametrize("scale", [1.0, 1e-150])
@pytest.mark.parametrize("loss", ["softmax", "hinge", "squared-one-vs-rest"])
def test_what_rounds_to_0_is_no_error_whatever_the_users_state(loss, scale):
    cls = SoftmaxClassifier if loss == "softmax" else MulticlassSVMClassifier
    settings = {} if loss == "softmax" else {"loss": loss}
    near, far, tiny = X * scale, X * scale * 1e3, X * 1e-200
    with np.errstate(all="raise"):
        model = cls(C=1e4, tol=1e-2, **settings).fit(near, Y)
        assert model.score(near, Y) > 0.3  # what the largest class alone has
        assert np.isfinite(model.decision_function(tiny)).all()
        if loss == "softmax":
            np.testing.assert_allclose(model.predict_proba(far).sum(1), 1)
    with np.errstate(under="raise"):
        model.predict(tiny)
        with pytest.raises(FloatingPointError):  # the user's state is the user's again
            tiny * tiny


def test_verbose_prints_both_bounds(capsys):
    SoftmaxClassifier(verbose=1).fit(X, Y)
    assert "lower bound" in capsys.readouterr().out


@pytest.mark.parametrize("estimator", [SoftmaxClassifier(), MulticlassSVMClassifier()])
def test_pieces_come_near_the_whole_whatever_the_scales(estimator):
    pixels, labels = load_digits(return_X_y=True)
    pixels = pixels * np.logspace(-3, 3, 64)
    estimator.set_params(random_state=0)
    for start in range(0, 1400, 200):
        piece = slice(start, start + 200)
        estimator.partial_fit(pixels[piece], labels[piece], classes=np.arange(10))
    assert estimator.score(pixels[1400:], labels[1400:]) > 0.85
    assert not hasattr(estimator, "gap_")
    with pytest.raises(ValueError, match="not in classes"):
        estimator.partial_fit(pixels[:5], labels[:5] + 100)


def test_an_outlier_does_not_shake_what_was_learned():
    model = SoftmaxClassifier(random_state=0).partial_fit(X, Y, classes=[0, 1, 2])
    model.partial_fit(np.full((1, 4), 1e6), [2])
    assert np.abs(model.decision_function(np.full((1, 4), 1e6))).max() < 20


def test_pieces_do_not_care_for_the_unit_of_a_feature():
    near = SoftmaxClassifier(strength=0.0, random_state=0).partial_fit(X, Y, classes=[0, 1, 2])
    far = SoftmaxClassifier(strength=0.0, random_state=0)
    far.partial_fit(X * [1e-4, 1, 1e3, 1e6], Y, classes=[0, 1, 2])
    np.testing.assert_allclose(far.coef_ * [1e-4, 1, 1e3, 1e6], near.coef_, rtol=1e-9)


def test_fits_are_quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SoftmaxClassifier().fit(X, Y)
        MulticlassSVMClassifier().fit(X, Y)
