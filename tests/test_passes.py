"""A pass over chunks is one product over all rows, whatever the chunk, the dtype and the mask."""

from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse

from jaxlin.core import DataError
from jaxlin.data import open_features
from jaxlin.distributed import sharding
from jaxlin.passes import DeviceRows, HostRows, open_rows, open_sharded
from jaxlin.solvers.problem import _check_range


def data(size=37, features=5, classes=3, dtype=np.uint8):
    generator = np.random.default_rng(0)
    inputs = generator.integers(0, 255, (size, features)).astype(dtype)
    shift, scale = generator.normal(100, 20, features), generator.uniform(0.01, 0.02, features)
    weights, bias = generator.normal(size=(classes, features)), generator.normal(size=classes)
    return inputs, shift, scale, weights, bias


def quadratic(xp, scores, labels, counts, target):
    """A loss that any loop can evaluate: counts * (s - target)^2 / 2 over all classes."""
    residuals = (scores - target) * counts[None, :]
    return ((scores - target) ** 2 * counts[None, :]).sum() / 2, residuals


def half_with_square(xp, residuals, counts):
    """Half of the residuals, and a sum beside."""
    return residuals / 2, ((counts[None, :] * residuals**2).sum(),)


READERS = [
    pytest.param(dict(host=True), id="numpy"),
    pytest.param(dict(host=False), id="xla"),
    pytest.param(dict(host=False, chunk=8), id="xla in chunks that overlap"),
]


def reader(inputs, shift, scale, dtype, host, chunk=None):
    rows = open_rows(inputs, 3, shift=shift, scale=scale, dtype=dtype, host=host)
    assert isinstance(rows, HostRows if host else DeviceRows)
    if chunk:
        rows.chunk = chunk
    return rows


@pytest.mark.parametrize("settings", READERS)
@pytest.mark.parametrize("raw", [np.uint8, np.float64])
def test_every_pass_is_the_product_over_all_rows(settings, raw):
    inputs, shift, scale, weights, bias = data(dtype=raw)
    rows = reader(inputs, shift, scale, np.float64, **settings)
    mapped = (inputs.astype(float) - shift) * scale
    scores = weights @ mapped.T + bias[:, None]
    np.testing.assert_allclose(rows.scores(weights, bias), scores, rtol=1e-12, atol=1e-12)
    residuals = np.random.default_rng(1).normal(size=scores.shape)
    product, sums = rows.transpose(residuals)
    np.testing.assert_allclose(product, residuals @ mapped, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(sums, residuals.sum(1), rtol=1e-12, atol=1e-12)
    counts = np.arange(len(inputs)) / 10.0
    labels = np.zeros(len(inputs), np.int32)
    if not isinstance(rows, HostRows):
        labels = jax.numpy.asarray(labels)
    value, gradient, sums = rows.fused(quadratic, weights, bias, labels, counts, 0.5)
    np.testing.assert_allclose(value, (counts * (scores - 0.5) ** 2).sum() / 2, rtol=1e-12)
    np.testing.assert_allclose(gradient, (counts * (scores - 0.5)) @ mapped, rtol=1e-11)
    np.testing.assert_allclose(sums, (counts * (scores - 0.5)).sum(1), rtol=1e-11)
    by_row = (residuals, counts)
    product, _, (square,) = rows.transpose_total(half_with_square, by_row)
    np.testing.assert_allclose(product, residuals @ mapped / 2, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(square, (counts * residuals**2).sum(), rtol=1e-11)
    chosen = np.array([30, 2, 2, 17])
    np.testing.assert_allclose(rows.sample(chosen), mapped[chosen], rtol=1e-12, atol=1e-13)
    assert rows.radius() >= np.linalg.norm(mapped, axis=1).max()


@pytest.mark.parametrize("settings", READERS)
def test_float32_is_float64_up_to_its_rounding(settings):
    inputs, shift, scale, weights, bias = data()
    rows = reader(inputs, shift, scale, np.float32, **settings)
    mapped = (inputs.astype(float) - shift) * scale
    # terms up to 5 * 255 * 0.02 * |w| enter each score: a few hundred roundings of 6e-8
    expected = weights @ mapped.T + bias[:, None]
    np.testing.assert_allclose(rows.scores(weights, bias), expected, atol=2e-5)
    assert rows.scores(weights, bias).dtype == np.float32
    assert rows.scores(weights, bias, np.float64).dtype == np.float64


def test_a_memory_map_is_read_in_parts(tmp_path, monkeypatch):
    inputs, shift, scale, weights, bias = data(size=500)
    np.save(tmp_path / "inputs.npy", inputs)
    mapped = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    monkeypatch.setattr("jaxlin.passes.device.RESIDENT_BYTES", 100)
    monkeypatch.setattr("jaxlin.passes.device.PART_BYTES", 5 * 120)
    rows = open_rows(mapped, 3, shift=shift, scale=scale, dtype=np.float64, host=False)
    rows.chunk = 40
    rows._parts = [slice(i, min(i + 120, 500)) for i in range(0, 500, 120)]
    assert rows._resident is None
    whole = (inputs - shift) * scale
    np.testing.assert_allclose(
        rows.scores(weights, bias), weights @ whole.T + bias[:, None], rtol=1e-11, atol=1e-11
    )
    residuals = np.random.default_rng(1).normal(size=(3, 500))
    np.testing.assert_allclose(
        rows.transpose(residuals)[0], residuals @ whole, rtol=1e-10, atol=1e-10
    )
    by_row = (jax.numpy.asarray(residuals), jax.numpy.ones(500))
    product, _, (square,) = rows.transpose_total(half_with_square, by_row)
    np.testing.assert_allclose(product, residuals @ whole / 2, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(square, np.sum(residuals**2), rtol=1e-11)


def test_float64_survives_where_jax_works_in_float32():
    inputs, _, _, weights, bias = data(dtype=np.float64)
    with jax.enable_x64(False):
        rows = open_rows(inputs, 3, host=False)
        scores = rows.scores(weights, bias)
        assert scores.dtype == np.float64
        np.testing.assert_allclose(scores, weights @ inputs.T + bias[:, None], rtol=1e-13)


def test_sparse_rows_are_the_dense_ones():
    inputs, _, scale, weights, bias = data()
    inputs[inputs < 200] = 0
    sparse = open_rows(scipy.sparse.csr_matrix(inputs), 3, scale=scale, dtype=np.float64)
    dense = open_rows(inputs, 3, scale=scale, dtype=np.float64, host=True)
    np.testing.assert_allclose(sparse.scores(weights, bias), dense.scores(weights, bias))
    residuals = np.random.default_rng(1).normal(size=(3, len(inputs)))
    np.testing.assert_allclose(sparse.transpose(residuals)[0], dense.transpose(residuals)[0])
    np.testing.assert_allclose(sparse.sample(np.arange(4)), dense.sample(np.arange(4)))
    with pytest.raises(ValueError, match="sparse and cannot be shifted"):
        open_rows(scipy.sparse.csr_matrix(inputs), 3, shift=np.ones(5))


def test_a_map_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match=r"`scale` must have one entry per feature, \(5,\)"):
        open_rows(data()[0], 3, scale=np.ones(4))


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, ml_dtypes.bfloat16], ids=str)
def test_a_source_is_read_ahead_in_parts_and_keeps_its_type(tmp_path, monkeypatch, dtype):
    inputs, shift, scale, weights, bias = data(size=500, dtype=dtype)
    np.save(tmp_path / "inputs.npy", inputs)
    monkeypatch.setattr("jaxlin.passes.device.PART_BYTES", 0)  # parts of one chunk
    source = open_features(tmp_path / "inputs.npy", resident_bytes=100).inputs
    rows = open_rows(source, 3, shift=shift, scale=scale, dtype=np.float64, host=False)
    rows.chunk = 40
    rows._parts = [slice(i, min(i + 120, 500)) for i in range(0, 500, 120)]
    assert rows._resident is None
    parts = [part for _, part in rows._each()]
    assert [part.dtype for part in parts] == [np.dtype(dtype)] * 5
    whole = (inputs.astype(float) - shift) * scale
    counts = np.full(500, 1 / 500)
    value, gradient, _ = rows.fused(
        quadratic, weights, bias, jax.numpy.zeros(500, np.int32), counts, 0.5
    )
    scores = weights @ whole.T + bias[:, None]
    np.testing.assert_allclose(value, ((scores - 0.5) ** 2).sum() / 1000, rtol=1e-12)
    np.testing.assert_allclose(gradient, (scores - 0.5) @ whole / 500, rtol=1e-11)
    np.testing.assert_allclose(rows.sample(np.array([9, 3])), whole[[9, 3]], rtol=1e-12)


def test_the_pages_of_a_map_are_given_back(tmp_path, monkeypatch):
    np.save(tmp_path / "inputs.npy", np.ones((20_000, 256), np.float32))  # 20 MB
    monkeypatch.setattr("jaxlin.passes.device.RESIDENT_BYTES", 100)
    monkeypatch.setattr("jaxlin.passes.device.PART_BYTES", 1 << 20)
    mapped = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    rows = open_rows(mapped, 3, host=False)
    assert len(rows._parts) > 4

    def pages():
        """Resident bytes of the map itself."""
        lines = Path("/proc/self/smaps").read_text(encoding="utf-8").split("\n")
        own = next(i for i, line in enumerate(lines) if str(tmp_path) in line)
        line = next(line for line in lines[own:] if line.startswith("Rss:"))
        return 1024 * int(line.split()[1])

    for _ in rows._each():
        pass
    assert pages() <= 2 << 20


def test_a_source_with_a_number_that_is_not_finite_is_refused_in_the_pass(tmp_path):
    inputs = np.ones((500, 5), np.float32)
    inputs[77, 2] = np.inf
    np.save(tmp_path / "inputs.npy", inputs)
    source = open_features(tmp_path / "inputs.npy", resident_bytes=100).inputs
    rows = open_rows(source, 3, host=False)
    with pytest.raises(DataError, match=r"inputs.npy: .* got inf at row 77, column 2"):
        rows.scores(np.ones((3, 5)), np.zeros(3))


@pytest.mark.parametrize(
    ("dtype", "scale", "passes"),
    [(np.uint8, 1.0, 0), (np.int16, 1.0, 0), (np.int64, 1.0, 1), (np.uint8, 1e18, 1)],
)
def test_small_integers_are_in_range_without_a_look(dtype, scale, passes, monkeypatch):
    seen = []
    monkeypatch.setattr(DeviceRows, "_largest_square", lambda rows, *_: seen.append(rows) or 1.0)
    inputs = np.ones((9, 2), dtype)
    _check_range(reader(inputs, np.zeros(2), scale * np.ones(2), np.float32, host=False))
    assert len(seen) == passes


@pytest.mark.parametrize("kept", [None, np.dtype(np.float32)])
@pytest.mark.parametrize("source", ["device", "parts", "sparse", "mesh"])
def test_sums_over_functions_of_scores_keep_these_in_another_dtype(source, kept, monkeypatch):
    """What is kept are the scores in float64, rounded once; the sums are those of float64."""
    rng = np.random.default_rng(8)
    inputs, labels = rng.normal(size=(37, 5)), np.arange(37, dtype=np.int32) % 3
    weights, bias = rng.normal(size=(3, 5)), rng.normal(size=3)
    if source == "sparse":
        rows = open_rows(scipy.sparse.csr_array(inputs), 3)
    elif source == "mesh":
        rows = open_sharded(inputs, 3, sharding.mesh(1))
    else:
        rows = DeviceRows(inputs, 3, None, None, np.dtype(np.float64))
    rows.chunk = 8
    if source == "parts":
        rows._resident, rows._parts = None, [slice(0, 16), slice(16, 32), slice(32, 37)]

    def rowwise(xp, scores, labels, factor):
        return (factor * xp.exp(scores)).sum(), labels.sum()

    with jax.enable_x64(True):
        found, (total, classes) = rows.evaluated(rowwise, weights, bias, (labels,), 2.0, kept=kept)
    scores = weights @ inputs.T + bias[:, None]
    assert float(total) == pytest.approx(2 * np.exp(scores).sum(), rel=1e-13)
    assert int(classes) == labels.sum()
    if kept is None:
        assert found is None
    else:
        assert found.dtype == kept
        np.testing.assert_allclose(found, scores, rtol=2**-23, atol=1e-7)
