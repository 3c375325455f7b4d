"""Opening an image: the one place where files become pixels, for training, evaluation and the demo alike."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from detr_ft.errors import InputError

MAX_PIXELS = 100_000_000
IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".tif", ".tiff", ".webp"})

ImageSource = str | Path | bytes | Mapping[str, object]
Trouble = Literal["missing", "unreadable", "truncated", "too large"]

# Formats that data sets use. Others stay shut: Pillow hands some of them (EPS) to an external interpreter.
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

# What Pillow's decoders are seen to raise on damaged files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)

_ORIENTATION, _WIDTH, _HEIGHT = 0x0112, 0x0100, 0x0101
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(InputError):
    """An image that can't be opened; `trouble` says in a word why."""

    def __init__(self, name: str, trouble: Trouble, why: str) -> None:
        self.trouble: Trouble = trouble
        super().__init__(f"{name}: {why}")


def open_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image as 8-bit RGB, upright (EXIF applied), alpha on white. `source`: a file, its bytes, or the schema's mapping.

    More than `max_pixels` are refused before anything is decoded. 16-bit greys are scaled linearly, not clipped.
    """
    with _opened(source, max_pixels) as (image, name):
        try:
            image.load()
            return upright_rgb(image)
        except _DAMAGE as error:
            raise ImageError(name, "truncated", f"the image is truncated or damaged ({_said(error)})") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image that is open already as 8-bit RGB, upright, alpha on white: what `open_image` makes of its file."""
    turned = orientation(image)
    rgb = _to_rgb(image)
    if turned not in _UPRIGHT:
        return rgb
    upright = rgb.transpose(_UPRIGHT[turned])
    upright.info = {}  # where the orientation is told, and would be applied again
    return upright


@dataclass(frozen=True)
class FileSize:
    """What an image file's header says: `upright`, width and height in pixels once EXIF is applied, and EXIF's `orientation`."""

    upright: tuple[int, int]
    orientation: int = 1

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height in pixels as the camera stored them, before EXIF."""
        return self.upright[::-1] if self.orientation >= 5 else self.upright


NO_SIZE = FileSize((0, 0))  # of an image that can't be opened


def image_size(source: ImageSource, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height in pixels of the upright image (EXIF applied), from the header alone."""
    return file_size(source, max_pixels).upright


def file_size(source: ImageSource, max_pixels: int = MAX_PIXELS) -> FileSize:
    """The size of an image, and whether EXIF turns it, from the header alone."""
    with _opened(source, max_pixels) as (image, _):
        width, height = image.size
        if isinstance(image, TiffImageFile):  # some versions of Pillow state the turned size here
            width, height = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
        turned = orientation(image)
        return FileSize((height, width) if turned >= 5 else (width, height), turned)


def image_format(source: ImageSource, max_pixels: int = MAX_PIXELS) -> str:
    """The file format that the header tells, in Pillow's words: `JPEG`, `PNG`, ..."""
    with _opened(source, max_pixels) as (image, _):
        return str(image.format)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an opened file, 1 to 8; 1 where there is none or it can't be read."""
    try:
        # PNG's own `getexif` would decode the whole image to look for a late chunk.
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return value if value in _UPRIGHT else 1


def missing(name: str) -> ImageError:
    """The error for an image file that isn't there; it names the one whose name differs in case alone."""
    near = name_but_for_case(Path(name))
    return ImageError(name, "missing", "the image file doesn't exist" + (f"; did you mean {near}?" if near else ""))


def name_but_for_case(path: Path) -> str | None:
    """The name of a file in the path's folder that differs from its name in case alone, if there is one."""
    try:
        near = _names_in(path.parent, path.parent.stat().st_mtime_ns).get(path.name.lower())
    except (OSError, ValueError):  # no such folder; a name that no file can bear
        return None
    return near if near != path.name else None  # a link that leads nowhere is itself not there


@lru_cache(maxsize=64)
def _names_in(folder: Path, changed: int) -> dict[str, str]:
    """The names in a folder by their small letters, listed once for as long as nothing in it has `changed`."""
    return {name.lower(): name for name in os.listdir(folder)}


@contextmanager
def _opened(source: ImageSource, max_pixels: int) -> Iterator[tuple[Image.Image, str]]:
    stream, name = _stream(source)
    try:
        image = Image.open(stream, formats=_FORMATS)
    except FileNotFoundError as error:
        raise missing(name) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(name, "too large", f"the image has too many pixels ({error}); make it smaller") from error
    except _DAMAGE as error:
        raise ImageError(name, "unreadable", f"not a readable image ({_said(error)})") from error
    with image:
        pixels = image.width * image.height
        if pixels > max_pixels:
            why = (
                f"{image.width}x{image.height} are more pixels than the limit of {max_pixels:,}; make the image smaller"
            )
            raise ImageError(name, "too large", why)
        yield image, name


def _said(error: Exception) -> str:
    """What Pillow says of a file; one in memory it calls by its object's address, which tells nobody anything."""
    if isinstance(error, UnidentifiedImageError):
        return "its content is of no known format"
    return re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "the file", str(error))


def _stream(source: ImageSource) -> tuple[str | BytesIO, str]:
    if isinstance(source, Mapping):
        data, path = source.get("bytes"), source.get("path")
        if isinstance(data, bytes):
            return BytesIO(data), str(path or "image")
        if path is None:
            raise ImageError("image", "missing", "neither a path nor bytes are given")
        return str(path), str(path)
    if isinstance(source, bytes):
        return BytesIO(source), "image"
    return str(source), str(source)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_grey_to_8_bit(image)).convert("RGB")
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # a copy takes a third of the time of decoding


def _grey_to_8_bit(image: Image.Image) -> np.ndarray:
    """Greys of more than 8 bits to 0..255 `[H, W]`: linear in the range that the file's type or its values tell."""
    grey = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = 0.0, 65535.0
    # A grey PNG of more than 8 bits has 16, whichever mode this version of Pillow gives it.
    if not image.mode.startswith("I;16") and image.format != "PNG":
        low, high = _value_range(float(grey.min()), float(grey.max()), integers=image.mode == "I")
    scaled = (grey - low) * (255.0 / max(high - low, 1e-12))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _value_range(low: float, high: float, *, integers: bool) -> tuple[float, float]:
    """The range meant by values that lie in `low..high`: the smallest usual one that holds them, else their own."""
    usual = (255.0, 65535.0) if integers else (1.0, 255.0, 65535.0)
    return next(((0.0, top) for top in usual if low >= 0 and high <= top), (low, high))
