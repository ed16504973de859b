"""Tensors that PyTorch saved: `.pt` and `.pth`.

Such a file is a pickle in an archive, and is only read by `torch.load(weights_only=True)`, which
makes tensors and plain containers and runs nothing. It may hold a dict of tensors (of dicts, too:
`{"train": {"images": ...}}` says what `train_images` says), a pair (inputs, labels), or one tensor,
whose labels then lie beside it. Tensors are memory-mapped: write new data to a new file.
"""

__all__ = ["READER"]

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxlin.core import DataError
from jaxlin.data import arrays
from jaxlin.data.archives import DAMAGED
from jaxlin.data.keys import Layout
from jaxlin.data.source import Reading
from jaxlin.data.stores import Store, reader

ENDINGS = (".pt", ".pth")
_DEEPEST = 8


@contextmanager
def _opened(path: Path) -> Iterator[Store]:
    found = _flat(_load(path), path)
    layouts = {
        name: Layout(tuple(value.shape), None) if _is_tensor(value) else Layout(None, None)
        for name, value in found.items()
    }
    yield Store(layouts, lambda name: _array(found[name], f"{path} ({name})"))


def _load(path: Path) -> Any:
    try:
        import torch
    except ImportError:
        raise DataError(
            f"{path}: files of PyTorch are read with torch, which is not installed. Install it "
            "with `pip install torch`, or save the arrays with `numpy.savez`."
        ) from None
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Check the path.") from None
    except DAMAGED as error:
        raise DataError(
            f"{path}: not a file of `torch.save` since PyTorch 1.6, or cut off ({error}). Save it "
            "again."
        ) from None
    # A map shows the bytes as they lie in the file.
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise DataError(f"{path}: is compressed, which `torch.save` does not do. Save it again.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: holds more than tensors, dicts and lists ({_reason(error)}). Save a dict of "
            "tensors."
        ) from None
    except Exception as error:  # a broken program can break in any way; none of it is our bug
        raise DataError(
            f"{path}: the file is damaged or cut off ({_reason(error)}). Save it again."
        ) from None


def _flat(content: Any, path: Path) -> dict:
    """The entries of dicts in dicts, by the names of the way to them."""
    if _is_tensor(content):
        return {"inputs": content}
    if isinstance(content, (tuple, list)):
        if len(content) != 2 or not all(map(_is_tensor, content)):
            raise DataError(
                f"{path}: holds a {type(content).__name__} of {len(content)}, which is read only "
                "if it is a pair of tensors (inputs, labels). Save a dict of tensors."
            )
        return dict(zip(("inputs", "labels"), content, strict=True))
    if not isinstance(content, Mapping):
        raise DataError(
            f"{path}: holds a {type(content).__name__}, neither tensors nor a dict of them. Save a "
            "dict of tensors."
        )
    found: dict = {}

    def visit(entries: Mapping, prefix: str, depth: int) -> None:
        for key, value in entries.items():
            name = f"{prefix}{key}"
            if isinstance(value, Mapping) and depth < _DEEPEST:
                visit(value, f"{name}/", depth + 1)
            elif name in found:
                raise DataError(f"{path}: has two entries `{name}`. Save it with one.")
            else:
                found[name] = value

    visit(content, "", 0)
    return found


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _array(value: Any, label: str) -> np.ndarray:
    """A tensor as an array that shares its bytes; a list of names or numbers as one too."""
    import torch

    if not _is_tensor(value):
        kinds = {type(entry) for entry in value} if isinstance(value, (list, tuple)) else set()
        if kinds and (kinds == {str} or kinds <= {int, float, bool}):
            return np.array(value)
        raise DataError(f"{label}: is a {type(value).__name__}, not a tensor. Save a tensor.")
    tensor = value.detach()
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise DataError(
            f"{label}: is no plain tensor ({tensor.layout}, {tensor.dtype}). Save it dense."
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise DataError(
            f"{label}: its shape {tuple(tensor.shape)} is more than the "
            f"{tensor.untyped_storage().nbytes():,} bytes that are stored. Save a copy: "
            "`tensor.clone()`."
        )
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    try:
        return tensor.resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError):
        raise DataError(f"{label}: tensors of {tensor.dtype} are not read. Convert it.") from None


def _labels_beside(path: Path, reading: Reading) -> np.ndarray:
    """The labels of a file that holds none: `NAME_labels.pt`, `labels.pt`, or the same as .npy."""
    place = reading.labels
    if place is None:
        choices = [
            path.with_name(f"{stem}{ending}")
            for stem in (f"{path.stem}_labels", f"{path.stem}.labels", "labels")
            for ending in ENDINGS
        ]
        there = (choice for choice in choices if choice.is_file() and choice != path)
        place = next(there, None) or arrays.find_labels(path)
    if place.suffix.lower() not in ENDINGS:
        return arrays.read_npy(place)
    content = _load(place)
    if not _is_tensor(content):
        raise DataError(f"{place}: must hold one tensor, the labels. Save that alone.")
    return _array(content, str(place))


def _reason(error: BaseException) -> str:
    """The first sentence of a long message, which goes on with advice that must not be followed."""
    return " ".join((str(error).splitlines() or [type(error).__name__])[0].split())[:160].rstrip(
        "."
    )


READER = reader(
    "a file of PyTorch tensors",
    _opened,
    beside=_labels_beside,
    formats=(
        (
            "NAME.pt, .pth",
            "a dict of tensors named as in an .npz, a pair (inputs, labels), or one tensor with "
            "NAME_labels.pt, labels.pt, or these as .npy, beside it (needs torch; nothing but "
            "tensors, dicts and lists is read)",
        ),
    ),
)
