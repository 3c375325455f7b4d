"""Images with labeled boxes, as every writer takes them, and helpers that writers share."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import unquote, urlsplit

from detr_ft.data.images import IMAGE_SUFFIXES, image_format
from detr_ft.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabeledBox:
    """A box xywh in pixels of the upright image, with the name of its class; a detection has a score."""

    name: str
    box: tuple[float, float, float, float]
    score: float | None = None

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """The box as xyxy."""
        x, y, w, h = self.box
        return x, y, x + w, y + h


@dataclass(frozen=True)
class LabeledImage:
    """An image file with its boxes.

    `name` is its path in written files: with slashes, below the common folder of all images, and unique. `source` is the
    path or URL as the user writes it. `width` and `height` are those of the upright image.
    """

    file: Path
    name: str
    source: str
    image_id: int
    width: int
    height: int
    boxes: tuple[LabeledBox, ...] = ()

    def clipped(self) -> LabeledImage:
        """Return the image with its boxes clipped to it: tools refuse boxes that leave the image."""
        clipped = (replace(box, box=_clip(box.corners, self.width, self.height)) for box in self.boxes)
        return replace(self, boxes=tuple(box for box in clipped if min(box.box[2:]) > 0))


class Writer(Protocol):
    """The function in the module of a format."""

    def write(self, images: Sequence[LabeledImage], names: Sequence[str], folder: Path) -> Path:
        """Write the boxes of images, of the classes `names`, into a folder, and return its main file."""
        ...


def relative_names(sources: Sequence[Path | str]) -> list[str]:
    """Return a unique name for each image file or URL (a text).

    The name of a file is its path with slashes below the common folder of all files, that of a URL its host and path.
    """
    files = [os.path.abspath(source) for source in sources if isinstance(source, Path)]
    root = _common_folder(files)
    names = [
        os.path.relpath(os.path.abspath(source), root) if isinstance(source, Path) else _name_of_url(source)
        for source in sources
    ]
    return _numbered([PurePosixPath(name.replace(os.sep, "/")) for name in names], str)


def unique_names(names: Iterable[PurePosixPath]) -> list[str]:
    """Return the names of new files, with a number where one differs from an earlier one in case alone."""
    return _numbered(names, lambda name: str(name).lower())


def unique_stems(names: Iterable[PurePosixPath]) -> list[str]:
    """Return the names, with a number where one differs from an earlier one in case or suffix alone."""
    return _numbered(names, lambda name: str(name.with_suffix("")).lower())


def place_images(images: Sequence[LabeledImage], folder: Path) -> list[LabeledImage]:
    """Link or copy the image files into a folder, and return the images with their names there.

    The names differ in more than their suffix, since label files are named after them. A file that is not named as an image
    gets a suffix.
    """
    stated = [_with_suffix(image) for image in images]
    names = unique_stems(stated)
    renamed = [(before, name) for before, name in zip(stated, names, strict=True) if str(before) != name]
    if renamed:
        log.warning(
            "%s: %d images differ from another in their suffix alone and are written under other names, the first is %s for %s",
            folder, len(renamed), renamed[0][1], renamed[0][0],
        )  # fmt: skip
    placed = [replace(image, name=name) for image, name in zip(images, names, strict=True)]
    for image in placed:
        target = folder / image.name
        target.parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(image.file, target)
    return placed


def unique_classes(names: Collection[str]) -> list[str]:
    """Return the names of classes without repetitions: `N/A` occurs ten times in models trained on COCO."""
    return list(dict.fromkeys(names))


def write_text(file: Path, text: str) -> Path:
    """Write a text file in UTF-8 with its folders, and return it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8", newline="\n")
    return file


def _with_suffix(image: LabeledImage) -> PurePosixPath:
    name = PurePosixPath(image.name)
    if name.suffix.lower() in IMAGE_SUFFIXES:
        return name
    return name.with_name(f"{name.name}.{image_format(image.file).lower()}")


def _clip(corners: tuple[float, float, float, float], width: int, height: int) -> tuple[float, float, float, float]:
    x0, x1 = (min(max(x, 0.0), float(width)) for x in corners[::2])
    y0, y1 = (min(max(y, 0.0), float(height)) for y in corners[1::2])
    return x0, y0, x1 - x0, y1 - y0


def _common_folder(files: Sequence[str]) -> str:
    try:
        return os.path.commonpath([os.path.dirname(file) for file in files]) if files else os.curdir
    except ValueError as error:  # drives of Windows
        raise InputError("the images must be on one drive. Run once for each drive") from error


def _name_of_url(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # malformed; its download fails with a message
        return "url"
    words = [parts.hostname or "", *unquote(parts.path).split("/")]
    safe = [re.sub(r"[^\w.-]", "_", word).lstrip(".") for word in words]
    return "/".join(word for word in safe if word) or "url"


def _numbered(names: Iterable[PurePosixPath], key: Callable[[PurePosixPath], str]) -> list[str]:
    """Return the names, with a number where an earlier one has the same key."""
    used: set[str] = set()
    result = []
    for name in names:
        number, candidate = 1, name
        while key(candidate) in used:
            number += 1
            candidate = name.with_name(f"{name.stem}-{number}{name.suffix}")
        used.add(key(candidate))
        result.append(str(candidate))
    return result


def _link_or_copy(file: Path, target: Path) -> None:
    """Make a hard link, which takes no space, or a copy where the file system has none."""
    real = os.path.realpath(file)
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)
