"""Whether a checkpoint belongs to the run that wants to go on from it."""

__all__ = ["check_same", "differences"]

import json
from collections.abc import Callable
from pathlib import Path

from jaxlin.core import DataError

MOST_NAMED = 8
"""Fields that are named one by one: of a run of another command nearly all differ."""


def differences(saved: dict, now: dict) -> list[str]:
    """The fields in which two JSON objects differ, each as "field: old -> new".

    >>> differences({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 4, "d": 3}})
    ['b.c: 2 -> 4']
    >>> differences({"a": 1}, {"b": None})
    ['a: 1 -> nothing', 'b: nothing -> null']
    """
    old, new = _flat(saved), _flat(now)
    fields = [*old, *(name for name in new if name not in old)]
    return [
        f"{name}: {old.get(name, 'nothing')} -> {new.get(name, 'nothing')}"
        for name in fields
        if old.get(name) != new.get(name)
    ]


def check_same(
    saved: dict, now: dict, *, where: Path, warn: Callable[[str], None] | None = None
) -> None:
    """Refuse to go on from a checkpoint of another run.

    Args:
      saved: the identity in the checkpoint's record: an object with "config" (the options that
        decide numbers) and "data" (fingerprints), which must be equal, and "versions" (packages,
        devices), which may differ: results may then differ in their last bits, and `warn` says so.
      now: the identity of the run that wants to go on.
      where: the checkpoint, or another file of the run, for the message.
      warn: gets one sentence if versions differ.

    Raises:
      DataError: "config" or "data" differ; the fields are named, old -> new.

    >>> now, here = {"config": {"strength": 0.5}}, Path("runs/a")
    >>> check_same(now, now, where=here)
    >>> check_same({"config": {"strength": 0.1}}, now, where=here)
    Traceback (most recent call last):
    jaxlin.core.DataError: runs/a: belongs to another run (strength: 0.1 -> 0.5)...
    """
    changed = [
        field
        for part in ("config", "data")
        for field in differences(saved.get(part, {}), now.get(part, {}))
    ]
    if changed:
        more = len(changed) - MOST_NAMED
        changed = changed[:MOST_NAMED] + ([f"and {more} more"] if more > 0 else [])
        raise DataError(
            f"{where}: belongs to another run ({'; '.join(changed)}). Give the options and data "
            "it was started with, or choose another --out."
        )
    moved = differences(saved.get("versions", {}), now.get("versions", {}))
    if moved and warn is not None:
        warn(
            f"{where}: was saved elsewhere ({'; '.join(moved)}): the run goes on, and may differ "
            "from an unbroken one in the last bits."
        )


def _flat(value: dict, prefix: str = "") -> dict[str, str]:
    """Every leaf as JSON, by its dotted name; an empty object is a leaf."""
    flat: dict[str, str] = {}
    for name, leaf in value.items():
        if isinstance(leaf, dict) and leaf:
            flat |= _flat(leaf, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(leaf, sort_keys=True, default=str)
    return flat
