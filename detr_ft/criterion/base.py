"""Contracts of costs, losses and matchers, and the checks that every term passes.

A term is a callable, and in recipes and checkpoints a frozen dataclass. Two class attributes are optional:
`activations` names the activations of a model that the term supports (any, where it is missing), and `paper` cites
its source for the model card. The terms of this package raise ValueError for an invalid parameter.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from detr_ft.boxes import at_least_fp32
from detr_ft.structures import Matches, Predictions, Targets

SOFTMAX, SIGMOID = frozenset({"softmax"}), frozenset({"sigmoid"})
ANY_ACTIVATION = frozenset({"softmax", "sigmoid"})


@runtime_checkable
class Cost(Protocol):
    """A callable `(predictions, targets) -> [L, P, Q]`, fp32 and finite, with a `weight`."""

    @property
    def weight(self) -> float:
        """The factor of this term in the sum that the matching minimizes."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        """The unweighted cost `[L, P, Q]` of matching each target with each query of its own image."""


@runtime_checkable
class Loss(Protocol):
    """A callable `(predictions, targets, matches) -> [L]` with a `name` and a `weight`."""

    @property
    def name(self) -> str:
        """The key under which the unweighted value is logged."""

    @property
    def weight(self) -> float:
        """The factor of this term in the sum that is trained; 0 means logged only."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        """The unweighted loss of each layer, `[L]`."""


class PairLoss(ABC):
    """A loss that sums a distance of two boxes over matched pairs and divides by `num_boxes`."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        return matches.per_layer(self._distances(predictions, targets, matches)) / matches.num_boxes

    def per_pair(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        """The part of each pair in the loss, `[M]`."""
        return self._distances(predictions, targets, matches) / matches.num_boxes[matches.layer]

    def _distances(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        predicted = at_least_fp32(matches.predicted(predictions.boxes))
        if predicted.requires_grad and predictions.boxes.dtype == torch.float16:
            predicted.register_hook(_clamp_to_fp16)
        return self.of_pair(predicted, at_least_fp32(matches.target_values(targets.boxes)))

    @abstractmethod
    def of_pair(self, predicted: Tensor, true: Tensor) -> Tensor:
        """The distance of boxes in cxcywh, fractions of the image: twice `[M, 4]` to `[M]`."""


def _clamp_to_fp16(gradient: Tensor) -> Tensor:
    """Limit a gradient, which is steep near boxes without area, to the range of fp16."""
    largest = torch.finfo(torch.float16).max
    return gradient.clamp(-largest, largest)


class QueryLoss(ABC):
    """A loss that sums over all queries, matched or not."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        return self.per_query(predictions, targets, matches).sum((1, 2))

    @abstractmethod
    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        """The part of each query in the loss, `[L, B, Q]`."""


@runtime_checkable
class Matcher(Protocol):
    """A callable `(predictions, targets) -> Matches`: the layer, image, query and target of each pair.

    Targets are counted over the whole batch. Box losses divide by `num_boxes [L]`: `targets.num_boxes` for every layer,
    times k where each target has k queries.

    >>> class FirstQueries:  # the first queries of each image, in every layer
    ...     def __call__(self, predictions, targets):
    ...         query = torch.cat([torch.arange(count) for count in targets.counts])
    ...         layer = torch.arange(predictions.num_layers).repeat_interleave(len(query))
    ...         image, query, target = (
    ...             index.repeat(predictions.num_layers) for index in (targets.image, query, torch.arange(len(query)))
    ...         )
    ...         return Matches(layer, image, query, target, torch.ones(predictions.num_layers) * targets.num_boxes)
    >>> isinstance(FirstQueries(), Matcher)
    True
    """

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        """The pairs of queries and targets that are trained together."""


def check_weight(term: Cost | Loss) -> None:
    """Raise ValueError for a term whose weight is negative, infinite or no number."""
    weight: object = term.weight
    if not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
        raise ValueError(f"{term!r}: weight must be a finite number of 0 or above, got {weight!r}")


def check_not_learnable(term: object) -> None:
    """Raise TypeError for a term with parameters of its own."""
    values = term.parameters() if isinstance(term, nn.Module) else getattr(term, "__dict__", {}).values()
    if any(isinstance(value, nn.Parameter) for value in values):
        raise TypeError(
            f"{type(term).__name__}: a term has no learnable weights, because no optimizer would train them and the "
            "saved model would lack them. Compute the term from predictions and targets alone"
        )
