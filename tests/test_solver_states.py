"""A fit that is left between two steps and goes on from plain arrays: the bits of the whole one."""

import json
import subprocess
import sys
from functools import cache
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxlin.distributed import sharding
from jaxlin.passes import open_sharded
from jaxlin.solvers import fitting, minimize, refresh
from jaxlin.solvers.problem import beside
from jaxlin.solvers.rowwise import to_host
from jaxlin.solvers.states import blank, largest, shapes_of

pytestmark = pytest.mark.usefixtures("as_if_large")

HINGE = {"loss": "hinge", "tolerance": 3e-2}
FITS = {
    # float32 until its digits are used up, then float64
    "softmax": ((9000, 80, 6), {"strength": 1e-5, "tolerance": 1e-7}),
    # metrics at the iterate from drawn rows, built again and again
    "weak": ((60_000, 20, 4), {"strength": 1e-6, "tolerance": 1e-7, "dtype": np.float64}),
    "a part first": ((20_000, 40, 12), {"strength": 1e-5, "tolerance": 1e-6}),
    "few": ((300, 20, 5), {"strength": 1e-4, "tolerance": 1e-8}),
    # too many unknowns for the interior point method: quasi-Newton steps, then Newton's
    "hinge": ((4200, 60, 20), {"strength": 1e-3, **HINGE, "tolerance": 0.1}),
    "few, hinge": ((1600, 60, 20), {"strength": 1e-3, **HINGE, "tolerance": 1e-2}),
    "many classes": ((1500, 20, 60), {"strength": 1e-3, **HINGE}),
    "no penalty": ((1600, 60, 20), {"strength": 0, **HINGE, "max_iterations": 40}),
    "l1": ((9000, 60, 6), {"strength": 0, "l1_strength": 1e-3, "tolerance": 1e-4}),
}


@pytest.fixture(autouse=True)
def parts_of_the_largest(monkeypatch):
    """Only "a part first" is so dear."""
    monkeypatch.setitem(fitting.DEAR, "cpu", 3e7)


@pytest.fixture(autouse=True)
def all_directions_later(monkeypatch):
    """Of more than 70 features the leading ones come first."""
    monkeypatch.setattr(refresh, "FULL_SPECTRUM", 70)
    monkeypatch.setattr(refresh, "FULL_AT_ONCE", 0)


def problem(size, features, classes):
    rng = np.random.default_rng(3)
    inputs = (rng.normal(size=(size, features)) * np.linspace(3, 0.1, features)).astype(np.float32)
    scores = inputs @ rng.normal(size=(features, classes))
    return inputs, (scores + rng.normal(size=(size, classes))).argmax(1)


def copied(carried):
    """Through a way like a file's."""
    empty = blank(json.loads(json.dumps(shapes_of(carried))))
    same = jax.tree.map(
        lambda a, b: (np.asarray(a).dtype, np.shape(a)) == (b.dtype, b.shape), carried, empty
    )
    assert all(jax.tree.leaves(same))
    return jax.tree.map(np.array, carried)


def fitted(name, *, asked=False, **more):
    """The solution, the curve of bounds, and where asked what was learned before each step, with
    the length that the curve had."""
    shape, settings = FITS[name]
    curve, left = [], []

    def on_carried(evaluations, make):
        left.append((copied(make()), len(curve)))

    asking = {"on_carried": on_carried} if asked else {}
    note = {"callback": lambda *seen: curve.append(tuple(map(float, seen)))}
    return minimize(*problem(*shape), **(settings | note | asking | more)), curve, left


@cache
def whole(name):
    """The unbroken fit of which nobody asked anything, and what another one had learned: the same
    fit, whoever watches. Each kind of solver is asked once without a callback, too."""
    solution, curve, _ = fitted(name)
    watched, same, left = fitted(name, asked=True)
    assert same == curve
    assert_same(watched, solution)
    if name in ("few", "few, hinge", "l1"):
        assert_same(fitted(name, callback=None)[0], solution)
    return solution, curve, left


def assert_same(one, other):
    assert one[1:] == other[1:]  # objective, lower bound, gap, gradient, iterations, evaluations
    assert all(map(np.array_equal, one.params, other.params))


@pytest.mark.parametrize("name", FITS)
def test_a_fit_that_was_left_goes_on_bit_for_bit(name):
    solution, curve, left = whole(name)
    some = [left[int(share * len(left))] for share in (0.1, 0.6)]
    for carried, told in left if name == "few" else some:
        rest, later, _ = fitted(name, carried=carried)
        assert_same(rest, solution)
        assert curve[:told] + later == curve
    assert_room_was_asked_for(name, left)
    assert_all_was_to_lose(name, left)


def assert_room_was_asked_for(name, left):
    """The space that is looked for before a run holds all that is saved."""
    (examples, features, classes), settings = FITS[name]
    sizes = {"examples": examples, "features": features, "classes": classes}
    loss, l1 = settings.get("loss", "softmax"), "l1_strength" in settings
    most = largest(loss, l1=l1, dtype=np.float64, **sizes)
    for carried, _ in left:
        for one, other in zip(jax.tree.leaves(carried), jax.tree.leaves(most), strict=True):
            assert one.nbytes <= np.asarray(other).nbytes
            assert one.ndim == np.ndim(other)


def assert_all_was_to_lose(name, left):
    """The fits above are left in the midst of what they are there for."""
    fits = [carried for carried, _ in left]
    if name == "softmax":
        assert (int(fits[0].digits), int(fits[-1].digits)) == (0, 1)
    if name == "weak":
        builds = [fit.recipe[3] for fit in fits]
        assert builds[0] == 0 < builds[int(0.4 * len(fits))] < builds[-1]
    if name == "few, hinge":
        for part in ("newton_rows", "quasi_rows", "last"):
            assert any(getattr(fit, part).size for fit in fits)
        assert any(fit.history.held for fit in fits)


def test_one_of_these_fits_came_to_need_all_directions():
    _, _, left = whole("softmax")
    assert {bool(carried.recipe[-1]) for carried, _ in left} == {False, True}


@pytest.mark.parametrize("name", ["weak", "few, hinge", "l1"])
def test_no_part_could_be_left_out(name):
    """At some moment each decides the digits of what follows."""
    solution, curve, left = whole(name)
    # the least so far is soon undercut: the next test; a velocity is for the strengths of a path
    unnoticed = {path for path, _ in leaves_of(left[0][0])} - {".best", ".state.best", ".velocity"}
    if name == "l1":
        unnoticed.remove(".history.lengths")  # its steps are not scaled
    for share, factor in ((0.4, 0), (0.85, 0), (0.4, 1)):
        carried, told = left[int(share * len(left))]
        for path in sorted(unnoticed):
            without, size = spoiled(carried, path, factor)
            if size and differs(name, without, curve[told:], solution):
                unnoticed.remove(path)
    assert not unnoticed


def leaves_of(carried) -> list:
    """Arrays by name; numbers count as one."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(carried)
    return [(jax.tree_util.keystr(path) if np.ndim(a) else "numbers", a) for path, a in leaves]


def spoiled(carried, name, factor):
    """With nonsense in one of its leaves, and the size of that."""
    leaves, tree = leaves_of(carried), jax.tree.structure(carried)
    sizes = [np.size(a) for path, a in leaves if path == name]

    def nonsense(a):
        return (factor * np.arange(a.size)).reshape(a.shape).astype(a.dtype)

    changed = [nonsense(a) if path == name else a for path, a in leaves]
    return jax.tree.unflatten(tree, changed), sum(sizes)


def differs(name, carried, expected, solution) -> bool:
    class Otherwise(Exception):
        pass

    told = iter(expected)

    def compare(*seen):
        if tuple(map(float, seen)) != next(told, None):
            raise Otherwise

    try:
        with np.errstate(all="ignore"):
            rest, *_ = fitted(name, carried=carried, callback=compare)
    except (Otherwise, np.linalg.LinAlgError, ValueError, IndexError):
        return True
    return not np.array_equal(rest.params.weights, solution.params.weights)


@pytest.mark.parametrize("name", ["few", "few, hinge", "l1"])
def test_the_best_so_far_is_what_a_fit_without_steps_left_hands_back(name):
    carried, _ = whole(name)[2][5]
    state = carried.state if name == "few, hinge" else carried
    state = state._replace(best=state.best + 0.5, least=0.0)  # nothing undercuts it
    marked = carried._replace(state=state) if name == "few, hinge" else state
    rest, *_ = fitted(name, carried=marked, max_iterations=0)
    weights = state.best[: rest.params.weights.size]
    np.testing.assert_allclose(rest.params.weights.ravel(), weights, rtol=1e-6)


def test_what_another_fit_left_is_refused():
    carried, _ = whole("few")[2][0]
    for name in ("hinge", "softmax", "l1"):
        with pytest.raises(ValueError, match="`carried` is not of a fit of this kind and size"):
            fitted(name, carried=carried)


def test_over_two_devices_a_fit_goes_on_bit_for_bit_too(with_devices):
    """In a process of its own, with an uneven number of rows."""
    words = [sys.executable, __file__]
    done = subprocess.run(words, env=with_devices(2), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _over_two_devices():
    over = sharding.mesh(2)
    shape, settings = FITS["softmax"]
    FITS["softmax"] = (8001, *shape[1:]), settings | {"mesh": over, "tolerance": 1e-4}
    solution, curve, left = whole("softmax")
    carried, told = left[len(left) // 2]
    rest, later, _ = fitted("softmax", carried=carried)
    assert_same(rest, solution)
    assert curve[told:] == later

    # of a loss with kinks, what is as large as the rows goes back to their devices
    rows = open_sharded(np.ones((5, 2), np.float32), 3, over)
    scores = rows.scores(np.arange(6.0).reshape(3, 2), np.arange(3.0))
    opened = SimpleNamespace(rows=rows)
    again = beside(rows, to_host(opened, scores))
    assert again.sharding == scores.sharding
    assert to_host(opened, again).tolist() == to_host(opened, scores).tolist()
    assert to_host(opened, again).shape == (3, 5)


if __name__ == "__main__":
    _over_two_devices()
