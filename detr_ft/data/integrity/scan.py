"""One look at the file of every image: each is read once and decoded once, and what it told is kept instead of its pixels."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from detr_ft.data.duplicates import fingerprint
from detr_ft.data.images import NO_SIZE, FileSize, ImageError, file_size, missing, open_image
from detr_ft.data.schema import provenance
from detr_ft.utils.parallel import map_rows


@dataclass(frozen=True)
class ScannedImage:
    """What an image's file told.

    `name` is for people; `path` is the file's, where there is one. An image that doesn't open has `trouble`, a kind of
    finding, with `message`, and neither `digest` (of its bytes) nor `fingerprint` (of its look) nor a size.
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
        """The file's name without its folders, and the image's id."""
        return Path(self.name).name


def scan_images(rows: Dataset, words: str) -> list[ScannedImage]:
    """Read and decode every image of a split, on all cores, with a progress bar that says `words`."""
    return list(map_rows(_look_at, rows.with_format(None).select_columns(["image", "image_id"]), words))


def _look_at(row: dict[str, Any]) -> ScannedImage:
    image = row["image"]
    name, number = provenance(image, row["image_id"]), row["image_id"]
    path = image["path"] if image["bytes"] is None else None
    try:
        content = _content(image)
        held = {"path": image["path"], "bytes": content}
        opened, size = open_image(held), file_size(held)
    except ImageError as error:
        trouble = "missing file" if error.trouble == "missing" else error.trouble
        return ScannedImage(name, number, path, trouble=trouble, message=str(error))
    return ScannedImage(name, number, path, hashlib.sha256(content).digest(), fingerprint(opened), size)


def _content(image: Mapping[str, Any]) -> bytes:
    if image["bytes"] is not None:
        return bytes(image["bytes"])
    name = str(image["path"])
    try:
        return Path(name).read_bytes()
    except FileNotFoundError as error:
        raise missing(name) from error
    except OSError as error:
        raise ImageError(name, "unreadable", f"can't be read ({error})") from error


@dataclass(frozen=True)
class DatasetScan:
    """What the files of each split told, row by row, and the seconds that it took."""

    splits: Mapping[str, list[ScannedImage]]
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Images read and decoded in a second."""
        return sum(map(len, self.splits.values())) / max(self.seconds, 1e-9)


def scan_dataset(data: DatasetDict) -> DatasetScan:
    """Read and decode every image of every split, on all cores, with a progress bar."""
    start = time.perf_counter()
    splits = {split: scan_images(rows, f"Examining {split}") for split, rows in data.items()}
    return DatasetScan(splits, time.perf_counter() - start)
