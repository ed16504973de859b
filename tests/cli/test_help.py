"""`--help`: what most people set stands on the first screen, and everything in its subject."""

import dataclasses
import re
import subprocess
import sys
from importlib import import_module

import pytest

from jaxlin.cli import COMMANDS


@pytest.fixture
def page(jaxlin, monkeypatch):
    def of(command, columns=80):
        monkeypatch.setenv("COLUMNS", str(columns))
        done = jaxlin(command, "--help")
        assert (done.code, done.err) == (0, "")
        return done.out.splitlines()

    return of


def shown(lines):
    """The options that begin a line, by their long names."""
    heads = [re.match(r"  (?:-\w, )?(--[\w-]+)", line) for line in lines]
    return [head[1] for head in heads if head]


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_the_first_screen_shows_what_most_people_set(page, command):
    lines = page(command)
    most = ["--data", "--loss", "--strength", "--solver", "--out"]
    assert shown(lines)[: len(most)] == most
    screen = 24 if command == "train" else 30  # sweep has to say first what a head is
    assert set(most) <= set(shown(lines[:screen]))


def test_the_others_stand_by_subject(page):
    lines = page("train", columns=100)
    titles = [line.partition(":")[0] for line in lines[4:] if line and line[0] != " "]
    subjects = ["Data", "Objective", "Descent", "Certified", "Output", "Checkpoints", "Devices"]
    assert titles == ["Most used", "Options", *subjects]
    where, title = {}, ""
    for line in lines[4:]:
        title = line.partition(":")[0] if line and line[0] != " " else title
        where |= dict.fromkeys(shown([line]), title)
    expected = {
        **{"--labels": "Data", "--margin": "Objective", "--epochs": "Descent"},
        **{"--tolerance": "Certified", "--json": "Output", "--resume": "Checkpoints"},
        **{"--devices": "Devices", "--config": "Options"},
    }
    assert {option: where[option] for option in expected} == expected


@pytest.mark.parametrize("columns", [40, 80, 100])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_stands_there_once_and_is_explained(page, command, columns):
    lines = page(command, columns)
    kind = import_module(f"jaxlin.cli.{command}").Options
    text = "\n".join(lines)
    names = [field.name for field in dataclasses.fields(kind)]
    arguments = [name for name in names if re.search(rf"^  \[?{name.upper()}\b", text, re.M)]
    flags = [f"--{name.replace('_', '-')}" for name in names if name not in arguments]
    assert sorted(shown(lines)) == sorted(flags)
    assert all(f" {argument.upper()}" in lines[0].replace("[", " ") for argument in arguments)
    options = [k for k, line in enumerate(lines) if re.match(r"  [-\[A-Z]", line)]
    for k in options:  # a sentence beside the option, or below it
        assert re.search(r"\S {2,}\S", lines[k][2:]) or lines[k + 1].startswith(" " * 24)
    limit = max(columns, 44)  # a narrower page would be a column of single words
    heads = {line for line in lines if re.match(r"  -", line)}
    assert all(len(line) <= limit for line in lines if line not in heads and line[:1] == " ")


def test_defaults_and_choices_are_told(page):
    text = " ".join(" ".join(page("train")).split())
    assert "--strength X Factor of the regularizer" in text
    assert "strength * R(W). (default: 0.0001)" in text
    assert "--seed N Decides every random choice of the run. (default: 0)" in text
    assert "--regularizer {l2,l1,none}" in text
    assert "One of sgd, momentum, nesterov, adagrad, rmsprop, adam," in text
    assert "-q, --quiet Print nothing" in text
    assert "None" not in text


def test_the_package_is_the_command(jaxlin):
    """`python -m jaxlin`, where no folder of scripts is on the path."""
    whole = subprocess.run(
        [sys.executable, "-m", "jaxlin", "data", "formats"], capture_output=True, text=True
    )
    done = jaxlin("data", "formats")
    assert (whole.returncode, whole.stdout) == (done.code, done.out)
    wrong = subprocess.run([sys.executable, "-m", "jaxlin", "tran"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr == jaxlin("tran").err
