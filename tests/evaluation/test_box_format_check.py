"""Boxes of detections in another format than xywh in pixels are recognized, those of poor detectors are not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from datasets import Dataset

from detr_ft.boxes import xywh_to_xyxy
from detr_ft.data.box_format import FORMATS, BoxFormat
from detr_ft.data.schema import detection_features, detection_objects
from detr_ft.evaluation.box_format_check import box_format_doubt
from detr_ft.structures import Detections

WIDTH, HEIGHT = 160, 120
Boxes = Sequence[Sequence[float]]


def random_boxes(seed: int, count: int) -> Boxes:
    random = np.random.default_rng(seed)
    size = random.uniform(10, 50, (count, 2))
    corner = random.uniform(0, 1, (count, 2)) * ([WIDTH, HEIGHT] - size)
    return np.concatenate([corner, size], axis=1).tolist()


def split_of(boxes: Sequence[Boxes]) -> Dataset:
    columns = {
        "image": [{"path": f"/{row}.jpg", "bytes": None} for row in range(len(boxes))],
        "image_id": list(range(len(boxes))),
        "width": [WIDTH] * len(boxes),
        "height": [HEIGHT] * len(boxes),
        "objects": [detection_objects(some, [0] * len(some)) for some in boxes],
    }
    return Dataset.from_dict(columns, features=detection_features(["cat"]))


def detections_of(numbers: Sequence[Boxes]) -> list[Detections]:
    """Detections as a file of xywh is read, whatever its numbers mean."""
    return [
        Detections(
            xywh_to_xyxy(torch.tensor(some, dtype=torch.float64).reshape(-1, 4)),
            torch.full((len(some),), 0.5),
            torch.zeros(len(some), dtype=torch.long),
        )
        for some in numbers
    ]


def written_as(format: BoxFormat, boxes: Boxes) -> Boxes:
    x, y, w, h = np.array(boxes).T
    numbers = {
        "xywh": (x, y, w, h),
        "xyxy": (x, y, x + w, y + h),
        "cxcywh": (x + w / 2, y + h / 2, w, h),
    }[format.corners]
    scale = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT]) if format.unit == "fractions" else 1
    return (np.array(numbers).T / scale).tolist()


TRUTH = [random_boxes(seed, 4) for seed in range(6)]


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_the_format_of_good_detections_is_named(format: BoxFormat) -> None:
    doubt = box_format_doubt(split_of(TRUTH), detections_of([written_as(format, boxes) for boxes in TRUTH]))
    assert bool(doubt) == (format != FORMATS[0])
    assert str(format) in doubt or format == FORMATS[0]


@pytest.mark.parametrize(
    ("factor", "columns", "words"),
    [
        (1, [1, 0, 3, 2], "xywh in pixels with rows before columns"),
        (0.5, [0, 1, 2, 3], "xywh in pixels of images 2 times smaller"),
        (4, [0, 1, 2, 3], "xywh in pixels of images resized to 640"),
    ],
)
def test_the_order_of_numbers_and_the_size_of_images_are_named(factor: float, columns: list[int], words: str) -> None:
    boxes = [(np.array(some)[:, columns] * factor).tolist() for some in TRUTH]
    assert words in box_format_doubt(split_of(TRUTH), detections_of(boxes))


@pytest.mark.parametrize("seed", range(5))
def test_random_boxes_are_not_doubted(seed: int) -> None:
    assert (
        box_format_doubt(split_of(TRUTH), detections_of([random_boxes(100 + seed * 6 + row, 4) for row in range(6)]))
        == ""
    )


@pytest.mark.parametrize("format", [FORMATS[1], FORMATS[3], FORMATS[5]], ids=str)
def test_the_format_is_named_without_objects(format: BoxFormat) -> None:
    # Boxes in the lower right leave the image if corners are read as sizes.
    boxes = [[[100.0, 80.0, 30.0, 30.0], [90.0, 70.0, 40.0, 40.0], [120.0, 60.0, 20.0, 50.0]]] * 3
    doubt = box_format_doubt(split_of([[]] * 3), detections_of([written_as(format, some) for some in boxes]))
    assert format.unit in doubt
    assert format.unit == "fractions" or str(format) in doubt


def test_boxes_of_larger_images_leave_theirs() -> None:
    boxes = [[[4000.0, 3000.0, 900.0, 900.0]] * 3]
    doubt = box_format_doubt(split_of([random_boxes(0, 3)]), detections_of(boxes))
    assert "3 of 3 boxes leave" in doubt
    assert "look like" not in doubt


def test_no_detections_are_not_doubted() -> None:
    assert box_format_doubt(split_of(TRUTH), detections_of([[]] * len(TRUTH))) == ""


def test_a_few_correct_boxes_among_many_are_not_doubted() -> None:
    """A weak detector: one box of twenty is right, and some overlap an object in another format by chance."""
    truth = [random_boxes(seed, 3) for seed in range(4)]
    boxes = [[*truth[row][:1], *random_boxes(50 + row, 19)] for row in range(4)]
    assert box_format_doubt(split_of(truth), detections_of(boxes)) == ""
