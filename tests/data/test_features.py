"""Features in files: the layouts in which they are found, and what is told of them."""

import numpy as np
from safetensors.numpy import save_file

from jaxlin.data import load, load_inputs, load_splits, open_features
from jaxlin.data.survey import survey

ROWS, WIDTH = 100, 7


def layouts(folder, inputs, series):
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
    yield put(folder / "l", "train-00000-of-00001", "train_labels")
    (folder / "k").mkdir()
    yield series(folder / "k" / "train", inputs, name="clip").parent
    save_file({"features": inputs, "labels": classes}, folder / "one.safetensors")
    yield folder / "one.safetensors"


def test_every_layout_of_the_documentation_is_found(tmp_path, numbers, series):
    inputs = numbers()
    for path in layouts(tmp_path, inputs, series):
        found = load(path)
        np.testing.assert_array_equal(found.inputs, inputs, err_msg=str(path))
        assert found.labels.tolist() == [r % 3 for r in range(ROWS)], path


def test_parts_are_train_validation_and_test(tmp_path, series, numbers):
    inputs = numbers()
    series(tmp_path, inputs)
    np.save(tmp_path / "val.npy", inputs[:9])
    np.save(tmp_path / "val_labels.npy", np.arange(9) % 2)
    train, validation, test = load_splits(tmp_path)
    assert (len(train.labels), len(test.labels)) == (ROWS, 9)  # as ImageNet has it
    assert test.class_names == train.class_names == ("0", "1", "2")
    assert validation is None
    assert test.split == "validation"
    np.save(tmp_path / "test_features.npy", inputs[:5])
    np.save(tmp_path / "test_labels.npy", np.arange(5) % 3)
    assert [len(split.labels) for split in load_splits(tmp_path)[1:]] == [9, 5]
    assert open_features(tmp_path, part="validation").inputs.shape == (9, WIDTH)


def test_class_names_come_from_a_file(tmp_path, series, numbers, refused):
    series(tmp_path, numbers())
    (tmp_path / "classes.txt").write_text("cat\ndog\nfrog\n", encoding="utf-8")
    assert open_features(tmp_path).class_names == ("cat", "dog", "frog")
    (tmp_path / "classes.txt").write_text("cat\ndog\n", encoding="utf-8")
    refused(tmp_path, r"train-00000-of-00004\.labels\.npy: .* in \[0, 2\), got 2 at row 2")


def test_unlabeled_features_are_rows_to_predict(tmp_path, numbers):
    inputs = numbers()
    np.save(tmp_path / "new.npy", inputs)
    (found,) = load_inputs(tmp_path / "new.npy")
    np.testing.assert_array_equal(found.inputs, inputs)
    assert found.names[3] == "new.npy[3]"
    assert open_features(tmp_path / "new.npy").labels is None


def test_a_series_may_begin_at_one(tmp_path, numbers):
    inputs = numbers()
    for number in (1, 2):
        np.save(tmp_path / f"train-{number}-of-2.npy", inputs[(number - 1) * 50 : number * 50])
    np.save(tmp_path / "labels.npy", np.arange(ROWS) % 3)
    np.testing.assert_array_equal(load(tmp_path).inputs, inputs)


def test_a_survey_counts_and_finds_what_is_not_finite(tmp_path, series, numbers):
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
