from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from evaluation.tide_reference import CLASSES, made_up

from detr_ft.boxes import xywh_to_xyxy
from detr_ft.data.schema import detection_features, detection_objects
from detr_ft.evaluation.metrics import VocMetrics
from detr_ft.evaluation.voc import voc_metrics
from detr_ft.structures import Detections

EXPECTED = json.loads((Path(__file__).parent / "voc_reference.json").read_text())


def split_and_found(objects: Any, detected: Any, images: int, spared: Any = None) -> tuple[Dataset, list[Detections]]:
    """Return a split of objects `[P, 6]` and its detections `[D, 7]`: image, class, box xywh, score."""
    objects, detected = np.asarray(objects, float).reshape(-1, 6), np.asarray(detected, float).reshape(-1, 7)
    spared = np.zeros(len(objects), bool) if spared is None else np.asarray(spared)
    rows, detections = [], []
    for image in range(images):
        there, here = objects[:, 0] == image, torch.from_numpy(detected[detected[:, 0] == image])
        inside = detection_objects(
            objects[there, 2:].tolist(), objects[there, 1].astype(int).tolist(), difficult=spared[there].tolist()
        )
        rows.append(
            {"image": {"path": None, "bytes": b""}, "image_id": image, "width": 500, "height": 500, "objects": inside}
        )
        detections.append(Detections(xywh_to_xyxy(here[:, 2:6]), here[:, 6], here[:, 1].long()))
    names = [str(label) for label in range(CLASSES)]
    return Dataset.from_list(rows, features=detection_features(names)), detections


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda one: f"{one['seed']}-{one['threshold']}")
def test_figures_are_those_of_another_package(expected: dict[str, Any]) -> None:
    objects, detected = made_up(expected["seed"])
    ours = voc_metrics(*split_and_found(objects, detected, 10), threshold=expected["threshold"])
    for name in ("map_11_points", "map_all_points"):
        assert getattr(ours, name) == pytest.approx(expected[name], abs=1e-6)


def test_by_hand() -> None:
    objects = [[0, 0, 0, 0, 100, 100], [0, 0, 200, 0, 100, 100], [0, 0, 0, 200, 100, 100]]
    detected = [
        [0, 0, 0, 0, 100, 100, 0.9],  # right
        [0, 0, 0, 0, 100, 90, 0.8],  # the same again: wrong
        [0, 0, 200, 0, 100, 100, 0.7],  # right
        [0, 0, 0, 200, 100, 100, 0.75],  # of a difficult one: doesn't count
        [0, 0, 300, 300, 50, 50, 0.5],  # nothing there
    ]
    values = voc_metrics(*split_and_found(objects, detected, 1, [False, False, True]))
    assert values.per_class.keys() == {"0"}
    assert values.per_class["0"].count == 2
    assert values.map_all_points == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert values.map_11_points == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


def test_half_an_overlap_is_not_enough() -> None:
    half = [[0, 0, 0, 0, 100, 50, 0.9]]
    assert voc_metrics(*split_and_found([[0, 0, 0, 0, 100, 100]], half, 1)).map_all_points == 0.0
    assert voc_metrics(*split_and_found([[0, 0, 0, 0, 100, 100]], half, 1), threshold=0.49).map_all_points == 1.0


def test_metrics_without_objects_are_none() -> None:
    assert voc_metrics(*split_and_found([], [[0, 0, 0, 0, 9, 9, 0.5]], 1)) == VocMetrics(None, None, {})
    assert voc_metrics(*split_and_found([[0, 0, 0, 0, 9, 9]], [], 2)).map_11_points == 0.0


def test_a_recall_of_three_tenths_is_reached_by_three_of_ten() -> None:
    objects = [[image, 0, 0, 0, 10, 10] for image in range(10)]
    values = voc_metrics(*split_and_found(objects, [[*one, 0.9] for one in objects[:3]], 10))
    assert values.map_11_points == pytest.approx(4 / 11)
