"""The guides run as they stand: what they say is asserted where they say it."""

import runpy
from pathlib import Path

import pytest

GUIDES = sorted((Path(__file__).parents[1] / "experiments" / "guides").glob("*.py"))


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_a_guide_runs(path, capsys):
    runpy.run_path(str(path), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) >= 3


def test_all_are_there():
    assert [path.stem for path in GUIDES] == ["gradient", "landscape", "many_devices", "probe"]
