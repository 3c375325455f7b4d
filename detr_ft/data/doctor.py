"""The doctor: reads every image and every box of a data set, says what is wrong, where, and how to mend it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, DatasetDict
from rich.console import Console
from rich.progress import track

from detr_ft.data.images import ImageError, open_image, stored_size
from detr_ft.data.schema import class_names, provenance

Level = Literal["error", "warning", "info"]

# A box may leave its image by this many pixels: what rounding to whole pixels can do.
_SLACK = 0.5

# kind: (level, how to mend it)
_KINDS: dict[str, tuple[Level, str]] = {
    "missing file": ("error", "restore the file, or remove the image from the annotations"),
    "unreadable": ("error", "replace the file by a JPEG or PNG that opens, or remove the image"),
    "truncated": ("error", "copy or download the file again, or remove the image"),
    "too large": ("error", "make the image smaller, together with its boxes"),
    "wrong size": ("error", "write the file's true size, and check that the boxes fit the image as you see it"),
    "not finite": ("error", "remove the box or write its numbers"),
    "zero size": ("warning", "remove the box or draw it again"),
    "negative size": (
        "warning",
        "boxes are x, y, width, height: check that these aren't two corners in the wrong order",
    ),
    "outside": ("warning", "check that boxes are x, y, width, height in pixels of this image, then clip them"),
    "unknown class": ("error", "give the box one of the data set's classes"),
    "duplicate box": ("warning", "remove all but one"),
    "duplicate image": ("warning", "remove all but one; in two splits, scores come out too high"),
    "more objects than queries": ("warning", "give the model more queries: those beyond can't be learned or found"),
    "class missing": ("warning", "add images of this class to the split, or split the data anew"),
    "exif rotation": ("info", "nothing, if the boxes fit the image as a viewer shows it"),
}


@dataclass(frozen=True)
class Finding:
    """One defect: `image` names the file, `annotation` is the box's place among the image's objects, from 0."""

    kind: str
    level: Level
    split: str
    image: str | None
    image_id: int | None
    annotation: int | None
    message: str
    remedy: str

    def __str__(self) -> str:
        place = self.split if self.image is None else f"{self.split}, {self.image}"
        box = "" if self.annotation is None else f", object {self.annotation}"
        return f"{self.level}: {self.kind}: {place}{box}: {self.message}"


@dataclass(frozen=True)
class SplitSummary:
    """What a split holds: numbers of images, boxes, images without objects, and boxes of each class."""

    images: int
    boxes: int
    images_without_objects: int
    boxes_per_class: dict[str, int]


@dataclass(frozen=True)
class Diagnosis:
    """What `examine` found; `findings` is empty for clean data."""

    splits: dict[str, SplitSummary]
    findings: tuple[Finding, ...]

    def to_json(self) -> str:
        """The whole diagnosis as a JSON text."""
        return json.dumps(asdict(self), indent=2)

    def summary(self, limit: int = 20) -> str:
        """The diagnosis for people: a line a split, a line a kind of finding, then the first `limit` findings."""
        lines = [_split_line(name, one) for name, one in self.splits.items()]
        counts = Counter(finding.kind for finding in self.findings)
        if not counts:
            return "\n".join([*lines, "no findings"])
        for kind, count in counts.items():
            level, remedy = _KINDS[kind]
            lines.append(f"{level}: {kind}: {count}. To mend: {remedy}")
        lines.extend(f"  {finding}" for finding in self.findings[:limit])
        if len(self.findings) > limit:
            lines.append(f"  ... and {len(self.findings) - limit} more")
        return "\n".join(lines)


def examine(data: DatasetDict, num_queries: int = 100) -> Diagnosis:
    """Decode every image and check every box of every split; nothing is changed. `num_queries` is the model's."""
    splits = {split: _summarise(rows) for split, rows in data.items()}
    findings: list[Finding] = []
    first: dict[bytes, tuple[str, str]] = {}
    for split, rows in data.items():
        for found, digest, name, image_id in _examined(split, rows, num_queries):
            findings.extend(found)
            if digest is None:
                continue
            if digest in first:
                other_split, other = first[digest]
                message = f"the same bytes as {other}" + (f" in {other_split}" if other_split != split else "")
                findings.append(_finding("duplicate image", split, message, name, image_id))
            first.setdefault(digest, (split, name))
    findings.extend(_missing_classes(splits))
    return Diagnosis(splits, tuple(findings))


_Examined = tuple[list[Finding], bytes | None, str, int]


def _examined(split: str, rows: Dataset, num_queries: int) -> Iterator[_Examined]:
    console = Console(stderr=True)
    names = class_names(rows)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # Workers fetch their own row, so that images held as bytes are never in memory all at once.
        results = pool.map(partial(_examine_row, rows, split, len(names), num_queries), range(len(rows)))
        quiet = not sys.stderr.isatty()
        yield from track(results, f"Examining {split}", len(rows), console=console, disable=quiet, transient=True)


def _examine_row(rows: Dataset, split: str, num_classes: int, num_queries: int, index: int) -> _Examined:
    row: dict[str, Any] = rows[index]
    name, image_id = provenance(row["image"], row["image_id"]), row["image_id"]
    report = partial(_finding, split=split, image=name, image_id=image_id)
    digest: bytes | None = None
    found: list[Finding] = []
    try:
        image = {"path": row["image"]["path"], "bytes": _content(row["image"])}
        digest = hashlib.sha256(image["bytes"]).digest()
        found.extend(report(kind, message=message) for kind, message in _image_troubles(image, row))
    except ImageError as error:
        kind = "missing file" if error.trouble == "missing" else error.trouble
        found.append(report(kind, message=str(error)))
    boxes, labels = row["objects"]["bbox"], row["objects"]["category"]
    if row["width"] > 0 and row["height"] > 0:
        # Without a size nothing can be said about a box.
        troubles = _box_troubles(boxes, labels, num_classes, row["width"], row["height"])
        found.extend(report(kind, message=message, annotation=place) for kind, place, message in troubles)
    if len(boxes) > num_queries:
        found.append(report("more objects than queries", message=f"{len(boxes)} objects, {num_queries} queries"))
    return found, digest, name, image_id


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


def _image_troubles(image: Mapping[str, object], row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Kind and message of what is wrong with an image that opens; raises ImageError for one that doesn't."""
    true = open_image(image).size
    stored_width, stored_height, turned = stored_size(image)
    if turned > 1:
        yield "exif rotation", f"EXIF orientation {turned} turns or mirrors {stored_width}x{stored_height} as stored"
    stated = (row["width"], row["height"])
    if stated != true:
        message = f"stated {stated[0]}x{stated[1]}, is {true[0]}x{true[1]}"
        if turned >= 5 and stated == (stored_width, stored_height):
            message += " when upright; the boxes were probably drawn on the image as stored"
        yield "wrong size", message


def _box_troubles(
    boxes: Sequence[Sequence[float]], labels: Sequence[int], num_classes: int, width: int, height: int
) -> Iterator[tuple[str, int, str]]:
    seen: dict[tuple[float, ...], int] = {}
    for place, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        x, y, w, h = box
        text = f"box x {x:g}, y {y:g}, width {w:g}, height {h:g}"
        if not 0 <= label < num_classes:
            yield "unknown class", place, f"class index {label}, but the classes are 0 to {num_classes - 1}"
        if not all(map(math.isfinite, box)):
            yield "not finite", place, text
            continue
        if min(w, h) < 0:
            yield "negative size", place, text
        elif min(w, h) == 0:
            yield "zero size", place, text
        if min(x, y) < -_SLACK or x + w > width + _SLACK or y + h > height + _SLACK:
            yield "outside", place, f"{text} in an image of {width}x{height}"
        key = (*box, label)
        if key in seen:
            yield "duplicate box", place, f"{text}, the same as object {seen[key]}"
        seen.setdefault(key, place)


def _summarise(rows: Dataset) -> SplitSummary:
    names, categories = class_names(rows), [objects["category"] for objects in rows["objects"]]
    counts = Counter(label for labels in categories for label in labels)
    per_class = {name: counts[index] for index, name in enumerate(names)}
    return SplitSummary(len(rows), counts.total(), sum(not labels for labels in categories), per_class)


def _missing_classes(splits: Mapping[str, SplitSummary]) -> Iterator[Finding]:
    for split, one in splits.items():
        for name, count in one.boxes_per_class.items():
            if not count:
                yield _finding("class missing", split, f"no box of class {name!r}")


def _finding(
    kind: str,
    split: str,
    message: str,
    image: str | None = None,
    image_id: int | None = None,
    annotation: int | None = None,
) -> Finding:
    level, remedy = _KINDS[kind]
    return Finding(kind, level, split, image, image_id, annotation, message, remedy)


def _split_line(name: str, one: SplitSummary) -> str:
    classes = ", ".join(f"{label} {count}" for label, count in one.boxes_per_class.items())
    return f"{name}: {one.images} images ({one.images_without_objects} without objects), {one.boxes} boxes: {classes}"
