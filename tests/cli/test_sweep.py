"""`jaxlin sweep`: the folder it writes, what it promises, and what it refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from jaxlin import models
from jaxlin.data import load

QUICK = ("--epochs", "3", "--batch-size", "64")


@pytest.fixture
def mine(tmp_path):
    """150 examples of three overlapping classes, and 90 for the test, as files."""
    rng = np.random.default_rng(0)
    for name, size in (("train", 150), ("test", 90)):
        labels = np.arange(size) % 3
        inputs = rng.normal(0, 1.2, (size, 6)) + 2 * np.eye(6)[labels]
        np.save(tmp_path / f"{name}.npy", inputs.astype(np.float32))
        np.save(tmp_path / f"{name}_labels.npy", labels)
    return ("--data", "train.npy", "--labels", "train_labels.npy",
            "--test", "test.npy", "--test-labels", "test_labels.npy")  # fmt: skip


def test_a_minibatch_sweep_writes_a_complete_folder(jaxlin, drawn):
    done = jaxlin("sweep", "--strengths", "1e-4", "1e-2", "--step-sizes", "0.01", "0.03",
                  "--losses", "softmax", "hinge", *QUICK, "--out", "run", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert {path.name for path in Path("run").iterdir()} == {
        *("config.json", "env.json", "metrics.jsonl", "model.safetensors", "sweep.json"),
        *("curves.png", "pareto.png", "predictions.csv", "report.html"),
    }
    assert done.json == json.loads(Path("run/sweep.json").read_text(encoding="utf-8"))
    heads, best = done.json["heads"], done.json["best"]
    assert len(heads) == 8
    assert {(h["strength"], h["step_size"], h["loss"]) for h in heads} == {
        (s, e, loss) for s in (1e-4, 1e-2) for e in (0.01, 0.03) for loss in ("softmax", "hinge")
    }
    assert best["validation_accuracy"] == max(h["validation_accuracy"] for h in heads)
    assert heads[best["position"]]["strength"] == best["strength"]
    assert done.json["refit"]["n"] == 1442
    low, high = best["test_interval"]
    assert 0.8 < low < best["test_accuracy"] < high

    test, model = load("digits", split="test"), models.load(Path("run/model.safetensors"))
    guesses = models.scores(model, test.inputs).argmax(axis=1)
    assert best["test_accuracy"] == np.mean(guesses == test.labels)
    with open("run/predictions.csv", encoding="utf-8") as file:
        assert [int(row["predicted"]) for row in csv.DictReader(file)] == guesses.tolist()
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "digits: sweep" in page
    assert "Look at     run/report.html" in done.err

    again = jaxlin("evaluate", "run", "--json")
    assert again.json["accuracy"] == best["test_accuracy"]
    assert jaxlin("report", "run").code == 0
    repeat = jaxlin("sweep", "--config", "run/config.json", "--out", "same", "-q")
    assert (repeat.code, repeat.out, repeat.err) == (0, "", "")
    assert Path("same/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()


def test_a_certified_sweep_is_chosen_refitted_and_tested_once(jaxlin, mine):
    done = jaxlin("sweep", *mine, "--tolerance", "1e-6", "--dtype", "float64", "--json",
                  "--strengths", "1e-3", "1e-1", "10")  # fmt: skip
    assert done.code == 0, done.err
    heads, best = done.json["heads"], done.json["best"]
    assert [head["strength"] for head in heads] == [1e-3, 1e-1, 10]
    assert all(head["relative_gap"] <= 1.01e-6 for head in heads)
    norms = [head["weight_norm"] for head in heads]
    assert norms == sorted(norms, reverse=True)

    from jaxlin import preprocess, solvers

    inputs, labels = np.load("train.npy"), np.load("train_labels.npy")
    statistics = preprocess.fit(inputs, "standardize")
    refit = solvers.minimize(inputs, labels, strength=best["strength"], tolerance=1e-6,
                             preprocessing=statistics, dtype=np.float64)  # fmt: skip
    assert done.json["refit"]["objective"] == pytest.approx(refit.objective, rel=2e-6)
    rows = (np.load("test.npy") - statistics.shift) * statistics.scale
    guesses = (rows @ np.asarray(refit.params.weights).T + refit.params.bias).argmax(1)
    accuracy = np.mean(guesses == np.load("test_labels.npy"))
    assert best["test_accuracy"] == pytest.approx(accuracy, abs=1 / 90)


def test_a_published_lambda_stays_when_the_refit_sees_more_examples(jaxlin, mine):
    done = jaxlin("sweep", *mine, "--preset", "clip-search", "--json")
    assert done.code == 0, done.err
    best, refit = done.json["best"], done.json["refit"]
    assert done.json["preset"]["name"] == "clip-search"
    assert best["strength"] == pytest.approx(best["published"] / (2 * 135))
    assert refit["strength"] == pytest.approx(best["published"] / (2 * 150))
    assert len(done.json["heads"]) == 15


def test_two_feature_sets_are_compared_on_the_same_examples(jaxlin, mine):
    assert (
        jaxlin("sweep", *mine, "--subsets", "few=2:6", "--tolerance", "1e-3", "--out", "few").code
        == 0
    )
    done = jaxlin("sweep", *mine, "--tolerance", "1e-3", "--compare", "few", "--json")
    found = done.json["comparison"]
    with open("few/predictions.csv", encoding="utf-8") as file:
        theirs = [int(row["predicted"]) for row in csv.DictReader(file)]
    labels = np.load("test_labels.npy")
    assert found["second_accuracy"] == pytest.approx(np.mean(theirs == labels))
    assert found["difference"] == pytest.approx(found["first_accuracy"] - found["second_accuracy"])
    assert found["only_first"] > found["only_second"]
    assert found["p_value"] < 0.05
    assert "compared" in done.err

    np.save("test_labels.npy", labels[::-1])
    other = jaxlin("sweep", *mine, "--tolerance", "1e-3", "--compare", "few")
    assert "was tested on other examples" in other.refused()


def test_a_search_finds_the_peak_of_each_feature_set(jaxlin, mine):
    search = ("sweep", *mine, "--search", "coarse-to-fine", "--tolerance", "1e-2", "--strengths",
              "1e-4", "1e-2", "1", "--quiet", "--json")  # fmt: skip

    def found(name, *subsets):
        done = jaxlin(*search, "--subsets", *subsets, "--out", name)
        assert done.code == 0, done.err
        return [(h["subset"], h["strength"], h["validation_accuracy"]) for h in done.json["heads"]]

    together = found("both", "first=0:1", "all")
    assert together == found("one", "first=0:1") + found("other", "all")
    assert len(set(together)) == len(together) > 2 * 3


def test_few_shots_come_with_the_spread_of_their_draws(jaxlin, drawn, mine):
    done = jaxlin("sweep", *mine, "--shots", "1", "8", "--seeds", "0", "1", "2", "--strengths",
                  "1e-2", "1", "--tolerance", "1e-3", "--json", "--out", "run")  # fmt: skip
    assert done.code == 0, done.err
    one, eight = done.json["few_shot"]
    assert len(done.json["heads"]) == 12
    assert (one["shots"], len(one["test_accuracies"])) == (1, 3)
    assert one["test_accuracy"] == pytest.approx(np.mean(one["test_accuracies"]))
    assert eight["test_accuracy"] > one["test_accuracy"]
    assert done.json["refit"] is None
    assert Path("run/few_shot.png").is_file()


def test_a_single_draw_needs_no_validation(jaxlin, mine):
    done = jaxlin("sweep", *mine, "--shots", "2", "--strengths", "1e-2", "--tolerance", "1e-3",
                  "--validation", "0", "--json", "--out", "run")  # fmt: skip
    assert done.code == 0, done.err
    (row,) = done.json["few_shot"]
    assert row["validation_accuracy"] is None
    assert row["test_accuracies"] == [done.json["test"]["accuracy"]]


def test_a_published_descent_runs_with_a_smaller_batch(jaxlin, mine):
    done = jaxlin("sweep", *mine, "--preset", "dinov2", "--batch-size", "64", "--steps", "60",
                  "--subsets", "all", "ends=0:1,5:6", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert len(done.json["heads"]) == 26
    assert done.json["heads"][0]["step_size"] == pytest.approx(1e-5 * 64 / 256)
    assert done.json["refit"] is None
    alone = jaxlin("sweep", *mine, "--preset", "mae", "--batch-size", "64", "--json")
    assert alone.code == 0, alone.err
    assert alone.json["heads"][0]["step_size"] == pytest.approx(0.1 * 64 / 256)
    assert alone.json["n_validation"] == 0


def test_the_mean_over_classes_is_reported_where_it_is_asked_for(jaxlin, mine):
    done = jaxlin("sweep", *mine, "--strengths", "1e-2", "--metric", "mean-per-class",
                  *QUICK, "--json")  # fmt: skip
    shares = done.json["test"]["per_class"].values()
    assert done.json["test"]["mean_per_class_accuracy"] == pytest.approx(np.mean(list(shares)))


def test_eight_devices_fit_the_heads_of_one(jaxlin, mine, processes):
    """In processes that are made to see eight devices."""
    # Plain descent: Adam would blow up the rounding of a gradient that is zero, as the bias's is.
    options = ("sweep", *mine, "--strengths", "1e-3", "1e-1", "--steps", "24", "-q",
               "--optimizer", "sgd")  # fmt: skip
    for code, _, err in processes.finish([
        processes.start(".", *options, "--devices", count, "--out", count, devices=8)
        for count in ("1", "8")
    ]):  # fmt: skip
        assert code == 0, err
    one, eight = (
        json.loads(Path(f"{count}/sweep.json").read_text(encoding="utf-8")) for count in "18"
    )
    for a, b in zip(one["heads"], eight["heads"], strict=True):
        # Sums over the shards of 256 float32 numbers, in another order, over 24 steps.
        assert a["objective"] == pytest.approx(b["objective"], rel=1e-6)
        assert a["weight_norm"] == pytest.approx(b["weight_norm"], rel=1e-5)
        assert a["validation_accuracy"] == b["validation_accuracy"]


def test_heads_that_diverge_are_noted_and_all_of_them_fail(jaxlin, mine):
    common = ("sweep", *mine, "--losses", "squared-hinge", "--optimizer", "sgd", *QUICK)
    done = jaxlin(*common, "--step-sizes", "0.01", "1e30", "--json")
    assert done.code == 0, done.err
    assert "1 of 2 heads diverged" in done.json["notes"][-1]
    assert done.json["best"]["step_size"] == 0.01
    bad = jaxlin(*common, "--step-sizes", "1e30", "1e31")
    assert bad.code == 1
    assert "all of the 2 heads diverged" in bad.err


def test_an_edge_of_the_grid_is_pointed_out(jaxlin, mine):
    done = jaxlin(
        "sweep", *mine, "--strengths", "10", "100", "1000", "--tolerance", "1e-2", "--json"
    )
    assert "is the smallest of those tried" in done.json["notes"][0] or (
        done.json["best"]["strength"] != 10
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--strengths",), "--strengths"),
        (("--strengths", "-1"), "must be 0 or more"),
        (("--strengths", "nan"), "must be 0 or more"),
        (("--strengths", "1", "1"), "holds 1.0 twice"),
        (("--strengths", "1", "--preset", "clip"), "--strengths is fixed by the preset clip"),
        (("--step-sizes", "1", "--preset", "clip"), "--step-sizes is fixed by the preset clip"),
        (("--loss", "hinge", "--preset", "clip"), "--loss hinge is not that of the preset clip"),
        (("--optimizer", "sgd", "--preset", "mae"), "is not that of the preset mae, lars"),
        (("--preset", "mae"), "takes steps of 16,384 examples, and there are"),
        (("--preset", "few-shot", "--limit", "60"), "draws up to 16 training examples of each"),
        (("--preset", "klip"), "klip"),
        (("--step-sizes", "0.1", "--solver", "full-batch"), "belong to minibatch descent"),
        (("--step-sizes", "0.1", "--step-size", "0.1"), "exclude each other"),
        (("--strengths", "0.1", "--strength", "0.1"), "exclude each other"),
        (("--strengths", "1", "2", "--validation", "0"), "2 heads to choose from"),
        (("--shots", "2"), "--shots are solved full-batch"),
        (("--seeds", "1", "2", "--tolerance", "0.1"), "--seeds change nothing"),
        (("--search", "coarse-to-fine"), "--search coarse-to-fine is full-batch"),
        (
            ("--search", "coarse-to-fine", "--shots", "2", "--solver", "full-batch"),
            "--shots are chosen by the mean over their draws",
        ),
        (("--subsets", "a=0:100"), "does not lie in the 64 features"),
        (("--subsets", "dinov2:768"), "wants 5 * 768"),
        (("--compare", "nowhere"), "nowhere/predictions.csv: is missing"),
        (("--bank-memory", "1e-9", "--quiet"), "One head of 10 classes"),
        (("--class-devices", "2", "--tolerance", "0.1"), "--class-devices is for minibatch"),
        (("--coordinator", "a:1"), "needs --num-processes and --process-id too"),
        (("--bank-memory", "0"), "--bank-memory must be positive"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(jaxlin, options, sentence):
    done = jaxlin("sweep", *options, "--out", "run")
    assert sentence in done.refused()
    assert not (Path("run") / "sweep.json").exists()
