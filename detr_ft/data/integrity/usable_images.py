"""What of a split can be trained on, found out before training rather than in its third hour, or never.

Every image is decoded, and boxes are brought onto images that aren't of the size that their annotations state.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from detr_ft.data.images import NO_SIZE, FileSize, ImageError, file_size
from detr_ft.data.integrity.annotated_size import (
    AnnotatedImage,
    AnnotatedSizes,
    Rescaling,
    annotated,
    box_of,
    moved_area,
    why_unclear,
)
from detr_ft.data.integrity.scan import ScannedImage, scan_images
from detr_ft.data.pipeline.transforms import ImageFormat
from detr_ft.data.schema import provenance, sizes_of, with_columns
from detr_ft.errors import InputError
from detr_ft.utils.collectives import map_divided
from detr_ft.utils.parallel import map_rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inspected:
    """A split once its files were looked at: `rows` are those that can be trained on, their boxes on images as they are.

    `fingerprints` are what the rows' images look like, and `bad` says of every image left out why.
    """

    rows: Dataset
    fingerprints: list[bytes]
    bad: list[str]


def inspect(data: Mapping[str, Dataset], names: Sequence[str], form: ImageFormat) -> dict[str, Inspected]:
    """Look at every image of these splits. The processes of a run share the work, and each gets all of the answer.

    Bad are images that can't be read, that have boxes for nobody knows which size, or that `form`, the model's, would resize
    to nothing. On which frame boxes were drawn is judged by all splits. Boxes that were moved are told on the log.
    """
    looks = {name: map_divided(data[name], lambda rows: scan_images(rows, "Looking at every image")) for name in names}
    frames = _judged(data, {name: [one.file for one in own] for name, own in looks.items()})
    return {name: _inspected(data[name], own, frames, form) for name, own in looks.items()}


def with_true_sizes(data: Mapping[str, Dataset], name: str, rows: Sequence[int] | None = None) -> Dataset:
    """A split, or these of its rows, in pixels of its images as they are, upright, whatever size its annotations state.

    All splits judge on which frame boxes were drawn, as in training. Only the headers of the files are read. Boxes that were
    moved are told on the log. Raises InputError, with every image asked for that has no readable header, or whose boxes were
    drawn for nobody knows which size.
    """
    split = data[name]
    wanted = range(len(split)) if rows is None else rows
    sizes = _header_sizes(split)
    files = [one if isinstance(one, FileSize) else NO_SIZE for one in sizes]
    fitted, unknown = _fitted(split, files, _judged(data, {name: files}))
    unreadable = {row: one for row, one in enumerate(sizes) if isinstance(one, str)}
    problems = [found[row] for found in (unreadable, unknown) for row in wanted if row in found]
    if problems:
        raise InputError(first_of(problems))
    return fitted if rows is None else fitted.select(rows)


def first_of(problems: Sequence[str], shown: int = 10) -> list[str]:
    """The first few of many lines, and how many more there are."""
    return [*problems[:shown], *([f"and {len(problems) - shown} more"] if len(problems) > shown else [])]


def _inspected(split: Dataset, looks: Sequence[ScannedImage], frames: AnnotatedSizes, form: ImageFormat) -> Inspected:
    rows, unknown = _fitted(split, [one.file for one in looks], frames)
    bad = {
        row: why for row, one in enumerate(looks) if (why := one.message or unknown.get(row) or _too_thin(one, form))
    }
    kept = [row for row in range(len(split)) if row not in bad]
    return Inspected(
        rows.select(kept) if bad else rows, [looks[row].fingerprint for row in kept], [bad[row] for row in sorted(bad)]
    )


def _judged(data: Mapping[str, Dataset], known: Mapping[str, Sequence[FileSize]]) -> AnnotatedSizes:
    """On which frame boxes were drawn, by all splits; of those whose files' sizes aren't known the headers are read."""
    images: list[AnnotatedImage] = []
    for name, split in data.items():
        files = known.get(name) or [
            one if isinstance(one, FileSize) else NO_SIZE for one in map_divided(split, _header_sizes)
        ]
        images += _annotated(split, files)
    return AnnotatedSizes.judge(images)


def _annotated(split: Dataset, files: Sequence[FileSize]) -> list[AnnotatedImage]:
    objects = split.with_format(None).select_columns(["objects"])
    return annotated(sizes_of(split), (row["objects"]["bbox"] for row in objects), files)


def _header_sizes(split: Dataset) -> list[FileSize | str]:
    """The size of each image, or what keeps it from being read."""
    images = split.with_format(None).select_columns(["image"])
    return list(map_rows(_size_of, images, "Looking at the size of every image"))


def _too_thin(one: ScannedImage, form: ImageFormat) -> str | None:
    try:
        form.resized(*one.size)
    except InputError as error:
        return f"{one.name}: {error}"
    return None


def _size_of(row: dict[str, Any]) -> FileSize | str:
    try:
        return file_size(row["image"])
    except ImageError as error:
        return str(error)


def _fitted(split: Dataset, files: Sequence[FileSize], frames: AnnotatedSizes) -> tuple[Dataset, dict[int, str]]:
    """The split with sizes and boxes as files have them; and of the rows where that can't be known, why."""
    images = _annotated(split, files)
    found = [frames.fit(one) for one in images]
    unknown = {
        row: f"{_name(split, row)}: {why_unclear(images[row])}; `detr-ft doctor` says how to mend it"
        for row, fit in enumerate(found)
        if fit is None
    }
    moves = {row: fit for row, fit in enumerate(found) if fit is not None and fit.how and min(files[row].upright) > 0}
    if not moves:
        return split, unknown
    for how in sorted({fit.how for fit in moves.values()}):
        rows = [row for row, fit in moves.items() if fit.how == how]
        log.warning(
            "%d images are not as their annotations state: %s; the first is %s", len(rows), how, _name(split, rows[0])
        )
    columns = list(split.with_format(None).select_columns(["width", "height", "objects"]))
    for row, fit in moves.items():
        columns[row] = _moved(columns[row], fit, files[row])
    return with_columns(split, {key: [row[key] for row in columns] for key in columns[0]}), unknown


def _moved(row: dict[str, Any], fit: Rescaling, file: FileSize) -> dict[str, Any]:
    objects = row["objects"]
    boxes = [fit.move(box) for box in map(box_of, objects["bbox"])]
    areas = zip(objects["area"], map(box_of, objects["bbox"]), boxes, strict=True)
    moved = {**objects, "bbox": [list(box) for box in boxes], "area": [moved_area(*one) for one in areas]}
    return {"width": file.upright[0], "height": file.upright[1], "objects": moved}


def _name(split: Dataset, row: int) -> str:
    one = split.with_format(None).select_columns(["image", "image_id"])[row]
    return provenance(one["image"], one["image_id"])
