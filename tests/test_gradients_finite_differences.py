"""Numeric gradients: counts, accuracy, and the structured path against the generic one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin import Batch, LinearParams
from jaxlin.gradients import finite_differences as fd
from jaxlin.gradients import linear_objective
from jaxlin.gradients.evaluate import Function
from jaxlin.gradients.structured import differences_along_axes, differences_at
from jaxlin.losses import LOSSES, named, softmax_cross_entropy


def lecture_loop(f, x, h=1e-5):
    """The lecture's algorithm, one entry at a time."""
    fx, gradient = f(x), np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] += h
        gradient[index] = (f(moved) - fx) / h
    return gradient


class Counted:
    """A plain Python function that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return float(np.sum(np.sin(x)))


@pytest.mark.parametrize(
    ("method", "order", "count"),
    [
        ("forward", None, 13),
        ("forward", 2, 25),
        ("central", None, 24),
        ("central", 4, 48),
        ("richardson", None, 72),
    ],
)
def test_a_plain_function_is_called_as_often_as_reported(method, order, count):
    f, x = Counted(), np.linspace(0, 1, 12).reshape(3, 4)
    result = fd.gradient(f, x, method=method, order=order)
    assert result.evaluations == count == f.calls
    np.testing.assert_allclose(result.value, np.cos(x), atol=3e-8)
    assert (np.abs(result.value - np.cos(x)) <= 10 * result.error).all()


def test_the_lectures_classifier_costs_30731_and_61460_evaluations():
    objective = linear_objective(softmax_cross_entropy, Batch(np.ones((2, 3073)), np.array([0, 1])))
    w = np.zeros((10, 3073))
    assert fd.gradient(objective, w, method="forward", step=1e-5).evaluations == 30_731
    assert fd.gradient(objective, w, method="central").evaluations == 61_460


def test_forward_with_the_lectures_step_is_the_lectures_loop():
    x = np.random.default_rng(0).random((3, 4))
    f = lambda x: jnp.sum(jnp.exp(x) * x)  # noqa: E731
    result = fd.gradient(f, x, method="forward", step=1e-5)
    # (x + h) - x differs from h by eps / h = 1e-11 relative; rounding of f is 1e-16 * 20 / h
    np.testing.assert_allclose(result.value, lecture_loop(f, x), rtol=1e-9, atol=1e-9)


def test_float32_points_are_differenced_in_float64():
    x = jnp.linspace(0, 1, 5, dtype=jnp.float32)
    with jax.enable_x64(False):
        result = fd.gradient(lambda x: jnp.sum(jnp.sin(x)), x, method="forward", step=1e-5)
    exact = np.cos(np.asarray(x, np.float64))
    np.testing.assert_allclose(result.value, exact, atol=1e-5)  # h / 2; float32 is off by 1e-2
    assert result.value.dtype == np.float64


def test_chunks_do_not_change_the_values():
    x = np.linspace(-1, 1, 40)
    f = lambda x: jnp.sum(jnp.tanh(x) ** 2)  # noqa: E731
    whole = fd.gradient(f, x)
    parts = fd.gradient(f, x, memory=20_000)
    np.testing.assert_allclose(parts.value, whole.value, rtol=0, atol=1e-9)


def test_lanes_follow_the_memory_budget():
    function = Function(lambda x: jnp.sum(jnp.outer(x, x) ** 2), jnp.ones(100), memory=2**20)
    function.prepare()
    assert 1 <= function.lanes <= 2**20 // (100 * 100 * 8)


def test_errors_fall_with_the_order_of_the_formula():
    x = np.array([0.3, 1.1])
    f = lambda x: jnp.sum(jnp.exp(x))  # noqa: E731
    for method, order in (("forward", 1), ("forward", 2), ("central", 2), ("central", 4)):
        errors = [
            np.abs(fd.gradient(f, x, method=method, order=order, step=h).value - np.exp(x)).max()
            for h in (1 / 16, 1 / 32)
        ]
        assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_richardson_knows_its_error():
    x = np.linspace(0.5, 3, 8)
    result = fd.gradient(lambda x: jnp.sum(jnp.log(x) * x), x, method="richardson")
    off = np.abs(result.value - (np.log(x) + 1))
    assert (off <= result.error).all()
    assert result.error.max() < 1e-9


def test_trees_keep_their_shape_and_leaves_get_their_own_steps():
    x = {"small": jnp.full(3, 1e-8), "large": 1e8}
    f = lambda x: jnp.sum(jnp.sin(1e8 * x["small"])) + jnp.cos(1e-8 * x["large"])  # noqa: E731
    value = fd.gradient(f, x).value
    # h = eps^(1/3) relative to each leaf leaves 1e-10 relative
    np.testing.assert_allclose(value["small"], 1e8 * np.cos(1.0), rtol=1e-8)
    np.testing.assert_allclose(value["large"], -1e-8 * np.sin(1.0), rtol=1e-8)


def test_jacobian_is_shaped_like_jaxs():
    f = lambda x: jnp.outer(jnp.sin(x["a"]), x["b"])  # noqa: E731
    x = {"a": jnp.arange(3.0), "b": jnp.array([1.0, 2.0])}
    numeric, exact = fd.jacobian(f, x).value, jax.jacobian(f)(x)
    for name in x:
        np.testing.assert_allclose(numeric[name], exact[name], atol=1e-9)


def test_directional_derivative_is_the_product_with_the_gradient():
    x, d = np.linspace(0, 1, 5), np.linspace(-1, 2, 5)
    result = fd.directional_derivative(lambda x: jnp.sum(x**3), x, d, method="richardson")
    np.testing.assert_allclose(result.value, 3 * x**2 @ d, rtol=1e-9)
    assert result.evaluations == 6


def test_hessian_vector_product_is_the_one_on_paper():
    x, v = {"a": jnp.array([1.0, 2.0])}, {"a": jnp.array([3.0, -1.0])}
    result = fd.hessian_vector_product(lambda x: jnp.prod(x["a"]) ** 2, x, v)
    # f = x^2 y^2: Hessian [[2 y^2, 4 x y], [4 x y, 2 x^2]]
    np.testing.assert_allclose(result.value["a"], [8 * 3 - 8, 8 * 3 - 2], rtol=1e-7)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_structured_differences_are_the_generic_ones(name, weighted):
    rng = np.random.default_rng(3)
    inputs, labels = rng.integers(0, 255, (37, 5)).astype(np.uint8), rng.integers(0, 4, 37)
    weights = rng.random(37) if weighted else None
    objective = linear_objective(
        named(name, margin=0.7), Batch(inputs, labels, weights), strength=0.1
    )
    x = LinearParams(rng.normal(0, 0.01, (4, 5)), rng.normal(size=4))
    h = 1e-4
    steps = np.outer([-h, h], np.ones(6))
    fast = differences_along_axes(objective, x, steps)
    one_by_one = differences_at(objective, x, np.arange(24), np.tile([-h, h], (24, 1)), memory=1)
    function = Function(lambda p: objective(p), x)
    base = float(objective(x))
    for row, node in enumerate((-h, h)):
        slow = function.along_axes(np.arange(24), np.full(24, node)) - base
        # the generic path subtracts two values of size `base`
        np.testing.assert_allclose(fast[row], slow, atol=64 * 2.3e-16 * max(base, 1))
    np.testing.assert_allclose(fast, one_by_one.T, rtol=1e-11, atol=1e-17)


def test_rows_in_blocks_give_the_same_objective():
    rng = np.random.default_rng(4)
    inputs, labels = rng.normal(size=(2500, 3)), rng.integers(0, 3, 2500)
    objective = linear_objective(LOSSES["hinge"], Batch(inputs, labels))
    w = jnp.asarray(rng.normal(size=(3, 3)))
    scores = jnp.asarray(inputs) @ w.T
    expected = np.mean(LOSSES["hinge"](scores, jnp.asarray(labels)))
    np.testing.assert_allclose(objective(w), expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("f", "x", "settings", "message"),
    [
        (lambda x: x**2, np.ones(3), {}, r"must return a scalar, got shape \(3,\)"),
        (jnp.sum, np.arange(3), {}, "must be floating, got int64"),
        (jnp.sum, {}, {}, "holds no numbers"),
        (jnp.sum, np.ones(3), {"method": "backward"}, "`method` must be one of"),
        (jnp.sum, np.ones(3), {"step": 0.0}, "`step` must be positive"),
        (jnp.sum, np.ones(3), {"step": 1e-30}, "lost in rounding"),
        (jnp.sum, np.ones(3) * 1j, {}, "complex parameters are not supported"),
        (lambda x: jnp.sum(jnp.log(x)), np.array([1.0, 1e-9]), {"step": 1e-6}, r"nan.* \[1\]|nan"),
        (lambda x: jnp.sum(x), np.array([1.0, np.nan]), {}, r"`x` is nan at \(1,\)"),
    ],
)
def test_bad_input_is_one_sentence(f, x, settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fd.gradient(f, x, **settings)


def test_a_partial_with_another_margin_is_structured_too():
    loss = functools.partial(LOSSES["hinge"], margin=2.0)
    objective = linear_objective(loss, Batch(np.ones((3, 2)), np.array([0, 1, 1])))
    value = fd.gradient(objective, np.zeros((2, 2))).value
    np.testing.assert_allclose(value, jax.grad(objective)(jnp.zeros((2, 2))), atol=1e-12)
