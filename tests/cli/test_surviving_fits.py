"""Certified fits of `jaxlin train`, killed and stopped, go on bit for bit."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from jaxlin import checkpoint, solvers
from jaxlin.runs import training

FULL = ("--data", "mine.npz", "--tolerance", "1e-6", "--strength", "1e-5", "-q")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(training, "write_pictures", lambda *args, **settings: None)


def write_data(folder, size, features, noise):
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(size, features)) * np.linspace(3, 0.1, features)
    inputs = inputs.astype(np.float32)
    scores = inputs @ rng.normal(size=(features, 6)) + noise * rng.normal(size=(size, 6))
    np.savez(folder / "mine.npz", inputs=inputs, labels=scores.argmax(1))


@pytest.fixture
def many(tmp_path):
    """12,000 examples, `mine.npz`: a certified fit takes some 20 steps."""
    write_data(tmp_path, 12_000, 40, 1)


@pytest.fixture
def wide(tmp_path):
    """`mine.npz`, of so many features that softmax, too, takes quasi-Newton steps."""
    write_data(tmp_path, 2000, 310, 9)


@pytest.fixture
def assert_same_fit(runs):
    """Of two folders: the same records, the same bits, the same results."""

    def check(folder, other):
        runs.assert_same(folder, other)
        ends = [
            json.loads((Path(f) / "results.json").read_text(encoding="utf-8"))
            for f in (folder, other)
        ]
        assert ends[0] | {"seconds": None} == ends[1] | {"seconds": None}

    return check


def test_a_certified_fit_killed_at_any_moment_goes_on_bit_for_bit(
    jaxlin, processes, assert_same_fit, wide
):
    options = ("train", *FULL, "--save-every", "3", "--resume", "auto", "--out", "killed")
    for most in (3, 9):
        before = checkpoint.steps(Path("killed"))
        process = processes.start(".", *options, **processes.as_here, linger=0.5)
        while process.poll() is None and max(checkpoint.steps(Path("killed")), default=0) < most:
            time.sleep(0.005)
        process.kill()
        process.communicate()
        assert max(checkpoint.steps(Path("killed"))) > max(before, default=0)
    assert not Path("killed/results.json").exists()
    done = jaxlin(*options)
    assert (done.code, done.err) == (0, "")
    assert jaxlin("train", *FULL, "--out", "whole").code == 0
    assert_same_fit("killed", "whole")
    assert jaxlin(*options).code == 0  # it had ended: taken as it is
    assert_same_fit("killed", "whole")


@pytest.mark.parametrize(
    ("words", "hook"),
    [
        (("--loss", "squared-hinge", "--dtype", "float64"), "on_carried"),
        (("--regularizer", "l1", "--strength", "1e-3", "--tolerance", "1e-3"), "on_carried"),
        # a fit of a second begins again
        (("--data", "digits", "--limit", "300", "--loss", "hinge"), "on_pass"),
    ],
)
def test_a_certified_fit_that_was_stopped_goes_on_bit_for_bit(
    jaxlin, runs, assert_same_fit, many, monkeypatch, words, hook
):
    options = ("train", *FULL, *words)
    assert jaxlin(*options, "--out", "whole").code == 0
    real, calls = solvers.minimize, []

    def interrupted(*args, **settings):
        def stopping_at_five(*seen):
            calls.append(1)
            if len(calls) == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            settings[hook](*seen)

        return real(*args, **settings | {hook: stopping_at_five})

    with monkeypatch.context() as patch:
        patch.setattr(solvers, "minimize", interrupted)
        done = jaxlin(*options, "--save-every", "1000", "--out", "run")
    assert done.code == 75
    assert len(calls) == 5
    assert len(checkpoint.steps(Path("run"))) == (hook == "on_carried")
    at_stop = runs.records("run")
    assert 4 <= len(at_stop) < len(runs.records("whole"))
    assert jaxlin(*options, "--out", "run", "--resume", "auto").code == 0
    assert runs.records("run")[: len(at_stop)] == at_stop
    assert_same_fit("run", "whole")


def test_space_is_asked_for_what_a_certified_fit_will_have_learned(jaxlin, many, disk_of):
    disk_of(4)
    refused = jaxlin("train", *FULL, "--loss", "hinge", "--save-every", "5", "--out", "disk/run")
    assert "4 checkpoints of" in refused.refused()
