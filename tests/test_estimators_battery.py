"""scikit-learn's own checks of an estimator: every one passes, none is expected to fail."""

import warnings

import jax
from sklearn.utils.estimator_checks import parametrize_with_checks

from jaxlin.estimators import (
    MulticlassSVMClassifier,
    MulticlassSVMClassifierCV,
    SoftmaxClassifier,
    SoftmaxClassifierCV,
)
from jaxlin.losses import LOSSES

HINGES = tuple(name for name in LOSSES if name != "softmax")
SMALL = {"Cs": [0.1, 1.0], "cv": 3}


@parametrize_with_checks(
    [
        SoftmaxClassifier(),
        SoftmaxClassifier(strength=1e-2, tol=1e-6),
        *(MulticlassSVMClassifier(loss=loss) for loss in HINGES),
        SoftmaxClassifierCV(**SMALL),
        MulticlassSVMClassifierCV(**SMALL),
    ]
)
def test_in_float64(estimator, check):
    run(estimator, check)


@parametrize_with_checks([SoftmaxClassifier(), MulticlassSVMClassifier()])
def test_in_float32(estimator, check):
    """JAX's default; float64 data must be computed in float64 all the same."""
    with jax.enable_x64(False):
        run(estimator, check)


def run(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks' data are made to be awkward
        check(estimator)
