"""Costs: what giving a query to a target would cost. They decide the matching and carry no gradient.

The contract: a cost is a callable `(predictions, targets) -> [L, P, Q]` with a `weight`; entry `[l, p, q]` is the cost of
giving target p the query q *of its own image* at layer l. Built-in terms are frozen dataclasses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from detr_ft.boxes import at_least_fp32, cxcywh_to_xyxy, giou
from detr_ft.structures import Predictions, Targets


@runtime_checkable
class Cost(Protocol):
    """A callable `(predictions, targets) -> [L, P, Q]`, fp32 and finite, with a `weight`."""

    @property
    def weight(self) -> float:
        """The factor of this term in the sum that is minimised."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        """The unweighted cost `[L, P, Q]` of giving each target each query of its own image."""


@dataclass(frozen=True)
class ClassCost:
    """Minus the probability of the target's class, `-p(c)`, softmax over K+1: `[L, P, Q]` in -1 to 0.

    Carion et al., ECCV 2020, section 3.1: the probability rather than its logarithm, so that the class term is
    commensurable with the box terms.
    """

    weight: float = 1.0

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        logits = at_least_fp32(predictions.logits)
        log_total = logits.logsumexp(-1)[:, targets.image]  # [L, P, Q]
        chosen = logits[:, targets.image, :, targets.labels].transpose(0, 1)  # [L, P, Q]: advanced indices come first
        return -(chosen - log_total).exp()


@dataclass(frozen=True)
class BoxL1Cost:
    """The L1 distance of cxcywh boxes in fractions of the image: `[L, P, Q]`. Carion et al., ECCV 2020, equation 1."""

    weight: float = 5.0

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        boxes = at_least_fp32(predictions.boxes)[:, targets.image]  # [L, P, Q, 4]
        return (boxes - at_least_fp32(targets.boxes)[:, None]).abs().sum(-1)


@dataclass(frozen=True)
class GIoUCost:
    """Minus the generalized IoU: `[L, P, Q]` in -1 to 1. Carion et al., ECCV 2020, equation 1; Rezatofighi et al., CVPR 2019."""

    weight: float = 2.0

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        boxes = cxcywh_to_xyxy(at_least_fp32(predictions.boxes))[:, targets.image]  # [L, P, Q, 4]
        return -giou(boxes, cxcywh_to_xyxy(at_least_fp32(targets.boxes))[:, None])


def total_cost(costs: tuple[Cost, ...], predictions: Predictions, targets: Targets) -> Tensor:
    """The weighted sum of the costs: `[L, P, Q]`, without gradient."""
    with torch.no_grad():
        total = torch.zeros(
            predictions.num_layers, len(targets.labels), predictions.num_queries, device=predictions.device
        )
        for cost in costs:
            total = total + cost.weight * cost(predictions, targets)
        return total
