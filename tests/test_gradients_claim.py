"""Where a claimed gradient comes from: values, functions, and trees that can be called."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxlin.gradients import check_gradient

INPUT = jnp.array([1.0, -2.0, 0.5])


@jax.tree_util.register_dataclass
@dataclass
class Module:
    """Parameters that can be called, as an Equinox module can; its gradient is one, too."""

    weights: Any
    bias: Any

    def __call__(self, x):
        return self.weights @ x + self.bias


def squares(module):
    return jnp.sum(module(INPUT) ** 2)


POINT = Module(jnp.array([[1.0, 0.0, 2.0], [0.5, 1.0, 1.0]]), jnp.array([0.1, -0.3]))
SCORES = POINT(INPUT)  # d/dW = 2 s x^T, d/db = 2 s
RIGHT = Module(2 * jnp.outer(SCORES, INPUT), 2 * SCORES)


@pytest.mark.parametrize("mode", ["quick", "full"])
def test_a_gradient_that_is_a_module_is_read_not_called(mode):
    assert check_gradient(squares, POINT, RIGHT, mode=mode).verdict == "pass"
    wrong = Module(RIGHT.weights, RIGHT.bias.at[1].add(1))
    report = check_gradient(squares, POINT, wrong, mode=mode)
    assert [entry.name for entry in report.entries] == [".bias[1]"]
    assert report.entries[0].analytic == pytest.approx(float(2 * SCORES[1] + 1))


def test_a_module_of_other_shapes_is_refused_by_its_leaf():
    with pytest.raises(ValueError, match=r"leaf \.bias of `gradient` must have shape \(2,\)"):
        check_gradient(squares, POINT, Module(RIGHT.weights, jnp.zeros(3)))


def test_a_function_that_carries_data_is_still_called():
    gradient = jax.tree_util.Partial(lambda scale, m: jax.grad(squares)(m), jnp.ones(2))
    assert check_gradient(squares, POINT, gradient).verdict == "pass"
    double = Module(jnp.array([[2.0]]), jnp.zeros(1))  # x -> 2 x
    assert check_gradient(lambda x: x[0] ** 2, jnp.array([3.0]), double).verdict == "pass"
