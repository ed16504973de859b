"""What the files of a folder were when they were written: sizes and SHA-256, in `manifest.json`."""

__all__ = ["NAME", "problems", "write_durably", "write_manifest"]

import hashlib
import json
import os
from io import BufferedReader
from pathlib import Path

NAME = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Push every file of `folder` to the disk, then write its manifest, atomically."""
    files = {}
    for path in _files(folder):
        with path.open("rb") as file:
            size, digest = os.fstat(file.fileno()).st_size, _sha256(file)
            os.fsync(file.fileno())
        files[path.relative_to(folder).as_posix()] = {"size": size, "sha256": digest}
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        sync_folder(path)
    write_durably(folder / NAME, _text(files))


def problems(folder: Path) -> list[str]:
    """What is broken in a folder with a manifest, one clause a file; empty if all is whole.

    Reads every file. A file that is missing, shorter or longer, altered, or that the manifest does
    not know is named, and so is a manifest that is missing or is not what was written.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "numbers").write_text("1 2 3", encoding="utf-8")
    >>> write_manifest(folder)
    >>> problems(folder)
    []
    >>> _ = (folder / "numbers").write_text("1 2 4", encoding="utf-8")
    >>> len(problems(folder))
    1
    """
    path = folder / NAME
    if not folder.is_dir():
        return ["it is a file, and no folder that a save wrote"]
    try:
        text = path.read_text(encoding="utf-8")
        files = json.loads(text)["files"]
        sound = text == _text(files)
    except FileNotFoundError:
        return [f"`{NAME}` is missing: the save never ended"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"`{NAME}` is broken ({' '.join(str(error).split())})"]
    if not sound:
        return [f"`{NAME}` is not as it was written (bit rot)"]
    found = []
    present = {path.relative_to(folder).as_posix() for path in _files(folder)}
    for name, wanted in files.items():
        found += _complaint(folder, name, wanted) if name in present else [f"`{name}` is missing"]
    return found + [f"`{name}` does not belong there" for name in sorted(present - files.keys())]


def _complaint(folder: Path, name: str, wanted: dict) -> list[str]:
    try:
        with (folder / name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != wanted["size"]:
                kind = "truncated" if size < wanted["size"] else "too long"
                return [f"`{name}` is {kind} ({size} of {wanted['size']} bytes)"]
            if _sha256(file) != wanted["sha256"]:
                return [f"`{name}` does not hold the bytes that were written (bit rot)"]
    except OSError as error:
        return [f"`{name}` cannot be read ({error.strerror})"]
    return []


def write_durably(path: Path, content: str | bytes) -> None:
    """Write a file that is there in full or not at all, whatever happens to the machine.

    A text is written in UTF-8.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "config.json"
    >>> write_durably(path, "{}")
    >>> path.read_text(encoding="utf-8")
    '{}'
    """
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Push a folder's list of names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _text(files: dict) -> str:
    """The one text of a manifest: with its own digest, and compared byte for byte when read."""
    listed = json.dumps(files, indent=1, sort_keys=True)
    digest = hashlib.sha256(listed.encode()).hexdigest()
    return json.dumps({"files": files, "sha256": digest}, indent=1, sort_keys=True) + "\n"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / NAME)


def _sha256(file: BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()
