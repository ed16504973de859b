"""Features in files: opened in a moment, read as they are needed, with their labels.

    features.npy              with features.labels.npy, features_labels.npy or labels.npy beside it
    train_features.npy        with train_labels.npy beside it
    part.safetensors          with the tensors `features` and `labels`
    folder/features.npy       (or .safetensors) with folder/labels.npy
    folder/train-00000-of-00008.npy   with train-00000-of-00008.labels.npy, or train_labels.npy
    folder/train/..., folder/test/..., folder/val/...   each like a folder above
    folder/train.npy, folder/test.npy, folder/val.npy   (or train_features.npy, ...)

`classes.txt`, one name a line, may lie beside the files or above the folders of the parts. `val` is
also called `valid` or `validation`; where a folder has `val` but no `test`, as ImageNet has, `val`
is the test set. In a run of several processes each may have some of the files: see
`jaxlin.data.distributed_features`.
"""

__all__ = [
    "PARTS",
    "READER",
    "Features",
    "Stored",
    "find_parts",
    "join_labels",
    "labels_beside",
    "labels_of_series",
    "open_features",
    "range_of",
    "read_class_names",
    "read_labels",
    "split_names",
]

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlin.core import DataError
from jaxlin.data import arrays
from jaxlin.data.dataset import Dataset, Unlabeled, fingerprint
from jaxlin.data.pixels import PixelRange, pixel_range
from jaxlin.data.rows import RESIDENT_BYTES, FileRows, materialize
from jaxlin.data.shards import (
    ENDINGS,
    LABELS,
    find_names,
    find_series,
    open_shards,
    read_tensor,
    series_of,
)
from jaxlin.data.source import Reader, Reading
from jaxlin.data.validate import check_labels, refuse_one_class

PARTS = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
"""The parts of a set, and what files and folders call them."""
FEATURES = "features"


class Features(NamedTuple):
    """Features and labels of one part of a set; the features are still in their files.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/features.npy", np.ones((4, 3)))
    ...     np.save(f"{folder}/labels.npy", np.array([0, 1, 1, 0]))
    ...     found = open_features(folder)
    >>> found.inputs.shape, found.labels.tolist(), found.part
    ((4, 3), [0, 1, 1, 0], 'train')
    """

    inputs: FileRows
    """(N, D): a source of rows, see `jaxlin.data.rows`."""
    labels: np.ndarray | None
    """(N,) int32 in [0, K), in memory; `None` if there are none."""
    class_names: tuple[str, ...] | None
    """K names; `None` without labels."""
    part: str
    """"train", "validation" or "test"; "train" where files say nothing of parts."""


def open_features(
    path: str | Path,
    labels: str | Path | None = None,
    *,
    part: str | None = None,
    class_names: Sequence[str] | None = None,
    labeled: bool = True,
    resident_bytes: int = RESIDENT_BYTES,
) -> Features:
    """Open features of float16, bfloat16, float32, float64 or 8- or 16-bit integers.

    Args:
      path: a `.npy`, a `.safetensors`, or a folder; see `jaxlin.data.features`.
      labels: the file of the labels, where they lie elsewhere.
      part: "train", "validation" or "test"; by default "train", or the only one there is.
      class_names: the classes that the labels must keep to; found in the data by default.
      labeled: `False` looks for no labels.
      resident_bytes: solvers and training read features up to this size into memory at once, and
        larger ones block by block in every pass.

    Returns:
      `Features`. `inputs[rows]` reads the rows of a slice or of an array of numbers, and nothing
      else was read than headers and labels.

    Raises:
      DataError: a file is missing, there twice, damaged or does not fit the others; labels do not
        match. Later, from reads: a file changed, or a number is not finite.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> np.save(folder / "features.npy", np.arange(12.0, dtype=np.float16).reshape(4, 3))
    >>> np.save(folder / "labels.npy", np.array([0, 1, 1, 0]))
    >>> found = open_features(folder / "features.npy")
    >>> found.inputs.shape, str(found.inputs.dtype), found.inputs[[3, 0]].tolist()
    ((4, 3), 'float16', [[9.0, 10.0, 11.0], [0.0, 1.0, 2.0]])
    """
    path = Path(path).expanduser()
    parts = find_parts(path)
    if not parts:
        raise DataError(
            f"{path}: there are no features ({FEATURES}.npy, train-00000-of-00008.npy, train/..., "
            "or the same as .safetensors). Give the folder that holds them."
        )
    if part is None:
        part = "train" if "train" in parts else next(iter(parts))
    if part not in parts:
        raise DataError(
            f"{path}: has no part {part!r}, only {', '.join(map(repr, parts))}. Name one of them."
        )
    files = parts[part]
    inputs = open_shards(files, resident_bytes=resident_bytes)
    pieces = _labels(files, inputs, None if labels is None else Path(labels)) if labeled else None
    if pieces is None:
        return Features(inputs, None, None, part)
    if class_names is None:
        class_names = read_class_names(files[0].parent)
    if class_names is None and part != "train" and "train" in parts and labels is None:
        class_names = open_features(path).class_names  # the classes are the training set's
    found, names = join_labels(pieces, len(inputs), class_names)
    return Features(inputs, found, names, part)


def _load(path: Path, split: str, reading: Reading) -> Dataset:
    """A split of the features: in memory if they take at most `reading.memory` bytes.

    Larger ones stay in their files; `inputs` is then a `FileRows`.
    """
    part = "train" if split == "all" else split
    class_names, memory = reading.class_names, reading.memory
    found = open_features(
        path, reading.labels, part=part, class_names=class_names, resident_bytes=memory
    )
    if found.labels is None:
        where = find_parts(path)[part][0]
        raise DataError(
            f"{where}: there are no labels beside it ({where.stem}.labels.npy or labels.npy). "
            "Name their file with `labels`."
        )
    names = found.class_names or ()
    if part == "train" and class_names is None:
        refuse_one_class(found.labels, names, file=str(path))
    mark = fingerprint(found.inputs, found.labels)
    inputs = materialize(found.inputs, memory)
    return Dataset(
        inputs, found.labels, names, None, path.name, mark, split, pixels=range_of(inputs)
    )


def _inputs(path: Path, reading: Reading) -> list[Unlabeled]:
    found = []
    for split in _splits(path, reading):
        part = "train" if split == "all" else split
        inputs = materialize(open_features(path, part=part, labeled=False).inputs, reading.memory)
        place = path.name if split == "all" else f"{path.name}:{split}"
        names = [f"{place}[{row}]" for row in range(len(inputs))]
        found.append(Unlabeled(inputs, names, None, path.name, split, range_of(inputs)))
    return found


def _splits(path: Path, reading: Reading) -> tuple[str, ...]:
    return split_names(find_parts(path), _says_train(path))


def split_names(parts: Iterable[str], says_train: bool) -> tuple[str, ...]:
    """The splits of these parts; rows that nobody calls "train" and that stand alone are all."""
    return ("all",) if set(parts) == {"train"} and not says_train else tuple(parts)


def _says_train(path: Path) -> bool:
    """Whether the files themselves call the part "train"."""
    if path.is_dir():
        return bool(_part(path, PARTS["train"], True))
    words = path.stem.replace("-", "_").split("_")
    return words[0] == "train"


def range_of(inputs: Any) -> PixelRange:
    """That of features: their type; and the numbers where they are held and may be pixels."""
    dtype = np.dtype(inputs.dtype)
    if not isinstance(inputs, np.ndarray) or (dtype.itemsize == 2 and dtype.kind in "fV"):
        return PixelRange(dtype.name, None, None, None)
    return pixel_range(inputs)


def find_parts(path: Path, *, whole: bool = True) -> dict[str, list[Path]]:
    """The files of every part that a file or a folder has; empty for a folder without features.

    With `whole=False` files of a series may be missing.

    Raises:
      DataError: nothing is at `path`, a series is incomplete, or two things claim to be one part.
    """
    if path.is_file() and path.suffix in ENDINGS:
        return {"train": [path]}
    if not path.is_dir():
        if path.exists():
            raise DataError(
                f"{path}: features are read from a .npy, a .safetensors or a folder of them. Save "
                "the arrays of another file so."
            )
        raise DataError(f"{path}: no such .npy, .safetensors or folder. Check the path.")
    parts = {part: _part(path, names, whole) for part, names in PARTS.items()}
    if not parts["train"]:
        parts["train"] = _alone(path, whole)
    return {part: files for part, files in parts.items() if files}


def _part(folder: Path, names: Sequence[str], whole: bool) -> list[Path]:
    """The files of a part by any of its names, in a subfolder or as a series or a file."""
    claims = []
    for name in names:
        if (folder / name).is_dir():
            inside = _part(folder / name, [name], whole) or _alone(folder / name, whole)
            claims += [inside] if inside else []
        for stem in (name, f"{name}_{FEATURES}", f"{name}-{FEATURES}"):
            series = find_series(folder, stem, whole=whole)
            claims += [series] if series else []
            claims += [[p] for e in ENDINGS if (p := folder / f"{stem}{e}").is_file()]
    return _only(claims, folder)


def _alone(folder: Path, whole: bool) -> list[Path]:
    """The features of a folder that says nothing of parts: `features.*`, or the only series."""
    claims = [[p] for e in ENDINGS if (p := folder / f"{FEATURES}{e}").is_file()]
    known = {name for names in PARTS.values() for name in names}
    known |= {f"{name}{mark}{FEATURES}" for name in known for mark in "-_"}
    others = (name for name in find_names(folder) if name not in known)
    claims += [find_series(folder, name, whole=whole) for name in others]
    return _only(claims, folder)


def _only(claims: list[list[Path]], folder: Path) -> list[Path]:
    if len(claims) > 1:
        raise DataError(
            f"{folder}: both {claims[0][0].name} and {claims[1][0].name} could be the features. "
            "Name one of them, or keep one in the folder."
        )
    return claims[0] if claims else []


class Stored(NamedTuple):
    """Labels as they are stored, where they came from, and where they begin in the set."""

    values: np.ndarray
    file: Path


def _labels(files: list[Path], inputs: FileRows, given: Path | None) -> list[Stored] | None:
    """The labels of all files, each checked against the number of rows; `None` without any."""
    if given is not None:
        return [read_labels(given, len(inputs), f"inputs of {files[0]}")]
    if len(files) == 1 and (own := labels_beside(files[0], numbered=False)) is not None:
        return [read_labels(own, len(inputs), f"inputs of {files[0].name}")]
    if len(files) == 1 and series_of(files[0].name) is None:
        return None
    beside = {file: labels_beside(file, numbered=True) for file in files}
    without = [file for file, own in beside.items() if own is None]
    if not without:
        return [
            read_labels(own, shard.rows, f"inputs of {shard.path.name}")
            for shard in inputs.shards
            if (own := beside[shard.path]) is not None
        ]
    if (file := labels_of_series(files[0])) is not None:
        what = f"inputs of the {len(files)} files {series_of(files[0].name)}-*"
        return [read_labels(file, len(inputs), what)]
    if len(without) < len(files):
        raise DataError(
            f"{without[0]}: has no labels ({without[0].stem}.labels.npy), and other files of the "
            "series have. Add them."
        )
    return None


def labels_of_series(file: Path) -> Path | None:
    """The one file of labels of all of a series, beside this file of it."""
    name = series_of(file.name)
    names = (f"{name}_labels.npy", f"{name}.labels.npy", "labels.npy")
    return next((found for n in names if (found := file.with_name(n)).is_file()), None)


def labels_beside(file: Path, *, numbered: bool) -> Path | None:
    """Where the labels of one file of features lie: in itself, or beside it."""
    if file.suffix == ".safetensors" and read_tensor(file, LABELS) is not None:
        return file
    if not numbered:
        try:
            return arrays.find_labels(file)
        except DataError:
            return None
    own = file.with_name(f"{file.stem}.labels.npy")
    return own if own.is_file() else None


def read_labels(file: Path, rows: int, what: str) -> Stored:
    if file.suffix == ".safetensors":
        values = read_tensor(file, LABELS)
        if values is None:
            raise DataError(f"{file}: has no tensor `{LABELS}`. Save the classes under that name.")
    else:
        values = arrays.read_npy(file)
    if values.ndim != 1 and values.shape[1:] != (1,):
        raise DataError(
            f"{file}: the labels must be one class an example, shape (N,), got {values.shape}. "
            "Turn one-hot labels into classes with `labels.argmax(-1)`."
        )
    if len(values) != rows:
        raise DataError(
            f"{file}: there are {len(values)} labels for the {rows} {what}. Give every example "
            "exactly one label, in the same order."
        )
    return Stored(values.reshape(-1), file)


def join_labels(
    pieces: list[Stored], rows: int, class_names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """All labels as (N,) int32 and the class names; an error names the file and the row in it."""
    bound = rows if class_names is None else len(class_names)
    for values, file in pieces:
        if values.dtype.kind not in "iu":
            continue
        wrong = (values < 0) | (values >= bound)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"{file}: the labels must be integers in [0, {bound}), got {values[row]} at row "
                f"{row}. Number the classes from 0, or use data with the same classes."
            )
    together = np.concatenate([piece.values for piece in pieces])
    return check_labels(together, file=str(pieces[0].file), rows=rows, class_names=class_names)


def read_class_names(folder: Path) -> tuple[str, ...] | None:
    """The lines of `classes.txt` beside the files or in the folder above."""
    inside = any(folder.name in names for names in PARTS.values())
    for file in [where / "classes.txt" for where in (folder, folder.parent)[: 1 + inside]]:
        if file.is_file():
            try:
                names = tuple(line.strip() for line in file.read_text("utf-8-sig").splitlines())
            except UnicodeDecodeError:
                raise DataError(f"{file}: is not UTF-8 text. Save it again.") from None
            names = tuple(name for name in names if name)
            if len(set(names)) != len(names) or len(names) < 2:
                raise DataError(
                    f"{file}: must have one class name a line, at least two and all different, "
                    f"got {len(names)} lines of {len(set(names))} names. Correct it."
                )
            return names
    return None


READER = Reader(
    "features in files",
    frozenset({"labels"}),
    _splits,
    _load,
    _inputs,
    (
        ("NAME.npy", "rows (N, D), read as they are needed; labels in NAME_labels.npy, labels.npy"),
        ("NAME.safetensors", "the tensors features and labels"),
        ("FOLDER/train-*-of-*.npy", "shards of splits; FOLDER/train/features.npy; classes.txt"),
    ),
)
