"""The pages of measured numbers are what the committed JSON says, digit for digit."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("report", ROOT / "experiments/benchmarks/report.py")
report = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(report)

TABLES = {
    "speed": {
        "title": "Speed",
        "command": "python speed.py",
        "date": "2026-01-02",
        "machine": "2 cores",
        "versions": {"jax": "0.10.2"},
        "columns": ["who", "1e-2", "1e-4"],
        "rows": [["**we**", "0.5", "0.83"], ["`they`", "3.0", ""]],
        "notes": [],
        "changes": "the weather.",
    }
}


def test_pages_are_what_the_committed_tables_say(capsys):
    assert report.main(["--check"]) == 0, capsys.readouterr().out


def test_every_table_says_how_it_was_measured():
    tables = report.load()
    assert len(tables) > 20
    for name, table in tables.items():
        for key in ("title", "command", "date", "machine", "versions", "changes"):
            assert table[key], (name, key)
        assert table["rows"], name
        labels = [report.plain(row[0]) for row in table["rows"]]
        assert len(labels) == len(set(labels)), f"{name}: no cell may be cited in two ways"
        assert {len(row) for row in table["rows"]} == {len(table["columns"])}, name
        assert all(isinstance(cell, str) for row in table["rows"] for cell in row), name


def test_a_mark_alone_becomes_the_whole_table():
    text = "before\n\n<!-- table: speed -->\n\nafter\n"
    whole = (
        "| who | 1e-2 | 1e-4 |\n| --- | --- | --- |\n| **we** | 0.5 | 0.83 |\n| `they` | 3.0 |  |\n"
    )
    assert report.filled(text, TABLES) == f"before\n\n<!-- table: speed -->\n\n{whole}\nafter\n"


def test_rows_and_columns_that_stand_there_are_filled():
    """Columns in any order, rows left out, emphasis as the reader's page has it."""
    head = "<!-- table: speed -->\n\n| who | 1e-4 | 1e-2 |\n"
    text = f"{head}|---|---|---|\n| they | 9 | 9 |\n| **we** | **9** | 9 |\n"
    filled = report.filled(text, TABLES)
    rows = "| they |  | 3.0 |\n| **we** | **0.83** | **0.5** |\n"
    assert filled == f"{head}| --- | --- | --- |\n{rows}"
    assert report.filled(filled, TABLES) == filled


def test_a_number_in_a_sentence_is_filled_and_keeps_what_is_around_it():
    text = "It takes (**9**<!-- speed: we / 1e-4 -->) s, they 9<!-- speed: they / 1e-2 -->.\n"
    right = "It takes (**0.83**<!-- speed: we / 1e-4 -->) s, they 3.0<!-- speed: they / 1e-2 -->.\n"
    assert report.filled(text, TABLES) == right
    assert report.filled(right, TABLES) == right


def test_a_number_with_its_unit_stays_and_another_that_ends_alike_does_not():
    tables = {"t": TABLES["speed"] | {"columns": ["who", "s"], "rows": [["we", "0.5 s"]]}}
    right = "it takes 0.5 s<!-- t: we / s --> or more"
    assert report.filled(right, tables) == right
    assert report.filled("10.5<!-- t: we / s -->", tables) == "0.5 s<!-- t: we / s -->"
    with pytest.raises(ValueError, match=r"no number stands right before .*'0\.5 s'"):
        report.filled("it takes 0.7 s<!-- t: we / s -->", tables)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("<!-- table: sped -->\n", "there is no table 'sped', but speed"),
        ("1<!-- speed: you / 1e-2 -->", "speed has no 'you', but we, they"),
        ("1<!-- speed: we / 1e-3 -->", "speed has no '1e-3', but who, 1e-2, 1e-4"),
        ("<!-- table: speed -->\n| who | 1e-9 |\n|---|---|\n| we | 1 |\n", "has no '1e-9'"),
    ],
)
def test_a_mark_that_points_nowhere_is_named(text, sentence):
    with pytest.raises(KeyError, match=sentence):
        report.filled(text, TABLES)


def test_a_benchmark_leaves_its_table_with_what_it_took(tmp_path):
    about = dict(title="T", columns=["who", "s"], notes=["n"], changes="c")
    report.save_table(tmp_path / "new", "speed", rows=[["we", 0.5]], measured=[1], **about)
    (tmp_path / "new" / "other.json").write_text("[1, 2]", encoding="utf-8")
    (found,) = report.load(tmp_path / "new").values()
    assert found["rows"] == [["we", "0.5"]]
    assert found["versions"].keys() >= {"Python", "jax", "numpy"}
    assert found["command"].startswith("python ")
    assert "## T\n\n| who | s |" in report.page({"speed": found})
    with pytest.raises(ValueError, match="every row of speed must have 2 cells"):
        report.save_table(tmp_path, "speed", rows=[["we"]], **about)
    assert json.loads((tmp_path / "new" / "speed.json").read_text(encoding="utf-8")) == found
