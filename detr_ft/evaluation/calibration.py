"""Whether a score is what it says: of detections with a score of 0.8, are eight in ten right?"""

from __future__ import annotations

import numpy as np

from detr_ft.evaluation.detection_matching import DetectionMatches
from detr_ft.evaluation.metrics import Calibration, CalibrationBin

LEAST = 0.05  # nobody looks at detections below, and a DETR has very many of them
_BINS = 10


def calibration(marks: DetectionMatches) -> Calibration:
    """The calibration of scores from 0.05 on (Guo et al., ICML 2017; for detections Küppers et al., CVPRW 2020)."""
    right, counts = (one[0] for one in marks.marked("all"))
    asked = counts & (marks.found.score >= LEAST)
    score, hit = marks.found.score[asked], right[asked]
    place = np.minimum((score * _BINS).astype(int), _BINS - 1)
    bins = [
        CalibrationBin(number / _BINS, int(inside.sum()), float(score[inside].mean()), float(hit[inside].mean()))
        for number in np.unique(place).tolist()
        for inside in [place == number]
    ]
    total = sum(one.count for one in bins)
    error = sum(one.count * abs(one.right - one.score) for one in bins) / total if total else None
    return Calibration(bins, error)
