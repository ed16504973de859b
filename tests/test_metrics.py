"""Metrics against scikit-learn, SciPy and values on paper."""

import ml_dtypes
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


NAN = np.nan
BROKEN = np.array([[NAN, NAN, NAN], [0.2, NAN, 0.1], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_scores_that_are_not_numbers_are_never_right(dtype):
    # rows: all NaN, NaN beside the label, right, right
    scores, labels = BROKEN.astype(dtype), np.array([0, 0, 2, 0])
    assert metrics.predicted_classes(scores).tolist() == [-1, -1, 2, 0]
    assert metrics.accuracy(scores, labels) == 0.5
    assert [metrics.top_k_accuracy(scores, labels, k=k) for k in (1, 2, 3)] == [0.5, 0.5, 0.5]
    np.testing.assert_array_equal(metrics.per_class_accuracy(scores, labels), [1 / 3, NAN, 1])
    assert metrics.mean_per_class_accuracy(scores, labels)[0] == pytest.approx((1 / 3 + 1) / 2)
    assert metrics.confusion_matrix(scores, labels).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_calibration_is_that_of_the_rows_that_have_a_confidence():
    # .7 and .5, both right, in bins of their own: (.3 + .5) / 2
    assert metrics.expected_calibration_error(BROKEN, [0, 0, 2, 0]) == pytest.approx(0.4)
    assert np.isnan(metrics.expected_calibration_error(BROKEN[:2], [0, 0]))


@pytest.mark.parametrize("name", ["accuracy", "top_k_accuracy", "per_class_accuracy", "log_loss",
                                  "mean_per_class_accuracy", "confusion_matrix",
                                  "expected_calibration_error"])  # fmt: skip
def test_labels_that_fit_no_scores_are_one_sentence(name, finished):
    scores, labels = finished
    shares, metric = scipy.special.softmax(scores, axis=1), getattr(metrics, name)
    for wrong in (7, -1):
        labels[3] = wrong
        with pytest.raises(ValueError, match=rf"integers in \[0, 7\).*got {wrong} at row 3"):
            metric(shares, labels)
    with pytest.raises(ValueError, match=r"one entry per row.*\(60,\), got \(59,\)"):
        metric(shares, labels[1:])
    with pytest.raises(TypeError, match="must be integer classes, got float64"):
        metric(shares, labels / 1.0)
    with pytest.raises(ValueError, match=r"must be \(N, K\).*got shape \(60,\)"):
        metric(shares[:, 0], labels)
    with pytest.raises(ValueError, match="is empty: nothing can be said of no examples"):
        metric(shares[:0], labels[:0])


def test_log_loss_of_what_is_no_probability_is_refused():
    with pytest.raises(ValueError, match=r"got nan at row 0 \(2 such rows\)"):
        metrics.log_loss(BROKEN, [0, 0, 2, 0])
