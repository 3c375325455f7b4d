"""The values of a box move with it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from detr_ft.data.pipeline.sample import Sample, fault_of, read_sample
from detr_ft.data.schema import detection_objects


def test_labels_and_flags_stay_with_their_boxes_where_others_are_left_out() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (100, 50)).save(stream, "PNG")
    boxes = [[0, 0, 10, 10], [5, 5, 0, 9], [20, 0, 10, 10], [200, 0, 5, 5], [90, 40, 30, 30]]
    objects = detection_objects(boxes, [0, 1, 2, 3, 4], iscrowd=[False, False, True, True, False])
    image = {"path": None, "bytes": stream.getvalue()}
    sample = read_sample({"image": image, "image_id": 1, "width": 100, "height": 50, "objects": objects})
    assert sample.boxes.tolist() == [[0, 0, 10, 10], [20, 0, 30, 10], [90, 40, 100, 50]]
    assert sample.labels.tolist() == [0, 2, 4]
    assert sample.crowd.tolist() == [False, True, False]


def test_crop_removes_boxes_below_min_visible() -> None:
    boxes = torch.tensor([[0.0, 0, 100, 10], [0, 20, 100, 30], [60, 40, 100, 50]])
    sample = Sample(torch.zeros(3, 60, 100, dtype=torch.uint8), boxes, torch.tensor([7, 8, 9]), boxes[:, 0] > 50)
    cut = sample.crop(61, 0, 39, 60, min_visible=0.4)
    assert (cut.boxes.tolist(), cut.labels.tolist(), cut.crowd.tolist()) == ([[0, 40, 39, 50]], [9], [True])
    assert sample.crop(59, 0, 41, 60, min_visible=0.4).labels.tolist() == [7, 8, 9]


VALID = Sample(
    torch.zeros(3, 40, 60, dtype=torch.uint8),
    torch.tensor([[1.0, 2, 30, 40]]),
    torch.tensor([0]),
    torch.tensor([False]),
)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "returned a NoneType, not a Sample"),
        (replace(VALID, image=VALID.image.float()), r"image \[3, 40, 60\] of torch.float32; it must be uint8"),
        (replace(VALID, image=VALID.image.permute(1, 2, 0)), r"image \[40, 60, 3\]"),
        (replace(VALID, image=VALID.image[:, :0]), r"image \[3, 0, 60\]"),
        (replace(VALID, boxes=VALID.boxes[:, :3]), r"boxes \[1, 3\]"),
        (replace(VALID, boxes=VALID.boxes.long()), "boxes .* of torch.int64"),
        (replace(VALID, labels=VALID.labels[:0]), r"1 boxes with labels \[0\]"),
        (replace(VALID, labels=VALID.labels.float()), "labels .* of torch.float32"),
        (replace(VALID, crowd=VALID.crowd.repeat(2)), r"1 boxes with crowd \[2\]"),
        (replace(VALID, boxes=VALID.boxes * 50), r"the box \[50.0, 100.0, 1500.0, 2000.0\], which is not xyxy"),
        (replace(VALID, boxes=VALID.boxes * float("nan")), "the box .*nan"),
        (replace(VALID, boxes=VALID.boxes.flip(-1)), "the box"),
        (replace(VALID, scale=0.0), "the scale 0.0"),
        (replace(VALID, scale=float("inf")), "the scale inf"),
    ],
)
def test_invalid_samples_have_a_fault(returned: Any, words: str) -> None:
    import re

    fault = fault_of(returned)
    assert fault is not None
    assert re.search(words, fault)


def test_a_sample_has_no_fault() -> None:
    assert fault_of(VALID) is None
    assert fault_of(VALID.keep(torch.tensor([False]))) is None
    assert fault_of(replace(VALID, boxes=torch.tensor([[-0.5, 0, 60.5, 40]]))) is None
