"""Losses: how a matching is scored.

The contract: a loss is a callable `(predictions, targets, matches) -> [L]`, one value for each decoder layer, with a
`name` (the key in the log) and a `weight` (0: logged only). It sees everything. Class losses must train logits whose
softmax over K+1 is the score, since that is how plain transformers serves the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from detr_ft.boxes import at_least_fp32, cxcywh_to_xyxy, giou
from detr_ft.structures import Matches, Predictions, Targets


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


@dataclass(frozen=True)
class CrossEntropyLoss:
    """Weighted mean of `-log p(c)` over all queries of a layer, no-object weighted by `eos_coef`: `[L]`.

    Carion et al., ECCV 2020, equation 2 and section 3.1: no-object is down-weighted by 10 to account for class imbalance.
    """

    weight: float = 1.0
    eos_coef: float = 0.1
    name: ClassVar[str] = "loss_ce"

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        logits = at_least_fp32(predictions.logits)
        no_object = predictions.num_classes
        classes = torch.full(logits.shape[:3], no_object, device=logits.device)  # [L, B, Q]
        classes[matches.layer, matches.image, matches.query] = matches.target_values(targets.labels)
        nll = -logits.log_softmax(-1).gather(-1, classes[..., None])[..., 0]
        weights = torch.where(classes == no_object, self.eos_coef, 1.0)
        return (weights * nll).sum((1, 2)) / weights.sum((1, 2))


@dataclass(frozen=True)
class BoxL1Loss:
    """Sum of the L1 distances of matched cxcywh boxes, in fractions of the image, over `num_boxes`: `[L]`.

    Carion et al., ECCV 2020, section 3.1 and appendix A.2.
    """

    weight: float = 5.0
    name: ClassVar[str] = "loss_bbox"

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        predicted = at_least_fp32(matches.predicted(predictions.boxes))
        distance = (predicted - at_least_fp32(matches.target_values(targets.boxes))).abs().sum(-1)
        return matches.per_layer(distance) / matches.num_boxes


@dataclass(frozen=True)
class GIoULoss:
    """Sum of `1 - GIoU` of matched boxes over `num_boxes`: `[L]`. Rezatofighi et al., CVPR 2019."""

    weight: float = 2.0
    name: ClassVar[str] = "loss_giou"

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        predicted = cxcywh_to_xyxy(at_least_fp32(matches.predicted(predictions.boxes)))
        overlap = giou(predicted, cxcywh_to_xyxy(at_least_fp32(matches.target_values(targets.boxes))))
        return matches.per_layer(1 - overlap) / matches.num_boxes


@dataclass(frozen=True)
class CardinalityError:
    """Mean distance between the number of objects said and true: `[L]`, for the log alone, without gradient."""

    weight: float = 0.0
    name: ClassVar[str] = "cardinality_error"

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        with torch.no_grad():
            said = (predictions.logits.argmax(-1) != predictions.num_classes).sum(-1)  # [L, B]
            true = torch.zeros(len(targets.counts), device=said.device)
            true = true.index_add(0, targets.image, torch.ones_like(targets.image, dtype=true.dtype))
            return (said - true).abs().mean(-1)
