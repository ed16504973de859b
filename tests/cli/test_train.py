"""`jaxlin train`: the run folder, its promises, and what it refuses."""

import csv
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxlin import models
from jaxlin.losses import LOSSES

QUICK = ("--steps", "40", "--batch-size", "64")


def test_a_run_folder_is_complete(jaxlin, trained):
    assert {path.name for path in Path("run").iterdir()} == {
        *("config.json", "env.json", "metrics.jsonl", "model.safetensors", "results.json"),
        *("curves.png", "templates.png", "confusion.png", "predictions.csv", "report.html"),
    }
    assert trained == json.loads(Path("run/results.json").read_text(encoding="utf-8"))
    for part in ("train", "validation", "test"):
        assert {"accuracy", "loss", "accuracy_interval"} <= trained[part].keys()
    assert trained["test"]["per_class"].keys() == set("0123456789")
    assert trained["n_train"] == 1298
    assert {"compile", "train"} <= trained["seconds"].keys()


def test_results_are_those_of_the_saved_model(jaxlin, trained):
    from jaxlin.data import load

    test = load("digits", split="test")
    scores = models.scores(models.load(Path("run/model.safetensors")), test.inputs)
    assert trained["test"]["accuracy"] == np.mean(scores.argmax(axis=1) == test.labels)
    with open("run/predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["predicted"]) for row in rows] == scores.argmax(axis=1).tolist()


def test_plain_training_on_digits_is_good(jaxlin):
    done = jaxlin("train", "--json")
    assert done.json["test"]["accuracy"] >= 0.95
    assert "Look at     runs/digits-softmax/report.html" in done.err
    again = jaxlin("train", *QUICK)  # a second run makes a folder of its own
    assert "runs/digits-softmax-2/report.html" in again.err


def test_configuration_reproduces_the_run_bit_for_bit(jaxlin, trained):
    done = jaxlin("train", "--config", "run/config.json", "--out", "again", "-q")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert (
        Path("again/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()
    )
    other = jaxlin("train", "--config", "run/config.json", "--out", "other", "--seed", "1", "-q")
    assert other.code == 0
    assert json.loads(Path("other/config.json").read_text(encoding="utf-8"))["seed"] == 1
    assert (
        Path("other/model.safetensors").read_bytes() != Path("run/model.safetensors").read_bytes()
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains(jaxlin, arrays, loss):
    done = jaxlin("train", "--data", "mine.npz", "--loss", loss, "--steps", "300", "--json")
    assert done.json["train"]["accuracy"] == 1.0
    assert done.json["test"] is None
    assert "none was given" in done.err


@pytest.mark.parametrize(
    "options",
    [
        ("--optimizer", "sgd", "--schedule", "constant", "--batch-size", "1"),
        ("--optimizer", "adamw", "--preprocess", "center", "--schedule", "linear"),
        ("--precision", "bf16", "--regularizer", "l1"),
        ("--dtype", "float64", "--preprocess", "scale", "--validation", "5", "--patience", "2"),
        ("--batch-size", "1000", "--limit", "30", "--validation", "0", "--strength", "0"),
    ],
)
def test_options_do_what_they_say(jaxlin, arrays, options):
    done = jaxlin("train", "--data", "mine.npz", "--epochs", "60", "--json", *options)
    assert done.code == 0, done.err
    assert done.json["train"]["accuracy"] > 0.9
    if "--limit" in options:
        assert (done.json["n_train"], done.json["validation"]) == (30, None)
        assert "The batch is the full 30 examples." in done.err
    if "--validation" in options and "5" in options:
        assert done.json["n_validation"] == 5


def test_objective_is_loss_plus_penalty(jaxlin, arrays):
    done = jaxlin(
        "train", "--data", "mine.npz", "--strength", "0.5", *QUICK, "--json", "--out", "r"
    )
    weights = models.load(Path("r/model.safetensors")).params.weights
    expected = done.json["train"]["loss"] + 0.5 * (weights.astype(np.float64) ** 2).sum()
    assert done.json["objective"] == pytest.approx(expected, rel=1e-6)


def test_an_archive_brings_its_test_set(jaxlin, arrays, tmp_path):
    inputs, labels = arrays
    np.savez("both.npz", X=inputs[:30], y=labels[:30], test_inputs=inputs[30:],
             test_labels=labels[30:])  # fmt: skip
    assert jaxlin("train", "--data", "both.npz", *QUICK, "--json").json["test"]["n"] == 10
    np.save("inputs.npy", inputs)
    np.save("labels.npy", labels)
    done = jaxlin("train", "--data", "inputs.npy", "--test", "mine.npz", *QUICK, "--json")
    assert done.json["test"]["n"] == 40
    np.save("other.npy", labels)
    np.save("test.npy", inputs[:6])
    np.save("own.npy", labels[:6])
    done = jaxlin("train", "--data", "inputs.npy", "--labels", "other.npy", "--test", "test.npy",
                  "--test-labels", "own.npy", *QUICK, "--json")  # fmt: skip
    assert (done.json["n_train"], done.json["test"]["n"]) == (36, 6)


def test_a_folder_of_pictures_trains(jaxlin, drawn):
    for name, level in (("bright", 200), ("dark", 30)):
        for i in range(6):
            folder = Path("pictures/train") / name
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.full((8, 6, 3), level + i, np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    done = jaxlin("train", "--data", "pictures", "--preprocess", "scale", "--steps", "200",
                  "--validation", "0", "--json", "--out", "run")  # fmt: skip
    assert done.json["train"]["accuracy"] == 1.0
    assert models.load(Path("run/model.safetensors")).image_shape == (8, 6, 3)
    assert Path("run/templates.png").exists()


def test_divergence_is_a_failure_that_names_the_knobs(jaxlin, arrays):
    done = jaxlin("train", "--data", "mine.npz", "--loss", "squared-hinge", "--optimizer", "sgd",
                  "--step-size", "1e30", "--steps", "100", "--out", "run")  # fmt: skip
    assert done.code == 1
    assert "no longer finite at step" in done.err
    assert "lower --step-size" in done.err
    assert np.isfinite(models.load(Path("run/model.safetensors")).params.weights).all()


def test_class_names_are_escaped(jaxlin, drawn):
    for name in ("<script>alert(1)</script>".replace("/", "_"), "=1+1"):
        folder = Path("pictures/train") / name
        folder.mkdir(parents=True)
        for i in range(4):
            level = 40 * i + (100 if name[0] == "=" else 0)
            Image.fromarray(np.full((4, 4), level, np.uint8)).save(folder / f"{i}.png")
    assert (
        jaxlin("train", "--data", "pictures", "--validation", "0", *QUICK, "--out", "r").code == 0
    )
    assert "<script>alert" not in Path("r/report.html").read_text(encoding="utf-8")
    cells = Path("r/predictions.csv").read_text(encoding="utf-8")
    assert ",'=1+1" in cells
    assert ",=1+1" not in cells


REFUSED = {
    ("--batch-size", "0"): "--batch-size must be positive, got 0",
    ("--epochs", "-1"): "--epochs must be positive, got -1",
    ("--steps", "0"): "--steps must be positive",
    ("--step-size", "0"): "--step-size must be positive",
    ("--step-size", "nan"): "--step-size must be positive, got nan",
    ("--limit", "0"): "--limit must be positive",
    ("--strength", "-1"): "--strength must be 0 or more and finite, got -1.0",
    ("--strength", "inf"): "--strength must be 0 or more and finite, got inf",
    ("--validation", "-0.1"): "--validation must be 0 or more",
    ("--validation", "5000"): "--validation 5000 would keep 5000 of 1442",
    ("--patience", "3", "--validation", "0"): "--patience needs validation examples",
    ("--epochs", "2", "--steps", "3"): "--epochs and --steps exclude each other",
    ("--seed", "-1"): "--seed must be in [0, 2**32)",
    (
        "--strenght",
        "1",
    ): "is not an option of `jaxlin train`. Did you mean `--strength`",
    ("--optimizer", "adm"): "adam",
    ("--loss", "logistic"): "softmax",
    ("--epochs", "two"): "two",
    ("--data", "cifar11"): "cifar10",
    ("--data", "missing.npz"): "missing.npz",
    ("--config", "missing.json"): "missing.json: there is no such file",
}


@pytest.mark.parametrize("options", REFUSED, ids=" ".join)
def test_a_mistake_costs_one_sentence(jaxlin, options):
    assert REFUSED[options] in jaxlin("train", *options, "--out", "run").refused()
    assert not Path("run").exists()


def test_a_folder_that_is_not_empty_is_refused(jaxlin, trained):
    before = Path("run/results.json").read_bytes()
    assert "run: the folder is not empty" in jaxlin("train", "--out", "run").refused()
    assert Path("run/results.json").read_bytes() == before
    assert jaxlin("train", "--out", "run", "--overwrite", *QUICK, "-q").code == 0


def test_a_file_for_a_folder_is_refused(jaxlin):
    Path("run").write_text("mine", encoding="utf-8")
    assert "run: is a file" in jaxlin("train", "--out", "run").refused()
    assert Path("run").read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_refused(jaxlin):
    Path("closed").mkdir(mode=0o500)
    assert "cannot be written" in jaxlin("train", "--out", "closed/run").refused()


def test_a_path_below_a_file_is_refused(jaxlin):
    Path("file").write_text("mine", encoding="utf-8")
    assert "file" in jaxlin("train", "--out", "file/run").refused()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"strenght": 1}', '"strenght" is not an option. Did you mean "strength"'),
        ("[1]", "expected a JSON object"),
        ("{", "not a JSON file"),
        ('{"loss": "hing"}', "loss"),
        ('{"batch_size": "many"}', "batch"),
        ('{"batch_size": -3}', "--batch-size must be positive, got -3"),
    ],
)
def test_a_broken_configuration_is_refused(jaxlin, text, sentence):
    Path("config.json").write_text(text, encoding="utf-8")
    assert sentence in jaxlin("train", "--config", "config.json").refused()


def test_full_batch_proves_how_far_the_optimum_is(jaxlin, drawn, arrays):
    done = jaxlin("train", "--data", "mine.npz", "--tolerance", "1e-3", "--strength", "0.01",
                  "--json", "--out", "run", "-v")  # fmt: skip
    assert done.code == 0, done.err
    found = done.json
    assert found["solver"] == "full-batch"
    assert found["lower_bound"] <= found["objective"] <= found["lower_bound"] * (1 + 1.1e-3)
    assert found["gap"] == pytest.approx(found["objective"] - found["lower_bound"], abs=1e-6)
    assert "lower bound none yet" in done.err
    records = [
        json.loads(line)
        for line in Path("run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert {"evaluations", "objective", "lower_bound"} <= records[-1].keys()
    assert "certified relative gap" in Path("run/report.html").read_text(encoding="utf-8")
    assert jaxlin("report", "run").code == 0


def test_full_batch_says_both_bounds_and_the_gap_as_it_goes(jaxlin, arrays):
    settings = ("--data", "mine.npz", "--tolerance", "1e-6", "--strength", "1e-3")
    done = jaxlin("train", *settings, "--out", "run")
    lines = [line for line in done.err.splitlines() if line.startswith("pass ")]
    gaps = [float(line.split("relative gap")[1]) for line in lines]
    assert len(gaps) > 1
    assert all(after <= 0.51 * before for before, after in itertools.pairwise(gaps))
    assert gaps[-1] <= 1e-6
    assert "pass " not in jaxlin("train", *settings, "--out", "quiet", "-q").err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--solver", "full-batch", "--epochs", "3"), "--epochs belongs to minibatch descent"),
        (("--solver", "minibatch", "--tolerance", "1e-3"), "--tolerance needs certificates"),
        (("--tolerance", "0"), "--tolerance must be between 0 and 1"),
        (
            ("--tolerance", "1e-3", "--regularizer", "l1", "--loss", "hinge"),
            "--regularizer l1 needs a smooth loss",
        ),
        (("--tolerance", "1e-3", "--precision", "bf16"), "--precision bf16 rounds more"),
    ],
)
def test_options_of_the_other_solver_are_refused(jaxlin, options, sentence):
    assert sentence in jaxlin("train", *options).refused()
