"""Losses: how a matching is scored; here the contract and the losses of boxes, in `class_losses` those of classes.

The contract: a loss is a callable `(predictions, targets, matches) -> [L]`, one value for each decoder layer, with a
`name` (the key in the log) and a `weight` (0: logged only). It sees everything. Class losses must train logits whose
softmax over K+1 is the score, since that is how plain transformers serves the model.

A loss that is a sum over pairs, or over queries, can be a `PairLoss` or a `QueryLoss`; `explain` takes those apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from detr_ft.boxes import ciou, diou, giou
from detr_ft.criterion.base import PairLoss
from detr_ft.structures import Matches, Predictions, Targets


@dataclass(frozen=True)
class BoxL1Loss(PairLoss):
    """Sum of the L1 distances of matched cxcywh boxes, in fractions of the image, over `num_boxes`: `[L]`.

    Carion et al., ECCV 2020, section 3.1 and appendix A.2.
    """

    weight: float = 5.0
    name: ClassVar[str] = "loss_bbox"

    def of_pair(self, predicted: Tensor, true: Tensor) -> Tensor:
        return (predicted - true).abs().sum(-1)


@dataclass(frozen=True)
class SmoothL1Loss(PairLoss):
    """Sum of `d^2 / (2 beta)` below beta and `d - beta / 2` above, over the four distances d of matched boxes: `[L]`.

    Distances of cxcywh boxes in fractions of the image, over `num_boxes`. Girshick, ICCV 2015, equation 3: small errors
    pull less, so that boxes that are nearly right are left to GIoU.
    """

    weight: float = 5.0
    beta: float = 0.05
    name: ClassVar[str] = "loss_smooth_l1"

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"SmoothL1Loss needs a beta above 0, got {self.beta}; for 0 take BoxL1Loss")

    def of_pair(self, predicted: Tensor, true: Tensor) -> Tensor:
        return nn.functional.smooth_l1_loss(predicted, true, reduction="none", beta=self.beta).sum(-1)


@dataclass(frozen=True)
class GIoULoss(PairLoss):
    """Sum of `1 - GIoU` of matched boxes over `num_boxes`: `[L]`. Rezatofighi et al., CVPR 2019."""

    weight: float = 2.0
    name: ClassVar[str] = "loss_giou"

    def of_pair(self, predicted: Tensor, true: Tensor) -> Tensor:
        return 1 - giou(predicted, true)


@dataclass(frozen=True)
class DIoULoss(PairLoss):
    """Sum of `1 - DIoU` of matched boxes over `num_boxes`: `[L]`. Zheng et al., AAAI 2020, equation 7.

    Pulls centres together even where one box lies within the other, where GIoU is only IoU.
    """

    weight: float = 2.0
    name: ClassVar[str] = "loss_diou"

    def of_pair(self, predicted: Tensor, true: Tensor) -> Tensor:
        return 1 - diou(predicted, true)


@dataclass(frozen=True)
class CIoULoss(PairLoss):
    """Sum of `1 - CIoU` of matched boxes over `num_boxes`: `[L]`. Zheng et al., AAAI 2020, equation 10.

    DIoU with a term for the aspect ratio.
    """

    weight: float = 2.0
    name: ClassVar[str] = "loss_ciou"

    def of_pair(self, predicted: Tensor, true: Tensor) -> Tensor:
        return 1 - ciou(predicted, true)


@dataclass(frozen=True)
class CardinalityError:
    """Mean distance between the number of objects said and true: `[L]`, for the log alone, without gradient.

    The mean is over the images of the whole step, where `targets.step` says how many they are.
    """

    weight: float = 0.0
    name: ClassVar[str] = "cardinality_error"

    def __post_init__(self) -> None:
        if self.weight != 0:
            raise ValueError(f"CardinalityError has no gradient and is for the log: its weight is 0, not {self.weight}")

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        with torch.no_grad():
            said = (predictions.most_probable != predictions.num_classes).sum(-1)  # [L, B]
            true = torch.tensor(targets.counts, dtype=torch.float32).to(said.device, non_blocking=True)
            images = len(targets.counts) if targets.step is None else targets.step.images
            return (said - true).abs().sum(-1) / images
