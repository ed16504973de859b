"""How a function is run: callbacks, branches, modules; and what is refused, in plain exceptions."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin.gradients import check_gradient, finite_differences


def sum_of_sines(x):
    """Computed by NumPy on the host, with no rule for batches and none for derivatives."""
    kind = jax.ShapeDtypeStruct((), x.dtype)
    return jax.pure_callback(lambda a: np.sum(np.sin(a)), kind, x)


@jax.custom_vjp
def with_a_rule(x):
    return sum_of_sines(x)


with_a_rule.defvjp(lambda x: (sum_of_sines(x), x), lambda x, g: (g * jnp.cos(x),))
POINT = jnp.array([0.3, 1.0, -2.0])


@pytest.mark.parametrize("mode", ["quick", "full"])
def test_a_callback_that_cannot_be_mapped_is_run_point_by_point_and_said_once(mode):
    right, wrong = jnp.cos(POINT), jnp.cos(POINT).at[1].multiply(-1)
    for report in (
        check_gradient(sum_of_sines, POINT, right, mode=mode),
        check_gradient(with_a_rule, POINT, mode=mode),
    ):
        assert report.verdict == "pass"
        assert sum("one point at a time" in note for note in report.notes) == 1
    report = check_gradient(sum_of_sines, POINT, wrong, mode=mode)
    assert [entry.index for entry in report.entries] == [(1,)]
    numeric = finite_differences.gradient(sum_of_sines, POINT).value
    np.testing.assert_allclose(numeric, np.cos(POINT), rtol=1e-8)


def test_a_function_without_derivative_rule_is_told_from_one_that_jax_cannot_run():
    with pytest.raises(ValueError, match=r"cannot differentiate it.*`gradient=`"):
        check_gradient(sum_of_sines, POINT)


@pytest.mark.parametrize("x", [-0.5, 0.5, np.float64(-0.5), jnp.float64(-0.5)])
def test_a_branch_that_returns_a_python_constant_is_a_number(x):
    relu = lambda x: max(0, x)  # noqa: E731
    slope = float(x > 0)
    assert check_gradient(relu, x, slope).verdict == "pass"
    assert check_gradient(relu, x, 1 - slope).verdict == "fail"


@jax.tree_util.register_dataclass
@dataclass
class Layer:
    """A module of layers as Equinox makes them: a tree that can be called, functions inside."""

    weights: Any
    activation: Any

    def __call__(self, x):
        return jnp.sum(self.activation(self.weights @ x))


def test_a_module_that_holds_functions_can_be_checked():
    layer = Layer(jnp.array([[1.0, 2.0, 3.0]]), jnp.tanh)
    assert check_gradient(layer, POINT).verdict == "pass"
    assert check_gradient(layer, POINT, jnp.zeros(3)).verdict == "fail"


@pytest.mark.parametrize(
    ("f", "error"),
    [
        (lambda x: x, ValueError),
        (lambda x: jnp.sum(x).astype(int), TypeError),
        (lambda x: np.argmax(np.asarray(x)), TypeError),
        (lambda x: {"value": jnp.sum(x)}, TypeError),
        (lambda x: "text", TypeError),
    ],
)
def test_refusals_are_plain_exceptions(f, error):
    with pytest.raises(error, match="`f` must return") as caught:
        check_gradient(f, np.ones(2), np.ones(2))
    assert type(caught.value) is error
