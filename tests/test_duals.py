"""The losses as the solvers evaluate them, beside `jaxlin.losses` and exact numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin import losses
from jaxlin.solvers.dual_losses import FORMS, form_of, own_of

FUNCTIONS = {
    "softmax": losses.softmax_cross_entropy,
    "squared-hinge": losses.squared_weston_watkins_hinge,
    "squared-one-vs-rest": losses.squared_one_vs_rest_hinge,
}


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.smooth])
@pytest.mark.parametrize("classes", [2, 5, 40])
@pytest.mark.parametrize("xp", [np, jnp])
def test_a_smooth_loss_and_its_residuals_are_those_of_jax(name, classes, xp):
    generator = np.random.default_rng(classes)
    scores = 3 * generator.normal(size=(classes, 30))
    labels = generator.integers(0, classes, 30)
    own = own_of(xp, xp.asarray(labels), classes)
    values, residuals = form_of(name).loss_and_residuals(xp, xp.asarray(scores), own, 1.0)
    function = FUNCTIONS[name]
    expected = [function(jnp.asarray(scores.T[i]), labels[i]) for i in range(30)]
    slopes = [jax.grad(function)(jnp.asarray(scores.T[i]), labels[i]) for i in range(30)]
    # a few dozen operations on numbers of order 10
    assert np.allclose(values, expected, rtol=1e-13, atol=1e-14)
    assert np.allclose(residuals, np.array(slopes).T, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("xp", [np, jnp])
def test_softmax_keeps_its_digits_where_the_true_class_wins_or_loses_by_far(xp):
    scores = xp.asarray([[50.0, 0.0], [0.0, 800.0], [10.0, 0.0]])
    own = own_of(xp, xp.asarray([0, 0]), 3)
    values, residuals = form_of("softmax").loss_and_residuals(xp, scores, own, 1.0)
    # on paper: log(1 + e^-50 + e^-40) = e^-40 (1 + e^-10) up to e^-80; 800 + log(1 + 2 e^-800)
    small = np.exp(-40) * (1 + np.exp(-10))
    assert np.allclose(values, [small, 800.0], rtol=1e-14)
    expected = [[-small, -1.0], [np.exp(-50), 1.0], [np.exp(-40), 0.0]]
    assert np.allclose(residuals, expected, rtol=1e-13, atol=0)
