"""The lecture's calculus against paper, SciPy, scikit-learn, autodiff and its own loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from sklearn.metrics import hinge_loss, log_loss

from jaxlin import LinearParams
from jaxlin.gradients import closed_form, linear_objective
from jaxlin.losses import LOSSES

FORMULAS = {
    "softmax": closed_form.softmax,
    "hinge": closed_form.weston_watkins,
    "crammer-singer": closed_form.crammer_singer,
    "one-vs-rest": closed_form.one_vs_rest,
}
each_formula = pytest.mark.parametrize("name", FORMULAS)


@pytest.fixture
def case():
    rng = np.random.default_rng(231)
    weights, bias = rng.normal(size=(4, 6)), rng.normal(size=4)
    return weights, bias, rng.normal(size=(9, 6)), rng.integers(0, 4, 9)


@each_formula
def test_value_and_gradient_are_those_of_the_objective(name, case):
    _weights, _bias, inputs, labels = case
    objective = linear_objective(LOSSES[name], (inputs, labels, None), strength=0.3)
    value, gradient = jax.value_and_grad(objective)(LinearParams(*map(jnp.asarray, case[:2])))
    by_hand = FORMULAS[name](*case, strength=0.3)
    np.testing.assert_allclose(by_hand.value, value, rtol=1e-13)
    np.testing.assert_allclose(by_hand.weights, gradient.weights, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(by_hand.bias, gradient.bias, rtol=1e-12, atol=1e-14)


@each_formula
def test_gradient_in_the_data_is_a_difference_quotient(name, case):
    weights, bias, inputs, labels = case
    by_hand = FORMULAS[name](*case).inputs.ravel()

    def value(flat):
        return FORMULAS[name](weights, bias, flat.reshape(inputs.shape), labels).value

    numeric = scipy.optimize.approx_fprime(inputs.ravel(), value, 1e-7)
    # h * curvature, below 1e-7 * |w|^2 / N, and rounding 1e-16 / 1e-7 = 1e-9
    np.testing.assert_allclose(by_hand, numeric, atol=3e-7)


@pytest.mark.parametrize(
    ("loops", "vectorized"),
    [
        (closed_form.softmax_loops, closed_form.softmax),
        (closed_form.weston_watkins_loops, closed_form.weston_watkins),
    ],
)
def test_loops_and_vectors_say_the_same(loops, vectorized, case):
    for a, b in zip(loops(*case, strength=0.1), vectorized(*case, strength=0.1), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


def test_values_are_scikit_learns(case):
    weights, bias, inputs, labels = case
    scores = inputs @ weights.T + bias
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        closed_form.softmax(*case).value, log_loss(labels, p, labels=range(4)), rtol=1e-12
    )
    np.testing.assert_allclose(  # scikit-learn's multiclass hinge is Crammer and Singer's
        closed_form.crammer_singer(*case).value,
        hinge_loss(labels, scores, labels=range(4)),
        rtol=1e-12,
    )


def test_hinge_rows_are_the_ones_of_the_lecture():
    x, y = np.array([2.0, 3.0]), 1
    weights = np.array([[1.0, 0.0], [0.0, 1.0], [-5.0, 0.0]])  # scores 2, 3, -10; margins 0, -12
    gradient = closed_form.weston_watkins(weights, None, [x], [y], margin=2.0)
    # margins 2 - 3 + 2 = 1 > 0 and -10 - 3 + 2 < 0: one violation
    np.testing.assert_array_equal(gradient.weights, [x, -x, 0 * x])
    assert gradient.value == 1.0


def test_a_margin_of_exactly_zero_does_not_count():
    gradient = closed_form.weston_watkins(np.zeros((3, 2)), None, [[1.0, 2.0]], [0], margin=0.0)
    np.testing.assert_array_equal(gradient.weights, 0)


def test_the_bias_trick_gives_the_bias_as_last_column(case):
    weights, bias, inputs, labels = case
    folded = closed_form.softmax(
        np.column_stack([weights, bias]), None, np.column_stack([inputs, np.ones(9)]), labels
    )
    apart = closed_form.softmax(*case)
    np.testing.assert_allclose(folded.weights[:, -1], apart.bias, rtol=1e-13)
    assert folded.bias is None


def test_labels_of_another_length_are_refused(case):
    with pytest.raises(ValueError, match="`labels` must be 9 integers"):
        closed_form.softmax(*case[:3], case[3][:5])


@pytest.mark.parametrize("formula", [name for name in closed_form.__all__ if name[0].islower()])
@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_refused_with_their_row(formula, label):
    with pytest.raises(ValueError, match=rf"integers in \[0, 3\), got {label} at row 1"):
        getattr(closed_form, formula)(np.ones((3, 2)), None, np.ones((2, 2)), np.array([0, label]))
