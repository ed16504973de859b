"""Directions of the data: the penalty along them, and when all of them are computed."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg

from jaxlin.solvers import preconditioner
from jaxlin.solvers import refresh as building
from jaxlin.solvers.covariance import generalized_eigh
from jaxlin.solvers.problem import open_problem
from jaxlin.solvers.refresh import PreconditionerBuilder

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
    along = 2 * STRENGTH * (spectrum.vectors.astype(np.float64) ** 2).sum(0)
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


def test_the_first_metric_that_follows_is_made_of_half_the_rows(monkeypatch):
    monkeypatch.setattr(building, "SAMPLED_ROWS", 200)
    builder, asked = PreconditionerBuilder(problem()), []
    draw = builder.draw
    monkeypatch.setattr(builder, "draw", lambda *a, **k: asked.append(a[1]) or draw(*a, **k))
    for _ in range(3):
        builder.following(np.zeros((4, 40)), np.zeros(4))
    assert asked == [100, 200, 200]


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
