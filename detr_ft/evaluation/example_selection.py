"""Selection of the images with the most errors, and with none."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from detr_ft.evaluation.detection_matching import Bools, DetectionMatches, Floats, Ints
from detr_ft.evaluation.metrics import ThresholdChoice
from detr_ft.evaluation.thresholds import above_thresholds
from detr_ft.evaluation.tide import CORRECT, KINDS, Errors


def select_images(errors: Errors, thresholds: Mapping[str, ThresholdChoice], max_images: int) -> dict[str, list[int]]:
    """Return up to `max_images` numbers of images under each heading, each image once.

    The headings are `worst`, `false_alarms`, `missed`, `best` and `others`. Detections above the thresholds count. The
    worst have the most errors for their objects; false alarms are ranked by the highest score of one, missed objects by
    their number; the best have no error and the most objects; others are spread evenly over the rest.
    """
    matches, above = errors.matches, above_thresholds(errors.matches, thresholds)
    wrong = _per_image(matches, above & (errors.kind != CORRECT))
    missed = _missed(matches, above)
    objects = np.bincount(matches.objects.image[matches.counted("all")], minlength=matches.num_images)
    alarms = np.zeros(matches.num_images)
    on_background = above & (errors.kind == KINDS.index("background"))
    np.maximum.at(alarms, matches.detections.image[on_background], matches.detections.score[on_background])
    ranks = {
        "worst": (wrong + missed) / (objects + 1),
        "false_alarms": alarms,
        "missed": missed.astype(float),
        "best": np.where((wrong + missed == 0), objects, 0).astype(float),
    }
    selected: dict[str, list[int]] = {}
    free = np.ones(matches.num_images, bool)
    for name, rank in ranks.items():
        selected[name] = _highest(rank, free, max_images)
        free[selected[name]] = False
    rest = np.flatnonzero(free)
    spread = np.linspace(0, len(rest) - 1, min(max_images, len(rest))).round().astype(int)
    return selected | {"others": rest[spread].tolist()}


def _highest(rank: Floats, free: Bools, max_images: int) -> list[int]:
    order = np.argsort(-np.where(free, rank, 0), kind="stable")[:max_images]
    return [int(image) for image in order if free[image] and rank[image] > 0]


def _per_image(matches: DetectionMatches, rows: Bools) -> Ints:
    return np.bincount(matches.detections.image[rows], minlength=matches.num_images)


def _missed(matches: DetectionMatches, above: Bools) -> Ints:
    """Return the number of objects of each image without a detection above the thresholds at IoU 0.5."""
    partner = matches.partner("all")[0]
    free = matches.counted("all")
    free[partner[above & (partner >= 0)]] = False
    return np.bincount(matches.objects.image[free], minlength=matches.num_images)
