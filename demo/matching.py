"""The matching of one image: the predictions of every layer, and their costs, pairs and losses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from exhaustive_matcher import MAX_OBJECTS, ExhaustiveMatcher
from markup import fit, to_data_uri
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

DISPLAY_EDGE_PX = 900
AS_TRAINED, HUNGARIAN, ONE_TO_MANY, GREEDY, EXHAUSTIVE = (
    "as in training", "Hungarian", "one to many", "greedy", "exhaustive search",
)  # fmt: skip
MATCHERS: Mapping[str, Callable[[tuple[Cost, ...]], CostMatcher]] = {
    HUNGARIAN: HungarianMatcher,
    ONE_TO_MANY: lambda costs: OneToManyMatcher(k=3, costs=costs),
    GREEDY: GreedyMatcher,
    EXHAUSTIVE: ExhaustiveMatcher,
}
TERM_NAMES = {"ClassCost": "class", "BoxL1Cost": "L1", "GIoUCost": "GIoU"}
LOSS_NAMES = {"loss_ce": "class", "loss_bbox": "L1", "loss_giou": "GIoU"}


@dataclass(frozen=True)
class MatchSettings:
    """Cost weights, matcher and weight of no-object, applied to the criterion `base`."""

    weights: tuple[float, ...] = (1.0, 5.0, 2.0)
    matcher: str = HUNGARIAN
    eos_coef: float = 0.1
    base: SetCriterion = field(default_factory=detr_criterion)

    @property
    def criterion(self) -> SetCriterion:
        """The base criterion with these settings; `AS_TRAINED` leaves its matcher unchanged."""
        losses = [
            replace(loss, eos_coef=self.eos_coef) if isinstance(loss, CrossEntropyLoss) else loss
            for loss in self.base.losses
        ]
        if self.matcher == AS_TRAINED:
            return SetCriterion(self.base.matcher, losses)
        pairs = zip(costs_of(self.base), self.weights, strict=True)
        return SetCriterion(MATCHERS[self.matcher](tuple(with_weight(cost, weight) for cost, weight in pairs)), losses)


def costs_of(criterion: SetCriterion) -> tuple[Cost, ...]:
    """Return the costs that match the last layer, or DETR's if the matcher has none."""
    matcher = criterion.matcher
    if isinstance(matcher, MatcherSchedule):
        matcher = matcher.matchers[-1]
    if isinstance(matcher, LayerMatcher):
        matcher = matcher.last
    return tuple(matcher.costs) if isinstance(matcher, CostMatcher) else DETR_COSTS


def with_weight(cost: Cost, weight: float) -> Cost:
    """Return a copy of a cost with another weight."""
    weighted = copy.copy(cost)
    if weighted is not cost:  # copying a function returns the function
        object.__setattr__(weighted, "weight", weight)
    return weighted


def cost_names(criterion: SetCriterion) -> dict[str, str]:
    """Return the displayed names of the costs, by their names in an explanation (`GIoUCost 2`)."""
    names: dict[str, str] = {}
    for kind in (type(cost).__name__ for cost in costs_of(criterion)):
        number = sum(term.split(" ")[0] == kind for term in names) + 1
        term = kind if number == 1 else f"{kind} {number}"
        names[term] = TERM_NAMES.get(term, term)
    return names


@dataclass(frozen=True, eq=False)
class Scene:
    """An image, its ground truth, and the predictions of every layer, `[L, 1, Q, ...]`.

    `size` is that of the image. `data_uri` has the image at `display_size`; the image itself is not stored. `boxes [T, 4]`
    are xyxy in pixels of the image, with `labels [T]`.
    """

    size: tuple[int, int]
    display_size: tuple[int, int]
    data_uri: str
    boxes: Tensor
    labels: Tensor
    predictions: Predictions

    def with_truth(self, boxes: Sequence[Sequence[float]], labels: Sequence[int]) -> Scene:
        """Return the same image and predictions with other objects."""
        corners = torch.tensor(boxes, dtype=torch.float).reshape(-1, 4)
        return replace(self, boxes=corners, labels=torch.tensor(labels, dtype=torch.long))

    @property
    def sides(self) -> Tensor:
        """Width, height, width, height of the image in pixels."""
        return torch.tensor([*self.size, *self.size], dtype=torch.float)

    @property
    def targets(self) -> Targets:
        """The ground truth for a criterion."""
        truth = {"class_labels": self.labels, "boxes": to_fractions(self.boxes, self.size)}
        return Targets.from_labels([truth], torch.device("cpu"))


@dataclass(frozen=True, eq=False)
class MatchedScene:
    """A scene with the explanation of its matching and loss under some settings."""

    scene: Scene
    settings: MatchSettings
    explanation: ImageExplanation

    @property
    def num_layers(self) -> int:
        """The number of decoder layers."""
        return len(self.explanation.layers)

    def layer(self, number: int) -> LayerExplanation:
        """Return the explanation of a layer, counted from 1."""
        return self.explanation.layers[number - 1]

    def probabilities(self, number: int) -> Tensor:
        """Return the class probabilities of a layer, `[Q, K+1]`."""
        return self.scene.predictions.probabilities[number - 1, 0]

    def overlaps(self, number: int) -> Tensor:
        """Return the IoU of each object with the box of each query at a layer, `[T, Q]`."""
        return iou(self.scene.targets.boxes[:, None], self.scene.predictions.boxes[number - 1, 0][None])

    def losses(self) -> dict[str, list[tuple[float, float]]]:
        """Return for each loss and layer the weighted parts of the matched pairs and of the other queries."""
        return {
            name: [
                (sum(pair.losses.get(name, 0.0) for pair in layer.pairs), layer.no_object.get(name, 0.0))
                for layer in self.explanation.layers
            ]
            for name in self.explanation.layers[0].no_object
        }

    def last_loss(self) -> float:
        """Return the weighted loss of the last layer."""
        return sum(sum(parts[-1]) for parts in self.losses().values())


def predict_scene(
    detector: Detector,
    image: Image.Image,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    size: tuple[int, int] | None = None,
) -> Scene:
    """Run the model on an image with ground truth, boxes xyxy in its pixels.

    `size` is that of the original in whose pixels the boxes are, if the image was resized.
    """
    empty = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    display_size = fit(image.size, DISPLAY_EDGE_PX)
    uri = to_data_uri(image, display_size)
    scene = Scene(size or image.size, display_size, uri, *empty, detector.predictions(image))
    return scene.with_truth(boxes, labels)


def try_match(scene: Scene, settings: MatchSettings) -> MatchedScene | str:
    """Match a scene, or return a message about settings or objects that can't be matched."""
    if not any(settings.weights):
        return "All cost weights are 0, so every matching has the same cost. Increase one of them."
    if settings.matcher == EXHAUSTIVE and len(scene.boxes) > MAX_OBJECTS:
        return f"Exhaustive search is limited to {MAX_OBJECTS} objects, got {len(scene.boxes)}. Choose another matcher."
    try:
        return match_scene(scene, settings)
    except CriterionError as error:
        return f"These objects can't be matched: {error}"


def match_scene(scene: Scene, settings: MatchSettings) -> MatchedScene:
    """Match a scene and explain costs and loss."""
    (explanation,) = explain(settings.criterion, scene.predictions, scene.targets)
    return MatchedScene(scene, settings, explanation)
