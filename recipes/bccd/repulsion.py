"""Repulsion from neighboring objects, for crowded scenes (Wang et al., CVPR 2018, arXiv:1711.07752)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from detr_ft.boxes import cxcywh_to_xyxy
from detr_ft.structures import Matches, Predictions, Targets


@dataclass(frozen=True)
class RepulsionLoss:
    """Sum over pairs of a penalty for covering the nearest other object, over `num_boxes`: `[L]`.

    Formula (RepGT of the paper): `-log(1 - IoG)` up to sigma and linear above. IoG is the intersection divided by the
    area of the object, for the object that the box covers most of those it is not matched with.
    """

    weight: float = 0.5
    sigma: float = 0.5
    name: ClassVar[str] = "loss_repulsion"

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        if len(targets.labels) == 0:
            return matches.per_layer(matches.predicted(predictions.boxes).float().sum(-1))
        boxes = cxcywh_to_xyxy(matches.predicted(predictions.boxes).float())[:, None]  # [M, 1, 4]
        truth = cxcywh_to_xyxy(targets.boxes.float())  # [P, 4]
        sides = (torch.minimum(boxes[..., 2:], truth[:, 2:]) - torch.maximum(boxes[..., :2], truth[:, :2])).clamp(min=0)
        area = (truth[:, 2:] - truth[:, :2]).prod(-1).clamp(min=1e-6)
        covered = sides.prod(-1) / area  # [M, P]
        others = (matches.image[:, None] == targets.image) & (
            matches.target[:, None] != torch.arange(len(area), device=area.device)
        )
        most = covered.where(others, torch.zeros_like(covered)).amax(1)
        near = -torch.log1p(-most.clamp(max=self.sigma))
        far = (most - self.sigma).clamp(min=0) / (1 - self.sigma)
        return matches.per_layer(near + far) / matches.num_boxes
