"""The experiments on streams, on small data."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from jaxlin import stream

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def experiment(name):
    spec = importlib.util.spec_from_file_location(Path(name).name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_measures_what_it_names(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS / "benchmarks")
    bench = experiment("benchmarks/streaming")
    monkeypatch.setattr(bench, "SHARD_BYTES", 1 << 20)
    bench.write(tmp_path / "set", 0.004, 32, 7)
    work = bench.Work(tmp_path / "set", 256)
    assert len(work.inputs.shards) == 4
    work.inputs.resident_bytes = 1 << 21
    assert stream.is_streamed(work.inputs)
    for task in bench.TASKS.values():
        assert getattr(work, task)() > 0
    rows = work.rows(work.inputs)
    value, gradient, _ = work.gradient(rows, work.labels)()
    assert float(np.sum(value)) == pytest.approx(np.log(7), rel=1e-6)  # zero weights know nothing
    shares = (np.full((7, len(work.labels)), 1 / 7) - np.eye(7)[work.labels].T) / len(work.labels)
    expected = shares @ work.inputs[:].astype(np.float64)
    # float32 sums of 62,500 numbers of size 1 / 62,500
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_blocks_are_worth_a_complete_shuffle(tmp_path, monkeypatch):
    shuffle = experiment("shuffle_in_blocks")
    for name, value in {"SHARES": (0.2,), "BLOCKS_OF_A_WINDOW": (16,), "SEEDS": 1}.items():
        monkeypatch.setattr(shuffle, name, value)
    monkeypatch.setattr(stream, "BLOCK_BYTES", stream.BLOCK_BYTES)
    found = shuffle.run("digits", None, tmp_path, None)
    (streamed,) = (row["test_accuracy"] for row in found["streamed"])
    assert abs(np.mean(streamed) - np.mean(found["complete_shuffle"])) < 0.03
    assert found["file_order"] < np.mean(streamed)
