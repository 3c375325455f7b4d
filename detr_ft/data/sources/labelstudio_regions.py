"""Regions of Label Studio: their labels, and the boxes around their shapes."""

from __future__ import annotations

from collections.abc import Mapping

from detr_ft.data.sources.brush import box_around_brush
from detr_ft.data.sources.parsing import parse_numbers, parse_rotation, parse_side
from detr_ft.data.sources.shapes_to_boxes import box_around, box_around_ellipse, box_around_rotated

# Types of the values of a region beside its labels, which repeat its shape.
REPEATED_SHAPES = ("choices", "datetime", "number", "rating", "taxonomy", "textarea")
WITHOUT_AREA = ("keypointlabels", "keypoint", "vectorlabels", "vector")
_SHAPES = ("rectangle", "polygon", "ellipse", "brush", "bitmask", *WITHOUT_AREA)
_KEYS_OF_OTHER_MEDIA = ("start", "end", "sequence")  # of texts, sounds and videos

Row = Mapping[str, object]


def is_rotated(region: Row) -> bool:
    """Return whether a region was drawn on a rotated image. A rotation that is no number counts as one."""
    degrees = parse_rotation(region.get("image_rotation"))
    return degrees is None or degrees % 360 != 0


def labels_of(region: Row) -> list[object]:
    """Return the classes of a region, under `rectanglelabels`, `polygonlabels` or `labels`."""
    value = region.get("value")
    fields = value if isinstance(value, dict) else {}
    return next((as_list(fields[key]) for key in fields if key.endswith("labels")), [])


def is_shape(value: Row) -> bool:
    """Return whether a value has the position of a shape."""
    return any(key in value for key in ("x", "points", "rle", "imageDataURL", "vertices"))


def needs_of(value: Row) -> str:
    """Return the requirement of a region whose box can't be read, for a message."""
    return "a run-length encoded mask with pixels" if "rle" in value else "numbers, in percent of the image"


def box_of(value: Row, width: int, height: int) -> list[float] | None:
    """Return the box xywh in pixels around a region: a mask, or a shape in percent."""
    if "rle" in value:
        return box_around_brush(value["rle"], width, height)
    percent = _box_in_percent(value)
    if percent is None:
        return None
    degrees = parse_rotation(value.get("rotation"))
    if degrees is None:
        return None
    x, y, w, h = percent
    box = [x * width / 100, y * height / 100, w * width / 100, h * height / 100]
    if "radiusX" in value:
        return box_around_ellipse(box[0] + box[2] / 2, box[1] + box[3] / 2, box[2] / 2, box[3] / 2, degrees)
    return box_around_rotated(box, degrees, (box[0], box[1]))


def _box_in_percent(value: Row) -> list[float] | None:
    """Return the box xywh around a polygon, an ellipse or a rectangle before its rotation."""
    if "points" in value:
        points = [parse_numbers(point, 2) for point in as_list(value["points"])]
        valid = [point for point in points if point]
        return box_around(valid) if len(valid) == len(points) >= 3 else None
    if "radiusX" in value:
        ellipse = parse_numbers([value.get(key) for key in ("x", "y", "radiusX", "radiusY")], 4)
        return None if ellipse is None else box_around_ellipse(*ellipse)
    return parse_numbers([value.get(key) for key in ("x", "y", "width", "height")], 4)


def stated_size(region: Row) -> tuple[int, int] | None:
    """Return width and height of the image as a region states them, else None."""
    width, height = parse_side(region.get("original_width")), parse_side(region.get("original_height"))
    return (width, height) if width and height else None


def is_object(region: Row) -> bool:
    """Return whether a region must have a shape, unlike relations, choices and texts."""
    value, kind = region.get("value"), str(region.get("type"))
    if kind in REPEATED_SHAPES:
        return False
    if not isinstance(region.get("type"), str):
        return True
    fields = value if isinstance(value, dict) else {}
    has_labels = any(key.endswith("labels") for key in fields)
    of_other_media = any(key in fields for key in _KEYS_OF_OTHER_MEDIA)
    is_damaged = "value" in region and not isinstance(value, dict)
    return (
        is_damaged
        or is_shape(fields)
        or (not of_other_media and (kind in _SHAPES or kind.endswith("labels") or has_labels))
    )


def num_objects(annotation: Row) -> int:
    """Return the number of labels of an annotation's shapes."""
    regions = [row for row in as_list(annotation.get("result")) if isinstance(row, dict)]
    shapes = [
        row for row in regions if is_object(row) and isinstance(row.get("value"), dict) and is_shape(row["value"])
    ]
    return sum(len(labels_of(row)) for row in shapes)


def as_list(value: object) -> list[object]:
    """Return a list as it is, an empty list for anything else."""
    return value if isinstance(value, list) else []
