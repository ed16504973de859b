"""From keywords to the options of a command, refused as the command line refuses its words."""

__all__ = ["NOT_KEYWORDS", "options_of", "with_options"]

import dataclasses
import difflib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

NOT_KEYWORDS = (
    *("config", "json", "quiet", "verbose"),
    *("coordinator", "num_processes", "process_id", "heartbeat"),
)
"""Options that are the command's alone: what it prints, and its processes."""

_Options = TypeVar("_Options")
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _keywords(options_type: type) -> list[dataclasses.Field]:
    """The options of a command that are keywords, too."""
    return [each for each in dataclasses.fields(options_type) if each.name not in NOT_KEYWORDS]


def with_options(
    options_type: type, *, but: tuple[str, ...] = ()
) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
    """A decorator that shows the keywords which `**options` stands for, with their defaults.

    Notebooks complete them, and `help` and the reference list them.

    Args:
      options_type: the command's dataclass.
      but: options that the function decides.

    >>> from jaxlin.runs.prediction import Options
    >>> @with_options(Options, but=("run", "paths"))
    ... def predict(inputs, **options): ...
    >>> inspect.signature(predict).parameters["top"].default
    1
    """

    def shown(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        signature, kinds = inspect.signature(function), get_type_hints(options_type)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        named = {*but, *(parameter.name for parameter in own)}
        options = [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=each.default,
                annotation=kinds[each.name],
            )
            for each in _keywords(options_type)
            if each.name not in named
        ]
        vars(function)["__signature__"] = signature.replace(parameters=[*own, *options])
        return function

    return shown


def options_of(
    options_type: type[_Options], given: Mapping[str, Any], *, of: str, **settled: Any
) -> _Options:
    """The options of a command from keywords.

    Args:
      options_type: the command's dataclass.
      given: values by the names of options in snake case.
      of: the function that was called, for the sentence.
      **settled: options that the function decides.

    Raises:
      TypeError: a keyword is no option, or its value is of another type.
      ValueError: its value is none of the choices.

    >>> from jaxlin.runs.train_options import Options
    >>> options_of(Options, {"step_sise": 0.1}, of="runs.train")
    Traceback (most recent call last):
    TypeError: `step_sise` is not an option of `runs.train`. Did you mean `step_size`?
    >>> options_of(Options, {"loss": "sofmax"}, of="runs.train")
    Traceback (most recent call last):
    ValueError: --loss must be one of softmax, ..., got 'sofmax'. Did you mean softmax?
    """
    kinds = get_type_hints(options_type)
    known = [each.name for each in _keywords(options_type)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else f"Known are: {', '.join(known)}."
            raise TypeError(f"`{name}` is not an option of `{of}`. {hint}")
    read = {name: _read(_flag(name), value, kinds[name]) for name, value in given.items()}
    return options_type(**read, **settled)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _read(flag: str, value: Any, kind: Any) -> Any:
    """A value as the command line would have read it, or a sentence."""
    if type(None) in get_args(kind):
        if value is None:
            return None
        (kind,) = (each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is Literal:
        return _chosen(flag, value, get_args(kind))
    if get_origin(kind) is tuple:
        if isinstance(value, str | bytes) or not isinstance(value, Iterable):
            raise TypeError(f"{flag} takes several values, got {value!r}. Give a list.")
        return tuple(_read(flag, each, get_args(kind)[0]) for each in value)
    if kind in (Path, str) and isinstance(value, str | os.PathLike):
        return kind(os.path.expanduser(value))
    plain = isinstance(value, bool) or type(value).__name__ == "bool"  # NumPy's has this name too
    if kind is bool and plain:
        return bool(value)
    if kind is int and isinstance(value, Integral) and not plain:
        return int(value)
    if kind is float and isinstance(value, Real) and not plain:
        return float(value)
    what = {int: "a whole number", float: "a number", bool: "True or False", Path: "a path"}
    raise TypeError(f"{flag} must be {what.get(kind, 'a text')}, got {value!r}.")


def _chosen(flag: str, value: Any, choices: tuple) -> Any:
    if isinstance(value, str) and value in choices:
        return value
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(f"{flag} must be one of {', '.join(choices)}, got {value!r}.{hint}")
