"""What was read, in words for people and in counts for machines."""

__all__ = ["reading_counts", "reading_lines", "splits_line"]

from collections.abc import Iterable, Sequence

from jaxlin.data.dataset import Dataset, Unlabeled


def splits_line(parts: dict[str, Dataset | None]) -> str:
    """Which rows are train, validation and test: one line.

    Args:
      parts: what they are used for ("train", "validation", "test"), and the rows.

    >>> from jaxlin import data
    >>> splits_line(data.load_splits("digits")._asdict())
    'digits, 8x8 uint8 pictures of 10 classes: train 1,442, validation none, test 355'
    """
    train = parts["train"]
    shape = "x".join(map(str, train.image_shape or (train.inputs.shape[1],)))
    what = "pictures" if train.image_shape is not None else "features"
    type_ = str(train.inputs.dtype)
    told = ", ".join(f"{use} {_count(use, data)}" for use, data in parts.items())
    return f"{train.name}, {shape} {type_} {what} of {len(train.class_names)} classes: {told}"


def _count(use: str, data: Dataset | None) -> str:
    if data is None:
        return "none"
    count = f"{len(data.labels):,}"
    if use != data.split and (use, data.split) == ("test", "validation"):
        return f"{count} (the validation split: there is no other)"
    return count


def reading_lines(parts: Sequence[Dataset | Unlabeled]) -> list[str]:
    """The notes of the parts of a set, each once, and a line on files that were passed over."""
    lines = [f"note        {note}" for note in _once(note for part in parts for note in part.notes)]
    passed = list(_once(files for part in parts for files in part.passed_over))
    if passed:
        told = "; ".join(f"{f.count:,} {f.what} (first: {f.first})" for f in passed)
        lines.append(f"passed over {told}")
    return lines


def reading_counts(parts: dict[str, Dataset | None]) -> dict:
    """The same for `results.json`: of each use the split and the rows, and what was passed over."""
    there = [data for data in parts.values() if data is not None]
    return {
        "splits": {
            use: None if data is None else {"split": data.split, "n": len(data.labels)}
            for use, data in parts.items()
        },
        "notes": list(_once(note for data in there for note in data.notes)),
        "passed_over": [f._asdict() for f in _once(f for data in there for f in data.passed_over)],
    }


def _once(items: Iterable):
    return dict.fromkeys(items)
