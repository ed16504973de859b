"""Fits whose vectors lie on the device, as on a GPU: the same fit, and only numbers come back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin.passes import DeviceRows
from jaxlin.solvers import minimize, minimize_path
from jaxlin.solvers.lbfgs import GOING
from jaxlin.solvers.mean_loss import mean_loss
from jaxlin.solvers.problem import open_problem
from jaxlin.solvers.smooth import advance, begin, question

CLASSES, FEATURES = 12, 40


@pytest.fixture(autouse=True)
def on_a_device(monkeypatch):
    monkeypatch.setattr("jaxlin.passes.opening.is_small", lambda *_, **__: False)
    monkeypatch.setattr("jaxlin.solvers.problem.newton_suits", lambda *_: False)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr("jaxlin.solvers.problem.keeps_vectors", lambda device: True)


def data(size=3000, classes=CLASSES):
    rng = np.random.default_rng(3)
    inputs = (rng.normal(size=(size, FEATURES)) * np.linspace(3, 0.1, FEATURES)).astype(np.float32)
    scores = inputs @ rng.normal(size=(FEATURES, classes))
    return inputs, (scores + rng.normal(size=(size, classes))).argmax(1)


CASES = {
    "gram, then all classes together": ("softmax", CLASSES, {}),
    "a block for each class": ("softmax", 60, {}),
    "leading directions, the rest by the Gram matrix": ("squared-hinge", CLASSES, {"whole": 0}),
    "no covariance": ("softmax", CLASSES, {"whole": 0, "dense": 10}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_same_fit(name, monkeypatch):
    loss, classes, limits = CASES[name]
    if "whole" in limits:
        monkeypatch.setattr("jaxlin.solvers.refresh.FULL_SPECTRUM", limits["whole"])
        monkeypatch.setattr("jaxlin.solvers.refresh.FULL_AT_ONCE", 0)
        for module in ("curvature", "refresh", "preconditioner"):
            monkeypatch.setattr(f"jaxlin.solvers.{module}.DENSE_SIDE", 50)
    if "dense" in limits:
        monkeypatch.setattr("jaxlin.solvers.refresh.DENSE_FEATURES", limits["dense"])
    settings = {"loss": loss, "strength": 1e-4, "tolerance": 1e-5}
    found = []
    for there in (False, True):
        keeps = lambda device, there=there: there  # noqa: E731
        monkeypatch.setattr("jaxlin.solvers.problem.keeps_vectors", keeps)
        found.append(minimize(*data(classes=classes), **settings))
    host, device = found
    assert device.gap <= 1e-5 * device.objective
    assert abs(device.objective - host.objective) <= 1e-5 * host.objective
    assert isinstance(device.params.weights, np.ndarray)
    # the same method: rounding may move the last steps
    assert abs(device.evaluations - host.evaluations) <= 0.1 * host.evaluations + 1


@pytest.mark.usefixtures("as_on_a_gpu")
def test_folds_and_strengths_go_side_by_side_there():
    inputs, labels = data()
    weights = np.ones((2, len(labels)))
    weights[0, ::3], weights[1, 1::3] = 0, 0
    settings = {"strengths": [1e-2, 5e-3, 1e-4], "sample_weight": weights, "tolerance": 1e-4}
    for path in minimize_path(inputs, labels, **settings):
        assert all(fit.gap <= 1e-4 * fit.objective for fit in path)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_fit_that_was_left_goes_on_there():
    left = []

    def on_carried(evaluations, make):
        left.append(make())

    settings = {"strength": 1e-4, "tolerance": 1e-5}
    whole = minimize(*data(), on_carried=on_carried, **settings)
    carried = left[len(left) // 2]
    assert all(isinstance(part, np.ndarray) for part in (carried.point, carried.history.points))
    rest = minimize(*data(), carried=carried, **settings)
    assert rest[1:] == whole[1:]
    assert np.array_equal(rest.params.weights, whole.params.weights)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_between_two_passes_nothing_as_large_as_the_parameters_comes_to_the_host(monkeypatch):
    """Nor does it go there: what is read of an array of XLA's, and made one of, is counted."""
    problem, _, _ = open_problem(*data(), strength=1e-4, tolerance=1e-9)
    assert isinstance(problem.rows, DeviceRows)
    sizes, asarray, placed = [], np.asarray, jnp.asarray

    def counted(value, *more, **settings):
        if isinstance(value, jax.Array):
            sizes.append(value.size)
        return asarray(value, *more, **settings)

    def counted_placing(value, *more, **settings):
        if isinstance(value, np.ndarray):
            sizes.append(value.size)
        return placed(value, *more, **settings)

    fitting = begin(problem, np.zeros((CLASSES, FEATURES)), np.zeros(CLASSES))
    monkeypatch.setattr(np, "asarray", counted)
    monkeypatch.setattr(jnp, "asarray", counted_placing)
    advanced = advance(fitting, mean_loss(*question(fitting)))  # the weights of the rows go there
    steps = 0
    while advanced.state.status == GOING and steps < 12:
        built, before = advanced.state.built, len(sizes)
        asked = question(advanced)
        advanced = advance(advanced, mean_loss(*asked))
        state = advanced.state
        there = asked.weights, state.gradient, state.step, state.history.points
        assert all(isinstance(part, jax.Array) for part in there)
        if state.built is built:  # no preconditioner was built
            # the map of the features, and the history's system of 20 pairs
            assert max(sizes[before:]) <= max(FEATURES, 20**2) < CLASSES * FEATURES
            steps += 1
    assert steps >= 8
