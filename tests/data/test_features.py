"""Features in files: what is read, in which layouts, and every way in which they can be bad."""

import json
import os
import struct
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxlin.core import DataError
from jaxlin.data import load, load_inputs, load_splits, load_validation, open_features, reading
from jaxlin.data import rows as rows_module
from jaxlin.data.rows import FileRows, all_finite, extremes, fill, from_map, take
from jaxlin.data.survey import survey

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(kind) for kind in ("f2", "f4", "f8", "u1", "i2", ">f4")] + [BFLOAT16]
ROWS, WIDTH = 100, 7


def numbers(dtype=np.float16):
    return np.random.default_rng(0).integers(0, 100, (ROWS, WIDTH)).astype(dtype)


def series(folder, inputs, *, name="train", count=4, ending="npy", labels=True):
    folder.mkdir(exist_ok=True)
    edges = np.linspace(0, len(inputs), count + 1).astype(int)
    for number, (low, high) in enumerate(pairwise(edges)):
        stem = folder / f"{name}-{number:05d}-of-{count:05d}"
        classes = np.arange(low, high) % 3
        if ending == "npy":
            np.save(f"{stem}.npy", inputs[low:high])
            if labels:
                np.save(f"{stem}.labels.npy", classes)
        else:
            tensors = {"features": np.ascontiguousarray(inputs[low:high])}
            save_file(tensors | ({"labels": classes} if labels else {}), f"{stem}.safetensors")
    return folder


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
def test_any_choice_of_rows_is_the_arrays(tmp_path, monkeypatch, choice, pieces):
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
def test_every_type_comes_back_as_it_was(tmp_path, dtype, ending):
    inputs = numbers(dtype)
    if ending == "safetensors" and not dtype.isnative:
        pytest.skip("safetensors knows one byte order")
    found = open_features(series(tmp_path, inputs, ending=ending))
    assert found.inputs.dtype == dtype.newbyteorder("=")
    np.testing.assert_array_equal(found.inputs[:], inputs)
    np.testing.assert_array_equal(np.asarray(found.inputs), inputs)
    assert found.labels.tolist() == [r % 3 for r in range(ROWS)]
    assert len(load(tmp_path).fingerprint) == 64


def layouts(folder, inputs):
    """Every layout of the documentation, each in a folder of its own: path to open."""
    classes = np.arange(ROWS) % 3

    def put(place, stem, labels):
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"{stem}.npy", inputs)
        np.save(place / f"{labels}.npy", classes)
        return place

    yield put(folder / "a", "any", "any.labels") / "any.npy"
    yield put(folder / "b", "any", "any_labels") / "any.npy"
    yield put(folder / "c", "any", "labels") / "any.npy"
    yield put(folder / "d", "train_features", "train_labels") / "train_features.npy"
    yield put(folder / "e", "features", "labels")
    yield put(folder / "f", "train", "train.labels")
    yield put(folder / "g", "train_features", "train_labels")
    put(folder / "h" / "train", "features", "labels")
    yield folder / "h"
    yield series(folder / "i", inputs)
    np.save(series(folder / "j", inputs, labels=False) / "train_labels.npy", classes)
    yield folder / "j"
    (folder / "k").mkdir()
    yield series(folder / "k" / "train", inputs, name="clip").parent
    save_file({"features": inputs, "labels": classes}, folder / "one.safetensors")
    yield folder / "one.safetensors"


def test_every_layout_of_the_documentation_is_found(tmp_path):
    inputs = numbers()
    for path in layouts(tmp_path, inputs):
        found = load(path)
        np.testing.assert_array_equal(found.inputs, inputs, err_msg=str(path))
        assert found.labels.tolist() == [r % 3 for r in range(ROWS)], path


def test_parts_are_train_validation_and_test(tmp_path):
    inputs = numbers()
    series(tmp_path, inputs)
    np.save(tmp_path / "val.npy", inputs[:9])
    np.save(tmp_path / "val_labels.npy", np.arange(9) % 2)
    train, test = load_splits(tmp_path)
    assert (len(train.labels), len(test.labels)) == (ROWS, 9)  # as ImageNet has it
    assert test.class_names == train.class_names == ("0", "1", "2")
    assert load_validation(tmp_path, class_names=train.class_names) is None
    np.save(tmp_path / "test_features.npy", inputs[:5])
    np.save(tmp_path / "test_labels.npy", np.arange(5) % 3)
    assert len(load_splits(tmp_path)[1].labels) == 5
    assert len(load_validation(tmp_path, class_names=train.class_names).labels) == 9
    assert open_features(tmp_path, part="validation").inputs.shape == (9, WIDTH)


def test_class_names_come_from_a_file(tmp_path):
    series(tmp_path, numbers())
    (tmp_path / "classes.txt").write_text("cat\ndog\nfrog\n")
    assert open_features(tmp_path).class_names == ("cat", "dog", "frog")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    refused(tmp_path, r"train-00000-of-00004\.labels\.npy: .* in \[0, 2\), got 2 at row 2")


def test_unlabeled_features_are_rows_to_predict(tmp_path):
    inputs = numbers()
    np.save(tmp_path / "new.npy", inputs)
    found, names = load_inputs(tmp_path / "new.npy")
    np.testing.assert_array_equal(found, inputs)
    assert names[3] == "new.npy[3]"
    assert open_features(tmp_path / "new.npy").labels is None


def test_what_fits_the_memory_is_an_array_and_what_does_not_stays_in_its_files(tmp_path):
    series(tmp_path, numbers())
    assert isinstance(load(tmp_path, memory=ROWS * WIDTH * 2).inputs, np.ndarray)
    left = load(tmp_path, memory=ROWS * WIDTH * 2 - 1)
    assert isinstance(left.inputs, FileRows)
    assert left.fingerprint == load(tmp_path).fingerprint


def test_a_map_and_its_rows_are_read_from_their_file(tmp_path):
    np.save(tmp_path / "a.npy", numbers())
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    for view in (mapped, mapped[13:], mapped[20:30][2:]):
        assert isinstance(from_map(view), FileRows)
        np.testing.assert_array_equal(from_map(view)[:], view)
    assert from_map(mapped[::2]).shape == (50, WIDTH)
    assert not isinstance(from_map(mapped[::2]), FileRows)


def test_sources_of_other_kinds_fill_a_buffer_too():
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


def refused(path, match, **options):
    with pytest.raises(DataError, match=match) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)


def test_a_missing_shard_is_named(tmp_path):
    series(tmp_path, numbers())
    (tmp_path / "train-00002-of-00004.npy").unlink()
    refused(tmp_path, r"of the 4 files of train-\*-of-4 number 2 is missing")
    (tmp_path / "train-00003-of-00004.npy").unlink()
    refused(tmp_path, "number 2, 3 are missing")


def test_the_first_shard_is_missed_as_well(tmp_path):
    series(tmp_path, numbers())
    (tmp_path / "train-00000-of-00004.npy").unlink()
    refused(tmp_path, "number 0 is missing")


def test_a_series_may_begin_at_one(tmp_path):
    inputs = numbers()
    for number in (1, 2):
        np.save(tmp_path / f"train-{number}-of-2.npy", inputs[(number - 1) * 50 : number * 50])
    np.save(tmp_path / "labels.npy", np.arange(ROWS) % 3)
    np.testing.assert_array_equal(load(tmp_path).inputs, inputs)


def test_a_shard_that_is_there_twice_is_named(tmp_path):
    series(tmp_path, numbers())
    np.save(tmp_path / "train-2-of-4.npy", numbers())
    refused(tmp_path, r"train-2-of-4.npy: is number 2 of the series, and so is train-00002-of")


def test_two_series_of_one_name_are_refused(tmp_path):
    series(tmp_path, numbers())
    np.save(tmp_path / "train-00000-of-00005.npy", numbers())
    refused(tmp_path, "a series of 5 files, and .* to one of 4")


def test_a_number_beyond_the_series_is_refused(tmp_path):
    series(tmp_path, numbers())
    np.save(tmp_path / "train-00007-of-00004.npy", numbers())
    refused(tmp_path, "train-00007-of-00004.npy: its number is beyond the 4 files")


def test_shards_of_unequal_width_or_type_are_refused(tmp_path):
    series(tmp_path, numbers())
    np.save(tmp_path / "train-00002-of-00004.npy", numbers()[:25, :6])
    refused(tmp_path, r"00002-of-00004.npy: has 6 features a row, and train-00000.* has 7")
    np.save(tmp_path / "train-00002-of-00004.npy", numbers(np.float32)[:25])
    refused(tmp_path, r"00002-of-00004.npy: holds float32, and train-00000.* float16")


def test_an_empty_shard_and_other_shapes_are_refused(tmp_path):
    series(tmp_path, numbers())
    for bad in (numbers()[:0], numbers()[:25].ravel(), numbers()[:24].reshape(2, 2, 6, 7)):
        np.save(tmp_path / "train-00001-of-00004.npy", bad)
        refused(tmp_path, "00001-of-00004.npy: features must have two axes")


def test_types_that_are_no_features_are_refused(tmp_path):
    series(tmp_path, numbers(np.int64))
    refused(tmp_path, "00000-of-00004.npy: features of type int64 are not read")


def test_fortran_order_is_refused_in_a_series(tmp_path):
    series(tmp_path, np.asfortranarray(numbers()), count=1)
    refused(tmp_path, "Fortran order")


def test_a_header_that_lies_is_refused(tmp_path):
    series(tmp_path, numbers())
    path = tmp_path / "train-00001-of-00004.npy"
    path.write_bytes(path.read_bytes()[:-1])
    refused(tmp_path, r"00001-of-00004.npy: the header announces shape \(25, 7\)")


def lying(header, payload):
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + payload


LIES = {
    "too long a header": struct.pack("<Q", 1 << 40) + b"{}",
    "no header": b"\1\2",
    "not JSON": struct.pack("<Q", 2) + b"[]",
    "a shape beyond the bytes": lying(
        {"features": {"dtype": "F16", "shape": [9, 7], "data_offsets": [0, 20]}}, bytes(20)
    ),
    "bytes beyond the file": lying(
        {"features": {"dtype": "F16", "shape": [9, 7], "data_offsets": [0, 126]}}, bytes(20)
    ),
    "a hole": lying(
        {"features": {"dtype": "F16", "shape": [1, 7], "data_offsets": [6, 20]}}, bytes(20)
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_safetensors_header_that_lies_is_refused(tmp_path, lie):
    (tmp_path / "bad.safetensors").write_bytes(LIES[lie])
    refused(tmp_path / "bad.safetensors", "bad.safetensors: not a readable safetensors file")


def test_safetensors_without_features_or_labels_are_refused(tmp_path):
    save_file({"x": numbers()}, tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", "has no tensor `features`, got x")
    save_file({"features": numbers()}, tmp_path / "b.safetensors")
    refused(tmp_path / "b.safetensors", "there are no labels beside it")


def test_labels_that_do_not_match_are_named_with_their_shard(tmp_path):
    series(tmp_path, numbers())
    own = tmp_path / "train-00003-of-00004.labels.npy"
    np.save(own, np.arange(24) % 3)
    refused(tmp_path, r"00003-of-00004.labels.npy: there are 24 labels for the 25 inputs of train-")
    for wrong, match in ((-1, r"got -1 at row 4"), (10**6, r"got 1000000 at row 4")):
        values = np.arange(25) % 3
        values[4] = wrong
        np.save(own, values)
        refused(tmp_path, rf"00003-of-00004.labels.npy: .* {match}")
    own.unlink()
    refused(tmp_path, r"00003-of-00004.npy: has no labels \(train-00003-of-00004.labels.npy\)")


def test_one_class_and_no_labels_are_refused(tmp_path):
    series(tmp_path, numbers(), labels=False)
    refused(tmp_path, "there are no labels beside it")
    np.save(tmp_path / "labels.npy", np.zeros(ROWS, int))
    refused(tmp_path, "of one class")
    np.save(tmp_path / "labels.npy", np.eye(3)[np.arange(ROWS) % 3])
    refused(tmp_path, "one class an example")


def test_two_claims_to_one_part_are_refused(tmp_path):
    series(tmp_path, numbers())
    np.save(tmp_path / "train.npy", numbers())
    refused(tmp_path, "both .* and .* could be the features")


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32, np.float64, ">f4"], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_named_by_shard_and_row(tmp_path, dtype, value):
    inputs = numbers(dtype)
    inputs[60, 3] = value
    series(tmp_path, inputs)
    match = rf"train-00002-of-00004.npy: the inputs must be finite, got {value} at row 10, column 3"
    refused(tmp_path, match)
    left = open_features(tmp_path)  # nothing was read yet
    np.testing.assert_array_equal(left.inputs[:60], inputs[:60])
    for rows in (slice(None), [1, 60, 70], [60], np.arange(99, 0, -1)):
        with pytest.raises(DataError, match=match):
            left.inputs[rows]
    np.testing.assert_array_equal(left.inputs[[59, 61]], inputs[[59, 61]])


@pytest.mark.parametrize("harm", ["shrinks", "grows", "touched", "gone", "cut while it is read"])
def test_a_file_that_changes_ends_in_a_sentence(tmp_path, monkeypatch, harm):
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


def test_a_survey_counts_and_finds_what_is_not_finite(tmp_path):
    inputs = numbers()
    series(tmp_path, inputs)
    np.save(tmp_path / "test.npy", inputs[:9])
    found = survey(tmp_path, check=True)["parts"]
    assert list(found) == ["train", "test"]
    assert found["train"]["class_counts"] == {"0": 34, "1": 33, "2": 33}
    assert found["train"]["range"] == [inputs.min(), inputs.max()]
    assert found["train"]["problems"] == []
    assert found["train"]["fingerprint"] == load(tmp_path).fingerprint
    assert found["test"]["class_counts"] is None
    inputs[[30, 80], 0] = np.nan
    series(tmp_path, inputs)
    problems = survey(tmp_path, check=True)["parts"]["train"]["problems"]
    assert ["00001" in problems[0], "00003" in problems[1]] == [True, True]
    assert "row 5, column 0" in problems[0]


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
