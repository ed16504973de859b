"""Sets known by name, in files as they are published: values, class names, and what is refused."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from jaxlin.core import DataError
from jaxlin.data import NAMED, cifar100, emnist, fetch, load, load_splits, svhn

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
FINE, COARSE = np.array([0, 99, 4, 5, 1, 0]), np.array([4, 13, 0, 6, 1, 4])


def refused(match, *source, **options):
    with pytest.raises(DataError, match=match) as caught:
        load(*source, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMED)
def test_what_is_known_of_a_set_agrees_with_itself(name):
    known = NAMED[name]
    assert len(set(known.class_names)) == len(known.class_names) >= 10


@pytest.mark.parametrize("name", [name for name in NAMED if name != "digits"])
def test_fetch_is_offered_for_the_sets_that_it_knows(name, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxlin.data.named.search_places", lambda *args: [tmp_path])
    with pytest.raises(DataError, match="not on this machine") as caught:
        load(name)
    assert ("jaxlin data fetch" in str(caught.value)) == (name in fetch.FILES)


def test_published_class_names():
    fine, coarse = NAMED["cifar100"].class_names, NAMED["cifar100-coarse"].class_names
    assert (len(fine), len(coarse)) == (100, 20)
    assert list(fine) == sorted(fine)  # both were numbered in the order of the alphabet
    assert list(coarse) == sorted(coarse)
    assert (fine[0], fine[99], coarse[4]) == ("apple", "worm", "fruit_and_vegetables")
    assert len(NAMED["emnist-letters"].class_names) == 26
    assert "".join(NAMED["emnist-balanced"].class_names[36:]) == "abdefghnqrt"
    assert NAMED["emnist-byclass"].class_names[36] == "a"
    assert len(NAMED["emnist-byclass"].class_names) == 62


@pytest.fixture(params=["binary", "python"])
def cifar_folder(request, tmp_path):
    folder = tmp_path / f"cifar-100-{request.param}"
    folder.mkdir()
    for split in ("train", "test"):
        if request.param == "binary":
            records = np.column_stack([COARSE, FINE, PIXELS]).astype(np.uint8)
            records.tofile(folder / f"{split}.bin")
        else:
            batch = {b"data": PIXELS, b"fine_labels": FINE.tolist(), b"filenames": [b"a.png"] * 6}
            batch |= {b"coarse_labels": COARSE.tolist(), b"batch_label": b"training batch 1 of 1"}
            (folder / split).write_bytes(pickle.dumps(batch, protocol=2))
    return folder


def test_cifar100_in_both_forms(cifar_folder, tmp_path):
    for source, options in (("cifar100", {"data_dir": tmp_path}), (tmp_path, {})):
        train, _, test = load_splits(source, **options)
        np.testing.assert_array_equal(train.inputs, PIXELS)
        assert [train.class_names[label] for label in train.labels[:2]] == ["apple", "worm"]
        assert (len(test.labels), train.image_shape) == (6, (32, 32, 3))
    coarse = load("cifar100-coarse", data_dir=cifar_folder)
    assert coarse.labels.tolist() == COARSE.tolist()
    assert coarse.class_names[4] == "fruit_and_vegetables"


def test_damaged_cifar100_is_refused(cifar_folder, tmp_path):
    path = next(cifar_folder.glob("train*"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    refused("train.*cut off", "cifar100", data_dir=tmp_path)
    path.write_bytes(b"")
    refused("train", "cifar100", data_dir=tmp_path)
    path.unlink()
    refused("train.*missing", "cifar100", data_dir=tmp_path)
    next(cifar_folder.glob("test*")).unlink()
    refused("cifar100 is not there", "cifar100", data_dir=tmp_path)


def test_wrong_labels_and_cut_records_of_cifar100_are_refused(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    np.column_stack([COARSE, FINE + 1, PIXELS]).astype(np.uint8).tofile(folder / "train.bin")
    refused("fine labels must be 0 to 99, got 100 in record 1", "cifar100", data_dir=tmp_path)
    np.column_stack([COARSE + 7, FINE, PIXELS]).astype(np.uint8).tofile(folder / "train.bin")
    refused("coarse labels must be 0 to 19, got 20 in record 1", "cifar100", data_dir=tmp_path)
    records = np.column_stack([COARSE, FINE, PIXELS]).astype(np.uint8)
    records[:5].tofile(folder / "train.bin")
    records.tofile(folder / "test.bin")
    monkeypatch.setattr(cifar100, "ROWS", {"train": 6, "test": 6})
    refused("5 pictures instead of 6", "cifar100", data_dir=tmp_path)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_pickle_of_cifar100_that_would_run_code_does_not(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    batch = {b"data": PIXELS, b"fine_labels": FINE.tolist(), b"more": Evil(tmp_path / "ran")}
    (folder / "train").write_bytes(pickle.dumps(batch, protocol=2))
    refused("forbidden name", "cifar100", data_dir=tmp_path)
    assert not (tmp_path / "ran").exists()
    batch = {b"data": PIXELS, b"fine_labels": [0, 1, 2, 3, 4, 100]}
    (folder / "train").write_bytes(pickle.dumps(batch, protocol=2))
    refused("'fine_labels' of classes 0 to 99", "cifar100", data_dir=tmp_path)


def svhn_files(folder, labels=(1, 10, 3, 9, 2, 10), split="train", **changes):
    pictures = PIXELS.reshape(6, 3, 32, 32).transpose(2, 3, 1, 0)
    savemat(folder / f"{split}_32x32.mat", {"X": pictures, "y": np.c_[labels]} | changes)
    return folder / f"{split}_32x32.mat"


def test_svhn_is_turned_and_its_tens_are_zeros(tmp_path):
    svhn_files(tmp_path)
    svhn_files(tmp_path, split="test", do_compression=True)
    (tmp_path / "extra_32x32.mat").write_bytes(b"")
    train, _, test = load_splits("svhn", data_dir=tmp_path)
    np.testing.assert_array_equal(train.inputs, PIXELS)
    assert train.labels.tolist() == test.labels.tolist() == [1, 0, 3, 9, 2, 0]
    assert train.image_shape == (32, 32, 3)
    assert train.passed_over[0].first == str(tmp_path / "extra_32x32.mat")
    np.testing.assert_array_equal(load(tmp_path).inputs, PIXELS)


def test_wrong_files_of_svhn_are_refused(tmp_path, monkeypatch):
    path = svhn_files(tmp_path, labels=[0, 1, 2, 3, 4, 5])
    refused("1 to 10 .* got 0 at row 0", "svhn", data_dir=tmp_path)
    svhn_files(tmp_path, X=np.zeros((32, 32, 3, 6)))
    refused("must be uint8", "svhn", data_dir=tmp_path)
    svhn_files(tmp_path, X=np.zeros((6, 32, 32, 3), np.uint8))
    refused(r"\(32, 32, 3, N\)", "svhn", data_dir=tmp_path)
    svhn_files(tmp_path, y=np.ones((5, 1)))
    refused(r"\(32, 32, 3, N\)", "svhn", data_dir=tmp_path)
    savemat(path, {"Z": 1})
    refused("must hold `X` and `y`, got Z", "svhn", data_dir=tmp_path)
    zeros = np.zeros((32, 32, 3, 8000), np.uint8)
    savemat(path, {"X": zeros, "y": np.ones((8000, 1))}, do_compression=True)
    refused("claim to expand", "svhn", data_dir=tmp_path)
    whole = svhn_files(tmp_path).read_bytes()
    for kept in (0, 60, 200, len(whole) // 2):
        path.write_bytes(whole[:kept])
        refused("train_32x32.mat", "svhn", data_dir=tmp_path)
    path.unlink()
    svhn_files(tmp_path, split="test")
    refused("train_32x32.mat: the file is missing", "svhn", data_dir=tmp_path)
    svhn_files(tmp_path)
    monkeypatch.setattr(svhn, "ROWS", {"train": 7, "test": 6})
    refused("6 pictures instead of 7", "svhn", data_dir=tmp_path)


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def emnist_files(folder, labels, name="emnist-letters", split="train", ending=""):
    pictures = np.arange(len(labels) * 28 * 28).reshape(-1, 28, 28).astype(np.uint8)
    for what, array in (("images-idx3", pictures), ("labels-idx1", np.array(labels))):
        content = idx_bytes(array)
        path = folder / f"{name}-{split}-{what}-ubyte{ending}"
        path.write_bytes(gzip.compress(content) if ending else content)
    return pictures


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_emnist_letters_are_turned_and_count_from_zero(tmp_path, ending):
    (tmp_path / "EMNIST/raw").mkdir(parents=True)
    pictures = emnist_files(tmp_path / "EMNIST/raw", [1, 26, 2], ending=ending)
    emnist_files(tmp_path / "EMNIST/raw", [2, 1], split="test", ending=ending)
    for source, options in (
        ("emnist-letters", {"data_dir": tmp_path}),
        (tmp_path / "EMNIST/raw", {}),
    ):
        train, _, test = load_splits(source, **options)
        assert [train.class_names[label] for label in train.labels] == ["A", "Z", "B"]
        np.testing.assert_array_equal(train.inputs[1].reshape(28, 28), pictures[1].T)
        assert test.labels.tolist() == [1, 0]
    emnist_files(tmp_path / "EMNIST/raw", [0, 46], name="emnist-balanced")
    assert load("emnist-balanced", data_dir=tmp_path).class_names[46] == "t"
    refused("emnist-letters, emnist-balanced. Say which", tmp_path / "EMNIST/raw")


def test_wrong_files_of_emnist_are_refused(tmp_path, monkeypatch):
    emnist_files(tmp_path, [1, 0, 2])
    refused("must be 1 or more, got 0 at row 1", "emnist-letters", data_dir=tmp_path)
    emnist_files(tmp_path, [1, 27, 2])
    refused("smaller than 26", "emnist-letters", data_dir=tmp_path)
    emnist_files(tmp_path, [1, 2])
    refused("no emnist-letters-test-images", "emnist-letters", data_dir=tmp_path, split="test")
    path = tmp_path / "emnist-letters-test-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.ones(2)))[:-9] + b"123456789")
    assert load("emnist-letters", data_dir=tmp_path).labels.tolist() == [0, 1]
    known = emnist.SETS["emnist-letters"]._replace(rows=(3, 2))
    monkeypatch.setitem(emnist.SETS, "emnist-letters", known)
    refused("2 labels instead of 3", "emnist-letters", data_dir=tmp_path)


@pytest.mark.parametrize("classes", [26, 47, 62])
def test_idx_files_may_have_more_classes_than_digits(tmp_path, classes):
    labels = np.arange(2 * classes) % classes
    for stem, part in (("train", labels), ("t10k", labels[:5])):
        images = idx_bytes(np.arange(len(part) * 4).reshape(-1, 2, 2))
        (tmp_path / f"{stem}-images-idx3-ubyte").write_bytes(images)
        (tmp_path / f"{stem}-labels-idx1-ubyte").write_bytes(idx_bytes(part))
    train, _, test = load_splits(tmp_path)
    assert train.labels.tolist() == labels.tolist()
    assert train.class_names == test.class_names == tuple(map(str, range(classes)))
    refused("smaller than 10", "mnist", data_dir=tmp_path)


def test_idx_labels_beyond_all_measure_are_refused(tmp_path):
    images = idx_bytes(np.zeros((3, 2, 2)))
    huge = bytes([0, 0, 0x0C, 1]) + struct.pack(">Iiii", 3, 0, 2**31 - 1, 1)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(images)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(huge)
    refused("2147483647 at row 1", tmp_path)


def test_the_files_of_two_sets_in_one_folder_need_a_name(tmp_path):
    svhn_files(tmp_path)
    emnist_files(tmp_path, [1, 2])
    refused("svhn, emnist-letters. Say which", tmp_path)
    assert load("svhn", data_dir=tmp_path).name == "svhn"


def test_verify_knows_the_files_of_every_set(tmp_path, cifar_folder):
    emnist_files(tmp_path, [1, 2])
    files = fetch.verify("emnist-letters", tmp_path)
    assert [file["canonical"] for file in files] == [None, None, False, False]
    files = fetch.verify("cifar100-coarse", cifar_folder)
    assert {file["canonical"] for file in files} == {
        None if "binary" in str(cifar_folder) else False
    }
    svhn_files(tmp_path)
    assert [file["canonical"] for file in fetch.verify("svhn", tmp_path)] == [False, False]
    with pytest.raises(DataError, match="not downloaded from here"):
        fetch.fetch("svhn")
