"""Repair of a data set: a copy with defects corrected or left out, and a log of every change."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.box_frame import MIN_SIDE_PX
from detr_ft.data.doctor.changes import CHANGE_LOG, Change, RepairedData, entries_not_copied, to_json_lines
from detr_ft.data.doctor.merging import Row, merge_classes, merge_copies
from detr_ft.data.doctor.statistics import SLACK_PX, boxes_of, converted, other_format
from detr_ft.data.export import write_coco
from detr_ft.data.integrity.annotated_size import (
    AS_STATED,
    SIZE_ALONE,
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
from detr_ft.data.sources.problems import Problem
from detr_ft.errors import InputError
from detr_ft.utils.files import check_new_folder, writing

Step = tuple[str, Box, Box | None]  # what was done, before, after


def write_repaired(repaired: RepairedData, folder: Path) -> None:
    """Write the copy, image files unchanged, as COCO files with `changes.jsonl` to an empty folder."""
    check_new_folder(folder)
    write_coco(repaired.data, folder)
    with writing(folder / CHANGE_LOG):
        (folder / CHANGE_LOG).write_text(to_json_lines(repaired.changes), encoding="utf-8")


def repair_data(
    data: DatasetDict,
    scan: DatasetScan,
    drawn_on: Frame | None = None,
    problems: Sequence[Problem] = (),
) -> RepairedData:
    """Return a repaired copy of every split of a scanned data set.

    Images of refused `problems` are left out. `drawn_on` is the frame of boxes whose file has another size than stated,
    if they fit in both; without it such images are left out. Entries of the files that belong to no image are listed among
    the changes. Raises InputError if no image is left.
    """
    refused = {(problem.split, problem.row): problem for problem in reversed(problems) if problem.refused}
    data, changes = merge_classes(data)
    in_pixels = {split: _SplitInPixels.of(rows, scan.splits[split]) for split, rows in data.items()}
    sizes = AnnotatedSizes.infer((image for split in in_pixels.values() for image in split.images), drawn_on)
    repaired: dict[str, list[Row | None]] = {}
    for split, rows in data.items():
        of_split = {row: problem for (name, row), problem in refused.items() if name == split and row is not None}
        repairer = _SplitRepairer(split, scan.splits[split], class_names(rows), of_split)
        repaired[split] = list(repairer.repair(rows, in_pixels[split], sizes))
        changes += repairer.changes
    changes += merge_copies(repaired, scan)
    changes += entries_not_copied(problems)
    splits = {split: _remaining(data[split], rows) for split, rows in repaired.items() if any(rows)}
    if not splits:
        raise InputError(
            "the data has no image that can be read or repaired: there is nothing to write. Check the files."
        )
    return RepairedData(DatasetDict(splits), tuple(changes))


def _remaining(rows: Dataset, repaired: Sequence[Row | None]) -> Dataset:
    """Return the split without the images left out, with the repaired sizes and objects."""
    remaining = {index: row for index, row in enumerate(repaired) if row is not None}
    columns = {key: [row[key] for row in remaining.values()] for key in ("width", "height", "objects")}
    return with_columns(rows.select(list(remaining)), columns)


@dataclass(frozen=True)
class _SplitInPixels:
    """The images of a split with boxes in pixels, converted from `format`, or as they were if it is None."""

    format: BoxFormat | None
    images: list[AnnotatedImage]

    @classmethod
    def of(cls, rows: Dataset, scans: Sequence[ScannedImage]) -> _SplitInPixels:
        boxes = boxes_of(rows)
        format = other_format(boxes)
        in_pixels = converted(boxes, format).by_row(len(rows))
        return cls(format, annotated_images(sizes_of(rows), in_pixels, [scan.file for scan in scans]))


@dataclass
class _SplitRepairer:
    """Repairs the rows of one split and records the changes."""

    split: str
    scans: list[ScannedImage]
    names: list[str]
    refused: Mapping[int, Problem]
    changes: list[Change] = field(default_factory=list)

    def repair(self, rows: Dataset, in_pixels: _SplitInPixels, sizes: AnnotatedSizes) -> Iterator[Row | None]:
        """Yield the repaired size and objects of each row; None for an image that is left out."""
        for index, (objects, image) in enumerate(zip(rows["objects"], in_pixels.images, strict=True)):
            rescaling = sizes.fit(image)
            reason = self._reason_to_leave_out(index, objects["category"], image, rescaling)
            if reason is not None:
                self._record(index, None, *reason)
            if reason is not None or rescaling is None:
                yield None
                continue
            row = self._repaired_row(index, objects, image, rescaling, in_pixels.format)
            if objects["bbox"] and not row["objects"]["bbox"]:
                self._record(index, None, "left out: no usable box", f"{len(image.boxes)} boxes", None)
                yield None
            else:
                yield row

    def _reason_to_leave_out(
        self, index: int, labels: Sequence[int], image: AnnotatedImage, rescaling: Rescaling | None
    ) -> tuple[str, Any, Any] | None:
        scan = self.scans[index]
        if scan.trouble:
            return f"left out: {scan.trouble}", scan.message, None
        if index in self.refused:
            return f"left out: {self.refused[index].kind}", self.refused[index].message, None
        unknown = [label for label in labels if not 0 <= label < len(self.names)]
        if unknown:
            return "left out: unknown class", f"class indices {unknown}", None
        if rescaling is None:
            return "left out: drawn for an unknown size", image.stated, scan.size
        return None

    def _repaired_row(
        self,
        index: int,
        objects: Mapping[str, Any],
        image: AnnotatedImage,
        rescaling: Rescaling,
        format: BoxFormat | None,
    ) -> Row:
        size = self.scans[index].size
        if image.stated != size:
            self._record(index, None, SIZE_ALONE, image.stated, size)
        repairer = BoxRepairer(size, rescaling)
        new: dict[str, list[Any]] = {key: [] for key in objects}
        for position, in_pixels in enumerate(image.boxes):
            original, number = as_box(objects["bbox"][position]), objects["id"][position]
            if format is not None and original != in_pixels:
                self._record(index, number, f"converted from {format}", original, in_pixels)
            repaired = repairer.repair(in_pixels, objects["category"][position])
            for what, before, after in repairer.steps:
                self._record(index, number, what, before, after)
            if repaired is not None:
                for key, values in objects.items():
                    new[key].append(values[position])
                if repaired != original:
                    new["bbox"][-1] = list(repaired)
                    new["area"][-1] = moved_area(objects["area"][position], original, repaired)
        return {"width": size[0], "height": size[1], "objects": new}

    def _record(self, index: int, number: int | None, what: str, before: Any, after: Any) -> None:
        scan = self.scans[index]
        self.changes.append(Change(self.split, scan.path or scan.name, scan.image_id, number, what, before, after))


@dataclass
class BoxRepairer:
    """Repairs the boxes of one image in order, and leaves out repeated ones.

    `size` is the true one, in pixels, and `rescaling` fits boxes to it; `steps` are those of the last box.
    """

    size: Size
    rescaling: Rescaling = AS_STATED
    steps: list[Step] = field(default_factory=list)
    _used: set[tuple[Box, int]] = field(default_factory=set)

    def repair(self, box: Box, label: int) -> Box | None:
        """Return the repaired box, or None if it is left out; sets `steps`."""
        self.steps = []
        for what, after in self._steps(box, label):
            self.steps.append((what, box, after))
            if after is None:
                return None
            box = after
        self._used.add((box, label))
        return box

    def _steps(self, box: Box, label: int) -> Iterator[tuple[str, Box | None]]:
        if not all(map(math.isfinite, box)):
            yield "left out: not finite", None
        moved = self.rescaling.move(box)
        if moved != box:
            box = moved
            yield self.rescaling.how, box
        if min(box[2:]) < 0:
            box = _ordered(box)
            yield "corners put in order", box
        if min(box[2:]) <= MIN_SIDE_PX:
            yield "left out: zero size", None
        if _extends_beyond(box, self.size):
            clipped = _clipped(box, self.size)
            if clipped is None:
                yield "left out: outside", None
            else:
                box = clipped
                yield "clipped to the image", box
        if (box, label) in self._used:
            yield "left out: duplicate box", None


def _ordered(box: Box) -> Box:
    x, y, w, h = box
    return min(x, x + w), min(y, y + h), abs(w), abs(h)


def _extends_beyond(box: Box, size: Size) -> bool:
    x, y, w, h = box
    return min(x, y) < -SLACK_PX or x + w > size[0] + SLACK_PX or y + h > size[1] + SLACK_PX


def _clipped(box: Box, size: Size) -> Box | None:
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    width, height = min(box[0] + box[2], size[0]) - left, min(box[1] + box[3], size[1]) - top
    return (left, top, width, height) if min(width, height) > MIN_SIDE_PX else None
