"""Rows that are read from disk in every pass are fitted and certified as those in memory are."""

import numpy as np
import pytest
from scipy.special import logsumexp

from jaxlin.blocks import CPU
from jaxlin.data import open_features
from jaxlin.solvers import Status, minimize
from jaxlin.solvers.problem import open_problem

STRENGTH = 1e-3


@pytest.fixture(autouse=True)
def _in_parts(monkeypatch):
    """Nothing is small, nothing stays in memory: 2,000 rows are read as eight parts."""
    monkeypatch.setattr("jaxlin.passes.opening.SMALL_PROBLEM", 0)
    monkeypatch.setattr("jaxlin.passes.device.RESIDENT_BYTES", 1000)
    monkeypatch.setattr("jaxlin.passes.device.PART_BYTES", 0)
    monkeypatch.setattr("jaxlin.blocks.CPU", CPU._replace(chunk_bytes=256 * 12 * 4))


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = np.arange(2000) % 4
    inputs = rng.normal(size=(4, 8))[labels] + rng.normal(size=(2000, 8))
    return inputs.astype(np.float32), labels


@pytest.fixture
def memory_map(data, tmp_path):
    np.save(tmp_path / "x.npy", data[0])
    return np.load(tmp_path / "x.npy", mmap_mode="r")


@pytest.fixture
def shards(data, tmp_path):
    for i, part in enumerate(np.split(data[0], [700, 1500])):
        np.save(tmp_path / f"train-0000{i}-of-00003.npy", part)
    return open_features(tmp_path, labeled=False, resident_bytes=1000).inputs


@pytest.mark.parametrize(("rows", "loss"), [
    ("memory_map", "softmax"), ("memory_map", "hinge"), ("shards", "softmax"),
])  # fmt: skip
def test_a_streamed_fit_has_the_bounds_of_one_in_memory(rows, loss, data, request):
    streamed, (inputs, labels) = request.getfixturevalue(rows), data
    settings = dict(loss=loss, strength=STRENGTH, tolerance=1e-3)
    rows = open_problem(streamed, labels, **settings)[0].rows
    assert rows._resident is None
    assert len(list(rows._each())) > 4
    found = minimize(streamed, labels, **settings)
    assert found.status == Status.CONVERGED
    whole = minimize(inputs.astype(np.float64), labels, **settings)
    assert found.lower_bound <= whole.objective
    assert whole.lower_bound <= found.objective
    if loss == "softmax":  # the objective is that of the parameters that were handed back
        weights, bias = (np.asarray(part, np.float64) for part in found.params)
        scores = inputs.astype(np.float64) @ weights.T + bias
        losses = logsumexp(scores, axis=1) - scores[np.arange(2000), labels]
        expected = losses.mean() + STRENGTH * np.sum(weights**2)
        np.testing.assert_allclose(found.objective, expected, rtol=1e-12)


def test_an_l1_fit_is_streamed_too(memory_map, data):
    settings = dict(strength=STRENGTH, l1_strength=1e-3, tolerance=1e-3)
    found = minimize(memory_map, data[1], **settings)
    assert found.status == Status.CONVERGED
    whole = minimize(data[0].astype(np.float64), data[1], **settings)
    assert found.lower_bound <= whole.objective
    assert whole.lower_bound <= found.objective
