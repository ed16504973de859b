"""Features on the command line: described, trained on in a budget, refused in one sentence."""

import numpy as np
import pytest


@pytest.fixture
def stored(tmp_path):
    """Six hundred separable rows of float16 in `set/train` (three shards) and `set/test`."""
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 3
    inputs = (rng.normal(0, 0.5, (600, 8)) + 2 * np.eye(8)[labels]).astype(np.float16)
    train, test = tmp_path / "set" / "train", tmp_path / "set" / "test"
    train.mkdir(parents=True)
    test.mkdir()
    for shard, rows in enumerate((slice(0, 100), slice(100, 350), slice(350, 480))):
        np.save(train / f"train-{shard:05d}-of-00003.npy", inputs[rows])
        np.save(train / f"train-{shard:05d}-of-00003.labels.npy", labels[rows])
    np.save(test / "features.npy", inputs[480:])
    np.save(test / "labels.npy", labels[480:])
    return train


def test_info_says_what_is_there(jaxlin, stored):
    found = jaxlin("features", "info", "set", "--json").json["parts"]
    assert (found["train"]["rows"], found["train"]["width"]) == (480, 8)
    assert [shard["rows"] for shard in found["train"]["shards"]] == [100, 250, 130]
    assert found["test"]["class_counts"] == {"0": 40, "1": 40, "2": 40}
    said = jaxlin("features", "info", "set", "--check")
    assert said.code == 0
    for word in ("480 x 8 float16", "in 3 files", "100 to 250 rows each", "160 examples each"):
        assert word in said.out, said.out


def test_check_names_what_is_not_finite_and_exits_with_one(jaxlin, stored):
    path = stored / "train-00001-of-00003.npy"
    inputs = np.load(path)
    inputs[7, 2] = np.nan
    np.save(path, inputs)
    said = jaxlin("features", "info", "set", "--check")
    assert said.code == 1
    assert "train-00001-of-00003.npy: the inputs must be finite, got nan at row 7" in said.out
    sentence = jaxlin("train", "--data", "set", "--out", "run").refused()
    assert "train-00001-of-00003.npy" in sentence
    assert "row 7, column 2" in sentence


@pytest.mark.parametrize(
    "how", [("--steps", "60", "--batch-size", "64"), ("--tolerance", "1e-3")], ids=" ".join
)
def test_a_run_within_a_budget_is_as_good_as_one_in_memory(jaxlin, stored, how):
    # 480 rows of 16 bytes are 7.3e-6 GiB: everything is streamed, in windows of 64 rows.
    streamed = jaxlin("train", "--data", "set", "--out", "a", *how, "--memory", "4e-6", "--json")
    held = jaxlin("train", "--data", "set", "--out", "b", *how, "--json")
    assert streamed.code == held.code == 0, streamed.err
    for part in ("train", "test"):
        ours, its = (run.json[part]["accuracy"] for run in (streamed, held))
        assert abs(ours - its) <= 0.03
        assert ours > 0.9
    assert streamed.json["data"] == held.json["data"]
    if "--tolerance" in how:  # the same optimum, each within 1e-3 of it
        assert streamed.json["objective"] == pytest.approx(held.json["objective"], rel=2e-3)
    assert jaxlin("evaluate", "a", "--json").json["n"] == 120
    assert jaxlin("predict", "a", "set/test/features.npy", "--top", "1").code == 0


def test_a_streamed_run_repeats_itself(jaxlin, stored):
    runs = [
        jaxlin(
            "train", "--data", "set", "--out", out, "--steps", "30", "--memory", "4e-6", "--json"
        )
        for out in "ab"
    ]
    assert runs[0].json["objective"] == runs[1].json["objective"]


def test_a_folder_with_val_and_test_brings_its_own_validation(jaxlin, stored, tmp_path):
    val = tmp_path / "set" / "val"
    val.mkdir()
    np.save(val / "features.npy", np.load(stored / "train-00000-of-00003.npy")[:30])
    np.save(val / "labels.npy", np.arange(30) % 3)
    found = jaxlin("train", "--data", "set", "--out", "a", "--steps", "20", "--json").json
    assert [found[part]["n"] for part in ("train", "validation", "test")] == [480, 30, 120]


BAD = {
    "missing": (lambda t: (t / "train-00001-of-00003.npy").unlink(), "number 1 is missing"),
    "double": (lambda t: np.save(t / "train-1-of-3.npy", np.ones((3, 8))), "is number 1"),
    "wide": (
        lambda t: np.save(t / "train-00001-of-00003.npy", np.ones((250, 9), np.float16)),
        "has 9 features a row",
    ),
    "empty": (lambda t: np.save(t / "train-00001-of-00003.npy", np.ones((0, 8))), "(0, 8)"),
    "labels": (
        lambda t: np.save(t / "train-00001-of-00003.labels.npy", np.arange(3)),
        "there are 3 labels for the 250 inputs",
    ),
    "negative": (
        lambda t: np.save(t / "train-00001-of-00003.labels.npy", np.arange(250) % 3 - 1),
        "got -1 at row 0",
    ),
    "cut": (
        lambda t: (t / "train-00001-of-00003.npy").write_bytes(b"\x93NUMPY"),
        "not a readable .npy header",
    ),
}


@pytest.mark.parametrize("command", [("train", "--out", "run", "--data"), ("features", "info")])
@pytest.mark.parametrize("name", BAD)
def test_bad_shards_are_refused_in_one_sentence(jaxlin, stored, name, command):
    harm, words = BAD[name]
    harm(stored)
    sentence = jaxlin(*command, "set").refused()
    assert words in sentence
    assert "train-" in sentence


def test_memory_must_be_positive(jaxlin):
    assert "--memory must be positive" in jaxlin("train", "--memory", "0").refused()


def test_nothing_there(jaxlin, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "there are no features" in jaxlin("features", "info", "empty").refused()
    assert "Check the path" in jaxlin("features", "info", "nowhere.npy").refused()
