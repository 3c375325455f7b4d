"""Open image files as upright 8-bit RGB, for training, evaluation and the demo alike."""

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
from detr_ft.utils.files import check_regular

MAX_PIXELS = 100_000_000
IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".tif", ".tiff", ".webp"})

ImageSource = str | Path | bytes | Mapping[str, object]
ImageErrorKind = Literal["missing", "unreadable", "truncated", "too large"]

# Formats that data sets use. Pillow runs an external interpreter on some of the others (EPS).
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

# Exceptions of Pillow's decoders, struct and zlib on damaged files.
DECODE_ERRORS = (
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
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(InputError):
    """An image that can't be opened; `kind` is the sort of failure."""

    def __init__(self, name: str, kind: ImageErrorKind, reason: str) -> None:
        self.kind: ImageErrorKind = kind
        super().__init__(f"{name}: {reason}")


def open_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return an image as 8-bit RGB, upright (EXIF applied), alpha on white.

    `source` is a file, its bytes, or the schema's mapping of path and bytes. 16-bit gray levels are scaled linearly,
    not clipped. Raises ImageError, before decoding for an image of more than `max_pixels`.
    """
    with _open(source, max_pixels) as (image, name):
        try:
            image.load()
            return upright_rgb(image)
        except DECODE_ERRORS as error:
            reason = f"the image is truncated or damaged ({_reason(error)}). Replace the file"
            raise ImageError(name, "truncated", reason) from error


@contextmanager
def opened(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image and read its header alone; the caller decodes it.

    Raises ImageError as `open_image` does, also for errors of Pillow inside.
    """
    with _open(source, max_pixels) as (image, name):
        try:
            yield image
        except DECODE_ERRORS as error:
            reason = f"the image is truncated or damaged ({_reason(error)}). Replace the file"
            raise ImageError(name, "truncated", reason) from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Convert an opened image to 8-bit RGB, upright, alpha on white, as `open_image` does with its file."""
    exif_orientation = orientation(image)
    rgb = _to_rgb(image)
    if exif_orientation not in _TRANSPOSES:
        return rgb
    upright = rgb.transpose(_TRANSPOSES[exif_orientation])
    upright.info = {}  # contains the orientation, which would be applied a second time
    return upright


@dataclass(frozen=True)
class FileSize:
    """The size of an image file: `upright` width and height in pixels (EXIF applied), EXIF `orientation`."""

    upright: tuple[int, int]
    orientation: int = 1

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height in pixels in the file, before EXIF is applied."""
        return self.upright[::-1] if self.orientation >= 5 else self.upright


NO_SIZE = FileSize((0, 0))  # the size of an image that can't be opened


def image_size(source: ImageSource, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return width and height in pixels of the upright image (EXIF applied), read from the header alone."""
    return file_size(source, max_pixels).upright


def file_size(source: ImageSource, max_pixels: int = MAX_PIXELS) -> FileSize:
    """Return the size and EXIF orientation of an image, read from the header alone."""
    with _open(source, max_pixels) as (image, _):
        width, height = image.size
        if isinstance(image, TiffImageFile):  # some versions of Pillow return the upright size here
            width, height = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
        exif_orientation = orientation(image)
        return FileSize((height, width) if exif_orientation >= 5 else (width, height), exif_orientation)


def image_format(source: ImageSource, max_pixels: int = MAX_PIXELS) -> str:
    """Return the file format in the header by Pillow's name: `JPEG`, `PNG`, ..."""
    with _open(source, max_pixels) as (image, _):
        return str(image.format)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened file, 1 to 8; 1 if there is none or it can't be read."""
    try:
        # PNG's own `getexif` would decode the whole image to look for a late chunk.
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except DECODE_ERRORS:
        return 1
    return value if value in _TRANSPOSES else 1


def missing_image(name: str) -> ImageError:
    """Return the error of a missing image file, with a name that differs in case alone as a hint."""
    similar = name_in_other_case(Path(name))
    hint = f". Did you mean {similar}?" if similar else ""
    return ImageError(name, "missing", f"the image file doesn't exist{hint}")


def name_in_other_case(path: Path) -> str | None:
    """Return the name of a file in the same folder that differs in case alone, else None."""
    try:
        similar = _names_in(path.parent, path.parent.stat().st_mtime_ns).get(path.name.lower())
    except (OSError, ValueError):  # no such folder; a name that no file can have
        return None
    return similar if similar != path.name else None  # equal for a dangling link


@lru_cache(maxsize=64)
def _names_in(folder: Path, mtime_ns: int) -> dict[str, str]:
    """Return the names in a folder by their lower-case forms; cached until the folder changes."""
    return {name.lower(): name for name in os.listdir(folder)}


@contextmanager
def _open(source: ImageSource, max_pixels: int) -> Iterator[tuple[Image.Image, str]]:
    stream, name = _stream(source)
    try:
        if isinstance(stream, str):
            check_regular(stream)
        image = Image.open(stream, formats=_FORMATS)
    except FileNotFoundError as error:
        raise missing_image(name) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(name, "too large", f"the image has too many pixels ({error}). Make it smaller") from error
    except DECODE_ERRORS as error:
        raise ImageError(name, "unreadable", f"not a readable image ({_reason(error)}). Replace the file") from error
    with image:
        pixels = image.width * image.height
        if pixels > max_pixels:
            size = f"{image.width}x{image.height}"
            reason = f"{size} are more pixels than the limit of {max_pixels:,}. Make the image smaller"
            raise ImageError(name, "too large", reason)
        yield image, name


def _reason(error: Exception) -> str:
    """Return Pillow's message without the memory address that stands for a file in memory."""
    if isinstance(error, UnidentifiedImageError):
        return "no known format"
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
        return Image.fromarray(_gray_to_8_bit(image)).convert("RGB")
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # copying takes a third of the decoding time


def _gray_to_8_bit(image: Image.Image) -> np.ndarray:
    """Scale gray levels to 0..255 `[H, W]`, linearly from the range of the file's type or values."""
    gray = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = 0.0, 65535.0
    # A gray PNG of more than 8 bits has 16, whichever mode this version of Pillow returns.
    if not image.mode.startswith("I;16") and image.format != "PNG":
        low, high = _value_range(float(gray.min()), float(gray.max()), integers=image.mode == "I")
    scaled = (gray - low) * (255.0 / max(high - low, 1e-12))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _value_range(low: float, high: float, *, integers: bool) -> tuple[float, float]:
    """Return the smallest common range that contains `low..high`, else `low..high` itself."""
    usual = (255.0, 65535.0) if integers else (1.0, 255.0, 65535.0)
    return next(((0.0, top) for top in usual if low >= 0 and high <= top), (low, high))
