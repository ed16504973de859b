"""The command line in this process, in an empty folder, and a trained run to work on."""

import json

import numpy as np
import pytest

from jaxlin.cli import main

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
def trained(jaxlin):
    """A quickly trained run on digits, in `run`."""
    done = jaxlin("train", "--out", "run", *QUICK, "--json")
    assert done.code == 0, done.err
    return done.json
