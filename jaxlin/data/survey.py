"""What features in files hold: from their headers and labels, or from every number."""

__all__ = ["survey"]

from pathlib import Path

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.dataset import fingerprint
from jaxlin.data.features import Features, find_parts, open_features
from jaxlin.data.rows import FileRows, extremes
from jaxlin.prefetch import prefetch

_BLOCK_BYTES = 32 << 20
_MOST_PROBLEMS = 10


def survey(path: str | Path, labels: str | Path | None = None, *, check: bool = False) -> dict:
    """Describe every part of a set of features.

    Args:
      path: as for `open_features`.
      labels: the file of the labels of the (then only) part.
      check: read every number.

    Returns:
      `path` and `parts`: for each part `rows`, `width`, `dtype`, `bytes` (of the files), `shards`
      (`file`, `rows`, `bytes`), `class_counts` (or `None`), `fingerprint`; with `check` also
      `range` (least and largest number; `None` if some are not finite) and `problems`, sentences
      that name file, row and column of what is not finite, the first of each file.

      The fingerprint is SHA-256 over shape, dtype and bytes of features and labels, as that of a
      run; of features above 256 MiB it takes 256 evenly spaced blocks of 64 KiB.
    """
    path = Path(path).expanduser()
    parts: list[str | None] = [*find_parts(path)] or [None]
    if labels is not None:
        parts = parts[:1]
    found = {}
    for part in parts:
        features = open_features(path, labels, part=part)
        found[features.part] = _described(features) | (_checked(features) if check else {})
        mark = fingerprint_of(features) if not found[features.part].get("problems") else None
        found[features.part]["fingerprint"] = mark
    widths = {name: part["width"] for name, part in found.items()}
    if len(set(widths.values())) > 1:
        told = ", ".join(f"{name} {width:,}" for name, width in widths.items())
        raise DataError(
            f"{path}: its parts have different numbers of features a row ({told}). Save them alike."
        )
    return {"path": str(path), "parts": found}


def fingerprint_of(features: Features) -> str:
    """The fingerprint that a run on these features records; without labels that of none."""
    none = np.zeros(0, np.int32)
    return fingerprint(features.inputs, none if features.labels is None else features.labels)


def _described(features: Features) -> dict:
    inputs, counts = features.inputs, None
    if features.labels is not None:
        names = features.class_names or ()
        numbers = np.bincount(features.labels, minlength=len(names))
        counts = dict(zip(names, numbers.tolist(), strict=True))
    return {
        "rows": inputs.shape[0],
        "width": inputs.shape[1],
        "dtype": str(inputs.dtype),
        "bytes": sum(shard.size for shard in inputs.shards),
        "shards": [
            {"file": shard.path.name, "rows": shard.rows, "bytes": shard.size}
            for shard in inputs.shards
        ],
        "class_counts": counts,
    }


def _checked(features: Features) -> dict:
    """Least and largest number, and the first of each file that is not finite."""
    low, high, problems = np.inf, -np.inf, []
    for shard in features.inputs.shards:
        rows = FileRows([shard], features.inputs.shape[1], features.inputs._stored)
        size = max(1, _BLOCK_BYTES // max(1, rows.nbytes // len(rows)))
        try:
            pieces = (slice(start, start + size) for start in range(0, len(rows), size))
            for block in prefetch(rows.__getitem__, pieces):
                ends = extremes(block)
                low, high = min(low, ends[0]), max(high, ends[1])
        except DataError as error:
            problems.append(str(error))
            if len(problems) == _MOST_PROBLEMS:
                break
    return {"range": None if problems else [low, high], "problems": problems}
