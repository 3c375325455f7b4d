"""Whether a score is what it says: of detections with a score of 0.8, are eight in ten right?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detr_ft.evaluation.detection_matching import DetectionMatches

LEAST = 0.05  # nobody looks at detections below, and a DETR has very many of them
_BINS = 10


@dataclass(frozen=True)
class Bin:
    """Detections with scores from `low` on: how many, their mean score, and the share that is right at IoU 0.5."""

    low: float
    count: int
    score: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """Ten bins of equal width, those without detections left out, and their mean error, weighted by how many they hold."""

    bins: list[Bin]
    error: float | None


def calibration(marks: DetectionMatches) -> Calibration:
    """The calibration of scores from 0.05 on (Guo et al., ICML 2017; for detections Küppers et al., CVPRW 2020)."""
    right, counts = (one[0] for one in marks.marked("all"))
    asked = counts & (marks.found.score >= LEAST)
    score, hit = marks.found.score[asked], right[asked]
    place = np.minimum((score * _BINS).astype(int), _BINS - 1)
    bins = [
        Bin(one / _BINS, int((place == one).sum()), float(score[place == one].mean()), float(hit[place == one].mean()))
        for one in np.unique(place).tolist()
    ]
    total = sum(one.count for one in bins)
    error = sum(one.count * abs(one.right - one.score) for one in bins) / total if total else None
    return Calibration(bins, error)
