"""Blocks made of few rows: what they have in common by chance alone is shrunk."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage

from jaxlin.solvers.curvature import bends_of
from jaxlin.solvers.preconditioner import _noise, class_block_preconditioner, shrink, thinned
from jaxlin.solvers.problem import open_problem
from jaxlin.solvers.refresh import PreconditionerBuilder


def blocks_of(rows, weights):
    """Sums of squares of rows with a one behind them, as a class has them."""
    ended = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    return ((ended.T * weights) @ ended)[None]


def share_of(before, after):
    """By how much what is between directions was shrunk, once the mean's part is taken off."""
    mean = np.outer(before[-1], before[-1]) / before[-1, -1]
    between = ~np.eye(len(before), dtype=bool)
    between[-1] = between[:, -1] = False
    before, after = (before - mean)[between], (after - mean)[between]
    left = (after @ before) / (before @ before)
    np.testing.assert_allclose(after, left * before, atol=1e-12 * np.abs(before).max())
    return 1 - left


@pytest.mark.parametrize("common", [0.0, 0.3, 0.6])
def test_the_share_is_that_of_ledoit_and_wolf(common):
    """Of directions with unit variance, where their target is the diagonal as well."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(150, 80)) + common * rng.normal(size=(150, 1))
    rows = (rows - rows.mean(0)) / rows.std(0)
    before = blocks_of(rows, np.ones(150))
    after = before.copy()
    shrink(after, np.array([1 / 150]))
    theirs = ledoit_wolf_shrinkage(rows, assume_centered=True)
    # Theirs has the diagonal's variance as well, 2 of p + 1, and counts |row|^4 as it is: 2 of p,
    # and the square more by which a correlation is less certain.
    correlation = common**2 / (1 + common**2)
    allowed = 4 / 80 + correlation**2
    assert share_of(before[0], after[0]) == pytest.approx(theirs, rel=allowed)


def test_what_the_mean_makes_and_all_variances_stay():
    rng = np.random.default_rng(1)
    rows, weights = rng.normal(size=(30, 20)) * 3.0 ** -np.arange(20) + 3, rng.uniform(size=30)
    before = blocks_of(rows, weights)
    after = before.copy()
    shrink(after, np.array([1.0]))  # all of it is noise
    expected = np.outer(before[0, -1], before[0, -1]) / before[0, -1, -1]
    diagonal = np.arange(21)
    expected[diagonal, diagonal] = before[0, diagonal, diagonal]
    np.testing.assert_allclose(after[0], expected, rtol=1e-12)


def test_directions_that_rounding_alone_tells_from_none_count_for_nothing():
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(500, 12)) + 0.5 * rng.normal(size=(500, 1))
    before = blocks_of(rows, np.ones(500))
    more = np.concatenate([rows, np.full((500, 6), 3.0), np.zeros((500, 2))], axis=1)
    with_constants = blocks_of(more, np.ones(500))
    shrink(before, np.array([0.01]))
    shrink(with_constants, np.array([0.01]))
    same = [*range(12), 20]
    np.testing.assert_allclose(with_constants[0][np.ix_(same, same)], before[0], rtol=1e-9)


def test_shrunk_blocks_of_few_rows_are_nearer_to_those_of_all():
    """As a preconditioner: by the condition number that is left."""
    rng = np.random.default_rng(2)
    scales = np.arange(1, 41) ** -0.5

    def spread(block):
        ends = np.append(scales, 1)
        return np.linalg.cond(block / ends[:, None] / ends[None, :])  # 1 where all are known

    few = blocks_of(rng.normal(size=(60, 40)) * scales, np.full(60, 1 / 60))
    plain = spread(few[0])
    shrink(few, np.array([1 / 60]))
    assert plain > (1 + (40 / 60) ** 0.5) ** 2 / (1 - (40 / 60) ** 0.5) ** 2  # Marchenko, Pastur
    assert spread(few[0]) < plain / 10


def test_a_class_that_does_not_bend_is_left_alone():
    blocks = np.zeros((2, 4, 4), np.float32)
    shrink(blocks, np.array([np.inf, 0.0]))
    assert not blocks.any()


def bent(classes, rows, drawn, monkeypatch):
    monkeypatch.setattr("jaxlin.solvers.refresh.SAMPLED_ROWS", drawn)
    monkeypatch.setattr("jaxlin.solvers.refresh.ROWS_A_CLASS", 0)
    rng = np.random.default_rng(3)
    problem = open_problem(rng.normal(size=(rows, 5)), np.arange(rows) % classes, strength=1.0)[0]
    weights, bias = np.zeros((classes, 5)), np.zeros(classes)
    builder = PreconditionerBuilder(problem)
    sample = builder._sample_at(weights, bias)[0]
    return problem, sample, bends_of(problem, sample, builder.scores(sample, weights, bias))


def test_rows_that_were_sure_to_be_there_are_no_noise(monkeypatch):
    problem, sample, bends = bent(60, 600, 1000, monkeypatch)
    curvature, chances = thinned(bends.own_weights, seed=0)
    assert not _noise(problem, sample, curvature, chances).any()
    assert not _noise(problem, sample, bends.own_weights, None).any()
    monkeypatch.setattr("jaxlin.solvers.preconditioner.CLASS_ROWS", 100)
    curvature, chances = thinned(bends.own_weights, seed=0)
    # at zero all bend alike: of 600 rows some 100 were kept, with a chance of a sixth each
    kept = np.diff(curvature.indptr)
    noise = _noise(problem, sample, curvature, chances)
    np.testing.assert_allclose(noise, (1 - 1 / 6) / kept, rtol=1e-5)


def test_the_noise_of_drawn_rows_is_one_over_their_number(monkeypatch):
    problem, sample, bends = bent(60, 6000, 300, monkeypatch)
    # alike at zero, so that all 6,000 had a chance of about one in twenty
    dense = _noise(problem, sample, bends.own_weights, None)
    np.testing.assert_allclose(dense, (1 - 1 / 20) / 300, rtol=0.2)
    sparse = _noise(problem, sample, *thinned(bends.own_weights, seed=0))
    np.testing.assert_allclose(sparse, dense, rtol=1e-5)


def test_blocks_inverted_together_are_those_inverted_one_by_one(monkeypatch):
    """As a device does, to which a thousand small factorizations are a thousand launches."""
    monkeypatch.setattr("jaxlin.passes.opening.SMALL_PROBLEM", 0)
    problem, sample, bends = bent(60, 600, 1000, monkeypatch)
    curvature = np.array(bends.own_weights)
    curvature[7] = 0  # a class that nothing is known of
    curvature[8] *= np.arange(600) < 2  # two rows for six unknowns
    curvature[9] *= 1e24 * (np.arange(600) < 2)  # indefinite, as rounded, with the ridge as well
    metrics = []
    for device in (problem.rows.device, SimpleNamespace(platform="gpu")):
        monkeypatch.setattr(problem.rows, "device", device)
        spectrum = PreconditionerBuilder(problem).spectrum()
        metrics.append(class_block_preconditioner(problem, spectrum, sample, curvature))
    rng = np.random.default_rng(5)
    gradient = rng.normal(size=(60, 5)), rng.normal(size=60)
    found = [metric(*gradient) for metric in metrics]
    for steps, biases in found:  # positive definite all the same
        assert gradient[0][9] @ steps[9] + gradient[1][9] * biases[9] > 0
    (alone, bias), (together, same) = ([np.delete(a, 9, 0) for a in each] for each in found)
    # float64 blocks, of condition 1e3 where two rows know a class and at most 10 elsewhere
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-9 * np.abs(alone).max())
    np.testing.assert_allclose(same, bias, rtol=1e-9, atol=1e-9 * np.abs(bias).max())
