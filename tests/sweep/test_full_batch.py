"""Full-batch sweeps: against scikit-learn on the path, and the coordinates they are solved in."""

import numpy as np
import pytest

from jaxlin import preprocess, solvers
from jaxlin.core import Batch
from jaxlin.sweep import FittedHead, Head, Subset, grid, solve
from jaxlin.sweep.full_batch import coarse_to_fine, few_shot_rows


@pytest.fixture(scope="module")
def digits(digits_of):
    return digits_of(400, 200)


def test_the_path_is_scikit_learns(digits):
    from sklearn.linear_model import LogisticRegression

    data, validation, statistics = digits
    strengths = [1e-4, 1e-1, 1e-2]
    fitted = solve(grid(strengths), data, validation, classes=10, statistics=statistics,
                   tolerance=1e-8, dtype=np.float64)  # fmt: skip
    rows = [(b.inputs - statistics.shift) * statistics.scale for b in (data, validation)]
    assert [found.head.strength for found in fitted] == strengths
    for found in fitted:
        peer = LogisticRegression(C=1 / (2 * 400 * found.head.strength), tol=1e-10, max_iter=5000)
        peer.fit(rows[0], data.labels)
        # Strong convexity: |W - W*|^2 <= gap / strength, with gap <= 1e-8 of an objective near 1.
        bound = 2 * (1e-8 * found.objective / found.head.strength) ** 0.5
        assert np.linalg.norm(found.params.weights - peer.coef_) < bound
        scores = rows[1] @ np.asarray(found.params.weights).T + found.params.bias
        assert found.validation_accuracy == np.mean(scores.argmax(1) == validation.labels)
        assert found.relative_gap <= 1.01e-8
        assert found.status == "done"


def test_later_heads_start_from_the_one_before(digits):
    data, _, statistics = digits
    options = dict(classes=10, statistics=statistics, tolerance=1e-6)
    path = solve(grid(np.logspace(-2, -3, 5)), data, **options)
    cold = [solve([found.head], data, **options)[0] for found in path[1:]]
    assert sum(f.epochs for f in path[1:]) < sum(f.epochs for f in cold)
    (warm,) = solve([path[-1].head], data, near=path, **options)
    assert warm.epochs < cold[-1].epochs


def test_mean_per_class_selects_by_the_mean_over_classes(digits):
    from jaxlin.metrics import per_class_accuracy
    from jaxlin.sweep.selection import selection_weights

    data, validation, statistics = digits
    kept = np.r_[
        np.flatnonzero(validation.labels != 3)[:60], np.flatnonzero(validation.labels == 3)
    ]
    unequal = Batch(validation.inputs[kept], validation.labels[kept])
    unequal = unequal._replace(weights=selection_weights(unequal.labels, "mean-per-class"))
    (found,) = solve(grid([1e-2]), data, unequal, classes=10, statistics=statistics)
    rows = (unequal.inputs - statistics.shift) * statistics.scale
    scores = rows @ np.asarray(found.params.weights).T + found.params.bias
    shares = per_class_accuracy(scores, unequal.labels)
    assert found.validation_accuracy == pytest.approx(np.nanmean(shares), rel=1e-6)


@pytest.mark.parametrize("loss", ["softmax", "hinge"])
def test_few_examples_are_solved_in_their_span(digits, loss):
    data, _, statistics = digits
    heads = grid([1e-2], losses=[loss], seeds=[0, 1], shots=[2])  # 20 examples, 64 features
    fitted = solve(heads, data, classes=10, statistics=statistics, tolerance=1e-5)
    for found in fitted:
        rows = few_shot_rows(data.labels, 2, found.head.seed)
        direct = solvers.minimize(
            data.inputs[rows], data.labels[rows], loss=loss, strength=1e-2, tolerance=1e-5,
            preprocessing=statistics, classes=10,
        )  # fmt: skip
        assert found.objective == pytest.approx(direct.objective, rel=2.1e-5)
        bound = 2 * (1e-5 * found.objective / 1e-2) ** 0.5 + 1e-5
        assert np.linalg.norm(found.params.weights - direct.params.weights) < bound
    assert not np.array_equal(fitted[0].params.weights, fitted[1].params.weights)


def test_a_subset_is_the_problem_of_its_columns(digits):
    data, validation, statistics = digits
    heads = grid([1e-2], subsets=[Subset("half", ((0, 32),))])
    (found,) = solve(heads, data, validation, classes=10, statistics=statistics, tolerance=1e-7)
    direct = solvers.minimize(
        data.inputs[:, :32], data.labels, strength=1e-2, tolerance=1e-7,
        preprocessing=preprocess.Preprocessing("", *(a[:32] for a in statistics[1:])),
    )  # fmt: skip
    assert not found.params.weights[:, 32:].any()
    np.testing.assert_allclose(found.params.weights[:, :32], direct.params.weights, atol=1e-4)


def test_draws_are_balanced_nested_and_told_apart_by_the_seed():
    labels = np.random.default_rng(0).integers(0, 5, 200)
    for seed in range(3):
        four, eight = few_shot_rows(labels, 4, seed), few_shot_rows(labels, 8, seed)
        assert np.bincount(labels[eight]).tolist() == [8] * 5
        assert set(four) < set(eight)
    assert set(few_shot_rows(labels, 4, 0)) != set(few_shot_rows(labels, 4, 1))
    with pytest.raises(ValueError, match="Class 1 has 1 training examples, fewer than the 2"):
        few_shot_rows(np.array([0, 0, 1]), 2, 0)


def test_coarse_to_fine_walks_to_the_peak_at_eight_steps_a_decade():
    tried = []

    def evaluate(strengths, near):
        tried.extend(strengths)
        return [
            FittedHead(Head(s), None, "done", validation_accuracy=-abs(np.log10(s) - 1.3))
            for s in strengths
        ]

    def highest(fitted):
        return int(np.argmax([found.validation_accuracy for found in fitted]))

    found = coarse_to_fine(evaluate, np.logspace(-6, 6, 7), highest)
    # The peak is at 1.3: the coarse best is 2, then 1 is better, then 1.5, then 1.25 of these.
    around = [1, 3, 0.5, 1.5, 1.25, 1.75, 1.125, 1.375]
    np.testing.assert_allclose(np.log10(tried[7:]), around, atol=1e-9)
    best = found[highest(found)].head.strength
    assert np.log10(best) == pytest.approx(1.25)
    np.testing.assert_allclose(np.log10(best) * 8, round(np.log10(best) * 8), atol=1e-6)
    assert len(tried) == 7 + 8
    assert [f.head.strength for f in found] == sorted(f.head.strength for f in found)


def test_what_a_solver_does_not_know_is_refused(digits):
    data, _, statistics = digits
    options = dict(classes=10, statistics=statistics)
    with pytest.raises(ValueError, match="has no step size"):
        solve(grid([1.0], step_sizes=[0.1]), data, **options)
    with pytest.raises(ValueError, match="more than one seed"):
        solve(grid([1.0], seeds=[0, 1]), data, **options)
