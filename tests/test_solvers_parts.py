"""A start on a part of the rows: which rows, when, and that the proof is of all of them."""

import numpy as np
import pytest

from jaxlin.core import LinearParams
from jaxlin.distributed.sharding import mesh
from jaxlin.solvers import Status, fitting, minimize, minimize_path, smooth
from jaxlin.solvers.problem import open_problem

pytestmark = pytest.mark.usefixtures("as_if_large")
SHAPE = 6000, 30, 12


@pytest.fixture(autouse=True)
def _dear(monkeypatch):
    """A pass over 6,000 rows is dear, over 750 it is not."""
    monkeypatch.setitem(fitting.DEAR, "cpu", 4.0 * 5000 * 30 * 12)


@pytest.fixture(scope="module")
def data():
    size, features, classes = SHAPE
    rng = np.random.default_rng(0)
    inputs = (rng.normal(size=(size, features)) * np.linspace(3, 0.1, features)).astype(np.float32)
    scores = inputs @ rng.normal(size=(features, classes))
    return inputs, (scores + 3 * rng.normal(size=(size, classes))).argmax(1)


def opened(data, strength=1e-4, **changed):
    return open_problem(*data, strength=strength, **changed)[0]


def test_one_row_in_eight_of_every_class_stands_for_all(data):
    inputs, labels = data
    weights = np.random.default_rng(1).uniform(0.5, 2, len(labels)) * (np.arange(6000) % 3 > 0)
    problem = opened(data, sample_weight=weights)
    part = fitting.part_of(problem)
    counted = np.bincount(labels[weights > 0])
    there = np.bincount(part.host_labels)
    assert (np.abs(there - counted / 8) <= 1).all()
    assert there.sum() == part.rows.size == -(-(weights > 0).sum() // 8)
    np.testing.assert_allclose(part.counts.sum(), 1)
    np.testing.assert_allclose(part.masses, problem.masses, atol=0.05)  # 500 draws of 0.5 to 2
    # each of its rows is one of the data's that counts, beside its own label
    rows = part.rows.sample(np.arange(part.rows.size))
    pairs = zip(inputs[weights > 0], labels[weights > 0], strict=True)
    known = {row.tobytes(): label for row, label in pairs}
    assert [known[row.tobytes()] for row in rows] == part.host_labels.tolist()


def test_the_proof_is_of_all_rows_which_the_part_came_near_to(data, monkeypatch):
    seen = []
    settings = dict(strength=1e-4, tolerance=1e-6)
    begun = minimize(*data, callback=lambda *now: seen.append(now), **settings)
    monkeypatch.setitem(fitting.DEAR, "cpu", np.inf)
    whole = minimize(*data, **settings)
    assert begun.status == whole.status == Status.CONVERGED
    assert max(begun.lower_bound, whole.lower_bound) <= min(begun.objective, whole.objective)
    evaluations, objectives, bounds = np.array(seen).T
    assert (bounds <= whole.objective).all()
    # what is told on the way is of all rows, summed in float32 (8 roundings: lbfgs.noise_of); the
    # passes over the part are counted by its share
    rounding = 8 * np.finfo(np.float32).eps
    assert (objectives >= whole.lower_bound * (1 - rounding)).all()
    assert objectives[0] <= np.log(12) / 2  # log 12 at zero
    assert 1 < evaluations[0] < 4


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"strength": 0.0}, "no gap can be estimated"),
        ({"mesh": mesh(1)}, "each device has rows of its own"),
        ({"classes": 12, "dtype": np.float32, "sample_weight": "rare"}, "a class has 40 rows"),
    ],
)
def test_where_a_part_would_not_do_there_is_none(data, changed, why):
    if changed.get("sample_weight") == "rare":
        rare = np.flatnonzero(data[1] == 3)[40:]
        weights = np.ones(len(data[1]))
        weights[rare] = 0
        changed = changed | {"sample_weight": weights}
    assert fitting.part_of(opened(data)) is not None
    assert fitting.part_of(opened(data, **changed)) is None, why


def test_rows_that_are_read_in_every_pass_have_no_part(data, monkeypatch, tmp_path):
    np.save(tmp_path / "x.npy", data[0])
    monkeypatch.setattr("jaxlin.passes.device.RESIDENT_BYTES", 1000)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert fitting.part_of(opened((mapped, data[1]))) is None


def test_whoever_brings_a_start_begins_there(data, monkeypatch):
    asked = []
    monkeypatch.setattr(smooth, "part_of", lambda problem: asked.append(1))
    init = LinearParams(np.full((12, 30), 1e-3), np.zeros(12))
    minimize(*data, strength=1e-2, tolerance=1e-2, init=init)
    assert not asked
    minimize_path(*data, strengths=[1e-1, 1e-2], tolerance=1e-2)
    assert len(asked) == 1  # the second strength starts from the first


def test_a_part_of_very_many_rows_begins_with_a_part_of_its_own(data, monkeypatch):
    sizes, real = [], smooth.part_of

    def noted(problem):
        sizes.append(problem.rows.size)
        return real(problem)

    monkeypatch.setattr(smooth, "part_of", noted)
    monkeypatch.setattr(fitting, "FEWEST", 1)
    monkeypatch.setitem(fitting.DEAR, "cpu", 4.0 * 700 * 30 * 12)
    solution = minimize(*data, strength=1e-3)
    assert sizes == [6000, 750, 94]
    assert solution.status == Status.CONVERGED
