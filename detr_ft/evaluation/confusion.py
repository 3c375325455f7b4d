"""Which class is taken for which, and for background."""

from __future__ import annotations

import numpy as np

from detr_ft.evaluation.detection_matching import THRESHOLDS, Bools, DetectionMatches, Ints, meeting


def confusion(marks: DetectionMatches, believed: Bools) -> Ints:
    """`[K+1, K+1]`: how many objects of a class (row) were said to be of each (column); the last of both is background.

    Of the detections that are believed, the likeliest first, each takes the free object it meets at IoU 0.5 or more, one of
    its own class before others, the larger IoU before the smaller. What is left over is missed, or a false alarm; what lies
    in a crowd alone doesn't count.
    """
    background = len(marks.names)
    matrix = np.zeros((background + 1, background + 1), np.int64)
    objects, found = marks.objects, marks.found
    pairs = meeting(found, objects, float(THRESHOLDS[0]), same_class=False)
    edges = np.searchsorted(pairs.found, np.arange(len(found.score) + 1))
    free = ~objects.crowd
    for row in np.flatnonzero(believed)[np.argsort(-found.score[believed], kind="stable")]:
        label = found.label[row]
        mine = slice(edges[row], edges[row + 1])
        met, iou = pairs.object[mine], pairs.iou[mine]
        open_ones = np.flatnonzero(free[met])
        if len(open_ones):
            best = max(open_ones, key=lambda one: (objects.label[met[one]] == label, iou[one]))
            free[met[best]] = False
            matrix[objects.label[met[best]], label] += 1
        elif not objects.crowd[met].any():
            matrix[background, label] += 1
    matrix[:-1, background] += np.bincount(objects.label[free], minlength=background)
    return matrix
