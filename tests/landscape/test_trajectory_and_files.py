"""Paths seen from a plane, and planes that survive an interruption."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin.core import DataError, LinearParams
from jaxlin.landscape import files, principal_components, project


@pytest.fixture
def path():
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(9, 2, 4)).cumsum(axis=0)
    return [LinearParams(step[:, :3], step[:, 3]) for step in steps]


def matrix(path):
    return np.stack([np.concatenate([np.ravel(w), b]) for w, b in path])


def test_coordinates_are_the_least_squares_solution(path):
    first, second = path[3], path[5]  # neither orthogonal nor of unit length
    seen = project(path, path[0], first, second)
    basis = matrix([first, second]).T
    expected, *_ = np.linalg.lstsq(basis, (matrix(path) - matrix(path)[0]).T)
    np.testing.assert_allclose(seen.coordinates, expected.T, atol=1e-12)
    rest = matrix(path) - matrix(path)[0] - seen.coordinates @ basis.T
    np.testing.assert_allclose(seen.distances, np.linalg.norm(rest, axis=1), atol=1e-12)


def test_principal_components_explain_the_share_of_their_singular_values(path):
    values = np.linalg.svd(matrix(path) - matrix(path).mean(axis=0), compute_uv=False) ** 2
    path = [jax.tree.map(jnp.asarray, point) for point in path]
    seen = project(path, path[-1], *principal_components(path, 2))
    assert seen.explained == pytest.approx(values[:2].sum() / values.sum(), rel=1e-12)
    np.testing.assert_allclose(seen.coordinates[-1], 0, atol=1e-12)


def test_parallel_directions_span_no_plane(path):
    with pytest.raises(ValueError, match="parallel"):
        project(path, path[0], path[1], path[1])


STEPS = (np.linspace(-1, 1, 7), np.linspace(0, 1, 3))


def surface(rows):
    return rows[:, None] ** 2 + STEPS[1][None, :]


def test_an_interrupted_plane_continues_where_it_stopped(tmp_path):
    path, seen = tmp_path / "landscape.npz", []

    def evaluate(rows):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(rows)
        return surface(rows)

    with pytest.raises(KeyboardInterrupt):
        files.compute(path, evaluate, STEPS, {"seed": 0}, rows=2)
    assert files.load(path).done.tolist() == [True] * 4 + [False] * 3
    assert np.isnan(files.load(path).values[4:]).all()
    rest = []
    stored = files.compute(
        path, lambda rows: rest.append(rows) or surface(rows), STEPS, {"seed": 0}, rows=2
    )
    np.testing.assert_array_equal(np.concatenate(rest), STEPS[0][4:])
    np.testing.assert_array_equal(stored.values, surface(STEPS[0]))
    again = files.load(path)
    np.testing.assert_array_equal(again.values, stored.values)
    assert again.facts == {"seed": 0}
    assert again.done.all()


def test_another_plane_is_not_continued(tmp_path):
    path = tmp_path / "landscape.npz"
    files.compute(path, surface, STEPS, {"seed": 0})
    with pytest.raises(DataError, match="seed differ"):
        files.compute(path, surface, STEPS, {"seed": 1})
    with pytest.raises(DataError, match="the steps differ"):
        files.compute(path, surface, (STEPS[0][:3], STEPS[1]), {"seed": 0})


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut off"])
def test_a_broken_file_costs_one_sentence(tmp_path, content):
    path = tmp_path / "landscape.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"landscape\.npz: not a landscape file"):
        files.load(path)
