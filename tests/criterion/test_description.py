from __future__ import annotations

from dataclasses import dataclass

import torch

from detr_ft.criterion import (
    BoxL1Cost,
    BoxL1Loss,
    CrossEntropyLoss,
    GreedyMatcher,
    HungarianMatcher,
    LayerMatcher,
    MatcherSchedule,
    OneToManyMatcher,
    SetCriterion,
    detr_criterion,
)
from detr_ft.structures import Matches, Predictions, Targets


def test_detrs_own() -> None:
    assert str(detr_criterion()) == (
        "Matched by HungarianMatcher on 1 x ClassCost + 5 x BoxL1Cost + 2 x GIoUCost.\n"
        "Scored by 1 x CrossEntropyLoss (eos_coef 0.1) + 5 x BoxL1Loss + 2 x GIoULoss.\n"
        "Only logged: CardinalityError."
    )


def test_turns_layers_and_parameters() -> None:
    costs = [BoxL1Cost(2.5)]
    layers = LayerMatcher(HungarianMatcher(costs), OneToManyMatcher(4, costs))
    schedule = MatcherSchedule([layers, GreedyMatcher(costs)], [0, 7])
    losses = [BoxL1Loss(1), CrossEntropyLoss(0, label_smoothing=0.1)]
    assert str(SetCriterion(schedule, losses)) == (
        "Matched by HungarianMatcher on 2.5 x BoxL1Cost in the last layer and OneToManyMatcher (k 4) on 2.5 x BoxL1Cost "
        "in the others up to epoch 7, then by GreedyMatcher on 2.5 x BoxL1Cost.\n"
        "Scored by 1 x BoxL1Loss.\n"
        "Only logged: CrossEntropyLoss (eos_coef 0.1, label_smoothing 0.1)."
    )


@dataclass(frozen=True)
class Nearest:
    """A matcher without costs."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        return HungarianMatcher()(predictions, targets)


class Plain:
    """A loss that is no dataclass."""

    name, weight = "loss_plain", 2.0

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        return predictions.boxes.sum((1, 2, 3))


def test_what_is_not_ours_goes_by_its_name() -> None:
    assert str(SetCriterion(Nearest(), [Plain()])) == "Matched by Nearest().\nScored by 2 x Plain."
