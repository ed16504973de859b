"""`jaxlin sweep` killed and stopped for real, and started again."""

import importlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from jaxlin import checkpoint, train
from jaxlin.runs.sweeps import folder as sweeping

DESCENT = ("sweep", "--strengths", "1e-4", "1e-2", "--step-sizes", "1e-8", "2e-8", "0.01",
           "--batch-size", "64", "--patience", "2", "--bank-memory", "1.7e-4", "-q")  # fmt: skip
SOLVED = ("sweep", "--strengths", "1e-5", "7e-6", "5e-6", "--losses", "softmax", "squared-hinge",
          "--tolerance", "1e-6", "-q")  # fmt: skip


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(sweeping, "write_sweep_pictures", lambda *args: None)


def without_times(folder):
    found = json.loads((Path(folder) / "sweep.json").read_text(encoding="utf-8"))
    found.pop("seconds")
    return found


def assert_same_sweep(one, other):
    assert without_times(one) == without_times(other)
    files = [Path(folder) / name for folder in (one, other) for name in ("model.safetensors",)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert (Path(one) / "metrics.jsonl").read_text(encoding="utf-8") == (
        Path(other) / "metrics.jsonl"
    ).read_text(encoding="utf-8")


def send_at_chunk(monkeypatch, number, *, chunk):
    """Send this process a signal between two compiled calls of the sweep."""
    real, seen = train.chunks, []

    def sending(*args, **settings):
        for found in real(*args, **settings):
            seen.append(1)
            if len(seen) == chunk:
                os.kill(os.getpid(), number)
            yield found

    monkeypatch.setattr(train, "chunks", sending)


def test_killed_at_random_moments_a_sweep_goes_on_bit_for_bit(jaxlin, processes):
    quick = (*DESCENT, "--epochs", "8")
    options = (*quick, "--save-every", "20", "--out", "killed", "--resume", "auto")
    for pause in (0.0, 0.3):
        before = checkpoint.steps(Path("killed"))
        process = processes.start(".", *options, **processes.as_here)
        while process.poll() is None and checkpoint.steps(Path("killed")) == before:
            time.sleep(0.01)
        time.sleep(pause)
        process.kill()
        process.communicate()
    done = jaxlin(*options)
    assert (done.code, done.err) == (0, "")
    assert jaxlin(*quick, "--out", "whole").code == 0
    assert_same_sweep("killed", "whole")


def test_sigterm_saves_and_exits_75(jaxlin, monkeypatch):
    quick = (*DESCENT, "--epochs", "3")
    with monkeypatch.context() as patched:
        send_at_chunk(patched, signal.SIGTERM, chunk=4)
        done = jaxlin(*quick, "--save-every", "1000", "--out", "run")
    assert done.code == 75
    assert "stopped at step" in done.err
    refused = jaxlin(*quick, "--save-every", "9", "--out", "run", "--resume", "auto", "--seed", "1")
    assert "seed" in refused.refused()
    done = jaxlin(*quick, "--out", "run", "--resume", "auto")
    assert done.code == 0, done.err
    assert jaxlin(*quick, "--out", "whole").code == 0
    assert_same_sweep("run", "whole")


def test_a_certified_sweep_killed_at_any_moment_goes_on_bit_for_bit(jaxlin, processes, monkeypatch):
    from jaxlin.sweep import full_batch

    options = (*SOLVED, "--save-every", "1", "--resume", "auto", "--out", "killed")
    process = processes.start(".", *options, **processes.as_here, linger=0.5)
    while process.poll() is None and len(checkpoint.steps(Path("killed"))) < 2:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    left = len(Path("killed/metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert left >= 2
    real, count = full_batch._validated, []
    with monkeypatch.context() as patched:
        patched.setattr(full_batch, "_validated", lambda *args: count.append(1) or real(*args))
        done = jaxlin(*options)
    assert (done.code, done.err) == (0, "")
    assert 6 - left <= len(count) - 1 <= 4  # the heads that were missing, and the refit
    assert jaxlin(*SOLVED, "--out", "whole").code == 0
    assert_same_sweep("killed", "whole")


@pytest.mark.parametrize(
    "words",
    [
        ("--regularizer", "l1", "--strengths", "1e-3", "1e-2", "1e-1", "--tolerance", "1e-2"),
        ("--search", "coarse-to-fine", "--strengths", "1e-3", "1e-2", "1e-1", "--tolerance", "0.1"),
    ],
)
def test_a_certified_sweep_that_was_stopped_goes_on_bit_for_bit(jaxlin, monkeypatch, words):
    from jaxlin.sweep import full_batch

    real, count, limited = full_batch._validated, [], (*words, "--limit", "400", "-q")

    def stopping(*args):
        count.append(1)
        if len(count) == (4 if "--search" in words else 2):
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(full_batch, "_validated", stopping)
        assert jaxlin("sweep", *limited, "--save-every", "1", "--out", "run").code == 75
    done = jaxlin("sweep", *limited, "--out", "run", "--resume", "auto")
    assert done.code == 0, done.err
    assert jaxlin("sweep", *limited, "--out", "whole").code == 0
    assert_same_sweep("run", "whole")


SHOTS = ("--shots", "2", "--seeds", *map(str, range(16)), "--strengths", "1e-2", "1e-1")


@pytest.mark.parametrize(
    ("words", "where", "call", "heads"),
    [
        (("--strengths", "1e-3", "1e-4"), "small._direction", 3, 0),
        (("--strengths", "1e-3", "1e-4"), "small._direction", 9, 1),
        (("--strengths", "1e-3", "1e-4"), "small._direction", -2, 2),  # the refit
        (("--strengths", "1e-3", "--losses", "squared-hinge"), "smooth.mean_loss", 3, 0),
        (("--strengths", "1e-3", "1e-4", "--losses", "hinge"), "interior._step", 18, 1),
        (("--strengths", "1e-3", "1e-2", "--regularizer", "l1"), "owlqn.mean_loss", 45, 1),
        (SHOTS, "sweep.few_shot._solved", 2, 17),  # the call that was under way is not lost
    ],
)
def test_sigterm_within_a_head_costs_that_head_alone(
    jaxlin, monkeypatch, words, where, call, heads
):
    """It is heard before the next pass over the data, or step of a small fit."""
    limited = ("sweep", *words, "--limit", "400", "--tolerance", "1e-4", "-q")
    module, _, name = where.rpartition(".")
    module = module if "." in module else f"solvers.{module}"
    module = importlib.import_module(f"jaxlin.{module}")
    real, calls, last = getattr(module, name), [], []

    def counted(*args, **settings):
        calls.append(1)
        if last and len(calls) == last[0]:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **settings)

    monkeypatch.setattr(module, name, counted)
    done = jaxlin(*limited, "--out", "whole")
    assert done.code == 0, done.err
    last.append(call if call > 0 else len(calls) + call)
    calls.clear()
    done = jaxlin(*limited, "--save-every", "100000", "--out", "run")
    assert done.code == 75, done.err
    assert "all is saved" in done.err
    assert len(calls) == last[0]
    assert len(Path("run/metrics.jsonl").read_text(encoding="utf-8").splitlines()) == heads
    assert len(checkpoint.steps(Path("run"))) == (heads > 0)
    last.clear()
    done = jaxlin(*limited, "--out", "run", "--resume", "auto")
    assert done.code == 0, done.err
    assert_same_sweep("run", "whole")
