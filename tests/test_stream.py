"""Streamed minibatches: every row once an epoch, the same bits after a break, little memory."""

import os
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlin import losses, stream, train
from jaxlin.batches import steps_per_epoch
from jaxlin.core import Batch, DataError, LinearParams
from jaxlin.data import open_features
from jaxlin.data.rows import FileRows, take
from jaxlin.objectives import compose
from jaxlin.scores import linear

KEY = jax.random.key(5)
START = LinearParams(jnp.zeros((3, 4)), jnp.zeros(3))
DESCENT = train.trainer(
    partial(compose(linear, losses.softmax_cross_entropy), strength=0.01), optax.adam(0.1)
)
ROWS = 203
CHANGED = "(changed since it was opened|shrank while it was read)"  # a read may be under way


def stored(folder, dtype=np.float32, rows=ROWS, shards=3):
    """Row r holds r, so that a row tells who it is; classes 0, 1, 2."""
    inputs = np.zeros((rows, 4), dtype)
    inputs[:, 0] = np.arange(rows)
    edges = np.linspace(0, rows, shards + 1).astype(int)
    for number, (low, high) in enumerate(pairwise(edges)):
        np.save(folder / f"train-{number:05d}-of-{shards:05d}.npy", inputs[low:high])
    np.save(folder / "labels.npy", np.arange(rows) % 3)
    return inputs


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A stream whose windows of 32 rows are cut from blocks of 5 rows of 16 bytes."""
    stored(tmp_path)
    monkeypatch.setattr(stream, "WINDOW_BYTES", 39 * 16)
    monkeypatch.setattr(stream, "BLOCK_BYTES", 5 * 16)
    found = open_features(tmp_path, resident_bytes=4 * 39 * 16)
    return Batch(found.inputs, found.labels)


def seen(data, *, start, stop, batch_size=8, key=KEY):
    """The row numbers of every step, with their labels, filling left out."""
    steps = []
    for window in stream.windows(data, key=key, start=start, stop=stop, batch_size=batch_size):
        for step in range(window.first, window.first + window.steps):
            rows = np.asarray(window.plan.rows[step])[np.asarray(window.plan.weights[step]) > 0]
            numbers = np.asarray(window.data.inputs)[rows, 0].astype(int)
            assert (np.asarray(window.data.labels)[rows] == numbers % 3).all()
            steps.append(numbers)
    return steps


def test_an_epoch_sees_every_row_once_and_the_next_in_another_order(small):
    per_epoch = steps_per_epoch(ROWS, 8)
    steps = seen(small, start=0, stop=2 * per_epoch)
    assert [len(step) for step in steps] == [8] * 25 + [3] + [8] * 25 + [3]
    first, second = (np.concatenate(part) for part in (steps[:per_epoch], steps[per_epoch:]))
    assert sorted(first) == sorted(second) == list(range(ROWS))
    assert (first != second).mean() > 0.9


def test_any_step_can_be_the_first_one(small):
    whole = seen(small, start=0, stop=60)
    for start in (1, 4, 25, 26, 31, 59):
        for mine, its in zip(seen(small, start=start, stop=60), whole[start:], strict=True):
            np.testing.assert_array_equal(mine, its)


def test_a_window_holds_whole_blocks_in_random_order(small):
    window = next(stream.windows(small, key=KEY, start=0, stop=4, batch_size=8))
    numbers = np.sort(np.asarray(window.data.inputs)[:, 0].astype(int))
    assert len(numbers) == 32  # 39 rows fit, 4 whole batches
    blocks, counts = np.unique(numbers // 5, return_counts=True)
    own = np.where(blocks == ROWS // 5, ROWS % 5, 5)
    assert (counts != own).sum() <= 1  # at most the last one is cut
    assert (np.diff(blocks) > 1).any()


def test_one_window_is_a_complete_shuffle(small, monkeypatch):
    monkeypatch.setattr(stream, "WINDOW_BYTES", 1 << 20)
    small.inputs.resident_bytes = 4 << 20
    steps = np.concatenate(seen(small, start=0, stop=26))
    assert sorted(steps) == list(range(ROWS))
    # Spearman's correlation of a random order has a standard deviation of 1 / sqrt(202) = 0.07.
    assert abs(np.corrcoef(steps, np.arange(ROWS))[0, 1]) < 0.3


def last(iterator):
    *_, (state, _) = iterator
    return state


def same_bits(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_streamed_run_is_the_steps_taken_by_hand(small):
    state = DESCENT.init(START)
    order = seen(small, start=0, stop=30)
    inputs = small.inputs[:]
    for rows in order:
        state, _ = DESCENT.step(state, Batch(inputs[rows], small.labels[rows]))
    streamed = last(
        train.chunks(DESCENT, DESCENT.init(START), small, key=KEY, steps=30, batch_size=8)
    )
    # The same sums in another order, of up to 200 in float32 inputs and float64 parameters.
    np.testing.assert_allclose(streamed.params.weights, state.params.weights, rtol=1e-6, atol=1e-9)


def test_a_broken_run_goes_on_with_the_same_bits(small):
    run = partial(train.chunks, DESCENT, data=small, key=KEY, batch_size=8)
    whole = last(run(state=DESCENT.init(START), steps=40))
    for at in (3, 26, 30):
        same_bits(last(run(state=last(run(state=DESCENT.init(START), steps=at)), steps=40)), whole)
    same_bits(last(run(state=DESCENT.init(START), steps=40, chunk_steps=3)), whole)


def test_run_streams_and_compiles_once(small):
    traces = []

    def objective(params, batch):
        traces.append(1)
        return compose(linear, losses.softmax_cross_entropy)(params, batch)

    fit = train.run(
        train.trainer(objective, optax.sgd(1e-3)), START, small, key=KEY, steps=30, batch_size=8
    )
    assert fit.status == "done"
    assert int(fit.state.step) == 30
    assert len(traces) == 1


def test_sample_weights_are_streamed_with_their_rows(small):
    counts = np.where(np.arange(ROWS) % 2 == 0, 0.0, 1.0)
    data = small._replace(weights=counts)
    for window in stream.windows(data, key=KEY, start=0, stop=26, batch_size=8):
        used = np.asarray(window.plan.weights).ravel() > 0
        rows = np.asarray(window.plan.rows).ravel()[used]
        numbers = np.asarray(window.data.inputs)[rows, 0].astype(int)
        np.testing.assert_array_equal(np.asarray(window.data.weights)[rows], counts[numbers])


def test_a_view_streams_its_rows_only(small):
    chosen = np.sort(np.random.default_rng(0).permutation(ROWS)[:180])
    data = Batch(take(small.inputs, chosen), small.labels[chosen])
    assert stream.is_streamed(data.inputs)
    numbers = np.concatenate(seen(data, start=0, stop=23))
    assert sorted(numbers) == chosen.tolist()


def test_a_large_memory_map_is_streamed_through_reads(tmp_path, monkeypatch):
    np.save(tmp_path / "inputs.npy", stored(tmp_path))
    mapped = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    assert not stream.is_streamed(mapped)
    monkeypatch.setattr(stream, "RESIDENT_BYTES", 1000)
    assert stream.is_streamed(mapped)
    data = Batch(mapped[40:190], np.arange(40, 190) % 3)
    numbers = np.concatenate(seen(data, start=0, stop=19))
    assert sorted(numbers) == list(range(40, 190))


def test_a_source_that_fits_is_trained_as_an_array(tmp_path):
    inputs = stored(tmp_path)
    found = open_features(tmp_path)
    assert isinstance(found.inputs, FileRows)
    assert not stream.is_streamed(found.inputs)
    run = partial(train.chunks, DESCENT, DESCENT.init(START), key=KEY, steps=30, batch_size=8)
    same_bits(last(run(Batch(found.inputs, found.labels))), last(run(Batch(inputs, found.labels))))


def test_a_file_that_shrinks_in_the_middle_ends_the_run_in_a_sentence(small):
    steps = train.chunks(DESCENT, DESCENT.init(START), small, key=KEY, steps=1000, batch_size=8)
    next(steps)
    path = small.inputs.shards[1].path
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=f"{path.name}: {CHANGED}"):
        for _ in steps:
            pass


def test_a_file_that_is_written_to_ends_the_run_in_a_sentence(small):
    steps = train.chunks(DESCENT, DESCENT.init(START), small, key=KEY, steps=1000, batch_size=8)
    next(steps)
    path = small.inputs.shards[2].path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path.name}: {CHANGED}"):
        for _ in steps:
            pass


def test_the_precision_of_the_caller_holds_in_the_thread(small):
    with jax.enable_x64(False):
        narrow = next(stream.windows(small._replace(labels=np.arange(ROWS)), key=KEY, start=0,
                                     stop=4, batch_size=8))  # fmt: skip
    assert narrow.data.labels.dtype == np.int32
