"""Blocks of an accelerator's size give what a CPU's give; the device of the rows decides."""

import sys
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlin import losses, train
from jaxlin.blocks import CPU, blocks_for, blocks_on
from jaxlin.core import Batch, LinearParams
from jaxlin.gradients import finite_differences, linear_objective
from jaxlin.landscape import affine_plane, hinge_profile
from jaxlin.memory import kept_bytes
from jaxlin.objectives import compose
from jaxlin.passes import open_rows
from jaxlin.scores import linear
from jaxlin.solvers import Status, minimize
from jaxlin.transfer import device_of

GPU = SimpleNamespace(
    platform="gpu",
    device_kind="NVIDIA H100",
    id=0,
    memory_stats=lambda: {"bytes_limit": 80 << 30, "bytes_in_use": 20 << 30},
)


@pytest.fixture
def on_a_gpu(monkeypatch):
    """What asks for the device of an array is told of a GPU; the CPU computes all the same."""
    monkeypatch.setattr("jaxlin.passes.device.device_of", lambda array=None: GPU)
    for name in ("landscape.affine", "landscape.hinge_profile", "gradients.structured", "steps"):
        module = sys.modules[f"jaxlin.{name}"]
        monkeypatch.setattr(module, "blocks_on", lambda device: blocks_on(GPU))


@pytest.fixture
def examples(blobs):
    inputs, labels = blobs(size=3000, features=6, classes=4)
    return inputs.astype(np.float32), labels


def test_accelerators_have_larger_blocks_as_their_memory_allows():
    ample, small, tiny = (blocks_for("gpu", gib << 30) for gib in (80, 8, 0))
    assert all(a >= b >= c for a, b, c in zip(ample, small, tiny, strict=True))
    assert ample == blocks_on(GPU)
    assert CPU.scores < blocks_for("tpu").scores < ample.scores  # no launches to be hidden
    assert small.scores < ample.scores
    assert tiny.scores == CPU.scores  # never fewer than a cache holds
    assert blocks_on(jax.local_devices()[0]) == CPU == blocks_for("cpu", 1)


def test_an_array_is_asked_where_it_is():
    (device, *_) = jax.local_devices()
    assert device_of(jnp.ones(3)) == device_of(np.ones(3)) == device_of() == device
    with jax.default_device(device):
        assert device_of() == device


def test_memory_of_an_accelerator_is_half_planned_with():
    assert kept_bytes(GPU, 1000) == 30 << 30  # of 60 GiB that are free
    assert kept_bytes(jax.local_devices()[0], 1000) == 1000


def test_passes_in_large_blocks_are_those_in_small_ones(examples, on_a_gpu):
    inputs, _ = examples
    rows = open_rows(inputs, 4, host=False, dtype=np.float64)
    assert rows.chunk == len(inputs)
    assert rows.blocks.scores > CPU.scores
    weights = np.random.default_rng(0).normal(size=(4, 6))
    scores = rows.scores(weights, np.zeros(4))
    # products and sums of 6 terms, each rounded to 1.1e-16
    np.testing.assert_allclose(scores, weights @ inputs.T.astype(float), rtol=0, atol=1e-13)


@pytest.mark.parametrize("loss", ["softmax", "hinge"])
def test_a_fit_in_large_blocks_is_certified(examples, on_a_gpu, monkeypatch, loss):
    monkeypatch.setattr("jaxlin.passes.opening.SMALL_PROBLEM", 0)
    found = minimize(*examples, loss=loss, strength=1e-3, tolerance=1e-4)
    assert found.status == Status.CONVERGED
    assert found.gap <= 1e-4 * found.objective


def test_rows_that_fit_the_device_are_kept_there(tmp_path, examples, on_a_gpu, monkeypatch):
    inputs, _ = examples
    np.save(tmp_path / "inputs.npy", inputs)
    mapped = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    monkeypatch.setattr("jaxlin.passes.device.RESIDENT_BYTES", 1000)
    monkeypatch.setattr("jaxlin.passes.device.PART_BYTES", 0)
    monkeypatch.setattr("jaxlin.passes.device.chunk_size", lambda *_: 700)  # 5 parts
    kept = open_rows(mapped, 4, host=False)
    assert kept.resident
    np.testing.assert_array_equal(kept.sample(np.arange(3000)), inputs)
    crowded = SimpleNamespace(
        platform="gpu", memory_stats=lambda: {"bytes_limit": 80 << 30, "bytes_in_use": 80 << 30}
    )
    monkeypatch.setattr("jaxlin.passes.device.device_of", lambda array=None: crowded)
    assert not open_rows(mapped, 4, host=False).resident


@pytest.mark.parametrize(
    "loss", [losses.softmax_cross_entropy, losses.weston_watkins_hinge, lambda s, y: s.sum(-1) ** 2]
)
def test_planes_in_large_blocks_are_those_in_small_ones(examples, loss, request):
    rng = np.random.default_rng(0)
    point, one, two = (LinearParams(rng.normal(size=(4, 6)), rng.normal(size=4)) for _ in range(3))
    steps = np.linspace(-1, 1, 7)
    plane = partial(affine_plane, point, one, two, steps, steps, *examples, loss=loss)
    small = plane()
    request.getfixturevalue("on_a_gpu")
    # 3,000 float64 losses, added up in another order: some hundred roundings of 1.1e-16
    np.testing.assert_allclose(plane(), small, rtol=1e-13)


def test_profiles_and_differences_in_large_blocks_are_those_in_small_ones(examples, request):
    rng = np.random.default_rng(0)
    point, along = (LinearParams(rng.normal(size=(4, 6)), rng.normal(size=4)) for _ in range(2))
    inputs, labels = examples
    weights = rng.uniform(size=len(labels))
    batches = Batch(inputs, labels), Batch(inputs, labels, weights)
    functions = [
        linear_objective(loss, batch)
        for loss in (losses.softmax_cross_entropy, losses.squared_crammer_singer_hinge)
        for batch in batches
    ]

    def found():
        numeric = [finite_differences.gradient(f, point).value for f in functions]
        return hinge_profile(point, along, *examples)[:3], numeric

    small = found()
    request.getfixturevalue("on_a_gpu")
    # sums of 3,000 terms in another order; what cancels in a difference is left out on paper
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), found(), small)


def test_steps_in_runs_are_the_steps_one_by_one(examples, request):
    inputs, labels = examples
    descent = train.trainer(compose(linear, losses.softmax_cross_entropy), optax.adam(1e-2))
    state = descent.init(LinearParams(jnp.zeros((4, 6)), jnp.zeros(4)))

    def taken():
        return [
            (int(new.step), new.params, infos)
            for new, infos in train.chunks(
                descent, state, Batch(inputs, labels), key=jax.random.key(0), steps=130,
                batch_size=40, until=lambda step: 100 if step < 100 else 131,
            )
        ]  # fmt: skip

    singly = taken()
    request.getfixturevalue("on_a_gpu")
    in_runs = taken()
    assert [step for step, *_ in singly] == [75, 100, 130]
    assert [step for step, *_ in in_runs] == [64, 75, 100, 130]
    for a, b in zip(singly[-1][1], in_runs[-1][1], strict=True):
        np.testing.assert_array_equal(a, b)
    losses_of = [np.concatenate([info.loss for *_, info in each]) for each in (singly, in_runs)]
    np.testing.assert_array_equal(*losses_of)
