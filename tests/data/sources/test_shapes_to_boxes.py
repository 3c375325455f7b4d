"""Boxes around shapes, against the reference and against what can be seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pycocotools import mask as reference

from detr_ft.data.sources.shapes_to_boxes import box_around_rotated, box_around_segmentation


@pytest.mark.parametrize("seed", range(20))
def test_encoded_masks_have_the_box_of_their_pixels(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(5, 60, 2)
    x0, y0 = random.integers(0, width - 2), random.integers(0, height - 2)
    pixels = np.zeros((height, width), dtype=np.uint8)
    pixels[y0 : random.integers(y0 + 1, height), x0 : random.integers(x0 + 1, width)] = 1
    pixels &= random.random((height, width)) < 0.7
    pixels[y0, x0] = 1
    rows, columns = np.nonzero(pixels)
    low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
    expected = [*low, high[0] - low[0], high[1] - low[1]]
    compressed = reference.encode(np.asfortranarray(pixels))
    assert box_around_segmentation({**compressed, "counts": compressed["counts"].decode()}) == expected
    flat = np.concatenate([[0], pixels.T.ravel(), [2]])  # column after column, as the encoding goes
    changes = np.flatnonzero(np.diff(flat))
    counts = np.diff([0, *changes])
    assert box_around_segmentation({"size": [int(height), int(width)], "counts": counts.tolist()}) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [[]],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, "x"]],
        [[1, 2, 3, 4, 5, 6], [1]],
        {"size": [4, 5]},
        {"size": [4, 5], "counts": [20]},
        {"size": [4, 5], "counts": [3, 10**30]},
        {"size": [4, 5], "counts": [3, 2]},
        {"size": [4, 5], "counts": "é"},
        {"size": [30, 40], "counts": "n27g0000"},
        {"size": [10**12, 5], "counts": [1, 2]},
        {"size": [4.5, 5], "counts": [1, 2]},
    ],
)
def test_values_that_are_no_segmentation(value: object) -> None:
    assert box_around_segmentation(value) is None


@pytest.mark.parametrize(("width", "degrees"), [(4, math.inf), (4, math.nan), (math.inf, 45)])
def test_a_box_rotated_by_no_number_is_no_box(width: float, degrees: float) -> None:
    assert all(map(math.isnan, box_around_rotated([1, 2, width, 3], degrees, (1, 2))))


@pytest.mark.parametrize(
    ("degrees", "pivot", "box"),
    [
        (0, (0, 0), [10, 10, 4, 2]),
        (90, (10, 10), [8, 10, 2, 4]),
        (-90, (10, 10), [10, 6, 2, 4]),
        (90, (12, 11), [11, 9, 2, 4]),
        (180, (10, 10), [6, 8, 4, 2]),
        (45, (10, 10), [10 - 2**0.5, 10, 3 * 2**0.5, 3 * 2**0.5]),
    ],
)
def test_a_rotated_box_turns_clockwise_on_the_screen(
    degrees: float, pivot: tuple[float, float], box: list[float]
) -> None:
    assert box_around_rotated([10, 10, 4, 2], degrees, pivot) == pytest.approx(box)
