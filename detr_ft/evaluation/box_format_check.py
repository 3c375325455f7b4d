"""Check from a split whether boxes of detections are in another format than xywh in pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from detr_ft.data.box_format import FORMATS, XYWH, BoxFormat
from detr_ft.data.schema import sizes_of
from detr_ft.evaluation.coco import detection_arrays, ground_truth_arrays
from detr_ft.evaluation.detection_matching import DetectionArrays, Floats, GroundTruthArrays, overlapping_pairs
from detr_ft.structures import Detections

_SAMPLE = 5000  # boxes, those with the highest scores
_MIN_IOUS = (0.5, 0.75)  # boxes near the origin overlap their object also as corners
_MIN_FITTING_FRACTION = 0.9  # of the boxes in their images, for a format to be likely
_MIN_MATCHES, _MIN_MATCHED_FRACTION = 3, 0.25  # of the objects or boxes, for a format to be likely
_MIN_MATCH_RATIO = 2  # times more matches than in xywh


def box_format_doubt(split: Dataset, detections: Sequence[Detections]) -> str:
    """Return why boxes may not be xywh in pixels, with the likely format; empty without such doubt.

    `detections[i]` are those of row `i`, read as xywh. Another format is likely if far more boxes then overlap an object of
    their image, or if most boxes leave their images as xywh and lie inside in that format.
    """
    images = np.arange(len(split))
    boxes = detection_arrays(detections, images)
    sample = boxes.take(np.argsort(-boxes.score, kind="stable")[:_SAMPLE])
    count = len(sample.score)
    if not count:
        return ""
    sizes = np.array(sizes_of(split), np.float64)[sample.image]
    rows = split.with_format(None).select_columns(["objects"])
    objects = ground_truth_arrays((row["objects"] for row in rows), images)
    fits = {format: int(format.fits(sample.box, sizes).sum()) for format in FORMATS}
    possible = min(count, int((~objects.crowd).sum()))
    enough = max(_MIN_MATCHES, _MIN_MATCHED_FRACTION * possible)
    for min_iou in _MIN_IOUS:
        matches = {format: _num_matches(format, sample, sizes, objects, min_iou) for format in FORMATS}
        best = max(FORMATS, key=lambda format: (matches[format], fits[format]))
        if matches[best] >= enough and matches[best] > _MIN_MATCH_RATIO * matches[XYWH]:
            return _likely(
                best,
                f"{matches[best]:,} boxes then overlap an object (IoU {min_iou:g}), {matches[XYWH]:,} as xywh in pixels",
            )
    outside = count - fits[XYWH]
    if 2 * outside <= count:
        return ""
    leaving = f"{outside:,} of {count:,} boxes leave their image or have no area"
    best = max(FORMATS, key=lambda format: fits[format])
    if fits[best] >= _MIN_FITTING_FRACTION * count:
        return _likely(best, leaving)
    return f"{leaving}. Check that they are xywh in pixels of these images"


def _likely(format: BoxFormat, reason: str) -> str:
    return f"the boxes look like {format}: {reason}. Convert them to [x_min, y_min, width, height] in pixels"


def _num_matches(
    format: BoxFormat, detections: DetectionArrays, sizes: Floats, objects: GroundTruthArrays, min_iou: float
) -> int:
    """Return the number of boxes that overlap an object of any class, at most one for each object."""
    boxes = format.to_xywh(detections.box, sizes)
    converted = DetectionArrays(detections.image, detections.label, boxes, detections.score)
    converted = converted.take(np.flatnonzero((boxes[:, 2:] > 0).all(axis=1)))
    pairs = overlapping_pairs(converted, objects, min_iou, same_class=False)
    return min(len(np.unique(pairs.detection)), len(np.unique(pairs.object)))
