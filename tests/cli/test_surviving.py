"""`jaxlin train` killed, stopped, starved of disk, and started again where it does not belong."""

import errno
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from jaxlin import checkpoint, train
from jaxlin.cli import main
from jaxlin.runs import preparation as preparing
from jaxlin.runs import training

RUN = ("--steps", "60", "--batch-size", "64", "--patience", "50", "-q")
SAVING = (*RUN, "--save-every", "17")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Pictures take longer than these runs, and other tests look at them."""
    monkeypatch.setattr(training, "write_pictures", lambda *args, **settings: None)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The run of `RUN` that nobody disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert main(["train", *RUN, "--out", str(folder)]) == 0
    return folder


def send_at_call(monkeypatch, module, name, *, call=1, number=signal.SIGTERM):
    """Send this process a signal inside the `call`-th call of a function."""
    real, calls = getattr(module, name), []

    def sending(*args, **settings):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return real(*args, **settings)

    monkeypatch.setattr(module, name, sending)


def break_at_step(monkeypatch, step, action):
    """Do `action()` in the middle of training, between two compiled calls."""
    real, done = train.chunks, []

    def breaking(*args, **settings):
        for state, infos in real(*args, **settings):
            if int(state.step) >= step and not done:
                done.append(1)
                action()
            yield state, infos

    monkeypatch.setattr(train, "chunks", breaking)


def test_saving_changes_no_number_and_keeps_three(jaxlin, runs, unbroken):
    assert jaxlin("train", *SAVING, "--out", "saving").code == 0
    runs.assert_same("saving", unbroken)
    assert checkpoint.steps(Path("saving")) == [34, 51, 60]
    assert not (unbroken / "checkpoints").exists()
    assert not list(Path("saving").glob(".lock"))
    assert "save_every" not in json.loads(Path("saving/config.json").read_text(encoding="utf-8"))


def test_killed_twice_at_random_moments(jaxlin, runs, processes):
    """One run of real processes, each killed a while after its first new checkpoint."""
    steps = ("--steps", "600")  # far more than any of these processes comes to
    options = (*RUN, *steps, "--save-every", "7", "--out", "killed", "--resume", "auto")
    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed)
    for _ in range(2):
        before = checkpoint.steps(Path("killed"))
        process = processes.start(".", "train", *options, **processes.as_here, linger=0.05)
        while process.poll() is None and checkpoint.steps(Path("killed")) == before:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, seed
        assert checkpoint.find(Path("killed")) is not None, seed
    done = jaxlin("train", *options)
    assert (done.code, done.err) == (0, ""), seed
    assert jaxlin("train", *RUN, *steps, "--out", "whole").code == 0
    runs.assert_same("killed", "whole")
    assert not list(Path("killed").rglob("*.part"))
    seconds = [record["seconds"] for record in runs.records("killed", timed=True)]
    assert seconds == sorted(seconds)


def test_no_other_process_writes_its_folder_and_a_real_sigterm_saves_and_exits_75(
    jaxlin, processes
):
    endless = (*SAVING, "--steps", "1000000", "--patience", "1000000", "--out", "run")
    first = processes.start(".", "train", *endless, **processes.as_here, linger=0.5)
    try:
        while first.poll() is None and not checkpoint.steps(Path("run")):
            time.sleep(0.01)
        for extra in (("--resume", "auto"), ("--overwrite",)):
            refused = jaxlin("train", *endless, *extra)
            assert f"process {first.pid} on " in refused.refused()
        assert first.poll() is None
        first.terminate()
        _, said = first.communicate(timeout=120)
    finally:
        first.kill()
        first.communicate()
    assert first.returncode == 75
    assert "by SIGTERM, all is saved; add --resume auto to go on" in said
    assert "Traceback" not in said
    newest = checkpoint.find(Path("run"))
    assert str(newest.step) in said.replace(",", "")
    assert jaxlin("train", *RUN, "--out", "run", "--overwrite").code == 0


@pytest.mark.parametrize(
    ("module", "name", "call", "number"),
    [
        (preparing, "prepare", 1, signal.SIGTERM),  # before there is a folder
        (train, "compile_steps", 1, signal.SIGTERM),
        (training, "accuracy_and_loss", 2, signal.SIGTERM),  # validation, inside training
        (training, "measure", 1, signal.SIGTERM),  # evaluation, after training
        (training, "write_predictions", 1, signal.SIGINT),
    ],
    ids=["loading", "compiling", "validating", "evaluating", "writing"],
)
def test_a_signal_at_any_stage_stops_with_75_and_resume_ends_the_same(
    jaxlin, runs, unbroken, monkeypatch, module, name, call, number
):
    options = (*RUN, "--resume", "auto", "--out", "run")
    with monkeypatch.context() as patch:
        send_at_call(patch, module, name, call=call, number=number)
        done = jaxlin("train", *options)
    assert done.code == 75, done.err
    assert number.name in done.err
    assert "add --resume auto to go on" in done.err
    assert jaxlin("train", *options).code == 0
    runs.assert_same("run", unbroken)


def test_a_signal_in_the_middle_of_an_epoch(jaxlin, runs, unbroken, monkeypatch):
    """An epoch has 21 steps; looking up every 5 stands for one that takes many seconds."""
    options = (*RUN, "--resume", "auto", "--out", "run")
    monkeypatch.setattr(train, "FIRST_STEPS", 5)
    with monkeypatch.context() as patch:
        patch.setattr(train, "SECONDS_BETWEEN_LOOKS", 0.0)
        break_at_step(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert jaxlin("train", *options).code == 75
    assert checkpoint.steps(Path("run")) == [5]
    assert jaxlin("train", *options).code == 0
    runs.assert_same("run", unbroken)


def test_without_the_options_signals_end_a_run_as_ever(jaxlin, monkeypatch):
    send_at_call(monkeypatch, train, "compile_steps", number=signal.SIGINT)
    # a suite that was started in the background ignores SIGINT, and so would this run
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert jaxlin("train", *RUN, "--out", "run").code == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert not Path("run/checkpoints").exists()


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        (("--patience", "1", "--steps", "4000"), 0),
        (("--loss", "squared-hinge", "--optimizer", "sgd", "--step-size", "3"), 1),
    ],
    ids=["stopped early", "diverged"],
)
def test_a_run_that_ended_before_its_time_ends_the_same_after_a_resume(jaxlin, runs, extra, code):
    options = (*RUN, *extra, "--save-every", "7")
    assert jaxlin("train", *options, "--out", "run").code == code
    shutil.copytree("run", "whole")
    for step in checkpoint.steps(Path("run"))[1:]:
        shutil.rmtree(f"run/checkpoints/{step}")
    for path in ("model.safetensors", "results.json", "metrics.jsonl"):
        (Path("run") / path).unlink()
    assert jaxlin("train", *options, "--out", "run", "--resume", "auto").code == code
    runs.assert_same("run", "whole")
    ends = [
        json.loads(Path(f"{f}/results.json").read_text(encoding="utf-8")) for f in ("run", "whole")
    ]
    assert ends[0]["status"] == ends[1]["status"] != "done"


def test_records_beyond_the_checkpoint_and_torn_lines_are_dropped(jaxlin, runs, unbroken):
    assert jaxlin("train", *SAVING, "--out", "run").code == 0
    shutil.rmtree("run/checkpoints/60")
    with open("run/metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 99, "ep')
    assert jaxlin("train", *SAVING, "--out", "run", "--resume", "auto").code == 0
    runs.assert_same("run", unbroken)
    os.truncate("run/metrics.jsonl", 10)
    assert jaxlin("train", *SAVING, "--out", "run", "--resume", "auto").code == 0
    runs.assert_same("run", unbroken)


def test_broken_checkpoints_are_named_and_the_one_before_is_used(jaxlin, runs, unbroken):
    assert jaxlin("train", *SAVING, "--out", "run").code == 0
    for step, change in {60: lambda b: b[:50] + b"x" + b[51:], 51: lambda b: b[:-1]}.items():
        path = Path(f"run/checkpoints/{step}/record.json")
        path.write_bytes(change(path.read_bytes()))
    done = jaxlin("train", *SAVING, "--out", "run", "--resume", "auto")
    assert done.code == 0
    rot, short = done.err.splitlines()
    assert "checkpoints/60: `record.json` does not hold the bytes that were written" in rot
    assert "checkpoints/51: `record.json` is truncated" in short
    runs.assert_same("run", unbroken)
    assert checkpoint.steps(Path("run")) == [34, 51, 60]
    for step in (34, 51, 60):
        Path(f"run/checkpoints/{step}/manifest.json").unlink()
    done = jaxlin("train", *SAVING, "--out", "run", "--resume", "auto")
    assert done.code == 0
    assert "there is no whole checkpoint; starting afresh" in done.err
    runs.assert_same("run", unbroken)


def test_nothing_of_a_run_that_is_overwritten_passes_for_the_new_one(jaxlin, arrays, monkeypatch):
    sweep = ("sweep", "--data", "mine.npz", "--tolerance", "1e-2", "--strengths", "0.1", "1")
    assert jaxlin(*sweep, "--out", "run", "-q").code == 0
    Path("run/notes.txt").write_text("mine", encoding="utf-8")
    send_at_call(monkeypatch, training, "accuracy_and_loss", number=signal.SIGINT)
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of a shell ignores it
    try:
        done = jaxlin("train", "--data", "mine.npz", *RUN, "--out", "run", "--overwrite")
    finally:
        signal.signal(signal.SIGINT, usual)
    assert done.code == 130
    left = {path.name for path in Path("run").iterdir()}
    assert left == {"config.json", "env.json", "metrics.jsonl", "notes.txt"}


def test_resume_starts_afresh_where_there_is_nothing(jaxlin, runs, unbroken):
    resume = (*RUN, "--resume", "auto")
    Path("empty").mkdir()
    Path("empty/.lock").touch()
    assert jaxlin("train", *resume, "--out", "empty").code == 0
    runs.assert_same("empty", unbroken)
    # Killed before anything but the configuration was there:
    Path("killed/checkpoints/7.part").mkdir(parents=True)
    Path("killed/results.json.part").touch()
    shutil.copy("empty/config.json", "killed")
    assert jaxlin("train", *resume, "--out", "killed").code == 0
    runs.assert_same("killed", unbroken)
    assert not list(Path("killed").rglob("*.part"))


def test_resume_without_out_finds_its_own_run(jaxlin):
    assert jaxlin("train", *RUN).code == 0
    other = (*RUN, "--strength", "0.01", "--resume", "auto")
    assert jaxlin("train", *other).code == 0
    assert jaxlin("train", *other).code == 0
    assert sorted(os.listdir("runs")) == ["digits-softmax", "digits-softmax-2"]


def test_another_run_is_refused_with_what_differs(jaxlin, arrays):
    inputs, labels = arrays
    mine = ("train", "--data", "mine.npz", *SAVING, "--out", "run", "--resume", "auto")
    assert jaxlin(*mine).code == 0
    before = Path("run/model.safetensors").read_bytes()
    refused = jaxlin(*mine, "--strength", "0.5", "--loss", "hinge").refused()
    assert "strength: 0.0001 -> 0.5" in refused
    assert 'loss: "softmax" -> "hinge"' in refused
    np.savez("mine.npz", inputs=inputs + 1e-9, labels=labels)
    assert 'train: "' in jaxlin(*mine).refused()
    np.savez("moved.npz", inputs=inputs, labels=labels)
    Path("mine.npz").unlink()
    moved = ("--data", "moved.npz")
    assert jaxlin(*mine, *moved).code == 0  # the same data in another place
    shutil.rmtree("run/checkpoints")
    assert "strength: 0.0001 -> 0.5" in jaxlin(*mine, *moved, "--strength", "0.5").refused()
    assert Path("run/model.safetensors").read_bytes() == before
    Path("notes").mkdir()
    Path("notes/mine.txt").write_text("thoughts", encoding="utf-8")
    assert "not a run" in jaxlin(*mine, *moved, "--out", "notes").refused()
    assert [path.name for path in Path("notes").iterdir()] == ["mine.txt"]


def test_options_that_decide_no_number_may_differ(jaxlin, runs, unbroken, monkeypatch):
    with monkeypatch.context() as patch:
        send_at_call(patch, training, "accuracy_and_loss", call=2)
        assert jaxlin("train", *SAVING, "--out", "run").code == 75
    other = (*RUN, "--save-every", "13", "--out", "run", "--resume", "auto", "--json")
    assert jaxlin("train", *other).code == 0
    runs.assert_same("run", unbroken)


def test_what_cannot_be_meant_is_refused(jaxlin):
    assert "must be positive" in jaxlin("train", "--save-every", "0").refused()
    both = ("--resume", "auto", "--overwrite")
    assert "one of them" in jaxlin("train", *both).refused()
    assert jaxlin("train", *SAVING, "--out", "run").code == 0
    assert "not empty" in jaxlin("train", *SAVING, "--out", "run").refused()
    assert jaxlin("train", *RUN, "--out", "run", "--overwrite", "--seed", "1").code == 0
    assert checkpoint.steps(Path("run")) == []  # they belonged to what was overwritten


@pytest.fixture
def small_disk(disk_of):
    """A file system of 4 MB of its own, at `disk`."""
    return disk_of(4)


def fill(folder):
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as full:
            assert full.errno == errno.ENOSPC  # noqa: PT017


def test_a_disk_that_fills_up_costs_no_checkpoint_and_the_exit_code_says_so(
    jaxlin, runs, unbroken, small_disk, monkeypatch
):
    with monkeypatch.context() as patch:
        break_at_step(patch, 20, lambda: fill(small_disk))
        done = jaxlin("train", *SAVING, "--out", "disk/run")
    assert done.code == 3
    for step in (34, 51, 60):  # training went on to its end
        assert f"of step {step} could not be saved (No space left on device)" in done.err
    assert "the one of step 17 stays" in done.err
    assert "Traceback" not in done.err
    assert checkpoint.find(small_disk / "run").step == 17
    (small_disk / "filler").unlink()
    assert jaxlin("train", *SAVING, "--out", "disk/run", "--resume", "auto").code == 0
    runs.assert_same("disk/run", unbroken)


def test_a_disk_that_was_full_for_a_while(jaxlin, runs, unbroken, small_disk, monkeypatch):
    break_at_step(monkeypatch, 20, lambda: fill(small_disk))
    save, saves = checkpoint.store.save, []

    def counted(*args, **settings):
        saves.append(1)
        if len(saves) == 3:
            (small_disk / "filler").unlink()
        return save(*args, **settings)

    monkeypatch.setattr(checkpoint.store, "save", counted)
    done = jaxlin("train", *SAVING, "--out", "disk/run")
    assert done.code == 3
    assert "done, but 1 of the checkpoints could not be saved" in done.err
    runs.assert_same("disk/run", unbroken)  # the records waited in memory


def test_too_little_space_is_refused_before_the_first_step(jaxlin, small_disk):
    (small_disk / "other").write_bytes(bytes(3_800_000))
    refused = jaxlin("train", *SAVING, "--out", "disk/run").refused()
    assert "4 checkpoints of" in refused
    assert "Free some space" in refused


@pytest.mark.parametrize("saving", [(), ("--save-every", "500")])
def test_a_disk_too_full_for_results_has_its_own_exit_code(jaxlin, small_disk, monkeypatch, saving):
    break_at_step(monkeypatch, 20, lambda: fill(small_disk))
    done = jaxlin("train", *RUN, *saving, "--out", "disk/run")
    assert done.code == 3
    assert "No space left on device" in done.err
    assert "None" not in done.err
    assert "Errno" not in done.err
    assert "Traceback" not in done.err
