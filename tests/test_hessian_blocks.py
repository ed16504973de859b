"""The Hessian of sampled rows, in both ways it is summed, against JAX's derivatives of the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin.losses import LOSSES
from jaxlin.solvers.covariance import second_moment
from jaxlin.solvers.curvature import Bends, bends_of, dense_blocks, sampled_blocks
from jaxlin.solvers.problem import open_problem
from jaxlin.solvers.refresh import PreconditionerBuilder

CLASSES, FEATURES = 4, 3
SMOOTH = ("softmax", "squared-hinge", "squared-one-vs-rest")


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
    sample = PreconditionerBuilder(problem).sample
    weights = np.random.default_rng(5).normal(size=(CLASSES, FEATURES))
    bends = bends_of(problem, sample, weights @ sample.rows.T)
    found = dense_blocks(way, sample.rows, bends)

    def mean(flat):
        scores = inputs @ flat.reshape(CLASSES, FEATURES).T
        return (counts * LOSSES[loss](scores, jnp.asarray(labels))).sum() / counts.sum()

    # sums of 30 products of size 1: rounding of 1e-14
    np.testing.assert_allclose(found, jax.hessian(mean)(weights.ravel()), atol=1e-13)


@pytest.mark.parametrize("way", [np, jnp], ids=["NumPy", "XLA"])
def test_without_pull_and_edges_each_class_is_by_itself(way, data):
    top = data[0]
    diagonal = np.random.default_rng(6).uniform(1, 2, (CLASSES, len(top)))
    found = dense_blocks(way, top, Bends(diagonal, None, None))
    for k, weights in enumerate(diagonal):
        block = slice(k * FEATURES, (k + 1) * FEATURES)
        np.testing.assert_allclose(found[block, block], top.T @ (weights[:, None] * top))
    assert np.count_nonzero(found) == CLASSES * FEATURES**2


def bends_and_rows(loss, size):
    """Of smoothed losses, at random scores; every class has rows."""
    rng = np.random.default_rng(8)
    inputs, labels = rng.normal(size=(size, FEATURES)), np.arange(size) % CLASSES
    problem = open_problem(inputs, labels, loss=loss, strength=0.1, dtype=np.float64)[0]
    sample = PreconditionerBuilder(problem).draw(problem.counts, size, seed=0)
    return bends_of(problem, sample, rng.normal(size=(CLASSES, size)), 0.5), sample.rows


LAPLACIANS = ("softmax", "hinge", "crammer-singer", "squared-hinge", "squared-crammer-singer")


@pytest.mark.parametrize("loss", LAPLACIANS)
def test_blocks_from_all_pairs_are_the_blocks(loss, monkeypatch):
    monkeypatch.setattr("jaxlin.solvers.curvature.EDGES", 1e12)
    bends, rows = bends_and_rows(loss, 60)
    expected = dense_blocks(np, rows, bends)
    np.testing.assert_allclose(sampled_blocks(rows, bends), expected, atol=1e-14)


@pytest.mark.parametrize("loss", LAPLACIANS)
def test_sampled_pairs_stand_for_all(loss, monkeypatch):
    monkeypatch.setattr("jaxlin.solvers.curvature.EDGES", 1)
    size = 20_000
    bends, rows = bends_and_rows(loss, size)
    expected, found = dense_blocks(np, rows, bends), sampled_blocks(rows, bends)
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() > 1e-4 * scale  # some were left out
    # means over 20,000 rows of terms that their chances (some above a tenth) raise to ten times
    # the entries at most: a standard error below sqrt(10 / 20,000) = 0.022, of which four
    assert np.abs(found - expected).max() < 0.09 * scale
    # as the Hessian does, it sees no common shift of all classes, and it is positive semidefinite
    blocks = found.reshape(CLASSES, FEATURES, CLASSES, FEATURES)
    np.testing.assert_allclose(blocks.sum(2), 0, atol=1e-12 * scale)
    assert np.linalg.eigvalsh(found).min() > -1e-12 * scale


@pytest.mark.parametrize("large", [0.0, 1e12], ids=["all threads", "one thread"])
def test_a_second_moment_is_the_same_whoever_makes_it(large, monkeypatch):
    monkeypatch.setattr("jaxlin.solvers.covariance.LARGE", large)
    rows = np.random.default_rng(7).normal(size=(50, 13))
    expected = np.einsum("ia,ib->ab", rows, rows)
    for way in (np, jnp):
        # sums of 50 products of size 1
        np.testing.assert_allclose(second_moment(way, rows), expected, atol=1e-12)
