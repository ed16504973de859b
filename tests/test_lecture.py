"""The lecture's chapters on small data: every claim holds, every figure is drawn."""

import re
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxlin import data
from jaxlin.cli.lecture import Options, run
from jaxlin.core import DataError
from jaxlin.gradients.finite_differences import gradient
from jaxlin.lecture.nouns import (
    DIFFERS,
    ERRATUM,
    REPRODUCED,
    VERDICTS,
    Chapter,
    Claim,
    Formula,
    Lesson,
    Table,
    judge,
)
from jaxlin.lecture.page import lecture_page
from jaxlin.lecture.reproduce import CHAPTERS, module_of

FOLDER = Path(__file__).parents[1] / "jaxlin" / "lecture"
QUICK = {  # where less work shows the same
    "batch_sizes": {"SIZES": (1, 32, 64, 100, 128), "NEIGHBORS": ((127, 128, 129),), "ROUNDS": 3},
    "following_the_gradient": {"TRIES": 200, "DIRECTIONS": 200},
    "descent": {"EXAMPLES": 500},
    "numerical_gradient": {"FEATURES": 4},
}
MEASURES_TIME = {"batch_sizes", "scores", "cost_of_numerical"}  # a busy machine may disagree


@pytest.fixture(scope="module")
def lesson():
    return Lesson(data.load("digits"), data.load("digits", split="test"))


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_claim_of_the_chapter_holds(name, lesson, monkeypatch):
    module = module_of(name)
    for constant, value in QUICK.get(name, {}).items():
        monkeypatch.setattr(module, constant, value)
    with jax.enable_x64(False):  # as a user runs it
        chapter = module.chapter(lesson)
    assert chapter.name == name
    assert chapter.claims
    assert all(claim.verdict in VERDICTS for claim in chapter.claims)
    if name not in MEASURES_TIME:
        assert [c.text for c in chapter.claims if c.verdict == DIFFERS] == []


@pytest.mark.parametrize(("method", "calls"), [("forward", 13), ("central", 24)])
def test_a_numeric_gradient_of_n_entries_calls_the_loss_as_often_as_the_lecture_counts(
    method, calls
):
    seen = []

    def loss(w):
        seen.append(w)
        return float(np.sum(np.square(w)))

    gradient(loss, np.ones((3, 4)), method=method, step=1e-5)  # n = 12: n + 1 and 2 n
    assert len(seen) == calls


def test_features_of_other_pictures_are_refused(lesson):
    other = lesson.train._replace(labels=lesson.train.labels[::-1])
    wrong = lesson._replace(features=lesson._replace(train=other))
    with pytest.raises(DataError, match="are not of these training pictures"):
        module_of("real_features").chapter(wrong)


def test_every_module_is_a_chapter_and_every_chapter_a_module():
    found = {path.stem for path in (FOLDER / "chapters").glob("*.py")} - {"__init__"}
    assert found == set(CHAPTERS)


def test_the_table_of_the_folder_names_all_chapters_and_nothing_else():
    named = set(re.findall(r"`(\w+)\.py`", (FOLDER / "README.md").read_text(encoding="utf-8")))
    assert named <= set(CHAPTERS)
    assert set(CHAPTERS) <= named


def test_some_chapters_print_their_verdicts_and_save_their_pictures(tmp_path, capsys):
    run(Options(only=("stability", "bias_trick"), out=tmp_path / "out", verbose=True))
    said = capsys.readouterr().err
    assert "The bias trick" in said
    assert "[−666, −333, 0]" in said
    assert said.split("Numeric stability")[1].count("verdict:  reproduced") == 4
    picture = (tmp_path / "out" / "figures" / "bias_trick.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_the_command_writes_both_pages_and_the_numbers(tmp_path, capsys):
    options = Options(only=("scores", "stability"), out=tmp_path / "out", json=True)
    assert run(options) == 0
    page = (tmp_path / "out" / "lecture.html").read_text(encoding="utf-8")
    assert "61.95" in page
    assert "erratum" in page
    assert 'href="playground.html"' in page
    assert (tmp_path / "out" / "playground.html").stat().st_size > 20_000
    assert (tmp_path / "out" / "figures" / "image_to_scores.png").exists()
    assert '"scores"' in capsys.readouterr().out


def test_an_unknown_chapter_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="no such chapter"):
        run(Options(only=("nonsense",), out=tmp_path / "out"))


def test_judge_never_hides_a_difference():
    assert judge(False, ERRATUM) == DIFFERS
    assert judge(True) == REPRODUCED


@pytest.fixture
def small_page():
    claim = Claim("L1", "A <b> & $x^2$", "1", "-2.0 and 4e-05", REPRODUCED, "by `a-1`")
    table = Table(("$p$",), (("<i>",),))
    parts = ("Some *prose*.", Formula(r"\sum_i x_i"), table, claim)
    return lecture_page([Chapter("one", "A title", parts)], data="digits", seconds=1.0)


def test_the_page_escapes_text_and_typesets_numbers(small_page):
    assert "A &lt;b&gt; &amp; <math>" in small_page
    assert "&lt;i&gt;" in small_page
    assert "−2.0 and <math>" in small_page
    assert "<mn>10</mn>" in small_page
    assert "<code>a-1</code>" in small_page
    assert "1 claims: 1 reproduced." in small_page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_the_page_opens_without_console_errors(small_page, tmp_path):
    (tmp_path / "page.html").write_text(small_page, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom"]
    command = ["chromium", *flags, (tmp_path / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    assert "A title" in done.stdout
