"""Dual points that were balanced: still in their loss's set, and without residual in any class."""

import numpy as np
import pytest

from jaxlin.solvers.balance import WIDE, balanced_bias, feasible, mixed, mixing_that_balances
from jaxlin.solvers.dual_losses import FORMS, Block, form_of, own_of


def sums_of(xp, form, block):
    return lambda f, *arguments: f(xp, form, block, *arguments)


@pytest.mark.parametrize("classes", [5, WIDE + 30])
@pytest.mark.parametrize("name", sorted(FORMS))
@pytest.mark.parametrize("shift_first", [True, False])
def test_the_mass_that_is_moved_balances_and_stays_feasible(name, classes, shift_first):
    generator = np.random.default_rng(4)
    form, size = form_of(name), 6 * classes
    labels = np.arange(size) % classes
    own = own_of(np, labels, classes)
    scores = generator.normal(size=(classes, size)) + 2.0 * own
    counts = generator.uniform(0.5, 1.5, size)
    counts = counts / counts.sum()
    masses = np.bincount(labels, counts)
    block = Block(scores, labels, counts, smoothing=0.3)
    sums, shift = sums_of(np, form, block), np.zeros(classes)
    if shift_first:
        shift = balanced_bias(np, form, sums, masses, dtype=scores.dtype)
    mixing = mixing_that_balances(np, form, sums, shift)
    a, _ = feasible(np, form, block, shift)
    a = mixed(np, form, a, labels, own, mixing)
    # the sets of the table in `jaxlin.solvers.dual_losses`, up to the rounding of K numbers near 1
    slack = 1e-12
    assert a.min() >= 0
    if form.geometry == "pairs":
        assert np.all(a[own] == 0)
    if name == "softmax":
        np.testing.assert_allclose(a.sum(0), 1, atol=slack)
    if name in ("hinge", "one-vs-rest"):
        assert a.max() <= 1 + slack
    if name == "crammer-singer":
        assert a.sum(0).max() <= 1 + slack
    off = form.residuals(np, a, own) @ counts
    assert np.abs(off).max() <= 1e-9  # beyond which a trivial dual point is taken
    assert (counts * a).sum() > 0.05  # and this is not the trivial one


@pytest.mark.parametrize("name", ["hinge", "crammer-singer"])
def test_biases_are_not_shifted_together_by_rounding(name):
    """A common shift changes no loss, but adds up over steps until scores lose their digits."""
    generator = np.random.default_rng(2)
    form, size = form_of(name), 400
    labels = np.arange(size) % 10
    scores = generator.normal(size=(10, size)).astype(np.float32)
    counts = np.full(size, 1 / size, np.float32)
    common = 0.0
    for _ in range(20):
        drift = 0.1 * generator.normal(size=10)
        scores += (drift - drift.mean()).astype(np.float32)[:, None]
        sums = sums_of(np, form, Block(scores, labels, counts, smoothing=0.3))
        masses = np.bincount(labels, counts)
        shift = balanced_bias(np, form, sums, masses, dtype=scores.dtype, steps=2)
        scores += shift.astype(np.float32)[:, None]
        common += shift.mean()
    assert abs(common) < 1e-12  # 20 sums of 10 numbers below 1 in float64
