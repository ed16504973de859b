"""From pictures to features on disk: whole shards, so that a killed extraction goes on.

    FOLDER/extraction.json                   what the features are, and of which data
    FOLDER/classes.txt                       one name a line
    FOLDER/train_labels.npy                  and test_labels.npy
    FOLDER/train-00000-of-00025.npy ...      float16, the same number of rows in each but the last

`jaxlin features info FOLDER` describes them, `jaxlin sweep --data FOLDER` probes them. A shard is
there in full or not at all: whatever ends the process, the next start makes the missing ones.
Features of another extractor, side, or set of pictures under the same name are refused.
"""

import io
import json
import shutil
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlin.checkpoint import check_same, lock, write_durably
from jaxlin.core import DataError
from jaxlin.data import Dataset, as_images
from jaxlin.data.arrays import read_layout

RECORD = "extraction.json"
ROWS = 2000
"""Pictures a shard: minutes of work at most are lost when a process is killed."""
CLOCKS = {"seconds": time.perf_counter, "processor_seconds": time.process_time}
"""What an extraction took, over all its starts, as the record says."""


class Extractor(NamedTuple):
    """A function from pictures to features, and what tells its features from others."""

    config: dict
    """What decides the numbers: name, side, weights, layers, preprocessing."""
    describe: Callable[[np.ndarray], np.ndarray]
    """(N, H, W) or (N, H, W, 3) uint8 to (N, F), in batches as it likes."""
    layers: dict[str, tuple[int, int]]
    """Name: columns [start, stop) that a layer takes; all of them together are all columns."""
    packages: tuple[str, ...] = ("numpy",)
    """Whose versions are recorded."""

    @property
    def width(self) -> int:
        """F."""
        return max(stop for _, stop in self.layers.values())


def extract(
    parts: dict[str, Dataset],
    folder: Path,
    extractor: Extractor,
    *,
    rows: int = ROWS,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> dict[str, float]:
    """Write the features of every part that are not there yet.

    Args:
      parts: "train" and "test", say: pictures, the same shape in all.
      folder: made if it is not there.
      extractor: what makes them.
      rows: pictures a shard.
      say: gets a line of progress after every shard.

    Returns:
      Its seconds, and those of the processor, earlier starts included.

    Raises:
      DataError: the folder holds other features, or a shard that is broken; the data are no
        pictures; a feature is not finite in float16; the disk has too little space.
      OSError: the disk filled up half-way. What is there is whole; start again.
    """
    identity = {
        "config": extractor.config | {"rows_a_shard": rows, "dtype": "float16"},
        "data": {name: data.fingerprint for name, data in parts.items()},
        "versions": {name: _version(name) for name in extractor.packages},
    }
    for data in parts.values():
        _refuse_rows(data)
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        record = _begun(folder, identity, say) or identity | dict.fromkeys(CLOCKS, 0.0)
        record["layers"] = {name: list(columns) for name, columns in extractor.layers.items()}
        shards = [
            (name, part, folder / f"{name}-{i:05d}-of-{-(-len(data.labels) // rows):05d}.npy")
            for name, data in parts.items()
            for i, part in enumerate(_ranges(len(data.labels), rows))
        ]
        missing = [shard for shard in shards if not _whole(shard, extractor.width)]
        _check_space(folder, sum(len(part) for _, part, _ in missing) * 2 * extractor.width)
        _write_words(folder, parts, record)
        done, total = 0, sum(len(part) for _, part, _ in missing)
        before, begun = record.copy(), {name: clock() for name, clock in CLOCKS.items()}
        for name, part, path in missing:
            write_whole(path, _features(parts[name], part, extractor, path))
            done += len(part)
            for clock, now in CLOCKS.items():
                record[clock] = before[clock] + now() - begun[clock]
            write_durably(folder / RECORD, _text(record))
            rate = done / (record["seconds"] - before["seconds"])
            left = (total - done) / rate / 60
            say(f"{path.name}: {done:,} of {total:,} pictures, {rate:,.0f} a second, "
                f"{left:.1f} min left")  # fmt: skip
    return {clock: record[clock] for clock in CLOCKS}


def layers_of(folder: Path) -> dict[str, tuple[int, int]]:
    """The layers of the features of a folder, and the columns of each."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return {name: tuple(columns) for name, columns in record["layers"].items()}


def write_whole(path: Path, array: np.ndarray) -> None:
    """Write an `.npy` that is there in full or not at all; what did not fit is given back.

    Raises:
      OSError: with the file's name, so that a full disk is told where it is.
    """
    content = io.BytesIO()  # NumPy's own writing to a file tells a full disk without its number
    np.save(content, array)
    try:
        write_durably(path, content.getvalue())
    except OSError as error:
        path.with_name(path.name + ".part").unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def _features(data: Dataset, rows: range, extractor: Extractor, path: Path) -> np.ndarray:
    """(len(rows), F) float16."""
    inputs = np.asarray(data.inputs[rows.start : rows.stop])
    with np.errstate(over="ignore"):
        features = np.asarray(extractor.describe(as_images(inputs, data.image_shape)))
        features = features.astype(np.float16)
    if not np.isfinite(features).all():
        row, column = np.argwhere(~np.isfinite(features))[0]
        raise DataError(
            f"{path}: feature {column} of picture {rows.start + row} is not finite in float16. "
            "Look at the picture, or scale the features down."
        )
    return features


def _begun(folder: Path, identity: dict, say) -> dict | None:
    """The record of an extraction that goes on."""
    path = folder / RECORD
    if not path.exists():
        strange = sorted(p.name for p in folder.iterdir() if p.suffix in (".npy", ".safetensors"))
        if strange:
            raise DataError(
                f"{folder}: holds {strange[0]} and no {RECORD} that says what it is. Choose "
                "another folder."
            )
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        saved = {part: record[part] for part in identity}
        record |= {clock: float(record.get(clock, 0)) for clock in CLOCKS}
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path}: is damaged. Remove {folder}, and start again.") from None
    check_same(saved, identity, where=path, warn=say)
    return record


def _whole(shard: tuple[str, range, Path], width: int) -> bool:
    """Whether a shard is there already; one that is broken, or of another shape, is refused."""
    _, rows, path = shard
    if not path.exists():
        return False
    shape, dtype, _, _ = read_layout(path)
    if shape != (len(rows), width) or dtype != np.float16:
        raise DataError(
            f"{path}: holds {shape} {dtype}, and {(len(rows), width)} float16 belong there. "
            "Remove it, and start again."
        )
    return True


def _write_words(folder: Path, parts: dict[str, Dataset], record: dict) -> None:
    names = next(iter(parts.values())).class_names
    write_durably(folder / "classes.txt", "\n".join(names) + "\n")
    for name, data in parts.items():
        write_whole(folder / f"{name}_labels.npy", np.asarray(data.labels, np.int32))
    write_durably(folder / RECORD, _text(record))


def _refuse_rows(data: Dataset) -> None:
    kind = np.dtype(data.inputs.dtype)
    if data.image_shape is None or kind != np.uint8:
        raise DataError(
            f"{data.name}: an extractor reads pictures of 8 bits, got rows of "
            f"{data.inputs.shape[1]} {kind}. Give a named set or a folder of picture files."
        )


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder}: its disk has {free / 1e6:,.1f} MB free, and the features need "
            f"{needed / 1e6:,.1f} MB. Free some space, or choose another --out."
        )


def _ranges(count: int, size: int) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _text(record: dict) -> str:
    return json.dumps(record, indent=1) + "\n"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
