"""A folder of pictures: `train/<class>/*.{png,jpg,jpeg,webp}`, and `test/` if there is one.

Class names are the names of the subfolders, in Unicode's composed form (NFC) and sorted, so that
they are the same on every system. A picture is opened, its size looked at, and only then decoded:
a file of kilobytes can claim gigapixels. Hidden files are passed over, and so is everything that
does not end like a picture; a picture that cannot be read is an error, and so is a link that
leads out of the folder.
"""

__all__ = ["ENDINGS", "READER", "read_picture"]

import os
import unicodedata
import warnings
from pathlib import Path

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.dataset import Dataset, Unlabeled
from jaxlin.data.source import Reader, Reading
from jaxlin.data.validate import build, without_labels

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 64_000_000
_GREY = ("1", "L", "LA")
_COLOR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")


SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
"""What the folders of the splits are called."""


def _splits(root: Path, reading: Reading) -> tuple[str, ...]:
    if root.is_file():
        return ("all",)
    there = tuple(split for split in SPLIT_FOLDERS if _folder(root, split) != root)
    return there or ("all",)


def _folder(root: Path, split: str) -> Path:
    """The folder of a split; the root itself where there is none of its names."""
    names = SPLIT_FOLDERS.get(split, ())
    return next((root / name for name in names if (root / name).is_dir()), root)


def _load(root: Path, split: str, reading: Reading) -> Dataset:
    """The pictures of one split as rows of uint8.

    All become what the first is, unless `image_size` (H, W) is given: its size (others are resized
    with a bilinear filter), and grey or color.

    Raises:
      DataError: no classes, a class without pictures, a picture that cannot be read or a link that
        leads out of `root`.
    """
    folder, class_names = _folder(root, split), reading.class_names
    if split not in ("train", "all") and class_names is None:
        class_names = tuple(_classes(_folder(root, "train"), root))
    classes = _classes(folder, root)
    names = tuple(classes) if class_names is None else tuple(class_names)
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise DataError(
            f"{folder}: the subfolder {unknown[0]!r} is none of the {len(names)} classes "
            f"({', '.join(names[:10])}). Use pictures of the same classes."
        )
    found = [(path, names.index(c)) for c, sub in classes.items() for path in _pictures(sub, root)]
    shape = _shape([path for path, _ in found], reading)
    return build(
        _decode([path for path, _ in found], shape),
        np.array([label for _, label in found]),
        class_names=names,
        image_shape=shape,
        name=root.name,
        file=str(folder),
        training=reading.class_names is None,
        split=split,
        white=255,
    )


def _inputs(path: Path, reading: Reading) -> list[Unlabeled]:
    """One picture, or all those of a folder, as rows (N, D) of uint8, and their paths."""
    paths = _pictures(path, path) if path.is_dir() else [path]
    shape = _shape(paths, reading)
    names = [str(path) for path in paths]
    rows = _decode(paths, shape)
    return [without_labels(rows, shape, path.name, str(path), names=names, white=255)]


def read_picture(path: Path, image_shape: tuple[int, ...] | None = None) -> np.ndarray:
    """One picture as uint8 (H, W), or (H, W, 3), upright; resized and converted to `image_shape`.

    Raises:
      DataError: it is missing, not a PNG, JPEG or WebP, damaged, too large, or has 16-bit pixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise DataError(
                        f"{path}: {picture.width} x {picture.height} pixels are more than the "
                        f"{MAX_PIXELS:,} that are read. Make the picture smaller."
                    )
                if picture.mode not in _GREY + _COLOR:
                    raise DataError(
                        f"{path}: pixels of kind {picture.mode!r} are not read. Convert it "
                        "to 8-bit grey or RGB."
                    )
                picture = ImageOps.exif_transpose(picture)
                grey = picture.mode in _GREY if image_shape is None else len(image_shape) == 2
                picture = picture.convert("L" if grey else "RGB")
                if image_shape is not None and picture.size != tuple(image_shape[1::-1]):
                    picture = picture.resize(image_shape[1::-1], Image.Resampling.BILINEAR)
                return np.asarray(picture)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Check the path.") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a PNG, JPEG or WebP picture. Replace or remove it.") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(f"{path}: more pixels than are read. Make the picture smaller.") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DataError(
            f"{path}: the picture is damaged or cut off ({error}). Replace or remove it."
        ) from None


def _shape(paths: list[Path], reading: Reading) -> tuple[int, ...]:
    image_size, color = reading.image_size, reading.color
    if image_size is not None and (len(image_size) != 2 or min(image_size) < 1):
        raise ValueError(f"`image_size` must be (height, width), at least 1, got {image_size}.")
    first = read_picture(paths[0]).shape
    channels = {None: first[2:], "grey": (), "rgb": (3,)}[color]
    return (*(first[:2] if image_size is None else map(int, image_size)), *channels)


def _decode(paths: list[Path], shape: tuple[int, ...]) -> np.ndarray:
    rows = np.empty((len(paths), int(np.prod(shape, dtype=object))), np.uint8)
    for row, path in zip(rows, paths, strict=True):
        picture = read_picture(path, shape)
        row[:] = (picture if picture.ndim == 2 else picture.transpose(2, 0, 1)).reshape(-1)
    return rows


def _classes(folder: Path, root: Path) -> dict[str, Path]:
    found = [path for path in _visible(folder, root) if path.is_dir()]
    if not found:
        raise DataError(
            f"{folder}: there are no class folders. Put the pictures into one subfolder for each "
            "class, train/<class>/*.png."
        )
    classes = {unicodedata.normalize("NFC", path.name): path for path in found}
    if len(classes) != len(found):
        raise DataError(
            f"{folder}: two class folders have the same name in Unicode's composed form. "
            "Rename one of them."
        )
    return dict(sorted(classes.items()))


def _pictures(folder: Path, root: Path) -> list[Path]:
    found = [p for p in _visible(folder, root) if p.suffix.lower() in ENDINGS and p.is_file()]
    if not found:
        raise DataError(
            f"{folder}: there are no pictures ({', '.join(ENDINGS)}). Add some, or remove it."
        )
    return found


def _visible(folder: Path, root: Path) -> list[Path]:
    inside = root.resolve()
    paths = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        path = Path(entry.path)
        if entry.is_symlink() and not path.resolve().is_relative_to(inside):
            raise DataError(
                f"{path}: this link leads out of {root} and is not followed. Copy what it means."
            )
        paths.append(path)
    return paths


READER = Reader(
    "pictures",
    frozenset({"image_size", "color", "background"}),
    _splits,
    _load,
    _inputs,
    (("FOLDER/train/<class>/*.png", f"and test/, val/: {', '.join(ENDINGS)}"),),
)
