"""Pictures from the disk to a prediction: what is told, and what is counted."""

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

QUICK = ("--steps", "60", "--batch-size", "8")


def kinds(folder, count, *, mode="RGB", ending="png"):
    """Dark and bright pictures of 4 x 4."""
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("bright", 150)):
        (folder / name / "more").mkdir(parents=True)
        for number in range(count):
            values = rng.integers(low, low + 100, (4, 4, 3), np.uint8)
            where = folder / name / ("more" if number % 2 else ".") / f"{number}.{ending}"
            Image.fromarray(values).convert(mode).save(where)


def predicted(done):
    return {row["input"]: row["class"] for row in csv.DictReader(io.StringIO(done.out))}


def test_a_set_of_every_kind_is_told_in_few_lines(jaxlin, tmp_path):
    root = tmp_path / "set"
    kinds(root / "train", 6)
    kinds(root / "val", 2, ending="bmp")
    kinds(root / "test", 3, mode="L", ending="gif")
    (root / "train" / "dark" / "notes.txt").write_text("x", encoding="utf-8")
    (root / "train" / "dark" / "x.png").symlink_to("x.png")
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(root / "train" / "bright" / "clear.png")
    done = jaxlin("train", "--data", root, "--out", "run", *QUICK, "--json")
    assert done.code == 0, done.err

    measured = jaxlin("evaluate", "run", "--data", root, "--json")
    assert (measured.json["split"], measured.json["n"]) == ("test", 6)
    assert measured.json["accuracy"] == 1.0
    lines = [line for line in measured.err.splitlines() if line.startswith(("note", "passed"))]
    assert lines == [
        "note        set, test: of 6 pictures, 6 grey read as color.",
        "passed over 1 `.txt` files (first: "
        f"{root}/train/dark/notes.txt); 1 links in a circle (first: {root}/train/dark/x.png)",
    ]
    told = jaxlin("predict", "run", root).err
    assert (
        "note        set, train: of 13 pictures, 1 with transparent pixels laid on white." in told
    )
    assert told.count("passed over") == 1
    named = predicted(jaxlin("predict", "run", root))
    assert len(named) == 13 + 4 + 6
    assert all(Path(path).parts[-2:][0] in (found, "more") for path, found in named.items())
    link = tmp_path / "link.png"
    link.symlink_to(root / "train" / "bright" / "0.png")
    assert predicted(jaxlin("predict", "run", link)) == {str(link): "bright"}
    assert predicted(jaxlin("predict", "run", root / "test" / "dark")).keys() < named.keys()


def test_a_table_is_trained_on_evaluated_and_predicted(jaxlin, tmp_path):
    kinds(tmp_path / "set" / "images", 6)
    lines = ["file,kind,split,who"]
    for number in range(6):
        for name in ("dark", "bright"):
            part = "more/" if number % 2 else ""
            split = "test" if number > 3 else "train"
            lines.append(f"{name}/{part}{number}.png,{name},{split},me")
    table = tmp_path / "set" / "labels.csv"
    table.write_text("\n".join(lines), encoding="utf-8-sig")
    assert "--label-column" in jaxlin("train", "--data", table, "--out", "run").refused()
    words = ("--data", tmp_path / "set", "--label-column", "kind", "--color", "grey")
    done = jaxlin("train", *words, "--out", "run", *QUICK, "--json")
    assert done.code == 0, done.err
    measured = jaxlin("evaluate", "run", "--data", table, "--label-column", "kind", "--json").json
    assert (measured["split"], measured["n"], measured["accuracy"]) == ("test", 4, 1.0)
    assert len(predicted(jaxlin("predict", "run", table))) == 12
    lines.append("dark/9.png,dark,train,me")
    table.write_text("\n".join(lines), encoding="utf-8")
    sentence = jaxlin("train", *words, "--out", "other").refused()
    assert "labels.csv: row 14" in sentence
    assert "dark/9.png" in sentence


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--background", "nocolor"), "background"),
        (("--label-column", "label"), "for tables"),
    ],
)
def test_options_that_pictures_do_not_heed(jaxlin, tmp_path, words, sentence):
    kinds(tmp_path / "set", 2)
    told = jaxlin("train", "--data", tmp_path / "set", "--out", "run", *words).refused()
    assert sentence in told


def test_hidden_colors_teach_nothing(jaxlin, tmp_path):
    """Red and blue under alpha 0 are one white: the two classes are the same pictures."""
    for name, color in (("a", (255, 0, 0, 0)), ("b", (0, 0, 255, 0))):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGBA", (4, 4), color).save(tmp_path / "set" / name / f"{number}.png")
    done = jaxlin("train", "--data", tmp_path / "set", "--out", "run", *QUICK, "--json")
    assert done.code == 0, done.err
    both = jaxlin("predict", "run", tmp_path / "set", "--json").json["predictions"]
    best = {(one["classes"][0]["class"], one["classes"][0]["probability"]) for one in both}
    assert len(best) == 1


def test_a_bad_class_name_is_refused_before_anything_is_written(jaxlin, tmp_path):
    kinds(tmp_path / "set", 2)
    os.mkdir(os.fsencode(tmp_path / "set") + b"/caf\xe9")
    assert "not UTF-8" in jaxlin("train", "--data", tmp_path / "set", "--out", "run").refused()
    assert not Path("run").exists()
