"""Confusion matrix of classes and background."""

from __future__ import annotations

import numpy as np

from detr_ft.evaluation.detection_matching import THRESHOLDS, Bools, DetectionMatches, Ints, overlapping_pairs


def confusion(matches: DetectionMatches, used: Bools) -> Ints:
    """`[K+1, K+1]`: counts of objects by their class (row) and the detected class (column).

    The last row and column are background. Of the detections in `used [D]`, best first, each is matched to the free
    object with an IoU of 0.5 or more: one of its own class before others, the larger IoU before the smaller. Objects
    and detections that are left over are missed, or false alarms; a detection that overlaps only a crowd does not
    count.
    """
    background = len(matches.names)
    matrix = np.zeros((background + 1, background + 1), np.int64)
    objects, detections = matches.objects, matches.detections
    pairs = overlapping_pairs(detections, objects, float(THRESHOLDS[0]), same_class=False)
    edges = np.searchsorted(pairs.detection, np.arange(len(detections.score) + 1))
    free = ~objects.crowd
    for row in np.flatnonzero(used)[np.argsort(-detections.score[used], kind="stable")]:
        label = detections.label[row]
        own = slice(edges[row], edges[row + 1])
        candidates, iou = pairs.object[own], pairs.iou[own]
        available = np.flatnonzero(free[candidates])
        if len(available):
            best = max(available, key=lambda index: (objects.label[candidates[index]] == label, iou[index]))
            free[candidates[best]] = False
            matrix[objects.label[candidates[best]], label] += 1
        elif not objects.crowd[candidates].any():
            matrix[background, label] += 1
    matrix[:-1, background] += np.bincount(objects.label[free], minlength=background)
    return matrix
