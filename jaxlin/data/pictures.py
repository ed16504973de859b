"""Pictures in folders: `train/<class>/*.png` and the like, `test/` and `val/` if there are any.

    pets/cat/1.png, pets/dog/more/2.jpg      classes; what lies deeper counts for its class
    pets/train/cat/..., pets/test/cat/..., pets/val/cat/...   splits, each with its classes
    pets/labels.csv, pets/images/1.png       a table of names and labels: `picture_tables`

The validation split may be called `val`, `valid` or `validation`, the others also `training` and
`testing`, all in any case. Class names are the names of the subfolders, in Unicode's composed form
(NFC) and sorted, so that they are the same on every system. A prediction needs no classes: it
reads every picture of a split, however deep. Which files are pictures, which links are followed
and what is passed over stands in `picture_listing`, how a file becomes pixels in `picture_files`,
and how all become one size and color in `picture_rows`. A picture that cannot be read is an error.
"""

__all__ = ["ENDINGS", "READER", "read_picture", "split_folders"]

import os
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.dataset import Dataset, Unlabeled
from jaxlin.data.picture_files import ENDINGS, read_picture
from jaxlin.data.picture_listing import Passed, found_in, list_pictures, note_passed, told
from jaxlin.data.picture_rows import read_rows
from jaxlin.data.source import Reader, Reading
from jaxlin.data.validate import build, without_labels

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""What the folders of the splits are called, and a table's splits."""


class SplitFolder(NamedTuple):
    """What lies in the folder of a split."""

    path: str
    classes: dict[str, list[str]]
    """The pictures of every class, by its name."""
    loose: list[str]
    """Pictures beside the class folders, or without any."""


def split_folders(root: str | Path) -> dict[str, str]:
    """The folder of each split below `root`; `root` itself as "all" where there is none.

    Raises:
      DataError: two folders are called one split.
    """
    found: dict[str, str] = {}
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        split = split_called(entry.name)
        if split is not None and entry.is_dir():
            if split in found:
                raise DataError(
                    f"{root}: both {os.path.basename(found[split])} and {entry.name} could be the "
                    f"{split} split. Keep one of them in the folder."
                )
            found[split] = entry.path
    there = {split: found[split] for split in SPLIT_NAMES if split in found}
    return there or {"all": str(root)}


def split_called(name: str) -> str | None:
    """The split that goes by a name, in any case; `None` if none does.

    >>> split_called("Valid"), split_called("cat")
    ('validation', None)
    """
    name = name.lower()
    return next((split for split, names in SPLIT_NAMES.items() if name in names), None)


def _splits(root: Path, reading: Reading) -> tuple[str, ...]:
    return ("all",) if root.is_file() else tuple(split_folders(root))


def _load(root: Path, split: str, reading: Reading) -> Dataset:
    """The pictures of one split, with its class folders as labels."""
    if root.is_file():
        raise DataError(
            f"{root}: is one picture, without a label. Give a folder train/<class>/*.png, or a "
            "table of names and labels (labels.csv)."
        )
    folders, passed = _survey(root)
    own = folders[split]
    _refuse_unlabeled(own)
    asked = reading.class_names
    names = tuple(folders.get("train", own).classes or own.classes if asked is None else asked)
    unknown = [name for name in own.classes if name not in names]
    if unknown:
        raise DataError(
            f"{own.path}: the subfolder {unknown[0]!r} is none of the {len(names)} classes "
            f"({', '.join(names[:10])}). Use pictures of the same classes."
        )
    for folder in folders.values():
        if folder.classes:
            for path in folder.loose:
                note_passed(passed, "pictures outside of the class folders", path)
    rows = read_rows({s: _labeled(f) for s, f in folders.items()}, split, reading, name=root.name)
    counts = [len(paths) for paths in own.classes.values()]
    return build(
        rows.inputs,
        np.repeat([names.index(name) for name in own.classes], counts),
        class_names=names,
        image_shape=rows.image_shape,
        name=root.name,
        file=own.path,
        training=reading.class_names is None,
        split=split,
        white=255,
        notes=rows.notes,
        passed_over=told(passed),
    )


def _inputs(root: Path, reading: Reading) -> list[Unlabeled]:
    """One picture, or all those of each split."""
    passed: Passed = {}
    if root.is_file():
        files = {"all": [str(root)]}
    else:
        folders, passed = _survey(root)
        files = {split: _every(folder) for split, folder in folders.items()}
        for split, paths in files.items():
            if not paths:
                raise _no_pictures(folders[split].path)
    found = []
    for split, paths in files.items():
        rows = read_rows(files, split, reading, name=root.name)
        found.append(
            without_labels(
                rows.inputs,
                rows.image_shape,
                *(root.name, str(root), split),
                names=list(paths),
                white=255,
                notes=rows.notes,
                passed_over=told(passed),
            )
        )
    return found


def _survey(root: Path) -> tuple[dict[str, SplitFolder], Passed]:
    """What lies in every split, and what is passed over."""
    passed: Passed = {}
    places = split_folders(root)
    if "all" not in places:
        beside = found_in(str(root), passed)
        for path in beside.folders + beside.linked:
            if path not in places.values():
                note_passed(passed, "folders beside the splits", path)
        for path in beside.pictures:
            note_passed(passed, "pictures outside of the splits", path)
    return {split: _split_folder(path, passed) for split, path in places.items()}, passed


def _split_folder(path: str, passed: Passed) -> SplitFolder:
    entries = found_in(path, passed, up=True)
    classes = {}
    for folder in entries.folders + entries.linked:
        name = _class_name(folder)
        if name in classes:
            raise DataError(
                f"{path}: two class folders have the same name in Unicode's composed form, "
                f"{name!r}. Rename one of them."
            )
        classes[name] = list_pictures(folder, passed)
    return SplitFolder(path, dict(sorted(classes.items())), entries.pictures)


def _class_name(folder: str) -> str:
    """The folder's name as text, whatever encoding the system takes for that of file names."""
    name = os.fsencode(os.path.basename(folder))
    try:
        return unicodedata.normalize("NFC", name.decode("utf-8"))
    except UnicodeDecodeError:
        raise DataError(
            f"{folder}: the name of the class folder {name!r} is not UTF-8 text. Rename it."
        ) from None


def _labeled(folder: SplitFolder) -> list[str]:
    return [path for paths in folder.classes.values() for path in paths]


def _every(folder: SplitFolder) -> list[str]:
    return sorted([*_labeled(folder), *folder.loose])


def _refuse_unlabeled(folder: SplitFolder) -> None:
    if not folder.classes:
        holds = f"holds {len(folder.loose):,} pictures, but " if folder.loose else ""
        raise DataError(
            f"{folder.path}: {holds}there are no class folders. Put the pictures into one "
            "subfolder for each class, train/<class>/*.png, or add a table of names and labels "
            "(labels.csv)."
        )
    for name, paths in folder.classes.items():
        if not paths:
            raise _no_pictures(os.path.join(folder.path, name))


def _no_pictures(path: str) -> DataError:
    return DataError(
        f"{path}: there are no pictures ({', '.join(ENDINGS)}). Add some, or remove it."
    )


READER = Reader(
    "pictures",
    frozenset({"image_size", "color", "background"}),
    _splits,
    _load,
    _inputs,
    (
        ("a folder train/<class>/*.png", "its subfolders are the classes; test/ and val/ if there"),
        ("a picture, or a folder of them", "for a prediction"),
    ),
)
