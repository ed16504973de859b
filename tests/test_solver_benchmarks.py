"""The benchmarks of the solvers run on small data, and say what they name."""

import importlib
import json
from pathlib import Path

import pytest

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
