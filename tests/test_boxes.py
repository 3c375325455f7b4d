from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detr_ft.boxes import (
    ciou,
    cxcywh_to_xyxy,
    diou,
    giou,
    iou,
    xywh_to_xyxy,
    xyxy_to_cxcywh,
    xyxy_to_xywh,
)

FAMILY = [iou, giou, diou, ciou]
numbers = st.integers(0, 1024).map(lambda number: number / 1024)  # sums of these are exact, so that ties are ties
boxes = st.tuples(numbers, numbers, numbers, numbers)


def by_corners(kind: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """The papers' formulas for a pair of cxcywh boxes that have an area, from their corners."""
    (al, at, ar, ab), (bl, bt, br, bb) = cxcywh_to_xyxy(a), cxcywh_to_xyxy(b)
    width, height = torch.minimum(ar, br) - torch.maximum(al, bl), torch.minimum(ab, bb) - torch.maximum(at, bt)
    shared = width.clamp(min=0) * height.clamp(min=0)
    union = (ar - al) * (ab - at) + (br - bl) * (bb - bt) - shared
    across, down = torch.maximum(ar, br) - torch.minimum(al, bl), torch.maximum(ab, bb) - torch.minimum(at, bt)
    overlap = shared / union
    if kind is iou:
        return overlap
    if kind is giou:
        return overlap - (across * down - union) / (across * down)
    distance = overlap - ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / (across**2 + down**2)
    if kind is diou:
        return distance
    v = 4 / math.pi**2 * (torch.atan(b[2] / b[3]) - torch.atan(a[2] / a[3])) ** 2
    return distance - (v / (1 - overlap + v)).detach() * v


@settings(deadline=None, max_examples=200)
@given(first=boxes, second=boxes, tie=st.booleans())
@pytest.mark.parametrize("kind", FAMILY)
def test_values_and_gradients_equal_the_papers(
    kind: Callable[[Tensor, Tensor], Tensor], first: tuple[float, ...], second: tuple[float, ...], tie: bool
) -> None:
    """For boxes with an area. On a grid of eighths edges often coincide."""
    a, b = (torch.tensor(box, dtype=torch.float64) for box in (first, second))
    if tie:
        a, b = (a * 8).round() / 8, (b * 8).round() / 8
    a[2:], b[2:] = a[2:].clamp(min=0.125), b[2:].clamp(min=0.125)
    if kind is ciou and torch.equal(a, b):
        return  # the formula is 0 / 0 there
    a.requires_grad_()
    mine, expected = kind(a, b), by_corners(kind, a, b)
    torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-12)
    gradients = [torch.autograd.grad(value, a)[0] for value in (mine, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-7, atol=1e-9)


@settings(deadline=None, max_examples=100)
@given(first=boxes, second=boxes, scale=st.sampled_from([1e-6, 1.0, 1e4]))
@pytest.mark.parametrize("kind", FAMILY)
def test_values_and_gradients_are_finite(
    kind: Callable[[Tensor, Tensor], Tensor], first: tuple[float, ...], second: tuple[float, ...], scale: float
) -> None:
    for box, other in ((first, second), (first, first), ((*first[:2], 0, 0), second), ((*first[:2], 0, 0),) * 2):
        a, b = scale * torch.tensor(box), scale * torch.tensor(other)
        a.requires_grad_()
        value = kind(a, b)
        assert -2 <= value.item() <= 1 + 1e-5
        assert torch.autograd.grad(value, a)[0].isfinite().all()


@pytest.mark.parametrize("kind", FAMILY)
def test_half_precision_is_computed_in_fp32(kind: Callable[[Tensor, Tensor], Tensor]) -> None:
    a, b = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert kind(a, b).dtype == torch.float32
    torch.testing.assert_close(kind(a, b), kind(a.float(), b.float()))
    assert kind(a[:, None], b).shape == (5, 5)


@settings(deadline=None)
@given(box=boxes)
def test_formats_round_trip(box: tuple[float, ...]) -> None:
    given_box = torch.tensor(box, dtype=torch.float64)
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(given_box)), given_box)
    torch.testing.assert_close(xyxy_to_xywh(xywh_to_xyxy(given_box)), given_box)
