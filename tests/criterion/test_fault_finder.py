from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from support.random_batches import random_batch

from detr_ft.criterion import (
    BoxL1Loss,
    CardinalityError,
    ClassCost,
    CrossEntropyLoss,
    HungarianMatcher,
    LayerMatcher,
    Matcher,
    MatcherSchedule,
    SetCriterion,
    describe_exception,
    detr_criterion,
    find_fault,
)
from detr_ft.structures import Matches, Predictions, Targets


@dataclass(frozen=True)
class BadAt:
    """A loss that is NaN at one layer and image, given the class of an object there."""

    layer: int
    label: int
    weight: float = 1.0
    name: str = "loss_bad"

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        there = (matches.layer == self.layer) & (matches.target_values(targets.labels) == self.label)
        values = matches.predicted(predictions.boxes).sum(-1)
        return matches.per_layer(torch.where(there, values * float("nan"), values)) / matches.num_boxes


@dataclass(frozen=True)
class Root:
    """A loss with a finite value and an infinite gradient at one layer, image and query."""

    weight: float = 1.0
    name: str = "loss_root"

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        steep = torch.zeros(predictions.boxes.shape[:3], dtype=torch.bool)
        steep[1, 1, 4] = True
        apart = predictions.boxes[..., 0] - predictions.boxes.detach()[..., 0]
        return torch.where(steep, apart, torch.ones_like(apart)).abs().sqrt().sum((1, 2))


@dataclass(frozen=True)
class Together:
    """A loss that is NaN only for several images."""

    weight: float = 1.0
    name: str = "loss_together"

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        apart = (
            predictions.boxes.sum((2, 3)).std(1) if predictions.num_images > 1 else torch.ones(predictions.num_layers)
        )
        return apart * float("nan") if predictions.num_images > 1 else apart


def fault_of(*losses: object, counts: tuple[int, ...] = (2, 3, 1)) -> str | None:
    predictions, targets, _ = random_batch(0, counts)
    targets.labels.copy_(torch.arange(len(targets.labels)) % 5)
    return find_fault(SetCriterion(HungarianMatcher(), [*losses, CrossEntropyLoss()]), predictions, targets)  # type: ignore[list-item]


def test_a_finite_step_has_no_fault() -> None:
    predictions, targets, _ = random_batch(0, (2, 0, 1))
    assert find_fault(detr_criterion(), predictions, targets) is None
    assert fault_of(BoxL1Loss(weight=0), CardinalityError()) is None


@pytest.mark.parametrize(("layer", "label", "image"), [(0, 0, 0), (2, 3, 1), (1, 4, 1)])
def test_a_bad_loss_is_named_with_its_layer_and_image(layer: int, label: int, image: int) -> None:
    fault = fault_of(BoxL1Loss(), BadAt(layer, label)) or ""
    assert f"BadAt(layer={layer}, label={label}" in fault
    assert f"is nan at layer {layer}, image {image} of the batch" in fault


def test_a_fault_of_no_single_image_has_no_image_in_the_message() -> None:
    fault = fault_of(Together()) or ""
    assert "Together" in fault
    assert "is nan at layer 0. " in fault


def test_a_bad_gradient_is_named_with_its_query() -> None:
    fault = fault_of(Root()) or ""
    assert "the gradient of the loss Root" in fault
    assert "boxes of query 4 of image 1 of the batch, at layer 1" in fault


@pytest.mark.parametrize(("value", "words"), [(None, "got NoneType"), (torch.zeros(5), "got [5]")])
def test_a_loss_with_a_wrong_type_or_shape_is_named(value: object, words: str) -> None:
    class Wrong:
        weight, name = 1.0, "loss_wrong"

        def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> object:
            return value

    assert words in (fault_of(Wrong()) or "")


def test_a_loss_without_gradient_is_no_fault() -> None:
    assert fault_of(BadAt(9, 9), counts=(0, 0)) is None


def test_a_bad_prediction_target_or_cost_is_named_first() -> None:
    class Broken:
        weight = 1.0

        def __call__(self, predictions: Predictions, targets: Targets) -> torch.Tensor:
            return ClassCost()(predictions, targets) / 0

        def __repr__(self) -> str:
            return "Broken()"

    predictions, targets, _ = random_batch(0, (2,))
    costly = SetCriterion(HungarianMatcher([Broken()]), [BoxL1Loss()])
    assert "the cost Broken() is NaN or infinite at layer 0" in (find_fault(costly, predictions, targets) or "")
    with torch.no_grad():
        predictions.logits[1, 0, 3] = float("inf")
    assert "predicted logits" in (find_fault(detr_criterion(), predictions, targets) or "")


@dataclass(frozen=True)
class Failing:
    """A matcher that raises an exception."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        raise ZeroDivisionError("no boxes")


@pytest.mark.parametrize(
    "matcher",
    [
        Failing(),
        LayerMatcher(last=HungarianMatcher(), auxiliary=Failing()),
        MatcherSchedule([HungarianMatcher(), Failing()], starts=[0, 1]),
        MatcherSchedule([HungarianMatcher(), LayerMatcher(last=Failing(), auxiliary=HungarianMatcher())], [0, 1]),
    ],
)
def test_an_exception_of_a_matcher_names_the_innermost_matcher_and_its_line(matcher: Matcher) -> None:
    predictions, targets, _ = random_batch(0, (2, 3))
    criterion = SetCriterion(matcher, [BoxL1Loss()])
    with pytest.raises(ZeroDivisionError) as raised:
        criterion(predictions, targets)
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    line = 1 + lines.index('        raise ZeroDivisionError("no boxes")')
    expected = f"Failing: ZeroDivisionError: no boxes (test_fault_finder.py, line {line})"
    assert describe_exception(raised.value, criterion) == expected
