"""List, describe, fetch and verify data sets, and say which files are read."""

__all__ = ["Options", "run"]

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Options:
    """List, describe, fetch and verify data sets; say which files are read (formats)."""

    action: Annotated[
        Literal["list", "info", "fetch", "verify", "formats"], tyro.conf.Positional
    ] = "list"
    """What to do; nothing is downloaded but by fetch."""
    name: Annotated[str | None, tyro.conf.Positional] = None
    """The data set, one of those of list: digits, mnist, cifar10, ..."""
    data_dir: Path | None = None
    """The folder that holds its files."""
    json: bool = False
    """Print one JSON object on stdout."""


def run(options: Options) -> int:
    """Do it; verify returns 1 if a file is known not to be the published one."""
    from jaxlin.data import NAMED, fetch
    from jaxlin.runs.output import emit

    if options.action == "formats":
        return _formats(json=options.json)
    if options.action == "list":
        found: dict[str, Any] = {name: _described(name, options.data_dir) for name in NAMED}
    elif options.name not in NAMED:
        raise ValueError(
            f"`jaxlin data {options.action}` needs a data set ({', '.join(NAMED)}), "
            f"got {options.name}."
        )
    elif options.action == "fetch":
        found = {"folder": str(fetch.fetch(options.name))}
    elif options.action == "info" or options.name == "digits":
        found = _described(options.name, options.data_dir)
    else:
        found = {"files": fetch.verify(options.name, options.data_dir)}
    if options.json:
        emit(found)
    else:
        _print(found)
    return int(any(file["canonical"] is False for file in found.get("files", [])))


def _formats(*, json: bool) -> int:
    """Print what can be read; the readers themselves say it."""
    import textwrap

    from jaxlin.data.registry import formats
    from jaxlin.runs.output import emit

    kinds = formats()
    if json:
        emit({"formats": kinds})
        return 0
    width = max(len(place) for kind in kinds for place, _ in kind["lines"])
    for kind in kinds:
        flags = " ".join(f"--{option.replace('_', '-')}" for option in kind["options"])
        print(f"{kind['title']}{f' ({flags})' if flags else ''}")
        for place, how in kind["lines"]:
            first, *rest = textwrap.wrap(how, 96 - width, break_on_hyphens=False)
            print(f"  {place:<{width}}  {first}")
            for line in rest:
                print(f"  {'':<{width}}  {line}")
    return 0


def _described(name: str, data_dir: Path | None) -> dict:
    from jaxlin.core import DataError
    from jaxlin.data import NAMED
    from jaxlin.data.named import locate

    known = NAMED[name]
    try:
        where = "built in" if name == "digits" else str(locate(name, data_dir))
    except DataError:
        where = None
    return {
        "title": known.title,
        "train": known.rows[0],
        "test": known.rows[1],
        "image_shape": known.image_shape,
        "classes": known.class_names,
        "found": where,
        "source": known.source,
    }


def _print(found: dict) -> None:
    width = max((len(name) for name in found), default=0)
    verdicts = {True: "as published", False: "NOT as published", None: "no published sum"}
    for name, value in found.items():
        if name == "files":
            for file in value:
                print(f"{file['sha256'] or 'missing or damaged':<64}  {file['file']}")
                print(f"{'':<64}  {verdicts[file['canonical']]}")
        elif isinstance(value, dict):
            where = value["found"] or "not here"
            rows = f"{value['train']:>7,} + {value['test']:>7,}"
            print(f"{name:<{width}}  {rows}  {value['title']}: {where}")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            print(f"{name:<12} {'not here' if text is None else text}")
