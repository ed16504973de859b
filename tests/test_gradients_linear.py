"""`linear_objective`: labels whose values are known are checked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin.core import Batch
from jaxlin.gradients import check_gradient, finite_differences, linear_objective
from jaxlin.losses import softmax_cross_entropy, weston_watkins_hinge

INPUTS = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]])


@pytest.mark.parametrize("loss", [softmax_cross_entropy, weston_watkins_hinge])
def test_a_label_below_the_classes_is_refused_with_its_row(loss):
    with pytest.raises(ValueError, match=r"`labels` must be integers in \[0, K\), got -1 at row 1"):
        linear_objective(loss, Batch(INPUTS, np.array([0, -1, 1])))


@pytest.mark.parametrize("label", [3, 2**32])  # 2^32 is 0 in 32 bits
def test_a_label_beyond_the_classes_is_refused_wherever_it_would_be_used(label):
    objective = linear_objective(softmax_cross_entropy, Batch(INPUTS, np.array([0, 1, label])))
    x = jnp.ones((3, 2))
    uses = [
        objective,
        jax.grad(objective),
        jax.jit(lambda w: objective(w)),
        lambda x: check_gradient(objective, x),
        lambda x: check_gradient(objective, x, mode="full"),
        lambda x: finite_differences.gradient(objective, x),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=rf"integers in \[0, 3\), got {label} at row 2"):
            use(x)


def test_a_row_of_weight_zero_may_have_any_label():
    x, masked = jnp.ones((3, 2)), np.array([1.0, 0.0, 1.0])
    objective = linear_objective(softmax_cross_entropy, Batch(INPUTS, np.array([0, -1, 2]), masked))
    without = linear_objective(softmax_cross_entropy, Batch(INPUTS[[0, 2]], np.array([0, 2])))
    assert objective(x) == pytest.approx(float(without(x)))
    assert check_gradient(objective, x).verdict == "pass"
