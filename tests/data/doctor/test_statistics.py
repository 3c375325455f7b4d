"""The boxes of a split as columns: another format is reported once, single defects are not."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import DatasetDict

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.doctor import examine
from detr_ft.data.doctor.statistics import boxes_of, converted, other_format

W, H = 200, 150


def valid_boxes(seed: int, count: int = 30) -> np.ndarray:
    random = np.random.default_rng(seed)
    size = random.uniform(0.1, 0.4, (count, 2)) * (W, H)
    return np.concatenate([random.uniform(0, 1, (count, 2)) * ((W, H) - size), size], axis=1)


FORMATS = {
    "xyxy": lambda b: np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], 1),
    "cxcywh": lambda b: np.concatenate([b[:, :2] + b[:, 2:] / 2, b[:, 2:]], 1),
    "xywh-fractions": lambda b: b / (W, H, W, H),
    "xyxy-fractions": lambda b: np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], 1) / (W, H, W, H),
    "cxcywh-fractions": lambda b: np.concatenate([b[:, :2] + b[:, 2:] / 2, b[:, 2:]], 1) / (W, H, W, H),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_another_format_is_reported_once_and_converted(make_rows, name: str, seed: int) -> None:
    right = valid_boxes(seed)
    rows = make_rows(*FORMATS[name](right).reshape(10, 3, 4).tolist(), size=(W, H), seed=seed)
    boxes, format = boxes_of(rows), BoxFormat.parse(name)
    assert other_format(boxes) == format
    np.testing.assert_allclose(converted(boxes, format).xywh, right, atol=1e-9)
    (found,) = examine(DatasetDict({"train": rows})).findings
    assert (found.kind, found.level) == ("box format", "error")
    assert str(format) in found.message


@pytest.mark.parametrize("seed", range(20))
def test_a_few_defective_boxes_are_not_another_format(make_rows, seed: int) -> None:
    boxes = valid_boxes(seed)
    boxes[:6, 0] = W - boxes[:6, 2] / 2  # beyond the right border by half their width
    rows = make_rows(*boxes.reshape(10, 3, 4).tolist(), size=(W, H))
    assert other_format(boxes_of(rows)) is None


def test_columns_follow_the_rows(make_rows) -> None:
    rows = make_rows([[1, 2, 3, 4]], [], [[5, 6, 7, 8], [1, 1, 0, float("inf")]])
    boxes = boxes_of(rows)
    assert boxes.row.tolist() == [0, 2, 2]
    assert boxes.position.tolist() == [0, 0, 1]
    assert boxes.id.tolist() == [1000, 1100, 1101]
    assert boxes.valid.tolist() == [True, True, False]
    assert boxes_of(make_rows([], [])).xywh.shape == (0, 4)


def test_huge_numbers_are_reported_as_not_finite(make_rows) -> None:
    huge = [[0, 0, 1e308, 1e308], [1e308, 1e308, 1e308, 1e308], [-1e308, 0, 1e308, 4]]
    rows = make_rows([*huge, [1, 1, 20, 1e-320], *(valid_boxes(0, 8).tolist())])
    diagnosis = examine(DatasetDict({"train": rows}))
    assert [one.annotation for one in diagnosis.findings if one.kind == "not finite"] == [1000, 1001, 1002]
    assert diagnosis.figures["train"].boxes == 9
