from __future__ import annotations

import numpy as np
from evaluation.test_tide import marked
from support.synthetic_detections import equal_models

from detr_ft.evaluation.example_selection import select_images
from detr_ft.evaluation.metrics import ThresholdChoice
from detr_ft.evaluation.thresholds import best_thresholds
from detr_ft.evaluation.tide import find_errors

OBJECTS = [
    [0, 0, 0, 0, 100, 100], [0, 0, 200, 0, 100, 100],  # all found
    [1, 0, 0, 0, 100, 100], [1, 0, 200, 0, 100, 100],  # one missed, and two found where there is nothing
    [2, 0, 0, 0, 100, 100],  # found, and a sure false alarm
    [3, 0, 0, 0, 100, 100], [3, 0, 200, 0, 100, 100],  # one missed
]  # fmt: skip
DETECTIONS = [
    [0, 0, 0, 0, 100, 100, 0.9], [0, 0, 200, 0, 100, 100, 0.9],
    [1, 0, 0, 0, 100, 100, 0.9], [1, 0, 500, 0, 50, 50, 0.6], [1, 0, 700, 0, 50, 50, 0.6],
    [2, 0, 0, 0, 100, 100, 0.9], [2, 0, 500, 0, 50, 50, 0.95],
    [3, 0, 0, 0, 100, 100, 0.9], [3, 0, 200, 0, 100, 100, 0.1],
]  # fmt: skip


def test_each_heading_has_the_images_that_it_is_about() -> None:
    errors = find_errors(marked(OBJECTS, DETECTIONS, images=5, classes=1))
    at = {"0": ThresholdChoice(0.5, 1.0, 1.0, 1.0)}
    assert select_images(errors, at, max_images=1) == {
        "worst": [1],
        "false_alarms": [2],
        "missed": [3],
        "best": [0],
        "others": [4],
    }
    # With room for all, an image comes under the first heading that it has a claim to.
    assert select_images(errors, at, max_images=9) == {
        "worst": [1, 2, 3],
        "false_alarms": [],
        "missed": [],
        "best": [0],
        "others": [4],
    }


def test_no_image_comes_twice() -> None:
    matches, _ = equal_models(0, 40)
    chosen = [
        image
        for images in select_images(find_errors(matches), best_thresholds(matches), 6).values()
        for image in images
    ]
    assert len(chosen) == len(np.unique(chosen)) >= 12
