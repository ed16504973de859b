"""List, describe, fetch and verify data sets."""

__all__ = ["Options", "run"]

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Options:
    """List, describe, fetch and verify data sets."""

    action: Annotated[Literal["list", "info", "fetch", "verify"], tyro.conf.Positional] = "list"
    """What to do; nothing is downloaded but by fetch."""
    name: Annotated[str | None, tyro.conf.Positional] = None
    """The data set: digits, mnist, fashion-mnist, cifar10."""
    data_dir: Path | None = None
    """The folder that holds its files."""
    json: bool = False
    """Print one JSON object on stdout."""


def run(options: Options) -> int:
    """Do it; verify returns 1 if a file is known not to be the published one."""
    from jaxlin.cli.output import emit
    from jaxlin.data import NAMED, fetch

    if options.action == "list":
        found = {name: _described(name, options.data_dir) for name in NAMED}
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


def _described(name: str, data_dir) -> dict:
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
    verdicts = {True: "as published", False: "NOT as published", None: "no published sum"}
    for name, value in found.items():
        if name == "files":
            for file in value:
                print(f"{file['sha256'] or 'missing or damaged':<64}  {file['file']}")
                print(f"{'':<64}  {verdicts[file['canonical']]}")
        elif isinstance(value, dict):
            where = value["found"] or "not here"
            print(f"{name:<14} {value['train']:>6} + {value['test']:>6}  {value['title']}: {where}")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            print(f"{name:<12} {'not here' if text is None else text}")
