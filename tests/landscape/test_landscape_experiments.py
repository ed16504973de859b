"""The experiments on small data: the facts the lecture states about its pictures."""

import importlib.util
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def experiment(name):
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_panels_are_averages_and_convex(tmp_path):
    panels = experiment("landscape_panels")
    panels.POINTS = 21
    found = panels.run("digits", None, tmp_path)
    assert found["kinks_of_one_example"] == 9  # one for each wrong class
    # float32 rounding of a mean of a hundred
    assert found["average_of_singles_error"] < 1e-6
    assert found["least_bend"] > -1e-6
    assert (tmp_path / "landscape_panels.png").is_file()


def test_the_best_step_is_better_than_a_small_one_and_than_one_too_far(tmp_path):
    bowl = experiment("step_size_over_landscape")
    bowl.POINTS, bowl.EXAMPLES = 21, 200
    found = bowl.run("digits", None, tmp_path)
    steps = {name: row["loss"] for name, row in found["steps"].items()}
    assert steps["best step"] == pytest.approx(found["least_loss"])
    assert steps["best step"] < steps["small step"] < found["loss_at_start"] < steps["overshot"]
    assert steps["overshot"] == pytest.approx(1.1 * found["loss_at_start"], rel=1e-6)
