"""Standard errors are those of tables that can be worked out on paper, or are refused."""

import warnings

import numpy as np
import pytest

from jaxlin.estimators import SoftmaxClassifier

# how often each class was seen in either group
TABLE = np.array([[12.0, 7.0, 9.0], [5.0, 14.0, 6.0]])


def fitted(X, y, counts=None, **settings):
    with warnings.catch_warnings(action="ignore"):  # without a penalty no gap is proved
        return SoftmaxClassifier(C=np.inf, tol=1e-9, **settings).fit(X, y, sample_weight=counts)


def cells(table):
    """A row for each cell of a table: its group, its class, and how often it was seen."""
    group, label = (part.ravel() for part in np.indices(table.shape))
    return group[:, None].astype(float), label, table.ravel()


@pytest.mark.parametrize("how", ["weights", "repeated"])
def test_two_groups_and_two_classes_have_woolfs_errors(how):
    """Of a log odds ratio sqrt(1/a + 1/b + 1/c + 1/d), of log odds sqrt(1/a + 1/b): Woolf, 1955."""
    X, y, counts = cells(TABLE[:, :2])
    if how == "repeated":
        rows = np.repeat(np.arange(4), counts.astype(int))
        X, y, counts = X[rows], y[rows], None
    errors = fitted(X, y, counts).standard_errors(X, y, counts)
    np.testing.assert_allclose(errors.coef, [[np.sqrt((1 / TABLE[:, :2]).sum())]], rtol=1e-5)
    np.testing.assert_allclose(errors.intercept, [np.sqrt((1 / TABLE[0, :2]).sum())], rtol=1e-5)


def test_of_three_classes_each_has_that_of_its_lead_over_the_mean():
    """log n_k - mean of log n_j, of independent counts of variance n (the multinomial's constraint
    drops out of differences): var = (1 - 2/K) / n_k + sum_j 1 / n_j / K^2, in each group."""
    X, y, counts = cells(TABLE)
    errors = fitted(X, y, counts).standard_errors(X, y, counts)
    variances = (1 - 2 / 3) / TABLE + (1 / TABLE).sum(1, keepdims=True) / 9
    np.testing.assert_allclose(errors.intercept, np.sqrt(variances[0]), rtol=1e-5)
    np.testing.assert_allclose(errors.coef[:, 0], np.sqrt(variances.sum(0)), rtol=1e-5)


@pytest.mark.parametrize("free", [True, False])
def test_two_classes_have_the_inverse_of_the_information(free):
    """Whatever the features' units; the information is summed row by row."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 3)) * [1.0, 1e3, 1e-3] + [0.0, 5e3, 0.0]
    y = (X[:, 0] + 0.5 * rng.normal(size=80) > 0).astype(int) ^ (rng.random(80) < 0.2)
    model = fitted(X, y, fit_intercept=free)
    information = 0.0
    for row in X:
        p = 1 / (1 + np.exp(-(model.coef_[0] @ row + model.intercept_[0])))
        row = np.append(row, 1.0) if free else row
        information = information + p * (1 - p) * np.outer(row, row)
    units = np.sqrt(np.diag(information))
    inverse = np.linalg.inv(information / np.outer(units, units)) / np.outer(units, units)
    errors = model.standard_errors(X, y)
    # the information's condition number, 1e6 or so in unit scale, times 2^-53, is far below this
    np.testing.assert_allclose(errors.coef[0], np.sqrt(np.diag(inverse))[:3], rtol=1e-7)
    expected = np.sqrt(inverse[3, 3]) if free else 0.0
    np.testing.assert_allclose(errors.intercept, [expected], rtol=1e-7)


def test_what_has_none_is_refused_with_the_reason():
    X, y, counts = cells(TABLE)
    rows = np.repeat(np.arange(6), counts.astype(int))
    X, y = X[rows], y[rows]
    with pytest.raises(ValueError, match=r"A penalty \(C=1\) pulls coefficients towards zero"):
        SoftmaxClassifier().fit(X, y).standard_errors(X, y)
    with pytest.raises(ValueError, match="`class_weight` counts rows for what they are not"):
        fitted(X, y, class_weight="balanced").standard_errors(X, y)
    model = fitted(X, y)
    with pytest.raises(ValueError, match="not where these rows are likeliest, but"):
        model.standard_errors(X, (y + 1) % 3)
    twice = np.hstack([X, 2 * X + 1])
    with pytest.raises(ValueError, match="The features depend on one another"):
        fitted(twice, y).standard_errors(twice, y)
    apart = X + 10.0 * (y == 2)[:, None]
    with pytest.raises(ValueError, match="larger coefficients are always likelier"):
        fitted(apart, y).standard_errors(apart, y)
