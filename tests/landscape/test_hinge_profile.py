"""The exact profile of a hinge: values, kinks, slopes and minimum against dense evaluation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin import losses
from jaxlin.core import LinearParams
from jaxlin.landscape import affine_ray, hinge_profile

N, D, K = 31, 4, 5
HINGES = [losses.weston_watkins_hinge, losses.crammer_singer_hinge, losses.one_vs_rest_hinge]
each_hinge = pytest.mark.parametrize("loss", HINGES)
each_strength = pytest.mark.parametrize("strength", [0.0, 0.05])


def problem(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    points = [
        LinearParams(rng.normal(size=(K, D)).astype(dtype), rng.normal(size=K).astype(dtype))
        for _ in range(2)
    ]
    return *points, rng.normal(size=(N, D)).astype(dtype), rng.integers(0, K, N)


def dense(loss, params, direction, inputs, labels, steps, margin, strength):
    """The loss at every step, with nothing but NumPy and the definition."""
    values = []
    for a in steps:
        w, b = (np.float64(p) + a * np.float64(d) for p, d in zip(params, direction, strict=True))
        total = 0.0
        for x, y in zip(np.float64(inputs), labels, strict=True):
            s = w @ x + b
            wrong = [s[j] - s[y] + margin for j in range(K) if j != y]
            if loss is losses.weston_watkins_hinge:
                total += sum(max(0.0, m) for m in wrong)
            elif loss is losses.crammer_singer_hinge:
                total += max(0.0, *wrong)
            else:
                signs = [-1 if j == y else 1 for j in range(K)]
                total += sum(max(0.0, margin + t * v) for t, v in zip(signs, s, strict=True))
        values.append(total / len(labels) + strength * np.sum(w**2))
    return np.array(values)


@each_hinge
@each_strength
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_the_profile_has_the_values_of_the_dense_evaluation(loss, strength, dtype, tolerance):
    arguments = problem(0, dtype)
    steps = np.concatenate([np.linspace(-4, 4, 41), [-1e4, 1e4]])
    profile = hinge_profile(*arguments, loss=loss, margin=1.5, strength=strength)
    expected = dense(loss, *arguments, steps, 1.5, strength)
    np.testing.assert_allclose(profile(steps), expected, rtol=tolerance)


@each_hinge
@each_strength
def test_slopes_are_differences_and_jump_only_at_breakpoints(loss, strength):
    profile = hinge_profile(*problem(1), loss=loss, strength=strength)
    kinks = profile.breakpoints
    assert np.all(np.diff(kinks) > 0)  # random lines never meet twice
    left, right = profile.slopes(kinks)
    assert np.all(right > left)
    middles = (kinks[1:] + kinks[:-1]) / 2
    for at, slope in ((middles, profile.slopes(middles)[0]), (middles, profile.slopes(middles)[1])):
        h = np.minimum(np.diff(kinks) / 4, 1e-3)
        # a quarter of a gap crosses no kink, and a parabola's central difference is exact
        numeric = (profile(at + h) - profile(at - h)) / (2 * h)
        np.testing.assert_allclose(slope, numeric, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(left[1:] - right[:-1],
                               2 * profile.penalty[2] * np.diff(kinks), atol=1e-12)  # fmt: skip


def test_breakpoints_are_where_margins_vanish():
    params, direction, inputs, labels = problem(2)
    s0, s1 = (inputs @ p.weights.T + p.bias for p in (params, direction))
    expected = [
        -(s0[i, j] - s0[i, y] + 1) / (s1[i, j] - s1[i, y])
        for i, y in enumerate(labels)
        for j in range(K)
        if j != y
    ]
    found = hinge_profile(params, direction, inputs, labels).breakpoints
    np.testing.assert_allclose(found, np.sort(expected), rtol=1e-12)


@each_hinge
@each_strength
@pytest.mark.parametrize("seed", range(4))
def test_no_step_is_below_the_minimum(loss, strength, seed):
    profile = hinge_profile(*problem(seed), loss=loss, strength=strength)
    step, value = profile.minimum()
    assert value == profile(step)
    candidates = np.concatenate([profile.breakpoints, np.linspace(step - 1, step + 1, 2001)])
    assert np.all(profile(candidates) >= value - 1e-14 * value)
    left, right = profile.slopes(step)
    noise = 1e-12 * np.abs(profile.gradients).max()
    assert left <= noise
    assert right >= -noise


def test_the_minimum_of_a_flat_bottom_is_its_point_nearest_to_zero():
    # on paper: relu(1 - a) + relu(a - 4 + 1) for two examples of two classes: 0 on [1, 3]
    params = LinearParams(np.zeros((2, 2)), np.zeros(2))
    direction = LinearParams(np.array([[1.0, -1.0], [0.0, 0.0]]), np.zeros(2))
    inputs, labels = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0])
    params.bias[1] = -1.0  # margins -1 - a + 1 and -1 + a + 1
    profile = hinge_profile(params, direction, inputs, labels)
    assert profile.breakpoints.tolist() == [0.0, 0.0]
    params.bias[1] = -3.0  # margins -2 - a and -2 + a: flat on [-2, 2]
    profile = hinge_profile(params, direction, inputs, labels)
    assert profile.breakpoints.tolist() == [-2.0, 2.0]
    assert profile.minimum() == (0.0, 0.0)
    params.bias[1] = 1.0  # margins 2 - a and 2 + a: least on [-2, 2], where it is 2
    profile = hinge_profile(params, direction, inputs, labels)
    assert profile.minimum() == (0.0, 2.0)


def test_the_margin_may_come_with_the_loss_and_uint8_are_raw_pixels():
    params, direction, _, labels = problem(3)
    pixels = np.random.default_rng(0).integers(0, 256, (N, D), dtype=np.uint8)
    loss = partial(losses.weston_watkins_hinge, margin=40.0)
    profile = hinge_profile(params, direction, pixels, labels, loss=loss)
    steps = np.linspace(-1, 1, 9)
    expected = dense(loss.func, params, direction, pixels, labels, steps, 40.0, 0.0)
    np.testing.assert_allclose(profile(steps), expected, rtol=1e-10)
    on_grid = affine_ray(
        *(jax.tree.map(jnp.asarray, p) for p in (params, direction)), steps, pixels, labels,
        loss=loss,
    )  # fmt: skip
    np.testing.assert_allclose(profile(steps), on_grid, rtol=1e-10)


def test_the_profile_is_double_where_double_is_off():
    arguments = problem(4, np.float32)
    with jax.enable_x64(False):
        found = hinge_profile(*arguments)(0.25)
    np.testing.assert_allclose(found, dense(HINGES[0], *arguments, [0.25], 1, 0)[0], rtol=1e-13)


@pytest.mark.parametrize("loss", [losses.softmax_cross_entropy, losses.squared_one_vs_rest_hinge])
def test_a_loss_without_kinks_is_refused(loss):
    with pytest.raises(ValueError, match=f"{loss.__name__}, which is not piecewise linear"):
        hinge_profile(*problem(0), loss=loss)


def test_scores_that_are_not_finite_are_refused():
    params, direction, inputs, labels = problem(0)
    inputs[3, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        hinge_profile(params, direction, inputs, labels)
