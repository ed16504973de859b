"""Paths as people write them: from the home folder, and with characters that others interpret."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ODD = "a b#c%20d$x^{y?|[1]*;&'\"<i>\\"
QUICK = ("--steps", "3", "--quiet")


@pytest.fixture
def home(tmp_path, monkeypatch, arrays):
    """A home folder with `f.npy` and `t.npy`, whose labels lie elsewhere, and `mine.npz`."""
    inputs, labels = arrays
    folder = tmp_path / "my home"
    folder.mkdir()
    for name in "ft":
        np.save(folder / f"{name}.npy", inputs)
        np.save(folder / f"classes of {name}.npy", labels)
    (tmp_path / "mine.npz").rename(folder / "mine.npz")
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_every_option_and_argument_knows_the_home_folder(jaxlin, home):
    labels = ("--labels=~/classes of f.npy", "--test-labels=~/classes of t.npy")
    train = ("train", "--data=~/f.npy", "--test=~/t.npy", *labels, "--out=~/run", *QUICK)
    assert jaxlin(*train).code == 0
    config = json.loads((home / "run/config.json").read_bytes())
    assert config["labels"] == str(home / "classes of f.npy")
    assert config["data"] == str(home / "f.npy")

    assert jaxlin("train", "--config=~/run/config.json", "--out", "~/again", "--quiet").code == 0
    (home / "options.json").write_text(
        json.dumps({"data": "~/mine.npz", "out": None, "steps": 3}), encoding="utf-8"
    )
    assert jaxlin("train", "--config", "~/options.json", "--out=~/third", "--quiet").code == 0
    assert (home / "third/model.safetensors").is_file()

    measured = jaxlin("evaluate", "~/run", "--data=~/t.npy", "--labels=~/classes of t.npy")
    assert measured.code == 0
    predicted = jaxlin("predict", "~/run", "~/f.npy", "~/t.npy")
    assert (predicted.code, len(predicted.out.splitlines())) == (0, 81)
    heads = ("--strengths", "0.1", "0.01", "--compare=~/run", "--out=~/heads")
    sweep = ("sweep", "--config=~/run/config.json", *heads, "--quiet")
    assert jaxlin(*sweep).code == 0
    assert jaxlin("report", "~/run").code == 0
    info = jaxlin("features", "info", "~/f.npy", "--labels=~/classes of f.npy", "--json")
    assert info.json["parts"]["train"]["rows"] == 40
    end = ("--start=~/again", "--kind", "interpolate", "--points", "3", "--out=~/ray")
    assert "the end point coincide" in jaxlin("landscape", "~/run", *end).refused()
    for command in (["data", "info", "mnist"], ["train", "--data", "mnist"]):
        done = jaxlin(*command, "--data-dir=~/nowhere")
        assert "~" not in done.out + done.err
    check = ("gradcheck", "--data=~/mine.npz", "--at=~/run", "--out=~/check", "--quiet")
    assert jaxlin(*check).code == 0
    assert not Path("~").exists()
    assert {"run", "again", "third", "heads", "check"} <= {path.name for path in home.iterdir()}


def test_a_tilde_of_nobody_is_a_name(jaxlin, home):
    (home / "mine.npz").rename("~nobody-of-this-name.npz")
    words = ("--data", "~nobody-of-this-name.npz", "--out=~nobody-of-this-name run")
    assert jaxlin("train", *words, *QUICK).code == 0
    assert Path("~nobody-of-this-name run/report.html").is_file()
    assert "no such file" in jaxlin("train", "--data", "~nobody-of-this-name/x.npz").refused()


def test_odd_names_of_folders_and_classes(jaxlin, drawn, tmp_path):
    names = [r"$\frac$", "a<b>&", "%s {0} #", "_^{"]  # the first is no formula
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for k, name in enumerate(names):
            folder = tmp_path / ODD / part / name
            folder.mkdir(parents=True)
            for i in range(6):
                grey = rng.integers(0, 60, (4, 4)) + 60 * k
                Image.fromarray(grey.astype(np.uint8)).save(folder / f"{i} #%.png")
    run = f"{ODD} run"
    train = ("train", "--data", ODD, "--out", run, "--steps", "4", "--save-every", "2", "--quiet")
    assert jaxlin(*train).code == 0
    done = jaxlin(*train, "--resume", "auto")
    assert (done.code, done.err) == (0, "")  # the checkpoint lies where it was looked for
    assert {path.name for path in tmp_path.iterdir()} == {ODD, run}
    assert jaxlin("evaluate", run, "--json").json["per_class"].keys() == set(names)
    land = ("--kind", "ray", "--points", "3", "--quiet")
    assert jaxlin("landscape", run, *land, "--out", f"{ODD} ray").code == 0
