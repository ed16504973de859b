"""What was read, in words for people and in counts for machines."""

__all__ = ["of_split", "reading_counts", "reading_lines", "splits_lines"]

from collections.abc import Iterable, Sequence
from typing import Any

from jaxlin.data.dataset import Dataset, Unlabeled

_MOST_NOTES = 2


def splits_lines(parts: dict[str, Dataset | None]) -> list[str]:
    """What was read, and which rows are train, validation and test: two lines.

    Args:
      parts: what they are used for ("train", "validation", "test"), and the rows.

    >>> from jaxlin import data
    >>> for line in splits_lines(data.load_splits("digits")._asdict()):
    ...     print(line)
    data        digits: 8x8 pictures, uint8, 10 classes
    rows        train 1,442, validation none, test 355
    """
    train = parts["train"]
    assert train is not None  # there is always a training set
    what = f"rows of {train.inputs.shape[1]:,} features"
    if train.image_shape is not None:
        color = " color" if train.image_shape[2:] == (3,) else ""
        what = f"{'x'.join(map(str, train.image_shape[:2]))}{color} pictures"
    told = ", ".join(_rows(use, data, train) for use, data in parts.items())
    return [
        f"data        {train.name}: {what}, {train.inputs.dtype}, {len(train.class_names)} classes",
        f"rows        {told}",
    ]


def _rows(use: str, data: Dataset | None, train: Dataset) -> str:
    if data is None:
        return f"{use} none"
    words = [] if data.name == train.name else [data.name]
    if use == "validation" and data.split != use:
        words.append("drawn from the training rows")
    elif use == "test" and data.split == "validation":
        words.append("the validation split, there is no other")
    elif use == "test" and data.split == "train":
        words.append("its training split")
    return f"{use} {len(data.labels):,}" + (f" ({', '.join(words)})" if words else "")


def of_split(data: Dataset | Unlabeled) -> str:
    """The name of a set, with the split that its rows are.

    >>> from jaxlin import data
    >>> of_split(data.load("digits"))
    'digits (train)'
    """
    return data.name if data.split == "all" else f"{data.name} ({data.split})"


def reading_lines(parts: Sequence[Dataset | Unlabeled | None]) -> list[str]:
    """The notes of the parts of a set and what files were passed over: at most three lines."""
    there = [part for part in parts if part is not None]
    notes = list(_once(note for part in there for note in part.notes))
    if len(notes) > _MOST_NOTES:
        notes[_MOST_NOTES - 1 :] = [" ".join(notes[_MOST_NOTES - 1 :])]
    lines = [f"note        {note}" for note in notes]
    passed = list(_once(files for part in there for files in part.passed_over))
    if passed:
        told = "; ".join(f"{f.count:,} {f.what} (first: {f.first})" for f in passed)
        lines.append(f"passed over {told}")
    return lines


def reading_counts(parts: dict[str, Dataset | None]) -> dict:
    """The same for machines: of each use the split and the rows, notes, what was passed over.

    The `split` is what the files call the rows: validation rows may be drawn from "train".
    """
    there = [data for data in parts.values() if data is not None]
    return {
        "splits": {
            use: None if data is None else {"split": data.split, "n": len(data.labels)}
            for use, data in parts.items()
        },
        "notes": list(_once(note for data in there for note in data.notes)),
        "passed_over": [f._asdict() for f in _once(f for data in there for f in data.passed_over)],
    }


def _once(items: Iterable) -> dict[Any, None]:
    return dict.fromkeys(items)
