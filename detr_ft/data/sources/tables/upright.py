"""Records of rows that come one by one, brought onto their images as they are, upright."""

from __future__ import annotations

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.images import NO_SIZE, FileSize, ImageError, file_size
from detr_ft.data.integrity.annotated_size import AnnotatedImage, AnnotatedSizes, as_box, moved_area, unclear_reason
from detr_ft.data.sources.record import Record
from detr_ft.data.sources.tables.box_reading import convert
from detr_ft.data.sources.tables.columns import StoredImage
from detr_ft.errors import InputError


def size_of(image: StoredImage | None) -> FileSize:
    """The size of an image's file; none of one that can't be read: whoever decodes it says so."""
    try:
        return file_size(image) if image else NO_SIZE
    except ImageError:
        return NO_SIZE


def in_pixels(record: Record, size: FileSize, format: BoxFormat) -> AnnotatedImage:
    """Convert a record's boxes from a format, in place, and give it as annotated.

    Fractions need no stated size: they are of the image as whoever drew the boxes saw it, upright.
    """
    if format.unit == "fractions" and size != NO_SIZE:
        record.width, record.height = size.upright
    convert(record, format)
    return AnnotatedImage((record.width, record.height), list(map(as_box, record.boxes)), size)


def move(record: Record, one: AnnotatedImage, frames: AnnotatedSizes, where: str) -> None:
    """Bring a record's size and boxes, in place, onto its image. Raises InputError where it can't be known how."""
    fit = frames.fit(one)
    if fit is None:
        raise InputError(f"{where}: {unclear_reason(one)}")
    if not fit.how or one.file == NO_SIZE:
        return
    moved = [fit.move(box) for box in one.boxes]
    areas = zip(record.areas, one.boxes, moved, strict=True)
    record.areas = [area if area is None else moved_area(area, before, after) for area, before, after in areas]
    record.boxes = [list(box) for box in moved]
    record.width, record.height = one.file.upright
