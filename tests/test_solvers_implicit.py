"""Derivatives of a fit: those of a closed form, of refits, and what the gradient check says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin.core import LinearParams
from jaxlin.losses import softmax_cross_entropy
from jaxlin.solvers import influence, minimize, minimize_compiled
from jaxlin.testing import assert_gradient

TIGHT = 1e-24
"""Relative gap below the rounding of float64: Newton's method goes on while it gains anything. The
parameters are then some 1e-12 from the optimum; so far, relatively, are their derivatives off."""


@pytest.fixture(scope="module")
def asked(blobs):
    """What a fit is asked, as a tree of arrays."""
    inputs, _ = blobs(size=24, features=3, classes=3)
    generator = np.random.default_rng(1)
    return {
        "inputs": jnp.asarray(inputs),
        "sample_weight": jnp.asarray(generator.uniform(0.5, 2, 24)),
        "strength": jnp.asarray(0.03),
        "margin": jnp.asarray(1.5),
        "offsets": jnp.asarray(0.3 * generator.normal(size=(24, 3))),
    }


LABELS = jnp.arange(24) % 3


def fit(asked, labels=LABELS, **settings):
    return minimize_compiled(labels=labels, classes=3, tolerance=TIGHT, **asked, **settings)


def of_validation(params):
    """A function of the parameters: the loss on other examples."""
    inputs, labels = jnp.asarray(np.random.default_rng(2).normal(size=(9, 3))), jnp.arange(9) % 3
    return softmax_cross_entropy(inputs @ params.weights.T + params.bias[None, :], labels).mean()


def outer(asked, labels=LABELS, share=1.0):
    found = fit(asked, labels)
    return of_validation(found.params) + share * found.objective


value_and_slope = jax.jit(jax.value_and_grad(outer))


def test_the_derivative_is_that_of_the_closed_form(asked):
    """With all rows within the margin, squared-one-vs-rest is (margin - t s)^2 = (s - t margin)^2:
    every class is a weighted ridge regression on its targets less its offsets."""
    asked = asked | {"margin": jnp.asarray(50.0), "strength": jnp.asarray(20.0)}
    generator = np.random.default_rng(3)
    probe = LinearParams(*map(jnp.asarray, (generator.normal(size=(3, 3)), np.ones(3))))

    def least_squares(asked):
        inputs, counts = asked["inputs"], asked["sample_weight"] / asked["sample_weight"].sum()
        signs = jnp.where(LABELS[:, None] == jnp.arange(3)[None, :], 1, -1)
        rows = jnp.concatenate([inputs, jnp.ones((len(inputs), 1))], 1)
        penalty = asked["strength"] * jnp.diag(jnp.array([1.0, 1.0, 1.0, 0.0]))
        right = rows.T @ (counts[:, None] * (signs * asked["margin"] - asked["offsets"]))
        solved = jnp.linalg.solve(rows.T @ (counts[:, None] * rows) + penalty, right)
        return LinearParams(solved[:3].T, solved[3])

    found, back = jax.vjp(lambda a: fit(a, loss="squared-one-vs-rest").params, asked)
    expected, expected_back = jax.vjp(least_squares, asked)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-9)
    for one, other in zip(*map(jax.tree.leaves, (back(probe), expected_back(probe))), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8 * np.abs(other).max())


def test_the_derivative_is_that_of_refits(asked):
    """Along a line, differences of order 4 at steps of 1e-3: off by some 1e-12 by their own, by
    1e-12 / 1e-3 by the refits."""
    generator = np.random.default_rng(4)
    along = jax.tree.map(lambda a: 0.1 * jnp.asarray(generator.normal(size=a.shape)), asked)

    def at(step):
        return value_and_slope(jax.tree.map(lambda a, d: a + step * d, asked, along))[0]

    expected = (8 * (at(1e-3) - at(-1e-3)) - (at(2e-3) - at(-2e-3))) / 12e-3
    _, slope = value_and_slope(asked)
    found = sum(map(jnp.vdot, jax.tree.leaves(slope), jax.tree.leaves(along)))
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    assert slope["margin"] == 0  # softmax has none


def test_the_gradient_check_passes_a_hypergradient(asked):
    _, slope = value_and_slope(asked)
    assert_gradient(jax.jit(outer), asked, slope)


def test_second_derivatives_are_right(asked):
    def slope(strength):
        return value_and_slope(asked | {"strength": strength})[1]["strength"]

    at = asked["strength"]
    expected = (slope(at + 1e-4) - slope(at - 1e-4)) / 2e-4
    # the third derivative times the step's square: (1e-4 / 0.03)^2
    np.testing.assert_allclose(jax.jit(jax.grad(slope))(at), expected, rtol=1e-4)


def test_a_class_that_no_row_has_stays(asked):
    """Its bias may not be differentiated: it is as low as it must be to win no row."""
    present = jnp.where(LABELS == 1, 0, LABELS)
    asked = asked | {"offsets": jnp.zeros((24, 3))}
    _, slope = value_and_slope(asked, present, 0.0)
    settings = {name: asked[name] for name in ("inputs", "sample_weight")}

    def expected(strength):
        found = minimize(labels=present, strength=strength, tolerance=1e-13, **settings).params
        return of_validation(found._replace(bias=np.where(np.arange(3) == 1, -1e3, found.bias)))

    # `minimize` is within 1e-6 of the optimum: over steps of 1e-3 the slope is off by 1e-3
    difference = (expected(0.031) - expected(0.029)) / 2e-3
    np.testing.assert_allclose(slope["strength"], difference, rtol=1e-2)


def test_influence_is_the_derivative_in_the_weights(asked):
    settings = {name: asked[name] for name in ("inputs", "sample_weight", "strength")}
    params = minimize(labels=LABELS, tolerance=1e-13, **settings).params
    gradient = jax.grad(of_validation)(params)
    found = influence(params, labels=LABELS, gradient=gradient, **settings)
    expected = value_and_slope(asked | {"offsets": jnp.zeros((24, 3))}, LABELS, 0.0)[1]
    expected = expected["sample_weight"]
    # `minimize` is within sqrt(1e-13 / 0.03) of the optimum, some 1e-6
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    # weights times any factor are the same problem
    assert abs(found @ asked["sample_weight"]) <= 1e-9 * np.abs(found).sum()


def test_what_has_no_derivative_is_refused_or_nan(asked):
    rows = {"labels": LABELS, "inputs": asked["inputs"]}
    params = LinearParams(jnp.zeros((3, 3)), jnp.zeros(3))
    with pytest.raises(ValueError, match="`strength` must be positive, got 0"):
        influence(params, **rows, gradient=params, strength=0)
    with pytest.raises(ValueError, match="`loss` must be smooth"):
        influence(params, **rows, gradient=params, strength=1, loss="hinge")
    _, slope = value_and_slope(asked | {"strength": jnp.asarray(0.0)})
    assert np.isnan(slope["sample_weight"]).all()
    assert np.isnan(slope["inputs"]).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gradient": LinearParams(np.zeros((2, 3)), np.zeros(2))}, "`gradient.weights` must have"),
        ({"sample_weight": np.ones(5)}, r"`sample_weight` must have shape \(24,\)"),
        ({"offsets": np.zeros((24, 2))}, "`offsets` must have shape"),
        ({"labels": LABELS + 1}, r"must be .* got 3"),
    ],
)
def test_what_does_not_fit_is_named(asked, wrong, message):
    params = LinearParams(np.zeros((3, 3)), np.zeros(3))
    settings = {"labels": LABELS, "gradient": params, "strength": 0.1} | wrong
    with pytest.raises(ValueError, match=message):
        influence(params, asked["inputs"], **settings)
