"""The errors of TIDE, counted and priced as its own package does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation.tide_reference import CLASSES, SEEDS, made_up

from detr_ft.evaluation.coco import metrics_of_matches
from detr_ft.evaluation.detection_matching import DetectionArrays, DetectionMatches, GroundTruthArrays, match_detections
from detr_ft.evaluation.tide import CORRECT, KINDS, find_errors

EXPECTED = json.loads((Path(__file__).parent / "tide_reference.json").read_text())
Rows = list[tuple[int, list[float]]]


def marked(objects: Any, detected: Any, images: int, classes: int = CLASSES, crowd: Any = None) -> DetectionMatches:
    objects, detected = np.asarray(objects, float).reshape(-1, 6), np.asarray(detected, float).reshape(-1, 7)
    there, here = objects[:, :2].astype(int), detected[:, :2].astype(int)
    crowds = np.zeros(len(objects), bool) if crowd is None else np.asarray(crowd)
    truth = GroundTruthArrays(there[:, 0], there[:, 1], objects[:, 2:], objects[:, 4] * objects[:, 5], crowds)
    names = [str(label) for label in range(classes)]
    return match_detections(
        names, images, truth, DetectionArrays(here[:, 0], here[:, 1], detected[:, 2:6], detected[:, 6])
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_counts_and_costs_are_those_of_the_papers_package(seed: int) -> None:
    output = next(one for one in EXPECTED if one["seed"] == seed)
    matched = marked(*made_up(seed), images=10)
    errors = find_errors(matched)
    assert metrics_of_matches(matched)["map_50"] == pytest.approx(output["map_50"], abs=1e-9)
    assert errors.counts == output["counts"]
    assert errors.costs() == pytest.approx(output["costs"], abs=1e-9)


def test_the_made_up_sets_hold_every_kind() -> None:
    assert all(sum(one["counts"][kind] for one in EXPECTED) > 10 for kind in KINDS)
    assert all(sum(one["costs"][kind] for one in EXPECTED) > 0 for kind in KINDS)


def test_each_kind_by_hand() -> None:
    objects = [[0, 0, 0, 0, 100, 100], [0, 1, 200, 200, 50, 50], [1, 0, 0, 0, 10, 10]]
    detected = [
        [0, 0, 0, 0, 100, 100, 0.9],  # right
        [0, 0, 0, 0, 100, 90, 0.8],  # the same again
        [0, 0, 200, 200, 50, 50, 0.7],  # the other class's
        [0, 1, 200, 200, 50, 15, 0.6],  # too flat: IoU 0.3
        [0, 0, 400, 400, 10, 10, 0.5],  # nothing there
        [0, 1, 0, 0, 100, 30, 0.4],  # class and place: IoU 0.3 with class 0
    ]
    errors = find_errors(marked(objects, detected, images=2, classes=2))
    order = np.argsort(-errors.matches.detections.score)
    text = [KINDS[kind] if kind != CORRECT else "right" for kind in errors.kind[order]]
    assert text == ["right", "duplicate", "classification", "localisation", "background", "both"]
    assert errors.missed.tolist() == [False, False, True]  # the second could be had by either of two
    assert errors.near[order].tolist() == [-1, -1, 1, 1, -1, -1]
    assert errors.costs()["missed"] > 0


def test_ignored_detections_are_no_errors() -> None:
    objects, detected = [[0, 0, 0, 0, 100, 100]], [[0, 0, 0, 0, 50, 50, 0.9]]
    errors = find_errors(marked(objects, detected, images=1, crowd=[True]))
    assert errors.counts == dict.fromkeys(KINDS, 0)
    assert errors.costs() == dict.fromkeys(KINDS, 0.0)


def test_without_detections_every_object_is_missed() -> None:
    errors = find_errors(marked([[0, 0, 0, 0, 9, 9], [1, 1, 0, 0, 9, 9]], [], images=2))
    assert errors.counts["missed"] == 2
    assert sum(errors.counts.values()) == 2


def test_a_crowd_nearby_is_no_object_that_was_missed_by_a_little() -> None:
    """Three tenths of the detection lie in the crowd: too few to spare it, and no error of place."""
    errors = find_errors(marked([[0, 0, 0, 0, 30, 100]], [[0, 0, 0, 0, 100, 100, 0.9]], images=1, crowd=[True]))
    assert errors.counts == dict.fromkeys(KINDS, 0) | {"background": 1}
