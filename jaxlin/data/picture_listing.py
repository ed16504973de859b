"""Which files of a folder are pictures, and what is passed over.

Links are followed, wherever they lead: to files, and to folders, whose pictures count as pictures
of the folder with the link (a snapshot of the Hugging Face hub is nothing but links). Nothing is
written. A link that leads nowhere or in a circle, also to a folder that holds it, is passed over,
and below one folder none is read twice. What is hidden (a name that begins with a dot, and
`__MACOSX`) is passed over without a word; everything else that is no picture is counted.
"""

__all__ = ["Passed", "found_in", "list_pictures", "note_passed", "readable", "told", "unnote"]

import errno
import os
import stat
from typing import NamedTuple

from jaxlin.core import DataError
from jaxlin.data.dataset import PassedOver
from jaxlin.data.picture_files import ENDINGS

MOST_KINDS = 5
"""More kinds of files are told as "other files"."""

Passed = dict[str, PassedOver]
"""What was passed over, by its kind."""


class Entries(NamedTuple):
    """What is directly in a folder: paths, sorted."""

    folders: list[str]
    linked: list[str]
    """Links to folders."""
    pictures: list[str]


def list_pictures(folder: str, passed: Passed) -> list[str]:
    """The pictures of a folder and of all below it, sorted by their paths.

    Args:
      folder: its path.
      passed: what is passed over is added to it.

    Raises:
      DataError: a folder that may not be read.
    """
    found: list[str] = []
    folders, linked = [str(folder)], list[str]()
    read, holders = set(), _holders(folder, itself=True)
    while folders or linked:
        through_link = not folders
        here = linked.pop(0) if through_link else folders.pop()
        mark = _identity(here)
        if through_link and mark in holders | _holders(os.path.dirname(here), itself=True):
            note_passed(passed, "links to a folder that holds them", here)
            continue
        if mark in read:
            note_passed(passed, "folders that a link had led to before", here)
            continue
        read.add(mark)
        if through_link:
            holders |= _holders(here, itself=True)
        entries = found_in(here, passed)
        folders += entries.folders
        linked = sorted(linked + entries.linked)
        found += entries.pictures
    return sorted(found)


def found_in(folder: str, passed: Passed, *, up: bool = False) -> Entries:
    """The folders, links to folders and pictures directly in a folder.

    Args:
      folder: its path.
      passed: what is passed over is added to it.
      up: also pass over links to a folder that holds them.
    """
    entries = Entries([], [], [])
    try:
        with os.scandir(folder) as scan:
            inside = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}). Mend that.") from None
    for entry in inside:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.is_dir(follow_symlinks=False):
            entries.folders.append(entry.path)
        elif entry.is_file(follow_symlinks=False) or _leads_to_file(entry, entries, passed):
            ending = os.path.splitext(entry.name)[1].lower()
            if ending in ENDINGS:
                entries.pictures.append(entry.path)
            else:
                kind = f"`{ending}` files" if ending else "files without an ending"
                note_passed(passed, kind, entry.path)
    if up and entries.linked:
        holders = _holders(folder, itself=True)
        for path in [path for path in entries.linked if _identity(path) in holders]:
            entries.linked.remove(path)
            note_passed(passed, "links to a folder that holds them", path)
    return entries


def _leads_to_file(entry: os.DirEntry[str], entries: Entries, passed: Passed) -> bool:
    """Whether a link leads to a file; one to a folder is kept, any other is passed over."""
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        circle = error.errno == errno.ELOOP
        note_passed(passed, "links in a circle" if circle else "dead links", entry.path)
        return False
    if stat.S_ISDIR(mode):
        entries.linked.append(entry.path)
    elif not stat.S_ISREG(mode):
        note_passed(passed, "files that are no regular files", entry.path)
    return stat.S_ISREG(mode)


def note_passed(passed: Passed, what: str, first: str, count: int = 1) -> None:
    """Count a file, or `count` of them, as passed over."""
    before = passed.get(what)
    if before is None:
        passed[what] = PassedOver(count, what, readable(first))
    else:
        passed[what] = before._replace(count=before.count + count)


def unnote(passed: Passed, what: str) -> None:
    """Count one file less as passed over: it was read after all."""
    before = passed.pop(what, None)
    if before is not None and before.count > 1:
        passed[what] = before._replace(count=before.count - 1)


def told(passed: Passed) -> tuple[PassedOver, ...]:
    """The kinds that are most frequent, and the others as one.

    >>> passed = {}
    >>> for name in ("a.txt", "b.txt", "c.md"):
    ...     note_passed(passed, f"`{name[1:]}` files", name)
    >>> told(passed)[0]
    PassedOver(count=2, what='`.txt` files', first='a.txt')
    """
    kinds = sorted(passed.values(), key=lambda kind: (-kind.count, kind.what))
    if len(kinds) > MOST_KINDS:
        rest = kinds[MOST_KINDS - 1 :]
        other = PassedOver(sum(kind.count for kind in rest), "other files", rest[0].first)
        kinds = [*kinds[: MOST_KINDS - 1], other]
    return tuple(kinds)


def readable(path: str) -> str:
    """A path in text that any file of UTF-8 can hold, whatever its bytes are.

    >>> readable("caf\\udce9.png")
    'caf\\\\xe9.png'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _identity(folder: str) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def _holders(folder: str, *, itself: bool = False) -> set[tuple[int, int]]:
    """The folders in which a folder really lies, up to the root."""
    path = os.path.realpath(folder)
    found = {_identity(path)} if itself else set()
    while (above := os.path.dirname(path)) != path:
        path = above
        found.add(_identity(path))
    return found
