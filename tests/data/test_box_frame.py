from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_ft.data.box_frame import BoxCounts, count_boxes, to_fractions, to_pixels, trainable_boxes
from detr_ft.data.generated.generate import generate

sides = st.integers(8, 4000)


@settings(deadline=None)
@given(width=sides, height=sides, seed=st.integers(0, 1000))
def test_fractions_and_pixels_are_inverse(width: int, height: int, seed: int) -> None:
    corners = torch.rand(5, 2, 2, generator=torch.Generator().manual_seed(seed)).sort(1).values
    boxes = corners.flatten(1) * torch.tensor([width, height, width, height])
    fractions = to_fractions(boxes, width, height)
    assert fractions.min() >= 0
    assert fractions.max() <= 1
    torch.testing.assert_close(to_pixels(fractions, width, height), boxes, rtol=1e-5, atol=1e-3 * max(width, height))


def test_every_defect_is_counted_once() -> None:
    inf, nan = float("inf"), float("nan")
    bbox = torch.tensor(
        [
            [10, 10, 20, 20],
            [90, 10, 20, 20],  # sticks out
            [10, 10, 0, 5],
            [10, 10, -5, 5],
            [nan, 10, 5, 5],
            [10, 10, inf, 5],
            [200, 10, 5, 5],
            [30, 30, 10, 10],
        ]
    )
    crowd = torch.tensor([False] * 7 + [True])
    boxes, rows, counts = trainable_boxes(bbox, crowd, 100, 100)
    assert rows.tolist() == [0, 1]
    assert boxes.tolist() == [[10, 10, 30, 30], [90, 10, 100, 30]]
    assert counts == BoxCounts(kept=2, clipped=1, dropped_empty=2, dropped_not_finite=2, dropped_outside=1, crowds=1)
    assert "1 clipped" in str(counts)
    assert "2 dropped for NaN" in str(counts)


def test_counts_of_a_split_are_those_of_its_rows() -> None:
    data = generate("shapes?train=30&validation=0")["train"]
    assert count_boxes(data) == BoxCounts(kept=sum(len(row["objects"]["bbox"]) for row in data))
