"""Metrics against scikit-learn, SciPy and values on paper."""

import numpy as np
import pytest
import scipy.special
from scipy.stats import binomtest
from sklearn import metrics as theirs

from jaxlin import metrics


@pytest.fixture
def finished():
    rng = np.random.default_rng(9)
    return rng.normal(size=(60, 7)), rng.integers(0, 7, 60)


def test_accuracy_confusion_and_per_class_are_those_of_scikit_learn(finished):
    scores, labels = finished
    guesses = scores.argmax(axis=1)
    assert metrics.accuracy(scores, labels) == theirs.accuracy_score(labels, guesses)
    matrix = metrics.confusion_matrix(scores, labels)
    np.testing.assert_array_equal(matrix, theirs.confusion_matrix(labels, guesses))
    recall = theirs.recall_score(labels, guesses, average=None)
    np.testing.assert_allclose(metrics.per_class_accuracy(scores, labels), recall)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_top_k_is_the_one_of_scikit_learn(finished, k):
    ours = metrics.top_k_accuracy(*finished, k=k)
    assert ours == theirs.top_k_accuracy_score(finished[1], finished[0], k=k)


def test_constant_scores_know_nothing_in_top_k():
    assert metrics.top_k_accuracy(np.zeros((5, 3)), np.arange(5) % 3, k=2) == 0.0


def test_top_k_beyond_the_classes_is_refused(finished):
    with pytest.raises(ValueError, match="`k` must be between 1 and the 7 classes, got 8"):
        metrics.top_k_accuracy(*finished, k=8)


def test_log_loss_is_the_mean_of_minus_log_probability(finished):
    scores, labels = finished
    shares = scipy.special.softmax(scores, axis=1)
    on_paper = -np.mean([np.log(row[y]) for row, y in zip(shares, labels, strict=True)])
    assert metrics.log_loss(shares, labels) == pytest.approx(on_paper, rel=1e-12)


def test_calibration_error_of_two_bins_is_the_one_on_paper():
    # Confidences .6 (right, wrong), .9 (right): |.6 - .5| * 2/3 + |.9 - 1| * 1/3 = .1.
    shares = np.array([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1]])
    error = metrics.expected_calibration_error(shares, [0, 1, 0], bins=10)
    assert error == pytest.approx(0.1)


@pytest.mark.parametrize(("right", "trials"), [(0, 10), (7, 10), (10, 10), (3945, 10_000)])
def test_wilson_interval_is_the_one_of_scipy(right, trials):
    interval = binomtest(right, trials).proportion_ci(method="wilson")
    # The normal quantile is given to seven digits.
    np.testing.assert_allclose(metrics.wilson_interval(right / trials, trials), interval, atol=1e-7)
