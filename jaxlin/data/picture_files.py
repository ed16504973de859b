"""One picture file: opened, its size looked at, and only then decoded, to 8-bit grey or RGB.

A file of kilobytes can claim gigapixels, so its header is read first. The formats are a fixed
list, told by the content and not by the name. What a picture is made of is told beside its pixels:

- Transparent pictures are laid on one background (palettes and color keys too): the colors under
  alpha 0 are what nobody sees.
- Of a file with several pictures (animations, pages) the first is read.
- Color of 16 bits a channel is read by the high bytes. Grey of 16 or 32 bits is refused: it is
  mostly a measurement (a depth, an X-ray of 12 bits), and nothing in the file tells its white.
- A picture is turned upright as its EXIF orientation says.
"""

__all__ = [
    "ENDINGS",
    "MAX_PIXELS",
    "Picture",
    "background_color",
    "decode",
    "is_color",
    "quiet",
    "read_picture",
]

import errno
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlin.core import DataError

ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib"),
    *(".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
MAX_PIXELS = 64_000_000
WHITE = (255, 255, 255)
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM")
_GREY = ("1", "L", "LA", "La")
_COLOR = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr")
_TURNED = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
_READ_WHOLE = 4 << 20


class Picture(NamedTuple):
    """A decoded picture, and what its file was."""

    pixels: np.ndarray
    """uint8, (H, W) or (H, W, 3)."""
    color: bool
    """Whether the file holds color; a grey palette does not."""
    transparent: bool
    """Whether a pixel was not opaque."""
    several: bool
    """Whether the file holds more pictures: an animation, pages."""
    deep: bool
    """Whether its channels have 16 bits."""
    resized: bool


def read_picture(path: str | Path, image_shape: tuple[int, ...] | None = None) -> np.ndarray:
    """One picture as uint8 (H, W), or (H, W, 3), upright, on white.

    Args:
      path: of the file.
      image_shape: (H, W) or (H, W, 3), to which it is resized (bilinear) and converted.

    Raises:
      DataError: it is missing, no picture of a known format, damaged, too large, or deep grey.
    """
    size = None if image_shape is None else (image_shape[0], image_shape[1])
    color = None if image_shape is None else "grey" if len(image_shape) == 2 else "rgb"
    with quiet():
        return decode(path, size=size, color=color).pixels


def decode(
    path: str | Path | io.BytesIO,
    *,
    size: tuple[int, int] | None = None,
    color: str | None = None,
    background: tuple[int, int, int] = WHITE,
) -> Picture:
    """The picture in a file, from any thread, inside of `quiet`.

    Args:
      path: of the file; or its bytes, whose `str` is their name in sentences.
      size: (H, W) to which it is resized.
      color: "rgb" or "grey"; what the file holds by default.
      background: RGB under what is transparent.

    Raises:
      DataError: as `read_picture`.
    """
    from PIL import Image, ImageOps

    with _opened(path) as picture:
        several = bool(getattr(picture, "is_animated", False))
        deep = _deep(picture)
        picture.load()
        if picture.format == "TIFF" or any(key in picture.info for key in _TURNED):
            ImageOps.exif_transpose(picture, in_place=True)
        colored = _holds_color(picture, background)
        transparent, flat = False, picture
        if picture.has_transparency_data:
            flat = picture.convert("RGBA")
            transparent = flat.getextrema()[3][0] < 255
            flat = Image.alpha_composite(Image.new("RGBA", flat.size, (*background, 255)), flat)
        wanted = {"rgb": "RGB", "grey": "L", None: "RGB" if colored else "L"}[color]
        if flat.mode != wanted:
            flat = flat.convert(wanted)
        resized = size is not None and flat.size != tuple(size[::-1])
        if size is not None and resized:
            flat = flat.resize(size[::-1], Image.Resampling.BILINEAR)
        width, height = flat.size
        pixels = np.frombuffer(flat.tobytes(), np.uint8).reshape(height, width, -1)
        pixels = pixels if wanted == "RGB" else pixels[:, :, 0]
        return Picture(pixels, colored, transparent, several, deep, resized)


def is_color(path: str | Path | io.BytesIO, background: tuple[int, int, int] = WHITE) -> bool:
    """Whether a file holds color, as `Picture.color`, mostly from its header alone."""
    with _opened(path) as picture:
        return _holds_color(picture, background)


def background_color(name: str | None) -> tuple[int, int, int]:
    """RGB of a color as Pillow names it: "white", "#808080", "hsl(0, 100%, 50%)".

    Raises:
      ValueError: no such color, or one that is transparent itself.

    >>> background_color(None), background_color("navy")
    ((255, 255, 255), (0, 0, 128))
    """
    from PIL import ImageColor

    try:
        color: tuple[int, ...] = WHITE if name is None else ImageColor.getrgb(name)
    except ValueError:
        color = ()
    if len(color) != 3 and color[3:] != (255,):
        raise ValueError(
            f"`background` must be an opaque color, say white, gray or #8040ff, got {name!r}."
        )
    red, green, blue = color[:3]
    return red, green, blue


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings while pictures are read: what matters in them is checked here.

    Python's filters belong to the whole process; so this is entered once, around all threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _opened(path: str | Path | io.BytesIO) -> Iterator[Any]:
    """Pillow's picture, its header read and found in order; faults inside become a `DataError`."""
    from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401

    try:
        with _content(path) as file, Image.open(file, formats=_FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(
                    f"{path}: {picture.width} x {picture.height} pixels are more than the "
                    f"{MAX_PIXELS:,} that are read. Make the picture smaller."
                )
            if picture.mode not in _GREY + _COLOR:
                raise DataError(
                    f"{path}: pixels of kind {picture.mode!r} are not read. Convert it "
                    "to 8-bit grey or RGB, or save the set as an array of uint16 (.npz)."
                )
            yield picture
    except DataError:
        raise
    except FileNotFoundError:
        what = "a link that leads nowhere" if os.path.islink(str(path)) else "no such file"
        raise DataError(f"{path}: {what}. Check the path.") from None
    except UnidentifiedImageError:
        raise DataError(
            f"{path}: not a picture of a kind that is read (PNG, JPEG, WebP, BMP, TIFF, GIF, PPM). "
            "Replace or remove it."
        ) from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: more pixels than are read. Make the picture smaller.") from None
    except Exception as error:  # decoders of damaged files raise whatever they stumble on
        told = getattr(error, "errno", None)
        if told == errno.ELOOP:
            raise DataError(f"{path}: a link that leads to itself. Remove it.") from None
        if told in (errno.EACCES, errno.EPERM, errno.EISDIR):
            raise DataError(f"{path}: cannot be read ({os.strerror(told)}). Mend that.") from None
        why = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: the picture is damaged or cut off ({why}). Replace or remove it."
        ) from None


@contextmanager
def _content(path: str | Path | io.BytesIO) -> Iterator[Any]:
    """The file, open; a small one in one piece: half the calls of the system."""
    if isinstance(path, io.BytesIO):
        yield path
        return
    with open(path, "rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size <= _READ_WHOLE:
            yield io.BytesIO(file.readall())
        else:
            yield io.BufferedReader(file)


def _deep(picture: Any) -> bool:
    """Whether channels have 16 bits, of which Pillow reads the high byte."""
    for tile in getattr(picture, "tile", ()):
        codec, told = tile[0], tile[3]
        if codec.startswith("ppm"):
            return isinstance(told, tuple) and isinstance(told[-1], int) and told[-1] > 255
        if ";16" in str(told[0] if isinstance(told, tuple) else told):
            return True
    return False


def _holds_color(picture: Any, background: tuple[int, int, int]) -> bool:
    """By its mode; by its palette; or because a grey one lies on a colored background."""
    if picture.has_transparency_data and len(set(background)) > 1:
        return True
    if picture.mode in ("P", "PA"):
        colors = np.frombuffer(bytes(picture.getpalette("RGB") or ()), np.uint8).reshape(-1, 3)
        return bool((colors != colors[:, :1]).any())
    return picture.mode not in _GREY
