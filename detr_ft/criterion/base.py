"""The contracts of costs, losses and matchers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from detr_ft.boxes import at_least_fp32
from detr_ft.structures import Matches, Predictions, Targets


@runtime_checkable
class Cost(Protocol):
    """A callable `(predictions, targets) -> [L, P, Q]`, fp32 and finite, with a `weight`."""

    @property
    def weight(self) -> float:
        """The factor of this term in the sum that is minimised."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        """The unweighted cost `[L, P, Q]` of giving each target each query of its own image."""


@runtime_checkable
class Loss(Protocol):
    """A callable `(predictions, targets, matches) -> [L]` with a `name` and a `weight`."""

    @property
    def name(self) -> str:
        """The key under which the unweighted value is logged."""

    @property
    def weight(self) -> float:
        """The factor of this term in the sum that is trained; 0 is logged only."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        """The unweighted loss of each layer, `[L]`."""


class PairLoss(ABC):
    """A loss that is a sum over matched pairs of how far two boxes are apart, over `num_boxes`."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        return matches.per_layer(self._of_pairs(predictions, targets, matches)) / matches.num_boxes

    def per_pair(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        """The share of each pair in the loss, `[M]`."""
        return self._of_pairs(predictions, targets, matches) / matches.num_boxes[matches.layer]

    def _of_pairs(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        predicted = at_least_fp32(matches.predicted(predictions.boxes))
        if predicted.requires_grad and predictions.boxes.dtype == torch.float16:
            predicted.register_hook(_within_half)
        return self.of_pair(predicted, at_least_fp32(matches.target_values(targets.boxes)))

    @abstractmethod
    def of_pair(self, predicted: Tensor, true: Tensor) -> Tensor:
        """How far boxes are apart: cxcywh, fractions of the image, twice `[M, 4]` to `[M]`."""


def _within_half(gradient: Tensor) -> Tensor:
    """Near boxes of no area the gradient is steep; what fp16 can't hold becomes the most that it holds."""
    most = torch.finfo(torch.float16).max
    return gradient.clamp(-most, most)


class QueryLoss(ABC):
    """A loss that is a sum over queries, matched or not."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        return self.per_query(predictions, targets, matches).sum((1, 2))

    @abstractmethod
    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        """The share of each query, `[L, B, Q]`."""


@runtime_checkable
class Matcher(Protocol):
    """A callable `(predictions, targets) -> Matches`: for each pair its layer, image, query and target.

    One of your own is a frozen dataclass, as a term is. Targets are counted over the whole batch, and `num_boxes [L]` is
    what box losses are divided by: `targets.num_boxes` at each layer, times k where each target gets k queries.

    >>> class First:  # the first queries of an image for its targets, at every layer
    ...     def __call__(self, predictions, targets):
    ...         query = torch.cat([torch.arange(count) for count in targets.counts])
    ...         layer = torch.arange(predictions.num_layers).repeat_interleave(len(query))
    ...         image, query, target = (
    ...             one.repeat(predictions.num_layers) for one in (targets.image, query, torch.arange(len(query)))
    ...         )
    ...         return Matches(layer, image, query, target, torch.ones(predictions.num_layers) * targets.num_boxes)
    >>> isinstance(First(), Matcher)
    True
    """

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        """The pairs of queries and targets that are trained together."""
