"""The command line in this process, in an empty folder, and a trained run to work on."""

import copy
import json
import multiprocessing
import os
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tyro  # noqa: F401  before a doctest leaves an array as `builtins._`, which it would hash
from matplotlib.figure import Figure

from jaxlin.cli import main

SAVEFIG = Figure.savefig
QUICK = ("--steps", "40", "--batch-size", "64")


class Finished:
    """What a command left behind: exit code, stdout, stderr."""

    def __init__(self, code, captured):
        self.code, self.out, self.err = code, captured.out, captured.err

    @property
    def json(self):
        return json.loads(self.out)

    def refused(self) -> str:
        """The one sentence of a refusal."""
        assert self.code == 2, (self.code, self.err)
        assert "Traceback" not in self.err
        assert self.out == ""
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("jaxlin: ")
        return lines[0]


@pytest.fixture
def jaxlin(tmp_path, monkeypatch, capfd):
    """`jaxlin("train", "--data", ...)` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAXLIN_DATA", raising=False)

    def run(*argv):
        capfd.readouterr()
        try:
            code = main([str(word) for word in argv])
        except SystemExit as stop:
            code = stop.code or 0
        return Finished(code, capfd.readouterr())

    return run


@pytest.fixture
def arrays(tmp_path):
    """Forty separable examples as `mine.npz`, and their arrays."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 3
    inputs = rng.normal(0, 0.3, (40, 5)) + 3 * np.eye(5)[labels]
    np.savez(tmp_path / "mine.npz", inputs=inputs, labels=labels)
    return inputs, labels


@pytest.fixture
def drawn():
    """Who asks for it has pictures drawn."""


@pytest.fixture(autouse=True)
def _blank_pictures(request, monkeypatch, white_pixel):
    """Drawing takes longer than these runs."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", white_pixel)


@pytest.fixture(scope="session")
def _trained_once(tmp_path_factory):
    """Where the run of `trained` is kept, and what the command printed."""
    return {"folder": tmp_path_factory.mktemp("trained") / "run"}


@pytest.fixture
def trained(jaxlin, _trained_once):
    """A quickly trained run on digits, in `run`, with its pictures."""
    if "printed" not in _trained_once:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Figure, "savefig", SAVEFIG)
            done = jaxlin("train", "--out", "run", *QUICK, "--json")
        assert done.code == 0, done.err
        shutil.copytree("run", _trained_once["folder"])
        _trained_once["printed"] = done.json
    else:
        shutil.copytree(_trained_once["folder"], "run")
    return copy.deepcopy(_trained_once["printed"])


def _records(folder, *, timed=False):
    lines = [
        json.loads(line)
        for line in (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return lines if timed else [{k: v for k, v in x.items() if k != "seconds"} for x in lines]


def _assert_same(folder, other):
    assert _records(folder) == _records(other)
    one, two = (Path(f) / "model.safetensors" for f in (folder, other))
    assert one.read_bytes() == two.read_bytes()


@pytest.fixture(scope="session")
def runs():
    """What `jaxlin train` left in folders: `records`, `assert_same` (records and model)."""
    return SimpleNamespace(records=_records, assert_same=_assert_same)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


class Forked:
    """A command in a forked process (`forked.py`): what these tests use of `subprocess.Popen`."""

    def __init__(self, **asked):
        folder = Path(tempfile.mkdtemp(prefix="jaxlin-said-"))
        self.said = [folder / "stdout", folder / "stderr"]
        for file in self.said:
            file.touch()
        asked |= {"stdout": str(self.said[0]), "stderr": str(self.said[1])}
        words = (FORKED, {"ASKED": json.dumps(asked)}, "__main__")
        self.process = FORKS.Process(target=runpy.run_path, args=words, daemon=True)
        self.process.start()
        self.pid = self.process.pid
        self.kill, self.terminate = self.process.kill, self.process.terminate

    @property
    def returncode(self):
        return self.process.exitcode

    poll = returncode.fget

    def so_far(self) -> list[str]:
        """What it has written to stdout and stderr."""
        return [file.read_text(encoding="utf-8") for file in self.said]

    def communicate(self, timeout=120):
        self.process.join(timeout)
        assert self.returncode is not None, self.so_far()
        return self.so_far()


FORKED = str(Path(__file__).with_name("forked.py"))
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["jax", "jaxlin.cli.child", "jaxlin.cli.train", "jaxlin.cli.sweep", "jaxlin.runs.training",
     "jaxlin.runs.sweeps", "jaxlin.sweep", "sklearn.datasets", "matplotlib.figure"]
)  # fmt: skip


def _start(folder, *words, linger=0.0, devices=1, fresh=False, **variables):
    """`jaxlin WORDS` in a process of its own, which sees so many devices.

    It rests `linger` seconds after each checkpoint: a busy machine then has time to see and to
    kill it before its end. With `fresh` it is a new interpreter, not a forked one.
    """
    count = f"--xla_force_host_platform_device_count={devices}"
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {count}"}
    environment = os.environ | flags | variables
    if not fresh:
        return Forked(
            folder=str(Path(folder).resolve()), words=[str(word) for word in words],
            environment=dict(environment), linger=linger,
        )  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; from jaxlin.cli import main; sys.exit(main())", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _start_both(folder, *words, others=(), **settings):
    """The same as a run of two processes; `others` are words for the second alone."""
    joined = ("--coordinator", f"localhost:{free_port()}", "--num-processes", "2")
    own = ("--heartbeat", "5", "--process-id")
    return [
        _start(folder, *words, *more, *joined, *own, str(i), **settings)
        for i, more in enumerate(((), others))
    ]


def _finish(started):
    """Exit code, stdout and stderr of each."""
    found = []
    for process in started:
        out, err = process.communicate(timeout=120)
        found.append((process.returncode, out, err))
    return found


@pytest.fixture(scope="session")
def processes():
    """Commands in processes of their own: `start`, `start_both`, `finish`, `free_port`, and
    `as_here`, the variables of one that is compared with a run in this process, bit for bit."""
    return SimpleNamespace(
        start=_start,
        start_both=_start_both,
        finish=_finish,
        free_port=free_port,
        as_here={"JAX_ENABLE_X64": "1"},
    )
