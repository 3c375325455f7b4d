"""Brings the boxes of a source that doesn't say its format to COCO xywh in pixels, and tells how they were read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np

from detr_ft.data.box_format import FORMATS, BoxFormat, Numbers, check_format, recognize_format
from detr_ft.data.sources.record import Record
from detr_ft.errors import InputError

log = logging.getLogger(__name__)


def settle_boxes(
    records: Iterable[Record], origin: str, format: BoxFormat | None, among: Sequence[BoxFormat] = FORMATS
) -> None:
    """Convert the boxes of all splits' records, in place, from `format`, or where it is None from the one recognised."""
    filled = [record for record in records if record.boxes]
    settled = settled_format(filled, origin, format, among)
    for record in filled:
        convert(record, settled)


def settled_format(
    records: Sequence[Record], origin: str, format: BoxFormat | None, among: Sequence[BoxFormat] = FORMATS
) -> BoxFormat:
    """The `format`, or where it is None the one recognised; how many boxes fit it is said on the log.

    Raises InputError where the `format` is plainly wrong.
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


def convert(record: Record, format: BoxFormat) -> None:
    """Convert a record's boxes from a format, in place, and with fractions also areas that are fractions of the image."""
    if format == FORMATS[0] or not record.boxes:
        return
    record.boxes = format.to_xywh(np.asarray(record.boxes), _sizes(record)).tolist()
    if format.unit == "fractions":
        whole = record.width * record.height
        record.areas = [area * whole if area is not None and area <= 1 else area for area in record.areas]


def _sizes(record: Record) -> Numbers:
    return np.full((len(record.boxes), 2), (record.width, record.height), dtype=np.float64)
