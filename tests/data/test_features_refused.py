"""Features in files: every way in which they can be bad, each named in one sentence."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxlin.core import DataError
from jaxlin.data import open_features

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ROWS, WIDTH = 100, 7


def test_a_missing_shard_is_named(tmp_path, series, numbers, refused):
    series(tmp_path, numbers())
    (tmp_path / "train-00002-of-00004.npy").unlink()
    refused(tmp_path, r"of the 4 files of train-\*-of-4 number 2 is missing")
    (tmp_path / "train-00003-of-00004.npy").unlink()
    refused(tmp_path, "number 2, 3 are missing")


def test_the_first_shard_is_missed_as_well(tmp_path, series, numbers, refused):
    series(tmp_path, numbers())
    (tmp_path / "train-00000-of-00004.npy").unlink()
    refused(tmp_path, "number 0 is missing")


def test_a_shard_that_is_there_twice_is_named(tmp_path, series, numbers, refused):
    series(tmp_path, numbers())
    np.save(tmp_path / "train-2-of-4.npy", numbers())
    refused(tmp_path, r"train-2-of-4.npy: is number 2 of the series, and so is train-00002-of")


def test_two_series_of_one_name_are_refused(tmp_path, series, numbers, refused):
    series(tmp_path, numbers())
    np.save(tmp_path / "train-00000-of-00005.npy", numbers())
    refused(tmp_path, "a series of 5 files, and .* to one of 4")


def test_a_number_beyond_the_series_is_refused(tmp_path, series, numbers, refused):
    series(tmp_path, numbers())
    np.save(tmp_path / "train-00007-of-00004.npy", numbers())
    refused(tmp_path, "train-00007-of-00004.npy: its number is beyond the 4 files")


def test_shards_of_unequal_width_or_type_are_refused(tmp_path, series, numbers, refused):
    series(tmp_path, numbers())
    np.save(tmp_path / "train-00002-of-00004.npy", numbers()[:25, :6])
    refused(tmp_path, r"00002-of-00004.npy: has 6 features a row, and train-00000.* has 7")
    np.save(tmp_path / "train-00002-of-00004.npy", numbers(np.float32)[:25])
    refused(tmp_path, r"00002-of-00004.npy: holds float32, and train-00000.* float16")


def test_an_empty_shard_and_other_shapes_are_refused(tmp_path, series, numbers, refused):
    series(tmp_path, numbers())
    for bad in (numbers()[:0], numbers()[:25].ravel(), numbers()[:24].reshape(2, 2, 6, 7)):
        np.save(tmp_path / "train-00001-of-00004.npy", bad)
        refused(tmp_path, "00001-of-00004.npy: features must have two axes")


def test_types_that_are_no_features_are_refused(tmp_path, series, numbers, refused):
    series(tmp_path, numbers(np.int64))
    refused(tmp_path, "00000-of-00004.npy: features of type int64 are not read")


def test_fortran_order_is_refused_in_a_series(tmp_path, series, numbers, refused):
    series(tmp_path, np.asfortranarray(numbers()), count=1)
    refused(tmp_path, "Fortran order")


def test_a_header_that_lies_is_refused(tmp_path, series, numbers, refused):
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
def test_a_safetensors_header_that_lies_is_refused(tmp_path, lie, refused):
    (tmp_path / "bad.safetensors").write_bytes(LIES[lie])
    refused(tmp_path / "bad.safetensors", "bad.safetensors: not a readable safetensors file")


def test_safetensors_without_features_or_labels_are_refused(tmp_path, numbers, refused):
    save_file({"x": numbers()}, tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", "has no tensor `features`, got x")
    save_file({"features": numbers()}, tmp_path / "b.safetensors")
    refused(tmp_path / "b.safetensors", "there are no labels beside it")


def test_labels_that_do_not_match_are_named_with_their_shard(tmp_path, series, numbers, refused):
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


def test_one_class_and_no_labels_are_refused(tmp_path, series, numbers, refused):
    series(tmp_path, numbers(), labels=False)
    refused(tmp_path, "there are no labels beside it")
    np.save(tmp_path / "labels.npy", np.zeros(ROWS, int))
    refused(tmp_path, "of one class")
    np.save(tmp_path / "labels.npy", np.eye(3)[np.arange(ROWS) % 3])
    refused(tmp_path, "one class an example")


def test_two_claims_to_one_part_are_refused(tmp_path, series, numbers, refused):
    series(tmp_path, numbers())
    np.save(tmp_path / "train.npy", numbers())
    refused(tmp_path, "both .* and .* could be the features")


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32, np.float64, ">f4"], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_named_by_shard_and_row(
    tmp_path, dtype, value, series, numbers, refused
):
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
