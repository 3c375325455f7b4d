"""Losses of boxes, and the error of the number of objects.

A loss is a callable `(predictions, targets, matches) -> [L]`, one value for each layer, with a `name` (the key in the
log) and a `weight` (0: logged only). Boxes are cxcywh in fractions of the image. `of_pair` compares predicted and true
boxes `[M, 4]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from detr_ft.boxes import ciou, diou, giou
from detr_ft.criterion.base import ANY_ACTIVATION, PairLoss
from detr_ft.structures import Matches, Predictions, Targets


@dataclass(frozen=True)
class BoxL1Loss(PairLoss):
    """Sum of the L1 distances of matched boxes over `num_boxes`: `[L]`.

    Paper: Carion et al., ECCV 2020, section 3.1 and appendix A.2.
    Relations: `SmoothL1Loss` weights errors below its beta less. `GIoULoss` is relative to the size, this is absolute.
    When to choose: beside an IoU loss. Alone it neglects errors of small boxes.

    >>> BoxL1Loss().of_pair(torch.tensor([[0.5, 0.5, 0.4, 0.4]]), torch.tensor([[0.5, 0.5, 0.4, 0.2]]))
    tensor([0.2000])
    """

    weight: float = 5.0
    name: ClassVar[str] = "loss_bbox"
    activations: ClassVar[frozenset[str]] = ANY_ACTIVATION
    paper: ClassVar[str] = "Carion et al., ECCV 2020, section 3.1 (arXiv:2005.12872)"

    def of_pair(self, predicted: Tensor, true: Tensor) -> Tensor:
        return (predicted - true).abs().sum(-1)


@dataclass(frozen=True)
class SmoothL1Loss(PairLoss):
    """Sum of the smooth L1 distances of matched boxes over `num_boxes`: `[L]`.

    Formula: for each of the four distances d, `d^2 / (2 beta)` below beta and `d - beta / 2` above.
    Paper: Girshick, ICCV 2015, equation 3, where beta is 1 and boxes are relative to anchors.
    Relations: `BoxL1Loss` is the limit for beta 0.
    When to choose: for noisy annotations. Small errors have a small gradient and are left to the IoU loss.

    >>> SmoothL1Loss(beta=0.1).of_pair(torch.tensor([[0.5, 0.5, 0.4, 0.4]]), torch.tensor([[0.5, 0.5, 0.4, 0.2]]))
    tensor([0.1500])
    """

    weight: float = 5.0
    beta: float = 0.05
    name: ClassVar[str] = "loss_smooth_l1"
    activations: ClassVar[frozenset[str]] = ANY_ACTIVATION
    paper: ClassVar[str] = "Girshick, ICCV 2015, equation 3 (arXiv:1504.08083)"

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"SmoothL1Loss: beta must be above 0, got {self.beta}. Use BoxL1Loss for 0")

    def of_pair(self, predicted: Tensor, true: Tensor) -> Tensor:
        return nn.functional.smooth_l1_loss(predicted, true, reduction="none", beta=self.beta).sum(-1)


@dataclass(frozen=True)
class GIoULoss(PairLoss):
    """Sum of `1 - GIoU` of matched boxes over `num_boxes`: `[L]`, for each pair in 0 to 2.

    Paper: Rezatofighi et al., CVPR 2019.
    Relations: `1 - IoU` where one box contains the other. `DIoULoss` and `CIoULoss` replace the area of the hull by its
    diagonal.
    When to choose: by default. Boxes that do not overlap have a gradient, which IoU lacks.

    >>> GIoULoss().of_pair(torch.tensor([[0.5, 0.5, 0.4, 0.4]]), torch.tensor([[0.5, 0.5, 0.4, 0.2]]))
    tensor([0.5000])
    """

    weight: float = 2.0
    name: ClassVar[str] = "loss_giou"
    activations: ClassVar[frozenset[str]] = ANY_ACTIVATION
    paper: ClassVar[str] = "Rezatofighi et al., CVPR 2019 (arXiv:1902.09630)"

    def of_pair(self, predicted: Tensor, true: Tensor) -> Tensor:
        return 1 - giou(predicted, true)


@dataclass(frozen=True)
class DIoULoss(PairLoss):
    """Sum of `1 - DIoU` of matched boxes over `num_boxes`: `[L]`, for each pair in 0 to 2.

    Formula: `1 - IoU + d^2 / diagonal^2`, with the distance d of the centers and the diagonal of the hull.
    Paper: Zheng et al., AAAI 2020, equation 7.
    Relations: `CIoULoss` adds the aspect ratio. Unlike `GIoULoss` it moves centers together inside a containing box.
    When to choose: where GIoU converges slowly, and in crowds.

    >>> DIoULoss().of_pair(torch.tensor([[0.5, 0.5, 0.4, 0.4]]), torch.tensor([[0.5, 0.5, 0.4, 0.2]]))
    tensor([0.5000])
    """

    weight: float = 2.0
    name: ClassVar[str] = "loss_diou"
    activations: ClassVar[frozenset[str]] = ANY_ACTIVATION
    paper: ClassVar[str] = "Zheng et al., AAAI 2020, equation 7 (arXiv:1911.08287)"

    def of_pair(self, predicted: Tensor, true: Tensor) -> Tensor:
        return 1 - diou(predicted, true)


@dataclass(frozen=True)
class CIoULoss(PairLoss):
    """Sum of `1 - CIoU` of matched boxes over `num_boxes`: `[L]`, for each pair in 0 to 3.

    Formula: that of `DIoULoss` plus `alpha v`, where v compares the aspect ratios (`boxes.ciou`).
    Paper: Zheng et al., AAAI 2020, equation 10.
    Relations: `DIoULoss` where both boxes have one aspect ratio.
    When to choose: where the aspect ratio of boxes matters.

    >>> CIoULoss().of_pair(torch.tensor([[0.5, 0.5, 0.4, 0.4]]), torch.tensor([[0.5, 0.5, 0.4, 0.2]]))
    tensor([0.5032])
    """

    weight: float = 2.0
    name: ClassVar[str] = "loss_ciou"
    activations: ClassVar[frozenset[str]] = ANY_ACTIVATION
    paper: ClassVar[str] = "Zheng et al., AAAI 2020, equation 10 (arXiv:1911.08287)"

    def of_pair(self, predicted: Tensor, true: Tensor) -> Tensor:
        return 1 - ciou(predicted, true)


@dataclass(frozen=True)
class CardinalityError:
    """Mean absolute error of the number of objects predicted in an image: `[L]`, without gradient.

    A query counts as an object where no-object is not its most probable class. The mean is over the images of the whole
    step where `targets.step` is given.
    Relations: of no paper; the implementation of DETR logs it under this name.
    When to choose: to log whether the model predicts too many objects or too few. Its weight is 0.

    >>> from detr_ft.criterion.checking.cases import example
    >>> CardinalityError()(*example())
    tensor([0.])
    """

    weight: float = 0.0
    name: ClassVar[str] = "cardinality_error"
    activations: ClassVar[frozenset[str]] = ANY_ACTIVATION
    paper: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if self.weight != 0:
            raise ValueError(f"CardinalityError: weight must be 0, got {self.weight}, because it has no gradient")

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        with torch.no_grad():
            predicted = (predictions.most_probable != predictions.num_classes).sum(-1)  # [L, B]
            true = torch.tensor(targets.counts, dtype=torch.float32).to(predicted.device, non_blocking=True)
            images = len(targets.counts) if targets.step is None else targets.step.images
            return (predicted - true).abs().sum(-1) / images
