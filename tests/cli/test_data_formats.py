"""`jaxlin data formats`, and every kind of file through the commands, from training to judging."""

import sys

import numpy as np
import pytest

from jaxlin.data.registry import READERS

GENERATOR = np.random.default_rng(0)
CLASSES = np.arange(120) % 3
ROWS = (GENERATOR.normal(size=(120, 5)) + 4 * np.eye(3, 5)[CLASSES]).astype(np.float32)
NEW = slice(90, 120)


def test_formats_tells_every_reader_its_lines_and_its_options(jaxlin):
    printed = jaxlin("data", "formats").out
    for reader in READERS:
        assert reader.title in printed
        assert reader.formats
        for option in reader.options:
            assert f"--{option.replace('_', '-')}" in printed
    assert max(map(len, printed.splitlines())) <= 100
    found = jaxlin("data", "formats", "--json").json["formats"]
    assert [kind["title"] for kind in found] == [reader.title for reader in READERS]


def parquet():
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {f"f{i}": ROWS[:, i] for i in range(5)} | {"species": CLASSES.astype(str)}
    for name, part in (("train", slice(90)), ("test", NEW)):
        pq.write_table(pa.table({k: v[part] for k, v in columns.items()}), f"{name}.parquet")
    return ".", "--label-column", "species"


def hdf5():
    h5py = pytest.importorskip("h5py")
    with h5py.File("a.h5", "w") as file:
        file["train/embeddings"], file["train/y"] = ROWS[:90], CLASSES[:90]
        file["test/embeddings"], file["test/y"] = ROWS[NEW], CLASSES[NEW]
        file["mean"] = ROWS.mean(0)
    return ("a.h5",)


def tensors():
    torch = pytest.importorskip("torch")
    x, y = torch.tensor(ROWS), torch.tensor(CLASSES)
    torch.save({"X_train": x[:90], "y_train": y[:90], "X_test": x[NEW], "y_test": y[NEW]}, "a.pt")
    return ("a.pt",)


def archive():
    parts = {"train_feats": ROWS[:90], "test_feats": ROWS[NEW], "train_images": ROWS[:90]}
    labels = {"train_labels": CLASSES[:90, None], "test_labels": CLASSES[NEW, None]}
    np.savez("a.npz", **parts, **labels)
    return "a.npz", "--inputs-key", "feats"


@pytest.mark.parametrize("kind", [parquet, hdf5, tensors, archive])
def test_every_kind_is_trained_on_and_judged_by_its_test_rows(jaxlin, kind):
    source, *options = kind()
    done = jaxlin("train", "--data", source, *options, "--steps", "60", "--out", "run")
    assert done.code == 0, done.err
    found = jaxlin("evaluate", "run", "--json").json
    assert (found["split"], found["n"]) == ("test", 30)
    assert found["accuracy"] > 0.9


def test_an_option_that_does_not_apply_is_refused(jaxlin):
    source, *_ = hdf5()
    sentence = jaxlin("train", "--data", source, "--label-column", "y", "--out", "run").refused()
    assert "--label-column is for tables" in sentence


@pytest.mark.parametrize(("kind", "module"), [(parquet, "pyarrow"), (hdf5, "h5py")])
def test_a_missing_extra_is_one_sentence(jaxlin, monkeypatch, kind, module):
    source, *options = kind()
    monkeypatch.setitem(sys.modules, module, None)
    sentence = jaxlin("train", "--data", source, *options, "--out", "run").refused()
    assert "pip install 'jaxlin[formats]'" in sentence
