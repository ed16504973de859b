"""What the commands share: parsing, options that name data, output folders, printing."""

__all__ = [
    "DataOptions",
    "OutputOptions",
    "check_out",
    "emit",
    "from_config",
    "occupied",
    "parse",
    "prepare_out",
    "say",
    "write_json",
]

import contextlib
import dataclasses
import difflib
import io
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which examples."""

    data: str = "digits"
    """digits, mnist, fashion-mnist, cifar10; or an .npz, features in a .npy or .safetensors, a
    folder of pictures or of features."""
    data_dir: Path | None = None
    """The folder that holds the files of a named data set."""
    labels: Path | None = None
    """The labels of features (without it: those beside them, say `labels.npy`)."""
    test: Path | None = None
    """A file or folder that gives the test set of a file or folder."""
    test_labels: Path | None = None
    """The labels of test features (without it: those beside them)."""
    image_size: int | None = None
    """Side in pixels to which pictures are resized (without it: that of the first picture)."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where results go."""

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


def parse(options_type, argv: list[str], *, command: str):
    """Options from the command line; those of `--config FILE` come first.

    A mistake raises `ValueError` with one sentence; `--help` prints and exits with 0.
    """
    argv = [*from_config(options_type, argv), *argv]
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught):
            return tyro.cli(
                options_type,
                args=argv,
                prog=f"jaxlin {command}",
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_one_sentence(caught.getvalue(), argv, command, options_type)) from None


def _one_sentence(printed: str, argv, command: str, options_type) -> str:
    """What the parser printed in a box, as one sentence with the nearest known name."""
    known = sorted(_flags(options_type))
    for word in argv:
        flag = word.split("=")[0]
        if re.fullmatch(r"--[a-zA-Z][\w.-]*", flag) and known and _kebab(flag) not in known:
            near = difflib.get_close_matches(flag, known, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else f"See `jaxlin {command} --help`."
            return f"`{flag}` is not an option of `jaxlin {command}`. {hint}"
    lines = [line.strip("│╭╰─╮╯┃┏┗━┓┛ ") for line in printed.splitlines()]
    text = " ".join(line for line in lines if line and "For full helptext" not in line)
    text = re.sub(r"^(Parsing error|Invalid choice|Missing|Required options?)\s*:?\s*", "", text)
    text = re.sub(r"^Value error\s+|\s*Argument helptext:.*", "", text)
    text = re.sub(r"^Missing from [^:]*: (.*?)\s*\(required\).*", r"something is missing: \1", text)
    return f"{text.strip().rstrip('.')}. See `jaxlin {command} --help`."


def _flags(options_type) -> set[str]:
    """The long options of a flat dataclass; empty for unions of subcommands."""
    if not dataclasses.is_dataclass(options_type):
        return set()
    return {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(options_type)} | {
        "--help"
    }


def _kebab(flag: str) -> str:
    return "--" + flag[2:].replace("_", "-")


def from_config(options_type, argv: list[str]) -> list[str]:
    """The options in the file that `--config` names, as words to put before the given ones."""
    path = None
    for i, word in enumerate(argv):
        if word == "--config" and i + 1 < len(argv):
            path = Path(argv[i + 1])
        elif word.startswith("--config="):
            path = Path(word.split("=", 1)[1])
    if path is None or "config" not in getattr(options_type, "__dataclass_fields__", {}):
        return []
    try:
        values = json.loads(path.read_text())
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
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise ValueError(f"{path}: `{unknown[0]}` is not an option.{hint}")
    words = []
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words += [flag] if value else []
        elif value is not None:
            many = value if isinstance(value, list) else [value]
            words += [flag, *map(str, many)]
    return words


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
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{out}: cannot be made ({error.strerror}). Choose another --out."
        ) from None
    return out


def say(*words, quiet: bool = False) -> None:
    """Print for people: on stderr, so that stdout stays for machines."""
    if not quiet:
        print(*words, file=sys.stderr, flush=True)


def emit(value) -> None:
    """Print one JSON object on stdout."""
    json.dump(value, sys.stdout, default=str)
    sys.stdout.write("\n")


def write_json(path: Path, value) -> None:
    """Write JSON through a temporary file, so that a reader never sees half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=2, default=str) + "\n")
    os.replace(part, path)
