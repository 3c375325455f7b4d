"""The one pass over the files: each is read once and decoded once, and what it told is kept instead of its pixels."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from detr_ft.data.duplicates import fingerprint
from detr_ft.data.images import ImageError, open_image, stored_size
from detr_ft.data.parallel import map_rows
from detr_ft.data.schema import provenance


@dataclass(frozen=True)
class Look:
    """What an image's file told.

    `name` is for people; `path` is the file's, where there is one. `size` is that of the upright image, `stored` that before
    EXIF, both width and height in pixels, and `turned` the EXIF orientation. An image that doesn't open has `trouble`, a
    kind of finding, with `message`, and neither `digest` (of its bytes) nor `fingerprint` (of its look).
    """

    name: str
    image_id: int
    path: str | None
    digest: bytes = b""
    fingerprint: bytes = b""
    size: tuple[int, int] = (0, 0)
    stored: tuple[int, int] = (0, 0)
    turned: int = 1
    trouble: str = ""
    message: str = ""

    @property
    def short(self) -> str:
        """The file's name without its folders, and the image's id."""
        return Path(self.name).name


@dataclass(frozen=True)
class Looks:
    """What the files of each split told, row by row, and the seconds that it took."""

    splits: Mapping[str, list[Look]]
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Images read and decoded in a second."""
        return sum(map(len, self.splits.values())) / max(self.seconds, 1e-9)


def look(data: DatasetDict) -> Looks:
    """Read and decode every image of every split, on all cores, with a progress bar."""
    start = time.perf_counter()
    columns = ["image", "image_id"]
    splits = {
        split: list(map_rows(_look_at, rows.select_columns(columns), f"Examining {split}"))
        for split, rows in data.items()
    }
    return Looks(splits, time.perf_counter() - start)


def _look_at(row: dict[str, Any]) -> Look:
    image = row["image"]
    name, number = provenance(image, row["image_id"]), row["image_id"]
    path = image["path"] if image["bytes"] is None else None
    try:
        content = _content(image)
        held = {"path": image["path"], "bytes": content}
        opened = open_image(held)
        width, height, turned = stored_size(held)
    except ImageError as error:
        trouble = "missing file" if error.trouble == "missing" else error.trouble
        return Look(name, number, path, trouble=trouble, message=str(error))
    digest = hashlib.sha256(content).digest()
    return Look(name, number, path, digest, fingerprint(opened), opened.size, (width, height), turned)


def _content(image: Mapping[str, Any]) -> bytes:
    if image["bytes"] is not None:
        return bytes(image["bytes"])
    name = str(image["path"])
    try:
        return Path(name).read_bytes()
    except FileNotFoundError as error:
        raise ImageError(name, "missing", "the image file doesn't exist") from error
    except OSError as error:
        raise ImageError(name, "unreadable", f"can't be read ({error})") from error
