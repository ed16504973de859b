"""`jaxlin landscape`: the files it writes, and one sentence for what cannot be meant."""

import json

import numpy as np
import pytest

from jaxlin.cli import main
from jaxlin.landscape import files

SMALL = ["--examples", "40", "--quiet", "--json"]


def call(capsys, *argv):
    code = main(["landscape", *map(str, argv)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_a_plane_is_written_drawn_and_continued(tmp_path, capsys):
    out = tmp_path / "plane"
    arguments = [*SMALL, "--points", "7x5", "--loss", "softmax", "--out", out]
    code, printed, _ = call(capsys, *arguments)
    assert code == 0
    found = json.loads(printed)
    names = {"landscape.npz", "landscape.png", "landscape.svg", "landscape.html", "landscape.json"}
    assert {path.name for path in out.iterdir()} == names
    stored = files.load(out / "landscape.npz")
    assert stored.values.shape == (7, 5)
    assert found["least_loss"] == pytest.approx(stored.values.min())
    assert [d["norm"] > 0 for d in found["directions"]] == [True, True]
    assert call(capsys, *arguments)[0] == 0
    code, _, errors = call(capsys, *arguments, "--seed", "1")
    assert code == 2
    assert "holds another landscape" in errors


def test_an_exact_ray_has_its_minimum_below_every_step(tmp_path, capsys):
    out = tmp_path / "ray"
    code, printed, _ = call(capsys, *SMALL, "--kind", "ray", "--exact", "--out", out)
    assert code == 0
    found = json.loads(printed)
    assert found["kinks"] == 40 * 9
    step, loss = found["minimum"].values()
    assert loss <= files.load(out / "landscape.npz").values.min() + 1e-12
    assert 0 < found["kinks_shown"] <= 40 * 9
    page = (out / "landscape.html").read_text(encoding="utf-8")
    assert f"<td>step {step:.8g}, loss {loss:.8g}</td>" in page
    assert f"<td>kinks shown</td><td>{found['kinks_shown']}</td>" in page
    assert f"{found['kinks_shown']} kinks" in page  # the legend, of the same ones


def test_the_plane_of_a_path_explains_most_of_it(tmp_path, capsys):
    out = tmp_path / "path"
    code, printed, _ = call(capsys, *SMALL, "--kind", "trajectory", "--points", "5x5", "--out", out)
    assert code == 0
    assert 0.5 < json.loads(printed)["explained"] <= 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--kind", "ray", "--exact", "--loss", "softmax"], "not piecewise linear"),
        (["--exact"], "--exact is for a line"),
        (["--points", "0x5"], "empty grid"),
        (["--points", "5"], "51x51 for a plane"),
        (["--kind", "interpolate"], "needs a run"),
        (["--extent", "-1"], "--extent must be positive"),
        (["no-such-run"], "no such run folder"),
    ],
)
def test_bad_input_costs_one_sentence(tmp_path, capsys, argv, words):
    code, _, errors = call(capsys, *argv, "--examples", "10", "--out", tmp_path / "out")
    assert code == 2
    assert words in errors
    assert len(errors.strip().splitlines()) == 1
    assert not np.any([(tmp_path / "out" / "landscape.npz").exists()])
