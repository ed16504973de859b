"""Tensors that PyTorch saved: values of every layout, and no program is ever run."""

import pickle
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxlin.core import DataError
from jaxlin.data import load, load_splits

ROWS = np.arange(24.0, dtype=np.float32).reshape(6, 4)
CLASSES = np.arange(6) % 3


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def saved(tmp_path, torch):
    """A function that saves with `torch.save`, and returns the path."""

    def save(content, name="a.pt", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


def test_dicts_pairs_and_dicts_of_dicts(saved, torch):
    rows, labels = torch.tensor(ROWS), torch.tensor(CLASSES)
    parts = {
        "train": {"images": rows.reshape(6, 2, 2), "labels": labels[:, None]},
        "test": {"images": rows[:2].reshape(2, 2, 2), "labels": labels[:2]},
    }
    for content in ({"X": rows, "y": labels}, (rows, labels), [rows, labels]):
        found = load(saved(content))
        np.testing.assert_array_equal(found.inputs, ROWS)
        assert found.labels.tolist() == CLASSES.tolist()
        assert found.split == "all"
    train, _, test = load_splits(saved({**parts, "epoch": 3}, "b.pth"))
    np.testing.assert_array_equal(train.inputs, ROWS)
    assert train.image_shape == (2, 2)
    assert train.notes == ("b.pth: arrays that are not read: epoch.",)
    assert test.labels.tolist() == [0, 1]


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64", "uint8", "int32", "int64"])
def test_types(saved, torch, kind):
    content = {"x": torch.tensor(ROWS).to(getattr(torch, kind)), "y": torch.tensor(CLASSES)}
    found = load(saved(content))
    np.testing.assert_array_equal(found.inputs.astype(np.float64), ROWS)
    if kind == "bfloat16":
        assert found.inputs.dtype == ml_dtypes.bfloat16


def test_views_are_read_as_they_look(saved, torch):
    rows = torch.tensor(ROWS)
    content = {"x": rows.T.contiguous().T, "y": torch.tensor(CLASSES).requires_grad_(False)}
    np.testing.assert_array_equal(load(saved(content)).inputs, ROWS)
    turned = rows.to(torch.bfloat16).T.contiguous().T
    found = load(saved({"x": turned, "y": torch.tensor(CLASSES)}))
    np.testing.assert_array_equal(found.inputs.astype(np.float32), ROWS)


def test_a_single_tensor_has_its_labels_beside_it(saved, torch, tmp_path):
    path = saved(torch.tensor(ROWS))
    with pytest.raises(DataError, match="labels"):
        load(path)
    np.save(tmp_path / "labels.npy", CLASSES)
    assert load(path).labels.tolist() == CLASSES.tolist()
    saved(torch.tensor(CLASSES[::-1].copy()), "a_labels.pt")
    assert load(path).labels.tolist() == CLASSES[::-1].tolist()
    other = saved(torch.tensor(CLASSES), "other.pt")
    assert load(path, labels=other).labels.tolist() == CLASSES.tolist()
    with pytest.raises(DataError, match="labels of its own"):
        load(saved({"x": torch.tensor(ROWS), "y": torch.tensor(CLASSES)}), labels=other)
    path = saved(torch.tensor(ROWS))
    with pytest.raises(DataError, match="one tensor"):
        load(path, labels=saved({"y": torch.tensor(CLASSES)}, "other.pt"))
    with pytest.raises(DataError, match="no such file"):
        load(path, labels=tmp_path / "none.pt")


def test_lists_of_names_are_labels(saved, torch):
    animals = ["ant", "bee", "cow"]
    content = {"x": torch.tensor(ROWS), "y": torch.tensor(CLASSES), "class_names": animals}
    assert load(saved(content)).class_names == tuple(animals)
    found = load(saved({"x": torch.tensor(ROWS), "y": [animals[i] for i in CLASSES]}))
    assert found.labels.tolist() == CLASSES.tolist()


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_file_that_would_run_code_does_not(saved, torch, tmp_path):
    marker = tmp_path / "ran"
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        path = saved({"x": torch.tensor(ROWS), "y": Evil(marker)}, **options)
        with pytest.raises(DataError, match=r"a\.pt"):
            load(path)
    path.write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(DataError, match=r"a\.pt"):
        load(path)
    assert not marker.exists()


def test_files_cut_off_or_compressed_are_refused(saved, torch, tmp_path):
    path = saved({"x": torch.tensor(ROWS), "y": torch.tensor(CLASSES)})
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for kept in (0, 50, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"a\.pt"):
            load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match="compressed"):
        load(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda torch: {"x": torch.zeros(1).expand(10**6, 10**5)}, "more than the 4 bytes"),
        (lambda torch: {"x": torch.eye(6).to_sparse()}, "no plain tensor"),
        (lambda torch: {"x": torch.zeros(6, 4, dtype=torch.complex64)}, "complex64"),
        (lambda torch: {"x": torch.zeros(0, 4)}, "empty"),
        (lambda torch: {"x": torch.full((6, 4), torch.nan)}, "nan at row 0"),
        (lambda torch: {"x": torch.zeros(6, 4).to(torch.float8_e4m3fn)}, "float8"),
        (lambda torch: {"x": {1, 2}}, "set"),
        (lambda torch: {"fc.weight": torch.zeros(3, 4)}, "no array for the inputs"),
    ],
)
def test_what_is_no_array_of_rows_is_refused(saved, torch, change, match):
    path = saved(change(torch) | {"y": torch.tensor(CLASSES)})
    with pytest.raises(DataError, match=match) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_other_containers_are_refused(saved, torch):
    rows = torch.tensor(ROWS)
    for content, match in (((rows, rows, rows), "tuple of 3"), (3, "a int"), ([], "list of 0")):
        with pytest.raises(DataError, match=match):
            load(saved(content))


def test_without_torch_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.pt").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DataError, match="pip install torch"):
        load(tmp_path / "a.pt")
