"""The object that a detection is matched with if pycocotools' rules allow several."""

from __future__ import annotations

import numpy as np
from evaluation.test_tide import marked

from detr_ft.evaluation.detection_matching import MAX_DETECTIONS

EXACT = [[0, 0, 0, 0, 33, 33, 0.9]]


def test_an_object_that_counts_goes_before_a_crowd_that_lies_closer() -> None:
    objects = [[0, 0, 0, 0, 200, 200], [0, 0, 0, 0, 33, 27]]
    right, counts = marked(objects, EXACT, images=1, crowd=[True, False]).outcomes("all")
    reached = np.arange(10) < 7  # an IoU of 0.818; above it only the crowd is left, and what lies in one doesn't count
    assert right[:, 0].tolist() == counts[:, 0].tolist() == reached.tolist()


def test_an_object_of_the_evaluated_size_is_matched_before_a_closer_one() -> None:
    matches = marked([[0, 0, 0, 0, 33, 33], [0, 0, 0, 0, 31, 31]], EXACT, images=1)  # medium, and small
    assert matches.partner("small")[0].tolist() == [1]
    assert matches.partner("medium")[0].tolist() == [0]
    assert matches.partner("all")[0].tolist() == [0]


def test_the_best_hundred_of_a_class_in_an_image_count() -> None:
    detected = [
        [image, label, 0, 0, 10, 10, 0.5] for image in (0, 1) for label in (0, 1) for _ in range(MAX_DETECTIONS + 1)
    ]
    matches = marked([[0, 0, 0, 0, 10, 10]], detected, images=2, classes=2)
    assert np.bincount(matches.detections.image * 2 + matches.detections.label).tolist() == [MAX_DETECTIONS] * 4
