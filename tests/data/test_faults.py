"""Every fault here is a real one: a file cut off, a header that lies, a bomb, a program."""

import gzip
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxlin.core import DataError
from jaxlin.data import arrays, cifar, idx, load, load_splits
from jaxlin.data.pictures import read_picture
from jaxlin.data.rows import FileRows
from jaxlin.data.validate import check_finite, check_labels


def idx_bytes(array):
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + bytes(array)
    )


def refused(words, call, *args, **kwargs):
    """The call raises one sentence (or two) on one line that has all the words."""
    with pytest.raises(DataError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    for word in words.split("|"):
        assert word in message


@pytest.mark.parametrize("kept", range(0, 25, 3))
def test_an_idx_file_cut_anywhere_is_refused(tmp_path, kept):
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))[:kept])
    refused(str(path), idx.read, path)


@pytest.mark.parametrize("missing", [1, 5, 20])
def test_a_gzip_cut_anywhere_is_refused(tmp_path, missing):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.arange(12, dtype=np.uint8)))[:-missing])
    refused(str(path), idx.read, path)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_an_idx_header_that_lies_is_refused_without_memory(tmp_path, ending):
    header = bytes([0, 0, 8, 4]) + struct.pack(">4I", *[2**32 - 1] * 4)  # 2**128 bytes
    path = tmp_path / f"images{ending}"
    path.write_bytes(gzip.compress(header) if ending else header)
    refused("announces", idx.read, path)


def test_a_gzip_bomb_is_not_inflated(tmp_path):
    path = tmp_path / "images.gz"
    with gzip.open(path, "wb") as file:
        file.write(bytes([0, 0, 8, 1]) + struct.pack(">I", 8))
        file.write(bytes(1 << 24))
    refused("more data", idx.read, path)


@given(st.binary(max_size=64))
def test_any_bytes_are_an_idx_array_or_a_data_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    try:
        array = idx.read(path)
    except DataError:
        return
    assert array.nbytes == len(content) - 4 - 4 * content[3]


def test_idx_values_are_big_endian(tmp_path):
    path = tmp_path / "values"
    path.write_bytes(bytes([0, 0, 0x0B, 1]) + struct.pack(">I2h", 2, 1, -2))
    assert idx.read(path).tolist() == [1, -2]
    assert idx.read(path).dtype.isnative


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_would_run_code_does_not(tmp_path):
    path, marker = tmp_path / "data_batch_1", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"data": Evil(marker), "labels": [0]}, protocol=2))
    refused("forbidden name|system", cifar.read_pickle, path)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_arrays_are_read_in_every_protocol(tmp_path, protocol):
    path = tmp_path / "data_batch_1"
    pixels = np.arange(2 * 3072).reshape(2, 3072).astype(np.uint8)
    path.write_bytes(pickle.dumps({"data": pixels, "labels": [3, 9]}, protocol=protocol))
    got, labels = cifar.read_pickle(path)
    np.testing.assert_array_equal(got, pixels)
    assert labels.tolist() == [3, 9]


def test_a_cut_pickle_and_a_cut_binary_batch_are_refused(tmp_path):
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]})[:-9])
    refused(str(path), cifar.read_pickle, path)
    path.write_bytes(bytes(3073 * 2 - 1))
    refused("3,073", cifar.read_binary, path)
    path.write_bytes(bytes([10]) + bytes(3072))
    refused("0 to 9|got 10", cifar.read_binary, path)


def test_a_missing_cifar_batch_is_named(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3073))
    refused("data_batch_2.bin|missing", load, "cifar10", data_dir=tmp_path)


def test_a_cut_npy_and_a_lying_header_are_refused(tmp_path):
    path = tmp_path / "inputs.npy"
    np.save(path, np.ones((4, 3)))
    path.write_bytes(path.read_bytes()[:-8])
    refused("cut off", arrays.read_npy, path, mapped=True)
    with path.open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (2**62, 4)}
        np.lib.format.write_array_header_1_0(file, header)
    refused("announces", arrays.read_npy, path)


def test_object_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", inputs=np.array([[1], ["a"]], object), labels=[0, 1])
    refused("objects", load, tmp_path / "a.npz")
    np.save(tmp_path / "inputs.npy", np.array([[None]]), allow_pickle=True)
    refused("objects", arrays.read_npy, tmp_path / "inputs.npy")


def test_an_npz_bomb_is_not_inflated(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", inputs=np.zeros((30_000, 1000), np.uint8), labels=[0])
    refused("expand", load, tmp_path / "a.npz")


def test_a_damaged_archive_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, inputs=np.ones((4, 2)), labels=[0, 1, 0, 1])
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    refused("a.npz", load, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.npy", b"")
    refused("`inputs`|other", load, path)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1, 2], "3 labels for 4"),
        ([0, 1, -1, 0], "-1 at row 2"),
        ([0, 1, 2**40, 0], "smaller than 4"),
        ([0, 1, 0.5, 0], "0.5 at row 2"),
        ([0, 1, np.nan, 0], "nan at row 2"),
        ([1, 1, 1, 1], "one class"),
        (np.eye(4), "argmax"),
    ],
)
def test_wrong_labels_are_named(tmp_path, labels, words):
    np.savez(tmp_path / "a.npz", inputs=np.ones((4, 2)), labels=labels)
    refused(f"a.npz|{words}", load, tmp_path / "a.npz")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_by_row_and_column(bad):
    inputs = np.ones((5, 3), np.float32)
    inputs[3, 2] = bad
    refused("x.npy|row 3, column 2", check_finite, inputs, file="x.npy")


def test_empty_data_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", inputs=np.ones((0, 2)), labels=np.ones(0, int))
    refused("empty", load, tmp_path / "a.npz")


def test_names_map_to_sorted_classes_and_a_test_set_keeps_to_them(tmp_path):
    labels, _ = check_labels(np.array(["b", "a"]), file="f", rows=2, class_names=("b", "a"))
    assert labels.tolist() == [0, 1]
    np.savez(tmp_path / "a.npz", X=np.eye(2), y=["b", "a"], test_inputs=np.eye(2), y_test=["b"] * 2)
    train, _, test = load_splits(tmp_path / "a.npz")
    assert train.class_names == test.class_names == ("a", "b")
    assert test.labels.tolist() == [1, 1]
    np.savez(tmp_path / "t.npz", X=np.eye(2), y=["c", "a"])
    refused("'c'", load_splits, tmp_path / "a.npz", test=tmp_path / "t.npz")


def test_a_pair_of_arrays_is_read_or_left_in_its_file_and_has_no_silent_test_set(tmp_path):
    np.save(tmp_path / "inputs.npy", np.asfortranarray(np.arange(8.0).reshape(4, 2)).astype(">f4"))
    np.save(tmp_path / "labels.npy", [0, 1, 0, 1])
    train, _, test = load_splits(tmp_path / "inputs.npy")
    assert test is None
    assert train.inputs.tolist() == np.arange(8.0).reshape(4, 2).tolist()
    np.save(tmp_path / "inputs.npy", np.ones((4, 2)))
    assert type(load(tmp_path / "inputs.npy").inputs) is np.ndarray
    assert isinstance(load(tmp_path / "inputs.npy", memory=63).inputs, FileRows)
    np.save(tmp_path / "inputs.npy", np.ones((4, 2, 2)))
    assert isinstance(load(tmp_path / "inputs.npy").inputs, np.memmap)


@pytest.fixture
def pictures(tmp_path):
    for split, name in [("train", "cat"), ("train", "dog"), ("test", "dog")]:
        folder = tmp_path / split / name
        folder.mkdir(parents=True)
        colors = np.broadcast_to([1, 2, 3], (4, 6, 3))
        Image.fromarray(colors.astype(np.uint8)).save(folder / "1.png")
    (tmp_path / "train" / "cat" / ".hidden.png").write_bytes(b"no picture")
    return tmp_path


def test_folders_of_pictures_are_flattened_channel_major(pictures):
    train, _, test = load_splits(pictures)
    assert train.class_names == ("cat", "dog")
    assert train.image_shape == (4, 6, 3)
    assert train.inputs[0].tolist() == [1] * 24 + [2] * 24 + [3] * 24
    assert test.labels.tolist() == [1]
    assert load(pictures, image_size=(2, 2)).inputs.shape == (2, 12)


def test_bad_pictures_are_named(pictures):
    path = pictures / "train" / "cat" / "2.jpg"
    Image.fromarray(np.arange(3 * 4096, dtype=np.uint8).reshape(64, 64, 3)).save(path)
    path.write_bytes(path.read_bytes()[:-300])
    refused("2.jpg|cut off", load, pictures)
    path.write_bytes(b"GIF89a")
    refused("2.jpg|not a picture", load, pictures)
    Image.new("1", (30_000, 30_000)).save(path, "PNG")  # 900 megapixels in 100 kB
    refused("2.jpg|pixels", read_picture, path)
    path.unlink()
    path.symlink_to("/etc/hostname")
    refused("2.jpg|not a picture", load, pictures)


def test_folders_without_classes_and_unknown_names_are_refused(tmp_path):
    refused("no class folders", load, tmp_path)
    refused("no such file", load, tmp_path / "missing.npz")
    refused("Did you mean 'cifar10'", load, "cifr10")


def test_a_broken_file_in_the_named_folder_is_never_replaced(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(2, np.uint8)))
    refused(str(tmp_path), load, "fashion-mnist", data_dir=tmp_path)
