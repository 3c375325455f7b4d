"""Scan of image files: each is read and decoded once, for its size, digest and fingerprint."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from detr_ft.data.duplicates import fingerprint
from detr_ft.data.images import NO_SIZE, FileSize, ImageError, file_size, missing_image, open_image
from detr_ft.data.schema import provenance
from detr_ft.utils.files import read_regular
from detr_ft.utils.parallel import map_rows


@dataclass(frozen=True)
class ScannedImage:
    """The result of reading one image file.

    `name` is for messages; `path` is that of the file, if there is one. An image that can't be read has `trouble`, a kind of
    finding, with `message`, and neither a `digest` (of its bytes) nor a `fingerprint` (of its pixels) nor a size.
    """

    name: str
    image_id: int
    path: str | None
    digest: bytes = b""
    fingerprint: bytes = b""
    file: FileSize = NO_SIZE
    trouble: str = ""
    message: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the upright image."""
        return self.file.upright

    @property
    def short(self) -> str:
        """The name of the file without its folders, and the image id."""
        return Path(self.name).name


def scan_images(rows: Dataset, title: str) -> list[ScannedImage]:
    """Read and decode every image of a split, on all cores, with a progress bar of this title."""
    return list(map_rows(_scan, rows.with_format(None).select_columns(["image", "image_id"]), title))


def _scan(row: dict[str, Any]) -> ScannedImage:
    image = row["image"]
    name, number = provenance(image, row["image_id"]), row["image_id"]
    path = image["path"] if image["bytes"] is None else None
    try:
        content = _content(image)
        source = {"path": image["path"], "bytes": content}
        pixels, size = open_image(source), file_size(source)
    except ImageError as error:
        trouble = "missing file" if error.kind == "missing" else error.kind
        return ScannedImage(name, number, path, trouble=trouble, message=str(error))
    return ScannedImage(name, number, path, hashlib.sha256(content).digest(), fingerprint(pixels), size)


def _content(image: Mapping[str, Any]) -> bytes:
    if image["bytes"] is not None:
        return bytes(image["bytes"])
    name = str(image["path"])
    try:
        return read_regular(Path(name))
    except FileNotFoundError as error:
        raise missing_image(name) from error
    except OSError as error:
        raise ImageError(name, "unreadable", f"can't be read ({error})") from error


@dataclass(frozen=True)
class DatasetScan:
    """The scanned images of each split, row by row, and the duration of the scan in seconds."""

    splits: Mapping[str, list[ScannedImage]]
    seconds: float

    @property
    def images_per_second(self) -> float:
        """The images read and decoded per second."""
        return sum(map(len, self.splits.values())) / max(self.seconds, 1e-9)


def scan_dataset(data: DatasetDict) -> DatasetScan:
    """Read and decode every image of every split, on all cores, with a progress bar."""
    start = time.perf_counter()
    splits = {split: scan_images(rows, f"Examining {split}") for split, rows in data.items()}
    return DatasetScan(splits, time.perf_counter() - start)
