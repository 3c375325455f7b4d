"""Checks of a split's boxes as a whole: patterns that a broken exporter or annotation tool leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from detr_ft.data.doctor.finding import Finding, finding
from detr_ft.data.doctor.statistics import BoxColumns, Floats, Mask
from detr_ft.data.integrity.scan import ScannedImage

_MIN_BOXES, _MIN_IMAGES = 10, 5  # fewer can have a pattern by chance
_EDGE_SLACK = 0.02  # fraction of a side of the image
_SIZE_SLACK_PX = 0.5
_MAX_AT_EDGE, _MAX_AT_CORNER, _MAX_EQUAL = 0.6, 0.3, 0.5  # fractions of the boxes
_WHOLE_IMAGE = 0.9  # fraction of its area that a box of the whole image covers


def pattern_findings(
    split: str, boxes: BoxColumns, scans: Sequence[ScannedImage], names: Sequence[str]
) -> Iterator[Finding]:
    """Yield findings of boxes at one border, boxes that never vary, and classes of one size."""
    usable = _usable(boxes)
    yield from _at_borders(split, boxes, usable, scans)
    yield from _never_varying(split, boxes, usable, scans)
    yield from _of_one_size(split, boxes, usable, scans, names)


def _usable(boxes: BoxColumns) -> Mask:
    """Return the mask of valid boxes that do not cover their whole image."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        covered = boxes.xywh[:, 2:].prod(1) / boxes.size.prod(1)
    return np.asarray(boxes.valid & ~boxes.crowd & (covered < _WHOLE_IMAGE))


def _at_borders(split: str, boxes: BoxColumns, usable: Mask, scans: Sequence[ScannedImage]) -> Iterator[Finding]:
    """Yield a finding for the corner that too many boxes share, else for each edge."""
    slack = _EDGE_SLACK * boxes.size
    with np.errstate(invalid="ignore", over="ignore"):
        touching: Mapping[str, Mask] = {
            "left": np.abs(boxes.xywh[:, 0]) <= slack[:, 0],
            "right": np.abs(boxes.xywh[:, 0] + boxes.xywh[:, 2] - boxes.size[:, 0]) <= slack[:, 0],
            "top": np.abs(boxes.xywh[:, 1]) <= slack[:, 1],
            "bottom": np.abs(boxes.xywh[:, 1] + boxes.xywh[:, 3] - boxes.size[:, 1]) <= slack[:, 1],
        }
    corners = {
        f"the {vertical} {horizontal} corner": touching[vertical] & touching[horizontal]
        for vertical in ("top", "bottom")
        for horizontal in ("left", "right")
    }
    at_corners = list(_crowded(split, boxes, usable, scans, corners, _MAX_AT_CORNER))
    edges = {f"the {side} edge": mask for side, mask in touching.items()}
    yield from at_corners or _crowded(split, boxes, usable, scans, edges, _MAX_AT_EDGE)


def _crowded(
    split: str,
    boxes: BoxColumns,
    usable: Mask,
    scans: Sequence[ScannedImage],
    places: Mapping[str, Mask],
    limit: float,
) -> Iterator[Finding]:
    total = int(usable.sum())
    for place, mask in places.items():
        indices = np.flatnonzero(usable & mask)
        if len(indices) >= _MIN_BOXES and len(indices) > limit * total and _images(boxes, indices) >= _MIN_IMAGES:
            message = f"{len(indices)} of {total} boxes are at {place} of their image, as if their offset were lost"
            yield _at(split, "boxes at the border", boxes, int(indices[0]), scans, message)


def _never_varying(split: str, boxes: BoxColumns, usable: Mask, scans: Sequence[ScannedImage]) -> Iterator[Finding]:
    """Yield a finding if the same box, as fractions of the image, is in many images."""
    indices = np.flatnonzero(usable)
    if len(indices) < _MIN_BOXES:
        return
    relative = np.round(boxes.xywh[indices] / np.tile(boxes.size[indices], 2), 4)
    equal = indices[_of_most_common(relative)]
    images, total = _images(boxes, equal), len(np.unique(boxes.row[indices]))
    if images >= max(_MIN_IMAGES, _MAX_EQUAL * total) and images > 1:
        message = f"the same box is in {images} of {total} images with boxes"
        yield _at(split, "boxes never vary", boxes, int(equal[0]), scans, message)


def _of_one_size(
    split: str, boxes: BoxColumns, usable: Mask, scans: Sequence[ScannedImage], names: Sequence[str]
) -> Iterator[Finding]:
    """Yield a finding for each class whose boxes all have one width and height."""
    for label, name in enumerate(names):
        indices = np.flatnonzero(usable & (boxes.label == label))
        if len(indices) < _MIN_BOXES or _images(boxes, indices) < _MIN_IMAGES:
            continue
        sizes = boxes.xywh[indices, 2:]
        if np.ptp(sizes, axis=0).max() <= _SIZE_SLACK_PX:
            width, height = sizes[0]
            message = f"all {len(indices)} boxes of {name!r} are {width:g}x{height:g} pixels"
            yield _at(split, "one size", boxes, int(indices[0]), scans, message)


def _of_most_common(rows: Floats) -> Mask:
    """Return the mask of the rows that equal the most common one."""
    _, group, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    return np.asarray(group.reshape(-1) == counts.argmax())


def _images(boxes: BoxColumns, indices: np.ndarray) -> int:
    return len(np.unique(boxes.row[indices]))


def _at(split: str, kind: str, boxes: BoxColumns, index: int, scans: Sequence[ScannedImage], message: str) -> Finding:
    row = int(boxes.row[index])
    return finding(
        kind, split, message, image=scans[row].name, image_id=scans[row].image_id,
        annotation=int(boxes.id[index]), row=row, place=int(boxes.position[index]),
    )  # fmt: skip
