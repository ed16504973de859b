"""Steps along the leading directions of the data, and the proofs that they make tight."""

import numpy as np
import pytest
import scipy.optimize
from scipy.special import logsumexp

from jaxlin.passes import open_rows
from jaxlin.sharding import mesh
from jaxlin.solvers import Status, minimize, minimize_path, polish, smooth
from jaxlin.solvers.history import empty_history
from jaxlin.solvers.mean_loss import mean_loss
from jaxlin.solvers.polish import Leading, corrected, leading_of
from jaxlin.solvers.problem import open_problem
from jaxlin.solvers.refresh import MetricBuilder

pytestmark = pytest.mark.usefixtures("as_if_large")
SIZE, FEATURES, CLASSES, STRENGTH = 2000, 40, 3, 1e-4
SETTINGS = dict(strength=STRENGTH, tolerance=1e-4)


def data_of(dtype=np.float64):
    """A few steep directions, whatever way they point, and classes that overlap."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(FEATURES, FEATURES)))[0]
    scales = np.where(np.arange(FEATURES) < 4, 4.0 / np.arange(1, FEATURES + 1), 0.05)
    plain = rng.normal(size=(SIZE, FEATURES)) * scales
    scores = plain @ rng.normal(size=(FEATURES, CLASSES)) + 2 * rng.gumbel(size=(SIZE, CLASSES))
    return (plain @ turn + 0.5).astype(dtype), scores.argmax(1)


def opened(**changed):
    """A problem, a point near its optimum, and the leading directions there."""
    problem = open_problem(*data_of(), **{**SETTINGS, **changed})[0]
    found = minimize(*data_of(), **{**SETTINGS, "tolerance": 1e-9, **changed})
    weights, bias = (np.asarray(part, np.float64) for part in found.params)
    rng = np.random.default_rng(1)
    weights = weights + 0.02 * rng.normal(size=weights.shape)
    metric, _ = MetricBuilder(problem).following(weights, bias)
    return problem, weights, bias, leading_of(problem, metric)


def objective_of(weights, bias):
    inputs, labels = data_of()
    scores = inputs @ weights.T + bias
    losses = logsumexp(scores, 1) - scores[np.arange(SIZE), labels]
    return losses.mean() + STRENGTH * np.sum(weights**2)


def moved(problem, weights, bias, along, mean_loss=mean_loss, **changed):
    wanted = dict(lengths=np.full(3, np.nan), gap=0.0, dtype=np.dtype(np.float64)) | changed
    point = np.concatenate([weights.ravel(), bias])
    point, scores = corrected(problem, along, mean_loss, point, **wanted)
    there = point[: weights.size].reshape(weights.shape), point[weights.size :]
    if scores is not None:  # float64, sums of a hundred terms of size 1
        np.testing.assert_allclose(scores, problem.rows.scores(*there, np.float64), atol=1e-11)
    return there


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("host", [True, False])
def test_many_steps_lead_to_the_optimum_of_the_subspace(host, intercept, monkeypatch):
    """Which scipy finds by itself."""
    monkeypatch.setattr("jaxlin.passes.opening.is_small", lambda *_, **__: host)
    monkeypatch.setattr(polish, "STEPS", 100)
    problem, weights, bias, along = opened(fit_intercept=intercept)
    assert problem.on_host == host
    count = along.directions.shape[1]
    assert count == FEATURES // polish.SHARE

    def at(point):
        change = point[: CLASSES * count].reshape(CLASSES, count) @ along.directions.T
        shift = point[CLASSES * count :] if intercept else 0
        return weights + change, bias + shift

    size = CLASSES * (count + intercept)
    best = scipy.optimize.minimize(lambda p: objective_of(*at(p)), np.zeros(size), tol=1e-10)
    found = moved(problem, weights, bias, along)
    there = (along.directions.T @ (found[0] - weights).T).T
    np.testing.assert_allclose(found[0], weights + there @ along.directions.T, atol=1e-12)
    # scipy's own gradient is a difference quotient: sqrt(eps), and its objective that squared
    assert objective_of(*found) <= best.fun + 1e-12
    assert objective_of(*found) == pytest.approx(best.fun, abs=1e-10)
    if not intercept:
        np.testing.assert_array_equal(found[1], bias)


def gradient_of(problem, weights, bias):
    _, found, _ = mean_loss(problem, weights, bias, np.float64)
    return found + 2 * STRENGTH * weights


def test_the_steps_end_when_enough_is_gone():
    problem, weights, bias, along = opened()
    before = np.sum((gradient_of(problem, weights, bias) @ along.directions) ** 2)
    gap = before / (4 * STRENGTH)  # a tenth of which may stay
    found = moved(problem, weights, bias, along, gap=gap)
    after = np.sum((gradient_of(problem, *found) @ along.directions) ** 2)
    # it is predicted along the last step, as if the objective were quadratic
    assert after <= 1.5 * polish.LEFT * before
    same = moved(problem, weights, bias, along, gap=2 * gap / polish.LEFT)
    np.testing.assert_array_equal(same[0], weights)


def quadratic(along, weights, slope, curvature):
    """The answers of an objective with this slope at the start, and this curvature."""

    def answer(near, coordinates, shift, dtype):
        moved = coordinates[:, : len(curvature)]
        penalized = 2 * STRENGTH * (weights @ along.directions + moved)
        return 0.0, slope + moved @ curvature - penalized, 0 * shift

    return answer


def test_as_many_steps_as_curvatures_differ_lead_to_the_end(monkeypatch):
    """As those of conjugate gradients do: every step as long as is best, and conjugate."""
    problem, weights, bias, along = opened()
    rng = np.random.default_rng(3)
    root, slope = rng.normal(size=(4, 4)), rng.normal(size=(CLASSES, 4))
    curvature = root @ root.T + np.eye(4)
    monkeypatch.setattr(polish, "STEPS", 4)
    monkeypatch.setattr(Leading, "step", lambda self, gradients: 0.7 * gradients)
    answer = quadratic(along, weights, slope, curvature)
    found = moved(problem, weights, bias, along, answer)
    expected = weights - slope @ np.linalg.inv(curvature) @ along.directions.T
    np.testing.assert_allclose(found[0], expected, atol=1e-10)  # float64, condition number < 100


def test_steps_that_lead_nowhere_are_not_taken(monkeypatch):
    problem, weights, bias, along = opened()
    curvature = np.diag([1.0, 1000, 1000, 1000])
    curvature[0, 1] = curvature[1, 0] = 30
    # one step along the gradient (1, 0, 0, 0) takes it to (0, -30, 0, 0)
    monkeypatch.setattr(polish, "STEPS", 1)
    monkeypatch.setattr(Leading, "step", lambda self, gradients: gradients)
    answer = quadratic(along, weights, np.eye(1, 4)[0], curvature)
    found = moved(problem, weights, bias, along, answer)
    np.testing.assert_array_equal(found[0], weights)
    np.testing.assert_array_equal(found[1], bias)


def test_a_step_is_that_of_the_metric():
    """Written out for a gradient that has nothing along the other vectors of the spectrum."""
    inputs, labels = data_of()
    inputs = inputs * np.geomspace(1, 30, FEATURES)  # vectors that are far from orthogonal
    problem = open_problem(inputs, labels, **SETTINGS)[0]
    rng = np.random.default_rng(4)
    metric, _ = MetricBuilder(problem).following(rng.normal(size=(CLASSES, FEATURES)), np.zeros(3))
    along = leading_of(problem, metric)
    vectors = metric.spectrum.vectors.astype(np.float64)
    count = along.directions.shape[1]
    np.testing.assert_allclose(along.directions @ along.turn, vectors[:, :count], atol=1e-12)
    within, sums = rng.normal(size=(CLASSES, count)), rng.normal(size=CLASSES)
    turned = np.zeros((CLASSES, FEATURES))
    turned[:, :count] = within @ along.turn
    gradient = turned @ np.linalg.inv(vectors) + sums[:, None] * metric.mean
    weights, bias = metric(gradient, sums)
    expected = (weights @ np.linalg.inv(vectors).T)[:, :count] @ along.turn.T
    found = along.step(np.concatenate([within.ravel(), sums]))
    rounding = 1e-9 * np.abs(expected).max()  # float64, vectors of condition number 1e3
    np.testing.assert_allclose(found[:-CLASSES].reshape(CLASSES, count), expected, atol=rounding)
    np.testing.assert_allclose(found[-CLASSES:], bias + weights @ metric.mean, rtol=1e-9)


def test_outside_nothing_is_left_along_the_directions():
    _, weights, _, along = opened()
    count = along.directions.shape[1]
    np.testing.assert_allclose(along.directions.T @ along.directions, np.eye(count), atol=1e-12)
    gradients = np.random.default_rng(2).normal(size=(5, weights.size + CLASSES))
    left = along.outside(gradients)
    np.testing.assert_array_equal(left[0], along.outside(gradients[0]))
    turned = left[:, :-CLASSES].reshape(5, CLASSES, FEATURES)
    np.testing.assert_allclose(turned @ along.directions, 0, atol=1e-12)
    np.testing.assert_array_equal(left[:, -CLASSES:], 0)
    gone = (gradients - left)[:, :-CLASSES].reshape(5, CLASSES, FEATURES)
    inside = along.directions @ along.directions.T
    np.testing.assert_allclose(gone @ inside, gone, atol=1e-12)


def test_where_no_directions_are_worth_it_there_are_none(tmp_path, monkeypatch):
    problem, weights, bias, along = opened()
    assert leading_of(problem, MetricBuilder(problem).gram(weights, bias)) is None
    wide = problem._replace(classes=FEATURES // 2)  # as many scores as half a row
    assert leading_of(wide, along.metric) is None
    spread = open_problem(*data_of(), mesh=mesh(1), **SETTINGS)[0]
    assert leading_of(spread, along.metric) is None
    monkeypatch.setattr("jaxlin.passes.device.RESIDENT_BYTES", 1000)
    path = tmp_path / "rows.npy"
    np.save(path, data_of()[0])
    rows = open_rows(np.load(path, mmap_mode="r"), CLASSES, host=False)
    assert leading_of(problem._replace(rows=rows), along.metric) is None
    assert leading_of(problem, along.metric) is not None


@pytest.mark.parametrize(("square", "worth"), [(4.1, True), (3.9, False)])
def test_a_correction_is_for_gradients_that_are_nearly_all_along_the_directions(square, worth):
    """One outside them leaves a gap of 2.5: half of that of both, or less, if 4 lie along them."""
    problem, weights, bias, along = opened()
    gradient = np.zeros((CLASSES, FEATURES))
    gradient[0] = np.sqrt(square) * along.directions[:, 0]
    gradient[1] = along.outside(np.append(np.ones((CLASSES, FEATURES)), bias))[:FEATURES]
    gradient[1] /= np.linalg.norm(gradient[1])
    gradient = np.append(gradient, np.zeros(CLASSES))
    point, unit = np.append(weights, bias), 1 / (4 * STRENGTH)
    plain = polish.prospect_of(problem, empty_history(weights.size + CLASSES), point, gradient)
    assert plain.gap == pytest.approx((1 + square) * unit)
    known = problem, along.metric, empty_history(weights.size + CLASSES), point, gradient
    found = polish.corrected_prospect(*known, value=1e9, plain=plain)
    assert (found.leading is not None) == worth
    assert found.gap == pytest.approx(2.5 * unit if worth else plain.gap)
    least = plain.gap / (30 * problem.tolerance)  # the objective of which it is within 30 times
    assert polish.corrected_prospect(*known, 0.99 * least, plain) is plain
    assert (polish.corrected_prospect(*known, 1.01 * least, plain) is plain) != worth


@pytest.fixture
def long(monkeypatch):
    """A fit in float32, of some passes, because no metric is exact."""
    monkeypatch.setattr("jaxlin.passes.opening.is_small", lambda *_, **__: False)
    for module in ("hessian_blocks", "builder", "metrics"):
        monkeypatch.setattr(f"jaxlin.solvers.{module}.DENSE_SIDE", 40)


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_proofs_are_tight(tolerance, monkeypatch):
    """Within four times the true distance, where without a correction it is far more."""
    data = data_of(np.float32)
    best = minimize(*data, dtype="float64", **SETTINGS | {"tolerance": 1e-10})
    found = minimize(*data, **SETTINGS | {"tolerance": tolerance})
    assert found.status == Status.CONVERGED
    assert found.lower_bound <= best.objective
    # the optimum is known to 1e-10 of itself, the distance to a thousandth
    assert found.gap <= 4 * (found.objective - best.objective)
    monkeypatch.setattr(polish, "leading_of", lambda *_: None)
    plain = minimize(*data, **SETTINGS | {"tolerance": tolerance})
    assert plain.gap > 40 * (plain.objective - best.objective)


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("strengths", [[STRENGTH], [STRENGTH, 0.95 * STRENGTH, 0.9 * STRENGTH]])
def test_a_corrected_point_is_proved_in_one_pass_unless_strengths_are_filled_in(
    strengths, monkeypatch
):
    """The scores that the correction left are the dual point's; but an end needs its own."""
    real, proofs = smooth.certify, []

    def proved(problem, *parameters, **settings):
        proofs.append((settings["known"], real(problem, *parameters, **settings)))
        return proofs[-1][1]

    monkeypatch.setattr(smooth, "certify", proved)
    inputs, labels = data_of(np.float32)
    found = minimize_path(inputs, labels, strengths=strengths, tolerance=1e-4)
    assert all(fit.status == Status.CONVERGED for fit in found)
    for known, proof in proofs:
        assert (known is None) == (len(strengths) > 1)
        assert proof.dual.exact == (len(strengths) > 1)
    assert [fit.evaluations == 0 for fit in found] == [False, True, False][: len(strengths)]


@pytest.mark.usefixtures("long")
def test_a_second_try_is_in_float64(monkeypatch):
    dtypes = []

    def poor(problem, along, mean_loss, point, lengths, gap, dtype):
        dtypes.append(np.dtype(dtype))
        if len(dtypes) == 1:
            return 1.2 * point, None
        return corrected(problem, along, mean_loss, point, lengths, gap, dtype)

    monkeypatch.setattr(smooth, "corrected", poor)
    found = minimize(*data_of(np.float32), **SETTINGS)
    assert found.status == Status.CONVERGED
    assert dtypes == [np.float32, np.float64]
