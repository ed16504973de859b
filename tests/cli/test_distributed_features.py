"""Runs of two processes whose folders hold only some of the shards each, as on disks of their own.

They talk through gloo on localhost. A run of both takes some five seconds.
"""

import json
import shutil

import numpy as np
import pytest

from jaxlin import models

CUTS = (0, 300, 1100, 1500, 2500, 2900, 3300)
SHARDS = len(CUTS) - 1
# Not by Adam, whose first steps make much of rounding.
DESCENT = ("--epochs", "4", "--batch-size", "100", "--optimizer", "momentum")
HELD = ((0, 1, 2), (2, 3, 4, 5))  # one of them on both


def file(i, ending=".npy"):
    return f"train-{i:05d}-of-{SHARDS:05d}{ending}"


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    """`all/set` with six shards and a test file, `0/set` and `1/set` with some of the shards."""
    root, rng = tmp_path_factory.mktemp("disks"), np.random.default_rng(0)
    labels = rng.integers(0, 5, 3700)
    inputs = rng.normal(size=(3700, 20)) + 0.6 * rng.normal(size=(5, 20))[labels]
    inputs = inputs.astype(np.float16)
    for disk in ("all", "0", "1"):
        (root / disk / "set").mkdir(parents=True)
    for i in range(SHARDS):
        rows = slice(CUTS[i], CUTS[i + 1])
        for disk in ("all", *(disk for disk in "01" if i in HELD[int(disk)])):
            np.save(root / disk / "set" / file(i), inputs[rows])
            np.save(root / disk / "set" / file(i, ".labels.npy"), labels[rows])
    for disk in ("all", "1"):
        np.save(root / disk / "set" / "test.npy", inputs[3300:])
        np.save(root / disk / "set" / "test_labels.npy", labels[3300:])
    return root


def both(processes, folder, disks, *words):
    """Two processes, each with its own disk at `set`, writing to `folder/run`."""
    first = ("--data", str(disks / "0" / "set"))
    second = ("--data", str(disks / "1" / "set"))
    return processes.finish(
        processes.start_both(folder, "train", "--out", "run", *words, *first, others=second)
    )


@pytest.mark.parametrize(
    "words",
    [
        ("--tolerance", "1e-8", "--strength", "1e-3"),
        (*DESCENT, "--save-every", "40"),
        (*DESCENT, "--memory", "3e-5"),  # windows of 200 rows
    ],
    ids=["certified", "minibatch", "streamed"],
)
def test_hosts_that_have_some_shards_each_fit_the_model_of_one_that_has_all(
    tmp_path, disks, jaxlin, processes, words
):
    alone = jaxlin("train", "--data", disks / "all" / "set", "--out", "alone", *words, "--json")
    assert alone.code == 0, alone.err
    (code, _, err), (silent, nothing, quiet) = both(processes, tmp_path, disks, *words)
    assert (code, silent) == (0, 0), err + quiet
    assert (nothing, quiet) == ("", "")
    results = json.loads((tmp_path / "run/results.json").read_text(encoding="utf-8"))
    assert results["objective"] == pytest.approx(alone.json["objective"], rel=1e-6)
    assert results["data"] == alone.json["data"]
    assert results["test"]["confusion"] == alone.json["test"]["confusion"]
    one, other = (models.load(tmp_path / run / "model.safetensors") for run in ("alone", "run"))
    # Statistics are sums in float64, in another order.
    shift = one.preprocessing.shift
    np.testing.assert_allclose(other.preprocessing.shift, shift, rtol=1e-12, atol=1e-14)
    if "--tolerance" in words:
        assert results["lower_bound"] == pytest.approx(alone.json["lower_bound"], rel=1e-6)
        assert results["relative_gap"] <= 1.01e-8
        # strength |W - W*|^2 <= 1e-8 of the objective, for both
        bound = 2 * np.sqrt(1e-8 * results["objective"] / 1e-3)
        assert np.linalg.norm(one.params.weights - other.params.weights) <= bound
    if "--save-every" in words:  # and one process with all shards goes on where they were
        again = ("--data", disks / "all" / "set", "--out", "run", *words, "--resume", "auto")
        done = jaxlin("train", *again)
        assert "Going on from step 120" in done.err, done.err
        assert done.code == 0


def test_a_shard_that_no_host_has_ends_both_in_one_sentence(tmp_path, disks, processes):
    for disk in "01":
        shutil.copytree(disks / disk, tmp_path / disk)
    (tmp_path / "1" / "set" / file(4)).unlink()
    for code, out, err in both(processes, tmp_path, tmp_path):
        assert (code, out) == (2, "")
        (sentence,) = err.splitlines()
        assert (
            "all 2 processes together: of the 6 files of train-*-of-6 number 4 is miss" in sentence
        )
