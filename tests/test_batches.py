"""Epochs are permutations that depend on key and epoch alone; padding weighs nothing."""

import jax
import numpy as np
import pytest

from jaxlin.batches import epoch_order, epoch_plan, steps_per_epoch

KEY = jax.random.key(0)


@pytest.mark.parametrize("examples", [1, 2, 7, 1000])
def test_an_epoch_visits_every_example_once(examples):
    np.testing.assert_array_equal(np.sort(epoch_order(KEY, 0, examples)), np.arange(examples))


def test_order_depends_on_key_and_epoch_alone():
    np.testing.assert_array_equal(epoch_order(KEY, 4, 50), epoch_order(jax.random.key(0), 4, 50))
    assert not np.array_equal(epoch_order(KEY, 4, 50), epoch_order(KEY, 5, 50))
    assert not np.array_equal(epoch_order(KEY, 4, 50), epoch_order(jax.random.key(1), 4, 50))


def test_order_is_pinned():
    # A change of this value means that seeds no longer reproduce the runs of earlier versions.
    assert epoch_order(KEY, 0, 8).tolist() == [5, 3, 2, 7, 4, 6, 0, 1]


@pytest.mark.parametrize("examples", [1, 7, 8, 9])
def test_padding_fills_the_last_batch_with_weight_zero(examples):
    plan = epoch_plan(KEY, 0, examples, 8)
    assert plan.rows.shape == plan.weights.shape == (steps_per_epoch(examples, 8), min(8, examples))
    assert plan.weights.sum() == examples
    np.testing.assert_array_equal(np.sort(plan.rows[plan.weights == 1]), np.arange(examples))


def test_a_batch_larger_than_the_data_is_the_full_batch():
    assert epoch_plan(KEY, 0, 5, 256).rows.shape == (1, 5)


def test_first_positions_are_uniform():
    # 2,000 epochs of 4 examples: each comes first 500 times, standard deviation 19.4; 5 of them.
    firsts = np.bincount([epoch_order(KEY, epoch, 4)[0] for epoch in range(2000)], minlength=4)
    assert np.abs(firsts - 500).max() < 97
