"""Sweeps and streams over two processes: the heads and models of one process."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

BANK = ("sweep", "--strengths", "1e-3", "1e-2", "--step-sizes", "1e-3", "4e-3", "0.1", "-q",
        "--optimizer", "momentum", "--batch-size", "64", "--epochs", "6",
        "--patience", "2")  # fmt: skip
SET = ("--data", "set", "--preprocess", "standardize", "-q")
PATH = ("sweep", *SET, "--strengths", "1e-2", "1e-1", "--tolerance", "1e-6")
STREAM = ("train", *SET, "--memory", "4e-4", "--batch-size", "64", "--optimizer", "momentum",
          "--save-every", "5", "--resume", "auto")  # fmt: skip


@pytest.fixture
def stored(tmp_path):
    """3,000 rows of 110 features in 3 shards, of 8 classes, and 300 for the test."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(110, 8))
    (tmp_path / "set/test").mkdir(parents=True)
    for name, size in (("test/features.npy", 300), *(
        (f"train-{number:05d}-of-00003.npy", 1000) for number in range(3)
    )):  # fmt: skip
        inputs = rng.normal(size=(size, 110)).astype(np.float32)
        labels = (inputs @ directions + 10 * rng.normal(size=(size, 8))).argmax(1)
        path = tmp_path / "set" / name
        np.save(path, inputs)
        ending = "labels.npy" if "test" in name else f"{path.stem}.labels.npy"
        np.save(path.with_name(ending), labels)
    return tmp_path


def same_heads(one: Path, other: Path, *, rtol: float):
    """The heads of two sweeps, and their models."""
    first, second = (
        json.loads((run / "sweep.json").read_text(encoding="utf-8")) for run in (one, other)
    )
    assert first["best"]["position"] == second["best"]["position"]
    for head, same in zip(second["heads"], first["heads"], strict=True):
        assert head["status"] == same["status"]
        assert head["objective"] == pytest.approx(same["objective"], rel=rtol)
        assert head["validation_accuracy"] == same["validation_accuracy"]
    assert second["refit"]["objective"] == pytest.approx(first["refit"]["objective"], rel=rtol)
    assert second["test"]["accuracy"] == first["test"]["accuracy"]
    return first, second


@pytest.fixture(scope="module")
def bank(tmp_path_factory, processes):
    """The sweep of one process that others are compared with."""
    folder = tmp_path_factory.mktemp("bank")
    ((code, _, err),) = processes.finish([processes.start(folder, *BANK, "--out", "run")])
    assert (code, err) == (0, "")
    return folder / "run"


def test_a_dead_process_ends_a_bank_and_two_new_ones_finish_the_heads_of_one_process(
    tmp_path, bank, processes
):
    words = (*BANK, "--out", "run", "--save-every", "40", "--resume", "auto")
    both = processes.start_both(tmp_path, *words)
    wait_for_checkpoint(tmp_path / "run", both)
    os.kill(both[1].pid, signal.SIGKILL)
    (code, out, err), _ = processes.finish(both)
    assert (code, out) == (75, "")
    (sentence,) = err.splitlines()
    assert sentence.startswith("jaxlin: another process of this run died")
    assert not (tmp_path / "run/sweep.json").exists()
    ended = processes.finish(processes.start_both(tmp_path, *words))
    assert [code for code, *_ in ended] == [0, 0], ended
    assert ended[1][1:] == ("", "")
    # Sums over 1,298 rows and some hundred steps in another order: 1e-6 relative in float32.
    first, second = same_heads(bank, tmp_path / "run", rtol=1e-6)
    for head, same in zip(second["heads"], first["heads"], strict=True):
        np.testing.assert_allclose(np.array(head["history"]), np.array(same["history"]), rtol=1e-6)
    written = {path.name for path in (tmp_path / "run").iterdir()} - {"checkpoints"}
    assert written == {path.name for path in bank.iterdir()}


def test_a_certified_path_is_that_of_one_process(stored, processes, jaxlin):
    ended = processes.finish(processes.start_both(stored, *PATH, "--out", "two"))
    assert [code for code, *_ in ended] == [0, 0], ended
    assert jaxlin(*PATH, "--out", "one").code == 0
    # Each within 1e-6 of the optimum, on statistics that differ by their rounding.
    same_heads(Path("one"), Path("two"), rtol=1e-6)


def test_two_processes_stream_their_parts_and_one_goes_on(stored, processes, jaxlin):
    """Killed, and resumed by another number of processes: the batches stay the same."""
    words = (*STREAM, "--epochs", "3", "--out", "two")
    both = processes.start_both(stored, *words)
    wait_for_checkpoint(stored / "two", both)
    for process in both:
        os.kill(process.pid, signal.SIGKILL)
    processes.finish(both)
    done = jaxlin(*words)
    assert done.code == 0, done.err
    assert jaxlin(*words, "--out", "one").code == 0
    one, two = (
        json.loads(Path(f"{n}/results.json").read_text(encoding="utf-8")) for n in ("one", "two")
    )
    assert two["objective"] == pytest.approx(one["objective"], rel=1e-6)
    assert two["test"]["confusion"] == one["test"]["confusion"]


def test_a_streamed_run_that_was_killed_goes_on_bit_for_bit(stored, processes, jaxlin):
    words = (*STREAM, "--epochs", "3", "--out")
    process = processes.start(stored, *words, "killed", **processes.as_here, linger=0.5)
    wait_for_checkpoint(stored / "killed", [process])
    process.kill()
    ((code, *_),) = processes.finish([process])
    assert code == -signal.SIGKILL
    rest, whole = jaxlin(*words, "killed"), jaxlin(*words, "whole")
    assert (rest.code, whole.code) == (0, 0), rest.err + whole.err
    one, two = (stored / out / "model.safetensors" for out in ("killed", "whole"))
    assert one.read_bytes() == two.read_bytes()
    assert "Going on from step" not in whole.err


def test_processes_that_are_not_alike_are_refused(tmp_path, processes):
    both = processes.start_both(tmp_path, *BANK, "--out", "run", others=("--save-every", "7"))
    for code, out, err in processes.finish(both):
        assert (code, out) == (2, "")
        (sentence,) = err.splitlines()
        assert "process 1 of this run is not like process 0 (save_every: null -> 7)" in sentence


def wait_for_checkpoint(run: Path, started) -> None:
    deadline = time.monotonic() + 60
    while not any(path.name.isdecimal() and int(path.name) for path in run.glob("checkpoints/*")):
        assert time.monotonic() < deadline
        assert started[0].poll() is None, started[0].communicate()
        time.sleep(0.02)
