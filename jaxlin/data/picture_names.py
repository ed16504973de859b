"""Which picture of a folder a name in a table means."""

__all__ = ["Names", "find_picture", "index_names", "is_name", "looks_like_picture"]

import os
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from jaxlin.core import DataError
from jaxlin.data.picture_files import ENDINGS
from jaxlin.data.pictures import split_called


class Names(NamedTuple):
    """The pictures of a folder by the names that a table can have for them."""

    folder: str
    whole: dict[str, list[str]]
    """By their paths below the folder: one each."""
    stems: dict[str, list[str]]
    """The same without the ending of the file."""
    ends: dict[str, list[str]]
    """By the ends of these paths, with the ending of the file and without."""


def index_names(folder: str, pictures: Sequence[str]) -> Names:
    """All names of the pictures below a folder.

    >>> names = index_names("pets", ["pets/images/cat/1.png"])
    >>> [find_picture(names, name, "all") for name in ("cat/1.png", "1", "2")]
    ['pets/images/cat/1.png', 'pets/images/cat/1.png', None]
    """
    names, above = Names(folder, {}, {}, {}), len(os.path.join(folder, ""))
    for path in pictures:
        relative = _normal(path[above:].replace(os.sep, "/"))
        names.whole[relative] = [path]
        names.stems.setdefault(os.path.splitext(relative)[0], []).append(path)
        parts = relative.split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            for end in (name, os.path.splitext(name)[0]):
                names.ends.setdefault(end, []).append(path)
    return names


def find_picture(names: Names, name: str, split: str, place: str | None = None) -> str | None:
    """The path of the picture that a name means.

    The path below the folder comes first, with the ending of the file or without; then the end of
    such a path. Where several fit, the one in a folder called like the split is meant.

    Args:
      names: of the folder.
      name: as the table has it.
      split: for which it has it.
      place: the table and the row. With it a name of no picture, of several, or one that leads out
        of the folder raises a `DataError`; without it the result is then `None`.
    """
    given = _asked(name)
    found = names.whole.get(given) or names.stems.get(given) or names.ends.get(given, [])
    if len(found) > 1:
        found = [path for path in found if _in_split(path, names.folder, split)] or found
    if len(found) > 1:
        why = f"{name!r} could be {found[0]} or {found[1]}. Write it with folder and ending."
    elif found:
        return found[0]
    elif _leads_out(given):
        why = f"{name!r} leads out of {names.folder}. Name a picture in it."
    elif given and os.path.isfile(os.path.join(names.folder, given)):
        why = f"{name!r} is no picture of a kind that is read. Remove the row."
    else:
        why = f"there is no picture {name!r} in {names.folder}. Add it, or remove the row."
    if place is not None:
        raise DataError(f"{place}: {why}")
    return None


def is_name(names: Names, cell: str) -> bool:
    """Whether a cell is the name of a picture, or of several."""
    return _asked(cell) in names.ends


def looks_like_picture(cell: str) -> bool:
    """Whether a cell ends as the name of a picture does."""
    return cell.lower().endswith(ENDINGS)


def _in_split(path: str, folder: str, split: str) -> bool:
    inside = path[len(os.path.join(folder, "")) :].split(os.sep)[:-1]
    return any(split_called(part) == split for part in inside)


def _leads_out(name: str) -> bool:
    """Of the folder, on any system: `C:` and backslashes too."""
    parts = name.replace("\\", "/").split("/")
    return name[:1] in ("/", "\\", "~") or name[1:2] == ":" or ".." in parts


def _asked(name: str) -> str:
    """A name as the index has it."""
    given = _normal(name)
    if "/" not in given:
        given = given.replace("\\", "/")
    while given.startswith("./"):
        given = given[2:]
    return given


def _normal(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)
