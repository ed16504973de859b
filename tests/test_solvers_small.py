"""Newton's method on few rows: scikit-learn's optimum, hard data, and what it leaves to others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.linear_model import LogisticRegression

from jaxlin import cpu_threads
from jaxlin.core import LinearParams
from jaxlin.losses import softmax_cross_entropy
from jaxlin.solvers import Status, minimize, small
from jaxlin.solvers.problem import open_problem

IRIS = load_iris(return_X_y=True)
CANCER = load_breast_cancer(return_X_y=True)


@pytest.fixture
def alone(monkeypatch):
    """No other method may take over."""
    monkeypatch.delattr(small, "minimize_smooth")


@pytest.fixture(params=["factored", "conjugate gradients"])
def solved_by(request, monkeypatch, alone):
    """How the Newton systems are solved."""
    work = np.inf if request.param == "factored" else 0
    monkeypatch.setattr(small, "DENSE_WORK", work)


def close(solution, other, strength):
    """Both objectives are within the gap, hence strength |dW|^2 <= 2 gap (strong convexity)."""
    weights = solution.params.weights - other
    assert strength * np.sum(weights**2) <= 2 * solution.gap + 1e-12 * solution.objective


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("C", [0.01, 100.0])
def test_the_optimum_is_scikit_learns(C, free, solved_by):
    inputs, labels = IRIS
    strength = 1 / (2 * 150 * C)
    solution = minimize(inputs, labels, strength=strength, tolerance=1e-10, fit_intercept=free)
    assert solution.status == Status.CONVERGED
    assert solution.iterations <= 12  # digits double: 5 to 10
    model = LogisticRegression(C=C, tol=1e-13, max_iter=10_000, fit_intercept=free)
    close(solution, model.set_params(solver="newton-cholesky").fit(*IRIS).coef_, strength)


def test_two_classes_are_one_vector_of_scikit_learns(solved_by):
    """Its penalty on w is that of the rows (-w / 2, w / 2) at twice the strength. The features'
    scales differ by 1e6."""
    inputs, labels = CANCER
    solution = minimize(inputs, labels, strength=1 / len(labels), tolerance=1e-7)
    assert solution.iterations <= 15
    model = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-13, max_iter=10_000)
    (vector,) = model.fit(inputs, labels).coef_
    close(solution, np.stack([-vector, vector]) / 2, 1 / len(labels))


def test_features_of_any_scale_and_rank(solved_by, blobs):
    inputs, labels = blobs(5, size=90, features=5, classes=4)
    hard = np.column_stack([inputs * 10.0 ** np.arange(-6, 4, 2), inputs[:, :2], np.full(90, 7.0)])
    solution = minimize(hard, labels, strength=1e-6, tolerance=1e-6)
    assert solution.status == Status.CONVERGED
    # the bias does what a constant could, up to the rounding of a mean of sevens
    assert np.abs(solution.params.weights[:, -1]).max() <= 1e-15


def test_separable_rows_under_a_weak_penalty(solved_by):
    inputs = np.array([[0.0], [1.0], [2.0], [3.0]])
    solution = minimize(inputs, np.array([0, 0, 1, 1]), strength=1e-12, tolerance=1e-4)
    assert solution.status == Status.CONVERGED
    assert solution.iterations <= 35  # w grows by about 2 a step, to 45
    # on paper: the two rows at 1/2 from the boundary decide, so w = W_1 - W_0 minimizes
    # exp(-w / 2) / 2 + strength w^2 / 2, where exp(-w / 2) = 4 strength w. Its curvature there is
    # strength (1 + w / 2) = 2.5e-11, and the gap 1.1e-13: w is known to 0.1
    w = float(solution.params.weights[1, 0] - solution.params.weights[0, 0])
    np.testing.assert_allclose(w, -2 * np.log(4e-12 * w), atol=0.1)


def test_the_blockwise_metric_inverts_the_second_derivatives_of_each_class(blobs):
    inputs, labels = blobs(3, size=80, features=5, classes=3)
    counts = np.random.default_rng(0).uniform(0.5, 2, 80)
    problem = open_problem(inputs, labels, strength=0.01, sample_weight=counts)[0]
    space = small.open_space(problem)
    blocks = [block._replace(narrow=block.columns) for block in space.blocks]  # float64
    space = space._replace(blocks=blocks)
    start = np.random.default_rng(1).normal(size=(3, 5)), np.zeros(3)
    point = small._start(problem, space, *start)
    metric = small._blockwise(space, point)

    (scores_here,) = point.scores

    def objective(coefficients, k):
        scores = jnp.asarray(scores_here).at[k].set(coefficients @ blocks[0].columns)
        value = (problem.counts * softmax_cross_entropy(scores.T, labels)).sum()
        return value + (space.ridges * coefficients**2).sum() / 2

    right = np.random.default_rng(2).normal(size=(3, 6))
    expected = np.stack([
        np.linalg.solve(jax.hessian(objective)(point.coefficients[k], k), right[k])
        for k in range(3)
    ])  # fmt: skip
    expected -= expected.mean(0)  # every step sums to zero over the classes
    # a free bias has no ridge of its own but one of 1e-14; the condition numbers are below 1e3
    np.testing.assert_allclose(metric(right.ravel()).reshape(3, 6), expected, rtol=1e-9)


def test_rows_that_bend_unevenly_are_solved_for_in_the_blockwise_metric(alone, monkeypatch):
    inputs, labels = load_digits(return_X_y=True)
    passes = []
    for overhead in (small.OVERHEAD, 1e-9):  # with the other, a factorization never pays
        monkeypatch.setattr(small, "OVERHEAD", overhead)
        solution = minimize(inputs, labels, strength=1e-6)
        assert solution.status == Status.CONVERGED
        passes.append(solution.evaluations)
    # 205 of 521 when written: with half of that gain lost the metric would not pay
    assert passes[0] < 0.75 * passes[1]


def test_sparse_rows_take_the_same_steps(alone, blobs):
    inputs, labels = blobs(2)
    inputs[np.abs(inputs) < 0.7] = 0
    ways = [minimize(x, labels, strength=0.01) for x in (inputs, scipy.sparse.csr_matrix(inputs))]
    np.testing.assert_allclose(ways[0].params.weights, ways[1].params.weights, atol=1e-12)
    assert ways[0].iterations == ways[1].iterations


@pytest.mark.parametrize("classes", [2, 4])
def test_threads_share_the_rows_and_take_the_same_steps(solved_by, blobs, monkeypatch, classes):
    inputs, labels = blobs(7, size=203, features=5, classes=classes)
    settings = dict(strength=1e-3, tolerance=1e-9, sample_weight=np.linspace(0.5, 2, 203))
    whole = minimize(inputs, labels, **settings)
    monkeypatch.setattr(cpu_threads, "PART_BYTES", 1)
    monkeypatch.setattr(cpu_threads, "blas_threads", lambda: 3)
    spaces, opened = [], small.open_space
    monkeypatch.setattr(
        small, "open_space", lambda *given: spaces.append(opened(*given)) or spaces[-1]
    )
    shared = minimize(inputs, labels, **settings)
    assert [len(block.counts) for block in spaces[0].blocks] == [67, 68, 68]
    assert (shared.status, shared.iterations) == (Status.CONVERGED, whole.iterations)
    # the sums differ by their rounding, and the steps by that of float32
    np.testing.assert_allclose(shared.params.weights, whole.params.weights, rtol=0, atol=1e-4)
    assert shared.lower_bound <= whole.objective
    assert whole.lower_bound <= shared.objective


def test_whoever_watches_sees_both_bounds_close_and_changes_nothing(alone):
    seen = []
    settings = dict(strength=1e-4, tolerance=1e-8)
    watched = minimize(*IRIS, callback=lambda *now: seen.append(now), **settings)
    silent = minimize(*IRIS, **settings)
    np.testing.assert_array_equal(watched.params.weights, silent.params.weights)
    evaluations, objectives, bounds = np.array(seen).T
    assert (np.diff(evaluations) > 0).all()
    assert (np.diff(bounds) >= 0).all()
    assert (bounds <= silent.objective).all()
    assert (objectives >= silent.lower_bound).all()
    assert len(seen) > 5


def test_a_start_at_the_optimum_takes_no_step(alone):
    found = minimize(*IRIS, strength=1e-3, tolerance=1e-9)
    weights, bias = found.params
    moved = LinearParams(weights + 3.0, bias - 5.0)  # all classes alike: it changes no loss
    again = minimize(*IRIS, strength=1e-3, tolerance=1e-8, init=moved)
    assert (again.iterations, again.status) == (0, Status.CONVERGED)


@pytest.mark.parametrize("most", [0, 2])
def test_the_limit_of_steps_is_kept(most, alone):
    solution = minimize(*IRIS, strength=1e-4, max_iterations=most)
    assert (solution.iterations, solution.status) == (most, Status.MAX_ITERATIONS)
    assert 1e-4 * solution.objective < solution.gap < np.inf


def test_what_newton_cannot_finish_goes_on_in_another_method(monkeypatch):
    monkeypatch.setattr(small, "STEPS", 3)
    solution = minimize(*IRIS, strength=1e-4, tolerance=1e-6)
    assert solution.status == Status.CONVERGED
    assert solution.iterations > 3
    seen = []
    minimize(*IRIS, strength=1e-4, tolerance=1e-6, callback=lambda *now: seen.append(now))
    evaluations, objectives, bounds = np.array(seen).T  # as if it were one
    assert (np.diff(evaluations) >= 0).all()
    assert (np.diff(objectives) <= 0).all()
    assert (np.diff(bounds) >= 0).all()
    limited = minimize(*IRIS, strength=1e-4, tolerance=1e-6, max_iterations=5)
    assert (limited.iterations, limited.status) == (5, Status.MAX_ITERATIONS)


def test_a_gap_that_float64_cannot_prove_says_so():
    solution = minimize(*IRIS, strength=1e-10, tolerance=1e-13)
    assert solution.status == Status.PRECISION
    assert solution.gap <= 1e-6 * solution.objective
