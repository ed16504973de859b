"""Compiled programs kept in the user's cache: where, when not, how many; never a run's business."""

import os
import subprocess
import sys

import pytest

from jaxlin.cli.compilation_cache import programs, trim


def test_they_lie_in_the_users_cache_by_kind_of_processor(tmp_path):
    here = {"XDG_CACHE_HOME": str(tmp_path)}
    one, other = (programs(here, machine=machine) for machine in ("avx2", "avx512"))
    assert one.folder.parent == other.folder.parent == tmp_path / "jaxlin" / "programs"
    assert one.folder != other.folder
    assert one.variables["JAX_COMPILATION_CACHE_DIR"] == str(one.folder)
    assert programs(here).folder == programs(here).folder


def test_what_the_user_has_set_stays(tmp_path):
    mine = {"JAX_COMPILATION_CACHE_DIR": "/fast", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "2"}
    found = programs(mine | {"XDG_CACHE_HOME": str(tmp_path)})
    assert str(found.folder) == "/fast"
    assert not mine.keys() & found.variables.keys()
    assert not list(tmp_path.iterdir())
    assert programs({"JAX_COMPILATION_CACHE_DIR": ""}).folder is None


@pytest.mark.parametrize(
    "off", [{"JAXLIN_CACHE": "off"}, {"JAX_ENABLE_COMPILATION_CACHE": "false"}]
)
def test_the_switch_is_heeded_also_where_a_folder_is_named(off, tmp_path):
    for more in ({}, {"JAX_COMPILATION_CACHE_DIR": "/fast"}):
        found = programs(off | more | {"XDG_CACHE_HOME": str(tmp_path)})
        assert found.folder is None
        assert "JAX_COMPILATION_CACHE_DIR" not in found.variables
    assert not list(tmp_path.iterdir())


def test_another_word_for_the_switch_is_refused(jaxlin, monkeypatch):
    monkeypatch.setenv("JAXLIN_CACHE", "/fast")
    said = jaxlin("info").refused()
    assert "JAXLIN_CACHE must be on or off, got '/fast'" in said
    assert "JAX_COMPILATION_CACHE_DIR" in said


def test_a_folder_that_cannot_be_made_or_written_is_done_without(tmp_path):
    (tmp_path / "file").touch()
    found = programs({"XDG_CACHE_HOME": str(tmp_path / "file")})
    assert (found.folder, found.variables) == (None, {})
    assert "Not a directory" in found.why


def test_the_oldest_go_first(tmp_path):
    for age in range(6):
        path = tmp_path / ("below" if age % 2 else ".") / f"{age}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    trim(tmp_path, 600)
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 6
    trim(tmp_path, 599)  # 300 may stay: 299 of them whole files
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["0", "1"]


PROGRAM = """
import sys
from matplotlib.figure import Figure
from jaxlin.cli import main
Figure.savefig = lambda *arguments, **settings: None  # pictures are no programs
sys.exit(main())
"""
WORDS = ("train", "--data", "mine.npz", "--steps", "2", "--quiet", "--overwrite", "--out", "run")


def train(folder, cache):
    keeping = ("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE")  # those of the suite are not meant
    variables = {k: v for k, v in os.environ.items() if not k.startswith(keeping)}
    variables |= {"MPLCONFIGDIR": str(folder / "matplotlib")}  # it, too, would use that cache
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *WORDS],
        cwd=folder,
        env=variables | {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return (folder / "run" / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("arrays")  # not those of scikit-learn, which is long to import
def test_a_run_keeps_its_programs_and_bears_damaged_ones_and_none(tmp_path):
    kept = tmp_path / "kept"
    first = train(tmp_path, kept)
    (folder,) = (kept / "jaxlin" / "programs").iterdir()
    entries = {path.name: path.stat().st_mtime_ns for path in folder.glob("*-cache")}
    assert entries
    for name in entries:  # as a process leaves them that was killed while it wrote
        os.truncate(folder / name, 20)
    assert train(tmp_path, kept) == first
    (tmp_path / "file").touch()
    assert train(tmp_path, tmp_path / "file") == first
