"""Random ground truth and detections, for tests of statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detr_ft.evaluation.detection_matching import DetectionArrays, DetectionMatches, GroundTruthArrays, match_detections

NAMES = ["a", "b", "c", "d"]


def truth(rng: np.random.Generator, images: int) -> tuple[GroundTruthArrays, NDArray[np.float64]]:
    """Return about six objects per image, and the difficulty of each image, the same for every model."""
    image = np.repeat(np.arange(images), rng.poisson(6, images))
    number = len(image)
    box = np.c_[rng.uniform(0, 400, (number, 2)), np.exp(rng.normal(4, 0.7, (number, 2)))]
    area = box[:, 2] * box[:, 3]
    return GroundTruthArrays(image, rng.integers(0, len(NAMES), number), box, area, np.zeros(number, bool)), rng.normal(
        0, 0.5, images
    )


def model(rng: np.random.Generator, objects: GroundTruthArrays, difficulty: NDArray[np.float64]) -> DetectionArrays:
    """Return detections of 85 % of the objects, mostly of the right class, and three false alarms per image.

    Boxes and scores are worse in difficult images.
    """
    images, number = len(difficulty), len(objects.image)
    detected = rng.random(number) < 0.85
    moved = (
        objects.box
        + rng.normal(0, 0.06 * np.exp(difficulty[objects.image])[:, None], (number, 4)) * objects.box[:, [2, 3, 2, 3]]
    )
    moved[:, 2:] = np.maximum(moved[:, 2:], 1)
    label = np.where(rng.random(number) < 0.07, rng.integers(0, len(NAMES), number), objects.label)
    score = np.clip(0.7 - 0.2 * difficulty[objects.image] + rng.normal(0, 0.15, number), 0.02, 0.99)
    alarms = 3 * images
    box = np.c_[rng.uniform(0, 400, (alarms, 2)), np.exp(rng.normal(4, 0.7, (alarms, 2)))]
    return DetectionArrays(
        np.r_[objects.image[detected], rng.integers(0, images, alarms)],
        np.r_[label[detected], rng.integers(0, len(NAMES), alarms)],
        np.r_[moved[detected], box],
        np.r_[score[detected], rng.uniform(0, 0.6, alarms)],
    )


def equal_models(seed: int, images: int) -> tuple[DetectionMatches, DetectionMatches]:
    """Return the detections of two equally good models on the same images."""
    rng = np.random.default_rng(seed)
    objects, difficulty = truth(rng, images)
    return match_detections(NAMES, images, objects, model(rng, objects, difficulty)), match_detections(
        NAMES, images, objects, model(rng, objects, difficulty)
    )


def with_wrong_classes(matches: DetectionMatches, fraction: float, seed: int) -> DetectionMatches:
    """Return the same detections with another class for a fraction of them."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(matches.detections.label)) < fraction
    label = np.where(
        wrong,
        (matches.detections.label + rng.integers(1, len(NAMES), len(wrong))) % len(NAMES),
        matches.detections.label,
    )
    return match_detections(
        NAMES,
        matches.num_images,
        matches.objects,
        DetectionArrays(matches.detections.image, label, matches.detections.box, matches.detections.score),
    )
