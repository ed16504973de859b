"""A folder of features of which each process of a run has some files, on a disk of its own.

The set is all files of all processes, in the order of their numbers, and it is the very set that
one process with all the files would see: the same rows, labels, classes and fingerprint, whoever
has which file. A file may be on several hosts. Its rows are read by the processes that have it;
the others ask these for them (`jaxlin.distributed.peers`).

Labels lie beside each file, where the file does; or all in one file beside those of any process;
or in the file that `labels` names, on every host.
"""

__all__ = ["READER", "DistributedFolders", "DistributedRows", "File", "listing", "merge_listings"]

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from jaxlin.core import DataError
from jaxlin.data import features
from jaxlin.data.dataset import Dataset, fingerprint
from jaxlin.data.rows import RESIDENT_BYTES, FileRows, ReadRows, empty_rows
from jaxlin.data.shards import in_order, open_shards, series_of
from jaxlin.data.source import Reader, Reading
from jaxlin.data.validate import refuse_one_class
from jaxlin.distributed.peers import Peers

_READ_BYTES = 64 << 20


class File(NamedTuple):
    """A file of a set, and the processes that have it."""

    name: str
    """Its path in the folder."""
    holders: tuple[int, ...]


class DistributedFolders(NamedTuple):
    """What of a run's folders lies on the disks of several processes."""

    peers: Peers
    folders: dict[Path, dict[str, list[File]]]
    """For each such folder its parts, and the files of each."""


class DistributedRows(ReadRows):
    """Rows (N, D) in files of several processes, in the order of the files.

    Args:
      counts: rows of every file.
      owners: the process that reads it for this one, for every file.
      homes: a process that has it, the same on all processes, for every file.
      shifts: what makes a row's number in the set the one that its owner knows, for every file.
      width, dtype: of the rows.
      read: `(owner, rows, out)`: writes rows with their owner's numbers.
      resident_bytes: as in `jaxlin.data.rows.FileRows`.

    >>> def read(owner, rows, out):
    ...     out[:] = 10 * owner + rows[:, None]
    >>> DistributedRows([2, 3], [0, 1], [0, 1], [0, -2], 1, "f4", read)[[4, 1]].tolist()
    [[12.0], [1.0]]
    """

    def __init__(
        self,
        counts: Sequence[int],
        owners: Sequence[int],
        homes: Sequence[int],
        shifts: Sequence[int],
        width: int,
        dtype: DTypeLike,
        read: Callable[[int, np.ndarray, np.ndarray], None],
        *,
        resident_bytes: int = RESIDENT_BYTES,
    ):
        self._ends = np.cumsum(counts)
        self._owners, self._homes = np.asarray(owners), np.asarray(homes)
        self._shifts, self._read = np.asarray(shifts), read
        self.shape, self.dtype = (int(self._ends[-1]), int(width)), np.dtype(dtype)
        self.resident_bytes = resident_bytes

    def __repr__(self) -> str:
        return f"DistributedRows(shape={self.shape}, dtype={self.dtype}, {len(self._ends)} files)"

    def read_into(self, out: np.ndarray, segments: Iterable[range | np.ndarray]) -> None:
        """As `FileRows.read_into`."""
        step, begin, waiting = max(1, _READ_BYTES * len(self) // self.nbytes), 0, []
        for segment in segments:
            for start in range(0, len(segment), step):
                waiting.append(np.asarray(segment[start : start + step], np.int64))
                if sum(map(len, waiting)) >= step:
                    begin, waiting = self._read_some(np.concatenate(waiting), out, begin), []
        if waiting:
            self._read_some(np.concatenate(waiting), out, begin)

    def homes(self, rows: np.ndarray) -> np.ndarray:
        """A process that has each of these rows, the same on all processes."""
        return self._homes[np.searchsorted(self._ends, rows, side="right")]

    def _read_some(self, rows: np.ndarray, out: np.ndarray, begin: int) -> int:
        """Write rows to `out[begin:]`, and return where they end there."""
        end, files = begin + len(rows), np.searchsorted(self._ends, rows, side="right")
        owners, there = self._owners[files], rows + self._shifts[files]
        for owner in np.unique(owners).tolist():
            place = np.flatnonzero(owners == owner)
            if len(place) == len(rows):
                self._read(owner, there, out[begin:end])
                break
            block = empty_rows(len(place), self)
            self._read(owner, there[place], block)
            out[begin:end][place] = block
        return end


def listing(path: Path) -> dict[str, list[str]]:
    """The files of every part of a folder of features that are here; nothing for other paths."""
    if not path.is_dir():
        return {}
    parts = features.find_parts(path, whole=False)
    return {
        part: [file.relative_to(path).as_posix() for file in files] for part, files in parts.items()
    }


def merge_listings(path: Path, listings: Sequence[dict]) -> dict[str, list[File]] | None:
    """The parts of a folder from the `listing`s of all processes; `None` if all are the same.

    Raises:
      DataError: a file is on no process, or the files do not go together.

    >>> found = [{"train": ["a-0-of-2.npy"]}, {"train": ["a-0-of-2.npy", "a-1-of-2.npy"]}]
    >>> [(file.name, file.holders) for file in merge_listings(Path("."), found)["train"]]
    [('a-0-of-2.npy', (0, 1)), ('a-1-of-2.npy', (1,))]
    """
    if all(each == listings[0] for each in listings):
        return None
    parts = {}
    for part in features.PARTS:
        holders: dict[str, list[int]] = {}
        for number, each in enumerate(listings):
            for name in each.get(part, ()):
                holders.setdefault(name, []).append(number)
        if not holders:
            continue
        names = sorted(holders)
        stems = [(Path(name).parent, series_of(Path(name).name) or name) for name in names]
        other = next((n for n, stem in zip(names, stems, strict=True) if stem != stems[0]), None)
        if other is not None:
            raise DataError(
                f"{path}: both {names[0]} (of process {holders[names[0]][0]}) and {other} (of "
                f"process {holders[other][0]}) could be the features. Keep one series on all hosts."
            )
        if series_of(Path(names[0]).name) is not None:
            where = f"the folders {path} of all {len(listings)} processes together"
            ordered = in_order([path / name for name in names], where=where)
            names = [file.relative_to(path).as_posix() for file in ordered]
        parts[part] = [File(name, tuple(holders[name])) for name in names]
    return parts


def _load(path: Path, split: str, reading: Reading) -> Dataset:
    """As the reader of features, of a folder of `reading.distributed`, into `DistributedRows`.

    Raises:
      DataError: on every process alike: what a process finds in its files, or what those of two
        processes have against each other.
    """
    peers, parts = reading.distributed.peers, reading.distributed.folders[path]
    files, class_names = parts["train" if split == "all" else split], reading.class_names
    layouts, own = _opened(peers, path, files)
    counts = [layouts[file.holders[0]]["files"][file.name][0] for file in files]
    total = sum(counts)
    found = peers.gather_results(lambda: _read_beside(path, files, own, reading.labels, total))
    pieces = _agreed_labels(path, files, found)
    names = _agreed_names(path, found) if class_names is None else class_names
    values, names = features.join_labels(pieces, total, names)
    if split in ("train", "all") and class_names is None:
        refuse_one_class(values, names, file=str(path))
    inputs = _rows(peers, files, layouts, counts, own, reading.memory)
    first = peers.number == 0
    (mark, *_) = peers.gather_results(lambda: fingerprint(inputs, values) if first else None)
    pixels = features.range_of(inputs)
    return Dataset(inputs, values, names, None, path.name, mark, split, pixels=pixels)


def _splits(path: Path, reading: Reading) -> tuple[str, ...]:
    parts = reading.distributed.folders[path]
    return features.split_names(parts, any(f.name.startswith("train") for f in parts["train"]))


def _opened(peers: Peers, path: Path, files: list[File]) -> tuple[list[dict], FileRows | None]:
    """What every process has to say of its files, and this one's source, if it has any.

    Returns:
      Of every process the number under which it serves its rows, and for its files the rows, the
      width, the dtype, and a digest of those that others have too.
    """
    mine = [file for file in files if peers.number in file.holders]
    own: FileRows | None = None

    def described() -> dict:
        nonlocal own
        if not mine:
            return {"source": None, "files": {}}
        own = open_shards([path / file.name for file in mine])
        width, dtype, found = own.shape[1], own.dtype.name, {}
        for file, shard in zip(mine, own.shards, strict=True):
            rows, digest = FileRows([shard], width, own._stored), None
            if len(file.holders) > 1:
                digest = fingerprint(rows, np.zeros(0))
            found[file.name] = [len(rows), width, dtype, digest]
        # Served here, before anybody knows enough to ask for rows.
        return {"source": peers.serve(own), "files": found}

    layouts = peers.gather_results(described)
    first = layouts[files[0].holders[0]]["files"][files[0].name]
    other = f"{files[0].name} of process {files[0].holders[0]}"
    for file in files:
        one = layouts[file.holders[0]]["files"][file.name]
        who = f"{path / file.name}: process {file.holders[0]} has"
        for number in file.holders:
            if layouts[number]["files"][file.name] != one:
                raise DataError(
                    f"{path / file.name}: process {number} has another file under this name than "
                    f"process {file.holders[0]}. Keep one of the two."
                )
        if one[1] != first[1]:
            raise DataError(
                f"{who} {one[1]} features a row there, and {other} has {first[1]}. Give all files "
                "of a series the same width."
            )
        if one[2] != first[2]:
            raise DataError(
                f"{who} {one[2]} there, and {other} holds {first[2]}. Save all files of a series "
                "in one type."
            )
    return layouts, own


def _read_beside(
    path: Path, files: list[File], own: FileRows | None, given: Path | None, count: int
) -> dict:
    """The labels and class names that this process has: of its files, or in one file of all."""
    if given is not None:
        whole = features.read_labels(given, count, f"inputs of {path}")
        return {"whole": _listed(whole), "beside": {}, "classes": None}
    beside: dict[str, dict] = {}
    several = len(files) > 1
    for shard in () if own is None else own.shards:
        file = features.labels_beside(shard.path, numbered=several)
        if file is not None:
            name = shard.path.relative_to(path).as_posix()
            read = features.read_labels(file, shard.rows, f"inputs of {shard.path.name}")
            beside[name] = _listed(read)
    found, first = None, path / files[0].name
    if several and (file := features.labels_of_series(first)) is not None:
        what = f"inputs of the {len(files)} files {series_of(first.name)}-*"
        found = _listed(features.read_labels(file, count, what))
    classes = features.read_class_names(first.parent)
    return {"whole": found, "beside": beside, "classes": classes}


def _listed(found: features.Stored) -> dict:
    return {"values": found.values.tolist(), "file": str(found.file)}


def _stored(found: dict) -> features.Stored:
    return features.Stored(np.asarray(found["values"]), Path(found["file"]))


def _agreed_labels(path: Path, files: list[File], found: list[dict]) -> list[features.Stored]:
    """The labels of all files, from what `_read_beside` found on every process."""
    beside = {}
    for file in files:
        own = [
            (n, found[n]["beside"][file.name])
            for n in file.holders
            if file.name in found[n]["beside"]
        ]
        if own:
            beside[file.name] = _stored(_same(own, "labels"))
    if len(beside) == len(files):
        return [beside[file.name] for file in files]
    whole = [(number, each["whole"]) for number, each in enumerate(found) if each["whole"]]
    if whole:
        return [_stored(_same(whole, "labels"))]
    without = next(file for file in files if file.name not in beside)
    raise DataError(
        f"{path / without.name}: process {without.holders[0]} has no labels beside it "
        f"({Path(without.name).stem}.labels.npy). Add them, or name the file of all labels with "
        "`labels`."
    )


def _agreed_names(path: Path, found: list[dict]) -> tuple[str, ...] | None:
    named = [(number, each["classes"]) for number, each in enumerate(found) if each["classes"]]
    for number, each in named:
        if each != named[0][1]:
            raise DataError(
                f"{path}: classes.txt of process {number} and of process {named[0][0]} differ. "
                "Keep one of the two on all hosts."
            )
    return tuple(named[0][1]) if named else None


def _same(found: list[tuple[int, dict]], what: str) -> dict:
    """The first process's, which those of the others must equal."""
    first, one = found[0]
    for number, each in found[1:]:
        if each["values"] != one["values"]:
            raise DataError(
                f"{each['file']}: process {number} has other {what} there than process {first}. "
                "Keep one of the two."
            )
    return one


def _rows(
    peers: Peers,
    files: Sequence[File],
    layouts: list[dict],
    counts: Sequence[int],
    own: FileRows | None,
    memory: int,
) -> DistributedRows:
    """The rows of all files: this process reads its own, and asks others for the rest in turn."""
    owners, homes, shifts, start = [], [], [], 0
    for i, (file, count) in enumerate(zip(files, counts, strict=True)):
        homes.append(file.holders[i % len(file.holders)])
        owners.append(peers.number if peers.number in file.holders else homes[-1])
        names = [other.name for other in files if owners[-1] in other.holders]
        before = names[: names.index(file.name)]
        shifts.append(sum(layouts[owners[-1]]["files"][name][0] for name in before) - start)
        start += count

    def read(owner: int, rows: np.ndarray, out: np.ndarray) -> None:
        if owner == peers.number and own is not None:
            own.read_into(out, [rows])
        else:
            peers.fetch(owner, layouts[owner]["source"], rows, out)

    _, width, dtype, _ = layouts[files[0].holders[0]]["files"][files[0].name]
    return DistributedRows(counts, owners, homes, shifts, width, dtype, read, resident_bytes=memory)


READER = Reader(
    "features on the disks of several processes",
    frozenset({"labels"}),
    _splits,
    _load,
    lambda path, reading: [],  # nobody predicts in a run of several processes
)
