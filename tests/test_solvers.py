"""`minimize` keeps its promises: the gap, the weights, the limits, and what it says of failure."""

import jax
import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from jaxlin import losses, preprocess
from jaxlin.core import Batch, DataError, LinearParams
from jaxlin.objectives import compose
from jaxlin.scores import linear
from jaxlin.solvers import Status, certify, describe, minimize, minimize_path
from jaxlin.solvers.duals import FORMS, form_of, own_of
from jaxlin.solvers.problem import open_problem

IRIS = load_iris(return_X_y=True)


def blobs(seed=0, size=60, features=4, classes=3, spread=1.0):
    generator = np.random.default_rng(seed)
    labels = np.arange(size) % classes
    centers = generator.normal(size=(classes, features)) * spread
    return centers[labels] + generator.normal(size=(size, features)), labels


@pytest.mark.parametrize("name", list(FORMS))
def test_the_gap_is_within_the_tolerance_for_every_loss(name):
    solution = minimize(*IRIS, loss=name, strength=1e-3, tolerance=1e-6)
    assert solution.status == Status.CONVERGED
    assert 0 <= solution.gap <= 1e-6 * solution.objective
    assert solution.gap == solution.objective - solution.lower_bound


def test_the_objective_is_the_librarys_own():
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
def test_weight_k_is_k_times_the_row(name):
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
def test_both_readers_reach_the_same_optimum(name, host, monkeypatch):
    monkeypatch.setattr("jaxlin.passes.SMALL_PROBLEM", 1e12 if host else 0)
    inputs, labels = blobs(3, size=200)
    raw = np.clip(inputs * 40 + 128, 0, 255).astype(np.uint8)
    seen = preprocess.fit(raw, "standardize")
    solution = minimize(raw, labels, loss=name, strength=1e-3, tolerance=1e-5, preprocessing=seen)
    assert solution.status == Status.CONVERGED
    assert solution.params.weights.dtype == np.float32
    mapped = (raw - seen.shift) * seen.scale
    monkeypatch.setattr("jaxlin.passes.SMALL_PROBLEM", 1e12)
    again = minimize(mapped, labels, loss=name, strength=1e-3, tolerance=1e-8)
    assert solution.lower_bound <= again.objective <= solution.objective * (1 + 1e-9)


def test_a_warm_start_needs_fewer_passes():
    inputs, labels = blobs(4, size=300, features=20)
    cold = minimize(inputs, labels, strength=1e-3)
    warm = minimize(inputs, labels, strength=1e-3, init=cold.params)
    assert warm.evaluations < cold.evaluations


def test_float64_is_solved_in_float64_where_jax_is_in_float32():
    inputs, labels = blobs(5)
    with jax.enable_x64(False):
        solution = minimize(inputs, labels, strength=0.01, tolerance=1e-11)
    assert solution.status == Status.CONVERGED
    assert solution.params.weights.dtype == np.float64


@pytest.mark.parametrize("l1", [0.01, 0.1])
@pytest.mark.parametrize("strength", [0.0, 0.01])
def test_the_elastic_net_meets_its_optimality_conditions(l1, strength):
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


def test_a_large_l1_strength_leaves_only_the_bias():
    inputs, labels = blobs(7)
    solution = minimize(inputs, labels, strength=0.0, l1_strength=10.0)
    assert not solution.params.weights.any()
    np.testing.assert_allclose(solution.objective, np.log(3), rtol=1e-4)


def test_l1_needs_a_smooth_loss():
    with pytest.raises(ValueError, match="`l1_strength` needs a smooth loss"):
        minimize(*IRIS, loss="hinge", strength=0.1, l1_strength=0.1)


@pytest.mark.parametrize("name", list(FORMS))
def test_separable_data_without_regularizer_are_said_to_be_so(name):
    inputs = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    solution = minimize(inputs, np.array([0, 0, 1, 1]), loss=name, strength=0.0)
    assert solution.status == Status.SEPARABLE
    assert "no optimum" in describe(solution.status)


def test_overlapping_data_without_regularizer_stop_without_a_proof():
    inputs, labels = blobs(8, spread=0.3)
    solution = minimize(inputs, labels, strength=0.0)
    model = LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000).fit(inputs, labels)
    assert solution.status == Status.NO_PROOF
    assert solution.lower_bound == 0
    scores = inputs @ model.coef_.T + model.intercept_
    theirs = losses.softmax_cross_entropy(scores, labels).mean()
    np.testing.assert_allclose(solution.objective, float(theirs), rtol=1e-6)


def test_an_overlapping_hinge_without_regularizer_is_nearly_the_linear_programs():
    inputs, labels = blobs(8, size=30, features=2, spread=0.3)
    solution = minimize(inputs, labels, loss="hinge", strength=0.0)
    assert solution.status == Status.NO_PROOF
    slightly = minimize(inputs, labels, loss="hinge", strength=1e-6, tolerance=1e-6)
    np.testing.assert_allclose(solution.objective, slightly.objective, rtol=1e-3)


def test_an_absent_class_costs_nothing():
    inputs, labels = blobs(9)
    labels = np.where(labels == 2, 4, labels)
    for name in FORMS:
        full = minimize(inputs, labels, loss=name, strength=0.1, classes=6, tolerance=1e-6)
        few = minimize(inputs, np.minimum(labels, 2), loss=name, strength=0.1, tolerance=1e-6)
        np.testing.assert_allclose(full.objective, few.objective, rtol=1e-5)
        by_hand = certify(
            open_problem(
                inputs,
                labels,
                loss=name,
                strength=0.1,
                l1_strength=0.0,
                tolerance=1e-4,
                max_iterations=1,
                margin=1.0,
                sample_weight=None,
                fit_intercept=False,  # keeps all six classes
                classes=6,
                dtype=None,
                preprocessing=None,
            )[0],
            *full.params,
        )
        np.testing.assert_allclose(by_hand.objective, full.objective, rtol=1e-6)


def test_a_single_class_is_learned_at_no_cost():
    for name in FORMS:
        solution = minimize(np.ones((3, 2)), np.zeros(3, int), loss=name, strength=0.1)
        assert solution.status == Status.CONVERGED
        assert solution.objective == 0


def test_features_of_any_scale_and_constant_ones_are_no_obstacle():
    inputs, labels = blobs(10, size=100, features=6)
    scales = 10.0 ** np.array([-3, -2, 0, 1, 3, 4])
    hard = np.hstack([inputs * scales, np.ones((100, 1)), np.zeros((100, 1)), inputs[:, :1]])
    solution = minimize(hard, labels, strength=1e-4, tolerance=1e-5)
    assert solution.status == Status.CONVERGED


@pytest.mark.parametrize("name", [name for name in FORMS if name != "softmax"])
def test_hinges_of_features_of_any_scale_are_certified(name):
    """Penalized alike, the largest features are all but free and the smallest all but absent."""
    inputs, labels = load_digits(return_X_y=True)
    scales = 10.0 ** np.random.default_rng(0).uniform(-4, 4, 64)
    hard = (inputs[:200] / 16 * scales, labels[:200])
    solution = minimize(*hard, loss=name, strength=1e-4, tolerance=1e-3, max_iterations=200)
    assert solution.status == Status.CONVERGED


@pytest.mark.parametrize("name", ["squared-hinge", "squared-one-vs-rest"])
def test_squared_hinges_of_separable_data_with_a_weak_penalty_are_certified(name):
    inputs, labels = load_digits(return_X_y=True)
    few, settings = (inputs[:200] / 16, labels[:200]), dict(loss=name, max_iterations=300)
    weak = minimize(*few, strength=1e-6, **settings)
    assert weak.status == Status.CONVERGED
    free = minimize(*few, strength=0, **settings)
    assert free.status == Status.SEPARABLE
    assert free.objective == 0


def test_what_a_second_method_reports_is_no_worse_than_the_first():
    inputs, labels = load_digits(return_X_y=True)
    seen = []
    solution = minimize(
        inputs[:200] / 16,
        labels[:200],
        loss="squared-hinge",
        strength=1e-6,
        callback=lambda *found: seen.append(found),
    )
    evaluations, objectives, bounds = np.transpose(seen)
    for rising in (evaluations, -objectives, bounds):
        assert np.all(np.diff(rising) >= 0)
    # the last report is of parameters not yet rounded to float64's neighbors on the way back
    np.testing.assert_allclose(objectives[-1], solution.objective, rtol=1e-9)


def test_fewer_rows_than_features():
    generator = np.random.default_rng(11)
    inputs, labels = generator.normal(size=(20, 300)), np.arange(20) % 3
    for name in ("softmax", "hinge"):
        solution = minimize(inputs, labels, loss=name, strength=0.01, tolerance=1e-5)
        assert solution.status == Status.CONVERGED


def test_sparse_inputs_reach_the_dense_optimum():
    generator = np.random.default_rng(12)
    dense = generator.normal(size=(80, 30)) * (generator.uniform(size=(80, 30)) < 0.2)
    labels = np.arange(80) % 4
    for kind in (scipy.sparse.csr_matrix, scipy.sparse.csc_array):
        sparse = minimize(kind(dense), labels, strength=0.01, tolerance=1e-8)
        whole = minimize(dense, labels, strength=0.01, tolerance=1e-8)
        np.testing.assert_allclose(sparse.objective, whole.objective, rtol=1e-8)


def test_many_classes():
    inputs, labels = blobs(13, size=400, features=8, classes=100, spread=3.0)
    solution = minimize(inputs, labels, strength=1e-3)
    assert solution.status == Status.CONVERGED


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


def test_a_path_is_its_single_fits():
    """Each solution is as good as it says, whatever it was started from."""
    inputs, labels = blobs(0, size=600, features=20, classes=7)
    strengths = [1e-3, 1.0, 1e-2, 1e-1]
    path = minimize_path(inputs, labels, strengths=strengths, tolerance=1e-6)
    for strength, solution in zip(strengths, path, strict=True):
        alone = minimize(inputs, labels, strength=strength, tolerance=1e-9)
        assert alone.lower_bound <= solution.objective <= alone.objective * (1 + 1e-6)
        assert solution.lower_bound <= alone.objective
        assert solution.status == Status.CONVERGED


def test_folds_side_by_side_are_fits_of_their_rows():
    """Weights 0 and 1 on shared rows give what the rows alone give; one fold lacks a class."""
    inputs, labels = blobs(1, size=900, features=300, classes=10)  # on the device
    weights = (np.arange(900)[None, :] % 3 != np.arange(3)[:, None]) * 1.0
    weights[2, labels == 4] = 0
    told = []
    paths = minimize_path(
        inputs.astype(np.float32),
        labels,
        strengths=[1e-1, 1e-2],
        sample_weight=weights,
        tolerance=1e-5,
        callback=lambda f, t, solution: told.append((f, t)),
    )
    assert sorted(told) == [(f, t) for f in range(3) for t in range(2)]
    for fold, path in zip(weights, paths, strict=True):
        rows = fold > 0
        for strength, solution in zip([1e-1, 1e-2], path, strict=True):
            alone = minimize(
                inputs[rows], labels[rows], strength=strength, tolerance=1e-9, classes=10
            )
            # both within 1e-5 of the same optimum, and float32 pixels move it by some 1e-7
            np.testing.assert_allclose(solution.objective, alone.objective, rtol=1.1e-5)
            assert solution.lower_bound <= alone.objective * (1 + 1e-6)


def test_folds_share_passes(monkeypatch):
    """Three folds ask for hardly more passes than one."""
    from jaxlin.passes import DeviceRows

    inputs, labels = blobs(2, size=2000, features=200, classes=8)
    passes, fused = [], DeviceRows.fused
    monkeypatch.setattr(
        DeviceRows, "fused", lambda self, *a, **k: passes.append(1) or fused(self, *a, **k)
    )
    settings = dict(strengths=[1e-2], tolerance=1e-4)
    minimize_path(inputs.astype(np.float32), labels, **settings)
    one = len(passes)
    weights = np.random.default_rng(0).integers(0, 3, (3, 2000)) * 1.0
    minimize_path(inputs.astype(np.float32), labels, sample_weight=weights, **settings)
    assert len(passes) - one <= 1.5 * one + 4


@pytest.mark.parametrize(
    ("strengths", "weights", "sentence"),
    [
        ([], None, "must be"),
        ([1.0, -1.0], None, "got -1"),
        ([1.0, np.inf], None, "got inf"),
        ([[1.0], [2.0]], None, "weightings"),
    ],
)
def test_strengths_that_make_no_path_are_refused(strengths, weights, sentence):
    inputs, labels = blobs(0)
    with pytest.raises(ValueError, match=sentence):
        minimize_path(inputs, labels, strengths=strengths, sample_weight=weights)


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


def test_a_hessian_of_too_few_rows_takes_more(monkeypatch):
    """100 sampled rows miss curvature of 903 unknowns: a step that shows it asks for more."""
    from jaxlin.solvers import hinges, newton

    monkeypatch.setattr(newton, "BENDING_ROWS", 100)
    monkeypatch.setattr(hinges, "suits_interior", lambda problem: False)
    inputs, labels = blobs(3, size=4000, features=300, classes=3, spread=0.2)
    settings = dict(loss="hinge", strength=1e-3, tolerance=1e-3, max_iterations=40)
    assert minimize(inputs.astype(np.float32), labels, **settings).status == Status.CONVERGED
    monkeypatch.setattr(newton, "MISSED", np.inf)  # never learns
    assert minimize(inputs.astype(np.float32), labels, **settings).status != Status.CONVERGED


def test_quasi_newton_steps_save_passes_where_most_rows_bend(monkeypatch):
    """Noise: every row stays near a kink, so that a Newton system is over all of them."""
    from jaxlin.solvers import hinges

    inputs, labels = blobs(5, size=2500, features=300, classes=4, spread=0.05)
    settings = dict(loss="hinge", strength=1e-2, tolerance=1e-3)
    mixed = minimize(inputs.astype(np.float32), labels, **settings)
    monkeypatch.setattr(hinges, "DEAR", np.inf)  # Newton throughout
    newton = minimize(inputs.astype(np.float32), labels, **settings)
    assert mixed.status == newton.status == Status.CONVERGED
    assert mixed.lower_bound <= newton.objective
    assert newton.lower_bound <= mixed.objective
    assert mixed.evaluations < 0.8 * newton.evaluations
