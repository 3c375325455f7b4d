"""The matching of one image, to be looked at: what the model says of it at every layer, and what a criterion makes of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from detr_ft.boxes import iou, xyxy_to_cxcywh
from detr_ft.criterion import (
    BoxL1Cost,
    BoxL1Loss,
    ClassCost,
    CostMatcher,
    CrossEntropyLoss,
    GIoUCost,
    GIoULoss,
    GreedyMatcher,
    HungarianMatcher,
    OneToManyMatcher,
    SetCriterion,
    explain,
)
from detr_ft.criterion.explain import ImageExplanation, LayerExplanation
from detr_ft.inference import Detector
from detr_ft.structures import Predictions, Targets

MATCHERS = ("Hungarian", "one to many", "greedy")
TERMS = {"ClassCost": "class", "BoxL1Cost": "L1", "GIoUCost": "GIoU"}
LOSSES = {"loss_ce": "class", "loss_bbox": "L1", "loss_giou": "GIoU"}


@dataclass(frozen=True)
class Knobs:
    """What can be turned: weights of the costs (class, L1, GIoU), the matcher, and the weight of no-object in the loss."""

    weights: tuple[float, float, float] = (1.0, 5.0, 2.0)
    matcher: str = MATCHERS[0]
    eos_coef: float = 0.1

    @property
    def criterion(self) -> SetCriterion:
        """The criterion that they make."""
        return SetCriterion(
            self.match_by(self.matcher), [CrossEntropyLoss(eos_coef=self.eos_coef), BoxL1Loss(), GIoULoss()]
        )

    def match_by(self, name: str) -> CostMatcher:
        """A matcher of `MATCHERS` on the weighted costs."""
        of_class, l1, giou = self.weights
        costs = (ClassCost(weight=of_class), BoxL1Cost(weight=l1), GIoUCost(weight=giou))
        if name == "one to many":
            return OneToManyMatcher(k=3, costs=costs)
        return GreedyMatcher(costs) if name == "greedy" else HungarianMatcher(costs)


@dataclass(frozen=True, eq=False)
class Scene:
    """An image, its truth (`boxes [T, 4]` xyxy in its pixels, `labels [T]`), and what the model says at every layer, `[L, 1, Q, ...]`."""

    name: str
    picture: Image.Image
    boxes: Tensor
    labels: Tensor
    predictions: Predictions

    def with_truth(self, boxes: Sequence[Sequence[float]], labels: Sequence[int]) -> Scene:
        """The same image with other objects; the model is not asked again."""
        told = torch.tensor(boxes, dtype=torch.float).reshape(-1, 4)
        return replace(self, boxes=told, labels=torch.tensor(labels, dtype=torch.long))

    @property
    def sides(self) -> Tensor:
        """Width, height, width, height."""
        return torch.tensor([*self.picture.size, *self.picture.size], dtype=torch.float)

    @property
    def targets(self) -> Targets:
        """The truth as a criterion takes it."""
        truth = {"class_labels": self.labels, "boxes": xyxy_to_cxcywh(self.boxes / self.sides)}
        return Targets.from_labels([truth], torch.device("cpu"))


@dataclass(frozen=True, eq=False)
class Solved:
    """A scene under some knobs."""

    scene: Scene
    knobs: Knobs
    told: ImageExplanation

    def layer(self, number: int) -> LayerExplanation:
        """Counted from 1, as people do."""
        return self.told.layers[number - 1]

    def probabilities(self, number: int) -> Tensor:
        """`[Q, K+1]` at a layer."""
        return self.scene.predictions.logits[number - 1, 0].softmax(-1)

    def overlaps(self, number: int) -> Tensor:
        """`[T, Q]`: the IoU of each object with each query's box."""
        return iou(self.scene.targets.boxes[:, None], self.scene.predictions.boxes[number - 1, 0][None])

    def losses(self) -> dict[str, list[tuple[float, float]]]:
        """For each loss and layer, weighted, what matched pairs add to it and what the other queries do."""
        return {
            name: [
                (sum(pair.shares.get(name, 0.0) for pair in layer.pairs), layer.no_object.get(name, 0.0))
                for layer in self.told.layers
            ]
            for name in LOSSES
        }


def look(
    detector: Detector, name: str, picture: Image.Image, boxes: Sequence[Sequence[float]], labels: Sequence[int]
) -> Scene:
    """Ask the model about an image with some truth: boxes xyxy in its pixels."""
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    return Scene(name, picture, *nothing, detector.predictions(picture)).with_truth(boxes, labels)


def solve(scene: Scene, knobs: Knobs) -> Solved:
    """Match it and take the loss apart."""
    (told,) = explain(knobs.criterion, scene.predictions, scene.targets)
    return Solved(scene, knobs, told)
