"""Made-up truth, and models that find most of it, for trials of statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detr_ft.evaluation.detection_matching import DetectionArrays, DetectionMatches, GroundTruthArrays, match_detections

NAMES = ["a", "b", "c", "d"]


def truth(rng: np.random.Generator, images: int) -> tuple[GroundTruthArrays, NDArray[np.float64]]:
    """About six objects an image, and how hard each image is, for every model alike."""
    image = np.repeat(np.arange(images), rng.poisson(6, images))
    number = len(image)
    box = np.c_[rng.uniform(0, 400, (number, 2)), np.exp(rng.normal(4, 0.7, (number, 2)))]
    area = box[:, 2] * box[:, 3]
    return GroundTruthArrays(image, rng.integers(0, len(NAMES), number), box, area, np.zeros(number, bool)), rng.normal(
        0, 0.5, images
    )


def model(rng: np.random.Generator, objects: GroundTruthArrays, hard: NDArray[np.float64]) -> DetectionArrays:
    """Finds 85 % of the objects, the worse the harder the image, with the right class mostly, and three false alarms an image."""
    images, number = len(hard), len(objects.image)
    seen = rng.random(number) < 0.85
    moved = (
        objects.box
        + rng.normal(0, 0.06 * np.exp(hard[objects.image])[:, None], (number, 4)) * objects.box[:, [2, 3, 2, 3]]
    )
    moved[:, 2:] = np.maximum(moved[:, 2:], 1)
    label = np.where(rng.random(number) < 0.07, rng.integers(0, len(NAMES), number), objects.label)
    score = np.clip(0.7 - 0.2 * hard[objects.image] + rng.normal(0, 0.15, number), 0.02, 0.99)
    alarms = 3 * images
    box = np.c_[rng.uniform(0, 400, (alarms, 2)), np.exp(rng.normal(4, 0.7, (alarms, 2)))]
    return DetectionArrays(
        np.r_[objects.image[seen], rng.integers(0, images, alarms)],
        np.r_[label[seen], rng.integers(0, len(NAMES), alarms)],
        np.r_[moved[seen], box],
        np.r_[score[seen], rng.uniform(0, 0.6, alarms)],
    )


def two_alike(seed: int, images: int) -> tuple[DetectionMatches, DetectionMatches]:
    """Two models that are equally good, on the same images."""
    rng = np.random.default_rng(seed)
    objects, hard = truth(rng, images)
    return match_detections(NAMES, images, objects, model(rng, objects, hard)), match_detections(
        NAMES, images, objects, model(rng, objects, hard)
    )


def spoiled(marks: DetectionMatches, share: float, seed: int) -> DetectionMatches:
    """The same model with another class for a share of its detections."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(marks.detections.label)) < share
    label = np.where(
        wrong, (marks.detections.label + rng.integers(1, len(NAMES), len(wrong))) % len(NAMES), marks.detections.label
    )
    return match_detections(
        NAMES,
        marks.num_images,
        marks.objects,
        DetectionArrays(marks.detections.image, label, marks.detections.box, marks.detections.score),
    )
