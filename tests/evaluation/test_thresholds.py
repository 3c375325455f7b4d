"""Thresholds, confusion, calibration and groups, against what is counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation.test_tide import marked
from support.synthetic_detections import NAMES, equal_models

from detr_ft.evaluation.assessment import by_crowding, by_frequency
from detr_ft.evaluation.coco import metrics_of_matches
from detr_ft.evaluation.metrics import CalibrationBin, FrequencySlice, ThresholdChoice
from detr_ft.evaluation.thresholds import above_thresholds, best_thresholds, calibration, confusion, f1_over_scores

OBJECTS = [[0, 0, 0, 0, 100, 100], [0, 0, 200, 0, 100, 100], [1, 1, 0, 0, 50, 50], [2, 2, 0, 0, 9, 9]]
DETECTIONS = [
    [0, 0, 0, 0, 100, 100, 0.9],
    [0, 0, 200, 0, 100, 100, 0.6],
    [0, 0, 400, 0, 100, 100, 0.6],
    [0, 0, 500, 0, 100, 100, 0.2],
    [1, 0, 0, 0, 50, 50, 0.8],
    [1, 1, 300, 0, 50, 50, 0.4],
]


def test_the_best_threshold_of_each_class_lies_between_two_scores() -> None:
    thresholds = best_thresholds(marked(OBJECTS, DETECTIONS, images=3))
    # Class 0, by falling score: right, wrong, then a right and a wrong one of one score, and a wrong one. One right detection
    # of one for two objects is as good as two of four: the higher threshold is taken.
    assert thresholds["0"] == ThresholdChoice(pytest.approx(0.85), 1.0, 0.5, pytest.approx(2 / 3))
    # Nothing of the others is right: the best threshold of all together, which takes 2 of 4 objects with 4 detections.
    assert thresholds["1"] == thresholds["2"] == ThresholdChoice(pytest.approx(0.5), 0.0, 0.0, 0.0)


def test_no_other_threshold_is_better() -> None:
    matches, _ = equal_models(0, 60)
    thresholds = best_thresholds(matches)
    right, counts = (one[0] for one in matches.outcomes("all"))
    for label, name in enumerate(NAMES):
        objects = (matches.objects.label == label).sum()
        mine = matches.detections.label == label
        for threshold in np.linspace(0, 1, 101):
            above = mine & (matches.detections.score > threshold)
            assert 2 * (above & right).sum() / ((above & counts).sum() + objects) <= thresholds[name].f1 + 1e-12
        above = mine & above_thresholds(matches, thresholds)
        assert 2 * (above & right).sum() / ((above & counts).sum() + objects) == pytest.approx(thresholds[name].f1)
    assert f1_over_scores(matches, np.array([0.0, 1.0]))[1] == 0.0


def test_detections_in_a_crowd_change_neither_thresholds_nor_calibration() -> None:
    """A sure detection inside a crowd, beside a right one that is less sure."""
    objects = [[0, 0, 0, 0, 100, 100], [0, 0, 200, 0, 100, 100]]
    detected = [[0, 0, 210, 10, 50, 50, 0.9], [0, 0, 0, 0, 100, 100, 0.6]]
    matches = marked(objects, detected, images=1, crowd=[False, True])
    assert best_thresholds(matches) == {"0": ThresholdChoice(pytest.approx(0.3), 1.0, 1.0, 1.0)}
    assert f1_over_scores(matches, np.array([0.1])).tolist() == [1.0]
    assert calibration(matches).bins == [CalibrationBin(0.6, 1, pytest.approx(0.6), 1.0)]


def test_without_objects_there_is_nothing_to_believe() -> None:
    matches = marked([], DETECTIONS, images=2)
    assert best_thresholds(matches) == {}
    assert not above_thresholds(matches, {}).any()


def test_confusion_counts_each_object_once() -> None:
    matches = marked(OBJECTS, DETECTIONS, images=3)
    everything = np.ones(len(DETECTIONS), bool)
    assert confusion(matches, everything).tolist() == [[2, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [2, 1, 0, 0]]
    assert confusion(matches, ~everything).tolist() == [[0, 0, 0, 2], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_an_object_goes_to_its_own_class_first() -> None:
    both = [[0, 0, 0, 0, 100, 100], [0, 1, 0, 0, 100, 90]]
    detected = [[0, 1, 0, 0, 100, 100, 0.9], [0, 0, 0, 0, 100, 90, 0.8]]
    assert confusion(marked(both, detected, images=1, classes=2), np.ones(2, bool)).tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 0],
    ]


def test_a_detection_in_a_crowd_is_no_false_alarm() -> None:
    matches = marked([[0, 0, 0, 0, 100, 100]], [[0, 0, 0, 0, 50, 50, 0.9]], images=1, crowd=[True])
    assert confusion(matches, np.ones(1, bool)).sum() == 0


def test_calibration_compares_scores_with_correct_detections() -> None:
    measured = calibration(marked(OBJECTS, DETECTIONS, images=3))
    assert measured.bins == [
        CalibrationBin(0.2, 1, pytest.approx(0.2), 0.0),
        CalibrationBin(0.4, 1, pytest.approx(0.4), 0.0),
        CalibrationBin(0.6, 2, pytest.approx(0.6), 0.5),
        CalibrationBin(0.8, 1, pytest.approx(0.8), 0.0),
        CalibrationBin(0.9, 1, pytest.approx(0.9), 1.0),
    ]
    assert measured.error == pytest.approx((0.2 + 0.4 + 2 * 0.1 + 0.8 + 0.1) / 6)
    assert calibration(marked(OBJECTS, [], images=3)).error is None


def test_groups_of_images_are_sets_of_their_own() -> None:
    matches, _ = equal_models(1, 80)
    objects = np.bincount(matches.objects.image, minlength=80)
    groups = by_crowding(matches)
    assert sum(group.images for group in groups.values()) == (objects > 0).sum()
    chosen = np.flatnonzero((objects >= 2) & (objects <= 5))
    there, here = np.isin(matches.objects.image, chosen), np.isin(matches.detections.image, chosen)
    alone = marked(
        np.c_[matches.objects.image, matches.objects.label, matches.objects.box][there],
        np.c_[matches.detections.image, matches.detections.label, matches.detections.box, matches.detections.score][
            here
        ],
        images=80,
        classes=len(NAMES),
    )
    assert groups["2 to 5"].map == pytest.approx(metrics_of_matches(alone)["map"])
    assert by_crowding(marked([], DETECTIONS, images=2)) == {}


def test_classes_are_grouped_by_what_was_trained_on() -> None:
    per_class = {
        name: {"map": value, "map_50": 1.0}
        for name, value in (("a", 0.2), ("b", 0.4), ("c", 0.9), ("d", 0.6), ("e", 0.8))
    }
    assert by_frequency(per_class, {"a": 3, "b": 19, "c": 201, "d": 20, "e": 200}) == {
        "under 20 boxes": FrequencySlice(2, pytest.approx(0.3), 1.0),
        "20 to 200": FrequencySlice(2, pytest.approx(0.7), 1.0),
        "over 200": FrequencySlice(1, 0.9, 1.0),
    }
