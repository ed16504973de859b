"""Where results go: output folders, and printing for people and for machines."""

__all__ = [
    "OutputOptions",
    "check_out",
    "emit",
    "make_out",
    "occupied",
    "prepare_out",
    "say",
    "write_json",
    "write_text",
]

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Output: where results go, and what is printed."""

    out: Path | None = None
    """Folder to write (without it: a new one under `runs`)."""
    overwrite: bool = False
    """Write into a folder that is not empty."""
    json: bool = False
    """Print one JSON object on stdout; everything for people goes to stderr."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Print nothing but errors and --json."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False
    """Print more."""


def occupied(folder: Path) -> list[Path]:
    """What a folder holds, apart from the lock of a process that is no more."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.name != ".lock"]


def check_out(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, or that holds something already."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file, and --out must be a folder. Choose another name.")
    if occupied(folder) and not overwrite:
        raise ValueError(
            f"{folder}: the folder is not empty. Choose another --out, or add --overwrite."
        )
    parent = next(p for p in [folder, *folder.absolute().parents] if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"{folder}: cannot be written. Choose another --out.")


def prepare_out(out: Path | None, *, name: str, overwrite: bool) -> Path:
    """The output folder, made; without `out` the first free `runs/NAME`, `runs/NAME-2`, ..."""
    if out is None:
        out = Path("runs") / name
        count = 1
        while occupied(out):
            count += 1
            out = Path("runs") / f"{name}-{count}"
    check_out(out, overwrite=overwrite)
    make_out(out)
    return out


def make_out(out: Path) -> None:
    """Make the output folder, if it is not there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{out}: cannot be made ({error.strerror}). Choose another --out."
        ) from None


def say(*words: object, quiet: bool = False) -> None:
    """Print for people: on stderr, so that stdout stays for machines."""
    if not quiet:
        print(*words, file=sys.stderr, flush=True)


def emit(value: Any) -> None:
    """Print one JSON object on stdout."""
    json.dump(value, sys.stdout, default=str)
    sys.stdout.write("\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_text` does."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 through a temporary file, so that a reader never sees half of it.

    What UTF-8 cannot say, an odd byte in the name of a folder, becomes `\\udce9`.
    """
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(part, path)
