"""Convert boxes whose format the data do not define to COCO xywh in pixels, and log that format."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np

from detr_ft.data.box_format import FORMATS, BoxFormat, Numbers, check_format, recognize_format
from detr_ft.data.sources.record import Record
from detr_ft.errors import InputError

log = logging.getLogger(__name__)


def convert_boxes(
    records: Iterable[Record], origin: str, format: BoxFormat | None, among: Sequence[BoxFormat] = FORMATS
) -> None:
    """Convert the boxes of all splits in place, from `format`, by default from the recognized one."""
    filled = [record for record in records if record.boxes]
    chosen = choose_format(filled, origin, format, among)
    for record in filled:
        convert_record(record, chosen)


def choose_format(
    records: Sequence[Record], origin: str, format: BoxFormat | None, among: Sequence[BoxFormat] = FORMATS
) -> BoxFormat:
    """Return `format`, by default the recognized one, and log the number of boxes that fit it.

    Raises InputError if most boxes contradict `format`.
    """
    filled = [record for record in records if record.boxes]
    if not filled:
        return format or among[0]
    boxes = np.concatenate([np.asarray(record.boxes) for record in filled])
    sizes = np.concatenate([_sizes(record) for record in filled])
    try:
        reading = check_format(format, boxes, sizes) if format else recognize_format(boxes, sizes, among)
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error
    level = logging.WARNING if reading.doubt else logging.INFO
    log.log(level, "%s: %s%s", origin, reading, "" if format else "; box_format overrides")
    return reading.format


def convert_record(record: Record, format: BoxFormat) -> None:
    """Convert a record's boxes in place, and of fractions also areas up to 1 (fractions of the image)."""
    if format == FORMATS[0] or not record.boxes:
        return
    record.boxes = format.to_xywh(np.asarray(record.boxes), _sizes(record)).tolist()
    if format.unit == "fractions":
        image_area = record.width * record.height
        record.areas = [area * image_area if area is not None and area <= 1 else area for area in record.areas]


def _sizes(record: Record) -> Numbers:
    return np.full((len(record.boxes), 2), (record.width, record.height), dtype=np.float64)
