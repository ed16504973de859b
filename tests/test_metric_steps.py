"""Metrics of several gradients at once, and L-BFGS steps in them, against their matrices."""

import itertools

import numpy as np
import pytest

from jaxlin.solvers.history import empty_history, pushed, scaled_step, step_from
from jaxlin.solvers.lbfgs import GOING, State, accepted, arrived, shortened, trial_of
from jaxlin.solvers.mean_loss import mean_loss
from jaxlin.solvers.preconditioner import flat
from jaxlin.solvers.problem import open_problem
from jaxlin.solvers.refresh import PreconditionerBuilder
from jaxlin.solvers.smooth import advance, begin, question

FEW, MANY = 4, 60


@pytest.mark.parametrize("features", [20, 40])  # of 40 some lie outside the leading vectors
@pytest.mark.parametrize("kind", ["gram", "following"])
@pytest.mark.parametrize("classes", [FEW, MANY])
def test_a_batch_of_gradients_has_the_steps_of_each(classes, kind, features, monkeypatch):
    monkeypatch.setattr("jaxlin.solvers.curvature.DENSE_SIDE", 50)
    monkeypatch.setattr("jaxlin.solvers.refresh.DENSE_SIDE", 50)
    monkeypatch.setattr("jaxlin.solvers.preconditioner.DENSE_SIDE", 50)
    monkeypatch.setattr("jaxlin.solvers.refresh.FULL_SPECTRUM", 30)
    monkeypatch.setattr("jaxlin.solvers.refresh.FULL_AT_ONCE", 0)
    rng = np.random.default_rng(0)
    labels = np.arange(600) % classes
    problem = open_problem(rng.normal(size=(600, features)), labels, strength=1e-3)[0]
    weights, bias = rng.normal(size=(classes, features)), rng.normal(size=classes)
    builder = PreconditionerBuilder(problem)
    metric = builder.gram(weights, bias)
    if kind == "following":
        metric, _ = builder.following(weights, bias)
        assert (builder.spectrum().rest is None) == (features == 20)
    metric = flat(metric, weights.shape)
    batch = rng.normal(size=(3, weights.size + classes))
    alone = np.stack([metric(vector) for vector in batch])
    # the same products in another order: float64, condition numbers below 1e4
    np.testing.assert_allclose(metric(batch), alone, rtol=1e-9, atol=1e-9)


def pairs_of(hessian, count, rng):
    history = empty_history(len(hessian), count)
    for point in rng.normal(size=(count + 2, len(hessian))):  # the first two are overwritten
        history = pushed(history, point, hessian @ point)
    assert history.held == count
    return history


def inverse_of(history, start):
    """Nocedal and Wright (2006), equation 7.16, pair by pair, oldest first."""
    for s, y in zip(history.points[history.rows()], history.gradients[history.rows()], strict=True):
        turn = np.eye(len(s)) - np.outer(s, y) / (s @ y)
        start = turn @ start @ turn.T + np.outer(s, s) / (s @ y)
    return start


def test_a_step_is_minus_the_updated_inverse_times_the_gradient():
    rng = np.random.default_rng(1)
    roots = rng.normal(size=(2, 7, 7))
    hessian, metric = (root @ root.T + np.eye(7) for root in roots)
    history, gradient = pairs_of(hessian, 5, rng), rng.normal(size=7)
    found = step_from(history, lambda vector: metric @ vector, gradient)
    np.testing.assert_allclose(found, -inverse_of(history, metric) @ gradient, rtol=1e-10)

    # scaled by the geometric mean of s'y / y'My over the youngest three
    lengths = [
        (s @ y) / (y @ metric @ y)
        for s, y in zip(*(part[history.rows()[-3:]] for part in history[:2]), strict=True)
    ]
    scale = np.prod(lengths) ** (1 / 3)
    step, after = scaled_step(history, lambda vectors: vectors @ metric, gradient)
    np.testing.assert_allclose(step, -inverse_of(history, scale * metric) @ gradient, rtol=1e-10)
    np.testing.assert_allclose(after.lengths, lengths, rtol=1e-12)
    again, _ = scaled_step(after, lambda vectors: vectors @ metric, gradient)
    np.testing.assert_allclose(again, step, rtol=1e-10)  # known lengths are kept


def test_a_pair_without_curvature_is_left_out():
    history = pushed(empty_history(2), np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert history.held == 0


def searched(function, start, step, length=1.0):
    """The state where a search along a step ends, and the lengths that it tried."""
    value, gradient = function(start)
    nothing = np.zeros_like(start)
    state = State(**dict.fromkeys(State._fields, 0.0))._replace(
        point=start, best=start, step=step, gradient=gradient, history=empty_history(start.size),
        value=value, least=value, length=length, trial=0, built=nothing,
    )  # fmt: skip
    tried = []
    while True:
        tried.append(state.length)
        there = trial_of(state)
        value, gradient = function(there)
        if accepted(state, value, gradient, noise=0.0):
            return arrived(state, there, value, gradient), tried
        state = shortened(state, value)


@pytest.mark.parametrize(("first", "trials"), [(1.0, [1.0, 0.1]), (0.15, [0.15])])
def test_a_search_begins_at_the_length_it_is_given(first, trials):
    def parabola(point):  # the step from 1 to -9 is ten times too long
        return float(point[0] ** 2), 2 * point

    start, step = np.array([1.0]), np.array([-10.0])
    state, tried = searched(parabola, start, step, first)
    np.testing.assert_allclose(tried, trials)
    there = 1 - 10 * trials[-1]
    np.testing.assert_allclose([state.point[0], state.value], [there, there**2], atol=1e-12)
    assert state.gradient == 2 * state.point
    assert state.history.held == 1


@pytest.mark.usefixtures("as_if_large")
def test_after_a_step_that_was_cut_the_next_is_tried_somewhat_longer():
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(8000, 30)) * np.linspace(3, 0.1, 30) ** 2
    scores = inputs @ rng.normal(size=(30, 10))  # classes almost apart
    labels = (scores + 0.02 * scores.std() * rng.normal(size=scores.shape)).argmax(1)
    problem = open_problem(inputs, labels, strength=1e-8, tolerance=1e-4)[0]
    lengths, fitting = [[]], begin(problem, np.zeros((10, 30)), np.zeros(10))
    while fitting.state.status == GOING and len(lengths) < 60:
        steps = fitting.state.iterations
        lengths[-1].append(fitting.state.length)
        fitting = advance(fitting, mean_loss(*question(fitting)))
        if fitting.state.iterations > steps:
            lengths.append([])
    tried = [each for each in lengths[1:] if each]
    assert min(each[-1] for each in tried) < 1
    for before, after in itertools.pairwise(tried):
        assert after[0] == min(1.0, 1.5 * before[-1])
