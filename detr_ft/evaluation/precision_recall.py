"""Precision over recall, and recall, of every class, as COCO counts them."""

from __future__ import annotations

import numpy as np

from detr_ft.evaluation.coco_summary import LIMITS, Table
from detr_ft.evaluation.detection_matching import THRESHOLDS, DetectionMatches, Floats

RECALLS: Floats = np.linspace(0.0, 1.0, 101)


def curves_of(marks: DetectionMatches, area: str) -> Table:
    """Precision `[T, 101, K]` at each of 101 recalls and recall `[T, K]`, by one of `AREAS`; -1 for classes without objects."""
    right, counts = marks.marked(area)
    objects = np.bincount(marks.objects.label[marks.counted(area)], minlength=len(marks.names))
    precision = np.full((len(THRESHOLDS), len(RECALLS), len(marks.names)), -1.0)
    recall = {limit: np.full((len(THRESHOLDS), len(marks.names)), -1.0) for limit in LIMITS}
    for label, rows in enumerate(marks.of_class):
        if not objects[label]:
            continue
        hits, counted = (np.cumsum(one[:, rows], axis=1, dtype=np.float64) for one in (right, counts))
        precision[:, :, label] = interpolated(hits, counted, objects[label])
        for limit in LIMITS:
            near = marks.place[rows] < limit
            recall[limit][:, label] = right[:, rows][:, near].sum(1) / objects[label]
    return Table(precision, recall)


def interpolated(hits: Floats, counted: Floats, objects: int) -> Floats:
    """`[T, 101]`: the best precision at each recall or beyond, from running sums `[T, D]`; 0 where it isn't reached."""
    precision = hits / (counted + np.spacing(1))  # so pycocotools has it: rows that don't count come first at times
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    envelope = np.pad(envelope, ((0, 0), (0, 1)))
    first = np.stack([np.searchsorted(row, RECALLS, side="left") for row in hits / objects])
    return np.take_along_axis(envelope, first, axis=1)
