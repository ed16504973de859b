"""Runs of several processes on one machine: one model, one sentence where one dies, launching.

Processes talk through gloo on localhost. All but one test fork theirs.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxlin import models
from jaxlin.cli.parsing import parse
from jaxlin.distributed import launch
from jaxlin.runs.train_options import Options, check_options

LAUNCH = Path(__file__).parents[2] / "experiments" / "launch"
RUN = ("--epochs", "8", "--batch-size", "100", "--optimizer", "momentum")
yaml = pytest.importorskip("yaml")


def same_model(one: Path, other: Path, rtol=1e-6):
    first, second = (models.load(run / "model.safetensors") for run in (one, other))
    size = np.abs(first.params.weights).max()
    np.testing.assert_allclose(second.params.weights, first.params.weights, atol=rtol * size)
    # Statistics are sums in float64, in another order.
    np.testing.assert_allclose(second.preprocessing.shift, first.preprocessing.shift, rtol=1e-12)
    np.testing.assert_allclose(second.preprocessing.scale, first.preprocessing.scale, rtol=1e-12)
    objectives = [
        json.loads((run / "results.json").read_text(encoding="utf-8")) for run in (one, other)
    ]
    assert objectives[1]["objective"] == pytest.approx(objectives[0]["objective"], rel=rtol)
    assert objectives[1]["test"]["confusion"] == objectives[0]["test"]["confusion"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, processes):
    """The run of one process that all others are compared with."""
    folder = tmp_path_factory.mktemp("alone")
    ((code, _, err),) = processes.finish([processes.start(folder, "train", "--out", "run", *RUN)])
    assert code == 0, err
    return folder / "run"


def test_two_processes_fit_the_model_of_one_and_the_first_writes(tmp_path, alone, processes):
    (code, out, err), (silent, nothing, quiet) = processes.finish(
        processes.start_both(tmp_path, "train", "--out", "run", "--json", *RUN, fresh=True)
    )
    assert (code, silent) == (0, 0), err + quiet
    assert (nothing, quiet) == ("", "")
    assert json.loads(out)["n_train"] == 1298
    assert json.loads((tmp_path / "run/env.json").read_text(encoding="utf-8"))["process_count"] == 2
    same_model(alone, tmp_path / "run")


def test_slurm_is_recognized_and_asked_for_everything(tmp_path, alone, processes):
    port = processes.free_port()
    while port < 61_440:  # JAX takes port 61440 + job % 4096
        port = processes.free_port() | 61_440
    slurm = {
        "SLURM_JOB_ID": str(port - 61_440),
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_LOCALID": "0",
    }
    command = _slurm_command(DATA="digits", RUN="run", SLURM_JOB_ID="1")
    assert command[:2] == ["jaxlin", "train"]
    words = [*command[2:], *RUN]
    both = [
        processes.start(tmp_path, "train", *words, **slurm, SLURM_PROCID=str(i)) for i in range(2)
    ]
    (code, _, err), (silent, _, quiet) = processes.finish(both)
    assert (code, silent) == (0, 0), err + quiet
    same_model(alone, tmp_path / "run")


@pytest.mark.parametrize("victim", [0, 1])
def test_where_one_process_dies_the_other_says_one_sentence_and_the_restart_goes_on(
    tmp_path, victim, processes
):
    words = ("--out", "run", "--save-every", "20", "--resume", "auto")
    endless = (*words, *RUN, "--epochs", "100000", "--schedule", "constant")
    both = processes.start_both(tmp_path, "train", *endless)
    deadline = time.monotonic() + 60
    while not _steps(tmp_path / "run"):
        assert time.monotonic() < deadline
        assert both[0].poll() is None, both[0].communicate()
        time.sleep(0.05)
    os.kill(both[victim].pid, signal.SIGKILL)
    found = processes.finish(both)
    assert found[victim][0] == -signal.SIGKILL
    code, out, err = found[1 - victim]
    assert (code, out) == (75, "")
    (sentence,) = (line for line in err.splitlines() if not line.startswith(("data ", "rows ")))
    assert sentence.startswith("jaxlin: another process of this run died")
    assert "--resume auto" in sentence

    # The same command on one process stops at once, from where the two had come.
    before = max(_steps(tmp_path / "run"))
    again = processes.start(tmp_path, "train", *endless)
    while "Going on from step" not in again.so_far()[1] and again.poll() is None:
        time.sleep(0.05)
    assert f"step {before:,}" in again.so_far()[1]
    again.terminate()
    assert processes.finish([again])[0][0] == 75


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--num-processes", "2"), "--num-processes needs --coordinator HOST:PORT"),
        (("--coordinator", "nowhere"), "--coordinator must be HOST:PORT or auto, got 'nowhere'"),
        (("--coordinator", "a:99999"), "--coordinator must be HOST:PORT"),
        (("--coordinator", "a:1"), "needs --num-processes and --process-id too"),
        (
            ("--coordinator", "a:1", "--num-processes", "2", "--process-id", "2"),
            "--process-id must be in [0, 2), got 2",
        ),
        (("--devices", "0"), "--devices must be positive"),
        (("--heartbeat", "1"), "--heartbeat must be at least 3 seconds"),
        (("--class-devices", "2", "--tolerance", "1e-3"), "--class-devices is for minibatch"),
    ],
)
def test_what_cannot_be_meant_is_refused(words, sentence):
    with pytest.raises(ValueError) as caught:
        check_options(parse(Options, [*words], command="train"))
    assert sentence in str(caught.value)


def _steps(run: Path) -> list[int]:
    names = [path.name for path in run.glob("checkpoints/*")]
    return [int(name) for name in names if name.isdecimal() and int(name)]


def _slurm_command(**variables):
    """The words after srun's own options in the Slurm script, variables filled in."""
    text = (LAUNCH / "slurm.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if line.startswith("srun"))
    for name, value in variables.items():
        line = line.replace(f'"${name}"', value)
    line = line.replace('"${COMMAND:-train}"', "train")
    words = [word for word in shlex.split(line) if word != "$@"]
    return words[next(i for i, word in enumerate(words) if word == "jaxlin") :]


def test_the_slurm_script_is_sound_shell_and_its_command_is_one_of_ours(tmp_path):
    script = LAUNCH / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    assert script.read_text(encoding="utf-8").startswith("#!/bin/bash\n")
    assert os.access(script, os.X_OK)
    command = _slurm_command(DATA="digits", RUN="runs/a")
    options = parse(Options, command[2:], command="train")
    check_options(options)
    assert (options.resume, options.out) == ("auto", Path("runs/a"))

    # With stand-ins for the cluster's commands: a job that ended with 75 is queued again.
    (tmp_path / "srun").write_text(
        "#!/bin/bash\nprintf '%s\\n' \"$@\" > srun.txt\nexit 75\n", encoding="utf-8"
    )
    (tmp_path / "scontrol").write_text('#!/bin/bash\necho "$@" > scontrol.txt\n', encoding="utf-8")
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    job = {"PATH": path, "SLURM_JOB_ID": "42", "DATA": "my data"}
    done = subprocess.run([script, "--seed", "3"], cwd=tmp_path, env=job, check=False)
    assert done.returncode == 75
    assert (tmp_path / "scontrol.txt").read_text(encoding="utf-8") == "requeue 42\n"
    words = (tmp_path / "srun.txt").read_text(encoding="utf-8").splitlines()
    assert words[1:7] == ["jaxlin", "train", "--data", "my data", "--out", "runs/slurm-42"]
    assert words[-2:] == ["--seed", "3"]


def test_the_jobset_is_consistent_and_its_command_is_one_of_ours():
    (job,) = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (replicated,) = job["spec"]["replicatedJobs"]
    spec = replicated["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    # A pod's name in the network of a JobSet: <set>-<job>-<replica>-<pod>.<set>.
    name = job["metadata"]["name"]
    host, port = environment["JAX_COORDINATOR_ADDRESS"].split(":")
    assert host == f"{name}-{replicated['name']}-0-0.{name}"
    assert int(port) == container["ports"][0]["containerPort"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(environment["JAX_NUM_PROCESSES"])
    volumes = {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert container["command"] == ["jaxlin", "train"]
    options = parse(Options, container["args"], command="train")
    check_options(options)
    assert options.resume == "auto"


def test_what_a_command_says_after_the_service_has_logged_is_passed_on(capsys):
    """Both processes refuse the same data, and one of them sees the other's end first."""
    first = b"E0101 12:00:00.000000 123 coordination_service_agent.cc:7] Another task is gone.\n"
    said = [b"jaxlin: 1 epoch\n", first, b"and more of this\n", b"jaxlin: train: missing.\n"]
    logged = []
    launch._relay(said, sys.stderr, logged)
    assert capsys.readouterr().err == "jaxlin: 1 epoch\njaxlin: train: missing.\n"
    assert logged == said[1:3]
