"""Patterns of a split's boxes that a broken exporter or annotation tool leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from detr_ft.data.doctor import examine
from detr_ft.data.doctor.finding import Finding

Rows = Callable[..., Dataset]
PATTERNS = ("boxes at the border", "boxes never vary", "one size")
W, H = 200, 150  # of the images that `make_rows` makes


def patterns(rows: Dataset) -> list[Finding]:
    return [one for one in examine(DatasetDict(train=rows)).findings if one.kind in PATTERNS]


def scattered(count: int, seed: int = 0) -> list[list[float]]:
    """Boxes of different places and sizes, away from the borders."""
    random = np.random.default_rng(seed)
    corners, sizes = random.uniform(10, 60, (count, 2)), random.uniform(9, 60, (count, 2))
    return np.concatenate([corners, sizes], axis=1).round(2).tolist()


def one_each(boxes: Sequence[Sequence[float]]) -> list[list[Sequence[float]]]:
    return [[box] for box in boxes]


def test_scattered_boxes_have_no_pattern(make_rows: Rows) -> None:
    assert patterns(make_rows(*one_each(scattered(20)))) == []


@pytest.mark.parametrize(
    ("move", "place"),
    [
        (lambda x, y, w, h: (0.3, 0, w, h), "top left corner"),
        (lambda x, y, w, h: (W - w, H - h, w, h), "bottom right corner"),
        (lambda x, y, w, h: (0, y, w, h), "left edge"),
        (lambda x, y, w, h: (x, H - h, w, h), "bottom edge"),
    ],
)
def test_boxes_that_share_a_corner_or_an_edge(make_rows: Rows, move: Callable[..., object], place: str) -> None:
    boxes = scattered(20)
    moved = [move(*box) if index < 14 else box for index, box in enumerate(boxes)]
    (found,) = patterns(make_rows(*one_each(moved)))
    assert (found.kind, place in found.message) == ("boxes at the border", True)
    assert found.message.startswith("14 of 20 boxes")
    assert (found.row, found.place) == (0, 0)


def test_boxes_of_whole_images_touch_every_border(make_rows: Rows) -> None:
    assert patterns(make_rows(*one_each([[0, 0, W, H]] * 12), *one_each(scattered(12)))) == []


def test_the_same_box_in_most_images(make_rows: Rows) -> None:
    (found,) = patterns(make_rows(*one_each([[5, 6, 10, 9]] * 12), *one_each(scattered(3))))
    assert (found.kind, "12 of 15 images" in found.message) == ("boxes never vary", True)


def test_a_class_of_one_size(make_rows: Rows) -> None:
    boxes = [[x, y, 8, 8] for x, y, _, _ in scattered(12)]
    rows = make_rows(
        *one_each(boxes), *one_each(scattered(12, seed=1)), labels=[[1]] * 12 + [[0]] * 12, names=["a", "b"]
    )
    (found,) = patterns(rows)
    assert (found.kind, "all 12 boxes of 'b' are 8x8 pixels" in found.message) == ("one size", True)


def test_few_boxes_have_a_pattern_by_chance(make_rows: Rows) -> None:
    assert patterns(make_rows(*one_each([[0, 0, 8, 8]] * 4))) == []


def test_an_image_without_the_boxes_of_its_copies(make_rows: Rows, tmp_path: Path) -> None:
    rows = make_rows([[5, 6, 10, 9]], [])
    first = rows[0]["image"]["path"]
    copied = Path(first).with_name("again.png")
    from PIL import Image

    picture = Image.open(first)
    picture.putpixel((0, 0), (1, 2, 3))
    picture.save(copied)
    images = [rows[0]["image"], {"path": str(copied), "bytes": None}]
    rows = rows.remove_columns("image").add_column("image", images).cast(rows.features).select_columns([*rows.features])
    (found,) = [one for one in examine(DatasetDict(train=rows)).findings if one.kind == "copy without boxes"]
    assert (found.row, found.like) == (1, ("train", 0))


def test_images_too_thin_for_the_size_of_training(make_rows: Rows) -> None:
    rows = make_rows([[1, 0, 9, 1]], size=(600, 1))
    diagnosis = examine(DatasetDict(train=rows), longest_edge=64)
    assert [(one.kind, one.level) for one in diagnosis.findings if one.kind == "too thin"] == [("too thin", "error")]
    assert [one for one in examine(DatasetDict(train=rows), longest_edge=640).findings if one.kind == "too thin"] == []
