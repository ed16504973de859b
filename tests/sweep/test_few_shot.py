"""Banks of few-shot draws: the heads of one-by-one fits, resumed anywhere, whatever the shape."""

import json
from functools import partial

import jax
import numpy as np
import pytest

from jaxlin import preprocess
from jaxlin.core import Batch
from jaxlin.sweep import Subset, few_shot, grid, solve
from jaxlin.sweep.full_batch import few_shot_rows

STRENGTHS = [1e-4, 1e-2, 1.0]


@pytest.fixture(scope="module")
def digits(digits_of):
    return digits_of(600, 200)


@pytest.fixture(scope="module")
def solver(digits):
    data, validation, statistics = digits
    return partial(
        solve, data=data, validation=validation, classes=10, statistics=statistics, tolerance=1e-4
    )


def heads_of(**more):
    return grid(STRENGTHS, **{"seeds": range(5), "shots": [2, 8]} | more)


@pytest.fixture(scope="module")
def whole(solver):
    """The bank's heads, and the order in which they were told."""
    told = []
    fitted = solver(heads_of(), on_fitted=lambda found, make: told.append((found, make())))
    return fitted, told


def test_a_bank_is_its_heads_one_by_one(solver, whole, monkeypatch):
    """20 rows are solved in their span and 80 in all 64 columns, padded to one shape."""
    fitted, _ = whole
    monkeypatch.setattr(few_shot, "FEWEST", 1000)
    for found, alone in zip(fitted, solver(heads_of()), strict=True):
        assert found.head == alone.head
        assert found.status == alone.status == "done"
        assert 0 <= found.relative_gap <= 1e-4
        # the optimum lies within either's certified interval
        apart = abs(found.objective - alone.objective)
        assert apart <= 1e-4 * max(found.objective, alone.objective)
        bound = 2 * (1e-4 * found.objective / found.head.strength) ** 0.5
        assert np.linalg.norm(found.params.weights - alone.params.weights) <= bound
        assert abs(found.validation_accuracy - alone.validation_accuracy) <= 0.02  # 4 of 200
    assert solver.keywords["data"].inputs.shape[1] == fitted[0].params.weights.shape[1]


def test_the_objective_is_that_of_the_draws_examples(digits, whole):
    data, validation, statistics = digits
    for found in whole[0][::7]:
        rows = few_shot_rows(data.labels, found.head.shots, found.head.seed)
        mapped = np.asarray(preprocess.apply(statistics, data.inputs[rows]), float)
        weights, bias = (np.asarray(part, float) for part in found.params)
        scores = mapped @ weights.T + bias
        losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(len(rows)), data.labels[rows]]
        value = losses.mean() + found.head.strength * (weights**2).sum()
        # weights are rounded to float32 after they were proved in the span of the rows
        assert found.objective == pytest.approx(value, rel=1e-5)
        scores = np.asarray(preprocess.apply(statistics, validation.inputs)) @ weights.T + bias
        right = np.mean(scores.argmax(1) == validation.labels)
        assert found.validation_accuracy == pytest.approx(right)


@pytest.mark.parametrize("count", [4, 13, 29])
def test_a_bank_that_was_left_goes_on_bit_for_bit(solver, whole, count):
    """After 4 heads (within a strength), 13 (the next), and all but one."""
    fitted, told = whole
    known, later = [found for found, _ in told[:count]], []
    again = solver(heads_of(), known=known, on_fitted=lambda found, make: later.append(found))
    assert [f.head for f in later] == [found.head for found, _ in told[count:]]
    assert all(carried is None for _, carried in told)
    for one, other in zip(fitted, again, strict=True):
        assert one._replace(params=None) == other._replace(params=None)
        for a, b in zip(one.params, other.params, strict=True):
            assert np.array_equal(a, b)


def test_a_bank_that_exceeds_the_memory_is_solved_in_parts(solver, whole, monkeypatch):
    sizes, real = [], few_shot._solved
    monkeypatch.setattr(few_shot, "BYTES", 5 * 4 * 70_000 * 2 // 5)
    monkeypatch.setattr(
        few_shot, "_solved", lambda d, *a, **k: sizes.append(len(d)) or real(d, *a, **k)
    )
    fitted = solver(heads_of())
    assert max(sizes) < 5
    for one, other in zip(whole[0], fitted, strict=True):
        assert other.objective == pytest.approx(one.objective, rel=1e-4)


def test_a_head_that_the_bank_cannot_certify_goes_on_alone(solver, monkeypatch):
    monkeypatch.setattr(few_shot, "STEPS", 0)
    fitted = solver(heads_of(shots=[8], seeds=range(12)))
    assert all(found.status == "done" for found in fitted)
    assert all(found.relative_gap <= 1e-4 for found in fitted)


def test_subsets_and_losses_have_their_own_banks_and_hinges_none():
    subsets = [Subset("all"), Subset("half", ((0, 32),))]
    heads = grid(STRENGTHS, seeds=range(5), shots=[2], losses=["softmax", "hinge"], subsets=subsets)
    banks = few_shot.banks_of(heads, "l2")
    assert [len(bank) for bank in banks] == [15, 15]
    assert {heads[h].loss for bank in banks for h in bank} == {"softmax"}
    assert not few_shot.banks_of(heads, "l1")
    assert not few_shot.banks_of(heads[:10], "l2")
    assert not few_shot.banks_of(grid(np.logspace(-5, 0, 40), shots=[4]), "l2")  # a single draw


def test_small_problems_share_a_shape():
    heads = grid(STRENGTHS, seeds=range(5), shots=[1, 2, 40_000])
    banks = [[h for h in heads if h.shots == shots] for shots in (1, 2, 40_000)]
    data = Batch(np.zeros((100, 64)), np.arange(100) % 10)
    assert few_shot.shapes_of(banks, data, 10) == [(20, 20), (20, 20), (400_000, 64)]


def test_heads_of_float32_can_be_written_as_json(solver):
    """JAX's default precision, which the command line runs in and this suite does not."""
    heads = grid(STRENGTHS, seeds=range(10), shots=[2])
    with jax.enable_x64(False):
        fitted = solver(heads, dtype=np.float32)
    for found in fitted:
        json.dumps([found.objective, found.relative_gap, found.epochs, found.validation_loss])
