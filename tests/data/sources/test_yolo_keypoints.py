"""Rows of YOLO with keypoints, and of quadrilaterals."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from detr_ft.data.sources.load import load_data, load_source_data
from detr_ft.data.sources.yolo_keypoints import KeypointReading, recognize_keypoints


def write_rows(yolo: Path, *rows: str) -> None:
    for split in ("train", "valid"):
        (yolo / split / "labels" / "a.txt").write_text("".join(f"{row}\n" for row in rows))


@pytest.mark.parametrize(
    "rows",
    [
        ["1 .5 .5 .25 .2 .45 .45 .55 .55", "0 .3 .3 .2 .2 .25 .3 .35 .3"],  # points in the box
        ["1 .5 .5 .25 .2 .9 .9 2 .1 .1 0", "0 .3 .3 .2 .2 .9 .1 1 .2 .9 2"],  # visibilities
        ["1 .5 .5 .25 .2 .1 .1 .9 .9", "0 .3 .3 .2 .2 .1 .1 .9 .9"],  # polygons would share their points
    ],
    ids=["inside", "visibilities", "equal points"],
)
def test_keypoints_without_kpt_shape_are_recognized(yolo: Path, rows: list[str], caplog: Any) -> None:
    write_rows(yolo, *rows)
    with caplog.at_level(logging.INFO):
        boxes = load_data(str(yolo))["train"][0]["objects"]["bbox"]
    assert boxes == [pytest.approx([15, 12, 10, 6]), pytest.approx([8, 6, 8, 6])]
    assert "numbers of keypoints" in caplog.text


@pytest.mark.parametrize(
    ("rows", "box"),
    [
        (["1 .3 .2 .5 .2 .5 .4 .3 .4", "0 .2 .2 .4 .2 .4 .5 .2 .5"], [12, 6, 8, 6]),  # corners of rotated boxes
        (["1 .2 .2 .6 .3 .7 .8 .3 .9", "0 .1 .3 .5 .2 .9 .7 .4 .8"], [8, 6, 20, 21]),  # polygons of one length
    ],
    ids=["rotated", "polygons"],
)
def test_polygons_of_one_length_are_no_keypoints(yolo: Path, rows: list[str], box: list[float]) -> None:
    write_rows(yolo, *rows)
    assert load_data(str(yolo))["train"][0]["objects"]["bbox"][0] == pytest.approx(box)


def test_quadrilaterals_that_could_be_keypoints_are_reported(yolo: Path) -> None:
    """Plates in perspective: the first two numbers with the next ones as size contain all points."""
    rows = [f"0 {0.40 + shift} .52 {0.62 + shift} .50 {0.60 + shift} .63 {0.43 + shift} .60" for shift in (0, 0.01)]
    write_rows(yolo, *rows)
    data = load_source_data(str(yolo))
    assert data.splits["train"][0]["objects"]["bbox"][0] == pytest.approx([16, 15, 8.8, 3.9])
    (problem,) = (one for one in data.problems if one.kind == "unclear rows")
    assert (problem.count, problem.refused) == (4, False)
    assert problem.message.startswith(
        f"{yolo / 'train' / 'labels' / 'a.txt'}, line 1: the 8 numbers of each of the 4 rows"
    )
    assert "kpt_shape: [2, 2]" in problem.message
    with (yolo / "data.yaml").open("a") as file:
        file.write("kpt_shape: [2, 2]\n")
    data = load_source_data(str(yolo))
    assert data.splits["train"][0]["objects"]["bbox"][0] == pytest.approx([3.6, 8.1, 24.8, 15])
    assert [one.kind for one in data.problems] == ["unlabeled", "unlabeled"]


@pytest.mark.parametrize(
    ("rows", "count", "is_unclear"),
    [
        ([[0.4, 0.5, 0.6, 0.5, 0.6, 0.6, 0.4, 0.65]], 0, True),
        ([[0.4, 0.5, 0.6, 0.5, 0.6, 0.6, 0.4, 0.65], [0.1, 0.1, 0.15, 0.1, 0.2, 0.3, 0.1, 0.35]], 0, False),
        ([[0.5, 0.5, 0.4, 0.4, 0.5, 0.45, 0.45, 0.5]], 4, False),  # sides that touch
        ([[0.5, 0.5, 0.4, 0.4, 0.4, 0.5, 0.5, 0.4]], 4, False),  # sides that cross
        ([[0.5, 0.5, 0.4, 0.4, 0.3, 0.3, 0.6, 0.6]], 4, False),  # no area
        ([[0.4, 0.5, 0.6, 0.5, 0.6, 0.6, 0.4, 0.6]] * 3, 0, False),  # a rotated box
        ([[0.4, 0.5, 0.6, 0.5, 0.5, 0.5, 0.4, 0.6, 0.5, 0.5, 0.4, 0.6]], 8, False),  # four keypoints
        ([None, [0.5, 0.5, 0.4, 0.4, 0.5, 0.45, 0.45, 0.5]], 0, False),
        ([], 0, False),
    ],
)
def test_the_reading_of_rows_as_keypoints(rows: list[Any], count: int, is_unclear: bool) -> None:
    assert recognize_keypoints(rows) == KeypointReading(count, is_unclear)
