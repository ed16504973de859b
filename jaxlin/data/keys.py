"""Which of several named arrays are the inputs and the labels, and of which split.

A name is read in words: `X_train`, `train_images` and `train/x` all say "train" and one of the
usual words for inputs. A name without a split is meant for all rows, or for the training rows where
another array names a held-out split. Nothing is guessed: two arrays that could both be meant are
refused in a sentence that lists them, and what is not read is named.

`inputs_key` and `labels_key` take the place of the usual words, in every split: `feats` finds
`feats`, `feats_train` and `feats_test`, and so does `feats_train`. A key that names a held-out
split (`feats_test`) means that array alone.
"""

__all__ = ["Choice", "Layout", "choose", "resolve"]

import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.source import Reading

INPUTS = ("inputs", "input", "x", "data", "images", "image", "features", "embeddings")
LABELS = ("labels", "label", "y", "targets", "target")
CLASS_NAMES = ("class_names", "target_names", "label_names", "list_classes")
IMAGE_SHAPE = "image_shape"
SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_FILLERS = ("set", "split")
_SHOWN = 10


class Layout(NamedTuple):
    """What a file says of one of its arrays; `None` where that cannot be read."""

    shape: tuple[int, ...] | None
    dtype: np.dtype | None


class Choice(NamedTuple):
    """What the arrays of a file are for."""

    inputs: dict[str, list[str]]
    """Of each split, the arrays that could be its inputs."""
    labels: dict[str, list[str]]
    """The same for its labels; both have the same splits."""
    class_names: str | None
    """The array of class names."""
    image_shape: str | None
    """The array with the shape of a picture."""
    unused: tuple[str, ...]
    """All other arrays."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are there: ("all",), or some of the other three."""
        return tuple(self.inputs)


def choose(layouts: Mapping[str, Layout], reading: Reading, path: Path) -> Choice:
    """What each array of a file is for, by its name.

    Either half of a split counts, so that one without the other is an error and not nothing.

    Args:
      layouts: of the arrays, by name.
      reading: `inputs_key` and `labels_key` are looked at.
      path: the file, for a sentence.

    Raises:
      DataError: an array that was asked for is not there.

    >>> names = ("X_train", "y_train", "X_test", "y_test", "weights")
    >>> choice = choose(dict.fromkeys(names, Layout(None, None)), Reading(), Path("a.npz"))
    >>> choice.splits, choice.inputs["test"], choice.unused
    (('train', 'test'), ['X_test'], ('weights',))
    """
    keyed = _numbered(layouts) if not (reading.inputs_key or reading.labels_key) else {}
    found = {}
    for role, key, words in (
        ("inputs", reading.inputs_key, INPUTS),
        ("labels", reading.labels_key, LABELS),
    ):
        found[role] = keyed.get(role) or _by_split(layouts, role, key, words, path)
    names_key = next((name for name in CLASS_NAMES if name in layouts), None)
    special = {names_key, IMAGE_SHAPE} - {None}
    for candidates in (*found["inputs"].values(), *found["labels"].values()):
        candidates[:] = [name for name in candidates if name not in special]
    held_out = [s for s in ("validation", "test") if any(s in by for by in found.values())]
    train = [*_train(found["inputs"]), *_train(found["labels"])]
    says_train = any("train" in by for by in found.values())
    first = ("train" if held_out or says_train else "all",) if train or not held_out else ()
    if reading.inputs_key and found["inputs"].keys() <= {"validation", "test"}:
        first = ()
        held_out = list(found["inputs"])
    splits = (*first, *held_out)
    inputs, labels = (
        {split: _train(by) if split in ("train", "all") else by.get(split, []) for split in splits}
        for by in (found["inputs"], found["labels"])
    )
    used = {name for by in (inputs, labels) for names in by.values() for name in names} | special
    unused = tuple(name for name in layouts if name not in used)
    shape_key = IMAGE_SHAPE if IMAGE_SHAPE in layouts else None
    return Choice(inputs, labels, names_key, shape_key, unused)


def resolve(
    choice: Choice, role: str, split: str, layouts: Mapping[str, Layout], path: Path
) -> str:
    """The one array that is the `role` ("inputs" or "labels") of a split.

    Raises:
      DataError: there is none, or more than one could be meant.
    """
    candidates = getattr(choice, role)[split]
    if len(candidates) > 1 and role == "inputs":  # a list of names, say, is no input
        many = [name for name in candidates if len(layouts[name].shape or ()) > 1]
        candidates = many or candidates
    if len(candidates) == 1:
        return candidates[0]
    of = "" if split == "all" else f" of the {split} split"
    option = f"`{role}_key`"
    if candidates:
        raise DataError(
            f"{path}: {_some(candidates)} could all be the {role}{of}. Say which with {option}."
        )
    needs = {"all": role, "train": f"{role}` or `{role}_train"}.get(split, f"{role}_{split}")
    raise DataError(
        f"{path}: there is no array for the {role}{of}, as `{needs}`, got {_some(layouts)}. Save "
        f"it under that name, or say which it is with {option}."
    )


def _by_split(
    layouts: Mapping[str, Layout], role: str, key: str | None, words: Container[str], path: Path
) -> dict[str, list[str]]:
    """The candidates of each split; "all" are those whose names say nothing of splits."""
    found: dict[str, list[str]] = {}
    wanted = None if key is None else _parse(key)
    for name in layouts:
        split, word = _parse(name)
        if (len(word) == 1 and word[0] in words) if wanted is None else word == wanted[1]:
            found.setdefault(split, []).append(name)
    if key is None or wanted is None:
        return found
    if key in layouts:
        found[wanted[0]] = [key]
    if wanted[0] in ("validation", "test"):
        found = {split: names for split, names in found.items() if split == wanted[0]}
    if not found:
        raise DataError(
            f"{path}: there is no array {key!r}, got {_some(layouts)}. Name one of these with "
            f"`{role}_key`."
        )
    return found


def _parse(name: str) -> tuple[str, tuple[str, ...]]:
    """The split that a name says, else "all", and its other words."""
    tokens = [token for token in re.split(r"[\W_]+", name.lower()) if token]
    splits = {SPLIT_OF[token] for token in tokens if token in SPLIT_OF}
    if len(splits) != 1:
        return "all", tuple(tokens)
    words = [token for token in tokens if token not in SPLIT_OF and token not in _FILLERS]
    return splits.pop(), tuple(words)


def _train(by: dict[str, list[str]]) -> list[str]:
    return by.get("train") or by.get("all", [])


def _numbered(layouts: Mapping[str, Layout]) -> dict[str, dict[str, list[str]]]:
    """`arr_0` and `arr_1`, as `numpy.savez` calls arrays without a name, told by their shapes."""
    if layouts.keys() == {"arr_0"}:
        return {"inputs": {"all": ["arr_0"]}}
    if layouts.keys() != {"arr_0", "arr_1"}:
        return {}
    for inputs, labels in (("arr_0", "arr_1"), ("arr_1", "arr_0")):
        shape, other = layouts[inputs].shape or (), layouts[labels].shape or ()
        if len(shape) > 1 and shape[1] > 1 and other in ((shape[0],), (shape[0], 1)):
            return {"inputs": {"all": [inputs]}, "labels": {"all": [labels]}}
    return {}


def _some(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN]) or "nothing"
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
