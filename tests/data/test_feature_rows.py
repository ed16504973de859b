"""Rows of features in files: any choice of them, of any type, from disk or cache, as arrays."""

import os

import ml_dtypes
import numpy as np
import pytest

from jaxlin.core import DataError
from jaxlin.data import load, open_features, reading
from jaxlin.data import rows as rows_module
from jaxlin.data.rows import FileRows, all_finite, extremes, fill, from_map, take

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(kind) for kind in ("f2", "f4", "f8", "u1", "i2", ">f4")] + [BFLOAT16]
ROWS, WIDTH = 100, 7


CHOICES = {
    "all": slice(None),
    "a run": slice(3, 90),
    "backwards": slice(90, 10, -7),
    "nothing": slice(5, 5),
    "any order": np.random.default_rng(1).permutation(ROWS)[:40],
    "sorted with gaps": np.arange(2, ROWS, 3),
    "doubles": np.array([5, 5, 4, 99, 4]),
    "from the end": [5, -1],
    "a mask": np.arange(ROWS) % 5 == 0,
    "one row": 17,
}


@pytest.mark.parametrize("pieces", [(4 << 20, 64 << 10), (14 * 5, 14 * 2), (1, 1)])
@pytest.mark.parametrize("choice", CHOICES)
def test_any_choice_of_rows_is_the_arrays(tmp_path, monkeypatch, choice, pieces, series, numbers):
    monkeypatch.setattr(rows_module, "PIECE_BYTES", pieces[0])
    monkeypatch.setattr(rows_module, "GAP_BYTES", pieces[1])
    inputs, rows = numbers(), CHOICES[choice]
    source = open_features(series(tmp_path, inputs)).inputs
    np.testing.assert_array_equal(source[rows], inputs[rows])
    order = np.random.default_rng(2).permutation(ROWS)
    if choice != "a mask":
        np.testing.assert_array_equal(take(source, order)[rows], inputs[order][rows])


@pytest.mark.parametrize("ending", ["npy", "safetensors"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_comes_back_as_it_was(tmp_path, dtype, ending, series, numbers):
    inputs = numbers(dtype)
    if ending == "safetensors" and not dtype.isnative:
        pytest.skip("safetensors knows one byte order")
    found = open_features(series(tmp_path, inputs, ending=ending))
    assert found.inputs.dtype == dtype.newbyteorder("=")
    np.testing.assert_array_equal(found.inputs[:], inputs)
    np.testing.assert_array_equal(np.asarray(found.inputs), inputs)
    assert found.labels.tolist() == [r % 3 for r in range(ROWS)]
    assert len(load(tmp_path).fingerprint) == 64


def test_what_fits_the_memory_is_an_array_and_what_does_not_stays_in_its_files(
    tmp_path, series, numbers
):
    series(tmp_path, numbers())
    assert isinstance(load(tmp_path, memory=ROWS * WIDTH * 2).inputs, np.ndarray)
    left = load(tmp_path, memory=ROWS * WIDTH * 2 - 1)
    assert isinstance(left.inputs, FileRows)
    assert left.fingerprint == load(tmp_path).fingerprint


def test_a_map_and_its_rows_are_read_from_their_file(tmp_path, numbers):
    np.save(tmp_path / "a.npy", numbers())
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    for view in (mapped, mapped[13:], mapped[20:30][2:]):
        assert isinstance(from_map(view), FileRows)
        np.testing.assert_array_equal(from_map(view)[:], view)
    assert from_map(mapped[::2]).shape == (50, WIDTH)
    assert not isinstance(from_map(mapped[::2]), FileRows)


def test_sources_of_other_kinds_fill_a_buffer_too(numbers):
    inputs = numbers()
    out = np.empty((12, WIDTH), np.float16)
    fill(inputs, out, [range(3, 10), np.array([50, 2, 2, 7, 9])])
    np.testing.assert_array_equal(out, inputs[[*range(3, 10), 50, 2, 2, 7, 9]])


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32, np.float64], ids=str)
def test_the_bits_tell_what_isfinite_tells(dtype):
    largest = ml_dtypes.finfo(dtype).max
    for good in (0.0, -0.0, largest, -largest, ml_dtypes.finfo(dtype).smallest_subnormal):
        assert all_finite(np.full((3, 2), good, dtype))
    for bad in (np.nan, -np.nan, np.inf, -np.inf):
        for filling in (1.0, -1.0):
            block = np.full((3, 2), filling, dtype)
            block[1, 1] = bad
            assert not all_finite(block)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32, np.float64, np.int16], ids=str)
@pytest.mark.parametrize(("low", "high"), [(-50, 60), (1, 60), (-60, -1), (0, 9), (-9, 0), (3, 3)])
def test_the_bits_tell_the_least_and_the_largest(dtype, low, high):
    block = np.random.default_rng(0).integers(low, high + 1, (40, 3)).astype(dtype)
    assert extremes(block) == (block.min(), block.max())


@pytest.mark.parametrize("harm", ["shrinks", "grows", "touched", "gone", "cut while it is read"])
def test_a_file_that_changes_ends_in_a_sentence(tmp_path, monkeypatch, harm, series, numbers):
    series(tmp_path, numbers())
    inputs = load(tmp_path, memory=0).inputs
    path = tmp_path / "train-00001-of-00004.npy"
    if harm == "gone":
        path.unlink()
    elif harm == "touched":
        os.utime(path, ns=(0, 0))
    elif harm == "grows":
        path.write_bytes(path.read_bytes() + b"\0")
    elif harm == "shrinks":
        os.truncate(path, 200)
    else:
        pread = os.preadv

        def cut_first(*arguments):
            os.truncate(path, 200)
            return pread(*arguments)

        monkeypatch.setattr(os, "preadv", cut_first)
    with pytest.raises(DataError, match=r"train-00001-of-00004.npy: .*Start again with files"):
        inputs[:]


@pytest.mark.parametrize("direct", [True, False], ids=["past the cache", "plain"])
def test_large_reads_come_from_the_disk_and_from_the_cache_alike(tmp_path, monkeypatch, direct):
    if not direct:
        monkeypatch.setattr(reading, "_DIRECT", None)
    inputs = np.random.default_rng(0).normal(size=(3000, 333)).astype(np.float32)  # 4 MB
    path = tmp_path / "a.npy"
    np.save(path, inputs)
    source = open_features(path).inputs
    with path.open("rb") as file:
        for rows in (slice(None), slice(1, 2999), slice(700, 1100), np.arange(2990, 10, -1)):
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.read(300_000)  # a part of it is in the cache again
            np.testing.assert_array_equal(source[rows], inputs[rows])


def test_where_direct_reads_fail_plain_ones_go_on(tmp_path, monkeypatch):
    inputs = np.ones((3000, 100), np.float32)
    np.save(tmp_path / "a.npy", inputs)
    source, plain = open_features(tmp_path / "a.npy").inputs, os.preadv
    refused = []

    def only_plain(descriptor, buffers, position, *flags):
        if flags or len(buffers[0]) % 4096 == 0:
            refused.append(position)
            raise OSError(22, "Invalid argument")
        return plain(descriptor, buffers, position)

    monkeypatch.setattr(os, "preadv", only_plain)
    np.testing.assert_array_equal(source[:2999], inputs[:2999])
    assert refused
