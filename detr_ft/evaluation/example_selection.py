"""The images in which most went right or wrong."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from detr_ft.evaluation.detection_matching import Bools, DetectionMatches, Floats, Ints
from detr_ft.evaluation.metrics import ThresholdChoice
from detr_ft.evaluation.thresholds import above_thresholds
from detr_ft.evaluation.tide import KINDS, RIGHT, Errors


def picks(errors: Errors, thresholds: Mapping[str, ThresholdChoice], most: int) -> dict[str, list[int]]:
    """Numbers of up to `most` images for each of: `worst`, `false_alarms`, `missed`, `best` and `others`; none comes twice.

    Of the detections that are believed. The worst have the most errors for their objects; false alarms are ranked by
    the highest score of one, missed objects by how many there are; the best have no error and the most objects; others
    are spread evenly over the rest.
    """
    marks, taken = errors.marks, above_thresholds(errors.marks, thresholds)
    wrong = _per_image(marks, taken & (errors.kind != RIGHT))
    missed = _missed(marks, taken)
    objects = np.bincount(marks.objects.image[marks.counted("all")], minlength=marks.num_images)
    alarms = np.zeros(marks.num_images)
    nothing = taken & (errors.kind == KINDS.index("background"))
    np.maximum.at(alarms, marks.found.image[nothing], marks.found.score[nothing])
    ranks = {
        "worst": (wrong + missed) / (objects + 1),
        "false_alarms": alarms,
        "missed": missed.astype(float),
        "best": np.where((wrong + missed == 0), objects, 0).astype(float),
    }
    chosen: dict[str, list[int]] = {}
    free = np.ones(marks.num_images, bool)
    for name, rank in ranks.items():
        chosen[name] = _first(rank, free, most)
        free[chosen[name]] = False
    rest = np.flatnonzero(free)
    spread = np.linspace(0, len(rest) - 1, min(most, len(rest))).round().astype(int)
    return chosen | {"others": rest[spread].tolist()}


def _first(rank: Floats, free: Bools, most: int) -> list[int]:
    order = np.argsort(-np.where(free, rank, 0), kind="stable")[:most]
    return [int(one) for one in order if free[one] and rank[one] > 0]


def _per_image(marks: DetectionMatches, chosen: Bools) -> Ints:
    return np.bincount(marks.found.image[chosen], minlength=marks.num_images)


def _missed(marks: DetectionMatches, taken: Bools) -> Ints:
    """How many objects of each image no believed detection takes at IoU 0.5."""
    partner = marks.partner("all")[0]
    free = marks.counted("all")
    free[partner[taken & (partner >= 0)]] = False
    return np.bincount(marks.objects.image[free], minlength=marks.num_images)
