"""The matching of one image, to be looked at: what the model says of it at every layer, and what a criterion makes of that."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from exhaustive_matcher import MOST, TryingMatcher
from markup import embedded
from PIL import Image
from torch import Tensor

from detr_ft.boxes import iou
from detr_ft.criterion import (
    CostMatcher,
    CriterionError,
    CrossEntropyLoss,
    GreedyMatcher,
    HungarianMatcher,
    LayerMatcher,
    MatcherSchedule,
    OneToManyMatcher,
    SetCriterion,
    detr_criterion,
    explain,
)
from detr_ft.criterion.base import Cost
from detr_ft.criterion.explain import ImageExplanation, LayerExplanation
from detr_ft.criterion.matchers import DETR_COSTS
from detr_ft.data.box_frame import to_fractions
from detr_ft.inference import Detector
from detr_ft.structures import Predictions, Targets

DISPLAY_EDGE = 900  # pixels of the longest edge of a picture
MATCHERS: Mapping[str, Callable[[tuple[Cost, ...]], CostMatcher]] = {
    "Hungarian": HungarianMatcher,
    "one to many": lambda costs: OneToManyMatcher(k=3, costs=costs),
    "greedy": GreedyMatcher,
    "trying all orders": TryingMatcher,
}
AS_TRAINED = "as it was trained"
TERMS = {"ClassCost": "class", "BoxL1Cost": "L1", "GIoUCost": "GIoU"}
LOSSES = {"loss_ce": "class", "loss_bbox": "L1", "loss_giou": "GIoU"}


@dataclass(frozen=True)
class Knobs:
    """What can be turned: weights of the costs, the matcher, and the weight of no-object in the loss; the rest is `own`'s."""

    weights: tuple[float, ...] = (1.0, 5.0, 2.0)
    matcher: str = "Hungarian"
    eos_coef: float = 0.1
    own: SetCriterion = field(default_factory=detr_criterion)

    @property
    def criterion(self) -> SetCriterion:
        """The criterion that they make."""
        matcher = self.own.matcher if self.matcher == AS_TRAINED else self.match_by(self.matcher)
        losses = [
            replace(loss, eos_coef=self.eos_coef) if isinstance(loss, CrossEntropyLoss) else loss
            for loss in self.own.losses
        ]
        return SetCriterion(matcher, losses)

    def match_by(self, name: str) -> CostMatcher:
        """A matcher of `MATCHERS` on the weighted costs."""
        costs = tuple(
            weighing(cost, weight) for cost, weight in zip(costs_of(self.own), self.weights, strict=True)
        )  # fmt: skip
        return MATCHERS[name](costs)


def costs_of(criterion: SetCriterion) -> tuple[Cost, ...]:
    """The costs that the last layer is matched by; DETR's own where the matcher has none."""
    matcher = criterion.matcher
    if isinstance(matcher, MatcherSchedule):
        matcher = matcher.matchers[-1]
    if isinstance(matcher, LayerMatcher):
        matcher = matcher.last
    return tuple(matcher.costs) if isinstance(matcher, CostMatcher) else DETR_COSTS


def weighing(cost: Cost, weight: float) -> Cost:
    """The same cost with another weight."""
    weighted = copy.copy(cost)
    if weighted is not cost:  # a function is its own copy
        object.__setattr__(weighted, "weight", weight)
    return weighted


def cost_names(criterion: SetCriterion) -> dict[str, str]:
    """What the terms of an explanation are called, by their names in it."""
    kinds = [type(cost).__name__ for cost in costs_of(criterion)]
    terms = [kind if kinds[:place].count(kind) == 0 else f"{kind} {kinds[:place].count(kind) + 1}" for place, kind in enumerate(kinds)]  # fmt: skip
    return {term: TERMS.get(term, term) for term in terms}


@dataclass(frozen=True, eq=False)
class Scene:
    """An image, its truth (`boxes [T, 4]` xyxy in its pixels, `labels [T]`), and what the model says at every layer, `[L, 1, Q, ...]`.

    Of the picture the `address` of one at display size is kept, of `shape`; `size` is its own.
    """

    name: str
    size: tuple[int, int]
    shape: tuple[int, int]
    address: str
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
        return torch.tensor([*self.size, *self.size], dtype=torch.float)

    @property
    def targets(self) -> Targets:
        """The truth as a criterion takes it."""
        truth = {"class_labels": self.labels, "boxes": to_fractions(self.boxes, self.size)}
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
        return self.scene.predictions.probabilities[number - 1, 0]

    def overlaps(self, number: int) -> Tensor:
        """`[T, Q]`: the IoU of each object with each query's box."""
        return iou(self.scene.targets.boxes[:, None], self.scene.predictions.boxes[number - 1, 0][None])

    def losses(self) -> dict[str, list[tuple[float, float]]]:
        """For each loss and layer, weighted, what matched pairs add to it and what the other queries do."""
        return {
            name: [
                (sum(pair.losses.get(name, 0.0) for pair in layer.pairs), layer.no_object.get(name, 0.0))
                for layer in self.told.layers
            ]
            for name in self.told.layers[0].no_object
        }


def look(
    detector: Detector, name: str, picture: Image.Image, boxes: Sequence[Sequence[float]], labels: Sequence[int]
) -> Scene:
    """Ask the model about an image with some truth: boxes xyxy in its pixels."""
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    scale = DISPLAY_EDGE / max(picture.size)
    shape = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    address = embedded(picture.convert("RGB").resize(shape, Image.Resampling.LANCZOS))
    return Scene(name, picture.size, shape, address, *nothing, detector.predictions(picture)).with_truth(boxes, labels)


def tried(scene: Scene, knobs: Knobs) -> Solved | str:
    """The same where there is an answer, else why there is none, in words."""
    if not any(knobs.weights):
        return "All weights of the costs are 0: any matching is as good as another. Raise one of them."
    if knobs.matcher == "trying all orders" and len(scene.boxes) > MOST:
        return f"There are {len(scene.boxes)} objects here, and all orders of more than {MOST} are too many to try."
    try:
        return solve(scene, knobs)
    except CriterionError as error:
        return f"This truth can't be matched: {error}"


def solve(scene: Scene, knobs: Knobs) -> Solved:
    """Match it and take the loss apart."""
    (told,) = explain(knobs.criterion, scene.predictions, scene.targets)
    return Solved(scene, knobs, told)
