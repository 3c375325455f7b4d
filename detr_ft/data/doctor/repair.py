"""A mended copy of a data set: what can be mended is, what can't is left out, and every change is told."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.box_frame import MIN_SIDE_PX
from detr_ft.data.doctor.changes import Change, RepairedData, to_json_lines
from detr_ft.data.doctor.merging import Row, merge_classes, merge_copies
from detr_ft.data.doctor.statistics import SLACK_PX, boxes_of, converted, other_format
from detr_ft.data.export import refuse_filled, write_coco
from detr_ft.data.integrity.annotated_size import (
    AS_STATED,
    AnnotatedImage,
    AnnotatedSizes,
    Box,
    Frame,
    Rescaling,
    Size,
    annotated_images,
    as_box,
    moved_area,
)
from detr_ft.data.integrity.scan import DatasetScan, ScannedImage
from detr_ft.data.schema import class_names, sizes_of, with_columns
from detr_ft.errors import InputError

Step = tuple[str, Box, Box | None]  # what was done, before, after


@dataclass
class BoxRepairer:
    """Mends one image's boxes, one after another; it remembers those that it kept, to leave out their copies.

    `size` is the true one, in pixels, and `fit` what the boxes need to fit it; the steps of a box are in `steps`.
    """

    size: Size
    num_classes: int
    fit: Rescaling = AS_STATED
    steps: list[Step] = field(default_factory=list)
    _kept: set[tuple[Box, int]] = field(default_factory=set)

    def repair_data(self, box: Box, label: int) -> Box | None:
        """The box as it should be, or None where nothing of it can be kept; fills `steps`."""
        self.steps = []
        for what, after in self._mends(box, label):
            self.steps.append((what, box, after))
            if after is None:
                return None
            box = after
        self._kept.add((box, label))
        return box

    def _mends(self, box: Box, label: int) -> Iterator[tuple[str, Box | None]]:
        if not 0 <= label < self.num_classes:
            yield "left out: unknown class", None
        if not all(map(math.isfinite, box)):
            yield "left out: not finite", None
        moved = self.fit.move(box)
        if moved != box:
            box = moved
            yield self.fit.how, box
        if min(box[2:]) < 0:
            box = _in_order(box)
            yield "corners put in order", box
        if min(box[2:]) <= MIN_SIDE_PX:
            yield "left out: zero size", None
        if _leaves(box, self.size):
            clipped = _clipped(box, self.size)
            if clipped is None:
                yield "left out: outside", None
            else:
                box = clipped
                yield "clipped to the image", box
        if (box, label) in self._kept:
            yield "left out: duplicate box", None


def _in_order(box: Box) -> Box:
    x, y, w, h = box
    return min(x, x + w), min(y, y + h), abs(w), abs(h)


def _leaves(box: Box, size: Size) -> bool:
    x, y, w, h = box
    return min(x, y) < -SLACK_PX or x + w > size[0] + SLACK_PX or y + h > size[1] + SLACK_PX


def _clipped(box: Box, size: Size) -> Box | None:
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    width, height = min(box[0] + box[2], size[0]) - left, min(box[1] + box[3], size[1]) - top
    return (left, top, width, height) if min(width, height) > MIN_SIDE_PX else None


CHANGE_LOG = "changes.jsonl"


def write_repaired(mended: RepairedData, folder: Path) -> None:
    """Write the copy as COCO files, image files byte for byte, with `changes.jsonl`; the folder must be new or empty."""
    refuse_filled(folder)
    write_coco(mended.data, folder)
    try:
        (folder / CHANGE_LOG).write_text(to_json_lines(mended.changes), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder / CHANGE_LOG}: can't be written ({error.strerror or error})") from error


def repair_data(data: DatasetDict, looks: DatasetScan, drawn_on: Frame | None = None) -> RepairedData:
    """Mend every split of a data set whose files were looked at; the data set itself stays as it is.

    `drawn_on` says for which size boxes were drawn where a file has another than stated and they don't tell; without it
    such images are left out. Raises InputError where no image would be left.
    """
    data, changes = merge_classes(data)
    read = {split: _Read.of(rows, looks.splits[split]) for split, rows in data.items()}
    frames = AnnotatedSizes.infer((one for own in read.values() for one in own.images), drawn_on)
    mended: dict[str, list[Row | None]] = {}
    for split, rows in data.items():
        mender = _SplitMender(split, looks.splits[split], class_names(rows))
        mended[split] = list(mender.repair_data(rows, read[split], frames))
        changes += mender.changes
    changes += merge_copies(mended, looks)
    splits = {split: _kept(data[split], new) for split, new in mended.items() if any(new)}
    if not splits:
        raise InputError("no image can be kept, so there is nothing to write: none of them opens")
    return RepairedData(DatasetDict(splits), tuple(changes))


def _kept(rows: Dataset, mended: Sequence[Row | None]) -> Dataset:
    """The split without the images that aren't kept, and with the sizes and objects that the others have now."""
    kept = {index: row for index, row in enumerate(mended) if row is not None}
    columns = {key: [row[key] for row in kept.values()] for key in ("width", "height", "objects")}
    return with_columns(rows.select(list(kept)), columns)


@dataclass(frozen=True)
class _Read:
    """The images of a split with boxes in pixels, from the format that they were likely in (None: that was pixels)."""

    format: BoxFormat | None
    images: list[AnnotatedImage]

    @classmethod
    def of(cls, rows: Dataset, looks: Sequence[ScannedImage]) -> _Read:
        boxes = boxes_of(rows)
        format = other_format(boxes)
        in_pixels = converted(boxes, format).by_row(len(rows))
        return cls(format, annotated_images(sizes_of(rows), in_pixels, [one.file for one in looks]))


@dataclass
class _SplitMender:
    """One split on its way, with the changes so far."""

    split: str
    looks: list[ScannedImage]
    names: list[str]
    changes: list[Change] = field(default_factory=list)

    def repair_data(self, rows: Dataset, read: _Read, frames: AnnotatedSizes) -> Iterator[Row | None]:
        """Each row's size and objects as they should be; None for an image that can't be kept."""
        for index, (objects, one) in enumerate(zip(rows["objects"], read.images, strict=True)):
            fit = frames.fit(one)
            reason = self._reason_to_go(index, one, fit)
            if reason is not None:
                self._tell(index, None, *reason)
            yield None if reason or fit is None else self._mended_row(index, objects, one, fit, read.format)

    def _reason_to_go(self, index: int, image: AnnotatedImage, fit: Rescaling | None) -> tuple[str, Any, Any] | None:
        one = self.looks[index]
        if one.trouble:
            return f"left out: {one.trouble}", one.message, None
        if fit is None:
            return "left out: drawn for an unknown size", image.stated, one.size
        return None

    def _mended_row(
        self, index: int, objects: Mapping[str, Any], image: AnnotatedImage, fit: Rescaling, format: BoxFormat | None
    ) -> Row:
        one, stated = self.looks[index], image.stated
        if stated != one.size:
            self._tell(index, None, "size as the file has it", stated, one.size)
        mender = BoxRepairer(one.size, len(self.names), fit)
        new: dict[str, list[Any]] = {key: [] for key in objects}
        for place, read in enumerate(image.boxes):
            was, number = as_box(objects["bbox"][place]), objects["id"][place]
            if format is not None and was != read:
                self._tell(index, number, f"converted from {format}", was, read)
            mended = mender.repair_data(read, objects["category"][place])
            for what, before, after in mender.steps:
                self._tell(index, number, what, before, after)
            if mended is not None:
                for key, values in objects.items():
                    new[key].append(values[place])
                if mended != was:
                    new["bbox"][-1] = list(mended)
                    new["area"][-1] = moved_area(objects["area"][place], was, mended)
        return {"width": one.size[0], "height": one.size[1], "objects": new}

    def _tell(self, index: int, number: int | None, what: str, before: Any, after: Any) -> None:
        one = self.looks[index]
        self.changes.append(Change(self.split, one.path or one.name, one.image_id, number, what, before, after))
