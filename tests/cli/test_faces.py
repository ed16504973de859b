"""evaluate, predict, report, data, info and the command line itself."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxlin.cli import COMMANDS
from jaxlin.data import as_images, load

QUICK = ("--steps", "40", "--batch-size", "64")


def test_evaluate_repeats_the_test_result(jaxlin, trained):
    done = jaxlin("evaluate", "run", "--json")
    assert done.json["accuracy"] == trained["test"]["accuracy"]
    assert done.json["confusion"] == trained["test"]["confusion"]
    assert "accuracy" in jaxlin("evaluate", "run", "--data", "digits").out


def test_evaluate_judges_the_test_rows_of_an_archive(jaxlin, trained):
    train, test = load("digits"), load("digits", split="test")
    np.savez("both.npz", inputs=train.inputs, labels=train.labels, test_inputs=test.inputs,
             test_labels=test.labels)  # fmt: skip
    found = jaxlin("evaluate", "run", "--data", "both.npz", "--json").json
    assert (found["n"], found["split"]) == (355, "test")
    assert found["accuracy"] == trained["test"]["accuracy"]
    found = jaxlin("evaluate", "run", "--data", "both.npz", "--split", "train", "--json").json
    assert (found["n"], found["split"]) == (1442, "train")


def test_evaluate_takes_all_rows_of_files_that_know_no_splits(jaxlin, trained):
    test = load("digits", split="test")
    np.save("few.npy", test.inputs[:7])
    np.save("few_labels.npy", test.labels[:7])
    assert jaxlin("evaluate", "run", "--data", "few.npy", "--json").json["n"] == 7


def test_evaluate_refuses_other_shapes_and_classes(jaxlin, trained, arrays):
    assert "5 features" in jaxlin("evaluate", "run", "--data", "mine.npz").refused()
    rows = load("digits", split="test").inputs
    np.savez("other.npz", inputs=rows, labels=np.array(["cat", "dog"] * 200)[: len(rows)])
    assert "cat" in jaxlin("evaluate", "run", "--data", "other.npz").refused()
    np.savez("eleven.npz", inputs=rows, labels=np.arange(len(rows)) % 11)
    assert "10" in jaxlin("evaluate", "run", "--data", "eleven.npz").refused()


def test_evaluate_without_a_test_set_asks_for_data(jaxlin, arrays):
    jaxlin("train", "--data", "mine.npz", *QUICK, "--out", "run")
    assert "--data" in jaxlin("evaluate", "run").refused()
    assert jaxlin("evaluate", "run", "--data", "mine.npz", "--json").json["n"] == 40


def test_evaluate_refuses_broken_runs(jaxlin, trained):
    assert "no such run folder" in jaxlin("evaluate", "nowhere").refused()
    whole = Path("run/model.safetensors").read_bytes()
    Path("run/model.safetensors").write_bytes(whole[:-100])
    assert "model.safetensors" in jaxlin("evaluate", "run").refused()
    Path("run/model.safetensors").write_bytes(
        whole.replace(b'"format_version":"2"', b'"format_version":"9"')
    )
    assert "format version '9'" in jaxlin("evaluate", "run").refused()
    Path("run/model.safetensors").unlink()
    assert "no such model file" in jaxlin("predict", "run", "x.npy").refused()


def test_predict_classifies_arrays_and_pictures(jaxlin, trained):
    test = load("digits", split="test")
    np.save("rows.npy", test.inputs[:3])
    rows = list(csv.DictReader(io.StringIO(jaxlin("predict", "run", "rows.npy").out)))
    with open("run/predictions.csv", encoding="utf-8") as file:
        expected = [row["predicted"] for row in csv.DictReader(file)][:3]
    assert [row["class"] for row in rows] == expected
    assert all(0 < float(row["probability"]) <= 1 for row in rows)
    picture = as_images(test.inputs[0], test.image_shape)
    Image.fromarray(np.round(picture * (255 / 16)).astype(np.uint8)).save("one.png")
    found = jaxlin("predict", "run", "one.png", "rows.npy", "--top", "10", "--json").json
    assert [item["input"].split("/")[-1] for item in found["predictions"]] == [
        *("one.png", "rows.npy[0]", "rows.npy[1]", "rows.npy[2]")
    ]
    first, same = (found["predictions"][row]["classes"] for row in (0, 1))
    assert [each["class"] for each in first] == [each["class"] for each in same]
    # 16 levels as 255: each pixel is off by at most half a level of the 255, 1/32 of the 16.
    assert first[0]["probability"] == pytest.approx(same[0]["probability"], abs=0.02)
    assert sum(best["probability"] for best in first) == pytest.approx(1)
    assert [b["probability"] for b in first] == sorted(b["probability"] for b in first)[::-1]


def test_predict_gives_scores_for_hinges(jaxlin, arrays):
    jaxlin("train", "--data", "mine.npz", "--loss", "hinge", *QUICK, "--out", "run")
    np.save("rows.npy", arrays[0][:2])
    assert jaxlin("predict", "run", "rows.npy").out.splitlines()[0] == "input,rank,class,score"


def test_predict_refuses_what_it_cannot_read(jaxlin, trained):
    assert "missing.png" in jaxlin("predict", "run", "missing.png").refused()
    Path("bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert "bad.png" in jaxlin("predict", "run", "bad.png").refused()
    np.save("wide.npy", np.zeros((2, 65)))
    assert "64 features" in jaxlin("predict", "run", "wide.npy").refused()
    np.save("rows.npy", np.zeros((2, 64)))
    assert "--top must be 1 or more" in jaxlin("predict", "run", "rows.npy", "--top", "0").refused()


def test_report_draws_the_same_page_again(jaxlin, drawn, trained):
    shutil.copytree("run", "copy")
    for name in ("report.html", "curves.png", "templates.png", "confusion.png"):
        Path("copy", name).unlink()
    assert jaxlin("report", "copy").code == 0
    for name in ("curves.png", "templates.png", "confusion.png"):
        assert Path("copy", name).read_bytes() == Path("run", name).read_bytes()
    assert "Worst mistakes" in Path("copy/report.html").read_text(encoding="utf-8")


def test_the_page_is_self_contained(jaxlin, drawn, trained):
    page = Path("run/report.html").read_text(encoding="utf-8")
    body = page.split("</head>")[1]
    assert "Plotly" in page
    assert '<img src="data:image/png;base64,' in body
    assert 'src="http' not in body
    assert 'href="http' not in body


def test_info_and_data_print_json(jaxlin):
    assert jaxlin("info", "--json").json["device_count"] >= 1
    assert "digits" in json.dumps(jaxlin("data", "list", "--json").json)
    assert "digits, mnist" in jaxlin("data", "info", "digit").refused()


def test_an_unknown_command_gets_the_nearest_name(jaxlin):
    assert jaxlin("trian").refused() == "jaxlin: `trian` is not a command. Did you mean `train`?"


def test_interruption_ends_with_130(jaxlin, monkeypatch):
    import jaxlin.cli.info as info

    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "run", interrupted)
    assert jaxlin("info").code == 130


PROBE = """
import sys, time
start = time.perf_counter()
from jaxlin.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {"jax", "numpy", "scipy", "sklearn", "matplotlib", "orbax"} & sys.modules.keys()
print(sorted(heavy), file=sys.stderr)
"""


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_imports_nothing_heavy(command):
    words = [command, "--help"] if command else ["--help"]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"
    assert "usage: jaxlin" in done.stdout
    assert len(done.stdout.splitlines()) > 5


def test_import_alone_imports_nothing_heavy():
    program = "import sys, jaxlin; assert not {'jax', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_lazy_names_exist():
    import jaxlin

    assert all(getattr(jaxlin, name) is not None for name in dir(jaxlin))
    with pytest.raises(AttributeError, match="has no attribute 'lossses'"):
        _ = jaxlin.lossses
    assert "compose" in dir(jaxlin)
