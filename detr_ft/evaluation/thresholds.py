"""Score thresholds that maximize F1, calibration of scores, and confusion of classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from detr_ft.evaluation.detection_matching import THRESHOLDS, Bools, DetectionMatches, Floats, Ints, overlapping_pairs
from detr_ft.evaluation.metrics import Calibration, CalibrationBin, ThresholdChoice

_DEFAULT_THRESHOLD = 0.5
_BINS = 10
_MIN_SCORE = 0.05  # a DETR has very many detections below, which no application uses


def best_thresholds(matches: DetectionMatches) -> dict[str, ThresholdChoice]:
    """Return the threshold with the best F1 (van Rijsbergen 1979) for each class with objects.

    Of thresholds with equal F1 it is the highest. It lies half way between the lowest score above it and the next. A
    class without a correct detection gets the best threshold of all classes together, with precision, recall and F1 of
    0.
    """
    correct, counts, objects = _at_iou_half(matches)
    by_score = np.argsort(-matches.detections.score, kind="stable")
    overall = _best(matches.detections.score, correct, counts, int(objects.sum()), by_score)
    fallback = ThresholdChoice(overall.threshold if overall else _DEFAULT_THRESHOLD, 0.0, 0.0, 0.0)
    choices = {}
    for label, rows in enumerate(matches.class_slices):
        if objects[label]:
            own = np.arange(rows.start, rows.stop)
            best = _best(matches.detections.score, correct, counts, int(objects[label]), own)
            choices[matches.names[label]] = best or fallback
    return choices


def above_thresholds(matches: DetectionMatches, thresholds: Mapping[str, ThresholdChoice]) -> Bools:
    """`[D]`: the detections above the threshold of their class; none of classes without a threshold."""
    lowest = np.array([thresholds[name].threshold if name in thresholds else np.inf for name in matches.names])
    return np.asarray(matches.detections.score > lowest[matches.detections.label], bool)


def f1_over_scores(matches: DetectionMatches, scores: Floats) -> Floats:
    """Return the F1 of all classes together at each of some thresholds."""
    correct, counts, objects = _at_iou_half(matches)
    above = matches.detections.score[None] > scores[:, None]
    hits, counted = (above & correct).sum(1), (above & counts).sum(1)
    return np.asarray(2 * hits / np.maximum(counted + objects.sum(), 1), float)


def _at_iou_half(matches: DetectionMatches) -> tuple[Bools, Bools, Ints]:
    correct, counts = matches.outcomes("all")
    return correct[0], counts[0], matches.objects_per_class()


def _best(score: Floats, correct: Bools, counts: Bools, objects: int, rows: Ints) -> ThresholdChoice | None:
    rows = rows[counts[rows]]
    hits = np.cumsum(correct[rows])
    if not len(rows) or not hits[-1]:
        return None
    here = score[rows]
    after = np.append(here[1:], 0.0)
    # A threshold can't separate equal scores.
    f1 = np.where(here > after, 2 * hits / (np.arange(1, len(rows) + 1) + objects), -1.0)
    at = int(np.argmax(f1))
    return ThresholdChoice(
        float((here[at] + after[at]) / 2), float(hits[at] / (at + 1)), float(hits[at] / objects), float(f1[at])
    )


def calibration(matches: DetectionMatches) -> Calibration:
    """Return the calibration of scores from 0.05 on (Guo et al., ICML 2017).

    For detections as in Küppers et al., CVPRW 2020.
    """
    correct, counts = (column[0] for column in matches.outcomes("all"))
    used = counts & (matches.detections.score >= _MIN_SCORE)
    score, hit = matches.detections.score[used], correct[used]
    bin_of = np.minimum((score * _BINS).astype(int), _BINS - 1)
    bins = [
        CalibrationBin(number / _BINS, int(inside.sum()), float(score[inside].mean()), float(hit[inside].mean()))
        for number in np.unique(bin_of).tolist()
        for inside in [bin_of == number]
    ]
    total = sum(one.count for one in bins)
    error = sum(one.count * abs(one.right - one.score) for one in bins) / total if total else None
    return Calibration(bins, error)


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
