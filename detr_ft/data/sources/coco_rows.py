"""Rows of COCO files: ids, names of image files, and boxes."""

from __future__ import annotations

from collections.abc import Mapping

from detr_ft.data.sources.image_finder import plain_path
from detr_ft.data.sources.parsing import is_id, parse_numbers, parse_rotation, shown
from detr_ft.data.sources.shapes_to_boxes import box_around_rotated, box_around_segmentation, is_upright_rectangle

Row = Mapping[str, object]
ImageId = int | str

_URLS = ("coco_url", "flickr_url", "url")


def box_of(row: Row, where: str, problems: list[str]) -> list[float] | None:
    """Return the bbox, rotated if stated, or without one the box around the segmentation."""
    stated, shape = row.get("bbox"), row.get("segmentation")
    if stated or not shape:
        box = parse_numbers(stated, 4)
        wrong = f"bbox must be [x, y, width, height], got {shown(stated)}"
    else:
        box = box_around_segmentation(shape)
        wrong = "has no bbox, and its segmentation must be polygons or a run-length encoded mask with pixels"
    if box is not None and shape and min(box[2:]) <= 0:
        box = box_around_segmentation(shape) or box  # some tools write a bbox of zeros
    if box is None:
        problems.append(f"{where}: {wrong}")
        return None
    attributes = row.get("attributes")
    rotation = attributes.get("rotation") if isinstance(attributes, dict) else None
    # CVAT writes the box before its rotation about the center. A polygon is written as rotated.
    if shape and not is_upright_rectangle(shape):
        return box
    degrees = parse_rotation(rotation)
    if degrees is None:
        problems.append(f"{where}: attributes.rotation must be degrees, got {shown(rotation)}")
        return None
    return box_around_rotated(box, degrees, (box[0] + box[2] / 2, box[1] + box[3] / 2))


def parse_id(value: object) -> ImageId | None:
    """Return the id of an image: a whole number, or a text that is none."""
    number = parse_whole(value)
    return number if number is not None else value if isinstance(value, str) and value.strip() else None


def parse_whole(value: object) -> int | None:
    """Return an id as a whole number. Tools that store tables also write "12" and 12.0."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and is_id(value) else None


def file_name_of(row: Row) -> str:
    """Return the name of an image's file, in LVIS the path in its URL."""
    names = (row.get(key) for key in ("file_name", *_URLS))
    return next((plain_path(name) for name in names if isinstance(name, str) and name), "")
