"""Arrays, numbers and text out of a pickle, without running it.

A pickle is a program: plain `pickle.load` would run it. Here an unpickler written in Python
resolves nothing but the names that an array of bytes needs, each replaced by a stand-in of a few
lines that only stores its arguments.
"""

__all__ = ["StoredArray", "read_entries"]

import io
import math
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxlin.core import DataError

_MAX_BYTES = 256 << 20


def read_entries(path: Path, *, what: str) -> dict:
    """The entries of a pickled dict, by their names; arrays in it are `StoredArray`s.

    Args:
      path: the file.
      what: it should be, for a sentence.

    Raises:
      DataError: the pickle names anything but an array, is damaged, or holds no dict.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(
            f"{path}: {path.stat().st_size:,} bytes are too many for {what}. Get the file again."
        )
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise DataError(f"{path}: not {what}: {error}. Get the file again.") from None
    except Exception as error:  # a broken program can break in any way; none of it is our bug
        raise DataError(
            f"{path}: the pickle is damaged or cut off ({type(error).__name__}). Get it again."
        ) from None
    content = content if isinstance(content, dict) else {}
    return {
        key.decode("latin1") if isinstance(key, bytes) else key: value
        for key, value in content.items()
    }


class _StoredType:
    """What a pickled dtype says: only "u1" and integers, which is all a batch needs."""

    def __init__(self, code: Any, *flags: Any):
        self.code = code.decode() if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        self.order = {b"<": "<", b">": ">", "<": "<", ">": ">"}.get(state[1], "=")


class StoredArray:
    """What a pickled array says; `array` builds it after checking every claim."""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.type, self.fortran, self.values = state

    def array(self) -> np.ndarray:
        values = self.values
        if isinstance(values, str):
            values = values.encode("latin1")
        if not isinstance(self.type, _StoredType) or self.type.code not in ("u1", "i4", "i8"):
            raise DataError("an array of a batch must be uint8 or integers. Get the file again.")
        dtype = np.dtype(self.type.code).newbyteorder(getattr(self.type, "order", "="))
        if math.prod(self.shape) * dtype.itemsize != len(values):
            raise DataError(
                f"an array of a batch announces shape {self.shape} but holds {len(values):,} "
                "bytes. Get the file again."
            )
        order: Literal["C", "F"] = "F" if self.fortran else "C"
        return np.frombuffer(values, dtype).reshape(self.shape, order=order)


def _reconstruct(kind: Any, shape: Any, code: Any) -> StoredArray:
    return StoredArray()


def _from_buffer(values: Any, dtype: Any, shape: Any, order: Any) -> StoredArray:
    array = StoredArray()
    array.__setstate__((1, shape, dtype, order == "F", bytes(values)))
    return array


def _encode(text: str, encoding: str | bytes = "latin1") -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


class _ndarray:
    """Named by pickled arrays, never made."""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _StoredType,
}
_ALLOWED[("_codecs", "encode")] = _encode
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[(f"{_core}.multiarray", "_reconstruct")] = _reconstruct
    _ALLOWED[(f"{_core}.numeric", "_frombuffer")] = _from_buffer


class _ArrayUnpickler(pickle._Unpickler):
    """The standard library's unpickler in Python, whose memo cannot be made to fill memory."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[(module, name)]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the pickle asks for the forbidden name {module}.{name}"
            ) from None

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"the pickle asks for the forbidden extension {code}")
