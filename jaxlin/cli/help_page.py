"""What `jaxlin COMMAND --help` prints: first what most people set, then all else by subject.

The subject of an option is the dataclass that brings it in: the first line of its docstring is the
title, and classes whose titles agree up to the colon are one subject.
"""

__all__ = ["MOST_SET", "help_page"]

import ast
import dataclasses
import inspect
import shutil
import textwrap
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import tyro

MOST_SET = ("data", "loss", "strength", "solver", "out")
"""In a command of many options these come first."""
_MANY = 12
_COLUMN = 24
_INLINE = 34
_WORDS = {int: "N", float: "X", Path: "PATH", str: "TEXT"}
_POSITIONAL = get_args(tyro.conf.Positional[int])[1]


class _Option(NamedTuple):
    name: str
    head: str
    """As it is typed, `-q, --quiet` or `--seed N`."""
    text: str
    subject: str
    positional: bool


def help_page(options_type: type, *, command: str, width: int | None = None) -> str:
    """The page of a command.

    Args:
      options_type: its dataclass, whose fields have a docstring each.
      command: as in `jaxlin COMMAND`.
      width: of the page in characters; by default the terminal's, up to 100.
    """
    if width is None:
        width = min(shutil.get_terminal_size().columns, 100)
    options = [_option(options_type, field) for field in dataclasses.fields(options_type)]
    arguments = [option for option in options if option.positional]
    words = [f"jaxlin {command} [options]", *(option.head for option in arguments)]
    lines = [f"usage: {' '.join(words)}", ""]
    for paragraph in inspect.cleandoc(options_type.__doc__ or "").split("\n\n"):
        lines += [*_wrapped(paragraph, width), ""]
    lines += _section("Arguments", arguments, width)
    rest = [option for option in options if not option.positional]
    if len(rest) > _MANY:
        most = [option for name in MOST_SET for option in rest if option.name == name]
        lines += _section("Most used", most, width)
        rest = [option for option in rest if option not in most]
    for title in _subjects(options_type):
        those = [option for option in rest if option.subject == title.partition(":")[0]]
        lines += _section(title, those, width)
    return "\n".join(lines[:-1]) + "\n"


def _section(title: str, options: list[_Option], width: int) -> list[str]:
    if not options:
        return []
    lines = [title]
    for head, text in ((option.head, option.text) for option in options):
        body = _wrapped(text, max(width - _COLUMN, 20)) or [""]
        beside = len(head) + 4 <= _COLUMN
        lines += [f"  {head:<{_COLUMN - 2}}{body[0]}"] if beside else [f"  {head}"]
        lines += [" " * _COLUMN + line for line in body[beside:]]
    return [*lines, ""]


_wrapped = partial(textwrap.wrap, break_on_hyphens=False)


def _subjects(options_type: type) -> list[str]:
    """The titles, in the order in which the classes are named; the command's own come first."""
    titles: dict[str, str] = {}
    for cls in options_type.__mro__[:-1]:
        title = _title(cls)
        titles.setdefault(title.partition(":")[0], title)
    return list(titles.values())


def _title(cls: type) -> str:
    if cls.__name__ == "Options":  # of this command, or of one that it builds on
        return "Options"
    return inspect.cleandoc(cls.__doc__ or "").splitlines()[0].rstrip(".")


def _option(options_type: type, field: dataclasses.Field) -> _Option:
    kind, noted = get_type_hints(options_type, include_extras=True)[field.name], []
    while get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        noted += more
    has = [cls for cls in options_type.__mro__ if field.name in inspect.get_annotations(cls)]
    text = next((doc for cls in has if (doc := _docstrings(cls).get(field.name))), "")
    metavar = next((m for note in noted if (m := getattr(note, "metavar", None))), None)
    word, choices = (metavar, "") if metavar else _value(kind)
    if choices:
        text += f" One of {choices}."
    default = field.default
    if default is not dataclasses.MISSING and default is not False and default not in (None, ()):
        text += f" (default: {f'{default:g}' if isinstance(default, float) else default})"
    subject = _title(has[-1]).partition(":")[0]
    if _POSITIONAL in noted:
        several = get_origin(kind) is tuple
        head = field.name.upper() + " ..." * several
        optional = default is not dataclasses.MISSING
        return _Option(field.name, f"[{head}]" if optional else head, text, subject, True)
    aliases = [a for note in noted for a in getattr(note, "aliases", None) or ()]
    short = [alias for alias in aliases if not alias.startswith("--")]
    flags = [*short, f"--{field.name.replace('_', '-')}", *(set(aliases) - set(short))]
    return _Option(field.name, f"{', '.join(flags)} {word}".strip(), text, subject, False)


def _value(kind: Any) -> tuple[str, str]:
    """What stands for the value, and its choices where they are too long to stand there."""
    if kind is bool:
        return "", ""
    if get_origin(kind) is Literal:
        listed = [str(choice) for choice in get_args(kind)]
        inline = f"{{{','.join(listed)}}}"
        return (inline, "") if len(inline) <= _INLINE else ("NAME", ", ".join(listed))
    if get_origin(kind) is tuple:
        word, choices = _value(get_args(kind)[0])
        return f"{word} ...", choices
    inside = [part for part in get_args(kind) if part is not type(None)]
    return _value(inside[0]) if inside else (_WORDS[kind], "")


def _docstrings(cls: type) -> dict[str, str]:
    """The string after each field of a class, on one line."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    found: dict[str, str] = {}
    for field, after in pairwise(getattr(definition, "body", ())):
        text = getattr(after, "value", None)
        named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if named and isinstance(text, ast.Constant):
            found[field.target.id] = " ".join(str(text.value).split())
    return found
