"""The paired comparison: by scipy's test, by counting, by simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest

from jaxlin.sweep.mcnemar import compare, p_value_in_words
from jaxlin.sweep.selection import pareto


def test_the_test_is_the_binomial_one_on_the_differing_examples():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 500)
    first = np.where(rng.random(500) < 0.8, labels, (labels + 1) % 4)
    second = np.where(rng.random(500) < 0.7, labels, (labels + 2) % 4)
    found = compare(first, second, labels)
    only_first = sum(a == y != b for a, b, y in zip(first, second, labels, strict=True))
    only_second = sum(b == y != a for a, b, y in zip(first, second, labels, strict=True))
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.p_value == binomtest(only_first, only_first + only_second).pvalue
    assert found.difference == pytest.approx(found.first_accuracy - found.second_accuracy)
    assert found.interval[0] < found.difference < found.interval[1]


def test_mcnemar_worked_out_on_paper():
    # 1 against 5: P(at most 1 or at least 5 of 6) = 2 * (1 + 6) / 64
    labels = np.zeros(20, int)
    first, second = np.zeros(20, int), np.zeros(20, int)
    first[:5], second[5] = 1, 1
    assert compare(first, second, labels).p_value == pytest.approx(14 / 64)
    assert compare(first, first, labels).p_value == 1


def test_the_interval_covers_the_true_difference():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        kind = rng.choice(3, 60, p=[0.15, 0.05, 0.8])  # only first, only second, both
        found = compare(kind == 1, kind == 0, np.zeros(60, bool))
        covered += found.interval[0] <= 0.1 <= found.interval[1]
    # 95 % of 2,000 with a standard error of 10; adjusted intervals err on the wide side.
    assert covered >= 1870


def test_what_is_no_pair_is_refused():
    with pytest.raises(ValueError, match="one entry per example"):
        compare([0, 1], [0], [0, 1])
    with pytest.raises(ValueError, match="one entry per example"):
        compare([], [], [])


def test_pareto_is_that_of_comparing_all_pairs():
    rng = np.random.default_rng(0)
    accuracy, cost = rng.integers(0, 9, 40) / 9, rng.integers(1, 9, 40) * 1.0
    front = pareto(accuracy, cost)
    beaten = [
        any((accuracy[j] >= accuracy[i]) & (cost[j] <= cost[i])
            & ((accuracy[j] > accuracy[i]) | (cost[j] < cost[i])) for j in range(40))
        for i in range(40)
    ]  # fmt: skip
    assert not any(beaten[i] for i in front)
    points = {(accuracy[i], cost[i]) for i in range(40) if not beaten[i]}
    assert {(accuracy[i], cost[i]) for i in front} == points


def test_no_chance_is_said_to_be_nothing():
    right, wrong = np.zeros(2000, int), np.ones(2000, int)
    found = compare(right, wrong, right)  # 2 / 2**2000 is no float64
    assert found.p_value == 0
    assert p_value_in_words(found.p_value) == "p < 1e-300"
    assert p_value_in_words(compare(right[:5], wrong[:5], right[:5]).p_value) == "p = 0.0625"
