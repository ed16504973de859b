"""Text tables: `.csv` and `.tsv`, every row of one length."""

__all__ = ["Row", "Table", "read_table"]

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

from jaxlin.core import DataError

_QUOTES: Any = {"skipinitialspace": True}


class Row(NamedTuple):
    """A row that is not empty."""

    number: int
    """From 1, as a spreadsheet counts: headers and empty rows too."""
    cells: list[str]
    """Without spaces around them."""


class Table(NamedTuple):
    """The rows of a file, all with the same number of cells."""

    path: Path
    rows: list[Row]


def read_table(path: str | Path) -> Table:
    """The rows of a text table, the header among them.

    A `.tsv` has tabs between its cells; any other file has commas, or, where the first row has
    none, semicolons or tabs. Cells may be quoted. Text is UTF-8, or UTF-16 with a byte-order mark.

    Raises:
      DataError: no such text, no rows, or rows of different lengths.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "labels.csv")
    >>> _ = path.write_text('name;label\\n"a;b.png"; cat \\n', encoding="utf-8-sig")
    >>> [row.cells for row in read_table(path).rows]
    [['name', 'label'], ['a;b.png', 'cat']]
    """
    path = Path(path)
    text = _text(path)
    try:
        rows = _rows(text, path.suffix.lower())
    except csv.Error as error:
        raise DataError(f"{path}: is no table ({error}). Save it again as CSV.") from None
    if not rows:
        raise DataError(f"{path}: the table is empty. Add a row for each picture.")
    width = len(rows[0].cells)
    for row in rows:
        if len(row.cells) != width:
            raise DataError(
                f"{path}: row {row.number} has {len(row.cells)} cells, and row {rows[0].number} "
                f"{width}. Give every row the same columns, and quote cells with separators."
            )
    return Table(path, rows)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check the path.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text. Save it again.") from None
    if "\0" in text:
        raise DataError(f"{path}: is no text: it holds zero bytes. Save it again as CSV.")
    return text


def _rows(text: str, ending: str) -> list[Row]:
    lines = text.splitlines()
    top = next((line for line in lines if line.strip()), "")
    separators = "\t" if ending == ".tsv" else ",;\t"
    cuts = [s for s in separators if len(next(csv.reader([top], delimiter=s, **_QUOTES), ())) > 1]
    separator = (cuts or separators)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, **_QUOTES)
    rows = [Row(number, [cell.strip() for cell in row]) for number, row in enumerate(reader, 1)]
    return [row for row in rows if any(row.cells)]
