"""Hinges with many classes: sparse Hessians, and dual points balanced in K numbers."""

import numpy as np
import pytest

from jaxlin.solvers import Status, minimize
from jaxlin.solvers.duals import Bend, form_of, own_of
from jaxlin.solvers.sparse_bends import class_blocks, class_diagonals, sparse_bend, sparse_product


@pytest.mark.parametrize("name", ["hinge", "crammer-singer", "one-vs-rest"])
def test_sparse_hessians_are_the_dense_ones(name):
    """Against form.curve over all pairs, whose own witness is finite differences."""
    generator = np.random.default_rng(0)
    form, labels = form_of(name), generator.integers(0, 60, 50)
    own, inputs = own_of(np, labels, 60), generator.normal(size=(50, 4))
    d = generator.uniform(size=(60, 50)) * (generator.uniform(size=(60, 50)) < 0.02)
    d[own & (form.geometry == "pairs")] = 0
    kappa = generator.uniform(size=50) * (name == "crammer-singer")
    bend = sparse_bend(d, kappa, labels)
    weights, bias = generator.normal(size=(60, 4)), generator.normal(size=60)

    def dense(weights, bias):
        scores = weights @ inputs.T + bias[:, None]
        moved = form.curve(np, Bend(d, kappa), own, scores)
        return moved @ inputs, moved.sum(1)

    found = sparse_product(form, inputs, bend)(weights, bias)
    for ours, theirs in zip(found, dense(weights, bias), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)  # sums of a hundred numbers near 1
    blocks, squares = class_blocks(form, inputs, bend), class_diagonals(form, inputs**2, bend)
    for k in (0, labels[0]):
        for j in range(4):
            unit = np.zeros((60, 4))
            unit[k, j] = 1
            np.testing.assert_allclose(blocks[k, :, j], dense(unit, 0 * bias)[0][k], atol=1e-12)
    np.testing.assert_allclose(squares, np.einsum("kjj->kj", blocks), atol=1e-12)


@pytest.mark.parametrize("name", ["hinge", "one-vs-rest"])
def test_many_classes_are_certified_below_what_another_tolerance_reaches(name):
    generator = np.random.default_rng(1)
    labels = np.arange(1500) % 250
    centers = generator.normal(size=(250, 16))
    inputs = (centers[labels] + 0.5 * generator.normal(size=(1500, 16))).astype(np.float32)
    settings = dict(loss=name, strength=1e-2)
    solution = minimize(inputs, labels, tolerance=1e-2, **settings)
    assert solution.status == Status.CONVERGED
    better = minimize(inputs, labels, tolerance=1e-3, **settings)
    assert solution.lower_bound <= better.objective
    assert better.lower_bound <= solution.objective
