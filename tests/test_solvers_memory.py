"""Where the memory for a metric is missing, the fit goes on with another and certifies the same."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxlin.solvers import minimize, newton, refresh

pytestmark = pytest.mark.usefixtures("as_if_large")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    inputs = (rng.normal(size=(9000, 80)) * np.linspace(3, 0.1, 80)).astype(np.float32)
    scores = inputs @ rng.normal(size=(80, 6)) + rng.normal(size=(9000, 6))
    return inputs, scores.argmax(1)


def exhausted(error):
    def fail(*arguments):
        raise error

    return fail


ERRORS = [
    MemoryError(),
    np._core._exceptions._ArrayMemoryError((10**6, 10**6), np.dtype(np.float32)),
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"),
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("covariance_of", "the covariance of 80 features"),
        ("two_level_preconditioner", "the Hessian"),
    ],
)
def test_without_memory_for_a_metric_the_fit_says_so_and_is_certified(
    data, monkeypatch, error, what, words
):
    usual = minimize(*data, strength=5e-5, tolerance=1e-5)
    monkeypatch.setattr(refresh, what, exhausted(error))
    with pytest.warns(RuntimeWarning, match=f"not the memory for {words}.*goes on with"):
        found = minimize(*data, strength=5e-5, tolerance=1e-5)
    assert found.status == 0
    assert found.gap <= 1e-5 * found.objective
    # both gaps are proved, so the objectives differ by no more than the larger
    assert abs(found.objective - usual.objective) <= 1e-5 * usual.objective


def test_a_hinge_goes_on_without_the_memory_for_its_hessian(data, monkeypatch):
    settings = {"loss": "hinge", "strength": 1e-2, "tolerance": 1e-2}
    inputs, labels = np.tile(data[0], (1, 3)), data[1]  # more unknowns than one dense block has
    usual = minimize(inputs, labels, **settings)
    monkeypatch.setattr(newton, "two_level_preconditioner", exhausted(MemoryError()))
    with pytest.warns(RuntimeWarning, match="not the memory for the Hessian"):
        found = minimize(inputs, labels, **settings)
    assert found.status == 0
    assert found.lower_bound <= usual.objective
    assert usual.lower_bound <= found.objective


def test_another_failure_is_not_taken_for_missing_memory(data, monkeypatch):
    failure = jax.errors.JaxRuntimeError("INTERNAL: something else")
    monkeypatch.setattr(refresh, "covariance_of", exhausted(failure))
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        minimize(*data, strength=5e-5)


def test_the_command_line_says_it_in_one_line(tmp_path):
    script = """
import sys
from jaxlin.cli import main
from jaxlin.solvers import refresh
def fail(*arguments):
    raise MemoryError
refresh.covariance_of = fail
sys.exit(main(["train", "--loss", "squared-hinge", "--solver", "full-batch", "--quiet",
               "--data", "mine.npz", "--out", "run"]))
"""
    inputs, labels = np.random.default_rng(0).normal(size=(200, 64)), np.arange(200) % 3
    np.savez(tmp_path / "mine.npz", inputs=inputs, labels=labels)
    words = [sys.executable, "-c", script]
    run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (line,) = [line for line in run.stderr.splitlines() if "not the memory" in line]
    assert line.startswith("jaxlin: There is not the memory for the covariance of 64 features;")
