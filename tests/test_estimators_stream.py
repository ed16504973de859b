"""Learning from blocks: those that weigh nothing change nothing, and none balances the classes."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.utils.class_weight import compute_class_weight

from jaxlin.estimators import MulticlassSVMClassifier, SoftmaxClassifier

X, Y = load_iris(return_X_y=True)
BOTH = pytest.mark.parametrize("cls", [SoftmaxClassifier, MulticlassSVMClassifier])
WEIGHTLESS = [
    ({}, np.zeros(50)),
    ({}, [0.0] * 50),
    ({}, 0.0),
    ({"class_weight": {0: 0.0}}, None),
]


def state(model):
    """All that was learned."""
    learned = {name: value for name, value in vars(model).items() if name.endswith("_")}
    return {**learned, "stream": getattr(model, "_stream", None)}


@BOTH
@pytest.mark.parametrize(("settings", "weights"), WEIGHTLESS, ids=["array", "list", "0", "class"])
def test_a_block_that_weighs_nothing_changes_nothing(cls, settings, weights):
    model = cls(random_state=0, **settings).partial_fit(X, Y, classes=[0, 1, 2])
    before = state(model)
    model.partial_fit(X[:50], Y[:50], sample_weight=weights)
    np.testing.assert_equal(state(model), before)
    assert np.isfinite(model.C_)


@BOTH
def test_a_proof_survives_a_block_that_weighs_nothing(cls):
    model = cls().fit(X, Y)
    gap = model.gap_
    assert model.partial_fit(X, Y, sample_weight=np.zeros(150)).gap_ == gap


@BOTH
@pytest.mark.parametrize("setting", [{}, {"C": 0.1}, {"strength": 0.01}, {"strength": 0.0}])
@pytest.mark.parametrize(("settings", "weights"), WEIGHTLESS, ids=["array", "list", "0", "class"])
def test_a_first_block_that_weighs_nothing_leaves_all_to_the_next(cls, setting, settings, weights):
    later = cls(random_state=0, **setting, **settings)
    later.partial_fit(X[:50], Y[:50], classes=[0, 1, 2], sample_weight=weights)
    assert not np.isnan([later.C_, later.strength_]).any()
    assert not later.coef_.any()
    assert later.predict(X).shape == (150,)
    later.partial_fit(X, Y)
    at_once = cls(random_state=0, **setting, **settings).partial_fit(X, Y, classes=[0, 1, 2])
    np.testing.assert_array_equal(later.coef_, at_once.coef_)
    assert (later.C_, later.strength_) == (at_once.C_, at_once.strength_)


@BOTH
def test_rows_next_to_nothing_change_next_to_nothing(cls):
    """A last block of rows of weight 1e-310, which XLA takes for 0: it was a step of 0 / 0."""
    few = np.r_[np.ones(64), np.full(86, 1e-310)]
    faint = cls(random_state=0).partial_fit(X, Y, classes=[0, 1, 2], sample_weight=few)
    assert np.isfinite(faint.coef_).all()


def test_a_block_that_weighs_nothing_is_checked_all_the_same():
    model = SoftmaxClassifier().partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="sample_weight"):
        model.partial_fit(X, Y, sample_weight=np.zeros(7))
    with pytest.raises(ValueError, match="not in classes"):
        model.partial_fit(X, Y + 5, sample_weight=np.zeros(150))
    with pytest.raises(ValueError, match="non-zero"):
        model.fit(X, Y, np.zeros(150))
    with pytest.raises(ValueError, match="no row counts"):
        SoftmaxClassifier(class_weight={0: 0.0}).fit(X, Y, Y == 0)


@BOTH
def test_a_block_balances_no_classes(cls):
    """Its share of a class is not that of all; in `fit` the weights are those of all rows."""
    with pytest.raises(
        ValueError, match="class_weight 'balanced' is not supported for partial_fit"
    ):
        cls(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])
    few = np.r_[0:10, 50:150]
    masses = compute_class_weight("balanced", classes=np.arange(3), y=Y[few])
    known = dict(enumerate(masses))
    model = cls(class_weight=known, random_state=0).partial_fit(X[few], Y[few], classes=[0, 1, 2])
    weighted = cls(random_state=0)
    weighted.partial_fit(X[few], Y[few], classes=[0, 1, 2], sample_weight=masses[Y[few]])
    np.testing.assert_array_equal(model.coef_, weighted.coef_)


@pytest.mark.parametrize("cls", [SoftmaxClassifier, MulticlassSVMClassifier])
def test_rows_whose_squares_overflow_are_refused_and_leave_what_was_learned(cls):
    inputs, labels = load_iris(return_X_y=True)
    model = cls().partial_fit(inputs, labels, classes=[0, 1, 2])
    before = model.coef_.copy()
    with pytest.raises(ValueError, match="squares overflow in float64"):
        model.partial_fit(1e200 * inputs, labels)
    np.testing.assert_array_equal(model.coef_, before)
