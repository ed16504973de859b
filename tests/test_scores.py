"""The linear score, the bias trick, and the lecture's worked example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin.core import LinearParams
from jaxlin.scores import append_one, fold_bias, linear, unfold_bias

CAT = np.array([56.0, 231.0, 24.0, 2.0])
PARAMS = LinearParams(
    jnp.array([[0.2, -0.5, 0.1, 2.0], [1.5, 1.3, 2.1, 0.0], [0.0, 0.25, 0.2, -0.3]]),
    jnp.array([1.1, 3.2, -1.2]),
)


@pytest.fixture
def problem():
    rng = np.random.default_rng(7)
    params = LinearParams(jnp.array(rng.normal(size=(10, 12))), jnp.array(rng.normal(size=10)))
    return params, rng.normal(size=(5, 12))


def test_lecture_example_scores_are_those_worked_out_on_paper():
    # cat -96.8, dog 437.9, ship 60.75 (printed as 61.95, which leaves its bias of -1.2 out).
    np.testing.assert_allclose(linear(PARAMS, CAT), [-96.8, 437.9, 60.75], rtol=1e-14)
    without_bias = linear(PARAMS._replace(bias=jnp.zeros(3)), CAT)
    assert without_bias[2].item() == pytest.approx(61.95, rel=1e-14)


def test_scores_are_inner_products_plus_bias(problem):
    params, inputs = problem
    looped = [
        [sum(w * x for w, x in zip(row, example, strict=True)) + b
         for row, b in zip(np.asarray(params.weights), np.asarray(params.bias), strict=True)]
        for example in inputs
    ]  # fmt: skip
    np.testing.assert_allclose(linear(params, inputs), looped, rtol=1e-12)


def test_bias_trick_gives_the_same_scores(problem):
    params, inputs = problem
    folded = append_one(inputs) @ fold_bias(params).T
    # One more term in a sum of 13 products of size 1: a few eps = 2e-16 each.
    np.testing.assert_allclose(folded, linear(params, inputs), rtol=1e-13, atol=1e-14)


def test_lecture_shapes_of_the_bias_trick():
    params = LinearParams(jnp.zeros((10, 3072)), jnp.zeros(10))
    assert fold_bias(params).shape == (10, 3073)
    assert append_one(jnp.zeros((2, 3072))).shape == (2, 3073)


def test_unfold_is_the_inverse_of_fold(problem):
    jax.tree.map(np.testing.assert_array_equal, unfold_bias(fold_bias(problem[0])), problem[0])


def test_zero_input_scores_the_bias():
    np.testing.assert_array_equal(linear(PARAMS, jnp.zeros(4)), PARAMS.bias)


def test_uint8_pixels_do_not_wrap_around():
    pixels = np.array([200, 200, 200, 200], np.uint8)
    np.testing.assert_allclose(linear(PARAMS, pixels), linear(PARAMS, pixels.astype(float)))


def test_leading_axes_batch(problem):
    params, inputs = problem
    stacked = linear(params, np.stack([inputs, inputs]))
    assert stacked.shape == (2, 5, 10)


def test_inputs_of_another_width_are_refused(problem):
    with pytest.raises(ValueError, match="D = 12 features on the last axis"):
        linear(problem[0], np.zeros((5, 13)))


def test_bias_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"got \(10, 12\) and \(9,\)"):
        linear(LinearParams(jnp.zeros((10, 12)), jnp.zeros(9)), np.zeros((5, 12)))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float8_e5m2])
def test_scores_of_half_precision_are_added_up_in_float32(dtype):
    # float16 ends at 65,504, and bfloat16 has 8 bits; float32 counts to 2**24 without rounding
    params = LinearParams(jnp.ones((2, 70_000), dtype), jnp.ones(2, dtype))
    for inputs, on_paper in (
        (jnp.ones(70_000, dtype), 70_001),
        (jnp.ones(70_000, jnp.float32), 70_001),
        ((np.arange(70_000) < 700) * np.uint8(255), 178_501),
        ((np.arange(70_000) < 700) * np.int32(1001), 700_701),
    ):
        found = linear(params, inputs)
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, on_paper)
    gradient = jax.grad(lambda p: linear(p, jnp.ones(70_000, jnp.float32))[0])(params)
    assert gradient.weights.dtype == dtype
    np.testing.assert_array_equal(np.float32(gradient.weights[:, :3]), [[1.0] * 3, [0.0] * 3])
