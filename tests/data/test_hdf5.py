"""HDF5 files: values in every layout, and nothing but what lies in the file."""

import sys

import numpy as np
import pytest

from jaxlin.core import DataError
from jaxlin.data import load, load_inputs, load_splits

h5py = pytest.importorskip("h5py")
ROWS = np.arange(24.0).reshape(6, 4)
CLASSES = np.arange(6) % 3


@pytest.fixture
def saved(tmp_path):
    """A function that writes a file by a function of the open file, and returns the path."""

    def write(fill=lambda file: None, **arrays):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name, array in arrays.items():
                file[name] = array
            fill(file)
        return tmp_path / "a.h5"

    return write


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f2", "u1", ">i2", "i8", "f8"])
def test_numbers_keep_their_values(saved, dtype):
    found = load(saved(X=ROWS.astype(dtype), y=CLASSES[:, None].astype(">i4")))
    np.testing.assert_array_equal(found.inputs, ROWS)
    assert found.inputs.dtype.isnative
    assert found.labels.tolist() == CLASSES.tolist()


@pytest.mark.parametrize("filters", [{"compression": "gzip"}, {"compression": "lzf"}, {}])
def test_large_arrays_are_read_in_blocks(saved, filters):
    pixels = np.random.default_rng(0).integers(0, 256, (7001, 3072), dtype=np.uint8)  # 21 MB

    def fill(file):
        chunks = {"chunks": (1000, 3072)} if filters else {}
        file.create_dataset("train/images", data=pixels, **chunks, **filters)
        file["train/labels"] = np.arange(7001) % 10

    found = load(saved(fill))
    np.testing.assert_array_equal(found.inputs, pixels)
    assert found.split == "train"


def test_groups_are_parts_of_names(saved):
    pictures = np.arange(6 * 3 * 4 * 5, dtype=np.uint8).reshape(6, 3, 4, 5)
    path = saved(
        **{"train/images": pictures, "train/labels": CLASSES, "test/images": pictures[:2]},
        **{"test/labels": CLASSES[:2], "meta/deep/one": ROWS},
    )
    train, _, test = load_splits(path)
    assert train.image_shape == (4, 5, 3)
    np.testing.assert_array_equal(train.inputs, pictures.reshape(6, -1))
    assert len(test.labels) == 2
    assert train.notes == ("a.h5: arrays that are not read: meta/deep/one.",)
    assert [part.split for part in load_inputs(path)] == ["train", "test"]


def test_text_is_read_as_labels_and_names(saved):
    animals = ["ant", "bête", "cow"]
    path = saved(X=ROWS, y=[animals[label] for label in CLASSES])
    assert load(path).class_names == tuple(animals)
    path = saved(X=ROWS, y=CLASSES, class_names=np.array([b"c", b"b", b"a"]))
    assert load(path).class_names == ("c", "b", "a")


def links(file):
    file["X"], file["y"] = h5py.ExternalLink("other.h5", "/X"), CLASSES


def soft(file):
    file["rows"], file["y"], file["X"] = ROWS, CLASSES, h5py.SoftLink("/rows")


def external(file):
    file.create_dataset("X", (6, 4), "f8", external=[("raw.bin", 0, 192)])
    file["y"] = CLASSES


def virtual(file):
    layout = h5py.VirtualLayout((6, 4), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "X", (6, 4))
    file.create_virtual_dataset("X", layout)
    file["y"] = CLASSES


def unwritten(file):
    file.create_dataset("X", (10**9, 1000), "f8", chunks=(1000, 1000), compression="gzip")
    file["y"] = CLASSES


def bomb(file):
    zeros = {"chunks": (1000, 1000), "compression": "gzip"}
    file.create_dataset("X", (40_000, 1000), "u1", data=np.zeros((40_000, 1000), "u1"), **zeros)
    file["y"] = CLASSES


def records(file):
    file["X"] = np.zeros(6, [("a", "f4"), ("b", "i4")])
    file["y"] = CLASSES


def ragged(file):
    data = file.create_dataset("X", (6,), h5py.vlen_dtype("f4"))
    data[0] = [1.0, 2.0]
    file["y"] = CLASSES


def nothing(file):
    file["X"], file["y"] = h5py.Empty("f4"), CLASSES


def circle(file):
    file["group/a"] = ROWS
    file["group/again"] = file["group"]


@pytest.mark.parametrize(
    ("fill", "match"),
    [
        *[(links, "link"), (soft, "link"), (external, "other files"), (virtual, "other files")],
        *[(unwritten, "claim"), (bomb, "claim"), (records, "neither numbers nor text")],
        *[(ragged, "neither numbers nor text"), (nothing, "holds nothing"), (circle, "`group/a`")],
    ],
)
def test_what_is_not_read_is_refused(saved, tmp_path, fill, match):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["X"] = ROWS
    (tmp_path / "raw.bin").write_bytes(ROWS.tobytes())
    path = saved(fill)
    with pytest.raises(DataError, match=match) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_cut_off_or_damaged_are_refused(saved):
    path = saved(X=ROWS.repeat(100, axis=1), y=CLASSES)
    whole = path.read_bytes()
    for kept in (0, 7, 100, 1000, len(whole) - 9):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"a\.h5"):
            load(path)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"X": ROWS[:0], "y": CLASSES[:0]}, "empty"),
        ({"X": np.where(ROWS == 9, np.nan, ROWS), "y": CLASSES}, "row 2, column 1"),
        ({"X": ROWS, "y": CLASSES[:5]}, "5 labels for 6"),
        ({"X": 3.0, "y": CLASSES}, "two or more axes"),
    ],
)
def test_wrong_values_are_named(saved, arrays, match):
    with pytest.raises(DataError, match=match):
        load(saved(**arrays))


def test_without_h5py_one_sentence_says_what_to_install(saved, monkeypatch):
    path = saved(X=ROWS, y=CLASSES)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"pip install 'jaxlin\[formats\]'"):
        load(path)
