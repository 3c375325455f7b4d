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
FOUND = [
    [0, 0, 0, 0, 100, 100, 0.9],
    [0, 0, 200, 0, 100, 100, 0.6],
    [0, 0, 400, 0, 100, 100, 0.6],
    [0, 0, 500, 0, 100, 100, 0.2],
    [1, 0, 0, 0, 50, 50, 0.8],
    [1, 1, 300, 0, 50, 50, 0.4],
]


def test_the_best_threshold_of_each_class_lies_between_two_scores() -> None:
    found = best_thresholds(marked(OBJECTS, FOUND, images=3))
    # Class 0, by falling score: right, wrong, then a right and a wrong one of one score, and a wrong one. One right detection
    # of one for two objects is as good as two of four: the higher threshold is taken.
    assert found["0"] == ThresholdChoice(pytest.approx(0.85), 1.0, 0.5, pytest.approx(2 / 3))
    # Nothing of the others is right: the best threshold of all together, which takes 2 of 4 objects with 4 detections.
    assert found["1"] == found["2"] == ThresholdChoice(pytest.approx(0.5), 0.0, 0.0, 0.0)


def test_no_other_threshold_is_better() -> None:
    marks, _ = equal_models(0, 60)
    found = best_thresholds(marks)
    right, counts = (one[0] for one in marks.outcomes("all"))
    for label, name in enumerate(NAMES):
        objects = (marks.objects.label == label).sum()
        mine = marks.detections.label == label
        for threshold in np.linspace(0, 1, 101):
            taken = mine & (marks.detections.score > threshold)
            assert 2 * (taken & right).sum() / ((taken & counts).sum() + objects) <= found[name].f1 + 1e-12
        taken = mine & above_thresholds(marks, found)
        assert 2 * (taken & right).sum() / ((taken & counts).sum() + objects) == pytest.approx(found[name].f1)
    assert f1_over_scores(marks, np.array([0.0, 1.0]))[1] == 0.0


def test_what_lies_in_a_crowd_changes_no_threshold_and_no_calibration() -> None:
    """A sure detection inside a crowd, beside a right one that is less sure."""
    objects = [[0, 0, 0, 0, 100, 100], [0, 0, 200, 0, 100, 100]]
    found = [[0, 0, 210, 10, 50, 50, 0.9], [0, 0, 0, 0, 100, 100, 0.6]]
    marks = marked(objects, found, images=1, crowd=[False, True])
    assert best_thresholds(marks) == {"0": ThresholdChoice(pytest.approx(0.3), 1.0, 1.0, 1.0)}
    assert f1_over_scores(marks, np.array([0.1])).tolist() == [1.0]
    assert calibration(marks).bins == [CalibrationBin(0.6, 1, pytest.approx(0.6), 1.0)]


def test_without_objects_there_is_nothing_to_believe() -> None:
    marks = marked([], FOUND, images=2)
    assert best_thresholds(marks) == {}
    assert not above_thresholds(marks, {}).any()


def test_confusion_counts_each_object_once() -> None:
    marks = marked(OBJECTS, FOUND, images=3)
    everything = np.ones(len(FOUND), bool)
    assert confusion(marks, everything).tolist() == [[2, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [2, 1, 0, 0]]
    assert confusion(marks, ~everything).tolist() == [[0, 0, 0, 2], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_an_object_goes_to_its_own_class_first() -> None:
    both = [[0, 0, 0, 0, 100, 100], [0, 1, 0, 0, 100, 90]]
    found = [[0, 1, 0, 0, 100, 100, 0.9], [0, 0, 0, 0, 100, 90, 0.8]]
    assert confusion(marked(both, found, images=1, classes=2), np.ones(2, bool)).tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 0],
    ]


def test_what_lies_in_a_crowd_is_no_false_alarm() -> None:
    marks = marked([[0, 0, 0, 0, 100, 100]], [[0, 0, 0, 0, 50, 50, 0.9]], images=1, crowd=[True])
    assert confusion(marks, np.ones(1, bool)).sum() == 0


def test_calibration_compares_scores_with_correct_detections() -> None:
    found = calibration(marked(OBJECTS, FOUND, images=3))
    assert found.bins == [
        CalibrationBin(0.2, 1, pytest.approx(0.2), 0.0),
        CalibrationBin(0.4, 1, pytest.approx(0.4), 0.0),
        CalibrationBin(0.6, 2, pytest.approx(0.6), 0.5),
        CalibrationBin(0.8, 1, pytest.approx(0.8), 0.0),
        CalibrationBin(0.9, 1, pytest.approx(0.9), 1.0),
    ]
    assert found.error == pytest.approx((0.2 + 0.4 + 2 * 0.1 + 0.8 + 0.1) / 6)
    assert calibration(marked(OBJECTS, [], images=3)).error is None


def test_groups_of_images_are_sets_of_their_own() -> None:
    marks, _ = equal_models(1, 80)
    objects = np.bincount(marks.objects.image, minlength=80)
    groups = by_crowding(marks)
    assert sum(group.images for group in groups.values()) == (objects > 0).sum()
    chosen = np.flatnonzero((objects >= 2) & (objects <= 5))
    there, here = np.isin(marks.objects.image, chosen), np.isin(marks.detections.image, chosen)
    alone = marked(
        np.c_[marks.objects.image, marks.objects.label, marks.objects.box][there],
        np.c_[marks.detections.image, marks.detections.label, marks.detections.box, marks.detections.score][here],
        images=80,
        classes=len(NAMES),
    )
    assert groups["2 to 5"].map == pytest.approx(metrics_of_matches(alone)["map"])
    assert by_crowding(marked([], FOUND, images=2)) == {}


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
