"""Metrics of several gradients at once, and L-BFGS steps in them, against their matrices."""

import itertools

import numpy as np
import pytest

from jaxlin.solvers import minimize, smooth
from jaxlin.solvers.builder import MetricBuilder
from jaxlin.solvers.lbfgs import Memory, lowest_along, remember, scaled_step, step_from
from jaxlin.solvers.metrics import flat
from jaxlin.solvers.problem import open_problem

FEW, MANY = 4, 60


@pytest.mark.parametrize("features", [20, 40])  # of 40 some lie outside the leading vectors
@pytest.mark.parametrize("kind", ["gram", "following"])
@pytest.mark.parametrize("classes", [FEW, MANY])
def test_a_batch_of_gradients_has_the_steps_of_each(classes, kind, features, monkeypatch):
    monkeypatch.setattr("jaxlin.solvers.hessian_blocks.DENSE_SIDE", 50)
    monkeypatch.setattr("jaxlin.solvers.builder.DENSE_SIDE", 50)
    monkeypatch.setattr("jaxlin.solvers.metrics.DENSE_SIDE", 50)
    monkeypatch.setattr("jaxlin.solvers.builder.FULL_SPECTRUM", 30)
    monkeypatch.setattr("jaxlin.solvers.builder.FULL_AT_ONCE", 0)
    rng = np.random.default_rng(0)
    labels = np.arange(600) % classes
    problem = open_problem(rng.normal(size=(600, features)), labels, strength=1e-3)[0]
    weights, bias = rng.normal(size=(classes, features)), rng.normal(size=classes)
    builder = MetricBuilder(problem)
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
    memory = Memory(size=count)
    for point in rng.normal(size=(count + 2, len(hessian))):  # the first two are forgotten
        memory = remember(memory, point, hessian @ point)
    return memory


def inverse_of(memory, start):
    """Nocedal and Wright (2006), equation 7.16, pair by pair."""
    for s, y in zip(memory.points, memory.gradients, strict=True):
        turn = np.eye(len(s)) - np.outer(s, y) / (s @ y)
        start = turn @ start @ turn.T + np.outer(s, s) / (s @ y)
    return start


def test_a_step_is_minus_the_updated_inverse_times_the_gradient():
    rng = np.random.default_rng(1)
    roots = rng.normal(size=(2, 7, 7))
    hessian, metric = (root @ root.T + np.eye(7) for root in roots)
    memory, gradient = pairs_of(hessian, 4, rng), rng.normal(size=7)
    found = step_from(memory, lambda vector: metric @ vector, gradient)
    np.testing.assert_allclose(found, -inverse_of(memory, metric) @ gradient, rtol=1e-10)

    # scaled by the geometric mean of s'y / y'My over the youngest three
    lengths = [
        (s @ y) / (y @ metric @ y)
        for s, y in zip(memory.points[-3:], memory.gradients[-3:], strict=True)
    ]
    scale = np.prod(lengths) ** (1 / 3)
    step, after = scaled_step(memory, lambda vectors: vectors @ metric, gradient)
    np.testing.assert_allclose(step, -inverse_of(memory, scale * metric) @ gradient, rtol=1e-10)
    np.testing.assert_allclose(after.lengths, lengths, rtol=1e-12)
    again, _ = scaled_step(after, lambda vectors: vectors @ metric, gradient)
    np.testing.assert_allclose(again, step, rtol=1e-10)  # known lengths are kept


def test_a_pair_without_curvature_is_left_out():
    memory = remember(Memory(), np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert memory.points == ()


def answered(search, function):
    """What a search returns whose questions `function` answers, and where it asked."""
    asked, answer = [], None
    while True:
        try:
            asked.append(search.send(answer))
        except StopIteration as stop:
            return stop.value, asked
        answer = function(asked[-1])


@pytest.mark.parametrize(("first", "trials"), [(1.0, [1.0, 0.1]), (0.15, [0.15])])
def test_a_search_begins_at_the_length_it_is_given(first, trials):
    def evaluate(point):
        return (yield point)

    def parabola(point):  # the step from 1 to -9 is ten times too long
        return float(point[0] ** 2), 2 * point

    start, step = np.array([1.0]), np.array([-10.0])
    search = lowest_along(evaluate, start, 1.0, 2 * start, step, noise=0.0, length=first)
    (there, value, gradient, length), asked = answered(search, parabola)
    np.testing.assert_allclose([(p[0] - 1) / -10 for p in asked], trials)
    assert (length, value, gradient) == (trials[-1], there[0] ** 2, 2 * there[0])


@pytest.mark.usefixtures("as_if_large")
def test_after_a_step_that_was_cut_the_next_is_tried_somewhat_longer(monkeypatch):
    seen = []

    def spied(*asked, length, **more):
        found = yield from lowest_along(*asked, length=length, **more)
        seen.append((length, found[3]))
        return found

    monkeypatch.setattr(smooth, "lowest_along", spied)
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(8000, 30)) * np.linspace(3, 0.1, 30) ** 2
    scores = inputs @ rng.normal(size=(30, 10))  # classes almost apart
    labels = (scores + 0.02 * scores.std() * rng.normal(size=scores.shape)).argmax(1)
    minimize(inputs, labels, strength=1e-8, tolerance=1e-4)
    assert min(found for _, found in seen) < 1
    for (_, before), (length, _) in itertools.pairwise(seen):
        assert length == min(1.0, 1.5 * before)
