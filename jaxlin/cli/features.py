"""Describe and check features in files."""

__all__ = ["Options", "run"]

from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Options:
    """Describe features in files: shards, rows, width, type, classes, size, fingerprint.

    Only headers, labels and sampled blocks are read, however large the files are; --check reads
    all of them. Exit code 1: a number is not finite.
    """

    action: tyro.conf.Positional[Literal["info"]]
    """What to do."""
    path: tyro.conf.Positional[Path]
    """A .npy, a .safetensors, or a folder of them."""
    labels: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The file of the labels (without it: those beside the features)."""
    check: bool = False
    """Read every number: the range, and whether all are finite."""
    json: bool = False
    """Print one JSON object on stdout."""


def run(options: Options) -> int:
    """Print what the files hold."""
    from jaxlin.data.survey import survey
    from jaxlin.runs.output import emit

    found = survey(options.path, options.labels, check=options.check)
    if options.json:
        emit(found)
    else:
        _print(found)
    return int(any(part.get("problems") for part in found["parts"].values()))


def _print(found: dict) -> None:
    for name, part in found["parts"].items():
        shards = part["shards"]
        print(f"part          {name}")
        print(f"  rows        {part['rows']:,} x {part['width']:,} {part['dtype']}")
        print(f"  on disk     {part['bytes'] / 2**20:,.1f} MiB in {_count(shards, 'file')}")
        if len(shards) > 1:
            rows = sorted({shard["rows"] for shard in shards})
            each = f"{rows[0]:,}" if len(rows) == 1 else f"{rows[0]:,} to {rows[-1]:,}"
            print(f"  shards      {shards[0]['file']} to {shards[-1]['file']}, {each} rows each")
        print(f"  classes     {_classes(part)}")
        if "range" in part:
            if part["range"] is not None:
                low, high = part["range"]
                print(f"  range       {low:g} to {high:g}")
            print(f"  finite      {'yes, all' if not part['problems'] else 'NO'}")
            for problem in part["problems"]:
                print(f"    {problem}")
        print(f"  fingerprint {part['fingerprint']}")


def _count(items: Sized, what: str) -> str:
    return f"{len(items)} {what}{'s' if len(items) != 1 else ''}"


def _classes(part: dict) -> str:
    counts = part["class_counts"]
    if counts is None:
        return "no labels beside"
    few, many = min(counts.values()), max(counts.values())
    each = f"{few:,} examples each" if few == many else f"{few:,} to {many:,} examples each"
    empty = sum(count == 0 for count in counts.values())
    return f"{len(counts):,}, {each}" + (f", {empty:,} of them without any" if empty else "")
