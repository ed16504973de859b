"""Text is UTF-8 in every file, whatever the locale; what a screen cannot show is written out."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxlin import models

SEVERAL = """
import json, sys
from matplotlib.figure import Figure
from jaxlin.cli import main
def blank(figure, target, **settings):
    target.write(b"") if hasattr(target, "write") else open(target, "wb").close()
Figure.savefig = blank  # drawing takes longer than these runs
print(sys.getfilesystemencoding())
codes = [main(words) for words in json.loads(sys.argv[1])]
print(codes)
"""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
DOG = "犬"


@pytest.fixture
def pictures(tmp_path):
    """Folders `train` and `test` of three classes in a folder `set`, which the function makes."""

    def make(*names):
        rng = np.random.default_rng(0)
        for part in (b"train", b"test"):
            for k, name in enumerate(names):
                folder = os.path.join(os.fsencode(tmp_path), b"set", part, name)
                os.makedirs(folder)
                for i in range(6):
                    grey = rng.integers(0, 80, (4, 4)) + 80 * k
                    with open(os.path.join(folder, b"%d.png" % i), "wb") as file:
                        Image.fromarray(grey.astype(np.uint8)).save(file, format="PNG")

    return make


def test_a_class_with_a_name_beyond_the_locale(pictures, tmp_path):
    pictures(DOG.encode(), "é".encode(), b"cat")
    quick = ["--steps", "4", "--quiet"]
    commands = [
        ["train", "--data", "set", "--out", "run", *quick],
        ["evaluate", "run"],
        ["predict", "run", "set/test/cat/0.png", "--top", "3"],
        ["sweep", "--data", "set", "--out", "heads", "--strengths", "0.1", "0.01", *quick],
        ["landscape", "run", "--kind", "ray", "--points", "3", "--out", "land", "--quiet"],
        ["lecture", "--only", "pixels", "--out", "lecture", "--quiet"],
        ["report", "run"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, json.dumps(commands)],
        capture_output=True,
        cwd=tmp_path,
        env=os.environ | ASCII,
        timeout=240,
    )
    encoding, *printed, codes = done.stdout.decode("ascii").splitlines()
    if encoding == "utf-8":
        pytest.skip("this system has no locale but UTF-8")
    assert json.loads(codes) == [0] * len(commands), done.stderr.decode()
    assert any(line.startswith(r"  \u72ac") for line in printed)  # of evaluate
    assert sum(r",\u72ac," in line for line in printed) == 1  # of predict
    assert models.load(tmp_path / "run/model.safetensors").class_names == ("cat", "é", DOG)
    for folder in ("run", "heads"):
        with open(tmp_path / folder / "predictions.csv", encoding="utf-8", newline="") as file:
            assert {row["label"] for row in csv.DictReader(file)} == {"cat", "é", DOG}
    assert DOG in (tmp_path / "run/report.html").read_text(encoding="utf-8")
    for page in ("land/landscape.html", "lecture/lecture.html", "lecture/playground.html"):
        assert "</html>" in (tmp_path / page).read_text(encoding="utf-8")


def test_a_class_folder_that_is_no_text_is_refused_when_it_is_read(jaxlin, pictures):
    pictures(b"cat", b"caf\xe9")
    sentence = jaxlin("train", "--data", "set", "--out", "run").refused()
    assert "b'caf\\xe9' is not UTF-8 text. Rename it." in sentence
    assert not Path("run").exists()


@pytest.mark.parametrize("way", ["class_names", "labels"])
def test_a_class_name_that_is_no_text_is_refused_when_it_is_read(jaxlin, way):
    names, numbers = np.array(["dog", "caf\udce9"]), np.arange(20) % 2
    values = {"class_names": names, "labels": numbers} if way == "class_names" else {}
    np.savez("mine.npz", inputs=np.eye(20), **({"labels": names[numbers]} | values))
    sentence = jaxlin("train", "--data", "mine.npz", "--out", "run").refused()
    assert "'caf\\udce9' cannot be written as UTF-8" in sentence
    assert not Path("run").exists()


def test_a_folder_whose_name_is_no_text_is_only_a_folder(jaxlin, pictures, tmp_path):
    pictures(b"cat", b"dog")
    odd = os.fsdecode(b"caf\xe9")
    os.rename(tmp_path / "set", tmp_path / odd)
    words = ("train", "--data", odd, "--out", f"{odd} run", "--save-every", "2", "--quiet")
    assert jaxlin(*words, "--steps", "4").code == 0
    assert json.loads(Path(f"{odd} run/config.json").read_bytes())["data"] == str(tmp_path / odd)
    assert r"caf\udce9" in Path(f"{odd} run/report.html").read_text(encoding="utf-8")
    done = jaxlin(*words, "--steps", "4", "--resume", "auto")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_before_options(jaxlin, arrays, encoding):
    options = {"data": "mine.npz", "steps": 3, "seed": 7}
    Path("options.json").write_text(json.dumps(options), encoding=encoding)
    assert jaxlin("train", "--config", "options.json", "--out", "run", "--quiet").code == 0
    config = json.loads(Path("run/config.json").read_bytes())
    assert (config["seed"], config["steps"]) == (7, 3)
    Path("run/config.json").write_text(json.dumps(config), encoding=encoding)  # saved by an editor
    done = jaxlin("evaluate", "run", "--data", "mine.npz", "--json")
    assert (done.code, done.json["n"]) == (0, 40)


def test_a_byte_order_mark_before_names_and_predictions(jaxlin, arrays):
    inputs, labels = arrays
    for part in ("train", "test"):
        np.save(f"{part}.npy", inputs)
        np.save(f"{part}.labels.npy", labels)
    Path("classes.txt").write_text("ant\nbee\nlöss\n", encoding="utf-8-sig")
    words = ("--data", ".", "--steps", "3", "--quiet")
    assert jaxlin("train", *words, "--out", "run").code == 0
    assert models.load(Path("run/model.safetensors")).class_names == ("ant", "bee", "löss")
    path = Path("run/predictions.csv")
    path.write_text(
        path.read_text(encoding="utf-8"), encoding="utf-8-sig"
    )  # saved by a spreadsheet
    sweep = ("sweep", *words, "--strengths", "0.1", "0.01", "--out", "heads", "--json")
    done = jaxlin(*sweep, "--compare", "run")
    assert (done.code, done.json["comparison"]["examples"]) == (0, 40)


def test_what_is_there_is_not_called_missing(jaxlin, arrays):
    sentence = jaxlin("features", "info", "mine.npz").refused()
    assert "mine.npz: features are read from a .npy, a .safetensors or a folder" in sentence
    assert "no such" in jaxlin("features", "info", "yours.npz").refused()
