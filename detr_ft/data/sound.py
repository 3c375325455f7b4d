"""What of a split can be trained on, found out before training rather than in its third hour, or never.

Every image is decoded, and boxes are brought onto images that aren't of the size that their annotations state.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset

from detr_ft.data.images import NO_SIZE, FileSize, ImageError, file_size
from detr_ft.data.look import Look, look_at
from detr_ft.data.parallel import map_rows
from detr_ft.data.schema import provenance, sizes_of, with_columns
from detr_ft.data.transforms import ImageFormat
from detr_ft.data.true_size import Fit, annotated, box_of, fits, moved_area, why_unclear
from detr_ft.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inspected:
    """A split once its files were looked at: `rows` are those that can be trained on, their boxes on images as they are.

    `fingerprints` are what the rows' images look like, and `bad` says of every image left out why.
    """

    rows: Dataset
    fingerprints: list[bytes]
    bad: list[str]


def inspect(split: Dataset, form: ImageFormat) -> Inspected:
    """Look at every image of a split. The processes of a run share the work, and each gets all of the answer.

    Bad are those that can't be read, that have boxes for nobody knows which size, or that `form`, the model's, would resize
    to nothing. Boxes that were moved are told on the log.
    """
    looks = _shared_look(split)
    rows, unknown = _fitted(split, [one.file for one in looks])
    bad = {
        row: why for row, one in enumerate(looks) if (why := one.message or unknown.get(row) or _too_thin(one, form))
    }
    kept = [row for row in range(len(split)) if row not in bad]
    return Inspected(
        rows.select(kept) if bad else rows, [looks[row].fingerprint for row in kept], [bad[row] for row in sorted(bad)]
    )


def with_true_sizes(split: Dataset, rows: Sequence[int] | None = None) -> Dataset:
    """The split, or these of its rows, in pixels of its images as they are, upright, whatever size its annotations state.

    All of the split judges on which frame boxes were drawn. Only the headers of the files are read. Boxes that were moved
    are told on the log. Raises UserError, with every image asked for that has no readable header, or whose boxes were drawn
    for nobody knows which size.
    """
    wanted = range(len(split)) if rows is None else rows
    images = split.with_format(None).select_columns(["image"])
    sizes = list(map_rows(_size_of, images, "Looking at the size of every image"))
    fitted, unknown = _fitted(split, [one if isinstance(one, FileSize) else NO_SIZE for one in sizes])
    unreadable = {row: one for row, one in enumerate(sizes) if isinstance(one, str)}
    problems = [found[row] for found in (unreadable, unknown) for row in wanted if row in found]
    if problems:
        raise UserError(first_of(problems))
    return fitted if rows is None else fitted.select(rows)


def first_of(problems: Sequence[str], shown: int = 10) -> list[str]:
    """The first few of many lines, and how many more there are."""
    return [*problems[:shown], *([f"and {len(problems) - shown} more"] if len(problems) > shown else [])]


def _shared_look(split: Dataset) -> list[Look]:
    state = PartialState()
    mine = range(state.process_index, len(split), state.num_processes)
    looks = zip(mine, look_at(split.select(mine), "Looking at every image"), strict=True)
    return [one for _, one in sorted(gather_object(list(looks)), key=lambda pair: pair[0])]


def _too_thin(one: Look, form: ImageFormat) -> str | None:
    try:
        form.resized(*one.size)
    except UserError as error:
        return f"{one.name}: {error}"
    return None


def _size_of(row: dict[str, Any]) -> FileSize | str:
    try:
        return file_size(row["image"])
    except ImageError as error:
        return str(error)


def _fitted(split: Dataset, files: Sequence[FileSize]) -> tuple[Dataset, dict[int, str]]:
    """The split with sizes and boxes as files have them; and of the rows where that can't be known, why."""
    columns = list(split.with_format(None).select_columns(["width", "height", "objects"]))
    images = annotated(sizes_of(split), (row["objects"]["bbox"] for row in columns), files)
    found = fits(images)
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
    for row, fit in moves.items():
        columns[row] = _moved(columns[row], fit, files[row])
    return with_columns(split, {key: [row[key] for row in columns] for key in columns[0]}), unknown


def _moved(row: dict[str, Any], fit: Fit, file: FileSize) -> dict[str, Any]:
    objects = row["objects"]
    boxes = [fit.move(box) for box in map(box_of, objects["bbox"])]
    areas = zip(objects["area"], map(box_of, objects["bbox"]), boxes, strict=True)
    moved = {**objects, "bbox": [list(box) for box in boxes], "area": [moved_area(*one) for one in areas]}
    return {"width": file.upright[0], "height": file.upright[1], "objects": moved}


def _name(split: Dataset, row: int) -> str:
    one = split.with_format(None).select_columns(["image", "image_id"])[row]
    return provenance(one["image"], one["image_id"])
