"""Figures of many sets at once are those of each set, evaluated by itself."""

from __future__ import annotations

import numpy as np
import pytest

from detr_ft.evaluation import bootstrap
from detr_ft.evaluation.bootstrap import draw_weights, resampled_metrics
from detr_ft.evaluation.coco import metrics_of_matches
from detr_ft.evaluation.detection_matching import DetectionArrays, DetectionMatches, GroundTruthArrays, match_detections
from detr_ft.evaluation.metrics import COCO_METRICS

NAMES = ["cat", "unused", "dog"]
IMAGES = 12


def random_set(seed: int) -> tuple[GroundTruthArrays, DetectionArrays]:
    """Objects of all sizes, crowds, empty images; detections near them and elsewhere, with equal scores in other images."""
    rng = np.random.default_rng(seed)
    many, detections = 40, 160
    image = rng.integers(0, IMAGES - 2, many)
    box = np.concatenate([rng.integers(0, 300, (many, 2)), rng.choice([12, 50, 150], (many, 2))], axis=1).astype(float)
    label = rng.choice([0, 2], many)
    objects = GroundTruthArrays(image, label, box, box[:, 2] * box[:, 3], rng.random(many) < 0.1)
    near = rng.integers(0, many, detections)
    moved = np.where(
        rng.random((detections, 1)) < 0.7,
        box[near] + rng.normal(0, 4, (detections, 4)),
        rng.uniform(1, 200, (detections, 4)),
    )
    moved[:, 2:] = np.maximum(moved[:, 2:], 1)
    score = rng.permutation(detections) // 3 / detections
    # Equal scores of one image would come in another order where the image is there twice.
    apart = np.array(
        [score[:row][image[near][:row] == image[near][row]].tolist().count(score[row]) for row in range(detections)]
    )
    return objects, DetectionArrays(image[near], label[near], moved, score + apart * 1e-6)


def repeated(objects: GroundTruthArrays, detections: DetectionArrays, weights: np.ndarray) -> DetectionMatches:
    """The set that holds each image so often, under numbers of its own."""
    images = np.repeat(np.arange(IMAGES), weights)
    there = [np.flatnonzero(objects.image == one) for one in images]
    here = [np.flatnonzero(detections.image == one) for one in images]
    rows, others = np.concatenate(there), np.concatenate(here)
    numbered = GroundTruthArrays(
        np.repeat(np.arange(len(images)), list(map(len, there))),
        objects.label[rows], objects.box[rows], objects.area[rows], objects.crowd[rows],
    )  # fmt: skip
    again = detections.take(others)
    again = DetectionArrays(
        np.repeat(np.arange(len(images)), list(map(len, here))), again.label, again.box, again.score
    )
    return match_detections(NAMES, len(images), numbered, again)


@pytest.mark.parametrize("dense", [0, 4_000_000], ids=["many images", "few images"])
@pytest.mark.parametrize("seed", range(8))
def test_each_set_has_the_figures_of_the_protocol(seed: int, dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_MAX_DENSE_ENTRIES", dense)
    objects, detections = random_set(seed)
    weights = draw_weights(IMAGES, 6, seed)
    weights[:, 0] = 1
    figures = resampled_metrics(match_detections(NAMES, IMAGES, objects, detections), weights)
    for number in range(6):
        expected = metrics_of_matches(repeated(objects, detections, weights[:, number]))
        for name in COCO_METRICS:
            value = np.nan if expected[name] is None else expected[name]
            assert figures[name][number] == pytest.approx(value, abs=1e-12, nan_ok=True), (name, number)


def test_a_set_without_anything_has_no_figures() -> None:
    objects, detections = random_set(0)
    weights = np.zeros((IMAGES, 2), np.int64)
    weights[:, 1] = 1
    figures = resampled_metrics(match_detections(NAMES, IMAGES, objects, detections), weights)
    assert all(np.isnan(values[0]) and not np.isnan(figures["map"][1]) for values in figures.values())


def test_draws_are_as_large_as_the_set_and_their_own_for_each_seed() -> None:
    weights = draw_weights(50, 400, seed=3)
    assert weights.shape == (50, 400)
    assert (weights.sum(0) == 50).all()
    assert (weights == draw_weights(50, 400, seed=3)).all()
    assert (weights != draw_weights(50, 400, seed=4)).any()
    assert weights.mean(1) == pytest.approx(np.ones(50), abs=0.25)
