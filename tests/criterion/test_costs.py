from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_batches import random_batch

from detr_ft.criterion import (
    BoxL1Cost,
    CIoUCost,
    ClassCost,
    Cost,
    CriterionError,
    DIoUCost,
    GIoUCost,
    GIoULoss,
    HungarianMatcher,
    LogClassCost,
    SoftmaxFocalCost,
    check_cost,
)
from detr_ft.criterion.costs import image_blocks, total_cost
from detr_ft.structures import Predictions, Targets

ragged = st.lists(st.integers(0, 5), min_size=1, max_size=6).map(tuple)
COSTS: list[Cost] = [ClassCost(), LogClassCost(), SoftmaxFocalCost(), BoxL1Cost(), GIoUCost(), DIoUCost(), CIoUCost()]


@pytest.mark.parametrize("cost", COSTS, ids=lambda cost: type(cost).__name__)
def test_every_built_in_cost_passes_the_check(cost: Cost) -> None:
    assert check_cost(cost) == []


@pytest.mark.parametrize("cost", COSTS, ids=lambda cost: type(cost).__name__)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_gives_nearly_the_same_in_fp32(cost: Cost, dtype: torch.dtype) -> None:
    predictions, targets, _ = random_batch(0, (3, 0, 2))
    low = cost(Predictions(predictions.logits.to(dtype), predictions.boxes.to(dtype)), targets)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, cost(predictions, targets), rtol=0.1, atol=0.1)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1.0, 100.0, 10_000.0]))
def test_extremes_are_finite(seed: int, scale: float) -> None:
    predictions, targets, _ = random_batch(seed, (3, 1))
    thin = predictions.boxes.detach().clone()
    thin[..., ::2, 2:] = 0
    thin[:, 0, 1] = targets.boxes[0]
    for cost in COSTS:
        assert cost(Predictions(predictions.logits * scale, thin), targets).isfinite().all()
        flat = Targets(targets.labels, targets.boxes * torch.tensor([1, 1, 0, 0]), targets.image, targets.counts)
        assert cost(Predictions(predictions.logits * scale, thin), flat).isfinite().all()


def test_the_logarithm_of_the_probability() -> None:
    predictions, targets, _ = random_batch(1, (2, 3))
    torch.testing.assert_close(
        LogClassCost()(predictions, targets), -(-ClassCost()(predictions, targets)).log(), rtol=1e-4, atol=1e-5
    )


def test_the_focal_cost_equals_its_formula() -> None:
    predictions, targets, _ = random_batch(1, (2, 3))
    p = -ClassCost()(predictions, targets).double()
    expected = 0.25 * (1 - p) ** 2 * -p.log() - 0.75 * p**2 * -(1 - p).log()
    torch.testing.assert_close(SoftmaxFocalCost()(predictions, targets).double(), expected, rtol=1e-4, atol=1e-5)


def test_costs_of_disjoint_boxes_fall_with_their_distance() -> None:
    logits = torch.zeros(1, 1, 3, 2)
    boxes = torch.tensor([[[[0.3, 0.5, 0.1, 0.1], [0.6, 0.5, 0.1, 0.1], [0.8, 0.5, 0.1, 0.1]]]])
    targets = Targets(torch.tensor([0]), torch.tensor([[0.9, 0.5, 0.1, 0.1]]), torch.tensor([0]), (1,))
    for cost in (GIoUCost(), DIoUCost(), CIoUCost()):
        far, near, nearest = cost(Predictions(logits, boxes), targets)[0, 0].tolist()
        assert far > near > nearest


def test_only_ciou_depends_on_the_aspect_ratio() -> None:
    """A box and its quarter turn about the same centre: DIoU is IoU there, and CIoU is less."""
    logits, boxes = torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.5, 0.5, 0.4, 0.2]]]])
    targets = Targets(torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.2, 0.4]]), torch.tensor([0]), (1,))
    diou, ciou = (-cost(Predictions(logits, boxes), targets).item() for cost in (DIoUCost(), CIoUCost()))
    assert diou == pytest.approx(1 / 3, abs=1e-5)
    v = 4 / torch.pi**2 * (torch.atan(torch.tensor(2.0)) - torch.atan(torch.tensor(0.5))).item() ** 2
    assert ciou == pytest.approx(1 / 3 - v * v / (1 - 1 / 3 + v), abs=1e-5)


class Foreign:
    """A cost that ignores the images of queries."""

    weight = 1.0

    def __call__(self, predictions: Predictions, targets: Targets) -> torch.Tensor:
        boxes = predictions.boxes.mean(1)  # [L, Q, 4]: over all images
        return (boxes[:, None] - targets.boxes[None, :, None]).abs().sum(-1)


class Half(Foreign):
    def __call__(self, predictions: Predictions, targets: Targets) -> torch.Tensor:
        return BoxL1Cost()(predictions, targets).half()


class Sideways(Foreign):
    def __call__(self, predictions: Predictions, targets: Targets) -> torch.Tensor:
        return BoxL1Cost()(predictions, targets).transpose(1, 2)


class Ratio(Foreign):
    """A division by a width that may be 0."""

    def __call__(self, predictions: Predictions, targets: Targets) -> torch.Tensor:
        return BoxL1Cost()(predictions, targets) / predictions.boxes[:, targets.image, :, 2]


class Ranked(Foreign):
    def __call__(self, predictions: Predictions, targets: Targets) -> torch.Tensor:
        return BoxL1Cost()(predictions, targets) + torch.arange(len(targets.labels))[:, None]


class Listed(Foreign):
    def __call__(self, predictions: Predictions, targets: Targets) -> torch.Tensor:
        return BoxL1Cost()(predictions, targets).tolist()  # type: ignore[no-any-return]


class Absent(Foreign):
    def __call__(self, predictions: Predictions, targets: Targets) -> torch.Tensor:
        return predictions.boxes[:, :, 99]


class Weightless:
    def __call__(self, predictions: Predictions, targets: Targets) -> torch.Tensor:
        return BoxL1Cost()(predictions, targets)


class HalfAlong(Foreign):
    """Computes in the precision of the predictions."""

    def __call__(self, predictions: Predictions, targets: Targets) -> torch.Tensor:
        return (predictions.boxes[:, targets.image] - targets.boxes[:, None].to(predictions.boxes.dtype)).abs().sum(-1)


class FirstImage(Foreign):
    """Reads the queries of image 0 for every target."""

    def __call__(self, predictions: Predictions, targets: Targets) -> torch.Tensor:
        boxes = predictions.boxes[:, torch.zeros_like(targets.image)]
        return (boxes - targets.boxes[:, None]).abs().sum(-1)


@pytest.mark.parametrize(("cost", "words"), [(Sideways(), "[L, P, Q], here [3, 3, 9]"), (Listed(), "got list")])
def test_a_wrong_shape_or_type_of_a_cost_raises_in_a_step(cost: Cost, words: str) -> None:
    predictions, targets, _ = random_batch(0, (2, 1))
    with pytest.raises(CriterionError, match=re.escape(words)):
        HungarianMatcher([cost])(predictions, targets)


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (FirstImage(), "other images"),
        (HalfAlong(), "where predictions are torch.bfloat16"),
        (Weightless(), "no cost"),
        (GIoULoss(), "no cost"),
        (BoxL1Cost(weight=-1), "0 or above"),
        (Foreign(), "other images"),
        (Half(), "fp32"),
        (Sideways(), "[L, P, Q]"),
        (Ratio(), "boxes without area"),
        (Listed(), "got list"),
        (Absent(), "IndexError"),
        (Ranked(), "order of the targets"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_check_cost_reports_the_problem(cost: Any, words: str) -> None:
    problems = check_cost(cost)
    assert any(words in problem for problem in problems), problems


@settings(deadline=None, max_examples=50)
@given(counts=ragged, most=st.integers(0, 8))
def test_blocks_are_whole_images_in_order(counts: tuple[int, ...], most: int) -> None:
    _, targets, _ = random_batch(0, counts)
    recorded = []
    for indices, block in image_blocks(targets, most):
        assert torch.equal(block.boxes, targets.boxes[indices])
        assert torch.equal(block.image, targets.image[indices])
        images = {image for image, count in enumerate(block.counts) if count}
        assert images == set(block.image.tolist())
        assert all(block.counts[image] == counts[image] for image in images)
        assert sum(block.counts) <= most or len(images) <= 1
        assert block.num_boxes == targets.num_boxes
        recorded += block.labels.tolist()
    assert recorded == targets.labels.tolist()


@settings(deadline=None, max_examples=30)
@given(counts=ragged, seed=st.integers(0, 99))
def test_costs_do_not_depend_on_the_blocks(counts: tuple[int, ...], seed: int) -> None:
    predictions, targets, _ = random_batch(seed, counts)
    costs = (BoxL1Cost(), GIoUCost())
    whole = total_cost(costs, predictions, targets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detr_ft.criterion.costs._MAX_ENTRIES_ON_CPU", 1)
        assert torch.equal(total_cost(costs, predictions, targets), whole)
