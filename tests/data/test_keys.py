"""Archives of several arrays: which of them are meant, and that nothing is guessed or dropped."""

import contextlib
import zipfile

import numpy as np
import pytest

from jaxlin.core import DataError
from jaxlin.data import load, load_inputs, load_splits, splits_of

ROWS = np.arange(24.0).reshape(6, 4)
CLASSES = np.arange(6) % 3


@pytest.fixture
def archive(tmp_path):
    """A function that saves arrays, and returns the path."""

    def save(**arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        return tmp_path / "a.npz"

    return save


@pytest.mark.parametrize(
    ("inputs", "labels"),
    [
        *[("inputs", "labels"), ("X", "y"), ("data", "target"), ("images", "labels")],
        *[("features", "targets"), ("x", "label"), ("arr_0", "arr_1"), ("arr_1", "arr_0")],
    ],
)
def test_usual_names_without_a_split_are_all_rows(archive, inputs, labels):
    found = load(archive(**{inputs: ROWS, labels: CLASSES[:, None]}))
    np.testing.assert_array_equal(found.inputs, ROWS)
    assert found.labels.tolist() == CLASSES.tolist()
    assert found.split == "all"
    assert found.notes == ()


@pytest.mark.parametrize(
    "names",
    [
        ("X_train", "y_train", "X_val", "y_val", "X_test", "y_test"),
        *[("x_train", "y_train", "x_valid", "y_valid", "x_test", "y_test")],
        tuple(f"{s}_{w}" for s in ("train", "val", "test") for w in ("images", "labels")),
        tuple(f"{s}_set_{w}" for s in ("train", "validation", "test") for w in "xy"),
        ("inputs", "labels", "val_inputs", "val_labels", "test_inputs", "test_labels"),
    ],
)
def test_splits_are_told_by_names(archive, names):
    parts = [(ROWS, CLASSES), (ROWS[:3] + 1, CLASSES[:3]), (ROWS[:2] + 2, CLASSES[:2])]
    arrays = dict(zip(names, [array for part in parts for array in part], strict=True))
    for found, (rows, labels) in zip(load_splits(archive(**arrays)), parts, strict=True):
        np.testing.assert_array_equal(found.inputs, rows)
        assert found.labels.tolist() == labels.tolist()
        assert found.class_names == ("0", "1", "2")


def test_only_names_that_say_train_are_a_train_split(archive):
    path = archive(X_train=ROWS, y_train=CLASSES)
    assert splits_of(path) == ("train",)
    assert load(path).split == "train"
    assert splits_of(archive(X_test=ROWS, y_test=CLASSES)) == ("test",)


def test_pictures_of_medmnist_with_labels_in_a_column(archive):
    pictures = np.arange(6 * 4 * 5 * 3, dtype=np.uint8).reshape(6, 4, 5, 3)
    found = load(archive(train_images=pictures, train_labels=CLASSES[:, None].astype(np.uint8)))
    assert found.image_shape == (4, 5, 3)
    assert found.inputs[0, :3].tolist() == pictures[0, 0, :3, 0].tolist()


def test_several_candidates_are_listed_and_a_key_says_which(archive):
    path = archive(images=ROWS, features=ROWS + 1, labels=CLASSES, y=CLASSES[::-1])
    with pytest.raises(DataError, match="`images`, `features` could all be the inputs"):
        load(path)
    with pytest.raises(DataError, match=r"`labels`, `y` could all .* `labels_key`"):
        load(path, inputs_key="features")
    found = load(path, inputs_key="features", labels_key="y")
    np.testing.assert_array_equal(found.inputs, ROWS + 1)
    assert found.labels.tolist() == CLASSES[::-1].tolist()
    assert "images, labels" in found.notes[0]
    assert [len(part.inputs) for part in load_inputs(path, inputs_key="images")] == [6]


def test_a_key_finds_the_same_name_in_every_split(archive):
    path = archive(
        **{
            "X_train": ROWS,
            "X_test": ROWS[:2],
            "feats_train": ROWS + 1,
            "feats_test": ROWS[:2] + 1,
        },
        **{"y_train": CLASSES, "y_test": CLASSES[:2]},
    )
    for key in ("feats", "feats_train"):
        train, _, test = load_splits(path, inputs_key=key)
        np.testing.assert_array_equal(train.inputs, ROWS + 1)
        np.testing.assert_array_equal(test.inputs, ROWS[:2] + 1)
    assert splits_of(path, inputs_key="feats_test") == ("test",)
    assert load(path, inputs_key="feats_test", split="test").inputs[0, 0] == 1
    with pytest.raises(DataError, match="no array 'nothing', got `X_train`"):
        load(path, inputs_key="nothing")


def test_names_that_differ_in_case_are_two_candidates(archive):
    path = archive(X=ROWS, x=ROWS + 1, y=CLASSES)
    with pytest.raises(DataError, match="`X`, `x` could all be the inputs"):
        load(path)
    assert load(path, inputs_key="x").inputs[0, 0] == 1


def test_what_is_not_read_is_named(archive):
    weights = np.array([{}], object)  # never read, so never an error
    found = load(archive(inputs=ROWS, labels=CLASSES, weights=weights, x_mean=np.ones(4)))
    assert found.notes == ("a.npz: arrays that are not read: weights, x_mean.",)
    found = load(archive(X=ROWS, y=CLASSES, X_train=ROWS[:4], y_train=CLASSES[:4]))
    assert len(found.inputs) == 4
    assert found.notes == ("a.npz: arrays that are not read: X, y.",)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"arr_0": ROWS, "arr_1": np.eye(6)}, "no array for the inputs"),
        ({"arr_0": ROWS[:, :1], "arr_1": CLASSES}, "no array for the inputs"),
        ({"arr_0": ROWS, "arr_1": CLASSES, "arr_2": ROWS}, "`arr_0`, `arr_1`, `arr_2`"),
        ({"X": ROWS, "y": CLASSES, "X_test": ROWS}, "labels of the test split, as `labels_test`"),
        ({"X": ROWS, "y": np.eye(3)[CLASSES]}, "argmax"),
        ({"X": ROWS, "y": CLASSES, "image_shape": np.array([2.0, 2.0])}, "must be integers"),
        ({"X": ROWS, "y": CLASSES, "class_names": np.array([b"\xff", b"b", b"c"])}, "UTF-8"),
        ({"X": ROWS, "y": CLASSES, "class_names": np.array(["a", "a", "b"])}, "differ"),
        ({"X": ROWS + 1j, "y": CLASSES}, "complex128"),
        ({"X": ROWS[:, 0], "y": CLASSES}, "two or more axes"),
    ],
)
def test_doubt_is_a_sentence(archive, arrays, match):
    path = archive(**arrays)
    with pytest.raises(DataError, match=match) as caught:
        load_splits(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_shape_is_for_rows_and_may_agree_with_pictures(archive):
    pictures = ROWS.reshape(6, 2, 2)
    path = archive(X=ROWS, y=CLASSES, X_test=pictures, y_test=CLASSES, image_shape=[2, 2])
    assert [part and part.image_shape for part in load_splits(path)] == [(2, 2), None, (2, 2)]
    with pytest.raises(DataError, match="nothing to say"):
        load(archive(X=pictures, y=CLASSES, image_shape=[4, 1]))


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packings_and_damaged_directories_are_refused(archive, packing):
    path = archive(X=ROWS, y=CLASSES)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", packing) as new:
        for name, content in members.items():
            new.writestr(name, content)
    with pytest.raises(DataError, match="does not use"):
        load(path)
    for at in range(len(whole) - 130, len(whole)):  # the directory at the end
        path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        with contextlib.suppress(DataError):
            load(path)


def test_class_names_in_bytes_are_text(archive):
    names = np.array([b"ant", "b\u00eate".encode(), b"cow"])
    assert load(archive(X=ROWS, y=CLASSES, class_names=names)).class_names == ("ant", "bête", "cow")
    found = load(archive(X=ROWS, y=names[CLASSES]))
    assert found.class_names == ("ant", "bête", "cow")
    assert found.labels.tolist() == CLASSES.tolist()


def test_numbers_of_a_test_set_are_told_by_its_own_class_names(tmp_path):
    np.savez(tmp_path / "a.npz", X=ROWS, y=CLASSES, class_names=["ant", "bee", "cow"])
    np.savez(tmp_path / "t.npz", X=ROWS, y=CLASSES, class_names=["cow", "bee", "ant"])
    _, _, test = load_splits(tmp_path / "a.npz", test=tmp_path / "t.npz")
    assert test.class_names == ("ant", "bee", "cow")
    assert test.labels.tolist() == [2, 1, 0, 2, 1, 0]
    np.savez(tmp_path / "t.npz", X=ROWS, y=CLASSES, class_names=["cow", "bee", "dog"])
    with pytest.raises(DataError, match="'dog'"):
        load_splits(tmp_path / "a.npz", test=tmp_path / "t.npz")
    np.savez(tmp_path / "a.npz", X=ROWS, y=CLASSES)
    _, _, test = load_splits(tmp_path / "a.npz", test=tmp_path / "t.npz")
    assert test.labels.tolist() == CLASSES.tolist()
