"""Check from a split whether boxes of detections are in another format than xywh in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class _Reading:
    """One way to read boxes: their format, with rows before columns, or in pixels of a resized image.

    That image is `scale` times smaller, or its longest side is `edge` pixels.
    """

    format: BoxFormat = XYWH
    rows_first: bool = False
    scale: float = 1.0
    edge: int = 0

    def __str__(self) -> str:
        order = " with rows before columns (y, x, ...)" if self.rows_first else ""
        size = f" of images resized to {self.edge} pixels" if self.edge else ""
        if self.scale != 1:
            size = f" of images {max(self.scale, 1 / self.scale):g} times {'smaller' if self.scale > 1 else 'larger'}"
        return f"{self.format}{order}{size}"

    def to_xywh(self, boxes: Floats, sizes: Floats) -> Floats:
        """Return boxes `[N, 4]` of images of `sizes` `[N, 2]` as xywh in pixels."""
        xywh = self.format.to_xywh(boxes[:, [1, 0, 3, 2]] if self.rows_first else boxes, sizes)
        factor = sizes.max(axis=1, keepdims=True) / self.edge if self.edge else self.scale
        return np.asarray(xywh * factor)

    def num_fitting(self, boxes: Floats, sizes: Floats) -> int:
        """Return the number of boxes that lie inside their images."""
        return int(XYWH.fits(self.to_xywh(boxes, sizes), sizes).sum())


_STATED = _Reading()
_FORMAT_READINGS = tuple(map(_Reading, FORMATS))  # those that boxes outside their images are evidence for
# In the order of preference if several match equally. Scales and sizes of usual preprocessing.
_READINGS = (
    *_FORMAT_READINGS,
    *(_Reading(format, rows_first=True) for format in FORMATS),
    *(_Reading(edge=edge) for edge in (320, 416, 512, 640, 800, 1024, 1280)),
    *(_Reading(scale=scale) for scale in (0.25, 0.5, 2.0, 4.0)),
)


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
    fits = {reading: reading.num_fitting(sample.box, sizes) for reading in _READINGS}
    possible = min(count, int((~objects.crowd).sum()))
    enough = max(_MIN_MATCHES, _MIN_MATCHED_FRACTION * possible)
    for min_iou in _MIN_IOUS:
        matches = {reading: _num_matches(reading, sample, sizes, objects, min_iou) for reading in _READINGS}
        best = max(_READINGS, key=lambda reading: (matches[reading], fits[reading]))
        if matches[best] >= enough and matches[best] > _MIN_MATCH_RATIO * matches[_STATED]:
            return _likely(
                best,
                f"{matches[best]:,} boxes then overlap an object (IoU {min_iou:g}), {matches[_STATED]:,} as xywh in pixels",
            )
    outside = count - fits[_STATED]
    if 2 * outside <= count:
        return ""
    leaving = f"{outside:,} of {count:,} boxes leave their image or have no area"
    best = max(_FORMAT_READINGS, key=lambda reading: fits[reading])
    if fits[best] >= _MIN_FITTING_FRACTION * count:
        return _likely(best, leaving)
    return f"{leaving}. Check that they are xywh in pixels of these images"


def _likely(reading: _Reading, reason: str) -> str:
    return f"the boxes look like {reading}: {reason}. Convert them to [x_min, y_min, width, height] in pixels"


def _num_matches(
    reading: _Reading, detections: DetectionArrays, sizes: Floats, objects: GroundTruthArrays, min_iou: float
) -> int:
    """Return the number of boxes that overlap an object of any class, at most one for each object."""
    boxes = reading.to_xywh(detections.box, sizes)
    converted = DetectionArrays(detections.image, detections.label, boxes, detections.score)
    converted = converted.take(np.flatnonzero((boxes[:, 2:] > 0).all(axis=1)))
    pairs = overlapping_pairs(converted, objects, min_iou, same_class=False)
    return min(len(np.unique(pairs.detection)), len(np.unique(pairs.object)))
