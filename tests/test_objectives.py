"""The objective: a weighted mean plus the penalty, and its gradients, against NumPy loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin import losses, regularizers
from jaxlin.core import Batch, LinearParams
from jaxlin.objectives import compose, weighted_mean
from jaxlin.scores import linear


@pytest.fixture
def problem():
    rng = np.random.default_rng(5)
    params = LinearParams(jnp.array(rng.normal(size=(3, 4))), jnp.array(rng.normal(size=3)))
    return params, Batch(jnp.array(rng.normal(size=(8, 4))), jnp.array(rng.integers(0, 3, 8)))


def hinge_objective(params, batch, strength):
    """The lecture's definition, as loops."""
    total = 0.0
    for x, y in zip(np.asarray(batch.inputs), np.asarray(batch.labels), strict=True):
        s = np.asarray(params.weights) @ x + np.asarray(params.bias)
        total += sum(max(0.0, s[j] - s[y] + 1) for j in range(3) if j != y)
    return total / len(batch.labels) + strength * (np.asarray(params.weights) ** 2).sum()


def test_objective_is_the_mean_loss_plus_the_penalty(problem):
    objective = compose(linear, losses.weston_watkins_hinge, regularizers.l2)
    np.testing.assert_allclose(
        objective(*problem, strength=0.3), hinge_objective(*problem, 0.3), rtol=1e-13
    )


def test_default_strength_is_no_penalty(problem):
    objective = compose(linear, losses.weston_watkins_hinge)
    np.testing.assert_allclose(objective(*problem), hinge_objective(*problem, 0), rtol=1e-13)


def test_weight_k_counts_as_k_copies(problem):
    params, batch = problem
    objective = compose(linear, losses.softmax_cross_entropy)
    counts = np.array([0, 1, 2, 3, 0, 1, 1, 4])
    copies = Batch(np.repeat(batch.inputs, counts, axis=0), np.repeat(batch.labels, counts))
    weighted = batch._replace(weights=counts.astype(float))
    np.testing.assert_allclose(objective(params, weighted), objective(params, copies), rtol=1e-13)


def test_duplicates_change_neither_loss_nor_gradient(problem):
    # The lecture's argument: 1,200 copies of 1,000 images have the mean of the 1,000.
    params, batch = problem
    objective = compose(linear, losses.softmax_cross_entropy)
    copies = Batch(np.tile(batch.inputs, (12, 1)), np.tile(batch.labels, 12))
    once, often = (jax.value_and_grad(objective)(params, b) for b in (batch, copies))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15), once, often)


def test_bias_is_not_penalized(problem):
    params, batch = problem
    objective = compose(linear, losses.softmax_cross_entropy)
    slopes = [jax.grad(objective)(params, batch, strength=s) for s in (0.0, 5.0)]
    np.testing.assert_array_equal(slopes[0].bias, slopes[1].bias)
    np.testing.assert_allclose(
        slopes[1].weights - slopes[0].weights, 10 * params.weights, rtol=1e-12
    )


def test_gradient_on_the_data_moves_examples_down_the_loss(problem):
    params, batch = problem
    objective = compose(linear, losses.softmax_cross_entropy)

    def of_inputs(inputs):
        return objective(params, batch._replace(inputs=inputs))

    gradient = jax.grad(of_inputs)(batch.inputs)
    # (p - onehot) W / N, written out.
    shares = np.asarray(jax.nn.softmax(linear(params, batch.inputs)))
    shares = shares - np.eye(3)[np.asarray(batch.labels)]
    np.testing.assert_allclose(gradient, shares @ np.asarray(params.weights) / 8, rtol=1e-12)


def test_strength_may_be_traced(problem):
    objective = compose(linear, losses.softmax_cross_entropy)
    values = jax.vmap(lambda s: objective(*problem, strength=s))(jnp.array([0.0, 1.0]))
    penalty = np.sum(np.asarray(problem[0].weights) ** 2)
    np.testing.assert_allclose(values[1] - values[0], penalty, rtol=1e-12)


def test_l1_and_none_are_what_they_say(problem):
    params, batch = problem
    base = compose(linear, losses.softmax_cross_entropy, regularizers.none)
    l1 = compose(linear, losses.softmax_cross_entropy, regularizers.l1)
    assert base(params, batch, strength=3.0) == base(params, batch)
    np.testing.assert_allclose(
        l1(params, batch, strength=3.0) - base(params, batch),
        3 * np.abs(np.asarray(params.weights)).sum(),
        rtol=1e-12,
    )


def test_prior_variance_is_scikit_learns_c():
    # C = 1 / (2 N strength): scikit-learn minimizes sum of losses + |W|^2 / (2 C).
    assert regularizers.prior_variance(5e-4, examples=50_000) == pytest.approx(0.02)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"one entry per example, \(8,\), got \(7,\)"):
        weighted_mean(jnp.zeros(8), jnp.ones(7))
