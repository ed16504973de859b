"""Street View House Numbers, the cropped digits: `train_32x32.mat` and `test_32x32.mat`.

`X` is (32, 32, 3, N) uint8 and `y` (N, 1), in which 10 stands for the digit 0. The many easier
pictures of `extra_32x32.mat` are not read.

Source: Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning"
(2011), http://ufldl.stanford.edu/housenumbers/.
"""

__all__ = ["files", "find", "load"]

import math
from pathlib import Path

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.dataset import Dataset, PassedOver
from jaxlin.data.digits import CLASS_NAMES
from jaxlin.data.stores import refuse_expansion
from jaxlin.data.validate import build

ROWS = {"train": 73_257, "test": 26_032}
IMAGE_SHAPE = (32, 32, 3)


def files(folder: Path) -> dict[str, Path]:
    """The file of each split, whether it is there or not."""
    return {split: folder / f"{split}_32x32.mat" for split in ROWS}


def find(folder: Path) -> bool:
    """Whether `folder` holds one of the two files."""
    return any(path.is_file() for path in files(folder).values())


def load(folder: Path, split: str) -> Dataset:
    """One split of SVHN.

    Raises:
      DataError: the file is missing, damaged, or not what the format says.
    """
    paths = files(folder)
    pixels, labels = _read(paths[split])
    rows = {s: _layouts(path)["X"][-1] for s, path in paths.items() if path.is_file()}
    if any(count == ROWS[s] for s, count in rows.items()) and len(labels) != ROWS[split]:
        raise DataError(
            f"{paths[split]}: there are {len(labels):,} pictures instead of {ROWS[split]:,}: not "
            "the published file. Get it again."
        )
    extra = folder / "extra_32x32.mat"
    passed_over = (PassedOver(1, "file of extra pictures", str(extra)),) if extra.is_file() else ()
    return build(
        np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)).reshape(len(labels), -1),
        labels % 10,
        class_names=CLASS_NAMES,
        image_shape=IMAGE_SHAPE,
        name="svhn",
        file=str(paths[split]),
        training=split == "train",
        split=split,
        white=255,
        passed_over=passed_over,
    )


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (32, 32, 3, N) uint8 and labels (N,) from 1 to 10."""
    from scipy.io import loadmat

    shapes = _layouts(path)
    if not {"X", "y"} <= shapes.keys():
        raise DataError(f"{path}: must hold `X` and `y`, got {', '.join(shapes) or 'nothing'}.")
    shape = shapes["X"]
    if shape[:3] != IMAGE_SHAPE or len(shape) != 4 or math.prod(shapes["y"]) != shape[3]:
        raise DataError(
            f"{path}: `X` must be (32, 32, 3, N) and `y` (N, 1), got {shape} and {shapes['y']}. "
            "Get the file again."
        )
    refuse_expansion(path, path.stat().st_size, math.prod(shape))
    try:
        content = loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # scipy's reader breaks in many ways on a damaged file
        raise _damaged(path, error) from None
    pixels, labels = np.asarray(content["X"]), np.asarray(content["y"]).ravel()
    if pixels.dtype != np.uint8 or pixels.shape != shape or labels.dtype.kind not in "uif":
        raise DataError(
            f"{path}: `X` must be uint8 and `y` numbers, got {pixels.dtype} {pixels.shape} and "
            f"{labels.dtype}. Get the file again."
        )
    wrong = ~np.isin(labels, np.arange(1, 11))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{path}: labels must be 1 to 10 (10 is the digit 0), got {labels[row]} at row {row}. "
            "Get the file again."
        )
    return pixels, labels.astype(np.uint8)


def _layouts(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape that the file announces for each variable."""
    from scipy.io import whosmat

    if not path.is_file():
        raise DataError(
            f"{path}: the file is missing. Put train_32x32.mat and test_32x32.mat there."
        )
    try:
        return {name: tuple(map(int, shape)) for name, shape, _ in whosmat(path)}
    except Exception as error:  # scipy's reader breaks in many ways on a damaged file
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    return DataError(f"{path}: not a readable .mat file, or cut off ({reason}). Get it again.")
