"""Generic slices: the grid is where it says, and memory stays within the budget."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin.core import LinearParams
from jaxlin.landscape import grid, interpolate, plane, random, ray
from jaxlin.landscape._memory import peak_bytes


def bowl(w):  # worked out on paper: 3 (x - 1)^2 + (y + 2)^2 + x y
    return 3 * (w[0] - 1) ** 2 + (w[1] + 2) ** 2 + w[0] * w[1]


E1, E2 = jnp.eye(2)


def test_a_plane_is_the_function_on_the_grid_it_names():
    steps_1, steps_2 = np.array([-1.0, 0.0, 0.5, 3.0]), np.array([2.0, 0.0, -1.0])
    start = jnp.array([0.25, -0.5])
    found = plane(bowl, start, E1, 2 * E2, steps_1, steps_2)
    x, y = 0.25 + steps_1[:, None], -0.5 + 2 * steps_2[None, :]
    np.testing.assert_allclose(found, 3 * (x - 1) ** 2 + (y + 2) ** 2 + x * y, rtol=1e-14)
    assert found[1, 1] == bowl(start)  # a step of 0 is the point itself, to the last bit


def test_a_ray_is_a_row_of_the_plane_and_follows_the_order_of_its_steps():
    steps = np.array([0.5, -2.0, 0.0])
    start = jnp.array([0.25, -0.5])
    found = ray(bowl, start, E1, steps)
    np.testing.assert_array_equal(found, plane(bowl, start, E1, E2, steps, [0.0])[:, 0])


@pytest.mark.filterwarnings("ignore:One point")
@pytest.mark.parametrize("budget", [1, 200, 1 << 30])
def test_the_values_do_not_depend_on_the_budget(budget):
    params = {"w": jnp.arange(6.0).reshape(2, 3), "b": (jnp.ones(2),)}
    direction = random(jax.random.key(0), params)

    def objective(p):
        return jnp.sum(jnp.tanh(p["w"] @ jnp.arange(3.0) + p["b"][0]))

    steps = np.linspace(-1, 1, 11)
    expected = [
        objective(jax.tree.map(lambda x, d, a=a: x + a * d, params, direction.tree)) for a in steps
    ]
    found = ray(objective, params, direction, steps, memory_budget=budget)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_interpolation_meets_both_ends_exactly():
    start, end = jnp.array([0.1, 0.7]), jnp.array([1e3, -0.3])
    found = interpolate(bowl, start, end, 5)
    assert found.shape == (5,)
    assert (found[0], found[-1]) == (bowl(start), bowl(end))
    np.testing.assert_allclose(found[2], bowl((start + end) / 2), rtol=1e-14)


def test_a_grid_may_have_three_dimensions():
    steps = [[0.0, 1.0], [0.0, 2.0, 3.0], [1.0]]
    found = grid(lambda w: w[0] + 10 * w[1] + 100 * w[2], jnp.zeros(3), list(jnp.eye(3)), steps)
    expected = np.array([[[x + 10 * y + 100] for y in steps[1]] for x in steps[0]])
    np.testing.assert_array_equal(found, expected)


def test_the_objective_is_traced_once():
    calls = []

    def objective(w):
        calls.append(1)
        return jnp.sum(w**2)

    with pytest.warns(RuntimeWarning, match="one by one"):
        ray(objective, jnp.ones(3), jnp.ones(3), np.linspace(-1, 1, 9), memory_budget=1)
    assert len(calls) == 1


def test_peak_memory_counts_what_is_alive_at_once():
    def chain(x):  # 8,000 bytes each: at most an input's successor and its own
        return jnp.sum(jnp.sin(jnp.cos(x) @ jnp.ones((10, 1000))) @ jnp.ones((1000, 10)))

    jaxpr = jax.make_jaxpr(chain)(jnp.ones((1000, 10))).jaxpr
    matrix, wide = 1000 * 10 * 8, 1000 * 1000 * 8
    assert 2 * wide <= peak_bytes(jaxpr) <= 2 * wide + 3 * matrix


def test_cells_that_are_not_finite_are_kept_and_counted():
    with pytest.warns(RuntimeWarning, match="2 of 4 cells"):
        found = ray(lambda w: jnp.log(w[0]), jnp.zeros(2), E1, [-1.0, -0.5, 1.0, 2.0])
    np.testing.assert_array_equal(np.isfinite(found), [False, False, True, True])
    with pytest.warns(RuntimeWarning, match="`params` itself has 1 entries"):
        assert np.isnan(ray(jnp.sum, jnp.array([0.0, np.nan]), E1, [0.0, 1.0])).all()


def test_a_slice_that_takes_long_says_so_before_it_starts(monkeypatch):
    monkeypatch.setattr("jaxlin.landscape.slices._LONG", 0.0)
    with pytest.warns(RuntimeWarning, match="operations, 0 minutes"):
        ray(lambda w: w @ w, jnp.ones(50), jnp.ones(50), np.linspace(-1, 1, 5))


PARAMS = LinearParams(jnp.ones((2, 3)), jnp.zeros(2))
ONES = LinearParams(jnp.ones((2, 3)), jnp.ones(2))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ray(jnp.sum, PARAMS, PARAMS._replace(bias=jnp.zeros(3)), [0.0]), ValueError,
         r"leaf `bias` is \(2,\) in `params` and \(3,\) in `direction`"),
        (lambda: ray(jnp.sum, PARAMS, jnp.ones(3), [0.0]), ValueError, "tree like `params`"),
        (lambda: ray(jnp.sum, E1, 0 * E1, [0.0]), ValueError, "zero everywhere"),
        (lambda: plane(bowl, E1, E1, -2 * E1, [0.0], [0.0]), ValueError, "parallel"),
        (lambda: ray(bowl, E1, E1, []), ValueError, "is empty"),
        (lambda: plane(bowl, E1, E1, E2, [0.0], [np.nan]), ValueError, "steps_2.*position 0"),
        (lambda: ray(lambda w: w, E1, E1, [0.0]), TypeError, "must return a scalar"),
        (lambda: ray(bowl, jnp.array([1, 2]), E1, [0.0]), TypeError, "must be floating"),
        (lambda: plane(bowl, E1, E1, E2, np.ones(10**5), np.ones(10**5)), ValueError, "37.3 GiB"),
        (lambda: interpolate(bowl, E1, E1, 3), ValueError, "coincide"),
    ],
)  # fmt: skip
def test_bad_input_costs_one_sentence(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_a_point_of_half_precision_is_rounded_once(dtype):
    # start + step * direction in float64, rounded to the dtype of the parameters
    start, end = jnp.array([1.0, -2.0], dtype), jnp.array([0.25, 3.0], dtype)
    steps = np.linspace(-1, 1, 21)

    def first(w):
        return w[0].astype(jnp.float32)

    def rounded(values):
        return np.float32(np.asarray(values).astype(dtype))

    found = ray(first, start, end, steps)
    # float32 products and sums round too: at most a tie between two neighbors is broken otherwise
    expected = rounded(1 + np.float32(steps) * np.float32(0.25))
    np.testing.assert_array_equal(found, expected)
    found = interpolate(first, start, end, 5)
    np.testing.assert_array_equal(found, rounded([1, 0.8125, 0.625, 0.4375, 0.25]))


def test_a_line_between_far_points_of_half_precision():
    # their difference, 120,000, is beyond float16, and the points between them are not
    start, end = jnp.array([-60_000.0], jnp.float16), jnp.array([60_000.0], jnp.float16)
    found = interpolate(lambda w: w[0].astype(jnp.float32), start, end, 3)
    np.testing.assert_array_equal(found, [-60_000, 0, 60_000])
