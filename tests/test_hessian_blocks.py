"""The Hessian of sampled rows, in both ways it is summed, against JAX's derivatives of the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin import losses
from jaxlin.solvers.builder import MetricBuilder
from jaxlin.solvers.hessian_blocks import Bends, bends_of, dense_blocks
from jaxlin.solvers.problem import open_problem

CLASSES, FEATURES = 4, 3
SMOOTH = {
    "softmax": losses.softmax_cross_entropy,
    "squared-hinge": losses.squared_weston_watkins_hinge,
    "squared-one-vs-rest": losses.squared_one_vs_rest_hinge,
}


@pytest.fixture
def data():
    """One class has no rows."""
    rng = np.random.default_rng(4)
    return rng.normal(size=(30, FEATURES)), rng.choice([0, 1, 3], 30), rng.uniform(0.5, 2, 30)


@pytest.mark.parametrize("way", [np, jnp], ids=["NumPy", "XLA"])
@pytest.mark.parametrize("loss", SMOOTH)
def test_the_blocks_are_the_second_derivatives(loss, way, data):
    inputs, labels, counts = data
    settings = dict(classes=CLASSES, fit_intercept=False, sample_weight=counts)
    problem = open_problem(inputs, labels, loss=loss, strength=0.1, **settings)[0]
    sample = MetricBuilder(problem).sample
    weights = np.random.default_rng(5).normal(size=(CLASSES, FEATURES))
    bends = bends_of(problem, sample, weights @ sample.rows.T)
    found = dense_blocks(way, sample.rows, bends)

    def mean(flat):
        scores = inputs @ flat.reshape(CLASSES, FEATURES).T
        return (counts * SMOOTH[loss](scores, jnp.asarray(labels))).sum() / counts.sum()

    # sums of 30 products of size 1: rounding of 1e-14
    np.testing.assert_allclose(found, jax.hessian(mean)(weights.ravel()), atol=1e-13)


@pytest.mark.parametrize("way", [np, jnp], ids=["NumPy", "XLA"])
def test_one_array_for_both_sides_of_the_pull_is_its_square(way, data):
    top, labels, _ = data
    rng = np.random.default_rng(6)
    diagonal, root = rng.uniform(1, 2, (2, CLASSES, len(top)))
    own = (np.arange(CLASSES)[:, None] == labels).astype(float)
    found = dense_blocks(way, top, Bends(diagonal, (root, root), (own, 0.1 * diagonal)))
    twice = dense_blocks(way, top, Bends(diagonal, (root, root.copy()), (own, 0.1 * diagonal)))
    np.testing.assert_allclose(found, twice, atol=1e-13)
    without = dense_blocks(way, top, Bends(diagonal, None, None))
    for k, weights in enumerate(diagonal):  # each class by itself
        block = slice(k * FEATURES, (k + 1) * FEATURES)
        np.testing.assert_allclose(without[block, block], top.T @ (weights[:, None] * top))
    assert np.count_nonzero(without) == CLASSES * FEATURES**2
