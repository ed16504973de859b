"""Columns of Parquet files as arrays: numbers, lists of equal length, and text.

A file is read in batches of rows into one array whose length its footer announces, which is a
claim: it is compared with the bytes of the file, and with the rows that come.
"""

__all__ = [
    "batches",
    "column_names",
    "is_numeric",
    "is_picture",
    "leaf",
    "numbers_of",
    "opened",
    "text_or_numbers",
]

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.stores import refuse_expansion

_BATCH_BYTES = 4 << 20
_BUFFER_BYTES = 1 << 20  # without a buffer pyarrow reads the whole of a row group at once
_MOST_ROWS = 4096
_SAFE_PYARROW = 15


def opened(path: Path) -> Any:
    """A Parquet file, open; only its footer is read.

    Raises:
      DataError: pyarrow is not installed, or is a version that a file can make run a program; the
        file is none, or cut off.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(
            f"{path}: Parquet files are read with pyarrow, which is not installed. Install it with "
            "`pip install 'jaxlin[formats]'`."
        ) from None
    if int(pa.__version__.split(".")[0]) < _SAFE_PYARROW:
        raise DataError(
            f"{path}: pyarrow {pa.__version__} runs pickles that a file holds (CVE-2023-47248). "
            f"Install version {_SAFE_PYARROW} or later."
        )
    try:
        return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Check the path.") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a Parquet file, or cut off ({str(error).splitlines()[0]}). Save it again."
        ) from None


def column_names(path: Path) -> list[str]:
    """The names of the columns of a file."""
    with opened(path) as file:
        return file.schema_arrow.names


def leaf(kind: Any) -> tuple[Any, int]:
    """The type in lists of lists, and how many lists there are around it."""
    import pyarrow.types as types

    depth = 0
    kind = getattr(kind, "storage_type", kind)
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind, depth = kind.value_type, depth + 1
    return kind, depth


def is_numeric(kind: Any) -> bool:
    """Whether a type is that of integers, floats or Booleans."""
    import pyarrow.types as types

    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)


def is_picture(kind: Any) -> bool:
    """Whether a type is that of an encoded picture: bytes, or a struct of bytes and a path."""
    import pyarrow.types as types

    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and is_picture(kind.field(index).type)
    return types.is_binary(kind) or types.is_large_binary(kind)


def numbers_of(paths: Sequence[Path], columns: Sequence[str]) -> np.ndarray:
    """One column of numbers or lists, (N, ...), or several of numbers side by side, (N, D).

    Raises:
      DataError: an empty value, lists of unequal length, a file that is damaged.
    """
    out, filled = None, 0
    total = sum(_rows(path) for path in paths)
    size = sum(path.stat().st_size for path in paths)
    for path, first, batch in batches(paths, columns):
        parts = [_dense(batch.column(name), name, path, first) for name in columns]
        block = parts[0] if len(columns) == 1 else np.stack(parts, axis=1)
        if out is None:
            shape = (total, *block.shape[1:])
            refuse_expansion(path, size, total * (block.nbytes // max(1, len(block))))
            out = np.empty(shape, block.dtype)
        if block.shape[1:] != out.shape[1:]:
            raise DataError(
                f"{path}: column {columns[0]!r} has lists of shape {block.shape[1:]} in row "
                f"{first}, and of {out.shape[1:]} before. Give all examples one length."
            )
        if not np.can_cast(block.dtype, out.dtype):
            out = out.astype(np.result_type(out.dtype, block.dtype))
        out[filled : filled + len(block)] = block
        filled += len(block)
    if out is None:
        raise DataError(f"{paths[0]}: there are no rows. Give at least one example.")
    return out[:, None] if out.ndim == 1 else out


def text_or_numbers(paths: Sequence[Path], column: str) -> np.ndarray:
    """The values of a column of labels, (N,): numbers, or text."""
    import pyarrow as pa
    import pyarrow.types as types

    parts: list[np.ndarray] = []
    for path, first, batch in batches(paths, [column]):
        values = batch.column(column)
        if types.is_dictionary(values.type):
            values = values.dictionary_decode()
        kind = values.type
        if types.is_binary(kind) or types.is_large_binary(kind):
            try:
                values = values.cast(pa.large_string())
            except pa.ArrowException:
                raise DataError(
                    f"{path}: column {column!r} holds bytes that are not UTF-8 text. Save the "
                    "labels as strings or integers."
                ) from None
            kind = values.type
        if types.is_string(kind) or types.is_large_string(kind):
            _refuse_nulls(values, column, path, first)
            parts.append(np.array(values.to_pylist(), dtype=str))
        else:
            parts.append(_dense(values, column, path, first))
    if not parts:
        raise DataError(f"{paths[0]}: there are no rows. Give at least one example.")
    return np.concatenate(parts)


def _dense(values: Any, column: str, path: Path, first: int) -> np.ndarray:
    """A column, or a part of one, whose rows begin at `first`, as an array (n, ...)."""
    import pyarrow.compute as pc

    values = getattr(values, "storage", values)
    _refuse_nulls(values, column, path, first)
    kind, depth = leaf(values.type)
    if not is_numeric(kind):
        raise DataError(f"{path}: column {column!r} holds {values.type}, not numbers. Convert it.")
    shape = [len(values)]
    for _ in range(depth):
        if hasattr(values.type, "list_size"):
            length = values.type.list_size
        else:
            lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
            length = int(lengths[0]) if len(lengths) else 0
            if (lengths != length).any():
                at = int(np.argmax(lengths != length))
                raise DataError(
                    f"{path}: column {column!r} has a list of {lengths[at]} in row "
                    f"{first + at // max(1, int(np.prod(shape[1:])))}, and of {length} before. "
                    "Give all examples one length."
                )
        values = values.flatten()
        shape.append(length)
        _refuse_nulls(values, column, path, first, each=int(np.prod(shape[1:])))
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def _refuse_nulls(values: Any, column: str, path: Path, first: int, *, each: int = 1) -> None:
    if values.null_count:
        at = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(
            f"{path}: column {column!r} has an empty value in row {first + at // max(1, each)}. "
            "Fill it in, or remove the row."
        )


def _rows(path: Path) -> int:
    with opened(path) as file:
        return file.metadata.num_rows


def batches(
    paths: Sequence[Path], columns: Sequence[str], *, rows: int | None = None
) -> Iterator[tuple[Path, int, Any]]:
    """Batches of some columns: path, the number of the first row in its file, the batch."""
    import pyarrow as pa

    for path in paths:
        first = 0
        with opened(path) as file:
            size = rows or _batch_rows(file.metadata)
            found = (
                batch
                for group in range(file.num_row_groups)
                for batch in file.iter_batches(
                    size, row_groups=[group], columns=list(columns), use_threads=False
                )
            )
            while True:
                try:
                    batch = next(found, None)
                except (pa.ArrowException, OSError, ValueError) as error:
                    raise DataError(
                        f"{path}: the file is damaged ({str(error).splitlines()[0]}). Save it "
                        "again."
                    ) from None
                if batch is None:
                    break
                if len(batch):
                    yield path, first, batch
                first += len(batch)
            if first != file.metadata.num_rows:
                raise DataError(
                    f"{path}: announces {file.metadata.num_rows:,} rows, and {first:,} came: the "
                    "file is damaged. Save it again."
                )


def _batch_rows(metadata: Any) -> int:
    """Rows of about 4 MiB."""
    groups = range(metadata.num_row_groups)
    total = sum(metadata.row_group(group).total_byte_size for group in groups)
    row = max(1, total // max(1, metadata.num_rows))
    return min(_MOST_ROWS, max(1, _BATCH_BYTES // row))
