"""Metrics of several gradients at once, and L-BFGS steps in them, against their matrices."""

import numpy as np
import pytest

from jaxlin.solvers.builder import MetricBuilder
from jaxlin.solvers.lbfgs import Memory, remember, scaled_step, step_from
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
    monkeypatch.setattr("jaxlin.solvers.spectrum.FULL_SPECTRUM", 30)
    monkeypatch.setattr("jaxlin.solvers.builder.FULL_SPECTRUM", 30)
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
