"""`jaxlin train` killed, stopped, starved of disk, and started again where it does not belong."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxlin import checkpoint, solvers, train
from jaxlin.cli import main, training

ROOT = Path(__file__).parents[2]
RUN = ("--steps", "60", "--batch-size", "64", "--patience", "50", "-q")
SAVING = (*RUN, "--save-every", "17")
# As the suite itself runs: processes are compared with runs in this one, bit for bit.
CHILD = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"}
JAXLIN = (sys.executable, "-c", "import sys; from jaxlin.cli import main; sys.exit(main())")


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


def records(folder, *, timed=False):
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return lines if timed else [{k: v for k, v in x.items() if k != "seconds"} for x in lines]


def assert_same_run(folder, unbroken):
    assert records(folder) == records(unbroken)
    one, other = (Path(f) / "model.safetensors" for f in (folder, unbroken))
    assert one.read_bytes() == other.read_bytes()


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


def start(*options):
    return subprocess.Popen([*JAXLIN, "train", *options], env=CHILD, stderr=subprocess.PIPE)


def test_saving_changes_no_number_and_keeps_three(jaxlin, unbroken):
    assert jaxlin("train", *SAVING, "--out", "saving").code == 0
    assert_same_run("saving", unbroken)
    assert checkpoint.steps(Path("saving")) == [34, 51, 60]
    assert not (unbroken / "checkpoints").exists()
    assert not list(Path("saving").glob(".lock"))
    assert "save_every" not in json.loads(Path("saving/config.json").read_text())


def test_killed_five_times_at_random_moments(jaxlin):
    """One run of real processes, each killed a while after its first new checkpoint."""
    steps = ("--steps", "300", "--save-every", "7")
    options = (*RUN, *steps, "--out", "killed", "--resume", "auto")
    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed)
    for _ in range(5):
        before = checkpoint.steps(Path("killed"))
        process = start(*options)
        while process.poll() is None and checkpoint.steps(Path("killed")) == before:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, seed
        assert checkpoint.find(Path("killed")) is not None, seed
    done = jaxlin("train", *options)
    assert (done.code, done.err) == (0, ""), seed
    assert jaxlin("train", *RUN, "--steps", "300", "--out", "whole").code == 0
    assert_same_run("killed", "whole")
    assert not list(Path("killed").rglob("*.part"))
    seconds = [record["seconds"] for record in records("killed", timed=True)]
    assert seconds == sorted(seconds)


def test_a_real_sigterm_saves_and_exits_75(jaxlin):
    options = (*SAVING, "--steps", "3000", "--out", "stopped")
    process = start(*options)
    while process.poll() is None and not checkpoint.steps(Path("stopped")):
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75
    assert "by SIGTERM, all is saved; add --resume auto to go on" in said.decode()
    assert "Traceback" not in said.decode()
    newest = checkpoint.find(Path("stopped"))
    assert str(newest.step) in said.decode().replace(",", "")


@pytest.mark.parametrize(
    ("module", "name", "call", "number"),
    [
        (training, "prepare", 1, signal.SIGTERM),  # before there is a folder
        (train, "compile_steps", 1, signal.SIGTERM),
        (training, "accuracy_and_loss", 2, signal.SIGTERM),  # validation, inside training
        (training, "measure", 1, signal.SIGTERM),  # evaluation, after training
        (training, "write_predictions", 1, signal.SIGINT),
    ],
    ids=["loading", "compiling", "validating", "evaluating", "writing"],
)
def test_a_signal_at_any_stage_stops_with_75_and_resume_ends_the_same(
    jaxlin, unbroken, monkeypatch, module, name, call, number
):
    options = (*RUN, "--resume", "auto", "--out", "run")
    with monkeypatch.context() as patch:
        send_at_call(patch, module, name, call=call, number=number)
        done = jaxlin("train", *options)
    assert done.code == 75, done.err
    assert number.name in done.err
    assert "add --resume auto to go on" in done.err
    assert jaxlin("train", *options).code == 0
    assert_same_run("run", unbroken)


def test_a_signal_in_the_middle_of_an_epoch(jaxlin, unbroken, monkeypatch):
    """An epoch has 21 steps; looking up every 5 stands for one that takes many seconds."""
    options = (*RUN, "--resume", "auto", "--out", "run")
    monkeypatch.setattr(train, "FIRST_STEPS", 5)
    with monkeypatch.context() as patch:
        patch.setattr(train, "SECONDS_BETWEEN_LOOKS", 0.0)
        break_at_step(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert jaxlin("train", *options).code == 75
    assert checkpoint.steps(Path("run")) == [5]
    assert jaxlin("train", *options).code == 0
    assert_same_run("run", unbroken)


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
def test_a_run_that_ended_before_its_time_ends_the_same_after_a_resume(jaxlin, extra, code):
    options = (*RUN, *extra, "--save-every", "7")
    assert jaxlin("train", *options, "--out", "run").code == code
    shutil.copytree("run", "whole")
    for step in checkpoint.steps(Path("run"))[1:]:
        shutil.rmtree(f"run/checkpoints/{step}")
    for path in ("model.safetensors", "results.json", "metrics.jsonl"):
        (Path("run") / path).unlink()
    assert jaxlin("train", *options, "--out", "run", "--resume", "auto").code == code
    assert_same_run("run", "whole")
    ends = [json.loads(Path(f"{f}/results.json").read_text()) for f in ("run", "whole")]
    assert ends[0]["status"] == ends[1]["status"] != "done"


def test_records_beyond_the_checkpoint_and_torn_lines_are_dropped(jaxlin, unbroken):
    assert jaxlin("train", *SAVING, "--out", "run").code == 0
    shutil.rmtree("run/checkpoints/60")
    with open("run/metrics.jsonl", "a") as file:
        file.write('{"step": 99, "ep')
    assert jaxlin("train", *SAVING, "--out", "run", "--resume", "auto").code == 0
    assert_same_run("run", unbroken)
    os.truncate("run/metrics.jsonl", 10)
    assert jaxlin("train", *SAVING, "--out", "run", "--resume", "auto").code == 0
    assert_same_run("run", unbroken)


def test_broken_checkpoints_are_named_and_the_one_before_is_used(jaxlin, unbroken):
    assert jaxlin("train", *SAVING, "--out", "run").code == 0
    for step, change in {60: lambda b: b[:50] + b"x" + b[51:], 51: lambda b: b[:-1]}.items():
        path = Path(f"run/checkpoints/{step}/record.json")
        path.write_bytes(change(path.read_bytes()))
    done = jaxlin("train", *SAVING, "--out", "run", "--resume", "auto")
    assert done.code == 0
    rot, short = done.err.splitlines()
    assert "checkpoints/60: `record.json` does not hold the bytes that were written" in rot
    assert "checkpoints/51: `record.json` is truncated" in short
    assert_same_run("run", unbroken)
    assert checkpoint.steps(Path("run")) == [34, 51, 60]
    for step in (34, 51, 60):
        Path(f"run/checkpoints/{step}/manifest.json").unlink()
    done = jaxlin("train", *SAVING, "--out", "run", "--resume", "auto")
    assert done.code == 0
    assert "there is no whole checkpoint; starting afresh" in done.err
    assert_same_run("run", unbroken)


def test_nothing_of_a_run_that_is_overwritten_passes_for_the_new_one(jaxlin, arrays, monkeypatch):
    sweep = ("sweep", "--data", "mine.npz", "--tolerance", "1e-2", "--strengths", "0.1", "1")
    assert jaxlin(*sweep, "--out", "run", "-q").code == 0
    Path("run/notes.txt").write_text("mine")
    send_at_call(monkeypatch, training, "accuracy_and_loss", number=signal.SIGINT)
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of a shell ignores it
    try:
        done = jaxlin("train", "--data", "mine.npz", *RUN, "--out", "run", "--overwrite")
    finally:
        signal.signal(signal.SIGINT, usual)
    assert done.code == 130
    left = {path.name for path in Path("run").iterdir()}
    assert left == {"config.json", "env.json", "metrics.jsonl", "notes.txt"}


def test_resume_starts_afresh_where_there_is_nothing(jaxlin, unbroken):
    resume = (*RUN, "--resume", "auto")
    Path("empty").mkdir()
    Path("empty/.lock").touch()
    assert jaxlin("train", *resume, "--out", "empty").code == 0
    assert_same_run("empty", unbroken)
    # Killed before anything but the configuration was there:
    Path("killed/checkpoints/7.part").mkdir(parents=True)
    Path("killed/results.json.part").touch()
    shutil.copy("empty/config.json", "killed")
    assert jaxlin("train", *resume, "--out", "killed").code == 0
    assert_same_run("killed", unbroken)
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
    Path("notes/mine.txt").write_text("thoughts")
    assert "not a run" in jaxlin(*mine, *moved, "--out", "notes").refused()
    assert [path.name for path in Path("notes").iterdir()] == ["mine.txt"]


def test_options_that_decide_no_number_may_differ(jaxlin, unbroken, monkeypatch):
    with monkeypatch.context() as patch:
        send_at_call(patch, training, "accuracy_and_loss", call=2)
        assert jaxlin("train", *SAVING, "--out", "run").code == 75
    other = (*RUN, "--save-every", "13", "--out", "run", "--resume", "auto", "--json")
    assert jaxlin("train", *other).code == 0
    assert_same_run("run", unbroken)


def test_what_cannot_be_meant_is_refused(jaxlin):
    assert "must be positive" in jaxlin("train", "--save-every", "0").refused()
    both = ("--resume", "auto", "--overwrite")
    assert "one of them" in jaxlin("train", *both).refused()
    assert jaxlin("train", *SAVING, "--out", "run").code == 0
    assert "not empty" in jaxlin("train", *SAVING, "--out", "run").refused()
    assert jaxlin("train", *RUN, "--out", "run", "--overwrite", "--seed", "1").code == 0
    assert checkpoint.steps(Path("run")) == []  # they belonged to what was overwritten


def test_two_processes_do_not_write_one_folder(jaxlin):
    first = start(*SAVING, "--steps", "100000", "--out", "run")
    try:
        while first.poll() is None and not checkpoint.steps(Path("run")):
            time.sleep(0.01)
        for extra in (("--resume", "auto"), ("--overwrite",)):
            refused = jaxlin("train", *SAVING, "--steps", "100000", "--out", "run", *extra)
            assert f"process {first.pid} on " in refused.refused()
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    assert jaxlin("train", *RUN, "--out", "run", "--overwrite").code == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB of its own, at `disk`."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs more rights")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as full:
            assert full.errno == errno.ENOSPC  # noqa: PT017


def test_a_disk_that_fills_up_costs_no_checkpoint_and_the_exit_code_says_so(
    jaxlin, unbroken, small_disk, monkeypatch
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
    assert_same_run("disk/run", unbroken)


def test_a_disk_that_was_full_for_a_while(jaxlin, unbroken, small_disk, monkeypatch):
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
    assert_same_run("disk/run", unbroken)  # the records waited in memory


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


FULL = ("--data", "mine.npz", "--tolerance", "1e-6", "--strength", "1e-5", "-q")


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


def test_a_certified_fit_killed_at_any_moment_goes_on_bit_for_bit(jaxlin, wide):
    options = ("train", *FULL, "--save-every", "3", "--resume", "auto", "--out", "killed")
    for most in (3, 9):
        before = checkpoint.steps(Path("killed"))
        process = subprocess.Popen([*JAXLIN, *options], env=CHILD, stderr=subprocess.PIPE)
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
    jaxlin, many, monkeypatch, words, hook
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
    at_stop = records("run")
    assert 4 <= len(at_stop) < len(records("whole"))
    assert jaxlin(*options, "--out", "run", "--resume", "auto").code == 0
    assert records("run")[: len(at_stop)] == at_stop
    assert_same_fit("run", "whole")


def assert_same_fit(folder, unbroken):
    assert_same_run(folder, unbroken)
    one, other = (json.loads((Path(f) / "results.json").read_text()) for f in (folder, unbroken))
    assert one | {"seconds": None} == other | {"seconds": None}


def test_space_is_asked_for_what_a_certified_fit_will_have_learned(jaxlin, many, small_disk):
    refused = jaxlin("train", *FULL, "--loss", "hinge", "--save-every", "5", "--out", "disk/run")
    assert "4 checkpoints of" in refused.refused()
