"""The benchmarks of the solvers run on small data, and say what they name."""

import importlib
import json
from pathlib import Path

import pytest
from sklearn.datasets import load_iris

from jaxlin import cli

FOLDER = Path(__file__).parents[1] / "experiments" / "benchmarks"


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs one and returns what it prints, read from JSON."""
    monkeypatch.syspath_prepend(FOLDER)

    def run(name, *arguments):
        importlib.import_module(name).main([*arguments, "--json"])
        return json.loads(capsys.readouterr().out)

    return run


def test_time_to_accuracy_of_all_contenders(run, tmp_path):
    found = run("full_batch", "--peers", "lbfgs,optax", "--seconds", "3", "--out", str(tmp_path))
    times = found["seconds_to"]
    assert found["status"].startswith("converged")
    assert found["lower_bound"] <= found["best"] <= found["lower_bound"] * (1 + 2e-6)
    for name in ("jaxlin", "jaxlin, certified"):
        reached = list(times[name].values())
        assert reached == sorted(reached)
        assert reached[0] > 0
    assert times["optax lbfgs"]["1e-02"] is not None
    assert (tmp_path / "digits.png").stat().st_size > 10_000


def test_hinges_beside_softmax_and_liblinear(run):
    found = run("hinges", "--limit", "300", "--seconds", "0.2", "--tolerance", "1e-3")
    for loss in ("softmax", "hinge", "crammer-singer", "crammer-singer, bias regularized"):
        assert found[loss]["1e-03"]["relative_gap"] <= 1e-3
        assert found[loss]["1e-03"]["status"] == "converged"
    # no distance to a proved bound is negative
    assert min(above for _, above in found["liblinear"]) >= 0


def test_small_problems_beside_scikit_learn(run, monkeypatch, tmp_path):
    bench = importlib.import_module("small_problems")
    inputs, labels = load_iris(return_X_y=True)
    half = inputs[::2], labels[::2]  # in the place of the digits, on which the others are measured
    monkeypatch.setattr(bench, "problems", lambda: [("iris", inputs, labels), ("digits", *half)])
    found = run("small_problems", "--repeats", "1", "--out", str(tmp_path))
    for contenders in found.values():
        assert min(each["above"] for each in contenders.values()) == 0
        assert contenders["jaxlin"]["above"] <= bench.TOLERANCE
    others = json.loads((tmp_path / "small_others.json").read_text(encoding="utf-8"))
    assert [row[0] for row in others["rows"]] == list(bench.others())
    for ours, theirs in others["measured"].values():
        assert ours > 0
        assert theirs > 0


def test_commands_are_measured_by_what_their_folders_say(run, monkeypatch, tmp_path):
    """In this process: that each is one of its own costs seconds and changes no number."""
    bench = importlib.import_module("commands")
    calls = []

    def start(command, *, check, env):
        assert command[1:4] == [
            "-m",
            "jaxlin",
            "train",
        ]  # which is the command (`cli/test_help.py`)
        calls.append(env.get("JAXLIN_CACHE", "kept"))
        assert cli.main(command[3:]) == 0

    monkeypatch.setattr(bench.subprocess, "run", start)
    words = ["--rows", "200", "--width", "4", "--pairs", "1", "--out", str(tmp_path)]
    found = run("commands", *words)
    digits = found["accuracy"]["digits"]
    assert (digits["rows"], digits["validation"], digits["test"]) == (1298, 144, 355)
    assert min(digits["accuracy"].values()) > 0.9
    assert calls[4:] == ["kept", "off"]
    for name in ("accuracy", "program_cache"):
        assert (tmp_path / f"{name}.json").is_file()


def test_a_peer_that_nobody_knows_is_refused(run, capsys):
    for name, words in {"full_batch": "choose from lbfgs", "hinges": "choose from"}.items():
        with pytest.raises(SystemExit) as ended:
            run(name, "--peers", "oracle")
        assert ended.value.code == 2
        assert words in capsys.readouterr().err
