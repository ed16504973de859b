"""Which columns of a table hold the names of pictures, their labels and their splits."""

__all__ = ["Columns", "is_integer", "split_column", "table_columns"]

import re
from collections.abc import Sequence
from typing import NamedTuple

from jaxlin.core import DataError
from jaxlin.data.picture_names import Names, is_name, looks_like_picture
from jaxlin.data.tables import Row, Table

LABEL_COLUMNS = ("label", "labels", "class", "target", "category")
"""Where a table has more than two columns, the one with such a title has the labels."""
NAME_COLUMNS = (
    *("file", "filename", "file_name", "path", "filepath", "file_path", "name", "id"),
    *("image", "image_id", "image_name", "img", "picture", "photo"),
)
"""Titles that are no names of pictures, even if a picture is called so."""
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")


class Columns(NamedTuple):
    """Columns by their positions."""

    names: int
    labels: int | None
    split: int | None
    first: int
    """1 where the first row is a header, else 0."""
    lacks: str | None
    """Without a column of labels, the sentence that says why."""


def table_columns(table: Table, names: Names, wanted: str | None) -> Columns:
    """The columns of a table.

    The names are where most cells name pictures, and of equals where most cells differ.

    Args:
      table: every row.
      names: of the pictures there are.
      wanted: the title of the column of labels.

    Raises:
      DataError: the first row is no header, and its picture is missing.
    """
    head, header = table.rows[0].cells, _is_header(table, names)
    body = table.rows[int(header) :]
    of_names = max(range(len(head)), key=lambda column: _fitness(body, column, names))
    titles = head if header else [""] * len(head)
    of_split = split_column(titles)
    others = [i for i in range(len(head)) if i not in (of_names, of_split)]
    of_labels = _label_column(titles, others, wanted)
    if header and of_labels is not None:
        _refuse_lost_row(table, of_labels)
    lacks = None
    if of_labels is None:
        told = f"the columns {', '.join(head)}" if header else f"{len(head)} columns, no header"
        lacks = (
            f"{table.path}: which column has the labels is not clear ({told}). Name it with "
            "`label_column`, in a table with a header."
        )
    if not others:
        lacks = f"{table.path}: has names of pictures and no labels. Add a column of them."
    return Columns(of_names, of_labels, of_split, int(header), lacks)


def split_column(titles: Sequence[str]) -> int | None:
    """The position of the column of splits.

    >>> split_column(["name", "Split"])
    1
    """
    lower = [title.lower() for title in titles]
    return lower.index("split") if "split" in lower else None


def is_integer(label: str) -> bool:
    """Whether a label is a plain integer.

    >>> is_integer("10"), is_integer("010"), is_integer("1.0")
    (True, False, False)
    """
    return _INTEGER.fullmatch(label) is not None


def _is_header(table: Table, names: Names) -> bool:
    """Whether no cell of the first row is a picture, or only by chance.

    That is `image` where there is an image.png, above names with endings or beside `label`.
    """
    head, *body = (row.cells for row in table.rows)
    if any(map(looks_like_picture, head)):
        return False
    pictures = [cell for cell in head if is_name(names, cell)]
    chance = all(cell.lower() in NAME_COLUMNS for cell in pictures)
    endings = bool(body) and any(map(looks_like_picture, body[0]))
    return not pictures or (chance and (endings or any(t.lower() in LABEL_COLUMNS for t in head)))


def _fitness(body: Sequence[Row], column: int, names: Names) -> tuple[int, int]:
    cells = [row.cells[column] for row in body]
    return sum(is_name(names, cell) for cell in cells), len(set(cells))


def _label_column(titles: Sequence[str], others: list[int], wanted: str | None) -> int | None:
    if wanted is not None:
        return titles.index(wanted) if list(titles).count(wanted) == 1 else None
    if len(others) == 1:
        return others[0]
    known = [i for i in others if titles[i].lower() in LABEL_COLUMNS]
    return known[0] if len(known) == 1 else None


def _refuse_lost_row(table: Table, of_labels: int) -> None:
    """A first row with a label like those below it is no header: its picture is missing."""
    first, *others = (row.cells[of_labels] for row in table.rows)
    if first in others or is_integer(first):
        raise DataError(
            f"{table.path}: row {table.rows[0].number} ({', '.join(table.rows[0].cells)}) is no "
            "header, and names no picture that is there. Correct it, or leave it out."
        )
