"""A class that no row has, or whose rows all weigh 0: it costs nothing, and wins nothing."""

from functools import partial

import jax
import numpy as np
import pytest

from jaxlin import losses
from jaxlin.estimators import MulticlassSVMClassifier, SoftmaxClassifier
from jaxlin.solvers import minimize, minimize_compiled, minimize_path
from jaxlin.solvers.dual_losses import FORMS

LOSSES = list(FORMS)
FUNCTIONS = {
    "softmax": losses.softmax_cross_entropy,
    "hinge": losses.weston_watkins_hinge,
    "crammer-singer": losses.crammer_singer_hinge,
    "one-vs-rest": losses.one_vs_rest_hinge,
    "squared-hinge": losses.squared_weston_watkins_hinge,
    "squared-crammer-singer": losses.squared_crammer_singer_hinge,
    "squared-one-vs-rest": losses.squared_one_vs_rest_hinge,
}
STRENGTH = 1e-2


def three_on_a_line(dtype=np.float64):
    """Clusters at -5, 0 and 5: one against the rest, none of the present classes claims the middle,
    where their best score is below -1, at which a further class costs nothing."""
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 2, 3], 20)
    inputs = (labels[:, None] - 2) * 5.0 + 0.5 * rng.normal(size=(60, 1))
    return np.hstack([inputs, 0.1 * rng.normal(size=(60, 1))]).astype(dtype), labels


def scores_of(params, inputs):
    return np.asarray(inputs, np.float64) @ np.asarray(params.weights, np.float64).T + np.asarray(
        params.bias, np.float64
    )


def never_wins(params, inputs, absent=0):
    scores = scores_of(params, inputs)
    return (np.delete(scores, absent, axis=1).max(1) > scores[:, absent]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", LOSSES)
def test_it_costs_nothing_and_wins_no_row(loss, dtype):
    inputs, labels = three_on_a_line(dtype)
    found = minimize(inputs, labels, loss=loss, strength=STRENGTH, classes=5)
    few = minimize(inputs, labels - 1, loss=loss, strength=STRENGTH)
    assert never_wins(found.params, inputs)
    assert never_wins(found.params, inputs, absent=4)
    # the optimum of the classes that there are is approached, and nothing is below it: further
    # classes only add to a loss; softmax adds exp(-80) = 2e-35 at most
    assert found.objective == pytest.approx(few.objective, rel=1e-12)
    assert found.lower_bound == pytest.approx(few.lower_bound, rel=1e-12)
    whole = FUNCTIONS[loss](scores_of(found.params, inputs), labels)
    squares = (np.asarray(found.params.weights, np.float64) ** 2).sum()
    assert found.objective == pytest.approx(float(whole.mean() + STRENGTH * squares), rel=1e-12)


@pytest.mark.parametrize("host", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_it_wins_no_row_of_weight_0(loss, host, monkeypatch):
    """Not even its own, and not where rows without weight lie far from all others."""
    monkeypatch.setattr("jaxlin.passes.opening.is_small", lambda *_, **__: host)
    monkeypatch.setattr("jaxlin.solvers.problem.newton_suits", lambda *_: host)
    inputs, labels = three_on_a_line()
    inputs = np.concatenate([inputs, [[0.0, 1.0], [0.0, -30.0], [40.0, 30.0]]])
    labels = np.concatenate([labels, [0, 0, 2]])
    weights = np.concatenate([np.ones(60), np.zeros(3)])
    settings = dict(loss=loss, sample_weight=weights)
    found = minimize(inputs, labels, strength=STRENGTH, **settings)
    assert never_wins(found.params, inputs)
    path = minimize_path(inputs, labels, strengths=[1.0, STRENGTH], **settings)
    assert all(never_wins(solution.params, inputs) for solution in path)


@pytest.mark.parametrize("loss", ["softmax", "hinge", "squared-crammer-singer"])
def test_it_wins_nowhere_where_scores_are_known_up_to_a_common_shift(loss):
    """The mean of the present scores is the same for every x, and the largest is above it."""
    inputs, labels = three_on_a_line()
    found = minimize(inputs, labels, loss=loss, strength=STRENGTH, tolerance=1e-9)
    angles = np.linspace(0, 2 * np.pi, 400)
    everywhere = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for distance in (1.0, 1e3, 1e6):
        assert never_wins(found.params, distance * everywhere)


@pytest.mark.parametrize("loss", ["softmax", "squared-one-vs-rest"])
def test_compiled_folds_without_a_class_never_name_it(loss):
    inputs, labels = three_on_a_line()
    labels = labels - 1
    folds = np.stack([labels != k for k in range(3)]).astype(float)
    fit = partial(minimize_compiled, classes=3, loss=loss, strength=STRENGTH)
    found = jax.vmap(lambda weights: fit(inputs, labels, sample_weight=weights))(folds)
    for k in range(3):
        params = jax.tree.map(lambda leaf, k=k: leaf[k], found.params)
        assert never_wins(params, inputs, absent=k)
    # and one against the rest in the middle of the others
    found = minimize_compiled(inputs, labels + 1, classes=4, loss=loss, strength=STRENGTH)
    assert never_wins(found.params, inputs)


@pytest.mark.parametrize(
    "model",
    [SoftmaxClassifier(), MulticlassSVMClassifier(loss="one-vs-rest"), MulticlassSVMClassifier()],
    ids=["softmax", "one-vs-rest", "hinge"],
)
def test_an_estimator_never_names_a_class_without_weight(model):
    inputs, labels = three_on_a_line()
    inputs, labels = np.concatenate([inputs, [[0.0, 1.0]]]), np.append(labels, 0)
    model.fit(inputs, labels, sample_weight=np.append(np.ones(60), 0.0))
    assert model.classes_.tolist() == [0, 1, 2, 3]
    assert 0 not in model.predict(inputs)
