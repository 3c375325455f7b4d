"""Rotated boxes of COCO files, as CVAT exports them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from detr_ft.data.sources.load import load_data, load_source_data


@pytest.mark.parametrize(
    ("segmentation", "box"),
    [
        ([], [15, 0, 10, 20]),
        ([[10, 5, 30, 5, 30, 15, 10, 15]], [15, 0, 10, 20]),  # as before the rotation
        ([[15, 0, 25, 0, 25, 20, 15, 20.5]], [10, 5, 20, 10]),  # as rotated
    ],
)
def test_boxes_that_cvat_rotates(
    tmp_path: Path, write_coco_file: Callable[..., Path], segmentation: object, box: list[float]
) -> None:
    row = {"id": 1, "image_id": 5, "category_id": 1, "bbox": [10, 5, 20, 10], "segmentation": segmentation}
    file = write_coco_file(tmp_path / "a.json", annotations=[{**row, "attributes": {"rotation": 90.0}}])
    assert load_data(f"coco:{file}")["train"][0]["objects"]["bbox"] == [pytest.approx(box)]


@pytest.mark.parametrize("rotation", ["90,0", [90], "left", {}])
def test_a_rotation_that_cant_be_read_is_a_problem_of_its_image(
    tmp_path: Path, write_coco_file: Callable[..., Path], rotation: object
) -> None:
    row = {"id": 1, "image_id": 5, "category_id": 1, "bbox": [10, 5, 20, 10]}
    rows = [{**row, "attributes": {"rotation": rotation}}, {**row, "id": 2, "attributes": {"rotation": None}}]
    data = load_source_data(f"coco:{write_coco_file(tmp_path / 'a.json', annotations=rows)}")
    assert data.splits["train"][0]["objects"]["bbox"] == [[10, 5, 20, 10]]
    (problem,) = data.problems
    assert (problem.kind, problem.row) == ("unreadable annotation", 0)
    assert f"annotation 1: attributes.rotation must be degrees, got {rotation!r}" in problem.message
