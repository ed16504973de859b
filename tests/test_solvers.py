"""`minimize` keeps its promises: the gap, the weights, the limits, and what it refuses."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from jaxlin import losses, preprocess
from jaxlin.core import Batch, DataError, LinearParams
from jaxlin.objectives import compose
from jaxlin.scores import linear
from jaxlin.solvers import Status, describe, minimize
from jaxlin.solvers.dual_losses import FORMS, form_of, own_of

IRIS = load_iris(return_X_y=True)


@pytest.mark.parametrize("name", list(FORMS))
def test_the_gap_is_within_the_tolerance_for_every_loss(name):
    solution = minimize(*IRIS, loss=name, strength=1e-3, tolerance=1e-6)
    assert solution.status == Status.CONVERGED
    assert 0 <= solution.gap <= 1e-6 * solution.objective
    assert solution.gap == solution.objective - solution.lower_bound


def test_the_objective_is_the_librarys_own(blobs):
    inputs, labels = blobs()
    solution = minimize(inputs, labels, loss="hinge", strength=0.01)
    objective = compose(linear, losses.weston_watkins_hinge)
    value = objective(solution.params, Batch(inputs, labels), strength=0.01)
    np.testing.assert_allclose(solution.objective, float(value), rtol=1e-12)


def test_softmax_is_scikit_learns_logistic_regression():
    inputs, labels = IRIS
    solution = minimize(inputs, labels, strength=1 / (2 * 150), tolerance=1e-12)
    model = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000).fit(inputs, labels)
    np.testing.assert_allclose(solution.params.weights, model.coef_, atol=1e-5)


def test_crammer_singer_is_liblinears():
    """liblinear penalizes its bias; with none on either side the problems are the same."""
    inputs, labels = IRIS
    model = LinearSVC(
        multi_class="crammer_singer", fit_intercept=False, tol=1e-8, max_iter=1_000_000
    ).fit(inputs, labels)
    ours = dict(loss="crammer-singer", strength=1 / 300, fit_intercept=False)
    solution = minimize(inputs, labels, tolerance=1e-8, **ours)
    np.testing.assert_allclose(solution.params.weights, model.coef_, atol=2e-3)
    assert not solution.params.bias.any()


@pytest.mark.parametrize("name", ["softmax", "hinge", "crammer-singer", "squared-one-vs-rest"])
def test_weight_k_is_k_times_the_row(name, blobs):
    inputs, labels = blobs(1)
    counts = np.random.default_rng(2).integers(0, 4, len(labels))
    settings = dict(loss=name, strength=0.02, tolerance=1e-9)
    weighted = minimize(inputs, labels, sample_weight=counts, **settings)
    repeated = minimize(np.repeat(inputs, counts, 0), np.repeat(labels, counts), **settings)
    np.testing.assert_allclose(weighted.objective, repeated.objective, rtol=1e-9)
    # strength |dW|^2 <= gap: hinges are no more determined than that, sqrt(1e-9 / 0.02) = 2e-4;
    # smooth losses take the same path up to rounding
    atol = 1e-8 if FORMS[name].smooth else 2e-4
    np.testing.assert_allclose(weighted.params.weights, repeated.params.weights, atol=atol)


@pytest.mark.parametrize("name", ["softmax", "hinge", "one-vs-rest"])
@pytest.mark.parametrize("host", [True, False])
def test_both_readers_reach_the_same_optimum(name, host, monkeypatch, blobs):
    monkeypatch.setattr("jaxlin.passes.opening.SMALL_PROBLEM", 1e12 if host else 0)
    inputs, labels = blobs(3, size=200)
    raw = np.clip(inputs * 40 + 128, 0, 255).astype(np.uint8)
    seen = preprocess.fit(raw, "standardize")
    solution = minimize(raw, labels, loss=name, strength=1e-3, tolerance=1e-5, preprocessing=seen)
    assert solution.status == Status.CONVERGED
    assert solution.params.weights.dtype == np.float32
    mapped = (raw - seen.shift) * seen.scale
    monkeypatch.setattr("jaxlin.passes.opening.SMALL_PROBLEM", 1e12)
    again = minimize(mapped, labels, loss=name, strength=1e-3, tolerance=1e-8)
    assert solution.lower_bound <= again.objective <= solution.objective * (1 + 1e-9)


def test_a_warm_start_needs_fewer_passes(blobs):
    inputs, labels = blobs(4, size=300, features=20)
    cold = minimize(inputs, labels, strength=1e-3)
    warm = minimize(inputs, labels, strength=1e-3, init=cold.params)
    assert warm.evaluations < cold.evaluations


def test_float64_is_solved_in_float64_where_jax_is_in_float32(blobs):
    inputs, labels = blobs(5)
    with jax.enable_x64(False):
        solution = minimize(inputs, labels, strength=0.01, tolerance=1e-11)
    assert solution.status == Status.CONVERGED
    assert solution.params.weights.dtype == np.float64


@pytest.mark.parametrize("l1", [0.01, 0.1])
@pytest.mark.parametrize("strength", [0.0, 0.01])
def test_the_elastic_net_meets_its_optimality_conditions(l1, strength, blobs):
    """The data's gradient is within l1 at zeros and opposes the penalty elsewhere."""
    inputs, labels = blobs(6, size=90, features=6)
    solution = minimize(inputs, labels, strength=strength, l1_strength=l1, tolerance=1e-10)
    weights, bias = solution.params
    scores = inputs @ weights.T + bias
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    slope = (p - np.eye(3)[labels]).T @ inputs / len(labels) + 2 * strength * weights
    # a relative gap of 1e-10 leaves gradients of about its square root
    assert (np.abs(slope) <= l1 + 1e-4).all()
    moved = weights != 0
    np.testing.assert_allclose(slope[moved], -l1 * np.sign(weights[moved]), atol=1e-4)
    assert solution.gap <= 1e-10 * solution.objective


def test_a_large_l1_strength_leaves_only_the_bias(blobs):
    inputs, labels = blobs(7)
    solution = minimize(inputs, labels, strength=0.0, l1_strength=10.0)
    assert not solution.params.weights.any()
    np.testing.assert_allclose(solution.objective, np.log(3), rtol=1e-4)


def test_l1_needs_a_smooth_loss():
    with pytest.raises(ValueError, match="`l1_strength` needs a smooth loss"):
        minimize(*IRIS, loss="hinge", strength=0.1, l1_strength=0.1)


def test_the_limit_of_iterations_is_named():
    solution = minimize(*IRIS, strength=1e-4, tolerance=1e-10, max_iterations=1)
    assert solution.status == Status.MAX_ITERATIONS
    assert solution.iterations == 1
    assert solution.gap == solution.objective - solution.lower_bound
    assert "max_iterations" in describe(solution.status)


def test_the_callback_sees_the_bounds_close():
    seen = []
    solution = minimize(*IRIS, strength=1e-3, callback=lambda *args: seen.append(args))
    evaluations, objectives, bounds = np.array(seen).T
    assert (np.diff(evaluations) >= 0).all()
    assert (np.diff(bounds) >= 0).all()
    assert objectives[-1] <= objectives[0]
    assert bounds[-1] == solution.lower_bound


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(strength=-1.0), "`strength` must be nonnegative and finite, got -1"),
        (dict(strength=np.inf), "`strength` must be nonnegative and finite"),
        (dict(strength=1.0, tolerance=0.0), "`tolerance` must be positive"),
        (dict(strength=1.0, tolerance=1e-15), "at least 1e-13, .* the smallest"),
        (dict(strength=1.0, max_iterations=-1), "`max_iterations`"),
        (dict(strength=1.0, sample_weight=np.zeros(150)), "zero everywhere"),
        (
            dict(strength=1.0, sample_weight=-np.ones(150)),
            "nonnegative and finite, got -1.0 at row 0",
        ),
        (dict(strength=1.0, sample_weight=np.ones(3)), "one entry per row"),
        (dict(strength=1.0, classes=2), r"integers in \[0, 2\), got 2 at row 100"),
        (dict(strength=1.0, loss="huber"), "`loss` must be one of softmax"),
        (dict(strength=1.0, init=LinearParams(np.zeros((2, 4)), np.zeros(2))), "`init` must hold"),
    ],
)
def test_what_cannot_be_used_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        minimize(*IRIS, **settings)


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize(
    ("spoilt", "dtype", "message"),
    [
        (np.nan, np.float32, "holds NaN or infinity"),
        (np.inf, np.float32, "holds .*infinity"),
        (1e20, np.float32, "squares overflow in float"),
        (1e160, np.float64, "squares overflow in float64. Scale the features"),
    ],
)
def test_numbers_without_a_square_are_named(small, spoilt, dtype, message, monkeypatch, blobs):
    monkeypatch.setattr("jaxlin.passes.opening.SMALL_PROBLEM", 1e12 if small else 0)
    inputs, labels = blobs(3, size=200)
    inputs = inputs.astype(dtype)
    inputs[150, 2] = spoilt
    if small and spoilt == 1e20:  # NumPy computes in float64
        assert minimize(inputs, labels, strength=1e-2, tolerance=0.1).gap >= 0
        return
    with pytest.raises(DataError, match=message):
        minimize(inputs, labels, strength=1e-2)


def test_unusable_data_are_named():
    inputs, labels = IRIS
    with pytest.raises(DataError, match="NaN or infinity"):
        minimize(np.where(inputs > 7, np.nan, inputs), labels, strength=1.0)
    with pytest.raises(TypeError, match="integer classes"):
        minimize(inputs, labels.astype(float), strength=1.0)
    with pytest.raises(ValueError, match="got -1 at row 0"):
        minimize(inputs, labels - 1, strength=1.0)
    with pytest.raises(ValueError, match="`inputs` must be"):
        minimize(inputs[0], labels, strength=1.0)


def test_softmax_losses_near_zero_keep_their_digits():
    """A true class that leads by z has loss log(1 + 9 exp(-z)), also in float32."""
    form = form_of("softmax")
    leads = np.float32([1, 10, 20, 40])
    scores = np.zeros((10, 4), np.float32)
    scores[3] = leads
    own = own_of(np, np.full(4, 3), 10)
    z = form.shortfalls(np, scores, own, 1.0)
    exact = np.log1p(9 * np.exp(-leads.astype(float)))
    np.testing.assert_allclose(form.loss(np, z, own), exact, rtol=1e-6)  # some ten roundings
    residuals = form.residuals(np, form.maximizer(np, z, 1.0, 0.0), own)
    np.testing.assert_allclose(residuals[3], np.expm1(-exact), rtol=1e-5)
