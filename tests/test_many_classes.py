"""Many classes: a block of the Hessian for each, sparse Hessians of hinges, and their proofs."""

import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from jaxlin.solvers import Status, minimize, minimize_compiled
from jaxlin.solvers.curvature import (
    class_blocks,
    sparse_bend,
    sparse_curvature,
    sparse_product,
)
from jaxlin.solvers.dual_losses import Bend, form_of, own_of
from jaxlin.solvers.preconditioner import _inverses, thinned
from jaxlin.solvers.problem import open_problem
from jaxlin.solvers.refresh import FEW_CLASSES, PreconditionerBuilder


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
    blocks = class_blocks(inputs, sparse_curvature(form, bend))
    for k in (0, labels[0]):
        for j in range(4):
            unit = np.zeros((60, 4))
            unit[k, j] = 1
            np.testing.assert_allclose(blocks[k, :, j], dense(unit, 0 * bias)[0][k], atol=1e-12)


@pytest.mark.parametrize("name", ["hinge", "one-vs-rest"])
def test_many_classes_are_certified_below_what_another_tolerance_reaches(name):
    generator = np.random.default_rng(1)
    labels = np.arange(900) % 150
    centers = generator.normal(size=(150, 16))
    inputs = (centers[labels] + 0.5 * generator.normal(size=(900, 16))).astype(np.float32)
    settings = dict(loss=name, strength=1e-2)
    solution = minimize(inputs, labels, tolerance=1e-2, **settings)
    assert solution.status == Status.CONVERGED
    better = minimize(inputs, labels, tolerance=1e-3, **settings)
    assert solution.lower_bound <= better.objective
    assert better.lower_bound <= solution.objective


def test_thinned_curvature_has_the_sums_of_all_rows_on_average(monkeypatch):
    """A class whose curvature is even, one of 20 heavy rows and many light ones, one of nothing."""
    monkeypatch.setattr("jaxlin.solvers.preconditioner.CLASS_ROWS", 50)
    generator = np.random.default_rng(0)
    curvature = np.stack([np.ones(1000), np.where(np.arange(1000) < 20, 1.0, 1e-3), np.zeros(1000)])
    values, draws = generator.normal(size=1000) + 2, 400
    found = np.array([thinned(curvature, seed)[0] @ values for seed in range(draws)])
    # a row of chance c adds w^2 v^2 (1 - c) / c to the variance of the sum
    shares = curvature / np.maximum(curvature.sum(1, keepdims=True), 1e-300)
    chances = np.clip(50 * shares, 1e-300, 1)
    error = np.sqrt(((curvature * values) ** 2 * (1 / chances - 1)).sum(1) / draws)
    light = np.arange(1000) >= 20
    assert error[1] < 0.05 * np.abs(curvature[1, light] @ values[light])  # they would be missed
    assert (np.abs(found.mean(0) - curvature @ values) <= 4 * error + 1e-12).all()
    few, odds = thinned(curvature, 0)
    np.testing.assert_allclose(odds.toarray(), np.where(few.toarray() > 0, chances, 0), rtol=1e-6)
    kept = np.diff(few.indptr)
    assert abs(kept[0] - 50) <= 4 * np.sqrt(50)
    assert 20 <= kept[1] < 100
    assert kept[2] == 0


def test_beyond_many_classes_the_metric_inverts_the_block_of_each(monkeypatch):
    monkeypatch.setattr("jaxlin.solvers.preconditioner.CLASS_ROWS", 1e300)
    generator = np.random.default_rng(2)
    classes, features, size, strength = FEW_CLASSES["smooth"] + 10, 20, 4000, 1e-9
    inputs, labels = generator.normal(size=(size, features)) + 1, np.arange(size) % classes
    problem = open_problem(inputs, labels, strength=strength)[0]
    weights = 0.3 * generator.normal(size=(classes, features))
    bias = 0.3 * generator.normal(size=classes)
    metric, passes = PreconditionerBuilder(problem).following(weights, bias)
    assert passes == 0

    scores = inputs @ weights.T + bias
    shares = softmax(scores, axis=1)
    curvature, mean = shares * (1 - shares) / size, inputs.mean(0)
    rows = np.column_stack([inputs - mean, np.ones(size)])  # around the mean
    gradient, sums = generator.normal(size=weights.shape), generator.normal(size=classes)
    found = metric(gradient, sums)
    for k in range(classes):
        block = (rows * curvature[:, k, None]).T @ rows
        # a common shift of all biases has no curvature: the metric gives it a thousandth
        ridge = [2 * strength] * features + [1e-3 * curvature.sum(0).mean()]
        step = np.linalg.solve(
            block + np.diag(ridge), np.append(gradient[k] - sums[k] * mean, sums[k])
        )
        # the penalty is 1e-7 of the curvature, and each direction's is rounded up to the least
        np.testing.assert_allclose(found[0][k], step[:-1], rtol=1e-5)
        np.testing.assert_allclose(found[1][k], step[-1] - step[:-1] @ mean, rtol=1e-5)


def test_where_blocks_are_small_the_other_directions_have_a_curvature_each(monkeypatch):
    """Against the same sums over rows, in the coordinates of the spectrum."""
    monkeypatch.setattr("jaxlin.solvers.preconditioner.CLASS_ROWS", 1e300)
    generator = np.random.default_rng(4)
    classes, features, size, leading = FEW_CLASSES["smooth"] + 10, 20, 4000, 2
    monkeypatch.setattr("jaxlin.solvers.preconditioner.BLOCK_ENTRIES", classes * (leading + 1) ** 2)
    inputs, labels = generator.normal(size=(size, features)) + 1, np.arange(size) % classes
    builder = PreconditionerBuilder(open_problem(inputs, labels, strength=1e-3)[0])
    weights = 0.3 * generator.normal(size=(classes, features))
    bias = 0.3 * generator.normal(size=classes)
    metric, _ = builder.following(weights, bias)

    shares = softmax(inputs @ weights.T + bias, axis=1)
    curvature, mean = shares * (1 - shares) / size, inputs.mean(0)
    spectrum = builder.spectrum()
    vectors = spectrum.scaling[:, None] * spectrum.vectors
    rotated, ridges = (inputs - mean) @ vectors, spectrum.ridges
    rows = np.column_stack([rotated[:, :leading], np.ones(size)])
    gradient, sums = generator.normal(size=weights.shape), generator.normal(size=classes)
    found = metric(gradient, sums)
    for k in (0, classes - 1):
        ridge = np.append(ridges[:leading], 1e-3 * curvature.sum(0).mean())
        block = (rows * curvature[:, k, None]).T @ rows + np.diag(ridge)
        turned = (gradient[k] - sums[k] * mean) @ vectors
        top = np.linalg.solve(block, np.append(turned[:leading], sums[k]))
        rest = turned[leading:] / (curvature[:, k] @ rotated[:, leading:] ** 2 + ridges[leading:])
        step = vectors @ np.append(top[:-1], rest)
        # float64 but for a condition number of some 1e3
        np.testing.assert_allclose(found[0][k], step, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found[1][k], top[-1] - step @ mean, rtol=1e-10)


def test_all_classes_are_one_block_where_that_is_small():
    """Then the metric is the inverse of the whole Hessian, coupling of the classes included."""
    generator = np.random.default_rng(5)
    classes, features, size, strength = FEW_CLASSES["smooth"] + 10, 3, 4000, 1e-3
    inputs, labels = generator.normal(size=(size, features)), np.arange(size) % classes
    problem = open_problem(inputs, labels, strength=strength)[0]
    weights = 0.3 * generator.normal(size=(classes, features))
    bias = 0.3 * generator.normal(size=classes)
    metric, _ = PreconditionerBuilder(problem).following(weights, bias)

    shares, mean = softmax(inputs @ weights.T + bias, axis=1), inputs.mean(0)
    rows = np.column_stack([inputs - mean, np.ones(size)])
    spread = (shares[:, :, None] * rows[:, None, :]).reshape(size, -1)
    hessian = -spread.T @ spread / size
    for k in range(classes):
        block = slice(k * (features + 1), (k + 1) * (features + 1))
        hessian[block, block] += (rows * shares[:, k, None]).T @ rows / size
    # a common shift of all biases has no curvature: here it has a little
    hessian += np.diag(np.tile([2 * strength] * features + [1e-8], classes))
    gradient, sums = generator.normal(size=weights.shape), generator.normal(size=classes)
    # Softmax has no gradient along a common shift of all classes, and metrics do not divide by its
    # curvature, which is the penalty's alone.
    gradient, sums = gradient - gradient.mean(0), sums - sums.mean()
    right = np.column_stack([gradient - sums[:, None] * mean, sums])
    step = np.linalg.solve(hessian, right.ravel()).reshape(classes, features + 1)
    found, found_bias = metric(gradient, sums)
    # the little curvature is 1e-6 of a feature's, 1e-4 of a bias's; without coupling it is off by 1
    np.testing.assert_allclose(found, step[:, :-1], atol=1e-3 * np.abs(step).max())
    apart, found_apart = (b - b.mean() for b in (step[:, -1] - step[:, :-1] @ mean, found_bias))
    np.testing.assert_allclose(found_apart, apart, atol=1e-3 * np.abs(apart).max())


def test_a_block_that_rounding_made_indefinite_is_inverted_as_a_positive_one():
    ones = np.ones((1, 3, 3), np.float32)
    ones[0, 2, 2] -= np.float32(1e-6)
    inverse = _inverses(ones, np.zeros(3))
    assert (np.linalg.eigvalsh(inverse[0].astype(np.float64)) > 0).all()


@pytest.mark.usefixtures("as_if_large")
def test_softmax_of_many_classes_is_certified_where_some_are_hard_to_tell_apart():
    generator, size = np.random.default_rng(3), 4000
    labels = np.arange(size) % 60
    centers = generator.normal(size=(30, 24))[np.arange(60) // 2]
    centers = centers + 0.3 * generator.normal(size=(60, 24))
    inputs = (centers[labels] + 0.7 * generator.normal(size=(size, 24))).astype(np.float32)
    solution = minimize(inputs, labels, strength=1e-5, tolerance=1e-5)
    assert solution.status == Status.CONVERGED
    wide = inputs.astype(np.float64)
    other = minimize_compiled(wide, labels, strength=1e-5, classes=60, tolerance=1e-5).params
    for weights, bias in (solution.params, other):
        weights, bias = np.asarray(weights, np.float64), np.asarray(bias, np.float64)
        scores = wide @ weights.T + bias
        losses = logsumexp(scores, axis=1) - scores[np.arange(size), labels]
        assert solution.lower_bound <= losses.mean() + 1e-5 * np.sum(weights**2)
