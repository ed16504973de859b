"""Standard streams as shells and schedulers leave them: a reader that has gone, none, a full disk.

What a process does at its end, and with its descriptors, only a process shows.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = "import sys; from jaxlin.cli import main; sys.exit(main())"
FULL = Path("/dev/full")
QUICK = ("--data", "mine.npz", "--steps", "3", "--out", "run")
RUN = {
    *("config.json", "confusion.png", "curves.png", "env.json", "metrics.jsonl"),
    *("model.safetensors", "predictions.csv", "report.html", "results.json", "templates.png"),
}


@pytest.fixture
def pictures(tmp_path):
    """Sixty pictures as `mine.npz`, others, and two: scikit-learn's are long to import."""
    labels = np.arange(60) % 3
    grey = np.random.default_rng(0).integers(0, 80, (60, 8, 8)) + 80 * labels[:, None, None]
    grey = grey.astype(np.uint8)
    np.savez(tmp_path / "mine.npz", inputs=grey, labels=labels)
    np.savez(tmp_path / "other.npz", inputs=grey + np.uint8(9), labels=labels)
    np.save(tmp_path / "x.npy", grey[:2])


@pytest.fixture
def shell(tmp_path):
    """`shell("train", ..., into="2>&-")`: the command with its streams as a shell would set them.

    With `unread=True` stdout is a pipe that nobody reads.
    """

    def run(*words, into="", unread=False, **variables):
        command = ["sh", "-c", f'exec "$0" "$@" {into}', sys.executable, "-c", PROGRAM, *words]
        reading, writing = os.pipe()
        if unread:
            os.close(reading)
        done = subprocess.run(
            command,
            stdout=writing if unread else subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=os.environ | variables,
            encoding="utf-8",
            timeout=240,
        )
        os.close(writing)
        return done

    return run


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["train", "--help"], ["data", "list"]]
)
def test_a_reader_that_has_gone_is_no_failure(shell, words, buffered):
    done = shell(*words, unread=True, PYTHONUNBUFFERED="" if buffered else "1")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("pictures")
def test_a_run_is_written_whoever_reads_its_numbers(shell, tmp_path):
    done = shell("train", *QUICK, "--json", "--quiet", unread=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN
    for words in (("evaluate", "run", "--data", "other.npz"), ("predict", "run", "x.npy")):
        done = shell(*words, unread=True, PYTHONUNBUFFERED="1")
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("into", ["2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_are_the_null_device(shell, tmp_path, into):
    done = shell("train", *QUICK, "--verbose", into=into)
    assert (done.returncode, done.stdout) == (0, "")
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
def test_a_full_disk_is_told_once(shell):
    for words in (["--version"], ["train", "--help"], ["data", "list"]):
        done = shell(*words, into=f">{FULL}")
        assert done.returncode == 3
        assert done.stderr.startswith("jaxlin: stdout: No space left on device.")
        assert len(done.stderr.splitlines()) == 1
    assert shell("trian", into=f"2>{FULL}").returncode == 2
