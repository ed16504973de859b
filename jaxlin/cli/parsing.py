"""From words to options: the command line, `--config FILE`, and one sentence for a mistake."""

__all__ = ["from_config", "parse"]

import contextlib
import dataclasses
import difflib
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

from jaxlin.cli.help_page import help_page
from jaxlin.runs.wording import flags_of

MAY_BE_PATHS = ("data", "at")
"""Options that take a path or one of some words."""


def parse(options_type: type, argv: list[str], *, command: str) -> Any:
    """Options from the command line; those of `--config FILE` come first.

    A mistake raises `ValueError` with one sentence; `--help` prints and exits with 0.
    """
    if not {"-h", "--help"}.isdisjoint(argv):
        print(help_page(options_type, command=command), end="", flush=True)
        raise SystemExit(0)
    argv = [*from_config(options_type, argv), *argv]
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught):
            options: Any = tyro.cli(
                options_type,
                args=argv,
                prog=f"jaxlin {command}",
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit:
        raise ValueError(_one_sentence(caught.getvalue(), argv, command, options_type)) from None
    return _with_home(options)


def _with_home(options: Any) -> Any:
    """The options with the home folder for every leading `~`.

    A shell expands `--out ~/run`, but neither `--out=~/run` nor what stands in a file.
    """
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    at_home = [name for name in MAY_BE_PATHS if str(values.get(name)).startswith("~")]
    named = {name: str(_at_home(Path(values[name]))) for name in at_home}
    return dataclasses.replace(options, **{n: _at_home(v) for n, v in values.items()} | named)


def _at_home(value: Any) -> Any:
    """A path (or a tuple of them) with the home folder for a leading `~`; else the value itself.

    >>> _at_home(Path("~/run")) == Path.home() / "run", _at_home((Path("run"), 3))
    (True, (PosixPath('run'), 3))
    """
    if isinstance(value, tuple):
        return tuple(map(_at_home, value))
    if not isinstance(value, Path) or not str(value).startswith("~"):
        return value
    expanded = os.path.expanduser(value)
    # Where nobody is called so it is a name in this folder, and nobody shall look again.
    return Path(os.path.abspath(expanded) if expanded.startswith("~") else expanded)


def _one_sentence(printed: str, argv: list[str], command: str, options_type: type) -> str:
    """What the parser printed in a box, as one sentence with the nearest known name."""
    known = sorted(flags_of(options_type))
    for word in argv:
        flag = word.split("=")[0]
        if re.fullmatch(r"--[a-zA-Z][\w.-]*", flag) and known and _kebab(flag) not in known:
            near = difflib.get_close_matches(flag, known, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else f"See `jaxlin {command} --help`."
            return f"`{flag}` is not an option of `jaxlin {command}`. {hint}"
    lines = [line.strip("│╭╰─╮╯┃┏┗━┓┛|+- ") for line in printed.splitlines()]
    text = " ".join(line for line in lines if line and "For full helptext" not in line)
    text = re.sub(r"^(Parsing error|Invalid choice|Missing|Required options?)\s*:?\s*", "", text)
    text = re.sub(r"^Value error\s+|\s*Argument helptext:.*", "", text)
    about = re.match(r"Error parsing (--[\w-]+)|invalid choice .* for argument '(--[\w-]+)", text)
    unread = about and known and _unread(about[1] or about[2], argv, command, options_type)
    if unread:
        return unread
    if missing := re.match(r"argument Missing value for argument '(--[\w-]+)'", text):
        return f"{missing[1]} needs a value. See `jaxlin {command} --help`."
    if stray := re.match(r"Unrecognized options Unrecognized options: (.*)", text):
        return f"`{stray[1]}` belongs to no option. See `jaxlin {command} --help`."
    text = re.sub(r"^Missing from [^:]*: (.*?)\s*\(required\).*", r"something is missing: \1", text)
    return f"{text.strip().rstrip('.')}. See `jaxlin {command} --help`."


def _unread(flag: str, argv: list[str], command: str, options_type: type) -> str | None:
    """The sentence for a value that is not of its option's type."""
    kind = get_type_hints(options_type)[flag[2:].replace("-", "_")]
    while get_args(kind) and get_origin(kind) is not Literal:  # `X | None`, `tuple[X, ...]`
        kind = get_args(kind)[0]
    choices = [str(choice) for choice in get_args(kind)]
    wrong = [word for word in _values_of(flag, argv) if not _is_a(kind, choices, word)]
    if not wrong:
        return None
    what = {int: "a whole number", float: "a number"}.get(kind, f"one of {', '.join(choices)}")
    near = difflib.get_close_matches(wrong[0], choices, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"See `jaxlin {command} --help`."
    return f"{flag} must be {what}, got {wrong[0]!r}. {hint}"


def _values_of(flag: str, argv: list[str]) -> list[str]:
    """The words that were given to an option."""
    values, inside = [], False
    for word in argv:
        name, equals, rest = word.partition("=")
        if name.startswith("--"):
            inside = _kebab(name) == flag
            values += [rest] if inside and equals else []
        elif inside:
            values.append(word)
    return values


def _is_a(kind: Any, choices: Sequence[str], word: str) -> bool:
    if choices:
        return word in map(str, choices)
    try:
        kind(word)
    except (TypeError, ValueError):
        return False
    return True


def _kebab(flag: str) -> str:
    return "--" + flag[2:].replace("_", "-")


def from_config(options_type: type, argv: list[str]) -> list[str]:
    """The options in the file that `--config` names, as words to put before the given ones."""
    path = None
    for i, word in enumerate(argv):
        if word == "--config" and i + 1 < len(argv):
            path = _at_home(Path(argv[i + 1]))
        elif word.startswith("--config="):
            path = _at_home(Path(word.split("=", 1)[1]))
    if path is None or "config" not in getattr(options_type, "__dataclass_fields__", {}):
        return []
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file to read options from.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a JSON file ({error}).") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a JSON object of options, got {type(values).__name__}.")
    if values.get("dtype") == "bfloat16":  # how a configuration said it before --precision
        values |= {"dtype": "float32", "precision": "bf16"}
    fields = [field.name for field in dataclasses.fields(options_type) if field.name != "config"]
    unknown = sorted(values.keys() - set(fields))
    if unknown:
        near = difflib.get_close_matches(unknown[0], fields, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise ValueError(f'{path}: "{unknown[0]}" is not an option.{hint}')
    words = []
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words += [flag] if value else []
        elif value is not None:
            many = value if isinstance(value, list) else [value]
            words += [flag, *map(str, many)]
    return words
