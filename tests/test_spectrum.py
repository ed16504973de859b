"""Directions of the data: the penalty along them, and when all of them are computed."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

from jaxlin.solvers import preconditioner
from jaxlin.solvers import refresh as building
from jaxlin.solvers.covariance import SparseRows, generalized_eigh
from jaxlin.solvers.problem import open_problem
from jaxlin.solvers.refresh import PreconditionerBuilder
from jaxlin.solvers.solve import minimize
from jaxlin.solvers.status import Status

STRENGTH = 1e-4


def problem(size=800, features=40, classes=4, **settings):
    """Features that nearly all say the same, as pixels do: a hundred times their variance is along
    one direction, where the penalty is far below that of any feature alone."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(size, 1)) + 0.1 * rng.normal(size=(size, features))
    labels = np.arange(size) % classes
    return open_problem(inputs, labels, strength=STRENGTH, **settings)[0]


@pytest.fixture
def leading_only(monkeypatch):
    monkeypatch.setattr(building, "FULL_SPECTRUM", 10)
    monkeypatch.setattr(building, "FULL_AT_ONCE", 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ridges_are_the_penaltys_second_derivatives(dtype):
    spectrum = PreconditionerBuilder(problem(dtype=dtype)).spectrum()
    vectors = spectrum.scaling[:, None] * spectrum.vectors.astype(np.float64)
    along = 2 * STRENGTH * (vectors**2).sum(0)
    # in unit-curvature coordinates the factorization is given D * 4 roundings more
    curvature = 0.25 * 1.01 + 2 * STRENGTH  # of one feature: variance 1 + 0.01, four classes
    more = 40 * 4 * np.finfo(dtype).eps * 1.2 * curvature * (along / (2 * STRENGTH))
    assert (spectrum.ridges >= along * (1 - 1e-5)).all()
    assert (spectrum.ridges <= (along + more) * (1 + 1e-5)).all()
    assert spectrum.ridges[0] < 0.05 * 2 * STRENGTH / curvature  # of one feature alone


@pytest.mark.usefixtures("leading_only")
def test_all_directions_are_computed_where_the_leading_ones_did_not_do():
    builder = PreconditionerBuilder(problem())
    weights, bias = np.zeros((4, 40)), np.zeros(4)
    slow = [0.9**t for t in range(10)]  # hundreds of passes to go
    builder.gram(weights, bias)
    assert builder.worth_rebuilding(slow, 9, 1.0, 1e-12)
    builder.following(weights, bias)
    assert builder.spectrum().vectors.shape[1] == 10  # a quarter
    assert builder.worth_rebuilding(slow, 9, 1.0, 1e-12)
    builder.following(weights, bias)
    assert builder.spectrum().vectors.shape[1] == 40
    again = PreconditionerBuilder(problem())
    again.go_on(*builder.state())
    assert again.spectrum().vectors.shape[1] == 40


def test_generalized_eigenvalues_are_lapacks():
    rng = np.random.default_rng(3)
    matrix, system = (part @ part.T for part in rng.normal(size=(2, 12, 12)))
    system += 12 * np.eye(12)
    values, vectors = (np.asarray(part) for part in generalized_eigh(matrix, system))
    np.testing.assert_allclose(values, scipy.linalg.eigh(matrix, system)[0], atol=1e-12)
    np.testing.assert_allclose(vectors.T @ system @ vectors, np.eye(12), atol=1e-12)
    np.testing.assert_allclose(vectors.T @ matrix @ vectors, np.diag(values), atol=1e-12)


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_an_accelerator_that_can_finds_the_same_spectrum_itself(platform, monkeypatch):
    """`scipy` finds none then; the metric that comes of it is the same up to float32."""
    monkeypatch.setattr("jaxlin.passes.opening.SMALL_PROBLEM", 0)
    monkeypatch.setattr("jaxlin.solvers.problem.newton_suits", lambda *_: False)
    gradient = np.random.default_rng(1).normal(size=(4, 40))
    steps, lapack, calls = [], scipy.linalg.eigh, []
    monkeypatch.setattr(scipy.linalg, "eigh", lambda *a, **k: calls.append(a) or lapack(*a, **k))
    for device in (None, SimpleNamespace(platform=platform)):
        of_rows = problem(dtype=np.float32)
        of_rows.rows.device = device or of_rows.rows.device
        metric, _ = PreconditionerBuilder(of_rows).following(np.zeros((4, 40)), np.zeros(4))
        steps.append(metric(gradient - gradient.mean(0), np.zeros(4))[0])
    assert len(calls) == (1 if platform == "gpu" else 2)
    # a condition of 1e3 times D roundings of 6e-8
    np.testing.assert_allclose(*steps, atol=1e3 * 40 * 6e-8 * np.abs(steps[0]).max())


@pytest.mark.usefixtures("leading_only")
def test_all_directions_are_left_out_where_little_is_to_be_done():
    builder = PreconditionerBuilder(problem())
    builder.following(np.zeros((4, 40)), np.zeros(4))
    fast = [0.01**t for t in range(10)]
    assert not builder.worth_rebuilding(fast, 9, 1e-3, 1e-3)
    assert builder.spectrum().vectors.shape[1] == 10


def test_small_blocks_of_fewer_rows_are_those_of_all_on_average(monkeypatch):
    monkeypatch.setattr(preconditioner, "DENSE_SIDE", 0)  # small blocks alone
    gradient = np.random.default_rng(1).normal(size=(4, 40))
    steps = []
    for rows in (4000, 1000):
        monkeypatch.setattr(preconditioner, "BELOW_ROWS", rows)
        builder = PreconditionerBuilder(problem(4000, dtype=np.float64))
        metric, _ = builder.following(np.zeros((4, 40)), np.zeros(4))
        steps.append(metric(gradient - gradient.mean(0), np.zeros(4))[0])
    # blocks are means of 1,000 squares of normal numbers: off by sqrt(2 / 1000) = 4.5 % each
    off = np.linalg.norm(steps[1] - steps[0]) / np.linalg.norm(steps[0])
    assert 0 < off < 0.15


def test_sparse_rows_less_their_mean_are_the_dense_ones():
    rng = np.random.default_rng(5)
    rows = scipy.sparse.random_array((9, 7), density=0.4, format="csr", rng=rng)
    mean, some = rng.normal(size=7), np.array([4, 1, 8])
    centred, dense = SparseRows(rows, mean), rows.toarray() - mean
    right, left = rng.normal(size=(7, 3)), rng.normal(size=(2, 9))
    np.testing.assert_allclose(centred @ right, dense @ right, atol=1e-14)
    np.testing.assert_allclose(left @ centred, left @ dense, atol=1e-14)
    np.testing.assert_allclose(right.T @ centred.T, right.T @ dense.T, atol=1e-14)
    np.testing.assert_array_equal(centred[some].toarray(), dense[some])


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array])
def test_of_very_many_features_the_covariance_is_not_formed(monkeypatch, kind):
    """Its leading directions are found all the same, and the rest has the variance that is left."""
    monkeypatch.setattr(building, "DENSE_FEATURES", 10)
    rng = np.random.default_rng(6)
    inputs = rng.normal(size=(300, 40)) * (rng.random((300, 40)) < 0.5)
    inputs[:, 0] = 0  # of which the rows say nothing
    inputs += np.outer(rng.normal(size=300), np.arange(40) > 20)
    labels = np.arange(300) % 4
    builder = PreconditionerBuilder(open_problem(kind(inputs), labels, strength=STRENGTH)[0])
    found = builder.spectrum()
    assert builder.covariance is None
    curvature, covariance = 1 / 4, np.cov(inputs.T, ddof=0)
    scaling = 1 / np.sqrt(curvature * np.diag(covariance) + 2 * STRENGTH)
    np.testing.assert_allclose(found.scaling, scaling, rtol=1e-9)
    scaled = covariance * scaling[:, None] * scaling
    largest = np.linalg.eigvalsh(scaled)[-1]
    assert found.variances[0] == pytest.approx(largest, rel=1e-3)  # it stands far above the next
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(10), atol=1e-12)
    # what the directions leave of the diagonal is what the rest takes a feature to have
    left = np.diag(scaled) - found.vectors**2 @ found.variances
    ridge = 2 * STRENGTH * scaling**2
    solved = found.rest(0.5)(np.ones((1, 40)))[0]
    np.testing.assert_allclose(solved, 1 / (0.5 * np.maximum(left, 0) + ridge), rtol=1e-6)


def test_sparse_and_dense_wide_rows_are_fitted_alike(monkeypatch):
    """A preconditioner of sparse rows takes the steps of one of dense ones, and few."""
    monkeypatch.setattr(building, "DENSE_FEATURES", 10)
    monkeypatch.setattr("jaxlin.solvers.problem.newton_suits", lambda *_: False)
    rng = np.random.default_rng(7)
    labels = np.arange(400) % 5
    inputs = rng.poisson(0.05 + 0.4 * rng.random((5, 60))[labels] ** 8).astype(float)
    fits = [
        minimize(kind(inputs), labels, strength=1e-5, tolerance=1e-8)
        for kind in (np.asarray, scipy.sparse.csr_array)
    ]
    for fit in fits:
        assert fit.gap <= 1e-8 * fit.objective
    # both are within their gaps of the one optimum
    assert fits[0].objective == pytest.approx(fits[1].objective, rel=1e-8)


def rare_features(size=20_000, common=20, rare=100, rows=3, classes=10):
    """Standard normal features, beside such as are 0 but in a few rows, with a variance of one."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, size)
    inputs = np.zeros((size, common + rare), np.float32)
    inputs[:, :common] = rng.normal(size=(size, common))
    inputs[:, :common] += rng.normal(size=(classes, common))[labels] / 2
    for j in range(common, common + rare):
        inputs[rng.choice(size, rows, replace=False), j] = np.sqrt(size / rows)
    return inputs, labels


def test_what_three_rows_carry_is_in_the_sample_and_not_more_than_it_is():
    inputs, labels = rare_features()
    of_rows, *_ = open_problem(inputs, labels, strength=STRENGTH)
    sampled = PreconditionerBuilder(of_rows).covariance
    ridge = 2 * STRENGTH * np.eye(len(sampled))
    curvature = 0.09  # of ten classes, all equally likely
    hessians = (curvature * c + ridge for c in (sampled, np.cov(inputs.T, bias=True)))
    ratios = scipy.linalg.eigh(*hessians, eigvals_only=True)
    # A row that is alone is drawn some ten times: the least of three hundred such counts is two or
    # three, the largest twenty. At random a feature in three is missed: 2 STRENGTH / curvature.
    assert 0.2 < ratios[0] < ratios[-1] < 2.5


def test_features_that_few_rows_carry_are_learned_in_few_steps():
    """In some 70 steps; with a sample drawn at random 1,000 do not do."""
    inputs, labels = rare_features(size=40_000, rows=20)
    solution = minimize(inputs, labels, strength=1e-5, tolerance=1e-4, max_iterations=300)
    assert solution.status == Status.CONVERGED
