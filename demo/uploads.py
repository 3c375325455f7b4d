"""Uploaded images, decoded in bounded memory, and the folder that stores their files."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from detr_ft.data.images import ImageError, file_size, opened, upright_rgb

# What decoding and resizing of one image may take. The libraries, the page and the embedded model take about 650 MB.
_DECODING_BYTES = 300_000_000
_WORKING_PIXELS = 4_000_000  # larger images are resized: models resize further, and the page shows 1200 pixels
# Measured maxima over color modes, interlaced, progressive and animated files, with the resized copy: bytes per pixel.
_BYTES_PER_PIXEL = {"WEBP": 20.0, "JPEG2000": 26.0, "JPEG": 10.0, "MPO": 10.0}
_OTHER_BYTES_PER_PIXEL = 12.5
_SCALED_JPEG_BYTES_PER_PIXEL = 3.4  # of one scan, which the decoder scales line by line
_MAX_SCANS = 100  # each passes over the whole image, whatever its size in the file
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_START_OF_SCAN = b"\xff\xda"
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of mallopt in <malloc.h>

# One thread decodes, for all tabs and endpoints: so only one large image is in memory at a time, and in one heap.
_DECODER = ThreadPoolExecutor(1, thread_name_prefix="decoder")


def return_freed_memory() -> None:
    """Let glibc return the memory of freed images to the system.

    By default each thread has a heap, which keeps it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**20)
        mallopt(_M_ARENA_MAX, 2)


@dataclass(frozen=True, eq=False)
class UploadedImage:
    """An upright RGB image of at most 4 megapixels, and the width and height of the original."""

    image: Image.Image
    size: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """The factors from pixels of `image` to pixels of the original, by axis."""
        return self.size[0] / self.image.width, self.size[1] / self.image.height


def read_upload(path: str) -> UploadedImage:
    """Decode an uploaded file; wait for the images of other users first.

    Raises ImageError, before decoding for an image that would take too much memory.
    """
    return _DECODER.submit(_read, path).result()


def _read(path: str) -> UploadedImage:
    size = file_size(path).upright
    with opened(path) as image:
        _check_memory(image, path)
        target = working_size(image.size)
        image.draft("RGB", target)  # a JPEG is decoded at a half, a quarter or an eighth, if that is still enough
        image.load()
        return UploadedImage(upright_rgb(_resized(image, target)), size)


def working_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size of the same aspect ratio with at most 4 megapixels."""
    scale = math.sqrt(_WORKING_PIXELS / (size[0] * size[1]))
    return size if scale >= 1 else (max(1, math.floor(size[0] * scale)), max(1, math.floor(size[1] * scale)))


def _resized(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    if image.size == target:
        return image
    has_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    resized = _resizable(image).resize(target, Image.Resampling.BILINEAR)
    if has_16_bits:
        resized.format = "PNG"  # so that gray levels are scaled from the range of 16 bits
    return resized


def _resizable(image: Image.Image) -> Image.Image:
    """Return the image in a mode that can be averaged."""
    if image.mode == "P":
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode == "1":
        return image.convert("L")
    return image.convert("I") if image.mode.startswith("I;16") else image


def _check_memory(image: Image.Image, path: str) -> None:
    pixels = image.width * image.height
    if isinstance(image, TiffImageFile):  # a tile of the file may be larger than the image
        pixels = max(pixels, int(image.tag_v2.get(_TILE_WIDTH, 0)) * int(image.tag_v2.get(_TILE_LENGTH, 0)))
    cost = _BYTES_PER_PIXEL.get(str(image.format), _OTHER_BYTES_PER_PIXEL)
    if image.format in ("JPEG", "MPO"):
        if _has_one_scan(image):
            cost = _SCALED_JPEG_BYTES_PER_PIXEL
        elif Path(path).read_bytes().count(_START_OF_SCAN) > _MAX_SCANS:
            raise ImageError(path, "too large", f"more than {_MAX_SCANS} scans. Save it again as a baseline JPEG")
    limit = int(_DECODING_BYTES / cost)
    if pixels > limit:
        reason = (
            f"{image.width}x{image.height} are more pixels than the demo's limit of {limit:,} for {image.format}. "
            "Make the image smaller"
        )
        raise ImageError(path, "too large", reason)


def _has_one_scan(image: Image.Image) -> bool:
    """Return whether the first scan of a JPEG has all components.

    Otherwise the decoder stores the coefficients of the whole image.
    """
    stream: BinaryIO | None = getattr(image, "fp", None)
    components: int = getattr(image, "layers", 0)
    if stream is None or image.info.get("progressive"):
        return False
    header = _START_OF_SCAN + (6 + 2 * components).to_bytes(2, "big") + bytes([components])
    position = stream.tell()
    stream.seek(max(0, position - 4 - 2 - 2 * components - 2))
    has_all = stream.read(len(header)) == header
    stream.seek(position)
    return has_all


def prune(folder: Path, max_bytes: int, max_files: int, permanent: Collection[Path] = ()) -> None:
    """Remove the oldest files below a folder until bytes and number are within the limits.

    Files in `permanent` are not counted.
    """
    files = []
    for path in folder.rglob("*"):
        try:
            if path not in permanent and path.is_file():
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
        except FileNotFoundError:  # removed meanwhile
            continue
    files.sort(reverse=True)
    total = 0
    for number, (_, size, path) in enumerate(files, start=1):
        total += size
        if total > max_bytes or number > max_files:
            path.unlink(missing_ok=True)
