"""Directions: what they are, against NumPy, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin.core import LinearParams
from jaxlin.landscape import directions


@pytest.fixture
def params():
    rng = np.random.default_rng(0)
    return LinearParams(jnp.array(rng.normal(size=(3, 5))), jnp.array(rng.normal(size=3)))


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_a_random_direction_is_its_keys(params):
    one, same, other = (directions.random(jax.random.key(i), params) for i in (1, 1, 2))
    np.testing.assert_array_equal(flat(one.tree), flat(same.tree))
    assert not np.array_equal(flat(one.tree), flat(other.tree))
    assert one.norm == pytest.approx(np.linalg.norm(flat(one.tree)), rel=1e-14)


def test_uniform_entries_fill_the_interval_from_minus_one_to_one(params):
    wide = LinearParams(jnp.zeros((100, 100)), jnp.zeros(100))
    entries = flat(directions.random(jax.random.key(0), wide, distribution="uniform").tree)
    assert -1 <= entries.min() < -0.99
    assert 0.99 < entries.max() <= 1
    gaussian = flat(directions.random(jax.random.key(0), wide).tree)
    assert abs(gaussian.std() - 1) < 0.05  # 5 standard errors of 10,100 entries are 0.035


def test_filter_normalization_gives_each_row_the_length_of_its_row(params):
    found = directions.random(jax.random.key(0), params, normalize="filter").tree
    lengths = np.linalg.norm(params.weights, axis=1)
    np.testing.assert_allclose(np.linalg.norm(found.weights, axis=1), lengths, rtol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(found.bias), np.linalg.norm(params.bias), rtol=1e-14)


def test_layer_and_global_normalization_take_the_lengths_of_leaves_and_of_the_whole(params):
    drawn = directions.random(jax.random.key(0), params)
    layer = directions.normalize(drawn, params, kind="layer").tree
    for leaf, like in zip(layer, params, strict=True):
        np.testing.assert_allclose(np.linalg.norm(leaf), np.linalg.norm(like), rtol=1e-14)
    whole = directions.normalize(drawn, params, kind="global")
    assert whole.norm == pytest.approx(np.linalg.norm(flat(params)), rel=1e-14)
    np.testing.assert_allclose(
        flat(whole.tree) / whole.norm, flat(drawn.tree) / drawn.norm, rtol=1e-13
    )


def test_a_step_of_one_between_two_points_arrives(params):
    end = jax.tree.map(lambda leaf: 2 * leaf + 1, params)
    direction = directions.between(params, end)
    np.testing.assert_allclose(flat(params) + flat(direction.tree), flat(end), rtol=1e-14)
    third = jax.tree.map(jnp.ones_like, params)
    first, second = directions.between(params, end, third)
    np.testing.assert_allclose(flat(params) + flat(second.tree), flat(third), rtol=1e-14)
    np.testing.assert_array_equal(flat(first.tree), flat(direction.tree))


def test_principal_components_are_the_singular_vectors_of_the_centered_path(params):
    rng = np.random.default_rng(1)
    path = [LinearParams(rng.normal(size=(3, 5)), rng.normal(size=3)) for _ in range(7)]
    matrix = np.stack([flat(point) for point in path])
    _, _, right = np.linalg.svd(matrix - matrix.mean(axis=0))
    for i, found in enumerate(directions.principal_components(path, 3)):
        assert abs(flat(found.tree) @ right[i]) == pytest.approx(1, abs=1e-12)
        assert flat(found.tree) @ (matrix[-1] - matrix[0]) > 0
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *path)
    again = directions.principal_components(stacked, 1)[0]
    np.testing.assert_allclose(
        flat(again.tree), flat(directions.principal_components(path, 1)[0].tree)
    )


def test_hessian_eigenvectors_are_those_of_the_dense_matrix():
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(8, 8))
    matrix = matrix + matrix.T
    values, vectors = np.linalg.eigh(matrix)
    found = directions.hessian_eigenvectors(
        jax.random.key(0), lambda x: 0.5 * x @ matrix @ x, jnp.zeros(8), 2, tolerance=1e-12
    )
    for i, direction in enumerate(found):
        assert abs(direction.tree @ vectors[:, -1 - i]) == pytest.approx(1, abs=1e-8)
        assert f"{values[-1 - i]:.4g}" in direction.name


def test_an_orthogonalized_direction_has_no_part_along_the_others(params):
    drawn = [directions.random(jax.random.key(i), params) for i in range(3)]
    left = flat(directions.orthogonalize(*drawn).tree)
    for other in drawn[1:]:
        assert abs(left @ flat(other.tree)) < 1e-13 * drawn[0].norm * other.norm


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: directions.random(jax.random.key(0), p, distribution="cauchy"), "gaussian"),
        (lambda p: directions.normalize(p, p, kind="rows"), "filter, layer, global"),
        (lambda p: directions.normalize(p, p._replace(bias=jnp.ones(4))), "leaf `bias`"),
        (lambda p: directions.normalize(jax.tree.map(jnp.zeros_like, p), p), "zero everywhere"),
        (lambda p: directions.normalize(p, jax.tree.map(jnp.zeros_like, p)), "leave nothing"),
        (lambda p: directions.between(p, p), "coincide"),
        (
            lambda p: directions.hessian_eigenvectors(
                jax.random.key(0), lambda q: jnp.sum(jax.nn.relu(q.weights)), p
            ),
            "Hessian of the objective is zero",
        ),
        (lambda p: directions.orthogonalize(p, p), "parallel"),
        (lambda p: directions.principal_components([p, p], 1), "spans 0 directions"),
        (lambda p: directions.principal_components([p]), "at least two checkpoints"),
    ],
)
def test_bad_input_costs_one_sentence(params, call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call(params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_lengths_of_half_precision_are_measured_in_float32(dtype):
    # 300 entries of 100: a sum of squares of 3e6, beyond float16 and more than bfloat16 can count
    direction = LinearParams(jnp.full((2, 300), 100, dtype), jnp.ones(2, dtype))
    params = LinearParams(jnp.full((2, 300), 200, dtype), jnp.full(2, 0.5, dtype))
    for kind in ("filter", "layer", "global"):
        found = directions.normalize(direction, params, kind)
        assert found.tree.weights.dtype == dtype
        length = np.hypot(200 * np.sqrt(600), np.sqrt(0.5))
        # every entry is rounded to half precision, all of them alike
        assert found.norm == pytest.approx(length, rel=float(jnp.finfo(dtype).eps))
    far = jnp.array([60_000.0], jnp.float16)
    assert directions.between(-far, far).norm == 120_000


def test_long_directions_are_normalized_without_overflow():
    # squares of 1e30 and 1e-30 are beyond float32
    for size in (1e30, 1e-30):
        direction = jnp.full((2, 4), size, jnp.float32)
        found = directions.normalize(direction, jnp.full((2, 4), 3.0, jnp.float32))
        np.testing.assert_allclose(found.tree, np.full((2, 4), 3.0), rtol=1e-6)
        back = directions.normalize(found, direction)
        np.testing.assert_allclose(back.tree, direction, rtol=1e-6)


def test_components_and_curvature_of_half_precision_are_those_of_float32():
    path = jnp.array([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0]], jnp.bfloat16)
    (found,) = directions.principal_components(path, 1)
    np.testing.assert_allclose(found.tree, np.sqrt([0.5, 0.5]), rtol=1e-7)

    def bowl(w):
        return 5 * w[0] ** 2 + w[1] ** 2 + w[2] ** 2

    start = jnp.ones(3, jnp.bfloat16)
    (top,) = directions.hessian_eigenvectors(jax.random.key(0), bowl, start, 1)
    np.testing.assert_allclose(abs(top.tree), [1, 0, 0], atol=1e-3)  # of tolerance 1e-4
    assert "eigenvalue 10)" in top.name
