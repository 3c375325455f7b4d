"""Check before training which images and boxes of a split are usable.

Every image is decoded, and boxes are adapted to images whose size differs from the annotated one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from detr_ft.data.box_frame import unusable_boxes
from detr_ft.data.images import NO_SIZE, FileSize, ImageError, file_size
from detr_ft.data.integrity.annotated_size import (
    AnnotatedImage,
    AnnotatedSizes,
    Rescaling,
    annotated_images,
    as_box,
    moved_area,
    unclear_reason,
)
from detr_ft.data.integrity.scan import ScannedImage, scan_images
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.data.schema import provenance, sizes_of, with_columns
from detr_ft.errors import InputError
from detr_ft.utils.collectives import map_divided
from detr_ft.utils.parallel import map_rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InspectedSplit:
    """A split after its files are scanned.

    `rows` are usable for training, with boxes in pixels of the actual images. `fingerprints` are those of the images of
    `rows`; `bad` has the reason for each image left out.
    """

    rows: Dataset
    fingerprints: list[bytes]
    bad: list[str]


def inspect_splits(data: Mapping[str, Dataset], names: Sequence[str], form: ImageFormat) -> dict[str, InspectedSplit]:
    """Scan every image of the splits `names`.

    The processes of a run divide the work, and each gets the whole result. An image is bad if it can't be read, if the
    size that its boxes were drawn for is unclear, if none of its boxes can be used, or if the model's image format,
    `form`, would resize a side to 0 pixels. All splits of `data` decide in which frame boxes were drawn. Moved boxes are logged.
    """
    scans = {name: map_divided(data[name], lambda rows: scan_images(rows, "Scanning images")) for name in names}
    sizes = _infer_sizes(data, {name: [image.file for image in images] for name, images in scans.items()})
    return {name: _inspect(data[name], images, sizes, form) for name, images in scans.items()}


def with_true_sizes(data: Mapping[str, Dataset], name: str, rows: Sequence[int] | None = None) -> Dataset:
    """Return a split, or some of its rows, with sizes and boxes of the actual upright images.

    All splits decide in which frame boxes were drawn, as in training. Only the headers of the files are read. Moved
    boxes are logged. Raises InputError with every selected image that has no readable header, whose boxes were drawn
    for an unclear size, or none of whose boxes can be used.
    """
    split = data[name]
    selected = range(len(split)) if rows is None else rows
    headers = _header_sizes(split)
    files = _known_sizes(headers)
    rescaled, unclear = _rescale(split, files, _infer_sizes(data, {name: files}))
    unreadable = {row: error for row, error in enumerate(headers) if isinstance(error, str)}
    unusable = _without_usable_boxes(rescaled)
    problems = [reasons[row] for reasons in (unreadable, unclear, unusable) for row in selected if row in reasons]
    if problems:
        raise InputError(shorten(problems))
    return rescaled if rows is None else rescaled.select(rows)


def shorten(problems: Sequence[str], count: int = 10) -> list[str]:
    """Return the first lines, and the number of those left out."""
    return [*problems[:count], *([f"and {len(problems) - count} more"] if len(problems) > count else [])]


def _inspect(
    split: Dataset, images: Sequence[ScannedImage], sizes: AnnotatedSizes, form: ImageFormat
) -> InspectedSplit:
    rescaled, unclear = _rescale(split, [image.file for image in images], sizes)
    unusable = _without_usable_boxes(rescaled)
    bad = {
        row: reason
        for row, image in enumerate(images)
        if (reason := image.message or unclear.get(row) or _too_thin(image, form) or unusable.get(row))
    }
    usable = [row for row in range(len(split)) if row not in bad]
    return InspectedSplit(
        rescaled.select(usable) if bad else rescaled,
        [images[row].fingerprint for row in usable],
        [bad[row] for row in sorted(bad)],
    )


def _infer_sizes(data: Mapping[str, Dataset], files: Mapping[str, Sequence[FileSize]]) -> AnnotatedSizes:
    """Infer the frames from all splits; reads the headers of splits that are not in `files`."""
    images: list[AnnotatedImage] = []
    for name, split in data.items():
        images += _annotated(split, files.get(name) or _known_sizes(map_divided(split, _header_sizes)))
    return AnnotatedSizes.infer(images)


def _annotated(split: Dataset, files: Sequence[FileSize]) -> list[AnnotatedImage]:
    objects = split.with_format(None).select_columns(["objects"])
    return annotated_images(sizes_of(split), (row["objects"]["bbox"] for row in objects), files)


def _header_sizes(split: Dataset) -> list[FileSize | str]:
    """Return the size of each image, or the error that prevents reading it."""
    images = split.with_format(None).select_columns(["image"])
    return list(map_rows(_header_size, images, "Reading image sizes"))


def _header_size(row: dict[str, Any]) -> FileSize | str:
    try:
        return file_size(row["image"])
    except ImageError as error:
        return str(error)


def _known_sizes(headers: Sequence[FileSize | str]) -> list[FileSize]:
    return [size if isinstance(size, FileSize) else NO_SIZE for size in headers]


def _without_usable_boxes(split: Dataset) -> dict[int, str]:
    """Return a message for each row whose boxes would leave it without objects, or are not all finite."""
    columns = split.with_format(None).select_columns(["width", "height", "objects"])
    reasons: dict[int, str] = {}
    for row, values in enumerate(columns):
        fault = unusable_boxes(values["objects"], values["width"], values["height"])
        if fault:
            reasons[row] = f"{_name(split, row)}: {fault}. See `detr-ft doctor`."
    return reasons


def _too_thin(image: ScannedImage, form: ImageFormat) -> str | None:
    try:
        form.resized(*image.size)
    except InputError as error:
        return f"{image.name}: {error}"
    return None


def _rescale(split: Dataset, files: Sequence[FileSize], sizes: AnnotatedSizes) -> tuple[Dataset, dict[int, str]]:
    """Return the split with sizes and boxes of the actual files, and the reasons of unclear rows."""
    images = _annotated(split, files)
    rescalings = [sizes.fit(image) for image in images]
    unclear = {
        row: f"{_name(split, row)}: {unclear_reason(images[row])}. See `detr-ft doctor`."
        for row, rescaling in enumerate(rescalings)
        if rescaling is None
    }
    changes = {
        row: rescaling
        for row, rescaling in enumerate(rescalings)
        if rescaling is not None and rescaling.how and min(files[row].upright) > 0
    }
    if not changes:
        return split, unclear
    for how in sorted({rescaling.how for rescaling in changes.values()}):
        rows = [row for row, rescaling in changes.items() if rescaling.how == how]
        log.warning("%d images differ from their annotations: %s; first: %s", len(rows), how, _name(split, rows[0]))
    columns = list(split.with_format(None).select_columns(["width", "height", "objects"]))
    for row, rescaling in changes.items():
        columns[row] = _moved(columns[row], rescaling, files[row])
    return with_columns(split, {key: [row[key] for row in columns] for key in columns[0]}), unclear


def _moved(row: dict[str, Any], rescaling: Rescaling, file: FileSize) -> dict[str, Any]:
    objects = row["objects"]
    before = [as_box(values) for values in objects["bbox"]]
    boxes = [rescaling.move(box) for box in before]
    areas = [moved_area(*values) for values in zip(objects["area"], before, boxes, strict=True)]
    moved = {**objects, "bbox": [list(box) for box in boxes], "area": areas}
    return {"width": file.upright[0], "height": file.upright[1], "objects": moved}


def _name(split: Dataset, row: int) -> str:
    image = split.with_format(None).select_columns(["image", "image_id"])[row]
    return provenance(image["image"], image["image_id"])
