"""Boxes around shapes: points, rotated rectangles, and COCO segmentations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from faster_coco_eval import mask as coco_mask
from numpy.typing import NDArray

from detr_ft.data.images import MAX_PIXELS
from detr_ft.data.sources.parsing import parse_numbers


def box_around(points: Sequence[Sequence[float]] | NDArray[np.number[Any]]) -> list[float]:
    """Return the box xywh around points `[N, 2]` with N >= 1, in their unit."""
    corners = np.asarray(points, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # the doctor reports defective boxes
        low, high = corners.min(axis=0), corners.max(axis=0)
        return [*low.tolist(), *(high - low).tolist()]


def box_around_rotated(box: Sequence[float], degrees: float, pivot: tuple[float, float]) -> list[float]:
    """Return the box xywh around a box xywh that is rotated about `pivot`.

    Rotation is clockwise on the screen (y points down). A number that is not finite makes all four NaN, which the
    doctor reports.
    """
    if not degrees:
        return list(box)
    if not all(map(math.isfinite, (*box, degrees))):
        return [math.nan] * 4
    x, y, w, h = box
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    with np.errstate(invalid="ignore", over="ignore"):
        corners = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]]) - pivot
        return box_around(corners @ np.array([[cos, sin], [-sin, cos]]) + pivot)


def box_around_ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0) -> list[float]:
    """Return the box xywh around an ellipse of these radii, rotated clockwise about its center."""
    if not all(map(math.isfinite, (cx, cy, rx, ry, degrees))):
        return [math.nan] * 4
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_width, half_height = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    return [cx - half_width, cy - half_height, 2 * half_width, 2 * half_height]


def box_around_runs(runs: Sequence[float], window: Sequence[float]) -> list[float] | None:
    """Return the box xywh around the ones of a mask, None if it is invalid or has none.

    `runs` are the lengths of alternating runs of zeros and ones, row by row, in a `window` xywh of whole pixels.
    """
    numbers = [*runs, *window]
    if not all(math.isfinite(number) and number >= 0 and number % 1 == 0 for number in numbers):
        return None
    left, top, width, height = map(int, window)
    if not 0 < width * height <= MAX_PIXELS or sum(runs) > width * height:
        return None
    values = np.resize([False, True], len(runs))
    pixels = np.flatnonzero(np.repeat(values, np.asarray(runs, dtype=np.int64)))
    if not len(pixels):
        return None
    rows, columns = np.divmod(pixels, width)
    corners = [[columns.min() + left, rows.min() + top], [columns.max() + 1 + left, rows.max() + 1 + top]]
    return box_around(corners)


def box_around_mask(mask: NDArray[np.bool_]) -> list[float] | None:
    """Return the box xywh around the true pixels of a mask `[H, W]`, None if there are none."""
    columns_and_rows = np.argwhere(mask.T)
    if not len(columns_and_rows):
        return None
    # A pixel extends to the start of the next one.
    return box_around(np.concatenate([columns_and_rows, columns_and_rows + 1]))


def box_around_segmentation(segmentation: object) -> list[float] | None:
    """Return the box xywh in pixels around polygons or a mask of COCO, None for anything else."""
    if isinstance(segmentation, dict):
        return _around_mask(segmentation)
    polygons = _polygons(segmentation)
    return box_around([point for polygon in polygons for point in polygon]) if polygons else None


def is_upright_rectangle(segmentation: object) -> bool:
    """Return whether polygons of COCO are one rectangle with sides along the axes."""
    polygons = _polygons(segmentation)
    if polygons is None or len(polygons) != 1:
        return False
    x, y, w, h = box_around(polygons[0])
    return {tuple(point) for point in polygons[0]} == {(x, y), (x + w, y), (x + w, y + h), (x, y + h)}


def _polygons(value: object) -> list[list[list[float]]] | None:
    """Return polygons `[x, y]` from lists of x, y, x, y, ...; a single one may have no outer list."""
    if not isinstance(value, list) or not value:
        return None
    rows = value if isinstance(value[0], list) else [value]
    flat = [parse_numbers(row, len(row)) if isinstance(row, list) else None for row in rows]
    polygons = [np.reshape(row, (-1, 2)).tolist() for row in flat if row and len(row) % 2 == 0 and len(row) >= 6]
    return polygons if len(polygons) == len(rows) else None


def _around_mask(runs: dict[str, object]) -> list[float] | None:
    counts, size = runs.get("counts"), parse_numbers(runs.get("size"), 2)
    if size is None or not all(math.isfinite(side) and side >= 1 and side % 1 == 0 for side in size):
        return None
    height, width = map(int, size)
    if height * width > MAX_PIXELS:
        return None
    try:
        encoded = {"size": [height, width], "counts": counts}
        if isinstance(counts, list):
            encoded = coco_mask.frPyObjects(encoded, height, width)
        elif not isinstance(counts, str) or not counts:
            return None
        # Decoding counts the pixels, which detects a truncated text.
        decoded = np.asarray(coco_mask.decode(encoded)).astype(bool)
    except (ValueError, TypeError, OverflowError, RuntimeError):
        return None
    return box_around_mask(decoded)
